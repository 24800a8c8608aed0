package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/waybill-dev/waybill"
)

// Limits bound what strangers can make the gateway hold. The zero value is the defaults.
type Limits struct {
	Calls          int           // at once, from all callers; 0 means 20,000
	CallsPerCaller int           // at once, from one caller; 0 means no bound but Calls
	BodyBytes      int64         // of request bodies in memory, from their first byte until AWS answers, and of answers that are held back; 0 means 1 GiB
	BodyWait       time.Duration // for room in BodyBytes; 0 means five seconds
	Headers        int           // in a request; 0 means 100
	URL            int           // bytes of a request's target; 0 means 8,192
}

func (l Limits) withDefaults() Limits {
	return Limits{Calls: orDefault(l.Calls, 20_000), CallsPerCaller: l.CallsPerCaller, BodyBytes: orDefault(l.BodyBytes, 1<<30), BodyWait: orDefault(l.BodyWait, 5*time.Second),
		Headers: orDefault(l.Headers, 100), URL: orDefault(l.URL, 8192)}
}

func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// A limiter holds calls to the limits. Calls that began under one keep to it.
type limiter struct {
	Limits
	*counts
	bodies *semaphore.Weighted
}

// counts are the calls under way, whatever limits they began under.
type counts struct {
	calls atomic.Int64

	mu       sync.Mutex       // guards byCaller
	byCaller map[callerID]int // calls under way
}

// A callerID is one who calls, as limits count.
type callerID struct{ issuer, subject string }

func newLimiter(l Limits, c *counts) *limiter {
	l = l.withDefaults()
	return &limiter{Limits: l, counts: c, bodies: semaphore.NewWeighted(l.BodyBytes)}
}

// next is a limiter for new limits, which goes on counting the calls under way. Of their
// bodies it goes on counting where the limits are the same.
func (l *limiter) next(limits Limits) *limiter {
	if l == nil {
		return newLimiter(limits, &counts{byCaller: make(map[callerID]int)})
	}
	next := newLimiter(limits, l.counts)
	if next.BodyBytes == l.BodyBytes {
		next.bodies = l.bodies
	}
	return next
}

// enter takes a place for a call. Any call that entered leaves.
func (l *limiter) enter() error {
	if l.calls.Add(1) > int64(l.Calls) {
		return &waybill.Error{Kind: waybill.Unavailable, Code: "WB1510", Message: "the gateway has as many calls under way as it takes", Hint: "try again"}
	}
	return nil
}

func (l *limiter) leave() { l.calls.Add(-1) }

// enterAs takes a place among a caller's own calls.
func (l *limiter) enterAs(who callerID) error {
	if l.CallsPerCaller <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byCaller[who] >= l.CallsPerCaller {
		return &waybill.Error{Kind: waybill.TooMany, Code: "WB1511", Message: fmt.Sprintf("this caller has %d calls under way at the gateway, as many as it may", l.CallsPerCaller), Hint: "wait for one to end"}
	}
	l.byCaller[who]++
	return nil
}

func (l *limiter) leaveAs(who callerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byCaller[who]--; l.byCaller[who] <= 0 {
		delete(l.byCaller, who)
	}
}

// checkHead refuses a request whose head is larger than any client's.
func (l *limiter) checkHead(r *http.Request) error {
	if n := len(r.RequestURI); n > l.URL {
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1106", Message: fmt.Sprintf("the URL has %d bytes", n), Hint: fmt.Sprintf("at most %d are taken", l.URL)}
	}
	n := 0
	for _, values := range r.Header {
		n += len(values)
	}
	if n > l.Headers {
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1107", Message: fmt.Sprintf("the request has %d headers", n), Hint: fmt.Sprintf("at most %d are taken", l.Headers)}
	}
	return nil
}

// hold takes room for n more bytes of a body, and waits for it a while.
func (c *call) hold(ctx context.Context, n int64) error {
	if !c.limits.bodies.TryAcquire(n) {
		ctx, cancel := context.WithTimeout(ctx, c.limits.BodyWait)
		defer cancel()
		if err := c.limits.bodies.Acquire(ctx, n); err != nil {
			return &waybill.Error{Kind: waybill.Unavailable, Code: "WB1512", Message: "the gateway has no room for the request body at the moment", Hint: "try again", Err: err}
		}
	}
	c.held += n
	return nil
}

// release gives the room of the body back.
func (c *call) release() {
	if c.held > 0 {
		c.limits.bodies.Release(c.held)
		c.held = 0
	}
}

var errTooLong = errors.New("more than the limit")

// readAll reads a body of unknown length, and takes room before it takes memory.
func (c *call) readAll(r *http.Request, limit int64) ([]byte, error) {
	var body []byte
	for {
		if len(body) == cap(body) {
			more := min(max(int64(cap(body)), 16<<10), limit+1-int64(cap(body)))
			if more <= 0 {
				return nil, errTooLong
			}
			if err := c.hold(r.Context(), more); err != nil {
				return nil, err
			}
			body = slices.Grow(body, int(more))
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, errTooLong
		}
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
