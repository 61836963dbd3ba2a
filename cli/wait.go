package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

// waitTimeout is how long --wait waits unless --timeout says otherwise.
const waitTimeout = 5 * time.Minute

func (a *app) waitTimeout(wait *bool) func() time.Duration {
	return func() time.Duration {
		if *wait {
			return waitTimeout
		}
		return defaultTimeout
	}
}

// waiter watches workloads become healthy and tells people how it goes.
type waiter struct {
	progress io.Writer
	every    time.Duration
}

func (a *app) waiter() *waiter { return &waiter{progress: a.stderr, every: a.poll} }

// healthy waits until a workload is healthy at a revision, or later, or has come
// to the end that its restart policy lets it come to. It fails at once when the
// workload has failed; when the time is over, the error tells replicas that found
// no node, or are not well, from replicas that need longer.
func (w *waiter) healthy(ctx context.Context, c *client.Client, name string, revision int) (api.WorkloadStatus, error) {
	var status api.WorkloadStatus
	said := ""
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for {
		latest, err := c.Workload(ctx, name)
		switch {
		case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded): // the node may see it first
			return status, verdict(ctx, status)
		case err != nil && api.KindOf(err) != api.KindUnavailable:
			return status, err
		case err == nil:
			status = latest
			if now := progressOf(status); now != said {
				fmt.Fprintln(w.progress, plain(now))
				said = now
			}
			if status.Revision >= revision && (status.State == api.WorkloadHealthy || ended(status)) {
				return status, nil
			}
			if status.State == api.WorkloadFailed {
				return status, api.Errorf(api.KindUnplaced, "%s failed: %s", name, or(status.Message, "its replicas ended")).
					WithHint("see %q", "cloudless workload show "+name)
			}
		}
		select {
		case <-ctx.Done():
			return status, verdict(ctx, status)
		case <-ticker.C:
		}
	}
}

// ended reports whether every replica came to its own end and may stay there.
func ended(w api.WorkloadStatus) bool {
	if w.Spec.Restart.Policy != api.RestartNever && w.Spec.Restart.Policy != api.RestartOnFailure {
		return false
	}
	n := 0
	for _, r := range w.Replicas {
		// Those that were told to stop have not ended by themselves.
		if r.State == api.ReplicaStopped && r.Desired == api.DesiredRun && r.Revision == w.Revision {
			n++
		}
	}
	return n > 0 && n >= w.Spec.Replicas
}

func logsOf(workload string) string { return "cloudless workload logs " + workload }

func progressOf(w api.WorkloadStatus) string {
	if ended(w) {
		return fmt.Sprintf("%s: ended, as its restart policy %q allows", w.Name, w.Spec.Restart.Policy)
	}
	text := fmt.Sprintf("%s: %s, %d of %d ready", w.Name, w.State, w.Ready, w.Spec.Replicas)
	if w.Message != "" {
		text += ": " + w.Message
	}
	return text
}

// verdict says what became of a workload when there was no more time.
func verdict(ctx context.Context, w api.WorkloadStatus) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	placed := 0
	for _, r := range w.Replicas {
		if r.Node != "" && !r.State.Terminal() && r.Desired == api.DesiredRun {
			placed++
		}
	}
	hint := fmt.Sprintf("see %q", "cloudless workload explain "+w.Name)
	switch {
	case w.Name == "":
		return context.DeadlineExceeded
	case placed < w.Spec.Replicas:
		return api.Errorf(api.KindUnplaced, "%s has no place for %d of its %d replicas: %s",
			w.Name, w.Spec.Replicas-placed, w.Spec.Replicas, or(w.Message, "no reason was given")).WithHint("%s", hint)
	case w.State == api.WorkloadDegraded:
		return api.Errorf(api.KindUnplaced, "%s is not healthy: %d of %d ready", w.Name, w.Ready, w.Spec.Replicas).
			WithHint("%s, and %q", hint, logsOf(w.Name))
	}
	return api.Errorf(api.KindTimeout, "%s is still %s: %d of %d ready", w.Name, w.State, w.Ready, w.Spec.Replicas).
		WithHint("allow more time with --timeout")
}

// newIdempotencyKey returns a key that no other request has.
func newIdempotencyKey() string { return rand.Text() }
