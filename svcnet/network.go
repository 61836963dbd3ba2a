//go:build linux

package svcnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/atomicfile"
	"github.com/cloudless-project/cloudless/svcnet/dataplane"
)

const (
	// How often the host is compared with what it should be. Reloading a
	// host's firewall flushes every table, ours too.
	repairEvery = 10 * time.Second

	// The same after a failure.
	retryEvery = 2 * time.Second
)

// Network is the service network of this node.
type Network struct {
	cfg   Config
	log   *zap.Logger
	plane *dataplane.Plane
	dir   *directory
	bal   *balancer

	tcp  *acceptor
	udp  *sessions
	peer *server
	dns  *resolver
	host *hostDNS

	mover *mover

	mu      sync.Mutex
	status  Status
	started bool
}

// Status tells what a Network does right now.
type Status struct {
	Index     uint64       `json:"index"`     // of the table that is in effect
	Subnet    netip.Prefix `json:"subnet"`    // of the containers; invalid until the table names it
	Listeners int          `json:"listeners"` // open VIP ports
	Problems  []string     `json:"problems"`  // what is not as the table wants it, for people
	Resolver  HostResolver `json:"resolver"`
}

// Attachment is the network of a container.
type Attachment struct {
	NetnsPath  string     // namespace to start the container in
	IP         netip.Addr // of the container, within the node's subnet
	Gateway    netip.Addr
	ResolvConf string // file to mount read-only at /etc/resolv.conf
}

// New wires a Network. It touches nothing of the host yet.
func New(cfg Config) (*Network, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	plane, err := dataplane.New(dataplane.Config{
		Bridge: cfg.Bridge, VIPRange: cfg.VIPRange, Dir: filepath.Join(cfg.StateDir, "netns"), Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, log: cfg.Log, plane: plane, dir: newDirectory(), bal: newBalancer(cfg.Self, cfg.Paths)}
	n.mover = newMover(&n.cfg, m)
	c := &connector{cfg: &n.cfg, dir: n.dir, bal: n.bal, m: m, mover: n.mover}
	n.tcp, n.udp = newAcceptor(c), newSessions(c)
	n.peer = newServer(&n.cfg, n.dir, m, n.mover)
	up := newUpstream(cfg.Upstream, cfg.ResolvConf, func(a netip.Addr) bool { return cfg.VIPRange.Contains(a) })
	n.dns = newResolver(n.dir, cfg.VIPRange, up, m)
	n.host = newHostDNS(&n.cfg)
	return n, nil
}

// Set replaces the table. It returns at once; Run makes it so. Connections of
// services that the new table still has are not touched.
func (n *Network) Set(t Table) {
	next := newSnapshot(t, n.cfg.VIPRange)
	old, _ := n.dir.load()
	n.bal.keep(old, next)
	n.dir.store(next)
}

// ServeFlow carries a connection that a peer opened to this node, until it
// ends; it closes conn. The caller has authenticated the peer.
func (n *Network) ServeFlow(ctx context.Context, conn Conn, peer api.NodeID) {
	n.peer.serve(ctx, conn, peer)
}

// ServeLine takes a line that a peer opened to this node, for a flow between the two. The caller
// has authenticated the peer.
func (n *Network) ServeLine(line Conn, peer api.NodeID) { n.mover.serve(line, peer) }

// Status returns what is in effect.
func (n *Network) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

// HostResolver looks at how this host resolves names. It changes nothing.
func (n *Network) HostResolver(ctx context.Context) HostResolver { return n.host.look(ctx) }

// Run keeps the host as the table wants it and carries connections, until ctx
// ends. Then it closes every connection and gives up the virtual IPs; the
// networks of containers stay. It may be called once.
func (n *Network) Run(ctx context.Context) error {
	if n.started {
		return errors.New("svcnet: Run was called twice")
	}
	n.started = true
	sockets := newSocketSet(n)
	defer func() {
		sockets.close()
		if err := n.plane.Close(); err != nil {
			n.log.Warn("cannot give up virtual IPs", zap.Error(err))
		}
	}()
	told := "" // the last problem in the log; the same is not repeated
	for {
		snap, changed := n.dir.load()
		err := n.reconcile(ctx, snap, sockets)
		if ctx.Err() != nil {
			return nil
		}
		wait := repairEvery
		if err != nil {
			wait = retryEvery
			if err.Error() != told {
				n.log.Error("service network is not as it should be", zap.Error(err))
			}
			told = err.Error()
		} else {
			told = ""
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// reconcile brings host and sockets in line with a snapshot.
func (n *Network) reconcile(ctx context.Context, snap *snapshot, sockets *socketSet) error {
	problems := snap.problems
	var err error
	if snap.subnet.IsValid() {
		if err = n.plane.Set(ctx, dataplane.Desired{Subnet: snap.subnet}); err == nil {
			err = sockets.set(ctx, snap)
		}
		if err == nil {
			sockets.ready.Do(func() { sockets.wait.Go(func() { n.tellHost(sockets.ctx) }) })
		}
	} else {
		problems = append(problems[:len(problems):len(problems)], "the container subnet of this node is not known yet")
	}
	if err != nil {
		problems = append(problems[:len(problems):len(problems)], err.Error())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status = Status{
		Index: snap.index, Subnet: snap.subnet, Listeners: len(sockets.open),
		Problems: problems, Resolver: n.status.Resolver,
	}
	return err
}

// tellHost makes names of the cluster work in the host's own programs, where
// the host allows it, and otherwise says in the log what a person can do.
func (n *Network) tellHost(ctx context.Context) {
	look := n.host.detect
	if n.cfg.HostDNS {
		look = n.host.configure
	}
	state, err := look(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil || !state.Ready {
		n.log.Warn(state.Message, zap.String("hint", state.Hint), zap.Error(err))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status.Resolver = state
}

// Attach makes the network of a container, or returns the one that it has.
// It needs no Run and no Set before it. An interrupted call is finished by the
// next one.
func (n *Network) Attach(ctx context.Context, id string, subnet netip.Prefix) (Attachment, error) {
	if err := n.plane.Set(ctx, dataplane.Desired{Subnet: subnet}); err != nil {
		return Attachment{}, err
	}
	s, err := n.plane.Attach(ctx, id)
	if err != nil {
		return Attachment{}, err
	}
	conf, err := n.writeResolvConf()
	if err != nil {
		return Attachment{}, err
	}
	return Attachment{NetnsPath: s.NetnsPath, IP: s.IP, Gateway: s.Gateway, ResolvConf: conf}, nil
}

// Detach removes the network of a container; one that has none is fine.
func (n *Network) Detach(ctx context.Context, id string) error { return n.plane.Detach(ctx, id) }

// Sweep removes the network of every container that is not in keep.
func (n *Network) Sweep(ctx context.Context, keep []string) error { return n.plane.Sweep(ctx, keep) }

// Teardown removes everything that this package ever made on the host, the
// networks of running containers too. Run must have ended.
func (n *Network) Teardown(ctx context.Context) error { return n.plane.Teardown(ctx) }

// writeResolvConf writes the file that containers see, unless it is right: a
// container keeps the file it was started with, so it is never changed without need.
func (n *Network) writeResolvConf() (string, error) {
	const name = "resolv.conf"
	path := filepath.Join(n.cfg.StateDir, name)
	want := fmt.Appendf(nil, "nameserver %s\nsearch %s\noptions ndots:1 timeout:2 attempts:3\n",
		DNSAddress(n.cfg.VIPRange), api.DomainSuffix)
	root, err := os.OpenRoot(n.cfg.StateDir)
	if err != nil {
		return "", fmt.Errorf("open network state: %w", err)
	}
	defer root.Close()
	if have, err := root.ReadFile(name); err == nil && string(have) == string(want) {
		return path, nil
	}
	return path, atomicfile.Write(root, name, want, 0o644)
}

// socketSet is the open sockets at virtual IPs. Only Run's goroutine uses it.
type socketSet struct {
	n       *Network
	ctx     context.Context // of everything that the sockets carry
	cancel  context.CancelFunc
	wait    sync.WaitGroup
	open    map[listenKey]interface{ Close() error }
	dnsOpen bool
	ready   sync.Once // everything was as it should be for the first time
}

func newSocketSet(n *Network) *socketSet {
	s := &socketSet{n: n, open: make(map[listenKey]interface{ Close() error })}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// set opens and closes sockets so that exactly those of the snapshot are open.
func (s *socketSet) set(ctx context.Context, snap *snapshot) error {
	for key, socket := range s.open {
		if _, keep := snap.listeners[key]; !keep {
			_ = socket.Close()
			delete(s.open, key)
		}
	}
	return s.n.plane.InVIP(func() error {
		errs := []error{s.openDNS(ctx)}
		for key := range snap.listeners {
			if _, has := s.open[key]; !has {
				errs = append(errs, s.listen(ctx, key))
			}
		}
		return errors.Join(errs...)
	})
}

func (s *socketSet) listen(ctx context.Context, key listenKey) error {
	if key.proto == udp {
		pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", key.addr.String())
		if err != nil {
			return err
		}
		sock := pc.(*net.UDPConn)
		s.open[key] = sock
		s.wait.Go(func() { s.n.udp.serve(s.ctx, key, sock, &s.wait) })
		return nil
	}
	ln, err := listenTCP(ctx, key.addr)
	if err != nil {
		return err
	}
	s.open[key] = ln
	s.wait.Go(func() { s.n.tcp.serve(s.ctx, key, ln, &s.wait) })
	return nil
}

// listenTCP opens plain TCP: the kernel cannot splice what may be Multipath TCP.
func listenTCP(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp4", addr.String())
}

// openDNS opens the resolver's sockets, once.
func (s *socketSet) openDNS(ctx context.Context) error {
	if s.dnsOpen {
		return nil
	}
	addr := netip.AddrPortFrom(DNSAddress(s.n.cfg.VIPRange), 53)
	ln, err := listenTCP(ctx, addr)
	if err != nil {
		return err
	}
	pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", addr.String())
	if err != nil {
		_ = ln.Close()
		return err
	}
	s.dnsOpen = true
	s.wait.Go(func() { s.n.dns.serve(s.ctx, pc, ln) })
	return nil
}

// close ends everything that the sockets carry and waits for it.
func (s *socketSet) close() {
	for _, socket := range s.open {
		_ = socket.Close()
	}
	s.cancel()
	s.wait.Wait()
}
