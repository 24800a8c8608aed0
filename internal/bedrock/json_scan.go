package bedrock

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// An interest says what a memberScanner does with a top-level member.
type interest int

const (
	ignore  interest = iota
	keep             // its raw value, if that is no longer than the limit
	measure          // that it is there, and of an array how many elements it has
)

// A memberScanner reads one JSON object as it passes, cut anywhere. Of a few top-level
// members it keeps the raw values, or the number of elements. It allocates no more
// than those, and bounds them. It does not check grammar: what it keeps is parsed
// later, and what is not an object keeps nothing.
type memberScanner struct {
	want    func(name []byte) interest
	limit   int // of the values that are kept; maxMember if 0
	found   map[string][]byte
	lengths map[string]int // elements of the arrays among the wanted members, 0 of other values
	done    bool           // the object ended

	depth   int
	str     bool // within a string
	esc     bool // after a backslash in it
	isName  bool // the string is a member name at depth 1
	pending bool // a name was read, its value follows
	begun   bool // the value has begun: the colon was read
	name    []byte
	value   []byte
	what    interest
	over    bool // the value grew too long
	array   bool // the value is an array
	items   int  // elements of it that have ended
	item    bool // an element has begun
}

const (
	maxMember = 256 << 10
	maxName   = 64
)

// reset makes the scanner ready for another object.
func (s *memberScanner) reset() {
	clear(s.found)
	clear(s.lengths)
	*s = memberScanner{want: s.want, limit: s.limit, found: s.found, lengths: s.lengths, name: s.name[:0], value: s.value[:0]}
}

func (s *memberScanner) Write(p []byte) {
	for i := 0; i < len(p) && !s.done; {
		c := p[i]
		switch {
		case s.str && c == '\\' && !s.esc && i+1 < len(p):
			s.push(p[i : i+2])
			i += 2
			continue
		case s.str && (s.esc || c == '\\'):
			s.esc = !s.esc
			s.push(p[i : i+1])
		case s.str && c == '"':
			s.str = false
			if s.isName {
				s.isName, s.pending = false, true
			} else {
				s.push(p[i : i+1])
			}
		case s.str: // run to the next quote or backslash
			n := stringRun(p[i:])
			if s.isName || s.what == keep {
				s.push(p[i : i+n])
			}
			i += n
			continue
		case s.depth == 0:
			if c == '{' {
				s.depth = 1
			} else if !blank(c) {
				s.done = true // not an object
				return
			}
		default:
			s.structure(c, p[i:i+1])
		}
		i++
	}
}

// structure takes a byte outside strings and within the object.
func (s *memberScanner) structure(c byte, piece []byte) {
	if s.depth == 2 && s.array && c != ',' && c != ']' && !blank(c) {
		s.item = true
	}
	switch c {
	case '"':
		s.str = true
		if s.depth == 1 && !s.pending {
			s.isName = true
			s.name = s.name[:0]
			return
		}
	case '{', '[':
		s.array = s.array || s.depth == 1 && c == '['
		s.depth++
	case '}', ']':
		if s.depth == 2 && s.array && s.item {
			s.items++
			s.item = false
		}
		if s.depth--; s.depth == 0 {
			s.endMember()
			s.done = true
			return
		}
	case ':':
		if s.depth == 1 && s.pending && !s.begun {
			s.begun = true
			s.what = s.want(s.name)
			return
		}
	case ',':
		if s.depth == 1 {
			s.endMember()
			return
		}
		if s.depth == 2 && s.array && s.item {
			s.items++
			s.item = false
		}
	}
	s.push(piece)
}

// stringRun is how many bytes there are before the first quote or backslash.
func stringRun(b []byte) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, slash := (x^'"'*ones)-ones, (x^'\\'*ones)-ones // as in special
		if found := (quote | slash) &^ x & high; found != 0 {
			return i + bits.TrailingZeros64(found)>>3
		}
	}
	for i < len(b) && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func (s *memberScanner) push(b []byte) {
	switch {
	case s.isName:
		s.name = append(s.name, b[:min(len(b), maxName-len(s.name))]...)
	case s.what == keep && !s.over:
		if s.over = len(s.value)+len(b) > max(maxMember, s.limit); !s.over {
			s.value = append(s.value, b...)
		}
	}
}

func (s *memberScanner) endMember() {
	if s.what != ignore {
		if s.found == nil {
			s.found, s.lengths = make(map[string][]byte), make(map[string]int)
		}
		s.lengths[string(s.name)] = s.items
		if s.what == keep && !s.over {
			s.found[string(s.name)] = bytes.Clone(bytes.TrimSpace(s.value))
		}
	}
	s.what, s.over, s.pending, s.begun, s.array, s.items, s.item = ignore, false, false, false, false, 0, false
	s.value = s.value[:0]
}
