package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
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
	// Proxy names the proxy of a request's address; nil means that there is none. While
	// connections to an address are kept it is not asked about it again.
	Proxy func(*http.Request) (*url.URL, error)
	// Others makes the calls that are not for this client; nil fails them.
	Others http.RoundTripper

	mu       sync.Mutex          // guards below
	idle     map[address][]*conn // oldest first
	sweeping bool                // a timer runs that closes what was idle for too long
	sessions tls.ClientSessionCache
	configs  map[string]*tls.Config // by host
}

// maxHosts is how many hosts are remembered for TLS: there are a few in each region.
const maxHosts = 64

type address struct {
	scheme, host string
}

// A notSent error is that of a call of which nothing that AWS could act on has left.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// NotSent tells so: whoever made the call knows that it has cost nothing.
func (e notSent) NotSent() bool { return true }

func isNotSent(err error) bool {
	_, is := errors.AsType[notSent](err)
	return is
}

// cause is the reason why the context has ended, where it is that which broke the call.
func cause(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case isNotSent(err):
		return notSent{context.Cause(ctx)}
	}
	return context.Cause(ctx)
}

// RoundTrip makes one call. Its errors are those of the network, and of the context that
// ended it.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	if !c.serves(r) {
		return c.other(r)
	}
	if r.Context().Err() != nil {
		closeBody(r)
		return nil, notSent{context.Cause(r.Context())}
	}
	to := address{r.URL.Scheme, r.URL.Host}
	cn := c.kept(to)
	if cn == nil && c.proxied(r) {
		return c.other(r)
	}
	o := outs.Get().(*out)
	defer o.done()
	if err := o.fill(r); err != nil {
		if cn != nil {
			c.keep(cn)
		}
		closeBody(r)
		return nil, notSent{err}
	}
	for {
		kept := cn != nil
		if !kept {
			var err error
			if cn, err = c.dial(r.Context(), r.URL, to); err != nil {
				closeBody(r)
				return nil, cause(r.Context(), notSent{err})
			}
		}
		answer, err := cn.call(r, o)
		if isNotSent(err) {
			if kept && r.Context().Err() == nil { // AWS has closed it meanwhile; there is one less
				cn = c.kept(to)
				continue
			}
			closeBody(r)
		}
		return answer, err
	}
}

// other has the call made by who makes those that are not for this client.
func (c *Client) other(r *http.Request) (*http.Response, error) {
	if c.Others == nil {
		closeBody(r)
		return nil, notSent{fmt.Errorf("%s %s: this client has no way to make the call", r.Method, r.URL.Redacted())}
	}
	return c.Others.RoundTrip(r)
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
	for _, name := range [...]string{"Connection", "Expect", "Upgrade", "Te", "Transfer-Encoding", "Trailer"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	return true
}

// proxied reports whether a proxy is between here and the request's address.
func (c *Client) proxied(r *http.Request) bool {
	if c.Proxy == nil {
		return false
	}
	proxy, err := c.Proxy(r)
	return proxy != nil || err != nil
}

// kept is a connection that is kept and can be used, or nil.
func (c *Client) kept(to address) *conn {
	for {
		cn := c.pop(to)
		if cn == nil || time.Since(cn.since) < c.idleTimeout() && cn.quiet() {
			return cn
		}
		cn.Close()
	}
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
	if !c.put(cn) {
		cn.Close()
	}
}

// put does so unless there are enough. No connection is closed under the lock: TLS says
// goodbye first, which can take its time.
func (c *Client) put(cn *conn) bool {
	most := c.MaxIdle
	if most <= 0 {
		most = 2048
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[cn.to]
	if len(list) >= most {
		return false
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
	return true
}

// sweep closes what was idle for too long.
func (c *Client) sweep() {
	for _, cn := range c.expired(time.Now().Add(-c.idleTimeout())) {
		cn.Close()
	}
}

// expired takes out what was put back before the limit.
func (c *Client) expired(limit time.Time) []*conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*conn
	for to, list := range c.idle {
		n := 0
		for n < len(list) && !list[n].since.After(limit) {
			n++
		}
		all = append(all, list[:n]...)
		if list = append(list[:0:0], list[n:]...); len(list) == 0 {
			delete(c.idle, to)
		} else {
			c.idle[to] = list
		}
	}
	if c.sweeping = len(c.idle) > 0; c.sweeping {
		time.AfterFunc(max(c.idleTimeout()/4, time.Millisecond), c.sweep)
	}
	return all
}

// CloseIdleConnections closes every connection that is between two calls.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, list := range idle {
		for _, cn := range list {
			cn.Close()
		}
	}
	if t, ok := c.Others.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

func (c *Client) dial(ctx context.Context, u *url.URL, to address) (*conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[to.scheme]
	}
	raw, err := dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	cn := &conn{client: c, to: to, wire: wire{Conn: raw, raw: rawOf(raw)}}
	cn.wire.receive, cn.wire.look = cn.wire.receiver(), cn.wire.looker()
	cn.Conn = &cn.wire
	cn.cut = func() { cn.Close() }
	if to.scheme == "http" {
		return cn, nil
	}
	patience := c.HandshakeTimeout
	if patience <= 0 {
		patience = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cn.wire.patient = true
	secure := tls.Client(&cn.wire, c.tlsFor(u.Hostname()))
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", to.host, err)
	}
	cn.wire.patient, cn.wire.full = cn.wire.raw == nil, false
	cn.Conn, cn.secure = secure, true
	return cn, nil
}

// tlsFor is the configuration for a host, which its connections share for as long as they
// are open.
func (c *Client) tlsFor(host string) *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if config := c.configs[host]; config != nil {
		return config
	}
	config := new(tls.Config)
	if c.TLS != nil {
		config = c.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	config.NextProtos = []string{"http/1.1"}
	config.Renegotiation = tls.RenegotiateNever // it would wait for what it reads, and a wire does not
	if config.ClientSessionCache == nil {
		if c.sessions == nil {
			c.sessions = tls.NewLRUClientSessionCache(maxHosts)
		}
		config.ClientSessionCache = c.sessions
	}
	if c.configs == nil || len(c.configs) >= maxHosts {
		c.configs = make(map[string]*tls.Config)
	}
	c.configs[host] = config
	return config
}
