package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// Some answers do not tell what is charged: the request does, or an earlier call.
func TestUsageThatTheAnswerDoesNotTell(t *testing.T) {
	const response = `{"id":"resp_1","background":true,"model":"openai.gpt-oss-120b",`
	const done = response + `"status":"completed","usage":{"input_tokens":9,"output_tokens":2,"total_tokens":11}}`
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("x-amzn-RequestId", "request-"+r.Method+r.URL.Path)
		switch {
		case strings.HasSuffix(r.URL.Path, "/invoke"):
			io.WriteString(w, `{"results":[{"index":0,"relevance_score":0.9}]}`)
		case r.Method == "GET":
			io.WriteString(w, done)
		default:
			io.WriteString(w, response+`"status":"queued","usage":null}`)
		}
	}))
	defer upstream.Close()
	s := newStand(t, func(_ *fakeaws.Config, g *gateway.Config) {
		g.Upstream = map[waybill.Endpoint]string{waybill.Runtime: upstream.URL, waybill.Mantle: upstream.URL}
	})
	tags := map[string]string{"X-Waybill-Tags": "environment=prod"}
	if a, text := s.post(t, "/model/cohere.rerank-v3-5:0/invoke", `{"query":"q","documents":["`+strings.Repeat(`x","`, 100)+`"]}`, tags); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, text)
	}
	if a, text := s.post(t, "/v1/responses", `{"model":"openai.gpt-oss-120b","background":true,"input":"hi"}`, tags); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, text)
	}
	for range 2 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/responses/resp_1", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(a.Body)
		a.Body.Close()
		if err != nil || string(text) != done {
			t.Fatalf("%d %s, %v", a.StatusCode, text, err)
		}
	}
	records := s.records(t)
	if len(records) != 4 {
		t.Fatalf("%d records", len(records))
	}
	if v := records[0]; v.Usage.Of(waybill.SearchUnit) != 2 || v.UsageFrom != "request" {
		t.Errorf("rerank of 101 documents: %d queries, from %q", v.Usage.Of(waybill.SearchUnit), v.UsageFrom)
	}
	if v := records[1]; v.Usage.Known || v.RequestID != "resp_1" {
		t.Errorf("a response in the background: known %v, id %s", v.Usage.Known, v.RequestID)
	}
	for _, v := range records[2:] { // the ledger takes calls of one id for one
		if v.Usage.Of(waybill.Input) != 9 || v.RequestID != "resp_1" || v.Model != "openai.gpt-oss-120b" || v.Account != records[1].Account || v.Region != records[1].Region {
			t.Errorf("a look at it: %d tokens, id %s, model %s in %s %s", v.Usage.Of(waybill.Input), v.RequestID, v.Model, v.Account, v.Region)
		}
	}
}
