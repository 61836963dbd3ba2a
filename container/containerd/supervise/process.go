//go:build linux

package supervise

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
)

// sbin is where distributions put what a service's PATH may lack.
const sbin = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// binaries are the programs that a containerd of our own needs.
type binaries struct {
	containerd string
	path       string // PATH for it, in which it finds its shim and runc
}

func findBinaries(containerd string) (binaries, error) {
	b := binaries{path: os.Getenv("PATH") + ":" + sbin}
	if containerd == "" {
		containerd = "containerd"
	}
	var missing []string
	for _, name := range []string{containerd, "containerd-shim-runc-v2", "runc"} {
		file, ok := lookPath(name, b.path)
		if !ok {
			missing = append(missing, name)
		}
		if name == containerd {
			b.containerd = file
		}
	}
	if len(missing) > 0 {
		return b, api.Errorf(api.KindUnsupported, "this host cannot run containers: %s not found", strings.Join(missing, ", ")).
			WithHint("install them: 'apt-get install containerd runc' on Debian and Ubuntu, 'dnf install containerd runc' or 'apk add containerd runc' elsewhere; or start the node with --no-workloads")
	}
	return b, nil
}

// lookPath is exec.LookPath for a search path that is not the environment's.
func lookPath(name, path string) (string, bool) {
	if filepath.IsAbs(name) {
		return name, executable(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, name); filepath.IsAbs(dir) && executable(file) {
			return file, true
		}
	}
	return "", false
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// process is a containerd, our child or not.
type process struct {
	pid   int
	fd    int // pidfd: the pid cannot come to mean another process
	ended chan struct{}
}

// start runs a containerd of our own.
func (s *Supervisor) start() (*process, error) {
	for _, dir := range []string{s.cfg.Root, s.cfg.State} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("start containerd: %w", err)
		}
	}
	config := filepath.Join(s.cfg.State, "config.toml")
	if err := os.WriteFile(config, configFile(s.cfg.Root, s.cfg.State, s.addr, oomScore()), 0o600); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	log, err := s.openLog()
	if err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(s.bins.containerd, "--config", config) // it outlives every context of ours
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PATH=") || strings.HasPrefix(kv, "NOTIFY_SOCKET=")
	})
	cmd.Env = append(cmd.Env, "PATH="+s.bins.path)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	p, err := watch(cmd.Process.Pid, func() { _ = cmd.Wait() })
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return p, nil
}

// adopt takes over the containerd that listens at our socket, if one does.
func (s *Supervisor) adopt() (*process, error) {
	conn, err := net.DialTimeout("unix", s.addr, probeTimeout) // a local socket
	if err != nil {
		return nil, fmt.Errorf("adopt containerd: %w", err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("adopt containerd: %w", err)
	}
	var peer *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("adopt containerd: %w", err)
	}
	return watch(int(peer.Pid), func() {})
}

// watch follows a process until it has ended, then reaps it.
func watch(pid int, reap func()) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch containerd (pid %d): %w", pid, err)
	}
	p := &process{pid: pid, fd: fd, ended: make(chan struct{})}
	go func() {
		for { // a pidfd becomes readable when its process has ended
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		reap()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process: kindly, and after grace by force. It returns when the
// process has ended.
func (p *process) stop(grace time.Duration) error {
	err := p.signal(unix.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(grace):
	}
	if err = errors.Join(err, p.signal(unix.SIGKILL)); err == nil {
		<-p.ended
	}
	return err
}

// close forgets a process that has ended.
func (p *process) close() { _ = unix.Close(p.fd) }

func (p *process) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
	if err == nil || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("stop containerd (pid %d): %w", p.pid, err)
}

func (s *Supervisor) logPath() string { return filepath.Join(s.cfg.State, "containerd.log") }

// maxLog is the size at which the log of containerd is put aside at a start. It
// writes warnings only.
const maxLog = 4 << 20

// openLog opens the file that containerd writes to. A pipe would break, and
// containerd with it, when the daemon is killed.
func (s *Supervisor) openLog() (*os.File, error) {
	if info, err := os.Stat(s.logPath()); err == nil && info.Size() > maxLog {
		if err := os.Rename(s.logPath(), s.logPath()+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(s.logPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}
