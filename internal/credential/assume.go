package credential

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/waybill-dev/waybill"
)

// An Assumer is STS's AssumeRole: the SDK's client, or a fake. It must not retry by
// itself, or more calls go out than are counted; NewSTS makes one that does not.
type Assumer interface {
	AssumeRole(context.Context, *sts.AssumeRoleInput, ...func(*sts.Options)) (*sts.AssumeRoleOutput, error)
}

// An identifier is an Assumer that can also say whose credentials it has. The SDK's
// client is one.
type identifier interface {
	GetCallerIdentity(context.Context, *sts.GetCallerIdentityInput, ...func(*sts.Options)) (*sts.GetCallerIdentityOutput, error)
}

// NewSTS makes a client of the regional STS of config's Region: its sessions are good
// in every Region, and it has a quota of its own. An endpoint that is not empty takes
// AWS's place; "{region}" in it is replaced. The client does not retry: Sessions does,
// within its limits.
func NewSTS(config aws.Config, endpoint string) *sts.Client {
	return sts.NewFromConfig(config, func(o *sts.Options) {
		o.Retryer = aws.NopRetryer{}
		if endpoint != "" {
			o.BaseEndpoint = aws.String(strings.ReplaceAll(endpoint, "{region}", config.Region))
		}
	})
}

// chainedLife is the most that credentials get which are a role session themselves.
const chainedLife = time.Hour

// dispatch lets flights go, each in its turn, until none waits.
func (s *Sessions) dispatch() {
	defer s.work.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.turns.queue) > 0 && s.ctx.Err() == nil {
		if wait := s.turns.next(time.Now()); wait > 0 {
			s.mu.Unlock()
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-s.turns.wake:
			case <-s.ctx.Done():
			}
			timer.Stop()
			s.mu.Lock()
			continue
		}
		f := s.turns.pop()
		p := f.slot
		role := s.roleFacts(p.request.RoleARN)
		f.life = s.config.Life
		if role.life > 0 {
			f.life = min(f.life, role.life)
		}
		if f.attempts == 0 && role.weight > 0 && weigh(&p.request, f.omit) >= role.weight {
			f.omit = lighten(&p.request, f.omit, role.weight, role.percent) // STS need not say it again
		}
		s.stats.asked(time.Now())
		s.stats.flying++
		s.work.Add(1)
		go s.fly(f)
	}
	s.turns.running = false
}

func (s *Sessions) roleFacts(arn string) *roleFacts {
	r := s.roles[arn]
	if r == nil {
		r = new(roleFacts)
		s.roles[arn] = r
	}
	return r
}

// fly asks STS for one session, and does what its answer calls for.
func (s *Sessions) fly(f *flight) {
	defer s.work.Done()
	ctx, cancel := context.WithTimeout(s.ctx, s.config.CallTimeout)
	defer cancel()
	s.once.Do(func() { s.identify(ctx) })
	if s.chained() {
		f.life = min(f.life, chainedLife)
	}
	session, packed, err := s.ask(ctx, f)

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.turns.nudge()
	now := time.Now()
	s.stats.flying--
	f.attempts++
	switch what := verdict(err); {
	case err == nil:
		s.turns.succeeded(now)
		s.stats.assumed++
		s.packed(f, packed)
		f.slot.omit = f.omit
		s.land(f, session, nil)
	case what == throttled:
		s.turns.throttled(now)
		s.stats.throttled++
		s.enqueue(f) // it keeps its place
	case what == unanswered:
		explained := explain(err, &f.slot.request)
		news := s.turns.unanswered(now, explained)
		if !s.turns.down && f.attempts < silence && f.slot.session == nil {
			time.AfterFunc(jitter(s.config.Backoff), func() { s.again(f) })
			break
		}
		s.land(f, nil, explained)
		if news {
			s.config.Log.Error("STS does not answer; sessions that are held are served until they end", "err", err)
			s.failNewcomers(explained)
		}
	case what == tooLarge && s.shrink(f, err), what == tooLong && s.shorten(f, err):
		s.turns.answered(now)
		s.enqueue(f)
	default:
		s.turns.answered(now)
		s.land(f, nil, explain(err, &f.slot.request))
	}
}

// again puts a flight back into the queue.
func (s *Sessions) again(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return // who waits for it knows
	}
	if s.turns.down {
		s.land(f, nil, s.turns.downErr)
		return
	}
	s.enqueue(f)
}

// failNewcomers ends the flights in the queue for which somebody waits: they get an
// error they can retry, rather than the length of the outage. Renewals stay: one of
// them finds out when STS is back.
func (s *Sessions) failNewcomers(err error) {
	now := time.Now()
	var renewals flights
	queue := s.turns.queue
	s.turns.queue = nil
	for _, f := range queue {
		if f.slot.session != nil && now.Before(f.slot.session.Expires.Add(-s.config.Margin)) {
			renewals = append(renewals, f)
			continue
		}
		f.index = -1
		s.land(f, nil, err)
	}
	for _, f := range renewals {
		s.turns.push(f)
	}
}

// ask is one AssumeRole.
func (s *Sessions) ask(ctx context.Context, f *flight) (_ *Session, packed int32, _ error) {
	want := &f.slot.request
	in := &sts.AssumeRoleInput{RoleArn: &want.RoleARN, RoleSessionName: &want.SessionName, DurationSeconds: aws.Int32(int32(f.life / time.Second))}
	for k, v := range want.Tags.All() {
		if !slices.Contains(f.omit, k) {
			in.Tags = append(in.Tags, ststypes.Tag{Key: aws.String(k), Value: aws.String(v)})
		}
	}
	for _, k := range want.Transitive { // a key that this call does not carry cannot pass on
		if _, ok := want.Tags.Get(k); ok && !slices.Contains(f.omit, k) {
			in.TransitiveTagKeys = append(in.TransitiveTagKeys, k)
		}
	}
	if want.SourceIdentity != "" {
		in.SourceIdentity = &want.SourceIdentity
	}
	if want.ExternalID != "" {
		in.ExternalId = &want.ExternalID
	}
	asked := time.Now().Round(0) // by the wall clock: a machine that sleeps does not stop STS's
	out, err := s.sts.AssumeRole(ctx, in)
	if err != nil {
		return nil, 0, err
	}
	c := out.Credentials
	if c == nil || out.AssumedRoleUser == nil || aws.ToString(c.AccessKeyId) == "" || aws.ToString(c.SecretAccessKey) == "" || aws.ToString(c.SessionToken) == "" {
		return nil, 0, errors.New("STS answered without credentials")
	}
	// Expiration is by STS's clock. Where ours is behind, what was asked for ends first.
	expires := asked.Add(f.life)
	if told := aws.ToTime(c.Expiration); !told.IsZero() && told.Before(expires) {
		expires = told
	}
	early := s.config.RefreshBefore + rand.N(s.config.Jitter+1)
	early = min(early, expires.Sub(asked)*3/4) // a short session is not renewed all the time
	session := &Session{PrincipalARN: aws.ToString(out.AssumedRoleUser.Arn), Expires: expires, Dropped: f.omit,
		since: time.Now(), life: expires.Sub(asked), renewAt: expires.Add(-early)}
	session.keys.Credentials = aws.Credentials{AccessKeyID: aws.ToString(c.AccessKeyId), SecretAccessKey: aws.ToString(c.SecretAccessKey),
		SessionToken: aws.ToString(c.SessionToken), CanExpire: true, Expires: expires}
	return session, packedSize(out), nil
}

// packedSize is how much of the space for tags a session takes, in percent. STS had one
// name for it and has another.
func packedSize(out *sts.AssumeRoleOutput) int32 {
	if out.SessionTokenUtilization != nil {
		return *out.SessionTokenUtilization
	}
	return aws.ToInt32(out.PackedPolicySize) //nolint:staticcheck // SA1019: an STS that does not know the new name yet
}

// identify finds out whether our own credentials are a role session, if it matters.
func (s *Sessions) identify(ctx context.Context) {
	client, ok := s.sts.(identifier)
	if !ok || s.config.Life <= chainedLife {
		return
	}
	s.mu.Lock()
	s.stats.asked(time.Now())
	s.mu.Unlock()
	out, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || !strings.Contains(aws.ToString(out.Arn), ":assumed-role/") {
		return // STS says so itself, if it matters
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setChained(aws.ToString(out.Arn))
}

func (s *Sessions) chained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chain
}

func (s *Sessions) setChained(arn string) {
	if s.chain {
		return
	}
	s.chain = true
	s.config.Log.Warn("the gateway's own credentials are a role session, from which STS gives sessions of an hour at most: sessions.life is cut to that",
		"life", s.config.Life, "principal", arn)
}

// shorten makes a flight ask for an hour, where STS has refused a longer life, and
// keeps that in mind. It reports whether that is worth a try.
func (s *Sessions) shorten(f *flight, err error) bool {
	if f.life <= chainedLife {
		return false
	}
	if strings.Contains(err.Error(), "chaining") {
		s.setChained("")
		return true
	}
	s.roleFacts(f.slot.request.RoleARN).life = chainedLife // every role allows that
	s.config.Log.Warn("a role does not give sessions as long as sessions.life: an hour is asked for", "role", f.slot.request.RoleARN, "life", s.config.Life,
		"hint", "raise the role's MaxSessionDuration, or lower sessions.life")
	return true
}

// packedWarning is the share of the space for tags, in percent, above which it is time
// to use fewer or shorter ones.
const packedWarning = 80

// packed keeps what STS said of the size of the tags.
func (s *Sessions) packed(f *flight, percent int32) {
	if int(percent) > s.stats.packed {
		if s.stats.packed < packedWarning && percent >= packedWarning {
			s.config.Log.Warn("the tags of a role session nearly fill the space that STS has for them", "percent", percent,
				"hint", "put fewer or shorter tags on the session carrier")
		}
		s.stats.packed = int(percent)
	}
	if len(f.omit) > len(f.slot.omit) {
		s.stats.dropped += int64(len(f.omit) - len(f.slot.omit))
		s.config.Log.Warn("STS had no room for all tags of a role session: optional ones were given up", "role", f.slot.request.RoleARN, "keys", f.omit)
	}
}

// shrink gives up optional tags in the order that the policy declares: as many as STS's
// figure calls for, and all that are left where that was not enough. It reports whether
// there were any. What it teaches about the role saves the next session the refusal.
func (s *Sessions) shrink(f *flight, err error) bool {
	s.stats.tooLarge++
	want := &f.slot.request
	weight, percent := weigh(want, f.omit), packedPercent(err)
	if role := s.roleFacts(want.RoleARN); role.weight == 0 || weight < role.weight {
		role.weight, role.percent = weight, percent
	}
	if f.shrunk {
		percent = 0
	}
	more := lighten(want, f.omit, weight, percent)
	if len(more) == len(f.omit) {
		return false
	}
	f.omit, f.shrunk = more, true
	return true
}

var percentOf = regexp.MustCompile(`(\d{1,6})\s*%`)

// packedPercent is the figure in a message such as "Packed size of session tags
// consumes 138% of allotted space"; 0 if it has none.
func packedPercent(err error) int {
	m := percentOf.FindStringSubmatch(err.Error())
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // six digits at most
	return n
}

// weigh is our measure of tags: STS's own, after compression, is not published.
func weigh(want *waybill.RoleSession, omit []string) int {
	n := 0
	for k, v := range want.Tags.All() {
		if !slices.Contains(omit, k) {
			n += len(k) + len(v) + 4
		}
	}
	return n
}

// lighten is the tags to leave out, those in omit and more, so that what is left fits:
// given that a weight came to a percentage. Without a percentage above 100 all optional
// tags go.
func lighten(want *waybill.RoleSession, omit []string, weight, percent int) []string {
	limit := -1
	if percent > 100 {
		limit = weight * 95 / percent // a little below: weights are not sizes
	}
	out := slices.Clone(omit)
	for _, k := range want.Drop {
		if limit >= 0 && weigh(want, out) <= limit {
			break
		}
		if _, ok := want.Tags.Get(k); ok && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return slices.Clip(out)
}

// checkSession holds a request against STS's limits before STS does.
func checkSession(want *waybill.RoleSession) error {
	bad := func(format string, a ...any) error {
		return &waybill.Error{Kind: waybill.Internal, Code: "WB1402", Message: "the role session that this call needs cannot be: " + fmt.Sprintf(format, a...),
			Hint: "the gateway's operator can change the policy or the roles"}
	}
	if n := len(want.RoleARN); n < 20 || n > 2048 || !strings.HasPrefix(want.RoleARN, "arn:") || !strings.Contains(want.RoleARN, ":role/") {
		return bad("its role is not the ARN of a role")
	}
	if n := len(want.SessionName); n < 2 || n > 64 {
		return bad("its name has %d characters, and STS takes 2 to 64", n)
	}
	if !plain(want.SessionName, "_+=,.@-") {
		return bad("its name has a character other than letters, digits and _+=,.@-")
	}
	if id := want.SourceIdentity; id != "" && (len(id) < 2 || len(id) > 64 || !plain(id, "_+=,.@-") || strings.HasPrefix(strings.ToLower(id), "aws:")) {
		return bad("its source identity is not 2 to 64 letters, digits and _+=,.@-")
	}
	if id := want.ExternalID; id != "" && (len(id) < 2 || len(id) > 1224 || !plain(id, "_+=,.@:/-")) {
		return bad("its external id is not 2 to 1224 letters, digits and _+=,.@:/-")
	}
	if n := want.Tags.Len(); n > 50 {
		return bad("it has %d tags, and STS takes 50", n)
	}
	if n := len(want.Transitive); n > 50 {
		return bad("it has %d transitive keys, and STS takes 50", n)
	}
	seen := make(map[string]bool, want.Tags.Len())
	for k, v := range want.Tags.All() {
		lower := strings.ToLower(k)
		switch {
		case seen[lower]:
			return bad("two of its tag keys differ in case alone")
		case strings.HasPrefix(lower, "aws:"):
			return bad("a tag key begins with aws:, which is AWS's own")
		case !tagText(k, 1, 128):
			return bad("a tag key is not 1 to 128 letters, digits, blanks and _.:/=+-@")
		case !tagText(v, 0, 256):
			return bad("the value of a tag is not up to 256 letters, digits, blanks and _.:/=+-@")
		}
		seen[lower] = true
	}
	return nil
}
