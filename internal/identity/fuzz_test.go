package identity

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever stands in Authorization, nobody is let in by it, and the answer is the one
// refusal.
func FuzzToken(f *testing.F) {
	is := newTestIssuer(f)
	good, list := hostileTokens(is)
	keys, err := OpenKeys(filepath.Join(f.TempDir(), "keys.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	secret, _, err := keys.Create(Key{Subject: "user-17"})
	if err != nil {
		f.Fatal(err)
	}
	for _, h := range list {
		f.Add("Bearer " + h.token)
	}
	for _, s := range []string{good, secret} { // cut and changed, not whole
		for _, seed := range []string{s[:len(s)-1], s + "A", "." + s, s + ".", s + "\x00", strings.ToUpper(s), s + "." + s, s[1:]} {
			f.Add("Bearer " + seed)
		}
	}
	f.Add("")
	f.Add("Bearer")
	f.Add("Basic " + good)
	f.Add("AWS4-HMAC-SHA256 Credential=x")
	o := newTestOIDC(f, is.config())
	chain, _ := newTestChain(f, ChainConfig{Methods: []Method{keys.Method(), o.Method()}, RefusalsPerSecond: 1})
	if _, err := chain.Authenticate(bring(good)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		r := header()
		r.Header["Authorization"] = []string{value}
		p, err := chain.Authenticate(r)
		if scheme, token, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") && slices.Contains([]string{good, secret}, strings.TrimSpace(token)) {
			return
		}
		if strings.Contains(value, "bedrock-api-key-") || strings.Contains(value, "ABSK") {
			if err == nil {
				t.Error("a Bedrock key is accepted")
			}
			return
		}
		mustRefuse(t, p, err)
	})
}

// Of claims that the issuer has signed, those that are accepted mean the same to a
// reader of another make: no two readers see two callers.
func FuzzSignedClaims(f *testing.F) {
	is := newTestIssuer(f)
	o := newTestOIDC(f, is.config())
	m := o.Method()
	now := time.Now().Unix()
	// The issuer's address differs each time; the fuzzer need not guess it.
	text := func(c obj) string { return strings.ReplaceAll(jsonOf(c), is.URL, "ISSUER") }
	f.Add(text(is.claims(nil)))
	f.Add(strings.Replace(text(is.claims(nil)), `"sub"`, `"\u0073ub"`, 1))
	f.Add(`{"sub":"admin",` + text(is.claims(nil))[1:])
	f.Add(text(is.claims(obj{"aud": []string{"waybill"}, "realm_access": obj{"roles": []any{"a", 1, nil, true}}})))
	f.Add(fmt.Sprintf(`{"iss":"ISSUER","sub":"a","aud":"waybill","azp":"client-1","exp":%d.5e0}`, now+60))
	f.Fuzz(func(t *testing.T, claims string) {
		claims = strings.ReplaceAll(claims, "ISSUER", is.URL)
		p, err := m.Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, claims)))
		if err != nil {
			return
		}
		var other map[string]any
		if err := json.Unmarshal([]byte(claims), &other); err != nil {
			t.Fatalf("accepted and not JSON to another: %v", err)
		}
		exp, _ := other["exp"].(float64)
		if other["sub"] != p.Subject || other["iss"] != p.Issuer || other["azp"] != "client-1" || exp < float64(now-60) {
			t.Errorf("%+v of %v", p, other)
		}
	})
}
