//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// keptSnapshot is a snapshot as `anchor snapshots -o json` shows it.
type keptSnapshot struct {
	NodeName string `json:"node_name"`
	Index    uint64 `json:"index"`
	Epoch    uint64 `json:"epoch"`
}

// TestClusterFromASnapshotOnADevice: the VPS, the only anchor, is destroyed with
// its disk. The service goes on; a new machine becomes the anchor from what a
// device at home kept and the recovery key; the home follows it, and the old VPS
// has nothing to say when its disk turns up again (NFR-R1, NFR-A1).
func TestClusterFromASnapshotOnADevice(t *testing.T) {
	ctx := t.Context()
	lab := newLabOf(t, testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud-a", NAT: testnet.Public, Devices: []string{"vps"}},
		{Name: "cloud-b", NAT: testnet.Public, Devices: []string{"fresh"}},
		{Name: "home-a", NAT: testnet.Cone, Devices: []string{"pi", "nas"}},
	}})
	must(t, lab.Found(ctx, "vps", "pi", "nas"))
	vps, fresh, pi, nas := lab.Device("vps"), lab.Device("fresh"), lab.Device("pi"), lab.Device("nas")
	importWeb(t, lab, pi)
	runWeb(t, pi, 2)
	awaitAnswer(t, pi, webURL)
	key := strings.TrimSpace(cloudless(t, pi, "anchor", "recovery-key"))
	if _, err := pi.Cloudless(ctx, "anchor", "recovery-key"); err == nil {
		t.Error("a second recovery key replaced the first without being asked to")
	}
	await(t, "two devices to keep a snapshot", func(ctx context.Context) error {
		var kept []keptSnapshot
		if err := nas.CloudlessJSON(ctx, &kept, "anchor", "snapshots"); err != nil {
			return err
		}
		for _, name := range []string{"pi", "nas"} {
			if !slices.ContainsFunc(kept, func(s keptSnapshot) bool { return s.NodeName == name }) {
				return fmt.Errorf("%s keeps none: %+v", name, kept)
			}
		}
		return nil
	})
	must(t, vps.Kill(ctx))

	// What pi keeps is fetched at nas, carried to the new machine, and opened there
	// with what is on paper.
	const snapshot, secret = "home.clb", "recovery.key" // in a device's home directory
	t.Log(cloudless(t, nas, "anchor", "snapshots"))
	await(t, "the snapshot to be fetched", func(ctx context.Context) error {
		_, err := nas.Cloudless(ctx, "anchor", "fetch", snapshot, "--node", "pi")
		return err
	})
	content, err := nas.Output(ctx, "base64", "-w0", snapshot)
	must(t, err)
	must(t, fresh.Run(ctx, testnet.Cmd{Args: []string{"sh", "-c", "base64 -d >" + snapshot}, Stdin: strings.NewReader(content)}))
	must(t, fresh.Run(ctx, testnet.Cmd{Args: []string{"sh", "-c", "umask 077; cat >" + secret}, Stdin: strings.NewReader(key)}))
	t.Log(cloudless(t, fresh, "anchor", "restore", snapshot, "--data-dir", testnet.DataDir, "--secret-file", secret, "--name", "fresh", "--yes"))
	must(t, fresh.Start(ctx, "--public", "yes"))
	must(t, fresh.AwaitReady(ctx, patient, "fresh"))
	awaitAnswer(t, pi, webURL) // all the while

	// The home is behind a NAT and knows only the old address: a token tells it.
	for _, d := range []*testnet.Device{pi, nas} {
		var token testnet.Token
		must(t, fresh.CloudlessJSON(ctx, &token, "token", "create"))
		must(t, d.SignalNode(ctx, syscall.SIGTERM))
		_, err = d.WaitNode(ctx)
		must(t, err)
		must(t, d.Start(ctx, "--join", token.Token))
	}
	must(t, fresh.AwaitReady(ctx, patient, "pi", "nas"))
	awaitAnswer(t, pi, webURL)
	awaitStandings(t, pi, map[string]string{"fresh": "leader"})
	if _, err := fresh.AwaitReplicas(ctx, patient, "web", 2); err != nil {
		t.Error(err)
	}

	// The old machine was not destroyed after all.
	must(t, vps.Boot(ctx))
	must(t, fresh.AwaitReady(ctx, patient, "vps"))
	awaitStandings(t, vps, map[string]string{"fresh": "leader"})
	awaitStandings(t, pi, map[string]string{"fresh": "leader"})
	awaitAnswer(t, pi, webURL)
}
