package fakeaws

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
)

// A signature for bedrock-mantle that OpenAI's own client has computed is taken there, and
// is not a signature for bedrock-runtime.
func TestMantleSignatureVector(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	w := NewWorld(Config{Regions: []string{"us-east-1"}, RealNow: func() time.Time { return now }})
	w.byID["AKIDEXAMPLE"] = &credential{id: "AKIDEXAMPLE", secret: vectorSecret, token: "fixture-session-token", account: "111122223333", arn: "arn"}
	const body = `{"model":"gpt-4o","input":"hello"}`
	ask := func(body, endpoint string) (int, string) {
		r := httptest.NewRequest("POST", "/openai/v1/responses", strings.NewReader(body))
		r.Host = "bedrock-mantle.us-east-1.api.aws"
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Amz-Content-Sha256", "50329e51ad520f21b77bad0b01999930ff556cd1bf18434701251ba6c9f877bc")
		r.Header.Set("X-Amz-Date", "20250102T030405Z")
		r.Header.Set("X-Amz-Security-Token", "fixture-session-token")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20250102/us-east-1/bedrock-mantle/aws4_request, SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature=dc20c8fbe516daf0ccae7e5b7a78fc2936870413a9f1af6e1b2d44b970ce411f")
		rw := httptest.NewRecorder()
		w.Endpoint(endpoint).ServeHTTP(rw, r)
		return rw.Code, rw.Body.String()
	}
	if status, text := ask(body, Mantle); status != 404 || !strings.Contains(text, "model_not_found") { // there is no such model, but the signature is good
		t.Errorf("%d %s", status, text)
	}
	if status, text := ask(body+" ", Mantle); status != 403 || !strings.Contains(text, "InvalidSignatureException") && !strings.Contains(text, "permission_denied") {
		t.Errorf("another body: %d %s", status, text)
	}
	if status, text := ask(body, Runtime); status != 403 || !strings.Contains(text, "correct service") {
		t.Errorf("on bedrock-runtime: %d %s", status, text)
	}
}

// A stand is both inference endpoints of a world with a user's key.
type stand struct {
	t      *testing.T
	world  *World
	url    map[string]string
	client *bedrockruntime.Client
}

// whole sends requests whose bodies outlive the answer's head. The SDK closes a body as
// soon as the head is there; where that comes before net/http has seen the body's end, as
// it may on loopback, net/http takes the connection down in the middle of the stream.
type whole struct{}

func (whole) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return http.DefaultClient.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return http.DefaultClient.Do(r)
}

func newStand(t *testing.T, change func(*Config)) *stand {
	t.Helper()
	c := Config{Regions: []string{"us-east-1"}, Users: []User{{ARN: user, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: vectorSecret, BearerToken: "ABSK-key"}},
		Profiles: map[string]string{application: "us.openai.gpt-5.6-sol"},
		Projects: []Project{{Account: "111122223333", Region: "us-east-1", ID: "proj_search"}, {Account: "111122223333", Region: "us-east-1", ID: "proj_gone", Archived: true}}}
	if change != nil {
		change(&c)
	}
	s := &stand{t: t, world: NewWorld(c), url: make(map[string]string)}
	for _, endpoint := range []string{Runtime, Mantle} {
		url, stop, err := s.world.ServeEndpoint(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		s.url[endpoint] = url
	}
	url := s.url[Runtime]
	s.client = bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", BaseEndpoint: &url, Retryer: aws.NopRetryer{}, HTTPClient: whole{},
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", vectorSecret, "")})
	return s
}

const application = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123def456"

type reply struct {
	status int
	header http.Header
	text   string
	json   map[string]any
	err    error
}

// ask sends a request; headers are name and value in turn. What is not authorized by one
// of them goes out with the user's key.
func (s *stand) ask(method, endpoint, path, body string, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url[endpoint]+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer ABSK-key")
	if strings.HasPrefix(path, "/anthropic") {
		r.Header.Set("Anthropic-Version", "2023-06-01")
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Del(headers[i]); headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return reply{err: err}
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	out := reply{status: a.StatusCode, header: a.Header, text: string(text), err: err}
	_ = json.Unmarshal(text, &out.json) // a stream is not a document
	return out
}

func (s *stand) post(endpoint, path, body string, headers ...string) reply {
	s.t.Helper()
	return s.ask("POST", endpoint, path, body, headers...)
}

// at follows names and indexes into a document.
func at(v any, path ...any) any {
	for _, p := range path {
		switch k := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k < 0 {
				k += len(l)
			}
			if k < 0 || k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

type event struct {
	name string
	data map[string]any
}

// events reads a stream of server-sent events, each of which has its data in one line.
func events(t *testing.T, text string) (out []event, done bool) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<24)
	name := ""
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "event: "); ok {
			name = rest
		}
		data, ok := strings.CutPrefix(line, "data: ")
		switch {
		case !ok:
		case data == "[DONE]":
			done = true
		default:
			e := event{name: name}
			if err := json.Unmarshal([]byte(data), &e.data); err != nil {
				t.Fatalf("%v in %s", err, data)
			}
			out, name = append(out, e), ""
		}
	}
	return out, done
}

const (
	chatPath, chatBody          = "/openai/v1/chat/completions", `{"model":"openai.gpt-5.6-sol","messages":[{"role":"user","content":"hi"}]}`
	responsesPath, responseBody = "/openai/v1/responses", `{"model":"openai.gpt-5.6-sol","input":"hi"}`
	messagesPath, messagesBody  = "/anthropic/v1/messages", `{"model":"anthropic.claude-sonnet-5","max_tokens":400,"messages":[{"role":"user","content":"hi"}]}`
)

// with is a body with members put before its own.
func with(body, members string) string { return "{" + members + "," + body[1:] }

// as is a body for another model.
func as(body, model string) string {
	for _, m := range []string{"openai.gpt-5.6-sol", "anthropic.claude-sonnet-5"} {
		body = strings.Replace(body, `"`+m+`"`, `"`+model+`"`, 1)
	}
	return body
}

// Each endpoint takes what it documents and refuses the rest in the shape of the path.
func TestShapesRefusals(t *testing.T) {
	s := newStand(t, nil)
	long := strings.Repeat("k", 65)
	for _, tt := range []struct {
		name, endpoint, path, body string
		headers                    []string
		status                     int
		want                       string // of the error: code or type; in the message after a blank
	}{
		{"chat", Mantle, chatPath, chatBody, nil, 200, ""},
		{"chat without /openai", Mantle, "/v1/chat/completions", as(chatBody, "openai.gpt-oss-120b"), nil, 200, ""},
		{"chat on runtime by profile", Runtime, chatPath, as(chatBody, "us.openai.gpt-5.6-sol"), nil, 200, ""},
		{"chat on runtime by application profile", Runtime, chatPath, as(chatBody, application), nil, 200, ""},
		{"chat on runtime with a version", Runtime, chatPath, as(chatBody, "openai.gpt-oss-120b-1:0"), nil, 200, ""},
		{"responses", Mantle, responsesPath, responseBody, nil, 200, ""},
		{"responses on runtime", Runtime, responsesPath, as(responseBody, "us.openai.gpt-5.6-sol"), nil, 200, ""},
		{"messages", Mantle, messagesPath, messagesBody, nil, 200, ""},
		{"messages on runtime", Runtime, messagesPath, as(messagesBody, "global.anthropic.claude-sonnet-5"), nil, 200, ""},
		{"messages with x-api-key", Mantle, messagesPath, messagesBody, []string{"Authorization", "", "X-Api-Key", "ABSK-key"}, 200, ""},
		{"messages on runtime with x-api-key", Runtime, messagesPath, as(messagesBody, "us.anthropic.claude-sonnet-5"), []string{"Authorization", "", "X-Api-Key", "ABSK-key"}, 200, ""},
		{"count of tokens", Mantle, messagesPath + "/count_tokens", strings.Replace(messagesBody, `"max_tokens":400,`, "", 1), nil, 200, ""},
		{"request metadata is ignored", Mantle, chatPath, chatBody, []string{"X-Amzn-Bedrock-Request-Metadata", "not even JSON"}, 200, ""},

		{"x-api-key is Anthropic's", Mantle, chatPath, chatBody, []string{"Authorization", "", "X-Api-Key", "ABSK-key"}, 401, "invalid_api_key"},
		{"wrong key", Mantle, chatPath, chatBody, []string{"Authorization", "Bearer x"}, 401, "invalid_api_key"},
		{"wrong key of messages", Mantle, messagesPath, messagesBody, []string{"Authorization", "Bearer x"}, 401, "authentication_error"},
		{"wrong key on runtime", Runtime, chatPath, chatBody, []string{"Authorization", "Bearer x"}, 403, "permission_denied"},
		{"profile on mantle", Mantle, chatPath, as(chatBody, "us.openai.gpt-5.6-sol"), nil, 404, "model_not_found"},
		{"version on mantle", Mantle, "/v1/chat/completions", as(chatBody, "openai.gpt-oss-120b-1:0"), nil, 404, "model_not_found"},
		{"application profile on mantle", Mantle, chatPath, as(chatBody, application), nil, 404, "model_not_found"},
		{"profile of messages on mantle", Mantle, messagesPath, as(messagesBody, "us.anthropic.claude-sonnet-5"), nil, 404, "not_found_error"},
		{"wrong prefix", Mantle, "/v1/chat/completions", chatBody, nil, 400, " isn't supported on this route"},
		{"model without Responses", Mantle, "/v1/responses", as(responseBody, "qwen.qwen3-235b-a22b-2507"), nil, 400, " does not support the '/v1/responses' API"},
		{"Claude in chat", Mantle, chatPath, as(chatBody, "anthropic.claude-sonnet-5"), nil, 400, " does not support"},
		{"GPT in messages", Mantle, messagesPath, as(messagesBody, "openai.gpt-5.6-sol"), nil, 400, " does not support"},
		{"no /v1 on runtime", Runtime, "/v1/chat/completions", as(chatBody, "us.openai.gpt-5.6-sol"), nil, 200, ""}, // with the answer to an unknown operation
		{"no embeddings on runtime", Runtime, "/openai/v1/embeddings", `{"model":"cohere.embed-v4","input":"x"}`, nil, 404, "not_found"},
		{"no count on runtime", Runtime, messagesPath + "/count_tokens", messagesBody, nil, 404, "not_found_error"},
		{"no compaction on runtime", Runtime, responsesPath + "/compact", as(responseBody, "us.openai.gpt-5.6-sol"), nil, 404, "not_found"},
		{"bare model of chat on runtime", Runtime, chatPath, chatBody, nil, 400, " on-demand throughput isn’t supported"},
		{"bare model of responses on runtime", Runtime, responsesPath, responseBody, nil, 400, " on-demand throughput isn’t supported"},
		{"bare model of messages on runtime", Runtime, messagesPath, messagesBody, nil, 400, " on-demand throughput isn’t supported"},
		{"no version of chat on runtime", Runtime, chatPath, as(chatBody, "openai.gpt-oss-120b"), nil, 400, " model identifier is invalid"},
		{"application profile of responses", Runtime, responsesPath, as(responseBody, application), nil, 400, " inference profiles are not supported"},
		{"application profile of messages", Runtime, messagesPath, as(messagesBody, application), nil, 400, " inference profiles are not supported"},
		{"unknown application profile", Runtime, chatPath, as(chatBody, application+"x"), nil, 404, "model_not_found"},
		{"background on runtime", Runtime, responsesPath, with(as(responseBody, "us.openai.gpt-5.6-sol"), `"background":true`), nil, 400, "unsupported_parameter"},
		{"background that is not stored", Mantle, responsesPath, with(responseBody, `"background":true,"store":false`), nil, 400, "invalid_value"},
		{"unknown previous response", Mantle, responsesPath, with(responseBody, `"previous_response_id":"resp_x"`), nil, 404, "not_found"},
		{"unknown project", Mantle, chatPath, chatBody, []string{"OpenAI-Project", "proj_x"}, 404, "project_not_found"},
		{"archived project", Mantle, chatPath, chatBody, []string{"OpenAI-Project", "proj_gone"}, 400, " archived"},
		{"unknown workspace", Mantle, messagesPath, messagesBody, []string{"Anthropic-Workspace-Id", "proj_x"}, 404, "not_found_error"},
		{"project on runtime", Runtime, chatPath, as(chatBody, "us.openai.gpt-5.6-sol"), []string{"OpenAI-Project", "proj_search"}, 400, " default project only"},
		{"default project on runtime", Runtime, chatPath, as(chatBody, "us.openai.gpt-5.6-sol"), []string{"OpenAI-Project", "arn:aws:bedrock:us-east-1:111122223333:project/default"}, 200, ""},
		{"default project of mantle on runtime", Runtime, chatPath, as(chatBody, "us.openai.gpt-5.6-sol"), []string{"OpenAI-Project", "arn:aws:bedrock-mantle:us-east-1:111122223333:project/default"}, 400, " default project only"},
		{"unknown member", Mantle, chatPath, with(chatBody, `"requestMetadata":{"a":"b"}`), nil, 400, "unknown_parameter"},
		{"unknown member of responses", Mantle, responsesPath, with(responseBody, `"messages":[]`), nil, 400, "unknown_parameter"},
		{"unknown member of messages", Mantle, messagesPath, with(messagesBody, `"anthropic_version":"bedrock-2023-05-31"`), nil, 400, " anthropic_version: Extra inputs are not permitted"},
		{"member twice", Mantle, chatPath, with(chatBody, `"model":"x"`), nil, 400, " could not parse"},
		{"not JSON", Mantle, chatPath, "{", nil, 400, " could not parse"},
		{"metadata of numbers", Mantle, chatPath, with(chatBody, `"metadata":{"a":1}`), nil, 400, "invalid_type"},
		{"metadata with a long key", Mantle, responsesPath, with(responseBody, `"metadata":{"`+long+`":"v"}`), nil, 400, "string_above_max_length"},
		{"metadata that Anthropic does not know", Mantle, messagesPath, with(messagesBody, `"metadata":{"team":"search"}`), nil, 400, " metadata.team: Extra inputs are not permitted"},
		{"too much metadata", Mantle, chatPath, with(chatBody, `"metadata":`+many(17)), nil, 400, "object_above_max_properties"},
		{"stream options without a stream", Mantle, chatPath, with(chatBody, `"stream_options":{"include_usage":true}`), nil, 400, "invalid_value"},
		{"reserved tier on mantle", Mantle, chatPath, with(chatBody, `"service_tier":"reserved"`), nil, 400, "invalid_value"},
		{"no model", Mantle, chatPath, `{"messages":[]}`, nil, 400, "missing_required_parameter"},
		{"no messages", Mantle, chatPath, `{"model":"openai.gpt-5.6-sol","messages":[]}`, nil, 400, "missing_required_parameter"},
		{"no version", Mantle, messagesPath, messagesBody, []string{"Anthropic-Version", ""}, 400, " anthropic-version: header is required"},
		{"broken version", Mantle, messagesPath, messagesBody, []string{"Anthropic-Version", "bedrock-2023-05-31"}, 400, " is not a valid version"},
		{"no max_tokens", Mantle, messagesPath, strings.Replace(messagesBody, `"max_tokens":400,`, "", 1), nil, 400, " max_tokens: Field required"},
		{"max_tokens of a count", Mantle, messagesPath + "/count_tokens", messagesBody, nil, 400, " max_tokens: Extra inputs are not permitted"},
	} {
		a := s.post(tt.endpoint, tt.path, tt.body, tt.headers...)
		got, _ := at(a.json, "error", "code").(string)
		message, _ := at(a.json, "error", "message").(string)
		if a.json["type"] == "error" {
			got, _ = at(a.json, "error", "type").(string)
			if a.json["request_id"] != a.header.Get("Request-Id") {
				t.Errorf("%s: the error does not say which request it is of", tt.name)
			}
		}
		if part, ok := strings.CutPrefix(tt.want, " "); ok && strings.Contains(message, part) {
			got = tt.want
		}
		if a.status != tt.status || got != tt.want {
			t.Errorf("%s: %d %s, want %d %s", tt.name, a.status, a.text, tt.status, tt.want)
		}
	}
}

func many(n int) string {
	m := make(map[string]string)
	for i := range n {
		m[fmt.Sprint("k", i)] = "v"
	}
	return string(encode(m))
}

// The same body is answered with the same bytes, whole and in a stream, whatever of it
// does not reach the model; the text and the usage of a stream are those of the whole.
func TestSameBodySameAnswer(t *testing.T) {
	s := newStand(t, nil)
	long := strings.Repeat("freight ", 1200)
	for _, tt := range []struct{ name, path, body, carried string }{
		{"chat", chatPath, chatBody, `"metadata":{"team":"search"}`},
		{"long chat", chatPath, strings.Replace(chatBody, `"hi"`, `"`+long+`"`, 1), `"metadata":{"team":"search"}`},
		{"tools", chatPath, with(chatBody, `"tools":[{"type":"function","function":{"name":"weigh","parameters":{"type":"object","properties":{"unit":{"enum":["kg"]}}}}}]`), `"metadata":{"team":"search"}`},
		{"responses", responsesPath, responseBody, ""},
		{"messages", messagesPath, messagesBody, `"metadata":{"user_id":"u"}`},
	} {
		before := len(s.world.Calls())
		one, two := s.post(Mantle, tt.path, tt.body), s.post(Mantle, tt.path, tt.body)
		if one.status != 200 || one.text != two.text || one.header.Get("X-Amzn-Requestid") == two.header.Get("X-Amzn-Requestid") {
			t.Errorf("%s: %d, and not the same twice", tt.name, one.status)
		}
		if tt.carried != "" {
			if a := s.post(Mantle, tt.path, with(tt.body, tt.carried)); a.text != one.text {
				t.Errorf("%s: with %s the answer is another", tt.name, tt.carried)
			}
		}
		stream := s.post(Mantle, tt.path, with(tt.body, `"stream":true`))
		if again := s.post(Mantle, tt.path, with(tt.body, `"stream":true`)); again.text != stream.text || !strings.HasPrefix(stream.header.Get("Content-Type"), "text/event-stream") {
			t.Errorf("%s: not the same stream twice", tt.name)
		}
		calls := s.world.Calls()
		last, first := calls[len(calls)-1], calls[before]
		if first.OutputTokens == 0 || last.InputTokens != first.InputTokens || last.OutputTokens != first.OutputTokens || last.CacheRead != first.CacheRead || !last.Streamed {
			t.Errorf("%s: a stream used %d and %d tokens, the whole %d and %d", tt.name, last.InputTokens, last.OutputTokens, first.InputTokens, first.OutputTokens)
		}
	}
}

// Usage in a chat stream comes in a chunk of its own before the end, and only if it is
// asked for.
func TestChatStreamUsage(t *testing.T) {
	s := newStand(t, nil)
	for _, tt := range []struct {
		members string
		asked   bool
	}{{`"stream":true`, false}, {`"stream":true,"stream_options":{"include_usage":false}`, false}, {`"stream":true,"stream_options":{"include_usage":true}`, true}} {
		a := s.post(Mantle, chatPath, with(chatBody, tt.members))
		list, done := events(t, a.text)
		if len(list) == 0 || !done {
			t.Fatalf("%s: %s", tt.members, a.text)
		}
		text := ""
		for i, e := range list {
			usage, there := e.data["usage"]
			last := i == len(list)-1
			if there != tt.asked || (usage != nil) != (tt.asked && last) {
				t.Errorf("%s: chunk %d has usage %v", tt.members, i, usage)
			}
			if tt.asked && last && len(e.data["choices"].([]any)) != 0 {
				t.Errorf("the chunk with the usage has choices: %v", e.data)
			}
			piece, _ := at(e.data, "choices", 0, "delta", "content").(string)
			text += piece
		}
		whole := s.post(Mantle, chatPath, chatBody)
		if text != at(whole.json, "choices", 0, "message", "content") {
			t.Errorf("%s: the stream says %q", tt.members, text)
		}
		if tt.asked && fmt.Sprint(list[len(list)-1].data["usage"]) != fmt.Sprint(whole.json["usage"]) {
			t.Errorf("the stream's usage is %v, the whole's %v", list[len(list)-1].data["usage"], whole.json["usage"])
		}
	}
}

// OpenAI's shapes count cached tokens within the input, Anthropic's beside it.
func TestUsageArithmetic(t *testing.T) {
	s := newStand(t, nil)
	seen := make(map[string]bool)
	number := func(v any) int64 { f, _ := v.(float64); return int64(f) }
	for i := range 12 {
		text := strings.Repeat(fmt.Sprint("pallet ", i, " "), 700)
		a := s.post(Mantle, chatPath, strings.Replace(chatBody, `"hi"`, `"`+text+`"`, 1))
		calls := s.world.Calls()
		c := calls[len(calls)-1]
		u := at(a.json, "usage")
		if number(at(u, "prompt_tokens")) != c.InputTokens+c.CacheRead+c.CacheWrite30m || number(at(u, "prompt_tokens_details", "cached_tokens")) != c.CacheRead ||
			number(at(u, "prompt_tokens_details", "cache_write_tokens")) != c.CacheWrite30m || number(at(u, "total_tokens")) != number(at(u, "prompt_tokens"))+c.OutputTokens ||
			number(at(u, "completion_tokens_details", "reasoning_tokens")) != c.Reasoning || c.Reasoning > c.OutputTokens {
			t.Errorf("chat says %v of %+v", u, c)
		}
		seen["read"], seen["written"] = seen["read"] || c.CacheRead > 0, seen["written"] || c.CacheWrite30m > 0
		a = s.post(Mantle, messagesPath, `{"model":"anthropic.claude-sonnet-5","max_tokens":900,"messages":[{"role":"user","content":[{"type":"text","text":"`+text+`","cache_control":{"type":"ephemeral","ttl":"1h"}}]}]}`)
		calls = s.world.Calls()
		c, u = calls[len(calls)-1], at(a.json, "usage")
		if number(at(u, "input_tokens")) != c.InputTokens || number(at(u, "cache_read_input_tokens")) != c.CacheRead || number(at(u, "cache_creation_input_tokens")) != c.CacheWrite1h ||
			number(at(u, "cache_creation", "ephemeral_1h_input_tokens")) != c.CacheWrite1h || number(at(u, "output_tokens")) != c.OutputTokens {
			t.Errorf("messages say %v of %+v", u, c)
		}
		counted := s.post(Mantle, messagesPath+"/count_tokens", `{"model":"anthropic.claude-sonnet-5","messages":[{"role":"user","content":[{"type":"text","text":"`+text+`","cache_control":{"type":"ephemeral","ttl":"1h"}}]}]}`)
		if n := number(counted.json["input_tokens"]); n != c.InputTokens+c.CacheRead+c.CacheWrite1h {
			t.Errorf("%d tokens were counted of %+v", n, c)
		}
		seen["1h"] = seen["1h"] || c.CacheWrite1h > 0
	}
	if !seen["read"] || !seen["written"] || !seen["1h"] {
		t.Errorf("no call used the cache in each way: %v", seen)
	}
}

// A tool that is offered is called, with arguments that fit its schema, in every shape and
// in streams; its result is answered with prose.
func TestTools(t *testing.T) {
	s := newStand(t, nil)
	const parameters = `{"type":"object","properties":{"city":{"type":"string"},"unit":{"enum":["kg","t"]},"ids":{"type":"array","items":{"$ref":"#/$defs/n"}}},"$defs":{"n":{"type":"integer"}}}`
	check := func(name, arguments string) {
		t.Helper()
		var m struct {
			City, Unit string
			Ids        []int
		}
		if err := json.Unmarshal([]byte(arguments), &m); err != nil || m.City == "" || m.Unit != "kg" && m.Unit != "t" || len(m.Ids) != 1 || name != "weigh" {
			t.Errorf("%s(%s): %v", name, arguments, err)
		}
	}
	chat := with(chatBody, `"tools":[{"type":"function","function":{"name":"weigh","parameters":`+parameters+`}}]`)
	a := s.post(Mantle, chatPath, chat)
	name, _ := at(a.json, "choices", 0, "message", "tool_calls", 0, "function", "name").(string)
	arguments, _ := at(a.json, "choices", 0, "message", "tool_calls", 0, "function", "arguments").(string)
	check(name, arguments)
	if at(a.json, "choices", 0, "finish_reason") != "tool_calls" {
		t.Errorf("it finished with %v", at(a.json, "choices", 0, "finish_reason"))
	}
	list, _ := events(t, s.post(Mantle, chatPath, with(chat, `"stream":true`)).text)
	name, arguments = "", ""
	for _, e := range list {
		n, _ := at(e.data, "choices", 0, "delta", "tool_calls", 0, "function", "name").(string)
		p, _ := at(e.data, "choices", 0, "delta", "tool_calls", 0, "function", "arguments").(string)
		name, arguments = name+n, arguments+p
	}
	check(name, arguments)
	a = s.post(Mantle, responsesPath, with(responseBody, `"tools":[{"type":"function","name":"weigh","parameters":`+parameters+`}]`))
	name, _ = at(a.json, "output", -1, "name").(string)
	arguments, _ = at(a.json, "output", -1, "arguments").(string)
	check(name, arguments)
	claude := with(messagesBody, `"tools":[{"name":"weigh","input_schema":`+parameters+`}]`)
	a = s.post(Mantle, messagesPath, claude)
	name, _ = at(a.json, "content", 0, "name").(string)
	check(name, string(encode(at(a.json, "content", 0, "input"))))
	list, _ = events(t, s.post(Mantle, messagesPath, with(claude, `"stream":true`)).text)
	arguments = ""
	for _, e := range list {
		p, _ := at(e.data, "delta", "partial_json").(string)
		arguments += p
	}
	check(name, arguments)
	a = s.post(Mantle, chatPath, strings.Replace(chat, `{"role":"user","content":"hi"}`, `{"role":"user","content":"hi"},{"role":"tool","tool_call_id":"c","content":"1"}`, 1))
	if at(a.json, "choices", 0, "finish_reason") != "stop" {
		t.Errorf("a tool's result was answered with %s", a.text)
	}
	a = s.post(Mantle, chatPath, with(chat, `"tool_choice":{"type":"function","function":{"name":"other"}}`))
	if a.status != 400 {
		t.Errorf("a tool that is not there: %d", a.status)
	}
}

// The events of each stream come in the order that its API promises.
func TestStreamOrder(t *testing.T) {
	s := newStand(t, func(c *Config) { c.Chunks = 2 })
	names := func(path, body string) (out []string) {
		list, _ := events(t, s.post(Mantle, path, with(body, `"stream":true`)).text)
		for i, e := range list {
			if e.data["type"] != e.name {
				t.Errorf("event %s has type %v", e.name, e.data["type"])
			}
			if n, there := e.data["sequence_number"]; there && n != float64(i) {
				t.Errorf("event %d has number %v", i, n)
			}
			out = append(out, e.name)
		}
		return out
	}
	want := strings.Fields("message_start content_block_start ping content_block_delta content_block_delta content_block_stop message_delta message_stop")
	if got := names(messagesPath, messagesBody); !slices.Equal(got, want) {
		t.Errorf("messages: %v", got)
	}
	want = strings.Fields("message_start content_block_start ping content_block_delta content_block_delta content_block_stop content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop")
	if got := names(messagesPath, with(messagesBody, `"thinking":{"type":"adaptive"}`)); !slices.Equal(got, want) {
		t.Errorf("messages that think: %v", got)
	}
	want = strings.Fields(`response.created response.in_progress response.output_item.added response.output_item.done response.output_item.added
		response.content_part.added response.output_text.delta response.output_text.delta response.output_text.done response.content_part.done response.output_item.done response.completed`)
	if got := names(responsesPath, responseBody); !slices.Equal(got, want) {
		t.Errorf("responses: %v", got)
	}
	if got := names(responsesPath, with(responseBody, `"max_output_tokens":3`)); got[len(got)-1] != "response.incomplete" {
		t.Errorf("a response that was cut: %v", got)
	}
}

// A Response is kept unless it is not to be, is seen by its account alone, and is gone
// when it was deleted.
func TestStoredResponses(t *testing.T) {
	s := newStand(t, func(c *Config) {
		c.Users = append(c.Users, User{ARN: "arn:aws:iam::444455556666:user/other", AccessKeyID: "AKIDOTHER", SecretAccessKey: "x", BearerToken: "ABSK-other"})
	})
	made := s.post(Mantle, responsesPath, with(responseBody, `"metadata":{"waybill":"w-1"}`))
	id, _ := made.json["id"].(string)
	if at(made.json, "metadata", "waybill") != "w-1" || made.json["object"] != "response" || made.json["store"] != true {
		t.Errorf("a response is %s", made.text)
	}
	if a := s.ask("GET", Mantle, responsesPath+"/"+id, ""); a.text != made.text {
		t.Errorf("asked for again it is %s", a.text)
	}
	for name, a := range map[string]reply{
		"another account": s.ask("GET", Mantle, responsesPath+"/"+id, "", "Authorization", "Bearer ABSK-other"),
		"runtime":         s.ask("GET", Runtime, responsesPath+"/"+id, ""),
		"no such id":      s.ask("GET", Mantle, responsesPath+"/resp_x", ""),
	} {
		if a.status != 404 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if a := s.ask("GET", Mantle, responsesPath+"/"+id+"?stream=true", ""); a.status != 400 {
		t.Errorf("one that was not made in the background was streamed: %d", a.status)
	}
	if a := s.post(Mantle, responsesPath+"/"+id+"/cancel", ""); a.status != 400 {
		t.Errorf("a synchronous response was cancelled: %d", a.status)
	}
	if a := s.post(Mantle, responsesPath, with(responseBody, `"previous_response_id":"`+id+`"`)); a.status != 200 || a.json["previous_response_id"] != id {
		t.Errorf("to go on from it: %d %s", a.status, a.text)
	}
	if a := s.ask("DELETE", Mantle, responsesPath+"/"+id, ""); a.status != 200 || a.json["deleted"] != true {
		t.Errorf("to delete it: %d %s", a.status, a.text)
	}
	if a := s.ask("GET", Mantle, responsesPath+"/"+id, ""); a.status != 404 {
		t.Errorf("after it was deleted: %d", a.status)
	}
	kept := s.post(Mantle, responsesPath, with(responseBody, `"store":false`))
	id, _ = kept.json["id"].(string)
	if a := s.ask("GET", Mantle, responsesPath+"/"+id, ""); a.status != 404 {
		t.Errorf("one that was not to be kept: %d", a.status)
	}
	a := s.post(Mantle, responsesPath+"/compact", responseBody)
	if a.json["object"] != "response.compaction" || at(a.json, "output", 0, "type") != "compaction" || at(a.json, "usage", "input_tokens") == nil {
		t.Errorf("compacted: %s", a.text)
	}
}

// A background Response has its usage when it is done, and not before.
func TestBackgroundResponses(t *testing.T) {
	s := newStand(t, func(c *Config) { c.BackgroundGets = 3 })
	made := s.post(Mantle, responsesPath, with(responseBody, `"background":true`))
	id, _ := made.json["id"].(string)
	got := []any{made.json["status"]}
	for range 5 {
		a := s.ask("GET", Mantle, responsesPath+"/"+id, "")
		if (a.json["usage"] != nil) != (a.json["status"] == "completed") {
			t.Errorf("%v has usage %v", a.json["status"], a.json["usage"])
		}
		got = append(got, a.json["status"])
	}
	if want := []any{"queued", "queued", "in_progress", "in_progress", "completed", "completed"}; !slices.Equal(got, want) {
		t.Errorf("it went through %v", got)
	}
	if c := s.world.Calls(); c[0].ResponseStatus != "queued" || c[0].OutputTokens == 0 || c[1].OutputTokens != 0 || c[4].ResponseStatus != "completed" || c[4].ResponseID != id {
		t.Errorf("calls %+v", c)
	}
	other := strings.Replace(responseBody, `"hi"`, `"ho"`, 1)
	made = s.post(Mantle, responsesPath, with(other, `"background":true`))
	id, _ = made.json["id"].(string)
	if a := s.post(Mantle, responsesPath+"/"+id+"/cancel", ""); a.json["status"] != "cancelled" {
		t.Errorf("cancelled: %s", a.text)
	}
	if a := s.ask("GET", Mantle, responsesPath+"/"+id, ""); a.json["status"] != "cancelled" || a.json["usage"] != nil {
		t.Errorf("after it was cancelled: %s", a.text)
	}
	for _, c := range s.world.Calls() {
		if c.ResponseID == id && c.InputTokens+c.OutputTokens != 0 {
			t.Errorf("one that was cancelled in the queue used %d tokens", c.OutputTokens)
		}
	}
	third := strings.Replace(responseBody, `"hi"`, `"hu"`, 1)
	stream := s.post(Mantle, responsesPath, with(third, `"background":true,"stream":true`))
	list, _ := events(t, stream.text)
	id, _ = at(list[0].data, "response", "id").(string)
	if again := s.ask("GET", Mantle, responsesPath+"/"+id+"?stream=true", ""); again.text != stream.text {
		t.Errorf("streamed again it is %s", again.text)
	}
	rest, _ := events(t, s.ask("GET", Mantle, responsesPath+"/"+id+"?stream=true&starting_after=3", "").text)
	if len(rest) != len(list)-4 || rest[0].data["sequence_number"] != 4.0 {
		t.Errorf("after the third event come %d", len(rest))
	}
	if a := s.ask("GET", Mantle, responsesPath+"/"+id+"?stream=true", ""); a.status != 200 {
		t.Errorf("%d", a.status)
	}
}

// What a call is booked on: the project that its API's own header names.
func TestProjectOfCall(t *testing.T) {
	for _, honoured := range []string{"anthropic-workspace-id", "anthropic-workspace"} {
		s := newStand(t, func(c *Config) { c.WorkspaceHeader = honoured })
		other := map[string]string{"anthropic-workspace-id": "anthropic-workspace", "anthropic-workspace": "anthropic-workspace-id"}[honoured]
		for _, tt := range []struct {
			path, body, header, want string
		}{
			{chatPath, chatBody, "OpenAI-Project", "proj_search"},
			{responsesPath, responseBody, "OpenAI-Project", "proj_search"},
			{messagesPath, messagesBody, honoured, "proj_search"},
			{messagesPath, messagesBody, other, "default"},
			{messagesPath, messagesBody, "OpenAI-Project", "default"},
			{chatPath, chatBody, honoured, "default"},
		} {
			a := s.post(Mantle, tt.path, tt.body, tt.header, "proj_search")
			calls := s.world.Calls()
			c := calls[len(calls)-1]
			if a.status != 200 || c.Project != tt.want || c.ProjectARN != "arn:aws:bedrock-mantle:us-east-1:111122223333:project/"+tt.want || c.Endpoint != Mantle || c.Header.Get(tt.header) != "proj_search" {
				t.Errorf("%s with %s: %d, booked on %s", tt.path, tt.header, a.status, c.ProjectARN)
			}
		}
	}
}

// Embeddings come as numbers or packed; the models are listed under /v1 alone.
func TestEmbeddingsAndModels(t *testing.T) {
	s := newStand(t, nil)
	a := s.post(Mantle, "/v1/embeddings", `{"model":"cohere.embed-v4","input":["a","b"],"dimensions":8}`)
	if v, _ := at(a.json, "data", 1, "embedding").([]any); len(v) != 8 || at(a.json, "usage", "total_tokens") == nil {
		t.Errorf("%d %s", a.status, a.text)
	}
	a = s.post(Mantle, "/v1/embeddings", `{"model":"cohere.embed-v4","input":"a","encoding_format":"base64"}`)
	if _, ok := at(a.json, "data", 0, "embedding").(string); !ok {
		t.Errorf("%d %s", a.status, a.text)
	}
	a = s.ask("GET", Mantle, "/v1/models", "")
	if at(a.json, "object") != "list" || at(a.json, "data", 0, "object") != "model" {
		t.Errorf("%d %s", a.status, a.text)
	}
	for path, want := range map[string]int{"/openai/v1/models": 404, "/v1/models/openai.gpt-oss-120b": 200, "/v1/models/nobody.knows": 404} {
		if a := s.ask("GET", Mantle, path, ""); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
}

// Keys that AWS's own generator has made, at the time of the vectors above, as they are
// before they are encoded.
const (
	userKey = "bedrock.amazonaws.com/?Action=CallWithBearerToken&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20250102%2Fus-east-1%2Fbedrock%2Faws4_request" +
		"&X-Amz-Date=20250102T030405Z&X-Amz-Expires=43200&X-Amz-SignedHeaders=host&X-Amz-Signature=e46cd5dd7005d6f41edada9a83e342cb96a9509e83e34bb96e2941f95e69753a&Version=1"
	sessionKey = "bedrock.amazonaws.com/?Action=CallWithBearerToken&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIASESSION%2F20250102%2Fus-east-1%2Fbedrock%2Faws4_request" +
		"&X-Amz-Date=20250102T030405Z&X-Amz-Expires=43200&X-Amz-SignedHeaders=host&X-Amz-Security-Token=a%2Fsession%2Btoken%3D&X-Amz-Signature=ee13625289e9143324ca4a7303d90558f36cee4a587a6aab6535ec077f933fbe&Version=1"
)

// A short-term key is a presigned URL: good as it is, in its Region, for its time.
func TestShortTermKey(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	w := NewWorld(Config{Regions: []string{"us-east-1", "us-west-2"}, RealNow: func() time.Time { return now }, Users: []User{{ARN: user, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: vectorSecret}}})
	w.byID["ASIASESSION"] = &credential{id: "ASIASESSION", secret: "session-secret", token: "a/session+token=", account: "111122223333", arn: "arn:aws:sts::111122223333:assumed-role/app/one", expires: now.Add(time.Hour)}
	ask := func(host, key string) (int, Call) {
		r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(as(chatBody, "openai.gpt-oss-120b")))
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+key)
		rw := httptest.NewRecorder()
		w.Handler().ServeHTTP(rw, r)
		calls := w.Calls()
		if rw.Code != 200 {
			return rw.Code, Call{}
		}
		return rw.Code, calls[len(calls)-1]
	}
	encode := func(url string) string { return "bedrock-api-key-" + base64.StdEncoding.EncodeToString([]byte(url)) }
	const east, west = "bedrock-mantle.us-east-1.api.aws", "bedrock-mantle.us-west-2.api.aws"
	for name, key := range map[string]string{"user": encode(userKey), "session": encode(sessionKey)} {
		status, c := ask(east, key)
		if status != 200 || c.Auth != "SHORT_TERM" || c.Region != "us-east-1" || !strings.Contains(c.PrincipalARN, map[string]string{"user": ":user/gateway", "session": "assumed-role/app/one"}[name]) {
			t.Errorf("%s: %d %+v", name, status, c)
		}
		if status, _ := ask(west, key); status != 401 {
			t.Errorf("%s in another Region: %d", name, status)
		}
		for i := len("bedrock-api-key-"); i < len(key); i += 37 {
			changed := []byte(key)
			changed[i] = map[bool]byte{true: 'B', false: 'A'}[changed[i] == 'A']
			if status, _ := ask(east, string(changed)); status != 401 {
				t.Errorf("%s with a changed byte %d: %d", name, i, status)
			}
		}
	}
	if status, _ := ask(east, sign(t, now, 43201)); status != 401 {
		t.Errorf("one for more than twelve hours: %d", status)
	}
	if status, _ := ask(east, sign(t, now, 3600)); status != 200 {
		t.Errorf("one of the AWS SDK's signer: %d", status)
	}
	now = now.Add(61 * time.Minute)
	if status, _ := ask(east, encode(sessionKey)); status != 401 {
		t.Errorf("after the session's end: %d", status)
	}
	now = now.Add(12 * time.Hour)
	if status, _ := ask(east, encode(userKey)); status != 401 {
		t.Errorf("after its time: %d", status)
	}
}

// sign makes a short-term key as AWS describes it.
func sign(t *testing.T, now time.Time, seconds int) string {
	t.Helper()
	r, err := http.NewRequest("POST", fmt.Sprintf("https://bedrock.amazonaws.com/?Action=CallWithBearerToken&X-Amz-Expires=%d", seconds), nil)
	if err != nil {
		t.Fatal(err)
	}
	empty := sha256.Sum256(nil)
	url, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: vectorSecret}, r, hex.EncodeToString(empty[:]), "bedrock", "us-east-1", now)
	if err != nil {
		t.Fatal(err)
	}
	return "bedrock-api-key-" + base64.StdEncoding.EncodeToString(bytes.TrimPrefix([]byte(url+"&Version=1"), []byte("https://")))
}
