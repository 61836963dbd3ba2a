//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// TestAnchorsReachEachOtherByRelay: two of three voters are behind symmetric NATs
// and reach each other by a relay alone. One of them leads, the other one follows
// (NFR-R1).
func TestAnchorsReachEachOtherByRelay(t *testing.T) {
	ctx := t.Context()
	lab := newLabOf(t, testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud", NAT: testnet.Public, Devices: []string{"vps"}},
		{Name: "home-a", NAT: testnet.Symmetric, Devices: []string{"desk"}},
		{Name: "home-b", NAT: testnet.Symmetric, Devices: []string{"nas"}},
	}})
	must(t, lab.Found(ctx, "vps", "desk", "nas"))
	vps, desk := lab.Device("vps"), lab.Device("desk")
	cloudless(t, vps, "anchor", "add", "desk")
	cloudless(t, vps, "anchor", "add", "nas")
	awaitStandings(t, vps, map[string]string{"vps": "voter", "desk": "voter", "nas": "voter"})
	await(t, "desk to lead", func(ctx context.Context) error {
		_, err := desk.Cloudless(ctx, "anchor", "transfer", "desk")
		return err
	})
	await(t, "nas to follow desk by the relay", func(ctx context.Context) error {
		peers, err := desk.Peers(ctx)
		if err != nil {
			return err
		}
		for _, p := range peers {
			if p.Name == "nas" && p.Path != "relayed" {
				return fmt.Errorf("the path to nas is %s", p.Path)
			}
		}
		if _, err := desk.Cloudless(ctx, "token", "create"); err != nil {
			return err
		}
		var list []anchorStatus
		if err := desk.CloudlessJSON(ctx, &list, "anchor", "list"); err != nil {
			return err
		}
		for _, a := range list {
			if !a.Reachable || a.Behind > 10 || a.Name == "desk" && a.Standing != "leader" {
				return fmt.Errorf("the anchors are %+v", list)
			}
		}
		return nil
	})
}
