package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// ClusterToPB converts the record of the cluster.
func ClusterToPB(c api.Cluster) *pb.Cluster {
	return &pb.Cluster{
		Id: c.ID, Name: c.Name, Ca: c.CA, CreatedAt: timeToPB(c.CreatedAt), Version: c.Version, Epoch: c.Epoch, RecoveryKey: c.RecoveryKey,
		Authorities: list(c.Authorities, AuthorityToPB),
	}
}

// ClusterFromPB converts the record of the cluster.
func ClusterFromPB(p *pb.Cluster) api.Cluster {
	return api.Cluster{
		ID:        p.GetId(),
		Name:      p.GetName(),
		CA:        p.GetCa(),
		CreatedAt: timeFromPB(p.GetCreatedAt()),
		Version:   p.GetVersion(),
		Epoch:     p.GetEpoch(),

		RecoveryKey: p.GetRecoveryKey(),
		Authorities: list(p.GetAuthorities(), AuthorityFromPB),
	}
}

// RevocationToPB converts the end of an identity.
func RevocationToPB(r api.Revocation) *pb.Revocation {
	return &pb.Revocation{Id: r.ID, Reason: r.Reason, At: timeToPB(r.At), Signature: r.Signature}
}

// RevocationFromPB converts the end of an identity.
func RevocationFromPB(p *pb.Revocation) api.Revocation {
	return api.Revocation{ID: p.GetId(), Reason: p.GetReason(), At: timeFromPB(p.GetAt()), Signature: p.GetSignature()}
}

// ClusterViewToPB converts what an anchor tells a node.
func ClusterViewToPB(v api.ClusterView) *pb.ClusterView {
	return &pb.ClusterView{
		Index:       v.Index,
		Cluster:     ClusterToPB(v.Cluster),
		Nodes:       list(v.Nodes, NodeToPB),
		Replicas:    list(v.Replicas, ReplicaToPB),
		Services:    list(v.Services, ServiceToPB),
		Images:      list(v.Images, ImageToPB),
		Revocations: list(v.Revocations, RevocationToPB),
		Leader:      string(v.Leader),
	}
}

// ClusterViewFromPB converts what an anchor tells a node.
func ClusterViewFromPB(p *pb.ClusterView) api.ClusterView {
	return api.ClusterView{
		Index:       p.GetIndex(),
		Cluster:     ClusterFromPB(p.GetCluster()),
		Nodes:       list(p.GetNodes(), NodeFromPB),
		Replicas:    list(p.GetReplicas(), ReplicaFromPB),
		Services:    list(p.GetServices(), ServiceFromPB),
		Images:      list(p.GetImages(), ImageFromPB),
		Revocations: list(p.GetRevocations(), RevocationFromPB),
		Leader:      api.NodeID(p.GetLeader()),
	}
}

// NodeReportToPB converts what a node tells an anchor.
func NodeReportToPB(r api.NodeReport) *pb.NodeReport {
	p := &pb.NodeReport{
		Node:        string(r.Node),
		Incarnation: r.Incarnation,
		Replicas:    list(r.Replicas, ReplicaReportToPB),
		Complete:    r.Complete,
		Images:      r.Images,
		Authority:   authorityUseToPB(r.Authority),
	}
	if r.Inventory != nil {
		p.Inventory = InventoryToPB(*r.Inventory)
	}
	return p
}

// NodeReportFromPB converts what a node tells an anchor.
func NodeReportFromPB(p *pb.NodeReport) api.NodeReport {
	r := api.NodeReport{
		Node:        api.NodeID(p.GetNode()),
		Incarnation: p.GetIncarnation(),
		Replicas:    list(p.GetReplicas(), ReplicaReportFromPB),
		Complete:    p.GetComplete(),
		Images:      p.GetImages(),
		Authority:   authorityUseFromPB(p.GetAuthority()),
	}
	if p.GetInventory() != nil {
		inventory := InventoryFromPB(p.GetInventory())
		r.Inventory = &inventory
	}
	return r
}

// ViewDeltaToPB converts what changed between two views.
func ViewDeltaToPB(d api.ViewDelta) *pb.ViewDelta {
	return &pb.ViewDelta{
		Base:            d.Base,
		Changed:         ClusterViewToPB(d.Changed),
		GoneNodes:       names[string](d.Gone.Nodes),
		GoneReplicas:    names[string](d.Gone.Replicas),
		GoneServices:    d.Gone.Services,
		GoneImages:      d.Gone.Images,
		GoneRevocations: d.Gone.Revocations,
	}
}

// ViewDeltaFromPB converts what changed between two views.
func ViewDeltaFromPB(p *pb.ViewDelta) api.ViewDelta {
	return api.ViewDelta{
		Base:    p.GetBase(),
		Changed: ClusterViewFromPB(p.GetChanged()),
		Gone: api.Gone{
			Nodes:       names[api.NodeID](p.GetGoneNodes()),
			Replicas:    names[api.ReplicaID](p.GetGoneReplicas()),
			Services:    p.GetGoneServices(),
			Images:      p.GetGoneImages(),
			Revocations: p.GetGoneRevocations(),
		},
	}
}
