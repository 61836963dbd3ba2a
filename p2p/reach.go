package p2p

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// reach is what the mesh has found out about this device's place in the world.
type reach struct {
	mu       sync.Mutex
	public   bool
	owned    bool                  // … at an address of one of its interfaces
	circuits []multiaddr.Multiaddr // addresses through relays
}

// Reachability reports whether strangers on the internet can connect to this
// device, and what kind of NAT is in front of it otherwise.
func (m *Mesh) Reachability() (public bool, nat api.NAT) {
	if m.cfg.Public == PublicYes {
		return true, api.NATNone
	}
	m.reach.mu.Lock()
	public, owned := m.reach.public, m.reach.owned
	m.reach.mu.Unlock()
	switch {
	case owned:
		nat = api.NATNone
	case m.ports.mapsUDP():
		// Connections that are older than the mapping keep the port they had, so
		// that peers disagree; who comes now gets in.
		nat = api.NATCone
	default:
		nat = m.outside.verdict(func(p peer.ID) bool { _, ok := m.admitted(p); return ok }, interfaceAddrs())
	}
	return public && m.cfg.Public == PublicAuto, nat
}

// Addrs returns the addresses under which others may reach this device:
// multiaddrs without /p2p, the LAN's, the observed and the relayed ones.
func (m *Mesh) Addrs() []string {
	m.reach.mu.Lock()
	circuits := slices.Clone(m.reach.circuits)
	m.reach.mu.Unlock()
	addrs := append(m.told(m.host.AllAddrs()), circuits...)
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if ip, ok := firstIP(a); ok && (ip.IsLoopback() || ip.IsLinkLocalUnicast()) && !m.loopbackOnly() {
			continue
		}
		out = append(out, a.String())
	}
	return out
}

// loopbackOnly reports whether there is no other address: everything runs on
// one machine, as in a test.
func (m *Mesh) loopbackOnly() bool {
	return !slices.ContainsFunc(m.host.AllAddrs(), func(a multiaddr.Multiaddr) bool { return !manet.IsIPLoopback(a) })
}

// watchReach follows libp2p's events on addresses and reachability.
func (m *Mesh) watchReach(ctx context.Context) error {
	sub, err := m.host.EventBus().Subscribe([]any{
		new(event.EvtHostReachableAddrsChanged), new(event.EvtAutoRelayAddrsUpdated),
		new(event.EvtPeerIdentificationCompleted), new(event.EvtLocalAddressesUpdated),
	}, eventbus.Name("cloudless reach"), eventbus.BufSize(64))
	if err != nil {
		return fmt.Errorf("watch reachability: %w", err)
	}
	defer sub.Close()
	for {
		select {
		case e, ok := <-sub.Out():
			if !ok {
				return nil
			}
			m.reached(e)
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Mesh) reached(e any) {
	switch e := e.(type) {
	case event.EvtHostReachableAddrsChanged:
		m.reach.mu.Lock()
		m.reach.public = len(e.Reachable) > 0
		m.reach.owned = m.ownsOne(e.Reachable)
		m.reach.mu.Unlock()
		if len(e.Reachable) > 0 && m.cfg.Public == PublicAuto {
			if err := m.startRelay(); err != nil {
				m.log.Error("could not start to relay", zap.Error(err))
			}
		}
	case event.EvtAutoRelayAddrsUpdated:
		m.reach.mu.Lock()
		m.reach.circuits = slices.Clone(e.RelayAddrs)
		m.reach.mu.Unlock()
	case event.EvtPeerIdentificationCompleted:
		m.outside.observe(e.Conn, e.ObservedAddr)
	case event.EvtLocalAddressesUpdated:
		if e.Diffs && slices.ContainsFunc(e.Current, func(a event.UpdatedAddress) bool { return a.Action == event.Added }) {
			m.readdressed(true, len(e.Removed) > 0)
		}
	}
}

// ownsOne reports whether one of the addresses is on an interface of this
// device: it is public without any NAT.
func (m *Mesh) ownsOne(addrs []multiaddr.Multiaddr) bool {
	own, err := m.host.Network().InterfaceListenAddresses()
	return err == nil && slices.ContainsFunc(addrs, func(a multiaddr.Multiaddr) bool { return multiaddr.Contains(own, a) })
}

// leaveSilent closes the direct connections among some that do not answer:
// either end has another address now. libp2p takes up to a minute to find out,
// and until then nobody would dial anew.
func (m *Mesh) leaveSilent(conns []network.Conn) {
	own := interfaceAddrs()
	each(conns, probeParallel, func(c network.Conn) {
		ip, ok := firstIP(c.LocalMultiaddr())
		if !ok || isRelayed(c.RemoteMultiaddr()) {
			return
		}
		// From an address that is gone no packet leaves. QUIC's socket is bound to
		// none, and its connections may have moved along; one may be slow, not dead.
		lost := !ip.IsUnspecified() && !slices.Contains(own, ip)
		if !lost && (m.answers(m.ctx, c, pulseTimeout) || m.answers(m.ctx, c, pulseAgain)) || m.ctx.Err() != nil {
			return
		}
		_ = c.Close()
		m.keeper.reset([]peer.ID{c.RemotePeer()})
	})
}
