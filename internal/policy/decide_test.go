package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/internal/screen"

	"github.com/waybill-dev/waybill"
)

// tagsText is a set as "a=b c=d".
func tagsText(t waybill.Tags) string {
	var out []string
	for k, v := range t.All() {
		out = append(out, k+"="+v)
	}
	return strings.Join(out, " ")
}

// A source that is nearer to identity goes before one that is farther.
func TestPrecedence(t *testing.T) {
	p := parse(t, `
tags:
  keys:
    team: {from: claims.team, default: none}
    project: {default: fallback, foldCase: true}
    old: {deprecated: {use: project, note: since spring}}
    zold: {deprecated: {use: project}}
applications:
  - {name: batch, when: {caller: 'batch-*'}, tags: {project: nightly}}
  - {name: later, when: {caller: 'batch-*'}, tags: {project: other}}
`)
	principal := func(subject, claim string, tags ...waybill.Tag) waybill.Principal {
		return waybill.Principal{Subject: subject, Claims: map[string]string{"team": claim}, Tags: waybill.NewTags(tags...)}
	}
	for _, tt := range []struct {
		name    string
		who     waybill.Principal
		asked   []Asked
		tags    string
		reasons string
	}{
		{"nothing but defaults", principal("u", ""), nil, "project=fallback team=none", ""},
		{"a claim", principal("u", "search"), nil, "project=fallback team=search", ""},
		{"a claim before the registration", principal("u", "search", waybill.Tag{Key: "team", Value: "ads"}), nil, "project=fallback team=search", ""},
		{"the registration where there is no claim", principal("u", "", waybill.Tag{Key: "team", Value: "ads"}), nil, "project=fallback team=ads", ""},
		{"a registration under another name of the key", principal("u", "", waybill.Tag{Key: "OLD", Value: "X"}), nil, "project=x team=none", ""},
		{"a request cannot stand in for a claim", principal("u", ""), ask("team", "ads"), "project=fallback team=none", "team:forged"},
		{"nor override one", principal("u", "search"), ask("Team", "ads"), "project=fallback team=search", "team:forged"},
		{"saying the same is not forging", principal("u", "search"), ask("team", "search"), "project=fallback team=search", ""},
		{"nor override the registration", principal("u", "", waybill.Tag{Key: "project", Value: "p"}), ask("PROJECT", "q"), "project=p team=none", "project:forged"},
		{"the registration before the application", principal("batch-1", "", waybill.Tag{Key: "project", Value: "p"}), nil, "project=p team=none", ""},
		{"the application before the request", principal("batch-1", ""), ask("project", "q"), "project=nightly team=none", "project:overridden"},
		{"the registration's own name of the key before another", principal("u", "", waybill.Tag{Key: "Project", Value: "a"}, waybill.Tag{Key: "old", Value: "b"}, waybill.Tag{Key: "project", Value: "p"}), nil, "project=p team=none", ""},
		{"whatever their order", principal("u", "", waybill.Tag{Key: "project", Value: "p"}, waybill.Tag{Key: "zold", Value: "b"}), nil, "project=p team=none", ""},
		{"forging behind the right value", principal("u", "search"), ask("team", "search", "TEAM", "ads"), "project=fallback team=search", "team:forged"},
		{"or in front of it", principal("u", "search"), ask("Team", "ads", "team", "search"), "project=fallback team=search", "team:forged"},
		{"overriding behind the right value", principal("batch-1", ""), ask("project", "nightly", "old", "q"), "project=nightly team=none", "old:deprecated_key,project:overridden"},
		{"a deprecated key sent twice is told once", principal("u", ""), ask("old", "a", "OLD", "b"), "project=a team=none", "old:deprecated_key"},
		{"the request before the default", principal("u", ""), ask("project", "Q"), "project=q team=none", ""},
		{"the first of two", principal("u", ""), ask("project", "a", "Project", "b"), "project=a team=none", ""},
		{"a deprecated key is moved", principal("u", ""), ask("old", "a"), "project=a team=none", "old:deprecated_key"},
		{"and goes after what came earlier", principal("u", ""), ask("project", "b", "old", "a"), "project=b team=none", "old:deprecated_key"},
	} {
		d := p.Decide(&Request{Principal: tt.who, Asked: tt.asked})
		if got := tagsText(d.Tags); got != tt.tags || strings.Join(d.Reasons(), ",") != tt.reasons {
			t.Errorf("%s: %s %v, want %s %s", tt.name, got, d.Reasons(), tt.tags, tt.reasons)
		}
	}
}

// What identity or the registration gives, and that a key from identity has none, is the
// same whatever the request sends, under whichever name of whichever key.
func TestRequestsOverrideNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	tried := 0
	for range 2000 {
		var b strings.Builder
		fmt.Fprintf(&b, "unknown: %s\nmode: %s\ntags:\n  keys:\n", pick("drop", "refuse", "pass"), pick("enforce", "warn", "observe"))
		n := 2 + r.IntN(6)
		for i := range n {
			parts := []string{"carriers: " + pick("[request]", "[session, request]")}
			for _, optional := range []string{"from: caller.subject", "from: claims.department", "default: a", "values: [a, b]", "foldCase: true", "aliases: {x: a}",
				fmt.Sprintf("keyAliases: [al%d, bl%d]", i, i), "required: true", "mode: observe", fmt.Sprintf("deprecated: {use: k%d}", r.IntN(n)), "forbidden: true"} {
				if r.IntN(5) == 0 {
					parts = append(parts, optional)
				}
			}
			fmt.Fprintf(&b, "    k%d: {%s}\n", i, strings.Join(parts, ", "))
		}
		p, err := Parse("p.yaml", []byte(b.String()), secret)
		if err != nil {
			continue
		}
		name := func() string {
			text := fmt.Sprint(pick("k", "al", "bl"), r.IntN(n))
			return pick(text, strings.ToUpper(text))
		}
		value := func() string { return pick("a", "b", "A", "x", "moon") }
		for range 20 {
			req := &Request{Principal: waybill.Principal{Subject: "u"}}
			if r.IntN(2) == 0 {
				req.Principal.Claims = map[string]string{"department": value()}
			}
			req.Principal.Tags = waybill.NewTags(waybill.Tag{Key: name(), Value: value()}, waybill.Tag{Key: name(), Value: value()})
			quiet := p.Decide(req)
			for range r.IntN(8) {
				req.Asked = append(req.Asked, Asked{name(), value(), "test"})
			}
			loud := p.Decide(req)
			given := make(map[int]bool)
			for key := range req.Principal.Tags.All() {
				if i := p.keyIndex(key); i >= 0 {
					if use := p.keys[i].use; use >= 0 {
						i = use
					}
					given[i] = true
				}
			}
			for i, k := range p.keys {
				if k.from == fromNowhere && !given[i] {
					continue
				}
				tried++
				before, _ := quiet.Tags.Get(k.name)
				if after, _ := loud.Tags.Get(k.name); before != after {
					t.Fatalf("%s%s is %q, and %q when the request sends %v", b.String(), k.name, before, after, req.Asked)
				}
			}
		}
	}
	if tried < 1000 {
		t.Errorf("only %d keys were tried", tried)
	}
}

// A tag can never stand in for a fact of the call: not in a rule, not for a role.
func TestFactsAreNotTags(t *testing.T) {
	p := parse(t, "unknown: pass\ntags: {keys: {team: {}}, rules: [{when: {caller: admin}, forbid: [team]}]}\n")
	d := p.Decide(&Request{Principal: waybill.Principal{Subject: "user-17"}, Asked: ask("caller", "admin", "team", "ads", "claims.role", "admin")})
	if d.Outcome != waybill.PolicyAllowed {
		t.Errorf("a tag named caller was taken for the caller: %v", d.Reasons())
	}
	if v, _ := d.Fact("caller"); v != "user-17" {
		t.Errorf("the caller of a role's condition is %q", v)
	}
	if v, ok := d.Fact("claims.role"); ok {
		t.Errorf("a claim was forged by a tag: %q", v)
	}
	if v, _ := d.Fact("team"); v != "ads" {
		t.Errorf("a tag in a condition is %q", v)
	}
}

// The mode of a violation is the rollout's, else the rule's, the key's, the policy's.
func TestModes(t *testing.T) {
	p := parse(t, `
mode: enforce
tags:
  keys:
    team: {values: [search, ads, platform], carriers: [session, request]}
    soft: {values: [a], mode: warn, carriers: [session, request]}
    cost: {pattern: 'CC-\d', carriers: [session, request]}
    stage: {values: [prod, dev]}
  rules:
    - {name: gentle, when: {stage: prod}, require: [cost], mode: warn}
    - {name: strict, when: {stage: dev}, forbid: [cost]}
rollout:
  - {when: {team: ads}, keys: [cost], mode: observe}
  - {when: {team: ads}, mode: warn}
  - {when: {caller: robot}, mode: observe}
`)
	for _, tt := range []struct {
		name    string
		caller  string
		asked   []Asked
		outcome waybill.PolicyOutcome
		modes   string
		request string
		session string
	}{
		{"the policy's", "u", ask("team", "moon"), waybill.PolicyRefused, "team:not_allowed=enforce", "", ""},
		{"the key's; the value is dropped", "u", ask("soft", "moon"), waybill.PolicyWarned, "soft:not_allowed=warn", "", ""},
		{"the rule's", "u", ask("stage", "prod"), waybill.PolicyWarned, "cost:missing=warn", "stage=prod", ""},
		{"the rollout's first entry that covers the key; the value stays on the request only", "u", ask("team", "ads", "cost", "7"), waybill.PolicyAllowed, "cost:pattern=observe", "cost=7 team=ads", "team=ads"},
		{"the rollout's later entry", "u", ask("team", "ads", "stage", "moon"), waybill.PolicyWarned, "stage:not_allowed=warn", "team=ads", "team=ads"},
		{"a caller's own", "robot", ask("team", "moon"), waybill.PolicyAllowed, "team:not_allowed=observe", "team=moon", ""},
		{"what AWS does not take is dropped in any mode", "robot", ask("team", "m%n"), waybill.PolicyAllowed, "team:not_allowed=observe", "", ""},
		{"a value of the vocabulary stays where a rule against it is not enforced", "u", ask("team", "ads", "stage", "dev", "cost", "CC-1"), waybill.PolicyAllowed, "cost:forbidden=observe", "cost=CC-1 stage=dev team=ads", "cost=CC-1 team=ads"},
		{"and goes where it is", "u", ask("stage", "dev", "cost", "CC-1"), waybill.PolicyRefused, "cost:forbidden=enforce", "stage=dev", ""},
	} {
		d := p.Decide(&Request{Principal: waybill.Principal{Subject: tt.caller}, Asked: tt.asked})
		var modes []string
		for _, v := range d.Violations {
			modes = append(modes, v.Key+":"+v.Code+"="+string(v.Mode))
		}
		if d.Outcome != tt.outcome || strings.Join(modes, " ") != tt.modes || tagsText(d.Request) != tt.request || tagsText(d.Session) != tt.session {
			t.Errorf("%s: %s %v, request %q, session %q; want %s %s, %q, %q", tt.name, d.Outcome, modes, tagsText(d.Request), tagsText(d.Session), tt.outcome, tt.modes, tt.request, tt.session)
		}
	}
}

// What a rule demands is demanded, whatever gentler rules say of the same key and
// whichever stands first; and a gentle rule does not excuse what the key itself demands.
func TestTheOrderOfRulesChangesNothing(t *testing.T) {
	const keys = "tags: {keys: {stage: {}, cost: {values: [a, b, c]}, owner: {required: true, default: x}, soft: {pattern: 'S-\\d', mode: warn}}, rules: ["
	for _, tt := range []struct {
		name, one, two, tags string
		asked                []Asked
		modes                string
	}{
		{"two demand a key", "{when: {stage: prod}, require: [cost], mode: observe}", "{when: {stage: prod}, require: [cost]}",
			"owner=x stage=prod", ask("stage", "prod"), "cost:missing=enforce"},
		{"two narrow a key", "{when: {stage: prod}, allow: {cost: [a]}, mode: observe}", "{when: {stage: prod}, allow: {cost: [b]}}",
			"owner=x stage=prod", ask("stage", "prod", "cost", "c"), "cost:not_allowed=enforce cost:not_allowed=observe"},
		{"one narrows and one forbids", "{when: {stage: prod}, allow: {cost: [a]}, mode: warn}", "{when: {stage: prod}, forbid: [cost]}",
			"owner=x stage=prod", ask("stage", "prod", "cost", "c"), "cost:forbidden=enforce cost:not_allowed=warn"},
		{"neither is enforced", "{when: {stage: prod}, allow: {cost: [a]}, mode: warn}", "{when: {stage: prod}, forbid: [cost], mode: observe}",
			"cost=c owner=x stage=prod", ask("stage", "prod", "cost", "c"), "cost:forbidden=observe cost:not_allowed=warn"},
		{"rubbish is no better than nothing", "{when: {stage: prod}, require: [soft], mode: enforce}", "{when: {stage: prod}, require: [soft], mode: warn}",
			"owner=x stage=prod", ask("stage", "prod", "soft", "rubbish"), "soft:missing=enforce soft:pattern=warn"},
		{"and is told once where nothing is stricter", "{when: {stage: prod}, require: [soft], mode: observe}", "{when: {stage: prod}, require: [soft], mode: warn}",
			"owner=x stage=prod", ask("stage", "prod", "soft", "rubbish"), "soft:pattern=warn"},
	} {
		for _, rules := range []string{tt.one + ", " + tt.two, tt.two + ", " + tt.one} {
			d := parse(t, keys+rules+"]}\n").Decide(&Request{Asked: tt.asked})
			var modes []string
			for _, v := range d.Violations {
				modes = append(modes, v.Key+":"+v.Code+"="+string(v.Mode))
			}
			slices.Sort(modes)
			if got := strings.Join(modes, " "); got != tt.modes || tagsText(d.Tags) != tt.tags {
				t.Errorf("%s, rules %s: %s, %s; want %s, %s", tt.name, rules, got, tagsText(d.Tags), tt.modes, tt.tags)
			}
		}
	}
	if r := parse(t, keys+"{when: {stage: prod}, allow: {cost: [a]}}, {when: {stage: prod}, allow: {cost: [b]}}]}").Decide(&Request{Asked: ask("stage", "prod", "cost", "c")}).Reasons(); strings.Join(r, ",") != "cost:not_allowed" {
		t.Errorf("two rules that are broken in one way are recorded as %v", r)
	}
	d := parse(t, "tags: {keys: {team: {required: true}}, rules: [{when: {caller: '*'}, require: [team], mode: observe}]}").Decide(&Request{Principal: waybill.Principal{Subject: "user-17"}})
	if d.Outcome != waybill.PolicyRefused || len(d.Violations) != 1 {
		t.Errorf("a required key that a rule observes: %s %v", d.Outcome, d.Reasons())
	}
}

// Keys that nobody declared are one violation, however many there are.
func TestUnknownKeysAreRefused(t *testing.T) {
	p := parse(t, "unknown: refuse\ntags: {keys: {team: {}}}\n")
	d := p.Decide(&Request{Asked: ask("a", "1", "team", "x", "b", "2", "c", "3")})
	if d.Outcome != waybill.PolicyRefused || strings.Join(d.Reasons(), ",") != ":unknown_key" || !strings.Contains(d.Refusal().Message, "3 tags were sent whose keys the policy does not know") {
		t.Errorf("%s %v %v", d.Outcome, d.Reasons(), d.Refusal())
	}
}

// An empty value is no value, also of a key whose values are hashed.
func TestEmptyValues(t *testing.T) {
	p := parse(t, "tags: {keys: {plain: {required: true}, hashed: {required: true, transform: hmac}, listed: {required: true, values: [a]}}}\n")
	d := p.Decide(&Request{Asked: ask("plain", "", "hashed", "", "listed", "")})
	if got := strings.Join(d.Reasons(), ","); got != "plain:bad_characters,hashed:bad_characters,listed:not_allowed" || d.Tags.Len() > 0 {
		t.Errorf("%s, tags %s", got, tagsText(d.Tags))
	}
}

// A request may bring any number of tags in its body; the first of a key counts.
func TestManyAskedTags(t *testing.T) {
	p := parse(t, "tags: {keys: {team: {required: true}}}\n")
	asked := make([]Asked, 1<<16)
	for i := range asked {
		asked[i] = Asked{"x", "y", "requestMetadata"}
	}
	for _, i := range []int{0, 1<<15 - 1, 1 << 15, 1<<16 - 1} {
		asked[i] = Asked{"team", "search", "requestMetadata"}
		if d := p.Decide(&Request{Asked: asked}); tagsText(d.Tags) != "team=search" {
			t.Errorf("a tag at place %d: %s %v", i, tagsText(d.Tags), d.Reasons())
		}
		asked[i] = Asked{"x", "y", "requestMetadata"}
	}
}

// Where the request is full, what is only observed and what no key declares stay off it:
// they take no place from the policy's own tags.
func TestTheRequestIsFull(t *testing.T) {
	var keys []string
	asked := ask("a", "moon", "b", "moon", "extra", "x")
	for i := range 15 {
		keys = append(keys, fmt.Sprintf("key%02d: {required: true}", i))
		asked = append(asked, ask(fmt.Sprintf("key%02d", i), "x")...)
	}
	p := parse(t, "mode: observe\nunknown: pass\ntags: {keys: {a: {carriers: [session], values: [x]}, b: {carriers: [session], values: [x]}, "+strings.Join(keys, ", ")+"}}\n")
	d := p.Decide(&Request{Asked: asked})
	if d.Request.Len() != 16 {
		t.Errorf("%d tags on the request", d.Request.Len())
	}
	for i := range 15 {
		if _, there := d.Request.Get(fmt.Sprintf("key%02d", i)); !there {
			t.Errorf("key%02d gave way to a tag that breaks the policy: %s", i, tagsText(d.Request))
		}
	}
}

// A refusal lists every missing and bad tag, with what would be right, and never what
// was sent.
func TestRefusalListsEverything(t *testing.T) {
	p := parse(t, `
tags:
  keys:
    team: {required: true, values: [search, ads]}
    cost: {required: true, pattern: 'CC-\d{4}'}
    days: {required: true, range: {min: 1, max: 9}}
    who: {required: true, from: claims.sub}
    stage: {values: [prod, dev]}
    gone: {forbidden: true}
    name: {maxLength: 3}
  rules:
    - {name: prod needs a name, when: {stage: prod}, require: [name]}
`)
	e := p.Decide(&Request{Asked: ask("stage", "prod", "gone", "zzz-secret-1", "days", "zzz-secret-2")}).Refusal()
	for _, want := range []string{`"team" is required`, "search, ads", `"cost" is required`, `CC-\d{4}`, "from 1 to 9", "claims.sub", `"gone" is forbidden`, `"name" is required when {stage: prod}`} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("the refusal lacks %q: %s", want, e.Message)
		}
	}
	if strings.Contains(e.Message, "zzz") {
		t.Errorf("the refusal repeats what was sent: %s", e.Message)
	}
}

// What looks sensitive is refused, hashed or redacted, and never told.
func TestSensitiveValues(t *testing.T) {
	const mail = "someone.private@example.com"
	p := parse(t, `
tags:
  keys:
    strict: {}
    hashed: {sensitive: hash}
    redacted: {sensitive: redact}
    open: {sensitive: allow}
    listed: {values: ['team@example.com']}
`)
	d := p.Explain(&Request{Asked: ask("strict", mail, "hashed", mail, "redacted", mail, "open", mail, "listed", "team@example.com")})
	hash := d.Tags.Map()["hashed"]
	if epoch, ok := IsPseudonym(hash); !ok || epoch != "1" {
		t.Errorf("hashed is %q", hash)
	}
	if got, want := tagsText(d.Tags), "hashed="+hash+" listed=team@example.com open="+mail+" redacted=redacted"; got != want {
		t.Errorf("tags %s, want %s", got, want)
	}
	if strings.Join(d.Reasons(), ",") != "strict:sensitive_email" || d.Outcome != waybill.PolicyRefused {
		t.Errorf("%s %v", d.Outcome, d.Reasons())
	}
	told := fmt.Sprint(d.Violations, d.Steps, d.Refusal().Message)
	if strings.Contains(told, "someone") {
		t.Errorf("the value is told: %s", told)
	}
	observed := parse(t, "mode: observe\ntags: {keys: {strict: {}}}\n").Decide(&Request{Asked: ask("strict", mail)})
	if observed.Tags.Len() != 0 || observed.Outcome != waybill.PolicyAllowed {
		t.Errorf("a sensitive value leaves in observe mode: %s", tagsText(observed.Tags))
	}
	named := p.Decide(&Request{Principal: waybill.Principal{Subject: mail}})
	if _, ok := IsPseudonym(named.SessionName); !ok {
		t.Errorf("a session is named %q", named.SessionName)
	}
	bare, err := Parse("p.yaml", []byte("tags: {keys: {a: {}}}"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if name := bare.Decide(&Request{Principal: waybill.Principal{Subject: mail}}).SessionName; strings.Contains(name, "someone") {
		t.Errorf("without a secret a session is named %q", name)
	}
}

// A new epoch makes new pseudonyms; the old ones are resolved by their own, until it is
// destroyed.
func TestEpochs(t *testing.T) {
	day := func(s string) time.Time { d, _ := waybill.ParseDay(s); return d.Start() }
	epochs := []Epoch{{ID: "1", Key: []byte("0123456789abcdef-one")}, {ID: "2", Key: []byte("0123456789abcdef-two"), From: day("2026-10-01")}}
	p, err := Parse("p.yaml", []byte("tags: {keys: {user: {from: caller.subject, transform: hmac}}}"), Options{Epochs: epochs})
	if err != nil {
		t.Fatal(err)
	}
	at := func(when time.Time) string {
		return p.Decide(&Request{At: when, Principal: waybill.Principal{Subject: "user-17"}}).Tags.Map()["user"]
	}
	first, second := at(day("2026-09-30")), at(day("2026-10-01"))
	if !strings.HasPrefix(first, "h1-") || !strings.HasPrefix(second, "h2-") || first[3:] == second[3:] || at(time.Time{}) != second {
		t.Errorf("pseudonyms %s, %s, %s", first, second, at(time.Time{}))
	}
	candidates := func(yield func(string) bool) {
		for i := range 30 {
			if !yield(fmt.Sprintf("user-%d", i)) {
				return
			}
		}
	}
	for _, pseudonym := range []string{first, second} {
		if who, found, err := Resolve(epochs, "user", pseudonym, candidates); who != "user-17" || !found || err != nil {
			t.Errorf("%s is %q, %v, %v", pseudonym, who, found, err)
		}
		if _, found, _ := Resolve(epochs, "team", pseudonym, candidates); found {
			t.Error("a pseudonym of one key is resolved under another")
		}
	}
	gone := day("2026-11-01")
	epochs[0].Key, epochs[0].Destroyed = nil, &gone
	if _, _, err := Resolve(epochs, "user", first, candidates); err == nil || !strings.Contains(err.Error(), "destroyed") {
		t.Errorf("a destroyed epoch still resolves: %v", err)
	}
	if p, err = Parse("p.yaml", []byte("tags: {keys: {user: {from: caller.subject, transform: hmac}}}"), Options{Epochs: epochs}); err != nil {
		t.Fatal(err)
	}
	if got := at(day("2026-09-30")); got != second {
		t.Errorf("with the first epoch destroyed a call is of %s, want %s", got, second)
	}
}

// Who is behind a pseudonym is found also where the key folds case before it hashes.
func TestResolveFolded(t *testing.T) {
	epochs := []Epoch{{ID: "1", Key: []byte("0123456789abcdef-one")}}
	p, err := Parse("p.yaml", []byte("tags: {keys: {user: {from: caller.subject, transform: hmac, foldCase: true}}}"), Options{Epochs: epochs})
	if err != nil {
		t.Fatal(err)
	}
	pseudonym := p.Decide(&Request{Principal: waybill.Principal{Subject: "User-17"}}).Tags.Map()["user"]
	who, found, err := Resolve(epochs, "user", pseudonym, slices.Values([]string{"User-16", "User-17"}))
	if who != "User-17" || !found || err != nil {
		t.Errorf("%s is %q, %v, %v", pseudonym, who, found, err)
	}
}

// A session name that had to be changed is no other caller's.
func TestSessionNames(t *testing.T) {
	p := parse(t, "tags: {keys: {team: {}}}\n")
	seen := make(map[string]string)
	for _, subject := range []string{"", "a", "A", "wb-a", "a/b", "a-b", "a:b", "ä", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("x", 66)} {
		req := &Request{Principal: waybill.Principal{Subject: subject}}
		name := p.Decide(req).SessionName
		if again := p.Decide(req).SessionName; again != name {
			t.Errorf("%q is %s, and then %s", subject, name, again)
		}
		if other, taken := seen[name]; taken {
			t.Errorf("%q and %q have one session name: %s", subject, other, name)
		}
		seen[name] = subject
	}
}

func TestParseEpochs(t *testing.T) {
	good := `{"epoch":"2","key":"MDEyMzQ1Njc4OWFiY2RlZg==","from":"2026-10-01T00:00:00Z"}

{"epoch":"1","key":"MDEyMzQ1Njc4OWFiY2RlZg=="}
{"epoch":"0","destroyed":"2026-10-01T00:00:00Z"}
`
	got, err := ParseEpochs("k.jsonl", []byte(good))
	if err != nil || len(got) != 3 || got[2].ID != "2" {
		t.Fatalf("%v, %v", got, err)
	}
	for _, tt := range []struct{ line, want string }{
		{`{"epoch":"1","key":"c2VjcmV0"}`, "shorter than 16"},
		{`{"epoch":"x-1","key":"MDEyMzQ1Njc4OWFiY2RlZg=="}`, "letters and digits"},
		{`{"epoch":"1","secret":"MDEyMzQ1Njc4OWFiY2RlZg=="}`, "is not an epoch"},
		{`{"epoch":"1","key":"MDEyMzQ1Njc4OWFiY2RlZg==","destroyed":"2026-10-01T00:00:00Z"}`, "still has its key"},
		{"{\"epoch\":\"1\",\"key\":\"MDEyMzQ1Njc4OWFiY2RlZg==\"}\n{\"epoch\":\"1\",\"key\":\"MDEyMzQ1Njc4OWFiY2RlZg==\"}", "k.jsonl:2: epoch 1 is there twice"},
	} {
		_, err := ParseEpochs("k.jsonl", []byte(tt.line))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "MDEy") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%s: %v, want %s", tt.line, err, tt.want)
		}
	}
}

// What takes the place of a value counts as a value of the key, where the room of a
// session is reckoned.
func TestRoomForWhatTakesAPlace(t *testing.T) {
	for _, tt := range []struct {
		key  string
		room int
	}{
		{"{maxLength: 3}", 3}, {"{maxLength: 3, sensitive: redact}", len("redacted")}, {"{maxLength: 3, sensitive: hash}", len("h1-0123456789abcdef0123")},
		{"{maxLength: 3, maxDistinct: {limit: 9, action: other}}", len("other")}, {"{range: {min: 1, max: 9}, sensitive: hash}", len("h1-0123456789abcdef0123")},
		{"{values: [search], sensitive: hash}", len("search")},
	} {
		for _, room := range []int{tt.room, tt.room - 1} {
			src := fmt.Sprintf("session: {budget: %d}\ntags: {keys: {k: %s}}\n", 1+room, strings.Replace(tt.key, "{", "{required: true, carriers: [session], ", 1))
			if _, err := Parse("p.yaml", []byte(src), secret); (err == nil) != (room == tt.room) {
				t.Errorf("%s in a room of %d: %v", tt.key, room, err)
			}
		}
	}
}

// Old names are taken in any case where the key's values are.
func TestReorganisedInAnyCase(t *testing.T) {
	p := parse(t, `
tags: {keys: {team: {values: [search, ads], foldCase: true}, unit: {foldCase: true}, plain: {}}}
reorganisations:
  - {key: team, from: 2026-10-01, became: {Growth: ads}}
  - {key: unit, from: 2026-10-01, became: {growth: ads}}
  - {key: plain, from: 2026-10-01, became: {growth: ads}}
`)
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, sent := range []string{"growth", "Growth", "GROWTH"} {
		d := p.Decide(&Request{At: at, Asked: ask("team", sent, "unit", sent)})
		if got := tagsText(d.Tags); got != "team=ads unit=ads" {
			t.Errorf("%s: %s %v", sent, got, d.Reasons())
		}
	}
	if got := tagsText(p.Decide(&Request{At: at, Asked: ask("plain", "Growth")}).Tags); got != "plain=Growth" {
		t.Errorf("a key that does not fold: %s", got)
	}
	if got := p.Reorganised("team", "growth", 1, waybill.DayOf(at)); got != "ads" {
		t.Errorf("a report shows %s", got)
	}
}

// A key whose values go to another takes no place on a carrier.
func TestReplacedKeysTakeNoPlace(t *testing.T) {
	var keys []string
	for i := range 16 {
		keys = append(keys, fmt.Sprintf("k%d: {}", i), fmt.Sprintf("old%d: {deprecated: {use: k%d}}", i, i))
	}
	p := parse(t, "tags: {keys: {"+strings.Join(keys, ", ")+"}}\n")
	if d := p.Decide(&Request{Asked: ask("old7", "x")}); tagsText(d.Request) != "k7=x" {
		t.Errorf("request %s", tagsText(d.Request))
	}
}

// A report can show values as a reorganisation has them, or as they were stamped.
func TestReorganised(t *testing.T) {
	p := parse(t, `
tags: {keys: {team: {}, stage: {}}}
reorganisations:
  - {key: team, from: 2026-03-01, until: 2026-09-01, became: {growth: ads}}
  - {key: team, from: 2026-06-01, became: {ads: marketing, search: find, find: search}}
`)
	day := func(s string) waybill.Day { d, _ := waybill.ParseDay(s); return d }
	for _, tt := range []struct{ value, stamped, asOf, want string }{
		{"growth", "2026-01-10", "2026-02-01", "growth"},
		{"growth", "2026-01-10", "2026-03-01", "ads"},
		{"growth", "2026-01-10", "2026-07-01", "marketing"},
		{"growth", "2026-09-02", "2026-12-01", "growth"}, // a new team of an old name
		{"search", "2026-01-10", "2026-07-01", "find"},   // a swap is one step
		{"find", "2026-01-10", "2026-07-01", "search"},
		{"platform", "2026-01-10", "2026-07-01", "platform"},
	} {
		if got := p.Reorganised("team", tt.value, day(tt.stamped), day(tt.asOf)); got != tt.want {
			t.Errorf("%s stamped on %s is %s as of %s, want %s", tt.value, tt.stamped, got, tt.asOf, tt.want)
		}
	}
	if got := p.Reorganised("stage", "growth", 1, day("2026-07-01")); got != "growth" {
		t.Errorf("another key's value became %s", got)
	}
}

// An organisation's vocabulary is imported, and what a gateway says of it narrows it.
func TestImport(t *testing.T) {
	files := map[string]string{
		"org/vocabulary.yaml": "import: more/keys.yaml\nmode: warn\nsession: {name: 'x-{team}'}\ntags: {keys: {team: {values: [search, ads, platform], aliases: {find: search, advert: ads}, default: ads}}, rules: [{when: {team: search}, require: [cost]}]}\n",
		"org/more/keys.yaml":  "tags: {keys: {cost: {pattern: 'CC-\\d'}}}\n",
	}
	open := func(name string) ([]byte, error) {
		if src, ok := files[name]; ok {
			return []byte(src), nil
		}
		return nil, fmt.Errorf("%s is not there", name)
	}
	const local = "import: [org/vocabulary.yaml, org/more/keys.yaml]\ntags: {keys: {team: {required: true, values: [search], carriers: [session]}, cost: {mode: enforce}, own: {}}}\n"
	p, err := Parse("policy.yaml", []byte(local), Options{Open: open})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Keys(), " "); got != "cost team own" {
		t.Errorf("keys %s", got)
	}
	d := p.Decide(&Request{Asked: ask("team", "find", "own", "x")})
	if d.SessionName != "x-search" || tagsText(d.Session) != "team=search" || fmt.Sprint(d.Violations) != `[{cost missing rule 1 tag "cost" is required when {team: search} send it in X-Waybill-Tags; the pattern is CC-\d enforce}]` {
		t.Errorf("%s, %s, %v", d.SessionName, tagsText(d.Session), d.Violations)
	}
	if d := p.Decide(&Request{Asked: ask("team", "ads")}); strings.Join(d.Reasons(), ",") != "team:not_allowed" || d.Outcome != waybill.PolicyWarned {
		t.Errorf("a value that was narrowed away: %s %v", d.Outcome, d.Reasons())
	}
	version := p.Version()
	files["org/more/keys.yaml"] += "# changed\n"
	if p, err = Parse("policy.yaml", []byte(local), Options{Open: open}); err != nil || p.Version() == version {
		t.Errorf("a changed import does not change the version (%v)", err)
	}
}

// What is imported holds where nothing nearer says otherwise, and what narrows it keeps
// the rest of it.
func TestImportFillsIn(t *testing.T) {
	files := map[string]string{
		"/policy.yaml": "import: [org.yaml, /x/../base.yaml]\ntags: {keys: {topic: {maxDistinct: 1}, mail: {carriers: session}}}\n",
		"/org.yaml":    "import: base.yaml\nmode: warn\nsensitive: redact\ntags: {keys: {topic: {maxDistinct: {limit: 100, action: other, days: 60}}, mail: {carriers: [request, session]}}}\n",
		"/base.yaml":   "import: /y/../policy.yaml\nmode: observe\nsession: {name: 'base-{caller}'}\ntags: {keys: {mail: {maxLength: 50}}, rules: [{when: {caller: user-17}, require: [topic]}]}\n",
	}
	p, err := Parse("/policy.yaml", []byte(files["/policy.yaml"]), Options{Open: func(name string) ([]byte, error) {
		if src, ok := files[name]; ok {
			return []byte(src), nil
		}
		return nil, fmt.Errorf("%s is not there", name)
	}})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGuard(p)
	sendOn(p, g, 1, "topic", "a")
	d := p.Decide(&Request{Guard: g, Principal: waybill.Principal{Subject: "user-17"}, Asked: ask("mail", "someone@example.com")})
	if d.Outcome != waybill.PolicyWarned || strings.Join(d.Reasons(), ",") != "topic:missing" || tagsText(d.Session) != "mail=redacted" || d.Request.Len() != 0 || d.SessionName != "base-user-17" {
		t.Errorf("%s %v, session %s %s", d.Outcome, d.Reasons(), d.SessionName, tagsText(d.Session))
	}
	if d := sendOn(p, g, 1, "topic", "b"); tagsText(d.Request) != "topic=other" || p.keys[p.byName["topic"]].days != 60 {
		t.Errorf("a smaller bound forgot what is done at it: %s", tagsText(d.Request))
	}
}

// A decision depends on nothing but its arguments, and Explain decides like Decide.
func TestExplainDecidesLikeDecide(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		p := randomPolicy(t, r)
		for range 20 {
			req := randomRequest(r, p)
			a, b, c := p.Decide(req), p.Decide(req), p.Explain(req)
			for _, other := range []*Decision{b, c} {
				if a.Outcome != other.Outcome || !a.Tags.Equal(other.Tags) || !a.Request.Equal(other.Request) || !a.Session.Equal(other.Session) || a.SessionName != other.SessionName || fmt.Sprint(a.Violations) != fmt.Sprint(other.Violations) {
					t.Fatalf("two decisions of one request: %+v, %+v", a, other)
				}
			}
		}
	}
}

// randomPolicy is any policy that the parser takes.
func randomPolicy(t *testing.T, r *rand.Rand) *Policy {
	t.Helper()
	for {
		pick := func(s ...string) string { return s[r.IntN(len(s))] }
		var b strings.Builder
		fmt.Fprintf(&b, "unknown: %s\nmode: %s\nsensitive: %s\nsession: {name: '%s'}\ntags:\n  keys:\n", pick("drop", "refuse", "pass"), pick("enforce", "warn", "observe"),
			pick("reject", "hash", "redact", "allow"), pick("{caller}", "{k0}", "a-{claims.department}={model}", "x"))
		for i := range 1 + r.IntN(20) {
			parts := []string{"carriers: " + pick("[request]", "[session]", "[session, request]", "[resource, request]", "[]")}
			for _, optional := range []string{"required: true", "from: caller.subject", "from: claims.department", "values: [a, b, c]", "foldCase: true", "maxLength: 20", "replaceCharacters: '-'",
				"default: a", "sensitive: hash", "sensitive: allow", "maxDistinct: 3", "maxDistinct: {limit: 2, action: other}", "maxDistinct: {limit: 2, action: observe}", "mode: observe", "mode: warn", "highCardinality: true", "aliases: {x: a}", "pattern: '[a-z ]*'", "transform: hmac"} {
				if r.IntN(7) == 0 {
					parts = append(parts, optional)
				}
			}
			fmt.Fprintf(&b, "    k%d: {%s}\n", i, strings.Join(parts, ", "))
		}
		b.WriteString("  rules:\n")
		for range 1 + r.IntN(4) {
			fmt.Fprintf(&b, "    - {when: {%s: '%s'}, %s}\n", pick("k0", "model", "caller"), pick("a", "*", "b*"), pick("require: [k0]", "forbid: [k0]", "allow: {k0: [a, 'b*']}", "require: [k0], mode: observe"))
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "rollout: [{when: {k0: '%s'}, mode: %s}]\nreorganisations: [{key: k0, from: 2026-01-01, became: {d: a}}]\n", pick("a", "*"), pick("warn", "observe"))
		}
		if p, err := Parse("p.yaml", []byte(b.String()), secret); err == nil {
			return p
		}
	}
}

var nasty = []rune("abcXYZ019 _.:/=+-@%$#,ä\n\x00\"\\漢é\u2028\x7f")

func randomText(r *rand.Rand, n int) string {
	out := make([]rune, r.IntN(n))
	for i := range out {
		out[i] = nasty[r.IntN(len(nasty))]
	}
	return string(out)
}

func randomRequest(r *rand.Rand, p *Policy) *Request {
	req := &Request{CallID: "0195e000-0000-7000-8000-000000000001", Principal: waybill.Principal{Subject: randomText(r, 300), Claims: map[string]string{"department": randomText(r, 300)}}, Model: "amazon.nova-lite-v1:0"}
	if r.IntN(2) == 0 {
		req.At = time.Unix(1_800_000_000, 0)
	}
	for range r.IntN(30) {
		req.Asked = append(req.Asked, Asked{randomText(r, 200), randomText(r, 400), "test"})
	}
	for _, k := range p.Keys() {
		switch r.IntN(4) {
		case 0:
			req.Asked = append(req.Asked, Asked{strings.ToUpper(k), randomText(r, 300), "test"})
		case 1:
			req.Asked = append(req.Asked, Asked{k, []string{"a", "b", "d", "x", "user@example.com"}[r.IntN(5)], "test"})
		case 2:
			req.Principal.Tags = waybill.NewTags(append(req.Principal.Tags.List(), waybill.Tag{Key: k, Value: randomText(r, 30)})...)
		}
	}
	return req
}

// Whatever the policy and whatever the request: no output breaks an AWS limit, no
// required tag is missing from a call that passes an enforced policy, and no value that
// looks sensitive leaves unless the policy allows it.
func TestNoOutputBreaksALimit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	for range 400 {
		p := randomPolicy(t, r)
		guard := NewGuard(p)
		for range 25 {
			req := randomRequest(r, p)
			req.Guard = guard
			d := p.Decide(req)
			checkLimits(t, p, d)
			if d.Outcome != waybill.PolicyRefused && p.mode == Enforce && len(p.rollout) == 0 {
				for _, k := range p.keys {
					if _, there := d.Tags.Get(k.name); k.required && !there && k.mode == "" {
						t.Fatalf("a call without required %s passes: %v", k.name, d.Violations)
					}
				}
			}
		}
	}
}

func checkLimits(t *testing.T, p *Policy, d *Decision) {
	t.Helper()
	if d.Request.Len() > 16 || d.Session.Len() > 50 || d.Resource.Len() > 50 || len(d.Request.Canonical()) > 8500 {
		t.Fatalf("%d request tags, %d session tags, %d resource tags", d.Request.Len(), d.Session.Len(), d.Resource.Len())
	}
	for _, set := range []waybill.Tags{d.Request, d.Session, d.Resource, d.Tags} {
		folded := make(map[string]bool)
		last := ""
		for k, v := range set.All() {
			if badText(k, 1, 128) != "" || badText(v, 1, 256) != "" || strings.HasPrefix(strings.ToLower(k), "aws:") {
				t.Fatalf("tag %q=%q", k, v)
			}
			if folded[strings.ToLower(k)] || k <= last && last != "" {
				t.Fatalf("key %q twice in case, or out of order after %q", k, last)
			}
			folded[strings.ToLower(k)], last = true, k
			if _, sensitive := screen.Value(v); sensitive {
				key := p.byNameKey(k)
				if key == nil || (key.sensitive != "allow" && (key.sensitive != "" || p.sensitive != "allow")) && len(key.values) == 0 {
					f, _ := screen.Value(v)
					t.Fatalf("a sensitive value leaves under %s: %q looks like %s", k, v, f.Name)
				}
			}
		}
	}
	for k := range d.Session.All() {
		if key := p.byNameKey(k); key == nil || !key.on(OnSession) || key.high {
			t.Fatalf("%s rides on the session", k)
		}
	}
	if n := len(d.SessionName); n < 2 || n > 64 || strings.Trim(d.SessionName, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+=,.@-") != "" {
		t.Fatalf("session name %q", d.SessionName)
	}
}

// A default that is known to be kept comes to what it would if it were looked at each
// time, as Explain does: also where a caller sends it, and where it is kept as another.
func TestDefaultsAreSettled(t *testing.T) {
	p := parse(t, `version: 1
sensitive: hash
tags:
  keys:
    plain: {default: v0, pattern: 'v\d+'}
    number: {default: "30", range: {min: 1, max: 365}}
    listed: {default: production, values: [production, staging], aliases: {prod: production}, foldCase: true}
    folded: {default: Blue, foldCase: true}
    mail: {default: someone@example.com}
    moved: {default: old}
`)
	for _, sent := range []string{"", "v0", "v1", "30", "31", "prod", "production", "Blue", "blue", "old", "someone@example.com", "a", "a b!", "nonsense?"} {
		for _, k := range p.Keys() {
			req := &Request{At: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}
			if sent != "" {
				req.Asked = ask(k, sent)
			}
			got, want := p.Decide(req), p.Explain(req)
			if !got.Tags.Equal(want.Tags) || !got.Request.Equal(want.Request) || !got.Session.Equal(want.Session) || fmt.Sprint(got.Violations) != fmt.Sprint(want.Violations) {
				t.Errorf("%s=%q: %s with %v, want %s with %v", k, sent, got.Tags.Canonical(), got.Violations, want.Tags.Canonical(), want.Violations)
			}
		}
	}
}
