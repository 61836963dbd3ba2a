package node

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

const (
	judgeEvery  = 100 * time.Millisecond
	askTimeout  = time.Second
	maxAsking   = 64 // suspects that are asked directly at one time
	askInterval = 300 * time.Millisecond
)

// watcher hears the nodes on every anchor, whether it leads or not, so that a
// new leader knows who was silent before.
type watcher struct {
	mu       sync.Mutex
	detector *liveness.Detector
	last     map[api.NodeID]time.Time // heartbeat
	asked    map[api.NodeID]time.Time
}

func newWatcher() *watcher {
	return &watcher{
		detector: liveness.New(liveness.Config{Interval: heartbeatEvery}),
		last:     make(map[api.NodeID]time.Time),
		asked:    make(map[api.NodeID]time.Time),
	}
}

// lastSeen returns when a node's heartbeat came, the zero time for never.
func (w *watcher) lastSeen(id api.NodeID) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[id]
}

func (w *watcher) heard(id api.NodeID, heartbeat bool) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.detector.Heard(id, heartbeat, now)
	w.last[id] = now
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

// judge returns the verdicts that differ from the record, and the suspects
// that should be asked directly now.
func (w *watcher) judge(nodes []api.Node, self api.NodeID) (verdicts []liveness.Transition, ask []api.NodeID) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	verdicts = w.detector.Step(nodes, self, now)
	if len(w.last) > len(nodes) {
		clear(w.last) // of nodes that are gone; the others are heard again at once
	}
	for _, n := range nodes {
		if n.State != api.NodeSuspect {
			delete(w.asked, n.ID)
		} else if now.Sub(w.asked[n.ID]) >= askInterval && len(ask) < maxAsking {
			w.asked[n.ID] = now
			ask = append(ask, n.ID)
		}
	}
	return verdicts, ask
}

// listen feeds the watcher until ctx ends.
func (a *anchor) listen(ctx context.Context) error {
	mesh := a.daemon.mesh
	cancel, err := mesh.Subscribe(api.TopicHeartbeat, func(from api.NodeID, data []byte) {
		var h heartbeat
		if json.Unmarshal(data, &h) == nil {
			a.watcher.heard(from, true)
		}
	})
	if err != nil {
		return err
	}
	defer cancel()
	for {
		select {
		case e := <-mesh.Events():
			a.watcher.transport(e)
		case <-ctx.Done():
			return nil
		}
	}
}

// watchLiveness commits the watcher's verdicts while this anchor leads.
func (a *anchor) watchLiveness(ctx context.Context) error {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		verdicts, ask := a.watcher.judge(a.raft.Store().View().Nodes(), a.daemon.self)
		for _, id := range ask {
			go a.ask(ctx, id)
		}
		if len(verdicts) > 0 {
			a.commit(ctx, verdicts)
		}
	}
}

// ask probes a suspect directly: heartbeats may be lost where a probe is not.
func (a *anchor) ask(ctx context.Context, id api.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := a.daemon.mesh.Probe(ctx, id); err == nil {
		a.watcher.heard(id, false)
	}
}

// commit records verdicts, each on its own: one that was overtaken by a report
// must not hold up the others.
func (a *anchor) commit(ctx context.Context, verdicts []liveness.Transition) {
	for _, v := range verdicts {
		_, err := a.raft.Propose(ctx, state.SetNodeState{ID: v.Node, From: v.From, To: v.To, Reason: v.Reason, Now: time.Now()})
		log := a.daemon.log.With(zap.String("peer", string(v.Node)), zap.String("to", string(v.To)), zap.String("reason", v.Reason))
		switch {
		case err == nil:
			log.Info("a node changed its state")
		case ctx.Err() == nil && api.KindOf(err) != api.KindConflict:
			log.Warn("a verdict was not recorded", zap.Error(err))
		}
	}
}
