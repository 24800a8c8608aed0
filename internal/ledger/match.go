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

// Facts are what a lake knows of a billing period.
type Facts interface {
	// Usage gives the cells of the hourly roll-up whose calls fall in the period, and
	// the tags of every tag set they name.
	Usage(ctx context.Context, period waybill.Period) ([]waybill.UsageTotal, map[string]waybill.Tags, error)
	// Charges gives the line items of the period, summed, and the tags of every tag
	// set they name. A period without a bill has none.
	Charges(ctx context.Context, period waybill.Period) ([]waybill.ChargeTotal, map[string]waybill.Tags, error)
}

// A keyAccount is all that is known of one usage key in the period.
type keyAccount struct {
	key    waybill.UsageKey
	shares []share  // of calls that are accounted for
	bypass []share  // of calls in the log that did not pass the gateway and carry no tag
	ours   []charge // charges to principals whose calls are accounted for, or to nobody named
	strays []charge // charges to principals of bypass calls, none of which are ours
	lost   []charge // charges to principals of whom there is no call at all
}

// An account is a billing period's facts, priced and matched. Every charge and every
// cell of the period is in exactly one place of it.
type account struct {
	period     waybill.Period
	card       *ratecard.Card
	prices     pricer
	cells      []waybill.UsageTotal
	tags       map[string]waybill.Tags // of cells
	chargeTags map[string]waybill.Tags
	isBypass   []bool // by cell
	unpriced   []bool // by cell: some of its usage has no price
	keys       []*keyAccount
	loose      []charge                 // charges that belong to no key
	notClaimed map[string]waybill.Money // by currency
	notRows    int64
	billed     waybill.Money
	charges    []charge // all that are Bedrock's
	hasBill    bool
	hasCalls   bool
	currency   string
	ours       map[string]bool                                 // IAM principals of calls that are accounted for
	logged     map[string]bool                                 // account/region pairs in which the log has calls
	unknown    map[string]int64                                // calls whose usage is not known, by account/region/endpoint/model
	gateway    map[string]bool                                 // accounts in which a gateway made calls in this period
	rename     func(key, value string, day waybill.Day) string // nil, or ReportOptions.Rename
}

func place(parts ...string) string { return strings.Join(parts, "/") }

// open reads and matches a period.
func open(ctx context.Context, facts Facts, card *ratecard.Card, period waybill.Period) (*account, error) {
	a := &account{period: period, card: card, notClaimed: make(map[string]waybill.Money), logged: make(map[string]bool), unknown: make(map[string]int64), gateway: make(map[string]bool)}
	var err error
	if a.cells, a.tags, err = facts.Usage(ctx, period); err != nil {
		return nil, fmt.Errorf("read the usage of %s: %w", period, err)
	}
	totals, chargeTags, err := facts.Charges(ctx, period)
	if err != nil {
		return nil, fmt.Errorf("read the charges of %s: %w", period, err)
	}
	a.chargeTags = chargeTags
	p, err := newPricer(card, a.cells)
	if err != nil {
		return nil, err
	}
	keys := make(map[waybill.UsageKey]*keyAccount)
	keyOf := func(k waybill.UsageKey) *keyAccount {
		if keys[k] == nil {
			keys[k] = &keyAccount{key: k}
		}
		return keys[k]
	}
	if err := a.judgeAll(totals, p.models); err != nil {
		return nil, err
	}
	p.pooled = a.tellEndpoints(p)
	a.prices = p
	a.enterCells(p, keyOf)
	a.enterCharges(keyOf)
	for _, k := range keys {
		a.keys = append(a.keys, k)
	}
	slices.SortFunc(a.keys, func(x, y *keyAccount) int { return x.key.Compare(y.key) })
	return a, nil
}

// enterCells prices the calls, and tells those that went round the gateway from the
// others.
func (a *account) enterCells(p pricer, keyOf func(waybill.UsageKey) *keyAccount) {
	for _, c := range a.cells {
		if c.Sources != "log" && c.Outcome != waybill.Refused {
			a.gateway[c.Account] = true
		}
		if c.Sources != "gateway" {
			a.logged[place(c.Account, c.Region)] = true
		}
	}
	a.isBypass = make([]bool, len(a.cells))
	a.unpriced = make([]bool, len(a.cells))
	a.hasCalls = len(a.cells) > 0
	for i, c := range a.cells {
		a.isBypass[i] = c.Sources == "log" && a.gateway[c.Account] && c.TagSet == ""
		if c.Unknown > 0 && !a.isBypass[i] {
			endpoint, model := p.billed(&c)
			a.unknown[place(c.Account, c.Region, string(endpoint), model)] += c.Unknown
		}
		for key, s := range p.shares(&c) {
			s.cell = i
			a.unpriced[i] = a.unpriced[i] || !s.priced
			k := keyOf(key)
			if a.isBypass[i] {
				k.bypass = append(k.bypass, s)
			} else {
				k.shares = append(k.shares, s)
			}
		}
	}
}

// tellEndpoints says what the bill tells of the two endpoints, whose calls bear charges of
// their own. A usage type in AWS's own words tells which it is of; one of the Marketplace
// does not. Where a model has charges of bedrock-mantle in an account and Region, what the
// Marketplace charges there for it is of bedrock-runtime; elsewhere it is of both: those are
// returned, by account/region/model.
//
// No call on bedrock-mantle says that it is global, and yet there are usage types that do.
// Where calls do not tell, a charge goes to the calls there are.
func (a *account) tellEndpoints(p pricer) (pooled map[string]bool) {
	global, apart := make(map[string]bool), make(map[string]bool)
	for _, c := range a.cells {
		if c.Endpoint == waybill.Mantle && c.Scope == waybill.Global {
			global[place(c.Account, c.Region, c.Model)] = true
		}
	}
	for i := range a.charges {
		c := &a.charges[i]
		if k := &c.key; c.bucket == "" && k.Endpoint == waybill.Mantle {
			apart[place(k.Account, k.Region, p.canonical(k.Model))] = true
			if !global[place(k.Account, k.Region, k.Model)] {
				k.Scope = waybill.Regional
			}
		}
	}
	pooled = make(map[string]bool)
	for _, c := range a.charges {
		if c.bucket != "" || c.usage.Dialect != ratecard.Marketplace {
			continue
		}
		if where := place(c.key.Account, c.key.Region, p.canonical(c.key.Model)); !apart[where] {
			pooled[where] = true
		}
	}
	return pooled
}

// judgeAll judges the bill.
func (a *account) judgeAll(totals []waybill.ChargeTotal, models *ratecard.Models) error {
	for _, t := range totals {
		if t.Claim == waybill.NotClaimed {
			a.notClaimed[t.Currency] = a.notClaimed[t.Currency].Add(t.Cost)
			a.notRows += t.Rows
			continue
		}
		if t.Currency != "" {
			if a.currency != "" && a.currency != t.Currency {
				return fmt.Errorf("the bill of %s has charges in %s and in %s: Waybill does not add currencies", a.period, a.currency, t.Currency)
			}
			a.currency = t.Currency
		}
		a.charges = append(a.charges, judge(t, models))
		a.billed = a.billed.Add(t.Cost)
		a.hasBill = true
	}
	return nil
}

// enterCharges puts each charge in its place.
func (a *account) enterCharges(keyOf func(waybill.UsageKey) *keyAccount) {
	strays := make(map[string]bool)
	a.ours = make(map[string]bool)
	for i, c := range a.cells {
		if c.PrincipalARN == "" {
			continue
		}
		if a.isBypass[i] {
			strays[c.PrincipalARN] = true
		} else {
			a.ours[c.PrincipalARN] = true
		}
	}
	for _, c := range a.charges {
		if c.bucket != "" {
			a.loose = append(a.loose, c)
			continue
		}
		k := keyOf(c.key)
		switch {
		case c.IAMPrincipal == "" || a.ours[c.IAMPrincipal]:
			k.ours = append(k.ours, c)
		case strays[c.IAMPrincipal]:
			k.strays = append(k.strays, c)
		default:
			k.lost = append(k.lost, c)
		}
	}
}

// leftOut is the sum of the rows that are not Bedrock's, and the sums of those that are
// in other currencies. Rows that tell no currency are in the account's.
func (a *account) leftOut(currency string) (sum waybill.Money, elsewhere map[string]waybill.Money) {
	for c, m := range a.notClaimed {
		if c == "" || c == currency {
			sum = sum.Add(m)
			continue
		}
		if elsewhere == nil {
			elsewhere = make(map[string]waybill.Money)
		}
		elsewhere[c] = m
	}
	return sum, elsewhere
}

// lostBucket says why there is no call for a charge to a principal that nobody knows.
func (a *account) lostBucket(c charge) Bucket {
	switch {
	case c.key.Endpoint == waybill.Mantle:
		return MantleUnseen
	case !a.logged[place(c.key.Account, c.key.Region)]:
		return NotLogged
	case a.gateway[c.key.Account]:
		return Bypass
	}
	return NoCalls
}

// entry is an amount in a bucket, with what it rests on.
type entry struct {
	bucket Bucket
	amount waybill.Money
	label  string
}

// addUp brings entries to one line a bucket, largest amount first.
func addUp(entries []entry) []BucketLine {
	type sums struct {
		amount waybill.Money
		labels map[string]waybill.Money
	}
	by := make(map[Bucket]*sums)
	for _, e := range entries {
		s := by[e.bucket]
		if s == nil {
			s = &sums{labels: make(map[string]waybill.Money)}
			by[e.bucket] = s
		}
		s.amount = s.amount.Add(e.amount)
		s.labels[e.label] = s.labels[e.label].Add(e.amount)
	}
	out := make([]BucketLine, 0, len(by))
	for b, s := range by {
		line := BucketLine{Bucket: b, Amount: s.amount}
		for label, amount := range s.labels {
			if amount.IsZero() {
				continue
			}
			line.Evidence = append(line.Evidence, Evidence{label, amount})
		}
		if len(line.Evidence) == 0 {
			continue
		}
		slices.SortFunc(line.Evidence, func(x, y Evidence) int {
			return cmp.Or(y.Amount.Abs().Cmp(x.Amount.Abs()), strings.Compare(x.What, y.What))
		})
		out = append(out, line)
	}
	slices.SortFunc(out, func(x, y BucketLine) int {
		return cmp.Or(y.Amount.Abs().Cmp(x.Amount.Abs()), strings.Compare(string(x.Bucket), string(y.Bucket)))
	})
	return out
}

// A BucketLine is one bucket's sum.
type BucketLine struct {
	Bucket   Bucket
	Amount   waybill.Money
	Evidence []Evidence // adds up to Amount; largest first
}

// Evidence is what part of a bucket rests on: a principal, a usage type, a key.
type Evidence struct {
	What   string
	Amount waybill.Money
}
