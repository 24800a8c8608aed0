package fakeaws

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
)

// A failure is told in the shape of the path that was called.
func TestFaultsInEachShape(t *testing.T) {
	var fault *Fault
	s := newStand(t, func(c *Config) { c.Fault = func(*http.Request) *Fault { return fault } })
	const converse, hello = "/model/amazon.nova-lite-v1:0/converse", `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`
	for _, tt := range []struct {
		fault                         Fault
		aws, openAI, anthropic, type_ string
	}{
		{Fault{Status: 429, ErrorType: "ThrottlingException", RetryAfter: "7"}, "ThrottlingException", "rate_limit_exceeded", "rate_limit_error", "rate_limit_error"},
		{Fault{Status: 503, ErrorType: "ServiceUnavailableException"}, "ServiceUnavailableException", "service_unavailable", "overloaded_error", "server_error"},
		{Fault{Status: 500, ErrorType: "InternalServerException"}, "InternalServerException", "internal_server_error", "api_error", "server_error"},
		{Fault{Status: 403, ErrorType: "ExpiredTokenException"}, "ExpiredTokenException", "permission_denied", "permission_error", "invalid_request_error"},
		{Fault{Status: 400, ErrorType: "insufficient_quota"}, "insufficient_quota", "insufficient_quota", "invalid_request_error", "invalid_request_error"},
		{Fault{Status: 529, ErrorType: "overloaded_error"}, "overloaded_error", "overloaded_error", "overloaded_error", "server_error"},
	} {
		fault = &tt.fault
		a := s.post(Runtime, converse, hello)
		if kind, _, _ := strings.Cut(a.header.Get("X-Amzn-Errortype"), ":"); a.status != fault.Status || kind != tt.aws || a.json["message"] == nil || a.header.Get("Retry-After") != fault.RetryAfter {
			t.Errorf("AWS's shape of %d: %d %v %s", fault.Status, a.status, a.header, a.text)
		}
		for _, path := range [][2]string{{chatPath, chatBody}, {responsesPath, with(responseBody, `"stream":true`)}} {
			a = s.post(Mantle, path[0], path[1])
			if a.status != fault.Status || at(a.json, "error", "code") != tt.openAI || at(a.json, "error", "type") != tt.type_ || s.last().ErrorCode != tt.openAI || a.header.Get("X-Amzn-Errortype") != "" {
				t.Errorf("OpenAI's shape of %d: %d %s", fault.Status, a.status, a.text)
			}
		}
		a = s.post(Mantle, messagesPath, messagesBody)
		if a.status != fault.Status || at(a.json, "error", "type") != tt.anthropic || a.json["type"] != "error" || s.last().Status != fault.Status {
			t.Errorf("Anthropic's shape of %d: %d %s", fault.Status, a.status, a.text)
		}
	}
	fault = &Fault{Status: 502, Body: "<html>bad gateway</html>"}
	if a := s.post(Mantle, chatPath, chatBody); a.status != 502 || a.text != fault.Body || a.header.Get("Content-Type") != "text/html" {
		t.Errorf("a load balancer's error: %d %s", a.status, a.text)
	}
}

// A stream that fails says so in an event of its own, and its end is not there.
func TestFailedStreams(t *testing.T) {
	var fault Fault
	s := newStand(t, func(c *Config) { c.Fault = func(*http.Request) *Fault { f := fault; return &f } })
	for _, tt := range []struct{ path, body, exception, event, code, never string }{
		{chatPath, chatBody, "throttlingException", "", "rate_limit_exceeded", "[DONE]"},
		{chatPath, chatBody, "internalServerException", "", "internal_server_error", "[DONE]"},
		{responsesPath, responseBody, "internalServerException", "error", "internal_server_error", "response.completed"},
		{responsesPath, responseBody, "response.failed", "response.failed", "server_error", "response.completed"},
		{messagesPath, messagesBody, "serviceUnavailableException", "error", "overloaded_error", "message_stop"},
		{messagesPath, messagesBody, "api_error", "error", "api_error", "message_stop"},
	} {
		fault = Fault{Exception: tt.exception}
		a := s.post(Mantle, tt.path, with(tt.body, `"stream":true`))
		list, _ := events(t, a.text)
		last := list[len(list)-1]
		code := at(last.data, "error", "code")
		for _, other := range []any{at(last.data, "code"), at(last.data, "response", "error", "code"), at(last.data, "error", "type")} {
			if code == nil {
				code = other
			}
		}
		if a.status != 200 || last.name != tt.event || code != tt.code || strings.Contains(a.text, tt.never) || len(list) < 3 {
			t.Errorf("%s of %s ended with %s %v", tt.exception, tt.path, last.name, last.data)
		}
	}
	fault = Fault{Exception: "throttlingException"}
	stream, err := s.client.ConverseStream(t.Context(), &bedrockruntime.ConverseStreamInput{ModelId: aws.String("amazon.nova-lite-v1:0"),
		Messages: []types.Message{{Role: "user", Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "hi"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range stream.GetStream().Events() {
		n++
	}
	if err := stream.GetStream().Err(); codeOf(err) != "ThrottlingException" || n == 0 {
		t.Errorf("after %d events: %v", n, err)
	}
	fault = Fault{FailsLater: "no capacity"}
	made := s.post(Mantle, responsesPath, with(responseBody, `"background":true`))
	id, _ := made.json["id"].(string)
	for range 3 {
		made = s.ask("GET", Mantle, responsesPath+"/"+id, "")
	}
	if made.json["status"] != "failed" || at(made.json, "error", "message") != "no capacity" {
		t.Errorf("a background response that fails: %s", made.text)
	}
}

// A connection can break in the middle of an answer, or stand still.
func TestFaultsOfTheConnection(t *testing.T) {
	release := make(chan struct{})
	var fault Fault
	s := newStand(t, func(c *Config) { c.Fault = func(*http.Request) *Fault { f := fault; return &f } })
	body := with(chatBody, `"stream":true`)
	whole := s.post(Mantle, chatPath, body)
	for _, n := range []int{1, 100, len(whole.text) - 1} {
		fault = Fault{CutAfter: n}
		a := s.post(Mantle, chatPath, body)
		if a.text != whole.text[:n] || !errors.Is(a.err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %d and %v", n, len(a.text), a.err)
		}
	}
	fault = Fault{Stall: release, StallAfter: 120}
	before := len(s.world.Calls())
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url[Mantle]+chatPath, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer ABSK-key")
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	start := make([]byte, 120)
	if _, err := io.ReadFull(a.Body, start); err != nil || len(s.world.Calls()) != before {
		t.Errorf("the call was over while it stood still: %v", err)
	}
	close(release)
	rest, err := io.ReadAll(a.Body)
	if err != nil || string(start)+string(rest) != whole.text {
		t.Errorf("released, it ends with %v", err)
	}
	fault = Fault{Stall: release} // before its first byte; released already
	if a := s.post(Mantle, chatPath, body); a.text != whole.text {
		t.Errorf("a stall before the first byte: %d %s", a.status, a.text)
	}
}

// counted notes the sizes of what is written to it.
type counted struct {
	*httptest.ResponseRecorder
	sizes []int
}

func (c *counted) Write(p []byte) (int, error) {
	c.sizes = append(c.sizes, len(p))
	return c.ResponseRecorder.Write(p)
}

// An answer can come in drops, be long, and have as many chunks as one asks for.
func TestSizesOfAnswers(t *testing.T) {
	var fault Fault
	chunks := 0
	s := newStand(t, func(c *Config) {
		c.Fault = func(*http.Request) *Fault { f := fault; return &f }
		c.ChunksFor = func(Call) int { return chunks }
	})
	fault = Fault{Dribble: 7}
	for _, body := range []string{chatBody, with(chatBody, `"stream":true`)} {
		r := httptest.NewRequest("POST", chatPath, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer ABSK-key")
		rw := &counted{ResponseRecorder: httptest.NewRecorder()}
		s.world.Endpoint(Mantle).ServeHTTP(rw, r)
		if len(rw.sizes) < 10 {
			t.Errorf("it came in %d pieces", len(rw.sizes))
		}
		for _, n := range rw.sizes {
			if n > 7 {
				t.Errorf("a piece has %d bytes", n)
			}
		}
	}
	fault = Fault{}
	const claude = "/model/anthropic.claude-sonnet-4-6/invoke"
	const native = `{"anthropic_version":"bedrock-2023-05-31","max_tokens":900,"messages":[{"role":"user","content":"hi"}]}`
	text := func(a reply) int {
		for _, path := range [][]any{{"choices", 0, "message", "content"}, {"output", 1, "content", 0, "text"}, {"content", 0, "text"}} {
			if s, ok := at(a.json, path...).(string); ok {
				return len(s)
			}
		}
		return 0
	}
	for _, tt := range [][3]string{{Mantle, chatPath, chatBody}, {Mantle, responsesPath, responseBody}, {Mantle, messagesPath, messagesBody}, {Runtime, claude, native}} {
		short := text(s.post(tt[0], tt[1], tt[2]))
		fault = Fault{Padding: 100_003}
		if long := text(s.post(tt[0], tt[1], tt[2])); short == 0 || long != short+100_003 {
			t.Errorf("%s: %d characters became %d", tt[1], short, long)
		}
		fault = Fault{}
	}
	for _, chunks = range []int{1, 9} {
		list, _ := events(t, s.post(Mantle, messagesPath, with(messagesBody, `"stream":true`)).text)
		n := 0
		for _, e := range list {
			if e.name == "content_block_delta" {
				n++
			}
		}
		if n != chunks {
			t.Errorf("%d chunks, want %d", n, chunks)
		}
	}
	fault = Fault{NoTokenCount: true}
	if a := s.post(Runtime, claude, native); a.header.Get("X-Amzn-Bedrock-Input-Token-Count") != "" || a.status != 200 {
		t.Errorf("there are token counts: %v", a.header)
	}
	for _, fault = range []Fault{{}, {NoTokenCount: true}} {
		stream, err := s.client.InvokeModelWithResponseStream(t.Context(), &bedrockruntime.InvokeModelWithResponseStreamInput{ModelId: aws.String("anthropic.claude-sonnet-4-6"), Body: []byte(native)})
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for e := range stream.GetStream().Events() {
			chunk, _ := e.(*types.ResponseStreamMemberChunk)
			told = told || strings.Contains(string(chunk.Value.Bytes), "amazon-bedrock-invocationMetrics")
		}
		if told == fault.NoTokenCount {
			t.Errorf("there are metrics in a stream: %v", told)
		}
	}
}

// A search of the web is told in the usage, on bedrock-mantle.
func TestWebSearches(t *testing.T) {
	s := newStand(t, nil)
	search := with(messagesBody, `"tools":[{"type":"web_search_20250305","name":"web_search"}]`)
	for _, body := range []string{search, with(search, `"stream":true`)} {
		a := s.post(Mantle, messagesPath, body)
		told := at(a.json, "usage", "server_tool_use", "web_search_requests")
		if list, _ := events(t, a.text); len(list) > 0 {
			told = at(list[len(list)-2].data, "usage", "server_tool_use", "web_search_requests")
		}
		if n := s.last().Searches; n == 0 || told != float64(n) {
			t.Errorf("%v searches are told of %d", told, n)
		}
	}
	a := s.post(Mantle, responsesPath, with(responseBody, `"tools":[{"type":"web_search"}]`))
	queries, _ := at(a.json, "output", 0, "action", "queries").([]any)
	if n := s.last().Searches; n == 0 || int64(len(queries)) != n || at(a.json, "output", 0, "type") != "web_search_call" {
		t.Errorf("%d searches: %s", n, a.text)
	}
	for _, path := range [][2]string{{messagesPath, as(search, "us.anthropic.claude-sonnet-5")}, {responsesPath, as(with(responseBody, `"tools":[{"type":"web_search"}]`), "us.openai.gpt-5.6-sol")}} {
		if a := s.post(Runtime, path[0], path[1]); a.status != 400 {
			t.Errorf("on runtime: %d %s", a.status, a.text)
		}
	}
}
