package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
)

const (
	magic      = "WBJRNL01"
	liveSuffix = ".open"
	suffix     = ".wbj"
	footerBit  = 1 << 31
	recordHead = 8
	footerSize = recordHead + 8 + sha256.Size
	// maxRecord bounds what a reader will allocate for one record. An entry is about
	// a thousand bytes; tags at their limits make some thirteen thousand.
	maxRecord = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord frames a payload.
func appendRecord(b, payload []byte, flag uint32) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload))|flag)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	return append(b, payload...)
}

func footer(count uint64, sum hash.Hash) []byte {
	payload := binary.LittleEndian.AppendUint64(nil, count)
	return appendRecord(nil, sum.Sum(payload), footerBit)
}

// A Segment is a sealed file of the journal.
type Segment struct {
	Path string
	Size int64
}

// Segments lists the sealed segments of a journal, oldest first. A directory that
// does not exist has none.
func Segments(dir string) ([]Segment, error) {
	names, err := list(dir, suffix)
	if err != nil {
		return nil, err
	}
	var out []Segment
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("list journal: %w", err)
		}
		out = append(out, Segment{filepath.Join(dir, name), info.Size()})
	}
	return out, nil
}

func list(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// ErrTorn ends a segment that stops in the middle of a record: what a process that
// died while writing leaves behind. Zeros may follow.
var ErrTorn = errors.New("segment ends in the middle of a record")

// ErrDamaged is a record whose checksum does not match, or a footer that does not
// describe its segment.
var ErrDamaged = errors.New("segment is damaged")

// A Reader reads the entries of one segment, sealed or live.
type Reader struct {
	r      io.Reader
	sum    hash.Hash
	count  uint64
	offset int64
	sealed bool
	buf    []byte
}

// NewReader reads a segment from r.
func NewReader(r io.Reader) (*Reader, error) {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("read segment header: %w", ErrTorn)
	}
	if string(head) != magic && strings.HasPrefix(magic, string(bytes.TrimRight(head, "\x00"))) {
		return nil, fmt.Errorf("read segment header: %w", ErrTorn)
	}
	if string(head) != magic {
		return nil, fmt.Errorf("read segment header: %q is not a journal segment of a version this program knows: %w", head, ErrDamaged)
	}
	sum := sha256.New()
	sum.Write(head)
	return &Reader{r: r, sum: sum, offset: int64(len(magic))}, nil
}

// Offset is the place of the record that Next returned last, in bytes.
func (r *Reader) Offset() int64 { return r.offset - int64(len(r.buf)) - recordHead }

// Sealed reports whether the footer was reached and describes the segment.
func (r *Reader) Sealed() bool { return r.sealed }

// Next is the next entry. It ends with io.EOF at the footer, or at the end of a live
// segment whose last record is whole, which zeros may follow; with ErrTorn in the middle
// of a record; with ErrDamaged where nothing after can be trusted. An entry that is whole
// but is not an entry this program understands is returned as an *EntryError, and reading
// may go on.
func (r *Reader) Next() (waybill.Entry, error) {
	payload, footer, err := r.record()
	if err != nil {
		return waybill.Entry{}, err
	}
	if footer {
		return waybill.Entry{}, io.EOF
	}
	var e waybill.Entry
	if err := json.Unmarshal(payload, &e); err != nil {
		return waybill.Entry{}, &EntryError{Offset: r.Offset(), Err: err}
	}
	return e, nil
}

// An EntryError is a record that is whole and cannot be understood.
type EntryError struct {
	Offset int64
	Err    error
}

// Error says where the record is and what is wrong with it.
func (e *EntryError) Error() string {
	return fmt.Sprintf("entry at byte %d: %v", e.Offset, e.Err)
}

// Unwrap is the cause.
func (e *EntryError) Unwrap() error { return e.Err }

func (r *Reader) record() (payload []byte, isFooter bool, err error) {
	if r.sealed {
		return nil, true, nil
	}
	var head [recordHead]byte
	switch n, err := io.ReadFull(r.r, head[:]); {
	case err == io.EOF && n == 0:
		return nil, false, io.EOF
	case head == [recordHead]byte{} && (err == nil || err == io.ErrUnexpectedEOF): // no record is empty
		return nil, false, r.rest()
	case err == io.ErrUnexpectedEOF:
		return nil, false, ErrTorn
	case err != nil:
		return nil, false, fmt.Errorf("read segment: %w", err)
	}
	length := binary.LittleEndian.Uint32(head[:])
	isFooter = length&footerBit != 0
	length &^= footerBit
	if length > maxRecord || isFooter && length != footerSize-recordHead {
		return nil, false, fmt.Errorf("record of %d bytes at byte %d: %w", length, r.offset, ErrDamaged)
	}
	if cap(r.buf) < int(length) {
		r.buf = make([]byte, length)
	}
	r.buf = r.buf[:length]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, false, ErrTorn
	}
	if crc32.Checksum(r.buf, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, false, fmt.Errorf("checksum of the record at byte %d: %w", r.offset, ErrDamaged)
	}
	if isFooter {
		if binary.LittleEndian.Uint64(r.buf) != r.count || string(r.buf[8:]) != string(r.sum.Sum(nil)) {
			return nil, false, fmt.Errorf("footer at byte %d: %w", r.offset, ErrDamaged)
		}
		r.sealed = true
		return nil, true, nil
	}
	r.sum.Write(head[:])
	r.sum.Write(r.buf)
	r.offset += recordHead + int64(length)
	r.count++
	return r.buf, false, nil
}

// rest is what follows where no record begins: io.EOF if it is zeros, which is what a live
// segment has been allocated ahead, and else ErrTorn, since a head is written last.
func (r *Reader) rest() error {
	buf := make([]byte, 4<<10)
	for {
		n, err := r.r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return ErrTorn
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("read segment: %w", err)
		}
	}
}
