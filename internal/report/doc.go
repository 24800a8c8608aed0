// Package report renders statements, reconciliations and audits as text for a terminal,
// as CSV, JSON, SARIF and HTML. The JSON is a contract: docs/output.md describes it, its
// version says when it changes, and money in it is always a decimal string.
package report
