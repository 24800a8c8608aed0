package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// Whatever STS says, callers are told what it means for them and never a role's ARN;
// operators are told what to do.
func TestExplain(t *testing.T) {
	const user = "User: arn:aws:iam::111122223333:user/gateway is not authorized to perform: "
	for _, tt := range []struct {
		status        int
		code, message string
		answer        answer
		kind          waybill.ErrorKind
		said, remedy  string
	}{
		{403, "AccessDenied", user + "sts:AssumeRole on resource: " + roleARN, refused, waybill.Unavailable, "may not assume", "check that the role exists"},
		{403, "AccessDenied", user + "sts:TagSession on resource: " + roleARN, refused, waybill.Unavailable, "may not tag", "allow sts:TagSession"},
		{403, "AccessDenied", user + "sts:SetSourceIdentity on resource: " + roleARN, refused, waybill.Unavailable, "source identity", "allow sts:SetSourceIdentity"},
		{403, "AccessDenied", user + "sts:AssumeRole on resource: " + roleARN + " with an explicit deny in a service control policy", refused, waybill.Unavailable, "may not assume", "service control policy"},
		{403, "AccessDenied", "User: arn:aws:sts::111122223333:assumed-role/bedrock/task is not authorized to perform: sts:AssumeRole on resource: " + roleARN, refused, waybill.Unavailable, "may not assume", "must name itself"},
		{400, "ValidationError", "1 validation error detected", refused, waybill.Unavailable, "does not accept", "limits"},
		{400, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining", tooLong, waybill.Unavailable, "does not accept", "an hour at most"},
		{400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.", tooLong, waybill.Unavailable, "does not accept", "MaxSessionDuration"},
		{400, "MalformedPolicyDocument", "", refused, waybill.Unavailable, "does not accept", "session policy"},
		{400, "PackedPolicyTooLarge", "Packed size of session tags consumes 138% of allotted space.", tooLarge, waybill.Invalid, "do not fit", "fewer or shorter"},
		{400, "InvalidParameterValue", "Duplicate tag keys found.", refused, waybill.Unavailable, "does not accept", "collides"},
		{403, "RegionDisabledException", "", unanswered, waybill.Unavailable, "at the moment", "activate"},
		{403, "ExpiredToken", "", unanswered, waybill.Unavailable, "expired", "refresh"},
		{400, "ExpiredTokenException", "", unanswered, waybill.Unavailable, "expired", "web identity"},
		{400, "InvalidIdentityToken", "", unanswered, waybill.Unavailable, "at the moment", "web identity"},
		{403, "IDPRejectedClaim", "", unanswered, waybill.Unavailable, "at the moment", "identity provider"},
		{400, "IDPCommunicationError", "", unanswered, waybill.Unavailable, "at the moment", "identity provider"},
		{403, "InvalidClientTokenId", "", unanswered, waybill.Unavailable, "does not know", "access key"},
		{403, "SignatureDoesNotMatch", "", unanswered, waybill.Unavailable, "signature", "clock"},
		{403, "MissingAuthenticationToken", "", unanswered, waybill.Unavailable, "signature", "proxy"},
		{400, "IncompleteSignature", "", unanswered, waybill.Unavailable, "signature", "proxy"},
		{400, "Throttling", "Rate exceeded", throttled, waybill.Unavailable, "at the moment", "perSecond"},
		{400, "RequestLimitExceeded", "", throttled, waybill.Unavailable, "at the moment", "perSecond"},
		{503, "ServiceUnavailable", "", unanswered, waybill.Unavailable, "at the moment", "asked again"},
		{500, "InternalFailure", "", unanswered, waybill.Unavailable, "at the moment", "asked again"},
		{502, "", "bad gateway", unanswered, waybill.Unavailable, "at the moment", ""},
		{400, "SomethingNew", "", refused, waybill.Unavailable, "at the moment", ""},
	} {
		err := refusal(tt.status, tt.code, tt.message)
		if got := verdict(err); got != tt.answer {
			t.Errorf("%s %q: verdict %d, want %d", tt.code, tt.message, got, tt.answer)
		}
		w := want("user-17")
		told, ok := errors.AsType[*waybill.Error](explain(err, &w))
		if !ok || told.Kind != tt.kind || !strings.Contains(told.Message, tt.said) || !strings.Contains(told.Err.Error(), tt.remedy) || !errors.Is(told, err) {
			t.Errorf("%s %q: %+v", tt.code, tt.message, told)
			continue
		}
		if strings.Contains(told.Message+told.Hint, "arn:") || strings.Contains(told.Message+told.Hint, "user/gateway") {
			t.Errorf("%s: callers are told %q", tt.code, told.Message)
		}
	}
	if got := verdict(context.DeadlineExceeded); got != unanswered {
		t.Errorf("a timeout: verdict %d", got)
	}
}

// What STS could not take is not sent.
func TestChecks(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for name, change := range map[string]func(*waybill.RoleSession){
		"no role":             func(w *waybill.RoleSession) { w.RoleARN = "" },
		"a user":              func(w *waybill.RoleSession) { w.RoleARN = "arn:aws:iam::111122223333:user/someone" },
		"short name":          func(w *waybill.RoleSession) { w.SessionName = "x" },
		"long name":           func(w *waybill.RoleSession) { w.SessionName = long[:65] },
		"name with a blank":   func(w *waybill.RoleSession) { w.SessionName = "a b" },
		"name not ASCII":      func(w *waybill.RoleSession) { w.SessionName = "müller" },
		"short source":        func(w *waybill.RoleSession) { w.SourceIdentity = "x" },
		"long source":         func(w *waybill.RoleSession) { w.SourceIdentity = long[:65] },
		"reserved source":     func(w *waybill.RoleSession) { w.SourceIdentity = "AWS:x" },
		"source with a slash": func(w *waybill.RoleSession) { w.SourceIdentity = "a/b" },
		"short external id":   func(w *waybill.RoleSession) { w.ExternalID = "x" },
		"long external id":    func(w *waybill.RoleSession) { w.ExternalID = long[:1225] },
		"external id, blank":  func(w *waybill.RoleSession) { w.ExternalID = "a b" },
		"51 tags":             func(w *waybill.RoleSession) { w.Tags = manyTags(51) },
		"51 transitive":       func(w *waybill.RoleSession) { w.Transitive = slices.Repeat([]string{"team"}, 51) },
		"keys that differ": func(w *waybill.RoleSession) {
			w.Tags = waybill.TagsFromMap(map[string]string{"team": "a", "Team": "b"})
		},
		"reserved key":         func(w *waybill.RoleSession) { w.Tags = waybill.TagsFromMap(map[string]string{"AWS:x": "a"}) },
		"empty key":            func(w *waybill.RoleSession) { w.Tags = waybill.TagsFromMap(map[string]string{"": "a"}) },
		"long key":             func(w *waybill.RoleSession) { w.Tags = waybill.TagsFromMap(map[string]string{long[:129]: "a"}) },
		"long value":           func(w *waybill.RoleSession) { w.Tags = waybill.TagsFromMap(map[string]string{"a": long[:257]}) },
		"value with a comma":   func(w *waybill.RoleSession) { w.Tags = waybill.TagsFromMap(map[string]string{"a": "b,c"}) },
		"value not UTF-8":      func(w *waybill.RoleSession) { w.Tags = waybill.TagsFromMap(map[string]string{"a": "\xff"}) },
		"value with a newline": func(w *waybill.RoleSession) { w.Tags = waybill.TagsFromMap(map[string]string{"a": "b\nc"}) },
	} {
		f := &fakeSTS{}
		s := NewSessions(f, Config{})
		w := want("user-17")
		change(&w)
		_, err := s.Get(t.Context(), w)
		told, ok := errors.AsType[*waybill.Error](err)
		if !ok || told.Kind != waybill.Internal || told.Code != "WB1402" || f.calls() != 0 || strings.Contains(told.Error(), "müller") || strings.Contains(told.Error(), "xxx") {
			t.Errorf("%s: %v after %d calls", name, err, f.calls())
		}
		if n := s.Stats().Sessions; n != 0 {
			t.Errorf("%s: %d sessions are held", name, n)
		}
	}
	all := waybill.RoleSession{RoleARN: roleARN, SessionName: long[:64], SourceIdentity: "Az09_+=,.@-", ExternalID: "a:/b", Tags: waybill.TagsFromMap(map[string]string{long[:128]: strings.Repeat("é", 256), "b": "", "c d": "a_.:/=+-@ 1"})}
	if err := checkSession(&all); err != nil {
		t.Errorf("all that STS takes: %v", err)
	}
}

func manyTags(n int) waybill.Tags {
	m := make(map[string]string)
	for i := range n {
		m[fmt.Sprint("key", i)] = "v"
	}
	return waybill.TagsFromMap(m)
}

// The regional STS is asked, also in us-east-1, and once: what is retried is counted.
func TestRegionalEndpoint(t *testing.T) {
	for region, hosts := range map[string][2]string{
		"eu-west-1":  {"https://sts.eu-west-1.amazonaws.com/", "http://127.0.0.1:1/eu-west-1"},
		"us-east-1":  {"https://sts.us-east-1.amazonaws.com/", "http://127.0.0.1:1/us-east-1"},
		"cn-north-1": {"https://sts.cn-north-1.amazonaws.com.cn/", "http://127.0.0.1:1/cn-north-1"},
	} {
		for i, endpoint := range []string{"", "http://127.0.0.1:1/{region}"} {
			var asked []string
			config := aws.Config{Region: region, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
				HTTPClient: roundTrip(func(r *http.Request) (*http.Response, error) {
					asked = append(asked, r.URL.String())
					return &http.Response{StatusCode: 500, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
				})}
			NewSTS(config, endpoint).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("user-17")})
			if len(asked) != 1 || asked[0] != hosts[i] {
				t.Errorf("%s: asked %v, want once %s", region, asked, hosts[i])
			}
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

const (
	gatewayUser = "arn:aws:iam::111122223333:user/gateway"
	taskRole    = "arn:aws:iam::111122223333:role/ecs/task"
	longRole    = "arn:aws:iam::444455556666:role/long"
)

// world starts the strict stand-in, and gives a client with the credentials of a user,
// or of a role's session.
func world(t *testing.T, asRole string, change func(*fakeaws.Config)) (*fakeaws.World, *sts.Client) {
	t.Helper()
	c := fakeaws.Config{Users: []fakeaws.User{{ARN: gatewayUser, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}},
		Roles: []fakeaws.Role{{ARN: roleARN, Trusted: []string{gatewayUser, taskRole}}, {ARN: longRole, MaxSession: 12 * time.Hour, Trusted: []string{gatewayUser, taskRole}},
			{ARN: taskRole, Trusted: []string{gatewayUser}}}}
	if change != nil {
		change(&c)
	}
	w := fakeaws.NewWorld(c)
	url, stop, err := w.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	config := aws.Config{Region: "eu-west-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}
	if asRole != "" {
		out, err := NewSTS(config, url).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &asRole, RoleSessionName: aws.String("task-1")})
		if err != nil {
			t.Fatal(err)
		}
		config.Credentials = credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	}
	return w, NewSTS(config, url)
}

// All that makes a session reaches STS, at the Region's endpoint.
func TestWhatReachesSTS(t *testing.T) {
	w, client := world(t, "", func(c *fakeaws.Config) { c.Roles[0].ExternalID = "waybill:search/1" })
	s := NewSessions(client, Config{})
	defer s.Close()
	got, err := s.Get(t.Context(), waybill.RoleSession{RoleARN: roleARN, SessionName: "user-17", SourceIdentity: "user-17", ExternalID: "waybill:search/1",
		Tags: waybill.TagsFromMap(map[string]string{"team": "search", "environment": "production"}), Transitive: []string{"team", "feature"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.PrincipalARN != "arn:aws:sts::111122223333:assumed-role/bedrock/user-17" {
		t.Errorf("the principal is %s", got.PrincipalARN)
	}
	a := w.Assumptions()
	if len(a) != 1 || a[0].SourceIdentity != "user-17" || a[0].Tags["team"] != "search" || a[0].Tags["environment"] != "production" || len(a[0].Tags) != 2 ||
		!slices.Equal(a[0].Transitive, []string{"team"}) || a[0].Region != "eu-west-1" || a[0].Seconds != 3600 {
		t.Errorf("STS saw %+v", a)
	}
	if _, err := s.Get(t.Context(), waybill.RoleSession{RoleARN: roleARN, SessionName: "user-17", ExternalID: "another"}); waybill.KindOf(err) != waybill.Unavailable || !strings.Contains(err.Error(), "external id") {
		t.Errorf("another external id: %v", err)
	}
}

// A life that STS does not give is cut to an hour, once, and said so once: because our
// own credentials are a role session, or because of the role.
func TestLife(t *testing.T) {
	for _, tt := range []struct {
		name         string
		base, target string
		seconds      int
		chained      bool
		logged       string
	}{
		{"a user, a role that gives twelve hours", "", longRole, 43200, false, ""},
		{"a user, a role that gives one", "", roleARN, 3600, false, "a role does not give sessions as long as sessions.life"},
		{"a task's role: chained", taskRole, longRole, 3600, true, "credentials are a role session"},
	} {
		for _, knows := range []bool{true, false} { // GetCallerIdentity can tell beforehand
			var log bytes.Buffer
			w, client := world(t, tt.base, nil)
			var asker Assumer = client
			if !knows {
				asker = onlyAssume{client}
			}
			s := NewSessions(asker, Config{Life: 12 * time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil))})
			for _, name := range []string{"user-17", "user-18"} {
				got, err := s.Get(t.Context(), waybill.RoleSession{RoleARN: tt.target, SessionName: name})
				if err != nil {
					t.Fatalf("%s: %v", tt.name, err)
				}
				if left := time.Until(got.Expires).Seconds(); left > float64(tt.seconds) || left < float64(tt.seconds)-60 {
					t.Errorf("%s: the session lasts %.0f s, want %d", tt.name, left, tt.seconds)
				}
			}
			s.Close()
			a := w.Assumptions()
			if last := a[len(a)-1]; last.Seconds != tt.seconds || s.Stats().Chained != tt.chained {
				t.Errorf("%s: asked for %d s, chained %v", tt.name, last.Seconds, s.Stats().Chained)
			}
			if n := strings.Count(log.String(), "level=WARN"); tt.logged == "" && n != 0 || tt.logged != "" && (n != 1 || !strings.Contains(log.String(), tt.logged)) {
				t.Errorf("%s: logged %s", tt.name, log.String())
			}
			if calls := s.Stats().LastHour; calls > 4 { // whose credentials, a refusal, and two sessions
				t.Errorf("%s: %d calls for two sessions", tt.name, calls)
			}
		}
	}
}

type onlyAssume struct{ Assumer }

// A role that runs the gateway may be the role that calls are made under, where it
// trusts itself.
func TestSelfAssume(t *testing.T) {
	for _, trusts := range []bool{true, false} {
		w, client := world(t, taskRole, func(c *fakeaws.Config) {
			if trusts {
				c.Roles[2].Trusted = append(c.Roles[2].Trusted, taskRole)
			}
		})
		s := NewSessions(client, Config{})
		got, err := s.Get(t.Context(), waybill.RoleSession{RoleARN: taskRole, SessionName: "user-17", Tags: waybill.TagsFromMap(map[string]string{"team": "search"})})
		switch a := w.Assumptions(); {
		case trusts && (err != nil || got.PrincipalARN != "arn:aws:sts::111122223333:assumed-role/task/user-17" || a[len(a)-1].Tags["team"] != "search"):
			t.Errorf("%v, %v", got, err)
		case !trusts && (err == nil || !strings.Contains(err.Error(), "must name itself in its trust policy")):
			t.Errorf("without its own trust: %v", err)
		}
		s.Close()
	}
}

// Which tags a call does not carry reaches who signs it.
func TestDroppedReachesTheCaller(t *testing.T) {
	w, client := world(t, "", nil)
	s := NewSessions(client, Config{})
	defer s.Close()
	long := strings.Repeat("x", 250)
	ask := waybill.RoleSession{RoleARN: roleARN, SessionName: "user-17", Drop: []string{"note", "feature"}, Transitive: []string{"team"},
		Tags: waybill.TagsFromMap(map[string]string{"team": long, "application": long, "costCenter": long, "feature": long, "note": long})}
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://bedrock-runtime.us-east-1.amazonaws.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := NewSigner(s, nil).SignCall(t.Context(), r, nil, "bedrock", "us-east-1", ask)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(signed.Dropped, []string{"note"}) || !strings.HasSuffix(signed.PrincipalARN, "/bedrock/user-17") || r.Header.Get("Authorization") == "" {
		t.Errorf("signed %+v", signed)
	}
	a := w.Assumptions()
	if len(a) != 1 || len(a[0].Tags) != 4 || a[0].Tags["note"] != "" {
		t.Errorf("STS saw %+v", a)
	}
	if st := s.Stats(); st.TooLarge != 1 || st.Dropped != 1 || st.Packed < 80 {
		t.Errorf("stats %+v", st)
	}
}

// The stand-in's outage, over HTTP: nothing is lost that is held, and STS is asked
// gently until it is back.
func TestOutageOverHTTP(t *testing.T) {
	w, client := world(t, "", nil)
	s := NewSessions(client, Config{Backoff: 2 * time.Millisecond, MaxBackoff: 20 * time.Millisecond, WarmUp: time.Millisecond})
	defer s.Close()
	if _, err := s.Get(t.Context(), want("user-17")); err != nil {
		t.Fatal(err)
	}
	w.BreakSTS(true)
	if _, err := s.Get(t.Context(), want("user-18")); waybill.KindOf(err) != waybill.Unavailable {
		t.Errorf("a newcomer in the outage: %v", err)
	}
	if _, err := s.Get(t.Context(), want("user-17")); err != nil {
		t.Errorf("who has a session: %v", err)
	}
	w.BreakSTS(false)
	err := errors.New("not asked")
	for begin := time.Now(); err != nil && time.Since(begin) < 10*time.Second; { // until the back-off is over
		_, err = s.Get(t.Context(), want("user-18"))
	}
	if err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// The metrics tell an operator how near the quota is.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(&fakeSTS{}, Config{PerSecond: 20})
		defer s.Close()
		for i := range 5 {
			s.Get(t.Context(), want(fmt.Sprintf("user-%d", i)))
			s.Get(t.Context(), want(fmt.Sprintf("user-%d", i)))
		}
		st := s.Stats()
		if st.LastHour != 5 || st.HitRatio() != 0.5 || st.BusiestSecond < 2 || st.BusiestSecond > 5 || st.Headroom != 1-float64(st.BusiestSecond)/20 || st.Allowed >= 20 || st.Sessions != 5 {
			t.Errorf("%+v", st)
		}
		time.Sleep(2 * time.Minute)
		if st = s.Stats(); st.BusiestSecond != 0 || st.Headroom != 1 || st.LastHour != 5 || st.Allowed != 20 {
			t.Errorf("two minutes later: %+v", st)
		}
		time.Sleep(time.Hour)
		if st = s.Stats(); st.LastHour != 0 {
			t.Errorf("an hour later: %+v", st)
		}
		if (Stats{}).HitRatio() != 1 {
			t.Error("nothing asked is nothing missed")
		}
	})
}
