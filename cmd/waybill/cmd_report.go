package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
	"github.com/waybill-dev/waybill/internal/ledger"
	"github.com/waybill-dev/waybill/internal/policy"
	"github.com/waybill-dev/waybill/internal/report"
)

type reportOptions struct {
	place
	by, where     []string
	basis, output string
	policy, asOf  string // to apply reorganisations by
}

func newReport(out io.Writer) *cobra.Command {
	var o reportOptions
	var names []string
	for _, d := range ledger.Dimensions {
		names = append(names, fmt.Sprintf("  %-14s %s", d.Name, d.Doc))
	}
	c := &cobra.Command{Use: "report", Short: "Say who spent what, by any tag, principal, model or day", Args: cobra.NoArgs,
		Long: "Report states a billing period's dollars by some keys. A key is a tag key, or one of:\n\n" + strings.Join(names, "\n") + `

The dollars are on one of three bases, and the report says which and why:
  calibrated     the bill's dollars, spread over calls in proportion to their metered
                 cost, so that they add up to the bill (taken where both are there)
  invoice        the bill's own rows, by what the bill says of them
  estimate       usage times rate card`,
		Example: `  waybill report --dir ./demo-data --by team
  waybill report --lake ./lake --rates rates.csv --by costCenter,model --period 2026-10
  waybill report --lake ./lake --by principal --output json`,
		RunE: func(c *cobra.Command, _ []string) error { return runReport(c.Context(), o, out) }}
	o.flags(c)
	o.periodFlag(c)
	c.Flags().StringSliceVar(&o.by, "by", []string{"team"}, "keys to group by, separated by commas")
	c.Flags().StringSliceVar(&o.where, "where", nil, "keep rows with key=value; the key must be in --by")
	c.Flags().StringVar(&o.basis, "basis", "", "estimate, invoice or calibrated (default: the best that the facts allow)")
	c.Flags().StringVar(&o.output, "output", "table", "table, json or csv")
	c.Flags().StringVar(&o.policy, "policy", "", "tag policy whose reorganisations are applied: earlier months are shown as the organisation is now")
	c.Flags().StringVar(&o.asOf, "as-of", "", "apply the reorganisations up to this day, YYYY-MM-DD (default: today)")
	return c
}

// reorganise makes a report apply the reorganisations of a policy.
func (o *reportOptions) reorganise(opts *ledger.ReportOptions) error {
	if o.policy == "" {
		if o.asOf != "" {
			return &waybill.Error{Kind: waybill.Misused, Message: "--as-of needs --policy", Hint: "name the tag policy whose reorganisations are to be applied"}
		}
		return nil
	}
	asOf := waybill.DayOf(time.Now())
	if o.asOf != "" {
		var err error
		if asOf, err = waybill.ParseDay(o.asOf); err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: "--as-of: " + err.Error()}
		}
	}
	src, err := os.ReadFile(o.policy)
	if err != nil {
		return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("policy: %v", err)}
	}
	p, err := policy.Parse(o.policy, src, policy.Options{HashKey: []byte(tryingKey), Open: os.ReadFile})
	if err != nil {
		return &waybill.Error{Kind: waybill.Misused, Message: err.Error()}
	}
	opts.Rename = func(key, value string, day waybill.Day) string { return p.Reorganised(key, value, day, asOf) }
	opts.Renamed = "as reorganised by " + asOf.String()
	return nil
}

func runReport(ctx context.Context, o reportOptions, out io.Writer) (err error) {
	if err := oneOf("output", o.output, "table", "json", "csv"); err != nil {
		return err
	}
	if err := oneOf("basis", o.basis, "", "estimate", "invoice", "calibrated"); err != nil {
		return err
	}
	opts := ledger.ReportOptions{Basis: ledger.Basis(o.basis), By: o.by}
	for _, w := range o.where {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--where %q is not key=value", w)}
		}
		opts.Where = append(opts.Where, waybill.Tag{Key: k, Value: v})
	}
	if err := o.reorganise(&opts); err != nil {
		return err
	}
	l, card, period, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	opts.Period = period
	s, err := ledger.Report(ctx, l, card, opts)
	if err != nil {
		return err
	}
	s.Reason += "; " + control.ReportKnowledge(string(s.Basis), o.by)
	switch o.output {
	case "json":
		return report.StatementJSON(out, s)
	case "csv":
		return report.StatementCSV(out, s)
	}
	report.StatementText(out, s)
	return nil
}

type reconcileOptions struct {
	place
	output string
	all    bool
}

func newReconcile(out io.Writer) *cobra.Command {
	var o reconcileOptions
	c := &cobra.Command{Use: "reconcile", Short: "Set the metered cost against the bill, and explain every difference", Args: cobra.NoArgs,
		Long: `Reconcile compares, for each account, Region, model and usage type, what the calls cost
by the rate card with what the bill charges, and splits the difference into quantity,
rate, timing, rounding and what no call takes. Differences over a cent and a
ten-thousandth of the bill, beyond charges that calls never bear, are exit code 3.`,
		Example: `  waybill reconcile --dir ./demo-data
  waybill reconcile --lake ./lake --rates rates.csv --period 2026-10 --output json`,
		RunE: func(c *cobra.Command, _ []string) error { return runReconcile(c.Context(), o, out) }}
	o.flags(c)
	o.periodFlag(c)
	c.Flags().StringVar(&o.output, "output", "table", "table, json or csv")
	c.Flags().BoolVar(&o.all, "all", false, "show the keys that agree as well")
	return c
}

func runReconcile(ctx context.Context, o reconcileOptions, out io.Writer) (err error) {
	if err := oneOf("output", o.output, "table", "json", "csv"); err != nil {
		return err
	}
	l, card, period, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	r, err := ledger.Reconcile(ctx, l, card, period)
	if err != nil {
		return err
	}
	switch {
	case !r.HasBill:
		return &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("the ledger has no bill for %s", period), Hint: "ingest its CUR 2.0 export: waybill ingest --cur ..."}
	case o.output == "json":
		err = report.ReconciliationJSON(out, r)
	case o.output == "csv":
		err = report.ReconciliationCSV(out, r)
	default:
		report.ReconciliationText(out, r, o.all)
	}
	if err == nil && r.OverTolerance() {
		err = errBadNews
	}
	return err
}
