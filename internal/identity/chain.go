package identity

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/waybill-dev/waybill"
)

// A Method is one way of proving who calls.
type Method struct {
	// Name is what audit records call it, and Principal.Method: oidc, key, mtls, ...
	Name string
	// Claims reports whether a request brings a proof of this kind. It is asked of
	// every request, looks at nothing but its shape, and believes nothing.
	Claims func(*http.Request) bool
	// Authenticate says who the proof is of. Its errors are best a *Refusal, which
	// gives the reason; any other is recorded as "other". A *waybill.Error with a code
	// of its own is passed to the caller; everything else becomes the one refusal.
	Authenticate func(*http.Request) (waybill.Principal, error)
	// Headers are the request headers in which the proof comes.
	Headers []string

	// prove is Authenticate, with what the deny list and the audit record want to know.
	prove func(*http.Request) (principal, error)
}

// A principal is who a proof is of, and which proof it was.
type principal struct {
	waybill.Principal
	proof  string // names the proof in audit records; never the credential
	jti    string // of a token
	chains [][]*x509.Certificate
}

// A Caller gathers what several proofs say of one caller, so that calls are attributed
// to one subject, with one set of tags, whichever proof came.
type Caller struct {
	// Subject is what calls are attributed to.
	Subject string
	// Issuer is who vouches for Subject; "waybill" if empty.
	Issuer string
	// Tags are the caller's. Where a proof gives a tag too, these win.
	Tags waybill.Tags
	// Known are the proofs that mean this caller.
	Known []Known
}

// Known is a subject as its issuer names it: of an OIDC issuer (its URL), of the
// gateway's keys ("gateway-key"), of a trust domain ("spiffe://example.com").
type Known struct{ Issuer, Subject string }

// ChainConfig configures a Chain. Methods is the only field that must be given.
type ChainConfig struct {
	// Methods are asked in order; the first whose proof a request brings decides.
	Methods []Method
	// Callers are those known by several proofs, or with tags of their own. A proof
	// of nobody here stands for itself.
	Callers []Caller
	// Denied is what proves nothing any more; nil denies nothing.
	Denied *DenyList
	// Record keeps an audit record. It is called from the goroutines that serve
	// requests, one call at a time, and should not wait long. nil keeps none.
	Record func(Attempt)
	// RefusalsPerSecond is how many different refusals a second are recorded one by one
	// for each reason; more are counted. 5 if zero.
	RefusalsPerSecond int
	// AcceptedEvery is how often the same caller with the same proof is recorded as
	// accepted. 10 minutes if zero.
	AcceptedEvery time.Duration
}

// A Chain says who made a request, by the first of its methods that recognizes a proof.
// Every proof that a request brings must hold, and all must be of one caller: nobody
// can hide a refused proof behind a good one, or leave in doubt who called.
type Chain struct {
	methods []Method
	callers map[Known]*Caller
	denied  *DenyList
	audit   *auditor
}

// NewChain makes a chain. End it with Close.
func NewChain(c ChainConfig) (*Chain, error) {
	chain := &Chain{callers: make(map[Known]*Caller), denied: c.Denied}
	for _, m := range c.Methods {
		if m.Name == "" || m.Claims == nil || m.Authenticate == nil {
			return nil, fmt.Errorf("method %q of proving identity lacks its name or one of its functions", m.Name)
		}
		if m.prove == nil {
			authenticate := m.Authenticate
			m.prove = func(r *http.Request) (principal, error) {
				p, err := authenticate(r)
				return principal{Principal: p, proof: p.KeyID}, err
			}
		}
		chain.methods = append(chain.methods, m)
	}
	if len(chain.methods) == 0 {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: "no way of proving identity is configured", Hint: "configure gateway keys, an OIDC issuer or client certificates"}
	}
	for _, caller := range c.Callers {
		caller.Issuer = cmp.Or(caller.Issuer, "waybill")
		if caller.Subject == "" || len(caller.Known) == 0 {
			return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("caller %q lacks a subject, or proofs that it is known by", caller.Subject)}
		}
		for _, known := range caller.Known {
			if other := chain.callers[known]; other != nil {
				return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("subject %q of issuer %q means both caller %q and caller %q", known.Subject, known.Issuer, other.Subject, caller.Subject)}
			}
			chain.callers[known] = &caller
		}
	}
	chain.audit = newAuditor(c)
	return chain, nil
}

// Close records what was only counted so far. The chain must not be used afterwards.
func (c *Chain) Close() { c.audit.close() }

// Headers are the request headers in which credentials come: what the gateway must take
// off before it passes a request on. Authorization, X-Api-Key and Api-Key are always
// among them; a certificate has none.
func (c *Chain) Headers() []string {
	list := append([]string{"Authorization"}, tokenHeaders...)
	for _, m := range c.methods {
		for _, h := range m.Headers {
			list = append(list, http.CanonicalHeaderKey(h))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Strip takes the credentials off a request's headers.
func (c *Chain) Strip(h http.Header) {
	for _, name := range c.Headers() {
		delete(h, name)
	}
}

// Authenticate says who made a request. It refuses in one shape, code WB1001, whatever
// was wrong; only a Bedrock API key is told apart, as WB1002, since it must never be
// sent here.
func (c *Chain) Authenticate(r *http.Request) (waybill.Principal, error) {
	if err := checkTokens(r.Header); err != nil {
		return waybill.Principal{}, c.refused(r, "", err)
	}
	var first *principal
	for i := range c.methods {
		m := &c.methods[i]
		if !m.Claims(r) {
			continue
		}
		p, err := m.prove(r)
		if err == nil {
			err = c.know(&p)
		}
		if err == nil && first != nil && !sameCaller(first, &p) {
			err = refuse(ReasonDisagree)
		}
		if err != nil {
			return waybill.Principal{}, c.refused(r, m.Name, err)
		}
		c.audit.accept(r, m.Name, &p)
		if first == nil {
			first = &p
		}
	}
	if first == nil {
		reason := ReasonNoProof
		if r.Header.Get("Authorization") != "" || brings(r.Header, func(string) bool { return true }) {
			reason = ReasonUnrecognized
		}
		return waybill.Principal{}, c.refused(r, "", refuse(reason))
	}
	return first.Principal, nil
}

// checkTokens refuses what must not come in any header, and too much of the rest.
func checkTokens(h http.Header) error {
	n, last := 0, ""
	for t := range tokens(h) {
		if isBedrockKey(t) {
			return &bedrockKey{}
		}
		if t != last {
			n, last = n+1, t
		}
	}
	if n > maxTokens {
		return refuse(ReasonTooMany)
	}
	return nil
}

// bedrockKey is the error for a Bedrock API key.
type bedrockKey struct{}

func (*bedrockKey) Error() string { return refusedBedrockKey().Error() }
func (*bedrockKey) Unwrap() error { return refusedBedrockKey() }

// know looks a principal up: whether it is denied, and which caller it is. A denial
// holds for the subject that the proof names and for the caller that it means.
func (c *Chain) know(p *principal) error {
	denied := c.denied.denied(p)
	if caller := c.callers[Known{p.Issuer, p.Subject}]; caller != nil {
		p.Subject, p.Issuer = caller.Subject, caller.Issuer
		if caller.Tags.Len() > 0 {
			tags := p.Tags.Map()
			for k, v := range caller.Tags.All() {
				tags[k] = v
			}
			p.Tags = waybill.TagsFromMap(tags)
		}
		denied = denied || c.denied.denied(p)
	}
	if denied {
		return &Refusal{Reason: ReasonRevoked, Subject: p.Subject, Issuer: p.Issuer, KeyID: p.KeyID}
	}
	return nil
}

func sameCaller(a, b *principal) bool { return a.Issuer == b.Issuer && a.Subject == b.Subject }

// refused records a refusal and makes it what the caller is told.
func (c *Chain) refused(r *http.Request, method string, err error) error {
	a := Attempt{Outcome: Refused, Method: method, Reason: ReasonOther}
	var answer error = refused()
	if why, ok := errors.AsType[*Refusal](err); ok {
		a.Reason, a.Subject, a.Issuer, a.KeyID = why.Reason, why.Subject, why.Issuer, why.KeyID
	} else if _, ok := errors.AsType[*bedrockKey](err); ok {
		a.Reason, answer = ReasonBedrockKey, refusedBedrockKey()
	} else if told, ok := errors.AsType[*waybill.Error](err); ok && told.Code != "" {
		answer = told
	}
	c.audit.refuse(r, a)
	return answer
}
