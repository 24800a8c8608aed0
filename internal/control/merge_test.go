package control

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/bcmdataexports"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// again fails if a second run of setup would change anything.
func (s *setting) again() {
	s.t.Helper()
	s.good()
	for _, step := range Plan(s.audit()) {
		s.t.Errorf("a second run would %s: %s", step.Words, strings.Join(step.Diff, "; "))
	}
}

// Statements that others wrote to keep strangers out do not count as keeping AWS's own
// services out, and one that does is not met by a statement of ours, again and again.
func TestDenialsInBucketPolicies(t *testing.T) {
	const resource = `"Resource":["arn:aws:s3:::` + logs + `","arn:aws:s3:::` + logs + `/*"]`
	for _, tt := range []struct {
		name, condition string
		denied          bool
	}{
		{"another account's", `"StringNotEquals":{"aws:SourceAccount":"` + member + `"}`, false},
		{"all but another account's", `"StringNotEquals":{"aws:SourceAccount":"444455556666"}`, true},
		{"another source", `"ArnNotLike":{"aws:SourceArn":"arn:aws:bedrock:*:` + member + `:*"}`, false},
		{"outside the organization, AWS's services excepted", `"StringNotEquals":{"aws:PrincipalOrgID":"o-1"},"BoolIfExists":{"aws:PrincipalIsAWSService":"false"}`, false},
		{"without TLS", `"Bool":{"aws:SecureTransport":"false"}`, false},
		{"outside the organization", `"StringNotEquals":{"aws:PrincipalOrgID":"o-1"}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"s3:PutObject","Resource":"arn:aws:s3:::` + logs + `/*"},
				{"Sid":"Theirs","Effect":"Deny","Principal":"*","Action":"s3:*",` + resource + `,"Condition":{` + tt.condition + `}}]}`
			_, list, err := readDocument(text)
			if err != nil {
				t.Fatal(err)
			}
			may := func(list []policyEntry) bool {
				return lets(list, "bedrock.amazonaws.com", logs, logKey("", member), member, "arn:aws:bedrock:us-east-1:"+member+":*")
			}
			if may(list) == tt.denied {
				t.Errorf("denied: %t, want %t", !may(list), tt.denied)
			}
			b := &Bucket{Name: logs, Exists: true, Policy: text}
			if steps := policyStep(b, logs, logSid, logStatement(logs, "", member, "us-east-1"), may); len(steps) > 0 {
				t.Errorf("a statement is added that changes nothing: %+v", steps)
			}
		})
	}
}

// A policy without a version is one of the first version. AWS refuses an empty one.
func TestPolicyWithoutVersion(t *testing.T) {
	d, _, err := readDocument(`{"Statement":{"Sid":"Theirs","Effect":"Deny","Principal":"*","Action":"s3:DeleteBucket","Resource":"*"}}`)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.with(logSid, map[string]any{"Effect": "Allow"})
	if err != nil || !strings.Contains(text, `"2008-10-17"`) || !strings.Contains(text, "Theirs") || !strings.Contains(text, logSid) {
		t.Errorf("the policy is now %s (%v)", text, err)
	}
}

// A bucket that takes both logs and the bill has both statements after one run.
func TestOneBucketForLogsAndBill(t *testing.T) {
	s := newSetting(t)
	s.declare(strings.Replace(declared, "export: {name: waybill, bucket: acme-bill, prefix: cur}", "export: {name: waybill, bucket: acme-logs-999900001111-us-east-1, prefix: cur}", 1))
	s.again()
	if p := s.inquiry().Snapshot.Payer.Bucket.Value.Policy; !strings.Contains(p, logSid) || !strings.Contains(p, exportSid) {
		t.Errorf("the policy is %s", p)
	}
}

// What a trust policy demands of the gateway, or of others, is demanded after others were
// taken out of it too.
func TestTrustIsNotWidened(t *testing.T) {
	s := newSetting(t)
	const theirs = `{"Sid":"WaybillGatewayAssumes","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/waybill/gateway"},"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringLike":{"aws:RequestTag/team":"*"}}}`
	s.plane.PutRole(member, fakeaws.RoleState{Path: "/bedrock/", Name: "production", MaxSession: 7200, Tags: map[string]string{"environment": "production"},
		Trust: `{"Version":"2012-10-17","Statement":[` + theirs + `,{"Sid":"Eve","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/eve"},"Action":"sts:AssumeRole"}]}`})
	s.again()
	trust := s.inquiry().Snapshot.Accounts[1].Roles[role].Value.Trust
	if !strings.Contains(trust, theirs) || strings.Contains(trust, `"WaybillGateway"`) || strings.Contains(trust, "eve") {
		t.Errorf("the trust policy is now %s", trust)
	}
}

// A key that rides on sessions and on resources is on the same calls: their dollars are at
// stake once.
func TestStakeOfAKeyOnTwoCarriers(t *testing.T) {
	s := newSetting(t)
	s.ledger.evidence.Keys = append(s.ledger.evidence.Keys, KeyUsage{Key: "team", Carrier: "resource", Calls: 99, Cost: usd("99"), Distinct: 2})
	for _, f := range of(s.audit(), "cost-tags-active", Fails) {
		if f.Subject == "team" && (f.Dollars == nil || f.Dollars.Cmp(usd("99")) != 0) {
			t.Errorf("at stake: %v, want 99 (%s)", f.Dollars, f.Message)
		}
	}
}

// An export that is changed in place keeps the columns and properties that others chose,
// and one whose query says more than columns is not touched.
func TestExportInPlaceKeepsWhatOthersChose(t *testing.T) {
	const columns = "split_line_item_split_usage, line_item_resource_id, line_item_usage_type, line_item_unblended_cost, tags"
	for _, tt := range []struct {
		query string
		steps int
	}{{"SELECT " + columns + " FROM COST_AND_USAGE_REPORT", 1}, {"SELECT " + columns + " FROM COST_AND_USAGE_REPORT WHERE line_item_product_code = 'x'", 0}} {
		e := Export{Name: "waybill", Status: "HEALTHY", Query: tt.query, Whole: json.RawMessage(`{"Name":"waybill","DataQuery":{"QueryStatement":"x"}}`),
			Properties: map[string]string{"TIME_GRANULARITY": "DAILY", "INCLUDE_RESOURCES": "TRUE", "INCLUDE_SPLIT_COST_ALLOCATION_DATA": "TRUE"}}
		d := &Declaration{Payer: payer}
		d.Export.Name, d.Export.Bucket, d.Export.Region, d.Export.Update = "waybill", "acme-bill", "us-east-1", true
		in := &Inquiry{Declaration: d, Snapshot: &Snapshot{Payer: PayerFacts{Account: payer, Columns: Said[[]string]{Value: []string{"line_item_iam_principal", "tags"}}, Exports: Said[[]Export]{Value: []Export{e}}}}}
		var puts []*bcmdataexports.UpdateExportInput
		for _, s := range exportSteps(in, &e) {
			if u, ok := s.Input.(*bcmdataexports.UpdateExportInput); ok {
				puts = append(puts, u)
			}
		}
		if len(puts) != tt.steps {
			t.Fatalf("%q: %d updates, want %d", tt.query, len(puts), tt.steps)
		}
		if tt.steps == 0 {
			continue
		}
		q := puts[0].Export.DataQuery
		want := map[string]string{"TIME_GRANULARITY": "DAILY", "INCLUDE_RESOURCES": "TRUE", "INCLUDE_SPLIT_COST_ALLOCATION_DATA": "TRUE", "INCLUDE_IAM_PRINCIPAL_DATA": "TRUE", "INCLUDE_MANUAL_DISCOUNT_COMPATIBILITY": "FALSE"}
		if got := q.TableConfigurations[curTable]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("properties are %v, want %v", got, want)
		}
		if got := *q.QueryStatement; got != "SELECT "+columns+", line_item_iam_principal FROM COST_AND_USAGE_REPORT" {
			t.Errorf("the query is %s", got)
		}
	}
}

// What --permissions prints is enough for the plan, asking included, and of buckets, roles
// and users it names those that the plan changes.
func TestPermissionsSuffice(t *testing.T) {
	s := newSetting(t)
	s.plane.PutServiceCredential(member, fakeaws.ServiceCredential{ID: "ACCAEXAMPLE1", User: "old", Status: "Active", Service: "bedrock.amazonaws.com", Created: s.world.Now()})
	s.plane.PutLogGroup(member, "us-east-1", "/theirs", 30)
	const logRole = "arn:aws:iam::111122223333:role/logs"
	s.plane.PutRole(member, fakeaws.RoleState{Name: "logs", Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"bedrock.amazonaws.com"},"Action":"sts:AssumeRole"}]}`})
	s.plane.PutLogging(member, "us-east-1", `{"cloudWatchConfig":{"logGroupName":"/theirs","roleArn":"`+logRole+`"}}`)
	policy := Permissions(Plan(s.audit()))
	allowed, resources := make(map[string]bool), make(map[string]string)
	sids := make(map[string]bool)
	for _, statement := range policy["Statement"].([]map[string]any) {
		if sid := statement["Sid"].(string); sids[sid] {
			t.Errorf("two statements are %s", sid)
		} else {
			sids[sid] = true
		}
		for _, a := range statement["Action"].([]string) {
			allowed[a] = true
			resources[a] += fmt.Sprint(statement["Resource"]) + " "
		}
	}
	// IAM calls some operations by another name than S3's API.
	names := map[string]string{"s3:HeadBucket": "s3:ListBucket", "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration", "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
		"s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock", "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock", "monitoring:ListMetrics": "cloudwatch:ListMetrics", "monitoring:GetMetricData": "cloudwatch:GetMetricData"}
	s.plane.SetFault(func(c fakeaws.ControlCall) *fakeaws.ControlFault {
		action := c.Service + ":" + c.Operation
		if n := names[action]; n != "" {
			action = n
		}
		if allowed[action] || action == "sts:AssumeRole" { // which the role's own trust says
			return nil
		}
		return &fakeaws.ControlFault{Status: 403, ErrorType: "AccessDeniedException", Message: action}
	})
	s.again()
	for _, f := range s.audit() {
		if f.Status == Unknown {
			t.Errorf("with these rights: %s", show([]Finding{f}))
		}
	}
	for action, want := range map[string]string{"s3:PutBucketPolicy": "arn:aws:s3:::acme-bill", "s3:PutBucketOwnershipControls": "arn:aws:s3:::acme-bill", "iam:CreateRole": "arn:aws:iam::111122223333:role/*production",
		"iam:UpdateServiceSpecificCredential": "arn:aws:iam::111122223333:user/*old", "iam:PassRole": logRole} {
		if !strings.Contains(resources[action], want) || strings.Contains(" "+resources[action], " * ") {
			t.Errorf("%s is allowed of %q, want %s", action, resources[action], want)
		}
	}
}

// A bucket's name may be taken by anybody in the world: AWS is asked for that of the
// account, and says no where it is another's.
func TestBucketsAreAskedForByOwner(t *testing.T) {
	s := newSetting(t)
	asked, without := 0, 0
	s.access.base.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
		if strings.Contains(r.Header.Get("Authorization"), "/s3/") {
			asked++
			if owner := r.Header.Get("X-Amz-Expected-Bucket-Owner"); owner != member {
				without++
			}
		}
		return http.DefaultClient.Do(r)
	})
	mustBucket(t, s.plane.MakeBucket(member, "us-east-1", logs, ""))
	if b, err := s.access.at(member, "us-east-1").bucket(t.Context(), logs); err != nil || !b.Exists {
		t.Fatalf("the bucket: %+v, %v", b, err)
	}
	if asked != 5 || without > 0 {
		t.Errorf("%d of %d questions name no owner", without, asked)
	}
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

// More in the ledger than CloudWatch counts is no call that went round the gateway, and
// nobody is sent to look for one.
func TestMoreInTheLedgerSendsNobodyLooking(t *testing.T) {
	s := newSetting(t)
	s.ledger.evidence.Days[0].Calls *= 2
	found := of(s.audit(), "complete-runtime", Fails)
	if len(found) != 1 {
		t.Fatalf("found:%s", show(found))
	}
	for _, f := range found {
		if f.Severity != Low || !strings.HasPrefix(f.Fix, "nothing went round") {
			t.Errorf("%s: fix: %s", show([]Finding{f}), f.Fix)
		}
	}
}

// The Projects API has no client that asks again where it is throttled: ours does, and as
// often as the others.
func TestThrottledProjects(t *testing.T) {
	for _, tt := range []struct{ attempts, asked int }{{1, 1}, {3, 2}} {
		s := newSetting(t)
		asked := 0
		s.access.base.RetryMaxAttempts = tt.attempts
		s.access.base.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
			if asked++; asked == 1 {
				return &http.Response{StatusCode: http.StatusTooManyRequests, Status: "429 Too Many Requests", Body: http.NoBody}, nil
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`{"data":[{"id":"proj_1","status":"active"}]}`))}, nil
		})
		m := s.access.at(payer, "us-east-1").mantle
		projects, err := m.projects(t.Context())
		if asked != tt.asked || (err == nil) != (tt.asked > 1) || len(projects) != tt.asked-1 {
			t.Errorf("%d attempts: asked %d times, %d projects, %v", tt.attempts, asked, len(projects), err)
		}
	}
}
