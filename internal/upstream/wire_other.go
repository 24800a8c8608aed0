//go:build !unix

package upstream

import "net"

// canCheck is set where a connection that was kept can be looked at before it is used.
// Without that a call might be sent to one that is closed already, and fail.
const canCheck = false

type rawConn interface {
	Read(func(fd uintptr) bool) error
}

func rawOf(net.Conn) rawConn { return nil }

func (*wire) receiver() func(fd uintptr) bool { return nil }

func (*wire) looker() func(fd uintptr) bool { return nil }

func (*wire) quiet() bool { return false }
