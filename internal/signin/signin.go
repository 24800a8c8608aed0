package signin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
)

// Credentials are what AWS's credential_process prints.
type Credentials struct {
	Version         int       `json:"Version"`
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"SessionToken"`
	Expiration      time.Time `json:"Expiration"`
}

// A SignIn gets credentials for one profile. Everything for people goes to Messages;
// nothing secret goes there, nor into an error.
type SignIn struct {
	Profile      Profile
	Store        *Store
	ClientSecret string // what Profile.ClientSecretEnv stands for
	Key          string // what Profile.KeyEnv stands for: a gateway key for the broker
	Messages     io.Writer
	// OpenBrowser opens a page; nil or an error leaves it to the person.
	OpenBrowser func(page string) error
	// Patience bounds the wait for the person; 0 means five minutes.
	Patience time.Duration
	// Pause is the longest before STS is asked again after it failed; 0 means a second:
	// somebody waits.
	Pause time.Duration
	// HTTP reaches the provider, STS and the broker; nil means one that follows no
	// redirects and waits half a minute.
	HTTP *http.Client
	// Now and After are the clock; nil means time's.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

const (
	patience = 5 * time.Minute
	// fresh is how long before their end credentials are renewed, if the person need
	// not be asked: the SDKs begin to ask for others a quarter of an hour before.
	fresh = 15 * time.Minute
	// usable is how long before their end they are no longer given out.
	usable = time.Minute
)

func (s *SignIn) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *SignIn) after(d time.Duration) <-chan time.Time {
	if s.After != nil {
		return s.After(d)
	}
	return time.After(d)
}

func (s *SignIn) pause() time.Duration {
	if s.Pause > 0 {
		return s.Pause
	}
	return time.Second
}

// client does not follow redirects: what it sends is meant for the server it is sent to.
func (s *SignIn) client() *http.Client {
	c := http.Client{Timeout: 30 * time.Second}
	if s.HTTP != nil {
		c = *s.HTTP
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

func (s *SignIn) say(format string, a ...any) {
	if s.Messages != nil {
		fmt.Fprintf(s.Messages, format, a...)
	}
}

// held is what is kept of a sign-in.
type held struct {
	Credentials  Credentials       `json:"credentials"`
	Issued       time.Time         `json:"issued"`
	PrincipalARN string            `json:"principalArn,omitempty"`
	Subject      string            `json:"subject,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	Dropped      []string          `json:"dropped,omitempty"`
	IDToken      string            `json:"idToken,omitempty"`
	TokenExpires time.Time         `json:"tokenExpires,omitzero"`
	Refresh      string            `json:"refresh,omitempty"`
	Asked        time.Time         `json:"asked,omitzero"` // when the person was, last
}

// left is how long the credentials last yet.
func (h *held) left(now time.Time) time.Duration { return h.Credentials.Expiration.Sub(now) }

// fresh reports whether the credentials need no renewal: of a short session the last
// quarter is for renewal.
func (h *held) fresh(now time.Time) bool {
	return h.left(now) > max(usable, min(fresh, h.Credentials.Expiration.Sub(h.Issued)/4))
}

// Credentials are from the store if they last, else from a refreshed sign-in, else the
// person is asked. However many processes ask at once, one asks the person.
func (s *SignIn) Credentials(ctx context.Context) (Credentials, error) {
	if err := s.Profile.Check(); err != nil {
		return Credentials{}, err
	}
	for name, value := range map[string]string{s.Profile.ClientSecretEnv: s.ClientSecret, s.Profile.KeyEnv: s.Key} {
		if name != "" && value == "" {
			return Credentials{}, misused("set it, or leave it out of the profile", "environment variable %s is not set", name)
		}
	}
	key := s.Profile.key()
	if h, err := s.Store.load(key); err == nil && h.fresh(s.now()) {
		return h.Credentials, nil
	}
	unlock, err := s.Store.lock(ctx, key, func() { s.say("Another waybill credentials is signing in; waiting for it.\n") })
	if err != nil {
		return Credentials{}, err
	}
	defer unlock()
	h, err := s.Store.load(key)
	if err != nil {
		if !errors.Is(err, errNothing) {
			return Credentials{}, err
		}
		h = &held{}
	}
	if h.fresh(s.now()) {
		return h.Credentials, nil // the other one has done it
	}
	next, err := s.renew(ctx, h)
	if err != nil {
		return Credentials{}, err
	}
	if err := s.Store.save(key, next); err != nil {
		s.say("The credentials could not be kept, and will be asked for again: %v\n", err)
	}
	return next.Credentials, nil
}

// renew gets a session by the least trouble: with the token that is held, with one
// refreshed, and only then by asking the person.
func (s *SignIn) renew(ctx context.Context, h *held) (*held, error) {
	if s.Key != "" && s.Profile.Broker != "" {
		got, err := s.broker(ctx, s.Key)
		if err != nil {
			return s.orHeld(h, err)
		}
		return s.keep(got, &tokens{}), nil
	}
	var refusal error // of a token that was got without asking
	if h.IDToken != "" && h.TokenExpires.Sub(s.now()) > usable {
		t := &tokens{raw: h.IDToken, refresh: h.Refresh, expires: h.TokenExpires, claims: claimsOf(h.IDToken)}
		got, err := s.exchange(ctx, t)
		if err == nil {
			return s.keep(got, t), nil
		}
		if !mends(err) {
			return s.orHeld(h, err)
		}
		refusal = err
	}
	var p *provider // once it is needed
	if h.Refresh != "" {
		var err error
		if p, err = s.discover(ctx); err != nil {
			return s.orHeld(h, err)
		}
		t, err := p.refresh(ctx, h.Refresh)
		var refused *grantError
		switch {
		case err == nil:
			s.remember(h, t) // the provider may have ended the one before
			got, err := s.exchange(ctx, t)
			if err == nil {
				return s.keep(got, t), nil
			}
			if !mends(err) {
				return s.orHeld(h, err)
			}
			refusal = err
		case errors.As(err, &refused), errors.Is(err, errNoIDToken):
			h.Refresh = "" // it is used up, or of no use
		default:
			return s.orHeld(h, err)
		}
	}
	if h.left(s.now()) > usable {
		return h, nil // the person is not asked before they must be
	}
	if errors.Is(refusal, errTags) || refusal != nil && s.now().Sub(h.Asked) < again {
		return nil, refusal // asking again would change nothing, at every call of an SDK
	}
	if p == nil {
		var err error
		if p, err = s.discover(ctx); err != nil {
			return nil, err
		}
	}
	t, err := s.ask(ctx, p)
	if err != nil {
		return nil, err
	}
	h.Asked = s.now()
	got, err := s.exchange(ctx, t)
	if err != nil {
		s.remember(h, t)
		return nil, err
	}
	return s.keep(got, t), nil
}

// again is how long after the person was asked they are not asked once more for a token
// that was refused.
const again = 5 * time.Minute

// errTags marks a token whose tags are not what they must be; errToken one that was not
// taken at all. A newer one may do.
var (
	errTags  = errors.New("the token's tags will not do")
	errToken = errors.New("the token was not taken")
)

func mends(err error) bool { return errors.Is(err, errTags) || errors.Is(err, errToken) }

// remember keeps the tokens of a sign-in, with or without a session.
func (s *SignIn) remember(h *held, t *tokens) {
	h.IDToken, h.TokenExpires, h.Refresh = t.raw, t.expires, t.refresh
	if err := s.Store.save(s.Profile.key(), h); err != nil {
		s.say("The sign-in could not be kept: %v\n", err)
	}
}

// claimsOf reads the claims of a token that was verified when it came.
func claimsOf(raw string) map[string]json.RawMessage {
	var claims map[string]json.RawMessage
	if parts := strings.Split(raw, "."); len(parts) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(b, &claims) // what cannot be read has no claims
		}
	}
	return claims
}

// orHeld is what is held, as long as it can be used, in the place of an error that may
// pass.
func (s *SignIn) orHeld(h *held, err error) (*held, error) {
	if left := h.left(s.now()); left > usable && waybill.KindOf(err) == waybill.Unavailable {
		e, _ := errors.AsType[*waybill.Error](err)
		s.say("%s; the session that is held lasts %s yet.\n", e.Message, left.Round(time.Minute))
		return h, nil
	}
	return nil, err
}

func (s *SignIn) ask(ctx context.Context, p *provider) (*tokens, error) {
	wait := s.Patience
	if wait <= 0 {
		wait = patience
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if s.Profile.Device {
		return s.byDevice(ctx, p)
	}
	return s.byBrowser(ctx, p)
}

func (s *SignIn) exchange(ctx context.Context, t *tokens) (*session, error) {
	if s.Profile.Broker != "" {
		return s.broker(ctx, t.raw)
	}
	return s.assume(ctx, t)
}

func (s *SignIn) keep(got *session, t *tokens) *held {
	var subject string
	_ = json.Unmarshal(t.claims["sub"], &subject) // a gateway key has none
	if len(got.dropped) > 0 {
		s.say("The session does not carry %s: there was no room for it.\n", clean(strings.Join(got.dropped, ", ")))
	}
	return &held{Credentials: got.credentials, Issued: s.now(), PrincipalARN: got.principalARN, Subject: subject, Tags: got.tags, Dropped: got.dropped,
		IDToken: t.raw, TokenExpires: t.expires, Refresh: t.refresh}
}

// Status is what Check finds.
type Status struct {
	Issuer       string            `json:"issuer,omitempty"`
	Broker       string            `json:"broker,omitempty"`
	Role         string            `json:"role,omitempty"`
	SignedIn     bool              `json:"signedIn"` // credentials are held, or can be had without asking
	Subject      string            `json:"subject,omitempty"`
	PrincipalARN string            `json:"principalArn,omitempty"`
	Expires      time.Time         `json:"expires,omitzero"`
	Refreshes    bool              `json:"refreshes"` // the sign-in can be renewed without asking
	Tags         map[string]string `json:"tags,omitempty"`
	Missing      []string          `json:"missing,omitempty"` // tags that the profile wants
	Place        string            `json:"place"`
}

// Check says what is held, and asks nobody.
func (s *SignIn) Check() (Status, error) {
	if err := s.Profile.Check(); err != nil {
		return Status{}, err
	}
	st := Status{Issuer: s.Profile.Issuer, Broker: s.Profile.Broker, Role: s.Profile.Role, Place: s.Store.place(s.Profile.key())}
	h, err := s.Store.load(s.Profile.key())
	if errors.Is(err, errNothing) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	now := s.now()
	st.Refreshes = h.Refresh != ""
	st.SignedIn = h.left(now) > usable || st.Refreshes || h.TokenExpires.Sub(now) > usable
	st.Subject, st.PrincipalARN, st.Expires, st.Tags = h.Subject, h.PrincipalARN, h.Credentials.Expiration, h.Tags
	st.Missing = (sessionTags{tags: h.Tags}).missing(s.Profile.Tags)
	return st, nil
}

// Good reports whether there is nothing to complain of.
func (st Status) Good() bool { return st.SignedIn && len(st.Missing) == 0 }

// String is a page for people.
func (st Status) String() string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s %s\n", name, clean(value))
		}
	}
	line("signs in at", st.Issuer)
	line("broker", st.Broker)
	line("role", st.Role)
	if !st.SignedIn {
		line("signed in", "no")
	} else {
		line("signed in", "yes")
		line("subject", st.Subject)
		line("AWS sees", st.PrincipalARN)
		line("until", st.Expires.Format(time.RFC3339))
		line("renews", map[bool]string{true: "by itself", false: "by asking you"}[st.Refreshes])
		var tags []string
		for k, v := range st.Tags {
			tags = append(tags, k+"="+v)
		}
		slices.Sort(tags)
		line("tags", map[bool]string{true: "none", false: strings.Join(tags, ", ")}[len(tags) == 0])
	}
	line("missing", strings.Join(st.Missing, ", "))
	line("kept in", st.Place)
	return b.String()
}

// Logout forgets the sign-in, here and at the provider. Sessions that were given out
// last until their end: AWS cannot take back a single one.
func (s *SignIn) Logout(ctx context.Context) error {
	if err := s.Profile.Check(); err != nil {
		return err
	}
	key := s.Profile.key()
	unlock, err := s.Store.lock(ctx, key, func() { s.say("Another waybill credentials is signing in; waiting for it.\n") })
	if err != nil {
		return err
	}
	defer unlock()
	h, err := s.Store.load(key)
	if err := s.Store.remove(key); err != nil {
		return err
	}
	if err != nil || h.Refresh == "" {
		return nil // nothing that the provider would know
	}
	p, err := s.discover(ctx)
	if err != nil {
		return fmt.Errorf("the sign-in is forgotten here, not at the provider: %w", err)
	}
	if p.has.Revocation == "" {
		return nil
	}
	if err := p.post(ctx, p.has.Revocation, url.Values{"token": {h.Refresh}, "token_type_hint": {"refresh_token"}}, nil); err != nil {
		return signInFailed("end the session in the provider's own pages", "the sign-in is forgotten here, and %s did not revoke it: %v", s.Profile.Issuer, err)
	}
	return nil
}

// Write prints credentials: json for credential_process, env for a shell's eval.
func (c Credentials) Write(w io.Writer, format string) error {
	if format == "env" {
		_, err := fmt.Fprintf(w, "export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\nexport AWS_SESSION_TOKEN=%s\nexport AWS_CREDENTIAL_EXPIRATION=%s\n",
			quote(c.AccessKeyID), quote(c.SecretAccessKey), quote(c.SessionToken), quote(c.Expiration.UTC().Format(time.RFC3339)))
		return err
	}
	c.Expiration = c.Expiration.UTC().Truncate(time.Second)
	return json.NewEncoder(w).Encode(c)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
