package downstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// heldSize is how much of an answer waits for more, or for its end.
const heldSize = 4 << 10

// largePiece is what is not copied to go out with what is before it.
const largePiece = 8 << 10

var helds = sync.Pool{New: func() any { b := make([]byte, 0, heldSize); return &b }}

// An answer is a http.ResponseWriter. Its head is written down with WriteHeader, and goes
// out with the first bytes of the body, or Flush, or the end.
type answer struct {
	conn    *conn
	ctx     context.Context
	request *body
	header  http.Header
	status  int   // 0 before WriteHeader
	length  int64 // of the body; -1 where it was not told
	written int64 // of the body
	bare    bool  // its status allows no body
	chunked bool
	left    bool     // the head has left
	excess  bool     // more of the body was written than was told
	closing bool     // the connection ends after it
	dated   bool     // the handler has set a Date, or wants none
	trailer []string // names
	by      time.Time
	out     *[]byte // what goes out first; nil while it would be empty
	held    *[]byte // of the body; nil while it would be empty
	err     error   // of writing
}

// Header is what the answer's head will have.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader sets the status, and ends the head but for how the body is framed.
// Informational answers are not for callers of this server: it panics.
func (a *answer) WriteHeader(status int) {
	if a.status != 0 {
		a.conn.server.log().Debug("a handler has written two heads", "status", a.status, "other", status)
		return
	}
	if status < 200 || status > 999 {
		panic(fmt.Sprintf("downstream: status %d", status))
	}
	a.status = status
	a.bare = status == http.StatusNoContent || status == http.StatusNotModified
	if a.out == nil {
		a.out = helds.Get().(*[]byte)
	}
	b := append((*a.out)[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = append(append(b, "status code "...), strconv.Itoa(status)...)
	}
	b = append(b, "\r\n"...)
	for name, values := range a.header {
		switch name {
		case "Content-Length":
			if len(values) > 0 {
				if n, err := strconv.ParseInt(values[0], 10, 64); err == nil && n >= 0 {
					a.length = n
				}
			}
			continue
		case "Transfer-Encoding":
			continue
		case "Connection":
			for _, v := range values {
				a.closing = a.closing || strings.EqualFold(v, "close")
			}
			continue
		case "Date":
			a.dated = true
		case "Trailer":
			for _, v := range values {
				for t := range strings.SplitSeq(v, ",") {
					if t = http.CanonicalHeaderKey(trim(t)); httpguts.ValidTrailerHeader(t) {
						a.trailer = append(a.trailer, t)
					}
				}
			}
			continue
		}
		b = appendHeader(b, name, values)
	}
	*a.out = b
}

// appendHeader writes a header's lines. A name that is none is left out; a line break in a
// value becomes a blank, as in net/http.
func appendHeader(b []byte, name string, values []string) []byte {
	if len(values) == 0 || !httpguts.ValidHeaderFieldName(name) {
		return b
	}
	for _, v := range values {
		b = append(append(b, name...), ": "...)
		v = trim(v)
		at := len(b)
		b = append(b, v...)
		for i := at; i < len(b); i++ {
			if b[i] == '\r' || b[i] == '\n' {
				b[i] = ' '
			}
		}
		b = append(b, "\r\n"...)
	}
	return b
}

// frame ends the head. whole says that the body is known, and held.
func (a *answer) frame(whole bool) {
	if !a.request.discard() {
		a.closing = true
	}
	if a.conn.server.closing.Load() {
		a.closing = true
	}
	b := *a.out
	if whole && a.length < 0 && len(a.trailer) == 0 {
		a.length = a.written
	}
	switch {
	case a.bare:
	case a.length >= 0:
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, a.length, 10), "\r\n"...)
	default:
		a.chunked = true
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if len(a.trailer) > 0 {
			b = appendHeader(b, "Trailer", []string{strings.Join(a.trailer, ", ")})
		}
	}
	if a.closing {
		b = append(b, "Connection: close\r\n"...)
	}
	if !a.dated {
		b = append(b, "Date: "...)
		b = append(time.Now().UTC().AppendFormat(b, http.TimeFormat), "\r\n"...)
	}
	*a.out = append(b, "\r\n"...)
	a.left = true
}

// Write writes of the body.
func (a *answer) Write(p []byte) (int, error) { return write(a, p) }

// WriteString writes of the body.
func (a *answer) WriteString(p string) (int, error) { return write(a, p) }

func write[T []byte | string](a *answer, p T) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if a.bare {
		return 0, http.ErrBodyNotAllowed
	}
	if a.err != nil {
		return 0, a.err
	}
	if a.length >= 0 && a.written+int64(len(p)) > a.length {
		a.excess = true
		return 0, http.ErrContentLength
	}
	a.written += int64(len(p))
	if a.held == nil {
		a.held = helds.Get().(*[]byte)
	}
	if len(*a.held)+len(p) <= heldSize {
		*a.held = append(*a.held, p...)
		return len(p), nil
	}
	if err := a.send([]byte(p), false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush sends what was written.
func (a *answer) Flush() { _ = a.FlushError() }

// FlushError sends what was written, and says what hinders it.
func (a *answer) FlushError() error {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.left && a.held == nil {
		return a.err
	}
	return a.send(nil, false)
}

// end ends the answer.
func (a *answer) end() {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if !a.left || a.chunked || a.held != nil {
		_ = a.send(nil, true) // it is kept in a.err
	}
	if a.err == nil && !a.bare && (a.written < a.length || a.excess) {
		a.err = io.ErrShortWrite // the caller must see that it was cut, and may not take the rest for another answer
	}
}

// send sends the head, if it has not left, what is held of the body, and p.
func (a *answer) send(p []byte, last bool) error {
	if a.err != nil {
		return a.err
	}
	if a.out == nil {
		a.out = helds.Get().(*[]byte)
	}
	if !a.left {
		a.frame(last)
	}
	b := *a.out
	n := len(p)
	if a.held != nil {
		n += len(*a.held)
	}
	if a.chunked && n > 0 {
		b = append(strconv.AppendInt(b, int64(n), 16), "\r\n"...)
	}
	if a.held != nil {
		b = append(b, *a.held...)
	}
	a.conn.writeBy(a.by)
	if len(p) > largePiece && a.conn.secure == nil { // TLS copies in any case
		var tail []byte
		if a.chunked {
			tail = []byte("\r\n")
		}
		*a.out = b
		pieces := net.Buffers{b, p, tail}
		_, a.err = pieces.WriteTo(a.conn.raw)
	} else {
		b = append(b, p...)
		if a.chunked && n > 0 {
			b = append(b, "\r\n"...)
		}
		if a.chunked && last {
			b = append(b, "0\r\n"...)
			for _, name := range a.trailer {
				b = appendHeader(b, name, a.header[name])
			}
			b = append(b, "\r\n"...)
		}
		*a.out = b
		_, a.err = a.conn.way.Write(b)
	}
	a.drop()
	return a.err
}

// drop gives the buffers back.
func (a *answer) drop() {
	for _, b := range []**[]byte{&a.out, &a.held} {
		if *b == nil {
			continue
		}
		if cap(**b) <= 4*heldSize {
			**b = (**b)[:0]
			helds.Put(*b)
		}
		*b = nil
	}
}

// SetReadDeadline bounds the reading of the request's body.
func (a *answer) SetReadDeadline(t time.Time) error {
	a.request.setDeadline(t)
	return nil
}

// SetWriteDeadline bounds what is written next.
func (a *answer) SetWriteDeadline(t time.Time) error {
	a.by = t
	return nil
}

// Gone reports whether the caller has left by now: whether it has ended the connection, or
// its side of it; over TLS, to say that one will (close_notify) is not enough. The request's
// context says so too, but up to half a second later.
func (a *answer) Gone() bool {
	return a.ctx.Err() != nil || a.conn.look()
}
