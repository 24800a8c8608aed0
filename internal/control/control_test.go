package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/policy"
)

const (
	payer  = "999900001111"
	member = "111122223333"
	role   = "arn:aws:iam::111122223333:role/bedrock/production"
	start  = "2026-11-20T12:00:00Z"
)

const declared = `
version: 1
payer: "999900001111"
accounts:
  - {id: "999900001111", regions: [us-east-1]}
  - {id: "111122223333", role: "arn:aws:iam::111122223333:role/waybill-setup", regions: [us-east-1, eu-west-1]}
logging: {bucket: "acme-logs-{account}-{region}", prefix: bedrock, retention: 400, bodies: withhold}
export: {name: waybill, bucket: acme-bill, prefix: cur}
gateway:
  principals: ["arn:aws:iam::111122223333:role/waybill/gateway"]
  others: ["arn:aws:iam::111122223333:role/break-glass"]
  session: 7200
  roles:
    - {arn: "arn:aws:iam::111122223333:role/bedrock/production", tags: {environment: production}}
tags: {backfill: 2026-09}
apiKeys: {allow: [legacy]}
applications:
  - name: checkout
    accounts: ["111122223333"]
    regions: [us-east-1]
    models: [us.anthropic.claude-sonnet-4-6, amazon.nova-lite-v1:0]
    project: true
    tags: {team: payments}
coverage: {team: 90}
`

// oneRegion is the same with less to ask, for tests that ask often.
var oneRegion = strings.Replace(declared, "[us-east-1, eu-west-1]", "[us-east-1]", 1)

const testPolicy = `
version: 1
tags:
  keys:
    team: {required: true, values: [payments, search], carriers: [session, request]}
    environment: {values: [production, staging], aliases: {prod: production}, carriers: [principal]}
    application: {carriers: [resource]}
    feature: {carriers: [request]}
`

// A setting is two accounts of the stand-in for AWS, and a ledger.
type setting struct {
	t        *testing.T
	world    *fakeaws.World
	plane    *fakeaws.ControlPlane
	access   *Access
	declared *Declaration
	policy   *policy.Policy
	ledger   *ledgerOf
	projects *projectsAPI
	history  []Score
}

type ledgerOf struct {
	evidence Evidence
	err      error
}

func (l *ledgerOf) Evidence(_ context.Context, since, until time.Time) (*Evidence, error) {
	if l.err != nil {
		return nil, l.err
	}
	e := l.evidence
	e.Since, e.Until = since, until
	return &e, nil
}

func usd(s string) waybill.Money {
	m, err := waybill.ParseMoney(s)
	if err != nil {
		panic(err)
	}
	return m
}

// day is the day before the setting's.
func day() waybill.Day {
	t, err := time.Parse(time.RFC3339, start)
	if err != nil {
		panic(err)
	}
	return waybill.DayOf(t) - 1
}

func goodEvidence() Evidence {
	return Evidence{Currency: "USD", Total: usd("100"), PeakSessions: 40,
		Days: []DayUse{
			{Day: day(), Account: member, Region: "us-east-1", Endpoint: waybill.Runtime, Model: "anthropic.claude-sonnet-4-6", Calls: 100, Input: 10000, Output: 5000, Cost: usd("80")},
			{Day: day(), Account: member, Region: "us-east-1", Endpoint: waybill.Mantle, Model: "openai.gpt-oss-120b", Calls: 10, Input: 1000, Output: 500, Cost: usd("20")}},
		Keys: []KeyUsage{{Key: "team", Carrier: "session", Calls: 99, Cost: usd("99"), Distinct: 2}, {Key: "team", Carrier: "request", Calls: 99, Cost: usd("99"), Distinct: 2},
			{Key: "application", Carrier: "resource", Calls: 30, Cost: usd("30"), Distinct: 1}},
		Values: []ValueUsage{{Key: "team", Value: "payments", Source: "gateway", Calls: 60, Cost: usd("60")}, {Key: "feature", Value: "search-box", Source: "log", Calls: 10, Cost: usd("10")}}}
}

func newSetting(t *testing.T) *setting {
	t.Helper()
	begin, err := time.Parse(time.RFC3339, start)
	if err != nil {
		t.Fatal(err)
	}
	s := &setting{t: t, ledger: &ledgerOf{evidence: goodEvidence()}, projects: &projectsAPI{}}
	s.world = fakeaws.NewWorld(fakeaws.Config{Regions: []string{"us-east-1", "eu-west-1"}, World: begin,
		Users: []fakeaws.User{{ARN: "arn:aws:iam::" + payer + ":user/admin", AccessKeyID: "AKIAADMIN", SecretAccessKey: "secret"}},
		Roles: []fakeaws.Role{{ARN: "arn:aws:iam::" + member + ":role/waybill-setup", Trusted: []string{"arn:aws:iam::" + payer + ":user/admin"}}}})
	s.plane = fakeaws.NewControlPlane(s.world, fakeaws.ControlConfig{Management: payer, Members: []string{member}, PageSize: 2, Others: s.projects})
	for _, key := range []string{"team", "environment", "iamPrincipal/team", "application"} {
		s.plane.UseTag(fakeaws.CostTag{TagKey: key, Type: "UserDefined", Status: "Inactive", LastUsedDate: "2026-11-19"})
	}
	s.plane.PutMetric(member, "us-east-1", fakeaws.Metric{Namespace: "AWS/Bedrock", Name: "Invocations", Dimensions: map[string]string{"ModelId": "us.anthropic.claude-sonnet-4-6"}, Day: day().Start(), Sum: 101})
	s.plane.PutMetric(member, "us-east-1", fakeaws.Metric{Namespace: "AWS/Bedrock", Name: "InputTokenCount", Dimensions: map[string]string{"ModelId": "us.anthropic.claude-sonnet-4-6"}, Day: day().Start(), Sum: 10000})
	s.plane.PutMetric(member, "us-east-1", fakeaws.Metric{Namespace: "AWS/Bedrock", Name: "OutputTokenCount", Dimensions: map[string]string{"ModelId": "us.anthropic.claude-sonnet-4-6"}, Day: day().Start(), Sum: 5000})
	// The same calls again at another level, which must not be counted twice.
	s.plane.PutMetric(member, "us-east-1", fakeaws.Metric{Namespace: "AWS/Bedrock", Name: "Invocations", Dimensions: map[string]string{"ModelId": "us.anthropic.claude-sonnet-4-6", "ServiceTier": "default"}, Day: day().Start(), Sum: 101})
	for name, sum := range map[string]float64{"Inferences": 10, "InputTokens": 1000, "OutputTokens": 500} {
		s.plane.PutMetric(member, "us-east-1", fakeaws.Metric{Namespace: "AWS/BedrockMantle", Name: name, Dimensions: map[string]string{"Project": "proj_a", "Model": "openai.gpt-oss-120b"}, Day: day().Start(), Sum: sum})
	}
	url, stop, err := s.plane.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if s.policy, err = policy.Parse("policy.yaml", []byte(testPolicy), policy.Options{HashKey: []byte("a secret for the tests")}); err != nil {
		t.Fatal(err)
	}
	s.declare(declared)
	base := aws.Config{Region: "us-east-1", BaseEndpoint: &url, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("AKIAADMIN", "secret", "")}
	s.access = NewAccess(base, s.declared)
	s.access.Mantle, s.access.PathStyle = url, true
	return s
}

func (s *setting) declare(text string) {
	s.t.Helper()
	var err error
	if s.declared, err = ReadDeclaration("account.yaml", []byte(text), s.policy); err != nil {
		s.t.Fatal(err)
	}
}

func (s *setting) inquiry() *Inquiry {
	s.t.Helper()
	snapshot, err := Observe(s.t.Context(), s.access, Observation{Declaration: s.declared, Ledger: s.ledger, Now: s.world.Now()})
	if err != nil {
		s.t.Fatal(err)
	}
	// Whatever is judged can be kept in a file and judged again.
	b, err := json.Marshal(snapshot)
	if err != nil {
		s.t.Fatal(err)
	}
	if snapshot, err = ReadSnapshot(b); err != nil {
		s.t.Fatal(err)
	}
	return &Inquiry{Snapshot: snapshot, Declaration: s.declared, Policy: s.policy, History: s.history}
}

func (s *setting) audit() []Finding { s.t.Helper(); return s.inquiry().Judge() }

// setUp applies what is planned, risks included, and gives the record.
func (s *setting) setUp() ([]Change, error) {
	s.t.Helper()
	var record []Change
	err := Apply(s.t.Context(), s.access.ForChanges(), Plan(s.audit()), s.world.Now, func(c Change) error { record = append(record, c); return nil })
	return record, err
}

// good brings the setting into the state in which every control holds: set up, and a day
// has passed.
func (s *setting) good() {
	s.t.Helper()
	if _, err := s.setUp(); err != nil {
		s.t.Fatal(err)
	}
	s.world.SetNow(s.world.Now().Add(25 * time.Hour))
}

func of(findings []Finding, control string, status Status) []Finding {
	var out []Finding
	for _, f := range findings {
		if f.Control == control && f.Status == status {
			out = append(out, f)
		}
	}
	return out
}

func show(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "\n\t%s %s %s: %s", f.Control, f.Status, f.Where(), f.Message)
	}
	return b.String()
}

// projectsAPI is the Projects API of bedrock-mantle, as far as it is used here.
type projectsAPI struct {
	mu     sync.Mutex
	all    []Project
	denied bool
	writes int
}

func (p *projectsAPI) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/organization/projects")
	if p.denied {
		http.Error(rw, `{"error":{"message":"not authorized"}}`, http.StatusForbidden)
		return
	}
	var in struct {
		Name    string            `json:"name"`
		Tags    map[string]string `json:"tags"`
		AddTags map[string]string `json:"add_tags"`
	}
	if r.Method == http.MethodPost {
		p.writes++
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
	}
	var answer any
	switch {
	case r.Method == http.MethodGet && path == "":
		list := append([]Project{{ID: "default", Name: "default", Status: "active"}}, p.all...)
		i := slices.IndexFunc(list, func(x Project) bool { return x.ID == r.URL.Query().Get("after") }) + 1
		end := min(i+1, len(list)) // one a page
		answer = map[string]any{"object": "list", "data": list[i:end], "last_id": list[end-1].ID, "has_more": end < len(list)}
	case r.Method == http.MethodPost && path == "":
		project := Project{ID: fmt.Sprintf("proj_%d", len(p.all)), Name: in.Name, Status: "active", Tags: in.Tags}
		p.all = append(p.all, project)
		answer = project
	default:
		i := slices.IndexFunc(p.all, func(x Project) bool { return "/"+x.ID == path })
		if i < 0 {
			http.Error(rw, `{"error":{"message":"no such project"}}`, http.StatusNotFound)
			return
		}
		for k, v := range in.AddTags {
			p.all[i].Tags[k] = v
		}
		answer = p.all[i]
	}
	if err := json.NewEncoder(rw).Encode(answer); err != nil {
		panic(err)
	}
}

// A case of a control: how it is broken, whom AWS has to keep silent for nobody to know,
// and how it is put right where setup does not.
type controlCase struct {
	control string
	breaks  func(s *setting)
	silent  []string         // actions; none: the ledger is silent instead
	hush    func(s *setting) // instead of silent
	byHand  func(s *setting)
	says    string // part of the message of what fails
}

func mustBucket(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const logs = "acme-logs-111122223333-us-east-1"

var cases = []controlCase{
	{control: "logging-on", says: "off", silent: []string{"bedrock:GetModelInvocationLogging*"},
		breaks: func(s *setting) { s.plane.PutLogging(member, "us-east-1", "{}") }},
	{control: "logging-on", says: "alone", silent: []string{"bedrock:GetModelInvocationLogging*"},
		breaks: func(s *setting) {
			s.plane.PutLogGroup(member, "us-east-1", "/bedrock", 400)
			s.plane.PutRole(member, fakeaws.RoleState{Name: "logs", Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"sts:AssumeRole"}]}`})
			s.plane.PutLogging(member, "us-east-1", `{"cloudWatchConfig":{"logGroupName":"/bedrock","roleArn":"arn:aws:iam::111122223333:role/logs"}}`)
		}},
	{control: "log-bucket", says: "does not let", silent: []string{"s3:GetBucketPolicy"},
		breaks: func(s *setting) { mustBucket(s.t, s.plane.MakeBucket(member, "us-east-1", logs, "")) }},
	{control: "log-bucket", says: "does not let", silent: []string{"s3:HeadBucket"},
		breaks: func(s *setting) {
			mustBucket(s.t, s.plane.MakeBucket(member, "us-east-1", logs, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"s3:PutObject","Resource":"arn:aws:s3:::`+logs+`/*","Condition":{"StringEquals":{"aws:SourceAccount":"444455556666"}}}]}`))
		}},
	{control: "log-retention", says: "for ever", silent: []string{"s3:GetBucketLifecycle*"},
		breaks: func(s *setting) {
			mustBucket(s.t, s.plane.MakeBucket(member, "us-east-1", logs, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"s3:PutObject","Resource":"arn:aws:s3:::`+logs+`/*"}]}`))
		}},
	{control: "log-retention", says: "for 30 days", silent: []string{"logs:DescribeLogGroups"},
		breaks: func(s *setting) {
			s.plane.PutLogGroup(member, "us-east-1", "/bedrock", 30)
			s.plane.PutRole(member, fakeaws.RoleState{Name: "logs", Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"sts:AssumeRole"}]}`})
			s.plane.PutLogging(member, "us-east-1", `{"s3Config":{"bucketName":"`+logs+`","keyPrefix":"bedrock"},"cloudWatchConfig":{"logGroupName":"/bedrock","roleArn":"arn:aws:iam::111122223333:role/logs"}}`)
		}},
	{control: "log-bodies", says: "as declared", silent: []string{"bedrock:GetModelInvocationLogging*"},
		breaks: func(s *setting) {
			s.plane.PutLogging(member, "us-east-1", `{"s3Config":{"bucketName":"`+logs+`","keyPrefix":"bedrock"},"textDataDeliveryEnabled":true}`)
		}},
	{control: "log-bodies", says: "100 KB", silent: []string{"bedrock:GetModelInvocationLogging*"},
		breaks: func(s *setting) {
			s.declared.Logging.Bodies = "deliver"
			s.plane.PutLogGroup(member, "us-east-1", "/bedrock", 400)
			s.plane.PutRole(member, fakeaws.RoleState{Name: "logs", Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"sts:AssumeRole"}]}`})
			s.plane.PutLogging(member, "us-east-1", `{"s3Config":{"bucketName":"`+logs+`","keyPrefix":"bedrock"},"cloudWatchConfig":{"logGroupName":"/bedrock","roleArn":"arn:aws:iam::111122223333:role/logs"},
				"textDataDeliveryEnabled":true,"imageDataDeliveryEnabled":true,"embeddingDataDeliveryEnabled":true,"videoDataDeliveryEnabled":true,"audioDataDeliveryEnabled":true}`)
		}},
	{control: "billing-export", says: "INSUFFICIENT_PERMISSION", silent: []string{"bcm-data-exports:ListExports"},
		breaks: func(s *setting) { mustBucket(s.t, s.plane.MakeBucket(payer, "us-east-1", "acme-bill", "")) }},
	{control: "role-trust", says: "may not sts:TagSession", silent: []string{"iam:GetRole"},
		breaks: func(s *setting) {
			s.plane.PutRole(member, fakeaws.RoleState{Path: "/bedrock/", Name: "production", MaxSession: 7200, Tags: map[string]string{"environment": "production"},
				Trust: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/waybill/gateway"},"Action":"sts:AssumeRole"}}`})
		}},
	{control: "role-trust", says: "others may assume", silent: []string{"iam:GetRole"},
		breaks: func(s *setting) {
			s.plane.PutRole(member, fakeaws.RoleState{Path: "/bedrock/", Name: "production", MaxSession: 7200, Tags: map[string]string{"environment": "production"},
				Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:role/waybill/gateway","arn:aws:iam::111122223333:user/eve"]},"Action":["sts:AssumeRole","sts:TagSession"]}]}`})
		}},
	{control: "role-tags", says: "1 of 1", silent: []string{"iam:ListRoleTags"},
		breaks: func(s *setting) {
			s.plane.PutRole(member, fakeaws.RoleState{Path: "/bedrock/", Name: "production", MaxSession: 7200, Trust: gatewayTrust, Tags: map[string]string{"environment": "staging", "owner": "x"}})
		}},
	{control: "role-session", says: "3600 s", silent: []string{"iam:GetRole"},
		breaks: func(s *setting) {
			s.plane.PutRole(member, fakeaws.RoleState{Path: "/bedrock/", Name: "production", Trust: gatewayTrust, Tags: map[string]string{"environment": "production"}})
		}},
	{control: "role-session", says: "role session", silent: []string{"iam:GetRole"},
		breaks: func(s *setting) { s.declared.Gateway.Chained = true },
		byHand: func(s *setting) { s.declared.Gateway.Session = 3600 }},
	{control: "sts-headroom", says: "4000 sessions", silent: []string{"servicequotas:*"},
		breaks: func(s *setting) { s.ledger.evidence.PeakSessions = 4000 },
		byHand: func(s *setting) {
			s.plane.PutQuota(payer, "us-east-1", fakeaws.Quota{ServiceCode: "sts", QuotaCode: "L-1", QuotaName: "Request rate", Value: 1000})
			s.plane.PutQuota(member, "us-east-1", fakeaws.Quota{ServiceCode: "sts", QuotaCode: "L-1", QuotaName: "Request rate", Value: 1000})
			s.plane.PutQuota(member, "eu-west-1", fakeaws.Quota{ServiceCode: "sts", QuotaCode: "L-1", QuotaName: "Request rate", Value: 1000})
		}},
	{control: "profiles", says: "no profile", silent: []string{"bedrock:ListInferenceProfiles"},
		breaks: func(s *setting) {
			s.declared.Applications[0].Models = append(s.declared.Applications[0].Models, "amazon.nova-pro-v1:0")
		}},
	{control: "profiles", says: "tags of", silent: []string{"bedrock:ListTagsForResource"},
		breaks: func(s *setting) { s.declared.Applications[0].Tags["team"] = "search" }},
	{control: "projects", says: "no project", hush: func(s *setting) { s.projects.denied = true },
		breaks: func(s *setting) { s.projects.all = nil }},
	{control: "projects", says: "tags of", hush: func(s *setting) { s.projects.denied = true },
		breaks: func(s *setting) { s.projects.all[0].Tags["team"] = "search" }},
	{control: "cost-tags-active", says: "will never be tagged", silent: []string{"ce:ListCostAllocationTags"},
		breaks: func(s *setting) {
			s.plane.UseTag(fakeaws.CostTag{TagKey: "iamPrincipal/team", Type: "UserDefined", Status: "Inactive"})
		}},
	{control: "cost-tags-active", says: "does not list", silent: []string{"ce:ListCostAllocationTags"},
		breaks: func(s *setting) { s.declared.Tags.Activate = []string{"costCenter"} },
		byHand: func(s *setting) {
			s.plane.UseTag(fakeaws.CostTag{TagKey: "costCenter", Type: "UserDefined", Status: "Active", LastUpdatedDate: "2026-11-01T00:00:00Z"})
		}},
	{control: "cost-tags-fresh", says: "within the last day", silent: []string{"ce:ListCostAllocationTags"},
		breaks: func(s *setting) {
			s.plane.UseTag(fakeaws.CostTag{TagKey: "team", Type: "UserDefined", Status: "Active", LastUpdatedDate: s.world.Now().Format(time.RFC3339)})
		},
		byHand: func(s *setting) { s.world.SetNow(s.world.Now().Add(25 * time.Hour)) }},
	{control: "cost-tags-limit", says: "451 of 500", silent: []string{"ce:ListCostAllocationTags"},
		breaks: func(s *setting) {
			for i := range 447 {
				s.plane.UseTag(fakeaws.CostTag{TagKey: fmt.Sprintf("old%03d", i), Type: "UserDefined", Status: "Active", LastUpdatedDate: "2024-01-01", LastUsedDate: "2025-01-01"})
			}
		}},
	{control: "cost-tags-backfill", says: "since the keys were activated", silent: []string{"ce:ListCostAllocationTagBackfillHistory"},
		breaks: func(s *setting) {
			s.world.SetNow(s.world.Now().Add(48 * time.Hour))
			s.plane.UseTag(fakeaws.CostTag{TagKey: "team", Type: "UserDefined", Status: "Active", LastUpdatedDate: s.world.Now().Add(-time.Hour).Format(time.RFC3339)})
		}},
	{control: "api-keys", says: "without an end", silent: []string{"iam:ListServiceSpecificCredentials"},
		breaks: func(s *setting) {
			for i, user := range []string{"legacy", "BedrockAPIKey-x1y2"} {
				s.plane.PutServiceCredential(member, fakeaws.ServiceCredential{ID: fmt.Sprintf("ACCAEXAMPLE%d", i), User: user, Status: "Active", Service: "bedrock.amazonaws.com", Created: s.world.Now()})
			}
		}},
	{control: "api-key-use", says: "2 calls with a short-term key", silent: []string{"cloudtrail:LookupEvents"},
		breaks: func(s *setting) {
			for i := range 3 {
				s.plane.PutEvent(member, "us-east-1", fmt.Sprintf(`{"eventID":"%d","eventName":"InvokeModel","eventSource":"bedrock.amazonaws.com","eventTime":"2026-11-19T0%d:00:00Z",
					"userIdentity":{"arn":"arn:aws:iam::111122223333:user/eve"},"additionalEventData":{"callWithBearerToken":%t,"bearerTokenType":"SHORT_TERM"}}`, i, i, i > 0))
			}
		},
		byHand: func(s *setting) { s.world.SetNow(s.world.Now().Add(30 * 24 * time.Hour)) }},
	{control: "side-doors", says: "3 calls to Claude Platform", silent: []string{"cloudtrail:LookupEvents"},
		breaks: func(s *setting) {
			for i := range 3 {
				s.plane.PutEvent(member, "us-east-1", fmt.Sprintf(`{"eventID":"%d","eventName":"CreateMessage","eventSource":"aws-external-anthropic.amazonaws.com","eventTime":"2026-11-19T0%d:00:00Z","userIdentity":{"arn":"arn:aws:iam::111122223333:user/eve"}}`, i, i))
			}
		},
		byHand: func(s *setting) { s.world.SetNow(s.world.Now().Add(30 * 24 * time.Hour)) }},
	{control: "complete-runtime", says: "20 are missing", silent: []string{"cloudwatch:GetMetricData"},
		breaks: func(s *setting) { s.ledger.evidence.Days[0].Calls = 81 },
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
	{control: "complete-mantle", says: "input tokens", silent: []string{"cloudwatch:ListMetrics"},
		breaks: func(s *setting) { s.ledger.evidence.Days[1].Input = 500 },
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
	{control: "log-gaps", says: "not in the log",
		breaks: func(s *setting) {
			s.ledger.evidence.Gaps = []Gap{{Account: member, Region: "us-east-1", From: day().Start(), To: day().Start().Add(time.Hour), Calls: 7, Cost: usd("3")}}
		},
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
	{control: "sensitive-values", says: "an e-mail address",
		breaks: func(s *setting) {
			s.ledger.evidence.Values = append(s.ledger.evidence.Values, ValueUsage{Key: "feature", Value: "ann@example.com", Source: "log", Calls: 2, Cost: usd("1")})
		},
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
	{control: "vocabulary", says: "not one of the key's",
		breaks: func(s *setting) {
			s.ledger.evidence.Values = append(s.ledger.evidence.Values, ValueUsage{Key: "environment", Value: "prod", Source: "log", Calls: 2, Cost: usd("1")})
		},
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
	{control: "vocabulary", says: "no key of that name",
		breaks: func(s *setting) {
			s.ledger.evidence.Values = append(s.ledger.evidence.Values, ValueUsage{Key: "Team", Value: "payments", Source: "log", Calls: 2, Cost: usd("1")})
		},
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
	{control: "cardinality", says: "5000 values",
		breaks: func(s *setting) { s.ledger.evidence.Keys[0].Distinct = 5000 },
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
	{control: "tag-coverage", says: "89.9 %",
		breaks: func(s *setting) {
			s.ledger.evidence.Keys[0].Cost, s.ledger.evidence.Keys[1].Cost = usd("89.99"), usd("89.99")
		},
		byHand: func(s *setting) { s.ledger.evidence = goodEvidence() }},
}

const gatewayTrust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/waybill/gateway"},"Action":["sts:AssumeRole","sts:TagSession"]}]}`

// Every control holds once it is set up, does not hold once it is broken, is unknown where
// AWS or the ledger is silent, and holds again after its remedy.
func TestControls(t *testing.T) {
	covered := make(map[string]bool)
	for _, tt := range cases {
		covered[tt.control] = true
		t.Run(tt.control+"/"+tt.says, func(t *testing.T) {
			t.Parallel()
			s := newSetting(t)
			s.declare(oneRegion)
			s.good()
			if found := s.audit(); len(of(found, tt.control, Holds)) == 0 || len(of(found, tt.control, Fails)) > 0 {
				t.Fatalf("it does not hold at first:%s", show(found))
			}
			tt.breaks(s)
			found := of(s.audit(), tt.control, Fails)
			if len(found) == 0 || !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.Message, tt.says) && f.Fix != "" }) {
				t.Fatalf("broken, and nothing that says %q and how to put it right:%s", tt.says, show(found))
			}
			switch {
			case tt.hush != nil:
				tt.hush(s)
			case len(tt.silent) > 0:
				s.plane.SetFault(fakeaws.DenyAction(tt.silent...))
			default:
				s.ledger.err = errors.New("the lake is away")
			}
			silent := s.audit()
			if len(of(silent, tt.control, Unknown)) == 0 {
				t.Errorf("nobody says, and it is not unknown:%s", show(of(silent, tt.control, Holds)))
			}
			s.plane.SetFault(nil)
			s.ledger.err, s.projects.denied = nil, false
			if tt.byHand != nil {
				tt.byHand(s)
			} else if _, err := s.setUp(); err != nil {
				t.Fatal(err)
			}
			if found := s.audit(); len(of(found, tt.control, Holds)) == 0 || len(of(found, tt.control, Fails)) > 0 {
				t.Errorf("put right, and it does not hold:%s", show(of(found, tt.control, Fails)))
			}
		})
	}
	for _, c := range Controls() {
		if !covered[c.ID] {
			t.Errorf("control %s has no case", c.ID)
		}
	}
}

// A snapshot says nothing of an account or a Region that was declared after it was taken.
func TestSnapshotOfAnotherDeclaration(t *testing.T) {
	t.Parallel()
	s := newSetting(t)
	s.good()
	in := s.inquiry()
	if _, unknown := News(in.Judge()); unknown > 0 {
		t.Fatalf("unknown at first:%s", show(in.Judge()))
	}
	later := *in.Declaration
	later.Accounts = append(slices.Clone(later.Accounts), DeclaredAccount{ID: "222233334444", Regions: []string{"us-east-1"}})
	later.Accounts[0].Regions = append(slices.Clone(later.Accounts[0].Regions), "ap-southeast-2")
	in.Declaration = &later
	found := in.Judge()
	for _, c := range []string{"logging-on", "api-keys", "api-key-use", "side-doors"} {
		if !slices.ContainsFunc(of(found, c, Unknown), func(f Finding) bool { return f.Account == "222233334444" }) {
			t.Errorf("%s: the account was never asked, and it is not unknown:%s", c, show(slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Control != c })))
		}
	}
	if !slices.ContainsFunc(of(found, "logging-on", Unknown), func(f Finding) bool { return f.Region == "ap-southeast-2" }) {
		t.Error("the Region was never asked, and it is not unknown")
	}
	if slices.ContainsFunc(of(found, "tag-coverage", Unknown), func(f Finding) bool { return f.Account != "" }) {
		t.Error("what looks at the ledger misses no account")
	}
}

// Events that were not read may hold what was looked for.
func TestEventsNotRead(t *testing.T) {
	s := newSetting(t)
	s.declare(oneRegion)
	s.good()
	for i := range 100 { // the fake shows two on a page
		for _, source := range []string{"bedrock.amazonaws.com", "bedrock-mantle.amazonaws.com"} {
			s.plane.PutEvent(member, "us-east-1", fmt.Sprintf(`{"eventID":"%s-%d","eventName":"InvokeModel","eventSource":"%s","eventTime":"2026-11-19T01:%02d:%02dZ","userIdentity":{"arn":"arn:aws:iam::111122223333:user/eve"}}`, source, i, source, i/60, i%60))
		}
	}
	found := s.audit()
	if got := of(found, "api-key-use", Unknown); len(got) != 1 || !strings.Contains(got[0].Message, "before 2026-11-19 01:01") {
		t.Errorf("of a hundred events forty were read:%s", show(got))
	}
	if got := of(found, "side-doors", Holds); len(got) == 0 {
		t.Errorf("a source that was read whole:%s", show(of(found, "side-doors", Unknown)))
	}
}

// From nothing, setup brings about that everything holds; a second run changes nothing.
func TestSetUpTwice(t *testing.T) {
	s := newSetting(t)
	s.good()
	for _, f := range s.audit() {
		if f.Status != Holds {
			t.Errorf("after setup: %s", show([]Finding{f}))
		}
	}
	before := len(s.plane.Writes()) + s.projects.writes
	record, err := s.setUp()
	if after := len(s.plane.Writes()) + s.projects.writes; err != nil || after != before || len(record) > 0 {
		t.Errorf("the second run made %d changes, recorded %d, %v", after-before, len(record), err)
	}
}

// Whatever call a run is cut off at, before or after AWS has done it, the next one finishes.
func TestInterruptedSetUpIsFinishedByTheNext(t *testing.T) {
	whole := newSetting(t)
	whole.declare(oneRegion)
	if _, err := whole.setUp(); err != nil {
		t.Fatal(err)
	}
	writes := len(whole.plane.Writes())
	if writes < 12 {
		t.Fatalf("a run makes %d changes only", writes)
	}
	for n := 1; n <= writes; n++ {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%t", n, cut), func(t *testing.T) {
				t.Parallel()
				s := newSetting(t)
				s.declare(oneRegion)
				count := 0 // under the plane's lock
				s.plane.SetFault(func(c fakeaws.ControlCall) *fakeaws.ControlFault {
					if c.Write {
						count++
					}
					switch {
					case !c.Write || count < n:
						return nil
					case count == n && cut:
						return &fakeaws.ControlFault{Cut: true}
					}
					return &fakeaws.ControlFault{Status: 503, ErrorType: "ServiceUnavailable", Message: "gone"}
				})
				if _, err := s.setUp(); err == nil {
					t.Fatalf("change %d was broken, and nobody says so", n)
				}
				s.plane.SetFault(nil)
				s.good()
				for _, f := range s.audit() {
					if f.Status != Holds {
						t.Errorf("cut off at change %d (done: %t), then run again: %s", n, cut, show([]Finding{f}))
					}
				}
			})
		}
	}
}

// An audit that is cut off at any call is unknown somewhere, and never better than it was.
func TestInterruptedAuditIsUnknown(t *testing.T) {
	s := newSetting(t)
	s.good()
	before := len(s.plane.Calls())
	s.audit()
	calls := len(s.plane.Calls()) - before
	for n := 1; n <= calls; n += 5 {
		from := len(s.plane.Calls()) + n
		s.plane.SetFault(func(c fakeaws.ControlCall) *fakeaws.ControlFault {
			if c.N >= from {
				return &fakeaws.ControlFault{Status: 400, ErrorType: "ThrottlingException", Message: "Rate exceeded"}
			}
			return nil
		})
		found := s.audit()
		if _, unknown := News(found); unknown == 0 {
			t.Errorf("cut off at call %d of %d, and everything is known", n, calls)
		}
		if failed, _ := News(found); failed > 0 {
			t.Errorf("cut off at call %d, and %d controls fail that hold", n, failed)
		}
	}
}

// Nothing is changed without --apply: not by looking, and not by a step that is made with
// an Access that may only read.
func TestNothingIsChangedWithoutApply(t *testing.T) {
	s := newSetting(t)
	s.plane.SetFault(func(c fakeaws.ControlCall) *fakeaws.ControlFault {
		if c.Write {
			t.Errorf("a call that changes something: %s", c.Operation)
		}
		return fakeaws.DenyWrites(c)
	})
	steps := Plan(s.audit())
	if len(steps) < 12 {
		t.Fatalf("the plan has %d steps only", len(steps))
	}
	for _, step := range steps {
		err := Apply(t.Context(), s.access, []Step{step}, s.world.Now, func(Change) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "nothing is changed without --apply") {
			t.Errorf("%s with an Access that may only read: %v", step.Action, err)
		}
	}
	if s.projects.writes > 0 {
		t.Errorf("%d changes of projects", s.projects.writes)
	}
}

// A change that cannot be recorded is not made.
func TestNoRecordNoChange(t *testing.T) {
	s := newSetting(t)
	err := Apply(t.Context(), s.access.ForChanges(), Plan(s.audit()), s.world.Now, func(Change) error { return os.ErrPermission })
	if !errors.Is(err, os.ErrPermission) || len(s.plane.Writes()) > 0 {
		t.Errorf("%v, and %d changes", err, len(s.plane.Writes()))
	}
}

// Every change is recorded, before and after, with what was sent.
func TestEveryChangeIsRecorded(t *testing.T) {
	s := newSetting(t)
	record, err := s.setUp()
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for i, c := range record {
		if i%2 == 0 && c.State != "begun" || i%2 == 1 && (c.State != "done" || c.Action != record[i-1].Action) || len(c.Input) < 3 {
			t.Errorf("record %d: %+v", i, c)
		}
		if c.State == "done" {
			done++
		}
	}
	if want := len(s.plane.Writes()) + s.projects.writes; done != want {
		t.Errorf("%d changes are recorded, %d were made", done, want)
	}
}

// What another team has put into a bucket policy, a trust policy or the logging
// configuration is there afterwards.
func TestOthersSettingsSurvive(t *testing.T) {
	s := newSetting(t)
	theirs := `{"Sid":"Theirs","Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::` + logs + `","arn:aws:s3:::` + logs + `/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}`
	mustBucket(t, s.plane.MakeBucket(member, "us-east-1", logs, `{"Version":"2012-10-17","Statement":[`+theirs+`]}`))
	s.plane.PutLogGroup(member, "us-east-1", "/theirs", 400)
	s.plane.PutRole(member, fakeaws.RoleState{Name: "logs", Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"sts:AssumeRole"}]}`})
	s.plane.PutLogging(member, "us-east-1", `{"cloudWatchConfig":{"logGroupName":"/theirs","roleArn":"arn:aws:iam::111122223333:role/logs"}}`)
	s.good()
	for _, a := range s.inquiry().Snapshot.Accounts {
		for _, r := range a.Regions {
			if a.ID != member || r.Region != "us-east-1" {
				continue
			}
			if !strings.Contains(r.Bucket.Value.Policy, theirs) {
				t.Errorf("the bucket policy is now %s", r.Bucket.Value.Policy)
			}
			if r.Logging.Value.LogGroup != "/theirs" || r.Logging.Value.Bucket != logs {
				t.Errorf("logging is now %+v", r.Logging.Value)
			}
		}
	}
}

// An account that the credentials are not of is not asked about in another's name.
func TestWrongAccountIsSaid(t *testing.T) {
	s := newSetting(t)
	s.declare(strings.ReplaceAll(declared, `role: "arn:aws:iam::111122223333:role/waybill-setup", `, ""))
	s.access = NewAccess(s.access.base, s.declared)
	in := s.inquiry()
	if got := in.Snapshot.Accounts[1].Caller.Refused; !strings.Contains(got, "not 111122223333") {
		t.Errorf("the account says %q", got)
	}
	for _, f := range in.Judge() {
		if f.Account == member && f.Status != Unknown {
			t.Errorf("of an account that nobody asked: %s", show([]Finding{f}))
		}
	}
	step := Step{Account: member, Action: "iam:TagRole", Input: &iam.TagRoleInput{RoleName: aws.String("production")}}
	if err := Apply(t.Context(), s.access.ForChanges(), []Step{step}, s.world.Now, func(Change) error { return nil }); err == nil || !strings.Contains(err.Error(), "not 111122223333") || len(s.plane.Writes()) > 0 {
		t.Errorf("a step for it: %v, and %d changes", err, len(s.plane.Writes()))
	}
}

// A principal's column that may not be named is left out of the query, and an export that
// cannot be changed is followed by a second.
func TestExportsOfEitherKind(t *testing.T) {
	s := newSetting(t)
	body := func(query string) string {
		return `{"Name":"waybill","DataQuery":{"QueryStatement":"` + query + `","TableConfigurations":{"COST_AND_USAGE_REPORT":{"TIME_GRANULARITY":"DAILY","INCLUDE_RESOURCES":"TRUE"}}},
			"DestinationConfigurations":{"S3Destination":{"S3Bucket":"acme-bill","S3Prefix":"cur","S3Region":"us-east-1","S3OutputConfigurations":{"OutputType":"CUSTOM","Format":"PARQUET","Compression":"PARQUET","Overwrite":"OVERWRITE_REPORT"}}},
			"RefreshCadence":{"Frequency":"SYNCHRONOUS"}}`
	}
	mustBucket(t, s.plane.PutExport(payer, body("SELECT line_item_resource_id, line_item_usage_type, line_item_unblended_cost, tags FROM COST_AND_USAGE_REPORT")))
	if found := of(s.audit(), "billing-export", Fails); len(found) != 1 || !strings.Contains(found[0].Message, "INCLUDE_IAM_PRINCIPAL_DATA") {
		t.Fatalf("an export without principals:%s", show(found))
	}
	s.good()
	var names []string
	for _, e := range s.inquiry().Snapshot.Payer.Exports.Value {
		names = append(names, e.Name)
	}
	if want := []string{"waybill", "waybill-with-principals"}; !slices.Equal(names, want) {
		t.Errorf("exports are %v, want %v", names, want)
	}

	s = newSetting(t)
	s.declared.Export.Update = true
	mustBucket(t, s.plane.PutExport(payer, body("SELECT line_item_resource_id, line_item_usage_type, line_item_unblended_cost, tags FROM COST_AND_USAGE_REPORT")))
	s.good()
	if exports := s.inquiry().Snapshot.Payer.Exports.Value; len(exports) != 1 || len(exports[0].lacks()) > 0 {
		t.Errorf("updated in place: %d exports, lacking %v", len(exports), exports[0].lacks())
	}
}

func TestProfileName(t *testing.T) {
	for _, tt := range []struct{ application, model, want string }{
		{"checkout", "us.anthropic.claude-sonnet-4-6", "checkout_us-anthropic-claude-sonnet-4-6"},
		{"team a/b", "amazon.nova-lite-v1:0", "team-a-b_amazon-nova-lite-v1-0"},
		{"a very long name of an application indeed", "us.anthropic.claude-sonnet-4-6", "a-very-long-name-of-an-application-indeed_us-anthropic_1d5b8a6e"},
	} {
		got := profileName(tt.application, tt.model)
		if len(got) > 64 {
			t.Errorf("%s has %d characters", got, len(got))
		}
		if len(tt.want) < 60 && got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// The declaration tells every mistake at once.
func TestDeclarationMistakes(t *testing.T) {
	_, err := ReadDeclaration("account.yaml", []byte(`
version: 1
accounts:
  - {id: "12", regions: [us-east-1, eu-west-1]}
logging: {bucket: same, bodies: perhaps}
export: {name: "a b", bucket: same, prefix: x}
gateway: {roles: [{arn: "arn:aws:iam::111122223333:role/x"}]}
applications: [{name: shop}, {name: shop, models: ["arn:aws:bedrock:us-east-1::foundation-model/x"], tags: {color: red}}]
coverage: {team: 101}
colour: red
`), newSetting(t).policy)
	for _, want := range []string{"12", "{region}", "perhaps", "a b", "one bucket", "principals", "gets nothing", "declared twice", "is an ARN", "color", "101", "colour"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no mistake about %q in: %v", want, err)
		}
	}
}
