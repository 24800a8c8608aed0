// Package report renders statements and reconciliations as text for a terminal, as CSV
// and as JSON. The JSON is a contract: docs/output.md describes it, its version says
// when it changes, and money in it is always a decimal string.
package report
