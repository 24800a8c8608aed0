package gateway_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// A stall is an answer whose body says something, and then nothing until it is closed or
// the call is over.
type stall struct {
	ctx   context.Context
	first io.Reader
}

func (s stall) Read(p []byte) (int, error) {
	if n, _ := s.first.Read(p); n > 0 {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (s stall) Close() error { return nil }

// AWS may be slow to begin, fall silent, or take too long in all: each ends the call, and
// the record says which it was. The usage is not known then.
func TestDeadlines(t *testing.T) {
	const soon = 20 * time.Millisecond
	stalled := func(r *http.Request) (*http.Response, error) {
		a := answered(r, 200, "")
		a.Body, a.ContentLength = stall{r.Context(), strings.NewReader(`{"usage"`)}, -1
		return a, nil
	}
	never := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	firstByte := gateway.Timeouts{FirstByte: map[waybill.Endpoint]time.Duration{waybill.Mantle: soon}}
	for _, tt := range []struct {
		name     string
		timeouts gateway.Timeouts
		path     string
		answer   func(*http.Request) (*http.Response, error)
		code     string
		status   int // 0: the answer breaks off; -1: it may, if it had begun
	}{
		{"no first byte of mantle", firstByte, "/v1/chat/completions", never, "WB1505", 503},
		{"no first byte of InvokeModel", gateway.Timeouts{FirstByte: map[waybill.Endpoint]time.Duration{waybill.Runtime: soon}}, answerPath, never, "WB1505", 408},
		{"no first byte of Messages", gateway.Timeouts{FirstByte: map[waybill.Endpoint]time.Duration{waybill.Runtime: soon}}, messagesPath, never, "WB1505", 503},
		{"no answer of InvokeModel within the call's time", gateway.Timeouts{Call: soon}, answerPath, never, "WB1507", 408},
		{"silence", gateway.Timeouts{Idle: soon}, "/openai/v1/chat/completions", stalled, "WB1506", 0},
		{"no answer within the call's time", gateway.Timeouts{Call: soon}, "/openai/v1/chat/completions", never, "WB1507", 503},
		{"no end within the call's time", gateway.Timeouts{Call: soon}, "/openai/v1/chat/completions", stalled, "WB1507", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
				c.Timeouts = tt.timeouts
				c.Upstream = map[waybill.Endpoint]string{waybill.Runtime: "http://aws", waybill.Mantle: "http://aws"}
			})
			s.gw.Client = &catcher{answer: tt.answer}
			r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+tt.path, strings.NewReader(`{"model":"m","messages":[]}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+s.token)
			a, err := http.DefaultClient.Do(r)
			if err == nil {
				defer a.Body.Close()
				if _, err = io.ReadAll(a.Body); err == nil && tt.status > 0 && a.StatusCode != tt.status {
					t.Errorf("status %d, want %d", a.StatusCode, tt.status)
				}
				if err == nil && (a.Header.Get("X-Waybill-Error") != tt.code || a.Header.Get("Retry-After") != "" || a.Header.Get("X-Should-Retry") != "false") {
					t.Errorf("headers %v", a.Header)
				}
			}
			if tt.status >= 0 && (err != nil) != (tt.status == 0) {
				t.Errorf("the answer ended with %v", err)
			}
			if v := s.records(t)[0]; v.ErrorCode != tt.code || v.Outcome != waybill.Failed || v.Usage.Known {
				t.Errorf("recorded as %s %s, usage known %v", v.Outcome, v.ErrorCode, v.Usage.Known)
			}
		})
	}
}

// What one caller, or all together, may have under way at once is bounded, and the
// answer says so in the words of the API that was called: never in those of AWS's own
// throttling.
func TestLimitsOnCalls(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits gateway.Limits
		same   bool // the second call is by the same caller
		path   string
		status int
		code   string
		want   string
	}{
		{"of a caller, AWS", gateway.Limits{CallsPerCaller: 1}, true, "/model/" + nova + "/converse", 429, "WB1511", `"message":"this caller has 1 calls under way`},
		{"of a caller, OpenAI", gateway.Limits{CallsPerCaller: 1}, true, "/openai/v1/chat/completions", 429, "WB1511", `"type":"rate_limit_error"`},
		{"of a caller, Anthropic", gateway.Limits{CallsPerCaller: 1}, true, "/anthropic/v1/messages", 429, "WB1511", `"type":"rate_limit_error"`},
		{"of another caller", gateway.Limits{CallsPerCaller: 1}, false, "/model/" + nova + "/converse", 200, "", ""},
		{"of all", gateway.Limits{Calls: 1}, false, "/model/" + nova + "/converse", 503, "WB1510", "as many calls under way as it takes"},
		{"of all, OpenAI", gateway.Limits{Calls: 1}, false, "/openai/v1/responses", 503, "WB1510", `"type":"server_error"`},
		{"of all, Anthropic", gateway.Limits{Calls: 1}, false, "/bedrock/anthropic/v1/messages", 503, "WB1510", `"type":"overloaded_error"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) { c.Limits = tt.limits })
			began, end := make(chan struct{}), make(chan struct{})
			s.gw.Client = &holding{catcher: new(catcher), began: began, end: end}
			var wg sync.WaitGroup
			other := s.keyOf(t, "user-2")
			wg.Go(func() { s.post(t, "/model/"+nova+"/converse", hello, nil) })
			<-began
			header := map[string]string{"X-Waybill-Tags": "team=search"}
			if !tt.same {
				header["Authorization"] = "Bearer " + other
			}
			a, text := s.post(t, tt.path, `{"model":"m","messages":[{"role":"user","content":[{"text":"hi"}]}]}`, header)
			if a.StatusCode != tt.status || a.Header.Get("X-Waybill-Error") != tt.code || !strings.Contains(text, tt.want) {
				t.Errorf("%d %v %s", a.StatusCode, a.Header, text)
			}
			if tt.status != 200 && a.Header.Get("Retry-After") != "1" {
				t.Errorf("Retry-After: %q", a.Header.Get("Retry-After"))
			}
			if kind := a.Header.Get("X-Amzn-Errortype"); kind == "ThrottlingException" {
				t.Error("the refusal looks like AWS's own throttling")
			}
			close(end)
			wg.Wait()
			if a, text := s.post(t, "/model/"+nova+"/converse", hello, nil); a.StatusCode != 200 {
				t.Errorf("once there is room: %d %s", a.StatusCode, text)
			}
			for _, v := range s.records(t) {
				if v.ErrorCode == "WB1510" {
					t.Error("a refusal before anybody was asked who calls is in the journal")
				}
			}
		})
	}
}

// A holding client says that its first call has begun, and ends it when it is told to.
type holding struct {
	*catcher
	once       atomic.Bool
	began, end chan struct{}
}

func (h *holding) RoundTrip(r *http.Request) (*http.Response, error) {
	if h.once.CompareAndSwap(false, true) {
		close(h.began)
		<-h.end
	}
	return h.catcher.RoundTrip(r)
}

// Bodies have a budget of memory: one that finds no room in time is refused, one of
// unknown length takes its room as it comes, and all room is given back.
func TestBudgetOfBodies(t *testing.T) {
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
		c.Limits = gateway.Limits{BodyBytes: 160 << 10, BodyWait: 10 * time.Millisecond}
	})
	began, end := make(chan struct{}), make(chan struct{})
	s.gw.Client = &holding{catcher: new(catcher), began: began, end: end}
	converse := "/model/" + nova + "/converse"
	large := `{"messages":[{"role":"user","content":[{"text":"` + strings.Repeat("x", 100<<10) + `"}]}]}`
	var wg sync.WaitGroup
	wg.Go(func() { s.post(t, converse, large, nil) })
	<-began
	if a, text := s.post(t, converse, large, nil); a.StatusCode != 503 || !strings.Contains(text, "WB1512") {
		t.Errorf("a body without room: %d %s", a.StatusCode, text)
	}
	if a, text := s.post(t, converse, hello, nil); a.StatusCode != 200 {
		t.Errorf("a body with room: %d %s", a.StatusCode, text)
	}
	chunked := func(body string) int {
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+converse, io.MultiReader(strings.NewReader(body))) // of a length that net/http does not know
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		return a.StatusCode
	}
	if status := chunked(large); status != 503 {
		t.Errorf("a body of unknown length without room: %d", status)
	}
	close(end)
	wg.Wait()
	for range 5 {
		if status := chunked(large); status != 200 {
			t.Errorf("a body of unknown length with room: %d", status)
		}
		if a, text := s.post(t, converse, large, nil); a.StatusCode != 200 {
			t.Errorf("once there is room: %d %s", a.StatusCode, text)
		}
	}
}

// A body that waits for room gets it as soon as another has left.
func TestBodyWaitsForRoom(t *testing.T) {
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
		c.Limits = gateway.Limits{BodyBytes: 64 << 10, BodyWait: time.Minute}
	})
	began, end := make(chan struct{}), make(chan struct{})
	s.gw.Client = &holding{catcher: new(catcher), began: began, end: end}
	large := `{"messages":[{"role":"user","content":[{"text":"` + strings.Repeat("x", 50<<10) + `"}]}]}`
	var wg sync.WaitGroup
	wg.Go(func() { s.post(t, "/model/"+nova+"/converse", large, nil) })
	<-began
	wg.Go(func() {
		if a, text := s.post(t, "/model/"+nova+"/converse", large, nil); a.StatusCode != 200 {
			t.Errorf("the body that waited: %d %s", a.StatusCode, text)
		}
	})
	close(end)
	wg.Wait()
}

// The head of a request is bounded in the number of its headers and the length of its URL.
func TestLimitsOnHeads(t *testing.T) {
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) { c.Limits = gateway.Limits{Headers: 20, URL: 300} })
	s.gw.Client = new(catcher)
	many := make(map[string]string)
	for _, c := range "abcdefghijklmnopqrstuvw" {
		many["X-"+string(c)] = "1"
	}
	if a, text := s.post(t, "/model/"+nova+"/converse", hello, many); a.StatusCode != 400 || !strings.Contains(text, "WB1107") {
		t.Errorf("many headers: %d %s", a.StatusCode, text)
	}
	if a, text := s.post(t, "/model/"+nova+"/converse?x="+strings.Repeat("y", 300), hello, nil); a.StatusCode != 400 || !strings.Contains(text, "WB1106") {
		t.Errorf("a long URL: %d %s", a.StatusCode, text)
	}
	if a, text := s.post(t, "/model/"+nova+"/converse", hello, nil); a.StatusCode != 200 {
		t.Errorf("an ordinary head: %d %s", a.StatusCode, text)
	}
}

// Prices of a fixed amount for each token, for models that begin with "amazon.".
type fixedPrices struct{}

func (fixedPrices) Knows(v *waybill.Invocation) bool { return strings.HasPrefix(v.Model, "amazon.") }

func (p fixedPrices) Cost(v *waybill.Invocation) (waybill.Money, bool) {
	if !p.Knows(v) {
		return waybill.Money{}, false
	}
	price, err := waybill.ParseMoney("0.000001000000000001")
	if err != nil {
		return waybill.Money{}, false
	}
	var sum waybill.Money
	for range v.Usage.Of(waybill.Input) + v.Usage.Of(waybill.Output) {
		sum = sum.Add(price)
	}
	return sum, true
}

// The estimate is on the answer as a header where the answer can be held until it is
// whole, else in a trailer; without a price it is on neither, and the call is counted.
func TestEstimate(t *testing.T) {
	const unary = `{"usage":{"inputTokens":3,"outputTokens":4}}`
	for _, tt := range []struct {
		name    string
		off     bool
		model   string
		answer  func(*http.Request) *http.Response
		header  string
		trailer string
	}{
		{"held", false, nova, func(r *http.Request) *http.Response { return answered(r, 200, unary) }, "0.000007000000000007", ""},
		{"of unknown length", false, nova, func(r *http.Request) *http.Response {
			a := answered(r, 200, unary)
			a.ContentLength = -1
			return a
		}, "0.000007000000000007", ""},
		{"too long to be held", false, nova, func(r *http.Request) *http.Response {
			a := answered(r, 200, strings.Repeat(" ", 2000)+unary)
			a.ContentLength = -1
			return a
		}, "", "0.000007000000000007"},
		{"too long to be held, of known length", false, nova, func(r *http.Request) *http.Response { return answered(r, 200, strings.Repeat(" ", 2000)+unary) }, "", ""},
		{"a stream", false, nova, func(r *http.Request) *http.Response {
			a := answered(r, 200, "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n")
			a.Header.Set("Content-Type", "text/event-stream")
			a.ContentLength = -1
			return a
		}, "", "0.000007000000000007"},
		{"without a price", false, claude, func(r *http.Request) *http.Response { return answered(r, 200, unary) }, "", ""},
		{"an error", false, nova, func(r *http.Request) *http.Response {
			return answered(r, 500, `{"message":"no"}`)
		}, "", ""},
		{"not wanted", true, nova, func(r *http.Request) *http.Response { return answered(r, 200, unary) }, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
				c.Prices, c.Estimate = fixedPrices{}, gateway.Estimate{Header: !tt.off, HoldBytes: 1000}
			})
			s.gw.Metrics = gateway.NewMetrics(registry)
			var want string
			s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
				a := tt.answer(r)
				b, err := io.ReadAll(a.Body)
				want, a.Body = string(b), io.NopCloser(strings.NewReader(string(b)))
				return a, err
			}}
			path, body := "/model/"+tt.model+"/converse", hello
			if tt.name == "a stream" {
				path, body = "/openai/v1/chat/completions", `{"model":"`+tt.model+`","messages":[],"stream":true}`
			}
			a, text := s.post(t, path, body, nil)
			if text != want {
				t.Errorf("the answer is %q", text)
			}
			if got := a.Header.Get(gateway.EstimateHeader); got != tt.header {
				t.Errorf("header %q, want %q", got, tt.header)
			}
			if got := a.Trailer.Get(gateway.EstimateHeader); got != tt.trailer {
				t.Errorf("trailer %q, want %q", got, tt.trailer)
			}
			s.gw.Wait()
			n, err := testutil.GatherAndCount(registry, "waybill_estimated_cost_usd_total")
			if err != nil {
				t.Fatal(err)
			}
			m, err := testutil.GatherAndCount(registry, "waybill_unpriced_calls_total")
			if err != nil {
				t.Fatal(err)
			}
			if priced := tt.model == nova && tt.name != "an error"; (n == 1) != priced || (m == 1) != (tt.model == claude) {
				t.Errorf("%d models with a cost, %d without a price", n, m)
			}
		})
	}
}

// What is held back for the estimate takes its room among the bodies, and gives it back.
// Where there is none the answer passes all the same, as one that is too long does.
func TestEstimateKeepsToTheRoomOfBodies(t *testing.T) {
	const unary = `{"usage":{"inputTokens":3,"outputTokens":4}}`
	const room = 20_000
	for _, tt := range []struct {
		name            string
		size            int
		told            bool
		header, trailer bool
	}{
		{"room for it", 1000, true, true, false},
		{"room for it, of unknown length", 1000, false, true, false},
		{"no room", room, true, false, false},
		{"no room, of unknown length", room, false, false, true},
		{"room for its end alone", room - 1, true, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
				c.Prices, c.Estimate = fixedPrices{}, gateway.Estimate{Header: true}
				c.Limits = gateway.Limits{BodyBytes: room, BodyWait: time.Millisecond}
			})
			want := strings.Repeat(" ", tt.size-len(unary)) + unary
			s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
				a := answered(r, 200, want)
				if !tt.told {
					a.ContentLength = -1
				}
				return a, nil
			}}
			for range 3 {
				body := hello + strings.Repeat(" ", room-len(hello)) // it finds room if all was given back
				a, text := s.post(t, answerPath, body, nil)
				if a.StatusCode != 200 || text != want {
					t.Fatalf("%d, %d bytes, want %d", a.StatusCode, len(text), len(want))
				}
				if header, trailer := a.Header.Get(gateway.EstimateHeader) != "", a.Trailer.Get(gateway.EstimateHeader) != ""; header != tt.header || trailer != tt.trailer {
					t.Errorf("header %v, trailer %v", header, trailer)
				}
				s.gw.Wait()
			}
		})
	}
}

// Callers make up models; the metrics have few of them.
func TestMetricsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newStand(t, nil)
	s.gw.Metrics, s.gw.Client = gateway.NewMetrics(registry), new(catcher)
	for i := range 400 {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/model/made-up-"+strings.Repeat("x", i%200)+strings.Repeat("y", i/200)+"/converse", strings.NewReader(hello))
		r.Header.Set("Authorization", "Bearer "+s.token)
		r.Header.Set("X-Waybill-Tags", "made-up-"+strings.Repeat("z", i%120)+"=1")
		s.gw.ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 403 {
			t.Fatalf("status %d %s", w.Code, w.Body)
		}
	}
	n, err := testutil.GatherAndCount(registry, "gen_ai_server_request_duration_seconds")
	if err != nil {
		t.Fatal(err)
	}
	if n > 320 || n < 250 {
		t.Errorf("%d series for 400 models that do not exist", n)
	}
}

// The names and attributes are OpenTelemetry's.
func TestMetricNames(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newStand(t, nil)
	s.gw.Metrics = gateway.NewMetrics(registry)
	s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
		return answered(r, 200, `{"usage":{"inputTokens":3,"outputTokens":4,"cacheReadInputTokens":5}}`), nil
	}}
	s.post(t, "/model/us."+claude+"/converse", hello, nil)
	s.gw.Wait()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			got[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetHistogram().GetSampleSum()
		}
	}
	common := "gen_ai_operation_name=chat,gen_ai_provider_name=aws.bedrock,gen_ai_request_model=us." + claude + ",gen_ai_response_model=" + claude
	for name, sum := range map[string]float64{
		"gen_ai_client_token_usage{" + common + ",gen_ai_token_type=input}": 8, "gen_ai_client_token_usage{" + common + ",gen_ai_token_type=output}": 4,
		"gen_ai_server_request_duration_seconds{error_type=," + common + "}": -1, "gen_ai_server_time_to_first_token_seconds{" + common + "}": -1} {
		if n, ok := got[name]; !ok || sum >= 0 && n != sum {
			t.Errorf("%s is %v %v, want %v; there are %v", name, n, ok, sum, slices.Sorted(maps.Keys(got)))
		}
	}
}

// A series is there from when something counts in it, and not before: one of unknown usage
// would be an alert.
func TestMetricsOfWhatWasCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newStand(t, nil)
	s.gw.Metrics = gateway.NewMetrics(registry)
	s.gw.Client = &catcher{answer: func(r *http.Request) (*http.Response, error) {
		return answered(r, 200, `{"usage":{"inputTokens":3,"outputTokens":0}}`), nil
	}}
	for range 3 {
		s.post(t, "/model/us."+claude+"/converse", hello, nil)
	}
	s.gw.Wait()
	for name, want := range map[string]int{"waybill_calls_total": 1, "waybill_usage_total": 1, "gen_ai_client_token_usage": 1, "gen_ai_server_request_duration_seconds": 1,
		"waybill_usage_unknown_total": 0, "waybill_estimated_cost_usd_total": 0, "waybill_unpriced_calls_total": 0, "waybill_policy_violations_total": 0} {
		if n, err := testutil.GatherAndCount(registry, name); err != nil || n != want {
			t.Errorf("%s has %d series, want %d (%v)", name, n, want, err)
		}
	}
}
