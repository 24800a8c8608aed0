package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
)

// An Asked tag is one that the request itself brought. Of two with one key the earlier
// wins.
type Asked struct {
	Key, Value string
	From       string // which header or member it came in
}

// A Request is what a decision is made on.
type Request struct {
	CallID    string    // the gateway's own id of the call
	At        time.Time // the zero time stands outside all reorganisations and in the newest epoch
	Principal waybill.Principal
	Operation string
	Endpoint  waybill.Endpoint
	Region    string
	Model     waybill.ModelID
	Behind    waybill.ModelID // what Model stands for, where it does not name a model and that is known
	Asked     []Asked
	// Guard counts the values of keys with a bound; nil counts nothing.
	Guard *Guard

	// replay says that Asked are the tags of a recorded call: they stand in for
	// identity where the record has no better.
	replay bool
}

// A Violation is one way in which a call does not comply. Its text never repeats a
// value that the caller sent.
type Violation struct {
	Key     string `json:"key,omitempty"`
	Code    string `json:"code"` // see Codes
	Rule    string `json:"rule,omitempty"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
	Mode    Mode   `json:"mode"`
}

// Codes of violations, as records have them, and what they mean.
var Codes = map[string]string{
	"missing":          "a required tag has no value",
	"not_allowed":      "the value is not one of the key's",
	"bad_characters":   "the value has characters or a length that AWS does not take",
	"pattern":          "the value does not match the key's pattern",
	"range":            "the value is not a whole number in the key's range",
	"too_long":         "the value is longer than the key allows",
	"forbidden":        "the tag is forbidden",
	"unknown_key":      "no key of that name is declared",
	"too_many_values":  "the key has as many values as it may have, and this is another",
	"sensitive":        "the value looks like personal data or a secret; the kind is after the underscore",
	"forged":           "the request sent a tag that identity gives, with another value",
	"overridden":       "the request sent a tag that the application's configuration gives, with another value",
	"deprecated_key":   "the key is deprecated",
	"deprecated_value": "the value is deprecated, or was renamed by a reorganisation",
}

// A Step tells where one tag's value came from, or why it has none. Explain gives them.
type Step struct {
	Key    string `json:"key"`
	Source string `json:"source"` // identity, registration, an application, a header or member, default
	What   string `json:"what"`   // kept, changed or dropped, and why
}

// A RuleStep tells whether a rule held. Explain gives them.
type RuleStep struct {
	Rule  string `json:"rule"`
	Holds bool   `json:"holds"`
	Why   string `json:"why"`
}

// A Decision is what a policy says of one call: one resolution, from which everything
// that goes to AWS is made. Tags.ID() joins it to the records of the call.
type Decision struct {
	Outcome     waybill.PolicyOutcome
	Tags        waybill.Tags // all resolved tags
	Request     waybill.Tags // what goes on request metadata
	Session     waybill.Tags // what goes on the role session
	Resource    waybill.Tags // what the profile, project or workspace that is chosen stands for
	SessionName string
	Drop        []string // optional session tags, given up in this order when STS has no room
	Violations  []Violation
	Steps       []Step     // of Explain only
	Rules       []RuleStep // of Explain only
	req         *Request
	policy      *Policy
	loose       []string // keys whose values ride on the request only, since they break the policy
}

// Reasons are the codes of the violations, for the record: key:code, never a value. Each
// is told once, however many rules are broken in that way.
func (d *Decision) Reasons() []string { return d.reasons(func(Mode) bool { return true }) }

// Observed are those of Reasons that never refuse a call: attempts to override, for
// instance. They are all there is to say of a call that needs to comply with nothing.
func (d *Decision) Observed() []string { return d.reasons(func(m Mode) bool { return m == Observe }) }

func (d *Decision) reasons(of func(Mode) bool) []string {
	if len(d.Violations) == 0 {
		return nil
	}
	out := make([]string, 0, len(d.Violations))
	for _, v := range d.Violations {
		if reason := v.Key + ":" + v.Code; of(v.Mode) && !slices.Contains(out, reason) {
			out = append(out, reason)
		}
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

// Fact is the value of a name in the conditions of roles and targets: a fact of the
// call, or else a resolved tag. A tag cannot stand in for a fact.
func (d *Decision) Fact(name string) (string, bool) {
	if isFact(name) {
		return d.req.Fact(name)
	}
	return d.Tags.Get(name)
}

// Fact is the value of a name in a condition that is not a tag: model (behind a
// profile, without its prefix), modelId (as the caller names it), operation, endpoint, region, caller, issuer, claims.NAME.
func (req *Request) Fact(name string) (string, bool) {
	var v string
	switch name {
	case "model":
		if v = req.Behind.Base(); v == "" {
			v = req.Model.Base()
		}
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
