// Package ingest brings outside records into the lake, each exactly once: journal
// segments of the gateway, AWS's invocation logs, and CUR 2.0 exports of the bill.
//
// An object is loaded in the same commit as its rows, so a run that is killed goes on
// where it was, and a run over what is loaded already changes nothing. A row that
// cannot be read goes to quarantine with its place and the reason, is counted, and is
// never dropped in silence.
package ingest
