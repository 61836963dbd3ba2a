package sched

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/sched/reconcile"
)

type metrics struct {
	decisions *prometheus.CounterVec
	conflicts prometheus.Counter
	unplaced  prometheus.Gauge
	plan      prometheus.Histogram
	decision  prometheus.Histogram
}

// newMetrics registers the collectors of the scheduler. A node that leads for
// a second time finds its own from the first time and goes on with them.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	const us = 1e-6
	buckets := prometheus.ExponentialBuckets(10*us, 4, 10) // 10 µs … 2.6 s
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cloudless_sched_decisions_total",
			Help: "Decisions that were committed, by what was decided: place, promote, drop, stop or forget."}, []string{"kind"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{Name: "cloudless_sched_conflicts_total",
			Help: "Plans that were refused because the state had changed meanwhile."}),
		unplaced: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cloudless_sched_unplaced_workloads",
			Help: "Workloads that lack something, by the last plan."}),
		plan: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cloudless_sched_plan_seconds",
			Help: "Time to make a plan.", Buckets: buckets}),
		decision: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cloudless_sched_decision_seconds",
			Help: "Time to make a plan, for each replica that it places.", Buckets: buckets}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(
		register(reg, &m.decisions), register(reg, &m.conflicts), register(reg, &m.unplaced),
		register(reg, &m.plan), register(reg, &m.decision))
}

func register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if known, ok := there.ExistingCollector.(C); ok {
			*c = known
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

func (m *metrics) planned(plan *reconcile.Plan, took time.Duration) {
	m.plan.Observe(took.Seconds())
	m.unplaced.Set(float64(len(plan.Unplaced)))
	if n := len(plan.Place); n > 0 {
		m.decision.Observe(took.Seconds() / float64(n))
	}
}

func (m *metrics) committed(plan *reconcile.Plan) {
	m.decisions.WithLabelValues("place").Add(float64(len(plan.Place)))
	m.decisions.WithLabelValues("promote").Add(float64(len(plan.Promote)))
	m.decisions.WithLabelValues("drop").Add(float64(len(plan.Drop)))
	m.decisions.WithLabelValues("stop").Add(float64(len(plan.Stop)))
	m.decisions.WithLabelValues("forget").Add(float64(len(plan.Forget)))
}
