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
	if err := os.WriteFile(path, []byte("line_item_line_item_type,line_item_product_code,line_item_unblended_cost\nUsage,AmazonBedrock,1.5\n"), 0o600); err != nil {
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
