package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
)

// chunks takes the chunked coding off (RFC 9112, section 7.1) as net/http does, and needs
// no buffer while it waits for more.
type chunks struct {
	at      place
	digits  uint8
	line    int    // bytes of the line of the size
	left    uint64 // of the chunk
	excess  int64  // bytes that are no data, beyond what is fair
	trailer []byte
}

// A place is where in the coding the next byte lies.
type place uint8

const (
	atSize place = iota
	atBlank
	atExtension
	atSizeLF
	inData
	atDataCR
	atDataLF
	atEnd
	atEndLF
	inTrailer
	atNothing // all was read
)

// maxLine bounds the line of a chunk's size, and a trailer: what net/http's reader would
// hold of them here.
const maxLine = 2 << 10

var errChunks = errors.New("malformed chunked encoding")

// read takes the coding off src, until it or dst is full, and says how many bytes of data
// it has put into dst and how many of src it has read. The error is io.EOF where the
// body ends.
func (c *chunks) read(dst, src []byte, trailer *http.Header) (n, used int, err error) {
	for used < len(src) {
		if c.at == inData {
			if n == len(dst) {
				return n, used, nil
			}
			m := copy(dst[n:], src[used:used+int(min(c.left, uint64(len(src)-used)))])
			n, used = n+m, used+m
			if c.left -= uint64(m); c.left == 0 {
				c.at = atDataCR
			}
			continue
		}
		if err := c.next(src[used], trailer); err != nil {
			return n, used + 1, err
		}
		used++
	}
	return n, used, nil
}

// next reads one byte that is no data.
func (c *chunks) next(b byte, trailer *http.Header) error {
	switch c.at {
	case atSize, atBlank, atExtension, atSizeLF:
		return c.size(b)
	case atDataCR:
		if b != '\r' {
			return errChunks
		}
		c.at = atDataLF
	case atDataLF:
		if b != '\n' {
			return errChunks
		}
		c.at, c.left, c.digits, c.line = atSize, 0, 0, 0
	case atEnd:
		if b == '\r' {
			c.at = atEndLF
			return nil
		}
		c.at, c.trailer = inTrailer, append(c.trailer, b)
	case atEndLF:
		if b == '\n' {
			c.at = atNothing
			return io.EOF
		}
		c.at, c.trailer = inTrailer, append(c.trailer, '\r', b)
	case inTrailer:
		if c.trailer = append(c.trailer, b); bytes.HasSuffix(c.trailer, []byte("\r\n\r\n")) {
			c.at = atNothing
			return c.readTrailer(trailer)
		}
		if len(c.trailer) >= maxLine {
			return errors.New("suspiciously long trailer after a chunked body")
		}
	default:
		return io.EOF
	}
	return nil
}

// size reads one byte of the line that a chunk begins with.
func (c *chunks) size(b byte) error {
	if c.line++; c.line > maxLine {
		return errors.New("the line of a chunk's size is too long")
	}
	switch {
	case c.at == atSizeLF:
		if b != '\n' {
			return errChunks
		}
		return c.begin()
	case b == '\n':
		return errChunks
	case b == '\r':
		if c.digits == 0 {
			return errChunks
		}
		c.at = atSizeLF
	case c.at == atExtension: // nobody reads them
	case b == ' ' || b == '\t':
		c.at = atBlank
	case c.at == atBlank:
		return errChunks
	case b == ';':
		c.at = atExtension
	default:
		d, ok := hexDigit(b)
		if !ok || c.digits == 16 {
			return errChunks
		}
		c.left, c.digits = c.left<<4|d, c.digits+1
	}
	return nil
}

func hexDigit(b byte) (uint64, bool) {
	switch {
	case '0' <= b && b <= '9':
		return uint64(b - '0'), true
	case 'a' <= b && b <= 'f':
		return uint64(b-'a') + 10, true
	case 'A' <= b && b <= 'F':
		return uint64(b-'A') + 10, true
	}
	return 0, false
}

// begin begins a chunk, or ends the last one. Chunks of a byte each are a stream, and
// extensions are allowed; far more of all this than of data is an attack, for net/http
// and so for us.
func (c *chunks) begin() error {
	c.excess += int64(c.line) - (16 + 2*int64(c.left))
	c.excess = max(c.excess, 0)
	switch {
	case c.left == 0:
		c.at = atEnd
	case c.excess > 16<<10:
		return errors.New("chunked encoding contains too much that is no data")
	default:
		c.at = inData
	}
	return nil
}

// readTrailer reads the headers that follow the last chunk. It is net/http's, but for a
// trailer that ends before its last byte: nothing is known of what follows.
func (c *chunks) readTrailer(trailer *http.Header) error {
	in := bufio.NewReader(bytes.NewReader(c.trailer))
	h, err := textproto.NewReader(in).ReadMIMEHeader()
	if err != nil {
		return errors.New("trailer of a chunked body: " + err.Error()) // not to be taken for its end
	}
	c.trailer = nil
	*trailer = http.Header(h)
	if in.Buffered() > 0 {
		return errRest
	}
	return io.EOF
}

// errRest is io.EOF where more has come than the answer, so that the connection cannot
// be used again.
var errRest = errors.New("more than the answer")
