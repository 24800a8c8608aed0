package downstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
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
