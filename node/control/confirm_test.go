package control

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// single is a cluster with a workload that must not run twice, on n2.
func single(t *testing.T) *cluster {
	c := newCluster(t)
	spec := api.WorkloadSpec{Image: "docker.io/library/db:1", Replicas: 1}
	spec.SetDefaults()
	spec.OnDisconnect = api.OnDisconnect{Mode: api.DisconnectStop, After: api.Duration(30 * time.Second)}
	c.apply(state.PutWorkload{Name: "db", Spec: spec, Now: epoch})
	c.web() // which may run wherever it likes
	c.place(state.Placement{Workload: "db", Generation: 1, Revision: 1, Node: "n2"})
	return c
}

func (c *cluster) place(p ...state.Placement) {
	c.t.Helper()
	c.apply(state.CommitPlan{Now: epoch, Place: p})
}

// replaceAway has a replacement made while n2 is out of sight for a moment.
func (c *cluster) replaceAway(standby bool) {
	c.t.Helper()
	c.move("n2", api.NodeReady, api.NodeCutOff)
	c.place(state.Placement{Workload: "db", Generation: 2, Revision: 1, Node: "n1", Standby: standby})
	c.move("n2", api.NodeCutOff, api.NodeReady)
}

// confirm is what the leader answers to a node that asks.
func (c *cluster) confirm(from api.NodeID, incarnation uint64) ([]string, error) {
	c.t.Helper()
	s, _ := leading(c.t, c)
	ctx := context.WithValue(c.t.Context(), callerKey{}, &Caller{Member: member(string(from), api.RoleNode), UID: -1})
	reply, err := (&syncServer{Server: s.Server}).Confirm(ctx, &pb.ConfirmRequest{Incarnation: incarnation})
	return reply.GetReplicas(), err
}

func TestConfirmsWhatMustNotRunTwice(t *testing.T) {
	for name, then := range map[string]struct {
		do   func(*cluster)
		want []string
		kind api.Kind
	}{
		"assigned":       {func(*cluster) {}, []string{"db.0.1"}, ""},
		"out of sight":   {func(c *cluster) { c.move("n2", api.NodeReady, api.NodeCutOff) }, nil, api.KindConflict},
		"taken for dead": {func(c *cluster) { c.move("n2", api.NodeReady, api.NodeDown) }, nil, api.KindConflict},
		"another daemon": {func(c *cluster) { c.report("n2", 3) }, nil, api.KindConflict},
		"silent":         {func(c *cluster) { c.move("n2", api.NodeReady, api.NodeSuspect) }, []string{"db.0.1"}, ""},
		"replaced meanwhile": {func(c *cluster) {
			c.replaceAway(false)
		}, nil, ""},
		"with a replacement that waits": {func(c *cluster) {
			c.replaceAway(true)
		}, []string{"db.0.1"}, ""},
		"serving when it is back": {func(c *cluster) {
			c.report("n2", 2, api.ReplicaReport{ID: "db.0.1", State: api.ReplicaReady, StartedAt: epoch})
			c.replaceAway(false)
		}, []string{"db.0.1"}, ""},
		"given up": {func(c *cluster) {
			c.report("n2", 2, api.ReplicaReport{ID: "db.0.1", State: api.ReplicaLost})
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := single(t)
			then.do(c)
			got, err := c.confirm("n2", 2)
			if api.KindOf(err) != then.kind || !slices.Equal(got, then.want) {
				t.Errorf("confirmed %v, %v; want %v, %q", got, err, then.want, then.kind)
			}
		})
	}
	t.Run("a new revision that does not serve", func(t *testing.T) {
		c := single(t)
		spec := api.WorkloadSpec{Image: "docker.io/library/db:2", Replicas: 1}
		spec.SetDefaults()
		spec.OnDisconnect = api.OnDisconnect{Mode: api.DisconnectStop, After: api.Duration(30 * time.Second)}
		c.apply(state.PutWorkload{Name: "db", Spec: spec, Now: epoch})
		c.place(state.Placement{Workload: "db", Generation: 2, Revision: 2, Node: "n1"})
		if got, err := c.confirm("n2", 2); err != nil || len(got) != 1 {
			t.Errorf("confirmed %v, %v: nothing serves", got, err)
		}
		c.report("n1", 1, api.ReplicaReport{ID: "db.0.2", State: api.ReplicaReady, StartedAt: epoch})
		if got, err := c.confirm("n2", 2); err != nil || len(got) > 0 {
			t.Errorf("confirmed %v, %v: the new revision serves", got, err)
		}
	})
}

func (c *cluster) move(id api.NodeID, from, to api.NodeState) {
	c.t.Helper()
	c.apply(state.SetNodeState{ID: id, From: from, To: to, Reason: "a test", Now: epoch})
}
