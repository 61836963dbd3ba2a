//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/testnet"
)

// maxRevoked bounds how many devices the removals use up.
const maxRevoked = 10

// revoke measures the time from the start of `cloudless node remove` until the
// last member has cut the node off: in the same home, in another one, and in
// the cloud. Every removal takes a fresh device.
func (b *bench) revoke(ctx context.Context) error {
	var samples []time.Duration
	for i := range min(b.runs, maxRevoked) {
		took, err := b.revokeOnce(ctx, fmt.Sprintf("r%d", i+1))
		if err != nil {
			return err
		}
		samples = append(samples, took)
	}
	b.durations("revoke_s", "remove → cut off by the last", samples)
	return nil
}

func (b *bench) revokeOnce(ctx context.Context, name string) (time.Duration, error) {
	if err := b.lab.Join(ctx, b.vps, name); err != nil {
		return 0, err
	}
	if err := b.vps.AwaitReady(ctx, patient, name); err != nil {
		return 0, err
	}
	members := []string{"vps", "a1", "a2", "b1"}
	id, err := b.nodeID(ctx, name)
	if err != nil {
		return 0, err
	}
	connected := func(want bool) error {
		g, gctx := errgroup.WithContext(ctx)
		for _, m := range members {
			g.Go(func() error { return awaitPeer(gctx, b.lab.Device(m), id, want) })
		}
		return g.Wait()
	}
	if err := connected(true); err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := b.vps.Cloudless(ctx, "node", "remove", name, "--yes"); err != nil {
		return 0, err
	}
	if err := connected(false); err != nil {
		return 0, err
	}
	return time.Since(start), b.lab.Device(name).Kill(ctx)
}

func (b *bench) nodeID(ctx context.Context, name string) (string, error) {
	nodes, err := b.vps.Nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		if n.Name == name {
			return n.ID, nil
		}
	}
	return "", fmt.Errorf("there is no node %s", name)
}

// awaitPeer waits until a device is connected to a node, or is not.
func awaitPeer(ctx context.Context, d *testnet.Device, id string, want bool) error {
	return testnet.Await(ctx, patient, d.Name+" to see a peer, or not", func(ctx context.Context) error {
		peers, err := d.Peers(ctx)
		if err != nil {
			return err
		}
		for _, p := range peers {
			if p.ID == id {
				if want {
					return nil
				}
				return fmt.Errorf("it is connected: %s", p.Path)
			}
		}
		if want {
			return fmt.Errorf("it is not connected")
		}
		return nil
	})
}
