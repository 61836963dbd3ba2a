package svcnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// sessionQueue is how many datagrams of one client wait while its endpoint is
// being found, or is slower than the client; more are dropped, as UDP does.
const sessionQueue = 64

// sessions carries the datagrams that arrive at VIPs: those of one client
// address go to one endpoint until nothing moved for a while.
type sessions struct {
	*connector
	slots chan struct{} // one per session
}

func newSessions(c *connector) *sessions {
	return &sessions{connector: c, slots: make(chan struct{}, c.cfg.MaxUDPSessions)}
}

// session is one client of one listener.
type session struct {
	sock   *net.UDPConn // the listener's: answers come from the VIP
	client netip.AddrPort
	queue  chan []byte
	done   chan struct{}
	close  func()
}

func (s *session) readPacket() ([]byte, error) {
	select {
	case p := <-s.queue:
		return p, nil
	case <-s.done:
		return nil, io.EOF
	}
}

func (s *session) writePacket(p []byte) error {
	_, err := s.sock.WriteToUDPAddrPort(p, s.client)
	return err
}

func (s *session) Close() error {
	s.close()
	return nil
}

// serve reads datagrams until the socket is closed. The sessions of the socket
// end with it.
func (u *sessions) serve(ctx context.Context, key listenKey, sock *net.UDPConn, wait *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	open := make(map[netip.AddrPort]*session)
	buf := make([]byte, maxPacket)
	for {
		n, client, err := sock.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // a client that went away; says nothing about the others
			continue
		}
		mu.Lock()
		s := open[client]
		mu.Unlock()
		if s == nil {
			if s = u.start(sock, client); s == nil {
				continue
			}
			mu.Lock()
			open[client] = s
			mu.Unlock()
			wait.Go(func() {
				defer func() {
					mu.Lock()
					delete(open, client)
					mu.Unlock()
					<-u.slots
				}()
				u.carry(ctx, key, s)
			})
		}
		select {
		case s.queue <- append([]byte(nil), buf[:n]...):
		default:
		}
	}
}

// start makes a session, or returns nil when there are too many.
func (u *sessions) start(sock *net.UDPConn, client netip.AddrPort) *session {
	select {
	case u.slots <- struct{}{}:
	default:
		u.m.fail(sideClient, udp, api.PathNone, "limit")
		return nil
	}
	done := make(chan struct{})
	return &session{
		sock: sock, client: client, done: done,
		queue: make(chan []byte, sessionQueue),
		close: sync.OnceFunc(func() { close(done) }),
	}
}

func (u *sessions) carry(ctx context.Context, key listenKey, s *session) {
	req, ok := u.request(key, s.client.Addr())
	if !ok {
		return
	}
	l, err := u.connect(ctx, req)
	if err != nil {
		u.cfg.Log.Debug("no endpoint for a datagram", zap.String("workload", req.service), zap.Error(err))
		return
	}
	defer l.closed()
	t := u.m.open(sideClient, udp, l.path)
	defer t.close()
	var backend packets = newSocket(l.conn)
	if l.framed {
		backend = newFramed(l.conn)
	}
	relay(ctx, s, backend, u.cfg.UDPIdle, t)
}
