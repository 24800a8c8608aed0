package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/waybill-dev/waybill"
)

// An Issuer is an OpenID Connect provider whose tokens are taken. URL and Audiences
// must be given; docs/operate/callers.md has the settings of common ones.
type Issuer struct {
	// URL is the issuer, to the letter as tokens have it in iss: an issuer with a
	// solidus at the end is another one.
	URL string
	// Audiences are those of whom a token must name one, to the letter.
	Audiences []string
	// AudienceClaim is where the audience stands: aud if empty. Cognito's access tokens
	// have it in client_id.
	AudienceClaim string
	// Parties are the clients who may have asked for a token; empty: any. The claim of
	// PartyClaim must then be one of them.
	Parties []string
	// PartyClaim is where the client stands: azp if empty; Okta has cid, Entra ID's
	// older tokens appid.
	PartyClaim string
	// Algorithms are those a token may be signed with. RS256, RS384, RS512, PS256,
	// PS384, PS512, ES256, ES384, ES512 and EdDSA if empty, and no others ever.
	Algorithms []string
	// Skew is by how much the issuer's clock may differ from ours. 60 seconds if zero.
	Skew time.Duration
	// MaxLife is how far in the future a token may end. 24 hours if zero.
	MaxLife time.Duration
	// Require are claims that a token must have, with the values they may have: a
	// pattern may hold * for any characters. No values: the claim must be there. Of a
	// list one element must fit.
	Require map[string][]string

	// Subject is the claim that names the caller: sub if empty. It should be one that
	// the issuer gives out once and users cannot change. For email the issuer must not
	// say that it is unverified.
	Subject string
	// Claims are those that policies see, by the name they have there.
	Claims map[string]string
	// Tags are tags that claims give the caller, by key. A request cannot change them.
	Tags map[string]string

	// Discovery is the URL of the discovery document, if it is not under URL.
	Discovery string
	// Keys is the URL of the key set. If it is given there is no discovery.
	Keys string
	// AllowHTTP allows plain HTTP to hosts other than this one: anybody on the way can
	// then be anybody.
	AllowHTTP bool
	// CAFile has the PEM certificates that the issuer's TLS certificate is verified
	// with, instead of the system's: a Kubernetes API server has its own.
	CAFile string
	// TokenFile has a bearer token for discovery and keys, as a Kubernetes API server
	// wants it. It is sent to the host of Discovery or Keys only.
	TokenFile string
}

// OIDCConfig configures OIDC. Issuers is the only field that must be given.
type OIDCConfig struct {
	Issuers []Issuer
	// Wait is how long a call waits at most for an issuer whose keys are needed first.
	// 2 seconds if zero.
	Wait time.Duration
	// Timeout bounds a request to an issuer. 10 seconds if zero.
	Timeout time.Duration
	// Refresh is how often keys are fetched. 15 minutes if zero.
	Refresh time.Duration
	// AskEvery is how often at most a token with an unknown key has keys fetched, per
	// issuer. 10 seconds if zero.
	AskEvery time.Duration
	// StaleFor is how long the last keys stay good while the issuer cannot be reached.
	// 24 hours if zero.
	StaleFor time.Duration
	// CacheFor is how long at most a token that was verified is not verified again:
	// after that a key that the issuer has withdrawn is missed at the latest. 5 minutes
	// if zero.
	CacheFor time.Duration
	// MaxCached bounds the tokens that are remembered as verified, of about 2 KB each.
	// 10,000 if zero.
	MaxCached int
	// Transport is the way to the issuers; nil: HTTP, by the proxy of the environment.
	Transport http.RoundTripper
}

// OIDC takes OpenID Connect tokens, ID tokens and access tokens in the form of a JWT,
// from Authorization, x-api-key and api-key.
type OIDC struct {
	issuers  map[string]*issuer
	cache    *lru.Cache[[sha256.Size]byte, *verified]
	cacheFor time.Duration
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// An issuer is an Issuer that was read.
type issuer struct {
	Issuer
	audience, party, subject claimPath
	emailSubject             bool
	require                  []requirement
	claims, tags             []mapped
	source                   *keySource
}

type requirement struct {
	path   claimPath
	values []pattern
}

// A mapped claim goes by a name of our own.
type mapped struct {
	name string
	path claimPath
}

// verified is what a token was found to be. It is shared and never changed.
type verified struct {
	principal principal
	issuer    *issuer
	keys      uint64 // version of the key set it was verified with
	until     time.Time
	boundTo   string // SHA-256 of the client certificate that it is bound to, base64url
}

// NewOIDC makes the method and begins to fetch keys. An issuer that cannot be reached
// is no error: Ready tells. End it with Close.
func NewOIDC(c OIDCConfig) (*OIDC, error) {
	cache, err := lru.New[[sha256.Size]byte, *verified](cmp.Or(c.MaxCached, 10_000))
	if err != nil {
		return nil, misconfigured("", "the cache of tokens cannot have %d places", c.MaxCached)
	}
	o := &OIDC{issuers: make(map[string]*issuer), cache: cache, cacheFor: cmp.Or(c.CacheFor, 5*time.Minute)}
	if len(c.Issuers) == 0 {
		return nil, misconfigured("", "there is none")
	}
	for _, config := range c.Issuers {
		is, err := newIssuer(config, c)
		if err != nil {
			return nil, err
		}
		if o.issuers[config.URL] != nil {
			return nil, misconfigured(config.URL, "it is there twice")
		}
		o.issuers[config.URL] = is
	}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	for _, is := range o.issuers {
		o.running.Go(func() { is.source.run(ctx) })
	}
	return o, nil
}

// Close ends the fetching of keys and waits for it.
func (o *OIDC) Close() {
	o.stop()
	o.running.Wait()
	for _, is := range o.issuers {
		is.source.client.CloseIdleConnections()
	}
}

func misconfigured(issuer, format string, args ...any) error {
	what := "OIDC issuer"
	if issuer != "" {
		what = fmt.Sprintf("OIDC issuer %q", issuer)
	}
	return &waybill.Error{Kind: waybill.Misused, Message: what + ": " + fmt.Sprintf(format, args...), Hint: "docs/operate/callers.md describes the settings"}
}

func newIssuer(config Issuer, c OIDCConfig) (*issuer, error) {
	is := &issuer{Issuer: config}
	bad := func(format string, args ...any) (*issuer, error) {
		return nil, misconfigured(config.URL, format, args...)
	}
	u, err := checkURL(config.URL, config.AllowHTTP || config.Keys != "" || config.Discovery != "")
	if err != nil || u.RawQuery != "" {
		return bad("it must be an https URL without query: %v", cmp.Or(err, errors.New("it has a query")))
	}
	if len(config.Audiences) == 0 || slices.Contains(config.Audiences, "") {
		return bad("it needs audiences: a token that is meant for somebody else must not be good here")
	}
	if slices.Contains(config.Parties, "") {
		return bad("a party has no name")
	}
	is.Algorithms = config.Algorithms
	if len(is.Algorithms) == 0 {
		for alg := range algorithms {
			is.Algorithms = append(is.Algorithms, alg)
		}
	}
	for _, alg := range is.Algorithms {
		if algorithms[alg] == nil {
			return bad("algorithm %q cannot be allowed: only RS*, PS*, ES* and EdDSA prove who signed", alg)
		}
	}
	is.Skew, is.MaxLife = cmp.Or(config.Skew, time.Minute), cmp.Or(config.MaxLife, 24*time.Hour)
	if is.Skew < 0 || is.Skew > 10*time.Minute || is.MaxLife < 0 {
		return bad("a skew is at most 10 minutes, and neither it nor the longest life is below zero")
	}
	is.Subject = cmp.Or(config.Subject, "sub")
	is.emailSubject = is.Subject == "email"
	for text, path := range map[string]*claimPath{cmp.Or(config.AudienceClaim, "aud"): &is.audience, is.Subject: &is.subject} {
		if *path, err = parseClaimPath(text); err != nil {
			return bad("%v", err)
		}
	}
	if is.party, err = parseClaimPath(cmp.Or(config.PartyClaim, "azp")); err != nil {
		return bad("%v", err)
	}
	for text, values := range config.Require {
		r := requirement{}
		if r.path, err = parseClaimPath(text); err != nil {
			return bad("%v", err)
		}
		for _, v := range values {
			r.values = append(r.values, newPattern(v, ""))
		}
		is.require = append(is.require, r)
	}
	if is.claims, err = newMapping(config.Claims); err != nil {
		return bad("%v", err)
	}
	if is.tags, err = newMapping(config.Tags); err != nil {
		return bad("%v", err)
	}
	client, err := newClient(config, c)
	if err != nil {
		return bad("%v", err)
	}
	is.source = &keySource{issuer: config.URL, discovery: config.Discovery, keysURL: config.Keys, allowHTTP: config.AllowHTTP, tokenFile: config.TokenFile,
		client: client, wait: cmp.Or(c.Wait, 2*time.Second), refresh: cmp.Or(c.Refresh, 15*time.Minute), askEvery: cmp.Or(c.AskEvery, 10*time.Second),
		staleFor: cmp.Or(c.StaleFor, 24*time.Hour), wake: make(chan struct{}, 1),
		done: make(chan struct{})} // the first fetch is as good as under way
	switch {
	case config.Keys != "":
		is.source.discovery = ""
	case config.Discovery == "":
		is.source.discovery = strings.TrimSuffix(config.URL, "/") + "/.well-known/openid-configuration"
	}
	if _, err := checkURL(cmp.Or(is.source.discovery, is.source.keysURL), config.AllowHTTP); err != nil {
		return bad("%v", err)
	}
	return is, nil
}

func newMapping(names map[string]string) ([]mapped, error) {
	var list []mapped
	for name, text := range names {
		path, err := parseClaimPath(text)
		if err != nil {
			return nil, err
		}
		list = append(list, mapped{name, path})
	}
	slices.SortFunc(list, func(a, b mapped) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// newClient is how an issuer is spoken to: without redirects, whose targets nobody has
// configured, and on connections of its own, so that one that hangs hangs alone.
func newClient(config Issuer, c OIDCConfig) (*http.Client, error) {
	transport := c.Transport
	if transport == nil {
		t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
		if config.CAFile != "" {
			pem, err := os.ReadFile(config.CAFile)
			if err != nil {
				return nil, fmt.Errorf("read its certificate authorities: %w", err)
			}
			t.TLSClientConfig.RootCAs = x509.NewCertPool()
			if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%s has no PEM certificate", config.CAFile)
			}
		}
		transport = t
	}
	return &http.Client{Transport: transport, Timeout: cmp.Or(c.Timeout, 10*time.Second),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// Ready says which issuers' tokens cannot be verified for lack of keys. Others can: a
// gateway that is not ready for one issuer should still serve.
func (o *OIDC) Ready() error {
	var errs []error
	for _, is := range o.issuers {
		errs = append(errs, is.source.ready())
	}
	return errors.Join(errs...)
}

// IssuerStatus is what operators may want to know of an issuer.
type IssuerStatus struct {
	URL      string
	Keys     int       // that can verify signatures; 0: none, or too old
	Fetched  time.Time // when keys were fetched last
	Failures int       // of fetching, since then
	Err      error     // of the last fetch
}

// Status tells about the issuers, in the order of their URLs.
func (o *OIDC) Status() []IssuerStatus {
	var list []IssuerStatus
	for _, is := range o.issuers {
		s := IssuerStatus{URL: is.URL}
		if set := is.source.set.Load(); set != nil {
			s.Fetched = set.fetched
			if is.source.keys() != nil {
				s.Keys = len(set.all)
			}
		}
		is.source.mu.Lock()
		s.Failures, s.Err = is.source.failures, is.source.err
		is.source.mu.Unlock()
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b IssuerStatus) int { return strings.Compare(a.URL, b.URL) })
	return list
}

// Method is the method for a Chain.
func (o *OIDC) Method() Method {
	return Method{Name: "oidc", Claims: func(r *http.Request) bool { return brings(r.Header, isToken) }, prove: o.prove,
		Authenticate: func(r *http.Request) (waybill.Principal, error) {
			p, err := o.prove(r)
			return p.Principal, err
		}}
}

// prove says whose the tokens of a request are. The first decides; the others must be
// good and of the same caller.
func (o *OIDC) prove(r *http.Request) (principal, error) {
	var first principal
	last := ""
	for raw := range tokens(r.Header) {
		if !isToken(raw) || raw == last {
			continue
		}
		v, err := o.verify(r.Context(), raw)
		if err == nil {
			err = v.proven(r.TLS)
		}
		if err != nil {
			return principal{}, err
		}
		if last == "" {
			first = v.principal
		} else if !sameCaller(&first, &v.principal) {
			return principal{}, refuse(ReasonDisagree)
		}
		last = raw
	}
	if last == "" {
		return principal{}, refuse(ReasonNoProof)
	}
	return first, nil
}

// verify says what a token is, from memory if it was verified lately.
func (o *OIDC) verify(ctx context.Context, raw string) (*verified, error) {
	if len(raw) > maxTokenBytes {
		return nil, refuse(ReasonTooLarge)
	}
	sum := sha256.Sum256([]byte(raw))
	now := time.Now()
	if v, ok := o.cache.Get(sum); ok {
		if set := v.issuer.source.keys(); set != nil && set.version == v.keys && now.Before(v.until) {
			return v, nil
		}
		o.cache.Remove(sum)
	}
	t, err := readToken(raw)
	if err != nil {
		return nil, err
	}
	v, err := o.judge(ctx, t, now)
	if err != nil {
		return nil, err
	}
	if v.principal.proof = v.principal.jti; !isName(v.principal.proof) {
		v.principal.proof = "sha256:" + hex.EncodeToString(sum[:8])
	}
	if limit := now.Add(o.cacheFor); limit.Before(v.until) {
		v.until = limit
	}
	o.cache.Add(sum, v)
	return v, nil
}

// judge says what a token is: first who signed it, then what it says.
func (o *OIDC) judge(ctx context.Context, t *token, now time.Time) (*verified, error) {
	iss, _ := t.claims["iss"].(string)
	is := o.issuers[iss]
	if is == nil {
		return nil, refuse(ReasonIssuer)
	}
	if !slices.Contains(is.Algorithms, t.alg) {
		return nil, &Refusal{Reason: ReasonAlgorithm, Issuer: iss}
	}
	keys, set, err := is.source.find(ctx, t)
	if err != nil {
		return nil, withIssuer(err, iss)
	}
	method, signed := algorithms[t.alg], false
	for _, k := range keys {
		signed = signed || method.Verify(t.signed, t.signature, k.key) == nil
	}
	if !signed {
		return nil, &Refusal{Reason: ReasonSignature, Issuer: iss}
	}
	v := &verified{issuer: is, keys: set.version}
	if err := is.judge(t, now, v); err != nil {
		why := withIssuer(err, iss)
		if s, ok := is.subject.text(t.claims); ok && isName(s) {
			why.Subject = s // vouched for by the signature
		}
		return nil, why
	}
	return v, nil
}

// withIssuer adds an issuer of ours to a refusal.
func withIssuer(err error, iss string) *Refusal {
	why := &Refusal{Reason: ReasonOther}
	if r, ok := errors.AsType[*Refusal](err); ok {
		*why = *r
	}
	why.Issuer = iss
	return why
}

// judge says whether a token that the issuer has signed is good here and now, and who
// it makes the caller.
func (is *issuer) judge(t *token, now time.Time, v *verified) error {
	if err := is.judgeTimes(t, now, v); err != nil {
		return err
	}
	audiences, ok := texts(is.audience.find(t.claims))
	if !ok || !slices.ContainsFunc(audiences, func(a string) bool { return slices.Contains(is.Audiences, a) }) {
		return refuse(ReasonAudience)
	}
	if len(is.Parties) > 0 {
		if party, ok := is.party.find(t.claims).(string); !ok || !slices.Contains(is.Parties, party) {
			return refuse(ReasonParty)
		}
	}
	for i := range is.require {
		if !is.require[i].holds(t.claims) {
			return refuse(ReasonClaim)
		}
	}
	if err := v.bind(t.claims); err != nil {
		return err
	}
	return is.name(t.claims, v)
}

func (is *issuer) judgeTimes(t *token, now time.Time, v *verified) error {
	exp, ok, err := t.when("exp")
	if err != nil {
		return err
	}
	if !ok {
		return refuse(ReasonNoExpiry)
	}
	if v.until = exp.Add(is.Skew); !now.Before(v.until) {
		return refuse(ReasonExpired)
	}
	if exp.After(now.Add(is.MaxLife + is.Skew)) {
		return refuse(ReasonLife)
	}
	for _, claim := range []string{"nbf", "iat"} {
		at, ok, err := t.when(claim)
		if err != nil {
			return err
		}
		if ok && at.After(now.Add(is.Skew)) {
			return refuse(ReasonNotYet)
		}
	}
	return nil
}

func (r *requirement) holds(claims map[string]any) bool {
	v := r.path.find(claims)
	if v == nil {
		return false
	}
	if len(r.values) == 0 {
		return true
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	return slices.ContainsFunc(list, func(e any) bool {
		s, ok := plainText(e)
		return ok && slices.ContainsFunc(r.values, func(p pattern) bool { return p.matches(s) })
	})
}

// bind takes note of the key that the owner of a token must prove (RFC 7800). We can
// check a client certificate (RFC 8705); a token bound in another way is refused, since
// whoever brings it may have stolen it.
func (v *verified) bind(claims map[string]any) error {
	cnf, ok := claims["cnf"]
	if !ok {
		return nil
	}
	m, _ := cnf.(map[string]any)
	if v.boundTo, ok = m["x5t#S256"].(string); !ok || v.boundTo == "" || len(m) != 1 {
		return refuse(ReasonUnprovenKey)
	}
	return nil
}

// proven reports whether the connection has the certificate that a token is bound to.
func (v *verified) proven(conn *tls.ConnectionState) error {
	if v.boundTo == "" {
		return nil
	}
	if conn != nil && len(conn.PeerCertificates) > 0 {
		sum := sha256.Sum256(conn.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(v.boundTo)) == 1 {
			return nil
		}
	}
	return &Refusal{Reason: ReasonUnprovenKey, Issuer: v.principal.Issuer, Subject: v.principal.Subject}
}

// name makes the claims of a token the caller that it is of.
func (is *issuer) name(claims map[string]any, v *verified) error {
	subject, ok := is.subject.find(claims).(string)
	if !ok || !isName(subject) {
		return refuse(ReasonSubject)
	}
	if verified, there := claims["email_verified"]; is.emailSubject && there && verified != true && verified != "true" {
		return refuse(ReasonSubject) // anybody can claim an address
	}
	p := waybill.Principal{Subject: subject, Issuer: is.URL, Method: "oidc"}
	for _, m := range is.claims {
		if s, ok := m.path.text(claims); ok {
			if !isPlain(s) {
				return refuse(ReasonClaim)
			}
			if p.Claims == nil {
				p.Claims = make(map[string]string, len(is.claims))
			}
			p.Claims[m.name] = s
		}
	}
	var tags []waybill.Tag
	for _, m := range is.tags {
		if s, ok := m.path.text(claims); ok {
			if !isPlain(s) {
				return refuse(ReasonClaim)
			}
			tags = append(tags, waybill.Tag{Key: m.name, Value: s})
		}
	}
	p.Tags = waybill.NewTags(tags...)
	v.principal.Principal = p
	v.principal.jti, _ = claims["jti"].(string)
	return nil
}
