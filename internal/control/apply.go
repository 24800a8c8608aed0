package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bcmdataexports"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/costexplorer"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A Step is one call that brings an account nearer to what must hold. It is data: what a
// plan shows is what an apply sends and a record keeps.
type Step struct {
	Control string   `json:"control"`
	Account string   `json:"account"`
	Region  string   `json:"region,omitempty"`
	Words   string   `json:"words"`
	Diff    []string `json:"diff,omitempty"` // lines that begin with +, - or a space
	Action  string   `json:"action"`         // as IAM policies name it
	// Risk says whom the step may break; empty where nobody. A step with a risk is made only
	// if its control is named.
	Risk string `json:"risk,omitempty"`
	// Input is the call: an input of the AWS SDK, or of the Projects API.
	Input any `json:"input"`
}

// Target is where a step goes.
func (s *Step) Target() string {
	if s.Region == "" {
		return s.Account
	}
	return s.Account + " " + s.Region
}

// Plan is what brings about that every control holds, as far as calls can: in the order
// in which it has to be made. No call is in it twice.
func Plan(findings []Finding) []Step {
	var steps []Step
	seen := make(map[string]bool)
	policies := make(map[string]string) // of buckets, as they will be
	for _, f := range findings {
		for _, s := range f.steps {
			s.Control = f.Control
			if put, ok := s.Input.(*s3.PutBucketPolicyInput); ok {
				// A put replaces everything, that of a step before this one too.
				bucket := aws.ToString(put.Bucket)
				if before, ok := policies[bucket]; ok {
					both := *put
					both.Policy = aws.String(addStatements(before, aws.ToString(put.Policy)))
					s.Input, put = &both, &both
				}
				policies[bucket] = aws.ToString(put.Policy)
			}
			b, _ := json.Marshal(s.Input) // made of plain data above
			key := s.Target() + s.Action + string(b)
			if !seen[key] {
				seen[key] = true
				steps = append(steps, s)
			}
		}
	}
	return steps
}

// A Change is a line of the record: that a step was begun, and how it ended.
type Change struct {
	At      time.Time       `json:"at"`
	State   string          `json:"state"` // begun, done or failed
	Control string          `json:"control"`
	Account string          `json:"account"`
	Region  string          `json:"region,omitempty"`
	Action  string          `json:"action"`
	Words   string          `json:"words"`
	Input   json.RawMessage `json:"input,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// Apply makes the steps in their order. Each is recorded before it is begun and when it has
// ended: if that cannot be written, nothing more is done. Where a step fails, what is left
// for its account and Region waits for the next run, which plans anew from what it then
// sees; elsewhere it goes on.
func Apply(ctx context.Context, access *Access, steps []Step, now func() time.Time, record func(Change) error) error {
	var failed []error
	stuck := make(map[string]bool)
	for i := range steps {
		s := &steps[i]
		if stuck[s.Target()] {
			continue
		}
		input, err := json.Marshal(s.Input)
		if err != nil {
			return fmt.Errorf("%s in %s: %w", s.Action, s.Target(), err)
		}
		c := Change{At: now().UTC(), State: "begun", Control: s.Control, Account: s.Account, Region: s.Region, Action: s.Action, Words: s.Words, Input: input}
		if err := record(c); err != nil {
			return fmt.Errorf("record a change before it is made: %w", err)
		}
		err = access.at(s.Account, s.region()).perform(ctx, s.Input)
		c.At, c.State = now().UTC(), "done"
		if err != nil {
			c.State, c.Error = "failed", reason(err)
			stuck[s.Target()] = true
			failed = append(failed, fmt.Errorf("%s in %s: %s", s.Action, s.Target(), c.Error))
		}
		if err := record(c); err != nil {
			return errors.Join(fmt.Errorf("record a change that was made: %w", err), errors.Join(failed...))
		}
		if ctx.Err() != nil {
			return errors.Join(append(failed, ctx.Err())...)
		}
	}
	return errors.Join(failed...)
}

func (s *Step) region() string {
	if s.Region == "" {
		return "us-east-1"
	}
	return s.Region
}

// perform makes one call. A kind of input that is not here cannot be applied, whatever a
// plan says.
func (c *clients) perform(ctx context.Context, input any) error {
	if _, err := c.confirm(ctx); err != nil {
		return err
	}
	var err error
	switch in := input.(type) {
	case *bedrock.PutModelInvocationLoggingConfigurationInput:
		_, err = c.bedrock.PutModelInvocationLoggingConfiguration(ctx, in)
	case *bedrock.CreateInferenceProfileInput:
		_, err = c.bedrock.CreateInferenceProfile(ctx, in)
	case *bedrock.TagResourceInput:
		_, err = c.bedrock.TagResource(ctx, in)
	case *s3.CreateBucketInput:
		if _, err = c.s3.CreateBucket(ctx, in); errorCode(err) == "BucketAlreadyOwnedByYou" {
			err = nil // an earlier run was cut off
		}
	case *s3.PutPublicAccessBlockInput:
		_, err = c.s3.PutPublicAccessBlock(ctx, in)
	case *s3.PutBucketOwnershipControlsInput:
		_, err = c.s3.PutBucketOwnershipControls(ctx, in)
	case *s3.PutBucketPolicyInput:
		_, err = c.s3.PutBucketPolicy(ctx, in)
	case *s3.PutBucketLifecycleConfigurationInput:
		_, err = c.s3.PutBucketLifecycleConfiguration(ctx, in)
	case *cloudwatchlogs.PutRetentionPolicyInput:
		_, err = c.logs.PutRetentionPolicy(ctx, in)
	case *bcmdataexports.CreateExportInput:
		_, err = c.exports.CreateExport(ctx, in)
	case *bcmdataexports.UpdateExportInput:
		_, err = c.exports.UpdateExport(ctx, in)
	case *costexplorer.UpdateCostAllocationTagsStatusInput:
		var out *costexplorer.UpdateCostAllocationTagsStatusOutput
		if out, err = c.costs.UpdateCostAllocationTagsStatus(ctx, in); err == nil && len(out.Errors) > 0 {
			var keys []string // AWS answers 200 and says here what it did not do
			for _, e := range out.Errors {
				keys = append(keys, aws.ToString(e.TagKey)+": "+aws.ToString(e.Message))
			}
			err = errors.New(strings.Join(keys, "; "))
		}
	case *costexplorer.StartCostAllocationTagBackfillInput:
		_, err = c.costs.StartCostAllocationTagBackfill(ctx, in)
	case *iam.CreateRoleInput:
		_, err = c.iam.CreateRole(ctx, in)
	case *iam.UpdateAssumeRolePolicyInput:
		_, err = c.iam.UpdateAssumeRolePolicy(ctx, in)
	case *iam.UpdateRoleInput:
		_, err = c.iam.UpdateRole(ctx, in)
	case *iam.TagRoleInput:
		_, err = c.iam.TagRole(ctx, in)
	case *iam.UpdateServiceSpecificCredentialInput:
		_, err = c.iam.UpdateServiceSpecificCredential(ctx, in)
	case *ProjectCreate:
		err = c.mantle.create(ctx, in)
	case *ProjectTag:
		err = c.mantle.tag(ctx, in)
	default:
		err = fmt.Errorf("a step of kind %T is not known", input)
	}
	return err
}

// diffTags are the lines of a change of tags.
func diffTags(have, want map[string]string) []string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		old, there := have[k]
		if there && old == want[k] {
			continue
		}
		if there {
			lines = append(lines, fmt.Sprintf("- tag %s = %s", k, old))
		}
		lines = append(lines, fmt.Sprintf("+ tag %s = %s", k, want[k]))
	}
	return lines
}

// lacking are the tags that have to be set so that have holds all of want.
func lacking(have, want map[string]string) map[string]string {
	out := make(map[string]string)
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			out[k] = v
		}
	}
	return out
}
