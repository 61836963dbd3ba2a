//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

const patient = 60 * time.Second

// pause waits for a state that has no condition to poll: quiet.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// join measures the time from `node start --join` to ready, on fresh disks
// behind a NAT, one device after the other.
func (b *bench) join(ctx context.Context) error {
	var samples []time.Duration
	for i := range b.runs {
		d := b.lab.Device(fmt.Sprintf("j%d", i+1))
		var t testnet.Token
		if err := b.vps.CloudlessJSON(ctx, &t, "token", "create"); err != nil {
			return err
		}
		start := time.Now()
		if err := d.Start(ctx, "--join", t.Token); err != nil {
			return err
		}
		if err := b.vps.AwaitReady(ctx, patient, d.Name); err != nil {
			return err
		}
		samples = append(samples, time.Since(start))
		if err := d.Kill(ctx); err != nil {
			return err
		}
		if _, err := b.vps.Cloudless(ctx, "node", "remove", d.Name, "--yes"); err != nil {
			return err
		}
	}
	b.durations("join_ready_s", "join → ready", samples)
	return nil
}

// apply measures the time from the start of `cloudless apply` to the start of
// the container, by the clocks of the two, which are one here.
func (b *bench) apply(ctx context.Context) error {
	image := filepath.Join(b.lab.Dir, "image.tar")
	ref := func(i int) string { return fmt.Sprintf("cloudless.test/bench:%d", i) }
	load := func(i int) error {
		if err := testnet.WriteWebImage(image, ref(i), 8<<20); err != nil {
			return err
		}
		_, err := b.lab.Device("b1").Cloudless(ctx, "image", "import", image)
		return err
	}
	var remote, present []time.Duration
	for i := range b.runs {
		if err := load(i); err != nil {
			return err
		}
		// The first run of an image on a1 has to fetch it from b1, the second has it.
		for _, samples := range []*[]time.Duration{&remote, &present} {
			took, err := b.runOnce(ctx, fmt.Sprintf("apply-%d", i), ref(i), "a1")
			if err != nil {
				return err
			}
			*samples = append(*samples, took)
		}
	}
	b.durations("apply_running_present_s", "apply → running, image present", present)
	b.durations("apply_running_remote_s", "apply → running, 9 MiB image away", remote)
	return nil
}

func (b *bench) runOnce(ctx context.Context, name, image, node string) (time.Duration, error) {
	start := time.Now()
	if err := b.vps.Apply(ctx, manifest(name, image, 8080, node)); err != nil {
		return 0, err
	}
	w, err := b.vps.AwaitReplicas(ctx, patient, name, 1)
	if err != nil {
		return 0, err
	}
	return w.Ready()[0].StartedAt.Sub(start), b.remove(ctx, name)
}

func (b *bench) remove(ctx context.Context, name string) error {
	if _, err := b.vps.Cloudless(ctx, "workload", "delete", name, "--yes"); err != nil {
		return err
	}
	return testnet.Await(ctx, patient, name+" to be gone", func(ctx context.Context) error {
		if w, err := b.vps.Workload(ctx, name); err == nil {
			return fmt.Errorf("it is %s", w.State)
		}
		return nil
	})
}

// manifest is one replica on one node.
func manifest(name, image string, port int, node string) string {
	return fmt.Sprintf(`apiVersion: cloudless/v1
kind: Workload
metadata: {name: %s}
spec:
  image: %s
  replicas: 1
  resources: {cpu: 50m, memory: 64Mi, limits: {cpu: 2000m, memory: 256Mi}}
  placement:
    affinity: [{key: name, operator: In, values: [%s], required: true}]
  ports: [{port: %d}]
  security: {readOnlyRootfs: false}
`, name, image, node, port)
}

// cpuTime reads what a process has used so far, user and system.
func cpuTime(ctx context.Context, d *testnet.Device, pid int) (time.Duration, error) {
	stat, err := d.Output(ctx, "cat", fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(stat, ") ") // the name may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read /proc/%d/stat: %q", pid, stat)
	}
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const ticksPerSecond = 100 // USER_HZ, fixed on Linux
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}
