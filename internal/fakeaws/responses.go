package fakeaws

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
)

var responsesMembers = strings.Fields(`background conversation include input instructions max_output_tokens max_tool_calls metadata model parallel_tool_calls
	previous_response_id prompt prompt_cache_key prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature
	text tool_choice tools top_logprobs top_p truncation user`)

// A storedResponse is a Response that can be asked for again.
type storedResponse struct {
	requestID  string // of the call that made it
	final      obj
	events     [][]byte
	background bool
	streamed   bool
	gets       int // how many more it is not done for
	status     string
}

// A responseRequest is the body of a call that makes a Response, or compacts some.
type responseRequest struct {
	Model           string
	Input           json.RawMessage
	Previous        string `json:"previous_response_id"`
	MaxOutputTokens int64  `json:"max_output_tokens"`
	Background      bool
	Store           *bool
	Stream          bool
	StreamOptions   json.RawMessage `json:"stream_options"`
	ServiceTier     string          `json:"service_tier"`
	Tools           []struct {
		Type, Name string
		Parameters schema
	}
	ToolChoice json.RawMessage `json:"tool_choice"`
	Text       struct {
		Format struct {
			Type   string
			Schema schema
		}
	}
	searches bool
	members  map[string]json.RawMessage
}

// admitResponses takes a call that makes a Response, or compacts a conversation.
func (x *exchange) admitResponses() (answer, *refusal) {
	compact := x.route.operation == "CompactResponse"
	known := responsesMembers
	if compact {
		known = []string{"model", "input", "instructions", "previous_response_id", "prompt_cache_key"}
	}
	m, no := members(x.body, known)
	if no = first(x.large(), no); no != nil {
		return nil, no
	}
	b := &responseRequest{members: m}
	if err := json.Unmarshal(x.body, b); err != nil {
		return nil, &refusal{400, "invalid_type", "Invalid type in the request: " + err.Error()}
	}
	x.call.Streamed = b.Stream
	if b.Model == "" {
		return nil, &refusal{400, "missing_required_parameter", "Missing required parameter: 'model'."}
	}
	if no := first(x.on(b.Model), x.bodyMetadata(m["metadata"]), x.serviceTier(b.ServiceTier)); no != nil {
		return nil, no
	}
	stored := b.Store == nil || *b.Store
	switch {
	case b.Background && x.call.Endpoint == Runtime:
		return nil, &refusal{400, "unsupported_parameter", "Unsupported parameter: 'background' is not supported on this endpoint."}
	case b.Background && !stored:
		return nil, &refusal{400, "invalid_value", "Background mode requires 'store' to be true."}
	case b.StreamOptions != nil && !b.Stream:
		return nil, &refusal{400, "invalid_value", "The 'stream_options' parameter is only allowed when 'stream' is enabled."}
	case b.Input == nil && b.Previous == "":
		return nil, &refusal{400, "missing_required_parameter", "Missing required parameter: 'input'."}
	}
	if b.Previous != "" && x.w.stored(x.key(b.Previous)) == nil {
		return nil, x.noResponse(b.Previous)
	}
	g := generate(x.body, "")
	if compact {
		return g.compact, nil
	}
	g.limit, g.format, g.json = b.MaxOutputTokens, b.Text.Format.Schema, b.Text.Format.Type == "json_object"
	for _, t := range b.Tools {
		switch {
		case t.Type == "function" && t.Name != "":
			g.tools = append(g.tools, tool{t.Name, t.Parameters})
		case strings.HasPrefix(t.Type, "web_search") && x.call.Endpoint == Mantle:
			b.searches = true
		default:
			return nil, &refusal{400, "unsupported_value", "Unsupported tool: '" + t.Type + "'."}
		}
	}
	users, no := b.usersTurn()
	if no != nil {
		return nil, no
	}
	mode, name := choice(b.ToolChoice)
	if no := g.choose(mode, name, users); no != nil {
		return nil, no
	}
	return func(x *exchange) bool { return g.respond(x, b, stored) }, nil
}

// usersTurn reports whether the last of the input is the user's, and not a tool's result.
func (b *responseRequest) usersTurn() (bool, *refusal) {
	var text string
	if b.Input == nil || json.Unmarshal(b.Input, &text) == nil {
		return true, nil
	}
	var items []struct{ Type, Role string }
	if json.Unmarshal(b.Input, &items) != nil || len(items) == 0 {
		return false, &refusal{400, "invalid_type", "Invalid type for 'input': expected a string or an array of items."}
	}
	return items[len(items)-1].Role == "user", nil
}

// key is where a Response is kept: those of another account, Region or endpoint are not
// to be seen.
func (x *exchange) key(id string) string {
	return x.call.Endpoint + "/" + x.call.Account + "/" + x.call.Region + "/" + id
}

func (w *World) stored(key string) *storedResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.responses[key]
}

func (x *exchange) noResponse(id string) *refusal {
	return &refusal{404, "not_found", "Response with id '" + id + "' not found."}
}

func responseUsage(c *Call) obj {
	in := c.InputTokens + c.CacheRead + c.CacheWrite30m
	details := obj{"cached_tokens": c.CacheRead}
	if c.CacheWrite30m > 0 {
		details["cache_write_tokens"] = c.CacheWrite30m
	}
	return obj{"input_tokens": in, "input_tokens_details": details, "output_tokens": c.OutputTokens,
		"output_tokens_details": obj{"reasoning_tokens": c.Reasoning}, "total_tokens": in + c.OutputTokens}
}

// output is what a Response holds: a search, some reasoning that is not shown, and either
// a call of a function or a message.
func (g *generation) responseOutput(x *exchange, b *responseRequest) []any {
	var out []any
	if b.searches {
		queries := []string{}
		for i := range 1 + g.seed>>11%2 {
			queries = append(queries, strings.TrimSpace(words(g.seed+i, 1)[0]))
		}
		x.call.Searches = int64(len(queries))
		out = append(out, obj{"type": "web_search_call", "id": g.id("ws_", 48), "status": "completed", "action": obj{"type": "search", "query": queries[0], "queries": queries}})
	}
	out = append(out, obj{"type": "reasoning", "id": g.id("rs_", 48), "summary": []any{}})
	if g.calls != nil {
		return append(out, obj{"type": "function_call", "id": g.id("fc_", 48), "call_id": g.id("call_", 24), "name": g.calls.name, "arguments": g.arguments(), "status": "completed"})
	}
	status := "completed"
	if g.cut {
		status = "incomplete"
	}
	return append(out, obj{"type": "message", "id": g.id("msg_", 48), "status": status, "role": "assistant",
		"content": []any{obj{"type": "output_text", "text": strings.Join(g.prose(x), ""), "annotations": []any{}, "logprobs": []any{}}}})
}

// response is the object that a Response is, when it is done.
func (g *generation) response(x *exchange, b *responseRequest, stored bool) obj {
	out := obj{"id": g.id("resp_", 48), "object": "response", "created_at": x.w.moment(), "status": "completed", "background": b.Background, "error": nil,
		"incomplete_details": nil, "model": b.Model, "output": g.responseOutput(x, b), "service_tier": x.call.Tier, "store": stored, "usage": responseUsage(x.call)}
	defaults := obj{"instructions": nil, "max_output_tokens": nil, "metadata": obj{}, "parallel_tool_calls": true, "previous_response_id": nil,
		"reasoning": obj{"effort": nil, "summary": nil}, "temperature": 1, "text": obj{"format": obj{"type": "text"}}, "tool_choice": "auto", "tools": []any{},
		"top_p": 1, "truncation": "disabled", "user": nil}
	for name, value := range defaults {
		out[name] = value
		if given := b.members[name]; given != nil && string(given) != "null" {
			out[name] = given
		}
	}
	if g.cut {
		out["status"], out["incomplete_details"] = "incomplete", obj{"reason": "max_output_tokens"}
	}
	return out
}

// unfinished is a Response as it is before its end: without output and usage.
func unfinished(final obj, status string) obj {
	out := maps.Clone(final)
	out["status"], out["output"], out["usage"], out["incomplete_details"] = status, []any{}, nil, nil
	return out
}

func failedResponse(final obj, message string) obj {
	out := unfinished(final, "failed")
	out["usage"], out["error"] = final["usage"], obj{"code": "server_error", "message": message}
	return out
}

// respond answers the call that makes a Response, and keeps it if it is to be kept.
func (g *generation) respond(x *exchange, b *responseRequest, stored bool) (left bool) {
	g.useOpenAI(x)
	final := g.response(x, b, stored)
	status, _ := final["status"].(string)
	x.call.ResponseID, x.call.ResponseStatus = g.id("resp_", 48), status
	if m := x.fault.FailsLater; m != "" && b.Background {
		final = failedResponse(final, m)
		status = "failed"
	}
	s := &storedResponse{requestID: x.call.RequestID, final: final, background: b.Background, streamed: b.Stream, status: status}
	if b.Stream {
		s.events = g.responseEvents(x, final, b.Background)
	}
	if b.Background && !b.Stream {
		s.gets, s.status, x.call.ResponseStatus = max(x.w.config.BackgroundGets, 0), "queued", "queued"
	}
	if stored {
		x.w.mu.Lock()
		x.w.responses[x.key(x.call.ResponseID)] = s
		x.w.mu.Unlock()
	}
	switch {
	case b.Stream:
		x.call.ResponseBody = encode(final)
		return x.stream("text/event-stream; charset=utf-8", s.events, x.responseFailure(s.final, len(s.events)-2))
	case b.Background:
		return x.json(unfinished(final, "queued"))
	}
	return x.json(final)
}

// responseFailure is what ends a stream that fails: an error event, or, for the exception
// response.failed, the Response itself with its error and its usage so far.
func (x *exchange) responseFailure(final obj, number int) []byte {
	if x.fault.Exception == "response.failed" {
		return sse("response.failed", obj{"type": "response.failed", "sequence_number": number, "response": failedResponse(final, "the stream failed")})
	}
	return sse("error", obj{"type": "error", "code": streamError(x.fault.Exception, openAICode), "message": "the stream failed", "param": nil, "sequence_number": number})
}

// responseEvents are the events of a Response that is streamed. The last holds it whole.
func (g *generation) responseEvents(x *exchange, final obj, background bool) [][]byte {
	var out [][]byte
	add := func(kind string, o obj) {
		o["type"], o["sequence_number"] = kind, len(out)
		out = append(out, sse(kind, o))
	}
	if background {
		add("response.created", obj{"response": unfinished(final, "queued")})
		add("response.queued", obj{"response": unfinished(final, "queued")})
	} else {
		add("response.created", obj{"response": unfinished(final, "in_progress")})
	}
	add("response.in_progress", obj{"response": unfinished(final, "in_progress")})
	items, _ := final["output"].([]any)
	for i, one := range items {
		item, _ := one.(obj)
		begun := maps.Clone(item)
		if item["status"] != nil {
			begun["status"] = "in_progress"
		}
		at := func(o obj) obj {
			o["item_id"], o["output_index"] = item["id"], i
			return o
		}
		switch item["type"] {
		case "function_call":
			begun["arguments"] = ""
			add("response.output_item.added", obj{"output_index": i, "item": begun})
			for _, piece := range split(g.arguments(), x.chunks()) {
				add("response.function_call_arguments.delta", at(obj{"delta": piece}))
			}
			add("response.function_call_arguments.done", at(obj{"arguments": g.arguments(), "name": item["name"]}))
		case "message":
			begun["content"] = []any{}
			add("response.output_item.added", obj{"output_index": i, "item": begun})
			add("response.content_part.added", at(obj{"content_index": 0, "part": obj{"type": "output_text", "text": "", "annotations": []any{}, "logprobs": []any{}}}))
			pieces := g.prose(x)
			for _, piece := range pieces {
				add("response.output_text.delta", at(obj{"content_index": 0, "delta": piece, "logprobs": []any{}}))
			}
			add("response.output_text.done", at(obj{"content_index": 0, "text": strings.Join(pieces, ""), "logprobs": []any{}}))
			content, _ := item["content"].([]any)
			add("response.content_part.done", at(obj{"content_index": 0, "part": content[0]}))
		case "web_search_call":
			add("response.output_item.added", obj{"output_index": i, "item": begun})
			for _, step := range []string{"in_progress", "searching", "completed"} {
				add("response.web_search_call."+step, at(obj{}))
			}
		default:
			add("response.output_item.added", obj{"output_index": i, "item": begun})
		}
		add("response.output_item.done", obj{"output_index": i, "item": item})
	}
	status, _ := final["status"].(string)
	add("response."+status, obj{"response": final})
	return out
}

// compact answers with what stands for a conversation from now on.
func (g *generation) compact(x *exchange) (left bool) {
	g.useOpenAI(x)
	x.call.ResponseID = g.id("resp_", 48)
	item := obj{"type": "compaction", "id": g.id("cmp_", 48), "encrypted_content": g.id("", 64)}
	return x.json(obj{"id": x.call.ResponseID, "object": "response.compaction", "created_at": x.w.moment(), "output": []any{item}, "usage": responseUsage(x.call)})
}

// admitStored takes a call about a Response that was kept.
func (x *exchange) admitStored() (answer, *refusal) {
	no := x.project()
	if x.call.Endpoint == Runtime {
		no = x.defaultProject()
	}
	if no != nil {
		return nil, no
	}
	id := x.route.id
	x.call.ResponseID = id
	s := x.w.stored(x.key(id))
	if s == nil {
		return nil, x.noResponse(id)
	}
	switch x.route.operation {
	case "DeleteResponse":
		return func(x *exchange) bool {
			x.w.mu.Lock()
			delete(x.w.responses, x.key(id))
			x.w.mu.Unlock()
			return x.json(obj{"id": id, "object": "response", "deleted": true})
		}, nil
	case "CancelResponse":
		if !s.background {
			return nil, &refusal{400, "invalid_value", "Cannot cancel a synchronous response."}
		}
		return func(x *exchange) bool { return x.json(x.cancel(s)) }, nil
	}
	query := x.r.URL.Query()
	x.call.Streamed = query.Get("stream") == "true"
	if !x.call.Streamed {
		return func(x *exchange) bool { return x.json(x.look(s)) }, nil
	}
	if !s.background || !s.streamed {
		return nil, &refusal{400, "invalid_value", "This response cannot be streamed: it was not created with 'background' and 'stream'."}
	}
	after := -1
	if text := query.Get("starting_after"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n >= len(s.events) {
			return nil, &refusal{400, "invalid_value", "Invalid value for 'starting_after'."}
		}
		after = n
	}
	return func(x *exchange) bool {
		x.call.ResponseStatus, _ = s.final["status"].(string)
		x.call.ResponseBody = encode(s.final)
		return x.stream("text/event-stream; charset=utf-8", s.events[after+1:], x.responseFailure(s.final, len(s.events)-2))
	}, nil
}

// look is a Response as it is now; being looked at brings it on.
func (x *exchange) look(s *storedResponse) obj {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	final, _ := s.final["status"].(string)
	switch {
	case s.status == "cancelled":
	case s.gets == 0:
		s.status = final
	case s.status == "queued" && s.gets < max(x.w.config.BackgroundGets, 2):
		s.status = "in_progress"
	}
	s.gets = max(s.gets-1, 0)
	x.call.ResponseStatus = s.status
	if s.status != final {
		return unfinished(s.final, s.status)
	}
	return s.final
}

// cancel ends a background Response, if it has not ended. What was not generated is not
// billed: all of it while it is queued, else half of its output.
func (x *exchange) cancel(s *storedResponse) obj {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	if final, _ := s.final["status"].(string); s.status == final {
		x.call.ResponseStatus = final
		return s.final
	}
	for i := range x.w.calls {
		c := &x.w.calls[i]
		switch {
		case c.RequestID != s.requestID || s.status == "cancelled":
		case s.status == "queued":
			c.InputTokens, c.OutputTokens, c.Reasoning, c.CacheRead, c.CacheWrite30m, c.Searches = 0, 0, 0, 0, 0, 0
		default:
			c.OutputTokens, c.Reasoning = c.OutputTokens/2, c.Reasoning/2
		}
	}
	s.status, x.call.ResponseStatus = "cancelled", "cancelled"
	return unfinished(s.final, "cancelled")
}
