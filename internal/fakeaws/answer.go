package fakeaws

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// use makes up the usage of a call: it depends on its body alone.
func (a *admitted) use(call *Call) {
	if a.blocked {
		return
	}
	total := a.text/4 + 3
	if a.cached > 0 {
		part := a.cached / 4
		total -= part
		switch {
		case a.seed%3 == 0 && a.hour:
			call.CacheWrite1h = part
		case a.seed%3 == 0:
			call.CacheWrite5m = part
		default:
			call.CacheRead = part
		}
	}
	switch a.family.makes {
	case "image", "ranking":
		call.CacheRead, call.CacheWrite5m, call.CacheWrite1h = 0, 0, 0
		return
	}
	call.InputTokens = max(total, 1)
	if a.family.makes == "vector" {
		return
	}
	limit := a.maxTokens
	if limit <= 0 {
		limit = 512
	}
	call.OutputTokens = min(limit, 20+int64(a.seed>>8%400))
}

var vocabulary = strings.Fields("freight ledger invoice carrier pallet manifest weight origin route parcel depot quay label seal lading tariff berth crane hull cargo")

// words are the pieces of an answer, made up from the seed.
func words(seed uint64, n int) []string {
	out := make([]string, n)
	s := seed
	for i := range out {
		var b strings.Builder
		for range 5 {
			s = s*6364136223846793005 + 1442695040888963407
			b.WriteString(vocabulary[s>>33%uint64(len(vocabulary))] + " ")
		}
		out[i] = b.String()
	}
	return out
}

func (a *admitted) stopReason() string {
	if a.blocked {
		return "guardrail_intervened"
	}
	return "end_turn"
}

func pad(seed uint64, i int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return letters[:1+(seed>>uint(i%32))%60]
}

// scale multiplies the usage of a call as the world has it.
func (w *World) scale(call *Call) {
	for _, n := range []*int64{&call.InputTokens, &call.OutputTokens, &call.Reasoning, &call.CacheRead, &call.CacheWrite5m, &call.CacheWrite1h, &call.CacheWrite30m} {
		*n *= w.config.Scale
	}
}

// answer sends the answer of an operation on a model. The usage is the same whether the
// client stays or not: what was generated is billed.
func (a *admitted) answer(x *exchange) (left bool) {
	call := x.call
	a.use(call)
	x.w.scale(call)
	if call.Streamed {
		return a.stream(x)
	}
	var body any
	text := strings.Join(a.guard.pieces(x, x.words(a.seed)), "")
	h := x.rw.Header()
	if a.converse {
		content, stop := a.content(text)
		if a.blocked {
			stop = a.stopReason()
		}
		answer := obj{"output": obj{"message": obj{"role": "assistant", "content": content}}, "stopReason": stop,
			"usage": converseUsage(call), "metrics": obj{"latencyMs": 100 + a.seed%900}, "serviceTier": obj{"type": call.Tier}}
		if t := a.guard.converse(); t != nil {
			answer["trace"] = t
		}
		body = answer
	} else {
		counted := !x.fault.NoTokenCount && call.InputTokens > 0
		if counted {
			h.Set("X-Amzn-Bedrock-Input-Token-Count", fmt.Sprint(call.InputTokens))
		}
		if counted && a.family.makes == "text" {
			h.Set("X-Amzn-Bedrock-Output-Token-Count", fmt.Sprint(call.OutputTokens))
		}
		if counted && a.cached > 0 {
			h.Set("X-Amzn-Bedrock-Cache-Read-Input-Token-Count", fmt.Sprint(call.CacheRead))
			h.Set("X-Amzn-Bedrock-Cache-Write-Input-Token-Count", fmt.Sprint(call.CacheWrite5m+call.CacheWrite1h))
		}
		h.Set("X-Amzn-Bedrock-Invocation-Latency", fmt.Sprint(100+a.seed%900))
		if call.Tier != "default" {
			h.Set("X-Amzn-Bedrock-Service-Tier", call.Tier)
		}
		if call.LatencyMode == "optimized" {
			h.Set("X-Amzn-Bedrock-PerformanceConfig-Latency", "optimized")
		}
		answer := a.invokeBody(text, call)
		a.guard.tell(answer)
		body = answer
	}
	return x.json(body)
}

type obj map[string]any

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // made of strings and numbers above
	}
	return b
}

func converseUsage(c *Call) obj {
	u := obj{"inputTokens": c.InputTokens, "outputTokens": c.OutputTokens, "totalTokens": c.InputTokens + c.OutputTokens + c.CacheRead + c.CacheWrite5m + c.CacheWrite1h}
	if c.CacheRead+c.CacheWrite5m+c.CacheWrite1h > 0 {
		u["cacheReadInputTokens"], u["cacheWriteInputTokens"] = c.CacheRead, c.CacheWrite5m+c.CacheWrite1h
		details := []any{}
		if c.CacheWrite1h > 0 {
			details = append(details, obj{"ttl": "1h", "inputTokens": c.CacheWrite1h})
		}
		if c.CacheWrite5m > 0 {
			details = append(details, obj{"ttl": "5m", "inputTokens": c.CacheWrite5m})
		}
		u["cacheDetails"] = details
	}
	return u
}

func claudeUsage(c *Call, output int64) obj {
	return obj{"input_tokens": c.InputTokens, "output_tokens": output, "cache_creation_input_tokens": c.CacheWrite5m + c.CacheWrite1h, "cache_read_input_tokens": c.CacheRead,
		"cache_creation": obj{"ephemeral_5m_input_tokens": c.CacheWrite5m, "ephemeral_1h_input_tokens": c.CacheWrite1h}}
}

func (a *admitted) invokeBody(text string, c *Call) obj {
	switch a.family.name {
	case "claude":
		content, stop := a.claudeContent(text)
		return obj{"id": fmt.Sprintf("msg_bdrk_%016x", a.seed), "type": "message", "role": "assistant", "model": "claude",
			"content": content, "stop_reason": stop, "usage": claudeUsage(c, c.OutputTokens)}
	case "nova":
		return obj{"output": obj{"message": obj{"role": "assistant", "content": []any{obj{"text": text}}}}, "stopReason": "end_turn",
			"usage": obj{"inputTokens": c.InputTokens, "outputTokens": c.OutputTokens, "totalTokens": c.InputTokens + c.OutputTokens,
				"cacheReadInputTokenCount": c.CacheRead, "cacheWriteInputTokenCount": c.CacheWrite5m}}
	case "llama":
		return obj{"generation": text, "prompt_token_count": c.InputTokens, "generation_token_count": c.OutputTokens, "stop_reason": "stop"}
	}
	if a.family.name != "embed" {
		return a.body(text, c)
	}
	vector := make([]float64, 16)
	for i := range vector {
		vector[i] = float64(int64(a.seed>>uint(i))%1000) / 1000
	}
	return obj{"embedding": vector, "inputTextTokenCount": c.InputTokens}
}

// stream sends an event stream.
func (a *admitted) stream(x *exchange) (left bool) {
	if !a.converse {
		x.rw.Header().Set("X-Amzn-Bedrock-Content-Type", "application/json")
	}
	events, log := a.events(x)
	x.call.ResponseBody = encode(log)
	frames := make([][]byte, len(events))
	for i, e := range events {
		frames[i] = Frame("event", e.kind, e.payload)
	}
	failed := Frame("exception", x.fault.Exception, encode(obj{"message": "the stream failed"}))
	return x.stream("application/vnd.amazon.eventstream", frames, failed)
}

type streamEvent struct {
	kind    string
	payload []byte
}

// events are the messages of a stream, and its answer as the log keeps it.
func (a *admitted) events(x *exchange) (events []streamEvent, log any) {
	words, c := a.guard.pieces(x, x.words(a.seed)), x.call
	latency := 100 + a.seed%900
	if a.converse {
		add := func(kind string, o obj) {
			o["p"] = pad(a.seed, len(events))
			events = append(events, streamEvent{kind, encode(o)})
		}
		add("messageStart", obj{"role": "assistant"})
		for _, t := range words {
			add("contentBlockDelta", obj{"contentBlockIndex": 0, "delta": obj{"text": t}})
		}
		add("contentBlockStop", obj{"contentBlockIndex": 0})
		add("messageStop", obj{"stopReason": a.stopReason()})
		metadata := obj{"usage": converseUsage(c), "metrics": obj{"latencyMs": latency}, "serviceTier": obj{"type": c.Tier}}
		if t := a.guard.converse(); t != nil {
			metadata["trace"] = t
		}
		add("metadata", metadata)
		return events, obj{"output": obj{"message": obj{"role": "assistant", "content": []any{obj{"text": strings.Join(words, "")}}}},
			"stopReason": a.stopReason(), "metrics": obj{"latencyMs": latency}, "usage": converseUsage(c)}
	}
	metrics := obj{"inputTokenCount": c.InputTokens, "outputTokenCount": c.OutputTokens, "invocationLatency": latency, "firstByteLatency": latency / 3}
	if a.cached > 0 {
		metrics["cacheReadInputTokenCount"], metrics["cacheWriteInputTokenCount"] = c.CacheRead, c.CacheWrite5m+c.CacheWrite1h
	}
	var parts []any
	switch a.family.name {
	case "claude":
		parts = append(parts, obj{"type": "message_start", "message": obj{"id": fmt.Sprintf("msg_bdrk_%016x", a.seed), "type": "message", "role": "assistant", "content": []any{}, "usage": claudeUsage(c, 1)}},
			obj{"type": "content_block_start", "index": 0, "content_block": obj{"type": "text", "text": ""}})
		for _, t := range words {
			parts = append(parts, obj{"type": "content_block_delta", "index": 0, "delta": obj{"type": "text_delta", "text": t}})
		}
		parts = append(parts, obj{"type": "content_block_stop", "index": 0},
			obj{"type": "message_delta", "delta": obj{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": obj{"output_tokens": max(c.OutputTokens-1, 1)}},
			obj{"type": "message_stop"})
	case "nova":
		parts = append(parts, obj{"messageStart": obj{"role": "assistant"}})
		for _, t := range words {
			parts = append(parts, obj{"contentBlockDelta": obj{"delta": obj{"text": t}, "contentBlockIndex": 0}})
		}
		parts = append(parts, obj{"messageStop": obj{"stopReason": "end_turn"}},
			obj{"metadata": obj{"usage": converseUsage(c), "metrics": obj{}}})
	case "llama":
		for i, t := range words {
			p := obj{"generation": t, "prompt_token_count": nil, "generation_token_count": i + 1, "stop_reason": nil}
			if i == 0 {
				p["prompt_token_count"] = c.InputTokens
			}
			parts = append(parts, p)
		}
		parts = append(parts, obj{"generation": "", "prompt_token_count": nil, "generation_token_count": c.OutputTokens, "stop_reason": "stop"})
	default:
		parts = a.parts(words, c)
	}
	a.guard.tell(parts[len(parts)-1])
	if last, ok := parts[len(parts)-1].(obj); ok && !x.fault.NoTokenCount {
		last["amazon-bedrock-invocationMetrics"] = metrics
	}
	for i, p := range parts {
		events = append(events, streamEvent{"chunk", encode(obj{"bytes": base64.StdEncoding.EncodeToString(encode(p)), "p": pad(a.seed, i)})})
	}
	return events, parts
}
