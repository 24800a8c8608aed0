package bedrock

import (
	"encoding/json"
	"net/http"

	"github.com/waybill-dev/waybill"
)

// refusals is the table of what a kind of error is to each shape of client. Policy is
// 400 or 403 and never retried; what time may cure is 503, which SDKs retry. 429 is for
// callers with too many calls at once, under a name that Bedrock does not use: its own
// ThrottlingException speaks of a quota of the account.
var refusals = map[waybill.ErrorKind]struct {
	status    int
	aws       string
	openAI    string
	anthropic string
}{
	waybill.Invalid:         {400, "ValidationException", "invalid_request_error", "invalid_request_error"},
	waybill.Unauthenticated: {401, "UnrecognizedClientException", "authentication_error", "authentication_error"},
	waybill.Denied:          {403, "AccessDeniedException", "permission_denied", "permission_error"},
	waybill.NotFound:        {404, "ResourceNotFoundException", "not_found_error", "not_found_error"},
	waybill.TooLarge:        {413, "ValidationException", "invalid_request_error", "request_too_large"},
	waybill.Unsupported:     {501, "ValidationException", "invalid_request_error", "invalid_request_error"},
	waybill.Unavailable:     {503, "ServiceUnavailableException", "server_error", "overloaded_error"},
	waybill.TooMany:         {429, "TooManyRequestsException", "rate_limit_error", "rate_limit_error"},
	waybill.Internal:        {500, "InternalServerException", "server_error", "api_error"},
}

// Refusal is the answer of the gateway itself, in the shape that the caller's SDK
// reads: its status, its headers and its body. callID goes where AWS's request id
// goes, since SDKs print that.
func Refusal(shape Shape, e *waybill.Error, callID string) (status int, header http.Header, body []byte) {
	r, ok := refusals[e.Kind]
	if !ok {
		r = refusals[waybill.Internal]
	}
	message := e.Message
	if e.Hint != "" {
		message += "; " + e.Hint
	}
	header = http.Header{}
	header.Set("Content-Type", "application/json")
	header["x-amzn-RequestId"] = []string{callID}
	header.Set("X-Waybill-Error", e.Code)
	if e.Kind == waybill.Unavailable || e.Kind == waybill.TooMany {
		header.Set("Retry-After", "1")
	}
	switch shape {
	case OpenAI:
		body = marshal(map[string]any{"error": map[string]any{"message": message, "type": r.openAI, "code": e.Code, "param": nil}})
	case Anthropic:
		body = marshal(map[string]any{"type": "error", "request_id": callID, "error": map[string]any{"type": r.anthropic, "message": message + code(e)}})
	default:
		header["x-amzn-ErrorType"] = []string{r.aws}
		body = marshal(map[string]any{"message": message + code(e)})
	}
	return r.status, header, body
}

func code(e *waybill.Error) string {
	if e.Code == "" {
		return ""
	}
	return " [" + e.Code + "]"
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // maps of strings: it does not happen
		return []byte(`{"message":"internal error"}`)
	}
	return b
}

// ShapeOf is the shape of a path that is not served: by its first segment.
func ShapeOf(path string) Shape {
	switch {
	case len(path) >= 11 && path[:11] == "/anthropic/":
		return Anthropic
	case len(path) >= 8 && path[:8] == "/openai/", len(path) >= 4 && path[:4] == "/v1/":
		return OpenAI
	}
	return AWS
}
