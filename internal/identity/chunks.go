package identity

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/waybill-dev/waybill"
)

// minChunk is S3's rule for signed chunks, which we keep: all but the last have at
// least 8 KiB. Without it a body of chunks of one byte would cost a signature a byte.
const minChunk = 8 << 10

// maxChunkLine bounds the line before a chunk: size, signature, line end.
const maxChunkLine = 128

// openChunks puts a reader in the place of a body in signed chunks (aws-chunked), which
// checks each chunk and takes the framing off.
func (v *SigV4) openChunks(r *http.Request, s *signature, derived []byte, refuse func() error) error {
	told := r.Header.Get("X-Amz-Decoded-Content-Length") // signed, as all x-amz headers are
	size, ok := number(told, 1<<40)
	if !ok {
		return refuse()
	}
	if size > v.config.MaxBody {
		return &waybill.Error{Kind: waybill.TooLarge, Code: "WB1205", Message: "the request body is larger than Bedrock takes", Hint: "send at most 25,000,000 bytes"}
	}
	c := &chunks{body: r.Body, in: bufio.NewReader(r.Body), key: derived, left: size, refuse: refuse,
		head: algorithm + "-PAYLOAD\n" + s.date + "\n" + s.scope.String() + "\n", previous: hex.EncodeToString(s.sum[:])}
	if size == 0 {
		if err := c.last(); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = c, size
	if r.Header["Content-Length"] != nil {
		r.Header.Set("Content-Length", told)
	}
	r.Header.Del("X-Amz-Decoded-Content-Length")
	switch encoding, rest, _ := strings.Cut(r.Header.Get("Content-Encoding"), ","); {
	case strings.TrimSpace(encoding) != "aws-chunked":
	case strings.TrimSpace(rest) == "":
		r.Header.Del("Content-Encoding")
	default:
		r.Header.Set("Content-Encoding", strings.TrimSpace(rest))
	}
	return nil
}

// chunks reads a body in signed chunks. Each chunk is handed on after it was checked,
// the last one only when the empty chunk that ends the body has come and was checked.
type chunks struct {
	body     io.ReadCloser
	in       *bufio.Reader
	key      []byte
	head     string // of what is signed of each chunk
	previous string // signature of the chunk before, or of the request
	left     int64  // bytes of the decoded body still to come
	short    bool   // the last chunk was too short for another to follow
	buffer   []byte
	chunk    []byte // what is left of the current chunk
	err      error  // what follows it
	refuse   func() error
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.chunk) == 0 && c.err == nil {
		if err := c.next(); err != nil {
			c.chunk, c.err = nil, err
		}
	}
	if len(c.chunk) == 0 {
		return 0, c.err
	}
	n := copy(p, c.chunk)
	c.chunk = c.chunk[n:]
	return n, nil
}

func (c *chunks) Close() error { return c.body.Close() }

// next reads a chunk, and the end of the body if nothing else can follow.
func (c *chunks) next() error {
	size, sum, err := c.line()
	if err != nil {
		return err
	}
	if size == 0 || size > c.left || c.short {
		return c.refuse()
	}
	if int64(cap(c.buffer)) < size {
		c.buffer = make([]byte, size)
	}
	data := c.buffer[:size]
	if _, err := io.ReadFull(c.in, data); err != nil {
		return notWhole(err)
	}
	if err := c.check(data, sum); err != nil {
		return err
	}
	c.left -= size
	c.short = size < minChunk
	c.chunk = data
	if c.left == 0 {
		return c.last()
	}
	return nil
}

// last reads the empty chunk and the end.
func (c *chunks) last() error {
	size, sum, err := c.line()
	if err != nil {
		return err
	}
	if size != 0 {
		return c.refuse()
	}
	if err := c.check(nil, sum); err != nil {
		return err
	}
	switch _, err := c.in.ReadByte(); {
	case err == nil:
		return c.refuse()
	case !errors.Is(err, io.EOF):
		return notWhole(err)
	}
	c.err = io.EOF
	return nil
}

// line reads "SIZE;chunk-signature=SIGNATURE\r\n". Some SDKs write the size in capitals.
func (c *chunks) line() (size int64, sum [sha256.Size]byte, err error) {
	var line []byte
	for !bytes.HasSuffix(line, []byte("\n")) {
		b, err := c.in.ReadByte()
		if err != nil {
			return 0, sum, notWhole(err)
		}
		if line = append(line, b); len(line) > maxChunkLine {
			return 0, sum, c.refuse()
		}
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	digits, rest, _ := strings.Cut(text, ";")
	told, found := strings.CutPrefix(rest, "chunk-signature=")
	size, err = strconv.ParseInt(digits, 16, 32)
	plain := strconv.FormatInt(size, 16)
	if err != nil || size < 0 || digits != plain && digits != strings.ToUpper(plain) || !ok || !found || !readHash(told, &sum) {
		return 0, sum, c.refuse()
	}
	return size, sum, nil
}

// check reads the line end behind a chunk and holds the chunk against its signature.
func (c *chunks) check(data []byte, told [sha256.Size]byte) error {
	var end [2]byte
	if _, err := io.ReadFull(c.in, end[:]); err != nil {
		return notWhole(err)
	}
	nothing, sum := sha256.Sum256(nil), sha256.Sum256(data)
	want := mac(c.key, c.head+c.previous+"\n"+hex.EncodeToString(nothing[:])+"\n"+hex.EncodeToString(sum[:]))
	if end != [2]byte{'\r', '\n'} || subtle.ConstantTimeCompare(want[:], told[:]) != 1 {
		return c.refuse()
	}
	c.previous = hex.EncodeToString(want[:])
	return nil
}
