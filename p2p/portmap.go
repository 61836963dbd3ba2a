package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-netroute"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	mapLifetime = 2 * time.Minute // of a mapping, so that it does not outlive a dead node for long
	mapRenew    = 30 * time.Second
	mapTimeout  = 2 * time.Second
	mapPoll     = 100 * time.Millisecond // until the host listens
)

// portMapper asks the router for ports: by UPnP, which libp2p does, and by
// NAT-PMP. That is done here, because libp2p looks for the gateway by a route to
// 0.0.0.0, which the version of netroute that it wants refuses, and because it
// would wait ten seconds for UPnP first.
type portMapper struct {
	basichost.NATManager // UPnP
	net                  network.Network
	cancel               context.CancelFunc
	done                 chan struct{}
	started              atomic.Bool // the fields above are set

	mu    sync.Mutex
	ports map[socket]netip.AddrPort
}

// socket is a port on which the host listens.
type socket struct {
	proto string // tcp or udp
	port  int
}

// start is called by libp2p, which also closes it.
func (p *portMapper) start(n network.Network) basichost.NATManager {
	ctx, cancel := context.WithCancel(context.Background())
	p.NATManager, p.net, p.cancel, p.done = basichost.NewNATManager(n), n, cancel, make(chan struct{})
	p.started.Store(true)
	go p.run(ctx)
	return p
}

// mapsUDP reports whether the router lets strangers in by UDP.
func (p *portMapper) mapsUDP() bool {
	return slices.ContainsFunc(p.mapped(), func(a multiaddr.Multiaddr) bool { return transportOf(a) == transportQUIC })
}

// mapped lists the addresses that the router has given us. libp2p takes up to
// five seconds to see them.
func (p *portMapper) mapped() []multiaddr.Multiaddr {
	if !p.started.Load() {
		return nil
	}
	var out []multiaddr.Multiaddr
	for _, a := range p.net.ListenAddresses() {
		if m := p.GetMapping(a); m != nil {
			out = append(out, m)
		}
	}
	return out
}

// run asks for a mapping of every port and renews it in time.
func (p *portMapper) run(ctx context.Context) {
	defer close(p.done)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			p.withdraw()
			return
		}
		sockets := p.sockets()
		if len(sockets) == 0 {
			pause.Reset(mapPoll)
			continue
		}
		ports, _ := mapPorts(sockets, int(mapLifetime/time.Second)) // no such router: looked for again later
		p.mu.Lock()
		p.ports = ports
		p.mu.Unlock()
		pause.Reset(mapRenew)
	}
}

// withdraw gives the ports back.
func (p *portMapper) withdraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sockets []socket
	for s := range p.ports {
		sockets = append(sockets, s)
	}
	if len(sockets) > 0 {
		_, _ = mapPorts(sockets, 0)
	}
	p.ports = nil
}

// sockets lists what the host listens on by IPv4, other than on the loopback.
func (p *portMapper) sockets() []socket {
	seen := make(map[socket]bool)
	var out []socket
	for _, a := range p.net.ListenAddresses() {
		if s, ok := socketOf(a); ok && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func socketOf(a multiaddr.Multiaddr) (socket, bool) {
	ip, ok := firstIP(a)
	if !ok || !ip.Is4() || ip.IsLoopback() || len(a) < 2 {
		return socket{}, false
	}
	port, err := strconv.Atoi(a[1].Value())
	return socket{a[1].Protocol().Name, port}, err == nil
}

// mapPorts asks the gateway. A lifetime of 0 ends the mappings.
func mapPorts(sockets []socket, lifetime int) (map[socket]netip.AddrPort, error) {
	gateway, err := defaultGateway()
	if err != nil {
		return nil, err
	}
	c := natpmp.NewClientWithTimeout(gateway, mapTimeout)
	outside, err := c.GetExternalAddress()
	if err != nil {
		return nil, fmt.Errorf("ask router for its address: %w", err)
	}
	ports := make(map[socket]netip.AddrPort)
	var failed []error
	for _, s := range sockets {
		wanted := s.port
		if lifetime == 0 {
			wanted = 0
		}
		r, err := c.AddPortMapping(s.proto, s.port, wanted, lifetime)
		if err != nil {
			failed = append(failed, fmt.Errorf("map %s port %d: %w", s.proto, s.port, err))
			continue
		}
		if r.MappedExternalPort != 0 {
			ports[s] = netip.AddrPortFrom(netip.AddrFrom4(outside.ExternalIPAddress), r.MappedExternalPort)
		}
	}
	return ports, errors.Join(failed...)
}

// defaultGateway is the router towards the internet.
func defaultGateway() (net.IP, error) {
	routes, err := netroute.New()
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	_, gateway, _, err := routes.Route(net.IPv4(1, 1, 1, 1)) // any address that is not ours
	if err != nil {
		return nil, fmt.Errorf("find default gateway: %w", err)
	}
	if gateway == nil {
		return nil, errors.New("find default gateway: there is none")
	}
	return gateway, nil
}

// GetMapping returns what a listen address is mapped to, nil without a mapping.
func (p *portMapper) GetMapping(a multiaddr.Multiaddr) multiaddr.Multiaddr {
	if mapped := p.NATManager.GetMapping(a); mapped != nil {
		return mapped
	}
	s, ok := socketOf(a)
	if !ok {
		return nil
	}
	p.mu.Lock()
	outside, ok := p.ports[s]
	p.mu.Unlock()
	if !ok {
		return nil
	}
	return withSocket(a, outside)
}

// withSocket replaces IP and port of an address.
func withSocket(a multiaddr.Multiaddr, to netip.AddrPort) multiaddr.Multiaddr {
	var host net.Addr = net.UDPAddrFromAddrPort(to)
	if a[1].Protocol().Code == multiaddr.P_TCP {
		host = net.TCPAddrFromAddrPort(to)
	}
	front, err := manet.FromNetAddr(host)
	if err != nil {
		return nil
	}
	return multiaddr.Join(front, a[2:])
}

// HasDiscoveredNAT reports whether there is a router that maps ports.
func (p *portMapper) HasDiscoveredNAT() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ports) > 0 || p.NATManager.HasDiscoveredNAT()
}

// Close ends the mappings.
func (p *portMapper) Close() error {
	p.cancel()
	<-p.done
	return p.NATManager.Close()
}
