package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
)

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
