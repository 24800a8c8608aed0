//go:build !linux

package journal

import "os"

// A plainFile is written with write(2).
type plainFile struct{ *os.File }

// createFile makes the file of a segment.
func createFile(path string, _ int64) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return plainFile{f}, nil
}

// Trim has nothing to do: nothing is allocated ahead.
func (plainFile) Trim() error { return nil }
