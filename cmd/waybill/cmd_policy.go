package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

func newPolicy(out io.Writer) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Check a tag policy"}
	c.AddCommand(&cobra.Command{Use: "lint FILE", Short: "Say everything that is wrong with a policy, with its place and the remedy", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			src, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			p, err := policy.Parse(args[0], src, policy.Options{HashKey: []byte("a key for checking only")})
			if err != nil {
				fmt.Fprintln(out, err)
				return errBadNews
			}
			for _, w := range p.Warnings() {
				fmt.Fprintln(out, "warning:", w)
			}
			_, err = fmt.Fprintf(out, "%s: good; version %s, keys %s\n", args[0], p.Version(), strings.Join(p.Keys(), ", "))
			return err
		}})
	return c
}

func newRates(out io.Writer) *cobra.Command {
	c := &cobra.Command{Use: "rates", Short: "Check a rate card"}
	c.AddCommand(&cobra.Command{Use: "lint FILE", Short: "Say everything that is wrong with a rate card, and what has expired", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			card, err := readRates(args[0])
			if err != nil {
				if waybill.KindOf(err) == waybill.Misused {
					return err
				}
				fmt.Fprintln(out, err)
				return errBadNews
			}
			fmt.Fprintf(out, "%s: good; %d prices of %d models\n", args[0], card.Rows(), len(card.ModelIDs()))
			for _, p := range card.Expired(time.Now()) {
				fmt.Fprintf(out, "%s:%d: ended on %s and has no successor\n", args[0], p.Line, p.To)
			}
			return nil
		}})
	return c
}
