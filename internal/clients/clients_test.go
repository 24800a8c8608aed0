package clients

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// A client is a stock client, with what its users set and nothing else.
type client struct {
	name string
	// script is run in testdata; empty for the SDK for Go, which is built in here.
	script string
	env    []string
	// errors are the classes of what a user sees of the cases that fail. The last one is
	// that of the gateway's own refusal.
	throttled, invalid, untagged string
}

var (
	bearer = []string{"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url}", "AWS_BEARER_TOKEN_BEDROCK={bearer}"}
	signed = []string{"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url}", "AWS_ACCESS_KEY_ID={id}", "AWS_SECRET_ACCESS_KEY={secret}"}
)

var clients = []client{
	{"aws-sdk-go-bearer", "", bearer, "types.ThrottlingException", "types.ValidationException", "types.AccessDeniedException"},
	{"aws-sdk-go-signed", "", signed, "types.ThrottlingException", "types.ValidationException", "types.AccessDeniedException"},
	{"aws-sdk-js-bearer", "js/aws-sdk.mjs", bearer, "ThrottlingException", "ValidationException", "AccessDeniedException"},
	{"aws-sdk-js-signed", "js/aws-sdk.mjs", signed, "ThrottlingException", "ValidationException", "AccessDeniedException"},
	{"anthropic-js-bedrock-bearer", "js/anthropic-bedrock.mjs", []string{"ANTHROPIC_BEDROCK_BASE_URL={url}", "AWS_BEARER_TOKEN_BEDROCK={bearer}"},
		"RateLimitError", "BadRequestError", "PermissionDeniedError"},
	{"anthropic-js-bedrock-signed", "js/anthropic-bedrock.mjs", []string{"ANTHROPIC_BEDROCK_BASE_URL={url}", "AWS_ACCESS_KEY_ID={id}", "AWS_SECRET_ACCESS_KEY={secret}"},
		"RateLimitError", "BadRequestError", "PermissionDeniedError"},
	{"ai-sdk-bearer", "js/ai-sdk.mjs", bearer, "AI_APICallError", "AI_APICallError", "AI_APICallError"},
	{"ai-sdk-signed", "js/ai-sdk.mjs", signed, "AI_APICallError", "AI_APICallError", "AI_APICallError"},
	{"langchain-js", "js/langchain.mjs", bearer, "ThrottlingException", "ValidationException", "AccessDeniedException"},
	{"boto3-bearer", "py/with_boto3.py", bearer, "ThrottlingException", "ValidationException", "AccessDeniedException"},
	{"boto3-signed", "py/with_boto3.py", signed, "ThrottlingException", "ValidationException", "AccessDeniedException"},
	{"anthropic-py-bedrock-bearer", "py/with_anthropic_bedrock.py", []string{"ANTHROPIC_BEDROCK_BASE_URL={url}", "AWS_BEARER_TOKEN_BEDROCK={bearer}"},
		"RateLimitError", "BadRequestError", "PermissionDeniedError"},
	{"anthropic-py-bedrock-signed", "py/with_anthropic_bedrock.py", []string{"ANTHROPIC_BEDROCK_BASE_URL={url}", "AWS_ACCESS_KEY_ID={id}", "AWS_SECRET_ACCESS_KEY={secret}"},
		"RateLimitError", "BadRequestError", "PermissionDeniedError"},
	{"langchain-py", "py/with_langchain.py", bearer, "ThrottlingException", "ValidationException", "AccessDeniedException"},
}

// A line is what the client's user sees of one case.
type line struct {
	Case    string
	Text    string
	Tool    any
	Error   string
	Status  int
	Message string
	// all is the line as it was said.
	all string
}

// differs are the headers in which the two ways may differ: who answered when, which call
// it was, and what belongs to a connection.
var differs = map[string]bool{"Date": true, "X-Amzn-Requestid": true, "X-Waybill-Call-Id": true, "Connection": true, "Keep-Alive": true, "Transfer-Encoding": true}

// Stock clients get through the gateway what they get without it: the same bytes, and so
// the same answers and errors. What the gateway refuses they show as an error of their
// own, once.
func TestStockClients(t *testing.T) {
	s := newStand(t)
	t.Run("client", func(t *testing.T) {
		for _, c := range clients {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s.try(t, c)
			})
		}
	})
	s.checkRecords(t, s.stop(t))
}

func (s *stand) try(t *testing.T, c client) {
	interpreter := find(t, c)
	straight, through := s.newFront(t, s.aws), s.newFront(t, s.gateway)
	without := s.run(t, c, interpreter, straight, direct)
	with := s.run(t, c, interpreter, through, s.caller(t, c.name))
	if len(with) != len(without) || len(with) < 5 {
		t.Fatalf("%d cases with the gateway, %d without", len(with), len(without))
	}
	for i, got := range with {
		want := without[i]
		switch got.Case {
		case "untagged":
			s.checkRefused(t, c, got)
			continue
		case "throttled":
			if want.Error != c.throttled || want.Status != http.StatusTooManyRequests {
				t.Errorf("throttled: %s, want %s", want.all, c.throttled)
			}
		case "invalid":
			if want.Error != c.invalid || want.Status != http.StatusBadRequest && want.Status != http.StatusNotFound {
				t.Errorf("invalid: %s, want %s", want.all, c.invalid)
			}
		default:
			if want.Error != "" {
				t.Errorf("%s fails without the gateway: %s", want.Case, want.all)
			}
		}
		if got.all != want.all {
			t.Errorf("%s:\n%s", got.Case, cmp.Diff(want.all, got.all))
		}
	}
	sameBytes(t, straight.exchanges(), through.exchanges())
}

// find finds what runs a script, or skips.
func find(t *testing.T, c client) string {
	t.Helper()
	switch filepath.Ext(c.script) {
	case ".mjs":
		path, err := exec.LookPath("node")
		if err != nil {
			t.Skip("node is not here: install it to test the clients for JavaScript")
		}
		if _, err := os.Stat("testdata/js/node_modules/ai/package.json"); err != nil {
			t.Skip("the clients for JavaScript are not here: (cd internal/clients/testdata/js && npm ci)")
		}
		return path
	case ".py":
		path, err := exec.LookPath("python3")
		if err != nil {
			t.Skip("python3 is not here: install it to test the clients for Python")
		}
		if err := exec.Command(path, "-c", "from importlib.metadata import version as v; v('boto3'), v('anthropic'), v('openai'), v('langchain-aws')").Run(); err != nil {
			t.Skip("the clients for Python are not here: pip install -r internal/clients/testdata/py/requirements.txt, in a virtual environment on the PATH")
		}
		return path
	}
	path, err := os.Executable() // this program is the client: see TestMain
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a client against a front, and gives what its user sees.
func (s *stand) run(t *testing.T, c client, interpreter string, f *front, p proof) []line {
	t.Helper()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_RETRY_MODE=standard", "AWS_MAX_ATTEMPTS=2", "PYTHONDONTWRITEBYTECODE=1",
		"NODE_EXTRA_CA_CERTS=" + s.ca, "SSL_CERT_FILE=" + s.ca, "AWS_CA_BUNDLE=" + s.ca, "WAYBILL_TAGGED_KEY=" + p.tagged}
	for _, e := range c.env {
		env = append(env, fill(e, f, p))
	}
	cmd := exec.CommandContext(t.Context(), interpreter)
	if c.script == "" {
		env = append(env, clientVariable+"=go")
	} else {
		path := filepath.Join("testdata", c.script)
		if _, err := os.ReadFile(path); err != nil { // so that go test runs anew when it has changed
			t.Fatal(err)
		}
		cmd.Args, cmd.Dir = append(cmd.Args, filepath.Base(path)), filepath.Dir(path)
	}
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = env, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", c.name, err, out, stderr.String())
	}
	var lines []line
	for text := range strings.Lines(string(out)) {
		l := line{all: text}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s said %q: %v", c.script, text, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// checkRefused holds what a user sees of a call without a tag that is required.
func (s *stand) checkRefused(t *testing.T, c client, got line) {
	t.Helper()
	if got.Error != c.untagged || got.Status != http.StatusForbidden {
		t.Errorf("a refusal is shown as %s, want %s", got.all, c.untagged)
	}
	for _, part := range []string{`tag "purpose" is required`, "tests"} {
		if !strings.Contains(got.Message, part) {
			t.Errorf("a refusal does not say %q: %s", part, got.all)
		}
	}
}

// sameBytes holds what the client received on both ways against each other. The call that
// the gateway refuses, and AWS does not, is told from the others by its header; it is
// made once.
func sameBytes(t *testing.T, without, with []*exchange) {
	t.Helper()
	refused := slices.IndexFunc(with, func(e *exchange) bool { return e.header.Get("X-Waybill-Error") != "" })
	if refused < 0 || len(with) != len(without) {
		t.Fatalf("%d exchanges with the gateway and %d without, refused is the one at %d", len(with), len(without), refused)
	}
	for i, got := range with {
		want := without[i]
		if !got.whole || !want.whole || got.request != want.request {
			t.Errorf("%s is whole: %t; %s is whole: %t", got.request, got.whole, want.request, want.whole)
		}
		if i == refused {
			continue
		}
		if got.status != want.status || !bytes.Equal(got.body.Bytes(), want.body.Bytes()) {
			t.Errorf("with the gateway:\n%v\nwithout:\n%v", got, want)
		}
		if diff := cmp.Diff(compared(want.header), compared(got.header)); diff != "" {
			t.Errorf("%s: headers without the gateway (-) and with it (+):\n%s", got.request, diff)
		}
	}
}

// compared are the headers that must be the same.
func compared(h http.Header) http.Header {
	out := make(http.Header)
	for name, values := range h {
		if !differs[name] {
			out[name] = values
		}
	}
	return out
}

// checkRecords holds what reached AWS through the gateway, and the gateway's journal,
// against each other.
func (s *stand) checkRecords(t *testing.T, records []waybill.Invocation) {
	t.Helper()
	byRequest := make(map[string][]waybill.Invocation)
	refused := make(map[string]int)
	for _, r := range records {
		if r.Outcome == waybill.Refused {
			refused[r.Principal]++
			continue
		}
		byRequest[r.RequestID] = append(byRequest[r.RequestID], r)
	}
	served := make(map[string]int)
	for _, call := range s.world.Calls() {
		if call.PrincipalARN == directUser {
			continue
		}
		user := call.SessionTags["user"]
		served[user]++
		if want := "arn:aws:sts::111122223333:assumed-role/bedrock/" + user; call.PrincipalARN != want {
			t.Errorf("%s of %s is made by %s", call.Operation, user, call.PrincipalARN)
		}
		want := map[string]string{"team": "search", "user": user, "purpose": "tests"}
		if diff := cmp.Diff(want, call.SessionTags); diff != "" {
			t.Errorf("%s of %s: session tags:\n%s", call.Operation, user, diff)
		}
		if diff := cmp.Diff(want, call.Metadata); diff != "" {
			t.Errorf("%s of %s: request metadata:\n%s", call.Operation, user, diff)
		}
		entries := byRequest[call.RequestID]
		if len(entries) != 1 {
			t.Errorf("%s of %s is in the journal %d times", call.Operation, user, len(entries))
			continue
		}
		delete(byRequest, call.RequestID)
		r := entries[0]
		if r.Principal != user || r.Operation != call.Operation || r.Status != call.Status {
			t.Errorf("the journal has %s of %s with %d, AWS %s of %s with %d", r.Operation, r.Principal, r.Status, call.Operation, user, call.Status)
		}
		if call.Status != http.StatusOK {
			continue
		}
		if !r.Usage.Known || r.Usage.Of(waybill.Input) != call.InputTokens || r.Usage.Of(waybill.Output) != call.OutputTokens {
			t.Errorf("%s of %s: the journal has %v, AWS %d in and %d out", call.Operation, user, r.Usage, call.InputTokens, call.OutputTokens)
		}
	}
	for id, entries := range byRequest {
		t.Errorf("the journal has call %s of %s, which AWS never saw", id, entries[0].Principal)
	}
	for user := range served {
		if refused[user] != 1 {
			t.Errorf("%s was refused %d times, want once", user, refused[user])
		}
	}
	if len(served) < 2 { // the SDK for Go is always here
		t.Errorf("calls of %d clients reached AWS", len(served))
	}
}
