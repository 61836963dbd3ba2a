package p2p

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/api"
)

// meshMetrics are what the mesh counts. Peers by path are looked up when the
// metrics are read.
type meshMetrics struct {
	hellos       *prometheus.CounterVec // result
	twins        prometheus.Counter
	refused      *prometheus.CounterVec // proto, reason
	enrolments   *prometheus.CounterVec // result
	punches      *prometheus.CounterVec // result
	relayed      *prometheus.CounterVec // request, status
	messages     *prometheus.CounterVec // result
	records      *prometheus.CounterVec // via, result
	recordBytes  *prometheus.CounterVec // via, direction
	pulls        *prometheus.CounterVec // result
	lookups      *prometheus.CounterVec // result
	deadPaths    prometheus.Counter
	reservations prometheus.Gauge
	circuits     prometheus.Gauge
	relayedBytes prometheus.Counter
	rtt          prometheus.Histogram
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "cloudless", Subsystem: "p2p", Name: name, Help: help}, labels)
}

func newMetrics() *meshMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "cloudless", Subsystem: "p2p", Name: name, Help: help})
	}
	return &meshMetrics{
		hellos: counterVec("hellos_total", "Admission handshakes by result.", "result"),
		twins: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cloudless", Subsystem: "p2p", Name: "twins_total", Help: "Times that two daemons with one identity were found to run at once.",
		}),
		refused:     counterVec("streams_refused_total", "Streams that were refused, by protocol and reason.", "proto", "reason"),
		enrolments:  counterVec("enrolments_total", "Requests to enrol by result.", "result"),
		punches:     counterVec("hole_punches_total", "Hole punches and direct dials by result.", "result"),
		relayed:     counterVec("relay_requests_total", "Requests to this relay by kind and status.", "request", "status"),
		messages:    counterVec("topic_messages_total", "Topic messages received by result.", "result"),
		records:     counterVec("records_total", "Member records received, by the way they came and what became of them.", "via", "result"),
		recordBytes: counterVec("record_bytes_total", "Bytes that tell where members are, by the way they go and direction.", "via", "direction"),
		pulls:       counterVec("record_pulls_total", "Comparisons of the known member records with a peer's, by result.", "result"),
		lookups:     counterVec("dht_lookups_total", "Searches for members that could not be reached at known addresses, by result.", "result"),
		deadPaths: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cloudless", Subsystem: "p2p", Name: "dead_paths_total", Help: "Direct paths that were given up because the peer answered in another way only.",
		}),
		reservations: gauge("relay_reservations", "Members that hold a reservation at this relay."),
		circuits:     gauge("relay_circuits", "Connections that this relay carries."),
		relayedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cloudless", Subsystem: "p2p", Name: "relayed_bytes_total", Help: "Bytes carried for others.",
		}),
		rtt: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "cloudless", Subsystem: "p2p", Name: "probe_rtt_seconds", Help: "Round trips to peers.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}),
	}
}

// register makes the metrics readable. It undoes itself on error.
func (m *Mesh) registerMetrics(reg prometheus.Registerer) error {
	t := m.metrics
	m.collectors = []prometheus.Collector{
		t.hellos, t.twins, t.refused, t.enrolments, t.punches, t.relayed, t.messages,
		t.deadPaths, t.reservations, t.circuits, t.relayedBytes, t.rtt, peersByPath{m}, relayUsage{m},
		t.records, t.recordBytes, t.pulls, t.lookups, m.recordsKnown(),
	}
	for i, c := range m.collectors {
		if err := reg.Register(c); err != nil {
			for _, done := range m.collectors[:i] {
				reg.Unregister(done)
			}
			m.collectors = nil
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (m *Mesh) unregisterMetrics() {
	for _, c := range m.collectors {
		m.cfg.Metrics.Unregister(c)
	}
}

// recordsKnown is how many members have told where they are.
func (m *Mesh) recordsKnown() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "cloudless", Subsystem: "p2p", Name: "records", Help: "Members whose signed addresses are known, this device among them.",
	}, func() float64 { return float64(m.records.size()) })
}

// peersByPath counts the admitted peers per path class.
type peersByPath struct{ m *Mesh }

var peersDesc = prometheus.NewDesc("cloudless_p2p_peers", "Admitted peers by path.", []string{"path"}, nil)

// Describe implements prometheus.Collector.
func (peersByPath) Describe(ch chan<- *prometheus.Desc) { ch <- peersDesc }

// Collect implements prometheus.Collector.
func (c peersByPath) Collect(ch chan<- prometheus.Metric) {
	count := map[api.Path]int{api.PathLAN: 0, api.PathDirect: 0, api.PathRelayed: 0}
	for _, p := range c.m.Peers() {
		count[p.Path]++
	}
	for path, n := range count {
		ch <- prometheus.MustNewConstMetric(peersDesc, prometheus.GaugeValue, float64(n), string(path))
	}
}
