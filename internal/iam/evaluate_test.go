package iam

import (
	"strings"
	"testing"
)

func mustParse(t testing.TB, kind Kind, text string) *Policy {
	t.Helper()
	p, err := Parse(string(kind), kind, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// document wraps statements.
func document(statements ...string) string {
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
}

const (
	allowAll    = `{"Effect":"Allow","Action":"*","Resource":"*"}`
	allowInvoke = `{"Effect":"Allow","Action":"bedrock:InvokeModel","Resource":"*"}`
	denyInvoke  = `{"Sid":"No","Effect":"Deny","Action":"bedrock:InvokeModel","Resource":"*"}`
)

var (
	session = Caller{Kind: RoleSession, ARN: "arn:aws:sts::111122223333:assumed-role/app/one", RoleARN: "arn:aws:iam::111122223333:role/team/app", Account: "111122223333"}
	user    = Caller{Kind: User, ARN: "arn:aws:iam::111122223333:user/ann", Account: "111122223333"}
	rootOf  = Caller{Kind: Root, ARN: "arn:aws:iam::111122223333:root", Account: "111122223333"}
	service = Caller{Kind: ServiceCaller, ARN: "bedrock.amazonaws.com"}
)

// How policies of several sorts go together: the IAM User Guide's pages on policy
// evaluation logic, within an account and across accounts, and on permissions boundaries;
// the Organizations User Guide on service control policies.
func TestEvaluationLogic(t *testing.T) {
	with := func(c Caller, change func(*Caller)) Caller { change(&c); return c }
	trust := func(principal string) string {
		return document(`{"Effect":"Allow","Principal":` + principal + `,"Action":"sts:AssumeRole"}`)
	}
	tests := []struct {
		name                                  string
		caller                                Caller
		scps                                  []string // one a level
		identity, boundary, session, endpoint string
		trust, resource                       string
		action, account                       string
		want                                  Outcome
	}{
		{name: "nothing allows", caller: session, want: ImplicitDeny},
		{name: "the root user needs no policy", caller: rootOf, want: Allowed},
		{name: "the root user is under SCPs", caller: rootOf, scps: []string{document(allowAll, denyInvoke)}, want: ExplicitDeny},
		{name: "identity allows", caller: session, identity: document(allowInvoke), want: Allowed},
		{name: "deny beats allow in one policy", caller: session, identity: document(allowAll, denyInvoke), want: ExplicitDeny},
		{name: "SCP grants nothing", caller: session, scps: []string{document(allowAll)}, want: ImplicitDeny},
		{name: "SCP must allow", caller: session, identity: document(allowAll), scps: []string{document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`)}, want: ImplicitDeny},
		{name: "every level must allow", caller: session, identity: document(allowAll), scps: []string{document(allowAll), document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`)}, want: ImplicitDeny},
		{name: "SCP denies", caller: user, identity: document(allowAll), scps: []string{document(allowAll), document(allowAll, denyInvoke)}, want: ExplicitDeny},
		{name: "the management account is not under SCPs", caller: with(user, func(c *Caller) { c.Management = true }), identity: document(allowAll), scps: []string{document(allowAll, denyInvoke)}, want: Allowed},
		{name: "service-linked roles are not under SCPs", caller: with(session, func(c *Caller) { c.RoleARN = "arn:aws:iam::111122223333:role/aws-service-role/x.amazonaws.com/X" }), identity: document(allowAll), scps: []string{document(allowAll, denyInvoke)}, want: Allowed},
		{name: "boundary must allow", caller: session, identity: document(allowAll), boundary: document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`), want: ImplicitDeny},
		{name: "boundary grants nothing", caller: session, boundary: document(allowAll), want: ImplicitDeny},
		{name: "boundary and identity", caller: session, identity: document(allowAll), boundary: document(allowInvoke), want: Allowed},
		{name: "session policy must allow", caller: session, identity: document(allowAll), session: document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`), want: ImplicitDeny},
		{name: "endpoint policy must allow", caller: session, identity: document(allowAll), endpoint: document(`{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}`), want: ImplicitDeny},
		{name: "endpoint policy grants nothing", caller: session, endpoint: document(`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`), want: ImplicitDeny},
		{name: "endpoint policy and identity", caller: session, identity: document(allowAll), endpoint: document(`{"Effect":"Allow","Principal":"*","Action":"bedrock:Invoke*","Resource":"*"}`), want: Allowed},
		{name: "endpoint policy denies", caller: session, identity: document(allowAll), endpoint: document(`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`, `{"Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:iam::111122223333:role/other"},"Action":"*","Resource":"*"}`), want: ExplicitDeny},
		{name: "other accounts' resources", caller: session, identity: document(allowAll), account: "999988887777", want: ImplicitDeny},

		{name: "trust policy that names the role", caller: session, trust: trust(`{"AWS":"arn:aws:iam::111122223333:role/team/app"}`), action: "sts:AssumeRole", want: Allowed},
		{name: "trust policy that names the session", caller: session, trust: trust(`{"AWS":"arn:aws:sts::111122223333:assumed-role/app/one"}`), boundary: document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`), action: "sts:AssumeRole", want: Allowed},
		{name: "a role that is named stays in its boundary", caller: session, trust: trust(`{"AWS":"arn:aws:iam::111122223333:role/team/app"}`), boundary: document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`), action: "sts:AssumeRole", want: ImplicitDeny},
		{name: "trust policy that names another role", caller: session, identity: document(allowAll), trust: trust(`{"AWS":"arn:aws:iam::111122223333:role/other"}`), action: "sts:AssumeRole", want: ImplicitDeny},
		{name: "trust policy that names the account alone", caller: session, trust: trust(`{"AWS":"111122223333"}`), action: "sts:AssumeRole", want: ImplicitDeny},
		{name: "and the caller's policies", caller: session, identity: document(allowAll), trust: trust(`{"AWS":"arn:aws:iam::111122223333:root"}`), action: "sts:AssumeRole", want: Allowed},
		{name: "across accounts trust is not enough", caller: session, trust: trust(`{"AWS":"arn:aws:iam::111122223333:role/team/app"}`), action: "sts:AssumeRole", account: "999988887777", want: ImplicitDeny},
		{name: "across accounts both must allow", caller: session, identity: document(allowAll), trust: trust(`{"AWS":"arn:aws:iam::111122223333:role/team/app"}`), action: "sts:AssumeRole", account: "999988887777", want: Allowed},
		{name: "across accounts identity is not enough", caller: session, identity: document(allowAll), trust: trust(`{"AWS":"arn:aws:iam::111122223333:role/other"}`), action: "sts:AssumeRole", account: "999988887777", want: ImplicitDeny},
		{name: "a service that is trusted", caller: service, trust: trust(`{"Service":"bedrock.amazonaws.com"}`), action: "sts:AssumeRole", scps: []string{document(`{"Effect":"Deny","Action":"*","Resource":"*"}`)}, want: Allowed},
		{name: "a service that is not", caller: service, trust: trust(`{"Service":"ec2.amazonaws.com"}`), action: "sts:AssumeRole", want: ImplicitDeny},
		{name: "anybody", caller: user, trust: trust(`"*"`), action: "sts:AssumeRole", want: Allowed},
		{name: "a resource's policy within the account is enough", caller: user, resource: document(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/ann"},"Action":"bedrock:*","Resource":"*"}`), want: Allowed},
		{name: "past the boundary", caller: user, boundary: document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`), resource: document(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/ann"},"Action":"bedrock:*","Resource":"*"}`), want: Allowed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &Request{Caller: tt.caller, Action: "bedrock:InvokeModel", Resource: "arn:aws:bedrock:us-east-1::foundation-model/m", ResourceAccount: tt.account}
			if tt.action != "" {
				r.Action, r.Resource = tt.action, "arn:aws:iam::111122223333:role/target"
			}
			var p Policies
			for _, s := range tt.scps {
				p.SCPs = append(p.SCPs, []*Policy{mustParse(t, ServiceControl, s)})
			}
			one := func(kind Kind, text string) *Policy {
				if text == "" {
					return nil
				}
				return mustParse(t, kind, text)
			}
			p.Boundary, p.Endpoint = one(Boundary, tt.boundary), one(Endpoint, tt.endpoint)
			if p.Resource = one(Trust, tt.trust); p.Resource == nil {
				p.Resource = one(Resource, tt.resource)
			}
			if tt.identity != "" {
				p.Identity = []*Policy{mustParse(t, Identity, tt.identity)}
			}
			if tt.session != "" {
				p.Session = []*Policy{mustParse(t, Session, tt.session)}
			}
			got, err := Evaluate(r, &p)
			if err != nil || got.Outcome != tt.want {
				t.Errorf("%+v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

// What operators mean: the IAM User Guide, "Condition operators", "Set operators for
// multivalued context keys" and "Policy variables".
func TestConditions(t *testing.T) {
	absent := map[string][]string{}
	key := func(values ...string) map[string][]string { return map[string][]string{"AWS:Key": values} }
	tests := []struct {
		condition string
		context   map[string][]string
		want      bool
	}{
		{`"StringEquals":{"aws:key":"a"}`, key("a"), true},
		{`"StringEquals":{"aws:key":"a"}`, key("A"), false},
		{`"StringEquals":{"aws:key":["b","a"]}`, key("a"), true},
		{`"StringEquals":{"aws:key":"a"}`, absent, false},
		{`"StringEquals":{"aws:key":"a*"}`, key("ab"), false},
		{`"StringEqualsIfExists":{"aws:key":"a"}`, absent, true},
		{`"StringEqualsIfExists":{"aws:key":"a"}`, key("b"), false},
		{`"StringNotEquals":{"aws:key":"a"}`, absent, true},
		{`"StringNotEquals":{"aws:key":["a","b"]}`, key("b"), false},
		{`"StringNotEquals":{"aws:key":["a","b"]}`, key("c"), true},
		{`"StringNotEqualsIfExists":{"aws:key":"a"}`, absent, true},
		{`"StringEqualsIgnoreCase":{"aws:key":"ProD"}`, key("pROd"), true},
		{`"StringNotEqualsIgnoreCase":{"aws:key":"ProD"}`, key("pROd"), false},
		{`"StringLike":{"aws:key":"a*c?"}`, key("abbcd"), true},
		{`"StringLike":{"aws:key":"?*"}`, key(""), false},
		{`"StringNotLike":{"aws:key":"?*"}`, key(""), true},
		{`"StringNotLike":{"aws:key":"?*"}`, absent, true},
		{`"StringLike":{"aws:key":"*:x"}`, key("a:b:x"), true},
		{`"Null":{"aws:key":"true"}`, absent, true},
		{`"Null":{"aws:key":"true"}`, key("a"), false},
		{`"Null":{"aws:key":"false"}`, key("a", "b"), true},
		{`"Null":{"aws:key":false}`, absent, false},
		{`"Bool":{"aws:key":"true"}`, key("True"), true},
		{`"Bool":{"aws:key":true}`, key("false"), false},
		{`"Bool":{"aws:key":"false"}`, absent, false},
		{`"BoolIfExists":{"aws:key":"false"}`, absent, true},
		{`"NumericLessThanEquals":{"aws:key":"10"}`, key("10.0"), true},
		{`"NumericLessThan":{"aws:key":10}`, key("10"), false},
		{`"NumericGreaterThan":{"aws:key":"9"}`, key("10"), true},
		{`"NumericNotEquals":{"aws:key":"9"}`, absent, true},
		{`"NumericEquals":{"aws:key":"9"}`, key("9.00"), true},
		{`"DateLessThan":{"aws:key":"2026-07-01T00:00:00Z"}`, key("2026-06-30T23:59:59Z"), true},
		{`"DateGreaterThanEquals":{"aws:key":"2026-07-01T00:00:00Z"}`, key("1782864000"), true},
		{`"DateEquals":{"aws:key":"2026-07-01"}`, key("2026-07-01T02:00:00+02:00"), true},
		{`"IpAddress":{"aws:key":"203.0.113.0/24"}`, key("203.0.113.9"), true},
		{`"IpAddress":{"aws:key":"203.0.113.0/24"}`, key("203.0.114.9"), false},
		{`"NotIpAddress":{"aws:key":["203.0.113.0/24","2001:db8::/32"]}`, key("2001:db8::1"), false},
		{`"NotIpAddress":{"aws:key":"203.0.113.0/24"}`, absent, true},
		{`"ArnLike":{"aws:key":"arn:aws:iam::*:role/w/*"}`, key("arn:aws:iam::111122223333:role/w/a/b"), true},
		{`"ArnEquals":{"aws:key":"arn:aws:iam::*:role/w/*"}`, key("arn:aws:iam::111122223333:role/w/a"), true},
		{`"ArnLike":{"aws:key":"arn:aws:*::*:role/w"}`, key("arn:aws:iam:x:y:111122223333:role/w"), false}, // * is one segment, not three
		{`"ArnNotLike":{"aws:key":"arn:aws:iam::*:role/w/*"}`, key("arn:aws:iam::111122223333:role/v"), true},
		{`"ArnNotLike":{"aws:key":"arn:aws:iam::*:role/w/*"}`, absent, true},
		{`"ArnLike":{"aws:key":"arn:aws:iam::*:role/w/*"}`, absent, false},
		{`"ForAllValues:StringEquals":{"aws:key":["a","b"]}`, key("a", "b"), true},
		{`"ForAllValues:StringEquals":{"aws:key":["a","b"]}`, key("a", "c"), false},
		{`"ForAllValues:StringEquals":{"aws:key":["a","b"]}`, absent, true},
		{`"ForAllValues:StringNotEquals":{"aws:key":["a","b"]}`, key("c", "d"), true},
		{`"ForAllValues:StringNotEquals":{"aws:key":["a","b"]}`, key("c", "a"), false},
		{`"ForAnyValue:StringEquals":{"aws:key":["a","b"]}`, key("c", "b"), true},
		{`"ForAnyValue:StringEquals":{"aws:key":["a","b"]}`, key("c"), false},
		{`"ForAnyValue:StringEquals":{"aws:key":["a","b"]}`, absent, false},
		{`"ForAnyValue:StringNotEquals":{"aws:key":["a","b"]}`, key("a", "c"), true},
		{`"ForAnyValue:StringNotEquals":{"aws:key":["a","b"]}`, absent, false},
		{`"ForAllValues:StringEqualsIfExists":{"aws:key":"a"}`, absent, true},
		{`"StringEquals":{"aws:key":"${aws:PrincipalTag/Team}"}`, key("ads"), true},
		{`"StringEquals":{"aws:key":"x-${aws:principaltag/team}"}`, key("x-ads"), true},
		{`"StringEquals":{"aws:key":"${aws:PrincipalTag/none}"}`, key(""), false},
		{`"StringNotEquals":{"aws:key":"${aws:PrincipalTag/none}"}`, key("a"), true},
		{`"StringEquals":{"aws:key":"${aws:PrincipalTag/none, 'all'}"}`, key("all"), true},
		{`"StringLike":{"aws:key":"${*}${?}${$}"}`, key("*?$"), true},
		{`"StringLike":{"aws:key":"${*}"}`, key("a"), false},
		{`"StringLike":{"aws:key":"${aws:PrincipalTag/wild}"}`, key("abc"), false}, // what a tag holds is no wildcard
		{`"StringEquals":{"aws:key":"a"},"Null":{"aws:other":"true"}`, key("a"), true},
		{`"StringEquals":{"aws:key":"a","aws:other":"b"}`, key("a"), false},
		{`"StringEquals":{"aws:PrincipalArn":"arn:aws:iam::111122223333:role/team/app"}`, absent, true},
	}
	for _, tt := range tests {
		t.Run(tt.condition, func(t *testing.T) {
			p := mustParse(t, Identity, document(`{"Effect":"Allow","Action":"bedrock:InvokeModel","Resource":"*","Condition":{`+tt.condition+`}}`))
			c := session
			c.Tags = map[string]string{"Team": "ads", "wild": "*"}
			got, err := Evaluate(&Request{Caller: c, Action: "bedrock:InvokeModel", Resource: "*", Context: tt.context}, &Policies{Identity: []*Policy{p}})
			if err != nil || (got.Outcome == Allowed) != tt.want {
				t.Errorf("%v with %v: %+v, %v; want %v", tt.condition, tt.context, got, err, tt.want)
			}
		})
	}
}

// Actions and resources: the IAM User Guide, "Action", "Resource", "NotAction",
// "NotResource".
func TestActionsAndResources(t *testing.T) {
	const model = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-v2:1"
	tests := []struct {
		statement, action, resource string
		want                        bool
	}{
		{`"Action":"BEDROCK:invoke*","Resource":"*"`, "bedrock:InvokeModel", model, true},
		{`"Action":"bedrock:*","Resource":"*"`, "bedrock-mantle:CreateInference", model, false},
		{`"Action":"bedrock:Invoke?odel","Resource":"*"`, "bedrock:InvokeModel", model, true},
		{`"NotAction":"bedrock:*","Resource":"*"`, "bedrock:InvokeModel", model, false},
		{`"NotAction":"bedrock:*","Resource":"*"`, "bedrock-mantle:CreateInference", model, true},
		{`"Action":"*","Resource":"arn:aws:bedrock:*::foundation-model/*"`, "bedrock:InvokeModel", model, true},
		{`"Action":"*","Resource":"arn:aws:bedrock:*::foundation-model/*"`, "bedrock:InvokeModel", "arn:aws:bedrock:::foundation-model/x", true},
		{`"Action":"*","Resource":"arn:aws:bedrock:us-*-1::foundation-model/*"`, "bedrock:InvokeModel", "arn:aws:bedrock:us-east:x-1::foundation-model/y", false},
		{`"Action":"*","Resource":"arn:aws:bedrock:*"`, "bedrock:InvokeModel", model, false}, // refused below
		{`"Action":"*","Resource":"arn:aws:bedrock:*:*:*"`, "bedrock:InvokeModel", model, true},
		{`"Action":"*","NotResource":"arn:aws:bedrock:*::foundation-model/*"`, "bedrock:InvokeModel", model, false},
		{`"Action":"*","NotResource":["arn:aws:bedrock:*::foundation-model/a*"]`, "bedrock:InvokeModel", "arn:aws:bedrock:us-east-1::foundation-model/b", true},
		{`"Action":"*","Resource":"arn:aws:bedrock:*:*:project/${aws:PrincipalTag/Team}-*"`, "bedrock:InvokeModel", "arn:aws:bedrock:us-east-1:111122223333:project/ads-1", true},
		{`"Action":"*","Resource":"arn:aws:bedrock:*:*:project/${aws:PrincipalTag/none}*"`, "bedrock:InvokeModel", "arn:aws:bedrock:us-east-1:111122223333:project/ads-1", false},
	}
	for _, tt := range tests {
		p, err := Parse("p", Identity, []byte(document(`{"Effect":"Allow",`+tt.statement+`}`)))
		if err != nil {
			if tt.want {
				t.Errorf("%s: %v", tt.statement, err)
			}
			continue
		}
		c := session
		c.Tags = map[string]string{"team": "ads"}
		got, err := Evaluate(&Request{Caller: c, Action: tt.action, Resource: tt.resource}, &Policies{Identity: []*Policy{p}})
		if err != nil || (got.Outcome == Allowed) != tt.want {
			t.Errorf("%s on %s of %s: %+v, %v; want %v", tt.statement, tt.action, tt.resource, got, err, tt.want)
		}
	}
}

// NotPrincipal leaves out whom it names in full: the IAM User Guide's page on it.
func TestNotPrincipal(t *testing.T) {
	const account, role, sess, ann = `"arn:aws:iam::111122223333:root"`, `"arn:aws:iam::111122223333:role/team/app"`, `"arn:aws:sts::111122223333:assumed-role/app/one"`, `"arn:aws:iam::111122223333:user/ann"`
	wide := mustParse(t, Identity, document(allowAll))
	for _, tt := range []struct {
		name    string
		caller  Caller
		bounded bool
		named   []string
		want    Outcome // none: it is not guessed
	}{
		{"nobody of its account", session, false, []string{`"arn:aws:iam::444455556666:root"`}, ExplicitDeny},
		{"account, role and session", session, false, []string{account, role, sess}, Allowed},
		{"with a boundary", session, true, []string{account, role, sess}, ExplicitDeny},
		{"account and role", session, false, []string{account, role}, ""},
		{"account alone", session, false, []string{account}, ""},
		{"role alone", session, false, []string{role}, ""},
		{"account and user", user, false, []string{`"111122223333"`, ann}, Allowed},
		{"account alone, a user", user, false, []string{account}, ""},
		{"user alone", user, false, []string{ann}, ""},
		{"another user", user, false, []string{`"arn:aws:iam::111122223333:user/bob"`}, ExplicitDeny},
		{"account, its root user", rootOf, false, []string{account}, Allowed},
		{"everybody", user, false, []string{`"*"`}, Allowed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			endpoint := mustParse(t, Endpoint, document(`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`,
				`{"Effect":"Deny","NotPrincipal":{"AWS":[`+strings.Join(tt.named, ",")+`]},"Action":"*","Resource":"*"}`))
			p := &Policies{Identity: []*Policy{wide}, Endpoint: endpoint}
			if tt.bounded {
				p.Boundary = mustParse(t, Boundary, document(allowAll))
			}
			got, err := Evaluate(&Request{Caller: tt.caller, Action: "bedrock:InvokeModel", Resource: "*"}, p)
			if (err != nil) != (tt.want == "") || got.Outcome != tt.want {
				t.Errorf("%+v, %v; want %q", got, err, tt.want)
			}
		})
	}
	if _, err := Parse("trust", Trust, []byte(document(`{"Effect":"Deny","NotPrincipal":{"AWS":`+account+`},"Action":"sts:AssumeRole"}`))); err == nil {
		t.Error("a trust policy has no NotPrincipal")
	}
}

// In the version of 2008 a variable is what it looks like.
func TestOldVersionHasNoVariables(t *testing.T) {
	text := `{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:key":"${aws:username}"}}}]}`
	p := mustParse(t, Identity, text)
	for value, want := range map[string]Outcome{"ann": ImplicitDeny, "${aws:username}": Allowed} {
		got, err := Evaluate(&Request{Caller: user, Action: "s3:GetObject", Resource: "*", Context: map[string][]string{"aws:key": {value}}}, &Policies{Identity: []*Policy{p}})
		if err != nil || got.Outcome != want {
			t.Errorf("%q: %+v, %v; want %s", value, got, err, want)
		}
	}
}

// What is not known is told, unless it makes no difference.
func TestUndecided(t *testing.T) {
	onTag := mustParse(t, ServiceControl, document(allowAll, `{"Sid":"NoTag","Effect":"Deny","Action":"bedrock:*","Resource":"*","Condition":{"StringNotEquals":{"aws:PrincipalTag/Glass":"broken"},"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/gate"}}}`))
	identity := mustParse(t, Identity, document(allowAll))
	ask := func(c Caller, action string, identity *Policy, unknown ...string) Verdict {
		got, err := Evaluate(&Request{Caller: c, Action: action, Resource: "*", Unknown: unknown}, &Policies{SCPs: [][]*Policy{{onTag}}, Identity: []*Policy{identity}})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := ask(session, "bedrock:InvokeModel", identity, "aws:PrincipalTag/")
	if got.Outcome != Undecided || len(got.Missing) != 1 || got.Missing[0] != "aws:principaltag/glass" {
		t.Errorf("hangs on a tag: %+v", got)
	}
	if got := ask(session, "bedrock:InvokeModel", identity); got.Outcome != ExplicitDeny {
		t.Errorf("known to be absent: %+v", got)
	}
	gate := session
	gate.RoleARN = "arn:aws:iam::111122223333:role/gate"
	if got := ask(gate, "bedrock:InvokeModel", identity, "aws:PrincipalTag/"); got.Outcome != Allowed {
		t.Errorf("the tag makes no difference: %+v", got)
	}
	if got := ask(session, "s3:GetObject", identity, "aws:PrincipalTag/"); got.Outcome != Allowed {
		t.Errorf("another action: %+v", got)
	}
	if got := ask(session, "bedrock:InvokeModel", mustParse(t, Identity, document(denyInvoke)), "aws:PrincipalTag/"); got.Outcome != ExplicitDeny {
		t.Errorf("denied anyway: %+v", got)
	}
}

// What cannot be evaluated is an error, not an answer.
func TestNeverGuess(t *testing.T) {
	for condition, context := range map[string]map[string][]string{
		`"StringEquals":{"aws:TagKeys":"a"}`:              {"aws:TagKeys": {"a", "b"}},
		`"NumericLessThan":{"aws:key":"1"}`:               {"aws:key": {"many"}},
		`"IpAddress":{"aws:key":"10.0.0.0/8"}`:            {"aws:key": {"nowhere"}},
		`"DateLessThan":{"aws:key":"2026-01-01"}`:         {"aws:key": {"soon"}},
		`"NumericLessThan":{"aws:key":"${aws:username}"}`: {"aws:key": {"1"}},
		`"StringEquals":{"aws:key":"${aws:TagKeys}"}`:     {"aws:key": {"a"}, "aws:TagKeys": {"a", "b"}},
	} {
		p := mustParse(t, Identity, document(`{"Effect":"Deny","Action":"*","Resource":"*","Condition":{`+condition+`}}`))
		if got, err := Evaluate(&Request{Caller: user, Action: "s3:GetObject", Resource: "*", Context: context}, &Policies{Identity: []*Policy{p}}); err == nil {
			t.Errorf("%s with %v: %+v, want an error", condition, context, got)
		}
	}
	if _, err := Evaluate(&Request{Caller: user, Action: "s3:*", Resource: "*"}, &Policies{}); err == nil {
		t.Error("a pattern is no action")
	}
}

func TestKeys(t *testing.T) {
	p := mustParse(t, Identity, document(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:username}","Condition":{"StringEquals":{"aws:PrincipalTag/Team":"${aws:RequestTag/Team}"},"Null":{"aws:username":"false"}}}`))
	if got := strings.Join(p.Keys(), " "); got != "aws:principaltag/team aws:requesttag/team aws:username" {
		t.Error(got)
	}
}
