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

// Keys is a store of gateway keys in a file of one JSON object a line. The file is
// read again when it changes: a revoked key stops working within a second.
type Keys struct {
	path string
	now  func() time.Time

	set     atomic.Pointer[keySet]
	mu      sync.Mutex // guards reading again
	checked atomic.Int64
}

type keySet struct {
	byID  map[string]*Key
	list  []Key
	stamp string
}

// recheck is how often the file is looked at.
const recheck = time.Second

// OpenKeys opens a key file. One that does not exist has no keys. Mistakes name the
// line.
func OpenKeys(path string) (*Keys, error) {
	k := &Keys{path: path, now: time.Now}
	if err := k.load(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Keys) load() error {
	raw, err := os.ReadFile(k.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read gateway keys: %w", err)
	}
	set := &keySet{byID: make(map[string]*Key), stamp: stamp(k.path)}
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

func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// fresh is the current set; a file that changed to something unreadable leaves the old
// one in force.
func (k *Keys) fresh() *keySet {
	now := k.now().UnixNano()
	last := k.checked.Load()
	if now-last > int64(recheck) && k.checked.CompareAndSwap(last, now) {
		if set := k.set.Load(); stamp(k.path) != set.stamp {
			k.mu.Lock()
			_ = k.load() // `waybill keys list` and waybilld --check say what is wrong
			k.mu.Unlock()
		}
	}
	return k.set.Load()
}

// Refused is the one error of every proof that does not hold.
func refused() error {
	return &waybill.Error{Kind: waybill.Unauthenticated, Code: "WB1001", Message: "the caller is not known",
		Hint: "send a live gateway key as bearer token, x-api-key or api-key"}
}

// Authenticate reads the gateway key of a request from Authorization, x-api-key or
// api-key. What it refuses it refuses in one shape and without a hint at what was
// wrong; only a Bedrock API key is told apart, since it must never be sent here.
func (k *Keys) Authenticate(r *http.Request) (waybill.Principal, error) {
	token := bearer(r.Header)
	if strings.HasPrefix(token, "bedrock-api-key-") || strings.HasPrefix(token, "ABSK") {
		return waybill.Principal{}, &waybill.Error{Kind: waybill.Unauthenticated, Code: "WB1002",
			Message: "this is an Amazon Bedrock API key, and was not passed on", Hint: "use a gateway key; revoke the Bedrock key if it was shared"}
	}
	id, secret, ok := splitKey(token)
	if !ok {
		return waybill.Principal{}, refused()
	}
	sum := sha256.Sum256([]byte(secret))
	set := k.fresh()
	key := set.byID[id]
	want := make([]byte, sha256.Size)
	if key != nil {
		if h, err := hex.DecodeString(key.Hash); err == nil {
			copy(want, h)
		}
	}
	if subtle.ConstantTimeCompare(sum[:], want) != 1 || key == nil || !key.Live(k.now()) {
		return waybill.Principal{}, refused()
	}
	return waybill.Principal{Subject: key.Subject, Issuer: "gateway-key", Method: "key", KeyID: key.ID, Tags: key.Tags,
		Models: key.Models, Environments: key.Environments}, nil
}

// bearer is the token of a request: of the three headers, the first that has one.
func bearer(h http.Header) string {
	for _, v := range h.Values("Authorization") {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	for _, name := range []string{"X-Api-Key", "Api-Key"} {
		if v := h.Get(name); v != "" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func splitKey(token string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(token, keyPrefix)
	if !ok || len(rest) > 200 {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, "_")
	return id, secret, ok && id != "" && secret != ""
}

// List gives all keys, as stored.
func (k *Keys) List() []Key { return slices.Clone(k.set.Load().list) }

// Create makes a key and returns its only showing. Fields of spec that are the
// store's own (ID, Hash, Created) are filled in.
func (k *Keys) Create(spec Key) (token string, key Key, err error) {
	if spec.Subject == "" {
		return "", Key{}, &waybill.Error{Kind: waybill.Misused, Message: "a key needs a subject: whose it is"}
	}
	var raw [40]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", Key{}, fmt.Errorf("create gateway key: %w", err)
	}
	secret := base64.RawURLEncoding.EncodeToString(raw[8:])
	sum := sha256.Sum256([]byte(secret))
	spec.Sealed = ""
	spec.ID, spec.Hash, spec.Created = hex.EncodeToString(raw[:8]), hex.EncodeToString(sum[:]), k.now().UTC().Truncate(time.Second)
	err = k.change(func(list []Key) ([]Key, error) { return append(list, spec), nil })
	if err != nil {
		return "", Key{}, err
	}
	return keyPrefix + spec.ID + "_" + secret, spec, nil
}

// Rotate makes a key like another, which stays good for the overlap.
func (k *Keys) Rotate(id string, overlap time.Duration) (token string, key Key, err error) {
	old := k.set.Load().byID[id]
	if old == nil {
		return "", Key{}, noKey(id)
	}
	if old.Sealed != "" {
		return "", Key{}, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s is a signing key", id), Hint: "rotate it as one: with --signing"}
	}
	spec := *old
	spec.Replaces, spec.Revoked, spec.Expires = id, nil, nil
	token, key, err = k.Create(spec)
	if err != nil {
		return "", Key{}, err
	}
	return token, key, k.revokeAt(id, k.now().Add(overlap))
}

// Revoke ends a key now.
func (k *Keys) Revoke(id string) error { return k.revokeAt(id, k.now()) }

func noKey(id string) error {
	return &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("there is no gateway key %q", id), Hint: "waybill keys list shows them"}
}

func (k *Keys) revokeAt(id string, at time.Time) error {
	at = at.UTC().Truncate(time.Second)
	return k.change(func(list []Key) ([]Key, error) {
		for i := range list {
			if list[i].ID == id {
				if list[i].Revoked == nil || at.Before(*list[i].Revoked) {
					list[i].Revoked = &at
				}
				return list, nil
			}
		}
		return nil, noKey(id)
	})
}

// change rewrites the file: a new one beside it, synced, and renamed over it.
func (k *Keys) change(f func([]Key) ([]Key, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
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
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return fmt.Errorf("write gateway keys: %w", err)
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
