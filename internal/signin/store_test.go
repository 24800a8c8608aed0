package signin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

// memoryKeyring is a keyring that can be locked.
type memoryKeyring struct {
	mu     sync.Mutex // guards all below
	held   map[string]string
	locked bool
}

func (k *memoryKeyring) Get(service, user string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locked {
		return "", errors.New("locked")
	}
	if v, ok := k.held[service+"/"+user]; ok {
		return v, nil
	}
	return "", fs.ErrNotExist
}

func (k *memoryKeyring) Set(service, user, secret string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locked || len(secret) > 1000 { // Windows takes 2,560 bytes, macOS some 3,000
		return errors.New("locked, or too much")
	}
	k.held[service+"/"+user] = secret
	return nil
}

func (k *memoryKeyring) Delete(service, user string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, service+"/"+user)
	return nil
}

func sample() *held {
	return &held{Credentials: Credentials{Version: 1, AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "the-secret-key", SessionToken: strings.Repeat("the-session-token", 100)}, Refresh: "the-refresh-token", IDToken: "the-id-token"}
}

// What is kept is its owner's alone, is replaced whole, and is sealed where a keyring
// has the key.
func TestStore(t *testing.T) {
	for _, ring := range []*memoryKeyring{nil, {held: make(map[string]string)}} {
		dir := filepath.Join(t.TempDir(), "a", "cache")
		var k Keyring
		if ring != nil {
			k = ring
		}
		s, err := NewStore(dir, k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.load("k"); !errors.Is(err, errNothing) {
			t.Errorf("an empty store has %v", err)
		}
		for range 3 {
			if err := s.save("k", sample()); err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.load("k")
		if err != nil || got.Credentials != sample().Credentials || got.Refresh != "the-refresh-token" {
			t.Errorf("%+v, %v", got, err)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1 {
			t.Errorf("files %v, %v", files, err)
		}
		info, err := os.Stat(s.path("k"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("folder's mode %v, %v", info.Mode(), err)
		}
		raw, err := os.ReadFile(s.path("k"))
		if err != nil || strings.Contains(string(raw), "the-") == (ring != nil) {
			t.Errorf("with a keyring %v, the file shows what it holds: %v", ring != nil, err)
		}
		if ring != nil {
			// One profile's file is not another's, and a changed one is nothing.
			if err := os.WriteFile(s.path("other"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			ring.held[keyringService+"/other"] = ring.held[keyringService+"/k"]
			if _, err := s.load("other"); !errors.Is(err, errNothing) {
				t.Errorf("another profile's file: %v", err)
			}
			raw[len(raw)-1] ^= 1
			if err := os.WriteFile(s.path("k"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.load("k"); !errors.Is(err, errNothing) {
				t.Errorf("a changed file: %v", err)
			}
			ring.locked = true
			if err := s.save("k", sample()); waybill.KindOf(err) != waybill.Misused || !strings.Contains(err.(*waybill.Error).Hint, "--store file") {
				t.Errorf("a locked keyring: %v", err)
			}
			ring.locked = false
		}
		for _, broken := range []string{"", "{", "null", "[]"} {
			if err := os.WriteFile(s.path("k"), []byte(broken), 0o600); err != nil {
				t.Fatal(err)
			}
			if h, err := s.load("k"); err == nil && h.fresh(time.Now()) {
				t.Errorf("a broken file %q holds credentials", broken)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "k.123.tmp"), []byte("the-secret-key"), 0o600); err != nil { // of a process that died
			t.Fatal(err)
		}
		if err := s.remove("k"); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "k.*")); len(left) != 0 {
			t.Errorf("left are %v", left)
		}
		if ring != nil && ring.held[keyringService+"/k"] != "" {
			t.Error("the key is left in the keyring")
		}
	}
}

// What others can read is not trusted, and not used.
func TestStoreOpenToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	s, err := NewStore(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save("k", sample()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path("k"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.load("k"); waybill.KindOf(err) != waybill.Misused || !strings.Contains(err.(*waybill.Error).Hint, "--logout") {
		t.Errorf("a file that others can read: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := NewStore(dir, nil); waybill.KindOf(err) != waybill.Misused || !strings.Contains(err.(*waybill.Error).Hint, "chmod 700") {
		t.Errorf("a folder that others can look into: %v", err)
	}
}

// A lock is one process's; who waits is told once, and may give up.
func TestLock(t *testing.T) {
	s, err := NewStore(filepath.Join(t.TempDir(), "cache"), nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lock(t.Context(), "k", func() { t.Error("nobody has it") })
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.lock(t.Context(), "other", func() { t.Error("nobody has the other") })
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, leave := context.WithCancel(t.Context())
	told := 0
	if _, err := s.lock(ctx, "k", func() { told++; leave() }); waybill.KindOf(err) != waybill.Unauthenticated || told != 1 {
		t.Errorf("told %d times: %v", told, err)
	}
	got := make(chan error, 1)
	go func() {
		release, err := s.lock(context.Background(), "k", unlock)
		if err == nil {
			release()
		}
		got <- err
	}()
	if err := <-got; err != nil {
		t.Error(err)
	}
}
