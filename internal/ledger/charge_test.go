package ledger

import (
	"fmt"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// The two endpoints may have two ids for one model. A row of bedrock-mantle names the id
// that its calls name; the display name beside it fits both.
func TestMantleRowsNameTheirModel(t *testing.T) {
	prices, err := ratecard.Parse("rates.csv", strings.NewReader(card+"amazon.nova-lite,*,plain,input,standard,,1000000,70,USD,2026-01-01,,x\n"))
	if err != nil {
		t.Fatal(err)
	}
	there := cell(2, "s", 1000)
	there.Model, there.ModelID, there.Endpoint, there.Sources = "amazon.nova-lite", "amazon.nova-lite", waybill.Mantle, "gateway"
	runtime, mantle := bill(t, 2, "1", "0.06", gatewayARN), bill(t, 31, "1", "0.07", gatewayARN)
	mantle.Day, mantle.UsageType = runtime.Day, "USE1-amazon.nova-lite-mantle-input-tokens-standard"
	runtime.ProductModel, mantle.ProductModel = "Nova Lite", "Nova Lite"
	last := bill(t, 31, "0", "0", gatewayARN)
	f := facts{[]waybill.UsageTotal{cell(2, "s", 1000), there}, []waybill.ChargeTotal{runtime, mantle, last}}
	r, err := Reconcile(t.Context(), f, prices, october)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Buckets) != 0 {
		t.Errorf("%v, want nothing to explain", r.Buckets)
	}
}

// What is counted one by one is one by one where the bill names no unit, or calls it a
// unit; only tokens come by the thousand.
func TestUnitsOfARow(t *testing.T) {
	for _, tt := range []struct {
		usageType, unit, description string
		want                         string
	}{
		{"USE1-NovaLite-input-tokens", "", "", "1000"},
		{"USE1-NovaLite-input-tokens", "1K tokens", "", "1000"},
		{"USE1-NovaLite-input-tokens", "1M tokens", "", "1000000"},
		{"USE1-NovaLite-input-tokens", "Units", "$0.06 per 1M tokens", "1000000"},
		{"USE1-NovaLite-input-tokens", "Units", "", "unknown"},
		{"USE1-MP:USE1_InputTokenCount-Units", "Units", "AWS Marketplace software usage|us-east-1|Million Input Tokens", "1000000"},
		{"USE1-MP:USE1_InputTokenCount-Units", "", "", "1000000"},
		{"USE1-MP:USE1_InputImageCount-Units", "Units", "", "1"},
		{"USE1-MP:USE1_search_units-Units", "Units", "", "1"},
		{"USE1-NovaCanvas-output-image-count", "", "", "1"},
		{"USE1-NovaCanvas-output-image-count", "image", "", "1"},
		{"USE1-NovaMultiModalEmbeddings-input-audio-second", "", "", "1"},
		{"USE1-AmazonRerank-v1-searchunits", "", "", "1"},
		{"USE1-NovaSonic-speech-input-tokens", "", "", "1000"},
		{"USE1-NovaLite-input-tokens", "bushel", "", "unknown"},
	} {
		c := waybill.ChargeTotal{UsageType: tt.usageType, PricingUnit: tt.unit, Description: tt.description}
		got := "unknown"
		if n, ok := unitSize(c, ratecard.ParseUsageType(tt.usageType)); ok {
			got = fmt.Sprint(n)
		}
		if got != tt.want {
			t.Errorf("%s in %q (%s): %s, want %s", tt.usageType, tt.unit, tt.description, got, tt.want)
		}
	}
}
