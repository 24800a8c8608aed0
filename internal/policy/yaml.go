package policy

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A Mistake is one thing wrong with a file: where, what, and the remedy.
type Mistake struct {
	File   string
	Line   int
	Column int
	What   string
	Hint   string
	source string // the line itself
}

// Error is "file:line:column: what; hint" and the line with a mark under the place.
func (m *Mistake) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", m.File, m.Line, m.Column, m.What)
	if m.Hint != "" {
		s += "\n    remedy: " + m.Hint
	}
	if m.source != "" {
		s += fmt.Sprintf("\n    %4d | %s\n         | %s^", m.Line, m.source, strings.Repeat(" ", max(m.Column-1, 0)))
	}
	return s
}

// Mistakes are all the mistakes of a file.
type Mistakes []*Mistake

// Error is every mistake, in the order of the file.
func (m Mistakes) Error() string {
	texts := make([]string, len(m))
	for i, e := range m {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "\n")
}

// A Document is a YAML file being read strictly: unknown keys, duplicate keys, aliases
// and values of the wrong type are mistakes, and all of them are told at once. Scalars
// keep the text they were written with: a cost centre 010 stays 010.
type Document struct {
	file     string
	lines    []string
	root     *yaml.Node
	mistakes Mistakes
}

// ReadYAML begins to read a file of one document. An empty file is an empty mapping.
func ReadYAML(file string, src []byte) (*Document, error) {
	d := &Document{file: file, lines: strings.Split(string(src), "\n")}
	var n yaml.Node
	if err := yaml.Unmarshal(src, &n); err != nil {
		return nil, Mistakes{{File: file, Line: 1, Column: 1, What: "is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	d.root = &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	if len(n.Content) > 0 {
		d.root = n.Content[0]
	}
	return d, nil
}

// Root is the top of the document.
func (d *Document) Root() Node { return Node{d, d.root} }

// Err is all mistakes found so far, or nil.
func (d *Document) Err() error {
	if len(d.mistakes) == 0 {
		return nil
	}
	return d.mistakes
}

// A Node is a place in a Document.
type Node struct {
	d *Document
	n *yaml.Node
}

// Mistake notes what is wrong at the node, and the remedy.
func (n Node) Mistake(hint, format string, args ...any) {
	m := &Mistake{File: n.d.file, Line: n.n.Line, Column: n.n.Column, What: fmt.Sprintf(format, args...), Hint: hint}
	if m.Line > 0 && m.Line <= len(n.d.lines) {
		m.source = strings.TrimRight(n.d.lines[m.Line-1], "\r")
	}
	n.d.mistakes = append(n.d.mistakes, m)
}

// Position is "file:line".
func (n Node) Position() string { return fmt.Sprintf("%s:%d", n.d.file, n.n.Line) }

// Fields calls the function of each key of a mapping. A key without a function is a
// mistake that names the keys there are.
func (n Node) Fields(fields map[string]func(Node)) {
	n.Each(func(key string, k, v Node) {
		f, ok := fields[key]
		if !ok {
			names := make([]string, 0, len(fields))
			for name := range fields {
				names = append(names, name)
			}
			k.Mistake("known here are: "+sorted(names), "unknown key %q", key)
			return
		}
		f(v)
	})
}

// Each calls f for each key of a mapping, in the order of the file.
func (n Node) Each(f func(key string, k, v Node)) {
	if n.n.Kind == yaml.ScalarNode && n.n.Tag == "!!null" {
		return
	}
	if n.n.Kind != yaml.MappingNode {
		n.Mistake("write it as key: value", "a mapping is expected here")
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.n.Content); i += 2 {
		k, v := Node{n.d, n.n.Content[i]}, Node{n.d, n.n.Content[i+1]}
		if k.n.Kind != yaml.ScalarNode || v.n.Kind == yaml.AliasNode || v.n.Anchor != "" {
			k.Mistake("write the value out", "aliases, anchors and composed keys are not taken")
			continue
		}
		if seen[k.n.Value] {
			k.Mistake("keep one of the two", "key %q is there twice", k.n.Value)
			continue
		}
		seen[k.n.Value] = true
		f(k.n.Value, k, v)
	}
}

// Text is the text of a scalar, exactly as written.
func (n Node) Text() string {
	if n.n.Kind != yaml.ScalarNode {
		n.Mistake("write one value", "a single value is expected here")
		return ""
	}
	if n.n.Tag == "!!null" {
		return ""
	}
	return n.n.Value
}

// Bool is true or false.
func (n Node) Bool() bool {
	switch n.Text() {
	case "true":
		return true
	case "false":
		return false
	}
	n.Mistake("write true or false", "%q is neither true nor false", n.n.Value)
	return false
}

// OneOf is a text that must be one of some.
func (n Node) OneOf(allowed ...string) string {
	text := n.Text()
	for _, a := range allowed {
		if a == text {
			return text
		}
	}
	n.Mistake("one of: "+strings.Join(allowed, ", "), "%q is not known here", text)
	return text
}

// List is the items of a sequence; a single scalar counts as a list of one.
func (n Node) List() []Node {
	switch n.n.Kind {
	case yaml.ScalarNode:
		if n.n.Tag == "!!null" {
			return nil
		}
		return []Node{n}
	case yaml.SequenceNode:
		out := make([]Node, len(n.n.Content))
		for i, c := range n.n.Content {
			out[i] = Node{n.d, c}
		}
		return out
	}
	n.Mistake("write a list: [a, b]", "a list is expected here")
	return nil
}

// Texts is a list of scalars.
func (n Node) Texts() []string {
	var out []string
	for _, item := range n.List() {
		out = append(out, item.Text())
	}
	return out
}

// IsMapping reports whether the node is a mapping.
func (n Node) IsMapping() bool { return n.n.Kind == yaml.MappingNode }
