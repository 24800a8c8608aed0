package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill"
)

// Config says how a journal is kept. The zero value works.
type Config struct {
	// Gateway names the instance; it is part of the segments' names, so that the
	// journals of many replicas can be collected in one place.
	Gateway string
	// SyncEvery makes Close wait until the entry is on disk.
	SyncEvery bool
	// SyncWithin is how long a written entry may wait for the disk; 0 means 10 ms.
	SyncWithin time.Duration
	// SegmentBytes seals a segment that has grown to it; 0 means 64 MiB.
	SegmentBytes int64
	// SegmentAge seals a segment that holds something and is as old as this; 0 means
	// one minute.
	SegmentAge time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Gateway == "" {
		c.Gateway = "waybilld"
	}
	if c.SyncWithin <= 0 {
		c.SyncWithin = 10 * time.Millisecond
	}
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = 64 << 20
	}
	if c.SegmentAge <= 0 {
		c.SegmentAge = time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// file is what the journal needs of a segment's file; tests put a failing one in its place.
// All but Sync are called with Journal.mu held: whoever lets go of a mapping has nobody
// beside it who writes there.
type file interface {
	// Write appends a record, or the magic, where it survives the process. After a failure
	// the file takes nothing more.
	Write([]byte) (int, error)
	// Trim gives back what was allocated ahead of what is written: nothing is written after.
	Trim() error
	// Sync brings content and length to the disk.
	Sync() error
	// Close trims, and closes.
	Close() error
}

// A Journal is a directory that this process writes. Its methods may be called from
// many goroutines.
type Journal struct {
	dir    string
	config Config
	create func(path string) (file, error)
	unlock func()

	mu      sync.Mutex        // guards all below, and the order of writes
	live    *segment          // nil until the first entry, and after a failure
	open    map[string][]byte // payload of the Opened entry of each call under way
	late    map[string][]byte // of those, payload of the Closed entry that could not be written
	serial  int
	buf     []byte
	closed  bool
	failure error // of the last write or sync; nil once one has succeeded

	wake chan struct{} // tells the syncer that something is to be done
	done chan struct{} // closed when the syncer has ended
	stop chan struct{}
}

// A segment is the live file.
type segment struct {
	path    string
	f       file
	sum     hash.Hash
	count   uint64
	size    int64
	created time.Time

	written int64     // bytes written
	synced  int64     // bytes known to be on disk
	waiting int       // how many wait for the disk
	rested  time.Time // when the last sync was over
	resting bool      // the syncer knows that somebody waits, and lets more come
	dirty   time.Time // since when something waits
	cond    *sync.Cond
	err     error // why the segment was finished early
}

// Start opens a journal for writing, after recovering what a dead process left in
// it. It fails if another process holds it.
func Start(dir string, config Config) (*Journal, error) {
	config = config.withDefaults()
	if strings.ContainsAny(config.Gateway, "/\\\x00") {
		return nil, fmt.Errorf("start journal: gateway name %q: it becomes part of a file name", config.Gateway)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start journal: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, fmt.Errorf("start journal: %w", err)
	}
	if _, err := recoverDir(dir); err != nil {
		unlock()
		return nil, err
	}
	j := &Journal{
		dir: dir, config: config, unlock: unlock,
		create: func(path string) (file, error) {
			return createFile(path, config.SegmentBytes+recordHead+footerSize)
		},
		open: make(map[string][]byte),
		late: make(map[string][]byte),
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
		stop: make(chan struct{}),
	}
	go j.syncer()
	return j, nil
}

// scratches are what entries are encoded in.
var scratches = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// Open records that a call is about to leave. The entry is in the file when Open
// returns; synced waits until it is on disk, which is to be done before the first
// byte of the answer is passed on.
func (j *Journal) Open(v waybill.Invocation) (synced func(context.Context) error, err error) {
	scratch := scratches.Get().(*[]byte)
	defer scratches.Put(scratch)
	*scratch = v.AppendEntry((*scratch)[:0], waybill.Opened)
	payload := bytes.Clone(*scratch) // it is kept until the call is over
	j.mu.Lock()
	defer j.mu.Unlock()
	s, end, err := j.append(payload)
	if err != nil {
		return nil, fmt.Errorf("record opened call: %w", err)
	}
	j.open[v.CallID] = payload
	return func(ctx context.Context) error { return j.wait(ctx, s, end) }, nil
}

// Close records that a call is over, or was refused. When it returns the entry
// survives the process, and with Config.SyncEvery the machine. The end of a call that was
// opened and cannot be written is kept, and written with the next segment.
func (j *Journal) Close(ctx context.Context, v waybill.Invocation) error {
	scratch := scratches.Get().(*[]byte)
	defer scratches.Put(scratch)
	*scratch = v.AppendEntry((*scratch)[:0], waybill.Closed)
	j.mu.Lock()
	s, end, err := j.append(*scratch)
	if err != nil {
		if _, opened := j.open[v.CallID]; opened && len(*scratch) <= maxRecord && !j.closed { // what it has used is known: it is written once something can be
			j.late[v.CallID] = bytes.Clone(*scratch)
		}
		j.mu.Unlock()
		return fmt.Errorf("record closed call: %w", err)
	}
	delete(j.open, v.CallID)
	j.mu.Unlock()
	if j.config.SyncEvery {
		return j.wait(ctx, s, end)
	}
	return nil
}

// Ready is nil while entries can be recorded: it is the last failure to write, until
// a write has succeeded since. Where the last one failed, Ready tries again.
func (j *Journal) Ready() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	if j.failure == nil {
		return nil
	}
	if j.live == nil {
		if err := j.begin(); err != nil {
			j.failure = err
			return err
		}
	}
	j.failure = nil
	return nil
}

var errClosed = errors.New("the journal is closed")

// append writes one record to the live segment, beginning one if need be, and says
// where the record ends. A segment that cannot be written is given up, and a new one
// tried once. j.mu is held.
func (j *Journal) append(payload []byte) (*segment, int64, error) {
	if j.closed {
		return nil, 0, errClosed
	}
	if len(payload) > maxRecord {
		return nil, 0, fmt.Errorf("an entry of %d bytes: the limit is %d", len(payload), maxRecord)
	}
	if j.live != nil && j.live.size+int64(len(payload)) > j.config.SegmentBytes {
		j.seal()
	}
	for attempt := 0; ; attempt++ {
		if j.live == nil {
			if err := j.begin(); err != nil {
				j.failure = err
				return nil, 0, err
			}
		}
		s := j.live
		err := j.write(s, payload)
		if err == nil {
			j.failure = nil
			return s, s.written, nil
		}
		j.finish(s, err)
		if attempt > 0 {
			return nil, 0, err
		}
	}
}

func (j *Journal) write(s *segment, payload []byte) error {
	j.buf = appendRecord(j.buf[:0], payload, 0)
	if _, err := s.f.Write(j.buf); err != nil {
		return err
	}
	s.sum.Write(j.buf)
	s.count++
	s.size += int64(len(j.buf))
	s.written = s.size
	if s.dirty.IsZero() {
		s.dirty = j.config.Now()
		j.rouse()
	}
	return nil
}

// begin makes a new live segment, on disk together with its name, and carries into it the
// calls under way, and the ends of calls that could not be written before. Of a segment
// that cannot be begun nothing stays: all it holds is known elsewhere, and a disk that is
// full for an hour would be full of beginnings. j.mu is held.
func (j *Journal) begin() (err error) {
	j.serial++
	now := j.config.Now().UTC()
	name := fmt.Sprintf("%s-%s-%06d", now.Format("20060102T150405.000000000Z"), j.config.Gateway, j.serial)
	path := filepath.Join(j.dir, name+liveSuffix)
	f, err := j.create(path)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("begin segment: %w", err)
			f.Close()
			_ = os.Remove(path) // the next recovery finds it, else
		}
	}()
	s := &segment{path: path, f: f, sum: sha256.New(), created: now, cond: sync.NewCond(&j.mu)}
	if _, err := f.Write([]byte(magic)); err != nil {
		return err
	}
	s.sum.Write([]byte(magic))
	s.size = int64(len(magic))
	s.written = s.size
	for _, payload := range j.open {
		if err := j.write(s, payload); err != nil {
			return err
		}
	}
	for _, payload := range j.late {
		if err := j.write(s, payload); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Sync(), syncDir(j.dir)); err != nil {
		return err
	}
	for id := range j.late {
		delete(j.open, id)
	}
	clear(j.late)
	s.synced, s.dirty = s.written, time.Time{}
	j.live = s
	return nil
}

// seal ends the live segment with its footer and gives it its final name. Calls under way
// are in the next one before: recovery looks for them in what is live. j.mu is held.
func (j *Journal) seal() {
	s := j.live
	if s == nil {
		return
	}
	if len(j.open) > 0 {
		if err := j.begin(); err != nil { // the live one goes on
			j.failure = err
			return
		}
	} else {
		j.live = nil
	}
	if _, err := s.f.Write(footer(s.count, s.sum)); err != nil {
		j.finish(s, err)
		return
	}
	if err := errors.Join(s.f.Trim(), s.f.Sync()); err != nil {
		j.finish(s, err)
		return
	}
	s.synced, s.dirty = s.written, time.Time{}
	s.cond.Broadcast()
	if err := errors.Join(s.f.Close(), rename(s.path)); err != nil {
		j.failure = err
	}
}

// finish gives up a segment after a failed write or sync: what it holds is read by
// the next recovery, and nothing more is written to it. Who waits for the disk is
// told that it failed.
func (j *Journal) finish(s *segment, err error) {
	s.err = err
	s.cond.Broadcast()
	s.f.Close()
	if j.live == s {
		j.live = nil
	}
	j.failure = fmt.Errorf("segment %s was given up: %w", filepath.Base(s.path), err)
}

// wait blocks until the segment is on disk up to end. Only who waits hurries the disk:
// an opened entry is synced by itself while the call is under way, with whatever comes
// in those milliseconds.
func (j *Journal) wait(ctx context.Context, s *segment, end int64) error {
	j.mu.Lock()
	if s.synced >= end { // as most are, once the answer is there
		j.mu.Unlock()
		return nil
	}
	s.waiting++
	if !s.resting || !j.mayRest(s) {
		j.rouse()
	}
	j.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		j.mu.Lock()
		s.cond.Broadcast()
		j.mu.Unlock()
	})
	defer stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() { s.waiting-- }()
	for s.synced < end && s.err == nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.cond.Wait()
	}
	if s.synced < end {
		return fmt.Errorf("sync journal: %w", s.err)
	}
	return nil
}

// Under load there is a rest between two syncs, so that one serves more calls: it costs as
// much processor time as all else that the journal does for ten of them. Load is that others
// will wait soon, or that a crowd does; where each entry is waited for, a crowd is no load.
const (
	syncApart = 2 * time.Millisecond
	crowd     = 4
)

func (j *Journal) mayRest(s *segment) bool {
	return s.waiting < len(j.open) || s.waiting >= crowd && !j.config.SyncEvery
}

func (j *Journal) rouse() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// syncer brings what is written to the disk: at once when somebody waits, else
// within Config.SyncWithin. One sync serves all who wait. It also seals by age.
func (j *Journal) syncer() {
	defer close(j.done)
	timer := time.NewTimer(j.config.SegmentAge)
	defer timer.Stop()
	for {
		select {
		case <-j.stop:
			return
		case <-j.wake:
		case <-timer.C:
		}
		timer.Reset(j.syncOnce())
	}
}

// syncOnce does what is due and says how long until something else is.
func (j *Journal) syncOnce() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.live
	if s == nil {
		return j.config.SegmentAge
	}
	now := j.config.Now()
	old := now.Sub(s.created) >= j.config.SegmentAge
	if old && s.count > uint64(len(j.open)) {
		if j.seal(); j.live != s {
			return j.config.SegmentAge
		}
	}
	if s.written > s.synced {
		wait := j.config.SyncWithin - now.Sub(s.dirty)
		if s.waiting > 0 {
			wait = 0
			if j.mayRest(s) {
				wait = syncApart - time.Since(s.rested)
				s.resting = wait > 0
			}
		}
		if wait > 0 && wait <= j.config.SyncWithin { // a clock may have been set
			return wait
		}
		end := s.written
		s.dirty = time.Time{}
		j.mu.Unlock()
		err := s.f.Sync()
		j.mu.Lock()
		s.rested, s.resting = time.Now(), false
		switch {
		case s.err != nil || j.live != s: // sealed or given up meanwhile
		case err != nil:
			j.finish(s, err)
		default:
			s.synced = max(s.synced, end)
			s.cond.Broadcast()
			if s.written > s.synced {
				j.rouse()
			}
		}
	}
	if old { // it holds calls under way and nothing else: what is written next wakes the syncer
		return j.config.SegmentAge
	}
	return max(j.config.SegmentAge-now.Sub(s.created), time.Millisecond)
}

// Stop seals the journal. Calls still under way are closed as interrupted first:
// whoever stops the journal has stopped the calls.
func (j *Journal) Stop() error {
	close(j.stop)
	<-j.done
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	defer j.unlock()
	if j.live == nil && len(j.open) > 0 {
		_ = j.begin() // which may hold again; else recovery finds what was given up
	}
	if j.live == nil {
		return j.failure
	}
	if err := interrupt(j.open, func(payload []byte) error { return j.write(j.live, payload) }); err != nil {
		j.finish(j.live, err)
		return j.failure
	}
	j.failure = nil
	clear(j.open)
	j.seal()
	return j.failure
}

// interrupt closes calls that were left open, in the order of their ids.
func interrupt(open map[string][]byte, write func(payload []byte) error) error {
	for _, id := range slices.Sorted(maps.Keys(open)) {
		payload := open[id]
		var e waybill.Entry
		if err := json.Unmarshal(payload, &e); err != nil {
			return err
		}
		e.Kind = waybill.Closed
		e.Invocation.Outcome = waybill.Interrupted
		e.Invocation.Usage = waybill.Usage{}
		e.Invocation.UsageFrom = "the gateway ended in mid-call"
		closed, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := write(closed); err != nil {
			return err
		}
	}
	return nil
}
