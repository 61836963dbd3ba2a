package p2p

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const subnetsFor = 10 * time.Second // how long the interfaces' prefixes are remembered

// subnets are the prefixes of this device's interfaces.
type subnets struct {
	mu       sync.Mutex
	at       time.Time
	prefixes []netip.Prefix
}

// contains reports whether ip is on a network that this device is on.
func (s *subnets) contains(ip netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) > subnetsFor {
		s.at, s.prefixes = time.Now(), interfacePrefixes()
	}
	return slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func interfacePrefixes() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()).Masked())
		}
	}
	return out
}

// interfaceAddrs are this device's own addresses.
func interfaceAddrs() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// worthDialling refuses private addresses of another house. Dialling them is
// not only useless: the packets leave by the router, where they occupy
// mappings that hole punching needs. A house of several subnets is recognised
// by its public address.
func (m *Mesh) worthDialling(p peer.ID, a multiaddr.Multiaddr) bool {
	ip, ok := firstIP(a)
	if !ok || isRelayed(a) || !manet.IsPrivateAddr(a) || m.subnets.contains(ip) {
		return true
	}
	return m.contacts.important(p) || m.sameHouse(p)
}

// sameHouse reports whether p and this device have a public IP in common, or
// neither has any.
func (m *Mesh) sameHouse(p peer.ID) bool {
	ours, theirs := publicIPs(m.publicAddrs()), publicIPs(m.contacts.addrs(p))
	if len(ours) == 0 && len(theirs) == 0 {
		return true
	}
	return slices.ContainsFunc(ours, func(ip netip.Addr) bool { return slices.Contains(theirs, ip) })
}

func publicIPs(addrs []multiaddr.Multiaddr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if ip, ok := firstIP(a); ok && !isRelayed(a) && manet.IsPublicAddr(a) {
			out = append(out, ip)
		}
	}
	return out
}
