package identity

import (
	"os"
	"sync/atomic"
	"time"
)

// recheck is how often a watched file is looked at: the time after which a revocation
// is known. A look is one stat call, made by whichever request comes first.
const recheck = time.Second

// A watch says when a file should be read again.
type watch struct {
	path    string
	now     func() time.Time
	checked atomic.Int64
}

// due reports whether it is time to look. Of many callers one is told so.
func (w *watch) due() bool {
	now := w.now().UnixNano()
	last := w.checked.Load()
	return now-last > int64(recheck) && w.checked.CompareAndSwap(last, now)
}

// A stamp tells one state of a file from another. It must be taken before the file is
// read: a change in between is then seen the next time, not never.
type stamp struct {
	info    os.FileInfo // nil for a file that is not there
	settled bool
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{settled: true}
	}
	// A file that was written just now may be written again within the grain of the
	// clock that stamps it, at the same size.
	age := time.Since(info.ModTime())
	return stamp{info, age > 2*time.Second}
}

// changed reports whether the file is another than when the stamp was taken, or may be.
func (s stamp) changed(path string) bool {
	t := stampOf(path)
	if !s.settled || (s.info == nil) != (t.info == nil) {
		return true
	}
	return s.info != nil && (s.info.Size() != t.info.Size() || !s.info.ModTime().Equal(t.info.ModTime()) || !os.SameFile(s.info, t.info))
}
