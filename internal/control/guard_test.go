package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
	"go.yaml.in/yaml/v4"

	"github.com/waybill-dev/waybill/internal/iam"
)

// guards are what is proven: from the least that can be asked for to everything at once.
func guards() map[string]Guard {
	const gateway, roles = "arn:aws:iam::111122223333:role/waybill/gateway", "arn:aws:iam::111122223333:role/waybill/bedrock"
	return map[string]Guard{
		"least": {Gateway: gateway, Roles: []string{roles}},
		"pattern": {Gateway: gateway, Roles: []string{"arn:aws:iam::*:role/waybill/bedrock-*"}, Account: "111122223333",
			Require: []Required{{Key: "team"}, {Key: "environment", Values: []string{"production", "staging"}}}},
		"everything": {Gateway: gateway, Roles: []string{roles, "arn:aws:iam::111122223333:role/waybill/bedrock-?"},
			Close:          []string{"inference", "batch", "agents", "flows", "knowledge-bases", "guardrails", "data-automation", "training"},
			BreakGlass:     BreakGlass{Roles: []string{"arn:aws:iam::*:role/break-glass"}, Tag: "break-glass=open"},
			Exceptions:     []Exception{{Roles: []string{"arn:aws:iam::*:role/service-role/AmazonBedrockExecutionRoleForAgents_*"}, Why: "agents"}, {Roles: []string{"arn:aws:iam::111122223333:role/batch"}, Surfaces: []string{"batch", "inference"}}},
			Administrators: []string{"arn:aws:iam::*:role/platform", "arn:aws:iam::111122223333:user/root-ops"},
			Require:        []Required{{Key: "team"}, {Key: "costCenter"}, {Key: "environment", Values: []string{"production", "staging"}}},
			AllowTags:      []string{"user"}, SourceIdentity: true, ExternalID: "wb-1", Models: []string{"anthropic.*", "amazon.nova-?*"},
			VPCEndpoints: []string{"vpce-0123456789abcdef0", "vpce-0123456789abcdef1"}},
		"govcloud": {Gateway: "arn:aws-us-gov:iam::111122223333:role/gw", Roles: []string{"arn:aws-us-gov:iam::111122223333:role/bedrock"}, BreakGlass: BreakGlass{Tag: "glass=open"}},
	}
}

// The guard's claim, held against at least 5,000 generated requests for each guard: the
// gateway passes, everybody else is denied, nothing else changes.
func TestProof(t *testing.T) {
	for name, g := range guards() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := g.Write()
			if err != nil {
				t.Fatal(err)
			}
			proof, err := p.Prove(ProofOptions{Requests: 6_000, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			if proof.Requests < 5_000 || len(proof.Layers) != 3 {
				t.Errorf("asked %d requests of %d layers", proof.Requests, len(proof.Layers))
			}
			for _, l := range proof.Layers {
				if l.Pass == 0 || l.Deny == 0 {
					t.Errorf("%+v: a layer of which everything is expected to pass, or nothing, is not proven", l)
				}
			}
			for _, f := range proof.Failures {
				b, _ := json.Marshal(f)
				t.Errorf("%s", b)
			}
		})
	}
}

// A proof is the same on every machine.
func TestProofIsDeterministic(t *testing.T) {
	g := guards()["pattern"]
	p, err := g.Write()
	if err != nil {
		t.Fatal(err)
	}
	p.Documents[0].JSON = []byte(strings.Replace(string(p.Documents[0].JSON), "ArnNotLike", "ArnLike", 1))
	var before string
	for range 2 {
		proof, err := p.Prove(ProofOptions{Requests: 5_000, Seed: 7})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(proof)
		if before != "" && before != string(b) {
			t.Error("two proofs of one guard differ")
		}
		before = string(b)
	}
}

// Nothing in the policies is superfluous, and nothing can be lost unseen: whatever is
// dropped or turned round is caught by the proof.
func TestMutantsAreCaught(t *testing.T) {
	for _, name := range []string{"pattern", "everything"} {
		g := guards()[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := g.Write()
			if err != nil {
				t.Fatal(err)
			}
			v, err := p.read()
			if err != nil {
				t.Fatal(err)
			}
			requests := v.requests(1, 5_000)
			n := 0
			for _, d := range p.Documents {
				var asked []scenario // those that the document has a say in
				for _, s := range requests {
					if s.layer == map[iam.Kind]layer{iam.ServiceControl: byControl, iam.Endpoint: byEndpoint, iam.Trust: byTrust}[d.Kind] || d.Kind == iam.Identity && s.class.ownRole {
						asked = append(asked, s)
					}
				}
				for what, mutant := range mutants(t, d) {
					if n++; raced && n%10 != 0 {
						continue
					}
					doc, err := iam.Parse(d.Name, d.Kind, mutant)
					if err != nil {
						continue // AWS would refuse it
					}
					if !v.with(doc).catches(asked) {
						t.Errorf("%s: %s survives\n%s", d.Name, what, mutant)
					}
				}
			}
			if n < 30 {
				t.Errorf("only %d mutants", n)
			}
		})
	}
}

// with is the prover with one document put in the place of the one of its name.
func (v *prover) with(doc *iam.Policy) *prover {
	w := *v
	w.scps = slices.Clone(v.scps)
	switch doc.Kind {
	case iam.Trust:
		w.trust = doc
	case iam.Identity:
		w.role = doc
	case iam.Endpoint:
		w.endpoint = doc
	default:
		w.scps[slices.IndexFunc(v.scps, func(p *iam.Policy) bool { return p.Name == doc.Name })] = doc
	}
	return &w
}

// catches reports whether one of the requests comes out wrong. The one that does is asked
// first the next time.
func (v *prover) catches(asked []scenario) bool {
	for i := range asked {
		if wrong, err := v.wrong(&asked[i]); wrong || err != nil {
			asked[0], asked[i] = asked[i], asked[0]
			return true
		}
	}
	return false
}

// mutants are the document with one thing changed.
func mutants(t *testing.T, d Document) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	fresh := func() (map[string]any, []any) {
		var m map[string]any
		if err := json.Unmarshal(d.JSON, &m); err != nil {
			t.Fatal(err)
		}
		return m, m["Statement"].([]any)
	}
	keep := func(what string, m map[string]any) {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out[what] = b
	}
	_, statements := fresh()
	for i, s := range statements {
		s := s.(map[string]any)
		sid := fmt.Sprint(s["Sid"])
		each := func(what string, change func(s map[string]any)) {
			m, list := fresh()
			change(list[i].(map[string]any))
			keep(sid+": "+what, m)
		}
		if len(statements) > 1 {
			m, list := fresh()
			m["Statement"] = append(append([]any{}, list[:i]...), list[i+1:]...)
			keep(sid+" dropped", m)
		}
		each("effect turned round", func(s map[string]any) {
			s["Effect"] = map[any]string{"Allow": "Deny", "Deny": "Allow"}[s["Effect"]]
		})
		if s["Effect"] == "Allow" { // a deny that says more is caught where it says too much
			if s["Principal"] != nil && s["Principal"] != "*" {
				each("Principal widened to everybody", func(s map[string]any) { s["Principal"] = "*" })
				each("Principal widened to the account", func(s map[string]any) {
					arn := s["Principal"].(map[string]any)["AWS"].(string)
					s["Principal"] = map[string]any{"AWS": strings.Split(arn, ":")[4]}
				})
			}
		}
		if sid != "WaybillNoNewKeys" && (sid != "WaybillMantle" || s["Condition"] == nil) { // no other action that is open has their condition keys
			each("Action widened", func(s map[string]any) { s["Action"] = "*" })
		}
		if s["Resource"] != nil && s["Resource"] != "*" {
			each("Resource widened", func(s map[string]any) { s["Resource"] = "*" })
		}
		for _, element := range []string{"Action", "Resource"} {
			if list, ok := s[element].([]any); ok {
				for j, v := range list {
					each(fmt.Sprintf("%s %v dropped", element, v), func(s map[string]any) {
						l := s[element].([]any)
						s[element] = append(append([]any{}, l[:j]...), l[j+1:]...)
					})
				}
			}
		}
		conditions, _ := s["Condition"].(map[string]any)
		for operator, keys := range conditions {
			each("operator "+operator+" dropped", func(s map[string]any) { delete(s["Condition"].(map[string]any), operator) })
			if turned := turnRound(operator); turned != "" {
				each("operator "+operator+" turned round", func(s map[string]any) {
					c := s["Condition"].(map[string]any)
					c[turned] = c[operator]
					delete(c, operator)
				})
			}
			if !strings.Contains(operator, "Not") && !strings.HasPrefix(operator, "ForA") && sid != "WaybillNoNewKeys" && operator != "ArnLike" { // keys that are always there
				each("operator "+operator+" made IfExists", func(s map[string]any) {
					c := s["Condition"].(map[string]any)
					c[operator+"IfExists"] = c[operator]
					delete(c, operator)
				})
			}
			for key, values := range keys.(map[string]any) {
				each("values of "+key+" of "+operator+" widened", func(s map[string]any) {
					wide := "*"
					if strings.HasPrefix(operator, "Arn") {
						wide = "arn:*:*:*:*:*"
					}
					s["Condition"].(map[string]any)[operator].(map[string]any)[key] = wide
				})
				each("key "+key+" of "+operator+" dropped", func(s map[string]any) {
					k := s["Condition"].(map[string]any)[operator].(map[string]any)
					if delete(k, key); len(k) == 0 {
						delete(s["Condition"].(map[string]any), operator)
					}
				})
				list, _ := values.([]any)
				for j, v := range list {
					each(fmt.Sprintf("value %v of %s dropped", v, key), func(s map[string]any) {
						k := s["Condition"].(map[string]any)[operator].(map[string]any)
						l := k[key].([]any)
						k[key] = append(append([]any{}, l[:j]...), l[j+1:]...)
					})
				}
			}
		}
	}
	return out
}

func turnRound(operator string) string {
	set, name, ok := strings.Cut(operator, ":")
	if !ok {
		set, name = "", operator
	} else {
		set += ":"
	}
	for _, base := range []string{"Arn", "String"} {
		if rest, ok := strings.CutPrefix(name, base+"Not"); ok {
			return set + base + rest
		}
		if rest, ok := strings.CutPrefix(name, base); ok {
			return set + base + "Not" + rest
		}
	}
	return ""
}

// Golden files are what is written for each guard, in each format.
func TestGolden(t *testing.T) {
	for name, g := range guards() {
		t.Run(name, func(t *testing.T) {
			p, err := g.Write()
			if err != nil {
				t.Fatal(err)
			}
			var all bytes.Buffer
			for _, d := range p.Documents {
				fmt.Fprintf(&all, "# %s: %d of %d characters\n", d.Name, d.Size, d.Limit)
				if err := json.Indent(&all, d.JSON, "", "  "); err != nil {
					t.Fatal(err)
				}
				all.WriteString("\n")
			}
			for _, w := range p.Warnings {
				fmt.Fprintln(&all, "warning:", w)
			}
			golden(t, "testdata/guard/"+name+".txt", all.Bytes())
			tf, err := p.Terraform()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/guard/"+name+".tf", tf)
			cf, err := p.CloudFormation()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/guard/"+name+".yaml", cf)
			holdsSamePolicies(t, p, cf)
		})
	}
}

// holdsSamePolicies reads a CloudFormation template and finds every policy in it again.
func holdsSamePolicies(t *testing.T, p *Policies, template []byte) {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal(template, &root); err != nil {
		t.Fatalf("the template is not YAML: %v", err)
	}
	var found []string
	var visit func(n *yaml.Node)
	visit = func(n *yaml.Node) {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if name := n.Content[i].Value; name == "Content" || strings.HasSuffix(name, "Document") {
				var v any
				if err := n.Content[i+1].Decode(&v); err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				found = append(found, string(b))
			}
		}
		for _, c := range n.Content {
			visit(c)
		}
	}
	visit(&root)
	for _, d := range p.Documents {
		var v any
		if err := json.Unmarshal(d.JSON, &v); err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(v)
		if !slices.Contains(found, string(b)) {
			t.Errorf("the template does not hold %s", d.Name)
		}
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if os.Getenv("WAYBILL_UPDATE") != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff("want", want, "got", got); len(d) > 0 {
		t.Errorf("%s\n%s", file, d)
	}
}

// What does not fit is cut into several policies; what cannot be cut is refused with the
// reason, and what was cut is proven as a whole.
func TestLimits(t *testing.T) {
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("arn:aws:iam::111122223333:role/departments/%02d/bedrock", i))
		}
		return out
	}
	base := guards()["least"]
	t.Run("cut", func(t *testing.T) {
		g := base
		g.BreakGlass.Roles = many(62)
		g.Exceptions = []Exception{{Roles: []string{"arn:aws:iam::111122223333:role/agents"}, Surfaces: []string{"agents"}}}
		p, err := g.Write()
		if err != nil {
			t.Fatal(err)
		}
		scps := 0
		for _, d := range p.Documents {
			if d.Size > d.Limit {
				t.Errorf("%s has %d of %d characters", d.Name, d.Size, d.Limit)
			}
			if d.Kind == iam.ServiceControl {
				scps++
			}
		}
		if scps != 3 {
			t.Errorf("%d service control policies", scps)
		}
		proof, err := p.Prove(ProofOptions{Requests: 5_000, Seed: 2})
		if err != nil || len(proof.Failures) > 0 {
			t.Errorf("%v, %+v", err, proof.Failures)
		}
	})
	t.Run("no statement is that long", func(t *testing.T) {
		g := base
		g.BreakGlass.Roles = many(100)
		_, err := g.Write()
		if err == nil || !strings.Contains(err.Error(), "AWS takes 5120") {
			t.Error(err)
		}
	})
	t.Run("too many policies", func(t *testing.T) {
		g := base
		g.BreakGlass.Roles, g.SCPs = many(62), 1
		g.Exceptions = []Exception{{Roles: []string{"arn:aws:iam::111122223333:role/agents"}, Surfaces: []string{"agents"}}}
		_, err := g.Write()
		if err == nil || !strings.Contains(err.Error(), "3 service control policies, and 1 can be attached") {
			t.Error(err)
		}
	})
	t.Run("trust policy", func(t *testing.T) {
		g := base
		for i := range 60 {
			g.AllowTags = append(g.AllowTags, fmt.Sprintf("a-rather-long-tag-key-of-number-%02d", i))
		}
		_, err := g.Write()
		if err == nil || !strings.Contains(err.Error(), "AWS takes 2048") {
			t.Error(err)
		}
		g.TrustLimit = 4096
		if _, err := g.Write(); err != nil {
			t.Error(err)
		}
	})
}

// What cannot be a guard is refused before anything is written.
func TestMistakenGuards(t *testing.T) {
	base := guards()["least"]
	for want, change := range map[string]func(*Guard){
		"gateway is missing":       func(g *Guard) { g.Gateway = "" },
		"is not the ARN of a role": func(g *Guard) { g.Gateway = "arn:aws:iam::111122223333:role/*" },
		"roles is empty":           func(g *Guard) { g.Roles = nil },
		"is every one there is":    func(g *Guard) { g.Roles = []string{"arn:aws:iam::*:role/?*"} },
		"/*/*\" is every one":      func(g *Guard) { g.BreakGlass.Roles = []string{"arn:aws:iam::*:role/*/*"} },
		"user/*\" is every one":    func(g *Guard) { g.Administrators = []string{"arn:aws:iam::*:user/*"} },
		"not an ARN or a pattern":  func(g *Guard) { g.BreakGlass.Roles = []string{"ops"} },
		"is not key=value":         func(g *Guard) { g.BreakGlass.Tag = "open" },
		"does not have inference":  func(g *Guard) { g.Close = []string{"batch"} },
		`surface "sorcery"`:        func(g *Guard) { g.Close = []string{"inference", "sorcery"} },
		"names no roles":           func(g *Guard) { g.Exceptions = []Exception{{}} },
		"is not twelve digits":     func(g *Guard) { g.Account = "12" },
		`require: key "Team"`:      func(g *Guard) { g.Require = []Required{{Key: "team"}, {Key: "Team"}} },
		"which is no owner":        func(g *Guard) { g.Require = []Required{{Key: "team", Values: []string{""}}} },
		"is not the id of an":      func(g *Guard) { g.VPCEndpoints = []string{"vpc-1"} },
		"is not a model id":        func(g *Guard) { g.Models = []string{"a b"} },
		"raises the quota to 4096": func(g *Guard) { g.TrustLimit = 9000 },
	} {
		g := base
		change(&g)
		if _, err := g.Write(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// A counter-example is shown with nothing in it that makes no difference.
func TestCounterExampleIsSmall(t *testing.T) {
	p, err := guards()["pattern"].Write()
	if err != nil {
		t.Fatal(err)
	}
	// The classic gap: a policy that forgets the other endpoint's prefix.
	p.Documents[0].JSON = []byte(strings.Replace(string(p.Documents[0].JSON), `,"bedrock-mantle:CreateInference"`, "", 1))
	proof, err := p.Prove(ProofOptions{Requests: 5_000, Seed: 1})
	if err != nil || len(proof.Failures) == 0 {
		t.Fatalf("%v, %+v", err, proof)
	}
	for _, f := range proof.Failures {
		r := f.Request
		if r.Action != "bedrock-mantle:CreateInference" || r.Resource != "*" || len(r.Context) > 0 || len(r.Caller.Tags) > 0 || f.Want != "deny" || f.Got != "allowed" {
			t.Errorf("%+v", f)
		}
	}
}

// A policy may hang on what generated requests do not have: then nothing is proven, and it
// is not guessed that AWS would not have it either.
func TestProofDoesNotGuess(t *testing.T) {
	p, err := guards()["pattern"].Write()
	if err != nil {
		t.Fatal(err)
	}
	p.Documents[0].JSON = []byte(strings.Replace(string(p.Documents[0].JSON), `{"ArnNotLike":`, `{"StringNotEquals":{"aws:PrincipalOrgID":"o-ours"},"ArnNotLike":`, 1))
	proof, err := p.Prove(ProofOptions{Requests: 5_000, Seed: 1})
	if err != nil || len(proof.Failures) == 0 {
		t.Fatalf("%v, %+v", err, proof)
	}
	for _, f := range proof.Failures {
		if f.Got != string(iam.Undecided) || !slices.Equal(f.Missing, []string{"aws:principalorgid"}) {
			t.Errorf("%+v", f)
		}
	}
}
