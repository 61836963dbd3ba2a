package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/sched"
)

// office is a node's place among the anchors. It is vacant on ordinary nodes.
// The cluster appoints and dismisses while the daemon runs; whoever asks gets
// the anchor of the moment.
//
// Whatever happens to the anchor ends a term and never the daemon: its disk may
// be full or its log damaged, and containers, names and connections go on. The
// office is closed then, says why, and is opened again when that works.
type office struct {
	daemon    *daemon
	scheduler *sched.Loop // one for all terms
	watcher   *watcher    // likewise: a new term knows who was silent before it
	metrics   officeMetrics

	mu     sync.Mutex
	anchor *anchor // nil while vacant or closed
	store  *state.Store
	fault  fault

	viewMu sync.Mutex
	view   api.ClusterView // the last one that an anchor sent to this daemon
	heard  bool
	fresh  chan struct{} // closed when another one comes
}

const (
	// dismissedFor is how long the cluster must say that this node is no anchor
	// before it wipes its log: an old leader may say so that does not know yet
	// of the appointment.
	dismissedFor = 3 * time.Second
	enlistWithin = 30 * time.Second
	// steady is how long a term must last for the next failure to be a new one.
	steady = time.Minute
)

func newOffice(d *daemon) (*office, error) {
	o := &office{daemon: d, watcher: newWatcher(d.cfg.Liveness), store: state.New(), fresh: make(chan struct{})}
	o.metrics = newOfficeMetrics(o)
	o.metrics.register(d.registry)
	var err error
	o.scheduler, err = sched.New(sched.Config{Source: scheduleSource{o}, Log: d.log.Named("sched"), Metrics: d.registry})
	return o, err
}

// current returns the anchor, nil when this node is none.
func (o *office) current() *anchor {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.anchor
}

func (o *office) take(a *anchor) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.anchor = a
	if a != nil {
		o.store = a.raft.Store()
		a.recovered = o.fault.problem()
		o.fault.cleared()
	}
}

// consider takes note of what an anchor says of this node.
func (o *office) consider(v api.ClusterView) {
	o.viewMu.Lock()
	defer o.viewMu.Unlock()
	o.view, o.heard = v, true
	close(o.fresh)
	o.fresh = make(chan struct{})
}

func (o *office) word() (v api.ClusterView, heard bool, fresh <-chan struct{}) {
	o.viewMu.Lock()
	defer o.viewMu.Unlock()
	return o.view, o.heard, o.fresh
}

// run serves one term after another until ctx ends, even before it began: the
// log that was opened for a term that will not be served is closed, too.
func (o *office) run(ctx context.Context) (err error) {
	defer func() {
		if a := o.current(); a != nil {
			if cerr := a.raft.Close(); err == nil {
				err = cerr
			}
		}
	}()
	backoff := retry.Backoff{Initial: time.Second, Max: time.Minute}
	for ctx.Err() == nil {
		if a := o.current(); a != nil {
			began := time.Now()
			end, err := o.serveTerm(ctx, a)
			if ctx.Err() != nil {
				return err
			}
			if time.Since(began) > steady {
				backoff.Reset()
			}
			o.conclude(ctx, a, end, err)
			continue
		}
		if o.closed() {
			o.reopen(ctx, &backoff)
			continue
		}
		v, ok := o.awaitAppointment(ctx)
		if !ok {
			return nil
		}
		if err := o.enlist(ctx, v); err != nil && ctx.Err() == nil {
			wait := backoff.Next()
			o.daemon.log.Warn("this node is to be an anchor and could not become one yet", zap.Error(err), zap.Duration("retry_in", wait))
			_ = retry.Sleep(ctx, wait) // only ends early with ctx
		}
	}
	return nil
}

// ending is why a term was over.
type ending int

const (
	stopped   ending = iota // by ctx, or by an error
	dismissed               // the cluster does without this anchor
	retimed                 // the anchors are nearer or farther than they were
)

// serveTerm runs the anchor until ctx ends, it fails, or the term is over. The
// log is closed when it returns.
func (o *office) serveTerm(ctx context.Context, a *anchor) (end ending, err error) {
	ctx, over := context.WithCancel(ctx)
	defer over()
	o.daemon.mesh.ServeEnrol(o.invited, o.enrol)
	defer o.daemon.mesh.StopEnrol()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.raft.Run(ctx) })
	group.Go(func() error { return a.listen(ctx) })
	group.Go(func() error { return a.watchLeader(ctx) })
	group.Go(func() error { return a.raft.Lead(ctx, a.lead) })
	group.Go(func() error { return a.watchDisk(ctx) })
	var mu sync.Mutex
	ends := func(why ending, happens bool) error {
		mu.Lock()
		defer mu.Unlock()
		if happens && end == stopped {
			end = why
			over()
		}
		return nil
	}
	group.Go(func() error { return ends(dismissed, o.awaitDismissal(ctx, a.epoch, a.raft.Applied)) })
	group.Go(func() error { return ends(retimed, a.awaitRetiming(ctx)) })
	err = group.Wait()
	if end != stopped && errors.Is(err, context.Canceled) {
		err = nil
	}
	return end, err
}

// conclude does what follows from the end of a term.
func (o *office) conclude(ctx context.Context, a *anchor, end ending, err error) {
	switch {
	case end == dismissed:
		o.leave(ctx)
	case end == retimed && err == nil:
		o.take(nil)
		if err := o.open(ctx); err != nil {
			o.close(a, err)
		}
	case err == nil:
		err = errors.New("its work ended without a reason")
		fallthrough
	default:
		o.close(a, err)
	}
}

// awaitAppointment returns when an anchor says that this node is to be one.
func (o *office) awaitAppointment(ctx context.Context) (api.ClusterView, bool) {
	for {
		v, heard, fresh := o.word()
		if self, ok := nodeOf(&v, o.daemon.self); heard && ok && self.HoldsState() {
			return v, true
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return v, false
		}
	}
}

// awaitDismissal returns true when this node, which was an anchor in an epoch
// and had applied the log so far, is none any more.
func (o *office) awaitDismissal(ctx context.Context, epoch uint64, applied func() uint64) bool {
	var since time.Time
	look := time.NewTicker(dismissedFor / 4)
	defer look.Stop()
	for {
		v, heard, fresh := o.word()
		self, known := nodeOf(&v, o.daemon.self)
		switch {
		case !heard || !known:
		case v.Cluster.Epoch > epoch:
			return true // a backup was restored: this log is of the past
		case self.HoldsState() || v.Index < applied():
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= dismissedFor:
			return true
		}
		select {
		case <-fresh:
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
}

// changeMembership changes the membership, in memory once it is on disk.
func (d *daemon) changeMembership(change func(*membership)) error {
	d.memberMu.Lock()
	defer d.memberMu.Unlock()
	m := *d.member
	change(&m)
	if err := d.dir.saveJSON(membershipFile, &m); err != nil {
		return err
	}
	change(d.member) // these fields alone: others are read without the lock
	return nil
}

// epoch is the highest one that this node has seen.
func (d *daemon) epoch() uint64 {
	d.memberMu.Lock()
	defer d.memberMu.Unlock()
	return d.member.Epoch
}
