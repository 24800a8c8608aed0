package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

// policyOptions name a policy and the secrets it hashes with.
type policyOptions struct {
	hashKeys string
	output   string
}

func newPolicy(out io.Writer) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Check, test and explain a tag policy, and say what it would change",
		Long: `A tag policy says which tags a call carries, where their values come from, and which
values they take. docs/operate/policy.md is its reference.`,
		Example: `  waybill policy lint policy.yaml
  waybill policy test policy.yaml
  waybill policy explain policy.yaml --caller user-17 --send environment=prod
  waybill policy impact --policy new.yaml --since 30d --lake ./lake`}
	c.AddCommand(newPolicyLint(out), newPolicyTest(out), newPolicyExplain(out), newPolicyImpact(out), newPolicyStats(out), newPolicyResolve(out), newPolicyEpochs(out), newPolicySchema(out))
	return c
}

func (o *policyOptions) flags(c *cobra.Command, outputs string) {
	c.Flags().StringVar(&o.hashKeys, "hash-keys", "", "file of the secrets of hashing, as the gateway's hashKeys names it (default: a secret for trying out)")
	c.Flags().StringVar(&o.output, "output", "table", outputs)
}

// tryingKey stands in for the secret of hashing where nothing is kept.
const tryingKey = "for trying out only: not a secret"

// read reads a policy. Mistakes are shown on out, and are bad news.
func (o *policyOptions) read(path string, out io.Writer) (*policy.Policy, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("policy: %v", err)}
	}
	opts := policy.Options{Open: os.ReadFile}
	if o.hashKeys == "" {
		opts.HashKey = []byte(tryingKey)
	} else if opts.Epochs, err = readEpochs(o.hashKeys); err != nil {
		return nil, err
	}
	p, err := policy.Parse(path, src, opts)
	if mistakes, ok := errors.AsType[policy.Mistakes](err); ok {
		return nil, o.showMistakes(path, mistakes, out)
	}
	return p, err
}

// showMistakes shows what is wrong with a file, which is bad news.
func (o *policyOptions) showMistakes(path string, mistakes policy.Mistakes, out io.Writer) error {
	if o.output == "json" {
		return errors.Join(errBadNews, writeJSON(out, struct {
			Version  int             `json:"version"`
			File     string          `json:"file"`
			Mistakes policy.Mistakes `json:"mistakes"`
		}{1, path, mistakes}))
	}
	fmt.Fprintln(out, mistakes)
	return errBadNews
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func newPolicyLint(out io.Writer) *cobra.Command {
	var o policyOptions
	c := &cobra.Command{Use: "lint FILE", Short: "Say everything that is wrong with a policy, with its place and the remedy", Args: cobra.ExactArgs(1),
		Long: `Lint reads a policy and what it imports, and tells every mistake at once: file, line,
column, key, rule and remedy. Exit code 3 if there is one.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := oneOf("output", o.output, "table", "json"); err != nil {
				return err
			}
			p, err := o.read(args[0], out)
			if err != nil {
				return err
			}
			if o.output == "json" {
				return writeJSON(out, struct {
					Version  int             `json:"version"`
					File     string          `json:"file"`
					Policy   string          `json:"policy"`
					Revision string          `json:"revision,omitempty"`
					Keys     []string        `json:"keys"`
					Mistakes policy.Mistakes `json:"mistakes"`
					Warnings []string        `json:"warnings"`
				}{1, args[0], p.Version(), p.Revision(), p.Keys(), policy.Mistakes{}, append([]string{}, p.Warnings()...)})
			}
			for _, w := range p.Warnings() {
				fmt.Fprintln(out, "warning:", w)
			}
			_, err = fmt.Fprintf(out, "%s: good; version %s, keys %s\n", args[0], p.Version(), strings.Join(p.Keys(), ", "))
			return err
		}}
	o.flags(c, "table or json")
	return c
}

func newPolicyTest(out io.Writer) *cobra.Command {
	var o policyOptions
	var cases string
	c := &cobra.Command{Use: "test FILE", Short: "Hold a policy against the cases kept beside it", Args: cobra.ExactArgs(1),
		Long: `Test runs the cases of a file that is kept beside the policy: policy.cases.yaml beside
policy.yaml. Each says who calls, what the call sends, and what is expected:

  cases:
    - name: production needs a cost centre
      caller: user-17
      sends: {environment: prod}
      outcome: refused
      because: [costCenter missing]

Exit code 3 if a case does not come out as expected.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := oneOf("output", o.output, "table", "json"); err != nil {
				return err
			}
			p, err := o.read(args[0], out)
			if err != nil {
				return err
			}
			results, err := o.runCases(p, casesFile(args[0], cases), out)
			if err != nil {
				return err
			}
			return showCases(results, o.output, out)
		}}
	o.flags(c, "table or json")
	c.Flags().StringVar(&cases, "cases", "", "file of cases (default: beside the policy, .cases.yaml)")
	return c
}

func casesFile(policyFile, cases string) string {
	if cases != "" {
		return cases
	}
	return strings.TrimSuffix(policyFile, filepath.Ext(policyFile)) + ".cases.yaml"
}

func (o *policyOptions) runCases(p *policy.Policy, file string, out io.Writer) ([]policy.CaseResult, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("cases: %v", err), Hint: "waybill policy test --help shows how a file of cases is written"}
	}
	results, err := p.RunCases(file, src)
	if mistakes, ok := errors.AsType[policy.Mistakes](err); ok {
		return nil, o.showMistakes(file, mistakes, out)
	}
	return results, err
}

func showCases(results []policy.CaseResult, output string, out io.Writer) error {
	failed := 0
	for _, r := range results {
		if len(r.Failures) > 0 {
			failed++
		}
	}
	var err error
	if output == "json" {
		err = writeJSON(out, struct {
			Version int                 `json:"version"`
			Cases   []policy.CaseResult `json:"cases"`
			Failed  int                 `json:"failed"`
		}{1, results, failed})
	} else {
		for _, r := range results {
			if len(r.Failures) == 0 {
				fmt.Fprintf(out, "ok    %s\n", r.Name)
				continue
			}
			fmt.Fprintf(out, "FAIL  %s (%s)\n", r.Name, r.Position)
			for _, f := range r.Failures {
				fmt.Fprintf(out, "        %s\n", f)
			}
		}
		_, err = fmt.Fprintf(out, "%d cases, %d failed\n", len(results), failed)
	}
	if err == nil && failed > 0 {
		err = errBadNews
	}
	return err
}

func newPolicySchema(out io.Writer) *cobra.Command {
	var cases bool
	c := &cobra.Command{Use: "schema", Short: "Print the JSON Schema of a policy file, for editors", Args: cobra.NoArgs,
		Long: `Schema prints the JSON Schema of a policy file, or of a file of cases. Editors that know
the YAML language server take it from the first line of the file:

  # yaml-language-server: $schema=tag-policy.json`,
		RunE: func(*cobra.Command, []string) error {
			schema := policy.Schema
			if cases {
				schema = policy.CasesSchema
			}
			_, err := out.Write(schema)
			return err
		}}
	c.Flags().BoolVar(&cases, "cases", false, "of a file of cases")
	return c
}

// pairs reads flags of the form key=value.
func pairs(flag string, texts []string) ([]waybill.Tag, error) {
	var out []waybill.Tag
	for _, text := range texts {
		k, v, ok := strings.Cut(text, "=")
		if !ok || k == "" {
			return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--%s %q is not key=value", flag, text)}
		}
		out = append(out, waybill.Tag{Key: k, Value: v})
	}
	return out, nil
}

// carriersOf lists the carriers of a key that took it.
func carriersOf(d *policy.Decision, key string) string {
	var on []string
	for _, c := range []struct {
		name string
		set  waybill.Tags
	}{{"session", d.Session}, {"request", d.Request}, {"resource", d.Resource}} {
		if _, there := c.set.Get(key); there {
			on = append(on, c.name)
		}
	}
	return strings.Join(on, ", ")
}

// keysInOrder are the policy's keys, and after them others that a decision has.
func keysInOrder(p *policy.Policy, d *policy.Decision) []string {
	keys := p.Keys()
	add := func(k string) {
		if k != "" && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	for k := range d.Tags.All() {
		add(k)
	}
	for _, s := range d.Steps {
		add(s.Key)
	}
	return keys
}
