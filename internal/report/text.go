package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ledger"
)

// none is how the absence of a tag is shown.
const none = "(none)"

// money shows an amount to a hundredth of a cent; amounts that this would hide are
// shown exactly.
func money(m waybill.Money) string {
	s := m.Round(4)
	if !m.IsZero() && strings.Trim(s, "-0.") == "" {
		return m.String()
	}
	return s
}

func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func newTable(w io.Writer) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	s := table.StyleLight
	s.Options = table.Options{DrawBorder: false, SeparateColumns: false, SeparateHeader: true, SeparateFooter: true}
	s.Format.Header, s.Format.Footer = text.FormatDefault, text.FormatDefault
	t.SetStyle(s)
	return t
}

func right(columns ...int) []table.ColumnConfig {
	var out []table.ColumnConfig
	for _, c := range columns {
		out = append(out, table.ColumnConfig{Number: c, Align: text.AlignRight, AlignFooter: text.AlignRight, AlignHeader: text.AlignRight})
	}
	return out
}

// StatementText shows a statement on a terminal. What is not known comes first.
func StatementText(w io.Writer, s *ledger.Statement) {
	fmt.Fprintf(w, "%s, basis %s: %s.\n", s.Period, s.Basis, s.Reason)
	if s.Renamed != "" {
		fmt.Fprintf(w, "Tag values are %s.\n", s.Renamed)
	}
	fmt.Fprintln(w)
	var unknown, unpriced, calls int64
	for _, r := range s.Rows {
		unknown, unpriced, calls = unknown+r.Unknown, unpriced+r.Unpriced, calls+r.Calls
	}
	if unknown > 0 {
		fmt.Fprintf(w, "! the usage of %s of %s calls is not known\n", grouped(unknown), grouped(calls))
	}
	if unpriced > 0 {
		fmt.Fprintf(w, "! %s of %s calls have usage without a price on the rate card:\n", grouped(unpriced), grouped(calls))
		missingPrices(w, s.MissingPrices)
	}
	t := newTable(w)
	head := table.Row{}
	for _, k := range s.By {
		head = append(head, k)
	}
	n := len(s.By)
	t.AppendHeader(append(head, "calls", "input", "output", "cache read", "cache write", s.Currency))
	t.SetColumnConfigs(right(n+1, n+2, n+3, n+4, n+5, n+6))
	for _, r := range s.Rows {
		row := table.Row{}
		for _, v := range r.Keys {
			if v.Present {
				row = append(row, v.Text)
			} else {
				row = append(row, none)
			}
		}
		u := r.Usage
		t.AppendRow(append(row, grouped(r.Calls), grouped(u.Of(waybill.Input)), grouped(u.Of(waybill.Output)), grouped(u.Of(waybill.CacheRead)),
			grouped(u.Of(waybill.CacheWrite5m)+u.Of(waybill.CacheWrite30m)+u.Of(waybill.CacheWrite1h)), money(r.Cost)))
	}
	blank := func(label, amount string) table.Row {
		row := make(table.Row, n+6)
		for i := range row {
			row[i] = ""
		}
		row[0], row[n+5] = label, amount
		return row
	}
	if !s.Elsewhere.IsZero() {
		t.AppendRow(blank("rows that --where leaves out", money(s.Elsewhere)))
	}
	for _, b := range s.Buckets {
		t.AppendRow(blank("unattributed: "+string(b.Bucket), money(b.Amount)))
	}
	t.AppendFooter(blank("total", money(s.Total)))
	t.Render()
	if s.HasBill {
		fmt.Fprintf(w, "\nbilled %s %s", s.Billed.String(), s.Currency)
		var other []string
		if !s.NotClaimed.IsZero() {
			other = append(other, money(s.NotClaimed))
		}
		for _, c := range slices.Sorted(maps.Keys(s.NotClaimedElse)) {
			other = append(other, money(s.NotClaimedElse[c])+" "+c)
		}
		if len(other) > 0 {
			fmt.Fprintf(w, "; the export has %s of other services, which are in no figure here", strings.Join(other, " and "))
		}
		fmt.Fprintln(w)
	}
	if s.Refused > 0 {
		fmt.Fprintf(w, "%s calls were refused by the tag policy: they never left, and cost nothing\n", grouped(s.Refused))
	}
}

// StatementCSV writes a statement's rows, then its buckets.
func StatementCSV(w io.Writer, s *ledger.Statement) error {
	c := csv.NewWriter(w)
	head := append([]string{}, s.By...)
	head = append(head, "bucket", "calls", "unknown", "unpriced")
	for _, k := range waybill.Kinds {
		head = append(head, string(k))
	}
	c.Write(append(head, "cost", "currency")) // Flush tells
	for _, r := range s.Rows {
		row := make([]string, 0, len(head)+2)
		for _, v := range r.Keys {
			row = append(row, v.Text)
		}
		row = append(row, "", fmt.Sprint(r.Calls), fmt.Sprint(r.Unknown), fmt.Sprint(r.Unpriced))
		for _, k := range waybill.Kinds {
			row = append(row, fmt.Sprint(r.Usage.Of(k)))
		}
		c.Write(append(row, r.Cost.String(), s.Currency))
	}
	bucket := func(name string, m waybill.Money) {
		row := make([]string, len(head)+2)
		row[len(s.By)], row[len(head)], row[len(head)+1] = name, m.String(), s.Currency
		c.Write(row)
	}
	for _, b := range s.Buckets {
		bucket(string(b.Bucket), b.Amount)
	}
	if !s.Elsewhere.IsZero() {
		bucket("elsewhere", s.Elsewhere)
	}
	c.Flush()
	return c.Error()
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n-3] + "..."
	}
	return s
}

// missingPrices lists lines that the rate card lacks, the first few of them.
func missingPrices(w io.Writer, list []ledger.MissingPrice) {
	const few = 5
	for _, m := range list[:min(len(list), few)] {
		fmt.Fprintf(w, "  %s (%s calls)\n", m, grouped(m.Calls))
	}
	if len(list) > few {
		fmt.Fprintf(w, "  and %d more: --output json has all\n", len(list)-few)
	}
}

// meanings say in a few words what a bucket is.
var meanings = map[ledger.Bucket]string{
	ledger.Bypass: "calls that went round the gateway and carry no tag", ledger.NotLogged: "used in a Region without logging, not by us",
	ledger.MantleUnseen: "bedrock-mantle, which AWS never logs, not by us", ledger.NoCalls: "token charges without a call",
	ledger.Batch: "batch inference", ledger.Commitment: "capacity and fees", ledger.Guardrail: "guardrail units", ledger.Customization: "custom models",
	ledger.Consumption: "knowledge bases, agents", ledger.Tax: "tax", ledger.Credit: "credits", ledger.Refund: "refunds", ledger.Discount: "discounts",
	ledger.ModelUnmapped: "a model nobody knows by that name", ledger.Unparsed: "usage types with unknown words", ledger.UnitUnknown: "unknown units",
	ledger.OtherCharge: "other charges of Bedrock", ledger.RateDiffers: "the bill's rate is not the rate card's", ledger.Unpriced: "no price on the rate card",
	ledger.QuantityDiffers: "the bill counts other quantities", ledger.UsageUnknown: "calls whose usage is not known", ledger.Timing: "not settled yet, or over midnight",
	ledger.Rounding: "the bill rounds its rows",
}

// ReconciliationText shows a reconciliation: the sum, the causes with what they rest
// on, and the keys that differ.
func ReconciliationText(w io.Writer, r *ledger.Reconciliation, all bool) {
	fmt.Fprintf(w, "%s: billed %s, metered %s, variance %s %s (bill settled through %s)\n", r.Period, r.Billed, r.Metered, r.Variance, r.Currency, r.SettledThrough)
	fmt.Fprintf(w, "%s calls: %s known from both sides, %s from the gateway alone, %s from the log alone; %s rows of the bill\n\n", grouped(r.Calls),
		grouped(r.Calls-r.LoggedOnly-r.MeteredOnly), grouped(r.MeteredOnly), grouped(r.LoggedOnly), grouped(r.BillRows))
	if r.UnpricedCalls > 0 {
		fmt.Fprintf(w, "! %s of %s calls have usage without a price on the rate card:\n", grouped(r.UnpricedCalls), grouped(r.Calls))
		missingPrices(w, r.MissingPrices)
		fmt.Fprintln(w)
	}
	if len(r.Buckets) == 0 {
		fmt.Fprintln(w, "Nothing to explain: every dollar of the bill is metered.")
		return
	}
	t := newTable(w)
	t.AppendHeader(table.Row{"why", r.Currency, "what it means", "for the most part"})
	t.SetColumnConfigs(right(2))
	for _, b := range r.Buckets {
		most := ""
		if len(b.Evidence) > 0 {
			most = clip(b.Evidence[0].What, 70)
			if n := len(b.Evidence) - 1; n > 0 {
				most += fmt.Sprintf(" (and %d more)", n)
			}
		}
		t.AppendRow(table.Row{string(b.Bucket), money(b.Amount), meanings[b.Bucket], most})
	}
	t.AppendFooter(table.Row{"variance", money(r.Variance), "", ""})
	t.Render()
	fmt.Fprintln(w)
	t = newTable(w)
	t.AppendHeader(table.Row{"account", "region", "model", "usage type", "billed", "metered", "quantity", "rate", "timing", "rounding", "unmatched"})
	t.SetColumnConfigs(right(5, 6, 7, 8, 9, 10, 11))
	shown := 0
	for i := range r.Keys {
		k := &r.Keys[i]
		if !all && k.Quantity.IsZero() && k.Rate.IsZero() && k.Timing.IsZero() && k.Unmatched.IsZero() {
			continue
		}
		shown++
		usage := k.UsageType
		if k.Endpoint == waybill.Mantle {
			usage += " mantle"
		}
		if k.Scope == "global" {
			usage += " global"
		}
		if k.Tier != "" && k.Tier != waybill.TierStandard {
			usage += " " + k.Tier
		}
		t.AppendRow(table.Row{k.Account, k.Region, clip(k.Model, 44), clip(usage, 40), money(k.Billed), money(k.Metered), money(k.Quantity), money(k.Rate), money(k.Timing), money(k.Rounding), money(k.Unmatched)})
	}
	if shown > 0 {
		t.Render()
	}
	if shown < len(r.Keys) {
		fmt.Fprintf(w, "\n%d of %d keys agree but for rounding; --all shows them\n", len(r.Keys)-shown, len(r.Keys))
	}
}

// ReconciliationCSV writes the keys.
func ReconciliationCSV(w io.Writer, r *ledger.Reconciliation) error {
	c := csv.NewWriter(w)
	c.Write([]string{"account", "region", "model", "usage_type", "tier", "scope", "metered", "billed", "quantity_variance", "rate_variance", "timing", "rounding", "unmatched", "endpoint"}) // Flush tells
	for i := range r.Keys {
		k := &r.Keys[i]
		c.Write([]string{k.Account, k.Region, k.Model, k.UsageType, k.Tier, k.Scope, k.Metered.String(), k.Billed.String(), k.Quantity.String(), k.Rate.String(),
			k.Timing.String(), k.Rounding.String(), k.Unmatched.String(), string(k.Endpoint)})
	}
	c.Flush()
	return c.Error()
}
