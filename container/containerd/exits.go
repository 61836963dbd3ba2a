//go:build linux

package containerd

import (
	"context"
	"fmt"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

const (
	// reconnectAfter is the pause before the events are subscribed to again.
	reconnectAfter = 200 * time.Millisecond
	// recheckAfter is the pause before a container is looked at again that was
	// being changed, or that containerd still calls running.
	recheckAfter = 50 * time.Millisecond
	// maxRechecks bounds how often that is done for one event; the resync is
	// the safety net.
	maxRechecks = 40
)

// Exits implements container.Containers.
func (r *Runtime) Exits(ctx context.Context) <-chan container.Exit {
	out := make(chan container.Exit)
	w := exitWatch{r: r, out: out, told: make(map[string]time.Time)}
	go func() {
		defer close(out)
		w.run(ctx)
	}()
	return out
}

// exitWatch tells of exits. Events only say where to look.
type exitWatch struct {
	r    *Runtime
	out  chan<- container.Exit
	told map[string]time.Time // container → start of the last run told of
}

// run goes on until ctx ends, over every loss of containerd.
func (w *exitWatch) run(ctx context.Context) {
	up := true
	for ctx.Err() == nil {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if up {
			w.r.cfg.Log.Warn("lost the events of containerd; trying again", zap.Error(err))
		}
		up = false
		select {
		case <-time.After(reconnectAfter):
		case <-ctx.Done():
			return
		}
		if _, err := w.r.client.Version(ctx); err == nil {
			up = true
		}
	}
}

// follow subscribes, then looks at everything, then at what events name. In
// this order nothing can fall between.
func (w *exitWatch) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	envelopes, errs := w.r.client.Subscribe(ctx, `topic=="/tasks/exit"`, `topic=="/tasks/delete"`)
	resync := time.NewTicker(w.r.cfg.ResyncEvery)
	defer resync.Stop()
	if err := w.lookAtAll(ctx); err != nil {
		return err
	}
	hints := make(map[string]int) // container → how often it was looked at in vain
	for {
		var recheck <-chan time.Time
		if len(hints) > 0 {
			recheck = time.After(recheckAfter)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-errs:
			return fmt.Errorf("watch exits: %w", err)
		case e := <-envelopes:
			if id, ok := w.r.ended(e); ok {
				hints[id] = 0
			}
		case <-recheck:
		case <-resync.C:
			if err := w.lookAtAll(ctx); err != nil {
				return err
			}
		}
		for id, tries := range hints {
			done, err := w.lookAt(ctx, id)
			if err != nil {
				return err
			}
			if hints[id] = tries + 1; done || tries == maxRechecks {
				delete(hints, id)
			}
		}
	}
}

// ended returns the container of an event that says that its process ended.
func (r *Runtime) ended(e *events.Envelope) (id string, ok bool) {
	if e.Namespace != r.cfg.Namespace {
		return "", false
	}
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		return "", false
	}
	switch v := v.(type) {
	case *eventsapi.TaskExit:
		return v.ContainerID, v.ID == v.ContainerID // another ID is that of an exec
	case *eventsapi.TaskDelete: // by containerd, after a shim died
		return v.ContainerID, v.ID == "" || v.ID == v.ContainerID
	}
	return "", false
}

// lookAtAll tells of every run that has ended and was not told of yet.
func (w *exitWatch) lookAtAll(ctx context.Context) error {
	list, err := w.r.List(ctx)
	if err != nil {
		return err
	}
	told := w.told
	w.told = make(map[string]time.Time, len(list))
	for _, s := range list {
		w.told[s.ID] = told[s.ID] // forgets those that are gone
		if s.Exit == nil {
			continue
		}
		if _, err := w.lookAt(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

// lookAt tells of a container's last run if it has ended. It is not done with a
// container that is being changed, which may look lost for a moment, nor with
// one whose task is still called running.
func (w *exitWatch) lookAt(ctx context.Context, id string) (done bool, err error) {
	unlock, ok := w.r.busy.try(id)
	if !ok {
		return false, nil
	}
	s, err := w.r.Status(ctx, id)
	if err == nil && s.Exit != nil && !w.told[id].Equal(s.StartedAt) {
		err = w.r.keepExit(ctx, s.Exit)
	}
	unlock()
	switch {
	case api.KindOf(err) == api.KindNotFound:
		return true, nil
	case err != nil:
		return false, err
	case s.Exit == nil:
		return s.State == container.StateCreated, nil
	case w.told[id].Equal(s.StartedAt):
		return true, nil
	}
	select {
	case w.out <- *s.Exit:
		w.told[id] = s.StartedAt
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
