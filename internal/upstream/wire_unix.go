//go:build unix

package upstream

import (
	"errors"
	"io"
	"net"
	"os"
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

// receiver is what receives into a block. It gives the block back where nothing is there.
func (w *wire) receiver() func(fd uintptr) bool {
	return func(fd uintptr) bool {
		b := blocks.Get().(*block)
		n, err := syscall.Read(int(fd), b[:])
		for err == syscall.EINTR {
			n, err = syscall.Read(int(fd), b[:])
		}
		if n > 0 {
			w.block, w.got, w.full = b, b[:n], n == len(b)
			return true
		}
		blocks.Put(b)
		switch err {
		case syscall.EAGAIN:
			return false
		case nil:
			w.failed = io.EOF
		default:
			w.failed = os.NewSyscallError("read", err)
		}
		return true
	}
}

// looker is what looks whether there is something to receive, and leaves it there.
func (w *wire) looker() func(fd uintptr) bool {
	return func(fd uintptr) bool {
		var b [1]byte
		_, _, w.failed = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	}
}

// quiet reports whether the other side has neither closed the connection nor said
// something that nobody asked for. One that cannot be looked at counts as closed.
func (w *wire) quiet() bool {
	if w.raw == nil || len(w.got) > 0 {
		return false
	}
	err := w.raw.Read(w.look)
	return err == nil && errors.Is(w.failed, syscall.EAGAIN)
}
