package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// threeAnchors starts a cluster with three votes.
func threeAnchors(t *testing.T, edit func(*Config)) (a, b, c *device) {
	t.Helper()
	a, b, c = newDevice(t, "a"), newDevice(t, "b"), newDevice(t, "c")
	for _, d := range []*device{a, b, c} {
		d.cfg.Anchor = "always"
		if edit != nil {
			edit(&d.cfg)
		}
	}
	a.start(func(cfg *Config) { cfg.Init = true })
	for _, d := range []*device{b, c} {
		join := a.token(api.RoleNode)
		d.start(func(cfg *Config) { cfg.Join = join })
	}
	a.standings(map[string]api.AnchorStanding{"a": api.AnchorVoter, "b": api.AnchorVoter, "c": api.AnchorVoter})
	return a, b, c
}

// awaitEvent waits until there is an event of a code about a node.
func (h *device) awaitEvent(code api.Code, about string) {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	h.eventually(fmt.Sprintf("event %s of %s", code, about), func(ctx context.Context) error {
		events, err := c.Events(ctx, 0, 0, api.EventFilter{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(events, func(e api.Event) bool { return e.Code == code && e.Object.Name == about }) {
			return errors.New("there is none")
		}
		return nil
	})
}

// TestVoterWithoutItsLogBeginsAnew: a voter whose log is gone, or damaged, must
// not vote with what it has forgotten. It starts all the same, is taken out of
// the group and comes in again.
func TestVoterWithoutItsLogBeginsAnew(t *testing.T) {
	t.Parallel()
	a, b, c := threeAnchors(t, nil)
	three := map[string]api.AnchorStanding{"a": api.AnchorVoter, "b": api.AnchorVoter, "c": api.AnchorVoter}

	t.Run("gone", func(t *testing.T) {
		c.shutdown()
		if err := os.RemoveAll(filepath.Join(c.cfg.DataDir, raftDir)); err != nil {
			t.Fatal(err)
		}
		c.start(nil)
		b.awaitEvent(api.CodeAnchorHalted, "c")
		b.awaitEvent(api.CodeAnchorResumed, "c")
		c.standings(three)
		if !c.has(raftDir) || !c.has(authorityDir) {
			t.Error("it is a voter without a log or an authority")
		}
	})
	t.Run("damaged", func(t *testing.T) {
		b.shutdown()
		damageLog(t, filepath.Join(b.cfg.DataDir, raftDir))
		b.start(nil)
		a.eventually("b was let in again", func(context.Context) error {
			if !b.has(damagedDir) {
				return errors.New("its log was not set aside")
			}
			return nil
		})
		b.standings(three)
	})
	t.Run("not while it counts", func(t *testing.T) {
		// With only one other anchor there is no majority to take it out, and its
		// empty log must not make one.
		c.shutdown()
		b.shutdown()
		if err := os.RemoveAll(filepath.Join(b.cfg.DataDir, raftDir)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- Run(ctx, b.cfg, testLog(t)) }()
		b.stop, b.done = cancel, done
		cl := b.client()
		defer cl.Close()
		b.eventually("b says what is wrong", func(ctx context.Context) error {
			st, err := cl.Status(ctx)
			if err == nil && !strings.Contains(st.Reason, "anchors has ended") {
				err = fmt.Errorf("it says %q", st.Reason)
			}
			return err
		})
		at := a.client()
		defer at.Close()
		a.eventually("a does not lead", func(ctx context.Context) error {
			if _, err := at.Anchors(ctx); err == nil {
				return errors.New("the anchors answer")
			}
			return nil
		})
		if entries, err := os.ReadDir(filepath.Join(b.cfg.DataDir, raftDir)); err == nil && len(entries) > 0 {
			t.Error("b began an empty log while the group counts on the old one")
		}
		c.start(nil)
		c.standings(three)
	})
}

// damageLog flips bits in the middle of the log.
func damageLog(t *testing.T, raft string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(raft, "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	f, err := os.OpenFile(segments[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("this is no entry of a log"), 200); err != nil {
		t.Fatal(err)
	}
}

// TestHaltedAnchorGoesOnAsANode: the disk of the leader fills up. Its part among
// the anchors ends and another one leads, its daemon goes on, and with room it
// votes again.
func TestHaltedAnchorGoesOnAsANode(t *testing.T) {
	t.Parallel()
	onSmallDisk := func(cfg *Config) {
		if cfg.Name == "a" {
			smallDisk(t, cfg.DataDir, "150m")
		}
	}
	a, b, _ := threeAnchors(t, onSmallDisk)
	cl := a.client()
	defer cl.Close()
	a.eventually("a leads", func(ctx context.Context) error {
		_, _, err := cl.TransferLeadership(ctx, "a")
		return err
	})
	free := fillDisk(t, a.cfg.DataDir)
	var written int
	at := b.client()
	defer at.Close()
	a.within(4*patience, "a says what is wrong", func(ctx context.Context) error {
		st, err := cl.Status(ctx)
		if err != nil || strings.Contains(st.Reason, "the disk of") { // is full, and a moment later: has no room for an anchor
			return err
		}
		for range 8 { // it has some room left in its current file
			if _, _, err := at.Apply(ctx, bulky(written)); err == nil {
				written++
			}
		}
		return fmt.Errorf("it says %q", st.Reason)
	})
	b.standings(map[string]api.AnchorStanding{"a": api.AnchorHalted, "b": api.AnchorVoter, "c": api.AnchorVoter})
	a.eventually("the node of a answers", func(ctx context.Context) error {
		_, err := cl.Workload(ctx, "bulky")
		return err
	})
	b.awaitEvent(api.CodeAnchorHalted, "a")
	free()
	a.standings(map[string]api.AnchorStanding{"a": api.AnchorVoter, "b": api.AnchorVoter, "c": api.AnchorVoter})
	b.awaitEvent(api.CodeAnchorResumed, "a")
	w, err := cl.Workload(t.Context(), "bulky")
	if err != nil || w.Spec.Env["N"] != fmt.Sprint(written-1) && w.Spec.Env["N"] != fmt.Sprint(written) { // the last one may have been made unheard
		t.Errorf("write %d was acknowledged, the workload has %s: %v", written-1, w.Spec.Env["N"], err)
	}
}

// However often it was tried before, an anchor does not wait for long once others
// have done what they can.
func TestHowLongAHaltedAnchorWaits(t *testing.T) {
	full := api.Errorf(api.KindExhausted, "the disk is full")
	for name, c := range map[string]struct {
		fault fault
		want  time.Duration
	}{
		"its disk is full":       {fault{condition: logHeld, err: fmt.Errorf("open: %w", full)}, lookAgain},
		"its log is gone":        {fault{condition: logLost, err: errLogLost}, lookAgain},
		"its log cannot be read": {fault{condition: logHeld, err: errors.New("an entry of a newer version")}, time.Minute},
	} {
		if got := c.fault.pause(time.Minute); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if got := c.fault.pause(time.Second); got != time.Second {
			t.Errorf("%s, for the first time: %s", name, got)
		}
	}
}

// bulky is a workload that fills a log.
func bulky(n int) api.ApplyRequest {
	env := map[string]string{"N": fmt.Sprint(n)}
	for i := range 100 {
		env[fmt.Sprintf("BULK%d", i)] = strings.Repeat("x", 1000)
	}
	return api.ApplyRequest{Name: "bulky", Spec: api.WorkloadSpec{Image: "docker.io/library/web:1", Env: env}}
}

// smallDisk puts a disk of its own at a path.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("cloudless-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fillDisk leaves no room on a disk, and returns how to make room again.
func fillDisk(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}
