package gateway

import (
	"math/big"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

// Metrics count what the gateway does. Names and attributes follow OpenTelemetry's
// conventions for generative AI (semantic conventions 1.37, "Generative AI metrics")
// where those have one, in Prometheus's spelling. No label holds a tag or a caller, and
// what callers can make up (models, tag keys) has a bounded number of values.
type Metrics struct {
	calls      *prometheus.CounterVec
	tokenUsage *prometheus.HistogramVec
	tokens     *prometheus.CounterVec
	unknown    *prometheus.CounterVec
	cost       *prometheus.CounterVec
	unpriced   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	firstByte  *prometheus.HistogramVec
	violations *prometheus.CounterVec
	underWay   prometheus.Gauge
	left       func() // counts a call out of underWay

	models, reasons, errors values

	mu     sync.RWMutex           // guards series
	series map[callLabels]*series // what was looked up
}

// callLabels are what the labels of a call are made of.
type callLabels struct {
	operation            string
	outcome              waybill.Outcome
	request, model, fail string
}

// series are those that calls with the same labels count in. A vector hashes and compares every
// label whenever it is asked for one of its series; these it is asked for once, when the
// first call needs them, so that no series is there before something is counted in it.
type series struct {
	calls, unknown, cost, unpriced     func() prometheus.Counter
	tokens                             [len(waybill.Kinds)]func() prometheus.Counter
	input, output, duration, firstByte func() prometheus.Observer
}

// maxSeries bounds for how many labels the series are kept at hand.
const maxSeries = 1000

// of gives the series of some labels.
func (m *Metrics) of(k callLabels) *series {
	m.mu.RLock()
	s := m.series[k]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	counter := func(v *prometheus.CounterVec, labels ...string) func() prometheus.Counter {
		return sync.OnceValue(func() prometheus.Counter { return v.WithLabelValues(labels...) })
	}
	histogram := func(v *prometheus.HistogramVec, more ...string) func() prometheus.Observer {
		labels := append([]string{operationName(k.operation), "aws.bedrock", k.request, k.model}, more...)
		return sync.OnceValue(func() prometheus.Observer { return v.WithLabelValues(labels...) })
	}
	s = &series{
		calls: counter(m.calls, k.operation, string(k.outcome)), unknown: counter(m.unknown, k.operation),
		cost: counter(m.cost, k.model, k.operation), unpriced: counter(m.unpriced, k.model, k.operation),
		input: histogram(m.tokenUsage, "input"), output: histogram(m.tokenUsage, "output"),
		duration: histogram(m.duration, k.fail), firstByte: histogram(m.firstByte),
	}
	for i, kind := range waybill.Kinds {
		s.tokens[i] = counter(m.tokens, k.model, string(kind))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.series == nil || len(m.series) >= maxSeries { // what is in use comes again at once
		m.series = make(map[callLabels]*series)
	}
	m.series[k] = s
	return s
}

// maxValues bounds the values of one label.
const maxValues = 300

// values keeps the first values of a label that are good, and calls the rest "other".
type values struct {
	mu    sync.RWMutex      // guards known
	known map[string]string // each by itself
}

func (v *values) of(text string, good bool) string {
	v.mu.RLock()
	known, ok := v.known[text]
	v.mu.RUnlock()
	if ok || text == "" {
		return known
	}
	if !good {
		return "other"
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil {
		v.known = make(map[string]string)
	}
	if len(v.known) >= maxValues || len(text) > 200 || !utf8.ValidString(text) { // for such a label the library panics
		return "other"
	}
	text = strings.Clone(text) // it may be a piece of a request
	v.known[text] = text
	return text
}

// The buckets that the conventions ask for.
var (
	tokenBuckets    = []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
	durationBuckets = []float64{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
	firstBuckets    = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
)

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	operation := []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"}
	m := &Metrics{
		calls:      counter("waybill_calls_total", "Calls by how they ended.", "operation", "outcome"),
		tokenUsage: histogram("gen_ai_client_token_usage", "Tokens of a call, input and output.", tokenBuckets, append(operation, "gen_ai_token_type")...),
		tokens:     counter("waybill_usage_total", "Usage that was metered, by model and kind, in the kind's unit.", "model", "kind"),
		unknown:    counter("waybill_usage_unknown_total", "Calls whose usage is not known. Alert on it.", "operation"),
		cost:       counter("waybill_estimated_cost_usd_total", "Cost of calls by the rate card, in dollars: an estimate, kept exactly only in the ledger.", "model", "operation"),
		unpriced:   counter("waybill_unpriced_calls_total", "Calls with usage that the rate card has no price for.", "model", "operation"),
		duration:   histogram("gen_ai_server_request_duration_seconds", "Time until the last byte of the answer.", durationBuckets, append(operation, "error_type")...),
		firstByte:  histogram("gen_ai_server_time_to_first_token_seconds", "Time until the first byte of the answer.", firstBuckets, operation...),
		violations: counter("waybill_policy_violations_total", "Violations of the tag policy, by key and kind; what begins with gateway: is the gateway's own doing.", "violation"),
		underWay:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "waybill_calls_under_way", Help: "Calls under way."}),
	}
	m.left = m.underWay.Dec
	r.MustRegister(m.calls, m.tokenUsage, m.tokens, m.unknown, m.cost, m.unpriced, m.duration, m.firstByte, m.violations, m.underWay)
	return m
}

// operationName is the name of an operation in the conventions: one of their own, or else
// ours.
func operationName(operation string) string {
	switch bedrock.Operation(operation) {
	case bedrock.Converse, bedrock.ConverseStream, bedrock.InvokeModel, bedrock.InvokeModelWithResponseStream, bedrock.ChatCompletions, bedrock.Responses, bedrock.Messages:
		return "chat"
	case bedrock.Embeddings:
		return "embeddings"
	}
	return operation
}

// began counts a call that comes in; what it returns counts it out.
func (m *Metrics) began() (left func()) {
	if m == nil {
		return func() {}
	}
	m.underWay.Inc()
	return m.left
}

// ended counts a call. Its cost counts only if it has a price, and a use of a model that
// an earlier call has told of does not count again.
func (m *Metrics) ended(c *call) {
	if m == nil {
		return
	}
	v := &c.record
	for _, reason := range v.Reasons {
		m.violations.WithLabelValues(m.reasons.of(reason, true)).Inc()
	}
	k := callLabels{operation: v.Operation, outcome: v.Outcome}
	if v.Outcome == waybill.Refused {
		m.of(k).calls().Inc()
		return
	}
	asked := v.ModelAsked
	if asked == "" {
		asked = v.ModelID
	}
	done := v.Outcome == waybill.Completed // AWS knows the model
	k.request, k.model = m.models.of(string(asked), done), m.models.of(v.Model, done)
	if !done {
		if k.fail = m.errors.of(v.ErrorCode, true); k.fail == "" {
			k.fail = string(v.Outcome)
		}
	}
	s := m.of(k)
	s.calls().Inc()
	if !v.Usage.Known {
		s.unknown().Inc()
	}
	if !c.again {
		for kind, n := range v.Usage.All() {
			s.tokens[slices.Index(waybill.Kinds[:], kind)]().Add(float64(n))
		}
		if n := v.Usage.Context(); v.Usage.Known && n > 0 {
			s.input().Observe(float64(n))
		}
		if n := v.Usage.Of(waybill.Output); v.Usage.Known && n > 0 {
			s.output().Observe(float64(n))
		}
	}
	switch {
	case c.again:
	case c.priced:
		s.cost().Add(dollars(c.cost.Unscaled()))
	case c.config.Prices != nil && v.Usage.Known:
		s.unpriced().Inc()
	}
	s.duration().Observe(v.Latency.Seconds())
	if v.TimeToFirstByte > 0 {
		s.firstByte().Observe(v.TimeToFirstByte.Seconds())
	}
}

// looks remembers which responses that were made in the background were seen done: every
// later look tells their usage again.
type looks struct {
	mu    sync.Mutex // guards what follows
	seen  map[string]bool
	order []string // of seen, from next on the oldest first
	next  int
}

// maxLooks is how many responses are remembered.
const maxLooks = 10_000

// first reports whether a response was not seen done before.
func (l *looks) first(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[id] {
		return false
	}
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	l.seen[id] = true
	if len(l.order) < maxLooks {
		l.order = append(l.order, id)
		return true
	}
	delete(l.seen, l.order[l.next])
	l.order[l.next] = id
	l.next = (l.next + 1) % maxLooks
	return true
}

// dollars is what so many units of Money.Unscaled are, as near as a float comes: it is for
// show.
func dollars(unscaled *big.Int) float64 {
	if n := unscaled.Int64(); unscaled.IsInt64() && n >= -1<<53 && n <= 1<<53 {
		return float64(n) / 1e18 // floats hold both, so that this is rounded once, as below
	}
	f, _ := new(big.Rat).SetFrac(unscaled, dollar).Float64()
	return f
}

// dollar is one in the unit of Money.Unscaled.
var dollar = new(big.Int).Exp(big.NewInt(10), big.NewInt(18), nil)
