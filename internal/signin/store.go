package signin

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/waybill-dev/waybill"
)

// A Store keeps sign-ins in a folder that its owner alone can read: a file each, 0600,
// replaced whole. With a keyring the files are sealed, and the keyring of the system
// holds the key: what it can hold itself is too little on some systems.
type Store struct {
	dir     string
	keyring Keyring // nil: the files are not sealed
}

// A Keyring holds small secrets for a user.
type Keyring interface {
	Get(service, user string) (string, error)
	Set(service, user, secret string) error
	Delete(service, user string) error
}

// systemKeyring is the one of the operating system: Keychain, Credential Manager, or
// the Secret Service of the desktop.
type systemKeyring struct{}

// SystemKeyring is the operating system's.
func SystemKeyring() Keyring { return systemKeyring{} }

func (systemKeyring) Get(service, user string) (string, error) {
	text, err := keyring.Get(service, user)
	if errors.Is(err, keyring.ErrNotFound) {
		return "", fs.ErrNotExist
	}
	return text, err
}
func (systemKeyring) Set(service, user, secret string) error {
	return keyring.Set(service, user, secret)
}
func (systemKeyring) Delete(service, user string) error {
	if err := keyring.Delete(service, user); err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return err
	}
	return nil
}

// NewStore keeps sign-ins in a folder, which is made if it is not there. Without a
// keyring the files are protected by their rights alone.
func NewStore(dir string, keyring Keyring) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, misused("choose another --cache", "the folder for credentials cannot be made: %v", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("folder for credentials: %w", err)
	}
	if openToOthers(info) {
		return nil, misused("chmod 700 "+dir, "others can look into %s, where credentials are kept", dir)
	}
	return &Store{dir: dir, keyring: keyring}, nil
}

// openToOthers reports whether a file's rights are more than its owner's. Where there
// are no such rights, the user's profile folder has its own.
func openToOthers(info fs.FileInfo) bool {
	return os.PathSeparator == '/' && info.Mode().Perm()&0o077 != 0
}

// errNothing means that nothing is held.
var errNothing = errors.New("nothing is held")

func (s *Store) path(key string) string { return filepath.Join(s.dir, key+".json") }

func (s *Store) place(key string) string {
	if s.keyring != nil {
		return s.path(key) + ", sealed by the system's keyring"
	}
	return s.path(key)
}

// keyringService is our name in the keyring.
const keyringService = "waybill credentials"

// load reads what is held. A file that cannot be read for what it holds is nothing: the
// next sign-in replaces it.
func (s *Store) load(key string) (*held, error) {
	path := s.path(key)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNothing
	}
	if err != nil {
		return nil, fmt.Errorf("read what is kept of the sign-in: %w", err)
	}
	if openToOthers(info) {
		return nil, misused("others may have read it: run waybill credentials --logout, and sign in again", "others can read %s", path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read what is kept of the sign-in: %w", err)
	}
	if s.keyring != nil {
		sealer, err := s.sealer(key, false)
		if err != nil {
			return nil, err
		}
		if len(raw) < sealer.NonceSize() {
			return nil, errNothing
		}
		if raw, err = sealer.Open(nil, raw[:sealer.NonceSize()], raw[sealer.NonceSize():], []byte(key)); err != nil {
			return nil, errNothing
		}
	}
	var h held
	if json.Unmarshal(raw, &h) != nil {
		return nil, errNothing
	}
	return &h, nil
}

// save replaces what is held, whole: a reader sees the old or the new.
func (s *Store) save(key string, h *held) error {
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if s.keyring != nil {
		sealer, err := s.sealer(key, true)
		if err != nil {
			return err
		}
		nonce := make([]byte, sealer.NonceSize(), sealer.NonceSize()+len(raw)+sealer.Overhead())
		rand.Read(nonce) // it does not fail
		raw = sealer.Seal(nonce, nonce, raw, []byte(key))
	}
	f, err := os.CreateTemp(s.dir, key+".*.tmp") // 0600
	if err != nil {
		return fmt.Errorf("keep the sign-in: %w", err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path(key))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("keep the sign-in: %w", err)
	}
	return nil
}

// remove forgets what is held, and what a process that died may have left.
func (s *Store) remove(key string) error {
	left, _ := filepath.Glob(filepath.Join(s.dir, key+".*.tmp")) // the pattern is good
	for _, path := range append(left, s.path(key)) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the sign-in: %w", err)
		}
	}
	if s.keyring != nil {
		if err := s.keyring.Delete(keyringService, key); err != nil {
			return noKeyring(err)
		}
	}
	return nil
}

// sealer is the cipher whose key the keyring holds. A key that is not there yet is made
// when something is to be sealed.
func (s *Store) sealer(key string, make bool) (cipher.AEAD, error) {
	text, err := s.keyring.Get(keyringService, key)
	secret, decodeErr := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	switch {
	case err == nil && decodeErr == nil && len(secret) == 32:
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, noKeyring(err)
	case !make:
		return nil, errNothing
	default:
		secret = newSecret()
		if err := s.keyring.Set(keyringService, key, base64.StdEncoding.EncodeToString(secret)); err != nil {
			return nil, noKeyring(err)
		}
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func newSecret() []byte {
	secret := make([]byte, 32)
	rand.Read(secret) // it does not fail
	return secret
}

func noKeyring(err error) error {
	return &waybill.Error{Kind: waybill.Misused, Message: "the system's keyring cannot be used: " + clean(err.Error()), Hint: "unlock it, or use --store file", Err: err}
}

// lock takes the sign-in of a profile for this process. The kernel frees it when the
// process dies. wait is called once, if another process has it.
func (s *Store) lock(ctx context.Context, key string, wait func()) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, key+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the sign-in: %w", err)
	}
	for told := false; ; {
		taken, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock the sign-in: %w", err)
		}
		if taken {
			return func() { f.Close() }, nil
		}
		if !told {
			told = true
			wait()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, gaveUp(ctx)
		}
	}
}
