// Package fake is a container.Runtime in memory, for tests of what drives one.
// Its containers run Scripts instead of programs; time comes from a Clock, so
// that it also works in a testing/synctest bubble.
package fake

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// Script is what a container does when it is started.
type Script struct {
	Output     []container.LogEntry // written at the start; the time is filled in
	After      time.Duration        // until it exits by itself; 0 with Runs = at once
	Runs       bool                 // it runs until it is stopped; After is ignored
	Code       int                  // exit code when it exits by itself
	OnStop     int                  // exit code when asked to stop
	IgnoreStop bool                 // only the end of the grace ends it
	StartErr   error                // Start fails with it
}

// Clock is where the fake takes time from.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f after d unless stop is called before.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// Config is the setting of a fake. The zero value is usable.
type Config struct {
	Script func(container.Spec) Script                                                        // default: runs until it is stopped
	Exec   func(context.Context, container.Spec, container.ExecSpec) (code int, err error)    // default: exits 0
	Remote func(ref string) (target container.Descriptor, blobs map[string][]byte, err error) // the registry; default: has nothing
	Fail   func(verb, noun string) error                                                      // called before each verb; a non-nil error is its result
	Clock  Clock                                                                              // default: time
}

// Runtime is the fake.
type Runtime struct {
	cfg Config

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced at every change
	blobs      map[string][]byte
	images     map[string]*image
	containers map[string]*entry
	calls      []string
	nextPID    int
}

type image struct {
	target   container.Descriptor
	unpacked bool
	bare     bool // added without blobs
}

// entry is one container.
type entry struct {
	spec   container.Spec
	status container.Status
	log    []container.LogEntry
	script Script
	cancel func() bool // stops the timer of the run
}

var _ container.Runtime = (*Runtime)(nil)

// New returns an empty runtime.
func New(cfg Config) *Runtime {
	if cfg.Script == nil {
		cfg.Script = func(container.Spec) Script { return Script{Runs: true, OnStop: 128 + 15} }
	}
	if cfg.Clock == nil {
		cfg.Clock = realClock{}
	}
	return &Runtime{
		cfg: cfg, changed: make(chan struct{}), nextPID: 1000,
		blobs: make(map[string][]byte), images: make(map[string]*image), containers: make(map[string]*entry),
	}
}

// AddImage makes an image that is complete and unpacked, without any content.
func (r *Runtime) AddImage(ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[ref] = &image{unpacked: true, bare: true}
}

// Kill ends a running container from outside, with an exit code and a reason.
func (r *Runtime) Kill(id string, code int, reason container.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.containers[id]; e != nil && e.status.State == container.StateRunning {
		r.finish(e, code, reason)
	}
}

// Reboot ends every running container unseen.
func (r *Runtime) Reboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.containers {
		if e.status.State == container.StateRunning {
			r.finish(e, 255, container.ReasonLost)
			e.status.Exit.At = time.Time{}
		}
	}
}

// Calls returns "verb noun" for every call that changes something, in order,
// refused ones included.
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Spec returns the spec of a container.
func (r *Runtime) Spec(id string) (container.Spec, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.containers[id]
	if e == nil {
		return container.Spec{}, false
	}
	return e.spec, true
}

// begin notes a call and lets the test refuse it.
func (r *Runtime) begin(ctx context.Context, verb, noun string) error {
	r.mu.Lock()
	r.calls = append(r.calls, verb+" "+noun)
	r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, noun, err)
	}
	if r.cfg.Fail == nil {
		return nil
	}
	return r.cfg.Fail(verb, noun)
}

// change wakes all that wait. The caller holds mu.
func (r *Runtime) change() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Info implements container.Runtime.
func (r *Runtime) Info(context.Context) (container.Info, error) {
	return container.Info{Name: "fake", Version: "1", Root: "/fake", Snapshotter: "none", Cgroup: 2}, nil
}

// Create implements container.Containers.
func (r *Runtime) Create(ctx context.Context, s container.Spec) error {
	if err := r.begin(ctx, "create", s.ID); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if s.Sandbox == container.SandboxGVisor {
		return api.Errorf(api.KindUnsupported, "this node has no gVisor")
	}
	if s.RunAsNonRoot && (s.User == "" || s.User == "0" || strings.HasPrefix(s.User, "0:") || s.User == "root") {
		return api.Invalid("security.runAsNonRoot", "the container would run as root")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.containers[s.ID]; e != nil {
		if e.spec.Fingerprint() != s.Fingerprint() {
			return api.Errorf(api.KindExists, "container %s exists with another spec", s.ID)
		}
		return nil
	}
	if img := r.images[s.Image]; img == nil || !img.unpacked {
		return api.Errorf(api.KindNotFound, "image %s is not unpacked on this node", s.Image)
	}
	r.containers[s.ID] = &entry{
		spec:   s,
		status: container.Status{ID: s.ID, Image: s.Image, Labels: s.Labels, State: container.StateCreated},
		cancel: func() bool { return false },
	}
	r.change()
	return nil
}

// Stage implements container.Containers.
func (r *Runtime) Stage(ctx context.Context, id string) error {
	if err := r.begin(ctx, "stage", id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.find(id)
	return err
}

// Start implements container.Containers.
func (r *Runtime) Start(ctx context.Context, id string) (container.Status, error) {
	if err := r.begin(ctx, "start", id); err != nil {
		return container.Status{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.find(id)
	if err != nil {
		return container.Status{}, err
	}
	if e.status.State == container.StateRunning {
		return e.snapshot(), nil
	}
	e.script = r.cfg.Script(e.spec)
	if e.script.StartErr != nil {
		return e.snapshot(), e.script.StartErr
	}
	now := r.cfg.Clock.Now()
	if !now.After(e.status.StartedAt) { // two runs never begin at the same time
		now = e.status.StartedAt.Add(1)
	}
	r.nextPID++
	e.status.State, e.status.PID, e.status.StartedAt, e.status.Exit = container.StateRunning, r.nextPID, now, nil
	for _, line := range e.script.Output {
		line.Time = now
		e.log = append(e.log, line)
	}
	if !e.script.Runs {
		e.cancel = r.cfg.Clock.AfterFunc(e.script.After, func() { r.expire(id, now) })
	}
	r.change()
	return e.snapshot(), nil
}

// expire ends the run that started at a time, unless it has ended.
func (r *Runtime) expire(id string, started time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.containers[id]
	if e == nil || e.status.State != container.StateRunning || !e.status.StartedAt.Equal(started) {
		return
	}
	reason := container.ReasonError
	if e.script.Code == 0 {
		reason = container.ReasonCompleted
	}
	r.finish(e, e.script.Code, reason)
}

// finish ends a run. The caller holds mu.
func (r *Runtime) finish(e *entry, code int, reason container.Reason) {
	e.cancel()
	e.status.State, e.status.PID = container.StateStopped, 0
	e.status.Exit = &container.Exit{
		ID: e.spec.ID, StartedAt: e.status.StartedAt, At: r.cfg.Clock.Now(), Code: code, Reason: reason,
	}
	r.change()
}

// Stop implements container.Containers.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := r.begin(ctx, "stop", id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.containers[id]
	if e == nil || e.status.State != container.StateRunning {
		return nil
	}
	if !e.script.IgnoreStop && grace > 0 {
		reason := container.ReasonError
		if e.script.OnStop == 0 {
			reason = container.ReasonCompleted
		}
		r.finish(e, e.script.OnStop, reason)
		return nil
	}
	if grace <= 0 {
		r.finish(e, 128+9, container.ReasonError)
		return nil
	}
	started, expired := e.status.StartedAt, make(chan struct{})
	cancel := r.cfg.Clock.AfterFunc(grace, func() { close(expired) })
	defer cancel()
	for e.status.State == container.StateRunning && e.status.StartedAt.Equal(started) {
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
			r.mu.Lock()
		case <-ctx.Done():
			r.mu.Lock()
			return fmt.Errorf("stop container %s: %w", id, ctx.Err())
		case <-expired:
			r.mu.Lock()
			if e.status.State == container.StateRunning && e.status.StartedAt.Equal(started) {
				r.finish(e, 128+9, container.ReasonError)
			}
			return nil
		}
	}
	return nil
}

// Remove implements container.Containers.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := r.begin(ctx, "remove", id); err != nil {
		return err
	}
	if err := container.ValidateID(id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.containers[id]; e != nil {
		e.cancel()
		e.status.State = container.StateStopped // ends a Stop that waits
		delete(r.containers, id)
		r.change()
	}
	return nil
}

// find returns a container. The caller holds mu.
func (r *Runtime) find(id string) (*entry, error) {
	if err := container.ValidateID(id); err != nil {
		return nil, err
	}
	e := r.containers[id]
	if e == nil {
		return nil, api.Errorf(api.KindNotFound, "no container %s on this node", id)
	}
	return e, nil
}

// snapshot returns a status that does not change any more.
func (e *entry) snapshot() container.Status {
	s := e.status
	if s.Exit != nil {
		exit := *s.Exit
		s.Exit = &exit
	}
	return s
}
