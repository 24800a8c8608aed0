package bedrock_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

func TestFindRoute(t *testing.T) {
	const runtime, mantle = waybill.Runtime, waybill.Mantle
	const profile = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123def456"
	tests := []struct {
		endpoint  waybill.Endpoint
		method    string
		path      string
		operation bedrock.Operation
		model     waybill.ModelID
	}{
		{runtime, "POST", "/model/amazon.nova-lite-v1%3A0/converse", bedrock.Converse, "amazon.nova-lite-v1:0"},
		{runtime, "POST", "/model/amazon.nova-lite-v1:0/converse-stream", bedrock.ConverseStream, "amazon.nova-lite-v1:0"},
		{runtime, "POST", "/model/" + url.PathEscape(profile) + "/invoke", bedrock.InvokeModel, profile},
		{runtime, "POST", "/model/" + profile + "/invoke-with-response-stream", bedrock.InvokeModelWithResponseStream, profile},
		{runtime, "POST", "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model/amazon.nova-lite-v1%3A0/invoke", bedrock.InvokeModel,
			"arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"},
		{runtime, "POST", "/model/arn:aws:bedrock:us-east-1:111122223333:custom-model/amazon.nova/abc/invoke", bedrock.InvokeModel,
			"arn:aws:bedrock:us-east-1:111122223333:custom-model/amazon.nova/abc"},
		{runtime, "POST", "/model/anthropic.claude-3-haiku-20240307-v1:0/count-tokens", bedrock.CountTokens, "anthropic.claude-3-haiku-20240307-v1:0"},
		{runtime, "POST", "/guardrail/gr1/version/DRAFT/apply", bedrock.ApplyGuardrail, ""},
		{runtime, "POST", "/guardrail/arn:aws:bedrock:us-east-1:111122223333:guardrail/gr1/version/1/apply", bedrock.ApplyGuardrail, ""},
		{runtime, "POST", "/guardrail/" + url.PathEscape("arn:aws:bedrock:us-east-1:111122223333:guardrail/gr1") + "/version/1/apply", bedrock.ApplyGuardrail, ""},
		{runtime, "GET", "/async-invoke/" + url.PathEscape("arn:aws:bedrock:us-east-1:111122223333:async-invoke/a1b2c3d4e5f6"), bedrock.GetAsyncInvoke, ""},
		{runtime, "POST", "/model/arn:aws:bedrock:us-east-1:111122223333:prompt%2FABCDEFGHIJ:1/converse", bedrock.Converse, "arn:aws:bedrock:us-east-1:111122223333:prompt/ABCDEFGHIJ:1"},
		{runtime, "POST", "/model/arn:aws:sagemaker:us-east-1:111122223333:endpoint/my-endpoint/invoke", bedrock.InvokeModel, "arn:aws:sagemaker:us-east-1:111122223333:endpoint/my-endpoint"},
		{runtime, "POST", "/model/us-gov.anthropic.claude-3-haiku-20240307-v1:0/invoke", bedrock.InvokeModel, "us-gov.anthropic.claude-3-haiku-20240307-v1:0"},
		{runtime, "POST", "/guardrail-checks/invoke", bedrock.InvokeGuardrailChecks, ""},
		{runtime, "POST", "/async-invoke", bedrock.StartAsyncInvoke, ""},
		{runtime, "GET", "/async-invoke", bedrock.ListAsyncInvokes, ""},
		{runtime, "GET", "/async-invoke/arn:aws:bedrock:us-east-1:111122223333:async-invoke/a1b2c3d4e5f6", bedrock.GetAsyncInvoke, ""},
		{runtime, "POST", "/openai/v1/chat/completions", bedrock.ChatCompletions, ""},
		{runtime, "POST", "/openai/v1/responses", bedrock.Responses, ""},
		{runtime, "GET", "/openai/v1/responses/resp_1", bedrock.GetResponse, ""},
		{runtime, "DELETE", "/openai/v1/responses/resp_1", bedrock.DeleteResponse, ""},
		{runtime, "POST", "/openai/v1/responses/resp_1/cancel", bedrock.CancelResponse, ""},
		{runtime, "POST", "/anthropic/v1/messages", bedrock.Messages, ""},
		{mantle, "POST", "/v1/chat/completions", bedrock.ChatCompletions, ""},
		{mantle, "POST", "/openai/v1/responses", bedrock.Responses, ""},
		{mantle, "POST", "/v1/responses/compact", bedrock.CompactResponse, ""},
		{mantle, "POST", "/v1/embeddings", bedrock.Embeddings, ""},
		{mantle, "POST", "/openai/v1/embeddings", bedrock.Embeddings, ""},
		{mantle, "POST", "/openai/v1/responses/compact", bedrock.CompactResponse, ""},
		{mantle, "GET", "/v1/responses/resp_1", bedrock.GetResponse, ""},
		{mantle, "DELETE", "/openai/v1/responses/resp_1", bedrock.DeleteResponse, ""},
		{mantle, "POST", "/v1/responses/resp_1/cancel", bedrock.CancelResponse, ""},
		{mantle, "GET", "/v1/models", bedrock.ListModels, ""},
		{mantle, "GET", "/v1/models/openai.gpt-oss-120b", bedrock.GetModel, ""},
		{mantle, "POST", "/anthropic/v1/messages", bedrock.Messages, ""},
		{mantle, "POST", "/anthropic/v1/messages/count_tokens", bedrock.CountMessageTokens, ""},
	}
	for _, tt := range tests {
		r, err := bedrock.FindRoute(tt.method, tt.path, tt.endpoint)
		if err != nil {
			t.Errorf("%s %s on %s: %v", tt.method, tt.path, tt.endpoint, err)
			continue
		}
		if r.Operation != tt.operation || r.ModelID != tt.model || r.Endpoint != tt.endpoint {
			t.Errorf("%s %s on %s = %s of %q on %s, want %s of %q", tt.method, tt.path, tt.endpoint, r.Operation, r.ModelID, r.Endpoint, tt.operation, tt.model)
		}
		if audited := tt.endpoint == mantle && (r.Operation == bedrock.ChatCompletions || r.Operation == bedrock.Responses); r.Audited != audited {
			t.Errorf("%s %s on %s: the body's metadata goes into events: %v, want %v", tt.method, tt.path, tt.endpoint, r.Audited, audited)
		}
	}
}

// AWS answers unknown paths with 200, so only known ones are passed on.
func TestRefusedPaths(t *testing.T) {
	tests := []struct {
		endpoint waybill.Endpoint
		method   string
		path     string
		want     waybill.ErrorKind
	}{
		{waybill.Runtime, "POST", "/", waybill.NotFound},
		{waybill.Runtime, "POST", "model/x/converse", waybill.Invalid},
		{waybill.Runtime, "GET", "/model/m/converse", waybill.NotFound},
		{waybill.Runtime, "POST", "/model/m/Converse", waybill.NotFound},
		{waybill.Runtime, "POST", "/model/a/b/converse", waybill.NotFound},
		{waybill.Runtime, "POST", "/model/m/converse/", waybill.Invalid},
		{waybill.Runtime, "POST", "/model//converse", waybill.Invalid},
		{waybill.Runtime, "POST", "//model/m/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/../async-invoke", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/%2e%2E/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%2F..%2Fn/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%2Fn/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/arn:aws:bedrock%2F..%2F..%2Fasync-invoke/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/arn:aws:bedrock%2F%2Fx/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/arn:aws:bedrock/../x/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/%252e%252e/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%3Bx=y/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m;x=y/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%3Fx/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%5Cn/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%C3%A9/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%20/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/%6dodel/m/converse", waybill.NotFound},
		{waybill.Runtime, "POST", "/model/m/conv%65rse", waybill.NotFound},
		{waybill.Runtime, "POST", "/model%2Fm/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%2Fconverse", waybill.Invalid},
		{waybill.Runtime, "POST", "/MODEL/m/converse", waybill.NotFound},
		{waybill.Runtime, "GET", "/async-invoke/..%2Fmodel", waybill.Invalid},
		{waybill.Runtime, "POST", "/guardrail/g%2Fversion%2F1%2Fapply/version/1/apply", waybill.Invalid},
		{waybill.Runtime, "GET", "/openai/v1/responses/..%2F..%2Fv1%2Ffiles", waybill.Invalid},
		{waybill.Runtime, "GET", "/openai/v1/responses/r%2Fcancel", waybill.Invalid},
		{waybill.Runtime, "DELETE", "/openai/v1/responses", waybill.NotFound},
		{waybill.Runtime, "GET", "/openai/v1/responses/r/input_items", waybill.NotFound},
		{waybill.Runtime, "PUT", "/openai/v1/responses/r", waybill.NotFound},
		{waybill.Runtime, "POST", "/openai/v1/responses/r", waybill.NotFound},
		{waybill.Runtime, "POST", "/openai/v1/responses/compact", waybill.NotFound},
		{waybill.Runtime, "POST", "/anthropic/v1/messages/count_tokens", waybill.NotFound},
		{waybill.Runtime, "POST", "/anthropic/v1/messages/batches", waybill.NotFound},
		{waybill.Runtime, "POST", "/openai/v2/chat/completions", waybill.NotFound},
		{waybill.Runtime, "post", "/model/m/converse", waybill.NotFound},
		{waybill.Mantle, "GET", "/openai/v1/models/m", waybill.NotFound},
		{waybill.Mantle, "GET", "/v1/models/..%2Forganization%2Fprojects", waybill.Invalid},
		{waybill.Mantle, "DELETE", "/v1/models/m", waybill.NotFound},
		{waybill.Mantle, "GET", "/v1/data_retention", waybill.NotFound},
		{waybill.Mantle, "GET", "/v1/fine_tuning/jobs", waybill.NotFound},
		{waybill.Mantle, "POST", "/anthropic/v1/complete", waybill.NotFound},
		{waybill.Runtime, "POST", "/model/m%/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/m%0a/converse", waybill.Invalid},
		{waybill.Runtime, "POST", "/model/" + strings.Repeat("m", 2049) + "/converse", waybill.NotFound},
		{waybill.Runtime, "POST", "/" + strings.Repeat("m", 5000), waybill.Invalid},
		{waybill.Runtime, "POST", "/model/amazon.nova-sonic-v1:0/invoke-with-bidirectional-stream", waybill.Unsupported},
		{waybill.Runtime, "POST", "/v1/chat/completions", waybill.NotFound},
		{waybill.Runtime, "GET", "/openai/v1/models", waybill.NotFound},
		{waybill.Runtime, "POST", "/openai/v1/embeddings", waybill.NotFound},
		{waybill.Mantle, "POST", "/model/m/converse", waybill.NotFound},
		{waybill.Mantle, "GET", "/openai/v1/models", waybill.NotFound},
		{waybill.Mantle, "POST", "/v1/organization/projects", waybill.NotFound},
		{waybill.Mantle, "POST", "/v1/files", waybill.NotFound},
	}
	for _, tt := range tests {
		_, err := bedrock.FindRoute(tt.method, tt.path, tt.endpoint)
		if err == nil || waybill.KindOf(err) != tt.want {
			t.Errorf("%s %.60s on %s: error %v, want kind %d", tt.method, tt.path, tt.endpoint, err, tt.want)
		}
	}
}

// A path that is served names one operation, and its model is what AWS will read from
// the same bytes.
func FuzzFindRoute(f *testing.F) {
	for _, path := range []string{"/model/amazon.nova-lite-v1%3A0/converse", "/model/arn:aws:bedrock:us-east-1::foundation-model/x/invoke",
		"/openai/v1/responses/r/cancel", "/guardrail/g/version/1/apply", "/v1/models/m", "/model/%2e%2e/invoke", "//", "/async-invoke/%2F"} {
		f.Add("POST", path, true)
		f.Add("GET", path, false)
	}
	f.Fuzz(func(t *testing.T, method, path string, onRuntime bool) {
		endpoint := waybill.Mantle
		if onRuntime {
			endpoint = waybill.Runtime
		}
		r, err := bedrock.FindRoute(method, path, endpoint)
		if err != nil {
			if kind := waybill.KindOf(err); kind == waybill.Internal {
				t.Fatalf("error %v is not for the caller", err)
			}
			return
		}
		plain, err := url.PathUnescape(path)
		if err != nil || r.Operation == "" || r.Endpoint != endpoint {
			t.Fatalf("route %+v of %q, unescape: %v", r, path, err)
		}
		if strings.ContainsAny(plain, "%\\?#; \t\r\n\x00") { // a second unescaping, or another parser, would read another path
			t.Fatalf("%q was let pass", path)
		}
		for _, part := range strings.Split(plain[1:], "/") {
			if part == "" || part == "." || part == ".." {
				t.Fatalf("%q was let pass", path)
			}
		}
		// A server that unescapes before it routes comes to the same operation.
		if again, err := bedrock.FindRoute(method, plain, endpoint); err != nil || again != r {
			t.Fatalf("%q is %+v, unescaped %+v, %v", path, r, again, err)
		}
		if r.ModelID != "" && !strings.HasPrefix(plain, "/model/"+string(r.ModelID)+"/") {
			t.Fatalf("model %q of %q", r.ModelID, path)
		}
	})
}
