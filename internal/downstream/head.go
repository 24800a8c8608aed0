package downstream

import (
	"bytes"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// readHead reads the head of a plain request at the beginning of b, into r, and says how
// long it is. Whatever is unusual is not plain, be it allowed or not. Where the head has not
// come whole, n is 0 and plain says whether it can still become so.
//
// Plain is: GET, POST or DELETE of a path, HTTP/1.1, names of token characters right before
// their colon, values without control characters, lines that end with CR LF, one Host, at
// most one Content-Length of digits, and no header that changes how the message is framed or
// the connection is used.
func readHead(b []byte, r *http.Request) (n int, plain bool) {
	if !begins(b) {
		return 0, false
	}
	n = bytes.Index(b, []byte("\r\n\r\n")) + 4
	if n < 4 {
		return 0, mayBecome(b)
	}
	text := string(b[:n-2]) // every line with its end; the strings of the request are cut from it
	line, rest, _ := strings.Cut(text, "\r\n")
	method, line, _ := strings.Cut(line, " ")
	target, protocol, _ := strings.Cut(line, " ")
	if protocol != "HTTP/1.1" || target == "" || target[0] != '/' {
		return 0, false
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f {
			return 0, false
		}
	}
	where, err := url.ParseRequestURI(target)
	if err != nil {
		return 0, false
	}
	r.Method, r.RequestURI, r.URL = method, target, where
	r.Proto, r.ProtoMajor, r.ProtoMinor = protocol, 1, 1
	r.Host, r.ContentLength = "", 0
	lines := strings.Count(rest, "\r\n")
	r.Header = make(http.Header, lines)
	values := make([]string, lines) // of all headers; each has its part
	sized := false
	for rest != "" {
		var name, value string
		line, rest, _ = strings.Cut(rest, "\r\n")
		colon := strings.IndexByte(line, ':')
		if colon <= 0 {
			return 0, false
		}
		name, value = line[:colon], trim(line[colon+1:])
		canonical, ok := readName(name)
		if !ok || !isValue(value) {
			return 0, false
		}
		if !canonical {
			name = http.CanonicalHeaderKey(name)
		}
		switch name {
		case "Host":
			if r.Host != "" || value == "" || !httpguts.ValidHostHeader(value) {
				return 0, false
			}
			r.Host = value
			continue // as net/http has it
		case "Content-Length":
			if sized || len(value) == 0 || len(value) > 15 || strings.Trim(value, "0123456789") != "" {
				return 0, false
			}
			r.ContentLength, err = strconv.ParseInt(value, 10, 64)
			if err != nil {
				return 0, false
			}
			sized = true
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return 0, false
			}
		case "Transfer-Encoding", "Trailer", "Upgrade", "Expect", "Te", "Pragma", "Proxy-Connection", "Keep-Alive", "Http2-Settings":
			return 0, false
		}
		if has := r.Header[name]; has != nil {
			r.Header[name] = append(has, value)
			continue
		}
		values[0] = value
		r.Header[name], values = values[:1:1], values[1:]
	}
	if r.Host == "" {
		return 0, false
	}
	return n, true
}

// tokens are the characters of names (RFC 9110, section 5.6.2).
var tokens = func() (t [256]bool) {
	for c := range t {
		t[c] = httpguts.IsTokenRune(rune(c))
	}
	return t
}()

// readName reports whether a name is one, and whether it is written as net/http writes it.
func readName(name string) (canonical, ok bool) {
	canonical, begins := true, true // a word
	for i := range len(name) {
		c := name[i]
		if !tokens[c] {
			return false, false
		}
		if begins && 'a' <= c && c <= 'z' || !begins && 'A' <= c && c <= 'Z' {
			canonical = false
		}
		begins = c == '-'
	}
	return canonical, true
}

// isValue reports whether nothing in a value controls anything.
func isValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// begins reports whether a plain request may begin like this.
func begins(b []byte) bool {
	for _, method := range []string{"POST /", "GET /", "DELETE /"} {
		if k := min(len(b), len(method)); string(b[:k]) == method[:k] {
			return true
		}
	}
	return false
}

// mayBecome reports whether a head that has not come whole can still become plain. Where a
// line ends otherwise, or the first says something else, it may be whole to net/http, or
// wrong, and its caller wait for an answer.
func mayBecome(b []byte) bool {
	line, _, whole := bytes.Cut(b, []byte("\n"))
	return !whole || bytes.HasSuffix(line, []byte(" HTTP/1.1\r")) && bytes.Count(b, []byte("\n")) == bytes.Count(b, []byte("\r\n"))
}

// preface is how HTTP/2 begins (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// isPreface reports whether HTTP/2 begins like this, as far as it has come. It may at the
// beginning of a connection alone, and net/http would take what it is handed for that.
func isPreface(b []byte) bool {
	k := min(len(b), len(preface))
	return string(b[:k]) == preface[:k]
}

// trim takes blanks off both ends, as net/http does.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
