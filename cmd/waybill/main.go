// Waybill is everything a person or a scheduler runs: it ingests journals, invocation
// logs and the bill, and answers who spent what, and whether it adds up.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
)

// errBadNews ends a command that did its work and has bad news: exit 3.
var errBadNews = errors.New("bad news")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: exit 0 done, 1 failed, 2 misused, 3 done and the news is bad.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := bufio.NewWriter(stdout)
	root := &cobra.Command{
		Use:   "waybill",
		Short: "Trace every Amazon Bedrock dollar to who caused it",
		Long: `Waybill traces every Amazon Bedrock dollar to the person, team, application and
prompt that caused it, exact to the cent of the invoice.

Exit codes: 0 done, 1 failed, 2 misused, 3 done and the news is bad.`,
		Example: `  waybill demo                                  see it at work, without an AWS account
  waybill ingest --logs s3://logs/ --cur s3://bill/waybill --lake ./lake
  waybill report --lake ./lake --by team,model
  waybill reconcile --lake ./lake --rates rates.csv`,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetOut(out)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &waybill.Error{Kind: waybill.Misused, Message: err.Error()}
	})
	root.AddCommand(newIngest(out, stderr), newReport(out), newReconcile(out), newRates(out), newKeys(out), newCredentials(out, stderr), newPolicy(out),
		newAdvise(out, stderr), newAudit(out), newSetup(out), newGuard(out), newDemo(out, stderr), newVersion(out))
	argumentsAreMisuse(root)
	err := root.ExecuteContext(ctx)
	if flushErr := out.Flush(); err == nil {
		err = flushErr // a report that a full disk cut short is no report
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errBadNews):
		return 3
	}
	fmt.Fprintln(stderr, "waybill:", message(err))
	if waybill.KindOf(err) == waybill.Misused {
		return 2
	}
	if _, _, findErr := root.Find(args); findErr != nil {
		return 2
	}
	return 1
}

// argumentsAreMisuse makes wrong arguments of any command exit with 2.
func argumentsAreMisuse(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &waybill.Error{Kind: waybill.Misused, Message: err.Error(), Hint: c.CommandPath() + " --help shows how it is called"}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		argumentsAreMisuse(sub)
	}
}

func message(err error) string {
	if e, ok := errors.AsType[*waybill.Error](err); ok {
		if e.Hint != "" {
			return e.Message + "\n  " + e.Hint
		}
		return e.Message
	}
	return err.Error()
}

func newVersion(out io.Writer) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Say which build this is", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		version := "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			version = info.Main.Version
		}
		_, err := fmt.Fprintln(out, "waybill", version)
		return err
	}}
}

// oneOf checks a flag that takes one of a few words.
func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--%s %q is not known", flag, value), Hint: fmt.Sprintf("one of: %v", allowed)}
}
