package signin

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

func TestReadProfiles(t *testing.T) {
	got, err := ReadProfiles("p.yaml", []byte(`
profiles:
  people:
    issuer: https://login.example.com/realm
    clientId: 010
    scopes: [openid, offline_access]
    params: {audience: aws}
    role: arn:aws:iam::111122223333:role/people
    region: eu-west-1
    sessionName: '{email}'
    life: 12h
    tags: [team, costCenter]
    store: keyring
  gateway:
    broker: https://gateway.example.com
    keyEnv: WAYBILL_KEY
    ask: {feature: x}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Profile{
		"people": {Issuer: "https://login.example.com/realm", ClientID: "010", Scopes: []string{"openid", "offline_access"}, Params: map[string]string{"audience": "aws"},
			Role: "arn:aws:iam::111122223333:role/people", Region: "eu-west-1", SessionName: "{email}", Life: Duration(12 * time.Hour), Tags: []string{"team", "costCenter"}, Store: "keyring"},
		"gateway": {Broker: "https://gateway.example.com", KeyEnv: "WAYBILL_KEY", Ask: map[string]string{"feature": "x"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, p := range got {
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if empty, err := ReadProfiles("p.yaml", nil); err != nil || len(empty) != 0 {
		t.Errorf("an empty file: %v, %v", empty, err)
	}
	for text, said := range map[string]string{
		"profiles:\n  a: {isuer: x}":            "isuer",
		"profiles:\n  a: {life: soon}":          "soon",
		"profile: {}":                           "profile",
		"profiles: [a]":                         "line 1",
		"profiles:\n  a: {role: x}\n  a: {}":    "a",
		"profiles:\n  a: {port: many}":          "many",
		"profiles:\n  a: {clientSecret: hello}": "clientSecret",
	} {
		if _, err := ReadProfiles("p.yaml", []byte(text)); waybill.KindOf(err) != waybill.Misused || !strings.Contains(err.Error(), said) || !strings.Contains(err.Error(), "p.yaml") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCheckProfile(t *testing.T) {
	good := Profile{Issuer: "https://login.example.com", ClientID: "c", Role: "arn:aws:iam::111122223333:role/people", Region: "us-east-1"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Profile){
		"no issuer":        func(p *Profile) { p.Issuer = "" },
		"no client":        func(p *Profile) { p.ClientID = "" },
		"no role":          func(p *Profile) { p.Role = "" },
		"not a role":       func(p *Profile) { p.Role = "arn:aws:iam::111122223333:user/x" },
		"no Region":        func(p *Profile) { p.Region = "" },
		"both":             func(p *Profile) { p.Broker = "https://gateway.example.com" },
		"broker, nobody":   func(p *Profile) { *p = Profile{Broker: "https://gateway.example.com"} },
		"short":            func(p *Profile) { p.Life = Duration(time.Minute) },
		"long":             func(p *Profile) { p.Life = Duration(13 * time.Hour) },
		"port":             func(p *Profile) { p.Port = 70000 },
		"store":            func(p *Profile) { p.Store = "cloud" },
		"plain http":       func(p *Profile) { p.Issuer = "http://login.example.com" },
		"a user in a URL":  func(p *Profile) { p.Issuer = "https://me@login.example.com" },
		"plain broker":     func(p *Profile) { p.Role = ""; p.Broker = "http://gateway.example.com" },
		"plain STS":        func(p *Profile) { p.STSEndpoint = "http://sts.example.com" },
		"almost this host": func(p *Profile) { p.Issuer = "http://127.0.0.1.example.com" },
		"no URL":           func(p *Profile) { p.Issuer = "login.example.com" },
	} {
		p := good
		change(&p)
		told, ok := errors.AsType[*waybill.Error](p.Check())
		if !ok || told.Kind != waybill.Misused || told.Hint == "" {
			t.Errorf("%s: %v", name, told)
		}
	}
	for _, local := range []string{"http://127.0.0.1:8080", "http://[::1]:8080/x", "http://localhost:1"} {
		p := good
		p.Issuer = local
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", local, err)
		}
	}
	other := good
	other.Role += "x"
	device := good
	device.Device, device.Port, device.Store = true, 8400, "keyring"
	if good.key() == other.key() || good.key() != device.key() {
		t.Error("another role is the same sign-in, or another way to it is not")
	}
}

// A flag goes over the file, setting by setting.
func TestWith(t *testing.T) {
	base := Profile{Issuer: "i", ClientID: "c", ClientSecretEnv: "s", Scopes: []string{"a"}, Params: map[string]string{"a": "b"}, Port: 1, Role: "r", Region: "e", SessionName: "n",
		Life: 1, Tags: []string{"t"}, STSEndpoint: "u", KeyEnv: "k", Ask: map[string]string{"x": "y"}, Store: "file"}
	if d := cmp.Diff(base, base.With(Profile{})); d != "" {
		t.Error(d)
	}
	over := Profile{Issuer: "i2", ClientID: "c2", ClientSecretEnv: "s2", Scopes: []string{"a2"}, Params: map[string]string{"a": "b2"}, Port: 2, Device: true, Role: "r2", Region: "e2", SessionName: "n2",
		Life: 2, Tags: []string{"t2"}, STSEndpoint: "u2", KeyEnv: "k2", Ask: map[string]string{"x": "y2"}, Store: "keyring"}
	if d := cmp.Diff(over, base.With(over)); d != "" {
		t.Error(d)
	}
	if p := base.With(Profile{Broker: "b"}); p.Broker != "b" || p.Role != "" {
		t.Errorf("%+v", p)
	}
}

// A secret that the profile names and nobody has set is not taken to be empty.
func TestSecretsAreSet(t *testing.T) {
	store, err := NewStore(filepath.Join(t.TempDir(), "cache"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Profile{{Broker: "https://gateway.example.com", KeyEnv: "NOT_SET"},
		{Issuer: "https://login.example.com", ClientID: "c", ClientSecretEnv: "NOT_SET", Role: "arn:aws:iam::111122223333:role/people", Region: "us-east-1"}} {
		s := &SignIn{Profile: p, Store: store}
		if _, err := s.Credentials(t.Context()); waybill.KindOf(err) != waybill.Misused || !strings.Contains(err.Error(), "NOT_SET") {
			t.Error(err)
		}
	}
}

func claimsFrom(t *testing.T, text string) map[string]json.RawMessage {
	t.Helper()
	var c map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReadTags(t *testing.T) {
	const nested, flat = `"https://aws.amazon.com/tags":`, `"https://aws.amazon.com/tags/principal_tags/`
	for text, want := range map[string]map[string]string{
		`{}`: {},
		`{` + nested + `{"principal_tags":{"team":["search"],"costCenter":"010"},"transitive_tag_keys":["team"]}}`:           {"team": "search", "costCenter": "010"},
		`{` + flat + `team":"search",` + flat + `feature":["x"],"https://aws.amazon.com/tags/transitive_tag_keys":["team"]}`: {"team": "search", "feature": "x"},
		`{` + nested + `{"principal_tags":{"team":["search"]}},` + flat + `feature":""}`:                                     {"team": "search", "feature": ""},
	} {
		got, err := readTags(claimsFrom(t, text))
		if d := cmp.Diff(want, got.tags); err != nil || d != "" {
			t.Errorf("%s: %v %s", text, err, d)
		}
	}
	long := strings.Repeat("x", 300)
	for text, said := range map[string]string{
		`{` + nested + `"team"}`:                                                        "not an object",
		`{` + nested + `{"principal_tags":{"team":["a","b"]}}}`:                         "one value",
		`{` + nested + `{"principal_tags":{"team":7}}}`:                                 "one value",
		`{` + nested + `{"principal_tags":{"team":["a"]}},` + flat + `team":"b"}`:       "twice",
		`{` + flat + `team":"a",` + flat + `Team":"b"}`:                                 "case alone",
		`{` + flat + `aws:x":"a"}`:                                                      "aws:",
		`{` + flat + `":"a"}`:                                                           "1 to 128",
		`{` + flat + `team":"a,b"}`:                                                     "256",
		`{` + flat + `team":"` + long + `"}`:                                            "256",
		`{"https://aws.amazon.com/tags/transitive_tag_keys":["team"]}`:                  "no such tag",
		`{"https://aws.amazon.com/tags/transitive_tag_keys":"team"}`:                    "not a list",
		`{` + nested + `{"principal_tags":{"team":["a"]},"transitive_tag_keys":"team"}`: "not an object",
	} {
		if strings.Count(text, "{") > strings.Count(text, "}") {
			text += "}"
		}
		if _, err := readTags(claimsFrom(t, text)); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v, want %q", text, err, said)
		}
	}
	many := make(map[string]json.RawMessage)
	for i := range 51 {
		many[tagsClaim+"/principal_tags/key"+string(rune('a'+i%26))+string(rune('a'+i/26))] = json.RawMessage(`"x"`)
	}
	if _, err := readTags(many); err == nil || !strings.Contains(err.Error(), "51 tags") {
		t.Error(err)
	}
}

func TestSessionName(t *testing.T) {
	claims := claimsFrom(t, `{"sub":"auth0|5f7c","email":"user-17@example.com","n":7,"long":"`+strings.Repeat("x", 100)+`","one":"x","empty":"","umlaut":"ü"}`)
	for template, want := range map[string]string{
		"": "auth0-5f7c", "{sub}": "auth0-5f7c", "{email}": "user-17@example.com", "desk-{sub}/x": "desk-auth0-5f7c-x", "{long}": strings.Repeat("x", 64), "{one}": "x-", "{umlaut}": "--", "plain": "plain",
	} {
		if got, err := sessionName(template, claims); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", template, got, err, want)
		}
	}
	for _, bad := range []string{"{sub", "{nobody}", "{n}", "{empty}"} {
		if got, err := sessionName(bad, claims); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{"a\x1b[31mb\nc": "a [31mb c", " x ": "x", "\u202ex": "x", "é": "é"} {
		if got := clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := clean(strings.Repeat("é", 500)); len([]rune(got)) != 203 {
		t.Errorf("%d characters", len([]rune(got)))
	}
}
