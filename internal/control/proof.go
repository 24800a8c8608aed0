package control

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/waybill-dev/waybill/internal/iam"
)

// A Proof is what became of generated requests under a guard's policies. It holds for
// what was asked, by the semantics that package iam has; it is no call to AWS.
type Proof struct {
	Requests int              `json:"requests"`
	Layers   []ProvedLayer    `json:"layers"`
	Failures []CounterExample `json:"counter_examples"`
	Seed     uint64           `json:"seed"`
}

// A ProvedLayer counts the requests that one layer of the guard was asked about, by what
// must hold.
type ProvedLayer struct {
	Layer     string `json:"layer"`
	Requests  int    `json:"requests"`
	Pass      int    `json:"pass"`
	Deny      int    `json:"deny"`
	Unchanged int    `json:"unchanged"`
}

// A CounterExample is a request that came out otherwise than it must, with all left out that
// makes no difference.
type CounterExample struct {
	Layer  string `json:"layer"`
	Who    string `json:"who"`
	Want   string `json:"want"`
	Got    string `json:"got"`
	Why    string `json:"why"` // why it must be so
	Policy string `json:"policy,omitempty"`
	Sid    string `json:"sid,omitempty"`
	// Missing are condition keys of the policies that generated requests do not have and
	// that Got, being undecided, hangs on.
	Missing []string    `json:"missing,omitempty"`
	Request iam.Request `json:"request"`
	// Alike are further requests that come out wrong for the same reason, and Callers how many
	// made them and this one.
	Alike   int `json:"alike"`
	Callers int `json:"callers"`
}

// ProofOptions say how a proof is made.
type ProofOptions struct {
	// Requests is how many are generated at least; every caller is asked about every action
	// in any case.
	Requests int
	Seed     uint64
	// First stops at the first counter-example.
	First bool
}

// A layer is a part of the guard that must hold by itself.
type layer string

const (
	byControl  layer = "service control policy"
	byEndpoint layer = "VPC endpoint policy"
	byTrust    layer = "role trust policy"
)

// A want is what must become of a request.
type want string

const (
	pass      want = "pass"
	deny      want = "deny"
	unchanged want = "unchanged" // as it was before the guard
)

// A class of callers, and what they are to the guard.
type callerClass struct {
	name   string
	caller iam.Caller
	// The role they play. A caller may be none of these: then Bedrock is closed to it.
	isGateway, isGlass, isAdmin, isEntry bool // isEntry: the role the gateway runs as
	passes                               []string
	// ownRole says that the caller has the policy of the gateway's roles; others have all
	// rights of an administrator.
	ownRole bool
}

// A scenario is one request to be judged.
type scenario struct {
	layer    layer
	class    *callerClass
	action   string
	resource string
	foreign  bool   // resource is one that the gateway's roles have no business with
	beside   bool   // the gateway's role was given an administrator's policy beside its own
	model    string // on bedrock-mantle, where no resource names it
	region   string
	endpoint string
	bearer   string
	via      string // an AWS service that calls on behalf of the caller
	tags     map[string]string
	request  map[string]string // tags of a request that gives tags
	service  string            // whose service-specific credential is made
	external string
}

// A prover has the policies and the callers.
type prover struct {
	guard                 *Guard
	scps                  []*iam.Policy
	role, trust, endpoint *iam.Policy
	everything            *iam.Policy // FullAWSAccess, and administrators of an account
	unknown               []string    // condition keys of the policies that requests do not have
	classes               []*callerClass
	rng                   *rand.Rand
}

// read reads the documents of a guard as AWS would.
func (p *Policies) read() (*prover, error) {
	v := &prover{guard: &p.Guard}
	var err error
	if v.everything, err = iam.Parse("FullAWSAccess", iam.Identity, []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)); err != nil {
		return nil, err
	}
	for _, d := range p.Documents {
		doc, err := iam.Parse(d.Name, d.Kind, d.JSON)
		if err != nil {
			return nil, err
		}
		switch d.Kind {
		case iam.ServiceControl:
			v.scps = append(v.scps, doc)
		case iam.Identity:
			v.role = doc
		case iam.Trust:
			v.trust = doc
		case iam.Endpoint:
			v.endpoint = doc
		}
		for _, k := range doc.Keys() {
			if !slices.ContainsFunc(generatedKeys, func(g string) bool { return k == g || strings.HasSuffix(g, "/") && strings.HasPrefix(k, g) }) {
				v.unknown = append(v.unknown, k)
			}
		}
	}
	return v, nil
}

// generatedKeys are the condition keys that generated requests have, or lack as AWS's own
// would. What hangs on another one is undecided: it is not guessed that AWS has none.
var generatedKeys = []string{"aws:principalarn", "aws:principalaccount", "aws:principaltype", "aws:principalisawsservice", "aws:principalservicename", "aws:username",
	"aws:principaltag/", "aws:requesttag/", "aws:tagkeys", "aws:requestedregion", "aws:sourcevpce", "aws:viaawsservice", "aws:calledvialast",
	"bedrock-mantle:model", "bedrock:bearertokentype", "bedrock-mantle:bearertokentype", "iam:servicespecificcredentialservicename", "sts:externalid"}

// Prove asks the policies about generated requests: the gateway passes, everybody else is
// denied, and nothing outside Bedrock changes. It fails where a policy cannot be evaluated.
func (p *Policies) Prove(o ProofOptions) (*Proof, error) {
	v, err := p.read()
	if err != nil {
		return nil, err
	}
	scenarios := v.requests(o.Seed, o.Requests)
	proof := &Proof{Requests: len(scenarios), Seed: o.Seed, Failures: []CounterExample{}}
	counts := map[layer]*ProvedLayer{}
	found := make(map[string]int)
	who := make(map[string]map[string]bool)
	for i := range scenarios {
		s := &scenarios[i]
		must, _ := v.must(s)
		c := counts[s.layer]
		if c == nil {
			c = &ProvedLayer{Layer: string(s.layer)}
			counts[s.layer] = c
		}
		c.Requests++
		switch must {
		case pass:
			c.Pass++
		case deny:
			c.Deny++
		case unchanged:
			c.Unchanged++
		}
		wrong, err := v.wrong(s)
		if err != nil {
			return nil, err
		}
		if !wrong {
			continue
		}
		small, err := v.shrink(*s)
		if err != nil {
			return nil, err
		}
		example, err := v.example(&small)
		if err != nil {
			return nil, err
		}
		key := strings.Join([]string{example.Layer, example.Want, example.Got, example.Sid, example.Why, closedBy(example.Request.Action), serviceOf(example.Request.Action)}, "|")
		at, ok := found[key]
		if !ok {
			who[key] = make(map[string]bool)
		}
		who[key][example.Who] = true
		if ok {
			proof.Failures[at].Alike++
			proof.Failures[at].Callers = len(who[key])
			continue
		}
		example.Callers = 1
		found[key] = len(proof.Failures)
		proof.Failures = append(proof.Failures, example)
		if o.First {
			break
		}
	}
	// What lets somebody call a model comes first.
	slices.SortStableFunc(proof.Failures, func(x, y CounterExample) int {
		rank := func(f CounterExample) int {
			if closedBy(f.Request.Action) == "inference" {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(x), rank(y))
	})
	for _, l := range []layer{byControl, byEndpoint, byTrust} {
		if counts[l] != nil {
			proof.Layers = append(proof.Layers, *counts[l])
		}
	}
	return proof, nil
}

// must is the specification, in words rather than in policies: what a request comes to,
// and why.
func (v *prover) must(s *scenario) (want, string) {
	if s.layer == byTrust {
		return v.mustTrust(s)
	}
	g, c := v.guard, s.class
	spends := closedBy(s.action)
	if s.layer == byEndpoint {
		switch {
		case !slices.Contains(gatewayActions, s.action):
			return deny, "the endpoint is for calls of models"
		case c.isGateway:
			return v.mustGateway(s)
		case c.isGlass, slices.Contains(c.passes, "inference"):
			return pass, "it is let through the endpoint too"
		}
		return deny, "the endpoint is for those who may call"
	}
	if !c.caller.UnderSCP() {
		return unchanged, "service control policies do not reach it"
	}
	switch {
	case slices.Contains(bearerActions, s.action):
		return deny, "Bedrock API keys go past the gateway"
	case s.action == "iam:CreateServiceSpecificCredential" && s.service == "bedrock.amazonaws.com":
		return deny, "no Bedrock API keys are made"
	case len(g.Administrators) > 0 && !c.isAdmin && slices.Contains(roleChanges, s.action) && slices.ContainsFunc(v.ours(), func(p string) bool { return arnLike(p, s.resource) }):
		return deny, "only administrators change the roles that pass"
	case len(g.Administrators) > 0 && !c.isAdmin && s.action == "iam:PassRole" && v.handed(s.resource):
		return deny, "only administrators give the gateway's role to a service"
	case len(g.Administrators) > 0 && !c.isAdmin && slices.Contains(tagGrants, s.action) && v.givesGlass(s):
		return deny, "only administrators give the break-glass tag"
	case c.isGateway:
		return v.mustGateway(s)
	case !slices.Contains(g.Close, spends):
		return unchanged, "it is none of the guard's business"
	case c.isGlass:
		return pass, "the glass is broken"
	case slices.Contains(c.passes, spends):
		return pass, "it is an exception"
	}
	return deny, "it is not the gateway"
}

func (v *prover) givesGlass(s *scenario) bool {
	key, _, ok := strings.Cut(v.guard.BreakGlass.Tag, "=")
	for k := range s.request {
		if ok && strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// closedBy is the surface that an action belongs to, or nothing.
func closedBy(action string) string {
	for _, s := range Surfaces {
		for _, a := range s.Actions {
			if wildcard(a, action) {
				return s.Name
			}
		}
	}
	return ""
}

func (v *prover) mustGateway(s *scenario) (want, string) {
	g := v.guard
	if s.beside {
		return v.mustBeOwned(s)
	}
	if !slices.Contains(gatewayActions, s.action) {
		return deny, "the gateway does not call it"
	}
	if slices.Contains(gatewayReads, s.action) {
		return pass, "the gateway counts tokens and lists models"
	}
	if s.foreign {
		return deny, "the gateway calls models, and what is its own account's"
	}
	if slices.Contains(gatewayGuards, s.action) {
		return pass, "the gateway applies guardrails"
	}
	if s.action == "bedrock-mantle:CreateInference" && len(g.Models) > 0 && !slices.ContainsFunc(g.Models, func(m string) bool { return wildcard(m, s.model) }) {
		return deny, "the model is none of those that the gateway calls"
	}
	if s.action == "bedrock:InvokeModel" || s.action == "bedrock:InvokeModelWithResponseStream" || s.action == "bedrock-mantle:CreateInference" {
		return v.mustBeOwned(s)
	}
	return pass, "it is the gateway"
}

// mustBeOwned is what a call that costs money takes.
func (v *prover) mustBeOwned(s *scenario) (want, string) {
	g := v.guard
	for _, r := range g.Require {
		switch value := s.tags[r.Key]; {
		case value == "":
			return deny, "tag " + r.Key + " is missing"
		case len(r.Values) > 0 && !slices.Contains(r.Values, value):
			return deny, "tag " + r.Key + " has a value that is none of ours"
		}
	}
	if len(g.VPCEndpoints) > 0 && !slices.Contains(g.VPCEndpoints, s.endpoint) {
		return deny, "it comes another way than through the endpoint"
	}
	return pass, "it is the gateway, with an owner's tags"
}

func (v *prover) mustTrust(s *scenario) (want, string) {
	g := v.guard
	if !s.class.isEntry {
		return deny, "only the gateway becomes its roles"
	}
	switch s.action {
	case "sts:SetSourceIdentity":
		if !g.SourceIdentity {
			return deny, "no source identity is set"
		}
		return pass, "the gateway sets a source identity"
	case "sts:TagSession":
		for k := range s.request {
			if g.AllowTags != nil && !slices.Contains(g.tagKeys(), k) {
				return deny, "tag " + k + " is none of ours"
			}
		}
		return pass, "the gateway tags its sessions"
	}
	if g.ExternalID != "" && s.external != g.ExternalID {
		return deny, "the external id is another"
	}
	for _, r := range g.Require {
		switch value := s.request[r.Key]; {
		case value == "":
			return deny, "tag " + r.Key + " is missing"
		case len(r.Values) > 0 && !slices.Contains(r.Values, value):
			return deny, "tag " + r.Key + " has a value that is none of ours"
		}
	}
	return pass, "the gateway becomes its role"
}

// ask is the request of a scenario, and the policies that AWS would consult.
func (v *prover) ask(s *scenario) (iam.Request, iam.Policies) {
	r := iam.Request{Caller: s.class.caller, Action: s.action, Resource: s.resource, Context: make(map[string][]string), Unknown: v.unknown}
	r.Caller.Tags = s.tags
	put := func(key, value string) {
		if value != "" {
			r.Context[key] = []string{value}
		}
	}
	put("aws:RequestedRegion", s.region)
	put("aws:SourceVpce", s.endpoint)
	put("iam:ServiceSpecificCredentialServiceName", s.service)
	put("sts:ExternalId", s.external)
	if s.bearer != "" {
		put(serviceOf(s.action)+":BearerTokenType", s.bearer)
	}
	put("bedrock-mantle:Model", s.model)
	put("aws:CalledViaLast", s.via)
	put("aws:ViaAWSService", strconv.FormatBool(s.via != "")) // every request has it
	for _, k := range slices.Sorted(maps.Keys(s.request)) {
		r.Context["aws:RequestTag/"+k] = []string{s.request[k]}
		r.Context["aws:TagKeys"] = append(r.Context["aws:TagKeys"], k)
	}
	p := iam.Policies{Identity: []*iam.Policy{v.everything}}
	if s.class.ownRole && !(s.layer == byEndpoint && slices.Contains(notThrough, s.action)) {
		p.Identity[0] = v.role
	}
	if s.beside {
		p.Identity = append(p.Identity, v.everything)
	}
	switch s.layer {
	case byControl:
		p.SCPs = [][]*iam.Policy{{v.everything}, append([]*iam.Policy{v.everything}, v.scps...)}
	case byEndpoint:
		p.Endpoint = v.endpoint
	case byTrust:
		p.Resource, r.ResourceAccount = v.trust, v.guard.Account
	}
	return r, p
}

// wrong reports whether a request comes out otherwise than it must.
func (v *prover) wrong(s *scenario) (bool, error) {
	must, _ := v.must(s)
	r, p := v.ask(s)
	got, err := iam.Evaluate(&r, &p)
	if err != nil {
		return false, err
	}
	switch must {
	case pass:
		return got.Outcome != iam.Allowed, nil
	case deny:
		return !got.Denied(), nil
	}
	p.SCPs = [][]*iam.Policy{{v.everything}}
	before, err := iam.Evaluate(&r, &p)
	if err != nil {
		return false, err
	}
	return got.Outcome != before.Outcome, nil
}

// shrink leaves out of a request what makes no difference to its being wrong.
func (v *prover) shrink(s scenario) (scenario, error) {
	must, _ := v.must(&s)
	steps := []func(*scenario){
		func(s *scenario) { s.via = "" },
		func(s *scenario) { s.region = "" },
		func(s *scenario) { s.bearer = "" },
		func(s *scenario) { s.endpoint = "" },
		func(s *scenario) { s.external = "" },
	}
	if must != pass { // the gateway passes on its own resources, and on no others
		steps = append(steps, func(s *scenario) { s.resource = "*" }, func(s *scenario) { s.model = "" })
	}
	for _, k := range slices.Sorted(maps.Keys(s.tags)) {
		steps = append(steps, func(s *scenario) { delete(s.tags, k) })
	}
	for _, k := range slices.Sorted(maps.Keys(s.request)) {
		steps = append(steps, func(s *scenario) { delete(s.request, k) })
	}
	for _, step := range steps {
		try := s
		try.tags, try.request = maps.Clone(s.tags), maps.Clone(s.request)
		step(&try)
		if now, _ := v.must(&try); now != must {
			continue
		}
		still, err := v.wrong(&try)
		if err != nil {
			return s, err
		}
		if still {
			s = try
		}
	}
	return s, nil
}

func (v *prover) example(s *scenario) (CounterExample, error) {
	must, why := v.must(s)
	r, p := v.ask(s)
	got, err := iam.Evaluate(&r, &p)
	if s.via == "" {
		delete(r.Context, "aws:ViaAWSService") // as ever
	}
	return CounterExample{Layer: string(s.layer), Who: s.class.name, Want: string(must), Got: cmp.Or(string(got.Outcome), "nothing"), Why: why,
		Policy: got.Policy, Sid: got.Sid, Missing: got.Missing, Request: r}, err
}
