package agent

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
)

// anchorCheck is how often a replica looks whether it was confirmed.
const anchorCheck = 200 * time.Millisecond

// watchAnchors returns why a replica is given up that must not run in a house
// that is offline, when no anchor has confirmed it for as long as its spec says;
// "" when ctx ends before. It needs nobody's permission: nobody can be asked.
func (w *worker) watchAnchors(ctx context.Context) string {
	d := w.replica.Spec.OnDisconnect
	if d.Mode != api.DisconnectStop {
		<-ctx.Done()
		return ""
	}
	begun := time.Now()
	for {
		last := w.agent.cfg.Confirmed(w.replica.ID)
		if last.Before(begun) {
			last = begun // a daemon that has just started is given the time as well
		}
		left := time.Until(last.Add(d.After.Std()))
		if left <= 0 {
			w.log.Info("no anchor confirms that the replica may run, giving it up", zap.Duration("took", d.After.Std()))
			return fmt.Sprintf("stopped by its node: no anchor confirmed for %s that it may run", d.After.Std())
		}
		if retry.Sleep(ctx, left) != nil {
			return ""
		}
	}
}

// awaitAnchor returns when a replica may be started: at once, but for one that
// must not run in a house that is offline. That one starts only while an anchor
// has confirmed it within the time that its spec gives: after a reboot, and in a
// house that only listens, it may have been started elsewhere long ago.
func (w *worker) awaitAnchor(ctx context.Context) error {
	d := w.replica.Spec.OnDisconnect
	if d.Mode != api.DisconnectStop {
		return nil
	}
	for time.Since(w.agent.cfg.Confirmed(w.replica.ID)) >= d.After.Std() {
		w.setWaiting("waits for the word of an anchor")
		if err := retry.Sleep(ctx, anchorCheck); err != nil {
			return err
		}
	}
	return nil
}
