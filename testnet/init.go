//go:build linux

package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// initEnv tells RunInit that this process is a device's init.
const initEnv = "CLOUDLESS_LAB_INIT"

// initConfig is what Boot tells the init of a device, through initEnv.
type initConfig struct {
	Hostname string `json:"hostname"`
	Disk     string `json:"disk"`    // host path, becomes DataDir
	Control  string `json:"control"` // host path of the socket it serves
	Owned    bool   `json:"owned"`   // descriptor 3 is the lifeline of the lab's owner
}

// DataDir is where a device's disk is mounted: what it keeps through a power
// cut.
const DataDir = "/var/lib/cloudless"

// resolver is the address at which every node answers DNS.
const resolver = "10.213.0.53"

// RunInit turns this process into what the lab started it for, the init of a
// device or a probe, and returns when it was started by anybody else. Call it
// first thing in main and in TestMain.
func RunInit() {
	if url, ok := os.LookupEnv(probeEnv); ok {
		fmt.Fprintln(os.Stderr, "probe:", runProbe(url))
		os.Exit(1)
	}
	cfg, ok := os.LookupEnv(initEnv)
	if !ok {
		return
	}
	fmt.Fprintln(os.Stderr, "init:", runInit(cfg)) // returns only when it failed
	os.Exit(1)
}

func runInit(env string) error {
	var cfg initConfig
	if err := json.Unmarshal([]byte(env), &cfg); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if os.Getpid() != 1 {
		return errors.New("not the first process of a PID namespace")
	}
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	// The socket lies in the host's /run, so it is made before that is hidden;
	// it appears under its name when the device is ready to take commands.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Control + ".new", Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	if err := os.Rename(cfg.Control+".new", cfg.Control); err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	if err := mountDevice(cfg.Disk); err != nil {
		return err
	}
	if cfg.Owned {
		go dieWithOwner(os.NewFile(3, "lifeline"))
	}
	return newSupervisor().serve(ln)
}

// dieWithOwner ends the device when the process that made the lab is gone, so
// that a killed test run leaves no machines behind.
func dieWithOwner(lifeline *os.File) {
	_, _ = lifeline.Read(make([]byte, 1)) // nobody writes: returns at the end of the owner
	os.Exit(1)                            // the end of PID 1 is the end of the device
}

// mountDevice gives the device file systems of its own where a machine keeps
// what belongs to itself; the rest of the tree is the host's.
func mountDevice(disk string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	resolvConf, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		resolvConf, err = "/etc/resolv.conf", nil
	}
	if err != nil {
		return fmt.Errorf("find resolv.conf: %w", err)
	}
	// Opened before its path may be hidden.
	dir, err := os.Open(disk)
	if err != nil {
		return fmt.Errorf("open disk: %w", err)
	}
	defer dir.Close()

	if err := (mount{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE}).do(); err != nil {
		return err
	}
	// Detached with all that lies below: runtimes read the list of mounts and
	// take the first cgroup they find, hidden or not.
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount /sys: %w", err)
	}
	steps := []mount{
		{source: "proc", target: "/proc", fstype: "proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{source: "sysfs", target: "/sys", fstype: "sysfs", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	}
	steps = append(steps, cgroupMounts(list)...)
	steps = append(steps,
		mount{source: "run", target: "/run", fstype: "tmpfs", data: "mode=755"},
		mount{source: "varlib", target: "/var/lib", fstype: "tmpfs", data: "mode=755"},
		mount{source: fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), target: DataDir, flags: unix.MS_BIND, mkdir: true},
	)
	for _, m := range steps {
		if err := m.do(); err != nil {
			return err
		}
	}
	return mountResolvConf(resolvConf)
}

// cgroupMounts mounts the hierarchies anew. In a cgroup namespace that shows
// the device's own cgroup as the root, so whatever path a runtime chooses, its
// containers stay below the device.
func cgroupMounts(list []hierarchy) []mount {
	var steps []mount
	if len(list) != 1 || !list[0].unified {
		steps = append(steps, mount{source: "cgroup", target: "/sys/fs/cgroup", fstype: "tmpfs", data: "mode=755"})
	}
	for _, h := range list {
		m := mount{source: "cgroup", target: h.mount, fstype: "cgroup", data: h.options, mkdir: true}
		if h.unified {
			m.fstype = "cgroup2"
		}
		steps = append(steps, m)
	}
	return steps
}

// mountResolvConf points the device at the DNS server of its own node.
func mountResolvConf(target string) error {
	const own = "/run/resolv.conf"
	if err := os.WriteFile(own, []byte("nameserver "+resolver+"\noptions timeout:2 attempts:2\n"), 0o644); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) { // it pointed into /run
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("make resolv.conf: %w", err)
		}
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			return fmt.Errorf("make resolv.conf: %w", err)
		}
	}
	return mount{source: own, target: target, flags: unix.MS_BIND}.do()
}

type mount struct {
	source, target, fstype, data string
	flags                        uintptr
	mkdir                        bool
}

func (m mount) do() error {
	if m.mkdir {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", m.source, m.fstype, m.target, err)
	}
	return nil
}
