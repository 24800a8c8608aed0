package gateway_test

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A sent request is one as it would have gone to AWS.
type sent struct {
	host, path, body string
	header           http.Header
}

// A catcher answers in the place of AWS, with the same answer to all.
type catcher struct {
	mu     sync.Mutex
	sent   []sent
	answer func(*http.Request) (*http.Response, error)
}

func (c *catcher) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, sent{r.URL.Host, r.URL.EscapedPath(), string(body), r.Header.Clone()})
	if c.answer != nil {
		return c.answer(r)
	}
	return answered(r, 200, `{"usage":{"input_tokens":3,"output_tokens":4}}`), nil
}

func (c *catcher) last(t *testing.T) sent {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sent) == 0 {
		t.Fatal("nothing was sent to AWS")
	}
	return c.sent[len(c.sent)-1]
}

func answered(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}, "X-Amzn-Requestid": {"aws-1"}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

// condition reads a `when` as the configuration has it.
func condition(t *testing.T, text string) policy.Condition {
	t.Helper()
	doc, err := policy.ReadYAML("when.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return policy.ReadCondition(doc.Root())
}

const (
	teamProfile  = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/abcdef123456"
	otherProfile = "arn:aws:bedrock:us-east-1:444455556666:application-inference-profile/zzzzzz123456"
	secondRole   = "arn:aws:iam::111122223333:role/waybill/bedrock-second"
)

// A target chooses Region, role, profile and project by model, tags, endpoint and
// operation, while the caller names the plain model. What a path cannot carry is left
// out, with a reason: no call fails for it.
func TestTargets(t *testing.T) {
	const escaped = "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A111122223333%3Aapplication-inference-profile%2Fabcdef123456"
	chat := func(model string) string {
		return `{"messages":[{"role":"user","content":"hi"}] , "model" : "` + model + `","max_tokens":3}`
	}
	profile := func(f *gateway.Target) { f.Profile = teamProfile }
	project := func(f *gateway.Target) { f.Project = "proj_all" }
	for _, tt := range []struct {
		name, when string
		set        func(*gateway.Target)
		config     func(*gateway.Config)
		host       string
		path, body string
		tags       string
		wantHost   string // of the URL that is called
		wantPath   string
		wantBody   string
		wantHeader map[string]string
		reasons    string
		model      string
	}{
		{name: "profile in the path", when: "{model: amazon.nova-lite-*}", set: profile, path: "/model/" + nova + "/converse", body: hello,
			wantHost: "eu-west-1", wantPath: escaped + "/converse", model: nova},
		{name: "profile in the path of an invoke", when: "{team: search, operation: InvokeModel*}", set: profile, path: "/model/" + nova + "/invoke", body: `{}`,
			wantHost: "eu-west-1", wantPath: escaped + "/invoke", wantBody: "{}", model: nova},
		{name: "another model", when: "{model: other.*}", set: profile, path: "/model/" + nova + "/converse", body: hello, wantHost: "us-east-1", wantPath: "/model/" + nova + "/converse", model: nova},
		{name: "another tag", when: "{environment: staging}", set: profile, path: "/model/" + nova + "/converse", body: hello, tags: "environment=staging", wantHost: "eu-west-1", wantPath: escaped + "/converse", model: nova},
		{name: "profile in the body of Chat Completions", set: profile, path: "/openai/v1/chat/completions", body: chat(nova), wantHost: "eu-west-1", wantPath: "/openai/v1/chat/completions", wantBody: chat(teamProfile), model: nova},
		{name: "no profile on Messages", set: profile, path: "/anthropic/v1/messages", body: chat(nova), wantHost: "us-east-1", wantBody: chat(nova), reasons: "gateway:profile_not_on_path", model: nova},
		{name: "profile on Messages, if it is set", set: profile, config: func(c *gateway.Config) { c.ProfileOnMessages = true },
			path: "/anthropic/v1/messages", body: chat(nova), wantHost: "eu-west-1", wantBody: chat(teamProfile), model: nova},
		{name: "no profile on Responses", set: profile, path: "/openai/v1/responses", body: `{"model":"` + nova + `","input":"hi"}`, wantHost: "us-east-1", wantBody: `{"model":"` + nova + `","input":"hi"}`, reasons: "gateway:profile_not_on_path", model: nova},
		{name: "no profile on mantle", set: profile, path: "/v1/chat/completions", body: chat(nova), wantHost: "us-east-1", wantBody: chat(nova), reasons: "gateway:profile_not_on_path", model: nova},
		{name: "no profile for a model that is not its own", set: profile, config: func(c *gateway.Config) { c.Profiles = map[string]waybill.ModelID{teamProfile: "eu." + claude} },
			path: "/model/" + nova + "/converse", body: hello, wantHost: "us-east-1", wantPath: "/model/" + nova + "/converse", reasons: "gateway:profile_of_other_model", model: nova},
		{name: "no profile of another account", set: func(f *gateway.Target) { f.Profile = otherProfile }, path: "/model/" + nova + "/converse", body: hello, wantHost: "us-east-1", wantPath: "/model/" + nova + "/converse", reasons: "gateway:profile_of_other_account", model: nova},
		{name: "profile by a tag", set: func(f *gateway.Target) { f.By, f.Profiles = "team", map[string]string{"search": teamProfile} },
			path: "/model/" + nova + "/converse", body: hello, wantHost: "eu-west-1", wantPath: escaped + "/converse", model: nova},
		{name: "no profile on what costs nothing", set: profile, path: "/model/" + nova + "/count-tokens", body: `{"input":{}}`, wantHost: "us-east-1", wantPath: "/model/" + nova + "/count-tokens", model: nova},
		{name: "a caller's profile gives way to the target's", set: profile, config: func(c *gateway.Config) {
			c.Profiles = map[string]waybill.ModelID{teamProfile: nova, otherProfile: nova}
		}, path: "/model/" + strings.ReplaceAll(strings.ReplaceAll(otherProfile, ":", "%3A"), "/", "%2F") + "/converse", body: hello, wantHost: "eu-west-1", wantPath: escaped + "/converse", model: nova},
		{name: "project", when: "{endpoint: bedrock-mantle}", set: project, path: "/v1/chat/completions", body: chat("openai.gpt-oss-120b"), wantHost: "us-east-1", wantBody: chat("openai.gpt-oss-120b"),
			wantHeader: map[string]string{"Openai-Project": "proj_all", "Anthropic-Workspace-Id": "", "Anthropic-Workspace": ""}, model: "openai.gpt-oss-120b"},
		{name: "project by a tag", set: func(f *gateway.Target) {
			f.By, f.Project, f.Projects = "team", "proj_all", map[string]string{"search": "proj_search"}
		}, path: "/openai/v1/responses", host: "bedrock-mantle.eu-west-1.example.com", body: `{"model":"m","input":"hi"}`, wantHost: "eu-west-1", wantHeader: map[string]string{"Openai-Project": "proj_search"}, model: "m"},
		{name: "workspace in both spellings", set: project, path: "/anthropic/v1/messages", host: "bedrock-mantle.us-east-1.example.com", body: chat("anthropic.claude-sonnet-5"), wantHost: "us-east-1",
			wantHeader: map[string]string{"Openai-Project": "", "Anthropic-Workspace-Id": "proj_all", "Anthropic-Workspace": "proj_all"}, model: "anthropic.claude-sonnet-5"},
		{name: "workspace in one spelling", set: project, config: func(c *gateway.Config) { c.WorkspaceHeaders = []string{"anthropic-workspace"} },
			path: "/anthropic/v1/messages", host: "bedrock-mantle.us-east-1.example.com", body: chat("anthropic.claude-sonnet-5"), wantHost: "us-east-1",
			wantHeader: map[string]string{"Anthropic-Workspace-Id": "", "Anthropic-Workspace": "proj_all"}, model: "anthropic.claude-sonnet-5"},
		{name: "no project on runtime", set: project, path: "/openai/v1/responses", body: `{"model":"m","input":"hi"}`, wantHost: "us-east-1", wantHeader: map[string]string{"Openai-Project": ""}, reasons: "gateway:project_not_on_path", model: "m"},
		{name: "Region", set: func(f *gateway.Target) { f.Region = "eu-west-1" }, path: "/model/" + nova + "/converse", body: hello, wantHost: "eu-west-1", wantPath: "/model/" + nova + "/converse", model: nova},
	} {
		t.Run(tt.name, func(t *testing.T) {
			aws := new(catcher)
			s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
				target := gateway.Target{}
				if tt.when != "" {
					target.When = condition(t, tt.when)
				}
				tt.set(&target)
				c.Targets = []gateway.Target{target}
				c.Upstream = map[waybill.Endpoint]string{waybill.Runtime: "http://{region}", waybill.Mantle: "http://{region}"}
				if tt.config != nil {
					tt.config(c)
				}
			})
			s.gw.Client = aws
			a, text := s.postTo(t, tt.host, tt.path, tt.body, map[string]string{"X-Waybill-Tags": tt.tags, "OpenAI-Project": "proj_forged", "Anthropic-Workspace": "proj_forged", "anthropic_workspace_id": "proj_forged"})
			if a.StatusCode != 200 {
				t.Fatalf("status %d: %s", a.StatusCode, text)
			}
			got := aws.last(t)
			if got.host != tt.wantHost || tt.wantPath != "" && got.path != tt.wantPath || tt.wantBody != "" && got.body != tt.wantBody {
				t.Errorf("sent to %s%s: %s", got.host, got.path, got.body)
			}
			for _, name := range slices.Sorted(maps.Keys(tt.wantHeader)) {
				if got.header.Get(name) != tt.wantHeader[name] {
					t.Errorf("%s: %q, want %q", name, got.header.Get(name), tt.wantHeader[name])
				}
			}
			for name := range got.header {
				if strings.Contains(strings.Join(got.header[name], ""), "forged") {
					t.Errorf("the caller's own %s got through", name)
				}
			}
			r := s.records(t)[0]
			if strings.Join(r.Reasons, ",") != tt.reasons || r.Model != tt.model || r.Region != tt.wantHost {
				t.Errorf("recorded with reasons %v, model %q, Region %s", r.Reasons, r.Model, r.Region)
			}
		})
	}
}

// A target names a role, whose own condition does not count then.
func TestTargetChoosesRole(t *testing.T) {
	s := newStand(t, func(f *fakeaws.Config, c *gateway.Config) {
		f.Roles = append(f.Roles, fakeaws.Role{ARN: secondRole, Trusted: []string{gatewayUser}})
		c.Roles = append([]gateway.Role{{ARN: secondRole, When: condition(t, "{environment: none}")}}, c.Roles...)
		c.Targets = []gateway.Target{{When: condition(t, "{model: anthropic.*}"), Role: secondRole}}
	})
	s.post(t, "/model/"+nova+"/converse", hello, nil)
	s.post(t, "/model/"+claude+"/converse", hello, nil)
	calls := s.world.Calls()
	if len(calls) != 2 || !strings.Contains(calls[0].PrincipalARN, "/bedrock-prod/") || !strings.Contains(calls[1].PrincipalARN, "/bedrock-second/") {
		t.Errorf("calls %+v", calls)
	}
}

// A profile that nothing knows goes on, is recorded, and is priced once its model is
// known. ARNs of other things stay what they are.
func TestModelBehindARN(t *testing.T) {
	known := catalogue{teamProfile: "us." + claude}
	provisioned := "arn:aws:bedrock:us-east-1:111122223333:provisioned-model/abc123"
	for _, tt := range []struct {
		arn, model string
		scope      waybill.Scope
		profile    string
		reasons    string
	}{
		{teamProfile, claude, waybill.Geo, teamProfile, ""},
		{otherProfile, "zzzzzz123456", waybill.Plain, otherProfile, "gateway:profile_unknown"},
		{provisioned, nova, waybill.Plain, "", ""},
		{"arn:aws:bedrock:us-east-1:111122223333:inference-profile/global." + claude, claude, waybill.Global, "", ""},
		{"arn:aws:bedrock:us-east-1:111122223333:imported-model/abcdefg", "abcdefg", waybill.Plain, "", ""},
		{"arn:aws:bedrock:us-east-1:111122223333:prompt/ABCDEFGHIJ:3", "ABCDEFGHIJ:3", waybill.Plain, "", ""},
		{"arn:aws:bedrock:us-east-1:111122223333:custom-model-deployment/qwerty", "qwerty", waybill.Plain, "", ""},
	} {
		s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) { c.Profiles = map[string]waybill.ModelID{provisioned: nova} })
		s.gw.Client, s.gw.Catalogue = new(catcher), known
		if a, text := s.post(t, "/model/"+strings.ReplaceAll(strings.ReplaceAll(tt.arn, ":", "%3A"), "/", "%2F")+"/invoke", `{}`, nil); a.StatusCode != 200 {
			t.Fatalf("%s: %d %s", tt.arn, a.StatusCode, text)
		}
		r := s.records(t)[0]
		if string(r.ModelID) != tt.arn || r.Model != tt.model || r.Scope != tt.scope || r.Profile != tt.profile || strings.Join(r.Reasons, ",") != tt.reasons {
			t.Errorf("%s is recorded as %q %s, profile %q, reasons %v", r.ModelID, r.Model, r.Scope, r.Profile, r.Reasons)
		}
	}
}

// A catalogue that knows what it is made of.
type catalogue map[string]waybill.ModelID

func (c catalogue) Model(arn string) (waybill.ModelID, bool) {
	id, ok := c[arn]
	return id, ok
}

// Conditions on the model, and keys that are held to models, know the model behind a
// profile that the caller names.
func TestConditionsKnowTheModelBehindAProfile(t *testing.T) {
	s := newStand(t, func(f *fakeaws.Config, c *gateway.Config) {
		f.Roles = append(f.Roles, fakeaws.Role{ARN: secondRole, Trusted: []string{gatewayUser}})
		c.Roles = append([]gateway.Role{{ARN: secondRole, When: condition(t, "{model: anthropic.*}")}}, c.Roles...)
	})
	s.gw.Client, s.gw.Catalogue = new(catcher), catalogue{teamProfile: "us." + claude}
	keys, ok := s.gw.Callers.(*identity.Keys)
	if !ok {
		t.Fatalf("callers are %T", s.gw.Callers)
	}
	for pattern, status := range map[string]int{"anthropic.*": 200, "amazon.*": 403} {
		token, _, err := keys.Create(identity.Key{Subject: "user-17", Models: []string{pattern}, Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})})
		if err != nil {
			t.Fatal(err)
		}
		s.token = token
		a, text := s.post(t, "/model/"+strings.ReplaceAll(strings.ReplaceAll(teamProfile, ":", "%3A"), "/", "%2F")+"/invoke", `{}`, nil)
		if a.StatusCode != status {
			t.Errorf("a key for %s: %d %s", pattern, a.StatusCode, text)
		}
	}
	for _, r := range s.records(t) {
		if r.Outcome == waybill.Completed && !strings.Contains(r.PrincipalARN, "/bedrock-second/") {
			t.Errorf("the call was made as %s", r.PrincipalARN)
		}
	}
}

// The policy's own rules and applications know the model behind what a caller names that
// does not name it: a profile, provisioned throughput, a model of one's own. modelId stays
// what the caller names.
func TestThePolicyKnowsTheModelBehind(t *testing.T) {
	const (
		text = `
session: {name: '{user}'}
tags:
  keys:
    team:   {required: true, values: [search, ads], carriers: [session, request]}
    user:   {from: caller.subject, carriers: [session]}
    vendor: {carriers: [request]}
    own:    {carriers: [request]}
    ticket: {carriers: [request]}
  rules:
    - {name: claude names its ticket, when: {model: anthropic.claude-*}, require: [ticket]}
applications:
  - {name: nova, when: {model: amazon.nova-*}, tags: {vendor: amazon}}
  - {name: own, when: {modelId: 'arn:*:provisioned-model/*'}, tags: {own: 'yes'}}
`
		us          = "arn:aws:bedrock:us-east-1:111122223333:"
		provisioned = us + "provisioned-model/abc123"
		deployment  = us + "custom-model-deployment/qwerty"
		imported    = us + "imported-model/abcdefg"
	)
	for _, tt := range []struct {
		id     string
		status int
		tags   map[string]string // beside team and user
	}{
		{nova, 200, map[string]string{"vendor": "amazon"}},
		{claude, 403, nil},
		{teamProfile, 403, nil},
		{otherProfile, 200, nil}, // nobody knows its model
		{provisioned, 200, map[string]string{"vendor": "amazon", "own": "yes"}},
		{deployment, 403, nil},
		{imported, 200, nil},
	} {
		s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
			p, err := policy.Parse("policy.yaml", []byte(text), policy.Options{})
			if err != nil {
				t.Fatal(err)
			}
			c.Policy, c.Profiles = p, map[string]waybill.ModelID{provisioned: nova, deployment: claude}
		})
		s.gw.Client, s.gw.Catalogue = new(catcher), catalogue{teamProfile: "us." + claude}
		if a, text := s.post(t, "/model/"+strings.NewReplacer(":", "%3A", "/", "%2F").Replace(tt.id)+"/invoke", `{}`, nil); a.StatusCode != tt.status {
			t.Errorf("%s: %d %s", tt.id, a.StatusCode, text)
		}
		r := s.records(t)[0]
		if string(r.ModelID) != tt.id {
			t.Errorf("%s is recorded as %s", tt.id, r.ModelID)
		}
		got := maps.Collect(r.Tags.All())
		delete(got, "team")
		delete(got, "user")
		if tt.status == 200 && !maps.Equal(got, tt.tags) {
			t.Errorf("%s has the tags %v, want %v", tt.id, got, tt.tags)
		}
	}
}
