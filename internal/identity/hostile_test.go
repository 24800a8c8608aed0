package identity

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

// A hostile token is one that must be refused, and why.
type hostileToken struct {
	name  string
	token string
	why   Reason
}

// hostileTokens are forged against an issuer that publishes two RSA keys and an EC key.
// The first, which is good, shows that the others are refused for what is wrong
// with them.
func hostileTokens(is *testIssuer) (good string, list []hostileToken) {
	k := testKeys()
	is.publish(jwkOf("rsa", "RS256", k.rsa.Public()), jwkOf("ec", "ES256", k.ec.Public()), jwkOf("any", "", k.other.Public()))
	h := obj{"alg": "RS256", "kid": "rsa", "typ": "JWT"}
	head := func(changes obj) obj {
		c := obj{}
		for name, v := range h {
			c[name] = v
		}
		for name, v := range changes {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}
		return c
	}
	claims := is.claims
	good = rs256(h, claims(nil))
	goodParts := strings.Split(good, ".")
	add := func(why Reason, name, token string) {
		list = append(list, hostileToken{name, token, why})
	}
	now := time.Now().Unix()

	// No signature, and signatures that anybody can make.
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "none ", "\u0000none", "", "null"} {
		add(ReasonAlgorithm, fmt.Sprintf("alg %q without a signature", alg), part(head(obj{"alg": alg}))+"."+part(claims(nil))+".")
		add(ReasonAlgorithm, fmt.Sprintf("alg %q with a signature", alg), rs256(head(obj{"alg": alg}), claims(nil)))
	}
	add(ReasonAlgorithm, "alg null", rs256(`{"alg":null,"kid":"rsa"}`, claims(nil)))
	add(ReasonAlgorithm, "alg missing", rs256(head(obj{"alg": nil}), claims(nil)))
	add(ReasonAlgorithm, "alg a number", rs256(head(obj{"alg": 256}), claims(nil)))
	add(ReasonAlgorithm, "alg a list", rs256(head(obj{"alg": []string{"RS256"}}), claims(nil)))
	add(ReasonAlgorithm, "alg in small letters", rs256(head(obj{"alg": "rs256"}), claims(nil)))
	add(ReasonAlgorithm, "alg that is an encryption", rs256(head(obj{"alg": "RSA-OAEP"}), claims(nil)))
	der, _ := x509.MarshalPKIXPublicKey(k.rsa.Public())
	pkcs1 := x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)
	jwk, _ := json.Marshal(jwkOf("rsa", "RS256", k.rsa.Public()))
	pemText := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for name, secret := range map[string][]byte{"PEM": pemText, "PEM without its last line break": []byte(strings.TrimSpace(string(pemText))), "PKCS #1 PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"DER": der, "PKCS #1 DER": pkcs1, "JWK": jwk, "modulus": k.rsa.N.Bytes(), "nothing": {}} {
		for alg, method := range map[string]jwt.SigningMethod{"HS256": jwt.SigningMethodHS256, "HS512": jwt.SigningMethodHS512} {
			add(ReasonAlgorithm, alg+" with the public key as secret: "+name, sign(head(obj{"alg": alg}), claims(nil), method, secret))
		}
		add(ReasonSignature, "HS256 called RS256, with the public key as secret: "+name, sign(h, claims(nil), jwt.SigningMethodHS256, secret))
	}
	add(ReasonSignature, "signed by somebody else", sign(h, claims(nil), jwt.SigningMethodRS256, k.other))
	add(ReasonSignature, "signed for other claims", goodParts[0]+"."+part(claims(obj{"sub": "admin"}))+"."+goodParts[2])
	add(ReasonSignature, "signed for another header", part(head(obj{"x": 1}))+"."+goodParts[1]+"."+goodParts[2])
	add(ReasonSignature, "no signature", goodParts[0]+"."+goodParts[1]+".")
	add(ReasonSignature, "half a signature", goodParts[0]+"."+goodParts[1]+"."+goodParts[2][:len(goodParts[2])/2&^3])
	add(ReasonSignature, "a signature and more", goodParts[0]+"."+goodParts[1]+"."+goodParts[2][:340]+"AAAA")
	add(ReasonSignature, "ES256 of zeros", part(obj{"alg": "ES256", "kid": "ec"})+"."+part(claims(nil))+"."+base64.RawURLEncoding.EncodeToString(make([]byte, 64)))
	add(ReasonSignature, "ES256 as ASN.1", part(obj{"alg": "ES256", "kid": "ec"})+"."+part(claims(nil))+"."+base64.RawURLEncoding.EncodeToString(append([]byte{0x30, 0x44, 2, 0x20}, make([]byte, 66)...)))
	add(ReasonKeyID, "RS256 called RS512, of a key for RS256", rs256(head(obj{"alg": "RS512"}), claims(nil)))
	add(ReasonSignature, "RS256 called RS512, of a key for anything", sign(obj{"alg": "RS512", "kid": "any"}, claims(nil), jwt.SigningMethodRS256, k.other))

	// Keys that are not the issuer's, or not for that.
	add(ReasonKeyID, "unknown kid", rs256(head(obj{"kid": "rsa2"}), claims(nil)))
	add(ReasonKeyID, "no kid, and several keys to try", rs256(obj{"alg": "RS256"}, claims(nil)))
	add(ReasonKeyID, "empty kid", rs256(head(obj{"kid": ""}), claims(nil)))
	add(ReasonKeyID, "kid a number", rs256(head(obj{"kid": 1}), claims(nil)))
	add(ReasonKeyID, "kid null", rs256(`{"alg":"RS256","kid":null}`, claims(nil)))
	add(ReasonKeyID, "long kid", rs256(head(obj{"kid": strings.Repeat("r", 5000)}), claims(nil)))
	add(ReasonKeyID, "kid that is a path", rs256(head(obj{"kid": "../../../../dev/null"}), claims(nil)))
	add(ReasonKeyID, "kid that is SQL", rs256(head(obj{"kid": "x' UNION SELECT 'rsa"}), claims(nil)))
	add(ReasonKeyID, "kid in other letters", rs256(head(obj{"kid": "RSA"}), claims(nil)))
	add(ReasonKeyID, "an EC signature under the kid of the RSA key", sign(head(obj{"alg": "ES256"}), claims(nil), jwt.SigningMethodES256, k.ec))
	add(ReasonKeyID, "PS256 with a key for RS256", sign(head(obj{"alg": "PS256"}), claims(nil), jwt.SigningMethodPS256, k.rsa))
	add(ReasonKeyID, "ES384 with a key for ES256", sign(obj{"alg": "ES384", "kid": "ec"}, claims(nil), jwt.SigningMethodES384, k.ec384))
	other, _ := json.Marshal(jwkOf("rsa", "RS256", k.other.Public()))
	add(ReasonSignature, "brings its own key in jwk", sign(head(obj{"jwk": json.RawMessage(other)}), claims(nil), jwt.SigningMethodRS256, k.other))
	add(ReasonSignature, "says where its key is in jku", sign(head(obj{"jku": is.URL + "/evil"}), claims(nil), jwt.SigningMethodRS256, k.other))
	add(ReasonSignature, "says where its key is in x5u", sign(head(obj{"x5u": is.URL + "/evil", "x5c": []string{"AAAA"}}), claims(nil), jwt.SigningMethodRS256, k.other))

	// Headers that change what a token means.
	add(ReasonCritical, "crit", rs256(head(obj{"crit": []string{"exp"}, "exp": 1}), claims(nil)))
	add(ReasonCritical, "crit with nothing in it", rs256(head(obj{"crit": []string{}}), claims(nil)))
	add(ReasonCritical, "crit null", rs256(head(obj{"crit": json.RawMessage("null")}), claims(nil)))
	add(ReasonCritical, "b64 false", rs256(head(obj{"b64": false}), claims(nil)))
	add(ReasonCritical, "b64 false and critical", rs256(head(obj{"b64": false, "crit": []string{"b64"}}), claims(nil)))
	add(ReasonCritical, "compressed", rs256(head(obj{"zip": "DEF"}), claims(nil)))
	add(ReasonType, "logout token", rs256(head(obj{"typ": "logout+jwt"}), claims(nil)))
	add(ReasonType, "DPoP proof", rs256(head(obj{"typ": "dpop+jwt"}), claims(nil)))
	add(ReasonType, "security event", rs256(head(obj{"typ": "secevent+jwt"}), claims(nil)))
	add(ReasonType, "typ a list", rs256(head(obj{"typ": []string{"JWT"}}), claims(nil)))
	add(ReasonType, "a token in a token", rs256(head(obj{"cty": "JWT"}), good))

	// Encrypted, and other forms of signed objects.
	add(ReasonEncrypted, "JWE", part(obj{"alg": "RSA-OAEP", "enc": "A256GCM"})+".AAAA.AAAA.AAAA.AAAA")
	add(ReasonEncrypted, "JWE header on three parts", rs256(head(obj{"enc": "A256GCM"}), claims(nil)))
	add(ReasonUnrecognized, "JWS in JSON with one signature", `{"payload":"`+goodParts[1]+`","protected":"`+goodParts[0]+`","signature":"`+goodParts[2]+`"}`)
	add(ReasonUnrecognized, "JWS in JSON with two signatures", `{"payload":"`+goodParts[1]+`","signatures":[{"protected":"`+goodParts[0]+`","signature":"`+goodParts[2]+`"},{"protected":"`+goodParts[0]+`","signature":"AAAA"}]}`)
	add(ReasonMalformed, "two signatures", good+"."+goodParts[2])
	add(ReasonMalformed, "two tokens", good+"."+good)
	add(ReasonMalformed, "two tokens with a comma", good+","+good)
	add(ReasonMalformed, "two tokens with a blank", good+" "+good)
	add(ReasonMalformed, "cut before the signature", goodParts[0]+"."+goodParts[1])
	add(ReasonUnrecognized, "header only", goodParts[0])
	add(ReasonUnrecognized, "dots only", "..")
	add(ReasonUnrecognized, "header missing", "."+goodParts[1]+"."+goodParts[2])
	add(ReasonMalformed, "claims missing", goodParts[0]+".."+goodParts[2])
	add(ReasonMalformed, "dot at the end", good+".")
	add(ReasonUnrecognized, "dot in front", "."+good)
	add(ReasonMalformed, "many dots", goodParts[0]+strings.Repeat(".", 1000))
	add(ReasonMalformed, "cut in the claims", goodParts[0]+"."+goodParts[1][:21]+"."+goodParts[2])
	add(ReasonMalformed, "base64 with padding", goodParts[0]+"."+goodParts[1]+"."+goodParts[2]+"==")
	add(ReasonMalformed, "base64 of the other alphabet", goodParts[0]+"."+goodParts[1]+"."+strings.Repeat("+/", 171))
	add(ReasonMalformed, "line breaks in base64", goodParts[0]+"."+goodParts[1]+"."+goodParts[2][:100]+"\n"+goodParts[2][100:])
	add(ReasonMalformed, "bits left over in base64", goodParts[0]+"."+goodParts[1]+"."+flipLast(goodParts[2]))

	// JSON that two readers read in two ways, or that takes long to read.
	text := func(claims obj) string { b, _ := json.Marshal(claims); return string(b) }
	body := text(claims(nil))
	add(ReasonMalformed, "sub twice", rs256(h, `{"sub":"admin",`+body[1:]))
	add(ReasonMalformed, "sub twice, once escaped", rs256(h, `{"\u0073ub":"admin",`+body[1:]))
	add(ReasonMalformed, "exp twice", rs256(h, body[:len(body)-1]+`,"exp":99999999999}`))
	add(ReasonMalformed, "aud twice", rs256(h, body[:len(body)-1]+`,"aud":"other"}`))
	add(ReasonMalformed, "alg twice", rs256(`{"alg":"none","alg":"RS256","kid":"rsa"}`, claims(nil)))
	add(ReasonMalformed, "kid twice", rs256(`{"alg":"RS256","kid":"rsa","kid":"ec"}`, claims(nil)))
	add(ReasonMalformed, "a nested member twice", rs256(h, body[:len(body)-1]+`,"realm_access":{"roles":["a"],"roles":["admin"]}}`))
	add(ReasonMalformed, "something after the claims", rs256(h, body+`{"sub":"admin"}`))
	add(ReasonMalformed, "something after the header", rs256(`{"alg":"RS256","kid":"rsa"} x`, claims(nil)))
	add(ReasonMalformed, "claims a list", rs256(h, `[`+body+`]`))
	add(ReasonMalformed, "claims a text", rs256(h, `"sub"`))
	add(ReasonMalformed, "claims null", rs256(h, `null`))
	add(ReasonMalformed, "claims empty", rs256(h, ``))
	add(ReasonMalformed, "claims that are not UTF-8", rs256(h, strings.Replace(body, "user-17", "user-\xff17", 1)))
	add(ReasonMalformed, "half a surrogate", rs256(h, strings.Replace(body, "user-17", `user-\ud800`, 1)))
	add(ReasonMalformed, "a comment", rs256(h, `{/*x*/`+body[1:]))
	add(ReasonMalformed, "NaN", rs256(h, body[:len(body)-1]+`,"x":NaN}`))
	add(ReasonMalformed, "lists in lists", rs256(h, body[:len(body)-1]+`,"x":`+strings.Repeat("[", 4000)+strings.Repeat("]", 4000)+`}`))
	add(ReasonMalformed, "objects in objects", rs256(h, body[:len(body)-1]+`,"x":`+strings.Repeat(`{"x":`, 1000)+`1`+strings.Repeat("}", 1000)+`}`))
	add(ReasonTooLarge, "huge", rs256(h, claims(obj{"x": strings.Repeat("x", 20_000)})))
	add(ReasonTooLarge, "a megabyte of dots and letters", "eyJ."+strings.Repeat("a.", 500_000))

	// Signed by the issuer, and not for us, not now, not by whom it may be.
	add(ReasonIssuer, "issuer with a solidus", rs256(h, claims(obj{"iss": is.URL + "/"})))
	add(ReasonIssuer, "issuer in capitals", rs256(h, claims(obj{"iss": strings.ToUpper(is.URL)})))
	add(ReasonIssuer, "issuer with a blank", rs256(h, claims(obj{"iss": is.URL + " "})))
	add(ReasonIssuer, "issuer https", rs256(h, claims(obj{"iss": strings.Replace(is.URL, "http:", "https:", 1)})))
	add(ReasonIssuer, "another issuer", rs256(h, claims(obj{"iss": "https://idp.example.com"})))
	add(ReasonIssuer, "no issuer", rs256(h, claims(obj{"iss": nil})))
	add(ReasonIssuer, "issuer a list", rs256(h, claims(obj{"iss": []string{is.URL}})))
	add(ReasonAudience, "another audience", rs256(h, claims(obj{"aud": "other"})))
	add(ReasonAudience, "audience with a solidus", rs256(h, claims(obj{"aud": "waybill/"})))
	add(ReasonAudience, "audience in capitals", rs256(h, claims(obj{"aud": "Waybill"})))
	add(ReasonAudience, "audiences without ours", rs256(h, claims(obj{"aud": []string{"a", "b"}})))
	add(ReasonAudience, "audiences in one text", rs256(h, claims(obj{"aud": "other waybill"})))
	add(ReasonAudience, "no audience", rs256(h, claims(obj{"aud": nil})))
	add(ReasonAudience, "audience null", rs256(h, claims(obj{"aud": json.RawMessage("null")})))
	add(ReasonAudience, "audience empty", rs256(h, claims(obj{"aud": []string{}})))
	add(ReasonAudience, "audience an object", rs256(h, claims(obj{"aud": obj{"waybill": true}})))
	add(ReasonAudience, "audiences with a number", rs256(h, claims(obj{"aud": []any{"waybill", 1}})))
	add(ReasonParty, "another party", rs256(h, claims(obj{"azp": "client-2"})))
	add(ReasonParty, "no party", rs256(h, claims(obj{"azp": nil})))
	add(ReasonParty, "parties", rs256(h, claims(obj{"azp": []string{"client-1"}})))
	add(ReasonExpired, "expired", rs256(h, claims(obj{"exp": now - 61})))
	add(ReasonExpired, "expired in 1970", rs256(h, claims(obj{"exp": 0})))
	add(ReasonNoExpiry, "no exp", rs256(h, claims(obj{"exp": nil})))
	add(ReasonMalformed, "exp null", rs256(h, claims(obj{"exp": json.RawMessage("null")})))
	add(ReasonMalformed, "exp a text", rs256(h, claims(obj{"exp": fmt.Sprint(now + 300)})))
	add(ReasonMalformed, "exp below zero", rs256(h, claims(obj{"exp": -1})))
	add(ReasonMalformed, "exp beyond all times", rs256(h, claims(obj{"exp": math.MaxInt64})))
	add(ReasonMalformed, "exp infinite", rs256(h, claims(obj{"exp": json.RawMessage("1e999")})))
	add(ReasonMalformed, "exp an object", rs256(h, claims(obj{"exp": obj{}})))
	add(ReasonLife, "exp in a year", rs256(h, claims(obj{"exp": now + 365*86400})))
	add(ReasonNotYet, "nbf in the future", rs256(h, claims(obj{"nbf": now + 90})))
	add(ReasonNotYet, "iat in the future", rs256(h, claims(obj{"iat": now + 90})))
	add(ReasonMalformed, "iat a text", rs256(h, claims(obj{"iat": "now"})))
	add(ReasonSubject, "no subject", rs256(h, claims(obj{"sub": nil})))
	add(ReasonSubject, "subject empty", rs256(h, claims(obj{"sub": ""})))
	add(ReasonSubject, "subject a number", rs256(h, claims(obj{"sub": 17})))
	add(ReasonSubject, "subjects", rs256(h, claims(obj{"sub": []string{"user-17"}})))
	add(ReasonSubject, "subject with a line break", rs256(h, claims(obj{"sub": "user-17\nadmin"})))
	add(ReasonSubject, "subject that turns writing round", rs256(h, claims(obj{"sub": "user\u202e17"})))
	add(ReasonSubject, "subject with a blank", rs256(h, claims(obj{"sub": " user-17"})))
	add(ReasonSubject, "long subject", rs256(h, claims(obj{"sub": strings.Repeat("u", 256)})))
	add(ReasonUnprovenKey, "bound to a DPoP key", rs256(h, claims(obj{"cnf": obj{"jkt": "AAAA"}})))
	add(ReasonUnprovenKey, "bound to a certificate", rs256(h, claims(obj{"cnf": obj{"x5t#S256": "AAAA"}})))
	add(ReasonUnprovenKey, "bound to nothing", rs256(h, claims(obj{"cnf": obj{}})))
	return good, list
}

// flipLast changes a bit of the last character that base64 leaves over.
func flipLast(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[i^1])
}

// Whatever is wrong with a token, the answer is the same to the letter, and the audit
// record says what it was.
func TestHostileTokens(t *testing.T) {
	is := newTestIssuer(t)
	good, list := hostileTokens(is)
	o := newTestOIDC(t, is.config())
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
	want := make(map[Reason]int)
	seen := make(map[string]bool)
	for _, h := range list {
		if seen[h.name] {
			t.Fatalf("%s is there twice", h.name)
		}
		seen[h.name] = true
		t.Run(h.name, func(t *testing.T) {
			before := len(kept.all())
			p, err := chain.Authenticate(bring(h.token))
			mustRefuse(t, p, err)
			if got := kept.last(); len(kept.all()) == before || got.Reason != h.why {
				t.Errorf("recorded as %q, want %q", got.Reason, h.why)
			}
			if raw, _ := json.Marshal(kept.last()); len(h.token) > 20 && strings.Contains(string(raw), h.token[:20]) || strings.Contains(string(raw), "admin") {
				t.Errorf("what a stranger sent is recorded: %s", raw)
			}
		})
		want[h.why]++
		if p, err := chain.Authenticate(bring(good)); err != nil || p.Subject != "user-17" {
			t.Fatalf("after %s the good token is refused: %v", h.name, err)
		}
	}
	got := make(map[Reason]int)
	for _, at := range kept.all() {
		if at.Outcome == Refused {
			got[at.Reason] += 1 + at.More
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counted by reason: %s", diff)
	}
	t.Logf("%d hostile tokens refused: %v", len(list), got)
	if n := is.fetched(); n > 2 {
		t.Errorf("strangers made us fetch keys %d times", n)
	}
}

// Keys that cannot be trusted are not: whatever an issuer, or somebody on the way to
// it, serves in place of its keys.
func TestHostileKeys(t *testing.T) {
	k := testKeys()
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	set := func(keys ...obj) string {
		b, _ := json.Marshal(obj{"keys": keys})
		return string(b)
	}
	good := jwkOf("rsa", "RS256", k.rsa.Public())
	with := func(key obj, name string, v any) obj {
		c := obj{name: v}
		for n, old := range key {
			if n != name {
				c[n] = old
			}
		}
		return c
	}
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	tests := []struct {
		name            string
		keys, discovery http.HandlerFunc
		why             Reason
	}{
		{"hangs", hang, nil, ReasonKeySet},
		{"discovery hangs", nil, hang, ReasonKeySet},
		{"hangs in the middle", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, set(good)[:100])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, nil, ReasonKeySet},
		{"100 MB", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"keys":[`)
			blank := strings.Repeat(" ", 1<<20)
			for range 100 {
				if _, err := io.WriteString(w, blank); err != nil {
					return // we hung up
				}
			}
			t.Error("100 MB were read")
		}, nil, ReasonKeySet},
		{"10 MB in a few bytes", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			blank := strings.Repeat(" ", 1<<20)
			for range 10 {
				if _, err := io.WriteString(z, blank); err != nil {
					return
				}
			}
			io.WriteString(z, set(good))
			z.Close()
		}, nil, ReasonKeySet},
		{"wrong keys", raw(set(jwkOf("rsa", "RS256", k.other.Public()))), nil, ReasonSignature},
		{"no keys", raw(`{"keys":[]}`), nil, ReasonKeySet},
		{"no set", raw(`{}`), nil, ReasonKeySet},
		{"a list", raw(`[` + set(good) + `]`), nil, ReasonKeySet},
		{"garbage", raw(`<html>`), nil, ReasonKeySet},
		{"garbage after", raw(set(good) + `garbage`), nil, ReasonKeySet},
		{"two sets", raw(set(good) + set(good)), nil, ReasonKeySet},
		{"keys twice", raw(`{"keys":[],"keys":[` + set(good)[9:]), nil, ReasonKeySet},
		{"truncated", raw(set(good)[:300]), nil, ReasonKeySet},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, nil, ReasonKeySet},
		{"discovery redirects", nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, ReasonKeySet},
		{"an error with keys", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, set(good)) }, nil, ReasonKeySet},
		{"a key for encryption", raw(set(with(good, "use", "enc"))), nil, ReasonKeySet},
		{"a key for wrapping", raw(set(with(good, "key_ops", []string{"wrapKey"}))), nil, ReasonKeySet},
		{"a secret", raw(set(obj{"kty": "oct", "kid": "rsa", "alg": "HS256", "k": "AAAA"})), nil, ReasonKeySet},
		{"a weak key", raw(set(jwkOf("rsa", "RS256", k.weak.Public()))), nil, ReasonKeySet},
		{"exponent one", raw(set(with(good, "e", "AQ"))), nil, ReasonKeySet},
		{"a point that is not on the curve", raw(set(with(jwkOf("rsa", "", k.ec.Public()), "x", "AAAA"))), nil, ReasonKeySet},
		{"a key for another algorithm", raw(set(with(good, "alg", "RS512"))), nil, ReasonKeyID},
		{"one id on many keys", raw(set(good, good, good, good)), nil, ReasonKeyID},
		{"too many keys", raw(set(make([]obj, 501)...)), nil, ReasonKeySet},
		{"discovery of another issuer", nil, answer(obj{"issuer": "https://idp.example.com", "jwks_uri": "https://idp.example.com/keys"}), ReasonKeySet},
		{"discovery without keys", nil, answer(obj{"issuer": "ISSUER"}), ReasonKeySet},
		{"keys over plain HTTP", nil, answer(obj{"issuer": "ISSUER", "jwks_uri": "http://idp.example.com/keys"}), ReasonKeySet},
		{"keys in a file", nil, answer(obj{"issuer": "ISSUER", "jwks_uri": "file:///etc/keys"}), ReasonKeySet},
		{"keys from a host with a password", nil, answer(obj{"issuer": "ISSUER", "jwks_uri": "https://user:secret@idp.example.com/keys"}), ReasonKeySet},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := newTestIssuer(t)
			if tt.keys != nil {
				is.keys = tt.keys
			}
			if tt.discovery != nil {
				is.discovery = func(w http.ResponseWriter, r *http.Request) {
					var b strings.Builder
					tt.discovery(&asIssuer{w, &b}, r)
					io.WriteString(w, strings.ReplaceAll(b.String(), "ISSUER", is.URL))
				}
			}
			c := is.config()
			c.Wait, c.Timeout = 30*time.Second, time.Minute
			if strings.Contains(tt.name, "hangs") {
				c.Wait = 100 * time.Millisecond
			}
			o := newTestOIDC(t, c)
			chain, kept := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
			start := time.Now()
			p, err := chain.Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(nil))))
			mustRefuse(t, p, err)
			if got := kept.last().Reason; got != tt.why {
				t.Errorf("recorded as %q, want %q", got, tt.why)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if tt.why == ReasonKeySet && o.Ready() == nil {
				t.Error("ready without keys")
			}
		})
	}
}

// asIssuer keeps a body in which the issuer's URL is put in; status and header pass.
type asIssuer struct {
	http.ResponseWriter
	body *strings.Builder
}

func (a *asIssuer) Write(b []byte) (int, error) { return a.body.Write(b) }

// An issuer that hangs keeps nobody waiting who does not need it: not the callers of
// another issuer, not its own whose keys are known; and those who do need it for no
// longer than was configured.
func TestHangingIssuerHangsAlone(t *testing.T) {
	hanging, good := newTestIssuer(t), newTestIssuer(t)
	hanging.keys = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	c := OIDCConfig{Issuers: []Issuer{hanging.settings(), good.settings()}, Wait: 100 * time.Millisecond, Timeout: time.Hour, AskEvery: time.Nanosecond}
	o := newTestOIDC(t, c)
	m := o.Method()
	token := rs256(obj{"alg": "RS256", "kid": "rsa"}, good.claims(nil))
	if _, err := m.Authenticate(bring(token)); err != nil {
		t.Fatal(err) // waits for the first keys
	}
	good.serve(hanging.keys)
	begun := make(chan struct{}, 100)
	ended := make(chan time.Duration, 100)
	for range 50 {
		go func() {
			begun <- struct{}{}
			start := time.Now()
			if _, err := m.Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, hanging.claims(nil)))); err == nil {
				t.Error("a token without a key is accepted")
			}
			ended <- time.Since(start)
		}()
		go func() {
			begun <- struct{}{}
			start := time.Now()
			if _, err := m.Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "unknown"}, good.claims(nil)))); err == nil {
				t.Error("a token without a key is accepted")
			}
			ended <- time.Since(start)
		}()
	}
	for range 100 {
		<-begun
	}
	for i := range 100 {
		start := time.Now()
		if _, err := m.Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, good.claims(obj{"jti": fmt.Sprint(i)})))); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("a good call took %v", took)
		}
	}
	for range 100 {
		if took := <-ended; took > 30*time.Second {
			t.Errorf("a call waited %v", took)
		}
	}
	// A caller who hangs up does not wait.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Authenticate(bring(rs256(obj{"alg": "RS256", "kid": "rsa"}, hanging.claims(nil))).WithContext(ctx)); err == nil {
		t.Error("accepted")
	}
}
