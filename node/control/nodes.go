package control

import (
	"context"
	"maps"
	"slices"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

type nodeServer struct {
	pb.UnimplementedNodeServiceServer
	*Server
}

func (s *nodeServer) ListNodes(ctx context.Context, _ *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	allocated, halted := allocations(view), s.halted(view)
	reply := &pb.ListNodesResponse{}
	for _, n := range view.Nodes() {
		st := s.nodeStatus(n, allocated[n.ID])
		halted.mark(&st)
		reply.Nodes = append(reply.Nodes, wire.NodeStatusToPB(st))
	}
	return reply, nil
}

func (s *nodeServer) GetNode(ctx context.Context, req *pb.GetNodeRequest) (*pb.GetNodeResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	n, err := findNode(view, req.GetNode())
	if err != nil {
		return nil, err
	}
	st := s.nodeStatus(n, allocations(view)[n.ID])
	s.halted(view).mark(&st)
	return &pb.GetNodeResponse{Node: wire.NodeStatusToPB(st)}, nil
}

func (s *nodeServer) UpdateNode(ctx context.Context, req *pb.UpdateNodeRequest) (*pb.UpdateNodeResponse, error) {
	if err := checkNodeLabels(req.GetSetLabels()); err != nil {
		return nil, err
	}
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	n, err := findNode(view, req.GetNode())
	if err != nil {
		return nil, err
	}
	if req.GetDrain() {
		return s.drain(ctx, n, req)
	}
	updated, err := propose[api.Node](ctx, s.Server, state.UpdateNode{
		ID:            n.ID,
		SetLabels:     req.GetSetLabels(),
		UnsetLabels:   req.GetRemoveLabels(),
		Cordon:        req.Cordoned,
		ExpectVersion: req.GetExpectVersion(),
		Now:           s.cfg.Now(),
	})
	if err != nil {
		return nil, err
	}
	return &pb.UpdateNodeResponse{Node: wire.NodeStatusToPB(s.nodeStatus(updated, allocations(view)[n.ID]))}, nil
}

// drain has a node emptied: the planner replaces what runs there, within the
// limits of each workload.
func (s *nodeServer) drain(ctx context.Context, n api.Node, req *pb.UpdateNodeRequest) (*pb.UpdateNodeResponse, error) {
	if req.Cordoned != nil || len(req.GetSetLabels())+len(req.GetRemoveLabels()) > 0 {
		return nil, api.Invalid("drain", "a node is drained by a call of its own")
	}
	switch n.State {
	case api.NodeReady, api.NodeDraining:
	default:
		return nil, api.Errorf(api.KindConflict, "node %s is %s: only a node that is ready can be drained", n.Inventory.Name, n.State).
			WithHint("what runs there is replaced when it is taken for dead; to give it up, cloudless node remove %s", n.Inventory.Name)
	}
	drained, err := propose[api.Node](ctx, s.Server, state.SetNodeState{
		ID: n.ID, From: n.State, To: api.NodeDraining, Reason: "drained by " + caller(ctx).Name(), Now: s.cfg.Now(),
	})
	if err != nil {
		return nil, err
	}
	return &pb.UpdateNodeResponse{Node: wire.NodeStatusToPB(s.nodeStatus(drained, allocations(s.cfg.Anchor.Store().View())[n.ID]))}, nil
}

// reservedLabels are the keys that are answered from a node's inventory, with
// the way to change what they say: a label of that key would never be looked at.
var reservedLabels = map[string]string{
	"zone":   "start the node with: cloudless node start --zone ZONE",
	"region": "start the node with: cloudless node start --region REGION",
	"name":   "start the node with: cloudless node start --name NAME",
	"arch":   "it is what the machine is; choose another key",
	"os":     "it is what the machine runs; choose another key",
}

func checkNodeLabels(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if hint, ok := reservedLabels[key]; ok {
			return api.Invalid("labels", "the key %q is reserved: the node itself answers it", key).WithHint("%s", hint)
		}
	}
	return api.ValidateLabels("labels", labels)
}

func (s *nodeServer) RemoveNode(ctx context.Context, req *pb.RemoveNodeRequest) (*pb.RemoveNodeResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	n, err := findNode(view, req.GetNode())
	if err != nil {
		return nil, err
	}
	reason := req.GetReason()
	if reason == "" {
		reason = "removed by " + caller(ctx).Name()
	}
	r, err := s.cfg.Revoke(api.Revocation{ID: string(n.ID), Reason: reason, At: s.cfg.Now()})
	if err != nil {
		return nil, err
	}
	if _, err := propose[any](ctx, s.Server, state.RemoveNode{ID: n.ID, Reason: r.Reason, Now: r.At, Signature: r.Signature}); err != nil {
		return nil, err
	}
	return &pb.RemoveNodeResponse{}, nil
}

// findNode looks a node up by name or ID.
func findNode(view state.View, key string) (api.Node, error) {
	if n, ok := view.Node(api.NodeID(key)); ok {
		return n, nil
	}
	if n, ok := view.NodeByName(key); ok {
		return n, nil
	}
	return api.Node{}, api.Errorf(api.KindNotFound, "there is no node %q", key).
		WithHint("see the nodes with: cloudless node list")
}

// load is what replicas that have not ended take of a node.
type load struct {
	reserved api.Resources
	replicas int // without those that stand by
}

// allocations sums up the load of each node.
func allocations(view state.View) map[api.NodeID]load {
	out := make(map[api.NodeID]load)
	for _, r := range view.Replicas() {
		if r.State.Terminal() {
			continue
		}
		l := out[r.Node]
		l.reserved = l.reserved.Add(r.Spec.Resources.Requests())
		if r.Desired != api.DesiredStandby {
			l.replicas++
		}
		out[r.Node] = l
	}
	return out
}

func (s *Server) nodeStatus(n api.Node, l load) api.NodeStatus {
	st := api.NodeStatus{Node: n, Allocated: l.reserved, Replicas: l.replicas, LastSeen: s.cfg.LastSeen(n.ID)}
	if n.Cordoned && n.State == api.NodeReady {
		st.State = api.NodeCordoned
	}
	st.Roles = []string{}
	switch {
	case n.Voter:
		st.Roles = append(st.Roles, "anchor")
	case n.Anchor:
		st.Roles = append(st.Roles, "standby")
	}
	if lead, ok := s.cfg.Leader(); ok && lead == n.ID {
		st.Roles = append(st.Roles, "leader")
	}
	if n.Inventory.Public {
		st.Roles = append(st.Roles, "relay")
	}
	if n.Inventory.Worker {
		st.Roles = append(st.Roles, "worker")
	}
	return st
}

// halts are the anchors whose part has ended, and why.
type halts map[api.NodeID]string

func (s *Server) halted(view state.View) halts {
	h := halts{}
	if s.cfg.Group == nil {
		return h
	}
	for _, a := range s.cfg.Group.Anchors(view) {
		if a.Problem != "" {
			h[a.ID] = a.Problem
		}
	}
	return h
}

// mark notes in a node's status that it is an anchor in name only.
func (h halts) mark(st *api.NodeStatus) {
	if why := h[st.ID]; why != "" {
		st.AnchorProblem = why
		st.Roles = append(st.Roles, string(api.AnchorHalted))
	}
}

// localise puts this node's own view of paths into a reply, wherever the rest
// of it was made.
func (s *Server) localise(reply any) {
	switch r := reply.(type) {
	case *pb.ListNodesResponse:
		for _, n := range r.GetNodes() {
			s.localiseNode(n)
		}
	case *pb.GetNodeResponse:
		s.localiseNode(r.GetNode())
	case *pb.UpdateNodeResponse:
		s.localiseNode(r.GetNode())
	}
}

func (s *Server) localiseNode(n *pb.NodeStatus) {
	if n == nil {
		return // the handler refused: there is no reply, only its type
	}
	id := api.NodeID(n.GetNode().GetId())
	if id == s.cfg.Self.ID {
		n.Path, n.RttMs = string(api.PathSelf), 0
		return
	}
	path, rtt := s.cfg.Mesh.Path(id)
	n.Path, n.RttMs = string(path), float64(rtt.Microseconds())/1000
}
