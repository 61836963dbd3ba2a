//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// calm is how long the cluster is left alone before a device loses power: one
// that has just booted, on a machine that is busy with it, is given more time.
const calm = 10 * time.Second

// failover measures the time from a power cut to the verdict, and to the start
// of the replacement, with the image present on every node.
func (b *bench) failover(ctx context.Context) error {
	image := filepath.Join(b.lab.Dir, "web.tar")
	if err := testnet.WriteWebImage(image, testnet.WebImage, 0); err != nil {
		return err
	}
	if _, err := b.vps.Cloudless(ctx, "image", "import", image); err != nil {
		return err
	}
	// Once everywhere, so that every node has the image.
	if err := b.vps.Apply(ctx, testnet.WebManifest("web", 4)); err != nil {
		return err
	}
	if _, err := b.vps.AwaitReplicas(ctx, patient, "web", 4); err != nil {
		return err
	}
	// Replicas that are still stopping would keep the nodes that are to take over.
	if err := b.remove(ctx, "web"); err != nil {
		return err
	}
	if err := b.vps.Apply(ctx, testnet.WebManifest("web", 2)); err != nil {
		return err
	}
	var down, running []time.Duration
	for range b.cuts {
		if err := pause(ctx, calm); err != nil {
			return err
		}
		d, r, err := b.failOnce(ctx)
		if err != nil {
			return err
		}
		down, running = append(down, d), append(running, r)
	}
	b.durations("down_p50_s", "power cut → down", down)
	b.durations("failover_s", "power cut → replacement runs", running)
	return b.remove(ctx, "web")
}

// failOnce cuts the power of a device with a replica, and boots it again.
func (b *bench) failOnce(ctx context.Context) (down, running time.Duration, err error) {
	w, err := b.vps.AwaitReplicas(ctx, patient, "web", 2)
	if err != nil {
		return 0, 0, err
	}
	victim := w.Ready()[0]
	if victim.NodeName == "vps" { // the anchor stays
		victim = w.Ready()[1]
	}
	d := b.lab.Device(victim.NodeName)
	start := time.Now()
	if err := d.Kill(ctx); err != nil {
		return 0, 0, err
	}
	after, err := b.vps.AwaitReplicas(ctx, patient, "web", 2, victim.NodeName)
	if err != nil {
		return 0, 0, err
	}
	for _, r := range after.Ready() {
		running = max(running, r.StartedAt.Sub(start))
	}
	if down, err = b.downSince(ctx, d.Name, start); err != nil {
		return 0, 0, err
	}
	if err := d.Boot(ctx); err != nil {
		return 0, 0, err
	}
	return down, running, b.vps.AwaitReady(ctx, patient, d.Name)
}

// downSince returns how long after a time a node was declared down, as the
// events tell it.
func (b *bench) downSince(ctx context.Context, name string, start time.Time) (time.Duration, error) {
	var events []testnet.Event
	if err := b.vps.CloudlessJSON(ctx, &events, "events"); err != nil {
		return 0, err
	}
	for _, e := range events {
		if e.Object.Name == name && e.Time.After(start) && strings.Contains(e.Message, "is down") {
			return e.Time.Sub(start), nil
		}
	}
	return 0, fmt.Errorf("no event says that %s is down", name)
}
