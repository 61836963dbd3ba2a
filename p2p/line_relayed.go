package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// Two members that only a relay connects get a line through it: each of them opens
// a TCP connection to the relay, which joins the two, and inside there is the same
// TLS as on every line, from one member to the other.
//
//	asker → relay  protoLineVia: a line to whom?
//	relay → other  protoLineCall: who asks, and a ticket
//	relay → asker  a ticket of its own
//
// Both then connect to the relay's TCP port and show their tickets. A ticket is
// good for one connection within some seconds. Who sees one on the wire and comes
// first with it has got nothing: he cannot prove to the other end who he is.
const (
	protoLineVia  protocol.ID = "/cloudless/line-via/1"
	protoLineCall protocol.ID = "/cloudless/line-call/1"

	maxLineFrame = 1 << 10
	ticketSize   = 32
)

// ticketHead begins a connection with a ticket: a TLS record without content, which
// brings it where lines arrive and which no TLS handshake begins with.
var ticketHead = [5]byte{22, 3, 1, 0, 0}

type ticket [ticketSize]byte

func newTicket() (t ticket) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

// lineVia asks a relay for a line.
type lineVia struct {
	To api.NodeID `json:"to"`
}

// lineCall tells a member that another one wants a line.
type lineCall struct {
	From   api.NodeID `json:"from"`
	Ticket []byte     `json:"ticket"`
}

// lineAnswer is the answer to both.
type lineAnswer struct {
	Ticket  []byte `json:"ticket,omitempty"` // for the asker
	Refused string `json:"refused,omitempty"`
}

func (a lineAnswer) err() error {
	if a.Refused != "" {
		return errors.New(a.Refused)
	}
	return nil
}

// serveRelayed makes this device relay lines, and come to a relay for one.
func (l *Lines) serveRelayed() {
	for id, serve := range map[protocol.ID]func(context.Context, network.Stream) error{
		protoLineVia: l.serveVia, protoLineCall: l.serveCall,
	} {
		l.m.claim(id)
		l.m.host.SetStreamHandler(id, l.m.guard(id, l.roles, func(s network.Stream, _ api.Member) {
			ctx, cancel := context.WithTimeout(l.ctx, lineTimeout)
			defer cancel()
			_ = s.SetDeadline(time.Now().Add(lineTimeout))
			err := serve(ctx, s)
			if err != nil {
				l.m.log.Debug("no line through a relay", zap.Stringer("peer", s.Conn().RemotePeer()), zap.Error(err))
				err = writeFrame(s, maxLineFrame, lineAnswer{Refused: err.Error()})
			}
			if err != nil {
				_ = s.Reset()
				return
			}
			_ = s.Close()
		}))
	}
	context.AfterFunc(l.ctx, func() {
		for _, id := range []protocol.ID{protoLineVia, protoLineCall} {
			l.m.host.RemoveStreamHandler(id)
			l.m.release(id)
		}
	})
}

// askLine sends a request to a member that is connected directly, and returns its
// answer.
func (l *Lines) askLine(ctx context.Context, p peer.ID, id protocol.ID, request any) (a lineAnswer, err error) {
	c := l.m.best(p)
	if c == nil || isRelayed(c.RemoteMultiaddr()) {
		return a, errNotConnected
	}
	s, err := l.m.openStream(ctx, c, id)
	if err != nil {
		return a, err
	}
	defer resetUnlessClosed(s, &err)
	_ = s.SetDeadline(time.Now().Add(lineTimeout))
	if err := writeFrame(s, maxLineFrame, request); err != nil {
		return a, err
	}
	if err := readFrame(s, maxLineFrame, &a); err != nil {
		return a, err
	}
	return a, a.err()
}

// dialRelayed opens a line to p through the relay that connects the two.
func (l *Lines) dialRelayed(ctx context.Context, p, relay peer.ID) (*line, error) {
	a, err := l.askLine(ctx, relay, protoLineVia, lineVia{To: api.NodeID(p.String())})
	if err != nil {
		return nil, fmt.Errorf("ask the relay: %w", err)
	}
	raw, scope, err := l.comeTo(ctx, relay, a.Ticket)
	if err != nil {
		return nil, fmt.Errorf("come to the relay: %w", err)
	}
	secured, err := l.security.SecureOutbound(ctx, whole{raw}, p)
	if err != nil {
		scope.Done()
		return nil, fmt.Errorf("secure: %w", err)
	}
	return l.open(secured.(*secureConn), raw, scope, l.m.viaRelays.of(relay))
}

// serveCall comes to a relay for a line that another member wants.
func (l *Lines) serveCall(_ context.Context, s network.Stream) error {
	var call lineCall
	if err := readFrame(s, maxLineFrame, &call); err != nil {
		return err
	}
	from, err := peer.Decode(string(call.From))
	if err != nil {
		return errors.New("malformed call")
	}
	if _, ok := l.m.admitted(from); !ok {
		return fmt.Errorf("%s is not connected here", call.From)
	}
	relay := s.Conn().RemotePeer()
	select {
	case l.handshakes <- struct{}{}:
	default:
		return errManyLines
	}
	l.m.spawn(func() {
		defer func() { <-l.handshakes }()
		ctx, cancel := context.WithTimeout(l.ctx, lineTimeout)
		defer cancel()
		if err := l.answerCall(ctx, from, relay, call.Ticket); err != nil {
			l.m.log.Debug("no line through a relay", zap.Stringer("peer", from), zap.Error(err))
		}
	})
	return writeFrame(s, maxLineFrame, lineAnswer{})
}

func (l *Lines) answerCall(ctx context.Context, from, relay peer.ID, t []byte) error {
	raw, scope, err := l.comeTo(ctx, relay, t)
	if err != nil {
		return fmt.Errorf("come to the relay: %w", err)
	}
	secured, err := l.security.SecureInbound(ctx, whole{raw}, from)
	if err != nil {
		scope.Done()
		return fmt.Errorf("secure: %w", err)
	}
	c, err := l.open(secured.(*secureConn), raw, scope, l.m.viaRelays.of(relay))
	if err != nil {
		return err
	}
	l.hand(c)
	return nil
}

// comeTo connects to a relay's TCP port and shows a ticket.
func (l *Lines) comeTo(ctx context.Context, relay peer.ID, t []byte) (manet.Conn, network.ConnManagementScope, error) {
	if len(t) != ticketSize {
		return nil, nil, errors.New("malformed ticket")
	}
	last := errNoLine
	for _, addr := range l.m.lineAddrs(relay) {
		raw, scope, err := l.connect(ctx, addr)
		if err != nil {
			last = err
			continue
		}
		if _, err := raw.Write(append(ticketHead[:], t...)); err != nil {
			scope.Done()
			_ = raw.Close()
			last = err
			continue
		}
		return raw, scope, nil
	}
	return nil, nil, last
}

// connect opens a TCP connection for a line.
func (l *Lines) connect(ctx context.Context, addr multiaddr.Multiaddr) (manet.Conn, network.ConnManagementScope, error) {
	scope, err := l.m.host.Network().ResourceManager().OpenConnection(network.DirOutbound, true, addr)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errManyLines, err)
	}
	var dialer manet.Dialer
	raw, err := dialer.DialContext(ctx, addr)
	if err != nil {
		scope.Done()
		return nil, nil, err
	}
	return raw, scope, nil
}

// readTicket reads the beginning of a connection: a ticket, or something else, which
// is put back.
func readTicket(raw manet.Conn) (t ticket, rest manet.Conn, err error) {
	var head [len(ticketHead)]byte
	if _, err := io.ReadFull(raw, head[:]); err != nil {
		return t, nil, err
	}
	if head != ticketHead {
		return t, &begun{Conn: raw, head: head[:]}, nil
	}
	_, err = io.ReadFull(raw, t[:])
	return t, nil, err
}

// begun is a connection of which something was read already.
type begun struct {
	manet.Conn
	head []byte
}

func (c *begun) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
