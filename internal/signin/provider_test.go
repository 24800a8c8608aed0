package signin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

const (
	clientID = "waybill-cli"
	role     = "arn:aws:iam::111122223333:role/people/bedrock"
	subject  = "id2" // of the provider's user
)

// A realProvider is zitadel's OpenID provider, with a page to sign in on.
type realProvider struct {
	*storage.Storage
	url       string
	autoLogin bool // who comes to the page is signed in: for a browser that cannot type

	mu     sync.Mutex // guards all below
	claims map[string]any
	grants []string // grant types that the token endpoint was asked for
	errors []string // answers of the token endpoint to come before its own
}

// client is a program on a desk: public, with PKCE, with device codes and refresh tokens.
type client struct{ op.Client }

func (client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

func (p *realProvider) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := p.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

// SetUserinfoFromRequest puts the claims into the ID token.
func (p *realProvider) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, token op.IDTokenRequest, scopes []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, v := range p.claims {
		info.AppendClaims(k, v)
	}
	return p.Storage.SetUserinfoFromRequest(ctx, info, token, scopes)
}

func (p *realProvider) set(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims = claims
}

func (p *realProvider) asked(grant string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.grants {
		if g == grant {
			n++
		}
	}
	return n
}

func goodTags() map[string]any {
	return map[string]any{tagsClaim: map[string]any{"principal_tags": map[string]any{"team": []string{"search"}}, "transitive_tag_keys": []string{"team"}}}
}

const signInPage = "sign in here"

func newProvider(t *testing.T) *realProvider {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p := &realProvider{url: server.URL, claims: goodTags()}
	p.Storage = storage.NewStorageWithClients(storage.NewUserStore(server.URL), map[string]*storage.Client{clientID: storage.NativeClient(clientID, "http://127.0.0.1/callback")})
	provider, err := op.NewProvider(&op.Config{CryptoKey: [32]byte{1}, CryptoKeyId: "1", CodeMethodS256: true, GrantTypeRefreshToken: true, SupportedScopes: []string{"openid", "offline_access"},
		DeviceAuthorization: op.DeviceAuthorizationConfig{Lifetime: 5 * 60e9, PollInterval: 5e9, UserFormPath: "/device", UserCode: op.UserCodeBase20}},
		p, op.StaticIssuer(server.URL), op.WithAllowInsecure())
	if err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("/login/username", op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && !p.autoLogin {
			io.WriteString(w, signInPage)
			return
		}
		id := r.URL.Query().Get("authRequestID")
		if err := p.CheckUsernamePassword("test-user2", "verysecure", id); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		http.Redirect(w, r, op.AuthCallbackURL(provider)(r.Context(), id), http.StatusFound)
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/oauth/token" {
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			p.mu.Lock()
			p.grants = append(p.grants, r.Form.Get("grant_type"))
			var no string
			if len(p.errors) > 0 {
				no, p.errors = p.errors[0], p.errors[1:]
			}
			p.mu.Unlock()
			if no != "" {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"error":%q,"error_description":"said of %s"}`, no, r.Form.Get("device_code")+r.Form.Get("refresh_token")+r.Form.Get("code"))
				return
			}
		}
		provider.ServeHTTP(w, r)
	})
	return p
}

// keys is the provider's key set as AWS fetches it.
func (p *realProvider) keys() ([]byte, error) {
	a, err := http.Get(p.url + "/keys")
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	return io.ReadAll(a.Body)
}

// A browser is a person's: it keeps cookies, follows the provider to the page where one
// signs in, does so, and ends up on the page that this machine shows.
func browse(t *testing.T, page string) (text string) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Error(err)
	}
	c := &http.Client{Jar: jar}
	a, err := c.Get(page)
	if err != nil {
		t.Error(err)
		return ""
	}
	raw, _ := io.ReadAll(a.Body)
	a.Body.Close()
	if string(raw) != signInPage {
		return string(raw)
	}
	a, err = c.PostForm(a.Request.URL.String(), url.Values{})
	if err != nil {
		t.Error(err)
		return ""
	}
	defer a.Body.Close()
	raw, _ = io.ReadAll(a.Body)
	return string(raw)
}

// fakeSTS is the strict stand-in, where the account knows the provider and the role trusts
// its tokens.
func fakeSTS(t *testing.T, p *realProvider, change func(*fakeaws.Config)) (*fakeaws.World, string) {
	t.Helper()
	arn := "arn:aws:iam::111122223333:oidc-provider/" + strings.TrimPrefix(p.url, "http://")
	c := fakeaws.Config{Regions: []string{"us-east-1"}, Providers: []fakeaws.OIDCProvider{{ARN: arn, Issuer: p.url, ClientIDs: []string{clientID}, Keys: p.keys}},
		Roles: []fakeaws.Role{{ARN: role, Federated: []fakeaws.Federation{{Provider: arn, Audiences: []string{clientID}}}}}}
	if change != nil {
		change(&c)
	}
	w := fakeaws.NewWorld(c)
	u, stop, err := w.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return w, u
}

// A desk is a person at their machine.
type desk struct {
	*SignIn
	messages strings.Builder
	opened   []string
	pages    []string
	wg       sync.WaitGroup
}

func newDesk(t *testing.T, p *realProvider, sts string) *desk {
	t.Helper()
	store, err := NewStore(t.TempDir()+"/cache", nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{}
	d.SignIn = &SignIn{Profile: Profile{Issuer: p.url, ClientID: clientID, Role: role, Region: "us-east-1", STSEndpoint: sts, Tags: []string{"team"}}, Store: store, Messages: &d.messages, Pause: time.Millisecond}
	d.OpenBrowser = func(page string) error {
		d.opened = append(d.opened, page)
		d.wg.Go(func() { d.pages = append(d.pages, browse(t, page)) })
		return nil
	}
	t.Cleanup(d.wg.Wait)
	return d
}

// expire makes what is held end: the session, or the ID token too.
func (d *desk) expire(t *testing.T, token bool) {
	t.Helper()
	h, err := d.Store.load(d.Profile.key())
	if err != nil {
		t.Fatal(err)
	}
	h.Credentials.Expiration = d.now().Add(-1)
	if token {
		h.TokenExpires = d.now().Add(-1)
	}
	if err := d.Store.save(d.Profile.key(), h); err != nil {
		t.Fatal(err)
	}
}

// secrets are what must never be read in a message or an error.
func (d *desk) secrets(t *testing.T) []string {
	t.Helper()
	h, err := d.Store.load(d.Profile.key())
	if err != nil {
		return nil
	}
	return slices.DeleteFunc([]string{h.IDToken, h.Refresh, h.Credentials.SecretAccessKey, h.Credentials.SessionToken}, func(s string) bool { return s == "" })
}

var userCode = regexp.MustCompile(`enter code  ([A-Z-]+)`)
