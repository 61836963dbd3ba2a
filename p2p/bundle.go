package p2p

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"

	"github.com/cloudless-project/cloudless/api"
)

const (
	protoBundle protocol.ID = "/cloudless/bundle/1"

	// libp2p lets a peer have 256 streams open on a QUIC connection; the next
	// one would wait for another to end. From this many on, streams share one in
	// a bundle; what is left is for those that must not stand in a queue.
	bundleFrom = 192
)

// bundles are the sessions of yamux on QUIC streams, one for each QUIC
// connection that carries many streams.
type bundles struct {
	mu   sync.Mutex
	of   map[network.Conn]*bundle
	next atomic.Uint64 // number of a bundled stream, for its ID
}

type bundle struct {
	mu      sync.Mutex // held while the session is made
	session network.MuxedConn
}

func newBundles() *bundles { return &bundles{of: make(map[network.Conn]*bundle)} }

// get returns the bundle of a connection, and forgets those of closed ones.
func (b *bundles) get(c network.Conn) *bundle {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.of[c]; known != nil {
		return known
	}
	for old := range b.of {
		if old.IsClosed() {
			delete(b.of, old)
		}
	}
	b.of[c] = new(bundle)
	return b.of[c]
}

// newStream opens a stream over a connection, in a bundle when it has many.
func (m *Mesh) newStream(ctx context.Context, c network.Conn) (network.Stream, error) {
	if !crowded(c) {
		return c.NewStream(ctx)
	}
	session, err := m.session(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	s, err := session.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return m.bundled(c, s, network.DirOutbound)
}

// crowded reports whether few streams are left of those that the peer accepts.
func crowded(c network.Conn) bool {
	if c.Stat().NumStreams < bundleFrom || transportOf(c.RemoteMultiaddr()) != transportQUIC {
		return false
	}
	opened := 0
	for _, s := range c.GetStreams() {
		if s.Stat().Direction == network.DirOutbound {
			opened++
		}
	}
	return opened >= bundleFrom
}

// session returns the session that this device has on c, and makes one.
func (m *Mesh) session(ctx context.Context, c network.Conn) (network.MuxedConn, error) {
	b := m.bundles.get(c)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session != nil && !b.session.IsClosed() {
		return b.session, nil
	}
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	if s, err = m.negotiate(ctx, s, protoBundle); err != nil {
		return nil, err
	}
	b.session, err = yamux.DefaultTransport.NewConn(m.newConn(s, api.Member{}), false, nil)
	return b.session, err
}

// serveBundle hands the streams of a peer's bundle to the handlers of their
// protocols, as libp2p does with those of a connection.
func (m *Mesh) serveBundle(s network.Stream, member api.Member) {
	session, err := yamux.DefaultTransport.NewConn(m.newConn(s, member), true, nil)
	if err != nil {
		_ = s.Reset()
		return
	}
	defer session.Close()
	for {
		inner, err := session.AcceptStream()
		if err != nil {
			return
		}
		if b, err := m.bundled(s.Conn(), inner, network.DirInbound); err == nil {
			m.spawn(func() { m.handleBundled(b) })
		}
	}
}

func (m *Mesh) handleBundled(s *bundledStream) {
	_ = s.SetDeadline(time.Now().Add(negotiateTimeout))
	id, handle, err := m.host.Mux().Negotiate(s)
	if err != nil {
		_ = s.ResetWithError(network.StreamProtocolNegotiationFailed)
		return
	}
	_ = s.SetDeadline(time.Time{})
	if err := s.SetProtocol(id); err != nil {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		return
	}
	_ = handle(id, s) // it deals with the stream, also when it fails
}

// bundled makes a stream of one in a bundle. It counts among the streams of the
// peer until it is closed or reset.
func (m *Mesh) bundled(c network.Conn, inner network.MuxedStream, dir network.Direction) (*bundledStream, error) {
	scope, err := m.host.Network().ResourceManager().OpenStream(c.RemotePeer(), dir)
	if err != nil {
		_ = inner.ResetWithError(network.StreamResourceLimitExceeded)
		return nil, err
	}
	return &bundledStream{
		MuxedStream: inner, conn: c, scope: scope, release: sync.OnceFunc(scope.Done),
		id:    c.ID() + "-bundled-" + strconv.FormatUint(m.bundles.next.Add(1), 10),
		stats: network.Stats{Direction: dir, Opened: time.Now()},
	}, nil
}

// bundledStream is a stream in a bundle. It implements network.Stream.
type bundledStream struct {
	network.MuxedStream
	conn    network.Conn
	scope   network.StreamManagementScope
	release func()
	id      string
	stats   network.Stats
	proto   atomic.Pointer[protocol.ID]
}

func (s *bundledStream) ID() string                 { return s.id }
func (s *bundledStream) Conn() network.Conn         { return s.conn }
func (s *bundledStream) Stat() network.Stats        { return s.stats }
func (s *bundledStream) Scope() network.StreamScope { return s.scope }

func (s *bundledStream) Protocol() protocol.ID {
	if id := s.proto.Load(); id != nil {
		return *id
	}
	return ""
}

func (s *bundledStream) SetProtocol(id protocol.ID) error {
	if err := s.scope.SetProtocol(id); err != nil {
		return err
	}
	s.proto.Store(&id)
	return nil
}

func (s *bundledStream) Close() error {
	s.release()
	return s.MuxedStream.Close()
}

func (s *bundledStream) Reset() error {
	s.release()
	return s.MuxedStream.Reset()
}

func (s *bundledStream) ResetWithError(code network.StreamErrorCode) error {
	s.release()
	return s.MuxedStream.ResetWithError(code)
}
