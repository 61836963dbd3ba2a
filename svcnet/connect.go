package svcnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// Endpoints tried for one connection. More would only prolong the wait of
	// a client whose service is down.
	maxAttempts = 4

	// Patience before a second endpoint is tried beside one that has not
	// answered: several round trips (the mesh may have to open a stream, the
	// endpoint's node dials the container), at least the floor, since a
	// busy device takes its time.
	hedgeRTTs  = 6
	hedgeFloor = 300 * time.Millisecond
	hedgeLimit = 1500 * time.Millisecond

	// Pause before the endpoints that have all failed are tried again.
	againAfter = 200 * time.Millisecond
)

var (
	errNoService  = errors.New("no such service")
	errNoEndpoint = errors.New("no endpoint is ready")
	errRefused    = errors.New("endpoint refused")
	errNotHere    = errors.New("endpoint is not on its node")
	errBusy       = errors.New("node is at its limit of flows")
)

// request is a connection that somebody wants.
type request struct {
	service string
	port    uint16 // of the service
	proto   string
	source  api.ReplicaID // who asks, "" for this host
}

// link is a way to an endpoint that has answered; no byte was sent on it yet.
type link struct {
	candidate
	conn   net.Conn
	flow   token  // of bytes that go to another node
	framed bool   // packets on it carry their length
	closed func() // releases the endpoint's place in the balance
}

// connector finds an endpoint for a request and opens the way to it.
type connector struct {
	cfg *Config
	dir *directory
	bal *balancer
	m   *metrics

	mover *mover
}

// connect tries endpoints, nearest first, until one answers. When the service
// has none that is ready, it waits for one as long as ConnectTimeout allows.
func (c *connector) connect(ctx context.Context, req request) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	for {
		snap, changed := c.dir.load()
		svc := snap.services[req.service]
		if svc == nil {
			return nil, errNoService
		}
		l, err := c.race(ctx, svc, req)
		if err == nil || errors.Is(err, errRefused) {
			return l, err
		}
		// Nothing is ready, or what is listed is not there any more (or not
		// yet): the table is about to change.
		var again <-chan time.Time
		if !errors.Is(err, errNoEndpoint) {
			again = time.After(againAfter)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// result is what became of one attempt.
type result struct {
	candidate
	link *link
	err  error
}

// race tries the endpoints of one snapshot: the next one when one failed, or
// beside one that is slow to answer. Retrying costs nothing, as no byte of the
// client was sent. The first link wins, the others are closed.
func (c *connector) race(ctx context.Context, svc *service, req request) (*link, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, maxAttempts)
	pending := make(map[api.ReplicaID]attemptInfo, maxAttempts)
	defer func() {
		cancel()
		go discard(results, len(pending))
	}()
	tried := make(map[api.ReplicaID]bool, maxAttempts)
	err := errNoEndpoint
	for {
		var hedge <-chan time.Time
		if len(tried) < maxAttempts {
			if next, ok := c.bal.pick(svc.endpoints, tried); ok {
				if len(tried) > 0 {
					c.m.retries.Inc()
				}
				tried[next.Replica] = true
				patience := hedgeDelay(next.rtt)
				pending[next.Replica] = attemptInfo{next.Node, time.Now().Add(patience)}
				go func() { results <- c.attempt(ctx, next, req) }()
				hedge = time.After(patience)
			}
		}
		if len(pending) == 0 {
			return nil, err
		}
		select {
		case r := <-results:
			delete(pending, r.Replica)
			if r.err == nil {
				c.avoidSlow(pending)
				return r.link, nil
			}
			err = worse(err, r.err)
		case <-hedge:
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %s: %w", req.service, ctx.Err())
		}
	}
}

// worse keeps what the client should hear: that an endpoint refused, rather than
// that another was not found.
func worse(old, new error) error {
	if errors.Is(old, errRefused) {
		return old
	}
	return new
}

// attemptInfo is an attempt that has not ended.
type attemptInfo struct {
	node api.NodeID
	late time.Time // from when on it counts as slow
}

// avoidSlow avoids the endpoints that were overtaken, so that the next
// connection does not wait for them as well.
func (c *connector) avoidSlow(pending map[api.ReplicaID]attemptInfo) {
	now := time.Now()
	for replica, a := range pending {
		if now.After(a.late) {
			c.bal.failed(replica, a.node)
		}
	}
}

// discard closes what the attempts that lost still bring.
func discard(results <-chan result, pending int) {
	for range pending {
		if r := <-results; r.link != nil {
			reset(r.link.conn)
			r.link.closed()
		}
	}
}

func hedgeDelay(rtt time.Duration) time.Duration {
	return min(max(hedgeRTTs*rtt, hedgeFloor), hedgeLimit)
}

// attempt opens the way to one endpoint and notes how that went.
func (c *connector) attempt(ctx context.Context, to candidate, req request) result {
	dialCtx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
	defer cancel()
	var l *link
	var err error
	if to.Node == c.cfg.Self {
		l, err = c.dialLocal(dialCtx, to, req)
	} else {
		l, err = c.dialRemote(dialCtx, to, req)
	}
	if err == nil {
		l.closed = c.bal.opened(to.Replica, to.Node)
		return result{candidate: to, link: l}
	}
	if errors.Is(ctx.Err(), context.Canceled) { // another one won, which says nothing about this one
		return result{candidate: to, err: err}
	}
	c.m.fail(sideClient, req.proto, to.path, outcome(err))
	if errors.Is(err, errRefused) || errors.Is(err, errNotHere) {
		c.bal.failed(to.Replica, to.Node)
	} else {
		c.bal.failed("", to.Node)
	}
	c.cfg.Log.Debug("endpoint did not answer", zap.String("workload", req.service),
		zap.String("replica", string(to.Replica)), zap.String("peer", string(to.Node)), zap.Error(err))
	return result{candidate: to, err: err}
}

func (c *connector) dialLocal(ctx context.Context, to candidate, req request) (*link, error) {
	snap, _ := c.dir.load()
	addr, ok := snap.target(req.service, to.Replica, req.proto, req.port)
	if !ok {
		return nil, errNotHere
	}
	conn, err := new(net.Dialer).DialContext(ctx, req.proto, addr.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return &link{candidate: to, conn: conn}, nil
}

func (c *connector) dialRemote(ctx context.Context, to candidate, req request) (*link, error) {
	h := header{proto: req.proto, port: req.port, service: req.service, replica: to.Replica, source: string(req.source)}
	if req.proto == tcp {
		h.flow = newToken()
	}
	hello, err := h.append(nil)
	if err != nil {
		return nil, err
	}
	conn, err := c.cfg.Flows.DialFlow(ctx, to.Node)
	if err != nil {
		return nil, fmt.Errorf("open flow to %s: %w", to.Node, err)
	}
	if err := greet(ctx, conn, hello); err != nil {
		reset(conn)
		return nil, err
	}
	return &link{candidate: to, conn: conn, flow: h.flow, framed: req.proto == udp}, nil
}

// greet sends the header and waits for the status, as long as ctx lasts.
func greet(ctx context.Context, conn Conn, hello []byte) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(hello); err != nil {
		return fmt.Errorf("send flow header: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("read flow status: %w", err)
	}
	switch s := status(answer[0]); s {
	case statusOK:
		if !stop() { // the deadline is set, or about to be
			return context.Cause(ctx)
		}
		return nil
	case statusRefused:
		return errRefused
	case statusNotHere:
		return errNotHere
	case statusBusy:
		return errBusy
	default:
		return fmt.Errorf("flow refused: %s", s)
	}
}

// outcome is the metric label of an error.
func outcome(err error) string {
	switch {
	case errors.Is(err, errRefused):
		return "refused"
	case errors.Is(err, errNotHere):
		return "not_here"
	case errors.Is(err, errBusy):
		return "busy"
	case errors.Is(err, errNoEndpoint), errors.Is(err, errNoService):
		return "no_endpoint"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, syscall.EMFILE):
		return "no_descriptors"
	}
	return "unreachable"
}
