package control

import (
	"cmp"
	"fmt"
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

// requests generates requests, the same ones for the same seed.
func (v *prover) requests(seed uint64, least int) []scenario {
	v.rng = rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	v.classes = nil
	v.cast()
	return v.scenarios(least)
}

func serviceOf(action string) string { return action[:strings.IndexByte(action, ':')] }

// instance is an ARN that a pattern stands for.
func instance(pattern, account string) string {
	parts := strings.SplitN(pattern, ":", 6)
	if parts[4] == "*" {
		parts[4] = account
	}
	parts[5] = strings.ReplaceAll(strings.ReplaceAll(parts[5], "*", "one"), "?", "x")
	return strings.Join(parts, ":")
}

// sessionOf is a session of a role.
func sessionOf(role string) iam.Caller {
	parts := strings.SplitN(role, ":", 6)
	name := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	return iam.Caller{Kind: iam.RoleSession, Account: parts[4], RoleARN: role, ARN: "arn:" + parts[1] + ":sts::" + parts[4] + ":assumed-role/" + name + "/somebody"}
}

// elsewhere are accounts that the guard does not name.
const (
	sisterAccount     = "444455556666" // of the same organization
	managementAccount = "777788889999"
	strangersAccount  = "121212121212" // of no organization of ours
)

// cast makes the callers.
func (v *prover) cast() {
	g := v.guard
	add := func(name string, c iam.Caller, change func(*callerClass)) {
		class := &callerClass{name: name, caller: c}
		if change != nil {
			change(class)
		}
		v.classes = append(v.classes, class)
	}
	nothing := func(*callerClass) {}
	partition := g.partition()
	arn := func(account, rest string) string { return "arn:" + partition + ":iam::" + account + ":" + rest }
	for _, r := range g.Roles {
		add("the gateway as "+r, sessionOf(instance(r, g.Account)), func(c *callerClass) { c.isGateway, c.ownRole = true, true })
	}
	for _, r := range g.BreakGlass.Roles {
		add("break-glass role "+r, sessionOf(instance(r, g.Account)), func(c *callerClass) { c.isGlass = true })
	}
	if key, value, ok := strings.Cut(g.BreakGlass.Tag, "="); ok {
		for _, c := range []iam.Caller{sessionOf(arn(g.Account, "role/oncall")), {Kind: iam.User, ARN: arn(g.Account, "user/oncall"), Account: g.Account}} {
			c.Tags = map[string]string{key: value}
			add("whoever has tag "+g.BreakGlass.Tag+" ("+string(c.Kind)+")", c, func(c *callerClass) { c.isGlass = true })
			c.Tags = map[string]string{key: value + "d"}
			add("whoever has tag "+key+" with another value", c, nothing)
		}
	}
	for _, x := range g.Exceptions {
		for _, r := range x.Roles {
			add("exception "+r, sessionOf(instance(r, g.Account)), func(c *callerClass) { c.passes = x.Surfaces })
		}
	}
	for _, r := range g.Administrators {
		a := instance(r, g.Account)
		if strings.Contains(a, ":user/") {
			add("administrator "+r, iam.Caller{Kind: iam.User, ARN: a, Account: strings.Split(a, ":")[4]}, func(c *callerClass) { c.isAdmin = true })
		} else {
			add("administrator "+r, sessionOf(a), func(c *callerClass) { c.isAdmin = true })
		}
	}
	add("the role that the gateway runs as", sessionOf(g.Gateway), func(c *callerClass) { c.isEntry = true })
	add("another role", sessionOf(arn(g.Account, "role/app")), nothing)
	first := instance(g.Roles[0], g.Account)
	name := first[strings.LastIndexByte(first, '/')+1:]
	add("a role with the gateway role's name under another path", sessionOf(arn(g.Account, "role/elsewhere/"+name)), nothing)
	add("a role of another account that is like the gateway's", sessionOf(arn(strangersAccount, "role/elsewhere/"+name)), nothing)
	add("a user", iam.Caller{Kind: iam.User, ARN: arn(g.Account, "user/ann"), Account: g.Account}, nothing)
	add("the account's root user", iam.Caller{Kind: iam.Root, ARN: arn(g.Account, "root"), Account: g.Account}, nothing)
	add("a role of a sister account", sessionOf(arn(sisterAccount, "role/app")), nothing)
	add("a user of a sister account", iam.Caller{Kind: iam.User, ARN: arn(sisterAccount, "user/bob"), Account: sisterAccount}, nothing)
	add("a service-linked role", sessionOf(arn(g.Account, "role/aws-service-role/bedrock.amazonaws.com/AWSServiceRoleForAmazonBedrock")), nothing)
	management := sessionOf(arn(managementAccount, "role/admin"))
	management.Management = true
	add("a role of the management account", management, nothing)
	add("an AWS service as itself", iam.Caller{Kind: iam.ServiceCaller, ARN: "bedrock.amazonaws.com"}, nothing)
	v.resolveRoles()
}

// resolveRoles lets a class that happens to match one of the guard's patterns be what the
// pattern says: a pattern may be wider than its writer thought, and what it lets through
// is what was asked for.
func (v *prover) resolveRoles() {
	g := v.guard
	matches := func(patterns []string, arn string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return arnLike(p, arn) })
	}
	for _, c := range v.classes {
		arn := c.caller.PrincipalARN()
		if matches(g.Roles, arn) && !c.isGateway {
			c.passes = append(c.passes, gatewaySurfaces...) // with all its own policies
		}
		c.isGlass = c.isGlass || matches(g.BreakGlass.Roles, arn)
		c.isAdmin = c.isAdmin || matches(g.Administrators, arn)
		c.isEntry = c.isEntry || arn == g.Gateway
		for _, x := range g.Exceptions {
			if matches(x.Roles, arn) {
				c.passes = append(c.passes, x.Surfaces...)
			}
		}
	}
}

// arnLike is the specification's own comparison of ARNs: by segments, * and ? as in
// file names but for the slash.
func arnLike(pattern, arn string) bool {
	p, a := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	if len(p) != 6 || len(a) != 6 {
		return false
	}
	for i := range p {
		if !wildcard(p[i], a[i]) {
			return false
		}
	}
	return true
}

func wildcard(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	switch pattern[0] {
	case '*':
		return wildcard(pattern[1:], text) || text != "" && wildcard(pattern, text[1:])
	case '?':
		return text != "" && wildcard(pattern[1:], text[1:])
	}
	return text != "" && text[0] == pattern[0] && wildcard(pattern[1:], text[1:])
}

func (v *prover) pick(texts ...string) string { return texts[v.rng.IntN(len(texts))] }

// owned are tags that satisfy what is required.
func (v *prover) owned() map[string]string {
	tags := make(map[string]string)
	for _, r := range v.guard.Require {
		tags[r.Key] = "search"
		if len(r.Values) > 0 {
			tags[r.Key] = v.pick(r.Values...)
		}
	}
	return tags
}

// scenarios generates the requests: every caller with every action at least once, and the
// gateway with every way of lacking a tag.
func (v *prover) scenarios(least int) []scenario {
	var out []scenario
	actions := slices.Concat(knownActions, otherActions)
	for _, c := range v.classes {
		for _, a := range actions {
			out = append(out, v.around(scenario{layer: byControl, class: c, action: a}))
		}
		for _, a := range append(slices.Clone(gatewayActions), notThrough...) {
			if c.caller.Kind != iam.ServiceCaller && !c.caller.Management {
				out = append(out, v.around(scenario{layer: byEndpoint, class: c, action: a, endpoint: v.someEndpoint()}))
			}
		}
		out = append(out, v.trustScenarios(c)...)
		out = append(out, v.grantScenarios(c)...)
		if c.isGateway {
			out = append(out, v.gatewayScenarios(c)...)
		}
	}
	for len(out) < least {
		c := v.classes[v.rng.IntN(len(v.classes))]
		a := v.pick(knownActions...)
		switch v.rng.IntN(4) {
		case 0:
			a = v.pick(otherActions...)
		case 1:
			s := Surfaces[v.rng.IntN(len(Surfaces))]
			a = strings.ReplaceAll(v.pick(s.Actions...), "*", v.pick("", "WithResponseStream", "Anew"))
		}
		out = append(out, v.around(scenario{layer: byControl, class: c, action: a}))
	}
	v.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// notThrough are actions that nobody makes through the guarded endpoints.
var notThrough = []string{"bedrock:CallWithBearerToken", "bedrock:CreateModelInvocationJob", "bedrock:InvokeAgent", "bedrock-mantle:CallWithBearerToken",
	"bedrock-mantle:CreateFineTuningJob", "bedrock-mantle:CreateProject"}

func (v *prover) someEndpoint() string {
	return v.pick(append([]string{"vpce-0fedcba9876543210"}, v.guard.VPCEndpoints...)...)
}

// around fills what the request does not say yet.
func (v *prover) around(s scenario) scenario {
	s.region = v.pick("us-east-1", "eu-west-1", "ap-southeast-2", "")
	if s.resource == "" {
		s.resource = v.someResource(s.action)
	}
	if slices.Contains(gatewayMantle, s.action) || s.action == "bedrock-mantle:CreateFineTuningJob" {
		s.model = v.someModel()
	}
	if s.layer == byControl && v.rng.IntN(3) == 0 && strings.HasPrefix(s.action, "bedrock") {
		s.endpoint = v.someEndpoint()
	}
	if s.layer == byControl && s.class.isGateway && len(v.guard.VPCEndpoints) > 0 && v.rng.IntN(2) == 0 {
		s.endpoint = v.guard.VPCEndpoints[0]
	}
	if slices.Contains(bearerActions, s.action) {
		s.bearer = v.pick("SHORT_TERM", "LONG_TERM")
	}
	if v.rng.IntN(5) == 0 && s.class.caller.Kind != iam.ServiceCaller {
		s.via = v.pick("bedrock.amazonaws.com", "athena.amazonaws.com")
	}
	s.tags = maps.Clone(s.class.caller.Tags)
	if s.tags == nil {
		s.tags = make(map[string]string)
	}
	if s.class.isGateway || v.rng.IntN(2) == 0 {
		for k, value := range v.owned() {
			if _, there := s.tags[k]; !there {
				s.tags[k] = value
			}
		}
	}
	if v.rng.IntN(4) == 0 {
		s.tags["costCenter9"] = "CC-1"
	}
	if s.action == "iam:CreateServiceSpecificCredential" && s.service == "" {
		s.service = v.pick("bedrock.amazonaws.com", "codecommit.amazonaws.com", "cassandra.amazonaws.com")
	}
	return s
}

// someModel is a model that the gateway's roles may call.
func (v *prover) someModel() string {
	if len(v.guard.Models) == 0 {
		return "anthropic.claude-sonnet-4-5-20250929-v1:0"
	}
	return strings.ReplaceAll(strings.ReplaceAll(v.pick(v.guard.Models...), "*", "claude-sonnet-5"), "?", "x")
}

func (v *prover) someResource(action string) string {
	g, region := v.guard, v.pick("us-east-1", "eu-west-1")
	p := g.partition()
	model := v.someModel()
	switch {
	case strings.HasPrefix(action, "bedrock-mantle:"):
		return fmt.Sprintf("arn:%s:bedrock-mantle:%s:%s:project/%s", p, region, g.Account, v.pick("default", "proj_5d5ykleja6cwpirysbb7"))
	case strings.HasPrefix(action, "bedrock:Invoke"), strings.HasPrefix(action, "bedrock:CountTokens"):
		return v.pick(
			fmt.Sprintf("arn:%s:bedrock:%s::foundation-model/%s", p, region, model),
			fmt.Sprintf("arn:%s:bedrock:::foundation-model/%s", p, model),
			fmt.Sprintf("arn:%s:bedrock:%s:%s:inference-profile/us.%s", p, region, g.Account, model),
			fmt.Sprintf("arn:%s:bedrock:%s:%s:application-inference-profile/a1b2c3d4e5f6", p, region, g.Account),
			fmt.Sprintf("arn:%s:bedrock:%s:%s:project/default", p, region, g.Account))
	case slices.Contains(gatewayStored, action):
		return fmt.Sprintf("arn:%s:bedrock:%s:%s:project/default", p, region, g.Account)
	case strings.Contains(action, "Guardrail"):
		return fmt.Sprintf("arn:%s:bedrock:%s:%s:guardrail/gr1", p, region, g.Account)
	case slices.Contains(roleChanges, action), action == "iam:GetRole", action == "iam:DeleteRole", action == "iam:PassRole":
		return v.pick(fmt.Sprintf("arn:%s:iam::%s:role/app", p, g.Account), instance(v.pick(v.ours()...), g.Account), g.Gateway)
	}
	return "*"
}

// ours are the roles that may pass, and the one that may become one of them.
func (v *prover) ours() []string {
	out := slices.Concat(v.guard.Roles, v.guard.BreakGlass.Roles, []string{v.guard.Gateway})
	for _, x := range v.guard.Exceptions {
		out = append(out, x.Roles...)
	}
	return out
}

// handed reports a role that only administrators give to a service.
func (v *prover) handed(arn string) bool {
	return arn == v.guard.Gateway || matchesAny(v.guard.BreakGlass.Roles, arn)
}

// foreign are resources that the gateway's roles have no business with, for an action.
func (v *prover) foreign(action string) []string {
	g, p, region := v.guard, v.guard.partition(), v.pick("us-east-1", "eu-west-1")
	const model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
	in := func(service, account, resource string) string {
		return fmt.Sprintf("arn:%s:%s:%s:%s:%s", p, service, region, account, resource)
	}
	switch {
	case slices.Contains(gatewayMantle, action), slices.Contains(mantleStored, action):
		return []string{in("bedrock-mantle", sisterAccount, "project/default"), in("bedrock-mantle", g.Account, "reservation/r1")}
	case slices.Contains(gatewayStored, action):
		return []string{in("bedrock", sisterAccount, "project/default"), in("bedrock", g.Account, "project/p1")}
	case action == "bedrock:ApplyGuardrail":
		return []string{in("bedrock", sisterAccount, "guardrail/gr1"), in("bedrock", g.Account, "guardrail-profile/us.guardrail.v1:0")}
	case slices.Contains(gatewayRuntime, action):
		out := []string{in("bedrock", sisterAccount, "inference-profile/us."+model), in("bedrock", sisterAccount, "application-inference-profile/a1b2c3d4e5f6"),
			in("bedrock", sisterAccount, "project/default"), in("bedrock", g.Account, "custom-model/m"), in("bedrock", g.Account, "imported-model/m"), in("bedrock", g.Account, "provisioned-model/m")}
		if len(g.Models) > 0 {
			out = append(out, in("bedrock", "", "foundation-model/nobody.model-v1:0"), in("bedrock", g.Account, "inference-profile/us.nobody.model-v1:0"))
		}
		return out
	}
	return nil
}

// gatewayScenarios ask the gateway's roles on every kind of resource, and without each tag.
func (v *prover) gatewayScenarios(c *callerClass) []scenario {
	var out []scenario
	with := func(action string, change func(*scenario)) {
		s := v.around(scenario{layer: byControl, class: c, action: action})
		s.tags, s.endpoint = v.owned(), ""
		if len(v.guard.VPCEndpoints) > 0 {
			s.endpoint = v.pick(v.guard.VPCEndpoints...)
		}
		change(&s)
		out = append(out, s)
	}
	for range 12 { // enough to meet every kind of resource; more comes at random
		for _, a := range gatewayActions {
			with(a, func(*scenario) {})
		}
	}
	for _, a := range []string{"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream", "bedrock-mantle:CreateInference"} {
		for _, r := range v.guard.Require {
			with(a, func(s *scenario) { delete(s.tags, r.Key) })
			with(a, func(s *scenario) { s.tags[r.Key] = "" })
			with(a, func(s *scenario) { s.tags[r.Key] = "nobody-of-ours" })
			for _, value := range r.Values {
				with(a, func(s *scenario) { s.tags[r.Key] = value })
			}
		}
		for _, e := range append([]string{"", "vpce-0fedcba9876543210"}, v.guard.VPCEndpoints...) {
			with(a, func(s *scenario) { s.endpoint = e })
		}
	}
	for _, a := range gatewayActions {
		for _, arn := range v.foreign(a) {
			with(a, func(s *scenario) { s.resource, s.foreign = arn, true })
		}
	}
	for _, a := range []string{"bedrock:InvokeModelWithBidirectionalStream", "bedrock:Rerank", "bedrock-mantle:CreateInference"} {
		with(a, func(s *scenario) { s.beside = true })
		for _, r := range v.guard.Require {
			with(a, func(s *scenario) { s.beside = true; delete(s.tags, r.Key) })
		}
		with(a, func(s *scenario) { s.beside, s.endpoint = true, "" })
	}
	for _, a := range gatewayActions { // nothing else, on what it may call
		with("bedrock:TagResource", func(s *scenario) { s.resource = v.someResource(a) })
	}
	for _, a := range gatewayReads {
		for _, r := range v.guard.Require {
			with(a, func(s *scenario) { delete(s.tags, r.Key) })
		}
	}
	for _, model := range []string{"nobody.model", "", strings.ToUpper(v.someModel())} {
		with("bedrock-mantle:CreateInference", func(s *scenario) { s.model = model })
	}
	return out
}

// trustScenarios ask who becomes the gateway's role.
func (v *prover) trustScenarios(c *callerClass) []scenario {
	if c.caller.Kind == iam.ServiceCaller {
		return nil
	}
	g := v.guard
	var out []scenario
	with := func(action string, change func(*scenario)) {
		s := scenario{layer: byTrust, class: c, action: action, resource: instance(g.Roles[0], g.Account), request: v.owned(), tags: map[string]string{}, external: g.ExternalID}
		change(&s)
		out = append(out, s)
	}
	same := func(*scenario) {}
	for _, a := range []string{"sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"} {
		with(a, same)
		with(a, func(s *scenario) { s.request["planted"] = "x" })
		with(a, func(s *scenario) { s.external = "guessed" })
		with(a, func(s *scenario) { s.external = "" })
		for _, r := range g.Require {
			with(a, func(s *scenario) { delete(s.request, r.Key) })
			with(a, func(s *scenario) { s.request[r.Key] = "" })
			with(a, func(s *scenario) { s.request[r.Key] = "nobody-of-ours" })
			for _, value := range r.Values {
				with(a, func(s *scenario) { s.request[r.Key] = value })
			}
		}
		for _, k := range g.AllowTags {
			with(a, func(s *scenario) { s.request[k] = "x" })
		}
	}
	return out
}

// grantScenarios ask who may make or change what passes.
func (v *prover) grantScenarios(c *callerClass) []scenario {
	g := v.guard
	var out []scenario
	for _, a := range append(slices.Clone(roleChanges), "iam:PassRole") {
		for _, r := range append(v.ours(), "arn:"+g.partition()+":iam::"+g.Account+":role/app") {
			out = append(out, v.around(scenario{layer: byControl, class: c, action: a, resource: instance(r, g.Account)}))
		}
	}
	for _, s := range []string{"bedrock.amazonaws.com", "codecommit.amazonaws.com"} {
		out = append(out, v.around(scenario{layer: byControl, class: c, action: "iam:CreateServiceSpecificCredential", service: s}))
	}
	if key, value, ok := strings.Cut(g.BreakGlass.Tag, "="); ok {
		for _, a := range append(slices.Clone(tagGrants), "ec2:RunInstances") {
			for _, k := range []string{key, strings.ToUpper(key), "team"} {
				s := v.around(scenario{layer: byControl, class: c, action: a})
				s.resource, s.request = "*", map[string]string{k: value, "other": "x"}
				out = append(out, s)
			}
		}
	}
	return out
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
