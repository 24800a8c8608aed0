package control

import (
	"slices"
	"strings"
	"testing"
)

// The table has an answer for every mechanism on every path, and says where a mechanism
// does not go what stands in for it.
func TestCarriagesAreWhole(t *testing.T) {
	for _, m := range Mechanisms {
		if showings[m].Delay == "" || showings[m].Needs == "" || showings[m].Grain == "" {
			t.Errorf("%s: what it shows is not told", m)
		}
		for _, p := range Paths {
			c := CarriageOf(m, p.Name)
			if !slices.Contains([]Reach{Reaches, DoesNot, Unconfirmed}, c.Reach) || c.How == "" {
				t.Errorf("%s on %s: %+v", m, p.Name, c)
			}
		}
		if len(carriages[m]) != len(Paths) {
			t.Errorf("%s: %d paths, want %d", m, len(carriages[m]), len(Paths))
		}
	}
}

// The mechanism follows the question, as AWS's page of best practices has it.
func TestMechanismFollowsQuestion(t *testing.T) {
	tests := []struct {
		ask   []Question
		on    []string
		want  []Mechanism
		basis string
		gaps  []string
	}{
		{[]Question{Teams}, []string{"converse"}, []Mechanism{ByPrincipal}, "invoice", nil},
		{[]Question{Teams}, nil, []Mechanism{ByPrincipal}, "invoice", nil},
		{[]Question{Applications}, []string{"invoke", "converse"}, []Mechanism{ByProfile}, "invoice", nil},
		{[]Question{Applications}, []string{"bedrock-mantle"}, []Mechanism{ByProject, ByWorkspace}, "invoice", nil},
		{[]Question{Applications}, []string{"converse", "mantle-chat"}, []Mechanism{ByProfile, ByProject}, "invoice", nil},
		{[]Question{Applications}, []string{"responses"}, []Mechanism{ByPrincipal}, "invoice", []string{"responses"}},
		{[]Question{Prompts}, []string{"invoke", "converse"}, []Mechanism{ByMetadata, ByLog}, "estimate", nil},
		{[]Question{Prompts}, []string{"mantle-chat"}, []Mechanism{ByTrail}, "estimate", []string{"mantle-chat"}},
		{[]Question{Both}, []string{"converse"}, []Mechanism{ByPrincipal, ByMetadata, ByLog}, "calibrated", nil},
		{[]Question{Teams, Prompts}, []string{"converse"}, []Mechanism{ByPrincipal, ByMetadata, ByLog}, "calibrated", nil},
		{[]Question{Prompts}, []string{"converse", "batch"}, []Mechanism{ByMetadata, ByLog}, "estimate", []string{"batch"}},
	}
	for _, tt := range tests {
		a, err := Advise(Asked{Questions: tt.ask, Paths: tt.on, Keys: []string{"team"}}, Standing{})
		if err != nil {
			t.Errorf("%v on %v: %v", tt.ask, tt.on, err)
			continue
		}
		var got []Mechanism
		for _, u := range a.Mechanisms {
			got = append(got, u.Mechanism)
		}
		var gaps []string
		for _, g := range a.Gaps {
			if g.Instead == "" {
				t.Errorf("%v on %v: nothing stands in on %s", tt.ask, tt.on, g.Path)
			}
			gaps = append(gaps, g.Path)
		}
		if !slices.Equal(got, tt.want) || a.Basis != tt.basis || !slices.Equal(gaps, tt.gaps) {
			t.Errorf("%v on %v: %v, basis %s, gaps %v; want %v, %s, %v", tt.ask, tt.on, got, a.Basis, gaps, tt.want, tt.basis, tt.gaps)
		}
	}
}

// What is missing is told as missing where the account was looked at, and as a thing to
// look at where it was not.
func TestWhatIsMissing(t *testing.T) {
	yes, no := true, false
	ask := Asked{Questions: []Question{Both}, Paths: []string{"converse", "mantle-chat"}, Keys: []string{"team", "costCenter"}, Regions: []string{"us-east-1", "eu-west-1"}}
	texts := func(s Standing, known bool) string {
		a, err := Advise(ask, s)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range a.Missing {
			if m.Known == known {
				out = append(out, m.What)
			}
		}
		return strings.Join(out, "\n")
	}
	if got := texts(Standing{}, true); got != "" {
		t.Errorf("nothing was looked at: %s", got)
	}
	if got := texts(Standing{}, false); strings.Count(got, "\n") != 5 {
		t.Errorf("to look at: %s", got)
	}
	bad := Standing{Logging: map[string]bool{"us-east-1": false, "eu-west-1": true}, PrincipalData: &no, ActiveKeys: []string{"iamPrincipal/team"}, DataEvents: &no}
	got := texts(bad, true)
	for _, want := range []string{"costCenter is not active", "no CUR 2.0 export has", "off in us-east-1", "data events"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "eu-west-1") || strings.Contains(got, "tag team") || texts(bad, false) != "" {
		t.Errorf("too much:\n%s", got)
	}
	good := Standing{Logging: map[string]bool{"us-east-1": true, "eu-west-1": true}, PrincipalData: &yes, ActiveKeys: []string{"team", "costCenter"}, DataEvents: &yes}
	if got := texts(good, true) + texts(good, false); got != "" {
		t.Errorf("everything holds: %s", got)
	}
}

func TestWrongQuestions(t *testing.T) {
	for want, a := range map[string]Asked{
		"no question":           {},
		`"weather" is not`:      {Questions: []Question{"weather"}},
		`path "soap" is not`:    {Questions: []Question{Teams}, Paths: []string{"soap"}},
		`path "bedrock" is not`: {Questions: []Question{Teams}, Paths: []string{"bedrock"}},
	} {
		if _, err := Advise(a, Standing{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", a, err, want)
		}
	}
}

// What AWS refused to say is neither good news nor bad.
func TestStandingOfSnapshot(t *testing.T) {
	on, off, unsaid := Said[Logging]{Value: Logging{On: true}}, Said[Logging]{}, Said[Logging]{Refused: "AccessDenied"}
	region := func(name string, l Said[Logging]) RegionFacts { return RegionFacts{Region: name, Logging: l} }
	s := &Snapshot{Payer: PayerFacts{CostTags: Said[[]CostTag]{Value: []CostTag{{Key: "team", Active: true}, {Key: "cost"}}},
		Exports: Said[[]Export]{Value: []Export{{Properties: map[string]string{"INCLUDE_IAM_PRINCIPAL_DATA": "TRUE"}}}}},
		Accounts: []AccountFacts{{Regions: []RegionFacts{region("both", on), region("one", on), region("half", on), region("off", off), region("silent", unsaid)}},
			{Regions: []RegionFacts{region("both", on), region("one", off), region("half", unsaid), region("off", unsaid)}}}}
	got := StandingOf(s)
	if !slices.Equal(got.ActiveKeys, []string{"team"}) || got.PrincipalData == nil || !*got.PrincipalData {
		t.Errorf("%+v", got)
	}
	if len(got.Logging) != 3 || !got.Logging["both"] || got.Logging["one"] || got.Logging["off"] || !slices.Equal(got.Regions(), []string{"both", "off", "one"}) {
		t.Errorf("%+v", got.Logging)
	}
	s.Payer.CostTags.Refused, s.Payer.Exports.Refused = "AccessDenied", "AccessDenied"
	if got := StandingOf(s); got.ActiveKeys != nil || got.PrincipalData != nil {
		t.Errorf("refused: %+v", got)
	}
}
