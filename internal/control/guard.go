package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/iam"
)

// A Guard says who may reach Bedrock, and by which way: what the policies are written
// from.
type Guard struct {
	// Gateway is the role that the gateway runs as, by its ARN: the only one that may
	// assume Roles.
	Gateway string `yaml:"gateway" json:"gateway"`
	// Roles are those under which the gateway calls Bedrock, by ARN. * and ? may stand for
	// parts of it: arn:aws:iam::*:role/waybill/*.
	Roles []string `yaml:"roles" json:"roles"`
	// Account owns the roles and is billed; empty to take it from Roles.
	Account string `yaml:"account" json:"account,omitempty"`
	// Close are names of Surfaces; empty for DefaultClose.
	Close []string `yaml:"close" json:"close,omitempty"`
	// BreakGlass may pass in an emergency.
	BreakGlass BreakGlass `yaml:"breakGlass" json:"break_glass,omitzero"`
	// Exceptions may pass always, such as the service roles of agents.
	Exceptions []Exception `yaml:"exceptions" json:"exceptions,omitempty"`
	// Administrators, by ARN, may change the roles above and give the break-glass tag. Empty
	// leaves both to the account's own policies.
	Administrators []string `yaml:"administrators" json:"administrators,omitempty"`
	// Require are keys of session tags without which the roles may not call. A key with
	// values takes those alone, one without takes any that is not empty.
	Require []Required `yaml:"require" json:"require,omitempty"`
	// AllowTags are the keys that a session may have besides those of Require; nil for any.
	AllowTags []string `yaml:"allowTags" json:"allow_tags,omitempty"`
	// SourceIdentity lets the gateway set one.
	SourceIdentity bool `yaml:"sourceIdentity" json:"source_identity,omitempty"`
	// ExternalID must be given by whoever assumes a role.
	ExternalID string `yaml:"externalId" json:"external_id,omitempty"`
	// Models restricts the roles to foundation models, such as anthropic.*; nil for all.
	Models []string `yaml:"models" json:"models,omitempty"`
	// VPCEndpoints are the only endpoints through which the roles may call; nil for any way.
	VPCEndpoints []string `yaml:"vpcEndpoints" json:"vpc_endpoints,omitempty"`
	// TrustLimit is the account's quota of the length of a role trust policy; 0 is 2048.
	TrustLimit int `yaml:"trustLimit" json:"trust_limit,omitempty"`
	// SCPs is how many service control policies may be attached at the most; 0 is 4: of
	// AWS's five one is FullAWSAccess.
	SCPs int `yaml:"scps" json:"scps,omitempty"`
}

// BreakGlass says who may pass in an emergency.
type BreakGlass struct {
	Roles []string `yaml:"roles" json:"roles,omitempty"` // ARNs, with * and ?
	// Tag is a tag of a user, role or session that opens the way, written key=value.
	Tag string `yaml:"tag" json:"tag,omitempty"`
}

// An Exception is roles that may pass on some surfaces.
type Exception struct {
	Roles    []string `yaml:"roles" json:"roles"`
	Surfaces []string `yaml:"surfaces" json:"surfaces,omitempty"` // empty: inference alone
	Why      string   `yaml:"why" json:"why,omitempty"`
}

// Required is a session tag that must be there.
type Required struct {
	Key    string   `yaml:"key" json:"key"`
	Values []string `yaml:"values" json:"values,omitempty"`
}

// DefaultClose are the surfaces that are closed unless others are named.
var DefaultClose = []string{"inference", "batch", "agents", "flows", "knowledge-bases"}

// A Document is one policy that a guard consists of.
type Document struct {
	Name       string       `json:"name"` // scp, scp-2, role-trust, role-permissions, vpc-endpoint
	Kind       iam.Kind     `json:"kind"`
	Why        string       `json:"why"`
	Attach     string       `json:"attach"` // where it goes
	Size       int          `json:"size"`   // characters as AWS counts them
	Limit      int          `json:"limit"`
	Statements []Explained  `json:"statements"`
	Policy     policySource `json:"policy"`
	// JSON is Policy without white space: what is to be sent.
	JSON []byte `json:"-"`
}

// Explained is why a statement is there.
type Explained struct {
	Sid string `json:"sid"`
	Why string `json:"why"`
}

// A policySource is a policy to be written.
type policySource struct {
	Version   string      `json:"Version"`
	Statement []statement `json:"Statement"`
}

type statement struct {
	Sid       string                      `json:"Sid"`
	Effect    string                      `json:"Effect"`
	Principal any                         `json:"Principal,omitempty"`
	Action    texts                       `json:"Action"`
	Resource  texts                       `json:"Resource,omitempty"`
	Condition map[string]map[string]texts `json:"Condition,omitempty"`

	why string
}

// texts are written as a list, or alone as a text.
type texts []string

// MarshalJSON writes them.
func (t texts) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return plainJSON(t[0])
	}
	return plainJSON([]string(t))
}

// plainJSON writes JSON without the escapes that are meant for web pages.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

var (
	rolePattern  = regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}|\*):role/[A-Za-z0-9+=,.@_/*?-]+$`)
	principalARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}|\*):(role|user)/[A-Za-z0-9+=,.@_/*?-]+$`)
	exactRole    = regexp.MustCompile(`^arn:(aws[a-z-]*):iam::([0-9]{12}):role/[A-Za-z0-9+=,.@_/-]+$`)
	accountID    = regexp.MustCompile(`^[0-9]{12}$`)
	endpointID   = regexp.MustCompile(`^vpce-[0-9a-f]{8,17}$`)
	modelPattern = regexp.MustCompile(`^[A-Za-z0-9.:*?_-]+$`)
	tagKey       = regexp.MustCompile(`^[A-Za-z0-9 _.:/=+@-]{1,128}$`)
)

// misused is a mistake in what was asked for.
func misused(hint, format string, args ...any) error {
	return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// check fills what is left out, and refuses what cannot be.
func (g *Guard) check() error {
	m := exactRole.FindStringSubmatch(g.Gateway)
	switch {
	case g.Gateway == "":
		return misused("name the role that the gateway runs as: arn:aws:iam::111122223333:role/waybill/gateway", "gateway is missing")
	case m == nil:
		return misused("a trust policy takes no wildcards: name one role", "gateway %q is not the ARN of a role", g.Gateway)
	case len(g.Roles) == 0:
		return misused("name the roles under which the gateway calls Bedrock: arn:aws:iam::111122223333:role/waybill/bedrock", "roles is empty")
	}
	all := func(what string, pattern *regexp.Regexp, list []string) error {
		for _, text := range list {
			if !pattern.MatchString(text) {
				return misused("such as arn:aws:iam::111122223333:role/path/name; the account is twelve digits or *", "%s: %q is not an ARN or a pattern of one", what, text)
			}
			if strings.Trim(text[strings.IndexByte(text, '/')+1:], "*?/") == "" {
				return misused("give them a path of their own, and name it", "%s: %q is every one there is", what, text)
			}
		}
		return nil
	}
	if err := all("roles", rolePattern, g.Roles); err != nil {
		return err
	}
	if err := all("breakGlass", rolePattern, g.BreakGlass.Roles); err != nil {
		return err
	}
	if err := all("administrators", principalARN, g.Administrators); err != nil {
		return err
	}
	if g.BreakGlass.Tag != "" {
		if key, value, ok := strings.Cut(g.BreakGlass.Tag, "="); !ok || value == "" || !tagKey.MatchString(key) {
			return misused("such as waybill-break-glass=open", "breakGlass.tag %q is not key=value", g.BreakGlass.Tag)
		}
	}
	if len(g.Close) == 0 {
		g.Close = DefaultClose
	}
	if !slices.Contains(g.Close, "inference") {
		return misused("add it, or there is nothing to guard", "close does not have inference")
	}
	if err := g.checkSurfaces("close", g.Close); err != nil {
		return err
	}
	for i := range g.Exceptions {
		x := &g.Exceptions[i]
		if len(x.Roles) == 0 {
			return misused("", "exception %d names no roles", i+1)
		}
		if err := all("exceptions", rolePattern, x.Roles); err != nil {
			return err
		}
		if len(x.Surfaces) == 0 {
			x.Surfaces = []string{"inference"}
		}
		if err := g.checkSurfaces("exceptions", x.Surfaces); err != nil {
			return err
		}
	}
	if g.Account == "" {
		g.Account = strings.Split(g.Roles[0], ":")[4]
	}
	if g.Account == "*" {
		g.Account = m[2]
	}
	if !accountID.MatchString(g.Account) {
		return misused("", "account %q is not twelve digits", g.Account)
	}
	seen := make(map[string]bool)
	for _, r := range g.Require {
		if folded := strings.ToLower(r.Key); !tagKey.MatchString(r.Key) || seen[folded] {
			return misused("tag keys are 1 to 128 letters, digits, spaces and _.:/=+@-, and case does not tell them apart", "require: key %q", r.Key)
		} else {
			seen[folded] = true
		}
		if slices.Contains(r.Values, "") {
			return misused("", "require: key %q takes an empty value, which is no owner", r.Key)
		}
	}
	for _, k := range g.AllowTags {
		if !tagKey.MatchString(k) {
			return misused("", "allowTags: key %q", k)
		}
	}
	for _, e := range g.VPCEndpoints {
		if !endpointID.MatchString(e) {
			return misused("", "vpcEndpoints: %q is not the id of an endpoint, such as vpce-0123456789abcdef0", e)
		}
	}
	for _, m := range g.Models {
		if !modelPattern.MatchString(m) {
			return misused("", "models: %q is not a model id or a pattern of one, such as anthropic.*", m)
		}
	}
	if g.TrustLimit == 0 {
		g.TrustLimit = iam.Trust.Limit().Default
	}
	if most := iam.Trust.Limit().Most; g.TrustLimit < 0 || g.TrustLimit > most {
		return misused("", "trustLimit %d: AWS raises the quota to %d at the most", g.TrustLimit, most)
	}
	if g.SCPs == 0 {
		g.SCPs = 4
	}
	return nil
}

func (g *Guard) checkSurfaces(what string, names []string) error {
	for _, n := range names {
		if _, ok := surface(n); !ok {
			var known []string
			for _, s := range Surfaces {
				known = append(known, s.Name)
			}
			return misused("one of: "+strings.Join(known, ", "), "%s: surface %q is not known", what, n)
		}
	}
	return nil
}

// Policies are a guard's documents, and what they leave open.
type Policies struct {
	Guard     Guard      `json:"guard"`
	Documents []Document `json:"documents"`
	Warnings  []string   `json:"warnings"`
}

// Write writes the policies of a guard. Every document is within AWS's limits, or there
// is an error that says what would have to go.
func (g Guard) Write() (*Policies, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	p := &Policies{Guard: g, Warnings: g.warnings()}
	scps, err := g.pack(g.controlStatements())
	if err != nil {
		return nil, err
	}
	p.Documents = scps
	for _, d := range []Document{
		{Name: "role-trust", Kind: iam.Trust, Why: "only the gateway becomes these roles, with tags that say whose call it is", Attach: "each of the gateway's Bedrock roles, as trust policy"},
		{Name: "role-permissions", Kind: iam.Identity, Why: "the roles call models and do nothing else, and not without their tags", Attach: "each of the gateway's Bedrock roles, as inline policy"},
		{Name: "vpc-endpoint", Kind: iam.Endpoint, Why: "the private way to Bedrock is for those who may call it", Attach: "the VPC endpoints of bedrock-runtime and bedrock-mantle"},
	} {
		limit := d.Kind.Limit().Default
		var statements []statement
		switch d.Kind {
		case iam.Trust:
			statements, limit = g.trustStatements(), g.TrustLimit
		case iam.Identity:
			statements = g.permissionStatements()
		default:
			statements = g.endpointStatements()
		}
		if err := d.fill(statements, limit); err != nil {
			return nil, err
		}
		if d.Size > limit {
			return nil, d.tooLarge(limit)
		}
		p.Documents = append(p.Documents, d)
	}
	for _, d := range p.Documents { // what we write, a strict reader takes
		if _, err := iam.Parse(d.Name, d.Kind, d.JSON); err != nil {
			return nil, fmt.Errorf("write the guard: %w", err)
		}
	}
	return p, nil
}

func (d *Document) fill(statements []statement, limit int) error {
	d.Policy = policySource{"2012-10-17", statements}
	b, err := plainJSON(d.Policy)
	if err != nil {
		return fmt.Errorf("write %s: %w", d.Name, err)
	}
	d.JSON, d.Size, d.Limit = b, iam.Size(d.Kind, b), limit
	d.Statements = nil
	for _, s := range statements {
		d.Statements = append(d.Statements, Explained{s.Sid, s.why})
	}
	return nil
}

func (d *Document) tooLarge(limit int) error {
	hint := "say more with fewer patterns: a path that the roles share"
	if d.Kind == iam.Trust {
		hint = "name fewer required tags and values, or have the quota raised and set trustLimit (4096 at the most)"
	}
	return misused(hint, "%s: the %s would have %d characters, and AWS takes %d", d.Name, d.Kind, d.Size, limit)
}

// passes is the condition that a caller is none of those who may pass a surface.
func (g *Guard) passes(name string) map[string]map[string]texts {
	var arns texts
	if slices.Contains(gatewaySurfaces, name) {
		arns = append(arns, g.Roles...)
	}
	for _, x := range g.Exceptions {
		if slices.Contains(x.Surfaces, name) {
			arns = append(arns, x.Roles...)
		}
	}
	arns = append(arns, g.BreakGlass.Roles...)
	slices.Sort(arns)
	c := make(map[string]map[string]texts)
	if len(arns) > 0 {
		c["ArnNotLike"] = map[string]texts{"aws:PrincipalArn": slices.Compact(arns)}
	}
	if key, value, ok := strings.Cut(g.BreakGlass.Tag, "="); ok {
		// Without the tag the negated operator holds, and the deny stands.
		c["StringNotEquals"] = map[string]texts{"aws:PrincipalTag/" + key: {value}}
	}
	return c
}

// controlStatements are those of the service control policies. There is nothing about AWS
// services and service-linked roles in them: service control policies do not reach those.
func (g *Guard) controlStatements() []statement {
	var out []statement
	same := make(map[string]int) // surfaces that the same callers may pass are one statement
	for _, s := range Surfaces {
		if !slices.Contains(g.Close, s.Name) {
			continue
		}
		c := g.passes(s.Name)
		key, _ := plainJSON(c)
		if i, ok := same[string(key)]; ok {
			out[i].Action = append(out[i].Action, s.Actions...)
			out[i].why += ", " + s.Name
			continue
		}
		same[string(key)] = len(out)
		sid := "WaybillOnlyGateway"
		if len(out) > 0 {
			sid = "WaybillClosed"
			if len(out) > 1 {
				sid += sidName(s.Name)
			}
		}
		out = append(out, statement{Sid: sid, Effect: "Deny", Action: slices.Clone(s.Actions), Resource: texts{"*"}, Condition: c,
			why: "closed but to those who are named: " + s.Name})
	}
	out = append(out, statement{Sid: "WaybillNoKeys", Effect: "Deny", Action: bearerActions, Resource: texts{"*"},
		why: "a Bedrock API key goes past the gateway; short-term ones can be made by anybody offline, so their use is denied, for everybody"},
		statement{Sid: "WaybillNoNewKeys", Effect: "Deny", Action: texts{"iam:CreateServiceSpecificCredential"}, Resource: texts{"*"},
			Condition: map[string]map[string]texts{"StringEquals": {"iam:ServiceSpecificCredentialServiceName": {"bedrock.amazonaws.com"}}},
			why:       "no long-term Bedrock API key is made; keys of other services are left alone"})
	if len(g.Administrators) == 0 {
		return out
	}
	notAdmin := map[string]texts{"aws:PrincipalArn": slices.Sorted(slices.Values(g.Administrators))}
	ours := append(g.passing(), g.Gateway)
	slices.Sort(ours)
	handed := append(slices.Clone(g.BreakGlass.Roles), g.Gateway)
	slices.Sort(handed)
	out = append(out, statement{Sid: "WaybillRolesAreOurs", Effect: "Deny", Action: roleChanges, Resource: slices.Compact(ours),
		Condition: map[string]map[string]texts{"ArnNotLike": notAdmin},
		why:       "whoever could make or change the gateway's role, or one that may pass, could pass: only administrators do"},
		// The roles of exceptions are there to be passed to a service, and the gateway's Bedrock
		// roles trust none.
		statement{Sid: "WaybillGatewayIsOurs", Effect: "Deny", Action: texts{"iam:PassRole"}, Resource: slices.Compact(handed),
			Condition: map[string]map[string]texts{"ArnNotLike": notAdmin},
			why:       "whoever could hand the gateway's role to a machine or function of theirs could call as the gateway: only administrators do"})
	if key, _, ok := strings.Cut(g.BreakGlass.Tag, "="); ok {
		// Case does not tell the keys of principal tags apart, but it does tell the values
		// of aws:TagKeys apart.
		out = append(out, statement{Sid: "WaybillGlassIsOurs", Effect: "Deny", Action: tagGrants, Resource: texts{"*"},
			Condition: map[string]map[string]texts{"ArnNotLike": notAdmin, "ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": {key}}},
			why:       "whoever could give the break-glass tag could pass: only administrators do"})
	}
	return out
}

// passing are the roles that may pass on some surface, gateway or not.
func (g *Guard) passing() []string {
	out := slices.Concat(g.Roles, g.BreakGlass.Roles)
	for _, x := range g.Exceptions {
		out = append(out, x.Roles...)
	}
	return out
}

var (
	roleChanges = texts{"iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRolePermissionsBoundary", "iam:DeleteRolePolicy", "iam:DetachRolePolicy",
		"iam:PutRolePermissionsBoundary", "iam:PutRolePolicy", "iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy"}
	tagGrants = texts{"iam:CreateRole", "iam:CreateUser", "iam:TagRole", "iam:TagUser", "sts:TagSession"}
)

func sidName(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "-") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// pack puts statements into as few service control policies as they fit in. A statement
// that is too long is cut by its actions; its callers cannot be: each of two denies would
// deny the callers of the other.
func (g *Guard) pack(statements []statement) ([]Document, error) {
	limit := iam.ServiceControl.Limit().Default
	document := func(n int) Document {
		d := Document{Name: "scp", Kind: iam.ServiceControl, Why: "nobody but the gateway reaches Bedrock", Attach: "the root of the organization, an organizational unit or an account, beside FullAWSAccess"}
		if n > 0 {
			d.Name = fmt.Sprintf("scp-%d", n+1)
		}
		return d
	}
	var out []Document
	var open []statement
	var current Document
	for len(statements) > 0 {
		try := document(len(out))
		if err := try.fill(append(slices.Clone(open), statements[0]), limit); err != nil {
			return nil, err
		}
		switch {
		case try.Size <= limit:
			open, current, statements = append(open, statements[0]), try, statements[1:]
		case len(open) > 0:
			out, open = append(out, current), nil
		default:
			s := statements[0]
			n := len(s.Action)
			if n == 1 {
				return nil, misused("a service control policy cannot be split by callers: give the roles a path in common, such as role/waybill/*, or break glass by a tag",
					"the list of those who may pass makes statement %s %d characters long, and AWS takes %d", s.Sid, try.Size, limit)
			}
			first, second := s, s
			first.Action, second.Action = s.Action[:n/2], s.Action[n/2:]
			first.Sid, second.Sid = s.Sid+"A", s.Sid+"B"
			statements = append([]statement{first, second}, statements[1:]...)
		}
	}
	if len(open) > 0 {
		out = append(out, current)
	}
	if len(out) > g.SCPs {
		return nil, misused("name fewer roles or say more with one pattern; or attach some higher up, and set scps", "the guard would take %d service control policies, and %d can be attached to one target", len(out), g.SCPs)
	}
	return out, nil
}

func (g *Guard) partition() string { return strings.Split(g.Gateway, ":")[1] }

// required is what a condition demands of tags under a prefix: operators and keys.
func (g *Guard) required(prefix string) map[string]map[string]texts {
	c := make(map[string]map[string]texts)
	put := func(operator, key string, values texts) {
		if c[operator] == nil {
			c[operator] = make(map[string]texts)
		}
		c[operator][prefix+key] = values
	}
	for _, r := range g.Require {
		if len(r.Values) > 0 {
			put("StringEquals", r.Key, slices.Sorted(slices.Values(r.Values)))
		} else {
			put("StringLike", r.Key, texts{"?*"}) // an empty value is no owner
		}
	}
	return c
}

func (g *Guard) trustStatements() []statement {
	gateway := map[string]texts{"AWS": {g.Gateway}}
	assume := statement{Sid: "WaybillGatewayAssumes", Effect: "Allow", Principal: gateway, Action: texts{"sts:AssumeRole"}, Condition: g.required("aws:RequestTag/"),
		why: "only the gateway becomes this role, and names the owner of the calls as it does"}
	if g.ExternalID != "" {
		if assume.Condition["StringEquals"] == nil {
			assume.Condition["StringEquals"] = make(map[string]texts)
		}
		assume.Condition["StringEquals"]["sts:ExternalId"] = texts{g.ExternalID}
	}
	tag := statement{Sid: "WaybillGatewayTags", Effect: "Allow", Principal: gateway, Action: texts{"sts:TagSession"},
		why: "session tags are what AWS bills by; without this permission AssumeRole with tags fails"}
	if g.AllowTags != nil {
		tag.why += "; no other keys"
		tag.Condition = map[string]map[string]texts{"ForAllValues:StringEquals": {"aws:TagKeys": g.tagKeys()}}
	}
	out := []statement{assume, tag}
	if g.SourceIdentity {
		out = append(out, statement{Sid: "WaybillGatewayNames", Effect: "Allow", Principal: gateway, Action: texts{"sts:SetSourceIdentity"},
			why: "the source identity follows the session through CloudTrail"})
	}
	return out
}

// tagKeys are the keys that sessions may have.
func (g *Guard) tagKeys() texts {
	keys := slices.Clone(g.AllowTags)
	for _, r := range g.Require {
		keys = append(keys, r.Key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (g *Guard) permissionStatements() []statement {
	arn := func(service, account, resource string) string {
		return fmt.Sprintf("arn:%s:%s:*:%s:%s", g.partition(), service, account, resource)
	}
	models, profiles := texts{arn("bedrock", "", "foundation-model/*")}, texts{arn("bedrock", g.Account, "inference-profile/*")}
	if len(g.Models) > 0 {
		models, profiles = nil, nil
		for _, m := range g.Models {
			models = append(models, arn("bedrock", "", "foundation-model/"+m))
			profiles = append(profiles, arn("bedrock", g.Account, "inference-profile/*."+m))
		}
	}
	resources := slices.Concat(models, profiles, texts{arn("bedrock", g.Account, "application-inference-profile/*"), arn("bedrock", g.Account, "project/default")})
	out := []statement{
		{Sid: "WaybillRuntime", Effect: "Allow", Action: gatewayRuntime, Resource: resources,
			why: "models on bedrock-runtime: a profile needs the right on itself, on the models behind it, and for some calls on the default project"},
		{Sid: "WaybillStored", Effect: "Allow", Action: gatewayStored, Resource: texts{arn("bedrock", g.Account, "project/default")},
			why: "stored responses on bedrock-runtime are read, cancelled and deleted on the project"},
		{Sid: "WaybillMantle", Effect: "Allow", Action: gatewayMantle, Resource: texts{arn("bedrock-mantle", g.Account, "project/*")}, Condition: g.mantleModels(),
			why: "models on bedrock-mantle, which authorizes on the project"},
		{Sid: "WaybillMantleStored", Effect: "Allow", Action: mantleStored, Resource: texts{arn("bedrock-mantle", g.Account, "project/*")},
			why: "stored responses on bedrock-mantle"},
		{Sid: "WaybillGuardrails", Effect: "Allow", Action: gatewayGuards, Resource: texts{arn("bedrock", g.Account, "guardrail/*")},
			why: "a call that names a guardrail needs the right to apply it"},
		{Sid: "WaybillReads", Effect: "Allow", Action: gatewayReads, Resource: texts{"*"}, why: "counting tokens and listing models cost nothing"},
	}
	spending := texts{"bedrock:InvokeModel*", "bedrock:Rerank", "bedrock-mantle:CreateInference"}
	for i, r := range g.Require {
		c := map[string]map[string]texts{"StringNotLike": {"aws:PrincipalTag/" + r.Key: {"?*"}}}
		if len(r.Values) > 0 {
			c = map[string]map[string]texts{"StringNotEquals": {"aws:PrincipalTag/" + r.Key: slices.Sorted(slices.Values(r.Values))}}
		}
		// One statement a key: keys of one condition are a conjunction, and would deny only
		// the session that lacks them all.
		out = append(out, statement{Sid: fmt.Sprintf("WaybillTagged%d", i+1), Effect: "Deny", Action: spending, Resource: texts{"*"}, Condition: c,
			why: "no tag " + r.Key + ", no call: whatever other policy the role is given"})
	}
	if len(g.VPCEndpoints) > 0 {
		out = append(out, statement{Sid: "WaybillPrivateWay", Effect: "Deny", Action: spending, Resource: texts{"*"},
			Condition: map[string]map[string]texts{"StringNotEquals": {"aws:SourceVpce": slices.Sorted(slices.Values(g.VPCEndpoints))}},
			why:       "credentials that leave the network are of no use elsewhere"})
	}
	return out
}

// mantleModels restricts models on bedrock-mantle, where they are a condition key and no
// resource.
func (g *Guard) mantleModels() map[string]map[string]texts {
	if len(g.Models) == 0 {
		return nil
	}
	return map[string]map[string]texts{"StringLike": {"bedrock-mantle:Model": slices.Clone(g.Models)}}
}

func (g *Guard) endpointStatements() []statement {
	arns := slices.Concat(g.Roles, g.BreakGlass.Roles)
	for _, x := range g.Exceptions {
		if slices.Contains(x.Surfaces, "inference") {
			arns = append(arns, x.Roles...)
		}
	}
	slices.Sort(arns)
	actions := slices.Clone(gatewayActions)
	out := []statement{{Sid: "WaybillThroughHere", Effect: "Allow", Principal: "*", Action: actions, Resource: texts{"*"},
		Condition: map[string]map[string]texts{"ArnLike": {"aws:PrincipalArn": slices.Compact(arns)}},
		why:       "the gateway's roles and those who are named may use the endpoint; it is shut to everybody else"}}
	if key, value, ok := strings.Cut(g.BreakGlass.Tag, "="); ok {
		out = append(out, statement{Sid: "WaybillGlassThroughHere", Effect: "Allow", Principal: "*", Action: actions, Resource: texts{"*"},
			Condition: map[string]map[string]texts{"StringEquals": {"aws:PrincipalTag/" + key: {value}}}, why: "and whoever breaks the glass"})
	}
	return out
}

// warnings say what the policies leave open.
func (g *Guard) warnings() []string {
	var out []string
	if len(g.Administrators) == 0 {
		out = append(out, "no administrators are named: whoever may create or change a role that matches "+strings.Join(g.passing(), ", ")+" can pass, and so can whoever may change "+g.Gateway+" or pass it to a service")
		if g.BreakGlass.Tag != "" {
			out = append(out, "and whoever may tag a user, a role or a session with "+g.BreakGlass.Tag+" can pass")
		}
	}
	if g.BreakGlass.Tag != "" {
		out = append(out, "an identity provider that sends session tags could send "+g.BreakGlass.Tag+": a service control policy does not see that sign-in; forbid the tag there")
	}
	out = append(out,
		"service control policies do not reach the organization's management account, service-linked roles, and AWS services that act as themselves: call no models from there",
		"Claude Platform on AWS and models bought outside Bedrock have other endpoints and other IAM prefixes: no policy here speaks of them")
	if matchesAny(g.Roles, g.Gateway) {
		out = append(out, "the role that the gateway runs as matches roles as well: what calls under it directly passes, with no tags of a session; give the others a path or a name of their own")
	}
	if anywhere := slices.DeleteFunc(g.passing(), func(arn string) bool { return strings.Split(arn, ":")[4] != "*" }); len(anywhere) > 0 {
		out = append(out, "the endpoint policy lets in roles of any account in the world that match "+strings.Join(anywhere, ", ")+": write the account where you can")
	}
	if len(g.Require) == 0 {
		out = append(out, "no session tags are required: calls may come without an owner")
	}
	var open []string
	for _, s := range Surfaces {
		if !slices.Contains(g.Close, s.Name) {
			open = append(open, s.Name)
		}
	}
	if len(open) > 0 {
		out = append(out, "left open: "+strings.Join(open, ", ")+"; to close them, name them too")
	}
	return out
}
