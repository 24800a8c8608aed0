package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

// buffers are for passing answers on.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// forward sends an admitted call to AWS, passes the answer on, and records both ends.
func (c *call) forward(w http.ResponseWriter, r *http.Request) {
	// The caller may hang up; what AWS does for it is billed, so the call goes on.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	request, err := c.signed(ctx)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	synced, err := c.g.Journal.Open(c.record)
	if err != nil {
		if !c.config.PassWithoutJournal {
			c.refuse(w, r, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1501", Message: "the gateway cannot record calls at the moment", Hint: "try again", Err: err})
			return
		}
		c.g.Log.Error("a call was not recorded as opened", "call_id", c.record.CallID, "err", err)
		synced = func(context.Context) error { return nil }
	}
	answer, err := c.send(ctx, request)
	if err != nil {
		c.record.UsageFrom = "no answer came from AWS"
		c.fail(w, r, err)
		return
	}
	defer answer.Body.Close()
	c.record.Status = answer.StatusCode
	c.record.RequestID = bedrock.RequestID(answer.Header)
	if at, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		c.record.StartedAt = at.UTC() // the bill goes by AWS's clock
	}
	if err := synced(ctx); err != nil && !c.config.PassWithoutJournal {
		c.record.UsageFrom = "the journal failed in mid-call"
		c.fail(w, r, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1501", Message: "the gateway cannot record calls at the moment", Hint: "try again", Err: err})
		return
	}
	c.pass(ctx, w, r, answer)
}

// signed makes the request to AWS and signs it.
func (c *call) signed(ctx context.Context) (*http.Request, error) {
	base, service := c.config.Upstream[c.record.Endpoint], "bedrock"
	if c.record.Endpoint == waybill.Mantle {
		service = "bedrock-mantle"
		if base == "" {
			base = "https://bedrock-mantle.{region}.api.aws"
		}
	} else if base == "" {
		base = "https://bedrock-runtime.{region}.amazonaws.com"
	}
	u, err := url.Parse(strings.ReplaceAll(base, "{region}", c.record.Region))
	if err != nil {
		return nil, fmt.Errorf("upstream of %s: %w", c.record.Endpoint, err)
	}
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
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(c.body))
	if err != nil {
		return nil, fmt.Errorf("request to AWS: %w", err)
	}
	r.URL = u // as it came, escapes and all
	r.Header = c.header.Clone()
	signed, err := c.g.Signer.SignCall(ctx, r, c.body, service, c.record.Region, c.session)
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

// ownFailures are AWS's refusals of our signature: the caller can do nothing about
// them, and must not see them.
var ownFailures = map[string]bool{"ExpiredTokenException": true, "UnrecognizedClientException": true, "InvalidSignatureException": true,
	"MissingAuthenticationTokenException": true, "IncompleteSignatureException": true}

// send makes the call. Where AWS does not accept our credentials, it gets new ones and
// tries once more: the first try has not run.
func (c *call) send(ctx context.Context, r *http.Request) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		answer, err := c.g.Client.RoundTrip(r)
		if err != nil {
			return nil, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1502", Message: "AWS did not answer", Hint: "try again", Err: err}
		}
		kind, _, _ := strings.Cut(answer.Header.Get("X-Amzn-Errortype"), ":")
		if answer.StatusCode < 400 || !ownFailures[kind] {
			return answer, nil
		}
		said, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10)) // for the log; what is lost does not matter
		answer.Body.Close()
		c.g.Signer.Forget(c.session)
		if attempt > 0 {
			return nil, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1403", Message: "AWS does not accept the gateway's credentials", Hint: "try again; the gateway's operator sees why",
				Err: fmt.Errorf("%s: %s", kind, said)}
		}
		if r, err = c.signed(ctx); err != nil {
			return nil, err
		}
	}
}

// fail answers and records a call that left and came to nothing that can be passed on.
func (c *call) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*waybill.Error](err)
	if !ok {
		e = &waybill.Error{Kind: waybill.Unavailable, Code: "WB1502", Message: "AWS did not answer", Err: err}
	}
	c.g.Log.Warn("call failed", "call_id", c.record.CallID, "code", e.Code, "err", e.Err)
	status, header, body := bedrock.Refusal(c.route.Shape, e, c.record.CallID)
	c.record.Outcome, c.record.ErrorCode, c.record.Usage = waybill.Failed, e.Code, waybill.Usage{}
	if c.record.Status == 0 {
		c.record.Status = status
	}
	c.close(r.Context())
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	w.Write(body) // the caller may have left
}

// pass gives the answer to the caller as it comes, byte for byte, and closes the call
// in the journal before the last byte: of an answer of known length that is its last
// piece, of any other the mark of its end.
func (c *call) pass(ctx context.Context, w http.ResponseWriter, r *http.Request, answer *http.Response) {
	meter := bedrock.NewMeter(c.route, answer.StatusCode, answer.Header)
	copyAnswerHeaders(w.Header(), answer.Header)
	flush, _ := w.(http.Flusher)
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := *pooled
	left := answer.ContentLength // -1 where the length is not told
	gone := r.Context().Err() != nil
	var drain *time.Timer
	var readErr error
	closed := false
	var filter *bedrock.UsageFilter
	if c.addUsage { // the caller did not ask for the chunk, and does not get it
		filter, left = &bedrock.UsageFilter{}, -1
		w.Header().Del("Content-Length")
	}
	w.WriteHeader(answer.StatusCode)
	for {
		if gone && drain == nil {
			c.record.ClientLeft = true
			if c.config.Drain == Cut {
				readErr = errCut
				break
			}
			drain = time.AfterFunc(or(c.config.DrainTime, 2*time.Minute), func() { answer.Body.Close() })
			defer drain.Stop()
		}
		n, err := answer.Body.Read(buf)
		if n > 0 {
			if c.record.TimeToFirstByte == 0 {
				c.record.TimeToFirstByte = c.g.Now().Sub(c.started)
			}
			meter.Write(buf[:n])
			c.record.ResponseBytes += int64(n)
			if left >= 0 {
				if left -= int64(n); left == 0 && !closed {
					c.finish(r.Context(), meter, nil)
					closed = true
				}
			}
			out := buf[:n]
			if filter != nil {
				out = filter.Filter(out)
			}
			if !gone && len(out) > 0 {
				if _, werr := w.Write(out); werr != nil {
					gone = true
				} else if flush != nil && left != 0 {
					flush.Flush()
				}
			}
			if gone && c.record.ResponseBytes > orN(c.config.DrainBytes, 64<<20) {
				err = errCut
			}
		}
		if !gone && r.Context().Err() != nil {
			gone = true
		}
		if err == io.EOF {
			if filter != nil && !gone {
				w.Write(filter.End()) // the caller may have left
			}
			break
		}
		if err != nil {
			readErr = err
			break
		}
	}
	if !closed {
		c.finish(r.Context(), meter, readErr)
	}
	if readErr != nil && !gone {
		panic(http.ErrAbortHandler) // the caller must see that the answer was cut
	}
	_ = ctx
}

var errCut = errors.New("the caller left, and the rest was not read")

func or(d, other time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return other
}

func orN(n, other int64) int64 {
	if n > 0 {
		return n
	}
	return other
}

// finish reads the meter and closes the call in the journal.
func (c *call) finish(ctx context.Context, meter *bedrock.Meter, readErr error) {
	got := meter.Read()
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
	switch {
	case c.record.Status >= 400 || got.UnknownOperation:
		c.record.Outcome = waybill.Failed
	case got.Exception != "":
		c.record.Outcome, c.record.ErrorCode = waybill.StreamError, got.Exception
	case readErr != nil && c.record.ClientLeft:
		c.record.Outcome = waybill.Abandoned
	case readErr != nil:
		c.record.Outcome, c.record.ErrorCode = waybill.Failed, "the answer was cut"
	default:
		c.record.Outcome = waybill.Completed
	}
	c.close(ctx)
}

func (c *call) close(ctx context.Context) {
	c.record.Latency = c.g.Now().Sub(c.started)
	if err := c.g.Journal.Close(context.WithoutCancel(ctx), c.record); err != nil {
		c.g.Log.Error("a call was not recorded as closed", "call_id", c.record.CallID, "request_id", c.record.RequestID, "err", err)
	}
	c.g.Metrics.ended(c)
}
