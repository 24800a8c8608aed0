package credential

import "time"

// Stats is what the cache has done and how it stands.
type Stats struct {
	Hits, Misses int64 // calls that found a session, and that did not
	Assumed      int64 // AssumeRole calls that gave a session
	Failed       int64 // sessions that could not be had
	Throttled    int64 // AssumeRole calls that STS throttled
	TooLarge     int64 // AssumeRole calls whose tags STS had no room for
	Dropped      int64 // optional tags that were given up for it
	Evicted      int64 // sessions that the bound on the cache put out
	Forgotten    int64 // sessions that AWS refused

	Sessions int // held, or being fetched
	Waiters  int // callers that wait for a session now
	Queued   int // sessions that wait for their turn
	Flying   int // AssumeRole calls under way

	LastHour      int64   // calls to STS in the last hour
	BusiestSecond int     // calls to STS in the busiest second of the last minute
	Allowed       float64 // calls a second that are allowed now: fewer while warming up or throttled
	Headroom      float64 // share of Config.PerSecond that the busiest second left

	Packed  int  // largest part of STS's space that a session's tags took, in percent
	Chained bool // our own credentials are a role session: sessions last an hour at most
	Down    bool // STS does not answer
}

// HitRatio is the share of calls that found a session; 1 if there were none.
func (s Stats) HitRatio() float64 {
	if s.Hits+s.Misses == 0 {
		return 1
	}
	return float64(s.Hits) / float64(s.Hits+s.Misses)
}

// Stats says how the cache stands.
func (s *Sessions) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	c := &s.stats
	busiest := int(c.seconds.most(now.Unix()))
	allowed := s.turns.refill*s.turns.speed(now) + s.turns.burst
	if s.turns.down || now.Before(s.turns.pausedUntil) {
		allowed = 0
	}
	return Stats{Hits: c.hits, Misses: c.misses, Assumed: c.assumed, Failed: c.failed, Throttled: c.throttled, TooLarge: c.tooLarge,
		Dropped: c.dropped, Evicted: c.evicted, Forgotten: c.forgotten,
		Sessions: s.count, Waiters: c.waiting, Queued: len(s.turns.queue), Flying: c.flying,
		LastHour: c.minutes.sum(now.Unix() / 60), BusiestSecond: busiest, Allowed: allowed,
		Headroom: max(0, 1-float64(busiest)/s.config.PerSecond),
		Packed:   c.packed, Chained: s.chain, Down: s.turns.down}
}

// counters are guarded by Sessions.mu.
type counters struct {
	hits, misses, assumed, failed, throttled, tooLarge, dropped, evicted, forgotten int64
	waiting, flying, packed                                                         int
	seconds, minutes                                                                window
}

// asked counts one call to STS.
func (c *counters) asked(now time.Time) {
	c.seconds.add(now.Unix())
	c.minutes.add(now.Unix() / 60)
}

// A window counts the last 60 ticks, of seconds or minutes.
type window struct {
	ticks [60]int64
	last  int64 // the tick that was counted last
}

// roll empties the ticks between the last one and now.
func (w *window) roll(tick int64) {
	for n := min(tick-w.last, int64(len(w.ticks))); n > 0; n-- {
		w.ticks[(tick-n+1)%int64(len(w.ticks))] = 0
	}
	w.last = max(w.last, tick)
}

func (w *window) add(tick int64) {
	w.roll(tick)
	w.ticks[tick%int64(len(w.ticks))]++
}

func (w *window) sum(tick int64) (n int64) {
	w.roll(tick)
	for _, t := range w.ticks {
		n += t
	}
	return n
}

func (w *window) most(tick int64) (n int64) {
	w.roll(tick)
	for _, t := range w.ticks {
		n = max(n, t)
	}
	return n
}
