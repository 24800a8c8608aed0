package upstream

import (
	"bufio"
	"errors"
	"net"
	"time"
)

// A conn is one connection. One goroutine at a time makes a call over it; to close it
// any may.
type conn struct {
	net.Conn // the wire, or TLS over it
	wire     wire
	client   *Client
	to       address
	secure   bool          // Conn is TLS
	in       *bufio.Reader // of a call whose head net/http reads; else nil
	since    time.Time     // when it was put back
	block    *block
	pending  []byte // of the block: received, and not read
	left     int64  // bytes that may still be read
	end      error  // what came with the last bytes
	cut      func() // closes it
}

// maxHead bounds the head of an answer, as net/http does.
const maxHead = 1 << 20

var errHead = errors.New("the head of the answer is longer than a megabyte")

// Read reads what the answer's head may have, and then as much as there is.
func (cn *conn) Read(p []byte) (int, error) {
	if cn.left <= 0 {
		return 0, errHead
	}
	if int64(len(p)) > cn.left {
		p = p[:cn.left]
	}
	n := len(cn.pending)
	if n > 0 {
		n = copy(p, cn.pending)
		cn.used(n)
	} else {
		var err error
		if n, err = cn.receive(p); n == 0 {
			return 0, err
		}
	}
	cn.left -= int64(n)
	return n, nil
}

// receive reads past what is pending. What it waits in is not TLS.
func (cn *conn) receive(p []byte) (int, error) {
	if cn.end != nil {
		return 0, cn.end
	}
	if !cn.secure {
		return cn.wire.Conn.Read(p)
	}
	for {
		n, err := cn.Conn.Read(p)
		if n > 0 {
			cn.ends(err)
			return n, nil
		}
		if !errors.Is(err, errNothing) {
			return 0, err
		}
		if cn.wire.broken != nil {
			return 0, cn.wire.broken
		}
		cn.wire.wait()
	}
}

// fill waits until something is pending, and holds no block meanwhile.
func (cn *conn) fill() error {
	for len(cn.pending) == 0 {
		if cn.end != nil {
			return cn.end
		}
		if cn.secure {
			if more, err := cn.decrypt(); more || err != nil {
				return err
			}
		}
		if cn.wire.broken != nil { // TLS has heard of it first: in a record nothing ends
			return cn.wire.broken
		}
		if cn.wire.wait(); !cn.secure {
			cn.block, cn.pending = cn.wire.block, cn.wire.got
			cn.wire.block, cn.wire.got = nil, nil
		}
	}
	return nil
}

// decrypt makes pending what TLS has of bytes, or can make of what was received.
func (cn *conn) decrypt() (more bool, err error) {
	b := blocks.Get().(*block)
	n, err := cn.Conn.Read(b[:])
	if n > 0 {
		cn.block, cn.pending = b, b[:n]
		cn.ends(err)
		return true, nil
	}
	blocks.Put(b)
	if errors.Is(err, errNothing) {
		err = nil
	}
	return false, err
}

// ends keeps what came with bytes, for when they are read.
func (cn *conn) ends(err error) {
	if !errors.Is(err, errNothing) {
		cn.end = err
	}
}

// used says that n bytes more of what is pending were read. A block that is left in the
// middle of an answer is the garbage collector's: the one who reads may still do so.
func (cn *conn) used(n int) {
	if cn.pending = cn.pending[n:]; len(cn.pending) == 0 {
		blocks.Put(cn.block)
		cn.block, cn.pending = nil, nil
	}
}

// between reports whether all that came was read, and makes ready for the next call.
func (cn *conn) between() bool {
	whole := len(cn.pending) == 0 && (cn.in == nil || cn.in.Buffered() == 0) && cn.end == nil
	cn.in = nil
	return whole
}

// quiet reports whether the other side has neither closed the connection nor said
// something that nobody asked for. In the record that ended an answer there may be more,
// which would be taken for the next one.
func (cn *conn) quiet() bool {
	if !cn.wire.quiet() || cn.end != nil {
		return false
	}
	if !cn.secure {
		return true
	}
	cn.wire.full = false // so that it does not wait
	var b [1]byte
	n, err := cn.Conn.Read(b[:])
	return n == 0 && errors.Is(err, errNothing)
}
