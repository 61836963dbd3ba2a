//go:build linux

package containerd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// generate makes the OCI spec as Create does, but for what needs an image.
func generate(t *testing.T, h host, s container.Spec, image ocispec.ImageConfig) *oci.Spec {
	t.Helper()
	out, err := tryGenerate(t, h, s, image)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryGenerate(t *testing.T, h host, s container.Spec, image ocispec.ImageConfig) (*oci.Spec, error) {
	ctx := namespaces.WithNamespace(t.Context(), "test")
	return oci.GenerateSpec(ctx, nil, &containers.Container{ID: s.ID},
		process(&s, image), limits(h, &s, "/parent/"+s.ID), confine(h, &s))
}

var anyImage = ocispec.ImageConfig{Entrypoint: []string{"/app"}, Cmd: []string{"serve"}}

func TestSpecLimits(t *testing.T) {
	s := container.Spec{ID: "a.0.1", CPULimit: 250, CPUShares: 500, MemoryLimit: 64 << 20, PIDLimit: 100}
	for name, tt := range map[string]struct {
		host      host
		wantSwap  bool // limited, as opposed to discouraged
		wantGroup bool
	}{
		"cgroup v1":              {host{cgroup: 1, swap: true}, true, false},
		"cgroup v1 without swap": {host{cgroup: 1}, false, false},
		"cgroup v2":              {host{cgroup: 2, swap: true}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			out := generate(t, tt.host, s, anyImage)
			res := out.Linux.Resources
			if out.Linux.CgroupsPath != "/parent/a.0.1" {
				t.Errorf("cgroup path %q", out.Linux.CgroupsPath)
			}
			if *res.CPU.Quota != 25_000 || *res.CPU.Period != 100_000 || *res.CPU.Shares != 512 {
				t.Errorf("cpu: quota %d of %d, shares %d", *res.CPU.Quota, *res.CPU.Period, *res.CPU.Shares)
			}
			if *res.Memory.Limit != 64<<20 || *res.Pids.Limit != 100 {
				t.Errorf("memory %d, pids %d", *res.Memory.Limit, *res.Pids.Limit)
			}
			if tt.wantSwap && (res.Memory.Swap == nil || *res.Memory.Swap != 64<<20) {
				t.Errorf("memory and swap together: %v", res.Memory.Swap)
			}
			if !tt.wantSwap && (res.Memory.Swap != nil || res.Memory.Swappiness == nil || *res.Memory.Swappiness != 0) {
				t.Errorf("swap %v, swappiness %v", res.Memory.Swap, res.Memory.Swappiness)
			}
			if got := res.Unified["memory.oom.group"] == "1"; got != tt.wantGroup {
				t.Errorf("killed as a group: %v", got)
			}
			if !slices.ContainsFunc(out.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace }) {
				t.Error("no cgroup namespace")
			}
		})
	}
}

func TestSpecWithoutLimits(t *testing.T) {
	out := generate(t, host{cgroup: 2, swap: true}, container.Spec{ID: "a"}, anyImage)
	if res := out.Linux.Resources; res.CPU.Quota != nil || res.CPU.Shares != nil || res.Memory.Limit != nil || res.Pids != nil {
		t.Errorf("limits nobody asked for: %+v", res)
	}
	if tiny := generate(t, host{cgroup: 1}, container.Spec{ID: "a", CPULimit: 1, CPUShares: 1}, anyImage).Linux.Resources.CPU; *tiny.Quota < 1000 || *tiny.Shares < 2 {
		t.Errorf("below what the kernel takes: quota %d, shares %d", *tiny.Quota, *tiny.Shares)
	}
}

func TestSpecConfinement(t *testing.T) {
	out := generate(t, host{cgroup: 1, selinux: true, nofile: 4096, oomScore: 300},
		container.Spec{ID: "a", Capabilities: []string{"NET_RAW"}, NetNS: "/run/netns/x"}, anyImage)
	if !out.Process.NoNewPrivileges || !out.Root.Readonly || out.Linux.Seccomp == nil {
		t.Errorf("no new privileges %v, read-only %v, seccomp %v", out.Process.NoNewPrivileges, out.Root.Readonly, out.Linux.Seccomp != nil)
	}
	caps := out.Process.Capabilities
	if want := []string{"CAP_NET_RAW"}; !slices.Equal(caps.Bounding, want) || !slices.Equal(caps.Effective, want) || len(caps.Ambient) != 0 {
		t.Errorf("capabilities: %+v", caps)
	}
	if !strings.Contains(out.Process.SelinuxLabel, ":container_t:s0:c") || !strings.Contains(out.Linux.MountLabel, ":container_file_t:s0:c") {
		t.Errorf("SELinux: %q, %q", out.Process.SelinuxLabel, out.Linux.MountLabel)
	}
	if other := generate(t, host{selinux: true}, container.Spec{ID: "b"}, anyImage); other.Process.SelinuxLabel == out.Process.SelinuxLabel {
		t.Error("two containers share their categories")
	}
	if !slices.Contains(out.Linux.MaskedPaths, "/proc/kcore") || !slices.Contains(out.Linux.ReadonlyPaths, "/proc/sys") {
		t.Errorf("masked %v, read-only %v", out.Linux.MaskedPaths, out.Linux.ReadonlyPaths)
	}
	if *out.Process.OOMScoreAdj != 300 || out.Process.Rlimits[0].Hard != 4096 {
		t.Errorf("oom score %d, rlimits %+v", *out.Process.OOMScoreAdj, out.Process.Rlimits)
	}
	net := slices.IndexFunc(out.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	if net < 0 || out.Linux.Namespaces[net].Path != "/run/netns/x" {
		t.Errorf("namespaces: %+v", out.Linux.Namespaces)
	}
	ambient := generate(t, host{}, container.Spec{ID: "a", User: "1000:1000", Capabilities: []string{"NET_RAW"}}, anyImage).Process
	if !slices.Equal(ambient.Capabilities.Ambient, []string{"CAP_NET_RAW"}) || ambient.User.UID != 1000 {
		t.Errorf("a user that is not root loses its capability: %+v", ambient.Capabilities)
	}
}

func TestSpecMounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := container.Spec{ID: "a",
		Mounts: []container.Mount{{Source: file, Target: "/run/secrets/key"}, {Source: file, Target: "/data", Writable: true}},
		Tmpfs:  []container.Tmpfs{{Target: "/tmp", Size: 1 << 20}, {Target: "/dev/shm", Size: 2 << 20}},
	}
	out := generate(t, host{}, s, anyImage)
	at := func(target string) (i int, options string) {
		for j, m := range out.Mounts {
			if m.Destination == target {
				i, options = j, options+strings.Join(m.Options, ",")
			}
		}
		return i, options
	}
	run, _ := at("/run")
	secret, options := at("/run/secrets/key")
	if secret < run || !strings.Contains(options, ",ro") {
		t.Errorf("/run at %d, the secret at %d with %q", run, secret, options)
	}
	if _, options := at("/data"); strings.Contains(options, "ro,") || strings.HasSuffix(options, ",ro") || options == "" {
		t.Errorf("/data: %q", options)
	}
	for target, size := range map[string]string{"/tmp": "size=1048576", "/dev/shm": "size=2097152"} {
		if _, options := at(target); strings.Count(options, "size=") != 1 || !strings.HasSuffix(options, size) {
			t.Errorf("%s: %q", target, options)
		}
	}
	s.Mounts[0].Source = file + ".missing"
	if _, err := tryGenerate(t, host{}, s, anyImage); api.KindOf(err) != api.KindInvalid {
		t.Errorf("a missing source: %v", err)
	}
	open := generate(t, host{}, container.Spec{ID: "a", WritableRootfs: true}, anyImage)
	if open.Root.Readonly || slices.ContainsFunc(open.Mounts, func(m specs.Mount) bool { return m.Destination == "/tmp" }) {
		t.Error("a writable root keeps the image's /tmp")
	}
}

func TestSpecCommand(t *testing.T) {
	for name, tt := range map[string]struct {
		command, args []string
		want          string
	}{
		"the image's":     {nil, nil, "/app serve"},
		"other arguments": {nil, []string{"x"}, "/app x"},
		"other command":   {[]string{"y"}, nil, "y"},
		"both":            {[]string{"y"}, []string{"x"}, "y x"},
	} {
		out := generate(t, host{}, container.Spec{ID: "a", Command: tt.command, Args: tt.args, Env: map[string]string{"B": "2", "A": "1"}, WorkingDir: "/w"}, anyImage)
		if got := strings.Join(out.Process.Args, " "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		if !slices.Equal(out.Process.Env, []string{"A=1", "B=2"}) || out.Process.Cwd != "/w" || out.Hostname != "a" {
			t.Errorf("%s: env %q, cwd %q, hostname %q", name, out.Process.Env, out.Process.Cwd, out.Hostname)
		}
	}
	if _, err := tryGenerate(t, host{}, container.Spec{ID: "a"}, ocispec.ImageConfig{}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("nothing to run: %v", err)
	}
}

func TestGVisorIsRefusedWhereItIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r := &Runtime{}
	if _, err := r.runtimeFor(container.SandboxGVisor); api.KindOf(err) != api.KindUnsupported {
		t.Errorf("got %v", err)
	}
	if _, err := r.runtimeFor(""); err != nil {
		t.Errorf("the default: %v", err)
	}
}

func TestLocks(t *testing.T) {
	var l locks
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := l.try("a"); ok {
		t.Error("locked twice")
	}
	other, ok := l.try("b")
	if !ok {
		t.Fatal("one name locks another")
	}
	other()
	got := make(chan struct{})
	go func() {
		defer close(got)
		if again, err := l.lock(t.Context(), "a"); err == nil {
			again()
		}
	}()
	unlock()
	<-got
	if len(l.held) != 0 {
		t.Errorf("%d locks are left", len(l.held))
	}
}
