package fakeaws

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

const maxInvokeBody = 25_000_000

func jsonOrNil(b []byte) json.RawMessage {
	if json.Valid(b) {
		return bytes.Clone(b)
	}
	return nil
}

func validation(format string, a ...any) *refusal {
	return &refusal{400, "ValidationException", fmt.Sprintf(format, a...)}
}

// An admitted call is one that AWS takes.
type admitted struct {
	operation string
	family    *family
	converse  bool
	maxTokens int64
	text      int64 // characters of the prompt
	cached    int64 // characters of it that are marked as cacheable
	hour      bool  // cached for an hour
	seed      uint64
	items     int64    // documents, vectors or pictures of the answer
	texts     []string // that were embedded
	guard     *guarding
	blocked   bool        // by the guardrail: the model is not asked
	called    *generation // with the tool that has to be called; nil for prose
}

var operations = map[string]string{"invoke": "InvokeModel", "invoke-with-response-stream": "InvokeModelWithResponseStream",
	"converse": "Converse", "converse-stream": "ConverseStream"}

// crossRegion are the prefixes of system profiles.
var crossRegion = map[string]string{"us": "geo", "eu": "geo", "apac": "geo", "jp": "geo", "au": "geo", "global": "global"}

// runtimeRoute finds the operation of Bedrock's own that a path leads to.
func runtimeRoute(r *http.Request) route {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	rest, ok := strings.CutPrefix(path, "/model/")
	cut := strings.LastIndexByte(rest, '/')
	switch {
	case !ok || cut < 1 || r.Method != http.MethodPost:
	case operations[rest[cut+1:]] != "":
		return route{operation: operations[rest[cut+1:]], id: rest[:cut], admit: (*exchange).admitModel}
	case rest[cut+1:] == "count-tokens":
		return route{operation: "CountTokens", id: rest[:cut], admit: (*exchange).admitCount}
	}
	if rt, ok := guardrailRoute(r.Method, path); ok {
		return rt
	}
	if rt, ok := asyncRoute(r.Method, path); ok {
		return rt
	}
	return route{admit: func(*exchange) (answer, *refusal) { return nil, nil }}
}

// admitModel takes a call of an operation on a model.
func (x *exchange) admitModel() (answer, *refusal) {
	a, no := x.w.admit(x)
	if no != nil {
		return nil, no
	}
	h := x.r.Header
	id, version, trace := h.Get("X-Amzn-Bedrock-Guardrailidentifier"), h.Get("X-Amzn-Bedrock-Guardrailversion"), h.Get("X-Amzn-Bedrock-Trace")
	if a.converse {
		var b struct {
			Config struct{ GuardrailIdentifier, GuardrailVersion, Trace string } `json:"guardrailConfig"`
		}
		if err := json.Unmarshal(x.body, &b); err != nil {
			return nil, validation("Malformed input request: %v", err)
		}
		id, version, trace = b.Config.GuardrailIdentifier, b.Config.GuardrailVersion, b.Config.Trace
	}
	a.guard, no = x.guarded(id, version, trace)
	if no != nil {
		return nil, no
	}
	if a.guard.look(without(x.body, "requestMetadata", "guardrailConfig")) {
		a.blocked, a.called = true, nil
	}
	return a.answer, nil
}

// admitOn takes a call on a model as far as its body is JSON.
func (w *World) admitOn(x *exchange) (*admitted, *refusal) {
	cred, call, rt, body := x.cred, x.call, x.route, x.body
	id, err := url.PathUnescape(rt.id)
	if err != nil {
		return nil, validation("malformed path")
	}
	a := &admitted{operation: rt.operation}
	a.converse = strings.HasPrefix(a.operation, "Converse")
	call.ModelID, call.Streamed = id, strings.HasSuffix(a.operation, "Stream")
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
	return a, nil
}

func (w *World) admit(x *exchange) (*admitted, *refusal) {
	r, body, call := x.r, x.body, x.call
	a, no := w.admitOn(x)
	if no != nil {
		return nil, no
	}
	if a.family.makes == "video" {
		return nil, validation("The model %s is not supported for this operation: use StartAsyncInvoke.", call.ModelID)
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
	return a, a.readInvoke(body, call)
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
			source, there := w.config.Models[id]
			if !there || parts[3] != call.Region {
				return unknown
			}
			name = source
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
	if f := familyOf(name); f != nil {
		a.family, call.BaseModel = f, name
		return nil
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
	if a.family.makes != "text" {
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
	return a.force(body)
}

var claudeMembers = strings.Fields("anthropic_version anthropic_beta max_tokens messages system temperature top_p top_k tools tool_choice stop_sequences thinking metadata output_config output_format context_management container user_profile_id")

func (a *admitted) readInvoke(body []byte, call *Call) *refusal {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return validation("Malformed input request, please reformat your input and try again.")
	}
	if !slices.ContainsFunc(a.family.required, func(name string) bool { _, ok := members[name]; return ok }) {
		return validation("Malformed input request: #: required key [%s] not found, please reformat your input and try again.", a.family.required[0])
	}
	if a.family.makes != "text" && a.operation == "InvokeModelWithResponseStream" {
		return validation("The model is unsupported for streaming.")
	}
	switch a.family.name {
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
		// Anthropic's SDKs write the version of their own API in the place of Bedrock's.
		if json.Unmarshal(body, &b) != nil || b.Version != "bedrock-2023-05-31" && !isDay(b.Version) || b.MaxTokens < 1 {
			return validation("max_tokens: Field required, anthropic_version: Field required")
		}
		a.maxTokens = b.MaxTokens
		if no := a.force(body); no != nil {
			return no
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
	default:
		if no := a.read(body, call); no != nil {
			return no
		}
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
