package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ingest"
	"github.com/waybill-dev/waybill/internal/lake"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// place says where a ledger is: a folder of the demo's layout, or its parts one by one.
type place struct {
	dir, lake, rates, period string
}

func (p *place) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.dir, "dir", "", "folder with lake/ and rates.csv, as waybill demo --dir makes it")
	c.Flags().StringVar(&p.lake, "lake", "", "the lake: a directory or s3://bucket/prefix")
	c.Flags().StringVar(&p.rates, "rates", "", "rate card file")
}

func (p *place) periodFlag(c *cobra.Command) {
	c.Flags().StringVar(&p.period, "period", "", "billing period YYYY-MM (default: the newest with a bill, or before there is one with calls)")
}

func (p *place) fill() error {
	if p.dir != "" {
		if _, err := os.Stat(p.dir); err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("--dir %s: there is no such folder", p.dir)}
		}
		if p.lake == "" {
			p.lake = filepath.Join(p.dir, "lake")
		}
		if p.rates == "" {
			p.rates = filepath.Join(p.dir, "rates.csv")
		}
	}
	if p.lake == "" {
		return &waybill.Error{Kind: waybill.Misused, Message: "no lake is named", Hint: "give --dir or --lake"}
	}
	return nil
}

// openAll opens the lake and the rate card.
func (p *place) openAll(ctx context.Context) (*lake.Lake, *ratecard.Card, error) {
	if err := p.fill(); err != nil {
		return nil, nil, err
	}
	card, err := readRates(p.rates)
	if err != nil {
		return nil, nil, err
	}
	l, err := lake.Open(ctx, p.lake, lake.Config{})
	return l, card, err
}

// open opens the lake and the rate card, and finds the period.
func (p *place) open(ctx context.Context) (*lake.Lake, *ratecard.Card, waybill.Period, error) {
	var period waybill.Period
	l, card, err := p.openAll(ctx)
	if err != nil {
		return nil, nil, period, err
	}
	if p.period != "" {
		if period, err = waybill.ParsePeriod(p.period); err != nil {
			return nil, nil, period, errors.Join(&waybill.Error{Kind: waybill.Misused, Message: err.Error()}, l.Close())
		}
		return l, card, period, nil
	}
	calls, bills, err := l.Periods(ctx)
	have := bills // the newest bill, or before there is any the newest calls
	if len(have) == 0 {
		have = calls
	}
	if err == nil && len(have) == 0 {
		err = &waybill.Error{Kind: waybill.NotFound, Message: "the lake at " + p.lake + " is empty", Hint: "ingest something first: waybill ingest --help"}
	}
	if err != nil {
		return nil, nil, period, errors.Join(err, l.Close())
	}
	return l, card, have[len(have)-1], nil
}

// readRates reads a rate card; without a file it is an empty one, and all usage is
// unpriced.
func readRates(path string) (*ratecard.Card, error) {
	if path == "" {
		return &ratecard.Card{}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("rate card: %v", err), Hint: "see docs/rates.md", Err: err}
	}
	defer f.Close()
	return ratecard.Parse(path, f)
}

// store lets ingest write to a lake: the two share no types but the nouns.
type store struct{ *lake.Lake }

func (s store) Loaded(ctx context.Context) (map[waybill.Object]bool, error) {
	loads, err := s.Loads(ctx)
	out := make(map[waybill.Object]bool, len(loads))
	for _, l := range loads {
		out[waybill.Object{URI: l.Object.URI, Version: l.Object.Version}] = true
	}
	return out, err
}

func (s store) Append(ctx context.Context, loads []ingest.Load, rows []ingest.Row) error {
	toLoads := make([]lake.Load, len(loads))
	for i, l := range loads {
		toLoads[i] = lake.Load{Object: l.Object, Kind: l.Kind, Period: l.Period, Rows: l.Rows, Other: l.Other, Rounded: l.Rounded, LoadedAt: l.LoadedAt}
		for _, q := range l.Quarantined {
			toLoads[i].Quarantined = append(toLoads[i].Quarantined, lake.Quarantine(q))
		}
	}
	toRows := make([]lake.Row, len(rows))
	for i, r := range rows {
		toRows[i] = lake.Row{Invocation: r.Invocation, Origin: r.Origin, Line: r.Line}
	}
	return s.AppendInvocations(ctx, toLoads, toRows)
}

func (s store) Replace(ctx context.Context, e ingest.Export, now time.Time) (ingest.Load, error) {
	l, err := s.ReplaceLineItems(ctx, lake.Export{Manifest: e.Manifest, Period: e.Period, Files: e.Files})
	out := ingest.Load{Object: l.Object, Kind: l.Kind, Period: l.Period, Rows: l.Rows, Rounded: l.Rounded, LoadedAt: now}
	for _, q := range l.Quarantined {
		out.Quarantined = append(out.Quarantined, ingest.Quarantine(q))
	}
	return out, err
}
