package node

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

const measureEvery = 5 * time.Second // the round trips to all nodes

// watcher hears the nodes on every anchor, whether it leads or not, so that a
// new leader knows who was silent before.
type watcher struct {
	mu       sync.Mutex
	detector *liveness.Detector
	last     map[api.NodeID]time.Time // heartbeat
	born     map[api.NodeID]uint64    // incarnation of the daemon
}

func newWatcher(cfg liveness.Config) *watcher {
	return &watcher{
		detector: liveness.New(cfg),
		last:     make(map[api.NodeID]time.Time),
		born:     make(map[api.NodeID]uint64),
	}
}

// lastSeen returns when a node's heartbeat came, the zero time for never.
func (w *watcher) lastSeen(id api.NodeID) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[id]
}

// answered notes that a node answered a probe.
func (w *watcher) answered(id api.NodeID) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.detector.Heard(id, false, now)
	w.last[id] = now
}

// reported notes a report, and returns why its node has to wait before it takes
// work, if it was taken for dead.
func (w *watcher) reported(id api.NodeID, incarnation uint64) (unstable string) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard(id, incarnation, false, now)
	return w.detector.Returns(id, now)
}

func (w *watcher) beat(id api.NodeID, h heartbeat) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard(id, h.incarnation, true, time.Now())
}

// heard notes a word of a daemon; the lock is held.
func (w *watcher) heard(id api.NodeID, incarnation uint64, heartbeat bool, now time.Time) {
	if before := w.born[id]; incarnation > before {
		if before != 0 {
			w.detector.Restarted(id, now)
		}
		w.born[id] = incarnation
	}
	w.detector.Heard(id, heartbeat, now)
	w.last[id] = now
}

// testify notes the answer of a witness.
func (w *watcher) testify(r liveness.WitnessReport) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.detector.Witness(r, now)
}

// measured notes the round trips to the peers.
func (w *watcher) measured(peers []api.Peer) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range peers {
		if _, node := w.last[p.ID]; node {
			w.detector.Measured(p.ID, time.Duration(p.RTT*float64(time.Millisecond)), now)
		}
	}
}

// transport notes what the mesh saw of a peer.
func (w *watcher) transport(e p2p.PeerEvent) {
	if !e.Member.Has(api.RoleNode) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case e.Kind == p2p.PeerAdmitted:
		w.detector.Connected(e.ID, e.At)
	case e.Reason == p2p.ReasonGoodbye:
		w.detector.Goodbye(e.ID, e.At)
	case e.Reason == p2p.ReasonLost:
		w.detector.Broken(e.ID, e.At)
	}
}

// judge returns the verdicts that differ from the record, the silent nodes that
// should be asked about now, and when to judge again.
func (w *watcher) judge(nodes []api.Node, self api.NodeID) ([]liveness.Transition, []liveness.Ask, time.Duration) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.last) > len(nodes) {
		clear(w.last) // of nodes that are gone; the others are heard again at once
		clear(w.born)
	}
	verdicts, asks := w.detector.Step(nodes, self, now)
	return verdicts, asks, w.detector.Pace()
}

// An anchor notices by its own pulse that it was stopped or starved itself.
const (
	ownPulse = 200 * time.Millisecond
	ownPause = time.Second
)

// slept notes that this anchor did not run for a while.
func (w *watcher) slept(pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.detector.Slept(pause)
}

// listen feeds the watcher until ctx ends.
func (a *anchor) listen(ctx context.Context) error {
	mesh := a.daemon.mesh
	cancel, err := mesh.Subscribe(api.TopicHeartbeat, func(from api.NodeID, data []byte) {
		if h, ok := decodeHeartbeat(data); ok {
			a.watcher.beat(from, h)
		}
	})
	if err != nil {
		return err
	}
	defer cancel()
	pulse := time.NewTicker(ownPulse)
	defer pulse.Stop()
	awake := time.Now()
	for {
		select {
		case e := <-mesh.Events():
			a.watcher.transport(e)
		case <-pulse.C:
			if pause := time.Since(awake); pause > ownPause {
				a.watcher.slept(pause)
			}
			awake = time.Now()
		case <-ctx.Done():
			return nil
		}
	}
}

// watchLiveness commits the watcher's verdicts while this anchor leads.
func (a *anchor) watchLiveness(ctx context.Context) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	measure := time.NewTicker(measureEvery)
	defer measure.Stop()
	for {
		select {
		case <-tick.C:
		case <-measure.C:
			a.watcher.measured(a.daemon.mesh.Peers())
		case <-ctx.Done():
			return nil
		}
		verdicts, asks, pace := a.watcher.judge(a.raft.Store().View().Nodes(), a.daemon.self)
		tick.Reset(pace)
		for _, q := range asks {
			a.inquire(ctx, q)
		}
		if len(verdicts) > 0 {
			a.commit(ctx, verdicts)
		}
	}
}

// inquire asks the witnesses, and the silent node itself: heartbeats may be
// lost where a probe is not. The detector bounds how many questions are open.
func (a *anchor) inquire(ctx context.Context, q liveness.Ask) {
	mesh := a.daemon.mesh
	go func() {
		ctx, cancel := context.WithTimeout(ctx, q.Within)
		defer cancel()
		if _, err := mesh.Probe(ctx, q.Node); err == nil {
			a.watcher.answered(q.Node)
		}
	}()
	for _, witness := range q.Witnesses {
		go func() {
			// A witness that does not answer in time says nothing.
			if seen, err := mesh.Ask(ctx, witness, q.Node, q.Within); err == nil && seen != p2p.NotMember {
				a.watcher.testify(liveness.WitnessReport{
					Witness: witness, Node: q.Node, Reached: seen == p2p.Reached, Frozen: seen == p2p.Frozen,
				})
			}
		}()
	}
}

// commit records verdicts, all at once, because each change is told to every
// node. When one was overtaken by a report, each is recorded on its own.
func (a *anchor) commit(ctx context.Context, verdicts []liveness.Transition) {
	if len(verdicts) > 1 && a.propose(ctx, verdicts...) == nil {
		return
	}
	for _, v := range verdicts {
		if err := a.propose(ctx, v); err != nil && ctx.Err() == nil && api.KindOf(err) != api.KindConflict {
			a.daemon.log.Warn("a verdict was not recorded", zap.String("peer", string(v.Node)), zap.String("to", string(v.To)), zap.Error(err))
		}
	}
}

func (a *anchor) propose(ctx context.Context, verdicts ...liveness.Transition) error {
	now := time.Now()
	var commands []state.Command
	for _, v := range verdicts {
		commands = append(commands, state.SetNodeState{ID: v.Node, From: v.From, To: v.To, Reason: v.Reason, Now: now})
	}
	if _, err := a.raft.Propose(ctx, commands...); err != nil {
		return err
	}
	for _, v := range verdicts {
		a.daemon.log.Info("a node changed its state", zap.String("peer", string(v.Node)), zap.String("to", string(v.To)), zap.String("reason", v.Reason))
	}
	return nil
}
