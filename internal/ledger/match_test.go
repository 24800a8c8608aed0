package ledger

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// stray is a call in the log that neither passed the gateway nor carries a tag.
func stray(day int, input int64) waybill.UsageTotal {
	c := cell(day, "", input)
	c.Sources, c.PrincipalARN = "log", strayARN
	return c
}

// reconciled are the buckets of a reconciliation that adds up.
func reconciled(t *testing.T, name string, f facts) map[Bucket]string {
	t.Helper()
	r, err := Reconcile(t.Context(), f, rates(t), october)
	if err != nil {
		t.Fatal(err)
	}
	sums(t, name, f, r)
	got := make(map[Bucket]string)
	for _, b := range r.Buckets {
		got[b.Bucket] = b.Amount.String()
	}
	return got
}

// Calls that went round the gateway bear what the bill charges to nobody by name, and
// nothing of what it charges to others. The differences of the rest are those of our
// calls alone: what the others' calls have taken is not explained a second time.
func TestWhoBearsWhat(t *testing.T) {
	last := bill(t, 31, "0", "0", gatewayARN) // the bill reaches the end of the month
	discounted := func(c waybill.ChargeTotal, cost string) waybill.ChargeTotal { c.Cost = money(t, cost); return c }
	there := func(c waybill.UsageTotal) waybill.UsageTotal {
		c.Endpoint, c.Sources = waybill.Mantle, "gateway"
		return c
	}
	mantle := func(c waybill.ChargeTotal) waybill.ChargeTotal {
		c.UsageType = "USE1-amazon.nova-lite-v1:0-mantle-input-tokens-standard"
		return c
	}
	for _, tt := range []struct {
		name  string
		cells []waybill.UsageTotal
		bill  []waybill.ChargeTotal
		want  map[Bucket]string
		ours  string // dollars of our calls, calibrated
	}{
		{"nobody is named", []waybill.UsageTotal{cell(2, "s", 3000), stray(2, 1000)},
			[]waybill.ChargeTotal{bill(t, 2, "4", "0.24", "")}, map[Bucket]string{Bypass: "0.06"}, "0.18"},
		{"nobody is named, and the bill counts a tenth more", []waybill.UsageTotal{cell(2, "s", 3000), stray(2, 1000)},
			[]waybill.ChargeTotal{bill(t, 2, "4.4", "0.264", "")}, map[Bucket]string{Bypass: "0.066", QuantityDiffers: "0.018"}, "0.198"},
		{"nobody is named, and none of the calls is ours", []waybill.UsageTotal{cell(2, "s", 0), stray(2, 1000)},
			[]waybill.ChargeTotal{bill(t, 2, "2", "0.12", "")}, map[Bucket]string{Bypass: "0.12"}, "0"},
		{"nobody is named, and there is a discount", []waybill.UsageTotal{cell(2, "s", 3000), stray(2, 1000)},
			[]waybill.ChargeTotal{discounted(bill(t, 2, "4", "0.24", ""), "0.2")}, map[Bucket]string{Bypass: "0.05", Discount: "-0.03"}, "0.15"},
		{"all are named", []waybill.UsageTotal{cell(2, "s", 3000), stray(2, 1000)},
			[]waybill.ChargeTotal{bill(t, 2, "3", "0.18", gatewayARN), bill(t, 2, "1", "0.06", strayARN)}, map[Bucket]string{Bypass: "0.06"}, "0.18"},
		{"a row has no name: what is charged to us by name stays ours", []waybill.UsageTotal{cell(2, "s", 3000), stray(2, 1000)},
			[]waybill.ChargeTotal{bill(t, 2, "3", "0.18", gatewayARN), bill(t, 2, "1", "0.06", strayARN), bill(t, 2, "0", "0", "")}, map[Bucket]string{Bypass: "0.06"}, "0.18"},
		{"we are named, the others are not", []waybill.UsageTotal{cell(2, "s", 3000), stray(2, 3000)},
			[]waybill.ChargeTotal{bill(t, 2, "3", "0.18", gatewayARN), bill(t, 2, "3", "0.18", "")}, map[Bucket]string{Bypass: "0.18"}, "0.18"},
		{"one principal, through the gateway and round it", []waybill.UsageTotal{cell(2, "s", 3000), func() waybill.UsageTotal { c := stray(2, 1000); c.PrincipalARN = gatewayARN; return c }()},
			[]waybill.ChargeTotal{bill(t, 2, "4", "0.24", gatewayARN)}, map[Bucket]string{Bypass: "0.06"}, "0.18"},
		{"no log tells of mantle, so no call in it was there", []waybill.UsageTotal{there(cell(2, "s", 3000)), stray(2, 1000)},
			[]waybill.ChargeTotal{mantle(bill(t, 2, "3", "0.18", "")), bill(t, 2, "1", "0.06", strayARN)}, map[Bucket]string{Bypass: "0.06"}, "0.18"},
		{"none of our calls was at mantle", []waybill.UsageTotal{cell(2, "s", 3000)},
			[]waybill.ChargeTotal{bill(t, 2, "3", "0.18", gatewayARN), mantle(bill(t, 2, "1", "0.06", "")), mantle(bill(t, 2, "2", "0.12", gatewayARN))}, map[Bucket]string{MantleUnseen: "0.18"}, "0.18"},
	} {
		f := facts{tt.cells, append(tt.bill, last)}
		if got := reconciled(t, tt.name, f); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		s, err := Report(t.Context(), f, rates(t), ReportOptions{Period: october, Basis: Calibrated, By: []string{"team"}})
		if err != nil {
			t.Fatal(err)
		}
		var ours waybill.Money
		for _, r := range s.Rows {
			ours = ours.Add(r.Cost)
		}
		if ours.String() != tt.ours {
			t.Errorf("%s: our calls bear %s, want %s", tt.name, ours, tt.ours)
		}
	}
}

// A bill that charges every call what it costs leaves nothing to explain, whichever
// principals it names: our calls bear what they cost, and the others what they cost.
func TestExactBillLeavesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	arns := []string{gatewayARN, gatewayARN + "2", strayARN, strayARN + "2", strayARN + "3"}
	for round := range 150 {
		f := facts{charges: []waybill.ChargeTotal{bill(t, 31, "0", "0", gatewayARN)}}
		named := make(map[string]bool)
		for _, arn := range arns {
			named[arn] = r.IntN(2) == 0
		}
		var ours, others waybill.Money
		for range 1 + r.IntN(20) {
			day, n := 1+r.IntN(28), 1+r.Int64N(9)
			c := cell(day, "s", 1000*n)
			cost := money(t, fmt.Sprintf("%d.%02d", 6*n/100, 6*n%100))
			if c.PrincipalARN = arns[r.IntN(len(arns))]; strings.HasPrefix(c.PrincipalARN, strayARN) || r.IntN(5) == 0 {
				c.Sources, c.TagSet = "log", ""
				others = others.Add(cost)
			} else {
				ours = ours.Add(cost)
			}
			f.cells = append(f.cells, c)
			arn := c.PrincipalARN
			if !named[arn] {
				arn = ""
			}
			f.charges = append(f.charges, bill(t, day, fmt.Sprint(n), cost.String(), arn))
		}
		if ours.IsZero() {
			continue // without a call of the gateway there is nothing to go round
		}
		name := fmt.Sprintf("round %d, named %v", round, named)
		got := reconciled(t, name, f)
		if !near(t, got[Bypass], others) {
			t.Errorf("%s: %v, want bypass %s", name, got, others)
		}
		for b, amount := range got {
			if b != Bypass && !near(t, amount, waybill.Money{}) {
				t.Errorf("%s: %s of %s", name, amount, b)
			}
		}
	}
}

// near reports whether an amount is another but for what dividing leaves over.
func near(t *testing.T, amount string, want waybill.Money) bool {
	t.Helper()
	return money(t, cmp.Or(amount, "0")).Sub(want).Abs().Cmp(money(t, "0.000000000000001")) < 0
}

// Amounts of two currencies are never one figure: other services may be billed in another
// than Bedrock, and the bill in another than the rate card.
func TestCurrenciesStayApart(t *testing.T) {
	other := func(currency, cost string) waybill.ChargeTotal {
		return waybill.ChargeTotal{Claim: waybill.NotClaimed, Type: "Usage", ProductCode: "AmazonS3", Currency: currency, Cost: money(t, cost), Rows: 1}
	}
	calls := []waybill.UsageTotal{cell(2, "s", 1000)}
	dollars := facts{calls, []waybill.ChargeTotal{bill(t, 2, "1", "0.06", gatewayARN), other("USD", "5"), other("EUR", "7"), other("", "1")}}
	s, err := Report(t.Context(), dollars, rates(t), ReportOptions{Period: october, By: []string{"team"}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Reconcile(t.Context(), dollars, rates(t), october)
	if err != nil {
		t.Fatal(err)
	}
	if s.NotClaimed.String() != "6" || fmt.Sprint(s.NotClaimedElse) != "map[EUR:7]" || r.NotClaimed.String() != "6" || fmt.Sprint(r.NotClaimedElse) != "map[EUR:7]" || r.NotClaimedRows != 3 {
		t.Errorf("not claimed are %s and %v, %s and %v, %d rows; want 6 and EUR 7, 3 rows", s.NotClaimed, s.NotClaimedElse, r.NotClaimed, r.NotClaimedElse, r.NotClaimedRows)
	}

	rupees := facts{calls, []waybill.ChargeTotal{func() waybill.ChargeTotal {
		c := bill(t, 2, "1", "5.1", gatewayARN)
		c.Currency = "INR"
		return c
	}()}}
	if r, err := Reconcile(t.Context(), rupees, rates(t), october); err == nil || !strings.Contains(err.Error(), "in INR and the rate card in USD") {
		t.Errorf("a bill in rupees against a rate card in dollars: %+v, %v", r, err)
	}
	for basis, want := range map[Basis]string{Calibrated: "5.1 INR, billed 5.1 true", Invoice: "5.1 INR, billed 5.1 true", Estimate: "0.06 USD, billed 0 false"} {
		s, err := Report(t.Context(), rupees, rates(t), ReportOptions{Period: october, Basis: basis, By: []string{"team"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %s, billed %s %v", s.Total, s.Currency, s.Billed, s.HasBill); got != want {
			t.Errorf("%s: %s, want %s", basis, got, want)
		}
	}
}

// A bill that tells no days, such as one by the month, is set against the calls of the
// whole month: none of it is taken as not settled, and a report by day has no day for it.
func TestBillWithoutDays(t *testing.T) {
	undated := func(thousands, cost string) waybill.ChargeTotal {
		c := bill(t, 1, thousands, cost, gatewayARN)
		c.Day = 0
		return c
	}
	cells := []waybill.UsageTotal{cell(2, "s", 1000), cell(20, "s", 2000), cell(30, "s", 3000)}
	for _, tt := range []struct {
		thousands, cost string
		want            map[Bucket]string
	}{
		{"6", "0.36", map[Bucket]string{}},
		{"5", "0.3", map[Bucket]string{QuantityDiffers: "-0.06"}},
		{"6", "0.42", map[Bucket]string{RateDiffers: "0.06"}},
	} {
		f := facts{cells, []waybill.ChargeTotal{undated(tt.thousands, tt.cost)}}
		if got := reconciled(t, tt.cost, f); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s thousand for %s: %v, want %v", tt.thousands, tt.cost, got, tt.want)
		}
	}
	f := taggedCharges{facts{cells, []waybill.ChargeTotal{undated("6", "0.36")}}}
	f.charges[0].TagSet = "p"
	r, err := Reconcile(t.Context(), f, rates(t), october)
	if err != nil {
		t.Fatal(err)
	}
	if r.SettledThrough.String() != "2026-10-31" {
		t.Errorf("settled through %s", r.SettledThrough)
	}
	var asked waybill.Day
	s, err := Report(t.Context(), f, rates(t), ReportOptions{Period: october, Basis: Invoice, By: []string{"day", "team"},
		Rename: func(_, value string, day waybill.Day) string { asked = day; return value }})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 1 || s.Rows[0].Keys[0].Present || s.Rows[0].Cost.String() != "0.36" {
		t.Errorf("by day: %+v", s.Rows)
	}
	if asked.String() != "2026-10-01" { // a reorganisation before the month has been, one in it has not
		t.Errorf("its tags are those of %s", asked)
	}
}

// A day on which the bill has usage and there is no call is valued at the price of the
// key's calls where the rate card has none for the key as such: a price for geographic
// profiles alone is one.
func TestQuantityOnADayWithoutCalls(t *testing.T) {
	prices, err := ratecard.Parse("rates.csv", strings.NewReader(strings.ReplaceAll(card, ",plain,", ",geo,")))
	if err != nil {
		t.Fatal(err)
	}
	c := cell(2, "s", 1000)
	c.Scope, c.ModelID = waybill.Geo, "us.amazon.nova-lite-v1:0"
	f := facts{[]waybill.UsageTotal{c}, []waybill.ChargeTotal{bill(t, 2, "1", "0.06", gatewayARN), bill(t, 9, "1", "0.06", gatewayARN), bill(t, 31, "0", "0", gatewayARN)}}
	r, err := Reconcile(t.Context(), f, prices, october)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Buckets) != 1 || r.Buckets[0].Bucket != QuantityDiffers || r.Buckets[0].Amount.String() != "0.06" {
		t.Errorf("%v, want quantity of 0.06", r.Buckets)
	}
}
