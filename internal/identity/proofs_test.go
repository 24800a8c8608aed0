package identity

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

// Signatures and AWS identities are proofs among others: they are recorded, denied,
// taken together and told apart as those are.
func TestSignaturesInAChain(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	keys := signingKeys(t, readCorpusKey(t))
	key := readCorpusKey(t)
	file := keys.store.(*Keys)
	token, _, err := file.Create(Key{Subject: "user-17"})
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := file.Create(Key{Subject: "user-18"})
	if err != nil {
		t.Fatal(err)
	}
	_, f := fakeSTS(t, clock)
	identities := newAWS(t, awsConfig(f, clock))
	proof := presign(t, userCredentials(), "wb.example", time.Minute, now)
	list := filepath.Join(t.TempDir(), "denied.jsonl")
	var records []Attempt
	chain := func(deny string) *Chain {
		if err := os.WriteFile(list, []byte(deny), 0o600); err != nil {
			t.Fatal(err)
		}
		denied, err := OpenDenyList(list)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewChain(ChainConfig{Methods: []Method{file.Method(), NewSigV4(keys, SigV4Config{}).Method(), identities.Method()}, Denied: denied,
			Callers: []Caller{{Subject: "person-17", Known: []Known{{keyIssuer, "user-17"}, {awsIssuer, "user-17"}}}},
			Record:  func(a Attempt) { records = append(records, a) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	with := func(r *http.Request, name, value string) *http.Request {
		r.Header.Set(name, value)
		return r
	}
	signed := func(secret string) *http.Request {
		return signedCall(t, corpusKey{AccessKeyID: key.AccessKeyID, SecretAccessKey: secret}, call{body: "x", at: now})
	}
	for name, tt := range map[string]struct {
		r      *http.Request
		deny   string
		method string // empty if refused
		want   Reason
	}{
		"signed":                     {r: signed(key.SecretAccessKey), method: "sigv4"},
		"an AWS identity":            {r: bearerRequest(proof), method: "aws"},
		"signed, and a key":          {r: with(signed(key.SecretAccessKey), "X-Api-Key", token), method: "key"},
		"an identity, and a key":     {r: with(bearerRequest(proof), "X-Api-Key", token), method: "key"},
		"signed, another's key":      {r: with(signed(key.SecretAccessKey), "X-Api-Key", other), want: ReasonDisagree},
		"a key, and wrongly signed":  {r: with(signed("another"), "X-Api-Key", token), want: ReasonSignature},
		"an unsigned identity on it": {r: with(signed(key.SecretAccessKey), ProofHeader, proof), want: ReasonUnsigned},
		"a denied signing key":       {r: signed(key.SecretAccessKey), deny: `{"key":"` + key.AccessKeyID + `"}`, want: ReasonRevoked},
		"a denied AWS identity":      {r: bearerRequest(proof), deny: `{"subject":"user-17","issuer":"` + awsIssuer + `"}`, want: ReasonRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			records = nil
			p, err := chain(tt.deny).Authenticate(tt.r)
			if (err == nil) != (tt.method != "") || tt.method != "" && (p.Method != tt.method || p.Subject != "person-17") {
				t.Fatalf("%+v %v", p, err)
			}
			last := records[len(records)-1]
			if err == nil {
				if last.Subject != "person-17" {
					t.Errorf("recorded %+v", last)
				}
				return
			}
			if e, ok := errors.AsType[*waybill.Error](err); !ok || e.Code != "WB1001" || last.Reason != tt.want {
				t.Errorf("%v, recorded %+v", err, last)
			}
		})
	}
	r := with(signed(key.SecretAccessKey), ProofHeader, proof)
	chain("").Strip(r.Header)
	for _, name := range []string{"Authorization", "X-Amz-Date", ProofHeader} {
		if r.Header.Get(name) != "" {
			t.Errorf("%s is left", name)
		}
	}
}
