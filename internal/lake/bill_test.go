package lake

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// exported writes the rows of an export as CSV, loads it into a new lake and gives what
// the bill of October then has.
func exported(t *testing.T, rows ...string) (Load, []waybill.ChargeTotal, map[string]waybill.Tags) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export-00001.csv")
	if err := os.WriteFile(path, []byte(strings.Join(rows, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return loaded(t, path)
}

func loaded(t *testing.T, files ...string) (Load, []waybill.ChargeTotal, map[string]waybill.Tags) {
	t.Helper()
	l := open(t, t.TempDir())
	load, err := l.ReplaceLineItems(t.Context(), Export{Manifest: waybill.Object{URI: "m"}, Period: october, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	charges, sets, err := l.Charges(t.Context(), october)
	if err != nil {
		t.Fatal(err)
	}
	return load, charges, sets
}

// costs are the costs of charges by what name says of them.
func costs(charges []waybill.ChargeTotal, name func(c waybill.ChargeTotal) string) map[string]string {
	sums := make(map[string]waybill.Money)
	for _, c := range charges {
		sums[name(c)] = sums[name(c)].Add(c.Cost)
	}
	out := make(map[string]string)
	for k, m := range sums {
		out[k] = m.String()
	}
	return out
}

// A discount is in the net costs of its product or in a row of its own, and is never
// taken twice: a discount row without a net cost counts only where its product has none.
func TestDiscountIsTakenOnce(t *testing.T) {
	_, charges, _ := exported(t,
		"line_item_usage_start_date,bill_billing_entity,line_item_line_item_type,line_item_product_code,product_product_family,line_item_usage_type,line_item_usage_amount,line_item_unblended_cost,line_item_net_unblended_cost",
		"2026-10-02T00:00:00.000Z,AWS,Usage,AmazonBedrock,Amazon Bedrock,USE1-NovaLite-input-tokens,1,10,9",
		"2026-10-02T00:00:00.000Z,AWS,EdpDiscount,AmazonBedrock,,USE1-NovaLite-input-tokens,1,-1,", // inside the 9
		"2026-10-02T00:00:00.000Z,AWS,Credit,AmazonBedrock,,,1,-3,",                                // no discount: it is not inside
		"2026-10-02T00:00:00.000Z,AWS,Usage,AmazonBedrockService,Amazon Bedrock,USE1-NovaLite-output-tokens,1,20,",
		"2026-10-02T00:00:00.000Z,AWS,PrivateRateDiscount,AmazonBedrockService,,USE1-NovaLite-output-tokens,1,-2,",
		"2026-10-02T00:00:00.000Z,AWS,Usage,AmazonBedrockAgentCore,Amazon Bedrock,Runtime:Consumption-based:vCPU,1,30,30", // net costs of its own rows
		"2026-10-02T00:00:00.000Z,AWS,BundledDiscount,AmazonBedrockAgentCore,,Runtime:Consumption-based:vCPU,1,-4,-4",
	)
	want := map[string]string{"Usage AmazonBedrock": "9", "EdpDiscount AmazonBedrock": "0", "Credit AmazonBedrock": "-3", "Usage AmazonBedrockService": "20",
		"PrivateRateDiscount AmazonBedrockService": "-2", "Usage AmazonBedrockAgentCore": "30", "BundledDiscount AmazonBedrockAgentCore": "-4"}
	if d := cmp.Diff(want, costs(charges, func(c waybill.ChargeTotal) string { return c.Type + " " + c.ProductCode })); d != "" {
		t.Error(d)
	}
}

// A model on the Marketplace has a product code of its own. What the bill says of that
// product without naming Bedrock, taxes and credits, is Bedrock's as well; other products
// of the Marketplace are not.
func TestMarketplaceRowsThatNameNothing(t *testing.T) {
	_, charges, _ := exported(t,
		"bill_billing_entity,line_item_line_item_type,line_item_product_code,product_product_family,line_item_usage_type,line_item_unblended_cost,product",
		`AWS Marketplace,Usage,7zgyexample,,USE1-MP:USE1_InputTokenCount-Units,8,"{""product_name"":""Claude Sonnet 4.6 (Amazon Bedrock Edition)""}"`,
		"AWS Marketplace,Tax,7zgyexample,,,1.6,{}",
		"AWS Marketplace,Credit,7zgyexample,,,-2,",
		`AWS Marketplace,Usage,3xk9example,,MP:claude_platform-Units,12,"{""product_name"":""Claude Platform on AWS""}"`,
		"AWS Marketplace,Tax,3xk9example,,,2.4,{}",
		"AWS,Usage,AmazonS3,,USE1-Bytes,0.25,{}",
		"AWS,Tax,,,,0.05,{}",
		`AWS Marketplace,Usage,,,USE1-MP:USE1_OutputTokenCount-Units,16,"{""product_name"":""Claude Sonnet 4.6 (Amazon Bedrock Edition)""}"`, // no code
		"AWS Marketplace,Tax,,,,0.5,{}", // of anybody's product
	)
	want := map[string]string{"bedrock Usage 7zgyexample": "8", "bedrock Tax 7zgyexample": "1.6", "bedrock Credit 7zgyexample": "-2", "bedrock Usage ": "16",
		"not_claimed Usage 3xk9example": "12", "not_claimed Tax 3xk9example": "2.4", "not_claimed Usage AmazonS3": "0.25", "not_claimed Tax ": "0.55"}
	if d := cmp.Diff(want, costs(charges, func(c waybill.ChargeTotal) string { return string(c.Claim) + " " + c.Type + " " + c.ProductCode })); d != "" {
		t.Error(d)
	}
}

// A time is UTC, whatever offset it is written with; a file may have it as text.
func TestBillTimesAreUTC(t *testing.T) {
	const head = "line_item_usage_start_date,line_item_line_item_type,line_item_product_code,line_item_usage_type,line_item_unblended_cost"
	load, charges, _ := exported(t, head,
		"2026-10-02T00:00:00.000Z,Usage,AmazonBedrock,a,1",
		"2026-10-02T23:59:59Z,Usage,AmazonBedrock,a,2",
		"2026-10-03T01:00:00+02:00,Usage,AmazonBedrock,a,4",
		"2026-10-01 20:00:00-05:00,Usage,AmazonBedrock,a,8",
		"2026-10-02,Usage,AmazonBedrock,a,16",
		"2026-10-25T00:30:00Z,Usage,AmazonBedrock,a,32", // clocks go back in Europe
		"2026-10-25T01:30:00Z,Usage,AmazonBedrock,a,64",
		"soon,Usage,AmazonBedrock,a,128")
	want := map[string]string{"2026-10-02": "31", "2026-10-25": "96"}
	day := func(c waybill.ChargeTotal) string { return c.Day.String() }
	if d := cmp.Diff(want, costs(charges, day)); d != "" || len(load.Quarantined) != 1 || load.Quarantined[0].Line != 8 {
		t.Errorf("quarantined %+v, want line 8\n%s", load.Quarantined, d)
	}
	for name, times := range map[string][2]string{
		"text":           {"'2026-10-02T23:30:00.000Z'", "'soon'"},
		"with time zone": {"TIMESTAMPTZ '2026-10-03 01:30:00+02:00'", ""},
		"without":        {"TIMESTAMP '2026-10-02 23:30:00'", ""},
	} {
		l, path := open(t, t.TempDir()), filepath.Join(t.TempDir(), "export-00001.parquet")
		query, bad := "", 0
		for i, at := range times {
			if at == "" {
				continue
			}
			bad = i // the second is quarantined
			query += map[bool]string{true: " UNION ALL "}[i > 0] + "SELECT " + at + " AS line_item_usage_start_date, 'Usage' AS line_item_line_item_type, 'AmazonBedrock' AS line_item_product_code, 0.5 AS line_item_unblended_cost"
		}
		if _, err := l.db.ExecContext(t.Context(), "COPY ("+query+") TO '"+quote(path)+"' (FORMAT parquet)"); err != nil {
			t.Fatal(err)
		}
		load, charges, _ := loaded(t, path)
		if d := cmp.Diff(map[string]string{"2026-10-02": "0.5"}, costs(charges, day)); d != "" || len(load.Quarantined) != bad {
			t.Errorf("%s: quarantined %+v, want %d\n%s", name, load.Quarantined, bad, d)
		}
	}
}

// Tags that cannot be read keep a row out, and no other row; a value that is no text is
// kept as it is written.
func TestTagsThatAreNoMap(t *testing.T) {
	load, charges, sets := exported(t, "line_item_line_item_type,line_item_product_code,line_item_usage_type,line_item_unblended_cost,tags,resource_tags",
		`Usage,AmazonBedrock,a,1,"{""iamPrincipal/team"":""search""}",{}`,
		`Usage,AmazonBedrock,b,2,"[""team""]",{}`,
		`Usage,AmazonBedrock,c,4,{},"{""user_team"":"`,
		`Usage,AmazonBedrock,d,8,"""team""",null`,
		`Usage,AmazonBedrock,e,16,null,`,
		`Usage,AmazonBedrock,f,32,"{""n"":7,""none"":null,""yes"":true}",{}`,
	)
	if d := cmp.Diff(map[string]string{"a": "1", "e": "16", "f": "32"}, costs(charges, func(c waybill.ChargeTotal) string { return c.UsageType })); d != "" {
		t.Error(d)
	}
	var lines []int64
	for _, q := range load.Quarantined {
		lines = append(lines, q.Line)
	}
	if d := cmp.Diff([]int64{2, 3, 4}, lines); d != "" {
		t.Errorf("quarantined %+v\n%s", load.Quarantined, d)
	}
	for _, c := range charges {
		if c.UsageType == "f" && sets[c.TagSet].Canonical() != `{"n":"7","yes":"true"}` {
			t.Errorf("the tags are %s", sets[c.TagSet].Canonical())
		}
	}
}

// An export that needs fewer files than the one before leaves empty ones behind.
func TestEmptyChunks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const head = "line_item_line_item_type,line_item_product_code,line_item_unblended_cost\n"
	full := write("1.csv", head+"Usage,AmazonBedrock,1.5\n")
	for _, files := range [][]string{{full, write("2.csv", head)}, {full, write("3.csv", "")}, {full, write("4.csv.gz", "")}, {full, write("5.snappy.parquet", "")}, {write("6.snappy.parquet", ""), full}} {
		_, charges, _ := loaded(t, files...)
		if len(charges) != 1 || charges[0].Cost.String() != "1.5" {
			t.Errorf("%v: %+v", files, charges)
		}
	}
}

// An amount with more places than are kept is counted, whichever column it is in.
func TestRoundedAmountsAreCounted(t *testing.T) {
	const long = "1.2345678901234567E-5" // 21 places
	load, _, _ := exported(t, "line_item_line_item_type,line_item_product_code,line_item_usage_amount,line_item_unblended_cost,line_item_net_unblended_cost",
		"Usage,AmazonBedrock,1,1,1", "Usage,AmazonBedrock,"+long+",1,1", "Usage,AmazonBedrock,1,"+long+",1", "Usage,AmazonBedrock,1,1,"+long, "Usage,AmazonBedrock,1,1.5E-5,")
	if load.Rounded != 3 {
		t.Errorf("%d rounded, want 3", load.Rounded)
	}
}

// A row is of the day it begins, unless it covers more than one: an export by the month
// has no days.
func TestDayOfARow(t *testing.T) {
	_, charges, _ := exported(t, "line_item_usage_start_date,line_item_usage_end_date,line_item_line_item_type,line_item_product_code,line_item_unblended_cost",
		"2026-10-02T23:00:00Z,2026-10-03T00:00:00Z,Usage,AmazonBedrock,1", // by the hour
		"2026-10-02T00:00:00Z,2026-10-03T00:00:00Z,Usage,AmazonBedrock,2", // by the day
		"2026-10-02T00:00:00Z,,Usage,AmazonBedrock,4",
		"2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,AmazonBedrock,8", // by the month
		",,Usage,AmazonBedrock,16",
	)
	want := map[string]string{"2026-10-02": "7", "1970-01-01": "24"}
	if d := cmp.Diff(want, costs(charges, func(c waybill.ChargeTotal) string { return c.Day.String() })); d != "" {
		t.Error(d)
	}
}
