package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// awsHead is the head of an answer as Bedrock's runtime sends it.
const awsHead = "HTTP/1.1 200 OK\r\nDate: Mon, 30 Nov 2026 09:00:00 GMT\r\nContent-Type: application/json\r\n%s\r\nConnection: keep-alive\r\n" +
	"x-amzn-RequestId: 4f1ab3a4-5d5c-4f3a-9df0-6a1ab8c3c0f1\r\nX-Amzn-Bedrock-Invocation-Latency: 1234\r\n" +
	"X-Amzn-Bedrock-Input-Token-Count: 200\r\nX-Amzn-Bedrock-Output-Token-Count: 150\r\n\r\n"

// A call of 1 KB over loopback, there and back; the other side's part, two system calls,
// is in it.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("plain", func(b *testing.B) { roundTrip(b, nil) })
	b.Run("TLS", func(b *testing.B) {
		s := httptest.NewUnstartedServer(nil)
		s.StartTLS() // for its certificate
		defer s.Close()
		roundTrip(b, s)
	})
}

func roundTrip(b *testing.B, secure *httptest.Server) {
	said := fmt.Appendf(nil, awsHead, "Content-Length: 1024")
	said = append(said, bytes.Repeat([]byte{'a'}, 1024)...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, base := &Client{}, "http://"+l.Addr().String()
	if secure != nil {
		l = tls.NewListener(l, secure.TLS)
		c.TLS, base = secure.Client().Transport.(*http.Transport).TLSClientConfig, "https://"+l.Addr().String()
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 16<<10)
		for {
			n := 0
			for n < 1024 || !bytes.HasSuffix(buf[:n], []byte("}")) {
				m, err := c.Read(buf[n:])
				if err != nil {
					return
				}
				n += m
			}
			c.Write(said)
		}
	}()
	defer c.CloseIdleConnections()
	body := append(bytes.Repeat([]byte{' '}, 1023), '}')
	into := make([]byte, 32<<10)
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(b.Context())) // as the gateway's is
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/model/x/invoke", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		a, err := c.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = a.Body.Read(into)
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		a.Body.Close()
		cancel(nil)
	}
}

func BenchmarkReadHead(b *testing.B) {
	head := fmt.Sprintf(awsHead, "Content-Length: 1024")
	r, err := http.NewRequest(http.MethodPost, "http://aws.example/", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("net/http", func(b *testing.B) {
		b.ReportAllocs()
		from := strings.NewReader("")
		in := bufio.NewReaderSize(from, 2<<10)
		for b.Loop() {
			from.Reset(head)
			in.Reset(from)
			if _, err := http.ReadResponse(in, r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		var at block
		for b.Loop() {
			if readHead(at[:copy(at[:], head)], r, new(http.Response)) == 0 {
				b.Fatal("it is not a plain one")
			}
		}
	})
}

// What an open stream holds while it waits for its next event: heap, and the stack of who
// reads it. Both sides' connections are in it: some 600 bytes each, and what TLS keeps.
func BenchmarkOpenStreams(b *testing.B) {
	b.Run("plain", func(b *testing.B) { openStreams(b, nil) })
	b.Run("TLS", func(b *testing.B) {
		s := httptest.NewUnstartedServer(nil)
		s.StartTLS() // for its certificate
		defer s.Close()
		openStreams(b, s)
	})
}

func openStreams(b *testing.B, secure *httptest.Server) {
	const streams = 500
	said := fmt.Appendf(nil, awsHead+"5\r\nevent\r\n", "Transfer-Encoding: chunked")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, base := &Client{}, "http://"+l.Addr().String()+"/"
	if secure != nil {
		l = tls.NewListener(l, secure.TLS)
		c.TLS, base = secure.Client().Transport.(*http.Transport).TLSClientConfig, "https://"+l.Addr().String()+"/"
	}
	var held []net.Conn
	go func() {
		buf := make([]byte, 4<<10)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
			c.Read(buf)
			c.Write(said)
		}
	}()
	var before, after runtime.MemStats
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		runtime.GC()
		runtime.ReadMemStats(&before)
		var wg, begun sync.WaitGroup
		begun.Add(streams)
		for range streams {
			wg.Go(func() {
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, base, strings.NewReader("{}"))
				if err != nil {
					b.Error(err)
					return
				}
				if err := hold(c, r, begun.Done); err != nil {
					b.Error(err)
				}
			})
		}
		begun.Wait()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.StackInuse)-int64(before.StackInuse))/streams, "stack-at-first-B/stream")
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/streams, "heap-B/stream")
		b.ReportMetric(float64(int64(after.StackInuse)-int64(before.StackInuse))/streams, "stack-B/stream")
		cancel()
		wg.Wait()
	}
}

// hold makes a call and reads its first event, and the next until the context ends, with
// two kilobytes of stack in use, as they are below the gateway.
func hold(c *Client, r *http.Request, begun func()) error {
	var frame [2 << 10]byte
	a, err := c.RoundTrip(r)
	if err != nil {
		begun()
		return err
	}
	defer a.Body.Close()
	a.Body.Read(make([]byte, 64))
	begun()
	n, _ := a.Body.Read(make([]byte, 64))
	frame[n]++
	runtime.KeepAlive(&frame)
	return nil
}
