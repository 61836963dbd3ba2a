package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// A workload with onDisconnect: stop must not run twice. Whether a replica of it
// may run here is not a matter of what this node hears: the words of an anchor
// may reach it through neighbours while nothing of it reaches the anchors, which
// then start the replica elsewhere. So the node asks the leader, and counts from
// the moment at which it asked: what was confirmed then cannot have been started
// elsewhere before.

const (
	confirmEvery = 5 * time.Second // while all is confirmed: a third of the least time there is
	confirmAgain = 500 * time.Millisecond
	// confirmWithin bounds a question. It counts from its beginning, so an answer
	// that takes long is worth less.
	confirmWithin = 3 * time.Second
)

// lease is what the leader has confirmed of the replicas that must not run twice.
type lease struct {
	mu    sync.Mutex
	at    map[api.ReplicaID]time.Time
	asked time.Time // last
}

// confirmed returns when this node asked the question that the leader last
// answered with yes; zero: not since the daemon started.
func (l *lease) confirmed(id api.ReplicaID) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at[id]
}

// grant notes an answer to a question. What is not wanted any more is forgotten.
func (l *lease) grant(ids, wanted []api.ReplicaID, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := make(map[api.ReplicaID]time.Time, len(wanted))
	for _, id := range wanted {
		if slices.Contains(ids, id) {
			next[id] = asked
		} else if at, ok := l.at[id]; ok {
			next[id] = at
		}
	}
	l.at = next
}

// due returns when to ask next for what is wanted.
func (l *lease) due(wanted []api.ReplicaID) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range wanted {
		if at, ok := l.at[id]; !ok || at.Before(l.asked) { // the last answer was no, or none came
			return l.asked.Add(confirmAgain)
		}
	}
	return l.asked.Add(confirmEvery)
}

func (l *lease) ask(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = now
}

// singles lists the replicas of a node that must not run twice.
func singles(v api.ClusterView, self api.NodeID) (ids []api.ReplicaID) {
	for _, r := range v.Replicas {
		if r.Node == self && r.Desired != api.DesiredStop && r.Spec.OnDisconnect.Mode == api.DisconnectStop {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// keepLease asks for as long as there is something to ask for.
func (d *daemon) keepLease(ctx context.Context) error {
	return d.lease.keep(ctx, func() ([]api.ReplicaID, <-chan struct{}) {
		v, _, changed := d.views.watch()
		return singles(v, d.self), changed
	}, d.confirm, d.log)
}

// keep has the leader asked until ctx ends. wanted is what to ask for, and a
// channel that is closed when that changes.
func (l *lease) keep(ctx context.Context, wanted func() ([]api.ReplicaID, <-chan struct{}),
	confirm func(context.Context) ([]api.ReplicaID, error), log *zap.Logger,
) error {
	for ctx.Err() == nil {
		ids, changed := wanted()
		if len(ids) == 0 {
			pause(ctx, time.Hour, changed)
			continue
		}
		if wait := time.Until(l.due(ids)); wait > 0 {
			pause(ctx, wait, changed)
			continue
		}
		now := time.Now()
		l.ask(now)
		granted, err := confirm(ctx)
		if err != nil && ctx.Err() == nil {
			log.Debug("the leader does not confirm what must not run twice", zap.Error(err))
		}
		l.grant(granted, ids, now)
	}
	return nil
}

// confirm asks the leader which replicas that must not run twice are this node's
// to run.
func (d *daemon) confirm(ctx context.Context) (ids []api.ReplicaID, err error) {
	leader, ok := d.leader()
	if !ok {
		return nil, api.Errorf(api.KindUnavailable, "no leading anchor is known to this node")
	}
	conn, err := d.server.Conn(leader)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	reply, err := pb.NewSyncServiceClient(conn).Confirm(ctx, &pb.ConfirmRequest{Incarnation: d.incarnation})
	if err != nil {
		return nil, wire.ErrorFromStatus(err)
	}
	for _, id := range reply.GetReplicas() {
		ids = append(ids, api.ReplicaID(id))
	}
	return ids, nil
}
