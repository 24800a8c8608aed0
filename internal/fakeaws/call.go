package fakeaws

import (
	"encoding/json"
	"time"
)

// A Call is one inference call as AWS itself knows it: what the invocation log
// is written from, and what the bill is added up from. The data plane makes
// one for every request that carried a valid signature, refused or not.
type Call struct {
	RequestID string    // x-amzn-RequestId of the answer
	At        time.Time // by the world clock: the answer's Date header
	Account   string    // twelve digits, the account that is billed
	Region    string    // the Region that was called (the source Region)

	Operation       string // Converse, ConverseStream, InvokeModel, InvokeModelWithResponseStream
	ModelID         string // exactly as the caller named it: model id, profile id or ARN
	BaseModel       string // the foundation model behind it, such as anthropic.claude-sonnet-4-6
	Scope           string // plain, geo or global: the kind of profile that was named
	ProfileARN      string // the application inference profile, if one was named
	InferenceRegion string // where it ran, for cross-Region calls; empty otherwise

	PrincipalARN string            // arn:aws:sts::...:assumed-role/Role/session, or arn:aws:iam::...:user/name
	SessionTags  map[string]string // session tags over the tags of the principal
	Metadata     map[string]string // request metadata, as it arrived

	InputTokens   int64 // uncached input
	OutputTokens  int64
	CacheRead     int64
	CacheWrite5m  int64
	CacheWrite1h  int64
	Tier          string // default, priority or flex, as served
	LatencyMode   string // standard or optimized
	Streamed      bool
	ClientLeft    bool // the connection broke before the answer was whole; AWS bills it all the same
	Status        int  // HTTP status of the answer
	ErrorCode     string
	RequestBody   json.RawMessage // nil if it was not JSON
	ResponseBody  json.RawMessage // in the log's shape: an array of chunks for InvokeModelWithResponseStream
	LatencyMillis int64
}
