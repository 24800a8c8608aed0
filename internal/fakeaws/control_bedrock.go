package fakeaws

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

type profileState struct {
	id, arn, name, description, source string
	models                             []string
	created                            time.Time
	tags                               map[string]string
	token                              string
}

// bedrockOperation names the operation of a method and a path.
func bedrockOperation(r *controlRequest) string {
	raw := strings.Split(strings.TrimPrefix(r.http.URL.EscapedPath(), "/"), "/")
	for _, part := range raw {
		text, err := url.PathUnescape(part)
		if err != nil {
			return ""
		}
		r.path = append(r.path, text)
	}
	switch key := fmt.Sprintf("%s %s %d", r.http.Method, r.path[0], len(r.path)); key {
	case "GET logging 2":
		return "GetModelInvocationLoggingConfiguration"
	case "PUT logging 2":
		return "PutModelInvocationLoggingConfiguration"
	case "DELETE logging 2":
		return "DeleteModelInvocationLoggingConfiguration"
	case "POST inference-profiles 1":
		return "CreateInferenceProfile"
	case "GET inference-profiles 1":
		return "ListInferenceProfiles"
	case "GET inference-profiles 2":
		return "GetInferenceProfile"
	case "DELETE inference-profiles 2":
		return "DeleteInferenceProfile"
	case "POST tagResource 1":
		return "TagResource"
	case "POST untagResource 1":
		return "UntagResource"
	case "POST listTagsForResource 1":
		return "ListTagsForResource"
	}
	return ""
}

func (p *ControlPlane) bedrock(r *controlRequest) (any, *refusal) {
	here := p.region(r.Account, r.Region)
	switch r.Operation {
	case "GetModelInvocationLoggingConfiguration":
		if here.logging == nil {
			return obj{}, nil
		}
		return obj{"loggingConfig": here.logging}, nil
	case "DeleteModelInvocationLoggingConfiguration":
		here.logging = nil
		return obj{}, nil
	case "PutModelInvocationLoggingConfiguration":
		return p.putLogging(r, here)
	case "CreateInferenceProfile":
		return p.createProfile(r, here)
	case "ListInferenceProfiles":
		return p.listProfiles(r, here)
	case "GetInferenceProfile":
		f := here.profile(r.path[1])
		if f == nil {
			return nil, &refusal{404, "ResourceNotFoundException", "The provided inference profile does not exist."}
		}
		return f.summary(), nil
	case "DeleteInferenceProfile":
		f := here.profile(r.path[1])
		if f == nil {
			return nil, &refusal{404, "ResourceNotFoundException", "The provided inference profile does not exist."}
		}
		for i := range here.profiles {
			if here.profiles[i] == f {
				here.profiles = append(here.profiles[:i], here.profiles[i+1:]...)
				break
			}
		}
		return obj{}, nil
	}
	return p.bedrockTags(r, here)
}

type s3Target struct {
	BucketName *string `json:"bucketName"`
	KeyPrefix  *string `json:"keyPrefix,omitempty"`
}

type loggingBody struct {
	S3Config         *s3Target `json:"s3Config,omitempty"`
	CloudWatchConfig *struct {
		LogGroupName              *string   `json:"logGroupName"`
		RoleArn                   *string   `json:"roleArn"`
		LargeDataDeliveryS3Config *s3Target `json:"largeDataDeliveryS3Config,omitempty"`
	} `json:"cloudWatchConfig,omitempty"`
	Text      *bool `json:"textDataDeliveryEnabled,omitempty"`
	Image     *bool `json:"imageDataDeliveryEnabled,omitempty"`
	Embedding *bool `json:"embeddingDataDeliveryEnabled,omitempty"`
	Video     *bool `json:"videoDataDeliveryEnabled,omitempty"`
	Audio     *bool `json:"audioDataDeliveryEnabled,omitempty"`
}

var logGroupText = regexp.MustCompile(`^[a-zA-Z0-9_/.#-]{1,512}$`)

func (p *ControlPlane) putLogging(r *controlRequest, here *regionState) (any, *refusal) {
	var in struct {
		LoggingConfig *loggingBody `json:"loggingConfig"`
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	c := in.LoggingConfig
	if c == nil || c.S3Config == nil && c.CloudWatchConfig == nil {
		return nil, refusef("ValidationException", "a destination is required")
	}
	if c.S3Config != nil {
		if no := p.mayLog(r, c.S3Config); no != nil {
			return nil, no
		}
	}
	if w := c.CloudWatchConfig; w != nil {
		if w.LogGroupName == nil || !logGroupText.MatchString(*w.LogGroupName) || w.RoleArn == nil {
			return nil, refusef("ValidationException", "logGroupName and roleArn are required")
		}
		if here.groups[*w.LogGroupName] == nil {
			return nil, refusef("ValidationException", "The log group %s does not exist.", *w.LogGroupName)
		}
		role := p.account(r.Account).roles[nameOf(*w.RoleArn)]
		if role == nil || !strings.Contains(role.Trust, "bedrock.amazonaws.com") {
			return nil, refusef("ValidationException", "Failed to validate permissions for log group %s with role %s.", *w.LogGroupName, *w.RoleArn)
		}
		if w.LargeDataDeliveryS3Config != nil {
			if no := p.mayLog(r, w.LargeDataDeliveryS3Config); no != nil {
				return nil, no
			}
		}
	}
	here.logging = encode(c)
	return obj{}, nil
}

// mayLog does what AWS does before it takes a destination: it puts a test object.
func (p *ControlPlane) mayLog(r *controlRequest, t *s3Target) *refusal {
	if t.BucketName == nil || len(*t.BucketName) < 3 || len(*t.BucketName) > 63 || t.KeyPrefix != nil && len(*t.KeyPrefix) > 1024 {
		return refusef("ValidationException", "bucketName has 3 to 63 characters, keyPrefix at most 1024")
	}
	failed := refusef("ValidationException", "Failed to validate permissions for S3 bucket %s.", *t.BucketName)
	b := p.buckets[*t.BucketName]
	if b == nil || b.owner != r.Account || b.region != r.Region || b.policy == nil {
		return failed
	}
	object := "arn:aws:s3:::" + *t.BucketName + "/"
	if t.KeyPrefix != nil && *t.KeyPrefix != "" {
		object += *t.KeyPrefix + "/"
	}
	object += "AWSLogs/" + r.Account + "/BedrockModelInvocationLogs/amazon-bedrock-logs-permission-check"
	if !b.policy.mayPut("bedrock.amazonaws.com", object, r.Account, "arn:aws:bedrock:"+r.Region+":"+r.Account+":*") {
		return failed
	}
	return nil
}

type listTag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

var (
	profileName  = regexp.MustCompile(`^([0-9a-zA-Z][ _-]?)+$`)
	profileAbout = regexp.MustCompile(`^([0-9a-zA-Z:.][ _-]?)+$`)
	bedrockTag   = regexp.MustCompile(`^[a-zA-Z0-9\s._:/=+@-]*$`)
	copySource   = regexp.MustCompile(`^arn:aws:bedrock:([a-z0-9-]*):([0-9]*):(foundation-model|inference-profile|application-inference-profile)/(.+)$`)
)

func bedrockTags(list []listTag) (map[string]string, *refusal) {
	if len(list) > 200 {
		return nil, refusef("TooManyTagsException", "at most 200 tags")
	}
	tags := make(map[string]string, len(list))
	for _, t := range list {
		if n := utf8.RuneCountInString(t.Key); n < 1 || n > 128 || utf8.RuneCountInString(t.Value) > 256 || !bedrockTag.MatchString(t.Key) || !bedrockTag.MatchString(t.Value) {
			return nil, refusef("ValidationException", "tag %q is not valid", t.Key)
		}
		if _, twice := tags[t.Key]; twice || strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return nil, refusef("ValidationException", "tag key %q is given twice or reserved", t.Key)
		}
		tags[t.Key] = t.Value
	}
	return tags, nil
}

func (p *ControlPlane) createProfile(r *controlRequest, here *regionState) (any, *refusal) {
	var in struct {
		Name        string  `json:"inferenceProfileName"`
		Description *string `json:"description"`
		ModelSource struct {
			CopyFrom string `json:"copyFrom"`
		} `json:"modelSource"`
		Tags  []listTag `json:"tags"`
		Token string    `json:"clientRequestToken"`
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	if len(in.Name) < 1 || len(in.Name) > 64 || !profileName.MatchString(in.Name) {
		return nil, refusef("ValidationException", "1 validation error detected: Value '%s' at 'inferenceProfileName' failed to satisfy constraint: Member must satisfy regular expression pattern: ([0-9a-zA-Z][ _-]?)+", in.Name)
	}
	if d := in.Description; d != nil && (len(*d) < 1 || len(*d) > 200 || !profileAbout.MatchString(*d)) {
		return nil, refusef("ValidationException", "1 validation error detected: Value at 'description' failed to satisfy constraint")
	}
	source := copySource.FindStringSubmatch(in.ModelSource.CopyFrom)
	switch {
	case source == nil:
		return nil, refusef("ValidationException", "modelSource.copyFrom must be the ARN of a model or of a system-defined inference profile")
	case source[3] == "application-inference-profile":
		return nil, refusef("ValidationException", "An application inference profile cannot be copied from another.")
	case source[1] != r.Region, source[3] == "foundation-model" && source[2] != "", source[3] == "inference-profile" && source[2] != r.Account:
		return nil, &refusal{404, "ResourceNotFoundException", "The provided model source does not exist."}
	}
	tags, no := bedrockTags(in.Tags)
	if no != nil {
		return nil, no
	}
	for _, f := range here.profiles {
		if in.Token != "" && f.token == in.Token {
			if f.name != in.Name || f.source != in.ModelSource.CopyFrom {
				return nil, refusef("ConflictException", "the token was used with other parameters")
			}
			return obj{"inferenceProfileArn": f.arn, "status": "ACTIVE"}, nil
		}
	}
	if len(here.profiles) >= 1000 {
		return nil, refusef("ServiceQuotaExceededException", "1000 inference profiles")
	}
	id := strings.ToLower(token("", 6))
	f := &profileState{id: id, arn: "arn:aws:bedrock:" + r.Region + ":" + r.Account + ":application-inference-profile/" + id,
		name: in.Name, source: in.ModelSource.CopyFrom, created: p.world.Now(), tags: tags, token: in.Token}
	if in.Description != nil {
		f.description = *in.Description
	}
	model := source[4]
	if source[3] == "inference-profile" {
		_, model, _ = strings.Cut(model, ".")
		f.models = []string{"arn:aws:bedrock:us-east-1::foundation-model/" + model, "arn:aws:bedrock:us-west-2::foundation-model/" + model}
	} else {
		f.models = []string{in.ModelSource.CopyFrom}
	}
	here.profiles = append(here.profiles, f)
	return obj{"inferenceProfileArn": f.arn, "status": "ACTIVE"}, nil
}

func (f *profileState) summary() obj {
	models := []any{}
	for _, m := range f.models {
		models = append(models, obj{"modelArn": m})
	}
	at := f.created.UTC().Format(time.RFC3339)
	out := obj{"inferenceProfileName": f.name, "createdAt": at, "updatedAt": at, "inferenceProfileArn": f.arn, "inferenceProfileId": f.id,
		"models": models, "status": "ACTIVE", "type": "APPLICATION"}
	if f.description != "" {
		out["description"] = f.description
	}
	return out
}

func (r *regionState) profile(idOrARN string) *profileState {
	for _, f := range r.profiles {
		if f.id == idOrARN || f.arn == idOrARN {
			return f
		}
	}
	return nil
}

func (p *ControlPlane) listProfiles(r *controlRequest, here *regionState) (any, *refusal) {
	q := r.http.URL.Query()
	for k := range q {
		if !contains([]string{"maxResults", "nextToken", "type"}, k) {
			return nil, refusef("ValidationException", "unknown parameter %s", k)
		}
	}
	asked := atoi(q.Get("maxResults"))
	all := here.profiles
	if kind := q.Get("type"); kind == "SYSTEM_DEFINED" {
		all = nil
	} else if kind != "" && kind != "APPLICATION" {
		return nil, refusef("ValidationException", "type %s", kind)
	}
	part, next, no := page(all, q.Get("nextToken"), asked, 1000, p.config.PageSize)
	if no != nil {
		return nil, no
	}
	list := []any{}
	for _, f := range part {
		list = append(list, f.summary())
	}
	out := obj{"inferenceProfileSummaries": list}
	if next != "" {
		out["nextToken"] = next
	}
	return out, nil
}

func (p *ControlPlane) bedrockTags(r *controlRequest, here *regionState) (any, *refusal) {
	var in struct {
		ARN     string    `json:"resourceARN"`
		Tags    []listTag `json:"tags"`
		TagKeys []string  `json:"tagKeys"`
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	f := here.profile(in.ARN)
	if f == nil || f.arn != in.ARN {
		return nil, &refusal{404, "ResourceNotFoundException", "The resource does not exist."}
	}
	switch r.Operation {
	case "TagResource":
		tags, no := bedrockTags(in.Tags)
		if no != nil {
			return nil, no
		}
		for k, v := range tags {
			f.tags[k] = v
		}
	case "UntagResource":
		for _, k := range in.TagKeys {
			delete(f.tags, k)
		}
	case "ListTagsForResource":
		list := []listTag{}
		for _, k := range sortedKeys(f.tags) {
			list = append(list, listTag{k, f.tags[k]})
		}
		return obj{"tags": list}, nil
	default:
		return nil, &refusal{http.StatusNotFound, "UnknownOperationException", r.Operation}
	}
	return obj{}, nil
}

// PutLogging switches invocation logging on without asking whether it can be delivered,
// as it is where a bucket's policy was taken away afterwards.
func (p *ControlPlane) PutLogging(account, region, config string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.region(account, region).logging = json.RawMessage(config)
}

func nameOf(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
