package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/journal"
)

func readLog(t testing.TB, text string) (rows []waybill.Invocation, bad []string, other int64) {
	t.Helper()
	r, err := newLogReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	other, err = r.each(func(v waybill.Invocation, _ int64) error { rows = append(rows, v); return nil },
		func(line int64, reason string) { bad = append(bad, fmt.Sprintf("%d: %s", line, reason)) })
	if err != nil {
		t.Fatal(err)
	}
	return rows, bad, other
}

const record = `{"schemaType":"ModelInvocationLog","timestamp":"2026-10-05T10:00:00Z","accountId":"111122223333","region":"us-east-1","requestId":"r1","operation":"Converse","modelId":"us.amazon.nova-lite-v1:0","identity":{"arn":"arn:aws:sts::111122223333:assumed-role/app/user-17"},"requestMetadata":{"team":"search"},"input":{"inputTokenCount":10,"cacheReadInputTokenCount":3},"output":{"outputTokenCount":20}}`

// Every usage that the log knows is read, and none is made up.
func TestLogRecords(t *testing.T) {
	body := func(input, output string) string {
		return `{"timestamp":"2026-10-05T10:00:00Z","accountId":"1","region":"r","requestId":"x","modelId":"m",` + input + `,` + output + `}`
	}
	u := func(in, out, read, w5, w1 int64) waybill.Usage {
		return waybill.NewUsage().With(waybill.Input, in).With(waybill.Output, out).With(waybill.CacheRead, read).With(waybill.CacheWrite5m, w5).With(waybill.CacheWrite1h, w1)
	}
	for _, tt := range []struct {
		name, text string
		want       waybill.Usage
	}{
		{"counters", record, u(10, 20, 3, 0, 0)},
		{"embedding: no output", body(`"input":{"inputTokenCount":7}`, `"output":{}`), u(7, 0, 0, 0, 0)},
		{"one counter of cache writes", body(`"input":{"inputTokenCount":7,"cacheWriteInputTokenCount":9}`, `"output":{"outputTokenCount":1}`), u(7, 1, 0, 9, 0)},
		{"the body tells the life of the cache", body(`"input":{"inputTokenCount":7,"cacheWriteInputTokenCount":9}`,
			`"output":{"outputTokenCount":1,"outputBodyJson":{"usage":{"inputTokens":7,"outputTokens":1,"totalTokens":17,"cacheWriteInputTokens":9,"cacheDetails":[{"ttl":"1h","inputTokens":4},{"ttl":"5m","inputTokens":5}]}}}`), u(7, 1, 0, 5, 4)},
		{"counters in the text of a body are text", body(`"input":{"inputTokenCount":7,"inputBodyJson":{"text":"\"inputTokenCount\":999"}}`, `"output":{"outputTokenCount":1,"outputBodyJson":{"inputTokenCount":5}}`), u(7, 1, 0, 0, 0)},
		{"no counters, usage in the body", body(`"input":{}`, `"output":{"outputBodyJson":{"usage":{"input_tokens":5,"output_tokens":6}}}`), u(5, 6, 0, 0, 0)},
		{"a video", body(`"input":{}`, `"output":{"outputVideoDurationSeconds":6.04,"outputVideoFramesPerSecond":24}`), waybill.NewUsage().With(waybill.VideoSecond, 6)},
		{"a video a frame short", body(`"input":{}`, `"output":{"outputVideoDurationSeconds":8.96}`), waybill.NewUsage().With(waybill.VideoSecond, 9)},
		{"images in the body", body(`"input":{}`, `"output":{"outputBodyJson":{"images":["aGk="]}}`), waybill.NewUsage().With(waybill.OutputImage, 1)},
		{"no counters at all", body(`"input":{}`, `"output":{}`), waybill.Usage{}},
		{"failed", body(`"errorCode":"ThrottlingException","input":{}`, `"output":{}`), waybill.NewUsage()},
	} {
		rows, bad, _ := readLog(t, tt.text)
		if len(rows) != 1 || len(bad) != 0 {
			t.Errorf("%s: %d rows, bad %v", tt.name, len(rows), bad)
			continue
		}
		if rows[0].Usage != tt.want {
			t.Errorf("%s: usage %v, want %v", tt.name, rows[0].Usage, tt.want)
		}
	}
	rows, _, _ := readLog(t, record)
	v := rows[0]
	if team, _ := v.Tags.Get("team"); team != "search" || v.SessionName != "user-17" || v.Scope != waybill.Geo || v.Model != "amazon.nova-lite-v1:0" {
		t.Errorf("row = %+v", v)
	}
}

// What cannot be read is named with its place, and what is known to be no record is not
// taken for a broken one.
func TestBrokenLogs(t *testing.T) {
	pretty := strings.ReplaceAll(record, ",", ",\n   ")
	text := "Permissions are correctly set for Amazon Bedrock logs.\n\n" + record + "\n" + `{"broken": ` + "\n" // cut short: swallows what follows
	rows, bad, other := readLog(t, text)
	if len(rows) != 1 || len(bad) != 1 || other != 1 || !strings.HasPrefix(bad[0], "4: ") {
		t.Errorf("%d rows, bad %v, %d other", len(rows), bad, other)
	}
	for name, text := range map[string]string{"pretty-printed": pretty, "twice on a line": record + record, "with a time before it": "2026-10-05T10:00:00Z " + record, "with CRLF": record + "\r\n"} {
		rows, bad, _ := readLog(t, text)
		if len(rows) == 0 || len(bad) != 0 {
			t.Errorf("%s: %d rows, bad %v", name, len(rows), bad)
		}
	}
	for text, reason := range map[string]string{"hello\n": "not JSON", `{"timestamp":"2026-10-05T10:00:00Z"}`: "no requestId", `{"requestId":"x","timestamp":"soon"}`: "not a time",
		`{"requestId":"x","timestamp":"2026-10-05T10:00:00Z","input":{"inputTokenCount":-1}}`: "negative", `{"requestId":"x","timestamp":"2026-10-05T10:00:00Z","input":{"inputTokenCount":"3"}}`: "type"} {
		rows, bad, _ := readLog(t, text)
		if len(rows) != 0 || len(bad) != 1 || !strings.Contains(bad[0], reason) {
			t.Errorf("%s: %d rows, bad %v, want %q", text, len(rows), bad, reason)
		}
	}
}

func FuzzLogRecord(f *testing.F) {
	f.Add([]byte(record))
	f.Add([]byte(record + "\n" + record))
	f.Add([]byte("Permissions are correctly set for Amazon Bedrock logs."))
	f.Add([]byte(`{"requestId":"x","timestamp":"2026-10-05T10:00:00Z","output":{"outputBodyJson":[{"a":1}]}}`))
	f.Add([]byte("{\n{\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newLogReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		_, _ = r.each(func(v waybill.Invocation, line int64) error {
			if v.RequestID == "" || v.StartedAt.IsZero() && v.StartedAt.Location() == nil || line < 1 {
				t.Errorf("a row without identity: %+v at line %d", v, line)
			}
			for k, n := range v.Usage.All() {
				if n < 0 {
					t.Errorf("%s is %d", k, n)
				}
			}
			return nil
		}, func(int64, string) {})
	})
}

func TestWhichObjectsAreRead(t *testing.T) {
	const root = "s3://b/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1/"
	for uri, want := range map[string]bool{
		root + "2026/10/05/10/20261005T101500000Z_0123456789abcdef.json.gz": true,
		root + "2026/10/05/10/data/r1_input.json.gz":                        false,
		root + "amazon-bedrock-logs-permission-check":                       false,
		root + "amazon-bedrock-logs-permission-check.json":                  false,
		"file:///logs/log.jsonl":                                            true,
		"file:///logs/readme.md":                                            false,
	} {
		if got := isLogObject(uri); got != want {
			t.Errorf("isLogObject(%s) = %v, want %v", uri, got, want)
		}
	}
	for uri, want := range map[string]bool{
		"s3://b/x/metadata/BILLING_PERIOD=2026-10/x-Manifest.json":                               true,
		"s3://b/x/metadata/BILLING_PERIOD=2026-10/Manifest.json":                                 true,
		"s3://b/x/metadata/BILLING_PERIOD=2026-10/2026-10-28T13:14:37.728Z-8c5a/x-Manifest.json": false,
		"s3://b/x/data/BILLING_PERIOD=2026-10/x-00001.snappy.parquet":                            false,
	} {
		if got := isManifest(uri); got != want {
			t.Errorf("isManifest(%s) = %v, want %v", uri, got, want)
		}
	}
}

func TestManifests(t *testing.T) {
	const key = "s3://b/x/metadata/BILLING_PERIOD=2026-10/x-Manifest.json"
	for _, tt := range []struct{ name, body, files, period, err string }{
		{"texts", `{"dataFiles":["s3://b/x/data/a.parquet","/x/data/b.parquet"],"billingPeriod":{"start":"2026-09-01T00:00:00Z"}}`, "/x/data/b.parquet s3://b/x/data/a.parquet", "2026-09", ""},
		{"objects", `{"dataFiles":[{"path":"x/data/a.parquet"},{"uri":"s3://b/c.csv.gz"}]}`, "s3://b/c.csv.gz x/data/a.parquet", "2026-10", ""},
		{"another member", `{"parts":{"list":["s3://b/x/data/a.parquet","s3://b/other"]}}`, "s3://b/x/data/a.parquet", "2026-10", ""},
		{"none", `{"columns":[]}`, "", "", "names no data files"},
		{"not JSON", `<xml>`, "", "", "read manifest"},
	} {
		p, files, err := readManifest([]byte(tt.body), key)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil || strings.Join(files, " ") != tt.files || p.String() != tt.period {
			t.Errorf("%s: %s %v %v", tt.name, p, files, err)
		}
	}
}

// The records found in public are read, every one of them.
func TestSamplesFoundInPublic(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "samples")
	names, err := filepath.Glob(filepath.Join(dir, "*log-*.jsonl"))
	if err != nil || len(names) == 0 {
		t.Skipf("%s is not beside the checkout", dir)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Count(strings.TrimSpace(string(raw)), "\n") + 1
		rows, bad, _ := readLog(t, string(raw))
		if len(bad) > 0 || len(rows) != want {
			t.Errorf("%s: %d of %d records, bad %v", filepath.Base(name), len(rows), want, bad)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "log-permission-line.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if rows, bad, other := readLog(t, string(raw)); len(rows)+len(bad) > 0 || other != 1 {
		t.Errorf("the permission line: %d rows, bad %v, %d other", len(rows), bad, other)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "cur2-manifest-from-test-fixtures.json"))
	if err != nil {
		t.Fatal(err)
	}
	if p, files, err := readManifest(manifest, "x"); err != nil || p.String() != "2026-10" || len(files) != 1 {
		t.Errorf("the manifest: %s %v %v", p, files, err)
	}
}

// memLake is a lake that keeps its promise: a commit is there whole or not at all. It
// may be told to fail before or after one.
type memLake struct {
	loaded map[waybill.Object]bool
	rows   map[string]int
	fail   func() (before, after bool)
}

func (m *memLake) Loaded(context.Context) (map[waybill.Object]bool, error) { return m.loaded, nil }

var errKilled = errors.New("killed")

func (m *memLake) Append(_ context.Context, loads []Load, rows []Row) error {
	before, after := m.fail()
	if before {
		return errKilled
	}
	for _, l := range loads {
		m.loaded[waybill.Object{URI: l.Object.URI, Version: l.Object.Version}] = true
	}
	for _, r := range rows {
		m.rows[r.RequestID]++
	}
	if after {
		return errKilled
	}
	return nil
}

func (m *memLake) Replace(context.Context, Export, time.Time) (Load, error) {
	return Load{}, fs.ErrInvalid
}

// A run that is killed anywhere and run again loads every object once.
func TestKilledAndRunAgain(t *testing.T) {
	dir := t.TempDir()
	const objects, each = 20, 7
	for i := range objects {
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		for j := range each {
			io.WriteString(z, strings.Replace(record, `"r1"`, fmt.Sprintf(`"r-%d-%d"`, i, j), 1)+"\n")
		}
		if err := errors.Join(z.Close(), os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.json.gz", i)), buf.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		lake := &memLake{loaded: map[waybill.Object]bool{}, rows: map[string]int{}, fail: func() (bool, bool) { n := r.IntN(5); return n == 0, n == 1 }}
		for {
			_, err := Run(t.Context(), lake, Options{Logs: dir, BatchRows: 1 + r.IntN(40)})
			if err == nil {
				break
			}
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
		}
		if len(lake.rows) != objects*each {
			t.Fatalf("%d calls, want %d", len(lake.rows), objects*each)
		}
		for id, n := range lake.rows {
			if n != 1 {
				t.Fatalf("call %s was loaded %d times", id, n)
			}
		}
		lake.fail = func() (bool, bool) { return false, false }
		s, err := Run(t.Context(), lake, Options{Logs: dir})
		if err != nil || s.Loaded["log"] != 0 || s.Skipped["log"] != objects {
			t.Fatalf("a second run loaded %d and skipped %d: %v", s.Loaded["log"], s.Skipped["log"], err)
		}
	}
}

// A sealed segment that has lost its end is not taken for a whole one.
func TestSegmentWithoutItsEnd(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Start(dir, journal.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		v := waybill.Invocation{CallID: id, RequestID: id, Source: waybill.FromGateway, Outcome: waybill.Completed, StartedAt: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)}
		if err := j.Close(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Stop(); err != nil {
		t.Fatal(err)
	}
	segments, err := journal.Segments(dir)
	if err != nil || len(segments) != 1 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	whole, err := os.ReadFile(segments[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	const footer = 48 // bytes
	for _, tt := range []struct {
		name    string
		segment []byte
		bad     int
	}{
		{"whole", whole, 0},
		{"cut where a record ends", whole[:len(whole)-footer], 1},
		{"zeros in the place of its end", append(bytes.Clone(whole[:len(whole)-footer]), make([]byte, 4096)...), 1},
	} {
		if err := os.WriteFile(segments[0].Path, tt.segment, 0o600); err != nil {
			t.Fatal(err)
		}
		lake := &memLake{loaded: map[waybill.Object]bool{}, rows: map[string]int{}, fail: func() (bool, bool) { return false, false }}
		s, err := Run(t.Context(), lake, Options{Journal: dir})
		if err != nil || len(s.Quarantined) != tt.bad || len(lake.rows) != 2 {
			t.Errorf("%s: %d rows, quarantined %v, %v", tt.name, len(lake.rows), s.Quarantined, err)
		}
	}
}

func BenchmarkLogRecords(b *testing.B) {
	var one map[string]any
	if err := json.Unmarshal([]byte(record), &one); err != nil {
		b.Fatal(err)
	}
	one["input"].(map[string]any)["inputBodyJson"] = map[string]any{"text": strings.Repeat(`a text with \"escapes\" and numbers 12345 `, 1000)}
	line, err := json.Marshal(one)
	if err != nil {
		b.Fatal(err)
	}
	var buf bytes.Buffer
	for range 100 {
		buf.Write(line)
		buf.WriteByte('\n')
	}
	b.SetBytes(int64(buf.Len()))
	for b.Loop() {
		r, err := newLogReader(bytes.NewReader(buf.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.each(func(waybill.Invocation, int64) error { return nil }, func(int64, string) { b.Fatal("bad") }); err != nil {
			b.Fatal(err)
		}
	}
}
