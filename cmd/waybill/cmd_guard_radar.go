package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
	"github.com/waybill-dev/waybill/internal/iam"
	"github.com/waybill-dev/waybill/internal/ledger"
)

type radarOptions struct {
	guardOptions
	place
	stretch
	cloudtrail, scpFiles []string
	management, output   string
	most                 int
}

func newRadar(out io.Writer) *cobra.Command {
	var o radarOptions
	c := &cobra.Command{Use: "radar", Short: "Say who goes round the gateway, since when and for how much, and who would break", Args: cobra.NoArgs,
		Long: `Radar lists the principals that the bill, the invocation logs and CloudTrail have seen
use Bedrock, and says of each whether it is ours, what it cost, since when, and whether it
would still work if the guard's service control policies (or those of --scp) were attached
tomorrow. Where a source leaves out what the decision hangs on, the radar says so and does
not guess: bill and logs leave out the path of a role, CloudTrail tells it.

Exit code 3 if somebody goes round the gateway, or if the gateway itself would be denied.`,
		Example: `  waybill guard radar --config guard.yaml --lake ./lake --rates rates.csv --since 90d
  waybill guard radar --config guard.yaml --cloudtrail ./AWSLogs --scp in-force.json --output csv`,
		RunE: func(c *cobra.Command, _ []string) error { return runRadar(c, o, out) }}
	o.guardOptions.flags(c)
	o.place.flags(c)
	o.stretch.flags(c)
	f := c.Flags()
	f.StringSliceVar(&o.cloudtrail, "cloudtrail", nil, "CloudTrail events: a file, or a folder of them (.json, .json.gz)")
	f.StringSliceVar(&o.scpFiles, "scp", nil, "service control policies to hold history against (default: those that the guard writes)")
	f.StringVar(&o.management, "management-account", "", "the organization's management account, which such policies do not reach")
	f.StringVar(&o.output, "output", "table", "table, json or csv")
	f.IntVar(&o.most, "most", 30, "rows of the table at the most; what is left out is summed")
	return c
}

func runRadar(c *cobra.Command, o radarOptions, out io.Writer) error {
	if err := oneOf("output", o.output, "table", "json", "csv"); err != nil {
		return err
	}
	g, err := o.guardOptions.read(c)
	if err != nil {
		return err
	}
	opts := control.RadarOptions{Guard: &g, Management: o.management}
	for _, file := range o.scpFiles {
		src, err := os.ReadFile(file)
		if err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--scp: %v", err)}
		}
		p, err := iam.Parse(file, iam.ServiceControl, src)
		if err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: err.Error(), Err: err}
		}
		opts.SCPs = append(opts.SCPs, p)
	}
	if o.dir == "" && o.lake == "" && len(o.cloudtrail) == 0 {
		return &waybill.Error{Kind: waybill.Misused, Message: "there is nothing to look at", Hint: "give --lake or --dir, or --cloudtrail, or both"}
	}
	since, until, err := o.times(time.Now().UTC())
	if err != nil {
		return err
	}
	var sightings []control.Sighting
	if o.dir != "" || o.lake != "" {
		if sightings, err = o.seenByLedger(c.Context(), since, until); err != nil {
			return err
		}
	}
	for _, path := range o.cloudtrail {
		seen, err := readTrail(path)
		if err != nil {
			return err
		}
		for _, s := range seen {
			if !s.First.Before(since) && s.First.Before(until) {
				sightings = append(sightings, s)
			}
		}
	}
	report, err := control.Radar(opts, sightings)
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		err = writeJSON(out, struct {
			Version int `json:"version"`
			*control.RadarReport
		}{1, report})
	case "csv":
		err = radarCSV(out, report)
	default:
		radarText(out, report, o.most)
	}
	if err == nil && (report.Round.Principals > 0 || report.BreaksOurs > 0) {
		err = errBadNews
	}
	return err
}

// seenByLedger is what the lake knows of who called: calls by gateway and log, dollars by
// the bill.
func (o *radarOptions) seenByLedger(ctx context.Context, since, until time.Time) (out []control.Sighting, err error) {
	l, card, err := o.openAll(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	groups, err := ledger.History(ctx, l, card, since, until)
	if err != nil {
		return nil, err
	}
	for i := range groups {
		g := &groups[i]
		if g.Outcome == waybill.Refused || g.PrincipalARN == "" {
			continue
		}
		s := control.Sighting{Source: "log", Principal: g.PrincipalARN, Action: "bedrock:InvokeModel", Region: g.Region, Calls: g.Calls, Metered: g.Cost, First: g.Hour.Start(), Last: g.Hour.Start()}
		if g.Sources != "log" {
			s.Source = "gateway"
		}
		if g.Endpoint == waybill.Mantle {
			s.Action = "bedrock-mantle:CreateInference"
		}
		out = append(out, s)
	}
	_, bills, err := l.Periods(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range bills {
		if !p.Start().Before(until) || !p.End().After(since) {
			continue
		}
		charges, _, err := l.Charges(ctx, p)
		if err != nil {
			return nil, err
		}
		for i := range charges {
			c := &charges[i]
			day := p.Start()
			if c.Day != 0 {
				day = c.Day.Start()
			}
			if c.Claim != waybill.Claimed || day.Before(since) && c.Day != 0 || !day.Before(until) {
				continue
			}
			out = append(out, control.Sighting{Source: "bill", Principal: c.IAMPrincipal, Action: billedAction(c.UsageType), Region: c.RegionCode, Billed: c.Cost, First: day, Last: day})
		}
	}
	return out, nil
}

// billedAction is the action that a usage type is charged for.
func billedAction(usageType string) string {
	folded := strings.ToLower(usageType)
	switch {
	case strings.Contains(folded, "mantle"):
		return "bedrock-mantle:CreateInference"
	case strings.Contains(folded, "guardrail"):
		return "bedrock:ApplyGuardrail"
	case strings.Contains(folded, "batch"):
		return "bedrock:CreateModelInvocationJob"
	}
	return "bedrock:InvokeModel"
}

// readTrail reads CloudTrail files.
func readTrail(path string) ([]control.Sighting, error) {
	var files []string
	err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (file == path || strings.HasSuffix(file, ".json") || strings.HasSuffix(file, ".json.gz")) {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--cloudtrail: %v", err)}
	}
	var out []control.Sighting
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read CloudTrail events: %w", err)
		}
		var r io.Reader = bytes.NewReader(src)
		if bytes.HasPrefix(src, []byte{0x1f, 0x8b}) {
			if r, err = gzip.NewReader(r); err != nil {
				return nil, fmt.Errorf("read CloudTrail events %s: %w", file, err)
			}
		}
		seen, _, err := control.ReadCloudTrail(file, r)
		if err != nil {
			return nil, err
		}
		out = append(out, seen...)
	}
	return out, nil
}

func radarText(out io.Writer, r *control.RadarReport, most int) {
	show := func(title string, is func(*control.Suspect) bool) {
		t := rightTable(out, 2, "principal", "billed", "metered", "calls", "since", "until", "seen in", "would be", "why")
		n, more := 0, control.Tally{}
		for i := range r.Suspects {
			s := &r.Suspects[i]
			if !is(s) {
				continue
			}
			if n++; n > most {
				more.Principals++
				more.Billed, more.Metered, more.Calls = more.Billed.Add(s.Billed), more.Metered.Add(s.Metered), more.Calls+s.Calls
				continue
			}
			why := s.Why
			if s.Ours != "" {
				why = s.Ours + "; " + why
			}
			t.AppendRow(table.Row{s.Principal, cents(s.Billed), cents(s.Metered), s.Calls, date(s.First), date(s.Last), strings.Join(s.Sources, ", "), s.Verdict, why})
		}
		if more.Principals > 0 {
			t.AppendRow(table.Row{fmt.Sprintf("%d more", more.Principals), cents(more.Billed), cents(more.Metered), more.Calls})
		}
		if n > 0 {
			fmt.Fprintln(out, title)
			t.Render()
			fmt.Fprintln(out)
		}
	}
	show("round the gateway", func(s *control.Suspect) bool { return s.Ours == "" && s.Spends })
	show("seen to do nothing that costs money", func(s *control.Suspect) bool { return s.Ours == "" && !s.Spends })
	show("ours", func(s *control.Suspect) bool { return s.Ours != "" })
	if r.Round.Principals == 0 {
		fmt.Fprintln(out, "nobody was seen to go round the gateway")
	} else {
		fmt.Fprintf(out, "%d principals go round the gateway, for %s billed and %s metered; attached tomorrow, the policies would stop %d of them\n",
			r.Round.Principals, cents(r.Round.Billed), cents(r.Round.Metered), r.Breaks)
	}
	if r.BreaksOurs > 0 {
		fmt.Fprintf(out, "%d principals that are ours would be denied: the guard does not fit the gateway\n", r.BreaksOurs)
	}
	if r.Undecided > 0 {
		fmt.Fprintf(out, "%d are undecided; CloudTrail events (--cloudtrail) tell more\n", r.Undecided)
	}
	if !r.Unnamed.IsZero() {
		fmt.Fprintf(out, "%s of the bill names no principal\n", cents(r.Unnamed))
	}
	fmt.Fprintln(out, "billed and metered are two views of the same calls: do not add them")
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}

func radarCSV(out io.Writer, r *control.RadarReport) error {
	w := csv.NewWriter(out)
	w.Write([]string{"principal", "kind", "ours", "verdict", "why", "sid", "billed", "metered", "calls", "refused", "sessions", "first_seen", "last_seen", "sources", "actions", "bearer"})
	for i := range r.Suspects {
		s := &r.Suspects[i]
		w.Write([]string{s.Principal, s.Kind, s.Ours, s.Verdict, s.Why, s.Sid, s.Billed.String(), s.Metered.String(), strconv.FormatInt(s.Calls, 10), strconv.FormatInt(s.Refused, 10),
			strconv.Itoa(s.Sessions), s.First.Format(time.RFC3339), s.Last.Format(time.RFC3339), strings.Join(s.Sources, " "), strings.Join(s.Actions, " "), strconv.FormatBool(s.Bearer)})
	}
	w.Flush()
	return w.Error()
}
