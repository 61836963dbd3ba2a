//go:build linux

package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

const (
	apparmorProfile = "cloudless-default"
	cpuPeriod       = 100_000 // µs, the kernel's default
	tmpSize         = 64 << 20
	runSize         = 16 << 20
	maxHostname     = 63
	// containerOOMScore lets the host's own daemons outlive containers when the
	// whole machine runs out of memory.
	containerOOMScore = 100
)

// process sets what runs: the image's command unless the spec has another.
func process(s *container.Spec, image ocispec.ImageConfig) oci.SpecOpts {
	return func(ctx context.Context, c oci.Client, cr *containers.Container, out *oci.Spec) error {
		args := slices.Concat(s.Command, s.Args)
		if len(s.Command) == 0 {
			args = slices.Concat(image.Entrypoint, s.Args)
			if len(s.Args) == 0 {
				args = slices.Concat(image.Entrypoint, image.Cmd)
			}
		}
		if len(args) == 0 {
			return api.Invalid("command", "neither the workload nor its image says what to run")
		}
		opts := []oci.SpecOpts{oci.WithProcessArgs(args...), oci.WithEnv(environment(s.Env))}
		if s.WorkingDir != "" {
			opts = append(opts, oci.WithProcessCwd(s.WorkingDir))
		}
		hostname := s.Hostname
		if hostname == "" {
			hostname = s.ID[:min(len(s.ID), maxHostname)]
		}
		opts = append(opts, oci.WithHostname(hostname))
		if s.User != "" {
			opts = append(opts, oci.WithUser(s.User))
		}
		if err := oci.ApplyOpts(ctx, c, cr, out, opts...); err != nil {
			return api.Errorf(api.KindInvalid, "the image cannot run as asked: %w", err)
		}
		if s.RunAsNonRoot && out.Process.User.UID == 0 {
			return api.Invalid("security.runAsNonRoot", "the container would run as root").
				WithHint("set user to a uid other than 0, or build the image with USER")
		}
		return nil
	}
}

func environment(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// limits puts the container into its own cgroup with its share of the machine.
func limits(h host, s *container.Spec, cgroup string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, out *oci.Spec) error {
		out.Linux.CgroupsPath = cgroup
		out.Linux.Namespaces = append(out.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		out.Mounts = append(out.Mounts, specs.Mount{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"ro", "nosuid", "noexec", "nodev"},
		})
		res := out.Linux.Resources
		res.CPU, res.Memory = &specs.LinuxCPU{}, &specs.LinuxMemory{}
		if s.CPULimit > 0 {
			quota, period := max(s.CPULimit*cpuPeriod/1000, 1000), uint64(cpuPeriod) // the kernel takes no less than 1 ms
			res.CPU.Quota, res.CPU.Period = &quota, &period
		}
		if s.CPUShares > 0 {
			shares := uint64(max(s.CPUShares*1024/1000, 2)) // runc converts it to a weight for v2
			res.CPU.Shares = &shares
		}
		if s.MemoryLimit > 0 {
			res.Memory.Limit = &s.MemoryLimit
			if h.swap {
				res.Memory.Swap = &s.MemoryLimit // memory and swap together: no swap
			} else {
				var none uint64
				res.Memory.Swappiness = &none
			}
			if h.cgroup == 2 {
				// All of it or nothing: half of a service is worse than a restart.
				res.Unified = map[string]string{"memory.oom.group": "1"}
			}
		}
		if s.PIDLimit > 0 {
			res.Pids = &specs.LinuxPids{Limit: &s.PIDLimit}
		}
		score := max(containerOOMScore, h.oomScore)
		out.Process.OOMScoreAdj = &score
		out.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: min(1024, h.nofile), Hard: h.nofile}}
		return nil
	}
}

// confine takes away all that the spec does not ask for.
func confine(h host, s *container.Spec) oci.SpecOpts {
	return func(ctx context.Context, c oci.Client, cr *containers.Container, out *oci.Spec) error {
		out.Process.NoNewPrivileges = true
		out.Process.Capabilities = capabilities(s.Capabilities, out.Process.User.UID)
		out.Root.Readonly = !s.WritableRootfs
		opts := []oci.SpecOpts{
			oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: s.NetNS}),
			mounts(s),
			seccomp.WithDefaultProfile(), // after the capabilities, which it takes into account
		}
		if h.apparmor {
			opts = append(opts, apparmor.WithDefaultProfile(apparmorProfile))
		}
		if h.selinux {
			level := selinuxLevel(s.ID)
			out.Linux.MountLabel = "system_u:object_r:container_file_t:" + level
			opts = append(opts, oci.WithSelinuxLabel("system_u:system_r:container_t:"+level))
		}
		// Without CAP_NET_BIND_SERVICE a service could not take its port 80. Its
		// network namespace is its own, so there is nothing to protect.
		out.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
		return oci.ApplyOpts(ctx, c, cr, out, opts...)
	}
}

// capabilities gives the process these and no others. A process that is not
// root loses them at exec unless they are ambient.
func capabilities(names []string, uid uint32) *specs.LinuxCapabilities {
	caps := make([]string, 0, len(names))
	for _, n := range names {
		caps = append(caps, "CAP_"+n)
	}
	set := &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	if uid != 0 {
		set.Inheritable, set.Ambient = caps, caps
	}
	return set
}

// selinuxLevel derives a pair of categories from the ID, so that two containers
// cannot touch each other's files.
func selinuxLevel(id string) string {
	sum := sha256.Sum256([]byte(id))
	n := binary.BigEndian.Uint32(sum[:])
	a, b := n%1024, n/1024%1023
	if b >= a {
		b++ // the two differ
	}
	return fmt.Sprintf("s0:c%d,c%d", min(a, b), max(a, b))
}

// mounts adds the writable places in memory and what the spec mounts, outer
// directories first.
func mounts(s *container.Spec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, out *oci.Spec) error {
		var own []specs.Mount
		for _, m := range s.Mounts {
			if _, err := os.Stat(m.Source); err != nil {
				return api.Errorf(api.KindInvalid, "mount %s: %w", m.Target, err)
			}
			options := []string{"bind", "rprivate", "nosuid", "nodev"}
			if !m.Writable {
				options = append(options, "ro")
			}
			own = append(own, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: options})
		}
		for _, t := range s.Tmpfs {
			own = append(own, tmpfs(t.Target, t.Size, "mode=1777"))
		}
		taken := func(target string) bool {
			return slices.ContainsFunc(own, func(m specs.Mount) bool { return m.Destination == target })
		}
		if !s.WritableRootfs && !taken("/tmp") {
			own = append(own, tmpfs("/tmp", tmpSize, "mode=1777"))
		}
		if !taken("/run") {
			own = append(own, tmpfs("/run", runSize, "mode=755"))
		}
		slices.SortStableFunc(own, func(a, b specs.Mount) int {
			return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
		})
		out.Mounts = slices.DeleteFunc(out.Mounts, func(m specs.Mount) bool {
			return m.Destination == "/run" || taken(m.Destination)
		})
		out.Mounts = append(out.Mounts, own...)
		return nil
	}
}

func tmpfs(target string, size int64, mode string) specs.Mount {
	return specs.Mount{
		Destination: target, Type: "tmpfs", Source: "tmpfs",
		Options: []string{"nosuid", "nodev", "strictatime", mode, fmt.Sprintf("size=%d", size)},
	}
}
