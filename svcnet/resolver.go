package svcnet

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// Queries that wait for an upstream resolver at the same time. A flood
	// beyond that is refused at once; names of the cluster never wait.
	maxForwards = 256

	maxDNSConns  = 128 // TCP connections of clients
	dnsUDPSize   = 1232
	dnsIdle      = 5 * time.Second
	forwardTotal = 4 * time.Second // all upstreams together; clients give up at 5 s
	forwardEach  = 2 * time.Second
)

// resolver answers DNS: names of the cluster from the table, others through
// the host's resolvers.
type resolver struct {
	dir      *directory
	vips     netip.Prefix
	upstream *upstream
	m        *metrics
	forwards chan struct{} // one per query under way
}

func newResolver(dir *directory, vips netip.Prefix, up *upstream, m *metrics) *resolver {
	return &resolver{
		dir: dir, vips: vips, upstream: up, m: m,
		forwards: make(chan struct{}, maxForwards),
	}
}

// serve answers on both sockets until ctx ends; then they are closed.
func (r *resolver) serve(ctx context.Context, pc net.PacketConn, ln net.Listener) {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) { r.reply(ctx, w, req) })
	servers := []*dns.Server{
		{PacketConn: pc, Handler: handler, UDPSize: 4096},
		{Listener: newLimitListener(ln, maxDNSConns), Handler: handler, IdleTimeout: func() time.Duration { return dnsIdle }},
	}
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() { _ = s.ActivateAndServe() }) // ends when its socket closes
	}
	<-ctx.Done()
	_ = pc.Close()
	_ = ln.Close()
	for _, s := range servers {
		stopped, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = s.ShutdownContext(stopped)
		cancel()
	}
	wg.Wait()
}

// reply answers one query of a client.
func (r *resolver) reply(ctx context.Context, w dns.ResponseWriter, req *dns.Msg) {
	_, overTCP := w.RemoteAddr().(*net.TCPAddr)
	resp, kind := r.answer(ctx, req, overTCP)
	if resp == nil {
		return
	}
	if !overTCP {
		resp.Truncate(clientSize(req))
	}
	r.m.queries.WithLabelValues(kind, dns.RcodeToString[resp.Rcode]).Inc()
	_ = w.WriteMsg(resp) // a client that is gone asks again
}

// answer makes the response and tells where it comes from.
func (r *resolver) answer(ctx context.Context, req *dns.Msg, overTCP bool) (resp *dns.Msg, kind string) {
	if req.Response {
		return nil, "" // answering answers would be a loop
	}
	if req.Opcode != dns.OpcodeQuery || len(req.Question) != 1 {
		return failure(req, dns.RcodeNotImplemented), "local"
	}
	q := req.Question[0]
	snap, _ := r.dir.load()
	if inZone(q.Name) {
		return localAnswer(req, snap.lookup(q)), "local"
	}
	if rep, ok := snap.reverse(q, r.vips); ok {
		return localAnswer(req, rep), "local"
	}
	return r.forward(ctx, req, overTCP), "forward"
}

func (r *resolver) forward(ctx context.Context, req *dns.Msg, overTCP bool) *dns.Msg {
	select {
	case r.forwards <- struct{}{}:
		defer func() { <-r.forwards }()
	default:
		return failure(req, dns.RcodeServerFailure)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTotal)
	defer cancel()
	return r.upstream.exchange(ctx, req, overTCP)
}

func localAnswer(req *dns.Msg, rep reply) *dns.Msg {
	if req.Question[0].Qclass != dns.ClassINET && req.Question[0].Qclass != dns.ClassANY {
		return failure(req, dns.RcodeRefused)
	}
	m := new(dns.Msg).SetRcode(req, rep.rcode)
	m.Authoritative = true
	m.RecursionAvailable = true
	m.Answer, m.Extra = rep.answers, rep.extra
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa()}
	}
	if req.IsEdns0() != nil {
		m.SetEdns0(dnsUDPSize, false)
	}
	return m
}

func failure(req *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(req, rcode)
	m.RecursionAvailable = true
	return m
}

// clientSize is the longest UDP response that the client takes.
func clientSize(req *dns.Msg) int {
	if opt := req.IsEdns0(); opt != nil {
		return max(int(opt.UDPSize()), dns.MinMsgSize)
	}
	return dns.MinMsgSize
}

// limitListener closes connections beyond its limit at once.
type limitListener struct {
	net.Listener
	slots chan struct{}
}

func newLimitListener(ln net.Listener, limit int) *limitListener {
	return &limitListener{ln, make(chan struct{}, limit)}
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			reset(conn)
		}
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
