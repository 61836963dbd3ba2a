package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta"
	"github.com/cloudless-project/cloudless/raftmeta/anchors"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

const (
	planAnchorsEvery = time.Second     // while anchors come and go
	restAnchorsEvery = 5 * time.Second // while all is well
	progressTimeout  = time.Second
	stepTimeout      = 15 * time.Second
)

// roster is what the leader knows of the other anchors' logs.
type roster struct {
	mu    sync.Mutex
	known map[api.NodeID]reported
}

type reported struct {
	api.AnchorProgress
	behind  uint64 // the leader, as it was when it asked
	at      time.Time
	stopped time.Time // since when its part does not run, zero while it does
}

// put notes what an anchor says and returns what it said before.
func (r *roster) put(id api.NodeID, p reported) (old reported) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = make(map[api.NodeID]reported)
	}
	old = r.known[id]
	if !p.Running {
		p.stopped = p.at
		if !old.stopped.IsZero() {
			p.stopped = old.stopped
		}
	}
	r.known[id] = p
	return old
}

func (r *roster) get(id api.NodeID) (reported, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.known[id]
	return p, ok
}

// keepAnchors makes the anchors what they should be, while this one leads.
func (a *anchor) keepAnchors(ctx context.Context) error {
	var asked time.Time
	tick := time.NewTicker(planAnchorsEvery)
	defer tick.Stop()
	busy := true
	for {
		if busy || time.Since(asked) >= restAnchorsEvery {
			asked = time.Now()
			a.askAnchors(ctx)
		}
		busy = a.carryOut(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// askAnchors asks every other anchor how far it is.
func (a *anchor) askAnchors(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, progressTimeout)
	defer cancel()
	var group sync.WaitGroup
	for _, n := range a.raft.Store().View().Nodes() {
		if n.ID == a.daemon.self || !n.HoldsState() {
			continue
		}
		group.Go(func() {
			conn, err := a.daemon.server.Conn(n.ID)
			if err != nil {
				return
			}
			applied := a.raft.Applied()
			reply, err := pb.NewAnchorServiceClient(conn).GetProgress(ctx, &pb.GetProgressRequest{})
			if err == nil {
				p := wire.AnchorProgressFromPB(reply)
				before := a.roster.put(n.ID, reported{AnchorProgress: p, behind: behind(applied, p.Applied), at: time.Now()})
				a.noteHalt(ctx, n, before.Problem, p.Problem)
			}
		})
	}
	group.Wait()
}

// noteHalt tells of an anchor whose part has ended although its node is well,
// and of its return.
func (a *anchor) noteHalt(ctx context.Context, n api.Node, before, now string) {
	if (before == "") == (now == "") {
		return
	}
	e := api.Event{
		Time: time.Now(), Code: api.CodeAnchorResumed, Reason: "AnchorResumed", Node: n.ID,
		Object: api.Object{Kind: "node", Name: n.Inventory.Name}, Message: n.Inventory.Name + " takes part among the anchors again",
	}
	if now != "" {
		e.Code, e.Reason = api.CodeAnchorHalted, "AnchorHalted"
		e.Message = fmt.Sprintf("the part of %s among the anchors has ended, the node goes on: %s", n.Inventory.Name, now)
	}
	if _, err := a.raft.Propose(ctx, state.RecordEvent{Event: e}); err != nil && ctx.Err() == nil {
		a.daemon.log.Warn("an event was not recorded", zap.String("peer", string(n.ID)), zap.Error(err))
	}
}

// carryOut does what the plan says. It reports whether more is to come soon.
func (a *anchor) carryOut(ctx context.Context) (busy bool) {
	servers, err := a.raft.Servers()
	if err != nil {
		return true
	}
	in := anchors.Input{
		Self: a.daemon.self, Nodes: a.raft.Store().View().Nodes(), Now: time.Now(),
		Progress: make(map[api.NodeID]anchors.Progress),
	}
	for _, s := range servers {
		in.Servers = append(in.Servers, anchors.Server{ID: s.ID, Voter: s.Voter})
	}
	for _, n := range in.Nodes {
		if p, ok := a.roster.get(n.ID); ok {
			running := p.Running && p.Epoch == a.epoch
			in.Progress[n.ID] = anchors.Progress{Running: running, Stopped: p.stopped, Lost: p.Lost, Behind: p.behind, At: p.at}
			busy = busy || n.HoldsState() && !running
		}
		busy = busy || n.Anchor && !n.Voter && n.ID != a.daemon.self && !slices.ContainsFunc(servers, isServer(n.ID))
	}
	for _, step := range a.daemon.cfg.Anchors.Plan(in) {
		log := a.daemon.log.With(zap.String("peer", string(step.Node)), zap.String("step", string(step.Kind)), zap.String("reason", step.Reason))
		if err := a.do(ctx, step); err != nil {
			if ctx.Err() == nil {
				log.Warn("a step to change the anchors failed", zap.Error(err))
			}
			return true
		}
		log.Info("changed the anchors")
		busy = true
	}
	return busy
}

func isServer(id api.NodeID) func(raftmeta.Server) bool {
	return func(s raftmeta.Server) bool { return s.ID == id }
}

func behind(leader, follower uint64) uint64 {
	if follower >= leader {
		return 0
	}
	return leader - follower
}

func (a *anchor) do(ctx context.Context, s anchors.Step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	record := func(cmd state.Command) error {
		_, err := a.raft.Propose(ctx, cmd)
		return err
	}
	now := time.Now()
	switch s.Kind {
	case anchors.Appoint:
		return record(state.SetAnchor{ID: s.Node, Anchor: true, Reason: s.Reason, Now: now})
	case anchors.Dismiss:
		return record(state.SetAnchor{ID: s.Node, Anchor: false, Reason: s.Reason, Now: now})
	case anchors.Record:
		return record(state.SetVoter{ID: s.Node, Voter: s.Voter, Now: now})
	case anchors.Follow:
		return a.raft.AddNonvoter(ctx, s.Node)
	case anchors.Vote:
		if err := a.raft.AddVoter(ctx, s.Node); err != nil {
			return err
		}
		return record(state.SetVoter{ID: s.Node, Voter: true, Now: now})
	case anchors.Demote:
		return a.raft.Demote(ctx, s.Node)
	case anchors.Expel:
		return a.raft.RemoveServer(ctx, s.Node)
	case anchors.Transfer:
		return a.raft.Transfer(ctx, s.Node)
	}
	return api.Errorf(api.KindInternal, "unknown step %q", s.Kind)
}

// statuses lists the anchors in a state, by name.
func (a *anchor) statuses(v state.View) []api.AnchorStatus {
	servers, err := a.raft.Servers()
	if err != nil {
		servers = nil
	}
	var out []api.AnchorStatus
	cluster, _ := v.Cluster()
	for _, n := range v.Nodes() {
		i := slices.IndexFunc(servers, isServer(n.ID))
		if i < 0 && !n.HoldsState() {
			continue
		}
		st := api.AnchorStatus{
			ID: n.ID, Name: n.Inventory.Name, State: n.State, Policy: n.AnchorPolicyInForce(),
			Authority: n.Authority, ClusterAuthority: cluster.IssuingAuthority(),
		}
		p, ok := a.roster.get(n.ID)
		if n.ID == a.daemon.self {
			p, ok = reported{AnchorProgress: api.AnchorProgress{Running: true, Epoch: a.epoch, Applied: a.raft.Applied()}, at: time.Now()}, true
		}
		if ok {
			st.Applied, st.Behind, st.Epoch = p.Applied, p.behind, p.Epoch
			st.Problem = p.Problem
			st.Reachable = time.Since(p.at) < 2*restAnchorsEvery && n.State != api.NodeDown
		}
		switch {
		case st.Policy == api.AnchorNever || !n.Anchor:
			st.Standing = api.AnchorLeaving
		case n.ID == a.daemon.self:
			st.Standing = api.AnchorLeader
		case st.Problem != "":
			st.Standing = api.AnchorHalted
		case i < 0:
			st.Standing = api.AnchorJoining
		case servers[i].Voter:
			st.Standing = api.AnchorVoter
		default:
			st.Standing = api.AnchorStandby
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b api.AnchorStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}
