package fakeaws

import (
	"encoding/json"
	"net/http"
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

	Endpoint string      // Runtime or Mantle
	Method   string      // of the request
	Path     string      // with its query, as it arrived
	Header   http.Header // of the request, as it arrived
	Auth     string      // SigV4, or SHORT_TERM or LONG_TERM for a Bedrock API key

	Operation       string // Converse, ConverseStream, InvokeModel, InvokeModelWithResponseStream, ChatCompletions, Responses, Messages, ...
	ModelID         string // exactly as the caller named it: model id, profile id or ARN
	BaseModel       string // the foundation model behind it, such as anthropic.claude-sonnet-4-6
	Scope           string // plain, geo or global: the kind of profile that was named
	ProfileARN      string // the application inference profile, if one was named
	InferenceRegion string // where it ran, for cross-Region calls; empty otherwise

	PrincipalARN string            // arn:aws:sts::...:assumed-role/Role/session, or arn:aws:iam::...:user/name
	SessionTags  map[string]string // session tags over the tags of the principal
	Metadata     map[string]string // request metadata, as it arrived

	Project        string            // id of the project or workspace that the call is booked on; empty for Bedrock's own operations
	ProjectARN     string            // its ARN
	BodyMetadata   map[string]string // the body's metadata member, on the paths of OpenAI's and Anthropic's shape
	ResponseID     string            // of the Response that was made, asked for or ended
	ResponseStatus string            // of that Response as it was answered: queued, in_progress, completed, ...

	InputTokens   int64 // uncached input
	OutputTokens  int64 // reasoning included
	Reasoning     int64 // the part of the output that is not shown
	CacheRead     int64
	CacheWrite5m  int64
	CacheWrite1h  int64
	CacheWrite30m int64             // OpenAI's shapes write for half an hour
	Searches      int64             // queries of the web search that a model on bedrock-mantle made
	Images        int64             // made, or embedded
	ImageSize     string            // width x height, as it was asked for
	ImageQuality  string            // standard or premium
	VideoSeconds  int64             // of a video that StartAsyncInvoke makes
	SearchUnits   int64             // of a rerank: a query with a hundred documents
	Guardrail     map[string]int64  // units by policy, as AWS names them: contentPolicyUnits, ...
	ResourceTags  map[string]string // tags of the project that is charged, or of what StartAsyncInvoke made
	Tier          string            // default, priority or flex, as served
	LatencyMode   string            // standard or optimized
	Streamed      bool
	ClientLeft    bool // the connection broke before the answer was whole; AWS bills it all the same
	Status        int  // HTTP status of the answer
	ErrorCode     string
	RequestBody   json.RawMessage // nil if it was not JSON
	ResponseBody  json.RawMessage // in the log's shape: an array of chunks for InvokeModelWithResponseStream
	LatencyMillis int64
}
