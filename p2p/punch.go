package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	directTimeout = 2 * time.Second
	// maxPunches bounds the attempts in a row with one peer: a pair of NATs that
	// has defeated this many will defeat the next one, unless what stands in the
	// way is not the NATs, so that one is made now and then. A change of addresses,
	// or a new connection, starts anew.
	maxPunches = 12
	punchRest  = 10 * time.Minute
)

var (
	errPunchRests = errors.New("hole punching rests")
	errPunchLater = errors.New("hole punching is not possible yet: no public address was observed")
)

// usePunching adds hole punching. libp2p tries once per relayed connection,
// often before the other side is ready (dcutr is only registered once an
// address was observed), and never again; so the keeper retries by punch.
func (m *Mesh) usePunching() error {
	var err error
	m.puncher, err = holepunch.NewService(punchHost{m.host, m}, m.host.IDService(), m.publicAddrs,
		holepunch.DirectDialTimeout(directTimeout), holepunch.WithTracer(punchTracer{m.metrics}))
	if err != nil {
		return fmt.Errorf("start hole punching: %w", err)
	}
	return nil
}

// publicAddrs are the addresses that others may punch to, among them those
// that peers have observed.
func (m *Mesh) publicAddrs() []multiaddr.Multiaddr {
	return slices.DeleteFunc(m.told(m.host.AllAddrs()), func(a multiaddr.Multiaddr) bool { return !manet.IsPublicAddr(a) })
}

// punch tries to get from a relayed connection to a direct one. Both sides dial
// the direct addresses they know, which is what connects two devices of one
// house; the side that was dialled through the relay coordinates a hole punch.
func (m *Mesh) punch(ctx context.Context, p peer.ID) error {
	err := m.punchOnce(ctx, p)
	if m.keeper.punched(p) >= maxPunches {
		return errPunchRests
	}
	return err
}

func (m *Mesh) punchOnce(ctx context.Context, p peer.ID) error {
	if err := m.connectDirect(ctx, p); err == nil {
		return nil
	}
	if m.inboundRelayed(p) == nil {
		return nil // the other side coordinates
	}
	// DirectConnect blocks, whatever its context, until the service has started.
	if !slices.Contains(m.host.Mux().Protocols(), holepunch.Protocol) {
		return errPunchLater
	}
	return m.puncher.DirectConnect(p)
}

// punched returns how often p was tried.
func (k *keeper) punched(p peer.ID) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.punches[p]; a != nil {
		return a.tries
	}
	return 0
}

// inboundRelayed returns a relayed connection that p has opened.
func (m *Mesh) inboundRelayed(p peer.ID) network.Conn {
	for _, c := range m.host.Network().ConnsToPeer(p) {
		if !c.IsClosed() && isRelayed(c.RemoteMultiaddr()) && c.Stat().Direction == network.DirInbound {
			return c
		}
	}
	return nil
}

// punchHost opens the coordination stream on a connection that the peer has
// opened: on one that it had accepted, it would refuse. Strangers may speak
// the protocol, so the host below is not the gated one.
type punchHost struct {
	host.Host
	m *Mesh
}

func (h punchHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	c := h.m.inboundRelayed(p)
	if c == nil {
		return nil, network.ErrNoConn
	}
	return h.m.openStream(ctx, c, ids...)
}

// punchTracer counts results.
type punchTracer struct{ *meshMetrics }

func (t punchTracer) Trace(e *holepunch.Event) {
	switch evt := e.Evt.(type) {
	case *holepunch.EndHolePunchEvt:
		t.punches.WithLabelValues(outcome(evt.Success)).Inc()
	case *holepunch.DirectDialEvt:
		t.punches.WithLabelValues("direct_dial_" + outcome(evt.Success)).Inc()
	case *holepunch.ProtocolErrorEvt:
		t.punches.WithLabelValues("protocol_error").Inc()
	}
}

func outcome(success bool) string {
	if success {
		return "success"
	}
	return "failure"
}
