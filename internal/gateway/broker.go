package gateway

import (
	"io"
	"net/http"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
	"github.com/waybill-dev/waybill/internal/policy"
)

// brokered is the operation of a request for a role session, in conditions.
const brokered = "Credentials"

// SessionFor says who asks for a role session, to call AWS without the gateway, and which
// one they may have: the policy decides as on a call of the operation Credentials, and
// only roles that are meant for it count. asked are the tags that the request brings. Its
// errors are *waybill.Error.
func (g *Gateway) SessionFor(r *http.Request, asked waybill.Tags) (waybill.Principal, waybill.RoleSession, error) {
	c := &call{g: g, config: g.current(), started: g.Now(), broker: true, route: bedrock.Route{Spends: true}}
	c.record = waybill.Invocation{CallID: newCallID(c.started), Operation: brokered, Region: c.config.DefaultRegion, Endpoint: waybill.Runtime}
	var err error
	if c.principal, err = g.Callers.Authenticate(r); err != nil {
		return waybill.Principal{}, waybill.RoleSession{}, err
	}
	// A proof may be of the body too, which is known to hold once it was read.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return c.principal, waybill.RoleSession{}, &waybill.Error{Kind: waybill.Unauthenticated, Code: "WB1001", Message: "the caller is not known", Err: err}
	}
	tags, err := policy.TakeAsked(r.Header)
	if err != nil {
		return c.principal, waybill.RoleSession{}, err
	}
	for k, v := range asked.All() {
		tags = append(tags, policy.Asked{Key: k, Value: v, From: "tags"})
	}
	policy.Order(tags)
	if len(c.principal.Models) > 0 { // the session could be used for any model
		return c.principal, waybill.RoleSession{}, &waybill.Error{Kind: waybill.Denied, Code: "WB1307", Message: "this caller is held to some models, which a session of its own would not be", Hint: "call through the gateway"}
	}
	if err := c.decide(tags); err != nil {
		return c.principal, waybill.RoleSession{}, err
	}
	if err := c.chooseRole(); err != nil {
		return c.principal, waybill.RoleSession{}, err
	}
	return c.principal, c.session, nil
}
