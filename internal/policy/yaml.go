package policy

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// A Mistake is one thing wrong with a file: where, what, and the remedy.
type Mistake struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Key    string `json:"key,omitempty"`  // the tag key it is about
	Rule   string `json:"rule,omitempty"` // the rule it is about
	What   string `json:"message"`
	Hint   string `json:"remedy,omitempty"`
	source string // the line itself
}

// Error is "file:line:column: what", the remedy, and the line with a mark under the
// place.
func (m *Mistake) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", m.File, m.Line, m.Column)
	if m.Rule != "" {
		b.WriteString(m.Rule + ": ")
	}
	if m.Key != "" {
		fmt.Fprintf(&b, "tag key %q: ", m.Key)
	}
	b.WriteString(m.What)
	if m.Hint != "" {
		b.WriteString("\n    remedy: " + m.Hint)
	}
	if m.source != "" {
		line, column := excerpt(m.source, m.Column)
		fmt.Fprintf(&b, "\n    %4d | %s\n         | %s^", m.Line, line, strings.Repeat(" ", max(column-1, 0)))
	}
	return b.String()
}

// What must not be shown of a line are the values of keys that are named like secrets. A
// value may hold blanks, commas and braces: it ends where another key begins, or with the
// line.
var (
	secretKey = regexp.MustCompile(`(?i)(?:secret|password|token|hashkey)\w*["']?\s*:\s*`)
	nextKey   = regexp.MustCompile(`,\s*["']?\w+["']?\s*:(?:\s|$)`)
)

// excerpt is the part of a line around a column, without secrets, and the column in it.
func excerpt(line string, column int) (string, int) {
	const width, before = 160, 60
	shown := []byte(line)
	for _, m := range secretKey.FindAllIndex(shown, -1) {
		end := len(shown)
		if next := nextKey.FindIndex(shown[m[1]:]); next != nil {
			end = m[1] + next[0]
		}
		for i := m[1]; i < end; i++ {
			shown[i] = '*'
		}
	}
	from := 0
	if len(shown) > width && column > before {
		from = min(column-before, len(shown)-1)
	}
	part := strings.ToValidUTF8(string(shown[from:min(len(shown), from+width)]), "?")
	if from > 0 {
		return "..." + part, column - from + len("...")
	}
	return part, column
}

// Mistakes are all the mistakes of a file and of what it imports.
type Mistakes []*Mistake

// Error is every mistake, in the order of the files.
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

// maxDepth bounds how deep a file may nest: no file of ours nests deeper than eight.
const maxDepth = 50

var placeInError = regexp.MustCompile(`L(\d+)\.C(\d+)|line (\d+)`)

// ReadYAML begins to read a file of one document. An empty file is an empty mapping.
func ReadYAML(file string, src []byte) (*Document, error) {
	d := &Document{file: file, lines: strings.Split(string(src), "\n")}
	if at := notText(src); at >= 0 {
		line := bytes.Count(src[:at], []byte("\n"))
		d.mistake(&yaml.Node{Line: 1 + line, Column: 1 + at - (bytes.LastIndexByte(src[:at], '\n') + 1)}, Node{}, "save it as text in UTF-8", "is not text: a byte here is no UTF-8, or a control character")
		return nil, d.mistakes
	}
	var all []yaml.Node
	if err := yaml.Load(src, &all, yaml.WithAllDocuments()); err != nil {
		at := &yaml.Node{Line: 1, Column: 1}
		if m := placeInError.FindStringSubmatch(err.Error()); m != nil {
			at.Line, _ = strconv.Atoi(m[1] + m[3]) // digits, by the expression
			if m[2] != "" {
				at.Column, _ = strconv.Atoi(m[2])
			}
		}
		what := err.Error()
		if i := strings.LastIndex(what, ": "); i >= 0 {
			what = what[i+2:]
		}
		if strings.Contains(what, "anchor") { // its name may be what somebody did not quote
			what = "a value that begins with * is an alias, and stands for nothing"
		}
		d.mistake(at, Node{}, "indent with blanks, close what is open, and quote values that hold : or #", "is not YAML: "+what)
		return nil, d.mistakes
	}
	d.root = &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	if len(all) > 0 {
		if n := &all[0]; n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
			d.root = n.Content[0]
		} else if n.Kind != yaml.DocumentNode && n.Kind != 0 {
			d.root = n
		}
	}
	if len(all) > 1 {
		second := &all[1]
		if second.Kind == yaml.DocumentNode && len(second.Content) > 0 {
			second = second.Content[0]
		}
		d.mistake(second, Node{}, "write one document a file; others can be named under import", "a second document begins here, and would not be read")
	}
	if n := tooDeep(d.root, 0); n != nil {
		d.mistake(n, Node{}, "write it flatter", fmt.Sprintf("nests deeper than %d", maxDepth))
		return nil, d.mistakes
	}
	return d, nil
}

// notText is the place of the first byte that is no part of a text in UTF-8, or -1.
func notText(src []byte) int {
	for at := 0; at < len(src); {
		r, n := utf8.DecodeRune(src[at:])
		if r == utf8.RuneError && n == 1 || r < ' ' && r != '\t' && r != '\n' && r != '\r' {
			return at
		}
		at += n
	}
	return -1
}

func tooDeep(n *yaml.Node, depth int) *yaml.Node {
	if depth > maxDepth {
		return n
	}
	for _, c := range n.Content {
		if deep := tooDeep(c, depth+1); deep != nil {
			return deep
		}
	}
	return nil
}

// Root is the top of the document.
func (d *Document) Root() Node { return Node{d: d, n: d.root} }

// Err is all mistakes found so far in the order of the file, or nil.
func (d *Document) Err() error {
	if len(d.mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(d.mistakes, func(a, b *Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return d.mistakes
}

func (d *Document) mistake(at *yaml.Node, about Node, hint, what string) {
	m := &Mistake{File: d.file, Line: at.Line, Column: at.Column, Key: about.key, Rule: about.rule, What: what, Hint: hint}
	if m.Line > 0 && m.Line <= len(d.lines) {
		m.source = strings.TrimRight(d.lines[m.Line-1], "\r")
	}
	d.mistakes = append(d.mistakes, m)
}

// A Node is a place in a Document, and what it is about. The zero value is nowhere.
type Node struct {
	d         *Document
	n         *yaml.Node
	key, rule string
	over      []Node // mappings laid over this one: a key is where it was said last
}

// Mistake notes what is wrong at the node, and the remedy.
func (n Node) Mistake(hint, format string, args ...any) {
	n.d.mistake(n.n, n, hint, fmt.Sprintf(format, args...))
}

// About is the same place, and what is wrong there is wrong with a tag key.
func (n Node) About(key string) Node {
	n.key = key
	return n
}

// Of is the same place, and what is wrong there is wrong with a rule.
func (n Node) Of(rule string) Node {
	n.rule = rule
	return n
}

func (n Node) child(c *yaml.Node) Node { return Node{d: n.d, n: c, key: n.key, rule: n.rule} }

// Position is "file:line".
func (n Node) Position() string {
	if n.n == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", n.d.file, n.n.Line)
}

// Field is the value of a key of a mapping, or the mapping itself where it has no such
// key: the place to complain about.
func (n Node) Field(name string) Node {
	if v, ok := n.field(name); ok {
		return v
	}
	return n
}

// Has reports whether a mapping has a key.
func (n Node) Has(name string) bool {
	_, ok := n.field(name)
	return ok
}

func (n Node) field(name string) (Node, bool) {
	for _, over := range slices.Backward(n.over) {
		if v, ok := over.field(name); ok {
			return v, true
		}
	}
	if n.n == nil || n.n.Kind != yaml.MappingNode {
		return Node{}, false
	}
	for i := 0; i+1 < len(n.n.Content); i += 2 {
		if n.n.Content[i].Value == name {
			return n.child(n.n.Content[i+1]), true
		}
	}
	return Node{}, false
}

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
			k.unknown(key, names)
			return
		}
		f(v)
	})
}

func (n Node) unknown(key string, names []string) {
	hint := "known here are: " + sorted(names)
	if near := nearest(key, names); near != "" {
		hint = fmt.Sprintf("%s is perhaps meant; %s", near, hint)
	}
	n.Mistake(hint, "unknown key %q", key)
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
		k, v := n.child(n.n.Content[i]), n.child(n.n.Content[i+1])
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
	switch {
	case n.n.Kind == yaml.AliasNode || n.n.Anchor != "":
		n.Mistake("write the value out", "aliases and anchors are not taken")
		return ""
	case n.n.Kind != yaml.ScalarNode:
		n.Mistake("write one value", "a single value is expected here")
		return ""
	case n.n.Style&yaml.TaggedStyle != 0:
		n.Mistake("leave the tag out", "YAML tags such as %s are not taken", n.n.Tag)
		return ""
	case n.n.Tag == "!!null":
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
	if slices.Contains(allowed, text) {
		return text
	}
	hint := "one of: " + strings.Join(allowed, ", ")
	if near := nearest(text, allowed); near != "" {
		hint = fmt.Sprintf("%s is perhaps meant; %s", near, hint)
	}
	n.Mistake(hint, "%q is not known here", text)
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
			out[i] = n.child(c)
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

// nearest is the word that was perhaps meant: the one at the least edit distance, if
// that is at most a third of its letters.
func nearest(word string, known []string) string {
	if len(word) < 3 || len(word) > 64 {
		return ""
	}
	best, least := "", 1<<30
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least && d*3 <= max(len(k), 3) {
			best, least = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}

func sorted(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return strings.Join(names, ", ")
}
