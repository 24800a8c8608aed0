package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A FailureMode says what happens to a call when something fails that it needs.
type FailureMode string

// The failure modes. The empty one says nothing.
const (
	Refuse FailureMode = "refuse"
	Pass   FailureMode = "pass"
)

// A FailureRule says what happens to the calls that meet a condition. Of each event the
// first rule decides that holds and says something of it. Where none does, calls are
// refused, but for those of a model without a price.
type FailureRule struct {
	When policy.Condition
	// Policy is a violation that the policy enforces. A call that passes has the tags that
	// are good, and is recorded with its violations, as warned.
	Policy FailureMode
	// STS is that no role session can be had, and none is held. A call that passes is made
	// under Fallback: the bill then names that role for it, and no session tag.
	STS      FailureMode
	Fallback string // ARN of one of Config.Roles
	// Journal is that the journal cannot be written: a call that passes may be missing from
	// every report.
	Journal FailureMode
	// Price is that the rate card has no price for the call's model.
	Price FailureMode
}

// Reasons of calls that passed a failure.
const (
	policyPassed = "gateway:policy_passed"
	fallbackRole = "gateway:fallback_role"
)

// onFailure is what the rules say of an event, and the rule that says it.
func (c *call) onFailure(event func(*FailureRule) FailureMode, otherwise FailureMode) (FailureMode, *FailureRule) {
	for i := range c.config.OnFailure {
		rule := &c.config.OnFailure[i]
		mode := event(rule)
		if mode == "" {
			continue
		}
		if ok, _ := rule.When.Holds(c.decision.Fact); ok {
			return mode, rule
		}
	}
	return otherwise, nil
}

// violated lets a call pass that the policy refuses, where the rules say so.
func (c *call) violated(refusal error) error {
	if c.broker { // what is done with a session is not seen
		return refusal
	}
	if mode, _ := c.onFailure(func(r *FailureRule) FailureMode { return r.Policy }, Refuse); mode != Pass {
		return refusal
	}
	c.record.PolicyOutcome = waybill.PolicyWarned
	c.note(policyPassed)
	return nil
}

// unpriced refuses a call of a model without a price, where the rules say so.
func (c *call) unpriced() error {
	if c.config.Prices == nil || len(c.config.OnFailure) == 0 || !c.route.Spends {
		return nil
	}
	if mode, _ := c.onFailure(func(r *FailureRule) FailureMode { return r.Price }, Pass); mode != Refuse || c.config.Prices.Knows(&c.record) {
		return nil
	}
	return &waybill.Error{Kind: waybill.Denied, Code: "WB1308", Message: "the gateway knows no price for that model here", Hint: "ask the gateway's operator to add it to the rate card"}
}

// passesJournal reports whether the call goes on although it cannot be recorded.
func (c *call) passesJournal() bool {
	otherwise := Refuse
	if c.config.PassWithoutJournal {
		otherwise = Pass
	}
	mode, _ := c.onFailure(func(r *FailureRule) FailureMode { return r.Journal }, otherwise)
	return mode == Pass
}

// fallBack puts the fallback role's session in the place of one that cannot be had, where
// the rules say so. It reports whether it did.
func (c *call) fallBack(err error) bool {
	if waybill.KindOf(err) != waybill.Unavailable || errors.Is(err, context.Canceled) {
		return false
	}
	mode, rule := c.onFailure(func(r *FailureRule) FailureMode { return r.STS }, Refuse)
	if mode != Pass || rule.Fallback == "" || c.session.RoleARN == rule.Fallback && c.session.SessionName == fallbackName {
		return false
	}
	c.g.Log.Warn("a call is made under the fallback role", "call_id", c.record.CallID, "err", err)
	c.session = c.config.fallbackSession(rule.Fallback)
	c.record.SessionName, c.record.Account = c.session.SessionName, accountOf(c.session.RoleARN)
	c.record.Carried = without(c.record.Carried, "session")
	c.note(fallbackRole)
	return true
}

// fallbackName is the name of the fallback roles' sessions.
const fallbackName = "waybill-fallback"

func (c *Config) fallbackSession(arn string) waybill.RoleSession {
	s := waybill.RoleSession{RoleARN: arn, SessionName: fallbackName}
	for i := range c.Roles {
		if c.Roles[i].ARN == arn {
			s.ExternalID = c.Roles[i].ExternalID
			break
		}
	}
	return s
}

// KeepFallbacks fetches or renews the sessions of the fallback roles, which are of no use
// if they are not held when STS fails. It is called from time to time.
func (g *Gateway) KeepFallbacks(ctx context.Context) error {
	config := g.current()
	var errs []error
	for _, rule := range config.OnFailure {
		if rule.Fallback == "" {
			continue
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://bedrock-runtime/", nil) // it is signed and not sent
		if err == nil {
			_, err = g.Signer.SignCall(ctx, r, nil, "bedrock", config.DefaultRegion, config.fallbackSession(rule.Fallback))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
