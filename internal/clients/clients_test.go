package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

// A client is a stock client, with what its users set and nothing else.
type client struct {
	name string
	// script is run in testdata; empty for the SDK for Go, which is built in here.
	script string
	env    []string
	errors classes
	// host is the name by which the client finds AWS and the gateway, where it matters.
	host string
}

// classes are the client's own names of errors: of AWS's throttling, of AWS's word for a
// model that there is none of, and of the gateway's refusal.
type classes struct{ throttled, unknown, refused string }

var (
	smithy    = classes{"ThrottlingException", "ValidationException", "AccessDeniedException"}
	goTypes   = classes{"types.ThrottlingException", "types.ValidationException", "types.AccessDeniedException"}
	stainless = classes{"RateLimitError", "BadRequestError", "PermissionDeniedError"}
	onMantle  = classes{"RateLimitError", "NotFoundError", "PermissionDeniedError"}
	vercel    = classes{"AI_APICallError", "AI_APICallError", "AI_APICallError"}
)

// What users set, as docs/operate/clients.md has it.
var (
	bearer          = []string{"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url}", "AWS_BEARER_TOKEN_BEDROCK={bearer}"}
	signed          = []string{"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url}", "AWS_ACCESS_KEY_ID={id}", "AWS_SECRET_ACCESS_KEY={secret}"}
	anthropicBearer = []string{"ANTHROPIC_BEDROCK_BASE_URL={url}", "AWS_BEARER_TOKEN_BEDROCK={bearer}"}
	anthropicSigned = []string{"ANTHROPIC_BEDROCK_BASE_URL={url}", "AWS_ACCESS_KEY_ID={id}", "AWS_SECRET_ACCESS_KEY={secret}"}
	anthropicPlain  = []string{"ANTHROPIC_BASE_URL={url}/anthropic", "ANTHROPIC_CUSTOM_HEADERS=X-Waybill-Tags: purpose=tests", "ANTHROPIC_API_KEY={bearer}", "CLIENT=Anthropic", "MODEL=" + claude}
	anthropicMantle = []string{"ANTHROPIC_BEDROCK_MANTLE_BASE_URL={url}/anthropic", "ANTHROPIC_CUSTOM_HEADERS=X-Waybill-Tags: purpose=tests", "AWS_BEARER_TOKEN_BEDROCK={bearer}", "CLIENT=AnthropicBedrockMantle", "MODEL=anthropic.claude-haiku-4-5"}
	openAIRuntime   = []string{"OPENAI_BASE_URL={url}/openai/v1", "OPENAI_CUSTOM_HEADERS=X-Waybill-Tags: purpose=tests", "OPENAI_API_KEY={bearer}", "CLIENT=OpenAI", "MODEL=openai.gpt-oss-120b-1:0", "RESPONSES_MODEL=us.openai.gpt-5.6-sol"}
	openAIBearer    = []string{"AWS_BEDROCK_BASE_URL={url}/v1", "AWS_BEARER_TOKEN_BEDROCK={bearer}", "CLIENT=BedrockOpenAI", "MODEL=openai.gpt-oss-120b", "RESPONSES_MODEL=openai.gpt-oss-120b"}
	openAISigned    = []string{"AWS_BEDROCK_BASE_URL={url}/v1", "AWS_ACCESS_KEY_ID={id}", "AWS_SECRET_ACCESS_KEY={secret}", "CLIENT=BedrockOpenAI", "MODEL=openai.gpt-oss-120b", "RESPONSES_MODEL=openai.gpt-oss-120b"}
	openAIMantle    = []string{"OPENAI_BASE_URL={url}/v1", "OPENAI_CUSTOM_HEADERS=X-Waybill-Tags: purpose=tests", "OPENAI_API_KEY={bearer}", "CLIENT=OpenAI", "MODEL=openai.gpt-oss-120b", "RESPONSES_MODEL=openai.gpt-oss-120b", "EMBEDDING_MODEL=cohere.embed-v4"}
)

// mantle is a name by which a gateway tells calls to bedrock-mantle, where their path does
// not.
const mantle = "bedrock-mantle.us-east-1.example.com"

var clients = []client{
	{"go-bearer", "", bearer, goTypes, ""},
	{"go-signed", "", signed, goTypes, ""},
	{"aws-sdk-js-bearer", "js/aws-sdk.mjs", bearer, smithy, ""},
	{"aws-sdk-js-signed", "js/aws-sdk.mjs", signed, smithy, ""},
	{"anthropic-bedrock-js-bearer", "js/anthropic-bedrock.mjs", anthropicBearer, stainless, ""},
	{"anthropic-bedrock-js-signed", "js/anthropic-bedrock.mjs", anthropicSigned, stainless, ""},
	{"anthropic-js", "js/anthropic.mjs", anthropicPlain, stainless, ""},
	{"openai-js-runtime", "js/openai.mjs", openAIRuntime, stainless, ""},
	{"openai-js-mantle", "js/openai.mjs", openAIMantle, onMantle, ""},
	{"ai-sdk-bearer", "js/ai-sdk.mjs", bearer, vercel, ""},
	{"ai-sdk-signed", "js/ai-sdk.mjs", signed, vercel, ""},
	{"langchain-js", "js/langchain.mjs", bearer, smithy, ""},
	{"boto3-bearer", "py/with_boto3.py", bearer, smithy, ""},
	{"boto3-signed", "py/with_boto3.py", signed, smithy, ""},
	{"anthropic-bedrock-py-bearer", "py/with_anthropic_bedrock.py", anthropicBearer, stainless, ""},
	{"anthropic-bedrock-py-signed", "py/with_anthropic_bedrock.py", anthropicSigned, stainless, ""},
	{"anthropic-py", "py/with_anthropic.py", anthropicPlain, stainless, ""},
	{"anthropic-py-mantle", "py/with_anthropic.py", anthropicMantle, onMantle, mantle},
	{"openai-py-runtime", "py/with_openai.py", openAIRuntime, stainless, ""},
	{"openai-py-mantle", "py/with_openai.py", openAIMantle, onMantle, ""},
	{"openai-py-bedrock-bearer", "py/with_openai.py", openAIBearer, onMantle, ""},
	{"openai-py-bedrock-signed", "py/with_openai.py", openAISigned, onMantle, ""},
	{"langchain-py", "py/with_langchain.py", bearer, smithy, ""},
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
var differs = map[string]bool{"Date": true, "X-Amzn-Requestid": true, "X-Request-Id": true, "Request-Id": true, "X-Waybill-Call-Id": true, "Connection": true, "Keep-Alive": true, "Transfer-Encoding": true}

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
	straight, through := s.newFront(t, s.aws, c.host), s.newFront(t, s.gateway, c.host)
	without := s.run(t, c, interpreter, straight, direct)
	with := s.run(t, c, interpreter, through, s.callers[c.name])
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
			if want.Error != c.errors.throttled || want.Status != http.StatusTooManyRequests {
				t.Errorf("throttled: %s, want %s", want.all, c.errors.throttled)
			}
		case "invalid":
			if want.Error != c.errors.unknown || want.Status != http.StatusBadRequest && want.Status != http.StatusNotFound {
				t.Errorf("invalid: %s, want %s", want.all, c.errors.unknown)
			}
		default:
			if want.Error != "" {
				t.Errorf("%s fails without the gateway: %s", want.Case, want.all)
			}
		}
		if got.all != want.all {
			t.Errorf("%s: %s", got.Case, parting(got.all, want.all))
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
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, interpreter)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // a Go program then says where it stands
	cmd.WaitDelay = 5 * time.Second
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
	if got.Error != c.errors.refused || got.Status != http.StatusForbidden {
		t.Errorf("a refusal is shown as %s, want %s", got.all, c.errors.refused)
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
		if got.status != want.status || !bytes.Equal(got.withoutID(), want.withoutID()) {
			t.Errorf("%s: %d and %d: %s", got.request, got.status, want.status, parting(string(got.withoutID()), string(want.withoutID())))
		}
		if diff := cmp.Diff(compared(want.header), compared(got.header)); diff != "" {
			t.Errorf("%s: headers without the gateway (-) and with it (+):\n%s", got.request, diff)
		}
	}
}

// parting shows where two texts part.
func parting(with, without string) string {
	i := 0
	for i < len(with) && i < len(without) && with[i] == without[i] {
		i++
	}
	from := max(i-100, 0)
	return fmt.Sprintf("from byte %d, with the gateway:\n%q\nwithout:\n%q", i, with[from:min(len(with), i+200)], without[from:min(len(without), i+200)])
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

// carriesMetadata are the operations that take request metadata. The fake reads it after
// it has looked for the model.
var carriesMetadata = map[string]bool{"Converse": true, "ConverseStream": true, "InvokeModel": true, "InvokeModelWithResponseStream": true}

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
		if diff := cmp.Diff(want, call.Metadata); diff != "" && carriesMetadata[call.Operation] && call.Status != http.StatusBadRequest {
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
	if len(served) == 0 { // the SDK for Go is always here
		t.Error("no call reached AWS through the gateway")
	}
}
