package ratecard

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
)

// checkTable compares ParseUsageType with a table of usage_type, dialect,
// region_prefix, model_text, kind, tier, scope, long_context, unparsed. With more, what a table
// has left unread, as kind other, may be known here.
func checkTable(t *testing.T, path string, more bool) {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is not beside the checkout", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		u := ParseUsageType(row[0])
		long := "0"
		if u.LongContext {
			long = "1"
		}
		got := []string{string(u.Dialect), u.RegionPrefix, u.Model, string(u.Kind), u.Tier, string(u.Scope), long, u.Unparsed}
		for i, want := range row[1:9] {
			if row[4] == "other" && u.Kind != Other && more && (i == 2 || i == 3 || i == 7) {
				continue
			}
			if got[i] != want {
				t.Errorf("%s: %s = %q, want %q", row[0], rows[0][i+1], got[i], want)
			}
		}
	}
	if len(rows) < 10 {
		t.Errorf("%s has %d rows", path, len(rows))
	}
}

func TestUsageTypes(t *testing.T) { checkTable(t, "testdata/usage-types.csv", false) }

// The table of real usage types lies beside the checkout where it is to be had.
func TestUsageTypesFoundInPublic(t *testing.T) {
	checkTable(t, filepath.Join("..", "..", "..", "shared", "samples", "usage-types.csv"), true)
}

func FuzzUsageType(f *testing.F) {
	for _, s := range []string{"USE1-NovaLite-input-tokens", "USE1-MP:USE1_InputTokenCount_Global-Units",
		"USW2-openai.gpt-oss-120b-mantle-input-tokens-long-ctx-global-standard", "EU-x-cache-read-input-token-count-cross-region-geo-batch-what", "", "-", "USE1-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u := ParseUsageType(s)
		if u.Kind == "" || u.Tier == "" || u.Scope == "" || u.Dialect == "" {
			t.Errorf("ParseUsageType(%q) = %+v: every usage type has a dialect, a kind, a tier and a scope", s, u)
		}
		if u.Kind == Other && u.Unparsed == "" && s != "" && strings.Trim(s, "-") != "" && regions[strings.TrimSuffix(strings.ToUpper(s), "-")] == "" {
			t.Errorf("ParseUsageType(%q) = %+v: kind other with nothing unparsed", s, u)
		}
		if !strings.Contains(s, u.Model) || !strings.Contains(s, u.Unparsed) {
			t.Errorf("ParseUsageType(%q) = %+v: text that was not there", s, u)
		}
	})
}

func TestModelNames(t *testing.T) {
	m, err := KnownModels("openai.gpt-5.6-terra", "anthropic.claude-opus-5")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, want string }{
		{"Claude4.6Sonnet", "anthropic.claude-sonnet-4-6"},
		{"Claude Sonnet 4.6", "anthropic.claude-sonnet-4-6"},
		{"Claude Sonnet 4.6 (Amazon Bedrock Edition)", "anthropic.claude-sonnet-4-6"},
		{"anthropic.claude-sonnet-4-6", "anthropic.claude-sonnet-4-6"},
		{"Claude Opus 4.6", "anthropic.claude-opus-4-6-v1"},
		{"Claude Haiku 4.5", "anthropic.claude-haiku-4-5-20251001-v1:0"},
		{"Claude 3.5 Sonnet v2", "anthropic.claude-3-5-sonnet-20241022-v2:0"},
		{"Claude 3.5 Sonnet", "anthropic.claude-3-5-sonnet-20240620-v1:0"},
		{"Claude Opus 5", "anthropic.claude-opus-5"},
		{"Nova Lite", "amazon.nova-lite-v1:0"},
		{"Nova 2 Lite", "amazon.nova-2-lite-v1:0"},
		{"Nova 2.0 Lite", "amazon.nova-2-lite-v1:0"},
		{"NovaPro", "amazon.nova-pro-v1:0"},
		{"Llama 4 Maverick 17B", "meta.llama4-maverick-17b-instruct-v1:0"},
		{"gpt-5.6-terra", "openai.gpt-5.6-terra"},
		{"openai.gpt-5.6-terra", "openai.gpt-5.6-terra"},
		{"NovaReel", "amazon.nova-reel-v1:0"},
		{"amazon.nova-reel-v1:1", "amazon.nova-reel-v1:0"},
		{"NovaCanvas", "amazon.nova-canvas-v1:0"},
		{"TitanImageGeneratorG1", "amazon.titan-image-generator-v1"},
		{"TitanImageGeneratorG1V2", "amazon.titan-image-generator-v2:0"},
		{"Titan Image Generator G1 v2", "amazon.titan-image-generator-v2:0"},
		{"Ray-V2", "luma.ray-v2:0"},
		{"Cohere Rerank 3.5 (Amazon Bedrock Edition)", "cohere.rerank-v3-5:0"},
		{"AmazonRerank-v1", "amazon.rerank-v1:0"},
		{"Stable Image Core (Amazon Bedrock Edition)", "stability.stable-image-core-v1:0"},
		{"Stable Image Ultra 1.1", "stability.stable-image-ultra-v1:1"},
		{"Stable Diffusion 3.5 Large", "stability.sd3-5-large-v1:0"},
		{"TwelveLabs Pegasus 1.2", "twelvelabs.pegasus-1-2-v1:0"},
		{"Claude Sonnet 9", ""},
		{"Nova", ""},
		{"", ""},
	} {
		got, ok := m.ID(tt.name)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("ID(%q) = %q, %v; want %q", tt.name, got, ok, tt.want)
		}
	}
}

// An id that a card or a call brings takes no billing name from the table, and none from
// an id that came before it.
func TestTableOfBillingNamesStands(t *testing.T) {
	m, err := KnownModels("gpt-oss-20b", "openai.gpt-oss-20b", "x.new-1-v1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.Learn("x.new-1", "claude4.6sonnet", "anthropic.claude-haiku-4-5")
	for name, want := range map[string]string{"gpt-oss-20b": "openai.gpt-oss-20b-1:0", "openai.gpt-oss-20b": "openai.gpt-oss-20b-1:0",
		"Claude4.6Sonnet": "anthropic.claude-sonnet-4-6", "New 1": "x.new-1-v1:0", "x.new-1": "x.new-1", "Claude Haiku 4.5": "anthropic.claude-haiku-4-5-20251001-v1:0"} {
		if got, _ := m.ID(name); got != want {
			t.Errorf("ID(%q) = %q, want %q", name, got, want)
		}
	}
	for id, want := range map[string]string{"x.new-1": "x.new-1-v1:0", "anthropic.claude-haiku-4-5": "anthropic.claude-haiku-4-5-20251001-v1:0", "y.unheard-of": "y.unheard-of"} {
		if got := m.Canonical(id); got != want {
			t.Errorf("Canonical(%q) = %q, want %q", id, got, want)
		}
	}
}

const head = "model,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source\n"

func TestRates(t *testing.T) {
	card, err := Parse("rates.csv", strings.NewReader(head+`
# a comment
m.a,us-east-1,plain,input,standard,,1000000,3.30,USD,2026-01-01,2026-06-01,list
m.a,us-east-1,plain,input,standard,,1000000,2.20,USD,2026-06-01,,list
m.a,us-east-1,global,input,standard,,1000000,3,USD,2026-01-01,,list
m.a,*,plain,output,standard,,1000,0.01,USD,2026-01-01,,list
m.a,us-east-1,plain,cache_write_5m,standard,,1000,0,USD,2026-01-01,,list
m.a,us-east-1,plain,input,flex,,1000000,1.65,USD,2026-01-01,,list
m.b,*,regional,input,standard,,1000000,1,USD,2026-01-01,,list
m.b,*,regional,input,standard,> 200000,1000000,2,USD,2026-01-01,,list
m.b,*,geo,output,standard,,1000000,5,USD,2026-01-01,,list
m.b,*,plain,output,standard,,1000000,4,USD,2026-01-01,,list
`))
	if err != nil {
		t.Fatal(err)
	}
	day := func(s string) waybill.Day {
		d, err := waybill.ParseDay(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tt := range []struct {
		what string
		q    Query
		want string // per million; empty: unpriced
	}{
		{"plain", Query{"m.a", "us-east-1", waybill.Plain, waybill.Input, "standard", 0, day("2026-02-01")}, "3.3"},
		{"the last day of a price", Query{"m.a", "us-east-1", waybill.Plain, waybill.Input, "standard", 0, day("2026-05-31")}, "3.3"},
		{"the first day of its successor", Query{"m.a", "us-east-1", waybill.Plain, waybill.Input, "", 0, day("2026-06-01")}, "2.2"},
		{"before any price", Query{"m.a", "us-east-1", waybill.Plain, waybill.Input, "", 0, day("2025-12-31")}, ""},
		{"global", Query{"m.a", "us-east-1", waybill.Global, waybill.Input, "", 0, day("2026-07-01")}, "3"},
		{"geo goes by plain where it has no price of its own", Query{"m.a", "us-east-1", waybill.Geo, waybill.Input, "", 0, day("2026-07-01")}, "2.2"},
		{"geo has its own price", Query{"m.b", "eu-west-1", waybill.Geo, waybill.Output, "", 0, day("2026-07-01")}, "5"},
		{"global never goes by plain", Query{"m.a", "us-east-1", waybill.Global, waybill.Output, "", 0, day("2026-07-01")}, ""},
		{"another Region", Query{"m.a", "eu-west-1", waybill.Plain, waybill.Input, "", 0, day("2026-07-01")}, ""},
		{"all Regions", Query{"m.a", "eu-west-1", waybill.Plain, waybill.Output, "", 0, day("2026-07-01")}, "10"},
		{"a price of zero is a price", Query{"m.a", "us-east-1", waybill.Plain, waybill.CacheWrite5m, "", 0, day("2026-07-01")}, "0"},
		{"no price for a tier", Query{"m.a", "us-east-1", waybill.Plain, waybill.Input, "priority", 0, day("2026-07-01")}, ""},
		{"flex", Query{"m.a", "us-east-1", waybill.Plain, waybill.Input, "flex", 0, day("2026-07-01")}, "1.65"},
		{"200,000 tokens are not above 200,000", Query{"m.b", "x", waybill.Plain, waybill.Input, "", waybill.ContextBucketOf(200_000), day("2026-07-01")}, "1"},
		{"200,001 tokens are", Query{"m.b", "x", waybill.Plain, waybill.Input, "", waybill.ContextBucketOf(200_001), day("2026-07-01")}, "2"},
	} {
		p, ok := card.Rate(tt.q)
		got := ""
		if ok {
			got = p.Rate.Per(1_000_000)
		}
		if got != tt.want {
			t.Errorf("%s: rate = %q, want %q", tt.what, got, tt.want)
		}
	}
}

func TestMistakesInARateCard(t *testing.T) {
	_, err := Parse("rates.csv", strings.NewReader(head+
		"us.m.a,us-east-1,plain,input,standard,,1000,1,USD,2026-01-01,,x\n"+
		"m.a,us-east-1,moon,input,standard,,1000,1,USD,2026-01-01,,x\n"+
		"m.a,us-east-1,plain,input,standard,,1000,1e400,USD,2026-01-01,,x\n"+
		"m.a,us-east-1,plain,input,standard,,3,1,USD,2026-01-01,,x\n"+
		"m.a,us-east-1,plain,input,standard,,1000,1,USD,2026-01-01,,x\n"+
		"m.a,us-east-1,plain,input,standard,,1000,2,USD,2026-03-01,,x\n"+
		"m.a,us-east-1,plain,output,standard,>5,1000,2,USD,2026-03-01,,x\n"+
		"m.a,us-east-1,plain,output,standard,,1000,-2,USD,2026-03-01,,x\n"+
		"m.a,us-east-1,plain,output\n"+
		"m.a,us-east-1,plain,output,standard,,1000,2,USD,March,,x\n"))
	if err == nil {
		t.Fatal("no mistake was found")
	}
	for _, want := range []string{
		"rates.csv:2: model \"us.m.a\" is a profile or an ARN", "rates.csv:3: scope \"moon\"", "rates.csv:4: price \"1e400\"",
		"rates.csv:5: price \"1\": 1 per 3 units: more digits", "rates.csv:7: overlaps line 6",
		"rates.csv:8: context \">5\"", "rates.csv:9: price \"-2\" is negative",
		"rates.csv:10: has 4 fields", "rates.csv:11: valid_from: day \"March\"",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}
