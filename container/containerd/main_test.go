//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/container/containerd/supervise"
	"github.com/cloudless-project/cloudless/container/containertest"
	"github.com/cloudless-project/cloudless/container/logfile"
)

// The tests run a containerd of their own below a directory of their own, and
// this test binary is its log writer.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == logfile.Command {
		// Not os.Exit: a race-enabled binary would sleep for a second there, and the
		// shim waits for its log writer.
		syscall.Exit(logfile.Main(os.Args[2:]))
	}
	code := m.Run()
	if err := real.close(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = 1
	}
	os.Exit(code)
}

// bench is a containerd with everything that belongs to it.
type bench struct {
	once   sync.Once
	err    error
	dir    string
	cgroup string
	sup    *supervise.Supervisor
	rt     *Runtime
	cancel context.CancelFunc
	done   chan error
}

var real bench

// start returns the bench, started by the first test that needs it.
func (b *bench) start(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests run containerd: run them as root")
	}
	b.once.Do(func() { b.err = b.open() })
	if b.err != nil {
		t.Fatalf("%v (these tests need: apt-get install containerd runc busybox-static)", b.err)
	}
	return b
}

func (b *bench) open() (err error) {
	if b.dir, err = os.MkdirTemp("", "cl-containerd-"); err != nil {
		return err
	}
	b.cgroup = "/" + filepath.Base(b.dir)
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.sup, err = supervise.New(ctx, supervise.Config{DefaultAddress: "-", Root: b.dir + "/root", State: b.dir + "/state"})
	if err != nil {
		return err
	}
	b.done = make(chan error, 1)
	go func() { b.done <- b.sup.Run(ctx) }()
	select {
	case <-b.sup.Ready():
	case <-time.After(30 * time.Second):
		return errors.New("containerd does not start")
	}
	b.rt, err = New(b.config())
	return err
}

func (b *bench) config() Config {
	return Config{
		Address: b.sup.Address(), StateDir: b.dir + "/run", LogDir: b.dir + "/logs",
		CgroupParent: b.cgroup, ResyncEvery: time.Hour, Log: zap.NewNop(),
	}
}

// close removes all that the tests made, by its own names.
func (b *bench) close() error {
	if b.dir == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if b.rt != nil {
		list, err := b.rt.List(ctx)
		errs = append(errs, err)
		for _, s := range list {
			errs = append(errs, b.rt.Remove(ctx, s.ID))
		}
		errs = append(errs, b.rt.Close())
	}
	b.cancel()
	if b.done != nil {
		errs = append(errs, <-b.done)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	errs = append(errs, err)
	for line := range strings.Lines(string(mounts)) {
		if target := strings.Fields(line)[1]; strings.HasPrefix(target, b.dir+"/") {
			errs = append(errs, fmt.Errorf("%s is still mounted", target), syscall.Unmount(target, syscall.MNT_DETACH))
		}
	}
	parents, err := filepath.Glob("/sys/fs/cgroup/*" + b.cgroup)
	errs = append(errs, err)
	for _, dir := range append(parents, "/sys/fs/cgroup"+b.cgroup) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// install brings the busybox image.
func (b *bench) install(t testing.TB) string {
	t.Helper()
	const ref = "cloudless.test/busybox:1"
	containertest.Install(t, b.rt, containertest.Busybox(t, ref, nil))
	return ref
}

func TestConformance(t *testing.T) {
	b := real.start(t)
	containertest.Run(t, b.rt)
}
