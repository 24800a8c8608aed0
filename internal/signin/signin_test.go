package signin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/credential"
	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// whoami asks STS whose credentials these are.
func whoami(t *testing.T, c Credentials, endpoint string) string {
	t.Helper()
	out, err := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)}).
		GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	return sdkaws.ToString(out.Arn)
}

const principal = "arn:aws:sts::111122223333:assumed-role/bedrock/" + subject

// A person signs in once with their browser. After that the session is held, renewed
// with the token, and the token with the refresh token, until the provider says no.
func TestBrowser(t *testing.T) {
	p := newProvider(t)
	w, endpoint := fakeSTS(t, p, nil)
	d := newDesk(t, p, endpoint)
	got, err := d.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if arn := whoami(t, got, endpoint); arn != principal {
		t.Errorf("AWS sees %s, want %s", arn, principal)
	}
	if a := w.Assumptions(); len(a) != 1 || a[0].Tags["team"] != "search" || !slices.Equal(a[0].Transitive, []string{"team"}) || !strings.HasSuffix(a[0].Caller, "#"+subject) {
		t.Errorf("STS saw %+v", a)
	}
	d.wg.Wait()
	if len(d.opened) != 1 || len(d.pages) != 1 || !strings.Contains(d.pages[0], "You are signed in") {
		t.Fatalf("opened %v, pages %v", d.opened, d.pages)
	}
	asked, err := url.Parse(d.opened[0])
	if err != nil {
		t.Fatal(err)
	}
	q := asked.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || redirect.Hostname() != "127.0.0.1" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 40 || len(q.Get("nonce")) < 40 || q.Get("scope") != "openid offline_access" {
		t.Errorf("the browser was sent to %s", asked)
	}
	if _, err := net.Dial("tcp", redirect.Host); err == nil {
		t.Error("the port is open after the answer")
	}

	again, err := d.Credentials(t.Context())
	if err != nil || again != got || len(w.Assumptions()) != 1 {
		t.Errorf("held credentials were not used: %v", err)
	}
	d.expire(t, false)
	if renewed, err := d.Credentials(t.Context()); err != nil || renewed == got || len(w.Assumptions()) != 2 || p.asked("refresh_token") != 0 {
		t.Errorf("the token was not used again: %v", err)
	}
	before, _ := d.Store.load(d.Profile.key())
	d.expire(t, true)
	if _, err := d.Credentials(t.Context()); err != nil || len(w.Assumptions()) != 3 || p.asked("refresh_token") != 1 {
		t.Errorf("the refresh token was not used: %v", err)
	}
	after, err := d.Store.load(d.Profile.key())
	if err != nil || after.Refresh == before.Refresh || after.Refresh == "" {
		t.Errorf("the refresh token was not replaced by its successor: %v", err)
	}
	d.wg.Wait()
	if len(d.opened) != 1 {
		t.Errorf("the person was asked %d times", len(d.opened))
	}
	p.errors = []string{"invalid_grant"} // the provider ends the sign-in
	d.expire(t, true)
	if _, err := d.Credentials(t.Context()); err != nil {
		t.Error(err)
	}
	d.wg.Wait()
	if len(d.opened) != 2 {
		t.Errorf("the person was asked %d times, want once more", len(d.opened)-1)
	}
	for _, secret := range append(d.secrets(t), before.Refresh, before.IDToken) {
		if strings.Contains(d.messages.String(), secret) {
			t.Error("a message has a secret")
		}
	}
}

// A person signs in on another device, by a code.
func TestDevice(t *testing.T) {
	p := newProvider(t)
	w, endpoint := fakeSTS(t, p, nil)
	d := newDesk(t, p, endpoint)
	d.Profile.Device = true
	var pauses []time.Duration
	d.After = func(wait time.Duration) <-chan time.Time {
		pauses = append(pauses, wait)
		if len(pauses) == 4 { // in the meantime the person enters the code
			code := userCode.FindStringSubmatch(d.messages.String())
			if code == nil {
				t.Errorf("no code was shown: %s", &d.messages)
			} else if err := p.CompleteDeviceAuthorization(t.Context(), code[1], subject); err != nil {
				t.Error(err)
			}
		}
		c := make(chan time.Time, 1)
		c <- time.Now()
		return c
	}
	p.errors = []string{"", "slow_down"}
	got, err := d.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if arn := whoami(t, got, endpoint); arn != principal || w.Assumptions()[0].Tags["team"] != "search" {
		t.Errorf("AWS sees %s", arn)
	}
	if want := []time.Duration{5 * time.Second, 5 * time.Second, 10 * time.Second, 10 * time.Second}; !slices.Equal(pauses, want) {
		t.Errorf("asked after %v, want %v", pauses, want)
	}
	if len(d.opened) != 0 || !strings.Contains(d.messages.String(), p.url+"/device") {
		t.Errorf("messages: %s", &d.messages)
	}
	for code, said := range map[string]string{"access_denied": "did not sign you in", "expired_token": "in time", "invalid_client": "did not sign you in"} {
		d := newDesk(t, p, endpoint)
		d.Profile.Device = true
		d.After = func(time.Duration) <-chan time.Time { return time.After(0) }
		p.errors = []string{code}
		_, err := d.Credentials(t.Context())
		told, ok := errors.AsType[*waybill.Error](err)
		if !ok || told.Kind != waybill.Unauthenticated || !strings.Contains(told.Message, said) || told.Hint == "" {
			t.Errorf("%s: %v", code, err)
		}
		if strings.Contains(err.Error(), "said of ") && !strings.Contains(err.Error(), "[secret]") {
			t.Errorf("%s: the device code is in the error: %v", code, err)
		}
	}
}

// However many programs ask at once, the person is asked once.
func TestOneIsAsked(t *testing.T) {
	p := newProvider(t)
	w, endpoint := fakeSTS(t, p, nil)
	first := newDesk(t, p, endpoint)
	var wg sync.WaitGroup
	desks := make([]*desk, 8)
	got := make([]Credentials, len(desks))
	for i := range desks {
		desks[i] = newDesk(t, p, endpoint)
		desks[i].Store = first.Store
		wg.Go(func() {
			var err error
			if got[i], err = desks[i].Credentials(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	opened, waited := 0, 0
	for i, d := range desks {
		d.wg.Wait()
		opened += len(d.opened)
		waited += strings.Count(d.messages.String(), "waiting for it")
		if got[i] != got[0] {
			t.Error("two got different sessions")
		}
	}
	if opened != 1 || len(w.Assumptions()) != 1 {
		t.Errorf("%d were asked, %d sessions were made, %d waited", opened, len(w.Assumptions()), waited)
	}
}

// The port takes the one answer that knows its state, from the browser it sent out.
func TestCallback(t *testing.T) {
	p := newProvider(t)
	_, endpoint := fakeSTS(t, p, nil)
	for _, tt := range []struct {
		name  string
		steps func(t *testing.T, redirect, state string)
		said  string // of the error; empty where the sign-in still succeeds
	}{
		{"nonsense, then the real answer", func(t *testing.T, redirect, state string) {
			for what, status := range map[string]int{redirect + "?code=x": 400, redirect + "?code=x&state=wrong": 400, strings.Replace(redirect, "/callback", "/favicon.ico", 1): 404,
				redirect + "?error=access_denied&state=" + state[1:]: 400} {
				if got := fetch(t, "GET", what, ""); got != status {
					t.Errorf("%s: status %d, want %d", what, got, status)
				}
			}
			if got := fetch(t, "POST", redirect+"?code=x&state="+state, ""); got != 404 {
				t.Errorf("POST: status %d", got)
			}
			if got := fetch(t, "GET", redirect+"?code=x&state="+state, "evil.example.com"); got != 421 {
				t.Errorf("another host: status %d", got)
			}
		}, ""},
		{"denied", func(t *testing.T, redirect, state string) {
			fetch(t, "GET", redirect+"?error=access_denied&error_description=no%1b[31m+way&state="+state, "")
		}, "did not sign you in: access_denied: no [31m way"},
		{"another issuer", func(t *testing.T, redirect, state string) {
			fetch(t, "GET", redirect+"?code=x&iss=https://evil.example.com&state="+state, "")
		}, "the answer is not of"},
		{"no code", func(t *testing.T, redirect, state string) { fetch(t, "GET", redirect+"?state="+state, "") }, "without a code"},
		{"a made-up code", func(t *testing.T, redirect, state string) {
			if got := fetch(t, "GET", redirect+"?code=made-up-code&state="+state, ""); got != 403 {
				t.Errorf("status %d", got)
			}
		}, "did not complete the sign-in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, p, endpoint)
			d.OpenBrowser = func(page string) error {
				u, err := url.Parse(page)
				if err != nil {
					return err
				}
				d.wg.Go(func() {
					tt.steps(t, u.Query().Get("redirect_uri"), u.Query().Get("state"))
					if tt.said == "" {
						browse(t, page)
					}
				})
				return nil
			}
			_, err := d.Credentials(t.Context())
			d.wg.Wait()
			if tt.said == "" && err != nil || tt.said != "" && (err == nil || !strings.Contains(err.Error(), tt.said)) {
				t.Errorf("got %v, want %q", err, tt.said)
			}
			if err != nil && strings.Contains(err.Error(), "made-up-code") {
				t.Errorf("the code is in the error: %v", err)
			}
		})
	}
	t.Run("a second answer", func(t *testing.T) {
		c := &callback{host: "127.0.0.1:1", state: "s", answers: make(chan answer, 1), outcome: make(chan error, 2)}
		c.outcome <- nil
		for i, status := range []int{200, 410} {
			r := httptest.NewRequest("GET", "http://127.0.0.1:1/callback?code=x&state=s", nil)
			rec := httptest.NewRecorder()
			c.ServeHTTP(rec, r)
			if rec.Code != status || !strings.Contains(rec.Header().Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("answer %d: status %d", i, rec.Code)
			}
		}
	})
	t.Run("nobody comes", func(t *testing.T) {
		d := newDesk(t, p, endpoint)
		d.OpenBrowser, d.Patience = nil, time.Millisecond
		if _, err := d.Credentials(t.Context()); waybill.KindOf(err) != waybill.Unauthenticated || !strings.Contains(err.Error(), "in time") {
			t.Error(err)
		}
		if !strings.Contains(d.messages.String(), p.url+"/authorize?") {
			t.Errorf("the address was not shown: %s", &d.messages)
		}
	})
}

func fetch(t *testing.T, method, address, host string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	r.Host = host
	a, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return 0
	}
	a.Body.Close()
	return a.StatusCode
}

// Tags come from the token in either form; what is missing is explained, and the person
// is not asked to sign in for it over and over.
func TestTagsOfTheToken(t *testing.T) {
	p := newProvider(t)
	w, endpoint := fakeSTS(t, p, nil)
	p.set(map[string]any{tagsClaim + "/principal_tags/team": "ads", tagsClaim + "/principal_tags/costCenter": []string{"010"}, tagsClaim + "/transitive_tag_keys": []string{"team"},
		"https://aws.amazon.com/source_identity": "user-17"})
	d := newDesk(t, p, endpoint)
	if _, err := d.Credentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := w.Assumptions()[0]; a.Tags["team"] != "ads" || a.Tags["costCenter"] != "010" || a.SourceIdentity != "user-17" || !slices.Equal(a.Transitive, []string{"team"}) {
		t.Errorf("STS saw %+v", a)
	}

	p.set(nil)
	d = newDesk(t, p, endpoint)
	for range 3 {
		_, err := d.Credentials(t.Context())
		told, ok := errors.AsType[*waybill.Error](err)
		if !ok || told.Kind != waybill.Denied || !strings.Contains(told.Message, "lacks the tag team") || !strings.Contains(told.Hint, tagsClaim) {
			t.Errorf("without a required tag: %v", err)
		}
	}
	d.wg.Wait()
	if len(d.opened) != 1 || len(w.Assumptions()) != 1 {
		t.Errorf("the person was asked %d times, STS %d times", len(d.opened), len(w.Assumptions())-1)
	}
	p.set(goodTags()) // the administrator adds the claim: the next refresh brings it
	if _, err := d.Credentials(t.Context()); err != nil || len(d.opened) != 1 {
		t.Errorf("after the claim was added: %v, asked %d times", err, len(d.opened))
	}

	p.set(nil)
	d = newDesk(t, p, endpoint)
	d.Profile.Tags = nil
	if _, err := d.Credentials(t.Context()); err != nil || !strings.Contains(d.messages.String(), "carries no session tags") || !strings.Contains(d.messages.String(), tagsClaim) {
		t.Errorf("without tags: %v; %s", err, &d.messages)
	}
}

// What STS refuses is explained to the person, with whom to ask for what.
func TestSTSRefuses(t *testing.T) {
	p := newProvider(t)
	for _, tt := range []struct {
		name   string
		world  func(*fakeaws.Config)
		change func(*SignIn)
		kind   waybill.ErrorKind
		said   string
		hint   string
	}{
		{"trust", func(c *fakeaws.Config) { c.Roles[0].Federated = nil }, nil, waybill.Denied, "does not trust your sign-in", "sts:AssumeRoleWithWebIdentity"},
		{"tagging", func(c *fakeaws.Config) { c.Roles[0].NoTagging = true }, nil, waybill.Denied, "does not let its sessions be tagged", "sts:TagSession"},
		{"provider", func(c *fakeaws.Config) { c.Providers = nil }, nil, waybill.Denied, "AWS does not take the token", "OpenID Connect provider"},
		{"client", func(c *fakeaws.Config) { c.Providers[0].ClientIDs = []string{"other"} }, nil, waybill.Denied, "Incorrect token audience", clientID},
		{"keys", func(c *fakeaws.Config) {
			c.Providers[0].Keys = func() ([]byte, error) { return nil, errors.New("down") }
		}, nil, waybill.Unavailable, "AWS cannot reach", "key set"},
		{"Region", nil, func(s *SignIn) { s.Profile.STSEndpoint = "http://127.0.0.1:1" }, waybill.Unavailable, "does not answer", "network"},
		{"name", nil, func(s *SignIn) { s.Profile.SessionName = "{email}" }, waybill.Unauthenticated, `no claim "email"`, "--session-name"},
		{"role", nil, func(s *SignIn) { s.Profile.Role += "-other" }, waybill.Denied, "does not trust your sign-in", "the role must exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, endpoint := fakeSTS(t, p, tt.world)
			d := newDesk(t, p, endpoint)
			if tt.change != nil {
				tt.change(d.SignIn)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := d.Credentials(ctx)
			told, ok := errors.AsType[*waybill.Error](err)
			if !ok || told.Kind != tt.kind || !strings.Contains(told.Message, tt.said) || !strings.Contains(told.Hint, tt.hint) {
				t.Errorf("got %v", err)
			}
			for _, secret := range d.secrets(t) {
				if strings.Contains(err.Error()+told.Hint, secret) {
					t.Error("an error has a secret")
				}
			}
			d.wg.Wait()
			if _, err2 := d.Credentials(ctx); err2 == nil || len(d.opened) != 1 {
				t.Errorf("asked %d times, though nothing has changed: %v", len(d.opened), err2)
			}
		})
	}
}

// A life that the role does not give is cut, and said.
func TestLife(t *testing.T) {
	p := newProvider(t)
	for most, want := range map[time.Duration]int{12 * time.Hour: 43200, 0: 3600} {
		w, endpoint := fakeSTS(t, p, func(c *fakeaws.Config) { c.Roles[0].MaxSession = most })
		d := newDesk(t, p, endpoint)
		d.Profile.Life = Duration(12 * time.Hour)
		if _, err := d.Credentials(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.Assumptions()[0].Seconds; got != want || strings.Contains(d.messages.String(), "an hour is asked for") != (want == 3600) {
			t.Errorf("a session of %d s, want %d; %s", got, want, &d.messages)
		}
	}
}

// While STS or the provider is away, what is held is used until its end.
func TestAway(t *testing.T) {
	p := newProvider(t)
	w, endpoint := fakeSTS(t, p, nil)
	d := newDesk(t, p, endpoint)
	got, err := d.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.BreakSTS(true)
	d.Now = func() time.Time { return got.Expiration.Add(-10 * time.Minute) } // due for renewal
	if again, err := d.Credentials(t.Context()); err != nil || again != got || !strings.Contains(d.messages.String(), "lasts 10m0s yet") {
		t.Errorf("%v; %s", err, &d.messages)
	}
	d.Now = func() time.Time { return got.Expiration.Add(-30 * time.Second) }
	d.OpenBrowser, d.Patience = nil, time.Millisecond
	if again, err := d.Credentials(t.Context()); err == nil || again != (Credentials{}) {
		t.Error("credentials of half a minute were given out")
	}
}

// --check tells what is held and asks nobody; --logout forgets it, here and there.
func TestCheckAndLogout(t *testing.T) {
	p := newProvider(t)
	_, endpoint := fakeSTS(t, p, nil)
	d := newDesk(t, p, endpoint)
	st, err := d.Check()
	if err != nil || st.SignedIn || st.Good() || !strings.Contains(st.String(), "signed in    no") {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := d.Credentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err = d.Check()
	if err != nil || !st.Good() || st.Subject != subject || st.PrincipalARN != principal || !st.Refreshes || st.Tags["team"] != "search" {
		t.Errorf("%+v, %v", st, err)
	}
	for _, line := range []string{"signed in    yes", "AWS sees     " + principal, "renews       by itself", "tags         team=search"} {
		if !strings.Contains(st.String(), line) {
			t.Errorf("the page lacks %q:\n%s", line, st)
		}
	}
	d.Profile.Tags = []string{"team", "costCenter"}
	if st, err := d.Check(); err != nil || st.Good() || !slices.Equal(st.Missing, []string{"costCenter"}) {
		t.Errorf("%+v, %v", st, err)
	}
	h, err := d.Store.load(d.Profile.key())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := d.Check(); err != nil || st.SignedIn {
		t.Errorf("after the logout: %+v, %v", st, err)
	}
	left, err := filepath.Glob(filepath.Dir(d.Store.path("x")) + "/*.json")
	if err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	provider, err := d.discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.refresh(t.Context(), h.Refresh); err == nil {
		t.Error("the provider still takes the refresh token")
	}
	if err := d.Logout(t.Context()); err != nil {
		t.Errorf("a second logout: %v", err)
	}
}

// A gateway gives the session in the place of STS: for a sign-in, or for a gateway key.
func TestBroker(t *testing.T) {
	p := newProvider(t)
	gatewayUser := "arn:aws:iam::111122223333:user/gateway"
	w, endpoint := fakeSTS(t, p, func(c *fakeaws.Config) {
		c.Users = []fakeaws.User{{ARN: gatewayUser, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}}
		c.Roles[0].Trusted = []string{gatewayUser}
	})
	sessions := credential.NewSessions(credential.NewSTS(sdkaws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}, endpoint), credential.Config{})
	defer sessions.Close()
	var proofs []string
	refuse := ""
	gateway := httptest.NewServer(&credential.Broker{Sessions: sessions, Decide: func(r *http.Request, asked waybill.Tags) (waybill.Principal, waybill.RoleSession, error) {
		proof := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		proofs = append(proofs, proof)
		if refuse != "" {
			return waybill.Principal{}, waybill.RoleSession{}, &waybill.Error{Kind: waybill.Denied, Code: "WB1305", Message: refuse + proof, Hint: "ask for a role"}
		}
		if proof == "wbk_revoked_secret" {
			return waybill.Principal{}, waybill.RoleSession{}, &waybill.Error{Kind: waybill.Unauthenticated, Code: "WB1001", Message: "the caller is not known"}
		}
		tags := asked.Map()
		tags["team"] = "search"
		return waybill.Principal{Subject: "user-17"}, waybill.RoleSession{RoleARN: role, SessionName: "user-17", Tags: waybill.TagsFromMap(tags)}, nil
	}})
	defer gateway.Close()
	brokered := func() *desk {
		d := newDesk(t, p, "")
		d.Profile.Role, d.Profile.Region, d.Profile.Broker, d.Profile.Ask = "", "", gateway.URL, map[string]string{"feature": "x"}
		return d
	}
	d := brokered()
	got, err := d.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if arn := whoami(t, got, endpoint); arn != "arn:aws:sts::111122223333:assumed-role/bedrock/user-17" || w.Assumptions()[0].Tags["feature"] != "x" || strings.Count(proofs[0], ".") != 2 {
		t.Errorf("AWS sees %s with %v", arn, w.Assumptions()[0].Tags)
	}
	if st, err := d.Check(); err != nil || !st.Good() || st.Tags["team"] != "search" || st.Broker != gateway.URL {
		t.Errorf("%+v, %v", st, err)
	}

	d = brokered()
	d.Profile.Issuer, d.Profile.ClientID, d.Profile.KeyEnv, d.Key = "", "", "WAYBILL_KEY", "wbk_a_secret"
	if _, err := d.Credentials(t.Context()); err != nil || len(d.opened) != 0 || proofs[len(proofs)-1] != "wbk_a_secret" {
		t.Errorf("by a gateway key: %v", err)
	}
	refuse = "not you, "
	d = brokered()
	_, err = d.Credentials(t.Context())
	told, ok := errors.AsType[*waybill.Error](err)
	if !ok || told.Kind != waybill.Denied || !strings.Contains(told.Message, "not you, [secret] [WB1305]") || told.Hint != "ask for a role" {
		t.Errorf("refused: %v", err)
	}
	refuse = ""
	d = brokered()
	d.Profile.KeyEnv, d.Key = "WAYBILL_KEY", "wbk_revoked_secret"
	if _, err := d.Credentials(t.Context()); waybill.KindOf(err) != waybill.Unauthenticated {
		t.Errorf("a revoked key: %v", err)
	}
	for status, kind := range map[int]waybill.ErrorKind{404: waybill.Denied, 502: waybill.Unavailable, 200: waybill.Unavailable} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		d := brokered()
		d.Profile.Broker, d.Profile.KeyEnv, d.Key = other.URL, "WAYBILL_KEY", "wbk_a_secret"
		if _, err := d.Credentials(t.Context()); waybill.KindOf(err) != kind || strings.Contains(err.Error(), "wbk_") {
			t.Errorf("status %d: %v", status, err)
		}
		other.Close()
	}
}

// What is sent to a server is not sent on to where it points.
func TestNoRedirects(t *testing.T) {
	leaked := false
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked = true }))
	defer thief.Close()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	}))
	defer gateway.Close()
	store, err := NewStore(t.TempDir()+"/cache", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &SignIn{Profile: Profile{Broker: gateway.URL, KeyEnv: "K"}, Key: "wbk_a_secret", Store: store}
	if _, err := s.Credentials(t.Context()); err == nil || leaked {
		t.Errorf("leaked %v, %v", leaked, err)
	}
}

func TestWrite(t *testing.T) {
	c := Credentials{Version: 1, AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "s/+'x", SessionToken: "t", Expiration: time.Date(2026, 11, 23, 18, 0, 0, 5, time.FixedZone("", 3600))}
	for format, want := range map[string]string{
		"json": `{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"s/+'x","SessionToken":"t","Expiration":"2026-11-23T17:00:00Z"}` + "\n",
		"env":  "export AWS_ACCESS_KEY_ID='ASIAEXAMPLE'\nexport AWS_SECRET_ACCESS_KEY='s/+'\\''x'\nexport AWS_SESSION_TOKEN='t'\nexport AWS_CREDENTIAL_EXPIRATION='2026-11-23T17:00:00Z'\n",
	} {
		var b strings.Builder
		if err := c.Write(&b, format); err != nil || b.String() != want {
			t.Errorf("%s: %s, %v", format, &b, err)
		}
	}
}
