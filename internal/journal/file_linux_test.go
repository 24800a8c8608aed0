package journal

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waybill-dev/waybill"
)

// refuse has the files of a journal refuse to be allocated or mapped from the n-th time on.
func refuse(j *Journal, allocate bool, n int) {
	create := j.create
	j.create = func(path string) (file, error) {
		f, err := create(path)
		if err != nil {
			return nil, err
		}
		m := f.(*mappedFile)
		realAllocate, realMap := m.allocate, m.mmap
		asked := 0
		if allocate {
			m.allocate = func(fd int, from, size int64) error {
				if asked++; asked >= n {
					_ = realAllocate(fd, from, size/2) // it takes what there is before it says that there is no more
					return unix.ENOSPC
				}
				return realAllocate(fd, from, size)
			}
		} else {
			m.mmap = func(fd int, from int64, size int) ([]byte, error) {
				if asked++; asked >= n {
					return nil, unix.ENODEV
				}
				return realMap(fd, from, size)
			}
		}
		return m, nil
	}
}

// However a segment is written, its bytes are the same.
func TestSealedAsWrittenPlainly(t *testing.T) {
	write := func(prepare func(*Journal)) map[string]string {
		dir := t.TempDir()
		at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		j := start(t, dir, Config{SegmentBytes: 700_000, Now: func() time.Time { return at }})
		prepare(j)
		if _, err := j.Open(full("under way")); err != nil {
			t.Fatal(err)
		}
		for i := range 1500 {
			v := full(fmt.Sprint("call-", i))
			if i == 700 { // larger than a piece
				v.ErrorCode = strings.Repeat("x", pieceBytes+1)
			}
			if err := j.Close(t.Context(), v); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Stop(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir); len(got) != 1501 || got["under way"] != waybill.Interrupted {
			t.Errorf("%d calls, the one under way %q", len(got), got["under way"])
		}
		segments, err := Segments(dir)
		if err != nil {
			t.Fatal(err)
		}
		files := make(map[string]string)
		for _, s := range segments {
			b, err := os.ReadFile(s.Path)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(s.Path)] = string(b)
		}
		return files
	}
	want := write(func(j *Journal) { refuse(j, true, 1) })
	if len(want) < 2 {
		t.Fatalf("%d segments, want several", len(want))
	}
	for name, prepare := range map[string]func(*Journal){
		"mapped":                   func(*Journal) {},
		"allocated and not mapped": func(j *Journal) { refuse(j, false, 1) },
		"not mapped further":       func(j *Journal) { refuse(j, false, 3) },
		"not allocated further":    func(j *Journal) { refuse(j, true, 2) },
	} {
		got := write(prepare)
		if len(got) != len(want) {
			t.Errorf("%s: %d segments, want %d", name, len(got), len(want))
		}
		for file := range want {
			if got[file] != want[file] {
				t.Errorf("%s: %s has %d bytes that differ from the %d of a plain one", name, file, len(got[file]), len(want[file]))
			}
		}
	}
}

// A live segment is never allocated past what it may hold, nor far ahead, and is written
// through its mapping.
func TestAllocatedInPieces(t *testing.T) {
	for _, limit := range []int64{20_000, 400_000, 64 << 20} {
		j := start(t, t.TempDir(), Config{SegmentBytes: limit})
		for i := range 600 {
			if err := j.Close(t.Context(), full(fmt.Sprint("call-", i))); err != nil {
				t.Fatal(err)
			}
			m := j.live.f.(*mappedFile)
			info, err := m.f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() > limit+recordHead+footerSize || info.Size() > m.size+pieceBytes || info.Size() < m.size {
				t.Fatalf("a file of %d bytes for %d written, limit %d", info.Size(), m.size, limit)
			}
			if m.window == nil {
				t.Skip("the file system of the temporary directory maps or allocates nothing")
			}
		}
		if err := j.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// The kernel raises SIGBUS in the middle of a copy: here since the page is no longer part
// of the file, elsewhere since its disk fails. The entry goes to the next segment, and the
// calls under way with it.
func TestFaultInMidCopy(t *testing.T) {
	page := int64(os.Getpagesize())
	for range 5 {
		dir := t.TempDir()
		j := start(t, dir, Config{})
		want := make(map[string]waybill.Outcome)
		for _, id := range []string{"under way", "also under way"} {
			if _, err := j.Open(call(id)); err != nil {
				t.Fatal(err)
			}
			want[id] = waybill.Interrupted
		}
		for i := range rand.IntN(100) {
			id := fmt.Sprint("before-", i)
			if err := j.Close(t.Context(), call(id)); err != nil {
				t.Fatal(err)
			}
			want[id] = waybill.Completed
		}
		j.mu.Lock()
		given := j.live
		m := given.f.(*mappedFile)
		if m.window == nil {
			t.Skip("the file system of the temporary directory maps or allocates nothing")
		}
		ends := (m.size + page) &^ (page - 1)
		if err := m.f.Truncate(ends); err != nil {
			t.Fatal(err)
		}
		j.mu.Unlock()
		for i := range 60 { // one of them crosses the end of the page
			id := fmt.Sprint("after-", i)
			synced, err := j.Open(call(id))
			if err == nil {
				err = synced(t.Context())
			}
			if err == nil {
				err = j.Close(t.Context(), call(id))
			}
			if err != nil {
				t.Fatal(err)
			}
			want[id] = waybill.Completed
		}
		j.mu.Lock()
		if j.live == given || given.err == nil || !strings.Contains(given.err.Error(), "SIGBUS") {
			t.Errorf("the segment was not given up for the fault: %v", given.err)
		}
		j.mu.Unlock()
		if err := j.Ready(); err != nil {
			t.Errorf("Ready = %v after a segment that holds", err)
		}
		whole, err := os.ReadFile(given.path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := records(whole); n != int(given.count) || err != io.EOF {
			t.Errorf("%d records and %v in the segment that was given up, want %d and EOF", n, err, given.count)
		}
		if err := j.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := Recover(dir); err != nil {
			t.Fatal(err)
		}
		got := readAllowingTwins(t, dir)
		for id, outcome := range want {
			if got[id] != outcome {
				t.Errorf("%s is %q, want %s", id, got[id], outcome)
			}
		}
	}
}

// What a copy that did not come to its end leaves is no record: its head is missing.
func TestHeadIsWrittenLast(t *testing.T) {
	page := os.Getpagesize()
	f, err := createFile(filepath.Join(t.TempDir(), "segment"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := f.(*mappedFile)
	if _, err := m.Write(make([]byte, page-100)); err != nil {
		t.Fatal(err)
	}
	if m.window == nil {
		t.Skip("the file system of the temporary directory maps or allocates nothing")
	}
	if err := m.f.Truncate(int64(page)); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Write(bytes.Repeat([]byte("x"), 300)); n != 0 || err == nil || !strings.Contains(err.Error(), "SIGBUS") {
		t.Fatalf("Write past the end of the file = %d, %v; want a SIGBUS", n, err)
	}
	b, err := os.ReadFile(m.f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if head := b[page-100:][:recordHead]; !bytes.Equal(head, make([]byte, recordHead)) {
		t.Errorf("the head is %q after half a copy, want zeros", head)
	}
}

// held counts the descriptors and the mappings of this process in a folder.
func held(t *testing.T, dir string) (descriptors, mappings int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) {
			descriptors++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	return descriptors, strings.Count(string(maps), dir)
}

// A segment that is sealed, given up or could not be begun leaves nothing behind in the
// process, and the one that is live no more than one mapping.
func TestNothingIsHeldOfASegmentThatIsOver(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Config{SegmentBytes: 600_000})
	create, noErr, writes, begun := j.create, error(nil), 0, 0
	j.create = func(path string) (file, error) {
		f, err := create(path)
		if err != nil {
			return nil, err
		}
		begun++
		switch begun % 3 {
		case 0:
			writes = 40 // given up in the middle
		case 1:
			writes = 1 // never begun
		default:
			writes = 1 << 30
		}
		return failing{f, &writes, false, &noErr}, nil
	}
	for i := range 4000 {
		_ = j.Close(t.Context(), full(fmt.Sprint("call-", i)))
		if i%100 > 0 {
			continue
		}
		if descriptors, mappings := held(t, dir); descriptors > 3 || mappings > 1 { // the lock, the segment, and one that is over and is being synced
			t.Fatalf("%d descriptors and %d mappings after %d segments", descriptors, mappings, begun)
		}
	}
	if begun < 8 {
		t.Errorf("only %d segments", begun)
	}
	if err := j.Stop(); err != nil {
		t.Fatal(err)
	}
	if descriptors, mappings := held(t, dir); descriptors+mappings > 0 {
		t.Errorf("%d descriptors and %d mappings are left", descriptors, mappings)
	}
}

// again runs this test once more, in a process of its own.
func again(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "JOURNAL_TEST_DIR="+dir)
	return cmd
}

// A process that is killed at any instant has lost nothing of what it was told is recorded.
func TestKilledProcess(t *testing.T) {
	if dir := os.Getenv("JOURNAL_TEST_DIR"); dir != "" {
		recordForever(t, dir)
		return
	}
	acknowledged := 0
	for range 8 {
		dir := t.TempDir()
		cmd := again(t, dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		want := make(map[string]bool) // true: it was closed
		lines := bufio.NewReader(out)
		for until := 1 + rand.IntN(3000); ; until-- {
			if until == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			line, err := lines.ReadString('\n')
			if err != nil {
				break // what is no whole line was not told
			}
			if what, id, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (what == "opened" || what == "closed") {
				want[id] = want[id] || what == "closed"
			}
		}
		_ = cmd.Wait()
		live, err := list(dir, liveSuffix)
		if err != nil || len(live) > 2 { // one that was being sealed, and the next
			t.Fatalf("%v are left, %v", live, err)
		}
		if n, err := Recover(dir); err != nil || n != len(live) {
			t.Fatalf("Recover = %d, %v; want %d", n, err, len(live))
		}
		got := read(t, dir)
		for id, closed := range want {
			if o := got[id]; closed && o != waybill.Completed || !closed && o != waybill.Completed && o != waybill.Interrupted {
				t.Errorf("%s is %q; closed: %v", id, o, closed)
			}
		}
		acknowledged += len(want)
	}
	if acknowledged < 100 {
		t.Errorf("only %d calls were recorded before the process was killed", acknowledged)
	}
}

// recordForever records calls, and tells which once they are recorded.
func recordForever(t *testing.T, dir string) {
	j := start(t, dir, Config{SegmentBytes: 400_000})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				v := full(fmt.Sprintf("call-%d-%d", w, i))
				if _, err := j.Open(v); err != nil {
					t.Error(err)
					return
				}
				fmt.Println("opened", v.CallID)
				if err := j.Close(t.Context(), v); err != nil {
					t.Error(err)
					return
				}
				fmt.Println("closed", v.CallID)
			}
		})
	}
	wg.Wait()
}

// A disk that is really full: the entry is refused, by an error and not by a fault, and
// what was recorded before is kept.
func TestDiskOfOneMegabyte(t *testing.T) {
	dir := os.Getenv("JOURNAL_TEST_DIR")
	if dir == "" {
		dir = t.TempDir()
		cmd := again(t, dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil && len(out) == 0:
			t.Skip("no user namespaces here: ", err)
		case err != nil:
			t.Errorf("%v\n%s", err, out)
		case bytes.Contains(out, []byte("--- SKIP")):
			t.Skipf("%s", out)
		}
		return
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("a tmpfs cannot be mounted here: ", err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 200_000), 0o600); err != nil {
		t.Fatal(err)
	}
	j := start(t, dir, Config{})
	if _, err := j.Open(full("under way")); err != nil {
		t.Fatal(err)
	}
	want := map[string]waybill.Outcome{"under way": waybill.Interrupted}
	record := func(from, to int) (refused int) {
		for i := from; i < to; i++ {
			id := fmt.Sprint("call-", i)
			if err := j.Close(t.Context(), full(id)); err == nil {
				want[id] = waybill.Completed
				continue
			}
			refused++
			if j.Ready() == nil {
				t.Error("Ready said nothing of a full disk")
			}
		}
		return refused
	}
	if refused := record(0, 1500); refused < 100 || len(want) < 700 {
		t.Errorf("%d entries were taken and %d refused of one megabyte", len(want), refused)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 4 {
		t.Errorf("%d files, %v", len(files), err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := j.Ready(); err != nil {
		t.Errorf("Ready = %v with room again", err)
	}
	if refused := record(2000, 2020); refused > 0 {
		t.Errorf("%d entries are refused with room again", refused)
	}
	if err := j.Stop(); err != nil {
		t.Error(err)
	}
	// Recovery writes what it salvages beside the leftover: it needs room, as ever.
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(dir); err != nil {
		t.Fatal(err)
	}
	got := readAllowingTwins(t, dir)
	for id, outcome := range want {
		if got[id] != outcome {
			t.Errorf("%s is %q, want %s", id, got[id], outcome)
		}
	}
}

// What the file of a segment costs a call in processor time, the kernel's too: two entries,
// and its part of a sync of ten calls. The caches are cold, as they are in a gateway that
// does more than this.
func BenchmarkFile(b *testing.B) {
	for _, plain := range []bool{true, false} {
		b.Run(map[bool]string{true: "plain", false: "mapped"}[plain], func(b *testing.B) {
			f, err := createFile(filepath.Join(b.TempDir(), "segment"), 1<<40)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			f.(*mappedFile).plain = plain
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			now := func() time.Duration {
				var t unix.Timespec
				if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
					b.Fatal(err)
				}
				return time.Duration(t.Nano())
			}
			entry, caches := bytes.Repeat([]byte("x"), 850), make([]byte, 4<<20)
			var writes, syncs time.Duration
			for b.Loop() {
				for range 20 {
					for i := 0; i < len(caches); i += 64 {
						caches[i]++
					}
					from := now()
					if _, err := f.Write(entry); err != nil {
						b.Fatal(err)
					}
					writes += now() - from
				}
				from := now()
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				syncs += now() - from
			}
			b.ReportMetric(float64(writes)/float64(10*b.N), "write-ns/call")
			b.ReportMetric(float64(syncs)/float64(10*b.N), "sync-ns/call")
		})
	}
}
