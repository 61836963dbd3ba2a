//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// threeClouds is a home and three machines with public addresses, and a fourth
// one that takes over when they are gone.
func threeClouds() testnet.Topology {
	return testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud-a", NAT: testnet.Public, Devices: []string{"va"}},
		{Name: "cloud-b", NAT: testnet.Public, Devices: []string{"vb"}},
		{Name: "cloud-c", NAT: testnet.Public, Devices: []string{"vc"}},
		{Name: "cloud-d", NAT: testnet.Public, Devices: []string{"vd"}},
		{Name: "home-a", NAT: testnet.Cone, Devices: []string{"pi"}},
	}}
}

// anchorStatus is an anchor as `anchor list -o json` shows it.
type anchorStatus struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Standing  string `json:"standing"`
	Reachable bool   `json:"reachable"`
	Behind    uint64 `json:"behind"`
	Epoch     uint64 `json:"epoch"`
}

// standings asks a device who is what among the anchors.
func standings(ctx context.Context, d *testnet.Device) (map[string]string, error) {
	var list []anchorStatus
	if err := d.CloudlessJSON(ctx, &list, "anchor", "list"); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, a := range list {
		out[a.Name] = a.Standing
	}
	return out, nil
}

// awaitStandings waits until the anchors are as wanted; "voter" is a leader too.
func awaitStandings(t *testing.T, d *testnet.Device, want map[string]string) {
	t.Helper()
	await(t, fmt.Sprintf("the anchors to be %v", want), func(ctx context.Context) error {
		got, err := standings(ctx, d)
		if err != nil {
			return err
		}
		same := len(got) == len(want)
		for name, standing := range want {
			same = same && (got[name] == standing || standing == "voter" && got[name] == "leader")
		}
		if !same {
			return fmt.Errorf("%s sees %v", d.Name, got)
		}
		return nil
	})
}

// newClouds builds a cluster whose three public nodes are all anchors.
func newClouds(t *testing.T, joiners ...string) *testnet.Lab {
	t.Helper()
	ctx := t.Context()
	lab := newLabOf(t, threeClouds())
	must(t, lab.Found(ctx, "va", joiners...))
	va := lab.Device("va")
	for _, name := range []string{"vb", "vc"} {
		var token testnet.Token
		must(t, va.CloudlessJSON(ctx, &token, "token", "create"))
		must(t, lab.Device(name).Start(ctx, "--join", token.Token, "--public", "yes"))
	}
	must(t, va.AwaitReady(ctx, patient, "vb", "vc"))
	start := time.Now()
	cloudless(t, va, "anchor", "add", "vb")
	cloudless(t, lab.Device("vb"), "anchor", "add", "vc")
	awaitStandings(t, va, map[string]string{"va": "voter", "vb": "voter", "vc": "voter"})
	t.Logf("three voters %s after the second was asked for", time.Since(start).Round(10*time.Millisecond))
	return lab
}

// TestLeaderLosesPower: with three anchors the leader may die under writes. No
// acknowledged write is lost, what runs goes on answering, another leads within
// seconds, and the old one comes back as a follower (NFR-R1, CLD-REQ-012).
func TestLeaderLosesPower(t *testing.T) {
	ctx := t.Context()
	lab := newClouds(t, "pi")
	va, vb, vc, pi := lab.Device("va"), lab.Device("vb"), lab.Device("vc"), lab.Device("pi")
	importWeb(t, lab, pi)
	runWeb(t, pi, 2)
	awaitAnswer(t, pi, webURL)
	probe, err := pi.Probe(ctx, webURL)
	must(t, err)
	defer probe.Stop()

	var w writer
	done := make(chan struct{})
	writing, stop := context.WithCancel(ctx)
	go func() {
		defer close(done)
		w.write(writing, vb)
	}()
	await(t, "some writes to be acknowledged", func(context.Context) error {
		if n := w.count(); n < 6 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	must(t, va.Kill(ctx))
	dead := time.Now()
	before := w.count()
	await(t, "another anchor to lead", func(ctx context.Context) error {
		got, err := standings(ctx, vc)
		if err == nil && got["vb"] != "leader" && got["vc"] != "leader" {
			err = fmt.Errorf("the anchors are %v", got)
		}
		return err
	})
	t.Logf("another anchor leads %s after the power cut", time.Since(dead).Round(10*time.Millisecond))
	await(t, "writes to go on", func(context.Context) error {
		if n := w.count(); n < before+4 {
			return fmt.Errorf("%d more are acknowledged", n-before)
		}
		return nil
	})
	t.Logf("writes go on %s after the power cut", time.Since(dead).Round(10*time.Millisecond))
	await(t, "pi to follow the new leader", func(ctx context.Context) error {
		_, err := pi.Cloudless(ctx, "token", "create")
		return err
	})
	stop()
	<-done
	checkWrites(t, vc, &w)
	t.Logf("the service meanwhile: %+v", probe.Result())

	must(t, va.Boot(ctx))
	awaitStandings(t, vc, map[string]string{"va": "voter", "vb": "voter", "vc": "voter"})
	await(t, "va to have caught up", func(ctx context.Context) error {
		var list []anchorStatus
		if err := vc.CloudlessJSON(ctx, &list, "anchor", "list"); err != nil {
			return err
		}
		for _, a := range list {
			if !a.Reachable || a.Behind > 10 {
				return fmt.Errorf("%s: %+v", a.Name, a)
			}
		}
		return nil
	})
	checkWrites(t, va, &w)

	cloudless(t, pi, "anchor", "transfer", "va")
	awaitStandings(t, pi, map[string]string{"va": "leader", "vb": "voter", "vc": "voter"})
	cloudless(t, pi, "anchor", "remove", "va") // the leader: it hands over, then goes
	await(t, "one of the two to vote, and the other to stand by", func(ctx context.Context) error {
		got, err := standings(ctx, pi)
		if err == nil && !maps.Equal(got, map[string]string{"vb": "leader", "vc": "standby"}) && !maps.Equal(got, map[string]string{"vb": "standby", "vc": "leader"}) {
			err = fmt.Errorf("the anchors are %v", got)
		}
		return err
	})
	await(t, "va to wipe its log", func(ctx context.Context) error {
		if _, err := va.Output(ctx, "test", "-e", testnet.DataDir+"/raft"); err == nil {
			return fmt.Errorf("it is still there")
		}
		return nil
	})
	checkWrites(t, va, &w)
	awaitAnswer(t, pi, webURL)
}

// checkWrites makes sure that what was acknowledged is there, in the eyes of d.
func checkWrites(t *testing.T, d *testnet.Device, w *writer) {
	t.Helper()
	var tokens []testnet.Token
	var workloads []testnet.Workload
	await(t, "the writes to be listed", func(ctx context.Context) error {
		if err := d.CloudlessJSON(ctx, &tokens, "token", "list"); err != nil {
			return err
		}
		return d.CloudlessJSON(ctx, &workloads, "workload", "list")
	})
	for _, id := range w.tokens {
		if !slices.ContainsFunc(tokens, func(t testnet.Token) bool { return t.ID == id }) {
			t.Errorf("token %s was acknowledged and is gone", id)
		}
	}
	for _, name := range w.workloads {
		if !slices.ContainsFunc(workloads, func(w testnet.Workload) bool { return w.Name == name }) {
			t.Errorf("workload %s was acknowledged and is gone", name)
		}
	}
	t.Logf("%d writes acknowledged, all there", w.count())
}

// reinstall gives a device that is off an empty disk, and switches it on: another
// machine at the same address.
func reinstall(t *testing.T, d *testnet.Device) {
	t.Helper()
	for _, name := range []string{"disk", "node.unit.json"} {
		must(t, os.RemoveAll(filepath.Join(d.Dir, name)))
	}
	must(t, d.Boot(t.Context()))
}

// TestRestoreFromBackup: every anchor is lost, a new machine at the address of one
// of them is made the only one from a backup, a home behind a NAT finds it by
// itself, and the old ones are fenced off when they come back (NFR-R1).
func TestRestoreFromBackup(t *testing.T) {
	ctx := t.Context()
	lab := newClouds(t, "pi")
	va, vb, vc, pi := lab.Device("va"), lab.Device("vb"), lab.Device("vc"), lab.Device("pi")
	importWeb(t, lab, pi)
	runWeb(t, pi, 1)
	backup, secret := testnet.DataDir+"/../backup.clb", testnet.DataDir+"/../secret"
	prepare := func(d *testnet.Device) {
		_, err := d.Output(ctx, "sh", "-c", "mkdir -p $(dirname "+backup+"); echo correct horse battery staple >"+secret)
		must(t, err)
	}
	prepare(pi)
	t.Log(cloudless(t, pi, "anchor", "backup", backup, "--secret-file", secret))
	t.Log("\n" + cloudless(t, pi, "anchor", "list"))
	for _, d := range []*testnet.Device{va, vb, vc} {
		must(t, d.Kill(ctx))
	}
	content, err := pi.Output(ctx, "base64", "-w0", backup)
	must(t, err)
	reinstall(t, va)
	prepare(va)
	must(t, va.Run(ctx, testnet.Cmd{Args: []string{"sh", "-c", "base64 -d >" + backup}, Stdin: strings.NewReader(content)}))
	t.Log(cloudless(t, va, "anchor", "restore", backup, "--data-dir", testnet.DataDir, "--secret-file", secret, "--name", "fresh"))
	begun := time.Now()
	must(t, va.Start(ctx, "--public", "yes", "--name", "fresh"))
	must(t, va.AwaitReady(ctx, patient, "fresh"))
	awaitStandings(t, va, map[string]string{"fresh": "leader"})

	// pi is behind a NAT and knows dead anchors only; one of them has a successor.
	awaitStandings(t, pi, map[string]string{"fresh": "leader"})
	t.Logf("pi follows the new anchor %s after its start", time.Since(begun).Round(time.Millisecond))
	must(t, va.AwaitReady(ctx, patient, "pi"))
	awaitAnswer(t, pi, webURL)

	// The old anchors come back with a majority, and are out of office.
	for _, d := range []*testnet.Device{vb, vc} {
		must(t, d.Boot(ctx))
	}
	must(t, va.AwaitReady(ctx, patient, "vb", "vc"))
	awaitStandings(t, pi, map[string]string{"fresh": "leader"})
	awaitStandings(t, vb, map[string]string{"fresh": "leader"})
	awaitAnswer(t, pi, webURL)
}
