package ledger

import (
	"cmp"
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// A KeyLine is one usage key's metered and billed cost, and its variance in five parts.
type KeyLine struct {
	Account   string
	Region    string
	Endpoint  waybill.Endpoint // bedrock-mantle where the bill tells its calls apart; empty for charges without a key
	Model     string           // canonical id; empty for charges that no model bears
	UsageType string           // the usage kind, with "_long_context" where that is priced apart; the bill's own text for charges without a key
	Tier      string
	Scope     string // regional (plain and geographic profiles) or global

	Metered   waybill.Money
	Billed    waybill.Money
	Quantity  waybill.Money // the bill counts another quantity: at the rate card's rate
	Rate      waybill.Money // the bill's rate is not the rate card's: at the bill's quantity
	Timing    waybill.Money // days not settled yet, and calls on the other side of midnight
	Rounding  waybill.Money // the bill rounds each row
	Unmatched waybill.Money // charges that no call takes

	MeteredQuantity waybill.Quantity
	BilledQuantity  waybill.Quantity
	Rows            int64 // rows of the bill
	Calls           int64
}

// Variance is billed minus metered: the sum of the five parts.
func (k *KeyLine) Variance() waybill.Money { return k.Billed.Sub(k.Metered) }

// A Reconciliation sets the metered cost of a period against its bill.
type Reconciliation struct {
	Period   waybill.Period
	Currency string
	Metered  waybill.Money
	Billed   waybill.Money
	Variance waybill.Money
	Buckets  []BucketLine // add up to Variance
	Keys     []KeyLine    // their variances add up to Variance
	HasBill  bool
	HasCalls bool
	// SettledThrough is the last day that the bill is taken to have settled.
	SettledThrough waybill.Day
	// NotClaimed is the sum of the rows that are not Bedrock's, NotClaimedElse are the sums
	// of those in currencies other than Currency, NotClaimedRows is the number of both.
	NotClaimed     waybill.Money
	NotClaimedElse map[string]waybill.Money
	NotClaimedRows int64
	// Calls, UnknownCalls and UnpricedCalls count the period's calls, those whose usage
	// nobody knows, and those with usage that has no price. BypassCalls did not pass the
	// gateway and carry no tag.
	Calls, UnknownCalls, UnpricedCalls, BypassCalls int64
	// MissingPrices are what UnpricedCalls need on the rate card.
	MissingPrices []MissingPrice
	// LoggedOnly and MeteredOnly count the calls that only one source told of.
	LoggedOnly, MeteredOnly int64
	BillRows                int64
}

// explained are buckets that are no news: charges that calls never bear, and rounding.
var explained = map[Bucket]bool{Tax: true, Credit: true, Refund: true, Discount: true, Commitment: true,
	Guardrail: true, Customization: true, Consumption: true, Batch: true, Rounding: true}

// OverTolerance reports whether the differences that are news add up to more than
// a cent and more than a ten-thousandth of the bill. They are added without their
// signs: two errors do not make each other good.
func (r *Reconciliation) OverTolerance() bool {
	var sum waybill.Money
	for _, b := range r.Buckets {
		if !explained[b.Bucket] {
			for _, e := range b.Evidence {
				sum = sum.Add(e.Amount.Abs())
			}
		}
	}
	cent := waybill.MoneyFromUnscaled(big.NewInt(1e16))
	share := waybill.MoneyFromUnscaled(new(big.Int).Quo(r.Billed.Abs().Unscaled(), big.NewInt(10_000)))
	return sum.Cmp(cent) > 0 && sum.Cmp(share) > 0
}

// Reconcile explains the difference between a period's metered cost and its bill.
func Reconcile(ctx context.Context, facts Facts, card *ratecard.Card, period waybill.Period) (*Reconciliation, error) {
	a, err := open(ctx, facts, card, period)
	if err != nil {
		return nil, err
	}
	r := &Reconciliation{Period: period, Currency: cmp.Or(a.currency, card.Currency(), "USD"), HasBill: a.hasBill,
		HasCalls: a.hasCalls, NotClaimedRows: a.notRows, SettledThrough: a.settledThrough()}
	if a.currency != "" && card.Currency() != "" && a.currency != card.Currency() {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("the bill of %s is in %s and the rate card in %s: Waybill does not set one against the other", period, a.currency, card.Currency()),
			Hint: "give a rate card in " + a.currency}
	}
	r.NotClaimed, r.NotClaimedElse = a.leftOut(r.Currency)
	for i, c := range a.cells {
		if c.Outcome == waybill.Refused {
			continue
		}
		r.Calls += c.Calls
		r.UnknownCalls += c.Unknown
		if a.unpriced[i] {
			r.UnpricedCalls += c.Calls
		}
		if a.isBypass[i] {
			r.BypassCalls += c.Calls
		}
		switch c.Sources {
		case "log":
			r.LoggedOnly += c.Calls
		case "gateway":
			r.MeteredOnly += c.Calls
		}
	}
	for _, c := range a.charges {
		r.BillRows += c.Rows
	}
	r.MissingPrices = a.missing()
	var entries []entry
	for _, k := range a.keys {
		line, causes := a.explain(k, r.SettledThrough)
		r.Keys = append(r.Keys, line)
		entries = append(entries, causes...)
	}
	loose, causes := looseLines(a.loose)
	r.Keys = append(r.Keys, loose...)
	entries = append(entries, causes...)
	for _, k := range r.Keys {
		r.Metered = r.Metered.Add(k.Metered)
		r.Billed = r.Billed.Add(k.Billed)
	}
	r.Variance = r.Billed.Sub(r.Metered)
	r.Buckets = addUp(entries)
	return r, nil
}

// settledThrough is the last day whose charges are taken as complete. The bill comes
// a day late and moves for up to three; a bill that reaches the end of its period is
// taken as settled, since nothing in it tells when it was delivered; so is one that tells
// no days.
func (a *account) settledThrough() waybill.Day {
	last := waybill.DayOf(a.period.End().Add(-1))
	if !a.hasBill {
		return last
	}
	newest := waybill.DayOf(a.period.Start())
	for _, c := range a.charges {
		switch {
		case c.bucket != "":
		case !c.hasDay():
			return last
		default:
			newest = max(newest, c.Day)
		}
	}
	if newest >= last {
		return last
	}
	return newest - 2
}

// explain splits the variance of one key.
func (a *account) explain(k *keyAccount, settled waybill.Day) (KeyLine, []entry) {
	line := KeyLine{Account: k.key.Account, Region: k.key.Region, Endpoint: k.key.Endpoint, Model: k.key.Model, UsageType: string(k.key.Kind),
		Tier: k.key.Tier, Scope: string(k.key.Scope)}
	if k.key.LongContext {
		line.UsageType += "_long_context"
	}
	s := a.settle(k)
	for _, c := range slices.Concat(k.ours, k.strays, k.lost) {
		line.Billed = line.Billed.Add(c.Cost)
		line.BilledQuantity = line.BilledQuantity.Add(c.tokens)
		line.Rows += c.Rows
	}
	allPriced := true
	seen := make(map[int]bool)
	for _, h := range k.shares {
		line.Metered = line.Metered.Add(h.metered)
		line.MeteredQuantity = line.MeteredQuantity.Add(waybill.Count(h.quantity))
		allPriced = allPriced && h.priced
		if !seen[h.cell] {
			seen[h.cell] = true
			line.Calls += a.cells[h.cell].Calls
		}
	}
	for _, e := range s.unmet {
		line.Unmatched = line.Unmatched.Add(e.amount)
	}
	mine := s.accounted()
	entries := s.unmet
	name := k.name()
	if s.bill == nil { // nothing of the bill was given to calls
		line.unbilled(a, k, settled)
		line.Rate = line.Variance().Sub(line.Unmatched).Sub(line.Quantity).Sub(line.Timing)
	} else {
		line.Quantity, line.Timing = a.quantities(k, s, settled, allPriced)
		line.Quantity, line.Timing = mine.of(line.Quantity), mine.of(line.Timing)
		rest := line.Variance().Sub(line.Unmatched).Sub(line.Quantity).Sub(line.Timing)
		line.Rounding = roundingOf(rest, s.bill, mine)
		line.Rate = rest.Sub(line.Rounding)
	}
	rate := line.Rate
	var discount waybill.Money
	for _, c := range s.bill {
		d := c.Cost.Sub(c.Unblended)
		if c.isFree() {
			d = s.free.of(d)
		}
		discount = discount.Add(d)
	}
	discount = mine.of(discount)
	if !rate.IsZero() && !discount.IsZero() {
		entries = append(entries, entry{Discount, discount, "net cost of " + name})
		rate = rate.Sub(discount)
	}
	cause := RateDiffers
	if !allPriced {
		cause = Unpriced
	}
	short := QuantityDiffers
	if a.unknown[k.place()] > 0 && line.Quantity.Sign() > 0 {
		short = UsageUnknown
	}
	return line, append(entries,
		entry{cause, rate, name + a.rates(k, s)},
		entry{short, line.Quantity, name + quantityText(line)},
		entry{Timing, line.Timing, name},
		entry{Rounding, line.Rounding, "rows of the bill are rounded"})
}

// quantityByDay is how much more the bill counts than the calls that bear it. What the
// bill tells no day of is at day 0.
func (s *settlement) quantityByDay(k *keyAccount) (diff map[waybill.Day]waybill.Quantity, ok bool) {
	diff = make(map[waybill.Day]waybill.Quantity)
	var named, free waybill.Quantity
	for _, c := range s.bill {
		if !c.hasQty {
			return nil, false
		}
		diff[c.Day] = diff[c.Day].Add(c.tokens)
		if c.isFree() {
			free = free.Add(c.tokens)
		} else {
			named = named.Add(c.tokens)
		}
	}
	var taken waybill.Quantity
	for _, h := range s.takers {
		diff[h.day] = diff[h.day].Sub(waybill.Count(h.quantity))
		taken = taken.Add(waybill.Count(h.quantity))
	}
	if len(s.others) == 0 || free.IsZero() {
		return diff, true
	}
	// Takers and others share rows that name neither: of the difference between all of the
	// bill and all calls the takers have as much, day by day, as their dollars say.
	want := named.Add(waybill.QuantityFromUnscaled(s.free.of(waybill.MoneyFromUnscaled(free.Unscaled())).Unscaled())).Sub(taken)
	for _, h := range s.others {
		diff[h.day] = diff[h.day].Sub(waybill.Count(h.quantity))
	}
	for _, c := range k.strays {
		if !c.hasQty {
			return nil, false
		}
		diff[c.Day] = diff[c.Day].Add(c.tokens)
	}
	var all waybill.Quantity
	for _, q := range diff {
		all = all.Add(q)
	}
	if all.IsZero() { // what one side has too much the other has too little
		clear(diff)
		diff[s.takers[len(s.takers)-1].day] = want
		return diff, true
	}
	for d, q := range diff {
		n := new(big.Int).Mul(q.Unscaled(), want.Unscaled())
		diff[d] = waybill.QuantityFromUnscaled(n.Quo(n, all.Unscaled()))
	}
	return diff, true
}

// unbilled explains calls of which the bill has nothing: days it has not settled yet
// are timing, the rest is quantity.
func (k *KeyLine) unbilled(a *account, of *keyAccount, settled waybill.Day) {
	for _, h := range of.shares {
		if !a.hasBill || h.day > settled {
			k.Timing = k.Timing.Sub(h.metered)
		} else {
			k.Quantity = k.Quantity.Sub(h.metered)
		}
	}
}

// quantities values the differences in quantity, day by day, at the rate card's rate.
// What one day has too much and the next too little is the same calls on the other
// side of midnight: timing. So are days that the bill has not settled.
func (a *account) quantities(k *keyAccount, s settlement, settled waybill.Day, priced bool) (quantity, timing waybill.Money) {
	diff, ok := s.quantityByDay(k)
	if !ok { // the bill does not say how much it charges for
		return quantity, timing
	}
	if _, undated := diff[0]; undated { // all is on the last day of the calls
		var last waybill.Day
		var all waybill.Quantity
		for d, q := range diff {
			last, all = max(last, d), all.Add(q)
		}
		diff = map[waybill.Day]waybill.Quantity{last: all}
	}
	rate := make(map[waybill.Day]waybill.Rate)
	for _, h := range k.shares {
		rate[h.day] = h.price.Rate
	}
	if !priced || len(k.shares) == 0 {
		return quantity, timing
	}
	days := make([]waybill.Day, 0, len(diff))
	for d := range diff {
		days = append(days, d)
	}
	slices.Sort(days)
	value := func(d waybill.Day, q waybill.Quantity) waybill.Money {
		r, ok := rate[d]
		if !ok { // a day without calls has the price that they would have had
			c := a.cells[k.shares[0].cell]
			p, found := a.card.Rate(ratecard.Query{Model: a.prices.model(&c), Region: k.key.Region, Scope: c.Scope, Kind: k.key.Kind,
				Tier: k.key.Tier, ContextBucket: c.ContextBucket, Day: d})
			if !found {
				return waybill.Money{}
			}
			r = p.Rate
		}
		return r.OfQuantity(q)
	}
	for i, d := range days {
		q := diff[d]
		if i+1 < len(days) && days[i+1] == d+1 && q.Sign()*diff[d+1].Sign() < 0 {
			moved := q // the smaller of the two, with the sign of today
			if sum := q.Add(diff[d+1]); sum.Sign() == q.Sign() {
				moved = q.Sub(sum)
			}
			timing = timing.Add(value(d, moved)).Sub(value(d+1, moved))
			q = q.Sub(moved)
			diff[d+1] = diff[d+1].Add(moved)
		}
		if d > settled {
			timing = timing.Add(value(d, q))
		} else {
			quantity = quantity.Add(value(d, q))
		}
	}
	return quantity, timing
}

// roundingOf is the part of a residue that the bill's rounding of its rows makes: all
// of it where it is within 1e-10 a row, else our part of what the bill's own quantities
// and rates leave, if that is within the same bound.
func roundingOf(rest waybill.Money, bill []charge, mine fraction) waybill.Money {
	var rows int64
	var unblended, expected waybill.Money
	rated := true
	for _, c := range bill {
		rows += c.Rows
		unblended = unblended.Add(c.Unblended)
		m, _, err := waybill.ParseMoneyRounded(c.UnblendedRate)
		if err != nil {
			rated = false
			continue
		}
		r, _ := waybill.ParseRate(m.String(), 1)
		expected = expected.Add(r.OfQuantity(c.UsageAmount))
	}
	bound := waybill.MoneyFromUnscaled(new(big.Int).Mul(big.NewInt(rows), big.NewInt(1e8)))
	if rest.Abs().Cmp(bound) <= 0 {
		return rest
	}
	if own := unblended.Sub(expected); rated && own.Abs().Cmp(bound) <= 0 {
		return mine.of(own)
	}
	return waybill.Money{}
}

// place is where account.unknown has the key's calls.
func (k *keyAccount) place() string {
	return place(k.key.Account, k.key.Region, string(k.key.Endpoint), k.key.Model)
}

func (k *keyAccount) name() string {
	text := string(k.key.Kind)
	if k.key.LongContext {
		text += "_long_context"
	}
	parts := []string{k.key.Model, text, k.key.Region}
	if k.key.Endpoint == waybill.Mantle {
		parts = append(parts, string(waybill.Mantle))
	}
	if k.key.Tier != waybill.TierStandard {
		parts = append(parts, k.key.Tier)
	}
	if k.key.Scope == waybill.Global {
		parts = append(parts, "global")
	}
	return strings.Join(parts, " ")
}

// rates says what the rate card and what the bill takes for a million units.
func (a *account) rates(k *keyAccount, s settlement) string {
	var ours, theirs []string
	for _, h := range k.shares {
		if h.priced {
			ours = append(ours, h.price.Rate.Per(1_000_000))
		}
	}
	for _, c := range s.bill {
		unit, ok := unitSize(c.ChargeTotal, c.usage)
		if r, err := waybill.ParseRate(c.UnblendedRate, 1); err == nil && ok && 1_000_000%unit == 0 {
			text := r.Per(1_000_000 / unit)
			if c.usage.Detail != "" {
				text += " (" + c.usage.Detail + ")"
			}
			theirs = append(theirs, text)
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	text := func(list []string) string {
		if list = slices.Compact(list); len(list) == 0 {
			return "no price"
		}
		return strings.Join(list, " and ")
	}
	if len(theirs) == 0 {
		return ""
	}
	return fmt.Sprintf(": bill %s, rate card %s, for a million", text(theirs), text(ours))
}

func quantityText(l KeyLine) string {
	return fmt.Sprintf(": bill %s, calls %s", l.BilledQuantity, l.MeteredQuantity)
}

// looseLines are the charges that belong to no key, one line for each account, Region
// and usage type.
func looseLines(loose []charge) ([]KeyLine, []entry) {
	by := make(map[[4]string]*KeyLine)
	var order [][4]string
	var entries []entry
	for _, c := range loose {
		id := [4]string{c.UsageAccount, region(c.ChargeTotal, c.usage), c.label, string(c.bucket)}
		if by[id] == nil {
			by[id] = &KeyLine{Account: id[0], Region: id[1], UsageType: id[2], Tier: c.usage.Tier}
			order = append(order, id)
		}
		l := by[id]
		l.Billed = l.Billed.Add(c.Cost)
		l.Unmatched = l.Unmatched.Add(c.Cost)
		l.Rows += c.Rows
		entries = append(entries, entry{c.bucket, c.Cost, c.label})
	}
	slices.SortFunc(order, func(x, y [4]string) int { return slices.Compare(x[:], y[:]) })
	var out []KeyLine
	for _, id := range order {
		out = append(out, *by[id])
	}
	return out, entries
}
