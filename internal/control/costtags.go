package control

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/costexplorer"
	cetypes "github.com/aws/aws-sdk-go-v2/service/costexplorer/types"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

func costTagControls() []Control {
	reads := []string{"ce:ListCostAllocationTags", "ce:ListCostAllocationTagBackfillHistory"}
	return []Control{{
		ID: "cost-tags-active", Title: "Tag keys in use are active as cost allocation tags", Practices: []string{"P11"}, Severity: High,
		Holds:  "Every key that rides on sessions, roles or resources is an active cost allocation tag of the account that pays.",
		Seen:   "ce:ListCostAllocationTags in the account that pays.",
		Why:    "Activation is not retroactive: dollars that are billed before it never carry the tag of a session. Tags of profiles and projects can be filled in later, by a backfill.",
		Remedy: "waybill setup activates the keys that AWS lists. A key is listed within a day of the first call, or resource, that carries it: make a call, wait, run it again.",
		Reads:  reads, Changes: []string{"ce:UpdateCostAllocationTagsStatus"},
		judge: judgeCostTags,
	}, {
		ID: "cost-tags-fresh", Title: "No cost allocation tag is less than a day old", Practices: []string{"P11"}, Severity: Low,
		Holds:  "The keys in use were activated more than 24 hours ago.",
		Seen:   "LastUpdatedDate of ce:ListCostAllocationTags.",
		Why:    "A key shows in the bill up to 24 hours after its activation: until then a report by it is incomplete.",
		Remedy: "Wait a day. Nothing is wrong.",
		Reads:  reads,
		judge:  judgeFreshTags,
	}, {
		ID: "cost-tags-limit", Title: "There is room for more cost allocation tags", Practices: []string{"P9", "P17"}, Severity: Medium,
		Holds:  "Fewer than 450 of the 500 keys that may be active are.",
		Seen:   "ce:ListCostAllocationTags.",
		Why:    "The next key that somebody needs cannot be activated, and its dollars are lost to it.",
		Remedy: "Deactivate keys that nobody uses: setup proposes those that no resource has carried for half a year, and does it only with --accept cost-tags-limit.",
		Reads:  reads, Changes: []string{"ce:UpdateCostAllocationTagsStatus"},
		judge: judgeTagLimit,
	}, {
		ID: "cost-tags-backfill", Title: "Tags are filled in for the declared months", Practices: []string{"P11"}, Severity: Medium,
		Holds:  "After the last activation a backfill was asked for that reaches the declared month, and it did not fail.",
		Seen:   "ce:ListCostAllocationTagBackfillHistory.",
		Why:    "A backfill gives resource tags to the bill of up to twelve months back. It is the one thing that can be saved; AWS does not say that it reaches tags of principals and sessions, so count on none.",
		Remedy: "waybill setup asks for it; AWS allows one in 24 hours. It applies the present state of all keys to those months, deactivations too.",
		Reads:  reads, Changes: []string{"ce:StartCostAllocationTagBackfill"},
		judge: judgeBackfill,
	}}
}

// wantedTags are the keys that have to be active.
func (in *Inquiry) wantedTags() []string {
	keys := slices.Clone(in.Declaration.Tags.Activate)
	if in.Policy != nil {
		for _, c := range []policy.Carrier{policy.OnSession, policy.OnPrincipal, policy.OnResource} {
			keys = append(keys, in.Policy.KeysOn(c)...)
		}
	}
	for i := range in.Declaration.Applications {
		keys = append(keys, sortedTags(in.Declaration.Applications[i].tags(in.Policy))...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// listed are the entries of a key. AWS was seen to list a principal's key both plain and as
// "iamPrincipal/team": either is taken, and activated as it is listed.
func (p *PayerFacts) listed(key string) []CostTag {
	var out []CostTag
	for _, t := range p.CostTags.Value {
		bare := t.Key
		for _, prefix := range []string{"iamPrincipal/", "user:"} {
			bare = strings.TrimPrefix(bare, prefix)
		}
		if bare == key {
			out = append(out, t)
		}
	}
	return out
}

func judgeCostTags(in *Inquiry, report func(Finding)) {
	p := &in.Snapshot.Payer
	if p.CostTags.Refused != "" {
		report(unknown("AWS does not list the cost allocation tags: %s", p.CostTags.Refused).at(p.Account, ""))
		return
	}
	var off []Finding
	var input []cetypes.CostAllocationTagStatusEntry
	var diff []string
	for _, key := range in.wantedTags() {
		place := func(f Finding) Finding { return f.at(p.Account, "").of(key) }
		entries := p.listed(key)
		waiting := len(input)
		for _, t := range entries {
			if !t.Active {
				input = append(input, cetypes.CostAllocationTagStatusEntry{TagKey: aws.String(t.Key), Status: cetypes.CostAllocationTagStatusActive})
				diff = append(diff, "- "+t.Key+" inactive", "+ "+t.Key+" active")
			}
		}
		switch {
		case len(entries) == 0:
			report(place(fails("AWS does not list the key yet")).as(Medium).worth(most(in.carried(key, "session"), in.carried(key, "resource"))).
				fix("make one call, or one profile or project, that carries it; within a day AWS lists it: then waybill setup"))
		case len(input) > waiting:
			lost, saved := in.carried(key, "session"), in.carried(key, "resource")
			message := "the key is in use and not active"
			if lost.Sign() > 0 {
				message += fmt.Sprintf("; %s %s that carried it on sessions will never be tagged", lost.Round(2), in.currency())
			}
			if saved.Sign() > 0 {
				message += fmt.Sprintf("; %s %s on profiles and projects can be saved by a backfill (tags: {backfill: YYYY-MM})", saved.Round(2), in.currency())
			}
			off = append(off, place(fails("%s", message)).worth(most(lost, saved))) // the same calls may carry it on both
		default:
			report(place(holds("active")))
		}
	}
	for part := range slices.Chunk(input, 20) { // AWS takes 20 a call
		off[0] = off[0].plan(Step{Words: fmt.Sprintf("activate %d cost allocation tags", len(part)), Diff: diff[:2*len(part)],
			Action: "ce:UpdateCostAllocationTagsStatus", Input: &costexplorer.UpdateCostAllocationTagsStatusInput{CostAllocationTagsStatus: part}})
		diff = diff[2*len(part):]
	}
	for _, f := range off {
		report(f)
	}
}

func most(a, b waybill.Money) waybill.Money {
	if a.Cmp(b) < 0 {
		return b
	}
	return a
}

// carried is what the ledger has of a key on a carrier.
func (in *Inquiry) carried(key, carrier string) waybill.Money {
	var sum waybill.Money
	if e, _ := in.ledger(); e != nil {
		for _, k := range e.Keys {
			if k.Key == key && k.Carrier == carrier {
				sum = sum.Add(k.Cost)
			}
		}
	}
	return sum
}

func (in *Inquiry) currency() string {
	if e, _ := in.ledger(); e != nil && e.Currency != "" {
		return e.Currency
	}
	return "USD"
}

func judgeFreshTags(in *Inquiry, report func(Finding)) {
	p := &in.Snapshot.Payer
	if p.CostTags.Refused != "" {
		report(unknown("AWS does not list the cost allocation tags: %s", p.CostTags.Refused).at(p.Account, ""))
		return
	}
	var fresh []string
	for _, key := range in.wantedTags() {
		for _, t := range p.listed(key) {
			if t.Active && in.now().Sub(t.Updated) < 24*time.Hour {
				fresh = append(fresh, t.Key)
			}
		}
	}
	if len(fresh) > 0 {
		report(fails("activated within the last day: %s", strings.Join(fresh, ", ")).at(p.Account, ""))
		return
	}
	report(holds("none is").at(p.Account, ""))
}

const (
	maxActiveTags  = 500 // for a payer. Source: Billing user guide, quotas
	nearActiveTags = 450
)

func judgeTagLimit(in *Inquiry, report func(Finding)) {
	p := &in.Snapshot.Payer
	if p.CostTags.Refused != "" {
		report(unknown("AWS does not list the cost allocation tags: %s", p.CostTags.Refused).at(p.Account, ""))
		return
	}
	wanted := in.wantedTags()
	active := 0
	var stale []CostTag
	for _, t := range p.CostTags.Value {
		if !t.Active {
			continue
		}
		active++
		used := !slices.ContainsFunc(wanted, func(k string) bool { return t.Key == k || strings.HasSuffix(t.Key, "/"+k) })
		if t.Type == "UserDefined" && used && !t.Used.IsZero() && in.now().Sub(t.Used) > 180*24*time.Hour {
			stale = append(stale, t)
		}
	}
	if active < nearActiveTags {
		report(holds("%d of %d keys are active", active, maxActiveTags).at(p.Account, ""))
		return
	}
	f := fails("%d of %d keys are active, and %d of them were not used for half a year", active, maxActiveTags, len(stale)).at(p.Account, "")
	for part := range slices.Chunk(stale, 20) {
		var input []cetypes.CostAllocationTagStatusEntry
		var diff []string
		for _, t := range part {
			input = append(input, cetypes.CostAllocationTagStatusEntry{TagKey: aws.String(t.Key), Status: cetypes.CostAllocationTagStatusInactive})
			diff = append(diff, "- "+t.Key+" active", "+ "+t.Key+" inactive")
		}
		f = f.plan(Step{Words: fmt.Sprintf("deactivate %d cost allocation tags that nobody uses", len(part)), Diff: diff, Action: "ce:UpdateCostAllocationTagsStatus",
			Risk: "reports by these keys are empty from now on", Input: &costexplorer.UpdateCostAllocationTagsStatusInput{CostAllocationTagsStatus: input}})
	}
	report(f)
}

func judgeBackfill(in *Inquiry, report func(Finding)) {
	month := in.Declaration.Tags.Backfill
	if month == "" {
		return
	}
	p := &in.Snapshot.Payer
	for _, no := range []string{p.CostTags.Refused, p.Backfills.Refused} {
		if no != "" {
			report(unknown("AWS does not say what was filled in: %s", no).at(p.Account, ""))
			return
		}
	}
	from, err := time.Parse("2006-01", month)
	if err != nil {
		report(unknown("%v", err).at(p.Account, ""))
		return
	}
	var activated time.Time
	for _, key := range in.wantedTags() {
		for _, t := range p.listed(key) {
			if t.Active && t.Updated.After(activated) {
				activated = t.Updated
			}
			if !t.Active {
				activated = in.now() // by the step before this one
			}
		}
	}
	var last time.Time
	for _, b := range p.Backfills.Value {
		if b.At.After(last) {
			last = b.At
		}
		if b.Status != "FAILED" && !b.At.Before(activated) && !b.From.After(from) {
			report(holds("filled in from %s on (%s)", b.From.Format("2006-01"), strings.ToLower(b.Status)).at(p.Account, ""))
			return
		}
	}
	f := fails("nothing was filled in from %s on since the keys were activated", month).at(p.Account, "").worth(in.resourceDollars())
	if in.now().Sub(last) < 24*time.Hour {
		report(f.fix("AWS allows one backfill in 24 hours: waybill setup after %s", last.Add(24*time.Hour).Format(time.RFC3339)))
		return
	}
	if oldest := time.Date(in.now().Year(), in.now().Month()-12, 1, 0, 0, 0, 0, time.UTC); from.Before(oldest) || from.After(in.now()) {
		report(f.fix("AWS fills in twelve months at most: declare %s or later", oldest.Format("2006-01")))
		return
	}
	report(f.plan(Step{Words: "fill the tags in from " + month + " on", Diff: []string{"+ backfill from " + month}, Action: "ce:StartCostAllocationTagBackfill",
		Input: &costexplorer.StartCostAllocationTagBackfillInput{BackfillFrom: aws.String(from.Format("2006-01-02T15:04:05Z"))}}))
}

func (in *Inquiry) resourceDollars() waybill.Money {
	var most waybill.Money
	if e, _ := in.ledger(); e != nil {
		for _, k := range e.Keys {
			if k.Carrier == "resource" && k.Cost.Cmp(most) > 0 {
				most = k.Cost
			}
		}
	}
	return most
}
