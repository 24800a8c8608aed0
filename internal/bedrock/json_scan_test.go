package bedrock

import (
	"bytes"
	"testing"
)

// A scan of an answer finds what the plainest scanner finds, that takes one byte after
// another, however the answer is cut.
func FuzzMemberScanner(f *testing.F) {
	for _, s := range []string{
		`{"usage":{"inputTokens":1},"id":"x","images":["a",{"b":[1,2]},[3]],"choices":[]}`, ` {"usage" : { } , "usage":1,"id": "a\\\"b" ,"type":null}`,
		`{"us\u0061ge":1,"usage"::2,"usage" "x":3,"a",,"b":[1}`, `[{"usage":1}]`, `{"usage":1]x`, `{"data":[ 1 , "2" , [ , ] ,],"error":"`, `x{"usage":1}`, `{"id":"\`,
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, doc []byte, cut int) {
		if cut < 1 {
			cut = len(doc) + 1
		}
		want := byteScanner{want: wanted}
		want.Write(doc)
		got := memberScanner{want: wanted}
		for range 2 { // the second time in the room of the first
			got.reset()
			for left := doc; len(left) > 0; {
				n := min(cut, len(left))
				got.Write(left[:n])
				left = left[n:]
			}
			if got.done != want.done || len(got.members) != len(want.lengths) {
				t.Fatalf("%q: done %v with %d members, want %v with %d", doc, got.done, len(got.members), want.done, len(want.lengths))
			}
			for name, n := range want.lengths {
				value, kept := got.lookUp(name)
				wantValue, wantKept := want.found[name]
				if items, _ := got.length(name); items != n || kept != wantKept || !bytes.Equal(value, wantValue) {
					t.Fatalf("%q: %q is %q (%v) of %d, want %q (%v) of %d", doc, name, value, kept, items, wantValue, wantKept, n)
				}
			}
		}
	})
}

// A value that is longer than the limit is not kept, and is there all the same.
func TestMemberTooLong(t *testing.T) {
	for _, extra := range []int{0, 1} {
		for _, cut := range []int{1 << 10, 1 << 30} {
			value := append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, maxMember-2+extra)...), '"')
			s := memberScanner{want: wanted}
			for left := append(append([]byte(`{"usage":`), value...), '}'); len(left) > 0; {
				n := min(cut, len(left))
				s.Write(left[:n])
				left = left[n:]
			}
			got, kept := s.lookUp("usage")
			if _, there := s.length("usage"); !there || kept != (extra == 0) || kept && !bytes.Equal(got, value) {
				t.Errorf("%d bytes, cut at %d: kept %v, there %v", len(value), cut, kept, there)
			}
		}
	}
}

// A byteScanner is what a memberScanner does, byte by byte.
type byteScanner struct {
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

func (s *byteScanner) Write(p []byte) {
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
func (s *byteScanner) structure(c byte, piece []byte) {
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

func (s *byteScanner) push(b []byte) {
	switch {
	case s.isName:
		s.name = append(s.name, b[:min(len(b), maxName-len(s.name))]...)
	case s.what == keep && !s.over:
		if s.over = len(s.value)+len(b) > max(maxMember, s.limit); !s.over {
			s.value = append(s.value, b...)
		}
	}
}

func (s *byteScanner) endMember() {
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
