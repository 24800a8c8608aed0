package control

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill/internal/iam"
)

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
