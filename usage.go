package waybill

import (
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
)

// A Kind is what a quantity of usage counts. The names are the columns of the
// ledger, the keys of its JSON output and the usage kinds of the rate card. The
// bill knows more kinds than a call can have (model unit hours, training, ...):
// those are Kinds too, but not in Kinds.
type Kind string

// The kinds of usage a single call can have. Token kinds never overlap: input is
// uncached input, whatever the API that reported it counts as input.
const (
	Input            Kind = "input"              // uncached input tokens
	Output           Kind = "output"             // output tokens, reasoning included
	CacheRead        Kind = "cache_read"         // input tokens read from a prompt cache
	CacheWrite5m     Kind = "cache_write_5m"     // input tokens written to a cache that lives 5 minutes
	CacheWrite30m    Kind = "cache_write_30m"    // the same, 30 minutes
	CacheWrite1h     Kind = "cache_write_1h"     // the same, 1 hour
	InputImage       Kind = "input_image"        // images read
	OutputImage      Kind = "output_image"       // images made
	SpeechInput      Kind = "speech_input"       // speech tokens heard
	SpeechOutput     Kind = "speech_output"      // speech tokens spoken
	InputAudioSecond Kind = "input_audio_second" // seconds of audio read
	InputVideoSecond Kind = "input_video_second" // seconds of video read
	VideoSecond      Kind = "video_second"       // seconds of video made
	SearchUnit       Kind = "search_unit"        // rerank queries, web searches
	GuardrailUnit    Kind = "guardrail_unit"     // guardrail text units, all policies
)

// Kinds lists the kinds a call can have, in the order in which reports show them.
// It is fixed: a new kind is appended, and is a new column of the ledger.
var Kinds = [...]Kind{Input, Output, CacheRead, CacheWrite5m, CacheWrite30m, CacheWrite1h,
	InputImage, OutputImage, SpeechInput, SpeechOutput, InputAudioSecond, InputVideoSecond,
	VideoSecond, SearchUnit, GuardrailUnit}

func (k Kind) index() int {
	for i, l := range Kinds {
		if k == l {
			return i
		}
	}
	return -1
}

// Usage is what one call consumed, by kind, and whether that is known at all: a
// call that was cut short is not a call that used nothing. The zero value is usage
// that is not known.
type Usage struct {
	// Known is false where nobody has told the usage. The quantities then mean nothing.
	Known bool
	// Reasoning is the part of output that was reasoning: inside Output, not added to it.
	Reasoning int64

	n [len(Kinds)]int64
}

// NewUsage is known usage of nothing, to be filled by Set.
func NewUsage() Usage { return Usage{Known: true} }

// Of is the quantity of a kind, zero for a kind that calls do not have.
func (u Usage) Of(k Kind) int64 {
	if i := k.index(); i >= 0 {
		return u.n[i]
	}
	return 0
}

// Set puts the quantity of a kind. It reports false, and changes nothing, for a kind
// that calls do not have and for a negative quantity.
func (u *Usage) Set(k Kind, n int64) bool {
	i := k.index()
	if i < 0 || n < 0 {
		return false
	}
	u.n[i] = n
	return true
}

// With is u with one quantity put; it is for literals: NewUsage().With(Input, 3).
func (u Usage) With(k Kind, n int64) Usage {
	u.Set(k, n)
	return u
}

// All yields the kinds with a quantity other than zero, in the order of Kinds.
func (u Usage) All() iter.Seq2[Kind, int64] {
	return func(yield func(Kind, int64) bool) {
		for i, n := range u.n {
			if n != 0 && !yield(Kinds[i], n) {
				return
			}
		}
	}
}

// Add is the sum of two usages, known if both are.
func (u Usage) Add(v Usage) Usage {
	u.Known = u.Known && v.Known
	u.Reasoning += v.Reasoning
	for i := range u.n {
		u.n[i] += v.n[i]
	}
	return u
}

// Larger merges two reports of one call: the larger counter wins, kind by kind,
// because a streamed call may leave a zero record before the full one. It is known
// if either is.
func (u Usage) Larger(v Usage) Usage {
	if !u.Known {
		return v
	}
	if !v.Known {
		return u
	}
	u.Reasoning = max(u.Reasoning, v.Reasoning)
	for i := range u.n {
		u.n[i] = max(u.n[i], v.n[i])
	}
	return u
}

// Context is the number of tokens the model had to read: input, cache reads and
// cache writes. Long-context prices go by it.
func (u Usage) Context() int64 {
	return u.Of(Input) + u.Of(CacheRead) + u.Of(CacheWrite5m) + u.Of(CacheWrite30m) + u.Of(CacheWrite1h)
}

// A Scope says which price a call goes by: of the Region itself, of a geographic
// profile, or of a global one. The bill may book a geographic profile's calls as
// plain ones, so the two are compared as one group.
type Scope string

// The scopes.
const (
	Plain  Scope = "plain"  // a model called in its Region, or a provisioned one
	Geo    Scope = "geo"    // a geographic inference profile: us., eu., apac., ...
	Global Scope = "global" // a global inference profile
)

// Group is the scope at which log and bill can meet: Regional for Plain and Geo.
func (s Scope) Group() Scope {
	if s == Global {
		return Global
	}
	return Regional
}

// Regional is the group of Plain and Geo in a UsageKey.
const Regional Scope = "regional"

// Tiers a call can be served in. The bill has more (batch, provisioned:..., ...).
const (
	TierStandard         = "standard"
	TierFlex             = "flex"
	TierPriority         = "priority"
	TierReserved         = "reserved"
	TierBatch            = "batch"
	TierLatencyOptimized = "latency-optimized"
	TierCustomModel      = "custom-model"
)

// A UsageKey is the grain on which metered usage and the bill can meet within a
// billing period.
type UsageKey struct {
	Account     string   // twelve digits: the account that used it
	Region      string   // the Region that was called
	Endpoint    Endpoint // Mantle where the bill tells its calls apart, else Runtime
	Model       string   // canonical model id, see ModelID.Base
	Kind        Kind
	Tier        string
	Scope       Scope // Regional or Global
	LongContext bool  // billed at the long-context price
}

// Compare orders keys as reports list them.
func (k UsageKey) Compare(l UsageKey) int {
	return compareStrings(
		k.Account, l.Account, k.Region, l.Region, k.Model, l.Model, string(k.Endpoint), string(l.Endpoint), string(k.Kind), string(l.Kind),
		k.Tier, l.Tier, string(k.Scope), string(l.Scope), boolText(k.LongContext), boolText(l.LongContext))
}

func boolText(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// compareStrings compares pairs until two differ.
func compareStrings(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] < pairs[i+1] {
			return -1
		}
		if pairs[i] > pairs[i+1] {
			return 1
		}
	}
	return 0
}

// A UsageTotal is a cell of the hourly roll-up: the merged calls of one UTC hour
// that agree in everything a report can ask for or a price depend on.
type UsageTotal struct {
	Hour          Hour
	Account       string
	Region        string
	Endpoint      Endpoint
	Model         string // canonical model id
	ModelID       ModelID
	ModelAsked    ModelID // as the caller named it, where the gateway sent another
	Operation     string
	Profile       string // application inference profile ARN
	Project       string // project or workspace id
	Scope         Scope  // Plain, Geo or Global, by the profile that was named
	Tier          string
	LatencyMode   string // "optimized", or empty
	Principal     string // our caller: subject; empty for calls known from the log alone
	Issuer        string // Principal.Issuer
	KeyID         string // gateway key that was used
	PrincipalARN  string
	SessionName   string
	TagSet        string // Tags.ID; look it up in Tags of the same answer
	Sources       string // "gateway", "log", or "both"
	Outcome       Outcome
	PolicyOutcome string
	Calls         int64
	Unknown       int64 // calls among them whose usage is not known
	Usage         Usage // summed over the calls whose usage is known
	// ContextBucket tells calls with a long context apart, since some models price the
	// whole call by it: 0 where the context is 100,000 tokens or less, else the context
	// less one token, rounded down to a thousand. A call is above a threshold T, a
	// multiple of 1,000, exactly if ContextBucket >= T.
	ContextBucket int64
}

// MarshalJSON writes known usage as an object of its kinds, unknown usage as null.
func (u Usage) MarshalJSON() ([]byte, error) { return u.appendJSON(nil), nil }

func (u Usage) appendJSON(b []byte) []byte {
	if !u.Known {
		return append(b, "null"...)
	}
	b = append(b, '{')
	from := len(b)
	for k, n := range u.All() {
		b = append(b, '"')
		b = append(b, k...)
		b = append(b, '"', ':')
		b = append(strconv.AppendInt(b, n, 10), ',')
	}
	if u.Reasoning != 0 {
		b = append(b, `"reasoning":`...)
		b = append(strconv.AppendInt(b, u.Reasoning, 10), ',')
	}
	if len(b) > from {
		b = b[:len(b)-1] // the last comma
	}
	return append(b, '}')
}

// UnmarshalJSON reads what MarshalJSON wrote. An unknown kind is an error: it would
// be money lost.
func (u *Usage) UnmarshalJSON(b []byte) error {
	var m map[string]int64
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*u = Usage{Known: m != nil}
	for name, n := range m {
		if name == "reasoning" {
			u.Reasoning = n
			continue
		}
		if !u.Set(Kind(name), n) {
			return fmt.Errorf("usage of kind %q: %d: unknown kind or negative quantity", name, n)
		}
	}
	return nil
}

// ContextBucketOf is the UsageTotal.ContextBucket of a call with a context of n tokens.
func ContextBucketOf(n int64) int64 {
	if n <= 100_000 {
		return 0
	}
	return (n - 1) / 1000 * 1000
}
