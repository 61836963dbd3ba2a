package p2p

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// Why a stream was refused, told to its opener as the code of the reset.
const (
	codeNotAdmitted network.StreamErrorCode = 0xC1D01
	codeWrongRole   network.StreamErrorCode = 0xC1D02
	codeBusy        network.StreamErrorCode = 0xC1D03
)

// gater refuses connections with keys of another kind, and never dials revoked
// peers. Strangers must pass: AutoNAT dials back from a fresh identity. They are
// dealt with by the gated handlers and by greet, and so is a revoked peer that
// comes by itself: it is told that it was removed, and disconnected.
type gater struct {
	m       *Mesh
	pending sync.Map // TCP connections in their handshake, by both addresses → *time.Timer
}

func (g *gater) InterceptPeerDial(p peer.ID) bool { return isEd25519(p) && !g.m.revoked(p) }

func (g *gater) InterceptAddrDial(p peer.ID, a multiaddr.Multiaddr) bool {
	return !excluded(a, g.m.cfg.Exclude) && g.m.worthDialling(p, a) && !g.m.deadEnd(a)
}

// InterceptAccept bounds the handshake: libp2p bears a connection that says
// nothing for a minute. QUIC has bounds of its own.
func (g *gater) InterceptAccept(c network.ConnMultiaddrs) bool {
	if conn, ok := c.(net.Conn); ok {
		key := ends(c)
		g.pending.Store(key, time.AfterFunc(2*g.m.cfg.AdmitWithin, func() {
			if _, silent := g.pending.LoadAndDelete(key); silent {
				_ = conn.Close()
			}
		}))
	}
	return true
}

// ends names a connection, which changes its type on the way up.
func ends(c network.ConnMultiaddrs) string {
	return c.LocalMultiaddr().String() + " " + c.RemoteMultiaddr().String()
}

// secured notes that a handshake is over.
func (g *gater) secured(c network.ConnMultiaddrs) {
	if timer, ok := g.pending.LoadAndDelete(ends(c)); ok {
		timer.(*time.Timer).Stop()
	}
}

func (g *gater) InterceptSecured(dir network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	g.secured(c)
	return isEd25519(p) && (dir == network.DirInbound || !g.m.revoked(p))
}

func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func isEd25519(p peer.ID) bool {
	key, err := p.ExtractPublicKey()
	return err == nil && key.Type() == pb.KeyType_Ed25519
}

// gatedHost is the host that everything beyond connecting is built on: relay,
// pubsub and bitswap. Its handlers serve admitted members only, and
// it opens streams to admitted members only.
type gatedHost struct {
	basicHost
	m *Mesh
}

var (
	_ host.Host                                     = (*gatedHost)(nil)
	_ interface{ IDService() identify.IDService }   = (*gatedHost)(nil)
	_ interface{ AllAddrs() []multiaddr.Multiaddr } = (*gatedHost)(nil)
)

// SetStreamHandler registers a handler that strangers do not reach.
func (g *gatedHost) SetStreamHandler(id protocol.ID, h network.StreamHandler) {
	g.basicHost.SetStreamHandler(id, g.m.guard(id, nil, plain(h)))
}

// SetStreamHandlerMatch is SetStreamHandler for a family of protocols.
func (g *gatedHost) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, h network.StreamHandler) {
	g.basicHost.SetStreamHandlerMatch(id, match, g.m.guard(id, nil, plain(h)))
}

// NewStream opens a stream once the peer is admitted, over the best connection.
func (g *gatedHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if noDial, _ := network.GetNoDial(ctx); !noDial {
		if err := g.Connect(ctx, peer.AddrInfo{ID: p}); err != nil {
			return nil, err
		}
	}
	if _, err := g.m.waitAdmitted(ctx, p); err != nil {
		return nil, err
	}
	c := g.m.best(p)
	if c == nil {
		return nil, network.ErrNoConn
	}
	return g.m.openStream(ctx, c, ids...)
}

func plain(h network.StreamHandler) func(network.Stream, api.Member) {
	return func(s network.Stream, _ api.Member) { h(s) }
}

// guard wraps the handler of a protocol: it runs for admitted members that
// hold one of the roles, and for any admitted member when no role is named. It
// waits for a hello in progress, because a peer's first stream may overtake it.
func (m *Mesh) guard(id protocol.ID, roles []api.Role, serve func(network.Stream, api.Member)) network.StreamHandler {
	return func(s network.Stream) {
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.AdmitWithin)
		defer cancel()
		member, err := m.waitAdmitted(ctx, s.Conn().RemotePeer())
		switch {
		case err != nil:
			m.metrics.refused.WithLabelValues(string(id), "stranger").Inc()
			_ = s.ResetWithError(codeNotAdmitted)
		case member.Lapsed && !renews(id):
			m.metrics.refused.WithLabelValues(string(id), "lapsed").Inc()
			_ = s.ResetWithError(codeNotAdmitted)
		case !holdsOne(member, roles):
			m.metrics.refused.WithLabelValues(string(id), "role").Inc()
			_ = s.ResetWithError(codeWrongRole)
		default:
			serve(s, member)
		}
	}
}

// renews reports whether a protocol is for members, too, whose certificate has
// ended: the API, where they get a new one and no other call is answered, the
// ways there, and what shows that they are alive. Pubsub would not ask again.
func renews(id protocol.ID) bool {
	switch id {
	case api.ProtoAPI, api.ProtoProbe:
		return true
	}
	return strings.HasPrefix(string(id), "/libp2p/") || strings.HasPrefix(string(id), "/meshsub/") || strings.HasPrefix(string(id), "/floodsub/")
}

func holdsOne(member api.Member, roles []api.Role) bool {
	return len(roles) == 0 || slices.ContainsFunc(roles, member.Has)
}
