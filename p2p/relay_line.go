package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	crossingBuffer = 256 << 10       // bytes per direction, where nothing limits the relay
	crossingWait   = 2 * lineTimeout // for both ends to come
)

// crossing is a line that this device relays: of each end it knows who it must be,
// and by which ticket it comes.
type crossing struct {
	peers   [2]peer.ID
	tickets [2]ticket
	came    chan arrival // takes both
}

// arrival is an end that has shown its ticket.
type arrival struct {
	end   int
	conn  manet.Conn
	scope network.ConnManagementScope
}

func (a arrival) close() {
	if a.conn != nil {
		a.scope.Done()
		_ = a.conn.Close()
	}
}

// crossings are those that wait for their ends.
type crossings struct {
	mu       sync.Mutex
	byTicket map[ticket]*crossing
}

func newCrossings() *crossings { return &crossings{byTicket: make(map[ticket]*crossing)} }

func (x *crossings) add(a, b peer.ID) *crossing {
	c := &crossing{peers: [2]peer.ID{a, b}, tickets: [2]ticket{newTicket(), newTicket()}, came: make(chan arrival, 2)}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range c.tickets {
		x.byTicket[t] = c
	}
	return c
}

// arrive takes a connection that has shown a ticket, and reports whether that was
// good. It is good once.
func (x *crossings) arrive(t ticket, conn manet.Conn, scope network.ConnManagementScope) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.byTicket[t]
	if c == nil {
		return false
	}
	end := 0
	if t == c.tickets[1] {
		end = 1
	}
	if err := scope.SetPeer(c.peers[end]); err != nil {
		return false
	}
	delete(x.byTicket, t)
	c.came <- arrival{end, conn, scope}
	return true
}

// remove forgets a crossing, and who came for it too late.
func (x *crossings) remove(c *crossing) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range c.tickets {
		delete(x.byTicket, t)
	}
	for {
		select {
		case a := <-c.came:
			a.close()
		default:
			return
		}
	}
}

// serveVia answers a member that wants a line through this device. What relayACL asks
// of circuits holds here, too.
func (l *Lines) serveVia(ctx context.Context, s network.Stream) error {
	var request lineVia
	if err := readFrame(s, maxLineFrame, &request); err != nil {
		return err
	}
	from := s.Conn().RemotePeer()
	to, err := peer.Decode(string(request.To))
	switch {
	case err != nil:
		return errors.New("malformed request")
	case !l.m.relaying():
		return errors.New("this device relays for nobody")
	case isRelayed(s.Conn().RemoteMultiaddr()) || from == to:
		return errors.New("a line leads through one relay, to another member")
	case !relayACL{l.m}.AllowConnect(from, nil, to):
		return fmt.Errorf("%s is not connected here", request.To)
	}
	if !l.acquire(from) {
		return errManyLines
	}
	if !l.acquire(to) {
		l.release(from)
		return errManyLines
	}
	c := l.crossings.add(from, to)
	wait, giveUp := context.WithTimeout(l.ctx, crossingWait)
	l.m.spawn(func() {
		defer func() { giveUp(); l.release(from); l.release(to) }()
		l.join(wait, c)
	})
	if _, err := l.askLine(ctx, to, protoLineCall, lineCall{From: api.NodeID(from.String()), Ticket: c.tickets[1][:]}); err != nil {
		giveUp()
		return fmt.Errorf("call %s: %w", request.To, err)
	}
	return writeFrame(s, maxLineFrame, lineAnswer{Ticket: c.tickets[0][:]})
}

// join waits for both ends of a crossing, until ctx ends, and then carries what they
// say.
func (l *Lines) join(ctx context.Context, c *crossing) {
	defer l.crossings.remove(c)
	var ends [2]arrival
	defer func() { ends[0].close(); ends[1].close() }()
	for range ends {
		select {
		case a := <-c.came:
			ends[a.end] = a
		case <-ctx.Done():
			return
		}
	}
	l.m.metrics.circuits.Inc()
	defer l.m.metrics.circuits.Dec()
	l.carry(c.peers, [2]manet.Conn{ends[0].conn, ends[1].conn})
}

// carry passes bytes on until both ends have ended, or one is cut or may not use this
// relay any more.
func (l *Lines) carry(peers [2]peer.ID, conns [2]manet.Conn) {
	over := make(chan struct{})
	cut := sync.OnceFunc(func() { _ = conns[0].Close(); _ = conns[1].Close() })
	var parts sync.WaitGroup
	for i := range conns {
		parts.Go(func() { l.watch(peers[i], conns[i], over, cut) })
	}
	var ways sync.WaitGroup
	for i := range conns {
		ways.Go(func() {
			if err := l.pass(peers[i], conns[i], peers[1-i], conns[1-i]); err != nil {
				l.m.log.Debug("a relayed line was cut", zap.Stringer("peer", peers[i]), zap.Error(err))
				cut()
			}
		})
	}
	ways.Wait()
	close(over)
	parts.Wait()
}

// pass carries one way of a line. As on circuits, what one member sends is counted,
// and waits for its share where the relay is limited.
func (l *Lines) pass(from peer.ID, src manet.Conn, to peer.ID, dst manet.Conn) error {
	sent, received := l.m.carried.of(from), l.m.carried.of(to)
	limit := l.m.relayShares()
	size := crossingBuffer
	if limit != nil {
		size = relayBuffer
	}
	early := 0 // bytes, until the handshake is over
	for b := make([]byte, size); ; {
		n, err := src.Read(b)
		sent.sent.Add(uint64(n))
		if early < handshakeBytes {
			early += n
		} else {
			limit.take(from, n)
		}
		if n > 0 {
			w, werr := dst.Write(b[:n])
			received.received.Add(uint64(w))
			l.m.metrics.relayedBytes.Add(float64(w))
			if werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return closeWrite(dst)
		case err != nil:
			return err
		}
	}
}

// closeWrite ends one way of a TCP connection.
func closeWrite(c manet.Conn) error {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("%T cannot be closed by halves", c)
	}
	return half.CloseWrite()
}

// relaying reports whether this device relays for others.
func (m *Mesh) relaying() bool {
	m.relayMu.Lock()
	defer m.relayMu.Unlock()
	return m.relay != nil
}

// relayShares are those of the members that this device relays for, nil without a
// limit.
func (m *Mesh) relayShares() *shares {
	m.relayMu.Lock()
	defer m.relayMu.Unlock()
	return m.limit
}
