package ratecard

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
)

// Columns are the columns of a rate card file, in any order.
//
//	model        model id, as calls name it; no profile prefix
//	region       the Region that is called, or * for all
//	scope        plain, geo, global, or regional for plain and geo alike
//	usage_kind   a waybill.Kind: input, output, cache_read, ...
//	tier         standard, flex, priority, batch, ...
//	context      empty, or "> N": the price of calls whose context has more than N tokens
//	per          the number of units the price is for: 1, 1000, 1000000
//	price        decimal, in currency
//	currency     USD
//	valid_from   first day, YYYY-MM-DD, UTC
//	valid_to     the day after the last, or empty while it is in force
//	source       where the price was read
var Columns = []string{"model", "region", "scope", "usage_kind", "tier", "context", "per", "price", "currency", "valid_from", "valid_to", "source"}

// A Price is a rate with its validity and origin.
type Price struct {
	Rate     waybill.Rate
	Currency string
	From     waybill.Day // first day
	To       waybill.Day // the day after the last; 0 while in force
	Source   string      // where it was read
	Line     int         // in the rate card file
	Scope    waybill.Scope
	Context  int64 // applies above this many tokens of context; 0 for all calls
}

// A Query asks for the rate of one kind of usage.
type Query struct {
	Model         string
	Region        string
	Scope         waybill.Scope // as called: Plain, Geo or Global
	Kind          waybill.Kind
	Tier          string
	ContextBucket int64 // UsageTotal.ContextBucket
	Day           waybill.Day
}

type cardKey struct {
	model, region string
	scope         waybill.Scope
	kind          waybill.Kind
	tier          string
}

// A Card is all the rates in force, by day. It is immutable.
type Card struct {
	prices     map[cardKey][]Price
	thresholds map[string][]int64 // long-context thresholds of a model, descending
	models     []string
	currency   string
	rows       int
}

// Rows is the number of prices on the card.
func (c *Card) Rows() int { return c.rows }

// ModelIDs lists the models that have a price, sorted.
func (c *Card) ModelIDs() []string { return c.models }

// Currency is the one currency of the card; empty if it has no price.
func (c *Card) Currency() string { return c.currency }

// LongContext reports whether a call in that context bucket is priced as one with a
// long context.
func (c *Card) LongContext(model string, bucket int64) bool {
	for _, t := range c.thresholds[model] {
		if bucket >= t {
			return true
		}
	}
	return false
}

// Rate is the price of a query. A price for its Region goes before one for all, the
// exact scope before regional, and for a geographic profile the plain price stands
// last: AWS bills such calls as plain ones where it has no usage type of their own.
// Without a price ok is false: the usage is unpriced, which is not free.
func (c *Card) Rate(q Query) (p Price, ok bool) {
	if q.Tier == "" {
		q.Tier = waybill.TierStandard
	}
	scopes := []waybill.Scope{q.Scope}
	switch q.Scope {
	case waybill.Plain:
		scopes = append(scopes, waybill.Regional)
	case waybill.Geo:
		scopes = append(scopes, waybill.Regional, waybill.Plain)
	case waybill.Regional:
		scopes = append(scopes, waybill.Plain)
	}
	for _, scope := range scopes {
		for _, region := range []string{q.Region, "*"} {
			best := -1
			list := c.prices[cardKey{q.Model, region, scope, q.Kind, q.Tier}]
			for i, p := range list {
				if q.Day < p.From || p.To != 0 && q.Day >= p.To || p.Context > 0 && q.ContextBucket < p.Context {
					continue
				}
				if best < 0 || p.Context > list[best].Context {
					best = i
				}
			}
			if best >= 0 {
				return list[best], true
			}
		}
	}
	return Price{}, false
}

// A Mistake is one thing wrong with a rate card file.
type Mistake struct {
	File string
	Line int
	What string
}

// Error is "rates.csv:12: what is wrong".
func (m *Mistake) Error() string { return fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.What) }

// Parse reads a rate card: CSV with a header line of Columns. Lines that start with #
// are comments. It reports every mistake at once, joined; a card with a mistake is
// not used at all.
func Parse(name string, r io.Reader) (*Card, error) {
	reader := csv.NewReader(r)
	reader.Comment = '#'
	reader.FieldsPerRecord = -1
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, &Mistake{name, 1, "is empty: the first line names the columns: " + strings.Join(Columns, ",")}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	at := make(map[string]int)
	for i, column := range header {
		column = strings.TrimSpace(strings.TrimPrefix(column, "\ufeff"))
		if !slices.Contains(Columns, column) {
			return nil, &Mistake{name, 1, fmt.Sprintf("column %q is not one of %s", column, strings.Join(Columns, ","))}
		}
		if _, twice := at[column]; twice {
			return nil, &Mistake{name, 1, fmt.Sprintf("column %q is there twice", column)}
		}
		at[column] = i
	}
	for _, column := range Columns {
		if _, ok := at[column]; !ok {
			return nil, &Mistake{name, 1, fmt.Sprintf("column %q is missing", column)}
		}
	}
	c := &Card{prices: make(map[cardKey][]Price), thresholds: make(map[string][]int64)}
	var mistakes []error
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := reader.FieldPos(0)
		if err != nil {
			return nil, errors.Join(append(mistakes, fmt.Errorf("read %s: %w", name, err))...)
		}
		if len(row) != len(header) {
			mistakes = append(mistakes, &Mistake{name, line, fmt.Sprintf("has %d fields, the header has %d", len(row), len(header))})
			continue
		}
		if err := c.addRow(line, func(column string) string { return strings.TrimSpace(row[at[column]]) }); err != nil {
			mistakes = append(mistakes, &Mistake{name, line, err.Error()})
		}
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	for key := range c.prices {
		c.models = append(c.models, key.model)
	}
	slices.Sort(c.models)
	c.models = slices.Compact(c.models)
	for _, t := range c.thresholds {
		slices.SortFunc(t, func(a, b int64) int { return int(b - a) })
	}
	return c, nil
}

func (c *Card) addRow(line int, field func(string) string) error {
	key := cardKey{field("model"), field("region"), waybill.Scope(field("scope")), waybill.Kind(field("usage_kind")), field("tier")}
	switch {
	case key.model == "":
		return errors.New("model is empty")
	case waybill.ModelID(key.model).Base() != key.model:
		return fmt.Errorf("model %q is a profile or an ARN: name the foundation model %q and say the scope in its column", key.model, waybill.ModelID(key.model).Base())
	case key.region == "":
		return errors.New("region is empty: name one, or * for all")
	case key.scope != waybill.Plain && key.scope != waybill.Geo && key.scope != waybill.Global && key.scope != waybill.Regional:
		return fmt.Errorf("scope %q is not plain, geo, global or regional", key.scope)
	case key.kind == "":
		return errors.New("usage_kind is empty")
	}
	if key.tier == "" {
		key.tier = waybill.TierStandard
	}
	p := Price{Line: line, Source: field("source"), Currency: field("currency"), Scope: key.scope}
	if p.Currency == "" {
		p.Currency = "USD"
	}
	if c.currency != "" && c.currency != p.Currency {
		return fmt.Errorf("currency %q: the card has prices in %s above; keep one card for each", p.Currency, c.currency)
	}
	per, err := strconv.ParseInt(field("per"), 10, 64)
	if err != nil || per <= 0 {
		return fmt.Errorf("per %q: say for how many units the price is: 1, 1000 or 1000000", field("per"))
	}
	if p.Rate, err = waybill.ParseRate(field("price"), per); err != nil {
		return fmt.Errorf("price %q: %w", field("price"), err)
	}
	if strings.HasPrefix(field("price"), "-") {
		return fmt.Errorf("price %q is negative", field("price"))
	}
	if p.From, err = waybill.ParseDay(field("valid_from")); err != nil {
		return fmt.Errorf("valid_from: %w", err)
	}
	if to := field("valid_to"); to != "" {
		if p.To, err = waybill.ParseDay(to); err != nil {
			return fmt.Errorf("valid_to: %w", err)
		}
		if p.To <= p.From {
			return fmt.Errorf("valid_to %s is not after valid_from %s", p.To, p.From)
		}
	}
	if text := field("context"); text != "" {
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(text, ">")), 10, 64)
		if err != nil || !strings.HasPrefix(text, ">") || n < 100_000 || n%1000 != 0 {
			return fmt.Errorf("context %q: write \"> N\" with N a multiple of 1000, 100000 or more", text)
		}
		p.Context = n
		if !slices.Contains(c.thresholds[key.model], n) {
			c.thresholds[key.model] = append(c.thresholds[key.model], n)
		}
	}
	for _, other := range c.prices[key] {
		if other.Context == p.Context && (other.To == 0 || p.From < other.To) && (p.To == 0 || other.From < p.To) {
			return fmt.Errorf("overlaps line %d: two prices of one usage on %s", other.Line, max(p.From, other.From))
		}
	}
	c.prices[key] = append(c.prices[key], p)
	c.currency = p.Currency
	c.rows++
	return nil
}

// Expired lists the prices that ended on or before a day and have no successor: usage
// after them is unpriced.
func (c *Card) Expired(on time.Time) []Price {
	day := waybill.DayOf(on)
	var out []Price
	for _, list := range c.prices {
		for _, p := range list {
			if p.To == 0 || p.To > day {
				continue
			}
			next := slices.ContainsFunc(list, func(q Price) bool { return q.From >= p.To && q.Context == p.Context })
			if !next {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b Price) int { return a.Line - b.Line })
	return out
}
