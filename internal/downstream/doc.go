// Package downstream serves callers. It reads the plain requests that SDKs send over
// HTTP/1.1 itself, each connection in one goroutine, with little memory and few wake-ups.
// Whatever is not plain, it does not judge: HTTP/2, chunked bodies, upgrades, folded lines,
// doubtful lengths and everything else go to net/http, with the bytes that were read and
// the rest of their connection. So a request that could be read in two ways is read by
// net/http alone, and what is read here net/http would read the same.
//
// A caller that leaves while its call is under way is noticed within half a second, or when
// somebody asks (Gone), where net/http keeps a goroutine waiting for it on each connection.
package downstream
