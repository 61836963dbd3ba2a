package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

const (
	connectTimeout = 20 * time.Second // of all addresses of a peer, relays included
	contactTTL     = 10 * time.Minute // of an address in libp2p's peerstore
	maxRelayTries  = 8                // relays through which a peer is tried
	openAttempts   = 2                // connections tried for one stream
	yieldDirect    = 400 * time.Millisecond
)

// Dial opens a stream to a member, over the best connection there is; without
// one it connects first, directly or through a relay. The error is an
// *api.Error of kind KindUnavailable when the member cannot be reached, and of
// KindDenied when one of the two refuses the other.
func (m *Mesh) Dial(ctx context.Context, to api.NodeID, proto string) (Conn, error) {
	p, err := peer.Decode(string(to))
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "%q is not a PeerID", to)
	}
	if p == m.host.ID() {
		return nil, api.Errorf(api.KindInvalid, "a node does not dial itself")
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if proto != api.ProtoProbe {
		m.pulses.use(p)
	}
	var last error
	for range openAttempts {
		if err := m.connect(ctx, p); err != nil {
			return nil, unreachable(to, err)
		}
		member, err := m.waitAdmitted(ctx, p)
		if err != nil {
			return nil, unreachable(to, err)
		}
		c := m.best(p)
		if c == nil {
			last = errNotConnected
			continue
		}
		if relay, ok := relayIn(c.RemoteMultiaddr()); ok && proto != api.ProtoProbe {
			m.pulses.use(relay)
		}
		s, err := m.openStream(ctx, c, protocol.ID(proto))
		if err == nil {
			return m.newConn(s, member), nil
		}
		last = err
		if !c.IsClosed() {
			break // the connection lives; another one would fare no better
		}
	}
	return nil, unreachable(to, last)
}

// unreachable turns the reason why a member could not be reached into an error
// for people.
func unreachable(to api.NodeID, err error) error {
	switch {
	case api.KindOf(err) == api.KindDenied:
		return err
	case denied(err):
		return api.Errorf(api.KindDenied, "%w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.KindUnavailable, "%s cannot be reached in time: %w", to, err)
	}
	return api.Errorf(api.KindUnavailable, "%s cannot be reached: %w", to, err)
}

// connect makes sure that there is a connection to p: at the addresses that the
// view and p's own record name, through the relays that the record names and
// those that are known, and, when all of them fail, where other members say that
// p is.
func (m *Mesh) connect(ctx context.Context, p peer.ID) error {
	if m.best(p) != nil {
		return nil
	}
	err := m.connectKnown(ctx, p)
	if err == nil || ctx.Err() != nil || m.finder.find(ctx, p) != nil {
		return err
	}
	return m.connectKnown(ctx, p)
}

// connectKnown tries every address that is known.
func (m *Mesh) connectKnown(ctx context.Context, p peer.ID) error {
	m.offerAddrs(p)
	if err := m.host.Connect(network.WithAllowLimitedConn(ctx, "cloudless"), peer.AddrInfo{ID: p}); err != nil {
		m.meetSuccessor(p, err)
		return dialFailure(err)
	}
	return nil
}

// offerAddrs puts every address that p may have into the peerstore, and lifts
// libp2p's own back-off: the callers space their attempts themselves.
func (m *Mesh) offerAddrs(p peer.ID) {
	m.host.Peerstore().AddAddrs(p, m.contacts.addrs(p), contactTTL)
	m.host.Peerstore().AddAddrs(p, m.circuits(p), contactTTL)
	if s, ok := m.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(p)
	}
}

// circuits returns addresses of p through the relays that are known. Whether p
// has a reservation there is found out by trying: a relay says no at once.
func (m *Mesh) circuits(p peer.ID) []multiaddr.Multiaddr {
	relays := m.contacts.relays()
	slices.SortStableFunc(relays, func(a, b peer.ID) int { return m.connectedFirst(a) - m.connectedFirst(b) })
	var out []multiaddr.Multiaddr
	for _, r := range relays {
		if r == p || r == m.host.ID() || len(out) == maxRelayTries {
			continue
		}
		addr, err := multiaddr.NewMultiaddr(fmt.Sprintf("/p2p/%s/p2p-circuit", r))
		if err == nil {
			m.host.Peerstore().AddAddrs(r, m.contacts.addrs(r), contactTTL)
			out = append(out, addr)
		}
	}
	return out
}

func (m *Mesh) connectedFirst(p peer.ID) int {
	if m.best(p) != nil {
		return 0
	}
	return 1
}

// connectDirect tries the direct addresses of a peer that is not connected
// directly. The peer most likely tries the same at this moment: mDNS shows two
// devices to each other, and a relayed connection has two ends. Both dial from
// the port they listen on, so their SYNs would make one connection with a TLS
// client at either end; TCP would fail, and QUIC be left for good. Therefore
// the higher ID lets the other one go first.
func (m *Mesh) connectDirect(ctx context.Context, p peer.ID) error {
	if !m.lower(p) {
		m.pause(m.cfg.yield)
		if c := m.best(p); c != nil && !isRelayed(c.RemoteMultiaddr()) {
			return nil
		}
	}
	m.offerAddrs(p)
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "better than relayed"), directTimeout)
	defer cancel()
	if _, err := m.host.Network().DialPeer(ctx, p); err != nil {
		return dialFailure(err)
	}
	return nil
}

// dialFailure shortens libp2p's report: which addresses were tried, and what
// the most telling one said.
func dialFailure(err error) error {
	var dial *swarm.DialError
	if !errors.As(err, &dial) {
		return err
	}
	if errors.Is(dial.Cause, swarm.ErrNoAddresses) || len(dial.DialErrors) == 0 {
		return fmt.Errorf("no address of it is known: %w", dial.Cause)
	}
	tried := ""
	for i, e := range dial.DialErrors {
		if i > 0 {
			tried += "; "
		}
		tried += fmt.Sprintf("%s (%v)", e.Address, e.Cause)
	}
	return fmt.Errorf("tried %s", tried)
}

// Peers returns the admitted peers as the transport sees them.
func (m *Mesh) Peers() []api.Peer {
	var out []api.Peer
	for _, s := range m.members(nil) {
		c := m.best(s.id)
		if c == nil {
			continue
		}
		traffic := m.counter.GetBandwidthForPeer(s.id)
		out = append(out, api.Peer{
			ID: s.member.ID, Path: pathOf(c), Transport: transportOf(c.RemoteMultiaddr()),
			Address: c.RemoteMultiaddr().String(), RTT: float64(s.rtt) / float64(time.Millisecond), Since: s.since,
			BytesIn: uint64(traffic.TotalIn), BytesOut: uint64(traffic.TotalOut),
		})
	}
	slices.SortFunc(out, func(a, b api.Peer) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Path returns how bytes travel to a member at present, and the smoothed
// round trip (0 before the first probe).
func (m *Mesh) Path(id api.NodeID) (api.Path, time.Duration) {
	if id == m.ID() {
		return api.PathSelf, 0
	}
	p, err := peer.Decode(string(id))
	if err != nil {
		return api.PathNone, 0
	}
	c := m.best(p)
	if _, ok := m.admitted(p); c == nil || !ok {
		return api.PathNone, 0
	}
	var rtt time.Duration
	m.update(p, func(r *record) { rtt = r.rtt })
	return pathOf(c), rtt
}
