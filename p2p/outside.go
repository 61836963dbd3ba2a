package p2p

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cloudless-project/cloudless/api"
)

// maxSightings bounds the observations that are kept; there is one per direct
// connection over UDP.
const maxSightings = 4096

// outside is how this device looks from outside: to each peer, the address
// from which the packets of a QUIC connection come. libp2p has a verdict of its
// own, but waits for nine observers and a minute, and then confuses UDP and TCP.
type outside struct {
	mu    sync.Mutex
	seen  map[network.Conn]view
	also  map[network.Conn]uint16 // the peer's other UDP port, where it can be asked as well
	doubt chan struct{}           // something hints that the address has changed
	glances
}

func newOutside() *outside {
	return &outside{
		seen: make(map[network.Conn]view), also: make(map[network.Conn]uint16), doubt: make(chan struct{}, 1),
		glances: glances{views: make(map[netip.AddrPort]glimpse)},
	}
}

// suspect makes the relays be asked soon.
func (o *outside) suspect() {
	select {
	case o.doubt <- struct{}{}:
	default:
	}
}

// view is what one peer saw.
type view struct {
	peer   peer.ID
	local  netip.AddrPort // our socket
	remote netip.AddrPort // the peer's
	mapped netip.AddrPort // what our socket looked like from there when the connection began
	now    netip.AddrPort // … and what it looks like since it was asked
}

// observe takes what a peer said of us in identify.
func (o *outside) observe(c network.Conn, observed multiaddr.Multiaddr) {
	if observed == nil || isRelayed(c.RemoteMultiaddr()) || pathOf(c) != api.PathDirect {
		return
	}
	v := view{peer: c.RemotePeer()}
	for _, x := range []struct {
		addr multiaddr.Multiaddr
		to   *netip.AddrPort
	}{{c.LocalMultiaddr(), &v.local}, {c.RemoteMultiaddr(), &v.remote}, {observed, &v.mapped}} {
		ap, ok := udpAddr(x.addr)
		if !ok {
			return
		}
		*x.to = ap
	}
	v.now = v.mapped
	o.mu.Lock()
	defer o.mu.Unlock()
	for old := range o.seen {
		if old.IsClosed() {
			delete(o.seen, old)
			delete(o.also, old)
		}
	}
	if _, ok := o.seen[c]; ok {
		return // identify says the same again; what was asked since is newer
	}
	if len(o.seen) == 0 {
		o.suspect() // the first one: who else can be asked?
	}
	if len(o.seen) < maxSightings {
		o.seen[c] = v
	}
}

// knows reports whether a peer has seen this device over c.
func (o *outside) knows(c network.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.seen[c]
	return ok && !c.IsClosed()
}

// renew takes what a peer says c looks like now, and where else it can be asked.
// It reports whether the address is news.
func (o *outside) renew(c network.Conn, now netip.AddrPort, also uint16) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	v, ok := o.seen[c]
	if ok {
		o.also[c] = also
	}
	if !ok || v.now == now {
		return false
	}
	v.now = now
	o.seen[c] = v
	return true
}

// alsoAt returns the other UDP port of the peer of c, 0 without one.
func (o *outside) alsoAt(c network.Conn) uint16 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.also[c]
}

// correct replaces addresses that identify has reported by those that have
// taken their place.
func (o *outside) correct(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	o.mu.Lock()
	defer o.mu.Unlock()
	moved := make(map[netip.AddrPort]netip.AddrPort)
	for c, v := range o.seen {
		if v.now != v.mapped && !c.IsClosed() {
			moved[v.mapped] = v.now
		}
	}
	out := make([]multiaddr.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		if old, ok := udpAddr(a); ok && !isRelayed(a) && moved[old].IsValid() {
			a = withSocket(a, moved[old])
		}
		out = append(out, a)
	}
	return multiaddr.Unique(out)
}

func udpAddr(a multiaddr.Multiaddr) (netip.AddrPort, bool) {
	if transportOf(a) != transportQUIC || len(a) < 2 {
		return netip.AddrPort{}, false
	}
	// Only the socket: the rest of the address is no matter of the NAT.
	n, err := manet.ToNetAddr(a[:2])
	if err != nil {
		return netip.AddrPort{}, false
	}
	ap, err := netip.ParseAddrPort(n.String())
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), err == nil
}

// verdict says what kind of NAT the peers that count have seen. own are this
// device's addresses.
func (o *outside) verdict(counts func(peer.ID) bool, own []netip.Addr) api.NAT {
	o.mu.Lock()
	var views []view
	for c, v := range o.seen {
		if !c.IsClosed() {
			views = append(views, v)
		}
	}
	for _, g := range o.glances.views {
		if !g.stale(time.Now()) {
			views = append(views, g.view)
		}
	}
	o.mu.Unlock()
	var four, six []view
	for _, v := range views {
		switch {
		case !counts(v.peer):
		case v.local.Addr().Is4():
			four = append(four, v)
		default:
			six = append(six, v)
		}
	}
	// IPv6 is hardly ever translated; where there is IPv4 it decides.
	if nat := judge(four, own); nat != api.NATUnknown || len(four) > 0 {
		return nat
	}
	return judge(six, own)
}

// judge compares what sockets look like from several places. One place is not
// enough: a port that is kept for one destination may be another one for the
// next. When places disagree the majority decides, for a single peer may lie.
func judge(views []view, own []netip.Addr) api.NAT {
	places := make(map[netip.AddrPort]map[netip.AddrPort]netip.AddrPort) // local → remote → mapped
	for _, v := range views {
		if slices.Contains(own, v.now.Addr()) {
			return api.NATNone
		}
		if places[v.local] == nil {
			places[v.local] = make(map[netip.AddrPort]netip.AddrPort)
		}
		places[v.local][v.remote] = v.now
	}
	same, different := 0, 0
	for _, from := range places {
		if len(from) < 2 {
			continue
		}
		count, most := make(map[netip.AddrPort]int), 0
		for _, mapped := range from {
			count[mapped]++
			most = max(most, count[mapped])
		}
		if 2*most > len(from) {
			same += most
		} else {
			different += len(from)
		}
	}
	switch {
	case same == 0 && different == 0:
		return api.NATUnknown
	case same > different:
		return api.NATCone
	}
	return api.NATSymmetric
}
