package sim

import (
	"fmt"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub/pb"
	"google.golang.org/protobuf/proto"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// packet is what UDP, IP, QUIC and its cipher add to a small message, and half
// of the packet that acknowledges it.
const packet = 28 + 30 + 35

// heartbeatBytes returns the size of one heartbeat on the wire: a signed pubsub
// message.
func heartbeatBytes() int {
	topic := api.TopicHeartbeat
	rpc := &pubsub.RPC{Publish: []*pubsub.Message{{
		From: make([]byte, 38), Data: make([]byte, 8), Seqno: make([]byte, 8),
		Topic: &topic, Signature: make([]byte, 64),
	}}}
	return proto.Size(rpc) + 1 + packet
}

// sampleNode is what the state knows of a device in a house.
func sampleNode(i int) api.Node {
	return api.Node{
		ID:    api.NodeID(fmt.Sprintf("12D3KooW%044d", i)),
		State: api.NodeReady, Subnet: "10.214.12.0/24", CertSerial: "5f0d1c2b3a495867",
		JoinedAt: epoch, StateSince: epoch, StateReason: "reported after it was joining", Incarnation: 1764000000000000000, Version: 123456,
		Inventory: api.Inventory{
			Name: fmt.Sprintf("device-%d", i), Region: "eu", Zone: fmt.Sprintf("home-%d", i/3), Arch: "arm64", OS: "linux",
			Kernel: "6.12.34+rpt-rpi-v8", Version: "v0.1.0", Runtime: "containerd 1.6.20", Worker: true, Anchor: "auto", StorageClass: "ssd", NAT: api.NATCone,
			Capacity:  api.Resources{CPU: 4000, Memory: 8 << 30, Storage: 100 << 30, Bandwidth: 20e6},
			Addresses: []string{"/ip4/192.168.1.23/tcp/4242", "/ip4/192.168.1.23/udp/4242/quic-v1", "/ip4/93.184.216.34/udp/4242/quic-v1"},
		},
	}
}

// What the anchor computes on one core. Measured once, on a small server: a
// simulation has to give the same figures again.
const (
	encoding  = 3 * time.Microsecond // per row of a whole view: turned into a message, encoded
	comparing = 40 * time.Nanosecond // per row: BenchmarkDelta1000Nodes
	sending   = 10 * time.Microsecond
)

// fullView is a push that carries the whole cluster: a node's first one.
func fullView(nodes int) push {
	view := api.ClusterView{Index: 123456, Cluster: api.Cluster{ID: "c", Name: "home"}}
	for i := range nodes {
		view.Nodes = append(view.Nodes, sampleNode(i))
	}
	return push{proto.Size(&pb.SyncResponse{View: wire.ClusterViewToPB(view)}) + packet, time.Duration(nodes) * encoding}
}

// delta is a push that carries one changed node.
func delta(nodes int) push {
	d := api.ViewDelta{Base: 123455, Changed: api.ClusterView{
		Index: 123456, Cluster: api.Cluster{ID: "c", Name: "home", CA: make([]byte, 400)}, Leader: sampleNode(2).ID, Nodes: []api.Node{sampleNode(1)},
	}}
	return push{proto.Size(&pb.SyncResponse{Delta: wire.ViewDeltaToPB(d)}) + packet, sending + time.Duration(nodes)*comparing}
}
