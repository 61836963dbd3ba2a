//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// TestServiceSurvivesADevice is the main promise: devices behind NATs join by
// token, an image that was imported on one of them runs on three, the service
// is reached by name from all of them, and a device that loses power is
// replaced (CLD-REQ-001, 003, 020, 031, 041, 042).
func TestServiceSurvivesADevice(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi, nas, desk := lab.Device("vps"), lab.Device("pi"), lab.Device("nas"), lab.Device("desk")

	t.Run("paths", func(t *testing.T) {
		want := map[*testnet.Device]map[string]string{
			pi:   {"vps": "direct", "nas": "lan", "desk": "relayed"},
			desk: {"vps": "direct", "nas": "relayed", "pi": "relayed"},
		}
		for d, paths := range want {
			await(t, "the paths of "+d.Name, func(ctx context.Context) error { return checkPaths(ctx, d, paths) })
		}
	})

	importWeb(t, lab, pi)
	w := runWeb(t, desk, 3)
	places := w.Places()
	if slices.Compare(places, []string{"desk", "nas", "pi"}) != 0 {
		t.Errorf("the replicas run on %v, want one on each device at home", places)
	}
	for _, d := range []*testnet.Device{vps, pi, nas, desk} {
		if body := awaitAnswer(t, d, webURL); !strings.HasPrefix(body, "hello from web.") {
			t.Errorf("%s is answered %q", d.Name, body)
		}
	}

	must(t, pi.Kill(ctx))
	w, err := vps.AwaitReplicas(ctx, patient, "web", 3, "pi")
	must(t, err)
	if places := w.Places(); slices.Compare(places, []string{"desk", "nas", "vps"}) != 0 {
		t.Errorf("after the power cut the replicas run on %v", places)
	}
	for _, d := range []*testnet.Device{vps, nas, desk} {
		awaitAnswer(t, d, webURL)
	}

	must(t, pi.Boot(ctx))
	must(t, vps.AwaitReady(ctx, patient, "pi"))
	if _, err := vps.AwaitReplicas(ctx, patient, "web", 3); err != nil {
		t.Error(err)
	}
	awaitAnswer(t, pi, webURL)
	if events := cloudless(t, nas, "events", "-o", "name", "--for", "node/pi"); events == "" {
		t.Error("there is no event about pi")
	}
}

func checkPaths(ctx context.Context, d *testnet.Device, want map[string]string) error {
	peers, err := d.Peers(ctx)
	if err != nil {
		return err
	}
	got := map[string]string{}
	for _, p := range peers {
		got[p.Name] = p.Path
	}
	for name, path := range want {
		if got[name] != path {
			return fmt.Errorf("%s reaches %s %q, not %s", d.Name, name, got[name], path)
		}
	}
	return nil
}

// TestHomeGoesOnWithoutItsAnchor: with every anchor out of reach the service
// answers, a process that dies is restarted, and a device that reboots brings
// its containers back (NFR-A1, CLD-REQ-032, 041).
func TestHomeGoesOnWithoutItsAnchor(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas")
	pi, nas, vps := lab.Device("pi"), lab.Device("nas"), lab.Device("vps")
	importWeb(t, lab, nas)
	runWeb(t, pi, 2)
	awaitAnswer(t, pi, webURL)
	awaitAnswer(t, nas, webURL)

	must(t, vps.Cut(ctx))
	probe, err := nas.Probe(ctx, webURL)
	must(t, err)
	defer probe.Stop()
	// Longer than it takes to notice.
	await(t, "nas to be answered for a while", func(context.Context) error {
		if r := probe.Result(); r.Answers < 400 {
			return fmt.Errorf("%d answers, last error %q", r.Answers, r.LastErr)
		}
		return nil
	})
	t.Logf("without an anchor: %+v", probe.Result())

	killReplica(t, pi)
	awaitLocal(t, pi)
	must(t, pi.Kill(ctx))
	must(t, pi.Boot(ctx))
	start := time.Now()
	awaitLocal(t, pi)
	t.Logf("pi runs its replica %s after the boot, without an anchor", time.Since(start).Round(10*time.Millisecond))
	seeWhatWasKnown(t, nas)

	must(t, vps.Heal(ctx))
	must(t, vps.AwaitReady(ctx, patient, "pi", "nas"))
	_, err = vps.AwaitReplicas(ctx, patient, "web", 2)
	must(t, err)
}

// seeWhatWasKnown looks at the cluster from a device that reaches no anchor, which
// shows what it knew last, and changes nothing.
func seeWhatWasKnown(t *testing.T, d *testnet.Device) {
	t.Helper()
	for _, args := range [][]string{{"node", "list"}, {"workload", "show", "web"}} {
		out, err := d.Cloudless(t.Context(), append(args, "-o", "json")...)
		must(t, err)
		if !strings.Contains(out, `"stale_since"`) || !strings.Contains(out, d.Name) {
			t.Errorf("cloudless %v shows %s", args, out)
		}
	}
	_, err := d.Cloudless(t.Context(), "workload", "scale", "web", "1")
	var exit *testnet.ExitError
	if !errors.As(err, &exit) || exit.Code != 5 {
		t.Errorf("a change without an anchor: %v", err)
	}
}

// killReplica kills the web server's process, as a crash would.
func killReplica(t *testing.T, d *testnet.Device) {
	t.Helper()
	_, err := d.Output(t.Context(), "sh", "-c", "kill -9 $(busybox pidof httpd)")
	must(t, err)
}

// awaitLocal waits until the web server's process runs on the device.
func awaitLocal(t *testing.T, d *testnet.Device) {
	t.Helper()
	await(t, "a replica to run on "+d.Name, func(ctx context.Context) error {
		_, err := d.Output(ctx, "busybox", "pidof", "httpd")
		return err
	})
}

// TestDaemonComesAndGoes: a daemon that is stopped leaves its containers
// running, the next one adopts them, and there is only ever one on a data
// directory (NFR-A1).
func TestDaemonComesAndGoes(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi")
	pi, vps := lab.Device("pi"), lab.Device("vps")
	importWeb(t, lab, pi)
	before := runWeb(t, pi, 1)
	if _, ok := before.On("pi"); !ok {
		t.Fatalf("the replica runs on %v, want pi", before.Places())
	}

	_, err := pi.Cloudless(ctx, "node", "start", "--data-dir", testnet.DataDir, "--socket", "/run/second.sock")
	if code := exitCode(t, err); code == 0 {
		t.Error("a second daemon runs on the same data directory")
	}

	process := pgrep(t, pi)
	must(t, pi.SignalNode(ctx, 15))
	code, err := pi.WaitNode(ctx)
	must(t, err)
	if code != 0 {
		t.Errorf("the daemon ended with code %d on SIGTERM", code)
	}
	if got := pgrep(t, pi); got != process {
		t.Errorf("the container's process is %q after the daemon stopped, was %q", got, process)
	}
	must(t, pi.Restart(ctx))
	must(t, vps.AwaitReady(ctx, patient, "pi"))
	awaitRuns(t, vps, "web", runs(before))
	if got := pgrep(t, pi); got != process {
		t.Errorf("the container's process is %q after the daemon came back, was %q", got, process)
	}
}

func pgrep(t *testing.T, d *testnet.Device) string {
	t.Helper()
	out, err := d.Output(t.Context(), "busybox", "pidof", "httpd")
	must(t, err)
	return strings.TrimSpace(out)
}
