package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/sched"
	"github.com/cloudless-project/cloudless/security/identity"
)

// office is a node's place among the anchors. It is vacant on ordinary nodes.
// The cluster appoints and dismisses while the daemon runs; whoever asks gets
// the anchor of the moment.
type office struct {
	daemon    *daemon
	scheduler *sched.Loop // one for all terms

	mu     sync.Mutex
	anchor *anchor // nil while vacant
	store  *state.Store

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
)

func newOffice(d *daemon) (*office, error) {
	o := &office{daemon: d, store: state.New(), fresh: make(chan struct{})}
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

// run serves one term after another until ctx ends.
func (o *office) run(ctx context.Context) error {
	backoff := retry.Backoff{Initial: time.Second, Max: time.Minute}
	for {
		if a := o.current(); a != nil {
			dismissed, err := o.serveTerm(ctx, a)
			if err != nil || !dismissed {
				return err
			}
			o.leave(ctx)
		}
		v, ok := o.awaitAppointment(ctx)
		if !ok {
			return nil
		}
		if err := o.enlist(ctx, v); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			wait := backoff.Next()
			o.daemon.log.Warn("this node is to be an anchor and could not become one yet", zap.Error(err), zap.Duration("retry_in", wait))
			if retry.Sleep(ctx, wait) != nil {
				return nil
			}
			continue
		}
		backoff.Reset()
	}
}

// serveTerm runs the anchor until ctx ends or the cluster dismisses it.
func (o *office) serveTerm(ctx context.Context, a *anchor) (dismissed bool, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	o.daemon.mesh.ServeEnrol(o.enrol)
	defer o.daemon.mesh.StopEnrol()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.raft.Run(ctx) })
	group.Go(func() error { return a.listen(ctx) })
	group.Go(func() error { return a.watchLeader(ctx) })
	group.Go(func() error { return a.raft.Lead(ctx, a.lead) })
	group.Go(func() error {
		if o.awaitDismissal(ctx, a) {
			dismissed = true
			end()
		}
		return nil
	})
	err = group.Wait()
	if dismissed && errors.Is(err, context.Canceled) {
		err = nil
	}
	return dismissed, err
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

// awaitDismissal returns true when this node is no anchor any more.
func (o *office) awaitDismissal(ctx context.Context, a *anchor) bool {
	var since time.Time
	look := time.NewTicker(dismissedFor / 4)
	defer look.Stop()
	for {
		v, heard, fresh := o.word()
		self, known := nodeOf(&v, o.daemon.self)
		switch {
		case !heard || !known:
		case v.Cluster.Epoch > a.epoch:
			return true // a backup was restored: this log is of the past
		case self.HoldsState() || v.Index < a.raft.Applied():
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

// enlist makes this node an anchor: it gets the role, then the authority, and
// then the log. What fails is begun anew.
func (o *office) enlist(ctx context.Context, v api.ClusterView) error {
	ctx, cancel := context.WithTimeout(ctx, enlistWithin)
	defer cancel()
	d := o.daemon
	if err := d.renew(ctx); err != nil {
		return fmt.Errorf("get the role: %w", err)
	}
	if member := d.admission.self(); !member.Has(api.RoleAnchor) {
		return api.Errorf(api.KindConflict, "the new certificate does not have the role of an anchor")
	}
	authority, epoch, err := o.fetchAuthority(ctx, v.Leader)
	if err != nil {
		return fmt.Errorf("get the authority: %w", err)
	}
	if err := o.wipe(); err != nil {
		return err
	}
	if err := sealAuthority(d.dir, authority); err != nil {
		return err
	}
	if err := d.changeMembership(func(m *membership) { m.Anchor, m.Founded, m.Epoch = true, false, epoch }); err != nil {
		return err
	}
	a, err := o.open(authority, epoch, false)
	if err != nil {
		return err
	}
	d.log.Info("this node is an anchor now", zap.Uint64("epoch", epoch))
	o.take(a)
	return nil
}

func (o *office) fetchAuthority(ctx context.Context, leader api.NodeID) (*identity.Authority, uint64, error) {
	key, public, err := identity.NewGrantKey()
	if err != nil {
		return nil, 0, err
	}
	conn, err := o.daemon.server.Conn(leader)
	if err != nil {
		return nil, 0, err
	}
	reply, err := pb.NewAnchorServiceClient(conn).FetchAuthority(ctx, &pb.FetchAuthorityRequest{Key: public})
	if err != nil {
		return nil, 0, wire.ErrorFromStatus(err)
	}
	authority, err := key.Open(reply.GetSealed(), o.daemon.member.Cluster, o.daemon.self)
	return authority, reply.GetEpoch(), err
}

// leave ends a term: the log and the authority are wiped, the role is given
// back.
func (o *office) leave(ctx context.Context) {
	d := o.daemon
	o.take(nil)
	d.admission.setAnchor(false)
	if err := d.changeMembership(func(m *membership) { m.Anchor, m.Founded = false, false }); err != nil {
		d.log.Error("could not note that this node is no anchor any more", zap.Error(err))
	}
	if err := o.wipe(); err != nil {
		d.log.Error("could not wipe what an anchor has", zap.Error(err))
	}
	d.log.Info("this node is no anchor any more")
	if err := d.renew(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("the certificate keeps the role of an anchor until it is renewed", zap.Error(err))
	}
}

// wipe removes what only anchors have.
func (o *office) wipe() error {
	for _, name := range []string{raftDir, authorityDir} {
		if err := o.daemon.dir.RemoveAll(name); err != nil {
			return fmt.Errorf("wipe %s: %w", name, err)
		}
	}
	return nil
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
