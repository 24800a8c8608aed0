package upstream

import (
	"bytes"
	"net/http"
	"strconv"

	"golang.org/x/net/http/httpguts"
)

// A field is where a header lies in a head.
type field struct{ name, colon, value, end uint16 }

// maxFields is how many headers a plain head may have.
const maxFields = 32

// readHead reads the head that b begins with, and says how long it is, if it is of the
// plain kind that AWS sends: HTTP/1.1 and three digits of an answer that has a body,
// headers of one line each with visible ASCII in them, one Content-Length of digits or
// Transfer-Encoding: chunked, and all of it there. What net/http would take for the same
// head is what it takes; whatever it does not know for sure (0 bytes, and nothing is
// changed) is for net/http. The names of a head that it has read are canonical then.
func readHead(b []byte, r *http.Request, a *http.Response) int {
	const proto = "HTTP/1.1 "
	if len(b) > 1<<15 || len(b) < len(proto)+3 || string(b[:len(proto)]) != proto || r.Method == http.MethodHead {
		return 0
	}
	code := 0
	for _, c := range b[len(proto) : len(proto)+3] {
		if c < '0' || '9' < c {
			return 0
		}
		code = 10*code + int(c-'0')
	}
	if code < http.StatusOK || code == http.StatusNoContent || code == http.StatusNotModified {
		return 0
	}
	reason, ok := line(b, len(proto)+3)
	if !ok || reason > len(proto)+3 && b[len(proto)+3] != ' ' {
		return 0
	}
	var fields [maxFields]field
	n, at := 0, reason+2
	length, chunked := int64(-1), false
	for ; ; n++ {
		if at >= len(b) {
			return 0
		}
		if b[at] == '\r' {
			break
		}
		if n == maxFields {
			return 0
		}
		colon := at
		for colon < len(b) && httpguts.IsTokenRune(rune(b[colon])) {
			colon++
		}
		if colon == at || colon == len(b) || b[colon] != ':' {
			return 0
		}
		value := colon + 1
		for value < len(b) && b[value] == ' ' {
			value++
		}
		next, ok := line(b, value)
		if !ok {
			return 0
		}
		end := next
		for end > value && b[end-1] == ' ' {
			end--
		}
		switch name, said := b[at:colon], b[value:end]; len(name) {
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				if length >= 0 {
					return 0
				}
				if length, ok = digits(said); !ok {
					return 0
				}
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				if chunked || string(said) != "chunked" {
					return 0
				}
				chunked = true
			}
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) && !bytes.EqualFold(said, []byte("keep-alive")) {
				return 0
			}
		case len("Trailer"):
			if bytes.EqualFold(name, []byte("Trailer")) {
				return 0
			}
		case len("Pragma"): // net/http makes Cache-Control of it
			if bytes.EqualFold(name, []byte("Pragma")) {
				return 0
			}
		}
		fields[n] = field{uint16(at), uint16(colon), uint16(value), uint16(end)}
		at = next + 2
	}
	if at+1 >= len(b) || b[at+1] != '\n' || (length >= 0) == chunked {
		return 0
	}
	at += 2
	for _, f := range fields[:n] {
		upper := true
		for i, c := range b[f.name:f.colon] {
			switch {
			case upper && 'a' <= c && c <= 'z':
				b[int(f.name)+i] = c - ('a' - 'A')
			case !upper && 'A' <= c && c <= 'Z':
				b[int(f.name)+i] = c + ('a' - 'A')
			}
			upper = c == '-'
		}
	}
	head := string(b[:at]) // which all that follows is cut from
	*a = http.Response{Status: head[len(proto):reason], StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, n), ContentLength: length, Request: r}
	values := make([]string, n)
	for i, f := range fields[:n] {
		name, value := head[f.name:f.colon], values[i:i+1:i+1]
		value[0] = head[f.value:f.end]
		if chunked && name == "Transfer-Encoding" {
			a.TransferEncoding = value // and no header
		} else if had := a.Header[name]; had != nil {
			a.Header[name] = append(had, value[0])
		} else {
			a.Header[name] = value
		}
	}
	return at
}

// line is where the line ends that is read from at on, if it ends with CR and LF and all
// before them is visible ASCII and blanks.
func line(b []byte, at int) (end int, ok bool) {
	for end = at; end < len(b) && ' ' <= b[end] && b[end] <= '~'; end++ {
	}
	return end, end+1 < len(b) && b[end] == '\r' && b[end+1] == '\n'
}

// digits is a length of digits alone.
func digits(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || '9' < c {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil
}
