// Package demo lets a small company live through a month: its calls pass the real
// waybilld over HTTP to a stand-in for AWS, whose logs and bill it writes down at the
// month's end. It plants differences between bill and calls, and says what it planted,
// so that the ledger can be held to finding exactly that.
package demo
