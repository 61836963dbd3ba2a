package node

import (
	"context"
	"encoding/json"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// heartbeat is what a node publishes; who sent it is known from the message.
type heartbeat struct {
	Incarnation uint64 `json:"i"`
	Seq         uint64 `json:"s"`
}

// publisher is the part of the mesh that heartbeats need.
type publisher interface {
	Publish(ctx context.Context, topic string, data []byte) error
}

// pulse publishes this node's heartbeats until ctx ends, at a pace that suits
// the size of the cluster.
func pulse(ctx context.Context, mesh publisher, incarnation uint64, nodes func() int, log *zap.Logger) error {
	beat := heartbeat{Incarnation: incarnation}
	send := func(ctx context.Context) {
		beat.Seq++
		data, err := json.Marshal(beat)
		if err == nil {
			err = mesh.Publish(ctx, api.TopicHeartbeat, data)
		}
		if err != nil && ctx.Err() == nil {
			log.Debug("publishing a heartbeat failed", zap.Error(err))
		}
	}
	for {
		send(ctx)
		if retry.Sleep(ctx, retry.Jitter(liveness.HeartbeatInterval(nodes()))) != nil {
			return nil
		}
	}
}
