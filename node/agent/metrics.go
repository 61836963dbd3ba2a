package agent

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	restarts prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cloudless_agent_restarts_total",
			Help: "Containers started again after their process ended.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.restarts)
	}
	return m
}
