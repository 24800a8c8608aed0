package identity

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// AuditFileConfig configures an AuditFile. The zero value works.
type AuditFileConfig struct {
	// MaxBytes is the size at which a file is put aside and a new one begun. 64 MiB if
	// zero.
	MaxBytes int64
	// Keep is how many files are kept besides the current one; the oldest goes. 20 if
	// zero.
	Keep int
}

// An AuditFile keeps attempts as one JSON object a line, in a file that only its owner
// reads: path, with path.1, path.2, ... behind it, the highest the oldest. It is a file
// of its own and not a log: a log may be lost, cut or sampled, and an auditor asks for
// this one.
type AuditFile struct {
	path string
	max  int64
	keep int

	mu     sync.Mutex // guards what follows
	f      *os.File
	size   int64
	err    error // why the last record is not kept
	failed int
}

// OpenAuditFile opens the file at path, or makes it. A line that a crash left half
// written is ended.
func OpenAuditFile(path string, c AuditFileConfig) (*AuditFile, error) {
	a := &AuditFile{path: path, max: cmp.Or(c.MaxBytes, 64<<20), keep: cmp.Or(c.Keep, 20)}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open audit file: %w", err)
	}
	if err := a.open(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *AuditFile) open() error {
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open audit file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open audit file: %w", err)
	}
	a.f, a.size = f, info.Size()
	last := []byte{'\n'}
	if a.size > 0 {
		if _, err := f.ReadAt(last, a.size-1); err != nil {
			f.Close()
			return fmt.Errorf("open audit file: %w", err)
		}
	}
	if last[0] != '\n' {
		n, err := f.Write([]byte{'\n'})
		a.size += int64(n)
		if err != nil {
			f.Close()
			return fmt.Errorf("open audit file: %w", err)
		}
	}
	return nil
}

// Record keeps an attempt. It does not wait for the disk. It is what ChainConfig.Record
// wants; a failure shows in Err, and callers are still served.
func (a *AuditFile) Record(at Attempt) {
	line, err := json.Marshal(at)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		err = a.append(append(line, '\n'))
	}
	if a.err = err; err != nil {
		a.failed++
	}
}

func (a *AuditFile) append(line []byte) error {
	if a.f == nil { // closed, or it could not be opened after turning
		if err := a.open(); err != nil {
			return err
		}
	}
	if a.size > 0 && a.size+int64(len(line)) > a.max {
		if err := a.turn(); err != nil {
			return err
		}
	}
	n, err := a.f.Write(line)
	a.size += int64(n)
	if err != nil {
		// The next record begins on a line of its own, and opening sees to that.
		a.f.Close()
		a.f = nil
		return fmt.Errorf("write audit record: %w", err)
	}
	return nil
}

// turn puts the full file aside.
func (a *AuditFile) turn() error {
	err := errors.Join(a.f.Sync(), a.f.Close())
	a.f = nil
	if err != nil {
		return fmt.Errorf("put audit file aside: %w", err)
	}
	for i := a.keep; i > 0; i-- {
		from := a.path
		if i > 1 {
			from = a.path + "." + strconv.Itoa(i-1)
		}
		if err := os.Rename(from, a.path+"."+strconv.Itoa(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put audit file aside: %w", err)
		}
	}
	return a.open()
}

// Err says why the last record could not be kept, and how many were lost: for
// readiness.
func (a *AuditFile) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		return nil
	}
	return fmt.Errorf("%d audit records are lost: %w", a.failed, a.err)
}

// Close waits for the disk and closes the file.
func (a *AuditFile) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.f == nil {
		return nil
	}
	err := errors.Join(a.f.Sync(), a.f.Close())
	a.f = nil
	if err != nil {
		return fmt.Errorf("close audit file: %w", err)
	}
	return nil
}
