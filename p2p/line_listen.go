package p2p

import (
	"errors"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	"github.com/prometheus/client_golang/prometheus"
)

// lineListeners returns a listener for lines at every TCP port of the host.
// libp2p made ports shareable for WebSockets: who starts with TLS, as a line
// does, is told from who starts with multistream-select.
func lineListeners(h host.Host) ([]transport.GatedMaListener, error) {
	sw, ok := h.Network().(*swarm.Swarm)
	if !ok {
		return nil, errors.New("the host has no TCP")
	}
	var out []transport.GatedMaListener
	for _, addr := range h.Network().ListenAddresses() {
		t, ok := sw.TransportForListening(addr).(*tcpTransport)
		if !ok || isRelayed(addr) {
			continue
		}
		l, err := t.ports.DemultiplexedListen(addr, tcpreuse.DemultiplexedConnType_TLS)
		if err != nil {
			for _, done := range out {
				_ = done.Close()
			}
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

type lineMetrics struct {
	open   prometheus.Gauge
	failed prometheus.Counter
}

func newLineMetrics(reg prometheus.Registerer) (*lineMetrics, error) {
	m := &lineMetrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "cloudless", Subsystem: "p2p", Name: "lines", Help: "Open connections of their own for bulk transfers.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cloudless", Subsystem: "p2p", Name: "line_failures_total", Help: "Lines to peers that could not be opened.",
		}),
	}
	if err := errors.Join(reg.Register(m.open), reg.Register(m.failed)); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *lineMetrics) unregister(reg prometheus.Registerer) {
	reg.Unregister(m.open)
	reg.Unregister(m.failed)
}
