package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/waybill-dev/waybill"
)

// benchToken is of the size that Entra ID's are: about 1.5 KB.
func benchToken(is *testIssuer, method jwt.SigningMethod, kid string, key any) string {
	return sign(obj{"alg": method.Alg(), "kid": kid, "typ": "JWT"}, is.claims(obj{"groups": strings.Split(strings.Repeat("0fb6b1a5-2a6c-4b1e-9d6a-3f1f9f7f0a55 ", 15), " ")[:15], "department": "search",
		"name": "user-17", "roles": []string{"a", "b"}, "tid": "0fb6b1a5-2a6c-4b1e-9d6a-3f1f9f7f0a55", "ver": "2.0"}), method, key)
}

func benchOIDC(b *testing.B, is *testIssuer) (*OIDC, *Chain) {
	b.Helper()
	c := is.config()
	c.Issuers[0].Claims = map[string]string{"groups": "groups", "department": "department"}
	c.Issuers[0].Tags = map[string]string{"team": "department"}
	o := newTestOIDC(b, c)
	chain, err := NewChain(ChainConfig{Methods: []Method{o.Method()}, Record: func(Attempt) {}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(chain.Close)
	return o, chain
}

func BenchmarkTokenWarm(b *testing.B) {
	is := newTestIssuer(b)
	_, chain := benchOIDC(b, is)
	r := bring(benchToken(is, jwt.SigningMethodRS256, "rsa", testKeys().rsa))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chain.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTokenWarmParallel(b *testing.B) {
	is := newTestIssuer(b)
	_, chain := benchOIDC(b, is)
	token := benchToken(is, jwt.SigningMethodRS256, "rsa", testKeys().rsa)
	b.RunParallel(func(pb *testing.PB) {
		for r := bring(token); pb.Next(); {
			if _, err := chain.Authenticate(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTokenCold(b *testing.B) {
	k := testKeys()
	for _, bb := range []struct {
		method jwt.SigningMethod
		kid    string
		key    any
	}{{jwt.SigningMethodRS256, "rsa", k.rsa}, {jwt.SigningMethodES256, "ec", k.ec}, {jwt.SigningMethodEdDSA, "ed", k.ed}} {
		b.Run(bb.method.Alg(), func(b *testing.B) {
			is := newTestIssuer(b)
			o, chain := benchOIDC(b, is)
			r := bring(benchToken(is, bb.method, bb.kid, bb.key))
			b.ReportAllocs()
			for b.Loop() {
				o.cache.Purge()
				if _, err := chain.Authenticate(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a stranger can make us do with a token whose signature does not hold.
func BenchmarkTokenForged(b *testing.B) {
	is := newTestIssuer(b)
	_, chain := benchOIDC(b, is)
	r := bring(benchToken(is, jwt.SigningMethodRS256, "rsa", testKeys().other))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chain.Authenticate(r); err == nil {
			b.Fatal("accepted")
		}
	}
}

func BenchmarkKey(b *testing.B) {
	keys, err := OpenKeys(filepath.Join(b.TempDir(), "keys.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	set := *keys.set.Load()
	var token string
	for i := range 10_000 {
		t, k, err := NewKey(Key{Subject: fmt.Sprint("user-", i), Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})}, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		set.byID[k.ID], token = &k, t
	}
	keys.set.Store(&set)
	chain, err := NewChain(ChainConfig{Methods: []Method{keys.Method()}, Record: func(Attempt) {}})
	if err != nil {
		b.Fatal(err)
	}
	r := request("X-Api-Key", token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chain.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCertificate(b *testing.B) {
	root := newAuthority(b, "root", nil)
	cert, _ := issue(b, &x509.Certificate{URIs: []*url.URL{uri(b, "spiffe://example.com/ns/prod/sa/checkout")}}, root)
	m, err := NewCertificates([]CertificateRule{{DNS: "*.svc.example.com"}, {URI: "spiffe://example.com/ns/*/sa/*", Tags: map[string]string{"team": "{1}"}}})
	if err != nil {
		b.Fatal(err)
	}
	r := withCert([]*x509.Certificate{cert, root.cert})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
}
