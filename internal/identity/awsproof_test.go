package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
)

const (
	exampleSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	exampleUser   = "arn:aws:iam::111122223333:user/people/user-17"
	exampleRole   = "arn:aws:iam::111122223333:role/ci-runner"
)

// toFake sends calls of STS to the stand-in for AWS, whatever host they are for.
type toFake struct {
	url   string
	calls atomic.Int64
	host  atomic.Value
}

func (f *toFake) RoundTrip(r *http.Request) (*http.Response, error) {
	f.calls.Add(1)
	f.host.Store(r.URL.Host)
	to, err := url.Parse(f.url)
	if err != nil {
		return nil, err
	}
	c := r.Clone(r.Context())
	c.Host, c.URL.Scheme, c.URL.Host = r.URL.Host, "http", to.Host
	return http.DefaultTransport.RoundTrip(c)
}

// fakeSTS is an AWS with a user and a role, and the way there.
func fakeSTS(t *testing.T, now func() time.Time) (*fakeaws.World, *toFake) {
	t.Helper()
	w := fakeaws.NewWorld(fakeaws.Config{Regions: []string{"us-east-1"}, RealNow: now,
		Users: []fakeaws.User{{ARN: exampleUser, AccessKeyID: "AKIDEXAMPLEEXAMPLE", SecretAccessKey: exampleSecret}},
		Roles: []fakeaws.Role{{ARN: exampleRole, Trusted: []string{exampleUser}}}})
	u, stop, err := w.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return w, &toFake{url: u}
}

func userCredentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider("AKIDEXAMPLEEXAMPLE", exampleSecret, "")
}

// roleCredentials assumes the role; the session is called as the caller likes.
func roleCredentials(t *testing.T, f *toFake, session string) aws.CredentialsProvider {
	t.Helper()
	out, err := sts.New(sts.Options{Region: "us-east-1", Credentials: userCredentials(), BaseEndpoint: &f.url}).AssumeRole(t.Context(),
		&sts.AssumeRoleInput{RoleArn: aws.String(exampleRole), RoleSessionName: &session})
	if err != nil {
		t.Fatal(err)
	}
	c := out.Credentials
	return credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

func awsConfig(client http.RoundTripper, now func() time.Time) AWSConfig {
	return AWSConfig{Gateway: "wb.example", Accounts: []string{"111122223333"}, Client: client, Now: now, Rules: []AWSRule{
		{Principal: "arn:aws:iam::111122223333:role/ci-*", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "build"}), Models: []string{"anthropic.*"}, Environments: []string{"staging"}},
		{Principal: "arn:aws:iam::111122223333:user/people/*", Subject: "{name}"},
	}}
}

func newAWS(t testing.TB, c AWSConfig) *AWS {
	t.Helper()
	p, err := NewAWS(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func presign(t testing.TB, creds aws.CredentialsProvider, gateway string, life time.Duration, now time.Time) string {
	t.Helper()
	token, err := PresignIdentity(context.Background(), creds, gateway, "us-east-1", life, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearerRequest(token string) *http.Request {
	return request("Authorization", "Bearer "+token)
}

// The proof is the one that botocore makes of the same.
func TestPresignIdentityVector(t *testing.T) {
	token := presign(t, credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", exampleSecret, "fixture-session-token"), "wb.example", time.Minute, signedAt)
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, proofPrefix))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), "X-Amz-Signature=b6ac660713dec7fd109b6fc67cda2b562b8def3865b6387d032d22c1d24f5733") {
		t.Errorf("it is %s", raw)
	}
}

// The script that docs/operate/aws-identity.md gives to users makes a proof that holds.
func TestAWSIdentityRecipe(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	if err := exec.Command(python, "-c", "import botocore").Run(); err != nil {
		t.Skip("python3 has no botocore")
	}
	page, err := os.ReadFile("../../docs/operate/aws-identity.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(page), "```python\n")
	script, _, ok := strings.Cut(script, "```")
	if !ok {
		t.Fatal("the page has no script")
	}
	_, f := fakeSTS(t, time.Now)
	creds, err := roleCredentials(t, f, "s-1").Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", script, "wb.example")
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+creds.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+creds.SecretAccessKey, "AWS_SESSION_TOKEN="+creds.SessionToken, "AWS_REGION=eu-west-1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	who, err := newAWS(t, awsConfig(f, time.Now)).Authenticate(bearerRequest(strings.TrimSpace(string(out))))
	if err != nil || who.Subject != exampleRole || f.host.Load() != "sts.eu-west-1.amazonaws.com" {
		t.Errorf("%+v %v, asked at %v", who, err, f.host.Load())
	}
}

// A role and a user prove who they are; STS is asked once, while the answer is good.
func TestAWSIdentity(t *testing.T) {
	now := signedAt
	clock := func() time.Time { return now }
	_, f := fakeSTS(t, clock)
	p := newAWS(t, awsConfig(f, clock))
	token := presign(t, roleCredentials(t, f, "chosen-by-the-caller"), "wb.example", 10*time.Minute, now)
	before := f.calls.Load()
	for name, r := range map[string]*http.Request{"bearer": bearerRequest(token), "x-api-key": request("X-Api-Key", token), "api-key": request("Api-Key", token),
		"header of its own": request(ProofHeader, token)} {
		if !BringsAWSIdentity(r) {
			t.Errorf("%s: not seen", name)
		}
		who, err := p.Authenticate(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if who.Subject != exampleRole || who.Issuer != "sts.amazonaws.com" || who.Method != "aws" || who.Tags.Len() != 1 || len(who.Models) != 1 || len(who.Environments) != 1 {
			t.Errorf("%s: %+v", name, who)
		}
		if strings.Contains(fmt.Sprint(who), "chosen-by-the-caller") {
			t.Errorf("%s: the caller's choice of a session name came through: %+v", name, who)
		}
		if who.Claims["aws_account"] != "111122223333" || !strings.HasPrefix(who.Claims["aws_unique_id"], "AROA") {
			t.Errorf("%s: claims %v", name, who.Claims)
		}
	}
	if n := f.calls.Load() - before; n != 1 {
		t.Errorf("STS was asked %d times", n)
	}
	if host := f.host.Load(); host != "sts.us-east-1.amazonaws.com" {
		t.Errorf("asked at %v", host)
	}
	now = now.Add(5 * time.Minute)
	if _, err := p.Authenticate(bearerRequest(token)); err != nil || f.calls.Load()-before != 2 {
		t.Errorf("after five minutes: asked %d times, %v", f.calls.Load()-before, err)
	}
	now = signedAt.Add(10 * time.Minute)
	if _, err := p.Authenticate(bearerRequest(token)); reasonOf(err) != ReasonExpired || f.calls.Load()-before != 2 {
		t.Errorf("after its end: asked %d times, %v", f.calls.Load()-before, err)
	}
	who, err := p.Authenticate(bearerRequest(presign(t, userCredentials(), "wb.example", time.Minute, now)))
	if err != nil || who.Subject != "user-17" || len(who.Models) != 0 {
		t.Errorf("a user: %+v %v", who, err)
	}
	// What STS said is forgotten when the proof ends, even if it would be kept longer.
	short := presign(t, userCredentials(), "wb.example", time.Second, now)
	if _, err := p.Authenticate(bearerRequest(short)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	if _, err := p.Authenticate(bearerRequest(short)); reasonOf(err) != ReasonExpired {
		t.Errorf("a second later: %v", err)
	}
}

// What STS refuses stays refused for a while without asking; the caller learns nothing.
func TestAWSIdentityRefusedBySTS(t *testing.T) {
	now := signedAt
	clock := func() time.Time { return now }
	w, f := fakeSTS(t, clock)
	p := newAWS(t, awsConfig(f, clock))
	shape := refused()
	wrong := credentials.NewStaticCredentialsProvider("AKIDEXAMPLEEXAMPLE", "another secret", "")
	nobody := credentials.NewStaticCredentialsProvider("AKIDNOBODYNOBODY", exampleSecret, "")
	for name, token := range map[string]string{
		"for another gateway": presign(t, userCredentials(), "other.example", time.Minute, now),
		"wrong secret":        presign(t, wrong, "wb.example", time.Minute, now),
		"unknown key":         presign(t, nobody, "wb.example", time.Minute, now),
	} {
		before := f.calls.Load()
		for range 3 {
			_, err := p.Authenticate(bearerRequest(token))
			if reasonOf(err) != ReasonSignature || err.Error() != shape.Error() {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := f.calls.Load() - before; n != 1 {
			t.Errorf("%s: STS was asked %d times", name, n)
		}
		now = now.Add(30 * time.Second)
		p.Authenticate(bearerRequest(token))
		if n := f.calls.Load() - before; n != 2 {
			t.Errorf("%s: half a minute later STS was asked %d times", name, n)
		}
		now = now.Add(-30 * time.Second)
	}
	// An STS that is down refuses nobody: it is asked again.
	token := presign(t, userCredentials(), "wb.example", time.Minute, now)
	w.BreakSTS(true)
	_, err := p.Authenticate(bearerRequest(token))
	if e, ok := errors.AsType[*waybill.Error](err); !ok || e.Kind != waybill.Unavailable || e.Code != "WB1005" {
		t.Errorf("STS is down: %v", err)
	}
	w.BreakSTS(false)
	if _, err := p.Authenticate(bearerRequest(token)); err != nil {
		t.Errorf("STS is back: %v", err)
	}
}

// noCalls fails a test in which a request is made.
type noCalls struct{ t testing.TB }

func (n noCalls) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("a request was made to %s", r.URL.Host)
	return nil, errors.New("no")
}

// parameters are those of a good proof, to be spoiled.
func parameters() map[string]string {
	return map[string]string{"Action": "GetCallerIdentity", "Version": "2011-06-15", "X-Amz-Algorithm": algorithm,
		"X-Amz-Credential": "AKIDEXAMPLEEXAMPLE/20250102/us-east-1/sts/aws4_request", "X-Amz-Date": "20250102T030405Z", "X-Amz-Expires": "60",
		"X-Amz-SignedHeaders": "host;x-waybill-gateway", "X-Amz-Signature": strings.Repeat("0", 64), "X-Amz-Security-Token": "FwoG/+="}
}

func encode(values map[string]string) string {
	q := url.Values{}
	for k, v := range values {
		q.Set(k, v)
	}
	return strings.ReplaceAll(q.Encode(), "+", "%20")
}

func proofText(u string) string { return proofPrefix + base64.RawURLEncoding.EncodeToString([]byte(u)) }

// No proof makes the gateway call anything but STS, or STS for anything but this.
func TestAWSIdentityMakesNoOtherCall(t *testing.T) {
	good := encode(parameters())
	with := func(name, value string) string {
		p := parameters()
		p[name] = value
		return encode(p)
	}
	without := func(name string) string {
		p := parameters()
		delete(p, name)
		return encode(p)
	}
	regional := func(region string) string {
		return with("X-Amz-Credential", "AKIDEXAMPLEEXAMPLE/20250102/"+region+"/sts/aws4_request")
	}
	const sts = "https://sts.us-east-1.amazonaws.com/?"
	urls := map[string]string{
		"metadata service":           "http://169.254.169.254/latest/meta-data/?" + good,
		"metadata service, https":    "https://169.254.169.254/?" + good,
		"metadata service, IPv6":     "https://[fd00:ec2::254]/?" + good,
		"loopback":                   "https://127.0.0.1/?" + good,
		"localhost":                  "https://localhost/?" + good,
		"a number":                   "https://2130706433/?" + good,
		"plain http":                 "http://sts.us-east-1.amazonaws.com/?" + good,
		"no scheme":                  "sts.us-east-1.amazonaws.com/?" + good,
		"scheme only slashes":        "//sts.us-east-1.amazonaws.com/?" + good,
		"scheme in capitals":         "HTTPS://sts.us-east-1.amazonaws.com/?" + good,
		"a file":                     "file:///etc/passwd?" + good,
		"gopher":                     "gopher://sts.us-east-1.amazonaws.com/?" + good,
		"host ends elsewhere":        "https://sts.us-east-1.amazonaws.com.evil.example/?" + good,
		"host begins elsewhere":      "https://evil.example.sts.us-east-1.amazonaws.com/?" + good,
		"host in a name":             "https://evil-sts.us-east-1.amazonaws.com/?" + good,
		"host with a dot behind":     "https://sts.us-east-1.amazonaws.com./?" + good,
		"user before the host":       "https://sts.us-east-1.amazonaws.com@evil.example/?" + good,
		"password before the host":   "https://a:b@sts.us-east-1.amazonaws.com/?" + good,
		"a port":                     "https://sts.us-east-1.amazonaws.com:8443/?" + good,
		"the port of https":          "https://sts.us-east-1.amazonaws.com:443/?" + good,
		"backslash":                  `https://evil.example\.sts.us-east-1.amazonaws.com/?` + good,
		"backslash before":           `https://sts.us-east-1.amazonaws.com\@evil.example/?` + good,
		"fragment before the query":  "https://evil.example/#sts.us-east-1.amazonaws.com/?" + good,
		"fragment in the host":       "https://evil.example#.sts.us-east-1.amazonaws.com/?" + good,
		"host escaped":               "https://sts%2eus-east-1.amazonaws.com/?" + good,
		"host in capitals":           "https://STS.us-east-1.amazonaws.com/?" + good,
		"host with a line end":       "https://sts.us-east-1.amazonaws.com\r\nHost: evil.example/?" + good,
		"host with a NUL":            "https://sts.us-east-1.amazonaws.com\x00.evil.example/?" + good,
		"host in other letters":      "https://ѕts.us-east-1.amazonaws.com/?" + good,
		"region is a host":           "https://sts.evil.example/x.amazonaws.com/?" + good,
		"region is a bucket":         "https://sts.evil-bucket.s3.amazonaws.com/?" + good,
		"another service":            "https://iam.us-east-1.amazonaws.com/?" + good,
		"s3":                         "https://sts.s3.amazonaws.com/?" + good,
		"execute-api":                "https://sts.execute-api.us-east-1.amazonaws.com/?" + good,
		"sts of another suffix":      "https://sts.us-east-1.amazonaws.com.cn/?" + good,
		"sts of another cloud":       "https://sts.us-east-1.amazonaws.co/?" + good,
		"no host":                    "https:///?" + good,
		"a path":                     "https://sts.us-east-1.amazonaws.com/x?" + good,
		"a path of dots":             "https://sts.us-east-1.amazonaws.com/../?" + good,
		"two slashes":                "https://sts.us-east-1.amazonaws.com//?" + good,
		"blank before":               " https://sts.us-east-1.amazonaws.com/?" + good,
		"another action":             sts + with("Action", "AssumeRole"),
		"another action, in case":    sts + with("Action", "getcalleridentity"),
		"two actions":                sts + "Action=AssumeRole&" + good,
		"two actions, behind":        sts + good + "&Action=GetSessionToken",
		"an action in disguise":      sts + "%41ction=AssumeRole&" + good,
		"an action in small letters": sts + "action=AssumeRole&" + good,
		"no action":                  sts + without("Action"),
		"another version":            sts + with("Version", "2014-01-01"),
		"a parameter more":           sts + good + "&RoleArn=arn",
		"an empty parameter":         sts + good + "&",
		"a parameter without value":  sts + good + "&Debug",
		"no query":                   "https://sts.us-east-1.amazonaws.com/",
		"a fragment":                 sts + good + "#x",
		"a semicolon":                sts + good + ";Action=AssumeRole",
		"a plus":                     sts + strings.Replace(good, "FwoG", "Fw+G", 1),
		"a bad escape":               sts + good + "%zz",
		"an hour":                    sts + with("X-Amz-Expires", "3600"),
		"no time":                    sts + with("X-Amz-Expires", "0"),
		"less than no time":          sts + with("X-Amz-Expires", "-1"),
		"no life":                    sts + without("X-Amz-Expires"),
		"life with a blank":          sts + with("X-Amz-Expires", " 60"),
		"expired":                    sts + with("X-Amz-Date", "20250102T030205Z"),
		"in the future":              sts + with("X-Amz-Date", "20250102T031005Z"),
		"date of another day":        sts + with("X-Amz-Date", "20250103T030405Z"),
		"no date":                    sts + without("X-Amz-Date"),
		"gateway not signed":         sts + with("X-Amz-SignedHeaders", "host"),
		"host not signed":            sts + with("X-Amz-SignedHeaders", "x-waybill-gateway"),
		"more signed":                sts + with("X-Amz-SignedHeaders", "host;x-k8s-aws-id;x-waybill-gateway"),
		"signed in another order":    sts + with("X-Amz-SignedHeaders", "x-waybill-gateway;host"),
		"scope of another service":   sts + with("X-Amz-Credential", "AKIDEXAMPLEEXAMPLE/20250102/us-east-1/bedrock/aws4_request"),
		"scope of another Region":    sts + regional("us-west-2"),
		"global, another Region":     "https://sts.amazonaws.com/?" + regional("eu-west-1"),
		"a Region not listed":        "https://sts.eu-west-1.amazonaws.com/?" + regional("eu-west-1"),
		"scope too short":            sts + with("X-Amz-Credential", "AKIDEXAMPLEEXAMPLE/20250102/us-east-1/sts"),
		"key with a line end":        sts + with("X-Amz-Credential", "AKIDEXAMPLEEXAMPLE\r\nX: y/20250102/us-east-1/sts/aws4_request"),
		"a short key":                sts + with("X-Amz-Credential", "AKID/20250102/us-east-1/sts/aws4_request"),
		"a gateway's signing key":    sts + with("X-Amz-Credential", "WBSK_lower/20250102/us-east-1/sts/aws4_request"),
		"signature of no digits":     sts + with("X-Amz-Signature", strings.Repeat("x", 64)),
		"no signature":               sts + without("X-Amz-Signature"),
		"token with a line end":      sts + with("X-Amz-Security-Token", "a\r\nb"),
		"an empty token":             sts + with("X-Amz-Security-Token", ""),
		"another algorithm":          sts + with("X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256"),
		"a long one":                 sts + good + strings.Repeat("&", 9000),
		"a Bedrock key":              "bedrock.amazonaws.com/?Action=CallWithBearerToken",
		"nothing":                    "",
	}
	tokens := map[string]string{"no base64": proofPrefix + "!!!", "padded": proofText(sts+good) + "==", "standard base64": proofPrefix + "+/+/", "with a line end": proofPrefix + "\r\n" + base64.RawURLEncoding.EncodeToString([]byte(sts+good)),
		"another version": "wbaws-v2." + base64.RawURLEncoding.EncodeToString([]byte(sts+good)), "huge": proofPrefix + strings.Repeat("A", 1<<20), "only the prefix": proofPrefix}
	for name, u := range urls {
		tokens[name] = proofText(u)
	}
	config := awsConfig(noCalls{t}, func() time.Time { return signedAt.Add(time.Minute - time.Second) })
	config.Regions = []string{"us-east-1", "us-west-2"}
	p := newAWS(t, config)
	for name, token := range tokens {
		if _, err := p.Authenticate(request(ProofHeader, token)); reasonOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]*http.Request{
		"two proofs":           {Header: http.Header{ProofHeader: {proofText(sts + good), proofText(sts + regional("us-east-1") + "&")}}},
		"two in other headers": {Header: http.Header{ProofHeader: {proofText(sts + good)}, "Authorization": {"Bearer " + proofText(sts+without("X-Amz-Security-Token"))}}},
		"none":                 {Header: http.Header{}},
	} {
		if _, err := p.Authenticate(r); reasonOf(err) != ReasonMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("%d hostile proofs refused without a call", len(tokens)+3)

	// The same, unspoiled, would have been asked about.
	asked := &answers{status: 403, body: "<ErrorResponse/>"}
	config.Client = asked
	if _, err := newAWS(t, config).Authenticate(request(ProofHeader, proofText(sts+good))); reasonOf(err) != ReasonSignature || asked.calls.Load() != 1 {
		t.Errorf("the good one: %v, asked %d times", err, asked.calls.Load())
	}
}

func TestSTSHosts(t *testing.T) {
	for host, want := range map[string]string{
		"sts.amazonaws.com": "us-east-1 aws", "sts.us-east-1.amazonaws.com": "us-east-1 aws", "sts.ap-southeast-3.amazonaws.com": "ap-southeast-3 aws",
		"sts-fips.us-west-2.amazonaws.com": "us-west-2 aws", "sts.eu-central-1.api.aws": "eu-central-1 aws", "sts-fips.us-east-2.api.aws": "us-east-2 aws",
		"sts.us-gov-west-1.amazonaws.com": "us-gov-west-1 aws-us-gov", "sts.cn-north-1.amazonaws.com.cn": "cn-north-1 aws-cn",
		"sts.cn-northwest-1.api.amazonwebservices.com.cn": "cn-northwest-1 aws-cn", "sts.eusc-de-east-1.amazonaws.eu": "eusc-de-east-1 aws-eusc",
		"sts.eusc-de-east-1.api.amazonwebservices.eu": "eusc-de-east-1 aws-eusc",
		"sts.cn-north-1.amazonaws.com":                "", "sts.us-east-1.amazonaws.com.cn": "", "sts.us-gov-west-1.amazonaws.eu": "", "sts-fips.amazonaws.com": "",
		"sts.amazonaws.com.cn": "", "stsx.us-east-1.amazonaws.com": "", "sts.us-east-1a.amazonaws.com": "", "sts.us-east-01.amazonaws.com": "", "sts..amazonaws.com": "", "sts": "", "": "",
	} {
		region, partition, ok := stsHost(host)
		if got := strings.TrimSpace(region + " " + partition); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v, want %q", host, got, ok, want)
		}
	}
	// A proof that we make is for a host that we take.
	for _, region := range []string{"us-east-1", "us-gov-east-1", "cn-north-1", "eusc-de-east-1"} {
		token, err := PresignIdentity(t.Context(), userCredentials(), "wb.example", region, time.Minute, signedAt)
		if err != nil {
			t.Fatal(err)
		}
		p := newAWS(t, awsConfig(noCalls{t}, nil))
		if _, why := p.read(token, signedAt); why != "" {
			t.Errorf("%s: %s", region, why)
		}
	}
	for name, f := range map[string]func() (string, error){
		"gateway": func() (string, error) {
			return PresignIdentity(t.Context(), userCredentials(), "a b", "us-east-1", time.Minute, signedAt)
		},
		"region": func() (string, error) {
			return PresignIdentity(t.Context(), userCredentials(), "wb", "evil.example/", time.Minute, signedAt)
		},
		"life": func() (string, error) {
			return PresignIdentity(t.Context(), userCredentials(), "wb", "us-east-1", time.Hour, signedAt)
		},
	} {
		if _, err := f(); waybill.KindOf(err) != waybill.Misused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// answers is an STS that says one thing.
type answers struct {
	status int
	body   string
	header http.Header
	err    error
	calls  atomic.Int64
	sent   atomic.Pointer[http.Request]
	began  chan struct{} // if not nil, it is told of the first call
	wait   chan struct{} // if not nil, it answers when this is closed
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.calls.Add(1) == 1 && a.began != nil {
		close(a.began)
	}
	a.sent.Store(r)
	if a.wait != nil {
		select {
		case <-a.wait:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

func identityAnswer(arn, userID, account string) string {
	return `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <GetCallerIdentityResult><Arn>` + arn + `</Arn><UserId>` + userID + `</UserId><Account>` + account + `</Account></GetCallerIdentityResult>
  <ResponseMetadata><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ResponseMetadata></GetCallerIdentityResponse>`
}

// An answer is read strictly, and what is no answer is no refusal either.
func TestSTSAnswers(t *testing.T) {
	const session = "arn:aws:sts::111122223333:assumed-role/ci-runner/s-1"
	good := identityAnswer(session, "AROAEXAMPLEID12345:s-1", "111122223333")
	token := proofText("https://sts.us-east-1.amazonaws.com/?" + encode(parameters()))
	tests := []struct {
		name string
		answers
		want string // "taken", a reason, or WB1005
	}{
		{"good", answers{status: 200, body: good}, "taken"},
		{"with a declaration", answers{status: 200, body: `<?xml version="1.0" encoding="UTF-8"?>` + good}, "taken"},
		{"another account than the ARN's", answers{status: 200, body: identityAnswer(session, "AROAEXAMPLEID12345:s-1", "999999999999")}, "WB1005"},
		{"another session than the ARN's", answers{status: 200, body: identityAnswer(session, "AROAEXAMPLEID12345:s-2", "111122223333")}, "WB1005"},
		{"another partition", answers{status: 200, body: identityAnswer(strings.Replace(session, ":aws:", ":aws-cn:", 1), "AROAEXAMPLEID12345:s-1", "111122223333")}, "WB1005"},
		{"an account not listed", answers{status: 200, body: identityAnswer("arn:aws:sts::999999999999:assumed-role/ci-runner/s-1", "AROAEXAMPLEID12345:s-1", "999999999999")}, string(ReasonNoRule)},
		{"a role without a rule", answers{status: 200, body: identityAnswer("arn:aws:sts::111122223333:assumed-role/other/s-1", "AROAEXAMPLEID12345:s-1", "111122223333")}, string(ReasonNoRule)},
		{"an unknown ARN", answers{status: 200, body: identityAnswer("arn:aws:s3:::bucket", "AROAEXAMPLEID12345:s-1", "111122223333")}, "WB1005"},
		{"an ARN with blanks", answers{status: 200, body: identityAnswer(session+"\n", "AROAEXAMPLEID12345:s-1", "111122223333")}, "WB1005"},
		{"two ARNs", answers{status: 200, body: strings.Replace(good, "<UserId>", "<Arn>"+session+"</Arn><UserId>", 1)}, "WB1005"},
		{"two results", answers{status: 200, body: strings.Replace(good, "<GetCallerIdentityResult>", "<GetCallerIdentityResult></GetCallerIdentityResult><GetCallerIdentityResult>", 1)}, "WB1005"},
		{"no namespace", answers{status: 200, body: strings.Replace(good, ` xmlns="https://sts.amazonaws.com/doc/2011-06-15/"`, "", 1)}, "WB1005"},
		{"another answer", answers{status: 200, body: strings.ReplaceAll(good, "GetCallerIdentity", "AssumeRole")}, "WB1005"},
		{"something behind", answers{status: 200, body: good + "<x/>"}, "WB1005"},
		{"two answers", answers{status: 200, body: good + good}, "WB1005"},
		{"a page of a proxy", answers{status: 200, body: "<html>sign in</html>"}, "WB1005"},
		{"JSON", answers{status: 200, body: `{"GetCallerIdentityResponse":{}}`}, "WB1005"},
		{"nothing", answers{status: 200}, "WB1005"},
		{"an entity", answers{status: 200, body: `<!DOCTYPE x [<!ENTITY e "` + session + `">]>` + strings.Replace(good, session, "&e;", 1)}, "WB1005"},
		{"endless", answers{status: 200, body: good + strings.Repeat(" ", maxIdentityAnswer)}, "WB1005"},
		{"a redirect", answers{status: 302, header: http.Header{"Location": {"http://169.254.169.254/"}}}, "WB1005"},
		{"refused", answers{status: 403, body: `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>`}, string(ReasonSignature)},
		{"refused, in no form", answers{status: 400, body: "no"}, string(ReasonSignature)},
		{"throttled", answers{status: 400, body: `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>Throttling</Code></Error></ErrorResponse>`}, "WB1005"},
		{"too many", answers{status: 429}, "WB1005"},
		{"broken", answers{status: 500}, "WB1005"},
		{"no connection", answers{err: errors.New("connection refused")}, "WB1005"},
	}
	for i := range tests {
		tt := &tests[i]
		t.Run(tt.name, func(t *testing.T) {
			p := newAWS(t, awsConfig(&tt.answers, func() time.Time { return signedAt }))
			who, err := p.Authenticate(bearerRequest(token))
			e, _ := errors.AsType[*waybill.Error](err)
			switch {
			case tt.want == "taken":
				if err != nil || who.Subject != exampleRole || who.Claims["aws_unique_id"] != "AROAEXAMPLEID12345" {
					t.Errorf("%+v %v", who, err)
				}
			case err == nil || string(reasonOf(err)) != tt.want && e.Code != tt.want:
				t.Errorf("%+v %v, want %s", who, err, tt.want)
			case strings.Contains(err.Error(), "X-Amz-") || strings.Contains(err.Error(), token):
				t.Errorf("the error holds the proof: %v", err)
			}
			if tt.calls.Load() != 1 {
				t.Errorf("asked %d times", tt.calls.Load())
			}
			sent := tt.sent.Load()
			if sent.Method != "GET" || sent.Header.Get("X-Waybill-Gateway") != "wb.example" || sent.URL.Host != "sts.us-east-1.amazonaws.com" || sent.URL.Scheme != "https" || sent.URL.Path != "/" || sent.Body != nil {
				t.Errorf("asked %s %s with %v", sent.Method, sent.URL.Host, sent.Header)
			}
			if _, err := p.Authenticate(bearerRequest(token)); (tt.calls.Load() == 2) != (tt.want == "WB1005") {
				t.Errorf("asked %d times for two requests, %v", tt.calls.Load(), err)
			}
		})
	}
}

// Rules say who an identity is; what the caller can choose decides nothing.
func TestAWSRules(t *testing.T) {
	role := awsIdentity{partition: "aws", account: "111122223333", principal: exampleRole, name: "ci-runner", session: "user-99", uniqueID: "AROAEXAMPLEID12345"}
	user := awsIdentity{partition: "aws", account: "111122223333", principal: exampleUser, name: "user-17", uniqueID: "AIDAEXAMPLEID12345"}
	sso := awsIdentity{partition: "aws", account: "111122223333", principal: "arn:aws:iam::111122223333:role/AWSReservedSSO_Dev_0123456789abcdef", name: "AWSReservedSSO_Dev_0123456789abcdef", session: "user-17@example.com", uniqueID: "AROAEXAMPLEID99999"}
	tests := []struct {
		name string
		rule AWSRule
		who  awsIdentity
		want string // subject; empty if nobody
	}{
		{"exact", AWSRule{Principal: exampleRole}, role, exampleRole},
		{"a star", AWSRule{Principal: "arn:aws:iam::111122223333:role/ci-*"}, role, exampleRole},
		{"a star for the account", AWSRule{Principal: "arn:aws:iam::*:role/ci-runner"}, role, exampleRole},
		{"a star is no slash", AWSRule{Principal: "arn:aws:iam::111122223333:user/*"}, user, ""},
		{"a star over the path", AWSRule{Principal: "arn:aws:iam::111122223333:user/*/*"}, user, exampleUser},
		{"only the beginning", AWSRule{Principal: "arn:aws:iam::111122223333:role/ci"}, role, ""},
		{"only the end", AWSRule{Principal: "arn:aws:iam::111122223333:role/runner"}, role, ""},
		{"a dot is a dot", AWSRule{Principal: "arn:aws:iam::111122223333:role/ci.runner"}, role, ""},
		{"its unique id", AWSRule{Principal: exampleRole, RoleID: "AROAEXAMPLEID12345"}, role, exampleRole},
		{"another of its name", AWSRule{Principal: exampleRole, RoleID: "AROAEXAMPLEID00000"}, role, ""},
		{"a session", AWSRule{Principal: exampleRole, Session: "user-*"}, role, exampleRole},
		{"another session", AWSRule{Principal: exampleRole, Session: "user-1"}, role, ""},
		{"a session of a user", AWSRule{Principal: exampleUser, Session: "*-17"}, user, ""},
		{"named", AWSRule{Principal: exampleRole, Subject: "{account}/{name}"}, role, "111122223333/ci-runner"},
		{"a person", AWSRule{Principal: "arn:aws:iam::111122223333:role/AWSReservedSSO_Dev_*", TrustSession: true, Subject: "{session}"}, sso, "user-17@example.com"},
		{"a person who has none", AWSRule{Principal: "arn:aws:iam::111122223333:user/*/*", TrustSession: true, Subject: "{session}"}, user, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := awsConfig(noCalls{t}, nil)
			c.Rules = []AWSRule{tt.rule}
			got, why := newAWS(t, c).match(&tt.who)
			if got.Subject != tt.want || (why == nil) != (tt.want != "") {
				t.Errorf("%q %v, want %q", got.Subject, why, tt.want)
			}
			if _, ok := got.Claims["aws_session"]; ok != (tt.rule.TrustSession && tt.want != "") {
				t.Errorf("claims %v", got.Claims)
			}
		})
	}
	// A star for the account is any of the accounts that are listed.
	elsewhere := role
	elsewhere.account, elsewhere.principal = "999999999999", "arn:aws:iam::999999999999:role/ci-runner"
	anywhere := awsConfig(noCalls{t}, nil)
	anywhere.Rules = []AWSRule{{Principal: "arn:aws:iam::*:role/ci-runner"}}
	if got, why := newAWS(t, anywhere).match(&elsewhere); why == nil {
		t.Errorf("an account that is not listed is %q", got.Subject)
	}
	// The first rule that fits decides.
	c := awsConfig(noCalls{t}, nil)
	c.Rules = []AWSRule{{Principal: exampleRole, Subject: "first"}, {Principal: exampleRole, Subject: "second"}}
	if got, _ := newAWS(t, c).match(&role); got.Subject != "first" {
		t.Errorf("got %q", got.Subject)
	}
}

func TestNewAWSRefuses(t *testing.T) {
	for name, change := range map[string]func(*AWSConfig){
		"no gateway":                 func(c *AWSConfig) { c.Gateway = "" },
		"a gateway with a line end":  func(c *AWSConfig) { c.Gateway = "a\r\nb" },
		"no accounts":                func(c *AWSConfig) { c.Accounts = nil },
		"a short account":            func(c *AWSConfig) { c.Accounts = []string{"123"} },
		"every account":              func(c *AWSConfig) { c.Accounts = []string{"*"} },
		"a Region that is none":      func(c *AWSConfig) { c.Regions = []string{"evil.example"} },
		"no rules":                   func(c *AWSConfig) { c.Rules = nil },
		"a rule for everybody":       func(c *AWSConfig) { c.Rules[0].Principal = "*" },
		"the ARN of a session":       func(c *AWSConfig) { c.Rules[0].Principal = "arn:aws:sts::111122223333:assumed-role/a/b" },
		"a session without trust":    func(c *AWSConfig) { c.Rules[0].Subject = "{session}" },
		"a place that is none":       func(c *AWSConfig) { c.Rules[0].Subject = "{user}" },
		"a principal with no prefix": func(c *AWSConfig) { c.Rules[0].Principal = "role/ci" },
	} {
		c := awsConfig(noCalls{t}, nil)
		c.Rules = slices.Clone(c.Rules)
		change(&c)
		if _, err := NewAWS(c); waybill.KindOf(err) != waybill.Misused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Many requests with one proof at once ask STS once; one that leaves takes nobody along.
func TestAWSIdentityAtOnce(t *testing.T) {
	a := &answers{status: 200, body: identityAnswer("arn:aws:sts::111122223333:assumed-role/ci-runner/s-1", "AROAEXAMPLEID12345:s-1", "111122223333"), began: make(chan struct{}), wait: make(chan struct{})}
	p := newAWS(t, awsConfig(a, func() time.Time { return signedAt }))
	token := proofText("https://sts.us-east-1.amazonaws.com/?" + encode(parameters()))
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := p.Authenticate(bearerRequest(token).WithContext(ctx))
		left <- err
	}()
	<-a.began
	leave()
	if err := <-left; waybill.KindOf(err) != waybill.Unavailable {
		t.Errorf("the one that left: %v", err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := p.Authenticate(bearerRequest(token)); err != nil {
				t.Error(err)
			}
		})
	}
	close(a.wait)
	wg.Wait()
	if n := a.calls.Load(); n != 1 {
		t.Errorf("STS was asked %d times", n)
	}
}

// Strangers cannot make the gateway ask STS without end, nor crowd out those it knows.
func TestAWSIdentityLimits(t *testing.T) {
	now := signedAt
	clock := func() time.Time { return now }
	_, f := fakeSTS(t, clock)
	c := awsConfig(f, clock)
	c.PerSecond, c.PerSource, c.Kept = 30, 1, 100
	p := newAWS(t, c)
	if _, err := p.Authenticate(bearerRequest(presign(t, userCredentials(), "wb.example", time.Minute, now))); err != nil {
		t.Fatal(err)
	}
	before := f.calls.Load()
	keyID := "AKIDSTRANGERXXXX"
	from := func(source string, i int) error {
		values := parameters()
		values["X-Amz-Credential"] = strings.Replace(values["X-Amz-Credential"], "AKIDEXAMPLEEXAMPLE", keyID, 1)
		values["X-Amz-Signature"] = fmt.Sprintf("%064x", i)
		r := bearerRequest(proofText("https://sts.us-east-1.amazonaws.com/?" + encode(values)))
		r.RemoteAddr = source + ":1234"
		_, err := p.Authenticate(r)
		return err
	}
	n := 0
	for i := range 100 {
		if err := from("192.0.2.1", i); waybill.KindOf(err) == waybill.Unavailable {
			n++
		}
	}
	if asked := f.calls.Load() - before; asked != 10 || n != 90 {
		t.Errorf("one source made STS be asked %d times, %d were put off", asked, n)
	}
	for i := range 1000 {
		from(fmt.Sprintf("192.0.%d.%d", 3+i/250, i%250), 1000+i)
	}
	if asked := f.calls.Load() - before; asked > 60 {
		t.Errorf("many sources made STS be asked %d times", asked)
	}
	for name, size := range map[string]int{"good": p.good.Len(), "bad": p.bad.Len(), "sources": p.sources.Len(), "known": p.known.Len()} {
		if size > 100 {
			t.Errorf("%d %s are kept", size, name)
		}
	}
	// Now nobody new is asked about, but a key that is known with a new proof is.
	if err := from("198.51.100.7", 5000); waybill.KindOf(err) != waybill.Unavailable {
		t.Errorf("a newcomer: %v", err)
	}
	if _, err := p.Authenticate(bearerRequest(presign(t, userCredentials(), "wb.example", 2*time.Minute, now))); err != nil {
		t.Errorf("a known key: %v", err)
	}
	// Who abuses the id of a known key gets no further than its own share.
	before, keyID = f.calls.Load(), "AKIDEXAMPLEEXAMPLE"
	for i := range 100 {
		from(fmt.Sprintf("203.0.113.%d", i), 6000+i)
	}
	if asked := f.calls.Load() - before; asked > 10 {
		t.Errorf("one known key made STS be asked %d times", asked)
	}
	now, keyID = now.Add(time.Second), "AKIDSTRANGERXXXX"
	if err := from("198.51.100.7", 5001); reasonOf(err) != ReasonSignature {
		t.Errorf("a second later: %v", err)
	}
}

func TestConnectionSource(t *testing.T) {
	for addr, want := range map[string]string{"192.0.2.1:1": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64", "[::ffff:192.0.2.1]:1": "::ffff:192.0.2.1", "[fe80::1%eth0]:1": "fe80::/64", "pipe": "pipe"} {
		if got := connectionSource(&http.Request{RemoteAddr: addr}); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

// Whatever a proof says, what is called is STS, with the nine parameters.
func FuzzReadProof(f *testing.F) {
	const sts = "https://sts.us-east-1.amazonaws.com/?"
	f.Add(sts + encode(parameters()))
	f.Add("https://sts.cn-north-1.amazonaws.com.cn?" + encode(parameters()))
	f.Add("https://sts.amazonaws.com@evil.example/?" + encode(parameters()))
	p := newAWS(f, awsConfig(noCalls{f}, nil))
	f.Fuzz(func(t *testing.T, text string) {
		proof, why := p.read(proofText(text), signedAt)
		if why != "" {
			return
		}
		u, err := url.Parse(proof.url)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := stsHost(u.Host); !ok || u.Scheme != "https" || u.Path != "/" || u.User != nil || u.Fragment != "" || u.Hostname() != u.Host {
			t.Fatalf("%q makes %q", text, proof.url)
		}
		query, err := url.ParseQuery(u.RawQuery)
		if err != nil || query.Get("Action") != "GetCallerIdentity" || len(query) < 8 || len(query) > 9 {
			t.Fatalf("%q makes %q", text, proof.url)
		}
		for name := range maps.Keys(query) {
			if len(query[name]) != 1 {
				t.Fatalf("%q makes %q", text, proof.url)
			}
		}
	})
}

// An answer that is read is of one principal in one account.
func FuzzParseIdentity(f *testing.F) {
	f.Add(identityAnswer("arn:aws:sts::111122223333:assumed-role/ci-runner/s-1", "AROAEXAMPLEID12345:s-1", "111122223333"))
	f.Add(identityAnswer(exampleUser, "AIDAEXAMPLEID12345", "111122223333"))
	f.Add(identityAnswer("arn:aws:iam::111122223333:root", "111122223333", "111122223333"))
	f.Add(identityAnswer("arn:aws:sts::111122223333:federated-user/user-17", "111122223333:user-17", "111122223333"))
	f.Fuzz(func(t *testing.T, text string) {
		who, err := parseIdentity([]byte(text))
		if err != nil {
			return
		}
		if !accountID.MatchString(who.account) || !strings.Contains(who.principal, "::"+who.account+":") || who.name == "" || strings.Contains(who.uniqueID, ":") {
			t.Fatalf("%q is read as %+v", text, who)
		}
	})
}

// A proof that was checked before, with a session token of a real size.
func BenchmarkAWSKept(b *testing.B) {
	values := parameters()
	values["X-Amz-Security-Token"] = strings.Repeat("FwoG/+=", 150)
	a := &answers{status: 200, body: identityAnswer("arn:aws:sts::111122223333:assumed-role/ci-runner/s-1", "AROAEXAMPLEID12345:s-1", "111122223333")}
	p := newAWS(b, awsConfig(a, func() time.Time { return signedAt }))
	r := bearerRequest(proofText("https://sts.us-east-1.amazonaws.com/?" + encode(values)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
	if n := a.calls.Load(); n != 1 {
		b.Fatalf("asked %d times", n)
	}
}
