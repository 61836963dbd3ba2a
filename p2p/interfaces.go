package p2p

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/internal/retry"
)

const (
	interfaceLook = 2 * time.Second
	// interfaceMemory is how long libp2p's view of the interfaces is corrected
	// after a change; it takes a new one every minute.
	interfaceMemory = 3 * time.Minute
)

// interfaces knows what has changed about the addresses of this device's
// interfaces lately. libp2p remembers them for a minute: for so long a device
// that has moved would tell others where it was, and wait for answers there.
type interfaces struct {
	mu     sync.Mutex
	own    []netip.Addr             // as of the last look; nil before the first
	lost   map[netip.Addr]time.Time // addresses that have gone, and when
	gained map[netip.Addr]time.Time // addresses that have come, and when
	listen []multiaddr.Multiaddr    // where this device listens
}

func newInterfaces() *interfaces {
	return &interfaces{lost: make(map[netip.Addr]time.Time), gained: make(map[netip.Addr]time.Time)}
}

// look takes the addresses that the interfaces have at a moment, and reports
// what has changed since the last look. The first one changes nothing.
func (i *interfaces) look(own []netip.Addr, listen []multiaddr.Multiaddr, at time.Time) (gained, lost bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, changes := range []map[netip.Addr]time.Time{i.lost, i.gained} {
		for ip, when := range changes {
			if at.Sub(when) > interfaceMemory {
				delete(changes, ip)
			}
		}
	}
	if i.own != nil {
		for _, ip := range own {
			if !slices.Contains(i.own, ip) {
				i.gained[ip], gained = at, true
				delete(i.lost, ip)
			}
		}
		for _, ip := range i.own {
			if !slices.Contains(own, ip) {
				i.lost[ip], lost = at, true
				delete(i.gained, ip)
			}
		}
	}
	i.own, i.listen = slices.Clone(own), listen
	if i.own == nil {
		i.own = []netip.Addr{}
	}
	return gained, lost
}

// correct returns addresses without those that were lost, and with those that
// this device listens at since others were gained.
func (i *interfaces) correct(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.lost)+len(i.gained) == 0 {
		return addrs
	}
	out := slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool {
		ip, ok := firstIP(a)
		_, gone := i.lost[ip]
		return ok && gone && !isRelayed(a)
	})
	for ip := range i.gained {
		for _, a := range i.listen {
			any, ok := firstIP(a)
			if ok && any.IsUnspecified() && any.Is4() == ip.Is4() {
				out = append(out, atIP(a, ip))
			}
		}
	}
	return multiaddr.Unique(out)
}

// atIP returns a with another IP of the same family.
func atIP(a multiaddr.Multiaddr, ip netip.Addr) multiaddr.Multiaddr {
	at, err := manet.FromIP(ip.AsSlice())
	if err != nil {
		return a
	}
	return at.Encapsulate(a[1:])
}

// watchInterfaces looks at the interfaces until ctx ends.
func (m *Mesh) watchInterfaces(ctx context.Context) {
	for {
		listen := slices.DeleteFunc(m.host.Network().ListenAddresses(), isRelayed)
		if gained, lost := m.interfaces.look(m.interfaceIPs(), listen, time.Now()); gained || lost {
			m.log.Info("the addresses of this device have changed", zap.Strings("addresses", m.Addrs()))
			m.readdressed(gained, lost)
		}
		if retry.Sleep(ctx, retry.Jitter(interfaceLook)) != nil {
			return
		}
	}
}

// interfaceIPs are those of this device's addresses at which others may reach it.
func (m *Mesh) interfaceIPs() []netip.Addr {
	return slices.DeleteFunc(interfaceAddrs(), func(ip netip.Addr) bool {
		return ip.IsLoopback() || ip.IsLinkLocalUnicast() ||
			slices.ContainsFunc(m.cfg.Exclude, func(p netip.Prefix) bool { return p.Contains(ip) })
	})
}

// readdressed makes the most of another address: what failed before may work
// now, what worked may hang, and the others do not know.
func (m *Mesh) readdressed(gained, lost bool) {
	if gained {
		m.outside.forgetGlances()
		m.outside.suspect()
		m.ports.wake()
		m.keeper.reset(nil)
	}
	if lost {
		m.spawn(func() { m.leaveSilent(m.host.Network().Conns()) })
	}
	m.tellSoon()
}

// doubtOlder asks whether older connections still lead to a peer that has opened
// one from elsewhere, or by a relay: most likely it has moved. It may be the first
// to know, and then nobody else would look for a while.
func (m *Mesh) doubtOlder(c network.Conn) {
	if c.Stat().Direction != network.DirInbound {
		return
	}
	from, _ := firstIP(c.RemoteMultiaddr())
	var older []network.Conn
	for _, o := range m.host.Network().ConnsToPeer(c.RemotePeer()) {
		ip, ok := firstIP(o.RemoteMultiaddr())
		elsewhere := ok && (ip != from || isRelayed(c.RemoteMultiaddr()))
		if o != c && elsewhere && !isRelayed(o.RemoteMultiaddr()) && c.Stat().Opened.Sub(o.Stat().Opened) > yieldFirst {
			older = append(older, o)
		}
	}
	if len(older) > 0 {
		m.spawn(func() { m.leaveSilent(older) })
	}
}
