//go:build linux

package e2e

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// shown is a node as `node show -o json` shows it, as far as its device and the
// way to it go.
type shown struct {
	Zone      string   `json:"zone"`
	State     string   `json:"state"`
	Arch      string   `json:"arch"`
	OS        string   `json:"os"`
	Kernel    string   `json:"kernel"`
	Runtime   string   `json:"runtime"`
	Cgroup    string   `json:"cgroup"`
	Class     string   `json:"storage_class"`
	Addresses []string `json:"addresses"`
	NAT       string   `json:"nat"`
	Path      string   `json:"path"`
	RTT       float64  `json:"rtt_ms"`
	Source    string   `json:"bandwidth_source"`
	Capacity  struct {
		CPU       int64 `json:"cpu_millis"`
		Memory    int64 `json:"memory_bytes"`
		Storage   int64 `json:"storage_bytes"`
		Bandwidth int64 `json:"bandwidth_bps"`
	} `json:"capacity"`
}

func show(ctx context.Context, by *testnet.Device, name string) (s shown, err error) {
	return s, by.CloudlessJSON(ctx, &s, "node", "show", name)
}

// TestNodesShowWhatTheyAre: what a node reports of its device is what the device
// has, what others find out about the way to it is true, and the bandwidth is
// what the operator says or what the uplink lets through (CLD-REQ-010, 003). It
// waits for the first measurement, which comes one to two minutes after a start.
func TestNodesShowWhatTheyAre(t *testing.T) {
	t.Parallel()
	const uplink = 20e6
	ctx := t.Context()
	lab := newLabOf(t, testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud", NAT: testnet.Public, Devices: []string{"vps"}},
		{Name: "home-a", NAT: testnet.Cone, Devices: []string{"pi"}},
		{Name: "home-b", NAT: testnet.Symmetric, Uplink: "20mbit", Devices: []string{"desk"}},
	}})
	must(t, lab.Found(ctx, "vps", "desk"))
	vps := lab.Device("vps")
	var token testnet.Token
	must(t, vps.CloudlessJSON(ctx, &token, "token", "create"))
	must(t, lab.Device("pi").Start(ctx, "--join", token.Token, "--bandwidth", "50Mbps"))
	must(t, vps.AwaitReady(ctx, patient, "pi"))

	for _, want := range []struct{ name, nat, path string }{{"vps", "none", "self"}, {"pi", "cone", "direct"}, {"desk", "symmetric", "direct"}} {
		d := lab.Device(want.name)
		await(t, "the way to "+want.name+" to be known", func(ctx context.Context) error {
			s, err := show(ctx, vps, want.name)
			if err == nil && (s.NAT != want.nat || s.Path != want.path || s.RTT <= 0 && s.Path != "self") {
				err = fmt.Errorf("NAT %q, path %q, %v ms; want %s and %s", s.NAT, s.Path, s.RTT, want.nat, want.path)
			}
			return err
		})
		s, err := show(ctx, vps, want.name)
		must(t, err)
		checkHardware(t, d, s)
	}

	said, err := show(ctx, vps, "pi")
	must(t, err)
	if said.Capacity.Bandwidth != 50e6 || said.Source != "operator" {
		t.Errorf("the bandwidth of pi is %d, by %q, its operator said 50 Mbit/s", said.Capacity.Bandwidth, said.Source)
	}
	must(t, testnet.Await(ctx, settled, "the bandwidth of desk to be measured", func(ctx context.Context) error {
		s, err := show(ctx, vps, "desk")
		if err == nil && s.Source != "measured" {
			err = fmt.Errorf("it is %d, by %q", s.Capacity.Bandwidth, s.Source)
		}
		return err
	}))
	found, err := show(ctx, vps, "desk")
	must(t, err)
	t.Logf("the uplink of desk has %.0f Mbit/s, %.1f were measured", uplink/1e6, float64(found.Capacity.Bandwidth)/1e6)
	if b := float64(found.Capacity.Bandwidth); b < uplink/8 || b > 1.5*uplink { // a busy machine is slower, not faster
		t.Errorf("%.0f bit/s were measured on an uplink of %.0f", b, uplink)
	}
}

// checkHardware compares what a node says of its device with what the device
// says itself.
func checkHardware(t *testing.T, d *testnet.Device, s shown) {
	t.Helper()
	number := func(script string) int64 {
		out, err := d.Output(t.Context(), "sh", "-c", script)
		must(t, err)
		n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		must(t, err)
		return n
	}
	kernel, err := d.Output(t.Context(), "uname", "-r")
	must(t, err)
	processors := number("grep -c ^processor /proc/cpuinfo")
	memory := number("busybox awk '/^MemTotal/ {print $2}' /proc/meminfo") << 10
	disk := number("busybox df -P -k "+testnet.DataDir+" | busybox awk 'NR == 2 {print $2}'") << 10
	switch {
	case s.Arch != runtime.GOARCH || s.OS != "linux" || s.Kernel != strings.TrimSpace(kernel):
		t.Errorf("%s says that it is %s, %s, %s", d.Name, s.Arch, s.OS, s.Kernel)
	case s.Capacity.CPU != 1000*processors:
		t.Errorf("%s offers %dm, of %d processors", d.Name, s.Capacity.CPU, processors)
	case s.Capacity.Memory > memory || s.Capacity.Memory < memory/2:
		t.Errorf("%s offers %d bytes of memory, of %d", d.Name, s.Capacity.Memory, memory)
	case s.Capacity.Storage <= 0 || s.Capacity.Storage > disk:
		t.Errorf("%s offers %d bytes of a disk of %d", d.Name, s.Capacity.Storage, disk)
	case s.Zone != d.Site || s.Class == "" || s.Cgroup == "" || !strings.Contains(s.Runtime, "containerd"):
		t.Errorf("%s is in %q, with a disk of class %q, cgroup %q, runtime %q", d.Name, s.Zone, s.Class, s.Cgroup, s.Runtime)
	case !slices.ContainsFunc(s.Addresses, func(a string) bool { return strings.HasPrefix(a, "/ip4/"+d.Addr.String()+"/") }):
		t.Errorf("%s has %s and says %v", d.Name, d.Addr, s.Addresses)
	}
}
