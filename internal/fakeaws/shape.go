package fakeaws

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// A shape is how an API writes its errors: as AWS's REST-JSON services do, as OpenAI
// does, or as Anthropic does.
type shape int

const (
	awsShape shape = iota
	openAIShape
	anthropicShape
)

// A refusal is an error answer. Its kind is an AWS error type; where a path answers in
// another shape it may be that shape's own code, and AWS's types are translated.
type refusal struct {
	status  int
	kind    string
	message string
}

func (r *refusal) Error() string { return r.kind + ": " + r.message }

// refuse answers with a refusal in the shape of the path that was called, and gives the
// code that it is known by there. The front door, where signatures and keys are checked,
// may answer in AWS's shape on every path.
func (x *exchange) refuse(no *refusal, frontDoor bool) string {
	h := x.rw.Header()
	if f := x.fault; f.Body != "" {
		h.Set("Content-Type", "text/html")
		x.send(no.status, []byte(f.Body))
		return no.kind
	}
	h.Set("Content-Type", "application/json")
	switch {
	case x.route.shape == openAIShape && !frontDoor:
		kind, code := openAIError(no)
		x.send(no.status, encode(obj{"error": obj{"message": no.message, "type": kind, "code": code, "param": nil}}))
		return code
	case x.route.shape == anthropicShape && !frontDoor:
		kind := anthropicError(no)
		x.send(no.status, encode(obj{"type": "error", "error": obj{"type": kind, "message": no.message}, "request_id": x.call.RequestID}))
		return kind
	}
	h["x-amzn-ErrorType"] = []string{no.kind + ":http://internal.amazon.com/coral/com.amazon.bedrock/"}
	b, _ := json.Marshal(map[string]string{"message": no.message}) // strings: it does not fail
	x.send(no.status, b)
	return no.kind
}

func (x *exchange) send(status int, body []byte) {
	x.rw.WriteHeader(status)
	x.rw.Write(body) // the client may have left
}

// openAIError is the type and the code of a refusal in OpenAI's shape.
func openAIError(no *refusal) (kind, code string) {
	known := map[int][2]string{
		http.StatusUnauthorized:          {"invalid_request_error", "invalid_api_key"},
		http.StatusForbidden:             {"invalid_request_error", "permission_denied"},
		http.StatusNotFound:              {"invalid_request_error", "not_found"},
		http.StatusRequestTimeout:        {"server_error", "request_timeout"},
		http.StatusRequestEntityTooLarge: {"invalid_request_error", "request_too_large"},
		http.StatusTooManyRequests:       {"rate_limit_error", "rate_limit_exceeded"},
		http.StatusServiceUnavailable:    {"server_error", "service_unavailable"},
	}
	pair, ok := known[no.status]
	switch {
	case ok:
	case no.status >= 500:
		pair = [2]string{"server_error", "internal_server_error"}
	default:
		pair = [2]string{"invalid_request_error", "validation_error"}
	}
	if no.kind != "" && !strings.HasSuffix(no.kind, "Exception") {
		pair[1] = no.kind
	}
	return pair[0], pair[1]
}

// anthropicError is the type of a refusal in Anthropic's shape.
func anthropicError(no *refusal) string {
	if strings.HasSuffix(no.kind, "_error") {
		return no.kind
	}
	known := map[int]string{401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}
	switch kind, ok := known[no.status]; {
	case ok:
		return kind
	case no.status == 503:
		return "overloaded_error"
	case no.status >= 500:
		return "api_error"
	}
	return "invalid_request_error"
}

// streamError is the code of an error event: an exception of AWS's, in a shape's own words.
func streamError(exception string, of func(*refusal) string) string {
	status := map[string]int{"throttlingException": 429, "validationException": 400, "serviceUnavailableException": 503, "modelTimeoutException": 408}[exception]
	switch {
	case !strings.HasSuffix(exception, "Exception"):
		return exception
	case status == 0:
		status = 500
	}
	return of(&refusal{status: status})
}

func openAICode(no *refusal) string {
	_, code := openAIError(no)
	return code
}

func decimalInt(n int64) string { return strconv.FormatInt(n, 10) }
