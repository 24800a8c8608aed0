package gateway

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A Role says under which role calls are made that meet a condition.
type Role struct {
	When       policy.Condition
	ARN        string
	Transitive []string
	ExternalID string
	// SessionName names the role's sessions, if not as the policy does.
	SessionName policy.Template
	// SourceIdentity is set on the role's sessions, and sticks to whatever they assume.
	SourceIdentity policy.Template
	// Broker lets people have sessions of the role, to call AWS themselves.
	Broker bool
}

// A DrainMode says what happens to an answer whose caller has left.
type DrainMode string

// The drain modes. AWS bills the whole answer in any case.
const (
	Drain DrainMode = "drain" // read on, within bounds, to learn the usage
	Cut   DrainMode = "cut"   // break off; the usage is then not known
)

// Config is what a gateway works by. It is read only; a new one is put by Reload.
type Config struct {
	Name          string // of this instance, in its records
	DefaultRegion string
	Regions       []string                    // callers may name these; DefaultRegion is one of them
	Upstream      map[waybill.Endpoint]string // URL of an endpoint, "{region}" replaced; empty is AWS itself
	Policy        *policy.Policy
	Roles         []Role
	Targets       []Target
	Profiles      map[string]waybill.ModelID // model behind an ARN that does not name it, as of an application inference profile
	MaxBody       int64                      // bytes; 0 means AWS's 25,000,000
	BodyTimeout   time.Duration              // for a request to arrive whole; 0 means five minutes
	WriteTimeout  time.Duration              // for a caller to take a piece of an answer, before it counts as gone; 0 means five minutes
	Drain         DrainMode                  // empty means Drain
	DrainTime     time.Duration              // from when a caller leaves; 0 means two minutes of an answer that has begun, and Timeouts.FirstByte for it to begin
	DrainBytes    int64                      // 0 means 64 MiB
	// PassWithoutJournal lets calls through that cannot be recorded. The default is to
	// refuse them: what is not recorded cannot be attributed.
	PassWithoutJournal bool
	// InsertUsage asks Chat Completions streams for their usage where the caller did
	// not. The caller sees the stream as it would have been.
	InsertUsage bool
	Limits      Limits
	Timeouts    Timeouts
	OnFailure   []FailureRule
	Prices      Prices // nil: no call has a price
	Estimate    Estimate
	// MantleMetadata puts the request's tags and the call's id into the body of Chat
	// Completions and Responses on bedrock-mantle, as the member metadata: CloudTrail's data
	// events have it.
	MantleMetadata bool
	// ProfileOnMessages lets targets put application inference profiles on the Messages API
	// of bedrock-runtime, where AWS does not document them.
	ProfileOnMessages bool
	// WorkspaceHeaders are the spellings of the header that chooses a workspace on the
	// Messages API; nil means all that AWS has written.
	WorkspaceHeaders []string

	upstreams *sync.Map // *url.URL by place, as they are asked for
}

// A place is where a call goes.
type place struct {
	endpoint waybill.Endpoint
	region   string
}

// upstream is the URL of an endpoint in a Region.
func (c *Config) upstream(endpoint waybill.Endpoint, region string) (*url.URL, error) {
	at := place{endpoint, region}
	if known, ok := c.upstreams.Load(at); ok {
		return known.(*url.URL), nil
	}
	base := c.Upstream[endpoint]
	switch {
	case base != "":
	case endpoint == waybill.Mantle:
		base = "https://bedrock-mantle.{region}.api.aws"
	default:
		base = "https://bedrock-runtime.{region}.amazonaws.com"
	}
	u, err := url.Parse(strings.ReplaceAll(base, "{region}", region))
	if err != nil {
		return nil, fmt.Errorf("upstream of %s: %w", endpoint, err)
	}
	c.upstreams.Store(at, u)
	return u, nil
}

// Timeouts bound how long each step of a call may take. The zero value is the defaults.
type Timeouts struct {
	// FirstByte is for AWS to begin its answer; 0 means fifteen minutes.
	FirstByte map[waybill.Endpoint]time.Duration
	// Idle is for AWS to say something more once it has begun; 0 means five minutes.
	Idle time.Duration
	// Call is for all of a call; 0 means an hour.
	Call time.Duration
}

// around is how a caller can do what the gateway cannot: bidirectional streams are signed
// piece by piece, by whoever holds the session.
func (c *Config) around() string {
	if slices.ContainsFunc(c.Roles, func(r Role) bool { return r.Broker }) {
		return "take a role session of your own from POST /waybill/credentials here, as `waybill credentials` does, and call bedrock-runtime with it directly"
	}
	return "call bedrock-runtime directly with a session from `waybill credentials`; through this gateway there is none: no role of its operator's has broker: true"
}
