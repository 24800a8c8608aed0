//go:build unix

package upstream

import (
	"net"
	"syscall"
)

// canCheck is set where a connection that was kept can be looked at before it is used.
const canCheck = true

type rawConn = syscall.RawConn

func rawOf(c net.Conn) rawConn {
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// alive reports whether the other side has neither closed the connection nor said
// something that nobody asked for. One that cannot be looked at counts as dead.
func (cn *conn) alive() bool {
	if cn.raw == nil {
		return false
	}
	quiet := false
	err := cn.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN
		return true
	})
	return err == nil && quiet && cn.drained()
}
