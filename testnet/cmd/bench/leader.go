//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// leader measures the time from a power cut of the leading anchor, one of three,
// to the first write that is acknowledged again, at a node that stays.
func (b *bench) leader(ctx context.Context) (err error) {
	lab, err := testnet.Up(ctx, testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud-a", NAT: testnet.Public, Devices: []string{"va"}},
		{Name: "cloud-b", NAT: testnet.Public, Devices: []string{"vb"}},
		{Name: "cloud-c", NAT: testnet.Public, Devices: []string{"vc"}},
	}}, testnet.Options{Binary: b.lab.Binary})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	if err := foundAnchors(ctx, lab); err != nil {
		return err
	}
	var samples []time.Duration
	for range max(b.runs, 5) {
		took, err := cutLeader(ctx, lab)
		if err != nil {
			return err
		}
		samples = append(samples, took)
	}
	b.durations("leader_failover_s", "leader dies → a write succeeds", samples)
	return nil
}

// foundAnchors makes every device of a lab an anchor that runs nothing.
func foundAnchors(ctx context.Context, lab *testnet.Lab) error {
	flags := []string{"--public", "yes", "--no-workloads", "--anchor", "always"}
	first := lab.Devices()[0]
	if err := first.Start(ctx, append(flags, "--init")...); err != nil {
		return err
	}
	for _, d := range lab.Devices()[1:] {
		var token testnet.Token
		err := testnet.Await(ctx, patient, "a token", func(ctx context.Context) error {
			return first.CloudlessJSON(ctx, &token, "token", "create")
		})
		if err != nil {
			return err
		}
		if err := d.Start(ctx, append(flags, "--join", token.Token)...); err != nil {
			return err
		}
	}
	_, _, err := votes(ctx, lab)
	return err
}

// votes waits until every device of a lab votes and has the log, and returns the
// leader and another one.
func votes(ctx context.Context, lab *testnet.Lab) (leads, follows *testnet.Device, err error) {
	err = testnet.Await(ctx, patient, "three votes", func(ctx context.Context) error {
		var list []struct {
			Name      string `json:"name"`
			Standing  string `json:"standing"`
			Reachable bool   `json:"reachable"`
			Behind    uint64 `json:"behind"`
		}
		leads, follows = nil, nil
		if err := lab.Devices()[0].CloudlessJSON(ctx, &list, "anchor", "list"); err != nil {
			return err
		}
		ready := 0
		for _, a := range list {
			switch {
			case a.Standing == "leader":
				leads = lab.Device(a.Name)
			case a.Standing == "voter" && a.Reachable && a.Behind < 10:
				follows = lab.Device(a.Name)
			default:
				continue
			}
			ready++
		}
		if ready < len(lab.Devices()) || leads == nil || follows == nil {
			return fmt.Errorf("the anchors are %+v", list)
		}
		return nil
	})
	return leads, follows, err
}

func cutLeader(ctx context.Context, lab *testnet.Lab) (time.Duration, error) {
	leads, follows, err := votes(ctx, lab)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := leads.Kill(ctx); err != nil {
		return 0, err
	}
	err = testnet.Await(ctx, patient, "a write to be acknowledged", func(ctx context.Context) error {
		_, err := follows.Cloudless(ctx, "token", "create", "--timeout", "1s")
		return err
	})
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	return took, leads.Boot(ctx)
}
