package fakeaws

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Role is an IAM role that can be assumed.
type Role struct {
	ARN         string
	MaxSession  time.Duration     // MaxSessionDuration; 0 means an hour
	Trusted     []string          // ARNs of the principals its trust policy names
	Federated   []Federation      // identity providers whose tokens its trust policy takes
	NoTagging   bool              // the trust policy leaves out sts:TagSession
	NoSourceID  bool              // the trust policy leaves out sts:SetSourceIdentity
	ExternalID  string            // demanded by the trust policy, if not empty
	Tags        map[string]string // tags of the role itself
	DenyBedrock bool
}

// A Federation is a statement of a trust policy for the tokens of an identity provider.
type Federation struct {
	Provider  string   // ARN of an OIDCProvider
	Audiences []string // condition on PROVIDER:aud; empty means none
	Subjects  []string // condition on PROVIDER:sub; empty means none
}

// An OIDCProvider is an OpenID Connect provider as an account knows it.
type OIDCProvider struct {
	ARN       string   // arn:aws:iam::ACCOUNT:oidc-provider/ISSUER without https://
	Issuer    string   // AWS demands https; on loopback http will do
	ClientIDs []string // audiences
	// Keys gives the provider's key set as its jwks_uri does now.
	Keys func() ([]byte, error)
}

// A User is an IAM user with a static access key.
type User struct {
	ARN             string
	AccessKeyID     string
	SecretAccessKey string
	BearerToken     string // a long-term Bedrock API key of the user, if not empty
	Tags            map[string]string
}

// Config describes a small AWS.
type Config struct {
	Regions []string // bedrock-runtime and bedrock-mantle answer in these
	Roles   []Role
	Users   []User
	// Providers are the accounts' OpenID Connect providers.
	Providers []OIDCProvider
	// STSOff lists Regions in which STS is not active.
	STSOff []string
	// Profiles maps the ARN of an application inference profile to the model id or
	// system profile id it was copied from.
	Profiles map[string]string
	// Models maps the ARN of a provisioned, custom or imported model, of a deployment of
	// one, or of a prompt router to the id of the foundation model that answers for it.
	Models map[string]string
	// World is where the world clock starts; zero means the real time.
	World time.Time
	// RealNow is the clock of signatures and sessions; nil means time.Now.
	RealNow func() time.Time
	// STSPerSecond is the account's quota of STS calls; 0 means 600.
	STSPerSecond int
	// Pace delays each chunk of a streamed answer; 0 means none.
	Pace time.Duration
	// PaceFor delays each chunk of one call's stream, on top of Pace; nil means none.
	PaceFor func(Call) time.Duration
	// Latency delays each answer; 0 means none.
	Latency time.Duration
	// Scale multiplies the tokens of each call, so that short texts make a bill worth
	// looking at; 0 means 1.
	Scale int64
	// Chunks is how many content chunks a streamed answer has; 0 means four.
	Chunks int
	// ChunksFor says so for one call; nil, or 0 from it, means Chunks.
	ChunksFor func(Call) int
	// Fault, if not nil, is asked about each call to an inference endpoint that is
	// otherwise good; nil from it means no fault.
	Fault func(r *http.Request) *Fault
	// OnCall is told of each call as it ends.
	OnCall func(Call)

	// Projects are those of bedrock-mantle besides default, which every account has.
	Projects []Project
	// BackgroundGets is how many times a background response is asked for before it is
	// there; 0 means 2, and a negative number none.
	BackgroundGets int

	// AsyncGets is how many times an asynchronous invocation is asked for before it is done;
	// 0 means 2, and a negative number none.
	AsyncGets int
	// Guardrails are those of the accounts.
	Guardrails []Guardrail

	// What follows has not been settled by AWS's documentation; either answer may be
	// the true one.

	// WorkspaceHeader is the spelling that Messages on bedrock-mantle honours; another is
	// ignored in silence. Empty means anthropic-workspace-id.
	WorkspaceHeader string
	// MantleTakesBedrock lets calls to bedrock-mantle be signed for the service bedrock.
	MantleTakesBedrock bool
	// MantleRequestID names the headers of bedrock-mantle that hold the request's id; nil
	// means x-amzn-RequestId and the one of the path's shape.
	MantleRequestID []string
	// ProjectsInOnePage lists all projects at once, archived ones too, and ignores what the
	// query asks for.
	ProjectsInOnePage bool
	// FrontDoorShape answers a bad signature or key in AWS's shape on every path.
	FrontDoorShape bool
	// MessagesTakesProfiles lets Messages on bedrock-runtime name an application inference
	// profile.
	MessagesTakesProfiles bool
}

// An Assumption is one successful AssumeRole or AssumeRoleWithWebIdentity.
type Assumption struct {
	At             time.Time
	Caller         string // ARN of who assumed, or the provider's and the token's subject
	RoleARN        string
	SessionName    string
	SourceIdentity string
	Tags           map[string]string
	Transitive     []string
	Seconds        int    // that the session lasts
	Region         string // of the STS that was asked
}

// credential is a key pair that AWS has issued.
type credential struct {
	id, secret, token string
	account           string
	arn               string    // of the principal, as Bedrock and STS see it
	expires           time.Time // zero for users
	tags              map[string]string
	transitive        map[string]string
	sourceIdentity    string // sticky
	isRole            bool
	denyBedrock       bool
}

// A World is one AWS, with its clock, its credentials and what it has served.
type World struct {
	config Config

	mu          sync.Mutex // guards all below
	now         time.Time  // the world clock; zero while it is the real time
	byID        map[string]*credential
	bearers     map[string]*credential
	calls       []Call
	assumptions []Assumption
	stsDown     bool
	stsSecond   int64
	stsCount    int
	refusedSTS  int
	responses   map[string]*storedResponse // by account, Region and id
	projects    map[string]*Project        // by account, Region and id
	asyncs      []*asyncInvocation
	made        int // projects so far
}

// NewWorld makes an AWS.
func NewWorld(c Config) *World {
	if c.RealNow == nil {
		c.RealNow = time.Now
	}
	if c.STSPerSecond == 0 {
		c.STSPerSecond = 600
	}
	if c.Scale == 0 {
		c.Scale = 1
	}
	if c.Chunks == 0 {
		c.Chunks = 4
	}
	if c.BackgroundGets == 0 {
		c.BackgroundGets = 2
	}
	if c.AsyncGets == 0 {
		c.AsyncGets = 2
	}
	if c.WorkspaceHeader == "" {
		c.WorkspaceHeader = "anthropic-workspace-id"
	}
	w := &World{config: c, now: c.World, byID: make(map[string]*credential), bearers: make(map[string]*credential),
		responses: make(map[string]*storedResponse), projects: make(map[string]*Project)}
	for _, p := range c.Projects {
		w.projects[p.Account+"/"+p.Region+"/"+p.ID] = &p
	}
	for _, u := range c.Users {
		cred := &credential{id: u.AccessKeyID, secret: u.SecretAccessKey, arn: u.ARN, account: accountOf(u.ARN), tags: u.Tags}
		w.byID[cred.id] = cred
		if u.BearerToken != "" {
			w.bearers[u.BearerToken] = cred
		}
	}
	return w
}

func accountOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[4]
}

// Now is the world clock.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now.IsZero() {
		return time.Now().UTC()
	}
	return w.now
}

// SetNow puts the world clock; it never goes back.
func (w *World) SetNow(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.After(w.now) {
		w.now = t.UTC()
	}
}

// Calls are the calls served so far.
func (w *World) Calls() []Call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Call(nil), w.calls...)
}

// Assumptions are the AssumeRole calls that succeeded so far.
func (w *World) Assumptions() []Assumption {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Assumption(nil), w.assumptions...)
}

// BreakSTS makes STS answer 503 until it is called with false.
func (w *World) BreakSTS(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stsDown = down
}

func (w *World) served(c Call) {
	w.mu.Lock()
	w.calls = append(w.calls, c)
	w.mu.Unlock()
	if w.config.OnCall != nil {
		w.config.OnCall(c)
	}
}

func newID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // the kernel has no random numbers
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s", s[:8], s[8:12], s[12:16], s[16:20], s[20:])
}

func token(prefix string, n int) string {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		panic(err)
	}
	return prefix + strings.ToUpper(hex.EncodeToString(b))
}

// Handler serves STS, bedrock-runtime and bedrock-mantle of every Region on one address:
// the service and the Region are those of the host, or of the credential scope that a
// request is signed for. A call with a key says neither on loopback; it is for
// bedrock-runtime, unless its path is served by bedrock-mantle alone.
func (w *World) Handler() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.infer(endpointOf(r), rw, r)
			return
		}
		w.sts(rw, r)
	})
}

// Endpoint serves one inference endpoint, Runtime or Mantle, whatever the host.
func (w *World) Endpoint(name string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.infer(name, rw, r) })
}

// Serve starts a listener on loopback for Handler and gives its URL and a function that
// stops it.
func (w *World) Serve() (url string, stop func(), err error) { return serve(w.Handler()) }

// ServeEndpoint does so for one inference endpoint.
func (w *World) ServeEndpoint(name string) (url string, stop func(), err error) {
	return serve(w.Endpoint(name))
}

func serve(h http.Handler) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }() // it ends with Close
	return "http://" + l.Addr().String(), func() { s.Close() }, nil
}
