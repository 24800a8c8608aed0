package demo

import (
	"fmt"
	"math/big"
	"path/filepath"
	"time"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// settle writes the month's logs and bill, and adds up what was planted.
func (p *play) settle() (*Result, error) {
	// A call whose client left is under way until the stand-in notices.
	var calls []fakeaws.Call
	for range 200 {
		calls = p.world.Calls()
		if p.allServed(calls) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	logs := fakeaws.ToDir(filepath.Join(p.o.Dir, "aws", "logs"))
	if err := fakeaws.WriteLogs(logs, calls, fakeaws.LogOptions{NoLogging: map[string]bool{regionUnlogged: true}}); err != nil {
		return nil, fmt.Errorf("write logs: %w", err)
	}
	o := fakeaws.ExportOptions{Prefix: "exports", Name: "waybill", Bucket: "demo-bill", Payer: account, Prices: p.prices(),
		Activated: map[string]bool{"team": true, "costCenter": true}, Extra: otherServices(p.o.Month)}
	planted := p.plantRows(&o)
	summary, err := fakeaws.WriteExport(fakeaws.ToDir(filepath.Join(p.o.Dir, "aws", "cur")), p.o.Month, calls, o)
	if err != nil {
		return nil, fmt.Errorf("write the bill: %w", err)
	}
	r := &Result{Bill: summary, Served: len(calls), Refused: p.refused, HungUp: len(p.hungUp)}
	if !p.o.Clean {
		r.Planted = append(planted,
			Planted{"bypass", number(summary.ByWhom[legacyUser]), "a batch job that nobody moved to the gateway"},
			Planted{"not_logged", number(summary.ByWhom[labUser]), "a notebook in " + regionUnlogged + ", where logging is off"},
			p.stalePrice(calls), p.hangUps(calls))
	}
	return r, nil
}

func (p *play) allServed(calls []fakeaws.Call) bool {
	seen := 0
	for _, c := range calls {
		if p.hungUp[c.RequestID] {
			seen++
		}
	}
	return seen == len(p.hungUp)
}

// otherServices are rows of the export that are not Bedrock's.
func otherServices(month time.Time) []fakeaws.ExtraRow {
	return []fakeaws.ExtraRow{
		{Type: "Usage", ProductCode: "AmazonEC2", UsageType: "USE1-BoxUsage:m7g.large", Description: "$0.0816 per On Demand Linux m7g.large Instance Hour", Region: regionUS, At: month, Amount: "744", Unit: "Hrs", Cost: "60.7104"},
		{Type: "Usage", ProductCode: "AmazonS3", UsageType: "USE1-TimedStorage-ByteHrs", Description: "$0.023 per GB", Region: regionUS, At: month, Amount: "120.5", Unit: "GB-Mo", Cost: "2.7715"},
		{Type: "Usage", ProductCode: "3xk9example0000000000000", Entity: "AWS Marketplace", UsageType: "MP:claude_platform-Units", Description: "Claude Platform on AWS", Region: regionUS, At: month, Amount: "1200", Unit: "Units", Cost: "12"},
	}
}

// plantRows adds rows that no call made.
func (p *play) plantRows(o *fakeaws.ExportOptions) []Planted {
	if p.o.Clean {
		return nil
	}
	family := "Amazon Bedrock"
	add := func(bucket, what string, e fakeaws.ExtraRow) Planted {
		e.At, e.Family = p.o.Month, family
		o.Extra = append(o.Extra, e)
		return Planted{bucket, number(e.Cost), what}
	}
	return []Planted{
		add("mantle_unseen", "calls to bedrock-mantle that went round the gateway", fakeaws.ExtraRow{Type: "Usage", ProductCode: "AmazonBedrockService", Region: regionUS, Principal: labUser + "-mantle",
			UsageType: "USE1-openai.gpt-oss-120b-mantle-input-tokens-standard", Amount: "1.5", Unit: "1M tokens", Cost: "0.225"}),
		add("commitment", "provisioned capacity", fakeaws.ExtraRow{Type: "Usage", ProductCode: "AmazonBedrock", Region: regionUS, UsageType: "USE1-NovaMicro-ProvisionedThroughput-NoCommit-ModelUnits", Amount: "2", Unit: "hour", Cost: "121"}),
		add("guardrail", "guardrail units", fakeaws.ExtraRow{Type: "Usage", ProductCode: "AmazonBedrock", Region: regionUS, UsageType: "USE1-Guardrail-ContentPolicyUnitsConsumed", Amount: "5200", Unit: "TextUnit", Cost: "0.78"}),
		add("tax", "tax", fakeaws.ExtraRow{Type: "Tax", ProductCode: "AmazonBedrock", Cost: "4.37"}),
		add("credit", "a promotional credit", fakeaws.ExtraRow{Type: "Credit", ProductCode: "AmazonBedrock", UsageType: "USE1-NovaLite-input-tokens", Cost: "-1.25"}),
	}
}

func number(s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return new(big.Rat)
	}
	return r
}

// stalePrice is what the price that the rate card does not know makes.
func (p *play) stalePrice(calls []fakeaws.Call) Planted {
	change := p.prices().Changes[0]
	step := new(big.Rat).Sub(number(change.Amount), number("5.50"))
	sum := new(big.Rat)
	for _, c := range calls {
		if c.BaseModel == haiku && c.Scope != "global" && c.Status == 200 && !c.At.Truncate(time.Hour).Before(change.From) {
			sum.Add(sum, new(big.Rat).Mul(step, big.NewRat(c.OutputTokens, 1_000_000)))
		}
	}
	return Planted{"rate", sum, "a price that went up on " + change.From.Format("2 January") + ", which the rate card does not know"}
}

// hangUps is what the calls cost whose end nobody saw.
func (p *play) hangUps(calls []fakeaws.Call) Planted {
	sum := new(big.Rat)
	for _, c := range calls {
		if p.hungUp[c.RequestID] {
			sum.Add(sum, new(big.Rat).Mul(number("0.06"), big.NewRat(c.InputTokens, 1_000_000)))
			sum.Add(sum, new(big.Rat).Mul(number("0.24"), big.NewRat(c.OutputTokens, 1_000_000)))
		}
	}
	return Planted{"usage_unknown", sum, "clients that hung up where no log tells the rest"}
}
