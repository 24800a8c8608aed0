package downstream

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawOf is what a connection can be looked at by; nil where it cannot.
func rawOf(c net.Conn) syscall.RawConn {
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// hungUp reports whether the other side has closed the connection, or its half of it, be
// there unread bytes before that or not (poll(2), POLLRDHUP).
func hungUp(raw syscall.RawConn) bool {
	gone := false
	err := raw.Control(func(fd uintptr) {
		look := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(look[:], 0)
		gone = err == nil && n > 0 // errors are told unasked
	})
	return err != nil || gone
}
