package report

import (
	"encoding/json"
	"io"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ledger"
)

// Version is the version of the JSON contract. It changes when a member is taken away
// or changes its meaning, not when one is added.
const Version = 1

type object = map[string]any

func write(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// StatementJSON writes a statement.
func StatementJSON(w io.Writer, s *ledger.Statement) error {
	rows := make([]object, 0, len(s.Rows))
	for _, r := range s.Rows {
		row := object{"calls": r.Calls, "unknown": r.Unknown, "unpriced": r.Unpriced, "usage": usage(r.Usage), "cost": r.Cost}
		for i, key := range s.By {
			if r.Keys[i].Present {
				row[key] = r.Keys[i].Text
			} else {
				row[key] = nil
			}
		}
		rows = append(rows, row)
	}
	buckets := make([]object, 0, len(s.Buckets))
	for _, b := range s.Buckets {
		buckets = append(buckets, object{"bucket": b.Bucket, "cost": b.Amount, "evidence": evidence(b.Evidence)})
	}
	out := object{"version": Version, "period": s.Period, "basis": s.Basis, "reason": s.Reason, "by": s.By, "currency": s.Currency,
		"rows": rows, "elsewhere": s.Elsewhere, "unattributed": s.Unattributed, "buckets": buckets, "total": s.Total, "billed": s.Billed,
		"not_claimed": s.NotClaimed, "refused": s.Refused, "missing_prices": missing(s.MissingPrices)}
	if s.Renamed != "" {
		out["reorganised"] = s.Renamed
	}
	if len(s.NotClaimedElse) > 0 {
		out["not_claimed_else"] = s.NotClaimedElse
	}
	return write(w, out)
}

// usage has every kind, so that a reader need not know which are left out.
func usage(u waybill.Usage) object {
	out := object{}
	for _, k := range waybill.Kinds {
		out[string(k)] = u.Of(k)
	}
	return out
}

func evidence(list []ledger.Evidence) []object {
	out := make([]object, 0, len(list))
	for _, e := range list {
		out = append(out, object{"what": e.What, "amount": e.Amount})
	}
	return out
}

func missing(list []ledger.MissingPrice) []object {
	out := make([]object, 0, len(list))
	for _, m := range list {
		out = append(out, object{"model": m.Model, "region": m.Region, "scope": m.Scope, "usage_kind": m.UsageKind, "tier": m.Tier, "endpoint": m.Endpoint,
			"calls": m.Calls, "usage_types": append([]string{}, m.UsageTypes...), "other": m.Other})
	}
	return out
}

// ReconciliationJSON writes a reconciliation.
func ReconciliationJSON(w io.Writer, r *ledger.Reconciliation) error {
	buckets := make([]object, 0, len(r.Buckets))
	for _, b := range r.Buckets {
		buckets = append(buckets, object{"bucket": b.Bucket, "amount": b.Amount, "evidence": evidence(b.Evidence)})
	}
	keys := make([]object, 0, len(r.Keys))
	for i := range r.Keys {
		k := &r.Keys[i]
		keys = append(keys, object{"account": k.Account, "region": k.Region, "endpoint": k.Endpoint, "model": k.Model, "usage_type": k.UsageType, "tier": k.Tier, "scope": k.Scope,
			"metered": k.Metered, "billed": k.Billed, "variance": k.Variance(), "quantity_variance": k.Quantity, "rate_variance": k.Rate,
			"timing": k.Timing, "rounding": k.Rounding, "unmatched": k.Unmatched, "metered_quantity": k.MeteredQuantity, "billed_quantity": k.BilledQuantity,
			"bill_rows": k.Rows, "calls": k.Calls})
	}
	out := object{"version": Version, "period": r.Period, "currency": r.Currency, "metered": r.Metered, "billed": r.Billed, "variance": r.Variance,
		"buckets": buckets, "keys": keys, "not_claimed": r.NotClaimed, "not_claimed_rows": r.NotClaimedRows, "calls": r.Calls, "unknown": r.UnknownCalls,
		"unpriced": r.UnpricedCalls, "bypass_calls": r.BypassCalls, "log_only": r.LoggedOnly, "gateway_only": r.MeteredOnly, "bill_rows": r.BillRows,
		"missing_prices": missing(r.MissingPrices), "settled_through": r.SettledThrough.String(), "over_tolerance": r.OverTolerance()}
	if len(r.NotClaimedElse) > 0 {
		out["not_claimed_else"] = r.NotClaimedElse
	}
	return write(w, out)
}
