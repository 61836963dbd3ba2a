//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

const (
	// What the machine does beside moves every figure of a run. The kinds of traffic
	// take turns, and the median of the rounds counts.
	trafficRounds = 3
	trafficTime   = 5 // seconds of each
)

// kind is one way to carry bytes between the same two devices.
type kind struct {
	name    string
	measure func(context.Context) (float64, error)
	gbit    []float64
}

// vip compares iperf3 through a service's virtual address with iperf3 between
// the same two devices, in the same home: plain, and through WireGuard in user space.
func (b *bench) vip(ctx context.Context) error {
	server, client := b.lab.Device("a1"), b.lab.Device("a2")
	if err := b.startIperf(ctx, server); err != nil {
		return err
	}
	const service = "iperf.cloudless.internal"
	var daemons time.Duration
	through := &kind{name: "through the service", measure: func(ctx context.Context) (float64, error) {
		before, err := daemonTime(ctx, server, client)
		if err != nil {
			return 0, err
		}
		gbit, err := measure(ctx, client, service, "5201")
		if err != nil {
			return 0, err
		}
		after, err := daemonTime(ctx, server, client)
		daemons += after - before
		return gbit, err
	}}
	parallel := &kind{name: "four connections", measure: func(ctx context.Context) (float64, error) {
		return measure(ctx, client, service, "5201", "-P", "4")
	}}
	plain := &kind{name: "plain", measure: func(ctx context.Context) (float64, error) {
		return plainIperf(ctx, server, client, server.Addr.String())
	}}
	guarded := &kind{name: "wireguard-go", measure: func(ctx context.Context) (float64, error) { return tunnelIperf(ctx, server, client) }}
	kinds := []*kind{through, parallel, plain, guarded}
	for range trafficRounds {
		for _, k := range kinds {
			gbit, err := k.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			k.gbit = append(k.gbit, gbit)
		}
	}
	perGbit := daemons.Seconds() / (sum(through.gbit) * trafficTime)
	fmt.Printf("%-32s", "service between two devices")
	for _, k := range kinds {
		fmt.Printf(" %s %.2f Gbit/s,", k.name, median(k.gbit))
	}
	fmt.Printf(" %.3f CPU-seconds per Gbit\n", perGbit)
	b.figures = append(b.figures,
		compared("vip_gbit", "Gbit/s", median(through.gbit), median(plain.gbit), median(ratios(through, plain))),
		compared("vip_ratio", "ratio", median(ratios(through, plain)), median(plain.gbit), median(ratios(through, plain))),
		compared("vip_ratio_wireguard", "ratio", median(ratios(through, guarded)), median(guarded.gbit), median(ratios(through, guarded))),
		compared("vip_parallel_gbit", "Gbit/s", median(parallel.gbit), median(plain.gbit), median(ratios(parallel, plain))),
		figure{Name: "vip_cpu_s_per_gbit", Value: perGbit, Unit: "s"})
	return b.remove(ctx, "iperf")
}

func compared(name, unit string, value, baseline, ratio float64) figure {
	return figure{Name: name, Value: value, Unit: unit, Baseline: &baseline, Ratio: &ratio}
}

// ratios compares two kinds round by round.
func ratios(k, baseline *kind) []float64 {
	out := make([]float64, len(k.gbit))
	for i := range out {
		out[i] = k.gbit[i] / baseline.gbit[i]
	}
	return out
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return v[len(v)/2]
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// daemonTime is the CPU time of the daemons of some devices.
func daemonTime(ctx context.Context, devices ...*testnet.Device) (total time.Duration, err error) {
	for _, d := range devices {
		pid, err := d.NodePID(ctx)
		if err != nil {
			return 0, err
		}
		used, err := cpuTime(ctx, d, pid)
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// startIperf runs an iperf3 server as a workload of a device.
func (b *bench) startIperf(ctx context.Context, server *testnet.Device) error {
	image := filepath.Join(b.lab.Dir, "iperf.tar")
	if err := testnet.WriteIperfImage(ctx, image); err != nil {
		return err
	}
	if _, err := server.Cloudless(ctx, "image", "import", image); err != nil {
		return err
	}
	if err := b.vps.Apply(ctx, manifest("iperf", testnet.IperfImage, 5201, server.Name)); err != nil {
		return err
	}
	_, err := b.vps.AwaitReplicas(ctx, patient, "iperf", 1)
	return err
}

// plainPort is where the last server of plainIperf listened. Each has its own:
// one that has been told to stop may still answer for a moment.
var plainPort = 5999

func plainIperf(ctx context.Context, server, client *testnet.Device, target string) (float64, error) {
	serve, stop := context.WithCancel(ctx)
	defer stop()
	plainPort++
	port := strconv.Itoa(plainPort)
	go func() { _, _ = server.Output(serve, "iperf3", "-s", "-p", port) }() // ended by stop
	return measure(ctx, client, target, port)
}

// measure takes what the first run gives that a server has served: no second
// try for a figure that looks bad.
func measure(ctx context.Context, client *testnet.Device, target, port string, flags ...string) (gbit float64, err error) {
	err = testnet.Await(ctx, patient, "iperf3 at "+target, func(ctx context.Context) (err error) {
		gbit, err = runIperf(ctx, client, append([]string{"-c", target, "-p", port}, flags...)...)
		return err
	})
	return gbit, err
}

func runIperf(ctx context.Context, client *testnet.Device, flags ...string) (float64, error) {
	out, err := client.Output(ctx, append([]string{"iperf3", "-J", "-t", strconv.Itoa(trafficTime)}, flags...)...)
	if err != nil {
		return 0, err
	}
	var result struct {
		Error string `json:"error"` // with -J it goes here, and the exit code is 0
		End   struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return 0, fmt.Errorf("read iperf3: %w", err)
	}
	if result.Error != "" {
		return 0, errors.New(result.Error)
	}
	return result.End.Received.BitsPerSecond / 1e9, nil
}
