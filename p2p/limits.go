package p2p

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/x/rate"
)

// libp2p's limits are made for a public network of strangers: 8 connections
// per IPv4 address would refuse the ninth device of a house behind one NAT.
// Ours bound what an attacker can hold, and let a mesh of thousands through.
const (
	maxConns          = 16384 // an anchor of a large cluster
	maxPeerConns      = 64    // both transports, both families, direct and relayed, lines, and some slack
	maxStreams        = 1 << 18
	minPeerStreams    = 1024
	maxPeerStreams    = 16384 // service flows between two busy nodes, with enough memory
	maxTransientConns = 2048  // still in their handshake
	maxSubnetConns    = 1024  // one house, or one office, behind one address
	subnetConnRate    = 20    // new connections per second and address ...
	subnetConnBurst   = 512   // ... beyond this many at once: a house that comes back from a power cut
	relayMemory       = 512 << 20

	streamWindow = 256 << 10 // bytes that a stream may have received and nobody has read
)

// peerStreams is how many streams one peer may have: in the worst case, those
// that nobody reads, they hold twice what libp2p would give to all peers, a
// quarter of the memory and a bit. systemMemory is libp2p's measure of that.
func peerStreams(systemMemory int64) int {
	return int(min(max(2*systemMemory/streamWindow, minPeerStreams), maxPeerStreams))
}

// newResourceManager limits what peers may hold; perPeer is how many streams
// one of them may have, 0 for what the memory allows.
func newResourceManager(perPeer int) (network.ResourceManager, error) {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	scaled := defaults.AutoScale()
	if perPeer == 0 {
		perPeer = peerStreams(int64(scaled.ToPartialLimitConfig().System.Memory))
	}
	limits := meshLimits(perPeer).Build(scaled)
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxSubnetConns}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: maxSubnetConns}},
		),
		rcmgr.WithConnRateLimiters(connRate()),
	)
}

// meshLimits counts streams, and lets nothing else be the first limit that is
// met: yamux never recovers from a lack of memory. Its opener forgets to give a
// place back, and blocks for good after 256 of them; the other side ends the
// whole connection.
func meshLimits(peerStreams int) rcmgr.PartialLimitConfig {
	streams := func(n int) rcmgr.ResourceLimits {
		l := rcmgr.LimitVal(n)
		return rcmgr.ResourceLimits{Streams: l, StreamsInbound: l, StreamsOutbound: l}
	}
	conns := func(n int, r rcmgr.ResourceLimits) rcmgr.ResourceLimits {
		l := rcmgr.LimitVal(n)
		r.Conns, r.ConnsInbound, r.ConnsOutbound, r.FD = l, l, l, l
		return r
	}
	relay := streams(maxStreams)
	relay.Memory = relayMemory
	relayPeer := streams(peerStreams)
	relayPeer.Memory = relayMemory
	unmetered := func(r rcmgr.ResourceLimits) rcmgr.ResourceLimits {
		r.Memory = rcmgr.Unlimited64
		return r
	}
	perPeer := streams(peerStreams)
	perPeer.Memory = rcmgr.LimitVal64(2 * int64(peerStreams) * streamWindow) // windows grow up to half of it
	return rcmgr.PartialLimitConfig{
		System:              unmetered(conns(maxConns, streams(maxStreams))),
		Transient:           unmetered(conns(maxTransientConns, streams(maxPeerStreams))),
		PeerDefault:         conns(maxPeerConns, perPeer),
		Conn:                rcmgr.ResourceLimits{Memory: perPeer.Memory},
		ServiceDefault:      streams(maxStreams),
		ServicePeerDefault:  streams(peerStreams),
		ProtocolDefault:     streams(maxStreams),
		ProtocolPeerDefault: streams(peerStreams),
		Service:             map[string]rcmgr.ResourceLimits{relayv2.ServiceName: relay},
		ServicePeer:         map[string]rcmgr.ResourceLimits{relayv2.ServiceName: relayPeer},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			circuit.ProtoIDv2Hop: relay, circuit.ProtoIDv2Stop: relay,
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			circuit.ProtoIDv2Hop: relayPeer, circuit.ProtoIDv2Stop: relayPeer,
		},
	}
}

func connRate() *rate.Limiter {
	perSubnet := rate.Limit{RPS: subnetConnRate, Burst: subnetConnBurst}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{ // the machine itself is not limited
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
			{Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perSubnet}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perSubnet}},
			GracePeriod:      time.Minute,
		},
	}
}
