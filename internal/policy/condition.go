package policy

import (
	"fmt"
	"slices"
	"strings"
)

// A Condition says when a rule holds: every key named must have one of its values. It
// is data, so that it can be printed, compared and explained:
//
//	when: {environment: production, model: [anthropic.claude-*, amazon.nova-*], not: {team: ads}}
//
// A value may hold "*" for any text. The zero value always holds.
type Condition struct {
	terms []term
	not   *Condition
}

type term struct {
	key    string
	values []string
}

// ReadCondition reads the mapping of a `when`.
func ReadCondition(n Node) Condition {
	var c Condition
	n.Each(func(key string, _, v Node) {
		if key == "not" {
			not := ReadCondition(v)
			c.not = &not
			return
		}
		t := term{key, v.Texts()}
		if len(t.values) == 0 {
			v.Mistake("write a value, a list of values, or a pattern with *", "condition on %q has no value", key)
		}
		c.terms = append(c.terms, t)
	})
	return c
}

// Keys are the keys that a condition asks for.
func (c *Condition) Keys() []string {
	var out []string
	for _, t := range c.terms {
		out = append(out, t.key)
	}
	if c.not != nil {
		out = append(out, c.not.Keys()...)
	}
	return out
}

// Holds says whether a condition holds for some facts, and if not which term failed.
// value gives the text of a key, or false if there is none.
func (c *Condition) Holds(value func(key string) (string, bool)) (ok bool, why string) {
	for _, t := range c.terms {
		text, there := value(t.key)
		if !there {
			return false, fmt.Sprintf("there is no %s", t.key)
		}
		if !slices.ContainsFunc(t.values, func(p string) bool { return MatchPattern(p, text) }) {
			return false, fmt.Sprintf("%s is not %s", t.key, strings.Join(t.values, " or "))
		}
	}
	if c.not != nil {
		if holds, _ := c.not.Holds(value); holds {
			return false, "the exception holds: " + c.not.String()
		}
	}
	return true, ""
}

// String is the condition as it would be written.
func (c *Condition) String() string {
	var parts []string
	for _, t := range c.terms {
		v := strings.Join(t.values, ", ")
		if len(t.values) != 1 {
			v = "[" + v + "]"
		}
		parts = append(parts, t.key+": "+v)
	}
	if c.not != nil {
		parts = append(parts, "not: "+c.not.String())
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// MatchPattern reports whether text matches a pattern in which "*" stands for any
// text, also none. It is linear in the length of both.
func MatchPattern(pattern, text string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	if !strings.HasPrefix(text, head) {
		return false
	}
	text = text[len(head):]
	for {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, part)
		}
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text, rest = text[i+len(part):], next
	}
}
