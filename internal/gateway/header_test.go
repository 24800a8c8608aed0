package gateway_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// What AWS reads of a request's headers goes on, value for value, whatever the value:
// versions and betas are the vendors' to name. What tells of the client, of who pays it, of
// the way or of the caller's identity stays. The page for operators lists what goes on.
func TestHeaders(t *testing.T) {
	pass := map[string][]string{
		"Accept": {"application/json"}, "Accept-Language": {"en"}, "Content-Type": {"application/json; charset=utf-8"}, "User-Agent": {"Anthropic/Python 1.2.3"},
		"Anthropic-Version": {"2026-10-21"}, "Anthropic-Beta": {"context-1m-2025-08-07,files-api-2025-04-14", "of-tomorrow-2027-01-01"}, "Openai-Beta": {"responses=v2"},
		"Idempotency-Key": {"stainless-python-retry-1"}, "Amz-Sdk-Invocation-Id": {"0195e000"}, "Amz-Sdk-Request": {"attempt=1; max=3"},
		"Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, "Tracestate": {"a=b"}, "X-Amzn-Trace-Id": {"Root=1-67891233-abcdef012345678912345678"},
		"X-Amzn-Bedrock-Trace": {"ENABLED"}, "X-Amzn-Bedrock-Guardrailidentifier": {"abc"}, "X-Amzn-Bedrock-Accept": {"application/json"}, "X-Amzn-Bedrock-Of-Tomorrow": {"1"},
	}
	stay := map[string]string{
		"X-Stainless-Lang": "python", "X-Stainless-Package-Version": "1.2.3", "X-Stainless-Os": "Linux", "X-Stainless-Arch": "x64", "X-Stainless-Runtime": "CPython",
		"X-Stainless-Retry-Count": "0", "X-Stainless-Read-Timeout": "600", "X-Stainless-Helper-Method": "stream", "X-Stainless-Async": "false",
		"Openai-Organization": "org-1", "Openai-Project": "proj_other", "Anthropic-Workspace-Id": "proj_other", "Anthropic-Dangerous-Direct-Browser-Access": "true", "X-Client-Request-Id": "1",
		"X-Amz-User-Agent": "aws-sdk-js/3", "X-App": "cli", "Cookie": "a=b", "Origin": "https://example.com", "Referer": "https://example.com", "X-Forwarded-For": "192.0.2.1",
		"Via": "1.1 proxy", "Forwarded": "for=192.0.2.1", "X-Real-Ip": "192.0.2.1", "Accept-Encoding": "gzip, zstd", "X-Waybill-Tags": "team=search",
	}
	for name, path := range map[string]string{"AWS": answerPath, "InvokeModel": "/model/" + claude + "/invoke", "OpenAI": "/v1/chat/completions", "Anthropic": messagesPath} {
		s := newStand(t, func(_ *fakeaws.Config, c *gateway.Config) {
			c.Upstream = map[waybill.Endpoint]string{waybill.Runtime: "http://aws", waybill.Mantle: "http://aws"}
		})
		c := new(catcher)
		s.gw.Client = c
		body := messages
		if name == "AWS" {
			body = hello
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range pass {
			r.Header[k] = v
		}
		for k, v := range stay {
			r.Header.Set(k, v)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != 200 {
			t.Fatalf("%s: %d", name, a.StatusCode)
		}
		got := make(http.Header)
		for k, v := range c.last(t).header {
			got[http.CanonicalHeaderKey(k)] = v
		}
		for k, want := range pass {
			if fmt.Sprint(got[k]) != fmt.Sprint(want) {
				t.Errorf("%s: AWS saw %s: %q, want %q", name, k, got[k], want)
			}
			delete(got, k)
		}
		for _, ours := range []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256", "X-Amzn-Bedrock-Request-Metadata"} {
			delete(got, ours)
		}
		if len(got) != 0 {
			t.Errorf("%s: AWS saw %v too", name, got)
		}
	}
	page, err := os.ReadFile("../../docs/operate/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	for k := range pass {
		if strings.HasPrefix(k, "X-Amzn-Bedrock-") {
			k = "X-Amzn-Bedrock-*"
		}
		if !strings.Contains(strings.ToLower(string(page)), "`"+strings.ToLower(k)+"`") {
			t.Errorf("docs/operate/clients.md does not say that %s goes on", k)
		}
	}
}
