package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Question is what somebody wants to know of the cost of Bedrock.
type Question string

// The questions.
const (
	Teams        Question = "teams"        // dollars of users or teams
	Applications Question = "applications" // dollars of applications or workloads
	Prompts      Question = "prompts"      // tokens and cost of single prompts
	Both         Question = "both"         // the invoice's dollars, down to single prompts
)

// Questions lists them, with what each asks.
var Questions = []struct {
	Name Question
	Doc  string
}{
	{Teams, "what does each user or team cost, in invoice dollars?"},
	{Applications, "what does each application or workload cost, in invoice dollars?"},
	{Prompts, "what does a single prompt cost, in tokens and dollars?"},
	{Both, "invoice dollars and single prompts, so that they add up"},
}

// An Asked is what advice is asked on.
type Asked struct {
	Questions []Question `json:"questions"`
	Paths     []string   `json:"paths"` // names of Paths; none for all but batch and agents
	// Keys are the tag keys that costs are to be known by, such as team.
	Keys    []string `json:"keys,omitempty"`
	Regions []string `json:"regions,omitempty"`
}

// Standing is what holds in the account today, as far as it is known: what the advice
// finds missing is found by it. The zero value knows nothing.
type Standing struct {
	// Logging says of a Region whether invocation logging is on. A Region that is not there
	// is not known.
	Logging map[string]bool `json:"logging,omitempty"`
	// PrincipalData says whether an export with IAM principal data is there; nil: not known.
	PrincipalData *bool `json:"principal_data,omitempty"`
	// ActiveKeys are active cost allocation tags; nil: not known.
	ActiveKeys []string `json:"active_keys,omitempty"`
	// DataEvents says whether CloudTrail keeps data events of bedrock-mantle; nil: not known.
	DataEvents *bool `json:"data_events,omitempty"`
}

// Advice says which mechanisms answer the questions, where each reaches, what it shows and
// when, and what is to be done.
type Advice struct {
	Asked      Asked          `json:"asked"`
	Answer     string         `json:"answer"` // in a sentence
	Basis      string         `json:"basis"`  // of waybill report
	BasisWhy   string         `json:"basis_why"`
	Mechanisms []MechanismUse `json:"mechanisms"`
	Gaps       []Unreached    `json:"gaps"` // paths that a question does not reach, and what stands in
	Missing    []Missing      `json:"missing"`
	Next       []NextStep     `json:"next"`
	Notes      []string       `json:"notes"`
}

// A MechanismUse is a mechanism that the advice takes.
type MechanismUse struct {
	Mechanism Mechanism           `json:"mechanism"`
	Why       string              `json:"why"`
	Paths     map[string]Carriage `json:"paths"`
	Shows     Showing             `json:"shows"`
}

// A Unreached is a path on which a question has no answer of its mechanism.
type Unreached struct {
	Question Question `json:"question"`
	Path     string   `json:"path"`
	What     string   `json:"what"`
	Instead  string   `json:"instead"`
}

// Missing is what does not hold in the account, or is not known to.
type Missing struct {
	What  string `json:"what"`
	Known bool   `json:"known"` // false: it was not looked at
}

// A NextStep is a command to be run.
type NextStep struct {
	Command string `json:"command"`
	Why     string `json:"why"`
}

// Advise answers which mechanisms a question takes: Bedrock User Guide, "Best practices
// for cost attribution": the mechanism follows the question.
func Advise(a Asked, s Standing) (*Advice, error) {
	if len(a.Questions) == 0 {
		return nil, misused("one or more of teams, applications, prompts, both", "no question is asked")
	}
	for _, q := range a.Questions {
		if !slices.Contains([]Question{Teams, Applications, Prompts, Both}, q) {
			return nil, misused("one or more of teams, applications, prompts, both", "question %q is not known", q)
		}
	}
	paths, err := expandPaths(a.Paths)
	if err != nil {
		return nil, err
	}
	a.Paths = paths
	if len(a.Keys) == 0 {
		a.Keys = []string{"team", "application", "environment", "costCenter"}
	}
	v := &adviser{asked: a, out: &Advice{Asked: a, Gaps: []Unreached{}, Missing: []Missing{}, Notes: []string{}}}
	has := func(q Question) bool { return slices.Contains(a.Questions, q) }
	if has(Teams) || has(Both) {
		v.take(ByPrincipal, "AWS captures the caller's identity on every call, without code; tags of the role session carry team and cost centre to the bill")
		v.cover(Teams, ByPrincipal)
	}
	if has(Applications) || has(Both) && slices.Contains(a.Keys, "application") {
		v.applications()
	}
	if has(Prompts) || has(Both) {
		v.take(ByMetadata, "it is in each call's log record, beside its tokens: a prompt's cost by any tag, and ids that a bill must not have")
		v.take(ByLog, "it has the tokens of each call; without it request metadata goes nowhere")
		v.take(ByTrail, "on bedrock-mantle the only trace of a call outside the gateway that can carry tags")
		v.cover(Prompts, ByMetadata)
	}
	v.basis()
	v.missing(s)
	v.next()
	return v.out, nil
}

type adviser struct {
	asked Asked
	out   *Advice
}

func expandPaths(names []string) ([]string, error) {
	var out []string
	for _, p := range Paths {
		if len(names) == 0 && p.Endpoint != "bedrock" || slices.Contains(names, p.Name) || slices.Contains(names, p.Endpoint) && p.Endpoint != "bedrock" {
			out = append(out, p.Name)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(Paths, func(p Path) bool { return p.Name == n || p.Endpoint == n && n != "bedrock" }) {
			var known []string
			for _, p := range Paths {
				known = append(known, p.Name)
			}
			return nil, misused("bedrock-runtime, bedrock-mantle, or one of: "+strings.Join(known, ", "), "path %q is not known", n)
		}
	}
	return out, nil
}

// take adds a mechanism, if it reaches any of the paths.
func (v *adviser) take(m Mechanism, why string) {
	if slices.ContainsFunc(v.out.Mechanisms, func(u MechanismUse) bool { return u.Mechanism == m }) {
		return
	}
	use := MechanismUse{Mechanism: m, Why: why, Paths: make(map[string]Carriage), Shows: showings[m]}
	reaches := false
	for _, p := range v.asked.Paths {
		use.Paths[p] = CarriageOf(m, p)
		reaches = reaches || use.Paths[p].Reach == Reaches
	}
	if reaches {
		v.out.Mechanisms = append(v.out.Mechanisms, use)
	}
}

func (v *adviser) uses(m Mechanism) bool {
	return slices.ContainsFunc(v.out.Mechanisms, func(u MechanismUse) bool { return u.Mechanism == m })
}

// cover finds the paths that none of the mechanisms of a question reaches.
func (v *adviser) cover(q Question, mechanisms ...Mechanism) {
	for _, p := range v.asked.Paths {
		reached := slices.ContainsFunc(mechanisms, func(m Mechanism) bool { return CarriageOf(m, p).Reach == Reaches })
		if reached {
			continue
		}
		c := CarriageOf(mechanisms[0], p)
		v.out.Gaps = append(v.out.Gaps, Unreached{Question: q, Path: p, What: fmt.Sprintf("%s: %s", mechanisms[0], c.Reach), Instead: c.How})
	}
}

func (v *adviser) applications() {
	v.take(ByProfile, "an application's tags on the profile that it calls as its model, on bedrock-runtime")
	v.take(ByProject, "the same on bedrock-mantle, for the OpenAI APIs")
	v.take(ByWorkspace, "the same on bedrock-mantle, for the Messages API")
	before := len(v.out.Gaps)
	v.cover(Applications, ByProfile, ByProject, ByWorkspace)
	if len(v.out.Gaps) > before {
		v.take(ByPrincipal, "where neither profiles nor projects go, a session tag names the application")
	}
}

// basis is the choice of waybill report for these questions.
func (v *adviser) basis() {
	has := func(q Question) bool { return slices.Contains(v.asked.Questions, q) }
	var names []string
	for _, u := range v.out.Mechanisms {
		if u.Mechanism != ByLog && u.Mechanism != ByTrail {
			names = append(names, string(u.Mechanism))
		}
	}
	dollars := has(Teams) || has(Applications)
	switch {
	case has(Both), dollars && has(Prompts):
		v.out.Basis, v.out.BasisWhy = "calibrated", "the bill's dollars are spread over the calls by their metered cost, so single prompts add up to the invoice"
	case has(Prompts):
		v.out.Basis, v.out.BasisWhy = "estimate", "usage times rate card is there in minutes; once the bill is ingested, calibrated says the same in invoice dollars"
	default:
		v.out.Basis, v.out.BasisWhy = "invoice", "the bill's own rows carry the tags; with calls in the ledger, calibrated also divides what the bill leaves without a tag"
	}
	if len(names) == 0 {
		v.out.Answer = "none of AWS's mechanisms goes with these calls: the gateway's own record of each call answers"
		return
	}
	v.out.Answer = "take " + strings.Join(names, " + ")
	if len(names) > 1 {
		v.out.Answer += ", each where it reaches"
	}
}

func (v *adviser) missing(s Standing) {
	add := func(known bool, format string, args ...any) {
		v.out.Missing = append(v.out.Missing, Missing{What: fmt.Sprintf(format, args...), Known: known})
	}
	inBill := v.uses(ByPrincipal) || v.uses(ByProfile) || v.uses(ByProject) || v.uses(ByWorkspace)
	if inBill {
		for _, k := range v.asked.Keys {
			switch {
			case s.ActiveKeys == nil:
				add(false, "cost allocation tag %s is to be active in the payer account", k)
			case !slices.Contains(s.ActiveKeys, k) && !slices.Contains(s.ActiveKeys, "iamPrincipal/"+k):
				add(true, "cost allocation tag %s is not active: what is spent meanwhile is never tagged", k)
			}
		}
	}
	if v.uses(ByPrincipal) {
		switch {
		case s.PrincipalData == nil:
			add(false, "a CUR 2.0 export with IAM principal data is to be there")
		case !*s.PrincipalData:
			add(true, "no CUR 2.0 export has IAM principal data")
		}
	}
	if v.uses(ByLog) {
		regions := v.asked.Regions
		for _, r := range regions {
			on, known := s.Logging[r]
			if !known || !on {
				what := "model invocation logging is off in " + r
				if !known {
					what = "model invocation logging is to be on in " + r
				}
				add(known, "%s", what)
			}
		}
		if len(regions) == 0 && s.Logging == nil {
			add(false, "model invocation logging is to be on in every Region that is called")
		}
	}
	if v.uses(ByTrail) && (s.DataEvents == nil || !*s.DataEvents) {
		add(s.DataEvents != nil, "CloudTrail data events of bedrock-mantle are wanted, if its calls are to be matched; they are charged")
	}
}

func (v *adviser) next() {
	step := func(command, why string) { v.out.Next = append(v.out.Next, NextStep{command, why}) }
	keys := strings.Join(v.asked.Keys, ",")
	step("waybilld --config waybill.yaml", "tags are set in one shared place, the gateway: AWS refuses no untagged call")
	step("waybill audit --file accounts.yaml --save snapshot.json", "says what of the above is missing, with the dollars at stake")
	if slices.ContainsFunc(v.out.Missing, func(m Missing) bool { return !m.Known }) {
		var asked []string
		for _, q := range v.asked.Questions {
			asked = append(asked, string(q))
		}
		again := "waybill advise --ask " + strings.Join(asked, ",") + " --on " + strings.Join(v.asked.Paths, ",") + " --key " + keys
		if len(v.asked.Regions) > 0 {
			again += " --region " + strings.Join(v.asked.Regions, ",")
		}
		step(again+" --snapshot snapshot.json", "this advice again, with what the account said")
	}
	step("waybill setup --file accounts.yaml", "shows the changes that make it hold; with --apply it makes them")
	if v.uses(ByLog) {
		step("waybill ingest --journal ./journal --logs s3://LOGS/ --cur s3://BILL/PREFIX --lake ./lake", "calls and bill into one ledger")
	} else {
		step("waybill ingest --cur s3://BILL/PREFIX --lake ./lake", "the bill into the ledger")
	}
	step(fmt.Sprintf("waybill report --lake ./lake --rates rates.csv --by %s --basis %s", keys, v.out.Basis), v.out.BasisWhy)
	if v.out.Basis == "calibrated" {
		step("waybill reconcile --lake ./lake --rates rates.csv", "confirms that metered cost and invoice agree, or names the difference")
	}
	step("waybill guard --config guard.yaml --prove", "closes the other ways: a call past the gateway carries no tags")
	if slices.ContainsFunc(v.asked.Paths, func(p string) bool { return p == "batch" || p == "agents" }) {
		v.out.Notes = append(v.out.Notes, "batch jobs and agents run under service roles: give each owner a role of its own, with tags")
	}
	v.out.Notes = append(v.out.Notes, "activation is not retroactive: activate keys as soon as the first tagged call was made",
		"keys for the bill are few, stable and low in cardinality; session, trace and experiment ids go into request metadata alone")
}

// callFacts are dimensions of a report that a bill knows nothing of.
var callFacts = []string{"hour", "outcome", "source", "model_id", "session"}

// ReportKnowledge says what a report's basis can know of the keys that it is asked by: the
// same knowledge that advice is given from.
func ReportKnowledge(basis string, by []string) string {
	switch basis {
	case "calibrated":
		return "keys come from request metadata and the gateway's records where a call has them, and from the principal's, profile's and project's tags in the bill elsewhere"
	case "estimate":
		return "invoice dollars follow when the bill is in: " + showings[ByPrincipal].Delay
	}
	var unknown []string
	for _, k := range by {
		if slices.Contains(callFacts, k) {
			unknown = append(unknown, k)
		}
	}
	if len(unknown) > 0 {
		return "a bill knows no " + strings.Join(unknown, ", ") + ": ingest invocation logs or journals to have them"
	}
	return "the bill has tags of principals, profiles and projects, and no request metadata"
}

// StandingOf is what a snapshot tells of the account, as far as advice needs it. What AWS
// refused to say is not known.
func StandingOf(s *Snapshot) Standing {
	var out Standing
	if s.Payer.CostTags.refused() == "" {
		out.ActiveKeys = []string{}
		for _, t := range s.Payer.CostTags.Value {
			if t.Active {
				out.ActiveKeys = append(out.ActiveKeys, t.Key)
			}
		}
	}
	if s.Payer.Exports.refused() == "" {
		has := slices.ContainsFunc(s.Payer.Exports.Value, func(e Export) bool { return strings.EqualFold(e.Properties["INCLUDE_IAM_PRINCIPAL_DATA"], "TRUE") })
		out.PrincipalData = &has
	}
	unsaid := make(map[string]bool)
	for _, a := range s.Accounts {
		for _, r := range a.Regions {
			if r.Logging.refused() != "" {
				unsaid[r.Region] = true
				continue
			}
			if out.Logging == nil {
				out.Logging = make(map[string]bool)
			}
			on, seen := out.Logging[r.Region]
			out.Logging[r.Region] = r.Logging.Value.On && (on || !seen) // in every account
		}
	}
	for r := range unsaid { // an account that is off is known to be; that all are on is not
		if out.Logging[r] {
			delete(out.Logging, r)
		}
	}
	return out
}

// Regions are those that the standing knows of.
func (s *Standing) Regions() []string { return slices.Sorted(maps.Keys(s.Logging)) }
