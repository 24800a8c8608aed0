package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// HistoryFacts are what a lake knows of calls.
type HistoryFacts interface {
	// Periods lists the billing periods that the lake has calls of, and those it has a
	// bill of, in order.
	Periods(ctx context.Context) (calls, bills []waybill.Period, err error)
	// Usage is as in Facts.
	Usage(ctx context.Context, period waybill.Period) ([]waybill.UsageTotal, map[string]waybill.Tags, error)
}

// A CallGroup is the calls of one UTC day that are alike in all that a tag policy asks
// about, and in what became of them.
type CallGroup struct {
	Hour waybill.Hour // of the first of them

	// Principal is empty for calls known from the log alone; Issuer and KeyID as well.
	Principal, Issuer, KeyID  string
	PrincipalARN, SessionName string
	Operation                 string
	Endpoint                  waybill.Endpoint
	Region                    string
	// ModelID is the model as the caller named it: what the policy was asked about, also
	// where the gateway then sent an inference profile instead.
	ModelID waybill.ModelID
	// Tags are those that the gateway resolved; of calls known from the log alone the
	// request metadata.
	Tags          waybill.Tags
	Sources       string // gateway, log or both
	Outcome       waybill.Outcome
	PolicyOutcome waybill.PolicyOutcome

	Calls    int64
	Unknown  int64         // calls whose usage is not known: they cost more than Cost says
	Unpriced int64         // calls with usage that has no price: so do they
	Cost     waybill.Money // metered: usage times rate card, in the rate card's currency
}

// History gives the calls from since to until, in groups, with their metered cost: the
// same as a report has on the estimate basis. Calls are known by the hour, and an hour
// belongs to the stretch of time in which it begins: so stretches that follow one
// another have every call once. Calls that the gateway refused are among them, and cost
// nothing; so are those that only the log knows.
func History(ctx context.Context, facts HistoryFacts, card *ratecard.Card, since, until time.Time) ([]CallGroup, error) {
	periods, _, err := facts.Periods(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the history of calls: %w", err)
	}
	h := history{index: make(map[groupKey]int)}
	for _, p := range periods {
		if !p.Start().Before(until) || !p.End().After(since) {
			continue
		}
		cells, tags, err := facts.Usage(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("read the usage of %s: %w", p, err)
		}
		prices, err := newPricer(card, cells)
		if err != nil {
			return nil, err
		}
		for i := range cells {
			c := &cells[i]
			if begin := c.Hour.Start(); begin.Before(since) || !begin.Before(until) {
				continue
			}
			h.add(c, tags[c.TagSet], prices)
		}
	}
	slices.SortFunc(h.groups, compareGroups)
	return h.groups, nil
}

// A groupKey is all in which the calls of a group agree.
type groupKey struct {
	day                                                                waybill.Day
	principal, issuer, keyID, arn, session, operation, region, sources string
	endpoint                                                           waybill.Endpoint
	model                                                              waybill.ModelID
	tagSet                                                             string
	outcome                                                            waybill.Outcome
	policyOutcome                                                      string
}

type history struct {
	index  map[groupKey]int
	groups []CallGroup
}

func (h *history) add(c *waybill.UsageTotal, tags waybill.Tags, prices pricer) {
	asked := cmp.Or(c.ModelAsked, c.ModelID)
	key := groupKey{c.Hour.Day(), c.Principal, c.Issuer, c.KeyID, c.PrincipalARN, c.SessionName, c.Operation, c.Region, c.Sources,
		c.Endpoint, asked, c.TagSet, c.Outcome, c.PolicyOutcome}
	i, ok := h.index[key]
	if !ok {
		i = len(h.groups)
		h.index[key] = i
		h.groups = append(h.groups, CallGroup{Hour: c.Hour, Principal: c.Principal, Issuer: c.Issuer, KeyID: c.KeyID, PrincipalARN: c.PrincipalARN,
			SessionName: c.SessionName, Operation: c.Operation, Endpoint: c.Endpoint, Region: c.Region, ModelID: asked, Tags: tags,
			Sources: c.Sources, Outcome: c.Outcome, PolicyOutcome: waybill.PolicyOutcome(c.PolicyOutcome)})
	}
	g := &h.groups[i]
	g.Hour = min(g.Hour, c.Hour)
	g.Calls += c.Calls
	g.Unknown += c.Unknown
	unpriced := false
	for _, s := range prices.shares(c) {
		g.Cost = g.Cost.Add(s.metered)
		unpriced = unpriced || !s.priced
	}
	if unpriced {
		g.Unpriced += c.Calls
	}
}

// compareGroups orders groups by time, and within an hour by all that they differ in.
func compareGroups(x, y CallGroup) int {
	if c := cmp.Or(cmp.Compare(x.Hour, y.Hour), strings.Compare(x.Principal, y.Principal), strings.Compare(x.Issuer, y.Issuer), strings.Compare(x.KeyID, y.KeyID),
		strings.Compare(x.PrincipalARN, y.PrincipalARN), strings.Compare(x.SessionName, y.SessionName), strings.Compare(x.Operation, y.Operation),
		cmp.Compare(x.Endpoint, y.Endpoint), strings.Compare(x.Region, y.Region), cmp.Compare(x.ModelID, y.ModelID), strings.Compare(x.Sources, y.Sources),
		cmp.Compare(x.Outcome, y.Outcome), cmp.Compare(x.PolicyOutcome, y.PolicyOutcome)); c != 0 {
		return c
	}
	return strings.Compare(x.Tags.Canonical(), y.Tags.Canonical())
}

// A KeyStat says how a tag key is used: the calls and dollars that carry it.
type KeyStat struct {
	Key      string
	Calls    int64
	Cost     waybill.Money
	Distinct int         // distinct values
	Top      []ValueStat // the values with the largest cost, largest first
}

// A ValueStat is the calls and dollars that carry one value of a tag key.
type ValueStat struct {
	Value string
	Calls int64
	Cost  waybill.Money
}

// KeyStats says of every tag key how it is used, with at most n values of each, and what
// all calls are together. What costs most comes first, then what has the most calls. All
// groups that are given count: leave out refused calls to have those that cost money.
func KeyStats(groups []CallGroup, n int) (stats []KeyStat, totalCalls int64, totalCost waybill.Money) {
	byKey := make(map[string]map[string]*ValueStat)
	for i := range groups {
		g := &groups[i]
		totalCalls += g.Calls
		totalCost = totalCost.Add(g.Cost)
		for key, value := range g.Tags.All() {
			if byKey[key] == nil {
				byKey[key] = make(map[string]*ValueStat)
			}
			v := byKey[key][value]
			if v == nil {
				v = &ValueStat{Value: value}
				byKey[key][value] = v
			}
			v.Calls += g.Calls
			v.Cost = v.Cost.Add(g.Cost)
		}
	}
	for key, values := range byKey {
		s := KeyStat{Key: key, Distinct: len(values)}
		for _, v := range values {
			s.Calls += v.Calls
			s.Cost = s.Cost.Add(v.Cost)
			s.Top = append(s.Top, *v)
		}
		slices.SortFunc(s.Top, func(x, y ValueStat) int {
			return cmp.Or(y.Cost.Cmp(x.Cost), cmp.Compare(y.Calls, x.Calls), strings.Compare(x.Value, y.Value))
		})
		s.Top = slices.Clone(s.Top[:min(max(n, 0), len(s.Top))]) // the rest may be many
		stats = append(stats, s)
	}
	slices.SortFunc(stats, func(x, y KeyStat) int {
		return cmp.Or(y.Cost.Cmp(x.Cost), cmp.Compare(y.Calls, x.Calls), strings.Compare(x.Key, y.Key))
	})
	return stats, totalCalls, totalCost
}
