package blockstore

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	served, fetched, lies, corrupt prometheus.Counter
	provided, inflight             prometheus.Gauge
	fetches                        *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cloudless", Subsystem: "blockstore", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "cloudless", Subsystem: "blockstore", Name: name, Help: help})
	}
	m := &metrics{
		served:   counter("served_bytes_total", "Bytes of leaves read to be sent to other nodes."),
		fetched:  counter("fetched_bytes_total", "Bytes of verified leaves received from other nodes."),
		lies:     counter("wrong_leaves_total", "Leaves received that nobody asked for or with wrong content."),
		corrupt:  counter("corrupt_blobs_total", "Local blobs found to have wrong content."),
		provided: gauge("provided_leaves", "Distinct leaves that other nodes can fetch here."),
		inflight: gauge("inflight_leaves", "Leaves requested, or kept until their turn to be written."),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "cloudless", Subsystem: "blockstore", Name: "fetches_total",
			Help: "Fetches of blobs that ended, by result."}, []string{"result"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.served, m.fetched, m.lies, m.corrupt, m.provided, m.inflight, m.fetches} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
