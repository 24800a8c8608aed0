package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill"
)

// Metrics count what the gateway does. Names follow OpenTelemetry's conventions for
// generative AI where those have a name. Labels are of few values: no tag, no caller.
type Metrics struct {
	calls      *prometheus.CounterVec
	tokens     *prometheus.CounterVec
	unknown    *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	firstByte  prometheus.Histogram
	violations *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		calls:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waybill_calls_total", Help: "Calls by how they ended."}, []string{"operation", "outcome"}),
		tokens:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gen_ai_client_token_usage_total", Help: "Usage that was metered, by model and kind."}, []string{"gen_ai_request_model", "gen_ai_token_type"}),
		unknown:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waybill_usage_unknown_total", Help: "Calls whose usage is not known. Alert on it."}, []string{"operation"}),
		duration:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "gen_ai_client_operation_duration_seconds", Help: "Time until the last byte of the answer.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 16)}, []string{"operation"}),
		firstByte:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "gen_ai_server_time_to_first_token_seconds", Help: "Time until the first byte of the answer.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 14)}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waybill_policy_violations_total", Help: "Violations of the tag policy, by key and kind."}, []string{"violation"}),
	}
	r.MustRegister(m.calls, m.tokens, m.unknown, m.duration, m.firstByte, m.violations)
	return m
}

func (m *Metrics) ended(v *waybill.Invocation) {
	if m == nil {
		return
	}
	m.calls.WithLabelValues(v.Operation, string(v.Outcome)).Inc()
	for _, reason := range v.Reasons {
		m.violations.WithLabelValues(reason).Inc()
	}
	if v.Outcome == waybill.Refused {
		return
	}
	if !v.Usage.Known {
		m.unknown.WithLabelValues(v.Operation).Inc()
	}
	for kind, n := range v.Usage.All() {
		m.tokens.WithLabelValues(v.Model, string(kind)).Add(float64(n))
	}
	m.duration.WithLabelValues(v.Operation).Observe(v.Latency.Seconds())
	if v.TimeToFirstByte > 0 {
		m.firstByte.Observe(v.TimeToFirstByte.Seconds())
	}
}
