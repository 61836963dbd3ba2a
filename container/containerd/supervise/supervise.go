//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/client"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// DefaultAddress is where the containerd of a distribution listens.
const DefaultAddress = "/run/containerd/containerd.sock"

const (
	probeTimeout  = 2 * time.Second
	startTimeout  = 30 * time.Second
	stopTimeout   = 10 * time.Second
	firstPause    = 200 * time.Millisecond
	longestPause  = 10 * time.Second
	healthyAfter  = 30 * time.Second // a run of this length resets the pause
	readyPoll     = 50 * time.Millisecond
	maxSocketPath = 107 - len(".ttrpc") // containerd listens at that name too
)

// Config is the setting of a Supervisor. Root and State are required.
type Config struct {
	Address        string // use the containerd at this socket and no other; default "", find or run one
	DefaultAddress string // where to look for one; default DefaultAddress, "-" looks nowhere
	Root           string // of an own containerd: images, snapshots, records; survives a reboot
	State          string // of an own containerd: its socket and what does not survive a reboot; a short path
	Binary         string // default containerd, looked for in PATH and the sbin directories
	Log            *zap.Logger
}

// Supervisor keeps a containerd reachable at Address.
type Supervisor struct {
	cfg   Config
	addr  string
	own   bool
	bins  binaries
	ready chan struct{}
}

// New decides which containerd to use. It starts nothing. The error says what a
// person must do when this host cannot run containers.
func New(ctx context.Context, cfg Config) (*Supervisor, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.DefaultAddress == "" {
		cfg.DefaultAddress = DefaultAddress
	}
	s := &Supervisor{cfg: cfg, ready: make(chan struct{})}
	if os.Geteuid() != 0 {
		return nil, api.Errorf(api.KindDenied, "running containers needs root").
			WithHint("start the node as root, or with --no-workloads")
	}
	if cfg.Address != "" {
		return s.use(cfg.Address, Probe(ctx, cfg.Address))
	}
	if !filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.State) {
		return nil, fmt.Errorf("supervise: Root %q and State %q must be absolute paths", cfg.Root, cfg.State)
	}
	if !ownedBefore(cfg.Root) && cfg.DefaultAddress != "-" && Probe(ctx, cfg.DefaultAddress) == nil {
		return s.use(cfg.DefaultAddress, nil)
	}
	s.own, s.addr = true, filepath.Join(cfg.State, "containerd.sock")
	if len(s.addr) > maxSocketPath {
		return nil, api.Invalid("data-dir", "the path of containerd's socket, %s, is longer than %d characters", s.addr, maxSocketPath).
			WithHint("choose a shorter directory")
	}
	bins, err := findBinaries(cfg.Binary)
	if err != nil {
		return nil, err
	}
	s.bins = bins
	return s, nil
}

// use settles on a containerd that is not ours to run.
func (s *Supervisor) use(addr string, err error) (*Supervisor, error) {
	if err != nil {
		return nil, api.Errorf(api.KindUnavailable, "no containerd answers at %s: %w", addr, err).
			WithHint("start it ('systemctl start containerd'), or leave the address out: the node then runs its own")
	}
	s.addr = addr
	close(s.ready)
	return s, nil
}

// ownedBefore reports whether a containerd of ours has data in root.
func ownedBefore(root string) bool {
	_, err := os.Stat(filepath.Join(root, "io.containerd.metadata.v1.bolt", "meta.db"))
	return err == nil
}

// Address returns the path of the socket, the same for the Supervisor's life.
func (s *Supervisor) Address() string { return s.addr }

// Own reports whether the containerd is run by this node.
func (s *Supervisor) Own() bool { return s.own }

// Ready is closed when containerd has answered for the first time.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Run keeps containerd running until ctx ends, then stops it if it is our own.
// Containers keep running.
func (s *Supervisor) Run(ctx context.Context) error {
	if !s.own {
		<-ctx.Done()
		return nil
	}
	pause := firstPause
	for {
		began := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return err
		}
		if time.Since(began) > healthyAfter {
			pause = firstPause
		}
		s.cfg.Log.Warn("containerd ended; starting it again", zap.Error(err), zap.Duration("pause", pause))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// runOnce adopts or starts a containerd and stays with it until it ends, or
// until ctx does, when it ends it.
func (s *Supervisor) runOnce(ctx context.Context) error {
	p, err := s.adopt()
	if err != nil {
		if p, err = s.start(); err != nil {
			return err
		}
	}
	defer p.close()
	if err := s.awaitReady(ctx, p); err != nil {
		stopped := p.stop(stopTimeout)
		if ctx.Err() != nil { // asked to end meanwhile, which is not a fault
			return stopped
		}
		return errors.Join(err, stopped)
	}
	select {
	case <-p.ended:
		return fmt.Errorf("containerd (pid %d) ended, see %s", p.pid, s.logPath())
	case <-ctx.Done():
		return p.stop(stopTimeout)
	}
}

// awaitReady waits until containerd answers.
func (s *Supervisor) awaitReady(ctx context.Context, p *process) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		if Probe(ctx, s.addr) == nil {
			break
		}
		select {
		case <-p.ended:
			return fmt.Errorf("containerd (pid %d) ended before it answered, see %s", p.pid, s.logPath())
		case <-ctx.Done():
			return fmt.Errorf("containerd (pid %d) does not answer: %w", p.pid, ctx.Err())
		case <-poll.C:
		}
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
	s.cfg.Log.Info("containerd answers", zap.String("address", s.addr), zap.Int("pid", p.pid), zap.Duration("took", time.Since(began)))
	return nil
}

// Probe returns nil when a containerd serves at addr.
func Probe(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// gRPC would go on trying a socket that is not there.
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", addr)
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	c, err := client.New(addr, client.WithTimeout(probeTimeout))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Version(ctx)
	return err
}
