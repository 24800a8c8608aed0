package bedrock

import (
	"encoding/binary"
	"hash/crc32"
)

// maxFrame bounds an event-stream frame: a part holds at most 1,000,000 bytes, a third
// more in base64. A larger length means that this is not an event stream.
const maxFrame = 24 << 20

// A frameScanner finds the frames of an AWS event stream as it passes, cut anywhere.
// A frame is
//
//	total length uint32, headers length uint32, CRC-32 of those eight bytes,
//	headers, payload, CRC-32 of everything before it
//
// all big endian. It holds at most one frame.
type frameScanner struct {
	buf    []byte
	need   int // length of the frame being read, 0 before its prelude is whole
	broken bool
	frames int
	each   func(f frame)
}

// A frame is one message. Its parts are valid until each returns: they are of the bytes
// that pass, where a frame came in one piece.
type frame struct {
	messageType   []byte // event, exception, error
	eventType     []byte
	exceptionType []byte
	errorCode     []byte
	payload       []byte
}

func (s *frameScanner) Write(p []byte) {
	for len(p) > 0 && !s.broken {
		if len(s.buf) == 0 && len(p) >= preludeLen { // most frames come in one piece
			n := s.length(p)
			if n > 0 && n <= len(p) {
				s.frame(p[:n])
				p = p[n:]
				continue
			}
		}
		want := preludeLen
		if s.need > 0 {
			want = s.need
		}
		n := min(want-len(s.buf), len(p))
		s.buf = append(s.buf, p[:n]...)
		p = p[n:]
		if len(s.buf) < want {
			return
		}
		if s.need == 0 {
			s.need = s.length(s.buf)
			continue
		}
		s.frame(s.buf)
		s.buf, s.need = s.buf[:0], 0
	}
}

const preludeLen = 12

// length reads a prelude: the length of the frame, or 0 where the stream is broken.
func (s *frameScanner) length(b []byte) int {
	total, headers := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if crc32.ChecksumIEEE(b[:8]) != binary.BigEndian.Uint32(b[8:]) || total < 16 || total > maxFrame || headers > total-16 {
		s.broken = true
		return 0
	}
	return int(total)
}

// whole reports whether the stream stands between two frames.
func (s *frameScanner) whole() bool { return !s.broken && len(s.buf) == 0 && s.frames > 0 }

func (s *frameScanner) frame(b []byte) {
	end := len(b) - 4
	if crc32.ChecksumIEEE(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		s.broken = true
		return
	}
	headers := int(binary.BigEndian.Uint32(b[4:]))
	f, ok := readHeaders(b[12 : 12+headers])
	if !ok {
		s.broken = true
		return
	}
	f.payload = b[12+headers : end]
	s.frames++
	s.each(f)
}

// headerSizes are the value sizes of the header types that have a fixed one.
var headerSizes = [10]int{0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: -1, 7: -1, 8: 8, 9: 16}

func readHeaders(b []byte) (f frame, ok bool) {
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < 2+n {
			return f, false
		}
		name, kind := b[1:1+n], b[1+n]
		b = b[2+n:]
		if int(kind) >= len(headerSizes) {
			return f, false
		}
		size := headerSizes[kind]
		if size < 0 {
			if len(b) < 2 {
				return f, false
			}
			size = int(binary.BigEndian.Uint16(b))
			b = b[2:]
		}
		if len(b) < size {
			return f, false
		}
		value := b[:size]
		b = b[size:]
		switch string(name) {
		case ":message-type":
			f.messageType = value
		case ":event-type":
			f.eventType = value
		case ":exception-type":
			f.exceptionType = value
		case ":error-code":
			f.errorCode = value
		}
	}
	return f, true
}
