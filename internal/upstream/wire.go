package upstream

import (
	"errors"
	"io"
	"net"
	"sync"
)

// A block is what is received into at once: a head and a short answer with it, or a few
// events. While a connection has nothing to give, it holds none.
type block [4 << 10]byte

var blocks = sync.Pool{New: func() any { return new(block) }}

// A wire is a connection's socket. Where it is waited for it holds no buffer, and the
// goroutine that waits has no more of its stack in use than it must: TLS, of which the
// opposite is true, reads only what is there already.
type wire struct {
	net.Conn
	raw     rawConn
	receive func(fd uintptr) bool // into a block, if there is something
	look    func(fd uintptr) bool // whether there is something
	block   *block
	got     []byte // of the block, and not read
	failed  error  // of receive, or look
	broken  error  // of wait: it is told from then on, where the kernel tells it once
	full    bool   // the last time more came than was asked for, or as much
	patient bool   // Read waits
}

// nothing is that a wire has received nothing. It is of the kind of error that TLS may be
// asked again after.
type nothing struct{}

func (nothing) Error() string   { return "nothing was received" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

var errNothing net.Error = nothing{}

// Read reads what was received. For more it waits only where a whole block was, or where
// the wire is patient.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.got) > 0 {
		n := copy(p, w.got)
		w.used(n)
		return n, nil
	}
	if w.broken != nil {
		return 0, w.broken
	}
	if !w.patient && !w.full {
		return 0, errNothing
	}
	n, err := w.Conn.Read(p)
	w.full = err == nil && n == len(p)
	return n, err
}

// used says that n bytes more of what was received were read.
func (w *wire) used(n int) {
	if w.got = w.got[n:]; len(w.got) == 0 {
		blocks.Put(w.block)
		w.block, w.got = nil, nil
	}
}

// wait waits until something is received, or the wire is broken.
func (w *wire) wait() {
	if w.raw == nil {
		w.read()
		return
	}
	w.failed = nil
	if err := w.raw.Read(w.receive); err != nil || w.failed != nil {
		w.broken = w.failure(err)
	}
}

// failure is how a Read would have failed.
func (w *wire) failure(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		e.Op = "read" // "raw-read" says nothing to whoever reads the log
	}
	switch {
	case err != nil:
		return err
	case errors.Is(w.failed, io.EOF):
		return w.failed
	}
	return &net.OpError{Op: "read", Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: w.failed}
}

// read is wait for a socket that cannot be asked whether it has something.
func (w *wire) read() {
	b := blocks.Get().(*block)
	n, err := w.Conn.Read(b[:])
	if n == 0 {
		blocks.Put(b)
		w.broken = err
		return
	}
	w.block, w.got, w.full = b, b[:n], n == len(b) // an error is told again
}
