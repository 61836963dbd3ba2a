package cli

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func sampleNodes() []api.NodeStatus {
	return []api.NodeStatus{
		{
			Node: api.Node{
				ID: "12D3KooWPIbbbbbbbbbbb",
				Inventory: api.Inventory{
					Name: "pi", Zone: "home-a", Labels: map[string]string{"disk": "sd"},
					Taints: []api.Taint{{Key: "gpu", Value: "yes", Effect: "NoSchedule"}},
					Arch:   "arm64", OS: "linux", Kernel: "6.18.0", Version: "v0.1.0", Runtime: "containerd 2.4.2",
					Worker: true, Anchor: "auto", Capacity: api.Resources{CPU: 4000, Memory: 4 << 30, Storage: 32 << 30, Bandwidth: 10e6},
					Addresses: []string{"/ip4/192.168.1.7/udp/4717/quic-v1", "/ip4/192.0.2.1/tcp/4717/p2p/12D3KooWVPSaaaaaaaaaa/p2p-circuit"}, NAT: api.NATCone, Cgroup: "v2", StorageClass: api.StorageEMMC,
					GPUs:  []api.GPU{{Vendor: "Broadcom", Model: "2711-v3d", Driver: "v3d"}},
					Power: api.Power{Source: api.PowerBattery, Percent: 40}, BandwidthSource: api.BandwidthMeasured,
				},
				Labels: map[string]string{"rack": "shelf"}, State: api.NodeSuspect, Subnet: "10.214.1.0/24",
				JoinedAt: noon.Add(-3 * time.Hour), StateReason: "no heartbeat for 700ms", Version: 12,
			},
			Roles: []string{"worker"}, Path: api.PathRelayed, RTT: 42.4,
			Allocated: api.Resources{CPU: 250, Memory: 128 << 20}, LastSeen: noon.Add(-2 * time.Second),
		},
		{
			Node: api.Node{
				ID: "12D3KooWVPSaaaaaaaaaa",
				Inventory: api.Inventory{
					Name: "vps", Region: "eu", Zone: "dc-1", Arch: "amd64", OS: "linux", Version: "v0.1.0", Public: true,
					Capacity: api.Resources{CPU: 2000, Memory: 4 << 30}, NAT: api.NATNone,
				},
				State: api.NodeReady, Voter: true, JoinedAt: noon.Add(-72 * time.Hour), Version: 3,
			},
			Roles: []string{"anchor", "leader", "relay"}, Path: api.PathSelf, LastSeen: noon,
		},
	}
}

func sampleAnchors() []api.AnchorStatus {
	return []api.AnchorStatus{
		{ID: "12D3KooWPIbbbbbbbbbbb", Name: "pi", Standing: api.AnchorStandby, State: api.NodeSuspect, Policy: api.AnchorAlways, Applied: 40,
			Authority: api.AuthorityUse{Certified: 1, Knows: 2, Holds: 2}, ClusterAuthority: 2},
		{ID: "12D3KooWVPSaaaaaaaaaa", Name: "vps", Standing: api.AnchorLeader, State: api.NodeReady, Policy: api.AnchorAuto, Reachable: true, Applied: 42},
	}
}

func sampleWorkloads() []api.WorkloadStatus {
	replica := func(slot int, node api.NodeID, state api.ReplicaState) api.Replica {
		return api.Replica{
			ID: api.NewReplicaID("web", slot, 1), Workload: "web", Slot: slot, Generation: 1, Revision: 2, Node: node,
			Desired: api.DesiredRun, State: state, Address: "10.214.0.2", CreatedAt: noon.Add(-5 * time.Minute), StartedAt: noon.Add(-4 * time.Minute),
			Decision: "fits best",
		}
	}
	unplaced := replica(2, "", api.ReplicaPending)
	unplaced.Address, unplaced.StartedAt, unplaced.Reason, unplaced.Decision = "", time.Time{}, "no node has 128Mi of free memory", ""
	return []api.WorkloadStatus{{
		Workload: api.Workload{
			Name: "web", Labels: map[string]string{"app": "web"}, Revision: 2,
			Spec: api.WorkloadSpec{
				Image: "docker.io/library/web:1.2", Command: []string{"httpd"}, Args: []string{"-f"}, Replicas: 3,
				Resources: api.ResourceSpec{CPU: 250, Memory: 128 << 20},
				Ports:     []api.Port{{Name: "http", Port: 80, Target: 8080, Protocol: "tcp"}},
			},
			CreatedAt: noon.Add(-26 * time.Hour), UpdatedAt: noon.Add(-5 * time.Minute), Version: 40,
		},
		Rollout: &api.Rollout{State: api.RolloutProgressing, Revision: 2, From: 1, Updated: 2, Outdated: 1},
		State:   api.WorkloadDegraded, Running: 2, Ready: 2, Message: "1 of 3 replicas found no node",
		Replicas: []api.Replica{unplaced, replica(1, "12D3KooWPIbbbbbbbbbbb", api.ReplicaReady), replica(0, "12D3KooWVPSaaaaaaaaaa", api.ReplicaReady)},
	}}
}

func sampleTokens() []api.Token {
	return []api.Token{
		{ID: "t1", Role: api.RoleNode, CreatedAt: noon.Add(-time.Minute), CreatedBy: "root", ExpiresAt: noon.Add(14 * time.Minute), Uses: 1, SecretHash: []byte("never shown")},
		{ID: "t2", Role: api.RoleOperator, CreatedAt: noon.Add(-time.Hour), CreatedBy: "alice", ExpiresAt: noon.Add(-45 * time.Minute), Uses: 5},
		{ID: "t0", Role: api.RoleNode, CreatedAt: noon.Add(-time.Minute), CreatedBy: "uid 0 on 12D3KooWVPSaaaaaaaaaa", ExpiresAt: noon.Add(14 * time.Minute)},
	}
}

func sampleImages() []api.Image {
	return []api.Image{{
		Ref: "docker.io/library/web:1.2", Digest: "sha256:5ca1e", Size: 1234567, Platforms: []string{"linux/amd64", "linux/arm64"},
		Holders: []api.NodeID{"12D3KooWVPSaaaaaaaaaa"}, ImportedAt: noon.Add(-10 * time.Minute),
	}}
}

func sampleEvents() []api.Event {
	return []api.Event{
		{ID: 1, Time: noon.Add(-time.Hour), Type: api.EventMembership, Code: api.CodeNodeJoined, Reason: "NodeJoined", Object: api.Object{Kind: "node", Name: "pi"}, Message: "pi joined", Node: "12D3KooWPIbbbbbbbbbbb", Fields: map[string]string{"token": "t0"}},
		{ID: 2, Time: noon.Add(-time.Minute), Type: api.EventScheduling, Code: api.CodeReplicaPlaced, Reason: "ReplicaPlaced", Object: api.Object{Kind: "replica", Name: "web.0.1"}, Message: "placed on vps\x1b[31m: fits best"},
	}
}

func sampleChecks() []api.Check {
	return []api.Check{
		{Name: "nat", Status: api.CheckWarn, Detail: "symmetric: the router maps each destination to another port", Fix: "switch on UPnP or NAT-PMP on the router (192.168.1.1)"},
		{Name: "path/pi", Status: api.CheckOK, Detail: "direct, over quic"},
		{Name: "udp", Status: api.CheckFail, Detail: "UDP is blocked: a public node answers over TCP and not over UDP", Fix: "allow outgoing UDP"},
	}
}
