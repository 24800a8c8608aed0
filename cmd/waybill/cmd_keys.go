package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/identity"
)

func newKeys(out io.Writer) *cobra.Command {
	var file string
	c := &cobra.Command{Use: "keys", Short: "Make, list, rotate and revoke gateway keys"}
	c.PersistentFlags().StringVar(&file, "file", "keys.jsonl", "key file, as the gateway's callers.keys names it")
	open := func() (*identity.Keys, error) { return identity.OpenKeys(file) }
	var tags, models, environments []string
	var expires, overlap time.Duration
	create := &cobra.Command{Use: "create SUBJECT", Short: "Make a key; its secret is shown this once", Args: cobra.ExactArgs(1),
		Example: "  waybill keys create checkout-service --tag team=search --tag costCenter=CC-1001",
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := open()
			if err != nil {
				return err
			}
			spec := identity.Key{Subject: args[0], Models: models, Environments: environments}
			var list []waybill.Tag
			for _, t := range tags {
				key, value, ok := strings.Cut(t, "=")
				if !ok {
					return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--tag %q is not key=value", t)}
				}
				list = append(list, waybill.Tag{Key: key, Value: value})
			}
			spec.Tags = waybill.NewTags(list...)
			if expires > 0 {
				at := time.Now().Add(expires).UTC().Truncate(time.Second)
				spec.Expires = &at
			}
			token, _, err := k.Create(spec)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, token)
			return err
		}}
	create.Flags().StringArrayVar(&tags, "tag", nil, "tag that the key's calls carry: key=value")
	create.Flags().StringSliceVar(&models, "model", nil, "models it may use; a pattern may hold *")
	create.Flags().StringSliceVar(&environments, "environment", nil, "environments it may use")
	create.Flags().DurationVar(&expires, "expires", 0, "how long it is good for (default: until revoked)")
	rotate := &cobra.Command{Use: "rotate ID", Short: "Make a key like another, which stays good for the overlap", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := open()
			if err != nil {
				return err
			}
			token, _, err := k.Rotate(args[0], overlap)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, token)
			return err
		}}
	rotate.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old key stays good")
	revoke := &cobra.Command{Use: "revoke ID", Short: "End a key; the gateway refuses it within seconds", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := open()
			if err != nil {
				return err
			}
			return k.Revoke(args[0])
		}}
	list := &cobra.Command{Use: "list", Short: "List the keys, without their secrets", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			k, err := open()
			if err != nil {
				return err
			}
			t := table.NewWriter()
			t.SetOutputMirror(out)
			t.AppendHeader(table.Row{"id", "subject", "tags", "created", "state"})
			for _, key := range k.List() {
				state := "live"
				if !key.Live(time.Now()) {
					state = "ended"
				}
				t.AppendRow(table.Row{key.ID, key.Subject, key.Tags.Canonical(), key.Created.Format("2006-01-02"), state})
			}
			t.Render()
			return nil
		}}
	c.AddCommand(create, list, rotate, revoke)
	return c
}
