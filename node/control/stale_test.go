package control

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

type noMesh struct{}

func (noMesh) Peers() []api.Peer                         { return nil }
func (noMesh) Path(api.NodeID) (api.Path, time.Duration) { return api.PathNone, 0 }
func (noMesh) dial(context.Context, api.NodeID) (net.Conn, error) {
	return nil, errors.New("it is gone")
}

// deserted is a node whose only anchor is gone, with the last view that it sent.
func deserted(t *testing.T, v api.ClusterView, anchor Anchor) *Server {
	t.Helper()
	s, err := New(Config{
		Self: member("n2", api.RoleNode), Anchor: anchor, Mesh: noMesh{}, Dial: noMesh{}.dial, Log: zap.NewNop(),
		Leader: func() (api.NodeID, bool) { return "n1", true }, LastSeen: func(api.NodeID) time.Time { return time.Time{} },
		View: func() api.ClusterView { return v }, InStep: func() time.Time { return epoch }, Now: func() time.Time { return epoch.Add(time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.close)
	return s
}

// call makes a call as its transport would.
func call(t *testing.T, s *Server, stale bool, method string, req any) (any, error) {
	t.Helper()
	operator := member("op", api.RoleOperator)
	ctx := calling(t, operator, -1, nil)
	if stale {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(api.AllowStale, "1"))
	}
	nodes, workloads := &nodeServer{Server: s}, &workloadServer{Server: s}
	return s.answer(ctx, req, method, func(ctx context.Context, req any) (any, error) {
		switch r := req.(type) {
		case *pb.ListNodesRequest:
			return nodes.ListNodes(ctx, r)
		case *pb.GetNodeRequest:
			return nodes.GetNode(ctx, r)
		case *pb.ListWorkloadsRequest:
			return workloads.ListWorkloads(ctx, r)
		case *pb.GetWorkloadRequest:
			return workloads.GetWorkload(ctx, r)
		case *pb.ScaleWorkloadRequest:
			return workloads.ScaleWorkload(ctx, r)
		}
		return nil, errors.New("no such call here")
	})
}

func TestReadsWithoutAnchors(t *testing.T) {
	c := newCluster(t)
	c.web()
	c.report("n2", 2, api.ReplicaReport{ID: "web.1.1", State: api.ReplicaReady, StartedAt: epoch, Address: "10.214.0.2"})
	s := deserted(t, c.store.View().For("n2", "n1"), nil)

	t.Run("nodes", func(t *testing.T) {
		r, err := call(t, s, true, pb.NodeService_ListNodes_FullMethodName, &pb.ListNodesRequest{})
		list, _ := r.(*pb.ListNodesResponse)
		if err != nil || len(list.GetNodes()) != 2 {
			t.Fatalf("%v, %v", r, err)
		}
		for _, n := range list.GetNodes() {
			if !n.GetStaleSince().AsTime().Equal(epoch) || n.GetReplicas() != 1 {
				t.Errorf("node %v", n)
			}
		}
		r, err = call(t, s, true, pb.NodeService_GetNode_FullMethodName, &pb.GetNodeRequest{Node: "n1"})
		if n, _ := r.(*pb.GetNodeResponse); err != nil || !n.GetNode().GetStaleSince().AsTime().Equal(epoch) {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("workloads", func(t *testing.T) {
		r, err := call(t, s, true, pb.WorkloadService_ListWorkloads_FullMethodName, &pb.ListWorkloadsRequest{})
		if list, _ := r.(*pb.ListWorkloadsResponse); err != nil || len(list.GetWorkloads()) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		r, err = call(t, s, true, pb.WorkloadService_GetWorkload_FullMethodName, &pb.GetWorkloadRequest{Name: "web"})
		reply, _ := r.(*pb.GetWorkloadResponse)
		w := reply.GetWorkload()
		if err != nil || w.GetReady() != 1 || w.GetWorkload().GetSpec().GetReplicas() != 2 || len(w.GetReplicas()) != 2 ||
			w.GetWorkload().GetSpec().GetImage() != "docker.io/library/web:1" || !w.GetStaleSince().AsTime().Equal(epoch) {
			t.Errorf("%v, %v", w, err)
		}
	})
	t.Run("services", func(t *testing.T) {
		r, err := (&networkServer{Server: s}).ListServices(t.Context(), &pb.ListServicesRequest{})
		if err != nil || len(r.GetServices()) != 1 || !r.GetServices()[0].GetStaleSince().AsTime().Equal(epoch) {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("what fails as before", func(t *testing.T) {
		for name, f := range map[string]func() (any, error){
			"who does not ask for what is old": func() (any, error) {
				return call(t, s, false, pb.NodeService_ListNodes_FullMethodName, &pb.ListNodesRequest{})
			},
			"what is not known": func() (any, error) {
				return call(t, s, true, pb.WorkloadService_GetWorkload_FullMethodName, &pb.GetWorkloadRequest{Name: "nobody"})
			},
			"a write": func() (any, error) {
				return call(t, s, true, pb.WorkloadService_ScaleWorkload_FullMethodName, &pb.ScaleWorkloadRequest{Name: "web", Replicas: 1})
			},
			"a node that was never told anything": func() (any, error) {
				return call(t, deserted(t, api.ClusterView{}, nil), true, pb.NodeService_ListNodes_FullMethodName, &pb.ListNodesRequest{})
			},
		} {
			r, err := f()
			if api.KindOf(err) != api.KindUnavailable {
				t.Errorf("%s: %v, %v", name, r, err)
			}
		}
	})
}

// lonely is an anchor without a majority: it has the state and may not vouch for it.
type lonely struct{ storeAnchor }

func (lonely) IsLeader() bool { return false }
func (lonely) VerifyLeader(context.Context) error {
	return api.Errorf(api.KindUnavailable, "it does not lead")
}

// An anchor that cannot reach the others knows more than its view.
func TestReadsAtALonelyAnchor(t *testing.T) {
	c := newCluster(t)
	c.web()
	v := c.store.View().For("n2", "n1")
	c.apply(state.ScaleWorkload{Name: "web", Replicas: 5, Now: epoch})
	s := deserted(t, v, lonely{storeAnchor{c: c}})
	r, err := call(t, s, true, pb.WorkloadService_GetWorkload_FullMethodName, &pb.GetWorkloadRequest{Name: "web"})
	if reply, _ := r.(*pb.GetWorkloadResponse); err != nil || reply.GetWorkload().GetWorkload().GetSpec().GetReplicas() != 5 {
		t.Errorf("%v, %v", r, err)
	}
	v.Cluster.Epoch = 9 // a backup was restored elsewhere: its own log is of the past
	s = deserted(t, v, lonely{storeAnchor{c: c}})
	r, err = call(t, s, true, pb.WorkloadService_GetWorkload_FullMethodName, &pb.GetWorkloadRequest{Name: "web"})
	if reply, _ := r.(*pb.GetWorkloadResponse); err != nil || reply.GetWorkload().GetWorkload().GetSpec().GetReplicas() != 2 {
		t.Errorf("of an earlier epoch: %v, %v", r, err)
	}
}
