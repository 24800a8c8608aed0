package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A Client makes calls. It may be used from many goroutines. Set its fields before the
// first call.
type Client struct {
	// Dial opens a connection; nil means a net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is for https; nil means Go's defaults.
	TLS *tls.Config
	// HandshakeTimeout is for TLS; 0 means ten seconds.
	HandshakeTimeout time.Duration
	// HeaderTimeout is for the first byte of an answer, once the request has left; 0
	// means none.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection is kept unused; 0 means two minutes.
	IdleTimeout time.Duration
	// MaxIdle is how many unused connections are kept to one address; 0 means 2,048.
	MaxIdle int
	// Proxy names the proxy of a request; nil means that there is none.
	Proxy func(*http.Request) (*url.URL, error)
	// Others makes the calls that are not for this client; nil fails them.
	Others http.RoundTripper

	mu       sync.Mutex          // guards below
	idle     map[address][]*conn // oldest first
	sweeping bool                // a timer runs that closes what was idle for too long
	sessions tls.ClientSessionCache
}

type address struct {
	scheme, host string
}

// errUnused is the failure of a call of which no byte has left, on a connection that was
// kept: AWS has closed it meanwhile.
var errUnused = errors.New("the connection was closed by AWS while it was not used")

// A notSent error is that of a call of which nothing that AWS could act on has left.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// NotSent tells so: whoever made the call knows that it has cost nothing.
func (e notSent) NotSent() bool { return true }

// RoundTrip makes one call. Its errors are those of the network, and of the context that
// ended it.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	if !c.serves(r) {
		if c.Others == nil {
			closeBody(r)
			return nil, fmt.Errorf("%s %s: this client has no way to make the call", r.Method, r.URL.Redacted())
		}
		return c.Others.RoundTrip(r)
	}
	o := outs.Get().(*out)
	defer o.done()
	if err := o.fill(r); err != nil {
		closeBody(r)
		return nil, err
	}
	for {
		cn, kept, err := c.take(r)
		if err != nil {
			closeBody(r)
			return nil, err
		}
		answer, err := cn.call(r, o)
		if errors.Is(err, errUnused) {
			if kept {
				continue // the pool has one connection less
			}
			closeBody(r)
		}
		return answer, err
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

// serves reports whether the call is for this client.
func (c *Client) serves(r *http.Request) bool {
	if !canCheck || r.ContentLength < 0 || r.ContentLength == 0 && r.Body != nil && r.Body != http.NoBody || len(r.TransferEncoding) > 0 || r.Trailer != nil || r.Close ||
		r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" || r.Method == http.MethodHead || r.Method == http.MethodConnect {
		return false
	}
	for _, name := range []string{"Connection", "Expect", "Upgrade", "Te", "Transfer-Encoding", "Trailer"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	if c.Proxy != nil {
		if proxy, err := c.Proxy(r); proxy != nil || err != nil {
			return false
		}
	}
	return true
}

// take is a connection that is kept, or else a new one.
func (c *Client) take(r *http.Request) (_ *conn, kept bool, err error) {
	if err := r.Context().Err(); err != nil {
		return nil, false, context.Cause(r.Context())
	}
	to := address{r.URL.Scheme, r.URL.Host}
	for {
		cn := c.pop(to)
		if cn == nil {
			break
		}
		if time.Since(cn.since) < c.idleTimeout() && cn.alive() {
			return cn, true, nil
		}
		cn.Close()
	}
	cn, err := c.dial(r, to)
	if err != nil {
		return nil, false, notSent{err}
	}
	return cn, false, nil
}

func (c *Client) idleTimeout() time.Duration {
	if c.IdleTimeout > 0 {
		return c.IdleTimeout
	}
	return 2 * time.Minute
}

func (c *Client) pop(to address) *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[to]
	if len(list) == 0 {
		return nil
	}
	cn := list[len(list)-1]
	list[len(list)-1] = nil
	c.idle[to] = list[:len(list)-1]
	return cn
}

// keep puts a connection back that is between two calls.
func (c *Client) keep(cn *conn) {
	most := c.MaxIdle
	if most <= 0 {
		most = 2048
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[cn.to]
	if len(list) >= most {
		cn.Close()
		return
	}
	if c.idle == nil {
		c.idle = make(map[address][]*conn)
	}
	cn.since = time.Now()
	c.idle[cn.to] = append(list, cn)
	if !c.sweeping {
		c.sweeping = true
		time.AfterFunc(c.idleTimeout(), c.sweep)
	}
}

// sweep closes what was idle for too long.
func (c *Client) sweep() {
	limit := time.Now().Add(-c.idleTimeout())
	c.mu.Lock()
	defer c.mu.Unlock()
	for to, list := range c.idle {
		n := 0
		for n < len(list) && !list[n].since.After(limit) {
			list[n].Close()
			n++
		}
		if list = append(list[:0:0], list[n:]...); len(list) == 0 {
			delete(c.idle, to)
		} else {
			c.idle[to] = list
		}
	}
	if c.sweeping = len(c.idle) > 0; c.sweeping {
		time.AfterFunc(max(c.idleTimeout()/4, time.Millisecond), c.sweep)
	}
}

// CloseIdleConnections closes every connection that is between two calls.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.idle {
		for _, cn := range list {
			cn.Close()
		}
	}
	clear(c.idle)
	if t, ok := c.Others.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

func (c *Client) dial(r *http.Request, to address) (*conn, error) {
	ctx := r.Context()
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	port := r.URL.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[to.scheme]
	}
	raw, err := dial(ctx, "tcp", net.JoinHostPort(r.URL.Hostname(), port))
	if err != nil {
		return nil, err
	}
	cn := &conn{Conn: raw, plain: raw, client: c, to: to, raw: rawOf(raw)}
	cn.in = bufio.NewReaderSize(cn, 2<<10) // what is larger passes it by
	if to.scheme == "http" {
		return cn, nil
	}
	config := new(tls.Config)
	if c.TLS != nil {
		config = c.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = r.URL.Hostname()
	}
	config.NextProtos = []string{"http/1.1"}
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = c.sessionCache()
	}
	patience := c.HandshakeTimeout
	if patience <= 0 {
		patience = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", to.host, err)
	}
	cn.Conn = secure
	return cn, nil
}

func (c *Client) sessionCache() tls.ClientSessionCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions == nil {
		c.sessions = tls.NewLRUClientSessionCache(64)
	}
	return c.sessions
}

// A conn is one connection. One goroutine at a time makes a call over it; to close it
// any may.
type conn struct {
	net.Conn
	plain  net.Conn // what Conn is, or is TLS over
	client *Client
	to     address
	raw    rawConn
	in     *bufio.Reader
	since  time.Time // when it was put back
	left   int64     // bytes that may still be read
}

// maxHead bounds the head of an answer, as net/http does.
const maxHead = 1 << 20

var errHead = errors.New("the head of the answer is longer than a megabyte")

// Read reads what the answer's head may have, and then as much as there is.
func (cn *conn) Read(p []byte) (int, error) {
	if cn.left <= 0 {
		return 0, errHead
	}
	if int64(len(p)) > cn.left {
		p = p[:cn.left]
	}
	n, err := cn.Conn.Read(p)
	cn.left -= int64(n)
	return n, err
}

// drained reports whether TLS holds nothing that the other side has sent and nobody has
// read: more than an answer in the record that ended it would be taken for the next one.
func (cn *conn) drained() bool {
	if cn.Conn == cn.plain {
		return true
	}
	var b [1]byte
	if cn.SetReadDeadline(time.Unix(1, 0)) != nil { // what is there is given all the same
		return false
	}
	n, err := cn.Conn.Read(b[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && cn.SetReadDeadline(time.Time{}) == nil
}

// call sends the request and reads the head of its answer.
func (cn *conn) call(r *http.Request, o *out) (*http.Response, error) {
	ctx := r.Context()
	w := &way{cn: cn, ctx: ctx, request: r}
	w.unwatch = context.AfterFunc(ctx, func() { cn.Close() })
	cn.left = maxHead
	if err := w.send(o); err != nil {
		w.end(false)
		return nil, w.cause(err)
	}
	answer, err := w.head(r)
	if err != nil {
		w.end(false)
		return nil, w.cause(err)
	}
	cn.left = math.MaxInt64
	if answer.StatusCode == http.StatusSwitchingProtocols {
		w.end(false)
		answer.Body = http.NoBody
		return answer, nil
	}
	w.reusable = !answer.Close
	if answer.Body == nil || answer.Body == http.NoBody || answer.ContentLength == 0 {
		answer.Body = http.NoBody
		w.end(true)
		return answer, nil
	}
	w.body = answer.Body
	answer.Body = w
	return answer, nil
}

// A way is one call on its connection, and the body of its answer.
type way struct {
	cn       *conn
	ctx      context.Context
	request  *http.Request
	unwatch  func() bool
	body     io.Reader
	reusable bool
	sent     chan error // of a body that is sent while the answer may come already; else nil
	once     sync.Once
	closed   atomic.Bool // by Close

	mu       sync.Mutex // guards below, and the deadline
	hasHead  bool
	deadline bool
}

// inline is what is sent before anything is read: the kernels on the way hold as much.
const inline = 32 << 10

// send sends the request. A large one is sent beside: AWS may answer, and stop reading,
// before it has all.
func (w *way) send(o *out) error {
	if o.size() > inline {
		w.sent = make(chan error, 1)
		o.hold()
		go func() {
			defer o.done()
			_, err := o.writeTo(w.cn.Conn)
			o.body = nil
			closeBody(w.request)
			if err != nil { // what AWS said before it stopped reading is there by now
				w.await(time.Second)
			} else {
				w.await(w.cn.client.HeaderTimeout)
			}
			w.sent <- err
		}()
		return nil
	}
	n, err := o.writeTo(w.cn.Conn)
	if err != nil {
		if n == 0 && w.ctx.Err() == nil {
			return fmt.Errorf("%w: %w", errUnused, err)
		}
		closeBody(w.request)
		return fmt.Errorf("send the request: %w", err)
	}
	o.body = nil // prompts are long, and so is the wait for an answer
	closeBody(w.request)
	w.await(w.cn.client.HeaderTimeout)
	return nil
}

// await sets the time within which the head must come, if it is not there already.
func (w *way) await(t time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t > 0 && !w.hasHead {
		w.deadline = true
		_ = w.cn.SetReadDeadline(time.Now().Add(t)) // it fails where the connection is closed: reading tells
	}
}

// came lifts the deadline: the head is there, and the body may take its time.
func (w *way) came() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hasHead = true; w.deadline {
		_ = w.cn.SetReadDeadline(time.Time{}) // it fails where the connection is closed: reading tells
	}
}

// maxInterim bounds the answers that announce another one.
const maxInterim = 5

func (w *way) head(r *http.Request) (*http.Response, error) {
	for range maxInterim + 1 {
		answer, err := http.ReadResponse(w.cn.in, r)
		if err != nil {
			select {
			case sendErr := <-w.sent: // nil where nothing was sent beside: never
				w.sent <- sendErr
				if sendErr != nil {
					return nil, fmt.Errorf("send the request: %w", sendErr)
				}
			default:
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		if answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			w.came()
			return answer, nil
		}
	}
	return nil, errors.New("read the answer: too many interim answers")
}

// cause is the reason why the context has ended, where it is that which broke the call.
func (w *way) cause(err error) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return err
}

// Read reads of the answer's body. Its end puts the connection back.
func (w *way) Read(p []byte) (int, error) {
	if w.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := w.body.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		w.end(true)
	default:
		w.end(false)
		err = w.cause(err)
	}
	return n, err
}

// Close ends the call. A body that was not read to its end takes the connection with it.
func (w *way) Close() error {
	w.closed.Store(true)
	w.end(false)
	return nil
}

// end gives the connection up, or puts it back where nothing of this call can still be
// on it.
func (w *way) end(whole bool) {
	w.once.Do(func() {
		whole = w.unwatch() && whole && w.reusable && w.cn.in.Buffered() == 0
		if w.sent != nil {
			whole = w.wasSent(whole) && whole
		}
		if whole {
			w.cn.client.keep(w.cn)
		} else {
			w.cn.Close()
		}
	})
}

// wasSent reports whether the whole request has left. After it nobody reads the
// request's body. The answer may be here before the one who sends has said so.
func (w *way) wasSent(wait bool) bool {
	if wait {
		patience := time.NewTimer(50 * time.Millisecond)
		defer patience.Stop()
		select {
		case err := <-w.sent:
			return err == nil
		case <-patience.C: // AWS did not need all of it
		}
	}
	w.cn.Close()
	return <-w.sent == nil
}
