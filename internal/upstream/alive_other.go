//go:build !unix

package upstream

import "net"

// canCheck is set where a connection that was kept can be looked at before it is used.
// Without that a call might be sent to one that is closed already, and fail.
const canCheck = false

type rawConn = struct{}

func rawOf(net.Conn) rawConn { return rawConn{} }

func (*conn) alive() bool { return false }
