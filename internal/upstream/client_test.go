package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func post(t *testing.T, ctx context.Context, to string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func text(t *testing.T, a *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Bodies of every size arrive and come back whole, over connections that are used again.
func TestCalls(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			var opened atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				sum := sha256.Sum256(body)
				if r.URL.Path != "/a b" || r.URL.RawQuery != "x=1" || r.Host != "bedrock.example" || r.Header.Get("User-Agent") != "" || r.Header.Get("X-Two") != "a" || len(r.Header["X-Two"]) != 2 {
					http.Error(w, fmt.Sprint(r.URL, r.Host, r.Header), 400)
					return
				}
				if len(body)%2 == 0 { // of unknown length
					w.(http.Flusher).Flush()
				}
				w.Write([]byte(hex.EncodeToString(sum[:])))
				w.Write(body)
			}))
			s.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					opened.Add(1)
				}
			}
			c := &Client{HeaderTimeout: time.Minute}
			if secure {
				s.StartTLS()
				c.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig
			} else {
				s.Start()
			}
			defer s.Close()
			defer c.CloseIdleConnections()
			const workers = 8
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					for i, size := range []int{0, 1, 1000, 16 << 10, 17 << 10, 33 << 10, 200_001, 1 << 20, 5} {
						body := bytes.Repeat([]byte{byte('a' + w + i)}, size)
						r := post(t, t.Context(), s.URL+"/a%20b?x=1", body)
						r.Host, r.Header["User-Agent"], r.Header["X-Two"] = "bedrock.example", []string{""}, []string{"a", "b"}
						sum := sha256.Sum256(body)
						a, err := c.RoundTrip(r)
						if err != nil {
							t.Error(err)
							return
						}
						got, err := io.ReadAll(a.Body)
						a.Body.Close()
						if want := hex.EncodeToString(sum[:]) + string(body); err != nil || string(got) != want {
							t.Errorf("%d bytes: %v, %.200q", size, err, got)
						}
					}
				})
			}
			wg.Wait()
			if n := opened.Load(); n > workers {
				t.Errorf("%d connections for %d workers", n, workers)
			}
		})
	}
}

// A peer is AWS by the byte: it serves each connection with a function.
func peer(t *testing.T, serve func(c net.Conn, in *bufio.Reader)) (base string, opened *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened = new(atomic.Int64)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			opened.Add(1)
			wg.Go(func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String(), opened
}

// readRequest reads one request whole.
func readRequest(in *bufio.Reader) (*http.Request, []byte, error) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r.Body)
	return r, body, err
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// A connection that AWS has closed, or on which it said something unasked, is not used
// again, and no call fails of it.
func TestClosedConnections(t *testing.T) {
	for name, last := range map[string]string{"closed": "", "said something": "HTTP/1.1 408 Request Timeout\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{}, 1)
			base, opened := peer(t, func(c net.Conn, in *bufio.Reader) {
				if _, _, err := readRequest(in); err != nil {
					t.Error(err)
				}
				io.WriteString(c, ok)
				io.WriteString(c, last)
				if last == "" {
					c.Close()
				}
				over <- struct{}{}
				io.Copy(io.Discard, in)
			})
			c := &Client{}
			defer c.CloseIdleConnections()
			for i := range 3 {
				a, err := c.RoundTrip(post(t, t.Context(), base, []byte("{}")))
				if got := text(t, a, err); got != "ok" {
					t.Errorf("call %d: %q", i, got)
				}
				<-over
			}
			if n := opened.Load(); n != 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A call of which a byte has left is not sent again, whatever became of it.
func TestSentOnce(t *testing.T) {
	for _, size := range []int{2, 100 << 10} {
		var arrived atomic.Int64
		base, _ := peer(t, func(c net.Conn, in *bufio.Reader) {
			for i := 0; ; i++ {
				if _, _, err := readRequest(in); err != nil {
					return
				}
				arrived.Add(1)
				if i == 1 {
					return
				}
				io.WriteString(c, ok)
			}
		})
		c := &Client{}
		a, err := c.RoundTrip(post(t, t.Context(), base, make([]byte, size)))
		text(t, a, err)
		if a, err := c.RoundTrip(post(t, t.Context(), base, make([]byte, size))); err == nil {
			a.Body.Close()
			t.Error("an answer that never came")
		} else if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if n := arrived.Load(); n != 2 {
			t.Errorf("%d bytes: %d requests arrived", size, n)
		}
	}
}

// AWS may answer before it has read a large request, and read no more of it.
func TestEarlyAnswer(t *testing.T) {
	over := make(chan struct{})
	base, _ := peer(t, func(c net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			t.Error(err)
		}
		io.WriteString(c, ok)
		<-over
	})
	defer close(over)
	c := &Client{}
	for range 2 {
		a, err := c.RoundTrip(post(t, t.Context(), base, make([]byte, 24<<20)))
		if got := text(t, a, err); got != "ok" {
			t.Errorf("%q", got)
		}
	}
}

// A context that ends breaks off the call, and is the reason that the caller is told.
func TestCancel(t *testing.T) {
	t.Run("plain", func(t *testing.T) { cancelled(t, false) })
	t.Run("TLS", func(t *testing.T) { cancelled(t, true) })
}

func cancelled(t *testing.T, secure bool) {
	served, trusted := certificate(t)
	for _, when := range []string{"before the head", "in the body", "while sending"} {
		t.Run(when, func(t *testing.T) {
			reached, over, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
			base, opened := peer(t, func(c net.Conn, in *bufio.Reader) {
				defer close(ended)
				if secure {
					c = tls.Server(c, served)
					in = bufio.NewReader(c)
				}
				if when == "while sending" {
					http.ReadRequest(in)
				} else {
					readRequest(in)
				}
				if when == "in the body" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
				}
				reached <- struct{}{}
				if when == "while sending" {
					<-over
				}
				io.Copy(io.Discard, in)
			})
			if secure {
				base = "https" + strings.TrimPrefix(base, "http")
			}
			c := &Client{TLS: trusted}
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancelCause(t.Context())
			left := errors.New("the caller left")
			size := 2
			if when == "while sending" {
				size = 24 << 20
			}
			go func() { <-reached; cancel(left) }()
			a, err := c.RoundTrip(post(t, ctx, base, make([]byte, size)))
			if err == nil { // the head was there before the caller left
				_, err = io.ReadAll(a.Body)
				a.Body.Close()
			}
			if !errors.Is(err, left) || saysNotSent(err) {
				t.Errorf("%v, not sent: %t", err, saysNotSent(err))
			}
			close(over)
			<-ended // the connection
			eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.idle) > 0 || opened.Load() != 1 {
				t.Errorf("%d connections are kept, %d were opened", len(c.idle), opened.Load())
			}
		})
	}
}

// An answer that does not begin in time is given up; one that has begun may take longer.
func TestHeaderTimeout(t *testing.T) {
	t.Run("plain", func(t *testing.T) { headerTimeout(t, false) })
	t.Run("TLS", func(t *testing.T) { headerTimeout(t, true) })
}

func headerTimeout(t *testing.T, secure bool) {
	served, trusted := certificate(t)
	for _, size := range []int{2, 100 << 10} {
		release := make(chan struct{})
		base, _ := peer(t, func(c net.Conn, in *bufio.Reader) {
			if secure {
				c = tls.Server(c, served)
				in = bufio.NewReader(c)
			}
			r, _, err := readRequest(in)
			if err != nil {
				return
			}
			if r.URL.Path == "/slow" {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
				<-release
				io.WriteString(c, "ok")
			}
			io.Copy(io.Discard, in)
		})
		if secure {
			base = "https" + strings.TrimPrefix(base, "http")
		}
		c := &Client{HeaderTimeout: 30 * time.Millisecond, TLS: trusted}
		t.Cleanup(c.CloseIdleConnections)
		if a, err := c.RoundTrip(post(t, t.Context(), base, make([]byte, size))); err == nil {
			a.Body.Close()
			t.Error("an answer that never came")
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes: %v", size, err)
		}
		c.HeaderTimeout = 10 * time.Second
		a, err := c.RoundTrip(post(t, t.Context(), base+"/slow", make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		if a.Body.(*way).deadline && !a.Body.(*way).hasHead {
			t.Error("the deadline of the head stands in the body")
		}
		close(release)
		if got := text(t, a, nil); got != "okok" {
			t.Errorf("%q", got)
		}
	}
}

// What comes before or instead of an answer.
func TestHeads(t *testing.T) {
	for _, tt := range []struct{ name, says, want, err string }{
		{"interim answers", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok, "ok", ""},
		{"nothing but interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 50), "", "too many interim answers"},
		{"an endless head", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Filler: "+strings.Repeat("x", 8000)+"\r\n", 200), "", errHead.Error()},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n", "", "malformed HTTP"},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-Le", "", "read the answer"},
		{"to the end of the connection", "HTTP/1.0 200 OK\r\n\r\nto the end", "to the end", ""},
		{"nothing to say", "HTTP/1.1 204 No Content\r\n\r\n", "", ""},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "", ""},
	} {
		base, _ := peer(t, func(c net.Conn, in *bufio.Reader) {
			readRequest(in)
			io.WriteString(c, tt.says)
		})
		a, err := new(Client).RoundTrip(post(t, t.Context(), base, []byte("{}")))
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil {
			if got := text(t, a, nil); got != tt.want {
				t.Errorf("%s: %q", tt.name, got)
			}
		}
	}
}

// More than one answer within one TLS record is no answer to the next call: the connection
// is not used again.
func TestUnaskedWithinARecord(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		n := opened.Add(1)
		body := strings.Repeat("a", 10_000) // longer than the client's buffer, so that it reads past it
		said := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if n == 1 {
			said += "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
		}
		conn.Write([]byte(said))
		io.Copy(io.Discard, conn) // until it is closed
	}))
	s.TLS = &tls.Config{DynamicRecordSizingDisabled: true} // so that one record holds it all
	s.StartTLS()
	defer s.Close()
	c := &Client{HeaderTimeout: time.Minute, TLS: s.Client().Transport.(*http.Transport).TLSClientConfig}
	defer c.CloseIdleConnections()
	for range 2 {
		a, err := c.RoundTrip(post(t, t.Context(), s.URL, []byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 20_000) // so large that what is left is read past the client's buffer
		n := 0
		for err == nil {
			var more int
			more, err = a.Body.Read(got[n:])
			n += more
		}
		if err != io.EOF || n != 10_000 {
			t.Errorf("an answer that nobody asked for: %q, %v", got[:n], err)
		}
	}
	if n := opened.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// A pieceWriter sends what is written to it a few bytes at a time.
type pieceWriter struct {
	net.Conn
	size int
}

func (c pieceWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Conn.Write(p[n:min(n+c.size, len(p))])
		n += m
	}
	return n, err
}

type pieceListener struct {
	net.Listener
	size int
}

func (l pieceListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return pieceWriter{c, l.size}, err
}

// TLS records that come in pieces, or several at once, are read as they are, and the
// connection is used again.
func TestRecordsInPieces(t *testing.T) {
	const events = 50
	for _, size := range []int{1, 5, 6, 1000, 1 << 20} {
		opened := new(atomic.Int64)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for i := range events {
				fmt.Fprint(w, strings.Repeat("x", i*i%97), i, "\n")
				w.(http.Flusher).Flush()
			}
		}))
		s.Listener = pieceListener{s.Listener, size}
		s.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		}
		s.StartTLS()
		want := ""
		for i := range events {
			want += fmt.Sprint(strings.Repeat("x", i*i%97), i, "\n")
		}
		c := &Client{TLS: s.Client().Transport.(*http.Transport).TLSClientConfig}
		for range 3 {
			a, err := c.RoundTrip(post(t, t.Context(), s.URL, []byte("{}")))
			if got := text(t, a, err); got != want {
				t.Errorf("pieces of %d: %q", size, got)
			}
		}
		if n := opened.Load(); n != 1 {
			t.Errorf("pieces of %d: %d connections", size, n)
		}
		c.CloseIdleConnections()
		s.Close()
	}
}

// What waits for more of an answer holds no buffer, and whoever reads it needs none.
func TestNothingHeldInWait(t *testing.T) {
	for name, tt := range map[string]struct{ head, first, second, want string }{
		"chunks":     {"Transfer-Encoding: chunked", "2\r\nok\r\n", "2\r\nok\r\n0\r\n\r\n", "ok"},
		"length":     {"Content-Length: 4", "ok", "ok", "ok"},
		"a cut":      {"Transfer-Encoding: chunked", "2\r\nok\r\n", "", ""},
		"a cut body": {"Content-Length: 4", "ok", "", ""},
		"net/http's": {"Transfer-Encoding: Chunked", "2\r\nok\r\n", "2\r\nok\r\n0\r\n\r\n", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			base, _ := peer(t, func(c net.Conn, in *bufio.Reader) {
				readRequest(in)
				io.WriteString(c, "HTTP/1.1 200 OK\r\n"+tt.head+"\r\n\r\n"+tt.first)
				<-release
				io.WriteString(c, tt.second)
			})
			a, err := new(Client).RoundTrip(post(t, t.Context(), base, []byte("{}")))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			body := a.Body.(*way)
			body.Wait()
			if _, err := io.ReadFull(body, make([]byte, 2)); err != nil {
				t.Error(err)
			}
			cn := body.cn
			if err := cn.wire.raw.Read(func(fd uintptr) bool {
				if cn.wire.receive(fd) {
					t.Error("something was received")
				}
				return true
			}); err != nil {
				t.Error(err)
			}
			if cn.block != nil || cn.wire.block != nil {
				t.Errorf("blocks are held: %t, %t", cn.block != nil, cn.wire.block != nil)
			}
			close(release)
			body.Wait()
			if plain := body.body == nil; plain && tt.want != "" && (len(cn.pending) == 0 || body.err != nil) {
				t.Errorf("nothing has come, %v", body.err)
			}
			got, err := io.ReadAll(body)
			if string(got) != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("%q, %v", got, err)
			}
			body.Wait() // it is over
		})
	}
}

// A target with a space would end early in the request line.
func TestTargetInjection(t *testing.T) {
	c := new(Client)
	for _, query := range []string{"a b", "a\tb", "a\r\nX: y"} {
		r := post(t, t.Context(), "http://127.0.0.1:1/", []byte("x"))
		r.URL.RawQuery = query
		if _, err := c.RoundTrip(r); err == nil || !strings.Contains(err.Error(), "target") {
			t.Errorf("%q: %v", query, err)
		}
	}
}

// A header that would end the line is not sent, and its value is told to nobody.
func TestHeaderInjection(t *testing.T) {
	base, opened := peer(t, func(net.Conn, *bufio.Reader) {})
	for name, value := range map[string]string{"X-Note": "a\r\nX-Evil: secret", "User-Agent": "a\nsecret", "X-Evil: secret\r\nX": "a", "X-Nul": "secret\x00"} {
		r := post(t, t.Context(), base, []byte("{}"))
		r.Header[name] = []string{value}
		a, err := new(Client).RoundTrip(r)
		if err == nil {
			a.Body.Close()
			t.Errorf("%q: %q was sent", name, value)
		} else if strings.Contains(err.Error(), "secret") && !strings.Contains(name, "secret") {
			t.Errorf("%v", err)
		}
	}
	r := post(t, t.Context(), base, []byte("{}"))
	r.Host = "a\r\nX-Evil: b"
	if a, err := new(Client).RoundTrip(r); err == nil {
		a.Body.Close()
		t.Error("a host was sent that ends the line")
	}
	if opened.Load() != 0 {
		t.Error("a connection was opened")
	}
}

// An answer that is left in the middle takes its connection with it.
func TestLeftInTheMiddle(t *testing.T) {
	base, opened := peer(t, func(c net.Conn, in *bufio.Reader) {
		for {
			if _, _, err := readRequest(in); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun")
		}
	})
	c := &Client{}
	for range 2 {
		a, err := c.RoundTrip(post(t, t.Context(), base, []byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if _, err := a.Body.Read(make([]byte, 1)); err == nil {
			t.Error("a closed body can be read")
		}
	}
	if n := opened.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// A connection that is not used for long is closed.
func TestIdle(t *testing.T) {
	closed := make(chan struct{})
	base, _ := peer(t, func(c net.Conn, in *bufio.Reader) {
		readRequest(in)
		io.WriteString(c, ok)
		in.Peek(1)
		close(closed)
	})
	c := &Client{IdleTimeout: 10 * time.Millisecond}
	a, err := c.RoundTrip(post(t, t.Context(), base, []byte("{}")))
	text(t, a, err)
	<-closed
}

type others struct{ calls int }

func (o *others) RoundTrip(r *http.Request) (*http.Response, error) {
	o.calls++
	closeBody(r)
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

// Calls that this client does not know are made by the other.
func TestOthers(t *testing.T) {
	o := &others{}
	c := &Client{Others: o, Proxy: func(r *http.Request) (*url.URL, error) {
		if r.URL.Path == "/proxied" {
			return url.Parse("http://proxy.example")
		}
		return nil, nil
	}}
	unknown := post(t, t.Context(), "http://127.0.0.1:1/", []byte("{}"))
	unknown.ContentLength, unknown.Body = -1, io.NopCloser(strings.NewReader("{}"))
	expects := post(t, t.Context(), "http://127.0.0.1:1/", []byte("{}"))
	expects.Header.Set("Expect", "100-continue")
	for i, r := range []*http.Request{unknown, expects, post(t, t.Context(), "http://127.0.0.1:1/proxied", nil), post(t, t.Context(), "ftp://127.0.0.1:1/", nil)} {
		if a, err := c.RoundTrip(r); err != nil || o.calls != i+1 {
			t.Errorf("call %d: %v, %d made by the other", i, err, o.calls)
		} else {
			a.Body.Close()
		}
	}
	c.Others = nil
	if a, err := c.RoundTrip(post(t, t.Context(), "ftp://127.0.0.1:1/", nil)); err == nil {
		a.Body.Close()
		t.Error("a call that nobody can make")
	}
	if a, err := c.RoundTrip(post(t, t.Context(), "http://127.0.0.1:1/", nil)); err == nil {
		a.Body.Close()
	} else if failed, ok := errors.AsType[*net.OpError](err); !ok || failed.Op != "dial" {
		t.Errorf("%T %v", err, err)
	}
}

// A body that has another length than it says does not leave.
func TestWrongLength(t *testing.T) {
	base, opened := peer(t, func(net.Conn, *bufio.Reader) {})
	for _, told := range []int64{1, 3} {
		for _, plain := range []bool{true, false} {
			r := post(t, t.Context(), base, []byte("{}"))
			if r.ContentLength = told; plain {
				r.Body = io.NopCloser(struct{ io.Reader }{strings.NewReader("{}")})
			}
			if a, err := new(Client).RoundTrip(r); err == nil {
				a.Body.Close()
				t.Errorf("%d bytes were told of two", told)
			}
		}
	}
	if opened.Load() != 0 {
		t.Error("a connection was opened")
	}
}
