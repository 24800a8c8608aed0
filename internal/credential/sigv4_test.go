package credential

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/waybill-dev/waybill"
)

var vectorKeys = aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", SessionToken: "fixture-session-token"}

// Signatures are those that independent implementations compute: botocore for the
// runtime and STS, the OpenAI SDK for mantle.
func TestSignatureVectors(t *testing.T) {
	signer := NewSigner(nil, credentials.NewStaticCredentialsProvider(vectorKeys.AccessKeyID, vectorKeys.SecretAccessKey, vectorKeys.SessionToken))
	signer.now = func() time.Time { return time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC) }
	const runtime, claude = "https://bedrock-runtime.us-east-1.amazonaws.com", `{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`
	metadata := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"not signed"}, "X-Amzn-Bedrock-Request-Metadata": {`{"team":"search","user":"alice"}`}}
	mantle := `{"model":"gpt-4o","input":"hello"}`
	sum := sha256.Sum256([]byte(mantle))
	for _, tt := range []struct {
		service, url, body string
		header             http.Header
		signature          string
	}{
		{"bedrock", runtime + "/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke", claude, metadata, "f32008b247a8cfc25a400c40e693202f9990ca1f7504923249880b4cd09c4ba7"},
		{"bedrock", runtime + "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke", claude, metadata, "0fa9512bfd8277a39d17abe05ea8b231b8a5cda8e2b21553c552314fb1810e9c"},
		{"bedrock", runtime + "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fabc123def456/invoke", claude, metadata, "73f0a9d32760ba344786ca68f0f205ecdce8d8295281c59fb895740a134c9521"},
		{"bedrock-mantle", "https://bedrock-mantle.us-east-1.api.aws/openai/v1/responses", mantle,
			http.Header{"Content-Type": {"application/json"}, "X-Amz-Content-Sha256": {hex.EncodeToString(sum[:])}}, "dc20c8fbe516daf0ccae7e5b7a78fc2936870413a9f1af6e1b2d44b970ce411f"},
		{"sts", "https://sts.us-east-1.amazonaws.com/", "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fbedrock-prod&RoleSessionName=alice&DurationSeconds=3600&Tags.member.1.Key=team&Tags.member.1.Value=search",
			http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}, "bf69ca41b5aaa4fa2031dd2900d003c424dc1bb0481935920df24eb3fec1c413"},
	} {
		for range 2 { // the second time with the key that was kept
			r, err := http.NewRequestWithContext(t.Context(), "POST", tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = tt.header.Clone()
			if _, err := signer.Sign(t.Context(), r, []byte(tt.body), tt.service, "us-east-1", waybill.RoleSession{}); err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+tt.signature) {
				t.Errorf("%s: %s", tt.url, got)
			}
			for name := range tt.header {
				if r.Header.Get(name) != tt.header.Get(name) {
					t.Errorf("%s: header %s was changed", tt.url, name)
				}
			}
		}
	}
}

// oracle signs as we did before: with the SDK's signer, which is shown the headers that
// go into a signature.
func oracle(t testing.TB, r *http.Request, c aws.Credentials, body []byte, service, region string, now time.Time) {
	shown := make(http.Header)
	for name, values := range r.Header {
		if signedName(name) != "" {
			shown[name] = values
		}
	}
	all := r.Header
	r.Header = shown
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), c, r, hex.EncodeToString(sum[:]), service, region, now); err != nil {
		t.Fatal(err)
	}
	for name, values := range shown {
		all[name] = values
	}
	r.Header = all
}

// FuzzSign holds our signature to the SDK's, byte for byte, and what else is done to
// the request too.
func FuzzSign(f *testing.F) {
	f.Add("POST", "https", "bedrock-runtime.us-east-1.amazonaws.com", "/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke", "", "application/json", `{"team":"search"}`, "x", []byte("{}"), "bedrock", "us-east-1", "token", int64(1735787045))
	f.Add("GET", "http", "127.0.0.1:80", "/v1/models/a b", "b=2&a=%2F&a=-&c", "", "  a   b  ", "", []byte(nil), "bedrock-mantle", "eu-west-1", "", int64(0))
	f.Add("DELETE", "https", "[::1]:443", "", "x=+%20&y=;", "a, b", "\tx  y\t", "1", []byte("x"), "sts", "", "t", int64(1767225599))
	f.Add("POST", "https", "h:8443", "/a/%2f/../é", "a=%zz&=1", "é", "", "q", []byte{0, 255}, "s3", "us-east-1", "t", int64(99999999999))
	f.Fuzz(func(t *testing.T, method, scheme, host, path, query, contentType, metadata, other string, body []byte, service, region, token string, at int64) {
		if at < 0 || at > 253402300799 || strings.TrimSpace(host) != host { // years of four digits; hosts that can be
			t.Skip()
		}
		make := func() *http.Request {
			r, err := http.NewRequest("POST", "http://example.com/", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			unescaped, err := url.PathUnescape(path)
			if err != nil {
				unescaped = path
			}
			r.Method, r.URL.Scheme, r.URL.Host, r.Host = method, scheme, host, ""
			r.URL.Path, r.URL.RawPath, r.URL.RawQuery = unescaped, path, query
			r.Header = http.Header{"Content-Type": {contentType}, "X-Amzn-Bedrock-Request-Metadata": {metadata, other}, "User-Agent": {other},
				"X-Amzn-Trace-Id": {other}, "Anthropic-Version": {other}, "X-Amzn-Bedrock-Trace": {other}, "Authorization": {"old"}}
			return r
		}
		c := aws.Credentials{AccessKeyID: "AKID" + other, SecretAccessKey: "secret" + metadata, SessionToken: token}
		now := time.Unix(at, 0)
		want, got := make(), make()
		oracle(t, want, c, body, service, region, now)
		keys := &signingKeys{Credentials: c}
		for range 2 {
			keys.sign(got, sha256.Sum256(body), service, region, now)
			if w, g := fmt.Sprint(want.Header, want.URL, want.Host), fmt.Sprint(got.Header, got.URL, got.Host); w != g {
				t.Fatalf("got  %s\nwant %s", g, w)
			}
		}
	})
}

// A kept key is the key of its day, Region and service, however many there are and
// however many ask at once.
func TestKeptKeys(t *testing.T) {
	keys := &signingKeys{Credentials: vectorKeys}
	begin := time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 400 {
				now := begin.Add(time.Duration(i*w) * 7 * time.Minute)
				region, service := fmt.Sprintf("region-%d", i%11), []string{"bedrock", "bedrock-mantle"}[i%2]
				make := func() *http.Request {
					r, _ := http.NewRequest("POST", "https://example.com/", nil)
					return r
				}
				want, got := make(), make()
				oracle(t, want, vectorKeys, nil, service, region, now)
				keys.sign(got, sha256.Sum256(nil), service, region, now)
				if w, g := want.Header.Get("Authorization"), got.Header.Get("Authorization"); w != g {
					t.Errorf("got %s, want %s", g, w)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	for d := keys.derived.Load(); d != nil; d = d.next {
		n++
	}
	if n > keptKeys {
		t.Errorf("%d keys are kept, want at most %d", n, keptKeys)
	}
}

// A token that came with the request does not go out under credentials that have none.
func TestNoStrangersToken(t *testing.T) {
	signer := NewSigner(nil, credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""))
	r, _ := http.NewRequestWithContext(t.Context(), "POST", "https://example.com/", nil)
	r.Header.Set("X-Amz-Security-Token", "a stranger's")
	if _, err := signer.Sign(t.Context(), r, nil, "bedrock", "us-east-1", waybill.RoleSession{}); err != nil || r.Header.Get("X-Amz-Security-Token") != "" {
		t.Errorf("token %q, %v", r.Header.Get("X-Amz-Security-Token"), err)
	}
}

func BenchmarkGet(b *testing.B) {
	s := NewSessions(&fakeSTS{}, Config{})
	defer s.Close()
	w := want("user-17")
	if _, err := s.Get(b.Context(), w); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Get(b.Context(), w)
	}
}

// BenchmarkSign is a whole Sign, session, hash of the body and signature; sdk is the
// SDK's signer doing the same.
func BenchmarkSign(b *testing.B) {
	s := NewSessions(&fakeSTS{}, Config{})
	defer s.Close()
	signer, w := NewSigner(s, nil), want("user-17")
	held, err := s.Get(b.Context(), w)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1 << 10, 20 << 10, 200 << 10} {
		body := bytes.Repeat([]byte("x"), size)
		r, _ := http.NewRequestWithContext(b.Context(), "POST", "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke", bytes.NewReader(body))
		r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}, "User-Agent": {"x"}, "Amz-Sdk-Invocation-Id": {"x"}, "Amz-Sdk-Request": {"x"},
			"X-Amzn-Bedrock-Request-Metadata": {`{"team":"search","user":"alice"}`}}
		b.Run(fmt.Sprintf("own/%dKB", size>>10), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := signer.SignCall(b.Context(), r, body, "bedrock", "us-east-1", w); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("key/%dKB", size>>10), func(b *testing.B) {
			signer := NewSigner(s, nil)
			signer.UseKeys()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := signer.SignCall(b.Context(), r, body, "bedrock", "us-east-1", w); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("sdk/%dKB", size>>10), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(b.Context(), w); err != nil {
					b.Fatal(err)
				}
				oracle(b, r, held.Credentials(), body, "bedrock", "us-east-1", time.Now())
			}
		})
	}
}
