// Package upstream is the way to AWS: an http.RoundTripper for calls that are whole in
// memory, over HTTP/1.1 connections that are kept. A call runs in its caller's goroutine
// from its first byte to its last; net/http hands each one through two more, and holds
// two buffers and two goroutines for each connection; here a connection that waits, be it
// for a call, for an answer or for the next event of a stream, holds none.
//
// What an answer means does not depend on who asks: its head is read here if it is as
// plain as AWS's are, and by net/http if there is any doubt, and a fuzzer holds the two
// against each other, to the last byte of the body.
//
// It never sends a call twice: a call of which one byte may have left can have run, and
// is billed. It does not follow redirects, ask for compression or keep cookies. What it
// does not know (proxies, bodies of unknown length, other protocols) it leaves to the
// transport that it is given for that.
package upstream
