package downstream

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

const plainHead = "POST /model/a.b%3A0/converse?x=1 HTTP/1.1\r\nhost: gateway.example:8080\r\nAuthorization: Bearer wbk_1\r\ncontent-type:application/json\r\nContent-Length: 12\r\nX-Two: a\r\nAccept: \t*/* \r\nx-two: b\r\nConnection: Keep-Alive\r\nX-Empty:\r\nX-Name: \xc3\xa9\r\n\r\n"

// heads are requests that one server could read otherwise than another, and what is plain.
var heads = []struct {
	head  string
	plain bool
}{
	{plainHead, true},
	{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"DELETE /openai/v1/responses/resp_1 HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true},
	{"GET //a/b HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"GET /?a;b&c=%zz HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"GET /%2F%2e%2e HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"PUT / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"get / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET / HTTP/1.0\r\nHost: a\r\n\r\n", false},
	{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", false},
	{"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", false},
	{"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET * HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
	{"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET / HTTP/1.1\nHost: a\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\n\nGET /b HTTP/1.1\r\n\r\n", false},
	{"GET / HTTP/1.1\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", false},
	{"GET / HTTP/1.1\r\n Host: a\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX\xc3: x\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX(: x\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: identity\r\nContent-Length: 3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n", true},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n", true},
	{"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n", false},
}

// What is plain is read, and nothing else.
func TestReadHead(t *testing.T) {
	for _, tt := range heads {
		var r http.Request
		n, plain := readHead([]byte(tt.head+"the rest"), &r)
		if plain != tt.plain || plain != (n == len(tt.head)) {
			t.Errorf("%q: %d, %t", tt.head, n, plain)
		}
		sameAsLibrary(t, []byte(tt.head+"the rest"))
	}
}

// A head that has not come whole may yet become plain, at each of its bytes, and what can
// be no plain one any more is known by its first line.
func TestReadHeadInPieces(t *testing.T) {
	for i := range len(plainHead) {
		var r http.Request
		if n, plain := readHead([]byte(plainHead[:i]), &r); n != 0 || !plain {
			t.Errorf("%q: %d, %t", plainHead[:i], n, plain)
		}
	}
	for _, begin := range []string{"PRI", "PUT", "\r", "\x16\x03", "GET *", "POST h", "DELETE  /", "GET /\r\n", "GET / HTTP/1.0\r\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: a\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"} {
		if _, plain := readHead([]byte(begin), new(http.Request)); plain {
			t.Errorf("%q may be plain", begin)
		}
	}
}

// sameAsLibrary checks that what is plain is to net/http what it is here.
func sameAsLibrary(t *testing.T, b []byte) {
	t.Helper()
	var got http.Request
	kept := bytes.Clone(b)
	n, plain := readHead(b, &got)
	if !bytes.Equal(b, kept) {
		t.Fatalf("%q was changed", kept)
	}
	if !plain || n == 0 {
		return
	}
	for i := range n {
		if n, plain := readHead(b[:i], new(http.Request)); n != 0 || !plain {
			t.Fatalf("%q is plain, but its beginning %q cannot become so", b[:n], b[:i])
		}
	}
	in := bufio.NewReader(bytes.NewReader(b))
	want, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("%q is plain, and to net/http %v", b, err)
	}
	length := want.ContentLength
	body, _ := io.ReadAll(io.LimitReader(want.Body, int64(len(b))))
	if rest := b[n:]; !bytes.Equal(body, rest[:min(int64(len(rest)), length)]) {
		t.Fatalf("%q: the head ends elsewhere to net/http: %q", b, body)
	}
	if want.Close || len(want.TransferEncoding) > 0 || want.Trailer != nil || length < 0 {
		t.Fatalf("%q is plain, and to net/http %+v", b, want)
	}
	type view struct {
		Method, URI, Proto, Host string
		Major, Minor             int
		Length                   int64
		URL                      any
		Header                   http.Header
	}
	of := func(r *http.Request) view {
		return view{r.Method, r.RequestURI, r.Proto, r.Host, r.ProtoMajor, r.ProtoMinor, r.ContentLength, *r.URL, r.Header}
	}
	if !reflect.DeepEqual(of(&got), of(want)) {
		t.Fatalf("%q\nis    %+v\nto net/http it is %+v", b, of(&got), of(want))
	}
}

func FuzzReadHead(f *testing.F) {
	for _, tt := range heads {
		f.Add([]byte(tt.head + "the rest"))
	}
	f.Fuzz(func(t *testing.T, b []byte) { sameAsLibrary(t, b) })
}

// The values of one header do not run into those of the next.
func TestReadHeadValuesAreApart(t *testing.T) {
	var r http.Request
	if _, plain := readHead([]byte("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\n\r\n"), &r); !plain {
		t.Fatal("not plain")
	}
	r.Header.Add("A", "3")
	if r.Header.Get("B") != "2" {
		t.Errorf("%v", r.Header)
	}
}

func BenchmarkReadHead(b *testing.B) {
	head := []byte("POST /model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: aws-sdk-go-v2/1.41.0 ua/2.1 os/linux lang/go#1.26\r\nContent-Length: 1024\r\nAuthorization: Bearer wbk_" + strings.Repeat("a", 40) + "\r\nAmz-Sdk-Invocation-Id: 8a0d7b5e-1f0c-4f6a-9c0e-000000000000\r\nAmz-Sdk-Request: attempt=1; max=3\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n")
	b.Run("here", func(b *testing.B) {
		b.ReportAllocs()
		var r http.Request
		for b.Loop() {
			if _, plain := readHead(head, &r); !plain {
				b.Fatal("not plain")
			}
		}
	})
	b.Run("net-http", func(b *testing.B) {
		b.ReportAllocs()
		in := bytes.NewReader(head)
		buf := bufio.NewReader(in)
		for b.Loop() {
			in.Reset(head)
			buf.Reset(in)
			if _, err := http.ReadRequest(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
