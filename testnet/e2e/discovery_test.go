//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// settled is how long connections to a device that is gone may take to be
// found dead, and new ones to be made.
const settled = 3 * time.Minute

// rentedServers is a cluster whose only anchor is one of three machines with
// public addresses, and two homes that reach each other through them.
func rentedServers() testnet.Topology {
	return testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud-a", NAT: testnet.Public, Devices: []string{"vps"}},
		{Name: "cloud-b", NAT: testnet.Public, Devices: []string{"r1"}},
		{Name: "cloud-c", NAT: testnet.Public, Devices: []string{"r2"}},
		{Name: "home-a", NAT: testnet.Cone, Devices: []string{"pi"}},
		{Name: "home-b", NAT: testnet.Symmetric, Devices: []string{"desk"}},
	}}
}

// TestMembersAreFoundWithoutAnchors: with the only anchor switched off, a server
// gets another address. Those who cannot be reached from outside learn of it
// from another member, in time to meet there when that one goes too; and a
// device that was rebooted meanwhile finds it by what it kept on its disk
// (CLD-REQ-003, NFR-A1).
func TestMembersAreFoundWithoutAnchors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lab := newLabOf(t, rentedServers())
	must(t, lab.Found(ctx, "vps", "pi", "desk"))
	vps, r1, r2, pi, desk := lab.Device("vps"), lab.Device("r1"), lab.Device("r2"), lab.Device("pi"), lab.Device("desk")
	for _, d := range []*testnet.Device{r1, r2} {
		var token testnet.Token
		must(t, vps.CloudlessJSON(ctx, &token, "token", "create"))
		must(t, d.Start(ctx, "--join", token.Token, "--public", "yes", "--anchor", "never"))
	}
	must(t, vps.AwaitReady(ctx, patient, "r1", "r2"))
	id := idsOf(t, vps)
	old := addressOf(t, r1)
	for _, d := range []*testnet.Device{pi, desk, r2} {
		awaitPeer(t, d, id["r1"], old)
	}

	must(t, vps.Kill(ctx))
	must(t, lab.Renumber(ctx, "r1"))
	moved := time.Now()
	at := addressOf(t, r1)
	if at == old {
		t.Fatalf("r1 still has %s", old)
	}
	for _, d := range []*testnet.Device{r2, pi, desk} {
		awaitPeer(t, d, id["r1"], at)
		t.Logf("%s is connected to r1 at its new address after %s", d.Name, time.Since(moved).Round(time.Second))
	}

	// Whoever reboots now has a view from before the move, and its disk.
	await(t, "desk to have saved what it heard", func(ctx context.Context) error { return keeps(ctx, desk, at) })
	must(t, r2.Kill(ctx))
	must(t, desk.Kill(ctx))
	must(t, desk.Boot(ctx))
	booted := time.Now()
	awaitPeer(t, desk, id["r1"], at)
	t.Logf("desk reaches r1 %s after its boot", time.Since(booted).Round(100*time.Millisecond))
	awaitPeer(t, desk, id["pi"], netip.Addr{})
	t.Logf("desk reaches pi %s after its boot", time.Since(booted).Round(100*time.Millisecond))

	must(t, vps.Boot(ctx))
	must(t, vps.AwaitReady(ctx, settled, "r1", "pi", "desk"))
}

// keeps finds out whether a device has a record on its disk that names an address.
func keeps(ctx context.Context, d *testnet.Device, at netip.Addr) error {
	out, err := d.Output(ctx, "cat", testnet.DataDir+"/records.json")
	if err != nil {
		return err
	}
	var records [][]byte
	if err := json.Unmarshal([]byte(out), &records); err != nil {
		return err
	}
	if !slices.ContainsFunc(records, func(r []byte) bool { return bytes.Contains(r, at.AsSlice()) }) {
		return fmt.Errorf("none of its %d records names %s", len(records), at)
	}
	return nil
}

// addressOf asks a device for its address on the internet.
func addressOf(t *testing.T, d *testnet.Device) netip.Addr {
	t.Helper()
	out, err := d.Output(t.Context(), "ip", "-4", "-o", "addr", "show", "scope", "global", "up")
	must(t, err)
	for _, field := range strings.Fields(out) {
		if p, err := netip.ParsePrefix(field); err == nil && strings.HasPrefix(field, "192.0.0.") {
			return p.Addr()
		}
	}
	t.Fatalf("%s has no address on the internet: %s", d.Name, out)
	return netip.Addr{}
}

// idsOf lists the members by name. Whoever boots from a view that it saved before
// one of them joined knows that one by its ID alone.
func idsOf(t *testing.T, d *testnet.Device) map[string]string {
	t.Helper()
	nodes, err := d.Nodes(t.Context())
	must(t, err)
	ids := make(map[string]string)
	for _, n := range nodes {
		ids[n.Name] = n.ID
	}
	return ids
}

// awaitPeer waits until a device is connected to another one, at an address if
// that is given.
func awaitPeer(t *testing.T, d *testnet.Device, id string, at netip.Addr) {
	t.Helper()
	must(t, testnet.Await(t.Context(), settled, fmt.Sprintf("%s to be connected to %s at %s", d.Name, id, at), func(ctx context.Context) error {
		peers, err := d.Peers(ctx)
		if err != nil {
			return err
		}
		for _, p := range peers {
			if p.ID == id && p.Path != "none" && (!at.IsValid() || strings.Contains(p.Address, "/"+at.String()+"/")) {
				return nil
			}
		}
		return fmt.Errorf("it has the peers %+v", peers)
	}))
}
