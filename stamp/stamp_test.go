package stamp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/document"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/stamp"
)

const (
	account    = "111122223333"
	processARN = "arn:aws:iam::" + account + ":user/checkout"
	prodRole   = "arn:aws:iam::" + account + ":role/waybill/bedrock-prod"
	claude     = "anthropic.claude-haiku-4-5-20251001-v1:0"
	nova       = "amazon.nova-lite-v1:0"
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
    costCenter:  {pattern: 'CC-\d{4}', carriers: [request]}
`

var searchTeam = waybill.Tag{Key: "team", Value: "search"}

// compliant is of a process that complies.
func compliant() stamp.Config {
	return stamp.Config{Policy: []byte(tagPolicy), Caller: waybill.Principal{Subject: "user-17"}, Tags: waybill.NewTags(searchTeam)}
}

func newStamper(t testing.TB, c stamp.Config) *stamp.Stamper {
	t.Helper()
	s, err := stamp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A sent request is one that left the process.
type sent struct {
	path   string
	header http.Header
	body   []byte
}

// A stand is a fake AWS, and the wire to it.
type stand struct {
	world *fakeaws.World
	url   string

	mu   sync.Mutex // guards sent
	sent []sent
}

func newStand(t testing.TB, change func(*fakeaws.Config)) *stand {
	t.Helper()
	c := fakeaws.Config{Regions: []string{"us-east-1"},
		Users:      []fakeaws.User{{ARN: processARN, AccessKeyID: "AKIDEXAMPLECHECKOUT", SecretAccessKey: "secret"}},
		Roles:      []fakeaws.Role{{ARN: prodRole, Trusted: []string{processARN}}},
		Guardrails: []fakeaws.Guardrail{{Account: account, Region: "us-east-1", ID: "abc", Versions: []string{"1"}}}}
	if change != nil {
		change(&c)
	}
	s := &stand{world: fakeaws.NewWorld(c)}
	url, stop, err := s.world.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	s.url = url
	return s
}

func (s *stand) Do(r *http.Request) (*http.Response, error) {
	left := sent{path: r.URL.EscapedPath(), header: r.Header.Clone()}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		left.body, r.Body = body, io.NopCloser(bytes.NewReader(body))
	}
	s.mu.Lock()
	s.sent = append(s.sent, left)
	s.mu.Unlock()
	return http.DefaultClient.Do(r)
}

func (s *stand) left() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

// client is a stock client.
func (s *stand) client(optFns ...func(*bedrockruntime.Options)) *bedrockruntime.Client {
	return bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", BaseEndpoint: aws.String(s.url), HTTPClient: s,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLECHECKOUT", "secret", ""),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})}, optFns...)
}

func message(text string) []types.Message {
	return []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: text}}}}
}

func claudeBody(text string) []byte {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string: it does not fail
	}
	return []byte(`{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":` + string(b) + `}]}`)
}

// A way is one operation, as a program calls it, with metadata of its own.
type way struct {
	operation string
	call      func(ctx context.Context, c *bedrockruntime.Client, own map[string]string, optFns ...func(*bedrockruntime.Options)) error
}

func text(m map[string]string) *string {
	if m == nil {
		return nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return aws.String(string(b))
}

// drain reads a stream to its end.
func drain[E any](s interface {
	Events() <-chan E
	Err() error
	Close() error
}) error {
	defer s.Close()
	n := 0
	for range s.Events() {
		n++
	}
	if err := s.Err(); err != nil {
		return err
	}
	if n < 2 {
		return fmt.Errorf("the stream had %d events", n)
	}
	return nil
}

// spending are the operations that use a model and whose answers fakeaws has.
var spending = []way{
	{"Converse", func(ctx context.Context, c *bedrockruntime.Client, own map[string]string, optFns ...func(*bedrockruntime.Options)) error {
		_, err := c.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String(nova), Messages: message("hi"), RequestMetadata: own}, optFns...)
		return err
	}},
	{"ConverseStream", func(ctx context.Context, c *bedrockruntime.Client, own map[string]string, optFns ...func(*bedrockruntime.Options)) error {
		out, err := c.ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{ModelId: aws.String("us." + claude), Messages: message("hi"), RequestMetadata: own}, optFns...)
		if err != nil {
			return err
		}
		return drain(out.GetStream())
	}},
	{"InvokeModel", func(ctx context.Context, c *bedrockruntime.Client, own map[string]string, optFns ...func(*bedrockruntime.Options)) error {
		_, err := c.InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: claudeBody("hi"), RequestMetadata: text(own)}, optFns...)
		return err
	}},
	{"InvokeModelWithResponseStream", func(ctx context.Context, c *bedrockruntime.Client, own map[string]string, optFns ...func(*bedrockruntime.Options)) error {
		out, err := c.InvokeModelWithResponseStream(ctx, &bedrockruntime.InvokeModelWithResponseStreamInput{ModelId: aws.String(claude), Body: claudeBody("hi"), RequestMetadata: text(own)}, optFns...)
		if err != nil {
			return err
		}
		return drain(out.GetStream())
	}},
}

func startAsync(ctx context.Context, c *bedrockruntime.Client, tags ...types.Tag) error {
	_, err := c.StartAsyncInvoke(ctx, &bedrockruntime.StartAsyncInvokeInput{ModelId: aws.String("amazon.nova-reel-v1:0"), ClientRequestToken: aws.String("token-1"),
		ModelInput: document.NewLazyDocument(map[string]any{"taskType": "TEXT_VIDEO"}), Tags: tags,
		OutputDataConfig: &types.AsyncInvokeOutputDataConfigMemberS3OutputDataConfig{Value: types.AsyncInvokeS3OutputDataConfig{S3Uri: aws.String("s3://example-bucket/out")}}})
	return err
}

// Every call that uses a model has the policy's tags, whatever carries them; AWS took
// each for what it is.
func TestEveryCallCarriesTheTags(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, compliant()).Options)
	for _, w := range spending {
		if err := w.call(t.Context(), client, nil); err != nil {
			t.Errorf("%s: %v", w.operation, err)
		}
	}
	calls := s.world.Calls()
	if len(calls) != len(spending) {
		t.Fatalf("AWS served %d calls, want %d", len(calls), len(spending))
	}
	want := map[string]string{"team": "search", "environment": "production", "user": "user-17"}
	for i, c := range calls {
		if c.Operation != spending[i].operation || c.Status != 200 {
			t.Errorf("call %d is %s with status %d, want %s", i, c.Operation, c.Status, spending[i].operation)
		}
		if diff := cmp.Diff(want, c.Metadata); diff != "" {
			t.Errorf("%s: metadata (-want +got):\n%s", c.Operation, diff)
		}
	}
}

// Asynchronous calls have no request metadata: their own tags are the carrier.
func TestAsyncInvokeIsTagged(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, compliant()).Options)
	if err := startAsync(t.Context(), client, types.Tag{Key: aws.String("feature"), Value: aws.String("trailer")}, types.Tag{Key: aws.String("user"), Value: aws.String("user-1")}); err != nil {
		t.Fatal(err)
	}
	var body struct{ Tags []waybill.Tag }
	if err := json.Unmarshal(s.left()[0].body, &body); err != nil {
		t.Fatal(err)
	}
	want := []waybill.Tag{{Key: "environment", Value: "production"}, {Key: "feature", Value: "trailer"}, searchTeam, {Key: "user", Value: "user-17"}}
	if diff := cmp.Diff(want, body.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

// What uses no model needs no owner: it passes a policy that refuses everything, and
// carries no metadata.
func TestFreeOperationsPassUntagged(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, stamp.Config{Policy: []byte(tagPolicy)}).Options, bedrockruntime.WithAPIOptions(buildHook("X-Amzn-Bedrock-Request-Metadata", `{"team":"ads"}`)))
	ctx := t.Context()
	_, err1 := client.CountTokens(ctx, &bedrockruntime.CountTokensInput{ModelId: aws.String(claude), Input: &types.CountTokensInputMemberConverse{Value: types.ConverseTokensRequest{Messages: message("hi")}}})
	_, err2 := client.ApplyGuardrail(ctx, &bedrockruntime.ApplyGuardrailInput{GuardrailIdentifier: aws.String("abc"), GuardrailVersion: aws.String("1"), Source: types.GuardrailContentSourceInput,
		Content: []types.GuardrailContentBlock{&types.GuardrailContentBlockMemberText{Value: types.GuardrailTextBlock{Text: aws.String("hi")}}}})
	_, err3 := client.GetAsyncInvoke(ctx, &bedrockruntime.GetAsyncInvokeInput{InvocationArn: aws.String("arn:aws:bedrock:us-east-1:" + account + ":async-invoke/abcdefghijkl")})
	_, err4 := client.ListAsyncInvokes(ctx, &bedrockruntime.ListAsyncInvokesInput{})
	if _, ok := errors.AsType[*types.ValidationException](err3); !ok {
		t.Errorf("an invocation that nobody has started gave %v, want AWS's own answer", err3)
	}
	if err := errors.Join(err1, err2, err4); err != nil {
		t.Fatal(err)
	}
	left := s.left()
	if len(left) != 4 {
		t.Fatalf("%d requests left, want 4", len(left))
	}
	for _, r := range left {
		if spellings := metadataHeaders(r.header); len(spellings) > 0 || bytes.Contains(r.body, []byte("requestMetadata")) {
			t.Errorf("%s carries %v and body %s", r.path, spellings, r.body)
		}
	}
}

func metadataHeaders(h http.Header) []string {
	var out []string
	for name := range h {
		if strings.Contains(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "request-metadata") {
			out = append(out, name)
		}
	}
	return out
}

// A caller's own metadata is held to the policy and joined to its tags; what the caller
// handed over stays as it was.
func TestCallersOwnMetadata(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, compliant()).Options)
	own := map[string]string{"feature": "summary", "environment": "prod", "unheard-of": "x"}
	for _, w := range spending {
		if err := w.call(t.Context(), client, own); err != nil {
			t.Errorf("%s: %v", w.operation, err)
		}
	}
	want := map[string]string{"team": "search", "environment": "production", "user": "user-17", "feature": "summary"}
	for _, c := range s.world.Calls() {
		if diff := cmp.Diff(want, c.Metadata); diff != "" {
			t.Errorf("%s: metadata (-want +got):\n%s", c.Operation, diff)
		}
	}
	if diff := cmp.Diff(map[string]string{"feature": "summary", "environment": "prod", "unheard-of": "x"}, own); diff != "" {
		t.Errorf("the caller's metadata changed (-want +got):\n%s", diff)
	}
}

func TestInputsAreNotModified(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, compliant()).Options)
	ctx := t.Context()
	converse := &bedrockruntime.ConverseInput{ModelId: aws.String(nova), Messages: message("hi")}
	stream := &bedrockruntime.ConverseStreamInput{ModelId: aws.String(nova), Messages: message("hi"), RequestMetadata: map[string]string{"team": "ads"}}
	invoke := &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: claudeBody("hi"), RequestMetadata: aws.String(`{"user":"user-1"}`)}
	async := &bedrockruntime.StartAsyncInvokeInput{ModelId: aws.String("amazon.nova-reel-v1:0"), ClientRequestToken: aws.String("token-1"),
		ModelInput: document.NewLazyDocument(map[string]any{"taskType": "TEXT_VIDEO"}), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("ads")}},
		OutputDataConfig: &types.AsyncInvokeOutputDataConfigMemberS3OutputDataConfig{Value: types.AsyncInvokeS3OutputDataConfig{S3Uri: aws.String("s3://example-bucket/out")}}}
	plain := cmpopts.IgnoreUnexported(bedrockruntime.ConverseInput{}, bedrockruntime.ConverseStreamInput{}, bedrockruntime.InvokeModelInput{}, bedrockruntime.StartAsyncInvokeInput{},
		types.Message{}, types.ContentBlockMemberText{}, types.Tag{}, types.AsyncInvokeOutputDataConfigMemberS3OutputDataConfig{}, types.AsyncInvokeS3OutputDataConfig{})
	notModelInput := cmpopts.IgnoreFields(bedrockruntime.StartAsyncInvokeInput{}, "ModelInput") // an interface of unexported type
	before := []any{new(*converse), new(*stream), new(*invoke), new(*async)}
	before[3].(*bedrockruntime.StartAsyncInvokeInput).Tags = slices.Clone(async.Tags)
	before[1].(*bedrockruntime.ConverseStreamInput).RequestMetadata = maps.Clone(stream.RequestMetadata)
	_, err1 := client.Converse(ctx, converse)
	out, err2 := client.ConverseStream(ctx, stream)
	_, err3 := client.InvokeModel(ctx, invoke)
	_, err4 := client.StartAsyncInvoke(ctx, async)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	out.GetStream().Close()
	if diff := cmp.Diff(before, []any{converse, stream, invoke, async}, plain, notModelInput); diff != "" {
		t.Errorf("inputs changed (-before +after):\n%s", diff)
	}
}

// buildHook puts a header on each request, as programs did before the SDK had a member
// for it. The name is kept as it is written.
func buildHook(name, value string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Build.Add(middleware.BuildMiddlewareFunc("hook"+name, func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			in.Request.(*smithyhttp.Request).Header[name] = append(in.Request.(*smithyhttp.Request).Header[name], value)
			return next.HandleBuild(ctx, in)
		}), middleware.After)
	}
}

// finalizeHook is buildHook in front of the signer, on every attempt.
func finalizeHook(name, value string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("late"+name, func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			in.Request.(*smithyhttp.Request).Header[name] = append(in.Request.(*smithyhttp.Request).Header[name], value)
			return next.HandleFinalize(ctx, in)
		}), "ResolveEndpointV2", middleware.Before)
	}
}

// An interceptor is the SDK's newer kind of hook.
type interceptor struct{ value string }

func (i interceptor) set(c *smithyhttp.InterceptorContext) error {
	c.Request.Header.Set("X-Amzn-Bedrock-Request-Metadata", i.value)
	return nil
}

func (i interceptor) BeforeRetryLoop(_ context.Context, c *smithyhttp.InterceptorContext) error {
	return i.set(c)
}

func (i interceptor) BeforeSigning(_ context.Context, c *smithyhttp.InterceptorContext) error {
	return i.set(c)
}

// What the policy takes from the caller's identity nobody can set, on any way that the
// SDK offers, in any spelling; what they may set arrives, on the same ways.
func TestCallsCannotForgeTags(t *testing.T) {
	const own = `{"user":"user-1","USER":"user-2","feature":"summary"}`
	const header = "X-Amzn-Bedrock-Request-Metadata"
	ownMap := map[string]string{"user": "user-1", "USER": "user-2", "feature": "summary"}
	ways := []struct {
		name     string
		own      map[string]string
		ctx      []waybill.Tag
		option   func(*bedrockruntime.Options)
		arrivesC bool // its feature arrives on Converse*
		arrivesI bool // and on Invoke*
	}{
		{"member", ownMap, nil, nil, true, true},
		{"context", nil, []waybill.Tag{{Key: "user", Value: "user-1"}, {Key: "feature", Value: "summary"}}, nil, true, true},
		{"header of a hook", nil, nil, bedrockruntime.WithAPIOptions(buildHook(header, own)), false, true},
		{"header in lower case", nil, nil, bedrockruntime.WithAPIOptions(buildHook(strings.ToLower(header), own)), false, true},
		{"header with underscores", nil, nil, bedrockruntime.WithAPIOptions(buildHook("x_amzn_bedrock_request_metadata", own)), false, true},
		{"header twice", nil, nil, bedrockruntime.WithAPIOptions(buildHook(header, own), buildHook(strings.ToLower(header), `{"user":"user-3"}`)), false, true},
		{"header before signing", nil, nil, bedrockruntime.WithAPIOptions(finalizeHook(header, own)), false, true},
		{"interceptor", nil, nil, func(o *bedrockruntime.Options) { o.Interceptors.AddBeforeRetryLoop(interceptor{own}) }, false, true},
		{"member and header", map[string]string{"feature": "summary"}, nil, bedrockruntime.WithAPIOptions(buildHook("x-amzn-bedrock-request-metadata", `{"user":"user-3"}`)), true, true},
		{"empty header", nil, nil, bedrockruntime.WithAPIOptions(buildHook(header, " ")), false, false},
	}
	s := newStand(t, nil)
	for _, hook := range []string{"client", "call"} {
		for _, a := range ways {
			for _, w := range spending {
				t.Run(a.name+" on the "+hook+"/"+w.operation, func(t *testing.T) {
					before := len(s.world.Calls())
					var ofClient, ofCall []func(*bedrockruntime.Options)
					if a.option != nil && hook == "client" {
						ofClient = append(ofClient, a.option)
					} else if a.option != nil {
						ofCall = append(ofCall, a.option)
					}
					client := s.client(append(ofClient, newStamper(t, compliant()).Options)...)
					if err := w.call(stamp.WithTags(t.Context(), a.ctx...), client, a.own, ofCall...); err != nil {
						t.Fatal(err)
					}
					want := map[string]string{"team": "search", "environment": "production", "user": "user-17"}
					if strings.HasPrefix(w.operation, "Converse") && a.arrivesC || strings.HasPrefix(w.operation, "Invoke") && a.arrivesI {
						want["feature"] = "summary"
					}
					if diff := cmp.Diff(want, s.world.Calls()[before].Metadata); diff != "" {
						t.Errorf("metadata (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
}

// The header is among what is signed, and on Converse it is not there at all.
func TestHeaderIsSigned(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, compliant()).Options)
	for _, w := range spending {
		if err := w.call(t.Context(), client, map[string]string{"feature": "summary"}); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range s.left() {
		_, rest, _ := strings.Cut(r.header.Get("Authorization"), "SignedHeaders=")
		signed, _, _ := strings.Cut(rest, ",")
		has := slices.Contains(strings.Split(signed, ";"), "x-amzn-bedrock-request-metadata")
		inHeader := strings.HasPrefix(spending[i].operation, "Invoke")
		if has != inHeader || len(metadataHeaders(r.header)) > 1 || len(r.header.Values("X-Amzn-Bedrock-Request-Metadata")) > 1 {
			t.Errorf("%s: signed headers are %s, metadata headers are %v", spending[i].operation, signed, metadataHeaders(r.header))
		}
		if bytes.Contains(r.body, []byte("requestMetadata")) == inHeader {
			t.Errorf("%s: body is %s", spending[i].operation, r.body)
		}
	}
}

// A refused call never leaves. Its error lists everything that is missing or bad and
// what is allowed, in words of this package, and never what was sent.
func TestRefusedCallsNeverLeave(t *testing.T) {
	s := newStand(t, nil)
	var told [][]stamp.Violation
	client := s.client(newStamper(t, stamp.Config{Policy: []byte(tagPolicy), Caller: waybill.Principal{Subject: "user-17"},
		OnViolation: func(_ context.Context, v []stamp.Violation) { told = append(told, v) }}).Options)
	bad := map[string]string{"environment": "moonbase", "costCenter": "4711"}
	ways := append(slices.Clone(spending), way{"StartAsyncInvoke", func(ctx context.Context, c *bedrockruntime.Client, own map[string]string, _ ...func(*bedrockruntime.Options)) error {
		return startAsync(ctx, c, types.Tag{Key: aws.String("environment"), Value: aws.String("moonbase")}, types.Tag{Key: aws.String("costCenter"), Value: aws.String("4711")})
	}})
	for _, w := range ways {
		err := w.call(t.Context(), client, bad)
		e, ok := errors.AsType[*waybill.Error](err)
		if !ok || e.Kind != waybill.Denied || e.Code != "WB1301" {
			t.Errorf("%s: error is %v, want a refusal of kind Denied", w.operation, err)
			continue
		}
		for _, want := range []string{`"team"`, "search, ads", `"environment"`, "production, staging", `"costCenter"`, `CC-\d{4}`, "stamp.WithTags"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error does not say %s: %v", w.operation, want, err)
			}
		}
		for _, never := range []string{"moonbase", "4711", "X-Waybill-Tags"} {
			if strings.Contains(err.Error()+e.Hint, never) {
				t.Errorf("%s: error says %s: %v", w.operation, never, err)
			}
		}
	}
	if calls, left := s.world.Calls(), s.left(); len(calls)+len(left) > 0 {
		t.Errorf("%d requests left, and AWS saw %d calls", len(left), len(calls))
	}
	if len(told) != len(ways) {
		t.Fatalf("violations were told of %d calls, want %d", len(told), len(ways))
	}
	for _, violations := range told {
		codes := make(map[string]string)
		for _, v := range violations {
			codes[v.Key] = v.Code
			if v.Mode != "enforce" || v.Message == "" || strings.Contains(v.Remedy, "X-Waybill") {
				t.Errorf("violation is %+v", v)
			}
		}
		if diff := cmp.Diff(map[string]string{"team": "missing", "environment": "not_allowed", "costCenter": "pattern"}, codes); diff != "" {
			t.Errorf("violations (-want +got):\n%s", diff)
		}
	}
}

func TestMetadataThatCannotBeReadIsRefused(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, compliant()).Options)
	for _, own := range []string{`{`, `[]`, `{"a":1}`, `{"a":"x","a":"y"}`, `"text"`} {
		_, err := client.InvokeModel(t.Context(), &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: claudeBody("hi"), RequestMetadata: aws.String(own)})
		if waybill.KindOf(err) != waybill.Invalid {
			t.Errorf("%s: error is %v, want kind Invalid", own, err)
		}
	}
	if n := len(s.left()); n > 0 {
		t.Errorf("%d requests left", n)
	}
}

// In the modes that refuse nothing the call passes and somebody is told.
func TestWarnAndObservePass(t *testing.T) {
	for _, mode := range []string{"warn", "observe"} {
		t.Run(mode, func(t *testing.T) {
			s := newStand(t, nil)
			var told []stamp.Violation
			var operations []string
			c := stamp.Config{Policy: []byte("mode: " + mode + tagPolicy), Caller: waybill.Principal{Subject: "user-17"}, OnViolation: func(ctx context.Context, v []stamp.Violation) {
				told = append(told, v...)
				operations = append(operations, middleware.GetOperationName(ctx))
			}}
			client := s.client(newStamper(t, c).Options)
			var want []string
			for _, w := range spending {
				if err := w.call(t.Context(), client, nil); err != nil {
					t.Errorf("%s: %v", w.operation, err)
				}
				want = append(want, w.operation)
			}
			if diff := cmp.Diff(want, operations); diff != "" {
				t.Errorf("told of (-want +got):\n%s", diff)
			}
			for _, v := range told {
				if v.Key != "team" || v.Code != "missing" || v.Mode != mode {
					t.Errorf("violation is %+v, want team missing", v)
				}
			}
			for _, call := range s.world.Calls() {
				if diff := cmp.Diff(map[string]string{"environment": "production", "user": "user-17"}, call.Metadata); diff != "" {
					t.Errorf("%s: metadata (-want +got):\n%s", call.Operation, diff)
				}
			}
			c.OnViolation = nil
			if err := spending[0].call(t.Context(), s.client(newStamper(t, c).Options), nil); err != nil {
				t.Errorf("without a listener: %v", err)
			}
		})
	}
}

// However often the SDK tries, the call is decided once and every attempt carries the
// same tags.
func TestRetriesStampOnce(t *testing.T) {
	for _, w := range spending {
		t.Run(w.operation, func(t *testing.T) {
			faults := 2
			s := newStand(t, func(c *fakeaws.Config) {
				c.Fault = func(*http.Request) *fakeaws.Fault {
					if faults--; faults >= 0 {
						return &fakeaws.Fault{Status: 429, ErrorType: "ThrottlingException"}
					}
					return nil
				}
			})
			c := compliant()
			told, asked := 0, 0
			c.OnViolation = func(context.Context, []stamp.Violation) { told++ }
			c.CallerOf = func(context.Context) (waybill.Principal, bool) {
				asked++
				return waybill.Principal{Subject: fmt.Sprintf("user-%d", asked)}, true
			}
			// This SDK's interceptors before signing reach the attempts after the first.
			client := s.client(newStamper(t, c).Options, func(o *bedrockruntime.Options) {
				o.Interceptors.AddBeforeSigning(interceptor{`{"user":`})
			})
			// One tag is forged, so that there is something to tell of.
			if err := w.call(t.Context(), client, map[string]string{"user": "user-1000", "feature": "summary"}, bedrockruntime.WithAPIOptions(buildHook("x-amzn-bedrock-request-metadata", `{"team":"search"}`))); err != nil {
				t.Fatal(err)
			}
			calls := s.world.Calls()
			if len(calls) != 3 {
				t.Fatalf("AWS saw %d attempts, want 3", len(calls))
			}
			for i, call := range calls {
				if diff := cmp.Diff(map[string]string{"team": "search", "environment": "production", "user": "user-1", "feature": "summary"}, call.Metadata); diff != "" {
					t.Errorf("attempt %d: metadata (-want +got):\n%s", i+1, diff)
				}
			}
			if told != 1 || asked != 1 {
				t.Errorf("violations were told of %d times and the caller asked for %d times, want once each", told, asked)
			}
		})
	}
}

// A retryer that tries everything again does not wear a refusal down.
func TestRefusalsStand(t *testing.T) {
	s := newStand(t, nil)
	told := 0
	c := stamp.Config{Policy: []byte(tagPolicy), OnViolation: func(context.Context, []stamp.Violation) { told++ }}
	client := s.client(newStamper(t, c).Options, func(o *bedrockruntime.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(error) aws.Ternary { return aws.TrueTernary })}
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	})
	for _, w := range spending {
		if err := w.call(t.Context(), client, nil); waybill.KindOf(err) != waybill.Denied {
			t.Errorf("%s: error is %v, want kind Denied", w.operation, err)
		}
	}
	if told != len(spending) || len(s.left()) > 0 {
		t.Errorf("%d refusals were told of and %d requests left, want %d and none", told, len(s.left()), len(spending))
	}
}

// One Stamper serves many goroutines, and no call gets the tags of another.
func TestConcurrentCallsKeepTheirTags(t *testing.T) {
	s := newStand(t, nil)
	c := compliant()
	type userKey struct{}
	c.CallerOf = func(ctx context.Context) (waybill.Principal, bool) {
		user, ok := ctx.Value(userKey{}).(string)
		return waybill.Principal{Subject: user}, ok
	}
	c.OnViolation = func(context.Context, []stamp.Violation) {}
	client := s.client(newStamper(t, c).Options)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				name := fmt.Sprintf("%d-%d", i, j)
				ctx := stamp.WithTags(context.WithValue(t.Context(), userKey{}, "user-"+name), waybill.Tag{Key: "feature", Value: "feature-" + name})
				var err error
				if j%2 == 0 {
					_, err = client.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String(nova), Messages: message("text-" + name)})
				} else {
					_, err = client.InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: claudeBody("text-" + name)})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	calls := s.world.Calls()
	if len(calls) != 80 {
		t.Fatalf("AWS served %d calls, want 80", len(calls))
	}
	for _, call := range calls {
		name := strings.TrimPrefix(call.Metadata["feature"], "feature-")
		if call.Metadata["user"] != "user-"+name || !bytes.Contains(call.RequestBody, []byte(`"text-`+name+`"`)) {
			t.Errorf("a call has metadata %v and body %s", call.Metadata, call.RequestBody)
		}
	}
}

// The nearer a tag was given to the call in the program, the earlier it goes; the
// context goes before the call's own metadata, as X-Waybill-Tags does at the gateway.
func TestPrecedence(t *testing.T) {
	s := newStand(t, nil)
	c := compliant()
	c.Tags = waybill.NewTags(searchTeam, waybill.Tag{Key: "feature", Value: "application"}, waybill.Tag{Key: "costCenter", Value: "CC-0001"})
	client := s.client(newStamper(t, c).Options)
	outer := stamp.WithTags(t.Context(), waybill.Tag{Key: "feature", Value: "outer"}, waybill.Tag{Key: "environment", Value: "staging"})
	tests := []struct {
		name        string
		ctx         context.Context
		own         map[string]string
		feature     string
		environment string
	}{
		{"application", t.Context(), nil, "application", "production"},
		{"metadata", t.Context(), map[string]string{"feature": "own"}, "own", "production"},
		{"context", outer, map[string]string{"feature": "own"}, "outer", "staging"},
		{"inner context", stamp.WithTags(outer, waybill.Tag{Key: "feature", Value: "inner"}), nil, "inner", "staging"},
		{"inner context, other case", stamp.WithTags(outer, waybill.Tag{Key: "Feature", Value: "inner"}), nil, "inner", "staging"},
		{"the outer context is as it was", outer, nil, "outer", "staging"},
		{"no tags", stamp.WithTags(outer), nil, "outer", "staging"},
		{"twice", stamp.WithTags(t.Context(), waybill.Tag{Key: "feature", Value: "first"}, waybill.Tag{Key: "feature", Value: "last"}), nil, "last", "production"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, w := range spending {
				before := len(s.world.Calls())
				if err := w.call(tt.ctx, client, tt.own); err != nil {
					t.Fatal(err)
				}
				got := s.world.Calls()[before].Metadata
				if got["feature"] != tt.feature || got["environment"] != tt.environment || got["costCenter"] != "CC-0001" {
					t.Errorf("%s: metadata is %v, want feature %s and environment %s", w.operation, got, tt.feature, tt.environment)
				}
			}
		})
	}
}

// A call is made on somebody's behalf, else by the process itself.
func TestCallerOf(t *testing.T) {
	s := newStand(t, nil)
	type userKey struct{}
	c := compliant()
	c.CallerOf = func(ctx context.Context) (waybill.Principal, bool) {
		p, ok := ctx.Value(userKey{}).(waybill.Principal)
		return p, ok
	}
	client := s.client(newStamper(t, c).Options)
	behalf := context.WithValue(t.Context(), userKey{}, waybill.Principal{Subject: "user-42", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "ads"})})
	if err := errors.Join(spending[0].call(t.Context(), client, nil), spending[0].call(behalf, client, map[string]string{"team": "search"})); err != nil {
		t.Fatal(err)
	}
	calls := s.world.Calls()
	if m := calls[0].Metadata; m["user"] != "user-17" || m["team"] != "search" {
		t.Errorf("the process's call has %v", m)
	}
	if m := calls[1].Metadata; m["user"] != "user-42" || m["team"] != "ads" {
		t.Errorf("the call on behalf of user-42 has %v", m)
	}
}

// What a principal may not use it may not use here either.
func TestRestrictionsOfThePrincipal(t *testing.T) {
	s := newStand(t, nil)
	c := compliant()
	c.Caller.Models, c.Caller.Environments = []string{"amazon.nova-*"}, []string{"staging"}
	client := s.client(newStamper(t, c).Options)
	staging := stamp.WithTags(t.Context(), waybill.Tag{Key: "environment", Value: "staging"})
	if err := spending[0].call(staging, client, nil); err != nil {
		t.Errorf("an allowed call: %v", err)
	}
	for what, err := range map[string]error{"WB1303": spending[2].call(staging, client, nil), "WB1304": spending[0].call(t.Context(), client, nil)} {
		if e, ok := errors.AsType[*waybill.Error](err); !ok || e.Code != what || e.Kind != waybill.Denied {
			t.Errorf("error is %v, want %s", err, what)
		}
	}
	if n := len(s.left()); n != 1 {
		t.Errorf("%d requests left, want 1", n)
	}
}

// Rules see the facts of the call.
func TestRulesSeeTheCall(t *testing.T) {
	s := newStand(t, nil)
	c := compliant()
	c.Policy = []byte(tagPolicy + `  rules:
    - {when: {model: anthropic.claude-*, operation: [ConverseStream, InvokeModel, InvokeModelWithResponseStream], region: us-east-1, endpoint: bedrock-runtime}, require: [costCenter]}
`)
	client := s.client(newStamper(t, c).Options)
	for _, w := range spending {
		err := w.call(t.Context(), client, nil)
		if w.operation == "Converse" { // of another model
			if err != nil {
				t.Error(err)
			}
		} else if waybill.KindOf(err) != waybill.Denied || !strings.Contains(err.Error(), `"costCenter"`) {
			t.Errorf("%s: error is %v, want one about costCenter", w.operation, err)
		}
		if err := w.call(stamp.WithTags(t.Context(), waybill.Tag{Key: "costCenter", Value: "CC-0001"}), client, nil); err != nil {
			t.Error(err)
		}
	}
}

// A policy that leaves nothing to carry leaves no empty carrier: AWS refuses those.
func TestNoTagsNoCarrier(t *testing.T) {
	s := newStand(t, nil)
	client := s.client(newStamper(t, stamp.Config{Policy: []byte("version: 1")}).Options)
	for _, w := range spending {
		if err := w.call(t.Context(), client, map[string]string{"feature": "summary"}); err != nil {
			t.Errorf("%s: %v", w.operation, err)
		}
	}
	if err := startAsync(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.left() {
		if len(metadataHeaders(r.header)) > 0 || bytes.Contains(r.body, []byte("requestMetadata")) || bytes.Contains(r.body, []byte(`"tags"`)) {
			t.Errorf("%s carries %v and body %s", r.path, metadataHeaders(r.header), r.body)
		}
	}
}

// The SDK tells of failures of a bidirectional stream on the stream.
func TestBidirectionalStreams(t *testing.T) {
	input := &bedrockruntime.InvokeModelWithBidirectionalStreamInput{ModelId: aws.String("amazon.nova-sonic-v1:0")}
	s := newStand(t, nil)
	refusing := s.client(newStamper(t, stamp.Config{Policy: []byte(tagPolicy)}).Options)
	out, err := refusing.InvokeModelWithBidirectionalStream(t.Context(), input)
	if err != nil {
		t.Fatal(err)
	}
	for range out.GetStream().Events() {
		t.Error("a refused stream has an event")
	}
	<-out.GetInitialReply()
	if err := out.GetStream().Err(); waybill.KindOf(err) != waybill.Denied || !strings.Contains(err.Error(), `"team"`) {
		t.Errorf("the stream's error is %v, want a refusal", err)
	}
	if n := len(s.left()); n > 0 {
		t.Errorf("%d requests left", n)
	}
	away := errors.New("nobody is there")
	var header http.Header
	passing := bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLECHECKOUT", "secret", ""), RetryMaxAttempts: 1,
		HTTPClient: doFunc(func(r *http.Request) (*http.Response, error) {
			header = r.Header.Clone()
			return nil, away
		})}, newStamper(t, compliant()).Options)
	if out, err = passing.InvokeModelWithBidirectionalStream(t.Context(), input); err != nil {
		t.Fatal(err)
	}
	<-out.GetInitialReply()
	if err := out.GetStream().Err(); !errors.Is(err, away) {
		t.Errorf("the stream's error is %v, want the client's", err)
	}
	if header == nil || len(metadataHeaders(header)) > 0 {
		t.Errorf("the request's headers are %v", header)
	}
}

type doFunc func(*http.Request) (*http.Response, error)

func (f doFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

// An operation that the SDK learns after this package may spend: the policy holds.
func TestUnknownOperations(t *testing.T) {
	run := func(c stamp.Config) (left bool, header http.Header, err error) {
		var o bedrockruntime.Options
		newStamper(t, c).Options(&o)
		stack := middleware.NewStack("NewOperation", smithyhttp.NewStackRequest)
		step1 := middleware.SerializeMiddlewareFunc("OperationSerializer", func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
			in.Request.(*smithyhttp.Request).Header.Set("X-Amzn-Bedrock-Request-Metadata", `{"team":"ads"}`)
			return next.HandleSerialize(ctx, in)
		})
		step2 := middleware.FinalizeMiddlewareFunc("Signing", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			return next.HandleFinalize(ctx, in)
		})
		if err := errors.Join(stack.Serialize.Add(step1, middleware.After), stack.Finalize.Add(step2, middleware.After), o.APIOptions[0](stack)); err != nil {
			t.Fatal(err)
		}
		_, _, err = middleware.DecorateHandler(middleware.HandlerFunc(func(_ context.Context, in any) (any, middleware.Metadata, error) {
			left, header = true, in.(*smithyhttp.Request).Header
			return nil, middleware.Metadata{}, nil
		}), stack).Handle(t.Context(), &struct{}{})
		return left, header, err
	}
	if left, header, err := run(compliant()); err != nil || !left || len(metadataHeaders(header)) > 0 {
		t.Errorf("a good call: left %t with %v, error %v", left, header, err)
	}
	if left, _, err := run(stamp.Config{Policy: []byte(tagPolicy)}); waybill.KindOf(err) != waybill.Denied || left {
		t.Errorf("a bad call: left %t, error %v", left, err)
	}
}

// A Stamper may be handed over twice; two of them on one client are a mistake.
func TestOneStamperAClient(t *testing.T) {
	s := newStand(t, nil)
	one, other := newStamper(t, compliant()), newStamper(t, compliant())
	if err := spending[0].call(t.Context(), s.client(one.Options), nil, one.Options); err != nil {
		t.Errorf("handed over twice: %v", err)
	}
	if err := spending[0].call(t.Context(), s.client(one.Options), nil, other.Options); err == nil || !strings.Contains(err.Error(), "two policies") {
		t.Errorf("two stampers: error is %v", err)
	}
	if n := len(s.left()); n != 1 {
		t.Errorf("%d requests left, want 1", n)
	}
}

// A client without the SDK's steps fails; it does not send what cannot be stamped.
func TestStrangeStacksFail(t *testing.T) {
	s := newStand(t, nil)
	for _, remove := range []func(*middleware.Stack) error{
		func(stack *middleware.Stack) error {
			_, err := stack.Serialize.Remove("OperationSerializer")
			return err
		},
		func(stack *middleware.Stack) error { _, err := stack.Finalize.Remove("Signing"); return err },
	} {
		client := s.client(bedrockruntime.WithAPIOptions(remove), newStamper(t, compliant()).Options)
		if err := spending[0].call(t.Context(), client, nil); err == nil || !strings.Contains(err.Error(), "not those of the SDK") {
			t.Errorf("error is %v", err)
		}
	}
	if n := len(s.left()); n > 0 {
		t.Errorf("%d requests left", n)
	}
}

func TestNew(t *testing.T) {
	tests := []struct {
		name string
		c    stamp.Config
		want []string
	}{
		{"nothing", stamp.Config{}, []string{"PolicyFile", "Policy"}},
		{"no such file", stamp.Config{PolicyFile: "testdata/none.yaml"}, []string{"testdata/none.yaml"}},
		{"mistakes", stamp.Config{PolicyFile: "tags.yaml", Policy: []byte("version: 2\nmode: sometimes\n")}, []string{"tags.yaml:1:10", "tags.yaml:2:7", "enforce, warn, observe"}},
		{"no hash key", stamp.Config{Policy: []byte("tags: {keys: {user: {from: caller.subject, transform: hmac}}}")}, []string{"policy:1", "hash"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := stamp.New(tt.c)
			if err == nil || s != nil {
				t.Fatalf("New gave %v, %v, want an error", s, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %s: %v", want, err)
				}
			}
		})
	}
}

// A pseudonym is the gateway's: stable, by the secret, and never the name.
func TestHashKey(t *testing.T) {
	s := newStand(t, nil)
	hashed := strings.Replace(tagPolicy, "from: caller.subject", "from: caller.subject, transform: hmac", 1)
	for _, secret := range []string{"0123456789abcdef", "0123456789abcdef", "fedcba9876543210"} {
		c := compliant()
		c.Policy, c.HashKey = []byte(hashed), []byte(secret)
		if err := spending[0].call(t.Context(), s.client(newStamper(t, c).Options), nil); err != nil {
			t.Fatal(err)
		}
	}
	calls := s.world.Calls()
	first, again, other := calls[0].Metadata["user"], calls[1].Metadata["user"], calls[2].Metadata["user"]
	if first == "" || first != again || first == other || strings.Contains(first, "user-17") {
		t.Errorf("pseudonyms are %q, %q and with another secret %q", first, again, other)
	}
}

// Whatever a program puts into the header, AWS takes what leaves, and the user is the
// caller.
func FuzzMetadata(f *testing.F) {
	for _, seed := range []string{`{}`, `{"feature":"a"}`, `{"user":"x"}`, `{"feature":"","costCenter":"CC-1"}`, `{"a":"b","a":"c"}`, `{"\u0075ser":"x"}`, `[`, ``, ` `, "{\"feature\":\"a\u00e9\"}", `{"feature":"a\nb"}`} {
		f.Add(seed)
	}
	served := make(chan fakeaws.Call, 1)
	s := newStand(f, func(c *fakeaws.Config) { c.OnCall = func(call fakeaws.Call) { served <- call } })
	client := bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLECHECKOUT", "secret", ""), RetryMaxAttempts: 1,
		BaseEndpoint: aws.String(s.url), HTTPClient: http.DefaultClient}, newStamper(f, compliant()).Options)
	f.Fuzz(func(t *testing.T, own string) {
		_, err := client.InvokeModel(t.Context(), &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: claudeBody("hi"), RequestMetadata: aws.String(own)})
		if err != nil {
			if _, ours := errors.AsType[*waybill.Error](err); !ours || len(served) > 0 {
				t.Fatalf("AWS saw it, or refused it: %v", err)
			}
			return
		}
		if m := (<-served).Metadata; m["user"] != "user-17" || m["team"] == "" {
			t.Errorf("metadata is %v", m)
		}
	})
}

// A policy on disk imports the organisation's vocabulary, and hashes with the gateway's
// own secrets.
func TestImportsAndEpochs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"policy.yaml":     "import: vocabulary.yaml\ntags: {keys: {user: {from: caller.subject, transform: hmac}}}\n",
		"vocabulary.yaml": "tags: {keys: {team: {required: true, values: [search]}}}\n",
		"hashkeys.jsonl":  `{"epoch":"7","key":"MDEyMzQ1Njc4OWFiY2RlZg=="}` + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := stamp.Config{PolicyFile: filepath.Join(dir, "policy.yaml"), HashKeysFile: filepath.Join(dir, "hashkeys.jsonl"), Caller: waybill.Principal{Subject: "checkout"}}
	s, err := stamp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	in := newStand(t, nil)
	client := in.client(s.Options)
	hello := &bedrockruntime.ConverseInput{ModelId: aws.String(nova), Messages: message("hi")}
	if _, err := client.Converse(t.Context(), hello); err == nil || !strings.Contains(err.Error(), `"team" is required`) {
		t.Errorf("without the imported key's tag: %v", err)
	}
	if _, err := client.Converse(stamp.WithTags(t.Context(), waybill.Tag{Key: "team", Value: "search"}), hello); err != nil {
		t.Fatal(err)
	}
	calls := in.world.Calls()
	if got := calls[len(calls)-1].Metadata["user"]; !strings.HasPrefix(got, "h7-") {
		t.Errorf("user is %q, want a pseudonym of epoch 7", got)
	}
	c.HashKeysFile = filepath.Join(dir, "none")
	if _, err := stamp.New(c); err == nil {
		t.Error("secrets that are not there")
	}
}
