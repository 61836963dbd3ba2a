package p2p

import (
	"context"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	manet "github.com/multiformats/go-multiaddr/net"
)

// firstBytes is how much of a connection tells libp2p and lines apart.
const firstBytes = 3

// patientUpgrader makes listeners that hand on connections once those have
// spoken. Whoever accepts them looks at 64 at a time and waits for each: as many
// silent ones would keep everybody else out. Here they wait side by side, as
// many as the resource manager lets in, until the gater has had enough of them.
type patientUpgrader struct{ transport.Upgrader }

// GateMaListener implements transport.Upgrader.
func (u patientUpgrader) GateMaListener(l manet.Listener) transport.GatedMaListener {
	p := &patientListener{GatedMaListener: u.Upgrader.GateMaListener(l), spoken: make(chan spokenConn)}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.wg.Go(p.run)
	return p
}

type spokenConn struct {
	conn  manet.Conn
	scope network.ConnManagementScope
}

type patientListener struct {
	transport.GatedMaListener
	spoken chan spokenConn
	ctx    context.Context // ends with its reason when the listener does
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func (p *patientListener) run() {
	for {
		conn, scope, err := p.GatedMaListener.Accept()
		if err != nil {
			p.cancel(err)
			return
		}
		p.wg.Go(func() { p.listen(spokenConn{conn, scope}) })
	}
}

func (p *patientListener) listen(c spokenConn) {
	stop := context.AfterFunc(p.ctx, func() { _ = c.conn.Close() })
	err := awaitBytes(c.conn, firstBytes)
	if stop() && err == nil {
		select {
		case p.spoken <- c:
			return
		case <-p.ctx.Done():
		}
	}
	_ = c.conn.Close()
	c.scope.Done()
}

// Accept returns the next connection that has spoken.
func (p *patientListener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	select {
	case c := <-p.spoken:
		return c.conn, c.scope, nil
	case <-p.ctx.Done():
		return nil, nil, context.Cause(p.ctx)
	}
}

// Close ends the listener, and the connections that nobody has accepted.
func (p *patientListener) Close() error {
	err := p.GatedMaListener.Close()
	p.cancel(net.ErrClosed)
	p.wg.Wait()
	return err
}
