package control

// A Mechanism is one of the ways in which AWS attributes the cost of a call.
type Mechanism string

// The mechanisms, and the log that the last of them needs.
const (
	ByPrincipal Mechanism = "IAM principal"
	ByProfile   Mechanism = "application inference profile"
	ByProject   Mechanism = "project"
	ByWorkspace Mechanism = "workspace"
	ByMetadata  Mechanism = "request metadata"
	ByLog       Mechanism = "invocation log"
	ByTrail     Mechanism = "body metadata in CloudTrail"
)

// Mechanisms lists them, in the order in which advice shows them.
var Mechanisms = []Mechanism{ByPrincipal, ByProfile, ByProject, ByWorkspace, ByMetadata, ByLog, ByTrail}

// A Path is one way to call a model.
type Path struct {
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
	Doc      string `json:"doc"`
}

// Paths lists them, in the order in which advice shows them.
var Paths = []Path{
	{"invoke", "bedrock-runtime", "InvokeModel, InvokeModelWithResponseStream"},
	{"converse", "bedrock-runtime", "Converse, ConverseStream"},
	{"chat", "bedrock-runtime", "OpenAI Chat Completions"},
	{"responses", "bedrock-runtime", "OpenAI Responses"},
	{"messages", "bedrock-runtime", "Anthropic Messages"},
	{"mantle-chat", "bedrock-mantle", "OpenAI Chat Completions"},
	{"mantle-responses", "bedrock-mantle", "OpenAI Responses"},
	{"mantle-messages", "bedrock-mantle", "Anthropic Messages"},
	{"batch", "bedrock", "batch inference jobs"},
	{"agents", "bedrock", "agents, flows and knowledge bases"},
}

// A Reach says whether a mechanism works on a path.
type Reach string

// The reaches.
const (
	Reaches     Reach = "yes"
	DoesNot     Reach = "no"
	Unconfirmed Reach = "not confirmed" // AWS's pages do not say; built as no
)

// A Carriage is how a mechanism goes with a call on one path.
type Carriage struct {
	Reach Reach  `json:"reach"`
	How   string `json:"how"` // where it goes, or what stands in for it
}

// carriages is what reaches what: Bedrock User Guide, "Endpoints supported by Amazon
// Bedrock", "Track costs with IAM principals", "Request metadata", "Projects",
// "Workspaces" and "Model invocation logging", as of autumn 2026. It is the one place
// that knows; gateway and ledger act by the same facts.
var carriages = map[Mechanism]map[string]Carriage{
	ByPrincipal: {
		"invoke": {Reaches, "role session"}, "converse": {Reaches, "role session"}, "chat": {Reaches, "role session"}, "responses": {Reaches, "role session"}, "messages": {Reaches, "role session"},
		"mantle-chat":      {Reaches, "role session; bills before August 2026 may lack it"},
		"mantle-responses": {Reaches, "role session; bills before August 2026 may lack it"},
		"mantle-messages":  {Reaches, "role session; bills before August 2026 may lack it"},
		"batch":            {Reaches, "the job's service role: one role for each owner"},
		"agents":           {Reaches, "the agent's service role: one role for each owner"},
	},
	ByProfile: {
		"invoke": {Reaches, "model id"}, "converse": {Reaches, "model id"}, "chat": {Reaches, "model"},
		"responses":   {DoesNot, "AWS answers 400: take session tags"},
		"messages":    {Unconfirmed, "off unless switched on: take session tags"},
		"mantle-chat": {DoesNot, "take a project"}, "mantle-responses": {DoesNot, "take a project"}, "mantle-messages": {DoesNot, "take a workspace"},
		"batch":  {Reaches, "model id of the job"},
		"agents": {Reaches, "the agent's model"},
	},
	ByProject: {
		"invoke": {DoesNot, "the default project only"}, "converse": {DoesNot, "the default project only"}, "chat": {DoesNot, "the default project only"}, "responses": {DoesNot, "the default project only"}, "messages": {DoesNot, "no projects"},
		"mantle-chat": {Reaches, "header OpenAI-Project"}, "mantle-responses": {Reaches, "header OpenAI-Project"}, "mantle-messages": {DoesNot, "take a workspace, which is the same thing under another header"},
		"batch": {DoesNot, "no projects"}, "agents": {DoesNot, "no projects"},
	},
	ByWorkspace: {
		"invoke": {DoesNot, "no workspaces"}, "converse": {DoesNot, "no workspaces"}, "chat": {DoesNot, "no workspaces"}, "responses": {DoesNot, "no workspaces"}, "messages": {DoesNot, "no workspaces"},
		"mantle-chat": {DoesNot, "take a project"}, "mantle-responses": {DoesNot, "take a project"}, "mantle-messages": {Reaches, "header anthropic-workspace-id"},
		"batch": {DoesNot, "no workspaces"}, "agents": {DoesNot, "no workspaces"},
	},
	ByMetadata: {
		"invoke": {Reaches, "header X-Amzn-Bedrock-Request-Metadata"}, "converse": {Reaches, "body member requestMetadata"},
		"chat":      {Unconfirmed, "not sent unless switched on: the gateway's own record has the tags"},
		"responses": {DoesNot, "the gateway's own record has the tags"}, "messages": {Unconfirmed, "not sent unless switched on: the gateway's own record has the tags"},
		"mantle-chat": {DoesNot, "the gateway's own record has the tags"}, "mantle-responses": {DoesNot, "the gateway's own record has the tags"}, "mantle-messages": {DoesNot, "the gateway's own record has the tags"},
		"batch": {DoesNot, "tag the job, and give each owner a role"}, "agents": {DoesNot, "give each owner a role"},
	},
	ByLog: {
		"invoke": {Reaches, "one record a call"}, "converse": {Reaches, "one record a call"}, "responses": {Reaches, "one record a call"},
		"chat": {Unconfirmed, "records are read if they come"}, "messages": {Unconfirmed, "records are read if they come"},
		"mantle-chat": {DoesNot, "the gateway's meter is the only record with tokens"}, "mantle-responses": {DoesNot, "the gateway's meter is the only record with tokens"}, "mantle-messages": {DoesNot, "the gateway's meter is the only record with tokens"},
		"batch": {DoesNot, "the job's manifest has the tokens"}, "agents": {Reaches, "the calls of models behind them"},
	},
	ByTrail: {
		"invoke": {DoesNot, "request metadata is not in CloudTrail"}, "converse": {DoesNot, "request metadata is not in CloudTrail"}, "chat": {Unconfirmed, "taken as no"}, "responses": {Unconfirmed, "taken as no"}, "messages": {DoesNot, "nothing of the kind"},
		"mantle-chat": {Reaches, "body member metadata, where data events are on"}, "mantle-responses": {Reaches, "body member metadata, where data events are on"}, "mantle-messages": {DoesNot, "the event has no such member"},
		"batch": {DoesNot, "nothing of the kind"}, "agents": {DoesNot, "nothing of the kind"},
	},
}

// A Showing is where a mechanism's figures appear, how fine, and when.
type Showing struct {
	CostExplorer string `json:"cost_explorer"`
	CUR          string `json:"cur"`
	Logs         string `json:"logs"`
	Grain        string `json:"grain"`
	Delay        string `json:"delay"`
	Needs        string `json:"needs"` // before it shows at all
	Limit        string `json:"limit"`
}

// showings are the same user guide's pages, and those of AWS Billing on cost allocation
// tags and data exports.
var showings = map[Mechanism]Showing{
	ByPrincipal: {"tag iamPrincipal/KEY", "line_item_iam_principal and iamPrincipal/KEY in tags, in CUR 2.0", "identity.arn, with the session name; no session tags",
		"principal × usage type × day or hour", "bill rows come 8 to 24 hours late; a new key takes a day to be listed and one more to show",
		"the key activated in the payer account; a CUR 2.0 export with IAM principal data", "50 tags a session; session names low in cardinality, for rows multiply"},
	ByProfile: {"tag KEY of the profile", "resourceTags/KEY in tags, and the profile's ARN in line_item_resource_id", "modelId is the profile's ARN",
		"profile × usage type × day or hour", "bill rows come 8 to 24 hours late; a new key takes up to two days", "one profile for each application and model, tagged; the key activated", "1,000 profiles a Region, immutable"},
	ByProject: {"tag KEY of the project", "resourceTags/KEY in tags", "mantle has no invocation log", "project × usage type × day or hour",
		"bill rows come 8 to 24 hours late; a new key takes up to two days", "a project made and tagged, not default; the key activated", "1,000 projects an account"},
	ByWorkspace: {"tag KEY of the workspace", "resourceTags/KEY in tags", "mantle has no invocation log", "workspace × usage type × day or hour",
		"bill rows come 8 to 24 hours late; a new key takes up to two days", "a workspace made and tagged, not default; the key activated", "1,000 projects and workspaces an account"},
	ByMetadata: {"not there", "not there", "requestMetadata in every record", "one call", "minutes after the call", "invocation logging on in every Region that is called", "16 entries of 256 and 256 characters"},
	ByLog:      {"not there", "not there", "tokens, model, identity and time of every call", "one call", "minutes after the call", "invocation logging on in every Region that is called", "bodies over 100 KB go to S3"},
	ByTrail:    {"not there", "not there", "requestParameters.metadata of the CloudTrail event; no tokens", "one call", "minutes after the call", "data events of AWS::BedrockMantle::Project, which are charged", "16 entries of 64 and 512 characters"},
}

// CarriageOf says how a mechanism goes with a call on a path.
func CarriageOf(m Mechanism, path string) Carriage { return carriages[m][path] }
