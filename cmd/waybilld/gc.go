package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// By how much the heap may grow between two collections. Most of a gateway's heap is calls
// under way: at Go's default, which doubles what lives, an idle gateway of five megabytes
// collects some hundreds of times a second under load, and one that holds thousands of
// streams open takes twice the memory that they need.
const (
	headroom    = 32 << 20 // at least
	maxHeadroom = 64 << 20 // or a quarter of what lives, if that is more
)

// keepHeadroom sets the collector's pace after each collection. Who sets GOGC or
// GOMEMLIMIT knows better.
func keepHeadroom() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	type mark struct{ _ *byte } // on the heap, and dead at once: its end tells of a collection
	var percent int
	var collected func(*mark)
	collected = func(m *mark) {
		if next := pace(liveHeap()); next != percent {
			percent = next
			debug.SetGCPercent(next)
		}
		runtime.SetFinalizer(m, collected)
	}
	runtime.SetFinalizer(&mark{new(byte)}, collected)
}

// pace is GOGC for a heap of which so many bytes live, in steps, since each change stops
// the world for a moment.
func pace(live uint64) int {
	if live <= headroom/16 {
		return 1600
	}
	return max(25, int(min(max(live, headroom), maxHeadroom)*100/live)/25*25)
}

func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
