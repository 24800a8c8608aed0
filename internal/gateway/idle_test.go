package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/waybill-dev/waybill"
)

// idleStreams is how many streams TestIdleStreams holds open: 10,000 where descriptors
// are enough, and fewer where the race detector makes each of them dear. A stream over
// HTTP/1 takes four descriptors of this process, which is all of its sides; one over
// HTTP/2 takes two.
func idleStreams(t *testing.T) (http1, http2 int) {
	t.Helper()
	http1, http2 = 500, 9_500
	if raceEnabled || testing.Short() {
		http1, http2 = 200, 300
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	room := int(min(limit.Cur, 1<<20)) - 500
	http1 = min(http1, room/8)
	http2 = min(http2, (room-4*http1)/2)
	if http1 < 10 || http2 < 10 {
		t.Skipf("%d descriptors are too few", limit.Cur)
	}
	return http1, http2
}

// maxPerStream bounds what an idle stream takes of memory, callers and AWS included,
// which are in this process.
const maxPerStream = 100 << 10

// Many streams that wait for their next event, as those of slow models and of agents do,
// take little memory each. All of them end, and are recorded.
func TestIdleStreams(t *testing.T) {
	noGrowth(t)
	http1, http2 := idleStreams(t)
	over := make(chan bool)
	p := newPeer(t, func(v *visit) bool {
		v.say(eventHead, chunkedHead, chunk(smallStream[:len(smallStream)/2]))
		<-over
		v.say(chunk(smallStream[len(smallStream)/2:]), "0\r\n\r\n")
		return false
	})
	s := p.before(t, nil)
	s.post(t, answerPath, "[]", nil) // what is made with the first call
	way := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	way.Protocols.SetUnencryptedHTTP2(true)
	defer way.CloseIdleConnections()

	memory := func() int64 {
		held := heap()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return held + int64(m.StackInuse)
	}
	before := memory()
	conns, bodies := make([]net.Conn, http1), make([]io.ReadCloser, http2)
	for i := range conns {
		conns[i] = s.start(t, fmt.Sprintf("1-%d", i), streamPath, hello)
		readTo(t, conns[i], "hi")
	}
	each(http2, func(i int) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.url+streamPath, strings.NewReader(hello))
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		r.Header.Set("Amz-Sdk-Invocation-Id", fmt.Sprintf("2-%d", i))
		a, err := way.RoundTrip(r)
		if err != nil || a.ProtoMajor != 2 {
			t.Errorf("stream %d: %v", i, err)
			return
		}
		bodies[i] = a.Body
		if _, err := io.ReadFull(a.Body, make([]byte, len(smallStream)/2)); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
	})
	if t.Failed() {
		close(over)
		return
	}
	n := http1 + http2
	per := (memory() - before) / int64(n)
	t.Logf("%d streams over HTTP/1 and %d over HTTP/2 take %d KB each, their callers and AWS included", http1, http2, per>>10)
	if !raceEnabled && per > maxPerStream {
		t.Errorf("a stream takes %d KB", per>>10)
	}
	close(over)
	for _, conn := range conns {
		drainTo(t, conn)
		conn.Close()
	}
	each(http2, func(i int) {
		if _, err := io.Copy(io.Discard, bodies[i]); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		bodies[i].Close()
	})
	b := s.booked(t)
	p.balanced(t, b)
	if left := b.left(); len(left) != n {
		t.Errorf("%d records of %d streams", len(left), n)
	}
	for _, v := range b.left() {
		if v.Outcome != waybill.Completed || v.Usage != smallUsage {
			t.Fatalf("a stream is recorded as %s, %v", v.Outcome, v.Usage)
		}
	}
}

// each does something for each number below n, some at a time.
func each(n int, do func(i int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
