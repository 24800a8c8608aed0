package bedrock

import (
	"encoding/json"
	"net/http"
	"strconv"

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

// retryAfter is what a caller is asked to wait, in seconds, before it tries again what
// time may cure. SDKs add their own spread and grow it from try to try.
const retryAfter = "1"

// Refusal is the answer of the gateway itself, in the shape that the caller's SDK
// reads: its status, its headers and its body. callID goes where AWS's request id
// goes, since SDKs print that. Whether to try again is told in so many words to the SDKs
// of OpenAI and Anthropic, which would else retry every status from 500 on, and on every
// path, since Anthropic's also speak InvokeModel. The SDKs of AWS go by the status alone:
// what AWS may have run is a ModelTimeoutException to them, of status 408, which they do
// not retry.
//
// There is no refusal once a stream has begun. Where AWS cuts it, or the gateway must,
// the caller sees it cut: an event of ours within AWS's stream would be taken for AWS's
// own, and might land in the middle of one.
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
	again := (e.Kind == waybill.Unavailable || e.Kind == waybill.TooMany) && !e.MayRun
	if again {
		header.Set("Retry-After", retryAfter)
	}
	if e.MayRun {
		header.Set("X-Should-Retry", "false")
	}
	switch shape {
	case OpenAI:
		header.Set("X-Request-Id", callID)
		header.Set("X-Should-Retry", strconv.FormatBool(again))
		body = marshal(map[string]any{"error": map[string]any{"message": message, "type": r.openAI, "code": orNull(e.Code), "param": nil}})
	case Anthropic:
		header.Set("Request-Id", callID)
		header.Set("X-Should-Retry", strconv.FormatBool(again))
		body = marshal(map[string]any{"type": "error", "request_id": callID, "error": map[string]any{"type": r.anthropic, "message": message + code(e)}})
	default:
		if e.MayRun {
			r.status, r.aws = http.StatusRequestTimeout, "ModelTimeoutException"
		}
		header["x-amzn-ErrorType"] = []string{r.aws}
		body = marshal(map[string]any{"message": message + code(e)})
	}
	return r.status, header, body
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
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
