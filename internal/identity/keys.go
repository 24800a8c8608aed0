package identity

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill"
)

// keyPrefix begins every gateway key, so that a scanner can find one that leaked.
const keyPrefix = "wbk_"

// keyIssuer vouches for the subjects of gateway keys.
const keyIssuer = "gateway-key"

// A Key is a gateway key as it is stored: with the hash of its secret, never the
// secret. The secret has 256 random bits, so a plain SHA-256 cannot be reversed. A
// signing key has its secret sealed in place of the hash: see SigningKeys.
type Key struct {
	ID           string       `json:"id"`
	Hash         string       `json:"hash,omitempty"`   // SHA-256 of the secret, hexadecimal
	Sealed       string       `json:"sealed,omitempty"` // the secret of a signing key, encrypted
	Subject      string       `json:"subject"`
	Tags         waybill.Tags `json:"tags"`
	Models       []string     `json:"models,omitempty"`
	Environments []string     `json:"environments,omitempty"`
	Created      time.Time    `json:"created"`
	Expires      *time.Time   `json:"expires,omitempty"`
	Revoked      *time.Time   `json:"revoked,omitempty"`
	Replaces     string       `json:"replaces,omitempty"`
}

// Live reports whether the key is good at a time.
func (k *Key) Live(now time.Time) bool {
	return (k.Expires == nil || now.Before(*k.Expires)) && (k.Revoked == nil || now.Before(*k.Revoked))
}

// NewKey makes a key and its token, which is shown this once. Fields of spec that are
// not for the maker to choose (ID, Hash, Created) are filled in.
func NewKey(spec Key, now time.Time) (token string, key Key, err error) {
	if spec.Subject == "" {
		return "", Key{}, &waybill.Error{Kind: waybill.Misused, Message: "a key needs a subject: whose it is"}
	}
	if spec.Expires != nil && !now.Before(*spec.Expires) {
		return "", Key{}, &waybill.Error{Kind: waybill.Misused, Message: "the key would have expired before it was made"}
	}
	var raw [40]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", Key{}, fmt.Errorf("create gateway key: %w", err)
	}
	secret := base64.RawURLEncoding.EncodeToString(raw[8:])
	sum := sha256.Sum256([]byte(secret))
	spec.Sealed = ""
	spec.ID, spec.Hash, spec.Created = hex.EncodeToString(raw[:8]), hex.EncodeToString(sum[:]), now.UTC().Truncate(time.Second)
	return keyPrefix + spec.ID + "_" + secret, spec, nil
}

// Successor makes a key like another one, that lives as long from now as the other did
// from its beginning. A key that has ended has no successor: rotating must not bring
// back what was taken away.
func (k *Key) Successor(now time.Time) (token string, key Key, err error) {
	if !k.Live(now) {
		return "", Key{}, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("gateway key %q has ended", k.ID), Hint: "make a new one with waybill keys create"}
	}
	if k.Sealed != "" {
		return "", Key{}, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s is a signing key", k.ID), Hint: "rotate it as one: with --signing"}
	}
	spec := *k
	spec.Replaces, spec.Revoked = k.ID, nil
	if k.Expires != nil {
		at := now.Add(k.Expires.Sub(k.Created)).UTC().Truncate(time.Second)
		spec.Expires = &at
	}
	return NewKey(spec, now)
}

// RevokeAt ends a key at a time. A key that ends earlier is left alone.
func (k *Key) RevokeAt(at time.Time) {
	at = at.UTC().Truncate(time.Second)
	if k.Revoked == nil || at.Before(*k.Revoked) {
		k.Revoked = &at
	}
}

// A KeyStore finds a gateway key by its id. It is asked at every call, so it answers
// from memory. It answers nil where there is none, and an error where what it has in
// memory is too old to be relied on.
type KeyStore interface {
	Lookup(id string) (*Key, error)
}

// KeyMethod is the method of gateway keys, taken from Authorization, x-api-key and
// api-key.
func KeyMethod(store KeyStore) Method {
	return keyMethod(store, time.Now)
}

func keyMethod(store KeyStore, now func() time.Time) Method {
	prove := func(r *http.Request) (principal, error) { return proveKey(r, store, now()) }
	return Method{Name: "key", Claims: func(r *http.Request) bool { return brings(r.Header, isGatewayKey) },
		Authenticate: func(r *http.Request) (waybill.Principal, error) {
			p, err := prove(r)
			return p.Principal, err
		}, prove: prove}
}

// proveKey says whose the keys of a request are. The first decides; the others must be
// good and of the same caller.
func proveKey(r *http.Request, store KeyStore, now time.Time) (principal, error) {
	var first principal
	last := ""
	for token := range tokens(r.Header) {
		if !isGatewayKey(token) || token == last {
			continue
		}
		p, err := checkKey(token, store, now)
		if err != nil {
			return principal{}, err
		}
		if last == "" {
			first = p
		} else if !sameCaller(&first, &p) {
			return principal{}, refuse(ReasonDisagree)
		}
		last = token
	}
	if last == "" {
		return principal{}, refuse(ReasonNoProof)
	}
	return first, nil
}

// checkKey looks a key up by its id, which is public, and compares the hash of its
// secret in constant time: of a key that does not exist, and of a signing key, with
// zeros.
func checkKey(token string, store KeyStore, now time.Time) (principal, error) {
	id, secret, ok := splitKey(token)
	if !ok {
		return principal{}, refuse(ReasonMalformed)
	}
	var room [64]byte // a secret has 43
	sum := sha256.Sum256(append(room[:0], secret...))
	key, err := store.Lookup(id)
	if err != nil {
		return principal{}, refuse(ReasonStale)
	}
	want := make([]byte, sha256.Size)
	if key != nil && key.Sealed == "" {
		if h, err := hex.DecodeString(key.Hash); err == nil {
			copy(want, h)
		}
	}
	same := subtle.ConstantTimeCompare(sum[:], want) == 1
	switch {
	case key == nil:
		return principal{}, refuse(ReasonUnknownKey)
	case !same:
		return principal{}, &Refusal{Reason: ReasonSecret, Issuer: keyIssuer, KeyID: key.ID}
	case key.Revoked != nil && !now.Before(*key.Revoked):
		return principal{}, &Refusal{Reason: ReasonRevoked, Issuer: keyIssuer, KeyID: key.ID, Subject: key.Subject}
	case !key.Live(now):
		return principal{}, &Refusal{Reason: ReasonExpired, Issuer: keyIssuer, KeyID: key.ID, Subject: key.Subject}
	}
	return principal{Principal: waybill.Principal{Subject: key.Subject, Issuer: keyIssuer, Method: "key", KeyID: key.ID, Tags: key.Tags,
		Models: key.Models, Environments: key.Environments}, proof: key.ID}, nil
}

func splitKey(token string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(token, keyPrefix)
	if !ok || len(rest) > 200 {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, "_")
	return id, secret, ok && id != "" && secret != ""
}

// Keys is a store of gateway keys in a file of one JSON object a line. The file is
// read again when it changes: a revoked key stops working within two seconds.
type Keys struct {
	watch
	set atomic.Pointer[keySet]
	mu  sync.Mutex // guards reading again and writing
	err atomic.Pointer[error]
}

type keySet struct {
	byID  map[string]*Key
	list  []Key
	stamp stamp
}

// OpenKeys opens a key file. One that does not exist has no keys. Mistakes name the
// line.
func OpenKeys(path string) (*Keys, error) {
	k := &Keys{watch: watch{path: path, now: time.Now}}
	if err := k.load(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Keys) load() error {
	set := &keySet{byID: make(map[string]*Key), stamp: stampOf(k.path)}
	raw, err := os.ReadFile(k.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read gateway keys: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var key Key
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&key); err != nil || key.ID == "" || (len(key.Hash) == 64) == (key.Sealed != "") || key.Subject == "" {
			return fmt.Errorf("read gateway keys: %s:%d is not a key: a line has id, hash (or sealed) and subject at least", k.path, n)
		}
		set.list = append(set.list, key)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read gateway keys: %w", err)
	}
	for i := range set.list {
		if set.byID[set.list[i].ID] != nil {
			return fmt.Errorf("read gateway keys: %s: key %s is there twice", k.path, set.list[i].ID)
		}
		set.byID[set.list[i].ID] = &set.list[i]
	}
	k.set.Store(set)
	return nil
}

// fresh is the current set; a file that changed to something unreadable leaves the old
// one in force.
func (k *Keys) fresh() *keySet {
	set := k.set.Load()
	if !k.due() || !set.stamp.changed(k.path) {
		return set
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(); err != nil {
		k.err.Store(&err)
	} else {
		k.err.Store(nil)
	}
	return k.set.Load()
}

// Err says why the file could not be read again, for readiness: the keys that were read
// last are in force.
func (k *Keys) Err() error {
	k.fresh()
	if err := k.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Lookup finds a key by its id.
func (k *Keys) Lookup(id string) (*Key, error) { return k.fresh().byID[id], nil }

// Method is the method of the keys of this file.
func (k *Keys) Method() Method { return keyMethod(k, k.now) }

// Authenticate reads the gateway key of a request from Authorization, x-api-key or
// api-key: for a gateway that knows no other proof. What it refuses it refuses in one
// shape; only a Bedrock API key is told apart, since it must never be sent here.
func (k *Keys) Authenticate(r *http.Request) (waybill.Principal, error) {
	if err := checkTokens(r.Header); err != nil {
		return waybill.Principal{}, err
	}
	p, err := proveKey(r, k, k.now())
	return p.Principal, err
}

// List gives all keys, as stored.
func (k *Keys) List() []Key { return slices.Clone(k.set.Load().list) }

// Create makes a key and returns its only showing. Fields of spec that are the
// store's own (ID, Hash, Created) are filled in.
func (k *Keys) Create(spec Key) (token string, key Key, err error) {
	token, key, err = NewKey(spec, k.now())
	if err != nil {
		return "", Key{}, err
	}
	err = k.change(func(list []Key) ([]Key, error) { return append(list, key), nil })
	if err != nil {
		return "", Key{}, err
	}
	return token, key, nil
}

// Rotate makes a key like another, which stays good for the overlap. Both happen or
// neither.
func (k *Keys) Rotate(id string, overlap time.Duration) (token string, key Key, err error) {
	err = k.change(func(list []Key) ([]Key, error) {
		i := slices.IndexFunc(list, func(key Key) bool { return key.ID == id })
		if i < 0 {
			return nil, NoKey(id)
		}
		if token, key, err = list[i].Successor(k.now()); err != nil {
			return nil, err
		}
		list[i].RevokeAt(k.now().Add(overlap))
		return append(list, key), nil
	})
	if err != nil {
		return "", Key{}, err
	}
	return token, key, nil
}

// Revoke ends a key now.
func (k *Keys) Revoke(id string) error {
	return k.change(func(list []Key) ([]Key, error) {
		i := slices.IndexFunc(list, func(key Key) bool { return key.ID == id })
		if i < 0 {
			return nil, NoKey(id)
		}
		list[i].RevokeAt(k.now())
		return list, nil
	})
}

// NoKey is the error for an id that no key has.
func NoKey(id string) error {
	return &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("there is no gateway key %q", id), Hint: "waybill keys list shows them"}
}

// change rewrites the file: a new one beside it, synced, and renamed over it. Another
// process that changes it waits for its turn: of two changes at once neither is lost.
func (k *Keys) change(f func([]Key) ([]Key, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return fmt.Errorf("write gateway keys: %w", err)
	}
	unlock, err := lockFile(k.path + ".lock")
	if err != nil {
		return fmt.Errorf("write gateway keys: %w", err)
	}
	defer unlock()
	if err := k.load(); err != nil {
		return err
	}
	list, err := f(slices.Clone(k.set.Load().list))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, key := range list {
		if err := enc.Encode(key); err != nil {
			return fmt.Errorf("write gateway keys: %w", err)
		}
	}
	f2, err := os.CreateTemp(filepath.Dir(k.path), ".keys-*")
	if err != nil {
		return fmt.Errorf("write gateway keys: %w", err)
	}
	defer os.Remove(f2.Name())
	_, err = f2.Write(out.Bytes())
	if err := errors.Join(err, f2.Chmod(0o600), f2.Sync(), f2.Close()); err != nil {
		return fmt.Errorf("write gateway keys: %w", err)
	}
	if err := os.Rename(f2.Name(), k.path); err != nil {
		return fmt.Errorf("write gateway keys: %w", err)
	}
	return k.load()
}
