package stamp

import (
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

// This file is all that the package knows of internal/policy.

// rules are a tag policy.
type rules struct{ policy *policy.Policy }

// readRules reads a policy. open reads what it imports; epochs is the text of the file
// of secrets, or nil.
func readRules(name string, src, hashKey []byte, epochsFile string, epochs []byte, open func(string) ([]byte, error)) (rules, error) {
	o := policy.Options{HashKey: hashKey, Open: open}
	if epochs != nil {
		var err error
		if o.Epochs, err = policy.ParseEpochs(epochsFile, epochs); err != nil {
			return rules{}, err
		}
	}
	p, err := policy.Parse(name, src, o)
	return rules{p}, err
}

// A verdict is what the policy says of a call.
type verdict struct {
	tags       waybill.Tags // for the operation's carrier
	violations []Violation
	refusal    *waybill.Error
}

// judge holds a call against the restrictions of its caller and against the policy, as
// the gateway does. Of two sources the first goes first.
func (r rules) judge(c *call, caller waybill.Principal, sources []source) verdict {
	if !allowed(caller.Models, c.model.Base(), string(c.model)) {
		return verdict{refusal: &waybill.Error{Kind: waybill.Denied, Code: "WB1303", Message: "this caller may not use that model",
			Hint: "allowed are: " + strings.Join(caller.Models, ", ")}}
	}
	d := r.policy.Decide(&policy.Request{At: time.Now(), Principal: caller, Operation: c.operation, Endpoint: waybill.Runtime,
		Region: c.region, Model: c.model, Asked: asked(sources)})
	v := verdict{tags: d.Request, violations: violations(d), refusal: refusal(d)}
	if env, ok := d.Tags.Get("environment"); ok && v.refusal == nil && !allowed(caller.Environments, env) {
		v.refusal = &waybill.Error{Kind: waybill.Denied, Code: "WB1304", Message: "this caller may not use that environment"}
	}
	return v
}

// allowed reports whether one of the texts matches one of the patterns. No pattern
// restricts nothing.
func allowed(patterns []string, texts ...string) bool {
	for _, p := range patterns {
		for _, text := range texts {
			if policy.MatchPattern(p, text) {
				return true
			}
		}
	}
	return len(patterns) == 0
}

func asked(sources []source) []policy.Asked {
	out := make([]policy.Asked, 0, 8)
	for _, s := range sources {
		for tag := range s.tags {
			out = append(out, policy.Asked{Key: tag.Key, Value: tag.Value, From: s.name})
		}
	}
	return out
}

// ourWords puts the remedies, which are written for callers of a gateway, in the words
// of this package.
var ourWords = strings.NewReplacer("send it in "+policy.TagsHeader, "give it with stamp.WithTags or in stamp.Config.Tags")

func violations(d *policy.Decision) []Violation {
	if len(d.Violations) == 0 {
		return nil
	}
	out := make([]Violation, len(d.Violations))
	for i, v := range d.Violations {
		out[i] = Violation{Key: v.Key, Code: v.Code, Message: v.Message, Remedy: ourWords.Replace(v.Remedy), Mode: string(v.Mode)}
	}
	return out
}

func refusal(d *policy.Decision) *waybill.Error {
	e := d.Refusal()
	if e == nil {
		return nil
	}
	e.Message = ourWords.Replace(e.Message)
	e.Hint = "tags can be given with stamp.WithTags, in the call's own request metadata, and for every call in stamp.Config.Tags"
	return e
}

// A session is how the process's role session is named and tagged.
type session struct {
	name string
	tags waybill.Tags
	drop []string // optional keys, given up when STS has no room
}

// session resolves the role session of a caller. Only what rides on the session can
// refuse it: what else is required may come with each call.
func (r rules) session(caller waybill.Principal, tags waybill.Tags) (session, error) {
	d := r.policy.Decide(&policy.Request{At: time.Now(), Principal: caller, Endpoint: waybill.Runtime, Asked: asked([]source{{"stamp.Config.Tags", listed(tags)}})})
	rides := make(map[string]bool)
	for _, key := range r.policy.KeysOn(policy.OnSession) {
		rides[key] = true
	}
	var bad []string
	for _, v := range d.Violations {
		if v.Mode == policy.Enforce && rides[v.Key] {
			bad = append(bad, v.Message+" ("+strings.ReplaceAll(v.Remedy, "send it in "+policy.TagsHeader, "give it in stamp.Config.Tags")+")")
		}
	}
	if bad != nil {
		return session{}, &waybill.Error{Kind: waybill.Denied, Code: "WB1301",
			Message: "the tag policy refuses this process's role session: " + strings.Join(bad, "; "),
			Hint:    "tags of the session come from stamp.Config, not from single calls"}
	}
	return session{d.SessionName, d.Session, d.Drop}, nil
}
