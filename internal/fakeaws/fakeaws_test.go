package fakeaws

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"github.com/parquet-go/parquet-go"

	"errors"
)

const vectorSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

// The verifier accepts signatures that an independent implementation has computed, and
// none with a byte changed.
func TestSignatureVectors(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	w := NewWorld(Config{Regions: []string{"us-east-1"}, RealNow: func() time.Time { return now }})
	w.byID["AKIDEXAMPLE"] = &credential{id: "AKIDEXAMPLE", secret: vectorSecret, token: "fixture-session-token", account: "111122223333", arn: "arn"}
	const body = `{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`
	for path, signature := range map[string]string{
		"/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke":                                                      "f32008b247a8cfc25a400c40e693202f9990ca1f7504923249880b4cd09c4ba7",
		"/model/anthropic.claude-3-haiku-20240307-v1:0/invoke":                                                        "0fa9512bfd8277a39d17abe05ea8b231b8a5cda8e2b21553c552314fb1810e9c",
		"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fabc123def456/invoke": "73f0a9d32760ba344786ca68f0f205ecdce8d8295281c59fb895740a134c9521",
	} {
		make := func() *http.Request {
			r := httptest.NewRequest("POST", path, strings.NewReader(body))
			r.Host = "bedrock-runtime.us-east-1.amazonaws.com"
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Amz-Date", "20250102T030405Z")
			r.Header.Set("X-Amz-Security-Token", "fixture-session-token")
			r.Header.Set("X-Amzn-Bedrock-Request-Metadata", `{"team":"search","user":"alice"}`)
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20250102/us-east-1/bedrock/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-request-metadata, Signature="+signature)
			return r
		}
		if _, _, no := w.verify(make(), []byte(body), "bedrock"); no != nil {
			t.Errorf("%s: %v", path, no)
		}
		for name, change := range map[string]func(*http.Request){
			"metadata": func(r *http.Request) {
				r.Header.Set("X-Amzn-Bedrock-Request-Metadata", `{"team":"search","user":"alicf"}`)
			},
			"host":         func(r *http.Request) { r.Host = "bedrock-runtime.us-east-2.amazonaws.com" },
			"path":         func(r *http.Request) { r.RequestURI = strings.Replace(r.RequestURI, "invoke", "invokf", 1) },
			"unsigned":     func(r *http.Request) { r.Header.Set("X-Amzn-Bedrock-Trace", "ENABLED") },
			"date":         func(r *http.Request) { r.Header.Set("X-Amz-Date", "20250102T030406Z") },
			"no signature": func(r *http.Request) { r.Header.Del("Authorization") },
		} {
			r := make()
			change(r)
			if _, _, no := w.verify(r, []byte(body), "bedrock"); no == nil {
				t.Errorf("%s: a changed %s was accepted", path, name)
			}
		}
		if _, _, no := w.verify(make(), []byte(body+" "), "bedrock"); no == nil {
			t.Errorf("%s: a changed body was accepted", path)
		}
		now = now.Add(6 * time.Minute)
		if _, _, no := w.verify(make(), []byte(body), "bedrock"); no == nil || no.kind != "InvalidSignatureException" {
			t.Errorf("%s: six minutes later: %v", path, no)
		}
		now = now.Add(-6 * time.Minute)
	}
}

// A presigned GetCallerIdentity that an independent implementation has signed says who
// signed it, until its time is over, and only as it is.
func TestPresignedIdentity(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	w := NewWorld(Config{Regions: []string{"us-east-1"}, RealNow: func() time.Time { return now }})
	w.byID["AKIDEXAMPLE"] = &credential{id: "AKIDEXAMPLE", secret: vectorSecret, token: "fixture-session-token", account: "111122223333",
		arn: "arn:aws:sts::111122223333:assumed-role/bedrock/session", isRole: true}
	const query = "/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20250102%2Fus-east-1%2Fsts%2Faws4_request" +
		"&X-Amz-Date=20250102T030405Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-waybill-gateway&X-Amz-Security-Token=fixture-session-token" +
		"&X-Amz-Signature=b6ac660713dec7fd109b6fc67cda2b562b8def3865b6387d032d22c1d24f5733"
	ask := func(target string, change func(*http.Request)) (int, string) {
		r := httptest.NewRequest("GET", target, nil)
		r.Host = "sts.us-east-1.amazonaws.com"
		r.Header.Set("X-Waybill-Gateway", "wb.example")
		if change != nil {
			change(r)
		}
		rw := httptest.NewRecorder()
		w.Handler().ServeHTTP(rw, r)
		return rw.Code, rw.Body.String()
	}
	status, body := ask(query, nil)
	if status != 200 || !strings.Contains(body, "<Arn>arn:aws:sts::111122223333:assumed-role/bedrock/session</Arn>") || !strings.Contains(body, ":session</UserId>") || !strings.Contains(body, "<UserId>AROA") {
		t.Errorf("%d %s", status, body)
	}
	for name, tt := range map[string]struct {
		old, young string
		change     func(*http.Request)
		want       string
	}{
		"another gateway":     {change: func(r *http.Request) { r.Header.Set("X-Waybill-Gateway", "other.example") }, want: "SignatureDoesNotMatch"},
		"no gateway":          {change: func(r *http.Request) { r.Header.Del("X-Waybill-Gateway") }, want: "SignatureDoesNotMatch"},
		"another host":        {change: func(r *http.Request) { r.Host = "sts.us-west-2.amazonaws.com" }, want: "SignatureDoesNotMatch"},
		"an unsigned header":  {change: func(r *http.Request) { r.Header.Set("X-Amz-Note", "x") }, want: "SignatureDoesNotMatch"},
		"another life":        {old: "Expires=60", young: "Expires=61", want: "SignatureDoesNotMatch"},
		"another action":      {old: "GetCallerIdentity", young: "GetSessionToken", want: "SignatureDoesNotMatch"},
		"another token":       {old: "fixture-session", young: "fixture-sessiom", want: "InvalidClientTokenId"},
		"another key":         {old: "AKIDEXAMPLE", young: "AKIDEXAMPLF", want: "InvalidClientTokenId"},
		"another signature":   {old: "=b6ac", young: "=b6ad", want: "SignatureDoesNotMatch"},
		"a parameter twice":   {old: "Version=", young: "Version=2011-06-15&Version=", want: "IncompleteSignature"},
		"without a signature": {old: "X-Amz-Signature", young: "X-Amz-Signatura", want: "MissingAuthenticationToken"},
	} {
		target := query
		if tt.old != "" {
			target = strings.Replace(query, tt.old, tt.young, 1)
		}
		if status, body := ask(target, tt.change); status == 200 || !strings.Contains(body, "<Code>"+tt.want+"</Code>") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	now = now.Add(61 * time.Second)
	if status, body := ask(query, nil); status != 403 || !strings.Contains(body, "Signature expired") {
		t.Errorf("after its time: %d %s", status, body)
	}
}

func TestFrameVectors(t *testing.T) {
	want := "0000008300000061a9d144e50f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e7b226d657373616765223a22736c6f77227d9350311c"
	if got := hex.EncodeToString(Frame("exception", "throttlingException", []byte(`{"message":"slow"}`))); got != want {
		t.Errorf("frame is %s", got)
	}
}

const user, role = "arn:aws:iam::111122223333:user/gateway", "arn:aws:iam::111122223333:role/app/bedrock"

func world(t *testing.T, change func(*Config)) (*World, string) {
	t.Helper()
	c := Config{Regions: []string{"us-east-1"}, Users: []User{{ARN: user, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: vectorSecret}}, Roles: []Role{{ARN: role, Trusted: []string{user}, Tags: map[string]string{"Environment": "staging", "kept": "yes"}}}}
	if change != nil {
		change(&c)
	}
	w := NewWorld(c)
	url, stop, err := w.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return w, url
}

func stsClient(url string, c aws.CredentialsProvider) *sts.Client {
	return sts.New(sts.Options{Region: "us-east-1", Credentials: c, BaseEndpoint: &url, Retryer: aws.NopRetryer{}})
}

func codeOf(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

// STS refuses what AWS's refuses, in its codes.
func TestAssumeRole(t *testing.T) {
	static := credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", vectorSecret, "")
	tag := func(kv ...string) (out []ststypes.Tag) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, ststypes.Tag{Key: &kv[i], Value: &kv[i+1]})
		}
		return out
	}
	w, url := world(t, nil)
	good := sts.AssumeRoleInput{RoleArn: aws.String(role), RoleSessionName: aws.String("user-17"), Tags: tag("team", "search", "environment", "production"), TransitiveTagKeys: []string{"team"}}
	out, err := stsClient(url, static).AssumeRole(t.Context(), &good)
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(out.AssumedRoleUser.Arn) != "arn:aws:sts::111122223333:assumed-role/bedrock/user-17" {
		t.Errorf("the session is %s: its role's path must be gone", aws.ToString(out.AssumedRoleUser.Arn))
	}
	c := w.byID[aws.ToString(out.Credentials.AccessKeyId)]
	if c.tags["environment"] != "production" || c.tags["Environment"] != "" || c.tags["kept"] != "yes" {
		t.Errorf("tags are %v: a session tag shadows a role's in any case", c.tags)
	}
	many := make([]string, 0, 102)
	for i := range 51 {
		many = append(many, "key"+string(rune('A'+i%26))+string(rune('a'+i/26)), "v")
	}
	for _, tt := range []struct {
		name   string
		change func(*sts.AssumeRoleInput)
		world  func(*Config)
		code   string
	}{
		{"short name", func(in *sts.AssumeRoleInput) { in.RoleSessionName = aws.String("x") }, nil, "ValidationError"},
		{"bad name", func(in *sts.AssumeRoleInput) { in.RoleSessionName = aws.String("a b") }, nil, "ValidationError"},
		{"too long", func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(7200) }, nil, "ValidationError"},
		{"too many tags", func(in *sts.AssumeRoleInput) { in.Tags, in.TransitiveTagKeys = tag(many...), nil }, nil, "ValidationError"},
		{"bad value", func(in *sts.AssumeRoleInput) { in.Tags = tag("team", "a,b") }, nil, "ValidationError"},
		{"reserved", func(in *sts.AssumeRoleInput) { in.Tags = tag("aws:team", "a") }, nil, "ValidationError"},
		{"keys that differ in case", func(in *sts.AssumeRoleInput) { in.Tags = tag("team", "a", "Team", "b") }, nil, "InvalidParameterValue"},
		{"too large", func(in *sts.AssumeRoleInput) {
			in.Tags = tag("a", strings.Repeat("x", 256), "b", strings.Repeat("x", 256), "c", strings.Repeat("x", 256), "d", strings.Repeat("x", 256), "e", strings.Repeat("x", 256))
			in.TransitiveTagKeys = nil
		}, nil, "PackedPolicyTooLarge"},
		{"no such role", func(in *sts.AssumeRoleInput) { in.RoleArn = aws.String(role + "x") }, nil, "AccessDenied"},
		{"no tagging", nil, func(c *Config) { c.Roles[0].NoTagging = true }, "AccessDenied"},
		{"no trust", nil, func(c *Config) { c.Roles[0].Trusted = nil }, "AccessDenied"},
		{"external id", nil, func(c *Config) { c.Roles[0].ExternalID = "x" }, "AccessDenied"},
		{"throttled", nil, func(c *Config) { c.STSPerSecond = -1 }, "Throttling"},
	} {
		in := good
		if tt.change != nil {
			tt.change(&in)
		}
		_, url := world(t, tt.world)
		if _, err := stsClient(url, static).AssumeRole(t.Context(), &in); codeOf(err) != tt.code {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.code)
		}
	}
	session := credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	w.config.Roles[0].Trusted = append(w.config.Roles[0].Trusted, role)
	chained := good
	if _, err := stsClient(url, session).AssumeRole(t.Context(), &chained); codeOf(err) != "InvalidParameterValue" {
		t.Errorf("a transitive tag was overridden: %v", err)
	}
	if _, err := stsClient(url, credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "wrong", "")).AssumeRole(t.Context(), &good); codeOf(err) != "SignatureDoesNotMatch" {
		t.Errorf("a wrong secret: %v", err)
	}
}

// bedrock-runtime refuses what AWS's refuses.
func TestRuntimeRefusals(t *testing.T) {
	w, url := world(t, func(c *Config) { c.Users[0].BearerToken = "direct" })
	const nova, claude = "/model/amazon.nova-lite-v1:0/", "/model/anthropic.claude-sonnet-4-6/"
	const hello = `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`
	for _, tt := range []struct{ name, path, body, metadata, want string }{
		{"good", nova + "converse", hello, "", ""},
		{"empty metadata", nova + "converse", `{"requestMetadata":{},` + hello[1:], "", "ValidationException"},
		{"a character that metadata does not take", nova + "converse", `{"requestMetadata":{"a":"b%"},` + hello[1:], "", "ValidationException"},
		{"unknown member", nova + "converse", `{"tags":{},` + hello[1:], "", "ValidationException"},
		{"duplicate member", nova + "converse", `{"messages":[],` + hello[1:], "", "ValidationException"},
		{"metadata in a Claude body", claude + "invoke", `{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[],"requestMetadata":{"a":"b"}}`, "", "ValidationException"},
		{"header that is not an object", claude + "invoke", `{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[]}`, "team=search", "ValidationException"},
		{"unknown model", "/model/nobody.knows/converse", hello, "", "ValidationException"},
		{"Converse of an embedding model", "/model/amazon.titan-embed-text-v2:0/converse", hello, "", "ValidationException"},
		{"unknown profile", "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fabc/converse", hello, "", "ResourceNotFoundException"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", url+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer direct")
		if tt.metadata != "" {
			r.Header.Set("X-Amzn-Bedrock-Request-Metadata", tt.metadata)
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(a.Header.Get("x-amzn-ErrorType"), ":")
		if kind != tt.want {
			t.Errorf("%s: %d %s, want %q", tt.name, a.StatusCode, kind, tt.want)
		}
		a.Body.Close()
	}
	r, _ := http.NewRequestWithContext(t.Context(), "POST", url+"/nonsense/path", nil)
	r.Header.Set("Authorization", "Bearer direct")
	before := len(w.Calls())
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(a.Body)
	a.Body.Close()
	if a.StatusCode != 200 || !strings.Contains(string(text), "UnknownOperationException") || len(w.Calls()) != before {
		t.Errorf("an unknown path: %d %s", a.StatusCode, text)
	}
	_ = bedrockruntime.ServiceID
}

func someCalls() []Call {
	at := time.Date(2026, 10, 5, 10, 30, 0, 0, time.UTC)
	base := Call{Account: "111122223333", Region: "us-east-1", Operation: "ConverseStream", ModelID: "us.anthropic.claude-sonnet-4-6", BaseModel: "anthropic.claude-sonnet-4-6", Scope: "geo",
		PrincipalARN: "arn:aws:sts::111122223333:assumed-role/bedrock/user-17", SessionTags: map[string]string{"team": "search", "secret": "x"}, Metadata: map[string]string{"team": "search"},
		InputTokens: 1234, OutputTokens: 567, CacheRead: 89, CacheWrite1h: 10, Tier: "default", Streamed: true, Status: 200, At: at}
	var out []Call
	for i := range 20 {
		c := base
		c.RequestID = newID()
		c.At = at.Add(time.Duration(i) * time.Minute)
		out = append(out, c)
	}
	failed := base
	failed.RequestID, failed.Status, failed.ErrorCode, failed.InputTokens = newID(), 429, "ThrottlingException", 0
	return append(out, failed)
}

// What the log and the bill say are the calls: every token, and every dollar of it.
func TestRecords(t *testing.T) {
	calls := someCalls()
	files := make(map[string][]byte)
	put := func(key string, body []byte) error { files[key] = bytes.Clone(body); return nil }
	if err := WriteLogs(put, calls, LogOptions{}); err != nil {
		t.Fatal(err)
	}
	largest := make(map[string]int64)
	records := 0
	for key, body := range files {
		if !strings.HasSuffix(key, ".json.gz") {
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(z)
		for d.More() {
			var r struct {
				RequestID string `json:"requestId"`
				Input     struct{ InputTokenCount int64 }
				Secret    any
			}
			if err := d.Decode(&r); err != nil {
				t.Fatal(err)
			}
			records++
			largest[r.RequestID] = max(largest[r.RequestID], r.Input.InputTokenCount)
		}
	}
	if len(largest) != 21 || records < 21 {
		t.Errorf("%d records of %d calls, want 21 calls and some twins", records, len(largest))
	}
	for _, c := range calls {
		if largest[c.RequestID] != c.InputTokens {
			t.Errorf("the log has %d tokens of a call with %d", largest[c.RequestID], c.InputTokens)
		}
	}
	files = make(map[string][]byte)
	s, err := WriteExport(put, calls[0].At, calls, ExportOptions{Name: "e", Bucket: "b", Payer: "111122223333", Activated: map[string]bool{"team": true}, RowsPerFile: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := new(big.Rat)
	for kind, n := range map[string]int64{"3.30": 1234, "16.50": 567, "0.33": 89, "6.60": 10} {
		want.Add(want, new(big.Rat).Mul(rat(kind), big.NewRat(20*n, 1_000_000)))
	}
	if d := new(big.Rat).Sub(rat(s.Total), want); d.Abs(d).Cmp(big.NewRat(int64(s.Rows), 10_000_000_000)) > 0 {
		t.Errorf("the bill is %s, the calls cost %s", s.Total, want.FloatString(12))
	}
	var rows []billRow
	for key, body := range files {
		if !strings.HasSuffix(key, ".parquet") {
			continue
		}
		some, err := parquet.Read[billRow](bytes.NewReader(body), int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, some...)
	}
	if len(rows) != s.Rows || len(rows) != 4 {
		t.Errorf("%d rows in the files, %d told, want 4", len(rows), s.Rows)
	}
	for _, r := range rows {
		if r.Tags["iamPrincipal/team"] != "search" || r.Tags["iamPrincipal/secret"] != "" || !strings.HasPrefix(r.UsageType, "USE1-MP:USE1_") || r.Product["model"] != "Claude Sonnet 4.6" {
			t.Errorf("row %+v", r)
		}
	}
}
