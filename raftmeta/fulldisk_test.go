package raftmeta

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// smallDisk returns a directory on a disk of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("cloudless-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no room on a disk, and returns how to make room again.
func fill(t *testing.T, dir string) (free func()) {
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

func TestOpenRefusesAFullDisk(t *testing.T) {
	_, err := openOne(t, smallDisk(t, "32m"), "one")
	if api.KindOf(err) != api.KindExhausted {
		t.Errorf("want KindExhausted, got %v", err)
	}
	checkRefusal(t, err, "MiB left")
}

// A disk that fills up stops the anchor from changing anything, and nothing
// else: what was acknowledged stays, and with room it goes on by itself.
func TestDiskFillsUpAndIsFreed(t *testing.T) {
	dir := smallDisk(t, "80m")
	anchorDir := filepath.Join(dir, "anchor")
	a := mustOpen(t, anchorDir)
	eventually(t, "leads", a.IsLeader)
	free := fill(t, dir)
	acked := proposeUntilFull(t, a)
	if err := a.Full(); api.KindOf(err) != api.KindExhausted {
		t.Errorf("it does not say that it is full: %v", err)
	}
	term := a.raft.CurrentTerm()
	eventually(t, "some elections on a full disk", func() bool {
		if _, err := a.Propose(t.Context(), label(-1)); err == nil {
			t.Fatal("a change was acknowledged on a full disk")
		}
		return a.raft.CurrentTerm() >= term+3
	})
	free()
	eventually(t, "goes on", func() bool {
		_, err := a.Propose(t.Context(), label(acked))
		return err == nil
	})
	if err := a.Full(); err != nil {
		t.Errorf("it goes on and says: %v", err)
	}
	acked++
	checkNumbered(t, a.Store().View(), acked)
	closeAnchor(t, a)
	a = mustOpen(t, anchorDir)
	defer closeAnchor(t, a)
	eventually(t, "leads", func() bool { return a.VerifyLeader(t.Context()) == nil })
	checkNumbered(t, a.Store().View(), acked)
}

// proposeUntilFull returns how many commands were acknowledged before the disk
// was full.
func proposeUntilFull(t *testing.T, a *Anchor) int {
	t.Helper()
	for n := 0; ; n++ {
		cmd := label(n).(state.RecordEvent)
		cmd.Event.Fields = map[string]string{}
		for i := range 60 {
			cmd.Event.Fields[strings.Repeat("k", i+1)] = strings.Repeat("v", 1000)
		}
		_, err := a.Propose(t.Context(), cmd)
		if err == nil {
			continue
		}
		if api.KindOf(err) != api.KindExhausted {
			t.Errorf("want KindExhausted, got %v", err)
		}
		return n
	}
}

func checkNumbered(t *testing.T, v state.View, n int) {
	t.Helper()
	seen := map[string]bool{}
	for _, e := range v.EventsAfter(0, state.MaxEvents) {
		seen[e.Object.Name] = true
	}
	for i := range n {
		if name := label(i).(state.RecordEvent).Event.Object.Name; !seen[name] {
			t.Errorf("command %s of %d was acknowledged and is lost", name, n)
		}
	}
}
