//go:build linux

package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bootTime bounds the start of a device's init, which takes some 50 ms.
const bootTime = 30 * time.Second

// nodeJob is the daemon's name at the device's init.
const nodeJob = "node"

// Device is one machine of the lab.
type Device struct {
	Name    string
	Site    string
	NAT     NAT
	Addr    netip.Addr // on its LAN, or on the internet when its site is public
	Dir     string     // on the host: disk/, home/ and the logs
	lab     *Lab
	machine machine

	mu  sync.Mutex
	off chan struct{} // closed when init has been reaped; nil when another process booted it
}

func newDevice(l *Lab, m machine) *Device {
	return &Device{
		Name: m.name, Site: m.site.Name, NAT: m.site.NAT, Addr: m.ip(),
		Dir: filepath.Join(l.Dir, m.name), lab: l, machine: m,
	}
}

func (d *Device) socket() string { return filepath.Join(runDir, d.lab.ID, d.Name) }

// Boot switches the device on. Its network namespace is new, as after any
// reboot; its disk is the one it had. A daemon that ran when the power went
// comes back, as a service manager would start it.
func (d *Device) Boot(ctx context.Context) error {
	if err := d.powerOn(ctx); err != nil {
		return fmt.Errorf("boot %s: %w", d.Name, err)
	}
	args, err := os.ReadFile(d.unitFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("boot %s: %w", d.Name, err)
	}
	var unit []string
	if err := json.Unmarshal(args, &unit); err != nil {
		return fmt.Errorf("boot %s: %w", d.Name, err)
	}
	return d.startNode(ctx, unit)
}

func (d *Device) powerOn(ctx context.Context) error {
	for _, dir := range []string{"disk", "home"} {
		if err := os.MkdirAll(filepath.Join(d.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	if _, err := ask(ctx, d.socket(), request{Op: "ping"}); err == nil {
		return errors.New("it is on already")
	}
	if _, err := os.Stat("/run/netns/" + d.machine.ns); err == nil {
		if err := d.machine.destroy(ctx); err != nil {
			return err
		}
	}
	if err := d.machine.build(ctx); err != nil {
		return err
	}
	cgroups, err := makeCgroups(d.lab.ID, d.Name)
	if err != nil {
		return err
	}
	_ = os.Remove(d.socket())
	logPath := filepath.Join(d.Dir, "init.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, err := d.initCommand(cgroups)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	off := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(off)
	}()
	d.mu.Lock()
	d.off = off
	d.mu.Unlock()
	return d.awaitInit(ctx, off, logPath)
}

// initCommand starts init in a chain of execs, so the process that is started
// here is the first one of the new PID namespace: it joins the device's
// cgroups, enters the network namespace, and takes the cgroups it is in by then
// as the root of its cgroup namespace.
func (d *Device) initCommand(cgroups []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cfg, err := json.Marshal(initConfig{
		Hostname: d.Name, Disk: filepath.Join(d.Dir, "disk"), Control: d.socket(), Owned: d.lab.lifeIn != nil,
	})
	if err != nil {
		return nil, err
	}
	const script = `
ns=$1 self=$2; shift 2
for dir; do echo 0 >"$dir/cgroup.procs" || exit 1; done
exec nsenter --net="/run/netns/$ns" unshare --cgroup "$self"`
	cmd := exec.Command("sh", append([]string{"-c", script, "init", d.machine.ns, self}, cgroups...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), initEnv+"="+string(cfg))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Setsid:     true,
	}
	if d.lab.lifeIn != nil {
		cmd.ExtraFiles = []*os.File{d.lab.lifeIn}
	}
	return cmd, nil
}

func (d *Device) awaitInit(ctx context.Context, off <-chan struct{}, logPath string) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	for {
		if _, err := ask(ctx, d.socket(), request{Op: "ping"}); err == nil {
			return nil
		}
		select {
		case <-off:
			return fmt.Errorf("init ended: %s", tail(logPath, 5))
		case <-ctx.Done():
			return fmt.Errorf("wait for init: %w: %s", ctx.Err(), tail(logPath, 5))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Kill cuts the power: first the cable, so that no packet tells anybody, then
// everything that runs. The disk stays as it is.
func (d *Device) Kill(ctx context.Context) error {
	if err := d.machine.plug(ctx, false); err != nil {
		return fmt.Errorf("kill %s: %w", d.Name, err)
	}
	if err := killCgroup(ctx, d.lab.ID, d.Name); err != nil {
		return fmt.Errorf("kill %s: %w", d.Name, err)
	}
	d.mu.Lock()
	off := d.off
	d.mu.Unlock()
	if off != nil {
		<-off
	}
	if err := os.Remove(d.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill %s: %w", d.Name, err)
	}
	return nil
}

// Cut makes the device's packets disappear, both ways.
func (d *Device) Cut(ctx context.Context) error { return d.machine.plug(ctx, false) }

// Heal undoes Cut.
func (d *Device) Heal(ctx context.Context) error { return d.machine.plug(ctx, true) }

// On reports whether the device has power.
func (d *Device) On(ctx context.Context) bool {
	_, err := ask(ctx, d.socket(), request{Op: "ping"})
	return err == nil
}

func (d *Device) unitFile() string { return filepath.Join(d.Dir, "node.unit.json") }

// LogFile is where the daemon's output goes, on the host.
func (d *Device) LogFile() string { return filepath.Join(d.Dir, "node.log") }

// Start starts the daemon, `cloudless node start` with the device's name, zone
// and data directory, and the given flags. It does not wait until the node is
// ready. The device will start it again when it boots, without the flags that
// only a first start takes.
func (d *Device) Start(ctx context.Context, flags ...string) error {
	unit := append([]string{"--data-dir", DataDir, "--name", d.Name, "--zone", d.Site}, flags...)
	if err := d.startNode(ctx, unit); err != nil {
		return err
	}
	b, err := json.Marshal(withoutFirstStart(unit))
	if err != nil {
		return err
	}
	return os.WriteFile(d.unitFile(), b, 0o600)
}

// withoutFirstStart drops --init, --cluster NAME and --join TOKEN.
func withoutFirstStart(flags []string) []string {
	var keep []string
	for i := 0; i < len(flags); i++ {
		switch flags[i] {
		case "--init":
		case "--join", "--cluster":
			i++
		default:
			keep = append(keep, flags[i])
		}
	}
	return keep
}

// Restart starts the daemon again after it was stopped, as the device's boot
// would.
func (d *Device) Restart(ctx context.Context) error {
	b, err := os.ReadFile(d.unitFile())
	if err != nil {
		return fmt.Errorf("restart node on %s: %w", d.Name, err)
	}
	var unit []string
	if err := json.Unmarshal(b, &unit); err != nil {
		return fmt.Errorf("restart node on %s: %w", d.Name, err)
	}
	return d.startNode(ctx, unit)
}

func (d *Device) startNode(ctx context.Context, flags []string) error {
	if d.lab.Binary == "" {
		return fmt.Errorf("start node on %s: the lab was built without a cloudless binary", d.Name)
	}
	log, err := os.OpenFile(d.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start node on %s: %w", d.Name, err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("start node on %s: %w", d.Name, err)
	}
	defer null.Close()
	req := request{
		Op: "start", Job: nodeJob, Dir: "/", Env: d.environ(nil),
		Args: append([]string{d.lab.Binary, "node", "start"}, flags...),
	}
	if _, err := ask(ctx, d.socket(), req, null, log, log); err != nil {
		return fmt.Errorf("start node on %s: %w", d.Name, err)
	}
	return nil
}

// SignalNode sends a signal to the daemon alone.
func (d *Device) SignalNode(ctx context.Context, sig syscall.Signal) error {
	if _, err := ask(ctx, d.socket(), request{Op: "signal", Job: nodeJob, Signal: sig}); err != nil {
		return fmt.Errorf("signal node on %s: %w", d.Name, err)
	}
	return nil
}

// NodePID returns the daemon's process number inside the device.
func (d *Device) NodePID(ctx context.Context) (int, error) {
	r, err := ask(ctx, d.socket(), request{Op: "status", Job: nodeJob})
	if err != nil {
		return 0, fmt.Errorf("find node on %s: %w", d.Name, err)
	}
	if r.Done {
		return 0, fmt.Errorf("find node on %s: it ended with code %d", d.Name, r.Exit)
	}
	return r.PID, nil
}

// NodeStatus says in a word or two whether the daemon runs.
func (d *Device) NodeStatus(ctx context.Context) string {
	r, err := ask(ctx, d.socket(), request{Op: "status", Job: nodeJob})
	switch {
	case err != nil:
		return "none"
	case r.Done:
		return fmt.Sprintf("ended, code %d", r.Exit)
	default:
		return fmt.Sprintf("runs, pid %d", r.PID)
	}
}

// WaitNode waits until the daemon has ended and returns its exit code.
func (d *Device) WaitNode(ctx context.Context) (int, error) {
	c, dec, err := send(ctx, d.socket(), request{Op: "wait", Job: nodeJob})
	if err != nil {
		return 0, fmt.Errorf("wait for node on %s: %w", d.Name, err)
	}
	defer c.Close()
	for {
		r, err := next(ctx, c, dec)
		if err != nil {
			return 0, fmt.Errorf("wait for node on %s: %w", d.Name, err)
		}
		if r.Done {
			return r.Exit, nil
		}
	}
}

// path puts the binary under test before everything else, so that by hand
// "cloudless" is enough.
func (d *Device) path() string {
	if d.lab.Binary == "" {
		return os.Getenv("PATH")
	}
	return filepath.Dir(d.lab.Binary) + ":" + os.Getenv("PATH")
}

// environ is what a fresh login on the device would have.
func (d *Device) environ(extra []string) []string {
	env := []string{
		"PATH=" + d.path(), "HOME=" + filepath.Join(d.Dir, "home"), "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM"),
	}
	for _, kv := range os.Environ() { // race detector, coverage, debugging of Go
		if strings.HasPrefix(kv, "GO") {
			env = append(env, kv)
		}
	}
	return append(env, extra...)
}

// tail returns the last n lines of a file, for error messages.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// LogTail returns the end of the daemon's log.
func (d *Device) LogTail(lines int) string { return tail(d.LogFile(), lines) }

// ExitError is a command that ended with another code than 0.
type ExitError struct {
	Device string
	Args   []string
	Code   int
	Stderr string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %s: exit code %d: %s", e.Device, strings.Join(e.Args, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// Cmd is a command to run on a device.
type Cmd struct {
	Args   []string
	Env    []string // added to the device's own
	Dir    string   // default: the device's home directory
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Output runs a command and returns what it printed. A code other than 0 is an
// *ExitError that carries what it complained about.
func (d *Device) Output(ctx context.Context, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	err := d.Run(ctx, Cmd{Args: args, Stdout: &out, Stderr: &errOut})
	var exit *ExitError
	if errors.As(err, &exit) {
		exit.Stderr = errOut.String()
	}
	return out.String(), err
}

// Run runs a command in the device and waits for it. When ctx ends first, the
// command is terminated.
func (d *Device) Run(ctx context.Context, cmd Cmd) error {
	stdio, err := newStdio(cmd)
	if err != nil {
		return fmt.Errorf("run on %s: %w", d.Name, err)
	}
	defer stdio.close()
	if cmd.Dir == "" {
		cmd.Dir = filepath.Join(d.Dir, "home")
	}
	req := request{Op: "run", Args: cmd.Args, Env: d.environ(cmd.Env), Dir: cmd.Dir}
	c, dec, err := send(ctx, d.socket(), req, stdio.files...)
	if err != nil {
		return fmt.Errorf("run on %s: %w", d.Name, err)
	}
	defer c.Close()
	stdio.started()
	for {
		r, err := next(ctx, c, dec)
		if err != nil {
			return fmt.Errorf("run on %s: %s: %w", d.Name, strings.Join(cmd.Args, " "), err)
		}
		if !r.Done {
			continue
		}
		stdio.drain()
		if r.Exit != 0 {
			return &ExitError{Device: d.Name, Args: slices.Clone(cmd.Args), Code: r.Exit}
		}
		return nil
	}
}
