package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/waybill-dev/waybill"
)

// fakeSTS answers after a while, and keeps what it was asked. internal/fakeaws has the
// strict one; this one can be told to fail.
type fakeSTS struct {
	mu    sync.Mutex // guards all below
	asked []time.Time
	ins   []*sts.AssumeRoleInput
	down  bool
	// answer, if not nil, may refuse a call.
	answer func(*sts.AssumeRoleInput) error
}

func (f *fakeSTS) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, _ ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	f.mu.Lock()
	f.asked = append(f.asked, time.Now())
	f.ins = append(f.ins, in)
	down, answer := f.down, f.answer
	f.mu.Unlock()
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if down {
		return nil, errors.New("connection refused")
	}
	if answer != nil {
		if err := answer(in); err != nil {
			return nil, err
		}
	}
	return &sts.AssumeRoleOutput{AssumedRoleUser: &ststypes.AssumedRoleUser{Arn: aws.String("arn:aws:sts::111122223333:assumed-role/bedrock/" + *in.RoleSessionName)},
		Credentials: &ststypes.Credentials{AccessKeyId: aws.String("ASIAEXAMPLE"), SecretAccessKey: aws.String("s"), SessionToken: aws.String("t"),
			Expiration: aws.Time(time.Now().Add(time.Duration(*in.DurationSeconds) * time.Second))}}, nil
}

func (f *fakeSTS) set(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *fakeSTS) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fakeSTS) last() *sts.AssumeRoleInput {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ins[len(f.ins)-1]
}

func refusal(status int, code, message string) error {
	return &smithy.OperationError{ServiceID: "STS", OperationName: "AssumeRole", Err: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
		Err:      &smithy.GenericAPIError{Code: code, Message: message}}}
}

const roleARN = "arn:aws:iam::111122223333:role/app/bedrock"

func want(name string) waybill.RoleSession {
	return waybill.RoleSession{RoleARN: roleARN, SessionName: name, Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}, waybill.Tag{Key: "extra", Value: "x"}), Drop: []string{"extra"}}
}

// However many ask, one AssumeRole is under way; a warm session asks nobody; it is
// renewed before its end, in the background.
func TestOneAssumeRole(t *testing.T) {
	for _, tt := range []struct {
		config      Config
		least, most int // AssumeRole calls in five hours
	}{
		{Config{RefreshBefore: 5 * time.Minute}, 5, 7},
		{Config{}, 12, 14}, // every 21.5 to 25 minutes
		{Config{Life: 15 * time.Minute}, 42, 50},
		{Config{Life: 15 * time.Minute, RefreshBefore: time.Hour}, 75, 81}, // a mistake does not make a storm
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeSTS{}
			s := NewSessions(f, tt.config)
			defer s.Close()
			var wg sync.WaitGroup
			for range 500 {
				wg.Go(func() {
					if _, err := s.Get(t.Context(), want("user-17")); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := f.calls(); n != 1 {
				t.Errorf("%d AssumeRole calls, want 1", n)
			}
			for range 300 { // five hours, a call a minute
				time.Sleep(time.Minute)
				before := time.Now()
				if _, err := s.Get(t.Context(), want("user-17")); err != nil || time.Since(before) > 0 {
					t.Fatalf("a warm call waited %s: %v", time.Since(before), err)
				}
			}
			if n := f.calls(); n < tt.least || n > tt.most {
				t.Errorf("%+v: %d AssumeRole calls in five hours, want %d to %d", tt.config, n, tt.least, tt.most)
			}
			st := s.Stats()
			if st.Hits != 300 || st.Misses != 500 || st.Waiters != 0 || st.Sessions != 1 || int(st.Assumed) != f.calls() || st.Headroom != 1 && st.BusiestSecond != 1 {
				t.Errorf("stats are %+v", st)
			}
		})
	}
}

// While STS is away, who has a session is served from it until just before its end; who
// has none is told so at once; few calls find out whether STS is back.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{Margin: 10 * time.Second})
		defer s.Close()
		if _, err := s.Get(t.Context(), want("user-17")); err != nil {
			t.Fatal(err)
		}
		f.set(true)
		begin := time.Now()
		for time.Since(begin) < time.Hour-11*time.Second {
			time.Sleep(time.Second)
			if _, err := s.Get(t.Context(), want("user-17")); err != nil {
				t.Fatalf("a call with a session was lost after %s: %v", time.Since(begin), err)
			}
		}
		time.Sleep(11 * time.Second)
		if _, err := s.Get(t.Context(), want("user-17")); waybill.KindOf(err) != waybill.Unavailable {
			t.Errorf("a session was used up to its end: %v", err)
		}
		if n := f.calls(); n > 100 {
			t.Errorf("%d AssumeRole calls while STS was away for an hour: there is no back-off", n)
		}
		if !s.Stats().Down {
			t.Error("stats do not say that STS is away")
		}
		before := time.Now()
		_, err := s.Get(t.Context(), want("somebody-else"))
		if waybill.KindOf(err) != waybill.Unavailable || strings.Contains(err.(*waybill.Error).Message, "arn:") || time.Since(before) > 10*time.Second {
			t.Errorf("a caller without a session got %v after %s", err, time.Since(before))
		}
		f.set(false)
		time.Sleep(time.Minute)
		if _, err := s.Get(t.Context(), want("somebody-else")); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		if s.Stats().Down {
			t.Error("stats say that STS is still away")
		}
	})
}

// One call that STS fails is made again before its caller hears of it.
func TestOneFailureIsNobodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		n := 0
		f.answer = func(*sts.AssumeRoleInput) error {
			if n++; n == 1 {
				return refusal(500, "InternalFailure", "")
			}
			return nil
		}
		s := NewSessions(f, Config{})
		defer s.Close()
		if _, err := s.Get(t.Context(), want("user-17")); err != nil || f.calls() != 2 {
			t.Errorf("%d calls, %v", f.calls(), err)
		}
	})
}

// Tags that STS has no room for are given up in the declared order, as many as it
// takes; the session says which; neither its renewal nor the next caller of the role is
// refused for it again.
func TestOptionalTagsAreGivenUp(t *testing.T) {
	tags := waybill.NewTags(waybill.Tag{Key: "team", Value: strings.Repeat("t", 90)}, waybill.Tag{Key: "first", Value: strings.Repeat("f", 90)},
		waybill.Tag{Key: "second", Value: strings.Repeat("s", 90)}, waybill.Tag{Key: "third", Value: strings.Repeat("x", 90)})
	// STS has room for so many tags, and says so in one of three ways.
	for _, tt := range []struct {
		name    string
		room    int
		message func(tags int) string
		dropped []string
		calls   int
		next    []string // that the next caller's session lacks
	}{
		{"a percentage", 3, func(n int) string {
			return fmt.Sprintf("Packed size of session tags consumes %d%% of allotted space.", n*100/3)
		}, []string{"first", "second"}, 2, []string{"first", "second"}},
		{"a percentage that misleads", 2, func(int) string { return "Packed size of session tags consumes 101% of allotted space." }, []string{"first", "second", "third"}, 3, []string{"first", "second"}},
		{"no percentage", 3, func(int) string { return "Serialized token too large for session" }, []string{"first", "second", "third"}, 2, []string{"first", "second", "third"}},
		{"room", 4, nil, nil, 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSTS{answer: func(in *sts.AssumeRoleInput) error {
					if len(in.Tags) > tt.room {
						return refusal(400, "PackedPolicyTooLarge", tt.message(len(in.Tags)))
					}
					return nil
				}}
				s := NewSessions(f, Config{})
				defer s.Close()
				ask := waybill.RoleSession{RoleARN: roleARN, SessionName: "user-17", Tags: tags, Drop: []string{"first", "second", "third"}, Transitive: []string{"team", "first"}}
				got, err := s.Get(t.Context(), ask)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.Dropped, tt.dropped) || f.calls() != tt.calls {
					t.Errorf("dropped %v in %d calls, want %v in %d", got.Dropped, f.calls(), tt.dropped, tt.calls)
				}
				if in := f.last(); len(in.Tags) != 4-len(tt.dropped) || slices.Contains(in.TransitiveTagKeys, "first") != (tt.dropped == nil) {
					t.Errorf("%d tags, transitive %v", len(in.Tags), in.TransitiveTagKeys)
				}
				before := f.calls()
				time.Sleep(time.Until(got.renewAt) + time.Second)
				s.Get(t.Context(), ask) // renews in the background
				time.Sleep(time.Minute)
				renewed, err := s.Get(t.Context(), ask)
				if err != nil || f.calls() != before+1 || renewed == got || !slices.Equal(renewed.Dropped, tt.dropped) {
					t.Errorf("the renewal made %d calls, dropped %v: %v", f.calls()-before, renewed.Dropped, err)
				}
				ask.SessionName = "user-18"
				before = f.calls()
				if other, err := s.Get(t.Context(), ask); err != nil || f.calls() != before+1 || !slices.Equal(other.Dropped, tt.next) {
					t.Errorf("the next caller made %d calls, dropped %v: %v", f.calls()-before, other.Dropped, err)
				}
				if n := s.Stats().Dropped; n != int64(len(tt.dropped)+len(tt.next)) {
					t.Errorf("stats say that %d tags were dropped", n)
				}
			})
		})
	}
	t.Run("required", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeSTS{answer: func(*sts.AssumeRoleInput) error { return refusal(400, "PackedPolicyTooLarge", "138%") }}
			s := NewSessions(f, Config{})
			defer s.Close()
			_, err := s.Get(t.Context(), waybill.RoleSession{RoleARN: roleARN, SessionName: "user-17", Tags: tags})
			if waybill.KindOf(err) != waybill.Invalid || f.calls() != 1 {
				t.Errorf("%d calls, %v", f.calls(), err)
			}
		})
	})
}

// Throttling is the account's: one throttled call slows all, and no caller sees it.
func TestThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const really = 20 // what the account has left, a second
		f := &fakeSTS{}
		count, second := 0, int64(0)
		f.answer = func(*sts.AssumeRoleInput) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if now := time.Now().Unix(); now != second {
				count, second = 0, now
			}
			if count++; count > really {
				return refusal(400, "Throttling", "Rate exceeded")
			}
			return nil
		}
		s := NewSessions(f, Config{PerSecond: 100})
		defer s.Close()
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range 1000 {
			wg.Go(func() {
				if _, err := s.Get(t.Context(), want(fmt.Sprintf("user-%d", i))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		took, st := time.Since(begin), s.Stats()
		t.Logf("1,000 sessions of an account with room for %d a second: %s, %d calls throttled", really, took.Round(time.Second), st.Throttled)
		if st.Throttled == 0 || st.Throttled > 40 || took > 3*time.Minute {
			t.Errorf("%d of %d calls were throttled in %s", st.Throttled, f.calls(), took)
		}
	})
}

// Newcomers and renewals share the limit: neither waits for the other to run dry.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{PerSecond: 10, Life: 15 * time.Minute})
		defer s.Close()
		for i := range 1000 { // 1,000 sessions: 110 seconds of the limit
			if _, err := s.Get(t.Context(), want(fmt.Sprintf("old-%d", i))); err != nil {
				t.Fatal(err)
			}
		}
		// All are renewed every 6 to 8 minutes, 2.4 a second, while newcomers ask for 9 a
		// second: alone as many as the limit allows. For longer than a session lasts.
		var longest time.Duration
		var mu sync.Mutex
		var wg sync.WaitGroup
		const seconds, perSecond = 1000, 9
		lost := 0
		for second := range seconds {
			time.Sleep(time.Second)
			for i := range perSecond {
				wg.Go(func() {
					before := time.Now()
					_, err := s.Get(t.Context(), want(fmt.Sprintf("new-%d-%d", second, i)))
					mu.Lock()
					defer mu.Unlock()
					if longest = max(longest, time.Since(before)); err != nil {
						t.Error(err)
					}
				})
			}
			if second%10 == 0 {
				for i := range 1000 {
					if _, err := s.Get(t.Context(), want(fmt.Sprintf("old-%d", i))); err != nil {
						lost++
					}
				}
			}
		}
		wg.Wait()
		t.Logf("the limit overdrawn by a quarter for %d seconds: the longest wait of a newcomer is %s", seconds, longest.Round(time.Second))
		if lost > 0 || longest > 4*time.Minute || s.Stats().Misses != 1000+seconds*perSecond {
			t.Errorf("%d calls of the old were lost; a newcomer waited %s; %d calls found no session", lost, longest, s.Stats().Misses)
		}
	})
}

// Those who wait for their turn when STS goes away are told, all at once, rather than
// one after the other as each turn comes to nothing.
func TestOutageEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{down: true}
		s := NewSessions(f, Config{PerSecond: 1})
		defer s.Close()
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range 100 {
			wg.Go(func() {
				if _, err := s.Get(t.Context(), want(fmt.Sprintf("user-%d", i))); waybill.KindOf(err) != waybill.Unavailable || time.Since(begin) > 30*time.Second {
					t.Errorf("%v after %s", err, time.Since(begin))
				}
			})
		}
		wg.Wait()
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{MaxSessions: 10, PerSecond: 10_000})
		defer s.Close()
		for i := range 50 {
			if _, err := s.Get(t.Context(), want(fmt.Sprintf("user-%d", i))); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(t.Context(), want("user-0")); err != nil { // always the last used but one
				t.Fatal(err)
			}
		}
		if st := s.Stats(); st.Sessions != 10 || st.Evicted != 40 || f.calls() != 50 {
			t.Errorf("%d sessions are held, %d were put out, %d calls: want 10, 40, 50", st.Sessions, st.Evicted, f.calls())
		}
		// What is being fetched cannot be put out, so it is bounded by itself.
		f.set(true)
		var wg sync.WaitGroup
		ctx, leave := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer leave()
		for i := range 30 {
			wg.Go(func() { s.Get(ctx, want(fmt.Sprintf("other-%d", i))) })
		}
		wg.Wait()
		if n := s.Stats().Sessions; n > 11 {
			t.Errorf("%d sessions are held or fetched, want 10", n)
		}
	})
}

// Sessions whose hashes collide are different sessions.
func TestCollisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(&fakeSTS{}, Config{MaxSessions: 5})
		defer s.Close()
		s.bits = 0
		for round := range 3 {
			for i := range 8 {
				name := fmt.Sprintf("user-%d", i)
				got, err := s.Get(t.Context(), want(name))
				if err != nil || !strings.HasSuffix(got.PrincipalARN, "/"+name) {
					t.Fatalf("round %d: %s got %v, %v", round, name, got, err)
				}
			}
		}
		if n := s.Stats().Sessions; n != 5 {
			t.Errorf("%d sessions are held, want 5", n)
		}
	})
}

// Whatever makes a session another makes it another in the cache.
func TestKey(t *testing.T) {
	base := waybill.RoleSession{RoleARN: roleARN, SessionName: "user-17", SourceIdentity: "user-17", ExternalID: "id", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}), Transitive: []string{"team"}, Drop: []string{"team"}}
	for name, change := range map[string]func(*waybill.RoleSession){
		"role":            func(w *waybill.RoleSession) { w.RoleARN += "x" },
		"name":            func(w *waybill.RoleSession) { w.SessionName += "x" },
		"source identity": func(w *waybill.RoleSession) { w.SourceIdentity += "x" },
		"external id":     func(w *waybill.RoleSession) { w.ExternalID += "x" },
		"tag value":       func(w *waybill.RoleSession) { w.Tags = waybill.NewTags(waybill.Tag{Key: "team", Value: "ads"}) },
		"tag key":         func(w *waybill.RoleSession) { w.Tags = waybill.NewTags(waybill.Tag{Key: "Team", Value: "search"}) },
		"no tags":         func(w *waybill.RoleSession) { w.Tags = waybill.Tags{} },
		"transitive":      func(w *waybill.RoleSession) { w.Transitive = nil },
		"drop":            func(w *waybill.RoleSession) { w.Drop = nil },
		"shifted":         func(w *waybill.RoleSession) { w.SourceIdentity, w.ExternalID = w.ExternalID, w.SourceIdentity },
	} {
		s := NewSessions(&fakeSTS{}, Config{})
		defer s.Close()
		other := base
		change(&other)
		if same(&base, &other) || s.hash(&base) == s.hash(&other) {
			t.Errorf("another %s is the same session", name)
		}
		if copied := own(base); !same(&base, &copied) || s.hash(&base) != s.hash(&copied) {
			t.Error("a copy is another session")
		}
	}
}

// A session that AWS refuses is dropped, but not one that is new: many calls that were
// refused together make one AssumeRole.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{})
		defer s.Close()
		get := func() {
			if _, err := s.Get(t.Context(), want("user-17")); err != nil {
				t.Fatal(err)
			}
		}
		get()
		time.Sleep(time.Minute)
		for range 100 {
			s.forget(want("user-17"))
			get()
		}
		if n := f.calls(); n != 2 || s.Stats().Forgotten != 1 {
			t.Errorf("%d AssumeRole calls, want 2; stats %+v", n, s.Stats())
		}
		s.forget(want("nobody"))
	})
}

// GetFor gives no session that ends sooner than asked.
func TestGetFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{RefreshBefore: 5 * time.Minute})
		defer s.Close()
		if _, err := s.Get(t.Context(), want("user-17")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Minute)
		if _, err := s.GetFor(t.Context(), want("user-17"), 15*time.Minute); err != nil || f.calls() != 1 {
			t.Errorf("with 20 minutes left: %d calls, %v", f.calls(), err)
		}
		if got, err := s.GetFor(t.Context(), want("user-17"), 30*time.Minute); err != nil || f.calls() != 2 || time.Until(got.Expires) < 30*time.Minute {
			t.Errorf("%d calls, %v", f.calls(), err)
		}
		// More than a session has is not asked for over and over.
		for range 10 {
			if _, err := s.GetFor(t.Context(), want("user-17"), 24*time.Hour); err != nil || f.calls() != 2 {
				t.Errorf("%d calls, %v", f.calls(), err)
			}
		}
	})
}

// A caller who leaves does not end what others wait for, and what they asked for is
// there for the next.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{})
		defer s.Close()
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Get(ctx, want("user-17")); !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
		})
		wg.Go(func() {
			if _, err := s.Get(t.Context(), want("user-17")); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(10 * time.Millisecond)
		leave()
		wg.Wait()
		if f.calls() != 1 {
			t.Errorf("%d calls", f.calls())
		}
		// The end of the gateway is an end of waiting.
		f.answer = func(*sts.AssumeRoleInput) error { return refusal(400, "Throttling", "Rate exceeded") }
		wg.Go(func() {
			if _, err := s.Get(t.Context(), want("user-18")); waybill.KindOf(err) != waybill.Unavailable {
				t.Errorf("at the end: %v", err)
			}
		})
		time.Sleep(time.Second)
		s.Close()
		wg.Wait()
	})
}

// Nobody waits longer than WaitTimeout.
func TestWaitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{answer: func(*sts.AssumeRoleInput) error { return refusal(400, "Throttling", "Rate exceeded") }}
		s := NewSessions(f, Config{WaitTimeout: 20 * time.Second})
		defer s.Close()
		before := time.Now()
		if _, err := s.Get(t.Context(), want("user-17")); waybill.KindOf(err) != waybill.Unavailable || time.Since(before) != 20*time.Second {
			t.Errorf("%v after %s", err, time.Since(before))
		}
		if n := f.calls(); n > 8 {
			t.Errorf("%d calls in 20 seconds of throttling", n)
		}
	})
}

// A session of STS that we cannot have is not asked for at each call.
func TestRefusalIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{answer: func(*sts.AssumeRoleInput) error {
			return refusal(403, "AccessDenied", "User: arn:aws:iam::111122223333:user/gateway is not authorized to perform: sts:AssumeRole on resource: "+roleARN)
		}}
		s := NewSessions(f, Config{})
		defer s.Close()
		for range 600 {
			if _, err := s.Get(t.Context(), want("user-17")); waybill.KindOf(err) != waybill.Unavailable || !strings.Contains(err.Error(), "trust policy") {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := f.calls(); n < 15 || n > 50 {
			t.Errorf("%d AssumeRole calls in ten minutes of AccessDenied", n)
		}
		f.mu.Lock()
		f.answer = nil
		f.mu.Unlock()
		time.Sleep(31 * time.Second)
		if _, err := s.Get(t.Context(), want("user-17")); err != nil {
			t.Errorf("after the trust policy was mended: %v", err)
		}
	})
}

// The clock of the gateway may be wrong: a session is never taken to last longer than
// was asked for, nor than STS says.
func TestExpiryByEitherClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for skew, want15 := range map[time.Duration]time.Duration{10 * time.Minute: time.Hour, -10 * time.Minute: 50 * time.Minute} {
			s := NewSessions(skewed(skew), Config{})
			defer s.Close()
			got, err := s.Get(t.Context(), want("user-17"))
			if left := time.Until(got.Expires); err != nil || left > want15 || left < want15-time.Second {
				t.Errorf("STS's clock is %s ahead: the session lasts %s, want %s", skew, left, want15)
			}
		}
	})
}

type skewed time.Duration

func (k skewed) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, _ ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	out, err := new(fakeSTS).AssumeRole(ctx, in)
	out.Credentials.Expiration = aws.Time(out.Credentials.Expiration.Add(time.Duration(k)))
	return out, err
}

// A session that is printed shows no key.
func TestNoKeysInText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(&fakeSTS{}, Config{})
		defer s.Close()
		got, err := s.Get(t.Context(), want("user-17"))
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", got, got, got, got); strings.Contains(text, "ASIA") {
			t.Error("a session that is printed shows its keys")
		}
	})
}

// The bound on the cache is a bound on memory: a session with six tags and a token of
// 1,200 characters takes less than 5 KB.
func TestMemory(t *testing.T) {
	const sessions = 5000
	tags := func(i int) waybill.Tags {
		var list []waybill.Tag
		for k := range 6 {
			list = append(list, waybill.Tag{Key: fmt.Sprintf("costCenter%d", k), Value: fmt.Sprintf("a value of twenty %d", i)})
		}
		return waybill.NewTags(list...)
	}
	var before, after runtime.MemStats
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(fatSTS{}, Config{PerSecond: 1e6})
		defer s.Close()
		runtime.GC()
		runtime.ReadMemStats(&before)
		var wg sync.WaitGroup
		for i := range sessions {
			wg.Go(func() {
				w := want(fmt.Sprintf("user-%d", i))
				w.Tags = tags(i)
				got, err := s.Get(t.Context(), w)
				if err != nil {
					t.Error(err)
					return
				}
				r, _ := http.NewRequestWithContext(t.Context(), "POST", "https://bedrock-runtime.us-east-1.amazonaws.com/", nil)
				got.keys.sign(r, [32]byte{}, "bedrock", "us-east-1", time.Now())
			})
		}
		wg.Wait()
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(s)
	})
	each := (after.HeapAlloc - before.HeapAlloc) / sessions
	t.Logf("%d bytes a session: %d MB for 20,000", each, each*20_000>>20)
	if each > 5<<10 {
		t.Errorf("a session takes %d bytes, want at most 5 KB", each)
	}
}

type fatSTS struct{}

func (fatSTS) AssumeRole(_ context.Context, in *sts.AssumeRoleInput, _ ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	return &sts.AssumeRoleOutput{AssumedRoleUser: &ststypes.AssumedRoleUser{Arn: aws.String("arn:aws:sts::111122223333:assumed-role/bedrock/" + *in.RoleSessionName)},
		Credentials: &ststypes.Credentials{AccessKeyId: aws.String(strings.Repeat("A", 20)), SecretAccessKey: aws.String(strings.Repeat("s", 40)), SessionToken: aws.String(strings.Repeat("t", 1200)),
			Expiration: aws.Time(time.Now().Add(time.Hour))}}, nil
}
