//go:build linux

package main

import (
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil sleeps to the microsecond, which the runtime's timers do not: they wake with
// the poller, whose clock ticks in milliseconds. The thread must be the caller's own.
func sleepUntil(t time.Time) {
	if d := time.Until(t); d > 0 {
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // one that is broken off sends early by as much
	}
}

// ownThread keeps the goroutine on a thread whose sleeps are exact.
func ownThread() {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // without it sleeps are 50 microseconds late, on either side alike
}

// A pacer writes answers at their time, in the order in which they were handed in: all
// wait equally long.
type pacer struct {
	queue chan delayed
	done  chan struct{}
}

type delayed struct {
	at      time.Time
	c       net.Conn
	b       []byte
	written chan<- struct{}
}

func newPacer() *pacer {
	p := &pacer{queue: make(chan delayed, 4096), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		ownThread() // never unlocked: the thread ends with the goroutine
		for d := range p.queue {
			sleepUntil(d.at)
			_, _ = d.c.Write(d.b) // the generator tells what did not arrive
			select {
			case d.written <- struct{}{}:
			default: // nobody waits
			}
		}
	}()
	return p
}

func (p *pacer) later(at time.Time, c net.Conn, b []byte, written chan<- struct{}) {
	p.queue <- delayed{at, c, b, written}
}

func (p *pacer) close() { close(p.queue); <-p.done }

// pin keeps a thread, or with 0 the calling one, on some CPUs.
func pin(thread int, cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(thread, &set); err != nil {
		return fmt.Errorf("pin to CPUs %v: %w", cpus, err)
	}
	return nil
}
