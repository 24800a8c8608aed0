package fakeaws

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// An asyncInvocation is what StartAsyncInvoke has begun.
type asyncInvocation struct {
	arn, model, token string
	body              string // that began it
	output            json.RawMessage
	submitted, ended  time.Time
	gets              int // how many more it is not done for
	failure, status   string
	account, region   string
}

// asyncRoute finds the operation on asynchronous invocations that a path leads to.
func asyncRoute(method, path string) (route, bool) {
	rest, ok := strings.CutPrefix(path, "/async-invoke")
	switch {
	case !ok:
	case rest == "" && method == http.MethodPost:
		return route{operation: "StartAsyncInvoke", admit: (*exchange).admitStart}, true
	case rest == "" && method == http.MethodGet:
		return route{operation: "ListAsyncInvokes", admit: (*exchange).admitAsyncs}, true
	case strings.HasPrefix(rest, "/") && method == http.MethodGet:
		return route{operation: "GetAsyncInvoke", id: rest[1:], admit: (*exchange).admitAsync}, true
	}
	return route{}, false
}

var (
	asyncModel = regexp.MustCompile(`^[a-zA-Z_.\-/0-9:]{1,256}$`)
	asyncURI   = regexp.MustCompile(`^s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?$`)
	asyncToken = regexp.MustCompile(`^[!-~]{1,256}$`)
	asyncTag   = regexp.MustCompile(`^[a-zA-Z0-9\s._:/=+@-]*$`)
)

// admitStart takes a call of StartAsyncInvoke. It has no request metadata: the tags of
// what it makes are the carrier.
func (x *exchange) admitStart() (answer, *refusal) {
	_, no := x.object("clientRequestToken modelId modelInput outputDataConfig tags")
	if no != nil {
		return nil, no
	}
	var b struct {
		Token      *string `json:"clientRequestToken"`
		ModelID    string
		ModelInput json.RawMessage
		Output     json.RawMessage `json:"outputDataConfig"`
		Tags       []struct{ Key, Value string }
	}
	var output struct {
		S3 struct{ S3Uri string } `json:"s3OutputDataConfig"`
	}
	if err := json.Unmarshal(x.body, &b); err != nil {
		return nil, validation("Malformed input request: %v", err)
	}
	_ = json.Unmarshal(b.Output, &output) // what does not fit counts as absent
	x.call.ModelID = b.ModelID
	switch {
	case !asyncModel.MatchString(b.ModelID):
		return nil, validation("1 validation error detected: Value '%s' at 'modelId' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z_\\.\\-/0-9:]+", b.ModelID)
	case !asyncURI.MatchString(output.S3.S3Uri):
		return nil, validation("1 validation error detected: Value '%s' at 'outputDataConfig.s3OutputDataConfig.s3Uri' failed to satisfy constraint", output.S3.S3Uri)
	case b.Token != nil && !asyncToken.MatchString(*b.Token):
		return nil, validation("1 validation error detected: Value '%s' at 'clientRequestToken' failed to satisfy constraint", *b.Token)
	case len(b.Tags) > 200:
		return nil, validation("1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 200")
	}
	tags := make(map[string]string)
	for _, t := range b.Tags {
		if _, twice := tags[t.Key]; twice || len(t.Key) < 1 || len(t.Key) > 128 || len(t.Value) > 256 || !asyncTag.MatchString(t.Key) || !asyncTag.MatchString(t.Value) {
			return nil, validation("1 validation error detected: Value '%s' at 'tags' failed to satisfy constraint", t.Key)
		}
		tags[t.Key] = t.Value
	}
	if no := x.served("bedrock:InvokeModel", b.ModelID); no != nil {
		return nil, no
	}
	a := &admitted{}
	if no := x.w.model(b.ModelID, x.call, a); no != nil {
		return nil, no
	}
	if a.family.makes != "video" {
		return nil, validation("The model %s is not supported for this operation.", b.ModelID)
	}
	if no := x.video(b.ModelInput, a.family); no != nil {
		return nil, no
	}
	x.call.ResourceTags = tags
	token := ""
	if b.Token != nil {
		token = *b.Token
	}
	return x.start(token, b.Output)
}

// video reads how long a video is to be.
func (x *exchange) video(input json.RawMessage, f *family) *refusal {
	var b struct {
		TaskType string
		Config   struct {
			Seconds *int64 `json:"durationSeconds"`
		} `json:"videoGenerationConfig"`
		Prompt, Duration, InputType string
	}
	if err := json.Unmarshal(input, &b); err != nil {
		return validation("Malformed input request, please reformat your input and try again.")
	}
	switch f.name {
	case "reel":
		seconds := int64(6)
		if b.Config.Seconds != nil {
			seconds = *b.Config.Seconds
		}
		shots := strings.HasPrefix(b.TaskType, "MULTI_SHOT")
		switch {
		case !contains([]string{"TEXT_VIDEO", "MULTI_SHOT_AUTOMATED", "MULTI_SHOT_MANUAL"}, b.TaskType):
			return validation("Malformed input request: #/taskType: %s is not a valid enum value, please reformat your input and try again.", b.TaskType)
		case !shots && seconds != 6 || seconds%6 != 0 || seconds < 6 || seconds > 120:
			return validation("Malformed input request: #/videoGenerationConfig/durationSeconds: %d is not a valid length, please reformat your input and try again.", seconds)
		}
		x.call.VideoSeconds = seconds
	case "ray":
		if b.Prompt == "" {
			return validation("Malformed input request: #: required key [prompt] not found, please reformat your input and try again.")
		}
		if b.Duration == "" {
			b.Duration = "5s"
		}
		if b.Duration != "5s" && b.Duration != "9s" {
			return validation("Malformed input request: #/duration: %s is not a valid enum value, please reformat your input and try again.", b.Duration)
		}
		x.call.VideoSeconds, _ = number(strings.TrimSuffix(b.Duration, "s"), 1, 9)
	case "marengo":
		if !contains([]string{"text", "image", "video", "audio"}, b.InputType) {
			return validation("Malformed input request: #/inputType: %s is not a valid enum value, please reformat your input and try again.", b.InputType)
		}
	}
	return nil
}

// start begins an invocation, or gives the one that the same token has begun.
func (x *exchange) start(token string, output json.RawMessage) (answer, *refusal) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	same, body := 0, string(x.body)
	for _, i := range x.w.asyncs {
		if i.account != x.call.Account || i.region != x.call.Region {
			continue
		}
		if i.body == body {
			same++
		}
		if token != "" && i.token == token {
			if i.body != body {
				return nil, &refusal{400, "ConflictException", "The clientRequestToken has been used with other parameters."}
			}
			x.call.VideoSeconds = 0
			return func(x *exchange) bool { return x.json(obj{"invocationArn": i.arn}) }, nil
		}
	}
	return func(x *exchange) bool {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", same, body))
		i := &asyncInvocation{token: token, body: body, output: output, submitted: x.call.At, gets: max(x.w.config.AsyncGets, 0), failure: x.fault.FailsLater, status: "InProgress",
			account: x.call.Account, region: x.call.Region,
			arn:   "arn:aws:bedrock:" + x.call.Region + ":" + x.call.Account + ":async-invoke/" + hex.EncodeToString(sum[:])[:12],
			model: "arn:aws:bedrock:" + x.call.Region + "::foundation-model/" + x.call.BaseModel}
		if i.failure != "" {
			x.call.VideoSeconds = 0 // what was not made is not billed
		}
		x.w.mu.Lock()
		x.w.asyncs = append(x.w.asyncs, i)
		x.w.mu.Unlock()
		return x.json(obj{"invocationArn": i.arn})
	}, nil
}

// summary is an invocation as it is answered.
func (i *asyncInvocation) summary() obj {
	out := obj{"invocationArn": i.arn, "modelArn": i.model, "status": i.status, "submitTime": i.submitted.UTC().Format(time.RFC3339Nano), "outputDataConfig": i.output}
	if i.token != "" {
		out["clientRequestToken"] = i.token
	}
	if i.status != "InProgress" {
		out["endTime"], out["lastModifiedTime"] = i.ended.UTC().Format(time.RFC3339Nano), i.ended.UTC().Format(time.RFC3339Nano)
	}
	if i.status == "Failed" {
		out["failureMessage"] = i.failure
	}
	return out
}

// admitAsync takes a call of GetAsyncInvoke; being asked for brings an invocation on.
func (x *exchange) admitAsync() (answer, *refusal) {
	arn, err := url.PathUnescape(x.route.id)
	if err != nil {
		return nil, validation("malformed path")
	}
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	for _, i := range x.w.asyncs {
		if i.arn != arn || i.account != x.call.Account || i.region != x.call.Region {
			continue
		}
		if i.status == "InProgress" && i.gets == 0 {
			i.status, i.ended = "Completed", x.call.At
			if i.failure != "" {
				i.status = "Failed"
			}
		}
		i.gets = max(i.gets-1, 0)
		found := i.summary()
		return func(x *exchange) bool { return x.json(found) }, nil
	}
	return nil, validation("1 validation error detected: the invocation %s does not exist", arn)
}

// admitAsyncs takes a call of ListAsyncInvokes.
func (x *exchange) admitAsyncs() (answer, *refusal) {
	q := x.r.URL.Query()
	bad := func(name string) (answer, *refusal) {
		return nil, validation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint", q.Get(name), name)
	}
	most, from := int64(100), int64(0)
	for name, to := range map[string]*int64{"maxResults": &most, "nextToken": &from} {
		if text := q.Get(name); text != "" {
			n, ok := number(text, 1, 1000)
			if !ok {
				return bad(name)
			}
			*to = n
		}
	}
	var after, before time.Time
	for name, to := range map[string]*time.Time{"submitTimeAfter": &after, "submitTimeBefore": &before} {
		if text := q.Get(name); text != "" {
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return bad(name)
			}
			*to = at
		}
	}
	switch {
	case !contains([]string{"", "InProgress", "Completed", "Failed"}, q.Get("statusEquals")):
		return bad("statusEquals")
	case !contains([]string{"", "SubmissionTime"}, q.Get("sortBy")):
		return bad("sortBy")
	case !contains([]string{"", "Ascending", "Descending"}, q.Get("sortOrder")):
		return bad("sortOrder")
	}
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	var found []*asyncInvocation
	for _, i := range x.w.asyncs {
		if i.account == x.call.Account && i.region == x.call.Region && (q.Get("statusEquals") == "" || i.status == q.Get("statusEquals")) &&
			(after.IsZero() || i.submitted.After(after)) && (before.IsZero() || i.submitted.Before(before)) {
			found = append(found, i)
		}
	}
	sort.SliceStable(found, func(a, b int) bool {
		if q.Get("sortOrder") == "Ascending" {
			return found[a].submitted.Before(found[b].submitted)
		}
		return found[a].submitted.After(found[b].submitted)
	})
	list := []any{}
	from = min(from, int64(len(found)))
	to := min(from+most, int64(len(found)))
	for _, i := range found[from:to] {
		list = append(list, i.summary())
	}
	out := obj{"asyncInvokeSummaries": list}
	if to < int64(len(found)) {
		out["nextToken"] = strconv.FormatInt(to, 10)
	}
	return func(x *exchange) bool { return x.json(out) }, nil
}
