package fakeaws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
)

func assume(t *testing.T, url string, c aws.CredentialsProvider, change func(*sts.AssumeRoleInput)) (*sts.AssumeRoleOutput, error) {
	t.Helper()
	in := &sts.AssumeRoleInput{RoleArn: aws.String(role), RoleSessionName: aws.String("user-17")}
	if change != nil {
		change(in)
	}
	return stsClient(url, c).AssumeRole(t.Context(), in)
}

func of(out *sts.AssumeRoleOutput) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
}

// What a session has that assumes a role passes on, or limits what it gets.
func TestChaining(t *testing.T) {
	static := credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", vectorSecret, "")
	other := "arn:aws:iam::111122223333:role/other"
	w, url := world(t, func(c *Config) {
		c.Roles[0].MaxSession = 12 * time.Hour
		c.Roles = append(c.Roles, Role{ARN: other, MaxSession: 12 * time.Hour, Trusted: []string{role}, Tags: map[string]string{"Team": "nobody"}})
	})
	long := func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(43200) }
	first, err := assume(t, url, static, func(in *sts.AssumeRoleInput) {
		long(in)
		in.SourceIdentity = aws.String("user-17")
		in.Tags = []ststypes.Tag{{Key: aws.String("team"), Value: aws.String("search")}, {Key: aws.String("feature"), Value: aws.String("x")}}
		in.TransitiveTagKeys = []string{"team"}
	})
	if err != nil || aws.ToString(first.SourceIdentity) != "user-17" || time.Until(*first.Credentials.Expiration) < 11*time.Hour {
		t.Fatalf("%+v, %v", first, err)
	}
	if _, err := assume(t, url, of(first), func(in *sts.AssumeRoleInput) { in.RoleArn = &other; long(in) }); codeOf(err) != "ValidationError" || !strings.Contains(err.Error(), "chaining") {
		t.Errorf("twelve hours of a chained role: %v", err)
	}
	if _, err := assume(t, url, of(first), func(in *sts.AssumeRoleInput) { in.RoleArn = &other; in.SourceIdentity = aws.String("user-18") }); codeOf(err) != "AccessDenied" || !strings.Contains(err.Error(), "sts:SetSourceIdentity") {
		t.Errorf("another source identity: %v", err)
	}
	second, err := assume(t, url, of(first), func(in *sts.AssumeRoleInput) { in.RoleArn = &other })
	if err != nil || aws.ToString(second.SourceIdentity) != "user-17" {
		t.Fatalf("%+v, %v", second, err)
	}
	c := w.byID[*second.Credentials.AccessKeyId]
	if c.tags["team"] != "search" || c.tags["Team"] != "" || c.tags["feature"] != "" || c.transitive["team"] != "search" {
		t.Errorf("the second session has tags %v, and passes on %v", c.tags, c.transitive)
	}
	// A role does not trust itself unless it says so.
	if _, err := assume(t, url, of(first), nil); codeOf(err) != "AccessDenied" {
		t.Errorf("a role assumed itself: %v", err)
	}
	w.config.Roles[0].Trusted = append(w.config.Roles[0].Trusted, role)
	if _, err := assume(t, url, of(first), nil); err != nil {
		t.Errorf("a role that trusts itself: %v", err)
	}
	for name, tt := range map[string]struct {
		world  func(*Config)
		change func(*sts.AssumeRoleInput)
		code   string
	}{
		"no source identity":     {func(c *Config) { c.Roles[0].NoSourceID = true }, func(in *sts.AssumeRoleInput) { in.SourceIdentity = aws.String("user-17") }, "AccessDenied"},
		"reserved source":        {nil, func(in *sts.AssumeRoleInput) { in.SourceIdentity = aws.String("aws:x") }, "ValidationError"},
		"external id characters": {nil, func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("a b") }, "ValidationError"},
		"transitive without tag": {nil, func(in *sts.AssumeRoleInput) { in.TransitiveTagKeys = []string{"team"} }, "ValidationError"},
		"Region":                 {func(c *Config) { c.STSOff = []string{"us-east-1"} }, nil, "RegionDisabledException"},
	} {
		_, url := world(t, tt.world)
		if _, err := assume(t, url, static, tt.change); codeOf(err) != tt.code {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
}

// issuer signs tokens.
type issuer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	e, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return &issuer{r, e}
}

var b64 = base64.RawURLEncoding

func (i *issuer) keys() ([]byte, error) {
	point, err := i.ec.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "RSA", "kid": "r", "use": "sig", "n": b64.EncodeToString(i.rsa.N.Bytes()), "e": b64.EncodeToString(big.NewInt(int64(i.rsa.E)).Bytes())},
		{"kty": "EC", "kid": "e", "crv": "P-256", "x": b64.EncodeToString(point[1:33]), "y": b64.EncodeToString(point[33:])}}})
}

func (i *issuer) sign(alg, kid string, claims map[string]any) string {
	header, _ := json.Marshal(map[string]string{"alg": alg, "kid": kid})
	body, _ := json.Marshal(claims)
	signed := b64.EncodeToString(header) + "." + b64.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	var signature []byte
	switch alg {
	case "RS256":
		signature, _ = rsa.SignPKCS1v15(rand.Reader, i.rsa, crypto.SHA256, sum[:])
	case "ES256":
		r, s, _ := ecdsa.Sign(rand.Reader, i.ec, sum[:])
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	return signed + "." + b64.EncodeToString(signature)
}

// A token takes the place of a signature, and brings its own tags.
func TestAssumeRoleWithWebIdentity(t *testing.T) {
	const issuerURL, providerARN = "https://login.example.com/realm", "arn:aws:iam::111122223333:oidc-provider/login.example.com/realm"
	signer, stranger := newIssuer(t), newIssuer(t)
	now := time.Now()
	good := func() map[string]any {
		return map[string]any{"iss": issuerURL, "sub": "user-17", "aud": "waybill", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			tagsClaim: map[string]any{"principal_tags": map[string]any{"team": []string{"search"}}, "transitive_tag_keys": []string{"team"}}}
	}
	setup := func(c *Config) {
		c.Providers = []OIDCProvider{{ARN: providerARN, Issuer: issuerURL, ClientIDs: []string{"waybill", "other"}, Keys: signer.keys}}
		c.Roles[0].Federated = []Federation{{Provider: providerARN, Audiences: []string{"waybill"}}}
		c.Roles[0].MaxSession = 12 * time.Hour
	}
	call := func(url, token string, change func(*sts.AssumeRoleWithWebIdentityInput)) (*sts.AssumeRoleWithWebIdentityOutput, error) {
		in := &sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String(role), RoleSessionName: aws.String("user-17"), WebIdentityToken: &token, DurationSeconds: aws.Int32(43200)}
		if change != nil {
			change(in)
		}
		return stsClient(url, nil).AssumeRoleWithWebIdentity(t.Context(), in)
	}
	w, url := world(t, setup)
	for _, alg := range []string{"RS256", "ES256"} {
		out, err := call(url, signer.sign(alg, strings.ToLower(alg[:1]), good()), nil)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if aws.ToString(out.SubjectFromWebIdentityToken) != "user-17" || aws.ToString(out.Audience) != "waybill" || aws.ToString(out.Provider) != providerARN ||
			aws.ToInt32(out.SessionTokenUtilization) == 0 || time.Until(*out.Credentials.Expiration) < 11*time.Hour {
			t.Errorf("%+v", out)
		}
		if c := w.byID[*out.Credentials.AccessKeyId]; c.tags["team"] != "search" || c.transitive["team"] != "search" || !c.isRole {
			t.Errorf("the session has tags %v, and passes on %v", c.tags, c.transitive)
		}
	}
	flat := good()
	delete(flat, tagsClaim)
	flat[tagsClaim+"/principal_tags/team"] = "ads"
	flat[tagsClaim+"/transitive_tag_keys"] = []string{"team"}
	flat[sourceIdentityClaim] = "user-17"
	flat["aud"] = []string{"someone", "waybill"}
	out, err := call(url, signer.sign("RS256", "r", flat), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := w.byID[*out.Credentials.AccessKeyId]; c.tags["team"] != "ads" || c.transitive["team"] != "ads" || c.sourceIdentity != "user-17" {
		t.Errorf("flattened: the session has tags %v, and passes on %v", c.tags, c.transitive)
	}
	if a := w.Assumptions(); len(a) != 3 || a[2].Caller != providerARN+"#user-17" || a[2].Tags["team"] != "ads" || a[2].SourceIdentity != "user-17" {
		t.Errorf("assumptions %+v", a)
	}
	for _, tt := range []struct {
		name   string
		alg    string
		kid    string
		by     *issuer
		claims func(map[string]any)
		world  func(*Config)
		change func(*sts.AssumeRoleWithWebIdentityInput)
		code   string
	}{
		{name: "another's signature", by: stranger, code: "InvalidIdentityToken"},
		{name: "no signature", alg: "none", code: "InvalidIdentityToken"},
		{name: "unknown key", kid: "x", code: "InvalidIdentityToken"},
		{name: "a key of another kind", kid: "e", code: "InvalidIdentityToken"},
		{name: "issuer", claims: func(c map[string]any) { c["iss"] = "https://evil.example.com" }, code: "InvalidIdentityToken"},
		{name: "audience", claims: func(c map[string]any) { c["aud"] = "stranger" }, code: "InvalidIdentityToken"},
		{name: "authorized party", claims: func(c map[string]any) { c["azp"] = "stranger" }, code: "InvalidIdentityToken"},
		{name: "audience of the trust policy", claims: func(c map[string]any) { c["aud"] = "other" }, code: "AccessDenied"},
		{name: "subject of the trust policy", world: func(c *Config) { c.Roles[0].Federated[0].Subjects = []string{"user-18"} }, code: "AccessDenied"},
		{name: "expired", claims: func(c map[string]any) { c["exp"] = now.Add(-time.Minute).Unix() }, code: "ExpiredTokenException"},
		{name: "no expiry", claims: func(c map[string]any) { delete(c, "exp") }, code: "InvalidIdentityToken"},
		{name: "no subject", claims: func(c map[string]any) { delete(c, "sub") }, code: "InvalidIdentityToken"},
		{name: "from the future", claims: func(c map[string]any) { c["iat"] = now.Add(time.Hour).Unix() }, code: "InvalidIdentityToken"},
		{name: "no trust", world: func(c *Config) { c.Roles[0].Federated = nil }, code: "AccessDenied"},
		{name: "no tagging", world: func(c *Config) { c.Roles[0].NoTagging = true }, code: "AccessDenied"},
		{name: "key set away", world: func(c *Config) {
			c.Providers[0].Keys = func() ([]byte, error) { return nil, errors.New("down") }
		}, code: "IDPCommunicationError"},
		{name: "two values", claims: func(c map[string]any) {
			c[tagsClaim] = map[string]any{"principal_tags": map[string]any{"team": []string{"search", "ads"}}}
		}, code: "InvalidIdentityToken"},
		{name: "a tag both ways", claims: func(c map[string]any) { c[tagsClaim+"/principal_tags/team"] = "ads" }, code: "InvalidIdentityToken"},
		{name: "tag characters", claims: func(c map[string]any) {
			c[tagsClaim] = map[string]any{"principal_tags": map[string]any{"team": []string{"a,b"}}}
		}, code: "ValidationError"},
		{name: "tags too large", claims: func(c map[string]any) {
			big := strings.Repeat("x", 256)
			c[tagsClaim] = map[string]any{"principal_tags": map[string]any{"a": []string{big}, "b": []string{big}, "c": []string{big}, "d": []string{big}, "e": []string{big}}}
		}, code: "PackedPolicyTooLarge"},
		{name: "too long", world: func(c *Config) { c.Roles[0].MaxSession = 0 }, code: "ValidationError"},
		{name: "name", change: func(in *sts.AssumeRoleWithWebIdentityInput) { in.RoleSessionName = aws.String("a b") }, code: "ValidationError"},
		{name: "huge", change: func(in *sts.AssumeRoleWithWebIdentityInput) {
			in.WebIdentityToken = aws.String(strings.Repeat("x", 20001))
		}, code: "ValidationError"},
		{name: "no token at all", change: func(in *sts.AssumeRoleWithWebIdentityInput) { in.WebIdentityToken = aws.String("opaque-access-token") }, code: "InvalidIdentityToken"},
	} {
		_, url := world(t, func(c *Config) {
			setup(c)
			if tt.world != nil {
				tt.world(c)
			}
		})
		claims := good()
		if tt.claims != nil {
			tt.claims(claims)
		}
		alg, kid, by := "RS256", "r", signer
		if tt.alg != "" {
			alg = tt.alg
		}
		if tt.kid != "" {
			kid = tt.kid
		}
		if tt.by != nil {
			by = tt.by
		}
		if _, err := call(url, by.sign(alg, kid, claims), tt.change); codeOf(err) != tt.code {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.code)
		}
	}
	// Tags cannot be asked for beside the token.
	a, err := http.PostForm(url, map[string][]string{"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {role}, "RoleSessionName": {"user-17"},
		"WebIdentityToken": {signer.sign("RS256", "r", good())}, "Tags.member.1.Key": {"team"}, "Tags.member.1.Value": {"ads"}})
	if err != nil || a.StatusCode != 400 {
		t.Errorf("tags beside the token: %v, %v", a, err)
	}
	a.Body.Close()
}

// The verifier takes the AssumeRole that an independent implementation has signed.
func TestAssumeRoleVector(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	w := NewWorld(Config{RealNow: func() time.Time { return now }})
	w.byID["AKIDEXAMPLE"] = &credential{id: "AKIDEXAMPLE", secret: vectorSecret, token: "fixture-session-token"}
	const body = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fbedrock-prod&RoleSessionName=alice&DurationSeconds=3600&Tags.member.1.Key=team&Tags.member.1.Value=search"
	r := &http.Request{Method: "POST", RequestURI: "/", URL: &url.URL{Path: "/"}, Host: "sts.us-east-1.amazonaws.com", Header: http.Header{}}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set("X-Amz-Date", "20250102T030405Z")
	r.Header.Set("X-Amz-Security-Token", "fixture-session-token")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20250102/us-east-1/sts/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=bf69ca41b5aaa4fa2031dd2900d003c424dc1bb0481935920df24eb3fec1c413")
	if _, _, no := w.verify(r, []byte(body), "sts"); no != nil {
		t.Error(no)
	}
	if _, _, no := w.verify(r, []byte(strings.Replace(body, "search", "ads", 1)), "sts"); no == nil {
		t.Error("another tag has the same signature")
	}
}
