// Package gateway takes one call from its caller to Bedrock and back. It is the order
// of questions: who calls, what is it, may it pass and with which tags, under which
// role; and then it forwards, meters and records. What each question means is known
// elsewhere.
//
// A call is opened in the journal before it leaves and is on disk before the first
// byte of its answer is passed on; it is closed there before the last byte is.
package gateway
