package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

var october = waybill.Period{Year: 2026, Month: time.October}

// facts are a lake in memory.
type facts struct {
	cells   []waybill.UsageTotal
	charges []waybill.ChargeTotal
}

var sets = map[string]waybill.Tags{"s": waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}), "a": waybill.NewTags(waybill.Tag{Key: "team", Value: "ads"})}

func (f facts) Usage(_ context.Context, p waybill.Period) ([]waybill.UsageTotal, map[string]waybill.Tags, error) {
	var cells []waybill.UsageTotal
	for _, c := range f.cells {
		if p.Contains(c.Hour.Start()) {
			cells = append(cells, c)
		}
	}
	return cells, sets, nil
}

func (f facts) Periods(context.Context) (calls, bills []waybill.Period, err error) {
	for _, c := range f.cells {
		calls = append(calls, waybill.PeriodOf(c.Hour.Start()))
	}
	slices.SortFunc(calls, func(a, b waybill.Period) int { return a.Start().Compare(b.Start()) })
	return slices.Compact(calls), nil, nil
}

func (f facts) Charges(context.Context, waybill.Period) ([]waybill.ChargeTotal, map[string]waybill.Tags, error) {
	return f.charges, nil, nil
}

const card = `model,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source
amazon.nova-lite-v1:0,*,plain,input,standard,,1000000,60,USD,2026-01-01,,x
amazon.nova-lite-v1:0,*,plain,output,standard,,1000000,240,USD,2026-01-01,,x
`

func rates(t *testing.T) *ratecard.Card {
	t.Helper()
	c, err := ratecard.Parse("rates.csv", strings.NewReader(card))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func money(t *testing.T, s string) waybill.Money {
	t.Helper()
	m, err := waybill.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const gatewayARN, strayARN = "arn:aws:sts::1:assumed-role/gw/user-17", "arn:aws:iam::1:user/stray"

func hour(day int) waybill.Hour {
	return waybill.HourOf(time.Date(2026, 10, day, 12, 0, 0, 0, time.UTC))
}

func cell(day int, set string, input int64) waybill.UsageTotal {
	return waybill.UsageTotal{Hour: hour(day), Account: "1", Region: "us-east-1", Model: "amazon.nova-lite-v1:0", ModelID: "amazon.nova-lite-v1:0", Scope: waybill.Plain, Tier: "standard",
		PrincipalARN: gatewayARN, TagSet: set, Sources: "both", Outcome: waybill.Completed, Calls: 1, Usage: waybill.NewUsage().With(waybill.Input, input)}
}

func bill(t *testing.T, day int, thousands, cost, arn string) waybill.ChargeTotal {
	t.Helper()
	q, err := waybill.ParseQuantity(thousands)
	if err != nil {
		t.Fatal(err)
	}
	return waybill.ChargeTotal{Claim: waybill.Claimed, Day: hour(day).Day(), UsageAccount: "1", Type: "Usage", ProductCode: "AmazonBedrock", UsageType: "USE1-NovaLite-input-tokens", RegionCode: "us-east-1",
		PricingUnit: "1K tokens", Currency: "USD", UnblendedRate: "0.06", UsageAmount: q, Cost: money(t, cost), Unblended: money(t, cost), Rows: 1, IAMPrincipal: arn}
}

// Each cause of a difference is found, named and valued, alone.
func TestCauses(t *testing.T) {
	last := bill(t, 31, "0", "0", gatewayARN) // the bill reaches the end of the month
	type change func(c *waybill.UsageTotal, b *waybill.ChargeTotal)
	for _, tt := range []struct {
		name   string
		change change
		more   []waybill.UsageTotal
		bill   []waybill.ChargeTotal
		want   map[Bucket]string
	}{
		{"nothing", nil, nil, nil, map[Bucket]string{}},
		{"rounding", func(_ *waybill.UsageTotal, b *waybill.ChargeTotal) {
			b.Cost = money(t, "0.06000000009")
			b.Unblended = b.Cost
		}, nil, nil, map[Bucket]string{Rounding: "0.00000000009"}},
		{"another rate", func(_ *waybill.UsageTotal, b *waybill.ChargeTotal) {
			b.Cost, b.UnblendedRate = money(t, "0.07"), "0.07"
			b.Unblended = b.Cost
		}, nil, nil, map[Bucket]string{RateDiffers: "0.01"}},
		{"a discount in the net cost", func(_ *waybill.UsageTotal, b *waybill.ChargeTotal) { b.Cost = money(t, "0.05") }, nil, nil, map[Bucket]string{Discount: "-0.01"}},
		{"another quantity", func(_ *waybill.UsageTotal, b *waybill.ChargeTotal) {
			b.UsageAmount = waybill.Count(2)
			b.Cost = money(t, "0.12")
			b.Unblended = b.Cost
		}, nil, nil, map[Bucket]string{QuantityDiffers: "0.06"}},
		{"a call whose usage is not known", func(c *waybill.UsageTotal, b *waybill.ChargeTotal) {
			c.Calls, c.Unknown = 2, 1
			b.UsageAmount = waybill.Count(2)
			b.Cost = money(t, "0.12")
			b.Unblended = b.Cost
		}, nil, nil, map[Bucket]string{UsageUnknown: "0.06"}},
		{"no price", func(c *waybill.UsageTotal, b *waybill.ChargeTotal) {
			c.Tier = "priority"
			b.UsageType += "-priority"
			b.Cost = money(t, "0.105")
			b.Unblended = b.Cost
		}, nil, nil, map[Bucket]string{Unpriced: "0.105"}},
		{"a call on the other side of midnight", func(_ *waybill.UsageTotal, b *waybill.ChargeTotal) { b.Day++ }, nil, nil, map[Bucket]string{}},
		{"a call that went round the gateway", nil,
			[]waybill.UsageTotal{func() waybill.UsageTotal {
				c := cell(3, "", 1000)
				c.Sources, c.PrincipalARN = "log", strayARN
				return c
			}()},
			[]waybill.ChargeTotal{bill(t, 3, "1", "0.06", strayARN)}, map[Bucket]string{Bypass: "0.06"}},
		{"a principal that no log knows", nil, nil, []waybill.ChargeTotal{bill(t, 3, "1", "0.06", strayARN)}, map[Bucket]string{Bypass: "0.06"}},
		{"a Region that nobody logs", nil, nil, []waybill.ChargeTotal{func() waybill.ChargeTotal {
			c := bill(t, 3, "1", "0.06", strayARN)
			c.RegionCode = "eu-west-1"
			return c
		}()}, map[Bucket]string{NotLogged: "0.06"}},
		{"tax and credit", nil, nil, []waybill.ChargeTotal{{Claim: waybill.Claimed, Type: "Tax", Cost: money(t, "3"), Rows: 1}, {Claim: waybill.Claimed, Type: "Credit", Cost: money(t, "-1"), Rows: 1}}, map[Bucket]string{Tax: "3", Credit: "-1"}},
		{"a model nobody knows", nil, nil, []waybill.ChargeTotal{func() waybill.ChargeTotal {
			c := bill(t, 3, "1", "0.06", gatewayARN)
			c.UsageType = "USE1-Mystery9-input-tokens"
			return c
		}()}, map[Bucket]string{ModelUnmapped: "0.06"}},
		{"words nobody knows", nil, nil, []waybill.ChargeTotal{func() waybill.ChargeTotal {
			c := bill(t, 3, "1", "0.06", gatewayARN)
			c.UsageType += "-sideways"
			return c
		}()}, map[Bucket]string{Unparsed: "0.06"}},
		{"a unit nobody knows", nil, nil, []waybill.ChargeTotal{func() waybill.ChargeTotal {
			c := bill(t, 3, "1", "0.06", gatewayARN)
			c.PricingUnit = "bushel"
			return c
		}()}, map[Bucket]string{UnitUnknown: "0.06"}},
		{"batch", nil, nil, []waybill.ChargeTotal{func() waybill.ChargeTotal {
			c := bill(t, 3, "1", "0.03", gatewayARN)
			c.UsageType += "-batch"
			return c
		}()}, map[Bucket]string{Batch: "0.03"}},
		{"nothing billed", func(_ *waybill.UsageTotal, b *waybill.ChargeTotal) {
			b.UsageAmount, b.Cost, b.Unblended = waybill.Quantity{}, waybill.Money{}, waybill.Money{}
		}, nil, nil, map[Bucket]string{QuantityDiffers: "-0.06"}},
	} {
		c, b := cell(2, "s", 1000), bill(t, 2, "1", "0.06", gatewayARN)
		if tt.change != nil {
			tt.change(&c, &b)
		}
		f := facts{append([]waybill.UsageTotal{c}, tt.more...), append([]waybill.ChargeTotal{b, last}, tt.bill...)}
		r, err := Reconcile(t.Context(), f, rates(t), october)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[Bucket]string)
		for _, b := range r.Buckets {
			got[b.Bucket] = b.Amount.String()
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		sums(t, tt.name, f, r)
	}
}

// A bill that has not reached the end of its month explains the last days by timing.
func TestNotSettled(t *testing.T) {
	f := facts{[]waybill.UsageTotal{cell(2, "s", 1000), cell(9, "s", 5000)}, []waybill.ChargeTotal{bill(t, 2, "1", "0.06", gatewayARN), bill(t, 9, "2", "0.12", gatewayARN)}}
	r, err := Reconcile(t.Context(), f, rates(t), october)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Buckets) != 1 || r.Buckets[0].Bucket != Timing || r.Buckets[0].Amount.String() != "-0.18" || r.SettledThrough.String() != "2026-10-07" {
		t.Errorf("buckets %v, settled through %s", r.Buckets, r.SettledThrough)
	}
	sums(t, "not settled", f, r)
}

// sums holds a reconciliation and its reports to what must add up.
func sums(t *testing.T, name string, f facts, r *Reconciliation) {
	t.Helper()
	var buckets, keys waybill.Money
	for _, b := range r.Buckets {
		buckets = buckets.Add(b.Amount)
	}
	for i := range r.Keys {
		k := &r.Keys[i]
		keys = keys.Add(k.Variance())
		if parts := k.Quantity.Add(k.Rate).Add(k.Timing).Add(k.Rounding).Add(k.Unmatched); parts.Cmp(k.Variance()) != 0 {
			t.Errorf("%s: the parts of %s %s are %s, its variance %s", name, k.Model, k.UsageType, parts, k.Variance())
		}
	}
	if buckets.Cmp(r.Variance) != 0 || keys.Cmp(r.Variance) != 0 {
		t.Errorf("%s: buckets %s, keys %s, variance %s", name, buckets, keys, r.Variance)
	}
	for _, basis := range []Basis{Calibrated, Invoice} {
		s, err := Report(t.Context(), f, rates(t), ReportOptions{Period: october, Basis: basis, By: []string{"team", "usage_type"}})
		if err != nil {
			t.Fatal(err)
		}
		sum := s.Unattributed
		for _, r := range s.Rows {
			sum = sum.Add(r.Cost)
		}
		if sum.Cmp(s.Billed) != 0 || s.Total.Cmp(s.Billed) != 0 {
			t.Errorf("%s, %s: rows and buckets are %s, total %s, billed %s", name, basis, sum, s.Total, s.Billed)
		}
	}
}

// Whatever the facts, everything adds up, exactly.
func TestEverythingAddsUp(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for round := range 300 {
		f := randomFacts(t, r)
		rec, err := Reconcile(t.Context(), f, rates(t), october)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.cells) > 0 {
			sums(t, fmt.Sprint("round ", round), f, rec)
		}
	}
}

// randomFacts are an October that nobody would have thought of.
func randomFacts(t *testing.T, r *rand.Rand) facts {
	t.Helper()
	var f facts
	for range r.IntN(30) {
		c := cell(1+r.IntN(31), []string{"s", "a", ""}[r.IntN(3)], r.Int64N(100_000))
		c.Sources = []string{"both", "gateway", "log"}[r.IntN(3)]
		c.PrincipalARN = []string{gatewayARN, strayARN, ""}[r.IntN(3)]
		c.Tier = []string{"standard", "priority"}[r.IntN(2)]
		c.Calls, c.Unknown = 1+r.Int64N(5), r.Int64N(2)
		c.Usage.Set(waybill.Output, r.Int64N(1000))
		c.Region = []string{"us-east-1", "eu-west-1"}[r.IntN(2)]
		f.cells = append(f.cells, c)
	}
	for range 1 + r.IntN(30) {
		c := bill(t, 1+r.IntN(31), fmt.Sprintf("%d.%03d", r.IntN(100), r.IntN(1000)), fmt.Sprintf("%d.%010d", r.IntN(10)-2, r.IntN(1_000_000_000)), []string{gatewayARN, strayARN, "", "arn:other"}[r.IntN(4)])
		if strings.HasPrefix(c.Cost.String(), "-") {
			c.UsageAmount = waybill.Quantity{}
		}
		c.UsageType = []string{"USE1-NovaLite-input-tokens", "USE1-NovaLite-output-tokens", "USE1-NovaLite-input-tokens-priority", "USE1-What-Ever", "USE1-Guardrail-TopicPolicyUnitsConsumed"}[r.IntN(5)]
		c.Type = []string{"Usage", "Usage", "Usage", "Tax", "EdpDiscount"}[r.IntN(5)]
		c.UnblendedRate = []string{"0.06", "", "0.24"}[r.IntN(3)]
		if r.IntN(4) == 0 {
			c.Unblended = c.Cost.Add(c.Cost)
		}
		f.charges = append(f.charges, c)
	}
	return f
}

// Reports say on which basis they are, and never mix currencies.
func TestBasis(t *testing.T) {
	calls, billed := []waybill.UsageTotal{cell(2, "s", 1000)}, []waybill.ChargeTotal{bill(t, 2, "1", "0.06", gatewayARN)}
	for _, tt := range []struct {
		f    facts
		ask  Basis
		want Basis
		err  string
	}{
		{facts{calls, billed}, "", Calibrated, ""}, {facts{calls, nil}, "", Estimate, ""}, {facts{nil, billed}, "", Invoice, ""},
		{facts{calls, billed}, Estimate, Estimate, ""}, {facts{calls, nil}, Calibrated, "", "needs a bill"}, {facts{nil, billed}, Calibrated, "", "needs calls"},
		{facts{}, "", "", "neither calls nor a bill"}, {facts{calls, billed}, "guess", "", "not estimate"},
	} {
		s, err := Report(t.Context(), tt.f, rates(t), ReportOptions{Period: october, Basis: tt.ask, By: []string{"team"}})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("asked for %q: %v, want %q", tt.ask, err, tt.err)
			}
			continue
		}
		if err != nil || s.Basis != tt.want || s.Reason == "" {
			t.Errorf("asked for %q: %v %v", tt.ask, s, err)
		}
	}
	mixed := slices.Clone(billed)
	mixed = append(mixed, func() waybill.ChargeTotal { c := billed[0]; c.Currency = "EUR"; return c }())
	if _, err := Report(t.Context(), facts{calls, mixed}, rates(t), ReportOptions{Period: october}); err == nil || !strings.Contains(err.Error(), "does not add currencies") {
		t.Errorf("two currencies: %v", err)
	}
}

// Usage that is not known and usage without a price are states, not zero dollars.
func TestUnknownAndUnpriced(t *testing.T) {
	unknown := cell(2, "s", 0)
	unknown.Calls, unknown.Unknown, unknown.Usage = 3, 3, waybill.NewUsage()
	unpriced := cell(2, "a", 500)
	unpriced.Tier = "priority"
	s, err := Report(t.Context(), facts{[]waybill.UsageTotal{unknown, unpriced}, nil}, rates(t), ReportOptions{Period: october, By: []string{"team"}})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]Row)
	for _, r := range s.Rows {
		got[r.Keys[0].Text] = r
	}
	if r := got["search"]; r.Calls != 3 || r.Unknown != 3 || r.Unpriced != 0 {
		t.Errorf("search: %+v", r)
	}
	if r := got["ads"]; r.Calls != 1 || r.Unknown != 0 || r.Unpriced != 1 || r.Usage.Of(waybill.Input) != 500 {
		t.Errorf("ads: %+v", r)
	}
}
