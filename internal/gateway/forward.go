package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

// buffers are for passing answers on. The events of a stream are small, and each open
// stream holds a buffer while it waits for the next.
var (
	buffers      = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, 2<<10); return &b }} // as much as upstream reads at once
)

// forward sends an admitted call to AWS, passes the answer on, and records both ends.
func (c *call) forward(w http.ResponseWriter, r *http.Request) {
	ctx, end := c.lifetime(r.Context())
	defer end()
	request, err := c.signed(ctx, r.Context())
	c.caller.of(w, r)
	if err == nil && c.callerLeft() { // nothing is billed yet
		err = &waybill.Error{Kind: waybill.Unavailable, Code: "WB1503", Message: "the caller left before the call did", Err: context.Cause(r.Context())}
	}
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	synced, err := c.enter()
	if err != nil {
		if !c.passesJournal() {
			c.refuse(w, r, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1501", Message: "the gateway cannot record calls at the moment", Hint: "try again", Err: err})
			return
		}
		c.g.Log.Error("a call was not recorded as opened", "call_id", c.record.CallID, "err", err)
		synced = func(context.Context) error { return nil }
	}
	if c.config.Drain == Cut || c.config.DrainTime > 0 {
		defer c.watch(ctx)()
	}
	answer, err := c.send(ctx, r.Context(), request)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	defer answer.Body.Close()
	answer.Body = c.patient(ctx, answer.Body)
	c.record.Status = answer.StatusCode
	c.record.RequestID = bedrock.RequestID(answer.Header)
	if at, ok := c.g.date(answer.Header.Get("Date")); ok {
		c.record.StartedAt = at // the bill goes by AWS's clock
	}
	if err := synced(ctx); err != nil && slow(ctx) != nil {
		c.record.UsageFrom = "the call took too long"
		c.fail(w, r, slow(ctx))
		return
	} else if err != nil && errors.Is(context.Cause(ctx), errCut) {
		c.record.UsageFrom = errCut.Error()
		c.fail(w, r, errCut)
		return
	} else if err != nil && !c.passesJournal() {
		c.record.UsageFrom = "the journal failed in mid-call"
		c.fail(w, r, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1501", Message: "the gateway cannot record calls at the moment", Hint: "it has run, and is billed, all the same", MayRun: true, Err: err})
		return
	}
	c.pass(ctx, w, answer)
}

// signed makes the request to AWS and signs it. The request lives as long as ctx; a
// role session is waited for as long as the caller stays.
func (c *call) signed(ctx, caller context.Context) (*http.Request, error) {
	service := "bedrock"
	if c.record.Endpoint == waybill.Mantle {
		service = "bedrock-mantle"
	}
	base, err := c.config.upstream(c.record.Endpoint, c.record.Region)
	if err != nil {
		return nil, err
	}
	u := *base
	if u.Path, err = url.PathUnescape(c.path); err != nil {
		return nil, fmt.Errorf("path to AWS: %w", err)
	}
	u.RawPath, u.RawQuery = c.path, c.query
	method := http.MethodPost
	switch c.route.Operation {
	case bedrock.GetAsyncInvoke, bedrock.ListAsyncInvokes, bedrock.GetResponse, bedrock.ListModels, bedrock.GetModel:
		method = http.MethodGet
	case bedrock.DeleteResponse:
		method = http.MethodDelete
	}
	r := (&http.Request{Method: method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: &u, Host: u.Host, // as it came, escapes and all
		Header: c.header, // what an earlier try has put there, the signature puts anew
	}).WithContext(ctx)
	if len(c.body) > 0 {
		r.ContentLength = int64(len(c.body))
		r.GetBody = func() (io.ReadCloser, error) { return &sentBody{left: c.body}, nil }
		r.Body = &sentBody{left: c.body}
	}
	signed, err := c.g.Signer.SignCall(caller, r, c.body, service, c.record.Region, c.session)
	if err != nil && c.fallBack(err) {
		signed, err = c.g.Signer.SignCall(caller, r, c.body, service, c.record.Region, c.session)
	}
	if err != nil {
		return nil, err
	}
	c.record.PrincipalARN = signed.PrincipalARN
	for _, key := range signed.Dropped {
		if reason := key + ":not_on_session"; !slices.Contains(c.record.Reasons, reason) {
			c.record.Reasons = append(c.record.Reasons, reason)
		}
	}
	return r, nil
}

// A sentBody lets go of its bytes when it is closed, which net/http does when it has sent
// them: it keeps the request for as long as the answer lasts, and prompts are long.
type sentBody struct {
	mu   sync.Mutex // guards left: a request may be given up while it is being sent
	left []byte
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// WriteTo gives the bytes as they lie, so that they need not be copied to be sent.
func (b *sentBody) WriteTo(w io.Writer) (int64, error) {
	b.mu.Lock()
	left := b.left
	b.left = nil
	b.mu.Unlock()
	n, err := w.Write(left)
	return int64(n), err
}

func (b *sentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = nil
	return nil
}

// ownFailures are AWS's refusals of our signature, in the words of its services: the
// caller can do nothing about them, and must not see them.
var ownFailures = map[string]bool{"ExpiredTokenException": true, "UnrecognizedClientException": true, "InvalidSignatureException": true,
	"MissingAuthenticationTokenException": true, "IncompleteSignatureException": true,
	"ExpiredToken": true, "InvalidClientTokenId": true, "SignatureDoesNotMatch": true, "MissingAuthenticationToken": true, "IncompleteSignature": true,
	"RequestTimeTooSkewed": true, "RequestExpired": true}

// keyRefused reports whether AWS refuses the short-term key that a request was sent with.
// On bedrock-mantle and in the shapes of OpenAI and Anthropic that is 401, whatever it is
// called. Else it is named like a permission that the caller lacks, and only the words
// tell, or that what is not permitted is the key itself (service authorization reference,
// CallWithBearerToken).
func keyRefused(r *http.Request, status int, said []byte) bool {
	if status != http.StatusUnauthorized && status != http.StatusForbidden {
		return false
	}
	if key := r.Header["Authorization"]; len(key) != 1 || !strings.HasPrefix(key[0], "Bearer ") {
		return false
	}
	if status == http.StatusUnauthorized {
		return true
	}
	var answer struct {
		Message string
		Error   struct{ Message string }
	}
	_ = json.Unmarshal(said, &answer) // what does not fit says nothing
	words := strings.ToLower(or(answer.Message, answer.Error.Message))
	if _, denied, ok := strings.Cut(words, "is not authorized to perform: "); ok {
		action, _, _ := strings.Cut(denied, " ")
		return strings.HasSuffix(action, ":callwithbearertoken")
	}
	for _, of := range []string{"api key", "api-key", "bearer token"} {
		if strings.Contains(words, of) {
			return true
		}
	}
	return false
}

// send makes the call. Where AWS does not accept our credentials, it gets new ones and
// tries once more: the first try has not run.
func (c *call) send(ctx, caller context.Context, r *http.Request) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		c.record.Usage = waybill.Usage{}
		begun := c.awaitFirstByte()
		answer, err := c.g.Client.RoundTrip(r)
		begun()
		if err == nil && answer.StatusCode < http.StatusOK {
			answer.Body.Close()
			err = fmt.Errorf("an answer of status %d ends nothing", answer.StatusCode)
		}
		if err != nil {
			failed, ok := errors.AsType[*net.OpError](err)
			unsent := ok && failed.Op == "dial" || notSent(err)
			if c.record.UsageFrom = "no answer came from AWS"; unsent {
				c.record.Usage, c.record.UsageFrom = waybill.NewUsage(), "AWS could not be reached"
			}
			if errors.Is(context.Cause(ctx), errCut) {
				err = errCut
			}
			if late := slow(ctx); late != nil && !unsent { // what has not left has not run
				return nil, late
			}
			return nil, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1502", Message: "AWS did not answer", Hint: "try again", Err: err}
		}
		kind, said := c.refusal(answer)
		if !ownFailures[kind] && !keyRefused(r, answer.StatusCode, said) {
			return answer, nil
		}
		answer.Body.Close()
		c.record.Usage, c.record.UsageFrom = waybill.NewUsage(), "refused by AWS"
		if attempt > 0 { // the session is a new one: if another is at fault, the next call gets it
			return nil, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1403", Message: "AWS does not accept the gateway's credentials", Hint: "try again; the gateway's operator sees why",
				Err: fmt.Errorf("%s: %q", kind, shown(said))}
		}
		c.g.Signer.Forget(c.session)
		if r, err = c.signed(ctx, caller); err != nil {
			return nil, err
		}
	}
}

// notSent reports whether the way to AWS says that nothing of a call has left.
func notSent(err error) bool {
	var e interface{ NotSent() bool }
	return errors.As(err, &e) && e.NotSent()
}

// maxRefusal bounds what is read of an answer to learn whether it refuses our signature.
const maxRefusal = 4 << 10

// refusal is AWS's name of the error of an answer that may be about our signature, and
// the beginning of its body, which is put back.
func (c *call) refusal(answer *http.Response) (kind string, said []byte) {
	switch answer.StatusCode {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
	default:
		return "", nil
	}
	stalled := time.AfterFunc(30*time.Second, func() { answer.Body.Close() })
	defer stalled.Stop()
	said, err := io.ReadAll(io.LimitReader(answer.Body, maxRefusal))
	rest := answer.Body
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(said), failing{err}, rest), rest}
	meter := bedrock.NewMeter(c.route, answer.StatusCode, answer.Header)
	_, _ = meter.Write(said) // it never fails
	kind = meter.Read().ErrorCode
	return kind[strings.IndexByte(kind, '#')+1:], said
}

// shown is the beginning of AWS's refusal of a signature, for the log. What follows it is
// the request as AWS would have signed it, with the session's token and the call's tags.
func shown(said []byte) []byte {
	if i := bytes.Index(said, []byte("Canonical")); i >= 0 {
		said = said[:i]
	}
	return said[:min(len(said), 300)]
}

// failing is a reader that gives nothing but an error, if there is one.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// fail answers and records a call that left and came to nothing that can be passed on.
func (c *call) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*waybill.Error](err)
	if !ok {
		e = &waybill.Error{Kind: waybill.Unavailable, Code: "WB1502", Message: "AWS did not answer", Err: err}
	}
	c.g.Log.Warn("call failed", "call_id", c.record.CallID, "code", e.Code, "err", e.Err)
	status, header, body := bedrock.Refusal(c.route.Shape, e, c.record.CallID)
	c.record.Outcome, c.record.Status, c.record.ErrorCode, c.record.ClientLeft = waybill.Failed, status, e.Code, c.callerLeft()
	if errors.Is(e.Err, errCut) {
		c.record.Outcome, c.record.ErrorCode = waybill.Abandoned, ""
	}
	c.close(r.Context())
	c.say(w, status, header, body)
}

// say gives the caller an answer of the gateway's own.
func (c *call) say(w http.ResponseWriter, status int, header http.Header, body []byte) {
	for name, values := range header {
		w.Header()[name] = values
	}
	c.allow(http.NewResponseController(w))
	w.WriteHeader(status)
	w.Write(body) // the caller may have left
}

// allow gives the caller time to take what is written next. One who stops reading would
// hold the call, and a connection to AWS, for ever.
func (c *call) allow(w *http.ResponseController) {
	_ = w.SetWriteDeadline(time.Now().Add(or(c.config.WriteTimeout, 5*time.Minute))) // where the server has no deadlines, it has none
}

// pass gives the answer to the caller as it comes, byte for byte, and closes the call
// in the journal before the last byte: of an answer of known length that is its last
// piece, of any other the mark of its end. ctx is that of the way to AWS.
func (c *call) pass(ctx context.Context, w http.ResponseWriter, answer *http.Response) {
	meter := bedrock.NewMeter(c.route, answer.StatusCode, answer.Header)
	meter.Request(waybill.ModelID(c.record.Model), c.body)
	c.body, c.decision = nil, nil // AWS has them
	c.release()
	copyAnswerHeaders(w.Header(), answer.Header)
	if c.config.Drain != Cut && c.config.DrainTime == 0 { // else the watch began with the call
		defer c.watch(ctx)()
	}
	out := http.NewResponseController(w)
	c.stream = isStream(answer.Header)
	c.record.Streamed = c.record.Streamed || c.stream
	left := answer.ContentLength // -1 where the length is not told
	var filter *bedrock.UsageFilter
	if c.addUsage && c.stream { // the caller did not ask for the chunk, and does not get it
		filter, left = &bedrock.UsageFilter{}, -1
		w.Header().Del("Content-Length")
	}
	pool := &buffers
	if left < 0 {
		pool = &smallBuffers
	}
	pooled := pool.Get().(*[]byte)
	defer func() {
		if pooled != nil {
			pool.Put(pooled)
		}
	}()
	var readErr error
	closed := false
	source := io.Reader(answer.Body)
	if c.config.Estimate.Header && c.config.Prices != nil {
		head, whole := c.holdBack(answer)
		if whole {
			c.passWhole(meter, w, head, answer.StatusCode)
			return
		}
		if source = io.MultiReader(bytes.NewReader(head), answer.Body); left < 0 {
			w.Header().Set("Trailer", EstimateHeader)
		}
	}
	missed := false // by a caller who has left
	give := func(piece []byte) {
		if len(piece) == 0 {
			return
		}
		if missed = missed || c.caller.gone(); missed {
			return
		}
		c.allow(out)
		if _, err := w.Write(piece); err != nil {
			c.caller.leave()
		} else if left != 0 {
			c.flush(out)
		}
	}
	w.WriteHeader(answer.StatusCode)
	if left < 0 { // a stream's first event may be long in coming
		c.allow(out)
		c.flush(out)
	}
	for {
		if c.caller.gone() && c.config.Drain == Cut {
			readErr = errCut
			break
		}
		if body, ok := source.(*patientBody); ok && left < 0 { // a stream's next event may be long in coming, too
			pool.Put(pooled)
			pooled = nil
			body.wait()
			pooled = pool.Get().(*[]byte)
		}
		buf := *pooled
		n, err := source.Read(buf)
		if n > 0 {
			if c.record.TimeToFirstByte == 0 {
				c.record.TimeToFirstByte = c.g.Now().Sub(c.started)
			}
			meter.Write(buf[:n])
			c.record.ResponseBytes += int64(n)
			if left >= 0 {
				if left -= int64(n); left == 0 && !closed {
					c.finish(meter, nil)
					closed = true
				}
			}
			piece := buf[:n]
			if filter != nil {
				piece = filter.Filter(piece)
			}
			give(piece)
			if c.caller.gone() && c.record.ResponseBytes > or(c.config.DrainBytes, 64<<20) {
				err = errCut
			}
		}
		if err == io.EOF {
			if filter != nil {
				give(filter.End())
			}
			break
		}
		if err != nil {
			readErr = err
			break
		}
	}
	if !closed {
		c.finish(meter, readErr)
		c.showCost(w.Header())
	}
	if readErr != nil || missed { // one who has ended only his side still listens
		panic(http.ErrAbortHandler) // the caller must see that the answer was cut
	}
	c.allow(out) // the mark of the end, which may come long after the last piece
}

func or[T comparable](v, other T) T {
	var zero T
	if v != zero {
		return v
	}
	return other
}

// finish reads the meter and closes the call in the journal.
func (c *call) finish(meter *bedrock.Meter, readErr error) {
	got := meter.Read()
	c.record.ClientLeft = c.callerLeft()
	c.record.Usage, c.record.UsageFrom, c.record.StopReason = got.Usage, got.From, got.StopReason
	c.record.GuardrailUnits = got.GuardrailUnits
	if c.record.Status >= 400 {
		c.record.ErrorCode = got.ErrorCode
	}
	c.record.Tier = waybill.TierStandard
	for _, tier := range []string{got.Tier, c.record.TierAsked} {
		if tier != "" && tier != "default" && tier != "auto" {
			c.record.Tier = tier
			break
		} else if tier != "" {
			break // served as standard, whatever was asked
		}
	}
	if got.LatencyMode != "" {
		c.record.LatencyMode = got.LatencyMode
	}
	if c.record.LatencyMode == "standard" {
		c.record.LatencyMode = ""
	}
	if c.record.RequestID == "" || got.Background { // each look at a background response is the same call
		c.record.RequestID = got.ResponseID
	}
	c.again = got.Background && got.Usage.Known && !c.g.looks.first(c.record.Account+" "+c.record.Region+" "+c.record.RequestID)
	if got.Model != "" { // the answer alone tells it
		c.record.Model, c.record.Scope = got.Model.Base(), got.Model.Scope()
		if c.record.ModelID == "" {
			c.record.ModelID = got.Model
		}
	}
	switch {
	case c.record.Status >= 400 || got.UnknownOperation:
		c.record.Outcome = waybill.Failed
	case got.Exception != "":
		c.record.Outcome, c.record.ErrorCode = waybill.StreamError, got.Exception
	case readErr != nil && c.record.ClientLeft:
		c.record.Outcome = waybill.Abandoned
	case readErr != nil:
		c.record.Outcome, c.record.ErrorCode = waybill.Failed, or(slowCode(readErr), "the answer was cut")
	case c.stream && !got.Whole && !got.Usage.Known: // however good its end looked
		c.record.Outcome, c.record.ErrorCode = waybill.Failed, "the answer was cut"
	default:
		c.record.Outcome = waybill.Completed
	}
	c.close(c.caller.ctx)
}

func (c *call) close(ctx context.Context) {
	c.record.Latency = c.g.Now().Sub(c.started)
	c.price()
	if err := c.settle(context.WithoutCancel(ctx)); err != nil {
		c.g.Log.Error("a call was not recorded as closed", "call_id", c.record.CallID, "request_id", c.record.RequestID, "err", err)
	}
	c.g.Metrics.ended(c)
	c.log(ctx)
}

// A dated is a Date header and what it says.
type dated struct {
	text string
	at   time.Time
}

// date reads a Date header. Those of one second are the same, and under load there are
// thousands of them.
func (g *Gateway) date(text string) (time.Time, bool) {
	if last := g.dated.Load(); last != nil && last.text == text {
		return last.at, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return time.Time{}, false
	}
	at = at.UTC()
	g.dated.Store(&dated{strings.Clone(text), at})
	return at, true
}

// enter opens the call in the journal, and settle closes it there. A record takes some two
// kilobytes of stack: here for a moment, where they are called for as long as the answer
// lasts.
//
//go:noinline
func (c *call) enter() (synced func(context.Context) error, err error) {
	return c.g.Journal.Open(c.record)
}

//go:noinline
func (c *call) settle(ctx context.Context) error { return c.g.Journal.Close(ctx, c.record) }
