package demo

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// The company: 3 cost centres, 6 teams, 40 people, 8 applications, 3 environments.
var (
	teams = []struct{ name, costCenter string }{{"search", "CC-1001"}, {"ads", "CC-1001"}, {"checkout", "CC-2001"},
		{"support", "CC-2001"}, {"platform", "CC-3001"}, {"research", "CC-3001"}}
	applications = []string{"catalog-search", "ad-copy", "cart-helper", "fraud-notes", "help-desk", "mail-triage", "code-review", "lab-notebook"}
	environments = []string{"production", "production", "production", "staging", "development"}
	features     = []string{"summary", "rewrite", "classify", "draft", "embed"}
)

const people = 40

// A person is somebody with a gateway key.
type person struct{ name, team, costCenter, token string }

func subject(i int) string { return fmt.Sprintf("user-%02d", i+1) }

// Policy is the company's tag policy.
const Policy = `# yaml-language-server: $schema=https://raw.githubusercontent.com/waybill-dev/waybill/main/internal/policy/schema/tag-policy.json
version: 1
session: {name: '{user}'}
tags:
  keys:
    team:        {required: true, values: [search, ads, checkout, support, platform, research], carriers: [session, request]}
    costCenter:  {required: true, pattern: 'CC-\d{4}', carriers: [session, request]}
    user:        {from: caller.subject, required: true, carriers: [session, request]}
    application: {required: true, values: [catalog-search, ad-copy, cart-helper, fraud-notes, help-desk, mail-triage, code-review, lab-notebook], carriers: [request]}
    environment: {required: true, values: [production, staging, development], aliases: {prod: production, dev: development}, carriers: [request]}
    feature:     {carriers: [request]}
  rules:
    - {when: {environment: production}, require: [application]}
`

// An ask is one call to be made.
type ask struct {
	who          person
	region       string
	operation    string // invoke, invoke-with-response-stream, converse, converse-stream
	model        string
	body         string
	tags         string // X-Waybill-Tags
	refused      bool   // the policy is to refuse it
	hangUp       bool
	directBearer string // made round the gateway, with this Bedrock API key
}

const (
	sonnet = "anthropic.claude-sonnet-4-6"
	haiku  = "anthropic.claude-haiku-4-5-20251001-v1:0"
	lite   = "amazon.nova-lite-v1:0"
	micro  = "amazon.nova-micro-v1:0"
	llama  = "meta.llama4-maverick-17b-instruct-v1:0"
	titan  = "amazon.titan-embed-text-v2:0"

	regionUS       = "us-east-1"
	regionEU       = "eu-west-1"
	regionUnlogged = "eu-central-1" // the account never switched logging on there
)

var prefixes = map[string]string{regionUS: "us.", regionEU: "eu.", regionUnlogged: "eu."}

// everyday is an ordinary call of a person.
func everyday(r *rand.Rand, p person) ask {
	a := ask{who: p, region: []string{regionUS, regionUS, regionUS, regionEU, regionEU, regionUnlogged}[r.IntN(6)]}
	a.tags = fmt.Sprintf("application=%s,environment=%s,feature=%s", applications[r.IntN(len(applications))], environments[r.IntN(len(environments))], features[r.IntN(len(features))])
	text := strings.Repeat("The parcel left the depot and the pallet waits at the quay. ", 1+r.IntN(40))
	text = fmt.Sprintf("%s %x", text, r.Uint64())
	limit := 50 + r.IntN(600)
	stream := r.IntN(2) == 0
	base := []string{sonnet, haiku, haiku, lite, micro, llama, titan}[r.IntN(7)]
	cached := r.IntN(3) == 0 && (base == sonnet || base == haiku)
	switch {
	case base == titan:
		a.operation, a.body = "invoke", fmt.Sprintf(`{"inputText":%q}`, text)
		stream = false
	case base == llama || base == lite && r.IntN(2) == 0 || base == micro:
		a.operation, a.body = "converse", fmt.Sprintf(`{"messages":[{"role":"user","content":[{"text":%q}]}],"inferenceConfig":{"maxTokens":%d}}`, text, limit)
	case base == lite:
		a.operation, a.body = "invoke", fmt.Sprintf(`{"messages":[{"role":"user","content":[{"text":%q}]}],"inferenceConfig":{"max_new_tokens":%d}}`, text, limit)
	case r.IntN(2) == 0:
		point := ""
		if cached {
			point = `,{"cachePoint":{"type":"default"` + ttl(r) + `}}`
		}
		a.operation, a.body = "converse", fmt.Sprintf(`{"system":[{"text":%q}%s],"messages":[{"role":"user","content":[{"text":"and now?"}]}],"inferenceConfig":{"maxTokens":%d}}`, text, point, limit)
	default:
		control := ""
		if cached {
			control = `,"cache_control":{"type":"ephemeral"` + ttl(r) + `}`
		}
		a.operation, a.body = "invoke", fmt.Sprintf(`{"anthropic_version":"bedrock-2023-05-31","max_tokens":%d,"system":[{"type":"text","text":%q%s}],"messages":[{"role":"user","content":"and now?"}]}`, limit, text, control)
	}
	if stream {
		a.operation = map[string]string{"invoke": "invoke-with-response-stream", "converse": "converse-stream"}[a.operation]
	}
	a.model = base
	switch r.IntN(4) {
	case 0:
		if base != titan {
			a.model = prefixes[a.region] + base
		}
	case 1:
		if base == sonnet || base == haiku {
			a.model = "global." + base
		}
	}
	return a
}

func ttl(r *rand.Rand) string {
	if r.IntN(2) == 0 {
		return `,"ttl":"1h"`
	}
	return ""
}
