package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill"
)

// signingPrefix begins the access key id of every signing key. SDKs take any 16 to 128
// letters and digits; a prefix of our own keeps it apart from a key of AWS, and lets a
// scanner find one that leaked.
const signingPrefix = "WBSK"

// A Sealer encrypts the secrets of signing keys under a key that is not in the key
// file. SigV4 is symmetric: who verifies must hold the secret, so it cannot be hashed
// as other gateway keys are. Sealed, the file alone is of no use to a thief.
type Sealer struct{ keys []sealingKey }

type sealingKey struct {
	name string // says which key sealed a secret, and nothing about the key
	aead cipher.AEAD
}

// NewSealingKey makes the text of a sealing key: 32 random bytes in base64.
func NewSealingKey() string {
	var key [32]byte
	rand.Read(key[:]) // it does not fail
	return base64.StdEncoding.EncodeToString(key[:])
}

// NewSealer makes a sealer from the texts of sealing keys: 32 bytes each, in base64 or
// hexadecimal. The first seals; the others only open what they sealed once, so that a
// new key can be put first and the old one taken away after Reseal.
func NewSealer(texts ...string) (*Sealer, error) {
	if len(texts) == 0 {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: "signing keys need a sealing key", Hint: "make one of 32 random bytes: openssl rand -base64 32"}
	}
	s := new(Sealer)
	for i, text := range texts {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil || len(raw) != 32 {
			raw, err = hex.DecodeString(strings.TrimSpace(text))
		}
		if err != nil || len(raw) != 32 {
			// A passphrase would be guessed at leisure by whoever has the file.
			return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("sealing key %d is not 32 bytes in base64 or hexadecimal", i+1),
				Hint: "make one: openssl rand -base64 32"}
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, fmt.Errorf("read sealing key: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("read sealing key: %w", err)
		}
		name := hmac.New(sha256.New, raw)
		name.Write([]byte("waybill sealing key"))
		s.keys = append(s.keys, sealingKey{hex.EncodeToString(name.Sum(nil)[:4]), aead})
	}
	return s, nil
}

// A sealed secret reads "v1.NAME.BASE64": the name of the sealing key, then nonce and
// ciphertext. It is bound to the id of its key, so that it opens on no other line.
const sealVersion = "v1"

func sealedFor(id string) []byte { return []byte("waybill signing key " + id) }

func (s *Sealer) seal(id, secret string) string {
	key := s.keys[0]
	nonce := make([]byte, key.aead.NonceSize(), key.aead.NonceSize()+len(secret)+key.aead.Overhead())
	rand.Read(nonce)
	return sealVersion + "." + key.name + "." + base64.RawURLEncoding.EncodeToString(key.aead.Seal(nonce, nonce, []byte(secret), sealedFor(id)))
}

var errSealed = errors.New("the secret cannot be opened: it was sealed for another key, or changed")

func (s *Sealer) open(id, sealed string) (string, error) {
	version, rest, _ := strings.Cut(sealed, ".")
	name, text, _ := strings.Cut(rest, ".")
	if version != sealVersion {
		return "", errSealed
	}
	for _, key := range s.keys {
		if key.name != name {
			continue
		}
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if n := key.aead.NonceSize(); err == nil && len(raw) > n {
			if secret, err := key.aead.Open(nil, raw[:n], raw[n:], sealedFor(id)); err == nil {
				return string(secret), nil
			}
		}
		return "", errSealed
	}
	return "", fmt.Errorf("the secret was sealed by sealing key %s, which is not among those given", strings.ToValidUTF8(name[:min(len(name), 8)], "?"))
}

// A SigningSecret is what a caller puts where AWS's access key goes. It exists in the
// clear only here, once.
type SigningSecret struct {
	AccessKeyID     string
	SecretAccessKey string
	// SessionToken is for clients that take no credentials without one. Most need
	// none; a request that brings one must bring this one.
	SessionToken string
}

// String is the public part, so that no log has the rest.
func (s SigningSecret) String() string { return s.AccessKeyID }

// NewSigningKey makes a signing key and its secret, which is shown this once. Fields of
// spec that are not for the maker to choose (ID, Hash, Sealed, Created) are filled in.
func NewSigningKey(spec Key, s *Sealer, now time.Time) (SigningSecret, Key, error) {
	if spec.Subject == "" {
		return SigningSecret{}, Key{}, &waybill.Error{Kind: waybill.Misused, Message: "a key needs a subject: whose it is"}
	}
	if spec.Expires != nil && !now.Before(*spec.Expires) {
		return SigningSecret{}, Key{}, &waybill.Error{Kind: waybill.Misused, Message: "the key would have expired before it was made"}
	}
	var raw [40]byte
	rand.Read(raw[:])
	id := signingPrefix + base32.StdEncoding.EncodeToString(raw[:10])
	// As long as AWS's own, since some clients check; without + and /, which some
	// configuration files mangle.
	secret := base64.RawURLEncoding.EncodeToString(raw[10:])
	spec.ID, spec.Hash, spec.Sealed, spec.Created = id, "", s.seal(id, secret), now.UTC().Truncate(time.Second)
	return SigningSecret{id, secret, sessionToken(secret)}, spec, nil
}

// SigningSuccessor makes a signing key like another one, that lives as long from now as
// the other did from its beginning. A key that has ended has no successor.
func SigningSuccessor(old *Key, s *Sealer, now time.Time) (SigningSecret, Key, error) {
	if old.Sealed == "" {
		return SigningSecret{}, Key{}, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s is no signing key", old.ID), Hint: "rotate it without --signing"}
	}
	if !old.Live(now) {
		return SigningSecret{}, Key{}, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("signing key %q has ended", old.ID), Hint: "make a new one with waybill keys create --signing"}
	}
	spec := *old
	spec.Replaces, spec.Revoked = old.ID, nil
	if old.Expires != nil {
		at := now.Add(old.Expires.Sub(old.Created)).UTC().Truncate(time.Second)
		spec.Expires = &at
	}
	return NewSigningKey(spec, s, now)
}

// sessionToken is the session token of a secret. It follows from the secret, so it need
// not be stored, and tells nothing about it.
func sessionToken(secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("waybill session token"))
	return "wbst." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// CreateSigning makes a signing key among the keys of the file, and returns its only
// showing.
func (k *Keys) CreateSigning(spec Key, s *Sealer) (SigningSecret, Key, error) {
	secret, key, err := NewSigningKey(spec, s, k.now())
	if err != nil {
		return SigningSecret{}, Key{}, err
	}
	if err := k.change(func(list []Key) ([]Key, error) { return append(list, key), nil }); err != nil {
		return SigningSecret{}, Key{}, err
	}
	return secret, key, nil
}

// RotateSigning makes a signing key like another, which stays good for the overlap. Both
// happen or neither.
func (k *Keys) RotateSigning(id string, overlap time.Duration, s *Sealer) (secret SigningSecret, key Key, err error) {
	err = k.change(func(list []Key) ([]Key, error) {
		for i := range list {
			if list[i].ID != id {
				continue
			}
			if secret, key, err = SigningSuccessor(&list[i], s, k.now()); err != nil {
				return nil, err
			}
			end := k.now().Add(overlap).UTC().Truncate(time.Second)
			if list[i].Revoked == nil || end.Before(*list[i].Revoked) {
				list[i].Revoked = &end
			}
			return append(list, key), nil
		}
		return nil, &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("there is no signing key %q", id), Hint: "waybill keys list shows them"}
	})
	if err != nil {
		return SigningSecret{}, Key{}, err
	}
	return secret, key, nil
}

// Reseal seals every secret of the file under the first sealing key, and says how many
// were not. After it the other sealing keys can go.
func (k *Keys) Reseal(s *Sealer) (n int, err error) {
	err = k.change(func(list []Key) ([]Key, error) {
		first := sealVersion + "." + s.keys[0].name + "."
		for i := range list {
			if list[i].Sealed == "" || strings.HasPrefix(list[i].Sealed, first) {
				continue
			}
			secret, err := s.open(list[i].ID, list[i].Sealed)
			if err != nil {
				return nil, fmt.Errorf("reseal signing key %s: %w", list[i].ID, err)
			}
			list[i].Sealed = s.seal(list[i].ID, secret)
			n++
		}
		return list, nil
	})
	return n, err
}

// Check opens every live signing key of a list, and names those that cannot be opened: a
// gateway with the wrong sealing key should say so when it starts, not when it is called.
func (s *Sealer) Check(list []Key, now time.Time) error {
	var errs []error
	for _, key := range list {
		if key.Sealed == "" || !key.Live(now) {
			continue
		}
		if _, err := s.open(key.ID, key.Sealed); err != nil {
			errs = append(errs, fmt.Errorf("open signing key %s: %w", key.ID, err))
		}
	}
	return errors.Join(errs...)
}

// SigningKeys finds signing keys in a store of keys, opened: AWS access keys of our own
// making, for SDKs that can do nothing but sign.
type SigningKeys struct {
	store  KeyStore
	sealer *Sealer

	mu     sync.Mutex // guards opened
	opened map[string]*signingKey
}

// NewSigningKeys finds signing keys in a store, and opens what the sealer has sealed.
func NewSigningKeys(store KeyStore, s *Sealer) *SigningKeys {
	return &SigningKeys{store: store, sealer: s, opened: make(map[string]*signingKey)}
}

// A signingKey is the secret of a key, opened. It keeps the keys derived from the
// secret, which are the same all day.
type signingKey struct {
	sealed string // what was opened
	secret string
	token  string

	mu      sync.Mutex // guards derived
	derived map[scope][sha256.Size]byte
}

// find is the key of an access key id and its secret.
func (s *SigningKeys) find(id string) (*Key, *signingKey, error) {
	key, err := s.store.Lookup(id)
	if err != nil {
		return nil, nil, refuse(ReasonStale)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == nil || key.Sealed == "" {
		delete(s.opened, id)
		return nil, nil, refuse(ReasonUnknownKey)
	}
	if k := s.opened[id]; k != nil && k.sealed == key.Sealed {
		return key, k, nil
	}
	secret, err := s.sealer.open(id, key.Sealed)
	if err != nil {
		return nil, nil, refusedKey(ReasonSealed, key)
	}
	k := &signingKey{sealed: key.Sealed, secret: secret, token: sessionToken(secret)}
	s.opened[id] = k
	return key, k, nil
}

// refusedKey is the refusal of a proof by a key that exists.
func refusedKey(why Reason, key *Key) error {
	return &Refusal{Reason: why, Issuer: keyIssuer, KeyID: key.ID, Subject: key.Subject}
}
