package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
)

func audit(t *testing.T) *Audit {
	t.Helper()
	m, err := waybill.ParseMoney("12.35")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	a := &Audit{Currency: "USD", TakenAt: at.Format(time.RFC3339),
		History: []control.Score{{At: at.AddDate(0, 0, -7), Coverage: map[string]string{"team": "81.5"}}}, Score: &control.Score{At: at, Coverage: map[string]string{"team": "93.0"}},
		Findings: []control.Finding{
			{Control: "cost-tags-active", Status: control.Unknown, Severity: control.High, Account: "999900001111", Message: "AWS does not list them"},
			{Control: "logging-on", Status: control.Holds, Severity: control.High, Account: "111122223333", Region: "eu-west-1", Message: "logs go to s3://x"},
			{Control: "log-bucket", Status: control.Fails, Severity: control.High, Account: "111122223333", Region: "us-east-1", Message: "no policy", Fix: "waybill setup"},
			{Control: "logging-on", Status: control.Fails, Severity: control.High, Account: "111122223333", Region: "us-east-1", Subject: `<script>alert(1)</script>`, Message: "logging is off", Dollars: &m, Fix: "waybill setup"},
			{Control: "cost-tags-fresh", Status: control.Fails, Severity: control.Low, Message: "fresh"}}}
	control.Sort(a.Findings)
	return a
}

// What fails comes before what is unknown, the worst and dearest first; what holds is shown
// only if it is asked for.
func TestAuditText(t *testing.T) {
	var b bytes.Buffer
	AuditText(&b, audit(t))
	want := `high     logging-on  111122223333 us-east-1 <script>alert(1)</script>  12.35 USD at stake
         logging is off
         fix: waybill setup
high     log-bucket  111122223333 us-east-1
         no policy
         fix: waybill setup
low      cost-tags-fresh
         fresh
unknown  cost-tags-active  999900001111
         AWS does not list them
coverage of team: 93.0 % of dollars (before: 81.5)
`
	if got := b.String(); !strings.HasPrefix(got, want) || !strings.Contains(got, "3 findings open, 1 unknown, 1 places hold") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	a := audit(t)
	a.All = true
	b.Reset()
	AuditText(&b, a)
	if !strings.Contains(b.String(), "holds    logging-on  111122223333 eu-west-1") {
		t.Errorf("what holds is not shown:\n%s", b.String())
	}
}

// Every result names a rule that is there, at its index, and has a place and a text.
func TestAuditSARIF(t *testing.T) {
	var b bytes.Buffer
	if err := AuditSARIF(&b, audit(t), "v1"); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Schema  string `json:"$schema"`
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Results []struct {
				RuleID, Kind, Level string
				RuleIndex           int
				Message             struct{ Text string }
				Locations           []struct {
					LogicalLocations []struct{ FullyQualifiedName string }
				}
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || len(log.Runs[0].Results) != 4 || len(log.Runs[0].Tool.Driver.Rules) != len(control.Controls()) {
		t.Fatalf("version %s, %d runs", log.Version, len(log.Runs))
	}
	for i, r := range log.Runs[0].Results {
		// SARIF 2.1.0, 3.27.9: where kind is not "fail", level is "none".
		if log.Runs[0].Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID || r.Message.Text == "" || r.Locations[0].LogicalLocations[0].FullyQualifiedName == "" || (r.Kind == "fail") == (r.Level == "none") {
			t.Errorf("result %d: %+v", i, r)
		}
	}
}

// The page needs nothing but itself, and runs nothing that a finding brings.
func TestAuditHTML(t *testing.T) {
	var b bytes.Buffer
	if err := AuditHTML(&b, audit(t)); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, bad := range []string{"<script", "http://", "https://", "src=", "@import"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{"12.35 USD", "&lt;script&gt;", "93.0 % of dollars", "3 findings open"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestAuditJSON(t *testing.T) {
	var b bytes.Buffer
	if err := AuditJSON(&b, audit(t)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"dollarsAtStake": "12.35"`, `"failed": 3`, `"unknown": 1`, `"team": "93.0"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

// Names and values come from whoever called: none of them moves the cursor of a terminal,
// or makes a line of its own.
func TestHostileTextInATerminal(t *testing.T) {
	const hostile = "a\x1b[2J\rb\nhigh     faked\u202e"
	var b bytes.Buffer
	AuditText(&b, &Audit{Findings: []control.Finding{{Control: "vocabulary", Status: control.Fails, Severity: control.Low, Subject: hostile, Message: hostile, Fix: hostile}}})
	PlanText(&b, []control.Step{{Control: "role-trust", Account: "1", Words: hostile, Diff: []string{hostile}}})
	if got := b.String(); strings.ContainsAny(got, "\x1b\r\u202e") || strings.Contains(got, "\nhigh     faked") {
		t.Errorf("got %q", got)
	}
}

// Code scanners tell results apart by their fingerprint, and show those that have a file.
func TestAuditSARIFForScanners(t *testing.T) {
	a := audit(t)
	a.File = "infra/my accounts.yaml"
	a.Findings = append(a.Findings, a.Findings[0])
	var b bytes.Buffer
	if err := AuditSARIF(&b, a, "v1"); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Runs []struct {
			Results []struct {
				PartialFingerprints map[string]string
				Locations           []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, r := range log.Runs[0].Results {
		id := r.PartialFingerprints["place/v1"]
		if seen[id] || r.Locations[0].PhysicalLocation.ArtifactLocation.URI != "infra/my%20accounts.yaml" {
			t.Errorf("fingerprint %q (seen: %t), locations %+v", id, seen[id], r.Locations)
		}
		seen[id] = true
	}
}
