package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A trailEvent is what the radar reads of a CloudTrail event (CloudTrail User Guide,
// "CloudTrail record contents"; Bedrock User Guide, "Monitor API calls using CloudTrail").
type trailEvent struct {
	EventTime    time.Time `json:"eventTime"`
	EventSource  string    `json:"eventSource"`
	EventName    string    `json:"eventName"`
	Region       string    `json:"awsRegion"`
	ErrorCode    string    `json:"errorCode"`
	VPCEndpoint  string    `json:"vpcEndpointId"`
	UserIdentity struct {
		Type           string `json:"type"`
		ARN            string `json:"arn"`
		InvokedBy      string `json:"invokedBy"`
		SessionContext struct {
			SessionIssuer struct {
				Type string `json:"type"`
				ARN  string `json:"arn"`
			} `json:"sessionIssuer"`
		} `json:"sessionContext"`
	} `json:"userIdentity"`
	Resources []struct {
		ARN string `json:"ARN"`
	} `json:"resources"`
	Parameters json.RawMessage `json:"requestParameters"`
	Additional json.RawMessage `json:"additionalEventData"`
}

// ReadCloudTrail reads events as CloudTrail delivers them: files of Records, the answer of
// lookup-events, or events one after another. It gives those of Bedrock, and counts the
// others.
func ReadCloudTrail(name string, r io.Reader) (sightings []Sighting, others int, err error) {
	d := json.NewDecoder(r)
	for {
		var one struct {
			trailEvent
			Records []trailEvent
			Events  []struct{ CloudTrailEvent string }
		}
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return sightings, others, nil
		} else if err != nil {
			return nil, 0, fmt.Errorf("read CloudTrail events %s, at byte %d: %w", name, d.InputOffset(), err)
		}
		events := one.Records
		for i, e := range one.Events {
			var event trailEvent
			if err := json.Unmarshal([]byte(e.CloudTrailEvent), &event); err != nil {
				return nil, 0, fmt.Errorf("read CloudTrail events %s, event %d: %w", name, i+1, err)
			}
			events = append(events, event)
		}
		if one.EventName != "" {
			events = append(events, one.trailEvent)
		}
		for i := range events {
			if s, ok := events[i].sighting(); ok {
				sightings = append(sightings, s)
			} else {
				others++
			}
		}
	}
}

// authorizedAs are calls whose IAM action has another name (Bedrock User Guide,
// "Prerequisites for running model inference").
var authorizedAs = map[string]string{
	"Converse": "InvokeModel", "ConverseStream": "InvokeModelWithResponseStream",
	"ChatCompletions": "InvokeModel", "Responses": "InvokeModel", "Messages": "InvokeModel",
	"RetrieveAndGenerateStream": "RetrieveAndGenerate", "ListAsyncInvoke": "ListAsyncInvokes",
}

func (e *trailEvent) sighting() (Sighting, bool) {
	service, isAWS := strings.CutSuffix(e.EventSource, ".amazonaws.com")
	if !isAWS || service != "bedrock" && service != "bedrock-mantle" && service != "bedrock-runtime" && service != "bedrock-agent" && service != "bedrock-agent-runtime" {
		return Sighting{}, false
	}
	prefix := "bedrock:"
	if service == "bedrock-mantle" {
		prefix = "bedrock-mantle:"
	}
	s := Sighting{Source: "cloudtrail", Principal: e.UserIdentity.ARN, Action: prefix + cmp.Or(authorizedAs[e.EventName], e.EventName), Region: e.Region,
		Calls: 1, First: e.EventTime.UTC(), Last: e.EventTime.UTC(), Refused: strings.HasPrefix(e.ErrorCode, "AccessDenied") || e.ErrorCode == "UnauthorizedOperation",
		Context: make(map[string][]string)}
	if issuer := e.UserIdentity.SessionContext.SessionIssuer; issuer.Type == "Role" {
		s.RoleARN = issuer.ARN
	}
	if s.Principal == "" {
		s.Principal = cmp.Or(e.UserIdentity.InvokedBy, e.UserIdentity.Type)
	}
	if e.UserIdentity.InvokedBy != "" && e.UserIdentity.Type != "AWSService" {
		s.Context["aws:ViaAWSService"] = []string{"true"}
	}
	if e.VPCEndpoint != "" {
		s.Context["aws:SourceVpce"] = []string{e.VPCEndpoint}
	}
	if len(e.Resources) == 1 {
		s.Resource = e.Resources[0].ARN
	}
	for _, raw := range []json.RawMessage{e.Parameters, e.Additional} {
		var with struct {
			Bearer any `json:"callWithBearerToken"`
		}
		if json.Unmarshal(raw, &with) == nil && (with.Bearer == true || with.Bearer == "true") {
			s.Bearer = true
		}
	}
	return s, true
}
