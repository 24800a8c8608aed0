package lake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

var october = waybill.Period{Year: 2026, Month: time.October}

func at(day, hour, minute int) time.Time {
	return time.Date(2026, 10, day, hour, minute, 0, 0, time.UTC)
}

func tags(team string) waybill.Tags { return waybill.NewTags(waybill.Tag{Key: "team", Value: team}) }

func fromGateway(id string, t time.Time, u waybill.Usage) Row {
	return Row{Invocation: waybill.Invocation{CallID: "c-" + id, RequestID: id, Source: waybill.FromGateway, StartedAt: t, Account: "111122223333", Region: "us-east-1",
		Model: "m", ModelID: "m", Scope: waybill.Plain, Principal: "user-17", PrincipalARN: "arn:1", Tags: tags("search"), Usage: u, Outcome: waybill.Completed, Tier: "standard"}, Origin: "journal", Line: 1}
}

func fromLog(id string, t time.Time, u waybill.Usage) Row {
	return Row{Invocation: waybill.Invocation{RequestID: id, Source: waybill.FromLog, StartedAt: t, Account: "111122223333", Region: "us-east-1",
		Model: "m", ModelID: "m", Scope: waybill.Plain, PrincipalARN: "arn:1", Usage: u, Outcome: waybill.Completed}, Origin: "log", Line: 1}
}

func open(t *testing.T, dir string) *Lake {
	t.Helper()
	l, err := Open(t.Context(), dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func use(in, out int64) waybill.Usage {
	return waybill.NewUsage().With(waybill.Input, in).With(waybill.Output, out)
}

// calls are batches of rows as journals and logs give them, with the twins and the
// disagreements that those have.
func calls() [][]Row {
	split := use(5, 6).With(waybill.CacheWrite5m, 40).With(waybill.CacheWrite1h, 60)
	merged := use(5, 6).With(waybill.CacheWrite5m, 100)
	last := time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC)
	return [][]Row{
		{fromGateway("a", at(1, 10, 0), use(10, 20)), fromGateway("b", at(1, 10, 30), waybill.Usage{}), fromGateway("w", at(2, 1, 0), split)},
		{fromLog("a", at(1, 11, 0), use(10, 21)), fromLog("b", at(1, 10, 30), use(7, 8))},
		{fromLog("z", at(3, 0, 0), use(0, 0)), fromLog("w", at(2, 1, 0), merged)},
		{fromLog("z", at(3, 0, 0), use(100, 200)), fromGateway("u", at(4, 0, 0), waybill.Usage{})},
		{fromGateway("edge", last, use(1, 1)), fromLog("edge", last.Add(2*time.Second), use(1, 1))},
	}
}

func load(i int) []Load {
	return []Load{{Object: waybill.Object{URI: fmt.Sprint("object-", i), Version: "1"}, Kind: "log", Rows: 2}}
}

func october2026(t *testing.T, l *Lake) []waybill.UsageTotal {
	t.Helper()
	cells, sets, err := l.Usage(t.Context(), october)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		if c.TagSet != "" && !sets[c.TagSet].Equal(tags("search")) {
			t.Errorf("tag set %s is %v", c.TagSet, sets[c.TagSet])
		}
	}
	return cells
}

// The sources of a call are merged by the rules, whatever order they come in, however
// often, and on whichever side of the turn of a month they say it was.
func TestMergeInAnyOrder(t *testing.T) {
	var want []waybill.UsageTotal
	for round := range 4 {
		l := open(t, t.TempDir())
		batches := calls()
		if round > 0 {
			batches = append(batches, batches[rand.IntN(len(batches))])
			rand.Shuffle(len(batches), func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
		}
		for i, b := range batches {
			if err := l.AppendInvocations(t.Context(), load(i), b); err != nil {
				t.Fatal(err)
			}
			if round == 2 {
				october2026(t, l) // a roll-up in between must not matter
			}
		}
		got := october2026(t, l)
		if round == 0 {
			want = got
			check(t, got)
			continue
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(waybill.Usage{})); d != "" {
			t.Errorf("round %d differs:\n%s", round, d)
		}
	}
}

func check(t *testing.T, cells []waybill.UsageTotal) {
	t.Helper()
	total, calls, unknown := waybill.NewUsage(), int64(0), int64(0)
	for _, c := range cells {
		total = total.Add(c.Usage)
		calls += c.Calls
		unknown += c.Unknown
	}
	want := use(10+7+5+100+1, 21+8+6+200+1).With(waybill.CacheWrite5m, 40).With(waybill.CacheWrite1h, 60)
	if total != want || calls != 6 || unknown != 1 {
		t.Errorf("%d calls, %d unknown, usage %v; want 6, 1, %v", calls, unknown, total, want)
	}
}

func TestLoadsAreInTheSameCommit(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if err := l.AppendInvocations(t.Context(), load(1), calls()[0]); err != nil {
		t.Fatal(err)
	}
	empty := []Load{{Object: waybill.Object{URI: "object-2"}, Kind: "log", Quarantined: []Quarantine{{Object: "object-2", Line: 3, Reason: "not JSON"}}}}
	if err := l.AppendInvocations(t.Context(), empty, nil); err != nil {
		t.Fatal(err)
	}
	loads, err := open(t, dir).Loads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(loads) != 2 || loads[0].Object.URI != "object-1" || len(loads[1].Quarantined) != 1 {
		t.Errorf("loads = %+v", loads)
	}
}

const billHead = "bill_billing_period_start_date,line_item_usage_start_date,line_item_usage_account_id,line_item_line_item_type,line_item_product_code,product_product_family,line_item_usage_type,line_item_usage_amount,pricing_unit,line_item_unblended_cost,line_item_currency_code,line_item_iam_principal,tags,product\n"

func bill(t *testing.T, rows string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export-00001.csv")
	if err := os.WriteFile(path, []byte(billHead+rows), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBill(t *testing.T) {
	l := open(t, t.TempDir())
	path := bill(t, `2026-10-01T00:00:00.000Z,2026-10-02T00:00:00.000Z,111122223333,Usage,AmazonBedrock,Amazon Bedrock,USE1-NovaLite-input-tokens,1.0E-5,1K tokens,6.0E-10,USD,arn:1,"{""iamPrincipal/team"":""search""}","{""model"":""Nova Lite""}"
2026-10-01T00:00:00.000Z,2026-10-02T00:00:00.000Z,111122223333,Usage,AmazonBedrock,Amazon Bedrock,USE1-NovaLite-input-tokens,0.1,1K tokens,0.30000000000000004,USD,arn:1,{},{}
2026-10-01T00:00:00.000Z,2026-10-02T00:00:00.000Z,111122223333,Usage,AmazonEC2,,USE1-BoxUsage,1,Hrs,12.5,USD,,{},{}
2026-10-01T00:00:00.000Z,2026-10-02T00:00:00.000Z,111122223333,Usage,AmazonS3,,USE1-Bytes,1,GB,0.25,USD,,{},{}
2026-10-01T00:00:00.000Z,2026-10-02T00:00:00.000Z,111122223333,Usage,AmazonBedrock,Amazon Bedrock,USE1-NovaLite-input-tokens,many,1K tokens,1,USD,,{},{}
`)
	for range 2 { // the second replaces the first
		got, err := l.ReplaceLineItems(t.Context(), Export{Manifest: waybill.Object{URI: "m"}, Period: october, Files: []string{path}})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Quarantined) != 1 || got.Quarantined[0].Line != 5 {
			t.Errorf("quarantined %+v, want row 5", got.Quarantined)
		}
	}
	charges, sets, err := l.Charges(context.Background(), october)
	if err != nil {
		t.Fatal(err)
	}
	sum, other := waybill.Money{}, waybill.Money{}
	tagged := false
	for _, c := range charges {
		if c.Claim == waybill.NotClaimed {
			other = other.Add(c.Cost)
			continue
		}
		sum = sum.Add(c.Cost)
		if v, ok := sets[c.TagSet].Get("iamPrincipal/team"); ok && v == "search" && c.ProductModel == "Nova Lite" {
			tagged = true
		}
	}
	if sum.String() != "0.3000000006000000" && sum.String() != "0.30000000060000004" || other.String() != "12.75" || !tagged {
		t.Errorf("sum %s, not claimed %s, tagged %v", sum, other, tagged)
	}
}

// The exports found in public are read, every row of them.
func TestBillsFoundInPublic(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "samples")
	for name, want := range map[string]struct {
		rows int64
		cost string
	}{
		"cur2-iam-principal-rows.csv":                 {20, ""},
		"constructed-cur2-marketplace-style-rows.csv": {3, "0.291"},
		"cur2-csv-header-and-row.csv":                 {1, ""},
	} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%s is not beside the checkout", dir)
		}
		l := open(t, t.TempDir())
		load, err := l.ReplaceLineItems(t.Context(), Export{Manifest: waybill.Object{URI: name}, Period: october, Files: []string{path}})
		if err != nil || len(load.Quarantined) > 0 {
			t.Errorf("%s: %v %+v", name, err, load.Quarantined)
			continue
		}
		charges, _, err := l.Charges(t.Context(), october)
		if err != nil {
			t.Fatal(err)
		}
		var rows int64
		var sum waybill.Money
		for _, c := range charges {
			rows += c.Rows
			if c.Claim == waybill.Claimed {
				sum = sum.Add(c.Cost)
			}
		}
		if rows != want.rows || want.cost != "" && sum.String() != want.cost {
			t.Errorf("%s: %d rows, %s; want %d, %s", name, rows, sum, want.rows, want.cost)
		}
	}
}

// failingStore fails one write after some, with or without having done it.
type failingStore struct {
	store
	left int
	done bool
}

var errDisk = fmt.Errorf("input/output error")

func (s *failingStore) step(do func() error) error {
	if s.left--; s.left == 0 {
		if s.done {
			do()
		}
		return errDisk
	}
	return do()
}

func (s *failingStore) put(ctx context.Context, name string, b []byte) error {
	return s.step(func() error { return s.store.put(ctx, name, b) })
}

func (s *failingStore) putNew(ctx context.Context, name string, b []byte) error {
	return s.step(func() error { return s.store.putNew(ctx, name, b) })
}

func (s *failingStore) putFile(ctx context.Context, name, path string) error {
	return s.step(func() error { return s.store.putFile(ctx, name, path) })
}

// Whichever write of a commit fails, done or not, the next run ends with the same
// figures: what is loaded is known, and rows that came twice are one call.
func TestFailAtEveryWrite(t *testing.T) {
	reference := open(t, t.TempDir())
	for i, b := range calls() {
		if err := reference.AppendInvocations(t.Context(), load(i), b); err != nil {
			t.Fatal(err)
		}
	}
	want := october2026(t, reference)
	for _, done := range []bool{false, true} {
		for at := 1; at < 26; at += 3 {
			dir := t.TempDir()
			l := open(t, dir)
			l.catalog.store = &failingStore{store: l.catalog.store, left: at, done: done}
			for range 2 {
				loads, err := l.Loads(t.Context())
				if err != nil {
					t.Fatalf("write %d: %v", at, err)
				}
				in := make(map[string]bool)
				for _, l := range loads {
					in[l.Object.URI] = true
				}
				for i, b := range calls() {
					if in[load(i)[0].Object.URI] {
						continue
					}
					if err := l.AppendInvocations(t.Context(), load(i), b); err != nil {
						break // the process dies here
					}
				}
				l = open(t, dir)
			}
			if d := cmp.Diff(want, october2026(t, l), cmp.AllowUnexported(waybill.Usage{})); d != "" {
				t.Errorf("write %d, done %v:\n%s", at, done, d)
			}
		}
	}
}
