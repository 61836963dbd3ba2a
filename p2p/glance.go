package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// A glance is a look at this device from one socket of a relay, over a QUIC
// connection that is made for it and ends at once. It is needed where the
// connections that there are do not tell enough:
//
//   - With one relay, nobody knows whether this device's port looks the same to
//     others too. A public device therefore listens at a second UDP port, and says
//     so when it is asked; what this device looks like from there is compared.
//   - A relay may have been reached over TCP, because QUIC was slow at that moment.
//     Then nobody has seen the UDP port, and there is nothing to punch to. The
//     glance shows it, and is repeated to keep the router from forgetting it.
const (
	glanceTimeout = 3 * time.Second
	glanceKeep    = 20 * time.Second // routers forget a UDP port after 30 s and more
	glanceSecond  = 5 * time.Minute  // how often the second port is looked from again
	glanceRest    = 10 * time.Minute // at most, after failures: UDP does not pass
	maxGlances    = 8                // views that are kept
)

// glances are the views of glances.
type glances struct {
	views  map[netip.AddrPort]glimpse // by the relay's socket
	next   time.Time                  // when to look again
	failed int                        // in a row
}

// glimpse is a view that no connection holds.
type glimpse struct {
	view
	at time.Time
}

// lookAside glances when it is time to, and reports whether this device has an
// address that was not known before.
func (m *Mesh) lookAside(ctx context.Context) bool {
	now := time.Now()
	if m.cfg.Public == PublicYes || now.Before(m.outside.nextGlance()) {
		return false
	}
	blind := m.outside.blind()
	var failed error
	for _, p := range m.contacts.relays() {
		at := m.glanceAt(p, blind)
		if at == nil {
			continue
		}
		v, also, err := m.glance(ctx, p, at)
		if err != nil {
			failed = err
			continue
		}
		news := m.outside.glimpsed(v, now)
		if also != 0 && blind { // the same relay's other port
			if w, _, err := m.glance(ctx, p, withSocket(at, netip.AddrPortFrom(v.remote.Addr(), also))); err == nil {
				m.outside.glimpsed(w, now)
			}
		}
		m.outside.glanced(now, true, blind)
		return news && blind
	}
	if failed != nil && ctx.Err() == nil {
		m.log.Debug("no relay shows what this device looks like over UDP", zap.Error(failed))
		m.outside.glanced(now, false, blind)
	}
	return false
}

// glanceAt says at which address a connected relay is to be asked: at its second
// port or, as long as it has never been reached over UDP, at its first one. nil
// means at none.
func (m *Mesh) glanceAt(p peer.ID, blind bool) multiaddr.Multiaddr {
	for _, c := range m.host.Network().ConnsToPeer(p) {
		if pathOf(c) != api.PathDirect || c.IsClosed() {
			continue
		}
		if blind {
			return m.quicBeside(p, c.RemoteMultiaddr())
		}
		if also := m.outside.alsoAt(c); also != 0 && transportOf(c.RemoteMultiaddr()) == transportQUIC {
			if ip, ok := firstIP(c.RemoteMultiaddr()); ok {
				return withSocket(c.RemoteMultiaddr(), netip.AddrPortFrom(ip, also))
			}
		}
	}
	return nil
}

// quicBeside returns the QUIC address of a relay that belongs to the TCP address
// over which it is connected.
func (m *Mesh) quicBeside(p peer.ID, connected multiaddr.Multiaddr) multiaddr.Multiaddr {
	at, _ := firstIP(connected)
	for _, a := range m.contacts.addrs(p) {
		if ip, ok := firstIP(a); ok && ip == at && transportOf(a) == transportQUIC && !isRelayed(a) {
			return a
		}
	}
	return nil
}

// glance asks p, at one of its addresses, what this device looks like from
// there, and at which other port p could be asked as well.
func (m *Mesh) glance(ctx context.Context, p peer.ID, a multiaddr.Multiaddr) (view, uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, glanceTimeout)
	defer cancel()
	c, err := m.dialApart(ctx, p, a)
	if err != nil {
		return view{}, 0, fmt.Errorf("glance from %s: %w", a, err)
	}
	defer c.Close()
	s, err := c.OpenStream(ctx)
	if err != nil {
		return view{}, 0, fmt.Errorf("glance from %s: %w", a, err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(glanceTimeout))
	if err := multistream.SelectProtoOrFail(protocol.ID(api.ProtoProbe), s); err != nil {
		return view{}, 0, fmt.Errorf("glance from %s: %w", a, err)
	}
	mapped, also, err := askWho(s)
	if err != nil {
		_ = s.Reset()
		return view{}, 0, fmt.Errorf("glance from %s: %w", a, err)
	}
	local, ok := udpAddr(c.LocalMultiaddr())
	remote, known := udpAddr(c.RemoteMultiaddr())
	if !ok || !known {
		return view{}, 0, fmt.Errorf("glance from %s: not a UDP socket", a)
	}
	return view{peer: p, local: local, remote: remote, mapped: mapped, now: mapped}, also, nil
}

// dialApart makes a connection that libp2p does not count among those to p, for
// it would rather use what it has.
func (m *Mesh) dialApart(ctx context.Context, p peer.ID, a multiaddr.Multiaddr) (transport.CapableConn, error) {
	n, ok := m.host.Network().(interface {
		TransportForDialing(a multiaddr.Multiaddr) transport.Transport
	})
	if !ok {
		return nil, fmt.Errorf("%T has no transports", m.host.Network())
	}
	t := n.TransportForDialing(a)
	if t == nil {
		return nil, errors.New("there is no transport for it")
	}
	return t.Dial(ctx, a, p)
}

// nextGlance says when it is time for another one.
func (o *outside) nextGlance() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.glances.next
}

// blind reports whether no peer sees this device over UDP on a connection that
// stays.
func (o *outside) blind() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.seen {
		if !c.IsClosed() {
			return false
		}
	}
	return true
}

// glimpsed takes the outcome of a glance, and reports whether it is news.
func (o *outside) glimpsed(v view, at time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, known := o.glances.views[v.remote]
	if !known && len(o.glances.views) >= maxGlances {
		clear(o.glances.views)
	}
	o.glances.views[v.remote] = glimpse{v, at}
	return !known || old.now != v.now
}

// glanced notes when to look again.
func (o *outside) glanced(now time.Time, ok, blind bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !ok:
		o.glances.failed = min(o.glances.failed+1, 16)
		o.glances.next = now.Add(min(whoamiEvery<<o.glances.failed, glanceRest))
		return
	case blind:
		o.glances.next = now.Add(glanceKeep - whoamiEvery/2)
	default:
		o.glances.next = now.Add(glanceSecond)
	}
	o.glances.failed = 0
}

// forgetGlances makes the next look the first one: the network has changed, or
// there is another relay.
func (o *outside) forgetGlances() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.glances.views)
	o.glances.next, o.glances.failed = time.Time{}, 0
}

// stale reports whether a glimpse says nothing about the present. The caller
// holds no lock.
func (g glimpse) stale(now time.Time) bool { return now.Sub(g.at) > glanceSecond+time.Minute }

// announced are the addresses that glances have shown and nothing else has.
func (o *outside) announced() []multiaddr.Multiaddr {
	if !o.blind() {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []multiaddr.Multiaddr
	for _, g := range o.glances.views {
		if time.Since(g.at) < 2*glanceKeep {
			out = append(out, withSocket(quicOf(g.now.Addr()), g.now))
		}
	}
	return multiaddr.Unique(out)
}

// quicOf is the form of a QUIC address of an IP's family.
func quicOf(ip netip.Addr) multiaddr.Multiaddr {
	if ip.Is4() {
		return multiaddr.StringCast("/ip4/0.0.0.0/udp/0/quic-v1")
	}
	return multiaddr.StringCast("/ip6/::/udp/0/quic-v1")
}
