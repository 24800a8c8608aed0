package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/internal/credential"
)

// sessionMetrics are the metrics of role sessions.
type sessionMetrics struct{ sessions *credential.Sessions }

// A sessionMetric is one figure of credential.Stats.
type sessionMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(credential.Stats) float64
}

var sessionDescs = []sessionMetric{
	ofSessions("waybill_sessions", "Role sessions held or being fetched.", prometheus.GaugeValue, func(s credential.Stats) float64 { return float64(s.Sessions) }),
	ofSessions("waybill_session_hits_total", "Calls that found a role session.", prometheus.CounterValue, func(s credential.Stats) float64 { return float64(s.Hits) }),
	ofSessions("waybill_session_misses_total", "Calls that had to wait for a role session.", prometheus.CounterValue, func(s credential.Stats) float64 { return float64(s.Misses) }),
	ofSessions("waybill_session_hit_ratio", "Share of calls that found a role session.", prometheus.GaugeValue, func(s credential.Stats) float64 { return s.HitRatio() }),
	ofSessions("waybill_session_waiters", "Calls that wait for a role session now.", prometheus.GaugeValue, func(s credential.Stats) float64 { return float64(s.Waiters) }),
	ofSessions("waybill_session_evictions_total", "Sessions that the bound on the cache put out.", prometheus.CounterValue, func(s credential.Stats) float64 { return float64(s.Evicted) }),
	ofSessions("waybill_session_tags_dropped_total", "Optional session tags given up because STS had no room.", prometheus.CounterValue, func(s credential.Stats) float64 { return float64(s.Dropped) }),
	ofSessions("waybill_session_packed_percent", "Largest part of STS's space that a session's tags took.", prometheus.GaugeValue, func(s credential.Stats) float64 { return float64(s.Packed) }),
	ofSessions("waybill_assume_role_total", "AssumeRole calls that gave a session.", prometheus.CounterValue, func(s credential.Stats) float64 { return float64(s.Assumed) }),
	ofSessions("waybill_assume_role_failures_total", "Sessions that could not be had.", prometheus.CounterValue, func(s credential.Stats) float64 { return float64(s.Failed) }),
	ofSessions("waybill_assume_role_throttled_total", "AssumeRole calls that STS throttled. Alert on it: the whole account shares the quota.", prometheus.CounterValue, func(s credential.Stats) float64 { return float64(s.Throttled) }),
	ofSessions("waybill_assume_role_last_hour", "Calls to STS in the last hour.", prometheus.GaugeValue, func(s credential.Stats) float64 { return float64(s.LastHour) }),
	ofSessions("waybill_assume_role_headroom", "Share of sessions.perSecond that the busiest second of the last minute left.", prometheus.GaugeValue, func(s credential.Stats) float64 { return s.Headroom }),
	ofSessions("waybill_assume_role_queue", "Sessions that wait for their turn.", prometheus.GaugeValue, func(s credential.Stats) float64 { return float64(s.Queued) }),
	ofSessions("waybill_sts_down", "1 while STS does not answer.", prometheus.GaugeValue, func(s credential.Stats) float64 { return truth(s.Down) }),
	ofSessions("waybill_sts_chained", "1 where the gateway runs under a role: sessions last an hour at most.", prometheus.GaugeValue, func(s credential.Stats) float64 { return truth(s.Chained) }),
}

func ofSessions(name, help string, kind prometheus.ValueType, value func(credential.Stats) float64) sessionMetric {
	return sessionMetric{prometheus.NewDesc(name, help, nil, nil), kind, value}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *sessionMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range sessionDescs {
		out <- d.desc
	}
}

func (m *sessionMetrics) Collect(out chan<- prometheus.Metric) {
	s := m.sessions.Stats()
	for _, d := range sessionDescs {
		out <- prometheus.MustNewConstMetric(d.desc, d.kind, d.value(s))
	}
}
