package fakeaws

import (
	"maps"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// A Project is a project of bedrock-mantle, which its Messages API calls a workspace.
type Project struct {
	Account, Region string
	ID              string // proj_ and lower-case letters and digits
	Name            string
	Tags            map[string]string
	Archived        bool
	Created         time.Time
}

// ARN names a project.
func (p *Project) ARN() string {
	return "arn:aws:bedrock-mantle:" + p.Region + ":" + p.Account + ":project/" + p.ID
}

// A mantleModel says which APIs serve the models whose ids begin so, and under which
// prefix of the path. AWS publishes no such table: this one is of what callers have seen.
type mantleModel struct {
	prefix string // of the bare model id
	route  string // /v1, /openai/v1 or /anthropic/v1
	apis   []string
	owner  string
	listed []string // ids that the list of models has
}

var chatAndResponses = []string{"ChatCompletions", "Responses", "CompactResponse"}

var mantleModels = []mantleModel{
	{"openai.gpt-oss-", "/v1", chatAndResponses, "openai", []string{"openai.gpt-oss-120b", "openai.gpt-oss-20b"}},
	{"openai.gpt-5", "/openai/v1", chatAndResponses, "openai", []string{"openai.gpt-5.6-sol", "openai.gpt-5.6-terra"}},
	{"xai.", "/openai/v1", chatAndResponses, "xai", []string{"xai.grok-4-3"}},
	{"google.gemma-4", "/openai/v1", chatAndResponses, "google", []string{"google.gemma-4-27b"}},
	{"google.gemma-3", "/v1", []string{"ChatCompletions"}, "google", []string{"google.gemma-3-27b-it"}},
	{"qwen.", "/v1", []string{"ChatCompletions"}, "qwen", []string{"qwen.qwen3-235b-a22b-2507"}},
	{"deepseek.", "/v1", []string{"ChatCompletions"}, "deepseek", []string{"deepseek.v3.2"}},
	{"mistral.", "/v1", []string{"ChatCompletions"}, "mistral", []string{"mistral.mistral-large-3-675b-instruct"}},
	{"moonshotai.", "/v1", []string{"ChatCompletions"}, "moonshotai", []string{"moonshotai.kimi-k3"}},
	{"minimax.", "/v1", []string{"ChatCompletions"}, "minimax", []string{"minimax.minimax-m2"}},
	{"zai.", "/v1", []string{"ChatCompletions"}, "zai", []string{"zai.glm-4.6"}},
	{"nvidia.", "/v1", []string{"ChatCompletions"}, "nvidia", []string{"nvidia.nemotron-nano-12b-v2"}},
	{"writer.", "/v1", []string{"ChatCompletions"}, "writer", []string{"writer.palmyra-x5"}},
	{"cohere.embed-", "/v1", []string{"Embeddings"}, "cohere", []string{"cohere.embed-v4"}},
	{"anthropic.claude-", "/anthropic/v1", []string{"Messages", "CountTokens"}, "anthropic",
		[]string{"anthropic.claude-opus-4-8", "anthropic.claude-sonnet-5", "anthropic.claude-sonnet-4-6", "anthropic.claude-haiku-4-5"}},
}

// compatible finds the API of OpenAI's or of Anthropic's shape that a path leads to.
func compatible(endpoint, method, path string) (route, bool) {
	for _, prefix := range []string{"/openai/v1", "/anthropic/v1", "/v1"} {
		rest, ok := strings.CutPrefix(path, prefix+"/")
		if !ok || prefix == "/v1" && endpoint == Runtime {
			continue
		}
		rt := route{prefix: prefix, shape: openAIShape}
		if prefix == "/anthropic/v1" {
			rt.shape = anthropicShape
		}
		rt.operation, rt.id, rt.admit = operationOf(endpoint, prefix, method, rest)
		if rt.admit == nil {
			rt.admit = func(*exchange) (answer, *refusal) { return nil, &refusal{404, "not_found", "Not Found"} }
		}
		return rt, true
	}
	return route{}, false
}

func operationOf(endpoint, prefix, method, rest string) (operation, id string, admit func(*exchange) (answer, *refusal)) {
	mantle, post, get := endpoint == Mantle, method == http.MethodPost, method == http.MethodGet
	if prefix == "/v1" && mantle {
		if operation, id, admit = projectsRoute(method, rest); admit != nil {
			return operation, id, admit
		}
	}
	first, second, _ := strings.Cut(rest, "/")
	if prefix == "/anthropic/v1" {
		switch {
		case rest == "messages" && post:
			return "Messages", "", (*exchange).admitMessages
		case rest == "messages/count_tokens" && post && mantle:
			return "CountTokens", "", (*exchange).admitMessages
		}
		return "", "", nil
	}
	switch first {
	case "chat":
		if second == "completions" && post {
			return "ChatCompletions", "", (*exchange).admitChat
		}
	case "embeddings":
		if second == "" && post && mantle {
			return "Embeddings", "", (*exchange).admitEmbeddings
		}
	case "models":
		if get && mantle && prefix == "/v1" {
			if rest == "models" {
				return "ListModels", "", (*exchange).admitModels
			}
			return "GetModel", second, (*exchange).admitModels
		}
	case "responses":
		id, last, more := strings.Cut(second, "/")
		switch {
		case rest == "responses" && post:
			return "Responses", "", (*exchange).admitResponses
		case second == "compact" && post && mantle:
			return "CompactResponse", "", (*exchange).admitResponses
		case id == "" || id == "compact":
		case !more && get:
			return "GetResponse", id, (*exchange).admitStored
		case !more && method == http.MethodDelete:
			return "DeleteResponse", id, (*exchange).admitStored
		case last == "cancel" && post:
			return "CancelResponse", id, (*exchange).admitStored
		}
	}
	return "", "", nil
}

var (
	bareModel    = regexp.MustCompile(`^[a-z0-9]+\.[a-zA-Z0-9._-]+$`)
	runtimeModel = regexp.MustCompile(`^[a-z0-9]+\.[a-zA-Z0-9._-]+(:[0-9]+)?$`)
)

// mantleModelOf finds who serves a model on bedrock-mantle. Ids are bare there: profiles,
// ARNs and versions are unknown.
func mantleModelOf(id string) *mantleModel {
	if !bareModel.MatchString(id) {
		return nil
	}
	for i := range mantleModels {
		if strings.HasPrefix(id, mantleModels[i].prefix) {
			return &mantleModels[i]
		}
	}
	return nil
}

// onMantle holds a model and the project of a call against what bedrock-mantle offers.
func (x *exchange) onMantle(model string) *refusal {
	c := x.call
	c.ModelID, c.BaseModel, c.Scope = model, model, "plain"
	if no := x.project(); no != nil {
		return no
	}
	if x.cred.denyBedrock {
		return &refusal{403, "permission_denied", "User: " + x.cred.arn + " is not authorized to perform: bedrock-mantle:CreateInference on resource: " + c.ProjectARN}
	}
	m := mantleModelOf(model)
	if m == nil {
		return x.noModel(model)
	}
	if m.route != x.route.prefix {
		if x.route.shape == anthropicShape || m.route == "/anthropic/v1" {
			return x.noAPI(model)
		}
		return &refusal{400, "validation_error", "model `" + model + "` isn't supported on this route"}
	}
	if !contains(m.apis, x.route.operation) {
		return x.noAPI(model)
	}
	return nil
}

func (x *exchange) noModel(model string) *refusal {
	kind := "model_not_found"
	if x.route.shape == anthropicShape {
		kind = "not_found_error"
	}
	return &refusal{404, kind, "The model '" + model + "' doesn't exist or doesn't support this API"}
}

func (x *exchange) noAPI(model string) *refusal {
	return &refusal{400, "ValidationException", "The model '" + model + "' does not support the '" + x.r.URL.Path + "' API"}
}

// project finds the project that a call to bedrock-mantle is booked on.
func (x *exchange) project() *refusal {
	header := "OpenAI-Project"
	if x.route.shape == anthropicShape {
		header = x.w.config.WorkspaceHeader
	}
	values := x.r.Header.Values(header)
	if len(values) > 1 {
		return &refusal{400, "ValidationException", "The header " + header + " may be sent once"}
	}
	p := Project{Account: x.call.Account, Region: x.call.Region, ID: "default"}
	if len(values) == 1 && values[0] != "" && values[0] != "default" {
		stored := x.w.projectOf(p.Account, p.Region, values[0])
		if stored == nil {
			return &refusal{404, x.own("project_not_found", "not_found_error"), "The project '" + values[0] + "' does not exist"}
		}
		if stored.Archived {
			return &refusal{400, "ValidationException", "The project '" + values[0] + "' is archived"}
		}
		p = *stored
	}
	x.call.Project, x.call.ProjectARN, x.call.ResourceTags = p.ID, p.ARN(), p.Tags
	return nil
}

// own is a code in the shape of the path that was called.
func (x *exchange) own(openAI, anthropic string) string {
	if x.route.shape == anthropicShape {
		return anthropic
	}
	return openAI
}

func (w *World) projectOf(account, region, id string) *Project {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.projects[account+"/"+region+"/"+id]
	if p == nil {
		return nil
	}
	c := *p
	c.Tags = maps.Clone(p.Tags)
	return &c
}

// onRuntime does so on bedrock-runtime. What can be named depends on the API: Chat
// Completions takes model ids, system profiles and application profiles; Responses and
// Messages take system profiles.
func (x *exchange) onRuntime(model string) *refusal {
	c := x.call
	c.ModelID, c.Scope = model, "plain"
	if x.cred.denyBedrock {
		return &refusal{403, x.own("permission_denied", "permission_error"), "User: " + x.cred.arn + " is not authorized to perform: bedrock:InvokeModel on resource: " + model}
	}
	if x.route.operation != "Messages" {
		if no := x.defaultProject(); no != nil {
			return no
		}
	}
	unknown := &refusal{400, "ValidationException", "The provided model identifier is invalid."}
	name, profile := model, ""
	if strings.HasPrefix(model, "arn:") {
		takes := x.route.operation == "ChatCompletions" || x.route.operation == "Messages" && x.w.config.MessagesTakesProfiles
		parts := strings.SplitN(model, ":", 6)
		if len(parts) < 6 {
			return unknown
		}
		kind, last, _ := strings.Cut(parts[5], "/")
		switch {
		case kind == "application-inference-profile" && !takes:
			return &refusal{400, "ValidationException", "Application inference profiles are not supported by this API."}
		case kind == "application-inference-profile":
			source, there := x.w.config.Profiles[model]
			if !there || parts[3] != c.Region {
				return &refusal{404, x.own("model_not_found", "not_found_error"), "The specified inference profile could not be found."}
			}
			c.ProfileARN, name, profile = model, source, "application"
		case kind == "inference-profile" || kind == "foundation-model":
			name = last
		default:
			return unknown
		}
	}
	if first, rest, ok := strings.Cut(name, "."); ok && crossRegion[first] != "" {
		c.Scope, name, c.InferenceRegion = crossRegion[first], rest, c.Region
		if strings.HasPrefix(c.Region, "us-") {
			c.InferenceRegion = "us-west-2"
		}
		if profile == "" {
			profile = "system"
		}
	}
	claude := strings.HasPrefix(name, "anthropic.claude-")
	switch {
	case !runtimeModel.MatchString(name) || !claude && runtimeChat(name) == "":
		return unknown
	case claude != (x.route.shape == anthropicShape):
		return x.noAPI(model)
	case x.route.operation == "Responses" && !strings.HasPrefix(name, "openai."):
		return x.noAPI(model)
	case profile == "" && (x.route.operation != "ChatCompletions" || runtimeChat(name) == "profile"):
		return &refusal{400, "ValidationException", "Invocation of model ID " + model + " with on-demand throughput isn\u2019t supported. Retry your request with the ID or ARN of an inference profile that contains this model."}
	}
	c.BaseModel = name
	return nil
}

// runtimeChat says how Chat Completions on bedrock-runtime names a model: plain, by a
// profile alone, or, with an empty answer, not at all.
func runtimeChat(name string) string {
	switch {
	case strings.HasPrefix(name, "openai.gpt-oss-") && strings.Contains(name, ":"):
		return "plain" // on bedrock-mantle the version is left out, here it is not
	case strings.HasPrefix(name, "openai.gpt-5"):
		return "profile"
	}
	for _, prefix := range []string{"qwen.", "deepseek.", "mistral.", "moonshot.", "moonshotai.", "minimax.", "zai.", "nvidia.", "google.gemma-", "writer."} {
		if strings.HasPrefix(name, prefix) {
			return "plain"
		}
	}
	return ""
}

// defaultProject takes the one project that bedrock-runtime knows, by its name or ARN.
func (x *exchange) defaultProject() *refusal {
	arn := "arn:aws:bedrock:" + x.call.Region + ":" + x.call.Account + ":project/default"
	for _, v := range x.r.Header.Values("OpenAI-Project") {
		if v != "default" && v != arn {
			return &refusal{400, "ValidationException", "The project '" + v + "' is not supported: bedrock-runtime takes the default project only."}
		}
	}
	x.call.Project, x.call.ProjectARN = "default", arn
	return nil
}

// on holds a model against what the endpoint that was called offers.
func (x *exchange) on(model string) *refusal {
	if !contains(x.w.config.Regions, x.call.Region) {
		return &refusal{403, x.own("permission_denied", "permission_error"), "You don't have access to the model with the specified model ID."}
	}
	if x.call.Endpoint == Mantle {
		return x.onMantle(model)
	}
	return x.onRuntime(model)
}

// admitModels lists the models of bedrock-mantle, or gives one.
func (x *exchange) admitModels() (answer, *refusal) {
	list := []any{}
	for _, m := range mantleModels {
		for _, id := range m.listed {
			one := obj{"id": id, "object": "model", "created": fixedTime, "owned_by": m.owner}
			if x.route.id == id {
				return func(x *exchange) bool { return x.json(one) }, nil
			}
			list = append(list, one)
		}
	}
	if x.route.operation == "GetModel" {
		return nil, x.noModel(x.route.id)
	}
	return func(x *exchange) bool { return x.json(obj{"object": "list", "data": list}) }, nil
}
