package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/credential"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/upstream"
)

const (
	streamPath  = "/model/" + nova + "/converse-stream"
	answerPath  = "/model/" + nova + "/converse"
	chatPath    = "/openai/v1/chat/completions"
	chat        = `{"model":"openai.gpt-oss-20b-1:0","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`
	eventHead   = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nx-amzn-RequestId: r\r\n"
	sseHead     = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-amzn-RequestId: r\r\n"
	jsonHead    = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-amzn-RequestId: r\r\n"
	chunkedHead = "Transfer-Encoding: chunked\r\n\r\n"
)

// The answers of the tests below, small so that every byte of them can be a case. The
// counts have several digits: a cut one would be another number.
var (
	smallStream = string(fakeaws.Frame("event", "contentBlockDelta", []byte(`{"delta":{"text":"hi"}}`))) +
		string(fakeaws.Frame("event", "metadata", []byte(`{"usage":{"inputTokens":1234,"outputTokens":5678}}`)))
	smallSSE = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n" +
		"data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1234,\"completion_tokens\":5678}}\n\ndata: [DONE]\n\n"
	smallJSON  = `{"output":{"message":{"content":[{"text":"hi"}]}},"usage":{"inputTokens":1234,"outputTokens":5678},"stopReason":"end_turn"}`
	smallUsage = waybill.NewUsage().With(waybill.Input, 1234).With(waybill.Output, 5678)
)

// chunk is one chunk of a chunked body.
func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// An answer that breaks off at any of its bytes reaches the caller as far as it came and
// no further, and the caller sees that it was cut, if AWS's side showed it. The record
// has the usage if the answer told it, and no other number.
func TestAnswerCutAtEachByte(t *testing.T) {
	noGrowth(t)
	type way struct {
		name, path, body, head, answer string
		usageAt                        int // so many bytes tell the usage
		send                           func(v *visit, cut string)
		clean                          bool // the caller sees a good end
	}
	var ways []way
	for _, shape := range []way{
		{name: "event stream", path: streamPath, body: hello, head: eventHead, answer: smallStream, usageAt: len(smallStream)},
		{name: "server-sent events", path: chatPath, body: chat, head: sseHead, answer: smallSSE, usageAt: strings.Index(smallSSE, "\n\ndata: [DONE]")},
	} {
		for _, end := range []way{
			{name: "FIN in mid-chunk", send: func(v *visit, cut string) {
				v.say(shape.head, chunkedHead, fmt.Sprintf("%x\r\n", len(shape.answer)+1), cut)
			}},
			{name: "FIN between chunks", send: func(v *visit, cut string) {
				v.say(shape.head, chunkedHead, chunk(cut)[:len(chunk(cut))*min(len(cut), 1)])
			}},
			{name: "RST", send: func(v *visit, cut string) {
				v.say(shape.head, chunkedHead)
				if cut != "" {
					v.say(chunk(cut))
				}
				v.reset()
			}},
			{name: "a clean end", clean: true, send: func(v *visit, cut string) {
				v.say(shape.head, chunkedHead)
				if cut != "" {
					v.say(chunk(cut))
				}
				v.say("0\r\n\r\n")
			}},
		} {
			w := shape
			w.name, w.send, w.clean = shape.name+", "+end.name, end.send, end.clean
			ways = append(ways, w)
		}
	}
	ways = append(ways, way{name: "JSON of known length, FIN", path: answerPath, body: hello, answer: smallJSON, usageAt: len(smallJSON),
		send: func(v *visit, cut string) {
			v.say(jsonHead, fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smallJSON)+1), cut)
		}})
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			p := newPeer(t, func(v *visit) bool {
				var at int
				fmt.Sscan(v.Header.Get("Amz-Sdk-Invocation-Id"), &at)
				w.send(v, w.answer[:at])
				return w.clean
			})
			s := p.before(t, nil)
			transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 8}
			defer transport.CloseIdleConnections()
			var wg sync.WaitGroup
			next := make(chan int)
			for range 8 {
				wg.Go(func() {
					for at := range next {
						got, err := s.try(t, transport, fmt.Sprint(at), w.path, w.body)
						if !strings.HasPrefix(w.answer, got) || len(got) > at || (w.clean || !strings.Contains(w.name, "RST")) && len(got) != at {
							t.Errorf("cut at %d: the caller got %d bytes, %q", at, len(got), got)
						}
						if (err == nil) != w.clean {
							t.Errorf("cut at %d: the caller saw %v", at, err)
						}
					}
				})
			}
			for at := range len(w.answer) + 1 {
				next <- at
			}
			close(next)
			wg.Wait()
			b := s.booked(t)
			p.balanced(t, b)
			for at := range len(w.answer) + 1 {
				v, ok := b.byName[fmt.Sprint(at)]
				whole := w.clean && at == len(w.answer)
				switch {
				case !ok:
					t.Errorf("cut at %d: no record", at)
				case v.Usage.Known && v.Usage != smallUsage:
					t.Errorf("cut at %d: the usage is %v, and was never told", at, v.Usage)
				case at >= w.usageAt && !v.Usage.Known && v.ResponseBytes == int64(at):
					t.Errorf("cut at %d: the usage was told and is not known: %s", at, v.UsageFrom)
				case v.ResponseBytes > int64(at):
					t.Errorf("cut at %d: %d bytes are recorded", at, v.ResponseBytes)
				case whole && v.Outcome != waybill.Completed, at < w.usageAt && v.Outcome != waybill.Failed, !w.clean && v.Outcome != waybill.Failed:
					t.Errorf("cut at %d: recorded as %s", at, v.Outcome)
				}
			}
		})
	}
}

// try makes a call and returns what arrived of its answer.
func (s *stand) try(t *testing.T, way http.RoundTripper, name, path, body string) (string, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return "", nil
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Amz-Sdk-Invocation-Id", name)
	a, err := way.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		t.Errorf("call %s: status %d", name, a.StatusCode)
	}
	var got bytes.Buffer
	_, err = io.Copy(&got, a.Body)
	return got.String(), err
}

// start makes a call by plain TCP, so that it can be broken off.
func (s *stand) start(t *testing.T, name, path, body string, more ...string) *net.TCPConn {
	t.Helper()
	conn := s.dial(t)
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs should say where
	if _, err := io.WriteString(conn, s.request(name, path, body, more...)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// readTo reads until a text has come.
func readTo(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	var got []byte
	for b := make([]byte, 1); !strings.Contains(string(got), text); {
		if _, err := conn.Read(b); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, b...)
	}
	return string(got)
}

// A connection that ends where a call was written and no answer came is not tried again:
// AWS may have run the call, and would bill both. What the caller says of retries goes to
// AWS, and changes nothing.
func TestACallIsSentOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*visit)
	}{
		{"FIN", func(*visit) {}},
		{"RST", (*visit).reset},
		{"half a status line", func(v *visit) { v.say("HTTP/1.1 2") }},
		{"half a head", func(v *visit) { v.say(eventHead) }},
		{"no HTTP at all", func(v *visit) { v.say("\x16\x03\x01 nonsense\r\n\r\n") }},
		{"a status that ends nothing", func(v *visit) { v.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n") }},
		{"a status that is none", func(v *visit) { v.say("HTTP/1.1 000 \r\nContent-Length: 0\r\n\r\n") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noGrowth(t)
			var mu sync.Mutex
			var key string
			p := newPeer(t, func(v *visit) bool {
				mu.Lock()
				defer mu.Unlock()
				if v.nth == 1 {
					key = v.Header.Get("Idempotency-Key")
					v.say(jsonHead, fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smallJSON)), smallJSON)
					return true
				}
				tt.end(v)
				return false
			})
			s := p.before(t, nil)
			for i := range 4 { // every other call finds a connection that has served one
				a, text := s.post(t, answerPath, hello, map[string]string{"Amz-Sdk-Invocation-Id": fmt.Sprint(i), "Idempotency-Key": "k", "X-Idempotency-Key": "k"})
				if want := 200 + i%2*303; a.StatusCode != want || want == 503 && !strings.Contains(text, "WB1502") {
					t.Errorf("call %d: %d %s, want %d", i, a.StatusCode, text, want)
				}
			}
			if key != "k" {
				t.Errorf("AWS was not told the caller's key: %q", key)
			}
			b := s.booked(t)
			p.balanced(t, b)
			for i := range 4 {
				if v := b.byName[fmt.Sprint(i)]; v.Usage.Known != (i%2 == 0) || (v.Outcome == waybill.Completed) != (i%2 == 0) {
					t.Errorf("call %d is recorded as %s, %v, %s", i, v.Outcome, v.Usage, v.UsageFrom)
				}
			}
		})
	}
}

// A call that reached nobody has used nothing.
func TestAWSCannotBeReached(t *testing.T) {
	noGrowth(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := &peer{url: "http://" + l.Addr().String()}
	l.Close()
	s := nobody.before(t, nil)
	if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 503 || !strings.Contains(text, "WB1502") {
		t.Errorf("%d %s", a.StatusCode, text)
	}
	if b := s.booked(t); len(b.closed) != 1 || b.closed[0].Outcome != waybill.Failed || b.closed[0].Usage != waybill.NewUsage() {
		t.Errorf("recorded as %+v", b.closed)
	}
}

// AWS may say nothing for ever, before its answer or within it, and the caller may leave
// meanwhile or not: the call ends by the times that are configured, and is recorded.
func TestSilence(t *testing.T) {
	said := chunk(smallStream[:20])
	for _, tt := range []struct {
		name    string
		says    []string // before it falls silent
		drain   gateway.DrainMode
		leave   func(*net.TCPConn)
		outcome waybill.Outcome
		code    string
	}{
		{"nothing at all", nil, gateway.Drain, nil, waybill.Failed, "WB1502"},
		{"half a head", []string{eventHead}, gateway.Drain, nil, waybill.Failed, "WB1502"},
		{"nothing, and the caller leaves", nil, gateway.Drain, func(c *net.TCPConn) { c.Close() }, waybill.Abandoned, ""},
		{"nothing, the caller leaves, and nothing is drained", nil, gateway.Cut, func(c *net.TCPConn) { c.Close() }, waybill.Abandoned, ""},
		{"a head, and the caller leaves", []string{eventHead, chunkedHead}, gateway.Drain, func(c *net.TCPConn) { c.Close() }, waybill.Abandoned, ""},
		{"a head, and the caller is cut off", []string{eventHead, chunkedHead}, gateway.Drain, func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, waybill.Abandoned, ""},
		{"half an event, and the caller leaves", []string{eventHead, chunkedHead, said}, gateway.Drain, func(c *net.TCPConn) { c.Close() }, waybill.Abandoned, ""},
		{"half an event, nothing is drained", []string{eventHead, chunkedHead, said}, gateway.Cut, func(c *net.TCPConn) { c.Close() }, waybill.Abandoned, ""},
		{"half an answer of known length", []string{jsonHead, "Content-Length: 100\r\n\r\n{"}, gateway.Drain, func(c *net.TCPConn) { c.Close() }, waybill.Abandoned, ""},
		{"half an error", []string{"HTTP/1.1 429 Too Many\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"}, gateway.Drain, func(c *net.TCPConn) { c.Close() }, waybill.Failed, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noGrowth(t)
			arrived, over := make(chan bool, 1), make(chan bool)
			p := newPeer(t, func(v *visit) bool {
				v.say(tt.says...)
				arrived <- true
				<-over
				return false
			})
			s := p.before(t, func(_ *fakeaws.Config, g *gateway.Config) {
				g.Drain, g.DrainTime = tt.drain, 50*time.Millisecond
				if tt.drain == gateway.Cut {
					g.DrainTime = time.Hour // it does not matter
				}
			})
			defer close(over)
			way := &http.Transport{DisableCompression: true}
			if len(tt.says) < 2 && tt.leave == nil {
				way.ResponseHeaderTimeout = time.Second
			}
			defer way.CloseIdleConnections()
			s.gw.Client = way
			conn := s.start(t, "a", streamPath, hello)
			<-arrived
			if tt.leave == nil {
				if got := readTo(t, conn, "WB1502"); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
					t.Errorf("the caller got %q", got)
				}
			} else {
				if len(tt.says) > 1 {
					readTo(t, conn, "\r\n\r\n") // the head comes when AWS sends it, not with the first event
				}
				tt.leave(conn)
			}
			b := s.booked(t)
			p.balanced(t, b)
			v := b.byName["a"]
			known := tt.name == "half an error"
			if v.Outcome != tt.outcome || v.Usage.Known != known || v.ClientLeft != (tt.leave != nil) || tt.code != "" && v.ErrorCode != tt.code {
				t.Errorf("recorded as %s %s, left: %v, usage %v: %s", v.Outcome, v.ErrorCode, v.ClientLeft, v.Usage, v.UsageFrom)
			}
		})
	}
}

// A caller who leaves at any point of the answer has used the model: the call is drained
// and metered.
func TestCallerLeavesAtAByte(t *testing.T) {
	noGrowth(t)
	left := make(map[string]chan bool)
	half := len(smallStream) / 2
	for at := 0; at <= 600; at += 50 {
		left[fmt.Sprint(at)] = make(chan bool)
	}
	p := newPeer(t, func(v *visit) bool {
		v.say(eventHead, chunkedHead, chunk(smallStream[:half]))
		<-left[v.Header.Get("Amz-Sdk-Invocation-Id")]
		v.say(chunk(smallStream[half:]), "0\r\n\r\n")
		return true
	})
	s := p.before(t, nil)
	whole := len(readTo(t, s.start(t, "0", streamPath, hello), "hi"))
	close(left["0"])
	for at := 50; at <= 600; at += 50 {
		name := fmt.Sprint(at)
		conn := s.start(t, name, streamPath, hello)
		if _, err := io.ReadFull(conn, make([]byte, min(at, whole))); err != nil {
			t.Fatal(err)
		}
		if at%100 == 0 {
			_ = conn.SetLinger(0) // RST
		}
		conn.Close()
		close(left[name])
	}
	b := s.booked(t)
	p.balanced(t, b)
	for _, v := range b.closed {
		if v.Outcome != waybill.Completed || v.Usage != smallUsage {
			t.Errorf("call %s is %s, %v: %s", v.SDKInvocationID, v.Outcome, v.Usage, v.UsageFrom)
		}
	}
	if len(b.closed) != len(left) {
		t.Errorf("%d records of %d calls", len(b.closed), len(left))
	}
}

// A caller who leaves before the request has arrived whole has called nobody.
func TestCallerLeavesInTheRequest(t *testing.T) {
	noGrowth(t)
	s := newStand(t, nil)
	for at := 0; at < len(s.request("000", answerPath, hello)); at += 7 {
		request := s.request(fmt.Sprintf("%03d", at), answerPath, hello)
		conn := s.dial(t)
		if _, err := io.WriteString(conn, request[:at]); err != nil {
			t.Fatal(err)
		}
		if at%2 == 0 {
			_ = conn.SetLinger(0)
		}
		conn.Close()
	}
	if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, text)
	}
	b := s.booked(t)
	s.balancedWithWorld(t, b)
	if n := len(b.left()); n != 1 {
		t.Errorf("%d calls left", n)
	}
}

// A caller who leaves while a role session is being waited for has called nobody: what
// has not left yet is not billed yet.
func TestCallerLeavesBeforeTheCallDoes(t *testing.T) {
	noGrowth(t)
	s := newStand(t, nil)
	back := make(chan bool)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-back
		s.world.Handler().ServeHTTP(w, r)
	}))
	defer slow.Close()
	s.aws = slow.URL
	s.sign(t, credential.Config{CallTimeout: time.Minute})
	conn := s.start(t, "a", answerPath, hello)
	until(t, "the call is under way", func() bool { return s.sessions.Stats().Waiters == 1 })
	conn.Close()
	until(t, "nobody waits", func() bool { return s.sessions.Stats().Waiters == 0 })
	close(back)
	until(t, "STS is back", func() bool { return s.sessions.Stats().Assumed == 1 })
	b := s.booked(t)
	s.balancedWithWorld(t, b)
	if v := b.byName["a"]; v.Outcome != waybill.Refused || v.Usage != waybill.NewUsage() || len(s.world.Calls()) != 0 {
		t.Errorf("recorded as %s %s, %d calls", v.Outcome, v.ErrorCode, len(s.world.Calls()))
	}
}

// sign puts role sessions of another configuration in the place of the stand's own.
func (s *stand) sign(t *testing.T, config credential.Config) {
	t.Helper()
	base := credentials.NewStaticCredentialsProvider("AKIDEXAMPLEGATEWAY", "secret", "")
	sessions := credential.NewSessions(credential.NewSTS(aws.Config{Region: "us-east-1", Credentials: base}, s.aws), config)
	t.Cleanup(sessions.Close)
	s.gw.Signer, s.sessions = credential.NewSigner(sessions, base), sessions
}

// A call whose connection to AWS is never made costs nothing, be it that its caller leaves
// meanwhile, or that its time is over: then it may be made again.
func TestNothingHasLeft(t *testing.T) {
	noGrowth(t)
	for _, tt := range []struct {
		name      string
		firstByte time.Duration
		leaves    bool
		want      waybill.Outcome
	}{
		{"the caller leaves", time.Hour, true, waybill.Abandoned},
		{"the caller waits", 50 * time.Millisecond, false, waybill.Failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dialing := make(chan bool)
			s := newStand(t, func(_ *fakeaws.Config, g *gateway.Config) {
				g.Drain = gateway.Cut
				g.Timeouts.FirstByte = map[waybill.Endpoint]time.Duration{waybill.Runtime: tt.firstByte}
			})
			s.gw.Client = &upstream.Client{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				dialing <- true
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			conn := s.start(t, "a", answerPath, hello, "Connection: close\r\n")
			<-dialing
			if tt.leaves {
				conn.Close()
			} else if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 503 ") || !strings.Contains(string(got), "WB1502") {
				t.Errorf("the caller got %q, %v", got, err)
			}
			v := s.booked(t).byName["a"]
			if v.Outcome != tt.want || v.Usage != waybill.NewUsage() || v.UsageFrom != "AWS could not be reached" {
				t.Errorf("%s, usage %v from %q", v.Outcome, v.Usage, v.UsageFrom)
			}
		})
	}
}
