package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"github.com/waybill-dev/waybill"
)

// fakeSTS answers after a while, and counts.
type fakeSTS struct {
	calls   atomic.Int64
	down    atomic.Bool
	tooMany int // tags above which the packed size is too large; 0 means never
	tags    atomic.Int64
}

func (f *fakeSTS) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, _ ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	f.calls.Add(1)
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.down.Load() {
		return nil, errors.New("connection refused")
	}
	if f.tooMany > 0 && len(in.Tags) > f.tooMany {
		return nil, &smithy.GenericAPIError{Code: "PackedPolicyTooLarge", Message: "138%"}
	}
	f.tags.Store(int64(len(in.Tags)))
	return &sts.AssumeRoleOutput{AssumedRoleUser: &ststypes.AssumedRoleUser{Arn: aws.String("arn:" + *in.RoleSessionName)},
		Credentials: &ststypes.Credentials{AccessKeyId: aws.String("ASIAEXAMPLE"), SecretAccessKey: aws.String("s"), SessionToken: aws.String("t"),
			Expiration: aws.Time(time.Now().Add(time.Duration(*in.DurationSeconds) * time.Second))}}, nil
}

func want(name string) waybill.RoleSession {
	return waybill.RoleSession{RoleARN: "arn:aws:iam::111122223333:role/bedrock", SessionName: name, Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}, waybill.Tag{Key: "extra", Value: "x"}), Drop: []string{"extra"}}
}

// However many ask, one AssumeRole is under way; a warm session asks nobody; it is
// renewed before its end, in the background.
func TestOneAssumeRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{})
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if _, err := s.Get(t.Context(), want("user-17")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("%d AssumeRole calls, want 1", n)
		}
		for range 300 { // five hours, a call a minute
			time.Sleep(time.Minute)
			before := time.Now()
			if _, err := s.Get(t.Context(), want("user-17")); err != nil || time.Since(before) > 0 {
				t.Fatalf("a warm call waited %s: %v", time.Since(before), err)
			}
		}
		if n := f.calls.Load(); n < 5 || n > 7 {
			t.Errorf("%d AssumeRole calls in five hours, want one a session", n)
		}
	})
}

// An outage of STS shorter than what is left of a session loses no call of it.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{RefreshBefore: 40 * time.Minute})
		if _, err := s.Get(t.Context(), want("user-17")); err != nil {
			t.Fatal(err)
		}
		f.down.Store(true)
		for range 30 * 60 {
			time.Sleep(time.Second)
			if _, err := s.Get(t.Context(), want("user-17")); err != nil {
				t.Fatalf("a call with a session was lost: %v", err)
			}
		}
		if n := f.calls.Load(); n > 100 {
			t.Errorf("%d AssumeRole calls while STS was down: there is no back-off", n)
		}
		_, err := s.Get(t.Context(), want("somebody-else"))
		if waybill.KindOf(err) != waybill.Unavailable || strings.Contains(err.(*waybill.Error).Message, "arn:") {
			t.Errorf("a caller without a session got %v", err)
		}
		f.down.Store(false)
		time.Sleep(time.Minute)
		if _, err := s.Get(t.Context(), want("somebody-else")); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

func TestOptionalTagsAreGivenUp(t *testing.T) {
	f := &fakeSTS{tooMany: 1}
	s := NewSessions(f, Config{})
	if _, err := s.Get(t.Context(), want("user-17")); err != nil {
		t.Fatal(err)
	}
	if f.tags.Load() != 1 || s.Stats.Dropped.Load() != 1 || f.calls.Load() != 2 {
		t.Errorf("%d tags, %d dropped, %d calls", f.tags.Load(), s.Stats.Dropped.Load(), f.calls.Load())
	}
}

// 10,000 callers: at most one AssumeRole a caller and session, never above the quota.
func TestManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSTS{}
		s := NewSessions(f, Config{PerSecond: 100})
		var wg sync.WaitGroup
		const callers = 10_000
		begin := time.Now()
		for i := range callers {
			wg.Go(func() {
				for range 5 {
					if _, err := s.Get(t.Context(), want(fmt.Sprintf("user-%05d", i))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(begin)
		if n := f.calls.Load(); n != callers || took < 99*time.Second {
			t.Errorf("%d AssumeRole calls in %s: want %d, at most 100 a second", n, took, callers)
		}
		t.Logf("%d callers, %d AssumeRole calls in %s, hit ratio %.2f", callers, f.calls.Load(), took, float64(s.Stats.Hits.Load())/float64(s.Stats.Hits.Load()+s.Stats.Misses.Load()))
	})
}

func TestBounds(t *testing.T) {
	s := NewSessions(&fakeSTS{}, Config{MaxSessions: 10, PerSecond: 10_000})
	for i := range 50 {
		if _, err := s.Get(t.Context(), want(fmt.Sprintf("user-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if s.Len() > 11 {
		t.Errorf("%d sessions are held, want 10", s.Len())
	}
	for _, bad := range []waybill.RoleSession{{SessionName: "x"}, {SessionName: "a b"}, {SessionName: strings.Repeat("a", 65)},
		{SessionName: "ok", Tags: waybill.NewTags(waybill.Tag{Key: "a", Value: "1"}, waybill.Tag{Key: "A", Value: "2"})}, {SessionName: "ok", Tags: waybill.NewTags(waybill.Tag{Key: "aws:x", Value: "1"})}} {
		if _, err := s.Get(t.Context(), bad); waybill.KindOf(err) != waybill.Internal || err == nil {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// Signatures are those that an independent implementation computes.
func TestSignatureVectors(t *testing.T) {
	signer := NewSigner(nil, credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "fixture-session-token"))
	signer.now = func() time.Time { return time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC) }
	body := `{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`
	for path, signature := range map[string]string{
		"/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke":                                                      "f32008b247a8cfc25a400c40e693202f9990ca1f7504923249880b4cd09c4ba7",
		"/model/anthropic.claude-3-haiku-20240307-v1:0/invoke":                                                        "0fa9512bfd8277a39d17abe05ea8b231b8a5cda8e2b21553c552314fb1810e9c",
		"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fabc123def456/invoke": "73f0a9d32760ba344786ca68f0f205ecdce8d8295281c59fb895740a134c9521",
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "https://bedrock-runtime.us-east-1.amazonaws.com"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("User-Agent", "not signed")
		r.Header.Set("X-Amzn-Bedrock-Request-Metadata", `{"team":"search","user":"alice"}`)
		if _, err := signer.Sign(t.Context(), r, []byte(body), "bedrock", "us-east-1", waybill.RoleSession{}); err != nil {
			t.Fatal(err)
		}
		if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+signature) {
			t.Errorf("%s: %s", path, got)
		}
		if r.Header.Get("User-Agent") != "not signed" {
			t.Error("a header was lost")
		}
	}
}
