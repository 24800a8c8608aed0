//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// A point is one measure of one contestant.
type point struct {
	Measure    string             `json:"measure"`
	Contestant string             `json:"contestant"`
	Others     float64            `json:"others"`    // part of the machine that other processes used
	Again      int                `json:"again"`     // how often it was taken again
	Disturbed  bool               `json:"disturbed"` // others used more than a tenth all the same
	Figures    map[string]float64 `json:"figures"`
}

// A result is what a run has found.
type result struct {
	Date        string   `json:"date"`
	Commit      string   `json:"commit"`
	Command     string   `json:"command"`
	Machine     machine  `json:"machine"`
	Seconds     float64  `json:"seconds"`
	PerSecond   int      `json:"calls_per_second"`
	FewStreams  int      `json:"few_streams"`
	ManyStreams int      `json:"many_streams"`
	Contestants []string `json:"contestants"`
	Points      []point  `json:"points"`
	Checks      []string `json:"checks"`
	Notes       []string `json:"notes"`

	titles []string
}

func (r *result) add(p point) { r.Points = append(r.Points, p) }

// values are those of a figure of a contestant, in the order in which they were taken.
func (r *result) values(contestant, figure string) []float64 {
	var out []float64
	for _, p := range r.Points {
		if v, ok := p.Figures[figure]; ok && p.Contestant == contestant {
			out = append(out, v)
		}
	}
	return out
}

// A row is a figure in the report.
type row struct {
	figure string
	title  string
	unit   string // as fmt writes a value
	added  bool   // what a contestant adds to direct calls, turn by turn
	most   bool   // the largest value is the best
	target string
}

func (r *result) rows() []row {
	few, many := "", "" // the targets are of 2,000 and 10,000
	if r.FewStreams == 2000 {
		few = "≤ 100"
	}
	if r.ManyStreams >= 9000 { // as many as the limits let it hold
		many = fmt.Sprintf("≤ %d", 400*r.ManyStreams/10000)
	}
	return []row{
		{figure: "cpu1", title: "CPU per request, 1 KB, µs", unit: "%.0f", target: "≤ 1.25x"},
		{figure: "cpu20", title: "CPU per request, 20 KB, µs", unit: "%.0f", target: "≤ 1.25x"},
		{figure: "cpu200", title: "CPU per request, 200 KB, µs", unit: "%.0f", target: "≤ 1.5x"},
		{figure: "rps1", title: "requests a second on one core, 1 KB", unit: "%.0f", most: true, target: "≥ 4,000"},
		{figure: "rps20", title: "requests a second on one core, 20 KB", unit: "%.0f", most: true},
		{figure: "rps200", title: "requests a second on one core, 200 KB", unit: "%.0f", most: true},
		{figure: "p50", title: fmt.Sprintf("added p50, %d calls a second, answer after 20 ms, ms", r.PerSecond), unit: "%.2f", added: true, target: "≤ 0.3"},
		{figure: "p99", title: "added p99, ms", unit: "%.2f", added: true, target: "≤ 2"},
		{figure: "stream", title: "CPU per stream of 50 events, µs", unit: "%.0f", target: "≤ 1.2x"},
		{figure: "ttfb50", title: "added time to the first byte of a stream, p50, ms", unit: "%.2f", added: true, target: "≤ 0.3"},
		{figure: "ttfb99", title: "added time to the first byte of a stream, p99, ms", unit: "%.2f", added: true},
		{figure: "few", title: fmt.Sprintf("memory, %d open streams, MB", r.FewStreams), unit: "%.0f", target: few},
		{figure: "many", title: fmt.Sprintf("memory, %d open streams, MB", r.ManyStreams), unit: "%.0f", target: many},
		{figure: "idle", title: "memory, idle, MB", unit: "%.0f", target: "≤ 30"},
		{figure: "start", title: "start to first call, ms", unit: "%.0f", target: "≤ 100"},
	}
}

// of are the values of a row for a contestant. What is added is the difference to the
// direct calls of the same turn.
func (r *result) of(row row, contestant string) []float64 {
	values := r.values(contestant, row.figure)
	if !row.added || contestant == "direct" {
		return values
	}
	direct := r.values("direct", row.figure)
	if len(direct) < len(values) {
		return nil // nothing to compare with
	}
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v - direct[i]
	}
	return out
}

// best is the value that was disturbed least.
func (r row) best(values []float64) float64 {
	if r.most {
		return slices.Max(values)
	}
	return slices.Min(values)
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// yardstick is what waybilld is held against: the same work without the gateway's.
const yardstick = "sigv4"

// table has a row for each figure: the best value, and where it differs the median.
func (r *result) table() table.Writer {
	t := table.NewWriter()
	head := table.Row{"figure: best (median)"}
	for _, title := range r.titles {
		head = append(head, title)
	}
	compared := slices.Contains(r.Contestants, yardstick) && slices.Contains(r.Contestants, "waybilld")
	if compared {
		head = append(head, "waybilld / ReverseProxy + SigV4", "target")
	}
	t.AppendHeader(head)
	for _, row := range r.rows() {
		line, any := table.Row{row.title}, false
		for _, c := range r.Contestants {
			values := r.of(row, c)
			if len(values) == 0 {
				line = append(line, "")
				continue
			}
			any = true
			best, mid := fmt.Sprintf(row.unit, row.best(values)), fmt.Sprintf(row.unit, median(values))
			if mid != best {
				best += " (" + mid + ")"
			}
			line = append(line, best)
		}
		if !any {
			continue
		}
		if compared {
			ratio := ""
			ours, theirs := r.of(row, "waybilld"), r.of(row, yardstick)
			if len(ours) > 0 && len(theirs) > 0 && !row.added {
				ratio = fmt.Sprintf("%.2fx", row.best(ours)/row.best(theirs))
			}
			line = append(line, ratio, row.target)
		}
		t.AppendRow(line)
	}
	return t
}

func (r *result) disturbed() string {
	timed, disturbed, again, most := 0, 0, 0, 0.0
	for _, p := range r.Points {
		timed++
		again += p.Again
		if p.Disturbed {
			disturbed++
		}
		most = max(most, p.Others)
	}
	s := fmt.Sprintf("Of %d points %d were taken again because other processes used more than a tenth of the machine", timed, again)
	if disturbed > 0 {
		s += fmt.Sprintf("; %d stayed disturbed (others used up to %.0f %%): read their ratios, not their absolute figures", disturbed, 100*most)
	}
	return s + "."
}

// print writes the table for a terminal.
func (r *result) print(w io.Writer) {
	t := r.table()
	t.SetStyle(table.StyleLight)
	var right []table.ColumnConfig
	for i := range r.Contestants {
		right = append(right, table.ColumnConfig{Number: i + 2, Align: text.AlignRight, AlignHeader: text.AlignRight, WidthMax: 14})
	}
	t.SetColumnConfigs(right)
	fmt.Fprintln(w, t.Render())
	for _, line := range append([]string{r.disturbed()}, append(r.Checks, r.Notes...)...) {
		fmt.Fprintln(w, line)
	}
}

// markdown is the section of docs/performance.md.
func (r *result) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "Measured %s at commit %s by `%s`: %s, %d CPUs, %s, Linux %s, journal on %s, %s", r.Date, r.Commit, r.Command, m.CPU, m.CPUs, m.Memory, m.Kernel, m.Disk, m.Go)
	if m.Nginx != "" {
		fmt.Fprintf(&b, ", nginx %s", m.Nginx)
	}
	fmt.Fprintf(&b, ".\n%s\n\n%s\n\n", r.disturbed(), r.table().RenderMarkdown())
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "- %s\n", c)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	return b.String()
}

// describe writes figures for the one who watches.
func describe(figures map[string]float64) string {
	var out []string
	for _, r := range new(result).rows() {
		if v, ok := figures[r.figure]; ok {
			out = append(out, fmt.Sprintf("%s "+r.unit, r.figure, v))
		}
	}
	return strings.Join(out, ", ")
}
