package main

import (
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

// An estimate goes by the model, the Region, the scope, the tier and the day of a call,
// and is exact. A call that has a part without a price has none.
func TestPrices(t *testing.T) {
	p, err := readPrices("rates.csv", []byte(`model,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source
anthropic.claude-x,*,regional,input,,,1000000,3.30,USD,2026-01-01,,
anthropic.claude-x,*,regional,output,,,1000000,16.50,USD,2026-01-01,,
anthropic.claude-x,*,global,input,,,1000000,3.00,USD,2026-01-01,,
anthropic.claude-x,eu-west-1,regional,input,flex,,1000000,1.65,USD,2026-01-01,,
anthropic.claude-x,*,regional,input,,> 200000,1000000,6.60,USD,2026-01-01,,
openai.gpt-oss-20b-1:0,*,regional,input,,,1000000,70,USD,2026-01-01,,
`))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		call  waybill.Invocation
		cost  string
		ok    bool
		knows bool
	}{
		{"plain", waybill.Invocation{Model: "anthropic.claude-x", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 1000).With(waybill.Output, 7)}, "0.0034155", true, true},
		{"global", waybill.Invocation{Model: "anthropic.claude-x", Region: "us-east-1", Scope: waybill.Global, StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 1)}, "0.000003", true, true},
		{"flex", waybill.Invocation{Model: "anthropic.claude-x", Region: "eu-west-1", Scope: waybill.Plain, Tier: "flex", StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 2)}, "0.0000033", true, true},
		{"long context", waybill.Invocation{Model: "anthropic.claude-x", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 200_001)}, "1.3200066", true, true},
		{"nothing used", waybill.Invocation{Model: "anthropic.claude-x", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at, Usage: waybill.NewUsage()}, "0", true, true},
		{"a kind without a price", waybill.Invocation{Model: "anthropic.claude-x", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 1).With(waybill.CacheRead, 1)}, "0", false, true},
		{"before the card", waybill.Invocation{Model: "anthropic.claude-x", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at.AddDate(-1, 0, 0), Usage: waybill.NewUsage().With(waybill.Input, 1)}, "0", false, false},
		{"another model", waybill.Invocation{Model: "abcdef123456", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 1)}, "0", false, false},
		{"a display name", waybill.Invocation{Model: "gpt-oss-20b", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 1000)}, "0.07", true, true},
		{"the id on the other endpoint", waybill.Invocation{Endpoint: waybill.Mantle, Model: "openai.gpt-oss-20b", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at, Usage: waybill.NewUsage().With(waybill.Input, 1)}, "0", false, false},
		{"usage not known", waybill.Invocation{Model: "anthropic.claude-x", Region: "us-east-1", Scope: waybill.Plain, StartedAt: at}, "0", false, true},
	} {
		cost, ok := p.Cost(&tt.call)
		if cost.String() != tt.cost || ok != tt.ok || p.Knows(&tt.call) != tt.knows {
			t.Errorf("%s: %s %v, known %v; want %s %v, %v", tt.name, cost, ok, p.Knows(&tt.call), tt.cost, tt.ok, tt.knows)
		}
	}
}
