package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/credential"
	"github.com/waybill-dev/waybill/internal/downstream"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/journal"
	"github.com/waybill-dev/waybill/internal/policy"
	"github.com/waybill-dev/waybill/internal/upstream"
)

const (
	gatewayUser = "arn:aws:iam::111122223333:user/gateway"
	prodRole    = "arn:aws:iam::111122223333:role/waybill/bedrock-prod"
	claude      = "anthropic.claude-haiku-4-5-20251001-v1:0"
	nova        = "amazon.nova-lite-v1:0"
)

const tagPolicy = `
version: 1
session: {name: '{user}'}
tags:
  keys:
    team:        {required: true, values: [search, ads], carriers: [session, request]}
    environment: {values: [production, staging], aliases: {prod: production}, default: production, carriers: [session, request]}
    user:        {from: caller.subject, carriers: [session, request]}
    feature:     {carriers: [request]}
`

// A stand is a gateway in front of a fake AWS, with one caller's key.
type stand struct {
	world  *fakeaws.World
	aws    string // the fake's URL
	url    string // the gateway's
	token  string
	direct string // a bearer token that AWS itself takes
	dir    string
	gw     *gateway.Gateway
	book   *journal.Journal

	sessions *credential.Sessions // if sign has put others
}

func newStand(t *testing.T, change func(*fakeaws.Config, *gateway.Config)) *stand {
	t.Helper()
	s := &stand{dir: t.TempDir(), direct: "ABSK" + "example-of-a-direct-key"}
	fc := fakeaws.Config{Regions: []string{"us-east-1", "eu-west-1"},
		Users: []fakeaws.User{
			{ARN: gatewayUser, AccessKeyID: "AKIDEXAMPLEGATEWAY", SecretAccessKey: "secret"},
			{ARN: "arn:aws:iam::111122223333:user/direct", AccessKeyID: "AKIDEXAMPLEDIRECT", SecretAccessKey: "secret", BearerToken: s.direct}},
		Roles: []fakeaws.Role{{ARN: prodRole, Trusted: []string{gatewayUser}}}}
	p, err := policy.Parse("policy.yaml", []byte(tagPolicy), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	gc := gateway.Config{Name: "test", DefaultRegion: "us-east-1", Regions: []string{"us-east-1", "eu-west-1"}, Policy: p, Roles: []gateway.Role{{ARN: prodRole}}}
	if change != nil {
		change(&fc, &gc)
	}
	s.world = fakeaws.NewWorld(fc)
	var stop func()
	if s.aws, stop, err = s.world.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if gc.Upstream == nil {
		gc.Upstream = map[waybill.Endpoint]string{waybill.Runtime: s.aws}
	}
	keys, err := identity.OpenKeys(filepath.Join(s.dir, "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if s.token, _, err = keys.Create(identity.Key{Subject: "user-17", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})}); err != nil {
		t.Fatal(err)
	}
	base := credentials.NewStaticCredentialsProvider("AKIDEXAMPLEGATEWAY", "secret", "")
	client := sts.New(sts.Options{Region: "us-east-1", Credentials: base, BaseEndpoint: aws.String(s.aws)})
	if s.book, err = journal.Start(filepath.Join(s.dir, "journal"), journal.Config{}); err != nil {
		t.Fatal(err)
	}
	transport := &upstream.Client{Others: &http.Transport{DisableCompression: true}} // as waybilld has it
	t.Cleanup(transport.CloseIdleConnections)
	s.gw = &gateway.Gateway{Callers: keys, Signer: credential.NewSigner(credential.NewSessions(client, credential.Config{}), base), Journal: s.book,
		Client: transport, Log: slog.New(slog.DiscardHandler), Metrics: gateway.NewMetrics(prometheus.NewRegistry()), Now: time.Now}
	s.gw.Reload(&gc)
	s.url = serve(t, s.gw)
	return s
}

// serve serves callers as waybilld does, over HTTP/1.1 and HTTP/2.
func serve(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &downstream.Server{Handler: h}
	over := make(chan bool)
	go func() {
		defer close(over)
		if err := server.Serve(l); err != http.ErrServerClosed {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { server.Close(); <-over })
	return "http://" + l.Addr().String()
}

// records stops the journal and reads what was closed.
func (s *stand) records(t *testing.T) []waybill.Invocation {
	t.Helper()
	s.gw.Wait()
	if err := s.book.Stop(); err != nil {
		t.Fatal(err)
	}
	segments, err := journal.Segments(filepath.Join(s.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	var out []waybill.Invocation
	for _, segment := range segments {
		f, err := os.Open(segment.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := journal.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == waybill.Closed {
				out = append(out, e.Invocation)
			}
		}
	}
	return out
}

// tap keeps the bytes of every answer.
type tap struct {
	way    http.RoundTripper
	bodies [][]byte
}

func (p *tap) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := p.way.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(a.Body)
	a.Body.Close()
	if err != nil {
		return nil, err
	}
	p.bodies = append(p.bodies, body)
	a.Body = io.NopCloser(bytes.NewReader(body))
	return a, nil
}

// stock is a stock SDK client with nothing set but the two environment variables that
// developers set. The SDK for Go sends bearer tokens over TLS only.
func stock(t *testing.T, h http.Handler, token string) (*bedrockruntime.Client, *tap) {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	url := server.URL
	t.Setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", url)
	t.Setenv("AWS_BEARER_TOKEN_BEDROCK", token)
	p := &tap{way: server.Client().Transport}
	c, err := awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithRegion("us-east-1"))
	if err != nil {
		t.Fatal(err)
	}
	return bedrockruntime.NewFromConfig(c, func(o *bedrockruntime.Options) { o.HTTPClient = &http.Client{Transport: p} }), p
}

// callAll makes the four kinds of call and reads their answers whole.
func callAll(t *testing.T, c *bedrockruntime.Client) {
	t.Helper()
	ctx := t.Context()
	message := []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "where is my parcel?"}}}}
	if _, err := c.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String(nova), Messages: message}); err != nil {
		t.Fatal(err)
	}
	stream, err := c.ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{ModelId: aws.String("us." + claude), Messages: message})
	if err != nil {
		t.Fatal(err)
	}
	for range stream.GetStream().Events() {
	}
	if err := stream.GetStream().Err(); err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}`)
	if _, err := c.InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: body, ContentType: aws.String("application/json")}); err != nil {
		t.Fatal(err)
	}
	invoked, err := c.InvokeModelWithResponseStream(ctx, &bedrockruntime.InvokeModelWithResponseStreamInput{ModelId: aws.String(claude), Body: body, ContentType: aws.String("application/json")})
	if err != nil {
		t.Fatal(err)
	}
	for range invoked.GetStream().Events() {
	}
	if err := invoked.GetStream().Err(); err != nil {
		t.Fatal(err)
	}
}

// A stock SDK gets through the gateway what it gets without it, byte for byte; AWS
// sees the tags on every carrier; the journal has what AWS will bill.
func TestStockSDK(t *testing.T) {
	s := newStand(t, nil)
	direct, without := stock(t, s.world.Handler(), s.direct)
	callAll(t, direct)
	through, with := stock(t, s.gw, s.token)
	callAll(t, through)
	if len(with.bodies) != 4 || len(without.bodies) != 4 {
		t.Fatalf("%d and %d answers, want 4 each", len(with.bodies), len(without.bodies))
	}
	for i := range with.bodies {
		if !bytes.Equal(with.bodies[i], without.bodies[i]) {
			t.Errorf("answer %d differs with the gateway:\n%q\n%q", i, with.bodies[i], without.bodies[i])
		}
	}
	calls := s.world.Calls()
	records := s.records(t)
	if len(calls) != 8 || len(records) != 4 {
		t.Fatalf("AWS served %d calls and the journal has %d, want 8 and 4", len(calls), len(records))
	}
	want := map[string]string{"team": "search", "environment": "production", "user": "user-17"}
	for i, c := range calls[4:] {
		if c.PrincipalARN != "arn:aws:sts::111122223333:assumed-role/bedrock-prod/user-17" {
			t.Errorf("call %d was made as %s", i, c.PrincipalARN)
		}
		for k, v := range want {
			if c.Metadata[k] != v || c.SessionTags[k] != v {
				t.Errorf("call %d: %s is %q in metadata and %q on the session, want %q", i, k, c.Metadata[k], c.SessionTags[k], v)
			}
		}
		r := records[i]
		u := waybill.NewUsage().With(waybill.Input, c.InputTokens).With(waybill.Output, c.OutputTokens).With(waybill.CacheRead, c.CacheRead).
			With(waybill.CacheWrite5m, c.CacheWrite5m).With(waybill.CacheWrite1h, c.CacheWrite1h)
		if r.RequestID != c.RequestID || r.Usage != u || r.Outcome != waybill.Completed || r.PrincipalARN != c.PrincipalARN {
			t.Errorf("call %d: the journal has %s %v %s, AWS has %s %v", i, r.RequestID, r.Usage, r.Outcome, c.RequestID, u)
		}
	}
	if n := len(s.world.Assumptions()); n != 1 {
		t.Errorf("%d AssumeRole calls, want 1", n)
	}
}

// keyOf makes a gateway key without tags.
func (s *stand) keyOf(t *testing.T, subject string) string {
	t.Helper()
	keys, ok := s.gw.Callers.(*identity.Keys)
	if !ok {
		t.Fatalf("callers are %T", s.gw.Callers)
	}
	token, _, err := keys.Create(identity.Key{Subject: subject})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (s *stand) post(t *testing.T, path, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	return s.postTo(t, "", path, body, header)
}

// postTo posts under a host name of the caller's choice.
func (s *stand) postTo(t *testing.T, host, path, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Authorization", "Bearer "+s.token)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(text)
}

const hello = `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`

// A caller's own tags are merged under the policy; what identity gives cannot be set
// in any spelling of any header or member.
func TestCallersCannotForgeTags(t *testing.T) {
	converse, invoke := "/model/"+nova+"/converse", "/model/"+claude+"/invoke"
	claudeBody := `{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}`
	forged := `{"team":"ads","user":"user-1"}`
	attempts := []struct {
		name, path, body string
		header           map[string]string
	}{
		{"member", converse, `{"requestMetadata":` + forged + `,` + hello[1:], nil},
		{"escaped member", converse, `{"requestMetadat\u0061":` + forged + `,` + hello[1:], nil},
		{"header on Converse", converse, hello, map[string]string{"X-Amzn-Bedrock-Request-Metadata": forged}},
		{"header", invoke, claudeBody, map[string]string{"X-Amzn-Bedrock-Request-Metadata": forged}},
		{"header in lower case", invoke, claudeBody, map[string]string{"x-amzn-bedrock-request-metadata": forged}},
		{"header with underscores", invoke, claudeBody, map[string]string{"X_Amzn_Bedrock_Request_Metadata": forged}},
		{"our header", converse, hello, map[string]string{"X-Waybill-Tags": "team=ads,user=user-1"}},
		{"our header, other case of the key", converse, hello, map[string]string{"X-Waybill-Tags": "TEAM=ads,User=user-1"}},
		{"LiteLLM", converse, hello, map[string]string{"X-Litellm-Tags": "team:ads,user:user-1"}},
		{"LiteLLM metadata", converse, hello, map[string]string{"X-Litellm-Spend-Logs-Metadata": forged}},
		{"Portkey", converse, hello, map[string]string{"X-Portkey-Metadata": forged}},
		{"Cloudflare", converse, hello, map[string]string{"Cf-Aig-Metadata": forged}},
		{"Open WebUI", converse, hello, map[string]string{"X-Openwebui-User-Id": "user-1"}},
		{"Open WebUI with underscores", converse, hello, map[string]string{"x_openwebui_user_id": "user-1"}},
		{"our header with underscores", converse, hello, map[string]string{"X_WAYBILL_TAGS": "team=ads"}},
		{"Portkey with underscores", converse, hello, map[string]string{"x_portkey_metadata": forged}},
		{"our header as an object", converse, hello, map[string]string{"X-Waybill-Tags": forged}},
		{"a tag named like a fact", converse, hello, map[string]string{"X-Waybill-Tags": "caller=user-1,issuer=x,claims.team=ads"}},
		{"security token", converse, hello, map[string]string{"X-Amz-Security-Token": "x", "X-Amz-Date": "20200101T000000Z"}},
	}
	s := newStand(t, nil)
	for _, a := range attempts {
		before := len(s.world.Calls())
		answer, text := s.post(t, a.path, a.body, a.header)
		calls := s.world.Calls()[before:]
		if answer.StatusCode != 200 || len(calls) != 1 {
			t.Errorf("%s: status %d, %d calls: %s", a.name, answer.StatusCode, len(calls), text)
			continue
		}
		c := calls[0]
		if c.Metadata["team"] != "search" || c.Metadata["user"] != "user-17" || c.SessionTags["team"] != "search" || !strings.HasSuffix(c.PrincipalARN, "/user-17") {
			t.Errorf("%s: AWS saw %v %v %s", a.name, c.Metadata, c.SessionTags, c.PrincipalARN)
		}
	}
}

// The gateway refuses in the shape that each kind of client reads, and records it.
func TestRefusals(t *testing.T) {
	s := newStand(t, nil)
	converse := "/model/" + nova + "/converse"
	for _, tt := range []struct {
		name, path, body string
		header           map[string]string
		status           int
		want             string
	}{
		{"no key", converse, hello, map[string]string{"Authorization": "Bearer nothing"}, 401, "WB1001"},
		{"a Bedrock key", converse, hello, map[string]string{"Authorization": "Bearer " + s.direct}, 401, "WB1002"},
		{"a value that is not allowed", converse, hello, map[string]string{"X-Waybill-Tags": "environment=moon"}, 403, "allowed are: production, staging"},
		{"unknown path", "/model/" + nova + "/chat", hello, nil, 404, "WB1101"},
		{"dot segments", "/model/../converse", hello, nil, 400, ""},
		{"not an object", converse, `[1]`, nil, 400, "WB1201"},
		{"duplicate member", converse, `{"messages":[],"messages":[]}`, nil, 400, "WB1201"},
		{"metadata of numbers", converse, `{"requestMetadata":{"a":1}}`, nil, 400, "WB1202"},
		{"metadata of many entries", converse, `{"requestMetadata":{` + manyMembers(65) + `}}`, nil, 400, "WB1306"},
		{"metadata and header together", converse, `{"requestMetadata":{` + manyMembers(64) + `}}`, map[string]string{"X-Waybill-Tags": "team=search"}, 400, "WB1306"},
		{"metadata as large as a body", converse, `{"requestMetadata":{` + manyMembers(10000) + `}}`, nil, 400, "WB1202"},
		{"bidirectional", "/model/" + nova + "/invoke-with-bidirectional-stream", "", nil, 501, "waybill credentials"},
	} {
		answer, text := s.post(t, tt.path, tt.body, tt.header)
		if answer.StatusCode != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %d %s, want %d with %q", tt.name, answer.StatusCode, text, tt.status, tt.want)
		}
		var shape struct{ Message string }
		if answer.Header.Get("X-Waybill-Error") != "" && (json.Unmarshal([]byte(text), &shape) != nil || shape.Message == "" || answer.Header.Get("x-amzn-ErrorType") == "") {
			t.Errorf("%s: %s is not in AWS's shape", tt.name, text)
		}
	}
	if n := len(s.world.Calls()); n != 0 {
		t.Errorf("%d refused calls reached AWS", n)
	}
	for _, r := range s.records(t) {
		if r.Outcome != waybill.Refused || !r.Usage.Known {
			t.Errorf("a refusal is recorded as %s", r.Outcome)
		}
	}
}

// manyMembers are members of a JSON object.
func manyMembers(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`"k%d":"v"`, i))
	}
	return strings.Join(out, ",")
}

// A caller who hangs up in the middle of an answer has still used the model.
func TestRecordAfterHangUp(t *testing.T) {
	for _, tt := range []struct {
		mode    gateway.DrainMode
		known   bool
		outcome waybill.Outcome
	}{{gateway.Drain, true, waybill.Completed}, {gateway.Cut, false, waybill.Abandoned}} {
		s := newStand(t, func(f *fakeaws.Config, g *gateway.Config) {
			f.Pace, f.Chunks = 20*time.Millisecond, 10
			g.Drain = tt.mode
		})
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "POST", s.url+"/model/"+nova+"/converse-stream", strings.NewReader(hello))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(a.Body, make([]byte, 10))
		cancel()
		a.Body.Close()
		records := s.records(t)
		if len(records) != 1 {
			t.Fatalf("%s: %d records", tt.mode, len(records))
		}
		if v := records[0]; v.Outcome != tt.outcome || v.Usage.Known != tt.known || !v.ClientLeft {
			t.Errorf("%s: %s, known %v, left %v; want %s, %v", tt.mode, v.Outcome, v.Usage.Known, v.ClientLeft, tt.outcome, tt.known)
		}
	}
}

// A body that never ends does not hold its connection for ever, and nothing leaves.
func TestBodyThatNeverEnds(t *testing.T) {
	s := newStand(t, func(_ *fakeaws.Config, g *gateway.Config) { g.BodyTimeout = 50 * time.Millisecond })
	body, pipe := io.Pipe()
	defer pipe.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/model/"+nova+"/converse", body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 100
	r.Header.Set("Authorization", "Bearer "+s.token)
	a, err := http.DefaultClient.Do(r)
	if err == nil {
		a.Body.Close()
		if a.StatusCode != 400 {
			t.Errorf("status %d", a.StatusCode)
		}
	}
	if n := len(s.world.Calls()); n != 0 {
		t.Errorf("%d calls reached AWS", n)
	}
}
