package fake

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// Status implements container.Containers.
func (r *Runtime) Status(_ context.Context, id string) (container.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.find(id)
	if err != nil {
		return container.Status{}, err
	}
	return e.snapshot(), nil
}

// List implements container.Containers.
func (r *Runtime) List(context.Context) ([]container.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]container.Status, 0, len(r.containers))
	for _, e := range r.containers {
		list = append(list, e.snapshot())
	}
	slices.SortFunc(list, func(a, b container.Status) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// Exits implements container.Containers.
func (r *Runtime) Exits(ctx context.Context) <-chan container.Exit {
	out := make(chan container.Exit)
	go func() {
		defer close(out)
		told := make(map[string]time.Time) // container → start of the last run told of
		for {
			exits, changed := r.untold(told)
			for _, e := range exits {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// untold returns the exits that were not told of, marks them as told, and says
// when there may be more.
func (r *Runtime) untold(told map[string]time.Time) ([]container.Exit, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var exits []container.Exit
	for id, e := range r.containers {
		if x := e.status.Exit; x != nil && !told[id].Equal(x.StartedAt) {
			told[id] = x.StartedAt
			exits = append(exits, *x)
		}
	}
	slices.SortFunc(exits, func(a, b container.Exit) int { return strings.Compare(a.ID, b.ID) })
	return exits, r.changed
}

// Exec implements container.Execer.
func (r *Runtime) Exec(ctx context.Context, id string, spec container.ExecSpec) (int, error) {
	if err := r.begin(ctx, "exec", id); err != nil {
		return 0, err
	}
	if len(spec.Args) == 0 {
		return 0, api.Invalid("command", "is missing")
	}
	r.mu.Lock()
	e, err := r.find(id)
	if err == nil && e.status.State != container.StateRunning {
		err = api.Errorf(api.KindUnavailable, "container %s is not running", id)
	}
	r.mu.Unlock()
	if err != nil || r.cfg.Exec == nil {
		return 0, err
	}
	return r.cfg.Exec(ctx, e.spec, spec)
}

// Log appends a line to a container's log.
func (r *Runtime) Log(id, stream, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.containers[id]; e != nil {
		e.log = append(e.log, container.LogEntry{Time: r.cfg.Clock.Now(), Stream: stream, Line: line})
		r.change()
	}
}

// ReadLogs implements container.Logs.
func (r *Runtime) ReadLogs(ctx context.Context, id string, opts container.LogOptions) iter.Seq2[container.LogEntry, error] {
	return func(yield func(container.LogEntry, error) bool) {
		next := 0
		for first := true; ; first = false {
			r.mu.Lock()
			e, err := r.find(id)
			changed := r.changed
			var entries []container.LogEntry
			if err == nil {
				entries = slices.Clone(e.log[min(next, len(e.log)):])
				next = len(e.log)
			}
			r.mu.Unlock()
			if err != nil {
				if first {
					yield(container.LogEntry{}, err)
				}
				return
			}
			entries = slices.DeleteFunc(entries, func(e container.LogEntry) bool { return e.Time.Before(opts.Since) })
			if first && opts.Tail != 0 {
				entries = entries[max(0, len(entries)-max(0, opts.Tail)):]
			}
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
			if !opts.Follow {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}
