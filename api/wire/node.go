package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// ResourcesToPB converts an amount of resources.
func ResourcesToPB(r api.Resources) *pb.Resources {
	return &pb.Resources{
		CpuMillis:    int64(r.CPU),
		MemoryBytes:  int64(r.Memory),
		StorageBytes: int64(r.Storage),
		BandwidthBps: int64(r.Bandwidth),
	}
}

// ResourcesFromPB converts an amount of resources.
func ResourcesFromPB(p *pb.Resources) api.Resources {
	return api.Resources{
		CPU:       api.CPU(p.GetCpuMillis()),
		Memory:    api.Bytes(p.GetMemoryBytes()),
		Storage:   api.Bytes(p.GetStorageBytes()),
		Bandwidth: api.Bandwidth(p.GetBandwidthBps()),
	}
}

// TaintToPB converts a taint.
func TaintToPB(t api.Taint) *pb.Taint {
	return &pb.Taint{Key: t.Key, Value: t.Value, Effect: t.Effect}
}

// TaintFromPB converts a taint.
func TaintFromPB(p *pb.Taint) api.Taint {
	return api.Taint{Key: p.GetKey(), Value: p.GetValue(), Effect: p.GetEffect()}
}

// InventoryToPB converts what a node says of itself.
func InventoryToPB(i api.Inventory) *pb.Inventory {
	return &pb.Inventory{
		Name:         i.Name,
		Region:       i.Region,
		Zone:         i.Zone,
		Labels:       i.Labels,
		Taints:       list(i.Taints, TaintToPB),
		Arch:         i.Arch,
		Os:           i.OS,
		Kernel:       i.Kernel,
		Version:      i.Version,
		Runtime:      i.Runtime,
		Worker:       i.Worker,
		Public:       i.Public,
		Anchor:       i.Anchor,
		StorageClass: string(i.StorageClass),
		Capacity:     ResourcesToPB(i.Capacity),
		Addresses:    i.Addresses,
		Nat:          string(i.NAT),

		Cgroup:          i.Cgroup,
		Gpus:            list(i.GPUs, gpuToPB),
		Power:           powerToPB(i.Power),
		BandwidthSource: string(i.BandwidthSource),
	}
}

// InventoryFromPB converts what a node says of itself.
func InventoryFromPB(p *pb.Inventory) api.Inventory {
	return api.Inventory{
		Name:         p.GetName(),
		Region:       p.GetRegion(),
		Zone:         p.GetZone(),
		Labels:       p.GetLabels(),
		Taints:       list(p.GetTaints(), TaintFromPB),
		Arch:         p.GetArch(),
		OS:           p.GetOs(),
		Kernel:       p.GetKernel(),
		Version:      p.GetVersion(),
		Runtime:      p.GetRuntime(),
		Worker:       p.GetWorker(),
		Public:       p.GetPublic(),
		Anchor:       p.GetAnchor(),
		StorageClass: api.StorageClass(p.GetStorageClass()),
		Capacity:     ResourcesFromPB(p.GetCapacity()),
		Addresses:    p.GetAddresses(),
		NAT:          api.NAT(p.GetNat()),

		Cgroup:          p.GetCgroup(),
		GPUs:            list(p.GetGpus(), gpuFromPB),
		Power:           powerFromPB(p.GetPower()),
		BandwidthSource: api.BandwidthSource(p.GetBandwidthSource()),
	}
}

// NodeToPB converts the record of a node.
func NodeToPB(n api.Node) *pb.Node {
	return &pb.Node{
		Id:           string(n.ID),
		Inventory:    InventoryToPB(n.Inventory),
		Labels:       n.Labels,
		State:        string(n.State),
		Cordoned:     n.Cordoned,
		Draining:     n.Draining,
		Unstable:     n.Unstable,
		Voter:        n.Voter,
		Anchor:       n.Anchor,
		AnchorPolicy: string(n.AnchorPolicy),
		Authority:    authorityUseToPB(n.Authority),
		Problem:      n.Problem,
		Subnet:       n.Subnet,
		CertSerial:   n.CertSerial,
		JoinedAt:     timeToPB(n.JoinedAt),
		StateSince:   timeToPB(n.StateSince),
		StateReason:  n.StateReason,
		Incarnation:  n.Incarnation,
		Version:      n.Version,
	}
}

// NodeFromPB converts the record of a node.
func NodeFromPB(p *pb.Node) api.Node {
	return api.Node{
		ID:           api.NodeID(p.GetId()),
		Inventory:    InventoryFromPB(p.GetInventory()),
		Labels:       p.GetLabels(),
		State:        api.NodeState(p.GetState()),
		Cordoned:     p.GetCordoned(),
		Draining:     p.GetDraining(),
		Unstable:     p.GetUnstable(),
		Voter:        p.GetVoter(),
		Anchor:       p.GetAnchor(),
		AnchorPolicy: api.AnchorPolicy(p.GetAnchorPolicy()),
		Authority:    authorityUseFromPB(p.GetAuthority()),
		Problem:      p.GetProblem(),
		Subnet:       p.GetSubnet(),
		CertSerial:   p.GetCertSerial(),
		JoinedAt:     timeFromPB(p.GetJoinedAt()),
		StateSince:   timeFromPB(p.GetStateSince()),
		StateReason:  p.GetStateReason(),
		Incarnation:  p.GetIncarnation(),
		Version:      p.GetVersion(),
	}
}

// NodeStatusToPB converts a node as the answering peer sees it.
func NodeStatusToPB(n api.NodeStatus) *pb.NodeStatus {
	return &pb.NodeStatus{
		Node:      NodeToPB(n.Node),
		Roles:     n.Roles,
		Path:      string(n.Path),
		RttMs:     n.RTT,
		Allocated: ResourcesToPB(n.Allocated),
		LastSeen:  timeToPB(n.LastSeen),
		Replicas:  intToPB(n.Replicas),

		AnchorProblem: n.AnchorProblem,
		StaleSince:    timeToPB(n.StaleSince),
	}
}

// NodeStatusFromPB converts a node as the answering peer sees it.
func NodeStatusFromPB(p *pb.NodeStatus) api.NodeStatus {
	return api.NodeStatus{
		Node:      NodeFromPB(p.GetNode()),
		Roles:     p.GetRoles(),
		Path:      api.Path(p.GetPath()),
		RTT:       p.GetRttMs(),
		Allocated: ResourcesFromPB(p.GetAllocated()),
		LastSeen:  timeFromPB(p.GetLastSeen()),
		Replicas:  intFromPB(p.GetReplicas()),

		AnchorProblem: p.GetAnchorProblem(),
		StaleSince:    timeFromPB(p.GetStaleSince()),
	}
}

// NodeUpdateToPB converts a change to a node.
func NodeUpdateToPB(u api.NodeUpdate) *pb.UpdateNodeRequest {
	return &pb.UpdateNodeRequest{
		Node:          u.Node,
		Cordoned:      u.Cordoned,
		SetLabels:     u.SetLabels,
		RemoveLabels:  u.RemoveLabels,
		ExpectVersion: u.ExpectVersion,
		Drain:         u.Drain,
	}
}

// NodeUpdateFromPB converts a change to a node.
func NodeUpdateFromPB(p *pb.UpdateNodeRequest) api.NodeUpdate {
	return api.NodeUpdate{
		Node:          p.GetNode(),
		Cordoned:      p.Cordoned, // presence matters
		SetLabels:     p.GetSetLabels(),
		RemoveLabels:  p.GetRemoveLabels(),
		ExpectVersion: p.GetExpectVersion(),
		Drain:         p.GetDrain(),
	}
}
