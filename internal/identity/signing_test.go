package identity

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

// A signing store and the path of its file.
func openSigning(t *testing.T, path string, now func() time.Time, sealing ...string) *signingFile {
	t.Helper()
	keys, err := OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	keys.now = now
	sealer, err := NewSealer(sealing...)
	if err != nil {
		t.Fatal(err)
	}
	return &signingFile{keys, sealer, NewSigningKeys(keys, sealer)}
}

type signingFile struct {
	keys   *Keys
	sealer *Sealer
	found  *SigningKeys
}

// A signing key is shown once, stored sealed, scoped like other keys, and ends when it
// should.
func TestSigningKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.jsonl")
	now := signedAt
	clock := func() time.Time { return now }
	sealing := NewSealingKey()
	s := openSigning(t, path, clock, sealing)
	expires := signedAt.Add(90 * 24 * time.Hour)
	secret, key, err := s.keys.CreateSigning(Key{Subject: "user-17", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}), Models: []string{"anthropic.*"},
		Environments: []string{"staging"}, Expires: &expires, Hash: strings.Repeat("0", 64), Sealed: "x"}, s.sealer)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^WBSK[A-Z2-7]{16}$`).MatchString(secret.AccessKeyID) || len(secret.SecretAccessKey) != 40 || secret.AccessKeyID != key.ID {
		t.Errorf("made %s with a secret of %d", secret.AccessKeyID, len(secret.SecretAccessKey))
	}
	if secret.String() != key.ID {
		t.Error("it prints its secret")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{secret.SecretAccessKey, secret.SessionToken, sealing} {
		if strings.Contains(string(raw), text) {
			t.Error("a secret is in the file")
		}
	}
	if list := s.keys.List(); len(list) != 1 || list[0].Hash != "" || list[0].Sealed == "" {
		t.Errorf("listed: %+v", list)
	}
	v := NewSigV4(s.found, SigV4Config{Now: clock})
	authenticate := func(secret SigningSecret) (waybill.Principal, error) {
		return v.Authenticate(signedCall(t, corpusKey(secret), call{at: now, token: now.Second()%2 == 0}))
	}
	p, err := authenticate(secret)
	if err != nil || p.Subject != "user-17" || p.KeyID != key.ID || p.Issuer != "gateway-key" || p.Tags.Len() != 1 || len(p.Models) != 1 || len(p.Environments) != 1 {
		t.Errorf("%+v %v", p, err)
	}

	// The secret is no gateway key, and no gateway key signs.
	for _, token := range []string{"wbk_" + key.ID + "_" + secret.SecretAccessKey, "wbk_" + key.ID + "_", secret.SecretAccessKey} {
		if _, err := s.keys.Authenticate(request("X-Api-Key", token)); err == nil {
			t.Error("the secret is taken as a gateway key")
		}
	}
	token, plain, err := s.keys.Create(Key{Subject: "user-18"})
	if err != nil {
		t.Fatal(err)
	}
	_, bearer, _ := splitKey(token)
	if _, err := authenticate(SigningSecret{AccessKeyID: plain.ID, SecretAccessKey: bearer}); reasonOf(err) != ReasonUnknownKey {
		t.Errorf("a gateway key signs: %v", err)
	}
	if _, _, err := s.keys.Rotate(key.ID, time.Hour); waybill.KindOf(err) != waybill.Misused {
		t.Errorf("rotated as a gateway key: %v", err)
	}
	if _, _, err := s.keys.RotateSigning(plain.ID, time.Hour, s.sealer); waybill.KindOf(err) != waybill.Misused {
		t.Errorf("a gateway key rotated as a signing key: %v", err)
	}
	if _, _, err := s.keys.RotateSigning("WBSKNONE", time.Hour, s.sealer); waybill.KindOf(err) != waybill.NotFound {
		t.Errorf("rotated: %v", err)
	}
	if _, _, err := s.keys.CreateSigning(Key{}, s.sealer); waybill.KindOf(err) != waybill.Misused {
		t.Errorf("made for nobody: %v", err)
	}

	now = now.Add(24 * time.Hour)
	second, key2, err := s.keys.RotateSigning(key.ID, time.Hour, s.sealer)
	if err != nil {
		t.Fatal(err)
	}
	if key2.Replaces != key.ID || key2.Expires == nil || !key2.Expires.Equal(now.Add(90*24*time.Hour)) || key2.Subject != "user-17" || second.SecretAccessKey == secret.SecretAccessKey {
		t.Errorf("rotated: %+v", key2)
	}
	both := func(wantOld, wantYoung Reason) {
		t.Helper()
		_, e1 := authenticate(secret)
		_, e2 := authenticate(second)
		if reasonOf(e1) != wantOld || reasonOf(e2) != wantYoung {
			t.Errorf("old %v, young %v", e1, e2)
		}
	}
	both("", "")
	now = now.Add(time.Hour)
	both(ReasonRevoked, "")
	// Another process revokes it: within a second it is over.
	other := openSigning(t, path, clock, sealing)
	if err := other.keys.Revoke(key2.ID); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Second)
	both(ReasonRevoked, ReasonRevoked)
	third, _, err := s.keys.CreateSigning(Key{Subject: "user-19", Expires: &expires}, s.sealer)
	if err != nil {
		t.Fatal(err)
	}
	now = expires
	if _, err := authenticate(third); reasonOf(err) != ReasonExpired {
		t.Errorf("after its end: %v", err)
	}
}

// The file without the sealing key, or changed, is worth nothing.
func TestSealing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.jsonl")
	now := signedAt
	clock := func() time.Time { return now }
	first, second := NewSealingKey(), NewSealingKey()
	s := openSigning(t, path, clock, first)
	var secrets []SigningSecret
	for range 2 {
		secret, _, err := s.keys.CreateSigning(Key{Subject: "user-17"}, s.sealer)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, secret)
	}
	reason := func(s *signingFile) Reason {
		now = now.Add(time.Second)
		_, err := NewSigV4(s.found, SigV4Config{Now: clock}).Authenticate(signedCall(t, corpusKey(secrets[0]), call{at: now}))
		return reasonOf(err)
	}
	if got := reason(openSigning(t, path, clock, first)); got != "" {
		t.Errorf("with its key: %s", got)
	}
	wrong := openSigning(t, path, clock, second)
	if got := reason(wrong); got != ReasonSealed {
		t.Errorf("with another key: %q", got)
	}
	if err := wrong.sealer.Check(wrong.keys.List(), now); err == nil || !strings.Contains(err.Error(), secrets[1].AccessKeyID) {
		t.Errorf("check: %v", err)
	}
	if _, err := wrong.keys.Reseal(wrong.sealer); err == nil {
		t.Error("resealed what cannot be opened")
	}

	// A sealed secret on another line, or with a byte changed, does not open.
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list := s.keys.List()
	for i := range list[0].Sealed {
		b := []byte(list[0].Sealed)
		b[i] = other(b[i])
		if _, err := s.sealer.open(list[0].ID, string(b)); err == nil && i < len(b)-1 { // the last letter has spare bits
			t.Errorf("opened with another byte at %d", i)
		}
	}
	swapped := strings.NewReplacer(list[0].Sealed, list[1].Sealed, list[1].Sealed, list[0].Sealed).Replace(string(raw))
	if err := os.WriteFile(path, []byte(swapped), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := reason(openSigning(t, path, clock, first)); got != ReasonSealed {
		t.Errorf("with the secret of another line: %q", got)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}

	// A new sealing key comes first, then the secrets are moved to it, then the old goes.
	moving := openSigning(t, path, clock, second, first)
	if got := reason(moving); got != "" {
		t.Errorf("with both keys: %s", got)
	}
	if n, err := moving.keys.Reseal(moving.sealer); n != 2 || err != nil {
		t.Errorf("resealed %d, %v", n, err)
	}
	if n, err := moving.keys.Reseal(moving.sealer); n != 0 || err != nil {
		t.Errorf("resealed again %d, %v", n, err)
	}
	moved := openSigning(t, path, clock, second)
	if got := reason(moved); got != "" {
		t.Errorf("with the new key alone: %s", got)
	}
	if err := moved.sealer.Check(moved.keys.List(), now); err != nil {
		t.Error(err)
	}
}

func TestNewSealer(t *testing.T) {
	for name, texts := range map[string][]string{
		"none": nil, "empty": {""}, "a passphrase": {"correct horse battery staple"}, "16 bytes": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		"the second is wrong": {NewSealingKey(), "x"}, "33 bytes": {strings.Repeat("A", 44)},
	} {
		if _, err := NewSealer(texts...); waybill.KindOf(err) != waybill.Misused {
			t.Errorf("%s: %v", name, err)
		} else if len(texts) > 0 && len(texts[0]) > 5 && strings.Contains(err.Error(), texts[0]) {
			t.Errorf("%s: the error repeats the key", name)
		}
	}
	for _, text := range []string{NewSealingKey(), NewSealingKey() + "\n", strings.Repeat("0f", 32)} {
		if _, err := NewSealer(text); err != nil {
			t.Error(err)
		}
	}
}

// A line is a gateway key or a signing key, not both and not neither.
func TestKeyLines(t *testing.T) {
	hash := strings.Repeat("0", 64)
	for line, good := range map[string]bool{
		`{"id":"a","subject":"s","hash":"` + hash + `","tags":{}}`:              true,
		`{"id":"a","subject":"s","sealed":"v1.x.y","tags":{}}`:                  true,
		`{"id":"a","subject":"s","tags":{}}`:                                    false,
		`{"id":"a","subject":"s","hash":"` + hash + `","sealed":"x","tags":{}}`: false,
		`{"id":"a","subject":"s","hash":"00","tags":{}}`:                        false,
	} {
		path := filepath.Join(t.TempDir(), "keys.jsonl")
		if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeys(path); (err == nil) != good {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// Signed tells the requests that carry a signature from the others.
func TestSigned(t *testing.T) {
	for target, tt := range map[string]struct {
		auth string
		want bool
	}{
		"/":                       {"", false},
		"/a":                      {"Bearer AWS4-HMAC-SHA256", false},
		"/b":                      {"AWS4-HMAC-SHA256 x", true},
		"/c?X-Amz-Signature=0":    {"", true},
		"/d?X-Amz-Date=0":         {"", false},
		"/e?a=b&X-Amz-Algorithm=": {"", true},
	} {
		r := &http.Request{RequestURI: target, Header: http.Header{}}
		if tt.auth != "" {
			r.Header.Set("Authorization", tt.auth)
		}
		if got := Signed(r); got != tt.want {
			t.Errorf("%s: %v", target, got)
		}
	}
}
