package bedrock_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

func route(op bedrock.Operation) bedrock.Route {
	r := bedrock.Route{Operation: op, Endpoint: waybill.Runtime, Spends: true}
	switch op {
	case bedrock.ChatCompletions, bedrock.Responses, bedrock.CompactResponse, bedrock.Embeddings:
		r.Shape, r.ModelInBody = bedrock.OpenAI, true
	case bedrock.GetResponse, bedrock.CancelResponse:
		r.Shape, r.Spends = bedrock.OpenAI, false
	case bedrock.Messages:
		r.Shape, r.ModelInBody = bedrock.Anthropic, true
	case bedrock.ConverseStream, bedrock.InvokeModelWithResponseStream:
		r.EventStream = true
	case bedrock.CountTokens, bedrock.ApplyGuardrail, bedrock.InvokeGuardrailChecks:
		r.Spends = false
	}
	return r
}

// answer is what a meter sees.
type answer struct {
	route  bedrock.Route
	status int
	header http.Header
	body   []byte

	model   waybill.ModelID // of the request
	request string          // its body
}

func (a answer) read(pieces ...int) bedrock.Reading {
	m := bedrock.NewMeter(a.route, a.status, a.header)
	if a.request != "" {
		m.Request(a.model, []byte(a.request))
	}
	left := a.body
	for i := 0; len(left) > 0; i++ {
		n := len(left)
		if len(pieces) > 0 {
			n = min(n, max(1, pieces[i%len(pieces)]))
		}
		m.Write(left[:n])
		left = left[n:]
	}
	return m.Read()
}

// check reads the answer in one piece, byte by byte and cut in two at every place, and
// compares.
func check(t *testing.T, a answer, want bedrock.Reading) {
	t.Helper()
	got := a.read()
	if diff := cmp.Diff(fields(want), fields(got)); diff != "" {
		t.Errorf("reading (-want +got):\n%s", diff)
	}
	if byByte := a.read(1); byByte != got {
		t.Errorf("byte by byte: %v\nin one piece: %v", fields(byByte), fields(got))
	}
	for i := 1; i < len(a.body); i++ {
		if cut := a.read(i, len(a.body)); cut != got {
			t.Fatalf("cut at %d: %v\nin one piece: %v", i, fields(cut), fields(got))
		}
	}
}

// fields is a reading as text, without what is empty.
func fields(r bedrock.Reading) map[string]string {
	m := map[string]string{"usage": usageText(r.Usage), "from": r.From, "tier": r.Tier, "latency": r.LatencyMode, "stop": r.StopReason, "id": r.ResponseID,
		"whole": fmt.Sprint(r.Whole), "exception": r.Exception, "error": r.ErrorCode, "guardrail": fmt.Sprint(r.GuardrailUnits),
		"unknown operation": fmt.Sprint(r.UnknownOperation), "model": string(r.Model), "background": fmt.Sprint(r.Background)}
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" || v == "false" || v == "0" })
	return m
}

func usageText(u waybill.Usage) string {
	b, err := u.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func usage(text string) (u waybill.Usage) {
	if err := json.Unmarshal([]byte(text), &u); err != nil {
		panic(err)
	}
	return u
}

func headers(pairs ...string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func tokens(pairs ...string) http.Header {
	h := headers()
	for i := 0; i < len(pairs); i += 2 {
		h.Set("X-Amzn-Bedrock-"+pairs[i]+"-Token-Count", pairs[i+1])
	}
	return h
}

// The families of models tell their usage each in its own way.
func TestUnaryUsage(t *testing.T) {
	tests := []struct {
		name   string
		op     bedrock.Operation
		header http.Header
		body   string
		want   bedrock.Reading
	}{
		{"Converse", bedrock.Converse, headers(),
			`{"output":{"message":{"role":"assistant","content":[{"text":"a \"usage\": {}"}]}},"stopReason":"end_turn","metrics":{"latencyMs":5},
			  "usage":{"inputTokens":22,"outputTokens":57,"totalTokens":79,"cacheReadInputTokens":7,"cacheWriteInputTokens":140,
			  "cacheDetails":[{"ttl":"1h","inputTokens":100},{"ttl":"5m","inputTokens":40}],"serverToolUsage":{},"cacheReadInputTokenCount":7,"cacheWriteInputTokenCount":140},
			  "serviceTier":{"type":"flex"},"performanceConfig":{"latency":"optimized"}}`,
			bedrock.Reading{Usage: usage(`{"input":22,"output":57,"cache_read":7,"cache_write_5m":40,"cache_write_1h":100}`), From: "body", Tier: "flex", LatencyMode: "optimized", StopReason: "end_turn", Whole: true}},
		{"Converse, guardrail in the trace", bedrock.Converse, headers(),
			`{"stopReason":"guardrail_intervened","usage":{"inputTokens":0,"outputTokens":0,"totalTokens":0},"trace":{"guardrail":{
			  "inputAssessment":{"g1":{"invocationMetrics":{"usage":{"topicPolicyUnits":1,"contentPolicyUnits":2,"sensitiveInformationPolicyFreeUnits":9}}}},
			  "outputAssessments":{"g1":[{"invocationMetrics":{"usage":{"topicPolicyUnits":4}}}]}}}}`,
			bedrock.Reading{Usage: usage(`{}`), From: "body", StopReason: "guardrail_intervened", GuardrailUnits: 7, Whole: true}},
		{"Claude, headers and body", bedrock.InvokeModel, tokens("Input", "3", "Output", "15", "Cache-Write-Input", "50", "Cache-Read-Input", "2"),
			`{"id":"msg_1","type":"message","usage":{"input_tokens":3,"output_tokens":14,"cache_creation_input_tokens":50,"cache_read_input_tokens":2,
			  "cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":40}},"stop_reason":"end_turn"}`,
			bedrock.Reading{Usage: usage(`{"input":3,"output":15,"cache_read":2,"cache_write_5m":10,"cache_write_1h":40}`), From: "headers", StopReason: "end_turn", ResponseID: "msg_1", Whole: true}},
		{"Claude, a web search besides the headers", bedrock.InvokeModel, tokens("Input", "3", "Output", "15"), `{"usage":{"input_tokens":3,"output_tokens":15,"server_tool_use":{"web_search_requests":1}}}`,
			bedrock.Reading{Usage: usage(`{"input":3,"output":15,"search_unit":1}`), From: "headers", Whole: true}},
		{"Claude, body alone", bedrock.InvokeModel, headers(), `{"usage":{"input_tokens":3,"output_tokens":14,"cache_creation_input_tokens":50}}`,
			bedrock.Reading{Usage: usage(`{"input":3,"output":14,"cache_write_5m":50}`), From: "body", Whole: true}},
		{"Nova", bedrock.InvokeModel, headers(), `{"output":{},"usage":{"inputTokens":4,"outputTokens":5,"totalTokens":9,"cacheReadInputTokenCount":1,"cacheWriteInputTokenCount":2}}`,
			bedrock.Reading{Usage: usage(`{"input":4,"output":5,"cache_read":1,"cache_write_5m":2}`), From: "body", Whole: true}},
		{"Titan text", bedrock.InvokeModel, headers(), `{"inputTextTokenCount":7,"results":[{"tokenCount":20,"outputText":"x"},{"tokenCount":3}]}`,
			bedrock.Reading{Usage: usage(`{"input":7,"output":23}`), From: "body", Whole: true}},
		{"Titan embeddings", bedrock.InvokeModel, headers(), `{"embedding":[0.1,-2e-3],"inputTextTokenCount":5}`,
			bedrock.Reading{Usage: usage(`{"input":5}`), From: "body", Whole: true}},
		{"Nova embeddings", bedrock.InvokeModel, headers(), `{"embeddings":[{}],"inputTokenCount":5}`, bedrock.Reading{Usage: usage(`{"input":5}`), From: "body", Whole: true}},
		{"Cohere embeddings, header alone", bedrock.InvokeModel, tokens("Input", "9"), `{"embeddings":[[0.1]],"id":"e1","texts":["x"]}`,
			bedrock.Reading{Usage: usage(`{"input":9}`), From: "headers", ResponseID: "e1", Whole: true}},
		{"Cohere Command, headers alone", bedrock.InvokeModel, tokens("Input", "9", "Output", "1"), `{"generations":[{"text":"x"}]}`,
			bedrock.Reading{Usage: usage(`{"input":9,"output":1}`), From: "headers", Whole: true}},
		{"Cohere Command, no headers", bedrock.InvokeModel, headers(), `{"generations":[{"text":"x"}]}`,
			bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"half of the headers", bedrock.InvokeModel, tokens("Input", "9"), `{"generations":[{"text":"x"}]}`,
			bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"rerank", bedrock.InvokeModel, headers(), `{"results":[{"index":0,"relevance_score":0.9}]}`, bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"Llama", bedrock.InvokeModel, headers(), `{"generation":"x","prompt_token_count":11,"generation_token_count":12,"stop_reason":"stop"}`,
			bedrock.Reading{Usage: usage(`{"input":11,"output":12}`), From: "body", StopReason: "stop", Whole: true}},
		{"Jamba, Mistral chat, gpt-oss", bedrock.InvokeModel, headers(), `{"id":"c1","choices":[{}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}`,
			bedrock.Reading{Usage: usage(`{"input":10,"output":4}`), From: "body", ResponseID: "c1", Whole: true}},
		{"images", bedrock.InvokeModel, headers(), `{"images":["aGk=", "aG,8="],"error":null}`, bedrock.Reading{Usage: usage(`{"output_image":2}`), From: "body", Whole: true}},
		{"no images", bedrock.InvokeModel, headers(), `{"images":[ ],"error":"filtered"}`, bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"a body that is cut, after headers", bedrock.InvokeModel, tokens("Input", "9", "Output", "1"), `{"generations":[{"te`,
			bedrock.Reading{Usage: usage(`{"input":9,"output":1}`), From: "headers"}},
		{"a body that is cut", bedrock.Converse, headers(), `{"output":{},"usage":{"inputTokens":1`, bedrock.Reading{From: "the answer was cut"}},
		{"compressed, after headers", bedrock.InvokeModel, func() http.Header {
			h := tokens("Input", "9", "Output", "1")
			h.Set("Content-Encoding", "gzip")
			return h
		}(), "\x1f\x8b", bedrock.Reading{Usage: usage(`{"input":9,"output":1}`), From: "headers"}},
		{"compressed", bedrock.Converse, headers("Content-Encoding", "gzip"), "\x1f\x8b", bedrock.Reading{From: "unmetered: the answer is encoded as gzip"}},
		{"Chat Completions", bedrock.ChatCompletions, headers(), `{"id":"chatcmpl-1","choices":[{"message":{"content":"hi"}}],"service_tier":"default",
			"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":10},"completion_tokens_details":{"reasoning_tokens":8}}}`,
			bedrock.Reading{Usage: usage(`{"input":30,"output":20,"cache_read":60,"cache_write_30m":10,"reasoning":8}`), From: "body", Tier: "standard", ResponseID: "chatcmpl-1", Whole: true}},
		{"more cached than read", bedrock.ChatCompletions, headers(), `{"usage":{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":60}}}`,
			bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"Responses", bedrock.Responses, headers(), `{"id":"resp_1","status":"completed","usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":20,"total_tokens":120,
			"output_tokens_details":{"reasoning_tokens":8}},"billing":{"payer":"developer"},"service_tier":"priority"}`,
			bedrock.Reading{Usage: usage(`{"input":40,"output":20,"cache_read":60,"reasoning":8}`), From: "body", Tier: "priority", ResponseID: "resp_1", Whole: true}},
		{"Responses with web searches", bedrock.Responses, headers(), `{"output":[{"type":"reasoning"},{"type":"local_shell_call","action":"ls"},{"type":"web_search_call","action":{"type":"search","queries":["a","b"]}},
			{"type":"web_search_call","action":{"type":"search","query":"c"}},{"type":"web_search_call","action":{"type":"open_page"}},{"type":"message","content":[]}],
			"usage":{"input_tokens":9,"output_tokens":2,"total_tokens":11}}`,
			bedrock.Reading{Usage: usage(`{"input":9,"output":2,"search_unit":3}`), From: "body", Whole: true}},
		{"Responses in the background", bedrock.Responses, headers(), `{"id":"resp_1","status":"queued","background":true,"usage":null}`,
			bedrock.Reading{From: "the response is made in the background: a later look at it tells", ResponseID: "resp_1", Background: true, Whole: true}},
		{"a look at it", bedrock.GetResponse, headers(), `{"id":"resp_1","status":"completed","background":true,"usage":{"input_tokens":9,"output_tokens":2,"total_tokens":11}}`,
			bedrock.Reading{Usage: usage(`{"input":9,"output":2}`), From: "body", ResponseID: "resp_1", Background: true, Whole: true}},
		{"a look at one that was metered", bedrock.GetResponse, headers(), `{"id":"resp_1","status":"completed","background":false,"usage":{"input_tokens":9,"output_tokens":2,"total_tokens":11}}`,
			bedrock.Reading{Usage: usage(`{}`), From: "free of charge", ResponseID: "resp_1", Whole: true}},
		{"a look at one that is being made", bedrock.GetResponse, headers(), `{"id":"resp_1","status":"in_progress","background":true,"model":"openai.gpt-oss-120b","usage":{"input_tokens":9,"output_tokens":1,"total_tokens":10}}`,
			bedrock.Reading{Usage: usage(`{}`), From: "free of charge", ResponseID: "resp_1", Model: "openai.gpt-oss-120b", Whole: true}},
		{"one that was cancelled", bedrock.CancelResponse, headers(), `{"id":"resp_1","status":"cancelled","background":true,"model":"openai.gpt-oss-120b","output":[{"type":"web_search_call","action":{"type":"search"}}],"usage":{"input_tokens":9,"output_tokens":2,"total_tokens":11}}`,
			bedrock.Reading{Usage: usage(`{"input":9,"output":2,"search_unit":1}`), From: "body", ResponseID: "resp_1", Model: "openai.gpt-oss-120b", Background: true, Whole: true}},
		{"Compaction", bedrock.CompactResponse, headers(), `{"id":"resp_2","object":"response.compaction","output":[],"usage":{"input_tokens":139,"input_tokens_details":{"cached_tokens":0},"output_tokens":438,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":577}}`,
			bedrock.Reading{Usage: usage(`{"input":139,"output":438,"reasoning":64}`), From: "body", ResponseID: "resp_2", Whole: true}},
		{"Embeddings without usage", bedrock.Embeddings, headers(), `{"data":[{"embedding":[0.1]}]}`, bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"Messages with web searches", bedrock.Messages, headers(), `{"usage":{"input_tokens":5,"output_tokens":6,"server_tool_use":{"web_search_requests":2}}}`,
			bedrock.Reading{Usage: usage(`{"input":5,"output":6,"search_unit":2}`), From: "body", Whole: true}},
		{"a prompt router's choice", bedrock.Converse, headers(), `{"usage":{"inputTokens":1,"outputTokens":2},"trace":{"promptRouter":{"invokedModelId":"arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"}}}`,
			bedrock.Reading{Usage: usage(`{"input":1,"output":2}`), From: "body", Model: "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", Whole: true}},
		{"caches of three lives", bedrock.Converse, headers(), `{"usage":{"inputTokens":1,"outputTokens":2,"cacheWriteInputTokens":111,"cacheDetails":[{"ttl":"1h","inputTokens":100},{"ttl":"30m","inputTokens":10},{"ttl":"5m","inputTokens":1}]}}`,
			bedrock.Reading{Usage: usage(`{"input":1,"output":2,"cache_write_5m":1,"cache_write_30m":10,"cache_write_1h":100}`), From: "body", Whole: true}},
		{"Mistral text, headers alone", bedrock.InvokeModel, tokens("Input", "9", "Output", "1"), `{"outputs":[{"text":"x","stop_reason":"stop"}]}`, bedrock.Reading{Usage: usage(`{"input":9,"output":1}`), From: "headers", Whole: true}},
		{"DeepSeek R1, headers alone", bedrock.InvokeModel, tokens("Input", "9", "Output", "1"), `{"choices":[{"text":"x","stop_reason":"stop"}]}`, bedrock.Reading{Usage: usage(`{"input":9,"output":1}`), From: "headers", Whole: true}},
		{"Pegasus, headers alone", bedrock.InvokeModel, tokens("Input", "9", "Output", "1"), `{"message":"x","finishReason":"stop"}`, bedrock.Reading{Usage: usage(`{"input":9,"output":1}`), From: "headers", Whole: true}},
		{"Titan image embeddings, header alone", bedrock.InvokeModel, tokens("Input", "9"), `{"embedding":[0.1],"message":null}`, bedrock.Reading{Usage: usage(`{"input":9}`), From: "headers", Whole: true}},
		{"Stability", bedrock.InvokeModel, headers(), `{"seeds":[7],"finish_reasons":[null],"images":["aGk="]}`, bedrock.Reading{Usage: usage(`{"output_image":1}`), From: "body", Whole: true}},
		{"Qwen with reasoning and a tier", bedrock.InvokeModel, headers(), `{"choices":[{}],"service_tier":"flex","usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"completion_tokens_details":{"reasoning_tokens":3}}}`,
			bedrock.Reading{Usage: usage(`{"input":10,"output":4,"reasoning":3}`), From: "body", Tier: "flex", Whole: true}},
		{"the tier and the latency of headers", bedrock.InvokeModel, func() http.Header {
			h := tokens("Input", "9", "Output", "1")
			h.Set("X-Amzn-Bedrock-Service-Tier", "default")
			h.Set("X-Amzn-Bedrock-PerformanceConfig-Latency", "optimized")
			return h
		}(), `{"outputs":[]}`, bedrock.Reading{Usage: usage(`{"input":9,"output":1}`), From: "headers", Tier: "standard", LatencyMode: "optimized", Whole: true}},
		{"a guardrail whose units are not told", bedrock.ApplyGuardrail, headers(), `{"action":"NONE"}`, bedrock.Reading{From: "unmetered: the answer has no guardrail units that are understood", Whole: true}},
		{"guardrail units that are none", bedrock.ApplyGuardrail, headers(), `{"usage":{"topicPolicyUnits":-1}}`, bedrock.Reading{From: "unmetered: the answer has no guardrail units that are understood", Whole: true}},
		{"a guardrail's answer that is cut", bedrock.ApplyGuardrail, headers(), `{"usage":{"topicPolicyUnits":1},"act`, bedrock.Reading{Usage: usage(`{}`), From: "guardrail", GuardrailUnits: 1, Whole: true}},
		{"a guardrail that did nothing", bedrock.ApplyGuardrail, headers(), `{"usage":{"topicPolicyUnits":0}}`, bedrock.Reading{Usage: usage(`{}`), From: "guardrail", Whole: true}},
		{"a free path that AWS does not know", bedrock.CountTokens, headers(), `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`,
			bedrock.Reading{Usage: usage(`{}`), From: "AWS does not know this path", UnknownOperation: true, Whole: true}},
		{"Embeddings", bedrock.Embeddings, headers(), `{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}`, bedrock.Reading{Usage: usage(`{"input":8}`), From: "body", Whole: true}},
		{"Messages", bedrock.Messages, headers(), `{"id":"msg_1","type":"message","stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":6,"cache_read_input_tokens":100,"service_tier":"standard"}}`,
			bedrock.Reading{Usage: usage(`{"input":5,"output":6,"cache_read":100}`), From: "body", Tier: "standard", StopReason: "end_turn", ResponseID: "msg_1", Whole: true}},
		{"ApplyGuardrail", bedrock.ApplyGuardrail, headers(), `{"usage":{"topicPolicyUnits":1,"contentPolicyUnits":2,"sensitiveInformationPolicyFreeUnits":4,"contentPolicyImageUnits":8},"action":"NONE"}`,
			bedrock.Reading{Usage: usage(`{}`), From: "guardrail", GuardrailUnits: 3, Whole: true}},
		{"InvokeGuardrailChecks", bedrock.InvokeGuardrailChecks, headers(), `{"usage":{"contentFilter":{"textUnits":2},"promptAttack":{"textUnits":1}}}`,
			bedrock.Reading{Usage: usage(`{}`), From: "guardrail", GuardrailUnits: 3, Whole: true}},
		{"CountTokens", bedrock.CountTokens, headers(), `{"inputTokens":12}`, bedrock.Reading{Usage: usage(`{}`), From: "free of charge", Whole: true}},
		{"StartAsyncInvoke", bedrock.StartAsyncInvoke, headers(), `{"invocationArn":"arn:aws:bedrock:us-east-1:111122223333:async-invoke/a1b2c3d4e5f6"}`,
			bedrock.Reading{From: "unmetered: the result goes to S3", ResponseID: "arn:aws:bedrock:us-east-1:111122223333:async-invoke/a1b2c3d4e5f6", Whole: true}},
		{"a path that AWS does not know", bedrock.Converse, headers(), `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`,
			bedrock.Reading{Usage: usage(`{}`), From: "AWS does not know this path", UnknownOperation: true, Whole: true}},
		{"counts that are none", bedrock.Converse, headers(), `{"usage":{"inputTokens":-1,"outputTokens":1.5}}`, bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"an array", bedrock.Converse, headers(), `[{"usage":{"inputTokens":1,"outputTokens":1}}]`, bedrock.Reading{From: "unmetered: the answer has no usage that is understood", Whole: true}},
		{"nothing", bedrock.Converse, headers(), ``, bedrock.Reading{From: "the answer was cut"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, answer{route: route(tt.op), status: 200, header: tt.header, body: []byte(tt.body)}, tt.want)
		})
	}
}

// Some models are charged by what was asked: the answer tells that they did it.
func TestUsageOfTheRequest(t *testing.T) {
	const started = `{"invocationArn":"arn:aws:bedrock:us-east-1:111122223333:async-invoke/a1b2c3d4e5f6"}`
	const ranked = `{"results":[{"index":1,"relevance_score":0.9}]}`
	documents := func(n int) string {
		return `{"query":"q","top_n":1,"documents":[` + strings.TrimSuffix(strings.Repeat(`"a, ]b", `, n), ", ") + `]}`
	}
	job := func(model, input string) string { return `{"modelId":"` + model + `","modelInput":` + input + `}` }
	const reel, luma, marengo = "amazon.nova-reel-v1:1", "luma.ray-v2:0", "us.twelvelabs.marengo-embed-2-7-v1:0"
	const invoke, start = bedrock.InvokeModel, bedrock.StartAsyncInvoke
	tests := []struct {
		name    string
		op      bedrock.Operation
		model   waybill.ModelID
		request string
		answer  string
		want    string
	}{
		{"one query", invoke, "cohere.rerank-v3-5:0", documents(1), ranked, `{"search_unit":1}`},
		{"a hundred documents", invoke, "amazon.rerank-v1:0", documents(100), ranked, `{"search_unit":1}`},
		{"a hundred and one", invoke, "cohere.rerank-v3-5:0", documents(101), ranked, `{"search_unit":2}`},
		{"350 documents", invoke, "cohere.rerank-v3-5:0", documents(350), ranked, `{"search_unit":4}`},
		{"no documents", invoke, "cohere.rerank-v3-5:0", `{"query":"q","documents":[]}`, ranked, `null`},
		{"documents of a chat", invoke, "cohere.command-r-v1:0", `{"message":"q","documents":[{"text":"x"}]}`, `{"text":"x"}`, `null`},
		{"an answer without results", invoke, "cohere.rerank-v3-5:0", documents(3), `{"message":"x"}`, `null`},
		{"Nova Reel, one shot", start, reel, job(reel, `{"taskType":"TEXT_VIDEO","videoGenerationConfig":{"durationSeconds":6,"fps":24}}`), started, `{"video_second":6}`},
		{"Nova Reel, one shot, by default", start, reel, job(reel, `{"taskType":"TEXT_VIDEO"}`), started, `{"video_second":6}`},
		{"Nova Reel, automated shots", start, reel, job(reel, `{"taskType":"MULTI_SHOT_AUTOMATED","videoGenerationConfig":{"durationSeconds":120}}`), started, `{"video_second":120}`},
		{"Nova Reel, automated shots of no length", start, reel, job(reel, `{"taskType":"MULTI_SHOT_AUTOMATED"}`), started, `null`},
		{"Nova Reel, three shots", start, reel, job(reel, `{"taskType":"MULTI_SHOT_MANUAL","multiShotManualParams":{"shots":[{"text":"a"},{"text":"b, [c]"} , {"text":"d"}]}}`), started, `{"video_second":18}`},
		{"Luma", start, luma, job(luma, `{"prompt":"x","duration":"9s","resolution":"720p"}`), started, `{"video_second":9}`},
		{"Luma, no length", start, luma, job(luma, `{"prompt":"x"}`), started, `null`},
		{"Marengo, a part of a video", start, marengo, job(marengo, `{"inputType":"video","startSec":3,"lengthSec":20.5}`), started, `{"input_video_second":21}`},
		{"Marengo, sound", start, marengo, job(marengo, `{"inputType":"audio","lengthSec":30}`), started, `{"input_audio_second":30}`},
		{"Marengo, a whole video", start, marengo, job(marengo, `{"inputType":"video"}`), started, `null`},
		{"a model that is not known", start, "x.y", job("x.y", `{"duration":"9s"}`), started, `null`},
		{"lengths that are none", start, luma, job(luma, `{"duration":"-9s"}`), started, `null`},
		{"a job that was not started", start, luma, job(luma, `{"duration":"9s"}`), `{}`, `null`},
		{"a body that is no object", start, luma, `[`, started, `null`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := answer{route: route(tt.op), status: 200, header: headers(), body: []byte(tt.answer), model: tt.model, request: tt.request}
			got := a.read()
			if usageText(got.Usage) != tt.want || got.Usage.Known != (got.From == "request") || !got.Usage.Known && got.From == "" {
				t.Errorf("usage %s, from %q; want %s", usageText(got.Usage), got.From, tt.want)
			}
			check(t, a, got)
			if a.status = 400; usageText(a.read().Usage) != `{}` {
				t.Errorf("refused: usage %s", usageText(a.read().Usage))
			}
		})
	}
}

// Whatever AWS answers with 200 where money is spent: usage that is not understood is not
// known, and the record says why. It is never nothing.
func TestAnswersThatAreNotUnderstood(t *testing.T) {
	media := []string{"application/json", "application/vnd.amazon.eventstream", "text/event-stream", "text/html", "application/octet-stream", ""}
	bodies := []string{"", "{", "{}", "[]", "null", "\x00\xff", "<html>", "data: x", "data: [DONE]\n\n", ": ping\n\n", `{"usage":null}`, `{"usage":{}}`, `{"usage":[]}`, `{"usage":"1"}`, `{"usage":{"inputTokens":"3"}}`,
		`{"usage":{"prompt_tokens":-1,"completion_tokens":2}}`, `{"Usage":{"inputTokens":1,"outputTokens":1}}`, `{"error":{"message":"x"}}`, "data: {\"usage\":{}}\n\ndata: [DONE]\n\n", string(prelude(16, 0)),
		"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":null}}\n\n"}
	for _, op := range []bedrock.Operation{bedrock.InvokeModel, bedrock.InvokeModelWithResponseStream, bedrock.Converse, bedrock.ConverseStream, bedrock.StartAsyncInvoke, bedrock.ChatCompletions, bedrock.Responses,
		bedrock.CompactResponse, bedrock.Messages, bedrock.Embeddings} {
		for _, kind := range media {
			for _, body := range bodies {
				for _, status := range []int{200, 201, 202} {
					got := answer{route: route(op), status: status, header: headers("Content-Type", kind), body: []byte(body)}.read()
					if got.Usage.Known || got.From == "" {
						t.Errorf("%s answered with %d %s %q: usage %s, from %q", op, status, kind, body, usageText(got.Usage), got.From)
					}
				}
			}
		}
	}
}

// Base64 of many megabytes passes without being kept.
func TestImageLargerThanTheScannerKeeps(t *testing.T) {
	big := strings.Repeat("QUJD", 1<<20)
	a := answer{route: route(bedrock.InvokeModel), status: 200, header: headers(), body: []byte(`{"images":["` + big + `","` + big + `"]}`)}
	if got := a.read(32 << 10); got.Usage.Of(waybill.OutputImage) != 2 {
		t.Errorf("usage %s, from %q", usageText(got.Usage), got.From)
	}
}

func TestFailures(t *testing.T) {
	tests := []struct {
		name   string
		status int
		header http.Header
		body   string
		want   bedrock.Reading
	}{
		{"refused", 400, headers("x-amzn-ErrorType", "ValidationException:http://internal.example/"), `{"message":"x"}`,
			bedrock.Reading{Usage: usage(`{}`), From: "refused by AWS", ErrorCode: "ValidationException", Whole: true}},
		{"throttled", 429, headers(), `{"__type":"com.amazon.coral#ThrottlingException","message":"x"}`,
			bedrock.Reading{Usage: usage(`{}`), From: "refused by AWS", ErrorCode: "ThrottlingException", Whole: true}},
		{"OpenAI's shape", 404, headers(), `{"error":{"message":"x","type":"invalid_request_error","code":"model_not_found"}}`,
			bedrock.Reading{Usage: usage(`{}`), From: "refused by AWS", ErrorCode: "model_not_found", Whole: true}},
		{"Anthropic's shape", 529, headers(), `{"type":"error","error":{"type":"overloaded_error","message":"x"}}`,
			bedrock.Reading{From: "the call failed after it may have begun", ErrorCode: "overloaded_error", Whole: true}},
		{"an error that is a string", 403, headers(), `{"error":"no"}`, bedrock.Reading{Usage: usage(`{}`), From: "refused by AWS", Whole: true}},
		{"the model took too long", 408, headers("x-amzn-ErrorType", "ModelTimeoutException"), `{}`,
			bedrock.Reading{From: "the call failed after it may have begun", ErrorCode: "ModelTimeoutException", Whole: true}},
		{"the model failed", 424, headers("x-amzn-ErrorType", "ModelErrorException"), `{}`,
			bedrock.Reading{From: "the call failed after it may have begun", ErrorCode: "ModelErrorException", Whole: true}},
		{"AWS failed", 500, headers("x-amzn-ErrorType", "InternalServerException"), `{}`,
			bedrock.Reading{From: "the call failed after it may have begun", ErrorCode: "InternalServerException", Whole: true}},
		{"a path that AWS does not know", 404, headers(), `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`,
			bedrock.Reading{Usage: usage(`{}`), From: "refused by AWS", ErrorCode: "UnknownOperationException", Whole: true}},
		{"a balancer's page", 502, headers("Content-Type", "text/html"), `<html>`, bedrock.Reading{From: "the call failed after it may have begun"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, answer{route: route(bedrock.Converse), status: tt.status, header: tt.header, body: []byte(tt.body)}, tt.want)
		})
	}
}

// message is one frame, made by the SDK's encoder.
func message(kind, name, payload string) []byte {
	var m eventstream.Message
	m.Headers.Set(":"+kind+"-type", eventstream.StringValue(name))
	m.Headers.Set(":content-type", eventstream.StringValue("application/json"))
	m.Headers.Set(":message-type", eventstream.StringValue(kind))
	m.Payload = []byte(payload)
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// prelude is how a frame of these lengths begins.
func prelude(total, headers uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, total)
	b = binary.BigEndian.AppendUint32(b, headers)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func event(name, payload string) []byte { return message("event", name, payload) }

// part is one chunk of a streamed Invoke answer.
func part(doc string) []byte {
	return event("chunk", `{"bytes":"`+base64.StdEncoding.EncodeToString([]byte(doc))+`","p":"abcdef"}`)
}

func eventStream(op bedrock.Operation, frames ...[]byte) answer {
	return answer{route: route(op), status: 200, header: headers("Content-Type", "application/vnd.amazon.eventstream"), body: bytes.Join(frames, nil)}
}

func TestEventStreams(t *testing.T) {
	start := part(`{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":3,"cache_creation_input_tokens":50,"cache_read_input_tokens":2,
		"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":40},"output_tokens":1}}}`)
	delta := part(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello \"usage\""}}`)
	end := part(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":8}}`)
	metrics := `"amazon-bedrock-invocationMetrics":{"inputTokenCount":3,"outputTokenCount":9,"invocationLatency":5,"firstByteLatency":1,"cacheReadInputTokenCount":2,"cacheWriteInputTokenCount":50}`
	stop := part(`{"type":"message_stop",` + metrics + `}`)
	throttled := message("exception", "throttlingException", `{"message":"slow"}`)
	const invoke, converse = bedrock.InvokeModelWithResponseStream, bedrock.ConverseStream
	metadata := event("metadata", `{"metrics":{"latencyMs":5},"p":"ab","usage":{"inputTokens":10,"outputTokens":20,"totalTokens":30,"cacheWriteInputTokens":7,"cacheDetails":[{"ttl":"1h","inputTokens":7}]},"serviceTier":{"type":"default"}}`)
	known := usage(`{"input":3,"output":9,"cache_read":2,"cache_write_5m":10,"cache_write_1h":40}`)
	var failure eventstream.Message
	failure.Headers.Set(":message-type", eventstream.StringValue("error"))
	failure.Headers.Set(":error-code", eventstream.StringValue("InternalFailure"))
	var failed bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&failed, failure); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		answer answer
		want   bedrock.Reading
	}{
		{"Claude: metrics count, the start tells the life of caches", eventStream(invoke, start, delta, end, stop),
			bedrock.Reading{Usage: known, From: "metrics", StopReason: "end_turn", ResponseID: "msg_1", Whole: true}},
		{"cut before the metrics", eventStream(invoke, start, delta, end), bedrock.Reading{From: "the stream was cut before its usage", StopReason: "end_turn", ResponseID: "msg_1"}},
		{"cut within the last frame", eventStream(invoke, start, stop[:len(stop)-1]), bedrock.Reading{From: "the stream was cut before its usage", ResponseID: "msg_1"}},
		{"an exception", eventStream(invoke, start, delta, throttled), bedrock.Reading{From: "the stream ended with an exception", Exception: "throttlingException", ResponseID: "msg_1", Whole: true}},
		{"an exception after the metrics", eventStream(invoke, stop, throttled), bedrock.Reading{Usage: usage(`{"input":3,"output":9,"cache_read":2,"cache_write_5m":50}`), From: "metrics", Exception: "throttlingException", Whole: true}},
		{"an error", eventStream(invoke, failed.Bytes()), bedrock.Reading{From: "the stream ended with an exception", Exception: "InternalFailure", Whole: true}},
		{"a family whose message is text", eventStream(invoke, part(`{"message":"hi","delta":"x","type":7,`+metrics+`}`)),
			bedrock.Reading{Usage: usage(`{"input":3,"output":9,"cache_read":2,"cache_write_5m":50}`), From: "metrics", Whole: true}},
		{"a chunk in other spacing", eventStream(invoke, event("chunk", `{"p":"abc", "bytes" : "`+base64.StdEncoding.EncodeToString([]byte(`{`+metrics+`}`))+`"}`)),
			bedrock.Reading{Usage: usage(`{"input":3,"output":9,"cache_read":2,"cache_write_5m":50}`), From: "metrics", Whole: true}},
		{"Nova without metrics", eventStream(invoke, part(`{"contentBlockDelta":{"delta":{"text":"x"}}}`), part(`{"metadata":{"usage":{"inputTokens":4,"outputTokens":5},"metrics":{}}}`)),
			bedrock.Reading{Usage: usage(`{"input":4,"output":5}`), From: "chunk", Whole: true}},
		{"gpt-oss without metrics", eventStream(invoke, part(`{"id":"c1","choices":[{"finish_reason":null}],"usage":{"prompt_tokens":4,"completion_tokens":1}}`), part(`{"id":"c1","choices":[{"finish_reason" : "stop"}],"usage":{"prompt_tokens":4,"completion_tokens":5}}`)),
			bedrock.Reading{Usage: usage(`{"input":4,"output":5}`), From: "chunk", ResponseID: "c1", Whole: true}},
		{"metrics win", eventStream(invoke, part(`{"id":"c1","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":5},`+metrics+`}`)),
			bedrock.Reading{Usage: usage(`{"input":3,"output":9,"cache_read":2,"cache_write_5m":50}`), From: "metrics", ResponseID: "c1", Whole: true}},
		{"reasoning besides the metrics", eventStream(invoke, part(`{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":7}},`+strings.Replace(metrics, `,"cacheReadInputTokenCount":2,"cacheWriteInputTokenCount":50`, "", 1)+`}`)),
			bedrock.Reading{Usage: usage(`{"input":3,"output":9,"reasoning":7}`), From: "metrics", Whole: true}},
		{"web searches besides the metrics", eventStream(invoke, start, part(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":8,"server_tool_use":{"web_search_requests":2}}}`), stop),
			bedrock.Reading{Usage: usage(`{"input":3,"output":9,"cache_read":2,"cache_write_5m":10,"cache_write_1h":40,"search_unit":2}`), From: "metrics", StopReason: "end_turn", ResponseID: "msg_1", Whole: true}},
		{"usage so far, then cut", eventStream(invoke, part(`{"id":"c1","choices":[{"finish_reason":null}],"usage":{"prompt_tokens":4,"completion_tokens":1}}`)),
			bedrock.Reading{From: "the stream was cut before its usage", ResponseID: "c1"}},
		{"a family's usage, then cut within a frame", eventStream(invoke, part(`{"metadata":{"usage":{"inputTokens":4,"outputTokens":5}}}`), delta[:40]), bedrock.Reading{From: "the stream was cut before its usage"}},
		{"text that speaks of metrics", eventStream(invoke, part(`{"outputText":"\"amazon-bedrock-invocationMetrics\":{\"inputTokenCount\":1}"}`)), bedrock.Reading{From: "the stream was cut before its usage"}},
		{"base64 that is none", eventStream(invoke, event("chunk", `{"bytes":"!!!!"}`)), bedrock.Reading{From: "the stream was cut before its usage"}},
		{"Converse: metadata follows messageStop", eventStream(converse, event("messageStart", `{"role":"assistant"}`), event("contentBlockDelta", `{"delta":{"text":"hi"}}`),
			event("messageStop", `{"stopReason":"tool_use","p":"a"}`), event("ofTheFuture", `{}`), metadata),
			bedrock.Reading{Usage: usage(`{"input":10,"output":20,"cache_write_1h":7}`), From: "metadata", Tier: "standard", StopReason: "tool_use", Whole: true}},
		{"Converse, cut after messageStop", eventStream(converse, event("messageStop", `{"stopReason":"end_turn"}`)), bedrock.Reading{From: "the stream was cut before its usage", StopReason: "end_turn"}},
		{"not a stream", eventStream(converse, []byte("<html>oh no</html>")), bedrock.Reading{From: "unmetered: the stream is not an event stream"}},
		{"a frame that was changed", eventStream(converse, bytes.Replace(metadata, []byte("20"), []byte("21"), 1)), bedrock.Reading{From: "unmetered: the stream is not an event stream"}},
		{"a frame of gigabytes", eventStream(converse, prelude(1<<31, 0)), bedrock.Reading{From: "unmetered: the stream is not an event stream"}},
		{"a frame smaller than a frame", eventStream(converse, prelude(15, 0)), bedrock.Reading{From: "unmetered: the stream is not an event stream"}},
		{"headers longer than the frame", eventStream(converse, prelude(20, 5)), bedrock.Reading{From: "unmetered: the stream is not an event stream"}},
		{"nothing", eventStream(converse), bedrock.Reading{From: "the stream was cut before its usage"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.answer, tt.want) })
	}
}

func sse(op bedrock.Operation, body string) answer {
	return answer{route: route(op), status: 200, header: headers("Content-Type", "text/event-stream; charset=utf-8"), body: []byte(body)}
}

func TestServerSentEvents(t *testing.T) {
	const (
		chatDelta = "data: {\"id\":\"c1\",\"choices\":[{\"delta\":{\"content\":\"say \\\"usage\\\" and \\\"error\\\"\"}}],\"usage\":null}\n\n"
		chatUsage = "data: {\"id\":\"c1\",\"choices\":[],\"service_tier\":\"flex\",\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"
		soFar     = "data: {\"id\":\"c1\",\"choices\":[{}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1,\"total_tokens\":11}}\n\n"
		done      = "data: [DONE]\n\n"
		created   = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"usage\":null,\"error\":null}}\n\n"
		completed = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"service_tier\":\"default\",\"error\":null,\"usage\":{\"input_tokens\":16,\"input_tokens_details\":{\"cached_tokens\":6},\"output_tokens\":11,\"output_tokens_details\":{\"reasoning_tokens\":3},\"total_tokens\":27}}}\n\n"
		start     = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1,\"cache_creation_input_tokens\":3,\"cache_creation\":{\"ephemeral_1h_input_tokens\":3},\"service_tier\":\"standard\"}}}\n\n"
		end       = "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":0,\"output_tokens\":9}}\r\n\r\n"
		stop      = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	)
	background := strings.ReplaceAll(created+completed, "\"id\":", "\"background\":true,\"model\":\"m\",\"id\":")
	messages := bedrock.Reading{Usage: usage(`{"input":7,"output":9,"cache_write_1h":3}`), From: "sse", Tier: "standard", StopReason: "end_turn", ResponseID: "msg_1", Whole: true}
	tests := []struct {
		name   string
		answer answer
		want   bedrock.Reading
	}{
		{"Chat", sse(bedrock.ChatCompletions, ": hello\n\n"+chatDelta+chatUsage+done), bedrock.Reading{Usage: usage(`{"input":6,"output":5,"cache_read":4}`), From: "sse", Tier: "flex", ResponseID: "c1", Whole: true}},
		{"Chat with CRLF", sse(bedrock.ChatCompletions, strings.ReplaceAll(chatDelta+chatUsage+done, "\n", "\r\n")), bedrock.Reading{Usage: usage(`{"input":6,"output":5,"cache_read":4}`), From: "sse", Tier: "flex", ResponseID: "c1", Whole: true}},
		{"Chat without usage", sse(bedrock.ChatCompletions, chatDelta+done), bedrock.Reading{From: "unmetered: the stream ended without usage", ResponseID: "c1", Whole: true}},
		{"Chat, cut", sse(bedrock.ChatCompletions, chatDelta), bedrock.Reading{From: "the stream was cut before its usage", ResponseID: "c1"}},
		{"Chat, cut after its usage", sse(bedrock.ChatCompletions, chatDelta+chatUsage), bedrock.Reading{Usage: usage(`{"input":6,"output":5,"cache_read":4}`), From: "sse", Tier: "flex", ResponseID: "c1"}},
		{"Chat, cut after the usage so far", sse(bedrock.ChatCompletions, soFar+chatDelta), bedrock.Reading{From: "the stream was cut before its usage", ResponseID: "c1"}},
		{"Chat, an error", sse(bedrock.ChatCompletions, chatDelta+"data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"code\":null}}\n\n"),
			bedrock.Reading{From: "the stream ended with an error", Exception: "server_error", ResponseID: "c1"}},
		{"Responses", sse(bedrock.Responses, created+completed), bedrock.Reading{Usage: usage(`{"input":10,"output":11,"cache_read":6,"reasoning":3}`), From: "sse", Tier: "standard", ResponseID: "resp_1", Whole: true}},
		{"Responses, cut", sse(bedrock.Responses, created), bedrock.Reading{From: "the stream was cut before its usage", ResponseID: "resp_1"}},
		{"Responses, incomplete", sse(bedrock.Responses, strings.ReplaceAll(created+completed, "response.completed", "response.incomplete")), bedrock.Reading{Usage: usage(`{"input":10,"output":11,"cache_read":6,"reasoning":3}`), From: "sse", Tier: "standard", ResponseID: "resp_1", Whole: true}},
		{"Responses in the background, streamed", sse(bedrock.Responses, background), bedrock.Reading{Usage: usage(`{"input":10,"output":11,"cache_read":6,"reasoning":3}`), From: "sse", Tier: "standard", ResponseID: "resp_1", Background: true, Whole: true}},
		{"Responses in the background, left", sse(bedrock.Responses, background[:200]), bedrock.Reading{From: "the stream was cut before its usage", ResponseID: "resp_1", Background: true}},
		{"a streamed look at it", sse(bedrock.GetResponse, background), bedrock.Reading{Usage: usage(`{"input":10,"output":11,"cache_read":6,"reasoning":3}`), From: "sse", Tier: "standard", ResponseID: "resp_1", Model: "m", Background: true, Whole: true}},
		{"a streamed look that was left", sse(bedrock.GetResponse, background[:200]), bedrock.Reading{Usage: usage(`{}`), From: "free of charge", ResponseID: "resp_1"}},
		{"a streamed look at one that was metered", sse(bedrock.GetResponse, created+completed), bedrock.Reading{Usage: usage(`{}`), From: "free of charge", Tier: "standard", ResponseID: "resp_1", Whole: true}},
		{"Messages with web searches", sse(bedrock.Messages, start+strings.Replace(end, "\"output_tokens\":9", "\"output_tokens\":9,\"server_tool_use\":{\"web_search_requests\":2}", 1)+stop),
			bedrock.Reading{Usage: usage(`{"input":7,"output":9,"cache_write_1h":3,"search_unit":2}`), From: "sse", Tier: "standard", StopReason: "end_turn", ResponseID: "msg_1", Whole: true}},
		{"Responses without event names", sse(bedrock.Responses, strings.ReplaceAll(completed, "event: response.completed\n", "")), bedrock.Reading{Usage: usage(`{"input":10,"output":11,"cache_read":6,"reasoning":3}`), From: "sse", Tier: "standard", ResponseID: "resp_1", Whole: true}},
		{"Responses with a web search", sse(bedrock.Responses, "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"type\":\"web_search_call\",\"action\":{\"type\":\"search\"}}],\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n"),
			bedrock.Reading{Usage: usage(`{"input":1,"output":2,"search_unit":1}`), From: "sse", Whole: true}},
		{"Responses, failed", sse(bedrock.Responses, "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"id\":\"resp_1\",\"error\":{\"code\":\"server_error\"}}}\n\n"),
			bedrock.Reading{From: "the stream ended with an error", Exception: "server_error", ResponseID: "resp_1", Whole: true}},
		{"Messages", sse(bedrock.Messages, start+"event: ping\ndata: {\"type\": \"ping\"}\n\n"+end+stop), messages},
		{"Messages, the last blank line missing", sse(bedrock.Messages, start+end+strings.TrimSpace(stop)), messages},
		{"Messages, cut", sse(bedrock.Messages, start), bedrock.Reading{From: "the stream was cut before its usage", Tier: "standard", ResponseID: "msg_1"}},
		{"Messages, an error", sse(bedrock.Messages, start+"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n"),
			bedrock.Reading{From: "the stream ended with an error", Tier: "standard", Exception: "overloaded_error", ResponseID: "msg_1"}},
		{"data in two lines", sse(bedrock.ChatCompletions, "data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n"+done), bedrock.Reading{Usage: usage(`{"input":1,"output":2}`), From: "sse", Whole: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.answer, tt.want) })
	}
}

// Callers who did not ask for usage see the stream as if nobody had, however it is cut.
func TestUsageFilter(t *testing.T) {
	const (
		first = "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\"\"}}],\"usage\":null}\n\n"
		usage = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5}}\n\n"
		empty = "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n"
		both  = "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5}}\n\n"
		done  = "data: [DONE]\n\n"
		plain = "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\"\"}}]}\n\n" // first, unasked
	)
	long := "data: \"" + strings.Repeat("x", 100<<10) + "\"\n\n"
	tests := []struct{ in, want string }{
		{empty + first + usage + done, empty + plain + done},
		{first + strings.ReplaceAll(usage, "\n", "\r\n") + done, plain + done},
		{first + strings.TrimSpace(usage), plain},
		{first + both + done, plain + both + done},
		{long + first + usage + long + usage + done, long + plain + long + done},
		{": comment\n\n\n" + first + "cut in the mi", ": comment\n\n\n" + plain + "cut in the mi"},
		{": one\n" + usage + done, ": one\n" + done},
		{"x\n" + usage + done, done},
		{"\n\r\n" + usage + done, "\n\r\n" + done},
		{first + "event: x\r\n: two\r\nid: 7\r\n" + strings.ReplaceAll(usage, "\n", "\r\n") + done, plain + ": two\r\n" + done},
		{"data: {\"choices\":[ ],\ndata: \"usage\":{\"prompt_tokens\":1}}\n\n" + done, done},
		{strings.Replace(usage, "[]", "null", 1) + done, done},
		{strings.Replace(usage, "}}", "}", 1) + done, strings.Replace(usage, "}}", "}", 1) + done},
		{strings.Replace(usage, `{"prompt_tokens":10,"completion_tokens":5}`, "null", 1) + done, "data: {\"id\":\"c1\",\"choices\":[]}\n\n" + done},
		{"data: {\"a\": 1, \"usage\": null, \"b\": {\"usage\": null}}\r\n\r\n", "data: {\"a\": 1, \"b\": {\"usage\": null}}\r\n\r\n"},
		{"event: x\ndata:{\"usage\":null , \"a\":1}\nid: 2\n\n", "event: x\ndata:{\"a\":1}\nid: 2\n\n"},
		{"data: {\"a\":1 , \"usage\":null }\n\n", "data: {\"a\":1  }\n\n"},
		{"data: { \"usage\":null}\n\n", "data: { }\n\n"},
		{"data: {\"a\":1,\ndata: \"usage\":null}\n\n", "data: {\"a\":1,\ndata: \"usage\":null}\n\n"},
		{"", ""},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 2, 3, 7, 64, 4096, 1 << 20} {
			var f bedrock.UsageFilter
			var got []byte
			for left := []byte(tt.in); len(left) > 0; {
				n := min(size, len(left))
				got = append(got, f.Filter(left[:n])...)
				left = left[n:]
			}
			got = append(got, f.End()...)
			if string(got) != tt.want {
				t.Errorf("in pieces of %d: %.300q, want %.300q", size, got, tt.want)
			}
		}
	}
}

// The log keeps an answer as one object, or as the array of its chunks.
func TestBodyUsage(t *testing.T) {
	tests := []struct{ body, want string }{
		{`{"usage":{"inputTokens":4,"outputTokens":38,"totalTokens":42}}`, `{"input":4,"output":38}`},
		{`{"usage":{"input_tokens":4,"output_tokens":3,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":5}}}`, `{"input":4,"output":3,"cache_write_1h":5}`},
		{`{"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":3,"total_tokens":13}}`, `{"input":6,"output":3,"cache_read":4}`},
		{`{"inputTextTokenCount":7,"results":[{"tokenCount":20}]}`, `{"input":7,"output":20}`},
		{`{"images":["aGk=","aGk="]}`, `{"output_image":2}`},
		{`[{"contentBlockDelta":{}},{"metadata":{"usage":{"inputTokens":4,"outputTokens":5}}}]`, `{"input":4,"output":5}`},
		{`[{"type":"message_start","message":{"usage":{"input_tokens":1,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":5}}}},
		   {"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":1,"outputTokenCount":2,"cacheWriteInputTokenCount":5}}]`, `{"input":1,"output":2,"cache_write_1h":5}`},
		{`[{"type":"message_start","message":{"usage":{"input_tokens":1}}}]`, `null`},
		{`{"choices":[]}`, `null`}, {`[`, `null`}, {`"x"`, `null`}, {``, `null`},
	}
	for _, tt := range tests {
		got, ok := bedrock.BodyUsage([]byte(tt.body))
		if usageText(got) != tt.want || ok != (tt.want != "null") {
			t.Errorf("%s: %s, %v; want %s", tt.body, usageText(got), ok, tt.want)
		}
	}
}
