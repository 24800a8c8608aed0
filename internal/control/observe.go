package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bcmdataexports"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	bedrocktypes "github.com/aws/aws-sdk-go-v2/service/bedrock/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	trailtypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	watchtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/costexplorer"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/smithy-go"

	"github.com/waybill-dev/waybill"
)

// An Observation says what to look at.
type Observation struct {
	Declaration *Declaration
	Ledger      Ledger // nil: the ledger is not asked
	Now         time.Time
	Days        int // of CloudWatch and the ledger to look back; 0 means 14
}

// askAtOnce bounds the questions under way: AWS throttles control planes early.
const askAtOnce = 8

// Observe asks the accounts. What AWS refuses to say is part of the answer; the error is
// of the context alone.
func Observe(ctx context.Context, access *Access, o Observation) (*Snapshot, error) {
	if o.Days == 0 {
		o.Days = 14
	}
	until := o.Now.UTC().Truncate(24 * time.Hour)
	since := until.AddDate(0, 0, -o.Days)
	d := o.Declaration
	s := &Snapshot{Version: 1, TakenAt: o.Now.UTC(), Payer: PayerFacts{Account: d.Payer}, Accounts: make([]AccountFacts, len(d.Accounts))}
	q := &questions{ctx: ctx, room: make(chan struct{}, askAtOnce)}

	payer := access.at(d.Payer, homeRegion(d))
	ask(q, payer, &s.Payer.CostTags, payer.costTags)
	ask(q, payer, &s.Payer.Backfills, payer.backfills)
	ask(q, payer, &s.Payer.Exports, payer.dataExports)
	ask(q, payer, &s.Payer.Columns, payer.columns)
	if d.Export.Bucket != "" {
		at := access.at(d.Payer, d.Export.Region)
		ask(q, at, &s.Payer.Bucket, func(ctx context.Context) (Bucket, error) { return at.bucket(ctx, d.Export.Bucket) })
	}
	for i, account := range d.Accounts {
		facts := &s.Accounts[i]
		facts.ID, facts.Roles, facts.Regions = account.ID, make(map[string]Said[Role]), make([]RegionFacts, len(account.Regions))
		home := access.at(account.ID, account.Regions[0])
		ask(q, home, &facts.Caller, home.confirm)
		ask(q, home, &facts.APIKeys, home.apiKeys)
		for _, r := range d.Gateway.Roles {
			if accountOf(r.ARN) == account.ID {
				var said Said[Role]
				q.after(ask(q, home, &said, func(ctx context.Context) (Role, error) { return home.role(ctx, roleName(r.ARN)) }), func() { facts.Roles[r.ARN] = said })
			}
		}
		for j, region := range account.Regions {
			observeRegion(q, access.at(account.ID, region), &facts.Regions[j], d, account.ID, region, since, until)
		}
	}
	if o.Ledger != nil {
		ask(q, nil, &s.Ledger, func(ctx context.Context) (*Evidence, error) { return o.Ledger.Evidence(ctx, since, until) })
	}
	q.wait()
	return s, ctx.Err()
}

func observeRegion(q *questions, c *clients, r *RegionFacts, d *Declaration, account, region string, since, until time.Time) {
	r.Region = region
	// What logs go to is known only when the configuration is.
	q.after(ask(q, c, &r.Logging, c.logging), func() {
		bucket := r.Logging.Value.Bucket
		if bucket == "" && d.Logging.Bucket != "" {
			bucket = d.Logging.Target(account, region)
		}
		if bucket != "" {
			ask(q, c, &r.Bucket, func(ctx context.Context) (Bucket, error) { return c.bucket(ctx, bucket) })
		}
		if group := r.Logging.Value.LogGroup; group != "" {
			ask(q, c, &r.LogGroup, func(ctx context.Context) (LogGroup, error) { return c.logGroup(ctx, group) })
		}
	})
	ask(q, c, &r.Profiles, c.profiles)
	if slices.ContainsFunc(d.Applications, func(a Application) bool { return a.Project && a.in(account, region) }) {
		ask(q, c, &r.Projects, c.mantle.projects)
	}
	ask(q, c, &r.STSQuota, c.stsQuota)
	ask(q, c, &r.Metrics, func(ctx context.Context) ([]DayMetric, error) { return c.metrics(ctx, since, until) })
	ask(q, c, &r.KeyUses, func(ctx context.Context) (uses []KeyUse, err error) {
		uses, r.KeyUsesFrom, err = c.keyUses(ctx, since)
		return uses, err
	})
	ask(q, c, &r.Outside, func(ctx context.Context) (uses []OutsideUse, err error) {
		uses, r.OutsideFrom, err = c.outside(ctx, since)
		return uses, err
	})
}

// homeRegion is where the payer's clients are at home; its services are global.
func homeRegion(d *Declaration) string {
	for _, a := range d.Accounts {
		if a.ID == d.Payer && len(a.Regions) > 0 {
			return a.Regions[0]
		}
	}
	return "us-east-1"
}

// questions are those under way. Questions may lead to others.
type questions struct {
	ctx  context.Context
	room chan struct{}
	all  sync.WaitGroup
	mu   sync.Mutex // guards what after's functions write
}

func (q *questions) wait() { q.all.Wait() }

// ask puts a question to an account, once that is the right one, or to somebody else (nil).
// The answer is there when wait returns, or the channel is closed.
func ask[T any](q *questions, c *clients, to *Said[T], question func(context.Context) (T, error)) (answered <-chan struct{}) {
	done := make(chan struct{})
	q.all.Go(func() {
		defer close(done)
		select {
		case q.room <- struct{}{}:
		case <-q.ctx.Done():
			to.Refused = q.ctx.Err().Error()
			return
		}
		defer func() { <-q.room }()
		if c != nil {
			if _, err := c.confirm(q.ctx); err != nil {
				to.Refused = reason(err)
				return
			}
		}
		v, err := question(q.ctx)
		if err != nil {
			to.Refused = reason(err)
			return
		}
		to.Value = v
	})
	return done
}

// after calls f once a question is answered.
func (q *questions) after(answered <-chan struct{}, f func()) {
	q.all.Go(func() {
		<-answered
		q.mu.Lock()
		defer q.mu.Unlock()
		f()
	})
}

// reason is an error as it may be kept: AWS's code and words, without the URL of the call.
func reason(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode() + ": " + e.ErrorMessage()
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Op + ": " + e.Err.Error()
	}
	return err.Error()
}

func errorCode(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func (c *clients) costTags(ctx context.Context) ([]CostTag, error) {
	var all []CostTag
	in := &costexplorer.ListCostAllocationTagsInput{MaxResults: aws.Int32(100)}
	for {
		out, err := c.costs.ListCostAllocationTags(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, t := range out.CostAllocationTags {
			all = append(all, CostTag{Key: aws.ToString(t.TagKey), Type: string(t.Type), Active: t.Status == "Active", Updated: instant(t.LastUpdatedDate), Used: instant(t.LastUsedDate)})
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}

// instant reads a time as Cost Explorer writes it; what it cannot read is no time.
func instant(s *string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02"} {
		if t, err := time.Parse(layout, aws.ToString(s)); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

func (c *clients) backfills(ctx context.Context) ([]Backfill, error) {
	var all []Backfill
	in := &costexplorer.ListCostAllocationTagBackfillHistoryInput{}
	for {
		out, err := c.costs.ListCostAllocationTagBackfillHistory(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, b := range out.BackfillRequests {
			all = append(all, Backfill{From: instant(b.BackfillFrom), At: instant(b.RequestedAt), Status: string(b.BackfillStatus)})
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}

func (c *clients) dataExports(ctx context.Context) ([]Export, error) {
	var all []Export
	in := &bcmdataexports.ListExportsInput{}
	for {
		out, err := c.exports.ListExports(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, ref := range out.Exports {
			e, err := c.dataExport(ctx, aws.ToString(ref.ExportArn))
			if err != nil {
				return nil, err
			}
			if e != nil {
				all = append(all, *e)
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}

// dataExport is one export with its settings, or nil if it is of another table.
func (c *clients) dataExport(ctx context.Context, arn string) (*Export, error) {
	out, err := c.exports.GetExport(ctx, &bcmdataexports.GetExportInput{ExportArn: &arn})
	if err != nil {
		return nil, err
	}
	x := out.Export
	if x == nil || x.DataQuery == nil || x.DestinationConfigurations == nil || x.DestinationConfigurations.S3Destination == nil {
		return nil, nil
	}
	properties, ok := x.DataQuery.TableConfigurations[curTable]
	if !ok && !strings.Contains(strings.ToUpper(aws.ToString(x.DataQuery.QueryStatement)), curTable) {
		return nil, nil
	}
	d := x.DestinationConfigurations.S3Destination
	e := &Export{ARN: arn, Name: aws.ToString(x.Name), Query: aws.ToString(x.DataQuery.QueryStatement), Properties: properties,
		Bucket: aws.ToString(d.S3Bucket), Prefix: aws.ToString(d.S3Prefix), Region: aws.ToString(d.S3Region)}
	if d.S3OutputConfigurations != nil {
		e.Format = string(d.S3OutputConfigurations.Format)
	}
	if out.ExportStatus != nil {
		e.Status, e.Reason = string(out.ExportStatus.StatusCode), string(out.ExportStatus.StatusReason)
	}
	if e.Whole, err = json.Marshal(x); err != nil {
		return nil, err
	}
	return e, nil
}

const curTable = "COST_AND_USAGE_REPORT"

// wantedProperties are the table properties of an export that Waybill can attribute by.
func wantedProperties() map[string]string {
	return map[string]string{"TIME_GRANULARITY": "HOURLY", "INCLUDE_RESOURCES": "TRUE", "INCLUDE_IAM_PRINCIPAL_DATA": "TRUE",
		"INCLUDE_SPLIT_COST_ALLOCATION_DATA": "FALSE", "INCLUDE_MANUAL_DISCOUNT_COMPATIBILITY": "FALSE"}
}

// columns asks which columns the table has. Whether line_item_iam_principal may be named
// is told differently by different people: what AWS lists is what a query may name.
func (c *clients) columns(ctx context.Context) ([]string, error) {
	out, err := c.exports.GetTable(ctx, &bcmdataexports.GetTableInput{TableName: aws.String(curTable), TableProperties: wantedProperties()})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, col := range out.Schema {
		names = append(names, aws.ToString(col.Name))
	}
	slices.Sort(names)
	return names, nil
}

func (c *clients) apiKeys(ctx context.Context) ([]APIKey, error) {
	var all []APIKey
	in := &iam.ListServiceSpecificCredentialsInput{AllUsers: aws.Bool(true), ServiceName: aws.String("bedrock.amazonaws.com")}
	for {
		out, err := c.iam.ListServiceSpecificCredentials(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, k := range out.ServiceSpecificCredentials {
			all = append(all, APIKey{ID: aws.ToString(k.ServiceSpecificCredentialId), User: aws.ToString(k.UserName), Active: k.Status == "Active",
				Created: aws.ToTime(k.CreateDate), Expires: aws.ToTime(k.ExpirationDate)})
		}
		if !out.IsTruncated {
			return all, nil
		}
		in.Marker = out.Marker
	}
}

func (c *clients) role(ctx context.Context, name string) (Role, error) {
	out, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if errorCode(err) == "NoSuchEntity" {
		return Role{}, nil
	}
	if err != nil {
		return Role{}, err
	}
	r := Role{Exists: true, MaxSession: int(aws.ToInt32(out.Role.MaxSessionDuration)), Tags: make(map[string]string)}
	if r.Trust, err = url.PathUnescape(strings.ReplaceAll(aws.ToString(out.Role.AssumeRolePolicyDocument), "+", " ")); err != nil {
		return Role{}, fmt.Errorf("read the trust policy of %s: %w", name, err)
	}
	in := &iam.ListRoleTagsInput{RoleName: &name}
	for {
		tags, err := c.iam.ListRoleTags(ctx, in)
		if err != nil {
			return Role{}, err
		}
		for _, t := range tags.Tags {
			r.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
		}
		if !tags.IsTruncated {
			return r, nil
		}
		in.Marker = tags.Marker
	}
}

func (c *clients) logging(ctx context.Context) (Logging, error) {
	out, err := c.bedrock.GetModelInvocationLoggingConfiguration(ctx, &bedrock.GetModelInvocationLoggingConfigurationInput{})
	if err != nil || out.LoggingConfig == nil {
		return Logging{}, err
	}
	g := out.LoggingConfig
	l := Logging{On: g.S3Config != nil || g.CloudWatchConfig != nil, Bodies: make(map[string]bool)}
	for kind, on := range map[string]*bool{"text": g.TextDataDeliveryEnabled, "image": g.ImageDataDeliveryEnabled, "embedding": g.EmbeddingDataDeliveryEnabled,
		"video": g.VideoDataDeliveryEnabled, "audio": g.AudioDataDeliveryEnabled} {
		if on != nil {
			l.Bodies[kind] = *on
		}
	}
	if g.S3Config != nil {
		l.Bucket, l.Prefix = aws.ToString(g.S3Config.BucketName), aws.ToString(g.S3Config.KeyPrefix)
	}
	if w := g.CloudWatchConfig; w != nil {
		l.LogGroup, l.RoleARN = aws.ToString(w.LogGroupName), aws.ToString(w.RoleArn)
		if w.LargeDataDeliveryS3Config != nil {
			l.LargeBucket, l.LargePrefix = aws.ToString(w.LargeDataDeliveryS3Config.BucketName), aws.ToString(w.LargeDataDeliveryS3Config.KeyPrefix)
		}
	}
	return l, nil
}

// bucket is what a bucket of the account is like. A bucket of that name that is somebody
// else's is refused, whatever its owner lets us see: prompts do not go there.
func (c *clients) bucket(ctx context.Context, name string) (Bucket, error) {
	b := Bucket{Name: name}
	if _, err := c.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name, ExpectedBucketOwner: &c.account}); err != nil {
		if code := errorCode(err); code == "NotFound" || code == "NoSuchBucket" {
			return b, nil
		}
		return b, err
	}
	b.Exists = true
	p, err := c.s3.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: &name, ExpectedBucketOwner: &c.account})
	if err == nil {
		b.Policy = aws.ToString(p.Policy)
	} else if errorCode(err) != "NoSuchBucketPolicy" {
		return b, err
	}
	l, err := c.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &name, ExpectedBucketOwner: &c.account})
	if err == nil {
		for _, r := range l.Rules {
			rule := LifecycleRule{ID: aws.ToString(r.ID), Enabled: r.Status == "Enabled", Prefix: aws.ToString(r.Prefix)} //nolint:staticcheck // rules made long ago have it in the place of a filter
			if r.Filter != nil {
				rule.Prefix = aws.ToString(r.Filter.Prefix)
				if r.Filter.Tag != nil || r.Filter.And != nil || r.Filter.ObjectSizeGreaterThan != nil || r.Filter.ObjectSizeLessThan != nil {
					continue // it is for some objects only
				}
			}
			if r.Expiration != nil {
				rule.Days = int(aws.ToInt32(r.Expiration.Days))
			}
			b.Lifecycle = append(b.Lifecycle, rule)
		}
		if b.WholeLifecycle, err = json.Marshal(l.Rules); err != nil {
			return b, err
		}
	} else if errorCode(err) != "NoSuchLifecycleConfiguration" {
		return b, err
	}
	o, err := c.s3.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: &name, ExpectedBucketOwner: &c.account})
	switch {
	case err == nil && o.OwnershipControls != nil && len(o.OwnershipControls.Rules) > 0:
		b.ACLs = o.OwnershipControls.Rules[0].ObjectOwnership != "BucketOwnerEnforced"
	case err == nil || errorCode(err) == "OwnershipControlsNotFoundError":
		b.ACLs = true
	default:
		return b, err
	}
	block, err := c.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &name, ExpectedBucketOwner: &c.account})
	if err == nil && block.PublicAccessBlockConfiguration != nil {
		p := block.PublicAccessBlockConfiguration
		b.PublicBlocked = aws.ToBool(p.BlockPublicAcls) && aws.ToBool(p.BlockPublicPolicy) && aws.ToBool(p.IgnorePublicAcls) && aws.ToBool(p.RestrictPublicBuckets)
	} else if err != nil && errorCode(err) != "NoSuchPublicAccessBlockConfiguration" {
		return b, err
	}
	return b, nil
}

func (c *clients) logGroup(ctx context.Context, name string) (LogGroup, error) {
	in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &name}
	for {
		out, err := c.logs.DescribeLogGroups(ctx, in)
		if err != nil {
			return LogGroup{}, err
		}
		for _, g := range out.LogGroups {
			if aws.ToString(g.LogGroupName) == name {
				return LogGroup{Name: name, Exists: true, Retention: int(aws.ToInt32(g.RetentionInDays))}, nil
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return LogGroup{Name: name}, nil
		}
	}
}

func (c *clients) profiles(ctx context.Context) ([]Profile, error) {
	var all []Profile
	in := &bedrock.ListInferenceProfilesInput{TypeEquals: bedrocktypes.InferenceProfileTypeApplication}
	for {
		out, err := c.bedrock.ListInferenceProfiles(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, f := range out.InferenceProfileSummaries {
			p := Profile{ARN: aws.ToString(f.InferenceProfileArn), Name: aws.ToString(f.InferenceProfileName), Tags: make(map[string]string)}
			for _, m := range f.Models {
				p.Models = append(p.Models, aws.ToString(m.ModelArn))
			}
			tags, err := c.bedrock.ListTagsForResource(ctx, &bedrock.ListTagsForResourceInput{ResourceARN: &p.ARN})
			if errorCode(err) == "ResourceNotFoundException" {
				continue // deleted since it was listed
			}
			if err != nil {
				return nil, err
			}
			for _, t := range tags.Tags {
				p.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
			}
			all = append(all, p)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}

// stsQuota is how many AssumeRole calls a second the account may make in the Region. Not
// every account lists a quota for STS: then IAM's documented 600 holds.
func (c *clients) stsQuota(ctx context.Context) (int, error) {
	in := &servicequotas.ListServiceQuotasInput{ServiceCode: aws.String("sts")}
	for {
		out, err := c.quotas.ListServiceQuotas(ctx, in)
		if errorCode(err) == "NoSuchResourceException" {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		for _, q := range out.Quotas {
			name := strings.ToLower(aws.ToString(q.QuotaName))
			if q.Value != nil && (strings.Contains(name, "assumerole") || strings.Contains(name, "request")) {
				return int(*q.Value), nil
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return 0, nil
		}
	}
}

// watched are the metrics that count calls and tokens, by namespace. Bedrock's own are told
// by ModelId alone; bedrock-mantle's at Project and Model, since its account level was seen
// to be empty. Source: the user guide's pages on CloudWatch metrics of both endpoints.
var watched = []struct {
	endpoint  waybill.Endpoint
	namespace string
	model     string // the dimension that names it
	names     map[string]func(*DayMetric) *int64
}{
	{waybill.Runtime, "AWS/Bedrock", "ModelId", map[string]func(*DayMetric) *int64{
		"Invocations":      func(m *DayMetric) *int64 { return &m.Calls },
		"InputTokenCount":  func(m *DayMetric) *int64 { return &m.Input },
		"OutputTokenCount": func(m *DayMetric) *int64 { return &m.Output }}},
	{waybill.Mantle, "AWS/BedrockMantle", "Model", map[string]func(*DayMetric) *int64{
		"Inferences":   func(m *DayMetric) *int64 { return &m.Calls },
		"InputTokens":  func(m *DayMetric) *int64 { return &m.Input },
		"OutputTokens": func(m *DayMetric) *int64 { return &m.Output }}},
}

func (c *clients) metrics(ctx context.Context, since, until time.Time) ([]DayMetric, error) {
	type key struct {
		day            waybill.Day
		endpoint       waybill.Endpoint
		model, project string
	}
	days := make(map[key]*DayMetric)
	for _, w := range watched {
		for _, name := range slices.Sorted(maps.Keys(w.names)) {
			metrics, err := c.listMetrics(ctx, w.namespace, name)
			if err != nil {
				return nil, err
			}
			metrics = slices.DeleteFunc(metrics, func(m watchtypes.Metric) bool {
				return dimension(m, w.model) == "" || len(m.Dimensions) != map[waybill.Endpoint]int{waybill.Runtime: 1, waybill.Mantle: 2}[w.endpoint] ||
					w.endpoint == waybill.Mantle && dimension(m, "Project") == ""
			})
			for part := range slices.Chunk(metrics, 500) {
				err := c.metricData(ctx, part, since, until, func(m watchtypes.Metric, day waybill.Day, sum int64) {
					k := key{day, w.endpoint, dimension(m, w.model), dimension(m, "Project")}
					if days[k] == nil {
						days[k] = &DayMetric{Day: day, Endpoint: w.endpoint, Model: k.model, Project: k.project}
					}
					*w.names[name](days[k]) += sum
				})
				if err != nil {
					return nil, err
				}
			}
		}
	}
	out := make([]DayMetric, 0, len(days))
	for _, m := range days {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b DayMetric) int {
		return strings.Compare(fmt.Sprintf("%010d %s %s %s", a.Day, a.Endpoint, a.Model, a.Project), fmt.Sprintf("%010d %s %s %s", b.Day, b.Endpoint, b.Model, b.Project))
	})
	return out, nil
}

func dimension(m watchtypes.Metric, name string) string {
	for _, d := range m.Dimensions {
		if aws.ToString(d.Name) == name {
			return aws.ToString(d.Value)
		}
	}
	return ""
}

func (c *clients) listMetrics(ctx context.Context, namespace, name string) ([]watchtypes.Metric, error) {
	var all []watchtypes.Metric
	in := &cloudwatch.ListMetricsInput{Namespace: &namespace, MetricName: &name}
	for {
		out, err := c.watch.ListMetrics(ctx, in)
		if err != nil {
			return nil, err
		}
		all = append(all, out.Metrics...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}

func (c *clients) metricData(ctx context.Context, metrics []watchtypes.Metric, since, until time.Time, add func(watchtypes.Metric, waybill.Day, int64)) error {
	in := &cloudwatch.GetMetricDataInput{StartTime: &since, EndTime: &until}
	for i := range metrics {
		in.MetricDataQueries = append(in.MetricDataQueries, watchtypes.MetricDataQuery{Id: aws.String(fmt.Sprintf("m%d", i)),
			MetricStat: &watchtypes.MetricStat{Metric: &metrics[i], Period: aws.Int32(86400), Stat: aws.String("Sum")}})
	}
	for {
		out, err := c.watch.GetMetricData(ctx, in)
		if err != nil {
			return err
		}
		for _, r := range out.MetricDataResults {
			var i int
			if _, err := fmt.Sscanf(aws.ToString(r.Id), "m%d", &i); err != nil || i >= len(metrics) || len(r.Timestamps) != len(r.Values) {
				return fmt.Errorf("CloudWatch answered something that was not asked: %q", aws.ToString(r.Id))
			}
			for j, at := range r.Timestamps {
				add(metrics[i], waybill.DayOf(at), int64(r.Values[j]))
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return nil
		}
	}
}

// eventPages bounds how far back CloudTrail is read: it allows two lookups a second.
const eventPages = 20

// An event is what is read of an event of CloudTrail.
type event struct {
	Source   string    `json:"eventSource"`
	Name     string    `json:"eventName"`
	Time     time.Time `json:"-"`
	Identity struct {
		ARN string `json:"arn"`
	} `json:"userIdentity"`
	Additional map[string]any `json:"additionalEventData"`
	Request    map[string]any `json:"requestParameters"`
}

// events calls f with the events of a source, the newest first. Where there are more than
// are read, from is the time of the oldest that was.
func (c *clients) events(ctx context.Context, source string, since time.Time, f func(event)) (from time.Time, err error) {
	in := &cloudtrail.LookupEventsInput{StartTime: &since, LookupAttributes: []trailtypes.LookupAttribute{{AttributeKey: "EventSource", AttributeValue: &source}}}
	for range eventPages {
		out, err := c.trail.LookupEvents(ctx, in)
		if err != nil {
			return time.Time{}, err
		}
		for _, e := range out.Events {
			from = aws.ToTime(e.EventTime)
			var ev event
			if json.Unmarshal([]byte(aws.ToString(e.CloudTrailEvent)), &ev) != nil {
				continue // an event in a form of its own says nothing about keys
			}
			ev.Time = aws.ToTime(e.EventTime)
			f(ev)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return time.Time{}, nil
		}
	}
	return from, nil
}

// keyUses finds calls that were made with a Bedrock API key. from is from when on, if not
// all that was asked for could be read.
func (c *clients) keyUses(ctx context.Context, since time.Time) (_ []KeyUse, from time.Time, _ error) {
	uses := make(map[[2]string]*KeyUse)
	for _, source := range []string{"bedrock.amazonaws.com", "bedrock-mantle.amazonaws.com"} {
		oldest, err := c.events(ctx, source, since, func(e event) {
			for _, told := range []map[string]any{e.Additional, e.Request} {
				if used, _ := told["callWithBearerToken"].(bool); !used {
					continue
				}
				kind, _ := told["bearerTokenType"].(string)
				k := [2]string{e.Identity.ARN, map[string]string{"ABSK": "long-term", "LONG_TERM": "long-term", "SHORT_TERM": "short-term"}[kind]}
				if uses[k] == nil {
					uses[k] = &KeyUse{Principal: k[0], Kind: k[1]}
				}
				uses[k].Calls++
				if e.Time.After(uses[k].Last) {
					uses[k].Last = e.Time
				}
				return
			}
		})
		if err != nil {
			return nil, from, err
		}
		if oldest.After(from) {
			from = oldest
		}
	}
	out := make([]KeyUse, 0, len(uses))
	for _, u := range uses {
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b KeyUse) int { return strings.Compare(a.Principal+a.Kind, b.Principal+b.Kind) })
	return out, from, nil
}

// outside finds calls to Claude Platform on AWS, which is sold outside Bedrock. The name of
// its event source is not documented: its signing name is taken for it.
func (c *clients) outside(ctx context.Context, since time.Time) (_ []OutsideUse, from time.Time, _ error) {
	uses := make(map[string]*OutsideUse)
	from, err := c.events(ctx, "aws-external-anthropic.amazonaws.com", since, func(e event) {
		u := uses[e.Identity.ARN]
		if u == nil {
			u = &OutsideUse{Source: e.Source, Principal: e.Identity.ARN}
			uses[e.Identity.ARN] = u
		}
		u.Calls++
		if e.Time.After(u.Last) {
			u.Last = e.Time
		}
	})
	if err != nil {
		return nil, from, err
	}
	out := make([]OutsideUse, 0, len(uses))
	for _, u := range uses {
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b OutsideUse) int { return strings.Compare(a.Principal, b.Principal) })
	return out, from, nil
}
