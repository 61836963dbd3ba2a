package host

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cloudless-project/cloudless/api"
)

// sound is a machine with nothing to say against it.
func sound() map[string]string {
	files := map[string]string{
		"proc/sys/kernel/osrelease": "6.12.34", "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids",
		"proc/filesystems": "nodev\tproc\nnodev\toverlay\n\text4", "proc/sys/kernel/seccomp/actions_avail": "kill errno",
		"sys/module/apparmor/parameters/enabled": "Y", "var/lib/cloudless/node.key": "secret", "var/lib/cloudless/raft/log": "",
		"var/lib/cloudless/images/layer": "", "etc/passwd": "root:x:0:0:root:/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh",
		"etc/shadow": "root:!:1::::::\npi:$y$x:1::::::", "etc/ssh/sshd_config": "#PasswordAuthentication yes\nPasswordAuthentication no",
		"proc/swaps":                             "Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100\n/dev/dm-0 partition 1 0 -2",
		"sys/block/dm-0/dm/uuid":                 "CRYPT-PLAIN-swap",
		"etc/apt/apt.conf.d/20auto-upgrades":     "APT::Periodic::Update-Package-Lists \"1\";\nAPT::Periodic::Unattended-Upgrade \"1\";",
		"run/containerd/containerd.sock":         "",
		"run/cloudless/cloudless.sock":           "",
		"proc/sys/net/ipv4/tcp_syncookies":       "1",
		"proc/sys/kernel/randomize_va_space":     "2",
		"proc/sys/kernel/yama/ptrace_scope":      "2",
		"proc/sys/fs/protected_regular":          "2",
		"sys/block/nvme0n1/dev":                  "259:0",
		"sys/block/nvme0n1/queue/rotational":     "0",
		"var/lib/cloudless/containerd/root/open": "",
	}
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts"} {
		files["proc/self/ns/"+ns] = ""
	}
	return files
}

// closedFiles are those of the sound machine that others must not read.
var closedFiles = map[string]fs.FileMode{
	"var/lib/cloudless": 0o700 | fs.ModeDir, "var/lib/cloudless/node.key": 0o600, "var/lib/cloudless/raft/log": 0o600, "etc/shadow": 0o640,
	"run/containerd/containerd.sock": 0o660, "run/cloudless/cloudless.sock": 0o660,
}

func examined(edit func(map[string]string, fstest.MapFS, *Examination)) []api.Check {
	files := sound()
	e := Examination{
		DataDir: "/var/lib/cloudless", Socket: "/run/cloudless/cloudless.sock", Containerd: "/run/containerd/containerd.sock",
		Disk: func(string) (Space, error) {
			return Space{Device: "259:0", Free: 100 << 30, Total: 200 << 30, Files: 1 << 20, Counts: true}, nil
		},
		Clock:  func() (bool, bool) { return true, true },
		Answer: func(context.Context, string) error { return nil },
		Find:   func(program string) bool { return program != "runsc" },
	}
	tree := fstest.MapFS{}
	edit(files, tree, &e)
	for name, f := range machine(files) {
		if tree[name] == nil {
			tree[name] = f
		}
		if mode, ok := closedFiles[name]; ok && tree[name].Mode == 0o644 {
			tree[name].Mode = mode
		}
	}
	if tree["var/lib/cloudless"] == nil && tree["var/lib/cloudless/node.key"] != nil {
		tree["var/lib/cloudless"] = &fstest.MapFile{Mode: closedFiles["var/lib/cloudless"]}
	}
	e.Root = tree
	return e.Run(context.Background())
}

func TestSoundHost(t *testing.T) {
	checks := examined(func(map[string]string, fstest.MapFS, *Examination) {})
	var made []string
	for _, c := range checks {
		made = append(made, c.Name)
		if c.Status != api.CheckOK || c.Detail == "" || c.Fix != "" {
			t.Errorf("%+v", c)
		}
	}
	want := "privileges kernel cgroups namespaces overlayfs runtime sandbox clock disk data-dir key-files sockets " +
		"kernel-hardening network-hardening accounts ssh swap updates"
	if got := strings.Join(made, " "); got != want {
		t.Errorf("the checks are\n%s\nwant\n%s", got, want)
	}
}

func TestWhatCanBeWrong(t *testing.T) {
	type files = map[string]string
	for name, tt := range map[string]struct {
		edit   func(files, fstest.MapFS, *Examination)
		check  string
		status api.CheckStatus
		detail string // a part of it
		fix    string // likewise
	}{
		"not root": {func(_ files, _ fstest.MapFS, e *Examination) { e.Lacks = "this process is not root" },
			"privileges", api.CheckWarn, "not root", "as root"},
		"an old kernel": {func(f files, _ fstest.MapFS, _ *Examination) { f["proc/sys/kernel/osrelease"] = "4.19.0-27-amd64" },
			"kernel", api.CheckWarn, "4.19.0", "5.10"},
		"no /proc": {func(f files, _ fstest.MapFS, _ *Examination) { delete(f, "proc/sys/kernel/osrelease") },
			"kernel", api.CheckWarn, "cannot be read", "mount"},
		"no cgroups": {func(f files, _ fstest.MapFS, _ *Examination) { delete(f, "sys/fs/cgroup/cgroup.controllers") },
			"cgroups", api.CheckFail, "none", "mount"},
		"a Raspberry Pi without memory limits": {func(f files, _ fstest.MapFS, _ *Examination) {
			f["sys/fs/cgroup/cgroup.controllers"] = "cpu pids"
			f["proc/device-tree/model"] = "Raspberry Pi 4 Model B Rev 1.4"
		}, "cgroups", api.CheckFail, "without memory", "cmdline.txt"},
		"a kernel without namespaces": {func(f files, _ fstest.MapFS, _ *Examination) { delete(f, "proc/self/ns/net") },
			"namespaces", api.CheckFail, "net", "kernel"},
		"no overlayfs": {func(f files, _ fstest.MapFS, _ *Examination) { f["proc/filesystems"] = "nodev\tfuseoverlay\n\text4" },
			"overlayfs", api.CheckWarn, "not loaded", "modprobe"},
		"no containerd and no programs": {func(_ files, _ fstest.MapFS, e *Examination) {
			e.Answer = func(context.Context, string) error { return errors.New("refused") }
			e.Find = func(string) bool { return false }
		}, "runtime", api.CheckFail, "no program containerd and no runc", "apt-get install containerd runc"},
		"containerd is stuck": {func(_ files, _ fstest.MapFS, e *Examination) {
			e.Answer = func(context.Context, string) error { return errors.New("deadline exceeded") }
		}, "runtime", api.CheckWarn, "deadline exceeded", "restart"},
		"containerd is not started, but there": {func(f files, _ fstest.MapFS, e *Examination) {
			delete(f, "run/containerd/containerd.sock")
			e.Answer = func(context.Context, string) error { return errors.New("no such file") }
		}, "runtime", api.CheckOK, "one of its own", ""},
		"no seccomp": {func(f files, _ fstest.MapFS, _ *Examination) { delete(f, "proc/sys/kernel/seccomp/actions_avail") },
			"sandbox", api.CheckFail, "seccomp", "kernel"},
		"no AppArmor, but gVisor": {func(f files, _ fstest.MapFS, e *Examination) {
			delete(f, "sys/module/apparmor/parameters/enabled")
			e.Find = func(string) bool { return true }
		}, "sandbox", api.CheckWarn, "gVisor, and neither", "apparmor"},
		"nothing keeps the clock": {func(_ files, _ fstest.MapFS, e *Examination) { e.Clock = func() (bool, bool) { return false, true } },
			"clock", api.CheckWarn, "nothing keeps it", "ntp"},
		"a full disk": {func(_ files, _ fstest.MapFS, e *Examination) {
			e.Disk = func(string) (Space, error) { return Space{Free: 1 << 20, Total: 1 << 30}, nil }
		}, "disk", api.CheckFail, "does not start", "free some"},
		"a small disk": {func(_ files, _ fstest.MapFS, e *Examination) {
			e.Disk = func(string) (Space, error) { return Space{Free: 1 << 30, Total: 8 << 30}, nil }
		}, "disk", api.CheckWarn, "1.0 GiB free of 8.0 GiB", "free some"},
		"no inodes": {func(_ files, _ fstest.MapFS, e *Examination) {
			e.Disk = func(string) (Space, error) { return Space{Free: 100 << 30, Counts: true, Files: 12}, nil }
		}, "disk", api.CheckWarn, "12 more files", "inodes"},
		"a disk that cannot be measured": {func(_ files, _ fstest.MapFS, e *Examination) {
			e.Disk = func(string) (Space, error) { return Space{}, errors.New("i/o error") }
		}, "disk", api.CheckWarn, "i/o error", "df"},
		"an open directory": {func(_ files, m fstest.MapFS, _ *Examination) {
			m["var/lib/cloudless"] = &fstest.MapFile{Mode: 0o755 | fs.ModeDir}
		}, "data-dir", api.CheckWarn, "0755", "chmod 700"},
		"a directory that others can write to": {func(_ files, m fstest.MapFS, _ *Examination) {
			m["var/lib/cloudless"] = &fstest.MapFile{Mode: 0o775 | fs.ModeDir}
		}, "data-dir", api.CheckFail, "0775", "chmod 700"},
		"an open file in an open directory": {func(_ files, m fstest.MapFS, _ *Examination) {
			m["var/lib/cloudless"] = &fstest.MapFile{Mode: 0o755 | fs.ModeDir}
			m["var/lib/cloudless/raft"] = &fstest.MapFile{Mode: 0o755 | fs.ModeDir}
			m["var/lib/cloudless/raft/log"] = &fstest.MapFile{Mode: 0o640}
		}, "key-files", api.CheckFail, "/var/lib/cloudless/raft/log (0640)", "chmod 600"},
		"an open file in a closed directory": {func(_ files, m fstest.MapFS, _ *Examination) {
			m["var/lib/cloudless"] = &fstest.MapFile{Mode: 0o755 | fs.ModeDir}
			m["var/lib/cloudless/raft"] = &fstest.MapFile{Mode: 0o700 | fs.ModeDir}
			m["var/lib/cloudless/raft/log"] = &fstest.MapFile{Mode: 0o644}
		}, "key-files", api.CheckOK, "closed", ""},
		"an open key": {func(_ files, m fstest.MapFS, _ *Examination) {
			m["var/lib/cloudless/node.key"] = &fstest.MapFile{Mode: 0o640}
		}, "key-files", api.CheckFail, "/var/lib/cloudless/node.key (0640)", "chmod 600"},
		"an open socket": {func(_ files, m fstest.MapFS, _ *Examination) {
			m["run/docker.sock"] = &fstest.MapFile{Mode: 0o666 | fs.ModeSocket}
		}, "sockets", api.CheckFail, "/run/docker.sock", "chmod o="},
		"a soft kernel": {func(f files, _ fstest.MapFS, _ *Examination) { f["proc/sys/kernel/kptr_restrict"] = "0" },
			"kernel-hardening", api.CheckWarn, "kernel.kptr_restrict is 0", "kernel.kptr_restrict=1"},
		"a soft network": {func(f files, _ fstest.MapFS, _ *Examination) { f["proc/sys/net/ipv4/conf/all/accept_redirects"] = "1" },
			"network-hardening", api.CheckWarn, "accept_redirects is 1", "net.ipv4.conf.all.accept_redirects=0"},
		"readable hashes": {func(_ files, m fstest.MapFS, _ *Examination) { m["etc/shadow"] = &fstest.MapFile{Mode: 0o604} },
			"accounts", api.CheckFail, "/etc/shadow", "chmod 640"},
		"no password": {func(f files, _ fstest.MapFS, _ *Examination) { f["etc/shadow"] = "root:!:1::::::\npi::1::::::" },
			"accounts", api.CheckFail, "pi", "passwd -l pi"},
		"a second root": {func(f files, _ fstest.MapFS, _ *Examination) { f["etc/passwd"] += "\ntoor:x:0:0::/:/bin/sh" },
			"accounts", api.CheckWarn, "toor", "user id"},
		"passwords over SSH": {func(f files, _ fstest.MapFS, _ *Examination) {
			f["etc/ssh/sshd_config"] = "PermitRootLogin yes\nMatch User git\nPasswordAuthentication no"
		}, "ssh", api.CheckWarn, "root may log in with a password, passwords can be guessed", "PermitRootLogin prohibit-password, PasswordAuthentication no"},
		"SSH that is mended in a file of its own": {func(f files, _ fstest.MapFS, _ *Examination) {
			f["etc/ssh/sshd_config"] = "PasswordAuthentication yes"
			f["etc/ssh/sshd_config.d/10-keys.conf"] = "PasswordAuthentication no"
		}, "ssh", api.CheckOK, "keys only", ""},
		"swap in clear": {func(f files, _ fstest.MapFS, _ *Examination) { f["proc/swaps"] += "\n/dev/sda2 partition 1 0 -3" },
			"swap", api.CheckWarn, "/dev/sda2", "zram"},
		"no updates": {func(f files, _ fstest.MapFS, _ *Examination) {
			f["etc/apt/apt.conf.d/20auto-upgrades"] = `APT::Periodic::Unattended-Upgrade "0";`
		}, "updates", api.CheckWarn, "nobody installs", "unattended-upgrades"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range examined(tt.edit) {
				if c.Name != tt.check {
					continue
				}
				if c.Status != tt.status || !strings.Contains(c.Detail, tt.detail) || !strings.Contains(c.Fix, tt.fix) {
					t.Errorf("got %+v", c)
				}
				if c.Status != api.CheckOK && c.Fix == "" {
					t.Error("it does not say what to do")
				}
				return
			}
			t.Errorf("there is no check %s", tt.check)
		})
	}
}

func TestChecksThatDoNotApply(t *testing.T) {
	checks := examined(func(f map[string]string, _ fstest.MapFS, e *Examination) {
		for name := range f {
			if strings.HasPrefix(name, "etc/") || strings.HasPrefix(name, "var/") || strings.HasPrefix(name, "run/") || strings.HasPrefix(name, "proc/s") {
				delete(f, name)
			}
		}
		e.Clock = func() (bool, bool) { return false, false }
	})
	for _, c := range checks {
		switch c.Name {
		case "data-dir", "key-files", "sockets", "accounts", "ssh", "swap", "updates", "clock", "network-hardening":
			t.Errorf("%s was made of nothing: %+v", c.Name, c)
		}
	}
}
