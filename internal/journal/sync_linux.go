package journal

import (
	"os"
	"syscall"
)

// datasync brings a file's content and length to the disk, not its other metadata.
// The file may be closed meanwhile by another goroutine: then it fails.
func datasync(f file) error {
	o, ok := f.(*os.File)
	if !ok {
		return f.Sync()
	}
	conn, err := o.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	if err := conn.Control(func(fd uintptr) { syncErr = syscall.Fdatasync(int(fd)) }); err != nil {
		return err
	}
	return syncErr
}
