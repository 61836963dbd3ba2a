package node

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// heartbeat is what a node publishes; who sent it is known from the message.
type heartbeat struct {
	incarnation uint64 // of the daemon
}

// encode keeps it small: heartbeats are most of an idle node's traffic.
func (h heartbeat) encode() []byte { return binary.BigEndian.AppendUint64(nil, h.incarnation) }

func decodeHeartbeat(data []byte) (heartbeat, bool) {
	if len(data) != 8 {
		return heartbeat{}, false
	}
	return heartbeat{binary.BigEndian.Uint64(data)}, true
}

// publisher is the part of the mesh that heartbeats need.
type publisher interface {
	Publish(ctx context.Context, topic string, data []byte) error
}

// pulse publishes this node's heartbeats until ctx ends, at a pace that suits
// the size of the cluster.
func pulse(ctx context.Context, mesh publisher, incarnation uint64, nodes func() int, log *zap.Logger) error {
	beat := heartbeat{incarnation}.encode()
	for {
		if err := mesh.Publish(ctx, api.TopicHeartbeat, beat); err != nil && ctx.Err() == nil {
			log.Debug("publishing a heartbeat failed", zap.Error(err))
		}
		if retry.Sleep(ctx, liveness.NextHeartbeat(nodes(), rand.Float64())) != nil {
			return nil
		}
	}
}
