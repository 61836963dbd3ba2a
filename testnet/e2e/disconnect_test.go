//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// offline cuts the uplink of devices: they reach what has a private address, and
// nothing else. The returned function mends it.
func offline(t *testing.T, devices ...*testnet.Device) (mend func()) {
	t.Helper()
	for _, d := range devices {
		_, err := d.Output(t.Context(), "nft", `table inet blip {
			chain in { type filter hook input priority raw; ip saddr != { 192.168.0.0/16, 10.0.0.0/8, 127.0.0.0/8 } drop; }
			chain out { type filter hook output priority raw; ip daddr != { 192.168.0.0/16, 10.0.0.0/8, 127.0.0.0/8 } drop; }
		}`)
		must(t, err)
	}
	return func() {
		t.Helper()
		for _, d := range devices {
			_, err := d.Output(t.Context(), "nft", "delete table inet blip")
			must(t, err)
		}
	}
}

// runs remembers which processes serve a workload.
func runs(w *testnet.Workload) map[string]time.Time {
	out := make(map[string]time.Time)
	for _, r := range w.Ready() {
		out[r.ID] = r.StartedAt
	}
	return out
}

// awaitRuns waits until exactly the same processes serve again.
func awaitRuns(t *testing.T, d *testnet.Device, name string, want map[string]time.Time) {
	t.Helper()
	await(t, "the processes of before to serve "+name, func(ctx context.Context) error {
		w, err := d.Workload(ctx, name)
		if err != nil {
			return err
		}
		got := runs(w)
		same := len(got) == len(want)
		for id, at := range want {
			same = same && got[id].Equal(at)
		}
		if !same {
			return fmt.Errorf("%v serve, want %v", got, want)
		}
		return nil
	})
}

func awaitState(t *testing.T, by *testnet.Device, state string, names ...string) {
	t.Helper()
	for _, name := range names {
		await(t, name+" to be "+state, func(ctx context.Context) error {
			nodes, err := by.Nodes(ctx)
			for _, n := range nodes {
				if n.Name == name && n.State != state {
					return fmt.Errorf("%s is %s", name, n.State)
				}
			}
			return err
		})
	}
}

// onDisconnect is the web workload under another name, with what becomes of it in
// a house that is offline; it runs in a zone if it can.
func onDisconnect(name, zone, mode, after string) string {
	m := testnet.WebManifest(name, 1)
	m = strings.Replace(m, "operator: NotIn, values: [cloud], weight: 80", "operator: In, values: ["+zone+"], weight: 100", 1)
	return m + fmt.Sprintf("  onDisconnect: {mode: %s, after: %s}\n", mode, after)
}

// A house that is offline for 15 s, and a daemon that hangs for 3 s, restart
// nothing and move nothing (CLD-REQ-031).
func TestBlipOfAHouseRestartsNothing(t *testing.T) {
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi, nas := lab.Device("vps"), lab.Device("pi"), lab.Device("nas")
	importWeb(t, lab, pi)
	before := runs(runWeb(t, pi, 3))
	<-time.After(5 * time.Second) // of heartbeats; pi and nas find each other
	begun := time.Now()
	mend := offline(t, pi, nas)
	awaitState(t, vps, "cut_off", "pi", "nas")
	<-time.After(15 * time.Second)
	mend()
	awaitState(t, vps, "ready", "pi", "nas")
	awaitRuns(t, vps, "web", before)

	hung := time.Now()
	must(t, pi.SignalNode(t.Context(), syscall.SIGSTOP))
	awaitState(t, vps, "suspect", "pi")
	<-time.After(time.Until(hung.Add(3 * time.Second))) // after five it would be down
	must(t, pi.SignalNode(t.Context(), syscall.SIGCONT))
	awaitState(t, vps, "ready", "pi")
	awaitRuns(t, vps, "web", before)
	for _, name := range []string{"pi", "nas"} {
		for _, e := range said(t, vps, name, begun) {
			t.Logf("%6.2fs %s", e.Time.Sub(begun).Seconds(), e.Message)
			if strings.Contains(e.Message, "is down") {
				t.Errorf("%s was declared down", name)
			}
		}
	}
}

// In a house that is offline for longer, each workload's onDisconnect decides. When
// the house is back the original wins, and its replacement stops (CLD-REQ-031).
func TestHouseThatStaysOffline(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi, nas := lab.Device("vps"), lab.Device("pi"), lab.Device("nas")
	importWeb(t, lab, vps) // the house takes its copy with it
	before := map[string]map[string]time.Time{}
	for name, mode := range map[string]string{"moves": "replace", "stays": "keep", "single": "stop"} {
		must(t, vps.Apply(ctx, onDisconnect(name, "home-a", mode, "15s")))
		w, err := vps.AwaitReplicas(ctx, patient, name, 1)
		must(t, err)
		before[name] = runs(w)
	}
	<-time.After(5 * time.Second)
	mend := offline(t, pi, nas)
	awaitState(t, vps, "cut_off", "pi", "nas")
	for _, name := range []string{"moves", "single"} {
		await(t, name+" to run elsewhere", func(ctx context.Context) error {
			w, err := vps.Workload(ctx, name)
			if err != nil {
				return err
			}
			for _, r := range w.Ready() {
				if r.NodeName != "pi" && r.NodeName != "nas" {
					return nil
				}
			}
			return fmt.Errorf("it does not yet: %v", w.List)
		})
	}
	w, err := vps.Workload(ctx, "stays")
	must(t, err)
	if n := len(w.Ready()); n != 0 {
		t.Errorf("%d replicas of what is to stay serve elsewhere", n)
	}
	mend()
	awaitState(t, vps, "ready", "pi", "nas")
	awaitRuns(t, vps, "moves", before["moves"])
	awaitRuns(t, vps, "stays", before["stays"])
	w, err = vps.AwaitReplicas(ctx, patient, "single", 1, "pi", "nas")
	must(t, err)
	t.Logf("what may run once only was given up by its house and runs on %v", w.Places())
}

// A device that loses its uplink hears the anchors through its neighbour, which
// passes their words on, and is not heard. What must not run twice ends there, and
// begins elsewhere only then (CLD-REQ-031).
func TestHouseThatOnlyListens(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	vps := lab.Device("vps")
	importWeb(t, lab, vps)
	must(t, vps.Apply(ctx, onDisconnect("web", "home-a", "stop", "15s")))
	w, err := vps.AwaitReplicas(ctx, patient, "web", 1, "vps", "desk")
	must(t, err)
	place := w.Ready()[0].NodeName
	host := lab.Device(place)
	<-time.After(5 * time.Second)
	begun := time.Now()
	offline(t, host)
	awaitState(t, vps, "cut_off", place)
	await(t, "the replica to end on "+place, func(ctx context.Context) error {
		w, err := vps.Workload(ctx, "web")
		if err != nil {
			return err
		}
		elsewhere := slices.DeleteFunc(w.Places(), func(name string) bool { return name == place })
		if _, err := host.Output(ctx, "busybox", "pidof", "httpd"); err != nil {
			return nil
		}
		if len(elsewhere) > 0 {
			t.Fatalf("it runs on %s while %v serve", place, elsewhere)
		}
		return errors.New("it runs")
	})
	t.Logf("it ended %s after the uplink", time.Since(begun).Round(time.Second))
	_, err = vps.AwaitReplicas(ctx, patient, "web", 1, place)
	must(t, err)
	t.Logf("it runs elsewhere %s after the uplink", time.Since(begun).Round(time.Second))
	if _, err := host.Output(ctx, "busybox", "pidof", "httpd"); err == nil {
		t.Errorf("it runs on %s, too", place)
	}
}

// A device alone in its zone that loses its uplink is taken for dead. Its process
// goes on, and wins when the device is back (CLD-REQ-031).
func TestDeathThatWasNone(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi", "desk")
	vps, desk := lab.Device("vps"), lab.Device("desk")
	importWeb(t, lab, vps)
	must(t, vps.Apply(ctx, onDisconnect("web", "home-b", "replace", "30s")))
	w, err := vps.AwaitReplicas(ctx, patient, "web", 1)
	must(t, err)
	before := runs(w)
	<-time.After(5 * time.Second)
	begun := time.Now()
	must(t, desk.Cut(ctx))
	t.Logf("desk was down %s after its uplink was cut", awaitDown(t, vps, "desk", begun).Round(time.Millisecond))
	_, err = vps.AwaitReplicas(ctx, patient, "web", 1, "desk")
	must(t, err)
	must(t, desk.Heal(ctx))
	awaitState(t, vps, "ready", "desk")
	awaitRuns(t, vps, "web", before)
	for _, e := range said(t, vps, "desk", begun) {
		t.Logf("%6.2fs %s", e.Time.Sub(begun).Seconds(), e.Message)
	}
}
