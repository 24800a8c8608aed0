package fakeaws

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Price is one entry of this AWS's price list.
type Price struct {
	Model  string // model id
	Scope  string // plain, geo, global: as the bill has it
	Kind   string // input, output, cache_read, cache_write_5m, cache_write_1h
	Tier   string // standard, flex, priority
	Per    int64  // tokens that the amount is for
	Amount string // USD
	From   time.Time
}

// A listing says how a model stands on the bill.
type listing struct {
	model       string
	name        string // in usage types of the kebab dialect; product name in the marketplace one
	provider    string
	marketplace bool
	per         int64  // tokens in the pricing unit
	unit        string // pricing_unit
	ownGeo      bool   // geographic profiles have usage types of their own
	// USD for a million tokens: input, output, cache read, cache write, 1 h write
	plain, global [5]string
}

// list is made up in the shape of AWS's: real products, and prices of the order of
// theirs.
var list = []listing{
	{"anthropic.claude-sonnet-4-6", "Claude Sonnet 4.6", "Anthropic", true, 1_000_000, "Units", false,
		[5]string{"3.30", "16.50", "0.33", "4.125", "6.60"}, [5]string{"3.00", "15.00", "0.30", "3.75", "6.00"}},
	{"anthropic.claude-haiku-4-5-20251001-v1:0", "Claude4.5Haiku", "Anthropic", false, 1_000_000, "1M tokens", false,
		[5]string{"1.10", "5.50", "0.11", "1.375", "2.20"}, [5]string{"1.00", "5.00", "0.10", "1.25", "2.00"}},
	{"amazon.nova-lite-v1:0", "NovaLite", "Amazon", false, 1_000, "1K tokens", true,
		[5]string{"0.06", "0.24", "0.015", "0", "0"}, [5]string{}},
	{"amazon.nova-micro-v1:0", "NovaMicro", "Amazon", false, 1_000, "1K tokens", true,
		[5]string{"0.035", "0.14", "0.00875", "0", "0"}, [5]string{}},
	{"meta.llama4-maverick-17b-instruct-v1:0", "Llama4-Maverick-17B", "Meta", false, 1_000, "1K tokens", true,
		[5]string{"0.24", "0.97", "", "", ""}, [5]string{}},
	{"amazon.titan-embed-text-v2:0", "TitanEmbeddingsV2", "Amazon", false, 1_000, "1K tokens", true,
		[5]string{"0.02", "", "", "", ""}, [5]string{}},
}

var kinds = [5]string{"input", "output", "cache_read", "cache_write_5m", "cache_write_1h"}

// A Change is a new price from a day on.
type Change struct {
	Model, Scope, Kind string
	Amount             string // USD for a million tokens
	From               time.Time
}

// Prices are the price list with the changes of a month.
type Prices struct{ Changes []Change }

// tiers that are priced, as a fraction of standard.
var tiers = []struct {
	name     string
	num, den int64
}{{"standard", 1, 1}, {"flex", 1, 2}, {"priority", 7, 4}}

// All is the list as rows, in effect since the beginning of a year or a change.
func (p Prices) All(since time.Time) []Price {
	var out []Price
	for _, l := range list {
		for scope, amounts := range map[string][5]string{"plain": l.plain, "geo": l.plain, "global": l.global} {
			if scope == "geo" && !l.ownGeo {
				continue
			}
			for i, amount := range amounts {
				if amount == "" {
					continue
				}
				for _, t := range tiers {
					add := func(amount string, from time.Time) {
						r := rat(amount)
						r.Mul(r, big.NewRat(t.num, t.den))
						out = append(out, Price{l.model, scope, kinds[i], t.name, 1_000_000, decimal(r, 12), from})
					}
					add(amount, since)
					for _, c := range p.Changes {
						if c.Model == l.model && c.Scope == scope && c.Kind == kinds[i] {
							add(c.Amount, c.From)
						}
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Price) int {
		return strings.Compare(a.Model+a.Scope+a.Kind+a.Tier+a.From.Format(time.RFC3339), b.Model+b.Scope+b.Kind+b.Tier+b.From.Format(time.RFC3339))
	})
	return out
}

func rat(s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		panic("not a number: " + s) // of the table above
	}
	return r
}

// decimal writes a number with at most so many places, without trailing zeroes.
func decimal(r *big.Rat, places int) string {
	s := r.FloatString(places)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// perToken is the price of one token, or nil if the list has none.
func (p Prices) perToken(l *listing, scope, kind, tier string, at time.Time) *big.Rat {
	amounts := l.plain
	if scope == "global" {
		amounts = l.global
	}
	i := slices.Index(kinds[:], kind)
	if i < 0 || amounts[i] == "" {
		return nil
	}
	amount := amounts[i]
	var since time.Time
	for _, c := range p.Changes {
		if c.Model == l.model && c.Scope == scope && c.Kind == kind && !at.Before(c.From) && c.From.After(since) {
			amount, since = c.Amount, c.From
		}
	}
	r := rat(amount)
	for _, t := range tiers {
		if t.name == tier {
			r.Mul(r, big.NewRat(t.num, t.den))
		}
	}
	return r.Quo(r, big.NewRat(1_000_000, 1))
}

var regionPrefix = map[string]string{"us-east-1": "USE1", "us-west-2": "USW2", "eu-west-1": "EUW1", "eu-central-1": "EUC1", "ap-northeast-1": "APN1"}

// usageType is how the bill names a kind of usage.
func usageType(l *listing, region, scope, kind, tier string) string {
	prefix := regionPrefix[region]
	if l.marketplace {
		body := map[string]string{"input": "InputTokenCount", "output": "OutputTokenCount", "cache_read": "CacheReadInputTokenCount",
			"cache_write_5m": "CacheWriteInputTokenCount", "cache_write_1h": "CacheWrite1hInputTokenCount"}[kind]
		if scope == "global" {
			body += "_Global"
		}
		if tier != "standard" {
			body += "_" + tier
		}
		return fmt.Sprintf("%s-MP:%s_%s-Units", prefix, prefix, body)
	}
	if l.model == "amazon.titan-embed-text-v2:0" {
		return prefix + "-TitanEmbeddingsV2-Text-input"
	}
	text := prefix + "-" + l.name + "-" + map[string]string{"input": "input-tokens", "output": "output-tokens", "cache_read": "cache-read-input-token-count",
		"cache_write_5m": "cache-write-input-token-count", "cache_write_1h": "cache-write-1h-input-token-count"}[kind]
	switch scope {
	case "global":
		text += "-cross-region-global"
	case "geo":
		text += "-cross-region-geo"
	}
	if tier != "standard" {
		text += "-" + tier
	}
	return text
}

func double(r *big.Rat, places int) float64 {
	f, err := strconv.ParseFloat(r.FloatString(places), 64)
	if err != nil {
		panic(err) // FloatString writes numbers
	}
	return f
}
