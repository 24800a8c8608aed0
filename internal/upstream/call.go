package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// call sends the request and reads the head of its answer.
func (cn *conn) call(r *http.Request, o *out) (*http.Response, error) {
	ctx := r.Context()
	w := &way{cn: cn, ctx: ctx, request: r}
	if ctx.Done() != nil {
		w.unwatch = context.AfterFunc(ctx, cn.cut)
	}
	cn.left = maxHead
	err := ctx.Err() // it may have ended in the dial
	if err != nil {
		err = notSent{err}
	} else {
		err = w.send(o)
	}
	if err != nil {
		w.end(false)
		return nil, cause(ctx, err)
	}
	answer, err := w.answered(r)
	if err != nil {
		w.end(false)
		return nil, cause(ctx, err)
	}
	return answer, nil
}

// answered reads the head of the answer, and makes this its body.
func (w *way) answered(r *http.Request) (*http.Response, error) {
	answer, err := w.head(r)
	if err != nil {
		return nil, err
	}
	w.cn.left = math.MaxInt64
	if answer.StatusCode == http.StatusSwitchingProtocols {
		w.end(false)
		answer.Body = http.NoBody
		return answer, nil
	}
	w.reusable = !answer.Close
	if answer.Body == nil || answer.Body == http.NoBody || answer.ContentLength == 0 {
		answer.Body = http.NoBody
		w.end(true)
		return answer, nil
	}
	if answer.Body != w {
		w.body = answer.Body
		answer.Body = w
	}
	return answer, nil
}

// A way is one call on its connection, and the body of its answer.
type way struct {
	cn       *conn
	ctx      context.Context
	request  *http.Request
	unwatch  func() bool   // nil where the context never ends
	answer   http.Response // if its head is a plain one
	left     int64         // of the body, where its length is known; else negative
	chunks   chunks        // where it is not
	body     io.Reader     // where net/http has read the head; else nil
	err      error         // of an earlier Read
	reusable bool
	sent     chan error // how sending ended, where it goes on beside or has failed; else nil
	once     sync.Once
	closed   atomic.Bool // by Close

	mu       sync.Mutex // guards below, and the deadline
	hasHead  bool
	deadline bool
}

// inline is how long a body is sent before anything is read: the kernels on the way hold
// as much.
const inline = 32 << 10

// send sends the request. A large body is sent beside: AWS may answer, and stop reading,
// before it has all. Only where nothing has left is there an error here; else AWS may have
// said something, and that is the answer.
func (w *way) send(o *out) error {
	n, err := w.cn.Write(o.head)
	if err != nil && n == 0 { // of TLS, not one record
		return notSent{fmt.Errorf("send the request: %w", err)}
	}
	if err == nil && len(o.body) > inline {
		w.sent = make(chan error, 1)
		o.hold()
		go func() {
			defer o.done()
			w.sent <- w.rest(o, nil)
		}()
		return nil
	}
	if err = w.rest(o, err); err != nil {
		w.sent = make(chan error, 1)
		w.sent <- err
	}
	return nil
}

// rest sends what has not left with the head, unless that has failed, and sets the time
// for the answer.
func (w *way) rest(o *out, err error) error {
	if err == nil && len(o.body) > 0 {
		_, err = w.cn.Write(o.body)
	}
	o.body = nil // prompts are long, and so is the wait for an answer
	closeBody(w.request)
	if err != nil { // what AWS said before it stopped reading is there by now
		w.await(time.Second)
	} else {
		w.await(w.cn.client.HeaderTimeout)
	}
	return err
}

// await sets the time within which the head must come, if it is not there already.
func (w *way) await(t time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t > 0 && !w.hasHead {
		w.deadline = true
		_ = w.cn.SetReadDeadline(time.Now().Add(t)) // it fails where the connection is closed: reading tells
	}
}

// came lifts the deadline: the head is there, and the body may take its time.
func (w *way) came() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hasHead = true; w.deadline {
		_ = w.cn.SetReadDeadline(time.Time{}) // it fails where the connection is closed: reading tells
	}
}

// maxInterim bounds the answers that announce another one.
const maxInterim = 5

func (w *way) head(r *http.Request) (*http.Response, error) {
	if err := w.cn.fill(); err != nil {
		return nil, w.noHead(err)
	}
	if n := readHead(w.cn.pending, r, &w.answer); n > 0 {
		w.cn.used(n)
		w.came()
		w.left = w.answer.ContentLength
		w.answer.Body = w
		return &w.answer, nil
	}
	w.cn.in = bufio.NewReaderSize(w.cn, 2<<10) // what is larger passes it by
	for range maxInterim + 1 {
		answer, err := http.ReadResponse(w.cn.in, r)
		if err != nil {
			return nil, w.noHead(err)
		}
		if answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			w.came()
			return answer, nil
		}
	}
	return nil, errors.New("read the answer: too many interim answers")
}

// noHead is the error of a call whose answer did not come.
func (w *way) noHead(err error) error {
	select {
	case sendErr := <-w.sent: // nil where nothing was sent beside: never
		w.sent <- sendErr
		if sendErr != nil {
			return fmt.Errorf("send the request: %w", sendErr)
		}
	default:
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read the answer: %w", err)
}

// Wait waits until something of the body has come, or nothing can come any more, which
// Read tells. Whoever reads a stream needs no buffer meanwhile.
func (w *way) Wait() {
	if w.closed.Load() || w.err != nil || w.body != nil {
		return
	}
	if err := w.cn.fill(); err != nil {
		_ = w.ends(cut(err)) // for Read
	}
}

// Read reads of the answer's body. Its end puts the connection back. A stream waits here
// for most of its time, with as little on its stack as can be.
func (w *way) Read(p []byte) (int, error) {
	if w.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.left < 0 && len(p) > 0 {
		if w.Wait(); w.err != nil {
			return 0, w.err
		}
	}
	return w.read(p)
}

func (w *way) read(p []byte) (n int, err error) {
	switch {
	case w.body != nil:
		n, err = w.body.Read(p)
	case w.left > 0:
		n, err = w.readLength(p)
	default:
		n, err = w.readChunks(p)
	}
	if err != nil {
		err = w.ends(err)
	}
	return n, err
}

// ends ends the call where its body ends, or breaks, and is the error that Read gives from
// then on.
func (w *way) ends(err error) error {
	switch {
	case errors.Is(err, errRest):
		w.reusable = false
		w.end(true)
		err = io.EOF
	case err == io.EOF: //nolint:errorlint // what wraps it is no end
		w.end(true)
	default:
		w.end(false)
		err = cause(w.ctx, err)
	}
	w.err = err
	return err
}

// readLength reads of a body of known length, with io.EOF behind its last byte.
func (w *way) readLength(p []byte) (int, error) {
	n, err := w.cn.Read(p[:min(int64(len(p)), w.left)])
	if w.left -= int64(n); w.left == 0 {
		return n, io.EOF
	}
	return n, cut(err)
}

// readChunks reads of a body in chunks, of which something is pending.
func (w *way) readChunks(p []byte) (n int, err error) {
	for len(p) > 0 && n == 0 && err == nil {
		if err := w.cn.fill(); err != nil { // there was no data in what was pending
			return 0, cut(err)
		}
		var used int
		n, used, err = w.chunks.read(p, w.cn.pending, &w.answer.Trailer)
		w.cn.used(used)
	}
	return n, err
}

// cut is the error of a body that ends before its end.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close ends the call. A body that was not read to its end takes the connection with it.
func (w *way) Close() error {
	w.closed.Store(true)
	w.end(false)
	return nil
}

// end gives the connection up, or puts it back where nothing of this call can still be
// on it.
func (w *way) end(whole bool) {
	w.once.Do(func() {
		if w.unwatch != nil {
			whole = w.unwatch() && whole
		}
		whole = whole && w.reusable && w.cn.between()
		if w.sent != nil {
			whole = w.wasSent(whole) && whole
		}
		if whole {
			w.cn.client.keep(w.cn)
		} else {
			w.cn.Close()
		}
	})
}

// wasSent reports whether the whole request has left. After it nobody reads the
// request's body. The answer may be here before the one who sends has said so.
func (w *way) wasSent(wait bool) bool {
	if wait {
		patience := time.NewTimer(50 * time.Millisecond)
		defer patience.Stop()
		select {
		case err := <-w.sent:
			return err == nil
		case <-patience.C: // AWS did not need all of it
		}
	}
	w.cn.Close()
	<-w.sent //nolint:errcheck // whatever it says, the connection is closed
	return false
}
