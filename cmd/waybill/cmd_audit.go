package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
	"github.com/waybill-dev/waybill/internal/policy"
	"github.com/waybill-dev/waybill/internal/report"
)

// accountOptions name a declaration, and what is needed to ask about it.
type accountOptions struct {
	place
	file, policyFile string
	days             int
	now              func() time.Time
}

func (o *accountOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.file, "file", "waybill-accounts.yaml", "declaration of the accounts: see docs/control/setup.md")
	c.Flags().StringVar(&o.policyFile, "policy", "", "tag policy: which keys ride where, and the vocabulary")
	c.Flags().IntVar(&o.days, "days", 14, "days of the ledger and of CloudWatch to look back")
	o.place.flags(c)
	o.now = time.Now
}

// declaration reads the policy, if one is named, and the declaration.
func (o *accountOptions) declaration(out io.Writer) (*control.Declaration, *policy.Policy, error) {
	var p *policy.Policy
	if o.policyFile != "" {
		var err error
		if p, err = (&policyOptions{output: "table"}).read(o.policyFile, out); err != nil {
			return nil, nil, err
		}
	}
	src, err := os.ReadFile(o.file)
	if err != nil {
		return nil, nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("declaration: %v", err), Hint: "write one: docs/control/setup.md begins with an example"}
	}
	d, err := control.ReadDeclaration(o.file, src, p)
	if mistakes, ok := errors.AsType[policy.Mistakes](err); ok {
		return nil, nil, &waybill.Error{Kind: waybill.Misused, Message: mistakes.Error()}
	}
	return d, p, err
}

// access reaches the accounts, with the credentials and endpoints that the AWS SDK finds.
func (o *accountOptions) access(ctx context.Context, d *control.Declaration) (*control.Access, error) {
	base, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	if base.Region == "" {
		base.Region = d.Accounts[0].Regions[0]
	}
	if base.RetryMaxAttempts == 0 {
		base.RetryMaxAttempts = 8 // control planes throttle early: CloudTrail allows two lookups a second
	}
	a := control.NewAccess(base, d)
	a.PathStyle = os.Getenv("AWS_ENDPOINT_URL_S3") != "" || os.Getenv("AWS_ENDPOINT_URL") != ""
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_BEDROCK_MANTLE"} {
		if url := os.Getenv(name); url != "" {
			a.Mantle = strings.TrimSuffix(url, "/")
		}
	}
	return a, nil
}

// observe asks the accounts and, if one is named, the ledger.
func (o *accountOptions) observe(ctx context.Context, a *control.Access, d *control.Declaration, p *policy.Policy) (*control.Snapshot, error) {
	ob := control.Observation{Declaration: d, Now: o.now(), Days: o.days}
	if o.dir != "" || o.lake != "" {
		ob.Ledger = evidence{&o.place, p}
	}
	s, err := control.Observe(ctx, a, ob)
	if err != nil {
		return nil, err
	}
	if !s.Asked() {
		why := ""
		if len(s.Accounts) > 0 {
			why = s.Accounts[0].Caller.Refused
		}
		return nil, &waybill.Error{Kind: waybill.Unavailable, Message: "AWS could not be asked about any account: " + why, Hint: "check the credentials, and the roles that the declaration names"}
	}
	return s, nil
}

type auditOptions struct {
	accountOptions
	offline, save, history, output string
	all, list                      bool
}

func newAudit(out io.Writer) *cobra.Command {
	var o auditOptions
	c := &cobra.Command{Use: "audit", Short: "Say what does not hold in the AWS accounts, what it costs, and how to put it right", Args: cobra.NoArgs,
		Long: `Audit asks the accounts of a declaration, over all their Regions at once, and holds what
they say against a list of controls: logging, the export of the bill, cost allocation tags,
roles, profiles, keys, completeness, the tags themselves. docs/control/audit.md has the list.
It changes nothing, and cannot. What AWS refuses to say is unknown, and never good.

With a ledger (--lake or --dir) findings say how many dollars are at stake, and the ledger
is held against CloudWatch's counts. --save keeps what was asked, --offline judges it again.

Exit code 3 if there are findings, 1 if AWS could not be asked at all.`,
		Example: `  waybill audit --file accounts.yaml --policy policy.yaml --lake ./lake --rates rates.csv
  waybill audit --file accounts.yaml --save snapshot.json --output html > audit.html
  waybill audit --file accounts.yaml --offline snapshot.json --output sarif
  waybill audit --controls`,
		RunE: func(c *cobra.Command, _ []string) error { return runAudit(c.Context(), o, out) }}
	o.accountOptions.flags(c)
	c.Flags().StringVar(&o.offline, "offline", "", "judge this snapshot, and ask nobody")
	c.Flags().StringVar(&o.save, "save", "", "keep what was asked in this file")
	c.Flags().StringVar(&o.history, "history", "", "file of earlier coverage scores, a line each: read for the trend, and added to")
	c.Flags().StringVar(&o.output, "output", "table", "table, json, sarif or html")
	c.Flags().BoolVar(&o.all, "all", false, "show what holds as well")
	c.Flags().BoolVar(&o.list, "controls", false, "list the controls, in Markdown, and ask nobody")
	return c
}

func runAudit(ctx context.Context, o auditOptions, out io.Writer) error {
	if err := oneOf("output", o.output, "table", "json", "sarif", "html"); err != nil {
		return err
	}
	if o.list {
		_, err := io.WriteString(out, control.Reference())
		return err
	}
	d, p, err := o.declaration(out)
	if err != nil {
		return err
	}
	s, err := o.snapshot(ctx, d, p)
	if err != nil {
		return err
	}
	history, kept, err := readHistory(o.history, s.TakenAt)
	if err != nil {
		return err
	}
	in := &control.Inquiry{Snapshot: s, Declaration: d, Policy: p, History: history}
	a := &report.Audit{Findings: in.Judge(), History: history, Currency: "USD", TakenAt: s.TakenAt.Format(time.RFC3339), All: o.all, File: o.file}
	control.Sort(a.Findings)
	if score, ok := in.Score(a.Findings); ok {
		a.Score, a.Currency = &score, score.Currency
		if !kept { // a snapshot that is judged again is no audit of its own
			if err := appendLine(o.history, score); err != nil {
				return err
			}
		}
	}
	switch o.output {
	case "json":
		err = report.AuditJSON(out, a)
	case "sarif":
		err = report.AuditSARIF(out, a, buildVersion())
	case "html":
		err = report.AuditHTML(out, a)
	default:
		report.AuditText(out, a)
	}
	if err != nil {
		return err
	}
	if failed, unknown := control.News(a.Findings); failed+unknown > 0 {
		return errBadNews
	}
	return nil
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// snapshot is the one that was kept, or a new one.
func (o *auditOptions) snapshot(ctx context.Context, d *control.Declaration, p *policy.Policy) (*control.Snapshot, error) {
	if o.offline != "" {
		b, err := os.ReadFile(o.offline)
		if err != nil {
			return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("snapshot: %v", err)}
		}
		return control.ReadSnapshot(b)
	}
	a, err := o.access(ctx, d)
	if err != nil {
		return nil, err
	}
	s, err := o.observe(ctx, a, d, p)
	if err != nil || o.save == "" {
		return s, err
	}
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return nil, err
	}
	// Who reads it learns how the accounts are set up.
	if err := os.WriteFile(o.save, append(b, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("keep the snapshot: %w", err)
	}
	return s, nil
}

// readHistory reads the scores of audits earlier than at, oldest first, and says whether
// that of at is there already. A line that is damaged is left out.
func readHistory(file string, at time.Time) (earlier []control.Score, kept bool, err error) {
	if file == "" {
		return nil, false, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("history: %v", err)}
	}
	for line := range bytes.Lines(b) {
		var s control.Score
		if json.Unmarshal(line, &s) != nil || s.At.IsZero() {
			continue
		}
		if s.At.Before(at) {
			earlier = append(earlier, s)
		}
		kept = kept || s.At.Equal(at)
	}
	slices.SortStableFunc(earlier, func(a, b control.Score) int { return a.At.Compare(b.At) })
	return earlier, kept, nil
}

// appendLine adds a line of JSON to a file and syncs it. No file is nowhere. A line that a
// crash cut short is ended first: it must not spoil the new one.
func appendLine(file string, v any) error {
	if file == "" {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Clean(file), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("add to %s: %w", file, err)
	}
	b = append(b, '\n')
	if info, statErr := f.Stat(); statErr == nil && info.Mode().IsRegular() && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			b = append([]byte{'\n'}, b...)
		}
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("add to %s: %w", file, err)
	}
	return nil
}
