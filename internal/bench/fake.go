//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A plan is what the stand-in does with calls, and what the generator sends, while one
// point is measured.
type plan struct {
	request numbered
	answer  numbered      // of unary calls
	stream  *streamAnswer // not nil for streams
	delay   time.Duration // before the first byte of an answer
	pace    time.Duration // between the events of a stream
	hold    chan struct{} // not nil: streams wait for its close before their last two events
}

func (p *plan) path() string {
	if p.stream != nil {
		return "/model/" + modelID + "/converse-stream"
	}
	return "/model/" + modelID + "/converse"
}

// A fake is Bedrock to one contestant. It is fast and knows no more than the calls of
// the generator; what it is sent by the signing contestants it shows, now and then, to
// the strict stand-in.
type fake struct {
	listener net.Listener
	plan     atomic.Pointer[plan]
	served   atomic.Int64
	strict   http.Handler // nil where nothing is signed
	sampled  atomic.Int64
	pacer    *pacer

	mu    sync.Mutex // guards wrong
	wrong error      // the first thing that was not as it should be
}

func newFake(p *pacer, strict http.Handler) (*fake, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the contestant: %w", err)
	}
	f := &fake{listener: l, strict: strict, pacer: p}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go f.serve(c)
		}
	}()
	return f, nil
}

func (f *fake) address() string { return f.listener.Addr().String() }

func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wrong == nil {
		f.wrong = err
	}
}

func (f *fake) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wrong
}

// sampleEvery is how many calls pass for each one that is verified strictly.
const sampleEvery = 500

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 4<<10)
	var head, body, out []byte
	written := make(chan struct{}, 1)
	for {
		var length int
		var err error
		if head, length, err = readRequestHead(in, head[:0]); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !isReset(err) {
				f.fail(fmt.Errorf("what arrives at Bedrock: %w", err))
			}
			return
		}
		body = grow(body, length)
		if _, err := io.ReadFull(in, body); err != nil {
			f.fail(fmt.Errorf("a request's body that arrives at Bedrock: %w", err))
			return
		}
		p := f.plan.Load()
		n, err := p.check(body)
		if err != nil {
			f.fail(err)
			return
		}
		if f.served.Add(1)%sampleEvery == 1 && f.strict != nil {
			f.verify(head, body)
		}
		out = p.begin(out[:0], n)
		if p.delay > 0 {
			if p.stream == nil {
				f.pacer.later(time.Now().Add(p.delay), c, bytes.Clone(out), nil)
				continue
			}
			f.pacer.later(time.Now().Add(p.delay), c, bytes.Clone(out), written)
			<-written
		} else if _, err := c.Write(out); err != nil {
			return // the contestant is being stopped, or the generator will tell
		}
		if p.stream != nil && p.rest(c, out[:0]) != nil {
			return
		}
	}
}

// readRequestHead reads to the empty line and gives the length of the body.
func readRequestHead(in *bufio.Reader, head []byte) ([]byte, int, error) {
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return head, 0, err
		}
		head = append(head, line...)
		if len(line) <= 2 {
			break
		}
		if value, ok := field(line, "content-length"); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return head, 0, fmt.Errorf("a request's length: %w", err)
			}
		}
	}
	if length < 0 {
		return head, 0, fmt.Errorf("a request without a length: %q", head)
	}
	return head, length, nil
}

// field is the value of a header line with that name, which is in lower case.
func field(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' {
		return nil, false
	}
	for i := range len(name) {
		if line[i]|0x20 != name[i] && line[i] != name[i] {
			return nil, false
		}
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

var stamped = []byte(`"requestMetadata":{`)

// check holds a body against the one that was sent: the same, or with the stamped member
// put first.
func (p *plan) check(body []byte) (number int64, err error) {
	t := p.request
	extra := len(body) - len(t.text)
	if extra < 0 || body[0] != '{' {
		return 0, fmt.Errorf("a body of %d bytes arrived at Bedrock, of %d that were sent", len(body), len(t.text))
	}
	at := t.at + extra
	n, ok := readNumber(body[at:])
	if !ok || !bytes.Equal(body[1+extra:at], t.text[1:t.at]) || !bytes.Equal(body[at+digits:], t.text[t.at+digits:]) {
		return 0, errors.New("a body arrived at Bedrock that is not the one that was sent")
	}
	if added := body[1 : 1+extra]; extra > 0 && (!bytes.HasPrefix(added, stamped) || !bytes.HasSuffix(added, []byte("},"))) {
		return 0, fmt.Errorf("a body arrived at Bedrock with something other than a stamp in it: %.100q", added)
	}
	return n, nil
}

// begin appends what is sent at once of the answer to a call.
func (p *plan) begin(b []byte, n int64) []byte {
	b = append(b, "HTTP/1.1 200 OK\r\nDate: "...)
	b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
	b = append(b, "\r\nx-amzn-RequestId: "+requestID...)
	from := len(b)
	b = append(b, noNumber...)
	putNumber(b[from:], n)
	if p.stream != nil {
		b = append(b, "\r\nContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"...)
		b = strconv.AppendInt(b, int64(len(p.stream.frames[0])), 16)
		b = append(b, "\r\n"...)
		return append(p.stream.first(b, n), "\r\n"...)
	}
	b = append(b, "\r\nContent-Type: application/json\r\nConnection: keep-alive\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(p.answer.text)), 10)
	b = append(b, "\r\n\r\n"...)
	from = len(b)
	b = append(b, p.answer.text...)
	putNumber(b[from+p.answer.at:], n)
	return b
}

// rest sends the events after the first one, each as a chunk of its own.
func (p *plan) rest(c net.Conn, b []byte) error {
	for i, frame := range p.stream.frames[1:] {
		if p.hold != nil && i == len(p.stream.frames)-3 {
			<-p.hold
		} else if p.pace > 0 {
			time.Sleep(p.pace)
		}
		b = strconv.AppendInt(b[:0], int64(len(frame)), 16)
		b = append(append(append(b, "\r\n"...), frame...), "\r\n"...)
		if i == len(p.stream.frames)-2 {
			b = append(b, "0\r\n\r\n"...)
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// verify shows a request as it arrived to the strict stand-in for AWS: its signature, its
// stamp, its body.
func (f *fake) verify(head, body []byte) {
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), bytes.NewReader(body))))
	if err != nil {
		f.fail(fmt.Errorf("a request that arrives at Bedrock: %w", err))
		return
	}
	answer := httptest.NewRecorder()
	f.strict.ServeHTTP(answer, r)
	f.sampled.Add(1)
	if answer.Code != http.StatusOK {
		f.fail(fmt.Errorf("AWS would have answered %d: %.300s", answer.Code, answer.Body))
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
