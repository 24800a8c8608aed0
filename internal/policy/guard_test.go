package policy

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

const bounded = `
tags:
  keys:
    strict: {maxDistinct: {limit: 10, days: 5}}
    folded: {maxDistinct: {limit: 3, action: other}}
    seen: {maxDistinct: {limit: 2, action: observe}}
    stage: {values: [dev]}
`

func sendOn(p *Policy, g *Guard, day int, pairs ...string) *Decision {
	return p.Decide(&Request{At: time.Date(2026, 11, day, 12, 0, 0, 0, time.UTC), Asked: ask(pairs...), Guard: g})
}

// A key takes as many values as it declares; what happens to the next is declared too.
func TestGuard(t *testing.T) {
	p := parse(t, bounded)
	var near []GuardState
	g := NewGuard(p)
	g.OnNear = func(s GuardState) { near = append(near, s) }
	for i := range 10 {
		if d := sendOn(p, g, 1, "strict", fmt.Sprint("v", i)); d.Outcome != waybill.PolicyAllowed {
			t.Fatalf("value %d: %v", i, d.Reasons())
		}
	}
	if len(near) != 1 || near[0].Distinct != 8 || near[0].Limit != 10 {
		t.Errorf("warned %v, want once at 8 of 10", near)
	}
	if d := sendOn(p, g, 1, "strict", "v10"); d.Outcome != waybill.PolicyRefused || d.Reasons()[0] != "strict:too_many_values" {
		t.Errorf("the eleventh value: %s %v", d.Outcome, d.Reasons())
	}
	if d := sendOn(p, g, 1, "strict", "v3"); d.Outcome != waybill.PolicyAllowed {
		t.Errorf("a value that is known: %v", d.Reasons())
	}
	for i := range 5 {
		d := sendOn(p, g, 1, "folded", fmt.Sprint("f", i))
		want := fmt.Sprint("f", i)
		if i >= 3 {
			want = "other"
		}
		if got := d.Tags.Map()["folded"]; got != want || d.Outcome != waybill.PolicyAllowed {
			t.Errorf("value %d is %s (%s), want %s", i, got, d.Outcome, want)
		}
	}
	for i := range 9 {
		if d := sendOn(p, g, 1, "seen", fmt.Sprint("s", i)); d.Tags.Map()["seen"] != fmt.Sprint("s", i) || d.Outcome != waybill.PolicyAllowed {
			t.Errorf("observed value %d: %v", i, d.Reasons())
		}
	}
	if s := g.States(p); fmt.Sprint(s) != "[{strict 10 10 1} {folded 3 3 2} {seen 4 2 7}]" {
		t.Errorf("states %v", s)
	}
	// Values that were not seen for long make room.
	if d := sendOn(p, g, 9, "strict", "new"); d.Outcome != waybill.PolicyAllowed {
		t.Errorf("after a week: %v", d.Reasons())
	}
	// A call that is refused for something else uses up no room.
	before := g.States(p)
	sendOn(p, g, 9, "strict", "another", "stage", "moon")
	if fmt.Sprint(g.States(p)) != fmt.Sprint(before) {
		t.Errorf("a refused call was counted: %v", g.States(p))
	}
}

// A file of sightings holds values that have expired since. They take no room from those
// that count.
func TestRestoreKeepsTheNewest(t *testing.T) {
	p := parse(t, bounded)
	g := NewGuard(p)
	var file []byte
	g.OnSighting = func(s Sighting) { file = s.AppendText(file) }
	for _, day := range []int{1, 9} {
		for i := range 10 {
			sendOn(p, g, day, "strict", fmt.Sprint("day", day, "-", i))
		}
	}
	again := NewGuard(p)
	again.Restore(ReadSightings(file))
	if d := sendOn(p, again, 9, "strict", "another"); d.Outcome != waybill.PolicyRefused {
		t.Errorf("after a restart an eleventh value of these days passes: %v", d.Reasons())
	}
	if d := sendOn(p, again, 9, "strict", "day9-7"); d.Outcome != waybill.PolicyAllowed {
		t.Errorf("after a restart a value of today is refused: %v", d.Reasons())
	}
}

// Values that were seen while the clock was ahead expire like others once it is right.
func TestAClockThatWasAhead(t *testing.T) {
	p := parse(t, "tags: {keys: {strict: {maxDistinct: {limit: 2, days: 5}}}}")
	g := NewGuard(p)
	for _, day := range []int{1, 365, 2, 2} { // within November and a year from it
		sendOn(p, g, day, "strict", fmt.Sprint("v", day))
	}
	if d := sendOn(p, g, 9, "strict", "new"); d.Outcome != waybill.PolicyAllowed {
		t.Errorf("a week after the clock was put right: %v, %v", d.Reasons(), g.States(p))
	}
}

// A value beyond one bound, in a mode that lets the call pass, does not keep the call's
// other values out of the count.
func TestGuardCountsCallsThatPass(t *testing.T) {
	p := parse(t, "tags: {keys: {soft: {maxDistinct: 1, mode: warn}, strict: {maxDistinct: 3}}}")
	g := NewGuard(p)
	sendOn(p, g, 1, "soft", "a")
	passed := 0
	for i := range 9 {
		if d := sendOn(p, g, 1, "soft", "b", "strict", fmt.Sprint("v", i)); d.Outcome == waybill.PolicyWarned {
			passed++
		}
	}
	if passed != 3 {
		t.Errorf("%d values of a key bounded by 3 passed", passed)
	}
}

// What was seen survives a restart, also one in the middle of a line, and a change of
// policy.
func TestGuardSurvivesRestart(t *testing.T) {
	p := parse(t, bounded)
	g := NewGuard(p)
	var file []byte
	g.OnSighting = func(s Sighting) { file = s.AppendText(file) }
	for day := range 3 {
		for i := range 10 {
			sendOn(p, g, 1+day, "strict", fmt.Sprint("v", i))
		}
	}
	again := NewGuard(p)
	again.Restore(ReadSightings(append(file, "strict\tdead"...)))
	if d := sendOn(p, again, 3, "strict", "another"); d.Outcome != waybill.PolicyRefused {
		t.Errorf("after a restart an eleventh value passes: %v", d.Reasons())
	}
	if d := sendOn(p, again, 3, "strict", "v1"); d.Outcome != waybill.PolicyAllowed {
		t.Errorf("after a restart a known value is refused: %v", d.Reasons())
	}
	if got := len(again.Sightings()); got != 10 {
		t.Errorf("%d sightings are kept of %d lines", got, len(ReadSightings(file)))
	}
	wider := parse(t, "tags: {keys: {strict: {maxDistinct: 11}}}")
	again.Use(wider)
	if d := sendOn(wider, again, 3, "strict", "another"); d.Outcome != waybill.PolicyAllowed {
		t.Errorf("with a wider bound: %v", d.Reasons())
	}
}

// Many calls at once admit exactly as many values as the bound says.
func TestGuardAtOnce(t *testing.T) {
	p := parse(t, "tags: {keys: {k: {maxDistinct: 50}}}")
	g := NewGuard(p)
	var wg sync.WaitGroup
	var mu sync.Mutex
	admitted := make(map[string]bool)
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				v := fmt.Sprint(w, "-", i)
				if d := sendOn(p, g, 1, "k", v); d.Outcome == waybill.PolicyAllowed {
					mu.Lock()
					admitted[v] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(admitted) != 50 {
		t.Errorf("%d values were admitted, the bound is 50", len(admitted))
	}
}

func FuzzSightings(f *testing.F) {
	f.Add([]byte("team\t0123456789abcdef\t2026-11-01\n"))
	f.Add([]byte("\t\t\n\xff"))
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, s := range ReadSightings(src) {
			if again := ReadSightings(s.AppendText(nil)); len(again) != 1 || again[0] != s {
				t.Errorf("%v is read back as %v", s, again)
			}
		}
	})
}
