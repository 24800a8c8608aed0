package control

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/waybill-dev/waybill"
)

func completenessControls() []Control {
	reads := []string{"cloudwatch:ListMetrics", "cloudwatch:GetMetricData"}
	return []Control{{
		ID: "complete-runtime", Title: "The ledger has every call of bedrock-runtime", Practices: []string{"P7", "P12", "P18"}, Severity: High,
		Holds:  "On every day CloudWatch's counts of calls and tokens are within 2 % of the ledger's.",
		Seen:   "Namespace AWS/Bedrock, dimension ModelId, summed by day; the ledger's calls, whatever their source.",
		Why:    "CloudWatch counts calls by whoever made them. More there than in the ledger is traffic that neither the gateway nor the log has seen.",
		Remedy: "Find who calls (waybill report --by iam_principal), and close the way: waybill guard. Where the log is missing, ingest it.",
		Reads:  reads,
		judge:  func(in *Inquiry, report func(Finding)) { judgeComplete(in, waybill.Runtime, report) },
	}, {
		ID: "complete-mantle", Title: "The ledger has every call of bedrock-mantle", Practices: []string{"P5", "P6", "P12"}, Severity: High,
		Holds:  "On every day CloudWatch's counts of inferences and tokens are within 2 % of the ledger's.",
		Seen:   "Namespace AWS/BedrockMantle, dimensions Project and Model, added up; the gateway's calls.",
		Why:    "bedrock-mantle writes no invocation log: what did not pass the gateway is in this count and on the bill, and nowhere else.",
		Remedy: "Close the way with waybill guard, which covers bedrock-mantle's own actions.",
		Reads:  reads,
		judge:  func(in *Inquiry, report func(Finding)) { judgeComplete(in, waybill.Mantle, report) },
	}, {
		ID: "log-gaps", Title: "The invocation log has no gaps", Practices: []string{"P7", "P18"}, Severity: Medium,
		Holds:  "There is no hour in which the gateway made calls that are logged, and the log has none.",
		Seen:   "The ledger: hours of calls that only the gateway tells of, two hours old or more.",
		Why:    "Logs are delivered without a promise. An hour without any is a destination that broke, or objects that were not ingested.",
		Remedy: "Ingest again (waybill ingest is idempotent); if the objects are not there, see log-bucket.",
		judge:  judgeGaps,
	}}
}

// A count is calls and tokens.
type count struct{ calls, unknown, input, output int64 }

func judgeComplete(in *Inquiry, endpoint waybill.Endpoint, report func(Finding)) {
	e, why := in.ledger()
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		switch {
		case r.Metrics.Refused != "":
			report(unknown("CloudWatch does not say: %s", r.Metrics.Refused).at(a.ID, r.Region))
			return
		case e == nil:
			report(unknown("there is nothing to hold CloudWatch against: %s", why).at(a.ID, r.Region))
			return
		}
		watched, ledger := make(map[waybill.Day]count), make(map[waybill.Day]count)
		for _, m := range r.Metrics.Value {
			if m.Endpoint == endpoint {
				c := watched[m.Day]
				watched[m.Day] = count{c.calls + m.Calls, 0, c.input + m.Input, c.output + m.Output}
			}
		}
		for _, u := range e.Days {
			if u.Account == a.ID && u.Region == r.Region && u.Endpoint == endpoint {
				c := ledger[u.Day]
				ledger[u.Day] = count{c.calls + u.Calls, c.unknown + u.Unknown, c.input + u.Input, c.output + u.Output}
			}
		}
		var days []waybill.Day
		for d := range watched {
			days = append(days, d)
		}
		for d := range ledger {
			days = append(days, d)
		}
		slices.Sort(days)
		days = slices.Compact(days)
		bad := 0
		for _, d := range days {
			if message, severity := differ(watched[d], ledger[d]); message != "" {
				bad++
				f := fails("%s", message).at(a.ID, r.Region).of(d.String()).as(severity)
				if severity == Low {
					f = f.fix("nothing went round the gateway: calls that failed, or a model whose metrics CloudWatch does not publish, or no longer lists after two weeks without calls")
				}
				report(f)
			}
		}
		if bad == 0 {
			report(holds("%d days agree", len(days)).at(a.ID, r.Region))
		}
	})
}

// differ tells in words how two counts differ, and how bad that is; nothing if they agree.
// More in the ledger than CloudWatch counts is no call that went round the gateway: calls
// that failed, a metric that is not published, or days that CloudWatch no longer keeps.
func differ(watched, ledger count) (string, Severity) {
	for _, c := range []struct {
		what         string
		there, here  int64
		mayBeUnknown bool
	}{
		{what: "calls", there: watched.calls, here: ledger.calls},
		{what: "input tokens", there: watched.input, here: ledger.input, mayBeUnknown: true},
		{what: "output tokens", there: watched.output, here: ledger.output, mayBeUnknown: true},
	} {
		if near(c.there, c.here) {
			continue
		}
		if c.here < c.there {
			if c.mayBeUnknown && ledger.unknown > 0 {
				continue // calls whose usage is not known are the likelier cause, and reconcile says so
			}
			return fmt.Sprintf("CloudWatch counts %d %s, the ledger %d: %d are missing", c.there, c.what, c.here, c.there-c.here), High
		}
		return fmt.Sprintf("CloudWatch counts %d %s, the ledger %d: %d are in the ledger alone", c.there, c.what, c.here, c.here-c.there), Low
	}
	return "", ""
}

// near takes two counts for the same: AWS's own pages differ on which failed calls count.
func near(a, b int64) bool {
	d, most := a-b, max(a, b)
	if d < 0 {
		d = -d
	}
	return d <= 1 || d*50 <= most
}

func judgeGaps(in *Inquiry, report func(Finding)) {
	e, why := in.ledger()
	if e == nil {
		report(unknown("%s", why))
		return
	}
	gaps := slices.Clone(e.Gaps)
	slices.SortFunc(gaps, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Region, b.Region), a.From.Compare(b.From))
	})
	for _, g := range gaps {
		report(fails("%d calls of the gateway from %s to %s are not in the log", g.Calls, g.From.Format("2006-01-02 15:04"), g.To.Format("15:04")).at(g.Account, g.Region).worth(g.Cost))
	}
	if len(gaps) == 0 {
		report(holds("no hour is missing"))
	}
}
