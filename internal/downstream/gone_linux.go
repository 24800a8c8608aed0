package downstream

import (
	"errors"
	"io"
	"net"
	"os"
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

// receiver is a function that reads what the socket has into the connection's buffer, and
// reports whether there was something, be it the end. It takes the buffer for that moment
// only, so that a connection which waits holds none.
func (c *conn) receiver() func(fd uintptr) bool {
	return func(fd uintptr) bool {
		c.room()
		b := (*c.in)[c.write:]
		for {
			n, err := syscall.Read(int(fd), b) // not that of unix, which the race detector does not see as what follows a write
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				c.release()
				return false
			case err != nil:
				c.failed = os.NewSyscallError("read", err)
			case n == 0:
				c.failed = io.EOF
			}
			c.write += max(n, 0)
			return true
		}
	}
}

// hungUp reports whether the other side has closed the connection, or its half of it, be
// there unread bytes before that or not.
func hungUp(raw syscall.RawConn) bool {
	quiet := false
	err := raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN) // neither bytes nor an end: it costs half of what poll does
	})
	return err != nil || !quiet && shows(raw, unix.POLLRDHUP)
}

// arrived reports whether there is something to read, be it the end.
func arrived(raw syscall.RawConn) bool { return shows(raw, unix.POLLIN) }

// shows reports whether a connection shows one of some events (poll(2)), or an error, which
// is told unasked.
func shows(raw syscall.RawConn, events int16) bool {
	there := false
	err := raw.Control(func(fd uintptr) {
		look := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(look[:], 0)
		there = err == nil && n > 0
	})
	return err != nil || there
}
