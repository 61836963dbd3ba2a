package node

import (
	"context"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/blockstore"
	"github.com/cloudless-project/cloudless/container/containerd"
	"github.com/cloudless-project/cloudless/container/containerd/supervise"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/node/agent"
	"github.com/cloudless-project/cloudless/svcnet"
)

// worker is what a node has that runs workloads: a container runtime, images,
// and the agent that makes assignments real with them.
type worker struct {
	daemon     *daemon
	runtime    *containerd.Runtime
	supervisor *supervise.Supervisor
	exchange   *blockstore.Exchange
	images     *images
	agent      *agent.Agent
	changed    signal      // replicas or images of this node
	corrupt    chan string // digests of blobs that are damaged on this disk

	mu             sync.Mutex
	runtimeVersion string // "" until the runtime has answered
	loaded         bool   // the images that an earlier daemon held are known
}

// version names the container runtime, "" while it is not known.
func (w *worker) version() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runtimeVersion
}

// runDir holds what does not survive a reboot: sockets and namespaces. Its
// path is short, because that of a unix socket is limited.
func (d *daemon) runDir(elem ...string) string {
	base := filepath.Join(filepath.Dir(d.cfg.Socket), "node-"+string(d.self[len(d.self)-8:]))
	return filepath.Join(append([]string{base}, elem...)...)
}

// buildRuntime comes before the mesh: what runs below everything ends last.
func (d *daemon) buildRuntime(ctx context.Context) error {
	if d.cfg.NoWorkloads {
		return nil
	}
	w := &worker{daemon: d, corrupt: make(chan string, 64)}
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
	d.parts.loop("containerd", w.supervisor.Run)
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
	d.parts.owner("runtime", func(ctx context.Context) error {
		<-ctx.Done()
		return w.runtime.Close()
	})
	d.worker = w
	return nil
}

func (d *daemon) buildWorker(ctx context.Context) error {
	w := d.worker
	if w == nil {
		return nil
	}
	if err := w.buildImages(ctx); err != nil {
		return err
	}
	w.agent = agent.New(agent.Config{
		Node:      d.self,
		Runtime:   w.runtime,
		Images:    w.images,
		Network:   attacher{d.network, d.subnet},
		Confirmed: d.lease.confirmed,
		Log:       d.log.Named("agent"),
		Metrics:   d.registry,
	})
	d.parts.loop("agent", w.run)
	return nil
}

func (w *worker) buildImages(ctx context.Context) error {
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
		Rank:      func(id api.NodeID) int { path, _ := d.mesh.Path(id); return path.Rank() },
		Corrupt:   w.distrust,
		Log:       d.log.Named("blocks"),
		Metrics:   d.registry,
	})
	if err != nil {
		return err
	}
	d.parts.owner("blocks", w.exchange.Run)
	w.images = &images{
		runtime:  w.runtime,
		exchange: w.exchange,
		dir:      d.dir,
		known:    d.knownImage,
		register: d.registerImage,
		log:      d.log.Named("images"),
		life:     ctx,
		held:     make(map[string]*holding),
		changed:  w.changed.notify,
	}
	return w.images.prepare()
}

// distrust notes a damaged blob; it does not block.
func (w *worker) distrust(digest string) {
	select {
	case w.corrupt <- digest:
	default: // many at once: the disk is dying, and the log says so already
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
	backoff := retry.Backoff{Initial: 500 * time.Millisecond, Max: 10 * time.Second}
	for err := w.begin(ctx); err != nil; err = w.begin(ctx) {
		if ctx.Err() == nil {
			w.daemon.log.Warn("the container runtime does not work yet, will try again", zap.Error(err))
		}
		if retry.Sleep(ctx, backoff.Next()) != nil {
			return nil
		}
	}
	w.changed.notify()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { w.followAgent(ctx) })
	group.Go(func() { w.tendImages(ctx) })
	return w.agent.Run(ctx)
}

// begin learns what is here.
func (w *worker) begin(ctx context.Context) error {
	info, err := w.runtime.Info(ctx)
	if err != nil {
		return err
	}
	if err := w.images.load(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runtimeVersion, w.loaded = info.Name+" "+info.Version, true
	return nil
}

// settled reports whether this node knows all that it has. Before that, what a
// report does not list may be there all the same.
func (w *worker) settled() bool {
	w.mu.Lock()
	loaded := w.loaded
	w.mu.Unlock()
	return loaded && w.agent.Settled()
}

// followAgent passes on what the agent says: to the anchors with the next
// report, and to the service network, which knows local replicas at once.
func (w *worker) followAgent(ctx context.Context) {
	for {
		_, changed := w.agent.Reports()
		w.changed.notify()
		w.daemon.setTable()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// reviewEvery is how often images are looked at that the cluster may have
// forgotten.
const reviewEvery = time.Minute

// tendImages drops images that are forgotten or damaged.
func (w *worker) tendImages(ctx context.Context) {
	tick := time.NewTicker(reviewEvery)
	defer tick.Stop()
	for {
		v, known, changed := w.daemon.views.watch()
		used := w.usedImages(v)
		if known {
			w.images.review(ctx, v, used, time.Now())
		}
		select {
		case <-changed:
		case <-tick.C:
		case digest := <-w.corrupt:
			w.images.distrust(ctx, digest, used)
		case <-ctx.Done():
			return
		}
	}
}

// usedImages are those of the replicas that are assigned to this node.
func (w *worker) usedImages(v api.ClusterView) map[string]bool {
	used := make(map[string]bool)
	for _, r := range v.Replicas {
		if r.Node != w.daemon.self {
			continue
		}
		if ref, err := api.NormaliseImageRef(r.Spec.Image); err == nil {
			used[ref] = true
		}
	}
	return used
}

// apply makes the worker act on a view. One that takes this node for dead was
// made without its word: what is assigned to it will be known when it has
// reported, and until then it stops nothing.
func (w *worker) apply(v api.ClusterView) {
	if self, ok := nodeOf(&v, w.daemon.self); ok && self.State == api.NodeDown {
		return
	}
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
