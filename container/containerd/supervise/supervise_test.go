//go:build linux

package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// daemonArg makes the test binary a daemon that supervises a containerd below
// the directory that follows, until it is killed.
const daemonArg = "supervise-for-ever"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == daemonArg {
		if err := daemon(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func daemon(dir string) error {
	s, err := New(context.Background(), config(dir))
	if err != nil {
		return err
	}
	go func() {
		<-s.Ready()
		fmt.Println("ready")
	}()
	return s.Run(context.Background())
}

func config(dir string) Config {
	return Config{DefaultAddress: "-", Root: dir + "/root", State: dir + "/state"}
}

// scratch is a directory with a short name: sockets live in it.
func scratch(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests run containerd: run them as root")
	}
	if _, err := findBinaries(""); err != nil {
		t.Fatalf("%v (this test needs: apt-get install containerd runc)", err)
	}
	dir, err := os.MkdirTemp("", "cl-supervise-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// running is a supervisor that is running.
type running struct {
	*Supervisor
	stop func() error // ends it and waits
}

func run(t *testing.T, cfg Config) running {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := running{s, func() error { cancel(); err := <-done; done <- err; return err }}
	t.Cleanup(func() { _ = r.stop() })
	select {
	case <-s.Ready():
	case <-time.After(startTimeout):
		t.Fatal("containerd does not answer")
	}
	return r
}

// listener returns the process that listens at the supervisor's socket.
func listener(t *testing.T, s *Supervisor) int {
	t.Helper()
	p, err := s.adopt()
	if err != nil {
		t.Fatal(err)
	}
	return p.pid
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestRestartsWhatDied(t *testing.T) {
	s := run(t, config(scratch(t)))
	if !s.Own() {
		t.Error("not its own")
	}
	first := listener(t, s.Supervisor)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(startTimeout)
	for Probe(t.Context(), s.Address()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("it did not come back")
		}
		<-time.After(readyPoll)
	}
	second := listener(t, s.Supervisor)
	if err := s.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if alive(first) || alive(second) {
		t.Errorf("containerd is left: %d %v, %d %v", first, alive(first), second, alive(second))
	}
}

func TestAdoptsWhatAKilledDaemonLeft(t *testing.T) {
	dir := scratch(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, daemonArg, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the daemon says %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	s := run(t, config(dir))
	pid := listener(t, s.Supervisor)
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(cmdline), dir) {
		t.Errorf("adopted %q, %v", cmdline, err)
	}
	if log, err := os.ReadFile(s.logPath()); err != nil || strings.Contains(string(log), "address already in use") {
		t.Errorf("a second one was started: %v\n%s", err, log)
	}
	if err := s.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if Probe(t.Context(), s.Address()) == nil {
		t.Error("it still answers")
	}
}

func TestUsesTheOneThatAnswers(t *testing.T) {
	dir := scratch(t)
	other := run(t, config(dir))
	cfg := config(dir + "/mine")
	cfg.DefaultAddress = other.Address()
	found := run(t, cfg)
	if found.Own() || found.Address() != other.Address() {
		t.Errorf("uses %s, own %v", found.Address(), found.Own())
	}
	cfg.Address = other.Address()
	if given := run(t, cfg); given.Own() || given.Address() != other.Address() {
		t.Errorf("given: uses %s", given.Address())
	}
	// Once there are containers in an own one, it stays with that.
	meta := filepath.Join(cfg.Root, "io.containerd.metadata.v1.bolt")
	if err := os.MkdirAll(meta, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(meta, "meta.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Address = ""
	if s, err := New(t.Context(), cfg); err != nil || !s.Own() {
		t.Errorf("leaves its own containers alone: %v", err)
	}
}

func TestSaysWhatIsMissing(t *testing.T) {
	dir := scratch(t)
	cfg := config(dir)
	cfg.Binary = "/no/such/containerd"
	_, err := New(t.Context(), cfg)
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindUnsupported || !strings.Contains(e.Message, cfg.Binary) || !strings.Contains(e.Hint, "apt-get install containerd") {
		t.Errorf("no binary: %#v", err)
	}
	cfg = config(dir)
	cfg.Address = dir + "/none.sock"
	if _, err := New(t.Context(), cfg); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("nobody at the given address: %v", err)
	}
	cfg = config(dir)
	cfg.State = "/" + strings.Repeat("x", maxSocketPath)
	if _, err := New(t.Context(), cfg); api.KindOf(err) != api.KindInvalid {
		t.Errorf("a path that is too long: %v", err)
	}
}

func TestConfigQuotesPaths(t *testing.T) {
	got := string(configFile(`/a "b"\c`, "/state", "/state/s", -900))
	for _, want := range []string{`root = "/a \"b\"\\c"`, `address = "/state/s"`, `address = "/state/s.ttrpc"`, "oom_score = -900"} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("lacks %s:\n%s", want, got)
		}
	}
}
