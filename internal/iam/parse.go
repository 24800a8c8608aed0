// Package iam knows the policy language of AWS IAM: it reads policy documents strictly,
// and decides on a request as AWS does. It calls nobody.
//
// An element, an operator or a value that it does not know is an error, never "no match":
// a policy that was half understood must not be called proven. A condition key whose value
// nobody told is no match only where AWS would have none either; where we merely do not
// know it, the decision is Undecided.
//
// The language is that of the IAM User Guide, "IAM JSON policy reference"; what a service
// control policy may hold is in the AWS Organizations User Guide, "SCP syntax". Resource
// control policies are not part of it.
package iam

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// A Kind of document is where a policy is attached: it decides which elements it has and
// how long it may be.
type Kind string

// The kinds.
const (
	Identity       Kind = "identity policy"
	Boundary       Kind = "permissions boundary"
	Session        Kind = "session policy"
	Trust          Kind = "role trust policy"
	Resource       Kind = "resource policy"
	ServiceControl Kind = "service control policy"
	Endpoint       Kind = "VPC endpoint policy"
)

// A Limit is how many characters a document may have.
type Limit struct {
	Default int // without asking AWS
	Most    int // with a raised quota
	// Spaces says that white space between the tokens counts: it does where a document is
	// stored as sent.
	Spaces bool
}

// Limit is the limit of a kind: IAM User Guide, "IAM and AWS STS quotas"; Organizations
// User Guide, "Quotas"; Amazon VPC, "Endpoint policies". Identity is that of the inline
// policies of a role, which count together.
func (k Kind) Limit() Limit {
	switch k {
	case Identity:
		return Limit{Default: 10_240, Most: 10_240}
	case Boundary:
		return Limit{Default: 6_144, Most: 6_144}
	case Session:
		return Limit{Default: 2_048, Most: 2_048}
	case Trust:
		return Limit{Default: 2_048, Most: 4_096}
	case ServiceControl:
		// Pages of different age say 5,120 and 10,240: written within the one, read up to the other.
		return Limit{Default: 5_120, Most: 10_240, Spaces: true}
	}
	return Limit{Default: 20_480, Most: 20_480, Spaces: true}
}

func (k Kind) hasPrincipal() bool { return k == Trust || k == Resource || k == Endpoint }
func (k Kind) hasResource() bool  { return k != Trust }

// A Policy is one policy document that was read.
type Policy struct {
	Name       string // for messages; the file, or whatever the caller calls it
	Kind       Kind
	ID         string
	Version    string
	Statements []Statement
	// Size is the number of characters that count towards the limit of the kind.
	Size int
}

// Keys are the condition keys that a decision by the policy may hang on, in lower case:
// those of its conditions and of its policy variables.
func (p *Policy) Keys() []string {
	var out []string
	add := func(t pattern) {
		for _, part := range t {
			if part.variable != "" {
				out = append(out, part.variable)
			}
		}
	}
	for _, s := range p.Statements {
		for _, r := range s.resources {
			add(r)
		}
		for _, c := range s.Conditions {
			out = append(out, c.folded)
			for _, o := range c.operands {
				add(o.text)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A Statement is one statement. A list and its negation are never both there; Negated
// says which it was.
type Statement struct {
	Sid        string
	Deny       bool
	Principals []Principal // nil where the kind has none
	NotPrinc   bool        // Principals was NotPrincipal
	Actions    []string
	NotActions bool // Actions was NotAction
	Resources  []string
	NotRes     bool // Resources was NotResource
	Conditions []Condition

	actions   []string // Actions in lower case: case does not tell actions apart
	resources []pattern
}

// A Principal is one entry of a Principal element.
type Principal struct {
	Type string // AWS, Service, Federated, CanonicalUser
	ID   string // "*", an account, an ARN, a service
}

// A SyntaxError says what is wrong with a document, and where.
type SyntaxError struct {
	Name         string
	Line, Column int
	Message      string
}

// Error is the place and what is wrong.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Name, e.Line, e.Column, e.Message)
}

// Parse reads a document of a kind. The first mistake is told with its place.
func Parse(name string, kind Kind, src []byte) (*Policy, error) {
	p := &parser{name: name, kind: kind, src: src}
	root, err := p.tree()
	if err != nil {
		return nil, err
	}
	doc, err := p.document(root)
	if err != nil {
		return nil, err
	}
	doc.Size = Size(kind, src)
	if most := kind.Limit().Most; doc.Size > most {
		return nil, fmt.Errorf("%s: has %d characters, and a %s has at most %d: leave something out, or say more with one pattern", name, doc.Size, kind, most)
	}
	return doc, nil
}

// Size counts the characters of a document as AWS counts them against the limit.
func Size(kind Kind, src []byte) int {
	if kind.Limit().Spaces {
		return utf8.RuneCount(src)
	}
	compact := jsontext.Value(bytes.Clone(src))
	if compact.Compact() != nil {
		return utf8.RuneCount(src)
	}
	return utf8.RuneCount(compact)
}

// A node is one JSON value with its place.
type node struct {
	kind    jsontext.Kind
	at      int
	text    string // of a string, number or literal
	names   []string
	namesAt []int  // where the names stand
	members []node // of an object, beside names; of an array
}

type parser struct {
	name string
	kind Kind
	src  []byte
	dec  *jsontext.Decoder
}

func (p *parser) errorAt(at int, format string, args ...any) error {
	at = min(max(at, 0), len(p.src))
	before := p.src[:at]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return &SyntaxError{p.name, line, column, fmt.Sprintf(format, args...)}
}

// deepest is how far a document may nest: a condition's list of values is the sixth level.
const deepest = 8

func (p *parser) tree() (node, error) {
	if len(p.src) > 1<<20 {
		return node{}, p.errorAt(0, "the document has %d bytes; no policy has", len(p.src))
	}
	p.dec = jsontext.NewDecoder(bytes.NewReader(p.src))
	root, err := p.value(0)
	if err != nil {
		return root, err
	}
	if _, err := p.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return root, p.errorAt(int(p.dec.InputOffset()), "something follows the document")
	}
	return root, nil
}

// next is the token to come, and where it stands.
func (p *parser) next() (jsontext.Kind, int) {
	kind, at := p.dec.PeekKind(), int(p.dec.InputOffset())
	for at < len(p.src) && strings.IndexByte(" \t\r\n,:", p.src[at]) >= 0 {
		at++
	}
	return kind, at
}

func (p *parser) value(depth int) (node, error) {
	if depth > deepest {
		return node{}, p.errorAt(int(p.dec.InputOffset()), "nested too deeply for a policy")
	}
	kind, at := p.next()
	token, err := p.dec.ReadToken()
	if err != nil {
		return node{}, p.badJSON(err)
	}
	n := node{kind: kind, at: at}
	switch kind {
	case '{':
		for {
			next, nameAt := p.next()
			if next == '}' {
				break
			}
			name, err := p.dec.ReadToken()
			if err != nil {
				return n, p.badJSON(err)
			}
			text := name.String()
			member, err := p.value(depth + 1)
			if err != nil {
				return n, err
			}
			n.names, n.namesAt, n.members = append(n.names, text), append(n.namesAt, nameAt), append(n.members, member)
		}
	case '[':
		for p.dec.PeekKind() != ']' {
			member, err := p.value(depth + 1)
			if err != nil {
				return n, err
			}
			n.members = append(n.members, member)
		}
	default:
		n.text = token.String()
		return n, nil
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return n, p.badJSON(err)
	}
	return n, nil
}

func (p *parser) badJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return p.errorAt(len(p.src), "the document ends too early")
	}
	at := int(p.dec.InputOffset())
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at = int(s.ByteOffset)
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return p.errorAt(at, "the same member stands here twice: AWS would read one of them")
		}
		return p.errorAt(at, "not JSON: %v", s.Err)
	}
	return p.errorAt(at, "not JSON: %v", err)
}

func (p *parser) document(root node) (*Policy, error) {
	if root.kind != '{' {
		return nil, p.errorAt(root.at, "a policy is an object")
	}
	doc := &Policy{Name: p.name, Kind: p.kind, Version: "2008-10-17"} // what AWS takes where none is written
	var statements *node
	for i, name := range root.names {
		m := root.members[i]
		var err error
		switch name {
		case "Version":
			if doc.Version, err = p.text(m, name); err == nil && doc.Version != "2012-10-17" && doc.Version != "2008-10-17" {
				err = p.errorAt(m.at, "Version %q is neither 2012-10-17 nor 2008-10-17", doc.Version)
			}
		case "Id":
			doc.ID, err = p.text(m, name)
		case "Statement":
			statements = &root.members[i]
		default:
			err = p.errorAt(root.namesAt[i], "%q is no element of a policy; it has Version, Id and Statement", name)
		}
		if err != nil {
			return nil, err
		}
	}
	if statements == nil {
		return nil, p.errorAt(root.at, "Statement is missing")
	}
	list := []node{*statements}
	if statements.kind == '[' {
		list = statements.members
	}
	if len(list) == 0 {
		return nil, p.errorAt(statements.at, "Statement is empty")
	}
	sids := make(map[string]bool)
	for _, n := range list {
		s, err := p.statement(n, doc.Version == "2012-10-17")
		if err != nil {
			return nil, err
		}
		if s.Sid != "" && sids[s.Sid] {
			return nil, p.errorAt(n.at, "Sid %q stands twice; it is unique within a policy", s.Sid)
		}
		sids[s.Sid] = true
		doc.Statements = append(doc.Statements, s)
	}
	return doc, nil
}

var (
	sidText    = regexp.MustCompile(`^[A-Za-z0-9]*$`)
	sidLoose   = regexp.MustCompile(`^[\x20-\x7e]*$`)
	actionText = regexp.MustCompile(`^[A-Za-z0-9-]+:[A-Za-z0-9*?]+$`)
	keyText    = regexp.MustCompile(`^[A-Za-z0-9-]+:[A-Za-z0-9._:/=+@ -]+$`)
)

func (p *parser) statement(n node, variables bool) (s Statement, err error) {
	if n.kind != '{' {
		return s, p.errorAt(n.at, "a statement is an object")
	}
	has := make(map[string]bool)
	for i, name := range n.names {
		m := n.members[i]
		has[name] = true
		switch name {
		case "Sid":
			loose := p.kind == Resource || p.kind == Endpoint || p.kind == ServiceControl
			if s.Sid, err = p.text(m, name); err == nil && !sidText.MatchString(s.Sid) && (!loose || !sidLoose.MatchString(s.Sid)) {
				err = p.errorAt(m.at, "Sid %q has other characters than letters and digits", s.Sid)
			}
		case "Effect":
			var effect string
			if effect, err = p.text(m, name); err == nil && effect != "Allow" && effect != "Deny" {
				err = p.errorAt(m.at, "Effect %q is neither Allow nor Deny", effect)
			}
			s.Deny = effect == "Deny"
		case "Action", "NotAction":
			s.NotActions = name == "NotAction"
			s.Actions, err = p.actions(m, name)
			for _, a := range s.Actions {
				s.actions = append(s.actions, strings.ToLower(a))
			}
		case "Resource", "NotResource":
			s.NotRes = name == "NotResource"
			s.Resources, s.resources, err = p.resources(m, name, variables)
		case "Principal", "NotPrincipal":
			s.NotPrinc = name == "NotPrincipal"
			s.Principals, err = p.principals(m, name)
		case "Condition":
			s.Conditions, err = p.conditions(m, variables)
		default:
			err = p.errorAt(n.namesAt[i], "%q is no element of a statement", name)
		}
		if err != nil {
			return s, err
		}
	}
	one := func(element string) bool { return has[element] != has["Not"+element] }
	switch {
	case !has["Effect"]:
		err = p.errorAt(n.at, "Effect is missing")
	case !one("Action"):
		err = p.errorAt(n.at, "a statement has either Action or NotAction")
	case p.kind.hasResource() && !one("Resource"):
		err = p.errorAt(n.at, "a statement has either Resource or NotResource")
	case !p.kind.hasResource() && (has["Resource"] || has["NotResource"]):
		err = p.errorAt(n.at, "a %s has no Resource: it is the role's own", p.kind)
	case p.kind.hasPrincipal() && !one("Principal"):
		err = p.errorAt(n.at, "a statement of a %s has either Principal or NotPrincipal", p.kind)
	case !p.kind.hasPrincipal() && (has["Principal"] || has["NotPrincipal"]):
		err = p.errorAt(n.at, "a %s has no Principal: it is whom it is attached to", p.kind)
	case s.NotPrinc && p.kind == Trust:
		err = p.errorAt(n.at, "a %s has no NotPrincipal", p.kind)
	case s.NotPrinc && !s.Deny:
		err = p.errorAt(n.at, "NotPrincipal stands with Deny only: with Allow it lets in everybody else")
	}
	return s, err
}

func (p *parser) text(n node, what string) (string, error) {
	if n.kind != '"' {
		return "", p.errorAt(n.at, "%s is a text", what)
	}
	return n.text, nil
}

// texts reads a text or a list of them, which may not be empty.
func (p *parser) texts(n node, what string) ([]node, error) {
	list := []node{n}
	if n.kind == '[' {
		list = n.members
	}
	if len(list) == 0 {
		return nil, p.errorAt(n.at, "%s is empty", what)
	}
	for _, m := range list {
		if m.kind != '"' {
			return nil, p.errorAt(m.at, "%s holds texts", what)
		}
	}
	return list, nil
}

func (p *parser) actions(n node, what string) ([]string, error) {
	list, err := p.texts(n, what)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range list {
		if m.text != "*" && !actionText.MatchString(m.text) {
			return nil, p.errorAt(m.at, "%s %q is neither * nor service:Action; wildcards stand after the colon", what, m.text)
		}
		out = append(out, m.text)
	}
	return out, nil
}

func (p *parser) resources(n node, what string, variables bool) ([]string, []pattern, error) {
	list, err := p.texts(n, what)
	if err != nil {
		return nil, nil, err
	}
	var out []string
	var patterns []pattern
	for _, m := range list {
		if m.text != "*" && (!strings.HasPrefix(m.text, "arn:") || strings.Count(m.text, ":") < 5) {
			return nil, nil, p.errorAt(m.at, "%s %q is neither * nor an ARN of six parts", what, m.text)
		}
		pt, err := compile(m.text, variables)
		if err != nil {
			return nil, nil, p.errorAt(m.at, "%s %q: %v", what, m.text, err)
		}
		out, patterns = append(out, m.text), append(patterns, pt)
	}
	return out, patterns, nil
}

var (
	accountText = regexp.MustCompile(`^[0-9]{12}$`)
	serviceText = regexp.MustCompile(`^[a-z0-9.-]+\.amazonaws\.(com|com\.cn|eu)$`)
	awsARN      = regexp.MustCompile(`^arn:[a-z0-9-]+:(iam|sts)::[0-9]{12}:(root|(user|role|assumed-role|federated-user)/[^*?]+)$`)
	uniqueID    = regexp.MustCompile(`^A[A-Z0-9]{15,}$`) // what AWS puts in place of a deleted user or role
)

func (p *parser) principals(n node, what string) ([]Principal, error) {
	if n.kind == '"' {
		if n.text != "*" {
			return nil, p.errorAt(n.at, "%s is * or an object such as {\"AWS\": ...}", what)
		}
		return []Principal{{"*", "*"}}, nil
	}
	if n.kind != '{' || len(n.names) == 0 {
		return nil, p.errorAt(n.at, "%s is * or an object such as {\"AWS\": ...}", what)
	}
	var out []Principal
	for i, name := range n.names {
		list, err := p.texts(n.members[i], what)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			good := false
			switch name {
			case "AWS":
				good = m.text == "*" || accountText.MatchString(m.text) || awsARN.MatchString(m.text) || uniqueID.MatchString(m.text)
			case "Service":
				good = serviceText.MatchString(m.text)
			case "Federated", "CanonicalUser":
				good = m.text != "" && !strings.ContainsAny(m.text, "*?")
			default:
				return nil, p.errorAt(n.namesAt[i], "%q is no kind of principal; there are AWS, Service, Federated and CanonicalUser", name)
			}
			if !good {
				return nil, p.errorAt(m.at, "%q is no %s principal; * stands alone or not at all", m.text, name)
			}
			out = append(out, Principal{name, m.text})
		}
	}
	return out, nil
}

func (p *parser) conditions(n node, variables bool) ([]Condition, error) {
	if n.kind != '{' {
		return nil, p.errorAt(n.at, "Condition is an object of operators")
	}
	var out []Condition
	for i, name := range n.names {
		op, err := parseOperator(name)
		if err != nil {
			return nil, p.errorAt(n.namesAt[i], "%v", err)
		}
		keys := n.members[i]
		if keys.kind != '{' || len(keys.names) == 0 {
			return nil, p.errorAt(keys.at, "%s holds an object of condition keys", name)
		}
		seen := make(map[string]bool)
		for j, key := range keys.names {
			m := keys.members[j]
			if !keyText.MatchString(key) {
				return nil, p.errorAt(keys.namesAt[j], "%q is no condition key, such as aws:PrincipalArn", key)
			}
			if folded := strings.ToLower(key); seen[folded] {
				return nil, p.errorAt(keys.namesAt[j], "condition key %q stands twice: case does not tell keys apart", key)
			} else {
				seen[folded] = true
			}
			c := Condition{Operator: name, Key: key, op: op, folded: strings.ToLower(key)}
			list := []node{m}
			if m.kind == '[' {
				list = m.members
			}
			if len(list) == 0 {
				return nil, p.errorAt(m.at, "%s of %s has no value", name, key)
			}
			for _, v := range list {
				if !slices.Contains([]jsontext.Kind{'"', '0', 't', 'f'}, v.kind) {
					return nil, p.errorAt(v.at, "%s of %s holds a text, a number or a truth value", name, key)
				}
				operand, err := op.operand(v.text, variables)
				if err != nil {
					return nil, p.errorAt(v.at, "%s of %s: %v", name, key, err)
				}
				c.Values, c.operands = append(c.Values, v.text), append(c.operands, operand)
			}
			out = append(out, c)
		}
	}
	return out, nil
}
