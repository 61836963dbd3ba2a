package raftmeta

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cloudless-project/cloudless/api"
)

// streamLayer is Streams as raft wants them: an anchor's address is its ID.
// It closes what it accepted, so that nothing of raft outlives the anchor.
type streamLayer struct {
	id      api.NodeID
	streams Streams
	closing context.Context

	mu       sync.Mutex
	closed   bool
	accepted map[net.Conn]struct{}
}

// Dial implements raft.StreamLayer.
func (l *streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.closing, timeout)
	defer cancel()
	return l.streams.Dial(ctx, api.NodeID(to))
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) {
	conn, err := l.streams.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	if l.accepted == nil {
		l.accepted = map[net.Conn]struct{}{}
	}
	c := &acceptedConn{Conn: conn, layer: l}
	l.accepted[c] = struct{}{}
	return c, nil
}

// Close implements net.Listener.
func (l *streamLayer) Close() error {
	l.mu.Lock()
	l.closed = true
	conns := l.accepted
	l.accepted = nil
	l.mu.Unlock()
	for c := range conns {
		_ = c.Close()
	}
	return l.streams.Close()
}

// Addr implements net.Listener.
func (l *streamLayer) Addr() net.Addr { return peerAddr(l.id) }

type acceptedConn struct {
	net.Conn
	layer *streamLayer
}

// Close implements net.Conn.
func (c *acceptedConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.accepted, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

type peerAddr api.NodeID

// Network implements net.Addr.
func (peerAddr) Network() string { return "cloudless" }

func (a peerAddr) String() string { return string(a) }
