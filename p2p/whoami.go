package p2p

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// A home that gets a new address keeps its QUIC connections: they move along,
// and nobody is told. Identify reports the address that a connection began
// with, so peers go on announcing one that is dead. Therefore a device asks the
// relays what it looks like now, on the connections that it has.

const (
	whoamiEvery   = 10 * time.Second
	whoamiTimeout = 2 * time.Second
	whoamiRelays  = 3 // that are asked
)

// whoMagic opens a stream of the probe protocol that carries this question.
var whoMagic = [probeSize]byte{'c', 'l', ' ', 'w', 'h', 'o', ' ', '1'}

// appearance is the answer: where the packets of this connection come from.
type appearance struct {
	Address string `json:"address"`        // ip:port, "" over TCP or a relay, where it cannot change
	Also    uint16 `json:"also,omitempty"` // another UDP port of the answerer, where it can be asked as well
}

// answerWho tells a peer what it looks like on the connection it asks on.
func (m *Mesh) answerWho(s network.Stream) error {
	a := appearance{Also: m.otherPort(s.Conn())}
	var qc *quic.Conn
	if s.Conn().As(&qc) && qc != nil {
		a.Address = qc.RemoteAddr().String()
	}
	return writeFrame(s, maxAskFrame, a)
}

// otherPort returns a UDP port on which this device listens beside that of c, 0
// without one.
func (m *Mesh) otherPort(c network.Conn) uint16 {
	local, ok := udpAddr(c.LocalMultiaddr())
	if !ok {
		return 0
	}
	for _, a := range m.host.Network().ListenAddresses() {
		if l, ok := udpAddr(a); ok && l.Port() != local.Port() && l.Addr().Is4() == local.Addr().Is4() && !isRelayed(a) {
			return l.Port()
		}
	}
	return 0
}

// watchOutside asks again and again, and at once when there is reason to.
func (m *Mesh) watchOutside(ctx context.Context) {
	tick := time.NewTicker(whoamiEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-m.outside.doubt:
		case <-ctx.Done():
			return
		}
		changed := m.lookOutside(ctx)
		if changed {
			m.outside.forgetGlances()
		}
		if m.lookAside(ctx) || changed {
			m.log.Info("this device has another address now", zap.Strings("addresses", m.Addrs()))
			m.ports.wake()
			m.pulses.giveUp(func(peer.ID) bool { return true })
			m.keeper.reset(nil)
			m.tellSoon()
		}
	}
}

// lookOutside asks some relays and reports whether the address has changed.
func (m *Mesh) lookOutside(ctx context.Context) bool {
	changed, asked := false, 0
	for _, p := range m.contacts.relays() {
		if asked == whoamiRelays {
			break
		}
		for _, c := range m.host.Network().ConnsToPeer(p) {
			if !m.outside.knows(c) {
				continue
			}
			asked++
			now, also, err := m.whoami(ctx, c)
			if err != nil {
				m.log.Debug("a relay does not say what this device looks like", zap.Stringer("peer", p), zap.Error(err))
				continue
			}
			changed = m.outside.renew(c, now, also) || changed
		}
	}
	return changed
}

// whoami asks on one connection.
func (m *Mesh) whoami(ctx context.Context, c network.Conn) (netip.AddrPort, uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, whoamiTimeout)
	defer cancel()
	s, err := m.openStream(ctx, c, protocol.ID(api.ProtoProbe))
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(whoamiTimeout))
	now, also, err := askWho(s)
	if err != nil {
		_ = s.Reset()
	}
	return now, also, err
}

// askWho asks on a stream of the probe protocol.
func askWho(s io.ReadWriter) (now netip.AddrPort, also uint16, err error) {
	var a appearance
	if _, err = s.Write(whoMagic[:]); err == nil {
		err = readFrame(s, maxAskFrame, &a)
	}
	if err != nil {
		return netip.AddrPort{}, 0, fmt.Errorf("ask for own address: %w", err)
	}
	ap, err := netip.ParseAddrPort(a.Address)
	if err != nil {
		return netip.AddrPort{}, 0, fmt.Errorf("ask for own address: %w", err)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), a.Also, nil
}
