package credential

import (
	"container/list"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/waybill-dev/waybill"
)

// Config says how role sessions are kept. The zero value works. Every time can be made
// short, for tests.
type Config struct {
	// Life is how long a session is asked for; 0 means an hour. Credentials that are a
	// role session themselves get an hour at most: longer is then cut to that.
	Life time.Duration
	// RefreshBefore is how long before its end a session in use is renewed, in the
	// background. 0 means 35 minutes, or seven twelfths of a Life below an hour: an outage
	// of STS of half an hour then ends before any session does that is used every few
	// minutes. Five minutes more than halve the calls to STS, and give that up.
	RefreshBefore time.Duration
	// Jitter is how much earlier still a session may be renewed, at random; 0 means a
	// tenth of RefreshBefore.
	Jitter time.Duration
	// Margin is how long before its end a session is no longer signed with; 0 means ten
	// seconds.
	Margin time.Duration
	// MaxSessions bounds the cache; 0 means 20,000, some 80 MB (TestMemory measures it).
	// The least recently used go first.
	MaxSessions int
	// PerSecond bounds the calls to STS in any second; 0 means 100. The account's quota
	// is 600 in a Region, and everything else in the account shares it.
	PerSecond float64
	// WarmUp is how long it takes from a tenth of PerSecond to all of it: at the start,
	// and after STS was away. 0 means ten seconds.
	WarmUp time.Duration
	// Backoff is how long STS is left alone after it throttled, and a session that it
	// refused is not asked for again; 0 means a second. It doubles up to MaxBackoff; 0
	// means half a minute.
	Backoff, MaxBackoff time.Duration
	// CallTimeout bounds one call to STS; 0 means five seconds.
	CallTimeout time.Duration
	// WaitTimeout bounds the wait of one caller for a session, as after a cold start;
	// 0 means five minutes. The caller's own patience usually ends first.
	WaitTimeout time.Duration
	// Young is the age below which a session that AWS refuses is kept all the same:
	// another would be refused as well. 0 means five seconds.
	Young time.Duration
	// Log is told what an operator should know, once; nil means nobody.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	or(&c.Life, time.Hour)
	or(&c.RefreshBefore, min(35*time.Minute, c.Life*7/12))
	or(&c.Jitter, c.RefreshBefore/10)
	or(&c.Margin, 10*time.Second)
	or(&c.WarmUp, 10*time.Second)
	or(&c.Backoff, time.Second)
	or(&c.MaxBackoff, 30*time.Second)
	or(&c.CallTimeout, 5*time.Second)
	or(&c.WaitTimeout, 5*time.Minute)
	or(&c.Young, 5*time.Second)
	if c.MaxSessions <= 0 {
		c.MaxSessions = 20_000
	}
	if c.PerSecond <= 0 {
		c.PerSecond = 100
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Session is a role session as STS gave it. It is never changed, and may be shared.
type Session struct {
	PrincipalARN string    // whom AWS sees
	Expires      time.Time // by STS's clock or ours, whichever is earlier
	Dropped      []string  // keys of optional tags that it does not carry: STS had no room

	keys    signingKeys
	since   time.Time
	life    time.Duration
	renewAt time.Time
}

func (s *Session) lasts(now time.Time, left time.Duration) bool {
	return now.Add(left).Before(s.Expires)
}

// Credentials are the session's keys.
func (s *Session) Credentials() aws.Credentials { return s.keys.Credentials }

// String is the principal: a session that is printed shows no keys.
func (s *Session) String() string { return s.PrincipalARN }

// GoString is the principal as well.
func (s *Session) GoString() string { return s.PrincipalARN }

// Sessions keeps role sessions. At most one AssumeRole is under way for a role, name
// and tags, and none is on the path of a request while a good session is held. A
// session that cannot be renewed is served until Margin before its end.
type Sessions struct {
	sts    Assumer
	config Config
	seed   maphash.Seed
	bits   uint64          // of a hash that are used: all
	ctx    context.Context // ends with Close: no caller's context may end what others wait for
	stop   context.CancelFunc
	work   sync.WaitGroup
	once   sync.Once // who we are, as far as STS is concerned

	mu    sync.Mutex       // guards all below
	held  map[uint64]*slot // by hash; slots of one hash are a list
	count int
	lru   *list.List // of *slot that have no flight, most recently used first
	roles map[string]*roleFacts
	chain bool // our own credentials are a role session
	turns turns
	stats counters
}

// A slot is the place of one session, which may not be there yet.
type slot struct {
	hash    uint64
	next    *slot // of the same hash
	request waybill.RoleSession
	session *Session
	flight  *flight
	place   *list.Element // in the lru; nil while there is a flight
	omit    []string      // tags that STS has had no room for
	retryAt time.Time     // after a refusal
	backoff time.Duration
	refusal error // what STS said, explained
}

// A flight is one session being fetched: it waits for its turn, and then for STS.
type flight struct {
	slot     *slot
	due      time.Time // its place in the queue
	seq      uint64
	index    int // in the queue; -1 when it is in the air
	attempts int
	omit     []string // tags to leave out
	shrunk   bool     // omit was made longer after STS had no room
	life     time.Duration

	done    chan struct{}
	session *Session
	err     error
}

// roleFacts are what STS has taught about a role.
type roleFacts struct {
	life    time.Duration // longest that it gives, if less than was asked
	weight  int           // of the lightest tags that were too large; 0 if none were
	percent int           // what STS said of them
}

// NewSessions makes a cache in front of STS.
func NewSessions(client Assumer, config Config) *Sessions {
	config = config.withDefaults()
	s := &Sessions{sts: client, config: config, seed: maphash.MakeSeed(), bits: math.MaxUint64,
		held: make(map[uint64]*slot), lru: list.New(), roles: make(map[string]*roleFacts)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.turns.init(&s.config, time.Now())
	return s
}

// Close ends what is under way, and waits for it. Callers that wait get an error.
func (s *Sessions) Close() {
	s.stop()
	s.work.Wait()
}

// hash is of all that makes a session what it is.
func (s *Sessions) hash(want *waybill.RoleSession) uint64 {
	h := maphash.String(s.seed, want.RoleARN)
	mix := func(text string) { h = bits.RotateLeft64(h, 7)*0x9e3779b97f4a7c15 ^ maphash.String(s.seed, text) }
	mix(want.SessionName)
	mix(want.SourceIdentity)
	mix(want.ExternalID)
	for k, v := range want.Tags.All() {
		mix(k)
		mix(v)
	}
	for _, k := range want.Transitive {
		mix(k)
	}
	for _, k := range want.Drop {
		mix(k)
	}
	return h & s.bits
}

func same(a, b *waybill.RoleSession) bool {
	return a.SessionName == b.SessionName && a.RoleARN == b.RoleARN && a.SourceIdentity == b.SourceIdentity && a.ExternalID == b.ExternalID &&
		a.Tags.Equal(b.Tags) && slices.Equal(a.Transitive, b.Transitive) && slices.Equal(a.Drop, b.Drop)
}

// own copies a request, so that a slot keeps nothing of a caller's buffers alive.
func own(want waybill.RoleSession) waybill.RoleSession {
	all := func(list []string) []string {
		list = slices.Clone(list)
		for i := range list {
			list[i] = strings.Clone(list[i])
		}
		return list
	}
	tags := make([]waybill.Tag, 0, want.Tags.Len())
	for k, v := range want.Tags.All() {
		tags = append(tags, waybill.Tag{Key: strings.Clone(k), Value: strings.Clone(v)})
	}
	return waybill.RoleSession{RoleARN: strings.Clone(want.RoleARN), SessionName: strings.Clone(want.SessionName), Tags: waybill.NewTags(tags...),
		Transitive: all(want.Transitive), SourceIdentity: strings.Clone(want.SourceIdentity), ExternalID: strings.Clone(want.ExternalID), Drop: all(want.Drop)}
}

// Get is a good session, from the cache if there is one. It waits for STS only where
// there is none. Errors are *waybill.Error.
func (s *Sessions) Get(ctx context.Context, want waybill.RoleSession) (*Session, error) {
	return s.GetFor(ctx, want, 0)
}

// GetFor is Get of a session that is good for some time yet, or for half of its life if
// that is less.
func (s *Sessions) GetFor(ctx context.Context, want waybill.RoleSession, left time.Duration) (*Session, error) {
	hash := s.hash(&want)
	now := time.Now()
	s.mu.Lock()
	p := s.find(hash, &want)
	if p != nil && p.session != nil && p.session.lasts(now, max(s.config.Margin, min(left, p.session.life/2))) {
		good := p.session
		if p.place != nil {
			s.lru.MoveToFront(p.place)
			if now.After(good.renewAt) && !now.Before(p.retryAt) {
				s.start(p, renewBy(p, now))
			}
		}
		s.stats.hits++
		s.mu.Unlock()
		return good, nil
	}
	s.stats.misses++
	f, err := s.need(p, hash, &want, now)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	s.stats.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.stats.waiting--
		s.mu.Unlock()
	}()
	patience := time.NewTimer(s.config.WaitTimeout)
	defer patience.Stop()
	select {
	case <-f.done:
		return f.session, f.err
	case <-ctx.Done():
		return nil, unavailable("the caller left while a role session was being fetched", ctx.Err())
	case <-patience.C:
		return nil, unavailable("no role session can be had at the moment", fmt.Errorf("no answer of STS in %s: it is slow, or throttles the account, or more sessions are asked for than %g a second", s.config.WaitTimeout, s.config.PerSecond))
	case <-s.ctx.Done():
		return nil, unavailable("the gateway is stopping", s.ctx.Err())
	}
}

// need is the flight that a caller without a session waits for. s.mu is held.
func (s *Sessions) need(p *slot, hash uint64, want *waybill.RoleSession, now time.Time) (*flight, error) {
	if p != nil && p.flight != nil {
		if f := p.flight; f.index >= 0 && f.due.After(now) { // a renewal that came too late
			f.due = now
			s.turns.moved(f)
		}
		if s.turns.away(now) && p.flight.index >= 0 {
			return nil, s.turns.downErr
		}
		return p.flight, nil
	}
	if p != nil && now.Before(p.retryAt) {
		return nil, p.refusal
	}
	if s.turns.away(now) {
		return nil, s.turns.downErr
	}
	if p == nil {
		if err := checkSession(want); err != nil {
			return nil, err
		}
		if s.count-s.lru.Len() >= s.config.MaxSessions {
			return nil, unavailable("no role session can be had at the moment", fmt.Errorf("%d sessions are being fetched, as many as the cache holds", s.config.MaxSessions))
		}
		p = &slot{hash: hash, request: own(*want), next: s.held[hash]}
		s.held[hash] = p
		s.count++
	}
	s.start(p, now.Add(p.backoff)) // whoever was refused before goes after those who were not
	s.evict()
	return p.flight, nil
}

func (s *Sessions) find(hash uint64, want *waybill.RoleSession) *slot {
	p := s.held[hash]
	for p != nil && !same(&p.request, want) {
		p = p.next
	}
	return p
}

// renewBy is when the renewal of a slot's session is due: halfway from now to its end.
// Until then newcomers go first; after it they do not, so that no renewal comes too late.
func renewBy(p *slot, now time.Time) time.Time {
	return now.Add(p.session.Expires.Sub(now) / 2)
}

// start puts a slot's flight into the queue. s.mu is held.
func (s *Sessions) start(p *slot, due time.Time) {
	p.flight = &flight{slot: p, due: due, omit: p.omit, done: make(chan struct{})}
	if p.place != nil {
		s.lru.Remove(p.place)
		p.place = nil
	}
	s.enqueue(p.flight)
}

func (s *Sessions) enqueue(f *flight) {
	s.turns.push(f)
	if !s.turns.running {
		s.turns.running = true
		s.work.Add(1)
		go s.dispatch()
	}
}

// land ends a flight: those who wait get the session or the error. s.mu is held.
func (s *Sessions) land(f *flight, session *Session, err error) {
	p := f.slot
	p.flight, f.session, f.err = nil, session, err
	if err == nil {
		p.session, p.backoff, p.retryAt, p.refusal = session, 0, time.Time{}, nil
	} else {
		p.backoff = min(max(2*p.backoff, s.config.Backoff), s.config.MaxBackoff)
		p.retryAt, p.refusal = time.Now().Add(jitter(p.backoff)), err
		s.stats.failed++
	}
	p.place = s.lru.PushFront(p)
	s.evict()
	close(f.done)
}

// jitter is a time between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// evict keeps the cache in its bounds. What is being fetched is waited for by someone,
// and is not in the lru.
func (s *Sessions) evict() {
	for s.count > s.config.MaxSessions && s.lru.Len() > 0 {
		p := s.lru.Remove(s.lru.Back()).(*slot)
		s.count--
		s.stats.evicted++
		s.unlink(p)
	}
}

func (s *Sessions) unlink(p *slot) {
	first := s.held[p.hash]
	switch {
	case first == p && p.next == nil:
		delete(s.held, p.hash)
	case first == p:
		s.held[p.hash] = p.next
	default:
		for first.next != p {
			first = first.next
		}
		first.next = p.next
	}
}

func (s *Sessions) forget(want waybill.RoleSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(s.hash(&want), &want)
	if p == nil || p.session == nil || time.Since(p.session.since) < s.config.Young {
		return
	}
	p.session = nil
	s.stats.forgotten++
}

func unavailable(message string, err error) error {
	return &waybill.Error{Kind: waybill.Unavailable, Code: "WB1401", Message: message, Hint: "try again; the gateway's operator sees why", Err: err}
}
