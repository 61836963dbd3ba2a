//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// check is what a doctor says of one thing.
type check struct {
	Name, Status, Detail, Fix string
}

// examine runs a doctor on a device and returns its checks by name, and the
// exit code.
func examine(ctx context.Context, d *testnet.Device, args ...string) (map[string]check, int, error) {
	out, err := d.Cloudless(ctx, append(args, "-o", "json")...)
	code := 0
	var exit *testnet.ExitError
	if errors.As(err, &exit) {
		code = exit.Code
	} else if err != nil {
		return nil, 0, err
	}
	var list []check
	if jsonErr := json.Unmarshal([]byte(out), &list); jsonErr != nil {
		return nil, code, errors.Join(err, jsonErr)
	}
	checks := make(map[string]check, len(list))
	for _, c := range list {
		checks[c.Name] = c
	}
	return checks, code, nil
}

// says is a check that has to come out in some way, with a part of its detail.
type says struct{ name, status, detail string }

func awaitDiagnosis(t *testing.T, d *testnet.Device, code int, want []says, args ...string) {
	t.Helper()
	await(t, "the diagnosis of "+d.Name+" "+strings.Join(args, " "), func(ctx context.Context) error {
		checks, exit, err := examine(ctx, d, append([]string{"network", "doctor"}, args...)...)
		if err != nil {
			return err
		}
		for _, w := range want {
			if c := checks[w.name]; c.Status != w.status || !strings.Contains(c.Detail, w.detail) {
				return fmt.Errorf("%s is %q: %s", w.name, c.Status, c.Detail)
			}
		}
		if exit != code {
			return fmt.Errorf("it exits with %d, not %d: %v", exit, code, checks)
		}
		return nil
	})
}

// TestDoctor: each node says what is wrong with the network around it and why a
// path is relayed, to a caller at any node; and the host of each node is as the
// node itself demands (CLD-REQ-003, CLD-REQ-072, NFR-S1).
func TestDoctor(t *testing.T) {
	ctx := t.Context()
	lab := newLabOf(t, testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud", NAT: testnet.Public, Devices: []string{"vps", "eu"}},
		{Name: "home-a", NAT: testnet.Cone, Devices: []string{"pi"}},
		{Name: "home-b", NAT: testnet.Symmetric, Devices: []string{"desk"}},
		{Name: "office", NAT: testnet.Cone, NoUDP: true, Devices: []string{"nuc"}},
	}})
	must(t, lab.Found(ctx, "vps", "pi", "desk", "nuc"))
	vps, eu := lab.Device("vps"), lab.Device("eu")
	var token testnet.Token
	must(t, vps.CloudlessJSON(ctx, &token, "token", "create"))
	must(t, eu.Start(ctx, "--join", token.Token, "--public", "yes"))
	must(t, vps.AwaitReady(ctx, patient, "eu"))

	symmetric := []says{
		{"nat", "warn", "symmetric"}, {"udp", "ok", ""}, {"path/pi", "warn", "symmetric NAT"}, {"path/vps", "ok", "direct"},
		{"anchors", "ok", ""}, {"clock", "ok", "vps"}, {"services", "ok", ""},
	}
	awaitDiagnosis(t, lab.Device("desk"), 0, symmetric)
	awaitDiagnosis(t, vps, 0, symmetric, "--node", "desk")
	awaitDiagnosis(t, lab.Device("nuc"), 1, []says{
		{"udp", "fail", "UDP is blocked"}, {"path/pi", "warn", "UDP is blocked here"}, {"path/vps", "ok", "direct, over tcp"}, {"anchors", "ok", ""},
	})
	awaitDiagnosis(t, lab.Device("pi"), 0, []says{{"nat", "ok", "cone"}, {"path/desk", "warn", "router of desk"}, {"mtu", "ok", "bytes"}})
	awaitDiagnosis(t, vps, 0, []says{{"nat", "ok", "none"}, {"public-address", "ok", ""}, {"anchors", "ok", ""}})

	for _, d := range []*testnet.Device{vps, lab.Device("desk")} {
		checks, _, err := examine(ctx, d, "doctor", "--data-dir", testnet.DataDir)
		must(t, err)
		for _, name := range []string{"key-files", "sockets", "privileges", "namespaces", "daemon"} {
			if c := checks[name]; c.Status != "ok" {
				t.Errorf("the host %s: %+v", d.Name, c)
			}
		}
	}

	var peers []testnet.Peer
	must(t, eu.CloudlessJSON(ctx, &peers, "network", "peers", "--node", "nuc"))
	if !slices.ContainsFunc(peers, func(p testnet.Peer) bool { return p.Name == "eu" }) {
		t.Errorf("the peers of nuc, asked for at eu: %v", peers)
	}
}
