package credential

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/waybill-dev/waybill"
)

// daySTS gives sessions, and remembers to whom and when.
type daySTS struct {
	mu      sync.Mutex // guards all below
	down    bool
	asked   []time.Time   // every call, in order
	given   []int         // sessions, by caller
	last    []time.Time   // when the last one was given
	expires []time.Time   // of the last one
	closest time.Duration // of two sessions of one caller
	tries   int           // calls while it was down
}

func (f *daySTS) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, _ ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	f.mu.Lock()
	now := time.Now()
	f.asked = append(f.asked, now)
	if f.down {
		f.tries++
		f.mu.Unlock()
		<-ctx.Done() // an outage is silence, at worst
		return nil, ctx.Err()
	}
	f.mu.Unlock()
	time.Sleep(80 * time.Millisecond)
	_, number, _ := strings.Cut(*in.RoleSessionName, "-")
	i, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now = time.Now()
	if f.given[i]++; f.given[i] > 1 {
		f.closest = min(f.closest, now.Sub(f.last[i]))
	}
	f.last[i], f.expires[i] = now, now.Add(time.Duration(*in.DurationSeconds)*time.Second)
	return &sts.AssumeRoleOutput{AssumedRoleUser: &ststypes.AssumedRoleUser{Arn: aws.String("arn:aws:sts::111122223333:assumed-role/bedrock/" + *in.RoleSessionName)},
		Credentials: &ststypes.Credentials{AccessKeyId: aws.String("ASIA"), SecretAccessKey: aws.String("s"), SessionToken: aws.String("t"), Expiration: aws.Time(f.expires[i])}}, nil
}

// busiest is the largest number of calls in any second, wherever it begins.
func busiest(asked []time.Time) (n int) {
	from := 0
	for to := range asked {
		for asked[to].Sub(asked[from]) >= time.Second {
			from++
		}
		n = max(n, to-from+1)
	}
	return n
}

// A day of 10,000 callers who make 50 requests a second each, from a cold start, with
// an outage of STS of half an hour in the afternoon, from the moment when the first
// sessions of the afternoon are due for renewal: the worst there is.
// Every caller is looked at every three or four minutes: of its 50 calls a second one in
// 9,000 or 12,000 is made, and stands for the others, which could only find the same
// session.
//
// What must hold: one AssumeRole a caller and session; none on the path of a call that
// has a session; in no second more than the limit; and the outage loses no call that
// had a session. With the default life and renewal every caller in use has one
// throughout.
//
//	go test -run TestDay -v ./internal/credential
func TestDay(t *testing.T) {
	for _, tt := range []struct {
		name    string
		config  Config
		callers int
		every   int  // seconds between two looks at a caller
		lossy   bool // calls without a session are lost in the outage
	}{
		{"the defaults: an hour, renewed 35 minutes before its end", Config{}, 10_000, 180, false},
		{"an hour, renewed five minutes before its end", Config{RefreshBefore: 5 * time.Minute}, 10_000, 240, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			callers := tt.callers
			if raced || testing.Short() {
				callers = 500
			}
			config := tt.config.withDefaults()
			f := &daySTS{given: make([]int, callers), last: make([]time.Time, callers), expires: make([]time.Time, callers), closest: math.MaxInt64}
			s := NewSessions(f, tt.config)
			wants := make([]waybill.RoleSession, callers)
			for i := range wants {
				wants[i] = want(fmt.Sprintf("user-%d", i))
			}

			begin := time.Now() // the start: everybody at once
			var wg sync.WaitGroup
			for i := range wants {
				wg.Go(func() {
					for range 5 {
						if _, err := s.Get(t.Context(), wants[i]); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			cold := time.Since(begin)
			f.mu.Lock()
			atStart := busiest(f.asked)
			if n := len(f.asked); n != callers {
				t.Errorf("%d AssumeRole calls at the start of %d callers", n, callers)
			}
			f.mu.Unlock()

			afternoon, evening := begin.Add(12*time.Hour), begin.Add(24*time.Hour)
			var outage time.Time
			var made, lost, had, waited int
			for second := 0; time.Now().Before(evening); second++ {
				now := time.Now()
				f.mu.Lock()
				if outage.IsZero() && now.After(afternoon) && f.asked[len(f.asked)-1].After(afternoon) {
					outage = now
				}
				f.down = !outage.IsZero() && now.Before(outage.Add(30*time.Minute))
				f.mu.Unlock()
				for i := second % tt.every; i < callers; i += tt.every {
					now := time.Now()
					f.mu.Lock()
					holds := now.Before(f.expires[i].Add(-config.Margin))
					f.mu.Unlock()
					got, err := s.Get(t.Context(), wants[i])
					made++
					switch {
					case err != nil && holds:
						had++
					case err != nil:
						lost++
						var told *waybill.Error
						if !errors.As(err, &told) || told.Kind != waybill.Unavailable {
							t.Fatal(err)
						}
					case !strings.HasSuffix(got.PrincipalARN, "/"+wants[i].SessionName) || !now.Before(got.Expires):
						t.Fatalf("%s got %s, which ends in %s", wants[i].SessionName, got, time.Until(got.Expires))
					}
					if holds && time.Since(now) > 0 {
						waited++
					}
				}
				time.Sleep(max(0, time.Until(begin.Add(cold).Add(time.Duration(second+1)*time.Second))))
			}
			s.Close()

			total, most := 0, 0
			for _, n := range f.given {
				total, most = total+n, max(most, n)
			}
			least := config.Life - config.RefreshBefore - config.Jitter // of a session's use
			st := s.Stats()
			t.Logf("%s: %d callers, %.1f billion calls stood for by %.1f million", tt.name, callers, float64(made)*50*float64(tt.every)/1e9, float64(made)/1e6)
			t.Logf("  start: %d AssumeRole calls in %s, at most %d in any second (limit %g)", callers, cold.Round(100*time.Millisecond), atStart, config.PerSecond)
			t.Logf("  day: %d sessions, %.2f a caller and hour, at most %d a caller, at least %s apart; at most %d calls in any second", total, float64(total)/float64(callers)/24, most, f.closest.Round(time.Second), busiest(f.asked))
			t.Logf("  calls that waited for STS though they had a session: %d; hit ratio of the sample %.6f", waited, st.HitRatio())
			t.Logf("  outage of 30 minutes: %d calls to STS; calls lost that had a session: %d; that had none: %d of %d (all calls: %.4f %%)", f.tries, had, lost, made, 100*float64(lost)/float64(made))
			if f.closest < least-time.Second {
				t.Errorf("two sessions of a caller were made within %s: want one in %s", f.closest, least)
			}
			if limit := int(24*time.Hour/least) + 1; most > limit {
				t.Errorf("a caller had %d sessions, want at most %d", most, limit)
			}
			if n := busiest(f.asked); n > int(config.PerSecond) {
				t.Errorf("%d calls to STS in a second, the limit is %g", n, config.PerSecond)
			}
			if had > 0 || waited > 0 {
				t.Errorf("%d calls that had a session were lost, %d waited", had, waited)
			}
			if (lost > 0) != tt.lossy {
				t.Errorf("%d calls were lost in the outage", lost)
			}
			if f.tries == 0 || f.tries > 600 {
				t.Errorf("%d calls to STS while it was away", f.tries)
			}
		})
	}
}
