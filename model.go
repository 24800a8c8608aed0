package waybill

import "strings"

// A ModelID names what is called, as Bedrock takes it in a path: a model id, an
// inference profile id or an ARN, unescaped. It is kept exactly as the caller wrote it.
type ModelID string

// geography lists the prefixes of system inference profiles. The list grows: an
// unknown first label before a known provider counts as one as well.
var geography = map[string]bool{"us": true, "eu": true, "apac": true, "jp": true, "au": true,
	"ca": true, "us-gov": true, "global": true, "sa": true, "mx": true, "il": true, "me": true, "af": true, "kr": true, "in": true}

// providers are the first labels of foundation model ids.
var providers = map[string]bool{"anthropic": true, "amazon": true, "meta": true, "mistral": true,
	"cohere": true, "ai21": true, "stability": true, "deepseek": true, "openai": true, "qwen": true,
	"moonshot": true, "moonshotai": true, "minimax": true, "zai": true, "nvidia": true, "google": true,
	"writer": true, "luma": true, "twelvelabs": true, "xai": true}

// ResourceType is the resource type of an ARN ("application-inference-profile",
// "foundation-model", ...), or "" for an id that is no ARN.
func (m ModelID) ResourceType() string {
	res, ok := m.resource()
	if !ok {
		return ""
	}
	kind, _, _ := strings.Cut(res, "/")
	return kind
}

func (m ModelID) resource() (string, bool) {
	s := string(m)
	if !strings.HasPrefix(s, "arn:") {
		return "", false
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) < 6 {
		return "", false
	}
	return parts[5], true
}

// IsApplicationProfile reports whether m is the ARN of an application inference
// profile. Such an ARN does not name the model.
func (m ModelID) IsApplicationProfile() bool {
	return m.ResourceType() == "application-inference-profile"
}

// last is the id without ARN and resource type.
func (m ModelID) last() string {
	if res, ok := m.resource(); ok {
		if _, id, ok := strings.Cut(res, "/"); ok {
			return id
		}
		return res
	}
	return string(m)
}

// prefix splits a geographic or global label from an id.
func prefix(id string) (label, rest string) {
	first, rest, ok := strings.Cut(id, ".")
	if !ok || providers[first] {
		return "", id
	}
	next, _, _ := strings.Cut(rest, ".")
	if geography[first] || providers[next] {
		return first, rest
	}
	return "", id
}

// Base is the foundation model id behind a system profile or an ARN that names
// its model: "us.anthropic.claude-sonnet-4-6" and its ARN both give
// "anthropic.claude-sonnet-4-6". Of an application profile, and of other resources
// that do not name a model, it is the id within the ARN: look those up.
func (m ModelID) Base() string {
	_, rest := prefix(m.last())
	return rest
}

// Scope is Geo or Global for a system profile's id or ARN, else Plain. Of an
// application profile the scope is that of the profile it was copied from, which
// the ARN does not tell.
func (m ModelID) Scope() Scope {
	switch label, _ := prefix(m.last()); label {
	case "":
		return Plain
	case "global":
		return Global
	default:
		return Geo
	}
}
