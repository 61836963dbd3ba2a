package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/cloudless-project/cloudless/api"
)

const (
	negotiateTimeout = 10 * time.Second
	acceptBacklog    = 256 // admitted streams of one protocol that nobody has accepted yet
)

// Conn is one stream between two members.
type Conn interface {
	net.Conn
	Member() api.Member // the other end
	CloseWrite() error  // the other end reads io.EOF; reading here goes on
	Reset() error       // both ends get an error, never io.EOF
	Path() api.Path     // of the connection the stream runs on
}

// lazyStream is a stream whose protocol is negotiated with the first bytes,
// which saves a round trip when the peer is known to speak it.
type lazyStream struct {
	network.Stream
	rw        multistream.LazyConn
	heard     atomic.Bool // the peer has answered the negotiation
	closeOnce sync.Once
}

func (s *lazyStream) Read(b []byte) (int, error) {
	n, err := s.rw.Read(b)
	if n > 0 || errors.Is(err, io.EOF) {
		s.heard.Store(true)
	}
	return n, err
}

func (s *lazyStream) Write(b []byte) (int, error) { return s.rw.Write(b) }

func (s *lazyStream) CloseWrite() error {
	_ = s.rw.Flush()
	return s.Stream.CloseWrite()
}

// Close never blocks. The handshake must have been read before the stream may
// be closed for reading, so an unanswered one is left to the background.
func (s *lazyStream) Close() error {
	var err error
	s.closeOnce.Do(func() {
		if s.heard.Load() {
			err = s.rw.Close()
			return
		}
		err = s.CloseWrite()
		_ = s.SetReadDeadline(time.Now().Add(negotiateTimeout))
		go func() { _ = s.rw.Close() }()
	})
	return err
}

// openStream opens a stream for one of the protocols over a given connection.
func (m *Mesh) openStream(ctx context.Context, c network.Conn, ids ...protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, negotiateTimeout)
	defer cancel()
	s, err := m.newStream(network.WithAllowLimitedConn(ctx, "cloudless"), c)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return m.negotiate(ctx, s, ids...)
}

// negotiate agrees with the peer on one of the protocols, or resets the stream.
func (m *Mesh) negotiate(ctx context.Context, s network.Stream, ids ...protocol.ID) (network.Stream, error) {
	if known, err := m.host.Peerstore().SupportsProtocols(s.Conn().RemotePeer(), ids...); err == nil && len(known) > 0 {
		if err := s.SetProtocol(known[0]); err != nil {
			_ = s.Reset()
			return nil, fmt.Errorf("open stream: %w", err)
		}
		return &lazyStream{Stream: s, rw: multistream.NewMSSelect(s, known[0])}, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	id, err := multistream.SelectOneOf(ids, s)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("negotiate %v: %w", ids, err)
	}
	if err := s.SetProtocol(id); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return s, nil
}

// conn makes a Conn of a stream.
type conn struct {
	network.Stream
	member api.Member
	proto  string
	path   api.Path
	local  api.NodeID
}

func (m *Mesh) newConn(s network.Stream, member api.Member) *conn {
	return &conn{
		Stream: s, member: member, proto: string(s.Protocol()),
		path: pathOf(s.Conn()), local: m.ID(),
	}
}

func (c *conn) Member() api.Member   { return c.member }
func (c *conn) Path() api.Path       { return c.path }
func (c *conn) LocalAddr() net.Addr  { return Addr{ID: c.local} }
func (c *conn) RemoteAddr() net.Addr { return Addr{ID: c.member.ID} }

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	return n, c.explain(err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	return n, c.explain(err)
}

// explain turns the codes of our own resets into words.
func (c *conn) explain(err error) error {
	var reset *network.StreamError
	if err == nil || errors.Is(err, io.EOF) || !errors.As(err, &reset) || !reset.Remote {
		return err
	}
	switch reset.ErrorCode {
	case codeNotAdmitted:
		return api.Errorf(api.KindDenied, "%s does not admit this device: %w", c.member.ID, err)
	case codeWrongRole:
		return api.Errorf(api.KindDenied, "%s does not serve %s to the roles of this certificate: %w", c.member.ID, c.proto, err)
	case codeBusy:
		return api.Errorf(api.KindExhausted, "%s has too many open requests for %s: %w", c.member.ID, c.proto, err)
	}
	return err
}

// Addr is the address of one end of a Conn.
type Addr struct{ ID api.NodeID }

// Network returns "cloudless".
func (Addr) Network() string { return "cloudless" }

func (a Addr) String() string { return string(a.ID) }

// listener accepts the streams of one protocol.
type listener struct {
	m     *Mesh
	id    protocol.ID
	conns chan *conn
	done  chan struct{}
	once  sync.Once
}

// Listen serves a protocol to admitted members that hold one of the roles, or
// to all of them when none is named. What Accept returns is a Conn.
func (m *Mesh) Listen(proto string, roles ...api.Role) (net.Listener, error) {
	l := &listener{m: m, id: protocol.ID(proto), conns: make(chan *conn, acceptBacklog), done: make(chan struct{})}
	if !m.claim(l.id) {
		return nil, api.Errorf(api.KindExists, "protocol %s is served already", proto)
	}
	m.host.SetStreamHandler(l.id, m.guard(l.id, roles, l.serve))
	return l, nil
}

func (l *listener) serve(s network.Stream, member api.Member) {
	select {
	case <-l.done:
		_ = s.Reset()
	case l.conns <- l.m.newConn(s, member):
	default:
		l.m.metrics.refused.WithLabelValues(string(l.id), "backlog").Inc()
		_ = s.ResetWithError(codeBusy)
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-l.m.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return Addr{ID: l.m.ID()} }

func (l *listener) Close() error {
	l.once.Do(func() {
		l.m.host.RemoveStreamHandler(l.id)
		l.m.release(l.id)
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				_ = c.Reset()
			default:
				return
			}
		}
	})
	return nil
}
