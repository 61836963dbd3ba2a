package p2p

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/observedaddrs"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// connsLow and connsHigh are the connection manager's marks. Members are
	// protected, so this only sheds what is left of strangers in a flood.
	connsLow  = 6144
	connsHigh = 8192

	dialTimeout = 10 * time.Second // of one address
)

// observers lets one observer, the only anchor of a small mesh, suffice for
// an observed address. It is a global of libp2p, so it is written once.
var observers = sync.OnceFunc(func() { observedaddrs.ActivationThresh = 1 })

// basicHost is what libp2p.New returns beyond host.Host.
type basicHost interface {
	host.Host
	IDService() identify.IDService
	AllAddrs() []multiaddr.Multiaddr
	ConfirmedAddrs() (reachable, unreachable, unknown []multiaddr.Multiaddr)
}

// newHost starts the libp2p host. Relaying and hole punching are not
// among its options: they are put on top of the gated host instead, so that
// strangers do not reach them (relay.go, punch.go).
func newHost(cfg Config, gater *gater, counter *metrics.BandwidthCounter, told addrsFilter, ports *portMapper, seen func(peer.ID) bool) (basicHost, error) {
	observers()
	key, err := crypto.UnmarshalEd25519PrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	listen, err := parseAddrs("listen", cfg.Listen)
	if err != nil {
		return nil, err
	}
	limits, err := newResourceManager(cfg.peerStreams)
	if err != nil {
		return nil, fmt.Errorf("make resource limits: %w", err)
	}
	conns, err := connmgr.NewConnManager(connsLow, connsHigh)
	if err != nil {
		return nil, fmt.Errorf("make connection manager: %w", err)
	}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.ListenAddrs(listen...),
		libp2p.UserAgent("cloudless"),
		libp2p.Security(tls.ID, newTLS),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.Transport(newTCP(seen)),
		libp2p.Transport(quic.NewTransport),
		libp2p.ConnectionGater(gater),
		libp2p.ResourceManager(&floodgate{ResourceManager: limits, m: gater.m}),
		libp2p.ConnectionManager(conns),
		libp2p.BandwidthReporter(counter),
		libp2p.SwarmOpts(swarm.WithDialRanker(ranker(cfg.Public == PublicYes))),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.AddrsFactory(told),
		libp2p.Ping(false),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		// In a small mesh the black-hole detectors see too few successes, call
		// UDP and IPv6 dead, and AutoNATv2 then never answers.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
	}
	opts = append(opts, reachabilityOptions(cfg, ports)...)
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, startError(err)
	}
	return h.(basicHost), nil
}

// startError tells a person what to do about a port that is taken, which is why
// most hosts do not start. libp2p says so in words only.
func startError(err error) error {
	if strings.Contains(err.Error(), "failed to listen") {
		return api.Errorf(api.KindConflict, "cannot listen for peers: %w", err).
			WithHint("free the port, or choose other addresses with --listen, e.g. /ip4/0.0.0.0/udp/4719/quic-v1 and /ip4/0.0.0.0/tcp/4719")
	}
	return fmt.Errorf("start libp2p host: %w", err)
}

func reachabilityOptions(cfg Config, ports *portMapper) []libp2p.Option {
	if cfg.Client {
		return []libp2p.Option{libp2p.NoListenAddrs, libp2p.DisableIdentifyAddressDiscovery()}
	}
	opts := []libp2p.Option{libp2p.EnableAutoNATv2()}
	if cfg.Public == PublicYes {
		opts = append(opts, libp2p.ForceReachabilityPublic())
	} else {
		// A small mesh never gets a verdict of AutoNAT v1. Addresses through relays,
		// which libp2p tells of private devices alone, harm nobody who is public.
		opts = append(opts, libp2p.ForceReachabilityPrivate())
	}
	if !cfg.NoPortMap && cfg.Public != PublicYes {
		opts = append(opts, libp2p.NATManager(ports.start))
	}
	return opts
}

// addrsFilter decides which addresses others are told.
type addrsFilter = func([]multiaddr.Multiaddr) []multiaddr.Multiaddr

func newAddrsFilter(cfg Config) (addrsFilter, error) {
	announce, err := parseAddrs("announce", cfg.Announce)
	if err != nil {
		return nil, err
	}
	return func(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
		out := slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool {
			udp, ok := udpAddr(a)
			return excluded(a, cfg.Exclude) || ok && cfg.aside != 0 && udp.Port() == cfg.aside && !isRelayed(a)
		})
		return multiaddr.Unique(append(out, announce...))
	}, nil
}

// newUpgrader builds the upgrader of relayed connections: the same TLS and
// yamux as for TCP, through the relay.
func newUpgrader(h host.Host, gater *gater) (transport.Upgrader, error) {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := newTLS(tls.ID, h.Peerstore().PrivKey(h.ID()), muxers)
	if err != nil {
		return nil, fmt.Errorf("make TLS: %w", err)
	}
	return upgrader.New([]sec.SecureTransport{security}, muxers, nil, h.Network().ResourceManager(), gater)
}

// ranker orders the addresses of a peer for dialling. On a LAN, and between
// hosts that need no hole punching, TCP comes first: a bulk flow is twice as
// fast over it. To the public address of somebody else's, a host behind NAT
// prefers QUIC, because that is how it learns its own UDP mapping, without
// which it could not be punched to. Relays come last.
func ranker(public bool) network.DialRanker {
	return func(addrs []multiaddr.Multiaddr) []network.AddrDelay {
		var private, direct, relayed []multiaddr.Multiaddr
		for _, a := range addrs {
			switch {
			case isRelayed(a):
				relayed = append(relayed, a)
			case manet.IsPrivateAddr(a):
				private = append(private, a)
			default:
				direct = append(direct, a)
			}
		}
		out := preferTCP(private, lanLead, 0)
		var offset time.Duration
		if len(private) > 0 {
			offset = directDelay
		}
		if public {
			out = append(out, preferTCP(direct, tcpLead, offset)...)
		} else {
			for _, a := range swarm.DefaultDialRanker(direct) {
				out = append(out, network.AddrDelay{Addr: a.Addr, Delay: a.Delay + offset})
			}
		}
		if len(out) > 0 {
			offset += relayDelay
		}
		return append(out, preferTCP(relayed, 0, offset)...)
	}
}

const (
	// tcpLead is the head start of TCP over QUIC where TCP is preferred (RFC 8305).
	// On a LAN it is longer: what wins there is kept for good, and a busy device
	// may need a while for the handshake. Who refuses TCP is not waited for.
	tcpLead = 250 * time.Millisecond
	lanLead = time.Second

	// directDelay is the head start of private addresses. Only those that are
	// probably near are dialled; a router that leads its own public address back
	// into the house would be a detour, and slower.
	directDelay = 250 * time.Millisecond
	relayDelay  = 500 * time.Millisecond // head start of direct addresses over relays
)

func preferTCP(addrs []multiaddr.Multiaddr, delay, offset time.Duration) []network.AddrDelay {
	out := make([]network.AddrDelay, 0, len(addrs))
	for _, a := range addrs {
		d := offset
		if transportOf(a) != transportTCP {
			d += delay
		}
		out = append(out, network.AddrDelay{Addr: a, Delay: d})
	}
	slices.SortStableFunc(out, func(a, b network.AddrDelay) int { return int(a.Delay - b.Delay) })
	return out
}
