package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container/containerd/supervise"
	"github.com/cloudless-project/cloudless/node/host"
)

// HostConfig is what ExamineHost looks at.
type HostConfig struct {
	DataDir    string
	Socket     string // default DefaultSocket
	Containerd string // socket, default that of a distribution
}

// ExamineHost looks whether this machine is fit to be a node, and safe. No
// daemon needs to run, and nothing is changed.
func ExamineHost(ctx context.Context, cfg HostConfig) []api.Check {
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		dir = cfg.DataDir
	}
	return host.Examination{
		Root:       os.DirFS("/"),
		DataDir:    dir,
		Socket:     cmp.Or(cfg.Socket, DefaultSocket),
		Containerd: cmp.Or(cfg.Containerd, supervise.DefaultAddress),
		Disk:       measureDisk,
		Clock:      askKernelClock,
		Answer:     supervise.Probe,
		Find:       findProgram,
		Lacks:      missingPrivileges(),
	}.Run(ctx)
}

func measureDisk(dir string) (host.Space, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return host.Space{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return host.Space{}, err
	}
	dev, block := uint64(st.Dev), uint64(fs.Bsize) // of other types elsewhere
	return host.Space{
		Device: fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)),
		Free:   fs.Bavail * block, Total: fs.Blocks * block,
		Files: fs.Ffree, Counts: fs.Files > 0,
	}, nil
}

// askKernelClock asks whether a time service steers the kernel's clock.
func askKernelClock() (synchronised, known bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t) // without a mode it only reads
	if err != nil {
		return false, false
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, true
}

// findProgram looks where services find programs, not only where people do.
func findProgram(name string) bool {
	if _, err := exec.LookPath(name); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return true
		}
	}
	return false
}
