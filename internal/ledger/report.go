package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// A Basis says which dollars a figure is in.
type Basis string

// The bases.
const (
	Estimate   Basis = "estimate"
	Invoice    Basis = "invoice"
	Calibrated Basis = "calibrated"
)

// ReportOptions say what to report.
type ReportOptions struct {
	Period waybill.Period
	// Basis is empty to let the facts decide.
	Basis Basis
	// By are the keys to group by: names of Dimensions, or tag keys.
	By []string
	// Where keeps the rows whose key has the value. What it leaves out is in Elsewhere.
	Where []waybill.Tag
	// Rename, if not nil, gives the value under which a tag value of a day is reported:
	// how a reorganisation is applied. It is asked of tags alone, on every basis, before
	// rows are grouped and Where is applied; key is without "tag:". It must be a function
	// of its arguments. A charge of which the bill tells no day is of the period's first.
	Rename func(key, value string, day waybill.Day) string
	// Renamed is what Rename stands for, as statements show it: "as reorganised by
	// 2026-11-01".
	Renamed string
}

// A Row is one line of a statement.
type Row struct {
	Keys     []Value // in the order of By
	Calls    int64
	Unknown  int64 // calls whose usage is not known
	Unpriced int64 // calls with usage that has no price
	Usage    waybill.Usage
	Cost     waybill.Money
}

// A Value is the value of a key, or its absence: a call without the tag.
type Value struct {
	Text    string
	Present bool
}

// A Statement is a period's dollars by some keys. The sum of its rows, Elsewhere and
// Unattributed is Total; on the invoice and calibrated bases Total is Billed. Currency is
// the bill's; on the estimate basis it is the rate card's, and if the bill is in another
// the statement has no Billed.
type Statement struct {
	Period       waybill.Period
	Basis        Basis
	Reason       string
	Renamed      string // ReportOptions.Renamed; empty without a Rename
	By           []string
	Currency     string
	Rows         []Row // largest cost first
	Elsewhere    waybill.Money
	Unattributed waybill.Money
	Buckets      []BucketLine // add up to Unattributed
	Total        waybill.Money
	Billed       waybill.Money
	HasBill      bool
	NotClaimed   waybill.Money
	// NotClaimedElse are the sums of rows that are not Bedrock's, in currencies other than
	// Currency.
	NotClaimedElse map[string]waybill.Money
	MissingPrices  []MissingPrice // what the calls with usage that has no price need on the rate card
	Refused        int64          // calls that the gateway refused: they never left, and cost nothing
	Notes          []string
}

// Report states a period's dollars by some keys.
func Report(ctx context.Context, facts Facts, card *ratecard.Card, o ReportOptions) (*Statement, error) {
	a, err := open(ctx, facts, card, o.Period)
	if err != nil {
		return nil, err
	}
	s := &Statement{Period: o.Period, By: o.By, Currency: cmp.Or(a.currency, card.Currency(), "USD"), Billed: a.billed, HasBill: a.hasBill}
	for _, c := range a.cells {
		if c.Outcome == waybill.Refused {
			s.Refused += c.Calls
		}
	}
	if s.Basis, s.Reason, err = a.chooseBasis(o); err != nil {
		return nil, err
	}
	if s.Basis == Estimate && a.currency != "" && card.Currency() != "" && a.currency != card.Currency() {
		s.Currency, s.Billed, s.HasBill = card.Currency(), waybill.Money{}, false // the bill is no measure for it
	}
	s.NotClaimed, s.NotClaimedElse = a.leftOut(s.Currency)
	s.MissingPrices = a.missing()
	if o.Rename != nil {
		a.rename, s.Renamed = o.Rename, cmp.Or(o.Renamed, "renamed")
	}
	t := &table{by: o.By, where: o.Where, index: make(map[string]int)}
	var entries []entry
	switch s.Basis {
	case Calibrated:
		entries = a.calibrated(t)
	case Estimate:
		entries = a.estimated(t)
	case Invoice:
		entries = a.invoiced(t)
	}
	s.Rows, s.Elsewhere = t.finish()
	s.Buckets = addUp(entries)
	for _, r := range s.Rows {
		s.Total = s.Total.Add(r.Cost)
	}
	for _, b := range s.Buckets {
		s.Unattributed = s.Unattributed.Add(b.Amount)
	}
	s.Total = s.Total.Add(s.Elsewhere).Add(s.Unattributed)
	return s, nil
}

// chooseBasis takes what was asked for, or the best that the facts allow, and says why.
func (a *account) chooseBasis(o ReportOptions) (Basis, string, error) {
	missing := func(what, remedy string) error {
		return &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("the %s basis needs %s for %s, and the ledger has none", o.Basis, what, o.Period), Hint: remedy}
	}
	noBill, noCalls := "ingest its CUR 2.0 export: waybill ingest --cur ...", "ingest journals or invocation logs: waybill ingest --journal ... --logs ..."
	switch o.Basis {
	case Calibrated:
		if !a.hasBill {
			return "", "", missing("a bill", noBill)
		}
		if !a.hasCalls {
			return "", "", missing("calls", noCalls)
		}
		return Calibrated, "asked for: the bill's dollars, spread over calls in proportion to their metered cost", nil
	case Invoice:
		if !a.hasBill {
			return "", "", missing("a bill", noBill)
		}
		return Invoice, "asked for: the bill's own rows; keys that the bill does not know are empty", nil
	case Estimate:
		return Estimate, "asked for: usage times rate card, not the bill", nil
	case "":
	default:
		return "", "", &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("basis %q is not estimate, invoice or calibrated", o.Basis)}
	}
	switch {
	case a.hasBill && a.hasCalls:
		return Calibrated, fmt.Sprintf("the ledger has both the bill and the calls of %s: the bill's dollars are spread over calls in proportion to their metered cost, so they add up", o.Period), nil
	case a.hasBill:
		return Invoice, fmt.Sprintf("the ledger has the bill of %s and no calls: these are the bill's own rows", o.Period), nil
	case a.hasCalls:
		return Estimate, fmt.Sprintf("the ledger has no bill for %s yet: this is usage times rate card", o.Period), nil
	}
	return "", "", &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("the ledger has neither calls nor a bill for %s", o.Period),
		Hint: "ingest something first: waybill ingest --help"}
}

// calibrated spreads the bill.
func (a *account) calibrated(t *table) []entry {
	a.countCalls(t)
	var entries []entry
	for _, k := range a.keys {
		s := a.settle(k)
		for i, h := range k.shares {
			t.add(a.cellKeys(t.by, h), waybill.NewUsage().With(h.kind, h.quantity), s.given[i])
		}
		entries = append(entries, s.unmet...)
	}
	for _, c := range a.loose {
		entries = append(entries, entry{c.bucket, c.Cost, c.label})
	}
	return entries
}

// estimated prices the calls.
func (a *account) estimated(t *table) []entry {
	a.countCalls(t)
	var entries []entry
	for _, k := range a.keys {
		for _, h := range k.shares {
			t.add(a.cellKeys(t.by, h), waybill.NewUsage().With(h.kind, h.quantity), h.metered)
		}
		for _, h := range k.bypass {
			entries = append(entries, entry{Bypass, h.metered, a.cells[h.cell].PrincipalARN})
		}
	}
	return entries
}

// countCalls enters the calls of each cell once; its usage and cost follow kind by kind.
func (a *account) countCalls(t *table) {
	byKind := slices.Contains(t.by, "usage_type")
	for i, c := range a.cells {
		if a.isBypass[i] || c.Outcome == waybill.Refused {
			continue
		}
		var unpriced int64
		if a.unpriced[i] {
			unpriced = c.Calls
		}
		if !byKind {
			t.count(a.cellKeys(t.by, share{cell: i, day: c.Hour.Day()}), c.Calls, c.Unknown, unpriced)
			continue
		}
		none := true
		for kind := range c.Usage.All() {
			none = false
			t.count(a.cellKeys(t.by, share{cell: i, kind: kind, day: c.Hour.Day()}), c.Calls, 0, unpriced)
		}
		if none || c.Unknown > 0 {
			t.count(a.cellKeys(t.by, share{cell: i, day: c.Hour.Day()}), c.Unknown, c.Unknown, 0)
		}
	}
}

// invoiced takes the bill's own rows.
func (a *account) invoiced(t *table) []entry {
	var entries []entry
	for _, c := range a.charges {
		if c.bucket != "" {
			entries = append(entries, entry{c.bucket, c.Cost, c.label})
			continue
		}
		t.add(a.chargeKeys(t.by, c), waybill.NewUsage(), c.Cost)
	}
	return entries
}

// A table gathers rows.
type table struct {
	by    []string
	where []waybill.Tag
	index map[string]int
	rows  []Row
}

func (t *table) row(keys []Value) *Row {
	var id strings.Builder
	for _, v := range keys {
		fmt.Fprintf(&id, "%t%q", v.Present, v.Text)
	}
	i, ok := t.index[id.String()]
	if !ok {
		i = len(t.rows)
		t.index[id.String()] = i
		t.rows = append(t.rows, Row{Keys: keys, Usage: waybill.NewUsage()})
	}
	return &t.rows[i]
}

func (t *table) add(keys []Value, usage waybill.Usage, cost waybill.Money) {
	r := t.row(keys)
	r.Usage = r.Usage.Add(usage)
	r.Cost = r.Cost.Add(cost)
}

func (t *table) count(keys []Value, calls, unknown, unpriced int64) {
	r := t.row(keys)
	r.Calls += calls
	r.Unknown += unknown
	r.Unpriced += unpriced
}

// finish sorts the rows, and takes out those that Where does not want.
func (t *table) finish() (rows []Row, elsewhere waybill.Money) {
	for _, r := range t.rows {
		keep := true
		for _, w := range t.where {
			i := slices.Index(t.by, w.Key)
			keep = keep && i >= 0 && r.Keys[i].Present && r.Keys[i].Text == w.Value
		}
		if keep {
			rows = append(rows, r)
		} else {
			elsewhere = elsewhere.Add(r.Cost)
		}
	}
	slices.SortFunc(rows, func(x, y Row) int {
		return cmp.Or(y.Cost.Cmp(x.Cost), slices.CompareFunc(x.Keys, y.Keys, func(a, b Value) int { return strings.Compare(a.Text, b.Text) }))
	})
	return rows, elsewhere
}
