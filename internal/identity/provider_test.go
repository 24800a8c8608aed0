package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// A provider is a real OpenID provider, with the users and the storage of its example.
type provider struct {
	*httptest.Server
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{}
	var handler http.Handler
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(p.Close)
	clients := map[string]*storage.Client{"waybill-cli": storage.NativeClient("waybill-cli", "http://localhost/callback")}
	store := &providerStorage{storage.NewStorageWithClients(storage.NewUserStore(p.URL), clients)}
	config := &op.Config{CryptoKey: sha256.Sum256([]byte("test")), CryptoKeyId: "test", CodeMethodS256: true, AuthMethodPost: true}
	real, err := op.NewProvider(config, store, op.StaticIssuer(p.URL), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	callback := op.AuthCallbackURL(real)
	withIssuer := op.NewIssuerInterceptor(real.IssuerFromRequest)
	mux := http.NewServeMux()
	mux.Handle("/", real)
	mux.Handle("/login/username", withIssuer.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("authRequestID")
		if err := store.CheckUsernamePassword("test-user2", "verysecure", id); err != nil {
			t.Error(err)
		}
		http.Redirect(w, r, callback(r.Context(), id), http.StatusFound)
	}))
	handler = mux
	return p
}

// providerStorage gives machines access tokens in the form of a JWT, meant for us.
type providerStorage struct{ *storage.Storage }

func (s *providerStorage) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	c, err := s.Storage.ClientCredentials(ctx, id, secret)
	return jwtClient{c}, err
}

func (s *providerStorage) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: id, Audience: []string{"https://waybill.example.com"}, Scopes: scopes}, nil
}

type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// endpoints are what the provider's own discovery document says.
func (p *provider) endpoints(t *testing.T) map[string]any {
	t.Helper()
	resp, err := p.Client().Get(p.URL + "/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func (p *provider) token(t *testing.T, form url.Values) map[string]any {
	t.Helper()
	resp, err := p.Client().PostForm(p.endpoints(t)["token_endpoint"].(string), form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var tokens map[string]any
	if err := json.Unmarshal(body, &tokens); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	return tokens
}

// A person signs in with the browser, by code and PKCE; the ID token is good here.
func (p *provider) signIn(t *testing.T) string {
	t.Helper()
	verifier := strings.Repeat("verifier", 8)
	challenge := sha256.Sum256([]byte(verifier))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	code := ""
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/callback" {
			code = r.URL.Query().Get("code")
			return http.ErrUseLastResponse
		}
		return nil
	}}
	ask := url.Values{"client_id": {"waybill-cli"}, "redirect_uri": {"http://localhost/callback"}, "response_type": {"code"}, "scope": {"openid profile email"},
		"state": {"s"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"}}
	resp, err := browser.Get(p.endpoints(t)["authorization_endpoint"].(string) + "?" + ask.Encode())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if code == "" {
		t.Fatalf("no code came back: %s", resp.Status)
	}
	tokens := p.token(t, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {"waybill-cli"}, "redirect_uri": {"http://localhost/callback"}, "code_verifier": {verifier}})
	return tokens["id_token"].(string)
}

// Tokens of a real provider are good here: those of a person who signed in with the
// browser and those of a machine. The provider's tokens for others are not.
func TestRealProvider(t *testing.T) {
	p := newProvider(t)
	person := Issuer{URL: p.URL, Audiences: []string{"waybill-cli"}, Parties: []string{"waybill-cli"}}
	machine := Issuer{URL: p.URL, Audiences: []string{"https://waybill.example.com"}, PartyClaim: "client_id", Algorithms: []string{"RS256"}}
	idToken := p.signIn(t)
	access := p.token(t, url.Values{"grant_type": {"client_credentials"}, "client_id": {"sid1"}, "client_secret": {"verysecret"}, "scope": {"openid"}})["access_token"].(string)
	for _, tt := range []struct {
		name, token, subject string
		is                   Issuer
		good                 bool
	}{
		{"a person", idToken, "id2", person, true},
		{"a machine", access, "sid1", machine, true},
		{"a person's token, meant for the command line", idToken, "", machine, false},
		{"a machine's token, meant for another", access, "", person, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newTestOIDC(t, OIDCConfig{Issuers: []Issuer{tt.is}})
			chain, kept := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
			got, err := chain.Authenticate(bring(tt.token))
			if !tt.good {
				mustRefuse(t, got, err)
				if kept.last().Reason != ReasonAudience {
					t.Errorf("recorded as %q", kept.last().Reason)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v: %+v", err, kept.last())
			}
			if got.Subject != tt.subject || got.Issuer != p.URL || got.Method != "oidc" {
				t.Errorf("%+v", got)
			}
			if at := kept.last(); at.Outcome != Accepted || at.Subject != got.Subject || at.Proof == "" || strings.Contains(tt.token, at.Proof) {
				t.Errorf("recorded %+v", at)
			}
		})
	}
}
