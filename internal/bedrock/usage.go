package bedrock

import (
	"encoding/json"
	"net/http"
	"strconv"

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
	ServiceTier string `json:"service_tier"`
}

func (u claudeUsage) usage() (waybill.Usage, bool) {
	if !u.InputTokens.there && !u.OutputTokens.there {
		return waybill.Usage{}, false
	}
	v := waybill.NewUsage().With(waybill.Input, u.InputTokens.n).With(waybill.Output, u.OutputTokens.n).With(waybill.CacheRead, u.CacheRead.n)
	return splitWrites(v, max(u.CacheCreation.n, u.ByLife.FiveMinutes.n+u.ByLife.Hour.n), 0, u.ByLife.Hour.n), true
}

// merge lets the later report of a stream win, member by member.
func (u claudeUsage) merge(later claudeUsage) claudeUsage {
	u.InputTokens = first(later.InputTokens, u.InputTokens)
	u.OutputTokens = first(later.OutputTokens, u.OutputTokens)
	u.CacheCreation = first(later.CacheCreation, u.CacheCreation)
	u.CacheRead = first(later.CacheRead, u.CacheRead)
	u.ByLife.FiveMinutes = first(later.ByLife.FiveMinutes, u.ByLife.FiveMinutes)
	u.ByLife.Hour = first(later.ByLife.Hour, u.ByLife.Hour)
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
	if !in.there {
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

// anyUsage reads a usage object of whichever family.
func anyUsage(raw []byte) (waybill.Usage, bool) {
	var n nativeUsage
	if json.Unmarshal(raw, &n) == nil {
		if v, ok := n.usage(); ok {
			return v, true
		}
	}
	var o openAIUsage
	if json.Unmarshal(raw, &o) == nil && o.Prompt.there {
		return o.usage()
	}
	var c claudeUsage
	if json.Unmarshal(raw, &c) == nil {
		if v, ok := c.usage(); ok {
			return v, true
		}
	}
	return waybill.Usage{}, false
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

// headerUsage is the usage in the headers: input without what was cached.
func headerUsage(h http.Header) (waybill.Usage, bool) {
	in, out := headerCount(h, inputCountHeader), headerCount(h, outputCountHeader)
	if !in.there {
		return waybill.Usage{}, false
	}
	v := waybill.NewUsage().With(waybill.Input, in.n).With(waybill.Output, out.n).
		With(waybill.CacheRead, headerCount(h, cacheReadCountHeader).n)
	return v.With(waybill.CacheWrite5m, headerCount(h, cacheWriteCountHeader).n), true
}

// familyMembers are top-level counts of families that have no usage object.
func familyUsage(found map[string][]byte) (waybill.Usage, bool) {
	get := func(name string) count {
		var c count
		if raw, ok := found[name]; ok {
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
		if raw, ok := found["results"]; ok && json.Unmarshal(raw, &results) == nil {
			for _, r := range results {
				out += r.TokenCount.n
			}
		}
		return waybill.NewUsage().With(waybill.Input, in.n).With(waybill.Output, out), true
	}
	return waybill.Usage{}, false
}
