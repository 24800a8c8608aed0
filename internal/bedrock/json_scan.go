package bedrock

import "bytes"

// A memberScanner reads one JSON document as it passes, cut anywhere, and keeps the
// raw values of a few top-level members. It allocates no more than those, and bounds
// them: a member longer than maxMember is not kept. It does not check grammar: what
// it keeps is parsed later, and what is not JSON keeps nothing.
type memberScanner struct {
	want  func(name []byte) bool
	found map[string][]byte

	depth   int
	str     bool // within a string
	esc     bool // after a backslash in it
	isName  bool // the string is a member name at depth 1
	pending bool // a name was read, its value follows
	name    []byte
	value   []byte
	keep    bool // the value is wanted, and being kept
	over    bool // it grew too long
	done    bool // the document ended
}

const (
	maxMember = 64 << 10
	maxName   = 64
)

func (s *memberScanner) Write(p []byte) {
	for i := 0; i < len(p); {
		c := p[i]
		if s.str {
			switch {
			case s.esc:
				s.esc = false
			case c == '\\':
				s.esc = true
			case c == '"':
				s.str = false
				s.push(c)
				i++
				if s.isName {
					s.isName, s.pending = false, true
				}
				continue
			default: // run to the next quote or backslash
				n := bytes.IndexAny(p[i:], `"\`)
				if n < 0 {
					n = len(p) - i
				}
				s.pushAll(p[i : i+n])
				i += n
				continue
			}
			s.push(c)
			i++
			continue
		}
		switch c {
		case '"':
			s.str = true
			if s.depth == 1 && !s.pending {
				s.isName = true
				s.name = s.name[:0]
			} else {
				s.push(c)
			}
		case '{', '[':
			s.push(c)
			s.depth++
		case '}', ']':
			s.depth--
			if s.depth == 0 {
				s.endMember()
				s.done = true
			} else {
				s.push(c)
			}
		case ':':
			if s.depth == 1 && s.pending && !s.keep && !s.over && s.value == nil {
				s.begin()
			} else {
				s.push(c)
			}
		case ',':
			if s.depth == 1 {
				s.endMember()
			} else {
				s.push(c)
			}
		default:
			s.push(c)
		}
		i++
	}
}

func (s *memberScanner) begin() {
	s.keep = s.want(s.name)
	s.value = []byte{}
}

func (s *memberScanner) push(c byte) {
	if s.isName {
		if len(s.name) < maxName && c != '"' {
			s.name = append(s.name, c)
		}
		return
	}
	if s.keep && !s.over {
		s.value = append(s.value, c)
		s.over = len(s.value) > maxMember
	}
}

func (s *memberScanner) pushAll(b []byte) {
	if s.isName {
		s.name = append(s.name, b[:min(len(b), maxName-min(maxName, len(s.name)))]...)
		return
	}
	if s.keep && !s.over {
		s.over = len(s.value)+len(b) > maxMember
		if !s.over {
			s.value = append(s.value, b...)
		}
	}
}

func (s *memberScanner) endMember() {
	if s.keep && !s.over {
		if s.found == nil {
			s.found = make(map[string][]byte)
		}
		s.found[string(s.name)] = bytes.TrimSpace(s.value)
	}
	s.keep, s.over, s.pending, s.value = false, false, false, nil
}
