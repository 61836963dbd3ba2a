package node

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
)

// heartbeatEvery is how often a node says that it lives, in a small mesh.
const heartbeatEvery = 500 * time.Millisecond

// heartbeat is what a node publishes; who sent it is known from the message.
type heartbeat struct {
	Incarnation uint64 `json:"i"`
	Seq         uint64 `json:"s"`
}

// publisher is the part of the mesh that heartbeats need.
type publisher interface {
	Publish(ctx context.Context, topic string, data []byte) error
}

// pulse publishes this node's heartbeats until ctx ends.
func pulse(ctx context.Context, mesh publisher, incarnation uint64, log *zap.Logger) error {
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
		if retry.Sleep(ctx, retry.Jitter(heartbeatEvery)) != nil {
			return nil
		}
	}
}
