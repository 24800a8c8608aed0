package ledger

import (
	"iter"

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

// A pricer prices the calls of one billing period.
type pricer struct {
	card   *ratecard.Card
	models *ratecard.Models
}

func newPricer(card *ratecard.Card, cells []waybill.UsageTotal) (pricer, error) {
	ids := card.ModelIDs()
	for _, c := range cells {
		ids = append(ids, c.Model)
	}
	models, err := ratecard.KnownModels(ids...)
	return pricer{card, models}, err
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
		model := c.Model
		if id, ok := p.models.ID(model); ok {
			model = id
		}
		for kind, n := range c.Usage.All() {
			s := share{kind: kind, quantity: n, day: c.Hour.Day()}
			s.price, s.priced = p.card.Rate(ratecard.Query{Model: model, Region: c.Region, Scope: c.Scope,
				Kind: kind, Tier: tier, ContextBucket: c.ContextBucket, Day: s.day})
			if s.priced {
				s.metered = s.price.Rate.Of(n)
			}
			key := waybill.UsageKey{Account: c.Account, Region: c.Region, Model: model, Kind: kind, Tier: tier,
				Scope: c.Scope.Group(), LongContext: p.card.LongContext(model, c.ContextBucket)}
			if !yield(key, s) {
				return
			}
		}
	}
}
