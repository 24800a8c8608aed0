package fakeaws

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// trailed are the calls that CloudTrail knows, by the name of their event. Inference on
// bedrock-mantle and what is about it are data events, which are off unless a trail asks
// for them; the rest are management events, which are always there.
var trailed = map[string]struct {
	name string
	data bool
}{
	"ChatCompletions": {"CreateInference", true}, "Responses": {"CreateInference", true}, "Messages": {"CreateInference", true},
	"Embeddings": {"CreateInference", true}, "CompactResponse": {"CreateInference", true}, "CountTokens": {"CountTokens", true},
	"GetResponse": {"GetInference", true}, "CancelResponse": {"CancelInference", true}, "DeleteResponse": {"DeleteInference", true},
	"ListModels": {"ListModels", false}, "GetModel": {"GetModel", false},
	"CreateProject": {"CreateProject", false}, "ListProjects": {"ListProjects", false}, "GetProject": {"GetProject", false},
	"UpdateProject": {"UpdateProject", false}, "ArchiveProject": {"ArchiveProject", false},
}

// Trail are the CloudTrail events of some calls, as their JSON. It has the data events of
// bedrock-mantle only if a trail selects them. Of bedrock-runtime it has Bedrock's own
// operations; what it has of the others' shapes there is not documented.
func Trail(calls []Call, dataEvents bool) []json.RawMessage {
	var out []json.RawMessage
	for _, c := range calls {
		t, ok := trailed[c.Operation]
		switch {
		case c.Endpoint != Mantle && contains(loggedOperations[:4], c.Operation):
			out = append(out, encode(runtimeEvent(c)))
		case c.Endpoint == Mantle && ok && (!t.data || dataEvents):
			out = append(out, encode(mantleEvent(c, t.name, t.data)))
		}
	}
	return out
}

// trailEvent is what all events have.
func trailEvent(c Call, source, name string) obj {
	identity := obj{"type": "IAMUser", "arn": c.PrincipalARN, "accountId": c.Account}
	if parts := strings.Split(c.PrincipalARN, "/"); strings.Contains(c.PrincipalARN, ":assumed-role/") && len(parts) == 3 {
		identity["type"] = "AssumedRole"
		identity["principalId"] = (&credential{arn: c.PrincipalARN, isRole: true}).userID()
		identity["sessionContext"] = obj{"sessionIssuer": obj{"type": "Role", "accountId": c.Account, "userName": parts[1], "arn": "arn:aws:iam::" + c.Account + ":role/" + parts[1]}}
	} else {
		identity["userName"] = parts[len(parts)-1]
	}
	event := obj{"eventVersion": "1.11", "userIdentity": identity, "eventTime": c.At.UTC().Format(time.RFC3339), "eventSource": source, "eventName": name,
		"awsRegion": c.Region, "sourceIPAddress": "192.0.2.10", "userAgent": c.Header.Get("User-Agent"), "requestParameters": nil, "responseElements": nil,
		"requestID": c.RequestID, "eventID": eventID(c.RequestID), "readOnly": true, "eventType": "AwsApiCall", "managementEvent": true,
		"recipientAccountId": c.Account, "eventCategory": "Management"}
	if c.ErrorCode != "" {
		event["errorCode"] = c.ErrorCode
	}
	return event
}

// eventID follows from the request's, so that an event has the same one each time.
func eventID(request string) string {
	sum := sha256.Sum256([]byte("event of " + request))
	h := hex.EncodeToString(sum[:])
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:32]
}

func runtimeEvent(c Call) obj {
	e := trailEvent(c, "bedrock.amazonaws.com", c.Operation)
	e["requestParameters"] = obj{"modelId": c.ModelID}
	if c.InferenceRegion != "" {
		e["additionalEventData"] = obj{"inferenceRegion": c.InferenceRegion}
	}
	return e
}

// mantleEvent is an event of bedrock-mantle. It has no token counts and no text; of
// OpenAI's shapes it has the body's metadata as it stood, of Messages it has not.
func mantleEvent(c Call, name string, data bool) obj {
	e := trailEvent(c, "bedrock-mantle.amazonaws.com", name)
	if c.ProjectARN != "" {
		e["resources"] = []any{obj{"accountId": c.Account, "type": "AWS::BedrockMantle::Project", "ARN": c.ProjectARN}}
	}
	if !data {
		e["readOnly"] = strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List")
		return e
	}
	e["eventCategory"], e["managementEvent"], e["readOnly"] = "Data", false, name == "GetInference" || name == "CountTokens"
	if name != "CreateInference" {
		return e
	}
	var body map[string]json.RawMessage
	_ = json.Unmarshal(c.RequestBody, &body) // what is no object has no members
	members := []string{"model", "stream", "service_tier", "metadata"}
	if c.Operation == "Messages" {
		members = []string{"model", "stream", "max_tokens"}
	}
	parameters := obj{}
	for _, m := range members {
		if body[m] != nil {
			parameters[m] = body[m]
		}
	}
	if kind := map[string]string{byLongTermKey: "ABSK", byShortTermKey: "bedrock-api-key"}[c.Auth]; kind != "" && c.Operation != "Messages" {
		parameters["callWithBearerToken"], parameters["bearerTokenType"] = true, kind // of a short-term key the word is not documented
	}
	e["requestParameters"] = parameters
	return e
}

// WriteTrail writes CloudTrail events as a trail lays them out on S3: gzipped files of
// records by account, Region and day.
func WriteTrail(put Putter, prefix string, calls []Call, dataEvents bool) error {
	groups := make(map[string][]json.RawMessage)
	var order []string
	for _, c := range calls {
		events := Trail([]Call{c}, dataEvents)
		if len(events) == 0 {
			continue
		}
		key := fmt.Sprintf("AWSLogs/%s/CloudTrail/%s/%s/%s_CloudTrail_%s_%s", c.Account, c.Region, c.At.UTC().Format("2006/01/02"), c.Account, c.Region, c.At.UTC().Format("20060102T1504Z"))
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], events...)
	}
	for i, key := range order {
		var buf bytes.Buffer
		zip := gzip.NewWriter(&buf)
		if _, err := zip.Write(encode(obj{"Records": groups[key]})); err != nil {
			return err
		}
		if err := zip.Close(); err != nil {
			return err
		}
		if err := put(strings.TrimPrefix(fmt.Sprintf("%s/%s_%016d.json.gz", prefix, key, i), "/"), buf.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// MantleMetrics are what CloudWatch has of calls to bedrock-mantle, by day: inferences and
// refusals at four levels, tokens at three, and tokens by project and model in metrics of
// their own. Errors of the server, throttles and latency have none.
func MantleMetrics(calls []Call, put func(account, region string, m Metric)) {
	type key struct {
		account, region, name, project, model string
		day                                   time.Time
	}
	sums := make(map[key]float64)
	var order []key
	for _, c := range calls {
		if t, ok := trailed[c.Operation]; c.Endpoint != Mantle || !ok || t.name != "CreateInference" {
			continue
		}
		add := func(name, project, model string, n int64) {
			k := key{c.Account, c.Region, name, project, model, c.At.UTC().Truncate(24 * time.Hour)}
			if _, there := sums[k]; !there {
				order = append(order, k)
			}
			sums[k] += float64(n)
		}
		input := c.InputTokens + c.CacheRead + c.CacheWrite5m + c.CacheWrite1h + c.CacheWrite30m
		for i, level := range [][2]string{{}, {c.Project, ""}, {"", c.BaseModel}, {c.Project, c.BaseModel}} {
			switch {
			case c.Status >= 500 || c.Status == 429:
			case c.Status >= 400:
				add("InferenceClientErrors", level[0], level[1], 1)
			case i == 3:
				add("Inferences", level[0], level[1], 1)
				add("InputTokens", level[0], level[1], input)
				add("OutputTokens", level[0], level[1], c.OutputTokens)
			default:
				add("Inferences", level[0], level[1], 1)
				add("TotalInputTokens", level[0], level[1], input)
				add("TotalOutputTokens", level[0], level[1], c.OutputTokens)
			}
		}
	}
	for _, k := range order {
		dimensions := make(map[string]string)
		if k.project != "" {
			dimensions["Project"] = k.project
		}
		if k.model != "" {
			dimensions["Model"] = k.model
		}
		put(k.account, k.region, Metric{Namespace: "AWS/BedrockMantle", Name: k.name, Dimensions: dimensions, Day: k.day, Sum: sums[k]})
	}
}
