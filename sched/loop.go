package sched

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/sched/reconcile"
)

// Source is the authoritative state, as the loop sees it.
type Source interface {
	// Watch returns the state as it is and a channel that is closed at its next
	// change, in one step. The loop fills in Now.
	Watch() (reconcile.Input, <-chan struct{})
	// Commit carries out a plan, all of it or nothing. KindConflict means that the
	// plan was overtaken by a change.
	Commit(context.Context, reconcile.Plan) error
}

// Config is what a Loop needs.
type Config struct {
	Source   Source
	Log      *zap.Logger           // nil = none
	Metrics  prometheus.Registerer // nil = none
	Coalesce time.Duration         // how long to gather changes before a plan is made; default 5ms
}

const (
	defaultCoalesce = 5 * time.Millisecond

	// A conflict means that the state moved while the plan was made. A few times
	// in a row are bad luck; after that, waiting lets the changes settle.
	firstConflictWait = 2 * time.Millisecond
	lastConflictWait  = 250 * time.Millisecond

	// Any other failure is the end of leadership or a fault; it is not made better
	// by haste.
	failureWait = time.Second
)

// Loop makes plans and commits them.
type Loop struct {
	source   Source
	log      *zap.Logger
	metrics  *metrics
	coalesce time.Duration
}

// New returns a loop. It does nothing until Run.
func New(cfg Config) (*Loop, error) {
	if cfg.Source == nil {
		return nil, errors.New("sched: no source")
	}
	l := &Loop{source: cfg.Source, log: cfg.Log, coalesce: cfg.Coalesce}
	if l.log == nil {
		l.log = zap.NewNop()
	}
	if l.coalesce <= 0 {
		l.coalesce = defaultCoalesce
	}
	var err error
	l.metrics, err = newMetrics(cfg.Metrics)
	return l, err
}

// Run schedules until ctx ends; it returns nil then. It must run on one node
// at a time: the leader.
func (l *Loop) Run(ctx context.Context) error {
	wait := time.Duration(0)
	for ctx.Err() == nil {
		plan, changed, err := l.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wait = 0
			l.idle(ctx, changed, plan.Wake)
		case api.KindOf(err) == api.KindConflict:
			l.metrics.conflicts.Inc()
			wait = min(max(2*wait, firstConflictWait), lastConflictWait)
			sleep(ctx, wait)
		default:
			l.log.Warn("the plan was not committed", zap.Error(err))
			sleep(ctx, failureWait)
		}
	}
	return nil
}

// step makes one plan and commits it if it has anything in it.
func (l *Loop) step(ctx context.Context) (reconcile.Plan, <-chan struct{}, error) {
	in, changed := l.source.Watch()
	start := time.Now()
	in.Now = start
	plan := reconcile.Make(in)
	took := time.Since(start)
	l.metrics.planned(&plan, took)
	if plan.Empty() {
		return plan, changed, nil
	}
	if err := l.source.Commit(ctx, plan); err != nil {
		return plan, changed, err
	}
	l.metrics.committed(&plan)
	l.log.Info("plan committed", zap.Int("placed", len(plan.Place)), zap.Int("promoted", len(plan.Promote)), zap.Int("dropped", len(plan.Drop)), zap.Int("stopped", len(plan.Stop)),
		zap.Int("forgotten", len(plan.Forget)), zap.Int("unplaced", len(plan.Unplaced)), zap.Duration("took", took))
	return plan, changed, nil
}

// idle waits for a change or for the time at which the plan wants to be made
// again, and then a little longer, so that a burst of changes becomes one plan
// and one Raft entry.
func (l *Loop) idle(ctx context.Context, changed <-chan struct{}, wake time.Time) {
	var alarm <-chan time.Time
	if !wake.IsZero() {
		t := time.NewTimer(time.Until(wake))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
		sleep(ctx, l.coalesce)
	case <-alarm:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
