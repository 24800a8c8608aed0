package policy

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// compile makes a policy of a file, and notes what is wrong with it.
func (p *Policy) compile(f *File, o Options) {
	p.mode, p.unknown, p.revision = f.Mode, f.Unknown, f.Revision
	inherit(&p.mode, Enforce)
	inherit(&p.unknown, "drop")
	p.sensitive = f.Sensitive
	inherit(&p.sensitive, "reject")
	if len(f.Tags.Keys) > maxKeys {
		f.Tags.At.Field("keys").Mistake("keep the keys that reports are made by", "%d keys are declared; %d is the most", len(f.Tags.Keys), maxKeys)
		return
	}
	for _, e := range f.Tags.Keys {
		p.compileKey(e, o)
	}
	for _, k := range p.keys { // what names other keys
		if k.deprecated != nil && k.deprecated.Use != "" {
			i, ok := p.byName[k.deprecated.Use]
			if !ok || i == k.index {
				k.at.Field("deprecated").Mistake("name a declared key", "is replaced by %q, which is not another declared key", k.deprecated.Use)
				continue
			}
			if k.required {
				k.at.Field("deprecated").Mistake("require the key that takes its place", "is deprecated and required")
			}
			for _, field := range []string{"from", "default"} {
				if k.at.Has(field) {
					k.at.Field(field).Mistake("give it to "+k.deprecated.Use, "has %s, and is replaced by %q: what it has itself never counts", field, k.deprecated.Use)
				}
			}
			k.use = i
		}
	}
	for _, k := range p.keys { // values are moved once
		if k.use >= 0 && p.keys[k.use].use >= 0 {
			k.at.Field("deprecated").Mistake("name "+p.keys[p.keys[k.use].use].name, "is replaced by %q, which is replaced itself", k.deprecated.Use)
		}
	}
	for _, e := range f.Tags.Keys {
		if i, ok := p.byName[e.Name]; ok {
			p.checkGiven(p.keys[i], &e.Value)
		}
	}
	p.byTag = make([]int, len(p.keys))
	for i := range p.byTag {
		p.byTag[i] = i
	}
	slices.SortFunc(p.byTag, func(a, b int) int { return strings.Compare(p.keys[a].name, p.keys[b].name) })
	for i := range f.Tags.Rules {
		p.compileRule(&f.Tags.Rules[i])
	}
	for i := range f.Applications {
		p.compileApplication(&f.Applications[i])
	}
	for i := range f.Rollout {
		r := &f.Rollout[i]
		p.CheckCondition(&r.When)
		if r.Mode == "" {
			r.At.Mistake("add mode: warn or observe", "the rollout entry does nothing")
		}
		entry := rollout{when: r.When, mode: r.Mode, position: r.At.Position()}
		if name := p.chosenByCaller(&r.When); name != "" && r.Mode != "" {
			p.warn(entry.position, "mode %s hangs on tag %q, which a request may send: a caller chooses the mode by what it sends; take %s from identity (from) or from every caller's registration, or add caller, issuer or claims.NAME to the condition", r.Mode, name, name)
		}
		for _, name := range r.Keys {
			if i, ok := p.byName[name]; ok {
				entry.keys = append(entry.keys, i)
			} else {
				p.undeclaredKey(r.At.Field("keys"), name)
			}
		}
		p.rollout = append(p.rollout, entry)
	}
	for i := range f.Reorganisations {
		p.compileReorganisation(&f.Reorganisations[i])
	}
	slices.SortStableFunc(p.reorganisations, func(a, b reorganisation) int { return int(a.from - b.from) })
	p.compileSession(&f.Session)
	p.checkLimits(f)
	for _, k := range p.keys {
		c := &decider{p: p, req: new(Request), d: new(Decision)}
		if (k.hash || c.sensitivity(k) == "hash") && !p.canHash() {
			continue // that is told elsewhere
		}
		v, ok := c.clean(k, k.fallback, "")
		k.settled = ok && v == k.fallback && len(c.found) == 0 && !k.hash && len(p.reorganisations) == 0
	}
}

// chosenByCaller is a tag in a condition that a request may send, where nothing in it asks
// who the caller is.
func (p *Policy) chosenByCaller(c *Condition) string {
	for _, t := range c.terms {
		i, isKey := p.byName[t.key]
		switch {
		case t.key == "caller", t.key == "issuer", strings.HasPrefix(t.key, "claims."):
			return ""
		case isKey && p.keys[i].from != fromNowhere:
			return ""
		}
	}
	for _, name := range c.Keys() {
		if i, isKey := p.byName[name]; isKey && p.keys[i].from == fromNowhere {
			return name
		}
	}
	return ""
}

func (p *Policy) compileKey(e Entry[KeyFile], o Options) {
	f, at, name := &e.Value, e.At, e.Name
	k := &key{name: name, index: len(p.keys), at: f.At, position: at.Position(), required: f.Required, forbid: f.Forbidden, fold: f.FoldCase,
		hash: f.Transform == "hmac", high: f.HighCardinality, mode: f.Mode, deprecated: f.Deprecated, use: -1, sensitive: f.Sensitive, description: f.Description}
	if what := badText(name, 1, maxKeyLength); what != "" {
		at.Mistake("use letters, digits, space and _ . : / = + - @", "the name %s", what)
	}
	if strings.HasPrefix(strings.ToLower(name), reservedPrefix) {
		at.Mistake("choose another name", "begins with aws:, which AWS keeps for itself")
	}
	if isFact(name) {
		at.Mistake("choose another name", "has the name of a fact of the call, which conditions ask for")
	}
	for _, spelling := range append([]string{name}, f.KeyAliases...) {
		where := at
		if spelling != name {
			where = f.At.Field("keyAliases")
		}
		folded := strings.ToLower(spelling)
		if i, taken := p.byFold[folded]; taken && i != k.index {
			where.Mistake("keep one spelling", "%q and %q (%s) differ in case only: STS takes them for one", spelling, p.keys[i].name, p.keys[i].position)
			continue
		}
		p.byFold[folded] = k.index
		p.byName[spelling] = k.index
	}
	k.carriers = carrierSet(f.Carriers)
	if !f.At.Has("carriers") && f.Carriers == nil {
		k.carriers = carrierSet{OnRequest}
	}
	p.compileFrom(k, f)
	p.compileValues(k, f)
	if f.Pattern != "" {
		_, alone := regexp.Compile(f.Pattern) // what is no expression by itself could close the group
		re, err := regexp.Compile("^(?:" + f.Pattern + ")$")
		if alone != nil || err != nil {
			f.At.Field("pattern").Mistake("see https://pkg.go.dev/regexp/syntax", "the pattern is not a regular expression")
		} else {
			k.pattern, k.patternText = re, f.Pattern
			if k.hasFall && !re.MatchString(k.fallback) {
				f.At.Field("default").Mistake("change one of the two", "default %q does not match the pattern", k.fallback)
			}
			for _, v := range f.Values {
				if !re.MatchString(v) {
					f.At.Field("values").Mistake("change one of the two", "value %q does not match the pattern", v)
				}
			}
		}
	}
	if f.Range != nil {
		k.min, k.max, k.ranged = int64(f.Range.Min), int64(f.Range.Max), true
		switch {
		case f.Range.Min > f.Range.Max:
			f.At.Field("range").Mistake("swap them", "the range ends before it begins")
		case len(f.Values) > 0 || f.Pattern != "":
			f.At.Field("range").Mistake("keep one of the two", "has a range, and values or a pattern as well")
		case k.hasFall && !k.inRange(k.fallback):
			f.At.Field("default").Mistake("change one of the two", "default %q is not in the range", k.fallback)
		}
	}
	if f.ReplaceCharacters != "" {
		k.replace = f.ReplaceCharacters[0]
	}
	if k.required && k.forbid {
		f.At.Mistake("keep one of the two", "is required and forbidden")
	}
	if k.forbid && (k.hasFall || k.from != fromNowhere) {
		f.At.Mistake("keep one of the two", "is forbidden, and gets a value from the policy itself")
	}
	if k.required && k.hasFall {
		p.warn(k.position, "tag key %q is required and has a default: it is never missing", name)
	}
	if k.hash && (len(f.Values) > 0 || f.Pattern != "" || f.Range != nil) {
		f.At.Field("transform").Mistake("drop one of the two", "values are bounded and hashed: a hash is never one of them")
	}
	if (k.hash || k.sensitive == "hash") && !p.canHash() {
		where := f.At.Field("transform")
		if !k.hash {
			where = f.At.Field("sensitive")
		}
		where.Mistake("give hashKeys (or hashKey, 16 bytes or more); waybill policy epochs new makes one", "is hashed, and there is no secret to hash with")
	}
	if k.high && (k.on(OnSession) || k.on(OnPrincipal) || k.on(OnResource)) {
		f.At.Field("carriers").Mistake("carriers: [request]", "is of high cardinality and rides on %s: every value would make its own role session, STS call and rows of the bill", k.carriers)
	}
	if d := f.MaxDistinct; d != nil {
		k.limit, k.action, k.days = d.Limit, d.Action, d.Days
		inherit(&k.action, "reject")
		if k.days == 0 {
			k.days = defaultDays
		}
		switch {
		case d.Limit < 1 || d.Limit > maxLimit:
			f.At.Field("maxDistinct").Mistake("leave it out for keys of high cardinality", "the limit must be from 1 to %d: the values are counted in memory", maxLimit)
		case d.Days > maxDays:
			f.At.Field("maxDistinct").Mistake("30 is the default", "the days must be from 1 to %d", maxDays)
		case k.high:
			f.At.Field("maxDistinct").Mistake("drop one of the two", "is of high cardinality and bounded")
		case len(f.Values) > 0:
			f.At.Field("maxDistinct").Mistake("drop one of the two", "has a list of values, which bounds them already")
		case k.action == "other" && (k.pattern != nil && !k.pattern.MatchString(otherValue) || k.ranged):
			f.At.Field("maxDistinct").Mistake("action: reject, or a pattern that takes it", "the value \"other\" would not match")
		}
	}
	k.longest = p.longestValue(k, f)
	p.keys = append(p.keys, k)
}

func (p *Policy) compileFrom(k *key, f *KeyFile) {
	at := f.At.Field("from")
	switch {
	case f.From == "":
	case f.From == "caller.subject":
		k.from = fromSubject
	case f.From == "caller.issuer":
		k.from = fromIssuer
	case f.From == "caller.key":
		k.from = fromKey
	case f.From == "call.id":
		k.from = fromCallID
		if !k.high {
			at.Mistake("add highCardinality: true", "is different on each call, and is not declared to be of high cardinality")
		}
	case strings.HasPrefix(f.From, "claims.") && len(f.From) > len("claims."):
		k.from, k.claim = fromClaim, f.From[len("claims."):]
	default:
		at.Mistake("one of: caller.subject, caller.issuer, caller.key, claims.NAME, call.id", "%q is no source of identity", f.From)
	}
	k.fromText = f.From
	if k.from != fromNowhere && len(f.KeyAliases) > 0 {
		f.At.Field("keyAliases").Mistake("leave them out", "comes from identity: no request sends it, under whichever name")
	}
}

func (p *Policy) compileValues(k *key, f *KeyFile) {
	k.values = f.Values
	k.spelling = make(map[string]string)
	k.retired = make(map[string]string)
	check := func(at Node, v string) {
		if what := badText(v, 1, maxValueLength); what != "" {
			at.Mistake("use letters, digits, space and _ . : / = + - @, at most 256", "value %q %s", v, what)
		}
	}
	add := func(at Node, from, to string) {
		folded := from
		if k.fold {
			folded = strings.ToLower(from)
		}
		if other, taken := k.spelling[folded]; taken {
			if other != to {
				at.Mistake("let it stand for one of the two", "%q stands for %q and for %q", from, other, to)
			} else if from == to {
				at.Mistake("keep one of the two", "value %q is there twice, or in another case", from)
			}
			return
		}
		k.spelling[folded] = to
	}
	for _, v := range f.Values {
		check(f.At.Field("values"), v)
		add(f.At.Field("values"), v, v)
	}
	known := func(v string) bool { return len(f.Values) == 0 || slices.Contains(f.Values, v) }
	for _, e := range f.Aliases {
		check(e.At, e.Value)
		if !known(e.Value) {
			e.At.Mistake("name one of its values", "alias %q stands for %q, which is not among the values", e.Name, e.Value)
		}
		add(e.At, e.Name, e.Value)
	}
	for _, e := range f.DeprecatedValues {
		check(e.At, e.Value)
		if !known(e.Value) {
			e.At.Mistake("name one of its values", "deprecated value %q became %q, which is not among the values", e.Name, e.Value)
		}
		add(e.At, e.Name, e.Value)
		if k.fold {
			k.retired[strings.ToLower(e.Name)] = e.Value
		} else {
			k.retired[e.Name] = e.Value
		}
	}
	if f.Default != nil {
		k.fallback, k.hasFall = *f.Default, true
		check(f.At.Field("default"), k.fallback)
		if !known(k.fallback) {
			f.At.Field("default").Mistake("name one of the values", "default %q is not among the values", k.fallback)
		}
	}
	k.maxLength = maxValueLength
	if f.MaxLength > 0 {
		k.maxLength = f.MaxLength
	}
	if k.maxLength > maxValueLength {
		f.At.Field("maxLength").Mistake("256 at most", "AWS takes values of %d characters at most", maxValueLength)
	}
}

// checkGiven holds the values that a key's own declaration gives it against the rest of
// it, as far as that was not told yet.
func (p *Policy) checkGiven(k *key, f *KeyFile) {
	if k.hasFall && k.use < 0 {
		if code, what := p.fault(k, k.fallback); code == "too_long" || strings.HasPrefix(code, "sensitive_") {
			f.At.Field("default").Mistake("change one of the two", "default %q is refused by the key itself: %s", k.fallback, what)
		}
	}
	for _, e := range slices.Concat(f.Aliases, f.DeprecatedValues) {
		if code, what := p.fault(k, e.Value); code != "" && code != "not_allowed" && code != "bad_characters" {
			e.At.Mistake("let it stand for another", "%q stands for %q, which is refused by the key itself: %s", e.Name, e.Value, what)
		}
	}
}

// fault is the code and text of what a key has against a value, both empty if nothing.
func (p *Policy) fault(k *key, value string) (code, what string) {
	c := &decider{p: p, req: new(Request), d: new(Decision)}
	if (k.hash || c.sensitivity(k) == "hash") && !p.canHash() {
		return "", "" // that is told elsewhere
	}
	if _, ok := c.clean(k, value, ""); ok || len(c.found) == 0 {
		return "", ""
	}
	f := c.found[len(c.found)-1]
	return f.code, f.message
}

// neverHas reports whether a value, as a condition or a rule writes it, is none that a
// key without a list of values can have.
func (k *key) neverHas(v string) bool {
	if len(k.values) > 0 {
		return false
	}
	if k.hash {
		_, is := IsPseudonym(v)
		return !is && !strings.Contains(v, "*")
	}
	return k.fold && strings.ToLower(v) != v
}

// longestValue is the length of the longest value that can leave under a key.
func (p *Policy) longestValue(k *key, f *KeyFile) int {
	n := k.maxLength
	switch {
	case k.hash:
		return p.pseudonymLength()
	case len(k.values) > 0:
		n = 0
		for _, v := range k.values {
			n = max(n, len(v))
		}
		return n
	case k.ranged:
		n = max(len(fmt.Sprint(k.min)), len(fmt.Sprint(k.max)))
	case k.pattern != nil:
		if re, err := syntax.Parse(f.Pattern, syntax.Perl); err == nil {
			if m := longestMatch(re); m >= 0 {
				n = min(n, m)
			}
		}
	}
	if k.action == "other" {
		n = max(n, len(otherValue))
	}
	switch c := (decider{p: p}); c.sensitivity(k) { // what takes the place of a sensitive value
	case "hash":
		n = max(n, p.pseudonymLength())
	case "redact":
		n = max(n, len(redactedValue))
	}
	return max(n, len(k.fallback))
}

func (p *Policy) compileRule(f *RuleFile) {
	r := rule{when: f.When, name: f.Name, number: len(p.rules) + 1, mode: f.Mode, position: f.At.Position()}
	p.CheckCondition(&f.When)
	indexes := func(field string, names []string) []int {
		var out []int
		for _, name := range names {
			if i, ok := p.byName[name]; ok {
				out = append(out, i)
				p.movedKey(f.At.Field(field), i)
			} else {
				p.undeclaredKey(f.At.Field(field), name)
			}
		}
		return out
	}
	r.require, r.forbid = indexes("require", f.Require), indexes("forbid", f.Forbid)
	for _, i := range r.require {
		if slices.Contains(r.forbid, i) {
			f.At.Mistake("keep one of the two", "requires and forbids tag key %q", p.keys[i].name)
		}
		if p.keys[i].forbid {
			f.At.Field("require").Mistake("keep one of the two", "requires tag key %q, which is forbidden (%s)", p.keys[i].name, p.keys[i].position)
		}
	}
	for _, e := range f.Allow {
		i, ok := p.byName[e.Name]
		if !ok {
			p.undeclaredKey(e.At, e.Name)
			continue
		}
		p.movedKey(e.At, i)
		for _, v := range e.Value {
			if k := p.keys[i]; len(k.values) > 0 && !slices.Contains(k.values, v) {
				e.At.Mistake("name its values", "allows %q of tag key %q, which is not among its values (%s)", v, k.name, k.position)
			} else if k.neverHas(v) {
				e.At.Mistake("write it as the key has it: in lower case, or as a pseudonym", "allows %q of tag key %q, a value that it never has (%s)", v, k.name, k.position)
			}
		}
		r.allow = append(r.allow, allowed{i, e.Value})
	}
	if len(f.Require)+len(f.Forbid)+len(f.Allow) == 0 {
		f.At.Mistake("add require: [key], forbid: [key] or allow: {key: [value]}", "does nothing")
	}
	p.rules = append(p.rules, r)
}

// movedKey notes that something asks of a deprecated key what only the key in its place
// can have.
func (p *Policy) movedKey(at Node, i int) {
	if use := p.keys[i].use; use >= 0 {
		at.Mistake("name "+p.keys[use].name, "names tag key %q, which never has a value: it is replaced by %q", p.keys[i].name, p.keys[use].name)
	}
}

func (p *Policy) undeclaredKey(at Node, name string) {
	hint := "declare it under tags.keys"
	if near := nearest(name, p.Keys()); near != "" {
		hint = fmt.Sprintf("%s is perhaps meant; else declare it under tags.keys", near)
	}
	at.Mistake(hint, "names tag key %q, which is not declared", name)
}

// CheckCondition notes, at their places, the names in a condition that are neither a
// declared tag key nor a fact, and values that a key can never have. It is for
// conditions outside the policy's own file: of roles and targets.
func (p *Policy) CheckCondition(c *Condition) {
	c.each(func(t *term) {
		if isFact(t.key) {
			return
		}
		i, ok := p.byName[t.key]
		if !ok || p.keys[i].name != t.key {
			hint := "name a declared tag key, or one of: " + strings.Join(facts, ", ") + ", claims.NAME"
			if near := nearest(t.key, append(p.Keys(), facts...)); near != "" {
				hint = near + " is perhaps meant; " + hint
			}
			t.at.Mistake(hint, "the condition asks for %q, which nothing declares", t.key)
			return
		}
		p.movedKey(t.at, i)
		for _, v := range t.values {
			k := p.keys[i]
			if len(k.values) > 0 && !slices.ContainsFunc(k.values, func(known string) bool { return MatchPattern(v, known) }) && !(k.limit > 0 && v == otherValue) {
				t.at.Mistake("its values are: "+listed(k.values), "the condition asks for %s: %s, a value that it never has", t.key, v)
			} else if k.neverHas(v) {
				t.at.Mistake("write it as the key has it: in lower case, or as a pseudonym", "the condition asks for %s: %s, a value that it never has", t.key, v)
			}
		}
	})
}

func (p *Policy) compileApplication(f *ApplicationFile) {
	a := application{when: f.When, name: f.Name, position: f.At.Position()}
	if a.name == "" {
		a.name = a.position
	}
	f.When.each(func(t *term) {
		if !isFact(t.key) {
			t.at.Mistake("one of: "+strings.Join(facts, ", ")+", claims.NAME", "an application is known by its caller, not by %q", t.key)
		}
	})
	if len(f.When.terms) == 0 {
		f.At.Mistake("add when: {caller: ...}; for tags of every call use default", "the application is everybody")
	}
	for _, e := range f.Tags {
		i, ok := p.byName[e.Name]
		if !ok {
			p.undeclaredKey(e.At, e.Name)
			continue
		}
		k := p.keys[i]
		p.movedKey(e.At, i)
		if k.forbid {
			e.At.Mistake("leave it out", "gives tag key %q, which is forbidden (%s)", k.name, k.position)
		}
		if k.from != fromNowhere {
			e.At.Mistake("leave it out", "tag key %q comes from identity (%s)", k.name, k.fromText)
		}
		if _, ok := k.spellings(e.Value); !ok && len(k.values) > 0 {
			e.At.Mistake("its values are: "+listed(k.values), "%q is not a value of tag key %q", e.Value, k.name)
		} else if code, what := p.fault(k, e.Value); code != "" {
			e.At.Mistake("give another", "%q is refused by tag key %q: %s", e.Value, k.name, what)
		}
		a.tags = append(a.tags, assigned{i, e.Value})
	}
	if len(f.Tags) == 0 {
		f.At.Mistake("add tags: {key: value}", "the application gives no tags")
	}
	p.applications = append(p.applications, a)
}

func (p *Policy) compileReorganisation(f *ReorganisationFile) {
	r := reorganisation{from: f.From.Day, until: f.Until.Day, became: make(map[string]string), position: f.At.Position()}
	i, ok := p.byName[f.Key]
	if !ok {
		p.undeclaredKey(f.At.Field("key"), f.Key)
		return
	}
	k := p.keys[i]
	p.movedKey(f.At.Field("key"), i)
	r.key, r.fold = i, k.fold
	if f.From.Day == 0 {
		f.At.Mistake("add from: YYYY-MM-DD", "the reorganisation has no day on which it begins")
	}
	if f.Until.Day != 0 && f.Until.Day <= f.From.Day {
		f.At.Field("until").Mistake("write a later day", "the reorganisation ends before it begins")
	}
	if len(f.Became) == 0 {
		f.At.Mistake("add became: {old: new}", "the reorganisation changes nothing")
	}
	for _, e := range f.Became {
		if len(k.values) > 0 && !slices.Contains(k.values, e.Value) {
			e.At.Mistake("its values are: "+listed(k.values), "%q became %q, which is not among the values of %q", e.Name, e.Value, k.name)
		}
		if what := badText(e.Value, 1, maxValueLength); what != "" {
			e.At.Mistake("use letters, digits, space and _ . : / = + - @", "%q %s", e.Value, what)
		}
		if code, what := p.fault(k, e.Value); code != "" && code != "not_allowed" && code != "bad_characters" {
			e.At.Mistake("name another", "%q became %q, which is refused by tag key %q: %s", e.Name, e.Value, k.name, what)
		}
		if e.Name == e.Value {
			e.At.Mistake("leave it out", "%q became itself", e.Name)
		}
		old := e.Name
		if k.fold {
			old = strings.ToLower(old)
		}
		for _, other := range append(slices.Clone(p.reorganisations), r) {
			if _, twice := other.became[old]; twice && other.key == i && other.overlaps(r) {
				e.At.Mistake("end the other with until", "%q became something else at %s, in the same days", e.Name, other.position)
			}
		}
		r.became[old] = e.Value
	}
	p.reorganisations = append(p.reorganisations, r)
}

func (p *Policy) compileSession(f *SessionFile) {
	text := f.Name
	if text == "" {
		text = "{caller}"
	}
	at := f.At
	if f.At.n != nil {
		at = f.At.Field("name")
	}
	p.session = p.ReadTemplate(at, text).segments
	if !slices.ContainsFunc(p.session, func(s segment) bool { return s.name != "" }) && len(p.session) > 0 {
		p.warn(at.Position(), "every role session has the same name: the bill cannot tell callers apart by it")
	}
	p.budget = packedBudget
	if f.Budget > 0 {
		p.budget = f.Budget
	}
	if most := maxSessionTags * (maxKeyLength + maxValueLength); p.budget > most {
		f.At.Field("budget").Mistake("leave it out, or write what AWS was seen to take", "session.budget is more than %d tags can ever have: %d characters", maxSessionTags, most)
		p.budget = most
	}
}

// ReadTemplate reads the name of a role session, or a source identity: a text in which
// {caller}, {issuer}, {claims.NAME} and {KEY} stand for what a call has. It notes at the
// node what is wrong with it.
func (p *Policy) ReadTemplate(at Node, text string) Template {
	var t Template
	literal := func(s string) {
		for i := range len(s) {
			if !nameCharacter[s[i]] {
				at.Mistake("use letters, digits and _ + = , . @ -", "the session name has a character that STS does not take: %q", s[i:i+1])
				break
			}
		}
		if s != "" {
			t.segments = append(t.segments, segment{text: s})
		}
	}
	for text != "" {
		before, rest, open := strings.Cut(text, "{")
		literal(before)
		if !open {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			at.Mistake("close it with }", "the session name has a { that is not closed")
			break
		}
		text = after
		i, isKey := p.byName[name]
		switch {
		case isFact(name):
			t.segments = append(t.segments, segment{name: name, key: -1})
		case isKey:
			k := p.keys[i]
			p.movedKey(at, i)
			t.segments = append(t.segments, segment{name: name, key: i})
			if k.high {
				at.Mistake("name a key with few, stable values", "the session name is made of %q, which is of high cardinality: every value would make its own STS call and rows of the bill", name)
			} else if k.from == fromNowhere && len(k.values) == 0 && k.limit == 0 && k.pattern == nil {
				p.warn(at.Position(), "the session name is made of %q, whose values nothing bounds: each makes its own STS call and rows of the bill", name)
			}
		default:
			hint := "name a declared tag key, or one of: " + strings.Join(facts, ", ") + ", claims.NAME"
			at.Mistake(hint, "the session name asks for %q, which nothing declares", name)
		}
	}
	return t
}

// checkLimits refuses a policy whose tags could exceed what a carrier takes.
func (p *Policy) checkLimits(f *File) {
	root := f.At
	if p.sensitive == "hash" && !p.canHash() {
		root.Field("sensitive").Mistake("give hashKeys, or hashKey", "values are to be hashed, and there is no secret to hash with")
	}
	count := func(c Carrier, most int, what string) {
		n := 0
		for _, k := range p.keys {
			if k.on(c) && k.use < 0 {
				n++
			}
		}
		if n > most {
			root.Field("tags").Mistake(fmt.Sprintf("take %d off the %s carrier, or merge keys", n-most, c), "%d keys ride on %s, which takes %d", n, what, most)
		}
	}
	count(OnRequest, maxRequestTags, "request metadata")
	count(OnSession, maxSessionTags, "the role session")
	count(OnPrincipal, maxResourceTags, "the role itself")
	count(OnResource, maxResourceTags, "a profile, project or workspace")

	must, may := 0, 0
	var largest *key
	for _, k := range p.keys {
		if !k.on(OnSession) || k.use >= 0 {
			continue
		}
		n := len(k.name) + k.longest
		may += n
		if k.required {
			must += n
			if largest == nil || n > len(largest.name)+largest.longest {
				largest = k
			}
		} else {
			p.drop = append(p.drop, k.name)
		}
		if k.from == fromNowhere && len(k.values) == 0 && k.limit == 0 && k.pattern == nil && !k.ranged {
			p.warn(k.position, "tag key %q rides on the session and nothing bounds its values: each makes its own STS call and rows of the bill; add values, a pattern or maxDistinct", k.name)
		}
	}
	slices.Reverse(p.drop) // what is declared last is given up first
	switch {
	case must > p.budget:
		largest.at.Mistake("bound it with values, a pattern or maxLength; or make keys optional, or raise session.budget if AWS was seen to take it",
			"required session tags can have %d characters together, and a role session is planned to take %d; the largest part is this key's %d", must, p.budget, len(largest.name)+largest.longest)
	case may*5 > p.budget*4:
		p.warn(p.keys[0].position, "session tags can have %d characters together, of %d that a role session is planned to take: when AWS has no room, optional ones are given up in this order: %s", may, p.budget, strings.Join(p.drop, ", "))
	}
}

func (p *Policy) warn(position, format string, args ...any) {
	p.warnings = append(p.warnings, strings.TrimPrefix(position+": "+fmt.Sprintf(format, args...), ": "))
}
