package svcnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// headerTimeout bounds how long a peer may take to say what it wants.
const headerTimeout = 5 * time.Second

// server answers flows of peers.
type server struct {
	cfg *Config
	dir *directory
	m   *metrics

	mover *mover

	mu    sync.Mutex
	total int
	peers map[api.NodeID]int
}

func newServer(cfg *Config, dir *directory, m *metrics, v *mover) *server {
	return &server{cfg: cfg, dir: dir, m: m, mover: v, peers: make(map[api.NodeID]int)}
}

// serve carries one flow from its header to its end, and closes conn.
func (s *server) serve(ctx context.Context, conn Conn, peer api.NodeID) {
	log := s.cfg.Log.With(zap.String("peer", string(peer)))
	path, _ := s.cfg.Paths(peer)
	h, backend, answer, err := s.open(ctx, conn, peer)
	if backend != nil {
		defer s.release(peer)
	}
	conn = s.mover.track(ctx, conn, flowKey{peer, h.flow}, serverPatience)
	if err == nil {
		_, err = conn.Write([]byte{byte(answer)})
	}
	if err != nil || answer != statusOK {
		result := answer.String()
		if err != nil {
			result = "broken"
		}
		s.m.fail(sideServer, h.proto, path, result)
		log.Debug("flow refused", zap.String("workload", h.service), zap.String("replica", string(h.replica)),
			zap.Stringer("status", answer), zap.Error(err))
		if backend != nil {
			_ = backend.Close()
		}
		_ = conn.Close() // not reset: the status must arrive
		return
	}
	t := s.m.open(sideServer, h.proto, path)
	defer t.close()
	_ = conn.SetDeadline(time.Time{})
	if h.proto == udp {
		relay(ctx, newFramed(conn), newSocket(backend), s.cfg.UDPIdle, t)
		return
	}
	_ = splice(ctx, conn, backend.(Conn), t)
}

// open reads what the peer wants and dials it. A backend that is not nil holds
// one of the peer's places.
func (s *server) open(ctx context.Context, conn Conn, peer api.NodeID) (header, net.Conn, status, error) {
	if err := conn.SetDeadline(time.Now().Add(headerTimeout)); err != nil {
		return header{}, nil, statusBad, fmt.Errorf("set deadline: %w", err)
	}
	h, err := readHeader(conn)
	if err != nil {
		return header{}, nil, statusBad, nil
	}
	snap, _ := s.dir.load()
	target, ok := snap.target(h.service, h.replica, h.proto, h.port)
	if !ok {
		return h, nil, statusNotHere, nil
	}
	if !s.acquire(peer) {
		return h, nil, statusBusy, nil
	}
	dialer := net.Dialer{Timeout: s.cfg.AttemptTimeout}
	backend, err := dialer.DialContext(ctx, h.proto, target.String())
	if err != nil {
		s.release(peer)
		return h, nil, statusRefused, nil
	}
	return h, backend, statusOK, conn.SetDeadline(time.Now().Add(headerTimeout))
}

func (s *server) acquire(peer api.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.cfg.MaxFlows || s.peers[peer] >= s.cfg.MaxFlowsPerPeer {
		return false
	}
	s.total++
	s.peers[peer]++
	return true
}

func (s *server) release(peer api.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.peers[peer]--; s.peers[peer] == 0 {
		delete(s.peers, peer)
	}
}
