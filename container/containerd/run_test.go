//go:build linux

package containerd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/containertest"
)

const patience = 30 * time.Second

// run creates and starts a container that the test removes.
func (b *bench) run(t *testing.T, s container.Spec) container.Status {
	t.Helper()
	s.ID, s.Image = "t."+t.Name(), b.install(t)
	t.Cleanup(func() {
		if err := b.rt.Remove(context.Background(), s.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	if err := b.rt.Create(t.Context(), s); err != nil {
		t.Fatalf("create: %v", err)
	}
	status, err := b.rt.Start(t.Context(), s.ID)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	return status
}

// output runs a shell script in a container to its end and returns what it
// wrote, with its exit.
func (b *bench) output(t *testing.T, s container.Spec, script string) (string, container.Exit) {
	t.Helper()
	s.Command = []string{"sh", "-c", script + "; code=$?; echo; echo the end; exit $code"}
	exits := b.rt.Exits(t.Context())
	status := b.run(t, s)
	exit := await(t, exits, status.ID)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out strings.Builder
	for e, err := range b.rt.ReadLogs(ctx, status.ID, container.LogOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Line == "the end" {
			return out.String(), exit
		}
		out.WriteString(e.Line + "\n")
	}
	t.Fatalf("the script did not end well: %+v\n%s", exit, out.String())
	return "", exit
}

func await(t *testing.T, exits <-chan container.Exit, id string) container.Exit {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-exits:
			if e.ID == id {
				return e
			}
		case <-timeout:
			t.Fatalf("no exit of %s", id)
		}
	}
}

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if ok() {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func wants(t *testing.T, out string, lines ...string) {
	t.Helper()
	got := strings.Join(strings.Fields(out), " ")
	for _, l := range lines {
		if !strings.Contains(got, l) {
			t.Errorf("output lacks %q:\n%s", l, out)
		}
	}
}

func TestLimitsReachTheCgroup(t *testing.T) {
	b := real.start(t)
	s := b.run(t, container.Spec{Command: containertest.Stubborn, CPULimit: 250, CPUShares: 500, MemoryLimit: 32 << 20, PIDLimit: 20})
	files := map[string]string{
		"cpu/%s/cpu.cfs_quota_us": "25000", "cpu/%s/cpu.shares": "512", "pids/%s/pids.max": "20",
		"memory/%s/memory.limit_in_bytes": "33554432", "memory/%s/memory.memsw.limit_in_bytes": "33554432",
	}
	if b.rt.host.cgroup == 2 {
		files = map[string]string{"%s/cpu.max": "25000 100000", "%s/pids.max": "20", "%s/memory.max": "33554432", "%s/memory.swap.max": "0"}
	}
	for file, want := range files {
		path := filepath.Join("/sys/fs/cgroup", fmt.Sprintf(file, b.cgroup+"/"+s.ID))
		if strings.Contains(path, "memsw") && !b.rt.host.swap {
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s = %q, %v; want %s", path, got, err, want)
		}
	}
}

func TestMemoryHogIsReportedAsOOM(t *testing.T) {
	b := real.start(t)
	exits := b.rt.Exits(t.Context())
	s := b.run(t, container.Spec{
		Command: []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1"}, MemoryLimit: 16 << 20,
	})
	if e := await(t, exits, s.ID); e.Reason != container.ReasonOOM || e.Code != 137 {
		t.Errorf("exit: %+v", e)
	}
}

func TestForkBombIsContained(t *testing.T) {
	b := real.start(t)
	const limit = 30
	s := b.run(t, container.Spec{Command: containertest.Stubborn, PIDLimit: limit, MemoryLimit: 64 << 20})
	var out bytes.Buffer
	code, err := b.rt.Exec(t.Context(), s.ID, container.ExecSpec{
		Args: []string{"sh", "-c", "while :; do sleep 1000 </dev/null >/dev/null 2>&1 & done"}, Stderr: &out,
	})
	if code == 0 || err != nil || !strings.Contains(out.String(), "can't fork") {
		t.Errorf("the bomb ended with %d, %v, %q", code, err, &out)
	}
	hierarchy := "/sys/fs/cgroup/pids"
	if b.rt.host.cgroup == 2 {
		hierarchy = "/sys/fs/cgroup"
	}
	current, err := os.ReadFile(filepath.Join(hierarchy, b.cgroup, s.ID, "pids.current"))
	var n int
	if _, serr := fmt.Sscan(string(current), &n); err != nil || serr != nil || n > limit || n < limit/2 {
		t.Errorf("%d processes of %d, %v", n, limit, err)
	}
	if status, err := b.rt.Status(t.Context(), s.ID); err != nil || status.State != container.StateRunning {
		t.Errorf("the container: %+v, %v", status, err)
	}
}

func TestConfinementOfAProcess(t *testing.T) {
	b := real.start(t)
	out, _ := b.output(t, container.Spec{Hostname: "box", Env: map[string]string{"FROM": "spec"}}, `
		grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
		touch /x 2>&1; touch /tmp/x /run/x && echo scratch
		mount -t tmpfs none /tmp 2>&1
		head -c1 /proc/kcore 2>&1 | grep -c .
		echo 1 2>&1 > /proc/sys/kernel/panic
		hostname; echo from $FROM; ls /sys/fs/cgroup/memory/tasks
		httpd -p 80 && echo port 80`)
	wants(t, out, "CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000",
		"CapAmb: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2", "/x: Read-only file system", "scratch",
		"permission denied (are you root?)", "box", "from spec", "port 80")
}

func TestUserAndCapabilities(t *testing.T) {
	b := real.start(t)
	secret := filepath.Join(b.dir, "secret")
	if err := os.WriteFile(secret, []byte("mounted"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ := b.output(t, container.Spec{
		User: "web", RunAsNonRoot: true, Capabilities: []string{"NET_RAW"}, WorkingDir: "/www",
		Mounts: []container.Mount{{Source: secret, Target: "/etc/secret"}},
		Tmpfs:  []container.Tmpfs{{Target: "/data", Size: 1 << 20}},
	}, `id; pwd; cat /etc/secret; grep CapEff /proc/self/status
		dd if=/dev/zero of=/data/big bs=1M count=3 2>&1`)
	wants(t, out, "uid=1000(web) gid=1001(web)", "/www", "mounted", "CapEff: 0000000000002000", "No space left on device")
}

func TestImageLabelsAreNotCopied(t *testing.T) {
	b := real.start(t)
	const evil = "containerd.io/restart.loguri"
	img := containertest.Busybox(t, "cloudless.test/evil:1", map[string]string{evil: "binary:///bin/false"})
	containertest.Install(t, b.rt, img)
	spec := container.Spec{ID: "t." + t.Name(), Image: img.Ref, Command: containertest.Stubborn}
	t.Cleanup(func() { _ = b.rt.Remove(context.Background(), spec.ID) })
	if err := b.rt.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	record, err := b.rt.record(t.Context(), spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := record.Labels[evil]; ok {
		t.Errorf("the container got the image's label %q", v)
	}
}

func TestCommandThatIsNotThere(t *testing.T) {
	b := real.start(t)
	spec := container.Spec{ID: "t." + t.Name(), Image: b.install(t), Command: []string{"/no/such/file"}}
	t.Cleanup(func() { _ = b.rt.Remove(context.Background(), spec.ID) })
	if err := b.rt.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := b.rt.Start(t.Context(), spec.ID); api.KindOf(err) != api.KindInvalid {
			t.Errorf("start: %v", err)
		}
		if s, err := b.rt.Status(t.Context(), spec.ID); err != nil || s.State != container.StateCreated {
			t.Errorf("status: %+v, %v", s, err)
		}
	}
}

func TestChattyContainerIsBounded(t *testing.T) {
	b := real.start(t)
	exits := b.rt.Exits(t.Context())
	s := b.run(t, container.Spec{Command: []string{"sh", "-c", "yes $(printf %01000d 0) | head -c 24000000; echo; echo last"}})
	if e := await(t, exits, s.ID); e.Code != 0 {
		t.Errorf("exit: %+v", e)
	}
	eventually(t, "the last line is in the log", func() bool {
		for e, err := range b.rt.ReadLogs(t.Context(), s.ID, container.LogOptions{Tail: 1}) {
			return err == nil && e.Line == "last"
		}
		return false
	})
	var size int64
	files, err := filepath.Glob(b.rt.logFile(s.ID) + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			size += info.Size()
		}
	}
	if len(files) != 2 || size > 17<<20 {
		t.Errorf("%d files with %d bytes", len(files), size)
	}
}

func TestExecWithTerminal(t *testing.T) {
	b := real.start(t)
	s := b.run(t, container.Spec{Command: containertest.Stubborn})
	var out bytes.Buffer
	resize := make(chan container.WindowSize, 1)
	resize <- container.WindowSize{Width: 77, Height: 33}
	code, err := b.rt.Exec(t.Context(), s.ID, container.ExecSpec{
		Args: []string{"sh", "-c", `while [ "$(stty size)" != "33 77" ]; do sleep 0.05; done; echo $X on a terminal; exit 4`},
		Env:  []string{"X=here"}, TTY: true, Stdout: &out, Resize: resize,
	})
	if code != 4 || err != nil || !strings.Contains(out.String(), "here on a terminal\r\n") {
		t.Errorf("code %d, %v, output %q", code, err, &out)
	}
	_, err = b.rt.Exec(t.Context(), s.ID, container.ExecSpec{Args: []string{"/no/such"}})
	if api.KindOf(err) != api.KindInvalid {
		t.Errorf("a command that is not there: %v", err)
	}
}
