package p2p

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
)

const (
	relayBuffer     = 64 << 10 // bytes per direction; libp2p's 2 KiB halve the throughput
	relayTTL        = time.Hour
	maxReservations = 16384
	maxCircuits     = 4096 // per member
)

// relayACL lets admitted members reserve and connect, to admitted members.
type relayACL struct{ m *Mesh }

func (a relayACL) AllowReserve(p peer.ID, _ multiaddr.Multiaddr) bool {
	_, ok := a.m.admitted(p)
	return ok
}

func (a relayACL) AllowConnect(src peer.ID, _ multiaddr.Multiaddr, dest peer.ID) bool {
	_, from := a.m.admitted(src)
	_, to := a.m.admitted(dest)
	return from && to
}

// startRelay begins to relay for members. A relay never stops before the mesh
// does: one that is no longer reachable is simply not used.
func (m *Mesh) startRelay() error {
	m.relayMu.Lock()
	defer m.relayMu.Unlock()
	if m.relay != nil || m.ctx.Err() != nil {
		return nil
	}
	limit := newShares(m.ctx, m.cfg.RelayLimit/8)
	r, err := m.newRelay(circuitHost{m.gated, m.carried, limit})
	if err != nil {
		return err
	}
	m.relay, m.limit = r, limit
	if limit != nil {
		m.spawn(func() { limit.run(m.ctx) })
	}
	m.log.Info("relaying for other members", zap.Uint64("limit_bps", m.cfg.RelayLimit))
	return nil
}

// newRelay starts libp2p's relay on a host.
func (m *Mesh) newRelay(h host.Host) (*relay.Relay, error) {
	r, err := relay.New(h,
		relay.WithResources(relay.Resources{
			Limit:                 nil, // members relay for members: no limit of time or data
			ReservationTTL:        relayTTL,
			MaxReservations:       maxReservations,
			MaxCircuits:           maxCircuits,
			BufferSize:            relayBuffer,
			MaxReservationsPerIP:  maxSubnetConns,
			MaxReservationsPerASN: maxReservations,
		}),
		relay.WithACL(relayACL{m}),
		// A relay on a LAN, or in a lab, is a relay too.
		relay.WithReservationAddressFilter(func(multiaddr.Multiaddr) bool { return true }),
		relay.WithMetricsTracer(relayTracer{m.metrics}),
	)
	if err != nil {
		return nil, fmt.Errorf("start relay: %w", err)
	}
	return r, nil
}

func (m *Mesh) stopRelay() {
	m.relayMu.Lock()
	defer m.relayMu.Unlock()
	if m.relay != nil {
		_ = m.relay.Close()
	}
}

// useRelays makes the host reach others, and be reached, through relays.
func (m *Mesh) useRelays(gater *gater) error {
	up, err := newUpgrader(m.host, gater)
	if err != nil {
		return err
	}
	h := circuitHost{m.gated, m.viaRelays, nil}
	if m.cfg.Client {
		return dialOnly(h, up)
	}
	if err := client.AddTransport(h, up); err != nil {
		return fmt.Errorf("add relay transport: %w", err)
	}
	if m.cfg.Public == PublicYes {
		return nil
	}
	m.reserver = newReserver(m)
	return nil
}

// dialOnly adds the relay transport without listening on it.
func dialOnly(h host.Host, up transport.Upgrader) error {
	n, ok := h.Network().(transport.TransportNetwork)
	if !ok {
		return fmt.Errorf("add relay transport: %T takes none", h.Network())
	}
	c, err := client.New(h, up)
	if err != nil {
		return fmt.Errorf("add relay transport: %w", err)
	}
	if err := n.AddTransport(c); err != nil {
		return fmt.Errorf("add relay transport: %w", err)
	}
	return nil
}

// relayTracer counts what the relay does.
type relayTracer struct{ *meshMetrics }

func (t relayTracer) RelayStatus(bool)               {}
func (t relayTracer) ConnectionOpened()              { t.circuits.Inc() }
func (t relayTracer) ConnectionClosed(time.Duration) { t.circuits.Dec() }
func (t relayTracer) ConnectionRequestHandled(status pb.Status) {
	t.relayed.WithLabelValues("connect", status.String()).Inc()
}
func (t relayTracer) ReservationAllowed(isRenewal bool) {
	if !isRenewal {
		t.reservations.Inc()
	}
}
func (t relayTracer) ReservationClosed(n int) { t.reservations.Sub(float64(n)) }
func (t relayTracer) ReservationRequestHandled(status pb.Status) {
	t.relayed.WithLabelValues("reserve", status.String()).Inc()
}
func (t relayTracer) BytesTransferred(n int) { t.relayedBytes.Add(float64(n)) }

var _ relay.MetricsTracer = relayTracer{}
