//go:build linux

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// idleWindow is how long an idle node is watched: some rounds of everything
// that is done every few seconds.
const (
	idleWindow = 2 * time.Minute
	settled    = 150 * time.Second // after which what follows a start is over: watched paths, multicast, the first measurement of the bandwidth
)

// usage is what a node has used at a time.
type usage struct {
	at    time.Time
	cpu   time.Duration
	bytes int64 // through its uplink, both ways
}

// idle measures what the daemon of an ordinary node takes while nothing
// happens: without its containerd, which the figures of other daemons leave out
// too. Its traffic is all that passes its uplink.
func (b *bench) idle(ctx context.Context) error {
	d := b.lab.Device("a1")
	if err := pause(ctx, settled); err != nil {
		return err
	}
	pid, err := d.NodePID(ctx)
	if err != nil {
		return err
	}
	dev, err := uplink(ctx, d)
	if err != nil {
		return err
	}
	peers, err := d.Peers(ctx)
	if err != nil {
		return err
	}
	before, err := used(ctx, d, pid, dev)
	if err != nil {
		return err
	}
	shares, err := sniff(ctx, d, dev, idleWindow)
	if err != nil {
		return err
	}
	after, err := used(ctx, d, pid, dev)
	if err != nil {
		return err
	}
	rss, err := d.Output(ctx, "sh", "-c", fmt.Sprintf("awk '/^VmRSS/ {print $2}' /proc/%d/status", pid))
	if err != nil {
		return err
	}
	kib, err := strconv.ParseFloat(strings.TrimSpace(rss), 64)
	if err != nil {
		return err
	}
	took := after.at.Sub(before.at)
	percent := 100 * (after.cpu - before.cpu).Seconds() / took.Seconds()
	traffic := float64(after.bytes-before.bytes) / 1e6 / took.Hours()
	fmt.Printf("%-32s %.0f MiB RSS, %.2f %% of a core, %.2f MB/h\n", "idle node", kib/1024, percent, traffic)
	table(shares, peers, took)
	b.figures = append(b.figures,
		figure{Name: "idle_rss_mib", Value: kib / 1024, Unit: "MiB"},
		figure{Name: "idle_cpu_pct", Value: percent, Unit: "%"},
		figure{Name: "idle_mb_per_h", Value: traffic, Unit: "MB/h"})
	return nil
}

func used(ctx context.Context, d *testnet.Device, pid int, dev string) (usage, error) {
	cpu, err := cpuTime(ctx, d, pid)
	if err != nil {
		return usage{}, err
	}
	bytes, err := bytesOf(ctx, d, dev)
	return usage{time.Now(), cpu, bytes}, err
}

// uplink returns the interface with the default route.
func uplink(ctx context.Context, d *testnet.Device) (string, error) {
	out, err := d.Output(ctx, "sh", "-c", `ip -o route show default | sed 's/.* dev \([^ ]*\).*/\1/'`)
	return strings.TrimSpace(out), err
}

// bytesOf reads the counters of an interface.
func bytesOf(ctx context.Context, d *testnet.Device, dev string) (int64, error) {
	out, err := d.Output(ctx, "grep", "^ *"+dev+":", "/proc/net/dev")
	if err != nil {
		return 0, err
	}
	_, counters, _ := strings.Cut(out, ":")
	fields := strings.Fields(counters)
	if len(fields) < 9 {
		return 0, fmt.Errorf("read the counters of an interface: %q", out)
	}
	var sum int64
	for _, f := range []string{fields[0], fields[8]} { // received, sent
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the counters of an interface: %w", err)
		}
		sum += n
	}
	return sum, nil
}
