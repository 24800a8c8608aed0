package fakeaws

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Price is one entry of this AWS's price list.
type Price struct {
	Model  string // model id
	Scope  string // plain, geo, global: as the bill has it
	Kind   string // input, output, cache_read, cache_write_5m, cache_write_1h, cache_write_30m
	Tier   string // standard, flex, priority
	Per    int64  // tokens that the amount is for
	Amount string // USD
	From   time.Time
}

// A style is how the bill names the usage of a model on bedrock-runtime.
type style int

const (
	kebab style = iota
	camel       // of the Marketplace, as Claude up to 4.6 has it
	snake       // of the Marketplace, as newer Claude has it
	bare        // the same without MP:, as Claude of the fifth generation has it
)

// A listing says how a model stands on the bill.
type listing struct {
	model    string
	name     string // in usage types of the kebab dialect; product name in the marketplace one
	provider string
	style    style
	per      int64  // tokens in the pricing unit
	unit     string // pricing_unit
	ownGeo   bool   // geographic profiles have usage types of their own
	// USD for a million tokens: input, output, cache read, cache write, 1 h write, 30 min write
	plain, global [6]string
}

// marketplace reports whether a model is sold through the AWS Marketplace.
func (l *listing) marketplace() bool { return l.style != kebab }

// list is made up in the shape of AWS's: real products, and prices of the order of
// theirs. On bedrock-mantle a token has the same price, and another usage type.
var list = []listing{
	{"anthropic.claude-sonnet-4-6", "Claude Sonnet 4.6", "Anthropic", camel, 1_000_000, "Units", false,
		[6]string{"3.30", "16.50", "0.33", "4.125", "6.60"}, [6]string{"3.00", "15.00", "0.30", "3.75", "6.00"}},
	{"anthropic.claude-haiku-4-5-20251001-v1:0", "Claude4.5Haiku", "Anthropic", kebab, 1_000_000, "1M tokens", false,
		[6]string{"1.10", "5.50", "0.11", "1.375", "2.20"}, [6]string{"1.00", "5.00", "0.10", "1.25", "2.00"}},
	{"anthropic.claude-haiku-4-5", "Claude4.5Haiku", "Anthropic", kebab, 1_000_000, "1M tokens", false,
		[6]string{"1.10", "5.50", "0.11", "1.375", "2.20"}, [6]string{"1.00", "5.00", "0.10", "1.25", "2.00"}},
	{"anthropic.claude-opus-4-8", "Claude Opus 4.8", "Anthropic", snake, 1_000_000, "Units", false,
		[6]string{"5.50", "27.50", "0.55", "6.875", "11.00"}, [6]string{"5.00", "25.00", "0.50", "6.25", "10.00"}},
	{"anthropic.claude-sonnet-5", "Claude Sonnet 5", "Anthropic", bare, 1_000_000, "Units", false,
		[6]string{"3.30", "16.50", "0.33", "4.125", "6.60"}, [6]string{"3.00", "15.00", "0.30", "3.75", "6.00"}},
	{"amazon.nova-lite-v1:0", "NovaLite", "Amazon", kebab, 1_000, "1K tokens", true,
		[6]string{"0.06", "0.24", "0.015", "0", "0"}, [6]string{}},
	{"amazon.nova-micro-v1:0", "NovaMicro", "Amazon", kebab, 1_000, "1K tokens", true,
		[6]string{"0.035", "0.14", "0.00875", "0", "0"}, [6]string{}},
	{"meta.llama4-maverick-17b-instruct-v1:0", "Llama4-Maverick-17B", "Meta", kebab, 1_000, "1K tokens", true,
		[6]string{"0.24", "0.97"}, [6]string{}},
	{"amazon.titan-embed-text-v2:0", "TitanEmbeddingsV2", "Amazon", kebab, 1_000, "1K tokens", true,
		[6]string{"0.02"}, [6]string{}},
	{"openai.gpt-oss-120b", "gpt-oss-120b", "OpenAI", kebab, 1_000_000, "1M tokens", true, [6]string{"0.15", "0.60"}, [6]string{}},
	{"openai.gpt-oss-120b-1:0", "gpt-oss-120b", "OpenAI", kebab, 1_000_000, "1M tokens", true, [6]string{"0.15", "0.60"}, [6]string{}},
	{"openai.gpt-oss-20b", "gpt-oss-20b", "OpenAI", kebab, 1_000_000, "1M tokens", true, [6]string{"0.07", "0.30"}, [6]string{}},
	{"openai.gpt-oss-20b-1:0", "gpt-oss-20b", "OpenAI", kebab, 1_000_000, "1M tokens", true, [6]string{"0.07", "0.30"}, [6]string{}},
	{"openai.gpt-5.6-sol", "gpt-5.6-sol", "OpenAI", kebab, 1_000_000, "1M tokens", false,
		[6]string{"5.50", "33.00", "0.55", "", "", "6.875"}, [6]string{"5.00", "30.00", "0.50", "", "", "6.25"}},
	{"openai.gpt-5.6-terra", "gpt-5.6-terra", "OpenAI", kebab, 1_000_000, "1M tokens", false,
		[6]string{"2.75", "16.50", "0.275", "", "", "3.4375"}, [6]string{"2.50", "15.00", "0.25", "", "", "3.125"}},
	{"moonshotai.kimi-k3", "kimi-k3", "Moonshot AI", kebab, 1_000_000, "1M tokens", false,
		[6]string{"3.30", "16.50", "0.33", "", "", "4.125"}, [6]string{"3.00", "15.00", "0.30", "", "", "3.75"}},
	{"xai.grok-4-3", "grok-4-3", "xAI", kebab, 1_000_000, "1M tokens", false, [6]string{"3.00", "15.00", "0.75", "", "", "0"}, [6]string{}},
	{"google.gemma-4-27b", "gemma-4-27b", "Google", kebab, 1_000_000, "1M tokens", true, [6]string{"0.25", "0.50"}, [6]string{}},
	{"google.gemma-3-27b-it", "Gemma-3-27B-IT", "Google", kebab, 1_000_000, "1M tokens", true, [6]string{"0.23", "0.38"}, [6]string{}},
	{"qwen.qwen3-235b-a22b-2507", "Qwen3-235B-A22B-2507", "Qwen", kebab, 1_000_000, "1M tokens", true, [6]string{"0.22", "0.88"}, [6]string{}},
	{"qwen.qwen3-32b-v1:0", "Qwen3-32B", "Qwen", kebab, 1_000_000, "1M tokens", true, [6]string{"0.15", "0.60"}, [6]string{}},
	{"deepseek.v3.2", "deepseek.v3.2", "DeepSeek", kebab, 1_000_000, "1M tokens", true, [6]string{"0.62", "1.85"}, [6]string{}},
	{"mistral.mistral-large-3-675b-instruct", "Mistral-Large-3-675b-Instruct", "Mistral AI", kebab, 1_000_000, "1M tokens", true, [6]string{"0.50", "1.50"}, [6]string{}},
	{"minimax.minimax-m2", "minimax-m2", "MiniMax", kebab, 1_000_000, "1M tokens", true, [6]string{"0.30", "1.20"}, [6]string{}},
	{"zai.glm-4.6", "glm-4.6", "Z.ai", kebab, 1_000_000, "1M tokens", true, [6]string{"0.60", "2.20"}, [6]string{}},
	{"nvidia.nemotron-nano-12b-v2", "nemotron-nano-12b-v2", "NVIDIA", kebab, 1_000_000, "1M tokens", true, [6]string{"0.20", "0.60"}, [6]string{}},
	{"writer.palmyra-x5", "palmyra-x5", "Writer", kebab, 1_000_000, "1M tokens", true, [6]string{"0.60", "6.00"}, [6]string{}},
	{"amazon.titan-text-express-v1", "TitanTextExpress", "Amazon", kebab, 1_000, "1K tokens", true, [6]string{"0.20", "0.60"}, [6]string{}},
	{"amazon.titan-embed-image-v1", "TitanEmbeddingsImage", "Amazon", kebab, 1_000, "1K tokens", true, [6]string{"0.80"}, [6]string{}},
	{"amazon.nova-2-multimodal-embeddings-v1:0", "NovaMultiModalEmbeddings", "Amazon", kebab, 1_000, "1K tokens", true, [6]string{"0.135"}, [6]string{}},
	{"mistral.mistral-7b-instruct-v0:2", "Mistral7B", "Mistral AI", kebab, 1_000, "1K tokens", true, [6]string{"0.15", "0.20"}, [6]string{}},
	{"mistral.pixtral-large-2502-v1:0", "Pixtral-Large", "Mistral AI", kebab, 1_000, "1K tokens", true, [6]string{"2.00", "6.00"}, [6]string{}},
	{"ai21.jamba-1-5-large-v1:0", "Jamba1-5Large", "AI21 Labs", kebab, 1_000, "1K tokens", true, [6]string{"2.00", "8.00"}, [6]string{}},
	{"deepseek.v3-v1:0", "DeepSeek-V3.1", "DeepSeek", kebab, 1_000, "1K tokens", true, [6]string{"0.58", "1.68"}, [6]string{}},
	{"deepseek.r1-v1:0", "DeepSeek-R1", "DeepSeek", kebab, 1_000, "1K tokens", true, [6]string{"1.35", "5.40"}, [6]string{}},
	{"cohere.command-r-plus-v1:0", "CommandR-Plus", "Cohere", kebab, 1_000, "1K tokens", true, [6]string{"3.00", "15.00"}, [6]string{}},
	{"cohere.embed-english-v3", "CohereEmbed-English-V3", "Cohere", kebab, 1_000, "1K tokens", true, [6]string{"0.10"}, [6]string{}},
	{"twelvelabs.pegasus-1-2-v1:0", "Pegasus1.2", "TwelveLabs", kebab, 1_000, "1K tokens", true, [6]string{"0.50", "7.50"}, [6]string{}},
	{"cohere.embed-v4", "cohere-embed-v4", "Cohere", kebab, 1_000_000, "1M tokens", true, [6]string{"0.12"}, [6]string{}},
}

var kinds = [6]string{"input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_30m"}

// listed finds a model on the list.
func listed(model string) *listing {
	for i := range list {
		if list[i].model == model {
			return &list[i]
		}
	}
	return nil
}

// A Change is a new price from a day on.
type Change struct {
	Model, Scope, Kind string
	Amount             string // USD for a million tokens
	From               time.Time
}

// Prices are the price list with the changes of a month.
type Prices struct{ Changes []Change }

// tiers that are priced, as a fraction of standard.
var tiers = []struct {
	name     string
	num, den int64
}{{"standard", 1, 1}, {"flex", 1, 2}, {"priority", 7, 4}}

// All is the list as rows, in effect since the beginning of a year or a change.
func (p Prices) All(since time.Time) []Price {
	var out []Price
	for _, l := range list {
		for scope, amounts := range map[string][6]string{"plain": l.plain, "geo": l.plain, "global": l.global} {
			if scope == "geo" && !l.ownGeo {
				continue
			}
			for i, amount := range amounts {
				if amount == "" {
					continue
				}
				for _, t := range tiers {
					add := func(amount string, from time.Time) {
						r := rat(amount)
						r.Mul(r, big.NewRat(t.num, t.den))
						out = append(out, Price{l.model, scope, kinds[i], t.name, 1_000_000, decimal(r, 12), from})
					}
					add(amount, since)
					for _, c := range p.Changes {
						if c.Model == l.model && c.Scope == scope && c.Kind == kinds[i] {
							add(c.Amount, c.From)
						}
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Price) int {
		return strings.Compare(a.Model+a.Scope+a.Kind+a.Tier+a.From.Format(time.RFC3339), b.Model+b.Scope+b.Kind+b.Tier+b.From.Format(time.RFC3339))
	})
	return out
}

func rat(s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		panic("not a number: " + s) // of the table above
	}
	return r
}

// decimal writes a number with at most so many places, without trailing zeroes.
func decimal(r *big.Rat, places int) string {
	s := r.FloatString(places)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// perToken is the price of one token, or nil if the list has none.
func (p Prices) perToken(l *listing, scope, kind, tier string, at time.Time) *big.Rat {
	amounts := l.plain
	if scope == "global" {
		amounts = l.global
	}
	i := slices.Index(kinds[:], kind)
	if i < 0 || amounts[i] == "" {
		return nil
	}
	amount := amounts[i]
	var since time.Time
	for _, c := range p.Changes {
		if c.Model == l.model && c.Scope == scope && c.Kind == kind && !at.Before(c.From) && c.From.After(since) {
			amount, since = c.Amount, c.From
		}
	}
	r := rat(amount)
	for _, t := range tiers {
		if t.name == tier {
			r.Mul(r, big.NewRat(t.num, t.den))
		}
	}
	return r.Quo(r, big.NewRat(1_000_000, 1))
}

var regionPrefix = map[string]string{"us-east-1": "USE1", "us-east-2": "USE2", "us-west-1": "USW1", "us-west-2": "USW2", "us-gov-west-1": "UGW1", "us-gov-east-1": "UGE1",
	"ca-central-1": "CAN1", "eu-west-1": "EUW1", "eu-west-2": "EUW2", "eu-west-3": "EUW3", "eu-central-1": "EUC1", "eu-central-2": "EUC2", "eu-north-1": "EUN1",
	"eu-south-1": "EUS1", "eu-south-2": "EUS2", "ap-northeast-1": "APN1", "ap-northeast-2": "APN2", "ap-northeast-3": "APN3", "ap-southeast-1": "APS1",
	"ap-southeast-2": "APS2", "ap-south-1": "APS3", "ap-southeast-3": "APS4", "sa-east-1": "SAE1"}

// usageType is how the bill names a kind of usage.
func usageType(l *listing, endpoint, region, scope, kind, tier string) string {
	prefix := regionPrefix[region]
	if endpoint == Mantle { // the model's id needs no table there
		return prefix + "-" + l.model + "-mantle-" + map[string]string{"input": "input-tokens", "output": "output-tokens", "cache_read": "cache-read-tokens",
			"cache_write_5m": "cache-write-tokens", "cache_write_1h": "cache-write-tokens-1h", "cache_write_30m": "cache-write-tokens-30m"}[kind] + "-" + tier
	}
	if l.style == snake || l.style == bare {
		body := map[string]string{"input": "input_tokens", "output": "output_tokens", "cache_read": "cache_read_tokens",
			"cache_write_5m": "cache_write_tokens", "cache_write_1h": "cache_write_tokens_1h"}[kind]
		if scope == "global" {
			body += "_global"
		}
		body = prefix + "_" + body + "_" + tier + "-Units"
		if l.style == snake {
			body = prefix + "-MP:" + body
		}
		return body
	}
	if l.style == camel {
		body := map[string]string{"input": "InputTokenCount", "output": "OutputTokenCount", "cache_read": "CacheReadInputTokenCount",
			"cache_write_5m": "CacheWriteInputTokenCount", "cache_write_1h": "CacheWrite1hInputTokenCount"}[kind]
		if scope == "global" {
			body += "_Global"
		}
		if tier != "standard" {
			body += "_" + tier
		}
		return fmt.Sprintf("%s-MP:%s_%s-Units", prefix, prefix, body)
	}
	if l.model == "amazon.titan-embed-text-v2:0" {
		return prefix + "-TitanEmbeddingsV2-Text-input"
	}
	text := prefix + "-" + l.name + "-" + map[string]string{"input": "input-tokens", "output": "output-tokens", "cache_read": "cache-read-input-token-count",
		"cache_write_5m": "cache-write-input-token-count", "cache_write_1h": "cache-write-1h-input-token-count", "cache_write_30m": "cache-write-input-token-count"}[kind]
	switch scope {
	case "global":
		text += "-cross-region-global"
	case "geo":
		text += "-cross-region-geo"
	}
	if tier != "standard" {
		text += "-" + tier
	}
	return text
}

// A unitPrice is of what is not counted in tokens.
type unitPrice struct {
	usage       string // usage type after the Region's prefix; %s is what varies
	unit        string
	amount      string // USD
	marketplace string // product name, if the model is sold there
}

// unitPrices are by what Call counts.
var unitPrices = map[string]unitPrice{
	"topicPolicyUnits":                    {"Guardrail-TopicPolicyUnitsConsumed", "TextUnit", "0.00015", ""},
	"contentPolicyUnits":                  {"Guardrail-ContentPolicyUnitsConsumed", "TextUnit", "0.00015", ""},
	"wordPolicyUnits":                     {"Guardrail-WordPolicyUnitsConsumed", "TextUnit", "0", ""},
	"sensitiveInformationPolicyUnits":     {"Guardrail-SensitiveInformationPolicyPaidUnitsConsumed", "TextUnit", "0.0001", ""},
	"contextualGroundingPolicyUnits":      {"Guardrail-ContextualGroundingPolicyUnitsConsumed", "TextUnit", "0.0001", ""},
	"contentPolicyImageUnits":             {"Guardrail-ContentPolicyImageUnitsConsumed", "Image", "0.00075", ""},
	"sensitiveInformationPolicyFreeUnits": {"Guardrail-SensitiveInformationPolicyFreeUnitsConsumed", "TextUnit", "0", ""},
	"contentFilter":                       {"GuardrailChecks-ContentFilterCheckUnitsConsumed", "TextUnit", "0.0001", ""},
	"promptAttack":                        {"GuardrailChecks-PromptAttackCheckUnitsConsumed", "TextUnit", "0.0001", ""},
	"sensitiveInformation":                {"GuardrailChecks-SensitiveInformationCheckUnitsConsumed", "TextUnit", "0.0001", ""},
	"amazon.rerank":                       {"AmazonRerank-v1-searchunits", "search", "0.001", ""},
	"cohere.rerank":                       {"MP:%s_search_units-Units", "Units", "0.002", "Cohere Rerank 3.5 (Amazon Bedrock Edition)"},
	"stability.":                          {"MP:%s_created_image-Units", "Units", "0.04", "Stable Image Core (Amazon Bedrock Edition)"},
	"amazon.nova-canvas":                  {"NovaCanvas-T2I-%s", "image", "0.04", ""},
	"amazon.nova-canvas premium":          {"NovaCanvas-T2I-%s-Premium", "image", "0.06", ""},
	"amazon.titan-image":                  {"TitanImageGenerator-T2I-%s", "image", "0.01", ""},
	"amazon.titan-image premium":          {"TitanImageGenerator-T2I-%s-Premium", "image", "0.012", ""},
	"amazon.nova-reel":                    {"NovaReel-T2V-Standard", "second", "0.08", ""},
	"webSearch":                           {"WebSearchRequests", "Request", "0.03", ""},
	"luma.ray":                            {"Ray-V2-Medfps-HDRes", "second", "1.50", ""},
}

func double(r *big.Rat, places int) float64 {
	f, err := strconv.ParseFloat(r.FloatString(places), 64)
	if err != nil {
		panic(err) // FloatString writes numbers
	}
	return f
}
