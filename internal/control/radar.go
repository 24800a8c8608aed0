package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/iam"
)

// A Sighting is use of Bedrock by somebody, as one source tells of it: calls that are
// alike, or dollars of the bill.
type Sighting struct {
	// Source is bill, log, gateway or cloudtrail. What a gateway tells of it has signed
	// itself.
	Source string
	// Principal is the ARN that the source has: a session's, a user's, a role's; of an AWS
	// service that acts as itself the service's name. Empty where nobody is named.
	Principal string
	// RoleARN is the role of a session with its path, where the source tells it: CloudTrail
	// alone does.
	RoleARN string
	Action  string // such as bedrock:InvokeModel
	// Bearer says that the calls came with a Bedrock API key.
	Bearer   bool
	Resource string
	Region   string
	Calls    int64
	Refused  bool          // AWS did not let the calls through: they cost nothing
	Billed   waybill.Money // by the bill
	Metered  waybill.Money // usage times rate card
	First    time.Time
	Last     time.Time
	// Context are condition keys that the source tells of.
	Context map[string][]string
}

// RadarOptions say against what sightings are held.
type RadarOptions struct {
	// Guard says who is ours.
	Guard *Guard
	// SCPs are the service control policies that would be attached. Nil for those that the
	// guard writes.
	SCPs []*iam.Policy
	// Management is the account that service control policies do not reach, if it is known.
	Management string
}

// What would become of a principal if the policies were attached.
const (
	Breaks     = "breaks"      // at least one of its actions would be denied
	GoesOn     = "goes on"     // everything it was seen to do stays allowed
	NotReached = "not reached" // service control policies do not bind it
	Unclear    = "undecided"   // it hangs on what the sources do not tell
)

// A Suspect is a principal that was seen to use Bedrock.
type Suspect struct {
	Principal string `json:"principal"` // of sessions the role
	Kind      string `json:"kind"`      // role, user, root user, AWS service, other
	// Ours says why the principal may pass: gateway, break-glass, exception. Empty for one
	// that goes round the gateway.
	Ours     string        `json:"ours,omitempty"`
	Verdict  string        `json:"verdict"`
	Why      string        `json:"why"`
	Sid      string        `json:"sid,omitempty"`
	Calls    int64         `json:"calls"`
	Refused  int64         `json:"refused"` // calls that AWS did not let through; not in Calls
	Billed   waybill.Money `json:"billed"`
	Metered  waybill.Money `json:"metered"`
	First    time.Time     `json:"first_seen"`
	Last     time.Time     `json:"last_seen"`
	Sources  []string      `json:"sources"`
	Actions  []string      `json:"actions"`
	Sessions int           `json:"sessions"` // distinct session names
	Bearer   bool          `json:"bearer"`
	// Spends says that it was seen to do what costs money; others only look.
	Spends bool `json:"spends"`
}

// RadarReport is who was seen, what goes round the gateway first and by dollars.
type RadarReport struct {
	Suspects []Suspect `json:"principals"`
	// Round sums the principals that are not ours and spend, Looking those that are not ours
	// and were seen to do nothing that costs money.
	Round   Tally `json:"round"`
	Ours    Tally `json:"ours"`
	Looking Tally `json:"looking"`
	// Unnamed are dollars of the bill without a principal: rows from before the export had
	// the column, and charges that calls do not bear.
	Unnamed waybill.Money `json:"unnamed"`
	// Breaks are principals that are not ours and would be denied; BreaksOurs are ours and
	// would be denied: the guard is mistaken.
	Breaks     int `json:"breaks"`
	BreaksOurs int `json:"breaks_ours"`
	Undecided  int `json:"undecided"`
}

// A Tally adds up principals. Billed and Metered are two views of the same calls, and are
// never added to each other.
type Tally struct {
	Principals int           `json:"principals"`
	Calls      int64         `json:"calls"`
	Billed     waybill.Money `json:"billed"`
	Metered    waybill.Money `json:"metered"`
}

func (t *Tally) add(s *Suspect) {
	t.Principals++
	t.Calls += s.Calls
	t.Billed, t.Metered = t.Billed.Add(s.Billed), t.Metered.Add(s.Metered)
}

// Radar says who uses Bedrock, who of them is not ours, since when and for how much, and
// who would break if the policies were attached.
func Radar(o RadarOptions, sightings []Sighting) (*RadarReport, error) {
	if err := o.Guard.check(); err != nil {
		return nil, err
	}
	r := &radar{options: o, guard: o.Guard, scps: o.SCPs, roles: make(map[string]string), signed: make(map[string]bool)}
	if r.scps == nil {
		p, err := o.Guard.Write()
		if err != nil {
			return nil, err
		}
		v, err := p.read()
		if err != nil {
			return nil, err
		}
		r.scps = v.scps
	}
	var err error
	if r.everything, err = iam.Parse("FullAWSAccess", iam.Identity, []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)); err != nil {
		return nil, err
	}
	out := &RadarReport{Suspects: []Suspect{}}
	groups := make(map[string][]*Sighting)
	for i := range sightings {
		s := &sightings[i]
		if s.Principal == "" {
			out.Unnamed = out.Unnamed.Add(s.Billed)
			continue
		}
		key := principalKey(s.Principal)
		if s.RoleARN != "" {
			r.roles[key] = s.RoleARN
		}
		r.signed[key] = r.signed[key] || s.Source == "gateway"
		groups[key] = append(groups[key], s)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		s, err := r.judge(key, groups[key])
		if err != nil {
			return nil, err
		}
		out.Suspects = append(out.Suspects, s)
		switch {
		case s.Ours != "":
			out.Ours.add(&s)
		case !s.Spends:
			out.Looking.add(&s)
		default:
			out.Round.add(&s)
		}
		switch {
		case s.Verdict == Breaks && s.Ours == "":
			out.Breaks++
		case s.Verdict == Breaks:
			out.BreaksOurs++
		case s.Verdict == Unclear:
			out.Undecided++
		}
	}
	slices.SortStableFunc(out.Suspects, func(x, y Suspect) int {
		rank := func(s Suspect) int {
			switch {
			case s.Ours == "" && s.Spends:
				return 0
			case s.Ours == "":
				return 1
			}
			return 2
		}
		return cmp.Or(cmp.Compare(rank(x), rank(y)), y.Billed.Cmp(x.Billed), y.Metered.Cmp(x.Metered), cmp.Compare(y.Calls, x.Calls))
	})
	return out, nil
}

type radar struct {
	options    RadarOptions
	guard      *Guard
	scps       []*iam.Policy
	everything *iam.Policy
	roles      map[string]string // the role ARN of a principal's key, where a source told it
	signed     map[string]bool   // principals as which a gateway has signed
}

// principalKey puts a principal's sessions together. Sources that write a session leave
// out the role's path, so a role is known by account and name (CUR 2.0 and invocation
// logs: arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION).
func principalKey(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 {
		return arn
	}
	if name, ok := strings.CutPrefix(parts[5], "assumed-role/"); ok {
		name, _, _ = strings.Cut(name, "/")
		return "role " + parts[1] + " " + parts[4] + " " + name
	}
	if path, ok := strings.CutPrefix(parts[5], "role/"); ok {
		return "role " + parts[1] + " " + parts[4] + " " + path[strings.LastIndexByte(path, '/')+1:]
	}
	return arn
}

// judge sums up what was seen of a principal, and decides on each of its actions.
func (r *radar) judge(key string, seen []*Sighting) (Suspect, error) {
	s := Suspect{Principal: seen[0].Principal, Kind: "other", Verdict: GoesOn, Why: "nothing it was seen to do is denied"}
	sessions := make(map[string]bool)
	for _, x := range seen {
		if x.Refused {
			s.Refused += x.Calls
		} else {
			s.Calls += x.Calls
		}
		s.Billed, s.Metered = s.Billed.Add(x.Billed), s.Metered.Add(x.Metered)
		s.Spends = s.Spends || !x.Refused && (closedBy(x.Action) != "" || !x.Billed.IsZero())
		if !x.First.IsZero() && (s.First.IsZero() || x.First.Before(s.First)) {
			s.First = x.First
		}
		if x.Last.After(s.Last) {
			s.Last = x.Last
		}
		s.Sources, s.Actions, s.Bearer = append(s.Sources, x.Source), append(s.Actions, x.Action), s.Bearer || x.Bearer
		if parts := strings.Split(x.Principal, "/"); len(parts) == 3 && strings.Contains(x.Principal, ":assumed-role/") {
			sessions[parts[2]] = true
		}
	}
	s.Sessions = len(sessions)
	slices.Sort(s.Sources)
	slices.Sort(s.Actions)
	s.Sources, s.Actions = slices.Compact(s.Sources), slices.Compact(s.Actions)

	callers := r.callers(key, seen[0])
	if len(callers) == 0 {
		s.Verdict, s.Why = Unclear, "what kind of principal it is, is not known"
		return s, nil
	}
	s.Kind = map[iam.CallerKind]string{iam.RoleSession: "role", iam.User: "user", iam.Root: "root user", iam.ServiceCaller: "AWS service"}[callers[0].Kind]
	s.Principal = callers[0].PrincipalARN()
	s.Ours = r.ours(key, callers)
	if s.Ours == "gateway" && r.roles[key] == "" && strings.Contains(s.Principal, ":role/") {
		s.Why += "; the path of the role is taken from the guard, for the sources leave it out"
	}
	if !callers[0].UnderSCP() {
		s.Verdict, s.Why = NotReached, "service control policies do not reach it"
		return s, nil
	}
	if s.Calls == 0 && s.Refused > 0 {
		s.Why = "AWS refuses all that it was seen to try, as it is"
	}
	rank := map[string]int{GoesOn: 0, Unclear: 1, Breaks: 2}
	for _, x := range seen {
		if x.Refused {
			continue // it is denied as it is
		}
		verdict, why, sid, err := r.verdict(callers, x)
		if err != nil {
			return s, err
		}
		if rank[verdict] > rank[s.Verdict] {
			s.Verdict, s.Why, s.Sid = verdict, why, sid
		}
	}
	return s, nil
}

// callers are who a principal may be: one where it is known, several where the path of
// its role is not and makes a difference.
func (r *radar) callers(key string, s *Sighting) []iam.Caller {
	parts := strings.SplitN(s.Principal, ":", 6)
	if len(parts) != 6 {
		if strings.HasSuffix(s.Principal, ".amazonaws.com") {
			return []iam.Caller{{Kind: iam.ServiceCaller, ARN: s.Principal}}
		}
		return nil
	}
	account := parts[4]
	base := iam.Caller{ARN: s.Principal, Account: account, Management: account != "" && account == r.options.Management}
	switch {
	case parts[5] == "root":
		base.Kind = iam.Root
	case strings.HasPrefix(parts[5], "user/"), strings.HasPrefix(parts[5], "federated-user/"):
		base.Kind = iam.User
	case strings.HasPrefix(key, "role "):
		base.Kind = iam.RoleSession
		name := key[strings.LastIndexByte(key, ' ')+1:]
		pathless := "arn:" + parts[1] + ":iam::" + account + ":role/" + name
		if strings.HasPrefix(parts[5], "role/") {
			base.RoleARN, base.ARN = s.Principal, "arn:"+parts[1]+":sts::"+account+":assumed-role/"+name+"/unknown"
			return []iam.Caller{base}
		}
		if known := r.roles[key]; known != "" {
			base.RoleARN = known
			return []iam.Caller{base}
		}
		if strings.HasPrefix(name, "AWSServiceRoleFor") {
			base.RoleARN = "arn:" + parts[1] + ":iam::" + account + ":role/aws-service-role/unknown/" + name
			return []iam.Caller{base}
		}
		var out []iam.Caller
		for _, arn := range append([]string{pathless}, r.withPath(account, name)...) {
			c := base
			c.RoleARN = arn
			out = append(out, c)
		}
		if r.signed[key] { // then it is the role that the gateway assumes
			for _, c := range out {
				if matchesAny(r.guard.Roles, c.RoleARN) {
					return []iam.Caller{c}
				}
			}
		}
		return out
	default:
		return nil
	}
	return []iam.Caller{base}
}

// withPath are ARNs under which a role of this name would match a pattern of the guard or
// of the policies.
func (r *radar) withPath(account, name string) []string {
	var out []string
	for _, pattern := range r.patterns() {
		parts := strings.SplitN(pattern, ":", 6)
		if len(parts) != 6 || !strings.HasPrefix(parts[5], "role/") || !wildcard(parts[4], account) {
			continue
		}
		at := strings.LastIndexByte(parts[5], '/')
		if path, last := parts[5][len("role/"):at+1], parts[5][at+1:]; path != "" && wildcard(last, name) {
			arn := strings.Join([]string{"arn", parts[1], "iam", "", account, "role/" + strings.ReplaceAll(strings.ReplaceAll(path, "*", "one"), "?", "x") + name}, ":")
			if !slices.Contains(out, arn) {
				out = append(out, arn)
			}
		}
	}
	return out
}

// patterns are those by which somebody may pass.
func (r *radar) patterns() []string {
	g := r.guard
	out := slices.Concat(g.Roles, g.BreakGlass.Roles)
	for _, x := range g.Exceptions {
		out = append(out, x.Roles...)
	}
	for _, p := range r.scps {
		for _, s := range p.Statements {
			for _, c := range s.Conditions {
				if strings.EqualFold(c.Key, "aws:PrincipalArn") {
					out = append(out, c.Values...)
				}
			}
		}
	}
	return out
}

func matchesAny(patterns []string, arn string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return arnLike(p, arn) })
}

// ours says why a principal may pass, if every role that it may be may.
func (r *radar) ours(key string, callers []iam.Caller) string {
	every := func(patterns []string) bool {
		return !slices.ContainsFunc(callers, func(c iam.Caller) bool { return !matchesAny(patterns, c.PrincipalARN()) })
	}
	switch {
	case r.signed[key]:
		return "gateway"
	case every(r.guard.Roles):
		return "gateway"
	case every(r.guard.BreakGlass.Roles):
		return "break-glass"
	}
	for _, x := range r.guard.Exceptions {
		if every(x.Roles) {
			return cmp.Or("exception: "+x.Why, "exception")
		}
	}
	return ""
}

// verdict decides on one action. It is Unclear where who the caller may be, or a condition
// key that the source does not tell, makes a difference.
func (r *radar) verdict(callers []iam.Caller, s *Sighting) (verdict, why, sid string, err error) {
	actions := []string{s.Action}
	if s.Bearer {
		prefix, _, _ := strings.Cut(s.Action, ":")
		actions = append(actions, prefix+":CallWithBearerToken")
	}
	for _, action := range actions {
		var outcomes []iam.Verdict
		for _, c := range callers {
			request := iam.Request{Caller: c, Action: action, Resource: cmp.Or(s.Resource, "*"), Context: maps.Clone(s.Context), Unknown: []string{"*"}}
			if s.Region != "" {
				if request.Context == nil {
					request.Context = make(map[string][]string)
				}
				request.Context["aws:RequestedRegion"] = []string{s.Region}
			}
			v, err := iam.Evaluate(&request, &iam.Policies{Identity: []*iam.Policy{r.everything}, SCPs: [][]*iam.Policy{append([]*iam.Policy{r.everything}, r.scps...)}})
			if err != nil {
				return "", "", "", err
			}
			outcomes = append(outcomes, v)
		}
		first := outcomes[0]
		same := !slices.ContainsFunc(outcomes, func(v iam.Verdict) bool { return v.Outcome != first.Outcome })
		switch {
		case same && first.Denied():
			return Breaks, action + " is denied", first.Sid, nil
		case !same:
			verdict, why = Unclear, "the source leaves out the path of the role: "+callers[0].RoleARN+" would be denied, and "+callers[len(callers)-1].RoleARN+" not"
			if !outcomes[0].Denied() {
				why = "the source leaves out the path of the role, which makes a difference"
			}
		case first.Outcome == iam.Undecided && verdict == "":
			verdict, why = Unclear, fmt.Sprintf("%s hangs on %s, which the source does not tell", action, strings.Join(first.Missing, ", "))
		}
	}
	return cmp.Or(verdict, GoesOn), why, "", nil
}
