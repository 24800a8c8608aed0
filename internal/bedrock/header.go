package bedrock

import (
	"net/http"
	"slices"
	"strings"
)

// Header names of Bedrock.
const (
	MetadataHeaderName = "X-Amzn-Bedrock-Request-Metadata"
	RequestIDHeader    = "X-Amzn-Requestid" // as net/http spells x-amzn-RequestId
)

// WorkspaceHeaders are the headers that choose a workspace on the Messages API of
// bedrock-mantle. AWS has written it in two ways, and ignores the one it does not know in
// silence: both are sent with one value.
var WorkspaceHeaders = []string{"anthropic-workspace-id", "anthropic-workspace"}

// The headers that choose a project: of OpenAI's shapes, and of InvokeModel and its
// stream (member projectIdentifier of the service model, which Converse has in its body).
const (
	projectHeader       = "openai-project"
	invokeProjectHeader = "x-amzn-bedrock-projectidentifier"
)

// TakeMetadata removes every spelling of the request metadata header and returns the
// values it had. Names are compared without regard to case, and with underscores as
// hyphens: some servers take the one for the other.
func TakeMetadata(h http.Header) []string {
	return take(h, func(name string) bool { return strings.EqualFold(name, MetadataHeaderName) })
}

// TakeProject removes every header that chooses a project or workspace, and returns
// the values it had.
func TakeProject(h http.Header) []string {
	return take(h, func(name string) bool {
		for _, w := range WorkspaceHeaders {
			if strings.EqualFold(name, w) {
				return true
			}
		}
		return strings.EqualFold(name, projectHeader) || strings.EqualFold(name, invokeProjectHeader)
	})
}

// SetProject chooses a project or workspace on a path of its shape. spellings are those
// of WorkspaceHeaders that are sent; nil sends all.
func SetProject(h http.Header, shape Shape, project string, spellings []string) {
	if shape != Anthropic {
		h.Set(projectHeader, project)
		return
	}
	if spellings == nil {
		spellings = WorkspaceHeaders
	}
	for _, name := range spellings {
		h.Set(name, project)
	}
}

func take(h http.Header, is func(name string) bool) []string {
	var names, values []string
	for name := range h {
		if is(strings.ReplaceAll(strings.TrimSpace(name), "_", "-")) {
			names = append(names, name)
		}
	}
	slices.Sort(names) // an order that does not change
	for _, name := range names {
		values = append(values, h[name]...)
		delete(h, name)
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
