package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// An out is a request as it goes over the wire. Buffers are kept from call to call.
type out struct {
	head []byte // and with it a small body
	body []byte // a larger one
	held atomic.Int32
}

var outs = sync.Pool{New: func() any { return new(out) }}

// done says that one who held it does so no more.
func (o *out) done() {
	if o.held.Add(-1) < 0 {
		o.body = nil
		o.held.Store(0)
		if cap(o.head) <= 64<<10 {
			outs.Put(o)
		}
	}
}

// hold keeps it beyond the call of done by the one who took it.
func (o *out) hold() { o.held.Add(1) }

// together is up to which size a body is copied behind its head, to leave in one piece.
const together = 16 << 10

// fill writes the head of the request, and takes its body.
func (o *out) fill(r *http.Request) error {
	b := append(o.head[:0], r.Method...)
	b = append(b, ' ')
	target := r.URL.RequestURI()
	if strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return errors.New("request: its target has characters that would end it")
	}
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	if !httpguts.ValidHostHeader(host) || !httpguts.ValidHeaderFieldName(r.Method) {
		return fmt.Errorf("request to %q: the host or the method cannot be sent", host)
	}
	b = append(append(b, host...), "\r\n"...)
	if agent, ok := r.Header["User-Agent"]; !ok {
		b = append(b, "User-Agent: Go-http-client/1.1\r\n"...)
	} else if len(agent) > 0 && agent[0] != "" {
		if !httpguts.ValidHeaderFieldValue(agent[0]) {
			return errors.New("a header cannot be sent: User-Agent")
		}
		b = append(append(append(b, "User-Agent: "...), agent[0]...), "\r\n"...)
	}
	if r.ContentLength > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, "\r\n"...)
	}
	for name, values := range r.Header {
		switch name {
		case "Host", "User-Agent", "Content-Length":
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("a header cannot be sent: %q", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("a header cannot be sent: %s", name) // never its value
			}
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	o.head = append(b, "\r\n"...)
	if r.ContentLength == 0 {
		return nil
	}
	body, err := bodyOf(r)
	if err != nil {
		return fmt.Errorf("read the request's body: %w", err)
	}
	if len(body) <= together {
		o.head = append(o.head, body...)
	} else {
		o.body = body
	}
	return nil
}

// bodyOf is the whole body of a request. One that is in memory is not copied.
func bodyOf(r *http.Request) ([]byte, error) {
	seen := catcher{want: r.ContentLength}
	n := int64(0)
	if w, ok := r.Body.(io.WriterTo); ok {
		var err error
		if n, err = w.WriteTo(&seen); err != nil {
			return nil, err
		}
	} else {
		seen.b = make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, seen.b); err != nil {
			return nil, err
		}
		more, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1))
		if n = r.ContentLength + more; err != nil {
			return nil, err
		}
	}
	if n != r.ContentLength {
		return nil, fmt.Errorf("it has another length than the %d bytes that were told", r.ContentLength)
	}
	return seen.b, nil
}

// A catcher keeps what is written to it: a whole body in one piece, as of a bytes.Reader,
// where it lies.
type catcher struct {
	want int64
	b    []byte
}

func (c *catcher) Write(p []byte) (int, error) {
	if c.b == nil && int64(len(p)) == c.want {
		c.b = p[:len(p):len(p)]
	} else {
		c.b = append(c.b, p...)
	}
	return len(p), nil
}
