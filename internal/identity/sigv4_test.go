package identity

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"

	"github.com/waybill-dev/waybill"
)

var signedAt = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)

// call is a request to sign, as a test changes it.
type call struct {
	method, target, body string
	header               http.Header
	service, region      string
	at                   time.Time
	declare, token       bool
	presign              time.Duration
	payload              string // literal in the place of the hash
}

// signedCall signs a call with the AWS SDK and reads it as a server does.
func signedCall(t testing.TB, key corpusKey, c call) *http.Request {
	t.Helper()
	or := func(s *string, other string) {
		if *s == "" {
			*s = other
		}
	}
	or(&c.method, "POST")
	or(&c.target, "/model/m/invoke")
	or(&c.service, "bedrock")
	or(&c.region, "us-east-1")
	if c.at.IsZero() {
		c.at = signedAt
	}
	r, err := http.NewRequest(c.method, "https://waybill.example.com"+c.target, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	creds := aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey}
	if c.token {
		creds.SessionToken = key.SessionToken
	}
	sum := sha256.Sum256([]byte(c.body))
	hash := hex.EncodeToString(sum[:])
	if c.payload != "" {
		hash = c.payload
		c.declare = true
	}
	if c.declare {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	if c.presign != 0 {
		q := r.URL.Query()
		q.Set("X-Amz-Expires", strconv.Itoa(int(c.presign/time.Second)))
		r.URL.RawQuery = q.Encode()
		signed, header, err := v4.NewSigner().PresignHTTP(context.Background(), creds, r, hash, c.service, c.region, c.at)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		r.URL, r.Header = u, header
	} else if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hash, c.service, c.region, c.at); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// retarget is another request line, as it would have arrived.
func retarget(r *http.Request, target string) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		panic(err)
	}
	r.RequestURI, r.URL = target, u
}

// What is refused, for which reason in the audit, and in one shape for the caller.
func TestSigV4Refuses(t *testing.T) {
	key := readCorpusKey(t)
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	auth := func(old, young string) func(*http.Request) {
		return func(r *http.Request) {
			text := r.Header.Get("Authorization")
			if !strings.Contains(text, old) {
				panic(old + " is not in " + text)
			}
			r.Header.Set("Authorization", strings.Replace(text, old, young, 1))
		}
	}
	query := func(old, young string) func(*http.Request) {
		return func(r *http.Request) {
			if !strings.Contains(r.RequestURI, old) {
				panic(old + " is not in " + r.RequestURI)
			}
			retarget(r, strings.Replace(r.RequestURI, old, young, 1))
		}
	}
	const minutes = time.Minute
	tests := []struct {
		name   string
		call   call
		key    corpusKey // zero means the right one
		change func(*http.Request)
		want   Reason
	}{
		{name: "five minutes and a second late", call: call{at: signedAt.Add(-5*minutes - time.Second)}, want: ReasonClock},
		{name: "five minutes and a second early", call: call{at: signedAt.Add(5*minutes + time.Second)}, want: ReasonClock},
		{name: "a day late", call: call{at: signedAt.Add(-24 * time.Hour)}, want: ReasonClock},
		{name: "presigned and past its life", call: call{at: signedAt.Add(-61 * time.Second), presign: time.Minute}, want: ReasonClock},
		{name: "presigned for too long", call: call{presign: 15*minutes + time.Second}, want: ReasonClock},
		{name: "presigned ahead", call: call{at: signedAt.Add(6 * minutes), presign: 10 * minutes}, want: ReasonClock},
		{name: "presigned for no time", call: call{presign: minutes}, change: query("X-Amz-Expires=60", "X-Amz-Expires=0"), want: ReasonMalformed},
		{name: "presigned for less", call: call{presign: minutes}, change: query("X-Amz-Expires=60", "X-Amz-Expires=-60"), want: ReasonMalformed},
		{name: "presigned with a plus", call: call{presign: minutes}, change: query("X-Amz-Expires=60", "X-Amz-Expires=%2B60"), want: ReasonMalformed},
		{name: "presigned for ever", call: call{presign: minutes}, change: query("X-Amz-Expires=60&", ""), want: ReasonMalformed},
		{name: "presigned, a parameter twice", call: call{presign: minutes}, change: query("X-Amz-Expires=60", "X-Amz-Expires=60&X-Amz-Expires=900"), want: ReasonMalformed},
		{name: "presigned, a parameter in disguise", call: call{presign: minutes}, change: query("X-Amz-Date=", "X%2DAmz-Date="), want: ReasonMalformed},
		{name: "presigned, parameter added", call: call{presign: minutes}, change: query("?", "?a=b&"), want: ReasonSignature},
		{name: "presigned and in headers", call: call{presign: minutes}, change: header("Authorization", algorithm+" Credential=x"), want: ReasonMalformed},
		{name: "in headers and presigned", change: query("invoke", "invoke?X-Amz-Signature="+strings.Repeat("0", 64)), want: ReasonMalformed},
		{name: "in headers and a date in the query", call: call{target: "/v1/models?X-Amz-Date=20250102T030405Z"}, want: ReasonMalformed},
		{name: "presigned with a date header", call: call{presign: minutes}, change: header("X-Amz-Date", "20250102T030405Z"), want: ReasonMalformed},
		{name: "presigned, other algorithm", call: call{presign: minutes}, change: query("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"), want: ReasonMalformed},
		{name: "other algorithm", change: auth(algorithm, "AWS4-ECDSA-P256-SHA256"), want: ReasonMalformed},
		{name: "no signature", change: header("Authorization"), want: ReasonMalformed},
		{name: "a bearer token", change: header("Authorization", "Bearer wbk_x_y"), want: ReasonMalformed},
		{name: "two Authorizations", change: func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, want: ReasonMalformed},
		{name: "two dates", change: header("X-Amz-Date", "20250102T030405Z", "20250102T030405Z"), want: ReasonMalformed},
		{name: "two hashes", call: call{declare: true}, change: func(r *http.Request) { r.Header.Add("X-Amz-Content-Sha256", r.Header.Get("X-Amz-Content-Sha256")) }, want: ReasonMalformed},
		{name: "no date", change: header("X-Amz-Date"), want: ReasonMalformed},
		{name: "the date of another day", change: header("X-Amz-Date", "20250103T000000Z"), want: ReasonMalformed},
		{name: "a date with a zone", change: header("X-Amz-Date", "20250102T030405+0000"), want: ReasonMalformed},
		{name: "a parameter twice", change: auth("SignedHeaders=", "Credential="), want: ReasonMalformed},
		{name: "a parameter more", change: auth("Signature=", "A=b, Signature="), want: ReasonMalformed},
		{name: "no signed headers", change: auth("SignedHeaders=host;", "SignedHeaders=;host;"), call: call{method: "GET"}, want: ReasonMalformed},
		{name: "host not signed", change: auth("SignedHeaders=host;", "SignedHeaders="), call: call{method: "GET"}, want: ReasonMalformed},
		{name: "date not signed", change: auth(";x-amz-date", ""), want: ReasonMalformed},
		{name: "signed headers not sorted", change: auth("host;x-amz-date", "x-amz-date;host"), call: call{method: "GET"}, want: ReasonMalformed},
		{name: "signed header twice", change: auth("host;", "host;host;"), want: ReasonMalformed},
		{name: "signed header in capitals", change: auth("host;", "Host;"), want: ReasonMalformed},
		{name: "signed header that is not there", change: auth("host;", "host;nowhere;"), call: call{method: "GET"}, want: ReasonUnsigned},
		{name: "signature in capitals", change: func(r *http.Request) {
			text := r.Header.Get("Authorization")
			at := len(text) - 64
			r.Header.Set("Authorization", text[:at]+strings.ToUpper(text[at:]))
		}, want: ReasonMalformed},
		{name: "signature too short", change: func(r *http.Request) {
			text := r.Header.Get("Authorization")
			r.Header.Set("Authorization", text[:len(text)-1])
		}, want: ReasonMalformed},
		{name: "scope with a part less", change: auth("/aws4_request", ""), want: ReasonMalformed},
		{name: "scope of something else", change: auth("aws4_request", "aws5_request"), want: ReasonMalformed},
		{name: "service s3", call: call{service: "s3"}, want: ReasonScope},
		{name: "service sts", call: call{service: "sts"}, want: ReasonScope},
		{name: "unknown key", key: corpusKey{AccessKeyID: "AKIDEXAMPLEEXAMPLE", SecretAccessKey: key.SecretAccessKey}, want: ReasonUnknownKey},
		{name: "wrong secret", key: corpusKey{AccessKeyID: key.AccessKeyID, SecretAccessKey: "another"}, want: ReasonSignature},
		{name: "another session token", key: corpusKey{key.AccessKeyID, key.SecretAccessKey, "another"}, call: call{token: true}, want: ReasonSecret},
		{name: "session token added", change: header("X-Amz-Security-Token", key.SessionToken), want: ReasonUnsigned},
		{name: "metadata added", change: header("X-Amzn-Bedrock-Request-Metadata", `{"team":"ads"}`), want: ReasonUnsigned},
		{name: "tags added", change: header("X-Waybill-Tags", "team=ads"), want: ReasonUnsigned},
		{name: "hash added", change: header("X-Amz-Content-Sha256", strings.Repeat("0", 64)), want: ReasonUnsigned},
		{name: "unknown hash", call: call{payload: "STREAMING-SOMETHING"}, want: ReasonMalformed},
		{name: "hash in capitals", call: call{payload: strings.ToUpper(hex.EncodeToString(make([]byte, 31)) + "ab")}, want: ReasonMalformed},
		{name: "hash of another body", call: call{body: "a", payload: hex.EncodeToString(make([]byte, 32))}, want: ReasonBody},
		{name: "hash of another body, empty", call: call{payload: hex.EncodeToString(make([]byte, 32))}, want: ReasonBody},
		{name: "chunks, presigned", call: call{payload: signedChunks, presign: minutes}, want: ReasonMalformed},
		{name: "chunks without a length", call: call{payload: signedChunks}, want: ReasonBody},
		{name: "a value folded over a tab", call: call{header: http.Header{"X-Amz-Note": {"a b"}}}, change: header("X-Amz-Note", "a\tb"), want: ReasonSignature},
		{name: "empty segment", change: query("/model/", "/model//"), want: ReasonPath},
		{name: "dot segment", change: query("/model/", "/model/./"), want: ReasonPath},
		{name: "dot segments, escaped", change: query("/model/", "/model/%2E%2e/"), want: ReasonPath},
		{name: "dot at the end", change: query("/invoke", "/.."), want: ReasonPath},
		{name: "whole URL on the request line", change: query("/model", "https://waybill.example.com/model"), want: ReasonPath},
		{name: "star", call: call{method: "GET"}, change: func(r *http.Request) { r.RequestURI = "*" }, want: ReasonPath},
		{name: "the host of another", change: func(r *http.Request) { r.Host = "evil.example.com" }, want: ReasonSignature},
		{name: "another method", call: call{method: "GET"}, change: func(r *http.Request) { r.Method = "DELETE" }, want: ReasonSignature},
		{name: "huge Authorization", change: auth("Signature=", "Signature="+strings.Repeat("0", 9000)), want: ReasonMalformed},
		{name: "huge query", change: query("invoke", "invoke?a="+strings.Repeat("0", 17_000)), want: ReasonMalformed},
	}
	shape, _ := errors.AsType[*waybill.Error](refused())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.key == (corpusKey{}) {
				tt.key = key
			}
			r := signedCall(t, tt.key, tt.call)
			if tt.change != nil {
				tt.change(r)
			}
			v := NewSigV4(signingKeys(t, key), SigV4Config{Now: func() time.Time { return signedAt }})
			_, _, err := take(v, r)
			if got := reasonOf(err); got != tt.want {
				t.Errorf("reason %q (%v), want %q", got, err, tt.want)
			}
			if got, ok := errors.AsType[*waybill.Error](err); !ok || got.Kind != shape.Kind || got.Code != shape.Code || got.Message != shape.Message || got.Hint != shape.Hint {
				t.Errorf("it is told apart: %+v", got)
			}
		})
	}
}

// Both ends of the window, the longest life, and what proxies may add.
func TestSigV4Takes(t *testing.T) {
	key := readCorpusKey(t)
	for name, tt := range map[string]struct {
		call   call
		config SigV4Config
		change func(*http.Request)
	}{
		"five minutes late":           {call: call{at: signedAt.Add(-5 * time.Minute)}},
		"five minutes early":          {call: call{at: signedAt.Add(5 * time.Minute)}},
		"presigned, at its end":       {call: call{at: signedAt.Add(-15 * time.Minute), presign: 15 * time.Minute}},
		"bedrock-mantle":              {call: call{service: "bedrock-mantle"}},
		"a Region of the list":        {call: call{region: "eu-west-1"}, config: SigV4Config{Regions: []string{"us-east-1", "eu-west-1"}}},
		"a load balancer's trace":     {change: func(r *http.Request) { r.Header.Set("X-Amzn-Trace-Id", "Root=1-1-1") }},
		"a header of a proxy of ours": {config: SigV4Config{Added: []string{"x-amz-cf-id"}}, change: func(r *http.Request) { r.Header.Set("X-Amz-Cf-Id", "x") }},
		"unsigned, no body, over TLS": {call: call{method: "GET", payload: unsignedPayload}, config: SigV4Config{UnsignedEmpty: true, Secure: func(*http.Request) bool { return true }}},
	} {
		t.Run(name, func(t *testing.T) {
			r := signedCall(t, key, tt.call)
			if tt.change != nil {
				tt.change(r)
			}
			tt.config.Now = func() time.Time { return signedAt }
			if _, _, err := take(NewSigV4(signingKeys(t, key), tt.config), r); err != nil {
				t.Error(err)
			}
		})
	}
}

// The SDK for JavaScript speaks HTTP/2 to bedrock-runtime, where a request has no Host,
// and signs :authority in its place. It is the host that must be right, by either name.
func TestSigV4Authority(t *testing.T) {
	key := readCorpusKey(t)
	r := signedCall(t, key, call{body: "{}"})
	body := sha256.Sum256([]byte("{}"))
	date := r.Header.Get("X-Amz-Date")
	canonical := sha256.Sum256([]byte("POST\n/model/m/invoke\n\n:authority:waybill.example.com\nx-amz-date:" + date + "\n\n:authority;x-amz-date\n" + hex.EncodeToString(body[:])))
	sum := []byte("AWS4" + key.SecretAccessKey)
	for _, part := range []string{date[:8], "us-east-1", "bedrock", "aws4_request", algorithm + "\n" + date + "\n" + date[:8] + "/us-east-1/bedrock/aws4_request\n" + hex.EncodeToString(canonical[:])} {
		h := hmac.New(sha256.New, sum)
		h.Write([]byte(part))
		sum = h.Sum(nil)
	}
	r.Header = http.Header{"X-Amz-Date": {date}, "Authorization": {algorithm + " Credential=" + key.AccessKeyID + "/" + date[:8] +
		"/us-east-1/bedrock/aws4_request, SignedHeaders=:authority;x-amz-date, Signature=" + hex.EncodeToString(sum)}}
	now := SigV4Config{Now: func() time.Time { return signedAt }}
	if _, _, err := take(NewSigV4(signingKeys(t, key), now), r.Clone(t.Context())); err != nil {
		t.Error(err)
	}
	r.Host = "other.example.com"
	if _, _, err := take(NewSigV4(signingKeys(t, key), now), r); err == nil {
		t.Error("another host is taken")
	}
}

// Ways to send a body that are not taken are named, to callers that are known.
func TestSigV4PayloadsNotTaken(t *testing.T) {
	key := readCorpusKey(t)
	yes := func(*http.Request) bool { return true }
	tests := []struct {
		name   string
		call   call
		config SigV4Config
	}{
		{"unsigned by default", call{method: "GET", payload: unsignedPayload}, SigV4Config{Secure: yes}},
		{"unsigned without TLS", call{method: "GET", payload: unsignedPayload}, SigV4Config{UnsignedEmpty: true}},
		{"unsigned with a body", call{body: "x", payload: unsignedPayload}, SigV4Config{UnsignedEmpty: true, Secure: yes}},
		{"unsigned and presigned, with a body", call{body: "x", presign: time.Minute, payload: unsignedPayload}, SigV4Config{UnsignedEmpty: true, Secure: yes}},
	}
	for _, literal := range notTaken {
		tests = append(tests, struct {
			name   string
			call   call
			config SigV4Config
		}{literal, call{body: "x", payload: literal}, SigV4Config{}})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Now = func() time.Time { return signedAt }
			_, _, err := take(NewSigV4(signingKeys(t, key), tt.config), signedCall(t, key, tt.call))
			if e, ok := errors.AsType[*waybill.Error](err); !ok || e.Code != "WB1003" || e.Kind != waybill.Invalid {
				t.Errorf("%v", err)
			}
			_, _, err = take(NewSigV4(signingKeys(t, key), tt.config), signedCall(t, corpusKey{AccessKeyID: key.AccessKeyID, SecretAccessKey: "another"}, tt.call))
			if reasonOf(err) != ReasonSignature {
				t.Errorf("a stranger is told %v", err)
			}
		})
	}
}

// Nobody who is not known, late or wrong in what can be seen at once makes us read.
func TestSigV4ReadsNoBodyOfStrangers(t *testing.T) {
	key := readCorpusKey(t)
	keys := signingKeys(t, key)
	for name, r := range map[string]*http.Request{
		"unknown key":     signedCall(t, corpusKey{AccessKeyID: "WBSKUNKNOWNUNKNOWN22", SecretAccessKey: "x"}, call{body: "x"}),
		"late":            signedCall(t, key, call{body: "x", at: signedAt.Add(-time.Hour)}),
		"other service":   signedCall(t, key, call{body: "x", service: "s3"}),
		"declared, wrong": signedCall(t, corpusKey{AccessKeyID: key.AccessKeyID, SecretAccessKey: "x"}, call{body: "x", declare: true}),
		"chunks, wrong":   signedCall(t, corpusKey{AccessKeyID: key.AccessKeyID, SecretAccessKey: "x"}, call{body: "x", payload: signedChunks}),
		"no signature":    httptest.NewRequest("POST", "/", strings.NewReader("x")),
	} {
		r.Body = io.NopCloser(iotest.ErrReader(errors.New("the body was read")))
		_, err := NewSigV4(keys, SigV4Config{Now: func() time.Time { return signedAt }}).Authenticate(r)
		if reasonOf(err) == "" || strings.Contains(fmt.Sprint(err), "was read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A body that is another than the signed one is told to the audit when it is read: the
// caller was accepted before.
func TestSigV4TellsOfBodies(t *testing.T) {
	key := readCorpusKey(t)
	for name, r := range map[string]*http.Request{
		"declared": signedCall(t, key, call{body: "signed", declare: true}),
		"chunks":   chunked(t, key, 6, []string{"signed"}, func(s string) string { return strings.Replace(s, "\nsigned", "\nother!", 1) }),
	} {
		var told []*Refusal
		v := NewSigV4(signingKeys(t, key), SigV4Config{Now: func() time.Time { return signedAt }, BodyRefused: func(_ *http.Request, why *Refusal) { told = append(told, why) }})
		if r.ContentLength == 6 {
			r.Body = io.NopCloser(strings.NewReader("other!"))
		}
		if _, err := v.Authenticate(r); err != nil || len(told) > 0 {
			t.Fatalf("%s: %v, told %v", name, err, told)
		}
		for range 2 { // however often it is asked
			if _, err := r.Body.Read(make([]byte, 100)); reasonOf(err) != ReasonBody || waybill.KindOf(err) != waybill.Unauthenticated {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(told) != 1 || told[0].KeyID != key.AccessKeyID || told[0].Subject != "user-17" {
			t.Errorf("%s: told %+v", name, told)
		}
	}
}

// Bodies that are read before anything is proven are bounded, one by one and together.
func TestSigV4BoundsUnprovenBodies(t *testing.T) {
	key := readCorpusKey(t)
	config := SigV4Config{MaxBody: 100_000, MaxUnproven: 150_000, Now: func() time.Time { return signedAt }}
	v := NewSigV4(signingKeys(t, key), config)
	code := func(err error) string {
		if e, ok := errors.AsType[*waybill.Error](err); ok {
			return e.Code
		}
		return fmt.Sprint(err)
	}
	long := strings.Repeat("x", 100_001)
	r := signedCall(t, key, call{body: long})
	if _, err := v.Authenticate(r); code(err) != "WB1205" {
		t.Errorf("a long body: %v", err)
	}
	r = signedCall(t, key, call{body: long})
	r.ContentLength = -1
	if _, err := v.Authenticate(r); code(err) != "WB1205" {
		t.Errorf("a long body of unknown length: %v", err)
	}
	// A body that stops in the middle holds what it has sent.
	half, rest := io.Pipe()
	r = signedCall(t, key, call{body: long[:100_000]})
	r.Body = half
	first := make(chan error)
	go func() { _, err := v.Authenticate(r); first <- err }()
	for _, n := range []int{79_999, 1} { // when the second is read, the first was counted
		if _, err := rest.Write([]byte(long[:n])); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.Authenticate(signedCall(t, key, call{body: long[:80_000]})); code(err) != "WB1004" || waybill.KindOf(err) != waybill.Unavailable {
		t.Errorf("the next one: %v", err)
	}
	if _, _, err := take(v, signedCall(t, key, call{body: long[:90_000], declare: true})); err != nil {
		t.Errorf("one that declares its hash: %v", err)
	}
	rest.Write([]byte(long[:20_000]))
	rest.Close()
	if err := <-first; err != nil {
		t.Errorf("the first one: %v", err)
	}
	if _, err := v.Authenticate(signedCall(t, key, call{body: long[:80_000]})); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n := v.unproven.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
	r = signedCall(t, key, call{body: "half"})
	r.ContentLength = 8
	r.Body = io.NopCloser(strings.NewReader("half"))
	if _, err := v.Authenticate(r); code(err) != "WB1207" {
		t.Errorf("a body cut off: %v", err)
	}
}

// One signature is taken a bounded number of times while it is fresh.
func TestSigV4Repeats(t *testing.T) {
	key := readCorpusKey(t)
	now := signedAt
	config := SigV4Config{Now: func() time.Time { return now }}
	for repeats, want := range map[int]int{0: 21, 2: 3, -1: 1} {
		config.Repeats = repeats
		v := NewSigV4(signingKeys(t, key), config)
		taken := 0
		for range 30 {
			_, err := v.Authenticate(signedCall(t, key, call{body: "x"}))
			if err == nil {
				taken++
			} else if reasonOf(err) != ReasonReplayed {
				t.Fatal(err)
			}
		}
		if taken != want {
			t.Errorf("Repeats %d: taken %d times, want %d", repeats, taken, want)
		}
		if _, err := v.Authenticate(signedCall(t, key, call{body: "y"})); err != nil {
			t.Errorf("another body: %v", err)
		}
	}
	// However time goes on, it is not forgotten while it is fresh.
	config.Repeats = -1
	for at := time.Duration(0); at <= 20*time.Minute; at += 30 * time.Second {
		v := NewSigV4(signingKeys(t, key), config)
		now = signedAt
		ahead := call{at: signedAt.Add(5 * time.Minute), presign: 15 * time.Minute}
		if _, err := v.Authenticate(signedCall(t, key, ahead)); err != nil {
			t.Fatal(err)
		}
		for now = signedAt; now.Before(signedAt.Add(at)); now = now.Add(time.Minute) {
			if _, err := v.Authenticate(signedCall(t, key, call{at: now})); err != nil {
				t.Fatal(err)
			}
		}
		now = signedAt.Add(at)
		if _, err := v.Authenticate(signedCall(t, key, ahead)); reasonOf(err) != ReasonReplayed {
			t.Fatalf("after %v: %v", at, err)
		}
	}
}

// The memory for signatures is bounded, and says when it was too small.
func TestSeenIsBounded(t *testing.T) {
	s := seen{life: 10 * time.Minute, most: 100}
	now := signedAt
	for i := range 1000 {
		now = now.Add(time.Millisecond)
		if !s.take(sha256.Sum256([]byte(strconv.Itoa(i))), now, -1) {
			t.Fatalf("signature %d is refused", i)
		}
		if n := len(s.young) + len(s.old); n > 100 {
			t.Fatalf("%d are kept", n)
		}
	}
	if s.forgotten.Load() == 0 {
		t.Error("nothing was counted as forgotten")
	}
	if s.take(sha256.Sum256([]byte("999")), now, -1) {
		t.Error("the last one is forgotten")
	}
	now = now.Add(time.Hour)
	before := s.forgotten.Load()
	if !s.take(sha256.Sum256([]byte("999")), now, -1) || s.forgotten.Load() != before {
		t.Error("what was stale is still known, or counted")
	}
}

// A request and its body under way at once, from many.
func TestSigV4AtOnce(t *testing.T) {
	key := readCorpusKey(t)
	v := NewSigV4(signingKeys(t, key), SigV4Config{Now: func() time.Time { return signedAt }})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				r := signedCall(t, key, call{body: fmt.Sprint(i, j), region: fmt.Sprint("r-", j), declare: j%2 == 0})
				if _, _, err := take(v, r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// The stock client, over TLS with HTTP/1.1 and HTTP/2, calls through a server that
// knows nothing of signatures.
func TestSigV4ThroughAServer(t *testing.T) {
	key := readCorpusKey(t)
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			v := NewSigV4(signingKeys(t, key), SigV4Config{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p, body, err := take(v, r)
				if err != nil || r.Proto != version {
					w.WriteHeader(http.StatusForbidden)
					fmt.Fprintf(w, `{"message":"%v %s"}`, err, r.Proto)
					return
				}
				fmt.Fprintf(w, "%s %d", p.Subject, len(body))
			}))
			server.EnableHTTP2 = true
			server.StartTLS()
			defer server.Close()
			client := server.Client()
			if version == "HTTP/1.1" {
				client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
				client.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
			}
			for _, secret := range []string{key.SecretAccessKey, "another"} {
				bedrock := bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", BaseEndpoint: &server.URL, HTTPClient: client, RetryMaxAttempts: 1,
					Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, secret, key.SessionToken)})
				out, err := bedrock.InvokeModel(t.Context(), &bedrockruntime.InvokeModelInput{
					ModelId: aws.String("arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc"), Body: bytes.Repeat([]byte("x"), 300_000)})
				if secret == "another" {
					if err == nil || !strings.Contains(err.Error(), "403") {
						t.Errorf("a wrong secret: %v", err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := string(out.Body); got != "user-17 300000" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}

// vectorKeys is a store with AWS's example key, and a session token that is its own.
func vectorKeys(t testing.TB, id, secret, token string) *SigningKeys {
	keys := signingKeys(t, corpusKey{AccessKeyID: id, SecretAccessKey: secret})
	_, k, err := keys.find(id)
	if err != nil {
		t.Fatal(err)
	}
	k.token = token
	return keys
}

// Requests of AWS's published test suite, as far as they are HTTP and not about paths
// that we refuse. Clients of that suite send raw UTF-8.
func TestSigV4Suite(t *testing.T) {
	const letters = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tests := []struct{ name, request, headers, body, signed, signature string }{
		{"get-vanilla", "GET /", "", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-vanilla-empty-query-key", "GET /?Param1=value1", "", "", "host;x-amz-date", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
		{"get-vanilla-query-order-key", "GET /?Param1=value2&Param1=Value1", "", "", "host;x-amz-date", "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"},
		{"get-vanilla-query-order-key-case", "GET /?Param2=value2&Param1=value1", "", "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"get-vanilla-query-order-value", "GET /?Param1=value2&Param1=value1", "", "", "host;x-amz-date", "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694"},
		{"get-vanilla-query-order-encoded", "GET /?Param-3=Value3&Param=Value2&%E1%88%B4=Value1", "", "", "host;x-amz-date", "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
		{"get-vanilla-query-unreserved", "GET /?" + letters + "=" + letters, "", "", "host;x-amz-date", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
		{"get-unreserved", "GET /" + letters, "", "", "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		{"get-utf8", "GET /ሴ", "", "", "host;x-amz-date", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
		{"get-header-key-duplicate", "GET /", "My-Header1: value2\r\nMy-Header1: value2\r\nMy-Header1: value1\r\n", "", "host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		{"get-header-value-order", "GET /", "My-Header1: value4\r\nMy-Header1: value1\r\nMy-Header1: value3\r\nMy-Header1: value2\r\n", "", "host;my-header1;x-amz-date", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
		{"get-header-value-trim", "GET /", "My-Header1: value1\r\nMy-Header2: \"a   b   c\"\r\n", "", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		{"post-header-key-case", "POST /", "", "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"post-header-key-sort", "POST /", "My-Header1: value1\r\n", "", "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
		{"post-header-value-case", "POST /", "My-Header1: VALUE1\r\n", "", "host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
		{"post-vanilla-query", "POST /?Param1=value1", "", "", "host;x-amz-date", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
		{"post-x-www-form-urlencoded", "POST /", "Content-Type: application/x-www-form-urlencoded\r\n", "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
		{"post-x-www-form-urlencoded-parameters", "POST /", "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n", "Param1=value1", "content-type;host;x-amz-date", "2f3b42f35f135abf9c562afcbbc44fc03df96dcfd4332ecebad8b39a7d4b6125"},
	}
	keys := vectorKeys(t, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "")
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := NewSigV4(keys, SigV4Config{Services: []string{"service"}, Now: func() time.Time { return at }})
			verifyWire(t, v, fmt.Sprintf("%s HTTP/1.1\r\nHost:example.amazonaws.com\r\n%sContent-Length: %d\r\nX-Amz-Date:20150830T123600Z\r\n"+
				"Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=%s, Signature=%s\r\n\r\n%s",
				tt.request, tt.headers, len(tt.body), tt.signed, tt.signature, tt.body))
		})
	}
}

func verifyWire(t *testing.T, v *SigV4, wire string) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire)))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := take(v, r); err != nil {
		t.Error(err)
	}
}

// Vectors computed with botocore for Bedrock's own paths, and the mantle vector of the
// OpenAI SDK; and the chunked upload of the S3 manual.
func TestSigV4Vectors(t *testing.T) {
	const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	keys := vectorKeys(t, "AKIDEXAMPLE", secret, "fixture-session-token")
	const invoke = `{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`
	const arn = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fabc123def456/invoke"
	const metadata = `X-Amzn-Bedrock-Request-Metadata: {"team":"search","user":"alice"}` + "\r\n"
	for _, tt := range []struct{ path, host, headers, body, service, signed, signature string }{
		{"/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke", "bedrock-runtime.us-east-1.amazonaws.com", metadata, invoke, "bedrock", "content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-request-metadata", "f32008b247a8cfc25a400c40e693202f9990ca1f7504923249880b4cd09c4ba7"},
		{"/model/anthropic.claude-3-haiku-20240307-v1:0/invoke", "bedrock-runtime.us-east-1.amazonaws.com", metadata, invoke, "bedrock", "content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-request-metadata", "0fa9512bfd8277a39d17abe05ea8b231b8a5cda8e2b21553c552314fb1810e9c"},
		{arn, "bedrock-runtime.us-east-1.amazonaws.com", metadata, invoke, "bedrock", "content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-request-metadata", "73f0a9d32760ba344786ca68f0f205ecdce8d8295281c59fb895740a134c9521"},
		{"/openai/v1/responses", "bedrock-mantle.us-east-1.api.aws", "X-Amz-Content-Sha256: 50329e51ad520f21b77bad0b01999930ff556cd1bf18434701251ba6c9f877bc\r\n", `{"model":"gpt-4o","input":"hello"}`, "bedrock-mantle",
			"content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token", "dc20c8fbe516daf0ccae7e5b7a78fc2936870413a9f1af6e1b2d44b970ce411f"},
	} {
		v := NewSigV4(keys, SigV4Config{Now: func() time.Time { return signedAt }})
		verifyWire(t, v, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sX-Amz-Date: 20250102T030405Z\r\nX-Amz-Security-Token: fixture-session-token\r\n"+
			"Content-Length: %d\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20250102/us-east-1/%s/aws4_request, SignedHeaders=%s, Signature=%s\r\n\r\n%s",
			tt.path, tt.host, tt.headers, len(tt.body), tt.service, tt.signed, tt.signature, tt.body))
	}

	s3 := vectorKeys(t, "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "")
	v := NewSigV4(s3, SigV4Config{Services: []string{"s3"}, Now: func() time.Time { return time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC) }})
	verifyWire(t, v, "PUT /examplebucket/chunkObject.txt HTTP/1.1\r\nHost: s3.amazonaws.com\r\nx-amz-date: 20130524T000000Z\r\nx-amz-storage-class: REDUCED_REDUNDANCY\r\n"+
		"Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9\r\n"+
		"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\nContent-Encoding: aws-chunked\r\nx-amz-decoded-content-length: 66560\r\nContent-Length: 66824\r\n\r\n"+
		"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"+strings.Repeat("a", 65536)+"\r\n"+
		"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"+strings.Repeat("a", 1024)+"\r\n"+
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n")
}

// chunked frames a body as the caller's SDK does, so that a test can frame it wrongly.
func chunked(t testing.TB, key corpusKey, decoded int, chunks []string, change func(string) string) *http.Request {
	t.Helper()
	r := signedCall(t, key, call{payload: signedChunks, header: http.Header{"X-Amz-Decoded-Content-Length": {strconv.Itoa(decoded)}, "Content-Encoding": {"aws-chunked"}}})
	auth := r.Header.Get("Authorization")
	seed, err := hex.DecodeString(auth[len(auth)-64:])
	if err != nil {
		t.Fatal(err)
	}
	stream := v4.NewStreamSigner(aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey}, "bedrock", "us-east-1", seed)
	var b strings.Builder
	for _, chunk := range append(chunks, "") {
		sig, err := stream.GetSignature(t.Context(), nil, []byte(chunk), signedAt)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%x;chunk-signature=%x\r\n%s\r\n", len(chunk), sig, chunk)
	}
	text := b.String()
	if change != nil {
		text = change(text)
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), -1
	return r
}

func TestSignedChunks(t *testing.T) {
	key := readCorpusKey(t)
	big, small := strings.Repeat("b", minChunk), "small"
	last := func(s string) string { return s[:strings.LastIndex(s, "0;chunk-signature=")] }
	tests := []struct {
		name    string
		decoded int
		chunks  []string
		change  func(string) string
		want    string // reason or code
	}{
		{"as it should be", minChunk + 5, []string{big, small}, nil, ""},
		{"of one size", 2 * minChunk, []string{big, big}, nil, ""},
		{"size in capitals", 10, []string{"0123456789"}, func(s string) string { return "A" + s[1:] }, ""},
		{"told longer", minChunk + 6, []string{big, small}, nil, "body"},
		{"told shorter", minChunk + 4, []string{big, small}, nil, "body"},
		{"told a chunk shorter", minChunk, []string{big, small}, nil, "body"},
		{"a small chunk before another", minChunk + 5, []string{small, big}, nil, "body"},
		{"chunks in another order", 2*minChunk + 5, []string{big, strings.Repeat("c", minChunk), small}, func(s string) string {
			n := len(s[:strings.Index(s, "\r\n")]) + 2 + minChunk + 2
			return s[n:2*n] + s[:n] + s[2*n:]
		}, "body"},
		{"without the last", 5, []string{small}, last, "WB1207"},
		{"cut in the middle", 5, []string{small}, func(s string) string { return s[:90] }, "WB1207"},
		{"cut in the line", 5, []string{small}, func(s string) string { return s[:9] }, "WB1207"},
		{"something behind", 5, []string{small}, func(s string) string { return s + "x" }, "body"},
		{"the last twice", 5, []string{small}, func(s string) string { return s + s[len(last(s)):] }, "body"},
		{"a trailer", 5, []string{small}, func(s string) string { return strings.TrimSuffix(s, "\r\n") + "x-amz-checksum-crc32:AAAA\r\n\r\n" }, "body"},
		{"another extension", 5, []string{small}, func(s string) string { return strings.Replace(s, "chunk-signature", "chunk-extension", 1) }, "body"},
		{"a line without end", 5, []string{small}, func(s string) string { return strings.Repeat("5", 500) }, "body"},
		{"only line feeds", 5, []string{small}, func(s string) string { return strings.Replace(s, "\r\n", "\n", 1) }, "body"},
		{"a size with zeros", 5, []string{small}, func(s string) string { return "0" + s }, "body"},
		{"a size below none", 5, []string{small}, func(s string) string { return "-" + s }, "body"},
		{"a size with a plus", 5, []string{small}, func(s string) string { return "+" + s }, "body"},
		{"a huge size", 5, []string{small}, func(s string) string { return "7fffffff" + s[1:] }, "body"},
		{"nothing at all", 0, nil, nil, ""},
		{"nothing, without the last", 0, nil, func(string) string { return "" }, "WB1207"},
		{"more than we take", 25_000_001, []string{small}, nil, "WB1205"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, read := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
				v := NewSigV4(signingKeys(t, key), SigV4Config{Now: func() time.Time { return signedAt }})
				r := chunked(t, key, tt.decoded, tt.chunks, tt.change)
				r.Body = io.NopCloser(read(r.Body))
				_, body, err := take(v, r)
				switch e, _ := errors.AsType[*waybill.Error](err); {
				case tt.want == "" && err != nil:
					t.Error(err)
				case tt.want == "":
					if want := strings.Join(tt.chunks, ""); string(body) != want || r.ContentLength != int64(len(want)) || r.Header.Get("Content-Encoding") != "" {
						t.Errorf("%d bytes of %d, encoding %q", len(body), r.ContentLength, r.Header.Get("Content-Encoding"))
					}
				case err == nil:
					t.Error("it is taken")
				case string(reasonOf(err)) != tt.want && e.Code != tt.want:
					t.Errorf("%v, want %s", err, tt.want)
				}
			}
		})
	}
}

// No header, path, query or body makes a request good that was signed with another
// secret, or not at all.
func FuzzVerify(f *testing.F) {
	for _, e := range corpus(f) {
		if len(e.body) < 4096 {
			f.Add(e.wire())
		}
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\nX-Amz-Date: 20250102T030405Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=WBSKCORPUSEXAMPLE234/20250102/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=\r\n\r\n"))
	key := readCorpusKey(f)
	key.SecretAccessKey = "another secret than the corpus is signed with"
	keys := signingKeys(f, key)
	at := signedAt
	v := NewSigV4(keys, SigV4Config{UnsignedEmpty: true, Secure: func(*http.Request) bool { return true }, Now: func() time.Time { return at }})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			return
		}
		// Most of the corpus was signed at one time, the clients' part at another.
		at = signedAt
		if date, err := time.Parse(dateFormat, r.Header.Get("X-Amz-Date")); err == nil {
			at = date
		}
		Signed(r)
		if p, err := v.Authenticate(r); err == nil {
			t.Fatalf("taken, as %s", p.Subject)
		}
	})
}

// Whatever the SDK signs and we do not refuse for its path, we take; and not with
// another body. Left out is what net/http changes between signing and sending: control
// characters in a header's value, and blanks other than ours around it.
func FuzzAgreesWithSDK(f *testing.F) {
	f.Add("/model/a%3Ab/invoke", "a", "b c", "X-Note", "  a  b ", []byte("body"), true)
	f.Add("/model/a:b/ü", "k&", "~+%", "X-Amz-Meta", "é", []byte(""), false)
	f.Add("/", "", "", "Content-Type", "", bytes.Repeat([]byte("x"), 9000), false)
	key := readCorpusKey(f)
	keys := signingKeys(f, key)
	f.Fuzz(func(t *testing.T, path, queryKey, queryValue, name, value string, body []byte, presign bool) {
		u := &url.URL{Scheme: "https", Host: "waybill.example.com", Path: "/" + strings.TrimLeft(path, "/"), RawQuery: url.Values{queryKey: {queryValue, "x"}}.Encode()}
		canonical := http.CanonicalHeaderKey(name)
		if len(queryKey) >= 6 && strings.EqualFold(queryKey[:6], "x-amz-") || strings.ContainsFunc(value, unicode.IsControl) ||
			strings.TrimSpace(value) != strings.Trim(value, " ") || !word(name, 1, 100) || strings.Contains(name, "_") || len(u.RawQuery) > 4096 {
			return
		}
		switch canonical {
		case "Authorization", "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection", "Expect", "User-Agent", "Date", "X-Amz-Date", "X-Amzn-Trace-Id",
			"X-Amz-Security-Token", "X-Amz-Content-Sha256", "X-Amz-Decoded-Content-Length":
			return
		}
		build := func() (*http.Request, bool) {
			r, err := http.NewRequest("POST", u.String(), bytes.NewReader(body))
			if err != nil {
				return nil, false
			}
			r.Header.Set(canonical, value)
			sum := sha256.Sum256(body)
			hash := hex.EncodeToString(sum[:])
			creds := aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey}
			if presign {
				r.URL.RawQuery += "&X-Amz-Expires=60"
				signed, header, err := v4.NewSigner().PresignHTTP(t.Context(), creds, r, hash, "bedrock", "us-east-1", signedAt)
				if err != nil {
					return nil, false
				}
				if r, err = http.NewRequest("POST", signed, bytes.NewReader(body)); err != nil {
					return nil, false
				}
				r.Header = header
			} else if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hash, "bedrock", "us-east-1", signedAt); err != nil {
				return nil, false
			}
			var b bytes.Buffer
			if err := r.Write(&b); err != nil {
				return nil, false
			}
			got, err := http.ReadRequest(bufio.NewReader(&b))
			return got, err == nil
		}
		r, ok := build()
		if !ok {
			return
		}
		config := SigV4Config{Now: func() time.Time { return signedAt }}
		_, got, err := take(NewSigV4(keys, config), r)
		if reasonOf(err) == ReasonPath {
			return
		}
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%s: %v", r.RequestURI, err)
		}
		r, _ = build()
		other := append(bytes.Clone(body), 'x')
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(other)), int64(len(other))
		if _, _, err := take(NewSigV4(keys, config), r); err == nil {
			t.Fatal("taken with another body")
		}
	})
}

func BenchmarkSigV4(b *testing.B) {
	key := readCorpusKey(b)
	keys := signingKeys(b, key)
	now := signedAt
	for _, size := range []int{1 << 10, 200 << 10} {
		for _, declare := range []bool{true, false} {
			body := strings.Repeat("x", size)
			pristine := signedCall(b, key, call{body: body, declare: declare, header: http.Header{"Content-Type": {"application/json"}}})
			b.Run(fmt.Sprintf("%dKB/declared=%v", size>>10, declare), func(b *testing.B) {
				v := NewSigV4(keys, SigV4Config{Repeats: 65535, Now: func() time.Time { return now }})
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					r := *pristine
					r.Body = io.NopCloser(strings.NewReader(body))
					if _, err := v.Authenticate(&r); err != nil {
						v.seen.young, v.seen.old = nil, nil // so many repeats are the benchmark's own
						continue
					}
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	b.Run("derive", func(b *testing.B) {
		_, k, err := keys.find(key.AccessKeyID)
		if err != nil {
			b.Fatal(err)
		}
		s := scope{"20250102", "us-east-1", "bedrock"}
		for name, forget := range map[string]bool{"kept": false, "anew": true} {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					if forget {
						k.derived = nil
					}
					sum, kept := k.derive(s)
					if !kept {
						k.keep(s, sum)
					}
				}
			})
		}
	})
}
