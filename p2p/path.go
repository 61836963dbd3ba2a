package p2p

import (
	"net/netip"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cloudless-project/cloudless/api"
)

const (
	transportTCP  = "tcp"
	transportQUIC = "quic"
)

// carrierNAT looks private to libp2p, but the other side of it is no LAN.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

func isRelayed(addr multiaddr.Multiaddr) bool {
	_, err := addr.ValueForProtocol(multiaddr.P_CIRCUIT)
	return err == nil
}

// transportOf returns tcp or quic; for a relayed address, that of the leg to
// the relay, or "" when the address does not say.
func transportOf(addr multiaddr.Multiaddr) string {
	for _, c := range addr {
		switch c.Protocol().Code {
		case multiaddr.P_TCP:
			return transportTCP
		case multiaddr.P_QUIC_V1:
			return transportQUIC
		}
	}
	return ""
}

// pathOf classifies a connection by the address of its other end.
func pathOf(c network.Conn) api.Path { return classify(c.RemoteMultiaddr()) }

func classify(remote multiaddr.Multiaddr) api.Path {
	if isRelayed(remote) {
		return api.PathRelayed
	}
	if ip, ok := firstIP(remote); ok && manet.IsPrivateAddr(remote) && !carrierNAT.Contains(ip) {
		return api.PathLAN
	}
	return api.PathDirect
}

// rank says how much a connection is preferred for a new stream. One flow is
// twice as fast over TCP as over QUIC, so transport decides within a class.
func rank(c network.Conn) int {
	r := 0
	switch pathOf(c) {
	case api.PathLAN:
		r = 6
	case api.PathDirect:
		r = 4
	case api.PathRelayed:
		r = 2
	}
	if transportOf(c.RemoteMultiaddr()) == transportTCP {
		r++
	}
	if c.Stat().Limited {
		r -= 2
	}
	return r
}

// silentRank puts a connection that does not answer behind all others.
const silentRank = -100

// best returns the preferred live connection to p, nil without one. Among
// equals the oldest wins, so that both ends tend to choose the same.
func (m *Mesh) best(p peer.ID) network.Conn {
	var best network.Conn
	var bestRank int
	for _, c := range m.host.Network().ConnsToPeer(p) {
		if c.IsClosed() {
			continue
		}
		r := rank(c)
		if m.pulses.isSilent(c) {
			r += silentRank
		}
		if best == nil || r > bestRank {
			best, bestRank = c, r
		}
	}
	return best
}

// onlyRelayed reports whether p is connected, and not directly.
func (m *Mesh) onlyRelayed(p peer.ID) bool {
	c := m.best(p)
	return c != nil && pathOf(c) == api.PathRelayed
}
