package ledger

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// randomCalls are the cells of randomFacts, told apart by what a policy asks about, some
// of them refused.
func randomCalls(t *testing.T, r *rand.Rand) facts {
	t.Helper()
	f := randomFacts(t, r)
	for i := range f.cells {
		c := &f.cells[i]
		c.Hour += waybill.Hour(r.IntN(12) - 12)
		c.Principal = []string{"", "user-17", "user-18"}[r.IntN(3)]
		c.Operation = []string{"Converse", "InvokeModel"}[r.IntN(2)]
		c.KeyID = []string{"", "k1"}[r.IntN(2)]
		if r.IntN(4) == 0 {
			c.Outcome, c.PolicyOutcome, c.Sources = waybill.Refused, "refused", "gateway"
		}
	}
	return f
}

// The history of a month costs what its estimate says, to the last decimal, whatever the
// calls are, and has every call once.
func TestHistoryIsTheEstimate(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for round := range 150 {
		f := randomCalls(t, r)
		if len(f.cells) == 0 {
			continue
		}
		if round%2 == 0 {
			f.charges = nil // with a bill or without
		}
		s, err := Report(t.Context(), f, rates(t), ReportOptions{Period: october, Basis: Estimate, By: []string{"team"}})
		if err != nil {
			t.Fatal(err)
		}
		groups, err := History(t.Context(), f, rates(t), october.Start(), october.End())
		if err != nil {
			t.Fatal(err)
		}
		var cost waybill.Money
		var calls, unknown, want, wantUnknown int64
		for _, g := range groups {
			cost, calls, unknown = cost.Add(g.Cost), calls+g.Calls, unknown+g.Unknown
			if g.Outcome == waybill.Refused && (!g.Cost.IsZero() || g.Unpriced != 0) {
				t.Errorf("round %d: refused calls cost %s, %d of them unpriced", round, g.Cost, g.Unpriced)
			}
		}
		for _, c := range f.cells {
			want, wantUnknown = want+c.Calls, wantUnknown+c.Unknown
		}
		if cost.Cmp(s.Total) != 0 || calls != want || unknown != wantUnknown {
			t.Errorf("round %d: %s for %d calls, %d unknown; the estimate is %s, the calls are %d, %d unknown", round, cost, calls, unknown, s.Total, want, wantUnknown)
		}
	}
}

// Stretches of time that follow one another have every call once, wherever they are cut.
func TestHistoryInPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for round := range 60 {
		f := randomCalls(t, r)
		for i := range f.cells { // over three months
			f.cells[i].Hour += waybill.Hour(24 * 31 * (r.IntN(3) - 1))
		}
		from, to := october.Prev().Start().AddDate(0, 0, -3), october.Next().End().AddDate(0, 0, 3)
		whole, err := History(t.Context(), f, rates(t), from, to)
		if err != nil {
			t.Fatal(err)
		}
		_, calls, cost := KeyStats(whole, 0)
		cut := from.Add(time.Duration(r.Int64N(int64(to.Sub(from)))))
		var pieces []CallGroup
		for _, p := range [][2]time.Time{{from, cut}, {cut, to}} {
			some, err := History(t.Context(), f, rates(t), p[0], p[1])
			if err != nil {
				t.Fatal(err)
			}
			pieces = append(pieces, some...)
		}
		_, gotCalls, gotCost := KeyStats(pieces, 0)
		if gotCalls != calls || gotCost.Cmp(cost) != 0 {
			t.Errorf("round %d: cut at %s the pieces have %d calls for %s, the whole %d for %s", round, cut, gotCalls, gotCost, calls, cost)
		}
	}
}

// Calls that are alike are one group a day; what a policy asks about keeps them apart.
func TestHistoryGroups(t *testing.T) {
	base := cell(2, "s", 1000) // at noon
	base.Principal, base.Issuer, base.KeyID, base.Operation, base.PolicyOutcome = "user-17", "gateway-key", "k1", "Converse", "allowed"
	later := base
	later.Hour += 5
	later.Tier, later.Profile, later.LatencyMode = "priority", "p", "optimized" // a policy does not ask for these
	tomorrow := base
	tomorrow.Hour += 24
	changed := func(change func(c *waybill.UsageTotal)) waybill.UsageTotal {
		c := base
		change(&c)
		return c
	}
	apart := []waybill.UsageTotal{tomorrow,
		changed(func(c *waybill.UsageTotal) { c.Principal = "user-18" }),
		changed(func(c *waybill.UsageTotal) { c.Issuer = "https://idp.example.com" }),
		changed(func(c *waybill.UsageTotal) { c.KeyID = "k2" }),
		changed(func(c *waybill.UsageTotal) { c.PrincipalARN = strayARN }),
		changed(func(c *waybill.UsageTotal) { c.SessionName = "user-18" }),
		changed(func(c *waybill.UsageTotal) { c.Operation = "InvokeModel" }),
		changed(func(c *waybill.UsageTotal) { c.Endpoint = waybill.Mantle }),
		changed(func(c *waybill.UsageTotal) { c.Region = "eu-west-1" }),
		changed(func(c *waybill.UsageTotal) { c.ModelID = "eu.amazon.nova-lite-v1:0" }),
		changed(func(c *waybill.UsageTotal) { c.TagSet = "a" }),
		changed(func(c *waybill.UsageTotal) { c.Sources = "gateway" }),
		changed(func(c *waybill.UsageTotal) { c.Outcome = waybill.Failed }),
		changed(func(c *waybill.UsageTotal) { c.PolicyOutcome = "warned" }),
	}
	groups, err := History(t.Context(), facts{cells: append([]waybill.UsageTotal{later, base}, apart...)}, rates(t), october.Start(), october.End())
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != 1+len(apart) {
		t.Errorf("%d groups, want %d", len(groups), 1+len(apart))
	}
	both := 0
	for _, g := range groups {
		if g.Calls == 2 {
			both++
			if g.Hour != base.Hour || g.Cost.String() != "0.06" || g.Unpriced != 1 || !g.Tags.Equal(sets["s"]) || g.PolicyOutcome != waybill.PolicyAllowed {
				t.Errorf("the two alike: %+v", g)
			}
		}
	}
	if both != 1 {
		t.Errorf("%d groups have two calls, want 1", both)
	}

	// The policy was asked about the model that the caller named.
	swapped := changed(func(c *waybill.UsageTotal) {
		c.ModelAsked, c.ModelID = c.ModelID, "arn:aws:bedrock:...:application-inference-profile/p"
	})
	groups, err = History(t.Context(), facts{cells: []waybill.UsageTotal{base, swapped}}, rates(t), october.Start(), october.End())
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != 1 || groups[0].ModelID != base.ModelID {
		t.Errorf("%+v, want one group of model %s", groups, base.ModelID)
	}
}

// Before there was a gateway the log tells: its request metadata are the calls' tags.
func TestHistoryBeforeTheGateway(t *testing.T) {
	logged := cell(2, "s", 1000)
	logged.Sources = "log"
	untagged := cell(2, "", 2000)
	untagged.Sources, untagged.PrincipalARN = "log", strayARN
	metered := cell(20, "a", 4000)
	groups, err := History(t.Context(), facts{cells: []waybill.UsageTotal{logged, untagged, metered}}, rates(t), october.Start(), october.End())
	if err != nil {
		t.Fatal(err)
	}
	stats, calls, cost := KeyStats(groups, 5)
	if len(groups) != 3 || calls != 3 || cost.String() != "0.42" {
		t.Errorf("%d groups, %d calls, %s; want 3, 3, 0.42", len(groups), calls, cost)
	}
	want := []KeyStat{{Key: "team", Calls: 2, Cost: money(t, "0.3"), Distinct: 2,
		Top: []ValueStat{{"ads", 1, money(t, "0.24")}, {"search", 1, money(t, "0.06")}}}}
	if d := diffStats(want, stats); d != "" {
		t.Error(d)
	}
}

func diffStats(want, got []KeyStat) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b waybill.Money) bool { return a.Cmp(b) == 0 }))
}

// Keys and values are in the order of their cost, then of their calls, then of their
// names; what is left out of Top is still counted.
func TestKeyStats(t *testing.T) {
	group := func(cost string, calls int64, tags ...waybill.Tag) CallGroup {
		return CallGroup{Cost: money(t, cost), Calls: calls, Tags: waybill.NewTags(tags...)}
	}
	team := func(v string) waybill.Tag { return waybill.Tag{Key: "team", Value: v} }
	stage := waybill.Tag{Key: "stage", Value: "prod"}
	groups := []CallGroup{
		group("1", 3, team("d")), group("1", 3, team("c")), group("1", 9, team("b"), stage), group("2", 1, team("a"), stage),
		group("0.5", 1, team("")), // an empty value is a value
		group("100", 1),           // no tag at all
		group("0", 7, waybill.Tag{Key: "app", Value: "x"}), group("0", 7, waybill.Tag{Key: "aps", Value: "x"}),
	}
	want := []KeyStat{
		{"team", 17, money(t, "5.5"), 5, []ValueStat{{"a", 1, money(t, "2")}, {"b", 9, money(t, "1")}, {"c", 3, money(t, "1")}}},
		{"stage", 10, money(t, "3"), 1, []ValueStat{{"prod", 10, money(t, "3")}}},
		{"app", 7, waybill.Money{}, 1, []ValueStat{{"x", 7, waybill.Money{}}}},
		{"aps", 7, waybill.Money{}, 1, []ValueStat{{"x", 7, waybill.Money{}}}},
	}
	r := rand.New(rand.NewPCG(6, 6))
	for range 20 {
		r.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
		stats, calls, cost := KeyStats(groups, 3)
		if d := diffStats(want, stats); d != "" || calls != 32 || cost.String() != "105.5" {
			t.Fatalf("%d calls, %s; want 32, 105.5\n%s", calls, cost, d)
		}
	}
	if stats, _, _ := KeyStats(groups, -1); len(stats[0].Top) != 0 || stats[0].Distinct != 5 {
		t.Errorf("at most -1 values: %+v", stats[0])
	}
	if stats, calls, cost := KeyStats(nil, 3); len(stats) != 0 || calls != 0 || !cost.IsZero() {
		t.Errorf("of nothing: %v %d %s", stats, calls, cost)
	}
}

// The history is in one order, whatever order the facts come in.
func TestHistoryOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	f := randomCalls(t, r)
	for len(f.cells) < 20 {
		f = randomCalls(t, r)
	}
	var want string
	for round := range 10 {
		groups, err := History(t.Context(), f, rates(t), october.Start(), october.End())
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(groups); round == 0 {
			want = got
		} else if got != want {
			t.Fatalf("round %d has another order", round)
		}
		r.Shuffle(len(f.cells), func(i, j int) { f.cells[i], f.cells[j] = f.cells[j], f.cells[i] })
	}
}
