package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// AWS's limits on its carriers. Sources: the request metadata page and API model of
// bedrock-runtime, the API model of STS.
const (
	maxRequestTags  = 16
	maxSessionTags  = 50
	maxKeyLength    = 128 // the smaller of STS's 128 and request metadata's 256
	maxValueLength  = 256
	maxSessionName  = 64
	minSessionName  = 2
	packedSizeLimit = 10 // tags that STS packs without trouble; more are warned about
)

// A Carrier takes tags to AWS.
type Carrier string

// The carriers.
const (
	OnRequest   Carrier = "request"   // request metadata: invocation logs
	OnSession   Carrier = "session"   // STS session tags: the bill
	OnPrincipal Carrier = "principal" // tags of the role itself: set up by the control plane
	OnResource  Carrier = "resource"  // profile, project, workspace: chosen, not stamped
)

// A Mode says what a violation does.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // the call is refused
	Warn    Mode = "warn"    // the call passes, and is marked
	Observe Mode = "observe" // the call passes, and is recorded only
)

// A key is what the policy says of one tag key.
type key struct {
	name     string
	required bool
	forbid   bool
	from     string // identity: caller.subject, caller.issuer, caller.key, claims.NAME
	values   []string
	aliases  map[string]string
	fold     bool
	pattern  *regexp.Regexp
	fallback string // the default
	hasFall  bool
	hash     bool // transform: hmac
	carriers []Carrier
	high     bool // high cardinality
	mode     Mode
	position string
}

func (k *key) on(c Carrier) bool { return slices.Contains(k.carriers, c) }

type rule struct {
	when     Condition
	require  []string
	forbid   []string
	position string
}

// A Policy is a parsed tag policy. It is immutable and may be shared.
type Policy struct {
	keys     []*key
	byName   map[string]*key
	rules    []rule
	unknown  string // keys nobody declared: drop, refuse or pass
	mode     Mode
	session  string // template of the session name
	version  string
	hashKey  []byte
	warnings []string
}

// Version names the policy by its content: the first 12 digits of its SHA-256.
func (p *Policy) Version() string { return p.version }

// Warnings are what is allowed and unwise, as positions and texts.
func (p *Policy) Warnings() []string { return p.warnings }

// Keys lists the declared tag keys, in the order of the file.
func (p *Policy) Keys() []string {
	out := make([]string, len(p.keys))
	for i, k := range p.keys {
		out[i] = k.name
	}
	return out
}

// SessionKeys lists the keys that ride on role sessions.
func (p *Policy) SessionKeys() []string {
	var out []string
	for _, k := range p.keys {
		if k.on(OnSession) {
			out = append(out, k.name)
		}
	}
	return out
}

// Options are what a policy needs that does not belong into its file.
type Options struct {
	// HashKey is the secret of `transform: hmac`, at least 16 bytes. A policy that
	// hashes and has none is refused.
	HashKey []byte
}

// Parse reads a policy file. It returns every mistake at once, as Mistakes.
func Parse(file string, src []byte, o Options) (*Policy, error) {
	d, err := ReadYAML(file, src)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(src)
	p := &Policy{byName: make(map[string]*key), unknown: "drop", mode: Enforce, hashKey: o.HashKey, version: hex.EncodeToString(sum[:6])}
	d.Root().Fields(map[string]func(Node){
		"version": func(n Node) { n.OneOf("1") },
		"mode":    func(n Node) { p.mode = Mode(n.OneOf("enforce", "warn", "observe")) },
		"unknown": func(n Node) { p.unknown = n.OneOf("drop", "refuse", "pass") },
		"session": func(n Node) {
			n.Fields(map[string]func(Node){"name": func(n Node) { p.session = n.Text(); p.checkTemplate(n) }})
		},
		"tags": func(n Node) {
			n.Fields(map[string]func(Node){
				"keys":  func(n Node) { n.Each(p.readKey) },
				"rules": func(n Node) { p.readRules(n) },
			})
		},
	})
	p.check(d.Root())
	if err := d.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) readKey(name string, at, n Node) {
	k := &key{name: name, carriers: []Carrier{OnRequest}, position: at.Position(), aliases: map[string]string{}}
	if what := badText(name, 1, maxKeyLength); what != "" {
		at.Mistake("use letters, digits, space and _ . : / = + - @", "tag key %q %s", name, what)
	}
	if lower := strings.ToLower(name); strings.HasPrefix(lower, "aws:") {
		at.Mistake("choose another name", "tag key %q begins with aws:, which AWS keeps for itself", name)
	}
	for _, other := range p.keys {
		if strings.EqualFold(other.name, name) {
			at.Mistake("keep one spelling", "tag keys %q and %q (%s) differ in case only: STS takes them for one", name, other.name, other.position)
		}
	}
	var patternAt, valuesAt, carriersAt Node
	n.Fields(map[string]func(Node){
		"required":        func(n Node) { k.required = n.Bool() },
		"forbidden":       func(n Node) { k.forbid = n.Bool() },
		"description":     func(n Node) { n.Text() },
		"from":            func(n Node) { k.from = n.Text(); checkFrom(n, k.from) },
		"values":          func(n Node) { valuesAt = n; k.values = n.Texts() },
		"foldCase":        func(n Node) { k.fold = n.Bool() },
		"default":         func(n Node) { k.fallback, k.hasFall = n.Text(), true },
		"transform":       func(n Node) { k.hash = n.OneOf("hmac") == "hmac" },
		"highCardinality": func(n Node) { k.high = n.Bool() },
		"mode":            func(n Node) { k.mode = Mode(n.OneOf("enforce", "warn", "observe")) },
		"aliases": func(n Node) {
			n.Each(func(alias string, _, v Node) { k.aliases[alias] = v.Text() })
		},
		"pattern": func(n Node) {
			patternAt = n
			re, err := regexp.Compile("^(?:" + n.Text() + ")$")
			if err != nil {
				n.Mistake("see https://pkg.go.dev/regexp/syntax", "pattern of %q is not a regular expression", name)
				return
			}
			k.pattern = re
		},
		"carriers": func(n Node) {
			carriersAt = n
			k.carriers = nil
			for _, c := range n.List() {
				k.carriers = append(k.carriers, Carrier(c.OneOf("request", "session", "principal", "resource")))
			}
		},
	})
	for _, v := range append(slices.Clone(k.values), k.fallback) {
		if what := badText(v, 0, maxValueLength); what != "" {
			valuesAt.orElse(n).Mistake("use letters, digits, space and _ . : / = + - @", "value %q of %q %s", v, name, what)
		}
	}
	for alias, target := range k.aliases {
		if len(k.values) > 0 && !slices.Contains(k.values, target) {
			n.Mistake("name one of its values", "alias %q of %q stands for %q, which is not among its values", alias, name, target)
		}
	}
	if k.hasFall && len(k.values) > 0 && !slices.Contains(k.values, k.fallback) {
		n.Mistake("name one of its values", "default %q of %q is not among its values", k.fallback, name)
	}
	if k.hasFall && k.pattern != nil && !k.pattern.MatchString(k.fallback) {
		patternAt.Mistake("change one of the two", "default %q of %q does not match its pattern", k.fallback, name)
	}
	if k.required && k.forbid {
		n.Mistake("keep one of the two", "tag key %q is required and forbidden", name)
	}
	if k.hash && len(k.values) > 0 {
		n.Mistake("drop one of the two", "values of %q are listed and hashed: a hash is never one of them", name)
	}
	if k.hash && len(p.hashKey) < 16 {
		n.Mistake("give waybilld a hash key of 16 bytes or more", "tag key %q is hashed, and there is no secret to hash with", name)
	}
	if k.high && (k.on(OnSession) || k.on(OnPrincipal) || k.on(OnResource)) {
		carriersAt.orElse(n).Mistake("carriers: [request]", "tag key %q is of high cardinality and rides on %s: every value would make its own role session, STS call and rows of the bill", name, k.carriers)
	}
	p.keys = append(p.keys, k)
	p.byName[name] = k
}

func (n Node) orElse(m Node) Node {
	if n.d == nil {
		return m
	}
	return n
}

func (p *Policy) readRules(n Node) {
	for _, item := range n.List() {
		r := rule{position: item.Position()}
		item.Fields(map[string]func(Node){
			"when":    func(n Node) { r.when = ReadCondition(n) },
			"require": func(n Node) { r.require = p.readKeyNames(n) },
			"forbid":  func(n Node) { r.forbid = p.readKeyNames(n) },
		})
		if len(r.require)+len(r.forbid) == 0 {
			item.Mistake("add require: [key] or forbid: [key]", "the rule does nothing")
		}
		p.rules = append(p.rules, r)
	}
}

func (p *Policy) readKeyNames(n Node) []string {
	for _, item := range n.List() {
		if p.byName[item.Text()] == nil {
			item.Mistake("declare it under tags.keys, above the rules", "rule names tag key %q, which is not declared", item.Text())
		}
	}
	return n.Texts()
}

func (p *Policy) check(root Node) {
	var request, session int
	for _, k := range p.keys {
		if k.on(OnRequest) {
			request++
		}
		if k.on(OnSession) {
			session++
		}
	}
	if request > maxRequestTags {
		root.Mistake("take some keys off the request carrier", "%d keys ride on request metadata, which takes %d", request, maxRequestTags)
	}
	if session > maxSessionTags {
		root.Mistake("take some keys off the session carrier", "%d keys ride on the session, which takes %d", session, maxSessionTags)
	}
	if session > packedSizeLimit {
		p.warnings = append(p.warnings, fmt.Sprintf("%d keys ride on the session: STS packs tags into a space of its own, and about %d short ones are safe", session, packedSizeLimit))
	}
}

func checkFrom(n Node, from string) {
	if from == "caller.subject" || from == "caller.issuer" || from == "caller.key" || strings.HasPrefix(from, "claims.") && len(from) > 7 {
		return
	}
	n.Mistake("one of: caller.subject, caller.issuer, caller.key, claims.NAME", "%q is no source of identity", from)
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

func (p *Policy) checkTemplate(n Node) {
	for _, name := range placeholder.FindAllString(p.session, -1) {
		name = name[1 : len(name)-1]
		if k := p.byName[name]; k != nil && k.high {
			n.Mistake("name a key with few, stable values", "session name is made of %q, which is of high cardinality: every value would make its own STS call and rows of the bill", name)
		}
	}
}

// badText says what is wrong with a key or value for the characters that both STS
// tags and request metadata take: letters, digits, space and _ . : / = + - @.
func badText(s string, shortest, longest int) string {
	switch {
	case len(s) < shortest:
		return "is empty"
	case utf8.RuneCountInString(s) > longest:
		return fmt.Sprintf("is longer than %d characters", longest)
	}
	for i, c := range []byte(s) {
		if !commonCharacter(c) {
			return "has a character that AWS does not take on every carrier"
		}
		if c == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			return "has a blank at an end, or two in a row, which signing folds"
		}
	}
	return ""
}

func commonCharacter(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte(" _.:/=+-@", c) >= 0
}
