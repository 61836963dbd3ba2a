package control

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// Confirm tells a node that it is in sight, and which of the replicas that must
// not run twice are its to run. A node that is out of sight gets an error, and so
// does a daemon whose first report has not come: what it was told before it
// began, and what an earlier one ran, may be over.
func (s *syncServer) Confirm(ctx context.Context, req *pb.ConfirmRequest) (*pb.ConfirmResponse, error) {
	c := caller(ctx)
	if c.Via != "" {
		return nil, api.Errorf(api.KindDenied, "a node asks in its own name")
	}
	view, err := s.linearizable(ctx) // an anchor that is cut off itself confirms nothing
	if err != nil {
		return nil, err
	}
	n, ok := view.Node(c.Member.ID)
	switch {
	case !ok:
		return nil, api.Errorf(api.KindDenied, "%s is not a node of this cluster", c.Member.ID)
	case n.Incarnation != req.GetIncarnation():
		return nil, api.Errorf(api.KindConflict, "node %s has not reported since it started", n.Inventory.Name)
	case n.State == api.NodeJoining || n.State == api.NodeCutOff || n.State == api.NodeDown || n.State == api.NodeRemoved:
		return nil, api.Errorf(api.KindConflict, "node %s is %s", n.Inventory.Name, n.State)
	}
	reply := &pb.ConfirmResponse{}
	for _, r := range confirmed(view, n.ID) {
		reply.Replicas = append(reply.Replicas, string(r))
	}
	return reply, nil
}

// confirmed lists the replicas that must not run twice and that a node may run,
// a standby among them: it is promoted by a view, and must not wait then.
func confirmed(view state.View, node api.NodeID) (ids []api.ReplicaID) {
	for _, r := range view.ReplicasOn(node) {
		if r.Spec.OnDisconnect.Mode == api.DisconnectStop && !r.State.Terminal() &&
			r.Desired != api.DesiredStop && !yields(view, &r) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// yields reports whether a replica that does not serve has been replaced: a later
// generation of its slot does its work, or is about to. The scheduler stops it in
// a moment; until then it must not start. A rollout is no replacement before the
// new revision serves: the old one comes up again meanwhile.
func yields(view state.View, r *api.Replica) bool {
	if r.State == api.ReplicaReady {
		return false
	}
	for _, o := range view.ReplicasOf(r.Workload) {
		if o.Slot == r.Slot && o.Generation > r.Generation && o.Desired == api.DesiredRun && !o.State.Terminal() &&
			(o.State == api.ReplicaReady || o.Revision == r.Revision) {
			return true
		}
	}
	return false
}
