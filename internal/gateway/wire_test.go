package gateway_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/journal"
)

// A peer stands in for an AWS that is wrong on the wire. It speaks plain TCP, and counts
// what arrives: every test call carries a name of its own in Amz-Sdk-Invocation-Id.
type peer struct {
	url string

	mu    sync.Mutex
	total int
	named map[string]int
	conns map[*net.TCPConn]bool
}

// A visit is one request that has arrived whole at a peer.
type visit struct {
	*http.Request
	conn *net.TCPConn
	body []byte
	nth  int // of its connection, from 1
}

// say writes to the gateway. What does not arrive is what the test is about.
func (v *visit) say(parts ...string) { _, _ = v.conn.Write([]byte(strings.Join(parts, ""))) }

// reset ends the connection with RST, not FIN.
func (v *visit) reset() { _ = v.conn.SetLinger(0); _ = v.conn.Close() }

// newPeer serves until the test ends. serve reports whether the connection goes on.
func newPeer(t *testing.T, serve func(*visit) bool) *peer {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{url: "http://" + l.Addr().String(), named: make(map[string]int), conns: make(map[*net.TCPConn]bool)}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns[conn] = true
			p.mu.Unlock()
			work.Go(func() { p.talk(conn, serve) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for conn := range p.conns {
			conn.Close()
		}
		p.mu.Unlock()
		work.Wait()
	})
	return p
}

func (p *peer) talk(conn *net.TCPConn, serve func(*visit) bool) {
	defer func() {
		conn.Close()
		p.mu.Lock()
		delete(p.conns, conn)
		p.mu.Unlock()
	}()
	in := bufio.NewReader(conn)
	for nth := 1; ; nth++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.total++
		p.named[r.Header.Get("Amz-Sdk-Invocation-Id")]++
		p.mu.Unlock()
		if !serve(&visit{r, conn, body, nth}) {
			return
		}
	}
}

func (p *peer) calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

func (p *peer) count(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.named[name]
}

// before makes a stand whose bedrock-runtime is the peer; STS is that of the fake AWS.
func (p *peer) before(t *testing.T, change func(*fakeaws.Config, *gateway.Config)) *stand {
	t.Helper()
	return newStand(t, func(f *fakeaws.Config, g *gateway.Config) {
		g.Upstream = map[waybill.Endpoint]string{waybill.Runtime: p.url}
		if change != nil {
			change(f, g)
		}
	})
}

// dial opens a plain connection to the gateway.
func (s *stand) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// request is a call as a caller writes it; more are lines of its head, each with its end.
func (s *stand) request(name, path, body string, more ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nAmz-Sdk-Invocation-Id: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		path, s.token, name, strings.Join(more, ""), len(body), body)
}

// raw sends bytes on a connection of their own and gives the statuses of the answers that
// come. It says that nothing more follows when there are as many as are awaited, or at
// once: a caller who has said so before the answer counts as one who has left.
func (s *stand) raw(t *testing.T, send string, await int, end bool) (statuses []int) {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a test that hangs should say where
	go func() {
		_, _ = io.WriteString(conn, send) // what is refused may not be read to its end
		if end {
			_ = conn.CloseWrite()
		}
	}()
	for in := bufio.NewReader(conn); ; {
		if len(statuses) == await && !end {
			_ = conn.CloseWrite()
		}
		if _, err := in.Peek(1); err != nil {
			return statuses
		}
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Errorf("the answer is no HTTP: %v", err)
			return statuses
		}
		_, _ = io.Copy(io.Discard, a.Body)
		statuses = append(statuses, a.StatusCode)
	}
}

// A book is what a journal says of a test's calls.
type book struct {
	closed []waybill.Invocation
	byName map[string]waybill.Invocation
}

// booked stops the journal and reads it. Each call is closed once; what was opened is
// closed, and what was refused was never opened.
func (s *stand) booked(t *testing.T) *book {
	t.Helper()
	s.gw.Wait()
	if err := s.book.Stop(); err != nil {
		t.Fatal(err)
	}
	segments, err := journal.Segments(filepath.Join(s.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	b := &book{byName: make(map[string]waybill.Invocation)}
	opened, closed := make(map[string]bool), make(map[string]bool)
	for _, segment := range segments {
		src, err := os.ReadFile(segment.Path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := journal.NewReader(bytes.NewReader(src))
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			v := e.Invocation
			if e.Kind == waybill.Opened {
				opened[v.CallID] = true // a call under way is carried into the next segment
				continue
			}
			if closed[v.CallID] {
				t.Errorf("call %s is closed twice", v.SDKInvocationID)
			}
			closed[v.CallID] = true
			if opened[v.CallID] == (v.Outcome == waybill.Refused) && v.ErrorCode != "WB1501" {
				t.Errorf("call %s is %s, opened: %v", v.SDKInvocationID, v.Outcome, opened[v.CallID])
			}
			if v.Outcome == waybill.Interrupted {
				t.Errorf("call %s was left open", v.SDKInvocationID)
			}
			if _, twice := b.byName[v.SDKInvocationID]; twice && v.SDKInvocationID != "" {
				t.Errorf("call %s has two records", v.SDKInvocationID)
			}
			b.byName[v.SDKInvocationID] = v
			b.closed = append(b.closed, v)
		}
	}
	for id := range opened {
		if !closed[id] {
			t.Errorf("call %s was opened and never closed", id)
		}
	}
	return b
}

// left are the calls that went to AWS.
func (b *book) left() (out []waybill.Invocation) {
	for _, v := range b.closed {
		if v.Outcome != waybill.Refused {
			out = append(out, v)
		}
	}
	return out
}

// balanced holds the journal against the peer: each call that arrived there is a record
// that is no refusal, and the other way round; no call arrived twice.
func (p *peer) balanced(t *testing.T, b *book) {
	t.Helper()
	if got, want := len(b.left()), p.calls(); got != want {
		t.Errorf("%d calls reached AWS, and the journal has %d", want, got)
	}
	for _, v := range b.left() {
		if n := p.count(v.SDKInvocationID); n != 1 {
			t.Errorf("call %s reached AWS %d times", v.SDKInvocationID, n)
		}
	}
}

// balancedWithWorld is balanced for the fake AWS, which names each call by a request id.
func (s *stand) balancedWithWorld(t *testing.T, b *book) {
	t.Helper()
	in := make(map[string]int)
	for _, v := range b.left() {
		in[v.RequestID]++
	}
	calls := s.world.Calls()
	if len(calls) != len(b.left()) {
		t.Errorf("%d calls reached AWS, and the journal has %d", len(calls), len(b.left()))
	}
	for _, c := range calls {
		if in[c.RequestID] != 1 {
			t.Errorf("call %s (%d %s) is in the journal %d times", c.RequestID, c.Status, c.ErrorCode, in[c.RequestID])
		}
	}
}

// noGrowth checks, when everything the test has set up is gone, that no goroutine stays.
// It must be called first.
func noGrowth(t *testing.T) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if !eventually(func() bool { return runtime.NumGoroutine() <= before }) {
			stacks := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

// eventually waits for a condition, as long as any machine could take.
func eventually(holds func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if holds() {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return holds()
}

// until is eventually, and says what did not come to be.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !eventually(holds) {
		t.Fatalf("it never came to be: %s", what)
	}
}

// heap is what the program holds after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one freed from pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
