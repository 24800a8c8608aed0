package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill"
)

func call(id string) waybill.Invocation {
	return waybill.Invocation{
		CallID: id, RequestID: "req-" + id, Source: waybill.FromGateway,
		StartedAt: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC), Outcome: waybill.Completed,
		Tags:  waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}),
		Usage: waybill.NewUsage().With(waybill.Input, 12),
	}
}

func start(t *testing.T, dir string, c Config) *Journal {
	t.Helper()
	j, err := Start(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// read gives the closed calls of all sealed segments: id to outcome.
func read(t *testing.T, dir string) map[string]waybill.Outcome {
	t.Helper()
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]waybill.Outcome)
	for _, s := range segments {
		f, err := os.Open(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := NewReader(f)
		if err != nil {
			t.Fatalf("%s: %v", s.Path, err)
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", s.Path, err)
			}
			if e.Kind != waybill.Closed {
				continue
			}
			if _, twice := got[e.Invocation.CallID]; twice {
				t.Errorf("call %s is closed twice", e.Invocation.CallID)
			}
			got[e.Invocation.CallID] = e.Invocation.Outcome
		}
		if !r.Sealed() {
			t.Errorf("%s has no footer", s.Path)
		}
	}
	return got
}

func TestWhatIsRecordedIsReadBack(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{SegmentBytes: 4000})
	ctx := t.Context()
	for i := range 50 {
		id := fmt.Sprint("call-", i)
		synced, err := j.Open(call(id))
		if err != nil {
			t.Fatal(err)
		}
		if err := synced(ctx); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(ctx, call(id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Stop(); err != nil {
		t.Fatal(err)
	}
	got := read(t, dir)
	if len(got) != 50 {
		t.Errorf("%d calls read back, want 50", len(got))
	}
	if s, _ := Segments(dir); len(s) < 5 {
		t.Errorf("%d segments, want several at 4,000 bytes each", len(s))
	}
}

func TestManyWritersShareOneSync(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{SegmentBytes: 100_000, SyncEvery: true})
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("call-%d-%d", w, i)
				synced, err := j.Open(call(id))
				if err == nil {
					err = synced(t.Context())
				}
				if err == nil {
					err = j.Close(t.Context(), call(id))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := j.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir); len(got) != 640 {
		t.Errorf("%d calls, want 640", len(got))
	}
}

// A call that lasts longer than segments do leaves the syncer asleep, and its segment is
// sealed as soon as it has ended.
func TestLongCallLeavesTheSyncerAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var looks atomic.Int64
		j := start(t, dir, Config{SegmentAge: time.Minute, Now: func() time.Time { looks.Add(1); return time.Now() }})
		if _, err := j.Open(call("long")); err != nil { // and nobody waits for the disk: its answer never comes
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := looks.Load(); n > 200 {
			t.Errorf("the syncer looked %d times in an hour in which nothing happened", n)
		}
		if s, _ := Segments(dir); len(s) != 0 {
			t.Errorf("%d segments are sealed that hold nothing but a call under way", len(s))
		}
		if err := j.Close(t.Context(), call("long")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s, _ := Segments(dir); len(s) != 1 {
			t.Errorf("%d segments are sealed once the call is over, want 1", len(s))
		}
		if err := j.Stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// A call that is open while its segment is sealed is closed in a later one, once.
func TestOpenCallsAreCarriedOver(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{SegmentBytes: 2000})
	if _, err := j.Open(call("long")); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := j.Close(t.Context(), call(fmt.Sprint("refused-", i))); err != nil {
			t.Fatal(err)
		}
	}
	crash(j)
	if n, err := Recover(dir); err != nil || n != 1 {
		t.Fatalf("Recover = %d, %v; want the one live segment", n, err)
	}
	got := read(t, dir)
	if got["long"] != waybill.Interrupted || len(got) != 21 {
		t.Errorf("long is %q among %d calls, want interrupted among 21", got["long"], len(got))
	}
}

// Killed right after it has sealed a segment, a process leaves the calls under way where
// recovery finds them, though nothing was recorded since.
func TestKilledAfterSealing(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{})
	if _, err := j.Open(call("long")); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context(), call("refused")); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	j.seal()
	j.mu.Unlock()
	if s, err := Segments(dir); len(s) != 1 || err != nil {
		t.Fatalf("%d segments are sealed, %v", len(s), err)
	}
	crash(j)
	if _, err := Recover(dir); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir); got["long"] != waybill.Interrupted || got["refused"] != waybill.Completed {
		t.Errorf("recovered %v", got)
	}
}

// A segment whose successor cannot be begun goes on past its size, on disk as promised, and
// is sealed once it has one: the calls under way need a place.
func TestNoSuccessor(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{SegmentBytes: 2000})
	create, refused := j.create, true
	if _, err := j.Open(call("long")); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	j.create = func(path string) (file, error) {
		if refused {
			return nil, errors.New("too many open files")
		}
		return create(path)
	}
	j.mu.Unlock()
	record := func(from, to int) {
		for i := from; i < to; i++ {
			synced, err := j.Open(call(fmt.Sprint("call-", i)))
			if err == nil {
				err = synced(t.Context())
			}
			if err == nil {
				err = j.Close(t.Context(), call(fmt.Sprint("call-", i)))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	record(0, 30)
	if s, err := Segments(dir); len(s) != 0 || err != nil {
		t.Errorf("%d segments are sealed, %v: the call under way is in none that is live", len(s), err)
	}
	j.mu.Lock()
	refused = false
	j.mu.Unlock()
	record(30, 31)
	if s, err := Segments(dir); len(s) != 1 || err != nil {
		t.Errorf("%d segments are sealed once there is a next one, %v", len(s), err)
	}
	if err := j.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir); len(got) != 32 || got["long"] != waybill.Interrupted {
		t.Errorf("%d calls, long is %q", len(got), got["long"])
	}
}

// crash leaves the journal as a killed process would: nothing sealed, the lock free.
func crash(j *Journal) {
	close(j.stop)
	<-j.done
	j.unlock()
}

// Whatever instant a process is killed at, what Close had returned for is there,
// and every call is there at most once.
func TestKilledAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{})
	var ends []int64
	for i := range 6 {
		id := fmt.Sprint("call-", i)
		if _, err := j.Open(call(id)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(t.Context(), call(id)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.live.size)
	}
	path, size := j.live.path, j.live.size
	crash(j)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range whole[:size] {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Recover(dir); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		got := read(t, dir)
		for i, end := range ends {
			if o := got[fmt.Sprint("call-", i)]; int64(cut) >= end && o != waybill.Completed {
				t.Fatalf("cut at %d: call %d is %q, want completed: its record ends at %d", cut, i, o, end)
			}
		}
		if left, _ := list(dir, liveSuffix); len(left) > 0 {
			t.Fatalf("cut at %d: %v is still there", cut, left)
		}
	}
}

// image gives the bytes of a live segment, and where its records end.
func image(t *testing.T) (whole []byte, ends []int) {
	t.Helper()
	j := start(t, t.TempDir(), Config{})
	for i := range 3 {
		id := fmt.Sprint("call-", i)
		if _, err := j.Open(call(id)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(j.live.size))
		if err := j.Close(t.Context(), call(id)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(j.live.size))
	}
	path := j.live.path
	crash(j)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return whole[:ends[len(ends)-1]], ends
}

// records counts what a reader finds, and says how it ends.
func records(segment []byte) (n int, err error) {
	r, err := NewReader(bytes.NewReader(segment))
	for err == nil {
		if _, err = r.Next(); err == nil {
			n++
		}
	}
	return n, err
}

// recovered gives the outcomes of the calls of a live segment that a dead process left.
func recovered(t *testing.T, segment []byte) map[string]waybill.Outcome {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "left"+liveSuffix), segment, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(dir); err != nil {
		t.Fatal(err)
	}
	return read(t, dir)
}

// A segment is allocated ahead: whatever is written of its last record, payload first and
// head last, what follows are zeros.
func TestTornAheadOfZeros(t *testing.T) {
	whole, ends := image(t)
	begin, end := ends[len(ends)-2], ends[len(ends)-1]
	for _, zeros := range []int{0, 1, 7, 8, 9, 10_000} {
		if n, err := records(append(bytes.Clone(whole), make([]byte, zeros)...)); n != len(ends) || err != io.EOF {
			t.Errorf("with %d zeros: %d records and %v, want %d and EOF", zeros, n, err, len(ends))
		}
	}
	for written := range end - begin {
		torn := make([]byte, end+5000)
		copy(torn, whole[:begin])
		if payload := end - begin - recordHead; written <= payload {
			copy(torn[begin+recordHead:], whole[begin+recordHead:begin+recordHead+written])
		} else { // the head is one store, and nevertheless
			copy(torn[begin+recordHead:], whole[begin+recordHead:end])
			copy(torn[begin:], whole[begin:begin+written-payload])
		}
		want := ErrTorn
		if written == 0 {
			want = io.EOF
		} else if written > end-begin-recordHead {
			want = ErrDamaged
		}
		if n, err := records(torn); n != len(ends)-1 || !errors.Is(err, want) {
			t.Fatalf("%d bytes written: %d records and %v, want %d and %v", written, n, err, len(ends)-1, want)
		}
		if written%50 == 0 {
			if got := recovered(t, torn); got["call-1"] != waybill.Completed || got["call-2"] != waybill.Interrupted || len(got) != 3 {
				t.Errorf("%d bytes written: recovered %v", written, got)
			}
		}
	}
	for cut := range len(magic) {
		if got := recovered(t, append([]byte(magic[:cut]), make([]byte, 5000)...)); len(got) != 0 {
			t.Errorf("killed after %d bytes of the magic: recovered %v", cut, got)
		}
	}
}

// Pages may reach the disk in any order before the power is cut. What comes after a hole was
// not yet on disk, and nobody has been told that it was.
func TestHoleInTheMiddle(t *testing.T) {
	whole, ends := image(t)
	begin := len(magic)
	for i, end := range ends {
		for _, hole := range []struct {
			what     string
			from, to int
			want     error
		}{
			{"the record", begin, end, ErrTorn},
			{"its head", begin, begin + recordHead, ErrTorn},
			{"its payload", begin + recordHead, end, ErrDamaged},
			{"all that follows", begin, len(whole), io.EOF},
		} {
			b := append(bytes.Clone(whole), make([]byte, 5000)...)
			if i == len(ends)-1 && hole.to == end && hole.from == begin {
				hole.want = io.EOF
			}
			clear(b[hole.from:hole.to])
			if n, err := records(b); n != i || !errors.Is(err, hole.want) {
				t.Errorf("without %s, %d: %d records and %v, want %d and %v", hole.what, i, n, err, i, hole.want)
			}
			want := (i + 1) / 2 // calls are opened and closed in turn
			if got := recovered(t, b); len(got) != want {
				t.Errorf("without %s, %d: recovered %v, want %d calls", hole.what, i, got, want)
			}
		}
		begin = end
	}
	b := bytes.Clone(whole)
	clear(b[:len(magic)])
	if got := recovered(t, b); len(got) != 0 {
		t.Errorf("without its first page: recovered %v", got)
	}
}

// Recovery may itself be killed: done again, it gives the same bytes.
func TestRecoveryIsRepeatable(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{})
	for _, id := range []string{"b", "a", "c"} {
		if _, err := j.Open(call(id)); err != nil {
			t.Fatal(err)
		}
	}
	path := j.live.path
	crash(j)
	leftover, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for range 3 {
		if err := os.WriteFile(path, leftover, 0o600); err != nil {
			t.Fatal(err)
		}
		sealed := strings.TrimSuffix(path, liveSuffix) + suffix
		if first != nil && rand.IntN(2) == 0 {
			os.Remove(sealed)
		}
		if _, err := Recover(dir); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(sealed)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && string(got) != string(first) {
			t.Error("a second recovery gave other bytes")
		}
		first = got
	}
	if got := read(t, dir); len(got) != 3 || got["a"] != waybill.Interrupted {
		t.Errorf("got %v, want three interrupted calls", got)
	}
}

func TestOneWriterOnly(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{})
	if _, err := Start(dir, Config{}); !errors.Is(err, ErrHeld) {
		t.Errorf("a second writer got %v, want ErrHeld", err)
	}
	if err := j.Close(t.Context(), call("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := Recover(dir); n != 0 || err != nil {
		t.Errorf("Recover of a live journal = %d, %v; want to leave it alone", n, err)
	}
	if err := j.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// failing writes fails as told: after so many writes, with or without the bytes
// having reached the file, or at the next sync.
type failing struct {
	file
	writes  *int
	torn    bool
	syncErr *error
}

func (f failing) Write(b []byte) (int, error) {
	*f.writes--
	if *f.writes == 0 {
		if f.torn {
			n, _ := f.file.Write(b[:len(b)/2])
			return n, io.ErrShortWrite
		}
		f.file.Write(b)
		return 0, errors.New("input/output error")
	}
	return f.file.Write(b)
}

func (f failing) Sync() error { return errors.Join(*f.syncErr, f.file.Sync()) }

// A disk that fails at any write loses no entry that was acknowledged, and doubles none.
func TestFailedWriteMovesToANewSegment(t *testing.T) {
	for _, torn := range []bool{false, true} {
		for at := 1; at < 14; at++ {
			dir := t.TempDir()
			j := start(t, dir, Config{})
			writes, noErr := at, error(nil)
			create := j.create
			j.create = func(path string) (file, error) {
				f, err := create(path)
				if err != nil {
					return nil, err
				}
				return failing{f, &writes, torn, &noErr}, nil
			}
			want := map[string]bool{}
			for i := range 6 {
				id := fmt.Sprint("call-", i)
				if _, err := j.Open(call(id)); err != nil {
					continue // refused: nothing is promised
				}
				if err := j.Close(t.Context(), call(id)); err == nil {
					want[id] = true
				}
			}
			if err := j.Stop(); err != nil {
				t.Fatalf("write %d: stop: %v", at, err)
			}
			if _, err := Recover(dir); err != nil {
				t.Fatalf("write %d: %v", at, err)
			}
			got := readAllowingTwins(t, dir)
			for id := range want {
				if got[id] != waybill.Completed {
					t.Errorf("write %d, torn %v: %s is %q, want completed", at, torn, id, got[id])
				}
			}
			if len(want) < 5 {
				t.Errorf("write %d: only %d calls were taken after one failed write", at, len(want))
			}
		}
	}
}

// The end of a call that came while the disk was full is written once it is not, and
// nothing piles up meanwhile.
func TestFullDisk(t *testing.T) {
	for _, how := range []string{"a call", "Ready", "Stop"} {
		dir := t.TempDir()
		j := start(t, dir, Config{})
		full := false
		create, noErr, writes := j.create, error(nil), 0
		j.create = func(path string) (file, error) {
			f, err := create(path)
			if err != nil {
				return nil, err
			}
			return &filling{failing{f, &writes, false, &noErr}, &full}, nil
		}
		for _, id := range []string{"known", "under way"} {
			if _, err := j.Open(call(id)); err != nil {
				t.Fatal(err)
			}
		}
		full = true
		if err := j.Close(t.Context(), call("known")); err == nil {
			t.Error("a disk that is full takes an entry")
		}
		for i := range 50 {
			if _, err := j.Open(call(fmt.Sprint("refused-", i))); err == nil {
				t.Error("a disk that is full takes an entry")
			}
			if j.Ready() == nil {
				t.Error("a journal on a disk that is full is ready")
			}
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 3 {
			t.Errorf("%d files after fifty calls that were refused, %v", len(files), err)
		}
		full = false
		switch how {
		case "a call":
			if err := j.Close(t.Context(), call("another")); err != nil {
				t.Error(err)
			}
		case "Ready":
			if err := j.Ready(); err != nil {
				t.Error(err)
			}
		}
		if err := j.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := Recover(dir); err != nil {
			t.Error(err)
		}
		got := readAllowingTwins(t, dir)
		if got["known"] != waybill.Completed || got["under way"] != waybill.Interrupted || len(got) > 3 {
			t.Errorf("after %s: %v", how, got)
		}
	}
}

// A filling file is on a disk that may be full.
type filling struct {
	failing
	full *bool
}

func (f *filling) Write(b []byte) (int, error) {
	if *f.full {
		return 0, errors.New("no space left on device")
	}
	return f.file.Write(b)
}

// readAllowingTwins reads like read. A write that reached the file though it was
// reported as failed leaves the same closed entry in two segments: readers merge by
// call id.
func readAllowingTwins(t *testing.T, dir string) map[string]waybill.Outcome {
	t.Helper()
	got := make(map[string]waybill.Outcome)
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		_, _, _, err := salvage(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := os.Open(s.Path)
		r, err := NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if err != nil {
				break
			}
			if e.Kind == waybill.Closed && got[e.Invocation.CallID] != waybill.Completed {
				got[e.Invocation.CallID] = e.Invocation.Outcome
			}
		}
		f.Close()
	}
	return got
}

func TestFailedSyncIsTold(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{SyncEvery: true})
	writes, syncErr := 1000, error(nil)
	create := j.create
	j.create = func(path string) (file, error) {
		f, err := create(path)
		if err != nil {
			return nil, err
		}
		return failing{f, &writes, false, &syncErr}, nil
	}
	if err := j.Close(t.Context(), call("before")); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	syncErr = errors.New("input/output error")
	j.mu.Unlock()
	if err := j.Close(t.Context(), call("during")); err == nil {
		t.Error("Close said nothing of a failed sync")
	}
	if j.Ready() == nil {
		t.Error("Ready said nothing of a failed sync")
	}
	j.mu.Lock()
	syncErr = nil
	j.mu.Unlock()
	if err := j.Ready(); err != nil {
		t.Errorf("Ready = %v after the disk came back", err)
	}
	if err := j.Close(t.Context(), call("after")); err != nil {
		t.Fatal(err)
	}
	if err := j.Stop(); err != nil {
		t.Fatal(err)
	}
	Recover(dir)
	got := readAllowingTwins(t, dir)
	if got["before"] != waybill.Completed || got["after"] != waybill.Completed {
		t.Errorf("got %v", got)
	}
}

func FuzzReader(f *testing.F) {
	dir := f.TempDir()
	j, err := Start(dir, Config{})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		j.Close(context.Background(), call(fmt.Sprint(i)))
	}
	if err := j.Stop(); err != nil {
		f.Fatal(err)
	}
	segments, _ := Segments(dir)
	seed, err := os.ReadFile(segments[0].Path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(magic))
	f.Add([]byte(magic + "\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte(magic + "\xff\xff\xff\x7f0000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		for range len(b) + 1 {
			_, err := r.Next()
			if e := (*EntryError)(nil); err != nil && !errors.As(err, &e) {
				return
			}
		}
		t.Error("the reader does not end")
	})
}

func BenchmarkAcknowledged(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(writers, "writers"), func(b *testing.B) {
			j, err := Start(b.TempDir(), Config{SyncEvery: true})
			if err != nil {
				b.Fatal(err)
			}
			v := call("bench")
			var wg sync.WaitGroup
			work := make(chan struct{}, writers)
			for range writers {
				wg.Go(func() {
					for range work {
						if err := j.Close(context.Background(), v); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			if err := j.Stop(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
