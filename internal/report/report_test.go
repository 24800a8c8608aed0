package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ledger"
)

func amount(t *testing.T, s string) waybill.Money {
	t.Helper()
	m, err := waybill.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func statement(t *testing.T) *ledger.Statement {
	t.Helper()
	return &ledger.Statement{Period: waybill.Period{Year: 2026, Month: time.October}, Basis: ledger.Calibrated, Reason: "the ledger has both", By: []string{"team", "model"}, Currency: "USD",
		Rows: []ledger.Row{
			{Keys: []ledger.Value{{Text: "search", Present: true}, {Text: "amazon.nova-lite-v1:0", Present: true}}, Calls: 1200, Usage: waybill.NewUsage().With(waybill.Input, 5_000_000).With(waybill.Output, 7), Cost: amount(t, "12.34567")},
			{Keys: []ledger.Value{{}, {Text: "amazon.nova-lite-v1:0", Present: true}}, Calls: 3, Unknown: 2, Unpriced: 1, Usage: waybill.NewUsage().With(waybill.CacheRead, 9), Cost: amount(t, "0.000001")},
		},
		Unattributed: amount(t, "1.5"), Buckets: []ledger.BucketLine{{Bucket: ledger.Tax, Amount: amount(t, "2"), Evidence: []ledger.Evidence{{What: "Tax", Amount: amount(t, "2")}}},
			{Bucket: ledger.Credit, Amount: amount(t, "-0.5"), Evidence: []ledger.Evidence{{What: "Credit", Amount: amount(t, "-0.5")}}}},
		Total: amount(t, "13.845671"), Billed: amount(t, "13.845671"), HasBill: true, NotClaimed: amount(t, "75.5"), Refused: 4}
}

// renderings are the three ways in which a statement is shown.
func renderings(t *testing.T, s *ledger.Statement) map[string]string {
	t.Helper()
	var text, js, csv bytes.Buffer
	StatementText(&text, s)
	if err := StatementJSON(&js, s); err != nil {
		t.Fatal(err)
	}
	if err := StatementCSV(&csv, s); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"txt": text.String(), "json": js.String(), "csv": csv.String()}
}

func TestStatement(t *testing.T) {
	for ending, got := range renderings(t, statement(t)) {
		path := filepath.Join("testdata", "statement."+ending)
		if os.Getenv("WAYBILL_UPDATE") != "" {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s: WAYBILL_UPDATE=1 rewrites it\n%s", path, d)
		}
	}
}

// A statement whose tag values were renamed says so, once, and says nothing else anew:
// the rows of the CSV are the same.
func TestReorganisedStatement(t *testing.T) {
	plain := renderings(t, statement(t))
	s := statement(t)
	s.Renamed = "as reorganised by 2026-11-01"
	got := renderings(t, s)
	if got["csv"] != plain["csv"] {
		t.Error("the CSV is another")
	}
	if rest := strings.Replace(got["txt"], "Tag values are as reorganised by 2026-11-01.\n", "", 1); rest != plain["txt"] || rest == got["txt"] {
		t.Errorf("the text is\n%s", got["txt"])
	}
	var m, p map[string]any
	if err := json.Unmarshal([]byte(got["json"]), &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(plain["json"]), &p); err != nil {
		t.Fatal(err)
	}
	if _, ok := p["reorganised"]; ok || m["reorganised"] != s.Renamed {
		t.Errorf("reorganised is %v, without renaming %v", m["reorganised"], p["reorganised"])
	}
	delete(m, "reorganised")
	if d := cmp.Diff(p, m); d != "" {
		t.Error(d)
	}
}

// Sums in other currencies are told apart, and only where there are any.
func TestOtherCurrencies(t *testing.T) {
	s := statement(t)
	s.NotClaimedElse = map[string]waybill.Money{"INR": amount(t, "3"), "EUR": amount(t, "7.25")}
	got := renderings(t, s)
	if want := "the export has 75.5000 and 7.2500 EUR and 3.0000 INR of other services"; !strings.Contains(got["txt"], want) {
		t.Errorf("no %q in\n%s", want, got["txt"])
	}
	if want := `"not_claimed_else": {
    "EUR": "7.25",
    "INR": "3"
  }`; !strings.Contains(got["json"], want) || strings.Contains(renderings(t, statement(t))["json"], "not_claimed_else") {
		t.Errorf("no %s in\n%s", want, got["json"])
	}
}
