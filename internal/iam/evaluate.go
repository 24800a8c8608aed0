package iam

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A CallerKind is what kind of principal calls.
type CallerKind string

// The kinds.
const (
	RoleSession    CallerKind = "role session"
	User           CallerKind = "user"
	Root           CallerKind = "root user"
	ServiceCaller  CallerKind = "AWS service"
	FederatedGuest CallerKind = "federated" // not signed in yet: AssumeRoleWithWebIdentity, ...WithSAML
)

// A Caller is who makes a request.
type Caller struct {
	Kind CallerKind `json:"kind"`
	// ARN is the session's, the user's or the account root's; of a service or an identity
	// provider its name.
	ARN string `json:"arn"`
	// RoleARN is the role of a session, with its path: what aws:PrincipalArn holds.
	RoleARN string            `json:"role_arn,omitempty"`
	Account string            `json:"account,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"` // of the user, or of role and session together
	// Management says that the account is its organization's management account, which
	// service control policies do not reach.
	Management bool `json:"management,omitempty"`
}

// serviceLinked reports a role that belongs to a service: service control policies do not
// reach it either.
func (c *Caller) serviceLinked() bool { return strings.Contains(c.RoleARN, ":role/aws-service-role/") }

// UnderSCP reports whether service control policies bind the caller (Organizations User
// Guide, "Tasks and entities not restricted by SCPs").
func (c *Caller) UnderSCP() bool {
	return !c.Management && !c.serviceLinked() && (c.Kind == RoleSession || c.Kind == User || c.Kind == Root)
}

// PrincipalARN is the value of aws:PrincipalArn: for a session the role's ARN, not the
// session's (IAM User Guide, "AWS global condition context keys").
func (c *Caller) PrincipalARN() string {
	if c.RoleARN != "" {
		return c.RoleARN
	}
	return c.ARN
}

// A Request is one call, as AWS authorizes it.
type Request struct {
	Caller   Caller `json:"caller"`
	Action   string `json:"action"`
	Resource string `json:"resource"`
	// ResourceAccount owns the resource; empty where no account does, as with foundation
	// models.
	ResourceAccount string `json:"resource_account,omitempty"`
	// Context are the condition keys of the request beyond those that follow from Caller.
	// Case does not tell keys apart. What is not there AWS would not have either.
	Context map[string][]string `json:"context,omitempty"`
	// Unknown are condition keys of which we do not know what AWS has. A key that ends in /
	// stands for all that begin with it, and * for all that are not told here.
	Unknown []string `json:"unknown,omitempty"`
}

// lookup finds the values of condition keys.
type lookup struct {
	values  map[string][]string
	unknown []string
	asked   map[string]bool // unknown keys that somebody asked for
}

func newLookup(r *Request) *lookup {
	l := &lookup{values: make(map[string][]string, len(r.Context)+8)}
	for k, v := range r.Context {
		if len(v) > 0 {
			l.values[strings.ToLower(k)] = v
		}
	}
	set := func(key, value string) {
		if value != "" {
			l.values[key] = []string{value}
		}
	}
	c := &r.Caller
	if c.Kind != FederatedGuest {
		service := c.Kind == ServiceCaller
		set("aws:principalisawsservice", strconv.FormatBool(service))
		if service {
			set("aws:principalservicename", c.ARN)
		} else {
			set("aws:principalarn", c.PrincipalARN())
			set("aws:principalaccount", c.Account)
			switch c.Kind {
			case RoleSession:
				set("aws:principaltype", "AssumedRole")
			case User:
				set("aws:principaltype", "User")
			case Root:
				set("aws:principaltype", "Account")
			}
		}
	}
	if c.Kind == User {
		set("aws:username", c.ARN[strings.LastIndexByte(c.ARN, '/')+1:])
	}
	for k, v := range c.Tags { // a tag may be empty, and is there all the same
		l.values["aws:principaltag/"+strings.ToLower(k)] = []string{v}
	}
	for _, k := range r.Unknown {
		l.unknown = append(l.unknown, strings.ToLower(k))
	}
	return l
}

// get finds the values of a key in lower case.
func (l *lookup) get(key string) ([]string, truth) {
	if v, ok := l.values[key]; ok {
		return v, yes
	}
	for _, u := range l.unknown {
		if key == u || u == "*" || strings.HasSuffix(u, "/") && strings.HasPrefix(key, u) {
			if l.asked == nil {
				l.asked = make(map[string]bool)
			}
			l.asked[key] = true
			return nil, unknown
		}
	}
	return nil, no
}

// Policies are all that AWS consults about a request.
type Policies struct {
	// SCPs are the service control policies in force, level by level from the root of the
	// organization to the account: every level must allow. None at all is an account that
	// is in no organization.
	SCPs     [][]*Policy
	Identity []*Policy
	Boundary *Policy
	Session  []*Policy
	Resource *Policy // of the resource: a role's trust policy for sts:AssumeRole
	Endpoint *Policy // of the VPC endpoint that the request came through
}

// An Outcome is the decision.
type Outcome string

// The outcomes.
const (
	Allowed      Outcome = "allowed"
	ExplicitDeny Outcome = "explicitly denied"
	ImplicitDeny Outcome = "implicitly denied"
	Undecided    Outcome = "undecided"
)

// A Verdict is a decision and why it was taken.
type Verdict struct {
	Outcome Outcome
	Policy  string // name of the policy that decided
	Sid     string // and its statement, where one statement did
	Reason  string
	Missing []string // condition keys that an Undecided verdict hangs on
}

// Denied reports either kind of refusal.
func (v Verdict) Denied() bool { return v.Outcome == ExplicitDeny || v.Outcome == ImplicitDeny }

// opinion is what one set of policies says.
type opinion struct {
	allow, deny         truth
	allowedBy, deniedBy *Statement
	policy, denier      string
	// How closely allowing statements of a resource policy name the caller: as itself, or
	// as any session of its role.
	asItself, asRole truth
}

// Evaluate decides on a request: IAM User Guide, "Policy evaluation logic". It fails where
// a condition cannot be evaluated, and never guesses.
func Evaluate(r *Request, p *Policies) (Verdict, error) {
	if !strings.Contains(r.Action, ":") || strings.ContainsAny(r.Action, "*?") {
		return Verdict{}, fmt.Errorf("evaluate: %q is no action", r.Action)
	}
	l := newLookup(r)
	e := evaluation{request: r, action: strings.ToLower(r.Action), lookup: l, bounded: p.Boundary != nil}

	var levels []opinion
	if r.Caller.UnderSCP() {
		for _, level := range p.SCPs {
			levels = append(levels, e.ask(level...))
		}
	}
	endpoint, resource := e.ask(p.Endpoint), e.ask(p.Resource)
	identity, session, boundary := e.ask(p.Identity...), e.ask(p.Session...), e.ask(p.Boundary)
	if e.err != nil {
		return Verdict{}, fmt.Errorf("evaluate %s: %w", r.Action, e.err)
	}

	// An explicit deny, wherever it stands, is the last word.
	all := append(slices.Clone(levels), endpoint, resource, identity, session, boundary)
	mayDeny := false
	for _, o := range all {
		if o.deny == yes {
			return Verdict{Outcome: ExplicitDeny, Policy: o.denier, Sid: o.deniedBy.Sid, Reason: "a statement denies it"}, nil
		}
		mayDeny = mayDeny || o.deny == unknown
	}
	// The steps that must allow, each by itself.
	type step struct {
		is     truth
		reason string
		o      opinion
	}
	var steps []step
	for i, o := range levels {
		steps = append(steps, step{o.allow, fmt.Sprintf("no service control policy of level %d allows it", i+1), o})
	}
	if p.Endpoint != nil {
		steps = append(steps, step{endpoint.allow, "the VPC endpoint policy does not allow it", endpoint})
	}
	within := yes // the boundary and the session's policy, which grant nothing themselves
	if p.Boundary != nil {
		within = min(within, boundary.allow)
	}
	if len(p.Session) > 0 {
		within = min(within, session.allow)
	}
	granted := identity.allow
	if r.Caller.Kind == Root {
		granted = yes // the root user has no policies, and needs none
	}
	mine := min(granted, within)
	// A resource's policy that names a user or a session goes past the boundary; one that
	// names a role does not (IAM User Guide, "Policy evaluation for requests within a
	// single account").
	here := max(mine, resource.asItself, min(resource.asRole, within))
	sameAccount := r.ResourceAccount == "" || r.ResourceAccount == r.Caller.Account
	switch {
	case r.Caller.Kind == ServiceCaller || r.Caller.Kind == FederatedGuest:
		steps = append(steps, step{resource.allow, "the resource's policy does not name it", resource})
	case p.Resource == nil && !sameAccount:
		steps = append(steps, step{no, "the resource is another account's, and has no policy that lets others in", opinion{}})
	case !sameAccount:
		steps = append(steps, step{resource.allow, "the resource's policy in the other account does not allow it", resource},
			step{mine, "the caller's own policies do not allow it", identity})
	case p.Resource != nil && p.Resource.Kind == Trust:
		// A trust policy must allow in every case; where it names the account alone, the
		// caller's own policies must as well.
		steps = append(steps, step{resource.allow, "the trust policy does not allow it", resource},
			step{here, "the trust policy names the account, and the caller's own policies do not allow it", identity})
	default:
		steps = append(steps, step{here, "no policy of the caller or of the resource allows it", identity})
	}
	open := mayDeny
	for _, s := range steps {
		switch s.is {
		case no:
			return Verdict{Outcome: ImplicitDeny, Reason: s.reason}, nil
		case unknown:
			open = true
		}
	}
	if open {
		v := Verdict{Outcome: Undecided, Reason: "it hangs on condition keys that are not known here"}
		for k := range l.asked {
			v.Missing = append(v.Missing, k)
		}
		slices.Sort(v.Missing)
		return v, nil
	}
	v := Verdict{Outcome: Allowed, Reason: "allowed, and nothing denies it"}
	if last := steps[len(steps)-1].o; last.allowedBy != nil {
		v.Policy, v.Sid = last.policy, last.allowedBy.Sid
	}
	return v, nil
}

type evaluation struct {
	request *Request
	action  string // in lower case
	lookup  *lookup
	bounded bool // the caller has a permissions boundary
	err     error
}

// ask asks policies of one sort, whose statements count together.
func (e *evaluation) ask(policies ...*Policy) opinion {
	var o opinion
	for _, p := range policies {
		if p == nil {
			continue
		}
		for i := range p.Statements {
			s := &p.Statements[i]
			is, naming := e.applies(p, s)
			switch {
			case s.Deny && is > o.deny:
				o.deny, o.deniedBy, o.denier = is, s, p.Name
			case !s.Deny && is > o.allow:
				o.allow, o.allowedBy, o.policy = is, s, p.Name
			}
			if !s.Deny && naming == asItself {
				o.asItself = max(o.asItself, is)
			}
			if !s.Deny && naming == asRole {
				o.asRole = max(o.asRole, is)
			}
		}
	}
	return o
}

// applies reports whether a statement speaks of the request, and how it names the caller.
func (e *evaluation) applies(p *Policy, s *Statement) (is truth, how naming) {
	if e.err != nil {
		return no, notNamed
	}
	is = yes
	if p.Kind.hasPrincipal() {
		how = names(s.Principals, &e.request.Caller)
		if s.NotPrinc {
			excepted, err := except(s.Principals, &e.request.Caller)
			if err != nil {
				e.fail(p, s, err)
			}
			how = notNamed
			if excepted && !e.bounded { // whoever has a boundary is denied whatever is named
				return no, notNamed
			}
		} else if how == notNamed {
			return no, notNamed
		}
	}
	if slices.ContainsFunc(s.actions, func(a string) bool { return glob(a, e.action) }) == s.NotActions {
		return no, notNamed
	}
	if p.Kind.hasResource() {
		some := no
		for _, pattern := range s.resources {
			resolved, known, err := pattern.resolve(e.lookup)
			if err != nil {
				e.fail(p, s, err)
				return no, notNamed
			}
			if known == yes {
				known = truthOf(resolved.matches(e.request.Resource, inSegments))
			}
			some = max(some, known)
		}
		if s.NotRes {
			some = some.opposite()
		}
		if is = min(is, some); is == no {
			return no, notNamed
		}
	}
	for i := range s.Conditions {
		holds, err := s.Conditions[i].applies(e.lookup)
		if err != nil {
			e.fail(p, s, err)
			return no, notNamed
		}
		if is = min(is, holds); is == no {
			return no, notNamed
		}
	}
	return is, how
}

func (e *evaluation) fail(p *Policy, s *Statement, err error) {
	e.err = fmt.Errorf("%s, statement %q: %w", p.Name, s.Sid, err)
}

// How a Principal element means a caller.
type naming int

const (
	notNamed  naming = iota
	asAccount        // the account may pass the permission on
	asRole           // any session of the role, or anybody
	asItself
)

// names reports how a Principal element means a caller: IAM User Guide, "AWS JSON policy
// elements: Principal".
func names(principals []Principal, c *Caller) naming {
	best := notNamed
	for _, p := range principals {
		switch {
		case p.ID == "*" && (p.Type == "*" || p.Type == "AWS"):
			best = max(best, asRole)
		case p.Type == "Service" && c.Kind == ServiceCaller && c.ARN == p.ID:
			best = asItself
		case p.Type == "Federated" && c.Kind == FederatedGuest && c.ARN == p.ID:
			best = asItself
		case p.Type != "AWS" || c.Kind == ServiceCaller || c.Kind == FederatedGuest:
		case p.ID == c.Account, strings.HasSuffix(p.ID, ":iam::"+c.Account+":root"):
			best = max(best, asAccount)
		case p.ID == c.ARN:
			best = asItself
		case c.RoleARN != "" && p.ID == c.RoleARN:
			best = max(best, asRole)
		}
	}
	return best
}

// except reports whether NotPrincipal leaves a caller out. AWS looks at the account, then at
// the user or role, then at the session, and wants each of them named; what becomes of a
// caller of whom some are named and others not is not written (IAM User Guide, "AWS JSON
// policy elements: NotPrincipal").
func except(principals []Principal, c *Caller) (bool, error) {
	if c.Kind == ServiceCaller || c.Kind == FederatedGuest {
		return names(principals, c) != notNamed, nil
	}
	account, self, role, everybody := false, false, c.RoleARN == "", false
	for _, p := range principals {
		if p.Type != "AWS" && p.Type != "*" {
			continue
		}
		everybody = everybody || p.ID == "*"
		account = account || p.ID == c.Account || strings.HasSuffix(p.ID, ":iam::"+c.Account+":root")
		self = self || p.ID == c.ARN
		role = role || p.ID == c.RoleARN
	}
	self = self || c.Kind == Root && account
	switch {
	case everybody, account && self && role:
		return true, nil
	case !account && !self && (!role || c.RoleARN == ""):
		return false, nil
	}
	return false, fmt.Errorf("NotPrincipal names some of account, role and session or user of %s, and AWS does not say what that means: name all, or use aws:PrincipalArn", c.ARN)
}
