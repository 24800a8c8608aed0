package gateway

import (
	"io"
	"net/http"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
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

// holdBack reads an answer that is no stream and not too long, as far as there is room
// for it among the bodies. It reports whether it has all of it; what it has read is then
// passed on in any case. It waits for no room: the caller can do without the estimate.
func (c *call) holdBack(answer *http.Response) (head []byte, whole bool) {
	most := or(c.config.Estimate.HoldBytes, 1<<20)
	if c.stream || answer.ContentLength > most {
		return nil, false
	}
	more := answer.ContentLength + 1 // so that the end shows
	if more <= 0 {
		more = 16 << 10
	}
	for {
		if len(head) == cap(head) {
			if more = min(more, most+1-int64(len(head))); more <= 0 || !c.limits.bodies.TryAcquire(more) {
				return head, false
			}
			c.held += more
			head = append(make([]byte, 0, int64(len(head))+more), head...)
			more = int64(cap(head))
		}
		n, err := answer.Body.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if n > 0 && c.record.TimeToFirstByte == 0 {
			c.record.TimeToFirstByte = c.g.Now().Sub(c.started)
		}
		if err != nil {
			return head, err == io.EOF && int64(len(head)) <= most
		}
	}
}

// passWhole passes on an answer that was held back.
func (c *call) passWhole(meter *bedrock.Meter, w http.ResponseWriter, body []byte, status int) {
	meter.Write(body)
	c.record.ResponseBytes = int64(len(body))
	c.finish(meter, nil)
	c.showCost(w.Header())
	c.allow(http.NewResponseController(w))
	w.WriteHeader(status)
	w.Write(body) // the caller may have left
}
