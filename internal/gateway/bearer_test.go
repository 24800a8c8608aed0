package gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/credential"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// A forgetter counts the sessions that are to be forgotten.
type forgetter struct {
	gateway.Signer
	times atomic.Int64
}

func (f *forgetter) Forget(s waybill.RoleSession) {
	f.times.Add(1)
	f.Signer.Forget(s)
}

// A short-term key that AWS does not take is the gateway's business, as a signature is:
// the session is forgotten once, the call tried once more, and the caller sees nothing of
// it. What AWS refuses the caller's call for passes as it is, and so does all with
// signatures.
func TestOurKeyIsRefused(t *testing.T) {
	const arn = "User: arn:aws:sts::111122223333:assumed-role/bedrock-prod/user-17"
	for _, tt := range []struct {
		name, path, body string
		status           int
		said             string
		ours             bool
	}{
		{"not valid", answerPath, hello, 403, `{"message":"Authentication failed: Please make sure your API Key is valid."}`, true},
		{"expired", answerPath, hello, 403, `{"Message":"Bearer Token has expired"}`, true},
		{"keys are not allowed", answerPath, hello, 403, `{"message":"` + arn + ` is not authorized to perform: bedrock:CallWithBearerToken with an explicit deny"}`, true},
		{"mantle", "/v1/chat/completions", chat, 401, `{"error":{"message":"Incorrect API key provided: bedrock-api-key-YmVk","type":"invalid_request_error","code":"invalid_api_key","param":null}}`, true},
		{"mantle, keys are not allowed", "/v1/chat/completions", chat, 403, `{"error":{"message":"` + arn + ` is not authorized to perform: bedrock-mantle:CallWithBearerToken on resource: x","type":"invalid_request_error","code":"permission_denied"}}`, true},
		{"mantle's front door", "/v1/chat/completions", chat, 401, `{"message":"Authentication failed"}`, true},
		{"mantle says nothing", "/v1/chat/completions", chat, 401, ``, true},
		{"Messages", messagesPath, messages, 401, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`, true},
		{"not valid on Messages", messagesPath, messages, 403, `{"type":"error","error":{"type":"permission_error","message":"Please make sure your API Key is valid."}}`, true},
		{"the model is not allowed", answerPath, hello, 403, `{"message":"` + arn + ` is not authorized to perform: bedrock:InvokeModel on resource: arn:aws:bedrock:us-east-1::foundation-model/x"}`, false},
		{"the model is not allowed, and named after a key", answerPath, hello, 403, `{"message":"` + arn + ` is not authorized to perform: bedrock:InvokeModel on resource: api-key:CallWithBearerToken"}`, false},
		{"no access", answerPath, hello, 403, `{"message":"You don't have access to the model with the specified model ID."}`, false},
		{"not valid, the body", answerPath, hello, 400, `{"message":"the field api key is not known"}`, false},
		{"a page", answerPath, hello, 403, `<html>api key</html>`, false},
	} {
		for _, signing := range []string{"bearer", "sigv4"} {
			t.Run(tt.name+" "+signing, func(t *testing.T) {
				s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
					c.Upstream = map[waybill.Endpoint]string{waybill.Runtime: "http://aws", waybill.Mantle: "http://aws"}
				})
				s.sign(t, credential.Config{Young: time.Nanosecond})
				signer, ok := s.gw.Signer.(*credential.Signer)
				if !ok {
					t.Fatalf("the signer is %T", s.gw.Signer)
				}
				if signing == "bearer" {
					signer.UseKeys()
				}
				count := &forgetter{Signer: signer}
				c := &catcher{answer: func(r *http.Request) (*http.Response, error) { return answered(r, tt.status, tt.said), nil }}
				s.gw.Signer, s.gw.Client = count, c
				a, text := s.post(t, tt.path, tt.body, nil)
				r := s.records(t)[0]
				if !tt.ours || signing == "sigv4" {
					if a.StatusCode != tt.status || text != tt.said || len(c.sent) != 1 || count.times.Load() != 0 {
						t.Errorf("%d %s after %d tries, %d sessions were forgotten", a.StatusCode, text, len(c.sent), count.times.Load())
					}
					return
				}
				if a.StatusCode != 503 || a.Header.Get("X-Waybill-Error") != "WB1403" || r.ErrorCode != "WB1403" || r.Usage != waybill.NewUsage() {
					t.Errorf("%d %s, recorded as %s, %v", a.StatusCode, text, r.ErrorCode, r.Usage)
				}
				if strings.Contains(text, "arn:") || strings.Contains(strings.ToLower(text), "key") || strings.Contains(text, "oken") {
					t.Errorf("the caller sees %s", text)
				}
				if len(c.sent) != 2 || count.times.Load() != 1 || c.sent[0].header.Get("Authorization") == c.sent[1].header.Get("Authorization") {
					t.Errorf("%d tries, %d sessions were forgotten, the second key is another: %v", len(c.sent), count.times.Load(), len(c.sent) == 2)
				}
			})
		}
	}
}

// A key that AWS does not take any more is replaced, and the caller sees the answer.
func TestOurKeyIsReplaced(t *testing.T) {
	var skew atomic.Int64
	s := newStand(t, func(f *fakeaws.Config, _ *gateway.Config) {
		f.RealNow = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	s.sign(t, credential.Config{Young: time.Nanosecond})
	signer, ok := s.gw.Signer.(*credential.Signer)
	if !ok {
		t.Fatalf("the signer is %T", s.gw.Signer)
	}
	signer.UseKeys()
	if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, text)
	}
	n := len(s.world.Assumptions())
	skew.Store(int64(-6 * time.Minute)) // the key is of the future
	if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != 503 || !strings.Contains(text, "WB140") {
		t.Errorf("%d %s", a.StatusCode, text)
	}
	skew.Store(0)
	until(t, "a new key is taken", func() bool { a, _ := s.post(t, answerPath, hello, nil); return a.StatusCode == 200 })
	if len(s.world.Assumptions()) == n {
		t.Error("the session of the refused key is used on")
	}
}
