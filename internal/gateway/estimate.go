package gateway

import (
	"net/http"

	"github.com/waybill-dev/waybill"
)

// Prices tell what calls cost by a rate card, in dollars. It is an estimate: the bill
// knows discounts and minimums that the card does not.
type Prices interface {
	// Cost is the cost of a call's usage; ok is false where a part of it has no price.
	Cost(*waybill.Invocation) (cost waybill.Money, ok bool)
	// Knows reports whether anything of the call's model has a price where it is called.
	Knows(*waybill.Invocation) bool
}

// EstimateHeader is the answer header, or trailer, with the estimate of a call's cost.
const EstimateHeader = "X-Waybill-Cost-Estimate"

// An Estimate says whether callers see what their calls cost.
type Estimate struct {
	// Header puts the estimate on answers. An answer that tells its usage at its end is
	// held back for that until it is whole, if it is of HoldBytes or fewer; streams and
	// longer answers have it in a trailer, where the protocol has trailers.
	Header    bool
	HoldBytes int64 // 0 means 1 MiB
}

// price puts the cost of the call's usage on the call.
func (c *call) price() {
	if c.config.Prices == nil || !c.record.Usage.Known || c.record.Outcome == waybill.Refused {
		return
	}
	c.cost, c.priced = c.config.Prices.Cost(&c.record)
}

// showCost puts the estimate on the answer, which has no header or trailer for it where
// some of the usage has no price.
func (c *call) showCost(h http.Header) {
	if c.config.Estimate.Header && c.priced {
		h.Set(EstimateHeader, c.cost.String())
	}
}
