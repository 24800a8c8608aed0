package iam

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A pattern is a text with wildcards and policy variables: IAM User Guide, "Policy
// elements: Variables and tags".
type pattern []part

// A part is a character, a wildcard, or a variable.
type part struct {
	char     rune
	star     bool // any characters
	question bool // any one character
	variable string
	fallback string // the variable's default value
	defaults bool
}

var variableText = regexp.MustCompile(`^\s*([A-Za-z0-9-]+:[A-Za-z0-9._:/=+@ -]+?)\s*(?:,\s*'([^']*)'\s*)?$`)

// compile reads a text. Without variables ${...} is what it looks like, as in documents
// of the version of 2008.
func compile(text string, variables bool) (pattern, error) {
	var out pattern
	for i := 0; i < len(text); {
		if variables && strings.HasPrefix(text[i:], "${") {
			end := strings.IndexByte(text[i:], '}')
			if end < 0 {
				return nil, fmt.Errorf("a policy variable is not closed: %s", text[i:])
			}
			name := text[i+2 : i+end]
			i += end + 1
			if name == "*" || name == "?" || name == "$" {
				out = append(out, part{char: rune(name[0])})
				continue
			}
			m := variableText.FindStringSubmatchIndex(name)
			if m == nil {
				return nil, fmt.Errorf("${%s} is no policy variable", name)
			}
			v := part{variable: strings.ToLower(name[m[2]:m[3]])}
			if m[4] >= 0 {
				v.fallback, v.defaults = name[m[4]:m[5]], true
			}
			out = append(out, v)
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		out = append(out, part{char: r, star: r == '*', question: r == '?'})
	}
	return out, nil
}

// resolve puts values in the place of variables. A variable without a value makes a
// pattern that nothing matches.
func (p pattern) resolve(c *lookup) (resolved pattern, is truth, err error) {
	plain := true
	for i := range p {
		plain = plain && p[i].variable == ""
	}
	if plain {
		return p, yes, nil
	}
	out := make(pattern, 0, len(p))
	for _, part := range p {
		if part.variable == "" {
			out = append(out, part)
			continue
		}
		values, is := c.get(part.variable)
		switch {
		case is == unknown:
			return nil, unknown, nil
		case is == no && !part.defaults:
			return nil, no, nil
		case is == no:
			values = []string{part.fallback}
		case len(values) > 1:
			return nil, no, fmt.Errorf("policy variable ${%s} has %d values, and must have one", part.variable, len(values))
		}
		for _, r := range values[0] { // what a value holds is no wildcard
			out = append(out, literal(r))
		}
	}
	return out, yes, nil
}

func literal(r rune) part { return part{char: r} }

// text is the pattern without wildcards having a meaning.
func (p pattern) text() string {
	var b strings.Builder
	for _, part := range p {
		b.WriteRune(part.char)
	}
	return b.String()
}

// How far a wildcard reaches.
type reach int

const (
	everywhere reach = iota
	// inSegments is how Resource reads its patterns: ? never matches a colon, and * only
	// where it ends a segment of the ARN (IAM User Guide, "Resource", "Specifying a
	// resource ARN using wildcards").
	inSegments
)

// matches reports whether a text is one that the pattern stands for.
func (p pattern) matches(text string, how reach) bool {
	if len(p) == 1 && p[0].star {
		return true
	}
	runes := []rune(text)
	// can[j] says whether the parts so far match the first j characters.
	can := make([]bool, len(runes)+1)
	can[0] = true
	for i, part := range p {
		if part.star {
			crosses := how == everywhere || i+1 == len(p) || p[i+1].char == ':' && !p[i+1].star
			for j := 1; j <= len(runes); j++ {
				can[j] = can[j] || can[j-1] && (crosses || runes[j-1] != ':')
			}
			continue
		}
		for j := len(runes); j >= 1; j-- {
			fits := part.char == runes[j-1]
			if part.question {
				fits = how == everywhere || runes[j-1] != ':'
			}
			can[j] = can[j-1] && fits
		}
		can[0] = false
	}
	return can[len(runes)]
}

// split cuts a pattern at its first five colons: the segments of an ARN.
func (p pattern) split() ([]pattern, bool) {
	var out []pattern
	start := 0
	for i, part := range p {
		if part.char == ':' && len(out) < 5 {
			out = append(out, p[start:i])
			start = i + 1
		}
	}
	return append(out, p[start:]), len(out) == 5
}

// glob is the plain comparison with * and ?.
func glob(pattern, text string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(text) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == text[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}
