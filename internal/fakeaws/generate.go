package fakeaws

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// fixedTime is when an answer was made while the world has no clock of its own, so that a
// body is answered with the same bytes each time.
const fixedTime = 1_767_225_600

// moment is the time that stands in the body of an answer.
func (w *World) moment() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now.IsZero() {
		return fixedTime
	}
	return w.now.Unix()
}

// A generation is what a model makes of a prompt. All of it follows from the body of the
// request, less what does not reach a model: metadata, and how the answer is sent.
type generation struct {
	seed     uint64
	text     int64  // characters of the prompt
	cached   int64  // characters of it that are marked as cacheable
	hour     bool   // for an hour
	limit    int64  // of the output; 0 means none
	format   schema // the answer has to be of; nil means prose
	json     bool   // the answer has to be an object
	tools    []tool
	calls    *tool // the one that is called, if any
	thinking bool  // the model thinks first
	guard    *guarding
	blocked  bool     // by the guardrail: the model is not asked
	said     []string // pieces of the answer's text
	searches int64    // of the web, on the way
	cut      bool     // the output stopped at its limit
}

// A tool is a function that a request offers.
type tool struct {
	name       string
	parameters schema
}

type schema = map[string]any

// unseen are the members of a body that no model sees.
var unseen = []string{"metadata", "stream", "stream_options", "store", "background", "requestMetadata", "user", "safety_identifier", "service_tier", "prompt_cache_key",
	"max_tokens", "max_completion_tokens", "max_output_tokens"}

// generate starts a generation from a body.
func generate(body []byte, mark string) *generation {
	seen := without(body, unseen...)
	sum := sha256.Sum256(seen)
	g := &generation{seed: binary.BigEndian.Uint64(sum[:]), text: int64(len(seen))}
	if i := strings.LastIndex(string(seen), mark); mark != "" && i >= 0 {
		g.cached = int64(i)
		g.hour = strings.Contains(string(seen), `"ttl":"1h"`)
	}
	return g
}

// without is a body's content without some of its members.
func without(body []byte, names ...string) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil {
		return body
	}
	for _, name := range names {
		delete(m, name)
	}
	out, err := json.Marshal(m)
	if err != nil {
		return body
	}
	return out
}

// id is an identifier that follows from the seed.
func (g *generation) id(prefix string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s%016x", prefix, g.seed))
	return prefix + hex.EncodeToString(sum[:])[:n]
}

// choose decides which of the tools is called: the one that was asked for, or one of them
// if the turn is the user's. The answer to a tool's result is prose, so that a loop ends.
func (g *generation) choose(mode, name string, usersTurn bool) *refusal {
	if name != "" {
		for i := range g.tools {
			if g.tools[i].name == name {
				g.calls = &g.tools[i]
				return nil
			}
		}
		return &refusal{400, "ValidationException", "Tool choice '" + name + "' not found in 'tools' parameter."}
	}
	if mode != "auto" && mode != "none" && len(g.tools) == 0 {
		return &refusal{400, "ValidationException", "Tool choice is only allowed when tools are specified."}
	}
	if len(g.tools) > 0 && mode != "none" && (usersTurn || mode != "auto") {
		g.calls = &g.tools[g.seed>>4%uint64(len(g.tools))]
	}
	return nil
}

// arguments are made up for the tool that is called.
func (g *generation) arguments() string {
	return string(encode(g.example(g.calls.parameters, g.calls.parameters, 0)))
}

// prose are the pieces of the answer's text.
func (g *generation) prose(x *exchange) []string {
	switch {
	case g.format != nil:
		return split(string(encode(g.example(g.format, g.format, 0))), x.chunks())
	case g.json:
		return split(string(encode(obj{"answer": strings.TrimSpace(words(g.seed, 1)[0])})), x.chunks())
	}
	return x.words(g.seed)
}

// split cuts a text into n pieces, or fewer.
func split(s string, n int) []string {
	n = max(min(n, len(s)), 1)
	var out []string
	for i := range n {
		if piece := s[i*len(s)/n : (i+1)*len(s)/n]; piece != "" || n == 1 {
			out = append(out, piece)
		}
	}
	return out
}

// example makes up a value of a JSON Schema.
func (g *generation) example(s, root schema, depth int) any {
	if ref, ok := s["$ref"].(string); ok && depth < 8 {
		at := any(root)
		for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			m, _ := at.(map[string]any)
			at = m[part]
		}
		if m, ok := at.(map[string]any); ok {
			return g.example(m, root, depth+1)
		}
	}
	if v, ok := s["const"]; ok {
		return v
	}
	if list, ok := s["enum"].([]any); ok && len(list) > 0 {
		return list[g.seed>>7%uint64(len(list))]
	}
	for _, of := range []string{"anyOf", "oneOf", "allOf"} {
		if list, ok := s[of].([]any); ok && len(list) > 0 {
			if m, ok := list[0].(map[string]any); ok {
				return g.example(m, root, depth+1)
			}
		}
	}
	kind, _ := s["type"].(string)
	if list, ok := s["type"].([]any); ok && len(list) > 0 {
		kind, _ = list[0].(string)
	}
	if kind == "" && s["properties"] != nil {
		kind = "object"
	}
	switch kind {
	case "object", "":
		out := obj{}
		properties, _ := s["properties"].(map[string]any)
		names := make([]string, 0, len(properties))
		for name := range properties {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if m, ok := properties[name].(map[string]any); ok && depth < 8 {
				out[name] = g.example(m, root, depth+1)
			}
		}
		return out
	case "array":
		items, _ := s["items"].(map[string]any)
		if items == nil || depth >= 8 {
			return []any{}
		}
		return []any{g.example(items, root, depth+1)}
	case "integer", "number":
		least, _ := s["minimum"].(float64)
		return int64(least) + int64(g.seed>>9%20)
	case "boolean":
		return g.seed&1 == 0
	case "null":
		return nil
	}
	return strings.TrimSpace(words(g.seed, 1)[0])
}

// output makes up how much is generated.
func (g *generation) output(c *Call) {
	c.OutputTokens = 20 + int64(g.seed>>8%400)
	if g.limit > 0 && c.OutputTokens > g.limit {
		c.OutputTokens, g.cut = g.limit, true
	}
}

// useOpenAI makes up the usage of a call in one of OpenAI's shapes: a long prompt may be
// read from the cache in part, or written to it, without being marked.
func (g *generation) useOpenAI(x *exchange) {
	if g.blocked {
		return
	}
	c, total := x.call, g.text/4+3
	if part := total / 2; total >= 1024 && caches(c.BaseModel) {
		switch g.seed % 3 {
		case 0:
			c.CacheWrite30m, total = part, total-part
		case 1:
			c.CacheRead, total = part, total-part
		}
	}
	c.InputTokens = total
	g.output(c)
	c.Reasoning = c.OutputTokens / 4
	x.w.scale(c)
}

// caches reports whether a model of OpenAI's shapes keeps prompts.
func caches(model string) bool {
	for _, prefix := range []string{"openai.gpt-5", "moonshotai.", "xai."} {
		if strings.HasPrefix(model, prefix) {
			return true
		}
	}
	return false
}

// useAnthropic does so for Messages, whose prompts say what is to be cached.
func (g *generation) useAnthropic(x *exchange) {
	c, total := x.call, g.text/4+3
	if part := g.cached / 4; part > 0 {
		total -= part
		switch {
		case g.seed%3 == 0 && g.hour:
			c.CacheWrite1h = part
		case g.seed%3 == 0:
			c.CacheWrite5m = part
		default:
			c.CacheRead = part
		}
	}
	c.InputTokens = max(total, 1)
	g.output(c)
	x.w.scale(c)
}

// members reads a body as an object that has known members only, each once.
func members(body []byte, known []string) (map[string]json.RawMessage, *refusal) {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m == nil || duplicateMember(body) {
		return nil, &refusal{400, "ValidationException", "We could not parse the JSON body of your request."}
	}
	for name := range m {
		if !contains(known, name) {
			return nil, &refusal{400, "unknown_parameter", "Unknown parameter: '" + name + "'."}
		}
	}
	return m, nil
}

// bodyMetadata reads the metadata member of OpenAI's shapes.
func (x *exchange) bodyMetadata(raw json.RawMessage) *refusal {
	if raw == nil || string(raw) == "null" {
		return nil
	}
	var m map[string]string
	if json.Unmarshal(raw, &m) != nil || duplicateMember(raw) {
		return &refusal{400, "invalid_type", "Invalid type for 'metadata': expected an object of strings."}
	}
	if len(m) > 16 {
		return &refusal{400, "object_above_max_properties", "Invalid 'metadata': too many properties. Expected an object with at most 16 properties."}
	}
	for k, v := range m {
		if len(k) > 64 || len(v) > 512 {
			return &refusal{400, "string_above_max_length", "Invalid 'metadata': a key has at most 64 characters and a value at most 512."}
		}
	}
	x.call.BodyMetadata = m
	return nil
}

// serviceTier reads the tier that a body asks for, and keeps the one that serves.
func (x *exchange) serviceTier(asked string) *refusal {
	allowed := []string{"", "auto", "default", "flex", "priority"}
	if x.call.Endpoint == Runtime {
		allowed = append(allowed, "reserved")
	}
	if !contains(allowed, asked) {
		return &refusal{400, "invalid_value", "Invalid value for 'service_tier': '" + asked + "'."}
	}
	if asked != "" && asked != "auto" {
		x.call.Tier = asked
	}
	return nil
}

// large refuses a body that is above the limit of the endpoints.
func (x *exchange) large() *refusal {
	if len(x.body) > maxInvokeBody {
		return &refusal{413, x.own("request_too_large", "request_too_large"), "The request is larger than 25,000,000 bytes."}
	}
	return nil
}

// sse is one server-sent event; its name may be empty.
func sse(name string, data any) []byte {
	var out []byte
	if name != "" {
		out = append(out, "event: "+name+"\n"...)
	}
	out = append(out, "data: "...)
	out = append(out, encode(data)...)
	return append(out, "\n\n"...)
}
