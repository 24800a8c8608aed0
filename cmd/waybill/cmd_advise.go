package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
)

type adviseOptions struct {
	ask, on, keys, regions []string
	snapshot, output       string
}

func newAdvise(out, stderr io.Writer) *cobra.Command {
	var o adviseOptions
	var questions, paths []string
	for _, q := range control.Questions {
		questions = append(questions, fmt.Sprintf("  %-18s %s", q.Name, q.Doc))
	}
	for _, p := range control.Paths {
		paths = append(paths, fmt.Sprintf("  %-18s %s: %s", p.Name, p.Endpoint, p.Doc))
	}
	c := &cobra.Command{Use: "advise", Short: "Say which way of attributing cost answers your question, and what it takes", Args: cobra.NoArgs,
		Long: `Advise answers which of AWS's mechanisms, or which together, say what you want to know of
the cost of Amazon Bedrock; which of them goes with which API; what each shows where, and
when; and the commands that come next. On a terminal it asks; otherwise flags say:

--ask
` + strings.Join(questions, "\n") + `

--on (bedrock-runtime and bedrock-mantle stand for all of their paths)
` + strings.Join(paths, "\n"),
		Example: `  waybill advise
  waybill advise --ask teams,prompts --on converse,mantle-chat --key team,costCenter
  waybill advise --ask both --output json`,
		RunE: func(*cobra.Command, []string) error {
			return runAdvise(o, os.Stdin, term.IsTerminal(int(os.Stdin.Fd())), out, stderr)
		}}
	c.Flags().StringSliceVar(&o.ask, "ask", nil, "what you want to know: teams, applications, prompts, both")
	c.Flags().StringSliceVar(&o.on, "on", nil, "the APIs that are called (default: all of both endpoints)")
	c.Flags().StringSliceVar(&o.keys, "key", nil, "tag keys that costs are to be known by (default: team, application, environment, costCenter)")
	c.Flags().StringSliceVar(&o.regions, "region", nil, "Regions that are called")
	c.Flags().StringVar(&o.snapshot, "snapshot", "", "a snapshot of the account, as audit keeps it, to say what is missing today")
	c.Flags().StringVar(&o.output, "output", "table", "table or json")
	return c
}

func runAdvise(o adviseOptions, in io.Reader, terminal bool, out, stderr io.Writer) error {
	if err := oneOf("output", o.output, "table", "json"); err != nil {
		return err
	}
	if len(o.ask) == 0 {
		if !terminal {
			return &waybill.Error{Kind: waybill.Misused, Message: "no question is asked", Hint: "--ask teams, applications, prompts or both; on a terminal waybill advise asks"}
		}
		if err := interview(&o, in, stderr); err != nil {
			return err
		}
	}
	asked := control.Asked{Paths: o.on, Keys: o.keys, Regions: o.regions}
	for _, q := range o.ask {
		asked.Questions = append(asked.Questions, control.Question(q))
	}
	var standing control.Standing
	if o.snapshot != "" {
		src, err := os.ReadFile(o.snapshot)
		if err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--snapshot: %v", err)}
		}
		s, err := control.ReadSnapshot(src)
		if err != nil {
			return err
		}
		standing = control.StandingOf(s)
		if len(asked.Regions) == 0 {
			asked.Regions = standing.Regions()
		}
	}
	a, err := control.Advise(asked, standing)
	if err != nil {
		return err
	}
	if o.output == "json" {
		return writeJSON(out, struct {
			Version int `json:"version"`
			*control.Advice
		}{1, a})
	}
	adviceText(out, a)
	return nil
}

// interview asks on a terminal what flags did not say. Questions go to stderr, so that
// the advice alone is the output.
func interview(o *adviseOptions, in io.Reader, talk io.Writer) error {
	lines := bufio.NewScanner(in)
	choose := func(title string, names, docs []string) ([]string, error) {
		for {
			fmt.Fprintln(talk, title)
			for i := range names {
				fmt.Fprintf(talk, "  %d  %-18s %s\n", i+1, names[i], docs[i])
			}
			fmt.Fprint(talk, "numbers or names, separated by commas: ")
			if !lines.Scan() {
				return nil, &waybill.Error{Kind: waybill.Misused, Message: "no answer was given", Hint: "--ask and --on say the same without a terminal", Err: lines.Err()}
			}
			chosen, wrong := []string{}, ""
			for word := range strings.FieldsFuncSeq(lines.Text(), func(r rune) bool { return r == ',' || r == ' ' }) {
				i := slices.IndexFunc(names, func(name string) bool { return name == word })
				for n := range names {
					if fmt.Sprint(n+1) == word {
						i = n
					}
				}
				if i < 0 {
					wrong = word
					continue
				}
				chosen = append(chosen, names[i])
			}
			if wrong == "" {
				return chosen, nil
			}
			fmt.Fprintf(talk, "%q is none of them\n\n", wrong)
		}
	}
	var names, docs []string
	for _, q := range control.Questions {
		names, docs = append(names, string(q.Name)), append(docs, q.Doc)
	}
	var err error
	if o.ask, err = choose("What do you want to know?", names, docs); err != nil {
		return err
	}
	if len(o.on) > 0 {
		return nil
	}
	names, docs = nil, nil
	for _, p := range control.Paths {
		names, docs = append(names, p.Name), append(docs, p.Endpoint+": "+p.Doc)
	}
	o.on, err = choose("\nWhich APIs are called? (none: all of both endpoints)", names, docs)
	fmt.Fprintln(talk)
	return err
}

func adviceText(out io.Writer, a *control.Advice) {
	fmt.Fprintf(out, "%s\n\n", a.Answer)
	for _, u := range a.Mechanisms {
		fmt.Fprintf(out, "%s: %s\n", u.Mechanism, u.Why)
	}
	fmt.Fprintln(out, "\nwhat reaches what")
	header := []string{"path"}
	for _, u := range a.Mechanisms {
		header = append(header, string(u.Mechanism))
	}
	t := newTable(out, header...)
	for _, p := range a.Asked.Paths {
		row := table.Row{p}
		for _, u := range a.Mechanisms {
			row = append(row, u.Paths[p].Reach)
		}
		t.AppendRow(row)
	}
	t.Render()
	fmt.Fprintln(out, "\nwhat shows where, and when")
	for _, u := range a.Mechanisms {
		s := u.Shows
		fmt.Fprintf(out, "  %s\n", u.Mechanism)
		for _, line := range [][2]string{{"Cost Explorer", s.CostExplorer}, {"CUR", s.CUR}, {"logs", s.Logs}, {"grain", s.Grain}, {"delay", s.Delay}, {"needs", s.Needs}, {"limit", s.Limit}} {
			fmt.Fprintf(out, "    %-14s %s\n", line[0], line[1])
		}
	}
	if len(a.Gaps) > 0 {
		fmt.Fprintln(out, "\nwhere it does not reach")
		for _, g := range a.Gaps {
			fmt.Fprintf(out, "  %-18s %s; %s\n", g.Path, g.What, g.Instead)
		}
	}
	if len(a.Missing) > 0 {
		fmt.Fprintln(out, "\nwhat must hold in the account")
		for _, m := range a.Missing {
			mark := "missing"
			if !m.Known {
				mark = "look at"
			}
			fmt.Fprintf(out, "  %s  %s\n", mark, m.What)
		}
	}
	fmt.Fprintln(out, "\nnext")
	for _, n := range a.Next {
		fmt.Fprintf(out, "  %s\n      %s\n", n.Command, n.Why)
	}
	for _, n := range a.Notes {
		fmt.Fprintln(out, "\nnote:", n)
	}
}
