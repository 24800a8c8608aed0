package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/waybill-dev/waybill"
)

// maxLimit bounds what a key may declare as its bound: values are counted in memory,
// some 50 bytes each.
const maxLimit = 100_000

// How long a value that was not seen again counts, in days.
const (
	defaultDays = 30
	maxDays     = 3650
)

// nearPart is the part of a bound, in per cent, at which a key is warned about.
const nearPart = 80

// A Guard counts the distinct values of keys that declare a bound. Its memory is
// bounded by the bounds. It may be used from many goroutines, and outlives policies:
// Use gives it a new one.
type Guard struct {
	// OnSighting, if not nil, is told of each value that is seen for the first time on
	// a day, so that it can be kept over restarts. It is called in turn.
	OnSighting func(Sighting)
	// OnNear, if not nil, is told once when a key comes to 80 % of its bound.
	OnNear func(GuardState)

	mu   sync.Mutex // guards all below
	keys map[string]*guarded
}

type guarded struct {
	limit, days int
	action      string
	seen        map[uint64]waybill.Day // digest of the value to the day it was last seen
	beyond      int64                  // times a value beyond the bound came
	near        bool                   // warned about
	swept       waybill.Day
}

// A Sighting says that a value of a key was seen on a day. The value is not told, its
// digest is.
type Sighting struct {
	Key    string
	Digest uint64
	Day    waybill.Day
}

// A GuardState is how full a key's bound is.
type GuardState struct {
	Key      string
	Distinct int // values that count; with action observe at most twice the limit
	Limit    int
	Beyond   int64 // times a value beyond the limit came, since the start
}

// NewGuard makes a guard for a policy.
func NewGuard(p *Policy) *Guard {
	g := &Guard{keys: make(map[string]*guarded)}
	g.Use(p)
	return g
}

// Use guards the keys of another policy. What was seen of keys that are still guarded
// is kept.
func (g *Guard) Use(p *Policy) {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := make(map[string]*guarded)
	for _, k := range p.keys {
		if k.limit == 0 {
			continue
		}
		state := g.keys[k.name]
		if state == nil {
			state = &guarded{seen: make(map[uint64]waybill.Day)}
		}
		state.limit, state.days, state.action = k.limit, k.days, k.action
		keys[k.name] = state
	}
	g.keys = keys
}

// Restore takes up what an earlier guard has seen. Where there is more than a bound has
// room for, the newest is kept: the rest has expired, or will first.
func (g *Guard) Restore(seen []Sighting) {
	seen = slices.Clone(seen)
	slices.SortStableFunc(seen, func(a, b Sighting) int { return int(b.Day) - int(a.Day) })
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range seen {
		k := g.keys[s.Key]
		if k == nil {
			continue
		}
		if last, ok := k.seen[s.Digest]; ok || len(k.seen) < k.room() {
			k.seen[s.Digest] = max(last, s.Day)
		}
	}
}

// room is how many values are kept in memory.
func (k *guarded) room() int {
	if k.action == "observe" {
		return 2 * k.limit
	}
	return k.limit
}

func valueDigest(value string) uint64 {
	sum := sha256.Sum256([]byte(value))
	return binary.BigEndian.Uint64(sum[:8])
}

// A sighted value is one that a call is about to carry.
type sighted struct {
	key    int
	name   string
	value  string
	mode   Mode // of the violation that it is, where the key rejects what is beyond
	beyond bool // it would be one more than the bound
}

// admit counts the values of one call. Those beyond their bound are marked; if one of
// them refuses the call, none of the others is counted. In a mode that lets the call pass
// they are: else a caller could keep values out of the count by what it sends beside them.
func (g *Guard) admit(day waybill.Day, values []sighted) {
	g.mu.Lock()
	defer g.mu.Unlock()
	reject := false
	for i := range values {
		v := &values[i]
		k := g.keys[v.name]
		if k == nil {
			continue
		}
		k.sweep(day)
		if _, ok := k.seen[valueDigest(v.value)]; !ok && len(k.seen) >= k.limit {
			v.beyond = true
			k.beyond++
			reject = reject || k.action == "reject" && v.mode == Enforce
		}
	}
	if reject {
		return
	}
	for i := range values {
		v := &values[i]
		k := g.keys[v.name]
		if k == nil || v.beyond && (k.action != "observe" || len(k.seen) >= k.room()) {
			continue
		}
		digest := valueDigest(v.value)
		if last, ok := k.seen[digest]; ok && last >= day {
			continue
		}
		k.seen[digest] = day
		if g.OnSighting != nil {
			g.OnSighting(Sighting{v.name, digest, day})
		}
		if !k.near && len(k.seen)*100 >= k.limit*nearPart {
			k.near = true
			if g.OnNear != nil {
				g.OnNear(GuardState{v.name, len(k.seen), k.limit, k.beyond})
			}
		}
	}
}

// sweep forgets values that were not seen for long, once a day. A clock that was ahead
// and was put right leaves days of the future behind, which would never pass: they become
// today.
func (k *guarded) sweep(day waybill.Day) {
	if day == k.swept || day == k.swept-1 { // a call that began before midnight
		return
	}
	k.swept = day
	for digest, last := range k.seen {
		switch {
		case last+waybill.Day(k.days) < day:
			delete(k.seen, digest)
		case last > day+1:
			k.seen[digest] = day
		}
	}
	if len(k.seen)*100 < k.limit*nearPart {
		k.near = false
	}
}

// States says how full the bounds are, in the order of the policy's keys.
func (g *Guard) States(p *Policy) []GuardState {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []GuardState
	for _, k := range p.keys {
		if s := g.keys[k.name]; s != nil {
			out = append(out, GuardState{k.name, len(s.seen), s.limit, s.beyond})
		}
	}
	return out
}

// Sightings is all that counts now: what a file of sightings can be cut down to.
func (g *Guard) Sightings() []Sighting {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Sighting
	for name, k := range g.keys {
		for digest, day := range k.seen {
			out = append(out, Sighting{name, digest, day})
		}
	}
	return out
}

// AppendText appends a line of a file of sightings: key, digest and day.
func (s Sighting) AppendText(b []byte) []byte {
	return fmt.Appendf(b, "%s\t%016x\t%s\n", s.Key, s.Digest, s.Day)
}

// ReadSightings reads a file of sightings. Lines that are not whole, as after a crash,
// are left out.
func ReadSightings(src []byte) []Sighting {
	var out []Sighting
	for line := range bytes.Lines(src) {
		text, whole := strings.CutSuffix(string(line), "\n")
		parts := strings.Split(text, "\t")
		if !whole || len(parts) != 3 || parts[0] == "" || len(parts[1]) != 16 {
			continue
		}
		digest, err := strconv.ParseUint(parts[1], 16, 64)
		day, dayErr := waybill.ParseDay(parts[2])
		if err == nil && dayErr == nil {
			out = append(out, Sighting{parts[0], digest, day})
		}
	}
	return out
}
