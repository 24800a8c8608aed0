package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/waybill-dev/waybill"
)

// taggedCharges are facts whose charges have tags, as the bill writes them.
type taggedCharges struct{ facts }

var chargeSets = map[string]waybill.Tags{
	"p": waybill.NewTags(waybill.Tag{Key: "iamPrincipal/team", Value: "search"}),
	"r": waybill.NewTags(waybill.Tag{Key: "resourceTags/user:team", Value: "ads"}),
}

func (f taggedCharges) Charges(ctx context.Context, p waybill.Period) ([]waybill.ChargeTotal, map[string]waybill.Tags, error) {
	charges, _, err := f.facts.Charges(ctx, p)
	return charges, chargeSets, err
}

// mid is a reorganisation in the middle of the month: from the 15th on team search is
// part of team ads.
func mid(key, value string, day waybill.Day) string {
	if key == "team" && value == "search" && day >= hour(15).Day() {
		return "ads"
	}
	return value
}

// A renaming moves dollars between rows and changes nothing else: total, billed, buckets
// and what is unattributed are the same, and rows that now have one name are one row.
func TestRenameKeepsEveryDollar(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	all := func(_, _ string, _ waybill.Day) string { return "everybody" }
	for round := range 60 {
		f := taggedCharges{randomFacts(t, r)}
		for i := range f.charges {
			f.charges[i].TagSet = []string{"p", "r", ""}[r.IntN(3)]
		}
		if len(f.cells) == 0 {
			continue
		}
		for _, basis := range []Basis{Calibrated, Estimate, Invoice} {
			o := ReportOptions{Period: october, Basis: basis, By: []string{"team"}}
			plain, err := Report(t.Context(), f, rates(t), o)
			if err != nil {
				t.Fatal(err)
			}
			for name, rename := range map[string]func(string, string, waybill.Day) string{"in mid-month": mid, "into one": all} {
				o.Rename, o.Renamed = rename, "as reorganised by 2026-10-15"
				got, err := Report(t.Context(), f, rates(t), o)
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("round %d, %s, %s", round, basis, name)
				if got.Total.Cmp(plain.Total) != 0 || got.Billed.Cmp(plain.Billed) != 0 || got.Unattributed.Cmp(plain.Unattributed) != 0 || fmt.Sprint(got.Buckets) != fmt.Sprint(plain.Buckets) {
					t.Errorf("%s: total %s, billed %s, unattributed %s; without it %s, %s, %s", what, got.Total, got.Billed, got.Unattributed, plain.Total, plain.Billed, plain.Unattributed)
				}
				if got.Renamed != o.Renamed || plain.Renamed != "" {
					t.Errorf("%s: the statement says %q, without it %q", what, got.Renamed, plain.Renamed)
				}
				seen := make(map[Value]bool)
				var calls, want int64
				for _, row := range got.Rows {
					if seen[row.Keys[0]] {
						t.Errorf("%s: two rows of %v", what, row.Keys[0])
					}
					seen[row.Keys[0]] = true
					calls += row.Calls
					if name == "into one" && row.Keys[0].Present && row.Keys[0].Text != "everybody" {
						t.Errorf("%s: a row of %v", what, row.Keys[0])
					}
				}
				for _, row := range plain.Rows {
					want += row.Calls
				}
				if calls != want {
					t.Errorf("%s: %d calls, without it %d", what, calls, want)
				}
			}
		}
	}
}

// The value of a day is the value that the reorganisation gives that day, on every basis,
// also where the key is written with its prefix; and Where asks for the new one.
func TestRenameByDay(t *testing.T) {
	first, second := bill(t, 2, "1", "0.06", gatewayARN), bill(t, 20, "2", "0.12", gatewayARN)
	first.TagSet, second.TagSet = "p", "p"
	f := taggedCharges{facts{[]waybill.UsageTotal{cell(2, "s", 1000), cell(20, "s", 2000)}, []waybill.ChargeTotal{first, second}}}
	for _, basis := range []Basis{Calibrated, Estimate, Invoice} {
		for _, by := range []string{"team", "tag:team"} {
			s, err := Report(t.Context(), f, rates(t), ReportOptions{Period: october, Basis: basis, By: []string{by}, Rename: mid, Where: []waybill.Tag{{Key: by, Value: "ads"}}})
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Rows) != 1 || s.Rows[0].Keys[0].Text != "ads" || s.Rows[0].Cost.String() != "0.12" || s.Elsewhere.String() != "0.06" {
				t.Errorf("%s by %s: %+v, elsewhere %s; want ads with 0.12, elsewhere 0.06", basis, by, s.Rows, s.Elsewhere)
			}
		}
	}
}

// Dimensions are no tags, and a tag that is not there has no value to rename.
func TestRenameIsForTagsAlone(t *testing.T) {
	f := facts{[]waybill.UsageTotal{cell(2, "s", 1000), cell(2, "", 1000)}, []waybill.ChargeTotal{bill(t, 2, "2", "0.12", gatewayARN)}}
	var asked []string
	rename := func(key, value string, _ waybill.Day) string { asked = append(asked, key+"="+value); return value }
	by := []string{"team"}
	for _, d := range Dimensions {
		by = append(by, d.Name)
	}
	for _, basis := range []Basis{Calibrated, Estimate, Invoice} {
		if _, err := Report(t.Context(), f, rates(t), ReportOptions{Period: october, Basis: basis, By: by, Rename: rename}); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) == 0 {
		t.Error("it was not asked of the tag")
	}
	for _, a := range asked {
		if a != "team=search" {
			t.Errorf("it was asked for %s", a)
		}
	}
}
