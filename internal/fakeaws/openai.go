package fakeaws

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
)

var chatMembers = strings.Fields(`messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
	metadata modalities n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort response_format
	safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
	web_search_options amazon-bedrock-guardrailConfig chat_template_kwargs include_reasoning top_k min_p repetition_penalty`)

// function is a tool as Chat Completions has it.
type function struct {
	Type     string
	Function struct {
		Name       string
		Parameters schema
	}
}

// choice reads a tool_choice: a mode, or the name of a tool.
func choice(raw json.RawMessage) (mode, name string) {
	if raw == nil || string(raw) == "null" {
		return "auto", ""
	}
	if json.Unmarshal(raw, &mode) == nil {
		return mode, ""
	}
	var c struct {
		Type, Name string
		Function   struct{ Name string }
	}
	if json.Unmarshal(raw, &c) != nil {
		return "auto", ""
	}
	if c.Name == "" {
		c.Name = c.Function.Name
	}
	return c.Type, c.Name
}

// admitChat takes a call of Chat Completions.
func (x *exchange) admitChat() (answer, *refusal) {
	m, no := members(x.body, chatMembers)
	if no = first(x.large(), no); no != nil {
		return nil, no
	}
	var b struct {
		Model               string
		Messages            []struct{ Role string }
		MaxTokens           int64 `json:"max_tokens"`
		MaxCompletionTokens int64 `json:"max_completion_tokens"`
		N                   *int64
		Stream              bool
		StreamOptions       *struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		ServiceTier    string `json:"service_tier"`
		Tools          []function
		ToolChoice     json.RawMessage `json:"tool_choice"`
		ResponseFormat struct {
			Type       string
			JSONSchema struct{ Schema schema } `json:"json_schema"`
		} `json:"response_format"`
	}
	if err := json.Unmarshal(x.body, &b); err != nil {
		return nil, &refusal{400, "invalid_type", "Invalid type in the request: " + err.Error()}
	}
	x.call.Streamed = b.Stream
	if b.Model == "" {
		return nil, &refusal{400, "missing_required_parameter", "Missing required parameter: 'model'."}
	}
	if no := first(x.on(b.Model), x.bodyMetadata(m["metadata"]), x.serviceTier(b.ServiceTier)); no != nil {
		return nil, no
	}
	switch {
	case len(b.Messages) == 0:
		return nil, &refusal{400, "missing_required_parameter", "Missing required parameter: 'messages'."}
	case b.StreamOptions != nil && !b.Stream:
		return nil, &refusal{400, "invalid_value", "The 'stream_options' parameter is only allowed when 'stream' is enabled."}
	case b.N != nil && *b.N != 1:
		return nil, &refusal{400, "unsupported_value", "Unsupported value: 'n': only 1 is supported."}
	}
	for _, message := range b.Messages {
		if !contains([]string{"system", "developer", "user", "assistant", "tool", "function"}, message.Role) {
			return nil, &refusal{400, "invalid_value", "Invalid value for 'messages.role': '" + message.Role + "'."}
		}
	}
	g := generate(x.body, "")
	g.limit, g.format, g.json = max(b.MaxTokens, b.MaxCompletionTokens), b.ResponseFormat.JSONSchema.Schema, b.ResponseFormat.Type == "json_object"
	for _, t := range b.Tools {
		if t.Type != "function" || t.Function.Name == "" {
			return nil, &refusal{400, "invalid_value", "Invalid value for 'tools': a tool is a function with a name."}
		}
		g.tools = append(g.tools, tool{t.Function.Name, t.Function.Parameters})
	}
	mode, name := choice(b.ToolChoice)
	if no := g.choose(mode, name, b.Messages[len(b.Messages)-1].Role == "user"); no != nil {
		return nil, no
	}
	if x.call.Endpoint == Runtime { // bedrock-mantle takes the headers and ignores them
		h := x.r.Header
		if g.guard, no = x.guarded(h.Get("X-Amzn-Bedrock-Guardrailidentifier"), h.Get("X-Amzn-Bedrock-Guardrailversion"), h.Get("X-Amzn-Bedrock-Trace")); no != nil {
			return nil, no
		}
		if g.guard.look(without(x.body, unseen...)) {
			g.blocked, g.calls = true, nil
		}
	}
	return func(x *exchange) bool {
		g.useOpenAI(x)
		g.said = g.guard.pieces(x, g.prose(x))
		if b.Stream {
			return g.chatStream(x, b.StreamOptions != nil && b.StreamOptions.IncludeUsage)
		}
		return x.json(g.chat(x))
	}, nil
}

// first is the first of some refusals, if any.
func first(list ...*refusal) *refusal {
	for _, no := range list {
		if no != nil {
			return no
		}
	}
	return nil
}

func chatUsage(c *Call) obj {
	in := c.InputTokens + c.CacheRead + c.CacheWrite30m
	details := obj{"cached_tokens": c.CacheRead, "audio_tokens": 0}
	if c.CacheWrite30m > 0 {
		details["cache_write_tokens"] = c.CacheWrite30m
	}
	return obj{"prompt_tokens": in, "completion_tokens": c.OutputTokens, "total_tokens": in + c.OutputTokens, "prompt_tokens_details": details,
		"completion_tokens_details": obj{"reasoning_tokens": c.Reasoning, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}}
}

func (g *generation) finish() string {
	switch {
	case g.blocked:
		return "content_filter"
	case g.cut:
		return "length"
	case g.calls != nil:
		return "tool_calls"
	}
	return "stop"
}

func (g *generation) head(x *exchange, object string) obj {
	return obj{"id": g.id("chatcmpl-", 32), "object": object, "created": x.w.moment(), "model": x.call.ModelID, "service_tier": x.call.Tier, "system_fingerprint": g.id("fp_", 10)}
}

// chat is a chat completion.
func (g *generation) chat(x *exchange) obj {
	message := obj{"role": "assistant", "content": nil, "refusal": nil, "annotations": []any{}}
	if g.calls != nil {
		message["tool_calls"] = []any{obj{"id": g.id("call_", 24), "type": "function", "function": obj{"name": g.calls.name, "arguments": g.arguments()}}}
	} else {
		message["content"] = strings.Join(g.said, "")
	}
	out := g.head(x, "chat.completion")
	out["choices"] = []any{obj{"index": 0, "message": message, "logprobs": nil, "finish_reason": g.finish()}}
	out["usage"] = chatUsage(x.call)
	g.guard.tell(out)
	return out
}

// chatStream is the same in chunks. The one with the usage, which has no choices, is sent
// only if it is asked for, and the others then say that they have none.
func (g *generation) chatStream(x *exchange, withUsage bool) (left bool) {
	x.call.ResponseBody = encode(g.chat(x))
	var messages [][]byte
	add := func(choices []any, usage any) {
		c := g.head(x, "chat.completion.chunk")
		c["choices"] = choices
		if withUsage {
			c["usage"] = usage
		}
		messages = append(messages, sse("", c))
	}
	delta := func(d obj, finish any) {
		add([]any{obj{"index": 0, "delta": d, "logprobs": nil, "finish_reason": finish}}, nil)
	}
	if g.calls != nil {
		delta(obj{"role": "assistant", "content": nil, "refusal": nil, "tool_calls": []any{obj{"index": 0, "id": g.id("call_", 24), "type": "function", "function": obj{"name": g.calls.name, "arguments": ""}}}}, nil)
		for _, piece := range split(g.arguments(), x.chunks()) {
			delta(obj{"tool_calls": []any{obj{"index": 0, "function": obj{"arguments": piece}}}}, nil)
		}
	} else {
		delta(obj{"role": "assistant", "content": "", "refusal": nil}, nil)
		for _, piece := range g.said {
			delta(obj{"content": piece}, nil)
		}
	}
	if delta(obj{}, g.finish()); g.guard != nil {
		c := g.head(x, "chat.completion.chunk")
		c["choices"] = []any{obj{"index": 0, "delta": obj{}, "logprobs": nil, "finish_reason": g.finish()}}
		if withUsage {
			c["usage"] = nil
		}
		g.guard.tell(c)
		messages[len(messages)-1] = sse("", c)
	}
	if withUsage {
		add([]any{}, chatUsage(x.call))
	}
	messages = append(messages, []byte("data: [DONE]\n\n"))
	return x.stream("text/event-stream; charset=utf-8", messages, sse("", obj{"error": obj{"message": "the stream failed", "type": "server_error", "code": streamError(x.fault.Exception, openAICode), "param": nil}}))
}

// admitEmbeddings takes a call of Embeddings.
func (x *exchange) admitEmbeddings() (answer, *refusal) {
	_, no := members(x.body, []string{"model", "input", "dimensions", "encoding_format", "user"})
	if no = first(x.large(), no); no != nil {
		return nil, no
	}
	var b struct {
		Model, EncodingFormat string
		Format                string `json:"encoding_format"`
		Dimensions            int
		Input                 json.RawMessage
	}
	if err := json.Unmarshal(x.body, &b); err != nil {
		return nil, &refusal{400, "invalid_type", "Invalid type in the request: " + err.Error()}
	}
	if b.Model == "" || b.Input == nil {
		return nil, &refusal{400, "missing_required_parameter", "Missing required parameter: 'model' or 'input'."}
	}
	if no := x.on(b.Model); no != nil {
		return nil, no
	}
	var texts []string
	var tokens [][]int
	var one string
	var numbers []int
	switch {
	case json.Unmarshal(b.Input, &one) == nil:
		texts = []string{one}
	case json.Unmarshal(b.Input, &texts) == nil:
	case json.Unmarshal(b.Input, &numbers) == nil:
		texts = []string{string(b.Input)}
	case json.Unmarshal(b.Input, &tokens) == nil:
		for _, t := range tokens {
			texts = append(texts, string(encode(t)))
		}
	}
	if len(texts) == 0 || len(texts) > 2048 || b.Dimensions < 0 || b.Dimensions > 4096 || !contains([]string{"", "float", "base64"}, b.Format) {
		return nil, &refusal{400, "invalid_value", "Invalid value for 'input', 'dimensions' or 'encoding_format'."}
	}
	if b.Dimensions == 0 {
		b.Dimensions = 16
	}
	return func(x *exchange) bool {
		data := make([]any, len(texts))
		for i, text := range texts {
			x.call.InputTokens += int64(len(text))/4 + 1
			vector := direction(generate(encode(obj{"input": text}), "").seed, b.Dimensions)
			data[i] = obj{"object": "embedding", "index": i, "embedding": vector}
			if b.Format == "base64" {
				var raw []byte
				for _, v := range vector {
					raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
				}
				data[i] = obj{"object": "embedding", "index": i, "embedding": base64.StdEncoding.EncodeToString(raw)}
			}
		}
		x.w.scale(x.call)
		return x.json(obj{"object": "list", "data": data, "model": b.Model, "usage": obj{"prompt_tokens": x.call.InputTokens, "total_tokens": x.call.InputTokens}})
	}, nil
}

// direction is a vector of length one, or nearly.
func direction(seed uint64, n int) []float32 {
	raw, sum := make([]float64, n), 0.0
	for i := range raw {
		seed = seed*6364136223846793005 + 1442695040888963407
		raw[i] = float64(int64(seed>>40)%2001)/1000 - 1
		sum += raw[i] * raw[i]
	}
	out := make([]float32, n)
	for i := range raw {
		out[i] = float32(raw[i] / math.Sqrt(max(sum, 1e-9)))
	}
	return out
}
