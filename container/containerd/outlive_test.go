//go:build linux

package containerd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/containerd/supervise"
	"github.com/cloudless-project/cloudless/container/containertest"
)

// A daemon that comes back finds what runs, and how ended what has ended.
func TestNewClientAdopts(t *testing.T) {
	b := real.start(t)
	first, err := New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	s := b.run(t, container.Spec{Command: []string{"sh", "-c", "trap 'exit 9' TERM; echo ready; sleep 1000 & wait"}, Labels: map[string]string{"replica": "r"}})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second, err := New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	found, err := second.Status(t.Context(), s.ID)
	if err != nil || found.State != container.StateRunning || found.PID != s.PID || found.Labels["replica"] != "r" {
		t.Errorf("found %+v, %v; want %+v", found, err, s)
	}
	for e, err := range second.ReadLogs(t.Context(), s.ID, container.LogOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Line == "ready" {
			break
		}
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}

	// It ends while nobody looks.
	if err := syscall.Kill(s.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	third, err := New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if e := await(t, third.Exits(ctx), s.ID); e.Code != 9 || !e.StartedAt.Equal(s.StartedAt) {
		t.Errorf("exit: %+v", e)
	}
}

// Neither the containers nor those who wait for their exits notice more of a
// dying containerd than a pause.
func TestContainerdIsKilledAndComesBack(t *testing.T) {
	b := real.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits := b.rt.Exits(ctx)
	s := b.run(t, container.Spec{Command: []string{"sh", "-c", "echo ready; sleep 1000"}})
	short := container.Spec{ID: s.ID + ".short", Image: s.Image, Command: []string{"sh", "-c", "trap 'exit 6' TERM; echo ready; sleep 1000 & wait"}}
	t.Cleanup(func() { _ = b.rt.Remove(context.Background(), short.ID) })
	if err := b.rt.Create(ctx, short); err != nil {
		t.Fatal(err)
	}
	shortStatus, err := b.rt.Start(ctx, short.ID)
	if err != nil {
		t.Fatal(err)
	}
	for e := range b.rt.ReadLogs(ctx, short.ID, container.LogOptions{Follow: true}) {
		if e.Line == "ready" {
			break
		}
	}

	done := container.Spec{ID: s.ID + ".done", Image: s.Image, Command: containertest.Talkative}
	t.Cleanup(func() { _ = b.rt.Remove(context.Background(), done.ID) })
	if err := b.rt.Create(ctx, done); err != nil {
		t.Fatal(err)
	}
	if _, err := b.rt.Start(ctx, done.ID); err != nil {
		t.Fatal(err)
	}
	if e := await(t, exits, done.ID); e.Code != 3 {
		t.Errorf("exit before: %+v", e)
	}

	info, err := b.rt.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(containerdPID(t, b), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shortStatus.PID, syscall.SIGTERM); err != nil { // ends while containerd is away
		t.Fatal(err)
	}
	forgets := !strings.HasPrefix(info.Version, "1.6.") // finished tasks, when it starts
	if e := await(t, exits, short.ID); e.Code != 6 && (!forgets || e.Reason != container.ReasonLost) {
		t.Errorf("exit while containerd was away: %+v", e)
	}
	eventually(t, "containerd answers again", func() bool { return supervise.Probe(ctx, b.sup.Address()) == nil })
	if d, err := b.rt.Status(ctx, done.ID); err != nil || d.Exit == nil || d.Exit.Code != 3 || d.Exit.At.IsZero() {
		t.Errorf("what ended before is now %+v, %v", d, err)
	}
	again, err := b.rt.Status(ctx, s.ID)
	if err != nil || again.State != container.StateRunning || again.PID != s.PID {
		t.Errorf("the container is %+v, %v; was %+v", again, err, s)
	}
	if err := b.rt.Stop(ctx, s.ID, 0); err != nil {
		t.Fatal(err)
	}
	if e := await(t, exits, s.ID); e.Code != 137 || e.Reason != container.ReasonError {
		t.Errorf("exit afterwards: %+v", e)
	}
}

// containerdPID returns the process that listens at the bench's socket.
func containerdPID(t *testing.T, b *bench) int {
	t.Helper()
	return processOf(t, "containerd\x00--config\x00"+b.dir+"/state/config.toml\x00")
}

// processOf returns the process whose command line ends with what is given.
func processOf(t *testing.T, cmdline string) int {
	t.Helper()
	all, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		got, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && strings.HasSuffix(string(got), cmdline) {
			return pid
		}
	}
	t.Fatalf("no process %q", cmdline)
	return 0
}

// A run that nobody can tell the end of is lost, not running for ever.
func TestKilledShimMeansLost(t *testing.T) {
	b := real.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits := b.rt.Exits(ctx)
	s := b.run(t, container.Spec{Command: containertest.Stubborn})
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	var shim int
	if _, err := fmt.Sscanf(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " %s %d", new(string), &shim); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := await(t, exits, s.ID); e.Reason != container.ReasonLost {
		t.Errorf("exit: %+v", e)
	}
	if again, err := b.rt.Start(ctx, s.ID); err != nil || again.State != container.StateRunning {
		t.Errorf("start again: %+v, %v", again, err)
	}
}

func TestContainerdThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	rt, err := New(Config{Address: dir + "/none.sock", StateDir: dir, LogDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	if _, err := rt.Info(t.Context()); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("info: %v", err)
	}
	if _, err := rt.List(t.Context()); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("list: %v", err)
	}
	if err := rt.WriteBlob(t.Context(), "sha256:"+strings.Repeat("0", 64), 1, strings.NewReader("x")); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("write: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	exits := rt.Exits(ctx)
	cancel()
	for range exits {
	}
}
