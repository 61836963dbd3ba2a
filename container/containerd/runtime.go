//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// Config is the setting of a Runtime. Address, StateDir and LogDir are
// required.
type Config struct {
	Address      string        // path of containerd's socket
	StateDir     string        // FIFOs and runc's state; its content does not survive a reboot
	LogDir       string        // the containers' logs
	LogBinary    string        // absolute path of the binary that runs logfile.Main for the argument logfile.Command; default the running one
	Namespace    string        // of containerd; default "cloudless"
	CgroupParent string        // absolute path below the root cgroup; default "/cloudless"
	Snapshotter  string        // default overlayfs where it works, else native
	PullTimeout  time.Duration // for one image; default 15m
	ResyncEvery  time.Duration // how often Exits looks at every container although nothing happened; default 30s
	Log          *zap.Logger   // default none
}

func (c *Config) setDefaults() error {
	for name, dir := range map[string]string{"Address": c.Address, "StateDir": c.StateDir, "LogDir": c.LogDir} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("containerd: Config.%s %q is not an absolute path", name, dir)
		}
	}
	if c.LogBinary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("containerd: find own binary: %w", err)
		}
		c.LogBinary = self
	}
	setDefault(&c.Namespace, "cloudless")
	setDefault(&c.CgroupParent, "/cloudless")
	setDefault(&c.PullTimeout, 15*time.Minute)
	setDefault(&c.ResyncEvery, 30*time.Second)
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if !filepath.IsAbs(c.CgroupParent) {
		return fmt.Errorf("containerd: Config.CgroupParent %q is not an absolute path", c.CgroupParent)
	}
	return nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Runtime is a container.Runtime on one containerd. Close it when done; what
// runs keeps running.
type Runtime struct {
	cfg    Config
	client *client.Client
	host   host
	busy   locks // containers that are being changed, and blobs that are being written

	chosen atomic.Pointer[string] // the snapshotter
}

var _ container.Runtime = (*Runtime)(nil)

// New returns a Runtime for the containerd at cfg.Address, which need not
// answer yet.
func New(cfg Config) (*Runtime, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.StateDir, cfg.LogDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("prepare container runtime: %w", err)
		}
	}
	// containerd's client writes to a logger of the whole process what it also
	// returns as errors.
	if err := log.SetLevel("fatal"); err != nil {
		return nil, fmt.Errorf("silence containerd's client: %w", err)
	}
	// The timeout is also the longest pause between attempts to reconnect: a
	// restarted containerd must be noticed at once.
	c, err := client.New(cfg.Address, client.WithDefaultNamespace(cfg.Namespace), client.WithTimeout(time.Second))
	if err != nil {
		return nil, fmt.Errorf("dial containerd: %w", err)
	}
	return &Runtime{cfg: cfg, client: c, host: detectHost()}, nil
}

// Close drops the connection to containerd. Containers keep running.
func (r *Runtime) Close() error { return r.client.Close() }

// Info implements container.Runtime.
func (r *Runtime) Info(ctx context.Context) (container.Info, error) {
	version, err := r.client.Version(ctx)
	if err != nil {
		return container.Info{}, r.explain(err, "ask", "the version of containerd")
	}
	snapshotter, err := r.snapshotter(ctx)
	if err != nil {
		return container.Info{}, err
	}
	info := container.Info{Name: "containerd", Version: version.Version, Snapshotter: snapshotter, Cgroup: r.host.cgroup}
	content, err := r.client.IntrospectionService().Plugins(ctx, "type=="+plugins.ContentPlugin.String())
	if err != nil {
		return container.Info{}, r.explain(err, "ask", "containerd for its root")
	}
	for _, p := range content.Plugins {
		if root := p.Exports["root"]; root != "" {
			info.Root = filepath.Dir(root)
		}
	}
	return info, nil
}

// snapshotter returns the one to use; the answer never changes.
func (r *Runtime) snapshotter(ctx context.Context) (string, error) {
	if r.cfg.Snapshotter != "" {
		return r.cfg.Snapshotter, nil
	}
	if s := r.chosen.Load(); s != nil {
		return *s, nil
	}
	found, err := r.client.IntrospectionService().Plugins(ctx, "type=="+plugins.SnapshotPlugin.String())
	if err != nil {
		return "", r.explain(err, "ask", "containerd for its snapshotters")
	}
	works := make(map[string]bool)
	for _, p := range found.Plugins {
		works[p.ID] = p.InitErr == nil
	}
	for _, s := range []string{"overlayfs", "native"} {
		if works[s] {
			r.chosen.Store(&s)
			return s, nil
		}
	}
	return "", api.Errorf(api.KindUnsupported, "containerd has neither a working overlayfs nor a native snapshotter").
		WithHint("run 'ctr --address %s plugins ls' to see why", r.cfg.Address)
}

// explain turns an error of containerd into one for people where there is
// something to say, and wraps it where there is not.
func (r *Runtime) explain(err error, verb, noun string) error {
	var known *api.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	if _, raw := status.FromError(err); raw {
		err = errgrpc.ToNative(err)
	}
	switch {
	case errors.Is(err, context.Canceled), errdefs.IsCanceled(err):
		return fmt.Errorf("%s %s: %w", verb, noun, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), errdefs.IsDeadlineExceeded(err):
		return api.Errorf(api.KindTimeout, "%s %s: %w", verb, noun, err)
	case errdefs.IsNotFound(err):
		return api.Errorf(api.KindNotFound, "%s %s: %w", verb, noun, err)
	case errdefs.IsUnavailable(err):
		return api.Errorf(api.KindUnavailable, "%s %s: containerd at %s does not answer: %w", verb, noun, r.cfg.Address, err)
	case errdefs.IsResourceExhausted(err):
		return api.Errorf(api.KindExhausted, "%s %s: %w", verb, noun, err)
	}
	return fmt.Errorf("%s %s: %w", verb, noun, err)
}
