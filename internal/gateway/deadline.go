package gateway

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/waybill-dev/waybill"
)

// Why a call was broken off that AWS was slow to answer.
var (
	errFirstByte = errors.New("AWS did not begin to answer in time")
	errIdle      = errors.New("AWS began to answer, and then said nothing for too long")
	errCallTime  = errors.New("the call took longer than calls may")
)

// slowCode is what records say of them; empty for any other error.
func slowCode(err error) string {
	switch {
	case errors.Is(err, errFirstByte):
		return "WB1505"
	case errors.Is(err, errIdle):
		return "WB1506"
	case errors.Is(err, errCallTime):
		return "WB1507"
	}
	return ""
}

// lifetime is the context of the way to AWS: it ends with the call's time, and by cut,
// with a cause. The caller may hang up; what AWS does for it is billed, so the call goes on.
func (c *call) lifetime(caller context.Context) (ctx context.Context, end func()) {
	ctx, c.cut = context.WithCancelCause(context.WithoutCancel(caller))
	c.watchdog.start(or(c.config.Timeouts.Call, time.Hour), c.cut)
	return ctx, func() { c.watchdog.stop(); c.cut(nil) }
}

// awaitFirstByte breaks the call off if AWS does not begin to answer before the function
// is called that it gives.
func (c *call) awaitFirstByte() (begun func()) {
	c.watchdog.await(or(c.config.Timeouts.FirstByte[c.record.Endpoint], 15*time.Minute), errFirstByte)
	return c.watchdog.came
}

// A watchdog breaks a call off that takes too long, or one wait of it that does. It has
// one timer for all: one that goes off too early, since the wait it was set for is over,
// is set anew.
type watchdog struct {
	mu    sync.Mutex // guards what follows
	cut   context.CancelCauseFunc
	timer *time.Timer // nil before the call and after
	rings time.Time   // when the timer goes off
	end   time.Time   // of the call's time
	until time.Time   // of the wait under way; zero if there is none
	why   error       // what a wait until then is broken off with
}

func (d *watchdog) start(patience time.Duration, cut context.CancelCauseFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut, d.end = cut, time.Now().Add(patience)
	d.rings, d.timer = d.end, time.AfterFunc(patience, d.bark)
}

func (d *watchdog) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer.Stop()
	d.timer = nil
}

// await bounds a wait, until came is called.
func (d *watchdog) await(patience time.Duration, why error) {
	until := time.Now().Add(patience)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until, d.why = until, why
	if d.timer != nil && until.Before(d.rings) {
		d.rings = until
		d.timer.Reset(patience)
	}
}

func (d *watchdog) came() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = time.Time{}
}

func (d *watchdog) bark() {
	d.mu.Lock()
	if d.timer == nil { // the call is over
		d.mu.Unlock()
		return
	}
	limit, why := d.end, errCallTime
	if !d.until.IsZero() && d.until.Before(d.end) {
		limit, why = d.until, d.why
	}
	left := time.Until(limit)
	if left > 0 {
		d.rings = limit
		d.timer.Reset(left)
	}
	d.mu.Unlock()
	if left <= 0 {
		d.cut(why)
	}
}

// slow is the error of a call that was broken off for want of an answer, or nil. Whether
// AWS has run it, and bills it, nobody knows.
func slow(ctx context.Context) *waybill.Error {
	cause := context.Cause(ctx)
	code := slowCode(cause)
	if code == "" {
		return nil
	}
	return &waybill.Error{Kind: waybill.Unavailable, Code: code, Message: cause.Error(), Hint: "it may have run, and be billed, all the same", MayRun: true, Err: cause}
}

// A patientBody is an answer's body that is broken off when nothing comes for too long.
type patientBody struct {
	io.ReadCloser
	ctx      context.Context // of the call; only its cause is read
	watchdog *watchdog
	idle     time.Duration
	err      error // of an earlier Read
}

func (c *call) patient(ctx context.Context, body io.ReadCloser) *patientBody {
	return &patientBody{ReadCloser: body, ctx: ctx, watchdog: &c.watchdog, idle: or(c.config.Timeouts.Idle, 5*time.Minute)}
}

func (p *patientBody) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	p.watchdog.await(p.idle, errIdle)
	n, err := p.ReadCloser.Read(b)
	p.watchdog.came()
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(p.ctx); slowCode(cause) != "" {
			err = cause
		}
	}
	p.err = err
	return n, err
}

// wait waits for what Read gives, where the body can do that for a reader without a buffer.
func (p *patientBody) wait() {
	if body, ok := p.ReadCloser.(interface{ Wait() }); ok && p.err == nil {
		p.watchdog.await(p.idle, errIdle)
		body.Wait()
		p.watchdog.came()
	}
}
