package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"
)

var errCut = errors.New("the caller left, and the rest was not read")

// watch ends the way to AWS for a caller who has left, at once or after the time that
// draining may take, be it that AWS says nothing more, or nothing at all: an answer that
// is no stream begins when it is whole. Where no time is set, what bounds the wait for
// an answer's beginning is the time that AWS has for it. What it returns ends the watch.
func (c *call) watch(ctx context.Context) (unwatch func() bool) {
	c.caller.follow = func() {
		if c.config.Drain != Cut {
			bound := time.NewTimer(or(c.config.DrainTime, 2*time.Minute))
			defer bound.Stop()
			select {
			case <-bound.C:
			case <-ctx.Done():
				return
			}
		}
		c.cut(errCut)
	}
	c.caller.unwatch = context.AfterFunc(c.caller.ctx, c.caller.follow)
	return c.caller.unwatch
}

// A caller is who waits for the answer. It has left when its request's context ends, or
// when nothing can be sent to it.
type caller struct {
	ctx     context.Context
	look    func() bool // asks the connection whether it has left; nil where nobody can
	deaf    bool        // nothing can be sent
	follow  func()      // what follows when it has left
	unwatch func() bool // of follow
}

func (p *caller) of(w http.ResponseWriter, r *http.Request) {
	p.ctx = r.Context()
	if c, ok := w.(interface{ Gone() bool }); ok {
		p.look = c.Gone
	}
}

// gone reports whether the caller is known to have left.
func (p *caller) gone() bool { return p.deaf || p.ctx.Err() != nil }

func (p *caller) leave() {
	if p.deaf = true; p.unwatch() {
		go p.follow()
	}
}

// flush sends what was written. A caller to whom nothing can be sent has left.
func (c *call) flush(out *http.ResponseController) {
	if err := out.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		c.caller.leave()
	}
}

// patience is what every caller has: whether one has left is not asked before.
const patience = 10 * time.Millisecond

// callerLeft finds out whether the caller has left. A server may know only when it is
// asked, and asking is a system call.
func (c *call) callerLeft() bool {
	return c.caller.gone() || c.caller.look != nil && c.g.Now().Sub(c.started) > patience && c.caller.look()
}
