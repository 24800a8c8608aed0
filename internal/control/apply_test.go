package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/costexplorer"
	cetypes "github.com/aws/aws-sdk-go-v2/service/costexplorer/types"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// Where a step fails, the rest of its account and Region waits; elsewhere it goes on.
func TestFailureStaysWhereItIs(t *testing.T) {
	s := newSetting(t)
	s.plane.SetFault(func(c fakeaws.ControlCall) *fakeaws.ControlFault {
		if c.Write && c.Account == member && c.Region == "eu-west-1" {
			return &fakeaws.ControlFault{Status: 403, ErrorType: "AccessDenied", Message: "not here"}
		}
		return nil
	})
	record, err := s.setUp()
	if err == nil || !strings.Contains(err.Error(), "s3:CreateBucket in 111122223333 eu-west-1: AccessDenied: not here") {
		t.Errorf("the error is %v", err)
	}
	tried := slices.DeleteFunc(s.plane.Writes(), func(c fakeaws.ControlCall) bool { return c.Account != member || c.Region != "eu-west-1" })
	if len(tried) != 1 {
		t.Errorf("%d changes were tried where the first failed", len(tried))
	}
	states := make(map[string]int)
	for _, c := range record {
		states[c.State]++
	}
	if states["failed"] != 1 || states["done"] < 10 || states["begun"] != states["failed"]+states["done"] {
		t.Errorf("the record has %v", states)
	}
}

// Cost Explorer answers 200 and says inside what it did not do.
func TestKeyThatAWSDoesNotKnowIsAFailure(t *testing.T) {
	s := newSetting(t)
	step := Step{Account: payer, Action: "ce:UpdateCostAllocationTagsStatus", Input: &costexplorer.UpdateCostAllocationTagsStatusInput{
		CostAllocationTagsStatus: []cetypes.CostAllocationTagStatusEntry{{TagKey: aws.String("nobody"), Status: cetypes.CostAllocationTagStatusActive}}}}
	err := Apply(t.Context(), s.access.ForChanges(), []Step{step}, s.world.Now, func(Change) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "nobody: Tag keys not found") {
		t.Errorf("the error is %v", err)
	}
}

// AWS takes twenty keys a call.
func TestManyKeysTakeSeveralCalls(t *testing.T) {
	s := newSetting(t)
	for i := range 45 {
		key := fmt.Sprintf("key%02d", i)
		s.declared.Tags.Activate = append(s.declared.Tags.Activate, key)
		s.plane.UseTag(fakeaws.CostTag{TagKey: key, Type: "UserDefined", Status: "Inactive"})
	}
	s.good()
	if found := s.audit(); len(of(found, "cost-tags-active", Fails)) > 0 {
		t.Errorf("after setup:%s", show(of(found, "cost-tags-active", Fails)))
	}
}

// Letting the gateway in takes nobody out: that is a step of its own, and says whom it may
// break.
func TestTrustIsAddedBeforeItIsTaken(t *testing.T) {
	s := newSetting(t)
	s.plane.PutRole(member, fakeaws.RoleState{Path: "/bedrock/", Name: "production", MaxSession: 7200, Tags: map[string]string{"environment": "production"},
		Trust: `{"Version":"2012-10-17","Statement":[{"Sid":"Eve","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/eve"},"Action":"sts:AssumeRole"}]}`})
	steps := slices.DeleteFunc(Plan(s.audit()), func(s Step) bool { return s.Control != "role-trust" })
	if len(steps) != 2 || steps[0].Risk != "" || steps[1].Risk == "" {
		t.Fatalf("the plan is %+v", steps)
	}
	trust := func() string { return s.inquiry().Snapshot.Accounts[1].Roles[role].Value.Trust }
	for i, eve := range []bool{true, false} {
		if err := Apply(t.Context(), s.access.ForChanges(), steps[i:i+1], s.world.Now, func(Change) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got := trust(); strings.Contains(got, "user/eve") != eve || !strings.Contains(got, "waybill/gateway") {
			t.Errorf("after step %d the trust policy is %s", i+1, got)
		}
	}
}

// Logs without a prefix are kept as declared too.
func TestRetentionWithoutPrefix(t *testing.T) {
	s := newSetting(t)
	s.declared.Logging.Prefix = ""
	s.good()
	if found := s.audit(); len(of(found, "log-retention", Holds)) != 3 || len(Plan(found)) > 0 {
		t.Errorf("after setup:%s", show(of(found, "log-retention", Fails)))
	}
}
