package bedrock_test

import (
	"encoding/json"
	"strconv"
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
		{bedrock.OpenAI, waybill.Unavailable, 503, "", `{"error":{"code":"WB1301","message":"tag \"team\" is required; send it","param":null,"type":"server_error"}}`},
		{bedrock.Anthropic, waybill.Unavailable, 503, "", `{"error":{"message":"tag \"team\" is required; send it [WB1301]","type":"overloaded_error"},"request_id":"call-1","type":"error"}`},
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
		id := map[bedrock.Shape]string{bedrock.OpenAI: "X-Request-Id", bedrock.Anthropic: "Request-Id", bedrock.AWS: bedrock.RequestIDHeader}[tt.shape]
		if tt.shape != bedrock.AWS && header.Get(id) != "call-1" || header["x-amzn-RequestId"][0] != "call-1" || header.Get("X-Waybill-Error") != "WB1301" {
			t.Errorf("headers %v", header)
		}
	}
}

// A policy that refuses must not make SDKs try again; what time may cure must.
func TestRetries(t *testing.T) {
	for kind := waybill.Internal; kind <= waybill.Misused; kind++ {
		for _, shape := range []bedrock.Shape{bedrock.AWS, bedrock.OpenAI, bedrock.Anthropic} {
			status, header, body := bedrock.Refusal(shape, &waybill.Error{Kind: kind}, "")
			if !json.Valid(body) {
				t.Errorf("kind %d, shape %d: %s", kind, shape, body)
			}
			ours := kind == waybill.Internal || kind == waybill.Misused // a fault of ours: AWS's SDKs may try
			again := kind == waybill.Unavailable
			if again != (status == 503) || again != (header.Get("Retry-After") != "") {
				t.Errorf("kind %d, shape %d: status %d, retry after %q", kind, shape, status, header.Get("Retry-After"))
			}
			if told := header.Get("X-Should-Retry"); shape != bedrock.AWS && told != strconv.FormatBool(again) {
				t.Errorf("kind %d, shape %d: should retry: %q", kind, shape, told)
			}
			// The statuses that the SDKs of AWS take for transient, and those of OpenAI where nobody tells.
			transient := status == 408 || status == 409 || status == 429 || status == 500 || status > 501
			if transient != (again || ours) {
				t.Errorf("kind %d, shape %d is answered with %d", kind, shape, status)
			}
		}
	}
}

// What AWS may have run must not be tried again by a client of any shape: it would be
// billed twice.
func TestMayHaveRun(t *testing.T) {
	for shape, want := range map[bedrock.Shape]int{bedrock.AWS: 408, bedrock.OpenAI: 503, bedrock.Anthropic: 503} {
		status, header, body := bedrock.Refusal(shape, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1505", Message: "late", MayRun: true}, "call-1")
		if status != want || header.Get("X-Should-Retry") != "false" || header.Get("Retry-After") != "" || !json.Valid(body) {
			t.Errorf("shape %d: %d %v %s", shape, status, header, body)
		}
		if class := header["x-amzn-ErrorType"]; shape == bedrock.AWS && (len(class) != 1 || class[0] != "ModelTimeoutException") {
			t.Errorf("shape %d: %v", shape, class)
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
