package anchors

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// Keepers chooses up to k ordinary nodes to keep sealed snapshots for the day
// when every anchor is lost: nodes that are well, in as many zones as there are,
// the oldest members first, so that the choice rarely changes.
func Keepers(nodes []api.Node, k int) []api.NodeID {
	var able []api.Node
	for _, n := range nodes {
		if !n.HoldsState() && well(n.State) {
			able = append(able, n)
		}
	}
	slices.SortFunc(able, func(a, b api.Node) int {
		return cmp.Or(a.JoinedAt.Compare(b.JoinedAt), strings.Compare(string(a.ID), string(b.ID)))
	})
	// A node's turn is how many of its zone come before it.
	turn := make(map[api.NodeID]int, len(able))
	seen := make(map[string]int)
	for _, n := range able {
		turn[n.ID] = seen[n.Inventory.Zone]
		seen[n.Inventory.Zone]++
	}
	slices.SortStableFunc(able, func(a, b api.Node) int { return cmp.Compare(turn[a.ID], turn[b.ID]) })
	var out []api.NodeID
	for _, n := range able[:min(k, len(able))] {
		out = append(out, n.ID)
	}
	return out
}
