package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"
)

// random is a text that nobody can guess.
func random() string {
	var b [32]byte
	rand.Read(b[:]) // it does not fail
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// byBrowser signs the person in with their browser: authorization code with PKCE, and a
// redirect to a port of this machine that takes one answer.
func (s *SignIn) byBrowser(ctx context.Context, p *provider) (*tokens, error) {
	if p.has.Authorization == "" {
		return nil, signInFailed("use --device, or ask the provider's administrator", "%s has no sign-in by browser", s.Profile.Issuer)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.Profile.Port))
	if err != nil {
		return nil, misused("choose another --port, one that the provider allows", "port %d of this machine cannot be had: %v", s.Profile.Port, err)
	}
	c := &callback{host: listener.Addr().String(), state: random(), issuer: s.Profile.Issuer, tellsIssuer: p.has.TellsIssuer,
		answers: make(chan answer, 1), outcome: make(chan error, 1)}
	server := &http.Server{Handler: c, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }() // it ends with Shutdown
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(last) != nil { // a page that nobody reads
			server.Close()
		}
		<-served
	}()
	nonce, verifier := random(), random()
	challenge := sha256.Sum256([]byte(verifier))
	redirect := "http://" + c.host + "/callback"
	u, err := url.Parse(p.has.Authorization)
	if err != nil {
		return nil, fmt.Errorf("authorization endpoint: %w", err)
	}
	q := u.Query()
	for k, v := range s.Profile.Params {
		q.Set(k, v)
	}
	for k, v := range map[string]string{"response_type": "code", "client_id": s.Profile.ClientID, "redirect_uri": redirect, "scope": p.scopes(),
		"state": c.state, "nonce": nonce, "code_challenge": base64.RawURLEncoding.EncodeToString(challenge[:]), "code_challenge_method": "S256"} {
		q.Set(k, v)
	}
	u.RawQuery = q.Encode()
	if s.OpenBrowser == nil || s.OpenBrowser(u.String()) != nil {
		s.say("Sign in with your browser:\n\n  %s\n", u)
	} else {
		s.say("Your browser asks you to sign in with %s. If it does not open, go to:\n\n  %s\n", s.Profile.Issuer, u)
	}
	var got answer
	select {
	case got = <-c.answers:
	case <-ctx.Done():
		return nil, gaveUp(ctx)
	}
	t, err := s.redeem(ctx, p, got, redirect, verifier, nonce)
	c.outcome <- err
	return t, err
}

func gaveUp(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return signInFailed("run it again, and sign in within that time", "nobody signed in in time")
	}
	return signInFailed("run it again", "the sign-in was broken off")
}

// redeem exchanges the code of an answer for tokens.
func (s *SignIn) redeem(ctx context.Context, p *provider, got answer, redirect, verifier, nonce string) (*tokens, error) {
	if got.err != nil {
		return nil, got.err
	}
	t, err := p.grant(ctx, url.Values{"grant_type": {"authorization_code"}, "code": {got.code}, "redirect_uri": {redirect}, "code_verifier": {verifier}})
	var refused *grantError
	if errors.As(err, &refused) {
		return nil, signInFailed(remedy(refused.Code), "%s did not complete the sign-in: %s", s.Profile.Issuer, refused)
	}
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(t.nonce), []byte(nonce)) != 1 {
		return nil, signInFailed("run it again; if it happens twice, tell the provider's administrator", "the token is not of this sign-in")
	}
	return t, nil
}

// remedy says what to do about a provider's refusal.
func remedy(code string) string {
	switch code {
	case "access_denied":
		return "you, or a rule of the provider, said no: run it again, or ask the provider's administrator for access"
	case "invalid_client", "unauthorized_client":
		return "check --client-id; ask the provider's administrator whether this client may sign in so, and whether it needs a secret (clientSecretEnv)"
	case "invalid_scope":
		return "ask for fewer --scope"
	case "invalid_grant":
		return "run it again: what the browser brought was used, or came too late"
	case "unsupported_grant_type", "unsupported_response_type":
		return "the provider does not allow this way of signing in: try --device, or without it"
	}
	return "run it again, or ask the provider's administrator"
}

// answer is what the browser brings back.
type answer struct {
	code string
	err  error
}

// callback is the redirect's handler. It takes the one answer that knows its state, and
// nothing else from whoever finds the port.
type callback struct {
	host, state, issuer string
	tellsIssuer         bool
	taken               atomic.Bool
	answers             chan answer
	outcome             chan error
}

func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case r.Host != c.host: // another name for this machine: some page's trick
		page(w, http.StatusMisdirectedRequest, "Nothing is here.")
		return
	case r.URL.Path != "/callback" || r.Method != http.MethodGet:
		page(w, http.StatusNotFound, "Nothing is here.")
		return
	case subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(c.state)) != 1:
		page(w, http.StatusBadRequest, "This answer belongs to another sign-in. Go back to the terminal and start again.")
		return
	case !c.taken.CompareAndSwap(false, true):
		page(w, http.StatusGone, "This sign-in has had its answer.")
		return
	}
	c.answers <- c.read(q)
	select {
	case err := <-c.outcome:
		if err != nil {
			page(w, http.StatusForbidden, "The sign-in did not succeed. The terminal says why.")
			return
		}
		page(w, http.StatusOK, "You are signed in. You can close this page and go back to what you were doing.")
	case <-r.Context().Done():
	}
}

func (c *callback) read(q url.Values) answer {
	if iss := q.Get("iss"); iss != "" && iss != c.issuer || iss == "" && c.tellsIssuer {
		return answer{err: signInFailed("run it again; if it happens twice, tell the provider's administrator", "the answer is not of %s", c.issuer)}
	}
	if code := q.Get("error"); code != "" {
		return answer{err: signInFailed(remedy(code), "%s did not sign you in: %s", c.issuer, &grantError{Code: code, Description: without(q.Get("error_description"), c.state)})}
	}
	if q.Get("code") == "" {
		return answer{err: signInFailed("ask the provider's administrator", "%s answered without a code", c.issuer)}
	}
	return answer{code: q.Get("code")}
}

func page(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close")
	w.WriteHeader(status)
	io.WriteString(w, "<!doctype html><title>Waybill</title><p>"+html.EscapeString(text)+"</p>\n")
}

// OpenBrowser opens a page in the person's browser, by the means of the system.
func OpenBrowser(page string) error {
	if !safeURL(page) {
		return errors.New("not a page that is opened")
	}
	name, args := "xdg-open", []string{page}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", page}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	c := exec.Command(path, args...)
	if err := c.Start(); err != nil {
		return err
	}
	go func() { _ = c.Wait() }() // whether the browser is content is between it and the person
	return nil
}
