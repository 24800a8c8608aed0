//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if p := os.Getenv(proxyEnv); p != "" {
		runProxy(p) // the proxies are this program again
	}
	os.Exit(m.Run())
}

// A tiny run has every figure of every contestant, and its own checks hold.
func TestRun(t *testing.T) {
	o := options{turns: 2, warm: 20 * time.Millisecond, point: 100 * time.Millisecond, perSecond: 50, streamCalls: 1, starts: 1,
		fewStreams: 10, manyStreams: 30, dir: t.TempDir(), only: []string{"direct", "proxy", "sigv4", "waybilld", "bearer"}}
	if testing.Short() {
		o.only = o.only[:3] // waybilld is built first
	}
	var progress bytes.Buffer
	b := &bench{options: o, progress: &progress, result: new(result)}
	if err := b.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	for _, row := range b.result.rows() {
		for _, c := range o.only {
			want := 2
			switch row.figure {
			case "few", "many":
				want = 1
			}
			if alone := []string{"few", "many", "idle", "start"}; c == "direct" && slices.Contains(alone, row.figure) {
				want = 0
			}
			values := b.result.of(row, c)
			if len(values) != want {
				t.Errorf("%s of %s: %d values, want %d", row.figure, c, len(values), want)
			}
			if !row.added && slices.ContainsFunc(values, func(v float64) bool { return v <= 0 }) {
				t.Errorf("%s of %s: %v", row.figure, c, values)
			}
		}
	}
	if len(b.result.Checks) != len(o.only) {
		t.Errorf("checks: %q", b.result.Checks)
	}
	if text := b.result.markdown(); !strings.Contains(text, "| CPU per request, 1 KB, µs |") {
		t.Errorf("markdown: %s", text)
	}
}

// A body that a contestant changed outside the stamp is seen where it arrives.
func TestChangedBodies(t *testing.T) {
	p := &plan{request: requestBody(1 << 10)}
	sent := bytes.Clone(p.request.text)
	putNumber(sent[p.request.at:], 77)
	with := func(s string) []byte { return append([]byte("{"+s), sent[1:]...) }
	changed := bytes.Clone(sent)
	changed[len(changed)/2]++
	for _, tt := range []struct {
		name string
		body []byte
		good bool
	}{
		{"as it was sent", sent, true},
		{"stamped", with(`"requestMetadata":{"team":"ads"},`), true},
		{"with another member", with(`"system":[],`), false},
		{"with another member behind the stamp", with(`"requestMetadata":{"team":"ads"},"system":[],`), false},
		{"changed by a byte", changed, false},
		{"cut", sent[:len(sent)-1], false},
		{"without its number", p.request.text[:p.request.at], false},
	} {
		n, err := p.check(tt.body)
		if (err == nil) != tt.good || tt.good && n != 77 {
			t.Errorf("%s: call %d, %v", tt.name, n, err)
		}
	}
}

// An answer that is changed, or belongs to another call, is seen by the caller.
func TestChangedAnswers(t *testing.T) {
	stream, err := newStreamAnswer(5)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*plan{
		"unary":  {request: requestBody(1 << 10), answer: answerBody()},
		"stream": {request: requestBody(1 << 10), stream: stream},
	} {
		var whole bytes.Buffer
		whole.Write(p.begin(nil, 5))
		if p.stream != nil {
			if err := p.rest(writeConn{w: &whole}, nil); err != nil {
				t.Fatal(err)
			}
		}
		changed := bytes.Clone(whole.Bytes())
		changed[bytes.LastIndex(changed, []byte("240"))]++
		otherID := bytes.Replace(whole.Bytes(), []byte(requestID+"000000000005"), []byte(requestID+"000000000006"), 1)
		other := bytes.Replace(p.begin(nil, 6), []byte(requestID+"000000000006"), []byte(requestID+"000000000005"), 1)
		if p.stream != nil {
			other = append(other, whole.Bytes()[len(p.begin(nil, 5)):]...)
		}
		for _, tt := range []struct {
			name   string
			answer []byte
			want   error
		}{
			{"as it came", whole.Bytes(), nil},
			{"changed", changed, errOther},
			{"under another id", otherID, errOther},
			{"of another call", other, errOther},
			{"cut", whole.Bytes()[:whole.Len()-8], io.ErrUnexpectedEOF},
		} {
			near, far := net.Pipe()
			go func() { far.Write(tt.answer); far.Close() }()
			c := newCaller(new(target), p, near)
			err := c.receive(5, nil)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, %s: %v, want %v", name, tt.name, err, tt.want)
			}
			if good := c.t.good.Load(); (good == 1) != (tt.want == nil) {
				t.Errorf("%s, %s: %d good answers", name, tt.name, good)
			}
			near.Close()
		}
	}
}

type writeConn struct {
	net.Conn
	w io.Writer
}

func (c writeConn) Write(b []byte) (int, error) { return c.w.Write(b) }

// Where calls and arrivals differ the contestant is out.
func TestLostCalls(t *testing.T) {
	c := &contestant{fake: new(fake), target: new(target)}
	c.target.sent.Store(3)
	c.target.good.Store(3)
	c.fake.served.Store(3)
	if err := c.check(); err != nil {
		t.Error(err)
	}
	c.fake.served.Store(4) // it was sent twice
	if c.check() == nil {
		t.Error("a call that arrived twice was not seen")
	}
	c.fake.served.Store(3)
	c.target.good.Store(2)
	if c.check() == nil {
		t.Error("an answer that did not come was not seen")
	}
}

// What a contestant adds is compared within a turn.
func TestAdded(t *testing.T) {
	r := &result{Contestants: []string{"direct", "proxy"}}
	for _, p := range []point{{Contestant: "direct", Figures: map[string]float64{"p50": 20}}, {Contestant: "proxy", Figures: map[string]float64{"p50": 20.5}},
		{Contestant: "proxy", Figures: map[string]float64{"p50": 22.25}}, {Contestant: "direct", Figures: map[string]float64{"p50": 22}}} {
		r.add(p)
	}
	if got := r.of(row{figure: "p50", added: true}, "proxy"); !slices.Equal(got, []float64{0.5, 0.25}) {
		t.Errorf("added: %v", got)
	}
}
