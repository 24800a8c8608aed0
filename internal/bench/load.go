//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A target is where calls go, and the numbers of those that went there.
type target struct {
	address string
	token   string       // a gateway key
	sent    atomic.Int64 // the number of the last call
	good    atomic.Int64 // answers that were as they should be
}

// A caller makes calls over one connection, one after the other.
type caller struct {
	t    *target
	plan *plan
	conn net.Conn
	in   *bufio.Reader
	out  []byte // the request; the number of a call is put in at the place
	at   int
	got  []byte
}

func (t *target) dial(p *plan) (*caller, error) {
	conn, err := net.DialTimeout("tcp", t.address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return newCaller(t, p, conn), nil
}

func newCaller(t *target, p *plan, conn net.Conn) *caller {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: bedrock-runtime.us-east-1.amazonaws.com\r\nUser-Agent: aws-sdk-go-v2/1.47.8 ua/2.1 os/linux lang/go#1.26 md/GOOS#linux api/bedrockruntime#1.63.12\r\n"+
		"Content-Length: %d\r\nAmz-Sdk-Invocation-Id: 5b2f2a1c-6a5e-4d7c-9f0e-2d8f6f0f6b11\r\nAmz-Sdk-Request: attempt=1; max=3\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nX-Waybill-Tags: application=cart-helper,environment=prod,feature=basket\r\n\r\n", p.path(), len(p.request.text), t.token)
	return &caller{t: t, plan: p, conn: conn, in: bufio.NewReaderSize(conn, 2<<10), out: append([]byte(head), p.request.text...), at: len(head) + p.request.at}
}

func (c *caller) send() (number int64, err error) {
	number = c.t.sent.Add(1)
	putNumber(c.out[c.at:], number)
	_, err = c.conn.Write(c.out)
	return number, err
}

var errOther = errors.New("the answer is not the one that Bedrock gave to this call")

// receive reads the answer to a call and compares it. onFirst, if not nil, is told when
// the first byte of the body is there.
func (c *caller) receive(number int64, onFirst func()) error {
	length, chunked, named := -1, false, false
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read an answer's head: %w", err)
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			status := string(line)
			rest := make([]byte, 600)
			n, _ := c.in.Read(rest)
			return fmt.Errorf("call %d was answered with %q %q", number, status, rest[:n])
		}
		if len(line) <= 2 {
			break
		}
		switch line[0] | 0x20 {
		case 'c':
			if v, ok := field(line, "content-length"); ok {
				if length, err = strconv.Atoi(string(v)); err != nil {
					return fmt.Errorf("an answer's length: %w", err)
				}
			}
		case 't':
			if v, ok := field(line, "transfer-encoding"); ok {
				chunked = string(v) == "chunked"
			}
		case 'x':
			if v, ok := field(line, "x-amzn-requestid"); ok && len(v) == len(requestID)+digits {
				n, _ := readNumber(v[len(requestID):])
				named = n == number
			}
		}
	}
	if !named {
		return errOther
	}
	if onFirst != nil {
		if _, err := c.in.Peek(1); err != nil {
			return fmt.Errorf("read an answer's first byte: %w", err)
		}
		if !chunked {
			onFirst()
			onFirst = nil
		}
	}
	if err := c.body(length, chunked, onFirst); err != nil {
		return err
	}
	if p := c.plan; p.stream != nil && !p.stream.is(c.got, number) || p.stream == nil && !p.answer.is(c.got, number) {
		return errOther
	}
	c.t.good.Add(1)
	return nil
}

func (c *caller) body(length int, chunked bool, onFirst func()) error {
	c.got = c.got[:0]
	if !chunked {
		if length < 0 {
			return errors.New("an answer without a length")
		}
		c.got = grow(c.got, length)
		if _, err := io.ReadFull(c.in, c.got); err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		return nil
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read a chunk: %w", err)
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return fmt.Errorf("read a chunk: %w", err)
		}
		if size > 0 && onFirst != nil {
			if _, err := c.in.Peek(1); err != nil {
				return fmt.Errorf("read an answer's first byte: %w", err)
			}
			onFirst()
			onFirst = nil
		}
		from := len(c.got)
		c.got = slices.Grow(c.got, int(size)+2)[:from+int(size)+2]
		if _, err := io.ReadFull(c.in, c.got[from:]); err != nil {
			return fmt.Errorf("read a chunk: %w", err)
		}
		c.got = c.got[:from+int(size)]
		if size == 0 {
			return nil
		}
	}
}

// failure keeps the first error of many goroutines.
type failure struct {
	mu  sync.Mutex
	err error
}

func (f *failure) set(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// saturate keeps so many connections busy: each sends its next call when it has the
// answer to its last, until window returns. window may ask whether one has failed.
func (t *target) saturate(p *plan, connections int, window func(failed func() bool)) error {
	var stop atomic.Bool
	var failed failure
	var wg sync.WaitGroup
	for range connections {
		c, err := t.dial(p)
		if err != nil {
			stop.Store(true)
			failed.set(err)
			break
		}
		wg.Go(func() {
			defer c.conn.Close()
			for !stop.Load() {
				number, err := c.send()
				if err == nil {
					err = c.receive(number, nil)
				}
				if err != nil {
					failed.set(err)
					stop.Store(true)
					return
				}
			}
		})
	}
	if !stop.Load() {
		window(stop.Load)
	}
	stop.Store(true)
	wg.Wait()
	return failed.get()
}

// streams makes so many calls over each of some connections, which begin one after the
// other.
func (t *target) streams(p *plan, connections, calls int) error {
	var failed failure
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			time.Sleep(p.pace * time.Duration(i) / time.Duration(connections)) // so that events do not come in step
			c, err := t.dial(p)
			if err != nil {
				failed.set(err)
				return
			}
			defer c.conn.Close()
			for range calls {
				number, err := c.send()
				if err == nil {
					err = c.receive(number, nil)
				}
				if err != nil {
					failed.set(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return failed.get()
}

// latencies are what an open loop has measured, from the time at which each call was to
// leave.
type latencies struct {
	first, last []time.Duration // until the first and the last byte of the body
}

// quantile is exact: all values are kept.
func quantile(of []time.Duration, q float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// byTheClock sends so many calls a second, whether or not earlier ones are answered. The
// calls of the first part, of the warm-up, are not counted.
func (t *target) byTheClock(p *plan, perSecond int, warm, length time.Duration) (latencies, error) {
	type order struct {
		number int64
		due    time.Time
		counts bool
	}
	type worker struct {
		*caller
		next chan order
	}
	var (
		out    latencies
		mu     sync.Mutex // guards out
		failed failure
		wg     sync.WaitGroup
	)
	idle := make(chan *worker, 4096)
	hire := func() (*worker, error) {
		c, err := t.dial(p)
		if err != nil {
			return nil, err
		}
		w := &worker{c, make(chan order, 1)}
		wg.Go(func() {
			defer c.conn.Close()
			for o := range w.next {
				var first, last time.Duration
				if err := c.receive(o.number, func() { first = time.Since(o.due) }); err != nil {
					failed.set(err)
					return
				}
				last = time.Since(o.due)
				if o.counts {
					mu.Lock()
					out.first, out.last = append(out.first, first), append(out.last, last)
					mu.Unlock()
				}
				idle <- w
			}
		})
		return w, nil
	}
	var all []*worker
	for range 64 {
		w, err := hire()
		if err != nil {
			failed.set(err)
			break
		}
		all = append(all, w)
		idle <- w
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownThread()
		start := time.Now()
		for i := range int(float64(perSecond) * (warm + length).Seconds()) {
			since := time.Duration(i) * time.Second / time.Duration(perSecond)
			sleepUntil(start.Add(since))
			var w *worker
			select {
			case w = <-idle:
			default:
				var err error
				if w, err = hire(); err != nil {
					failed.set(err)
					return
				}
				all = append(all, w)
			}
			number, err := w.send()
			failed.set(err)
			if failed.get() != nil {
				return
			}
			w.next <- order{number, start.Add(since), since >= warm}
		}
	}()
	<-done
	for _, w := range all {
		close(w.next)
	}
	wg.Wait()
	return out, failed.get()
}

// hold opens so many streams, calls window while all are open, and lets them end.
func (t *target) hold(p *plan, streams int, window func()) error {
	var failed failure
	var open, ended sync.WaitGroup
	turns := make(chan struct{}, 128) // as many begin at once
	for range streams {
		turns <- struct{}{}
		if failed.get() != nil {
			break
		}
		open.Add(1)
		ended.Go(func() {
			begun := sync.OnceFunc(func() { <-turns; open.Done() })
			defer begun()
			c, err := t.dial(p)
			if err != nil {
				failed.set(err)
				return
			}
			defer c.conn.Close()
			number, err := c.send()
			if err == nil {
				err = c.receive(number, begun)
			}
			failed.set(err)
		})
	}
	open.Wait()
	if failed.get() == nil {
		window()
	}
	close(p.hold)
	ended.Wait()
	return failed.get()
}
