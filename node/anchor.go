package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/node/control"
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
	authority *identity.Authority
	scheduler *sched.Loop
	watcher   *watcher
}

func (d *daemon) buildAnchor() error {
	if !d.member.Anchor {
		return nil
	}
	if err := d.checkRaftLog(); err != nil {
		return err
	}
	authority, err := openAuthority(d.dir)
	if err != nil {
		return err
	}
	listener, err := d.mesh.Listen(api.ProtoRaft, api.RoleAnchor)
	if err != nil {
		return err
	}
	raft, err := raftmeta.Open(raftmeta.Config{
		Dir:       d.dir.join(raftDir),
		ID:        d.self,
		Streams:   raftStreams{listener, d.mesh},
		Bootstrap: !d.member.Founded && len(d.member.Contacts) == 0,
		Log:       d.log.Named("raft"),
		Metrics:   d.registry,
	})
	if err != nil {
		listener.Close()
		return err
	}
	d.parts.owner("raft", raft.Run)
	if err := d.noteFounded(); err != nil {
		return err
	}
	a := &anchor{daemon: d, raft: raft, authority: authority, watcher: newWatcher()}
	d.anchor = a
	a.scheduler, err = sched.New(sched.Config{Source: scheduleSource{raft}, Log: d.log.Named("sched"), Metrics: d.registry})
	if err != nil {
		return err
	}
	e := &enroller{
		cluster: d.member.Cluster, name: d.member.Name, authority: authority, anchor: raft,
		contacts: a.contacts, log: d.log.Named("enrol"),
	}
	d.mesh.ServeEnrol(e.enrol)
	d.parts.loop("listen to heartbeats", a.listen)
	d.parts.loop("lead", func(ctx context.Context) error { return raft.Lead(ctx, a.lead) })
	return nil
}

// checkRaftLog refuses to begin the cluster's state anew under its old name:
// the nodes would go on with a cluster that has forgotten them.
func (d *daemon) checkRaftLog() error {
	entries, err := fs.ReadDir(d.dir.FS(), raftDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the Raft log: %w", err)
	}
	if d.member.Founded && len(entries) == 0 {
		return api.Errorf(api.KindInternal, "the state of cluster %s is gone: %s is empty", d.member.Name, d.dir.join(raftDir)).
			WithHint("restore the directory from a backup; or empty the data directory to found another cluster")
	}
	return nil
}

// noteFounded remembers that there is a Raft log.
func (d *daemon) noteFounded() error {
	d.memberMu.Lock()
	defer d.memberMu.Unlock()
	if d.member.Founded {
		return nil
	}
	d.member.Founded = true
	return d.dir.saveJSON(membershipFile, d.member)
}

// serve gives the API what only an anchor has.
func (a *anchor) serve(cfg *control.Config) {
	cfg.Anchor = a.raft
	cfg.LastSeen = a.watcher.lastSeen
	cfg.Heard = func(id api.NodeID) { a.watcher.heard(id) }
	cfg.Invite = a.invite
	cfg.Issue = func(csr []byte, to api.Member) ([]byte, error) {
		if id, err := identity.CSRNode(csr); err != nil || id != to.ID {
			return nil, api.Errorf(api.KindDenied, "the certificate request is not by the key of %s", to.ID)
		}
		cert, _, err := a.authority.Issue(csr, to.Roles, to.Operator, time.Now(), certificateTTL)
		return cert, err
	}
	cfg.Explain = func(v state.View, target string) (api.Explanation, error) {
		return explain(v, target, time.Now())
	}
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
func (a *anchor) lead(ctx context.Context) error {
	if err := a.ensureFounded(ctx); err != nil {
		return err
	}
	if _, err := a.raft.Propose(ctx, state.RecordEvent{Event: api.Event{
		Time: time.Now(), Code: api.CodeLeaderElected, Reason: "Elected", Node: a.daemon.self,
		Object:  api.Object{Kind: "node", Name: a.daemon.cfg.Name},
		Message: fmt.Sprintf("%s leads the cluster", a.daemon.cfg.Name),
	}}); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.scheduler.Run(ctx) })
	group.Go(func() error { return a.watchLiveness(ctx) })
	return group.Wait()
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
		state.SetVoter{ID: d.self, Voter: true},
	)
	if err == nil {
		d.log.Info("founded the cluster", zap.String("cluster", d.member.Name), zap.String("id", d.member.Cluster))
	}
	return err
}
