package identity

import (
	"regexp"
	"strings"
)

// A pattern is a text in which * stands for one or more characters other than the
// separator, ** for one or more of any kind. Everything else stands for itself.
type pattern struct{ re *regexp.Regexp }

// newPattern reads a pattern. Without a separator * is any characters.
func newPattern(text, separator string) pattern {
	one := "(.+)"
	if separator != "" {
		one = "([^" + regexp.QuoteMeta(separator) + "]+)"
	}
	var re strings.Builder
	re.WriteString(`(?s)^`)
	for rest := strings.ToValidUTF8(text, "\uFFFD"); rest != ""; { // a pattern always compiles
		i := strings.IndexByte(rest, '*')
		if i < 0 {
			re.WriteString(regexp.QuoteMeta(rest))
			break
		}
		re.WriteString(regexp.QuoteMeta(rest[:i]))
		if rest = rest[i+1:]; strings.HasPrefix(rest, "*") {
			rest = rest[1:]
			re.WriteString("(.+)")
		} else {
			re.WriteString(one)
		}
	}
	re.WriteString(`$`)
	return pattern{regexp.MustCompile(re.String())}
}

func (p pattern) matches(s string) bool { return p.re.MatchString(s) }

// stars gives what the stars of the pattern stood for.
func (p pattern) stars(s string) (list []string, ok bool) {
	m := p.re.FindStringSubmatch(s)
	if m == nil {
		return nil, false
	}
	return m[1:], true
}
