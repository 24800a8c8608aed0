package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// What issuers really send is good: their algorithms, types, lists and clocks.
func TestGoodTokens(t *testing.T) {
	is := newTestIssuer(t)
	k := testKeys()
	is.publish(jwkOf("rsa", "RS256", k.rsa.Public()), jwkOf("rsa", "PS256", k.other.Public()), jwkOf("any", "", k.rsa.Public()), jwkOf("ec", "ES256", k.ec.Public()),
		jwkOf("ec384", "", k.ec384.Public()), jwkOf("ed", "EdDSA", k.ed.Public()),
		obj{"kty": "oct", "kid": "s", "k": "AAAA"}, obj{"kty": "future"}, obj{"kty": 1}) // left out
	o := newTestOIDC(t, is.config())
	chain, _ := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
	now := time.Now().Unix()
	h := obj{"alg": "RS256", "kid": "rsa"}
	tests := map[string]string{
		"RS256":                            rs256(h, is.claims(nil)),
		"PS256 under the same id":          sign(obj{"alg": "PS256", "kid": "rsa"}, is.claims(nil), jwt.SigningMethodPS256, k.other),
		"RS512 with a key for anything":    sign(obj{"alg": "RS512", "kid": "any"}, is.claims(nil), jwt.SigningMethodRS512, k.rsa),
		"ES256":                            sign(obj{"alg": "ES256", "kid": "ec"}, is.claims(nil), jwt.SigningMethodES256, k.ec),
		"ES384":                            sign(obj{"alg": "ES384", "kid": "ec384"}, is.claims(nil), jwt.SigningMethodES384, k.ec384),
		"EdDSA":                            sign(obj{"alg": "EdDSA", "kid": "ed"}, is.claims(nil), jwt.SigningMethodEdDSA, k.ed),
		"without kid, one key for it":      sign(obj{"alg": "EdDSA"}, is.claims(nil), jwt.SigningMethodEdDSA, k.ed),
		"typ JWT":                          rs256(obj{"alg": "RS256", "kid": "rsa", "typ": "JWT"}, is.claims(nil)),
		"typ of RFC 9068":                  rs256(obj{"alg": "RS256", "kid": "rsa", "typ": "at+jwt"}, is.claims(nil)),
		"typ in full":                      rs256(obj{"alg": "RS256", "kid": "rsa", "typ": "application/at+JWT"}, is.claims(nil)),
		"b64 true":                         rs256(obj{"alg": "RS256", "kid": "rsa", "b64": true}, is.claims(nil)),
		"several audiences":                rs256(h, is.claims(obj{"aud": []string{"other", "waybill"}})),
		"a clock that is behind":           rs256(h, is.claims(obj{"exp": now - 55})),
		"a clock that is ahead":            rs256(h, is.claims(obj{"nbf": now + 55, "iat": now + 55})),
		"parts of seconds":                 rs256(h, is.claims(obj{"exp": float64(now) + 100.5})),
		"a time with an exponent":          rs256(h, is.claims(obj{"exp": json.RawMessage(fmt.Sprintf("%d.0e1", (now+600)/10))})),
		"without iat, nbf, jti":            rs256(h, is.claims(obj{"iat": nil, "nbf": nil, "jti": nil})),
		"names that differ in capitals":    rs256(h, is.claims(obj{"SUB": "admin", "Sub": "admin", "EXP": 1, "Iss": "x"})),
		"five levels":                      rs256(h, is.claims(obj{"authorization": obj{"permissions": []obj{{"scopes": []string{"a"}}}}})),
		"as large as it may be":            padded(is, h, maxTokenBytes),
		"a solidus and an escape in claim": rs256(h, `{"https:\/\/example.com\/x":"\u00e4",`+strings.TrimPrefix(jsonOf(is.claims(nil)), "{")),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // cold and warm
				p, err := chain.Authenticate(bring(token))
				if err != nil || p.Subject != "user-17" || p.Issuer != is.URL || p.Method != "oidc" {
					t.Errorf("%+v %v", p, err)
				}
			}
		})
	}
	for _, name := range []string{"X-Api-Key", "Api-Key"} {
		if _, err := chain.Authenticate(request(name, tests["ES256"])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p, err := chain.Authenticate(bring(padded(is, h, maxTokenBytes+1))); err == nil {
		t.Errorf("one byte over the limit: %v", p)
	}
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// padded is a good token of a length.
func padded(is *testIssuer, h obj, n int) string {
	// Base64 has no text of every length, so the header has to help.
	for more := range 4 {
		header, c := obj{"alg": h["alg"], "kid": h["kid"], "x": strings.Repeat("x", more)}, is.claims(obj{"pad": ""})
		base := len(rs256(header, c))
		for size := (n-base)*3/4 - 4; size <= (n-base)*3/4+4; size++ {
			c["pad"] = strings.Repeat("x", size)
			if token := rs256(header, c); len(token) == n {
				return token
			}
		}
	}
	panic("no token has that length")
}

// What a token says becomes the principal, and what lists and odd values become is
// fixed, so that one caller always looks the same to the policy.
func TestClaimMapping(t *testing.T) {
	claims := obj{
		"sub": "user-17", "email": "user-17@example.com", "groups": []string{"search", "ads", "search"}, "realm_access": obj{"roles": []string{"b", "a"}},
		"kubernetes.io":             obj{"namespace": "prod", "serviceaccount": obj{"name": "checkout"}},
		"https://example.com/roles": []string{"admin"}, "cognito:groups": []string{"team,x", "team"}, "level": 3, "flag": true, "null": json.RawMessage("null"),
		"object": obj{"a": 1}, "mixed": []any{"a", obj{}}, "empty": []string{}, "blank": "", "a.b": "dotted", "a": obj{"b": "nested"}, "a/b": "solidus",
	}
	tests := map[string]string{
		"email": "user-17@example.com", "groups": "ads,search", "realm_access.roles": "a,b", "realm_access/roles": "a,b", "kubernetes.io/namespace": "prod",
		"kubernetes.io/serviceaccount/name": "checkout", "https://example.com/roles": "admin", "/https:~1~1example.com~1roles": "admin", "cognito:groups": "team,team%2Cx",
		"level": "3", "flag": "true", "null": "", "object": "", "mixed": "", "empty": "", "blank": "", "none": "", "none.at.all": "", "email.x": "", "groups.0": "",
		"a.b": "nested", "/a.b": "dotted", "/a/b": "nested", "a/b": "nested", "/a~1b": "solidus",
	}
	m, err := readObject([]byte(jsonOf(claims)))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range tests {
		path, err := parseClaimPath(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := path.text(m); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", "a..b", "/", "a//b", "/a/", "//"} {
		if p, err := parseClaimPath(text); err == nil {
			t.Errorf("%q names a claim: %q", text, p)
		}
	}

	is := newTestIssuer(t)
	c := is.config()
	c.Issuers[0].Subject = "email"
	c.Issuers[0].Claims = map[string]string{"groups": "groups", "roles": "realm_access.roles", "none": "none"}
	c.Issuers[0].Tags = map[string]string{"team": "/kubernetes.io/serviceaccount/name", "none": "none"}
	c.Issuers[0].Require = map[string][]string{"groups": {"se*"}, "flag": {"true"}, "level": nil}
	o := newTestOIDC(t, c)
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
	good := is.claims(claims)
	got, err := chain.Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, good)))
	want := waybill.Principal{Subject: "user-17@example.com", Issuer: is.URL, Method: "oidc", Claims: map[string]string{"groups": "ads,search", "roles": "a,b"},
		Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "checkout"})}
	if diff := cmp.Diff(want, got, cmp.Comparer(waybill.Tags.Equal)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, tt := range []struct {
		change obj
		want   Reason
	}{
		{obj{"email_verified": true}, ""},
		{obj{"email_verified": "true"}, ""},
		{obj{"email_verified": false}, ReasonSubject},
		{obj{"email_verified": json.RawMessage("null")}, ReasonSubject},
		{obj{"email": nil}, ReasonSubject},
		{obj{"groups": "search"}, ""},
		{obj{"groups": []string{"ads"}}, ReasonClaim},
		{obj{"groups": nil}, ReasonClaim},
		{obj{"groups": "xse"}, ReasonClaim},
		{obj{"flag": false}, ReasonClaim},
		{obj{"level": nil}, ReasonClaim},
		{obj{"level": json.RawMessage("null")}, ReasonClaim},
		{obj{"groups": []string{"search", "a\nb"}}, ReasonClaim},
		{obj{"kubernetes.io": obj{"serviceaccount": obj{"name": "x\x1b[2J"}}}, ReasonClaim},
	} {
		changed := obj{}
		for n, v := range good {
			changed[n] = v
		}
		for n, v := range tt.change {
			if changed[n] = v; v == nil {
				delete(changed, n)
			}
		}
		r := bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, changed))
		_, err := chain.Authenticate(r)
		if (err == nil) != (tt.want == "") || err != nil && kept.last().Reason != tt.want {
			t.Errorf("%v: %v, recorded %+v", tt.change, err, kept.last())
		}
	}
	// Of a caller who is refused by what the issuer has signed, the record has the name.
	if at := kept.last(); at.Subject != "user-17@example.com" || at.Issuer != is.URL {
		t.Errorf("recorded %+v", at)
	}
}

// Each setting that narrows what is accepted does so on its own.
func TestIssuerSettings(t *testing.T) {
	is := newTestIssuer(t)
	now := time.Now().Unix()
	h := obj{"alg": "RS256", "kid": "rsa"}
	tests := []struct {
		name   string
		change func(*Issuer)
		claims obj
		want   Reason
	}{
		{"as it is", func(*Issuer) {}, nil, ""},
		{"any party", func(i *Issuer) { i.Parties = nil }, obj{"azp": "somebody"}, ""},
		{"party in another claim", func(i *Issuer) { i.PartyClaim = "cid" }, obj{"cid": "client-1", "azp": nil}, ""},
		{"party in the wrong claim", func(i *Issuer) { i.PartyClaim = "cid" }, nil, ReasonParty},
		{"audience in another claim", func(i *Issuer) { i.AudienceClaim = "client_id" }, obj{"aud": nil, "client_id": "waybill"}, ""},
		{"audience in the wrong claim", func(i *Issuer) { i.AudienceClaim = "client_id" }, nil, ReasonAudience},
		{"one algorithm", func(i *Issuer) { i.Algorithms = []string{"ES256"} }, nil, ReasonAlgorithm},
		{"little skew", func(i *Issuer) { i.Skew = time.Second }, obj{"exp": now - 5}, ReasonExpired},
		{"much skew", func(i *Issuer) { i.Skew = 5 * time.Minute }, obj{"exp": now - 200}, ""},
		{"little skew, future", func(i *Issuer) { i.Skew = time.Second }, obj{"nbf": now + 10}, ReasonNotYet},
		{"short life", func(i *Issuer) { i.MaxLife = time.Minute }, nil, ReasonLife},
		{"long life", func(i *Issuer) { i.MaxLife = 400 * 24 * time.Hour }, obj{"exp": now + 365*86400}, ""},
		{"keys without discovery", func(i *Issuer) { i.Keys = is.URL + "/keys" }, nil, ""},
		{"discovery elsewhere", func(i *Issuer) { i.Discovery = is.URL + "/.well-known/openid-configuration" }, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := is.config()
			tt.change(&c.Issuers[0])
			o := newTestOIDC(t, c)
			chain, kept := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
			_, err := chain.Authenticate(bring(rs256(h, is.claims(tt.claims))))
			if (err == nil) != (tt.want == "") || err != nil && kept.last().Reason != tt.want {
				t.Errorf("%v, recorded %+v", err, kept.last())
			}
		})
	}
}

// Mistakes in the settings are told, each with the issuer.
func TestMisconfiguredIssuers(t *testing.T) {
	good := Issuer{URL: "https://idp.example.com", Audiences: []string{"waybill"}}
	for name, change := range map[string]func(*Issuer){
		"no URL":               func(i *Issuer) { i.URL = "" },
		"http":                 func(i *Issuer) { i.URL = "http://idp.example.com" },
		"a query":              func(i *Issuer) { i.URL += "?a=b" },
		"a fragment":           func(i *Issuer) { i.URL += "#a" },
		"a password":           func(i *Issuer) { i.URL = "https://user:secret@idp.example.com" },
		"no audience":          func(i *Issuer) { i.Audiences = nil },
		"an empty audience":    func(i *Issuer) { i.Audiences = []string{""} },
		"an empty party":       func(i *Issuer) { i.Parties = []string{""} },
		"alg none":             func(i *Issuer) { i.Algorithms = []string{"RS256", "none"} },
		"alg HS256":            func(i *Issuer) { i.Algorithms = []string{"HS256"} },
		"much skew":            func(i *Issuer) { i.Skew = time.Hour },
		"skew below zero":      func(i *Issuer) { i.Skew = -1 },
		"a subject of nothing": func(i *Issuer) { i.Subject = "a..b" },
		"a claim of nothing":   func(i *Issuer) { i.Claims = map[string]string{"a": ""} },
		"a tag of nothing":     func(i *Issuer) { i.Tags = map[string]string{"a": "."} },
		"keys over http":       func(i *Issuer) { i.Keys = "http://idp.example.com/keys" },
		"discovery over http":  func(i *Issuer) { i.Discovery = "http://idp.example.com/d" },
		"no such CA":           func(i *Issuer) { i.CAFile = "testdata/none.pem" },
	} {
		bad := good
		change(&bad)
		o, err := NewOIDC(OIDCConfig{Issuers: []Issuer{bad}})
		if waybill.KindOf(err) != waybill.Misused || !strings.Contains(err.Error(), "OIDC issuer") || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			o.Close()
		}
	}
	if _, err := NewOIDC(OIDCConfig{Issuers: []Issuer{good, good}}); err == nil {
		t.Error("an issuer may be there twice")
	}
	if _, err := NewOIDC(OIDCConfig{}); err == nil {
		t.Error("no issuer is needed")
	}
}

// A network is an issuer without sockets, for tests whose time is not real.
type network struct {
	mu    sync.Mutex // guards what follows
	keys  []obj
	down  bool
	calls int
}

const netIssuer = "https://idp.example.com"

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.URL.Path == "/keys" || n.down {
		n.calls++
	}
	if n.down {
		return nil, errors.New("connection refused")
	}
	var doc any = obj{"issuer": netIssuer, "jwks_uri": netIssuer + "/keys"}
	if r.URL.Path == "/keys" {
		doc = obj{"keys": n.keys}
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(jsonOf(doc))), Request: r}, nil
}

func (n *network) set(down bool, keys ...obj) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down, n.keys = down, keys
}

func (n *network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

// token is good for an hour.
func (n *network) token(kid, jti string) string {
	now := time.Now().Unix()
	key := testKeys().rsa
	if kid == "other" {
		key = testKeys().other
	}
	return sign(obj{"alg": "RS256", "kid": kid}, obj{"iss": netIssuer, "sub": "user-17", "aud": "waybill", "exp": now + 3600, "jti": jti}, jwt.SigningMethodRS256, key)
}

func (n *network) config() OIDCConfig {
	return OIDCConfig{Issuers: []Issuer{{URL: netIssuer, Audiences: []string{"waybill"}, MaxLife: 100 * time.Hour}}, Transport: n}
}

// The gateway starts while the issuer is down, says so, and takes its tokens as soon as
// it is back. When it goes away again its keys stay good for a day, and no longer.
func TestIssuerIsDown(t *testing.T) {
	testKeys()
	synctest.Test(t, func(t *testing.T) {
		n := &network{down: true}
		o := newTestOIDC(t, n.config())
		defer o.Close()
		chain, kept := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
		synctest.Wait()
		if err := o.Ready(); err == nil || !strings.Contains(err.Error(), netIssuer) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("ready: %v", err)
		}
		if _, err := chain.Authenticate(bring(n.token("rsa", "1"))); err == nil || kept.last().Reason != ReasonKeySet {
			t.Errorf("%v, recorded %+v", err, kept.last())
		}
		n.set(false, jwkOf("rsa", "RS256", testKeys().rsa.Public()))
		time.Sleep(21 * time.Second)
		if err := o.Ready(); err != nil {
			t.Errorf("21 seconds after the issuer is back: %v", err)
		}
		if _, err := chain.Authenticate(bring(n.token("rsa", "2"))); err != nil {
			t.Error(err)
		}
		n.set(true)
		time.Sleep(23 * time.Hour)
		token := n.token("rsa", "3")
		if _, err := chain.Authenticate(bring(token)); err != nil {
			t.Errorf("in the outage: %v", err)
		}
		status := o.Status()[0]
		if status.URL != netIssuer || status.Keys != 1 || status.Failures == 0 || status.Err == nil || status.Fetched.IsZero() {
			t.Errorf("status %+v", status)
		}
		if before := n.count(); true {
			time.Sleep(time.Hour)
			if n := n.count() - before; n > 60 {
				t.Errorf("an issuer that is down was asked %d times an hour", n)
			}
		}
		time.Sleep(20 * time.Minute)
		for _, token := range []string{token, n.token("rsa", "4")} {
			if _, err := chain.Authenticate(bring(token)); err == nil || kept.last().Reason != ReasonKeySet {
				t.Errorf("after a day without the issuer: %v, recorded %+v", err, kept.last())
			}
		}
		if o.Ready() == nil || o.Status()[0].Keys != 0 {
			t.Error("ready with keys that are too old")
		}
	})
}

// A new key is fetched when a token names it; one that the issuer has withdrawn is no
// longer good, for tokens that were verified before as well. Strangers with made-up ids
// cannot make the gateway fetch more than once in a while, and while they try, a new
// key waits for that while at most.
func TestKeysRotate(t *testing.T) {
	k := testKeys()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.set(false, jwkOf("rsa", "RS256", k.rsa.Public()))
		o := newTestOIDC(t, n.config())
		defer o.Close()
		m := o.Method()
		good := func(token string) bool {
			_, err := m.Authenticate(bring(token))
			return err == nil
		}
		old := n.token("rsa", "1")
		if !good(old) {
			t.Fatal("a good token is refused")
		}
		n.set(false, jwkOf("rsa", "RS256", k.rsa.Public()), jwkOf("other", "RS256", k.other.Public()))
		if !good(n.token("other", "2")) {
			t.Error("a new key is not known")
		}
		if !good(old) {
			t.Error("the old key ended before the issuer withdrew it")
		}
		n.set(false, jwkOf("other", "RS256", k.other.Public()))
		time.Sleep(11 * time.Second)
		if !good(old) {
			t.Error("the key was withdrawn, which nobody has seen, and is not good")
		}
		good(n.token("made-up", "3")) // has the keys fetched
		if good(old) {
			t.Error("a token is remembered whose key is known to be withdrawn")
		}
		n.set(false, jwkOf("other", "RS256", k.other.Public()), jwkOf("rsa", "RS256", k.rsa.Public()))
		time.Sleep(16 * time.Minute) // the timer
		if !good(old) {
			t.Error("a key that came back is not good")
		}
		n.set(false, jwkOf("other", "RS256", k.other.Public()))
		time.Sleep(16 * time.Minute)
		if good(old) || good(n.token("rsa", "3")) {
			t.Error("a withdrawn key is good")
		}
		if !good(n.token("other", "4")) {
			t.Error("the issuer's key is not good")
		}

		time.Sleep(time.Minute)
		before := n.count()
		for i := range 1000 {
			if good(n.token(fmt.Sprint("made-up-", i), "5")) {
				t.Fatal("accepted")
			}
		}
		if n := n.count() - before; n > 1 {
			t.Errorf("1,000 made-up ids caused %d fetches", n)
		}
		n.set(false, jwkOf("rsa", "RS256", k.rsa.Public()))
		fresh := n.token("rsa", "6")
		start := time.Now()
		for !good(fresh) {
			good(n.token("made-up", "7"))
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(start); took > 11*time.Second {
			t.Errorf("under a flood a new key waited %v", took)
		}
		before = n.count()
		time.Sleep(time.Hour)
		if n := n.count() - before; n < 4 || n > 5 {
			t.Errorf("the timer fetched %d times in an hour", n)
		}
	})
}

// A verified token is remembered, for no longer than it is good, and not for long.
func TestTokensAreRemembered(t *testing.T) {
	testKeys()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.set(false, jwkOf("rsa", "RS256", testKeys().rsa.Public()))
		c := n.config()
		c.MaxCached = 10
		o := newTestOIDC(t, c)
		defer o.Close()
		token := n.token("rsa", "1")
		verify := func(token string) (*verified, error) { return o.verify(t.Context(), token) }
		first, err := verify(token)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := verify(token); again != first || err != nil {
			t.Errorf("verified twice: %v", err)
		}
		time.Sleep(5*time.Minute + time.Second)
		second, err := verify(token)
		if second == first || err != nil {
			t.Errorf("remembered for more than five minutes: %v", err)
		}
		time.Sleep(54*time.Minute + 55*time.Second)
		third, err := verify(token)
		if err != nil {
			t.Errorf("within the skew: %v", err)
		}
		if again, err := verify(token); again != third || err != nil {
			t.Errorf("verified twice: %v", err)
		}
		time.Sleep(time.Minute + 5*time.Second)
		if _, err := verify(token); err == nil {
			t.Error("a remembered token is good after its time")
		}
		for i := range 30 {
			if _, err := verify(n.token("rsa", fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		if o.cache.Len() != 10 {
			t.Errorf("%d tokens are remembered", o.cache.Len())
		}
		other := n.token("rsa", "x")
		if _, err := verify(other[:len(other)-4] + "AAAA"); err == nil || o.cache.Len() != 10 {
			t.Error("a refused token is remembered")
		}
	})
}

// A token that is bound to a client certificate is good on a connection with that
// certificate only, cold and warm.
func TestBoundToken(t *testing.T) {
	is := newTestIssuer(t)
	o := newTestOIDC(t, is.config())
	m := o.Method()
	cert := &x509.Certificate{Raw: []byte("certificate")}
	sum := sha256.Sum256(cert.Raw)
	token := rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(obj{"cnf": obj{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}}))
	for range 2 {
		for _, tt := range []struct {
			tls  *tls.ConnectionState
			good bool
		}{
			{nil, false}, {&tls.ConnectionState{}, false}, {&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("other")}}}, false},
			{&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, true},
		} {
			r := bring(token)
			r.TLS = tt.tls
			if _, err := m.Authenticate(r); (err == nil) != tt.good {
				t.Errorf("%+v: %v", tt.tls, err)
			}
		}
	}
}

// An issuer whose certificate the system does not know is reached by its own authority,
// with a token that goes nowhere else, as the API server of a cluster wants it.
func TestClusterIssuer(t *testing.T) {
	dir := t.TempDir()
	seen := make(chan string, 10)
	server := newTLSServer(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization")
		answer(obj{"keys": []obj{jwkOf("rsa", "RS256", testKeys().rsa.Public())}})(w, r)
	})
	ca, tokenFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ca, server.ca)
	write(tokenFile, []byte("cluster-token\n"))
	settings := Issuer{URL: "https://kubernetes.default.svc.cluster.local", Keys: server.URL + "/openid/v1/jwks", Audiences: []string{"waybill"}, CAFile: ca, TokenFile: tokenFile}
	o := newTestOIDC(t, OIDCConfig{Issuers: []Issuer{settings}, Wait: 5 * time.Second})
	token := rs256(obj{"alg": "RS256", "kid": "rsa"}, obj{"iss": settings.URL, "sub": "system:serviceaccount:prod:checkout", "aud": []string{"waybill"}, "exp": time.Now().Unix() + 600})
	if p, err := o.Method().Authenticate(bring(token)); err != nil || p.Subject != "system:serviceaccount:prod:checkout" {
		t.Fatalf("%+v %v, %v", p, err, o.Ready())
	}
	if got := <-seen; got != "Bearer cluster-token" {
		t.Errorf("sent %q", got)
	}
	settings.CAFile = ""
	distrusts := newTestOIDC(t, OIDCConfig{Issuers: []Issuer{settings}, Wait: 5 * time.Second})
	if _, err := distrusts.Method().Authenticate(bring(token)); err == nil {
		t.Error("keys are taken from a server that nobody vouches for")
	}
	write(ca, bytes.Repeat([]byte("x"), 100))
	settings.CAFile = ca
	if _, err := NewOIDC(OIDCConfig{Issuers: []Issuer{settings}}); err == nil {
		t.Error("a CA file without a certificate is taken")
	}
}

// The token for an issuer's keys is not sent to where its discovery document points.
func TestClusterTokenStaysHome(t *testing.T) {
	elsewhere := make(chan string, 1)
	other := newTestIssuer(t)
	other.serve(func(w http.ResponseWriter, r *http.Request) {
		elsewhere <- r.Header.Get("Authorization")
		answer(obj{"keys": []obj{jwkOf("rsa", "RS256", testKeys().rsa.Public())}})(w, r)
	})
	is := newTestIssuer(t)
	is.discovery = answer(obj{"issuer": is.URL, "jwks_uri": other.URL + "/keys"})
	c := is.config()
	c.Issuers[0].TokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(c.Issuers[0].TokenFile, []byte("cluster-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := newTestOIDC(t, c)
	if _, err := o.Method().Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(nil)))); err != nil {
		t.Fatal(err, o.Ready())
	}
	if got := <-elsewhere; got != "" {
		t.Errorf("sent %q", got)
	}
}

// Closing ends fetching, one that hangs as well.
func TestClose(t *testing.T) {
	is := newTestIssuer(t)
	hangs := make(chan context.Context, 1)
	is.keys = func(_ http.ResponseWriter, r *http.Request) {
		hangs <- r.Context()
		<-r.Context().Done()
	}
	c := is.config()
	c.Timeout = time.Hour
	o, err := NewOIDC(c)
	if err != nil {
		t.Fatal(err)
	}
	asked := <-hangs
	o.Close()
	<-asked.Done()
}
