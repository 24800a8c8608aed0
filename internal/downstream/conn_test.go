package downstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tcpPair is both ends of a connection.
func tcpPair(t *testing.T) (caller, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	caller, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close(); server.Close() })
	_ = caller.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
	return caller, server
}

// begunServer is a server that serves no listener.
func begunServer(h http.HandlerFunc) *Server {
	return &Server{Handler: h, conns: make(map[*conn]struct{}), handed: &handover{conns: make(chan net.Conn), done: make(chan struct{})}}
}

func newConn(s *Server, raw net.Conn) *conn {
	c := &conn{server: s, raw: raw, way: raw, tcp: rawOf(raw)}
	c.receive = c.receiver()
	return c
}

func skipWhereLibraryServesAll(t *testing.T, c *conn) {
	t.Helper()
	if c.tcp == nil {
		t.Skip("net/http serves all here")
	}
}

// What net/http has taken over is not idle, though nobody has noted yet that it has left.
func TestShutdownSparesWhatWasHandedOver(t *testing.T) {
	caller, raw := tcpPair(t)
	s := begunServer(nil)
	c := newConn(s, raw)
	served := make(chan bool)
	go func() { served <- c.serve() }()
	if _, err := io.WriteString(caller, "PUT / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	taken := <-s.handed.conns
	if !<-served {
		t.Fatal("not handed over")
	}
	c.closeIdle()
	if _, err := io.WriteString(taken, "HTTP/1.1 204 No Content\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if a, err := http.ReadResponse(bufio.NewReader(caller), nil); err != nil || a.StatusCode != http.StatusNoContent {
		t.Errorf("%+v, %v", a, err)
	}
}

// A request that has arrived when the server stops is answered, be it read or not.
func TestShutdownAnswersWhatHasArrived(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for read := range len(request) {
		caller, raw := tcpPair(t)
		s := begunServer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answered") })
		c := newConn(s, raw)
		skipWhereLibraryServesAll(t, c)
		if read > 0 { // the beginning of it has been
			if _, err := io.WriteString(caller, request[:read]); err != nil {
				t.Fatal(err)
			}
		}
		if read == 0 {
			_, _ = io.WriteString(caller, request)
			for !arrived(c.tcp) { // the kernel needs a moment
				runtime.Gosched()
			}
			s.closing.Store(true)
			c.closeIdle()
		}
		served := make(chan bool)
		go func() { served <- c.serve() }()
		if read > 0 {
			for c.is() != busy {
				runtime.Gosched()
			}
			s.closing.Store(true)
			c.closeIdle()
			_, _ = io.WriteString(caller, request[read:])
		}
		a, err := http.ReadResponse(bufio.NewReader(caller), nil)
		if err != nil {
			t.Fatalf("%d bytes were read: %v", read, err)
		}
		if body, _ := io.ReadAll(a.Body); string(body) != "answered" || !a.Close {
			t.Errorf("%d bytes were read: %q, close %t", read, body, a.Close)
		}
		if <-served {
			t.Error("handed over")
		}
	}
}

func (c *conn) is() phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase
}

// A connection on which something has come that is no request does not hold up the end.
func TestShutdownWaitsForNoBlanks(t *testing.T) {
	caller, raw := tcpPair(t)
	s := begunServer(func(http.ResponseWriter, *http.Request) {})
	c := newConn(s, raw)
	skipWhereLibraryServesAll(t, c)
	c.blanks = 4
	_, _ = io.WriteString(caller, "\r\n")
	for !arrived(c.tcp) {
		runtime.Gosched()
	}
	s.closing.Store(true)
	c.closeIdle()
	if c.serve() {
		t.Error("handed over")
	}
}

// Whoever asks for the end waits for the calls under way, be it the first to ask or not.
func TestShutdownTwice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came, goOn := make(chan bool), make(chan bool)
	s := &Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came <- true; <-goOn })}
	over := make(chan error)
	go func() { over <- s.Serve(l) }()
	caller, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	_, _ = io.WriteString(caller, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if err := s.Shutdown(impatient); !errors.Is(err, context.Canceled) {
			t.Errorf("with a call under way: %v", err)
		}
	}
	goOn <- true
	for range 2 {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := <-over; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	s.Close()
	s.Close()
}

// A server that was shut down before it served does not serve.
func TestShutdownBeforeServe(t *testing.T) {
	for name, end := range map[string]func(*Server){"Shutdown": func(s *Server) { _ = s.Shutdown(context.Background()) }, "Close": (*Server).Close} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{Handler: http.NotFoundHandler()}
		end(s)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is open: %v", name, err)
		}
	}
}

// What a handler writes after it has returned does not get into the next answer.
func TestNothingIsWrittenAfterACall(t *testing.T) {
	writers := make(chan http.ResponseWriter, 2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "whole")
		writers <- w
	})}
	over := make(chan error)
	go func() { over <- s.Serve(l) }()
	defer func() { s.Close(); <-over }()
	caller, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	in := bufio.NewReader(caller)
	for range 2 {
		_, _ = io.WriteString(caller, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(a.Body); string(body) != "whole" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
		w := <-writers
		if _, ok := w.(*answer); !ok {
			t.Skip("net/http serves all here")
		}
		for w.(*answer).Gone(); w.(*answer).ctx.Err() == nil; { // its call ends right after its answer
			runtime.Gosched()
		}
		if _, err := io.WriteString(w, strings.Repeat("late", 10_000)); !errors.Is(err, errOver) {
			t.Errorf("a late piece: %v", err)
		}
	}
}

// Whatever callers do, and whenever the server is stopped: an answer that looks whole is
// whole, what was begun is ended, and nothing is left, be it a goroutine or a descriptor.
func TestManyCallersAndAnEnd(t *testing.T) {
	open := func() int { names, _ := os.ReadDir("/proc/self/fd"); return len(names) } // where there is none, none is missed
	pair := httptest.NewTLSServer(nil)
	pair.Close()
	tcpPair(t) // what the runtime opens for itself is open
	goroutines, descriptors := runtime.NumGoroutine(), open()
	for round := range 6 {
		var begun, ended atomic.Int64
		enough := make(chan bool) // calls have begun
		s := &Server{HeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if begun.Add(1) == int64(1+round*20) {
				close(enough)
			}
			defer ended.Add(1)
			body, err := io.ReadAll(r.Body)
			if err == nil && r.Context().Err() != nil {
				t.Error("the caller is there, and its context has ended")
			}
			step := len(body) + 1
			if r.URL.Path != "/whole" {
				step = 1_000
			}
			for piece := range slices.Chunk(body, step) {
				_, _ = w.Write(piece) // the caller may have left
				if step == 1_000 {
					w.(http.Flusher).Flush()
				}
			}
			if r.URL.Path == "/cut" {
				panic(http.ErrAbortHandler)
			}
		})}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		secure := round%2 == 1
		if secure {
			s.TLS = &tls.Config{Certificates: pair.TLS.Certificates}
		}
		over := make(chan error, 1)
		go func() { over <- s.Serve(l) }()
		var callers sync.WaitGroup
		for i := range 16 {
			callers.Go(func() {
				for random := rand.New(rand.NewPCG(uint64(round), uint64(i))); call(t, random, l.Addr().String(), secure); {
				}
			})
		}
		<-enough
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if begun, ended := begun.Load(), ended.Load(); begun != ended {
			t.Errorf("%d calls have begun and %d ended before the server did", begun, ended)
		}
		callers.Wait()
		if err := <-over; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		s.Close()
	}
	for range 2_000 {
		if runtime.NumGoroutine() <= goroutines && open() <= descriptors {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d goroutines where there were %d, %d descriptors where there were %d", runtime.NumGoroutine(), goroutines, open(), descriptors)
}

// call makes some calls on a connection of its own, and reports whether there was one.
func call(t *testing.T, random *rand.Rand, address string, secure bool) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	in := bufio.NewReader(c)
	for range 1 + random.IntN(5) {
		path := []string{"/whole", "/stream", "/cut"}[random.IntN(3)]
		body := bytes.Repeat([]byte{byte('a' + random.IntN(26))}, []int{1, 5_000, inSize, 100_000}[random.IntN(4)])
		text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
		if random.IntN(6) == 0 {
			text = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, len(body), body)
		}
		cut := random.IntN(len(text))
		_, _ = io.WriteString(c, text[:cut]) // the server may have ended
		if random.IntN(10) == 0 {
			return true
		}
		_, _ = io.WriteString(c, text[cut:])
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded)
		}
		got, err := io.ReadAll(a.Body)
		if whole := err == nil; whole == (path == "/cut") || whole && !bytes.Equal(got, body) || !bytes.HasPrefix(body, got) {
			t.Errorf("%s: %d bytes of %d, %v", path, len(got), len(body), err)
		}
		if a.Close || err != nil {
			return true
		}
	}
	return true
}

// A buffer that was given back is nobody's: whoever takes it next may write what he likes.
func TestBuffersAreNobodyElses(t *testing.T) {
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Asked", r.RequestURI+" "+r.Header.Get("X-A"))
		for i := 0; i < len(body); {
			n := min(1+i*7%20_000, len(body)-i)
			_, _ = w.Write(body[i : i+n])
			if i += n; i%3 == 0 {
				w.(http.Flusher).Flush()
			}
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error)
	go func() { over <- s.Serve(l) }()
	defer func() { s.Close(); <-over }()
	done := make(chan bool)
	var others, callers sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				in, held := ins.Get().(*[]byte), helds.Get().(*[]byte)
				if len(*in) != inSize || len(*held) != 0 {
					t.Errorf("a buffer of %d bytes, and one with %d", len(*in), len(*held))
				}
				for _, b := range [][]byte{*in, (*held)[:cap(*held)]} {
					for i := range b {
						b[i] = '#'
					}
				}
				runtime.Gosched()
				ins.Put(in)
				helds.Put(held)
			}
		})
	}
	for k := range 4 {
		callers.Go(func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
			in := bufio.NewReader(c)
			for i := range 100 {
				body := strings.Repeat(string(rune('a'+(i+k)%26)), i*1237%40_000)
				path := "/" + strings.Repeat("x", i*10)
				var sending sync.WaitGroup
				sending.Go(func() {
					_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nX-A: %d\r\nContent-Length: %d\r\n\r\n%s", path, i, len(body), body) // what does not arrive is missed
				})
				a, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(a.Body)
				sending.Wait()
				if err != nil || string(got) != body || a.Header.Get("X-Asked") != fmt.Sprint(path, " ", i) {
					t.Errorf("%d of %d bytes, %v, %q", len(got), len(body), err, a.Header)
				}
			}
		})
	}
	callers.Wait()
	close(done)
	others.Wait()
}

// A panic, be it in a handshake, ends its connection and no more, and so does a handler that
// ends its goroutine.
func TestOneConnectionEnds(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a handler's panic":           func(http.ResponseWriter, *http.Request) { panic("a fault") },
		"a handler's goroutine's end": func(http.ResponseWriter, *http.Request) { runtime.Goexit() },
		"a handshake's panic":         nil,
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &Server{Handler: handler}
			if handler == nil {
				s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("a fault") }}
			}
			over := make(chan error)
			go func() { over <- s.Serve(l) }()
			for range 2 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				_ = c.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
				if handler == nil {
					if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error(err)
					}
				} else if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%q, %v", got, err)
				}
				c.Close()
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			<-over
			s.Close()
		})
	}
}

// A deadline does for another where it leaves nearly its time, and never where it is later,
// or over.
func TestDeadlineServes(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, tt := range []struct {
		has, wanted time.Time
		want        bool
	}{
		{time.Time{}, time.Time{}, true},
		{time.Time{}, at(time.Hour), false},
		{at(time.Hour), time.Time{}, false},
		{at(-time.Hour), time.Time{}, false},
		{at(time.Hour), at(time.Hour), true},
		{at(50 * time.Minute), at(time.Hour), true},
		{at(40 * time.Minute), at(time.Hour), false},
		{at(time.Hour + 1), at(time.Hour), false},
		{at(-1), at(time.Hour), false},
		{at(-1), at(time.Millisecond), false},
		{at(-2 * time.Hour), at(-time.Hour), false},
		{at(-time.Hour), at(-2 * time.Hour), false},
	} {
		if got := serves(tt.has, tt.wanted); got != tt.want {
			t.Errorf("%v for %v: %t", tt.has.Sub(now), tt.wanted.Sub(now), got)
		}
	}
}

// A deadline that has passed while nobody read or wrote hinders nobody who has another, or
// none.
func TestDeadlinesThatHavePassed(t *testing.T) {
	for _, next := range []time.Time{{}, time.Now().Add(time.Hour)} {
		caller, raw := tcpPair(t)
		c := newConn(begunServer(nil), raw)
		skipWhereLibraryServesAll(t, c)
		past := time.Now().Add(-time.Second)
		if _, err := io.WriteString(caller, "hello"); err != nil {
			t.Fatal(err)
		}
		c.readBy(past)
		if err := c.fill(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read after its time: %v", err)
		}
		c.readBy(next)
		if err := c.fill(); err != nil || string((*c.in)[c.read:c.write]) != "hello" {
			t.Errorf("a read with time until %v: %v", next, err)
		}
		c.writeBy(past)
		if _, err := raw.Write([]byte("hello")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write after its time: %v", err)
		}
		c.writeBy(next)
		if _, err := raw.Write([]byte("hello")); err != nil {
			t.Errorf("a write with time until %v: %v", next, err)
		}
	}
}

// A failing is a listener that fails after its first connection.
type failing struct {
	net.Listener
	taken bool
}

var errListener = errors.New("the listener has failed")

func (f *failing) Accept() (net.Conn, error) {
	if f.taken {
		return nil, errListener
	}
	f.taken = true
	return f.Listener.Accept()
}

// Where the listener fails, calls under way end as they would, and whoever then ends the
// server leaves nothing behind.
func TestListenerFails(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came, goOn := make(chan bool), make(chan bool)
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		came <- true
		<-goOn
		_, _ = io.WriteString(w, "answered")
	})}
	over := make(chan error)
	go func() { over <- s.Serve(&failing{Listener: l}) }()
	caller, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	_ = caller.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
	_, _ = io.WriteString(caller, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	if err := <-over; !errors.Is(err, errListener) {
		t.Errorf("Serve: %v", err)
	}
	close(goOn)
	a, err := http.ReadResponse(bufio.NewReader(caller), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(a.Body); string(body) != "answered" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	s.Close()
	noneLeft(t, goroutines)
}

// A server may be ended while it begins, by several at once.
func TestEndsWhileItBegins(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	for range 200 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{Handler: http.NotFoundHandler()}
		var all sync.WaitGroup
		all.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
		all.Go(func() {
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a\r\n\r\n")
				_, _ = io.ReadAll(io.LimitReader(c, 1)) // an answer, or the end
				c.Close()
			}
		})
		all.Go(s.Close)
		all.Go(func() {
			if err := s.Shutdown(t.Context()); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		})
		all.Wait()
	}
	noneLeft(t, goroutines)
}

// noneLeft waits until there are no more goroutines than there were.
func noneLeft(t *testing.T, before int) {
	t.Helper()
	for range 2_000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d goroutines where there were %d", runtime.NumGoroutine(), before)
}
