package control

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
	"github.com/waybill-dev/waybill/internal/screen"
)

func tagControls() []Control {
	return []Control{{
		ID: "sensitive-values", Title: "No tag value in log or bill is personal data or a secret", Practices: []string{"P16"}, Severity: High,
		Holds:  "No value of a tag looks like an e-mail address, a key, a token or the like, and no key has values as free as text.",
		Seen:   "The ledger's tag values, screened. Values that look sensitive are named by their kind, never shown.",
		Why:    "Tag values end up in logs, bills and reports that many people read and that nobody can take back.",
		Remedy: "Give the key transform: hmac, or sensitive: reject, in the tag policy; what is in the bill already cannot be taken out.",
		judge:  judgeSensitive,
	}, {
		ID: "vocabulary", Title: "Tags in log and bill are of the policy's vocabulary", Practices: []string{"P10"}, Severity: Medium,
		Holds:  "Every key that was seen is declared by the policy, and every value of a key with a list of values is on it.",
		Seen:   "The ledger's tag keys and values, against the policy.",
		Why:    "prod and production are two lines of every report. A key that is spelled in two ways splits its dollars.",
		Remedy: "Add an alias or the key to the policy, or correct the client: waybill policy stats shows who uses what.",
		judge:  judgeVocabulary,
	}, {
		ID: "cardinality", Title: "Keys that reach the bill have few values", Practices: []string{"P9"}, Severity: Medium,
		Holds:  "No key that rides on sessions or resources has more values than its bound, or than 200 where the policy sets none.",
		Seen:   "Distinct values of each key and carrier in the ledger.",
		Why:    "Rows of the bill multiply by values, and so do role sessions. Ids of sessions, traces and experiments belong on the request alone.",
		Remedy: "Set carriers: [request] and highCardinality for the key, or maxDistinct, in the tag policy.",
		judge:  judgeCardinality,
	}, {
		ID: "tag-coverage", Title: "Dollars carry their tags", Practices: []string{"P12", "P18"}, Severity: Medium,
		Holds:  "For every key the declared percentage of dollars carries it: 95 % for keys that the policy requires, where nothing else is declared.",
		Seen:   "The ledger's dollars by key and carrier; the file of earlier scores for the trend.",
		Why:    "AWS refuses no call that lacks a tag: coverage is the one number that says whether attribution works.",
		Remedy: "waybill report --by iam_principal,KEY shows whose calls lack it; require the key in the policy.",
		judge:  judgeCoverage,
	}}
}

// maxDistinct is how many values a key on the bill may have where the policy sets no bound.
const maxDistinct = 200

func judgeSensitive(in *Inquiry, report func(Finding)) {
	e, why := in.ledger()
	if e == nil {
		report(unknown("%s", why))
		return
	}
	type key struct{ key, kind, source string }
	found := make(map[key]*ValueUsage)
	distinct, long := make(map[string]int), make(map[string]int)
	for _, v := range e.Values {
		kind := v.Sensitive
		if kind == "" {
			if f, ok := screen.Value(v.Value); ok {
				kind = f.Name
			}
			distinct[v.Key]++
			if len(v.Value) > 80 || strings.Count(v.Value, " ") > 4 {
				long[v.Key]++
			}
			if kind == "" {
				continue
			}
		}
		k := key{v.Key, kind, v.Source}
		if found[k] == nil {
			found[k] = &ValueUsage{}
		}
		found[k].Calls += v.Calls
		found[k].Cost = found[k].Cost.Add(v.Cost)
	}
	for _, k := range slices.SortedFunc(maps.Keys(found), func(a, b key) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.kind, b.kind), strings.Compare(a.source, b.source))
	}) {
		report(fails("values that look like %s, on %d calls, in the %s", k.kind, found[k].Calls, k.source).of(k.key).worth(found[k].Cost))
	}
	free := false
	for _, k := range slices.Sorted(maps.Keys(long)) {
		if long[k] > 1 && long[k]*2 > distinct[k] {
			free = true
			report(fails("values are free text: %d of %d are sentences", long[k], distinct[k]).of(k).as(Medium))
		}
	}
	if len(found) == 0 && !free {
		report(holds("%d values look harmless", len(e.Values)))
	}
}

func judgeVocabulary(in *Inquiry, report func(Finding)) {
	e, why := in.ledger()
	switch {
	case e == nil:
		report(unknown("%s", why))
		return
	case in.Policy == nil:
		report(unknown("no tag policy was named: give --policy"))
		return
	}
	strange := make(map[string]waybill.Money)
	drift := make(map[string]waybill.Money)
	for _, v := range e.Values {
		if !in.Policy.Declares(v.Key) {
			strange[v.Key] = strange[v.Key].Add(v.Cost)
			continue
		}
		if v.Sensitive == "" && v.Value != "" && drifts(in.Policy, v.Key, v.Value) {
			id := v.Key + "=" + policy.Shown(v.Value)
			drift[id] = drift[id].Add(v.Cost)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(strange)) {
		report(fails("no key of that name is declared").of(k).worth(strange[k]))
	}
	for _, id := range slices.Sorted(maps.Keys(drift)) {
		report(fails("the value is not one of the key's").of(id).worth(drift[id]))
	}
	if len(strange)+len(drift) == 0 {
		report(holds("every key and value is declared"))
	}
}

// drifts says whether the policy would not have let a value be what it is: it asks the
// policy for the decision on a call that brings the value, and on nothing else.
func drifts(p *policy.Policy, key, value string) bool {
	if _, ok := policy.IsPseudonym(value); ok {
		return false
	}
	d := p.Decide(&policy.Request{Asked: []policy.Asked{{Key: key, Value: value, From: policy.TagsHeader}}, Operation: "Converse", Endpoint: waybill.Runtime})
	for _, v := range d.Violations {
		if v.Key == key && slices.Contains([]string{"not_allowed", "pattern", "range", "deprecated_value"}, v.Code) {
			return true
		}
	}
	got, ok := d.Tags.Get(key)
	return ok && got != value && !p.Hashes()
}

func judgeCardinality(in *Inquiry, report func(Finding)) {
	e, why := in.ledger()
	if e == nil {
		report(unknown("%s", why))
		return
	}
	bad := false
	for _, k := range e.Keys {
		if k.Carrier == "request" {
			continue
		}
		bound, whose := maxDistinct, "for want of a bound in the policy"
		if in.Policy != nil {
			if b := in.Policy.Bound(k.Key); b > 0 {
				bound, whose = b, "as the policy bounds it"
			}
		}
		if k.Distinct > bound {
			bad = true
			report(fails("%d values on the %s carrier, and %d are the most, %s", k.Distinct, k.Carrier, bound, whose).of(k.Key).worth(k.Cost))
		}
	}
	if !bad {
		report(holds("no key has too many values"))
	}
}

// percent is part of whole in per cent with one decimal, rounded down: 94.99 % is not 95 %.
func percent(part, whole waybill.Money) string {
	if whole.Sign() <= 0 {
		return "100.0"
	}
	n := new(big.Int).Mul(part.Unscaled(), big.NewInt(1000))
	n.Quo(n, whole.Unscaled())
	return fmt.Sprintf("%d.%d", n.Int64()/10, n.Int64()%10)
}

// reaches says whether part is at least so many per cent of whole, exactly.
func reaches(part, whole waybill.Money, slo int) bool {
	return new(big.Int).Mul(part.Unscaled(), big.NewInt(100)).Cmp(new(big.Int).Mul(whole.Unscaled(), big.NewInt(int64(slo)))) >= 0
}

// objectives are the percentages that hold.
func (in *Inquiry) objectives() map[string]int {
	slo := make(map[string]int)
	if in.Policy != nil {
		for _, k := range in.Policy.Required() {
			slo[k] = 95
		}
	}
	maps.Copy(slo, in.Declaration.Coverage)
	return slo
}

// covered is the dollars that carry a key on whichever carrier has most of them.
func (e *Evidence) covered(key string) (best waybill.Money, byCarrier []string) {
	for _, k := range e.Keys {
		if k.Key != key {
			continue
		}
		byCarrier = append(byCarrier, k.Carrier+" "+percent(k.Cost, e.Total)+" %")
		if k.Cost.Cmp(best) > 0 {
			best = k.Cost
		}
	}
	slices.Sort(byCarrier)
	return best, byCarrier
}

func judgeCoverage(in *Inquiry, report func(Finding)) {
	e, why := in.ledger()
	if e == nil {
		report(unknown("%s", why))
		return
	}
	slo := in.objectives()
	for _, key := range slices.Sorted(maps.Keys(slo)) {
		have, carriers := e.covered(key)
		message := fmt.Sprintf("%s %% of %s %s carries it, and %d %% is the aim", percent(have, e.Total), e.Total.Round(2), in.currency(), slo[key])
		if len(carriers) > 0 {
			message += " (" + strings.Join(carriers, ", ") + ")"
		}
		if n := len(in.History); n > 0 {
			if before, ok := in.History[n-1].Coverage[key]; ok {
				message += "; " + before + " % on " + in.History[n-1].At.Format("2006-01-02")
			}
		}
		if reaches(have, e.Total, slo[key]) {
			report(holds("%s", message).of(key))
			continue
		}
		report(fails("%s", message).of(key).worth(e.Total.Sub(have)))
	}
}

// Score is the coverage of this audit, for the history.
func (in *Inquiry) Score(findings []Finding) (Score, bool) {
	e, _ := in.ledger()
	if e == nil {
		return Score{}, false
	}
	s := Score{At: in.now(), Currency: e.Currency, Total: e.Total, Coverage: make(map[string]string)}
	for key := range in.objectives() {
		have, _ := e.covered(key)
		s.Coverage[key] = percent(have, e.Total)
	}
	s.Failed, s.Unknown = News(findings)
	return s, true
}
