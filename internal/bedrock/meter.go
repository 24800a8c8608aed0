package bedrock

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/waybill-dev/waybill"
)

// A Reading is what a meter has seen of one answer.
type Reading struct {
	Usage waybill.Usage // not known unless the answer told it
	// From says where the usage was read (headers, body, metrics, metadata, sse), or why
	// it is not known.
	From        string
	Tier        string // served, in our words; empty if the answer does not say
	LatencyMode string
	StopReason  string
	ResponseID  string // the body's own id, of OpenAI and Anthropic shapes
	// Whole is set where the protocol itself said that the answer is complete.
	Whole bool
	// Exception is the type of an exception within a stream that had begun with 200.
	Exception string
	// UnknownOperation is set where AWS answered 200 to a path it does not know.
	UnknownOperation bool
}

// A Meter reads the usage of one answer from its bytes as they pass. It changes no
// byte, holds none back and never fails: what it cannot read is usage not known. The
// reading is the same however the bytes are cut.
type Meter struct {
	route  Route
	status int
	header http.Header

	members *memberScanner
	frames  *frameScanner
	events  *eventScanner

	reading Reading
	metrics waybill.Usage // of the last chunk, or of the metadata event
	claude  claudeUsage   // of message_start and message_delta
	scratch []byte
	reason  string
}

// NewMeter makes a meter for the answer to a route.
func NewMeter(r Route, status int, h http.Header) *Meter {
	m := &Meter{route: r, status: status, header: h}
	m.reading.Tier = tier(h.Get("X-Amzn-Bedrock-Service-Tier"))
	m.reading.LatencyMode = h.Get("X-Amzn-Bedrock-PerformanceConfig-Latency")
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	encoding := h.Get("Content-Encoding")
	switch media = strings.ToLower(strings.TrimSpace(media)); {
	case encoding != "" && encoding != "identity":
		m.reason = "unmetered: the answer is encoded as " + clip(encoding)
	case status >= 200 && status < 300 && media == "application/vnd.amazon.eventstream":
		m.frames = &frameScanner{each: m.frame}
	case status >= 200 && status < 300 && media == "text/event-stream":
		m.events = &eventScanner{each: m.event}
	case media == "application/json", media == "":
		m.members = &memberScanner{want: wanted}
	default:
		m.reason = "unmetered: the answer is " + clip(media)
	}
	return m
}

// Write shows the meter a piece of the answer. It never fails.
func (m *Meter) Write(p []byte) (int, error) {
	switch {
	case m.frames != nil:
		m.frames.Write(p)
	case m.events != nil:
		m.events.Write(p)
	case m.members != nil:
		m.members.Write(p)
	}
	return len(p), nil
}

func wanted(name []byte) bool {
	switch string(name) {
	case "usage", "serviceTier", "service_tier", "performanceConfig", "stopReason", "stop_reason", "id", "type", "status",
		"Output", "prompt_token_count", "generation_token_count", "inputTextTokenCount", "inputTokenCount",
		"totalOutputTextTokenCount", "results", "images":
		return true
	}
	return false
}

// tier brings AWS's and OpenAI's names of a tier to the bill's.
func tier(name string) string {
	if name == "default" || name == "auto" {
		return waybill.TierStandard
	}
	return name
}

// Read ends the metering. Call it once, after the last Write.
func (m *Meter) Read() Reading {
	r := &m.reading
	switch {
	case m.status < 200 || m.status >= 300:
		m.readFailure()
	case !m.route.Spends:
		r.Usage, r.From, r.Whole = waybill.NewUsage(), "free of charge", true
		if m.route.Operation == GetResponse {
			m.readMembers()
		}
	case m.frames != nil:
		m.readFrames()
	case m.events != nil:
		m.events.end()
		m.readEvents()
	case m.members != nil:
		m.readMembers()
	}
	if !r.Usage.Known && r.From == "" {
		r.From = m.reason
		if r.From == "" {
			r.From = "unmetered: the answer has no usage that is understood"
		}
	}
	return *r
}

// readFailure reads an answer with an error status. AWS does not bill what it refused;
// of timeouts, model errors and its own failures nobody knows.
func (m *Meter) readFailure() {
	switch {
	case m.status == http.StatusRequestTimeout, m.status == http.StatusFailedDependency, m.status >= 500:
		m.reading.From = "the call failed after it may have begun"
	default:
		m.reading.Usage, m.reading.From = waybill.NewUsage(), "refused by AWS"
	}
	m.reading.Whole = m.members != nil && m.members.done
}

func (m *Meter) readMembers() {
	r := &m.reading
	var found map[string][]byte
	if m.members != nil {
		found = m.members.found
		r.Whole = m.members.done
	}
	if bytes.Contains(found["Output"], []byte("UnknownOperationException")) {
		r.UnknownOperation = true
		r.Usage, r.From = waybill.NewUsage(), "AWS does not know this path"
		return
	}
	m.details(found)
	body, inBody := anyUsage(found["usage"])
	if m.route.Shape == OpenAI {
		var u openAIUsage
		if json.Unmarshal(found["usage"], &u) == nil {
			body, inBody = u.usage()
		}
	}
	if m.route.Operation == InvokeModel {
		if v, ok := headerUsage(m.header); ok {
			if inBody { // the headers do not split cache writes by the life of the cache
				v = sameWrites(v, body)
			}
			r.Usage, r.From = v, "headers"
			return
		}
		if !inBody {
			body, inBody = familyUsage(found)
		}
	}
	if !inBody && len(found["images"]) > 0 {
		var images []json.RawMessage
		if json.Unmarshal(found["images"], &images) == nil {
			body, inBody = waybill.NewUsage().With(waybill.OutputImage, int64(len(images))), true
		}
	}
	if inBody {
		r.Usage, r.From = body, "body"
		return
	}
	if m.members != nil && !m.members.done {
		m.reason = "the answer was cut"
	}
}

// sameWrites takes the split of cache writes from another report of the same call, if
// both agree on their sum.
func sameWrites(v, split waybill.Usage) waybill.Usage {
	a, b, c := split.Of(waybill.CacheWrite5m), split.Of(waybill.CacheWrite30m), split.Of(waybill.CacheWrite1h)
	if v.Of(waybill.CacheWrite5m)+v.Of(waybill.CacheWrite30m)+v.Of(waybill.CacheWrite1h) != a+b+c {
		return v
	}
	return v.With(waybill.CacheWrite5m, a).With(waybill.CacheWrite30m, b).With(waybill.CacheWrite1h, c)
}

// details reads what an answer says beside its usage.
func (m *Meter) details(found map[string][]byte) {
	r := &m.reading
	var t struct{ Type string }
	if json.Unmarshal(found["serviceTier"], &t) == nil && t.Type != "" {
		r.Tier = tier(t.Type)
	}
	var p struct{ Latency string }
	if json.Unmarshal(found["performanceConfig"], &p) == nil && p.Latency != "" {
		r.LatencyMode = p.Latency
	}
	str := func(name string) string {
		var s string
		if json.Unmarshal(found[name], &s) != nil {
			return ""
		}
		return s
	}
	if s := str("service_tier"); s != "" {
		r.Tier = tier(s)
	}
	if s := str("stopReason") + str("stop_reason"); s != "" {
		r.StopReason = s
	}
	if s := str("id"); s != "" {
		r.ResponseID = s
	}
}

// frame looks at one message of an event stream.
func (m *Meter) frame(f frame) {
	switch f.messageType {
	case "exception":
		m.reading.Exception = f.exceptionType
		return
	case "error":
		m.reading.Exception = f.errorCode
		return
	}
	switch f.eventType {
	case "chunk":
		m.chunk(f.payload)
	case "messageStop":
		var e struct{ StopReason string }
		if json.Unmarshal(f.payload, &e) == nil {
			m.reading.StopReason = e.StopReason
		}
	case "metadata":
		s := memberScanner{want: wanted}
		s.Write(f.payload)
		m.details(s.found)
		if v, ok := anyUsage(s.found["usage"]); ok {
			m.metrics = v
		}
	}
}

// skipDelta is how most chunks of a Claude stream begin: they tell nothing to a meter.
var skipDelta = []byte(`{"type":"content_block_delta"`)

// chunk opens one part of a streamed Invoke answer: base64 in JSON around the model's
// own stream format.
func (m *Meter) chunk(payload []byte) {
	i := bytes.Index(payload, []byte(`"bytes":"`))
	if i < 0 {
		return
	}
	coded := payload[i+len(`"bytes":"`):]
	if i = bytes.IndexByte(coded, '"'); i < 0 {
		return
	}
	coded = coded[:i]
	var head [48]byte
	if len(coded) >= 40 {
		if n, err := base64.StdEncoding.Decode(head[:], coded[:40]); err == nil && bytes.HasPrefix(head[:n], skipDelta) {
			return
		}
	}
	need := base64.StdEncoding.DecodedLen(len(coded))
	if cap(m.scratch) < need {
		m.scratch = make([]byte, need)
	}
	n, err := base64.StdEncoding.Decode(m.scratch[:need], coded)
	if err != nil {
		return
	}
	inner := m.scratch[:n]
	var c struct {
		Metrics *nativeUsage `json:"amazon-bedrock-invocationMetrics"`
		Message struct{ Usage *claudeUsage }
		Usage   json.RawMessage
		Type    string
		Delta   struct {
			StopReason string `json:"stop_reason"`
		}
	}
	if json.Unmarshal(inner, &c) != nil {
		return
	}
	if c.Message.Usage != nil {
		m.claude = m.claude.merge(*c.Message.Usage)
	}
	if c.Delta.StopReason != "" {
		m.reading.StopReason = c.Delta.StopReason
	}
	if c.Metrics != nil {
		if v, ok := c.Metrics.usage(); ok {
			m.metrics = v
		}
	}
}

func (m *Meter) readFrames() {
	r := &m.reading
	if m.metrics.Known {
		r.Usage = m.metrics
		if split, ok := m.claude.usage(); ok {
			r.Usage = sameWrites(r.Usage, split)
		}
		r.From = "metrics"
		if m.route.Operation == ConverseStream {
			r.From = "metadata"
		}
	}
	r.Whole = m.frames.whole() && (r.Usage.Known || r.Exception != "")
	switch {
	case r.Usage.Known:
	case r.Exception != "":
		m.reason = "the stream ended with an exception"
	case m.frames.broken:
		m.reason = "unmetered: the stream is not an event stream"
	default:
		m.reason = "the stream was cut before its usage"
	}
}

var usageWord = []byte(`"usage"`)

// event looks at one server-sent event.
func (m *Meter) event(name, data []byte) {
	if bytes.Equal(data, []byte("[DONE]")) {
		m.reading.Whole = true
		return
	}
	switch string(name) {
	case "message_stop":
		m.reading.Whole = true
	case "error":
		m.reading.Exception = "error"
	}
	if !bytes.Contains(data, usageWord) && string(name) != "error" {
		return
	}
	var e struct {
		Type     string
		Usage    json.RawMessage
		Message  struct{ Usage *claudeUsage }
		Response struct {
			ID          string
			Usage       *openAIUsage
			ServiceTier string `json:"service_tier"`
		}
		ID          string
		ServiceTier string `json:"service_tier"`
		Delta       struct {
			StopReason string `json:"stop_reason"`
		}
	}
	if json.Unmarshal(data, &e) != nil {
		return
	}
	switch e.Type {
	case "message_start", "message_delta":
		if e.Message.Usage != nil {
			m.claude = m.claude.merge(*e.Message.Usage)
		}
		var u claudeUsage
		if len(e.Usage) > 0 && json.Unmarshal(e.Usage, &u) == nil {
			m.claude = m.claude.merge(u)
		}
		if e.Delta.StopReason != "" {
			m.reading.StopReason = e.Delta.StopReason
		}
		return
	case "response.completed", "response.incomplete", "response.failed":
		m.reading.Whole = true
		m.reading.ResponseID = e.Response.ID
		if e.Response.ServiceTier != "" {
			m.reading.Tier = tier(e.Response.ServiceTier)
		}
		if e.Response.Usage != nil {
			if v, ok := e.Response.Usage.usage(); ok {
				m.metrics = v
			}
		}
		return
	}
	var u openAIUsage
	if len(e.Usage) > 0 && json.Unmarshal(e.Usage, &u) == nil {
		if v, ok := u.usage(); ok {
			m.metrics = v
		}
	}
	if e.ServiceTier != "" {
		m.reading.Tier = tier(e.ServiceTier)
	}
	if e.ID != "" {
		m.reading.ResponseID = e.ID
	}
}

func (m *Meter) readEvents() {
	r := &m.reading
	switch {
	case m.metrics.Known:
		r.Usage, r.From = m.metrics, "sse"
	case m.route.Shape == Anthropic && r.Whole:
		if v, ok := m.claude.usage(); ok {
			r.Usage, r.From = v, "sse"
		}
		if m.claude.ServiceTier != "" {
			r.Tier = tier(m.claude.ServiceTier)
		}
	case !r.Whole:
		m.reason = "the stream was cut before its usage"
	default:
		m.reason = "unmetered: the stream ended without usage"
	}
}

// BodyUsage reads the usage of an answer's body as the invocation log keeps it: an
// object, or for streamed Invoke calls the array of its chunks. It is the second
// source, for records without counters, and the only one for the life of caches.
func BodyUsage(outputBody []byte) (waybill.Usage, bool) {
	outputBody = bytes.TrimSpace(outputBody)
	if len(outputBody) == 0 {
		return waybill.Usage{}, false
	}
	if outputBody[0] == '{' {
		s := memberScanner{want: wanted}
		s.Write(outputBody)
		if v, ok := anyUsage(s.found["usage"]); ok {
			return v, true
		}
		return familyUsage(s.found)
	}
	var chunks []json.RawMessage
	if outputBody[0] != '[' || json.Unmarshal(outputBody, &chunks) != nil {
		return waybill.Usage{}, false
	}
	var m Meter
	for _, c := range chunks {
		coded := base64.StdEncoding.EncodeToString(c)
		m.chunk([]byte(`{"bytes":"` + coded + `"}`))
	}
	if !m.metrics.Known {
		return waybill.Usage{}, false
	}
	if split, ok := m.claude.usage(); ok {
		return sameWrites(m.metrics, split), true
	}
	return m.metrics, true
}
