package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// A caller who reads a byte at a time, and an AWS that writes one at a time, get and give
// the same answer as others.
func TestSlowSides(t *testing.T) {
	noGrowth(t)
	p := newPeer(t, func(v *visit) bool {
		_ = v.conn.SetNoDelay(true)
		for _, c := range []byte(eventHead + chunkedHead + chunk(smallStream) + "0\r\n\r\n") {
			v.say(string([]byte{c}))
		}
		return true
	})
	s := p.before(t, nil)
	conn := s.dial(t)
	_ = conn.SetReadBuffer(1)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	for _, c := range []byte(s.request("a", streamPath, hello)) {
		if _, err := conn.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
	}
	got := readTo(t, conn, "0\r\n\r\n")
	_, body, _ := strings.Cut(got, "\r\n\r\n")
	var plain strings.Builder
	for body != "0\r\n\r\n" {
		var n int
		size, rest, _ := strings.Cut(body, "\r\n")
		if _, err := fmt.Sscanf(size, "%x", &n); err != nil || n+2 > len(rest) {
			t.Fatalf("a broken chunk at %q: %v", body, err)
		}
		plain.WriteString(rest[:n])
		body = rest[n+2:]
	}
	if plain.String() != smallStream {
		t.Errorf("the caller got %q", plain.String())
	}
	conn.Close()
	b := s.booked(t)
	p.balanced(t, b)
	if v := b.byName["a"]; v.Outcome != waybill.Completed || v.Usage != smallUsage {
		t.Errorf("recorded as %s, %v", v.Outcome, v.Usage)
	}
}

// A prompt takes memory until AWS has it, and not for as long as the answer lasts.
func TestPromptIsNotKept(t *testing.T) {
	noGrowth(t)
	over := make(chan bool)
	p := newPeer(t, func(v *visit) bool {
		v.body = nil
		v.say(eventHead, chunkedHead, chunk(smallStream[:len(smallStream)/2]))
		<-over
		v.say(chunk(smallStream[len(smallStream)/2:]), "0\r\n\r\n")
		return true
	})
	s := p.before(t, nil)
	const streams, size = 8, 4 << 20
	long := strings.Replace(hello, "hi", strings.Repeat("x", size), 1)
	var conns []*net.TCPConn
	before := heap()
	for i := range streams {
		conn := s.start(t, fmt.Sprint(i), streamPath, long)
		readTo(t, conn, "hi")
		conns = append(conns, conn)
	}
	if grown := heap() - before; grown > streams*size/3 {
		t.Errorf("%d streams whose prompts have %d MB each hold %d MB", streams, size>>20, grown>>20)
	}
	close(over)
	for _, conn := range conns {
		drainTo(t, conn)
		conn.Close()
	}
	b := s.booked(t)
	p.balanced(t, b)
	for _, v := range b.closed {
		if v.Outcome != waybill.Completed || v.RequestBytes < size {
			t.Errorf("recorded as %s of %d bytes", v.Outcome, v.RequestBytes)
		}
	}
}

// longFrames is how long an answer is that no buffer on the way holds.
const longFrames = 256

var longFrame = string(fakeaws.Frame("event", "contentBlockDelta", []byte(`{"delta":{"text":"`+strings.Repeat("x", 128<<10)+`"}}`)))

// longPeer sends a long answer, and counts the frames that it could send.
func longPeer(t *testing.T, sent *atomic.Int64) *peer {
	return newPeer(t, func(v *visit) bool {
		v.say(eventHead, chunkedHead)
		for range longFrames {
			if _, err := io.WriteString(v.conn, chunk(longFrame)); err != nil {
				return false
			}
			sent.Add(1)
		}
		v.say(chunk(smallStream), "0\r\n\r\n")
		return true
	})
}

// stalled waits until AWS can send no more, because its caller does not read.
func stalled(t *testing.T, sent *atomic.Int64) {
	t.Helper()
	last, since := int64(-1), time.Now()
	until(t, "AWS is held up", func() bool {
		if n := sent.Load(); n != last {
			last, since = n, time.Now()
		}
		return last > 0 && time.Since(since) > 200*time.Millisecond
	})
}

// A caller who does not read holds AWS up; the gateway keeps none of the answer for
// them. When they read on they get all of it.
func TestBackPressure(t *testing.T) {
	noGrowth(t)
	var sent atomic.Int64
	p := longPeer(t, &sent)
	s := p.before(t, nil)
	before := heap()
	conn := s.dial(t)
	_ = conn.SetReadBuffer(64 << 10)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, s.request("a", streamPath, hello)); err != nil {
		t.Fatal(err)
	}
	stalled(t, &sent)
	// What else is in the heap comes and goes by some megabytes; the answer has 32.
	if grown := heap() - before; grown > 12<<20 {
		t.Errorf("the gateway holds %d KB for a caller who does not read", grown>>10)
	}
	if n := sent.Load(); n == longFrames {
		t.Error("AWS was not held up")
	}
	n := drainTo(t, conn)
	if want := longFrames*len(longFrame) + len(smallStream); n < want || n > want+want/100 { // and the chunks' own bytes
		t.Errorf("the caller got %d bytes of %d", n, want)
	}
	conn.Close()
	b := s.booked(t)
	p.balanced(t, b)
	if v := b.byName["a"]; v.Outcome != waybill.Completed || v.Usage != smallUsage || v.ClientLeft {
		t.Errorf("recorded as %s, %v, left: %v", v.Outcome, v.Usage, v.ClientLeft)
	}
}

// drainTo reads an answer in chunks to its end, and gives its size.
func drainTo(t *testing.T, conn net.Conn) (n int) {
	t.Helper()
	tail, b := "", make([]byte, 256<<10)
	for !strings.HasSuffix(tail, "\r\n0\r\n\r\n") {
		m, err := conn.Read(b)
		if err != nil {
			t.Fatalf("%v after %d bytes", err, n)
		}
		n += m
		tail += string(b[max(0, m-7):m])
		tail = tail[max(0, len(tail)-7):]
	}
	return n
}

// A caller who stops reading for good counts as one who has left: their answer is
// drained and metered, and no connection is held for them.
func TestCallerStopsReading(t *testing.T) {
	for _, tt := range []struct {
		mode    gateway.DrainMode
		outcome waybill.Outcome
		usage   waybill.Usage
	}{{gateway.Drain, waybill.Completed, smallUsage}, {gateway.Cut, waybill.Abandoned, waybill.Usage{}}} {
		t.Run(string(tt.mode), func(t *testing.T) {
			noGrowth(t)
			var sent atomic.Int64
			p := longPeer(t, &sent)
			s := p.before(t, func(_ *fakeaws.Config, g *gateway.Config) {
				g.WriteTimeout, g.Drain, g.DrainBytes = 300*time.Millisecond, tt.mode, 1<<30
			})
			conn := s.start(t, "a", streamPath, hello)
			_ = conn.SetReadBuffer(64 << 10)
			until(t, "the call is under way", func() bool { return p.calls() == 1 })
			b := s.booked(t) // which waits for its end
			p.balanced(t, b)
			if v := b.byName["a"]; v.Outcome != tt.outcome || v.Usage != tt.usage || !v.ClientLeft {
				t.Errorf("recorded as %s, %v, left: %v", v.Outcome, v.Usage, v.ClientLeft)
			}
			conn.Close()
		})
	}
}

// A timed writer sees which writes have a time of their own.
type timed struct {
	http.ResponseWriter
	test         *testing.T
	begun, fresh bool // no deadline of a call before this one is left
	armed        bool
}

func (w *timed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *timed) SetWriteDeadline(at time.Time) error {
	if !w.begun {
		w.begun, w.fresh = true, at.IsZero()
	}
	w.armed = !at.IsZero()
	return nil
}

func (w *timed) Write(b []byte) (int, error) {
	if !w.armed {
		w.test.Errorf("%q is written without a time for it", b)
	}
	w.armed = false
	return w.ResponseWriter.Write(b)
}

// The time that a caller has to take an answer is for each piece of it, however long they
// all take, and nothing of it is left for the next call on the connection.
func TestWriteTimeoutIsForOnePiece(t *testing.T) {
	noGrowth(t)
	s := newStand(t, nil)
	s.url = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watched := &timed{ResponseWriter: w, test: t}
		s.gw.ServeHTTP(watched, r)
		if !watched.fresh {
			t.Error("the time of the call before it was left")
		}
	}))
	for path, body := range map[string]string{streamPath: hello, answerPath: hello, "/nowhere": hello} {
		s.post(t, path, body, nil)
	}
	s.balancedWithWorld(t, s.booked(t))
}

// Hundreds of calls that go wrong in every way leave nothing behind: no goroutine, no
// memory, no series of metrics of their own.
func TestFaultsLeaveNothingBehind(t *testing.T) {
	noGrowth(t)
	p := newPeer(t, func(v *visit) bool {
		var n int
		fmt.Sscan(v.Header.Get("Amz-Sdk-Invocation-Id"), &n)
		switch n % 6 {
		case 0:
			v.say(eventHead, chunkedHead, chunk(smallStream), "0\r\n\r\n")
			return true
		case 1:
			v.say(eventHead, chunkedHead, chunk(smallStream[:30]))
		case 2:
			v.reset()
		case 3:
			v.say("HTTP/1.1 429 No\r\nx-amzn-ErrorType: ThrottlingException\r\nContent-Length: 2\r\n\r\n{}")
			return true
		case 4:
			v.say("HTTP/1.1 403 No\r\nx-amzn-ErrorType: InvalidSignatureException\r\nContent-Length: 2\r\n\r\n{}")
			return true
		case 5:
			v.say(eventHead, chunkedHead, chunk(longFrame), chunk(smallStream), "0\r\n\r\n")
			return true
		}
		return false
	})
	s := p.before(t, nil)
	registry := prometheus.NewRegistry()
	s.gw.Metrics = gateway.NewMetrics(registry)
	round, n := 0, 0
	burst := func() {
		round++
		for range 180 {
			n++
			// Every name that a caller can make up is another one each time.
			path := fmt.Sprintf("/model/vendor.m%d-v1:0/converse-stream", n)
			if n%6 == 0 || n%6 == 5 { // AWS knows the model
				path = streamPath
			}
			tags := fmt.Sprintf("X-Waybill-Tags: feature=f%d,key%d=v\r\n", n, n)
			if n%10 == 9 {
				path = fmt.Sprintf("/nowhere/%d", n)
			}
			conn := s.start(t, fmt.Sprint(n), path, hello, tags)
			switch n % 6 {
			case 5:
				_ = conn.SetLinger(0) // in the middle of it
			default:
				_ = conn.CloseWrite()
				_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				_, _ = io.Copy(io.Discard, conn)
			}
			conn.Close()
		}
		s.gw.Wait()
	}
	series := func() (n int) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	burst() // pools, maps and connections are filled
	memory, many := heap(), series()
	for range 3 {
		burst()
	}
	if grown := heap() - memory; grown > 8<<20 {
		t.Errorf("%d calls have left %d KB", n, grown>>10)
	}
	if now := series(); now > many+20 {
		t.Errorf("%d series of metrics after %d calls, %d after %d", now, n, many, n/4)
	}
	s.booked(t)
}

// The mark of an answer's end has its own time to be taken, however long AWS was silent
// between the last piece and the end.
func TestTheEndHasItsTime(t *testing.T) {
	s := newStand(t, nil)
	w := &counted{ResponseRecorder: httptest.NewRecorder()}
	atEnd := -1
	s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
		a := answered(r, 200, "")
		a.Header.Set("Content-Type", "application/vnd.amazon.eventstream")
		a.ContentLength, a.Body = -1, io.NopCloser(io.MultiReader(strings.NewReader(smallStream), readerFunc(func([]byte) (int, error) {
			atEnd = w.set
			return 0, io.EOF
		})))
		return a, nil
	}}
	r := httptest.NewRequest(http.MethodPost, streamPath, strings.NewReader(hello))
	r.Header.Set("Authorization", "Bearer "+s.token)
	s.gw.ServeHTTP(w, r)
	if w.Code != 200 || w.Body.String() != smallStream {
		t.Fatalf("%d %q", w.Code, w.Body)
	}
	if atEnd < 1 || w.set != atEnd+1 {
		t.Errorf("%d deadlines were set before the end, %d in all", atEnd, w.set)
	}
}

// A caller who ends its side of the connection counts as gone, and may listen all the same:
// where pieces were kept from it, the answer does not look whole.
func TestWhoIsTakenForGoneSeesACut(t *testing.T) {
	for _, mode := range []gateway.DrainMode{gateway.Drain, gateway.Cut} {
		s := newStand(t, func(_ *fakeaws.Config, g *gateway.Config) { g.Drain = mode })
		ctx, leave := context.WithCancel(t.Context())
		s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
			a := answered(r, 200, "")
			a.Header.Set("Content-Type", "application/vnd.amazon.eventstream")
			a.ContentLength, a.Body = -1, io.NopCloser(io.MultiReader(strings.NewReader(smallStream[:20]), readerFunc(func([]byte) (int, error) {
				leave()
				return 0, io.EOF
			}), strings.NewReader(smallStream[20:])))
			return a, nil
		}}
		r := httptest.NewRequest(http.MethodPost, streamPath, strings.NewReader(hello)).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+s.token)
		w := httptest.NewRecorder()
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("%s: the answer has an end: %v", mode, v)
				}
			}()
			s.gw.ServeHTTP(w, r)
		}()
		if w.Body.String() != smallStream[:20] {
			t.Errorf("%s: the caller got %q", mode, w.Body)
		}
		if records := s.records(t); len(records) != 1 || !records[0].ClientLeft {
			t.Errorf("%s: recorded as %+v", mode, records)
		}
	}
}

// A counted counts the deadlines that are set for writing.
type counted struct {
	*httptest.ResponseRecorder
	set int
}

func (w *counted) SetWriteDeadline(time.Time) error { w.set++; return nil }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
