package identity

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	secret := token[strings.LastIndex(token, "_")+1:]
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
