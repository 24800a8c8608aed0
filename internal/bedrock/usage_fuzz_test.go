package bedrock

import (
	"encoding/json"
	"testing"

	"github.com/waybill-dev/waybill"
)

// jsonUsage is usageOf as encoding/json alone reads it: what the plain way must come to.
func jsonUsage(shape Shape, raw []byte) (waybill.Usage, bool) {
	var o openAIUsage
	var c claudeUsage
	switch shape {
	case OpenAI:
		if json.Unmarshal(raw, &o) != nil {
			return waybill.Usage{}, false
		}
		return o.usage()
	case Anthropic:
		if json.Unmarshal(raw, &c) != nil {
			return waybill.Usage{}, false
		}
		return c.usage()
	}
	var n nativeUsage
	if json.Unmarshal(raw, &n) == nil {
		if v, ok := n.usage(); ok {
			return v, true
		}
	}
	if json.Unmarshal(raw, &o) == nil && (o.Prompt.there || o.Total.there) {
		return o.usage()
	}
	return jsonUsage(Anthropic, raw)
}

// Usage that is read the plain way is what encoding/json makes of it, member by member and
// in every form that usage can come in.
func FuzzPlainUsage(f *testing.F) {
	for _, s := range []string{
		`{"inputTokens":10,"outputTokens":200,"totalTokens":210}`,
		`{"inputTokens":10,"outputTokens":200,"totalTokens":210,"cacheReadInputTokens":3,"cacheWriteInputTokens":4,"cacheDetails":[{"ttl":"1h","inputTokens":4}]}`,
		`{"inputTokens":1,"outputTokens":2,"cacheDetails":[]}`, `{"inputTokens":1,"outputTokens":2,"cacheDetails":null}`, `{"inputTokens":1,"outputTokens":2,"cacheDetails":7}`,
		`{"inputTokenCount":5,"outputTokenCount":6,"cacheReadInputTokenCount":7,"cacheWriteInputTokenCount":8}`,
		`{"INPUTTOKENS":10,"outputTokens":2}`, `{"inputTo` + "\u212a" + `ens":10,"outputTokens":2}`, `{"inputToken` + "\u017f" + `":10,"outputTokens":2}`,
		`{"inputTokens":1,"inputTokens":2,"outputTokens":3}`, `{"inputTokens":1,"InputTokens":2,"outputTokens":3}`, `{"input\u0054okens":1,"outputTokens":3}`,
		`{"inputTokens":1.0,"outputTokens":3}`, `{"inputTokens":1e3,"outputTokens":3}`, `{"inputTokens":-0,"outputTokens":-3}`, `{"inputTokens":"1","outputTokens":null}`,
		`{"inputTokens":281474976710655,"outputTokens":281474976710656}`, `{"inputTokens":99999999999999999999,"outputTokens":9223372036854775808}`, `{"inputTokens":[1],"outputTokens":{"a":1}}`,
		`{"input_tokens":10,"output_tokens":20,"cache_creation_input_tokens":5,"cache_read_input_tokens":6,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3},"server_tool_use":{"web_search_requests":2},"service_tier":"standard"}`,
		`{"input_tokens":10,"output_tokens":20,"cache_creation":null,"service_tier":null}`, `{"input_tokens":10,"output_tokens":20,"cache_creation":5}`, `{"input_tokens":10,"output_tokens":20,"service_tier":5}`,
		`{"input_tokens":10,"output_tokens":20,"cache_creation":{"Ephemeral_1h_input_tokens":3}}`, `{"input_tokens":10,"output_tokens":20,"Cache_Creation":{"ephemeral_1h_input_tokens":3}}`,
		`{"input_tokens":10,"output_tokens":20,"service_tier":"\ud800","Service_Tier":"x"}`, `{"input_tokens":10,"output_tokens":20,"server_tool_use":{"web_search_requests":1},"server_tool_use":{"web_search_requests":2}}`,
		`{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2},"completion_tokens_details":{"reasoning_tokens":9}}`,
		`{"input_tokens":10,"output_tokens":20,"total_tokens":30,"input_tokens_details":{"cached_tokens":4},"output_tokens_details":{"reasoning_tokens":9}}`,
		`{"prompt_tokens":7,"total_tokens":7}`, `{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}`, `{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":[]}`,
		`{"cached_tokens":4,"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"prompt_tokens":3}}`, `{"prompt_tokens":9,"completion_tokens":2,"completion_tokens_details":{"cached_tokens":3}}`,
		`null`, `[]`, `7`, ``, `{}`, ` {"inputTokens":1} `, `{"inputTokens":1}x`, `{"inputTokens":1`, "{\"inputTokens\":1,\"\xff\":2}", `{"":1,"inputTokens":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, shape := range []Shape{AWS, OpenAI, Anthropic} {
			want, wantOK := jsonUsage(shape, raw)
			if got, ok := usageOf(shape, raw); got != want || ok != wantOK {
				t.Errorf("shape %d of %q: %+v, %v, want %+v, %v", shape, raw, got, ok, want, wantOK)
			}
		}
		var want claudeUsage // its tier is read besides
		err := json.Unmarshal(raw, &want)
		if got, ok := readClaude(raw); ok != (err == nil) || ok && got != want {
			t.Errorf("%q: %+v, %v, want %+v, %v", raw, got, ok, want, err)
		}
	})
}

// Usage as the API families write it takes no second reading: that would allocate.
func TestUsageIsPlain(t *testing.T) {
	for i, raw := range []string{
		`{"inputTokens":10,"outputTokens":200,"totalTokens":210,"cacheReadInputTokens":0,"cacheWriteInputTokens":0}`,
		`{"input_tokens":10,"output_tokens":20,"cache_creation_input_tokens":5,"cache_read_input_tokens":6,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3},"service_tier":"standard"}`,
		`{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":9}}`,
	} {
		raw := []byte(raw)
		if n := testing.AllocsPerRun(10, func() { anyUsage(raw) }); n > []float64{0, 1, 0}[i] { // the name of a tier is a text
			t.Errorf("%s: %v allocations", raw, n)
		}
	}
}
