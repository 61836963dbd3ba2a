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
	maxPeerStreams    = 16384 // service flows between two busy nodes
	maxTransientConns = 2048  // still in their handshake
	maxSubnetConns    = 1024  // one house, or one office, behind one address
	subnetConnRate    = 20    // new connections per second and address ...
	subnetConnBurst   = 512   // ... beyond this many at once: a house that comes back from a power cut
	relayMemory       = 512 << 20
)

func newResourceManager() (network.ResourceManager, error) {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	limits := meshLimits().Build(defaults.AutoScale())
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxSubnetConns}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: maxSubnetConns}},
		),
		rcmgr.WithConnRateLimiters(connRate()),
	)
}

func meshLimits() rcmgr.PartialLimitConfig {
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
	relayPeer := streams(maxPeerStreams)
	relayPeer.Memory = relayMemory
	return rcmgr.PartialLimitConfig{
		System:              conns(maxConns, streams(maxStreams)),
		Transient:           conns(maxTransientConns, streams(maxPeerStreams)),
		PeerDefault:         conns(maxPeerConns, streams(maxPeerStreams)),
		ServiceDefault:      streams(maxStreams),
		ServicePeerDefault:  streams(maxPeerStreams),
		ProtocolDefault:     streams(maxStreams),
		ProtocolPeerDefault: streams(maxPeerStreams),
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
