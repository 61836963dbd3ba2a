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

const (
	// announceEvery is how often a leader says that it leads. Who missed the
	// first word hears the next one.
	announceEvery = 5 * time.Second
	// eager is how many of the first announcements follow each other quickly.
	eager       = 5
	eagerEvery  = 300 * time.Millisecond
	leaderCheck = 100 * time.Millisecond
)

// announcement is what a leader publishes, with the revocations of late; who it
// is is known from the message. Other nodes pass on revocations alone.
type announcement struct {
	Epoch   uint64           `json:"e"`
	Revoked []api.Revocation `json:"r,omitempty"`
}

// herald knows who leads, as far as this node has heard.
type herald struct {
	mu      sync.Mutex
	epoch   uint64
	leader  api.NodeID
	changed chan struct{} // closed when it is another one
}

func newHerald() *herald { return &herald{changed: make(chan struct{})} }

// heard notes that an anchor leads in an epoch. Whoever leads in an earlier one
// does not count.
func (h *herald) heard(leader api.NodeID, epoch uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if leader == "" || epoch < h.epoch {
		return
	}
	h.epoch = epoch
	if leader == h.leader {
		return
	}
	h.leader = leader
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *herald) watch() (api.NodeID, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leader, h.changed
}

// hearLeaders follows the announcements until ctx ends.
func (d *daemon) hearLeaders(ctx context.Context) error {
	cancel, err := d.mesh.Subscribe(api.TopicMembership, d.heardAnnouncement)
	if err != nil {
		return err
	}
	<-ctx.Done()
	cancel()
	return nil
}

// heardAnnouncement takes a message of the topic. Any member can send one:
// revocations prove themselves, and only an anchor can lead.
func (d *daemon) heardAnnouncement(from api.NodeID, data []byte) {
	var a announcement
	if json.Unmarshal(data, &a) != nil {
		return
	}
	d.heardRevocations(from, a.Revoked)
	if a.Epoch < d.epoch() || !d.isAnchor(from) {
		return
	}
	d.herald.heard(from, a.Epoch)
}

// isAnchor reports whether a peer is an anchor by its certificate or by the
// last view. It is asked before a view of that peer is believed.
func (d *daemon) isAnchor(id api.NodeID) bool {
	if id == d.self {
		return d.office.current() != nil
	}
	if m, ok := d.mesh.Admitted(id); ok && m.Has(api.RoleAnchor) {
		return true
	}
	v := d.views.current()
	n, ok := nodeOf(&v, id)
	return ok && n.HoldsState()
}

// announce tells every node that this anchor leads.
func (a *anchor) announce(ctx context.Context) error {
	a.daemon.herald.heard(a.daemon.self, a.epoch)
	var adopted uint64
	for n := 0; ; n++ {
		if news := a.daemon.admission.revoked.news(); news != adopted {
			a.adoptRevocations(ctx)
			adopted = news
		}
		data, err := json.Marshal(announcement{Epoch: a.epoch, Revoked: a.daemon.lateRevocations(time.Now())})
		if err != nil {
			return err
		}
		if err := a.daemon.mesh.Publish(ctx, api.TopicMembership, data); err != nil && ctx.Err() == nil {
			a.daemon.log.Debug("announcing the leader failed", zap.Error(err))
		}
		wait := retry.Jitter(announceEvery)
		if n < eager {
			wait = eagerEvery
		}
		if retry.Sleep(ctx, wait) != nil {
			return nil
		}
	}
}

// watchLeader tells the herald what the Raft group says.
func (a *anchor) watchLeader(ctx context.Context) error {
	tick := time.NewTicker(leaderCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if id, ok := a.raft.Leader(); ok {
				a.daemon.herald.heard(id, a.epoch)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
