//go:build linux

package testnet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newLab(t *testing.T, topology Topology) *Lab {
	t.Helper()
	lab, err := Up(t.Context(), topology, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// background runs one of this binary's programs on a device until the test
// ends, and returns the first line that it prints.
func background(t *testing.T, d *Device, args ...string) string {
	t.Helper()
	in, hangUp := io.Pipe()
	out, printed := io.Pipe()
	var stderr strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := d.Run(t.Context(), Cmd{Args: append([]string{self(t)}, args...), Stdin: in, Stdout: printed, Stderr: &stderr})
		printed.CloseWithError(err)
	}()
	t.Cleanup(func() {
		hangUp.Close()
		out.Close()
		<-done
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s %s: %v", d.Name, args, err)
	}
	return strings.TrimSpace(line)
}

func output(t *testing.T, d *Device, args ...string) string {
	t.Helper()
	out, err := d.Output(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func reaches(t *testing.T, d *Device, addr string) bool {
	t.Helper()
	_, err := d.Output(t.Context(), "busybox", "ping", "-q", "-c1", "-W1", addr)
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err == nil
}

// arrives is reaches for what has to: a busy machine may lose a ping or two.
func arrives(t *testing.T, d *Device, addr string) bool {
	t.Helper()
	for range 10 {
		if reaches(t, d, addr) {
			return true
		}
	}
	return false
}

// TestNATs holds the two kinds of NAT against their definition: what a port
// looks like from two destinations, and who gets in.
func TestNATs(t *testing.T) {
	lab := newLab(t, Homes())
	vps := lab.Device("vps")
	background(t, vps, "mirror")
	from := func(device string) (first, second string) {
		lines := strings.Fields(output(t, lab.Device(device), self(t), "mapping", vps.Addr.String()+":5001", vps.Addr.String()+":5002"))
		if len(lines) != 2 {
			t.Fatalf("mapping on %s printed %q", device, lines)
		}
		return lines[0], lines[1]
	}
	if a, b := from("pi"); a != b || a != "192.0.0.66:4001" {
		t.Errorf("cone NAT: port 4001 appears as %s and %s, want 192.0.0.66:4001 twice", a, b)
	}
	if a, b := from("desk"); a == b {
		t.Errorf("symmetric NAT: port 4001 appears as %s at two destinations", a)
	}
	if !arrives(t, lab.Device("pi"), "192.168.11.12") {
		t.Error("devices of a home do not see each other")
	}
	if reaches(t, vps, "192.0.0.66") || reaches(t, vps, "192.168.11.11") {
		t.Error("a home answers a stranger")
	}
}

// TestHolePunching is why the lab's NATs can be trusted: libp2p gets through
// two cone NATs and not through a symmetric one, as it does in the world.
func TestHolePunching(t *testing.T) {
	lab := newLab(t, Homes())
	var relayAddr string
	if err := json.Unmarshal([]byte(background(t, lab.Device("vps"), "peer", "relay")), &relayAddr); err != nil {
		t.Fatal(err)
	}
	for listener, want := range map[string]string{"pi": "direct after", "desk": "stays relayed"} {
		t.Run(listener, func(t *testing.T) {
			var circuit string
			if err := json.Unmarshal([]byte(background(t, lab.Device(listener), "peer", "listen", relayAddr)), &circuit); err != nil {
				t.Fatal(err)
			}
			got := output(t, lab.Device("laptop"), self(t), "peer", "dial", circuit)
			t.Logf("laptop → %s: %s", listener, strings.ReplaceAll(strings.TrimSpace(got), "\n", ", "))
			if !strings.Contains(got, want) {
				t.Errorf("laptop → %s: got %q, want %q", listener, got, want)
			}
		})
	}
}

func TestPowerAndCables(t *testing.T) {
	ctx := t.Context()
	lab := newLab(t, Homes())
	pi, nas, vps := lab.Device("pi"), lab.Device("nas"), lab.Device("vps")

	output(t, pi, "sh", "-c", "echo kept >"+DataDir+"/file; echo lost >/run/file; ip link add gone type bridge; setsid sleep 1000 >/dev/null 2>&1 &")
	if err := pi.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if pi.On(ctx) {
		t.Error("the device is on after its power was cut")
	}
	if _, err := pi.Output(ctx, "true"); !errors.Is(err, errOff) {
		t.Errorf("a command on a dead device gives %v, want %v", err, errOff)
	}
	if reaches(t, nas, pi.Addr.String()) {
		t.Error("a dead device answers")
	}
	if err := pi.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	got := output(t, pi, "sh", "-c", "hostname; cat "+DataDir+"/file; ls /run; ip -o link | grep -c gone || true; busybox ps | grep -c '[s]leep 1000' || true")
	if want := "pi\nkept\nresolv.conf\n0\n0\n"; got != want {
		t.Errorf("after the boot: %q, want %q", got, want)
	}
	if !arrives(t, pi, vps.Addr.String()) {
		t.Error("no way to the internet after the boot")
	}

	for _, cut := range []string{"home-a", "pi", "vps"} {
		if err := lab.Cut(ctx, cut); err != nil {
			t.Fatal(err)
		}
		if reaches(t, pi, vps.Addr.String()) {
			t.Errorf("cut %s: pi still reaches the VPS", cut)
		}
		if cut == "pi" && reaches(t, pi, nas.Addr.String()) || cut != "pi" && !arrives(t, pi, nas.Addr.String()) {
			t.Errorf("cut %s: the LAN of home-a is not as it should be", cut)
		}
		if err := lab.Heal(ctx, cut); err != nil {
			t.Fatal(err)
		}
		if !arrives(t, pi, vps.Addr.String()) {
			t.Errorf("heal %s: pi does not reach the VPS", cut)
		}
	}
}

func TestCommands(t *testing.T) {
	lab := newLab(t, Topology{Sites: []Site{{Name: "cloud", NAT: Public, Devices: []string{"vps"}}}})
	vps := lab.Device("vps")

	var exit *ExitError
	_, err := vps.Output(t.Context(), "sh", "-c", "echo complaint >&2; exit 7")
	if !errors.As(err, &exit) || exit.Code != 7 || strings.TrimSpace(exit.Stderr) != "complaint" {
		t.Errorf("exit code and complaint come back as %v", err)
	}
	if _, err := vps.Output(t.Context(), "no-such-command"); err == nil || !strings.Contains(err.Error(), "no-such-command") {
		t.Errorf("an unknown command gives %v", err)
	}
	big := strings.Repeat("x", 1<<20)
	var out strings.Builder
	if err := vps.Run(t.Context(), Cmd{Args: []string{"cat"}, Stdin: strings.NewReader(big), Stdout: &out}); err != nil || out.String() != big {
		t.Errorf("cat of a megabyte: %d bytes, %v", out.Len(), err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := vps.Run(ctx, Cmd{Args: []string{"sleep", "1234"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that takes too long gives %v", err)
	}
	await(t, "the command to be ended", func() bool {
		return output(t, vps, "sh", "-c", "busybox ps | grep -c '[s]leep 1234' || true") == "0\n"
	})
}

// TestSweep: a lab whose process was killed leaves nothing behind once the
// next one has been built.
func TestSweep(t *testing.T) {
	if os.Getenv("LAB_TEST_ORPHAN") != "" {
		lab, err := Up(t.Context(), Homes(), Options{Name: "orphan", Dir: os.Getenv("LAB_TEST_ORPHAN")})
		if err != nil {
			t.Fatal(err)
		}
		_ = lab
		os.Exit(3) // without a Close
	}
	cmd := exec.CommandContext(t.Context(), self(t), "-test.run=^TestSweep$")
	cmd.Env = append(os.Environ(), "LAB_TEST_ORPHAN="+t.TempDir())
	var exit *exec.ExitError
	if out, err := cmd.CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("the orphan was not made: %v: %s", err, out)
	}
	newLab(t, Topology{Sites: []Site{{Name: "cloud", NAT: Public, Devices: []string{"vps"}}}})
	for _, pattern := range []string{"/run/netns/cl-testnet-orphan-*", "/sys/fs/cgroup/*/cl-testnet-orphan", "/sys/fs/cgroup/cl-testnet-orphan", runDir + "/orphan"} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// await polls a condition; what it waits for appears in the failure.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
