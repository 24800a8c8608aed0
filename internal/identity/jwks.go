package identity

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// algorithms are those whose signatures we can verify: asymmetric ones only. None and
// HS* are not among them, so no configuration can allow them.
var algorithms = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256, "RS384": jwt.SigningMethodRS384, "RS512": jwt.SigningMethodRS512,
	"PS256": jwt.SigningMethodPS256, "PS384": jwt.SigningMethodPS384, "PS512": jwt.SigningMethodPS512,
	"ES256": jwt.SigningMethodES256, "ES384": jwt.SigningMethodES384, "ES512": jwt.SigningMethodES512,
	"EdDSA": jwt.SigningMethodEdDSA,
}

// A publicKey is a key of an issuer.
type publicKey struct {
	kid, alg string // alg may be empty
	key      crypto.PublicKey
}

// fits reports whether signatures of an algorithm can be verified with the key. It is
// what keeps an RSA key from being taken for the secret of HS256, and a curve for
// another.
func (k *publicKey) fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return alg == "ES256" && key.Curve == elliptic.P256() || alg == "ES384" && key.Curve == elliptic.P384() || alg == "ES512" && key.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// A publicKeys is the key set of an issuer, as it was at one time.
type publicKeys struct {
	byID    map[string][]publicKey
	all     []publicKey
	digest  [sha256.Size]byte
	fetched time.Time
	version uint64 // changes when the keys do
}

// find gives the keys that may have signed a token. An issuer may use an id twice, for
// different algorithms; a token without an id is good if only one key comes into
// question. What is found may be nothing.
func (s *publicKeys) find(t *token) []publicKey {
	from := s.all
	if t.hasKid {
		from = s.byID[t.kid]
	}
	var list []publicKey
	for _, k := range from {
		if k.fits(t.alg) {
			list = append(list, k)
		}
	}
	if len(list) > 1 && !t.hasKid || len(list) > maxSameID {
		return nil
	}
	return list
}

// What we read from an issuer at most.
const (
	maxAnswer = 1 << 20
	maxKeys   = 500
	maxSameID = 3 // keys under one id that a token makes us try
)

// parseKeys reads a key set. Keys that we cannot use are left out (encryption keys,
// secrets, curves that we do not know, weak ones): issuers publish them side by side. A
// set without any key that we can use is an error.
func parseKeys(raw []byte) (*publicKeys, error) {
	if _, err := readObject(raw); err != nil {
		return nil, fmt.Errorf("the key set is not a JSON object: %w", err)
	}
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("the key set cannot be read: %w", err)
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys, more than %d", len(doc.Keys), maxKeys)
	}
	set := &publicKeys{byID: make(map[string][]publicKey), digest: sha256.Sum256(raw)}
	for _, one := range doc.Keys {
		k, ok := parseKey(one)
		if !ok {
			continue
		}
		set.all = append(set.all, k)
		if k.kid != "" {
			set.byID[k.kid] = append(set.byID[k.kid], k)
		}
	}
	if len(set.all) == 0 {
		return nil, fmt.Errorf("none of the %d keys in the key set can verify a signature", len(doc.Keys))
	}
	return set, nil
}

// parseKey reads the public part of a key. Certificates in it are not looked at:
// jwkset would fetch x5u.
func parseKey(raw []byte) (publicKey, bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(raw, &m) != nil || m.USE != "" && m.USE != jwkset.UseSig || m.KTY == jwkset.KtyOct {
		return publicKey{}, false
	}
	if len(m.KEYOPS) > 0 {
		verifies := false
		for _, op := range m.KEYOPS {
			verifies = verifies || op == jwkset.KeyOpsVerify
		}
		if !verifies {
			return publicKey{}, false
		}
	}
	bare := jwkset.JWKMarshal{KTY: m.KTY, CRV: m.CRV, N: m.N, E: m.E, X: m.X, Y: m.Y}
	jwk, err := jwkset.NewJWKFromMarshal(bare, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return publicKey{}, false
	}
	k := publicKey{kid: m.KID, alg: string(m.ALG), key: jwk.Key()}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < 2048 || n > 8192 || key.E < 3 || key.E%2 == 0 {
			return publicKey{}, false
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return publicKey{}, false
	}
	return k, len(k.kid) <= maxKeyID
}

// A keySource has the keys of one issuer: it fetches them on a timer, and when a token
// names one that it does not have. Fetching is its own goroutine's; a call waits for it
// at most a while. While the issuer cannot be reached the last keys stay good for a
// time.
//
// keyfunc, whose parser of keys this uses, could do the fetching; but with it a call
// waits in the fetch that it causes, an answer has no bound, one odd key voids the set,
// and a token without an id is tried against every key.
type keySource struct {
	issuer    string
	discovery string // URL of the discovery document; empty: keysURL is known
	keysURL   string
	allowHTTP bool
	tokenFile string
	client    *http.Client
	wait      time.Duration
	refresh   time.Duration
	askEvery  time.Duration
	staleFor  time.Duration

	set  atomic.Pointer[publicKeys]
	wake chan struct{} // has room for one

	mu        sync.Mutex    // guards what follows
	done      chan struct{} // closed when the fetch that is under way ends; nil: none is
	lastAsked time.Time
	err       error // of the last fetch
	failures  int   // since the last success
}

// run fetches until the context ends.
func (s *keySource) run(ctx context.Context) {
	for {
		s.fetch(ctx)
		timer := time.NewTimer(s.pause())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// pause is how long to wait until the next fetch on the timer: with jitter, so that
// replicas do not come together; sooner after failures, though never as soon as the
// tokens of strangers could make it.
func (s *keySource) pause() time.Duration {
	s.mu.Lock()
	failures := s.failures
	s.mu.Unlock()
	d := s.refresh
	if failures > 0 {
		d = min(d, s.askEvery<<min(failures-1, 3))
	}
	return d - time.Duration(rand.Int64N(int64(d)/10+1))
}

func (s *keySource) fetch(ctx context.Context) {
	s.mu.Lock()
	if s.done == nil {
		s.done = make(chan struct{})
	}
	s.mu.Unlock()
	next, err := s.get(ctx)
	now := time.Now()
	if err == nil {
		next.fetched = now
		if old := s.set.Load(); old != nil {
			next.version = old.version
			if next.digest != old.digest {
				next.version++
			}
		}
		s.set.Store(next)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err != nil {
		s.failures++
	} else {
		s.failures = 0
	}
	close(s.done)
	s.done = nil
}

// keys gives the current keys, if they are fresh enough to be relied on.
func (s *keySource) keys() *publicKeys {
	set := s.set.Load()
	if set == nil || time.Since(set.fetched) > s.staleFor {
		return nil
	}
	return set
}

// find gives the keys that may have signed a token. If the key that it names is not
// among them, or there are none, it has the keys fetched, though not more often than
// once in a while, and waits for that a bounded time: other calls do not wait.
func (s *keySource) find(ctx context.Context, t *token) ([]publicKey, *publicKeys, error) {
	set := s.keys()
	if set != nil && (!t.hasKid || len(set.byID[t.kid]) > 0) {
		return keysOr(set.find(t), set)
	}
	if done := s.ask(); done != nil {
		timer := time.NewTimer(s.wait)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		case <-ctx.Done():
		}
		set = s.keys()
	}
	if set == nil {
		return nil, nil, &Refusal{Reason: ReasonKeySet, Issuer: s.issuer}
	}
	return keysOr(set.find(t), set)
}

func keysOr(list []publicKey, set *publicKeys) ([]publicKey, *publicKeys, error) {
	if len(list) == 0 {
		return nil, nil, refuse(ReasonKeyID)
	}
	return list, set, nil
}

// ask has the keys fetched unless that was asked for a moment ago. It gives what closes
// when the fetch ends, or nil if none is under way.
func (s *keySource) ask() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		return s.done
	}
	if now := time.Now(); s.lastAsked.IsZero() || now.Sub(s.lastAsked) >= s.askEvery {
		s.lastAsked = now
		s.done = make(chan struct{})
		select {
		case s.wake <- struct{}{}:
		default: // a fetch is about to begin anyway
		}
		return s.done
	}
	return nil
}

// get fetches the discovery document, if there is one, and the key set.
func (s *keySource) get(ctx context.Context) (*publicKeys, error) {
	from := s.keysURL
	if s.discovery != "" {
		raw, err := s.read(ctx, s.discovery)
		if err != nil {
			return nil, err
		}
		doc, err := readObject(raw)
		if err != nil {
			return nil, fmt.Errorf("%s is not a JSON object: %w", s.discovery, err)
		}
		if doc["issuer"] != s.issuer {
			return nil, fmt.Errorf("%s is the discovery document of another issuer than %q: the texts must be the same, to the last solidus", s.discovery, s.issuer)
		}
		if from, _ = doc["jwks_uri"].(string); from == "" {
			return nil, fmt.Errorf("%s has no jwks_uri", s.discovery)
		}
	}
	raw, err := s.read(ctx, from)
	if err != nil {
		return nil, err
	}
	set, err := parseKeys(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return set, nil
}

// read gets a document: one request, no redirects, no more bytes than a document has.
func (s *keySource) read(ctx context.Context, from string) ([]byte, error) {
	u, err := checkURL(from, s.allowHTTP)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", from, err)
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	if s.tokenFile != "" && u.Host == s.home() {
		// Read each time: projected tokens change.
		t, err := os.ReadFile(s.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token to get %s with: %w", from, err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(t)))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err // names the method and the URL
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: status %d", from, resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", from, err)
	}
	if len(raw) > maxAnswer {
		return nil, fmt.Errorf("get %s: the answer has more than %d bytes", from, maxAnswer)
	}
	return raw, nil
}

// home is the host that the token of tokenFile is for.
func (s *keySource) home() string {
	u, err := url.Parse(cmp.Or(s.discovery, s.keysURL))
	if err != nil {
		return ""
	}
	return u.Host
}

// checkURL refuses what keys must not be fetched from: plain HTTP lets anybody on the
// way put in a key.
func checkURL(text string, allowHTTP bool) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not the URL of an issuer or its keys", text)
	}
	if u.Scheme == "https" || u.Scheme == "http" && (allowHTTP || isLoopback(u.Hostname())) {
		return u, nil
	}
	return nil, fmt.Errorf("%s is not https: anybody on the way could put in keys of their own", text)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ready says why tokens of the issuer cannot be accepted, or soon will not be.
func (s *keySource) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys() != nil {
		return nil
	}
	return fmt.Errorf("issuer %s: no keys to verify tokens with: %w", s.issuer, cmp.Or(s.err, errors.New("not fetched yet")))
}
