package p2p

import (
	"context"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	"github.com/multiformats/go-multiaddr"
)

// tcpTransport dials from the port on which the host listens only where that is
// of use: to relays, which then see what the port looks like from outside, and
// to punch a hole. libp2p always does. But two devices that dial each other from
// those ports at once share one connection, of which both think that they have
// opened it, and TLS fails; and a SYN that waits for a device that is gone does
// the same to that device when it comes back. Everything else therefore leaves
// by a port of its own.
type tcpTransport struct {
	*tcp.TcpTransport // dials from the listening port
	plain             *tcp.TcpTransport
	seen              func(peer.ID) bool // who should see the listening port
	ports             *tcpreuse.ConnMgr  // that the host listens on, shared with lines
}

// newTCP returns the constructor that libp2p wants.
func newTCP(seen func(peer.ID) bool) any {
	return func(up transport.Upgrader, limits network.ResourceManager) (*tcpTransport, error) {
		shared := tcpreuse.NewConnMgr(tcpreuse.EnvReuseportVal, patientUpgrader{up})
		reuse, err := tcp.NewTCPTransport(up, limits, shared)
		if err != nil {
			return nil, err
		}
		plain, err := tcp.NewTCPTransport(up, limits, nil, tcp.DisableReuseport()) // a shared one would dial from its port
		if err != nil {
			return nil, err
		}
		return &tcpTransport{TcpTransport: reuse, plain: plain, seen: seen, ports: shared}, nil
	}
}

// Dial connects to a peer.
func (t *tcpTransport) Dial(ctx context.Context, a multiaddr.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	return t.DialWithUpdates(ctx, a, p, nil)
}

// DialWithUpdates is Dial that says when the handshake begins.
func (t *tcpTransport) DialWithUpdates(ctx context.Context, a multiaddr.Multiaddr, p peer.ID, updates chan<- transport.DialUpdate) (transport.CapableConn, error) {
	if punch, _, _ := network.GetSimultaneousConnect(ctx); punch || t.seen(p) {
		return t.TcpTransport.DialWithUpdates(ctx, a, p, updates)
	}
	return t.plain.DialWithUpdates(ctx, a, p, updates)
}

var _ transport.DialUpdater = (*tcpTransport)(nil)
