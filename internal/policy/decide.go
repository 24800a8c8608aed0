package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/screen"
)

// Decide resolves the tags of a call and says whether it may pass.
func (p *Policy) Decide(req *Request) *Decision { return p.decide(req, false) }

// Explain is Decide that tells of each tag which source gave it and why it was kept,
// changed or dropped, and of each rule whether it held and why not.
func (p *Policy) Explain(req *Request) *Decision { return p.decide(req, true) }

// recordedSource is the source of a tag that a recorded call carried.
const recordedSource = "recorded"

// A slot is what is known of one key of a call.
type slot struct {
	value  string
	source string
	given  string // by the caller's registration
	asked  int32  // index of the Asked tag for it, -1 if none
	split  bool   // the request asked for another value as well
	ok     bool   // it has a value
	loose  bool   // the value breaks the policy and is kept for observation, on the request only
}

// A found violation waits for its mode, which may depend on tags not yet resolved.
type found struct {
	key       int // -1 for none
	code      string
	rule      *rule
	message   string
	remedy    string
	candidate string // the value, where AWS would take it
	struck    bool   // the value is of the vocabulary; only a rule is against it here
	note      bool   // it never refuses a call
	mode      Mode   // of a note observe; of others known once weigh has seen them
}

// A decider is one decision being made.
type decider struct {
	p     *Policy
	req   *Request
	d     *Decision
	day   waybill.Day // 0 outside all reorganisations
	slots []slot
	room  [16]slot
	found []found
	trace bool
}

// deciders are used again: what a decision takes to make is more than what is left of it.
var deciders = sync.Pool{New: func() any { return new(decider) }}

func (p *Policy) decide(req *Request, trace bool) *Decision {
	d := &Decision{req: req, policy: p}
	c := deciders.Get().(*decider)
	c.p, c.req, c.d, c.trace = p, req, d, trace
	defer c.putBack()
	if !req.At.IsZero() {
		c.day = waybill.DayOf(req.At)
	}
	if len(p.keys) <= len(c.room) {
		c.slots = c.room[:len(p.keys)]
	} else {
		c.slots = make([]slot, len(p.keys))
	}
	extra := c.match()
	for i, k := range p.keys {
		c.resolve(&c.slots[i], k)
	}
	c.applyRules()
	for i, k := range p.keys {
		if k.required {
			c.demand(i, nil)
		}
	}
	c.weigh()
	c.count()
	c.settle()
	c.carry(extra)
	d.SessionName = c.sessionName()
	return d
}

// putBack leaves nothing of the decision behind.
func (c *decider) putBack() {
	clear(c.found[:cap(c.found)])
	*c = decider{found: c.found[:0]}
	deciders.Put(c)
}

func (c *decider) step(key, source, format string, args ...any) {
	if c.trace {
		c.d.Steps = append(c.d.Steps, Step{key, source, fmt.Sprintf(format, args...)})
	}
}

// violate notes a violation.
func (c *decider) violate(k *key, code, message, remedy string) *found {
	f := found{key: -1, code: code, message: message, remedy: remedy}
	if k != nil {
		f.key = k.index
	}
	c.found = append(c.found, f)
	return &c.found[len(c.found)-1]
}

// note records something that never refuses a call.
func (c *decider) note(k *key, code, message, remedy string) {
	c.found = append(c.found, found{key: k.index, code: code, message: message, remedy: remedy, note: true, mode: Observe})
}

// match finds for each key the tag that the request asked for, and returns the
// undeclared tags that may pass.
func (c *decider) match() []waybill.Tag {
	for i := range c.slots {
		c.slots[i].asked = -1
	}
	for name, value := range c.req.Principal.Tags.All() {
		n := c.p.keyIndex(name)
		if n < 0 {
			c.step(name, "registration", "dropped: the policy does not know the key")
			continue
		}
		if use := c.p.keys[n].use; use >= 0 {
			n = use
		}
		if s := &c.slots[n]; s.given == "" || c.p.keys[n].name == name { // its own name goes before others
			s.given = value
		}
	}
	var extra []waybill.Tag
	unknown := 0
	for i := range c.req.Asked {
		a := &c.req.Asked[i]
		n := c.p.keyIndex(a.Key)
		if n < 0 {
			unknown++
			extra = c.undeclared(a, extra)
			continue
		}
		k := c.p.keys[n]
		if k.use >= 0 {
			c.outdated(k, "send "+c.p.keys[k.use].name)
			c.step(k.name, a.From, "moved to %s, which takes its place", c.p.keys[k.use].name)
			n = k.use
		} else if k.deprecated != nil {
			c.outdated(k, "leave it out")
		}
		s := &c.slots[n]
		if s.asked < 0 {
			s.asked = int32(i)
		} else if first := &c.req.Asked[s.asked]; first.Value != a.Value {
			s.split = true
			c.step(c.p.keys[n].name, a.From, "dropped: %s has another value and goes first", first.From)
		}
	}
	if unknown > 0 && c.p.unknown == "refuse" {
		what := "a tag was sent whose key the policy does not know"
		if unknown > 1 {
			what = fmt.Sprintf("%d tags were sent whose keys the policy does not know", unknown)
		}
		c.violate(nil, "unknown_key", what, "known are: "+listed(c.p.Keys()))
	}
	return extra
}

// outdated notes once that the request sent a deprecated key.
func (c *decider) outdated(k *key, remedy string) {
	if !slices.ContainsFunc(c.found, func(f found) bool { return f.key == k.index }) {
		c.note(k, "deprecated_key", fmt.Sprintf("tag %q is deprecated%s", k.name, after(k.deprecated.Note)), remedy)
	}
}

func after(note string) string {
	if note == "" {
		return ""
	}
	return ": " + note
}

// undeclared deals with a tag that the request brought and the policy does not know.
func (c *decider) undeclared(a *Asked, extra []waybill.Tag) []waybill.Tag {
	if c.p.unknown == "pass" {
		known := slices.ContainsFunc(extra, func(t waybill.Tag) bool { return strings.EqualFold(t.Key, a.Key) })
		switch {
		case known || len(extra) >= maxRequestTags:
		case badText(a.Key, 1, maxKeyLength) != "" || badText(a.Value, 1, maxValueLength) != "" || strings.HasPrefix(strings.ToLower(a.Key), reservedPrefix):
		case c.p.sensitive != "allow" && isSensitive(a.Value), isSensitive(a.Key):
		default:
			c.step(a.Key, a.From, "kept: the policy lets unknown keys pass")
			return append(extra, waybill.Tag{Key: a.Key, Value: a.Value})
		}
		c.step(clipKey(a.Key), a.From, "dropped: the policy does not know the key, and it cannot pass as it is")
		return extra
	}
	c.step(clipKey(a.Key), a.From, "dropped: the policy does not know the key")
	return extra
}

func isSensitive(value string) bool {
	_, found := screen.Value(value)
	return found
}

// resolve finds a key's value and brings it to the form that the policy wants.
func (c *decider) resolve(s *slot, k *key) {
	value, source, ok := c.source(s, k)
	if !ok {
		return
	}
	s.source = source
	if k.forbid {
		c.violate(k, "forbidden", fmt.Sprintf("tag %q is forbidden", k.name), "leave it out").candidate = c.safe(k, value)
		c.step(k.name, source, "dropped: the key is forbidden")
		return
	}
	if k.use >= 0 {
		return // what identity or a default gave; a request's was moved
	}
	if value, ok = c.clean(k, value, source); ok {
		s.value, s.ok = value, true
	}
}

// source finds a key's value: identity first, then the registration of the caller,
// then the application's configuration, then what the request asked for, then the
// default. What the first three give a request can never override; that it tried is
// noted.
func (c *decider) source(s *slot, k *key) (value, source string, ok bool) {
	who := &c.req.Principal
	switch k.from {
	case fromSubject:
		value = who.Subject
	case fromIssuer:
		value = who.Issuer
	case fromKey:
		value = who.KeyID
	case fromClaim:
		value = who.Claims[k.claim]
	case fromCallID:
		value = c.req.CallID
	}
	source = "identity"
	derived := value != ""
	if !derived && s.given != "" {
		value, source, derived = s.given, "registration", true
	}
	var asked *Asked
	if s.asked >= 0 {
		asked = &c.req.Asked[s.asked]
	}
	if c.req.replay && asked != nil && k.from != fromNowhere {
		if !derived {
			value, source, derived = asked.Value, recordedSource, true
		}
		asked = nil
	}
	if !derived && k.from == fromNowhere {
		if v, app := c.application(k); app != nil {
			if asked != nil && (asked.Value != v || s.split) {
				c.note(k, "overridden", fmt.Sprintf("tag %q comes from the application's configuration and was also sent", k.name), "leave it out")
				c.step(k.name, asked.From, "dropped: the value comes from application %s", app.name)
			}
			return v, "application " + app.name, true
		}
	}
	switch {
	case derived || k.from != fromNowhere: // a request never stands in for identity
		if asked != nil && (asked.Value != value || s.split) {
			c.note(k, "forged", fmt.Sprintf("tag %q comes from the caller's identity and was also sent", k.name), "leave it out")
			c.step(k.name, asked.From, "dropped: the value comes from the caller's identity")
		}
		if derived {
			return value, source, true
		}
		if k.hasFall {
			return k.fallback, "default", true
		}
	case asked != nil:
		return asked.Value, asked.From, true
	case k.hasFall:
		return k.fallback, "default", true
	}
	return "", "", false
}

// application is the first application that the call is of and that gives the key.
func (c *decider) application(k *key) (string, *application) {
	for i := range c.p.applications {
		a := &c.p.applications[i]
		for _, t := range a.tags {
			if t.key == k.index && a.when.holds(c.req.Fact) {
				return t.value, a
			}
		}
	}
	return "", nil
}

// clean brings a value to the form that the policy wants, or notes why it cannot be
// kept.
func (c *decider) clean(k *key, value, source string) (string, bool) {
	if k.settled && value == k.fallback && !c.trace {
		return value, true
	}
	if k.hash && value != "" { // nothing is no value: it is told below
		if k.fold {
			value = strings.ToLower(value)
		}
		if source == recordedSource {
			if _, already := IsPseudonym(value); already {
				c.step(k.name, source, "kept: it is a pseudonym already")
				return value, true
			}
		}
		c.step(k.name, source, "changed: hashed")
		return c.pseudonym(k, value), true
	}
	if len(value) > maxScreened {
		c.fail(k, source, "bad_characters", fmt.Sprintf("is longer than %d characters", maxValueLength), "use letters, digits, space and _ . : / = + - @, at most 256", "")
		return "", false
	}
	sent := value
	if v, ok := k.spellings(value); ok {
		value = v
	}
	if _, ok := k.retiredValue(sent); ok {
		c.note(k, "deprecated_value", fmt.Sprintf("the value of tag %q is deprecated", k.name), "send "+value)
		c.step(k.name, source, "changed: the value is deprecated and stands for %s", value)
	} else if value != sent && c.trace { // asked here, since aliases are common and arguments cost
		c.step(k.name, source, "changed: an alias of %s", value)
	}
	if c.day > 0 && len(c.p.reorganisations) > 0 {
		if v, by := c.p.reorganised(k.index, value, c.day); by != nil {
			c.note(k, "deprecated_value", fmt.Sprintf("the value of tag %q was renamed on %s", k.name, by.from), "send "+v)
			c.step(k.name, source, "changed: it became %s on %s", v, by.from)
			value = v
		}
	}
	if k.fold && len(k.values) == 0 {
		if lower := strings.ToLower(value); lower != value {
			c.step(k.name, source, "changed: to lower case")
			value = lower
		}
	}
	if len(k.values) > 0 {
		if slices.Contains(k.values, value) {
			c.step(k.name, source, "kept")
			return value, true
		}
		c.fail(k, source, "not_allowed", "is not allowed", "allowed are: "+listed(k.values), value)
		return "", false
	}
	if action := c.sensitivity(k); action != "allow" {
		if finding, is := screen.Value(value); is {
			return c.conceal(k, value, source, action, finding)
		}
	}
	if k.replace != 0 && badText(value, 1, maxValueLength) != "" {
		if clean := replaceBad(value, k.replace); clean != value {
			c.step(k.name, source, "changed: characters that AWS does not take were replaced")
			value = clean
			if action := c.sensitivity(k); action != "allow" { // now it may look like more
				if finding, is := screen.Value(value); is {
					return c.conceal(k, value, source, action, finding)
				}
			}
		}
	}
	if what := badText(value, 1, maxValueLength); what != "" {
		c.fail(k, source, "bad_characters", what, "use letters, digits, space and _ . : / = + - @, at most 256", "")
		return "", false
	}
	switch {
	case len(value) > k.maxLength:
		c.fail(k, source, "too_long", fmt.Sprintf("is longer than %d characters", k.maxLength), "send a shorter one", value)
	case k.ranged && !k.inRange(value):
		c.fail(k, source, "range", "is not in its range", fmt.Sprintf("send a whole number from %d to %d", k.min, k.max), value)
	case k.pattern != nil && !k.pattern.MatchString(value):
		c.fail(k, source, "pattern", "does not match its pattern", "the pattern is "+k.patternText, value)
	default:
		c.step(k.name, source, "kept")
		return value, true
	}
	return "", false
}

func (k *key) retiredValue(value string) (string, bool) {
	if k.fold {
		value = strings.ToLower(value)
	}
	v, ok := k.retired[value]
	return v, ok
}

func (c *decider) fail(k *key, source, code, what, remedy, candidate string) {
	f := c.violate(k, code, fmt.Sprintf("the value of tag %q %s", k.name, what), remedy)
	f.candidate = c.safe(k, candidate)
	c.step(k.name, source, "dropped: the value %s", what)
}

// safe is a value if it may leave although it breaks the policy: it is within AWS's
// limits and nothing sensitive. Otherwise it is empty.
func (c *decider) safe(k *key, value string) string {
	if k.hash || badText(value, 1, maxValueLength) != "" || isSensitive(value) {
		return ""
	}
	return value
}

func (c *decider) sensitivity(k *key) string {
	if k.sensitive != "" {
		return k.sensitive
	}
	return c.p.sensitive
}

// conceal deals with a value that looks like personal data or a secret. What is said of
// it never holds a part of it.
func (c *decider) conceal(k *key, value, source, action string, finding screen.Finding) (string, bool) {
	switch action {
	case "hash":
		c.step(k.name, source, "changed: hashed, since the value looks like %s", finding.Name)
		return c.pseudonym(k, value), true
	case "redact":
		c.step(k.name, source, "changed: redacted, since the value looks like %s", finding.Name)
		return redactedValue, true
	}
	c.violate(k, "sensitive_"+finding.Kind, fmt.Sprintf("the value of tag %q looks like %s", k.name, finding.Name), "send a stable internal id in its place")
	c.step(k.name, source, "dropped: the value looks like %s", finding.Name)
	return "", false
}

func (c *decider) pseudonym(k *key, value string) string {
	return c.p.epochAt(c.req.At).pseudonym(k.name, value)
}

// value is what conditions of rules see: facts, then tags that were kept.
func (c *decider) value(name string) (string, bool) {
	if i, ok := c.p.byName[name]; ok && c.p.keys[i].name == name {
		return c.slots[i].value, c.slots[i].ok
	}
	return c.req.Fact(name)
}

// applyRules looks which rules hold, and then holds the call against each of them: no
// rule sees what another does, so that their order changes nothing. A value that a rule
// is against goes in settle, if the rule is enforced.
func (c *decider) applyRules() {
	if len(c.p.rules) == 0 {
		return
	}
	var few [4]*rule
	holding := few[:0]
	value := c.value // one closure for all conditions
	for i := range c.p.rules {
		r := &c.p.rules[i]
		if c.trace {
			holds, why := r.when.Holds(value)
			text := "did not match because " + why
			if holds {
				text = "holds: " + r.when.String()
			}
			c.d.Rules = append(c.d.Rules, RuleStep{r.title(), holds, text})
		}
		if r.when.holds(value) {
			holding = append(holding, r)
		}
	}
	for _, r := range holding {
		for _, i := range r.require {
			c.demand(i, r)
		}
		for _, a := range r.allow {
			c.allow(r, a)
		}
	}
	for _, r := range holding {
		for _, i := range r.forbid {
			if c.slots[i].ok {
				f := c.violate(c.p.keys[i], "forbidden", fmt.Sprintf("tag %q is forbidden when %s", c.p.keys[i].name, r.when.String()), "leave it out")
				f.rule, f.struck = r, true
			}
		}
	}
}

func (c *decider) allow(r *rule, a allowed) {
	s, k := &c.slots[a.key], c.p.keys[a.key]
	if !s.ok || slices.ContainsFunc(a.values, func(v string) bool { return MatchPattern(v, s.value) }) {
		return
	}
	f := c.violate(k, "not_allowed", fmt.Sprintf("the value of tag %q is not allowed when %s", k.name, r.when.String()), "allowed are: "+listed(a.values))
	f.rule, f.struck = r, true
}

// demand notes that a required key has no value. Whether that is news, weigh says.
func (c *decider) demand(i int, r *rule) {
	k := c.p.keys[i]
	if c.slots[i].ok {
		return
	}
	remedy := "send it in X-Waybill-Tags"
	switch {
	case k.from != fromNowhere:
		remedy = "it comes from the caller's identity (" + k.fromText + "), which lacks it"
	case len(k.values) > 0:
		remedy += "; allowed are: " + listed(k.values)
	case k.pattern != nil:
		remedy += "; the pattern is " + k.patternText
	case k.ranged:
		remedy += fmt.Sprintf("; a whole number from %d to %d", k.min, k.max)
	}
	c.violate(k, "missing", fmt.Sprintf("tag %q is required%s", k.name, r.because()), remedy).rule = r
}

// weigh gives each violation its mode, before anything is done about one of them: modes
// may depend on tags. That a key is missing is told once, in the strictest mode in which
// it is demanded; and not at all where another violation of the key is as strict and says
// already why it has no value.
func (c *decider) weigh() {
	for i := range c.found {
		f := &c.found[i]
		if f.mode == "" {
			f.mode = c.modeOf(f)
		}
	}
	for i := range c.found {
		switch f := &c.found[i]; {
		case f.code != "missing":
		case c.told(i):
			f.code = ""
		default:
			c.step(c.p.keys[f.key].name, "", "missing: it is required%s", f.rule.because())
		}
	}
	c.found = slices.DeleteFunc(c.found, func(f found) bool { return f.code == "" })
}

// told reports whether another violation makes it superfluous to say that a key is
// missing.
func (c *decider) told(missing int) bool {
	m := &c.found[missing]
	for i := range c.found {
		f := &c.found[i]
		if i == missing || f.key != m.key || f.note || f.code == "" {
			continue
		}
		if d := f.mode.strictness() - m.mode.strictness(); d > 0 || d == 0 && (f.code != "missing" || i < missing) {
			return true
		}
	}
	return false
}

// count holds values against the bounds that their keys declare. Calls that are
// refused anyway are not counted.
func (c *decider) count() {
	if c.req.Guard == nil {
		return
	}
	var few [4]sighted
	values := few[:0]
	for i, k := range c.p.keys {
		if k.limit > 0 && c.slots[i].ok {
			values = append(values, sighted{key: i, name: k.name, value: c.slots[i].value})
		}
	}
	if len(values) == 0 || slices.ContainsFunc(c.found, func(f found) bool { return f.mode == Enforce }) {
		return
	}
	for i := range values { // before any of the values goes: modes may depend on it
		if k := c.p.keys[values[i].key]; k.action == "reject" {
			values[i].mode = c.modeOf(&found{key: k.index})
		}
	}
	c.req.Guard.admit(c.today(), values)
	for _, v := range values {
		if !v.beyond {
			continue
		}
		k, s := c.p.keys[v.key], &c.slots[v.key]
		switch k.action {
		case "other":
			s.value = otherValue
			c.step(k.name, s.source, "changed: the key has %d values, and this is another", k.limit)
			c.note(k, "too_many_values", fmt.Sprintf("tag %q has %d values, and this is another", k.name, k.limit), "send one of those in use")
		case "observe":
			c.note(k, "too_many_values", fmt.Sprintf("tag %q has %d values, and this is another", k.name, k.limit), "send one of those in use")
		default:
			f := c.violate(k, "too_many_values", fmt.Sprintf("tag %q has %d values, and this is another", k.name, k.limit), "send one of those in use, or have maxDistinct raised")
			f.candidate, f.mode = s.value, v.mode
			c.step(k.name, s.source, "dropped: the key has %d values, and this is another", k.limit)
			*s = slot{source: s.source}
		}
	}
}

func (c *decider) today() waybill.Day {
	if c.day > 0 {
		return c.day
	}
	return 1
}

// modeOf is the mode of a violation: the rollout's first entry that covers it, the
// rule's, the key's, the policy's.
func (c *decider) modeOf(f *found) Mode {
	for i := range c.p.rollout {
		r := &c.p.rollout[i]
		if (r.keys == nil || slices.Contains(r.keys, f.key)) && r.when.holds(c.value) {
			return r.mode
		}
	}
	if f.rule != nil && f.rule.mode != "" {
		return f.rule.mode
	}
	if f.key >= 0 && c.p.keys[f.key].mode != "" {
		return c.p.keys[f.key].mode
	}
	return c.p.mode
}

// settle gives the call its outcome. What is not enforced keeps a value of the
// vocabulary; what is only observed keeps any that AWS takes, on the request.
func (c *decider) settle() {
	c.d.Outcome = waybill.PolicyAllowed
	if len(c.found) == 0 {
		return
	}
	c.d.Violations = make([]Violation, len(c.found))
	for i := range c.found {
		f := &c.found[i]
		v := &c.d.Violations[i]
		*v = Violation{Code: f.code, Message: f.message, Remedy: f.remedy, Mode: f.mode}
		switch {
		case f.mode == Enforce:
			c.d.Outcome = waybill.PolicyRefused
		case f.mode == Warn && c.d.Outcome == waybill.PolicyAllowed:
			c.d.Outcome = waybill.PolicyWarned
		}
		if f.rule != nil {
			v.Rule = f.rule.title()
		}
		if f.key < 0 {
			continue
		}
		k, s := c.p.keys[f.key], &c.slots[f.key]
		v.Key = k.name
		switch {
		case f.struck && f.mode == Enforce:
			c.step(k.name, s.source, "dropped: %s is against it", f.rule.title())
			*s = slot{source: s.source}
		case f.struck:
			c.step(k.name, s.source, "kept after all: %s is against it and is not enforced", f.rule.title())
		case f.candidate != "" && f.mode == Observe:
			s.value, s.ok, s.loose = f.candidate, true, true
			c.d.loose = append(c.d.loose, k.name)
			c.step(k.name, s.source, "kept after all, on the request only: the violation is only observed")
		}
	}
}

// carry deals the tags out to their carriers. All sets share one piece of memory. What
// is there for observation, and what the policy does not know, has the room on the
// request that the policy's own tags leave.
func (c *decider) carry(extra []waybill.Tag) {
	n, room := 0, maxRequestTags
	carried := 0 // tags on all carriers, at most
	for i, k := range c.p.keys {
		if !c.slots[i].ok {
			continue
		}
		n++
		carried += max(len(k.carriers), 1) // a loose one goes on the request, whatever its carriers
		if !c.slots[i].loose && k.on(OnRequest) {
			room--
		}
	}
	d := c.d
	d.Drop = c.p.drop
	if n+len(extra) == 0 {
		return
	}
	memory := make([]waybill.Tag, 0, n+carried)
	take := func(want Carrier) waybill.Tags {
		from := len(memory)
		for _, i := range c.p.byTag {
			s, k := &c.slots[i], c.p.keys[i]
			switch {
			case !s.ok:
				continue
			case want == "":
			case s.loose:
				if want != OnRequest || room == 0 {
					continue
				}
				room--
			case !k.on(want):
				continue
			}
			memory = append(memory, waybill.Tag{Key: k.name, Value: s.value})
		}
		return waybill.SortedTags(memory[from:len(memory):len(memory)])
	}
	d.Tags, d.Request, d.Session, d.Resource = take(""), take(OnRequest), take(OnSession), take(OnResource)
	if len(extra) > 0 {
		extra = extra[:min(len(extra), room)]
		d.Request = waybill.NewTags(append(d.Request.List(), extra...)...)
		d.Tags = waybill.NewTags(append(d.Tags.List(), extra...)...)
	}
}

// sessionName fills the policy's template. See name.
func (c *decider) sessionName() string {
	return c.p.name(c.p.session, c.req, func(key int) string {
		if at := &c.slots[key]; at.ok && !at.loose {
			return at.value
		}
		return ""
	})
}

func listed(values []string) string {
	if len(values) > 20 {
		return strings.Join(values[:20], ", ") + fmt.Sprintf(" and %d more", len(values)-20)
	}
	return strings.Join(values, ", ")
}
