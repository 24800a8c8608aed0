package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/credential"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/policy"
)

const resourcePolicy = `
version: 1
session: {name: '{user}'}
tags:
  keys:
    team: {required: true, values: [search, ads], carriers: [session, request, resource]}
    user: {from: caller.subject, carriers: [session, request]}
`

// onBoth is a stand whose gateway reaches both endpoints of the fake AWS.
func onBoth(t *testing.T, change func(*fakeaws.Config, *gateway.Config)) *stand {
	t.Helper()
	var s *stand
	mantle := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.world.Endpoint(fakeaws.Mantle).ServeHTTP(w, r)
	}))
	t.Cleanup(mantle.Close)
	runtime := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.world.Endpoint(fakeaws.Runtime).ServeHTTP(w, r)
	}))
	t.Cleanup(runtime.Close)
	s = newStand(t, func(f *fakeaws.Config, c *gateway.Config) {
		p, err := policy.Parse("policy.yaml", []byte(resourcePolicy), policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c.Policy = p
		c.Upstream = map[waybill.Endpoint]string{waybill.Runtime: runtime.URL, waybill.Mantle: mantle.URL}
		f.Guardrails = []fakeaws.Guardrail{{Account: "111122223333", Region: "us-east-1", ID: "abc123"}}
		f.Projects = []fakeaws.Project{{Account: "111122223333", Region: "us-east-1", ID: "proj_abc", Name: "search", Tags: map[string]string{"team": "search"}}}
		change(f, c)
	})
	return s
}

// What is not a call of a model goes through as well, is metered as far as it costs, and
// carries what its API can carry.
func TestOtherOperations(t *testing.T) {
	const video = `{"modelId":"amazon.nova-reel-v1:1","modelInput":{"taskType":"MULTI_SHOT_AUTOMATED","videoGenerationConfig":{"durationSeconds":12}},"outputDataConfig":{"s3OutputDataConfig":{"s3Uri":"s3://some-bucket/videos"}}`
	for _, tt := range []struct {
		name, path, body string
		status           int
		want             string // in the answer
		usage            waybill.Usage
		guardrail        bool
		resource         map[string]string
	}{
		{name: "CountTokens", path: "/model/" + claude + "/count-tokens", body: `{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"hi"}]}]}}}`, status: 200, want: "inputTokens", usage: waybill.NewUsage()},
		{name: "ApplyGuardrail", path: "/guardrail/abc123/version/DRAFT/apply", body: `{"source":"INPUT","content":[{"text":{"text":"x"}}]}`, status: 200, want: "usage", guardrail: true},
		{name: "guardrail checks", path: "/guardrail-checks/invoke", body: `{"messages":[{"role":"user","content":[{"text":"x"}]}],"checks":{"contentFilter":{"categories":[{"category":"HATE"}]}}}`, status: 200, want: "usage", guardrail: true},
		{name: "async", path: "/async-invoke", body: video + `}`, status: 200, want: "invocationArn", usage: waybill.NewUsage().With(waybill.VideoSecond, 12), resource: map[string]string{"team": "search"}},
		{name: "async, with tags of its own", path: "/async-invoke", body: video + `,"tags":[{"key":"Team","value":"ads"},{"key":"user","value":"user-1"},{"key":"ticket","value":"7"}]}`, status: 200, want: "invocationArn",
			usage: waybill.NewUsage().With(waybill.VideoSecond, 12), resource: map[string]string{"team": "search", "ticket": "7"}},
		{name: "async, with tags that are none", path: "/async-invoke", body: video + `,"tags":{"team":"ads"}}`, status: 400, want: "WB1211"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := onBoth(t, func(*fakeaws.Config, *gateway.Config) {})
			a, text := s.post(t, tt.path, tt.body, nil)
			if a.StatusCode != tt.status || !strings.Contains(text, tt.want) {
				t.Fatalf("%d %s", a.StatusCode, text)
			}
			r := s.records(t)[0]
			if tt.status != 200 {
				if n := len(s.world.Calls()); n != 0 {
					t.Errorf("%d calls reached AWS", n)
				}
				return
			}
			c := s.world.Calls()[0]
			if tt.guardrail {
				if !r.Usage.Known || r.Usage.Of(waybill.GuardrailUnit) == 0 && r.GuardrailUnits == 0 {
					t.Errorf("recorded as %v, %d units, from %q", r.Usage, r.GuardrailUnits, r.UsageFrom)
				}
			} else if r.Usage != tt.usage {
				t.Errorf("recorded as %v from %q, want %v", r.Usage, r.UsageFrom, tt.usage)
			}
			if len(c.ResourceTags) != len(tt.resource) {
				t.Errorf("the resource has the tags %v, want %v", c.ResourceTags, tt.resource)
			}
			for k, v := range tt.resource {
				if c.ResourceTags[k] != v {
					t.Errorf("the resource has the tags %v, want %v", c.ResourceTags, tt.resource)
				}
			}
			if strings.Contains(r.Carried, "resource") != (tt.resource != nil) || r.Outcome != waybill.Completed {
				t.Errorf("recorded as %s, carried by %s", r.Outcome, r.Carried)
			}
		})
	}
}

// On bedrock-mantle the project is chosen by a tag, and, where that is set, the tags and
// the call's id are in the body's metadata, beside what the caller has put there.
func TestMantle(t *testing.T) {
	const gpt = "openai.gpt-oss-120b"
	for _, tt := range []struct {
		name, path, body string
		on               bool
		metadata         map[string]string
	}{
		{"Chat Completions", "/v1/chat/completions", `{"model":"` + gpt + `","metadata":{"own":"1","TEAM":"ads"},"messages":[{"role":"user","content":"hi"}]}`, true, map[string]string{"own": "1", "team": "search", "user": "user-17"}},
		{"Responses", "/v1/responses", `{"model":"` + gpt + `","input":"hi"}`, true, map[string]string{"team": "search", "user": "user-17"}},
		{"Messages", "/anthropic/v1/messages", `{"model":"anthropic.claude-sonnet-5","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`, true, nil},
		{"not set", "/v1/chat/completions", `{"model":"` + gpt + `","metadata":{"own":"1"},"messages":[{"role":"user","content":"hi"}]}`, false, map[string]string{"own": "1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := onBoth(t, func(_ *fakeaws.Config, c *gateway.Config) {
				c.MantleMetadata = tt.on
				c.Targets = []gateway.Target{{By: "team", Projects: map[string]string{"search": "proj_abc"}}}
			})
			a, text := s.postTo(t, "bedrock-mantle.us-east-1.example.com", tt.path, tt.body, map[string]string{"Anthropic-Version": "2023-06-01"})
			if a.StatusCode != 200 {
				t.Fatalf("%d %s", a.StatusCode, text)
			}
			c, r := s.world.Calls()[0], s.records(t)[0]
			if c.Project != "proj_abc" || r.Project != "proj_abc" || !r.Usage.Known || r.Outcome != waybill.Completed {
				t.Errorf("project %q, recorded as %q, %s, usage %v", c.Project, r.Project, r.Outcome, r.Usage)
			}
			if joined := c.BodyMetadata["waybill_call"] == r.CallID; joined != (tt.on && tt.metadata != nil) {
				t.Errorf("metadata %v of call %s", c.BodyMetadata, r.CallID)
			}
			delete(c.BodyMetadata, "waybill_call")
			if len(c.BodyMetadata) != len(tt.metadata) {
				t.Errorf("metadata %v, want %v", c.BodyMetadata, tt.metadata)
			}
			for k, v := range tt.metadata {
				if c.BodyMetadata[k] != v {
					t.Errorf("metadata %v, want %v", c.BodyMetadata, tt.metadata)
				}
			}
		})
	}
}

// With short-term keys AWS sees the same principal and tags as with signatures, on both
// endpoints, and one key is used for all calls of a session.
func TestShortTermKeys(t *testing.T) {
	s := onBoth(t, func(*fakeaws.Config, *gateway.Config) {})
	signer, ok := s.gw.Signer.(*credential.Signer)
	if !ok {
		t.Fatalf("the signer is %T", s.gw.Signer)
	}
	signer.UseKeys()
	for range 2 {
		if a, text := s.post(t, "/model/"+nova+"/converse", hello, nil); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, text)
		}
		if a, text := s.postTo(t, "bedrock-mantle.us-east-1.example.com", "/v1/chat/completions", `{"model":"openai.gpt-oss-120b","messages":[{"role":"user","content":"hi"}]}`, nil); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, text)
		}
	}
	keys := make(map[string]bool)
	for _, c := range s.world.Calls() {
		keys[c.Header.Get("Authorization")] = true
		if c.Auth != "SHORT_TERM" || !strings.HasSuffix(c.PrincipalARN, ":assumed-role/bedrock-prod/user-17") || c.SessionTags["team"] != "search" || c.Header.Get("X-Amz-Security-Token") != "" {
			t.Errorf("%s: %s as %s with %v", c.Operation, c.Auth, c.PrincipalARN, c.SessionTags)
		}
	}
	if len(keys) != 1 {
		t.Errorf("%d keys for one session", len(keys))
	}
	for _, r := range s.records(t) {
		if !strings.HasSuffix(r.PrincipalARN, ":assumed-role/bedrock-prod/user-17") {
			t.Errorf("recorded as %s", r.PrincipalARN)
		}
	}
}

// What a gateway cannot pass on is refused with the way around it.
func TestBidirectional(t *testing.T) {
	for broker, want := range map[bool]string{true: "POST /waybill/credentials", false: "no role of its operator's has broker: true"} {
		s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) { c.Roles[0].Broker = broker })
		a, text := s.post(t, "/model/amazon.nova-sonic-v1:0/invoke-with-bidirectional-stream", "", nil)
		if a.StatusCode != 501 || !strings.Contains(text, want) {
			t.Errorf("broker %v: %d %s", broker, a.StatusCode, text)
		}
	}
}
