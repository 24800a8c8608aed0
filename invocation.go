package waybill

import "time"

// A Source says who told of a call.
type Source string

// The sources.
const (
	FromGateway Source = "gateway" // our meter, by way of the journal
	FromLog     Source = "log"     // AWS's model invocation log
)

// An Endpoint is one of Bedrock's two inference endpoints.
type Endpoint string

// The endpoints.
const (
	Runtime Endpoint = "bedrock-runtime"
	Mantle  Endpoint = "bedrock-mantle"
)

// An Outcome is how a call ended.
type Outcome string

// The outcomes.
const (
	Completed   Outcome = "completed"    // Bedrock's answer arrived whole
	Refused     Outcome = "refused"      // the gateway refused it; it never left
	Failed      Outcome = "failed"       // Bedrock, or the way to it, answered with an error
	StreamError Outcome = "stream_error" // an exception within a stream that had begun with 200
	Abandoned   Outcome = "abandoned"    // the caller left, and the rest was not read to its end
	Interrupted Outcome = "interrupted"  // opened and never closed: the gateway died in mid-call
)

// PolicyOutcome is what the tag policy said of a call.
type PolicyOutcome string

// What a policy says.
const (
	PolicyAllowed PolicyOutcome = "allowed"
	PolicyWarned  PolicyOutcome = "warned"  // violations, in a mode that lets them pass
	PolicyRefused PolicyOutcome = "refused" // violations, enforced
	PolicyNone    PolicyOutcome = ""        // the call did not pass a policy: it is known from the log alone
)

// An Invocation is one call to a model, as one source tells of it. The ledger keeps
// one row for each source, and merges them by (Account, Region, RequestID).
// Prompts and answers are never part of it.
type Invocation struct {
	// CallID is the gateway's own name of the call, a UUIDv7; empty in log records.
	CallID string `json:"call_id,omitempty"`
	// RequestID is AWS's: x-amzn-RequestId. Empty if the call never got one.
	RequestID string `json:"request_id,omitempty"`
	// Source says who tells.
	Source Source `json:"source"`
	// StartedAt is the time of the call by AWS's clock where AWS told it (the answer's
	// Date, the log's timestamp), else by ours. UTC. The bill goes by it.
	StartedAt time.Time `json:"started_at"`

	Account         string   `json:"account,omitempty"` // the account that is billed
	Region          string   `json:"region,omitempty"`  // the Region that was called
	InferenceRegion string   `json:"inference_region,omitempty"`
	Endpoint        Endpoint `json:"endpoint,omitempty"`
	Operation       string   `json:"operation,omitempty"`   // Converse, InvokeModel, ChatCompletions, ...
	ModelID         ModelID  `json:"model_id,omitempty"`    // as sent to AWS
	ModelAsked      ModelID  `json:"model_asked,omitempty"` // as the caller named it, where the gateway sent another
	Model           string   `json:"model,omitempty"`       // canonical: the foundation model behind ModelID, if known
	Profile         string   `json:"profile,omitempty"`     // application inference profile ARN
	Project         string   `json:"project,omitempty"`     // project or workspace id
	Scope           Scope    `json:"scope,omitempty"`

	Principal     string `json:"principal,omitempty"` // Principal.Subject
	Issuer        string `json:"issuer,omitempty"`    // Principal.Issuer
	KeyID         string `json:"key_id,omitempty"`
	PrincipalARN  string `json:"principal_arn,omitempty"` // as AWS knows the caller
	SessionName   string `json:"session_name,omitempty"`
	Tags          Tags   `json:"tags"`    // the call's resolved tags; of a log record, its request metadata
	Carried       string `json:"carried"` // carriers the tags were put on, comma separated: request,session,resource
	PolicyVersion string `json:"policy_version,omitempty"`

	PolicyOutcome PolicyOutcome `json:"policy_outcome,omitempty"`
	// Reasons are the policy's violations and changes, as codes; never values.
	Reasons []string `json:"reasons,omitempty"`

	Usage          Usage  `json:"usage"`
	UsageFrom      string `json:"usage_from,omitempty"` // headers, body, metrics, metadata, chunk, sse, request, guardrail, log; why it is not known
	TierAsked      string `json:"tier_asked,omitempty"`
	Tier           string `json:"tier,omitempty"` // served; standard if nobody says otherwise
	LatencyMode    string `json:"latency_mode,omitempty"`
	Streamed       bool   `json:"streamed,omitempty"`
	StopReason     string `json:"stop_reason,omitempty"`
	GuardrailUnits int64  `json:"guardrail_units,omitempty"` // text units, where a trace told them

	Outcome   Outcome `json:"outcome"`
	Status    int     `json:"status,omitempty"`     // HTTP status the caller saw
	ErrorCode string  `json:"error_code,omitempty"` // AWS's, or Waybill's for a refusal

	Latency         time.Duration `json:"latency_ns,omitempty"`            // until the last byte
	TimeToFirstByte time.Duration `json:"time_to_first_byte_ns,omitempty"` // of the answer's body
	RequestBytes    int64         `json:"request_bytes,omitempty"`
	ResponseBytes   int64         `json:"response_bytes,omitempty"`
	ClientLeft      bool          `json:"client_left,omitempty"`       // the caller hung up before the end
	SDKInvocationID string        `json:"sdk_invocation_id,omitempty"` // amz-sdk-invocation-id: groups the attempts of one logical call
	TraceParent     string        `json:"traceparent,omitempty"`
	Gateway         string        `json:"gateway,omitempty"` // name of the instance that recorded it
}

// Key is the identity of the call in the ledger: AWS's where there is one, the
// gateway's own for calls that never got one.
func (v *Invocation) Key() string {
	if v.RequestID != "" {
		return v.Account + "/" + v.Region + "/" + v.RequestID
	}
	return "call/" + v.CallID
}

// An EntryKind says what a journal entry tells of a call.
type EntryKind string

// The journal's entries.
const (
	Opened EntryKind = "opened" // the call is about to leave
	Closed EntryKind = "closed" // the call is over, or was refused
)

// An Entry is one line of the book of original entry. A call has an Opened entry
// and then a Closed one; a refused call has a Closed one alone. An Opened entry that
// has no Closed one after the gateway has gone is an Interrupted call.
type Entry struct {
	Kind       EntryKind  `json:"kind"`
	Invocation Invocation `json:"invocation"`
}
