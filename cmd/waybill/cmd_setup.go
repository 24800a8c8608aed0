package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
	"github.com/waybill-dev/waybill/internal/policy"
	"github.com/waybill-dev/waybill/internal/report"
)

type setupOptions struct {
	accountOptions
	apply, targets, permissions bool
	accept, only                []string
	record, format, output      string
}

func newSetup(out io.Writer) *cobra.Command {
	var o setupOptions
	c := &cobra.Command{Use: "setup", Short: "Show what has to change in the AWS accounts, and with --apply change it", Args: cobra.NoArgs,
		Long: `Setup asks the accounts of a declaration and plans what brings about that every control
holds: buckets and logging, the export of the bill, roles and their tags, inference
profiles and projects of the declared applications, cost allocation tags. The plan is shown
as a diff. Nothing is changed without --apply.

With --apply each step is recorded before and after in --record. A run that is cut off is
finished by the next, which plans from what it then sees; where all is well it changes
nothing. Steps that may break somebody are made only if their control is accepted.

For those who let no tool change an account, --format writes the declaration out for
Terraform or CloudFormation. --permissions writes the IAM policy that the plan needs.

Exit code 0 if nothing is left to do, 3 if something is.`,
		Example: `  waybill setup --file accounts.yaml --policy policy.yaml
  waybill setup --file accounts.yaml --policy policy.yaml --apply --record changes.jsonl
  waybill setup --file accounts.yaml --apply --record changes.jsonl --accept api-keys
  waybill setup --file accounts.yaml --targets >> gateway.yaml
  waybill setup --file accounts.yaml --format terraform > waybill.tf.json`,
		RunE: func(c *cobra.Command, _ []string) error { return runSetup(c.Context(), o, out) }}
	o.accountOptions.flags(c)
	c.Flags().BoolVar(&o.apply, "apply", false, "make the changes")
	c.Flags().StringVar(&o.record, "record", "waybill-changes.jsonl", "file that every change is recorded in, a line before and a line after")
	c.Flags().StringSliceVar(&o.accept, "accept", nil, "controls whose steps may break somebody, and are made all the same")
	c.Flags().StringSliceVar(&o.only, "only", nil, "controls to plan for (default: all)")
	c.Flags().BoolVar(&o.targets, "targets", false, "write the gateway's rules for the declared applications, and plan nothing")
	c.Flags().BoolVar(&o.permissions, "permissions", false, "write the IAM policy that asking and the plan's steps need, and apply nothing")
	c.Flags().StringVar(&o.format, "format", "", "write the declaration for terraform or cloudformation, and ask nobody")
	c.Flags().StringVar(&o.output, "output", "table", "table or json")
	return c
}

func runSetup(ctx context.Context, o setupOptions, out io.Writer) error {
	if err := oneOf("output", o.output, "table", "json"); err != nil {
		return err
	}
	if err := oneOf("format", o.format, "", "terraform", "cloudformation"); err != nil {
		return err
	}
	for _, id := range slices.Concat(o.accept, o.only) {
		if !slices.ContainsFunc(control.Controls(), func(c control.Control) bool { return c.ID == id }) {
			return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("there is no control %q", id), Hint: "waybill audit --controls lists them"}
		}
	}
	d, p, err := o.declaration(out)
	if err != nil {
		return err
	}
	if o.format != "" {
		b, err := control.Template(d, p, o.format)
		if err != nil {
			return err
		}
		_, err = out.Write(b)
		return err
	}
	a, err := o.access(ctx, d)
	if err != nil {
		return err
	}
	in, steps, err := o.plan(ctx, a, d, p)
	switch {
	case err != nil:
		return err
	case o.targets:
		_, err := io.WriteString(out, in.Targets())
		return err
	case o.permissions:
		return writeJSON(out, control.Permissions(steps))
	}
	apply, left := o.choose(steps)
	if o.output == "json" {
		if err := writeJSON(out, struct {
			Version int            `json:"version"`
			Apply   bool           `json:"apply"`
			Steps   []control.Step `json:"steps"`
		}{1, o.apply, append([]control.Step{}, steps...)}); err != nil {
			return err
		}
	} else {
		report.PlanText(out, steps)
	}
	if !o.apply {
		return o.planned(out, steps, in)
	}
	rest := o.rest(in)
	record := func(c control.Change) error { return appendLine(o.record, c) }
	if err := control.Apply(ctx, a.ForChanges(), apply, time.Now, record); err != nil {
		return fmt.Errorf("%w; what was done is in %s: run it again to go on", err, o.record)
	}
	if o.output == "table" {
		fmt.Fprintf(out, "%s made, recorded in %s\n", counted(len(apply), "change"), o.record)
		if len(apply) == 0 {
			fmt.Fprintln(out, "nothing had to be changed")
		}
		if left > 0 {
			fmt.Fprintf(out, "left for --accept: %s\n", counted(left, "step"))
		}
		rest.print(out)
	}
	if left > 0 || rest.any() {
		return errBadNews
	}
	return nil
}

// counted is a number of things in words.
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func (o *setupOptions) plan(ctx context.Context, a *control.Access, d *control.Declaration, p *policy.Policy) (*control.Inquiry, []control.Step, error) {
	s, err := o.observe(ctx, a, d, p)
	if err != nil {
		return nil, nil, err
	}
	in := &control.Inquiry{Snapshot: s, Declaration: d, Policy: p}
	steps := control.Plan(in.Judge())
	if len(o.only) > 0 {
		steps = slices.DeleteFunc(steps, func(s control.Step) bool { return !slices.Contains(o.only, s.Control) })
	}
	return in, steps, nil
}

// choose leaves out the steps whose risk was not accepted.
func (o *setupOptions) choose(steps []control.Step) (apply []control.Step, left int) {
	for _, s := range steps {
		if s.Risk != "" && !slices.Contains(o.accept, s.Control) {
			left++
			continue
		}
		apply = append(apply, s)
	}
	return apply, left
}

// A rest is what no step brings about.
type rest struct {
	unknown int // AWS does not say, so nothing can be planned
	byHand  int // it takes a person, or time
}

func (r rest) any() bool { return r.unknown+r.byHand > 0 }

func (r rest) print(out io.Writer) {
	if r.unknown > 0 {
		fmt.Fprintf(out, "not answered by AWS, so nothing is planned: %s; see waybill audit\n", counted(r.unknown, "question"))
	}
	if r.byHand > 0 {
		fmt.Fprintf(out, "no step for it, it takes a person or time: %s; see waybill audit\n", counted(r.byHand, "finding"))
	}
}

// rest counts it over the controls that setup can do something about, or those of --only.
func (o *setupOptions) rest(in *control.Inquiry) rest {
	ours := make(map[string]bool)
	for _, c := range control.Controls() {
		ours[c.ID] = len(c.Changes) > 0 && (len(o.only) == 0 || slices.Contains(o.only, c.ID))
	}
	var r rest
	for _, f := range in.Judge() {
		switch {
		case !ours[f.Control]:
		case f.Status == control.Unknown:
			r.unknown++
		case f.ByHand():
			r.byHand++
		}
	}
	return r
}

// planned says what a plan comes to.
func (o *setupOptions) planned(out io.Writer, steps []control.Step, in *control.Inquiry) error {
	rest := o.rest(in)
	if o.output == "table" {
		if len(steps) == 0 {
			fmt.Fprintln(out, "nothing has to be changed")
		} else {
			fmt.Fprintf(out, "%s; nothing was changed: add --apply\n", counted(len(steps), "step"))
		}
		rest.print(out)
	}
	if len(steps) > 0 || rest.any() {
		return errBadNews
	}
	return nil
}
