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

// waiter watches what a change brings about and tells people how it goes.
type waiter struct {
	progress io.Writer
	every    time.Duration
}

func (a *app) waiter() *waiter { return &waiter{progress: a.stderr, every: a.poll} }

// until looks again and again until there is nothing left to wait for. It tells
// how it goes each time that changes, and waits out that no anchor can be reached.
// When ctx ends first, the error is context.Canceled or context.DeadlineExceeded.
func (w *waiter) until(ctx context.Context, look func() (progress string, done bool, err error)) error {
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	said := ""
	for {
		progress, done, err := look()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded): // the node may see it first
			return context.DeadlineExceeded
		case err != nil && api.KindOf(err) != api.KindUnavailable:
			return err
		case err == nil:
			if progress != "" && progress != said {
				fmt.Fprintln(w.progress, plain(progress))
				said = progress
			}
			if done {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// healthy waits until a workload is healthy at a revision, or later, or has come
// to the end that its restart policy lets it come to. It fails at once when the
// workload has failed; when the time is over, the error tells replicas that found
// no node, or are not well, from replicas that need longer.
func (w *waiter) healthy(ctx context.Context, c *client.Client, name string, revision int) (api.WorkloadStatus, error) {
	var status api.WorkloadStatus
	err := w.until(ctx, func() (string, bool, error) {
		latest, err := c.Workload(ctx, name)
		if err != nil {
			return "", false, err
		}
		status = latest
		well := status.Revision >= revision && (status.State == api.WorkloadHealthy || ended(status))
		return progressOf(status), well || status.State == api.WorkloadFailed, nil
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status, verdict(status)
	case err == nil && status.State == api.WorkloadFailed:
		return status, api.Errorf(api.KindUnplaced, "%s failed: %s", name, or(status.Message, "its replicas ended")).
			WithHint("see %q", "cloudless workload show "+name)
	}
	return status, err
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
func verdict(w api.WorkloadStatus) error {
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
