package report

import (
	"fmt"
	"html/template"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
)

// Audit is what an audit found, and how it compares with earlier ones.
type Audit struct {
	Findings []control.Finding // sorted
	History  []control.Score   // earlier ones, oldest first
	Score    *control.Score    // of this audit; nil without a ledger
	Currency string
	TakenAt  string // RFC 3339
	All      bool   // show what holds as well
	File     string // the declaration that was audited
}

func (a *Audit) shown() []control.Finding {
	if a.All {
		return a.Findings
	}
	return slices.DeleteFunc(slices.Clone(a.Findings), func(f control.Finding) bool { return f.Status == control.Holds })
}

func (a *Audit) summary() string {
	failed, unknown := control.News(a.Findings)
	return fmt.Sprintf("%d controls; %d findings open, %d unknown, %d places hold", len(control.Controls()), failed, unknown, len(a.Findings)-failed-unknown)
}

// trend tells in words how coverage went since the last audit.
func (a *Audit) trend() []string {
	if a.Score == nil {
		return nil
	}
	var out []string
	for _, k := range sortedKeys(a.Score.Coverage) {
		s := fmt.Sprintf("%s: %s %% of dollars", k, a.Score.Coverage[k])
		var before []string
		for _, h := range a.History[max(0, len(a.History)-5):] {
			if c, ok := h.Coverage[k]; ok {
				before = append(before, c)
			}
		}
		if len(before) > 0 {
			s += " (before: " + strings.Join(before, ", ") + ")"
		}
		out = append(out, s)
	}
	return out
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (a *Audit) dollars(m *waybill.Money) string {
	if m == nil {
		return ""
	}
	return m.Round(2) + " " + a.Currency
}

// AuditText writes an audit for a terminal: a finding a paragraph, since a fix that is cut
// off at the edge of a table is no fix.
func AuditText(w io.Writer, a *Audit) {
	for _, f := range a.shown() {
		mark := string(f.Severity)
		if f.Status != control.Fails {
			mark = string(f.Status)
		}
		fmt.Fprintf(w, "%-8s %s", mark, f.Control)
		if place := f.Where(); place != "" {
			fmt.Fprintf(w, "  %s", oneLine(place))
		}
		if f.Dollars != nil {
			fmt.Fprintf(w, "  %s at stake", a.dollars(f.Dollars))
		}
		fmt.Fprintf(w, "\n         %s\n", oneLine(f.Message))
		if f.Fix != "" {
			fmt.Fprintf(w, "         fix: %s\n", oneLine(f.Fix))
		}
	}
	for _, t := range a.trend() {
		fmt.Fprintln(w, "coverage of", oneLine(t))
	}
	fmt.Fprintln(w, a.summary())
}

// AuditJSON writes an audit.
func AuditJSON(w io.Writer, a *Audit) error {
	failed, unknown := control.News(a.Findings)
	out := object{"version": Version, "taken_at": a.TakenAt, "currency": a.Currency, "findings": a.shown(), "failed": failed, "unknown": unknown, "history": append([]control.Score{}, a.History...)}
	if a.Score != nil {
		out["score"] = a.Score
	}
	return write(w, out)
}

// AuditSARIF writes an audit as SARIF 2.1.0, which code scanners and ticket systems read.
// Accounts have no files: a finding's place is a logical location, beside the declaration,
// since code scanners show nothing that has no file.
func AuditSARIF(w io.Writer, a *Audit, version string) error {
	var rules []object
	index := make(map[string]int)
	level := map[control.Severity]string{control.High: "error", control.Medium: "warning", control.Low: "note"}
	for i, c := range control.Controls() {
		index[c.ID] = i
		rules = append(rules, object{"id": c.ID, "name": c.ID, "shortDescription": object{"text": c.Title}, "fullDescription": object{"text": c.Holds + " " + c.Why},
			"help": object{"text": c.Remedy}, "defaultConfiguration": object{"level": level[c.Severity]}, "properties": object{"tags": c.Practices, "seen": c.Seen}})
	}
	results := []object{}
	same := make(map[string]int)
	for _, f := range a.shown() {
		kind, lvl := "fail", level[f.Severity]
		switch f.Status {
		case control.Unknown:
			kind, lvl = "review", "none"
		case control.Holds:
			kind, lvl = "pass", "none"
		}
		text := f.Message
		if f.Fix != "" {
			text += ". Fix: " + f.Fix
		}
		place := strings.ReplaceAll(f.Where(), " ", "/")
		fingerprint := f.Control + "/" + place
		if same[fingerprint]++; same[fingerprint] > 1 { // one place may have several findings
			fingerprint += fmt.Sprintf("#%d", same[fingerprint])
		}
		location := object{"logicalLocations": []object{{"fullyQualifiedName": strings.TrimSuffix("aws/"+place, "/"), "kind": "resource"}}}
		if a.File != "" {
			location["physicalLocation"] = object{"artifactLocation": object{"uri": (&url.URL{Path: filepath.ToSlash(a.File)}).String()}, "region": object{"startLine": 1}}
		}
		r := object{"ruleId": f.Control, "ruleIndex": index[f.Control], "kind": kind, "level": lvl, "message": object{"text": text},
			"locations": []object{location}, "partialFingerprints": object{"place/v1": fingerprint}}
		if f.Dollars != nil {
			r["properties"] = object{"dollarsAtStake": f.Dollars, "currency": a.Currency}
		}
		results = append(results, r)
	}
	return write(w, object{"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": []object{{
		"tool":    object{"driver": object{"name": "waybill", "version": version, "informationUri": "https://github.com/waybill-dev/waybill", "rules": rules}},
		"results": results, "invocations": []object{{"executionSuccessful": true, "endTimeUtc": a.TakenAt}}}}})
}

var auditPage = template.Must(template.New("audit").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Waybill audit of {{.TakenAt}}</title>
<style>
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.45rem .6rem;border-bottom:1px solid #d8dee4}
th{font-weight:600}td.n{text-align:right;white-space:nowrap}.high{color:#a40e26;font-weight:600}.medium{color:#7a4d00;font-weight:600}.low,.unknown{color:#57606a}.holds{color:#116329}
.fix{color:#57606a}@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}.high{color:#ff7b72}.medium{color:#e3b341}.holds{color:#56d364}.low,.unknown,.fix{color:#8b949e}}
</style></head><body>
<h1>Waybill audit</h1><p>As of {{.TakenAt}}. {{.Summary}}.</p>
{{if .Trend}}<h2>Coverage</h2><ul>{{range .Trend}}<li>{{.}}</li>{{end}}</ul>{{end}}
<h2>Findings</h2><table><thead><tr><th>Severity</th><th>Control</th><th>Where</th><th>What</th><th>At stake</th></tr></thead><tbody>
{{range .Rows}}<tr><td class="{{.Mark}}">{{.Mark}}</td><td>{{.Title}}<br><code>{{.ID}}</code></td><td>{{.Where}}</td><td>{{.Message}}{{if .Fix}}<br><span class="fix">Fix: {{.Fix}}</span>{{end}}</td><td class="n">{{.Dollars}}</td></tr>
{{else}}<tr><td colspan="5">Every control holds.</td></tr>
{{end}}</tbody></table></body></html>
`))

// AuditHTML writes an audit as one page that needs nothing else: no script, no network.
func AuditHTML(w io.Writer, a *Audit) error {
	type row struct{ Mark, ID, Title, Where, Message, Fix, Dollars string }
	titles := make(map[string]string)
	for _, c := range control.Controls() {
		titles[c.ID] = c.Title
	}
	var rows []row
	for _, f := range a.shown() {
		mark := string(f.Severity)
		if f.Status != control.Fails {
			mark = string(f.Status)
		}
		rows = append(rows, row{mark, f.Control, titles[f.Control], f.Where(), f.Message, f.Fix, a.dollars(f.Dollars)})
	}
	return auditPage.Execute(w, struct {
		TakenAt, Summary string
		Trend            []string
		Rows             []row
	}{a.TakenAt, a.summary(), a.trend(), rows})
}

// oneLine is text as a terminal may be sent it: names and values come from whoever called,
// and must not move the cursor or look like other lines.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '\uFFFD'
	}, s)
}

// PlanText writes a plan as a diff in words.
func PlanText(w io.Writer, steps []control.Step) {
	for _, s := range steps {
		fmt.Fprintf(w, "%s: %s  (%s, for %s)\n", s.Target(), oneLine(s.Words), s.Action, s.Control)
		for _, line := range s.Diff {
			fmt.Fprintf(w, "    %s\n", oneLine(line))
		}
		if s.Risk != "" {
			fmt.Fprintf(w, "    ! %s: made only with --accept %s\n", s.Risk, s.Control)
		}
	}
}
