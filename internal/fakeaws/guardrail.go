package fakeaws

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// A Guardrail is one that an account has made.
type Guardrail struct {
	Account, Region string
	ID              string
	Versions        []string // besides DRAFT
	Blocked         []string // words that it intervenes on
	Message         string   // what it then answers
}

// ARN names a guardrail.
func (g *Guardrail) ARN() string {
	return "arn:aws:bedrock:" + g.Region + ":" + g.Account + ":guardrail/" + g.ID
}

// finds is the first of the words that stands in a text, or empty.
func (g *Guardrail) finds(text string) string {
	for _, w := range g.Blocked {
		if strings.Contains(strings.ToLower(text), strings.ToLower(w)) {
			return w
		}
	}
	return ""
}

func (x *exchange) guardrail(id, version string) *Guardrail {
	for i := range x.w.config.Guardrails {
		g := &x.w.config.Guardrails[i]
		if g.Account == x.call.Account && g.Region == x.call.Region && (id == g.ID || id == g.ARN()) && (version == "DRAFT" || slices.Contains(g.Versions, version)) {
			return g
		}
	}
	return nil
}

// guardrailRoute finds the operation on guardrails that a path leads to.
func guardrailRoute(method, path string) (route, bool) {
	if path == "/guardrail-checks/invoke" && method == http.MethodPost {
		return route{operation: "InvokeGuardrailChecks", admit: (*exchange).admitChecks}, true
	}
	parts := strings.Split(path, "/")
	if n := len(parts); n < 6 || parts[1] != "guardrail" || parts[n-3] != "version" || parts[n-1] != "apply" || method != http.MethodPost {
		return route{}, false
	}
	rest := strings.TrimSuffix(strings.TrimPrefix(path, "/guardrail/"), "/apply")
	return route{operation: "ApplyGuardrail", id: rest, admit: (*exchange).admitGuardrail}, true
}

var (
	guardrailID      = regexp.MustCompile(`^([a-z0-9]+|arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:guardrail/[a-z0-9]+)$`)
	guardrailVersion = regexp.MustCompile(`^([1-9][0-9]{0,7}|DRAFT)$`)
)

// served says whether this Region serves the caller.
func (x *exchange) served(action, resource string) *refusal {
	if x.cred.denyBedrock || !contains(x.w.config.Regions, x.call.Region) {
		return &refusal{403, "AccessDeniedException", "User: " + x.cred.arn + " is not authorized to perform: " + action + " on resource: " + resource}
	}
	return nil
}

// object reads a body of one of Bedrock's own operations.
func (x *exchange) object(known string) (map[string]json.RawMessage, *refusal) {
	var m map[string]json.RawMessage
	if len(x.body) > maxInvokeBody || json.Unmarshal(x.body, &m) != nil || m == nil || duplicateMember(x.body) {
		return nil, &refusal{400, "SerializationException", "Unable to parse the request body."}
	}
	for name := range m {
		if !contains(strings.Fields(known), name) {
			return nil, validation("extraneous key [%s] is not permitted", name)
		}
	}
	return m, nil
}

// units are what the policies of a guardrail count for a text and some pictures. Each of
// ours has all the policies that text is charged for, and grounding if it is asked for.
func units(characters int, pictures int64, grounding bool) map[string]int64 {
	n := textUnits(characters)
	u := map[string]int64{"topicPolicyUnits": n, "contentPolicyUnits": n, "wordPolicyUnits": n, "sensitiveInformationPolicyUnits": n,
		"sensitiveInformationPolicyFreeUnits": n, "contextualGroundingPolicyUnits": 0}
	if grounding {
		u["contextualGroundingPolicyUnits"] = n
	}
	if pictures > 0 {
		u["contentPolicyImageUnits"] = pictures
	}
	return u
}

// admitGuardrail takes a call of ApplyGuardrail.
func (x *exchange) admitGuardrail() (answer, *refusal) {
	escaped, version, _ := strings.Cut(x.route.id, "/version/")
	id, err := url.PathUnescape(escaped)
	if err != nil || !guardrailID.MatchString(id) || !guardrailVersion.MatchString(version) {
		return nil, validation("1 validation error detected: Value '%s' at 'guardrailIdentifier' failed to satisfy constraint: Member must satisfy regular expression pattern", id)
	}
	_, no := x.object("source content outputScope")
	if no = first(x.served("bedrock:ApplyGuardrail", id), no); no != nil {
		return nil, no
	}
	g := x.guardrail(id, version)
	if g == nil {
		return nil, &refusal{404, "ResourceNotFoundException", "The guardrail identifier or version provided in the request does not exist."}
	}
	var b struct {
		Source      string
		OutputScope string
		Content     []struct {
			Text *struct {
				Text       *string
				Qualifiers []string
			}
			Image *struct {
				Format string
				Source struct{ Bytes []byte }
			}
		}
	}
	if err := json.Unmarshal(x.body, &b); err != nil {
		return nil, validation("Malformed input request: %v", err)
	}
	if !contains([]string{"INPUT", "OUTPUT"}, b.Source) || b.Content == nil || !contains([]string{"", "INTERVENTIONS", "FULL"}, b.OutputScope) {
		return nil, validation("1 validation error detected: Value at 'source', 'content' or 'outputScope' failed to satisfy constraint: Member must not be null")
	}
	var text strings.Builder
	pictures, grounding := int64(0), false
	for _, c := range b.Content {
		switch {
		case (c.Text == nil) == (c.Image == nil) || c.Text != nil && c.Text.Text == nil:
			return nil, validation("1 validation error detected: Value at 'content' failed to satisfy constraint: exactly one of [text, image] must be set")
		case c.Image != nil:
			if !contains([]string{"png", "jpeg"}, c.Image.Format) || len(c.Image.Source.Bytes) == 0 {
				return nil, validation("1 validation error detected: Value at 'content.image' failed to satisfy constraint")
			}
			pictures++
			continue
		}
		text.WriteString(*c.Text.Text)
		for _, q := range c.Text.Qualifiers {
			if !contains([]string{"grounding_source", "query", "guard_content"}, q) {
				return nil, validation("1 validation error detected: Value '%s' at 'content.text.qualifiers' failed to satisfy constraint: Member must satisfy enum value set", q)
			}
			grounding = grounding || q == "grounding_source"
		}
	}
	return func(x *exchange) bool {
		x.call.Guardrail = units(len([]rune(text.String())), pictures, grounding)
		return x.json(g.apply(text.String(), x.call.Guardrail))
	}, nil
}

// assessment says what a guardrail found in a text.
func (g *Guardrail) assessment(word string, u map[string]int64) obj {
	a := obj{"invocationMetrics": obj{"guardrailProcessingLatency": 120, "usage": u}}
	if word != "" {
		a["wordPolicy"] = obj{"customWords": []any{obj{"match": word, "action": "BLOCKED", "detected": true}}, "managedWordLists": []any{}}
	}
	return a
}

func (g *Guardrail) apply(text string, u map[string]int64) obj {
	n := len([]rune(text))
	out := obj{"usage": u, "action": "NONE", "outputs": []any{}, "assessments": []any{g.assessment("", u)},
		"guardrailCoverage": obj{"textCharacters": obj{"guarded": n, "total": n}}}
	if word := g.finds(text); word != "" {
		out["action"], out["actionReason"] = "GUARDRAIL_INTERVENED", "Guardrail blocked."
		out["outputs"], out["assessments"] = []any{obj{"text": g.Message}}, []any{g.assessment(word, u)}
	}
	return out
}

// A guarding is a guardrail that a call on a model names, and what it did.
type guarding struct {
	*Guardrail
	word    string // of the prompt, that it intervened on; the model is then not asked
	trace   bool
	in, out map[string]int64
}

// guarded finds the guardrail that a call names.
func (x *exchange) guarded(id, version, trace string) (*guarding, *refusal) {
	if !contains([]string{"", "enabled", "disabled", "enabled_full", "ENABLED", "DISABLED", "ENABLED_FULL"}, trace) {
		return nil, validation("1 validation error detected: Value '%s' at 'trace' failed to satisfy constraint: Member must satisfy enum value set", trace)
	}
	if id == "" && version == "" {
		return nil, nil
	}
	if !guardrailID.MatchString(id) || !guardrailVersion.MatchString(version) {
		return nil, validation("1 validation error detected: Value at 'guardrailIdentifier' or 'guardrailVersion' failed to satisfy constraint: both are needed")
	}
	g := x.guardrail(id, version)
	if g == nil {
		return nil, validation("The guardrail identifier or version provided in the request does not exist.")
	}
	return &guarding{Guardrail: g, trace: strings.HasPrefix(strings.ToLower(trace), "enabled")}, nil
}

// look holds a prompt against the guardrail; a guarding that is nil finds nothing.
func (g *guarding) look(prompt []byte) (blocked bool) {
	if g == nil {
		return false
	}
	g.word, g.in = g.finds(string(prompt)), units(len([]rune(string(prompt))), 0, false)
	return g.word != ""
}

// pieces are those of the answer: the guardrail's message in place of what the model would
// have said. What the model says is looked at too, and charged for.
func (g *guarding) pieces(x *exchange, said []string) []string {
	if g == nil {
		return said
	}
	if g.word != "" {
		said = []string{g.Message}
	} else {
		g.out = units(len([]rune(strings.Join(said, ""))), 0, false)
	}
	x.call.Guardrail = maps.Clone(g.in)
	for policy, n := range g.out {
		x.call.Guardrail[policy] += n
	}
	return said
}

// tell puts what the guardrail did into an answer of a model's own shape.
func (g *guarding) tell(answer any) {
	m, ok := answer.(obj)
	if g == nil || !ok {
		return
	}
	m["amazon-bedrock-guardrailAction"] = "NONE"
	if g.word != "" {
		m["amazon-bedrock-guardrailAction"] = "INTERVENED"
	}
	if g.trace {
		m["amazon-bedrock-trace"] = obj{"guardrail": obj{"input": obj{g.ID: g.assessment(g.word, g.in)}, "outputs": g.outputs()}}
	}
}

func (g *guarding) outputs() []any {
	if g.out == nil {
		return []any{}
	}
	return []any{obj{g.ID: g.assessment("", g.out)}}
}

// converse is the trace in Converse's shape, or nil.
func (g *guarding) converse() obj {
	if g == nil || !g.trace {
		return nil
	}
	t := obj{"inputAssessment": obj{g.ID: g.assessment(g.word, g.in)}}
	if g.out != nil {
		t["outputAssessments"] = obj{g.ID: []any{g.assessment("", g.out)}}
	}
	return obj{"guardrail": t}
}

var checkCategories = map[string][]string{
	"contentFilter": {"VIOLENCE", "HATE", "SEXUAL", "MISCONDUCT", "INSULTS"},
	"promptAttack":  {"JAILBREAK", "PROMPT_INJECTION", "PROMPT_LEAKAGE"},
}

// admitChecks takes a call of InvokeGuardrailChecks, which needs no guardrail.
func (x *exchange) admitChecks() (answer, *refusal) {
	_, no := x.object("messages checks")
	if no = first(x.served("bedrock:InvokeGuardrailChecks", "*"), no); no != nil {
		return nil, no
	}
	var b struct {
		Messages []struct {
			Role    string
			Content []struct{ Text string }
		}
		Checks map[string]struct {
			Categories []struct{ Category string }
			Entities   []struct{ Type string }
		}
	}
	if err := json.Unmarshal(x.body, &b); err != nil || len(b.Messages) == 0 || len(b.Checks) == 0 {
		return nil, validation("1 validation error detected: Value at 'messages' or 'checks' failed to satisfy constraint: Member must not be null")
	}
	n := 0
	for _, m := range b.Messages {
		if !contains([]string{"user", "assistant", "system"}, m.Role) || len(m.Content) == 0 {
			return nil, validation("1 validation error detected: Value '%s' at 'messages.role' failed to satisfy constraint: Member must satisfy enum value set", m.Role)
		}
		for _, c := range m.Content {
			n += len([]rune(c.Text))
		}
	}
	seed := generate(x.body, "").seed
	results, usage, counted := obj{}, obj{}, make(map[string]int64)
	for name, check := range b.Checks {
		entries := []any{}
		for i, c := range check.Categories {
			if !contains(checkCategories[name], c.Category) {
				return nil, validation("1 validation error detected: Value '%s' at 'checks.%s.categories' failed to satisfy constraint: Member must satisfy enum value set", c.Category, name)
			}
			entries = append(entries, obj{"category": c.Category, "severityScore": float64(seed>>i%50) / 100})
		}
		switch {
		case name == "sensitiveInformation" && len(check.Entities) > 0 && len(check.Entities) <= 31:
			results[name] = obj{"results": []any{}, "truncated": false}
		case checkCategories[name] != nil && len(entries) > 0:
			results[name] = obj{"results": entries}
		default:
			return nil, validation("1 validation error detected: Value at 'checks.%s' failed to satisfy constraint", name)
		}
		usage[name], counted[name] = obj{"textUnits": textUnits(n)}, textUnits(n)
	}
	return func(x *exchange) bool {
		x.call.Guardrail = counted
		return x.json(obj{"results": results, "usage": usage})
	}, nil
}
