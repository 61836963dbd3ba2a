package raftmeta

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures of one anchor. A nil registerer costs nothing.
type metrics struct {
	registry   prometheus.Registerer
	commit     prometheus.Histogram
	registered []prometheus.Collector
}

func newMetrics(registry prometheus.Registerer, a *Anchor) (*metrics, error) {
	m := &metrics{registry: registry}
	m.commit = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "cloudless_raftmeta_commit_seconds",
		Help:    "Time from a proposal to its application on the leader.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	})
	if registry == nil {
		return m, nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "cloudless_raftmeta_" + name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		m.commit,
		gauge("is_leader", "1 while this anchor leads.", func() float64 {
			if a.IsLeader() {
				return 1
			}
			return 0
		}),
		gauge("applied_index", "Index of the last entry given to the state machine.", func() float64 { return float64(a.raft.AppliedIndex()) }),
		gauge("term", "Current Raft term.", func() float64 { return float64(a.raft.CurrentTerm()) }),
	} {
		if err := registry.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

func (m *metrics) committed(took time.Duration) { m.commit.Observe(took.Seconds()) }

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registry.Unregister(c)
	}
}
