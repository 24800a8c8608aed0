package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/waybill-dev/waybill"
)

// A provider is an OpenID Connect provider, as its own discovery describes it.
type provider struct {
	profile  *Profile
	secret   string // of the client
	client   *http.Client
	verifier *oidc.IDTokenVerifier
	has      discovery
}

type discovery struct {
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Device        string   `json:"device_authorization_endpoint"`
	Revocation    string   `json:"revocation_endpoint"`
	Scopes        []string `json:"scopes_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	TellsIssuer   bool     `json:"authorization_response_iss_parameter_supported"`
}

// tokens are what a sign-in gives.
type tokens struct {
	raw     string // the ID token
	refresh string // empty if the provider gave none
	expires time.Time
	nonce   string
	claims  map[string]json.RawMessage
}

func signInFailed(hint, format string, a ...any) error {
	return &waybill.Error{Kind: waybill.Unauthenticated, Message: fmt.Sprintf(format, a...), Hint: hint}
}

// discover asks the provider what it has.
func (s *SignIn) discover(ctx context.Context) (*provider, error) {
	p := &provider{profile: &s.Profile, secret: s.ClientSecret, client: s.client()}
	ctx = oidc.ClientContext(ctx, p.client)
	found, err := oidc.NewProvider(ctx, s.Profile.Issuer)
	if err != nil {
		var mismatch *oidc.IssuerMismatchError
		if errors.As(err, &mismatch) {
			return nil, signInFailed("write the issuer exactly as the provider does, to the last slash", "%s calls itself %s", s.Profile.Issuer, clean(mismatch.Discovered))
		}
		return nil, &waybill.Error{Kind: waybill.Unavailable, Message: fmt.Sprintf("%s cannot be reached, or is not an OpenID Connect provider", s.Profile.Issuer),
			Hint: "check the issuer: " + strings.TrimSuffix(s.Profile.Issuer, "/") + "/.well-known/openid-configuration must answer", Err: err}
	}
	if err := found.Claims(&p.has); err != nil {
		return nil, fmt.Errorf("read discovery of %s: %w", s.Profile.Issuer, err)
	}
	for what, endpoint := range map[string]string{"authorization": p.has.Authorization, "token": p.has.Token, "device": p.has.Device, "revocation": p.has.Revocation} {
		if endpoint != "" && !safeURL(endpoint) {
			return nil, signInFailed("ask the provider's administrator", "the %s endpoint of %s is not an https URL", what, s.Profile.Issuer)
		}
	}
	p.verifier = found.VerifierContext(ctx, &oidc.Config{ClientID: s.Profile.ClientID, Now: s.now})
	return p, nil
}

// scopes are what is asked for.
func (p *provider) scopes() string {
	list := p.profile.Scopes
	if len(list) == 0 {
		list = []string{oidc.ScopeOpenID}
		if slices.Contains(p.has.Scopes, oidc.ScopeOfflineAccess) {
			list = append(list, oidc.ScopeOfflineAccess)
		}
	}
	return strings.Join(list, " ")
}

// A grantError is a provider's refusal, in OAuth's words.
type grantError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
	status      int
}

func (e *grantError) Error() string {
	text := clean(e.Code)
	if text == "" {
		text = fmt.Sprintf("HTTP status %d", e.status)
	}
	if d := clean(e.Description); d != "" {
		text += ": " + d
	}
	return text
}

// post sends a form to an endpoint of the provider, as the client that we are, and reads
// the JSON that it answers.
func (p *provider) post(ctx context.Context, endpoint string, form url.Values, answer any) error {
	basic := p.secret != "" && !(slices.Contains(p.has.AuthMethods, "client_secret_post") && !slices.Contains(p.has.AuthMethods, "client_secret_basic"))
	if !basic {
		form.Set("client_id", p.profile.ClientID)
		if p.secret != "" {
			form.Set("client_secret", p.secret)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	if basic {
		r.SetBasicAuth(url.QueryEscape(p.profile.ClientID), url.QueryEscape(p.secret))
	}
	a, err := p.client.Do(r)
	if err != nil {
		return &waybill.Error{Kind: waybill.Unavailable, Message: p.profile.Issuer + " does not answer", Hint: "check the network, and try again", Err: err}
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err != nil {
		return &waybill.Error{Kind: waybill.Unavailable, Message: p.profile.Issuer + " broke off its answer", Hint: "try again", Err: err}
	}
	if a.StatusCode != http.StatusOK {
		refused := &grantError{status: a.StatusCode}
		_ = json.Unmarshal(body, refused) // what is no JSON has no code
		for _, secrets := range form {
			for _, secret := range secrets {
				refused.Description = without(refused.Description, secret)
			}
		}
		refused.Description = without(refused.Description, p.secret)
		return refused
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return signInFailed("ask the provider's administrator", "the answer of %s is not what OAuth says", p.profile.Issuer)
	}
	return nil
}

// grant asks the token endpoint, and verifies the ID token that it gives.
func (p *provider) grant(ctx context.Context, form url.Values) (*tokens, error) {
	var answer struct {
		IDToken string `json:"id_token"`
		Refresh string `json:"refresh_token"`
	}
	if err := p.post(ctx, p.has.Token, form, &answer); err != nil {
		return nil, err
	}
	if answer.IDToken == "" {
		return nil, errNoIDToken
	}
	token, err := p.verifier.Verify(oidc.ClientContext(ctx, p.client), answer.IDToken)
	if err != nil {
		return nil, signInFailed("check the clock of this machine and the client id; else ask the provider's administrator", "the token of %s does not hold: %s", p.profile.Issuer, clean(without(err.Error(), answer.IDToken)))
	}
	t := &tokens{raw: answer.IDToken, refresh: answer.Refresh, expires: token.Expiry, nonce: token.Nonce}
	if err := token.Claims(&t.claims); err != nil {
		return nil, signInFailed("ask the provider's administrator", "the claims of the token of %s cannot be read", p.profile.Issuer)
	}
	return t, nil
}

// errNoIDToken is a grant without an ID token: a scope of openid is missing, or a
// refresh gives access tokens only.
var errNoIDToken = &waybill.Error{Kind: waybill.Unauthenticated, Message: "the provider gave no ID token", Hint: "add openid to the scopes"}

// refresh gets new tokens without asking the person.
func (p *provider) refresh(ctx context.Context, token string) (*tokens, error) {
	t, err := p.grant(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
	if err != nil {
		return nil, err
	}
	if t.refresh == "" {
		t.refresh = token // it stays good
	}
	return t, nil
}

// clean makes a text of a stranger's fit for a terminal: short, and of one line.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "..."
	}
	return strings.TrimSpace(text)
}

// without takes a secret out of a text.
func without(text, secret string) string {
	if len(secret) < 6 {
		return text
	}
	return strings.ReplaceAll(text, secret, "[secret]")
}
