package fakeaws

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

const maxInvokeBody = 25_000_000

// runtime answers bedrock-runtime.
func (w *World) runtime(rw http.ResponseWriter, r *http.Request) {
	started := time.Now()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxInvokeBody+1))
	if err != nil {
		return
	}
	cred, s, no := w.verify(r, body, "bedrock")
	call := Call{RequestID: newID(), At: w.Now(), Status: 200, RequestBody: jsonOrNil(body), Tier: "default", LatencyMode: "standard"}
	rw.Header()["x-amzn-RequestId"] = []string{call.RequestID}
	rw.Header().Set("Date", call.At.UTC().Format(http.TimeFormat))
	if no != nil {
		w.awsError(rw, no)
		return
	}
	call.Account, call.Region, call.PrincipalARN, call.SessionTags = cred.account, s.region, cred.arn, cred.tags
	a, no := w.admit(r, body, cred, &call)
	if a == nil && no == nil { // an unknown path is answered with success
		rw.Header().Set("Content-Type", "application/json")
		io.WriteString(rw, `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`)
		return
	}
	var fault *Fault
	if no == nil && w.config.Fault != nil {
		if fault = w.config.Fault(r); fault != nil && fault.Status != 0 {
			no = &refusal{fault.Status, fault.ErrorType, "Too many requests, please wait before trying again."}
		}
	}
	if no != nil {
		call.Status, call.ErrorCode = no.status, no.kind
		w.awsError(rw, no)
		w.served(call)
		return
	}
	if w.config.Latency > 0 {
		time.Sleep(w.config.Latency)
	}
	out := io.Writer(rw)
	if fault != nil && fault.CutAfter > 0 {
		out = &cutter{rw, fault.CutAfter}
	}
	exception := ""
	if fault != nil {
		exception = fault.Exception
	}
	call.ClientLeft = a.answer(w, rw, out, r, &call, exception)
	call.LatencyMillis = time.Since(started).Milliseconds()
	w.served(call)
	if c, ok := out.(*cutter); ok && c.left <= 0 {
		panic(http.ErrAbortHandler)
	}
}

// A cutter breaks the connection after so many bytes.
type cutter struct {
	rw   http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		n := max(c.left, 0)
		c.rw.Write(p[:n]) // what is lost here is lost on purpose
		c.left = 0
		if f, ok := c.rw.(http.Flusher); ok {
			f.Flush()
		}
		return n, io.ErrShortWrite
	}
	c.left -= len(p)
	return c.rw.Write(p)
}

func jsonOrNil(b []byte) json.RawMessage {
	if json.Valid(b) {
		return bytes.Clone(b)
	}
	return nil
}

func (w *World) awsError(rw http.ResponseWriter, no *refusal) {
	rw.Header().Set("Content-Type", "application/json")
	rw.Header()["x-amzn-ErrorType"] = []string{no.kind + ":http://internal.amazon.com/coral/com.amazon.bedrock/"}
	rw.WriteHeader(no.status)
	b, _ := json.Marshal(map[string]string{"message": no.message}) // strings: it does not fail
	rw.Write(b)                                                    // the client may have left
}

func validation(format string, a ...any) *refusal {
	return &refusal{400, "ValidationException", fmt.Sprintf(format, a...)}
}

// An admitted call is one that AWS takes.
type admitted struct {
	operation string
	family    string // claude, nova, llama, embed
	converse  bool
	maxTokens int64
	text      int64 // characters of the prompt
	cached    int64 // characters of it that are marked as cacheable
	hour      bool  // cached for an hour
	seed      uint64
}

var operations = map[string]string{"invoke": "InvokeModel", "invoke-with-response-stream": "InvokeModelWithResponseStream",
	"converse": "Converse", "converse-stream": "ConverseStream"}

// families of the models that this AWS offers, by how their ids begin.
var families = []struct{ prefix, family string }{
	{"anthropic.claude-", "claude"}, {"amazon.nova-", "nova"}, {"meta.llama", "llama"}, {"amazon.titan-embed-text", "embed"}}

// crossRegion are the prefixes of system profiles.
var crossRegion = map[string]string{"us": "geo", "eu": "geo", "apac": "geo", "jp": "geo", "au": "geo", "global": "global"}

func (w *World) admit(r *http.Request, body []byte, cred *credential, call *Call) (*admitted, *refusal) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	rest, ok := strings.CutPrefix(path, "/model/")
	cut := strings.LastIndexByte(rest, '/')
	if !ok || cut < 1 || operations[rest[cut+1:]] == "" || r.Method != http.MethodPost {
		return nil, nil
	}
	id, err := url.PathUnescape(rest[:cut])
	if err != nil {
		return nil, validation("malformed path")
	}
	a := &admitted{operation: operations[rest[cut+1:]]}
	a.converse = strings.HasPrefix(a.operation, "Converse")
	call.Operation, call.ModelID, call.Streamed = a.operation, id, strings.HasSuffix(a.operation, "Stream")
	if cred.denyBedrock {
		return nil, &refusal{403, "AccessDeniedException", fmt.Sprintf("User: %s is not authorized to perform: bedrock:InvokeModel on resource: %s", cred.arn, id)}
	}
	if !contains(w.config.Regions, call.Region) {
		return nil, &refusal{403, "AccessDeniedException", "You don't have access to the model with the specified model ID."}
	}
	if no := w.model(id, call, a); no != nil {
		return nil, no
	}
	if len(body) > maxInvokeBody {
		return nil, validation("Input is too long for requested model.")
	}
	if !utf8.Valid(body) || !json.Valid(body) || duplicateMember(body) {
		return nil, validation("Malformed input request, please reformat your input and try again.")
	}
	if no := metadata(r, body, a, call); no != nil {
		return nil, no
	}
	sum := sha256.Sum256(withoutMetadata(body))
	a.seed = binary.BigEndian.Uint64(sum[:])
	if a.converse {
		return a, a.readConverse(body, call)
	}
	switch tier := r.Header.Get("X-Amzn-Bedrock-Service-Tier"); tier {
	case "":
	case "default", "priority", "flex", "reserved":
		call.Tier = tier
	default:
		return nil, validation("1 validation error detected: Value '%s' at 'serviceTier' failed to satisfy constraint", tier)
	}
	if r.Header.Get("X-Amzn-Bedrock-PerformanceConfig-Latency") == "optimized" {
		call.LatencyMode = "optimized"
	}
	return a, a.readInvoke(body)
}

// model finds the foundation model behind what was named.
func (w *World) model(id string, call *Call, a *admitted) *refusal {
	unknown := validation("The provided model identifier is invalid.")
	name := id
	if strings.HasPrefix(id, "arn:") {
		parts := strings.SplitN(id, ":", 6)
		if len(parts) < 6 {
			return unknown
		}
		kind, last, ok := strings.Cut(parts[5], "/")
		switch {
		case !ok:
			return unknown
		case kind == "application-inference-profile":
			source, there := w.config.Profiles[id]
			if !there || parts[3] != call.Region {
				return &refusal{404, "ResourceNotFoundException", "The specified inference profile could not be found."}
			}
			call.ProfileARN, name = id, source
		case kind == "foundation-model" || kind == "inference-profile":
			name = last
		default:
			return unknown
		}
	}
	call.Scope = "plain"
	if first, rest, ok := strings.Cut(name, "."); ok && crossRegion[first] != "" {
		call.Scope, name = crossRegion[first], rest
		call.InferenceRegion = call.Region
		if strings.HasPrefix(call.Region, "us-") {
			call.InferenceRegion = "us-west-2"
		}
	}
	for _, f := range families {
		if strings.HasPrefix(name, f.prefix) {
			a.family, call.BaseModel = f.family, name
			return nil
		}
	}
	return unknown
}

// duplicateMember reports whether an object has one member twice at its top level.
func duplicateMember(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return err == nil // not an object at all
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		name, _ := t.(string)
		var v json.RawMessage
		if err != nil || seen[name] || d.Decode(&v) != nil {
			return true
		}
		seen[name] = true
	}
	return false
}

const metadataChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \t\n\r\f\v:_@$#=/+,-."

func metadataText(s string, least int) bool {
	return len(s) >= least && len(s) <= 256 && strings.Trim(s, metadataChars) == "" && strings.IndexFunc(s, func(c rune) bool { return !strings.ContainsRune(metadataChars, c) }) < 0
}

// metadata reads request metadata from where the operation takes it and holds it
// against AWS's limits.
func metadata(r *http.Request, body []byte, a *admitted, call *Call) *refusal {
	var raw []byte
	if a.converse {
		var b struct {
			RequestMetadata json.RawMessage `json:"requestMetadata"`
		}
		if json.Unmarshal(body, &b) == nil {
			raw = b.RequestMetadata
		}
	} else if values := r.Header.Values("X-Amzn-Bedrock-Request-Metadata"); len(values) > 0 {
		if len(values) > 1 || len(values[0]) > 8500 || strings.ContainsAny(values[0], "\r\n") {
			return validation("1 validation error detected: Value at 'requestMetadata' failed to satisfy constraint: Member must have length less than or equal to 8500")
		}
		raw = []byte(values[0])
	}
	if raw == nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	bad := func(v string) *refusal {
		return validation("1 validation error detected: Value '%s' at 'requestMetadata' failed to satisfy constraint: Map keys and values must satisfy constraint: [Member must have length less than or equal to 256, Member must satisfy regular expression pattern: [a-zA-Z0-9\\s:_@$#=/+,-.]{0,256}$]", v)
	}
	t, err := d.Token()
	if err != nil || t != json.Delim('{') {
		return bad("not a map")
	}
	call.Metadata = make(map[string]string)
	for d.More() {
		k, err1 := d.Token()
		v, err2 := d.Token()
		key, ok1 := k.(string)
		value, ok2 := v.(string)
		if err1 != nil || err2 != nil || !ok1 || !ok2 || !metadataText(key, 1) || !metadataText(value, 0) {
			return bad(key)
		}
		if _, twice := call.Metadata[key]; twice {
			return bad(key)
		}
		call.Metadata[key] = value
	}
	if n := len(call.Metadata); n < 1 || n > 16 {
		return validation("1 validation error detected: Value at 'requestMetadata' failed to satisfy constraint: Member must have length between 1 and 16, inclusive")
	}
	return nil
}

// withoutMetadata is a body's content without requestMetadata, so that the answer does
// not depend on it.
func withoutMetadata(body []byte) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil {
		return body
	}
	delete(m, "requestMetadata")
	out, err := json.Marshal(m)
	if err != nil {
		return body
	}
	return out
}

var converseMembers = strings.Fields("messages system inferenceConfig toolConfig guardrailConfig additionalModelRequestFields promptVariables additionalModelResponseFieldPaths requestMetadata performanceConfig serviceTier outputConfig")

func (a *admitted) readConverse(body []byte, call *Call) *refusal {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return validation("Malformed input request, please reformat your input and try again.")
	}
	for name := range members {
		if !contains(converseMembers, name) {
			return validation("The model returned the following errors: Malformed input request: extraneous key [%s] is not permitted", name)
		}
	}
	if a.family == "embed" {
		return validation("This action doesn't support the model that you provided. Try again with a supported text or chat model.")
	}
	var b struct {
		Messages        []json.RawMessage
		InferenceConfig struct{ MaxTokens int64 }
		ServiceTier     struct{ Type string }
		Performance     struct{ Latency string } `json:"performanceConfig"`
	}
	if err := json.Unmarshal(body, &b); err != nil || len(b.Messages) == 0 {
		return validation("1 validation error detected: Value at 'messages' failed to satisfy constraint: Member must have length greater than or equal to 1")
	}
	a.maxTokens = b.InferenceConfig.MaxTokens
	if b.ServiceTier.Type != "" {
		call.Tier = b.ServiceTier.Type
	}
	if b.Performance.Latency == "optimized" {
		call.LatencyMode = "optimized"
	}
	a.measure(withoutMetadata(body), `"cachePoint"`)
	return nil
}

var claudeMembers = strings.Fields("anthropic_version anthropic_beta max_tokens messages system temperature top_p top_k tools tool_choice stop_sequences thinking metadata output_config")

func (a *admitted) readInvoke(body []byte) *refusal {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return validation("Malformed input request, please reformat your input and try again.")
	}
	need := map[string]string{"claude": "messages", "nova": "messages", "llama": "prompt", "embed": "inputText"}[a.family]
	if _, ok := members[need]; !ok {
		return validation("Malformed input request: #: required key [%s] not found, please reformat your input and try again.", need)
	}
	switch a.family {
	case "claude":
		for name := range members {
			if !contains(claudeMembers, name) {
				return validation("%s: Extra inputs are not permitted", name)
			}
		}
		var b struct {
			Version   string `json:"anthropic_version"`
			MaxTokens int64  `json:"max_tokens"`
		}
		if json.Unmarshal(body, &b) != nil || b.Version != "bedrock-2023-05-31" || b.MaxTokens < 1 {
			return validation("max_tokens: Field required, anthropic_version: Field required")
		}
		a.maxTokens = b.MaxTokens
	case "embed":
		if a.operation != "InvokeModel" {
			return validation("The model is unsupported for streaming.")
		}
	case "nova":
		var b struct {
			InferenceConfig struct {
				MaxTokens  int64
				MaxTokens2 int64 `json:"max_new_tokens"`
			}
		}
		_ = json.Unmarshal(body, &b) // what does not fit counts as absent
		a.maxTokens = max(b.InferenceConfig.MaxTokens, b.InferenceConfig.MaxTokens2)
	case "llama":
		var b struct {
			Max int64 `json:"max_gen_len"`
		}
		_ = json.Unmarshal(body, &b)
		a.maxTokens = b.Max
	}
	a.measure(body, `"cache_control"`)
	return nil
}

// measure sizes the prompt, and what of it stands before the last mark of the cache.
func (a *admitted) measure(body []byte, mark string) {
	a.text = int64(len(body))
	if i := bytes.LastIndex(body, []byte(mark)); i >= 0 {
		a.cached = int64(i)
		a.hour = bytes.Contains(body, []byte(`"ttl":"1h"`))
	}
}

// use makes up the usage of a call: it depends on its body alone.
func (a *admitted) use(call *Call) {
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
	call.InputTokens = max(total, 1)
	if a.family == "embed" {
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
func (a *admitted) words(n int) []string {
	out := make([]string, n)
	s := a.seed
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

func pad(seed uint64, i int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return letters[:1+(seed>>uint(i%32))%60]
}

// answer sends the answer, and reports whether the client was gone before its end. The
// usage is the same either way: what was generated is billed.
func (a *admitted) answer(w *World, rw http.ResponseWriter, out io.Writer, r *http.Request, call *Call, exception string) (left bool) {
	a.use(call)
	for _, n := range []*int64{&call.InputTokens, &call.OutputTokens, &call.CacheRead, &call.CacheWrite5m, &call.CacheWrite1h} {
		*n *= w.config.Scale
	}
	if call.Streamed {
		return a.stream(w, rw, out, r, call, exception)
	}
	var body any
	words := a.words(w.config.Chunks)
	text := strings.Join(words, "")
	h := rw.Header()
	if a.converse {
		body = obj{"output": obj{"message": obj{"role": "assistant", "content": []any{obj{"text": text}}}}, "stopReason": "end_turn",
			"usage": converseUsage(call), "metrics": obj{"latencyMs": 100 + a.seed%900}, "serviceTier": obj{"type": call.Tier}}
	} else {
		h.Set("X-Amzn-Bedrock-Input-Token-Count", fmt.Sprint(call.InputTokens))
		if a.family != "embed" {
			h.Set("X-Amzn-Bedrock-Output-Token-Count", fmt.Sprint(call.OutputTokens))
		}
		if a.cached > 0 {
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
		body = a.invokeBody(text, call)
	}
	b := encode(body)
	call.ResponseBody = b
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", fmt.Sprint(len(b)))
	_, err := out.Write(b)
	return err != nil || r.Context().Err() != nil
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
	switch a.family {
	case "claude":
		return obj{"id": fmt.Sprintf("msg_bdrk_%016x", a.seed), "type": "message", "role": "assistant", "model": "claude",
			"content": []any{obj{"type": "text", "text": text}}, "stop_reason": "end_turn", "usage": claudeUsage(c, c.OutputTokens)}
	case "nova":
		return obj{"output": obj{"message": obj{"role": "assistant", "content": []any{obj{"text": text}}}}, "stopReason": "end_turn",
			"usage": obj{"inputTokens": c.InputTokens, "outputTokens": c.OutputTokens, "totalTokens": c.InputTokens + c.OutputTokens,
				"cacheReadInputTokenCount": c.CacheRead, "cacheWriteInputTokenCount": c.CacheWrite5m}}
	case "llama":
		return obj{"generation": text, "prompt_token_count": c.InputTokens, "generation_token_count": c.OutputTokens, "stop_reason": "stop"}
	}
	vector := make([]float64, 16)
	for i := range vector {
		vector[i] = float64(int64(a.seed>>uint(i))%1000) / 1000
	}
	return obj{"embedding": vector, "inputTextTokenCount": c.InputTokens}
}

// stream sends an event stream.
func (a *admitted) stream(w *World, rw http.ResponseWriter, out io.Writer, r *http.Request, call *Call, exception string) (left bool) {
	h := rw.Header()
	h.Set("Content-Type", "application/vnd.amazon.eventstream")
	if !a.converse {
		h.Set("X-Amzn-Bedrock-Content-Type", "application/json")
	}
	rw.WriteHeader(200)
	events, log := a.events(w.config.Chunks, call)
	call.ResponseBody = encode(log)
	for i, e := range events {
		if exception != "" && i == len(events)-2 {
			_, err := out.Write(Frame("exception", exception, encode(obj{"message": "the stream failed"})))
			return err != nil
		}
		pace := w.config.Pace
		if w.config.PaceFor != nil {
			pace += w.config.PaceFor(*call)
		}
		if pace > 0 && i > 0 {
			time.Sleep(pace)
		}
		if r.Context().Err() != nil {
			return true
		}
		if _, err := out.Write(Frame("event", e.kind, e.payload)); err != nil {
			return true
		}
		if f, ok := rw.(http.Flusher); ok {
			f.Flush()
		}
	}
	return r.Context().Err() != nil
}

type streamEvent struct {
	kind    string
	payload []byte
}

// events are the messages of a stream, and its answer as the log keeps it.
func (a *admitted) events(chunks int, c *Call) (events []streamEvent, log any) {
	words := a.words(chunks)
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
		add("messageStop", obj{"stopReason": "end_turn"})
		add("metadata", obj{"usage": converseUsage(c), "metrics": obj{"latencyMs": latency}, "serviceTier": obj{"type": c.Tier}})
		return events, obj{"output": obj{"message": obj{"role": "assistant", "content": []any{obj{"text": strings.Join(words, "")}}}},
			"stopReason": "end_turn", "metrics": obj{"latencyMs": latency}, "usage": converseUsage(c)}
	}
	metrics := obj{"inputTokenCount": c.InputTokens, "outputTokenCount": c.OutputTokens, "invocationLatency": latency, "firstByteLatency": latency / 3}
	if a.cached > 0 {
		metrics["cacheReadInputTokenCount"], metrics["cacheWriteInputTokenCount"] = c.CacheRead, c.CacheWrite5m+c.CacheWrite1h
	}
	var parts []any
	switch a.family {
	case "claude":
		parts = append(parts, obj{"type": "message_start", "message": obj{"id": fmt.Sprintf("msg_bdrk_%016x", a.seed), "type": "message", "role": "assistant", "content": []any{}, "usage": claudeUsage(c, 1)}},
			obj{"type": "content_block_start", "index": 0, "content_block": obj{"type": "text", "text": ""}})
		for _, t := range words {
			parts = append(parts, obj{"type": "content_block_delta", "index": 0, "delta": obj{"type": "text_delta", "text": t}})
		}
		parts = append(parts, obj{"type": "content_block_stop", "index": 0},
			obj{"type": "message_delta", "delta": obj{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": obj{"output_tokens": max(c.OutputTokens-1, 1)}},
			obj{"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics})
	case "nova":
		parts = append(parts, obj{"messageStart": obj{"role": "assistant"}})
		for _, t := range words {
			parts = append(parts, obj{"contentBlockDelta": obj{"delta": obj{"text": t}, "contentBlockIndex": 0}})
		}
		parts = append(parts, obj{"messageStop": obj{"stopReason": "end_turn"}},
			obj{"metadata": obj{"usage": converseUsage(c), "metrics": obj{}}, "amazon-bedrock-invocationMetrics": metrics})
	case "llama":
		for i, t := range words {
			p := obj{"generation": t, "prompt_token_count": nil, "generation_token_count": i + 1, "stop_reason": nil}
			if i == 0 {
				p["prompt_token_count"] = c.InputTokens
			}
			parts = append(parts, p)
		}
		parts = append(parts, obj{"generation": "", "prompt_token_count": nil, "generation_token_count": c.OutputTokens, "stop_reason": "stop", "amazon-bedrock-invocationMetrics": metrics})
	}
	for i, p := range parts {
		events = append(events, streamEvent{"chunk", encode(obj{"bytes": base64.StdEncoding.EncodeToString(encode(p)), "p": pad(a.seed, i)})})
	}
	return events, parts
}
