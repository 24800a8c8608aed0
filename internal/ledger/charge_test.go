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
		{"USE1-AmazonRerank-v1-searchunits", "1K queries", "", "1000"},
		{"USE1-NovaCanvas-T2I-1024-Premium", "image", "", "1"},
		{"USE1-NovaReel-T2V-Medfps-HDRes", "Seconds", "", "1"},
		{"USE1-Ray-V2-Medfps-HDRes", "", "", "1"},
		{"USE1-MP:USE1_created_image-Units", "Units", "", "1"},
		{"USE1-NovaLite-input-tokens", "1K bushels", "", "unknown"},
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

// What is not counted in tokens is compared with the bill as well: at the grain that both
// sides know. A size or quality that no call tells is a difference of rate, and named.
func TestImagesVideosAndSearches(t *testing.T) {
	prices, err := ratecard.Parse("rates.csv", strings.NewReader(card+
		"amazon.nova-canvas-v1:0,*,plain,output_image,standard,,1,0.04,USD,2026-01-01,,x\n"+
		"amazon.nova-reel-v1:0,*,plain,video_second,standard,,1,0.08,USD,2026-01-01,,x\n"+
		"luma.ray-v2:0,*,plain,video_second,standard,,1,0.75,USD,2026-01-01,,x\n"+
		"cohere.rerank-v3-5:0,*,plain,search_unit,standard,,1000,2,USD,2026-01-01,,x\n"+
		"amazon.rerank-v1:0,*,plain,search_unit,standard,,1000,1,USD,2026-01-01,,x\n"+
		"stability.stable-image-core-v1:0,*,plain,output_image,standard,,1,0.04,USD,2026-01-01,,x\n"+
		"twelvelabs.pegasus-1-2-v1:0,*,plain,input_video_second,standard,,1,0.00049,USD,2026-01-01,,x\n"))
	if err != nil {
		t.Fatal(err)
	}
	used := func(model string, kind waybill.Kind, n int64) waybill.UsageTotal {
		c := cell(2, "s", 0)
		c.Model, c.ModelID, c.Usage = model, waybill.ModelID(model), waybill.NewUsage().With(kind, n)
		return c
	}
	charged := func(usageType, product, unit, amount, rate, cost string) waybill.ChargeTotal {
		c := bill(t, 2, amount, cost, "")
		c.UsageType, c.ProductName, c.PricingUnit, c.UnblendedRate = usageType, product, unit, rate
		return c
	}
	for _, tt := range []struct {
		name string
		cell waybill.UsageTotal
		bill []waybill.ChargeTotal
		want string
	}{
		{"Nova Reel", used("amazon.nova-reel-v1:1", waybill.VideoSecond, 12), []waybill.ChargeTotal{charged("USE1-NovaReel-T2V-Medfps-HDRes", "", "second", "12", "0.08", "0.96")}, ""},
		{"Luma", used("luma.ray-v2:0", waybill.VideoSecond, 5), []waybill.ChargeTotal{charged("USE1-Ray-V2-Medfps-HDRes", "", "second", "5", "0.75", "3.75")}, ""},
		{"Cohere's rerank", used("cohere.rerank-v3-5:0", waybill.SearchUnit, 3), []waybill.ChargeTotal{charged("USE1-MP:USE1_search_units-Units", "Cohere Rerank 3.5 (Amazon Bedrock Edition)", "Units", "3", "0.002", "0.006")}, ""},
		{"Amazon's rerank", used("amazon.rerank-v1:0", waybill.SearchUnit, 3), []waybill.ChargeTotal{charged("USE1-AmazonRerank-v1-searchunits", "", "1K queries", "0.003", "1", "0.003")}, ""},
		{"Stability", used("stability.stable-image-core-v1:0", waybill.OutputImage, 2), []waybill.ChargeTotal{charged("USE1-MP:USE1_created_image-Units", "Stable Image Core (Amazon Bedrock Edition)", "Units", "2", "0.04", "0.08")}, ""},
		{"TwelveLabs", used("twelvelabs.pegasus-1-2-v1:0", waybill.InputVideoSecond, 100), []waybill.ChargeTotal{charged("USE1-MP:USE1_InputVideoSecond-Units", "TwelveLabs Pegasus 1.2 (Amazon Bedrock Edition)", "Units", "100", "0.00049", "0.049")}, ""},
		{"Nova Canvas of two qualities", used("amazon.nova-canvas-v1:0", waybill.OutputImage, 3),
			[]waybill.ChargeTotal{charged("USE1-NovaCanvas-T2I-1024-Standard", "", "image", "1", "0.04", "0.04"), charged("USE1-NovaCanvas-T2I-1024-Premium", "", "image", "2", "0.06", "0.12")},
			"rate 0.04 amazon.nova-canvas-v1:0 output_image us-east-1: bill 40000 (T2I-1024-Standard) and 60000 (T2I-1024-Premium), rate card 40000, for a million"},
		{"more images than were metered", used("amazon.nova-canvas-v1:0", waybill.OutputImage, 3),
			[]waybill.ChargeTotal{charged("USE1-NovaCanvas-T2I-1024-Standard", "", "image", "4", "0.04", "0.16")},
			"quantity 0.04 amazon.nova-canvas-v1:0 output_image us-east-1: bill 4, calls 3"},
		{"searches of a model that the bill does not name", used("amazon.rerank-v1:0", waybill.SearchUnit, 0), []waybill.ChargeTotal{charged("USE1-nova-grounding-requests", "", "request", "2", "0.03", "0.06")},
			"model_unmapped 0.06 USE1-nova-grounding-requests"},
		{"guardrails, by policy", used("amazon.rerank-v1:0", waybill.SearchUnit, 0), []waybill.ChargeTotal{charged("USE1-Guardrail-ContentPolicyUnitsConsumed", "", "TextUnit", "2", "0.03", "0.06")},
			"guardrail 0.06 USE1-Guardrail-ContentPolicyUnitsConsumed"},
	} {
		f := facts{[]waybill.UsageTotal{tt.cell}, append(tt.bill, bill(t, 31, "0", "0", ""))}
		r, err := Reconcile(t.Context(), f, prices, october)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range r.Buckets {
			for _, e := range b.Evidence {
				got = append(got, fmt.Sprintf("%s %s %s", b.Bucket, e.Amount, e.What))
			}
		}
		if strings.Join(got, "\n") != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
