package p2p

import (
	"context"
	"fmt"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cloudless-project/cloudless/api"
)

const (
	maxTopicMessage = 64 << 10 // bytes
	topicQueue      = 512      // messages per peer and per subscription; libp2p's 32 drop silently
	// topicHints is how often peers that are not sent a message itself are told that
	// it exists. Whoever misses one for good pulls it, or hears the next.
	topicHints = 1
)

// topics are best effort: whoever needs every message pulls what it missed.
type topics struct {
	m      *Mesh
	pubsub *pubsub.PubSub

	mu      sync.Mutex
	joined  map[string]*pubsub.Topic
	anchors map[peer.ID]bool
}

func newTopics(ctx context.Context, m *Mesh) (*topics, error) {
	t := &topics{m: m, joined: make(map[string]*pubsub.Topic), anchors: make(map[peer.ID]bool)}
	if m.cfg.Client {
		return t, nil
	}
	params := pubsub.DefaultGossipSubParams()
	params.HistoryGossip = topicHints
	ps, err := pubsub.NewGossipSub(ctx, m.gated,
		pubsub.WithGossipSubParams(params),
		pubsub.WithFloodPublish(true), // small meshes: publish to everybody who listens
		pubsub.WithPeerOutboundQueueSize(topicQueue),
		pubsub.WithValidateQueueSize(topicQueue),
		pubsub.WithMaxMessageSize(2*maxTopicMessage),
		pubsub.WithPeerFilter(func(p peer.ID, _ string) bool { _, ok := m.admitted(p); return ok }),
	)
	if err != nil {
		return nil, fmt.Errorf("start topics: %w", err)
	}
	t.pubsub = ps
	return t, nil
}

// setAnchors makes the anchors direct peers, to whom messages always go.
func (t *topics) setAnchors(anchors []peer.ID) {
	if t.pubsub == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := make(map[peer.ID]bool, len(anchors))
	for _, p := range anchors {
		now[p] = true
		if !t.anchors[p] {
			_ = t.pubsub.AddDirectPeer(peer.AddrInfo{ID: p})
		}
	}
	for p := range t.anchors {
		if !now[p] {
			_ = t.pubsub.RemoveDirectPeer(p)
		}
	}
	t.anchors = now
}

func (t *topics) join(name string) (*pubsub.Topic, error) {
	if t.pubsub == nil {
		return nil, api.Errorf(api.KindUnsupported, "a client has no topics")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if topic := t.joined[name]; topic != nil {
		return topic, nil
	}
	if err := t.pubsub.RegisterTopicValidator(name, t.valid, pubsub.WithValidatorInline(true)); err != nil {
		return nil, fmt.Errorf("join topic %s: %w", name, err)
	}
	topic, err := t.pubsub.Join(name)
	if err != nil {
		return nil, fmt.Errorf("join topic %s: %w", name, err)
	}
	t.joined[name] = topic
	return topic, nil
}

// valid accepts messages of bounded size that a daemon of the cluster has
// signed and an admitted member has passed on.
func (t *topics) valid(_ context.Context, from peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	author := msg.GetFrom()
	switch {
	case len(msg.Data) > maxTopicMessage:
		t.m.metrics.messages.WithLabelValues("too_large").Inc()
		return pubsub.ValidationReject
	case author == t.m.host.ID():
		return pubsub.ValidationAccept
	case !t.m.isMember(from) || !t.m.isMember(author) && !t.m.introduces(author, msg):
		t.m.metrics.messages.WithLabelValues("stranger").Inc()
		return pubsub.ValidationIgnore
	}
	t.m.metrics.messages.WithLabelValues("accepted").Inc()
	return pubsub.ValidationAccept
}

// introduces reports whether a message is the record of a member that nobody
// here has heard of: it brings its certificate.
func (m *Mesh) introduces(author peer.ID, msg *pubsub.Message) bool {
	if msg.GetTopic() != api.TopicRecords {
		return false
	}
	r, err := openRecord(msg.Data)
	return err == nil && r.peer == author && m.vouched(r)
}

// isMember reports whether p is a daemon of the cluster: connected and
// admitted, listed in the view, or known by the record that it signed.
func (m *Mesh) isMember(p peer.ID) bool {
	if member, ok := m.admitted(p); ok {
		return member.Has(api.RoleNode) || member.Has(api.RoleAnchor)
	}
	return m.contacts.knows(p) && !m.cfg.Admission.Revoked(api.NodeID(p.String()))
}

// Publish sends data to every member that subscribes to the topic, at best.
func (m *Mesh) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > maxTopicMessage {
		return api.Errorf(api.KindInvalid, "a message of %d bytes is too large for a topic, at most %d are allowed", len(data), maxTopicMessage)
	}
	t, err := m.topics.join(topic)
	if err != nil {
		return err
	}
	if err := t.Publish(ctx, data); err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

// Subscribe calls handle for every message of others on the topic, one after
// the other, until cancel is called or the mesh stops. A handler that blocks
// loses messages.
func (m *Mesh) Subscribe(topic string, handle func(from api.NodeID, data []byte)) (cancel func(), err error) {
	t, err := m.topics.join(topic)
	if err != nil {
		return nil, err
	}
	sub, err := t.Subscribe(pubsub.WithBufferSize(topicQueue))
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	ctx, stop := context.WithCancel(m.ctx)
	m.spawn(func() {
		defer sub.Cancel()
		for {
			msg, err := sub.Next(ctx)
			if err != nil {
				return
			}
			if from := msg.GetFrom(); from != m.host.ID() {
				handle(api.NodeID(from.String()), msg.Data)
			}
		}
	})
	return stop, nil
}
