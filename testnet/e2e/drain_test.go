//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

// TestDrain: a node is emptied and the service answers, it takes nothing until it
// is uncordoned, and says how many replicas it has (CLD-REQ-072).
func TestDrain(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi := lab.Device("vps"), lab.Device("pi")
	importWeb(t, lab, pi)
	places := runWeb(t, pi, 2).Places()
	full := places[0]
	probe, err := vps.Probe(ctx, webURL)
	must(t, err)
	defer probe.Stop()

	cloudless(t, vps, "node", "drain", full, "--wait")
	w, err := vps.Workload(ctx, "web")
	must(t, err)
	if places := w.Places(); slices.Contains(places, full) {
		t.Errorf("after %s was drained the replicas run on %v", full, places)
	}
	_, err = vps.AwaitReplicas(ctx, patient, "web", 2, full)
	must(t, err)
	awaitAnswer(t, vps, webURL)
	t.Logf("the service meanwhile: %+v", probe.Result())
	cloudless(t, vps, "workload", "scale", "web", "3")
	_, err = vps.AwaitReplicas(ctx, patient, "web", 3, full)
	must(t, err)
	cloudless(t, vps, "node", "uncordon", full)
	await(t, full+" to be ready and empty", func(ctx context.Context) error {
		var n struct {
			State    string `json:"state"`
			Replicas int    `json:"replicas"`
		}
		if err := vps.CloudlessJSON(ctx, &n, "node", "show", full); err != nil {
			return err
		}
		if n.State != "ready" || n.Replicas != 0 {
			return fmt.Errorf("it is %s with %d replicas", n.State, n.Replicas)
		}
		return nil
	})
}
