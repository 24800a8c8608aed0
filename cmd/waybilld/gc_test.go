package main

import "testing"

// The heap may grow by what lives in it, but by no less than the headroom, and by no more
// than twice that unless it is a quarter.
func TestPace(t *testing.T) {
	for _, tt := range []struct {
		live    uint64 // MB
		percent int
	}{{1, 1600}, {2, 1600}, {4, 800}, {5, 625}, {16, 200}, {32, 100}, {48, 100}, {64, 100}, {100, 50}, {128, 50}, {250, 25}, {256, 25}, {4096, 25}} {
		if got := pace(tt.live << 20); got != tt.percent {
			t.Errorf("of %d MB live: GOGC %d, want %d", tt.live, got, tt.percent)
		}
	}
}
