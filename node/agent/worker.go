package agent

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/internal/retry"
)

// worker carries one replica from assignment to its end. All its methods but
// start, stop and exited run on its own goroutine.
type worker struct {
	agent    *Agent
	replica  api.Replica
	log      *zap.Logger
	report   api.ReplicaReport
	stopping chan struct{} // closed when the replica is not wanted any more
	running  chan struct{} // closed when it is to run, not only to stand by
	exits    chan container.Exit
	addr     Attachment
	adopted  bool // what an earlier daemon left has been looked at
}

func newWorker(a *Agent, r api.Replica) *worker {
	return &worker{
		agent:    a,
		replica:  r,
		log:      a.cfg.Log.With(zap.String("replica", string(r.ID)), zap.String("workload", r.Workload)),
		report:   api.ReplicaReport{ID: r.ID, State: api.ReplicaAssigned, Restarts: r.Restarts},
		stopping: make(chan struct{}),
		running:  make(chan struct{}),
		exits:    make(chan container.Exit, 1),
	}
}

// want tells the worker what is wanted of its replica; the agent's lock is held.
func (w *worker) want(d api.Desired) {
	switch d {
	case api.DesiredStop:
		w.stop()
	case api.DesiredRun:
		w.start()
	}
}

// stop asks the worker to end its replica; the agent's lock is held.
func (w *worker) stop() {
	select {
	case <-w.stopping:
	default:
		close(w.stopping)
	}
}

// start lets the replica run that stood by until now; the agent's lock is held.
func (w *worker) start() {
	select {
	case <-w.running:
	default:
		close(w.running)
	}
}

// exited notes how a run ended. The latest exit wins: an older one speaks of a
// run that has been dealt with.
func (w *worker) exited(e container.Exit) {
	for {
		select {
		case w.exits <- e:
			return
		default:
		}
		select {
		case <-w.exits:
		default:
		}
	}
}

func (w *worker) set(state api.ReplicaState, reason string) {
	w.report.State, w.report.Reason = state, reason
	w.agent.report(w.report)
}

// run is the replica's life. When ctx ends the container stays.
func (w *worker) run(ctx context.Context) {
	defer w.agent.done(w.replica.ID)
	wanted, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-w.stopping:
			cancel()
		case <-wanted.Done():
		}
	}()
	finished, givenUp := false, ""
	if !w.isStopping() {
		group := sync.WaitGroup{}
		group.Go(func() {
			givenUp = w.watchAnchors(wanted)
			cancel()
		})
		finished = w.keepRunning(wanted)
		cancel()
		group.Wait()
	}
	if ctx.Err() != nil {
		return
	}
	if w.isStopping() {
		givenUp = ""
	}
	if !finished {
		w.set(api.ReplicaStopping, givenUp)
	}
	backoff := retry.Backoff{Initial: time.Second, Max: 30 * time.Second}
	for {
		err := w.agent.discard(ctx, string(w.replica.ID))
		if err == nil {
			break
		}
		w.log.Warn("removing the container failed, will try again", zap.Error(err))
		if retry.Sleep(ctx, backoff.Next()) != nil {
			return
		}
	}
	switch {
	case givenUp != "" && !finished:
		w.set(api.ReplicaLost, givenUp)
	case !finished:
		w.set(api.ReplicaStopped, "")
	}
}

func (w *worker) isStopping() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}

// keepRunning starts the container again and again as its policy says. It
// returns true when the replica has come to its own end, false when it is not
// wanted any more.
func (w *worker) keepRunning(ctx context.Context) (finished bool) {
	policy := w.replica.Spec.Restart
	backoff := retry.Backoff{Initial: policy.Backoff.Initial.Std(), Max: policy.Backoff.Max.Std()}
	for ctx.Err() == nil {
		inherited := !w.adopted
		exit, err := w.runOnce(ctx)
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			wait := backoff.Next()
			w.log.Warn("starting failed", zap.Error(err), zap.Duration("retry_in", wait))
			w.setWaiting(fmt.Sprintf("%v; next try in %s", err, wait.Round(100*time.Millisecond)))
			if retry.Sleep(ctx, wait) != nil {
				return false
			}
			continue
		}
		why := describeExit(exit)
		if policy.Policy == api.RestartNever || policy.Policy == api.RestartOnFailure && exit.Code == 0 {
			if exit.Code == 0 {
				w.set(api.ReplicaStopped, why)
			} else {
				w.set(api.ReplicaFailed, why)
			}
			return true
		}
		if exit.At.Sub(exit.StartedAt) > stableAfter {
			backoff.Reset()
		} else if inherited {
			for range min(w.report.Restarts, maxInherited) {
				backoff.Next() // it failed again and again before this daemon began
			}
		}
		w.report.Restarts++
		w.agent.metrics.restarts.Inc()
		wait := backoff.Next()
		w.log.Info("container ended, restarting", zap.String("reason", why), zap.Duration("in", wait))
		w.setWaiting(fmt.Sprintf("%s; restart in %s", why, wait.Round(10*time.Millisecond)))
		if retry.Sleep(ctx, wait) != nil {
			return false
		}
	}
	return false
}

// runOnce carries the replica through one run of its process: one that is
// there already, or a new one.
func (w *worker) runOnce(ctx context.Context) (container.Exit, error) {
	status, err := w.bringUp(ctx)
	if err != nil {
		return container.Exit{}, err
	}
	if status.Exit != nil {
		return *status.Exit, nil
	}
	return w.supervise(ctx, status), nil
}

// maxInherited is how many pauses are skipped at most after an unstable run
// that an earlier daemon began: enough to come to the longest one.
const maxInherited = 10

// stableAfter is how long a run must last for its end to count as the first.
const stableAfter = 10 * time.Second

// setWaiting reports trouble before the process is there, without moving the
// replica's state backwards.
func (w *worker) setWaiting(reason string) {
	if w.report.State.Active() {
		w.set(api.ReplicaNotReady, reason)
		return
	}
	w.set(w.report.State, reason)
}

// advance reports a step towards running; a replica that ran already stays
// NotReady while it is brought up again.
func (w *worker) advance(state api.ReplicaState) {
	if !w.report.State.Active() {
		w.set(state, "")
	}
}

// bringUp returns once the process runs: an adopted one or a new one. The first
// time it may also return how a run ended that nobody watched.
func (w *worker) bringUp(ctx context.Context) (container.Status, error) {
	id := string(w.replica.ID)
	rt := w.agent.cfg.Runtime
	status, err := rt.Status(ctx, id)
	adopting := !w.adopted
	w.adopted = true
	switch {
	case err == nil && status.State == container.StateRunning:
		if n, err := strconv.Atoi(status.Labels[labelRestarts]); err == nil {
			w.report.Restarts = max(w.report.Restarts, n)
		}
		return status, w.attach(ctx)
	case err == nil && status.Exit != nil && adopting:
		return status, nil
	case err == nil:
		if err := rt.Remove(ctx, id); err != nil {
			return status, err
		}
	case api.KindOf(err) != api.KindNotFound:
		return status, err
	}
	w.advance(api.ReplicaPreparing)
	if err := w.awaitAnchor(ctx); err != nil {
		return status, err
	}
	if err := w.agent.cfg.Images.Ensure(ctx, w.replica.Spec.Image); err != nil {
		return status, fmt.Errorf("bring image: %w", err)
	}
	if err := w.attach(ctx); err != nil {
		return status, err
	}
	if err := w.create(ctx); err != nil {
		return status, err
	}
	status, err = rt.Start(ctx, id)
	if err != nil {
		return status, fmt.Errorf("start container: %w", err)
	}
	return status, nil
}

// create makes the container. One that is to stand by is made all but running,
// and waits here.
func (w *worker) create(ctx context.Context) error {
	select {
	case <-w.running:
		w.advance(api.ReplicaStarting)
	default:
	}
	rt, id := w.agent.cfg.Runtime, string(w.replica.ID)
	if err := rt.Create(ctx, containerSpec(&w.replica, w.addr, w.report.Restarts)); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	select {
	case <-w.running:
		return nil
	default:
	}
	if err := rt.Stage(ctx, id); err != nil {
		return fmt.Errorf("stage container: %w", err)
	}
	select {
	case <-w.running:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *worker) attach(ctx context.Context) error {
	addr, err := w.agent.cfg.Network.Attach(ctx, string(w.replica.ID))
	if err != nil {
		return fmt.Errorf("attach to the network: %w", err)
	}
	w.addr = addr
	return nil
}

// supervise watches a running process, tells what its probes say, and returns
// how it ended. It returns early when ctx ends.
func (w *worker) supervise(ctx context.Context, st container.Status) container.Exit {
	probing, stopProbing := context.WithCancel(ctx)
	defer stopProbing()
	p := &prober{runtime: w.agent.cfg.Runtime, id: st.ID, ip: w.addr.IP}
	ready := p.watch(probing, w.replica.Spec.Probes.Readiness)
	alive := p.watch(probing, w.replica.Spec.Probes.Liveness)

	w.report.StartedAt, w.report.Address = st.StartedAt, w.addr.IP
	if ready == nil {
		w.set(api.ReplicaReady, "")
	} else if w.report.State.Active() {
		w.set(api.ReplicaNotReady, "waiting for the readiness probe")
	} else {
		w.set(api.ReplicaRunning, "waiting for the readiness probe")
	}
	var again <-chan time.Time // when stopping the container is tried again
	for {
		select {
		case <-ctx.Done():
			return container.Exit{}
		case e := <-w.exits:
			if e.StartedAt.Before(st.StartedAt) {
				continue // of an earlier run
			}
			return e
		case err := <-ready:
			if err == nil {
				w.set(api.ReplicaReady, "")
			} else {
				w.set(api.ReplicaNotReady, "readiness probe: "+err.Error())
			}
		case err := <-alive:
			if err == nil {
				again = nil
				continue
			}
			w.log.Info("liveness probe failed, stopping the container", zap.Error(err))
			again = w.stopUnhealthy(ctx, st.ID)
		case <-again:
			again = w.stopUnhealthy(ctx, st.ID)
		}
	}
}

// stopUnhealthy ends a process that its liveness probe gave up. When that
// fails, the channel it returns says when to try again: the probe itself speaks
// only once.
func (w *worker) stopUnhealthy(ctx context.Context, id string) <-chan time.Time {
	err := w.agent.cfg.Runtime.Stop(ctx, id, stopGrace)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	w.log.Warn("stopping after a failed liveness probe failed, will try again", zap.Error(err))
	return time.After(stopGrace)
}

func describeExit(e container.Exit) string {
	switch e.Reason {
	case container.ReasonCompleted:
		return "ended with code 0"
	case container.ReasonOOM:
		return "killed: over its memory limit"
	case container.ReasonLost:
		return "lost: the host or the runtime restarted"
	default:
		return fmt.Sprintf("ended with code %d", e.Code)
	}
}
