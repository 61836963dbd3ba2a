package raftmeta

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cloudless-project/cloudless/api"
)

const childVar = "CLOUDLESS_RAFTMETA_CHILD"

// child runs instead of the tests in the process that TestKillNine kills: it
// proposes numbered commands on the directory in childVar, and prints each
// number once it was acknowledged.
func child() bool {
	dir := os.Getenv(childVar)
	if dir == "" {
		return false
	}
	if err := proposeForEver(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func proposeForEver(dir string) error {
	a, err := Open(Config{Dir: dir, ID: "one", Streams: new(hub).port("one"), Bootstrap: true, Timing: quick})
	if err != nil {
		return err
	}
	ctx := context.Background()
	for poll := time.NewTicker(time.Millisecond); a.VerifyLeader(ctx) != nil; {
		<-poll.C
	}
	for n := count(a.Store().View()); ; n++ {
		if _, err := a.Propose(ctx, label(n)); err != nil {
			return err
		}
		fmt.Println(n)
		if n%50 == 49 {
			if err := a.raft.Snapshot().Error(); err != nil {
				return err
			}
		}
	}
}

// TestKillNine kills a proposing anchor at random moments; every command that
// it acknowledged is there when it comes back.
func TestKillNine(t *testing.T) {
	dir := t.TempDir()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	acked := -1
	for round := range 15 {
		last, err := killedRun(t, dir, 1+rng.IntN(40), time.Duration(rng.IntN(3000))*time.Microsecond)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		acked = max(acked, last)
	}
	a := mustOpen(t, dir)
	defer closeAnchor(t, a)
	eventually(t, "leads", func() bool { return a.VerifyLeader(t.Context()) == nil })
	seen := map[string]bool{}
	for _, e := range a.Store().View().EventsAfter(0, 10000) {
		seen[e.Object.Name] = true
	}
	for n := 0; n <= acked; n++ {
		if !seen[strconv.Itoa(n)] {
			t.Errorf("command %d of %d was acknowledged and is lost", n, acked)
		}
	}
	t.Logf("%d commands acknowledged over 15 kills", acked+1)
}

// killedRun lets a child acknowledge some commands, waits a little, kills it,
// and returns the last number that it acknowledged.
func killedRun(t *testing.T, dir string, commands int, delay time.Duration) (int, error) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	last, lines := -1, bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			return 0, err
		}
		if i == commands {
			time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		return 0, fmt.Errorf("child ended by itself: %v: %s", err, stderr.String())
	}
	return last, nil
}

// TestTornLog cuts the newest file of the log at many places. The anchor then
// either has everything that was acknowledged, or refuses to start.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir)
	eventually(t, "leads", a.IsLeader)
	const commands = 30
	for i := range commands {
		propose(t, a, i)
	}
	closeAnchor(t, a)
	segment := newestSegment(t, dir)
	content, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	used := len(strings.TrimRight(string(content), "\x00"))
	opened, refused := 0, 0
	for _, cut := range []int{1 << 20, used + 64, used, used - 1, used - 7, used - 16, used - 100, used - 500, used / 2, 100, 40, 32, 31, 8, 1, 0} {
		copied := filepath.Join(t.TempDir(), "anchor")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(copied, "wal", filepath.Base(segment)), int64(cut)); err != nil {
			t.Fatal(err)
		}
		torn, err := openOne(t, copied, "one")
		if err != nil {
			refused++
			checkRefusal(t, err, "wal")
			continue
		}
		opened++
		eventually(t, "leads", func() bool { return torn.VerifyLeader(t.Context()) == nil })
		if n := count(torn.Store().View()); n != commands {
			t.Errorf("cut at %d of %d: %d of %d commands are there", cut, used, n, commands)
		}
		closeAnchor(t, torn)
	}
	if opened == 0 || refused == 0 {
		t.Errorf("opened %d times, refused %d times: the cuts are in the wrong places", opened, refused)
	}
}

func newestSegment(t *testing.T, dir string) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	return segments[len(segments)-1]
}

func checkRefusal(t *testing.T, err error, file string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Hint == "" || !strings.Contains(e.Message, file) {
		t.Errorf("the refusal does not help: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	flip := func(pattern string, at int64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			names, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(names) == 0 {
				t.Fatalf("no file %s", pattern)
			}
			f, err := os.OpenFile(names[len(names)-1], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{b[0] ^ 0x40}, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		file   string
		kind   api.Kind
	}{
		{"another node's directory", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, ownerFile), []byte("two"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "", api.KindConflict},
		{"a flipped bit in an old entry", flip("wal/*.wal", 1000), "wal", api.KindInternal},
		{"no good header in the log's table of contents", func(t *testing.T, dir string) {
			flip("wal/wal-meta.db", 16)(t, dir) // there are two, one of which may be torn by a crash
			flip("wal/wal-meta.db", int64(os.Getpagesize()+16))(t, dir)
		}, "wal", api.KindInternal},
		{"a table of contents cut short", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "wal", "wal-meta.db"), 5000); err != nil {
				t.Fatal(err)
			}
		}, "wal", api.KindInternal},
		{"a log that is gone", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
				t.Fatal(err)
			}
		}, "wal", api.KindInternal},
		{"a flipped bit in a snapshot", flip("snapshots/*/state.bin", 30), "snapshots", api.KindInternal},
		{"a snapshot without description", func(t *testing.T, dir string) {
			names, _ := filepath.Glob(filepath.Join(dir, "snapshots", "*", "meta.json"))
			if err := os.Remove(names[0]); err != nil {
				t.Fatal(err)
			}
		}, "snapshots", api.KindInternal},
		{"a flipped bit in the mark", flip(markFile, 7), markFile, api.KindInternal},
	}
	good := t.TempDir()
	a := mustOpen(t, good)
	eventually(t, "leads", a.IsLeader)
	for i := range 20 {
		propose(t, a, i)
	}
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	propose(t, a, 20)
	closeAnchor(t, a)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "anchor")
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			tt.damage(t, dir)
			a, err := openOne(t, dir, "one")
			if err == nil {
				closeAnchor(t, a)
				t.Fatal("it opens")
			}
			checkRefusal(t, err, tt.file)
			if api.KindOf(err) != tt.kind {
				t.Errorf("kind %s of %v", api.KindOf(err), err)
			}
		})
	}
}

func TestOpenRefusesADirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir)
	defer closeAnchor(t, a)
	if _, err := openOne(t, dir, "one"); api.KindOf(err) != api.KindConflict {
		t.Errorf("want KindConflict, got %v", err)
	}
}

// A log that fails under raft's feet, where raft would panic, ends the anchor
// and nothing else: Run says why, Close returns, and the next Open goes on.
func TestFailingLogHaltsTheAnchorAlone(t *testing.T) {
	for name, use := range map[string]func(*Anchor){
		"writing the term":  func(a *Anchor) { _ = raftJournal{a.journal}.SetUint64([]byte("CurrentTerm"), 9) },
		"reading an entry":  func(a *Anchor) { _ = raftJournal{a.journal}.GetLog(1, new(raft.Log)) },
		"appending entries": func(a *Anchor) { _, _ = a.Propose(t.Context(), label(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := mustOpen(t, dir)
			eventually(t, "leads", func() bool { return a.VerifyLeader(t.Context()) == nil })
			propose(t, a, 1)
			if err := a.journal.log.Close(); err != nil { // as if the disk had gone
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- a.Run(context.Background()) }()
			perished := make(chan struct{})
			go func() { defer close(perished); use(a) }() // raft's goroutines do the same
			<-perished
			select {
			case err := <-ended:
				if err == nil || a.halt.reason() == nil {
					t.Errorf("Run returned %v, halted because of %v", err, a.halt.reason())
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the anchor does not end")
			}
			b := mustOpen(t, dir)
			defer closeAnchor(t, b)
			eventually(t, "leads again", func() bool { return b.VerifyLeader(t.Context()) == nil })
			if n := count(b.Store().View()); n != 1 {
				t.Errorf("%d commands are there, want the one that was acknowledged", n)
			}
		})
	}
}
