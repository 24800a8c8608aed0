package gateway_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A caller who did not ask a stream for its usage sees the same bytes whether or not the
// gateway asks, and the record knows the usage. What is no stream keeps its length.
func TestInsertUsage(t *testing.T) {
	const ask = `{"model":"openai.gpt-oss-20b-1:0","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	stream := func(insert bool) (string, waybill.Invocation) {
		s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) { c.InsertUsage = insert })
		a, text := s.post(t, chatPath, ask, nil)
		if a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, text)
		}
		if a, text := s.post(t, chatPath, strings.Replace(ask, "gpt-oss-20b", "no-such", 1), nil); a.StatusCode < 400 || a.Header.Get("Content-Length") == "" {
			t.Errorf("an error: %d of length %q: %s", a.StatusCode, a.Header.Get("Content-Length"), text)
		}
		return text, s.records(t)[0]
	}
	plain, before := stream(false)
	asked, after := stream(true)
	id := func(text string) string {
		_, text, _ = strings.Cut(text, `"id":"`)
		text, _, _ = strings.Cut(text, `"`)
		return text
	}
	made := func(text string) string {
		_, text, _ = strings.Cut(text, `"created":`)
		text, _, _ = strings.Cut(text, `,`)
		return text
	}
	asked = strings.ReplaceAll(strings.ReplaceAll(asked, id(asked), id(plain)), made(asked), made(plain))
	if asked != plain {
		t.Errorf("the stream is\n%s\nwant\n%s", asked, plain)
	}
	if before.Usage.Known || !after.Usage.Known || after.Usage.Of(waybill.Input) == 0 {
		t.Errorf("usage %v, and %v where it was asked for: %s", before.Usage, after.Usage, after.UsageFrom)
	}
}

// Each look at a response that was made in the background tells its usage; the metrics
// count it once.
func TestLooksCountOnceInMetrics(t *testing.T) {
	const done = `{"id":"resp_1","background":true,"model":"amazon.test","status":"completed","usage":{"input_tokens":9,"output_tokens":2,"total_tokens":11}}`
	registry := prometheus.NewRegistry()
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) { c.Prices = fixedPrices{} })
	s.gw.Metrics = gateway.NewMetrics(registry)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, done)
	}))
	defer upstream.Close()
	s.gw.Reload(configOf(t, func(c *gateway.Config) {
		c.Prices, c.Upstream = fixedPrices{}, map[waybill.Endpoint]string{waybill.Mantle: upstream.URL}
	}))
	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/responses/resp_1", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != 200 {
			t.Fatalf("status %d", a.StatusCode)
		}
	}
	s.gw.Wait()
	const want = `# HELP waybill_usage_total Usage that was metered, by model and kind, in the kind's unit.
# TYPE waybill_usage_total counter
waybill_usage_total{kind="input",model="amazon.test"} 9
waybill_usage_total{kind="output",model="amazon.test"} 2
# HELP waybill_estimated_cost_usd_total Cost of calls by the rate card, in dollars: an estimate, kept exactly only in the ledger.
# TYPE waybill_estimated_cost_usd_total counter
waybill_estimated_cost_usd_total{model="amazon.test",operation="GetResponse"} 1.1000000000011e-05
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "waybill_usage_total", "waybill_estimated_cost_usd_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(registry, "waybill_unpriced_calls_total"); err != nil || n != 0 {
		t.Errorf("%d series of calls without a price, %v", n, err)
	}
}

// configOf is a configuration like a stand's, changed.
func configOf(t *testing.T, change func(*gateway.Config)) *gateway.Config {
	t.Helper()
	p, err := policy.Parse("policy.yaml", []byte(tagPolicy), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &gateway.Config{Name: "test", DefaultRegion: "us-east-1", Regions: []string{"us-east-1"}, Policy: p, Roles: []gateway.Role{{ARN: prodRole}}}
	change(c)
	return c
}

// Who is held to some environments calls for one of them or not at all: not for none,
// however the call came to have none.
func TestHeldToEnvironments(t *testing.T) {
	const open = `
version: 1
session: {name: '{user}'}
mode: warn
tags:
  keys:
    environment: {values: [production, staging], carriers: [session, request]}
    user:        {from: caller.subject, carriers: [session, request]}
`
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
		p, err := policy.Parse("policy.yaml", []byte(open), policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c.Policy = p
	})
	keys, ok := s.gw.Callers.(*identity.Keys)
	if !ok {
		t.Fatalf("callers are %T", s.gw.Callers)
	}
	held, _, err := keys.Create(identity.Key{Subject: "user-18", Environments: []string{"staging"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		tags   string
		token  string
		status int
	}{
		{"environment=staging", held, 200},
		{"environment=production", held, 403},
		{"", held, 403},
		{"environment=nowhere", held, 403}, // the policy only warns, and takes the tag off
		{"", s.token, 200},
	} {
		a, text := s.post(t, answerPath, hello, map[string]string{"X-Waybill-Tags": tt.tags, "Authorization": "Bearer " + tt.token})
		if a.StatusCode != tt.status || tt.status == 403 && !strings.Contains(text, "WB1304") {
			t.Errorf("%q: %d %s, want %d", tt.tags, a.StatusCode, text, tt.status)
		}
	}
}

// A guardrail costs money, so that its calls have an owner like those of models; what is
// free needs none.
func TestGuardrailsNeedTheirTags(t *testing.T) {
	s := onBoth(t, func(*fakeaws.Config, *gateway.Config) {})
	nobody := map[string]string{"Authorization": "Bearer " + s.keyOf(t, "user-18")}
	const check = `{"source":"INPUT","content":[{"text":{"text":"hi"}}]}`
	if a, text := s.post(t, "/guardrail/abc123/version/DRAFT/apply", check, nil); a.StatusCode != 200 {
		t.Errorf("with its tags: %d %s", a.StatusCode, text)
	}
	if a, text := s.post(t, "/guardrail/abc123/version/DRAFT/apply", check, nobody); a.StatusCode != 403 || !strings.Contains(text, "WB1301") {
		t.Errorf("without its tags: %d %s", a.StatusCode, text)
	}
	if a, text := s.post(t, "/model/"+claude+"/count-tokens", `{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"hi"}]}]}}}`, nobody); a.StatusCode != 200 {
		t.Errorf("what is free: %d %s", a.StatusCode, text)
	}
}

// Names that no model or tier has do not get into records, however long a caller makes
// them, nor does a tier that AWS does not read there.
func TestNamesOfCallers(t *testing.T) {
	s := newStand(t, nil)
	long := strings.Repeat("m", 2<<20)
	for _, body := range []string{`{"model":"` + long + `","messages":[]}`, `{"model":"m","service_tier":"` + long + `","messages":[]}`} {
		if a, text := s.post(t, chatPath, body, nil); a.StatusCode != 400 || !strings.Contains(text, "WB1212") {
			t.Errorf("a name of two megabytes: %d %.200s", a.StatusCode, text)
		}
	}
	tier := map[string]string{"X-Amzn-Bedrock-Service-Tier": "flex"}
	if a, text := s.post(t, answerPath, hello, tier); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, text)
	}
	if n := len(s.world.Calls()); n != 1 {
		t.Errorf("%d calls reached AWS", n)
	}
	for _, v := range s.records(t) {
		if len(v.ModelID) > 2048 || len(v.TierAsked) > 64 || v.Outcome == waybill.Completed && (v.Tier != waybill.TierStandard || v.TierAsked != "") {
			t.Errorf("recorded with a model of %d bytes and tier %.80q, asked for %.80q", len(v.ModelID), v.Tier, v.TierAsked)
		}
	}
}

// HTTP/2 has no request line, and so may have spaces in a path: one that went to AWS
// would end the target there.
func TestNoSpaceInTheTarget(t *testing.T) {
	var mu sync.Mutex
	var targets []string
	p := newPeer(t, func(v *visit) bool {
		mu.Lock()
		targets = append(targets, v.Request.RequestURI)
		mu.Unlock()
		v.say(jsonHead, "Content-Length: 2\r\n\r\n{}")
		return true
	})
	s := p.before(t, nil)
	server := httptest.NewUnstartedServer(s.gw)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	for _, query := range []string{"a HTTP/1.1", "a=b\u00e9", "ok=1"} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+answerPath, strings.NewReader(hello))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		r.Header.Set("Authorization", "Bearer "+s.token)
		a, err := server.Client().Do(r)
		if err != nil {
			t.Fatalf("%q: %v", query, err)
		}
		a.Body.Close()
		if want := map[bool]int{true: 200, false: 400}[query == "ok=1"]; a.StatusCode != want || a.ProtoMajor != 2 {
			t.Errorf("%q over HTTP/%d: %d, want %d", query, a.ProtoMajor, a.StatusCode, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(targets) != 1 || !strings.HasSuffix(targets[0], "?ok=1") {
		t.Errorf("to AWS went %q", targets)
	}
}

// AWS repeats a request whose signature it refuses, as it would have signed it. The log
// has the reason, and neither the session's token nor a tag nor a prompt.
func TestRefusedSignatureInTheLog(t *testing.T) {
	s := newStand(t, nil)
	var log bytes.Buffer
	s.gw.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
		a := answered(r, 403, `{"message":"The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for this request should have been\n'POST\n`+
			`x-amz-security-token:`+r.Header.Get("X-Amz-Security-Token")+`\nteam search hello\n'"}`)
		a.Header.Set("X-Amzn-Errortype", "InvalidSignatureException")
		return a, nil
	}}
	if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 503 || !strings.Contains(text, "WB1403") || strings.Contains(text, "Canonical") {
		t.Errorf("%d %s", a.StatusCode, text)
	}
	s.gw.Wait()
	if text := log.String(); !strings.Contains(text, "does not match the signature") || strings.Contains(text, "security-token") || strings.Contains(text, "team") {
		t.Errorf("the log has %s", text)
	}
}

// What else the listener serves is held to the limits of calls: one who sends a body
// that never ends is given up.
func TestWithin(t *testing.T) {
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
		c.BodyTimeout, c.Limits = 50*time.Millisecond, gateway.Limits{Calls: 1, Headers: 20}
	})
	read := make(chan error)
	url := serve(t, s.gw.Within(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
	})))
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err == nil {
		t.Error("a body that never ends was read")
	}
	s.gw.Wait()
	many := "GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n" + strings.Repeat("X-A: b\r\n", 30) + "\r\n"
	other, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := io.WriteString(other, many); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(other); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") || !strings.Contains(string(got), "WB1107") {
		t.Errorf("thirty headers: %q, %v", got, err)
	}
}

// What is no text, in an error's name or in what a caller calls a call, reaches the caller,
// the record and the metrics without harm.
func TestNamesThatAreNoText(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newStand(t, nil)
	s.gw.Metrics = gateway.NewMetrics(registry)
	s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
		a := answered(r, 400, `{"message":"x"}`)
		a.Header.Set("X-Amzn-Errortype", "Bad\xff")
		return a, nil
	}}
	a, text := s.post(t, answerPath, hello, map[string]string{"Traceparent": "00-\xff", "Amz-Sdk-Invocation-Id": "\xfe"})
	if a.StatusCode != 400 || text != `{"message":"x"}` || a.Header.Get("X-Amzn-Errortype") != "Bad\xff" {
		t.Errorf("%d %s, %q", a.StatusCode, text, a.Header.Get("X-Amzn-Errortype"))
	}
	records := s.records(t)
	if len(records) != 1 || records[0].Outcome != waybill.Failed || !strings.HasPrefix(records[0].ErrorCode, "Bad") {
		t.Errorf("recorded as %+v", records)
	}
	if n, err := testutil.GatherAndCount(registry, "gen_ai_server_request_duration_seconds"); err != nil || n != 1 {
		t.Errorf("%d series of durations, %v", n, err)
	}
}

// A look at what was made in a project is made in that project.
func TestLooksNameTheirProject(t *testing.T) {
	s := onBoth(t, func(_ *fakeaws.Config, c *gateway.Config) {
		c.Targets = []gateway.Target{{When: condition(t, "{endpoint: bedrock-mantle}"), Project: "proj_abc"}}
	})
	a, text := s.post(t, "/v1/responses", `{"model":"openai.gpt-oss-120b","background":true,"input":"hi"}`, nil)
	if a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, text)
	}
	_, id, _ := strings.Cut(text, `"id":"resp_`)
	id, _, _ = strings.Cut(id, `"`)
	for _, do := range []struct{ method, path string }{{"GET", ""}, {"POST", "/cancel"}, {"DELETE", ""}} {
		r, err := http.NewRequestWithContext(t.Context(), do.method, s.url+"/v1/responses/resp_"+id+do.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != 200 {
			t.Errorf("%s %s: %d", do.method, do.path, a.StatusCode)
		}
	}
	calls := s.world.Calls()
	if len(calls) != 4 {
		t.Errorf("%d calls reached AWS", len(calls))
	}
	for _, c := range calls {
		if c.Project != "proj_abc" {
			t.Errorf("%s was made in project %q", c.Operation, c.Project)
		}
	}
}

// New limits count the calls that are under way already.
func TestNewLimitsCountCallsUnderWay(t *testing.T) {
	s := newStand(t, nil)
	began, end := make(chan struct{}), make(chan struct{})
	s.gw.Client = &holding{catcher: new(catcher), began: began, end: end}
	var wg sync.WaitGroup
	wg.Go(func() {
		if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 200 {
			t.Errorf("the call under way: %d %s", a.StatusCode, text)
		}
	})
	<-began
	for _, limits := range []gateway.Limits{{Calls: 1}, {Calls: 1, BodyBytes: 50_000_000}} {
		s.gw.Reload(configOf(t, func(c *gateway.Config) { c.Limits = limits }))
		if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 503 || !strings.Contains(text, "WB1510") {
			t.Errorf("a second call where one may be: %d %s", a.StatusCode, text)
		}
	}
	close(end)
	wg.Wait()
	s.gw.Wait()
	if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 200 {
		t.Errorf("once it is over: %d %s", a.StatusCode, text)
	}
}

// A call that finds nobody to speak TLS with has not left: it has used nothing, which is
// known.
func TestNoTLSThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
		c.Upstream = map[waybill.Endpoint]string{waybill.Runtime: "https://" + l.Addr().String()}
	})
	if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 503 || !strings.Contains(text, "WB1502") {
		t.Errorf("%d %s", a.StatusCode, text)
	}
	records := s.records(t)
	if len(records) != 1 || !records[0].Usage.Known || records[0].Outcome != waybill.Failed {
		t.Errorf("recorded as %+v", records)
	}
}
