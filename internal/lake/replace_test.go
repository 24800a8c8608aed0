package lake

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// meanwhileStore lets something happen once, just before a commit to a table.
type meanwhileStore struct {
	store
	table string
	do    func()
}

func (s *meanwhileStore) putNew(ctx context.Context, name string, b []byte) error {
	if strings.HasPrefix(name, s.table+"/metadata/") && !strings.HasSuffix(name, "/v1.metadata.json") && s.do != nil {
		do := s.do
		s.do = nil
		do()
	}
	return s.store.putNew(ctx, name, b)
}

// Two reports at once make the roll-up of a month once: the one that is late replaces it,
// or takes what is there, and does not add to it.
func TestTwoRollUpsAtOnce(t *testing.T) {
	for _, first := range []bool{true, false} { // a month without a roll-up, and one whose roll-up is old
		dir := t.TempDir()
		l, other := open(t, dir), open(t, dir)
		if err := l.AppendInvocations(t.Context(), load(1), asked()); err != nil {
			t.Fatal(err)
		}
		want := []int64{3}
		if !first {
			october2026(t, l)
			if err := l.AppendInvocations(t.Context(), load(2), calls()[3]); err != nil {
				t.Fatal(err)
			}
			want[0] += 2
		}
		l.catalog.store = &meanwhileStore{store: l.catalog.store, table: "usage_hours", do: func() { october2026(t, other) }}
		for _, l := range []*Lake{l, other, open(t, dir)} {
			var calls int64
			for _, c := range october2026(t, l) {
				calls += c.Calls
			}
			if d := cmp.Diff(want, []int64{calls}); d != "" {
				t.Errorf("first %v: calls %s", first, d)
			}
		}
	}
}

// A roll-up of another month in between is no conflict.
func TestRollUpsOfTwoMonthsAtOnce(t *testing.T) {
	dir := t.TempDir()
	l, other := open(t, dir), open(t, dir)
	later := fromGateway("n", october.Next().Start().AddDate(0, 0, 9), use(1, 1))
	for range 2 { // the second time there is a roll-up to replace
		if err := l.AppendInvocations(t.Context(), load(1), append(asked(), later)); err != nil {
			t.Fatal(err)
		}
		l.catalog.store = &meanwhileStore{store: dirStore{dir}, table: "usage_hours", do: func() {
			if _, _, err := other.Usage(t.Context(), october.Next()); err != nil {
				t.Error(err)
			}
		}}
		var calls int64
		for _, c := range october2026(t, l) {
			calls += c.Calls
		}
		if calls != 3 {
			t.Errorf("%d calls, want 3", calls)
		}
	}
}

// Two ingests of one month's bill at once leave one bill, not the sum of two.
func TestTwoBillsAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "export-00001.csv")
	if err := os.WriteFile(path, []byte("bill_payer_account_id,line_item_line_item_type,line_item_product_code,line_item_unblended_cost\n111122223333,Usage,AmazonBedrock,1.5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, other := open(t, dir), open(t, dir)
	replace := func(l *Lake, uri string, p waybill.Period) {
		t.Helper()
		if _, err := l.ReplaceLineItems(t.Context(), Export{Manifest: waybill.Object{URI: uri}, Period: p, Files: []string{path}}); err != nil {
			t.Error(err)
		}
	}
	for round := range 2 { // the second time there is a bill to replace
		l.catalog.store = &meanwhileStore{store: dirStore{dir}, table: "line_items", do: func() {
			replace(other, "m-other", october)
			replace(other, "m-next", october.Next())
		}}
		replace(l, "m", october)
		for _, p := range []waybill.Period{october, october.Next()} {
			charges, _, err := open(t, dir).Charges(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(map[string]string{"Usage": "1.5"}, costs(charges, func(c waybill.ChargeTotal) string { return c.Type })); d != "" {
				t.Errorf("round %d, %s: %s", round, p, d)
			}
		}
		loads, err := l.Loads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := 3 * (round + 1); len(loads) != want {
			t.Errorf("round %d: %d loads are known, want %d", round, len(loads), want)
		}
	}
}

// A bill takes the place of its payer's and of its own export's, and of no other.
func TestBillsOfSeveralPayers(t *testing.T) {
	const head = "bill_payer_account_id,line_item_line_item_type,line_item_product_code,line_item_unblended_cost\n"
	const one, two = "111111111111", "222222222222"
	type delivery struct {
		export, rows string
		refused      string
	}
	named := func(payer, cost string) string { return payer + ",Usage,AmazonBedrock," + cost + "\n" }
	for _, tt := range []struct {
		name  string
		loads []delivery
		want  string // the sum, or nothing where no row is there
	}{
		{"two exports of two payers", []delivery{{"a", named(one, "1"), ""}, {"b", named(two, "2"), ""}}, "3"},
		{"the second delivery of one of them", []delivery{{"a", named(one, "1"), ""}, {"b", named(two, "2"), ""}, {"a", named(one, "4"), ""}}, "6"},
		{"two exports of one payer", []delivery{{"a", named(one, "1"), ""}, {"b", named(one, "2"), ""}}, "2"},
		{"one export of two payers, then one of one", []delivery{{"a", named(one, "1") + named(two, "2"), ""}, {"b", named(two, "4"), ""}}, "5"},
		{"a row without a payer is among the others", []delivery{{"a", named(one, "1") + named("", "2"), ""}, {"b", named(one, "4"), ""}}, "4"},
		{"an export moves to another payer", []delivery{{"a", named(one, "1"), ""}, {"a", named(two, "2"), ""}}, "2"},
		{"an empty delivery takes back its own", []delivery{{"a", named(one, "1"), ""}, {"b", named(two, "2"), ""}, {"a", "", ""}}, "2"},
		{"an empty delivery of another export", []delivery{{"a", named("", "1"), ""}, {"b", "", ""}}, "1"},
		{"deliveries of one export that names no payer", []delivery{{"a", named("", "1"), ""}, {"a", named("", "2"), ""}}, "2"},
		{"an export that names no payer beside one that does", []delivery{{"a", named(one, "1"), ""}, {"b", named("", "2"), "the export at s3://b/b/metadata/m names no payer account"}}, "1"},
		{"one that does beside one that names none", []delivery{{"a", named("", "1"), ""}, {"b", named(one, "2"), "the bill of that month that the lake has names no payer account"}}, "1"},
		{"and then the first comes to name it", []delivery{{"a", named("", "1"), ""}, {"a", named(one, "2"), ""}, {"b", named(one, "4"), ""}}, "4"},
		{"other services' rows are of a payer too", []delivery{{"a", one + ",Usage,AmazonS3,1\n", ""}, {"b", one + ",Usage,AmazonS3,2\n", ""}, {"c", two + ",Usage,AmazonS3,4\n", ""}}, "6"},
	} {
		l := open(t, t.TempDir())
		for i, d := range tt.loads {
			path := filepath.Join(t.TempDir(), "export-00001.csv")
			if err := os.WriteFile(path, []byte(head+d.rows), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := l.ReplaceLineItems(t.Context(), Export{Manifest: waybill.Object{URI: "s3://b/" + d.export + "/metadata/m"}, Period: october, Files: []string{path}})
			if (err != nil) != (d.refused != "") || err != nil && !strings.Contains(err.Error(), d.refused) {
				t.Errorf("%s: load %d: %v, want %q", tt.name, i, err, d.refused)
			}
		}
		charges, _, err := l.Charges(t.Context(), october)
		if err != nil {
			t.Fatal(err)
		}
		var sum waybill.Money
		for _, c := range charges {
			sum = sum.Add(c.Cost)
		}
		if sum.String() != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, sum, tt.want)
		}
	}
}

// A lake from before files told whose bill they are: its rows tell, or the one export that
// its month was loaded from.
func TestBillOfAnOlderVersion(t *testing.T) {
	for _, tt := range []struct{ payer, export, want string }{
		{"111111111111", "a", "2"}, {"111111111111", "b", "2"}, {"", "a", "2"}, {"222222222222", "b", "3"},
	} {
		l := open(t, t.TempDir())
		values := make([]string, len(lineItems.columns))
		for i, c := range lineItems.columns {
			values[i] = map[string]string{"VARCHAR": "''", "BIGINT": "1", "INTEGER": "20000", "TIMESTAMP": "NULL", "DECIMAL(38,18)": "1"}[c.typ] + " AS " + c.name
			if c.name == "payer_account" {
				values[i] = "'" + tt.payer + "' AS payer_account"
			}
		}
		name, _, err := l.write(t.Context(), &lineItems, october.String(), "SELECT "+strings.Join(values, ", "))
		if err != nil {
			t.Fatal(err)
		}
		props, err := l.putLoads(t.Context(), &lineItems, []Load{{Object: waybill.Object{URI: "s3://b/a/metadata/m"}, Kind: "cur", Period: october.String(), Rows: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.commit(t.Context(), &lineItems, []string{name}, props); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "export-00001.csv")
		if err := os.WriteFile(path, []byte("bill_payer_account_id,line_item_line_item_type,line_item_product_code,line_item_unblended_cost\n111111111111,Usage,AmazonBedrock,2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.ReplaceLineItems(t.Context(), Export{Manifest: waybill.Object{URI: "s3://b/" + tt.export + "/metadata/m"}, Period: october, Files: []string{path}}); err != nil {
			t.Error(err)
		}
		charges, _, err := l.Charges(t.Context(), october)
		if err != nil {
			t.Fatal(err)
		}
		var sum waybill.Money
		for _, c := range charges {
			sum = sum.Add(c.Cost)
		}
		if sum.String() != tt.want {
			t.Errorf("payer %q and export %s: %s, want %s", tt.payer, tt.export, sum, tt.want)
		}
	}
}
