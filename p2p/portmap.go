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

	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-netroute"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	mapLifetime = 2 * time.Minute // of a mapping, so that it does not outlive a dead node for long
	mapRenew    = 30 * time.Second
	mapSearch   = 10 * time.Minute // at most, between two searches for a router that has never mapped anything
	mapTimeout  = 2 * time.Second
	mapPoll     = 100 * time.Millisecond // until the host listens
)

// mapper asks one router for ports, in one of the two protocols.
type mapper interface {
	// mapPorts maps sockets, or renews what is mapped. It returns what it got, also
	// beside an error.
	mapPorts(ctx context.Context, sockets []socket, lifetime time.Duration) (mappings, error)
	unmap(ctx context.Context, ports mappings) error
}

// mappings say what sockets look like from outside.
type mappings map[socket]netip.AddrPort

// socket is a port on which the host listens.
type socket struct {
	proto string // tcp or udp
	port  int
}

// route is how this device reaches the internet.
type route struct {
	gateway netip.Addr
	local   netip.Addr // this device's address towards it
}

// portMapper has the router let strangers in, by UPnP or by NAT-PMP, whichever
// answers first. It stands in for libp2p's own, which takes seconds to find a
// router with UPnP and looks for one with NAT-PMP by a route that its version of
// netroute refuses.
type portMapper struct {
	net     network.Network
	cancel  context.CancelFunc
	done    chan struct{}
	kick    chan struct{}
	started atomic.Bool // the fields above are set

	at     route
	using  mapper    // nil until one has mapped something; run's own, others read it under mu
	others []mapper  // that are tried until then
	maps   bool      // this router has mapped something once
	failed int       // searches in a row
	search time.Time // not before

	mu    sync.Mutex
	ports mappings
}

// start is called by libp2p, which also closes it.
func (p *portMapper) start(n network.Network) basichost.NATManager {
	ctx, cancel := context.WithCancel(context.Background())
	p.net, p.cancel, p.done, p.kick = n, cancel, make(chan struct{}), make(chan struct{}, 1)
	p.started.Store(true)
	go p.run(ctx)
	return p
}

// wake has the router asked again at once: this device may have moved, or the
// router may have another address.
func (p *portMapper) wake() {
	if !p.started.Load() {
		return
	}
	select {
	case p.kick <- struct{}{}:
	default:
	}
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

// run keeps every port mapped.
func (p *portMapper) run(ctx context.Context) {
	defer close(p.done)
	defer p.withdraw()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-p.kick:
			p.failed, p.search = 0, time.Time{}
		case <-ctx.Done():
			return
		}
		sockets := p.sockets()
		if len(sockets) == 0 {
			pause.Reset(mapPoll)
			continue
		}
		p.round(ctx, sockets)
		pause.Reset(mapRenew)
	}
}

// round maps what is to be mapped, or renews it.
func (p *portMapper) round(ctx context.Context, sockets []socket) {
	at, err := defaultRoute()
	if err != nil {
		p.set(nil, nil)
		return
	}
	if at != p.at {
		p.at, p.others = at, []mapper{&natPMP{at.gateway}, newUPnP(at)}
		p.maps, p.failed, p.search = false, 0, time.Time{}
		p.set(nil, nil) // the mappings of another router
	}
	if p.using != nil {
		ports, err := p.using.mapPorts(ctx, sockets, mapLifetime)
		if err == nil {
			p.set(p.using, ports)
			return
		}
	}
	if now := time.Now(); !now.Before(p.search) {
		p.set(p.race(ctx, sockets))
		p.searched(now)
	}
}

// searched says when to search again. Most routers map nothing, and searching
// them calls the whole LAN; one that does may be starting anew.
func (p *portMapper) searched(now time.Time) {
	if p.using != nil {
		p.maps, p.failed = true, 0
	}
	if !p.maps {
		p.search = now.Add(min(mapRenew<<p.failed, mapSearch) - mapRenew/2)
		p.failed = min(p.failed+1, 10)
	}
}

// race asks in all protocols at once. The first that maps something is used.
func (p *portMapper) race(ctx context.Context, sockets []socket) (winner mapper, won mappings) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		by    mapper
		ports mappings
	}
	results := make(chan result, len(p.others))
	for _, by := range p.others {
		go func() {
			ports, _ := by.mapPorts(ctx, sockets, mapLifetime) // no such router: looked for again later
			results <- result{by, ports}
		}()
	}
	for range p.others {
		if r := <-results; winner == nil && len(r.ports) > 0 {
			winner, won = r.by, r.ports
			p.set(winner, won)
			cancel()
		}
	}
	return winner, won
}

// set takes over what was mapped. A router that has no public address itself is
// of no use: its mappings lead from one private network into another.
func (p *portMapper) set(by mapper, ports mappings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.using = by
	p.ports = make(mappings)
	for s, outside := range ports {
		if a, err := manet.FromNetAddr(net.UDPAddrFromAddrPort(outside)); err == nil && manet.IsPublicAddr(a) {
			p.ports[s] = outside
		}
	}
}

// withdraw gives the ports back.
func (p *portMapper) withdraw() {
	if p.using == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), mapTimeout)
	defer cancel()
	p.mu.Lock()
	ports := p.ports
	p.mu.Unlock()
	_ = p.using.unmap(ctx, ports) // they end by themselves otherwise
	p.set(nil, nil)
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
	port, err := strconv.ParseUint(a[1].Value(), 10, 16)
	return socket{a[1].Protocol().Name, int(port)}, err == nil
}

// defaultRoute is the way to the internet by IPv4.
func defaultRoute() (route, error) {
	routes, err := netroute.New()
	if err != nil {
		return route{}, fmt.Errorf("read routes: %w", err)
	}
	_, gateway, local, err := routes.Route(net.IPv4(1, 1, 1, 1)) // any address that is not ours
	if err != nil {
		return route{}, fmt.Errorf("find default gateway: %w", err)
	}
	g, ok := netip.AddrFromSlice(gateway)
	l, known := netip.AddrFromSlice(local)
	if !ok || !known {
		return route{}, errors.New("find default gateway: there is none")
	}
	return route{g.Unmap(), l.Unmap()}, nil
}

// GetMapping returns what a listen address is mapped to, nil without a mapping.
func (p *portMapper) GetMapping(a multiaddr.Multiaddr) multiaddr.Multiaddr {
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
	return len(p.ports) > 0
}

// Close ends the mappings.
func (p *portMapper) Close() error {
	p.cancel()
	<-p.done
	return nil
}
