// Package agent makes assignments real: it brings images, starts containers,
// probes and restarts them, and says how they are.
//
// It acts on the last set of assignments it was given and never asks an anchor,
// so everything goes on while all of them are away. Containers outlive it: a
// new agent adopts what runs.
package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// Images brings images to this node.
type Images interface {
	// Ensure returns when ref can be run. It may take as long as a download.
	Ensure(ctx context.Context, ref string) error
}

// Network connects containers.
type Network interface {
	// Attach gives the replica a network namespace; again and again the same.
	Attach(ctx context.Context, id string) (Attachment, error)
	// Detach takes it back; nil when there is none.
	Detach(ctx context.Context, id string) error
	// Sweep takes back those of every id that is not kept.
	Sweep(ctx context.Context, keep []string) error
}

// Attachment is a replica's place in the network.
type Attachment struct {
	NetNS      string // path of the namespace
	IP         string
	ResolvConf string // path of the resolv.conf to mount, "" for none
}

// Config wires an Agent.
type Config struct {
	Node    api.NodeID
	Runtime container.Runtime
	Images  Images
	Network Network
	Log     *zap.Logger
	Metrics prometheus.Registerer

	// Confirmed returns as of when an anchor last confirmed that a replica which
	// must not run twice is this node's to run; zero: not since its daemon started.
	Confirmed func(api.ReplicaID) time.Time
}

// stopGrace is how long a process may take to end when asked.
const stopGrace = 10 * time.Second

// Agent runs the replicas that are assigned to this node.
type Agent struct {
	cfg     Config
	metrics *metrics

	mu       sync.Mutex
	assigned map[api.ReplicaID]api.Replica // nil until the first Assign
	workers  map[api.ReplicaID]*worker
	reports  map[api.ReplicaID]api.ReplicaReport
	changed  chan struct{} // closed when reports change
	wake     chan struct{} // assignments changed
	begun    bool          // the first assignments have their workers
	settled  bool          // what an earlier daemon left has been looked at
}

// New returns an agent that does nothing until Run and Assign.
func New(cfg Config) *Agent {
	return &Agent{
		cfg:     cfg,
		metrics: newMetrics(cfg.Metrics),
		workers: make(map[api.ReplicaID]*worker),
		reports: make(map[api.ReplicaID]api.ReplicaReport),
		changed: make(chan struct{}),
		wake:    make(chan struct{}, 1),
	}
}

// Assign replaces the set of replicas that this node should have. What it does
// not list is stopped and removed.
func (a *Agent) Assign(replicas []api.Replica) {
	set := make(map[api.ReplicaID]api.Replica, len(replicas))
	for _, r := range replicas {
		set[r.ID] = r
	}
	a.mu.Lock()
	a.assigned = set
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Reports returns what is known of every replica here and a channel that is
// closed when that changes.
func (a *Agent) Reports() ([]api.ReplicaReport, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := slices.SortedFunc(maps.Values(a.reports), func(x, y api.ReplicaReport) int {
		if x.ID < y.ID {
			return -1
		}
		return 1
	})
	return out, a.changed
}

// Settled reports whether the agent has looked at what an earlier daemon left.
// Before that, replicas may run that Reports does not list.
func (a *Agent) Settled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settled
}

// settle notes when every worker of the first assignments has reported or
// ended; the lock is held.
func (a *Agent) settle() {
	if a.settled || !a.begun {
		return
	}
	for id := range a.workers {
		if _, reported := a.reports[id]; !reported {
			return
		}
	}
	a.settled = true
	a.tell()
}

// tell wakes those who wait for reports; the lock is held.
func (a *Agent) tell() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// Local returns the address of every replica whose process is there.
func (a *Agent) Local() map[api.ReplicaID]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[api.ReplicaID]string, len(a.reports))
	for id, r := range a.reports {
		if r.State.Active() && r.Address != "" {
			out[id] = r.Address
		}
	}
	return out
}

// Run works until ctx ends and leaves the containers running.
func (a *Agent) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { a.dispatchExits(ctx) })
	swept := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
		a.reconcile(ctx, &group)
		if !swept {
			swept = a.sweep(ctx, &group)
		}
	}
}

// reconcile starts a worker for each new replica and tells the others what is
// wanted of them now.
func (a *Agent) reconcile(ctx context.Context, group *sync.WaitGroup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, r := range a.assigned {
		w := a.workers[id]
		if w == nil {
			if r.State.Terminal() || a.reports[id].State.Terminal() {
				continue // it came to its end; the anchors decide what follows
			}
			w = newWorker(a, r)
			a.workers[id] = w
			w.want(r.Desired) // before it begins, or it might start what is to end
			group.Go(func() { w.run(ctx) })
		}
		w.want(r.Desired)
	}
	for id, w := range a.workers {
		if _, ok := a.assigned[id]; !ok {
			w.stop()
		}
	}
	// A report is kept until the anchors do not speak of the replica any more.
	for id := range a.reports {
		_, wanted := a.assigned[id]
		_, busy := a.workers[id]
		if !wanted && !busy {
			delete(a.reports, id)
		}
	}
	a.begun = true
	a.settle()
}

// sweep removes, once after a start, what an earlier daemon left: containers
// and namespaces of replicas that are not assigned here any more.
// It does not wait for what must be asked to stop first.
func (a *Agent) sweep(ctx context.Context, group *sync.WaitGroup) bool {
	list, err := a.cfg.Runtime.List(ctx)
	if err != nil {
		a.cfg.Log.Warn("listing containers failed, will try again", zap.Error(err))
		return false
	}
	a.mu.Lock()
	keep := make([]string, 0, len(a.workers))
	for id := range a.workers {
		keep = append(keep, string(id))
	}
	a.mu.Unlock()
	var leftovers []string
	for _, c := range list {
		if !slices.Contains(keep, c.ID) {
			leftovers = append(leftovers, c.ID)
		}
	}
	// Before anything new is attached, which would not be among those to keep.
	if err := a.cfg.Network.Sweep(ctx, append(keep, leftovers...)); err != nil {
		a.cfg.Log.Warn("sweeping network namespaces failed", zap.Error(err))
	}
	for _, id := range leftovers {
		group.Go(func() {
			a.cfg.Log.Info("removing a container that is not assigned here", zap.String("replica", id))
			if err := a.discard(ctx, id); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("removing a leftover failed", zap.String("replica", id), zap.Error(err))
			}
		})
	}
	return true
}

// discard stops and removes whatever exists under an ID.
func (a *Agent) discard(ctx context.Context, id string) error {
	if err := a.cfg.Runtime.Stop(ctx, id, stopGrace); err != nil && api.KindOf(err) != api.KindNotFound {
		return err
	}
	if err := a.cfg.Runtime.Remove(ctx, id); err != nil {
		return err
	}
	return a.cfg.Network.Detach(ctx, id)
}

// dispatchExits hands every exit to the worker it belongs to.
func (a *Agent) dispatchExits(ctx context.Context) {
	for exit := range a.cfg.Runtime.Exits(ctx) {
		a.mu.Lock()
		w := a.workers[api.ReplicaID(exit.ID)]
		a.mu.Unlock()
		if w != nil {
			w.exited(exit)
		}
	}
}

// report publishes a worker's word.
func (a *Agent) report(r api.ReplicaReport) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reports[r.ID] == r {
		return
	}
	a.reports[r.ID] = r
	a.tell()
	a.settle()
}

// done forgets a worker that ended. Its last report stays until the next
// assignment, so that the anchors hear of it.
func (a *Agent) done(id api.ReplicaID) {
	a.mu.Lock()
	delete(a.workers, id)
	_, wanted := a.assigned[id]
	if !wanted {
		delete(a.reports, id)
	}
	a.settle()
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}
