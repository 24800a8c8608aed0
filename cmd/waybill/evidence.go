package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
	"github.com/waybill-dev/waybill/internal/lake"
	"github.com/waybill-dev/waybill/internal/ledger"
	"github.com/waybill-dev/waybill/internal/policy"
	"github.com/waybill-dev/waybill/internal/ratecard"
	"github.com/waybill-dev/waybill/internal/screen"
)

// evidence lets the controls ask a ledger.
type evidence struct {
	place  *place
	policy *policy.Policy // says which keys ride on sessions and resources; nil: on requests alone
}

// cells are the calls of a stretch of time, read once.
type cells struct {
	periods []waybill.Period
	usage   map[waybill.Period][]waybill.UsageTotal
	tags    map[string]waybill.Tags
	account string // the one that Usage gives; empty means all
}

func (c *cells) Periods(context.Context) (calls, bills []waybill.Period, err error) {
	return c.periods, nil, nil
}

func (c *cells) Usage(_ context.Context, p waybill.Period) ([]waybill.UsageTotal, map[string]waybill.Tags, error) {
	if c.account == "" {
		return c.usage[p], c.tags, nil
	}
	var mine []waybill.UsageTotal
	for _, u := range c.usage[p] {
		if u.Account == c.account {
			mine = append(mine, u)
		}
	}
	return mine, c.tags, nil
}

// Evidence sums up the calls and charges from since to until.
func (v evidence) Evidence(ctx context.Context, since, until time.Time) (_ *control.Evidence, err error) {
	l, card, err := v.place.openAll(ctx)
	if err != nil {
		return nil, errors.New(message(err))
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	c, err := readCells(ctx, l, since, until)
	if err != nil {
		return nil, err
	}
	e := &control.Evidence{Since: since, Until: until, Currency: cmp.Or(card.Currency(), "USD")}
	byDay := make(days)
	if err := v.addCalls(ctx, e, byDay, c, card); err != nil {
		return nil, err
	}
	c.within(since, until, byDay.addTokens)
	e.Days = byDay.list()
	e.Gaps = gaps(c, since, until)
	e.PeakSessions = peakSessions(c, since, until)
	return e, v.addCharges(ctx, e, l, c.periods)
}

func readCells(ctx context.Context, l *lake.Lake, since, until time.Time) (*cells, error) {
	calls, _, err := l.Periods(ctx)
	if err != nil {
		return nil, err
	}
	c := &cells{usage: make(map[waybill.Period][]waybill.UsageTotal), tags: make(map[string]waybill.Tags)}
	for _, p := range calls {
		if !p.Start().Before(until) || !p.End().After(since) {
			continue
		}
		usage, tags, err := l.Usage(ctx, p)
		if err != nil {
			return nil, err
		}
		c.periods = append(c.periods, p)
		c.usage[p] = usage
		for id, t := range tags {
			c.tags[id] = t
		}
	}
	return c, nil
}

// within calls f for the cells of a stretch of time that were not refused.
func (c *cells) within(since, until time.Time, f func(*waybill.UsageTotal)) {
	for _, p := range c.periods {
		for i := range c.usage[p] {
			u := &c.usage[p][i]
			if at := u.Hour.Start(); u.Outcome != waybill.Refused && !at.Before(since) && at.Before(until) {
				f(u)
			}
		}
	}
}

// addCalls adds the dollars of calls, account by account, since a group does not name one.
func (v evidence) addCalls(ctx context.Context, e *control.Evidence, byDay days, c *cells, card *ratecard.Card) error {
	accounts := make(map[string]bool)
	c.within(e.Since, e.Until, func(u *waybill.UsageTotal) { accounts[u.Account] = true })
	var all []ledger.CallGroup
	sources := make(map[[3]string]*control.ValueUsage)
	for _, account := range sortedSet(accounts) {
		one := *c
		one.account = account
		groups, err := ledger.History(ctx, &one, card, e.Since, e.Until)
		if err != nil {
			return err
		}
		for i := range groups {
			g := &groups[i]
			if g.Outcome == waybill.Refused {
				continue
			}
			day := byDay.of(dayKey{g.Hour.Day(), account, g.Region, string(g.ModelID), g.Endpoint})
			day.Calls += g.Calls
			day.Unknown += g.Unknown
			day.Cost = day.Cost.Add(g.Cost)
			e.Total = e.Total.Add(g.Cost)
			source := "gateway"
			if g.Sources == "log" {
				source = "log"
			}
			for key, value := range g.Tags.All() {
				addValue(sources, key, value, source, g.Calls, g.Cost)
			}
			all = append(all, *g)
		}
	}
	e.Keys = v.keys(all)
	takeValues(e, sources)
	return nil
}

// keys says how keys are used on each carrier. What rode on a session or resource is known
// of the gateway's calls alone: the log has request metadata, and nothing else.
func (v evidence) keys(groups []ledger.CallGroup) []control.KeyUsage {
	var out []control.KeyUsage
	add := func(groups []ledger.CallGroup, carrier policy.Carrier, takes func(key string) bool) {
		stats, _, _ := ledger.KeyStats(groups, 0)
		for _, s := range stats {
			if takes(s.Key) {
				out = append(out, control.KeyUsage{Key: policy.Shown(s.Key), Carrier: string(carrier), Calls: s.Calls, Cost: s.Cost, Distinct: s.Distinct})
			}
		}
	}
	add(groups, policy.OnRequest, func(key string) bool {
		return v.policy == nil || !v.policy.Declares(key) || slices.Contains(v.policy.KeysOn(policy.OnRequest), key)
	})
	if v.policy == nil {
		return out
	}
	ours := slices.DeleteFunc(slices.Clone(groups), func(g ledger.CallGroup) bool { return g.Sources == "log" })
	for _, carrier := range []policy.Carrier{policy.OnSession, policy.OnResource} {
		add(ours, carrier, func(key string) bool { return slices.Contains(v.policy.KeysOn(carrier), key) })
	}
	return out
}

func sortedSet(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// A dayKey is what tells the days of the evidence apart.
type dayKey struct {
	day                    waybill.Day
	account, region, model string
	endpoint               waybill.Endpoint
}

// days are the days of the evidence while they are added up.
type days map[dayKey]*control.DayUse

func (d days) of(k dayKey) *control.DayUse {
	if d[k] == nil {
		d[k] = &control.DayUse{Day: k.day, Account: k.account, Region: k.region, Endpoint: k.endpoint, Model: k.model}
	}
	return d[k]
}

// list is all of them that have calls, in order.
func (d days) list() []control.DayUse {
	var out []control.DayUse
	for _, u := range d {
		if u.Calls > 0 {
			out = append(out, *u)
		}
	}
	slices.SortFunc(out, func(a, b control.DayUse) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), strings.Compare(a.Account, b.Account), strings.Compare(a.Region, b.Region), cmp.Compare(a.Endpoint, b.Endpoint), strings.Compare(a.Model, b.Model))
	})
	return out
}

// addTokens adds a cell's tokens to its day. CloudWatch counts input without what was read
// from a cache, and so does the ledger.
func (d days) addTokens(u *waybill.UsageTotal) {
	day := d.of(dayKey{u.Hour.Day(), u.Account, u.Region, string(cmp.Or(u.ModelAsked, u.ModelID)), u.Endpoint})
	day.Input += u.Usage.Of(waybill.Input)
	day.Output += u.Usage.Of(waybill.Output)
}

func addValue(to map[[3]string]*control.ValueUsage, key, value, source string, calls int64, cost waybill.Money) {
	key = policy.Shown(key) // a key may be personal data as well
	sensitive := ""
	if f, ok := screen.Value(value); ok {
		value, sensitive = "", f.Name // a snapshot is a file, and holds no secret
	}
	id := [3]string{key, value + "\x00" + sensitive, source}
	if to[id] == nil {
		to[id] = &control.ValueUsage{Key: key, Value: value, Sensitive: sensitive, Source: source}
	}
	to[id].Calls += calls
	to[id].Cost = to[id].Cost.Add(cost)
}

// mostValues bounds the values that a snapshot keeps, dearest first.
const mostValues = 20_000

func takeValues(e *control.Evidence, from map[[3]string]*control.ValueUsage) {
	for _, v := range from {
		e.Values = append(e.Values, *v)
	}
	slices.SortFunc(e.Values, func(a, b control.ValueUsage) int {
		return cmp.Or(b.Cost.Cmp(a.Cost), strings.Compare(a.Key, b.Key), strings.Compare(a.Value, b.Value), strings.Compare(a.Sensitive, b.Sensitive), strings.Compare(a.Source, b.Source))
	})
	e.Values = e.Values[:min(len(e.Values), mostValues)]
}

// addCharges adds the tag values that the bill has.
func (v evidence) addCharges(ctx context.Context, e *control.Evidence, l *lake.Lake, periods []waybill.Period) error {
	values := make(map[[3]string]*control.ValueUsage)
	for _, p := range periods {
		charges, tags, err := l.Charges(ctx, p)
		if err != nil {
			return err
		}
		for i := range charges {
			for key, value := range tags[charges[i].TagSet].All() {
				for _, prefix := range []string{"iamPrincipal/", "resourceTags/user:", "resourceTags/"} {
					if bare, ok := strings.CutPrefix(key, prefix); ok && !strings.HasPrefix(bare, "aws:") {
						addValue(values, bare, value, "bill", 0, charges[i].Cost)
						break
					}
				}
			}
		}
	}
	takeValues(e, values)
	return nil
}

// An hourly is what one hour of an account and Region has.
type hourly struct {
	calls  int64 // of the gateway, which AWS logs
	logged bool
}

// gaps are the hours of which the gateway tells and the log does not. The newest two hours
// do not count: logs come late.
func gaps(c *cells, since, until time.Time) []control.Gap {
	type place struct{ account, region string }
	hours := make(map[place]map[waybill.Hour]*hourly)
	c.within(since, until.Add(-2*time.Hour), func(u *waybill.UsageTotal) {
		if u.Endpoint != waybill.Runtime || u.Outcome != waybill.Completed && u.Sources == "gateway" {
			return
		}
		p := place{u.Account, u.Region}
		if hours[p] == nil {
			hours[p] = make(map[waybill.Hour]*hourly)
		}
		h := hours[p][u.Hour]
		if h == nil {
			h = &hourly{}
			hours[p][u.Hour] = h
		}
		if u.Sources == "gateway" {
			h.calls += u.Calls
		} else {
			h.logged = true
		}
	})
	var out []control.Gap
	for p, byHour := range hours {
		var order []waybill.Hour
		for h, what := range byHour {
			if what.calls > 0 && !what.logged {
				order = append(order, h)
			}
		}
		slices.Sort(order)
		for _, h := range order {
			if n := len(out); n > 0 && out[n-1].Account == p.account && out[n-1].Region == p.region && out[n-1].To.Equal(h.Start()) {
				out[n-1].To = h.Start().Add(time.Hour)
				out[n-1].Calls += byHour[h].calls
				continue
			}
			out = append(out, control.Gap{Account: p.account, Region: p.region, From: h.Start(), To: h.Start().Add(time.Hour), Calls: byHour[h].calls})
		}
	}
	return out
}

// peakSessions is the most role sessions of the gateway in one hour of one Region.
func peakSessions(c *cells, since, until time.Time) int64 {
	type at struct {
		region string
		hour   waybill.Hour
	}
	sessions := make(map[at]map[[3]string]bool)
	c.within(since, until, func(u *waybill.UsageTotal) {
		if u.Sources == "log" {
			return
		}
		k := at{u.Region, u.Hour}
		if sessions[k] == nil {
			sessions[k] = make(map[[3]string]bool)
		}
		sessions[k][[3]string{u.PrincipalARN, u.SessionName, u.TagSet}] = true
	})
	most := 0
	for _, s := range sessions {
		most = max(most, len(s))
	}
	return int64(most)
}
