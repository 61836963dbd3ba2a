package containertest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

func (s *suite) refusals(t *testing.T) {
	ctx := t.Context()
	ok := container.Spec{ID: "suite.refused", Image: s.img.Ref, Command: Stubborn}
	for name, change := range map[string]func(*container.Spec){
		"bad id":              func(s *container.Spec) { s.ID = "../x" },
		"no image":            func(s *container.Spec) { s.Image = "" },
		"negative limit":      func(s *container.Spec) { s.MemoryLimit = -1 },
		"unknown sandbox":     func(s *container.Spec) { s.Sandbox = "chroot" },
		"unknown capability":  func(s *container.Spec) { s.Capabilities = []string{"CAP_CHOWN"} },
		"relative mount":      func(s *container.Spec) { s.Mounts = []container.Mount{{Source: "x", Target: "/x"}} },
		"mount over /proc":    func(s *container.Spec) { s.Mounts = []container.Mount{{Source: "/etc", Target: "/proc/1"}} },
		"two on one target":   func(s *container.Spec) { s.Tmpfs = []container.Tmpfs{{Target: "/a", Size: 1}, {Target: "/a", Size: 1}} },
		"root where non-root": func(s *container.Spec) { s.RunAsNonRoot = true },
	} {
		spec := ok
		change(&spec)
		wantKind(t, name, s.rt.Create(ctx, spec), api.KindInvalid)
	}
	missing := ok
	missing.Image = "cloudless.test/missing:1"
	wantKind(t, "missing image", s.rt.Create(ctx, missing), api.KindNotFound)

	const id = "suite.nobody"
	_, err := s.rt.Start(ctx, id)
	wantKind(t, "start nobody", err, api.KindNotFound)
	_, err = s.rt.Status(ctx, id)
	wantKind(t, "status of nobody", err, api.KindNotFound)
	_, err = s.rt.Exec(ctx, id, container.ExecSpec{Args: EchoInput})
	wantKind(t, "exec in nobody", err, api.KindNotFound)
	for _, err := range s.rt.ReadLogs(ctx, id, container.LogOptions{}) {
		wantKind(t, "log of nobody", err, api.KindNotFound)
	}
}

func (s *suite) life(t *testing.T) {
	ctx := t.Context()
	spec := s.create(t, Obedient)
	status, err := s.rt.Status(ctx, spec.ID)
	if err != nil || status.State != container.StateCreated || status.PID != 0 || status.Exit != nil || !status.StartedAt.IsZero() {
		t.Fatalf("created: %+v, %v", status, err)
	}
	if status.Image != spec.Image || !maps.Equal(status.Labels, spec.Labels) {
		t.Errorf("image %q, labels %v", status.Image, status.Labels)
	}

	before := time.Now().Add(-time.Second)
	status = s.start(t, spec.ID)
	if status.State != container.StateRunning || status.PID == 0 || status.StartedAt.Before(before) || status.Exit != nil {
		t.Fatalf("started: %+v", status)
	}
	list, err := s.rt.List(ctx)
	if err != nil || !slices.ContainsFunc(list, func(o container.Status) bool {
		return o.ID == spec.ID && o.PID == status.PID && o.StartedAt.Equal(status.StartedAt)
	}) {
		t.Errorf("list = %+v, %v", list, err)
	}

	s.awaitLine(t, spec.ID, "ready")
	if err := s.rt.Stop(ctx, spec.ID, deadline); err != nil {
		t.Fatalf("stop: %v", err)
	}
	stopped, err := s.rt.Status(ctx, spec.ID)
	if err != nil || stopped.State != container.StateStopped || stopped.PID != 0 || stopped.Exit == nil {
		t.Fatalf("stopped: %+v, %v", stopped, err)
	}
	if e := stopped.Exit; e.Code != 7 || e.Reason != container.ReasonError || e.At.IsZero() || !e.StartedAt.Equal(status.StartedAt) || e.ID != spec.ID {
		t.Errorf("exit: %+v", e)
	}

	again := s.start(t, spec.ID)
	if again.State != container.StateRunning || !again.StartedAt.After(status.StartedAt) || again.Exit != nil {
		t.Errorf("started again: %+v", again)
	}
	if err := s.rt.Remove(ctx, spec.ID); err != nil {
		t.Fatalf("remove while running: %v", err)
	}
	_, err = s.rt.Status(ctx, spec.ID)
	wantKind(t, "status of the removed", err, api.KindNotFound)
}

// staging makes everything ready but the process; a start goes on from there,
// and what is not wanted after all leaves nothing behind.
func (s *suite) staging(t *testing.T) {
	ctx := t.Context()
	wantKind(t, "stage nobody", s.rt.Stage(ctx, "suite.nobody"), api.KindNotFound)
	spec := s.create(t, Obedient)
	for range 2 {
		if err := s.rt.Stage(ctx, spec.ID); err != nil {
			t.Fatalf("stage: %v", err)
		}
	}
	staged, err := s.rt.Status(ctx, spec.ID)
	if err != nil || staged.State != container.StateCreated || !staged.StartedAt.IsZero() || staged.Exit != nil {
		t.Errorf("staged: %+v, %v", staged, err)
	}
	if err := s.rt.Stop(ctx, spec.ID, deadline); err != nil {
		t.Errorf("stop what is staged: %v", err)
	}
	started := s.start(t, spec.ID)
	if started.State != container.StateRunning || started.PID == 0 || started.StartedAt.IsZero() {
		t.Errorf("started: %+v", started)
	}
	s.awaitLine(t, spec.ID, "ready")
	if err := s.rt.Stage(ctx, spec.ID); err != nil {
		t.Errorf("stage what runs: %v", err)
	}
	if again, err := s.rt.Status(ctx, spec.ID); err != nil || again.PID != started.PID {
		t.Errorf("staging touched a run: %+v, %v", again, err)
	}

	if err := s.rt.Remove(ctx, spec.ID); err != nil {
		t.Fatalf("remove: %v", err)
	}
	unwanted := s.create(t, Obedient)
	if err := s.rt.Stage(ctx, unwanted.ID); err != nil {
		t.Fatalf("stage: %v", err)
	}
	if err := s.rt.Remove(ctx, unwanted.ID); err != nil {
		t.Errorf("remove what is staged: %v", err)
	}
	_, err = s.rt.Status(ctx, unwanted.ID)
	wantKind(t, "status of the removed", err, api.KindNotFound)
}

func (s *suite) idempotence(t *testing.T) {
	ctx := t.Context()
	spec := s.create(t, Stubborn)
	if err := s.rt.Create(ctx, spec); err != nil {
		t.Errorf("create again: %v", err)
	}
	other := spec
	other.MemoryLimit = 64 << 20
	wantKind(t, "create with another spec", s.rt.Create(ctx, other), api.KindExists)
	if err := s.rt.Stop(ctx, spec.ID, 0); err != nil {
		t.Errorf("stop before start: %v", err)
	}
	first, second := s.start(t, spec.ID), s.start(t, spec.ID)
	if first.PID != second.PID || !first.StartedAt.Equal(second.StartedAt) {
		t.Errorf("the second start is another run: %+v, %+v", first, second)
	}
	for range 2 {
		if err := s.rt.Stop(ctx, spec.ID, 0); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	for range 2 {
		if err := s.rt.Remove(ctx, spec.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if err := s.rt.Stop(ctx, spec.ID, 0); err != nil {
		t.Errorf("stop after remove: %v", err)
	}
}

func (s *suite) exitAndLogs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits := s.rt.Exits(ctx)
	spec := s.create(t, Talkative)
	status := s.start(t, spec.ID)
	e := awaitExit(t, exits, spec.ID)
	if e.Code != 3 || e.Reason != container.ReasonError || e.At.IsZero() || !e.StartedAt.Equal(status.StartedAt) {
		t.Errorf("exit: %+v", e)
	}
	s.awaitLine(t, spec.ID, "out")
	s.awaitLine(t, spec.ID, "err")
	entries := s.log(t, spec.ID, container.LogOptions{})
	slices.SortFunc(entries, func(a, b container.LogEntry) int { return strings.Compare(a.Line, b.Line) })
	if len(entries) != 2 || entries[0].Stream != "stderr" || entries[1].Stream != "stdout" || entries[1].Time.IsZero() {
		t.Errorf("log: %+v", entries)
	}
	if tail := s.log(t, spec.ID, container.LogOptions{Tail: 1}); len(tail) != 1 {
		t.Errorf("tail: %+v", tail)
	}
	if tail := s.log(t, spec.ID, container.LogOptions{Tail: -1}); len(tail) != 0 {
		t.Errorf("no tail: %+v", tail)
	}
	if late := s.log(t, spec.ID, container.LogOptions{Since: time.Now().Add(time.Hour)}); len(late) != 0 {
		t.Errorf("since: %+v", late)
	}
	cancel()
	for range exits { // closed when its context ends
	}
}

func (s *suite) log(t *testing.T, id string, opts container.LogOptions) []container.LogEntry {
	t.Helper()
	var entries []container.LogEntry
	for e, err := range s.rt.ReadLogs(t.Context(), id, opts) {
		if err != nil {
			t.Fatalf("read log: %v", err)
		}
		entries = append(entries, e)
	}
	return entries
}

// awaitLine waits until the container has written a line.
func (s *suite) awaitLine(t *testing.T, id, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for e, err := range s.rt.ReadLogs(ctx, id, container.LogOptions{Follow: true}) {
		if err != nil {
			t.Fatalf("follow log: %v", err)
		}
		if e.Line == line {
			return
		}
	}
	t.Fatalf("%s never wrote %q", id, line)
}

func (s *suite) stopWaitsForGrace(t *testing.T) {
	spec := s.create(t, Stubborn)
	s.start(t, spec.ID)
	const grace = 300 * time.Millisecond
	began := time.Now()
	if err := s.rt.Stop(t.Context(), spec.ID, grace); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < grace {
		t.Errorf("killed after %v, before its grace of %v", took, grace)
	}
	status, err := s.rt.Status(t.Context(), spec.ID)
	if err != nil || status.Exit == nil || status.Exit.Code != 128+9 || status.Exit.Reason != container.ReasonError {
		t.Errorf("status: %+v, exit %+v, %v", status, status.Exit, err)
	}
}

func (s *suite) exitsBeginWithTheStopped(t *testing.T) {
	spec := s.create(t, Stubborn)
	s.start(t, spec.ID)
	if err := s.rt.Stop(t.Context(), spec.ID, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second reader gets it, too
		ctx, cancel := context.WithCancel(t.Context())
		if e := awaitExit(t, s.rt.Exits(ctx), spec.ID); e.Code != 128+9 {
			t.Errorf("exit: %+v", e)
		}
		cancel()
	}
}

func (s *suite) exitsTellEveryRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits := s.rt.Exits(ctx)
	spec := s.create(t, Talkative)
	for run := range 3 {
		status := s.start(t, spec.ID)
		if e := awaitExit(t, exits, spec.ID); !e.StartedAt.Equal(status.StartedAt) {
			t.Fatalf("run %d started at %v, but the exit says %v", run, status.StartedAt, e.StartedAt)
		}
	}
}

func (s *suite) exec(t *testing.T) {
	ctx := t.Context()
	spec := s.create(t, Stubborn)
	_, err := s.rt.Exec(ctx, spec.ID, container.ExecSpec{Args: EchoInput})
	wantKind(t, "exec before start", err, api.KindUnavailable)
	s.start(t, spec.ID)

	var stdout, stderr bytes.Buffer
	code, err := s.rt.Exec(ctx, spec.ID, container.ExecSpec{
		Args: EchoInput, Stdin: strings.NewReader("some input"), Stdout: &stdout, Stderr: &stderr,
	})
	if got := fmt.Sprintf("%d %q %q %v", code, &stdout, &stderr, err); got != `5 "some input" "err\n" <nil>` {
		t.Errorf("exec: %s", got)
	}
	if code, err := s.rt.Exec(ctx, spec.ID, container.ExecSpec{Args: []string{"true"}}); code != 0 || err != nil {
		t.Errorf("exec without streams: %d, %v", code, err)
	}
	_, err = s.rt.Exec(ctx, spec.ID, container.ExecSpec{})
	wantKind(t, "exec of nothing", err, api.KindInvalid)

	brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := s.rt.Exec(brief, spec.ID, container.ExecSpec{Args: Stubborn}); err == nil {
		t.Error("an exec outlived its context")
	}
}

func (s *suite) followEndsWithTheContainer(t *testing.T) {
	spec := s.create(t, Obedient)
	s.start(t, spec.ID)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for e, err := range s.rt.ReadLogs(ctx, spec.ID, container.LogOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Line == "ready" {
			if err := s.rt.Remove(ctx, spec.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ctx.Err() != nil {
		t.Error("follow went on after the container was removed")
	}
}
