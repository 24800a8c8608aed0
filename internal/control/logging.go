package control

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	bedrocktypes "github.com/aws/aws-sdk-go-v2/service/bedrock/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/waybill-dev/waybill"
)

func loggingControls() []Control {
	return []Control{{
		ID: "logging-on", Title: "Invocation logging is on in every Region in use", Practices: []string{"P7", "P8"}, Severity: High,
		Holds:  "Model invocation logging is on, with delivery to S3, in every account and Region that calls Bedrock.",
		Seen:   "bedrock:GetModelInvocationLoggingConfiguration, for each account and Region.",
		Why:    "Logging is off until it is switched on, for each account and Region by itself. A call that was not logged cannot be attributed by its request metadata, ever.",
		Remedy: "waybill setup makes the bucket and switches logging on; a destination that is there already is kept.",
		Reads:  []string{"bedrock:GetModelInvocationLoggingConfiguration"}, Changes: []string{"bedrock:PutModelInvocationLoggingConfiguration", "s3:CreateBucket", "s3:PutBucketPublicAccessBlock"},
		judge: judgeLoggingOn,
	}, {
		ID: "log-bucket", Title: "Logs can be delivered", Practices: []string{"P7"}, Severity: High,
		Holds:  "The bucket that logs go to is there, has ACLs off, and its policy lets bedrock.amazonaws.com write for this account and Region.",
		Seen:   "The bucket's policy and ownership controls.",
		Why:    "AWS tries a delivery only when logging is switched on. If the policy is changed later, logs stop without a word.",
		Remedy: "waybill setup adds the statement to the bucket policy and leaves the others as they are.",
		Reads:  []string{"s3:ListBucket", "s3:GetBucketPolicy", "s3:GetBucketOwnershipControls", "s3:GetBucketPublicAccessBlock"}, Changes: []string{"s3:PutBucketPolicy", "s3:PutBucketOwnershipControls"},
		judge: judgeLogBucket,
	}, {
		ID: "log-retention", Title: "Logs are kept as long as declared, and no longer", Practices: []string{"P16", "P18"}, Severity: Medium,
		Holds:  "A lifecycle rule, and the retention of a log group, keep logs for the declared number of days.",
		Seen:   "The bucket's lifecycle rules; the log group's retention.",
		Why:    "Logs may hold prompts, which nobody wants for ever; logs that go before the month is reconciled leave dollars unexplained.",
		Remedy: "waybill setup adds a lifecycle rule for the prefix of the logs, and sets the log group's retention.",
		Reads:  []string{"s3:GetLifecycleConfiguration", "logs:DescribeLogGroups"}, Changes: []string{"s3:PutLifecycleConfiguration", "logs:PutRetentionPolicy"},
		judge: judgeLogRetention,
	}, {
		ID: "log-bodies", Title: "Bodies are delivered as declared, large ones too", Practices: []string{"P7", "P16"}, Severity: Medium,
		Holds:  "Prompts and answers are delivered, or withheld, as the declaration says; a log group has a bucket for large bodies.",
		Seen:   "The switches of the logging configuration.",
		Why:    "Bodies over 100 KB do not fit into a record: without a bucket for them, a log group loses them. Token counts and request metadata come with or without bodies, so bodies that nobody needs are a risk for nothing.",
		Remedy: "waybill setup sets the switches, and names the log bucket for large bodies.",
		Reads:  []string{"bedrock:GetModelInvocationLoggingConfiguration"}, Changes: []string{"bedrock:PutModelInvocationLoggingConfiguration"},
		judge: judgeLogBodies,
	}}
}

// merged is the logging configuration that is there, with what the declaration wants: a
// put replaces everything, and the destination of another team must survive it.
func merged(d *Declaration, l *Logging, account, region string) *bedrocktypes.LoggingConfig {
	g := &bedrocktypes.LoggingConfig{}
	set := func(kind string) *bool {
		switch d.Logging.Bodies {
		case "deliver":
			return aws.Bool(true)
		case "withhold":
			return aws.Bool(false)
		}
		if on, ok := l.Bodies[kind]; ok {
			return &on
		}
		if !l.On {
			return aws.Bool(false) // what nobody asked for is not kept
		}
		return nil
	}
	g.TextDataDeliveryEnabled, g.ImageDataDeliveryEnabled, g.EmbeddingDataDeliveryEnabled = set("text"), set("image"), set("embedding")
	g.VideoDataDeliveryEnabled, g.AudioDataDeliveryEnabled = set("video"), set("audio")
	target := func(bucket, prefix string) *bedrocktypes.S3Config {
		c := &bedrocktypes.S3Config{BucketName: &bucket}
		if prefix != "" {
			c.KeyPrefix = &prefix
		}
		return c
	}
	switch {
	case l.Bucket != "":
		g.S3Config = target(l.Bucket, l.Prefix)
	case d.Logging.Bucket != "":
		g.S3Config = target(d.Logging.Target(account, region), d.Logging.Prefix)
	}
	if l.LogGroup != "" {
		g.CloudWatchConfig = &bedrocktypes.CloudWatchConfig{LogGroupName: &l.LogGroup, RoleArn: &l.RoleARN}
		switch {
		case l.LargeBucket != "":
			g.CloudWatchConfig.LargeDataDeliveryS3Config = target(l.LargeBucket, l.LargePrefix)
		case g.S3Config != nil:
			g.CloudWatchConfig.LargeDataDeliveryS3Config = g.S3Config
		}
	}
	return g
}

func putLogging(in *Inquiry, a *AccountFacts, r *RegionFacts, words string, diff ...string) Step {
	return Step{Words: words, Diff: diff, Action: "bedrock:PutModelInvocationLoggingConfiguration",
		Input: &bedrock.PutModelInvocationLoggingConfigurationInput{LoggingConfig: merged(in.Declaration, &r.Logging.Value, a.ID, r.Region)}}
}

func judgeLoggingOn(in *Inquiry, report func(Finding)) {
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		l := &r.Logging
		switch {
		case l.Refused != "":
			report(unknown("AWS does not say whether logging is on: %s", l.Refused).at(a.ID, r.Region))
		case l.Value.Bucket != "":
			report(holds("logs go to s3://%s/%s", l.Value.Bucket, l.Value.Prefix).at(a.ID, r.Region))
		default:
			f := fails("invocation logging is off").at(a.ID, r.Region).worth(in.spent(a.ID, r.Region, waybill.Runtime))
			if l.Value.On {
				f = fails("logs go to the log group %s alone, and waybill reads them from S3", l.Value.LogGroup).at(a.ID, r.Region).as(Medium)
			}
			d := in.Declaration
			if d.Logging.Bucket == "" {
				report(f.fix("declare where logs go (logging: {bucket: ...}), then waybill setup"))
				return
			}
			bucket := d.Logging.Target(a.ID, r.Region)
			if r.Bucket.Refused != "" {
				report(f.fix("AWS does not say whether the bucket %s is there (%s): let the role see it, then waybill setup", bucket, r.Bucket.Refused))
				return
			}
			f = f.plan(bucketSteps(in, a, r, bucket)...)
			if r.Bucket.Value.Exists && r.Bucket.Value.ACLs {
				f = f.plan(ownershipStep(bucket)) // log delivery does not bear them
			}
			f = f.plan(putLogging(in, a, r, "switch invocation logging on", "+ s3Config.bucketName = "+bucket, "+ s3Config.keyPrefix = "+d.Logging.Prefix))
			report(f)
		}
	})
	if e, _ := in.ledger(); e != nil {
		reportUndeclared(in, e, report)
	}
}

// reportUndeclared tells of Regions that the ledger has calls of and nobody declared.
func reportUndeclared(in *Inquiry, e *Evidence, report func(Finding)) {
	type place struct{ account, region string }
	seen := make(map[place]waybill.Money)
	var order []place
	for _, u := range e.Days {
		p := place{u.Account, u.Region}
		if _, ok := seen[p]; !ok {
			order = append(order, p)
		}
		seen[p] = seen[p].Add(u.Cost)
	}
	for _, p := range order {
		declared := slices.ContainsFunc(in.Declaration.Accounts, func(a DeclaredAccount) bool { return a.ID == p.account && slices.Contains(a.Regions, p.region) })
		if !declared && p.account != "" && p.region != "" {
			report(fails("the ledger has calls here, and the declaration does not name the Region").at(p.account, p.region).worth(seen[p]).
				fix("add %s to the Regions of account %s", p.region, p.account))
		}
	}
}

// logStatement lets Bedrock deliver logs.
func logStatement(bucket, prefix, account, region string) map[string]any {
	p := partition(region)
	return map[string]any{"Effect": "Allow", "Principal": map[string]string{"Service": "bedrock.amazonaws.com"}, "Action": "s3:PutObject",
		"Resource":  fmt.Sprintf("arn:%s:s3:::%s/%s", p, bucket, logKey(prefix, account)),
		"Condition": map[string]any{"StringEquals": map[string]string{"aws:SourceAccount": account}, "ArnLike": map[string]string{"aws:SourceArn": fmt.Sprintf("arn:%s:bedrock:%s:%s:*", p, region, account)}}}
}

func logKey(prefix, account string) string {
	if prefix != "" {
		prefix += "/"
	}
	return prefix + "AWSLogs/" + account + "/BedrockModelInvocationLogs/*"
}

const logSid = "WaybillInvocationLogs"

// bucketSteps make a bucket that logs can be delivered to.
func bucketSteps(in *Inquiry, a *AccountFacts, r *RegionFacts, bucket string) []Step {
	steps := makeBucket(&r.Bucket.Value, bucket, r.Region)
	prefix := in.Declaration.Logging.Prefix
	if r.Logging.Value.Bucket == bucket {
		prefix = r.Logging.Value.Prefix
	}
	return append(steps, policyStep(&r.Bucket.Value, bucket, logSid, logStatement(bucket, prefix, a.ID, r.Region),
		func(list []policyEntry) bool {
			return lets(list, "bedrock.amazonaws.com", bucket, logKey(prefix, a.ID), a.ID, fmt.Sprintf("arn:%s:bedrock:%s:%s:*", partition(r.Region), r.Region, a.ID))
		})...)
}

// makeBucket makes a bucket if it is not there: private, owned by its account, ACLs off.
func makeBucket(b *Bucket, name, region string) []Step {
	var steps []Step
	if !b.Exists {
		in := &s3.CreateBucketInput{Bucket: &name, ObjectOwnership: s3types.ObjectOwnershipBucketOwnerEnforced}
		if region != "us-east-1" {
			in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(region)}
		}
		steps = append(steps, Step{Words: "make the bucket " + name, Diff: []string{"+ bucket " + name + " in " + region}, Action: "s3:CreateBucket", Input: in})
		steps = append(steps, Step{Words: "block public access to " + name, Diff: []string{"+ public access block"}, Action: "s3:PutBucketPublicAccessBlock",
			Input: &s3.PutPublicAccessBlockInput{Bucket: &name, PublicAccessBlockConfiguration: &s3types.PublicAccessBlockConfiguration{
				BlockPublicAcls: aws.Bool(true), BlockPublicPolicy: aws.Bool(true), IgnorePublicAcls: aws.Bool(true), RestrictPublicBuckets: aws.Bool(true)}}})
	}
	return steps
}

// ownershipStep switches the ACLs of a bucket off.
func ownershipStep(bucket string) Step {
	return Step{Words: "switch the ACLs of " + bucket + " off", Diff: []string{"+ ownership BucketOwnerEnforced"}, Action: "s3:PutBucketOwnershipControls",
		Input: &s3.PutBucketOwnershipControlsInput{Bucket: &bucket, OwnershipControls: &s3types.OwnershipControls{Rules: []s3types.OwnershipControlsRule{{ObjectOwnership: s3types.ObjectOwnershipBucketOwnerEnforced}}}}}
}

// policyStep adds a statement of ours to a bucket's policy, unless it is good without.
func policyStep(b *Bucket, name, sid string, ours map[string]any, good func([]policyEntry) bool) []Step {
	d, list, err := readDocument(b.Policy)
	if err != nil || good(list) {
		return nil // a policy that cannot be read is not overwritten: the control says so
	}
	text, err := d.with(sid, ours)
	if err != nil {
		return nil
	}
	if _, list, err := readDocument(text); err != nil || !good(list) {
		return nil // a statement denies it, and no other takes that back: a person has to
	}
	return []Step{{Words: "let AWS write to " + name, Diff: []string{"+ statement " + sid + ": " + fmt.Sprint(ours["Principal"]) + " may s3:PutObject"}, Action: "s3:PutBucketPolicy",
		Input: &s3.PutBucketPolicyInput{Bucket: &name, Policy: &text}}}
}

func judgeLogBucket(in *Inquiry, report func(Finding)) {
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		if r.Logging.Refused != "" {
			report(unknown("AWS does not say where logs go: %s", r.Logging.Refused).at(a.ID, r.Region))
			return
		}
		l := r.Logging.Value
		if l.Bucket == "" {
			return // logging-on says so
		}
		b := r.Bucket.Value
		place := func(f Finding) { report(f.at(a.ID, r.Region).of(l.Bucket)) }
		stake := in.spent(a.ID, r.Region, waybill.Runtime)
		switch {
		case r.Bucket.Refused != "":
			place(unknown("AWS does not show the bucket: %s", r.Bucket.Refused))
			return
		case !b.Exists:
			f := fails("the bucket that logs go to is not there").worth(stake)
			f.Account, f.Region = a.ID, r.Region
			place(f.plan(bucketSteps(in, a, r, l.Bucket)...))
			return
		}
		_, list, err := readDocument(b.Policy)
		if err != nil {
			place(unknown("the bucket policy cannot be read: %v", err))
			return
		}
		good := true
		if !lets(list, "bedrock.amazonaws.com", l.Bucket, logKey(l.Prefix, a.ID), a.ID, fmt.Sprintf("arn:%s:bedrock:%s:%s:*", partition(r.Region), r.Region, a.ID)) {
			good = false
			f := fails("the bucket policy does not let bedrock.amazonaws.com write under %q", l.Prefix).at(a.ID, r.Region).worth(stake)
			if steps := bucketSteps(in, a, r, l.Bucket); len(steps) > 0 {
				f = f.plan(steps...)
			} else {
				f = f.fix("a statement of the bucket policy denies it: except bedrock.amazonaws.com for account %s from it, by hand", a.ID)
			}
			place(f)
		}
		if b.ACLs {
			good = false
			place(fails("ACLs are in force, and log delivery needs them off").at(a.ID, r.Region).plan(ownershipStep(l.Bucket)))
		}
		if good {
			place(holds("logs can be delivered"))
		}
	})
}

const lifecycleID = "waybill-invocation-logs"

func judgeLogRetention(in *Inquiry, report func(Finding)) {
	want := in.Declaration.Logging.Retention
	if want == 0 {
		return
	}
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		if r.Logging.Refused != "" {
			report(unknown("AWS does not say where logs go: %s", r.Logging.Refused).at(a.ID, r.Region))
			return
		}
		l := r.Logging.Value
		// Where logging is about to be switched on, its bucket gets its rule at once.
		bucket, prefix := l.Bucket, l.Prefix
		if bucket == "" && in.Declaration.Logging.Bucket != "" {
			bucket, prefix = in.Declaration.Logging.Target(a.ID, r.Region), in.Declaration.Logging.Prefix
		}
		if bucket != "" {
			report(bucketRetention(&r.Bucket, bucket, prefix, want, a.ID, r.Region))
		}
		if l.LogGroup == "" {
			return
		}
		g := r.LogGroup
		switch {
		case g.Refused != "":
			report(unknown("AWS does not show the log group: %s", g.Refused).at(a.ID, r.Region).of(l.LogGroup))
		case g.Value.Retention == retention(want):
			report(holds("kept for %d days", g.Value.Retention).at(a.ID, r.Region).of(l.LogGroup))
		default:
			report(fails("kept %s, and %d days are declared", days(g.Value.Retention), want).at(a.ID, r.Region).of(l.LogGroup).
				plan(Step{Words: fmt.Sprintf("keep the log group for %d days", retention(want)), Diff: []string{"- retention " + days(g.Value.Retention), fmt.Sprintf("+ retention %d days", retention(want))}, Action: "logs:PutRetentionPolicy",
					Input: &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &l.LogGroup, RetentionInDays: aws.Int32(int32(retention(want)))}}))
		}
	})
}

func days(n int) string {
	if n == 0 {
		return "for ever"
	}
	return fmt.Sprintf("for %d days", n)
}

// retention is the number of days nearest to what is wanted that CloudWatch Logs takes: the
// least that is not less. Source: API reference, PutRetentionPolicy.
func retention(want int) int {
	for _, d := range []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288} {
		if d >= want {
			return d
		}
	}
	return 3653
}

func bucketRetention(b *Said[Bucket], name, prefix string, want int, account, region string) Finding {
	if b.Refused != "" {
		return unknown("AWS does not show the bucket: %s", b.Refused).at(account, region).of(name)
	}
	under := cmp.Or(prefix, "AWSLogs") + "/"
	kept := 0 // the rule that strikes first counts
	for _, rule := range b.Value.Lifecycle {
		if rule.Enabled && rule.Days > 0 && strings.HasPrefix(under, rule.Prefix) && (kept == 0 || rule.Days < kept) {
			kept = rule.Days
		}
	}
	if kept == want {
		return holds("kept for %d days", kept).at(account, region).of(name)
	}
	f := fails("kept %s, and %d days are declared", days(kept), want).at(account, region).of(name)
	if kept > 0 && kept < want && !slices.ContainsFunc(b.Value.Lifecycle, func(r LifecycleRule) bool { return r.ID == lifecycleID && r.Days == kept }) {
		return f.fix("a lifecycle rule that is not Waybill's deletes logs earlier: change or remove it")
	}
	var rules []s3types.LifecycleRule
	if len(b.Value.WholeLifecycle) > 0 && json.Unmarshal(b.Value.WholeLifecycle, &rules) != nil {
		return f.fix("the bucket's lifecycle rules cannot be read: add one by hand that expires %q after %d days", under, want)
	}
	rules = slices.DeleteFunc(rules, func(r s3types.LifecycleRule) bool { return aws.ToString(r.ID) == lifecycleID })
	rules = append(rules, s3types.LifecycleRule{ID: aws.String(lifecycleID), Status: s3types.ExpirationStatusEnabled, Filter: &s3types.LifecycleRuleFilter{Prefix: &under},
		Expiration: &s3types.LifecycleExpiration{Days: aws.Int32(int32(want))}})
	return f.plan(Step{Words: fmt.Sprintf("keep logs for %d days", want), Diff: []string{fmt.Sprintf("+ lifecycle rule %s: %s expires after %d days", lifecycleID, under, want)}, Action: "s3:PutLifecycleConfiguration",
		Input: &s3.PutBucketLifecycleConfigurationInput{Bucket: &name, LifecycleConfiguration: &s3types.BucketLifecycleConfiguration{Rules: rules}}})
}

func judgeLogBodies(in *Inquiry, report func(Finding)) {
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		if r.Logging.Refused != "" {
			report(unknown("AWS does not say what is logged: %s", r.Logging.Refused).at(a.ID, r.Region))
			return
		}
		l := r.Logging.Value
		if !l.On {
			return
		}
		want := merged(in.Declaration, &l, a.ID, r.Region)
		var diff []string
		for _, kind := range []struct {
			name string
			to   *bool
		}{{"text", want.TextDataDeliveryEnabled}, {"image", want.ImageDataDeliveryEnabled}, {"embedding", want.EmbeddingDataDeliveryEnabled}, {"video", want.VideoDataDeliveryEnabled}, {"audio", want.AudioDataDeliveryEnabled}} {
			on, said := l.Bodies[kind.name]
			if in.Declaration.Logging.Bodies == "" || kind.to == nil || said && on == *kind.to {
				continue
			}
			if said {
				diff = append(diff, fmt.Sprintf("- %sDataDeliveryEnabled = %t", kind.name, on))
			}
			diff = append(diff, fmt.Sprintf("+ %sDataDeliveryEnabled = %t", kind.name, *kind.to))
		}
		message := "bodies are not as declared: " + in.Declaration.Logging.Bodies
		if l.LogGroup != "" && l.LargeBucket == "" && l.Bodies["text"] && in.Declaration.Logging.Bodies != "withhold" {
			message = "bodies over 100 KB are lost: the log group has no bucket for them"
			if want.CloudWatchConfig.LargeDataDeliveryS3Config == nil {
				report(fails("%s", message).at(a.ID, r.Region).fix("declare a bucket for logs, then waybill setup"))
				return
			}
			diff = append(diff, "+ largeDataDeliveryS3Config.bucketName = "+aws.ToString(want.CloudWatchConfig.LargeDataDeliveryS3Config.BucketName))
		}
		if len(diff) == 0 {
			report(holds("as declared").at(a.ID, r.Region))
			return
		}
		report(fails("%s", message).at(a.ID, r.Region).plan(putLogging(in, a, r, "set what is delivered", diff...)))
	})
}
