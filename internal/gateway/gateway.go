package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
	"github.com/waybill-dev/waybill/internal/policy"
)

// An Authenticator says who made a request. Its errors are *waybill.Error of kind
// Unauthenticated, and never say what was wrong with a proof.
type Authenticator interface {
	Authenticate(*http.Request) (waybill.Principal, error)
}

// A Signer signs a request under a role session, as the last change made to it, and
// says which principal AWS will see, and which tags it will not. Its errors are
// *waybill.Error.
type Signer interface {
	SignCall(ctx context.Context, r *http.Request, body []byte, service, region string, s waybill.RoleSession) (waybill.Signed, error)
	// Forget drops a session that AWS has refused.
	Forget(waybill.RoleSession)
}

// A Recorder keeps the journal. Open returns at once, and the function it gives waits
// until the entry is on disk. Close returns when the entry survives the process.
type Recorder interface {
	Open(waybill.Invocation) (synced func(context.Context) error, err error)
	Close(context.Context, waybill.Invocation) error
	Ready() error
}

// A Gateway is an http.Handler for callers.
type Gateway struct {
	Callers Authenticator
	Signer  Signer
	Journal Recorder
	Client  http.RoundTripper // to AWS: it must not follow redirects, retry or ask for compression
	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
	// Catalogue tells the models behind profiles that Config.Profiles does not have; nil
	// knows none.
	Catalogue Catalogue
	// Guard counts the distinct values of tag keys that declare a bound; nil counts
	// nothing. Reload gives it the new policy.
	Guard *policy.Guard

	mu     sync.RWMutex // guards config and limits
	config *Config
	limits *limiter
	calls  sync.WaitGroup
	looks  looks
	dated  atomic.Pointer[dated] // the last one
}

// Reload puts a new configuration. Calls under way keep theirs.
func (g *Gateway) Reload(c *Config) {
	own := *c
	own.upstreams = new(sync.Map) // with their configuration they end
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config, g.limits = &own, g.limits.next(c.Limits)
	if g.Guard != nil {
		g.Guard.Use(c.Policy)
	}
}

func (g *Gateway) current() *Config {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.config
}

func (g *Gateway) inForce() (*Config, *limiter) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.config, g.limits
}

// Policy is the tag policy in force.
func (g *Gateway) Policy() *policy.Policy { return g.current().Policy }

// Wait returns when no call is under way, answers being drained included.
func (g *Gateway) Wait() { g.calls.Wait() }

// A call is one request on its way.
type call struct {
	g         *Gateway
	config    *Config
	limits    *limiter
	held      int64 // bytes of the limits' room that the body takes
	started   time.Time
	route     bedrock.Route
	principal waybill.Principal
	decision  *policy.Decision
	session   waybill.RoleSession
	body      []byte
	header    http.Header // what goes to AWS
	path      string      // escaped
	query     string
	record    waybill.Invocation
	target    *Target
	// modelInBody is the profile that takes the place of the body's model; empty means none.
	modelInBody string
	cut         context.CancelCauseFunc // breaks off the way to AWS
	watchdog    watchdog
	caller      caller
	cost        waybill.Money
	priced      bool
	stream      bool // the answer is one
	addUsage    bool // stream_options.include_usage was put in
	again       bool // it tells of a use of a model that was told of before
	entered     bool // it has a place among its caller's calls
	broker      bool // it asks for a session, not for an answer
}

// ServeHTTP takes one call.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.calls.Add(1)
	defer g.calls.Done()
	c := &call{g: g, started: g.Now()}
	c.config, c.limits = g.inForce()
	defer c.release()
	defer g.Metrics.began()()
	v := &c.record // field by field: a literal would lie on the stack of every open stream
	v.CallID, v.Source, v.StartedAt, v.Gateway = newCallID(c.started), waybill.FromGateway, c.started.UTC(), c.config.Name
	v.TraceParent, v.SDKInvocationID = clip(r.Header.Get("Traceparent"), 64), clip(r.Header.Get("Amz-Sdk-Invocation-Id"), 64)
	w.Header().Set("X-Waybill-Call-Id", c.record.CallID)
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		// The head may have told a length too, which net/http drops: a server on the way
		// that went by it would take the end of the body for another request, or the other
		// way round. RFC 9112, section 6.1, wants the connection closed.
		w.Header().Set("Connection", "close")
	}
	// A stranger may not hold a connection open with a body that never ends.
	deadline := http.NewResponseController(w)
	_ = deadline.SetWriteDeadline(time.Time{})                                           // what the call before it on this connection has left
	_ = deadline.SetReadDeadline(c.started.Add(or(c.config.BodyTimeout, 5*time.Minute))) // where the server has no deadlines, it has none
	defer c.limits.leave()
	err := c.limits.enter()
	if err == nil {
		err = c.admit(r)
	}
	defer c.leave()
	if err != nil {
		if c.record.Endpoint == "" { // it was not asked yet what the path is
			c.route.Shape = bedrock.ShapeOf(strings.TrimPrefix(r.URL.EscapedPath(), "/bedrock"))
		}
		c.refuse(w, r, err) // the deadline stays: the server still reads what is left of the body
		return
	}
	_ = deadline.SetReadDeadline(time.Time{})
	c.forward(w, r)
}

// leave gives a call's place among its caller's back.
func (c *call) leave() {
	if c.entered {
		c.limits.leaveAs(c.who())
	}
}

// who is the caller as limits count: a name means nothing without who vouches for it.
func (c *call) who() callerID { return callerID{c.record.Issuer, c.record.Principal} }

// Within holds another handler to the limits and the time of calls, for what else
// strangers may ask of the same listener.
func (g *Gateway) Within(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.calls.Add(1)
		defer g.calls.Done()
		config, limits := g.inForce()
		until := http.NewResponseController(w)
		_ = until.SetReadDeadline(time.Now().Add(or(config.BodyTimeout, 5*time.Minute)))   // where the server has no deadlines, it has none
		_ = until.SetWriteDeadline(time.Now().Add(or(config.WriteTimeout, 5*time.Minute))) // and puts another on the next call of the connection
		defer limits.leave()
		err := limits.enter()
		if err == nil {
			err = limits.checkHead(r)
		}
		if e, ok := errors.AsType[*waybill.Error](err); ok {
			status, header, body := bedrock.Refusal(bedrock.OpenAI, e, newCallID(g.Now()))
			for name, values := range header {
				w.Header()[name] = values
			}
			w.WriteHeader(status)
			w.Write(body) // whoever asked may have left
			return
		}
		h.ServeHTTP(w, r)
	})
}

// log tells of a call that is over, to those who debug: never of prompts, answers, tags
// or anything secret.
func (c *call) log(ctx context.Context) {
	if !c.g.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	v := &c.record
	c.g.Log.LogAttrs(ctx, slog.LevelDebug, "call", slog.String("call_id", v.CallID), slog.String("request_id", v.RequestID), slog.String("outcome", string(v.Outcome)),
		slog.Int("status", v.Status), slog.String("error_code", v.ErrorCode), slog.String("endpoint", string(v.Endpoint)), slog.String("operation", v.Operation),
		slog.String("model", v.Model), slog.String("region", v.Region), slog.String("principal", v.Principal), slog.Bool("usage_known", v.Usage.Known),
		slog.Duration("latency", v.Latency), slog.Duration("first_byte", v.TimeToFirstByte), slog.Int64("request_bytes", v.RequestBytes), slog.Int64("response_bytes", v.ResponseBytes))
}

// newCallID is a UUIDv7: it sorts by time.
func newCallID(now time.Time) string {
	var b [16]byte
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	rand.Read(b[6:]) // it does not fail
	b[6], b[8] = b[6]&0x0f|0x70, b[8]&0x3f|0x80
	var s [36]byte
	hex.Encode(s[0:], b[0:4])
	hex.Encode(s[9:], b[4:6])
	hex.Encode(s[14:], b[6:8])
	hex.Encode(s[19:], b[8:10])
	hex.Encode(s[24:], b[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// admit asks the questions in their order. What it returns is a *waybill.Error.
func (c *call) admit(r *http.Request) error {
	if err := c.limits.checkHead(r); err != nil {
		return err
	}
	var err error
	if c.principal, err = c.g.Callers.Authenticate(r); err != nil {
		return err
	}
	c.record.Principal, c.record.Issuer, c.record.KeyID = c.principal.Subject, c.principal.Issuer, c.principal.KeyID
	if err := c.limits.enterAs(c.who()); err != nil {
		return err
	}
	c.entered = c.limits.CallsPerCaller > 0
	if err := c.findRoute(r); err != nil {
		return err
	}
	body, err := c.readBody(r)
	if err != nil {
		return err
	}
	asked, err := c.takeHeaders(r)
	if err != nil {
		return err
	}
	var parsed *bedrock.Body
	if c.route.Carrier == bedrock.MetadataBody || c.route.ModelInBody {
		if parsed, err = bedrock.ReadBody(body, c.route); err != nil {
			return err
		}
		for k, v := range parsed.Metadata.All() {
			asked = append(asked, policy.Asked{Key: k, Value: v, From: "requestMetadata"})
		}
		for k, v := range parsed.Resource.All() {
			asked = append(asked, policy.Asked{Key: k, Value: v, From: "tags"})
		}
		policy.Order(asked)
		if len(parsed.Model) > maxModelID || len(parsed.Tier) > maxWord || len(parsed.LatencyMode) > maxWord { // records have room for names alone
			return &waybill.Error{Kind: waybill.Invalid, Code: "WB1212", Message: "the request body names a model, a service tier or a latency longer than any that AWS has", Hint: "send its id, profile or ARN, as AWS writes it"}
		}
		if c.route.ModelInBody {
			c.record.ModelID = parsed.Model
		}
		if parsed.Tier != "" {
			c.record.TierAsked = parsed.Tier
		}
		c.record.LatencyMode = parsed.LatencyMode
		c.record.Streamed = c.record.Streamed || parsed.Stream
	}
	if err := policy.Bounded(asked); err != nil {
		return err
	}
	if err := c.mayUse(); err != nil {
		return err
	}
	if err := c.decide(asked); err != nil {
		return err
	}
	c.findTarget()
	if err := c.chooseRole(); err != nil {
		return err
	}
	c.aim()
	if err := c.unpriced(); err != nil {
		return err
	}
	c.body = body
	return c.stamp(parsed)
}

const (
	maxModelID = 2048 // bytes (API reference, "InvokeModel")
	maxWord    = 64   // of a tier or a latency mode
)

// findRoute reads the endpoint, the Region and the operation from host and path.
func (c *call) findRoute(r *http.Request) error {
	path := r.URL.EscapedPath()
	raw, query, _ := strings.Cut(r.RequestURI, "?")
	if raw != path && strings.HasPrefix(raw, "/") {
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1104", Message: "the path has characters that must be escaped", Hint: "send it as an SDK does"}
	}
	if strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r > '~' }) { // HTTP/2 lets a space pass, which would end the target in the request line to AWS
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1104", Message: "the query has characters that must be escaped", Hint: "send it as an SDK does"}
	}
	if rest, ok := strings.CutPrefix(path, "/bedrock/"); ok {
		path = "/" + rest
	}
	endpoint := waybill.Runtime
	service, rest, _ := strings.Cut(r.Host, ".")
	if service == string(waybill.Mantle) || strings.HasPrefix(path, "/v1/") {
		endpoint = waybill.Mantle
	}
	c.record.Endpoint, c.record.Region = endpoint, c.config.DefaultRegion
	if named, _, more := strings.Cut(rest, "."); more && (service == string(waybill.Runtime) || service == string(waybill.Mantle)) {
		if i := slices.Index(c.config.Regions, named); i >= 0 {
			c.record.Region = c.config.Regions[i]
		}
	}
	var err error
	if c.route, err = bedrock.FindRoute(r.Method, path, endpoint); err != nil {
		c.route.Shape = bedrock.ShapeOf(path)
		if e, ok := errors.AsType[*waybill.Error](err); ok && e.Kind == waybill.Unsupported {
			e.Hint = c.config.around()
		}
		return err
	}
	c.path, c.query = path, query
	c.record.Operation, c.record.ModelID, c.record.Streamed = string(c.route.Operation), c.route.ModelID, c.route.EventStream
	return nil
}

func (c *call) readBody(r *http.Request) ([]byte, error) {
	limit := c.config.MaxBody
	if limit <= 0 {
		limit = 25_000_000
	}
	tooLarge := &waybill.Error{Kind: waybill.TooLarge, Code: "WB1205", Message: "the request body is larger than Bedrock takes", Hint: "send at most 25,000,000 bytes"}
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1206", Message: "the request body is compressed", Hint: "send it as it is"}
	}
	var body []byte
	var err error
	if r.ContentLength >= 0 {
		if err := c.hold(r.Context(), r.ContentLength); err != nil {
			return nil, err
		}
		body, err = readFull(r.Body, r.ContentLength)
	} else if body, err = c.readAll(r, limit); errors.Is(err, errTooLong) {
		return nil, tooLarge
	}
	if e, ok := errors.AsType[*waybill.Error](err); ok {
		return nil, e // the body is not what the caller has signed
	}
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1207", Message: "the request body did not arrive whole", Err: err}
	}
	c.record.RequestBytes = int64(len(body))
	return body, nil
}

// promised is how much memory the promise of a body takes before its bytes come.
const promised = 256 << 10

// readFull reads n bytes.
func readFull(r io.Reader, n int64) ([]byte, error) {
	b := make([]byte, 0, min(n, promised))
	for int64(len(b)) < n {
		if len(b) == cap(b) {
			b = slices.Grow(b, int(min(n-int64(len(b)), 3*int64(len(b)))))
		}
		end := min(int64(cap(b)), n)
		got, err := io.ReadFull(r, b[len(b):end])
		if b = b[:len(b)+got]; err != nil {
			return nil, err
		}
	}
	return b, nil
}

// mayUse holds the call against the restrictions of the caller's credential.
func (c *call) mayUse() error {
	if len(c.principal.Models) == 0 || !c.route.Spends {
		return nil
	}
	asked := c.askedModel()
	for _, p := range c.principal.Models {
		if policy.MatchPattern(p, asked) || policy.MatchPattern(p, string(c.record.ModelID)) {
			return nil
		}
	}
	return &waybill.Error{Kind: waybill.Denied, Code: "WB1303", Message: "this caller may not use that model", Hint: "allowed are: " + strings.Join(c.principal.Models, ", ")}
}

// decide resolves the call's tags.
func (c *call) decide(asked []policy.Asked) error {
	d := c.config.Policy.Decide(c.policyRequest(asked))
	c.decision = d
	c.record.Tags, c.record.PolicyOutcome, c.record.Reasons = d.Tags, d.Outcome, d.Reasons()
	c.record.PolicyVersion = c.config.Policy.Version()
	if !c.route.Charged() { // what costs nothing needs no owner: it passes, and is not recorded as refused
		if d.Outcome == waybill.PolicyRefused {
			c.record.PolicyOutcome, c.record.Reasons = waybill.PolicyAllowed, d.Observed()
		}
		return nil
	}
	if e := d.Refusal(); e != nil {
		if err := c.violated(e); err != nil {
			return err
		}
	}
	if len(c.principal.Environments) == 0 {
		return nil
	}
	env, ok := d.Tags.Get("environment")
	for _, p := range c.principal.Environments {
		if ok && policy.MatchPattern(p, env) {
			return nil
		}
	}
	if !ok { // whatever has taken it away: who is held to some may not call for none
		return &waybill.Error{Kind: waybill.Denied, Code: "WB1304", Message: "this caller is held to some environments, and the call is of none", Hint: "set the tag environment to one of: " + strings.Join(c.principal.Environments, ", ")}
	}
	return &waybill.Error{Kind: waybill.Denied, Code: "WB1304", Message: "this caller may not use that environment", Hint: "allowed are: " + strings.Join(c.principal.Environments, ", ")}
}

func (c *call) policyRequest(asked []policy.Asked) *policy.Request {
	req := &policy.Request{CallID: c.record.CallID, At: c.started, Principal: c.principal, Operation: c.record.Operation, Endpoint: c.record.Endpoint,
		Region: c.record.Region, Model: c.record.ModelID, Asked: asked}
	req.Behind, _ = c.modelBehind(string(c.record.ModelID))
	if c.route.Charged() { // what costs nothing uses up no bound
		req.Guard = c.g.Guard
	}
	return req
}

// chooseRole takes the target's role, or else the first that holds. Without one the call is refused: it
// would be billed to the gateway itself.
func (c *call) chooseRole() error {
	for i := range c.config.Roles {
		role := &c.config.Roles[i]
		if c.broker && !role.Broker {
			continue
		}
		if c.target != nil && c.target.Role != "" {
			if role.ARN != c.target.Role {
				continue
			}
		} else if ok, _ := role.When.Holds(c.decision.Fact); !ok {
			continue
		}
		c.session = waybill.RoleSession{RoleARN: role.ARN, SessionName: c.decision.SessionName, Tags: c.decision.Session,
			Transitive: role.Transitive, ExternalID: role.ExternalID, SourceIdentity: c.decision.Fill(role.SourceIdentity), Drop: c.decision.Drop}
		if name := c.decision.Fill(role.SessionName); name != "" {
			c.session.SessionName = name
		}
		c.record.SessionName = c.session.SessionName
		c.record.Account = accountOf(role.ARN)
		return nil
	}
	return &waybill.Error{Kind: waybill.Denied, Code: "WB1305", Message: "no role is meant for this call", Hint: "ask the gateway's operator to add one under roles"}
}

// accountOf is the account of a role.
func accountOf(arn string) string {
	account := arn
	for range 4 {
		_, account, _ = strings.Cut(account, ":")
	}
	account, _, ok := strings.Cut(account, ":")
	if !ok {
		return ""
	}
	return account
}

// without takes one out of a list with commas.
func without(list, one string) string {
	parts := strings.Split(list, ",")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == one }), ",")
}

// stamp puts the tags on the call.
func (c *call) stamp(parsed *bedrock.Body) error {
	var carried []string
	switch c.route.Carrier {
	case bedrock.MetadataBody:
		c.body = parsed.Stamp(c.decision.Request)
	case bedrock.MetadataHeader:
		if c.decision.Request.Len() > 0 {
			c.header.Set(bedrock.MetadataHeaderName, c.decision.Request.Canonical())
		}
	}
	if c.route.Carrier != bedrock.NoMetadata && c.decision.Request.Len() > 0 {
		carried = append(carried, "request")
	}
	if c.decision.Session.Len() > 0 {
		carried = append(carried, "session")
	}
	if c.record.Project != "" {
		bedrock.SetProject(c.header, c.route.Shape, c.record.Project, c.config.WorkspaceHeaders)
		carried = append(carried, "resource")
	} else if c.record.Profile != "" {
		carried = append(carried, "resource")
	}
	edits := bedrock.Edits{Model: c.modelInBody}
	if c.config.MantleMetadata && c.route.Audited {
		edits.Metadata = c.trail()
		carried = append([]string{"request"}, carried...)
	}
	if c.route.Operation == bedrock.StartAsyncInvoke {
		edits.Resource, edits.Reserved = c.decision.Resource, c.config.Policy.Keys()
		if edits.Resource.Len() > 0 {
			carried = append(carried, "resource")
		}
	}
	if c.config.InsertUsage && c.route.Operation == bedrock.ChatCompletions && parsed.Stream && !parsed.AsksUsage() {
		edits.Usage, c.addUsage = true, true
	}
	c.record.Carried = strings.Join(carried, ",")
	if edits.Model == "" && !edits.Usage && edits.Metadata.Len() == 0 && c.route.Operation != bedrock.StartAsyncInvoke {
		return nil
	}
	body, err := parsed.Edit(edits)
	if err != nil {
		return err
	}
	c.body = body
	return nil
}

// trailKey is the pair of the member metadata that joins a call to its CloudTrail event.
const trailKey = "waybill_call"

// trail is what goes into a mantle call's member metadata: the request's tags, and the
// call's id if there is room for it.
func (c *call) trail() waybill.Tags {
	tags := c.decision.Request
	if tags.Len() >= 16 {
		return tags
	}
	return waybill.NewTags(append(tags.List(), waybill.Tag{Key: trailKey, Value: c.record.CallID})...)
}

// refuse answers for the gateway itself, in the shape that the caller's SDK reads, and
// records it.
func (c *call) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*waybill.Error](err)
	if !ok {
		e = &waybill.Error{Kind: waybill.Internal, Code: "WB1900", Message: "the gateway failed", Err: err}
	}
	status, header, body := bedrock.Refusal(c.route.Shape, e, c.record.CallID)
	c.record.Outcome, c.record.Status, c.record.ErrorCode = waybill.Refused, status, e.Code
	c.record.Usage, c.record.UsageFrom = waybill.NewUsage(), "refused by the gateway"
	c.record.Latency = c.g.Now().Sub(c.started)
	if e.Err != nil {
		c.g.Log.Warn("call refused", "call_id", c.record.CallID, "code", e.Code, "err", e.Err)
	}
	if e.Kind != waybill.Unauthenticated && c.record.Principal != "" { // strangers cannot fill the journal
		if err := c.g.Journal.Close(context.WithoutCancel(r.Context()), c.record); err != nil {
			c.g.Log.Error("a refusal was not recorded", "call_id", c.record.CallID, "err", err)
		}
	}
	c.g.Metrics.ended(c)
	c.log(r.Context())
	c.say(w, status, header, body)
}
