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
	at     Node
}

func (c *Condition) fromNode(n Node) bool {
	*c = ReadCondition(n)
	return true
}

// ReadCondition reads the mapping of a `when`.
func ReadCondition(n Node) Condition {
	var c Condition
	n.Each(func(key string, k, v Node) {
		if key == "not" {
			not := ReadCondition(v)
			if len(not.terms) == 0 && not.not == nil {
				v.Mistake("name a key and its values, or leave it out", "an exception without a term always holds, so that the condition never does")
			}
			c.not = &not
			return
		}
		t := term{key, v.Texts(), k}
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
	c.each(func(t *term) { out = append(out, t.key) })
	return out
}

func (c *Condition) each(f func(*term)) {
	for i := range c.terms {
		f(&c.terms[i])
	}
	if c.not != nil {
		c.not.each(f)
	}
}

// Holds says whether a condition holds for some facts, and if not which term failed.
// value gives the text of a key, or false if there is none.
func (c *Condition) Holds(value func(key string) (string, bool)) (ok bool, why string) {
	if t, there := c.failing(value); t != nil {
		if !there {
			return false, "there is no " + t.key
		}
		return false, fmt.Sprintf("%s is not %s", t.key, strings.Join(t.values, " or "))
	}
	if c.not != nil && c.not.holds(value) {
		return false, "the exception holds: " + c.not.String()
	}
	return true, ""
}

// holds is Holds without the reason, which costs.
func (c *Condition) holds(value func(key string) (string, bool)) bool {
	t, _ := c.failing(value)
	return t == nil && (c.not == nil || !c.not.holds(value))
}

// failing is the first term that does not hold, and whether its key has a value.
func (c *Condition) failing(value func(key string) (string, bool)) (t *term, there bool) {
	for i := range c.terms {
		t := &c.terms[i]
		text, there := value(t.key)
		if !there || !slices.ContainsFunc(t.values, func(p string) bool { return MatchPattern(p, text) }) {
			return t, there
		}
	}
	return nil, true
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

// facts are the names that a condition may ask for besides tag keys.
var facts = []string{"model", "modelId", "operation", "endpoint", "region", "caller", "issuer"}

func isFact(name string) bool {
	return slices.Contains(facts, name) || strings.HasPrefix(name, "claims.") && len(name) > len("claims.")
}
