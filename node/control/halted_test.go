package control

import (
	"slices"
	"testing"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// groupOf is the anchors as a test wants them.
type groupOf struct {
	Group
	anchors []api.AnchorStatus
}

func (g groupOf) Anchors(state.View) []api.AnchorStatus { return g.anchors }

func TestNodesTellOfAHaltedAnchor(t *testing.T) {
	c := newCluster(t)
	s, ctx := leading(t, c)
	s.cfg.Group = groupOf{anchors: []api.AnchorStatus{
		{ID: "n1", Standing: api.AnchorLeader}, {ID: "n2", Standing: api.AnchorHalted, Problem: "its disk is full"},
	}}
	list, err := s.ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list.GetNodes() {
		name := n.GetNode().GetInventory().GetName()
		if halted := slices.Contains(n.GetRoles(), "halted"); halted != (name == "n2") || (n.GetAnchorProblem() == "its disk is full") != halted {
			t.Errorf("%s has the roles %v, problem %q", name, n.GetRoles(), n.GetAnchorProblem())
		}
	}
	one, err := s.GetNode(ctx, &pb.GetNodeRequest{Node: "n2"})
	if err != nil || one.GetNode().GetAnchorProblem() == "" {
		t.Errorf("%v, %v", one, err)
	}
}
