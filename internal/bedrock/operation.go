package bedrock

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
)

// An Operation is what a path does. The names of the native ones are AWS's own, as
// the invocation log writes them.
type Operation string

// The operations that are served.
const (
	Converse                      Operation = "Converse"
	ConverseStream                Operation = "ConverseStream"
	InvokeModel                   Operation = "InvokeModel"
	InvokeModelWithResponseStream Operation = "InvokeModelWithResponseStream"
	CountTokens                   Operation = "CountTokens"
	ApplyGuardrail                Operation = "ApplyGuardrail"
	InvokeGuardrailChecks         Operation = "InvokeGuardrailChecks"
	StartAsyncInvoke              Operation = "StartAsyncInvoke"
	GetAsyncInvoke                Operation = "GetAsyncInvoke"
	ListAsyncInvokes              Operation = "ListAsyncInvokes"
	ChatCompletions               Operation = "ChatCompletions"
	Responses                     Operation = "Responses"
	GetResponse                   Operation = "GetResponse"
	DeleteResponse                Operation = "DeleteResponse"
	CancelResponse                Operation = "CancelResponse"
	CompactResponse               Operation = "CompactResponse"
	Messages                      Operation = "Messages"
	CountMessageTokens            Operation = "CountMessageTokens"
	ListModels                    Operation = "ListModels"
	GetModel                      Operation = "GetModel"
	Embeddings                    Operation = "Embeddings"
)

// A Shape is a family of request, answer and error forms.
type Shape int

// The shapes.
const (
	AWS       Shape = iota // REST-JSON: {"message": ...} and x-amzn-ErrorType
	OpenAI                 // {"error": {...}}
	Anthropic              // {"type": "error", "error": {...}}
)

// A Carrier says where a path takes request metadata.
type Carrier int

// The places of request metadata.
const (
	NoMetadata     Carrier = iota
	MetadataHeader         // X-Amzn-Bedrock-Request-Metadata
	MetadataBody           // the top-level member requestMetadata
)

// A Route is what a method and a path come to.
type Route struct {
	Operation Operation
	Endpoint  waybill.Endpoint
	Shape     Shape
	Carrier   Carrier
	// ModelID is the model named by the path, unescaped; empty where the body names it.
	ModelID waybill.ModelID
	// ModelInBody is set where the model is a member of the body.
	ModelInBody bool
	// Audited is set where the body's member metadata goes into the CloudTrail event of the
	// call (Edits.Metadata): Chat Completions and Responses of bedrock-mantle.
	Audited bool
	// Spends is set where the operation uses a model and costs money by usage.
	Spends bool
	// EventStream is set where a successful answer is an AWS event stream.
	EventStream bool
}

// Charged is set where AWS charges the operation: for the use of a model, or for a
// guardrail's text units.
func (r Route) Charged() bool {
	return r.Spends || r.Operation == ApplyGuardrail || r.Operation == InvokeGuardrailChecks
}

// Stored reports whether the operation is about a response that was made before.
func (r Route) Stored() bool {
	return r.Operation == GetResponse || r.Operation == DeleteResponse || r.Operation == CancelResponse
}

type native struct {
	op      Operation
	carrier Carrier
	spends  bool
	stream  bool
}

var modelActions = map[string]native{
	"invoke":                      {InvokeModel, MetadataHeader, true, false},
	"invoke-with-response-stream": {InvokeModelWithResponseStream, MetadataHeader, true, true},
	"converse":                    {Converse, MetadataBody, true, false},
	"converse-stream":             {ConverseStream, MetadataBody, true, true},
	"count-tokens":                {CountTokens, NoMetadata, false, false},
}

// served is the list that a refused path is answered with.
var served = map[waybill.Endpoint]string{
	waybill.Runtime: "POST /model/{modelId}/{invoke,invoke-with-response-stream,converse,converse-stream,count-tokens}, " +
		"POST /guardrail/{id}/version/{version}/apply, POST /guardrail-checks/invoke, POST and GET /async-invoke, " +
		"POST /openai/v1/{chat/completions,responses}, GET, DELETE and POST /openai/v1/responses/{id}[/cancel], POST /anthropic/v1/messages",
	waybill.Mantle: "POST {/v1,/openai/v1}/{chat/completions,responses,responses/compact,embeddings}, " +
		"GET, DELETE and POST {/v1,/openai/v1}/responses/{id}[/cancel], POST /anthropic/v1/messages[/count_tokens], GET /v1/models[/{model}]",
}

// FindRoute reads a method and an escaped path, as they came, against the list of
// what is served. What is not on the list is refused with it: AWS answers unknown
// paths with 200, so forwarding them would count failures as calls. Errors are
// *waybill.Error.
func FindRoute(method, escapedPath string, endpoint waybill.Endpoint) (Route, error) {
	var few [8]string // as most paths have
	parts := slices.AppendSeq(few[:0], strings.SplitSeq(strings.TrimPrefix(escapedPath, "/"), "/"))
	if err := checkPath(escapedPath, parts); err != nil {
		return Route{}, err
	}
	r := Route{Endpoint: endpoint}
	ok := false
	var err error
	switch {
	case endpoint == waybill.Runtime && parts[0] == "model" && len(parts) >= 3:
		ok, err = r.model(method, parts)
	case endpoint == waybill.Runtime && parts[0] != "anthropic" && parts[0] != "openai":
		ok = r.other(method, parts)
	default:
		ok = r.compatible(method, parts)
	}
	if err != nil {
		return Route{}, err
	}
	if !ok {
		return Route{}, &waybill.Error{Kind: waybill.NotFound, Code: "WB1101",
			Message: fmt.Sprintf("%s %s is not served on %s", method, clip(escapedPath), endpoint),
			Hint:    "served are: " + served[endpoint]}
	}
	return r, nil
}

// checkPath refuses what could mean one thing here and another at AWS. segments are those
// of the path.
func checkPath(p string, segments []string) error {
	bad := func(what string) error {
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1102", Message: fmt.Sprintf("path %s %s", clip(p), what),
			Hint: "send the path as AWS documents it"}
	}
	if !strings.HasPrefix(p, "/") || len(p) > 4096 {
		return bad("is not a path, or is longer than 4,096 bytes")
	}
	for i, segment := range segments {
		plain, err := url.PathUnescape(segment)
		if err != nil {
			return bad("has a malformed escape")
		}
		if segment == "" && p != "/" {
			return bad("has an empty segment")
		}
		for k := range len(plain) {
			if !nameBytes[plain[k]] {
				return bad("has a character that no name of AWS's has")
			}
		}
		if !strings.Contains(plain, "/") && plain != "." && plain != ".." {
			continue
		}
		// An escaped slash may hide segments: it belongs into the ARN that a name may be.
		if i != 1 || !takesARN[segments[0]] || !strings.HasPrefix(plain, "arn:") {
			return bad("has an escaped slash, or a dot segment")
		}
		for _, part := range strings.Split(plain, "/") {
			if part == "" || part == "." || part == ".." {
				return bad("has an empty or a dot segment within an ARN")
			}
		}
	}
	return nil
}

// takesARN holds the first segments of the paths whose second may be an ARN.
var takesARN = map[string]bool{"model": true, "guardrail": true, "async-invoke": true}

// nameBytes holds the bytes that names of AWS's have: what RFC 3986 lets stand in a
// segment, and a slash. A semicolon would begin parameters, and what is still escaped
// after one step is escaped twice: some servers take a second.
var nameBytes = func() (set [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/@!$&'()*+,=") {
		set[c] = true
	}
	return set
}()

func (r *Route) model(method string, parts []string) (bool, error) {
	n, ok := modelActions[parts[len(parts)-1]]
	if parts[len(parts)-1] == "invoke-with-bidirectional-stream" {
		return false, &waybill.Error{Kind: waybill.Unsupported, Code: "WB1103",
			Message: "bidirectional streams are signed event by event by the caller, so a gateway cannot pass them on",
			Hint:    "call bedrock-runtime directly with a session from `waybill credentials`"}
	}
	if !ok || method != http.MethodPost {
		return false, nil
	}
	// An ARN holds slashes: some clients leave them unescaped, so the id is everything
	// between the first segment and the last.
	id, err := url.PathUnescape(strings.Join(parts[1:len(parts)-1], "/"))
	if err != nil {
		return false, err
	}
	if strings.Contains(id, "/") && !strings.HasPrefix(id, "arn:") || len(id) > 2048 {
		return false, nil
	}
	*r = Route{Operation: n.op, Endpoint: r.Endpoint, Shape: AWS, Carrier: n.carrier, ModelID: waybill.ModelID(id),
		Spends: n.spends, EventStream: n.stream}
	return true, nil
}

func (r *Route) other(method string, parts []string) bool {
	path := strings.Join(parts, "/")
	switch {
	case method == http.MethodPost && isGuardrail(parts):
		r.Operation = ApplyGuardrail
	case method == http.MethodPost && path == "guardrail-checks/invoke":
		r.Operation = InvokeGuardrailChecks
	case method == http.MethodPost && path == "async-invoke":
		r.Operation, r.ModelInBody, r.Spends = StartAsyncInvoke, true, true
	case method == http.MethodGet && path == "async-invoke":
		r.Operation = ListAsyncInvokes
	case method == http.MethodGet && len(parts) >= 2 && parts[0] == "async-invoke":
		r.Operation = GetAsyncInvoke
	default:
		return false
	}
	return true
}

// isGuardrail finds guardrail/{id or ARN}/version/{version}/apply, the ARN's slash
// escaped or not.
func isGuardrail(parts []string) bool {
	n := len(parts)
	return parts[0] == "guardrail" && parts[n-1] == "apply" && n >= 5 && parts[n-3] == "version" &&
		(n == 5 || n == 6 && strings.HasPrefix(parts[1], "arn"))
}

func (r *Route) compatible(method string, parts []string) bool {
	path := strings.Join(parts, "/")
	if rest, ok := strings.CutPrefix(path, "anthropic/v1/"); ok {
		r.Shape, r.ModelInBody = Anthropic, true
		switch {
		case method == http.MethodPost && rest == "messages":
			r.Operation, r.Spends = Messages, true
		case method == http.MethodPost && rest == "messages/count_tokens" && r.Endpoint == waybill.Mantle:
			r.Operation = CountMessageTokens
		default:
			return false
		}
		return true
	}
	r.Shape = OpenAI
	rest, prefixed := strings.CutPrefix(path, "openai/v1/")
	if !prefixed {
		var ok bool
		if rest, ok = strings.CutPrefix(path, "v1/"); !ok || r.Endpoint == waybill.Runtime {
			return false
		}
	}
	sub := strings.Split(rest, "/")
	switch {
	case method == http.MethodPost && rest == "chat/completions":
		r.Operation, r.ModelInBody, r.Spends = ChatCompletions, true, true
		r.Audited = r.Endpoint == waybill.Mantle
	case method == http.MethodPost && rest == "responses":
		r.Operation, r.ModelInBody, r.Spends = Responses, true, true
		r.Audited = r.Endpoint == waybill.Mantle
	case method == http.MethodGet && len(sub) == 2 && sub[0] == "responses":
		r.Operation = GetResponse
	case method == http.MethodDelete && len(sub) == 2 && sub[0] == "responses":
		r.Operation = DeleteResponse
	case method == http.MethodPost && len(sub) == 3 && sub[0] == "responses" && sub[2] == "cancel":
		r.Operation = CancelResponse
	case r.Endpoint == waybill.Runtime:
		return false
	case method == http.MethodPost && rest == "responses/compact":
		r.Operation, r.ModelInBody, r.Spends = CompactResponse, true, true
	case method == http.MethodPost && rest == "embeddings":
		r.Operation, r.ModelInBody, r.Spends = Embeddings, true, true
	case method == http.MethodGet && rest == "models" && !prefixed:
		r.Operation = ListModels
	case method == http.MethodGet && len(sub) == 2 && sub[0] == "models" && !prefixed:
		r.Operation = GetModel
	default:
		return false
	}
	return true
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "..."
	}
	return s
}
