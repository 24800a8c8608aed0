package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ledger"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A stretch is a part of the ledger's time.
type stretch struct{ since, until string }

func (s *stretch) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.since, "since", "30d", "from when: days ago (30d), hours ago (12h), or a day YYYY-MM-DD in UTC")
	c.Flags().StringVar(&s.until, "until", "", "until when, in the same words (default: now)")
}

func (s *stretch) times(now time.Time) (since, until time.Time, err error) {
	if since, err = moment("since", s.since, now); err != nil {
		return since, until, err
	}
	until = now
	if s.until != "" {
		if until, err = moment("until", s.until, now); err != nil {
			return since, until, err
		}
	}
	if !since.Before(until) {
		err = &waybill.Error{Kind: waybill.Misused, Message: "--since is not before --until"}
	}
	return since, until, err
}

func moment(flag, value string, now time.Time) (time.Time, error) {
	if day, err := waybill.ParseDay(value); err == nil {
		return day.Start(), nil
	}
	if days, ok := strings.CutSuffix(value, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 10_000 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(value); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--%s %q is no time", flag, value), Hint: "write 30d, 12h or YYYY-MM-DD"}
}

// history reads a stretch of the ledger.
func (p *place) history(ctx context.Context, s stretch) (groups []ledger.CallGroup, currency string, err error) {
	since, until, err := s.times(time.Now().UTC())
	if err != nil {
		return nil, "", err
	}
	l, card, err := p.openAll(ctx)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	groups, err = ledger.History(ctx, l, card, since, until)
	if err == nil && len(groups) == 0 {
		err = &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("the ledger has no calls from %s to %s", since.Format(time.RFC3339), until.Format(time.RFC3339)), Hint: "give another --since, or ingest something first"}
	}
	currency = card.Currency()
	if currency == "" {
		currency = "USD"
	}
	return groups, currency, err
}

type impactOptions struct {
	policyOptions
	place
	stretch
	file string
	most int
}

func newPolicyImpact(out io.Writer) *cobra.Command {
	var o impactOptions
	c := &cobra.Command{Use: "impact", Short: "Replay the ledger's calls against a policy: what would be refused or renamed", Args: cobra.NoArgs,
		Long: `Impact decides again on calls of the past, under another policy, and says which callers,
how many calls and how many dollars would be refused, and which values would be renamed,
dropped or added. The dollars are usage times rate card. Calls that only the invocation log
knows are replayed too: their caller is the IAM principal.

The ledger keeps the tags that calls had, and no claims: what hangs on claims is told as
undecided. Exit code 3 if calls would be refused.`,
		Example: `  waybill policy impact --policy new.yaml --since 30d --dir ./demo-data
  waybill policy impact --policy new.yaml --since 2026-10-01 --until 2026-11-01 --lake ./lake --rates rates.csv --output csv`,
		RunE: func(c *cobra.Command, _ []string) error { return runImpact(c.Context(), o, out) }}
	o.policyOptions.flags(c, "table, json or csv")
	o.place.flags(c)
	o.stretch.flags(c)
	c.Flags().StringVar(&o.file, "policy", "", "the policy to try")
	c.Flags().IntVar(&o.most, "most", 20, "rows of each table at the most; what is left out is summed")
	return c
}

func runImpact(ctx context.Context, o impactOptions, out io.Writer) error {
	if err := oneOf("output", o.output, "table", "json", "csv"); err != nil {
		return err
	}
	if o.file == "" {
		return &waybill.Error{Kind: waybill.Misused, Message: "--policy is missing", Hint: "name the policy to try"}
	}
	p, err := o.read(o.file, out)
	if err != nil {
		return err
	}
	groups, currency, err := o.history(ctx, o.stretch)
	if err != nil {
		return err
	}
	past := make([]policy.Past, len(groups))
	for i := range groups {
		g := &groups[i]
		past[i] = policy.Past{Principal: g.Principal, Issuer: g.Issuer, KeyID: g.KeyID, Operation: g.Operation, Endpoint: g.Endpoint, Region: g.Region,
			Model: g.ModelID, Tags: g.Tags, Day: g.Hour.Day(), Calls: g.Calls, Cost: g.Cost, Refused: g.Outcome == waybill.Refused}
		if past[i].Principal == "" {
			past[i].Principal = g.PrincipalARN
		}
	}
	impact := p.Replay(past)
	if o.hashKeys == "" && p.Hashes() {
		impact.Notes = append(impact.Notes, "without --hash-keys pseudonyms are made with a secret for trying out: those of calls that went through a gateway show as changed")
	}
	switch o.output {
	case "json":
		err = writeJSON(out, struct {
			Version  int    `json:"version"`
			Policy   string `json:"policy"`
			Currency string `json:"currency"`
			*policy.Impact
		}{1, p.Version(), currency, impact})
	case "csv":
		err = impactCSV(out, impact)
	default:
		impactText(out, p, impact, currency, o.most)
	}
	if err == nil && impact.Refused.Calls > 0 {
		err = errBadNews
	}
	return err
}

// cents is an amount as tables show it.
func cents(m waybill.Money) string { return m.Round(4) }

func impactText(out io.Writer, p *policy.Policy, i *policy.Impact, currency string, most int) {
	fmt.Fprintf(out, "policy %s on %d calls, %s %s metered\n\n", p.Version(), i.Total.Calls, cents(i.Total.Cost), currency)
	t := rightTable(out, 2, "would be", "calls", currency, "")
	for _, row := range []struct {
		name string
		t    policy.Tally
		what string
	}{{"refused", i.Refused, "a violation is enforced"}, {"warned", i.Warned, "they pass, and are marked"}, {"changed", i.Changed, "they pass with other tags"},
		{"the same", i.Same, "they pass with the tags they had"}, {"undecided", i.Undecided, "it hangs on what the ledger does not keep"}} {
		t.AppendRow(table.Row{row.name, row.t.Calls, cents(row.t.Cost), row.what})
	}
	t.AppendFooter(table.Row{"total", i.Total.Calls, cents(i.Total.Cost), ""})
	t.Render()
	if i.Freed.Calls > 0 {
		fmt.Fprintf(out, "\n%d of them were refused then, and would pass\n", i.Freed.Calls)
	}
	callers := i.Callers[:0:0]
	for _, c := range i.Callers {
		if c.Refused.Calls > 0 {
			callers = append(callers, c)
		}
	}
	if len(callers) > 0 {
		fmt.Fprintln(out, "\nwho would be refused")
		t := rightTable(out, 2, "caller", "calls", currency, "of calls", "of "+currency, "why")
		var rest policy.Tally
		for n, c := range callers {
			if n >= most {
				rest.Calls, rest.Cost = rest.Calls+c.Refused.Calls, rest.Cost.Add(c.Refused.Cost)
				continue
			}
			t.AppendRow(table.Row{c.Caller, c.Refused.Calls, cents(c.Refused.Cost), c.Total.Calls, cents(c.Total.Cost), strings.Join(c.Why, ", ")})
		}
		if n := len(callers) - most; n > 0 {
			t.AppendRow(table.Row{fmt.Sprintf("%d more", n), rest.Calls, cents(rest.Cost), "", "", ""})
		}
		t.Render()
	}
	if len(i.Violations) > 0 {
		fmt.Fprintln(out, "\nviolations")
		t := rightTable(out, 3, "tag", "violation", "calls", currency, "callers", "mode")
		for n, v := range i.Violations {
			if n >= most {
				t.AppendRow(table.Row{fmt.Sprintf("%d more", len(i.Violations)-most)})
				break
			}
			t.AppendRow(table.Row{v.Key, v.Code, v.Calls, cents(v.Cost), v.Callers, v.Mode})
		}
		t.Render()
	}
	if len(i.Renamed) > 0 {
		fmt.Fprintln(out, "\nvalues that would change, of calls that would pass")
		t := rightTable(out, 4, "tag", "was", "would be", "calls", currency)
		for n, r := range i.Renamed {
			if n >= most {
				t.AppendRow(table.Row{fmt.Sprintf("%d more", len(i.Renamed)-most)})
				break
			}
			t.AppendRow(table.Row{r.Key, orNone(r.From), orNone(r.To), r.Calls, cents(r.Cost)})
		}
		t.Render()
	}
	for _, n := range i.Notes {
		fmt.Fprintf(out, "\nnote: %s", n)
	}
	if len(i.Notes) > 0 {
		fmt.Fprintln(out)
	}
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// rightTable is a table whose columns from one on are numbers, as far as they are.
func rightTable(out io.Writer, from int, header ...string) table.Writer {
	t := newTable(out, header...)
	var columns []table.ColumnConfig
	for i, h := range header {
		c := table.ColumnConfig{Number: i + 1, WidthMax: 60, WidthMaxEnforcer: text.WrapSoft}
		if i+1 >= from && h != "" && h != "why" && h != "mode" && h != "values by cost" {
			c.Align, c.AlignHeader, c.AlignFooter = text.AlignRight, text.AlignRight, text.AlignRight
		}
		columns = append(columns, c)
	}
	t.SetColumnConfigs(columns)
	return t
}

// impactCSV writes a row a caller.
func impactCSV(out io.Writer, i *policy.Impact) error {
	w := csv.NewWriter(out)
	w.Write([]string{"caller", "calls", "cost", "refused_calls", "refused_cost", "warned_calls", "warned_cost", "changed_calls", "changed_cost", "undecided_calls", "undecided_cost", "why"})
	for _, c := range i.Callers {
		row := []string{c.Caller}
		for _, t := range []policy.Tally{c.Total, c.Refused, c.Warned, c.Changed, c.Undecided} {
			row = append(row, strconv.FormatInt(t.Calls, 10), t.Cost.String())
		}
		w.Write(append(row, strings.Join(c.Why, " ")))
	}
	w.Flush()
	return w.Error()
}

type statsOptions struct {
	policyOptions
	place
	stretch
	file string
	top  int
}

func newPolicyStats(out io.Writer) *cobra.Command {
	var o statsOptions
	c := &cobra.Command{Use: "stats", Short: "Say how each tag key is used: coverage, distinct values, the dearest", Args: cobra.NoArgs,
		Long: `Stats says of each tag key how many of the ledger's calls and dollars carry it, how many
distinct values it has, and which cost most. With --policy it shows the keys that are
declared and not used, those that are used and not declared, and how near to its bound a
key is. Refused calls do not count. The dollars are usage times rate card.`,
		Example: `  waybill policy stats --policy policy.yaml --since 30d --dir ./demo-data`,
		RunE:    func(c *cobra.Command, _ []string) error { return runStats(c.Context(), o, out) }}
	o.policyOptions.flags(c, "table, json or csv")
	o.place.flags(c)
	o.stretch.flags(c)
	c.Flags().StringVar(&o.file, "policy", "", "tag policy to hold the keys against")
	c.Flags().IntVar(&o.top, "top", 3, "values of each key to show")
	return c
}

// A keyLine is one key of the statistics.
type keyLine struct {
	Key      string        `json:"key"`
	Declared *bool         `json:"declared,omitempty"` // absent without a policy
	Calls    int64         `json:"calls"`
	Cost     waybill.Money `json:"cost"`
	Coverage string        `json:"coverage"` // of the dollars, in per cent
	Distinct int           `json:"distinct"`
	Limit    int           `json:"limit,omitempty"`
	Top      []valueLine   `json:"top"`
}

type valueLine struct {
	Value string        `json:"value"`
	Calls int64         `json:"calls"`
	Cost  waybill.Money `json:"cost"`
}

func runStats(ctx context.Context, o statsOptions, out io.Writer) error {
	if err := oneOf("output", o.output, "table", "json", "csv"); err != nil {
		return err
	}
	var p *policy.Policy
	if o.file != "" {
		var err error
		if p, err = o.read(o.file, out); err != nil {
			return err
		}
	}
	groups, currency, err := o.history(ctx, o.stretch)
	if err != nil {
		return err
	}
	spent := groups[:0:0]
	for _, g := range groups {
		if g.Outcome != waybill.Refused {
			spent = append(spent, g)
		}
	}
	stats, calls, cost := ledger.KeyStats(spent, o.top)
	lines := keyLines(p, stats, cost)
	switch o.output {
	case "json":
		return writeJSON(out, struct {
			Version  int           `json:"version"`
			Currency string        `json:"currency"`
			Calls    int64         `json:"calls"`
			Cost     waybill.Money `json:"cost"`
			Keys     []keyLine     `json:"keys"`
		}{1, currency, calls, cost, lines})
	case "csv":
		return statsCSV(out, lines)
	}
	fmt.Fprintf(out, "%d calls, %s %s metered\n\n", calls, cents(cost), currency)
	t := rightTable(out, 2, "tag", "calls", currency, "coverage", "distinct", "bound", "values by cost")
	for _, l := range lines {
		name, bound := l.Key, ""
		if l.Declared != nil && !*l.Declared {
			name += " (not declared)"
		}
		if l.Limit > 0 {
			bound = strconv.Itoa(l.Limit)
		}
		var top []string
		for _, v := range l.Top {
			top = append(top, fmt.Sprintf("%s %s", v.Value, cents(v.Cost)))
		}
		t.AppendRow(table.Row{name, l.Calls, cents(l.Cost), l.Coverage + " %", l.Distinct, bound, strings.Join(top, ", ")})
	}
	t.Render()
	return nil
}

// keyLines holds the keys in use against those that are declared.
func keyLines(p *policy.Policy, stats []ledger.KeyStat, total waybill.Money) []keyLine {
	lines := make([]keyLine, 0, len(stats))
	used := make(map[string]bool)
	yes, no := true, false
	for _, s := range stats {
		l := keyLine{Key: policy.Shown(s.Key), Calls: s.Calls, Cost: s.Cost, Distinct: s.Distinct, Coverage: percent(s.Cost, total), Top: []valueLine{}}
		for _, v := range s.Top {
			l.Top = append(l.Top, valueLine{policy.Shown(v.Value), v.Calls, v.Cost})
		}
		if p != nil {
			l.Declared, l.Limit = &no, p.Bound(s.Key)
			if p.Declares(s.Key) {
				l.Declared = &yes
			}
		}
		used[s.Key] = true
		lines = append(lines, l)
	}
	if p != nil {
		for _, key := range p.Keys() {
			if !used[key] {
				lines = append(lines, keyLine{Key: key, Declared: &yes, Coverage: percent(waybill.Money{}, total), Limit: p.Bound(key), Top: []valueLine{}})
			}
		}
	}
	return lines
}

// percent is a part of a whole with one decimal, rounded down: 100.0 means all of it.
func percent(part, whole waybill.Money) string {
	if whole.Sign() <= 0 {
		return "0.0"
	}
	n := new(big.Int).Mul(part.Unscaled(), big.NewInt(1000))
	n.Div(n, whole.Unscaled())
	return fmt.Sprintf("%d.%d", n.Int64()/10, n.Int64()%10)
}

func statsCSV(out io.Writer, lines []keyLine) error {
	w := csv.NewWriter(out)
	w.Write([]string{"key", "declared", "calls", "cost", "coverage_percent", "distinct", "limit"})
	for _, l := range lines {
		declared := ""
		if l.Declared != nil {
			declared = strconv.FormatBool(*l.Declared)
		}
		w.Write([]string{l.Key, declared, strconv.FormatInt(l.Calls, 10), l.Cost.String(), l.Coverage, strconv.Itoa(l.Distinct), strconv.Itoa(l.Limit)})
	}
	w.Flush()
	return w.Error()
}
