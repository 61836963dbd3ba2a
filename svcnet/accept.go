package svcnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// acceptor carries the connections that arrive at VIPs.
type acceptor struct {
	*connector
	slots chan struct{} // one per open connection
}

func newAcceptor(c *connector) *acceptor {
	return &acceptor{connector: c, slots: make(chan struct{}, c.cfg.MaxFlows)}
}

// serve accepts until the listener is closed. Connections are carried on until
// ctx ends; wait counts them.
func (a *acceptor) serve(ctx context.Context, key listenKey, ln net.Listener, wait *sync.WaitGroup) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: leave the others time to end.
			a.cfg.Log.Warn("cannot accept a connection", zap.Stringer("address", key.addr), zap.Error(err))
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case a.slots <- struct{}{}:
			wait.Go(func() {
				defer func() { <-a.slots }()
				a.carry(ctx, key, conn.(*net.TCPConn))
			})
		default:
			a.m.fail(sideClient, tcp, api.PathNone, "limit")
			reset(conn)
		}
	}
}

// carry takes one client to an endpoint.
func (a *acceptor) carry(ctx context.Context, key listenKey, client *net.TCPConn) {
	req, ok := a.request(key, client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
	if !ok {
		reset(client)
		return
	}
	l, err := a.connect(ctx, req)
	if err != nil {
		if errors.Is(err, errNoEndpoint) || errors.Is(err, errNoService) {
			a.m.fail(sideClient, tcp, api.PathNone, outcome(err))
		}
		a.cfg.Log.Debug("no endpoint for a connection", zap.String("workload", req.service), zap.Error(err))
		reset(client)
		return
	}
	defer l.closed()
	t := a.m.open(sideClient, tcp, l.path)
	defer t.close()
	way := a.mover.track(ctx, l.conn.(Conn), flowKey{l.Node, l.flow}, clientPatience)
	_ = splice(ctx, client, way, t) // a cut connection is the peers' business
}

// request tells what a client of a listener wants.
func (c *connector) request(key listenKey, client netip.Addr) (request, bool) {
	snap, _ := c.dir.load()
	sp, ok := snap.listeners[key]
	if !ok {
		return request{}, false
	}
	return request{
		service: sp.service, port: key.addr.Port(), proto: key.proto,
		source: snap.byIP[client.Unmap()],
	}, true
}
