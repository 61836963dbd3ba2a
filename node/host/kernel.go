package host

import (
	"io/fs"
	"slices"
	"strings"
)

// Kernel returns the release of the kernel: "6.12.34+rpt-rpi-v8".
func Kernel(root fs.FS) string { return text(root, "proc/sys/kernel/osrelease") }

// Cgroup tells which version of cgroups limits containers, "" without any. On a
// host that mounts both, version 2 has no controllers, and version 1 does it.
func Cgroup(root fs.FS) string {
	switch {
	case exists(root, "sys/fs/cgroup/cgroup.controllers"):
		return "v2"
	case exists(root, "sys/fs/cgroup/memory") || exists(root, "sys/fs/cgroup/cpu"):
		return "v1"
	}
	return ""
}

// controllers lists the cgroup controllers that are switched on.
func controllers(root fs.FS) []string {
	if Cgroup(root) == "v2" {
		return strings.Fields(text(root, "sys/fs/cgroup/cgroup.controllers"))
	}
	var out []string
	for _, name := range names(root, "sys/fs/cgroup") {
		for part := range strings.SplitSeq(name, ",") { // "cpu,cpuacct"
			if !slices.Contains(out, part) {
				out = append(out, part)
			}
		}
	}
	return out
}
