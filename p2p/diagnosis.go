package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-netroute"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/cloudless-project/cloudless/api"
)

const (
	udpTrialTimeout = 3 * time.Second
	udpTrials       = 3 // members that are tried

	// quicOverhead is what quic-go takes off the size of a packet to say how much
	// of a message fits: its header at its longest, and the seal.
	quicOverhead = 1 + 20 + 16
)

// Diagnosis is what the mesh knows of the network around this device, for a
// person who wants to know why.
type Diagnosis struct {
	Public    bool   // strangers can connect
	Setting   string // PublicAuto, PublicYes or PublicNo
	NAT       api.NAT
	Observers int              // members that see this device directly over UDP
	Seen      []netip.AddrPort // what its UDP port looks like to them
	Own       bool             // one of these is an address of this device

	Interface Interface
	UDPPort   uint16 // on which it listens; 0 for none
	TCPPort   uint16
	Mapping   Mapping
	UDP       UDPState
	Peers     []PeerDiagnosis
}

// Interface is the way out to the internet.
type Interface struct {
	Name    string
	MTU     int
	Address netip.Addr // of this device
	Gateway netip.Addr // the router; invalid without one
}

// Mapping is what the router does for this device when it is asked.
type Mapping struct {
	Asked bool     // false when this device was told not to ask
	By    string   // UPnP or NAT-PMP, "" when no router has granted anything
	Ports []string // that it lets through, as others see them; none when the router is behind another one
}

// UDPState says whether UDP gets out of this network.
type UDPState string

// The states of UDP.
const (
	UDPWorks   UDPState = "works"
	UDPBlocked UDPState = "blocked" // a member that answers over TCP does not over UDP
	UDPUnknown UDPState = "unknown" // there is nobody to try
)

// PeerDiagnosis is how this device is connected to a member, and what it does
// about it.
type PeerDiagnosis struct {
	ID        api.NodeID
	Path      api.Path
	Transport string
	Relay     api.NodeID    // that carries it, "" when the path is not relayed
	Silent    bool          // it does not answer on this path at the moment
	Packet    int           // bytes that QUIC sends in one packet, 0 over TCP or a relay
	Tries     int           // to get to a direct path, in a row
	Next      time.Duration // until the next one; 0 while one is under way
	Resting   bool          // it failed so often that it is only tried now and then
}

// Diagnose looks at the network around this device. It takes up to three
// seconds, when it has to find out whether UDP works.
func (m *Mesh) Diagnose(ctx context.Context) Diagnosis {
	d := Diagnosis{Setting: m.cfg.Public, Interface: wayOut()}
	d.Public, d.NAT = m.Reachability()
	d.Seen, d.Observers, d.Own = m.outside.appearances(func(p peer.ID) bool { _, ok := m.admitted(p); return ok }, interfaceAddrs())
	for _, a := range m.host.Network().ListenAddresses() {
		if s, ok := socketOf(a); ok && s.proto == "udp" && s.port == int(m.cfg.aside) {
			continue // it is no port to be reached at
		} else if ok && s.proto == "udp" {
			d.UDPPort = uint16(s.port)
		} else if ok {
			d.TCPPort = uint16(s.port)
		}
	}
	d.Mapping = m.mapping()
	for _, s := range m.members(nil) {
		if p, ok := m.diagnosePeer(s); ok {
			d.Peers = append(d.Peers, p)
		}
	}
	slices.SortFunc(d.Peers, func(a, b PeerDiagnosis) int { return cmp.Compare(a.ID, b.ID) })
	d.UDP = m.tryUDP(ctx)
	return d
}

func (m *Mesh) mapping() Mapping {
	p := Mapping{Asked: !m.cfg.NoPortMap && m.ports.started.Load()}
	if !p.Asked {
		return p
	}
	m.ports.mu.Lock()
	using := m.ports.using
	m.ports.mu.Unlock()
	switch using.(type) {
	case nil:
	case *natPMP:
		p.By = "NAT-PMP"
	default:
		p.By = "UPnP"
	}
	for _, a := range m.ports.mapped() {
		if text := a.String(); !slices.Contains(p.Ports, text) {
			p.Ports = append(p.Ports, text)
		}
	}
	slices.Sort(p.Ports)
	return p
}

func (m *Mesh) diagnosePeer(s snapshot) (PeerDiagnosis, bool) {
	c := m.best(s.id)
	if c == nil {
		return PeerDiagnosis{}, false
	}
	p := PeerDiagnosis{
		ID: s.member.ID, Path: pathOf(c), Transport: transportOf(c.RemoteMultiaddr()),
		Relay: relayOf(c.RemoteMultiaddr()), Silent: m.pulses.isSilent(c), Packet: packetSize(c),
	}
	m.keeper.mu.Lock()
	defer m.keeper.mu.Unlock()
	if a := m.keeper.punches[s.id]; a != nil {
		p.Tries, p.Resting = a.tries, a.tries >= maxPunches
		if !a.running {
			p.Next = max(0, time.Until(a.next))
		}
	}
	return p, true
}

// relayOf returns who carries a relayed connection.
func relayOf(a multiaddr.Multiaddr) api.NodeID {
	if !isRelayed(a) {
		return ""
	}
	id, err := a.ValueForProtocol(multiaddr.P_P2P) // the first one; the other is the peer's
	if err != nil {
		return ""
	}
	return api.NodeID(id)
}

// packetSize returns the size of the largest packet that QUIC has found to get
// through to the other end. It asks for a message that fits in none, and is
// told what would; nothing is sent.
func packetSize(c network.Conn) int {
	var qc *quic.Conn
	if isRelayed(c.RemoteMultiaddr()) || !c.As(&qc) || qc == nil {
		return 0
	}
	var tooLarge *quic.DatagramTooLargeError
	if errors.As(qc.SendDatagram(make([]byte, 64<<10)), &tooLarge) {
		return int(tooLarge.MaxDatagramPayloadSize) + quicOverhead
	}
	return 0
}

// wayOut looks at the route to the internet.
func wayOut() Interface {
	routes, err := netroute.New()
	if err != nil {
		return Interface{}
	}
	link, gateway, source, err := routes.Route(net.IPv4(1, 1, 1, 1)) // any address that is not ours
	if err != nil || link == nil {
		return Interface{}
	}
	i := Interface{Name: link.Name, MTU: link.MTU}
	i.Address, _ = netip.AddrFromSlice(source)
	i.Gateway, _ = netip.AddrFromSlice(gateway)
	i.Address, i.Gateway = i.Address.Unmap(), i.Gateway.Unmap()
	return i
}

// tryUDP tells whether UDP gets out. A direct QUIC connection is proof enough;
// without one, some public members are dialled.
func (m *Mesh) tryUDP(ctx context.Context) UDPState {
	overTCP := false
	for _, c := range m.host.Network().Conns() {
		if c.IsClosed() || pathOf(c) != api.PathDirect || m.pulses.isSilent(c) {
			continue
		}
		if transportOf(c.RemoteMultiaddr()) == transportQUIC {
			return UDPWorks
		}
		overTCP = true
	}
	tried := 0
	for _, p := range m.contacts.relays() {
		for _, a := range m.contacts.addrs(p) {
			if tried == udpTrials || ctx.Err() != nil {
				break
			}
			if transportOf(a) != transportQUIC || isRelayed(a) || classify(a) != api.PathDirect {
				continue
			}
			tried++
			if m.answersUDP(ctx, p, a) == nil {
				return UDPWorks
			}
		}
	}
	if tried > 0 && overTCP {
		return UDPBlocked
	}
	return UDPUnknown
}

// answersUDP makes a connection that libp2p does not count, because that would
// rather use what it has.
func (m *Mesh) answersUDP(ctx context.Context, p peer.ID, a multiaddr.Multiaddr) error {
	n, ok := m.host.Network().(interface {
		TransportForDialing(a multiaddr.Multiaddr) transport.Transport
	})
	if !ok {
		return fmt.Errorf("dial %s: %T has no transports", a, m.host.Network())
	}
	t := n.TransportForDialing(a)
	if t == nil {
		return fmt.Errorf("dial %s: no transport", a)
	}
	ctx, cancel := context.WithTimeout(ctx, udpTrialTimeout/udpTrials)
	defer cancel()
	c, err := t.Dial(ctx, a, p)
	if err != nil {
		return fmt.Errorf("dial %s: %w", a, err)
	}
	return c.Close()
}

// appearances lists what the UDP sockets of this device look like to the
// members that count, and how many of those there are. own are this device's
// addresses, and the last result tells whether one of them is seen.
func (o *outside) appearances(counts func(peer.ID) bool, own []netip.Addr) (seen []netip.AddrPort, observers int, owned bool) {
	o.mu.Lock()
	var views []view
	for c, v := range o.seen {
		if !c.IsClosed() {
			views = append(views, v)
		}
	}
	o.mu.Unlock()
	var peers []peer.ID
	for _, v := range views {
		if !counts(v.peer) {
			continue
		}
		owned = owned || slices.Contains(own, v.now.Addr())
		if !slices.Contains(peers, v.peer) {
			peers = append(peers, v.peer)
		}
		if !slices.Contains(seen, v.now) {
			seen = append(seen, v.now)
		}
	}
	slices.SortFunc(seen, netip.AddrPort.Compare)
	return seen, len(peers), owned
}

// EgressRate returns how many bytes per second this device sends to peers that
// are not on its LAN, smoothed. What goes by relay counts at the relay.
func (m *Mesh) EgressRate() float64 {
	rate := 0.0
	for _, s := range m.members(nil) {
		if c := m.best(s.id); c != nil && pathOf(c) == api.PathDirect {
			rate += m.counter.GetBandwidthForPeer(s.id).RateOut
		}
	}
	return rate
}
