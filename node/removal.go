package node

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// A removal reaches everybody in four ways. The leader publishes it at once, and
// again with its announcements for a while; every view of an anchor lists it;
// nodes that meet ask each other for what they missed; and the removed node
// itself is told when it knocks. All but the views carry the signature of the
// cluster's authority, so it does not matter who passes a revocation on.

const (
	fromView    = "view"    // of an anchor, which is believed
	fromTopic   = "topic"   // verified, as all that follows
	fromNode    = "node"    // that was asked
	fromRefusal = "refusal" // of a hello
)

const (
	// lastWord is how long a removed node stays connected to the leader, to hear
	// that it was removed.
	lastWord = 500 * time.Millisecond
	// passOnWithin is how long a node waits for the topic to bring what it has
	// learned in another way, before it publishes that itself.
	passOnWithin = time.Second
	// announceRevocations is how long a revocation is repeated by the leader.
	announceRevocations = 10 * time.Minute
	// maxAnnounced bounds how many travel in a message of the topic.
	maxAnnounced = 32
)

// revoke acts on revocations that are known to be true.
func (d *daemon) revoke(list []api.Revocation, source string) {
	fresh := d.admission.revoked.learn(list)
	if len(fresh) == 0 {
		return
	}
	if source != fromView {
		d.views.amend(d.admission.revoked.complete)
	}
	var gone []api.NodeID
	for _, r := range fresh {
		id := api.NodeID(r.ID)
		if id == d.self {
			d.leave()
			continue
		}
		d.log.Info("an identity was revoked", zap.String("peer", r.ID), zap.String("reason", r.Reason), zap.String("source", source))
		gone = append(gone, id)
	}
	leads := d.office.IsLeader()
	d.evict(gone, leads)
	if source == fromTopic {
		return
	}
	wait := time.Duration(0)
	if !leads {
		wait = passOnWithin/5 + rand.N(passOnWithin)
	}
	if !d.errands.after(wait, func(ctx context.Context) { d.passOn(ctx, fresh) }) {
		d.log.Debug("too much to do to pass revocations on", zap.Int("revocations", len(fresh)))
	}
}

// evict ends the connections to removed nodes. The leader leaves them a moment:
// a removed node learns of it from the view that is on its way, and once it is
// evicted nobody speaks to it any more. Its calls are refused already.
func (d *daemon) evict(gone []api.NodeID, leads bool) {
	if len(gone) == 0 {
		return
	}
	evict := func() {
		for _, id := range gone {
			d.mesh.Evict(id)
		}
	}
	if !leads || !d.errands.after(lastWord, func(context.Context) { evict() }) {
		evict()
	}
}

// passOn publishes what the topic has not brought to everybody yet.
func (d *daemon) passOn(ctx context.Context, list []api.Revocation) {
	list = slices.DeleteFunc(slices.Clone(list), func(r api.Revocation) bool {
		return len(r.Signature) == 0 || !d.admission.revoked.tell(api.NodeID(r.ID))
	})
	ctx, cancel := context.WithTimeout(ctx, passOnWithin)
	defer cancel()
	for some := range slices.Chunk(list, maxAnnounced) {
		data, err := json.Marshal(announcement{Revoked: some})
		if err == nil {
			err = d.mesh.Publish(ctx, api.TopicMembership, data)
		}
		if err != nil {
			d.log.Debug("revocations were not passed on", zap.Error(err))
		}
	}
}

// heardRevocations takes what came by the topic.
func (d *daemon) heardRevocations(from api.NodeID, list []api.Revocation) {
	list = d.proven(from, list[:min(len(list), maxAnnounced)])
	for _, r := range list {
		d.admission.revoked.tell(api.NodeID(r.ID))
	}
	d.revoke(list, fromTopic)
}

// proven returns those of a list that the authority has signed. Whoever passes
// on another one is no honest member.
func (d *daemon) proven(from api.NodeID, list []api.Revocation) []api.Revocation {
	return slices.DeleteFunc(slices.Clone(list), func(r api.Revocation) bool {
		if len(r.Signature) > 0 && d.admission.revoked.has(r) {
			return false
		}
		err := d.admission.proves(r)
		if err != nil {
			d.log.Warn("a peer passes on a revocation that is not the authority's", zap.String("peer", string(from)), zap.Error(err))
		}
		return err != nil
	})
}

// proves checks that the cluster's authority made a revocation.
func (a *admission) proves(r api.Revocation) error { return a.trusts().VerifyRevocation(r) }

// lateRevocations are the last ones, as far as they fit in a message.
func (d *daemon) lateRevocations(now time.Time) []api.Revocation {
	list, _ := d.admission.revoked.signed()
	list = slices.DeleteFunc(list, func(r api.Revocation) bool { return now.Sub(r.At) > announceRevocations })
	slices.SortFunc(list, func(a, b api.Revocation) int { return b.At.Compare(a.At) })
	return list[:min(len(list), maxAnnounced)]
}

// adoptRevocations removes nodes that the state has and that were removed all
// the same: the state comes out of a backup that is older than the removal.
func (a *anchor) adoptRevocations(ctx context.Context) {
	list, _ := a.daemon.admission.revoked.signed()
	view := a.raft.Store().View()
	for _, r := range list {
		id := api.NodeID(r.ID)
		if _, there := view.Node(id); !there {
			continue
		}
		_, err := a.raft.Propose(ctx, state.RemoveNode{ID: id, Reason: r.Reason, Now: r.At, Signature: r.Signature})
		if err != nil && ctx.Err() == nil {
			a.daemon.log.Warn("a node that was removed before is still recorded", zap.String("peer", r.ID), zap.Error(err))
		}
	}
}

// leave makes this node go as its removal wants: nothing of it is needed any
// more, so its replicas end. What is on its disk is its owner's to wipe.
func (d *daemon) leave() {
	d.views.amend(func(v api.ClusterView) api.ClusterView {
		v = d.admission.revoked.complete(v)
		v.Replicas = slices.DeleteFunc(slices.Clone(v.Replicas), func(r api.Replica) bool { return r.Node == d.self })
		v.Nodes = slices.DeleteFunc(slices.Clone(v.Nodes), func(n api.Node) bool { return n.ID == d.self })
		return v
	})
	d.logRemoved(d.admission.removed())
}

// removed returns what to tell people once this node's own identity is dead,
// and else nil. It is dead for good: the way back is a new one.
func (a *admission) removed() error {
	r, dead := a.revoked.get(a.id)
	if !dead {
		return nil
	}
	err := errRemoved()
	if !r.At.IsZero() {
		err.Message += fmt.Sprintf(" at %s: %s", r.At.UTC().Format(time.RFC3339), r.Reason)
	}
	return err
}

// errRemoved tells that this node's own identity was revoked.
func errRemoved() *api.Error {
	return api.Errorf(api.KindDenied, "this node was removed from the cluster").
		WithHint("empty its data directory and join with a new token to come back")
}

// logRemoved says loudly that this node is no member any more.
func (d *daemon) logRemoved(why error) {
	d.log.Error(fmt.Sprintf("%v; empty %s and join with a new token to come back", why, d.cfg.DataDir))
}

// farewell implements p2p.Farewell.
type farewell struct{ d *daemon }

// removalNotice is a revocation for the node itself, which may have been away
// since before the authority that signed it: so it comes with the generations
// that lead there.
type removalNotice struct {
	api.Revocation
	Issuers []byte `json:"issuers,omitempty"`
}

func (f farewell) Notice(peer api.NodeID) []byte {
	r, dead := f.d.admission.revoked.get(peer)
	if !dead || len(r.Signature) == 0 {
		return nil
	}
	notice, err := json.Marshal(removalNotice{r, f.d.admission.trusts().IssuersOf(r)})
	if err != nil {
		return nil
	}
	return notice
}

func (f farewell) Heard(from api.NodeID, notice []byte) {
	var n removalNotice
	if json.Unmarshal(notice, &n) != nil || api.NodeID(n.ID) != f.d.self {
		return
	}
	if err := f.d.admission.trusts().VerifyRevocationBy(n.Revocation, n.Issuers); err != nil {
		f.d.log.Warn("a peer says that this node was removed, and that is not the authority's word", zap.String("peer", string(from)), zap.Error(err))
		return
	}
	f.d.revoke([]api.Revocation{n.Revocation}, fromRefusal)
}
