package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// enqueueTimeout bounds how long a proposal waits for a place in raft's queue.
const enqueueTimeout = 10 * time.Second

// Propose applies commands, all or none, and returns when they are durable on
// a majority and applied here. Only the leader can; another anchor answers
// KindUnavailable and names the leader. Commands that the state refuses come
// back with its error. Callers that propose at the same time share an fsync.
//
// When ctx ends, or leadership is lost on the way, the commands may still be
// applied: a caller that retries needs commands that can be repeated.
func (a *Anchor) Propose(ctx context.Context, cmds ...state.Command) (state.Result, error) {
	body, err := state.Encode(cmds)
	if err != nil {
		return state.Result{}, err
	}
	if !a.IsLeader() {
		return state.Result{}, a.notLeader(nil)
	}
	start := time.Now()
	future := a.raft.Apply(frame(body), enqueueTimeout)
	if err := a.await(ctx, future); err != nil {
		return state.Result{}, err
	}
	a.metrics.committed(time.Since(start))
	switch r := future.Response().(type) {
	case state.Result:
		return r, r.Err
	case error:
		return state.Result{}, r
	default:
		return state.Result{}, fmt.Errorf("propose: state machine answered %T", r)
	}
}

// VerifyLeader is the barrier of a linearizable read: when it returns nil,
// this node led after the call began, and its state includes every change
// that was acknowledged before.
func (a *Anchor) VerifyLeader(ctx context.Context) error {
	r, err := a.reigning(ctx)
	if err != nil {
		return err
	}
	if err := a.await(ctx, a.raft.VerifyLeader()); err != nil {
		return err
	}
	if a.raft.CurrentTerm() != r.term {
		return a.notLeader(nil) // or a new reign that may not have caught up
	}
	return nil
}

// reigning returns the current reign once it is ready.
func (a *Anchor) reigning(ctx context.Context) (*reign, error) {
	for a.IsLeader() {
		r, changed := a.leadership.current()
		var ready <-chan struct{}
		if r != nil {
			ready = r.ready
		}
		select {
		case <-ready:
			return r, nil
		case <-changed: // raft knew earlier that this node was elected
		case <-a.closing.Done():
			return nil, a.notLeader(nil)
		case <-ctx.Done():
			return nil, timedOut(ctx, "confirm the leader")
		}
	}
	return nil, a.notLeader(nil)
}

// await waits for a future, but not longer than ctx.
func (a *Anchor) await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return a.explain(err)
	case <-ctx.Done():
		return timedOut(ctx, "wait for the anchors")
	}
}

// explain turns raft's errors into those of the product.
func (a *Anchor) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return a.notLeader(err)
	case errors.Is(err, raft.ErrLeadershipLost):
		return api.Errorf(api.KindUnavailable, "leadership was lost before the change was confirmed; it may have been made: %w", err)
	case errors.Is(err, raft.ErrRaftShutdown):
		return api.Errorf(api.KindUnavailable, "this anchor is shutting down: %w", err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return api.Errorf(api.KindExhausted, "the anchor has more changes waiting than it can write: %w", err)
	case errors.Is(err, syscall.ENOSPC):
		return a.dir.explain(walDir, err)
	}
	return fmt.Errorf("raft: %w", err)
}

func (a *Anchor) notLeader(cause error) error {
	if leader, ok := a.Leader(); ok && leader != a.cfg.ID {
		e := api.Errorf(api.KindUnavailable, "this anchor does not lead, %s does", leader)
		e.Err = cause
		return e.WithHint("ask %s", leader)
	}
	e := api.Errorf(api.KindUnavailable, "the anchors have no leader at the moment")
	e.Err = cause
	return e.WithHint("retry in a few seconds; if it stays so, too few anchors are in reach")
}

func timedOut(ctx context.Context, what string) error {
	return api.Errorf(api.KindTimeout, "%s: %w", what, context.Cause(ctx))
}
