//go:build linux

package containerd

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"golang.org/x/sys/unix"
)

// host is what this machine offers. It is found out once and then only read,
// so that the spec of a container is a function of values.
type host struct {
	cgroup   int    // version, 1 or 2
	swap     bool   // swap can be limited
	apparmor bool   // enabled, and profiles can be loaded
	selinux  bool   // enabled
	nofile   uint64 // how many open files a container may be allowed
	oomScore int    // of this process: a container's cannot be lower
}

// wantNofile is systemd's default for services. More makes some programs
// allocate by the limit.
const wantNofile = 512 << 10

func detectHost() host {
	h := host{cgroup: 1, apparmor: apparmor.HostSupports(), nofile: wantNofile}
	if cgroups.Mode() == cgroups.Unified {
		h.cgroup, h.swap = 2, true
	} else {
		h.swap = exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	}
	h.selinux = exists("/sys/fs/selinux/enforce") && exists("/etc/selinux/config")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		h.nofile = min(h.nofile, limit.Max)
	}
	if data, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		h.oomScore, _ = strconv.Atoi(string(bytes.TrimSpace(data)))
	}
	return h
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// oomKills returns how many processes the kernel killed in a cgroup for want of
// memory; 0 when the cgroup is gone.
func (h host) oomKills(cgroup string) int {
	file := "/sys/fs/cgroup/memory" + cgroup + "/memory.oom_control"
	if h.cgroup == 2 {
		file = "/sys/fs/cgroup" + cgroup + "/memory.events"
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(count))
			return n
		}
	}
	return 0
}
