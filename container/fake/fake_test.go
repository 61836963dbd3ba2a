package fake

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/containertest"
)

// suiteScript imitates the programs of the conformance suite.
func suiteScript(s container.Spec) Script {
	switch {
	case slices.Equal(s.Command, containertest.Obedient):
		return Script{Runs: true, OnStop: 7, Output: []container.LogEntry{{Stream: "stdout", Line: "ready"}}}
	case slices.Equal(s.Command, containertest.Stubborn):
		return Script{Runs: true, IgnoreStop: true}
	case slices.Equal(s.Command, containertest.Talkative):
		return Script{Code: 3, Output: []container.LogEntry{{Stream: "stdout", Line: "out"}, {Stream: "stderr", Line: "err"}}}
	}
	return Script{}
}

func suiteExec(ctx context.Context, _ container.Spec, e container.ExecSpec) (int, error) {
	switch {
	case slices.Equal(e.Args, containertest.Stubborn):
		<-ctx.Done()
		return 0, ctx.Err()
	case !slices.Equal(e.Args, containertest.EchoInput):
		return 0, nil
	}
	if _, err := io.Copy(e.Stdout, e.Stdin); err != nil {
		return 0, err
	}
	_, err := io.WriteString(e.Stderr, "err\n")
	return 5, err
}

func TestConformance(t *testing.T) {
	containertest.Run(t, New(Config{Script: suiteScript, Exec: suiteExec}))
}

func TestScriptsRunInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Script: func(container.Spec) Script { return Script{After: time.Hour, Code: 9} }})
		r.AddImage("app")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := r.Create(ctx, container.Spec{ID: "a", Image: "app"}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Start(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if e := <-r.Exits(ctx); e.Code != 9 || time.Since(began) != time.Hour {
			t.Errorf("%+v after %v", e, time.Since(began))
		}
		if _, err := r.Start(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		r.Kill("a", 137, container.ReasonOOM)
		if s, err := r.Status(ctx, "a"); err != nil || s.Exit == nil || s.Exit.Reason != container.ReasonOOM {
			t.Errorf("killed: %+v, %v", s, err)
		}
		if want := []string{"create a", "start a", "start a"}; !slices.Equal(r.Calls(), want) {
			t.Errorf("calls = %q", r.Calls())
		}
		cancel()
		synctest.Wait()
	})
}

func TestRebootLosesWhatRan(t *testing.T) {
	r := New(Config{})
	r.AddImage("app")
	if err := r.Create(t.Context(), container.Spec{ID: "a", Image: "app"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r.Reboot()
	if e := <-r.Exits(t.Context()); e.Reason != container.ReasonLost || e.Code != 255 || !e.At.IsZero() {
		t.Errorf("%+v", e)
	}
}
