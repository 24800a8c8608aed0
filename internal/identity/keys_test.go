package identity

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

func request(name, value string) *http.Request {
	r, err := http.NewRequest(http.MethodPost, "http://gateway/", nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set(name, value)
	return r
}

// A key is shown once, stored hashed, taken in three headers, and ends when it should.
func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.jsonl")
	k, err := OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k.now = func() time.Time { return now }
	token, key, err := k.Create(Key{Subject: "user-17", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.SplitN(token, "_", 3)[2]
	if strings.Contains(string(raw), secret) {
		t.Error("the secret is in the file")
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v", info.Mode())
	}
	for _, h := range []string{"X-Api-Key", "Api-Key"} {
		if p, err := k.Authenticate(request(h, token)); err != nil || p.Subject != "user-17" {
			t.Errorf("%s: %v %v", h, p, err)
		}
	}
	if p, err := k.Authenticate(request("Authorization", "bearer "+token)); err != nil || p.KeyID != key.ID {
		t.Errorf("bearer: %v %v", p, err)
	}
	shape := ""
	for name, bad := range map[string]string{"nothing": "", "no key": "hello", "wrong secret": token[:len(token)-1] + "x", "unknown id": "wbk_0000_" + secret, "no secret": "wbk_" + key.ID, "huge": keyPrefix + strings.Repeat("x", 10_000),
		"another's hash": "wbk_" + key.ID + "_" + key.Hash} {
		_, err := k.Authenticate(request("Authorization", "Bearer "+bad))
		if waybill.KindOf(err) != waybill.Unauthenticated {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if shape == "" {
			shape = err.Error()
		}
		if err.Error() != shape {
			t.Errorf("%s is told apart: %v", name, err)
		}
	}
	for _, aws := range []string{"bedrock-api-key-" + "YmVk", "ABSK" + "QmVk"} {
		if _, err := k.Authenticate(request("Authorization", "Bearer "+aws)); err == nil || !strings.Contains(err.Error(), "WB1002") {
			t.Errorf("a Bedrock key: %v", err)
		}
	}
	second, _, err := k.Rotate(key.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	both := func() (old, young bool) {
		_, e1 := k.Authenticate(request("X-Api-Key", token))
		_, e2 := k.Authenticate(request("X-Api-Key", second))
		return e1 == nil, e2 == nil
	}
	if old, young := both(); !old || !young {
		t.Errorf("within the overlap: %v %v", old, young)
	}
	now = now.Add(2 * time.Hour)
	if old, young := both(); old || !young {
		t.Errorf("after the overlap: %v %v", old, young)
	}
}

// Another process's change of the file is seen; a broken file leaves the old keys.
func TestKeysAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.jsonl")
	writer, err := OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	token, key, err := writer.Create(Key{Subject: "user-17"})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	reader.now = func() time.Time { return now }
	good := func() bool {
		now = now.Add(2 * time.Second)
		_, err := reader.Authenticate(request("X-Api-Key", token))
		return err == nil
	}
	if !good() {
		t.Fatal("a good key was refused")
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !good() {
		t.Error("a broken file took the keys away")
	}
	if _, err := OpenKeys(path); err == nil || !strings.Contains(err.Error(), "keys.jsonl:1") {
		t.Errorf("a broken file is opened: %v", err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writer.Revoke(key.ID); err != nil {
		t.Fatal(err)
	}
	if good() {
		t.Error("a revoked key is still good")
	}
}

// Rotating keeps what a key was for and how long it lives, and brings back nothing that
// was taken away.
func TestRotationKeepsTheKey(t *testing.T) {
	k, err := OpenKeys(filepath.Join(t.TempDir(), "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	k.now = func() time.Time { return now }
	ends := now.Add(90 * 24 * time.Hour)
	spec := Key{Subject: "user-17", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}), Models: []string{"amazon.nova*"}, Environments: []string{"staging"}, Expires: &ends}
	_, first, err := k.Create(spec)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(60 * 24 * time.Hour)
	token, second, err := k.Rotate(first.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	later := now.Add(90 * 24 * time.Hour)
	want := Key{ID: second.ID, Hash: second.Hash, Subject: "user-17", Tags: spec.Tags, Models: spec.Models, Environments: spec.Environments, Created: now, Expires: &later, Replaces: first.ID}
	if diff := cmp.Diff(want, second, cmp.Comparer(waybill.Tags.Equal)); diff != "" || second.ID == first.ID || second.Hash == first.Hash {
		t.Error(diff)
	}
	p, err := k.Authenticate(request("X-Api-Key", token))
	if err != nil || p.Models[0] != "amazon.nova*" || p.Environments[0] != "staging" || p.Tags.Canonical() != `{"team":"search"}` {
		t.Errorf("%+v %v", p, err)
	}
	// A second rotation does not make the first key live longer than it was to.
	if _, _, err := k.Rotate(first.ID, 48*time.Hour); err != nil {
		t.Fatal(err)
	}
	if list := k.List(); !list[0].Revoked.Equal(now.Add(time.Hour)) {
		t.Errorf("the first key ends at %v", list[0].Revoked)
	}
	if err := k.Revoke(second.ID); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	for what, id := range map[string]string{"rotated": first.ID, "revoked": second.ID} {
		if _, _, err := k.Rotate(id, time.Hour); waybill.KindOf(err) != waybill.Misused {
			t.Errorf("a key that was %s is brought back: %v", what, err)
		}
	}
	for what, err := range map[string]error{"rotate": func() error { _, _, err := k.Rotate("none", 0); return err }(), "revoke": k.Revoke("none")} {
		if waybill.KindOf(err) != waybill.NotFound {
			t.Errorf("%s what is not there: %v", what, err)
		}
	}
	past := now.Add(-time.Hour)
	for _, bad := range []Key{{}, {Subject: "user-17", Expires: &past}} {
		if _, _, err := k.Create(bad); waybill.KindOf(err) != waybill.Misused {
			t.Errorf("%+v is made: %v", bad, err)
		}
	}
}

// Why a key was refused is in the record, and nowhere else.
func TestReasonsOfKeys(t *testing.T) {
	k, err := OpenKeys(filepath.Join(t.TempDir(), "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k.now = func() time.Time { return now }
	ends := now.Add(time.Hour)
	good, key, err := k.Create(Key{Subject: "user-17", Expires: &ends})
	if err != nil {
		t.Fatal(err)
	}
	revoked, revokedKey, err := k.Create(Key{Subject: "user-18"})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Revoke(revokedKey.ID); err != nil {
		t.Fatal(err)
	}
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{k.Method()}})
	if _, err := chain.Authenticate(request("X-Api-Key", good)); err != nil || kept.last().Proof != key.ID || kept.last().KeyID != key.ID {
		t.Errorf("%v, recorded %+v", err, kept.last())
	}
	now = now.Add(2 * time.Hour)
	for _, tt := range []struct {
		token string
		want  Attempt
	}{
		{good, Attempt{Reason: ReasonExpired, KeyID: key.ID, Subject: "user-17", Issuer: "gateway-key"}},
		{good + "x", Attempt{Reason: ReasonSecret, KeyID: key.ID, Issuer: "gateway-key"}},
		{revoked, Attempt{Reason: ReasonRevoked, KeyID: revokedKey.ID, Subject: "user-18", Issuer: "gateway-key"}},
		{"wbk_0123456789abcdef_" + good[len(good)-43:], Attempt{Reason: ReasonUnknownKey}},
		{"wbk_", Attempt{Reason: ReasonMalformed}},
		{"wbk_" + key.ID, Attempt{Reason: ReasonMalformed}},
		{"wbk_" + strings.Repeat("a", 300), Attempt{Reason: ReasonMalformed}},
	} {
		p, err := chain.Authenticate(request("X-Api-Key", tt.token))
		mustRefuse(t, p, err)
		got := kept.last()
		tt.want.At, tt.want.Outcome, tt.want.Method = got.At, Refused, "key"
		if got != tt.want {
			t.Errorf("recorded %+v, want %+v", got, tt.want)
		}
	}
}

// Two programs that change the file at once lose none of their changes.
func TestKeysAreChangedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.jsonl")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			k, err := OpenKeys(path)
			if err != nil {
				t.Error(err)
				return
			}
			for range 10 {
				_, key, err := k.Create(Key{Subject: "user-17"})
				if err != nil {
					t.Error(err)
				}
				if err := k.Revoke(key.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	k, err := OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range k.List() {
		if key.Revoked == nil {
			t.Errorf("the revocation of %s is lost", key.ID)
		}
	}
	if n := len(k.List()); n != 40 {
		t.Errorf("%d keys", n)
	}
}
