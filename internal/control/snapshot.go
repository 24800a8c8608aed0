package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/waybill-dev/waybill"
)

// Said is the answer to one question: the value, or why there is none.
type Said[T any] struct {
	Value   T      `json:"value"`
	Refused string `json:"refused,omitempty"`
}

func (s *Said[T]) refused() string { return s.Refused }

// A Snapshot is what AWS and the ledger said at one moment. It holds no secret and no
// tag value that looks like one, and may be kept in a file.
type Snapshot struct {
	Version  int             `json:"version"`
	TakenAt  time.Time       `json:"takenAt"`
	Payer    PayerFacts      `json:"payer"`
	Accounts []AccountFacts  `json:"accounts"`
	Ledger   Said[*Evidence] `json:"ledger"`
}

// PayerFacts are what the account that pays says.
type PayerFacts struct {
	Account   string           `json:"account"`
	CostTags  Said[[]CostTag]  `json:"costTags"`
	Backfills Said[[]Backfill] `json:"backfills"`
	Exports   Said[[]Export]   `json:"exports"`
	// Columns are those that a table with what Waybill needs has.
	Columns Said[[]string] `json:"columns"`
	Bucket  Said[Bucket]   `json:"bucket"` // of the declared export
}

// A CostTag is a cost allocation tag. Key is as AWS lists it, which for tags of
// principals may be "iamPrincipal/team" or the plain "team".
type CostTag struct {
	Key     string    `json:"key"`
	Type    string    `json:"type"`
	Active  bool      `json:"active"`
	Updated time.Time `json:"updated,omitzero"`
	Used    time.Time `json:"used,omitzero"`
}

// A Backfill is one request to fill cost allocation tags in.
type Backfill struct {
	From, At time.Time
	Status   string
}

// An Export is a data export.
type Export struct {
	ARN        string            `json:"arn"`
	Name       string            `json:"name"`
	Status     string            `json:"status"`
	Reason     string            `json:"reason,omitempty"`
	Query      string            `json:"query"`
	Properties map[string]string `json:"properties"`
	Bucket     string            `json:"bucket"`
	Prefix     string            `json:"prefix"`
	Region     string            `json:"region"`
	Format     string            `json:"format"`
	// Whole is the export as the API gives it: what an update has to send back.
	Whole json.RawMessage `json:"whole,omitempty"`
}

// AccountFacts are what one account says.
type AccountFacts struct {
	ID      string                `json:"id"`
	Caller  Said[string]          `json:"caller"` // who asked, as AWS says
	Roles   map[string]Said[Role] `json:"roles"`  // by ARN: those that are declared
	APIKeys Said[[]APIKey]        `json:"apiKeys"`
	Regions []RegionFacts         `json:"regions"`
}

// A Role is an IAM role. It need not exist.
type Role struct {
	Exists     bool              `json:"exists"`
	Trust      string            `json:"trust,omitempty"`
	MaxSession int               `json:"maxSession,omitempty"` // seconds
	Tags       map[string]string `json:"tags,omitempty"`
}

// An APIKey is a long-term Bedrock API key: a credential of an IAM user.
type APIKey struct {
	ID, User string
	Active   bool
	Created  time.Time
	Expires  time.Time `json:",omitzero"`
}

// RegionFacts are what one account says in one Region.
type RegionFacts struct {
	Region   string             `json:"region"`
	Logging  Said[Logging]      `json:"logging"`
	Bucket   Said[Bucket]       `json:"bucket"`   // that logs go to, or are declared to go to
	LogGroup Said[LogGroup]     `json:"logGroup"` // that logs go to
	Profiles Said[[]Profile]    `json:"profiles"`
	Projects Said[[]Project]    `json:"projects"`
	STSQuota Said[int]          `json:"stsQuota"` // calls a second; 0: AWS lists none
	Metrics  Said[[]DayMetric]  `json:"metrics"`
	KeyUses  Said[[]KeyUse]     `json:"keyUses"`
	Outside  Said[[]OutsideUse] `json:"outside"`
	// KeyUsesFrom and OutsideFrom are from when on CloudTrail was read, where it has more
	// events than are read; zero where it was read whole.
	KeyUsesFrom time.Time `json:"keyUsesFrom,omitzero"`
	OutsideFrom time.Time `json:"outsideFrom,omitzero"`
}

// Logging is the model invocation logging configuration.
type Logging struct {
	On          bool            `json:"on"`
	Bucket      string          `json:"bucket,omitempty"`
	Prefix      string          `json:"prefix,omitempty"`
	LogGroup    string          `json:"logGroup,omitempty"`
	RoleARN     string          `json:"roleArn,omitempty"`
	LargeBucket string          `json:"largeBucket,omitempty"`
	LargePrefix string          `json:"largePrefix,omitempty"`
	Bodies      map[string]bool `json:"bodies,omitempty"` // text, image, embedding, video, audio
}

// A Bucket is an S3 bucket. It need not exist.
type Bucket struct {
	Name      string          `json:"name"`
	Exists    bool            `json:"exists"`
	Policy    string          `json:"policy,omitempty"`
	ACLs      bool            `json:"acls"` // ACLs are in force, which log delivery does not bear
	Lifecycle []LifecycleRule `json:"lifecycle,omitempty"`
	// WholeLifecycle are the rules as the API gives them: what a change has to send back.
	WholeLifecycle json.RawMessage `json:"wholeLifecycle,omitempty"`
	PublicBlocked  bool            `json:"publicBlocked"`
}

// A LifecycleRule says when objects under a prefix go.
type LifecycleRule struct {
	ID, Prefix string
	Days       int // after which they expire; 0: never
	Enabled    bool
}

// A LogGroup is a CloudWatch log group. It need not exist.
type LogGroup struct {
	Name      string `json:"name"`
	Exists    bool   `json:"exists"`
	Retention int    `json:"retention"` // days; 0: for ever
}

// A Profile is an application inference profile.
type Profile struct {
	ARN    string            `json:"arn"`
	Name   string            `json:"name"`
	Models []string          `json:"models"` // ARNs
	Tags   map[string]string `json:"tags"`
}

// A DayMetric is what CloudWatch counted on a UTC day for one model, and for bedrock-mantle
// one project.
type DayMetric struct {
	Day      waybill.Day      `json:"day"`
	Endpoint waybill.Endpoint `json:"endpoint"`
	Model    string           `json:"model"`
	Project  string           `json:"project,omitempty"`
	Calls    int64            `json:"calls"`
	Input    int64            `json:"input"`
	Output   int64            `json:"output"`
}

// A KeyUse is the use of a Bedrock API key as CloudTrail shows it.
type KeyUse struct {
	Principal string    `json:"principal"`
	Kind      string    `json:"kind"` // short-term, long-term, or empty where the event does not say
	Calls     int       `json:"calls"`
	Last      time.Time `json:"last"`
}

// An OutsideUse is a call to a model that is sold outside Bedrock.
type OutsideUse struct {
	Source    string    `json:"source"` // of the event
	Principal string    `json:"principal"`
	Calls     int       `json:"calls"`
	Last      time.Time `json:"last"`
}

// A Ledger tells what the ledger knows of a stretch of time.
type Ledger interface {
	// Evidence sums up the calls and charges from since to until.
	Evidence(ctx context.Context, since, until time.Time) (*Evidence, error)
}

// Evidence is what the ledger knows: sums, and no single call.
type Evidence struct {
	Since    time.Time     `json:"since"`
	Until    time.Time     `json:"until"`
	Currency string        `json:"currency"`
	Total    waybill.Money `json:"total"` // of the calls, metered
	Days     []DayUse      `json:"days"`
	Keys     []KeyUsage    `json:"keys"`
	Values   []ValueUsage  `json:"values"`
	Gaps     []Gap         `json:"gaps"`
	// PeakSessions is the most role sessions, told apart by account, role, name and tags,
	// that were in use in one hour in one Region.
	PeakSessions int64 `json:"peakSessions"`
}

// DayUse is one UTC day's calls of an account, Region, endpoint and model.
type DayUse struct {
	Day      waybill.Day      `json:"day"`
	Account  string           `json:"account"`
	Region   string           `json:"region"`
	Endpoint waybill.Endpoint `json:"endpoint"`
	Model    string           `json:"model"`
	Calls    int64            `json:"calls"`
	Unknown  int64            `json:"unknown"` // calls among them whose usage nobody knows
	Input    int64            `json:"input"`   // tokens, without those read from a cache
	Output   int64            `json:"output"`
	Cost     waybill.Money    `json:"cost"`
}

// KeyUsage says how a tag key is used on one carrier.
type KeyUsage struct {
	Key      string        `json:"key"`
	Carrier  string        `json:"carrier"` // request, session or resource
	Calls    int64         `json:"calls"`
	Cost     waybill.Money `json:"cost"`
	Distinct int           `json:"distinct"`
}

// ValueUsage is one value of a tag key. A value that looks like personal data or a secret
// is told by its kind: Sensitive then names it, and Value is empty.
type ValueUsage struct {
	Key       string        `json:"key"`
	Value     string        `json:"value,omitempty"`
	Sensitive string        `json:"sensitive,omitempty"`
	Source    string        `json:"source"` // log, gateway or bill
	Calls     int64         `json:"calls"`
	Cost      waybill.Money `json:"cost"`
}

// A Gap is hours in which the gateway made calls that ought to be in the invocation log,
// and the log has none.
type Gap struct {
	Account string        `json:"account"`
	Region  string        `json:"region"`
	From    time.Time     `json:"from"`
	To      time.Time     `json:"to"`
	Calls   int64         `json:"calls"`
	Cost    waybill.Money `json:"cost"`
}

// ReadSnapshot reads a snapshot that was kept.
func ReadSnapshot(b []byte) (*Snapshot, error) {
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	if s.Version != 1 {
		return nil, &waybill.Error{Kind: waybill.Unsupported, Message: fmt.Sprintf("the snapshot has version %d, and this build reads version 1", s.Version), Hint: "take a new one: waybill audit --save FILE"}
	}
	return &s, nil
}

// Asked says whether anything could be asked at all: whether one account said who we are.
func (s *Snapshot) Asked() bool {
	for i := range s.Accounts {
		if s.Accounts[i].Caller.Refused == "" {
			return true
		}
	}
	return len(s.Accounts) == 0
}
