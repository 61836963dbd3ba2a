package svcnet

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/api"
)

// The sides of a flow.
const (
	sideClient = "client" // accepted at a VIP of this node
	sideServer = "server" // came in from a peer
)

// metrics are the collectors of one Network.
type metrics struct {
	flows   *prometheus.CounterVec // side, proto, path, result
	active  *prometheus.GaugeVec   // side, proto, path
	bytes   *prometheus.CounterVec // side, path, direction
	retries prometheus.Counter
	moves   *prometheus.CounterVec // result
	queries *prometheus.CounterVec // kind, rcode
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "cloudless", Subsystem: "svcnet", Name: name, Help: help}
	}
	m := &metrics{
		flows: prometheus.NewCounterVec(prometheus.CounterOpts(opts("flows_total",
			"Service connections and UDP sessions by outcome.")), []string{"side", "proto", "path", "result"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("flows_active",
			"Service connections and UDP sessions that are open.")), []string{"side", "proto", "path"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts(opts("bytes_total",
			"Bytes carried: sent to the endpoint, received from it.")), []string{"side", "path", "direction"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts(opts("retries_total",
			"Endpoints that failed or were too slow, so that another one was tried."))),
		moves: prometheus.NewCounterVec(prometheus.CounterOpts(opts("moves_total",
			"Bulk flows that were to move onto a line of their own, by what came of it.")), []string{"result"}),
		queries: prometheus.NewCounterVec(prometheus.CounterOpts(opts("dns_queries_total",
			"DNS queries answered from local state or forwarded.")), []string{"kind", "rcode"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.flows, m.active, m.bytes, m.retries, m.moves, m.queries} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// tally counts what one open flow carries.
type tally struct {
	active         prometheus.Gauge
	sent, received prometheus.Counter
}

func (m *metrics) open(side, proto string, path api.Path) *tally {
	m.flows.WithLabelValues(side, proto, string(path), "ok").Inc()
	t := &tally{
		active:   m.active.WithLabelValues(side, proto, string(path)),
		sent:     m.bytes.WithLabelValues(side, string(path), "sent"),
		received: m.bytes.WithLabelValues(side, string(path), "received"),
	}
	t.active.Inc()
	return t
}

func (t *tally) close() { t.active.Dec() }

func (m *metrics) fail(side, proto string, path api.Path, result string) {
	m.flows.WithLabelValues(side, proto, string(path), result).Inc()
}
