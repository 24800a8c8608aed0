package downstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A Server serves callers until it is shut down. Set its fields before Serve.
type Server struct {
	// Handler answers. It must not keep a request, its body or its ResponseWriter after it
	// has returned. Of http.ResponseController it has Flush and the two deadlines, and of
	// trailers those that it names in the header Trailer before it writes; an answer gets no
	// Content-Type that its handler did not set. A deadline for reading may hold from three
	// quarters of its time on, and so may one for writing: setting a timer anew costs more
	// than most calls wait.
	Handler http.Handler
	// TLS is for every connection; nil means none. Where it names h2 among its protocols,
	// net/http serves those who choose it.
	TLS *tls.Config
	// HeaderTimeout is for a request's head, and for the handshake; 0 means none.
	HeaderTimeout time.Duration
	// IdleTimeout is for the next request of a connection; 0 means none.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the head of a request; 0 means net/http's bound.
	MaxHeaderBytes int
	// Log is told of handshakes that fail, at the level of debugging, and of handlers that
	// panic; nil means that nobody is.
	Log *slog.Logger

	closing atomic.Bool
	done    chan struct{} // closed by Shutdown
	other   *http.Server  // for what is not plain
	handed  *handover

	mu       sync.Mutex // guards below
	listener net.Listener
	conns    map[*conn]struct{}
	running  sync.WaitGroup // of conns
}

// Serve serves the connections of a listener, until Shutdown, when it returns
// http.ErrServerClosed, or until the listener fails.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.begin(l) {
		return http.ErrServerClosed
	}
	go func() { _ = s.other.Serve(s.handed) }() // it ends with the handover, and has nothing else to tell
	go s.watch()
	var pause time.Duration
	for {
		raw, err := l.Accept()
		if err != nil {
			if s.closing.Load() {
				return http.ErrServerClosed
			}
			if temporary, ok := errors.AsType[net.Error](err); ok && temporary.Temporary() { //nolint:staticcheck // SA1019: as net/http does: it is true of those that end, such as too many open files
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				s.log().Warn("a connection could not be accepted", "err", err)
				select {
				case <-time.After(pause):
				case <-s.done:
				}
				continue
			}
			return err
		}
		pause = 0
		s.start(raw)
	}
}

func (s *Server) begin(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listener, s.done, s.conns = l, make(chan struct{}), make(map[*conn]struct{})
	s.handed = &handover{conns: make(chan net.Conn), done: make(chan struct{}), addr: l.Addr()}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.TLS == nil)
	s.other = &http.Server{Handler: http.HandlerFunc(s.serveOther), ReadHeaderTimeout: s.HeaderTimeout, IdleTimeout: s.IdleTimeout, MaxHeaderBytes: s.MaxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log().Handler(), slog.LevelDebug), Protocols: protocols, ConnContext: tlsOf}
	return true
}

// log is never nil.
func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// start serves a connection in a goroutine of its own.
func (s *Server) start(raw net.Conn) {
	c := &conn{server: s, raw: raw, way: raw, tcp: rawOf(raw), remote: raw.RemoteAddr().String()}
	c.receive = c.receiver()
	if s.TLS != nil {
		c.secure = tls.Server(raw, s.TLS)
		c.way = c.secure
	}
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		raw.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.running.Done()
		handed := false
		defer func() { // a handler may end its goroutine
			if !handed {
				c.way.Close()
			}
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		handed = c.serve()
	}()
}

// Shutdown stops to take connections, closes those that are between two calls, and waits
// for the calls under way, as long as ctx lasts. A connection ends with its call.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	again := s.closing.Swap(true)
	if s.listener == nil {
		s.mu.Unlock()
		return nil
	}
	if !again {
		close(s.done)
		s.listener.Close()
	}
	for c := range s.conns {
		c.closeIdle()
	}
	s.mu.Unlock()
	err := s.other.Shutdown(ctx)
	over := make(chan struct{})
	go func() { s.running.Wait(); close(over) }()
	select {
	case <-over:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends every connection at once, whatever it does.
func (s *Server) Close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Shutdown(ctx) // what it would wait for is ended now
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.other != nil {
		s.other.Close()
	}
	for c := range s.conns {
		c.raw.Close()
	}
}

// lookEvery is the time between two looks at whether the callers are still there.
const lookEvery = 250 * time.Millisecond

// watch ends the contexts of calls whose callers have left.
func (s *Server) watch() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var waiting []*conn
	for {
		<-tick.C
		before := time.Now().Add(-lookEvery)
		waiting = waiting[:0]
		s.mu.Lock()
		for c := range s.conns {
			if c.busySince(before) {
				waiting = append(waiting, c)
			}
		}
		over := s.closing.Load() && len(s.conns) == 0
		s.mu.Unlock()
		for i, c := range waiting {
			c.look()
			waiting[i] = nil
		}
		if over {
			return
		}
	}
}

// serveOther answers what net/http has read.
func (s *Server) serveOther(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil {
		r.TLS, _ = r.Context().Value(tlsKey{}).(*tls.ConnectionState)
	}
	defer func() { // net/http would tell it among the noise of strangers
		if v := recover(); v != nil {
			s.panicked(r.RemoteAddr, v)
			panic(http.ErrAbortHandler)
		}
	}()
	s.Handler.ServeHTTP(w, r)
}

// panicked tells of a panic. Its connection, or stream, ends.
func (s *Server) panicked(from string, what any) {
	if what != http.ErrAbortHandler { //nolint:errorlint // that very value, as net/http documents
		s.log().Error("a handler has panicked, or a handshake", "from", from, "what", fmt.Sprint(what), "stack", string(debug.Stack()))
	}
}

// A handover is the listener by which net/http gets connections.
type handover struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
	addr  net.Addr
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handover) Addr() net.Addr { return h.addr }

// A begun is a connection of which something was read already.
type begun struct {
	net.Conn
	read []byte
	tls  *tls.ConnectionState // of a connection with TLS, which net/http does not see
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.read) > 0 {
		n := copy(p, b.read)
		if b.read = b.read[n:]; len(b.read) == 0 {
			b.read = nil
		}
		return n, nil
	}
	return b.Conn.Read(p)
}

// CloseWrite lets net/http end its side first.
func (b *begun) CloseWrite() error { return closeWrite(b.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// ReadFrom lets the kernel see what is behind, as it would without.
func (b *begun) ReadFrom(r io.Reader) (int64, error) { return io.Copy(b.Conn, r) }

type tlsKey struct{}

func tlsOf(ctx context.Context, c net.Conn) context.Context {
	if b, ok := c.(*begun); ok && b.tls != nil {
		return context.WithValue(ctx, tlsKey{}, b.tls)
	}
	return ctx
}
