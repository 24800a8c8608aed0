package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// A script is a connection on which all is said already. It gives it in pieces of the
// sizes that are asked for, over and over, and then ends.
type script struct {
	net.Conn
	said   []byte
	pieces []byte
	first  int // the size of the first piece, where it is set
	n      int
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.said) == 0 {
		return 0, io.EOF
	}
	size := len(s.said)
	if s.first > 0 {
		size, s.first = min(size, s.first), 0
	}
	if len(s.pieces) > 0 {
		if piece := int(s.pieces[s.n%len(s.pieces)]) * 8; piece > 0 { // zero is all
			size = min(size, piece)
		}
		s.n++
	}
	n := copy(p, s.said[:size])
	s.said = s.said[n:]
	return n, nil
}

func (s *script) Close() error { return nil }

// A reading is all that can be seen of an answer.
type reading struct {
	answer *http.Response
	body   []byte
	failed bool // the head
	cut    bool // the body
	early  bool // it is cut by the connection's end
	reused bool // the connection
	plain  bool // net/http did not read it
}

// byNetHTTP reads an answer as net/http does.
func byNetHTTP(s *script, r *http.Request, room int) reading {
	in := bufio.NewReaderSize(s, 2<<10)
	for range maxInterim + 1 {
		a, err := http.ReadResponse(in, r)
		if err != nil {
			return reading{failed: true}
		}
		if a.StatusCode == http.StatusSwitchingProtocols {
			return reading{answer: a}
		}
		if a.StatusCode < 200 {
			continue
		}
		got := readAll(a, room)
		got.reused = !got.cut && !a.Close && in.Buffered() == 0 && len(s.said) == 0
		return got
	}
	return reading{failed: true}
}

// byUs reads it as a call does.
func byUs(s *script, r *http.Request, room int) reading {
	c := &Client{sweeping: true}
	cn := &conn{client: c, wire: wire{Conn: s}, left: maxHead}
	cn.Conn = &cn.wire
	w := &way{cn: cn, ctx: r.Context(), request: r}
	a, err := w.answered(r)
	if err != nil {
		return reading{failed: true}
	}
	if a.StatusCode == http.StatusSwitchingProtocols {
		return reading{answer: a}
	}
	got := readAll(a, room)
	got.reused = len(c.idle[cn.to]) > 0 && len(s.said) == 0
	got.plain = a == &w.answer
	if n, err := a.Body.Read(make([]byte, 1)); n > 0 || got.cut == (err == io.EOF) {
		panic(fmt.Sprintf("read again: %d bytes, %v", n, err)) // net/http's body is whole the second time
	}
	return got
}

func readAll(a *http.Response, room int) reading {
	got := reading{answer: a}
	p := make([]byte, room)
	for {
		n, err := a.Body.Read(p)
		got.body = append(got.body, p[:n]...)
		if err != nil {
			got.cut, got.early = err != io.EOF, errors.Is(err, io.ErrUnexpectedEOF)
			return got
		}
	}
}

// differs is where two readings are not the same.
func (x reading) differs(y reading) string {
	if x.failed || y.failed || x.answer == nil {
		if x.failed != y.failed {
			return fmt.Sprintf("the head is wrong: %t, %t", x.failed, y.failed)
		}
		return ""
	}
	a, b := x.answer, y.answer
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"status", a.Status, b.Status}, {"code", a.StatusCode, b.StatusCode}, {"protocol", a.Proto, b.Proto}, {"major", a.ProtoMajor, b.ProtoMajor}, {"minor", a.ProtoMinor, b.ProtoMinor},
		{"headers", a.Header, b.Header}, {"length", a.ContentLength, b.ContentLength}, {"coding", a.TransferEncoding, b.TransferEncoding}, {"close", a.Close, b.Close},
		{"trailer", a.Trailer, b.Trailer}, {"request", a.Request, b.Request}, {"no body", a.Body == http.NoBody, b.Body == http.NoBody}, {"compressed", a.Uncompressed, b.Uncompressed},
		{"body", x.body, y.body}, {"the body is cut", x.cut, y.cut}, {"the connection is used again", x.reused, y.reused},
	} {
		if !reflect.DeepEqual(f.a, f.b) {
			return fmt.Sprintf("%s: %#v, %#v", f.name, f.a, f.b)
		}
	}
	if a.ContentLength > 0 && x.early != y.early {
		return "one body ended early"
	}
	return ""
}

// same fails where we do not read what net/http does, whatever pieces it comes in and
// whatever room there is for it.
func same(t *testing.T, said, method string, pieces []byte, room int) reading {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://aws.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs := byNetHTTP(&script{said: []byte(said), pieces: pieces}, r, room)
	ours := byUs(&script{said: []byte(said), pieces: pieces}, r, room)
	if d := theirs.differs(ours); d != "" {
		t.Errorf("net/http and we differ in %s\n%s %.500q, pieces %v, room %d", d, method, said, pieces, room)
	}
	return ours
}

const plainHead = "HTTP/1.1 200 OK\r\nDate: Mon, 30 Nov 2026 09:00:00 GMT\r\nx-amzn-RequestId: 1\r\n"

// answers are heads and bodies, most of them with something wrong.
var answers = []struct {
	said  string
	plain bool // they are for our own reader
}{
	{plainHead + "Content-Length: 2\r\nConnection: keep-alive\r\n\r\nok", true},
	{plainHead + "Content-Length: 2\r\n\r\nok" + ok, true},
	{plainHead + "content-length:2 \r\n\r\nok", true},
	{plainHead + "Content-Length:   002  \r\n\r\nok", true},
	{plainHead + "Content-Length: 3\r\n\r\nok", true},
	{plainHead + "Content-Length: 0\r\n\r\n", true},
	{plainHead + "Content-Length: 0\r\n\r\nmore", true},
	{plainHead + "Content-Length: 5000\r\n\r\n" + strings.Repeat("0123456789", 500), true},
	{plainHead + "Content-Length: 5000\r\n\r\n" + strings.Repeat("0123456789", 400), true},
	{"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", true},
	{"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", true},
	{"HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nok", true},
	{"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\nok", true},
	{"HTTP/1.1 999 x\r\nContent-Length: 2\r\nX-Two: a\r\nx-two: b\r\nX-TWO:\r\nX-Empty: \r\n\r\nok", true},
	// Both lengths, none, two, and what is not a length.
	{plainHead + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
	{plainHead + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk", false},
	{plainHead + "Content-Length: 2, 2\r\n\r\nok", false},
	{plainHead + "Content-Length: 2\r\ncontent-LENGTH: 1\r\n\r\nok", false},
	{plainHead + "Content-Length: +2\r\n\r\nok", false},
	{plainHead + "Content-Length: -2\r\n\r\nok", false},
	{plainHead + "Content-Length: 0x2\r\n\r\nok", false},
	{plainHead + "Content-Length: 2 0\r\n\r\nok", false},
	{plainHead + "Content-Length: \r\n\r\nok", false},
	{plainHead + "Content-Length: 2_0\r\n\r\nok", false},
	{plainHead + "Content-Length: 9223372036854775807\r\n\r\nok", false},
	{plainHead + "Content-Length: 99999999999999999999\r\n\r\nok", false},
	{plainHead + "Content-Length : 2\r\n\r\nok", false},
	{plainHead + " Content-Length: 2\r\n\r\nok", false},
	{plainHead + "\r\nto the end", false},
	// Codings.
	{plainHead + "Transfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding: chunked, identity\r\n\r\nok", false},
	{plainHead + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding:\r\n\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", false},
	{plainHead + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", false},
	// Lines.
	{plainHead + "X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X-Folded: a\r\n\tContent-Length: 5\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Content-Length: 2\n\r\nok", false},
	{plainHead + "Content-Length: 2\r\n\nok", false},
	{plainHead + "Content-Length: 2\r\r\n\r\nok", false},
	{plainHead + "X: a\rContent-Length: 5\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X: a\nContent-Length: 5\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X: a\x00b\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X\x00: a\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X: \x7f\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X: \xff\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X\xff: a\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "X Y: a\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + ": a\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "no colon\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + strings.Repeat("X: a\r\n", maxFields) + "Content-Length: 2\r\n\r\nok", false},
	{plainHead + "X: " + strings.Repeat("x", 5000) + "\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Content-Length: 2\r\n", false},
	{plainHead, false},
	{"", false},
	// First lines.
	{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 200\tOK\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", false},
	{"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
	// Answers without a body, and before the answer.
	{"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	{"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nok", false},
	{"HTTP/1.1 100 Continue\r\n\r\n" + ok, false},
	{"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 2\r\n\r\nok", false},
	// What net/http makes something else of.
	{plainHead + "Connection: close\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Connection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Connection: keep-alive\r\nCONNECTION: close\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Pragma: no-cache\r\nContent-Length: 2\r\n\r\nok", false},
	{plainHead + "Trailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n\r\n", false},
	{plainHead + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n\r\n", false},
}

// codings are bodies in chunks.
var codings = []string{
	"2\r\nok\r\n0\r\n\r\n",
	"2\r\nok\r\n0\r\n\r\n" + ok,
	"1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
	"02\r\nok\r\n0000000000000000\r\n\r\n",
	"0000000000000002\r\nok\r\n0\r\n\r\n",
	"00000000000000002\r\nok\r\n0\r\n\r\n",
	"ffffffffffffffff\r\nok",
	"8000000000000000\r\nok",
	"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
	"2 \t\r\nok\r\n0 \r\n\r\n",
	"2;name=value\r\nok\r\n0;\r\n\r\n",
	"2;a;\x00\"b\r\nok\r\n0\r\n\r\n",
	"2 ;name\r\nok\r\n0\r\n\r\n",
	" 2\r\nok\r\n0\r\n\r\n",
	"2;name\nok\r\n0\r\n\r\n",
	"2;na\rme\r\nok\r\n0\r\n\r\n",
	"2\nok\r\n0\r\n\r\n",
	"2\r\r\nok\r\n0\r\n\r\n",
	"2\r\nok0\r\n\r\n",
	"2\r\nok\n0\r\n\r\n",
	"2\r\nok\rX0\r\n\r\n",
	"2\r\nokk\r\n0\r\n\r\n",
	"-2\r\nok\r\n0\r\n\r\n",
	"+2\r\nok\r\n0\r\n\r\n",
	"0x2\r\nok\r\n0\r\n\r\n",
	"g\r\nok\r\n0\r\n\r\n",
	"\r\nok\r\n0\r\n\r\n",
	";\r\nok\r\n0\r\n\r\n",
	"2\r\nok\r\n0\r\n",
	"2\r\nok\r\n0\r\n\r",
	"2\r\nok\r\n0\r\n\n",
	"2\r\nok\r\n0",
	"2\r\nok\r\n",
	"2\r\nok",
	"2\r\no",
	"2\r\n",
	"2",
	"",
	"2\r\nok\r\n0\r\nX-Sum: a\r\nX-Sum: b\r\n\r\n",
	"2\r\nok\r\n0\r\nX-Sum: a\r\n\r\nmore",
	"2\r\nok\r\n0\r\nX-Sum: a\n\nmore\r\n\r\n",
	"2\r\nok\r\n0\r\nX-Sum: a\r\n",
	"2\r\nok\r\n0\r\nno colon\r\n\r\n",
	"2\r\nok\r\n0\r\n folded: a\r\n\r\n",
	"2\r\nok\r\n0\r\n\nX\r\n\r\n",
	"2\r\nok\r\n0\r\n\rX: a\r\n\r\n",
	"2\r\nok\r\n0\r\nX: " + strings.Repeat("x", maxLine-7) + "\r\n\r\n",
	"2\r\nok\r\n0\r\nX: " + strings.Repeat("x", maxLine-6) + "\r\n\r\n",
	"2;" + strings.Repeat("x", maxLine-4) + "\r\nok\r\n0\r\n\r\n",
	"2;" + strings.Repeat("x", maxLine-3) + "\r\nok\r\n0\r\n\r\n",
	strings.Repeat("1;"+strings.Repeat("x", 50)+"\r\nx\r\n", 455) + "0\r\n\r\n",
	strings.Repeat("1;"+strings.Repeat("x", 50)+"\r\nx\r\n", 456) + "0\r\n\r\n", // more than is fair
	strings.Repeat("1;"+strings.Repeat("x", 10)+"\r\nx\r\n", 400) + "0\r\n\r\n",
	strings.Repeat("3e8\r\n"+strings.Repeat("0123456789", 100)+"\r\n", 9) + "0\r\n\r\n",
}

// What is read here is what net/http reads, to the last byte and the use of the
// connection after it; and of what AWS sends, net/http need not read anything.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	try := func(said string, plain bool) {
		t.Helper()
		for _, pieces := range [][]byte{nil, {2}, {1, 40}, {100, 1}} {
			for _, room := range []int{1, 7, 300, 2 << 10, 32 << 10} {
				for _, method := range []string{"POST", "HEAD"} {
					got := same(t, said, method, pieces, room)
					if want := plain && method != "HEAD"; got.plain && !want || want && !got.plain && pieces == nil {
						t.Errorf("%s %.300q: read here: %t", method, said, got.plain)
					}
				}
			}
		}
	}
	for _, tt := range answers {
		try(tt.said, tt.plain)
	}
	for _, coded := range codings {
		try(plainHead+"Transfer-Encoding: chunked\r\n\r\n"+coded, true)
	}
}

// Wherever a chunked body is split, it is the same.
func TestSplitChunks(t *testing.T) {
	const head = plainHead + "Transfer-Encoding: chunked\r\n\r\n"
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://aws.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, coded := range codings {
		if len(coded) > 200 {
			continue
		}
		theirs := byNetHTTP(&script{said: []byte(head + coded)}, r, 512)
		for at := range len(coded) {
			for _, room := range []int{1, 2, 512} {
				if d := theirs.differs(byUs(&script{said: []byte(head + coded), first: len(head) + at}, r, room)); d != "" {
					t.Errorf("%q split at %d, room %d: %s", coded, at, room, d)
				}
			}
		}
	}
}

// A head that is not read here is as it was.
func TestHeadsAreLeftAlone(t *testing.T) {
	r, err := http.NewRequest(http.MethodPost, "http://aws.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range answers {
		b := []byte(tt.said)
		a := new(http.Response)
		n := readHead(b, r, a)
		if tt.plain {
			if n != strings.Index(tt.said, "\r\n\r\n")+4 {
				t.Errorf("%q: %d bytes", tt.said, n)
			}
		} else if len(tt.said) <= len(block{}) && (n != 0 || string(b) != tt.said || a.Header != nil) {
			t.Errorf("%q: %d bytes were read, %q is left", tt.said, n, b)
		}
		for i := range strings.Index(tt.said+"\r\n\r\n", "\r\n\r\n") { // half of it is none
			if n := readHead(bytes.Clone(b[:i]), r, a); n != 0 {
				t.Errorf("%q: %d bytes", b[:i], n)
			}
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for _, tt := range answers {
		f.Add([]byte(tt.said), false, []byte{0}, uint16(512))
	}
	for _, coded := range codings {
		f.Add([]byte(plainHead+"Transfer-Encoding: chunked\r\n\r\n"+coded), false, []byte{16, 3}, uint16(512))
	}
	f.Fuzz(func(t *testing.T, said []byte, head bool, pieces []byte, room uint16) {
		if len(said) > 64<<10 {
			return
		}
		method := http.MethodPost
		if head {
			method = http.MethodHead
		}
		same(t, string(said), method, pieces, int(room)+1)
	})
}

// Chunked bodies alone, so that the fuzzer need not keep a head whole.
func FuzzChunks(f *testing.F) {
	for _, coded := range codings {
		f.Add([]byte(coded), []byte{}, uint16(512))
		f.Add([]byte(coded), []byte{16, 1}, uint16(3))
	}
	f.Fuzz(func(t *testing.T, coded, pieces []byte, room uint16) {
		if len(coded) > 64<<10 {
			return
		}
		same(t, plainHead+"Transfer-Encoding: chunked\r\n\r\n"+string(coded), http.MethodPost, pieces, int(room)+1)
	})
}
