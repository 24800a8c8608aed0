package gateway

import (
	"testing"
	"time"
)

// A Date header says the same whatever was read before it, and what is none says nothing.
func TestDate(t *testing.T) {
	g := new(Gateway)
	first, second := "Mon, 30 Nov 2026 16:00:00 GMT", "Mon, 30 Nov 2026 16:00:01 GMT"
	at := time.Date(2026, 11, 30, 16, 0, 0, 0, time.UTC)
	for i, tt := range []struct {
		text string
		want time.Time
		ok   bool
	}{{"", time.Time{}, false}, {first, at, true}, {first, at, true}, {second, at.Add(time.Second), true}, {"today", time.Time{}, false}, {"", time.Time{}, false}, {first, at, true}} {
		if got, ok := g.date(tt.text); got != tt.want || ok != tt.ok {
			t.Errorf("%d: %q is %v, %v; want %v, %v", i, tt.text, got, ok, tt.want, tt.ok)
		}
	}
}
