package ledger

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// A share is the usage of one kind in one cell: what bears cost.
type share struct {
	cell     int // index in account.cells
	kind     waybill.Kind
	quantity int64
	day      waybill.Day
	priced   bool
	price    ratecard.Price
	metered  waybill.Money // zero if not priced
}

// A MissingPrice is a line that the rate card would need for calls to have a cost: in the
// words of its columns.
type MissingPrice struct {
	Model     string
	Region    string
	Scope     waybill.Scope
	UsageKind waybill.Kind
	Tier      string
	Endpoint  waybill.Endpoint // the calls', which the card has no column for
	Calls     int64            // calls with such usage, also those that went round the gateway
	// UsageTypes are what the bill charges such usage as, where there is a bill.
	UsageTypes []string
	// Other is another id of the same model that has such a price: on the other endpoint, as
	// a rule. It has usage types of its own there, and nothing says that they cost the same.
	Other string
}

// String says it in a line.
func (m MissingPrice) String() string {
	s := fmt.Sprintf("%s %s, %s, %s, %s", m.Model, m.UsageKind, m.Region, m.Scope, m.Tier)
	if m.Endpoint == waybill.Mantle {
		s += ", " + string(m.Endpoint)
	}
	if len(m.UsageTypes) > 0 {
		s += ", usage type " + strings.Join(m.UsageTypes, " and ")
	}
	if m.Other != "" {
		s += ": the card has a price of " + m.Other + ", which is charged as another usage type; if they cost the same, say so in a line of its own"
	}
	return s
}

// missing lists the prices that the card does not have and calls of the period would need,
// those of most calls first.
func (a *account) missing() []MissingPrice {
	type line struct {
		model, region, tier string
		scope               waybill.Scope
		kind                waybill.Kind
		endpoint            waybill.Endpoint
		types               string
	}
	found := make(map[line]*MissingPrice)
	for _, k := range a.keys {
		var types []string
		for _, c := range slices.Concat(k.ours, k.strays, k.lost) {
			types = append(types, c.UsageType)
		}
		slices.Sort(types)
		types = slices.Compact(types)
		all := strings.Join(types, " ")
		for _, h := range slices.Concat(k.shares, k.bypass) {
			c := &a.cells[h.cell]
			if h.priced {
				continue
			}
			l := line{a.prices.model(c), c.Region, k.key.Tier, c.Scope, h.kind, c.Endpoint, all}
			if found[l] == nil {
				m := MissingPrice{Model: l.model, Region: l.region, Scope: l.scope, UsageKind: l.kind, Tier: l.tier, Endpoint: l.endpoint, UsageTypes: types}
				m.Other = a.prices.other(m, c.ContextBucket, h.day)
				found[l] = &m
			}
			found[l].Calls += c.Calls
		}
	}
	var out []MissingPrice
	for _, m := range found {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(x, y MissingPrice) int {
		return cmp.Or(cmp.Compare(y.Calls, x.Calls), strings.Compare(x.String(), y.String()))
	})
	return out
}

// other is another id of the model that has the price that is missing.
func (p pricer) other(m MissingPrice, context int64, day waybill.Day) string {
	for _, id := range p.card.ModelIDs() {
		if id == m.Model || p.canonical(id) != p.canonical(m.Model) && p.tableID(id) != p.tableID(m.Model) {
			continue
		}
		if _, ok := p.card.Rate(ratecard.Query{Model: id, Region: m.Region, Scope: m.Scope, Kind: m.UsageKind, Tier: m.Tier, ContextBucket: context, Day: day}); ok {
			return id
		}
	}
	return ""
}

// tableID is the id that the table of billing names has for a name, else the name.
func (p pricer) tableID(name string) string {
	if id, ok := p.models.ID(name); ok {
		return id
	}
	return name
}

// A pricer prices the calls of one billing period.
type pricer struct {
	card   *ratecard.Card
	models *ratecard.Models
	canon  map[string]string // what canonical has found
	pooled map[string]bool   // account/region/model: calls on both endpoints bear its charges, see account.tellEndpoints
}

func newPricer(card *ratecard.Card, cells []waybill.UsageTotal) (pricer, error) {
	var runtime, mantle []string
	for _, c := range cells {
		if c.Endpoint == waybill.Mantle {
			mantle = append(mantle, c.Model)
		} else {
			runtime = append(runtime, c.Model)
		}
	}
	models, err := ratecard.KnownModels(runtime...)
	if err != nil {
		return pricer{}, err
	}
	models.Learn(card.ModelIDs()...)
	models.Learn(mantle...) // last: a display name is of the id that bedrock-runtime has, if it has one
	return pricer{card: card, models: models, canon: make(map[string]string)}, nil
}

// model is the id by which a call is priced: the one that was called if the card has it,
// else on bedrock-runtime the one that the table of billing names has for it. A model that has
// another id on the other endpoint has usage types of its own there, and prices of its own:
// the one is never taken for the other.
func (p pricer) model(c *waybill.UsageTotal) string {
	if c.Endpoint == waybill.Mantle || p.hasPrices(c.Model) {
		return c.Model
	}
	return p.tableID(c.Model)
}

func (p pricer) hasPrices(model string) bool {
	_, ok := slices.BinarySearch(p.card.ModelIDs(), model)
	return ok
}

// canonical is Models.Canonical, asked once for each id: it is slow, and calls are many.
func (p pricer) canonical(id string) string {
	to, ok := p.canon[id]
	if !ok {
		to = p.models.Canonical(id)
		p.canon[id] = to
	}
	return to
}

// billed are the endpoint and the model of the charges that a call bears.
func (p pricer) billed(c *waybill.UsageTotal) (waybill.Endpoint, string) {
	if c.Endpoint != waybill.Mantle {
		return waybill.Runtime, p.tableID(c.Model)
	}
	if model := p.canonical(c.Model); p.pooled[place(c.Account, c.Region, model)] {
		return waybill.Runtime, model
	}
	return waybill.Mantle, c.Model
}

// shares prices a cell, kind by kind, and says to which usage key each kind belongs.
// Calls that the gateway refused have none: they never left, and cost nothing.
func (p pricer) shares(c *waybill.UsageTotal) iter.Seq2[waybill.UsageKey, share] {
	return func(yield func(waybill.UsageKey, share) bool) {
		if c.Outcome == waybill.Refused {
			return
		}
		tier := c.Tier
		if tier == "" || tier == "default" {
			tier = waybill.TierStandard
		}
		if c.LatencyMode == "optimized" {
			tier = waybill.TierLatencyOptimized
		}
		model := p.model(c)
		endpoint, billed := p.billed(c)
		for kind, n := range c.Usage.All() {
			s := share{kind: kind, quantity: n, day: c.Hour.Day()}
			s.price, s.priced = p.card.Rate(ratecard.Query{Model: model, Region: c.Region, Scope: c.Scope,
				Kind: kind, Tier: tier, ContextBucket: c.ContextBucket, Day: s.day})
			if s.priced {
				s.metered = s.price.Rate.Of(n)
			}
			key := waybill.UsageKey{Account: c.Account, Region: c.Region, Endpoint: endpoint, Model: billed, Kind: kind, Tier: tier,
				Scope: c.Scope.Group(), LongContext: p.card.LongContext(model, c.ContextBucket)}
			if !yield(key, s) {
				return
			}
		}
	}
}
