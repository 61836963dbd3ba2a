package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/sched"
	"github.com/cloudless-project/cloudless/security/identity"
)

// raftDir holds the Raft log and its snapshots, on anchors.
const raftDir = "raft"

// anchor is what a node has that holds the authoritative state: the Raft log,
// the authority that issues certificates, and, while it leads, the loops that
// decide.
type anchor struct {
	daemon    *daemon
	raft      *raftmeta.Anchor
	keys      *keyring
	epoch     uint64
	scheduler *sched.Loop
	watcher   *watcher
	timing    raftmeta.Timing
	recovered string // what had halted it before, "" for nothing
	roster    roster
}

// buildOffice opens the anchor that this node was, if it was one.
func (d *daemon) buildOffice() error {
	var err error
	if d.office, err = newOffice(d); err != nil {
		return err
	}
	d.parts.owner("anchor", d.office.run)
	if !d.member.Anchor {
		return d.office.wipe(anchorDirs...) // what a crash may have left behind
	}
	err = d.checkRaftLog()
	if err == nil {
		authority, aerr := openAuthority(d.dir)
		if aerr != nil {
			return aerr
		}
		err = d.office.openWith(authority, d.member.Epoch, !d.member.Founded && len(d.member.Contacts) == 0)
	}
	if err != nil && !d.onlyAnchor() {
		d.office.close(nil, err) // the others decide meanwhile, and help it back
		return nil
	}
	return err
}

// openWith opens the Raft log; bootstrap begins the cluster's first one.
func (o *office) openWith(authority *identity.Authority, epoch uint64, bootstrap bool) error {
	d := o.daemon
	a := &anchor{
		daemon: d, keys: newKeyring(d.dir, authority), epoch: epoch, scheduler: o.scheduler, watcher: o.watcher, timing: d.raftTiming(),
	}
	if err := a.open(bootstrap); err != nil {
		return err
	}
	d.admission.setAnchor(true)
	o.take(a)
	return nil
}

func (a *anchor) open(bootstrap bool) error {
	d := a.daemon
	listener, err := d.mesh.Listen(api.ProtoRaft, api.RoleNode)
	if err != nil {
		return err
	}
	a.raft, err = raftmeta.Open(raftmeta.Config{
		Dir:       d.dir.join(raftDir),
		ID:        d.self,
		Streams:   raftStreams{listener, d.mesh, a.epoch, a.admits},
		Bootstrap: bootstrap,
		Timing:    a.timing,
		Log:       d.log.Named("raft"),
		Metrics:   d.registry,
	})
	if err != nil {
		listener.Close()
		return err
	}
	if err := d.noteFounded(); err != nil {
		return errors.Join(err, a.raft.Close())
	}
	return nil
}

// admits reports whether a member may take part in the Raft group: its
// certificate says so or, before that has got around, the state does.
func (a *anchor) admits(m api.Member) bool {
	if m.Has(api.RoleAnchor) {
		return true
	}
	if a.raft == nil {
		return false // not open yet
	}
	n, ok := a.raft.Store().View().Node(m.ID)
	return ok && n.HoldsState()
}

func (a *anchor) enroller() *enroller {
	d := a.daemon
	return &enroller{
		cluster: d.member.Cluster, name: d.member.Name, ca: d.member.CA, issue: a.certify, anchor: a.raft,
		contacts: a.contacts, log: d.log.Named("enrol"),
	}
}

// noteFounded remembers that there is a Raft log.
func (d *daemon) noteFounded() error {
	if d.member.Founded {
		return nil
	}
	return d.changeMembership(func(m *membership) { m.Founded = true })
}

// contacts lists the anchors for someone who knows none.
func (a *anchor) contacts() []p2p.Contact {
	self := p2p.Contact{ID: a.daemon.self, Addresses: a.daemon.mesh.Addrs(), Relay: true, Anchor: true}
	out := []p2p.Contact{self}
	for _, c := range a.daemon.contacts(a.daemon.views.current()) {
		if c.Anchor {
			out = append(out, c)
		}
	}
	return out
}

// lead is what the leading anchor does, until ctx ends with its leadership.
// Losing it fails whatever is under way a moment before ctx ends; that is no
// fault of this daemon.
func (a *anchor) lead(ctx context.Context) error {
	for {
		err := a.decide(ctx)
		if ctx.Err() != nil || api.KindOf(err) != api.KindUnavailable {
			return err
		}
		a.daemon.log.Info("leading was interrupted", zap.Error(err))
		if retry.Sleep(ctx, 100*time.Millisecond) != nil {
			return nil
		}
	}
}

func (a *anchor) decide(ctx context.Context) error {
	if err := a.ensureFounded(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.announce(ctx) }) // first of all: every node waits for it
	group.Go(func() error { return a.recordElection(ctx) })
	group.Go(func() error { return a.scheduler.Run(ctx) })
	group.Go(func() error { return a.keepAuthority(ctx) })
	group.Go(func() error { return a.recordTwins(ctx) })
	group.Go(func() error { return a.watchLiveness(ctx) })
	group.Go(func() error { return a.keepAnchors(ctx) })
	group.Go(func() error { return a.keepSnapshots(ctx) })
	return group.Wait()
}

func (a *anchor) recordElection(ctx context.Context) error {
	if a.recovered != "" {
		self, _ := a.raft.Store().View().Node(a.daemon.self)
		a.noteHalt(ctx, self, "", a.recovered)
		a.noteHalt(ctx, self, a.recovered, "")
		a.recovered = ""
	}
	_, err := a.raft.Propose(ctx, state.RecordEvent{Event: api.Event{
		Time: time.Now(), Code: api.CodeLeaderElected, Reason: "Elected", Node: a.daemon.self,
		Object:  api.Object{Kind: "node", Name: a.daemon.cfg.Name},
		Message: fmt.Sprintf("%s leads the cluster", a.daemon.cfg.Name),
	}})
	return err
}

// ensureFounded writes the cluster's first records: the cluster, and this node
// as its first member and anchor.
func (a *anchor) ensureFounded(ctx context.Context) error {
	if _, ok := a.raft.Store().View().Cluster(); ok {
		return nil
	}
	d := a.daemon
	now := time.Now()
	_, err := a.raft.Propose(ctx,
		state.CreateCluster{Cluster: api.Cluster{ID: d.member.Cluster, Name: d.member.Name, CA: d.member.CA, CreatedAt: now}},
		state.EnrolNode{ID: d.self, Name: d.cfg.Name, Serial: d.admission.self().Serial, Now: now},
		state.SetAnchor{ID: d.self, Anchor: true, Reason: "it founded the cluster", Now: now},
		state.SetVoter{ID: d.self, Voter: true},
	)
	if err == nil {
		d.log.Info("founded the cluster", zap.String("cluster", d.member.Name), zap.String("id", d.member.Cluster))
	}
	return err
}
