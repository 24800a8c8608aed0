package main

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// prices is a rate card as the gateway asks it. It goes by the rules of the ledger's own
// metered cost, so that an estimate is what a report says later.
type prices struct {
	card   *ratecard.Card
	models *ratecard.Models
	known  map[string]bool // models with a price
}

// readPrices reads a rate card in dollars.
func readPrices(file string, src []byte) (*prices, error) {
	card, err := ratecard.Parse(file, bytes.NewReader(src))
	if err != nil {
		return nil, err
	}
	if card.Currency() != "" && card.Currency() != "USD" {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s: prices are in %s", file, card.Currency()), Hint: "estimates are in dollars: give the gateway a card in USD"}
	}
	models, err := ratecard.KnownModels(card.ModelIDs()...)
	if err != nil {
		return nil, err
	}
	p := &prices{card: card, models: models, known: make(map[string]bool)}
	for _, id := range card.ModelIDs() {
		p.known[id] = true
	}
	return p, nil
}

func (p *prices) query(v *waybill.Invocation, kind waybill.Kind) ratecard.Query {
	q := ratecard.Query{Model: v.Model, Region: v.Region, Scope: v.Scope, Kind: kind, Tier: v.Tier,
		ContextBucket: waybill.ContextBucketOf(v.Usage.Context()), Day: waybill.DayOf(v.StartedAt)}
	if q.Tier == "" || q.Tier == "default" {
		q.Tier = waybill.TierStandard
	}
	if v.LatencyMode == "optimized" {
		q.Tier = waybill.TierLatencyOptimized
	}
	if !p.known[q.Model] && v.Endpoint != waybill.Mantle { // what it calls has usage types of its own
		if id, ok := p.models.ID(q.Model); ok {
			q.Model = id
		}
	}
	return q
}

// Cost is the sum over all kinds of usage, if all have a price.
func (p *prices) Cost(v *waybill.Invocation) (sum waybill.Money, ok bool) {
	for kind, n := range v.Usage.All() {
		price, ok := p.card.Rate(p.query(v, kind))
		if !ok {
			return waybill.Money{}, false
		}
		sum = sum.Add(price.Rate.Of(n))
	}
	return sum, v.Usage.Known
}

// Knows reports whether any kind of usage of the model has a price there and then.
func (p *prices) Knows(v *waybill.Invocation) bool {
	return slices.ContainsFunc(waybill.Kinds[:], func(kind waybill.Kind) bool {
		_, ok := p.card.Rate(p.query(v, kind))
		return ok
	})
}
