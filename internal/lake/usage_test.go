package lake

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// asked are calls that differ in what a tag policy asks about, and in nothing else.
func asked() []Row {
	one := fromGateway("1", at(5, 9, 0), use(10, 1))
	one.Operation, one.Issuer, one.KeyID = "Converse", "gateway-key", "k1"
	two := fromGateway("2", at(5, 9, 1), use(20, 2))
	two.Operation, two.Issuer, two.KeyID = "InvokeModel", "https://idp.example.com", ""
	two.ModelAsked, two.ModelID = "m", "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/p"
	logged := fromLog("2", at(5, 9, 1), use(20, 2))
	logged.Operation, logged.ModelID = "InvokeModel", two.ModelID
	early := fromLog("3", at(4, 9, 0), use(40, 4)) // before there was a gateway
	early.Operation, early.Tags, early.SessionName = "ConverseStream", tags("search"), "user-17"
	return []Row{one, two, logged, early}
}

// The roll-up tells the calls apart by all that a tag policy asks about.
func TestRollUpKeepsWhatAPolicyAsks(t *testing.T) {
	l := open(t, t.TempDir())
	if err := l.AppendInvocations(t.Context(), load(1), asked()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range october2026(t, l) {
		got = append(got, strings.Join([]string{c.Operation, c.Issuer, c.KeyID, string(c.ModelAsked), c.SessionName, c.Sources, c.TagSet}, "|"))
	}
	slices.Sort(got)
	id := tags("search").ID()
	want := []string{"ConverseStream||||user-17|log|" + id, "Converse|gateway-key|k1|||gateway|" + id, "InvokeModel|https://idp.example.com||m||both|" + id}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A lake whose roll-up was made by an older version opens: the table is given its new
// columns, and the roll-up is made again.
func TestRollUpOfAnOlderVersion(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if err := l.AppendInvocations(t.Context(), load(1), asked()); err != nil {
		t.Fatal(err)
	}
	files, _, err := l.dataFiles(t.Context(), &invocations)
	if err != nil {
		t.Fatal(err)
	}
	older := usageHours
	older.version, older.columns = 1, slices.Clone(usageHours.columns[:39])
	values := make([]string, len(older.columns))
	for i, c := range older.columns {
		values[i] = map[string]string{"VARCHAR": "''", "BIGINT": "7", "INTEGER": "7"}[c.typ] + " AS " + c.name
		switch c.name {
		case "period":
			values[i] = "'2026-10' AS period"
		case "covers": // as version 1 wrote it: the roll-up is of these very files
			values[i] = "'" + digest(files) + "' AS covers"
		}
	}
	name, _, err := l.write(t.Context(), &older, "2026-10", "SELECT "+strings.Join(values, ", "))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.commit(t.Context(), &older, []string{name}, nil); err != nil {
		t.Fatal(err)
	}

	reference := open(t, t.TempDir())
	if err := reference.AppendInvocations(t.Context(), load(1), asked()); err != nil {
		t.Fatal(err)
	}
	want := october2026(t, reference)
	for range 2 { // made again, and then taken as it is
		l = open(t, dir)
		if d := cmp.Diff(want, october2026(t, l), cmp.AllowUnexported(waybill.Usage{})); d != "" {
			t.Error(d)
		}
	}
	have, table, err := l.dataFiles(t.Context(), &usageHours)
	if err != nil {
		t.Fatal(err)
	}
	if len(have) != 1 || table.Metadata().Properties()["waybill.schema"] != "2" {
		t.Errorf("%d files, version %s; want 1, 2", len(have), table.Metadata().Properties()["waybill.schema"])
	}
	for i, c := range usageHours.columns {
		if f, ok := table.Schema().FindFieldByName(c.name); !ok || f.ID != i+1 {
			t.Errorf("column %s has field id %d, its files have %d", c.name, f.ID, i+1)
		}
	}
	if ids := table.Metadata().NameMapping(); len(ids) != len(usageHours.columns) {
		t.Errorf("%d of %d columns are known by name", len(ids), len(usageHours.columns))
	}
	// Rows of the version before stay readable in the snapshot before.
	if n := len(table.Metadata().Snapshots()); n < 2 {
		t.Errorf("%d snapshots, want the older one as well", n)
	}
	if err := l.commit(t.Context(), &older, []string{name}, nil); err != nil { // an older program writes to it again
		t.Errorf("the older version can no longer write: %v", err)
	}
	if d := cmp.Diff(want, october2026(t, l), cmp.AllowUnexported(waybill.Usage{})); d != "" {
		t.Error(d)
	}
}

// A response that is made in the background is the call of whoever asked for it. Those
// who look at it later tell its usage, once.
func TestLooksTellUsageAlone(t *testing.T) {
	asked := fromGateway("1", at(5, 9, 0), use(0, 0))
	asked.Operation, asked.Principal, asked.Tags, asked.Usage = "Responses", "user-1", tags("search"), waybill.Usage{}
	rows := []Row{asked}
	for i, who := range []string{"user-2", "user-3"} {
		look := fromGateway("1", at(5, 11+i, 0), use(100, 200))
		look.CallID += who
		look.Operation, look.Principal, look.Tags = "GetResponse", who, tags("ads")
		rows = append(rows, look)
	}
	for range 3 {
		l := open(t, t.TempDir())
		rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		if err := l.AppendInvocations(t.Context(), load(1), rows); err != nil {
			t.Fatal(err)
		}
		cells := october2026(t, l)
		if len(cells) != 1 {
			t.Fatalf("%d cells, want 1", len(cells))
		}
		c := cells[0]
		if c.Calls != 1 || c.Usage.Of(waybill.Output) != 200 || c.Principal != "user-1" || c.TagSet != asked.Tags.ID() || c.Hour != waybill.HourOf(asked.StartedAt) || c.Operation != "Responses" {
			t.Errorf("%d calls of %s, %s, at %s, tags %q: %v", c.Calls, c.Principal, c.Operation, c.Hour, c.TagSet, c.Usage)
		}
	}
}

// Of the records that one source has of a call the fullest one tells the rest of it: when
// it was, and with which tags. The order in which they were read does not matter.
func TestFullestRecordTells(t *testing.T) {
	zero, full := fromLog("1", at(5, 9, 59), use(0, 0)), fromLog("1", at(5, 10, 0), use(100, 200))
	full.Tags = tags("search")
	var twins []Row
	for i := range 20 { // in 20 Regions, so that an order by chance shows
		for _, r := range []Row{zero, full} {
			r.Region = fmt.Sprint("region-", i)
			twins = append(twins, r)
		}
	}
	for range 4 {
		l := open(t, t.TempDir())
		rand.Shuffle(len(twins), func(i, j int) { twins[i], twins[j] = twins[j], twins[i] })
		for i, r := range [][]Row{twins[:13], twins[13:]} {
			if err := l.AppendInvocations(t.Context(), load(i), r); err != nil {
				t.Fatal(err)
			}
		}
		cells := october2026(t, l)
		if len(cells) != 20 {
			t.Errorf("%d cells, want 20", len(cells))
		}
		for _, c := range cells {
			if c.Hour != waybill.HourOf(full.StartedAt) || c.TagSet != full.Tags.ID() || c.Calls != 1 || c.Usage.Of(waybill.Output) != 200 {
				t.Errorf("%s: %s with tags %q", c.Region, c.Hour, c.TagSet)
			}
		}
	}
}

// The log wins for the kinds that it tells, and takes nothing from the gateway's that it
// does not know: images, seconds, search units, guardrail units, the life of caches.
func TestLogWinsForWhatItTells(t *testing.T) {
	for _, tt := range []struct {
		name               string
		gateway, log, want waybill.Usage
	}{
		{"tokens beside what no log counts",
			use(10, 20).With(waybill.OutputImage, 2).With(waybill.SearchUnit, 3).With(waybill.GuardrailUnit, 4), use(11, 21),
			use(11, 21).With(waybill.OutputImage, 2).With(waybill.SearchUnit, 3).With(waybill.GuardrailUnit, 4)},
		{"a zero among tokens is a figure", use(10, 20).With(waybill.CacheRead, 5), use(15, 20), use(15, 20)},
		{"a video that came out longer", waybill.NewUsage().With(waybill.VideoSecond, 6), waybill.NewUsage().With(waybill.VideoSecond, 12), waybill.NewUsage().With(waybill.VideoSecond, 12)},
		{"a video with tokens that the log does not tell", use(9, 0).With(waybill.VideoSecond, 6), waybill.NewUsage().With(waybill.VideoSecond, 12), use(9, 0).With(waybill.VideoSecond, 12)},
		{"images alone", waybill.NewUsage().With(waybill.OutputImage, 2), waybill.NewUsage(), waybill.NewUsage().With(waybill.OutputImage, 2)},
		{"the gateway does not know", waybill.Usage{}, waybill.NewUsage().With(waybill.VideoSecond, 6), waybill.NewUsage().With(waybill.VideoSecond, 6)},
		{"writes of which the log has more", use(1, 1).With(waybill.CacheWrite5m, 40).With(waybill.CacheWrite1h, 60), use(1, 1).With(waybill.CacheWrite5m, 110), use(1, 1).With(waybill.CacheWrite5m, 50).With(waybill.CacheWrite1h, 60)},
		{"writes of which the log has less", use(1, 1).With(waybill.CacheWrite30m, 40).With(waybill.CacheWrite1h, 60), use(1, 1).With(waybill.CacheWrite5m, 90), use(1, 1).With(waybill.CacheWrite30m, 30).With(waybill.CacheWrite1h, 60)},
		{"writes whose life the log tells", use(1, 1).With(waybill.CacheWrite5m, 90), use(1, 1).With(waybill.CacheWrite1h, 100), use(1, 1).With(waybill.CacheWrite1h, 100)},
		{"writes of which both have as many", use(1, 1).With(waybill.CacheWrite5m, 100), use(1, 1).With(waybill.CacheWrite1h, 100), use(1, 1).With(waybill.CacheWrite5m, 100)},
		{"writes that the gateway does not know", waybill.Usage{}, use(1, 1).With(waybill.CacheWrite1h, 100), use(1, 1).With(waybill.CacheWrite1h, 100)},
	} {
		l := open(t, t.TempDir())
		if err := l.AppendInvocations(t.Context(), load(1), []Row{fromGateway("1", at(5, 9, 0), tt.gateway), fromLog("1", at(5, 9, 0), tt.log)}); err != nil {
			t.Fatal(err)
		}
		cells := october2026(t, l)
		if len(cells) != 1 || cells[0].Calls != 1 || cells[0].Unknown != 0 || cells[0].Usage != tt.want {
			t.Errorf("%s: %+v, want %v", tt.name, cells, tt.want)
		}
	}
}
