package bedrock

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Header names of Bedrock.
const (
	MetadataHeaderName = "X-Amzn-Bedrock-Request-Metadata"
	RequestIDHeader    = "X-Amzn-Requestid" // as net/http spells x-amzn-RequestId
)

// The headers that choose a project or a workspace on bedrock-mantle. AWS has written
// the workspace header in two ways: both are sent with one value.
var projectHeaders = []string{"openai-project", "anthropic-workspace", "anthropic-workspace-id"}

// TakeMetadata removes every spelling of the request metadata header and returns the
// values it had. Names are compared without regard to case, and with underscores as
// hyphens: some servers take the one for the other.
func TakeMetadata(h http.Header) []string {
	return take(h, func(name string) bool { return name == "x-amzn-bedrock-request-metadata" })
}

// TakeProject removes every header that chooses a project or workspace, and returns
// the values it had.
func TakeProject(h http.Header) []string {
	return take(h, func(name string) bool {
		for _, p := range projectHeaders {
			if name == p {
				return true
			}
		}
		return false
	})
}

// SetProject chooses a project or workspace on a path of its shape.
func SetProject(h http.Header, shape Shape, project string) {
	if shape == Anthropic {
		h.Set("anthropic-workspace-id", project)
		h.Set("anthropic-workspace", project)
		return
	}
	h.Set("OpenAI-Project", project)
}

func take(h http.Header, is func(lower string) bool) []string {
	var values []string
	for _, name := range slices.Sorted(maps.Keys(h)) { // in an order that does not change
		if is(strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), "_", "-")) {
			values = append(values, h[name]...)
			delete(h, name)
		}
	}
	return values
}

// RequestID is AWS's name of a call in the answer's headers, in the order in which
// the three API families are trusted to send it.
func RequestID(h http.Header) string {
	for _, name := range []string{RequestIDHeader, "X-Request-Id", "Request-Id"} {
		if id := h.Get(name); id != "" {
			return id
		}
	}
	return ""
}
