package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
)

// Recover seals what a dead process left in a journal, closing its open calls as
// interrupted, and says how many segments that were. Where a live process holds the
// journal it does nothing: that process seals its own segments.
func Recover(dir string) (segments int, err error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	unlock, err := lock(dir)
	if errors.Is(err, ErrHeld) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("recover journal: %w", err)
	}
	defer unlock()
	return recoverDir(dir)
}

// recoverDir is Recover with the lock held. A leftover that is not the last segment
// was given up after a failed write, and its open calls were carried into the one
// after it: only a call that no later segment knows is interrupted.
func recoverDir(dir string) (int, error) {
	live, err := list(dir, liveSuffix)
	if err != nil || len(live) == 0 {
		return 0, err
	}
	sealed, err := list(dir, suffix)
	if err != nil {
		return 0, err
	}
	for i, name := range live {
		path := filepath.Join(dir, name)
		body, open, _, err := salvage(path)
		if err != nil {
			return i, fmt.Errorf("recover journal: %w", err)
		}
		for _, other := range slices.Concat(live[i+1:], sealed) {
			if len(open) == 0 || strings.TrimSuffix(other, suffix) <= strings.TrimSuffix(name, liveSuffix) {
				continue
			}
			_, _, seen, err := salvage(filepath.Join(dir, other))
			if err != nil {
				return i, fmt.Errorf("recover journal: %w", err)
			}
			maps.DeleteFunc(open, func(id string, _ []byte) bool { return seen[id] })
		}
		if err := reseal(path, body, open); err != nil {
			return i, fmt.Errorf("recover journal: %w", err)
		}
	}
	return len(live), nil
}

// salvage reads the whole records of a segment: their bytes, the calls that are
// opened and not closed in it, and every call it names. A torn end is what a killed process leaves,
// and is dropped: nobody was told that it had been recorded.
func salvage(path string) (body []byte, open map[string][]byte, seen map[string]bool, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, nil, err
	}
	open, seen = make(map[string][]byte), make(map[string]bool)
	r, err := NewReader(bytes.NewReader(raw))
	if errors.Is(err, ErrTorn) {
		return nil, open, seen, nil // killed before the header was whole
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	for {
		payload, isFooter, err := r.record()
		if isFooter || errors.Is(err, io.EOF) || errors.Is(err, ErrTorn) || errors.Is(err, ErrDamaged) {
			break
		}
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		var e waybill.Entry
		if json.Unmarshal(payload, &e) != nil {
			continue // ingest will quarantine it
		}
		seen[e.Invocation.CallID] = true
		if e.Kind == waybill.Opened {
			open[e.Invocation.CallID] = bytes.Clone(payload)
		} else {
			delete(open, e.Invocation.CallID)
		}
	}
	return raw[:r.offset], open, seen, nil
}

// reseal writes the salvaged records, the interrupted calls and a footer to a new
// file, and puts it in the place of the leftover. Killed at any point it can be done
// again: the leftover is removed last.
func reseal(path string, body []byte, open map[string][]byte) error {
	final := strings.TrimSuffix(path, liveSuffix) + suffix
	_, err := os.Stat(final)
	if err == nil || len(body) <= len(magic) {
		return os.Remove(path) // sealed by a recovery that was killed, or empty
	}
	r, err := NewReader(bytes.NewReader(body))
	if err != nil {
		return err
	}
	for {
		if _, _, err := r.record(); err != nil {
			break // its end: body holds whole records only
		}
	}
	out := bytes.Clone(body)
	err = interrupt(open, func(payload []byte) error {
		rec := appendRecord(nil, payload, 0)
		r.sum.Write(rec)
		r.count++
		out = append(out, rec...)
		return nil
	})
	if err != nil {
		return err
	}
	out = append(out, footer(r.count, r.sum)...)
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	_, _ = w.Write(out) // Flush tells
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, final); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Remove(path)
}

func rename(path string) error {
	if err := os.Rename(path, strings.TrimSuffix(path, liveSuffix)+suffix); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
