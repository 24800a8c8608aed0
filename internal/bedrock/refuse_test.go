package bedrock_test

import (
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

// Each kind of client reads a refusal in its own shape.
func TestRefusal(t *testing.T) {
	e := func(kind waybill.ErrorKind) *waybill.Error {
		return &waybill.Error{Kind: kind, Code: "WB1301", Message: `tag "team" is required`, Hint: "send it"}
	}
	tests := []struct {
		shape  bedrock.Shape
		kind   waybill.ErrorKind
		status int
		class  string // x-amzn-ErrorType
		body   string
	}{
		{bedrock.AWS, waybill.Denied, 403, "AccessDeniedException", `{"message":"tag \"team\" is required; send it [WB1301]"}`},
		{bedrock.AWS, waybill.Invalid, 400, "ValidationException", `{"message":"tag \"team\" is required; send it [WB1301]"}`},
		{bedrock.AWS, waybill.Unavailable, 503, "ServiceUnavailableException", `{"message":"tag \"team\" is required; send it [WB1301]"}`},
		{bedrock.AWS, waybill.Misused, 500, "InternalServerException", `{"message":"tag \"team\" is required; send it [WB1301]"}`},
		{bedrock.OpenAI, waybill.Invalid, 400, "", `{"error":{"code":"WB1301","message":"tag \"team\" is required; send it","param":null,"type":"invalid_request_error"}}`},
		{bedrock.Anthropic, waybill.Denied, 403, "", `{"error":{"message":"tag \"team\" is required; send it [WB1301]","type":"permission_error"},"request_id":"call-1","type":"error"}`},
	}
	for _, tt := range tests {
		status, header, body := bedrock.Refusal(tt.shape, e(tt.kind), "call-1")
		class := ""
		if v := header["x-amzn-ErrorType"]; len(v) > 0 {
			class = v[0]
		}
		if status != tt.status || class != tt.class || string(body) != tt.body {
			t.Errorf("shape %d, kind %d: %d %q %s", tt.shape, tt.kind, status, class, body)
		}
		if header["x-amzn-RequestId"][0] != "call-1" || header.Get("X-Waybill-Error") != "WB1301" {
			t.Errorf("headers %v", header)
		}
	}
}

// A policy that refuses must not make SDKs try again.
func TestRefusalsAreNotRetried(t *testing.T) {
	for _, kind := range []waybill.ErrorKind{waybill.Invalid, waybill.Denied, waybill.NotFound, waybill.Unauthenticated, waybill.TooLarge} {
		for _, shape := range []bedrock.Shape{bedrock.AWS, bedrock.OpenAI, bedrock.Anthropic} {
			status, _, _ := bedrock.Refusal(shape, &waybill.Error{Kind: kind}, "")
			if status < 400 || status >= 500 || status == 408 || status == 409 || status == 429 {
				t.Errorf("kind %d is answered with %d, which SDKs retry", kind, status)
			}
		}
	}
}

func TestShapeOf(t *testing.T) {
	for path, want := range map[string]bedrock.Shape{"/anthropic/v1/x": bedrock.Anthropic, "/openai/v1/x": bedrock.OpenAI, "/v1/x": bedrock.OpenAI, "/model/m/x": bedrock.AWS, "": bedrock.AWS} {
		if got := bedrock.ShapeOf(path); got != want {
			t.Errorf("%s: shape %d, want %d", path, got, want)
		}
	}
}
