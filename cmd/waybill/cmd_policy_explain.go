package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
	"github.com/waybill-dev/waybill/internal/policy"
)

type explainOptions struct {
	policyOptions
	caller, issuer, key                   string
	model, operation, endpoint, region    string
	on                                    string
	claims, callerTags, sends, headerList []string
}

func newPolicyExplain(out io.Writer) *cobra.Command {
	var o explainOptions
	c := &cobra.Command{Use: "explain FILE", Short: "Show for one call where each tag comes from, and why it is kept, changed or dropped", Args: cobra.ExactArgs(1),
		Long: `Explain decides on one call, without making it, and shows for each tag which source
gave it and what happened to it, for each rule whether it held and why not, and what
would be refused. Exit code 3 if the call would be refused.`,
		Example: `  waybill policy explain policy.yaml --caller user-17 --send environment=prod --model anthropic.claude-sonnet-4-6
  waybill policy explain policy.yaml --caller checkout --caller-tag team=checkout --header 'x-litellm-tags: env:prod'`,
		RunE: func(_ *cobra.Command, args []string) error { return runExplain(args[0], o, out) }}
	o.flags(c, "table or json")
	c.Flags().StringVar(&o.caller, "caller", "", "subject of the caller")
	c.Flags().StringVar(&o.issuer, "issuer", "gateway-key", "who vouches for the caller")
	c.Flags().StringVar(&o.key, "key", "", "id of the gateway key")
	c.Flags().StringArrayVar(&o.claims, "claim", nil, "claim of the caller's token: name=value")
	c.Flags().StringArrayVar(&o.callerTags, "caller-tag", nil, "tag of the caller's registration: key=value")
	c.Flags().StringArrayVar(&o.sends, "send", nil, "tag that the request sends: key=value")
	c.Flags().StringArrayVar(&o.headerList, "header", nil, "header of the request: 'name: value'")
	c.Flags().StringVar(&o.model, "model", "", "model that is called")
	c.Flags().StringVar(&o.operation, "operation", "Converse", "operation")
	c.Flags().StringVar(&o.endpoint, "endpoint", "bedrock-runtime", "bedrock-runtime or bedrock-mantle")
	c.Flags().StringVar(&o.region, "region", "us-east-1", "Region that is called")
	c.Flags().StringVar(&o.on, "on", "", "day of the call, YYYY-MM-DD (default: today)")
	return c
}

// request is the call that the flags describe.
func (o *explainOptions) request() (*policy.Request, error) {
	misused := func(message string) error { return &waybill.Error{Kind: waybill.Misused, Message: message} }
	req := &policy.Request{CallID: "the id of the call", At: time.Now(), Operation: o.operation, Endpoint: waybill.Endpoint(o.endpoint), Region: o.region, Model: waybill.ModelID(o.model),
		Principal: waybill.Principal{Subject: o.caller, Issuer: o.issuer, KeyID: o.key, Claims: make(map[string]string)}}
	if err := oneOf("endpoint", o.endpoint, string(waybill.Runtime), string(waybill.Mantle)); err != nil {
		return nil, err
	}
	if o.on != "" {
		day, err := waybill.ParseDay(o.on)
		if err != nil {
			return nil, misused("--on: " + err.Error())
		}
		req.At = day.Start()
	}
	claims, err := pairs("claim", o.claims)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		req.Principal.Claims[c.Key] = c.Value
	}
	tags, err := pairs("caller-tag", o.callerTags)
	if err != nil {
		return nil, err
	}
	req.Principal.Tags = waybill.NewTags(tags...)
	sends, err := pairs("send", o.sends)
	if err != nil {
		return nil, err
	}
	for _, s := range sends {
		req.Asked = append(req.Asked, policy.Asked{Key: s.Key, Value: s.Value, From: policy.TagsHeader})
	}
	h := make(http.Header)
	for _, line := range o.headerList {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, misused("--header takes 'name: value'")
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	asked, err := policy.TakeAsked(h)
	if err != nil {
		return nil, err
	}
	req.Asked = append(req.Asked, asked...)
	for _, raw := range bedrock.TakeMetadata(h) {
		metadata, err := bedrock.ParseMetadata(raw)
		if err != nil {
			return nil, err
		}
		for k, v := range metadata.All() {
			req.Asked = append(req.Asked, policy.Asked{Key: k, Value: v, From: bedrock.MetadataHeaderName})
		}
	}
	policy.Order(req.Asked)
	return req, nil
}

func runExplain(path string, o explainOptions, out io.Writer) error {
	if err := oneOf("output", o.output, "table", "json"); err != nil {
		return err
	}
	p, err := o.read(path, out)
	if err != nil {
		return err
	}
	req, err := o.request()
	if err != nil {
		return err
	}
	d := p.Explain(req)
	if o.output == "json" {
		err = explainJSON(p, d, out)
	} else {
		explainText(p, d, out)
	}
	if err == nil && d.Outcome == waybill.PolicyRefused {
		err = errBadNews
	}
	return err
}

func explainJSON(p *policy.Policy, d *policy.Decision, out io.Writer) error {
	return writeJSON(out, struct {
		Version     int                   `json:"version"`
		Policy      string                `json:"policy"`
		Outcome     waybill.PolicyOutcome `json:"outcome"`
		TagSet      string                `json:"tag_set"`
		Tags        waybill.Tags          `json:"tags"`
		Request     waybill.Tags          `json:"request"`
		Session     waybill.Tags          `json:"session"`
		Resource    waybill.Tags          `json:"resource"`
		SessionName string                `json:"session_name"`
		Steps       []policy.Step         `json:"steps"`
		Rules       []policy.RuleStep     `json:"rules"`
		Violations  []policy.Violation    `json:"violations"`
	}{1, p.Version(), d.Outcome, d.Tags.ID(), d.Tags, d.Request, d.Session, d.Resource, d.SessionName,
		append([]policy.Step{}, d.Steps...), append([]policy.RuleStep{}, d.Rules...), append([]policy.Violation{}, d.Violations...)})
}

func explainText(p *policy.Policy, d *policy.Decision, out io.Writer) {
	fmt.Fprintf(out, "%s by policy %s; session name %s\n\n", d.Outcome, p.Version(), d.SessionName)
	t := newTable(out, "tag", "value", "source", "carriers", "what happened")
	for _, key := range keysInOrder(p, d) {
		var sources, what []string
		for _, s := range d.Steps {
			if s.Key != key {
				continue
			}
			if s.Source != "" && !slices.Contains(sources, s.Source) {
				sources = append(sources, s.Source)
			}
			what = append(what, s.What)
		}
		value, there := d.Tags.Get(key)
		if !there && len(what) == 0 {
			continue // optional, and nobody gave it
		}
		if !there {
			value = "-"
		}
		t.AppendRow(table.Row{key, value, strings.Join(sources, "\n"), carriersOf(d, key), strings.Join(what, "\n")})
	}
	t.Render()
	if len(d.Rules) > 0 {
		fmt.Fprintln(out)
		for _, r := range d.Rules {
			fmt.Fprintf(out, "%s %s\n", r.Rule, r.Why)
		}
	}
	if len(d.Violations) > 0 {
		fmt.Fprintln(out)
		t := newTable(out, "violation", "mode", "what", "remedy")
		for _, v := range d.Violations {
			t.AppendRow(table.Row{strings.TrimPrefix(v.Key+" "+v.Code, " "), v.Mode, v.Message, v.Remedy})
		}
		t.Render()
	}
}

// newTable is a table in the style of the other commands, with long texts folded.
func newTable(out io.Writer, header ...string) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder = false
	t.Style().Options.SeparateColumns = false
	t.Style().Format.Header, t.Style().Format.Footer = text.FormatDefault, text.FormatDefault
	row := make(table.Row, len(header))
	var columns []table.ColumnConfig
	for i, h := range header {
		row[i] = h
		columns = append(columns, table.ColumnConfig{Number: i + 1, WidthMax: 60, WidthMaxEnforcer: text.WrapSoft})
	}
	t.AppendHeader(row)
	t.SetColumnConfigs(columns)
	return t
}
