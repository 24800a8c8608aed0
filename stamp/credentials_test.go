package stamp_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/stamp"
)

func (s *stand) sts() *sts.Client {
	return sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: aws.String(s.url),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLECHECKOUT", "secret", ""),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})})
}

// The session is named and tagged by the policy, made once however many calls begin
// together, and agrees with the calls' metadata.
func TestSessionIsTagged(t *testing.T) {
	s := newStand(t, nil)
	stamper := newStamper(t, compliant())
	session, err := stamper.Credentials(s.sts(), prodRole)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			// A client for each: streams of one client race within the SDK (smithy-go v1.28.8).
			client := s.client(stamper.Options, func(o *bedrockruntime.Options) { o.Credentials = session })
			w := spending[i%len(spending)]
			if err := w.call(stamp.WithTags(t.Context(), waybill.Tag{Key: "feature", Value: "summary"}), client, map[string]string{"team": "ads"}); err != nil {
				t.Errorf("%s: %v", w.operation, err)
			}
		})
	}
	wg.Wait()
	want := map[string]string{"team": "search", "environment": "production", "user": "user-17"}
	assumed := s.world.Assumptions()
	if len(assumed) != 1 {
		t.Fatalf("%d AssumeRole calls, want 1", len(assumed))
	}
	if a := assumed[0]; a.SessionName != "user-17" || a.RoleARN != prodRole || a.Caller != processARN {
		t.Errorf("the session is %+v", a)
	}
	if diff := cmp.Diff(want, assumed[0].Tags); diff != "" {
		t.Errorf("session tags (-want +got):\n%s", diff)
	}
	for _, c := range s.world.Calls() {
		if c.PrincipalARN != "arn:aws:sts::"+account+":assumed-role/bedrock-prod/user-17" || c.SessionTags["team"] != "search" {
			t.Errorf("%s was made as %s with %v", c.Operation, c.PrincipalARN, c.SessionTags)
		}
		if c.Metadata["feature"] != "summary" || c.SessionTags["feature"] != "" {
			t.Errorf("%s: feature is %q on the request and %q on the session, want it on the request alone", c.Operation, c.Metadata["feature"], c.SessionTags["feature"])
		}
	}
}

// Credentials that are renewed keep name and tags.
func TestSessionIsRenewed(t *testing.T) {
	s := newStand(t, nil)
	session, err := newStamper(t, compliant()).Credentials(s.sts(), prodRole)
	if err != nil {
		t.Fatal(err)
	}
	var got []aws.Credentials
	for range 3 {
		c, err := session.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
		if len(got) == 2 {
			session.Invalidate() // as when AWS refuses them
		}
	}
	if got[0] != got[1] || got[1] == got[2] {
		t.Error("the session was not kept, or not renewed")
	}
	if life := time.Until(got[0].Expires); life < 55*time.Minute || life > time.Hour {
		t.Errorf("the session is held for %s, want nearly an hour", life)
	}
	a := s.world.Assumptions()
	if len(a) != 2 || a[0].SessionName != a[1].SessionName || !cmp.Equal(a[0].Tags, a[1].Tags) {
		t.Errorf("assumed %+v", a)
	}
}

// Options reach STS; name and tags do not change with them.
func TestSessionOptions(t *testing.T) {
	s := newStand(t, func(c *fakeaws.Config) {
		c.Roles[0].ExternalID, c.Roles[0].MaxSession = "external-1", 2*time.Hour
	})
	session, err := newStamper(t, compliant()).Credentials(s.sts(), prodRole, func(o *stscreds.AssumeRoleOptions) {
		o.ExternalID, o.Duration, o.RoleSessionName, o.Tags = aws.String("external-1"), 2*time.Hour, "somebody-else", nil
		o.TransitiveTagKeys = []string{"team", "unheard-of"}
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := session.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := s.world.Assumptions()[0]
	if a.SessionName != "user-17" || len(a.Tags) != 3 || time.Until(c.Expires) < 110*time.Minute {
		t.Errorf("assumed %+v until %s", a, c.Expires)
	}
	if diff := cmp.Diff([]string{"team"}, a.Transitive); diff != "" {
		t.Errorf("transitive keys (-want +got):\n%s", diff)
	}
}

// Where STS has no room for the tags, the optional ones are given up and the required
// ones stay.
func TestSessionGivesUpOptionalTags(t *testing.T) {
	s := newStand(t, nil)
	long := strings.Repeat("x", 250)
	c := compliant()
	c.Policy = []byte(strings.Replace(tagPolicy, "  keys:\n", "  keys:\n    a: {carriers: [session]}\n    b: {carriers: [session]}\n    c: {carriers: [session]}\n    d: {carriers: [session]}\n    e: {carriers: [session]}\n", 1))
	c.Tags = waybill.NewTags(searchTeam, waybill.Tag{Key: "a", Value: long}, waybill.Tag{Key: "b", Value: long}, waybill.Tag{Key: "c", Value: long}, waybill.Tag{Key: "d", Value: long}, waybill.Tag{Key: "e", Value: long})
	session, err := newStamper(t, c).Credentials(s.sts(), prodRole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Retrieve(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := s.world.Assumptions()
	if len(a) != 1 || a[0].Tags["team"] != "search" || a[0].Tags["e"] != "" {
		t.Errorf("assumed %+v", a)
	}
}

// The policy refuses a session for what rides on it, and for that alone.
func TestSessionRefused(t *testing.T) {
	s := newStand(t, nil)
	c := compliant()
	c.Tags = waybill.NewTags(waybill.Tag{Key: "environment", Value: "moonbase"}, waybill.Tag{Key: "costCenter", Value: "4711"})
	_, err := newStamper(t, c).Credentials(s.sts(), prodRole)
	if e, ok := errors.AsType[*waybill.Error](err); !ok || e.Kind != waybill.Denied {
		t.Fatalf("error is %v, want a refusal", err)
	}
	for _, want := range []string{`"team"`, "search, ads", `"environment"`, "production, staging", "stamp.Config.Tags"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %s: %v", want, err)
		}
	}
	for _, never := range []string{"costCenter", "moonbase", "4711", "X-Waybill-Tags"} {
		if strings.Contains(err.Error(), never) {
			t.Errorf("error says %s: %v", never, err)
		}
	}
	c.Policy = []byte("mode: warn" + tagPolicy)
	if _, err := newStamper(t, c).Credentials(s.sts(), prodRole); err != nil {
		t.Errorf("in a mode that refuses nothing: %v", err)
	}
}

// What STS refuses is told as STS told it, with the role.
func TestSTSRefuses(t *testing.T) {
	s := newStand(t, func(c *fakeaws.Config) { c.Roles[0].NoTagging = true })
	stamper := newStamper(t, compliant())
	session, err := stamper.Credentials(s.sts(), prodRole)
	if err != nil {
		t.Fatal(err)
	}
	err = spending[0].call(t.Context(), s.client(stamper.Options, func(o *bedrockruntime.Options) { o.Credentials = session }), nil)
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "AccessDenied" {
		t.Errorf("error is %v, want AccessDenied", err)
	}
	if text := fmt.Sprint(err); !strings.Contains(text, prodRole) || !strings.Contains(text, "sts:TagSession") {
		t.Errorf("error does not name the role and the action: %v", err)
	}
	if n := len(s.left()); n > 0 {
		t.Errorf("%d requests left", n)
	}
}
