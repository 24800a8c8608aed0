package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

type carrierSet []Carrier

func (s carrierSet) String() string {
	texts := make([]string, len(s))
	for i, c := range s {
		texts[i] = string(c)
	}
	return strings.Join(texts, ", ")
}

// A Mode says what a violation does.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // the call is refused
	Warn    Mode = "warn"    // the call passes without the bad tag, and is marked
	Observe Mode = "observe" // the call passes, the tag stays on the request, and it is recorded
)

// strictness orders modes.
func (m Mode) strictness() int {
	switch m {
	case Enforce:
		return 2
	case Warn:
		return 1
	}
	return 0
}

// Values that stand for others.
const (
	otherValue    = "other"    // for values beyond the declared bound
	redactedValue = "redacted" // for values that must not be seen
)

// identitySource says which part of the caller's identity a value comes from.
type identitySource uint8

const (
	fromNowhere identitySource = iota
	fromSubject
	fromIssuer
	fromKey
	fromClaim
	fromCallID
)

// A key is what the policy says of one tag key.
type key struct {
	name        string
	index       int
	description string
	required    bool
	forbid      bool
	from        identitySource
	claim       string // of fromClaim
	fromText    string
	values      []string
	spelling    map[string]string // values and aliases to values; in lower case if fold
	retired     map[string]string // deprecated values, likewise
	fold        bool
	pattern     *regexp.Regexp
	patternText string
	ranged      bool
	min, max    int64
	maxLength   int
	longest     int // of what can leave
	replace     byte
	fallback    string // the default
	hasFall     bool
	settled     bool // the default is kept as it is, whenever and of whomever
	deprecated  *DeprecatedFile
	use         int // key that takes the place of a deprecated one, or -1
	hash        bool
	sensitive   string // empty: the policy's
	carriers    carrierSet
	high        bool
	limit       int // distinct values; 0 is no bound
	action      string
	days        int
	mode        Mode
	at          Node
	position    string
}

func (k *key) on(c Carrier) bool { return slices.Contains(k.carriers, c) }

// spellings is the value that a text stands for.
func (k *key) spellings(text string) (string, bool) {
	if v, ok := k.spelling[text]; ok {
		return v, true
	}
	if k.fold {
		v, ok := k.spelling[strings.ToLower(text)]
		return v, ok
	}
	return "", false
}

func (k *key) inRange(text string) bool {
	v, err := strconv.ParseInt(text, 10, 64)
	return err == nil && strconv.FormatInt(v, 10) == text && v >= k.min && v <= k.max
}

type rule struct {
	when     Condition
	name     string
	number   int
	require  []int
	forbid   []int
	allow    []allowed
	mode     Mode
	position string
}

// title is how people know the rule.
func (r *rule) title() string {
	if r.name == "" {
		return fmt.Sprintf("rule %d", r.number)
	}
	return fmt.Sprintf("rule %d (%s)", r.number, r.name)
}

// because is the rule's condition for a message; a rule that is nil has none.
func (r *rule) because() string {
	if r == nil {
		return ""
	}
	return " when " + r.when.String()
}

type allowed struct {
	key    int
	values []string
}

type application struct {
	when     Condition
	name     string
	tags     []assigned
	position string
}

type assigned struct {
	key   int
	value string
}

type rollout struct {
	when     Condition
	keys     []int // none means all
	mode     Mode
	position string
}

// A segment of the session name is a text, or the name of a key or fact.
type segment struct {
	text string
	name string
	key  int // -1 for a fact
}

// A Template is a name that is made of what a call has: see Policy.ReadTemplate. The zero
// value is no name.
type Template struct{ segments []segment }

// IsZero reports whether there is no template.
func (t Template) IsZero() bool { return len(t.segments) == 0 }

// A Policy is a parsed tag policy. It is immutable and may be shared.
type Policy struct {
	keys            []*key
	byTag           []int          // indexes of keys in the order of their names
	byName          map[string]int // names and aliases of keys
	byFold          map[string]int // the same in lower case
	rules           []rule
	applications    []application
	rollout         []rollout
	reorganisations []reorganisation // by the day on which they begin
	unknown         string           // keys nobody declared: drop, refuse or pass
	mode            Mode
	sensitive       string
	session         []segment
	budget          int
	drop            []string // optional session tags, in the order in which they are given up
	version         string
	revision        string
	epochs          []*epoch // oldest first
	warnings        []string
}

// Version names the policy by its content, imports included: the first 12 digits of
// its SHA-256.
func (p *Policy) Version() string { return p.version }

// Revision is the owner's own name of this state of the policy, or empty.
func (p *Policy) Revision() string { return p.revision }

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

// KeysOn lists the keys that ride on a carrier, in the order of the file.
func (p *Policy) KeysOn(c Carrier) []string {
	var out []string
	for _, k := range p.keys {
		if k.on(c) {
			out = append(out, k.name)
		}
	}
	return out
}

// Hashes reports whether a key's values become pseudonyms, all of them.
func (p *Policy) Hashes() bool {
	return slices.ContainsFunc(p.keys, func(k *key) bool { return k.hash })
}

// Required lists the keys that every call must have.
func (p *Policy) Required() []string {
	var out []string
	for _, k := range p.keys {
		if k.required {
			out = append(out, k.name)
		}
	}
	return out
}

// keyIndex is the index of a key under any of its names in any case, or -1.
func (p *Policy) keyIndex(name string) int {
	if i, ok := p.byName[name]; ok {
		return i
	}
	if len(name) > maxKeyLength {
		return -1
	}
	if i, ok := p.byFold[strings.ToLower(name)]; ok {
		return i
	}
	return -1
}

// Options are what a policy needs that does not belong into its file.
type Options struct {
	// HashKey is the secret of hashing where there is one for all time: epoch "1".
	HashKey []byte
	// Epochs are the secrets of hashing, rotated: see ParseEpochs. A policy that
	// hashes and has no secret is refused.
	Epochs []Epoch
	// Open reads a file that a policy imports, named relative to where Parse's file
	// name is. Nil refuses imports.
	Open func(name string) ([]byte, error)
}

// Parse reads a policy file and what it imports. It returns every mistake at once, as
// Mistakes.
func Parse(file string, src []byte, o Options) (*Policy, error) {
	l := &loader{open: o.Open, seen: make(map[string]bool)}
	l.load(file, src, 0)
	p := &Policy{byName: make(map[string]int), byFold: make(map[string]int)}
	if err := p.addEpochs(o); err != nil {
		return nil, err
	}
	if f := l.combine(); f != nil && len(l.broken) == 0 {
		p.compile(f, o)
	}
	if m := l.mistakes(); len(m) > 0 {
		return nil, m
	}
	sum := sha256.New()
	for _, f := range l.files {
		fmt.Fprintf(sum, "%d\n", len(f.src)) // so that two texts cannot be cut otherwise
		sum.Write(f.src)
	}
	p.version = hex.EncodeToString(sum.Sum(nil)[:6])
	return p, nil
}

// Declares reports whether a key of that exact name is declared.
func (p *Policy) Declares(name string) bool {
	i, ok := p.byName[name]
	return ok && p.keys[i].name == name
}

// Bound is how many distinct values a key may have; 0 means that nothing bounds it but
// its list of values.
func (p *Policy) Bound(name string) int {
	if i, ok := p.byName[name]; ok {
		return p.keys[i].limit
	}
	return 0
}
