package credential

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"golang.org/x/time/rate"

	"github.com/waybill-dev/waybill"
)

// An Assumer is STS's AssumeRole: the SDK's client, or a fake.
type Assumer interface {
	AssumeRole(context.Context, *sts.AssumeRoleInput, ...func(*sts.Options)) (*sts.AssumeRoleOutput, error)
}

// Config says how role sessions are kept. The zero value works.
type Config struct {
	// Life is how long a session is asked for; 0 means an hour, which is also the most
	// that a gateway running under a role of its own can get.
	Life time.Duration
	// RefreshBefore is how long before its end a session is renewed, in the background;
	// 0 means five minutes. Up to a fifth more is added at random.
	RefreshBefore time.Duration
	// MaxSessions bounds the cache; 0 means 20,000, some 60 MB. The least used go first.
	MaxSessions int
	// PerSecond bounds the calls to STS, whose quota the whole account shares; 0 means 100.
	PerSecond float64
	// Backoff is how long a session that could not be had is not asked for again; 0
	// means a second. It doubles up to half a minute.
	Backoff time.Duration
	// CallTimeout bounds one call to STS; 0 means five seconds.
	CallTimeout time.Duration
	// TurnTimeout bounds the wait for a turn below PerSecond, as after a cold start; 0
	// means two minutes.
	TurnTimeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	or(&c.Life, time.Hour)
	or(&c.RefreshBefore, 5*time.Minute)
	or(&c.Backoff, time.Second)
	or(&c.CallTimeout, 5*time.Second)
	or(&c.TurnTimeout, 2*time.Minute)
	if c.MaxSessions <= 0 {
		c.MaxSessions = 20_000
	}
	if c.PerSecond <= 0 {
		c.PerSecond = 100
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Stats counts what the cache has done.
type Stats struct {
	Hits, Misses, Assumed, Failed, Throttled, Evicted, Dropped atomic.Int64
	Waiting                                                    atomic.Int64 // callers that wait for STS now
}

// Sessions keeps role sessions: at most one AssumeRole is under way for a role, name
// and tags, and none on the path of a request while a good session is held.
type Sessions struct {
	sts     Assumer
	config  Config
	limiter *rate.Limiter
	Stats   Stats

	mu   sync.Mutex               // guards all below
	held map[string]*list.Element // of *slot
	lru  *list.List               // most recently used first
}

// A slot is the place of one session, which may not be there yet.
type slot struct {
	key     string
	request waybill.RoleSession
	session *session
	flight  *flight
	retryAt time.Time // after a failure
	backoff time.Duration
}

type session struct {
	credentials aws.Credentials
	arn         string
	expires     time.Time
	renewAt     time.Time
}

// A flight is one AssumeRole under way.
type flight struct {
	done    chan struct{}
	session *session
	err     error
}

// NewSessions makes a cache in front of STS.
func NewSessions(client Assumer, config Config) *Sessions {
	config = config.withDefaults()
	return &Sessions{sts: client, config: config, limiter: rate.NewLimiter(rate.Limit(config.PerSecond), max(1, int(config.PerSecond/10))),
		held: make(map[string]*list.Element), lru: list.New()}
}

func cacheKey(s waybill.RoleSession) string {
	return strings.Join([]string{s.RoleARN, s.SessionName, s.SourceIdentity, s.ExternalID, strings.Join(s.Transitive, ","), s.Tags.Canonical()}, "\x00")
}

// Len is the number of sessions held or being fetched.
func (s *Sessions) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// Get is a good session, from the cache if there is one.
func (s *Sessions) Get(ctx context.Context, want waybill.RoleSession) (*session, error) {
	key := cacheKey(want)
	now := s.config.Now()
	s.mu.Lock()
	e, ok := s.held[key]
	if !ok {
		if err := checkSession(want); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		e = s.lru.PushFront(&slot{key: key, request: want})
		s.held[key] = e
		s.evict()
	}
	s.lru.MoveToFront(e)
	p := e.Value.(*slot)
	if p.session != nil && now.Before(p.session.expires.Add(-10*time.Second)) {
		good := p.session
		if now.After(good.renewAt) && p.flight == nil && now.After(p.retryAt) {
			s.start(p)
		}
		s.mu.Unlock()
		s.Stats.Hits.Add(1)
		return good, nil
	}
	s.Stats.Misses.Add(1)
	if p.flight == nil {
		if now.Before(p.retryAt) {
			s.mu.Unlock()
			return nil, unavailable("no role session can be had at the moment", errors.New("backing off after a failed AssumeRole"))
		}
		s.start(p)
	}
	f := p.flight
	s.mu.Unlock()
	s.Stats.Waiting.Add(1)
	defer s.Stats.Waiting.Add(-1)
	select {
	case <-f.done:
		return f.session, f.err
	case <-ctx.Done():
		return nil, unavailable("the caller left while a role session was being fetched", ctx.Err())
	}
}

// evict keeps the cache in its bounds. Slots with a flight are waited for by someone.
func (s *Sessions) evict() {
	for e := s.lru.Back(); e != nil && len(s.held) > s.config.MaxSessions; {
		before := e.Prev()
		if p := e.Value.(*slot); p.flight == nil {
			s.lru.Remove(e)
			delete(s.held, p.key)
			s.Stats.Evicted.Add(1)
		}
		e = before
	}
}

func (s *Sessions) forget(want waybill.RoleSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.held[cacheKey(want)]; ok {
		e.Value.(*slot).session = nil
	}
}

// start fetches a session in the background. s.mu is held. It has a context of its
// own: whoever asked first may leave, and others wait for the same answer.
func (s *Sessions) start(p *slot) {
	f := &flight{done: make(chan struct{})}
	p.flight = f
	go func() {
		got, err := s.assume(p.request)
		s.mu.Lock()
		defer s.mu.Unlock()
		p.flight = nil
		if err != nil {
			s.Stats.Failed.Add(1)
			p.backoff = min(max(2*p.backoff, s.config.Backoff), 30*time.Second)
			p.retryAt = s.config.Now().Add(p.backoff/2 + rand.N(p.backoff/2+1))
			f.err = explain(err)
		} else {
			p.backoff, p.retryAt = 0, time.Time{}
			p.session, f.session = got, got
		}
		close(f.done)
	}()
}

// assume waits for its turn below the quota and asks STS. Who waits for the session may
// give up earlier; the session is there for the next.
func (s *Sessions) assume(want waybill.RoleSession) (*session, error) {
	turn, stop := context.WithTimeout(context.Background(), s.config.TurnTimeout)
	defer stop()
	if err := s.limiter.Wait(turn); err != nil {
		return nil, fmt.Errorf("wait for the limit of %g AssumeRole calls a second: %w", s.config.PerSecond, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.config.CallTimeout)
	defer cancel()
	out, err := s.call(ctx, want, want.Tags)
	if code(err) == "PackedPolicyTooLarge" && len(want.Drop) > 0 {
		tags := want.Tags.Map()
		for _, key := range want.Drop {
			if _, ok := tags[key]; ok {
				delete(tags, key)
				s.Stats.Dropped.Add(1)
			}
		}
		out, err = s.call(ctx, want, waybill.TagsFromMap(tags))
	}
	if err != nil {
		if c := code(err); c == "Throttling" || c == "ThrottlingException" || c == "RequestLimitExceeded" {
			s.Stats.Throttled.Add(1)
		}
		return nil, err
	}
	if out.Credentials == nil || out.AssumedRoleUser == nil {
		return nil, errors.New("STS answered without credentials")
	}
	s.Stats.Assumed.Add(1)
	c := out.Credentials
	early := s.config.RefreshBefore + rand.N(s.config.RefreshBefore/5+1)
	expires := aws.ToTime(c.Expiration)
	return &session{
		credentials: aws.Credentials{AccessKeyID: aws.ToString(c.AccessKeyId), SecretAccessKey: aws.ToString(c.SecretAccessKey),
			SessionToken: aws.ToString(c.SessionToken), CanExpire: true, Expires: expires},
		arn: aws.ToString(out.AssumedRoleUser.Arn), expires: expires, renewAt: expires.Add(-early),
	}, nil
}

func (s *Sessions) call(ctx context.Context, want waybill.RoleSession, tags waybill.Tags) (*sts.AssumeRoleOutput, error) {
	in := &sts.AssumeRoleInput{RoleArn: &want.RoleARN, RoleSessionName: &want.SessionName,
		DurationSeconds: aws.Int32(int32(s.config.Life / time.Second)), TransitiveTagKeys: want.Transitive}
	for k, v := range tags.All() {
		in.Tags = append(in.Tags, ststypes.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	in.TransitiveTagKeys = slices.DeleteFunc(slices.Clone(in.TransitiveTagKeys), func(k string) bool { _, ok := tags.Get(k); return !ok })
	if want.SourceIdentity != "" {
		in.SourceIdentity = &want.SourceIdentity
	}
	if want.ExternalID != "" {
		in.ExternalId = &want.ExternalID
	}
	return s.sts.AssumeRole(ctx, in)
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// explain turns what STS said into what a caller may see, and keeps the cause for the
// log.
func explain(err error) error {
	switch code(err) {
	case "AccessDenied":
		return unavailable("the gateway may not assume the role for this call, or may not tag its session", fmt.Errorf("check sts:AssumeRole and sts:TagSession in the role's trust policy: %w", err))
	case "PackedPolicyTooLarge":
		return unavailable("the tags of this call do not fit into a role session", err)
	case "ValidationError":
		return unavailable("STS refused the role session", fmt.Errorf("check the session's length: a gateway under a role of its own gets an hour at most: %w", err))
	}
	return unavailable("no role session can be had at the moment", err)
}

// checkSession holds a request against STS's limits before STS does.
func checkSession(s waybill.RoleSession) error {
	bad := func(what string) error {
		return &waybill.Error{Kind: waybill.Internal, Code: "WB1402", Message: "the role session asked for " + what}
	}
	if n := len(s.SessionName); n < 2 || n > 64 {
		return bad("has a name of other than 2 to 64 characters")
	}
	for _, c := range []byte(s.SessionName) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+=,.@-", c) >= 0) {
			return bad("has a name with a character that STS does not take")
		}
	}
	if s.Tags.Len() > 50 {
		return bad("has more than 50 tags")
	}
	seen := make(map[string]bool)
	for k, v := range s.Tags.All() {
		lower := strings.ToLower(k)
		if seen[lower] || strings.HasPrefix(lower, "aws:") || k == "" || len([]rune(k)) > 128 || len([]rune(v)) > 256 {
			return bad("has a tag beyond STS's limits, or two keys that differ in case only")
		}
		seen[lower] = true
	}
	return nil
}
