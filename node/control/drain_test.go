package control

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// storeAnchor leads, with a store and without a log.
type storeAnchor struct {
	Anchor
	c *cluster
}

func (a storeAnchor) Propose(_ context.Context, cmds ...state.Command) (state.Result, error) {
	a.c.index++
	res := a.c.store.Apply(a.c.index, cmds)
	return res, res.Err
}

func (a storeAnchor) VerifyLeader(context.Context) error { return nil }
func (a storeAnchor) IsLeader() bool                     { return true }
func (a storeAnchor) Store() *state.Store                { return a.c.store }

// leading is a node server on a leader that has the cluster's state.
func leading(t *testing.T, c *cluster) (*nodeServer, context.Context) {
	t.Helper()
	s, err := New(Config{
		Self: member("n1", api.RoleNode), Anchor: storeAnchor{c: c}, Log: zap.NewNop(),
		Leader: func() (api.NodeID, bool) { return "n1", true }, LastSeen: func(api.NodeID) time.Time { return epoch },
		View: func() api.ClusterView { return api.ClusterView{} }, Now: func() time.Time { return epoch },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.close)
	operator := &Caller{Member: member("op", api.RoleOperator), UID: -1}
	operator.Member.Operator = "alice"
	return &nodeServer{Server: s}, context.WithValue(t.Context(), callerKey{}, operator)
}

func TestDrain(t *testing.T) {
	c := newCluster(t)
	c.web()
	s, ctx := leading(t, c)
	for range 2 { // asking twice changes nothing
		r, err := s.UpdateNode(ctx, &pb.UpdateNodeRequest{Node: "n2", Drain: true})
		if err != nil {
			t.Fatal(err)
		}
		if n := r.GetNode(); n.GetNode().GetState() != string(api.NodeDraining) || n.GetReplicas() != 1 || !n.GetNode().GetCordoned() || n.GetNode().GetStateReason() != "drained by alice" {
			t.Errorf("got %v", n)
		}
	}
	no := false
	if _, err := s.UpdateNode(ctx, &pb.UpdateNodeRequest{Node: "n2", Drain: true, Cordoned: &no}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("draining and uncordoning at once: %v", err)
	}
	if r, err := s.UpdateNode(ctx, &pb.UpdateNodeRequest{Node: "n2", Cordoned: &no}); err != nil || r.GetNode().GetNode().GetState() != string(api.NodeReady) {
		t.Errorf("uncordoned: %v, %v", r, err)
	}
	c.apply(state.SetNodeState{ID: "n2", From: api.NodeReady, To: api.NodeSuspect, Reason: "silent", Now: epoch})
	if _, err := s.UpdateNode(ctx, &pb.UpdateNodeRequest{Node: "n2", Drain: true}); api.KindOf(err) != api.KindConflict {
		t.Errorf("a silent node is drained: %v", err)
	}
}

func TestRestart(t *testing.T) {
	c := newCluster(t)
	c.web()
	s, ctx := leading(t, c)
	r, err := (&workloadServer{Server: s.Server}).RestartWorkload(ctx, &pb.RestartWorkloadRequest{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if w := r.GetWorkload(); w.GetWorkload().GetRevision() != 2 || w.GetRollout().GetOutdated() != 2 {
		t.Errorf("got %v", w)
	}
	if _, err := (&workloadServer{Server: s.Server}).RestartWorkload(ctx, &pb.RestartWorkloadRequest{Name: "db"}); api.KindOf(err) != api.KindNotFound {
		t.Errorf("got %v", err)
	}
}
