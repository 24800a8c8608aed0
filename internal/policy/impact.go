package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/screen"
)

// A Past is some calls of the ledger that are alike in all that a policy asks about.
type Past struct {
	Principal string // the gateway's caller; the IAM principal where only AWS knows it
	Issuer    string
	KeyID     string
	Operation string
	Endpoint  waybill.Endpoint
	Region    string
	Model     waybill.ModelID
	Tags      waybill.Tags // as they were resolved then, or as the log has them
	Day       waybill.Day
	Calls     int64
	Cost      waybill.Money // metered
	Refused   bool          // by the gateway, then
}

// A Tally is calls and their dollars.
type Tally struct {
	Calls int64         `json:"calls"`
	Cost  waybill.Money `json:"cost"`
}

func (t *Tally) add(p *Past) {
	t.Calls += p.Calls
	t.Cost = t.Cost.Add(p.Cost)
}

// An Impact is what a policy would have done to calls of the past. Every call is in
// exactly one of Same, Changed, Warned, Refused and Undecided, and these add up to
// Total.
type Impact struct {
	Total     Tally `json:"total"`
	Same      Tally `json:"same"`      // would pass with the tags it had
	Changed   Tally `json:"changed"`   // would pass, with other tags
	Warned    Tally `json:"warned"`    // would pass, and be marked
	Refused   Tally `json:"refused"`   // would be refused
	Undecided Tally `json:"undecided"` // hangs on what the ledger does not keep
	Freed     Tally `json:"freed"`     // was refused then, and would pass; a part of the others

	Callers    []CallerImpact    `json:"callers"`    // dearest refusals first
	Violations []ViolationImpact `json:"violations"` // dearest first
	Renamed    []RenameImpact    `json:"renamed"`    // dearest first
	Notes      []string          `json:"notes"`
}

// A CallerImpact is what would have happened to one caller.
type CallerImpact struct {
	Caller    string   `json:"caller"`
	Total     Tally    `json:"total"`
	Refused   Tally    `json:"refused"`
	Changed   Tally    `json:"changed"`
	Warned    Tally    `json:"warned"`
	Undecided Tally    `json:"undecided"`
	Why       []string `json:"why"` // key:code of what would be refused
}

// A ViolationImpact is how often one violation would have been found.
type ViolationImpact struct {
	Key     string `json:"key"`
	Code    string `json:"code"`
	Mode    Mode   `json:"mode"`
	Callers int    `json:"callers"`
	Tally
}

// A RenameImpact is one value that would have been another, or gone (To is empty), or
// been added (From is empty).
type RenameImpact struct {
	Key  string `json:"key"`
	From string `json:"from"`
	To   string `json:"to"`
	Tally
}

// Replay says what the policy would have done to calls of the past. The ledger keeps
// the tags that calls had, not which header brought them, and no claims: what hangs on
// those is undecided.
func (p *Policy) Replay(past []Past) *Impact {
	out := new(Impact)
	callers := make(map[string]*CallerImpact)
	type violation struct {
		key, code string
		mode      Mode
	}
	violations := make(map[violation]*ViolationImpact)
	violators := make(map[violation]map[string]bool)
	renames := make(map[[3]string]*RenameImpact)
	for i := range past {
		c := &past[i]
		req := &Request{Principal: waybill.Principal{Subject: c.Principal, Issuer: c.Issuer, KeyID: c.KeyID}, Operation: c.Operation,
			Endpoint: c.Endpoint, Region: c.Region, Model: c.Model, At: c.Day.Start(), replay: true}
		for k, v := range c.Tags.All() {
			req.Asked = append(req.Asked, Asked{k, v, recordedSource})
		}
		d := p.Decide(req)
		caller := callers[c.Principal]
		if caller == nil {
			caller = &CallerImpact{Caller: c.Principal}
			callers[c.Principal] = caller
		}
		out.Total.add(c)
		caller.Total.add(c)
		undecided := false
		enforced := 0
		for i, v := range d.Violations {
			id := violation{v.Key, v.Code, v.Mode}
			if violations[id] == nil {
				violations[id] = &ViolationImpact{Key: v.Key, Code: v.Code, Mode: v.Mode}
				violators[id] = make(map[string]bool)
			}
			if !slices.ContainsFunc(d.Violations[:i], func(w Violation) bool { return violation{w.Key, w.Code, w.Mode} == id }) { // two rules, one call
				violations[id].add(c)
			}
			violators[id][c.Principal] = true
			if v.Mode == Enforce {
				enforced++
				if k := p.byNameKey(v.Key); v.Code == "missing" && k != nil && (k.from == fromClaim || k.from == fromCallID) {
					undecided = true
					enforced--
				}
			}
		}
		switch {
		case enforced > 0:
			out.Refused.add(c)
			caller.Refused.add(c)
			for _, v := range d.Violations {
				if why := v.Key + ":" + v.Code; v.Mode == Enforce && !slices.Contains(caller.Why, why) {
					caller.Why = append(caller.Why, why)
				}
			}
		case undecided:
			out.Undecided.add(c)
			caller.Undecided.add(c)
		case d.Outcome == waybill.PolicyWarned:
			out.Warned.add(c)
			caller.Warned.add(c)
		case d.Tags.Equal(c.Tags):
			out.Same.add(c)
		default:
			out.Changed.add(c)
			caller.Changed.add(c)
		}
		if c.Refused && d.Outcome != waybill.PolicyRefused {
			out.Freed.add(c)
		}
		if enforced > 0 {
			continue
		}
		for _, change := range changes(c.Tags, d.Tags) {
			if renames[change] == nil {
				renames[change] = &RenameImpact{Key: change[0], From: change[1], To: change[2]}
			}
			renames[change].add(c)
		}
	}
	for id, v := range violations {
		v.Callers = len(violators[id])
	}
	out.Callers = dearest(maps.Values(callers), func(a, b *CallerImpact) int {
		return cmp.Or(b.Refused.Cost.Cmp(a.Refused.Cost), cmp.Compare(b.Refused.Calls, a.Refused.Calls), b.Total.Cost.Cmp(a.Total.Cost), strings.Compare(a.Caller, b.Caller))
	})
	for i := range out.Callers {
		slices.Sort(out.Callers[i].Why)
	}
	out.Violations = dearest(maps.Values(violations), func(a, b *ViolationImpact) int {
		return cmp.Or(b.Cost.Cmp(a.Cost), cmp.Compare(b.Calls, a.Calls), strings.Compare(a.Key, b.Key), strings.Compare(a.Code, b.Code), strings.Compare(string(a.Mode), string(b.Mode)))
	})
	out.Renamed = dearest(maps.Values(renames), func(a, b *RenameImpact) int {
		return cmp.Or(b.Cost.Cmp(a.Cost), cmp.Compare(b.Calls, a.Calls), strings.Compare(a.Key, b.Key), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	out.Notes = p.replayNotes()
	return out
}

func (p *Policy) byNameKey(name string) *key {
	if i, ok := p.byName[name]; ok {
		return p.keys[i]
	}
	return nil
}

// Shown is a value of the past as it may be shown: one that looks like personal data or a
// secret is named by its kind.
func Shown(value string) string {
	if f, is := screen.Value(value); is {
		return "(" + f.Name + ")"
	}
	return value
}

// changes are the differences between two sets: key, old value, new value. Old values
// are as they may be shown.
func changes(before, now waybill.Tags) [][3]string {
	var out [][3]string
	for k, v := range before.All() {
		if w, _ := now.Get(k); w != v {
			out = append(out, [3]string{Shown(k), Shown(v), w})
		}
	}
	for k, w := range now.All() {
		if _, there := before.Get(k); !there {
			out = append(out, [3]string{k, "", w})
		}
	}
	return out
}

// replayNotes say what a replay cannot know.
func (p *Policy) replayNotes() []string {
	var claims, ids []string
	for _, k := range p.keys {
		switch k.from {
		case fromClaim:
			claims = append(claims, k.name)
		case fromCallID:
			ids = append(ids, k.name)
		}
	}
	var out []string
	if len(claims) > 0 {
		out = append(out, "the ledger keeps no claims: "+strings.Join(claims, ", ")+" have the values that calls had then, and calls without are undecided where the key is required")
	}
	if len(ids) > 0 {
		out = append(out, strings.Join(ids, ", ")+": the id of a call is not replayed")
	}
	asks := func(c *Condition) bool {
		return slices.ContainsFunc(c.Keys(), func(k string) bool { return strings.HasPrefix(k, "claims.") })
	}
	for i := range p.rules {
		if asks(&p.rules[i].when) {
			out = append(out, p.rules[i].title()+" asks for claims, which the ledger does not keep: it is taken not to hold")
		}
	}
	for i := range p.applications {
		if asks(&p.applications[i].when) {
			out = append(out, "application "+p.applications[i].name+" asks for claims, which the ledger does not keep: it is taken not to hold")
		}
	}
	for i := range p.rollout {
		if asks(&p.rollout[i].when) {
			out = append(out, "the rollout at "+p.rollout[i].position+" asks for claims, which the ledger does not keep: it is taken not to hold")
		}
	}
	return out
}

func dearest[T any](all func(func(*T) bool), compare func(a, b *T) int) []T {
	list := slices.SortedFunc(all, compare)
	out := make([]T, len(list))
	for i, v := range list {
		out[i] = *v
	}
	return out
}
