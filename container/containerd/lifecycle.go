//go:build linux

package containerd

import (
	"context"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/signal"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/logfile"
)

// Start implements container.Containers.
func (r *Runtime) Start(ctx context.Context, id string) (container.Status, error) {
	unlock, err := r.busy.lock(ctx, id)
	if err != nil {
		return container.Status{}, r.explain(err, "start", "container "+id)
	}
	defer unlock()
	s, err := r.Status(ctx, id)
	if err != nil || s.State == container.StateRunning {
		return s, err
	}
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return s, r.explain(err, "start", "container "+id)
	}
	t, err := r.stage(ctx, c)
	if err == nil {
		err = r.run(ctx, c, t)
	}
	if err != nil {
		return s, r.explain(explainStart(err, id), "start", "container "+id)
	}
	return r.Status(ctx, id)
}

// Stage implements container.Containers: the shim, the namespaces and the
// process are there, and the process waits for its program. That is nearly all
// of the time that a start takes.
func (r *Runtime) Stage(ctx context.Context, id string) error {
	unlock, err := r.busy.lock(ctx, id)
	if err != nil {
		return r.explain(err, "stage", "container "+id)
	}
	defer unlock()
	s, err := r.Status(ctx, id)
	if err != nil || s.State == container.StateRunning {
		return err
	}
	c, err := r.client.LoadContainer(ctx, id)
	if err == nil {
		_, err = r.stage(ctx, c)
	}
	return r.explain(explainStart(err, id), "stage", "container "+id)
}

// stage returns a task that has not been started: the one that is there, or a
// fresh one in place of what the run before left.
func (r *Runtime) stage(ctx context.Context, c client.Container) (client.Task, error) {
	if t, err := c.Task(ctx, nil); err == nil {
		if s, err := t.Status(ctx); err == nil && s.Status == client.Created {
			return t, nil
		}
	}
	if err := r.deleteTask(ctx, c); err != nil {
		return nil, err
	}
	return c.NewTask(ctx, cio.LogURI(&url.URL{
		Scheme: "binary", Path: r.cfg.LogBinary,
		RawQuery: url.Values{logfile.Command: {r.logFile(c.ID())}}.Encode(),
	}))
}

// run starts a task. The start is noted before it happens, so that a run that
// ends before anybody looks is not taken for one that never began.
func (r *Runtime) run(ctx context.Context, c client.Container, t client.Task) error {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	_, err := c.SetLabels(ctx, map[string]string{labelStarted: now})
	if err == nil {
		err = t.Start(ctx)
	}
	if err != nil {
		clean := context.WithoutCancel(ctx)
		_, _ = t.Delete(clean, client.WithProcessKill)
		_, _ = c.SetLabels(clean, map[string]string{labelStarted: ""})
	}
	return err
}

// explainStart tells faults of the image from faults of the runtime.
func explainStart(err error, id string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, fault := range []string{"executable file not found", "no such file or directory", "exec format error", "permission denied"} {
		if strings.Contains(text, "exec") && strings.Contains(text, fault) {
			return api.Errorf(api.KindInvalid, "container %s cannot run its command: %w", id, err).
				WithHint("check command, args and workingDir against the image, and its platform against this node's")
		}
	}
	return err
}

// Stop implements container.Containers.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	record, err := r.record(ctx, id)
	if api.KindOf(err) == api.KindNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return r.explain(err, "stop", "container "+id)
	}
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return r.explain(err, "stop", "container "+id)
	}
	if s, err := t.Status(ctx); err == nil && s.Status == client.Created {
		return nil // it is staged: nothing runs yet
	}
	return r.explain(stop(ctx, t, stopSignal(record.Labels[labelStopSignal]), grace), "stop", "container "+id)
}

func stopSignal(name string) syscall.Signal {
	if s, err := signal.ParseSignal(name); err == nil {
		return s
	}
	return syscall.SIGTERM
}

// stop ends a task and waits until it has ended.
func stop(ctx context.Context, t client.Task, sig syscall.Signal, grace time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the wait below
	ended, err := t.Wait(ctx)
	if err != nil {
		return err
	}
	if grace > 0 {
		if err := kill(ctx, t, sig); err != nil {
			return err
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case status := <-ended:
			return waitError(status)
		case <-timer.C:
		}
	}
	if err := kill(ctx, t, syscall.SIGKILL, client.WithKillAll); err != nil {
		return err
	}
	return waitError(<-ended)
}

// kill signals a task; one that has ended is not an error.
func kill(ctx context.Context, t client.Task, sig syscall.Signal, opts ...client.KillOpts) error {
	if err := t.Kill(ctx, sig, opts...); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

func waitError(s client.ExitStatus) error {
	if err := s.Error(); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// Remove implements container.Containers.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := container.ValidateID(id); err != nil {
		return err
	}
	unlock, err := r.busy.lock(ctx, id)
	if err != nil {
		return r.explain(err, "remove", "container "+id)
	}
	defer unlock()
	c, err := r.client.LoadContainer(ctx, id)
	if err == nil {
		if err = r.deleteTask(ctx, c); err == nil {
			err = c.Delete(ctx, client.WithSnapshotCleanup)
		}
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return r.explain(err, "remove", "container "+id)
	}
	return r.explain(logfile.Remove(r.logFile(id)), "remove", "the log of container "+id)
}

// deleteTask kills and deletes a container's task, if it has one. The start of
// its run is forgotten first: a run without a task would look lost.
func (r *Runtime) deleteTask(ctx context.Context, c client.Container) error {
	if _, err := c.SetLabels(ctx, map[string]string{labelStarted: "", labelExit: ""}); err != nil {
		return err
	}
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if status, err := t.Status(ctx); err == nil && status.Status != client.Stopped {
		if err := stop(ctx, t, syscall.SIGKILL, 0); err != nil {
			return err
		}
	}
	if _, err := t.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
