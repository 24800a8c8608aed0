package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// header is a request with some headers: name, value, name, value.
func header(pairs ...string) *http.Request {
	r := request("X-Other", "x")
	r.RemoteAddr = "192.0.2.1:4711"
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
	return r
}

// Of several proofs the first decides, all must hold, and all must be of one caller.
func TestSeveralProofs(t *testing.T) {
	is := newTestIssuer(t)
	o := newTestOIDC(t, is.config())
	keys, err := OpenKeys(filepath.Join(t.TempDir(), "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	key := func(subject string) string {
		token, _, err := keys.Create(Key{Subject: subject, Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "ads"}, waybill.Tag{Key: "tier", Value: "gold"})})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	token := func(subject string) string {
		return rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(obj{"sub": subject}))
	}
	k17, k17b, k18, k19 := key("user-17"), key("user-17"), key("user-18"), key("known-19")
	t17, t18, t19, expired := token("user-17"), token("user-18"), token("sub-19"), rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(obj{"exp": 1}))
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{keys.Method(), o.Method()}, Callers: []Caller{
		{Subject: "person-19", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}), Known: []Known{{"gateway-key", "known-19"}, {is.URL, "sub-19"}}},
	}})
	tests := []struct {
		name           string
		headers        []string
		subject, issue string
		why            Reason
	}{
		{"a key", []string{"Authorization", "Bearer " + k17}, "user-17", "gateway-key", ""},
		{"a token", []string{"Authorization", "Bearer " + t17}, "user-17", is.URL, ""},
		{"a key in x-api-key, a token in Authorization, of one caller", []string{"Authorization", "Bearer " + t19, "X-Api-Key", k19}, "person-19", "waybill", ""},
		{"a token in two headers, as some SDKs send it", []string{"Authorization", "Bearer " + t17, "X-Api-Key", t17}, "user-17", is.URL, ""},
		{"a key in all headers", []string{"Authorization", "Bearer " + k17, "X-Api-Key", k17, "Api-Key", k17}, "user-17", "gateway-key", ""},
		{"two keys of one caller", []string{"Authorization", "Bearer " + k17, "X-Api-Key", k17b}, "user-17", "gateway-key", ""},
		{"two keys of two callers", []string{"Authorization", "Bearer " + k17, "X-Api-Key", k18}, "", "", ReasonDisagree},
		{"two tokens of two callers", []string{"Authorization", "Bearer " + t17, "X-Api-Key", t18}, "", "", ReasonDisagree},
		{"one name under two issuers is two callers", []string{"Authorization", "Bearer " + t17, "X-Api-Key", k17}, "", "", ReasonDisagree},
		{"a good key and a bad token", []string{"Authorization", "Bearer " + expired, "X-Api-Key", k17}, "", "", ReasonExpired},
		{"a good token and a bad key", []string{"Authorization", "Bearer " + t17, "X-Api-Key", k17 + "x"}, "", "", ReasonSecret},
		{"a bad key behind a good one", []string{"Authorization", "Bearer " + k17, "Authorization", "Bearer " + k18 + "x"}, "", "", ReasonSecret},
		{"what stands for a key where a tool insists on one", []string{"Authorization", "Bearer " + t17, "X-Api-Key", "sk-none"}, "user-17", is.URL, ""},
		{"another scheme next to a key", []string{"Authorization", "Basic dXNlcjpwYXNz", "X-Api-Key", k17}, "user-17", "gateway-key", ""},
		{"another scheme", []string{"Authorization", "Basic dXNlcjpwYXNz"}, "", "", ReasonUnrecognized},
		{"a key as Basic", []string{"Authorization", "Basic " + k17}, "", "", ReasonUnrecognized},
		{"a key without a scheme", []string{"Authorization", k17}, "", "", ReasonUnrecognized},
		{"something", []string{"X-Api-Key", "sk-none"}, "", "", ReasonUnrecognized},
		{"blanks", []string{"X-Api-Key", " ", "Authorization", "Bearer  "}, "", "", ReasonUnrecognized},
		{"a key in a header of another name", []string{"X-Waybill-Key", k17}, "", "", ReasonNoProof},
		{"nothing", nil, "", "", ReasonNoProof},
		{"too many", []string{"Authorization", "Bearer a", "Authorization", "Bearer b", "Authorization", "Bearer c", "Authorization", "Bearer d", "X-Api-Key", k17}, "", "", ReasonTooMany},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := chain.Authenticate(header(tt.headers...))
			if tt.why != "" {
				mustRefuse(t, p, err)
				if got := kept.last(); got.Reason != tt.why || got.Outcome != Refused {
					t.Errorf("recorded %+v, want %q", got, tt.why)
				}
				return
			}
			if err != nil || p.Subject != tt.subject || p.Issuer != tt.issue {
				t.Errorf("%+v %v", p, err)
			}
		})
	}
	// One caller has one set of tags, whichever proof came: the caller's own win.
	byKey, err1 := chain.Authenticate(header("X-Api-Key", k19))
	byToken, err2 := chain.Authenticate(header("X-Api-Key", t19))
	if got := byKey.Tags.Canonical() + byToken.Tags.Canonical(); err1 != nil || err2 != nil || got != `{"team":"search","tier":"gold"}{"team":"search"}` {
		t.Error(got, err1, err2)
	}
	for _, bedrock := range []string{"bedrock-api-key-YmVk", "ABSKQmVk"} {
		for _, headers := range [][]string{{"Authorization", "Bearer " + bedrock}, {"X-Api-Key", bedrock}, {"Api-Key", bedrock}, {"Authorization", "Bearer " + k17, "X-Api-Key", bedrock}} {
			p, err := chain.Authenticate(header(headers...))
			if e, ok := err.(*waybill.Error); !ok || e.Code != "WB1002" || p.Subject != "" || kept.last().Reason != ReasonBedrockKey {
				t.Errorf("a Bedrock key in %s: %v, recorded %+v", headers[0], err, kept.last())
			}
		}
	}
	raw, err := json.Marshal(kept.all())
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"a token": t17, "a signature": t17[strings.LastIndex(t17, ".")+1:], "a secret": k17[strings.LastIndex(k17, "_")+1:], "a Bedrock key": "YmVk", "a placeholder": "sk-none", "a password": "dXNlcjpwYXNz"} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("%s is in the audit records", name)
		}
	}
}

// What a method says is the caller's business is passed on; everything else becomes the
// one refusal, errors that nobody thought of as well.
func TestOtherMethods(t *testing.T) {
	var err error
	m := Method{Name: "sigv4", Headers: []string{"x-amz-security-token"}, Claims: func(*http.Request) bool { return true },
		Authenticate: func(*http.Request) (waybill.Principal, error) {
			return waybill.Principal{Subject: "user-17", Issuer: "signing-key", Method: "sigv4", KeyID: "WBK1"}, err
		}}
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{m}})
	told := &waybill.Error{Kind: waybill.Unavailable, Code: "WB1009", Message: "try again"}
	for i, tt := range []struct {
		err  error
		told bool
		why  Reason
	}{
		{errors.New("the database at 192.0.2.7 says: secret"), false, ReasonOther},
		{&waybill.Error{Kind: waybill.Internal, Message: "secret"}, false, ReasonOther},
		{refused(), false, ReasonOther},
		{refuse(ReasonReplayed), false, ReasonReplayed},
		{fmt.Errorf("verify signature: %w", refuse(ReasonClock)), false, ReasonClock},
		{told, true, ReasonOther},
		{fmt.Errorf("ask AWS: %w", told), true, ReasonOther},
	} {
		err = tt.err
		r := header()
		r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", 10+i)
		p, got := chain.Authenticate(r)
		if tt.told {
			if got != error(told) || p.Subject != "" {
				t.Errorf("%v became %v", tt.err, got)
			}
		} else {
			mustRefuse(t, p, got)
		}
		if at := kept.last(); at.Reason != tt.why || at.Method != "sigv4" || at.Subject != "" {
			t.Errorf("recorded %+v", at)
		}
	}
	err = nil
	if p, err := chain.Authenticate(header()); err != nil || p.KeyID != "WBK1" || kept.last().Proof != "WBK1" || kept.last().RemoteAddr != "192.0.2.1" {
		t.Errorf("%+v %v, recorded %+v", p, err, kept.last())
	}
	if diff := cmp.Diff([]string{"Api-Key", "Authorization", "X-Amz-Security-Token", "X-Api-Key"}, chain.Headers()); diff != "" {
		t.Error(diff)
	}
	h := http.Header{"Authorization": {"a"}, "X-Api-Key": {"b"}, "Api-Key": {"c"}, "X-Amz-Security-Token": {"d"}, "Accept": {"e"}}
	if chain.Strip(h); len(h) != 1 || h["Accept"] == nil {
		t.Errorf("left: %v", h)
	}
}

// Mistakes in what a chain is made of are told.
func TestMisconfiguredChain(t *testing.T) {
	m := Method{Name: "key", Claims: func(*http.Request) bool { return false }, Authenticate: func(*http.Request) (waybill.Principal, error) { return waybill.Principal{}, nil }}
	known := []Known{{"gateway-key", "user-17"}}
	for name, c := range map[string]ChainConfig{
		"no method":            {},
		"a method of nothing":  {Methods: []Method{{Name: "x"}}},
		"a caller of no name":  {Methods: []Method{m}, Callers: []Caller{{Known: known}}},
		"a caller of no proof": {Methods: []Method{m}, Callers: []Caller{{Subject: "user-17"}}},
		"one proof, two callers": {Methods: []Method{m}, Callers: []Caller{{Subject: "user-17", Known: known},
			{Subject: "user-18", Known: known}}},
	} {
		if chain, err := NewChain(c); err == nil {
			chain.Close()
			t.Errorf("%s is taken", name)
		}
	}
}

// The list of reasons is closed: every constant is on it, once.
func TestReasons(t *testing.T) {
	list := Reasons()
	slices.Sort(list)
	if len(slices.Compact(list)) != len(Reasons()) {
		t.Error("a reason is there twice")
	}
	source := constants(t, "reason.go", "Reason")
	slices.Sort(source)
	got := Reasons()
	slices.Sort(got)
	if diff := cmp.Diff(source, got); diff != "" {
		t.Error(diff)
	}
}

// What is on the deny list is refused within two seconds, whatever the proof, for
// tokens that were accepted before as well.
func TestDenied(t *testing.T) {
	is := newTestIssuer(t)
	o := newTestOIDC(t, is.config())
	dir := t.TempDir()
	keys, err := OpenKeys(filepath.Join(dir, "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	secret, key, err := keys.Create(Key{Subject: "known-17"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "denied.jsonl")
	write(t, path, "")
	denied, err := OpenDenyList(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	denied.now = func() time.Time { return now }
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{keys.Method(), o.Method()}, Denied: denied,
		Callers: []Caller{{Subject: "person-17", Known: []Known{{is.URL, "user-17"}, {"gateway-key", "known-17"}}}}})
	token := rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(obj{"jti": "j1"}))
	other := rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(obj{"jti": "j2"}))
	good := func() (g [3]bool) {
		now = now.Add(2 * time.Second)
		for i, c := range []string{token, other, secret} {
			_, err := chain.Authenticate(header("X-Api-Key", c))
			if g[i] = err == nil; err != nil && kept.last().Reason != ReasonRevoked {
				t.Errorf("recorded %+v", kept.last())
			}
		}
		return g
	}
	past, future := now.Add(-time.Minute).Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339)
	for _, tt := range []struct {
		line string
		good [3]bool
	}{
		{`# nobody`, [3]bool{true, true, true}},
		{`{"jti":"j1"}`, [3]bool{false, true, true}},
		{`{"jti":"j1","issuer":"` + is.URL + `","note":"leaked"}`, [3]bool{false, true, true}},
		{`{"jti":"j1","issuer":"https://idp.example.com"}`, [3]bool{true, true, true}},
		{`{"jti":"j1","until":"` + past + `"}`, [3]bool{true, true, true}},
		{`{"jti":"j1","until":"` + future + `"}`, [3]bool{false, true, true}},
		{`{"key":"` + key.ID + `"}`, [3]bool{true, true, false}},
		{`{"subject":"user-17"}`, [3]bool{false, false, true}},
		{`{"subject":"user-17","issuer":"` + is.URL + `"}`, [3]bool{false, false, true}},
		{`{"subject":"user-17","issuer":"gateway-key"}`, [3]bool{true, true, true}},
		{`{"subject":"known-17"}`, [3]bool{true, true, false}},
		{`{"subject":"person-17"}`, [3]bool{false, false, false}},
		{"", [3]bool{true, true, true}},
	} {
		write(t, path, tt.line+"\n")
		if got := good(); got != tt.good {
			t.Errorf("%s: %v, want %v", tt.line, got, tt.good)
		}
	}
}

// A deny list that cannot be read leaves the last one in force, and says so.
func TestBrokenDenyList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "denied.jsonl")
	if _, err := OpenDenyList(path); err == nil {
		t.Error("a deny list that is not there denies nobody, and nobody is told")
	}
	write(t, path, `{"subject":"user-17"}`+"\n")
	d, err := OpenDenyList(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	d.now = func() time.Time { return now }
	denies := func() bool {
		now = now.Add(2 * time.Second)
		p := principal{Principal: waybill.Principal{Subject: "user-17", Issuer: "x"}}
		return d.denied(&p)
	}
	if !denies() || d.Err() != nil || d.Len() != 1 {
		t.Fatalf("%v %v", d.Err(), d.Len())
	}
	for _, bad := range []string{`{`, `{}`, `{"note":"x"}`, `{"subject":"a","jti":"b"}`, `{"subjekt":"a"}`, `{"subject":1}`, `[]`, `{"spki":"abc"}`, `{"subject":"a"} {"subject":"b"}`, `{"jti":"a","until":"tomorrow"}`} {
		write(t, path, "# fine\n"+bad+"\n")
		if !denies() || d.Err() == nil || !strings.Contains(d.Err().Error(), "denied.jsonl:2") {
			t.Errorf("%s: %v", bad, d.Err())
		}
		if _, err := OpenDenyList(path); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	remove(t, path)
	if !denies() || d.Err() == nil {
		t.Error("without its file it denies nobody")
	}
	write(t, path, "")
	if denies() || d.Err() != nil {
		t.Error("an empty file is not in force")
	}
	var none *DenyList
	if none.Err() != nil || none.Len() != 0 || none.denied(&principal{}) {
		t.Error("none is not none")
	}
}
