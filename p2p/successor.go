package p2p

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
)

// An anchor that was rebuilt from a backup has a key of its own, and most often
// the address, or the name, of the one that it replaces. Members that it cannot
// dial know no more than that address, where somebody else answers now. TLS has
// proved who that is; whether it is a member is for hello to find out, as with
// whoever dials this device. Nothing is believed of an address.

const (
	// meetPause and meetBurst bound how often somebody unexpected is met: an
	// address may belong to a stranger for good.
	meetPause  = 5 * time.Second
	meetBurst  = 4
	meetWithin = 5 * time.Second
)

// meetSuccessor says hello to whoever answers at the addresses of an anchor that
// could not be reached there.
func (m *Mesh) meetSuccessor(p peer.ID, failed error) {
	id, addr := whoAnswers(failed)
	if id == "" || !m.contacts.anchor(p) || id == m.host.ID() {
		return
	}
	if _, known := m.admitted(id); known || !m.meeting.Allow() {
		return
	}
	m.spawn(func() {
		ctx, cancel := context.WithTimeout(network.WithForceDirectDial(m.ctx, "it answers there"), meetWithin)
		defer cancel()
		err := m.host.Connect(ctx, peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{addr}})
		if err == nil {
			_, err = m.waitAdmitted(ctx, id)
		}
		if err != nil {
			m.log.Debug("who answers at the address of an anchor is no member", zap.Stringer("peer", id), zap.Error(err))
			return
		}
		m.log.Info("another member answers at the address of an anchor", zap.Stringer("peer", id), zap.Stringer("address", addr))
	})
}

// whoAnswers returns who proved another identity than the one that was dialled,
// and where.
func whoAnswers(failed error) (peer.ID, multiaddr.Multiaddr) {
	var dial *swarm.DialError
	if !errors.As(failed, &dial) {
		return "", nil
	}
	for _, e := range dial.DialErrors {
		var other sec.ErrPeerIDMismatch
		if errors.As(e.Cause, &other) && !isRelayed(e.Address) {
			return other.Actual, e.Address
		}
	}
	return "", nil
}
