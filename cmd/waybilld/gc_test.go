package main

import "testing"

// The heap may grow by the headroom, or by what lives in it if that is more.
func TestPace(t *testing.T) {
	for live := uint64(1 << 20); live < 1<<34; live *= 2 {
		percent := pace(live)
		grows := live * uint64(percent) / 100
		if percent < 100 || live >= headroom && percent != 100 || live < headroom && (grows > headroom || live >= headroom/16 && grows < headroom/2) {
			t.Errorf("of %d MB live: GOGC %d", live>>20, percent)
		}
	}
}
