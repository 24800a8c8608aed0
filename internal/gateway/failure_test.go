package gateway_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

const fallback = "arn:aws:iam::111122223333:role/waybill/bedrock-fallback"

// A brokenJournal cannot be written when a call is opened, or once it has left.
type brokenJournal struct {
	gateway.Recorder
	open, sync bool
}

func (b *brokenJournal) Open(v waybill.Invocation) (func(context.Context) error, error) {
	if b.open {
		return nil, errors.New("the disk is full")
	}
	synced, err := b.Recorder.Open(v)
	if b.sync {
		synced = func(context.Context) error { return errors.New("the disk is gone") }
	}
	return synced, err
}

// Every cell of the table in docs/operate/failures.md: what fails, what the rules say of
// the call, and what the caller, AWS and the journal see of it.
func TestFailureTable(t *testing.T) {
	breakPolicy := func(*testing.T, *stand) {}
	breakSTS := func(t *testing.T, s *stand) {
		if err := s.gw.KeepFallbacks(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.world.BreakSTS(true)
	}
	breakJournal := func(_ *testing.T, s *stand) { s.gw.Journal = &brokenJournal{Recorder: s.book, open: true} }
	breakSync := func(_ *testing.T, s *stand) { s.gw.Journal = &brokenJournal{Recorder: s.book, sync: true} }
	for _, tt := range []struct {
		name    string
		fails   func(*testing.T, *stand)
		tags    string // of the call
		model   string
		when    string // of the rule; the call is of environment staging
		rule    gateway.FailureRule
		config  func(*gateway.Config)
		status  int
		code    string
		reasons string
		outcome waybill.PolicyOutcome
		role    string // that AWS sees
	}{
		{name: "policy, no rule", fails: breakPolicy, tags: "environment=moon", status: 403, code: "WB1301", reasons: "environment:not_allowed", outcome: waybill.PolicyRefused},
		{name: "policy, refuse", fails: breakPolicy, tags: "environment=moon", rule: gateway.FailureRule{Policy: gateway.Refuse}, status: 403, code: "WB1301", reasons: "environment:not_allowed", outcome: waybill.PolicyRefused},
		{name: "policy, pass", fails: breakPolicy, tags: "environment=moon", rule: gateway.FailureRule{Policy: gateway.Pass}, status: 200, reasons: "environment:not_allowed,gateway:policy_passed", outcome: waybill.PolicyWarned, role: "bedrock-prod/user-17"},
		{name: "policy, pass for this caller", fails: breakPolicy, tags: "environment=moon", when: "{caller: user-17}", rule: gateway.FailureRule{Policy: gateway.Pass}, status: 200, reasons: "environment:not_allowed,gateway:policy_passed", outcome: waybill.PolicyWarned, role: "bedrock-prod/user-17"},
		{name: "policy, pass for another caller", fails: breakPolicy, tags: "environment=moon", when: "{caller: user-18}", rule: gateway.FailureRule{Policy: gateway.Pass}, status: 403, code: "WB1301", reasons: "environment:not_allowed", outcome: waybill.PolicyRefused},
		{name: "policy, pass for an environment that the call only claims", fails: breakPolicy, tags: "environment=moon", when: "{environment: staging}", rule: gateway.FailureRule{Policy: gateway.Pass}, status: 403, code: "WB1301", reasons: "environment:not_allowed", outcome: waybill.PolicyRefused},
		{name: "STS, no rule", fails: breakSTS, status: 503, code: "WB1401", outcome: waybill.PolicyAllowed},
		{name: "STS, refuse", fails: breakSTS, rule: gateway.FailureRule{STS: gateway.Refuse}, status: 503, code: "WB1401", outcome: waybill.PolicyAllowed},
		{name: "STS, pass", fails: breakSTS, rule: gateway.FailureRule{STS: gateway.Pass, Fallback: fallback}, status: 200, reasons: "gateway:fallback_role", outcome: waybill.PolicyAllowed, role: "bedrock-fallback/waybill-fallback"},
		{name: "STS, pass in another environment", fails: breakSTS, when: "{environment: production}", rule: gateway.FailureRule{STS: gateway.Pass, Fallback: fallback}, status: 503, code: "WB1401", outcome: waybill.PolicyAllowed},
		{name: "STS, pass, and there is no fallback session either", fails: func(_ *testing.T, s *stand) { s.world.BreakSTS(true) }, rule: gateway.FailureRule{STS: gateway.Pass, Fallback: fallback}, status: 503, code: "WB1401", reasons: "gateway:fallback_role", outcome: waybill.PolicyAllowed},
		{name: "journal, no rule", fails: breakJournal, status: 503, code: "WB1501", outcome: waybill.PolicyAllowed},
		{name: "journal, no rule, passed for all", fails: breakJournal, config: func(c *gateway.Config) { c.PassWithoutJournal = true }, status: 200, outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
		{name: "journal, refuse, passed for all others", fails: breakJournal, rule: gateway.FailureRule{Journal: gateway.Refuse}, config: func(c *gateway.Config) { c.PassWithoutJournal = true }, status: 503, code: "WB1501", outcome: waybill.PolicyAllowed},
		{name: "journal, pass", fails: breakJournal, when: "{environment: staging}", rule: gateway.FailureRule{Journal: gateway.Pass}, status: 200, outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
		{name: "journal, pass in another environment", fails: breakJournal, when: "{environment: production}", rule: gateway.FailureRule{Journal: gateway.Pass}, status: 503, code: "WB1501", outcome: waybill.PolicyAllowed},
		{name: "journal in mid-call, no rule", fails: breakSync, status: 408, code: "WB1501", outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
		{name: "journal in mid-call, pass", fails: breakSync, rule: gateway.FailureRule{Journal: gateway.Pass}, status: 200, outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
		{name: "price, no rule", fails: breakPolicy, model: claude, status: 200, outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
		{name: "price, pass", fails: breakPolicy, model: claude, rule: gateway.FailureRule{Price: gateway.Pass}, status: 200, outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
		{name: "price, refuse", fails: breakPolicy, model: claude, when: "{environment: staging}", rule: gateway.FailureRule{Price: gateway.Refuse}, status: 403, code: "WB1308", outcome: waybill.PolicyAllowed},
		{name: "price, refuse, and there is one", fails: breakPolicy, model: nova, rule: gateway.FailureRule{Price: gateway.Refuse}, status: 200, outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
		{name: "price, refuse in another environment", fails: breakPolicy, model: claude, when: "{environment: production}", rule: gateway.FailureRule{Price: gateway.Refuse}, status: 200, outcome: waybill.PolicyAllowed, role: "bedrock-prod/user-17"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, func(f *fakeaws.Config, c *gateway.Config) {
				f.Roles = append(f.Roles, fakeaws.Role{ARN: fallback, Trusted: []string{gatewayUser}})
				c.Roles = append(c.Roles, gateway.Role{ARN: fallback})
				c.Prices = fixedPrices{}
				if tt.rule.Policy+tt.rule.STS+tt.rule.Journal+tt.rule.Price != "" {
					if tt.when != "" {
						tt.rule.When = condition(t, tt.when)
					}
					c.OnFailure = []gateway.FailureRule{tt.rule}
				}
				if tt.config != nil {
					tt.config(c)
				}
			})
			tt.fails(t, s)
			model, tags := or(tt.model, nova), or(tt.tags, "environment=staging")
			a, text := s.post(t, "/model/"+model+"/converse", hello, map[string]string{"X-Waybill-Tags": tags})
			if a.StatusCode != tt.status || tt.code != "" && !strings.Contains(text, tt.code) {
				t.Errorf("%d %s, want %d %s", a.StatusCode, text, tt.status, tt.code)
			}
			records := s.records(t)
			if len(records) != 1 {
				t.Fatalf("%d records", len(records))
			}
			r := records[0]
			if strings.Join(r.Reasons, ",") != tt.reasons || r.PolicyOutcome != tt.outcome {
				t.Errorf("recorded as %s with %v, want %s with %s", r.PolicyOutcome, r.Reasons, tt.outcome, tt.reasons)
			}
			calls := s.world.Calls()
			if (len(calls) == 1) != (tt.role != "") || len(calls) == 1 && !strings.HasSuffix(calls[0].PrincipalARN, "/"+tt.role) {
				t.Fatalf("AWS saw %+v, want a call as %q", calls, tt.role)
			}
			if tt.role == "" {
				return
			}
			c := calls[0]
			if c.Metadata["team"] != "search" || c.Metadata["environment"] == "moon" {
				t.Errorf("the call has the tags %v", c.Metadata)
			}
			if onSession := c.SessionTags["team"] == "search"; onSession != (tt.reasons != "gateway:fallback_role") || strings.Contains(r.Carried, "session") != onSession {
				t.Errorf("session tags %v, carried by %s", c.SessionTags, r.Carried)
			}
		})
	}
}

func or(v, other string) string {
	if v != "" {
		return v
	}
	return other
}
