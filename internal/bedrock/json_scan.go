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
// members it keeps the raw values, or the number of elements. It allocates little more
// than those, and bounds them. It does not check grammar: what it keeps is parsed
// later, and what is not an object keeps nothing.
type memberScanner struct {
	want    func(name []byte) interest
	limit   int       // of the values that are kept; maxMember if 0
	members []scanned // the wanted members that have ended
	done    bool      // the object ended

	depth   int
	str     bool // within a string
	esc     bool // after a backslash in it
	isName  bool // the string is a member name at depth 1
	pending bool // a name was read, its value follows
	begun   bool // the value has begun: the colon was read
	name    [maxName]byte
	named   int // bytes of it
	value   []byte
	what    interest
	over    bool // the value grew too long
	array   bool // the value is an array
	items   int  // elements of it that have ended
	item    bool // an element has begun
}

// A scanned member is one that was wanted.
type scanned struct {
	name  string
	value []byte // raw, if it is kept
	kept  bool   // its value was no longer than the limit
	items int    // elements of an array, 0 of other values
}

const (
	maxMember = 256 << 10
	maxName   = 64
)

// reset makes the scanner ready for another object. What was found in the last one is not
// valid any more.
func (s *memberScanner) reset() {
	*s = memberScanner{want: s.want, limit: s.limit, members: s.members[:0], value: s.value[:0]}
}

// raw is the value of a member that is kept, nil if there is none.
func (s *memberScanner) raw(name string) []byte {
	value, _ := s.lookUp(name)
	return value
}

func (s *memberScanner) lookUp(name string) (value []byte, ok bool) {
	if m := s.member(name); m != nil && m.kept {
		return m.value, true
	}
	return nil, false
}

// length is the number of elements of a member that is an array, 0 of another value.
func (s *memberScanner) length(name string) (items int, ok bool) {
	if m := s.member(name); m != nil {
		return m.items, true
	}
	return 0, false
}

// member is nil if there is none, also of no scanner.
func (s *memberScanner) member(name string) *scanned {
	if s == nil {
		return nil
	}
	for i := range s.members {
		if s.members[i].name == name {
			return &s.members[i]
		}
	}
	return nil
}

// add makes room for a member. The room that members of an earlier object had is used
// again, most often by the same ones.
func (s *memberScanner) add(name []byte) *scanned {
	n := len(s.members)
	if n == cap(s.members) {
		s.members = append(make([]scanned, 0, max(4, 2*n)), s.members...)
	}
	s.members = s.members[:n+1]
	m := &s.members[n]
	if m.name != string(name) {
		m.name = string(name)
	}
	m.value, m.kept = m.value[:0], false
	return m
}

func (s *memberScanner) Write(p []byte) {
	from := 0 // of the name or the value that is being read, as far as it is in p
	for i := 0; i < len(p) && !s.done; i++ {
		c := p[i]
		switch {
		case s.esc:
			s.esc = false
		case s.str && c == '\\':
			s.esc = true
		case s.str && c == '"':
			s.str = false
			if s.isName {
				s.keepName(p[from:i])
				s.isName, s.pending = false, true
			}
		case s.str: // run to the next quote or backslash
			i += stringRun(p[i:]) - 1
		case s.depth == 0:
			if c == '{' {
				s.depth = 1
			} else if !blank(c) {
				s.done = true // not an object
			}
		case c == '"':
			s.item = s.item || s.depth == 2 && s.array
			s.str = true
			if s.depth == 1 && !s.pending {
				s.isName, s.named, from = true, 0, i+1
			}
		case s.depth == 1 && c == ':' && s.pending && !s.begun:
			s.begun, s.what, from = true, s.want(s.name[:s.named]), i+1
		case s.depth == 1 && (c == ',' || c == '}' || c == ']'):
			s.endMember(p[from:i])
			s.done = c != ','
		default:
			s.structure(c)
		}
	}
	if s.isName {
		s.keepName(p[from:])
	} else if s.what != ignore {
		s.keepValue(p[from:])
	}
}

// structure takes a byte outside strings and within a value.
func (s *memberScanner) structure(c byte) {
	if s.depth == 2 && s.array && c != ',' && c != ']' && !blank(c) {
		s.item = true
	}
	switch c {
	case '{', '[':
		s.array = s.array || s.depth == 1 && c == '['
		s.depth++
	case '}', ']', ',':
		if s.depth == 2 && s.array && s.item {
			s.items++
			s.item = false
		}
		if c != ',' {
			s.depth--
		}
	}
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

func (s *memberScanner) keepName(b []byte) { s.named += copy(s.name[s.named:], b) }

func (s *memberScanner) keepValue(b []byte) {
	if s.over = s.over || len(s.value)+len(b) > max(maxMember, s.limit); s.what == keep && !s.over {
		s.value = append(s.value, b...)
	}
}

// endMember ends a member. rest is the end of its value, or all of it.
func (s *memberScanner) endMember(rest []byte) {
	if s.what != ignore {
		name := s.name[:s.named]
		m := s.member(string(name))
		if m == nil {
			m = s.add(name)
		}
		m.items = s.items
		if len(s.value) > 0 {
			s.keepValue(rest)
			rest = s.value
		}
		if s.what == keep && !s.over && len(rest) <= max(maxMember, s.limit) {
			m.value, m.kept = append(m.value[:0], bytes.TrimSpace(rest)...), true
		}
	}
	s.what, s.over, s.pending, s.begun, s.array, s.items, s.item = ignore, false, false, false, false, 0, false
	s.value = s.value[:0]
}
