package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// ServiceToPB converts a service.
func ServiceToPB(s api.Service) *pb.Service {
	return &pb.Service{Name: s.Name, Vip: s.VIP, Ports: list(s.Ports, portToPB), Version: s.Version}
}

// ServiceFromPB converts a service.
func ServiceFromPB(p *pb.Service) api.Service {
	return api.Service{Name: p.GetName(), VIP: p.GetVip(), Ports: list(p.GetPorts(), portFromPB), Version: p.GetVersion()}
}

// ServiceStatusToPB converts a service with its endpoints.
func ServiceStatusToPB(s api.ServiceStatus) *pb.ServiceStatus {
	return &pb.ServiceStatus{
		Service: ServiceToPB(s.Service), Endpoints: list(s.Endpoints, endpointToPB), StaleSince: timeToPB(s.StaleSince),
	}
}

// ServiceStatusFromPB converts a service with its endpoints.
func ServiceStatusFromPB(p *pb.ServiceStatus) api.ServiceStatus {
	return api.ServiceStatus{
		Service: ServiceFromPB(p.GetService()), Endpoints: list(p.GetEndpoints(), endpointFromPB), StaleSince: timeFromPB(p.GetStaleSince()),
	}
}

func endpointToPB(e api.Endpoint) *pb.Endpoint {
	return &pb.Endpoint{
		Replica: string(e.Replica),
		Node:    string(e.Node),
		Address: e.Address,
		Ready:   e.Ready,
		Weight:  intToPB(e.Weight),
		Path:    string(e.Path),
		RttMs:   e.RTT,
	}
}

func endpointFromPB(p *pb.Endpoint) api.Endpoint {
	return api.Endpoint{
		Replica: api.ReplicaID(p.GetReplica()),
		Node:    api.NodeID(p.GetNode()),
		Address: p.GetAddress(),
		Ready:   p.GetReady(),
		Weight:  intFromPB(p.GetWeight()),
		Path:    api.Path(p.GetPath()),
		RTT:     p.GetRttMs(),
	}
}

// PeerToPB converts another member as the answering peer sees it.
func PeerToPB(a api.Peer) *pb.Peer {
	return &pb.Peer{
		Id:        string(a.ID),
		Name:      a.Name,
		Path:      string(a.Path),
		Transport: a.Transport,
		Address:   a.Address,
		RttMs:     a.RTT,
		Since:     timeToPB(a.Since),
		BytesIn:   a.BytesIn,
		BytesOut:  a.BytesOut,
	}
}

// PeerFromPB converts another member as the answering peer sees it.
func PeerFromPB(p *pb.Peer) api.Peer {
	return api.Peer{
		ID:        api.NodeID(p.GetId()),
		Name:      p.GetName(),
		Path:      api.Path(p.GetPath()),
		Transport: p.GetTransport(),
		Address:   p.GetAddress(),
		RTT:       p.GetRttMs(),
		Since:     timeFromPB(p.GetSince()),
		BytesIn:   p.GetBytesIn(),
		BytesOut:  p.GetBytesOut(),
	}
}
