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
	pooled map[string]bool // account/region/model: calls on both endpoints bear its charges, see account.tellEndpoints
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
	return pricer{card: card, models: models}, nil
}

// model is the id by which a call is priced: on bedrock-runtime the one that the table of
// billing names has for it, on bedrock-mantle the one that was called. A model that has
// another id on the other endpoint has usage types of its own there, and prices of its own:
// the one is never taken for the other.
func (p pricer) model(c *waybill.UsageTotal) string {
	if c.Endpoint == waybill.Mantle {
		return c.Model
	}
	if id, ok := p.models.ID(c.Model); ok {
		return id
	}
	return c.Model
}

// billed are the endpoint and the model of the charges that a call bears.
func (p pricer) billed(c *waybill.UsageTotal) (waybill.Endpoint, string) {
	if c.Endpoint != waybill.Mantle {
		return waybill.Runtime, p.model(c)
	}
	if model := p.models.Canonical(c.Model); p.pooled[place(c.Account, c.Region, model)] {
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
