package policy

import (
	"strconv"

	"github.com/waybill-dev/waybill"
)

// A File is a tag policy as it is written. The comments of its fields are the
// reference of the language: the JSON Schema and docs/operate/policy.md are made of
// them. In the tag `jsonschema`, enum lists what a field may hold.
type File struct {
	At Node `yaml:"-"`
	// Version of the language. It is 1.
	Version string `yaml:"version" jsonschema:"enum=1"`
	// Revision is the owner's own name of this state of the policy, such as a date.
	// The gateway's records name a policy by a digest of its text in any case.
	Revision string `yaml:"revision"`
	// Import names policy files, relative to this one, whose keys and rules hold here
	// too: the vocabulary of an organisation. What is imported can be narrowed here
	// (fewer values, fewer carriers, required, a smaller bound), never widened; the mode
	// is each gateway's own.
	Import Texts `yaml:"import"`
	// Mode says what a violation does where nothing nearer says otherwise: enforce
	// refuses the call; warn lets it pass and marks it, without a value that is not of
	// the vocabulary; observe lets it pass and records it, and keeps such a value on the
	// request where AWS takes it.
	Mode Mode `yaml:"mode" jsonschema:"enum=enforce,enum=warn,enum=observe"`
	// Unknown says what happens to tags that a request brings and no key declares:
	// drop leaves them out, refuse is a violation, pass carries them on the request.
	Unknown string `yaml:"unknown" jsonschema:"enum=drop,enum=refuse,enum=pass"`
	// Sensitive says what happens to values that look like personal data or secrets,
	// where the key does not say it: reject is a violation, hash puts a pseudonym in
	// the value's place, redact puts the word "redacted", allow does not look.
	Sensitive string `yaml:"sensitive" jsonschema:"enum=reject,enum=hash,enum=redact,enum=allow"`
	// Session names the role session.
	Session SessionFile `yaml:"session"`
	// Tags are the vocabulary.
	Tags TagsFile `yaml:"tags"`
	// Applications give tags to the calls of known callers. A request cannot override
	// them; what the caller's identity or registration says goes before them.
	Applications []ApplicationFile `yaml:"applications"`
	// Rollout sets the mode for some callers, to roll the policy out team by team. The
	// first entry that holds and covers the key decides.
	Rollout []RolloutFile `yaml:"rollout"`
	// Reorganisations say which values became which others, and when.
	Reorganisations []ReorganisationFile `yaml:"reorganisations"`
}

// A SessionFile is how role sessions are named.
type SessionFile struct {
	At Node `yaml:"-"`
	// Name is the role session's name, which finance sees in the bill. {caller},
	// {issuer}, {claims.NAME} and {KEY} stand for what the call has. What is long or
	// has characters that STS does not take is shortened to a name with a digest.
	Name string `yaml:"name"`
	// Budget bounds the text of the session's tags, keys and values together. AWS packs
	// them into a space of its own and publishes no formula; 2048 characters is the
	// figure it gives for session policies, and the default.
	Budget int `yaml:"budget"`
}

// TagsFile are keys and rules.
type TagsFile struct {
	At Node `yaml:"-"`
	// Keys are the tag keys, by name. Their order matters where AWS has no room:
	// optional session tags that are declared last are given up first.
	Keys Ordered[KeyFile] `yaml:"keys"`
	// Rules are demands that hold under a condition.
	Rules []RuleFile `yaml:"rules"`
}

// A KeyFile is what the policy says of one tag key.
type KeyFile struct {
	At Node `yaml:"-"`
	// Description says what the key is for.
	Description string `yaml:"description"`
	// Required keys must have a value on every call that spends.
	Required bool `yaml:"required"`
	// Forbidden keys must not be sent.
	Forbidden bool `yaml:"forbidden"`
	// From names the identity that the value comes from: caller.subject,
	// caller.issuer, caller.key or claims.NAME; or call.id, the gateway's id of the
	// call. A request can never override it.
	From string `yaml:"from"`
	// Values are the values that the key may have. None means any.
	Values Texts `yaml:"values"`
	// Aliases are other spellings, by the value they stand for another of.
	Aliases Ordered[string] `yaml:"aliases"`
	// DeprecatedValues are old values and what they are now. They are taken, replaced
	// and recorded.
	DeprecatedValues Ordered[string] `yaml:"deprecatedValues"`
	// KeyAliases are other spellings of the key itself, as callers send them.
	KeyAliases Texts `yaml:"keyAliases"`
	// FoldCase takes values in any case. Values without a list become lower case.
	FoldCase bool `yaml:"foldCase"`
	// Pattern is a regular expression (RE2) that the whole value must match.
	Pattern string `yaml:"pattern"`
	// Range bounds values that are whole numbers.
	Range *RangeFile `yaml:"range"`
	// MaxLength bounds the value, in characters. AWS takes 256.
	MaxLength int `yaml:"maxLength"`
	// ReplaceCharacters takes the place of characters that AWS does not take. Without
	// it such a value is a violation.
	ReplaceCharacters string `yaml:"replaceCharacters" jsonschema:"enum=-,enum=_,enum=."`
	// Default is the value of calls that bring none.
	Default *string `yaml:"default"`
	// Deprecated keys are taken and recorded; use names the key that takes the value.
	Deprecated *DeprecatedFile `yaml:"deprecated"`
	// Transform hmac puts a keyed hash in the place of every value.
	Transform string `yaml:"transform" jsonschema:"enum=hmac"`
	// Sensitive says what happens to values that look like personal data or secrets.
	Sensitive string `yaml:"sensitive" jsonschema:"enum=reject,enum=hash,enum=redact,enum=allow"`
	// Carriers take the tag to AWS: request (request metadata, seen in invocation
	// logs; the default), session (seen in the bill), principal (on the role itself),
	// resource (on profiles, projects and workspaces).
	Carriers Carriers `yaml:"carriers"`
	// HighCardinality keys have a value of their own for each call, or nearly. They
	// ride on the request only.
	HighCardinality bool `yaml:"highCardinality"`
	// MaxDistinct bounds how many values the key has: a number, or a number with what
	// happens at it.
	MaxDistinct *DistinctFile `yaml:"maxDistinct"`
	// Mode of the key's violations.
	Mode Mode `yaml:"mode" jsonschema:"enum=enforce,enum=warn,enum=observe"`
}

// A RangeFile bounds whole numbers, both ends included.
type RangeFile struct {
	// Min is the least value.
	Min Whole `yaml:"min"`
	// Max is the greatest value.
	Max Whole `yaml:"max"`
}

// A DeprecatedFile says that a key is on its way out.
type DeprecatedFile struct {
	// Use is the key that takes its place.
	Use string `yaml:"use"`
	// Note is for those who still send it.
	Note string `yaml:"note"`
}

// A DistinctFile bounds how many distinct values a key has.
type DistinctFile struct {
	At Node `yaml:"-"`
	// Limit is how many values there may be.
	Limit int `yaml:"limit"`
	// Action is what happens to a new value beyond the limit: reject is a violation,
	// other puts the word "other" in its place, observe counts it.
	Action string `yaml:"action" jsonschema:"enum=reject,enum=other,enum=observe"`
	// Days after which a value that was not seen again no longer counts. The default
	// is 30.
	Days int `yaml:"days"`
}

func (d *DistinctFile) fromNode(n Node) bool {
	if n.IsMapping() {
		return false
	}
	d.Limit = n.whole()
	return true
}

// A RuleFile is a demand that holds under a condition.
type RuleFile struct {
	At Node `yaml:"-"`
	// Name says what the rule is for. Refusals name it.
	Name string `yaml:"name"`
	// When is the condition: every key named has one of its values, in which * stands
	// for any text; not holds an exception. Keys are tag keys, or model, modelId,
	// operation, endpoint, region, caller, issuer, claims.NAME.
	When Condition `yaml:"when"`
	// Require names keys that must have a value.
	Require Texts `yaml:"require"`
	// Forbid names keys that must have none.
	Forbid Texts `yaml:"forbid"`
	// Allow narrows the values of keys.
	Allow Ordered[Texts] `yaml:"allow"`
	// Mode of the rule's violations.
	Mode Mode `yaml:"mode" jsonschema:"enum=enforce,enum=warn,enum=observe"`
}

// An ApplicationFile gives tags to the calls of known callers.
type ApplicationFile struct {
	At Node `yaml:"-"`
	// Name of the application, for people.
	Name string `yaml:"name"`
	// When is the condition on the caller: caller, issuer, claims.NAME, model,
	// modelId, operation, endpoint, region.
	When Condition `yaml:"when"`
	// Tags that the calls get.
	Tags Ordered[string] `yaml:"tags"`
}

// A RolloutFile sets the mode for some callers.
type RolloutFile struct {
	At Node `yaml:"-"`
	// When is the condition on the call. A tag that requests may send lets the caller
	// choose the mode; caller, issuer, claims.NAME and tags from identity do not.
	When Condition `yaml:"when"`
	// Keys that it covers; none means all.
	Keys Texts `yaml:"keys"`
	// Mode of violations.
	Mode Mode `yaml:"mode" jsonschema:"enum=enforce,enum=warn,enum=observe"`
}

// A ReorganisationFile says which values of a key became which others, and when.
type ReorganisationFile struct {
	At Node `yaml:"-"`
	// Key is the tag key.
	Key string `yaml:"key"`
	// From is the first day of the new values, YYYY-MM-DD in UTC.
	From Date `yaml:"from"`
	// Until is the first day on which an old value may mean something new again.
	Until Date `yaml:"until"`
	// Became maps old values to new ones.
	Became Ordered[string] `yaml:"became"`
	// Note says why.
	Note string `yaml:"note"`
}

// Texts is one text or a list of texts.
type Texts []string

func (t *Texts) fromNode(n Node) bool {
	*t = n.Texts()
	return true
}

// Carriers is one carrier or a list of carriers.
type Carriers []Carrier

func (c *Carriers) fromNode(n Node) bool {
	*c = Carriers{}
	for _, item := range n.List() {
		*c = append(*c, Carrier(item.OneOf(string(OnRequest), string(OnSession), string(OnPrincipal), string(OnResource))))
	}
	return true
}

// Whole is a whole number.
type Whole int64

func (w *Whole) fromNode(n Node) bool {
	v, err := strconv.ParseInt(n.Text(), 10, 64)
	if err != nil {
		n.Mistake("write a whole number", "%q is not a whole number", n.n.Value)
	}
	*w = Whole(v)
	return true
}

func (n Node) whole() int {
	v, err := strconv.Atoi(n.Text())
	if err != nil || v < 0 {
		n.Mistake("write a whole number of 0 or more", "%q is not a whole number", n.n.Value)
	}
	return v
}

// A Date is a UTC day. The zero value is no day.
type Date struct{ waybill.Day }

func (d *Date) fromNode(n Node) bool {
	text := n.Text()
	day, err := waybill.ParseDay(text)
	if err != nil || day <= 0 {
		n.Mistake("write YYYY-MM-DD", "%q is not a day", text)
	}
	d.Day = day
	return true
}

// Ordered is a mapping in the order of the file.
type Ordered[T any] []Entry[T]

// An Entry is one key of an Ordered.
type Entry[T any] struct {
	Name  string
	At    Node // of the name
	Value T
}

// Get is the value of a name.
func (o Ordered[T]) Get(name string) (value T, ok bool) {
	for _, e := range o {
		if e.Name == name {
			return e.Value, true
		}
	}
	return value, false
}

func (o *Ordered[T]) fromNode(n Node) bool {
	n.Each(func(name string, k, v Node) {
		e := Entry[T]{Name: name, At: k}
		if _, isKey := any(&e.Value).(*KeyFile); isKey {
			e.At, v = k.About(name), v.About(name)
		}
		decode(v, &e.Value)
		*o = append(*o, e)
	})
	return true
}
