package credential

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A key is made once for a session and a Region, replaced before it ends, and names the
// session's keys in a presigned request that AWS knows.
func TestShortTermKeys(t *testing.T) {
	s := NewSessions(&fakeSTS{}, Config{})
	defer s.Close()
	held, err := s.Get(t.Context(), want("user-17"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	key := func(region string, at time.Time) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://bedrock-runtime.us-east-1.amazonaws.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Security-Token", "another's")
		if err := held.keys.bearer(t.Context(), r, region, at); err != nil {
			t.Fatal(err)
		}
		if r.Header.Get("X-Amz-Security-Token") != "" {
			t.Error("another's token is sent as well")
		}
		return r.Header.Get("Authorization")
	}
	first := key("us-east-1", now)
	if key("us-east-1", now.Add(10*time.Hour)) != first {
		t.Error("the key of a session changes while it is good")
	}
	second := key("eu-west-1", now)
	if second == first || key("us-east-1", now) != first || key("eu-west-1", now) != second {
		t.Error("a key is not kept for each Region")
	}
	if key("us-east-1", now.Add(11*time.Hour+time.Minute)) == first {
		t.Error("a key is sent at its end")
	}
	for i := range 3 * keptKeys { // more Regions than are kept
		key("region-"+string(rune('a'+i)), now)
	}
	n := 0
	for b := held.keys.bearers.Load(); b != nil; b = b.next {
		n++
	}
	if n > keptKeys {
		t.Errorf("%d keys are kept", n)
	}

	text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(first, "Bearer bedrock-api-key-"))
	if err != nil {
		t.Fatal(err)
	}
	raw, ok := strings.CutPrefix(string(text), "bedrock.amazonaws.com/?")
	q, err := url.ParseQuery(raw)
	if !ok || err != nil || !strings.HasSuffix(raw, "&Version=1") {
		t.Fatalf("the key stands for %s", text)
	}
	c := held.Credentials()
	for name, want := range map[string]string{"Action": "CallWithBearerToken", "X-Amz-Expires": "43200", "X-Amz-Date": "20260501T120000Z", "X-Amz-SignedHeaders": "host",
		"X-Amz-Credential": c.AccessKeyID + "/20260501/us-east-1/bedrock/aws4_request", "X-Amz-Security-Token": c.SessionToken} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, q.Get(name), want)
		}
	}
}
