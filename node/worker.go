package node

import (
	"context"
	"net/netip"
	"path/filepath"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/blockstore"
	"github.com/cloudless-project/cloudless/container/containerd"
	"github.com/cloudless-project/cloudless/container/containerd/supervise"
	"github.com/cloudless-project/cloudless/node/agent"
	"github.com/cloudless-project/cloudless/node/control"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/svcnet"
)

// worker is what a node has that runs workloads: a container runtime, images,
// a service network, and the agent that makes assignments real with them.
type worker struct {
	daemon         *daemon
	runtime        *containerd.Runtime
	supervisor     *supervise.Supervisor
	runtimeVersion string
	exchange       *blockstore.Exchange
	images         *images
	network        *svcnet.Network
	agent          *agent.Agent
	changed        signal // replicas or images of this node
}

// runDir holds what does not survive a reboot: sockets and namespaces. Its
// path is short, because that of a unix socket is limited.
func (d *daemon) runDir(elem ...string) string {
	base := filepath.Join(filepath.Dir(d.cfg.Socket), "node-"+string(d.self[len(d.self)-8:]))
	return filepath.Join(append([]string{base}, elem...)...)
}

func (d *daemon) buildWorker(ctx context.Context) error {
	w := &worker{daemon: d}
	var err error
	w.supervisor, err = supervise.New(ctx, supervise.Config{
		Address: d.cfg.Containerd,
		Root:    d.dir.join("containerd"),
		State:   d.runDir("containerd"),
		Log:     d.log.Named("containerd"),
	})
	if err != nil {
		return err
	}
	w.runtime, err = containerd.New(containerd.Config{
		Address:      w.supervisor.Address(),
		StateDir:     d.runDir("tasks"),
		LogDir:       d.dir.join("logs"),
		CgroupParent: d.cfg.CgroupParent,
		Log:          d.log.Named("runtime"),
	})
	if err != nil {
		return err
	}
	if err := w.buildImages(); err != nil {
		return err
	}
	if err := w.buildNetwork(); err != nil {
		return err
	}
	w.agent = agent.New(agent.Config{
		Node:    d.self,
		Runtime: w.runtime,
		Images:  w.images,
		Network: attacher{w.network, w.subnet},
		Log:     d.log.Named("agent"),
		Metrics: d.registry,
	})
	d.worker = w
	d.add("containerd", w.supervisor.Run)
	d.add("blocks", w.exchange.Run)
	d.add("service network", w.network.Run)
	d.add("flows", w.serveFlows)
	d.add("agent", w.run)
	return nil
}

func (w *worker) buildImages() error {
	d := w.daemon
	var err error
	w.exchange, err = blockstore.New(blockstore.Config{
		Host:    d.mesh.Host(),
		Content: w.runtime,
		Allowed: func(id api.NodeID) bool {
			m, ok := d.mesh.Admitted(id)
			return ok && m.Has(api.RoleNode)
		},
		Rank:    func(id api.NodeID) int { path, _ := d.mesh.Path(id); return pathRank(path) },
		Log:     d.log.Named("blocks"),
		Metrics: d.registry,
	})
	if err != nil {
		return err
	}
	w.images = &images{
		runtime:  w.runtime,
		exchange: w.exchange,
		dir:      d.dir,
		known:    d.knownImage,
		register: d.registerImage,
		log:      d.log.Named("images"),
		held:     make(map[string]api.Image),
		changed:  w.changed.notify,
	}
	return nil
}

// pathRank orders paths, best first.
func pathRank(p api.Path) int {
	switch p {
	case api.PathSelf:
		return 0
	case api.PathLAN:
		return 1
	case api.PathDirect:
		return 2
	case api.PathRelayed:
		return 3
	default:
		return 4
	}
}

func (w *worker) buildNetwork() error {
	d := w.daemon
	var err error
	w.network, err = svcnet.New(svcnet.Config{
		Self:     d.self,
		Flows:    flowDialer{d.mesh},
		Paths:    d.mesh.Path,
		StateDir: d.runDir("network"),
		HostDNS:  true,
		Log:      d.log.Named("network"),
		Metrics:  d.registry,
	})
	return err
}

// run waits for the runtime, serves the images that are here already, and runs
// the agent.
func (w *worker) run(ctx context.Context) error {
	select {
	case <-w.supervisor.Ready():
	case <-ctx.Done():
		return nil
	}
	info, err := w.runtime.Info(ctx)
	if err != nil {
		return err
	}
	w.runtimeVersion = info.Name + " " + info.Version
	if err := w.images.load(ctx); err != nil {
		return err
	}
	w.changed.notify()
	go w.followAgent(ctx)
	return w.agent.Run(ctx)
}

// followAgent passes on what the agent says: to the anchors with the next
// report, and to the service network, which knows local replicas at once.
func (w *worker) followAgent(ctx context.Context) {
	for {
		_, changed := w.agent.Reports()
		w.changed.notify()
		w.network.Set(w.table(w.daemon.views.current()))
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// apply makes the worker act on a view.
func (w *worker) apply(v api.ClusterView) {
	var mine []api.Replica
	for _, r := range v.Replicas {
		if r.Node == w.daemon.self {
			mine = append(mine, r)
		}
	}
	w.network.Set(w.table(v))
	w.agent.Assign(mine)
}

// table is what the service network acts on: the services of the view, and the
// replicas that this node knows better itself.
func (w *worker) table(v api.ClusterView) svcnet.Table {
	t := svcnet.Table{
		Index:    v.Index,
		Services: control.ServicesOf(v),
		Local:    make(map[api.ReplicaID]svcnet.LocalEndpoint),
	}
	t.Subnet = w.subnet()
	ports := make(map[api.ReplicaID][]api.Port)
	for _, r := range v.Replicas {
		if r.Node == w.daemon.self {
			ports[r.ID] = r.Spec.Ports
		}
	}
	for id, address := range w.agent.Local() {
		if ip, err := netip.ParseAddr(address); err == nil {
			t.Local[id] = svcnet.LocalEndpoint{IP: ip, Ports: ports[id]}
		}
	}
	return t
}

// subnet is where this node's containers get their addresses from; invalid
// until the first view.
func (w *worker) subnet() netip.Prefix {
	v := w.daemon.views.current()
	self, _ := nodeOf(&v, w.daemon.self)
	subnet, err := netip.ParsePrefix(self.Subnet)
	if err != nil {
		return netip.Prefix{}
	}
	return subnet
}

// serveFlows hands connections of peers to the service network.
func (w *worker) serveFlows(ctx context.Context) error {
	l, err := w.daemon.mesh.Listen(api.ProtoFlow, api.RoleNode)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		flow, ok := conn.(p2p.Conn)
		if !ok {
			conn.Close()
			continue
		}
		go w.network.ServeFlow(ctx, flow, flow.Member().ID)
	}
}

// flowDialer opens flows over the mesh. It implements svcnet.FlowDialer.
type flowDialer struct{ mesh *p2p.Mesh }

func (f flowDialer) DialFlow(ctx context.Context, to api.NodeID) (svcnet.Conn, error) {
	return f.mesh.Dial(ctx, to, api.ProtoFlow)
}

// attacher gives the agent's containers their network.
type attacher struct {
	network *svcnet.Network
	subnet  func() netip.Prefix
}

// Attach implements agent.Network.
func (a attacher) Attach(ctx context.Context, id string) (agent.Attachment, error) {
	at, err := a.network.Attach(ctx, id, a.subnet())
	if err != nil {
		return agent.Attachment{}, err
	}
	return agent.Attachment{NetNS: at.NetnsPath, IP: at.IP.String(), ResolvConf: at.ResolvConf}, nil
}

// Detach implements agent.Network.
func (a attacher) Detach(ctx context.Context, id string) error { return a.network.Detach(ctx, id) }

// Sweep implements agent.Network.
func (a attacher) Sweep(ctx context.Context, keep []string) error { return a.network.Sweep(ctx, keep) }
