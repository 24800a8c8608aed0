package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	"github.com/golang-jwt/jwt/v5"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/identity"
)

// An issuer signs tokens with one key, and can be down.
type issuer struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	down atomic.Bool
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := key.PublicKey.Bytes() // 4, x, y
		if i.down.Load() || err != nil {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		b64 := base64.RawURLEncoding.EncodeToString
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys",
			"keys": []any{map[string]string{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig", "x": b64(raw[1:33]), "y": b64(raw[33:])}}})
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(t *testing.T, subject, team string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": i.URL, "aud": "waybill", "sub": subject, "department": team, "exp": time.Now().Add(time.Hour).Unix()})
	token.Header["kid"] = "1"
	text, err := token.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// certificate makes a certificate: an authority's own without a parent.
func certificate(t *testing.T, serial int64, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("certificate ", serial)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	change(c)
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Tokens, certificates and keys prove who calls, a line in the deny list ends a caller
// within seconds, people may have a session of their own, and all of it is on record.
func TestCallers(t *testing.T) {
	path := program(t)
	w, fake := world(t, fakeaws.Config{})
	dir, key := home(t, fake)
	idp := newIssuer(t)
	ca, caKey := certificate(t, 1, nil, nil, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	server, serverKey := certificate(t, 2, ca, caKey, func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"gateway.example.com"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	client, clientKey := certificate(t, 3, ca, caKey, func(c *x509.Certificate) {
		id, _ := url.Parse("spiffe://example.com/ns/search/sa/indexer")
		c.URIs, c.ExtKeyUsage = []*url.URL{id}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", ca.Raw)
	writePEM(t, filepath.Join(dir, "server.pem"), "CERTIFICATE", server.Raw)
	der, err := x509.MarshalECPrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "server.key"), "EC PRIVATE KEY", der)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("denied.jsonl", "")
	seal := identity.NewSealingKey()
	sealer, err := identity.NewSealer(seal)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := identity.OpenKeys(filepath.Join(dir, "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	signing, _, err := keys.CreateSigning(identity.Key{Subject: "batch-job", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})}, sealer)
	if err != nil {
		t.Fatal(err)
	}
	write("seal.key", seal)
	write("waybilld.yaml", fmt.Sprintf(`listen: 127.0.0.1:0
admin: 127.0.0.1:0
region: us-east-1
tls: {certificate: server.pem, key: server.key, clientCA: ca.pem}
policy: policy.yaml
callers:
  keys: keys.jsonl
  signing: {sealingKeys: ['file:%[3]s']}
  denied: denied.jsonl
  audit: audit.jsonl
  oidc: [{issuer: '%[2]s', audiences: [waybill], tags: {team: department}}]
  certificates: [{uri: 'spiffe://example.com/ns/*/sa/*', subject: '{1}-{2}', tags: {team: '{1}'}}]
  known: [{subject: user-1, by: [{issuer: '%[2]s', subject: u1}, {issuer: gateway-key, subject: user-17}]}]
credentials: {accessKeyId: AKIDEXAMPLEGATEWAY, secretAccessKey: secret}
upstream: {bedrock-runtime: '%[1]s', sts: '%[1]s'}
roles:
  - {when: {operation: Credentials}, assume: 'arn:aws:iam::111122223333:role/bedrock', broker: true, sessionName: 'people-{caller}', sourceIdentity: '{caller}'}
  - {assume: 'arn:aws:iam::111122223333:role/bedrock'}
journal: {dir: journal}
`, fake, idp.URL, filepath.Join(dir, "seal.key")))
	_, address, admin := start(t, path, dir)
	address = "https://" + strings.TrimPrefix(address, "http://")
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	dial := func(certificates ...tls.Certificate) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "gateway.example.com", Certificates: certificates}}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	plain, withCert := dial(), dial(tls.Certificate{Certificate: [][]byte{client.Raw}, PrivateKey: clientKey})
	post := func(c *http.Client, path, token, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		a, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(text)
	}
	const converse, hello = "/model/amazon.nova-lite-v1:0/converse", `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`
	for _, tt := range []struct {
		name    string
		client  *http.Client
		token   string
		status  int
		session string
	}{
		{"nobody", plain, "", 401, ""},
		{"a key", plain, key, 200, "user-1"},
		{"a token of the same caller", plain, idp.token(t, "u1", "search"), 200, "user-1"},
		{"a token of another", plain, idp.token(t, "u2", "search"), 200, "u2"},
		{"a token whose team the policy does not take", plain, idp.token(t, "u3", "moon"), 403, ""},
		{"a certificate", withCert, "", 200, "search-indexer"},
		{"a certificate and a token of somebody else", withCert, idp.token(t, "u2", "search"), 401, ""},
	} {
		before := len(w.Calls())
		status, text := post(tt.client, converse, tt.token, hello)
		if status != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, status, text, tt.status)
			continue
		}
		calls := w.Calls()[before:]
		if tt.session == "" {
			if len(calls) != 0 {
				t.Errorf("%s: the call reached AWS", tt.name)
			}
			continue
		}
		if len(calls) != 1 || !strings.HasSuffix(calls[0].PrincipalARN, "/"+tt.session) || calls[0].SessionTags["team"] != "search" {
			t.Errorf("%s: AWS saw %+v", tt.name, calls)
		}
	}
	// The stock SDK signs with a signing key, streams and all.
	sdk := func(secret identity.SigningSecret) *bedrockruntime.Client {
		return bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", BaseEndpoint: aws.String(address), HTTPClient: plain, RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider(secret.AccessKeyID, secret.SecretAccessKey, "")})
	}
	in := &bedrockruntime.ConverseInput{ModelId: aws.String("amazon.nova-lite-v1:0"), Messages: []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "hi"}}}}}
	if _, err := sdk(signing).Converse(t.Context(), in); err != nil {
		t.Errorf("a signed call: %v", err)
	} else if calls := w.Calls(); !strings.HasSuffix(calls[len(calls)-1].PrincipalARN, "/batch-job") {
		t.Errorf("a signed call is of %s", calls[len(calls)-1].PrincipalARN)
	}
	stream, err := sdk(signing).ConverseStream(t.Context(), &bedrockruntime.ConverseStreamInput{ModelId: in.ModelId, Messages: in.Messages})
	if err != nil {
		t.Errorf("a signed stream: %v", err)
	} else {
		n := 0
		for range stream.GetStream().Events() {
			n++
		}
		if err := stream.GetStream().Close(); err != nil || n < 4 {
			t.Errorf("a signed stream has %d events, %v", n, err)
		}
	}
	signing.SecretAccessKey = strings.ToUpper(signing.SecretAccessKey)
	if _, err := sdk(signing).Converse(t.Context(), in); err == nil || !strings.Contains(err.Error(), "WB1001") {
		t.Errorf("a call signed with another secret: %v", err)
	}
	// A session of one's own: role, name and tags are the policy's.
	status, text := post(plain, "/waybill/credentials", idp.token(t, "u2", "search"), `{"version":1,"tags":{"team":"ads"}}`)
	var given struct {
		SecretAccessKey string
		PrincipalArn    string
		Tags            map[string]string
	}
	if err := json.Unmarshal([]byte(text), &given); err != nil || status != 200 || !strings.HasSuffix(given.PrincipalArn, "/people-u2") || given.Tags["team"] != "search" || given.SecretAccessKey == "" {
		t.Errorf("a session of one's own: %d, for %s with %v", status, given.PrincipalArn, given.Tags)
	}
	if status, _ := post(plain, "/waybill/credentials", "", `{"version":1}`); status != 401 {
		t.Errorf("a session for nobody: %d", status)
	}
	// Revocation is in force within seconds, for tokens that were taken before too.
	write("denied.jsonl", `{"subject":"u2"}`+"\n")
	deadline := time.Now().Add(20 * time.Second)
	for {
		if status, _ = post(plain, converse, idp.token(t, "u2", "search"), hello); status == 401 || time.Now().After(deadline) {
			break
		}
		runtimeYield()
	}
	if status != 401 {
		t.Errorf("a denied caller still calls: %d", status)
	}
	a, err := http.Get(admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != 200 {
		t.Errorf("readyz: %d", a.StatusCode)
	}
	write("denied.jsonl", "nonsense\n")
	for {
		a, err := http.Get(admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if a.StatusCode == 503 && strings.Contains(string(said), "deny list") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("readyz with a deny list that cannot be read: %d %s", a.StatusCode, said)
		}
		post(plain, converse, key, hello) // the list is looked at as calls come
		runtimeYield()
	}
	audit, err := os.ReadFile(filepath.Join(dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"outcome":"accepted","method":"oidc","subject":"u2"`, `"outcome":"accepted","method":"mtls"`, `"outcome":"accepted","method":"key","subject":"user-1"`,
		`"outcome":"refused","reason":"no_proof"`, `"reason":"disagree"`, `"reason":"revoked"`, `"outcome":"session_given","method":"oidc","subject":"u2"`, `"session_name":"people-u2"`} {
		if !strings.Contains(string(audit), want) {
			t.Errorf("the audit file lacks %s:\n%s", want, audit)
		}
	}
	for _, secret := range []string{key, given.SecretAccessKey, "eyJ"} {
		if strings.Contains(string(audit), secret) {
			t.Errorf("the audit file holds a credential")
		}
	}
}

// The settings that the documents show are read.
func TestDocumentedCallers(t *testing.T) {
	t.Setenv("WAYBILL_SEALING_KEY", identity.NewSealingKey())
	t.Setenv("WAYBILL_KEYS_URL", "postgres://waybill@db.example.com/waybill")
	dir, _ := home(t, "http://127.0.0.1:1")
	base, err := os.ReadFile(filepath.Join(dir, "waybilld.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	writePair(t, dir, 1)
	text := strings.Replace(string(base), "callers: {keys: keys.jsonl}\n", "tls: {certificate: server.pem, key: server.key, clientCA: server.pem}\n", 1)
	shown := 0
	for _, page := range []string{"callers.md", "signing-keys.md", "aws-identity.md"} {
		src, err := os.ReadFile(filepath.Join("../../docs/operate", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(src), "```yaml")[1:] {
			_, part, _ = strings.Cut(part, "\n")
			part, _, _ = strings.Cut(part, "```")
			if !strings.HasPrefix(part, "callers:") {
				part = "callers:\n  oidc:\n    - " + strings.ReplaceAll(strings.TrimSpace(part), "\n", "\n      ") + "\n" // of one issuer
			}
			path := filepath.Join(dir, "documented.yaml")
			if err := os.WriteFile(path, []byte(text+part), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := readConfig(path); err != nil {
				t.Errorf("%s: %v", page, err)
			}
			shown++
		}
	}
	if shown < 8 {
		t.Errorf("%d examples were found", shown)
	}
}
