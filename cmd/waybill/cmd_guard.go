package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
	"github.com/waybill-dev/waybill/internal/iam"
	"github.com/waybill-dev/waybill/internal/policy"
)

// guardOptions say who may reach Bedrock: a file, and flags that win over it.
type guardOptions struct {
	config, policy       string
	gateway, account     string
	roles, closed        []string
	glassRoles, except   []string
	glassTag, externalID string
	administrators       []string
	require, allowTags   []string
	models, endpoints    []string
	sourceIdentity       bool
	trustLimit, scps     int
}

func (o *guardOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "guard file (YAML); flags win over it. docs/control/guard.md describes it")
	f.StringVar(&o.policy, "policy", "", "tag policy: its required session keys are required here too, and no others are allowed than its session keys")
	f.StringVar(&o.gateway, "gateway", "", "ARN of the role that the gateway runs as")
	f.StringSliceVar(&o.roles, "role", nil, "ARN, or pattern of ARNs, of the roles under which the gateway calls Bedrock")
	f.StringVar(&o.account, "account", "", "account of those roles (default: from --role)")
	var names []string
	for _, s := range control.Surfaces {
		names = append(names, s.Name)
	}
	f.StringSliceVar(&o.closed, "close", nil, "what to close: "+strings.Join(names, ", ")+" (default: the first five)")
	f.StringSliceVar(&o.glassRoles, "break-glass-role", nil, "ARN or pattern of roles that may pass in an emergency")
	f.StringVar(&o.glassTag, "break-glass-tag", "", "key=value of a principal tag that opens the way in an emergency")
	f.StringSliceVar(&o.except, "except", nil, "ARN or pattern of roles that may infer always, such as the service roles of agents")
	f.StringSliceVar(&o.administrators, "administrator", nil, "ARN or pattern of those who may change the roles that pass; nobody else may then")
	f.StringArrayVar(&o.require, "require", nil, "session tag without which no call passes: key, or key=value,value")
	f.StringSliceVar(&o.allowTags, "allow-tag", nil, "further tag keys that a session may have; others are then refused")
	f.BoolVar(&o.sourceIdentity, "source-identity", false, "the gateway sets a source identity")
	f.StringVar(&o.externalID, "external-id", "", "external id that the gateway gives when it assumes a role")
	f.StringSliceVar(&o.models, "model", nil, "foundation models that the roles may call, such as anthropic.*")
	f.StringSliceVar(&o.endpoints, "vpc-endpoint", nil, "VPC endpoints through which alone the roles may call")
	f.IntVar(&o.trustLimit, "trust-limit", 0, "the account's quota of the length of a trust policy (default 2048)")
	f.IntVar(&o.scps, "scps", 0, "how many service control policies may be attached (default 4)")
}

func (o *guardOptions) read(c *cobra.Command) (control.Guard, error) {
	var g control.Guard
	if o.config != "" {
		src, err := os.ReadFile(o.config)
		if err != nil {
			return g, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("guard file: %v", err)}
		}
		if err := yaml.Load(src, &g, yaml.WithKnownFields(true), yaml.WithUniqueKeys(true)); err != nil {
			return g, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s: %v", o.config, err), Hint: "docs/control/guard.md describes the file"}
		}
	}
	changed := c.Flags().Changed
	set := func(flag string, to *[]string, from []string) {
		if changed(flag) {
			*to = from
		}
	}
	text := func(flag string, to *string, from string) {
		if changed(flag) {
			*to = from
		}
	}
	text("gateway", &g.Gateway, o.gateway)
	text("account", &g.Account, o.account)
	text("break-glass-tag", &g.BreakGlass.Tag, o.glassTag)
	text("external-id", &g.ExternalID, o.externalID)
	set("role", &g.Roles, o.roles)
	set("close", &g.Close, o.closed)
	set("break-glass-role", &g.BreakGlass.Roles, o.glassRoles)
	set("administrator", &g.Administrators, o.administrators)
	set("allow-tag", &g.AllowTags, o.allowTags)
	set("model", &g.Models, o.models)
	set("vpc-endpoint", &g.VPCEndpoints, o.endpoints)
	if changed("except") {
		g.Exceptions = []control.Exception{{Roles: o.except}}
	}
	if changed("require") {
		g.Require = nil
		for _, r := range o.require {
			key, values, _ := strings.Cut(r, "=")
			one := control.Required{Key: key}
			if values != "" {
				one.Values = strings.Split(values, ",")
			}
			g.Require = append(g.Require, one)
		}
	}
	if err := o.byPolicy(&g); err != nil {
		return g, err
	}
	if changed("source-identity") {
		g.SourceIdentity = o.sourceIdentity
	}
	if changed("trust-limit") {
		g.TrustLimit = o.trustLimit
	}
	if changed("scps") {
		g.SCPs = o.scps
	}
	return g, nil
}

// byPolicy takes the session keys of the tag policy. Their values are the policy's to
// judge, which knows aliases and pseudonyms: here they must be there.
func (o *guardOptions) byPolicy(g *control.Guard) error {
	if o.policy == "" {
		return nil
	}
	src, err := os.ReadFile(o.policy)
	if err != nil {
		return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("policy: %v", err)}
	}
	p, err := policy.Parse(o.policy, src, policy.Options{HashKey: []byte(tryingKey), Open: os.ReadFile})
	if err != nil {
		return &waybill.Error{Kind: waybill.Misused, Message: err.Error(), Hint: "waybill policy lint " + o.policy + " shows what is wrong"}
	}
	session := p.KeysOn(policy.OnSession)
	g.AllowTags = append(slices.Clone(g.AllowTags), session...)
	for _, key := range p.Required() {
		if slices.Contains(session, key) && !slices.ContainsFunc(g.Require, func(r control.Required) bool { return strings.EqualFold(r.Key, key) }) {
			g.Require = append(g.Require, control.Required{Key: key})
		}
	}
	return nil
}

type guardCommand struct {
	guardOptions
	format, dir  string
	against, use []string
	prove        bool
	requests     int
	seed         uint64
}

func newGuard(out io.Writer) *cobra.Command {
	var o guardCommand
	c := &cobra.Command{Use: "guard", Short: "Write the policies that make the gateway the only way to Bedrock, and prove them", Args: cobra.NoArgs,
		Long: `Guard writes a service control policy (or several, where one is too small), the trust and
permission policies of the gateway's roles, and a VPC endpoint policy. Together they make
the gateway the only way to Amazon Bedrock, on bedrock-runtime and bedrock-mantle, and
leave everything else alone. It changes nothing in AWS.

With --prove it asks the policies about thousands of generated requests: the gateway
passes, everybody else is denied, nothing outside Bedrock changes. What comes out otherwise
is shown, as small as it can be made, and is exit code 3. With --use the proof takes a
policy of yours in place of the one that is written.

With --against it shows what would change in a policy that is in force. A difference is
exit code 3.`,
		Example: `  waybill guard --gateway arn:aws:iam::111122223333:role/waybill/gateway \
                --role 'arn:aws:iam::111122223333:role/waybill/bedrock-*' --require team
  waybill guard --config guard.yaml --format terraform --out ./guard
  waybill guard --config guard.yaml --prove
  waybill guard --config guard.yaml --prove --use scp=in-force.json
  waybill guard --config guard.yaml --against scp=in-force.json
  waybill guard radar --config guard.yaml --lake ./lake --rates rates.csv`,
		RunE: func(c *cobra.Command, _ []string) error { return runGuard(c, o, out) }}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.format, "format", "text", "text, json, terraform or cloudformation")
	f.StringVar(&o.dir, "out", "", "folder to write files to, instead of to the output")
	f.StringArrayVar(&o.against, "against", nil, "[NAME=]FILE: show how a policy in force differs; NAME is scp (default), role-trust, role-permissions or vpc-endpoint")
	f.BoolVar(&o.prove, "prove", false, "ask the policies about generated requests")
	f.StringArrayVar(&o.use, "use", nil, "NAME=FILE: with --prove, a policy to prove in place of the one that is written")
	f.IntVar(&o.requests, "requests", 10_000, "with --prove, how many requests to ask about at least")
	f.Uint64Var(&o.seed, "seed", 1, "with --prove, what the requests are drawn by")
	c.AddCommand(newRadar(out))
	return c
}

func runGuard(c *cobra.Command, o guardCommand, out io.Writer) error {
	if err := oneOf("format", o.format, "text", "json", "terraform", "cloudformation"); err != nil {
		return err
	}
	if len(o.use) > 0 && !o.prove {
		return &waybill.Error{Kind: waybill.Misused, Message: "--use is for --prove", Hint: "--against compares with a policy in force"}
	}
	g, err := o.read(c)
	if err != nil {
		return err
	}
	p, err := g.Write()
	if err != nil {
		return err
	}
	switch {
	case o.prove:
		return proveGuard(p, o, out)
	case len(o.against) > 0:
		return againstGuard(p, o.against, out)
	case o.dir != "":
		return writeGuard(p, o, out)
	}
	return showGuard(p, o.format, out)
}

func showGuard(p *control.Policies, format string, out io.Writer) error {
	var text []byte
	var err error
	switch format {
	case "json":
		return writeJSON(out, struct {
			Version int `json:"version"`
			*control.Policies
		}{1, p})
	case "terraform":
		text, err = p.Terraform()
	case "cloudformation":
		text, err = p.CloudFormation()
	default:
		for _, d := range p.Documents {
			fmt.Fprintf(out, "%s: %s\n  attach to %s\n  %d of %d characters\n", d.Name, d.Why, d.Attach, d.Size, d.Limit)
			for _, s := range d.Statements {
				fmt.Fprintf(out, "  %-24s %s\n", s.Sid, s.Why)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, d.JSON, "", "  "); err != nil {
				return err
			}
			fmt.Fprintf(out, "\n%s\n\n", pretty.Bytes())
		}
		for _, w := range p.Warnings {
			fmt.Fprintln(out, "note:", w)
		}
		return nil
	}
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// writeGuard writes files: a policy each, as it is to be sent, or a configuration.
func writeGuard(p *control.Policies, o guardCommand, out io.Writer) error {
	files := make(map[string][]byte)
	var names []string
	add := func(name string, content []byte) { files[name], names = content, append(names, name) }
	switch o.format {
	case "terraform":
		text, err := p.Terraform()
		if err != nil {
			return err
		}
		add("waybill-guard.tf", text)
	case "cloudformation":
		text, err := p.CloudFormation()
		if err != nil {
			return err
		}
		add("waybill-guard.yaml", text)
	default:
		for _, d := range p.Documents {
			add(d.Name+".json", d.JSON)
		}
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return fmt.Errorf("write the guard: %w", err)
	}
	for _, name := range names {
		path := filepath.Join(o.dir, name)
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return fmt.Errorf("write the guard: %w", err)
		}
		fmt.Fprintf(out, "%s: %d bytes\n", filepath.ToSlash(path), len(files[name]))
	}
	for _, w := range p.Warnings {
		fmt.Fprintln(out, "note:", w)
	}
	return nil
}

// named reads [NAME=]FILE, and finds the document of that name.
func named(p *control.Policies, flag, text, fallback string) (*control.Document, string, []byte, error) {
	name, file, ok := strings.Cut(text, "=")
	if !ok {
		name, file = fallback, text
	}
	i := slices.IndexFunc(p.Documents, func(d control.Document) bool { return d.Name == name })
	if i < 0 {
		var known []string
		for _, d := range p.Documents {
			known = append(known, d.Name)
		}
		return nil, "", nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--%s %s: no policy of this guard has that name", flag, text), Hint: "write NAME=FILE; NAME is one of " + strings.Join(known, ", ")}
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, "", nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--%s: %v", flag, err)}
	}
	return &p.Documents[i], file, src, nil
}

func againstGuard(p *control.Policies, against []string, out io.Writer) error {
	different := false
	for _, text := range against {
		d, file, src, err := named(p, "against", text, "scp")
		if err != nil {
			return err
		}
		diff, err := d.Diff(file, src)
		if err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: err.Error(), Err: err}
		}
		if len(diff) == 0 {
			fmt.Fprintf(out, "%s: says what %s says\n", d.Name, file)
			continue
		}
		different = true
		if _, err := out.Write(diff); err != nil {
			return err
		}
	}
	if different {
		return errBadNews
	}
	return nil
}

func proveGuard(p *control.Policies, o guardCommand, out io.Writer) error {
	for _, text := range o.use {
		d, file, src, err := named(p, "use", text, "")
		if err != nil {
			return err
		}
		if _, err := iam.Parse(file, d.Kind, src); err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: err.Error(), Err: err}
		}
		d.JSON = src
	}
	proof, err := p.Prove(control.ProofOptions{Requests: o.requests, Seed: o.seed})
	if err != nil {
		return err
	}
	if o.format == "json" {
		err = writeJSON(out, struct {
			Version int `json:"version"`
			*control.Proof
		}{1, proof})
	} else {
		proofText(out, proof, p.Warnings)
	}
	if err == nil && len(proof.Failures) > 0 {
		err = errBadNews
	}
	return err
}

func proofText(out io.Writer, proof *control.Proof, warnings []string) {
	t := rightTable(out, 2, "policy", "requests", "must pass", "must be denied", "must not change")
	for _, l := range proof.Layers {
		t.AppendRow(table.Row{l.Layer, l.Requests, l.Pass, l.Deny, l.Unchanged})
	}
	t.Render()
	if len(proof.Failures) == 0 {
		fmt.Fprintf(out, "\n%d requests: all came out as they must (seed %d)\n", proof.Requests, proof.Seed)
	} else {
		fmt.Fprintf(out, "\n%d requests; these came out otherwise than they must (seed %d):\n", proof.Requests, proof.Seed)
	}
	for _, f := range proof.Failures {
		fmt.Fprintf(out, "\n%s: %s\n  %s on %s\n", f.Layer, f.Who, f.Request.Action, f.Request.Resource)
		fmt.Fprintf(out, "  must %s: %s\n  is %s", f.Want, f.Why, f.Got)
		if f.Policy != "" {
			fmt.Fprintf(out, " by %s", f.Policy)
		}
		if f.Sid != "" {
			fmt.Fprintf(out, ", statement %s", f.Sid)
		}
		if len(f.Missing) > 0 {
			fmt.Fprintf(out, ": it hangs on %s, which generated requests do not have", strings.Join(f.Missing, ", "))
		}
		fmt.Fprintf(out, "\n  caller %s", f.Request.Caller.ARN)
		for k, v := range waybill.TagsFromMap(f.Request.Caller.Tags).All() {
			fmt.Fprintf(out, "\n  tag %s=%s", k, v)
		}
		var keys []string
		for k := range f.Request.Context {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			fmt.Fprintf(out, "\n  with %s = %s", k, strings.Join(f.Request.Context[k], ", "))
		}
		if f.Alike > 0 {
			fmt.Fprintf(out, "\n  and %d like it", f.Alike)
			if f.Callers > 1 {
				fmt.Fprintf(out, ", of %d callers in all", f.Callers)
			}
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "\nThe proof goes by AWS's written rules of evaluation; it calls nothing.")
	for _, w := range warnings {
		fmt.Fprintln(out, "note:", w)
	}
}
