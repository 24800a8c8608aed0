package identity

import (
	"iter"
	"net/http"
	"strings"
)

// tokenHeaders are where a bearer credential may stand besides Authorization. SDKs for
// Anthropic send x-api-key (some of them both, with one value), those for Azure
// api-key.
var tokenHeaders = []string{"X-Api-Key", "Api-Key"}

// maxTokens is how many different credentials one request may bring.
const maxTokens = 4

// tokens yields the bearer credentials of a request in the order in which they decide:
// Authorization, x-api-key, api-key. Blank ones are left out; equal ones come once each
// time they are sent.
func tokens(h http.Header) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, v := range h["Authorization"] {
			scheme, token, ok := strings.Cut(v, " ")
			if token = strings.TrimSpace(token); ok && token != "" && strings.EqualFold(scheme, "Bearer") && !yield(token) {
				return
			}
		}
		for _, name := range tokenHeaders {
			for _, v := range h[name] {
				if v = strings.TrimSpace(v); v != "" && !yield(v) {
					return
				}
			}
		}
	}
}

// isBedrockKey recognizes Amazon Bedrock API keys, short-lived and long-lived.
func isBedrockKey(token string) bool {
	return strings.HasPrefix(token, "bedrock-api-key-") || strings.HasPrefix(token, "ABSK")
}

// isGatewayKey recognizes gateway keys by their prefix.
func isGatewayKey(token string) bool { return strings.HasPrefix(token, keyPrefix) }

// isToken recognizes what may be a JSON Web Token: base64 of something that begins like
// a JSON object, and a dot. Whether it is one is for the parser to say. What tools send
// where they insist on some key ("sk-none") is not one.
func isToken(token string) bool {
	return strings.HasPrefix(token, "ey") && strings.IndexByte(token, '.') >= 0
}

// brings reports whether a request brings a token of a kind.
func brings(h http.Header, kind func(string) bool) bool {
	for t := range tokens(h) {
		if kind(t) {
			return true
		}
	}
	return false
}
