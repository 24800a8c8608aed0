package fakeaws

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

const projectsPath = "/v1/organization/projects"

// Projects are made, listed page by page, changed tag by tag and archived; default stays
// as it is.
func TestProjects(t *testing.T) {
	s := newStand(t, func(c *Config) { c.Projects = nil })
	key := []string{"Authorization", "Bearer " + sign(t, time.Now(), 3600)} // a long-term key only reads
	made := s.post(Mantle, projectsPath, `{"name":"Search","tags":{"CostCenter":"21524"},"geography":"moon"}`, key...)
	id, _ := made.json["id"].(string)
	if made.status != 200 || !strings.HasPrefix(id, "proj_") || made.json["arn"] != "arn:aws:bedrock-mantle:us-east-1:111122223333:project/"+id ||
		made.json["object"] != "organization.project" || made.json["status"] != "active" || at(made.json, "tags", "CostCenter") != "21524" {
		t.Fatalf("%d %s", made.status, made.text)
	}
	for i := range 4 {
		if a := s.post(Mantle, projectsPath, fmt.Sprintf(`{"name":"p%d"}`, i), key...); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.text)
		}
	}
	var seen []string
	after, pages := "", 0
	for more := true; more; pages++ {
		a := s.ask("GET", Mantle, projectsPath+"?limit=2"+after, "")
		for i := range a.json["data"].([]any) {
			one, _ := at(a.json, "data", i, "id").(string)
			seen = append(seen, one)
		}
		if a.json["last_id"] != seen[len(seen)-1] {
			t.Errorf("the last is %v", a.json["last_id"])
		}
		after = "&after=" + seen[len(seen)-1]
		more, _ = a.json["has_more"].(bool)
	}
	if pages != 3 || len(seen) != 6 || seen[0] != "default" {
		t.Errorf("%d pages with %v", pages, seen)
	}
	path := projectsPath + "/" + id
	for _, tt := range []struct {
		body string
		want string
	}{
		{`{"add_tags":{"team":"search"}}`, `map[CostCenter:21524 team:search]`},
		{`{"remove_tag_keys":["CostCenter"],"add_tags":{"team":"ads"}}`, `map[team:ads]`},
		{`{"name":"Ads"}`, `map[team:ads]`},
	} {
		if a := s.post(Mantle, path, tt.body, key...); a.status != 200 || fmt.Sprint(a.json["tags"]) != tt.want {
			t.Errorf("%s: %d %s", tt.body, a.status, a.text)
		}
	}
	if a := s.ask("GET", Mantle, path, ""); a.json["name"] != "Ads" {
		t.Errorf("%s", a.text)
	}
	if a := s.post(Mantle, chatPath, chatBody, "OpenAI-Project", id); a.status != 200 || s.last().ResourceTags["team"] != "ads" {
		t.Errorf("a call of the project: %d, charged with %v", a.status, s.last().ResourceTags)
	}
	if a := s.post(Mantle, path+"/archive", "", key...); a.json["status"] != "archived" {
		t.Errorf("%s", a.text)
	}
	if a := s.post(Mantle, chatPath, chatBody, "OpenAI-Project", id); a.status != 400 {
		t.Errorf("a call of an archived project: %d", a.status)
	}
	if a, b := s.ask("GET", Mantle, projectsPath, ""), s.ask("GET", Mantle, projectsPath+"?include_archived=true", ""); len(a.json["data"].([]any)) != 5 || len(b.json["data"].([]any)) != 6 {
		t.Errorf("listed without and with the archived: %s %s", a.text, b.text)
	}
	many := make(map[string]string)
	for i := range 51 {
		many[fmt.Sprint("k", i)] = "v"
	}
	for name, a := range map[string]struct {
		reply
		want int
	}{
		"a long-term key":    {s.post(Mantle, projectsPath, `{"name":"x"}`), 403},
		"no name":            {s.post(Mantle, projectsPath, `{}`, key...), 400},
		"a list of tags":     {s.post(Mantle, projectsPath, `{"name":"x","tags":[{"key":"a","value":"b"}]}`, key...), 400},
		"a bad tag":          {s.post(Mantle, projectsPath, `{"name":"x","tags":{"a":"b%"}}`, key...), 400},
		"too many tags":      {s.post(Mantle, projectsPath, `{"name":"x","tags":`+string(encode(many))+`}`, key...), 400},
		"all tags replaced":  {s.post(Mantle, path, `{"tags":{}}`, key...), 400},
		"nothing":            {s.post(Mantle, path, `{}`, key...), 400},
		"default renamed":    {s.post(Mantle, projectsPath+"/default", `{"name":"x"}`, key...), 400},
		"default tagged":     {s.post(Mantle, projectsPath+"/default", `{"add_tags":{"a":"b"}}`, key...), 400},
		"default archived":   {s.post(Mantle, projectsPath+"/default/archive", "", key...), 400},
		"unknown":            {s.ask("GET", Mantle, projectsPath+"/proj_x", ""), 404},
		"deleted":            {s.ask("DELETE", Mantle, path, "", key...), 404},
		"after nothing":      {s.ask("GET", Mantle, projectsPath+"?after=proj_x", ""), 400},
		"a page of too many": {s.ask("GET", Mantle, projectsPath+"?limit=101", ""), 400},
		"under another path": {s.ask("GET", Mantle, "/openai"+projectsPath, ""), 404},
		"on bedrock-runtime": {s.ask("GET", Runtime, "/openai"+projectsPath, ""), 404},
		"with paging ignored": {func() reply {
			s.world.config.ProjectsInOnePage = true
			return s.ask("GET", Mantle, projectsPath+"?limit=1", "")
		}(), 200},
	} {
		if a.status != a.want {
			t.Errorf("%s: %d %s, want %d", name, a.status, a.text, a.want)
		}
	}
}

// CloudTrail knows each inference of bedrock-mantle, if a trail asks for data events, with
// the metadata of OpenAI's shapes and with no count; the invocation log knows none of
// them, and those of bedrock-runtime all.
func TestTracesOfMantle(t *testing.T) {
	s := newStand(t, nil)
	s.post(Mantle, chatPath, with(chatBody, `"service_tier":"flex","metadata":{"waybill":"w-1","team":"search"}`), "OpenAI-Project", "proj_search")
	s.post(Mantle, responsesPath, with(responseBody, `"stream":true,"metadata":{"waybill":"w-2"}`))
	s.post(Mantle, messagesPath, with(messagesBody, `"metadata":{"user_id":"w-3"}`))
	s.post(Mantle, chatPath, as(chatBody, "openai.gpt-5-none:1"))
	s.ask("GET", Mantle, "/v1/models", "")
	s.post(Runtime, "/model/us.amazon.nova-lite-v1:0/converse", `{"messages":[{"role":"user","content":[{"text":"hi"}]}],"requestMetadata":{"team":"search"}}`)
	s.post(Runtime, responsesPath, as(with(responseBody, `"metadata":{"waybill":"w-4"}`), "us.openai.gpt-5.6-sol"))
	s.post(Runtime, chatPath, as(chatBody, "us.openai.gpt-5.6-sol"), "X-Amzn-Bedrock-Request-Metadata", `{"team":"search"}`)
	s.post(Runtime, messagesPath, as(messagesBody, "us.anthropic.claude-sonnet-5"))
	calls := s.world.Calls()
	if n := len(Trail(calls, false)); n != 2 {
		t.Errorf("%d management events, want those of ListModels and Converse", n)
	}
	var got []map[string]any
	for _, raw := range Trail(calls, true) {
		var e map[string]any
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if len(got) != 6 {
		t.Fatalf("%d events", len(got))
	}
	for i, want := range []string{
		`{"bearerTokenType":"ABSK","callWithBearerToken":true,"metadata":{"team":"search","waybill":"w-1"},"model":"openai.gpt-5.6-sol","service_tier":"flex"}`,
		`{"bearerTokenType":"ABSK","callWithBearerToken":true,"metadata":{"waybill":"w-2"},"model":"openai.gpt-5.6-sol","stream":true}`,
		`{"max_tokens":400,"model":"anthropic.claude-sonnet-5"}`,
	} {
		e := got[i]
		if string(encode(e["requestParameters"])) != want || e["eventSource"] != "bedrock-mantle.amazonaws.com" || e["eventName"] != "CreateInference" || e["eventCategory"] != "Data" || e["requestID"] != calls[i].RequestID {
			t.Errorf("event %d is %v", i, e)
		}
		if at(e, "resources", 0, "type") != "AWS::BedrockMantle::Project" || at(e, "resources", 0, "ARN") != calls[i].ProjectARN {
			t.Errorf("event %d is on %v", i, e["resources"])
		}
	}
	if got[3]["errorCode"] != "model_not_found" || at(got[5], "requestParameters", "modelId") != "us.amazon.nova-lite-v1:0" || got[5]["eventCategory"] != "Management" {
		t.Errorf("the others are %v and %v", got[3], got[5])
	}
	var files []string
	if err := WriteTrail(func(key string, _ []byte) error { files = append(files, key); return nil }, "trail", calls, true); err != nil || len(files) == 0 || !strings.HasPrefix(files[0], "trail/AWSLogs/111122223333/CloudTrail/us-east-1/") {
		t.Errorf("%v %v", files, err)
	}
	logged, records := make(map[string]map[string]any), 0
	err := WriteLogs(func(key string, body []byte) error {
		if !strings.HasSuffix(key, ".json.gz") || strings.Contains(key, "/data/") {
			return nil
		}
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return err
		}
		for d := json.NewDecoder(z); d.More(); {
			var r map[string]any
			if err := d.Decode(&r); err != nil {
				return err
			}
			records++
			logged[r["operation"].(string)] = r
		}
		return nil
	}, calls, LogOptions{})
	if err != nil || len(logged) != 4 || records != 4 {
		t.Fatalf("the log has %d records, of %v: %v", records, logged, err)
	}
	for operation, model := range map[string]string{"Converse": "us.amazon.nova-lite-v1:0", "Responses": "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.openai.gpt-5.6-sol",
		"ChatCompletions": "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.openai.gpt-5.6-sol", "Messages": "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-5"} {
		r := logged[operation]
		if r["modelId"] != model || (r["requestMetadata"] != nil) != (operation == "Converse") || at(r, "output", "outputTokenCount") == nil {
			t.Errorf("the log says of %s: %v", operation, r)
		}
	}
	metrics := make(map[string]float64)
	MantleMetrics(calls, func(account, region string, m Metric) {
		metrics[m.Name+fmt.Sprint(m.Dimensions)] = m.Sum
	})
	if metrics["Inferencesmap[]"] != 3 || metrics["Inferencesmap[Project:proj_search]"] != 1 || metrics["Inferencesmap[Model:anthropic.claude-sonnet-5 Project:default]"] != 1 || metrics["InferenceClientErrorsmap[]"] != 1 ||
		metrics["OutputTokensmap[Model:openai.gpt-5.6-sol Project:proj_search]"] != float64(calls[0].OutputTokens) || metrics["OutputTokensmap[]"] != 0 {
		t.Errorf("metrics %v", metrics)
	}
}

// The bill has what bedrock-mantle served under its own usage types, with the project and
// its tags, and what is not counted in tokens under theirs.
func TestBillOfEverything(t *testing.T) {
	guard := Guardrail{Account: "111122223333", Region: "us-east-1", ID: "abc123"}
	s := newStand(t, func(c *Config) {
		c.World, c.Scale = time.Date(2026, 10, 5, 10, 0, 0, 0, time.UTC), 1000
		c.Guardrails = []Guardrail{guard}
		c.Projects[0].Tags = map[string]string{"CostCenter": "21524", "hidden": "x"}
	})
	s.post(Mantle, chatPath, with(chatBody, `"service_tier":"priority"`), "OpenAI-Project", "proj_search")
	chat := s.last()
	s.post(Mantle, messagesPath, messagesBody)
	s.post(Runtime, messagesPath, as(messagesBody, "global.anthropic.claude-sonnet-5"))
	s.post(Runtime, chatPath, as(chatBody, "openai.gpt-oss-120b-1:0"))
	s.post(Runtime, "/guardrail/abc123/version/DRAFT/apply", `{"source":"INPUT","content":[{"text":{"text":"x"}}]}`)
	s.post(Runtime, "/model/amazon.nova-canvas-v1:0/invoke", `{"taskType":"TEXT_IMAGE","imageGenerationConfig":{"numberOfImages":2,"quality":"premium"}}`)
	s.post(Runtime, "/model/cohere.rerank-v3-5:0/invoke", `{"query":"q","documents":["a"],"api_version":2}`)
	s.post(Runtime, "/model/stability.stable-image-core-v1:1/invoke", `{"prompt":"hi"}`)
	s.post(Runtime, "/async-invoke", `{"modelId":"amazon.nova-reel-v1:1","modelInput":{"taskType":"TEXT_VIDEO"},"outputDataConfig":{"s3OutputDataConfig":{"s3Uri":"s3://some-bucket/v"}},"tags":[{"key":"CostCenter","value":"7"}]}`)
	s.post(Runtime, "/model/"+"anthropic.claude-sonnet-4-6"+"/count-tokens", `{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"hi"}]}]}}}`)
	for _, c := range s.world.Calls() {
		if c.Status != 200 {
			t.Fatalf("%s: %d %s", c.Operation, c.Status, c.ErrorCode)
		}
	}
	rows := make(map[string]billRow)
	put := func(key string, body []byte) error {
		if !strings.HasSuffix(key, ".parquet") {
			return nil
		}
		some, err := parquet.Read[billRow](bytes.NewReader(body), int64(len(body)))
		for _, r := range some {
			rows[r.UsageType] = r
		}
		return err
	}
	if _, err := WriteExport(put, s.world.Now(), s.world.Calls(), ExportOptions{Name: "e", Bucket: "b", Payer: "111122223333", Activated: map[string]bool{"CostCenter": true}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"USE1-openai.gpt-5.6-sol-mantle-input-tokens-priority", "USE1-openai.gpt-5.6-sol-mantle-output-tokens-priority",
		"USE1-anthropic.claude-sonnet-5-mantle-input-tokens-standard", "USE1-anthropic.claude-sonnet-5-mantle-output-tokens-standard",
		"USE1_input_tokens_global_standard-Units", "USE1_output_tokens_global_standard-Units",
		"USE1-gpt-oss-120b-input-tokens", "USE1-gpt-oss-120b-output-tokens",
		"USE1-Guardrail-TopicPolicyUnitsConsumed", "USE1-Guardrail-ContentPolicyUnitsConsumed", "USE1-Guardrail-WordPolicyUnitsConsumed",
		"USE1-Guardrail-SensitiveInformationPolicyPaidUnitsConsumed", "USE1-Guardrail-SensitiveInformationPolicyFreeUnitsConsumed",
		"USE1-NovaCanvas-T2I-1024-Premium", "USE1-MP:USE1_search_units-Units", "USE1-MP:USE1_created_image-Units", "USE1-NovaReel-T2V-Standard",
	} {
		if _, ok := rows[want]; !ok {
			t.Errorf("there is no row of %s", want)
		}
	}
	if len(rows) != 17 {
		t.Errorf("%d usage types are billed", len(rows))
	}
	out := rows["USE1-openai.gpt-5.6-sol-mantle-output-tokens-priority"]
	cost := new(big.Rat).Mul(big.NewRat(chat.OutputTokens, 1_000_000), rat("57.75")) // 33 USD and three quarters more
	if out.ProductCode != "AmazonBedrockService" || out.ResourceID != chat.ProjectARN || out.Tags["resourceTags/CostCenter"] != "21524" || out.ResourceTags["user_cost_center"] != "21524" ||
		len(out.Tags) != 1 || out.Principal != user || out.UnblendedCost != double(cost, 10) {
		t.Errorf("the row of the project is %+v", out)
	}
	for usage, want := range map[string][2]float64{"USE1-NovaCanvas-T2I-1024-Premium": {2, 0.12}, "USE1-NovaReel-T2V-Standard": {6, 0.48}, "USE1-Guardrail-ContentPolicyUnitsConsumed": {1, 0.00015}} {
		if r := rows[usage]; r.Amount != want[0] || r.UnblendedCost != want[1] {
			t.Errorf("%s: %v cost %v", usage, r.Amount, r.UnblendedCost)
		}
	}
	if r := rows["USE1-NovaReel-T2V-Standard"]; r.Tags["resourceTags/CostCenter"] != "7" {
		t.Errorf("the video's row has tags %v", r.Tags)
	}
	rows = make(map[string]billRow)
	if _, err := WriteExport(put, s.world.Now(), s.world.Calls(), ExportOptions{Name: "e", Bucket: "b", Payer: "111122223333", NoMantlePrincipal: true}); err != nil {
		t.Fatal(err)
	}
	if rows["USE1-openai.gpt-5.6-sol-mantle-output-tokens-priority"].Principal != "" || rows["USE1-gpt-oss-120b-input-tokens"].Principal != user {
		t.Errorf("rows of bedrock-mantle have a principal, or others have none")
	}
}
