//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

// options say what is measured, and for how long.
type options struct {
	quick       bool
	turns       int           // each contestant takes part so often in every measure
	warm, point time.Duration // of a closed or an open loop
	perSecond   int           // calls of an open loop
	streamCalls int           // streams over each of 64 connections
	starts      int           // in each turn
	fewStreams  int           // held open
	manyStreams int
	again       time.Duration // spent at most on taking points again
	only        []string      // contestants; empty means all
	measures    []string      // empty means all
	waybilld    string        // the program; empty builds it
	dir         string        // where the contestants keep their files; empty makes one here
	profiles    string        // folder for profiles of waybilld, empty takes none
}

func fullOptions() options {
	return options{turns: 2, warm: 500 * time.Millisecond, point: 2 * time.Second, perSecond: 500, streamCalls: 5, starts: 3,
		fewStreams: 2000, manyStreams: 10000, again: 60 * time.Second}
}

func quickOptions() options {
	return options{quick: true, turns: 2, warm: 200 * time.Millisecond, point: 600 * time.Millisecond, perSecond: 500, streamCalls: 2, starts: 1,
		fewStreams: 500, manyStreams: 2000, again: 10 * time.Second}
}

// A bench is one run.
type bench struct {
	options
	contestantCPUs []int
	ownCPUs        []int
	nginx          string
	sts            string
	streams        int // how many the limits of this machine let a contestant hold
	pacer          *pacer
	contestants    []*contestant
	result         *result
	progress       io.Writer
	began          time.Time
	spentAgain     time.Duration
}

// A measure is a kind of point: run takes it of one contestant.
type measure struct {
	name   string
	note   string // to the one who watches
	turns  int    // 0 means options.turns
	fresh  bool   // a new process for each point
	timed  bool   // disturbed by what else runs: such a point is taken again
	direct bool   // says something of direct calls too
	run    func(ctx context.Context, c *contestant) (map[string]float64, error)
}

func (b *bench) measures() []measure {
	var all []measure
	for _, size := range []int{1, 20, 200} {
		all = append(all, measure{name: fmt.Sprintf("cpu%d", size), note: fmt.Sprintf("one core saturated, bodies of %d KB", size), timed: true, direct: true,
			run: func(_ context.Context, c *contestant) (map[string]float64, error) { return b.saturation(c, size) }})
	}
	return append(all,
		measure{name: "latency", note: fmt.Sprintf("%d calls a second, answered after 20 ms", b.perSecond), timed: true, direct: true,
			run: func(_ context.Context, c *contestant) (map[string]float64, error) { return b.latency(c) }},
		measure{name: "streams", note: "streams of 50 events", timed: true, direct: true,
			run: func(_ context.Context, c *contestant) (map[string]float64, error) { return b.streamCost(c) }},
		measure{name: "ttfb", note: "first byte of streams, 100 a second", timed: true, direct: true,
			run: func(_ context.Context, c *contestant) (map[string]float64, error) { return b.firstByte(c) }},
		measure{name: "start", note: "start to first call, and idle", fresh: true,
			run: b.startAndIdle},
		measure{name: "memory", note: fmt.Sprintf("%d and %d open streams", b.fewStreams, b.streams), fresh: true, turns: 1,
			run: func(_ context.Context, c *contestant) (map[string]float64, error) { return b.memory(c) }})
}

func (b *bench) say(format string, a ...any) {
	fmt.Fprintf(b.progress, "%5.0fs  "+format+"\n", append([]any{time.Since(b.began).Seconds()}, a...)...)
}

// run measures everything.
func (b *bench) run(ctx context.Context) (err error) {
	b.began = time.Now()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	world := newWorld()
	sts, stopWorld, err := world.Serve()
	if err != nil {
		return err
	}
	defer stopWorld()
	b.sts = sts
	b.pacer = newPacer()
	defer b.pacer.close()
	if err := b.enter(world.Handler()); err != nil {
		return err
	}
	defer func() {
		for _, c := range b.contestants {
			err = errors.Join(err, c.stop())
			c.fake.listener.Close()
		}
	}()
	fresh := false
	for _, m := range b.measures() {
		if len(b.options.measures) > 0 && !slices.Contains(b.options.measures, m.name) {
			continue
		}
		for _, c := range b.contestants {
			if m.fresh != fresh {
				err = c.stop()
			}
			if err == nil && !m.fresh && c.cmd == nil {
				_, err = c.start(ctx, b, b.unary(1, 0))
			}
			if err != nil {
				return err
			}
		}
		fresh = m.fresh
		turns := b.turns
		if m.turns > 0 {
			turns = m.turns
		}
		for turn := range turns {
			order := slices.Clone(b.contestants)
			if turn%2 == 1 {
				slices.Reverse(order)
			}
			for _, c := range order {
				if c.command == nil && !m.direct {
					continue
				}
				if err := b.take(ctx, m, c); err != nil {
					return fmt.Errorf("%s, %s: %w", c.name, m.note, err)
				}
			}
		}
	}
	return b.settle()
}

// prepare finds the programs, and keeps itself off the contestants' core.
func (b *bench) prepare(ctx context.Context) error {
	if b.dir == "" {
		dir, err := os.MkdirTemp(".", ".bench-")
		if err != nil {
			return err
		}
		b.dir = dir
	}
	var err error
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.nginx, err = exec.LookPath("nginx"); err != nil {
		if b.nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil { // not on everybody's path
			b.nginx = ""
		}
	}
	if b.waybilld == "" && (len(b.only) == 0 || slices.Contains(b.only, "waybilld") || slices.Contains(b.only, "bearer")) {
		b.say("building waybilld")
		b.waybilld = filepath.Join(b.dir, "waybilld.program")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.waybilld, "github.com/waybill-dev/waybill/cmd/waybilld")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build waybilld: %w: %s", err, lastLines(out))
		}
	}
	cpus, err := allowedCPUs()
	if err != nil {
		return err
	}
	last := len(cpus) - 1
	b.contestantCPUs, b.ownCPUs = cpus[last:], cpus[:last]
	if last == 0 {
		b.ownCPUs = cpus
		b.result.Notes = append(b.result.Notes, "There is one CPU: contestants share it with the generator of calls.")
	}
	if err := pinSelf(b.ownCPUs); err != nil {
		return err
	}
	runtime.GOMAXPROCS(max(2, len(b.ownCPUs))) // two, so that a thread in a system call holds nobody up
	debug.SetGCPercent(400)
	if b.streams = openFiles(b.manyStreams); b.streams < b.manyStreams {
		b.result.Notes = append(b.result.Notes, fmt.Sprintf("The limit of open files lets a contestant hold %d streams, not %d.", b.streams, b.manyStreams))
	}
	b.fewStreams = min(b.fewStreams, b.streams)
	b.result.Date, b.result.Commit, b.result.Machine = time.Now().UTC().Format(time.DateOnly), commit(), describeMachine(b.dir, b.nginx)
	b.result.FewStreams, b.result.ManyStreams, b.result.PerSecond = b.fewStreams, b.streams, b.perSecond
	return nil
}

// enter makes the contestants that can take part.
func (b *bench) enter(strict http.Handler) error {
	for _, k := range kinds() {
		if len(b.only) > 0 && !slices.Contains(b.only, k.name) {
			continue
		}
		if k.missing != nil {
			if why := k.missing(b); why != "" {
				b.say("%s does not take part: %s", k.name, why)
				b.result.Notes = append(b.result.Notes, k.name+" did not take part: "+why+".")
				continue
			}
		}
		c := &contestant{kind: k, target: new(target), dir: filepath.Join(b.dir, k.name), token: ""}
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return err
		}
		verify := strict
		if !k.signs {
			verify = nil
		}
		var err error
		if c.fake, err = newFake(b.pacer, verify); err != nil {
			return err
		}
		b.contestants = append(b.contestants, c)
		b.result.Contestants = append(b.result.Contestants, k.name)
		b.result.titles = append(b.result.titles, k.title)
	}
	return nil
}

// ourTime is what the run's own processes have used.
func (b *bench) ourTime() (time.Duration, error) {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return 0, err
	}
	sum := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	var ended syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &ended); err != nil {
		return 0, err
	}
	sum += time.Duration(ended.Utime.Nano() + ended.Stime.Nano())
	for _, c := range b.contestants {
		if c.cmd != nil {
			t, err := cpuTime(c.pid())
			if err != nil {
				return 0, err
			}
			sum += t
		}
	}
	return sum, nil
}

// take takes a point, and takes it again where other processes used more than a tenth
// of the machine, as long as there is time for that.
func (b *bench) take(ctx context.Context, m measure, c *contestant) error {
	for again := 0; ; again++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		busy, err := busyTime()
		if err != nil {
			return err
		}
		ours, err := b.ourTime()
		if err != nil {
			return err
		}
		got, err := m.run(ctx, c)
		if err != nil {
			err = errors.Join(err, c.fake.err(), c.stop())
			return fmt.Errorf("%w\n%s", err, lastLines(c.log.Bytes()))
		}
		if err := c.check(); err != nil {
			return err
		}
		busyAfter, err := busyTime()
		if err != nil {
			return err
		}
		oursAfter, err := b.ourTime()
		if err != nil {
			return err
		}
		took := time.Since(began)
		others := max(0, float64((busyAfter-busy)-(oursAfter-ours))/float64(took)/float64(runtime.NumCPU()))
		disturbed := m.timed && others > 0.1
		if disturbed && again < 2 && b.spentAgain+took < b.again {
			b.spentAgain += took
			b.say("%-20s %-10s taken again: other processes used %.0f %% of the machine", m.name, c.name, 100*others)
			continue
		}
		b.result.add(point{Measure: m.name, Contestant: c.name, Others: others, Again: again, Disturbed: disturbed, Figures: got})
		b.say("%-44s %-10s %s", m.note, c.name, describe(got))
		return nil
	}
}

// check is that as many calls arrived as were sent, that every answer was the right one,
// and that nothing else went wrong at the stand-in.
func (c *contestant) check() error {
	sent, good, served := c.target.sent.Load(), c.target.good.Load(), c.fake.served.Load()
	if err := c.fake.err(); err != nil {
		return err
	}
	if sent != good || sent != served {
		return fmt.Errorf("%d calls were sent, %d arrived at Bedrock, %d were answered well", sent, served, good)
	}
	return nil
}

// settle ends the contestants, and holds their journals against the calls.
func (b *bench) settle() error {
	for _, c := range b.contestants {
		if err := c.stop(); err != nil {
			return err
		}
		n := c.target.sent.Load()
		check := fmt.Sprintf("%s: %d calls, all arrived, all answers compared", c.name, n)
		if c.signs {
			if c.fake.sampled.Load() == 0 {
				return fmt.Errorf("%s: no signature was verified", c.name)
			}
			check += fmt.Sprintf(", %d signatures verified", c.fake.sampled.Load())
		}
		if c.journal {
			closed, err := c.checkJournal()
			if err != nil {
				return err
			}
			check += fmt.Sprintf(", %d closed in the journal", closed)
		}
		b.say("%s", check)
		b.result.Checks = append(b.result.Checks, check)
	}
	b.result.Seconds = time.Since(b.began).Seconds()
	return nil
}

func (b *bench) unary(kilobytes int, delay time.Duration) *plan {
	return &plan{request: requestBody(kilobytes << 10), answer: answerBody(), delay: delay}
}

const (
	connections = 64
	events      = 50
)

// saturation keeps 64 connections busy. The processor time per call does not depend on
// how fast the generator is.
func (b *bench) saturation(c *contestant, kilobytes int) (map[string]float64, error) {
	p := b.unary(kilobytes, 0)
	c.fake.plan.Store(p)
	var cpu, took time.Duration
	var calls int64
	var windowErr error
	err := c.target.saturate(p, connections, func(failed func() bool) {
		time.Sleep(b.warm)
		stopProfile := b.profile(c, fmt.Sprintf("cpu%d", kilobytes), b.point)
		before, err := cpuTime(c.pid())
		good, began := c.target.good.Load(), time.Now()
		time.Sleep(b.point)
		for c.target.good.Load()-good < connections && !failed() { // a machine that is busy otherwise
			time.Sleep(10 * time.Millisecond)
		}
		after, err2 := cpuTime(c.pid())
		calls, took, cpu = c.target.good.Load()-good, time.Since(began), after-before
		windowErr = errors.Join(err, err2, stopProfile())
	})
	if err = errors.Join(err, windowErr); err != nil {
		return nil, err
	}
	return map[string]float64{
		fmt.Sprintf("cpu%d", kilobytes): micros(cpu) / float64(calls),
		fmt.Sprintf("rps%d", kilobytes): float64(calls) / took.Seconds(),
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }
func millis(d time.Duration) float64 { return float64(d) / 1e6 }

func (b *bench) latency(c *contestant) (map[string]float64, error) {
	p := b.unary(1, 20*time.Millisecond)
	c.fake.plan.Store(p)
	got, err := c.target.byTheClock(p, b.perSecond, b.warm, 2*b.point)
	if err != nil {
		return nil, err
	}
	return map[string]float64{"p50": millis(quantile(got.last, 0.50)), "p99": millis(quantile(got.last, 0.99))}, nil
}

func (b *bench) streamPlan(events int, delay, pace time.Duration) (*plan, error) {
	s, err := newStreamAnswer(events)
	return &plan{request: requestBody(1 << 10), stream: s, delay: delay, pace: pace}, err
}

// streamCost makes streams whose events come ten milliseconds apart, so that each event
// passes alone.
func (b *bench) streamCost(c *contestant) (map[string]float64, error) {
	p, err := b.streamPlan(events, 0, 10*time.Millisecond)
	if err != nil {
		return nil, err
	}
	c.fake.plan.Store(p)
	stopProfile := b.profile(c, "streams", time.Duration(b.streamCalls)*500*time.Millisecond)
	before, err := cpuTime(c.pid())
	if err != nil {
		return nil, err
	}
	if err := c.target.streams(p, connections, b.streamCalls); err != nil {
		return nil, err
	}
	after, err := cpuTime(c.pid())
	if err != nil {
		return nil, err
	}
	return map[string]float64{"stream": micros(after-before) / float64(connections*b.streamCalls)}, stopProfile()
}

func (b *bench) firstByte(c *contestant) (map[string]float64, error) {
	p, err := b.streamPlan(10, 20*time.Millisecond, 10*time.Millisecond)
	if err != nil {
		return nil, err
	}
	c.fake.plan.Store(p)
	got, err := c.target.byTheClock(p, 100, b.warm, 2*b.point)
	if err != nil {
		return nil, err
	}
	return map[string]float64{"ttfb50": millis(quantile(got.first, 0.50)), "ttfb99": millis(quantile(got.first, 0.99))}, nil
}

func (b *bench) startAndIdle(ctx context.Context, c *contestant) (map[string]float64, error) {
	best, idle := time.Duration(0), int64(0)
	for range b.starts {
		took, err := c.start(ctx, b, b.unary(1, 0))
		if err != nil {
			return nil, err
		}
		time.Sleep(200 * time.Millisecond) // what it does after its start
		idle, err = residentMemory(c.pid())
		if err = errors.Join(err, c.stop()); err != nil {
			return nil, err
		}
		if best == 0 || took < best {
			best = took
		}
	}
	return map[string]float64{"start": millis(best), "idle": megabytes(idle)}, nil
}

func megabytes(n int64) float64 { return float64(n) / (1 << 20) }

// memory holds streams open in a fresh process, each in the middle of its answer.
func (b *bench) memory(c *contestant) (map[string]float64, error) {
	if _, err := c.start(context.Background(), b, b.unary(1, 0)); err != nil {
		return nil, err
	}
	out := make(map[string]float64)
	for _, held := range []struct {
		name string
		n    int
	}{{"few", b.fewStreams}, {"many", b.streams}} {
		p, err := b.streamPlan(5, 0, 0)
		if err != nil {
			return nil, err
		}
		p.hold = make(chan struct{})
		c.fake.plan.Store(p)
		var resident int64
		var windowErr error
		err = c.target.hold(p, held.n, func() {
			time.Sleep(time.Second) // until the last events have passed
			resident, windowErr = residentMemory(c.pid())
			if held.name == "many" {
				windowErr = errors.Join(windowErr, b.heap(c))
			}
		})
		if err = errors.Join(err, windowErr); err != nil {
			return nil, err
		}
		out[held.name] = megabytes(resident)
	}
	return out, c.stop()
}

// profile takes a CPU profile of waybilld for a while, if profiles are wanted.
func (b *bench) profile(c *contestant, name string, length time.Duration) (wait func() error) {
	if b.profiles == "" || !c.journal {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		err := c.fetch(b.profiles, fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(length.Seconds()))), c.name+"-"+name+".pprof")
		done <- errors.Join(err, c.fetch(b.profiles, "/debug/pprof/allocs", c.name+"-"+name+"-allocs.pprof"))
	}()
	return func() error { return <-done }
}

func (b *bench) heap(c *contestant) error {
	if b.profiles == "" || !c.journal {
		return nil
	}
	return errors.Join(c.fetch(b.profiles, "/debug/pprof/heap", c.name+"-heap.pprof"), c.fetch(b.profiles, "/metrics", c.name+"-metrics.txt"))
}

func (c *contestant) fetch(dir, path, file string) error {
	r, err := http.Get(c.admin + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	f, err := os.Create(filepath.Join(dir, file))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, r.Body)
	return err
}
