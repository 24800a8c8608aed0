package fakeaws

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

var messagesMembers = strings.Fields(`model max_tokens messages system temperature top_p top_k tools tool_choice stop_sequences stream thinking metadata
	service_tier container context_management mcp_servers output_config output_format inference_geo cache_control`)

// admitMessages takes a call of Messages, or of its count of tokens.
func (x *exchange) admitMessages() (answer, *refusal) {
	counting := x.route.operation == "CountTokens"
	bad := func(text string) (answer, *refusal) {
		return nil, &refusal{400, "invalid_request_error", text}
	}
	if no := x.large(); no != nil {
		return nil, no
	}
	m, no := members(x.body, append([]string{}, messagesMembers...))
	if no != nil {
		name := strings.TrimSuffix(strings.TrimPrefix(no.message, "Unknown parameter: '"), "'.")
		if name == no.message {
			return bad(no.message)
		}
		return bad(name + ": Extra inputs are not permitted")
	}
	if x.r.Header.Get("Anthropic-Version") == "" {
		return bad("anthropic-version: header is required")
	}
	// AWS documents 2023-06-01; Anthropic's own clients have moved on to later days.
	if v := x.r.Header.Get("Anthropic-Version"); !isDay(v) {
		return bad("anthropic-version: \"" + v + "\" is not a valid version for this endpoint")
	}
	var b struct {
		Model     string
		MaxTokens *int64 `json:"max_tokens"`
		Messages  []struct {
			Role    string
			Content json.RawMessage
		}
		Stream   bool
		Thinking struct{ Type string }
		Metadata map[string]any
		Tools    []struct {
			Type, Name  string
			InputSchema schema `json:"input_schema"`
		}
		ToolChoice   json.RawMessage `json:"tool_choice"`
		ServiceTier  string          `json:"service_tier"`
		OutputConfig struct {
			Format struct{ Schema schema }
		} `json:"output_config"`
	}
	if err := json.Unmarshal(x.body, &b); err != nil {
		return bad("Invalid type in the request: " + err.Error())
	}
	x.call.Streamed = b.Stream
	if b.Model == "" {
		return bad("model: Field required")
	}
	if no := x.on(b.Model); no != nil {
		return nil, no
	}
	switch {
	case counting && (b.MaxTokens != nil || m["stream"] != nil || m["metadata"] != nil):
		return bad("max_tokens: Extra inputs are not permitted")
	case !counting && b.MaxTokens == nil:
		return bad("max_tokens: Field required")
	case !counting && *b.MaxTokens < 1:
		return bad("max_tokens: Input should be greater than or equal to 1")
	case len(b.Messages) == 0:
		return bad("messages: at least one message is required")
	case b.Messages[0].Role != "user":
		return bad("messages: first message must use the \"user\" role")
	case !contains([]string{"", "auto", "standard_only"}, b.ServiceTier):
		return bad("service_tier: Input should be 'auto' or 'standard_only'")
	}
	for _, message := range b.Messages {
		if message.Role != "user" && message.Role != "assistant" {
			return bad("messages: Unexpected role \"" + message.Role + "\"")
		}
	}
	for k, v := range b.Metadata {
		text, ok := v.(string)
		if k != "user_id" {
			return bad("metadata." + k + ": Extra inputs are not permitted")
		}
		if !ok && v != nil || len(text) > 256 {
			return bad("metadata.user_id: Input should be a valid string of at most 256 characters")
		}
		x.call.BodyMetadata = map[string]string{k: text}
	}
	g := generate(x.body, `"cache_control"`)
	g.thinking, g.format = b.Thinking.Type == "enabled" || b.Thinking.Type == "adaptive", b.OutputConfig.Format.Schema
	if counting {
		return func(x *exchange) bool {
			return x.json(obj{"input_tokens": (g.text/4 + 3) * x.w.config.Scale})
		}, nil
	}
	g.limit = *b.MaxTokens
	for _, t := range b.Tools {
		switch { // others run on the client's side too, or change nothing here
		case (t.Type == "" || t.Type == "custom") && t.InputSchema != nil:
			g.tools = append(g.tools, tool{t.Name, t.InputSchema})
		case strings.HasPrefix(t.Type, "web_search_") && x.call.Endpoint == Runtime:
			return bad("tools: '" + t.Type + "' is not supported on this endpoint")
		case strings.HasPrefix(t.Type, "web_search_"):
			g.searches = 1 + int64(g.seed>>11%2)
		}
	}
	last := b.Messages[len(b.Messages)-1]
	mode, name := choice(b.ToolChoice)
	if mode == "any" {
		mode = "required"
	}
	if no := g.choose(mode, name, last.Role == "user" && !strings.Contains(string(last.Content), `"tool_result"`)); no != nil {
		return bad(no.message)
	}
	return func(x *exchange) bool {
		g.useAnthropic(x)
		x.call.Searches = g.searches
		if b.Stream {
			return g.messageStream(x)
		}
		out := g.message(x)
		out["content"], out["stop_reason"], out["usage"] = g.blocks(x), g.stopReason(), messagesUsage(x.call, x.call.OutputTokens)
		return x.json(out)
	}, nil
}

func (g *generation) stopReason() string {
	switch {
	case g.cut:
		return "max_tokens"
	case g.calls != nil:
		return "tool_use"
	}
	return "end_turn"
}

func messagesUsage(c *Call, output int64) obj {
	u := claudeUsage(c, output)
	u["service_tier"] = "standard"
	if c.Searches > 0 {
		u["server_tool_use"] = obj{"web_search_requests": c.Searches}
	}
	return u
}

func (g *generation) message(x *exchange) obj {
	return obj{"id": g.id("msg_bdrk_", 24), "type": "message", "role": "assistant", "model": x.call.BaseModel, "content": []any{}, "stop_reason": nil, "stop_sequence": nil}
}

// blocks are the content of a message.
func (g *generation) blocks(x *exchange) []any {
	var out []any
	if g.thinking {
		out = append(out, obj{"type": "thinking", "thinking": words(^g.seed, 1)[0], "signature": g.id("", 64)})
	}
	for i := range g.searches {
		id := g.id(fmt.Sprintf("srvtoolu_bdrk_%d", i), 22)
		out = append(out, obj{"type": "server_tool_use", "id": id, "name": "web_search", "input": obj{"query": strings.TrimSpace(words(g.seed+uint64(i), 1)[0])}},
			obj{"type": "web_search_tool_result", "tool_use_id": id, "content": []any{}})
	}
	if g.calls != nil {
		return append(out, obj{"type": "tool_use", "id": g.id("toolu_bdrk_", 24), "name": g.calls.name, "input": json.RawMessage(g.arguments())})
	}
	return append(out, obj{"type": "text", "text": strings.Join(g.prose(x), "")})
}

// messageStream is the message event by event. Its message_delta says the output so far,
// and in some streams the input once more.
func (g *generation) messageStream(x *exchange) (left bool) {
	c := x.call
	whole := g.message(x)
	blocks := g.blocks(x)
	whole["content"], whole["stop_reason"], whole["usage"] = blocks, g.stopReason(), messagesUsage(c, c.OutputTokens)
	c.ResponseBody = encode(whole)
	var messages [][]byte
	add := func(kind string, o obj) {
		o["type"] = kind
		messages = append(messages, sse(kind, o))
	}
	start := g.message(x)
	start["usage"] = messagesUsage(c, 1)
	if c.Searches > 0 { // they are not known yet
		start["usage"] = messagesUsage(&Call{InputTokens: c.InputTokens, CacheRead: c.CacheRead, CacheWrite5m: c.CacheWrite5m, CacheWrite1h: c.CacheWrite1h}, 1)
	}
	add("message_start", obj{"message": start})
	for i, block := range blocks {
		b, _ := block.(obj)
		delta := func(kind, member, piece string) {
			add("content_block_delta", obj{"index": i, "delta": obj{"type": kind, member: piece}})
		}
		open := func(o obj) {
			add("content_block_start", obj{"index": i, "content_block": o})
			if i == 0 {
				add("ping", obj{})
			}
		}
		switch b["type"] {
		case "thinking":
			open(obj{"type": "thinking", "thinking": "", "signature": ""})
			delta("thinking_delta", "thinking", words(^g.seed, 1)[0])
			delta("signature_delta", "signature", g.id("", 64))
		case "server_tool_use":
			open(obj{"type": "server_tool_use", "id": b["id"], "name": b["name"], "input": obj{}})
			delta("input_json_delta", "partial_json", string(encode(b["input"])))
		case "web_search_tool_result":
			open(b)
		case "tool_use":
			open(obj{"type": "tool_use", "id": b["id"], "name": b["name"], "input": obj{}})
			delta("input_json_delta", "partial_json", "")
			for _, piece := range split(g.arguments(), x.chunks()) {
				delta("input_json_delta", "partial_json", piece)
			}
		default:
			open(obj{"type": "text", "text": ""})
			for _, piece := range g.prose(x) {
				delta("text_delta", "text", piece)
			}
		}
		add("content_block_stop", obj{"index": i})
	}
	usage := obj{"output_tokens": c.OutputTokens}
	if c.Searches > 0 {
		usage["server_tool_use"] = obj{"web_search_requests": c.Searches}
	}
	if g.seed&1 == 0 {
		usage = messagesUsage(c, c.OutputTokens)
		delete(usage, "service_tier")
	}
	add("message_delta", obj{"delta": obj{"stop_reason": g.stopReason(), "stop_sequence": nil}, "usage": usage})
	add("message_stop", obj{})
	kind := streamError(x.fault.Exception, anthropicError)
	return x.stream("text/event-stream; charset=utf-8", messages, sse("error", obj{"type": "error", "error": obj{"type": kind, "message": "the stream failed"}, "request_id": c.RequestID}))
}

func isDay(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}
