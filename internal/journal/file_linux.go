package journal

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

const (
	// pieceBytes is how far ahead a segment is allocated and mapped. Its first sync writes
	// all of it, so it is no larger than what a disk takes in a moment.
	pieceBytes = 256 << 10
	// zeroBytes is how much of a piece is written at once. The page cache may keep it as one
	// folio, which is written whole each time that a byte of it has changed.
	zeroBytes = 16 << 10
)

// A mappedFile is a segment whose end is mapped into memory: to write is to copy into the
// page cache, from where a killed process takes nothing back. What is mapped has been
// allocated, so that a full disk is told by fallocate and not by a fault. Where the kernel
// allocates or maps nothing it is written with write(2), which also tells what is wrong if
// something is. Only Sync may be called while something else is.
type mappedFile struct {
	f    *os.File
	most int64 // allocated ahead at most, unless more is written

	size   int64  // written
	length int64  // of the file at most: what is over size is zeros
	window []byte // the mapped part of the file, from offset start
	start  int64
	plain  bool // it is written with write(2) from here on

	allocate func(fd int, from, n int64) error               // tests refuse
	mmap     func(fd int, from int64, n int) ([]byte, error) // tests refuse
}

// createFile makes the file of a segment that is to hold so many bytes.
func createFile(path string, most int64) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &mappedFile{
		f: f, most: most,
		allocate: func(fd int, from, n int64) error { return unix.Fallocate(fd, 0, from, n) },
		mmap: func(fd int, from int64, n int) ([]byte, error) {
			return unix.Mmap(fd, from, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		},
	}, nil
}

// Write appends a record, or the magic.
func (m *mappedFile) Write(b []byte) (int, error) {
	if !m.plain && m.size+int64(len(b)) > m.start+int64(len(m.window)) {
		m.advance(int64(len(b)))
	}
	if m.window == nil {
		n, err := m.f.WriteAt(b, m.size)
		if err == nil {
			m.size += int64(n)
		}
		return n, err
	}
	if err := m.copy(b); err != nil {
		return 0, err
	}
	m.size += int64(len(b))
	return len(b), nil
}

// copy puts the payload where it belongs, and then the head: killed between the two, the
// process leaves no head. The kernel raises SIGBUS where it cannot give a page to write to:
// the disk fails, or the file system finds no room for a block that it writes anew.
func (m *mappedFile) copy(b []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a runtime.Error that is a fault: nothing but the window is touched here
			err = fmt.Errorf("write %s: the page at byte %d cannot be written (SIGBUS)", m.f.Name(), m.size)
		default:
			panic(fault)
		}
	}()
	to := m.window[m.size-m.start:]
	head := min(recordHead, len(b))
	copy(to[head:], b[head:])
	copy(to, b[:head])
	return nil
}

// advance moves the window on, to where the next n bytes go. Without one the file is
// written plainly.
func (m *mappedFile) advance(n int64) {
	m.unmap()
	m.plain = true
	start := m.size &^ int64(os.Getpagesize()-1)
	end := start + pieceBytes
	if m.size+n <= m.most {
		end = min(end, m.most)
	}
	end = max(end, m.size+n)
	if end > m.length {
		from := m.length
		m.length = end
		err := m.control(func(fd int) error { return m.allocate(fd, from, end-from) })
		if err == nil {
			err = m.zero(from, end)
		}
		if err != nil { // it may have taken what was left of the disk
			if m.f.Truncate(m.size) == nil {
				m.length = m.size
			}
			return
		}
	}
	err := m.control(func(fd int) (err error) {
		m.window, err = m.mmap(fd, start, int(end-start))
		return err
	})
	if err != nil {
		m.window = nil
		return
	}
	m.start, m.plain = start, false
}

// zero writes what was allocated. The pages are in the cache then when they are stored to, and
// with the next sync their blocks are in use: later ones have no metadata to write.
func (m *mappedFile) zero(from, end int64) error {
	zeros := make([]byte, zeroBytes)
	for at := from; at < end; at += zeroBytes {
		if _, err := m.f.WriteAt(zeros[:min(zeroBytes, end-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// unmap lets go of the window. The pages stay in the cache, dirty if they were.
func (m *mappedFile) unmap() {
	if m.window != nil {
		_ = unix.Munmap(m.window) // it fails for what is no mapping only
		m.window, m.start = nil, 0
	}
}

// Trim cuts the file where its records end.
func (m *mappedFile) Trim() error {
	m.unmap()
	m.plain = true
	if m.length <= m.size {
		return nil
	}
	m.length = m.size
	return m.f.Truncate(m.size)
}

// Sync is fdatasync. It writes what was stored through the mapping too: the kernel marks a
// page as modified when it is first stored to, and msync(MS_SYNC) is this same call, on a
// range (fsync(2): "all modified in-core data"; msync(2); mm/msync.c: vfs_fsync_range with
// datasync set). The file may be closed meanwhile: then it fails.
func (m *mappedFile) Sync() error { return m.control(unix.Fdatasync) }

// Close gives back what was allocated ahead, and the descriptor.
func (m *mappedFile) Close() error {
	err := m.Trim()
	return errors.Join(err, m.f.Close())
}

func (m *mappedFile) control(do func(fd int) error) error {
	conn, err := m.f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for {
			if failed = do(int(fd)); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}
