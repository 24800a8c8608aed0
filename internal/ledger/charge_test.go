package ledger

import (
	"fmt"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

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
