//go:build !linux

package journal

func datasync(f file) error { return f.Sync() }
