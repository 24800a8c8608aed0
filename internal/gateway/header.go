package gateway

import (
	"net/http"
	"strings"

	"github.com/waybill-dev/waybill/internal/bedrock"
	"github.com/waybill-dev/waybill/internal/policy"
)

// passed are the request headers that go to AWS. Everything else stays: what proves
// the caller's identity, what belongs to the connection, what others put in between.
var passed = map[string]bool{
	"Content-Type": true, "Accept": true, "User-Agent": true, "Accept-Language": true,
	"Anthropic-Beta": true, "Anthropic-Version": true, "Amz-Sdk-Invocation-Id": true, "Amz-Sdk-Request": true,
	"Traceparent": true, "Tracestate": true, "X-Amzn-Trace-Id": true, "Openai-Beta": true, "Idempotency-Key": true,
}

// takeHeaders makes the headers that go to AWS, and returns the tags that the request
// asked for. Every spelling of the metadata, project and workspace headers is taken
// off: only the gateway sets them.
func (c *call) takeHeaders(r *http.Request) ([]policy.Asked, error) {
	h := r.Header
	asked, err := policy.TakeAsked(h)
	if err != nil {
		return nil, err
	}
	for _, raw := range bedrock.TakeMetadata(h) {
		if c.route.Carrier != bedrock.MetadataHeader {
			continue // it means nothing on this path
		}
		tags, err := bedrock.ParseMetadata(raw)
		if err != nil {
			return nil, err
		}
		for k, v := range tags.All() {
			asked = append(asked, policy.Asked{Key: k, Value: v, From: bedrock.MetadataHeaderName})
		}
	}
	policy.Order(asked)
	bedrock.TakeProject(h)
	c.header = make(http.Header, 8)
	for name, values := range h {
		if passed[name] || strings.HasPrefix(name, "X-Amzn-Bedrock-") {
			c.header[name] = values
		}
	}
	// A request with this header is sent again by net/http where its connection ends before
	// the answer: AWS may have run it, and would bill both. It looks for no other spelling.
	if key, ok := c.header["Idempotency-Key"]; ok {
		delete(c.header, "Idempotency-Key")
		c.header["idempotency-key"] = key
	}
	if c.header["User-Agent"] == nil {
		c.header["User-Agent"] = []string{""} // so that net/http adds none of its own
	}
	if c.route.Carrier == bedrock.MetadataHeader { // elsewhere the body says it, and AWS does not read the header
		c.record.TierAsked = clip(h.Get("X-Amzn-Bedrock-Service-Tier"), maxWord)
	}
	return asked, nil
}

// notKept are answer headers that belong to the connection to AWS, not to the answer.
var notKept = map[string]bool{"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true}

func copyAnswerHeaders(to, from http.Header) {
	to["Content-Type"] = nil // so that net/http makes none up
	for name, values := range from {
		if notKept[name] {
			continue
		}
		if name == bedrock.RequestIDHeader {
			name = "x-amzn-RequestId"
		}
		to[name] = values
	}
}

// isStream reports whether an answer is one event after another.
func isStream(h http.Header) bool {
	media, _, _ := strings.Cut(strings.ToLower(h.Get("Content-Type")), ";")
	media = strings.TrimSpace(media)
	return media == "application/vnd.amazon.eventstream" || media == "text/event-stream"
}
