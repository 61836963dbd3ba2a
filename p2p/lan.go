package p2p

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
)

const (
	lanCheck     = 30 * time.Second // how often the interfaces are looked at
	lanPause     = 10 * time.Minute // before a peer that was found and refused is tried again
	maxLANPeers  = 256              // found peers that are remembered
	lanTagPrefix = "_cloudless-"
	lanTagSuffix = "._udp"
)

// lan finds members on the local network by mDNS. Whoever answers there is a
// stranger until hello says otherwise.
type lan struct {
	m    *Mesh
	seen chan peer.AddrInfo
}

// HandlePeerFound is called by mDNS, from many goroutines.
func (l *lan) HandlePeerFound(info peer.AddrInfo) {
	select {
	case l.seen <- info:
	default: // it announces itself again
	}
}

// run announces this device and dials what it finds. The announcement names
// the addresses, so it is renewed when an interface comes or goes.
func (l *lan) run(ctx context.Context) {
	tried := make(map[peer.ID]time.Time)
	tick := time.NewTicker(lanCheck)
	defer tick.Stop()
	var announced []multiaddr.Multiaddr
	var service mdns.Service
	stop := func() {
		if service != nil {
			_ = service.Close()
			service = nil
		}
	}
	defer stop()
	for {
		addrs, _ := l.m.host.Network().InterfaceListenAddresses()
		addrs = worthAnnouncing(addrs, l.m.cfg.Exclude)
		if service == nil || !slices.EqualFunc(addrs, announced, multiaddr.Multiaddr.Equal) {
			stop()
			service, announced = l.announce(addrs), addrs
		}
		if !l.listen(ctx, tick.C, tried) {
			return
		}
	}
}

// listen takes found peers until the next check of the interfaces.
func (l *lan) listen(ctx context.Context, check <-chan time.Time, tried map[peer.ID]time.Time) bool {
	for {
		select {
		case info := <-l.seen:
			l.found(ctx, info, tried)
		case <-check:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// worthAnnouncing are the addresses that neighbours can use, in an order that
// stays: libp2p has one that changes, and whoever announces anew asks everybody
// anew, too. Every device of the LAN answers every question of every other one
// with all of its addresses.
func worthAnnouncing(addrs []multiaddr.Multiaddr, exclude []netip.Prefix) []multiaddr.Multiaddr {
	out := slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool {
		ip, ok := firstIP(a)
		return ok && (ip.IsLoopback() || ip.IsLinkLocalUnicast()) || excluded(a, exclude)
	})
	if len(out) == 0 {
		out = slices.Clone(addrs) // a mesh within one machine
	}
	slices.SortFunc(out, func(a, b multiaddr.Multiaddr) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	return out
}

// lanHost is the host as mDNS is to announce it.
type lanHost struct {
	host.Host
	addrs []multiaddr.Multiaddr
}

func (h lanHost) Network() network.Network { return lanNetwork{h.Host.Network(), h.addrs} }

type lanNetwork struct {
	network.Network
	addrs []multiaddr.Multiaddr
}

func (n lanNetwork) InterfaceListenAddresses() ([]multiaddr.Multiaddr, error) { return n.addrs, nil }

func (l *lan) announce(addrs []multiaddr.Multiaddr) mdns.Service {
	s := mdns.NewMdnsService(lanHost{l.m.host, addrs}, lanTagPrefix+l.m.cfg.Cluster+lanTagSuffix, l)
	if err := s.Start(); err != nil {
		l.m.log.Debug("no discovery on the local network", zap.Error(err))
		return nil
	}
	return s
}

func (l *lan) found(ctx context.Context, info peer.AddrInfo, tried map[peer.ID]time.Time) {
	c := l.m.best(info.ID)
	if c != nil && !isRelayed(c.RemoteMultiaddr()) {
		return
	}
	if at, ok := tried[info.ID]; ok && time.Since(at) < lanPause && !l.m.contacts.has(info.ID) {
		return
	}
	if len(tried) >= maxLANPeers {
		clear(tried)
	}
	tried[info.ID] = time.Now()
	l.m.host.Peerstore().AddAddrs(info.ID, info.Addrs[:min(len(info.Addrs), maxContactAddrs)], contactTTL)
	l.m.spawn(func() {
		ctx, cancel := context.WithTimeout(ctx, directTimeout+time.Second)
		defer cancel()
		if err := l.m.connectDirect(ctx, info.ID); err != nil {
			l.m.log.Debug("found a peer on the local network, cannot connect", zap.Stringer("peer", info.ID), zap.Error(err))
		}
	})
}
