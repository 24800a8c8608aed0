package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

const (
	messagesPath = "/anthropic/v1/messages"
	messages     = `{"model":"anthropic.claude-haiku-4-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`
)

// shapes are one path of each family of APIs.
var shapes = map[string]struct{ path, body string }{
	"AWS":        {answerPath, hello},
	"AWS stream": {streamPath, hello},
	"OpenAI":     {chatPath, chat},
	"Anthropic":  {messagesPath, messages},
}

// What AWS says of a failed call reaches the caller byte for byte, with its headers, and
// the record knows what it is: what AWS refused has used nothing, of what it failed at
// nobody knows.
func TestErrorsPassAsTheyAre(t *testing.T) {
	noGrowth(t)
	type failure struct {
		name, shape string
		status      int
		header      string // lines
		body        string
		length      bool // Content-Length, or else chunks
		code        string
		known       bool
	}
	awsError := func(kind string) string {
		return "Content-Type: application/json\r\nx-amzn-ErrorType: " + kind + ":http://internal.amazon.com/coral/com.amazon.bedrock/\r\nx-amzn-RequestId: 0a-1\r\n"
	}
	failures := []failure{
		{"throttled", "AWS", 429, awsError("ThrottlingException") + "Retry-After: 7\r\n", `{"message":"Too many tokens, please wait before trying again."}`, true, "ThrottlingException", true},
		{"throttled", "AWS stream", 429, awsError("ThrottlingException"), `{"message":"Too many requests"}`, false, "ThrottlingException", true},
		{"not valid", "AWS", 400, awsError("ValidationException"), `{"message":"1 validation error detected: \u00e4 "}`, true, "ValidationException", true},
		{"not valid, and long", "AWS", 400, awsError("ValidationException"), `{"message":"` + strings.Repeat("x", 10_000) + `"}`, false, "ValidationException", true},
		{"denied", "AWS", 403, awsError("AccessDeniedException"), `{"Message":"User: arn:aws:sts::111122223333:assumed-role/bedrock-prod/user-17 is not authorized to perform: bedrock:InvokeModel"}`, true, "AccessDeniedException", true},
		{"denied, told in the body", "AWS", 403, "Content-Type: application/x-amz-json-1.1\r\n", `{"__type":"com.amazon#AccessDeniedException","message":"no"}`, true, "", true},
		{"not found", "AWS", 404, awsError("ResourceNotFoundException"), `{"message":"no such model"}`, true, "ResourceNotFoundException", true},
		{"timed out", "AWS", 408, awsError("ModelTimeoutException"), `{"message":"timeout"}`, true, "ModelTimeoutException", false},
		{"the model failed", "AWS", 424, awsError("ModelErrorException"), `{"message":"model","originalStatusCode":500,"resourceName":"x"}`, true, "ModelErrorException", false},
		{"a stream failed before its begin", "AWS stream", 424, awsError("ModelStreamErrorException"), `{"message":"model"}`, true, "ModelStreamErrorException", false},
		{"not ready", "AWS", 429, awsError("ModelNotReadyException"), `{"message":"wait"}`, true, "ModelNotReadyException", true},
		{"failed", "AWS", 500, awsError("InternalServerException"), `{"message":null}`, true, "InternalServerException", false},
		{"not available", "AWS", 503, awsError("ServiceUnavailableException"), `{"message":"x"}`, true, "ServiceUnavailableException", false},
		{"a load balancer's page", "AWS", 502, "Content-Type: text/html\r\nServer: awselb/2.0\r\n", "<html>\r\n<body>502</body>\r\n</html>\r\n", true, "", false},
		{"nothing but a status", "AWS", 503, "", "", true, "", false},
		{"a body without a type", "AWS", 400, "", "<!DOCTYPE html> looks like a page", true, "", true},
		{"bytes that are no text", "AWS", 500, "Content-Type: application/octet-stream\r\n", "\x00\xff\xfe\r\n\r\n0\r\n", false, "", false},
		{"compressed", "AWS", 400, "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", "\x1f\x8b\x08\x00", true, "", true},
		{"cookies and twice the same header", "AWS", 400, awsError("ValidationException") + "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Odd: 1\r\nX-Odd: 2\r\nx-amz-cf-id: z\r\n", `{}`, true, "ValidationException", true},
		{"throttled", "OpenAI", 429, "Content-Type: application/json\r\nx-request-id: req_1\r\nretry-after: 3\r\nx-ratelimit-remaining-tokens: 0\r\n", `{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded","param":null}}`, true, "rate_limit_exceeded", true},
		{"not enabled", "OpenAI", 401, "Content-Type: application/json\r\nx-request-id: req_1\r\n", `{"error":{"message":"not enabled","type":"authentication_error","code":null}}`, true, "authentication_error", true},
		{"not valid", "OpenAI", 400, "Content-Type: application/json; charset=utf-8\r\n", "{\"error\":{\n \"message\":\"bad\",\"type\":\"invalid_request_error\"}}\n", false, "invalid_request_error", true},
		{"failed", "OpenAI", 500, "Content-Type: application/json\r\n", `{"error":{"type":"server_error"}}`, true, "server_error", false},
		{"overloaded", "Anthropic", 529, "Content-Type: application/json\r\nrequest-id: req_2\r\nx-should-retry: true\r\n", `{"type":"error","error":{"type":"overloaded_error","message":"x"},"request_id":"req_2"}`, true, "overloaded_error", false},
		{"throttled", "Anthropic", 429, "Content-Type: application/json\r\nrequest-id: req_2\r\nanthropic-ratelimit-requests-remaining: 0\r\n", `{"type":"error","error":{"type":"rate_limit_error","message":"x"}}`, true, "rate_limit_error", true},
		{"too large", "Anthropic", 413, "Content-Type: application/json\r\n", `{"type":"error","error":{"type":"request_too_large","message":"x"}}`, true, "request_too_large", true},
		{"in AWS's shape", "Anthropic", 403, awsError("AccessDeniedException"), `{"message":"no"}`, true, "AccessDeniedException", true},
	}
	p := newPeer(t, func(v *visit) bool {
		var n int
		fmt.Sscan(v.Header.Get("Amz-Sdk-Invocation-Id"), &n)
		f := failures[n]
		head := fmt.Sprintf("HTTP/1.1 %d Odd\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\n%s", f.status, f.header)
		if f.length {
			v.say(head, fmt.Sprintf("Content-Length: %d\r\n\r\n", len(f.body)), f.body)
		} else {
			v.say(head, chunkedHead, chunk(f.body[:1]), chunk(f.body[1:]), "0\r\n\r\n")
		}
		return true
	})
	s := p.before(t, nil)
	way := &http.Transport{DisableCompression: true}
	defer way.CloseIdleConnections()
	get := func(url, path, body, n string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		r.Header.Set("Amz-Sdk-Invocation-Id", n)
		a, err := way.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a, string(text)
	}
	for i, f := range failures {
		call := shapes[f.shape]
		direct, want := get(p.url, call.path, call.body, fmt.Sprint(i))
		p.mu.Lock()
		p.total--
		p.named[fmt.Sprint(i)]--
		p.mu.Unlock()
		a, got := get(s.url, call.path, call.body, fmt.Sprint(i))
		if got != want || got != f.body || a.StatusCode != f.status || a.ContentLength != direct.ContentLength {
			t.Errorf("%s, %s: %d (%d) %q, want %d (%d) %q", f.shape, f.name, a.StatusCode, a.ContentLength, got, f.status, direct.ContentLength, want)
		}
		if a.Header.Get("X-Waybill-Call-Id") == "" {
			t.Errorf("%s, %s: the gateway's name of the call is missing", f.shape, f.name)
		}
		a.Header.Del("X-Waybill-Call-Id")
		if fmt.Sprint(a.Header) != fmt.Sprint(direct.Header) {
			t.Errorf("%s, %s: the headers are\n%v, want\n%v", f.shape, f.name, a.Header, direct.Header)
		}
	}
	b := s.booked(t)
	p.balanced(t, b)
	for i, f := range failures {
		v := b.byName[fmt.Sprint(i)]
		if v.Outcome != waybill.Failed || v.Status != f.status || v.Usage.Known != f.known || f.known && v.Usage != waybill.NewUsage() || f.code != "" && v.ErrorCode != f.code {
			t.Errorf("%s, %s: recorded as %s %d %q, usage %v", f.shape, f.name, v.Outcome, v.Status, v.ErrorCode, v.Usage)
		}
	}
}

// AWS's refusals of our own signature are the gateway's business: it tries once more,
// and the caller learns neither role nor clock nor key, in the shape of their API. The
// call has used nothing, and is one record.
func TestOurSignatureIsRefused(t *testing.T) {
	noGrowth(t)
	const secret = "User: arn:aws:sts::111122223333:assumed-role/bedrock-prod/user-17 20261102T100000Z is now earlier than 20261102T100500Z ASIAEXAMPLE"
	named := func(kind string) string {
		return "Content-Type: application/json\r\nx-amzn-ErrorType: " + kind + "\r\n"
	}
	plain := "Content-Type: application/json\r\n"
	refusals := []struct {
		name, header, body string
		status             int
	}{
		{"skewed, as Bedrock says it", named("InvalidSignatureException:http://internal.amazon.com/coral/com.amazon.bedrock/"), `{"message":"Signature expired: ` + secret + `"}`, 403},
		{"skewed, as S3 says it", named("RequestTimeTooSkewed"), `{"message":"` + secret + `"}`, 403},
		{"expired, as EC2 says it", named("RequestExpired"), `{"message":"` + secret + `"}`, 400},
		{"another signature, as STS says it", named("SignatureDoesNotMatch"), `{"message":"` + secret + `"}`, 403},
		{"an expired session", named("ExpiredTokenException"), `{"message":"` + secret + `"}`, 403},
		{"an unknown key", named("UnrecognizedClientException"), `{"message":"` + secret + `"}`, 403},
		{"an incomplete one", named("IncompleteSignatureException"), `{"message":"` + secret + `"}`, 400},
		{"told in __type", plain, `{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"` + secret + `"}`, 403},
		{"told in code", plain, `{"code":"InvalidSignatureException","message":"` + secret + `"}`, 403},
		{"told in OpenAI's code", plain, `{"error":{"code":"UnrecognizedClientException","message":"` + secret + `"}}`, 401},
		{"told in Anthropic's type", plain, `{"type":"error","error":{"type":"ExpiredTokenException","message":"` + secret + `"}}`, 401},
	}
	for family, call := range shapes {
		t.Run(family, func(t *testing.T) {
			once := make(map[string]bool)
			p := newPeer(t, func(v *visit) bool {
				var n, again int
				fmt.Sscanf(v.Header.Get("Amz-Sdk-Invocation-Id"), "%d-%d", &n, &again)
				if name := v.Header.Get("Amz-Sdk-Invocation-Id"); again == 1 && once[name] {
					v.say(jsonHead, fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smallJSON)), smallJSON)
				} else {
					once[name] = true
					r := refusals[n]
					v.say(fmt.Sprintf("HTTP/1.1 %d No\r\n%sContent-Length: %d\r\n\r\n", r.status, r.header, len(r.body)), r.body)
				}
				return true
			})
			s := p.before(t, nil)
			for i, r := range refusals {
				a, text := s.post(t, call.path, call.body, map[string]string{"Amz-Sdk-Invocation-Id": fmt.Sprintf("%d-0", i)})
				if a.StatusCode != 503 || !strings.Contains(text, "WB1403") || strings.Contains(text, "arn:") || strings.Contains(text, "2026") || strings.Contains(fmt.Sprint(a.Header), "Signature") {
					t.Errorf("%s: %d %s %v", r.name, a.StatusCode, text, a.Header)
				}
				var shape struct {
					Message, Type string
					Error         struct{ Message, Type string }
				}
				if err := json.Unmarshal([]byte(text), &shape); err != nil {
					t.Errorf("%s: %v", r.name, err)
				}
				right := shape.Message != "" && a.Header.Get("x-amzn-ErrorType") == "ServiceUnavailableException"
				switch family {
				case "OpenAI":
					right = shape.Error.Type == "server_error"
				case "Anthropic":
					right = shape.Type == "error" && shape.Error.Type == "overloaded_error"
				}
				if !right {
					t.Errorf("%s: %s is not in the shape of the API", r.name, text)
				}
				if a, text := s.post(t, call.path, call.body, map[string]string{"Amz-Sdk-Invocation-Id": fmt.Sprintf("%d-1", i)}); a.StatusCode != 200 || text != smallJSON {
					t.Errorf("%s, and then not: %d %s", r.name, a.StatusCode, text)
				}
			}
			b := s.booked(t)
			for i, r := range refusals {
				refused, passed := b.byName[fmt.Sprintf("%d-0", i)], b.byName[fmt.Sprintf("%d-1", i)]
				if refused.Outcome != waybill.Failed || refused.Usage != waybill.NewUsage() || refused.ErrorCode != "WB1403" || passed.Outcome != waybill.Completed {
					t.Errorf("%s: recorded as %s %s %v, and then %s", r.name, refused.Outcome, refused.ErrorCode, refused.Usage, passed.Outcome)
				}
				for _, v := range []waybill.Invocation{refused, passed} {
					if n := p.count(v.SDKInvocationID); n != 2 {
						t.Errorf("%s: call %s was tried %d times", r.name, v.SDKInvocationID, n)
					}
				}
			}
			if len(b.closed) != 2*len(refusals) {
				t.Errorf("%d records of %d calls", len(b.closed), 2*len(refusals))
			}
		})
	}
}

// A clock that is wrong is found out by AWS: nothing leaks, nothing is billed, and calls
// pass again when it is right.
func TestClockSkew(t *testing.T) {
	noGrowth(t)
	var skew atomic.Int64
	s := newStand(t, func(f *fakeaws.Config, _ *gateway.Config) {
		f.RealNow = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	s.sign(t, credential.Config{Backoff: time.Millisecond, MaxBackoff: time.Millisecond, Young: time.Nanosecond, WarmUp: time.Millisecond})
	for i, off := range []time.Duration{0, 6 * time.Minute, 0, -6 * time.Minute, 0} {
		skew.Store(int64(off))
		want := 200
		if off != 0 {
			want = 503
		}
		for range 3 {
			if a, text := s.post(t, answerPath, hello, nil); a.StatusCode != want && (off != 0 || i == 0) {
				t.Errorf("%v off: %d %s", off, a.StatusCode, text)
			} else if strings.Contains(text, "Signature") || strings.Contains(text, "arn:") {
				t.Errorf("%v off: %s", off, text)
			}
		}
		if off == 0 {
			until(t, "calls pass again", func() bool { a, _ := s.post(t, answerPath, hello, nil); return a.StatusCode == 200 })
		}
	}
	b := s.booked(t)
	served := 0
	for _, v := range b.closed {
		if v.Status == 200 {
			served++
		} else if v.Usage != waybill.NewUsage() {
			t.Errorf("a call that AWS did not take is recorded as %s, %v: %s", v.Outcome, v.Usage, v.UsageFrom)
		}
	}
	if n := len(s.world.Calls()); n != served {
		t.Errorf("AWS served %d calls, and the journal has %d", n, served)
	}
}

// Without STS, calls pass whose session is held; others are told to come again, and do
// not reach AWS.
func TestWithoutSTS(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  func(*stand, *atomic.Bool)
	}{
		{"down", func(s *stand, _ *atomic.Bool) { s.world.BreakSTS(true) }},
		{"throttling", func(_ *stand, still *atomic.Bool) { still.Store(true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noGrowth(t)
			var still atomic.Bool
			frozen := time.Now()
			s := newStand(t, func(f *fakeaws.Config, _ *gateway.Config) {
				f.STSPerSecond = 1 // and a second that never ends
				f.RealNow = func() time.Time {
					if still.Load() {
						return frozen
					}
					return time.Now()
				}
			})
			s.sign(t, credential.Config{Backoff: 20 * time.Millisecond, MaxBackoff: 20 * time.Millisecond, WarmUp: time.Millisecond, WaitTimeout: time.Second})
			still.Store(tt.name == "throttling")
			known, unknown := s.token, s.keyOf(t, "user-18")
			call := func(token, name string) (*http.Response, string) {
				s.token = token
				return s.post(t, answerPath, hello, map[string]string{"Amz-Sdk-Invocation-Id": name, "X-Waybill-Tags": "team=search"})
			}
			if a, text := call(known, "first"); a.StatusCode != 200 {
				t.Fatalf("%d %s", a.StatusCode, text)
			}
			tt.off(s, &still)
			for i := range 2 {
				if a, text := call(known, fmt.Sprint("held", i)); a.StatusCode != 200 {
					t.Errorf("with a session: %d %s", a.StatusCode, text)
				}
				a, text := call(unknown, fmt.Sprint("none", i))
				if a.StatusCode != 503 || !strings.Contains(text, "WB1401") || a.Header.Get("x-amzn-ErrorType") != "ServiceUnavailableException" || strings.Contains(text, "arn:") {
					t.Errorf("without one: %d %s", a.StatusCode, text)
				}
			}
			b := s.booked(t)
			s.balancedWithWorld(t, b)
			for name, v := range b.byName {
				want := waybill.Completed
				if strings.HasPrefix(name, "none") {
					want = waybill.Refused
				}
				if v.Outcome != want || !v.Usage.Known {
					t.Errorf("%s is recorded as %s", name, v.Outcome)
				}
			}
			if len(b.closed) != 5 {
				t.Errorf("%d records", len(b.closed))
			}
		})
	}
}
