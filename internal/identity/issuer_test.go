package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/waybill-dev/waybill"
)

// testKeys are made once: RSA keys take a while.
var testKeys = sync.OnceValue(func() (k struct {
	rsa, other, weak *rsa.PrivateKey
	ec, ec384        *ecdsa.PrivateKey
	ed               ed25519.PrivateKey
}) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.other, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.weak, err = rsa.GenerateKey(rand.Reader, 1024)
	must(err)
	k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	k.ec384, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	return k
})

type obj = map[string]any

// jwkOf is a public key as issuers publish it.
func jwkOf(kid, alg string, key crypto.PublicKey) obj {
	b64 := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	k := obj{"use": "sig"}
	if kid != "" {
		k["kid"] = kid
	}
	if alg != "" {
		k["alg"] = alg
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		k["kty"], k["n"], k["e"] = "RSA", b64(key.N.Bytes()), b64(big.NewInt(int64(key.E)).Bytes())
	case *ecdsa.PublicKey:
		raw, err := key.Bytes()
		if err != nil {
			panic(err)
		}
		n := len(raw) / 2
		k["kty"], k["crv"], k["x"], k["y"] = "EC", key.Curve.Params().Name, b64(raw[1:1+n]), b64(raw[1+n:])
	case ed25519.PublicKey:
		k["kty"], k["crv"], k["x"] = "OKP", "Ed25519", b64(key)
	}
	return k
}

// A testIssuer is an OIDC provider that a test can make hostile.
type testIssuer struct {
	*httptest.Server
	mu        sync.Mutex // guards what follows
	discovery http.HandlerFunc
	keys      http.HandlerFunc
	fetches   int // of the key set
}

func newTestIssuer(t testing.TB) *testIssuer {
	t.Helper()
	is := &testIssuer{}
	is.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		is.mu.Lock()
		discovery, keys := is.discovery, is.keys
		if r.URL.Path == "/keys" {
			is.fetches++
		}
		is.mu.Unlock()
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			discovery(w, r)
		case "/keys":
			keys(w, r)
		default: // what a token or a redirect says
			t.Errorf("the issuer was asked for %s", r.URL.Path)
		}
	}))
	t.Cleanup(is.Close)
	is.discovery = answer(obj{"issuer": is.URL, "jwks_uri": is.URL + "/keys"})
	k := testKeys()
	is.publish(jwkOf("rsa", "RS256", k.rsa.Public()), jwkOf("ec", "ES256", k.ec.Public()), jwkOf("ed", "EdDSA", k.ed.Public()))
	return is
}

func answer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			panic(err)
		}
	}
}

// publish changes the key set.
func (is *testIssuer) publish(keys ...obj) { is.serve(answer(obj{"keys": keys})) }

func (is *testIssuer) serve(keys http.HandlerFunc) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.keys = keys
}

func (is *testIssuer) fetched() int {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.fetches
}

// claims are those of a good token, changed: a nil value takes one away.
func (is *testIssuer) claims(changes obj) obj {
	now := time.Now().Unix()
	c := obj{"iss": is.URL, "sub": "user-17", "aud": "waybill", "azp": "client-1", "iat": now, "nbf": now, "exp": now + 300, "jti": "token-1"}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// settings are those that take the good token.
func (is *testIssuer) settings() Issuer {
	return Issuer{URL: is.URL, Audiences: []string{"waybill"}, Parties: []string{"client-1"}}
}

// config fetches once, unless a token makes it fetch again.
func (is *testIssuer) config() OIDCConfig {
	return OIDCConfig{Issuers: []Issuer{is.settings()}, Wait: 5 * time.Second, Refresh: time.Hour, AskEvery: time.Hour}
}

// part is base64url of a text, or of the JSON of anything else.
func part(v any) string {
	raw, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		raw = string(b)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(raw))
}

// sign makes a token of a header and claims, which may be texts that are no JSON.
func sign(header, claims any, method jwt.SigningMethod, key any) string {
	signed := part(header) + "." + part(claims)
	sig, err := method.Sign(signed, key)
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// rs256 signs with the issuer's RSA key.
func rs256(header, claims any) string {
	return sign(header, claims, jwt.SigningMethodRS256, testKeys().rsa)
}

func newTestOIDC(t testing.TB, c OIDCConfig) *OIDC {
	t.Helper()
	o, err := NewOIDC(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

// attempts keeps what a chain records.
type attempts struct {
	mu   sync.Mutex // guards list
	list []Attempt
}

func (a *attempts) record(at Attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, at)
}

func (a *attempts) all() []Attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.list
}

// last is the newest record.
func (a *attempts) last() Attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.list) == 0 {
		return Attempt{}
	}
	return a.list[len(a.list)-1]
}

// newTestChain makes a chain that records every refusal one by one.
func newTestChain(t testing.TB, c ChainConfig) (*Chain, *attempts) {
	t.Helper()
	var kept attempts
	if c.Record == nil {
		c.Record = kept.record
	}
	if c.RefusalsPerSecond == 0 {
		c.RefusalsPerSecond = 1 << 20
	}
	chain, err := NewChain(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chain.Close)
	return chain, &kept
}

// addresses makes every request one of its own, so that no two refusals are counted as
// one.
var addresses atomic.Int64

// bring is a request with a bearer token.
func bring(token string) *http.Request {
	r := request("Authorization", "Bearer "+token)
	n := addresses.Add(1)
	r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:4711", n>>16&255, n>>8&255, n&255)
	return r
}

// mustRefuse checks that what came back is the one refusal, to the letter.
func mustRefuse(t testing.TB, p waybill.Principal, err error) {
	t.Helper()
	got := fmt.Sprintf("%#v", p) + outside(err)
	if want := fmt.Sprintf("%#v", waybill.Principal{}) + outside(refused()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// outside is all that the gateway could tell of an error.
func outside(err error) string {
	e, ok := err.(*waybill.Error)
	if !ok {
		return fmt.Sprintf("%T %v", err, err)
	}
	return fmt.Sprintf("%d %s %s %s %v %s", e.Kind, e.Code, e.Message, e.Hint, e.Err, e.Error())
}
