package policy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
)

// An Asked tag is one that the request itself brought.
type Asked struct {
	Key, Value string
	From       string // which header or member it came in
}

// A Request is what a decision is made on.
type Request struct {
	Principal waybill.Principal
	Operation string
	Endpoint  waybill.Endpoint
	Region    string
	Model     waybill.ModelID
	Asked     []Asked
}

// A Violation is one way in which a call does not comply. Its text never repeats a
// value that the caller sent.
type Violation struct {
	Key     string
	Code    string // missing, not_allowed, bad_characters, pattern, forbidden, unknown_key, forged, too_many
	Message string
	Remedy  string
	Mode    Mode
}

// A Step tells where one tag's value came from, or why it has none.
type Step struct {
	Key    string
	Source string // identity, caller, request header or member, default
	What   string
}

// A Decision is what a policy says of one call.
type Decision struct {
	Outcome     waybill.PolicyOutcome
	Tags        waybill.Tags // all resolved tags
	Request     waybill.Tags // what goes on request metadata
	Session     waybill.Tags // what goes on the role session
	SessionName string
	Drop        []string // optional session tags, given up in this order when STS has no room
	Violations  []Violation
	Steps       []Step
}

// Reasons are the codes of the violations, for the record: key:code, never a value.
func (d *Decision) Reasons() []string {
	out := make([]string, len(d.Violations))
	for i, v := range d.Violations {
		out[i] = v.Key + ":" + v.Code
	}
	return out
}

// Refusal is the error a refused call is answered with. It lists every violation that
// is enforced, each with its remedy. It is nil for a call that passes.
func (d *Decision) Refusal() *waybill.Error {
	if d.Outcome != waybill.PolicyRefused {
		return nil
	}
	var parts []string
	for _, v := range d.Violations {
		if v.Mode == Enforce {
			parts = append(parts, v.Message+" ("+v.Remedy+")")
		}
	}
	return &waybill.Error{Kind: waybill.Denied, Code: "WB1301", Message: "the tag policy refuses this call: " + strings.Join(parts, "; "),
		Hint: "tags can be sent in X-Waybill-Tags: key=value,key=value"}
}

// Decide resolves the tags of a call and says whether it may pass.
func (p *Policy) Decide(req *Request) *Decision {
	d := &Decision{Outcome: waybill.PolicyAllowed}
	resolved := make(map[string]string, len(p.keys))
	used := make([]bool, len(req.Asked))
	for _, k := range p.keys {
		value, source, ok := p.source(k, req, d, used)
		if !ok {
			continue
		}
		if k.forbid {
			p.violate(d, k, "forbidden", fmt.Sprintf("tag %q is forbidden", k.name), "leave it out")
			continue
		}
		value, ok = p.clean(k, value, d)
		if !ok {
			continue
		}
		resolved[k.name] = value
		d.Steps = append(d.Steps, Step{k.name, source, "kept"})
	}
	p.undeclared(req, d, used, resolved)
	p.demand(req, d, resolved)
	d.Tags = waybill.TagsFromMap(resolved)
	p.carry(d, resolved)
	d.SessionName = p.sessionName(req, resolved)
	for _, v := range d.Violations {
		switch v.Mode {
		case Enforce:
			d.Outcome = waybill.PolicyRefused
		case Warn:
			if d.Outcome == waybill.PolicyAllowed {
				d.Outcome = waybill.PolicyWarned
			}
		}
	}
	return d
}

func (p *Policy) violate(d *Decision, k *key, code, message, remedy string) {
	mode := p.mode
	name := ""
	if k != nil {
		name = k.name
		if k.mode != "" {
			mode = k.mode
		}
	}
	d.Violations = append(d.Violations, Violation{name, code, message, remedy, mode})
}

// source finds a key's value: identity first, then the registration of the caller,
// then what the request asked for, then the default. What identity gives a request
// can never override; that it tried is noted.
func (p *Policy) source(k *key, req *Request, d *Decision, used []bool) (value, source string, ok bool) {
	asked := -1
	for i, a := range req.Asked {
		if strings.EqualFold(a.Key, k.name) {
			used[i] = true
			if asked < 0 {
				asked = i
			} else if req.Asked[asked].Value != a.Value {
				d.Steps = append(d.Steps, Step{k.name, a.From, "ignored: " + req.Asked[asked].From + " has another value and goes first"})
			}
		}
	}
	derived := true
	switch {
	case k.from == "caller.subject":
		value, source = req.Principal.Subject, "identity"
	case k.from == "caller.issuer":
		value, source = req.Principal.Issuer, "identity"
	case k.from == "caller.key":
		value, source = req.Principal.KeyID, "identity"
	case strings.HasPrefix(k.from, "claims."):
		value, source = req.Principal.Claims[k.from[len("claims."):]], "identity"
	default:
		derived = false
	}
	if value == "" {
		if v, there := req.Principal.Tags.Get(k.name); there {
			value, source, derived = v, "caller", true
		}
	}
	if derived && asked >= 0 && value != req.Asked[asked].Value {
		d.Steps = append(d.Steps, Step{k.name, req.Asked[asked].From, "ignored: the value comes from the caller's identity"})
		d.Violations = append(d.Violations, Violation{k.name, "forged", fmt.Sprintf("tag %q comes from the caller's identity and was also sent", k.name), "leave it out", Observe})
	}
	switch {
	case value != "":
		return value, source, true
	case derived && k.from != "":
		return "", "", false // a request never stands in for identity
	case asked >= 0:
		return req.Asked[asked].Value, req.Asked[asked].From, true
	case k.hasFall:
		return k.fallback, "default", true
	}
	return "", "", false
}

// clean brings a value to the form the policy wants, or notes why it cannot be kept.
func (p *Policy) clean(k *key, value string, d *Decision) (string, bool) {
	if k.hash {
		return p.pseudonym(k.name, value), true
	}
	if target, ok := k.alias(value); ok {
		value = target
	}
	if k.fold {
		for _, v := range k.values {
			if strings.EqualFold(v, value) {
				value = v
			}
		}
		if len(k.values) == 0 {
			value = strings.ToLower(value)
		}
	}
	if what := badText(value, 1, maxValueLength); what != "" {
		p.violate(d, k, "bad_characters", fmt.Sprintf("the value of tag %q %s", k.name, what), "use letters, digits, space and _ . : / = + - @, at most 256")
		return "", false
	}
	if len(k.values) > 0 && !slices.Contains(k.values, value) {
		p.violate(d, k, "not_allowed", fmt.Sprintf("the value of tag %q is not allowed", k.name), "allowed are: "+listed(k.values))
		return "", false
	}
	if k.pattern != nil && !k.pattern.MatchString(value) {
		p.violate(d, k, "pattern", fmt.Sprintf("the value of tag %q does not match its pattern", k.name), "the pattern is "+strings.TrimSuffix(strings.TrimPrefix(k.pattern.String(), "^(?:"), ")$"))
		return "", false
	}
	return value, true
}

func (k *key) alias(value string) (string, bool) {
	if t, ok := k.aliases[value]; ok {
		return t, true
	}
	if k.fold {
		for a, t := range k.aliases {
			if strings.EqualFold(a, value) {
				return t, true
			}
		}
	}
	return "", false
}

func listed(values []string) string {
	if len(values) > 20 {
		return strings.Join(values[:20], ", ") + fmt.Sprintf(" and %d more", len(values)-20)
	}
	return strings.Join(values, ", ")
}

// pseudonym is a stable name for a value that must not be seen: 20 hexadecimal digits
// of its HMAC-SHA-256 under the policy's secret, told apart by key.
func (p *Policy) pseudonym(name, value string) string {
	mac := hmac.New(sha256.New, p.hashKey)
	fmt.Fprintf(mac, "%s\x00%s", name, value)
	return "h1-" + hex.EncodeToString(mac.Sum(nil)[:10])
}

// undeclared deals with tags that the request brought and the policy does not know.
func (p *Policy) undeclared(req *Request, d *Decision, used []bool, resolved map[string]string) {
	for i, a := range req.Asked {
		if used[i] {
			continue
		}
		switch p.unknown {
		case "refuse":
			p.violate(d, nil, "unknown_key", "a tag was sent whose key the policy does not know", "known are: "+listed(p.Keys()))
		case "pass":
			if badText(a.Key, 1, maxKeyLength) == "" && badText(a.Value, 0, maxValueLength) == "" && !strings.HasPrefix(strings.ToLower(a.Key), "aws:") {
				if _, there := resolved[a.Key]; !there {
					resolved[a.Key] = a.Value
				}
				continue
			}
			fallthrough
		default:
			d.Steps = append(d.Steps, Step{clipKey(a.Key), a.From, "dropped: the policy does not know the key"})
		}
	}
}

func clipKey(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// demand notes the required keys that have no value.
func (p *Policy) demand(req *Request, d *Decision, resolved map[string]string) {
	failed := make(map[string]bool)
	for _, v := range d.Violations {
		failed[v.Key] = failed[v.Key] || v.Code != "forged"
	}
	missing := func(k *key, why string) {
		if _, ok := resolved[k.name]; ok || failed[k.name] {
			return
		}
		failed[k.name] = true
		remedy := "send it in X-Waybill-Tags"
		switch {
		case k.from != "":
			remedy = "it comes from the caller's identity (" + k.from + "), which lacks it"
		case len(k.values) > 0:
			remedy += "; allowed are: " + listed(k.values)
		}
		p.violate(d, k, "missing", fmt.Sprintf("tag %q is required%s", k.name, why), remedy)
	}
	for _, k := range p.keys {
		if k.required {
			missing(k, "")
		}
	}
	for _, r := range p.rules {
		holds, _ := r.when.Holds(func(name string) (string, bool) { return fact(req, resolved, name) })
		if !holds {
			continue
		}
		for _, name := range r.require {
			missing(p.byName[name], " when "+r.when.String())
		}
		for _, name := range r.forbid {
			if _, there := resolved[name]; there {
				delete(resolved, name)
				p.violate(d, p.byName[name], "forbidden", fmt.Sprintf("tag %q is forbidden when %s", name, r.when.String()), "leave it out")
			}
		}
	}
}

// fact is the value of a name in a condition: a resolved tag, or a fact of the call.
func fact(req *Request, tags map[string]string, name string) (string, bool) {
	if v, ok := tags[name]; ok {
		return v, true
	}
	return req.Fact(name)
}

// Fact is the value of a name in a condition that is not a tag: model (without profile
// prefix), modelId, operation, endpoint, region, caller, issuer, claims.NAME.
func (req *Request) Fact(name string) (string, bool) {
	var v string
	switch name {
	case "model":
		v = req.Model.Base()
	case "modelId":
		v = string(req.Model)
	case "operation":
		v = req.Operation
	case "endpoint":
		v = string(req.Endpoint)
	case "region":
		v = req.Region
	case "caller":
		v = req.Principal.Subject
	case "issuer":
		v = req.Principal.Issuer
	default:
		if claim, ok := strings.CutPrefix(name, "claims."); ok {
			v = req.Principal.Claims[claim]
		}
	}
	return v, v != ""
}

// carry deals the tags out to their carriers.
func (p *Policy) carry(d *Decision, resolved map[string]string) {
	var request, session []waybill.Tag
	for _, k := range p.keys {
		v, ok := resolved[k.name]
		if !ok {
			continue
		}
		if k.on(OnRequest) {
			request = append(request, waybill.Tag{Key: k.name, Value: v})
		}
		if k.on(OnSession) {
			session = append(session, waybill.Tag{Key: k.name, Value: v})
			if !k.required {
				d.Drop = append(d.Drop, k.name)
			}
		}
	}
	slices.Reverse(d.Drop) // what is declared last is given up first
	for name, v := range d.Tags.All() {
		if p.byName[name] == nil && len(request) < maxRequestTags { // passed on undeclared
			request = append(request, waybill.Tag{Key: name, Value: v})
		}
	}
	d.Request, d.Session = waybill.NewTags(request...), waybill.NewTags(session...)
}

// sessionName fills the template and brings it to what STS takes: 2 to 64 characters
// of letters, digits and _ + = , . @ -. A name that had to be shortened keeps apart
// from others by a digest.
func (p *Policy) sessionName(req *Request, resolved map[string]string) string {
	text := p.session
	if text == "" {
		text = "{caller}"
	}
	text = placeholder.ReplaceAllStringFunc(text, func(name string) string {
		v, _ := fact(req, resolved, name[1:len(name)-1])
		return v
	})
	clean := []byte(text)
	for i, c := range clean {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+=,.@-", c) >= 0) {
			clean[i] = '-'
		}
	}
	name := string(clean)
	if len(name) > maxSessionName || name != text {
		sum := sha256.Sum256([]byte(text))
		name = name[:min(len(name), maxSessionName-9)] + "-" + hex.EncodeToString(sum[:4])
	}
	if len(name) < minSessionName {
		name = "wb-" + name
	}
	return name
}

func sorted(names []string) string {
	slices.Sort(names)
	return strings.Join(names, ", ")
}
