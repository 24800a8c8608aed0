package fakeaws

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/document"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
)

func (s *stand) last() Call {
	calls := s.world.Calls()
	return calls[len(calls)-1]
}

// Each family answers InvokeModel in its own shape, with its usage where that family has
// it: in the headers, in the body, or nowhere.
func TestFamilies(t *testing.T) {
	s := newStand(t, nil)
	for _, tt := range []struct {
		model, body string
		input       []any // where the body says the input tokens
		output      []any
		headers     string // in, both or none
		text        []any
	}{
		{"amazon.nova-lite-v1:0", `{"messages":[]}`, []any{"usage", "inputTokens"}, []any{"usage", "outputTokens"}, "both", []any{"output", "message", "content", 0, "text"}},
		{"amazon.titan-text-express-v1", `{"inputText":"hi","textGenerationConfig":{"maxTokenCount":9}}`, []any{"inputTextTokenCount"}, []any{"results", 0, "tokenCount"}, "both", []any{"results", 0, "outputText"}},
		{"meta.llama4-maverick-17b-instruct-v1:0", `{"prompt":"hi","max_gen_len":7}`, []any{"prompt_token_count"}, []any{"generation_token_count"}, "both", []any{"generation"}},
		{"mistral.mistral-7b-instruct-v0:2", `{"prompt":"hi"}`, nil, nil, "both", []any{"outputs", 0, "text"}},
		{"mistral.pixtral-large-2502-v1:0", `{"messages":[]}`, []any{"usage", "prompt_tokens"}, []any{"usage", "completion_tokens"}, "both", []any{"choices", 0, "message", "content"}},
		{"ai21.jamba-1-5-large-v1:0", `{"messages":[]}`, []any{"usage", "prompt_tokens"}, []any{"usage", "completion_tokens"}, "both", []any{"choices", 0, "message", "content"}},
		{"qwen.qwen3-32b-v1:0", `{"messages":[],"max_tokens":5}`, []any{"usage", "prompt_tokens"}, []any{"usage", "completion_tokens"}, "both", []any{"choices", 0, "message", "content"}},
		{"openai.gpt-oss-120b-1:0", `{"messages":[],"max_completion_tokens":5}`, []any{"usage", "prompt_tokens"}, []any{"usage", "completion_tokens"}, "both", []any{"choices", 0, "message", "content"}},
		{"deepseek.v3-v1:0", `{"messages":[]}`, []any{"usage", "prompt_tokens"}, []any{"usage", "completion_tokens"}, "both", []any{"choices", 0, "message", "content"}},
		{"us.deepseek.r1-v1:0", `{"prompt":"hi"}`, nil, nil, "both", []any{"choices", 0, "text"}},
		{"cohere.command-r-plus-v1:0", `{"message":"hi"}`, nil, nil, "both", []any{"text"}},
		{"us.twelvelabs.pegasus-1-2-v1:0", `{"inputPrompt":"hi"}`, nil, nil, "both", []any{"message"}},
		{"cohere.embed-english-v3", `{"texts":["a","b"],"input_type":"search_query"}`, nil, nil, "in", nil},
		{"amazon.titan-embed-text-v2:0", `{"inputText":"hi"}`, []any{"inputTextTokenCount"}, nil, "in", nil},
		{"amazon.titan-embed-image-v1", `{"inputText":"hi"}`, nil, nil, "in", nil},
		{"amazon.nova-2-multimodal-embeddings-v1:0", `{"taskType":"SINGLE_EMBEDDING"}`, nil, nil, "in", nil},
		{"cohere.rerank-v3-5:0", `{"query":"q","documents":["a","b"],"api_version":2}`, nil, nil, "none", nil},
		{"amazon.rerank-v1:0", `{"query":"q","documents":["a","b"]}`, nil, nil, "none", nil},
		{"stability.stable-image-core-v1:1", `{"prompt":"hi"}`, nil, nil, "none", nil},
		{"amazon.nova-canvas-v1:0", `{"taskType":"TEXT_IMAGE"}`, nil, nil, "none", nil},
		{"amazon.titan-image-generator-v2:0", `{"taskType":"TEXT_IMAGE"}`, nil, nil, "none", nil},
	} {
		path := "/model/" + url.PathEscape(tt.model)
		a := s.post(Runtime, path+"/invoke", tt.body)
		c := s.last()
		in, out := a.header.Get("X-Amzn-Bedrock-Input-Token-Count"), a.header.Get("X-Amzn-Bedrock-Output-Token-Count")
		got := map[[2]bool]string{{false, false}: "none", {true, false}: "in", {true, true}: "both"}[[2]bool{in != "", out != ""}]
		if a.status != 200 || got != tt.headers || in != "" && in != fmt.Sprint(c.InputTokens) || out != "" && out != fmt.Sprint(c.OutputTokens) {
			t.Errorf("%s: %d, headers %s, %s", tt.model, a.status, got, a.text)
		}
		for _, counter := range []struct {
			at   []any
			want int64
		}{{tt.input, c.InputTokens}, {tt.output, c.OutputTokens}} {
			if counter.at != nil && at(a.json, counter.at...) != float64(counter.want) {
				t.Errorf("%s: %v is %v, want %d", tt.model, counter.at, at(a.json, counter.at...), counter.want)
			}
		}
		if a := s.post(Runtime, path+"/invoke", `{}`); a.status != 400 {
			t.Errorf("%s: without what it needs %d", tt.model, a.status)
		}
		stream := s.post(Runtime, path+"/invoke-with-response-stream", tt.body)
		if tt.text == nil {
			if stream.status != 400 {
				t.Errorf("%s: streamed %d", tt.model, stream.status)
			}
			if a := s.post(Runtime, path+"/converse", `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`); a.status != 400 {
				t.Errorf("%s: Converse %d", tt.model, a.status)
			}
			continue
		}
		if text, _ := at(a.json, tt.text...).(string); text == "" {
			t.Errorf("%s: no text in %s", tt.model, a.text)
		}
		events, err := s.client.InvokeModelWithResponseStream(t.Context(), &bedrockruntime.InvokeModelWithResponseStreamInput{ModelId: &tt.model, Body: []byte(tt.body)})
		if err != nil {
			t.Errorf("%s: %v", tt.model, err)
			continue
		}
		var last struct {
			Metrics struct{ InputTokenCount, OutputTokenCount int64 } `json:"amazon-bedrock-invocationMetrics"`
		}
		for e := range events.GetStream().Events() {
			if chunk, ok := e.(*types.ResponseStreamMemberChunk); ok {
				last.Metrics.InputTokenCount = 0
				if err := json.Unmarshal(chunk.Value.Bytes, &last); err != nil {
					t.Errorf("%s: %v", tt.model, err)
				}
			}
		}
		if err := events.GetStream().Close(); err != nil || last.Metrics.InputTokenCount != c.InputTokens || last.Metrics.OutputTokenCount != c.OutputTokens {
			t.Errorf("%s: %v, the last chunk's metrics are %+v, want %d and %d", tt.model, err, last.Metrics, c.InputTokens, c.OutputTokens)
		}
		if out, err := s.client.Converse(t.Context(), &bedrockruntime.ConverseInput{ModelId: &tt.model, Messages: []types.Message{{Role: "user", Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "hi"}}}}}); err != nil || out.Usage == nil {
			t.Errorf("%s: Converse: %v", tt.model, err)
		}
	}
}

// What is not counted in tokens is counted as it is charged for.
func TestOtherUnits(t *testing.T) {
	s := newStand(t, nil)
	hundred := `["` + strings.Repeat(`d","`, 100) + `d"]`
	for _, tt := range []struct {
		model, body string
		want        Call
	}{
		{"cohere.rerank-v3-5:0", `{"query":"q","documents":["a"],"api_version":2}`, Call{SearchUnits: 1}},
		{"cohere.rerank-v3-5:0", `{"query":"q","documents":` + hundred + `,"api_version":2}`, Call{SearchUnits: 2}},
		{"stability.stable-image-core-v1:1", `{"prompt":"hi"}`, Call{Images: 1}},
		{"amazon.nova-canvas-v1:0", `{"taskType":"TEXT_IMAGE","imageGenerationConfig":{"numberOfImages":3,"width":512,"height":320,"quality":"premium"}}`, Call{Images: 3, ImageSize: "512x320", ImageQuality: "premium"}},
		{"amazon.nova-canvas-v1:0", `{"taskType":"TEXT_IMAGE"}`, Call{Images: 1, ImageSize: "1024x1024", ImageQuality: "standard"}},
	} {
		a := s.post(Runtime, "/model/"+url.PathEscape(tt.model)+"/invoke", tt.body)
		c := s.last()
		if a.status != 200 || c.SearchUnits != tt.want.SearchUnits || c.Images != tt.want.Images || c.ImageSize != tt.want.ImageSize || c.ImageQuality != tt.want.ImageQuality || c.InputTokens+c.OutputTokens != 0 {
			t.Errorf("%s %s: %d %s", tt.model, tt.body, a.status, a.text)
		}
		if list, ok := a.json["images"].([]any); ok && int64(len(list)) != tt.want.Images {
			t.Errorf("%s: %d images", tt.model, len(list))
		}
	}
	for name, body := range map[string]string{"too many": `{"taskType":"TEXT_IMAGE","imageGenerationConfig":{"numberOfImages":6}}`, "too small": `{"taskType":"TEXT_IMAGE","imageGenerationConfig":{"width":64,"height":64}}`, "no such quality": `{"taskType":"TEXT_IMAGE","imageGenerationConfig":{"quality":"best"}}`} {
		if a := s.post(Runtime, "/model/amazon.nova-canvas-v1:0/invoke", body); a.status != 400 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if a := s.post(Runtime, "/model/amazon.nova-reel-v1:0/invoke", `{"taskType":"TEXT_VIDEO"}`); a.status != 400 || !strings.Contains(a.text, "StartAsyncInvoke") {
		t.Errorf("a video by InvokeModel: %d %s", a.status, a.text)
	}
	if a := s.post(Runtime, "/model/cohere.rerank-v3-5:0/invoke", `{"query":"q","documents":["a"]}`); a.status != 400 {
		t.Errorf("a rerank without a version: %d", a.status)
	}
}

// CountTokens counts what the same body uses.
func TestCountTokens(t *testing.T) {
	s := newStand(t, nil)
	model := "anthropic.claude-haiku-4-5-20251001-v1:0"
	body := []byte(`{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"how heavy is it"}]}`)
	out, err := s.client.CountTokens(t.Context(), &bedrockruntime.CountTokensInput{ModelId: &model, Input: &types.CountTokensInputMemberInvokeModel{Value: types.InvokeModelTokensRequest{Body: body}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.InvokeModel(t.Context(), &bedrockruntime.InvokeModelInput{ModelId: &model, Body: body}); err != nil || s.last().InputTokens != int64(*out.InputTokens) {
		t.Errorf("%d tokens were counted and %d used: %v", *out.InputTokens, s.last().InputTokens, err)
	}
	messages := []types.Message{{Role: "user", Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "hi"}}}}
	out, err = s.client.CountTokens(t.Context(), &bedrockruntime.CountTokensInput{ModelId: &model, Input: &types.CountTokensInputMemberConverse{Value: types.ConverseTokensRequest{Messages: messages}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Converse(t.Context(), &bedrockruntime.ConverseInput{ModelId: &model, Messages: messages}); err != nil || s.last().InputTokens != int64(*out.InputTokens) {
		t.Errorf("%d tokens were counted and %d used: %v", *out.InputTokens, s.last().InputTokens, err)
	}
	for name, tt := range map[string][2]string{
		"another family":   {"amazon.nova-lite-v1:0", `{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"hi"}]}]}}}`},
		"a profile":        {url.PathEscape(application), `{"input":{"converse":{"messages":[]}}}`},
		"neither":          {model, `{"input":{}}`},
		"more than counts": {model, `{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"hi"}]}],"inferenceConfig":{}}}}`},
	} {
		if a := s.post(Runtime, "/model/"+tt[0]+"/count-tokens", tt[1]); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.text)
		}
	}
}

// Guardrails count their units whether they intervene or not.
func TestGuardrails(t *testing.T) {
	guard := Guardrail{Account: "111122223333", Region: "us-east-1", ID: "abc123", Versions: []string{"1"}, Blocked: []string{"torpedo"}, Message: "We do not carry that."}
	s := newStand(t, func(c *Config) { c.Guardrails = []Guardrail{guard} })
	apply := func(text, id, version string) (*bedrockruntime.ApplyGuardrailOutput, error) {
		return s.client.ApplyGuardrail(t.Context(), &bedrockruntime.ApplyGuardrailInput{GuardrailIdentifier: &id, GuardrailVersion: &version, Source: types.GuardrailContentSourceInput,
			Content: []types.GuardrailContentBlock{&types.GuardrailContentBlockMemberText{Value: types.GuardrailTextBlock{Text: &text}}}})
	}
	for _, tt := range []struct {
		text   string
		units  int32
		action types.GuardrailAction
	}{{"a pallet", 1, "NONE"}, {strings.Repeat("x", 1001), 2, "NONE"}, {"a Torpedo", 1, "GUARDRAIL_INTERVENED"}} {
		for _, id := range []string{guard.ID, guard.ARN()} {
			out, err := apply(tt.text, id, "1")
			if err != nil {
				t.Fatal(err)
			}
			if out.Action != tt.action || *out.Usage.ContentPolicyUnits != tt.units || s.last().Guardrail["contentPolicyUnits"] != int64(tt.units) || s.last().Operation != "ApplyGuardrail" {
				t.Errorf("%.20s: %s and %d units", tt.text, out.Action, *out.Usage.ContentPolicyUnits)
			}
			if (len(out.Outputs) == 1) != (tt.action == "GUARDRAIL_INTERVENED") {
				t.Errorf("%.20s: outputs %v", tt.text, out.Outputs)
			}
		}
	}
	for _, tt := range [][3]string{{"other", "1", "ResourceNotFoundException"}, {guard.ID, "2", "ResourceNotFoundException"}, {"Not-An-Id", "1", "ValidationException"}} {
		if _, err := apply("x", tt[0], tt[1]); codeOf(err) != tt[2] {
			t.Errorf("%s version %s: %v", tt[0], tt[1], err)
		}
	}
	checks := &bedrockruntime.InvokeGuardrailChecksInput{
		Messages: []types.GuardrailChecksMessage{{Role: "user", Content: []types.GuardrailChecksContentBlock{&types.GuardrailChecksContentBlockMemberText{Value: strings.Repeat("y", 2500)}}}},
		Checks:   &types.GuardrailChecksConfig{ContentFilter: &types.GuardrailChecksContentFilterConfig{Categories: []types.GuardrailChecksContentFilterCategoryConfig{{Category: "HATE"}}}}}
	out, err := s.client.InvokeGuardrailChecks(t.Context(), checks)
	if err != nil {
		t.Fatal(err)
	}
	if *out.Usage.ContentFilter.TextUnits != 3 || out.Usage.PromptAttack != nil || len(out.Results.ContentFilter.Results) != 1 || s.last().Guardrail["contentFilter"] != 3 {
		t.Errorf("checks say %+v", out.Usage)
	}
	if a := s.post(Runtime, "/guardrail-checks/invoke", `{"messages":[{"role":"user","content":[{"text":"x"}]}],"checks":{"contentFilter":{"categories":[{"category":"SPAM"}]}}}`); a.status != 400 {
		t.Errorf("an unknown category: %d", a.status)
	}
}

// A guardrail that a call names looks at the prompt and at the answer, says so where the
// operation has it, and spares the model what it does not let through.
func TestInlineGuardrails(t *testing.T) {
	guard := Guardrail{Account: "111122223333", Region: "us-east-1", ID: "abc123", Blocked: []string{"torpedo"}, Message: "We do not carry that."}
	s := newStand(t, func(c *Config) { c.Guardrails = []Guardrail{guard} })
	const nova, claude = "/model/amazon.nova-lite-v1:0/converse", "/model/anthropic.claude-sonnet-4-6/invoke"
	headers := func(version string) []string {
		return []string{"X-Amzn-Bedrock-GuardrailIdentifier", "abc123", "X-Amzn-Bedrock-GuardrailVersion", version, "X-Amzn-Bedrock-Trace", "ENABLED"}
	}
	for _, tt := range []struct {
		path, body string
		headers    []string
		action     []any
		want       [2]string // of the action when it lets through, and when it does not
		unit       []any     // the units of the prompt in the trace
	}{
		{nova, `{"messages":[{"role":"user","content":[{"text":"WORD"}]}],"guardrailConfig":{"guardrailIdentifier":"abc123","guardrailVersion":"DRAFT","trace":"enabled"}}`, nil, []any{"stopReason"}, [2]string{"end_turn", "guardrail_intervened"},
			[]any{"trace", "guardrail", "inputAssessment", "abc123", "invocationMetrics", "usage", "contentPolicyUnits"}},
		{claude, `{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"WORD"}]}`, headers("DRAFT"), []any{"amazon-bedrock-guardrailAction"}, [2]string{"NONE", "INTERVENED"},
			[]any{"amazon-bedrock-trace", "guardrail", "input", "abc123", "invocationMetrics", "usage", "contentPolicyUnits"}},
		{chatPath, strings.Replace(as(chatBody, "us.openai.gpt-5.6-sol"), "hi", "WORD", 1), headers("DRAFT"), []any{"amazon-bedrock-guardrailAction"}, [2]string{"NONE", "INTERVENED"},
			[]any{"amazon-bedrock-trace", "guardrail", "input", "abc123", "invocationMetrics", "usage", "contentPolicyUnits"}},
	} {
		for i, word := range []string{"pallet", "torpedo"} {
			a := s.post(Runtime, tt.path, strings.Replace(tt.body, "WORD", word, 1), tt.headers...)
			c := s.last()
			if a.status != 200 || at(a.json, tt.action...) != tt.want[i] || strings.Contains(a.text, guard.Message) != (i == 1) || (c.OutputTokens == 0) != (i == 1) ||
				c.Guardrail["contentPolicyUnits"] != int64(2-i) || at(a.json, tt.unit...) != 1.0 {
				t.Errorf("%s of a %s: %d %s, %d units", tt.path, word, a.status, a.text, c.Guardrail["contentPolicyUnits"])
			}
		}
	}
	for _, path := range []string{claude, claude + "-with-response-stream"} {
		if a := s.post(Runtime, path, `{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"x"}]}`, headers("7")...); a.status != 400 {
			t.Errorf("a version that is not there: %d", a.status)
		}
	}
	stream := s.post(Runtime, chatPath, with(strings.Replace(as(chatBody, "us.openai.gpt-5.6-sol"), "hi", "torpedo", 1), `"stream":true`), headers("DRAFT")...)
	if list, _ := events(t, stream.text); at(list[len(list)-1].data, "amazon-bedrock-guardrailAction") != "INTERVENED" || at(list[len(list)-1].data, "choices", 0, "finish_reason") != "content_filter" {
		t.Errorf("in a stream: %s", stream.text)
	}
	if a := s.post(Mantle, chatPath, strings.Replace(chatBody, "hi", "torpedo", 1), headers("7")...); a.status != 200 || s.last().Guardrail != nil {
		t.Errorf("bedrock-mantle minds the headers: %d %s", a.status, a.text)
	}
}

// An asynchronous invocation is done after some looks, and is listed.
func TestAsyncInvoke(t *testing.T) {
	s := newStand(t, func(c *Config) { c.AsyncGets = 1 })
	start := func(change func(*bedrockruntime.StartAsyncInvokeInput)) (string, error) {
		in := &bedrockruntime.StartAsyncInvokeInput{ModelId: aws.String("amazon.nova-reel-v1:1"), ModelInput: document.NewLazyDocument(map[string]any{"taskType": "MULTI_SHOT_AUTOMATED", "videoGenerationConfig": map[string]any{"durationSeconds": 12}}),
			OutputDataConfig: &types.AsyncInvokeOutputDataConfigMemberS3OutputDataConfig{Value: types.AsyncInvokeS3OutputDataConfig{S3Uri: aws.String("s3://some-bucket/videos")}},
			Tags:             []types.Tag{{Key: aws.String("team"), Value: aws.String("search")}}}
		if change != nil {
			change(in)
		}
		out, err := s.client.StartAsyncInvoke(t.Context(), in)
		if err != nil {
			return "", err
		}
		return *out.InvocationArn, nil
	}
	arn, err := start(func(in *bedrockruntime.StartAsyncInvokeInput) { in.ClientRequestToken = aws.String("one") })
	if err != nil {
		t.Fatal(err)
	}
	if c := s.last(); c.VideoSeconds != 12 || c.ResourceTags["team"] != "search" || c.ModelID != "amazon.nova-reel-v1:1" {
		t.Errorf("the call is of %d seconds, with tags %v", c.VideoSeconds, c.ResourceTags)
	}
	for _, want := range []types.AsyncInvokeStatus{"InProgress", "Completed", "Completed"} {
		out, err := s.client.GetAsyncInvoke(t.Context(), &bedrockruntime.GetAsyncInvokeInput{InvocationArn: &arn})
		if err != nil || out.Status != want || (out.EndTime != nil) != (want == "Completed") {
			t.Fatalf("%v %v, want %s", out, err, want)
		}
	}
	again, err := start(func(in *bedrockruntime.StartAsyncInvokeInput) { in.ClientRequestToken = aws.String("one") })
	if err != nil || again != arn || s.last().VideoSeconds != 0 {
		t.Errorf("the same token began %s: %v", again, err)
	}
	if _, err := start(func(in *bedrockruntime.StartAsyncInvokeInput) {
		in.ClientRequestToken, in.Tags = aws.String("one"), nil
	}); codeOf(err) != "ConflictException" {
		t.Errorf("the same token with another body: %v", err)
	}
	first, err := s.client.GetAsyncInvoke(t.Context(), &bedrockruntime.GetAsyncInvokeInput{InvocationArn: &arn})
	if err != nil {
		t.Fatal(err)
	}
	if other, err := start(nil); err != nil || other == arn {
		t.Errorf("another is %s: %v", other, err)
	}
	for name, tt := range map[string]struct {
		change func(*bedrockruntime.StartAsyncInvokeInput)
		code   string
	}{
		"a model that is not for it": {func(in *bedrockruntime.StartAsyncInvokeInput) { in.ModelId = aws.String("amazon.nova-lite-v1:0") }, "ValidationException"},
		"a bad destination": {func(in *bedrockruntime.StartAsyncInvokeInput) {
			in.OutputDataConfig = &types.AsyncInvokeOutputDataConfigMemberS3OutputDataConfig{Value: types.AsyncInvokeS3OutputDataConfig{S3Uri: aws.String("file:///x")}}
		}, "ValidationException"},
		"a bad tag": {func(in *bedrockruntime.StartAsyncInvokeInput) { in.Tags[0].Value = aws.String("a,b") }, "ValidationException"},
		"a bad length": {func(in *bedrockruntime.StartAsyncInvokeInput) {
			in.ModelInput = document.NewLazyDocument(map[string]any{"taskType": "TEXT_VIDEO", "videoGenerationConfig": map[string]any{"durationSeconds": 7}})
		}, "ValidationException"},
	} {
		if _, err := start(tt.change); codeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	var pages, listed int
	list := bedrockruntime.NewListAsyncInvokesPaginator(s.client, &bedrockruntime.ListAsyncInvokesInput{MaxResults: aws.Int32(1)})
	for list.HasMorePages() {
		page, err := list.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pages, listed = pages+1, listed+len(page.AsyncInvokeSummaries)
	}
	done, err := s.client.ListAsyncInvokes(t.Context(), &bedrockruntime.ListAsyncInvokesInput{StatusEquals: "Completed"})
	if err != nil || pages != 2 || listed != 2 || len(done.AsyncInvokeSummaries) != 1 {
		t.Errorf("%d pages with %d invocations: %v", pages, listed, err)
	}
	for name, tt := range map[string]struct {
		in   bedrockruntime.ListAsyncInvokesInput
		want int
	}{
		"from an hour later": {bedrockruntime.ListAsyncInvokesInput{SubmitTimeAfter: aws.Time(first.SubmitTime.Add(time.Hour))}, 0},
		"until then":         {bedrockruntime.ListAsyncInvokesInput{SubmitTimeBefore: aws.Time(first.SubmitTime.Add(time.Hour))}, 2},
	} {
		if out, err := s.client.ListAsyncInvokes(t.Context(), &tt.in); err != nil || len(out.AsyncInvokeSummaries) != tt.want {
			t.Errorf("%s: %v %v", name, out, err)
		}
	}
}
