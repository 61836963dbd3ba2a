//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// said returns the events about a node since a time, as the anchor tells them.
func said(t *testing.T, vps *testnet.Device, node string, since time.Time) []testnet.Event {
	t.Helper()
	var events []testnet.Event
	must(t, vps.CloudlessJSON(t.Context(), &events, "events"))
	return slices.DeleteFunc(events, func(e testnet.Event) bool {
		return e.Object.Kind != "node" || e.Object.Name != node || e.Time.Before(since)
	})
}

// awaitDown waits until a node is down and returns how long that took.
func awaitDown(t *testing.T, vps *testnet.Device, node string, since time.Time) time.Duration {
	t.Helper()
	var took time.Duration
	await(t, node+" to be down", func(context.Context) error {
		for _, e := range said(t, vps, node, since) {
			if strings.Contains(e.Message, "is down") {
				took = e.Time.Sub(since)
				return nil
			}
		}
		return fmt.Errorf("no event says that %s is down", node)
	})
	return took
}

// A device that loses power is declared down; how fast is printed.
func TestPowerCutIsDown(t *testing.T) {
	lab := newCluster(t, "pi", "nas", "desk")
	vps := lab.Device("vps")
	for _, name := range []string{"pi", "desk", "nas", "pi", "desk", "nas"} {
		<-time.After(3 * time.Second) // of heartbeats
		d := lab.Device(name)
		cut := time.Now()
		must(t, d.Kill(t.Context()))
		t.Logf("%s was down %s after its power cut", name, awaitDown(t, vps, name, cut).Round(time.Millisecond))
		must(t, d.Boot(t.Context()))
		must(t, vps.AwaitReady(t.Context(), patient, name))
	}
}

// A device that only its neighbour sees for 15 s is not declared down,
// and what it runs goes on.
func TestBlipThatANeighbourSeesIsNoDeath(t *testing.T) {
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi := lab.Device("vps"), lab.Device("pi")
	importWeb(t, lab, pi)
	before := runs(runWeb(t, pi, 3))
	<-time.After(5 * time.Second) // pi and nas find each other
	begun := time.Now()
	mend := offline(t, pi)
	<-time.After(15 * time.Second)
	mend()
	must(t, vps.AwaitReady(t.Context(), patient, "pi"))
	awaitRuns(t, vps, "web", before)
	for _, e := range said(t, vps, "pi", begun) {
		t.Logf("%6.2fs %s", e.Time.Sub(begun).Seconds(), e.Message)
		if strings.Contains(e.Message, "is down") {
			t.Error("a device that its neighbour saw was declared down")
		}
	}
}
