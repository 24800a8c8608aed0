package policy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
)

const example = `version: 1
session: {name: '{user}'}
tags:
  keys:
    team:        {required: true, values: [search, ads, platform], foldCase: true, carriers: [session, request, resource]}
    environment: {required: true, values: [production, staging, development], aliases: {prod: production}, carriers: [session, request]}
    costCenter:  {pattern: 'CC-\d{4}', carriers: [session, request]}
    user:        {from: caller.subject, transform: hmac, carriers: [session, request]}
    department:  {from: claims.department, carriers: [session]}
    feature:     {carriers: [request]}
    project:     {default: none, carriers: [request]}
    traceId:     {highCardinality: true, carriers: [request]}
  rules:
    - {when: {environment: production}, require: [costCenter]}
    - {when: {model: 'anthropic.claude-*', not: {team: platform}}, require: [feature]}
    - {when: {environment: [staging, development]}, forbid: [costCenter]}
`

var secret = Options{HashKey: []byte("0123456789abcdef0123456789abcdef")}

func parse(t testing.TB, src string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(src), secret)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ask(pairs ...string) []Asked {
	var out []Asked
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, Asked{pairs[i], pairs[i+1], TagsHeader})
	}
	return out
}

func TestDecide(t *testing.T) {
	p := parse(t, example)
	caller := waybill.Principal{Subject: "user-17", Issuer: "gateway-key", Claims: map[string]string{"department": "D1"}, Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})}
	for _, tt := range []struct {
		name    string
		asked   []Asked
		outcome waybill.PolicyOutcome
		tags    string // some of the resolved tags
		reasons string
	}{
		{"good", ask("environment", "staging"), waybill.PolicyAllowed, "team=search environment=staging project=none department=D1", ""},
		{"an alias", ask("environment", "prod", "costCenter", "CC-1001"), waybill.PolicyAllowed, "environment=production costCenter=CC-1001", ""},
		{"a rule demands", ask("environment", "production"), waybill.PolicyRefused, "environment=production", "costCenter:missing"},
		{"a rule forbids", ask("environment", "staging", "costCenter", "CC-1001"), waybill.PolicyRefused, "", "costCenter:forbidden"},
		{"several at once", ask("costCenter", "1001"), waybill.PolicyRefused, "", "costCenter:pattern,environment:missing"},
		{"not allowed", ask("environment", "moon"), waybill.PolicyRefused, "", "environment:not_allowed"},
		{"characters", ask("environment", "staging", "feature", "a%b"), waybill.PolicyRefused, "", "feature:bad_characters"},
		{"forged, in another case", ask("environment", "staging", "TEAM", "ads"), waybill.PolicyAllowed, "team=search", "team:forged"},
		{"unknown keys are dropped", ask("environment", "staging", "nonsense", "x"), waybill.PolicyAllowed, "environment=staging", ""},
	} {
		d := p.Decide(&Request{Principal: caller, Model: "amazon.nova-lite-v1:0", Asked: tt.asked})
		if d.Outcome != tt.outcome || strings.Join(d.Reasons(), ",") != tt.reasons {
			t.Errorf("%s: %s %v, want %s %s", tt.name, d.Outcome, d.Reasons(), tt.outcome, tt.reasons)
		}
		for _, pair := range strings.Fields(tt.tags) {
			k, v, _ := strings.Cut(pair, "=")
			if got, _ := d.Tags.Get(k); got != v {
				t.Errorf("%s: %s is %q, want %q", tt.name, k, got, v)
			}
		}
		if user, _ := d.Tags.Get("user"); !strings.HasPrefix(user, "h1-") || strings.Contains(user, "user-17") || d.SessionName != user {
			t.Errorf("%s: user is %q, the session %q", tt.name, user, d.SessionName)
		}
		if _, there := d.Session.Get("feature"); there {
			t.Errorf("%s: feature rides on the session", tt.name)
		}
	}
	d := p.Decide(&Request{Principal: caller, Model: "us.anthropic.claude-sonnet-4-6", Asked: ask("environment", "staging")})
	if strings.Join(d.Reasons(), ",") != "feature:missing" {
		t.Errorf("the rule on models: %v", d.Reasons())
	}
	text := p.Decide(&Request{Principal: caller, Asked: ask("environment", "moon")}).Refusal().Message
	if strings.Contains(text, "moon") || !strings.Contains(text, "production, staging, development") {
		t.Errorf("the refusal says %q: allowed values belong there, what was sent does not", text)
	}
}

// Values keep the text they were written with.
func TestValuesKeepTheirText(t *testing.T) {
	p := parse(t, "tags: {keys: {cc: {values: [010, no, 1.10], default: 010}}}\n")
	if v, _ := p.Decide(&Request{}).Tags.Get("cc"); v != "010" {
		t.Errorf("a cost centre 010 became %q", v)
	}
}

func TestMatchPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"*", "", true}, {"a*c", "abbc", true}, {"a*c", "ac", true}, {"a*b*c", "a-b-c", true},
		{"a*b*c", "acb", false}, {"*.nova-*", "amazon.nova-lite", true}, {"a*a", "a", false},
	} {
		if got := MatchPattern(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q on %q is %v", tt.pattern, tt.text, got)
		}
	}
}

func TestTakeAsked(t *testing.T) {
	h := http.Header{}
	h.Set("X-Waybill-Tags", " team = search ,feature=a=b")
	h.Set("X-Litellm-Tags", "env:prod, nightly")
	h.Set("X-Portkey-Metadata", `{"_user":"user-17","n":3,"deep":{"a":[1]},"none":null}`)
	h.Set("X-Openwebui-User-Name", "somebody")
	h.Set("Accept", "x")
	got, err := TakeAsked(h)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(got); text != "[{team search X-Waybill-Tags} {feature a=b X-Waybill-Tags} {env prod X-Litellm-Tags} {tag nightly X-Litellm-Tags} {_user user-17 X-Portkey-Metadata} {n 3 X-Portkey-Metadata}]" || len(h) != 1 {
		t.Errorf("%s, left %v", text, h)
	}
	if _, err := TakeAsked(http.Header{"X-Waybill-Tags": {"nonsense"}}); err == nil || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("tags: {keys: {a: {pattern: '['}}}"))
	f.Add([]byte("a: &x [1]\nb: *x\n"))
	f.Add([]byte("session: {budget: 9223372036854775807}"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := Parse("policy.yaml", src, secret)
		if (p == nil) == (err == nil) {
			t.Errorf("policy %v and error %v", p, err)
		}
		if p != nil {
			p.Decide(&Request{Asked: ask("team", "x")})
		}
	})
}

func FuzzAsked(f *testing.F) {
	f.Add("team=search,feature=x")
	f.Add(`{"a":"b"}`)
	f.Fuzz(func(t *testing.T, v string) {
		for _, name := range []string{"X-Waybill-Tags", "X-Litellm-Tags", "Cf-Aig-Metadata"} {
			got, err := TakeAsked(http.Header{name: {v}})
			if err != nil && len(got) > 0 {
				t.Error("tags and an error")
			}
		}
	})
}

// BenchmarkDecide is of a typical policy: 8 keys, 3 conditional rules, one hash, with
// screening on and a value of each key that is free.
func BenchmarkDecide(b *testing.B) {
	p := parse(b, example)
	req := &Request{Principal: waybill.Principal{Subject: "user-17", Claims: map[string]string{"department": "D1"}, Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})}, Model: "amazon.nova-lite-v1:0",
		Asked: ask("environment", "production", "costCenter", "CC-1001", "feature", "summary", "traceId", "4bf92f3577b34da6a3ce929d0e0e4736")}
	guard := NewGuard(p)
	req.Guard = guard
	b.ReportAllocs()
	for b.Loop() {
		if d := p.Decide(req); d.Outcome != waybill.PolicyAllowed {
			b.Fatal(d.Reasons())
		}
	}
}

// A mode that callers can choose by what they send is warned about.
func TestRolloutThatCallersChoose(t *testing.T) {
	for _, tt := range []struct {
		when string
		warn bool
	}{
		{"{team: search}", true}, {"{not: {team: ads}}", true}, {"{team: search, region: eu-west-1}", true}, {"{not: {team: ads, caller: x}}", true},
		{"{team: search, caller: 'batch-*'}", false}, {"{unit: search}", false}, {"{team: search, claims.role: tester}", false}, {"{region: eu-west-1}", false}, {"{unit: search, team: search}", false},
	} {
		p := parse(t, "tags: {keys: {team: {}, unit: {from: claims.unit}}}\nrollout: [{when: "+tt.when+", mode: observe}]\n")
		if got := p.Warnings(); len(got) > 0 != tt.warn || tt.warn && !strings.HasPrefix(got[0], `policy.yaml:2: mode observe hangs on tag "team", which a request may send`) {
			t.Errorf("%s: %q", tt.when, got)
		}
	}
}
