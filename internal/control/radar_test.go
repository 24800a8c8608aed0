package control

import (
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/iam"
)

func dollars(t *testing.T, text string) waybill.Money {
	t.Helper()
	m, err := waybill.ParseMoney(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Who is seen, who of them is ours, and what would become of each.
func TestRadar(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 10, n, 0, 0, 0, 0, time.UTC) }
	const acct = "111122223333"
	session := func(role, name string) string { return "arn:aws:sts::" + acct + ":assumed-role/" + role + "/" + name }
	sightings := []Sighting{
		{Source: "gateway", Principal: session("bedrock", "ann"), Action: "bedrock:InvokeModel", Calls: 90, Metered: dollars(t, "9.5"), First: day(2), Last: day(30)},
		{Source: "bill", Principal: session("bedrock", "ann"), Action: "bedrock:InvokeModel", Billed: dollars(t, "9.75"), First: day(2), Last: day(30)},
		{Source: "bill", Principal: "arn:aws:iam::" + acct + ":user/legacy", Action: "bedrock:InvokeModel", Billed: dollars(t, "100.000000000000000001"), First: day(1), Last: day(9)},
		{Source: "log", Principal: "arn:aws:iam::" + acct + ":user/legacy", Action: "bedrock:InvokeModelWithResponseStream", Calls: 7, Metered: dollars(t, "90"), First: day(1), Last: day(9)},
		{Source: "bill", Principal: session("app", "a"), Action: "bedrock-mantle:CreateInference", Billed: dollars(t, "3"), First: day(3), Last: day(3)},
		{Source: "bill", Principal: session("app", "b"), Action: "bedrock-mantle:CreateInference", Billed: dollars(t, "2"), First: day(4), Last: day(4)},
		{Source: "cloudtrail", Principal: session("reader", "r"), RoleARN: "arn:aws:iam::" + acct + ":role/x/reader", Action: "bedrock:ListFoundationModels", Calls: 4, First: day(5), Last: day(5)},
		{Source: "cloudtrail", Principal: session("denied", "r"), RoleARN: "arn:aws:iam::" + acct + ":role/denied", Action: "bedrock:InvokeModel", Calls: 2, Refused: true, First: day(5), Last: day(5)},
		{Source: "bill", Principal: session("glass-1", "oncall"), Action: "bedrock:InvokeModel", Billed: dollars(t, "1"), First: day(6), Last: day(6)},
		{Source: "cloudtrail", Principal: session("AmazonBedrockExecutionRoleForAgents_1", "a"), RoleARN: "arn:aws:iam::" + acct + ":role/service-role/AmazonBedrockExecutionRoleForAgents_1", Action: "bedrock:InvokeModel", Calls: 1, First: day(6), Last: day(6)},
		{Source: "bill", Principal: session("AWSServiceRoleForX", "s"), Action: "bedrock:InvokeModel", Billed: dollars(t, "0.5"), First: day(7), Last: day(7)},
		{Source: "cloudtrail", Principal: session("keyed", "k"), RoleARN: "arn:aws:iam::" + acct + ":role/keyed", Action: "bedrock:ListInferenceProfiles", Bearer: true, Calls: 1, First: day(8), Last: day(8)},
		{Source: "bill", Principal: "arn:aws:iam::777788889999:user/boss", Action: "bedrock:InvokeModel", Billed: dollars(t, "4"), First: day(8), Last: day(8)},
		{Source: "bill", Billed: dollars(t, "0.25")},
	}
	g := &Guard{Gateway: "arn:aws:iam::111122223333:role/waybill/gateway", Roles: []string{"arn:aws:iam::*:role/waybill/bedrock"},
		BreakGlass: BreakGlass{Roles: []string{"arn:aws:iam::*:role/ops/glass-*"}},
		Exceptions: []Exception{{Roles: []string{"arn:aws:iam::*:role/service-role/AmazonBedrockExecutionRoleForAgents_*"}, Why: "agents"}}}
	report, err := Radar(RadarOptions{Guard: g, Management: "777788889999"}, sightings)
	if err != nil {
		t.Fatal(err)
	}
	type line struct{ ours, verdict, why string }
	want := map[string]line{
		"arn:aws:iam::111122223333:user/legacy":                                             {"", Breaks, "bedrock:InvokeModel is denied"},
		"arn:aws:iam::111122223333:role/app":                                                {"", Breaks, "bedrock-mantle:CreateInference is denied"},
		"arn:aws:iam::111122223333:role/x/reader":                                           {"", GoesOn, ""},
		"arn:aws:iam::111122223333:role/denied":                                             {"", GoesOn, ""},
		"arn:aws:iam::111122223333:role/keyed":                                              {"", Breaks, "bedrock:CallWithBearerToken is denied"},
		"arn:aws:iam::111122223333:role/glass-1":                                            {"", Unclear, "leaves out the path"},
		"arn:aws:iam::777788889999:user/boss":                                               {"", NotReached, "do not reach"},
		"arn:aws:iam::111122223333:role/waybill/bedrock":                                    {"gateway", GoesOn, ""},
		"arn:aws:iam::111122223333:role/service-role/AmazonBedrockExecutionRoleForAgents_1": {"exception: agents", GoesOn, ""},
		"arn:aws:iam::111122223333:role/aws-service-role/unknown/AWSServiceRoleForX":        {"", NotReached, "do not reach"},
	}
	if len(report.Suspects) != len(want) {
		t.Errorf("%d principals, want %d", len(report.Suspects), len(want))
	}
	for _, s := range report.Suspects {
		w, ok := want[s.Principal]
		if !ok || s.Ours != w.ours || s.Verdict != w.verdict || !strings.Contains(s.Why, w.why) {
			t.Errorf("%+v, want %+v", s, w)
		}
	}
	first := report.Suspects[0]
	if first.Principal != "arn:aws:iam::111122223333:user/legacy" || first.Billed.String() != "100.000000000000000001" || first.Calls != 7 || !first.First.Equal(day(1)) || !first.Last.Equal(day(9)) || first.Sid != "WaybillOnlyGateway" {
		t.Errorf("the dearest: %+v", first)
	}
	// Dollars add up: round and ours and unnamed are the bill.
	total := report.Round.Billed.Add(report.Ours.Billed).Add(report.Unnamed)
	if total.String() != "120.500000000000000001" {
		t.Errorf("adds up to %s", total)
	}
	if report.Breaks != 3 || report.BreaksOurs != 0 || report.Undecided != 1 || report.Ours.Principals != 2 || report.Looking.Principals != 3 || report.Round.Principals != 5 {
		t.Errorf("%+v", report)
	}
}

// A guard whose roles are not the gateway's is found out before it is attached.
func TestRadarFindsMistakenGuard(t *testing.T) {
	g := &Guard{Gateway: "arn:aws:iam::111122223333:role/waybill/gateway", Roles: []string{"arn:aws:iam::111122223333:role/waybill/other"}}
	report, err := Radar(RadarOptions{Guard: g}, []Sighting{{Source: "gateway", Principal: "arn:aws:sts::111122223333:assumed-role/bedrock/ann", Action: "bedrock:InvokeModel", Calls: 1}})
	if err != nil || report.BreaksOurs != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}

// A policy of the reader's own may hang on what no source tells.
func TestRadarDoesNotGuess(t *testing.T) {
	scp, err := iam.Parse("own", iam.ServiceControl, []byte(`{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"bedrock:*","Resource":"*","Condition":{"StringNotEquals":{"aws:PrincipalTag/team":"ml"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	g := &Guard{Gateway: "arn:aws:iam::111122223333:role/waybill/gateway", Roles: []string{"arn:aws:iam::111122223333:role/waybill/bedrock"}}
	report, err := Radar(RadarOptions{Guard: g, SCPs: []*iam.Policy{scp}}, []Sighting{{Source: "log", Principal: "arn:aws:iam::111122223333:user/ann", Action: "bedrock:InvokeModel", Calls: 1}})
	if err != nil || report.Undecided != 1 || !strings.Contains(report.Suspects[0].Why, "aws:principaltag/team") {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestReadCloudTrail(t *testing.T) {
	const event = `{"eventTime":"2026-10-05T10:00:00Z","eventSource":"%SOURCE%","eventName":"%NAME%","awsRegion":"us-east-1","vpcEndpointId":"vpce-1",
 "userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::111122223333:assumed-role/app/s","sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::111122223333:role/p/app"}}},
 "requestParameters":{"model":"m","callWithBearerToken":true},"resources":[{"ARN":"arn:aws:bedrock-mantle:us-east-1:111122223333:project/default"}]}`
	of := func(source, name string) string {
		return strings.NewReplacer("%SOURCE%", source, "%NAME%", name).Replace(event)
	}
	quoted := func(text string) string { b, _ := plainJSON(text); return string(b) }
	tests := map[string]string{
		"delivered":  `{"Records":[` + of("bedrock-mantle.amazonaws.com", "CreateInference") + `,` + of("s3.amazonaws.com", "GetObject") + `]}`,
		"looked up":  `{"Events":[{"EventName":"x","CloudTrailEvent":` + quoted(of("bedrock-mantle.amazonaws.com", "CreateInference")) + `},{"CloudTrailEvent":` + quoted(of("s3.amazonaws.com", "X")) + `}]}`,
		"one by one": of("bedrock-mantle.amazonaws.com", "CreateInference") + "\n" + of("s3.amazonaws.com", "GetObject"),
	}
	for name, text := range tests {
		got, others, err := ReadCloudTrail(name, strings.NewReader(text))
		if err != nil || len(got) != 1 || others != 1 {
			t.Errorf("%s: %+v, %d others, %v", name, got, others, err)
			continue
		}
		s := got[0]
		if s.Action != "bedrock-mantle:CreateInference" || s.RoleARN != "arn:aws:iam::111122223333:role/p/app" || !s.Bearer || s.Resource == "" || s.Context["aws:SourceVpce"][0] != "vpce-1" || s.Refused {
			t.Errorf("%s: %+v", name, s)
		}
	}
	got, _, err := ReadCloudTrail("x", strings.NewReader(of("bedrock.amazonaws.com", "ConverseStream")))
	if err != nil || got[0].Action != "bedrock:InvokeModelWithResponseStream" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, _, err := ReadCloudTrail("x", strings.NewReader(`{"Records":[`)); err == nil || !strings.Contains(err.Error(), "x") {
		t.Errorf("a cut file: %v", err)
	}
}

// Whatever a file holds, reading it ends, and what is read can be judged.
func FuzzReadCloudTrail(f *testing.F) {
	f.Add(`{"Records":[{"eventTime":"2026-10-05T10:00:00Z","eventSource":"bedrock.amazonaws.com","eventName":"Converse","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/u"}}]}`)
	f.Add(`{"Events":[{"CloudTrailEvent":"{\"eventSource\":\"bedrock.amazonaws.com\",\"eventName\":\"InvokeModel\",\"userIdentity\":{\"type\":\"AWSService\",\"invokedBy\":\"x.amazonaws.com\"}}"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		seen, _, err := ReadCloudTrail("fuzz", strings.NewReader(text))
		if err != nil {
			return
		}
		g := &Guard{Gateway: "arn:aws:iam::111122223333:role/waybill/gateway", Roles: []string{"arn:aws:iam::111122223333:role/waybill/bedrock"}}
		if report, err := Radar(RadarOptions{Guard: g}, seen); err == nil && len(seen) > 0 && len(report.Suspects) == 0 {
			for _, s := range seen {
				if s.Principal != "" {
					t.Fatalf("%+v is lost", s)
				}
			}
		}
	})
}
