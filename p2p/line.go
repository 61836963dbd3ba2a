package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// protoLine is what the two ends of a line agree on in their TLS handshake (ALPN).
	protoLine protocol.ID = "/cloudless/line/1"

	maxLines     = 1024 // of this device, with all peers
	maxPeerLines = 24   // with one peer; a flow that gets none stays on its stream

	lineTimeout  = 3 * time.Second  // to connect and shake hands; who needs longer is served by streams
	lineRetry    = time.Minute      // before a peer is tried again whose port did not answer
	lineSilence  = 10 * time.Second // without an acknowledgement of what was sent, then a line is dead
	lineBacklog  = 64               // handshakes at a time, and lines that nobody has accepted yet
	maxLineAddrs = 2                // addresses tried for one line
)

var (
	errNoLine    = errors.New("no address takes lines")
	errManyLines = errors.New("too many lines")
	errLineCut   = errors.New("line was cut")
)

// Lines are connections of their own between two members, for one bulk transfer
// each: TLS over TCP with the same keys as everywhere in the mesh, but without
// streams. A line costs less than a stream, because nothing is copied between
// goroutines and buffers of a multiplexer, and what it carries does not stand in the
// way of anything else: neither of requests nor of the probes that tell whether
// a peer lives.
//
// Lines come in at the TCP port of the mesh. They exist only beside an admission: a
// peer must be admitted to open one, and when its admission ends its lines do.
// Where only a relay connects two members, their lines lead through it
// (line_relayed.go). Where there is no other way, the way out is a stream.
type Lines struct {
	m        *Mesh
	roles    []api.Role
	security *tlsTransport
	accepted chan *line
	// handshakes are those that go on because others want lines.
	handshakes chan struct{}
	crossings  *crossings // lines of others that wait for their ends
	ctx        context.Context
	cancel     context.CancelFunc
	metrics    *lineMetrics

	mu    sync.Mutex
	count map[peer.ID]int
	total int
	deaf  map[peer.ID]time.Time // peers whose port did not answer, until when they are left alone
}

// Lines starts to accept lines of admitted members that hold one of the roles.
// There must be one of it per mesh; it ends with the mesh, or by Close.
func (m *Mesh) Lines(roles ...api.Role) (*Lines, error) {
	muxers := []upgrader.StreamMuxer{{ID: protoLine}} // TLS offers its name; nothing is multiplexed
	security, err := newTLS(tls.ID, m.host.Peerstore().PrivKey(m.host.ID()), muxers)
	if err != nil {
		return nil, fmt.Errorf("make TLS of lines: %w", err)
	}
	l := &Lines{
		m: m, roles: roles, security: security, accepted: make(chan *line, lineBacklog),
		handshakes: make(chan struct{}, lineBacklog), crossings: newCrossings(), count: make(map[peer.ID]int), deaf: make(map[peer.ID]time.Time),
	}
	if l.metrics, err = newLineMetrics(m.cfg.Metrics); err != nil {
		return nil, fmt.Errorf("register metrics of lines: %w", err)
	}
	l.ctx, l.cancel = context.WithCancel(m.ctx)
	context.AfterFunc(l.ctx, func() { l.metrics.unregister(m.cfg.Metrics) })
	doors, err := lineListeners(m.host)
	if err != nil {
		l.cancel()
		return nil, fmt.Errorf("listen for lines: %w", err)
	}
	l.serveRelayed()
	for _, door := range doors {
		m.spawn(func() { l.serve(door) })
	}
	return l, nil
}

// Close ends accepting, and every line.
func (l *Lines) Close() { l.cancel() }

// Accept returns the next line that a peer has opened.
func (l *Lines) Accept() (Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Dial opens a line to a member that is connected, directly or through a relay.
func (l *Lines) Dial(ctx context.Context, to api.NodeID) (Conn, error) {
	p, err := peer.Decode(string(to))
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "%q is not a PeerID", to)
	}
	if _, ok := l.m.admitted(p); !ok {
		return nil, errNotConnected
	}
	if l.isDeaf(p) {
		return nil, errNoLine
	}
	ctx, cancel := context.WithTimeout(ctx, lineTimeout)
	defer cancel()
	c, last := l.dialBest(ctx, p)
	if last == nil {
		return c, nil
	}
	if !errors.Is(last, errManyLines) {
		l.setDeaf(p)
	}
	l.metrics.failed.Inc()
	return nil, fmt.Errorf("open line to %s: %w", to, last)
}

// dialBest opens a line the way the best connection to p goes.
func (l *Lines) dialBest(ctx context.Context, p peer.ID) (c *line, err error) {
	if best := l.m.best(p); best != nil {
		if relay, ok := relayIn(best.RemoteMultiaddr()); ok {
			return l.dialRelayed(ctx, p, relay)
		}
	}
	err = errNoLine
	for _, addr := range l.m.lineAddrs(p) {
		if c, err = l.dial(ctx, p, addr); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// lineAddrs are the TCP addresses of the host that a peer is connected from. Its
// other addresses were tried when the connection was made, and were no better.
func (m *Mesh) lineAddrs(p peer.ID) []multiaddr.Multiaddr {
	c := m.best(p)
	if c == nil || isRelayed(c.RemoteMultiaddr()) {
		return nil
	}
	remote := c.RemoteMultiaddr()
	at, ok := firstIP(remote)
	if !ok {
		return nil
	}
	known := append(m.host.Peerstore().Addrs(p), m.contacts.addrs(p)...)
	if c.Stat().Direction == network.DirOutbound {
		known = append([]multiaddr.Multiaddr{remote}, known...) // it has answered there
	}
	var out []multiaddr.Multiaddr
	for _, a := range multiaddr.Unique(known) {
		if ip, ok := firstIP(a); ok && ip == at && transportOf(a) == transportTCP && !isRelayed(a) && len(out) < maxLineAddrs {
			out = append(out, a)
		}
	}
	return out
}

func (l *Lines) dial(ctx context.Context, p peer.ID, addr multiaddr.Multiaddr) (*line, error) {
	raw, scope, err := l.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	secured, err := l.security.SecureOutbound(ctx, whole{raw}, p)
	if err != nil {
		scope.Done()
		return nil, fmt.Errorf("secure: %w", err)
	}
	return l.open(secured.(*secureConn), raw, scope, nil)
}

// serve accepts lines at one of the ports.
func (l *Lines) serve(door transport.GatedMaListener) {
	stop := context.AfterFunc(l.ctx, func() { _ = door.Close() })
	defer stop()
	for {
		raw, scope, err := door.Accept()
		if err != nil {
			return // the mesh has closed its port
		}
		select {
		case l.handshakes <- struct{}{}:
			l.m.spawn(func() {
				defer func() { <-l.handshakes }()
				l.accept(raw, scope)
			})
		default:
			scope.Done()
			_ = raw.Close()
		}
	}
}

func (l *Lines) accept(raw manet.Conn, scope network.ConnManagementScope) {
	ctx, cancel := context.WithTimeout(l.ctx, lineTimeout)
	defer cancel()
	_ = raw.SetReadDeadline(time.Now().Add(lineTimeout))
	t, rest, err := readTicket(raw)
	_ = raw.SetReadDeadline(time.Time{})
	if err == nil && rest == nil {
		l.m.gate.secured(raw)
		if l.crossings.arrive(t, raw, scope) {
			return
		}
		err = errors.New("no such ticket")
	}
	if err != nil {
		scope.Done()
		_ = raw.Close()
		return
	}
	secured, err := l.security.SecureInbound(ctx, whole{rest}, "")
	if err != nil {
		scope.Done()
		return
	}
	l.m.gate.secured(raw)
	c, err := l.open(secured.(*secureConn), raw, scope, nil)
	if err != nil {
		l.m.log.Debug("line refused", zap.Stringer("peer", secured.RemotePeer()), zap.Error(err))
		return
	}
	l.hand(c)
}

// hand gives a line to whoever accepts them.
func (l *Lines) hand(c *line) {
	select {
	case l.accepted <- c:
	default:
		_ = c.Reset()
	}
}

// open makes a line of a connection whose other end has proved who it is. via counts
// what goes through the relay that raw leads to; it is nil where there is none.
func (l *Lines) open(secured *secureConn, raw manet.Conn, scope network.ConnManagementScope, via *relayCount) (*line, error) {
	p := secured.RemotePeer()
	refuse := func(err error) (*line, error) {
		scope.Done()
		_ = raw.Close()
		return nil, err
	}
	member, ok := l.m.admitted(p)
	switch {
	case !ok:
		return refuse(errNotConnected)
	case member.Lapsed:
		return refuse(fmt.Errorf("the certificate of %s has ended", p))
	case !holdsOne(member, l.roles):
		return refuse(fmt.Errorf("%s holds none of the roles %v", p, l.roles))
	case secured.ConnState().StreamMultiplexer != protoLine:
		return refuse(errors.New("the other end speaks no lines"))
	}
	if err := scope.SetPeer(p); err != nil {
		return refuse(fmt.Errorf("%w: %w", errManyLines, err))
	}
	if !l.acquire(p) {
		return refuse(errManyLines)
	}
	c := &line{
		secureConn: secured, raw: raw, member: member, path: classify(raw.RemoteMultiaddr()), lines: l, peer: p, via: via,
		closed: make(chan struct{}),
	}
	if via != nil {
		c.path = api.PathRelayed
	}
	c.end = sync.OnceFunc(func() {
		close(c.closed)
		scope.Done()
		l.release(p)
	})
	l.m.spawn(func() { l.watch(p, raw, c.closed, func() { _ = c.Reset() }) })
	return c, nil
}

func (l *Lines) acquire(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxLines || l.count[p] >= maxPeerLines {
		return false
	}
	l.total++
	l.count[p]++
	l.metrics.open.Set(float64(l.total))
	return true
}

func (l *Lines) release(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.count[p]--; l.count[p] == 0 {
		delete(l.count, p)
	}
	l.metrics.open.Set(float64(l.total))
}

func (l *Lines) isDeaf(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.deaf[p]
	if ok && time.Now().After(until) {
		delete(l.deaf, p)
		ok = false
	}
	return ok
}

func (l *Lines) setDeaf(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.deaf) >= maxFailures {
		clear(l.deaf)
	}
	l.deaf[p] = time.Now().Add(lineRetry)
}

// line is one connection without streams.
type line struct {
	*secureConn
	raw    manet.Conn
	member api.Member
	path   api.Path
	lines  *Lines
	peer   peer.ID
	via    *relayCount // of the relay, nil without one
	closed chan struct{}
	end    func() // gives back what the line holds
}

func (c *line) Member() api.Member   { return c.member }
func (c *line) Path() api.Path       { return c.path }
func (c *line) LocalAddr() net.Addr  { return Addr{ID: c.lines.m.ID()} }
func (c *line) RemoteAddr() net.Addr { return Addr{ID: c.member.ID} }

func (c *line) Read(b []byte) (int, error) {
	n, err := c.secureConn.Read(b)
	c.lines.m.counter.LogRecvMessage(int64(n))
	c.lines.m.counter.LogRecvMessageStream(int64(n), protoLine, c.peer)
	if c.via != nil {
		c.via.sent.Add(uint64(n))
	}
	return n, err
}

func (c *line) Write(b []byte) (int, error) {
	n, err := c.secureConn.Write(b)
	c.lines.m.counter.LogSentMessage(int64(n))
	c.lines.m.counter.LogSentMessageStream(int64(n), protoLine, c.peer)
	if c.via != nil {
		c.via.received.Add(uint64(n))
	}
	return n, err
}

// CloseWrite sends TLS's close_notify, by which the other end tells an end from a cut.
func (c *line) CloseWrite() error {
	return c.SecureConn.(interface{ CloseWrite() error }).CloseWrite()
}

func (c *line) Close() error {
	c.end()
	return c.secureConn.Close()
}

// Reset closes without a close_notify.
func (c *line) Reset() error {
	c.end()
	return c.raw.Close()
}

// whole reports the end of TCP as an error of its own. crypto/tls takes io.EOF,
// and io.ErrUnexpectedEOF too, for the end of the data when it falls between two
// records, but only a close_notify says so.
type whole struct{ manet.Conn }

func (c whole) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		err = errLineCut
	}
	return n, err
}
