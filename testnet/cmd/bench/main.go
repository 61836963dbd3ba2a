//go:build linux

// Command bench measures the real binary in the lab: how long it takes to join,
// to run, to replace; what a service's traffic costs; what an idle node costs.
// It prints a table and writes one JSON line per figure.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

func main() {
	testnet.RunInit()
	if probing() || sniffing() {
		return
	}
	binary := flag.String("binary", "bin/cloudless", "the cloudless binary")
	out := flag.String("out", "build/bench.jsonl", "where the figures go")
	only := flag.String("only", "", "measure these alone: join,revoke,apply,failover,vip,requests,idle,leader")
	runs := flag.Int("runs", 10, "samples of each duration")
	cuts := flag.Int("cuts", 20, "power cuts for the failover")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *out, *only, *runs, *cuts); err != nil {
		fmt.Fprintln(os.Stderr, "bench failed:", err)
		os.Exit(1)
	}
}

// figure is one line of the output. Baseline and ratio are there when the same
// run measured something to compare with.
type figure struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
}

type bench struct {
	lab     *testnet.Lab
	vps     *testnet.Device
	runs    int
	cuts    int
	figures []figure
}

// topology has room for what is measured: workers in two homes that can punch
// through to each other, and devices that join one after the other.
func topology(joiners int) testnet.Topology {
	t := testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud", NAT: testnet.Public, Devices: []string{"vps"}},
		{Name: "home-a", NAT: testnet.Cone, Devices: []string{"a1", "a2"}},
		{Name: "home-b", NAT: testnet.Cone, Devices: []string{"b1"}},
		{Name: "home-c", NAT: testnet.Cone},
	}}
	for i := range joiners {
		t.Sites[3].Devices = append(t.Sites[3].Devices, fmt.Sprintf("j%d", i+1))
	}
	for i := range min(joiners, maxRevoked) { // one in the home of members, the next elsewhere
		s := &t.Sites[1+2*(i%2)]
		s.Devices = append(s.Devices, fmt.Sprintf("r%d", i+1))
	}
	return t
}

func run(ctx context.Context, binary, out, only string, runs, cuts int) (err error) {
	lab, err := testnet.Up(ctx, topology(runs), testnet.Options{Binary: binary})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := lab.Close(); err == nil {
			err = cerr
		}
	}()
	b := &bench{lab: lab, vps: lab.Device("vps"), runs: runs, cuts: cuts}
	if err := lab.Found(ctx, "vps", "a1", "a2", "b1"); err != nil {
		return err
	}
	parts := []struct {
		name string
		run  func(context.Context) error
	}{{"idle", b.idle}, {"join", b.join}, {"revoke", b.revoke}, {"apply", b.apply}, {"vip", b.vip}, {"requests", b.requests}, {"failover", b.failover}, {"leader", b.leader}}
	for _, p := range parts {
		if only != "" && !slices.Contains(strings.Split(only, ","), p.name) {
			continue
		}
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return b.write(out)
}

func (b *bench) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	for _, fig := range b.figures {
		if err := enc.Encode(fig); err != nil {
			return err
		}
	}
	return f.Close()
}

// durations records a figure from samples and prints their distribution.
func (b *bench) durations(name, what string, samples []time.Duration) {
	slices.Sort(samples)
	at := func(p float64) time.Duration { return samples[min(len(samples)-1, int(p*float64(len(samples))))] }
	fmt.Printf("%-32s P50 %6.2f s   P95 %6.2f s   P99 %6.2f s   (%d runs)\n", what,
		at(.5).Seconds(), at(.95).Seconds(), at(.99).Seconds(), len(samples))
	b.figures = append(b.figures,
		figure{Name: name, Value: at(.5).Seconds(), Unit: "s"},
		figure{Name: strings.TrimSuffix(strings.TrimSuffix(name, "_s"), "_p50") + "_p95_s", Value: at(.95).Seconds(), Unit: "s"},
	)
}
