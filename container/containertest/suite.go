// Package containertest holds the suite that every container.Runtime must pass,
// and a small image to run it with.
package containertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// The programs that the suite runs. A runtime that runs nothing real imitates
// them.
var (
	// Obedient says "ready" and exits 7 when it is asked to end.
	Obedient = []string{"sh", "-c", "trap 'exit 7' TERM; echo ready; sleep 1000 & wait"}
	// Stubborn runs on when it is asked to end: init of a PID namespace is only
	// sent the signals that it handles.
	Stubborn = []string{"sleep", "1000"}
	// Talkative writes "out" and "err" to its two streams and exits 3.
	Talkative = []string{"sh", "-c", "echo out; echo err >&2; exit 3"}
	// EchoInput, for Exec, copies its input, writes "err" to stderr and exits 5.
	EchoInput = []string{"sh", "-c", "cat; echo err >&2; exit 5"}
)

// Ref is the name of the suite's image.
const Ref = "cloudless.test/suite:1"

// deadline bounds every wait of the suite; a runtime that works never comes
// near.
const deadline = 30 * time.Second

// suite is one runtime under test.
type suite struct {
	rt  container.Runtime
	img Image
}

// Run runs the suite. It may be run for one runtime several times: it removes
// what it made.
func Run(t *testing.T, rt container.Runtime) {
	s := &suite{rt: rt, img: Busybox(t, Ref, map[string]string{"containerd.io/restart.loguri": "binary:///bin/false"})}
	t.Run("Info", s.info)
	t.Run("Content", s.content)
	t.Run("Images", s.images)

	Install(t, rt, s.img)
	t.Cleanup(func() { _ = rt.RemoveImage(context.Background(), s.img.Ref) })
	t.Run("Refusals", s.refusals)
	t.Run("Life", s.life)
	t.Run("Idempotence", s.idempotence)
	t.Run("Staging", s.staging)
	t.Run("ExitAndLogs", s.exitAndLogs)
	t.Run("StopWaitsForGrace", s.stopWaitsForGrace)
	t.Run("ExitsBeginWithTheStopped", s.exitsBeginWithTheStopped)
	t.Run("ExitsTellEveryRun", s.exitsTellEveryRun)
	t.Run("Exec", s.exec)
	t.Run("FollowEndsWithTheContainer", s.followEndsWithTheContainer)
}

// create makes a container that the test removes.
func (s *suite) create(t *testing.T, command []string) container.Spec {
	t.Helper()
	spec := container.Spec{
		ID: "suite." + strings.NewReplacer("/", ".").Replace(t.Name()), Image: s.img.Ref, Command: command,
		Labels: map[string]string{"workload": "suite", "empty": ""},
	}
	t.Cleanup(func() {
		if err := s.rt.Remove(context.Background(), spec.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	if err := s.rt.Create(t.Context(), spec); err != nil {
		t.Fatalf("create: %v", err)
	}
	return spec
}

func (s *suite) start(t *testing.T, id string) container.Status {
	t.Helper()
	status, err := s.rt.Start(t.Context(), id)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	return status
}

// awaitExit waits for the container's next exit.
func awaitExit(t *testing.T, exits <-chan container.Exit, id string) container.Exit {
	t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case e, ok := <-exits:
			if !ok {
				t.Fatal("the exits ended")
			}
			if e.ID == id {
				return e
			}
		case <-timeout:
			t.Fatalf("no exit of %s", id)
		}
	}
}

func wantKind(t *testing.T, what string, err error, kind api.Kind) {
	t.Helper()
	if api.KindOf(err) != kind {
		t.Errorf("%s: error %v is of kind %q, want %q", what, err, api.KindOf(err), kind)
	}
}
