package iam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// The oracle of the differential test: a second reading of the same pages, written for
// plainness and sharing no code with the first. It works on the JSON itself, turns
// patterns into regular expressions, and knows a decision on one set of identity policies
// and service control policies. AWS's own simulator is no oracle for service control
// policies with tags: it decides where a key is missing from the context.
type naive struct {
	context map[string][]string
	action  string
	arn     string
}

func list(v any) []string {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
		return out
	}
	return []string{fmt.Sprint(v)}
}

var regexes = make(map[string]*regexp.Regexp)

func regex(pattern string, wild bool, star string, fold bool) *regexp.Regexp {
	key := fmt.Sprint(wild, fold, star, pattern)
	if regexes[key] == nil {
		regexes[key] = newRegex(pattern, wild, star, fold)
	}
	return regexes[key]
}

func newRegex(pattern string, wild bool, star string, fold bool) *regexp.Regexp {
	text := regexp.QuoteMeta(pattern)
	if wild {
		text = strings.ReplaceAll(text, `\?`, ".")
		text = strings.ReplaceAll(text, `\*`, star)
	}
	if fold {
		text = "(?i)" + text
	}
	return regexp.MustCompile(`(?s)^` + text + `$`)
}

func (n *naive) statement(s map[string]any) bool {
	in := func(patterns []string, value string, fold bool) bool {
		for _, p := range patterns {
			if regex(p, true, ".*", fold).MatchString(value) {
				return true
			}
		}
		return false
	}
	if a, ok := s["Action"]; ok && !in(list(a), n.action, true) {
		return false
	}
	if a, ok := s["NotAction"]; ok && in(list(a), n.action, true) {
		return false
	}
	if r, ok := s["Resource"]; ok && !in(list(r), n.arn, false) {
		return false
	}
	if r, ok := s["NotResource"]; ok && in(list(r), n.arn, false) {
		return false
	}
	conditions, _ := s["Condition"].(map[string]any)
	for operator, keys := range conditions {
		for key, values := range keys.(map[string]any) {
			if !n.condition(operator, key, list(values)) {
				return false
			}
		}
	}
	return true
}

func (n *naive) condition(operator, key string, values []string) bool {
	have := n.context[strings.ToLower(key)]
	if operator == "Null" {
		return (len(have) == 0) == (values[0] == "true")
	}
	set, rest, found := strings.Cut(operator, ":")
	if !found {
		set, rest = "", operator
	}
	base := strings.TrimSuffix(rest, "IfExists")
	negative := strings.Contains(base, "Not")
	base = strings.Replace(base, "Not", "", 1)
	if len(have) == 0 {
		if set != "" {
			return set == "ForAllValues"
		}
		return negative || strings.HasSuffix(rest, "IfExists")
	}
	count := 0
	for _, h := range have {
		hit := false
		for _, v := range values {
			hit = hit || same(base, v, h)
		}
		if hit != negative {
			count++
		}
	}
	if set == "ForAnyValue" {
		return count > 0
	}
	return count == len(have)
}

func same(operator, pattern, value string) bool {
	switch operator {
	case "StringEquals":
		return pattern == value
	case "StringEqualsIgnoreCase", "Bool":
		return regex(pattern, false, "", true).MatchString(value)
	case "StringLike":
		return regex(pattern, true, ".*", false).MatchString(value)
	case "ArnLike", "ArnEquals":
		p, v := strings.SplitN(pattern, ":", 6), strings.SplitN(value, ":", 6)
		if len(v) != 6 {
			return false
		}
		for i := range p {
			if !regex(p[i], true, ".*", false).MatchString(v[i]) {
				return false
			}
		}
		return true
	}
	panic(operator)
}

func (n *naive) decide(documents []string) (allow, deny bool) {
	for _, d := range documents {
		var m struct{ Statement []map[string]any }
		if err := json.Unmarshal([]byte(d), &m); err != nil {
			panic(err)
		}
		for _, s := range m.Statement {
			if n.statement(s) {
				allow = allow || s["Effect"] == "Allow"
				deny = deny || s["Effect"] == "Deny"
			}
		}
	}
	return allow, deny
}

func TestAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 11))
	pick := func(texts ...string) string { return texts[rng.IntN(len(texts))] }
	some := func(n int, make func() string) []string {
		out := []string{make()}
		for range rng.IntN(n) {
			out = append(out, make())
		}
		return out
	}
	action := func() string {
		return pick("*", "bedrock:*", "bedrock:Invoke*", "bedrock:InvokeModel", "BEDROCK:invokemodel", "bedrock-mantle:*", "s3:Get?bject", "bedrock:*Model*", "iam:*")
	}
	resource := func() string {
		return pick("*", "arn:aws:bedrock:*::foundation-model/*", "arn:aws:bedrock:us-east-1:*:project/p?", "arn:aws:s3:::b/*", "arn:aws:bedrock:*:*:*")
	}
	condition := func(m map[string]any) {
		set := pick("", "", "ForAllValues:", "ForAnyValue:")
		key, value := pick("aws:PrincipalTag/team", "aws:RequestedRegion"), func() string { return pick("ads", "a*", "search", "?*", "us-*", "US-EAST-1") }
		operator := pick("StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase")
		switch rng.IntN(6) {
		case 0:
			operator, key, value = pick("ArnLike", "ArnNotLike", "ArnEquals", "ArnNotEquals"), "aws:PrincipalArn", func() string {
				return pick("arn:aws:iam::*:role/w/*", "arn:aws:iam::111122223333:role/w/a", "arn:*:iam::*:user/*")
			}
		case 1:
			m["Null"] = map[string]any{pick("aws:PrincipalTag/team", "aws:TagKeys", "aws:SourceVpce"): pick("true", "false")}
			return
		case 2:
			set, operator, key, value = "", pick("Bool", "BoolIfExists"), "aws:PrincipalIsAWSService", func() string { return pick("true", "false") }
		case 3:
			set, key = pick("ForAllValues:", "ForAnyValue:"), "aws:TagKeys"
		}
		if set != "ForAnyValue:" && !strings.HasSuffix(operator, "IfExists") && rng.IntN(3) == 0 {
			operator += "IfExists"
		}
		m[set+operator] = map[string]any{key: some(3, value)}
	}
	statement := func(allow int) map[string]any {
		s := map[string]any{"Effect": "Deny", pick("Action", "Action", "NotAction"): some(3, action), pick("Resource", "Resource", "NotResource"): some(2, resource)}
		if rng.IntN(allow) > 0 {
			s["Effect"] = "Allow"
		}
		if n := rng.IntN(3); n > 0 {
			m := make(map[string]any)
			for range n {
				condition(m)
			}
			s["Condition"] = m
		}
		return s
	}
	policy := func() string {
		var statements []any
		for range 1 + rng.IntN(4) {
			statements = append(statements, statement(4))
		}
		b, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	counts := make(map[Outcome]int)
	for range 4_000 {
		scps, identity := []string{policy()}, []string{policy()}
		if rng.IntN(3) == 0 {
			scps = append(scps, policy())
		}
		c := Caller{Kind: RoleSession, ARN: "arn:aws:sts::111122223333:assumed-role/a/s", RoleARN: pick("arn:aws:iam::111122223333:role/w/a", "arn:aws:iam::444455556666:role/v"), Account: "111122223333"}
		r := &Request{Caller: c, Action: pick("bedrock:InvokeModel", "bedrock:ListFoundationModels", "bedrock-mantle:CreateInference", "s3:GetObject", "iam:CreateRole"),
			Resource: pick("arn:aws:bedrock:us-east-1::foundation-model/m", "arn:aws:bedrock:us-east-1:111122223333:project/p1", "arn:aws:s3:::b/k", "*"), Context: map[string][]string{}}
		n := &naive{context: map[string][]string{"aws:principalarn": {c.RoleARN}, "aws:principalisawsservice": {"false"}, "aws:principalaccount": {c.Account}, "aws:principaltype": {"AssumedRole"}}, action: r.Action, arn: r.Resource}
		put := func(key string, values ...string) {
			r.Context[key] = values
			n.context[strings.ToLower(key)] = values
		}
		if rng.IntN(2) == 0 {
			put("aws:RequestedRegion", pick("us-east-1", "eu-west-1"))
		}
		if rng.IntN(2) == 0 {
			put("aws:TagKeys", some(3, func() string { return pick("ads", "search", "abc") })...)
		}
		if rng.IntN(2) == 0 {
			team := pick("ads", "search", "")
			r.Caller.Tags = map[string]string{"Team": team}
			n.context["aws:principaltag/team"] = []string{team}
		}
		policies := &Policies{}
		var level []*Policy
		for _, s := range scps {
			level = append(level, mustParse(t, ServiceControl, s))
		}
		policies.SCPs, policies.Identity = [][]*Policy{level}, []*Policy{mustParse(t, Identity, identity[0])}
		got, err := Evaluate(r, policies)
		if err != nil {
			t.Fatal(err)
		}
		allowSCP, denySCP := n.decide(scps)
		allowID, denyID := n.decide(identity)
		want := ImplicitDeny
		if denySCP || denyID {
			want = ExplicitDeny
		} else if allowSCP && allowID {
			want = Allowed
		}
		counts[want]++
		if got.Outcome != want {
			t.Fatalf("%s, want %s\nrequest %+v\nSCPs %s\nidentity %s", got.Outcome, want, r, scps, identity)
		}
	}
	for _, o := range []Outcome{Allowed, ExplicitDeny, ImplicitDeny} { // a generator that says one thing tests nothing
		if counts[o] < 150 {
			t.Errorf("%d cases come out %s", counts[o], o)
		}
	}
}

// The reader never panics; what it takes it takes again after being written anew, and can
// be asked.
func FuzzParse(f *testing.F) {
	for _, text := range []string{document(allowAll, denyInvoke),
		document(`{"Sid":"A","Effect":"Deny","NotAction":["s3:*","iam:Get?ser"],"NotResource":"arn:aws:s3:::b/${aws:username}*","Condition":{"ForAllValues:StringNotLike":{"aws:TagKeys":["a*","b?"]},"Bool":{"aws:SecureTransport":false},"NumericLessThan":{"aws:MultiFactorAuthAge":"3600"},"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"},"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","2001:db8::/32"]},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/*"}}}`),
		document(`{"Effect":"Allow","Principal":{"AWS":["111122223333","*"],"Service":"bedrock.amazonaws.com"},"Action":"sts:AssumeRole"}`)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []Kind{Identity, Trust, ServiceControl, Endpoint} {
			p, err := Parse("fuzz", kind, []byte(text))
			if err != nil {
				if p != nil {
					t.Fatal("an error and a policy")
				}
				continue
			}
			var anyValue any
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			if err := d.Decode(&anyValue); err != nil {
				t.Fatalf("taken, and no JSON: %v", err)
			}
			var anew bytes.Buffer
			e := json.NewEncoder(&anew)
			e.SetEscapeHTML(false)
			if err := e.Encode(anyValue); err != nil {
				t.Fatal(err)
			}
			again := bytes.TrimSpace(anew.Bytes())
			if Size(kind, again) > kind.Limit().Most {
				continue // escapes made it longer
			}
			q, err := Parse("again", kind, again)
			if err != nil {
				t.Fatalf("written anew it is refused: %v\n%s", err, again)
			}
			if len(q.Statements) != len(p.Statements) {
				t.Fatalf("%d statements, then %d", len(p.Statements), len(q.Statements))
			}
			r := &Request{Caller: user, Action: "s3:GetObject", Resource: "arn:aws:s3:::b/k"}
			v, err := Evaluate(r, &Policies{Identity: []*Policy{p}})
			w, err2 := Evaluate(r, &Policies{Identity: []*Policy{q}})
			if (err == nil) != (err2 == nil) || v.Outcome != w.Outcome {
				t.Fatalf("%+v %v, then %+v %v", v, err, w, err2)
			}
		}
	})
}
