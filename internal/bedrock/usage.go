package bedrock

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/waybill-dev/waybill"
)

// count is a token count that may be absent. Counts that are negative, fractions or
// beyond any model count as absent: they are not usage.
type count struct {
	n     int64
	there bool
}

func (c *count) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err == nil && n >= 0 && n < 1<<48 {
		*c = count{n, true}
	}
	return nil
}

func first(counts ...count) count {
	for _, c := range counts {
		if c.there {
			return c
		}
	}
	return count{}
}

func larger(a, b count) count { return count{max(a.n, b.n), a.there || b.there} }

// nativeUsage is Converse's usage, Nova's, and the metrics of the last chunk of
// streamed Invoke calls: input excludes what was cached.
type nativeUsage struct {
	InputTokens               count `json:"inputTokens"`
	OutputTokens              count `json:"outputTokens"`
	CacheReadInputTokens      count `json:"cacheReadInputTokens"`
	CacheWriteInputTokens     count `json:"cacheWriteInputTokens"`
	InputTokenCount           count `json:"inputTokenCount"`
	OutputTokenCount          count `json:"outputTokenCount"`
	CacheReadInputTokenCount  count `json:"cacheReadInputTokenCount"`
	CacheWriteInputTokenCount count `json:"cacheWriteInputTokenCount"`
	CacheDetails              []struct {
		TTL         string `json:"ttl"`
		InputTokens count  `json:"inputTokens"`
	} `json:"cacheDetails"`
}

func (u nativeUsage) usage() (waybill.Usage, bool) {
	in, out := first(u.InputTokens, u.InputTokenCount), first(u.OutputTokens, u.OutputTokenCount)
	if !in.there && !out.there {
		return waybill.Usage{}, false
	}
	v := waybill.NewUsage().With(waybill.Input, in.n).With(waybill.Output, out.n).
		With(waybill.CacheRead, first(u.CacheReadInputTokens, u.CacheReadInputTokenCount).n)
	var hour, half int64
	for _, d := range u.CacheDetails {
		switch d.TTL {
		case "1h":
			hour += d.InputTokens.n
		case "30m":
			half += d.InputTokens.n
		}
	}
	return splitWrites(v, first(u.CacheWriteInputTokens, u.CacheWriteInputTokenCount).n, half, hour), true
}

// splitWrites puts cache writes by the life of the cache. What is not said to be of
// another life is of five minutes, AWS's default.
func splitWrites(v waybill.Usage, total, half, hour int64) waybill.Usage {
	total = max(total, half+hour)
	return v.With(waybill.CacheWrite5m, total-half-hour).With(waybill.CacheWrite30m, half).With(waybill.CacheWrite1h, hour)
}

// claudeUsage is the usage of Anthropic's Messages: input excludes what was cached.
type claudeUsage struct {
	InputTokens   count `json:"input_tokens"`
	OutputTokens  count `json:"output_tokens"`
	CacheCreation count `json:"cache_creation_input_tokens"`
	CacheRead     count `json:"cache_read_input_tokens"`
	ByLife        struct {
		FiveMinutes count `json:"ephemeral_5m_input_tokens"`
		Hour        count `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	ServerTools struct {
		WebSearches count `json:"web_search_requests"`
	} `json:"server_tool_use"`
	ServiceTier string `json:"service_tier"`
}

func (u claudeUsage) usage() (waybill.Usage, bool) {
	if !u.InputTokens.there && !u.OutputTokens.there {
		return waybill.Usage{}, false
	}
	v := waybill.NewUsage().With(waybill.Input, u.InputTokens.n).With(waybill.Output, u.OutputTokens.n).With(waybill.CacheRead, u.CacheRead.n).
		With(waybill.SearchUnit, u.ServerTools.WebSearches.n)
	return splitWrites(v, max(u.CacheCreation.n, u.ByLife.FiveMinutes.n+u.ByLife.Hour.n), 0, u.ByLife.Hour.n), true
}

// merge takes the larger report of a stream, member by member: they count up, and a
// later one may leave out what an earlier one told.
func (u claudeUsage) merge(later claudeUsage) claudeUsage {
	u.InputTokens = larger(later.InputTokens, u.InputTokens)
	u.OutputTokens = larger(later.OutputTokens, u.OutputTokens)
	u.CacheCreation = larger(later.CacheCreation, u.CacheCreation)
	u.CacheRead = larger(later.CacheRead, u.CacheRead)
	u.ByLife.FiveMinutes = larger(later.ByLife.FiveMinutes, u.ByLife.FiveMinutes)
	u.ByLife.Hour = larger(later.ByLife.Hour, u.ByLife.Hour)
	u.ServerTools.WebSearches = larger(later.ServerTools.WebSearches, u.ServerTools.WebSearches)
	if later.ServiceTier != "" {
		u.ServiceTier = later.ServiceTier
	}
	return u
}

// openAIUsage is the usage of Chat Completions (prompt, completion) and of Responses
// (input, output): input includes what was cached, output includes reasoning.
type openAIUsage struct {
	Prompt        count `json:"prompt_tokens"`
	Completion    count `json:"completion_tokens"`
	Total         count `json:"total_tokens"`
	Input         count `json:"input_tokens"`
	Output        count `json:"output_tokens"`
	PromptDetails struct {
		Cached  count `json:"cached_tokens"`
		Written count `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	InputDetails struct {
		Cached  count `json:"cached_tokens"`
		Written count `json:"cache_write_tokens"`
	} `json:"input_tokens_details"`
	CompletionDetails struct {
		Reasoning count `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
	OutputDetails struct {
		Reasoning count `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
}

func (u openAIUsage) usage() (waybill.Usage, bool) {
	in, out := first(u.Prompt, u.Input), first(u.Completion, u.Output)
	if !in.there || !out.there && u.Total != in { // embeddings have no output
		return waybill.Usage{}, false
	}
	cached := first(u.PromptDetails.Cached, u.InputDetails.Cached).n
	written := first(u.PromptDetails.Written, u.InputDetails.Written).n
	if cached+written > in.n {
		return waybill.Usage{}, false // not the meaning we know
	}
	v := waybill.NewUsage().With(waybill.Input, in.n-cached-written).With(waybill.Output, out.n).
		With(waybill.CacheRead, cached).With(waybill.CacheWrite30m, written)
	v.Reasoning = first(u.CompletionDetails.Reasoning, u.OutputDetails.Reasoning).n
	return v, true
}

// withSearches adds the web searches among the output items of a response: they are
// charged by the query.
func withSearches(u waybill.Usage, output []byte) waybill.Usage {
	if len(output) == 0 {
		return u
	}
	var items []json.RawMessage
	if json.Unmarshal(output, &items) != nil {
		return u
	}
	var n int64
	for _, raw := range items {
		var item struct {
			Type   string
			Action struct {
				Type    string
				Queries []json.RawMessage
			}
		}
		if json.Unmarshal(raw, &item) == nil && item.Type == "web_search_call" && item.Action.Type == "search" {
			n += max(1, int64(len(item.Action.Queries)))
		}
	}
	return u.With(waybill.SearchUnit, n)
}

// member is the raw value of a member of an answer's object, of exactly that name. What
// a model says may be less than strict JSON: answers are read as leniently as can be.
func member(v []byte, name string) []byte {
	if len(v) == 0 || v[0] != '{' && !blank(v[0]) {
		return nil
	}
	found, err := findMember(v, name)
	if err == nil {
		return found
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(v, &m) != nil {
		return nil
	}
	return m[name]
}

// text is the text of a string of an answer, empty for any other value.
func text(v []byte) string {
	if len(v) < 2 || v[0] != '"' {
		return ""
	}
	plain := true // as nearly all are: names and ids
	for _, c := range v[1 : len(v)-1] {
		plain = plain && c >= ' ' && c < 0x80 && c != '"' && c != '\\'
	}
	if plain && v[len(v)-1] == '"' {
		return string(v[1 : len(v)-1])
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// usageOf reads a usage object of the answers of a shape. Answers of AWS's shape hold
// whatever the family of the model has.
func usageOf(shape Shape, raw []byte) (waybill.Usage, bool) {
	if len(raw) == 0 {
		return waybill.Usage{}, false
	}
	switch shape {
	case OpenAI:
		u, ok := readOpenAI(raw)
		if !ok {
			return waybill.Usage{}, false
		}
		return u.usage()
	case Anthropic:
		u, ok := readClaude(raw)
		if !ok {
			return waybill.Usage{}, false
		}
		return u.usage()
	}
	return anyUsage(raw)
}

// anyUsage reads a usage object of whichever family. The families that count what was
// cached as input come with a total, Claude without.
func anyUsage(raw []byte) (waybill.Usage, bool) {
	if n, ok := readNative(raw); ok {
		if v, ok := n.usage(); ok {
			return v, true
		}
	}
	if o, ok := readOpenAI(raw); ok && (o.Prompt.there || o.Total.there) {
		return o.usage()
	}
	return usageOf(Anthropic, raw)
}

func readNative(raw []byte) (nativeUsage, bool) {
	var u nativeUsage
	if readPlain(raw, "", []usageMember{
		{name: "inputTokens", count: &u.InputTokens}, {name: "outputTokens", count: &u.OutputTokens},
		{name: "cacheReadInputTokens", count: &u.CacheReadInputTokens}, {name: "cacheWriteInputTokens", count: &u.CacheWriteInputTokens},
		{name: "inputTokenCount", count: &u.InputTokenCount}, {name: "outputTokenCount", count: &u.OutputTokenCount},
		{name: "cacheReadInputTokenCount", count: &u.CacheReadInputTokenCount}, {name: "cacheWriteInputTokenCount", count: &u.CacheWriteInputTokenCount},
		{name: "cacheDetails"},
	}) {
		return u, true
	}
	return readLenient[nativeUsage](raw)
}

func readClaude(raw []byte) (claudeUsage, bool) {
	var u claudeUsage
	if readPlain(raw, "", []usageMember{
		{name: "input_tokens", count: &u.InputTokens}, {name: "output_tokens", count: &u.OutputTokens},
		{name: "cache_creation_input_tokens", count: &u.CacheCreation}, {name: "cache_read_input_tokens", count: &u.CacheRead},
		{in: "cache_creation", name: "ephemeral_5m_input_tokens", count: &u.ByLife.FiveMinutes},
		{in: "cache_creation", name: "ephemeral_1h_input_tokens", count: &u.ByLife.Hour},
		{in: "server_tool_use", name: "web_search_requests", count: &u.ServerTools.WebSearches},
		{name: "service_tier", text: &u.ServiceTier},
	}) {
		return u, true
	}
	return readLenient[claudeUsage](raw)
}

func readOpenAI(raw []byte) (openAIUsage, bool) {
	var u openAIUsage
	if readPlain(raw, "", []usageMember{
		{name: "prompt_tokens", count: &u.Prompt}, {name: "completion_tokens", count: &u.Completion}, {name: "total_tokens", count: &u.Total},
		{name: "input_tokens", count: &u.Input}, {name: "output_tokens", count: &u.Output},
		{in: "prompt_tokens_details", name: "cached_tokens", count: &u.PromptDetails.Cached},
		{in: "prompt_tokens_details", name: "cache_write_tokens", count: &u.PromptDetails.Written},
		{in: "input_tokens_details", name: "cached_tokens", count: &u.InputDetails.Cached},
		{in: "input_tokens_details", name: "cache_write_tokens", count: &u.InputDetails.Written},
		{in: "completion_tokens_details", name: "reasoning_tokens", count: &u.CompletionDetails.Reasoning},
		{in: "output_tokens_details", name: "reasoning_tokens", count: &u.OutputDetails.Reasoning},
	}) {
		return u, true
	}
	return readLenient[openAIUsage](raw)
}

// readLenient reads a usage object as encoding/json does: names in any case, the last of
// two members of one name, text that is not quite UTF-8.
func readLenient[T any](raw []byte) (T, bool) {
	u := new(T)
	err := json.Unmarshal(raw, u)
	return *u, err == nil
}

// A usageMember is a member of a usage object that means something: a count, a text, or
// what is left to readLenient.
type usageMember struct {
	in    string // the member whose object it is in; empty for the usage object itself
	name  string
	count *count
	text  *string
}

// readPlain reads the members of one object of usage that is written as nearly all are:
// by the strict grammar, names in their own case. It reports false for any other, and may
// have read a part of it then. FuzzPlainUsage holds it to what readLenient makes of it.
func readPlain(raw []byte, in string, members []usageMember) bool {
	return readObject(raw, func(m jsonMember) error {
		v := raw[m.valueStart:m.valueEnd]
		for i := range members {
			switch u := &members[i]; {
			case u.in == in && u.name == string(m.name):
				return u.read(v)
			case in == "" && u.in == string(m.name) && u.in != "":
				if string(v) == "null" || v[0] == '{' && readPlain(v, u.in, members) {
					return nil
				}
				return errNotPlain
			}
		}
		for i := range members { // encoding/json takes a name in another case for the same
			if u := &members[i]; u.in == in && strings.EqualFold(u.name, string(m.name)) || in == "" && strings.EqualFold(u.in, string(m.name)) {
				return errNotPlain
			}
		}
		return nil
	}) == nil
}

var errNotPlain = errors.New("usage in another form")

func (u *usageMember) read(v []byte) error {
	switch {
	case u.count != nil:
		return u.count.UnmarshalJSON(v)
	case string(v) == "null":
		return nil
	case u.text == nil:
		return errNotPlain
	}
	s, ok := stringOf(v)
	if !ok {
		return errNotPlain
	}
	*u.text = s
	return nil
}

// Token-count headers of unary Invoke answers.
const (
	inputCountHeader      = "X-Amzn-Bedrock-Input-Token-Count"
	outputCountHeader     = "X-Amzn-Bedrock-Output-Token-Count"
	cacheReadCountHeader  = "X-Amzn-Bedrock-Cache-Read-Input-Token-Count"
	cacheWriteCountHeader = "X-Amzn-Bedrock-Cache-Write-Input-Token-Count"
)

func headerCount(h http.Header, name string) count {
	var c count
	if s := h.Get(name); s != "" {
		_ = c.UnmarshalJSON([]byte(s)) // it has no error
	}
	return c
}

// headerUsage is the usage in the headers: input without what was cached. What they
// leave out comes from the body: output, the life of caches, images. Without output in
// either the usage is not known, but of embedding models, which have none.
func headerUsage(h http.Header, body waybill.Usage, inBody, embeds bool) (waybill.Usage, bool) {
	in, out := headerCount(h, inputCountHeader), headerCount(h, outputCountHeader)
	if !in.there || !out.there && !inBody && !embeds {
		return waybill.Usage{}, false
	}
	if !out.there {
		out.n = body.Of(waybill.Output)
	}
	v := waybill.NewUsage().With(waybill.Input, in.n).With(waybill.Output, out.n)
	read, written := headerCount(h, cacheReadCountHeader), headerCount(h, cacheWriteCountHeader)
	if !read.there {
		read.n = body.Of(waybill.CacheRead)
	}
	v = v.With(waybill.CacheRead, read.n).With(waybill.CacheWrite5m, written.n)
	if !written.there {
		for _, kind := range []waybill.Kind{waybill.CacheWrite5m, waybill.CacheWrite30m, waybill.CacheWrite1h} {
			v = v.With(kind, body.Of(kind))
		}
	}
	return completed(v, body).With(waybill.OutputImage, body.Of(waybill.OutputImage)), true
}

// familyUsage is the usage of families that have top-level counts and no usage object.
func familyUsage(found *memberScanner) (waybill.Usage, bool) {
	get := func(name string) count {
		var c count
		if raw, ok := found.lookUp(name); ok {
			_ = c.UnmarshalJSON(raw)
		}
		return c
	}
	if p, g := get("prompt_token_count"), get("generation_token_count"); p.there { // Llama
		return waybill.NewUsage().With(waybill.Input, p.n).With(waybill.Output, g.n), true
	}
	if in := first(get("inputTextTokenCount"), get("inputTokenCount")); in.there { // Titan, Nova embeddings
		out := get("totalOutputTextTokenCount").n
		var results []struct {
			TokenCount count `json:"tokenCount"`
		}
		if raw, ok := found.lookUp("results"); ok && json.Unmarshal(raw, &results) == nil {
			for _, r := range results {
				out += r.TokenCount.n
			}
		}
		return waybill.NewUsage().With(waybill.Input, in.n).With(waybill.Output, out), true
	}
	return waybill.Usage{}, false
}

// guardrailUnits adds up the text units of the policies in ApplyGuardrail's usage, in
// that of InvokeGuardrailChecks, or anywhere in a trace, and reports whether any were
// told. Units that are free, and images, are not among them.
func guardrailUnits(raw []byte) (total int64, told bool) {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return 0, false
	}
	var sum func(v any)
	sum = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, inner := range v {
				if n, ok := inner.(json.Number); !ok {
					sum(inner)
				} else if strings.HasSuffix(name, "PolicyUnits") || name == "textUnits" {
					var c count
					_ = c.UnmarshalJSON([]byte(n)) // it has no error
					total, told = total+c.n, told || c.there
				}
			}
		case []any:
			for _, inner := range v {
				sum(inner)
			}
		}
	}
	sum(v)
	return total, told
}

// errorCode is AWS's name of an error: the header's, else the body's.
func errorCode(h http.Header, found *memberScanner) string {
	name, _, _ := strings.Cut(h.Get("X-Amzn-Errortype"), ":")
	for _, other := range []string{text(found.raw("__type")), text(member(found.raw("Output"), "__type")), text(member(found.raw("error"), "code")), text(member(found.raw("error"), "type")), text(found.raw("code"))} {
		if name == "" {
			name = other[strings.IndexByte(other, '#')+1:]
		}
	}
	return name
}
