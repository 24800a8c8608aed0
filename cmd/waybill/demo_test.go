package main

import (
	"bytes"
	"encoding/json"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// waybilld builds the gateway; waybill itself is this test's own code.
func waybilld(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "waybilld")
	build := exec.Command("go", "build", "-o", path, "../waybilld")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// runCommand runs a command and gives its exit code and what it printed.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func must(t *testing.T, want int, args ...string) string {
	t.Helper()
	code, out, errs := runCommand(t, args...)
	if code != want {
		t.Fatalf("waybill %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out
}

// rat is a decimal string, read without our own arithmetic.
func rat(t *testing.T, v any) *big.Rat {
	t.Helper()
	s, ok := v.(string)
	r, good := new(big.Rat).SetString(s)
	if !ok || !good {
		t.Fatalf("%v is not a decimal string", v)
	}
	return r
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return m
}

// addsUp holds a report to its promise: rows and unattributed are total, and total is
// the bill, to the last decimal.
func addsUp(t *testing.T, text string) {
	t.Helper()
	m := parse(t, text)
	sum := rat(t, m["unattributed"])
	for _, r := range m["rows"].([]any) {
		sum.Add(sum, rat(t, r.(map[string]any)["cost"]))
	}
	buckets := new(big.Rat)
	for _, b := range m["buckets"].([]any) {
		buckets.Add(buckets, rat(t, b.(map[string]any)["cost"]))
	}
	if sum.Cmp(rat(t, m["total"])) != 0 || sum.Cmp(rat(t, m["billed"])) != 0 || buckets.Cmp(rat(t, m["unattributed"])) != 0 {
		t.Errorf("rows and unattributed are %s, total is %s, billed %s, buckets %s", sum.FloatString(18), m["total"], m["billed"], buckets.FloatString(18))
	}
}

// varianceAddsUp holds a reconciliation to its promise: the variance is the sum of its
// buckets and of its keys, and of each key the sum of its five parts.
func varianceAddsUp(t *testing.T, text string) (buckets map[string]string, keys []any) {
	t.Helper()
	m := parse(t, text)
	variance := rat(t, m["variance"])
	if want := new(big.Rat).Sub(rat(t, m["billed"]), rat(t, m["metered"])); variance.Cmp(want) != 0 {
		t.Errorf("variance %s is not billed less metered", m["variance"])
	}
	buckets = make(map[string]string)
	inBuckets, inKeys := new(big.Rat), new(big.Rat)
	for _, b := range m["buckets"].([]any) {
		b := b.(map[string]any)
		inBuckets.Add(inBuckets, rat(t, b["amount"]))
		buckets[b["bucket"].(string)] = b["amount"].(string)
		evidence := new(big.Rat)
		for _, e := range b["evidence"].([]any) {
			evidence.Add(evidence, rat(t, e.(map[string]any)["amount"]))
		}
		if evidence.Cmp(rat(t, b["amount"])) != 0 {
			t.Errorf("the evidence of %s adds up to %s, not %s", b["bucket"], evidence.FloatString(18), b["amount"])
		}
	}
	for _, k := range m["keys"].([]any) {
		k := k.(map[string]any)
		parts := new(big.Rat)
		for _, p := range []string{"quantity_variance", "rate_variance", "timing", "rounding", "unmatched"} {
			parts.Add(parts, rat(t, k[p]))
		}
		own := new(big.Rat).Sub(rat(t, k["billed"]), rat(t, k["metered"]))
		if parts.Cmp(own) != 0 {
			t.Errorf("the parts of %v add up to %s, not %s", k, parts.FloatString(18), own.FloatString(18))
		}
		inKeys.Add(inKeys, own)
	}
	if inBuckets.Cmp(variance) != 0 || inKeys.Cmp(variance) != 0 {
		t.Errorf("buckets add up to %s and keys to %s, variance is %s", inBuckets.FloatString(18), inKeys.FloatString(18), m["variance"])
	}
	return buckets, m["keys"].([]any)
}

// The whole story: a month through the gateway, told to the last decimal; then the same
// records ingested again, in another order, and by halves.
func TestDemo(t *testing.T) {
	gateway := waybilld(t)
	dir := filepath.Join(t.TempDir(), "month")
	out := must(t, 0, "demo", "--once", "--dir", dir, "--waybilld", gateway, "--calls", "1200")
	for _, want := range []string{"WHO SPENT IT", "DOES IT ADD UP", "bypass", "not_logged", "usage_unknown", "rate", ": found"} {
		if !strings.Contains(out, want) {
			t.Errorf("the story does not say %q", want)
		}
	}
	byTeam := must(t, 0, "report", "--dir", dir, "--by", "team", "--output", "json")
	addsUp(t, byTeam)
	m := parse(t, byTeam)
	if m["basis"] != "calibrated" || len(m["rows"].([]any)) != 6 {
		t.Errorf("basis %v with %d rows, want calibrated with 6 teams", m["basis"], len(m["rows"].([]any)))
	}
	for _, by := range []string{"user,model", "principal", "day", "usage_type", "costCenter,environment,application", "source,tier,scope"} {
		addsUp(t, must(t, 0, "report", "--dir", dir, "--by", by, "--output", "json"))
	}
	addsUp(t, must(t, 0, "report", "--dir", dir, "--by", "team", "--basis", "invoice", "--output", "json"))
	must(t, 0, "report", "--dir", dir, "--by", "team", "--basis", "estimate", "--output", "csv")
	reconciled := must(t, 3, "reconcile", "--dir", dir, "--output", "json") // the news is bad
	buckets, _ := varianceAddsUp(t, reconciled)
	for _, want := range []string{"bypass", "not_logged", "rate", "usage_unknown", "mantle_unseen", "tax", "credit", "commitment", "guardrail", "rounding"} {
		if buckets[want] == "" && want != "rounding" {
			t.Errorf("no bucket %s: %v", want, buckets)
		}
		delete(buckets, want)
	}
	if len(buckets) > 0 {
		t.Errorf("buckets that nobody planted: %v", buckets)
	}

	goesRound(t, dir)

	// Again: nothing is loaded, nothing changes.
	again := parse(t, must(t, 0, "ingest", "--dir", dir, "--output", "json"))
	if n := len(again["loaded"].(map[string]any)); n != 0 {
		t.Errorf("a second ingest loaded %v", again["loaded"])
	}
	if got := must(t, 0, "report", "--dir", dir, "--by", "team", "--output", "json"); got != byTeam {
		t.Error("a second ingest changed the report")
	}

	// In another order, with every log object there twice under another name.
	other := filepath.Join(t.TempDir(), "lake")
	copies := filepath.Join(t.TempDir(), "copies")
	if err := os.CopyFS(copies, os.DirFS(filepath.Join(dir, "aws", "logs"))); err != nil {
		t.Fatal(err)
	}
	must(t, 0, "ingest", "--lake", other, "--cur", filepath.Join(dir, "aws", "cur"))
	must(t, 0, "ingest", "--lake", other, "--logs", copies)
	early := must(t, 0, "report", "--lake", other, "--rates", filepath.Join(dir, "rates.csv"), "--by", "team", "--output", "json")
	addsUp(t, early) // before any journal: an account's own logs and bill
	must(t, 0, "ingest", "--lake", other, "--logs", filepath.Join(dir, "aws", "logs"), "--journal", filepath.Join(dir, "journal"))
	if got := must(t, 0, "report", "--lake", other, "--rates", filepath.Join(dir, "rates.csv"), "--by", "team", "--output", "json"); got != byTeam {
		t.Error("another order, with copies, gave another report")
	}
	if got := must(t, 3, "reconcile", "--lake", other, "--rates", filepath.Join(dir, "rates.csv"), "--output", "json"); got != reconciled {
		t.Error("another order, with copies, gave another reconciliation")
	}

	// Without a price, usage is unpriced: a state, never zero dollars in silence.
	empty := parse(t, must(t, 0, "report", "--lake", other, "--by", "team", "--basis", "estimate", "--output", "json"))
	for _, r := range empty["rows"].([]any) {
		r := r.(map[string]any)
		if r["unpriced"].(float64) == 0 || r["cost"] != "0" {
			t.Errorf("without a rate card: %v", r)
		}
	}
}

// goesRound holds the radar to the month: the two users that never passed the gateway are
// found, with their dollars; the gateway's role is ours and would go on; and all of the
// bill is somewhere.
func goesRound(t *testing.T, dir string) {
	t.Helper()
	radar := func(role string) map[string]any {
		return parse(t, must(t, 3, "guard", "radar", "--dir", dir, "--since", "2020-01-01", "--gateway", "arn:aws:iam::111122223333:role/waybill/gateway", "--role", role, "--output", "json"))
	}
	m := radar("arn:aws:iam::*:role/waybill/*")
	seen := make(map[string]map[string]any)
	total := rat(t, m["unnamed"])
	for _, p := range m["principals"].([]any) {
		p := p.(map[string]any)
		seen[p["principal"].(string)[strings.LastIndexByte(p["principal"].(string), ':')+1:]] = p
		total.Add(total, rat(t, p["billed"]))
	}
	billed := rat(t, parse(t, must(t, 0, "report", "--dir", dir, "--by", "team", "--basis", "invoice", "--output", "json"))["billed"])
	if total.Cmp(billed) != 0 {
		t.Errorf("principals and unnamed add up to %s, the bill is %s", total.FloatString(18), billed.FloatString(18))
	}
	for _, who := range []string{"user/legacy-batch", "user/lab-notebook"} {
		if p := seen[who]; p == nil || p["verdict"] != "breaks" || p["ours"] != nil || rat(t, p["billed"]).Sign() <= 0 {
			t.Errorf("%s: %v", who, p)
		}
	}
	if p := seen["role/waybill/bedrock"]; p == nil || p["ours"] != "gateway" || p["verdict"] != "goes on" {
		t.Errorf("the gateway's role: %v of %v", p, m["principals"])
	}
	// A guard that names other roles than the gateway's would stop the gateway.
	if m := radar("arn:aws:iam::*:role/other/x-*"); m["breaks_ours"].(float64) == 0 {
		t.Errorf("a mistaken guard: %v", m)
	}
}

// With nothing planted, every part of every key but rounding is zero.
func TestCleanDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "month")
	must(t, 0, "demo", "--once", "--clean", "--dir", dir, "--waybilld", waybilld(t), "--calls", "900", "--seed", "7")
	_, keys := varianceAddsUp(t, must(t, 0, "reconcile", "--dir", dir, "--output", "json"))
	if len(keys) < 20 {
		t.Errorf("%d keys, want many", len(keys))
	}
	for _, k := range keys {
		k := k.(map[string]any)
		for _, p := range []string{"quantity_variance", "rate_variance", "timing", "unmatched"} {
			if k[p] != "0" {
				t.Errorf("%s of %v %v %v is %v", p, k["region"], k["model"], k["usage_type"], k[p])
			}
		}
	}
	addsUp(t, must(t, 0, "report", "--dir", dir, "--by", "team", "--output", "json"))
}

func TestMisuse(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"report"}, 2, "no lake is named"},
		{[]string{"report", "--dir", "/no/such/folder"}, 2, "there is no such folder"},
		{[]string{"report", "--lake", "x", "--output", "xml"}, 2, "--output"},
		{[]string{"report", "--lake", t.TempDir()}, 1, "is empty"},
		{[]string{"ingest", "--lake", "x"}, 2, "nothing to ingest"},
		{[]string{"frobnicate"}, 2, "unknown command"},
		{[]string{"report", "--no-such-flag"}, 2, "no-such-flag"},
		{[]string{"demo", "--period", "October"}, 2, "YYYY-MM"},
	} {
		code, _, stderr := runCommand(t, tt.args...)
		if code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("waybill %v: exit %d, %q; want %d with %q", tt.args, code, stderr, tt.code, tt.want)
		}
	}
}
