package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ingest"
	"github.com/waybill-dev/waybill/internal/lake"
)

type ingestOptions struct {
	place
	journal, logs, cur, output string
}

func newIngest(out, stderr io.Writer) *cobra.Command {
	var o ingestOptions
	c := &cobra.Command{Use: "ingest", Short: "Bring journals, invocation logs and the bill into the ledger", Args: cobra.NoArgs,
		Long: `Ingest reads what is new and leaves out what is loaded: it may be run again, in any
order, and stopped at any instant. It only reads from where the records are. Rows that
cannot be read go to quarantine, with their place and the reason; there being any is
exit code 3.`,
		Example: `  waybill ingest --logs s3://my-logs --cur s3://my-bill/exports/waybill --lake ./lake
  waybill ingest --journal /var/lib/waybill/journal --lake s3://my-ledger/lake
  waybill ingest --dir ./demo-data`,
		RunE: func(c *cobra.Command, _ []string) error { return runIngest(c.Context(), o, out, stderr) }}
	o.flags(c)
	c.Flags().StringVar(&o.journal, "journal", "", "folder of the gateway's journal")
	c.Flags().StringVar(&o.logs, "logs", "", "invocation logs: a directory or s3://bucket/prefix")
	c.Flags().StringVar(&o.cur, "cur", "", "CUR 2.0 export: a directory or s3://bucket/prefix")
	c.Flags().StringVar(&o.output, "output", "table", "table or json")
	return c
}

func runIngest(ctx context.Context, o ingestOptions, out, stderr io.Writer) (err error) {
	if err := oneOf("output", o.output, "table", "json"); err != nil {
		return err
	}
	if err := o.fill(); err != nil {
		return err
	}
	if o.dir != "" && o.journal+o.logs+o.cur == "" {
		o.journal, o.logs, o.cur = filepath.Join(o.dir, "journal"), filepath.Join(o.dir, "aws", "logs"), filepath.Join(o.dir, "aws", "cur")
	}
	if o.journal+o.logs+o.cur == "" {
		return &waybill.Error{Kind: waybill.Misused, Message: "there is nothing to ingest", Hint: "give --journal, --logs or --cur"}
	}
	l, err := lake.Open(ctx, o.lake, lake.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s, err := ingest.Run(ctx, store{l}, ingest.Options{Journal: o.journal, Logs: o.logs, CUR: o.cur, Progress: progress(stderr)})
	if err != nil {
		return err
	}
	if o.output == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		err = e.Encode(map[string]any{"version": 1, "loaded": s.Loaded, "skipped": s.Skipped, "rows": s.Rows, "not_records": s.Other, "rounded": s.Rounded, "quarantined": nonNil(s.Quarantined)})
	} else {
		printSummary(out, s)
	}
	if err == nil && len(s.Quarantined) > 0 {
		err = errBadNews
	}
	return err
}

func nonNil(q []ingest.Quarantine) []ingest.Quarantine {
	if q == nil {
		return []ingest.Quarantine{}
	}
	return q
}

// progress shows what is being done, on a terminal only.
func progress(stderr io.Writer) func(string, int, int) {
	f, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func(kind string, done, of int) {
		fmt.Fprintf(f, "\r%-8s %d of %d objects", kind, done, of)
		if done == of {
			fmt.Fprintln(f)
		}
	}
}

func printSummary(out io.Writer, s *ingest.Summary) {
	for _, k := range []string{"journal", "log", "cur"} {
		name := map[string]string{"journal": "journal segments", "log": "log objects", "cur": "exports"}[k]
		if s.Loaded[k]+s.Skipped[k] > 0 {
			fmt.Fprintf(out, "%-17s %d loaded, %d loaded before, %d rows\n", name, s.Loaded[k], s.Skipped[k], s.Rows[k])
		}
	}
	if s.Other > 0 {
		fmt.Fprintf(out, "%-17s %d, which are known to hold none\n", "not records", s.Other)
	}
	if s.Rounded > 0 {
		fmt.Fprintf(out, "%-17s %d rows of the bill have amounts with more than 18 decimal places\n", "rounded", s.Rounded)
	}
	fmt.Fprintf(out, "%-17s %d rows\n", "in quarantine", len(s.Quarantined))
	for _, q := range s.Quarantined {
		fmt.Fprintf(out, "  %s:%d: %s\n", q.Object, q.Line, q.Reason)
	}
}
