package control

import (
	"context"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

type networkServer struct {
	pb.UnimplementedNetworkServiceServer
	*Server
}

// ListServices answers from local state: it works with every anchor away.
func (s *networkServer) ListServices(ctx context.Context, _ *pb.ListServicesRequest) (*pb.ListServicesResponse, error) {
	reply := &pb.ListServicesResponse{}
	for _, svc := range ServicesOf(s.cfg.View()) {
		for i := range svc.Endpoints {
			e := &svc.Endpoints[i]
			if e.Node == s.cfg.Self.ID {
				e.Path = api.PathSelf
				continue
			}
			path, rtt := s.cfg.Mesh.Path(e.Node)
			e.Path, e.RTT = path, float64(rtt.Microseconds())/1000
		}
		reply.Services = append(reply.Services, wire.ServiceStatusToPB(svc))
	}
	if since := s.cfg.InStep(); s.cfg.Now().Sub(since) > staleAfter {
		markStale(ctx, reply, since)
	}
	return reply, nil
}

func (s *networkServer) ListPeers(ctx context.Context, req *pb.ListPeersRequest) (*pb.ListPeersResponse, error) {
	if to, err := s.meant(ctx, req.GetNode()); err != nil {
		return nil, err
	} else if to != s.cfg.Self.ID {
		return askNode[*pb.ListPeersResponse](ctx, s.Server, to, pb.NetworkService_ListPeers_FullMethodName, req)
	}
	names := make(map[api.NodeID]string)
	for _, n := range s.cfg.View().Nodes {
		names[n.ID] = n.Inventory.Name
	}
	peers := s.cfg.Mesh.Peers()
	for i, p := range peers {
		if name := names[p.ID]; name != "" {
			peers[i].Name = name
		}
	}
	slices.SortFunc(peers, func(a, b api.Peer) int {
		return strings.Compare(a.Name+string(a.ID), b.Name+string(b.ID))
	})
	reply := &pb.ListPeersResponse{}
	for _, p := range peers {
		reply.Peers = append(reply.Peers, wire.PeerToPB(p))
	}
	return reply, nil
}

// ServicesOf returns the services of a view with their endpoints: the replicas
// whose process is there. One on a node that is silent, or dead, is not ready;
// one in a house that the anchors cannot see may well be reachable from here.
func ServicesOf(v api.ClusterView) []api.ServiceStatus {
	visible := make(map[api.NodeID]bool)
	for _, n := range v.Nodes {
		visible[n.ID] = n.State == api.NodeReady || n.State == api.NodeDraining || n.State == api.NodeCutOff
	}
	byWorkload := make(map[string][]api.Endpoint)
	for _, r := range v.Replicas {
		if !r.State.Active() || r.Address == "" {
			continue
		}
		byWorkload[r.Workload] = append(byWorkload[r.Workload], api.Endpoint{
			Replica: r.ID,
			Node:    r.Node,
			Address: r.Address,
			Ready:   r.State == api.ReplicaReady && r.Desired == api.DesiredRun && visible[r.Node],
			Weight:  1,
		})
	}
	out := make([]api.ServiceStatus, 0, len(v.Services))
	for _, svc := range v.Services {
		out = append(out, api.ServiceStatus{Service: svc, Endpoints: byWorkload[svc.Name]})
	}
	return out
}
