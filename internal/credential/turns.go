package credential

import (
	"container/heap"
	"time"
)

// turns decide when STS is asked, and for whom. In no second are there more calls than
// PerSecond; at the start, and after STS was away or throttled, there are fewer. The
// most urgent flight goes first: each has a time by which it is due, so neither
// newcomers nor renewals can starve the other.
//
// Throttling and outages are STS's, not a session's: one throttled call slows all, and
// while STS does not answer one call at a time finds out whether it does again.
//
// Sessions.mu guards it.
type turns struct {
	config  *Config
	queue   flights
	seq     uint64
	running bool          // Sessions.dispatch is
	wake    chan struct{} // tells it that something has changed

	burst, refill float64 // together PerSecond: what a second can see at most
	tokens        float64
	tokensAt      time.Time
	rampFrom      time.Time // from here the speed grows from rampBase to all of refill
	rampBase      float64
	rampTime      time.Duration // that it takes from nothing to all

	pausedUntil time.Time // STS throttled
	pause       time.Duration

	silent    int // calls in a row that STS did not answer
	down      bool
	downUntil time.Time
	downFor   time.Duration
	downErr   error // explained, for callers
	probing   bool
}

// silence is how many calls in a row go unanswered before STS is taken to be away.
const silence = 3

func (t *turns) init(c *Config, now time.Time) {
	t.config = c
	t.wake = make(chan struct{}, 1)
	t.burst = max(1, float64(int(c.PerSecond/10)))
	t.refill = max(c.PerSecond-t.burst, c.PerSecond/2)
	t.tokens, t.tokensAt = t.burst, now
	t.rampFrom, t.rampBase, t.rampTime = now, 0.1, c.WarmUp
}

// speed is the share of refill that is in force.
func (t *turns) speed(now time.Time) float64 {
	return min(1, t.rampBase+max(0, now.Sub(t.rampFrom).Seconds()/t.rampTime.Seconds()))
}

// never is a wait that only a wake ends.
const never = time.Hour

// next takes a turn, if there is one now; else it says how long to wait.
func (t *turns) next(now time.Time) (wait time.Duration) {
	switch {
	case t.down && t.probing:
		return never
	case t.down && now.Before(t.downUntil):
		return t.downUntil.Sub(now)
	case now.Before(t.pausedUntil):
		return t.pausedUntil.Sub(now)
	}
	rate := t.refill * t.speed(now)
	t.tokens = min(t.burst, t.tokens+rate*now.Sub(t.tokensAt).Seconds())
	t.tokensAt = now
	if t.tokens < 1 {
		return max(time.Duration((1-t.tokens)/rate*float64(time.Second)), time.Millisecond)
	}
	t.tokens--
	t.probing = t.down
	return 0
}

// away reports whether STS does not answer, and somebody else is going to find out
// when it does.
func (t *turns) away(now time.Time) bool {
	return t.down && (now.Before(t.downUntil) || t.probing || len(t.queue) > 0)
}

// answered is told of every answer that is neither throttling nor silence.
func (t *turns) answered(now time.Time) {
	if t.down {
		t.warm(now, 0.1, t.config.WarmUp)
	}
	t.silent, t.down, t.downFor, t.probing = 0, false, 0, false
}

// succeeded is told that a session was had.
func (t *turns) succeeded(now time.Time) {
	t.answered(now)
	if !now.Before(t.pausedUntil) {
		t.pause = 0
	}
}

// throttled is told that STS said so. It halves the speed, and lets it grow again much
// more slowly than after a start: others in the account need the quota.
func (t *turns) throttled(now time.Time) {
	t.answered(now)
	if now.Before(t.pausedUntil) {
		return // it was sent before the pause began
	}
	t.pause = min(max(2*t.pause, t.config.Backoff), t.config.MaxBackoff)
	half := max(t.speed(now)/2, 0.02)
	t.pausedUntil = now.Add(jitter(t.pause))
	t.warm(t.pausedUntil, half, 6*t.config.WarmUp)
}

func (t *turns) warm(from time.Time, base float64, over time.Duration) {
	t.rampFrom, t.rampBase, t.rampTime = from, base, over
	t.tokens, t.tokensAt = 0, from
}

// unanswered is told that STS did not answer, and reports whether that is news: that
// STS is away.
func (t *turns) unanswered(now time.Time, explained error) bool {
	t.probing = false
	if t.silent++; t.silent < silence || t.down && now.Before(t.downUntil) {
		return false
	}
	news := !t.down
	t.down, t.downErr = true, explained
	t.downFor = min(max(2*t.downFor, t.config.Backoff), t.config.MaxBackoff)
	t.downUntil = now.Add(jitter(t.downFor))
	return news
}

func (t *turns) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *turns) push(f *flight) {
	t.seq++
	f.seq = t.seq
	heap.Push(&t.queue, f)
}

func (t *turns) pop() *flight { return heap.Pop(&t.queue).(*flight) }

func (t *turns) moved(f *flight) { heap.Fix(&t.queue, f.index) }

// flights are a heap: the one that is due first, and of those due together the one
// that came first.
type flights []*flight

func (q flights) Len() int { return len(q) }
func (q flights) Less(i, j int) bool {
	if !q[i].due.Equal(q[j].due) {
		return q[i].due.Before(q[j].due)
	}
	return q[i].seq < q[j].seq
}
func (q flights) Swap(i, j int) { q[i], q[j] = q[j], q[i]; q[i].index, q[j].index = i, j }

// Push is heap.Interface's.
func (q *flights) Push(x any) {
	f := x.(*flight)
	f.index = len(*q)
	*q = append(*q, f)
}

// Pop is heap.Interface's.
func (q *flights) Pop() any {
	old := *q
	f := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	f.index = -1
	return f
}
