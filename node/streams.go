package node

import (
	"context"
	"net"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
)

// raftStreams carries Raft over the mesh: only anchors get in.
type raftStreams struct {
	net.Listener
	mesh *p2p.Mesh
}

// Dial implements raftmeta.Streams.
func (s raftStreams) Dial(ctx context.Context, to api.NodeID) (net.Conn, error) {
	return s.mesh.Dial(ctx, to, api.ProtoRaft)
}
