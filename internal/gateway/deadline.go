package gateway

import (
	"context"
	"errors"
	"io"
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
	ctx, stop := context.WithTimeoutCause(context.WithoutCancel(caller), or(c.config.Timeouts.Call, time.Hour), errCallTime)
	ctx, c.cut = context.WithCancelCause(ctx)
	return ctx, func() { c.cut(nil); stop() }
}

// awaitFirstByte breaks the call off if AWS does not begin to answer before the function
// is called that it gives.
func (c *call) awaitFirstByte() (begun func() bool) {
	return time.AfterFunc(or(c.config.Timeouts.FirstByte[c.record.Endpoint], 15*time.Minute), func() { c.cut(errFirstByte) }).Stop
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
	ctx   context.Context // of the call; only its cause is read
	timer *time.Timer
	idle  time.Duration
	err   error // of an earlier Read
}

func (c *call) patient(ctx context.Context, body io.ReadCloser) *patientBody {
	p := &patientBody{ReadCloser: body, ctx: ctx, idle: or(c.config.Timeouts.Idle, 5*time.Minute)}
	p.timer = time.AfterFunc(p.idle, func() { c.cut(errIdle) })
	p.timer.Stop()
	return p
}

func (p *patientBody) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	p.timer.Reset(p.idle)
	n, err := p.ReadCloser.Read(b)
	p.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(p.ctx); slowCode(cause) != "" {
			err = cause
		}
	}
	p.err = err
	return n, err
}
