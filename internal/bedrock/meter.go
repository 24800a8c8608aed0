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
	// From says where the usage was read (headers, body, metrics, metadata, sse, chunk,
	// request), or why it is not known.
	From        string
	Tier        string // served, in our words; empty if the answer does not say
	LatencyMode string
	StopReason  string
	ResponseID  string // the body's own id, of OpenAI and Anthropic shapes
	// Model is the model as the answer names it, where the request's does not tell: that of
	// a response looked at later, or the one a prompt router has chosen. Empty otherwise.
	Model waybill.ModelID
	// GuardrailUnits are the text units of all guardrail policies that are charged for,
	// where the answer tells them.
	GuardrailUnits int64
	// Background is set where the answer is of a response that is made in the background.
	// The call that asks for it and every later look that finds it done tell of one use of
	// the model: count them once, by ResponseID.
	Background bool
	// ErrorCode is AWS's name of the error, of an answer with an error status.
	ErrorCode string
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

	members *memberScanner // of an answer in one piece
	frames  *frameScanner
	events  *eventScanner

	reading    Reading
	asked      waybill.Usage // what the request asks for, of models that are charged by it
	metrics    waybill.Usage // of the last chunk, or of the metadata event
	native     waybill.Usage // of a stream whose last chunk has the family's usage and no metrics
	final      bool          // of a stream: what tells the whole usage was seen
	ended      bool          // a Responses stream has told its last event
	background bool          // the response is made in the background
	claude     claudeUsage   // of message_start and message_delta
	scanner    memberScanner // of the answer, or of one event or chunk after another
	scratch    []byte
	reason     string
}

// NewMeter makes a meter for the answer to a route.
func NewMeter(r Route, status int, h http.Header) *Meter {
	m := &Meter{route: r, status: status, header: h}
	m.reading.Tier = tier(h.Get("X-Amzn-Bedrock-Service-Tier"))
	m.reading.LatencyMode = h.Get("X-Amzn-Bedrock-Performanceconfig-Latency")
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
		m.members = &m.scanner
		m.members.want = wanted
		if r.Operation == Responses || r.Operation == CompactResponse || r.Operation == GetResponse || r.Operation == CancelResponse {
			m.members.want, m.members.limit = wantedOfResponse, maxEvent
		}
	default:
		m.reason = "unmetered: the answer is " + clip(media)
	}
	return m
}

// Request shows the meter what was asked, before the answer: the model that was called and
// the body as it was sent. Rerank models and those that make video are charged by it, and
// their answers do not repeat it. The body is not kept.
func (m *Meter) Request(model waybill.ModelID, body []byte) {
	if m.route.Spends && m.status >= 200 && m.status < 300 {
		m.asked, _ = askedUsage(m.route, model, body)
	}
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

// wanted are the top-level members of answers, events and chunks that tell a meter
// something.
func wanted(name []byte) interest {
	switch string(name) {
	case "usage", "serviceTier", "service_tier", "performanceConfig", "stopReason", "stop_reason", "id", "type", "status",
		"prompt_token_count", "generation_token_count", "inputTextTokenCount", "inputTokenCount",
		"totalOutputTextTokenCount", "results", "Output", "error", "code", "__type", "background", "trace",
		"amazon-bedrock-trace", "amazon-bedrock-invocationMetrics", "message", "delta", "metadata", "invocationArn":
		return keep
	case "images", "artifacts", "choices", "embedding", "embeddings", "embeddingsByType", "data":
		return measure
	}
	return ignore
}

// wantedOfResponse adds the output of a response: it tells the web searches.
func wantedOfResponse(name []byte) interest {
	switch string(name) {
	case "output", "model":
		return keep
	}
	return wanted(name)
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
		m.readFree()
	case m.frames != nil:
		m.readFrames()
	case m.events != nil:
		m.events.end()
		m.readEvents()
	default: // headers tell even where the body cannot be read
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
	m.reading.ErrorCode = errorCode(m.header, m.members)
}

// readFree reads the answer of an operation that uses no model itself. A guardrail is
// charged by its own units. A look at a response that was made in the background is the
// first to tell what that has used.
func (m *Meter) readFree() {
	r := &m.reading
	r.Usage, r.From, r.Whole = waybill.NewUsage(), "free of charge", true
	found := m.members
	if m.unknownOperation(found) {
		return
	}
	switch m.route.Operation {
	case ApplyGuardrail, InvokeGuardrailChecks:
		units, ok := guardrailUnits(found.raw("usage"))
		r.GuardrailUnits, r.From = units, "guardrail"
		if !ok {
			r.Usage, r.From = waybill.Usage{}, m.unread("unmetered: the answer has no guardrail units that are understood")
			r.Whole = m.members != nil && m.members.done
		}
	case GetResponse, CancelResponse:
		if m.events != nil {
			m.events.end()
			r.Whole = m.ended
		}
		m.responseDetails(found)
		if model, ok := found.lookUp("model"); ok {
			r.Model = waybill.ModelID(text(model))
		}
		if r.Background = m.background; !r.Background {
			return
		}
		if v, ok := usageOf(OpenAI, found.raw("usage")); ok && !unfinished(found.raw("status")) {
			r.Usage, r.From = withSearches(v, found.raw("output")), "body"
		} else if m.metrics.Known {
			r.Usage, r.From = m.metrics, "sse"
		} else { // not done yet, or told nothing: a later look may
			r.Background = false
		}
	}
}

// unfinished reports whether a response is still being made.
func unfinished(status []byte) bool {
	s := text(status)
	return s == "queued" || s == "in_progress"
}

// unread is why nothing was read of an answer: what is known of it, or else other.
func (m *Meter) unread(other string) string {
	switch {
	case m.reason != "":
		return m.reason
	case m.members != nil && !m.members.done:
		return "the answer was cut"
	}
	return other
}

// unknownOperation finds the answer that AWS has for paths it does not know: of status
// 200, as a rule.
func (m *Meter) unknownOperation(found *memberScanner) bool {
	if !bytes.Contains(found.raw("Output"), []byte("UnknownOperationException")) {
		return false
	}
	r := &m.reading
	r.UnknownOperation, r.Whole = true, m.members.done
	r.Usage, r.From = waybill.NewUsage(), "AWS does not know this path"
	return true
}

func (m *Meter) readMembers() {
	r := &m.reading
	none := memberScanner{}
	s := m.members
	if s == nil {
		s = &none
	}
	r.Whole = s.done
	if m.unknownOperation(s) {
		return
	}
	m.responseDetails(s)
	r.Background = m.background && r.ResponseID != ""
	body, inBody := usageOf(m.route.Shape, s.raw("usage"))
	if m.route.Operation == InvokeModel {
		if _, ranked := s.length("results"); ranked && m.asked.Known {
			r.Usage, r.From = m.asked, "request" // tokens are not charged besides
			return
		}
		if !inBody {
			body, inBody = familyUsage(s)
		}
		body, inBody = withImages(body, inBody, s)
		if v, ok := headerUsage(m.header, body, inBody, m.embeds()); ok {
			r.Usage, r.From = v, "headers"
			return
		}
	}
	switch {
	case inBody:
		r.Usage, r.From = withSearches(body, s.raw("output")), "body"
	case s == &none:
	case !s.done:
		m.reason = "the answer was cut"
	case m.route.Operation == StartAsyncInvoke && m.asked.Known && r.ResponseID != "":
		r.Usage, r.From = m.asked, "request"
	case m.route.Operation == StartAsyncInvoke:
		m.reason = "unmetered: the result goes to S3"
	case m.background:
		m.reason = "the response is made in the background: a later look at it tells"
	}
}

// withImages adds the images of an answer to its usage, which is known if it has any.
func withImages(u waybill.Usage, known bool, answer *memberScanner) (waybill.Usage, bool) {
	images, _ := answer.length("images")
	artifacts, _ := answer.length("artifacts")
	images += artifacts
	if images == 0 {
		return u, known
	}
	if !known {
		u = waybill.NewUsage()
	}
	return u.With(waybill.OutputImage, int64(images)), true
}

// embeds reports whether the answer is that of an embedding model, which tells input
// alone.
func (m *Meter) embeds() bool {
	if strings.Contains(string(m.route.ModelID), "embed") {
		return true
	}
	if m.members != nil {
		for _, name := range []string{"embedding", "embeddings", "embeddingsByType", "data"} {
			if _, ok := m.members.length(name); ok {
				return true
			}
		}
	}
	return false
}

// completed adds to the usage that is charged what another report of the same call tells
// besides: the split of cache writes by life, if both agree on their sum, web searches,
// and the part of output that was reasoning.
func completed(v, other waybill.Usage) waybill.Usage {
	if v.Of(waybill.SearchUnit) == 0 {
		v = v.With(waybill.SearchUnit, other.Of(waybill.SearchUnit))
	}
	if v.Reasoning == 0 {
		v.Reasoning = min(other.Reasoning, v.Of(waybill.Output))
	}
	a, b, c := other.Of(waybill.CacheWrite5m), other.Of(waybill.CacheWrite30m), other.Of(waybill.CacheWrite1h)
	if v.Of(waybill.CacheWrite5m)+v.Of(waybill.CacheWrite30m)+v.Of(waybill.CacheWrite1h) != a+b+c {
		return v
	}
	return v.With(waybill.CacheWrite5m, a).With(waybill.CacheWrite30m, b).With(waybill.CacheWrite1h, c)
}

// details reads what an answer says beside its usage.
func (m *Meter) details(found *memberScanner) {
	r := &m.reading
	set := func(to *string, v string) {
		if v != "" {
			*to = v
		}
	}
	set(&r.Tier, tier(text(member(found.raw("serviceTier"), "type"))))
	set(&r.Tier, tier(text(found.raw("service_tier"))))
	if m.route.Shape == Anthropic {
		set(&r.Tier, tier(text(member(found.raw("usage"), "service_tier"))))
	}
	set(&r.LatencyMode, text(member(found.raw("performanceConfig"), "latency")))
	set(&r.StopReason, text(found.raw("stopReason")))
	set(&r.StopReason, text(found.raw("stop_reason")))
	set(&r.ResponseID, text(found.raw("id")))
	set(&r.ResponseID, text(found.raw("invocationArn")))
	if router := member(found.raw("trace"), "promptRouter"); len(router) > 0 {
		r.Model = waybill.ModelID(text(member(router, "invokedModelId")))
	}
	for _, name := range []string{"trace", "amazon-bedrock-trace"} {
		if trace, ok := found.lookUp(name); ok {
			units, _ := guardrailUnits(trace)
			r.GuardrailUnits += units
		}
	}
}

// responseDetails reads what a response says beside its usage.
func (m *Meter) responseDetails(found *memberScanner) {
	m.details(found)
	m.background = m.background || string(found.raw("background")) == "true"
}

// frame looks at one message of an event stream.
func (m *Meter) frame(f frame) {
	switch string(f.messageType) {
	case "exception":
		m.reading.Exception = string(f.exceptionType)
		return
	case "error":
		m.reading.Exception = string(f.errorCode)
		return
	}
	switch string(f.eventType) {
	case "chunk":
		m.chunk(f.payload)
	case "messageStop":
		m.details(m.scan(f.payload))
	case "metadata":
		s := m.scan(f.payload)
		m.details(s)
		if v, ok := usageOf(AWS, s.raw("usage")); ok {
			m.metrics = v
		}
	}
}

// skipDelta is how most chunks of a Claude stream begin: they tell nothing to a meter.
var skipDelta = []byte(`{"type":"content_block_delta"`)

// scan reads the members of an event or a chunk. They are valid until the next one.
func (m *Meter) scan(doc []byte) *memberScanner {
	m.scanner.want = wanted
	m.scanner.reset()
	m.scanner.Write(doc)
	return &m.scanner
}

// chunk opens one part of a streamed Invoke answer: base64 in JSON around the model's
// own stream format.
func (m *Meter) chunk(payload []byte) {
	coded, ok := bytesMember(payload)
	if !ok {
		return
	}
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
	m.part(m.scratch[:n])
}

// bytesMember is the base64 in a chunk's payload.
func bytesMember(payload []byte) ([]byte, bool) {
	const start = `"bytes":"`
	if i := bytes.Index(payload, []byte(start)); i >= 0 {
		coded := payload[i+len(start):]
		if i = bytes.IndexByte(coded, '"'); i >= 0 && bytes.IndexByte(coded[:i], '\\') < 0 {
			return coded[:i], true
		}
	}
	coded := text(member(payload, "bytes")) // written in another way
	return []byte(coded), coded != ""
}

// ownWord begins the names of the members that Bedrock adds to a model's own.
var ownWord = []byte(`"amazon-bedrock-`)

// part reads one document of a model's own stream format.
func (m *Meter) part(doc []byte) {
	if !bytes.Contains(doc, ownWord) && !bytes.Contains(doc, usageWord) {
		return // a piece of text
	}
	s := m.scan(doc)
	m.claudePart(s)
	m.details(s)
	if metrics, ok := s.lookUp("amazon-bedrock-invocationMetrics"); ok {
		if v, ok := usageOf(AWS, metrics); ok {
			m.metrics = v
		}
	}
	if v, ok := lastUsage(s, doc); ok {
		m.native = v
	}
}

// lastUsage is the usage in the last part of a stream in a family's own words: Nova's
// metadata, or OpenAI's chunk without choices or with the reason of the end. Other parts
// tell the usage so far. Bedrock adds its metrics to the last part of every family that
// was seen; this is for one that it forgets.
func lastUsage(s *memberScanner, doc []byte) (waybill.Usage, bool) {
	if v, ok := usageOf(AWS, member(s.raw("metadata"), "usage")); ok {
		return v, true
	}
	choices, there := s.length("choices")
	if !there || choices > 0 && !finished(doc) {
		return waybill.Usage{}, false
	}
	return usageOf(OpenAI, s.raw("usage"))
}

// finished reports whether a chunk of OpenAI's shape tells why the answer ended.
func finished(doc []byte) bool {
	_, rest, found := bytes.Cut(doc, []byte(`"finish_reason"`))
	rest = bytes.TrimLeft(rest, ": \t\r\n")
	return found && len(rest) > 0 && rest[0] == '"'
}

// claudePart reads what message_start and message_delta tell. Other families have
// members of these names and other types.
func (m *Meter) claudePart(s *memberScanner) {
	for _, raw := range [][]byte{member(s.raw("message"), "usage"), s.raw("usage")} {
		if len(raw) == 0 {
			continue
		}
		if u, ok := readClaude(raw); ok {
			m.claude = m.claude.merge(u)
		}
	}
	if id := text(member(s.raw("message"), "id")); id != "" {
		m.reading.ResponseID = id
	}
	if stop := text(member(s.raw("delta"), "stop_reason")); stop != "" {
		m.reading.StopReason, m.final = stop, true
	}
}

func (m *Meter) readFrames() {
	r := &m.reading
	switch u, ok := m.ofChunks(); {
	case m.metrics.Known:
		r.Usage, r.From = u, "metrics"
		if m.route.Operation == ConverseStream {
			r.From = "metadata"
		}
	case ok && m.frames.whole() && r.Exception == "":
		r.Usage, r.From = u, "chunk"
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

var usageWord, noUsage, errorWord = []byte(`"usage"`), []byte(`"usage":null`), []byte(`"error"`)

// event looks at one server-sent event.
func (m *Meter) event(name, data []byte) {
	if bytes.Equal(data, []byte("[DONE]")) {
		m.reading.Whole = true
		return
	}
	if string(name) == "message_stop" {
		m.reading.Whole = true
	}
	if !bytes.Contains(data, usageWord) && !bytes.Contains(data, errorWord) && string(name) != "error" && !isLast(string(name)) {
		return // a delta: it tells nothing
	}
	if m.reading.ResponseID != "" && bytes.Contains(data, noUsage) && bytes.Count(data, usageWord) == 1 && !bytes.Contains(data, errorWord) && len(name) == 0 {
		return // a delta of a stream whose last chunk will tell
	}
	s := m.scan(data)
	kind := text(s.raw("type"))
	if failure := s.raw("error"); kind == "error" || string(name) == "error" || len(failure) > 0 && string(failure) != "null" {
		m.reading.Exception = "error"
		for _, code := range []string{text(s.raw("code")), text(member(failure, "type")), text(member(failure, "code"))} {
			if code != "" {
				m.reading.Exception = code
			}
		}
		return
	}
	switch kind {
	case "message_start", "message_delta":
		m.claudePart(s)
		return
	case "message_stop":
		m.reading.Whole = true
		return
	}
	if isLast(kind) || kind == "response.created" {
		m.response(kind, data)
		return
	}
	if v, ok := usageOf(OpenAI, s.raw("usage")); ok {
		m.metrics = v
		n, there := s.length("choices")
		m.final = there && n == 0 // the chunk of its own; others tell the usage so far
	}
	m.details(s)
}

// isLast reports whether a type of event ends a Responses stream.
func isLast(kind string) bool {
	return kind == "response.completed" || kind == "response.incomplete" || kind == "response.failed"
}

// response reads the first or the last event of a Responses stream. They hold the response
// as it stands; the last one the whole.
func (m *Meter) response(kind string, data []byte) {
	s := memberScanner{want: wantedOfResponse, limit: maxEvent}
	s.Write(member(data, "response"))
	m.responseDetails(&s)
	if !isLast(kind) {
		return
	}
	m.reading.Whole, m.ended = true, true
	if m.route.ModelID == "" && !m.route.ModelInBody { // a look at it
		m.reading.Model = waybill.ModelID(text(s.raw("model")))
	}
	if v, ok := usageOf(OpenAI, s.raw("usage")); ok {
		m.metrics = withSearches(v, s.raw("output"))
	}
	if kind != "response.failed" {
		return
	}
	m.reading.Exception = kind
	if code := text(member(s.raw("error"), "code")); code != "" {
		m.reading.Exception = code
	}
}

func (m *Meter) readEvents() {
	r := &m.reading
	r.Background = m.background && r.ResponseID != ""
	if m.claude.ServiceTier != "" {
		r.Tier = tier(m.claude.ServiceTier)
	}
	told, ok := m.metrics, m.metrics.Known
	if m.route.Shape == Anthropic {
		told, ok = m.claude.usage()
	}
	switch {
	case ok && (r.Whole || m.final):
		r.Usage, r.From = told, "sse"
	case r.Exception != "":
		m.reason = "the stream ended with an error"
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
		v, ok := anyUsage(s.raw("usage"))
		if !ok {
			v, ok = familyUsage(&s)
		}
		return withImages(v, ok, &s)
	}
	var chunks []json.RawMessage
	if outputBody[0] != '[' || json.Unmarshal(outputBody, &chunks) != nil {
		return waybill.Usage{}, false
	}
	var m Meter
	for _, c := range chunks {
		m.part(c)
	}
	return m.ofChunks()
}

// ofChunks is the usage that the parts of a streamed Invoke answer have told: Bedrock's
// metrics, with what the family's own words add to them, or else those alone.
func (m *Meter) ofChunks() (waybill.Usage, bool) {
	if !m.metrics.Known {
		return m.native, m.native.Known
	}
	u := m.metrics
	if own, ok := m.claude.usage(); ok {
		u = completed(u, own)
	}
	if m.native.Known {
		u = completed(u, m.native)
	}
	return u, true
}
