package ledger

import (
	"math/big"
	"slices"

	"github.com/waybill-dev/waybill"
)

// A settlement is one key's dollars given out: to the shares of calls, and to buckets.
type settlement struct {
	given []waybill.Money // to keyAccount.shares, in their order
	unmet []entry         // to nobody, or to calls that went round the gateway

	// bill has the charges whose dollars calls of ours have taken, all of them or a part;
	// without any it is nil. takers are the calls that have: those of keyAccount.shares
	// come first, then those that went round the gateway under a name of ours. others are
	// the rest of those, which take a part of what the bill charges to nobody by name.
	bill           []charge
	takers, others []share
	// free says how the charges to nobody by name were divided between takers and others.
	free fraction
}

// A fraction is a part of a whole, and the rest of it.
type fraction struct{ part, rest *big.Int }

// of is the part of an amount: all of it where there is nothing to divide by.
func (f fraction) of(m waybill.Money) waybill.Money {
	if parts := m.Allot([]*big.Int{f.part, f.rest}); parts != nil {
		return parts[0]
	}
	return m
}

// isFree reports whether a charge is to nobody by name, and any call of its key may have
// made it.
func (c *charge) isFree() bool { return c.IAMPrincipal == "" }

// settle gives out the charges of a key. The charges to our principals go to the calls in
// their names, in proportion to metered cost; if some of them have no price, in proportion
// to their quantity, which is the same as long as the price is. Calls that went round the
// gateway bear what the bill charges to their principals. What it charges to nobody by
// name is divided so that, with what is charged by name, each side comes as near as it can
// to its part by metered cost.
func (a *account) settle(k *keyAccount) settlement {
	s := settlement{takers: slices.Clone(k.shares), given: make([]waybill.Money, len(k.shares))}
	for _, h := range k.bypass {
		if a.ours[a.cells[h.cell].PrincipalARN] {
			s.takers = append(s.takers, h)
		} else {
			s.others = append(s.others, h)
		}
	}
	var toOthers waybill.Money
	for _, c := range k.strays {
		s.unmet = append(s.unmet, entry{Bypass, c.Cost, c.IAMPrincipal})
		toOthers = toOthers.Add(c.Cost)
	}
	for _, c := range k.lost {
		s.unmet = append(s.unmet, entry{a.lostBucket(c), c.Cost, c.IAMPrincipal})
	}
	var named, free waybill.Money
	for _, c := range k.ours {
		switch {
		case len(s.takers) == 0 && (len(s.others) == 0 || !c.isFree()):
			s.unmet = append(s.unmet, entry{a.emptyBucket(k), c.Cost, firstOf(c.IAMPrincipal, c.label)})
			continue
		case c.isFree():
			free = free.Add(c.Cost)
		default:
			named = named.Add(c.Cost)
		}
		if len(s.takers) > 0 {
			s.bill = append(s.bill, c)
		}
	}
	ourPart := s.divide(named, free, toOthers)
	s.free = fraction{ourPart.Abs().Unscaled(), free.Sub(ourPart).Abs().Unscaled()}
	if free.IsZero() { // it may have a quantity
		s.free.part, s.free.rest = s.sides()
	}
	for i, m := range named.Add(ourPart).Allot(weights(s.takers)) {
		if i < len(k.shares) {
			s.given[i] = m
		} else {
			s.unmet = append(s.unmet, entry{Bypass, m, a.cells[s.takers[i].cell].PrincipalARN})
		}
	}
	for i, m := range free.Sub(ourPart).Allot(weights(s.others)) {
		s.unmet = append(s.unmet, entry{Bypass, m, a.cells[s.others[i].cell].PrincipalARN})
	}
	return s
}

// divide is the takers' part of an amount that is charged to nobody by name.
func (s *settlement) divide(named, free, toOthers waybill.Money) waybill.Money {
	if len(s.others) == 0 {
		return free
	}
	part, rest := s.sides()
	all := named.Add(free).Add(toOthers)
	parts := all.Allot([]*big.Int{part, rest})
	if parts == nil {
		return waybill.Money{}
	}
	low, high := waybill.Money{}, free
	if free.Sign() < 0 {
		low, high = free, waybill.Money{}
	}
	switch want := parts[0].Sub(named); {
	case want.Cmp(low) < 0:
		return low
	case want.Cmp(high) > 0:
		return high
	default:
		return want
	}
}

// sides are the weights of takers and of others.
func (s *settlement) sides() (takers, others *big.Int) {
	takers, others = new(big.Int), new(big.Int)
	for i, w := range weights(slices.Concat(s.takers, s.others)) {
		if i < len(s.takers) {
			takers.Add(takers, w)
		} else {
			others.Add(others, w)
		}
	}
	return takers, others
}

// accounted is the part that calls which are accounted for have in what takers took: all
// but that of calls round the gateway under a name of ours.
func (s *settlement) accounted() fraction {
	f := fraction{new(big.Int), new(big.Int)}
	for i, w := range weights(s.takers) {
		if i < len(s.given) {
			f.part.Add(f.part, w)
		} else {
			f.rest.Add(f.rest, w)
		}
	}
	return f
}

// emptyBucket says why a charge to us, or to nobody named, finds no call in its key.
func (a *account) emptyBucket(k *keyAccount) Bucket {
	switch {
	case a.unknown[k.place()] > 0:
		return UsageUnknown
	case k.key.Endpoint == waybill.Mantle:
		return MantleUnseen
	case !a.logged[place(k.key.Account, k.key.Region)]:
		return NotLogged
	}
	return NoCalls
}

// weights are what a key's dollars are spread by.
func weights(shares []share) []*big.Int {
	byCost := true
	var sum waybill.Money
	for _, s := range shares {
		byCost = byCost && s.priced
		sum = sum.Add(s.metered)
	}
	out := make([]*big.Int, len(shares))
	for i, s := range shares {
		if byCost && !sum.IsZero() {
			out[i] = s.metered.Unscaled()
		} else {
			out[i] = big.NewInt(s.quantity)
		}
	}
	return out
}
