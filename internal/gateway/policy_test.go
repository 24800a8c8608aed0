package gateway_test

import (
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/policy"
)

const widePolicy = `
session: {name: '{user}'}
tags:
  keys:
    team:    {required: true, values: [search, ads], carriers: [session, request]}
    user:    {from: caller.subject, transform: hmac, carriers: [session, request]}
    stage:   {values: [prod, dev], carriers: [session, request]}
    feature: {maxDistinct: 2}
    note:    {sensitive: redact}
    call:    {from: call.id, highCardinality: true}
  rules:
    - {name: prod names its feature, when: {stage: prod}, require: [feature]}
applications:
  - {name: helper, when: {caller: 'user-1*'}, tags: {stage: dev}}
rollout:
  - {when: {region: eu-west-1}, mode: observe}
`

// What AWS sees on every carrier, what the record says and what the session is called
// come from one resolution, and one id joins them.
func TestOneResolutionOnEveryCarrier(t *testing.T) {
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
		p, err := policy.Parse("policy.yaml", []byte(widePolicy), policy.Options{HashKey: []byte("0123456789abcdef")})
		if err != nil {
			t.Fatal(err)
		}
		c.Policy = p
	})
	s.gw.Guard = policy.NewGuard(s.gw.Policy())
	converse := "/model/" + nova + "/converse"
	answer, text := s.post(t, converse, hello, map[string]string{"X-Waybill-Tags": "feature=summary,stage=prod,note=someone@example.com"})
	if answer.StatusCode != 200 {
		t.Fatalf("%d %s", answer.StatusCode, text)
	}
	for _, feature := range []string{"rewrite", "classify"} {
		answer, text = s.post(t, converse, hello, map[string]string{"X-Waybill-Tags": "feature=" + feature})
	}
	if answer.StatusCode != 403 || !strings.Contains(text, `"feature\" has 2 values`) {
		t.Errorf("the third value of a key bounded by two: %d %s", answer.StatusCode, text)
	}
	calls := s.world.Calls()
	if len(calls) != 2 {
		t.Fatalf("%d calls reached AWS", len(calls))
	}
	c := calls[0]
	user := c.Metadata["user"]
	if epoch, ok := policy.IsPseudonym(user); !ok || epoch != "1" || c.SessionTags["user"] != user || !strings.HasSuffix(c.PrincipalARN, "/"+user) {
		t.Errorf("user is %q, on the session %q, in the principal %s", user, c.SessionTags["user"], c.PrincipalARN)
	}
	if c.Metadata["stage"] != "dev" || c.SessionTags["stage"] != "dev" || c.Metadata["note"] != "redacted" || c.SessionTags["feature"] != "" {
		t.Errorf("metadata %v, session tags %v", c.Metadata, c.SessionTags)
	}
	records := s.records(t)
	r := records[0]
	if c.Metadata["call"] != r.CallID || r.Tags.Map()["user"] != user || r.SessionName != user || r.RequestID != c.RequestID {
		t.Errorf("the record %s %s %v does not join to %v", r.CallID, r.RequestID, r.Tags.Map(), c.Metadata)
	}
	if got := strings.Join(r.Reasons, ","); got != "stage:overridden" {
		t.Errorf("reasons %s", got)
	}
	for _, r := range records {
		if strings.Contains(r.Tags.Canonical(), "someone") {
			t.Errorf("a record holds a value that was redacted: %s", r.Tags.Canonical())
		}
	}
}

// A rollout lets a Region's calls pass that would be refused elsewhere, and keeps what
// they sent on the request only.
func TestRolloutByRegion(t *testing.T) {
	s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
		p, err := policy.Parse("policy.yaml", []byte(widePolicy), policy.Options{HashKey: []byte("0123456789abcdef")})
		if err != nil {
			t.Fatal(err)
		}
		c.Policy = p
	})
	send := func(host string) (int, string) {
		a, text := s.postTo(t, host, "/model/"+claude+"/invoke", `{"anthropic_version":"bedrock-2023-05-31","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`, map[string]string{"X-Waybill-Tags": "stage=moon"})
		return a.StatusCode, text
	}
	if status, text := send("bedrock-runtime.us-east-1.example.com"); status != 200 {
		t.Fatalf("an application's tag goes before the request's: %d %s", status, text)
	}
	s.token = s.keyOf(t, "robot")
	if status, text := send("bedrock-runtime.us-east-1.example.com"); status != 403 || !strings.Contains(text, "allowed are: prod, dev") {
		t.Errorf("where the policy is enforced: %d %s", status, text)
	}
	if status, text := send("bedrock-runtime.eu-west-1.example.com"); status != 200 {
		t.Errorf("where it is observed: %d %s", status, text)
	}
	calls := s.world.Calls()
	last := calls[len(calls)-1]
	if last.Metadata["stage"] != "moon" || last.SessionTags["stage"] != "" {
		t.Errorf("an observed value is %v, on the session %v", last.Metadata, last.SessionTags)
	}
	records := s.records(t)
	if r := records[len(records)-1]; r.PolicyOutcome != waybill.PolicyAllowed || strings.Join(r.Reasons, ",") != "stage:not_allowed,team:missing" {
		t.Errorf("the record says %s %v", r.PolicyOutcome, r.Reasons)
	}
}

// A call that costs nothing needs no owner. It passes, so it is not recorded as refused;
// what it tried to override is.
func TestWhatCostsNothingIsNotRefused(t *testing.T) {
	s := newStand(t, nil)
	a, _ := s.post(t, "/model/"+claude+"/count-tokens", `{"input":{}}`, map[string]string{"X-Waybill-Tags": "environment=moon,team=ads"})
	if a.StatusCode == 403 {
		t.Fatalf("status %d", a.StatusCode)
	}
	records := s.records(t)
	if len(records) != 1 || records[0].PolicyOutcome != waybill.PolicyAllowed || strings.Join(records[0].Reasons, ",") != "team:forged" {
		t.Errorf("recorded as %s %v", records[0].PolicyOutcome, records[0].Reasons)
	}
}
