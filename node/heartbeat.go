package node

import (
	"context"
	"encoding/json"
	"sync"
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

// pulses remembers, on an anchor, when each node was last heard.
type pulses struct {
	mu   sync.Mutex
	last map[api.NodeID]time.Time
}

func newPulses() *pulses { return &pulses{last: make(map[api.NodeID]time.Time)} }

func (p *pulses) heard(id api.NodeID, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[id] = at
}

// lastSeen returns the zero time for a node that was never heard.
func (p *pulses) lastSeen(id api.NodeID) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last[id]
}

// keep forgets nodes that are gone, so that the map is bounded by the cluster.
func (p *pulses) keep(nodes []api.Node) {
	known := make(map[api.NodeID]bool, len(nodes))
	for _, n := range nodes {
		known[n.ID] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.last {
		if !known[id] {
			delete(p.last, id)
		}
	}
}
