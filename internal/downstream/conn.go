package downstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// A conn is one connection. Its goroutine reads, calls the handler and writes.
type conn struct {
	server *Server
	raw    net.Conn // over TCP
	tcp    syscall.RawConn
	secure *tls.Conn // nil without TLS
	way    net.Conn  // what is read and written: secure, or raw
	state  *tls.ConnectionState
	remote string

	in          *[]byte               // pooled; nil while it would be empty
	read, write int                   // what was received and not read yet lies between them
	receive     func(fd uintptr) bool // into the buffer, from the socket
	failed      error                 // of receive
	request     http.Request
	blanks      int // line-break characters that may come before the next head: old clients end a POST with one, and net/http lets four pass

	readDeadline, writeDeadline time.Time // that the connection has; zero is none

	mu     sync.Mutex // guards below
	phase  phase
	since  time.Time          // of being busy
	cancel context.CancelFunc // of the call under way
}

// A phase is what a connection does.
type phase int

const (
	idle   phase = iota // between two calls, or before the first
	busy                // with a call, or the head of one, or net/http's
	closed              // while it was idle
)

// inSize is how much of a request is read at once, and how long a plain head may be.
const inSize = 8 << 10

var ins = sync.Pool{New: func() any { b := make([]byte, inSize); return &b }}

// serve serves the connection to its end, or gives it to net/http. A panic ends it, and
// no other.
func (c *conn) serve() (handed bool) {
	defer func() {
		if v := recover(); v != nil {
			c.server.panicked(c.remote, v)
		}
	}()
	if c.tcp == nil {
		return c.hand()
	}
	if c.secure != nil {
		if !c.shake() {
			return false
		}
		if c.state.NegotiatedProtocol == "h2" {
			return c.hand()
		}
	}
	defer c.release()
	for first := true; ; first = false {
		n, plain := c.head(first)
		if n == 0 {
			if plain { // nothing came, or not all
				return false
			}
			return c.hand()
		}
		if !c.call(n) || !c.turn(idle) || c.server.closing.Load() {
			return false
		}
	}
}

// shake makes the handshake.
func (c *conn) shake() bool {
	if t := c.server.HeaderTimeout; t > 0 {
		_ = c.raw.SetDeadline(time.Now().Add(t)) // it fails on a connection that is closed: the handshake tells
	}
	if err := c.secure.Handshake(); err != nil {
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil && begins(plain.RecordHeader[:]) {
			_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n") // as net/http says it
		}
		c.server.log().Debug("the TLS handshake failed", "from", c.remote, "err", err)
		return false
	}
	_ = c.raw.SetDeadline(time.Time{})
	state := c.secure.ConnectionState()
	c.state = &state
	return true
}

// hand gives the connection to net/http, with what was read of it, if it was not closed.
// It is busy from then on: only net/http knows with what.
func (c *conn) hand() bool {
	if !c.turn(busy) {
		return false
	}
	_ = c.way.SetDeadline(time.Time{}) // it fails on a connection that is closed: reading tells
	if c.in == nil {
		c.server.handed.give(c.way)
	} else {
		c.server.handed.give(&begun{Conn: c.way, tls: c.state, read: bytes.Clone((*c.in)[c.read:c.write])})
	}
	return true
}

// turn puts the connection in another phase, if it was not closed.
func (c *conn) turn(p phase) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == closed {
		return false
	}
	c.phase, c.cancel = p, nil
	return true
}

// closeIdle closes the connection if it does nothing, and is not about to.
func (c *conn) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == idle && (c.tcp == nil || !arrived(c.tcp)) {
		c.phase = closed
		c.raw.Close()
	}
}

// busySince reports whether a call has been under way since before a time.
func (c *conn) busySince(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cancel != nil && c.since.Before(t)
}

// look ends the context of the call under way if the caller has left.
func (c *conn) look() (gone bool) {
	c.mu.Lock()
	cancel := c.cancel
	c.mu.Unlock()
	if cancel == nil || !hungUp(c.tcp) {
		return false
	}
	cancel() // were the call over meanwhile, it would end what has ended
	return true
}

// head reads the head of the next request. Its length is 0 where it is not plain, and where
// the connection has ended.
func (c *conn) head(first bool) (n int, plain bool) {
	began := time.Time{} // the head; the first may as soon as the connection is there
	patience := c.server.IdleTimeout
	if first {
		began, patience = time.Now(), c.server.HeaderTimeout
	}
	for {
		for ; c.blanks > 0 && c.read < c.write && ((*c.in)[c.read] == '\r' || (*c.in)[c.read] == '\n'); c.blanks-- {
			c.read++
		}
		if c.read < c.write {
			if !c.turn(busy) {
				return 0, true
			}
			b := (*c.in)[c.read:c.write]
			if n, plain = readHead(b, &c.request); n > 0 || !plain && (first || !isPreface(b)) {
				break
			}
			if len(b) >= len(preface) && !plain {
				return 0, true
			}
			if c.write-c.read == inSize {
				return 0, false
			}
			if began.IsZero() {
				began, patience = time.Now(), c.server.HeaderTimeout
			}
		} else if c.server.closing.Load() && !arrived(c.tcp) {
			return 0, true
		}
		var limit time.Time
		if patience > 0 {
			if limit = began; limit.IsZero() {
				limit = time.Now()
			}
			limit = limit.Add(patience)
		}
		c.readBy(limit)
		if err := c.fill(); err != nil {
			return 0, true
		}
	}
	if m := c.server.MaxHeaderBytes; m > 0 && n > m {
		return 0, false
	}
	return n, plain
}

// fill reads what there is, and waits for it. Less than the buffer is held.
func (c *conn) fill() error {
	if c.secure == nil {
		c.failed = nil
		if err := c.tcp.Read(c.receive); err != nil {
			return err
		}
		return c.failed
	}
	c.room()
	n, err := c.secure.Read((*c.in)[c.write:])
	c.write += n
	if n > 0 {
		return nil // what is wrong, the next one tells
	}
	return err
}

// room makes room in the buffer for what is received next.
func (c *conn) room() {
	if c.in == nil {
		c.in, c.read, c.write = ins.Get().(*[]byte), 0, 0
	}
	if c.read > 0 {
		c.write = copy(*c.in, (*c.in)[c.read:c.write])
		c.read = 0
	}
}

// release gives the buffer back if nothing is left in it.
func (c *conn) release() {
	if c.in != nil && c.read == c.write {
		ins.Put(c.in)
		c.in = nil
	}
}

// serves reports whether one deadline will do for another: it is not later, and leaves at
// least three quarters of the time.
func serves(has, wanted time.Time) bool {
	if wanted.IsZero() || has.IsZero() {
		return wanted.Equal(has)
	}
	early := wanted.Sub(has)
	return early == 0 || early > 0 && early <= time.Until(wanted)/4
}

func (c *conn) readBy(t time.Time) {
	if !serves(c.readDeadline, t) {
		_ = c.raw.SetReadDeadline(t) // it fails on a connection that is closed: reading tells
		c.readDeadline = t
	}
}

func (c *conn) writeBy(t time.Time) {
	if !serves(c.writeDeadline, t) {
		_ = c.raw.SetWriteDeadline(t) // it fails on a connection that is closed: writing tells
		c.writeDeadline = t
	}
}

// maxDiscard is how much of a body that nobody reads is read for the sake of the next
// request, as in net/http.
const maxDiscard = 256 << 10

// lingering is how long a caller may take to read an answer that came before its request
// was read, and after which the connection ends: the kernel throws away what it has not
// delivered when a connection is closed that has unread bytes. As in net/http.
const lingering = 500 * time.Millisecond

// call serves one request, whose head has n bytes, and reports whether there may be another.
func (c *conn) call(n int) bool {
	c.read += n
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.mu.Lock()
	c.since, c.cancel = time.Now(), cancel
	c.mu.Unlock()
	c.request.RemoteAddr, c.request.TLS, c.request.Body = c.remote, c.state, http.NoBody
	r := c.request.WithContext(ctx)
	c.blanks = 0
	if r.Method == http.MethodPost {
		c.blanks = 4
	}
	c.request = http.Request{}
	e := &exchange{body: body{conn: c, left: r.ContentLength}, answer: answer{conn: c, ctx: ctx, header: make(http.Header, 8), length: -1}}
	e.answer.request = &e.body
	if r.ContentLength > 0 {
		r.Body = &e.body
	} else {
		c.release()
	}
	defer e.over()
	c.server.Handler.ServeHTTP(&e.answer, r)
	e.answer.end()
	left := e.body.stop()
	if e.answer.err != nil {
		return false
	}
	if e.answer.closing && left > 0 {
		_ = closeWrite(c.way) // it fails where the caller has left
		time.Sleep(lingering)
	}
	return !e.answer.closing && left == 0
}

// errOver is what a handler gets that writes on after it has returned: what it wrote would
// be in the midst of the next answer.
var errOver = errors.New("downstream: the handler has returned")

// An exchange is one request and its answer.
type exchange struct {
	body   body
	answer answer
}

// over lets the handler do nothing more with it.
func (e *exchange) over() {
	e.body.stop()
	e.answer.drop()
	e.answer.err = errOver
}

// A body is that of a request, which has a length.
type body struct {
	conn *conn

	mu   sync.Mutex // guards below, and reading: a handler may pass the body on
	left int64
	over bool // the handler has returned, or closed it
	by   time.Time
	err  error
}

// Read reads of the body. Where the caller ends before it does, that is
// io.ErrUnexpectedEOF.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.take(p)
}

func (b *body) take(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	p = p[:min(int64(len(p)), b.left)]
	c := b.conn
	var n int
	if c.read < c.write {
		n = copy(p, (*c.in)[c.read:c.write])
		c.read += n
	} else {
		c.readBy(b.by)
		n, b.err = c.way.Read(p)
	}
	switch b.left -= int64(n); {
	case b.left == 0:
		b.err = nil
		c.release()
	case errors.Is(b.err, io.EOF):
		b.err = io.ErrUnexpectedEOF
	}
	if n > 0 {
		return n, nil // what is wrong, the next one tells
	}
	return 0, b.err
}

// Close lets nothing more be read. What is left is read, or the connection ends, after the
// answer.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return nil
}

// stop is Close, and says how much is left.
func (b *body) stop() (left int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return b.left
}

// discard reads what is left, if that is little, and reports whether nothing is left. A
// handler that reads on is told so: it may not take the body for whole.
func (b *body) discard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left > maxDiscard {
		return false
	}
	if b.left == 0 {
		return true
	}
	b.over = true
	scratch := ins.Get().(*[]byte)
	defer ins.Put(scratch)
	for b.left > 0 {
		if _, err := b.take(*scratch); err != nil {
			return false
		}
	}
	return true
}

func (b *body) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by = t
}
