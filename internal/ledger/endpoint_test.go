package ledger

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// prices is the rate card of these tests with lines of one's own.
func prices(t *testing.T, lines ...string) *ratecard.Card {
	t.Helper()
	c, err := ratecard.Parse("rates.csv", strings.NewReader(card+strings.Join(lines, "\n")+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// onMantle is a call on bedrock-mantle, where models have bare ids.
func onMantle(day int, set, model string, input int64) waybill.UsageTotal {
	c := cell(day, set, input)
	c.Model, c.ModelID, c.Endpoint, c.Sources = model, waybill.ModelID(model), waybill.Mantle, "gateway"
	return c
}

func chargedAs(c waybill.ChargeTotal, usageType string) waybill.ChargeTotal {
	c.UsageType = usageType
	return c
}

// onMarketplace is a charge that names its model in the product alone.
func onMarketplace(c waybill.ChargeTotal, model string) waybill.ChargeTotal {
	c.UsageType, c.ProductModel, c.ProductCode, c.BillingEntity = "USE1-MP:USE1_InputTokenCount-Units", model, "opaque", "AWS Marketplace"
	return c
}

// borne are the calibrated dollars by endpoint and team, and those of nobody.
func borne(t *testing.T, f facts, card *ratecard.Card) map[string]string {
	t.Helper()
	s, err := Report(t.Context(), f, card, ReportOptions{Period: october, Basis: Calibrated, By: []string{"endpoint", "team"}})
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, r := range s.Rows {
		if !r.Cost.IsZero() {
			out[r.Keys[0].Text+" "+r.Keys[1].Text] = r.Cost.String()
		}
	}
	for _, b := range s.Buckets {
		out[string(b.Bucket)] = b.Amount.String()
	}
	return out
}

// Dollars of one endpoint never go to calls on the other, as long as the bill tells them
// apart.
func TestEndpointsBearTheirOwn(t *testing.T) {
	const opus, lite = "anthropic.claude-opus-5", "amazon.nova-lite-v1:0"
	opusPrice := opus + ",*,plain,input,standard,,1000000,60,USD,2026-01-01,,x"
	onRuntime := func(day int, set, model string, input int64) waybill.UsageTotal {
		c := cell(day, set, input)
		c.Model, c.ModelID, c.Endpoint = model, waybill.ModelID(model), waybill.Runtime
		return c
	}
	mantleType := func(model string) string { return "USE1-" + model + "-mantle-input-tokens-standard" }
	for _, tt := range []struct {
		name  string
		cells []waybill.UsageTotal
		bill  []waybill.ChargeTotal
		want  map[string]string
	}{
		{"each has its own usage type", []waybill.UsageTotal{onRuntime(2, "s", lite, 1000), onMantle(2, "a", lite, 1000)},
			[]waybill.ChargeTotal{bill(t, 2, "1", "0.06", ""), chargedAs(bill(t, 2, "1", "0.9", ""), mantleType(lite))},
			map[string]string{"bedrock-runtime search": "0.06", "bedrock-mantle ads": "0.9"}},
		{"a call on mantle, and charges of runtime alone", []waybill.UsageTotal{onMantle(2, "a", lite, 1000)},
			[]waybill.ChargeTotal{bill(t, 2, "1", "0.06", "")},
			map[string]string{"not_logged": "0.06"}},
		{"a call on runtime, and charges of mantle alone", []waybill.UsageTotal{onRuntime(2, "s", lite, 1000)},
			[]waybill.ChargeTotal{chargedAs(bill(t, 2, "1", "0.9", gatewayARN), mantleType(lite))},
			map[string]string{"mantle_unseen": "0.9"}},
		{"the Marketplace tells of neither: both bear it", []waybill.UsageTotal{onRuntime(2, "s", opus, 1000), onMantle(2, "a", opus, 3000)},
			[]waybill.ChargeTotal{onMarketplace(bill(t, 2, "4", "0.24", ""), "Claude Opus 5")},
			map[string]string{"bedrock-runtime search": "0.06", "bedrock-mantle ads": "0.18"}},
		{"the Marketplace beside charges of mantle is of runtime", []waybill.UsageTotal{onRuntime(2, "s", opus, 1000), onMantle(2, "a", opus, 3000)},
			[]waybill.ChargeTotal{onMarketplace(bill(t, 2, "1", "0.06", ""), "Claude Opus 5"), chargedAs(bill(t, 2, "3", "0.3", ""), mantleType(opus))},
			map[string]string{"bedrock-runtime search": "0.06", "bedrock-mantle ads": "0.3"}},
		{"the Marketplace names a model that has another id on mantle", []waybill.UsageTotal{onRuntime(2, "s", "anthropic.claude-haiku-4-5-20251001-v1:0", 1000), onMantle(2, "a", "anthropic.claude-haiku-4-5", 3000)},
			[]waybill.ChargeTotal{onMarketplace(bill(t, 2, "4", "0.24", ""), "Claude Haiku 4.5")},
			map[string]string{"bedrock-runtime search": "0.06", "bedrock-mantle ads": "0.18"}},
		{"mantle is charged as global, which no call there says", []waybill.UsageTotal{onMantle(2, "a", opus, 1000)},
			[]waybill.ChargeTotal{chargedAs(bill(t, 2, "1", "0.05", ""), "USE1-"+opus+"-mantle-input-tokens-global-standard")},
			map[string]string{"bedrock-mantle ads": "0.05"}},
		{"calls on mantle that do say that they are global", []waybill.UsageTotal{onMantle(2, "s", opus, 1000), func() waybill.UsageTotal { c := onMantle(2, "a", opus, 1000); c.Scope = waybill.Global; return c }()},
			[]waybill.ChargeTotal{chargedAs(bill(t, 2, "1", "0.06", ""), mantleType(opus)), chargedAs(bill(t, 2, "1", "0.05", ""), "USE1-"+opus+"-mantle-input-tokens-global-standard")},
			map[string]string{"bedrock-mantle search": "0.06", "bedrock-mantle ads": "0.05"}},
	} {
		f := facts{tt.cells, append(tt.bill, bill(t, 31, "0", "0", ""))}
		if got := borne(t, f, prices(t, opusPrice)); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Whatever the facts, the dollars of calls on an endpoint and of the keys of that endpoint
// are within what the bill charges there.
func TestNoDollarCrossesEndpoints(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for round := range 100 {
		f := randomFacts(t, r)
		var there, everywhere waybill.Money
		for i := range f.cells {
			if r.IntN(2) == 0 {
				f.cells[i].Endpoint, f.cells[i].Sources = waybill.Mantle, "gateway"
			}
		}
		for i := range f.charges {
			c := &f.charges[i]
			if c.Type == "Usage" && c.UsageType == "USE1-NovaLite-input-tokens" && r.IntN(2) == 0 {
				c.UsageType = "USE1-amazon.nova-lite-v1:0-mantle-input-tokens-standard"
				there = there.Add(c.Cost)
			}
			everywhere = everywhere.Add(c.Cost)
		}
		if len(f.cells) == 0 {
			continue
		}
		rec, err := Reconcile(t.Context(), f, rates(t), october)
		if err != nil {
			t.Fatal(err)
		}
		sums(t, fmt.Sprint("round ", round), f, rec)
		var billed waybill.Money
		for i := range rec.Keys {
			if rec.Keys[i].Endpoint == waybill.Mantle {
				billed = billed.Add(rec.Keys[i].Billed)
			}
		}
		if billed.Cmp(there) != 0 || rec.Billed.Cmp(everywhere) != 0 {
			t.Errorf("round %d: keys of bedrock-mantle are billed %s of %s; the bill has %s of %s", round, billed, rec.Billed, there, everywhere)
		}
		a, err := open(t.Context(), f, rates(t), october)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range a.keys {
			for _, h := range append(k.shares, k.bypass...) {
				if e := a.cells[h.cell].Endpoint; (e == waybill.Mantle) != (k.key.Endpoint == waybill.Mantle) {
					t.Errorf("round %d: a call on %q bears charges of %q", round, e, k.key.Endpoint)
				}
			}
		}
	}
}

// A price is of the id it names. Another id of the same model, on the other endpoint, has
// usage types of its own: calls there are unpriced, and it is said which line is missing.
func TestPriceOfAnotherEndpointIsNotTaken(t *testing.T) {
	const runtime, mantle = "openai.gpt-oss-20b-1:0", "openai.gpt-oss-20b"
	runtimePrice, mantlePrice := runtime+",*,plain,input,standard,,1000000,70,USD,2026-01-01,,x", mantle+",*,plain,input,standard,,1000000,75,USD,2026-01-01,,x"
	there := onMantle(2, "s", mantle, 1000)
	here := cell(2, "s", 1000)
	here.Model, here.ModelID, here.Endpoint = runtime, runtime, waybill.Runtime
	charge := chargedAs(bill(t, 2, "1", "0.075", ""), "USE1-"+mantle+"-mantle-input-tokens-standard")
	for _, tt := range []struct {
		name    string
		cells   []waybill.UsageTotal
		card    *ratecard.Card
		metered string
		missing string
	}{
		{"both prices", []waybill.UsageTotal{there, here}, prices(t, runtimePrice, mantlePrice), "0.145", "[]"},
		{"the other's alone", []waybill.UsageTotal{there, here}, prices(t, runtimePrice), "0.07",
			"[openai.gpt-oss-20b input, us-east-1, plain, standard, bedrock-mantle, usage type USE1-openai.gpt-oss-20b-mantle-input-tokens-standard: the card has a price of openai.gpt-oss-20b-1:0, which is charged as another usage type; if they cost the same, say so in a line of its own]"},
		{"mantle's alone", []waybill.UsageTotal{there, here}, prices(t, mantlePrice), "0.075",
			"[openai.gpt-oss-20b-1:0 input, us-east-1, plain, standard: the card has a price of openai.gpt-oss-20b, which is charged as another usage type; if they cost the same, say so in a line of its own]"},
		{"none", []waybill.UsageTotal{there}, prices(t), "0", "[openai.gpt-oss-20b input, us-east-1, plain, standard, bedrock-mantle, usage type USE1-openai.gpt-oss-20b-mantle-input-tokens-standard]"},
	} {
		f := facts{tt.cells, []waybill.ChargeTotal{charge, bill(t, 31, "0", "0", "")}}
		r, err := Reconcile(t.Context(), f, tt.card, october)
		if err != nil {
			t.Fatal(err)
		}
		if r.Metered.String() != tt.metered || fmt.Sprint(r.MissingPrices) != tt.missing {
			t.Errorf("%s: metered %s, missing\n%s\nwant %s,\n%s", tt.name, r.Metered, r.MissingPrices, tt.metered, tt.missing)
		}
	}
}
