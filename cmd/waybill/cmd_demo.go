package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/demo"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/ingest"
	"github.com/waybill-dev/waybill/internal/lake"
	"github.com/waybill-dev/waybill/internal/ledger"
	"github.com/waybill-dev/waybill/internal/report"
)

type demoOptions struct {
	dir, waybilld, month string
	once, clean          bool
	seed                 uint64
	calls                int
}

func newDemo(out, stderr io.Writer) *cobra.Command {
	var o demoOptions
	c := &cobra.Command{Use: "demo", Short: "Watch a small company's month, without an AWS account", Args: cobra.NoArgs,
		Long: `Demo starts the waybilld that lies beside it in front of a stand-in for AWS, and lets a
small company live through the last full month: people and services call models, some
are refused, some go round the gateway, some hang up. Then it ingests what the gateway
and AWS wrote down, and tells who spent what and why bill and calls differ. It keeps
running, so that you can point an SDK at it.

Exit 0 means that the reconciliation found exactly what was planted, 1 that it did not.`,
		Example: `  waybill demo
  waybill demo --once --dir ./demo-data      then: waybill report --dir ./demo-data --by user
  waybill demo --once --clean`,
		RunE: func(c *cobra.Command, _ []string) error { return runDemo(c.Context(), o, out, stderr) }}
	c.Flags().StringVar(&o.dir, "dir", "", "keep the data here (default: a temporary folder)")
	c.Flags().StringVar(&o.waybilld, "waybilld", "", "the gateway program (default: the one beside this program)")
	c.Flags().StringVar(&o.month, "period", "", "billing period YYYY-MM (default: the last full month)")
	c.Flags().BoolVar(&o.once, "once", false, "end when the story is told")
	c.Flags().BoolVar(&o.clean, "clean", false, "plant no differences")
	c.Flags().Uint64Var(&o.seed, "seed", 1, "fixes what happens by chance")
	c.Flags().IntVar(&o.calls, "calls", 2400, "how many calls the company makes")
	return c
}

func runDemo(ctx context.Context, o demoOptions, out, stderr io.Writer) (err error) {
	period := waybill.PeriodOf(time.Now()).Prev()
	if o.month != "" {
		if period, err = waybill.ParsePeriod(o.month); err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: err.Error()}
		}
	}
	if o.waybilld == "" {
		if o.waybilld, err = beside("waybilld"); err != nil {
			return err
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "waybill-demo-*"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	} else if entries, readErr := os.ReadDir(o.dir); readErr == nil && len(entries) > 0 {
		return &waybill.Error{Kind: waybill.Misused, Message: o.dir + " is not empty", Hint: "name a folder of its own, or remove what is there"}
	}
	say := func(format string, a ...any) {
		fmt.Fprintf(out, format+"\n", a...)
		if f, ok := out.(interface{ Flush() error }); ok {
			_ = f.Flush() // run flushes again, and tells
		}
	}
	say("A small company lives through %s: 6 teams, 40 people, 8 applications.\nEvery call passes waybilld; AWS is a stand-in on this machine.\n", period)
	r, err := demo.Play(ctx, demo.Options{Dir: o.dir, Waybilld: o.waybilld, Month: period.Start(), Clean: o.clean, Seed: o.seed, Calls: o.calls,
		NewKey: newDemoKey, Progress: demoProgress(stderr)})
	if err != nil {
		return err
	}
	if o.once {
		if err := r.Stop(); err != nil { // so that the journal is whole
			return err
		}
	} else {
		defer func() { err = errors.Join(err, r.Stop()) }()
	}
	found, err := tell(ctx, o, period, r, say, out)
	if err != nil {
		return err
	}
	say("\nNext:")
	if o.once {
		say("  waybill report --dir %s --by user,model\n  waybill report --dir %s --by team --output json\n  waybill reconcile --dir %s --all", o.dir, o.dir, o.dir)
	} else {
		say("  Point an SDK at it; the gateway runs until you press Ctrl-C:\n    export AWS_ENDPOINT_URL_BEDROCK_RUNTIME=%s\n    export AWS_BEARER_TOKEN_BEDROCK=%s\n", r.Gateway, r.Token)
		say("    curl -s $AWS_ENDPOINT_URL_BEDROCK_RUNTIME/model/amazon.nova-lite-v1:0/converse -H \"Authorization: Bearer $AWS_BEARER_TOKEN_BEDROCK\" \\\n      -H 'X-Waybill-Tags: application=help-desk,environment=dev' -d '{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"hello\"}]}]}'")
		<-ctx.Done()
	}
	if !found {
		return errors.New("what the reconciliation found is not what was planted")
	}
	return nil
}

// beside is a program in the folder of this one, or on the path.
func beside(name string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", &waybill.Error{Kind: waybill.NotFound, Message: "there is no " + name + " beside this program", Hint: "make build makes both; or name it with --waybilld"}
}

func newDemoKey(file, subject string, tags map[string]string) (string, error) {
	k, err := identity.OpenKeys(file)
	if err != nil {
		return "", err
	}
	token, _, err := k.Create(identity.Key{Subject: subject, Tags: waybill.TagsFromMap(tags)})
	return token, err
}

func demoProgress(stderr io.Writer) func(int, int) {
	f, ok := stderr.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	return func(done, of int) {
		switch {
		case terminal:
			fmt.Fprintf(stderr, "\r  %d of %d calls", done, of)
			if done == of {
				fmt.Fprintln(stderr)
			}
		case done == of:
			fmt.Fprintf(stderr, "  %d calls made\n", done)
		}
	}
}

// tell ingests what the month left behind and tells its story. It reports whether the
// reconciliation found what was planted, and nothing else.
func tell(ctx context.Context, o demoOptions, period waybill.Period, r *demo.Result, say func(string, ...any), out io.Writer) (found bool, err error) {
	l, err := lake.Open(ctx, filepath.Join(o.dir, "lake"), lake.Config{})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s, err := ingestWhole(ctx, store{l}, o, r)
	if err != nil {
		return false, err
	}
	say("AWS served %d calls, the gateway refused %d, %d clients hung up.", r.Served, r.Refused, r.HungUp)
	say("Ingested: %d journal rows, %d log records, %d rows of the bill; %d in quarantine.\n", s.Rows["journal"], s.Rows["log"], s.Rows["cur"], len(s.Quarantined))
	card, err := readRates(filepath.Join(o.dir, "rates.csv"))
	if err != nil {
		return false, err
	}
	statement, err := ledger.Report(ctx, l, card, ledger.ReportOptions{Period: period, By: []string{"team"}})
	if err != nil {
		return false, err
	}
	say("WHO SPENT IT")
	report.StatementText(out, statement)
	rec, err := ledger.Reconcile(ctx, l, card, period)
	if err != nil {
		return false, err
	}
	attributed := statement.Total.Sub(statement.Unattributed)
	if !statement.Billed.IsZero() {
		share := new(big.Rat).Quo(new(big.Rat).SetInt(attributed.Unscaled()), new(big.Rat).SetInt(statement.Billed.Unscaled()))
		say("\ncoverage: %s %% of the bill carries a team", new(big.Rat).Mul(share, big.NewRat(100, 1)).FloatString(1))
	}
	say("\nDOES IT ADD UP")
	report.ReconciliationText(out, rec, false)
	found = compare(rec, r.Planted, say)
	if sum := statement.Total; sum.Cmp(statement.Billed) != 0 {
		say("the rows and the buckets add up to %s, the bill is %s", sum, statement.Billed)
		found = false
	}
	return found, nil
}

// ingestWhole ingests; while the gateway runs its last journal segment is waited for.
func ingestWhole(ctx context.Context, l store, o demoOptions, r *demo.Result) (*ingest.Summary, error) {
	options := ingest.Options{Journal: filepath.Join(o.dir, "journal"), Logs: filepath.Join(o.dir, "aws", "logs"), CUR: filepath.Join(o.dir, "aws", "cur")}
	if !o.once { // the live segment is sealed when it is ten seconds old
		for range 150 {
			live, err := filepath.Glob(filepath.Join(o.dir, "journal", "*.open"))
			if err != nil || len(live) == 0 {
				break
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return ingest.Run(ctx, l, options)
}

// compare holds the buckets against what was planted, to within the rounding of the
// bill's rows.
func compare(rec *ledger.Reconciliation, planted []demo.Planted, say func(string, ...any)) bool {
	bound := new(big.Rat).Mul(big.NewRat(1, 10_000_000_000), new(big.Rat).SetInt64(rec.BillRows))
	good := true
	want := make(map[ledger.Bucket]bool)
	if len(planted) > 0 {
		say("\nWHAT WAS PLANTED")
	}
	for _, p := range planted {
		want[ledger.Bucket(p.Bucket)] = true
		var got waybill.Money
		for _, b := range rec.Buckets {
			if b.Bucket == ledger.Bucket(p.Bucket) {
				got = b.Amount
			}
		}
		diff := new(big.Rat).Sub(new(big.Rat).SetFrac(got.Unscaled(), new(big.Int).Exp(big.NewInt(10), big.NewInt(18), nil)), p.Amount)
		mark := "found"
		if diff.Abs(diff).Cmp(bound) > 0 || p.Amount.Sign() == 0 {
			mark, good = "NOT FOUND: the reconciliation has "+got.String(), false
		}
		say("  %-14s %14s  %s: %s", p.Bucket, p.Amount.FloatString(6), p.What, mark)
	}
	for _, b := range rec.Buckets {
		if b.Bucket != ledger.Rounding && !want[b.Bucket] {
			say("  %-14s %14s  was not planted", b.Bucket, b.Amount.Round(6))
			good = false
		}
	}
	return good
}
