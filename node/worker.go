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
	"github.com/cloudless-project/cloudless/svcnet"
)

// worker is what a node has that runs workloads: a container runtime, images,
// and the agent that makes assignments real with them.
type worker struct {
	daemon         *daemon
	runtime        *containerd.Runtime
	supervisor     *supervise.Supervisor
	runtimeVersion string
	exchange       *blockstore.Exchange
	images         *images
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
	w.agent = agent.New(agent.Config{
		Node:    d.self,
		Runtime: w.runtime,
		Images:  w.images,
		Network: attacher{d.network, d.subnet},
		Log:     d.log.Named("agent"),
		Metrics: d.registry,
	})
	d.worker = w
	d.add("containerd", w.supervisor.Run)
	d.add("blocks", w.exchange.Run)
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
		Providers: func(digest string) []api.NodeID { return holdersOf(d.views.current(), digest) },
		Rank:      func(id api.NodeID) int { path, _ := d.mesh.Path(id); return pathRank(path) },
		Log:       d.log.Named("blocks"),
		Metrics:   d.registry,
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
		w.daemon.network.Set(w.daemon.table(w.daemon.views.current()))
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
	w.agent.Assign(mine)
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
