package host

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// The oldest kernel with everything that a node uses and that still gets fixes.
const oldestMajor, oldestMinor = 5, 10

const (
	leastSpace = 64 << 20 // bytes; below, a daemon does not start
	fewSpace   = 5 << 30  // images alone take more
	fewFiles   = 10_000
)

func (e Examination) privileges(context.Context) (api.Check, bool) {
	if e.Lacks == "" {
		return ok("privileges", "all that running containers takes")
	}
	return warn("privileges", "run this as root, as the node itself must be to run containers; some checks see nothing without it", "%s", e.Lacks)
}

func (e Examination) kernel(context.Context) (api.Check, bool) {
	const name = "kernel"
	release := Kernel(e.Root)
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return warn(name, "mount /proc", "the release of the kernel cannot be read")
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return warn(name, fmt.Sprintf("upgrade to %d.%d or later", oldestMajor, oldestMinor), "%s gets no security fixes any more", release)
	}
	return ok(name, "%s", release)
}

func (e Examination) cgroups(context.Context) (api.Check, bool) {
	const name = "cgroups"
	version := Cgroup(e.Root)
	if version == "" {
		return fail(name, "mount cgroup2 at /sys/fs/cgroup", "none: nothing limits what a container takes")
	}
	has := controllers(e.Root)
	missing := slices.DeleteFunc([]string{"cpu", "memory", "pids"}, func(c string) bool { return slices.Contains(has, c) })
	if len(missing) > 0 {
		fix := "switch them on in the kernel's command line or configuration"
		if strings.HasPrefix(text(e.Root, "proc/device-tree/model"), "Raspberry Pi") {
			fix = "add \"cgroup_enable=memory cgroup_memory=1\" to the line in /boot/firmware/cmdline.txt and reboot"
		}
		return fail(name, fix, "version %s without %s: not all limits of workloads can be kept", version[1:], strings.Join(missing, ", "))
	}
	return ok(name, "version %s with cpu, memory and pids", version[1:])
}

func (e Examination) namespaces(context.Context) (api.Check, bool) {
	const name = "namespaces"
	var missing []string
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts"} {
		if _, err := fs.Lstat(e.Root, "proc/self/ns/"+ns); err != nil {
			missing = append(missing, ns)
		}
	}
	if len(missing) > 0 {
		return fail(name, "use a kernel that has them", "the kernel has none of the kinds %s", strings.Join(missing, ", "))
	}
	return ok(name, "mnt, net, pid, ipc, uts")
}

func (e Examination) overlay(context.Context) (api.Check, bool) {
	const name = "overlayfs"
	for line := range strings.Lines(text(e.Root, "proc/filesystems")) {
		if strings.HasSuffix(strings.TrimSpace(line), "\toverlay") {
			return ok(name, "layers of images are shared")
		}
	}
	return warn(name, "modprobe overlay; without the module every container has a copy of its image", "the kernel has not loaded it")
}

func (e Examination) runtime(ctx context.Context) (api.Check, bool) {
	const name = "runtime"
	err := e.Answer(ctx, e.Containerd)
	if err == nil {
		return ok(name, "containerd answers at %s", e.Containerd)
	}
	var missing []string
	for _, program := range []string{"containerd", "runc"} {
		if !e.Find(program) {
			missing = append(missing, program)
		}
	}
	switch {
	case len(missing) > 0:
		return fail(name, "install "+strings.Join(missing, " and ")+", e.g. apt-get install containerd runc; or start the node with --no-workloads",
			"no containerd answers at %s, and there is no program %s", e.Containerd, strings.Join(missing, " and no "))
	case exists(e.Root, below(e.Containerd)) && e.Lacks == "":
		return warn(name, "systemctl restart containerd; until then a node runs one of its own", "no containerd answers at %s: %v", e.Containerd, err)
	}
	return ok(name, "no containerd answers at %s; a node runs one of its own", e.Containerd)
}

func (e Examination) sandbox(context.Context) (api.Check, bool) {
	const name = "sandbox"
	if !exists(e.Root, "proc/sys/kernel/seccomp/actions_avail") {
		return fail(name, "use a kernel with CONFIG_SECCOMP_FILTER", "no seccomp: system calls of containers cannot be filtered")
	}
	has := []string{"seccomp"}
	if text(e.Root, "sys/module/apparmor/parameters/enabled") == "Y" {
		has = append(has, "AppArmor")
	}
	if exists(e.Root, "sys/fs/selinux/enforce") {
		has = append(has, "SELinux")
	}
	confined := len(has) > 1
	if e.Find("runsc") {
		has = append(has, "gVisor")
	}
	if !confined {
		return warn(name, "switch AppArmor on: install apparmor and boot with lsm=apparmor", "%s, and neither AppArmor nor SELinux", strings.Join(has, ", "))
	}
	return ok(name, "%s", strings.Join(has, ", "))
}

func (e Examination) clock(context.Context) (api.Check, bool) {
	const name = "clock"
	synchronised, known := e.Clock()
	switch {
	case !known:
		return notMade()
	case !synchronised:
		return warn(name, "timedatectl set-ntp true, or install chrony", "nothing keeps it right; \"cloudless network doctor\" says how far it is off")
	}
	return ok(name, "kept right by the network")
}

func (e Examination) disk(context.Context) (api.Check, bool) {
	const name = "disk"
	dir := existing(e.Root, e.DataDir)
	s, err := e.Disk(dir)
	if err != nil {
		return warn(name, "look at it with: df "+dir, "%s cannot be measured: %v", dir, err)
	}
	detail := fmt.Sprintf("%s: %s free of %s", dir, gib(s.Free), gib(s.Total))
	if class := StorageClass(e.Root, s.Device, dir); class != api.StorageUnknown {
		detail += " on " + string(class)
	}
	switch {
	case s.Free < leastSpace:
		return fail(name, "free some space, or move --data-dir to another disk", "%s: a node does not start", detail)
	case s.Free < fewSpace:
		return warn(name, "free some space, or move --data-dir to another disk", "%s: images alone take more", detail)
	case s.Counts && s.Files < fewFiles:
		return warn(name, "delete small files, or make the filesystem anew with more inodes", "%s, and only %d more files", detail, s.Files)
	}
	return ok(name, "%s", detail)
}

func gib(n uint64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
