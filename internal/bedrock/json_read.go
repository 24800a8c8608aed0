package bedrock

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"strconv"
	"unicode/utf8"
)

// A jsonReader reads one JSON text by its grammar, whole. It is as strict as RFC 7493
// (I-JSON) asks and as encoding/json/v2 is: UTF-8 without exception, no lone surrogate,
// no two members of one name in any object, nothing around the value. Two parsers can
// differ in what they make of such texts, and ours must not differ from AWS's. It is
// written out because it sees every byte of every prompt: it copies nothing, and passes
// over strings eight bytes at a time.
type jsonReader struct {
	src  []byte
	few  [fewNames][]byte // unescaped names of the objects that are open: the innermost last
	more [][]byte         // those that few has no room for
	n    int              // how many there are
}

// A jsonMember is a member of an object that was read. Offsets are into the text.
type jsonMember struct {
	name                            []byte // unescaped
	nameStart, valueStart, valueEnd int
}

// A jsonError says what is wrong and where, without repeating a byte of the text.
type jsonError struct {
	what string
	at   int
}

func (e *jsonError) Error() string { return e.what + " (byte " + strconv.Itoa(e.at) + ")" }

// maxDepth is how deep arrays and objects may be nested, as in encoding/json.
const maxDepth = 10_000

// readObject reads a text that is one object, and calls each with its members in order.
func readObject(src []byte, each func(jsonMember) error) error {
	if !utf8.Valid(src) {
		return &jsonError{"it is not UTF-8", invalidUTF8(src)}
	}
	r := jsonReader{src: src}
	i := skipBlank(src, 0)
	if i < len(src) && src[i] != '{' {
		return &jsonError{"it begins with something else", i}
	}
	i, err := r.object(i, 1, each)
	if err != nil {
		return err
	}
	if i = skipBlank(src, i); i < len(src) {
		return &jsonError{"something follows the object", i}
	}
	return nil
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

func skipBlank(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

func (r *jsonReader) unexpected(i int) error {
	if i >= len(r.src) {
		return &jsonError{"it ends early", len(r.src)}
	}
	return &jsonError{"a character is not where JSON has it", i}
}

// value reads the value at i, and returns where it ends. depth is that of a value
// within: the outermost object is of depth 1.
func (r *jsonReader) value(i, depth int) (int, error) {
	if i >= len(r.src) {
		return i, r.unexpected(i)
	}
	switch c := r.src[i]; c {
	case '"':
		end, _, err := r.string(i)
		return end, err
	case '{':
		return r.object(i, depth, nil)
	case '[':
		return r.array(i, depth)
	case 't':
		return r.literal(i, "true")
	case 'f':
		return r.literal(i, "false")
	case 'n':
		return r.literal(i, "null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return r.number(i)
		}
		return i, r.unexpected(i)
	}
}

func (r *jsonReader) array(i, depth int) (int, error) {
	if depth > maxDepth {
		return i, &jsonError{"it is nested too deeply", i}
	}
	i = skipBlank(r.src, i+1)
	if i < len(r.src) && r.src[i] == ']' {
		return i + 1, nil
	}
	for {
		end, err := r.value(i, depth+1)
		if err != nil {
			return end, err
		}
		i = skipBlank(r.src, end)
		if i >= len(r.src) {
			return i, r.unexpected(i)
		}
		switch r.src[i] {
		case ',':
			i = skipBlank(r.src, i+1)
		case ']':
			return i + 1, nil
		default:
			return i, r.unexpected(i)
		}
	}
}

func (r *jsonReader) object(i, depth int, each func(jsonMember) error) (int, error) {
	if depth > maxDepth {
		return i, &jsonError{"it is nested too deeply", i}
	}
	if i >= len(r.src) {
		return i, r.unexpected(i)
	}
	i = skipBlank(r.src, i+1)
	if i < len(r.src) && r.src[i] == '}' {
		return i + 1, nil
	}
	seen := nameSet{first: r.n}
	for {
		if i >= len(r.src) || r.src[i] != '"' {
			return i, r.unexpected(i)
		}
		m := jsonMember{nameStart: i}
		end, escaped, err := r.string(i)
		if err != nil {
			return end, err
		}
		if m.name = r.src[i+1 : end-1]; escaped {
			m.name = unescape(m.name)
		}
		if !seen.add(r, m.name) {
			return i, &jsonError{"two members of an object have one name", i}
		}
		if i = skipBlank(r.src, end); i >= len(r.src) || r.src[i] != ':' {
			return i, r.unexpected(i)
		}
		m.valueStart = skipBlank(r.src, i+1)
		if m.valueEnd, err = r.value(m.valueStart, depth+1); err != nil {
			return m.valueEnd, err
		}
		if each != nil {
			if err := each(m); err != nil {
				return m.valueEnd, err
			}
		}
		if i = skipBlank(r.src, m.valueEnd); i >= len(r.src) {
			return i, r.unexpected(i)
		}
		switch r.src[i] {
		case ',':
			i = skipBlank(r.src, i+1)
		case '}':
			r.n = seen.first
			return i + 1, nil
		default:
			return i, r.unexpected(i)
		}
	}
}

// name is one of the names of the objects that are open.
func (r *jsonReader) name(i int) []byte {
	if i < len(r.few) {
		return r.few[i]
	}
	return r.more[i-len(r.few)]
}

func (r *jsonReader) push(name []byte) {
	if r.n < len(r.few) {
		r.few[r.n] = name
	} else {
		r.more = append(r.more[:r.n-len(r.few)], name)
	}
	r.n++
}

// A nameSet holds the names of one object: a few are compared one by one, more of them
// by hash, so that an object of a million names takes no longer than a million names.
type nameSet struct {
	first int // of the reader's names, the first that is of this object
	many  map[string]struct{}
}

const fewNames = 16

func (s *nameSet) add(r *jsonReader, name []byte) bool {
	if s.many != nil {
		n := len(s.many)
		s.many[string(name)] = struct{}{}
		return len(s.many) > n
	}
	for i := s.first; i < r.n; i++ {
		if string(r.name(i)) == string(name) {
			return false
		}
	}
	if r.n-s.first < fewNames {
		r.push(name)
		return true
	}
	s.many = make(map[string]struct{}, 4*fewNames)
	for i := s.first; i < r.n; i++ {
		s.many[string(r.name(i))] = struct{}{}
	}
	r.n = s.first
	return s.add(r, name)
}

func (r *jsonReader) literal(i int, word string) (int, error) {
	for k := range len(word) {
		if i+k >= len(r.src) || r.src[i+k] != word[k] {
			return i, r.unexpected(i + k)
		}
	}
	return i + len(word), nil
}

func (r *jsonReader) number(i int) (int, error) {
	if r.src[i] == '-' {
		i++
	}
	if i < len(r.src) && r.src[i] == '0' {
		i++
	} else if end := digitsEnd(r.src, i); end > i {
		i = end
	} else {
		return i, r.unexpected(i)
	}
	if i < len(r.src) && r.src[i] == '.' {
		end := digitsEnd(r.src, i+1)
		if end == i+1 {
			return end, r.unexpected(end)
		}
		i = end
	}
	if i < len(r.src) && (r.src[i] == 'e' || r.src[i] == 'E') {
		if i++; i < len(r.src) && (r.src[i] == '+' || r.src[i] == '-') {
			i++
		}
		end := digitsEnd(r.src, i)
		if end == i {
			return end, r.unexpected(end)
		}
		i = end
	}
	return i, nil
}

func digitsEnd(b []byte, i int) int {
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return i
}

// string reads the string whose quote is at i. The text is known to be UTF-8.
func (r *jsonReader) string(i int) (end int, escaped bool, err error) {
	src := r.src
	i++
words:
	for len(src)-i > 8 { // a word, and what an escape in its last byte escapes
		x := binary.LittleEndian.Uint64(src[i:])
		next := i + 8
		for found := special(x); found != 0; {
			at := bits.TrailingZeros64(found) &^ 7
			switch k := i + at>>3; byte(x >> at) {
			case '"':
				return k + 1, escaped, nil
			case '\\':
				escaped = true
				if !simpleEscape(src[k+1]) {
					if i, err = r.escape(k); err != nil {
						return i, escaped, err
					}
					continue words
				}
				next = max(next, k+2)
				found &^= 0xffff << at
			default:
				return k, escaped, &jsonError{"a control character is not escaped", k}
			}
		}
		i = next
	}
	for i < len(src) { // the end of the text
		switch c := src[i]; {
		case c == '"':
			return i + 1, escaped, nil
		case c == '\\':
			escaped = true
			if i, err = r.escape(i); err != nil {
				return i, escaped, err
			}
		case c < ' ':
			return i, escaped, &jsonError{"a control character is not escaped", i}
		default:
			i++
		}
	}
	return i, escaped, r.unexpected(i)
}

// escape reads the escape at i.
func (r *jsonReader) escape(i int) (int, error) {
	n := escapeLen(r.src[i:])
	if n == 0 {
		return i, &jsonError{"an escape is not one of JSON's", i}
	}
	return i + n, nil
}

// simpleEscape reports whether a backslash and c are an escape.
func simpleEscape(c byte) bool {
	const low = 1<<'"' | 1<<'/'
	const high = 1<<('\\'-64) | 1<<('b'-64) | 1<<('f'-64) | 1<<('n'-64) | 1<<('r'-64) | 1<<('t'-64)
	set := uint64(low)
	if c >= 64 {
		set = high
	}
	return c < 128 && set>>(c&63)&1 != 0
}

// special has the high bit set of the bytes of x that are a quote, a backslash or a
// control character. What is subtracted from a byte with its high bit set takes that bit
// if the byte was less without it, and borrows from no other byte.
func special(x uint64) uint64 {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	quote := (x ^ 2*ones | high) - 0x21*ones // a quote xor 2 is 0x20: with the control characters the only ones below 0x21
	slash := (x ^ '\\'*ones | high) - ones
	return high &^ (quote&slash | x)
}

// escapeLen is the length of the escape that b begins with, 0 if it is none. A pair of
// surrogates is one escape; one alone is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch c := b[1]; {
	case simpleEscape(c):
		return 2
	case c == 'u':
		switch r := hex4(b[2:]); {
		case r < 0:
			return 0
		case r < 0xd800 || r > 0xdfff:
			return 6
		case r < 0xdc00 && len(b) >= 12 && b[6] == '\\' && b[7] == 'u':
			if low := hex4(b[8:]); low >= 0xdc00 && low <= 0xdfff {
				return 12
			}
		}
	}
	return 0
}

// hex4 is the number in four hexadecimal digits, or -1.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape is what the inside of a string that was read means.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\\')
		if n < 0 {
			return append(out, b...)
		}
		out = append(out, b[:n]...)
		b = b[n:]
		n = escapeLen(b)
		switch b[1] {
		case 'u':
			r := hex4(b[2:])
			if n == 12 {
				r = (r-0xd800)<<10 + (hex4(b[8:]) - 0xdc00) + 0x10000
			}
			out = utf8.AppendRune(out, r)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		default:
			out = append(out, b[1])
		}
		b = b[n:]
	}
	return out
}

// stringOf is the text of a value that was read, and whether it is a string.
func stringOf(v []byte) (string, bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	v = v[1 : len(v)-1]
	if bytes.IndexByte(v, '\\') >= 0 {
		v = unescape(v)
	}
	return string(v), true
}
