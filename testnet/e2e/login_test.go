//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// TestOperatorOnALaptop: a person logs in on a machine that runs no node and
// works through any peer from there, within the role the token gave
// (CLD-REQ-072, 080).
func TestOperatorOnALaptop(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi")
	vps, laptop := lab.Device("vps"), lab.Device("laptop")
	login := func(role string) {
		t.Helper()
		var token testnet.Token
		must(t, vps.CloudlessJSON(ctx, &token, "token", "create", "--role", role))
		cloudless(t, laptop, "login", token.Token, "--context", role, "--name", "ada")
	}
	login("operator")
	login("viewer")

	nodes, err := vps.Nodes(ctx)
	must(t, err)
	i := slices.IndexFunc(nodes, func(n testnet.Node) bool { return n.Name == "vps" })
	peer := fmt.Sprintf("/ip4/%s/tcp/4717/p2p/%s", vps.Addr, nodes[i].ID)

	for _, via := range [][]string{{}, {"--peer", peer}} {
		out := cloudless(t, laptop, append([]string{"--context", "operator", "node", "list", "-o", "name"}, via...)...)
		if names := strings.Fields(out); !slices.Contains(names, "pi") || !slices.Contains(names, "vps") {
			t.Errorf("%v: the laptop sees the nodes %v", via, names)
		}
	}
	cloudless(t, laptop, "--context", "operator", "node", "cordon", "pi")
	cloudless(t, laptop, "--context", "viewer", "node", "list")
	_, err = laptop.Cloudless(ctx, "--context", "viewer", "node", "uncordon", "pi")
	if code := exitCode(t, err); code != exitDenied {
		t.Errorf("a viewer may change a node: exit code %d, %v", code, err)
	}
}
