//go:build !linux

package downstream

import (
	"net"
	"syscall"
)

// rawOf is nil: nothing tells here whether a caller has left but to read, so that net/http
// serves all.
func rawOf(net.Conn) syscall.RawConn { return nil }

func (*conn) receiver() func(fd uintptr) bool { return nil }

func hungUp(syscall.RawConn) bool { return false }

func arrived(syscall.RawConn) bool { return false }
