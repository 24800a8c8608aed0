package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// What could be one request to one server and two to another, or another request than
// the one that was let in, is refused or is one call: to AWS goes what the gateway itself
// has written, and a connection whose state can be doubted is closed.
func TestRequestSmuggling(t *testing.T) {
	noGrowth(t)
	var mu sync.Mutex
	var heads []*http.Request
	p := newPeer(t, func(v *visit) bool {
		mu.Lock()
		heads = append(heads, v.Request)
		mu.Unlock()
		v.say(jsonHead, fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smallJSON)), smallJSON)
		return true
	})
	s := p.before(t, func(_ *fakeaws.Config, g *gateway.Config) { g.MaxBody = 10_000 })
	n := 0
	name := func() string { n++; return fmt.Sprintf("n%d", n) }
	// head begins a request of its own name, and chunked is hello in chunks.
	head := func(more ...string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nAmz-Sdk-Invocation-Id: %s\r\n%s", answerPath, s.token, name(), strings.Join(more, ""))
	}
	chunked := chunk(hello) + "0\r\n\r\n"
	whole := fmt.Sprintf("Content-Length: %d\r\n", len(hello))
	good := func() string { return s.request(name(), answerPath, hello) }
	stranger := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer wbk_nobody\r\nContent-Length: %%d\r\n\r\n%%s", answerPath)
	const ok, bad, unknown = 200, 400, 501
	for _, tt := range []struct {
		name string
		send string
		want []int // the statuses, one for each request that the gateway saw
		// either lets it be one call as well: net/http may become stricter or laxer
		either bool
		end    bool // the gateway waits for more: there is none
	}{
		{name: "an ordinary call", send: good(), want: []int{ok}},
		{name: "two calls, one after the other", send: good() + good(), want: []int{ok, ok}},
		// Content-Length beside Transfer-Encoding: the coding counts, and nothing after it.
		{name: "CL.TE, a request in the rest", send: head(fmt.Sprintf("Content-Length: %d\r\n", len(chunked)+500), "Transfer-Encoding: chunked\r\n\r\n", chunked) + good(), want: []int{ok}},
		{name: "TE.CL, a request in the chunk", send: head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(good()), "0\r\n\r\n"), want: []int{bad}},
		{name: "chunked alone, and a request after it", send: head("Transfer-Encoding: chunked\r\n\r\n", chunked) + good(), want: []int{ok}},
		{name: "CL 0 and chunked", send: head("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", chunked) + good(), want: []int{ok}},
		{name: "two lengths", send: head(whole, "Content-Length: 0\r\n\r\n", hello), want: []int{bad}},
		{name: "two equal lengths", send: head(whole, whole, "\r\n", hello), want: []int{ok}, either: true},
		{name: "a list of lengths", send: head(fmt.Sprintf("Content-Length: %d, 0\r\n\r\n", len(hello)), hello), want: []int{bad}},
		{name: "a signed length", send: head(fmt.Sprintf("Content-Length: +%d\r\n\r\n", len(hello)), hello), want: []int{bad}},
		{name: "a hexadecimal length", send: head("Content-Length: 0x10\r\n\r\n", hello), want: []int{bad}},
		{name: "a negative length", send: head("Content-Length: -1\r\n\r\n", hello), want: []int{bad}},
		{name: "a length that is too large for a number", send: head("Content-Length: 99999999999999999999\r\n\r\n", hello), want: []int{bad}},
		{name: "no length", send: head("\r\n", hello, "\r\n\r\n"), want: []int{bad, bad}},
		// Spellings of the coding that one server takes and another does not.
		{name: "TE: xchunked", send: head(whole, "Transfer-Encoding: xchunked\r\n\r\n", hello), want: []int{unknown}},
		{name: "TE: chunked, identity", send: head("Transfer-Encoding: chunked, identity\r\n\r\n", chunked), want: []int{unknown}},
		{name: "TE: identity, chunked", send: head("Transfer-Encoding: identity, chunked\r\n\r\n", chunked), want: []int{unknown}},
		{name: "TE: gzip, chunked", send: head("Transfer-Encoding: gzip, chunked\r\n\r\n", chunked), want: []int{unknown}},
		{name: "TE twice", send: head("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", chunked), want: []int{unknown}},
		{name: "TE in capitals", send: head("TRANSFER-ENCODING: CHUNKED\r\n\r\n", chunked), want: []int{ok}, either: true},
		{name: "TE with a tab", send: head("Transfer-Encoding:\tchunked\r\n\r\n", chunked), want: []int{ok}, either: true},
		{name: "TE with a vertical tab", send: head(whole, "Transfer-Encoding: \vchunked\r\n\r\n", hello), want: []int{bad}, either: true},
		{name: "TE in quotes", send: head(whole, "Transfer-Encoding: \"chunked\"\r\n\r\n", hello), want: []int{unknown}},
		{name: "TE with a blank before the colon", send: head(whole, "Transfer-Encoding : chunked\r\n\r\n", hello), want: []int{bad}},
		{name: "TE after a bare LF", send: head(whole, "X: y\nTransfer-Encoding: chunked\r\n\r\n", chunked), want: []int{ok}, either: true},
		{name: "TE after a bare CR", send: head(whole, "X: y\rTransfer-Encoding: chunked\r\n\r\n", hello), want: []int{bad}},
		{name: "TE on a folded line", send: head(whole, "X: y\r\n Transfer-Encoding: chunked\r\n\r\n", hello), want: []int{ok}, either: true},
		{name: "TE folded", send: head("Transfer-Encoding:\r\n chunked\r\n\r\n", chunked), want: []int{ok}, either: true},
		{name: "TE with an underscore", send: head(whole, "Transfer_Encoding: chunked\r\n\r\n", hello), want: []int{ok}},
		{name: "TE in HTTP/1.0", send: strings.Replace(head(whole, "Transfer-Encoding: chunked\r\n\r\n", hello), "HTTP/1.1", "HTTP/1.0", 1), want: []int{bad}, either: true},
		// Chunks.
		{name: "a chunk size that is no number", send: head("Transfer-Encoding: chunked\r\n\r\n", "zz\r\n", hello, "\r\n0\r\n\r\n"), want: []int{bad}},
		{name: "a negative chunk size", send: head("Transfer-Encoding: chunked\r\n\r\n", "-5\r\n", hello, "\r\n0\r\n\r\n"), want: []int{bad}},
		{name: "a chunk size with 0x", send: head("Transfer-Encoding: chunked\r\n\r\n", "0x10\r\n", hello, "\r\n0\r\n\r\n"), want: []int{bad}},
		{name: "a chunk size of 17 digits", send: head("Transfer-Encoding: chunked\r\n\r\n", "10000000000000010\r\n", hello, "\r\n0\r\n\r\n"), want: []int{bad}},
		{name: "a huge chunk size", send: head("Transfer-Encoding: chunked\r\n\r\n", "fffffffffffffff\r\n", hello), want: []int{bad}, end: true},
		{name: "a chunk that is longer than its size", send: head("Transfer-Encoding: chunked\r\n\r\n", "5\r\n", hello, "\r\n0\r\n\r\n"), want: []int{bad}},
		{name: "a chunk that ends with LF", send: head("Transfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\n%s\n0\n\n", len(hello), hello)), want: []int{bad}, either: true},
		{name: "a chunk extension", send: head("Transfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x;a=b\r\n%s\r\n0\r\n\r\n", len(hello), hello)), want: []int{ok}, either: true},
		{name: "a chunk extension with LF", send: head("Transfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x;a\nb\r\n%s\r\n0\r\n\r\n", len(hello), hello)), want: []int{bad}},
		{name: "a chunk extension that never ends", send: head("Transfer-Encoding: chunked\r\n\r\n", "5;", strings.Repeat("a", 100_000), "\r\n"), want: []int{bad}, end: true},
		{name: "no last chunk", send: head("Transfer-Encoding: chunked\r\n\r\n", chunk(hello)), want: []int{bad}, end: true},
		{name: "trailers", send: head("Transfer-Encoding: chunked\r\nTrailer: X-Amzn-Bedrock-Request-Metadata\r\n\r\n", chunk(hello), "0\r\nX-Amzn-Bedrock-Request-Metadata: {\"team\":\"ads\"}\r\n\r\n"), want: []int{ok}},
		// The request line and the host.
		{name: "absolute form", send: strings.Replace(good(), "POST /", "POST http://elsewhere.example.com/", 1), want: []int{ok}},
		{name: "absolute form with credentials", send: strings.Replace(good(), "POST /", "POST http://user:word@elsewhere.example.com/", 1), want: []int{ok}, either: true},
		{name: "absolute form of another scheme", send: strings.Replace(good(), "POST /", "POST file:///", 1), want: []int{bad}, either: true},
		{name: "two slashes", send: strings.Replace(good(), "POST /", "POST //elsewhere.example.com/", 1), want: []int{bad}},
		{name: "authority form", send: strings.Replace(good(), "POST "+answerPath, "CONNECT elsewhere.example.com:443", 1), want: []int{bad}},
		{name: "asterisk form", send: strings.Replace(good(), "POST "+answerPath, "POST *", 1), want: []int{bad}},
		{name: "a dot segment", send: strings.Replace(good(), "/model/", "/model/../model/", 1), want: []int{bad}},
		{name: "an escaped dot segment", send: strings.Replace(good(), "/model/", "/model/%2e%2e/model/", 1), want: []int{bad}},
		{name: "a line break in the path", send: strings.Replace(good(), "/converse", "/converse%0d%0aX:%20y", 1), want: []int{bad}},
		{name: "a NUL in the path", send: strings.Replace(good(), "/converse", "%00/converse", 1), want: []int{bad}},
		{name: "a fragment", send: strings.Replace(good(), "/converse", "/converse#/model/x/invoke", 1), want: []int{bad}},
		{name: "a blank in the path", send: strings.Replace(good(), "/converse", "/con verse", 1), want: []int{bad}},
		{name: "HTTP/1.0", send: strings.Replace(good(), "HTTP/1.1", "HTTP/1.0", 1), want: []int{ok}},
		{name: "HTTP/0.9", send: "POST " + answerPath + "\r\n\r\n", want: []int{bad}, end: true},
		{name: "HTTP/2.0 in words", send: strings.Replace(good(), "HTTP/1.1", "HTTP/2.0", 1), want: []int{505}},
		{name: "two hosts", send: head("Host: elsewhere.example.com\r\n", whole, "\r\n", hello), want: []int{bad}},
		{name: "no host", send: strings.Replace(good(), "Host: gateway\r\n", "", 1), want: []int{bad}},
		{name: "a host with a path", send: strings.Replace(good(), "Host: gateway", "Host: gateway/x", 1), want: []int{bad}, either: true},
		{name: "a blank line first", send: "\r\n" + good(), want: []int{ok}, either: true},
		// Headers.
		{name: "a NUL in a value", send: head(whole, "X: a\x00b\r\n\r\n", hello), want: []int{bad}},
		{name: "a NUL in a name", send: head(whole, "X\x00: a\r\n\r\n", hello), want: []int{bad}},
		{name: "a line without a colon", send: head(whole, "X\r\n\r\n", hello), want: []int{bad}},
		{name: "an empty name", send: head(whole, ": x\r\n\r\n", hello), want: []int{bad}},
		{name: "a blank before the first header", send: strings.Replace(good(), "Host:", " Host:", 1), want: []int{bad}},
		{name: "metadata with a blank before the colon", send: head(whole, "X-Amzn-Bedrock-Request-Metadata : {\"team\":\"ads\"}\r\n\r\n", hello), want: []int{bad}},
		{name: "metadata with underscores", send: head(whole, "X_Amzn_Bedrock_Request_Metadata: {\"team\":\"ads\"}\r\n\r\n", hello), want: []int{ok}},
		{name: "metadata with one underscore", send: head(whole, "X-Amzn-Bedrock-Request_Metadata: {\"team\":\"ads\"}\r\n\r\n", hello), want: []int{ok}},
		{name: "metadata twice", send: head(whole, "X-Amzn-Bedrock-Request-Metadata: {}\r\nx-amzn-bedrock-request-metadata: {\"team\":\"ads\"}\r\n\r\n", hello), want: []int{ok}},
		{name: "metadata on a folded line", send: head(whole, "X: y\r\n X-Amzn-Bedrock-Request-Metadata: {\"team\":\"ads\"}\r\n\r\n", hello), want: []int{ok}, either: true},
		{name: "authorization twice", send: head(whole, "Authorization: Bearer wbk_nobody\r\n\r\n", hello), want: []int{401}, either: true},
		{name: "authorization with an underscore", send: head(whole, "Authorization_: Bearer x\r\nX_Amz_Security_Token: x\r\nX-Amz-Date: 20200101T000000Z\r\n\r\n", hello), want: []int{ok}},
		{name: "headers that only a connection has", send: head(whole, "Connection: keep-alive, X-Amzn-Bedrock-Service-Tier\r\nKeep-Alive: x\r\nTE: trailers\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\n\r\n", hello), want: []int{ok}},
		{name: "headers of other proxies", send: head(whole, "X-Forwarded-For: x\r\nX-HTTP-Method-Override: DELETE\r\nX-Original-URL: /x\r\nForwarded: for=x\r\nVia: x\r\n\r\n", hello), want: []int{ok}},
		{name: "more headers than there is room for", send: head(whole, "X: "+strings.Repeat("a", 2<<20)+"\r\n\r\n", hello), want: []int{431}},
		// Other protocols.
		{name: "an upgrade to h2c", send: head(whole, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n", hello), want: []int{ok}},
		{name: "an upgrade to a web socket", send: head(whole, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n", hello), want: []int{ok}},
		{name: "an upgrade to h2c, and a request after it", send: head(whole, "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", hello) + good(), want: []int{ok, ok}},
		{name: "100-continue", send: head(whole, "Expect: 100-continue\r\n\r\n", hello), want: []int{100, ok}, either: true},
		{name: "an expectation that nobody has", send: head(whole, "Expect: 200-ok\r\n\r\n", hello), want: []int{417}},
		// What follows a refusal.
		{name: "a refused body, and a request in it", send: fmt.Sprintf(stranger, 600, good()), want: []int{401}, end: true},
		{name: "a refused body, and a request after it", send: fmt.Sprintf(stranger, len(hello), hello) + good(), want: []int{401, ok}},
		{name: "a body that is too large, and a request in it", send: head("Content-Length: 20000\r\n\r\n") + good(), want: []int{413}, end: true},
		{name: "a body that is too large in chunks, and a request in it", send: head("Transfer-Encoding: chunked\r\n\r\n", chunk(strings.Repeat(" ", 20_000))) + good(), want: []int{413}},
		{name: "a refused path, and a request after it", send: strings.Replace(good(), "/converse", "/elsewhere", 1) + good(), want: []int{404, ok}},
		{name: "a bad request line, and a request after it", send: "POST\r\n\r\n" + good(), want: []int{bad}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := p.calls()
			got := s.raw(t, tt.send, len(tt.want), tt.end)
			s.gw.Wait()
			calls := 0
			for _, status := range got {
				if status == ok {
					calls++
				}
			}
			if arrived := p.calls() - before; arrived != calls {
				t.Errorf("%d calls reached AWS, and the caller has %d answers of it", arrived, calls)
			}
			one := tt.either && len(got) == 1 && (got[0] == ok || got[0] == bad || got[0] == unknown)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) && !one {
				t.Errorf("answers %v, want %v", got, tt.want)
			}
		})
	}
	mu.Lock()
	defer mu.Unlock()
	allowed := map[string]bool{"Amz-Sdk-Invocation-Id": true, "Authorization": true, "Content-Length": true, "Content-Type": true, "User-Agent": true, "X-Amz-Date": true,
		"X-Amz-Security-Token": true, "X-Amz-Content-Sha256": true}
	for _, r := range heads {
		if r.Host != strings.TrimPrefix(p.url, "http://") || r.RequestURI != answerPath || r.Method != http.MethodPost || len(r.TransferEncoding) > 0 || len(r.Trailer) > 0 {
			t.Errorf("AWS got %s %s for %s, %v", r.Method, r.RequestURI, r.Host, r.TransferEncoding)
		}
		for name, values := range r.Header {
			if !allowed[name] || len(values) != 1 {
				t.Errorf("AWS got %s: %q", name, values)
			}
		}
		if auth := r.Header.Get("Authorization"); !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 ") {
			t.Errorf("AWS got %s", auth)
		}
	}
	p.balanced(t, s.booked(t))
}
