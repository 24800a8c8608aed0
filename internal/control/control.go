package control

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A Severity says how much a control that does not hold matters.
type Severity string

// The severities, worst first.
const (
	High   Severity = "high"   // dollars are lost to attribution now, or calls go round the gateway
	Medium Severity = "medium" // figures will be incomplete, or secrets are kept longer than need be
	Low    Severity = "low"    // worth knowing; it may pass by itself
)

func (s Severity) rank() int { return slices.Index([]Severity{High, Medium, Low}, s) }

// A Status is what was found of a control at one place.
type Status string

// The statuses. Unknown is never good: AWS, or the ledger, did not say.
const (
	Holds   Status = "holds"
	Fails   Status = "fails"
	Unknown Status = "unknown"
)

// A Control is one thing that must hold, with all that is known of it: how it is seen, why
// it matters, how it is put right.
type Control struct {
	ID        string
	Title     string
	Practices []string // of AWS's guide to Bedrock cost attribution: see docs/control/audit.md
	Severity  Severity
	Holds     string // what must hold
	Seen      string // how it is seen
	Why       string
	Remedy    string // how it is put right, and by whom
	// Reads and Changes are the IAM actions that seeing and remedying take.
	Reads, Changes []string

	judge func(in *Inquiry, report func(Finding))
}

// A Finding is what was found of a control at one place: an account, a Region, a thing.
type Finding struct {
	Control  string         `json:"control"`
	Status   Status         `json:"status"`
	Severity Severity       `json:"severity"`
	Account  string         `json:"account,omitempty"`
	Region   string         `json:"region,omitempty"`
	Subject  string         `json:"subject,omitempty"`
	Message  string         `json:"message"`
	Dollars  *waybill.Money `json:"dollarsAtStake,omitempty"` // in the ledger's currency; nil where nobody can say
	Fix      string         `json:"fix,omitempty"`

	steps []Step // that bring about that it holds; none where a person has to
}

// ByHand says that a control does not hold and no call of ours brings it about.
func (f *Finding) ByHand() bool { return f.Status == Fails && len(f.steps) == 0 }

// Where is the place in words.
func (f *Finding) Where() string {
	s := ""
	for _, part := range []string{f.Account, f.Region, f.Subject} {
		if part != "" {
			if s != "" {
				s += " "
			}
			s += part
		}
	}
	return s
}

// An Inquiry is all that a judgement rests on. It is a function of its fields: the same
// snapshot gives the same findings on any day.
type Inquiry struct {
	Snapshot    *Snapshot
	Declaration *Declaration
	// Policy is the tag policy; nil leaves the controls that need one unknown.
	Policy *policy.Policy
	// History is the coverage of earlier audits, oldest first.
	History []Score
}

// Controls lists every control, in the order in which remedies have to be made.
func Controls() []Control {
	return slices.Concat(loggingControls(), exportControls(), roleControls(), resourceControls(), costTagControls(), keyControls(), completenessControls(), tagControls())
}

// Judge holds every control against what was observed. Findings come worst first: what
// fails before what is unknown before what holds, then by severity and dollars.
func (in *Inquiry) Judge() []Finding {
	var out []Finding
	unasked := in.unasked()
	for _, c := range Controls() {
		before := len(out)
		c.judge(in, func(f Finding) {
			f.Control = c.ID
			f.Severity = cmp.Or(f.Severity, c.Severity)
			if f.Status == Fails && f.Fix == "" {
				f.Fix = c.Remedy
			}
			out = append(out, f)
		})
		for _, place := range unasked {
			// A control that looks at no accounts, or at no Regions, misses none.
			looks := slices.ContainsFunc(out[before:], func(f Finding) bool { return f.Account != "" && (place.Region == "" || f.Region != "") })
			if looks || len(out) == before {
				place.Control, place.Severity = c.ID, c.Severity
				out = append(out, place)
			}
		}
		if len(out) == before {
			out = append(out, Finding{Control: c.ID, Status: Holds, Severity: c.Severity, Message: "there is nothing here that it applies to"})
		}
	}
	return out
}

// unasked are declared accounts and Regions that the snapshot does not have: it was taken
// for another declaration, and says nothing of them.
func (in *Inquiry) unasked() []Finding {
	var out []Finding
	for _, d := range in.Declaration.Accounts {
		i := slices.IndexFunc(in.Snapshot.Accounts, func(a AccountFacts) bool { return a.ID == d.ID })
		if i < 0 {
			out = append(out, unknown("the snapshot does not have the account: ask again, with --save").at(d.ID, ""))
			continue
		}
		for _, r := range d.Regions {
			if !slices.ContainsFunc(in.Snapshot.Accounts[i].Regions, func(f RegionFacts) bool { return f.Region == r }) {
				out = append(out, unknown("the snapshot does not have the Region: ask again, with --save").at(d.ID, r))
			}
		}
	}
	return out
}

// Sort puts findings into the order in which people want them.
func Sort(findings []Finding) {
	rank := func(s Status) int { return slices.Index([]Status{Fails, Unknown, Holds}, s) }
	dollars := func(f *Finding) waybill.Money {
		if f.Dollars == nil {
			return waybill.Money{}
		}
		return *f.Dollars
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(a.Status), rank(b.Status)), cmp.Compare(a.Severity.rank(), b.Severity.rank()), dollars(&b).Cmp(dollars(&a)))
	})
}

// News counts the findings that are bad news: what fails, and what nobody says.
func News(findings []Finding) (failed, unknown int) {
	for _, f := range findings {
		switch f.Status {
		case Fails:
			failed++
		case Unknown:
			unknown++
		}
	}
	return failed, unknown
}

func holds(message string, args ...any) Finding {
	return Finding{Status: Holds, Message: fmt.Sprintf(message, args...)}
}

func fails(message string, args ...any) Finding {
	return Finding{Status: Fails, Message: fmt.Sprintf(message, args...)}
}

func unknown(message string, args ...any) Finding {
	return Finding{Status: Unknown, Message: fmt.Sprintf(message, args...)}
}

func (f Finding) at(account, region string) Finding {
	f.Account, f.Region = account, region
	return f
}

func (f Finding) of(subject string) Finding {
	f.Subject = subject
	return f
}

func (f Finding) fix(words string, args ...any) Finding {
	f.Fix = fmt.Sprintf(words, args...)
	return f
}

func (f Finding) worth(m waybill.Money) Finding {
	if m.Sign() > 0 {
		f.Dollars = &m
	}
	return f
}

func (f Finding) as(s Severity) Finding {
	f.Severity = s
	return f
}

func (f Finding) plan(steps ...Step) Finding {
	for i := range steps {
		steps[i].Account, steps[i].Region = cmp.Or(steps[i].Account, f.Account), cmp.Or(steps[i].Region, f.Region)
	}
	f.steps = append(f.steps, steps...)
	return f
}

// everyRegion calls f for every account and Region that was observed.
func (in *Inquiry) everyRegion(f func(a *AccountFacts, r *RegionFacts)) {
	for i := range in.Snapshot.Accounts {
		a := &in.Snapshot.Accounts[i]
		for j := range a.Regions {
			f(a, &a.Regions[j])
		}
	}
}

// ledger is what the ledger knows, or why it does not say.
func (in *Inquiry) ledger() (*Evidence, string) {
	l := in.Snapshot.Ledger
	if l.Refused != "" {
		return nil, l.Refused
	}
	if l.Value == nil {
		return nil, "no ledger was named: give --lake or --dir"
	}
	return l.Value, ""
}

// spent is what the ledger has of an account and Region, on an endpoint; "" means either.
func (in *Inquiry) spent(account, region string, endpoint waybill.Endpoint) waybill.Money {
	var sum waybill.Money
	if e, _ := in.ledger(); e != nil {
		for _, u := range e.Days {
			if u.Account == account && u.Region == region && (endpoint == "" || u.Endpoint == endpoint) {
				sum = sum.Add(u.Cost)
			}
		}
	}
	return sum
}

// now is the moment the judgement is made for: that of the snapshot.
func (in *Inquiry) now() time.Time { return in.Snapshot.TakenAt }
