package signin

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

// A hostile provider answers as it is told.
type hostile struct {
	url       string
	key       *rsa.PrivateKey
	discovery func(map[string]any)
	token     func(h *hostile, claims map[string]any) string // the ID token
	answer    func(w http.ResponseWriter, form url.Values)   // in the place of the token endpoint's
	nonce     string
	secrets   []string // that were sent to it
}

var b64 = base64.RawURLEncoding

func (h *hostile) sign(alg, kid string, claims map[string]any) string {
	header, _ := json.Marshal(map[string]string{"alg": alg, "kid": kid, "typ": "JWT"})
	body, _ := json.Marshal(claims)
	signed := b64.EncodeToString(header) + "." + b64.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	var signature []byte
	switch alg {
	case "RS256":
		signature, _ = rsa.SignPKCS1v15(rand.Reader, h.key, crypto.SHA256, sum[:])
	case "HS256": // with the public key as the secret
		m := hmac.New(sha256.New, h.key.N.Bytes())
		m.Write([]byte(signed))
		signature = m.Sum(nil)
	}
	return signed + "." + b64.EncodeToString(signature)
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{key: key}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	h.url = server.URL
	write := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		d := map[string]any{"issuer": h.url, "authorization_endpoint": h.url + "/authorize", "token_endpoint": h.url + "/token", "jwks_uri": h.url + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256", "none", "HS256"}}
		if h.discovery != nil {
			h.discovery(d)
		}
		write(w, d)
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]any{"keys": []map[string]string{{"kty": "RSA", "kid": "1", "use": "sig", "n": b64.EncodeToString(key.N.Bytes()), "e": b64.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		h.nonce = q.Get("nonce")
		http.Redirect(w, r, q.Get("redirect_uri")+"?code=the-code-of-the-browser&state="+url.QueryEscape(q.Get("state")), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		h.secrets = append(h.secrets, r.Form.Get("code"), r.Form.Get("code_verifier"), r.Form.Get("client_secret"))
		if h.answer != nil {
			h.answer(w, r.Form)
			return
		}
		claims := map[string]any{"iss": h.url, "sub": "user-17", "aud": clientID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "nonce": h.nonce}
		maps.Copy(claims, goodTags())
		token := h.token(h, claims)
		h.secrets = append(h.secrets, token)
		write(w, map[string]any{"access_token": "the-access-token", "token_type": "Bearer", "id_token": token, "refresh_token": "the-refresh-token"})
	})
	return h
}

// No token of a provider that lies, and none of another, becomes a session; and nothing
// that was sent to it comes back in a message.
func TestHostileProvider(t *testing.T) {
	with := func(change func(map[string]any)) func(*hostile, map[string]any) string {
		return func(h *hostile, c map[string]any) string { change(c); return h.sign("RS256", "1", c) }
	}
	asked := 0
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked++; w.WriteHeader(http.StatusTeapot) }))
	defer sts.Close()
	status := func(code int, format string) func(http.ResponseWriter, url.Values) {
		return func(w http.ResponseWriter, form url.Values) {
			w.WriteHeader(code)
			io.WriteString(w, strings.ReplaceAll(format, "ECHO", form.Get("code")+" "+form.Get("code_verifier")+" "+form.Get("client_secret")))
		}
	}
	for _, tt := range []struct {
		name      string
		token     func(*hostile, map[string]any) string
		discovery func(map[string]any)
		answer    func(http.ResponseWriter, url.Values)
	}{
		{name: "no signature", token: func(h *hostile, c map[string]any) string { return h.sign("none", "1", c) }},
		{name: "HMAC with the public key", token: func(h *hostile, c map[string]any) string { return h.sign("HS256", "1", c) }},
		{name: "unknown key", token: func(h *hostile, c map[string]any) string { return h.sign("RS256", "2", c) }},
		{name: "another's key", token: func(h *hostile, c map[string]any) string {
			return (&hostile{key: newHostile(t).key}).sign("RS256", "1", c)
		}},
		{name: "changed claims", token: func(h *hostile, c map[string]any) string {
			parts := strings.Split(h.sign("RS256", "1", c), ".")
			c["sub"] = "user-18"
			body, _ := json.Marshal(c)
			return parts[0] + "." + b64.EncodeToString(body) + "." + parts[2]
		}},
		{name: "audience", token: with(func(c map[string]any) { c["aud"] = "other" })},
		{name: "no audience", token: with(func(c map[string]any) { delete(c, "aud") })},
		{name: "issuer", token: with(func(c map[string]any) { c["iss"] = "https://evil.example.com" })},
		{name: "expired", token: with(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() })},
		{name: "no expiry", token: with(func(c map[string]any) { delete(c, "exp") })},
		{name: "nonce", token: with(func(c map[string]any) { c["nonce"] = "of another sign-in" })},
		{name: "no nonce", token: with(func(c map[string]any) { delete(c, "nonce") })},
		{name: "not a token", token: func(*hostile, map[string]any) string { return "the-opaque-thing" }},
		{name: "empty", token: func(*hostile, map[string]any) string { return "" }},
		{name: "discovery of another", discovery: func(d map[string]any) { d["issuer"] = "https://evil.example.com" }},
		{name: "a token endpoint in the clear", discovery: func(d map[string]any) { d["token_endpoint"] = "http://evil.example.com/token" }},
		{name: "an authorization endpoint that is none", discovery: func(d map[string]any) { d["authorization_endpoint"] = "javascript:alert(1)" }},
		{name: "no authorization endpoint", discovery: func(d map[string]any) { d["authorization_endpoint"] = "" }},
		{name: "echo", answer: status(400, `{"error":"invalid_grant","error_description":"no: ECHO"}`)},
		{name: "echo, no JSON", answer: status(500, `<html>ECHO`)},
		{name: "200, no JSON", answer: status(200, `<html>ECHO`)},
		{name: "huge", answer: status(200, strings.Repeat("x", 2<<20))},
		{name: "elsewhere", answer: func(w http.ResponseWriter, _ url.Values) {
			w.Header().Set("Location", sts.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHostile(t)
			h.discovery, h.answer = tt.discovery, tt.answer
			if h.token = tt.token; h.token == nil {
				h.token = func(h *hostile, c map[string]any) string { return h.sign("RS256", "1", c) }
			}
			store, err := NewStore(filepath.Join(t.TempDir(), "cache"), nil)
			if err != nil {
				t.Fatal(err)
			}
			var messages strings.Builder
			pages := make(chan string, 1)
			s := &SignIn{Profile: Profile{Issuer: h.url, ClientID: clientID, Role: role, Region: "us-east-1", STSEndpoint: sts.URL}, ClientSecret: "the-client-secret", Store: store, Messages: &messages,
				OpenBrowser: func(page string) error { go func() { pages <- browse(t, page) }(); return nil }, Pause: time.Millisecond, Patience: 20 * time.Second}
			_, err = s.Credentials(t.Context())
			if k := waybill.KindOf(err); err == nil || k != waybill.Unauthenticated && k != waybill.Unavailable {
				t.Errorf("got %v", err)
			}
			if asked != 0 {
				t.Error("STS was asked")
			}
			text := fmt.Sprintf("%v %+v", err, messages.String())
			if e, ok := err.(*waybill.Error); ok {
				text += e.Hint + e.Message
			}
			for _, secret := range append(h.secrets, "the-access-token", "the-refresh-token", "the-client-secret") {
				if len(secret) > 5 && strings.Contains(text, secret) {
					t.Errorf("%q is in a message: %s", secret, text)
				}
			}
			if _, err := store.load(s.Profile.key()); err == nil {
				t.Error("something was kept")
			}
			if len(h.secrets) > 0 && !strings.Contains(<-pages, "did not succeed") {
				t.Error("the page says that it worked")
			}
		})
	}
	// The same provider, when it tells the truth, does sign in.
	h := newHostile(t)
	h.token = func(h *hostile, c map[string]any) string { return h.sign("RS256", "1", c) }
	store, err := NewStore(filepath.Join(t.TempDir(), "cache"), nil)
	if err != nil {
		t.Fatal(err)
	}
	pages := make(chan string, 1)
	s := &SignIn{Profile: Profile{Issuer: h.url, ClientID: clientID, Role: role, Region: "us-east-1", STSEndpoint: sts.URL}, Store: store,
		OpenBrowser: func(page string) error { go func() { pages <- browse(t, page) }(); return nil }, Pause: time.Millisecond}
	defer func() { <-pages }()
	if _, err := s.Credentials(t.Context()); asked == 0 {
		t.Errorf("STS was not asked: %v", err)
	}
}
