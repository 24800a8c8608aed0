package ratecard

import (
	"regexp"
	"strings"

	"github.com/waybill-dev/waybill"
)

// A Dialect is one of the three ways in which AWS writes usage types for Bedrock.
type Dialect string

// The dialects.
const (
	Kebab       Dialect = "A" // bedrock-runtime: USE1-NovaLite-input-tokens
	MantleKebab Dialect = "B" // bedrock-mantle: USE1-openai.gpt-oss-120b-mantle-input-tokens-standard
	Marketplace Dialect = "C" // USE1-MP:USE1_InputTokenCount-Units: names no model
)

// Other is the kind of a usage type that is Bedrock's and that this package does not
// know. It is never an error: the row still has its dollars.
const Other waybill.Kind = "other"

// A UsageType is what line_item_usage_type says.
type UsageType struct {
	Dialect      Dialect
	RegionPrefix string // USE1, EU, ...; empty where the text has none
	Region       string // the Region the prefix stands for, if it is known
	Model        string // the model's billing name; empty in the Marketplace dialect
	Kind         waybill.Kind
	Tier         string
	Scope        waybill.Scope
	LongContext  bool
	// Detail is what the usage type says of images and videos, which calls do not tell and
	// prices depend on: "T2I-1024-Premium", "T2V-Medfps-HDRes".
	Detail   string
	Unparsed string // what is left over; the row goes to a bucket of its own
}

// Tokens reports whether the usage type counts tokens a call can have used.
func (u UsageType) Tokens() bool {
	for _, k := range waybill.Kinds {
		if u.Kind == k {
			return true
		}
	}
	return false
}

var (
	marketplaceText = regexp.MustCompile(`(?i)^(?:([A-Z]{2,3}[A-Z0-9]*)-MP:)?([A-Z]{2,3}[A-Z0-9]*)_(.+)-Units$`)
	regionText      = regexp.MustCompile(`(?i)^([A-Z]{2,3}[A-Z]?[0-9]?|EU)-`)
	mantleText      = regexp.MustCompile(`(?i)^(.+)-mantle-(input-tokens|output-tokens|cache-read-tokens|cache-write-tokens(?:-30m|-1h|-5m)?)((?:-long-ctx|-global)*)-(standard|flex|priority|batch)$`)

	provisionedC = regexp.MustCompile(`(?i)^ProvisionedThroughput_(NoCommit|1MonthCommit|6MonthsCommit)_ModelUnits_Usage$`)
	reservedC    = regexp.MustCompile(`(?i)^Reserved_([0-9]+)Month_(Input|Output)TPM_(Geo|Global)$`)

	reservedA      = regexp.MustCompile(`(?i)^(.+?)-reserved-([0-9]+)-month-(input|output)-tokens-per-minute(.*)$`)
	provisionedA   = regexp.MustCompile(`(?i)^(.+)-ProvisionedThroughput-(NoCommit|1month|6months)-ModelUnits$`)
	customizationA = regexp.MustCompile(`(?i)^(.+)-Customization-(Storage|Training)$`)
	guardrailA     = regexp.MustCompile(`(?i)^Guardrail(?:Checks)?-(\w+?)UnitsConsumed$`)
	consumptionA   = regexp.MustCompile(`(?i)^[A-Za-z-]+:Consumption-based:(.+)$`)
	importA        = regexp.MustCompile(`(?i)^CustomModelImport-(.+)$`)
	imageA         = regexp.MustCompile(`(?i)^(.+?)-((?:T2I|I2I)-[0-9]+-(?:Standard|Premium))((?:-.+)?)$`)
	videoA         = regexp.MustCompile(`(?i)^(.+?)-((?:(?:T2V|I2V)-)?[A-Z]+fps-[A-Z]+Res)((?:-.+)?)$`)
	searchA        = regexp.MustCompile(`(?i)(^|-)(nova-grounding|web-search|web-grounding)(-|$)`)
)

// kebabKinds are the kind tokens of the runtime dialect, longest first among those
// that contain one another: a cache read contains the words of an input.
var kebabKinds = []struct {
	text string
	kind waybill.Kind
}{
	{"cache-read-input-token-count", waybill.CacheRead},
	{"cache-write-1h-input-token-count", waybill.CacheWrite1h},
	{"cache-write-30m-input-token-count", waybill.CacheWrite30m},
	{"cache-write-input-token-count", waybill.CacheWrite5m},
	{"text-input-tokens", waybill.Input},
	{"text-output-tokens", waybill.Output},
	{"speech-input-tokens", waybill.SpeechInput},
	{"speech-output-tokens", waybill.SpeechOutput},
	{"input-image-token-count", "input_image_token"},
	{"output-image-token-count", "output_image_token"},
	{"input-audio-token-count", "input_audio_token"},
	{"input-video-token-count", "input_video_token"},
	{"input-audio-second", waybill.InputAudioSecond},
	{"input-video-second", waybill.InputVideoSecond},
	{"input-image-count", waybill.InputImage},
	{"output-image-count", waybill.OutputImage},
	{"input-tokens", waybill.Input},
	{"output-tokens", waybill.Output},
	{"search-units", waybill.SearchUnit},
	{"searchunits", waybill.SearchUnit},
	{"text-input", waybill.Input},
}

// ParseUsageType reads a usage type. It knows no failure: text it cannot read has
// the kind Other and says what was not read in Unparsed.
func ParseUsageType(text string) UsageType {
	if m := marketplaceText.FindStringSubmatch(text); m != nil {
		return parseMarketplace(m[2], m[3])
	}
	u := UsageType{Tier: waybill.TierStandard, Scope: waybill.Plain, Dialect: Kebab}
	rest := text
	if m := regionText.FindStringSubmatch(text); m != nil {
		if region, ok := regions[strings.ToUpper(m[1])]; ok {
			u.RegionPrefix, u.Region, rest = strings.ToUpper(m[1]), region, text[len(m[0]):]
		}
	}
	if strings.Contains(lowerASCII(rest), "-mantle-") {
		return parseMantle(u, rest)
	}
	return parseKebab(u, rest)
}

func parseMantle(u UsageType, rest string) UsageType {
	u.Dialect = MantleKebab
	m := mantleText.FindStringSubmatch(rest)
	if m == nil {
		u.Kind, u.Unparsed = Other, rest
		return u
	}
	u.Model, u.Tier = m[1], strings.ToLower(m[4])
	switch kind := strings.ToLower(m[2]); kind {
	case "input-tokens":
		u.Kind = waybill.Input
	case "output-tokens":
		u.Kind = waybill.Output
	case "cache-read-tokens":
		u.Kind = waybill.CacheRead
	case "cache-write-tokens-1h":
		u.Kind = waybill.CacheWrite1h
	case "cache-write-tokens-30m":
		u.Kind = waybill.CacheWrite30m
	default:
		u.Kind = waybill.CacheWrite5m
	}
	mods := strings.ToLower(m[3])
	u.LongContext = strings.Contains(mods, "-long-ctx")
	if strings.Contains(mods, "-global") {
		u.Scope = waybill.Global
	}
	return u
}

func parseKebab(u UsageType, rest string) UsageType {
	if m := reservedA.FindStringSubmatch(rest); m != nil {
		u.Model, u.Kind, u.Tier = m[1], tpmHour(m[3]), "reserved:"+m[2]+"Month"
		u.modifiers(m[4])
		return u
	}
	lower := lowerASCII(rest)
	best, length := -1, 0
	for _, k := range kebabKinds {
		i := strings.Index(lower, "-"+k.text)
		if i > 0 && (best < 0 || i < best || i == best && len(k.text) > length) {
			best, length, u.Kind = i, len(k.text), k.kind
		}
	}
	if best > 0 {
		u.Model = rest[:best]
		u.modifiers(rest[best+1+length:])
		return u
	}
	switch {
	case match(provisionedA, rest, func(m []string) { u.Model, u.Kind, u.Tier = m[1], "model_unit_hour", "provisioned:"+m[2] }):
	case match(customizationA, rest, func(m []string) { u.Model, u.Kind, u.Tier = m[1], "customization", strings.ToLower(m[2]) }):
	case match(guardrailA, rest, func(m []string) { u.Kind = waybill.Kind("guardrail_unit:" + m[1]) }):
	case match(consumptionA, rest, func(m []string) { u.Kind = waybill.Kind("consumption:" + m[1]) }):
	case match(importA, rest, func(m []string) { u.Kind = waybill.Kind("custom_import:" + m[1]) }):
	case match(imageA, rest, func(m []string) { u.Model, u.Kind, u.Detail = m[1], waybill.OutputImage, m[2]; u.modifiers(m[3]) }):
	case match(videoA, rest, func(m []string) { u.Model, u.Kind, u.Detail = m[1], waybill.VideoSecond, m[2]; u.modifiers(m[3]) }):
	case match(searchA, rest, func([]string) { u.Kind = waybill.SearchUnit }): // of no model that it names
	default:
		u.Kind, u.Unparsed = Other, rest
	}
	return u
}

func match(re *regexp.Regexp, s string, use func(groups []string)) bool {
	m := re.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	use(m)
	return true
}

// modifiers reads what follows the kind, in any order, until nothing more is known.
func (u *UsageType) modifiers(rest string) {
	for rest != "" {
		lower := lowerASCII(rest)
		cut := func(text string) bool {
			// A modifier ends at the end or before the next one.
			if !strings.HasPrefix(lower, text) || len(lower) > len(text) && lower[len(text)] != '-' {
				return false
			}
			rest = rest[len(text):]
			return true
		}
		switch {
		case cut("-cross-region-global"):
			u.Scope = waybill.Global
		case cut("-cross-region-geo"):
			u.Scope = waybill.Geo
		case cut("-long-context"):
			u.LongContext = true
		case cut("-custom-model"):
			u.Tier = waybill.TierCustomModel
		case cut("-latency-optimized"):
			u.Tier = waybill.TierLatencyOptimized
		case cut("-batch"):
			u.Tier = waybill.TierBatch
		case cut("-flex"):
			u.Tier = waybill.TierFlex
		case cut("-priority"):
			u.Tier = waybill.TierPriority
		case cut("-standard"):
			u.Tier = waybill.TierStandard
		default:
			u.Unparsed = rest
			return
		}
	}
}

func tpmHour(direction string) waybill.Kind {
	return waybill.Kind(strings.ToLower(direction) + "_tpm_hour")
}

func parseMarketplace(prefix, body string) UsageType {
	prefix = strings.ToUpper(prefix)
	u := UsageType{Dialect: Marketplace, RegionPrefix: prefix, Region: regions[prefix],
		Tier: waybill.TierStandard, Scope: waybill.Plain}
	if m := provisionedC.FindStringSubmatch(body); m != nil {
		u.Kind, u.Tier = "model_unit_hour", "provisioned:"+m[1]
		return u
	}
	if m := reservedC.FindStringSubmatch(body); m != nil {
		u.Kind, u.Tier, u.Scope = tpmHour(m[2]), "reserved:"+m[1]+"Month", waybill.Scope(strings.ToLower(m[3]))
		return u
	}
	b := strings.ToLower(body)
	starts := func(texts ...string) bool {
		for _, t := range texts {
			if strings.HasPrefix(b, t) {
				return true
			}
		}
		return false
	}
	switch {
	case starts("cacheread", "cache_read_tokens"):
		u.Kind = waybill.CacheRead
	case starts("cachewrite1h", "cache_write_tokens_1h"):
		u.Kind = waybill.CacheWrite1h
	case starts("cachewrite30m", "cache_write_tokens_30m"):
		u.Kind = waybill.CacheWrite30m
	case starts("cachewrite", "cache_write_tokens"):
		u.Kind = waybill.CacheWrite5m
	case starts("inputtoken", "millionbatchinputtoken", "input_tokens"):
		u.Kind = waybill.Input
	case starts("outputtoken", "millionbatchoutputtoken", "output_tokens"):
		u.Kind = waybill.Output
	case starts("inputimage", "input_image"):
		u.Kind = waybill.InputImage
	case starts("created_image", "outputimage", "output_image"):
		u.Kind = waybill.OutputImage
	case starts("search_unit", "searchunit", "searchquer", "search_quer", "web_search", "websearch"):
		u.Kind = waybill.SearchUnit
	case starts("inputvideosecond", "input_video_second"):
		u.Kind = waybill.InputVideoSecond
	case starts("inputaudiosecond", "input_audio_second"):
		u.Kind = waybill.InputAudioSecond
	case starts("created_video", "outputvideosecond", "output_video_second"):
		u.Kind = waybill.VideoSecond
	default:
		u.Kind, u.Unparsed = Other, body
		return u
	}
	if strings.Contains(b, "_global") {
		u.Scope = waybill.Global
	} else if strings.Contains(b, "crossgeo") || strings.Contains(b, "_geo") {
		u.Scope = waybill.Geo
	}
	u.LongContext = strings.Contains(b, "long_ctx") || strings.Contains(b, "longcontext") || strings.Contains(b, "_lctx")
	switch {
	case strings.Contains(b, "batch"):
		u.Tier = waybill.TierBatch
	case strings.Contains(b, "latencyoptimized"):
		u.Tier = waybill.TierLatencyOptimized
	case strings.Contains(b, "_flex"):
		u.Tier = waybill.TierFlex
	case strings.Contains(b, "_priority"):
		u.Tier = waybill.TierPriority
	}
	return u
}

// lowerASCII lowers A to Z and keeps every other byte in its place.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
