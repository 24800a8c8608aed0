package fakeaws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bcmdataexports"
	exporttypes "github.com/aws/aws-sdk-go-v2/service/bcmdataexports/types"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	bedrocktypes "github.com/aws/aws-sdk-go-v2/service/bedrock/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	watchtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/costexplorer"
	cetypes "github.com/aws/aws-sdk-go-v2/service/costexplorer/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/organizations"
	orgtypes "github.com/aws/aws-sdk-go-v2/service/organizations/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/smithy-go"
)

const (
	payer   = "999900001111"
	trusted = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::999900001111:root"},"Action":["sts:AssumeRole","sts:TagSession"]}]}`
)

func controlPlane(t *testing.T, c ControlConfig) (*ControlPlane, aws.Config) {
	t.Helper()
	w := NewWorld(Config{Regions: []string{"us-east-1"}, World: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		Users: []User{{ARN: "arn:aws:iam::" + payer + ":user/admin", AccessKeyID: "AKIAADMIN", SecretAccessKey: "secret"}}})
	c.Management = payer
	p := NewControlPlane(w, c)
	url, stop, err := p.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return p, aws.Config{Region: "us-east-1", BaseEndpoint: &url, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("AKIAADMIN", "secret", "")}
}

func errorCodeOf(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return fmt.Sprint(err)
}

// What AWS refuses, the stand-in refuses, in a form that AWS's own client reads.
func TestControlPlaneRefuses(t *testing.T) {
	p, cfg := controlPlane(t, ControlConfig{})
	p.PutRole(payer, RoleState{Name: "gateway", Trust: trusted})
	p.UseTag(CostTag{TagKey: "team", Type: "UserDefined", Status: "Inactive"})
	if err := p.MakeBucket(payer, "us-east-1", "no-policy", ""); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	br, ce, org, who := bedrock.NewFromConfig(cfg), costexplorer.NewFromConfig(cfg), organizations.NewFromConfig(cfg), iam.NewFromConfig(cfg)
	bucket := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	profile := func(name, from string) error {
		_, err := br.CreateInferenceProfile(ctx, &bedrock.CreateInferenceProfileInput{InferenceProfileName: &name, ModelSource: &bedrocktypes.InferenceProfileModelSourceMemberCopyFrom{Value: from}})
		return err
	}
	for _, tt := range []struct {
		name, want string
		err        func() error
	}{
		{"a log into a bucket without a policy", "ValidationException", func() error {
			_, err := br.PutModelInvocationLoggingConfiguration(ctx, &bedrock.PutModelInvocationLoggingConfigurationInput{LoggingConfig: &bedrocktypes.LoggingConfig{S3Config: &bedrocktypes.S3Config{BucketName: aws.String("no-policy")}}})
			return err
		}},
		{"a profile name with a dot", "ValidationException", func() error {
			return profile("team.search", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0")
		}},
		{"a profile of a profile", "ValidationException", func() error {
			return profile("x", "arn:aws:bedrock:us-east-1:"+payer+":application-inference-profile/abc")
		}},
		{"a profile of another Region's model", "ResourceNotFoundException", func() error {
			return profile("x", "arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-lite-v1:0")
		}},
		{"a backfill from within a month", "ValidationException", func() error {
			_, err := ce.StartCostAllocationTagBackfill(ctx, &costexplorer.StartCostAllocationTagBackfillInput{BackfillFrom: aws.String("2026-10-02T00:00:00Z")})
			return err
		}},
		{"a second backfill in a day", "BackfillLimitExceededException", func() error {
			in := &costexplorer.StartCostAllocationTagBackfillInput{BackfillFrom: aws.String("2026-10-01T00:00:00Z")}
			if _, err := ce.StartCostAllocationTagBackfill(ctx, in); err != nil {
				return err
			}
			_, err := ce.StartCostAllocationTagBackfill(ctx, in)
			return err
		}},
		{"a trust policy that is too long", "LimitExceeded", func() error {
			_, err := who.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("gateway"), PolicyDocument: aws.String(trusted + strings.Repeat(" ", 2048))})
			return err
		}},
		{"tags that differ in case alone", "InvalidInput", func() error {
			_, err := who.TagRole(ctx, &iam.TagRoleInput{RoleName: aws.String("gateway"), Tags: []iamtypes.Tag{{Key: aws.String("Team"), Value: aws.String("a")}, {Key: aws.String("team"), Value: aws.String("b")}}})
			return err
		}},
		{"a service control policy that is too long", "ConstraintViolationException", func() error {
			_, err := org.CreatePolicy(ctx, &organizations.CreatePolicyInput{Name: aws.String("x"), Description: aws.String(""), Type: orgtypes.PolicyTypeServiceControlPolicy, Content: aws.String(strings.Repeat(" ", 5121))})
			return err
		}},
		{"a bucket that is not there", "NoSuchBucket", func() error {
			_, err := bucket.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: aws.String("nowhere")})
			return err
		}},
		{"an export into a bucket without a policy", "ValidationException", func() error {
			_, err := bcmdataexports.NewFromConfig(cfg).CreateExport(ctx, &bcmdataexports.CreateExportInput{Export: &exporttypes.Export{Name: aws.String("bill"),
				DataQuery:      &exporttypes.DataQuery{QueryStatement: aws.String("SELECT identity_line_item_id FROM COST_AND_USAGE_REPORT")},
				RefreshCadence: &exporttypes.RefreshCadence{Frequency: exporttypes.FrequencyOptionSynchronous},
				DestinationConfigurations: &exporttypes.DestinationConfigurations{S3Destination: &exporttypes.S3Destination{S3Bucket: aws.String("no-policy"), S3Prefix: aws.String("bill"), S3Region: aws.String("us-east-1"),
					S3OutputConfigurations: &exporttypes.S3OutputConfigurations{OutputType: "CUSTOM", Format: "PARQUET", Compression: "PARQUET", Overwrite: "OVERWRITE_REPORT"}}}}})
			return err
		}},
		{"quotas of a service that has none", "NoSuchResourceException", func() error {
			_, err := servicequotas.NewFromConfig(cfg).ListServiceQuotas(ctx, &servicequotas.ListServiceQuotasInput{ServiceCode: aws.String("sts")})
			return err
		}},
		{"a retention of 33 days", "InvalidParameterException", func() error {
			p.PutLogGroup(payer, "us-east-1", "bedrock", 0)
			_, err := cloudwatchlogs.NewFromConfig(cfg).PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String("bedrock"), RetentionInDays: aws.Int32(33)})
			return err
		}},
		{"two events asked for by two attributes", "ok", func() error {
			p.PutEvent(payer, "us-east-1", `{"eventID":"1","eventName":"Converse","eventSource":"bedrock.amazonaws.com","eventTime":"2026-11-20T10:00:00Z"}`)
			out, err := cloudtrail.NewFromConfig(cfg).LookupEvents(ctx, &cloudtrail.LookupEventsInput{})
			if err == nil && len(out.Events) == 1 {
				return errors.New("ok")
			}
			return err
		}},
		{"a metric by something but a day", "ValidationError", func() error {
			_, err := cloudwatch.NewFromConfig(cfg).GetMetricData(ctx, &cloudwatch.GetMetricDataInput{StartTime: aws.Time(time.Unix(0, 0)), EndTime: aws.Time(time.Unix(86400, 0)),
				MetricDataQueries: []watchtypes.MetricDataQuery{{Id: aws.String("a"), MetricStat: &watchtypes.MetricStat{Metric: &watchtypes.Metric{}, Period: aws.Int32(60), Stat: aws.String("Sum")}}}})
			return err
		}},
	} {
		if got := errorCodeOf(tt.err()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Activation answers 200 also for a key that it does not know: the error is in the answer.
func TestUnknownCostTagIsAnErrorInTheAnswer(t *testing.T) {
	p, cfg := controlPlane(t, ControlConfig{})
	p.UseTag(CostTag{TagKey: "team", Type: "UserDefined", Status: "Inactive"})
	out, err := costexplorer.NewFromConfig(cfg).UpdateCostAllocationTagsStatus(t.Context(), &costexplorer.UpdateCostAllocationTagsStatusInput{CostAllocationTagsStatus: []cetypes.CostAllocationTagStatusEntry{
		{TagKey: aws.String("team"), Status: cetypes.CostAllocationTagStatusActive}, {TagKey: aws.String("nobody"), Status: cetypes.CostAllocationTagStatusActive}}})
	if err != nil || len(out.Errors) != 1 || *out.Errors[0].TagKey != "nobody" {
		t.Fatalf("got %+v, %v; want one error, of nobody", out, err)
	}
}

// Every fault hits the call it is meant for, and no other.
func TestControlFaults(t *testing.T) {
	p, cfg := controlPlane(t, ControlConfig{Fault: DenyWrites})
	p.PutRole(payer, RoleState{Name: "gateway", Trust: trusted})
	who := iam.NewFromConfig(cfg)
	get := func() error {
		_, err := who.GetRole(context.Background(), &iam.GetRoleInput{RoleName: aws.String("gateway")})
		return err
	}
	tag := func() error {
		_, err := who.TagRole(context.Background(), &iam.TagRoleInput{RoleName: aws.String("gateway"), Tags: []iamtypes.Tag{{Key: aws.String("team"), Value: aws.String("a")}}})
		return err
	}
	if err := get(); err != nil {
		t.Errorf("a read where writes are refused: %v", err)
	}
	if got := errorCodeOf(tag()); got != "AccessDenied" {
		t.Errorf("a write where writes are refused: %s", got)
	}
	p.SetFault(DenyAction("iam:Get*"))
	if got := errorCodeOf(get()); got != "AccessDenied" {
		t.Errorf("a read that is denied: %s", got)
	}
	p.SetFault(func(ControlCall) *ControlFault { return &ControlFault{Cut: true} })
	if err := tag(); err == nil {
		t.Error("a call that was cut off has an answer")
	}
	p.SetFault(nil)
	out, err := who.ListRoleTags(t.Context(), &iam.ListRoleTagsInput{RoleName: aws.String("gateway")})
	if err != nil || len(out.Tags) != 1 {
		t.Errorf("a call that was cut off after it took effect has left %v, %v", out, err)
	}
	if got := len(p.Writes()); got != 2 {
		t.Errorf("%d writes are recorded, want 2", got)
	}
}

func TestWild(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{{"a*b", "ab", true}, {"a*b", "axb", true}, {"a*ab", "ab", false}, {"*x*", "axb", true}, {"*", "", true}, {"S3:Put*", "s3:putObject", true}, {"a", "ab", false}} {
		if got := wild(tt.pattern, tt.text); got != tt.want {
			t.Errorf("wild(%q, %q) = %v", tt.pattern, tt.text, got)
		}
	}
}
