// Package ledger makes accounts from facts: it prices usage by a rate card, sets it
// against the bill key by key, explains every difference, and spreads the bill's
// dollars over calls so that they add up.
//
// Everything here is a function of its arguments: the same facts give the same
// statement, byte for byte. Sums come from the lake; judgement is here.
//
// # The three bases
//
// Estimate is usage times rate card. Invoice is the bill's own dollars, by what the
// bill itself says of them. Calibrated is the bill's dollars spread over calls: for
// each usage key of the billing period, the billed amount is given to the key's calls
// in proportion to their metered cost, by largest remainder. Whose principal the bill
// names decides whether calls that are accounted for bear a charge, or calls that went
// round the gateway; what it charges to nobody is divided between the two.
//
// History has the calls of a stretch of time in groups, at the cost of the estimate: what
// a tag policy is tried on.
//
// # What adds up
//
// Rows plus buckets are the bill, exactly. Variance is billed minus metered, and is
// the sum of its buckets, of its keys, and of the five parts of each key: quantity,
// rate, timing, rounding and unmatched. Rounding happens when a figure is shown.
package ledger
