package p2p

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
)

const (
	// recordCheck is how often this device looks whether its record still holds.
	// What changes within is told once.
	recordCheck = 2 * time.Second
	// A device whose addresses come and go does not wake everybody each time: it
	// publishes some records at once, then one per publishPause.
	publishPause = 30 * time.Second
	publishBurst = 4
	// Of others it passes on as many as a house that comes back from a power cut
	// has, and what is too much is pulled.
	passPause = time.Second
	passBurst = 32

	pullCheck = time.Second      // how often peers are looked for that are to be asked
	pullEvery = 50 * time.Second // how often a random one is asked, up to 40 % later
	pullAtOne = 4                // peers that are asked at one check
	pullTries = 5                // times that a peer is asked after it came, at most
	pullAgain = 5 * time.Second  // after an answer it is asked once more: gossip may not have flowed yet
)

// pullBackPause is how often one peer is asked because it seems to hold something
// newer. Two that disagree about who is a member would go on with it.
const pullBackPause = 10 * time.Second

// The ways on which a record comes.
const (
	viaGossip = "gossip"
	viaPull   = "pull"
	viaDisk   = "disk"
)

// Records returns the signed records that the mesh holds, this device's own
// among them, and a channel that is closed when they change. Whoever keeps them
// gives them back as Config.Records after a restart.
func (m *Mesh) Records() (records [][]byte, changed <-chan struct{}) {
	changed = m.records.watch()
	for _, r := range m.records.all() {
		records = append(records, r.raw)
	}
	return records, changed
}

// recall takes over the records of an earlier run. They are judged like any
// others: members may have been removed since.
func (m *Mesh) recall(records [][]byte) {
	for _, raw := range records[:min(len(records), maxRecords)] {
		m.hear(raw, viaDisk)
	}
}

// hear takes a record that came from somewhere, if its owner signed it, is a
// member and has said nothing newer; taken tells whether.
func (m *Mesh) hear(raw []byte, via string) (r signedRecord, taken bool) {
	r, err := openRecord(raw)
	result := "known"
	switch {
	case err != nil:
		result = "malformed"
	case r.peer == m.host.ID() && via != viaDisk:
		// One of its own that it does not remember, because its disk is older or its
		// clock was ahead: the next one must be numbered higher.
		result = "own"
		m.records.put(r)
	case !m.records.newer(r):
	case !m.vouched(r):
		result = "stranger"
	default:
		if _, taken = m.records.put(r); taken {
			result = "accepted"
			m.follow(r)
		}
	}
	m.metrics.records.WithLabelValues(via, result).Inc()
	return r, taken
}

// vouched reports whether the owner of a record is a daemon of this cluster: a
// member that is known, or one that shows its certificate.
func (m *Mesh) vouched(r signedRecord) bool {
	switch {
	case r.peer == m.host.ID():
		return true
	case m.cfg.Admission.Revoked(r.nodeID()):
		return false
	case m.contacts.has(r.peer):
		return true
	}
	member, err := m.judge(r.peer, r.cert)
	return err == nil && isDaemon(member) && !member.Lapsed
}

// isDaemon tells a node from a person.
func isDaemon(m api.Member) bool { return m.Has(api.RoleNode) || m.Has(api.RoleAnchor) }

// follow makes a member be tried at once when its record names an address that
// was not known.
func (m *Mesh) follow(r signedRecord) {
	if r.peer == m.host.ID() || !m.contacts.hear(r.contact()) {
		return
	}
	m.pulses.giveUp(func(p peer.ID) bool { return p == r.peer })
	m.keeper.reset([]peer.ID{r.peer})
	m.spawn(func() { m.leaveSilent(m.host.Network().ConnsToPeer(r.peer)) })
}

// passOn publishes the record of a member that was news here when that member
// connected: it published it itself when it was connected to nobody.
func (m *Mesh) passOn(r signedRecord) {
	if m.passing.Allow() {
		m.publishRecord(m.ctx, r)
	}
}

func (m *Mesh) publishRecord(ctx context.Context, r signedRecord) {
	m.metrics.recordBytes.WithLabelValues(viaGossip, "out").Add(float64(len(r.raw)))
	if err := m.Publish(ctx, api.TopicRecords, r.raw); err != nil && ctx.Err() == nil {
		m.log.Debug("publishing a member record failed", zap.Error(err))
	}
}

// dropRecords forgets those whose owners are no members any more.
func (m *Mesh) dropRecords() {
	gone := m.records.drop(func(r signedRecord) bool { return !m.vouched(r) })
	m.contacts.unhear(gone)
}

// ownRecord returns this device's record as of now, signed, and whether it says
// anything new.
func (m *Mesh) ownRecord() (r signedRecord, fresh bool, err error) {
	last, _ := m.records.get(m.host.ID())
	public, _ := m.Reachability()
	now := memberRecord{
		peer: m.host.ID(), issued: time.Now(), seq: nextSeq(time.Now(), last.seq),
		relay: public, addrs: recordAddrs(m.Addrs()), cert: m.cfg.Admission.Certificate(),
	}
	if last.raw != nil && now.same(&last.memberRecord) {
		return last, false, nil
	}
	r, err = sealRecord(now, m.host.Peerstore().PrivKey(m.host.ID()))
	return r, err == nil, err
}

// tellRecord publishes this device's record whenever it changes. There is no
// need to repeat it: certificates are renewed twice a day, which is a change,
// and whoever missed it pulls it.
func (m *Mesh) tellRecord(ctx context.Context) {
	limit := rate.NewLimiter(rate.Every(publishPause), publishBurst)
	moves := rate.NewLimiter(rate.Every(publishPause), publishBurst) // whoever has moved cannot wait for the rest to calm down
	told, moved := true, false
	for {
		r, fresh, err := m.ownRecord()
		if err != nil && told {
			m.log.Warn("this device's addresses cannot be told", zap.Error(err))
		}
		told = err == nil
		if fresh && (limit.Allow() || moved && moves.Allow()) {
			m.records.put(r)
			m.publishRecord(ctx, r)
		}
		select {
		case <-time.After(retry.Jitter(recordCheck)):
			moved = false
		case <-m.tell:
			moved = true
		case <-ctx.Done():
			return
		}
	}
}

// tellSoon has this device's record looked at now: it has moved.
func (m *Mesh) tellSoon() {
	select {
	case m.tell <- struct{}{}:
	default:
	}
}

// hearRecords takes what others publish, for as long as the mesh lives.
func (m *Mesh) hearRecords() error {
	_, err := m.Subscribe(api.TopicRecords, func(_ api.NodeID, data []byte) {
		m.metrics.recordBytes.WithLabelValues(viaGossip, "in").Add(float64(len(data)))
		m.hear(data, viaGossip)
	})
	return err
}

// asking is how far the pulls from a peer are that was admitted lately: it is
// asked until it has answered, and once more a little later. In between it may
// have heard news and passed them on before gossip flowed between the two.
type asking struct {
	peer    peer.ID
	since   time.Time // when it was admitted
	running bool
	tries   int
	next    time.Time // zero when it answered the second time
	again   bool      // it has answered once
}

func newAsking(since time.Time) asking { return asking{since: since, next: since} }

func (a asking) due(now time.Time) bool {
	return !a.running && a.tries < pullTries && !a.next.IsZero() && !now.Before(a.next)
}

// answered notes how a pull went.
func (a *asking) answered(err error, now time.Time) {
	a.tries++
	switch {
	case err != nil:
		a.next = now.Add(time.Duration(a.tries) * pullCheck)
	case !a.again:
		a.again, a.next = true, now.Add(pullAgain)
	default:
		a.next = time.Time{}
	}
}

// pullRecords asks each peer after it was admitted, and then one of them now
// and then: whatever gossip has lost comes that way. One that does not answer
// keeps no other one waiting.
func (m *Mesh) pullRecords(ctx context.Context) {
	var mu sync.Mutex // over what asked leads to
	asked := make(map[peer.ID]*asking)
	next := time.Now().Add(pullPause())
	for retry.Sleep(ctx, retry.Jitter(pullCheck)) == nil {
		daemons := slices.DeleteFunc(m.members(nil), func(s snapshot) bool { return !isDaemon(s.member) })
		var due []*asking
		mu.Lock()
		for _, s := range daemons {
			if a := asked[s.id]; a == nil || !a.since.Equal(s.since) {
				a := newAsking(s.since)
				a.peer, asked[s.id] = s.id, &a
			}
			if asked[s.id].due(time.Now()) && len(due) < pullAtOne {
				due = append(due, asked[s.id])
			}
		}
		if len(daemons) > 0 && time.Now().After(next) {
			if a := asked[daemons[rand.IntN(len(daemons))].id]; !a.running && !slices.Contains(due, a) {
				due = append(due, a)
			}
			m.dropRecords() // certificates of members that no view lists run out
			next = time.Now().Add(pullPause())
		}
		for _, a := range due {
			a.running = true
			m.spawn(func() {
				err := m.pull(ctx, m.best(a.peer))
				if err != nil && ctx.Err() == nil {
					m.log.Debug("pulling member records failed", zap.Stringer("peer", a.peer), zap.Error(err))
				}
				mu.Lock()
				defer mu.Unlock()
				a.running = false
				a.answered(err, time.Now())
			})
		}
		if len(asked) > 2*len(daemons)+pullAtOne {
			clear(asked) // peers that have gone: the others are asked once more
		}
		mu.Unlock()
	}
}

// pullBack asks peers that were seen to hold something newer when they asked. Most
// likely they have moved: the connection that they asked on works, and others to
// them may not.
func (m *Mesh) pullBack(ctx context.Context) {
	last := make(map[peer.ID]time.Time)
	for {
		select {
		case c := <-m.newer:
			m.askBack(ctx, c, last)
		case <-ctx.Done():
			return
		}
	}
}

// askBack asks on one connection, unless its peer was asked lately.
func (m *Mesh) askBack(ctx context.Context, c network.Conn, last map[peer.ID]time.Time) {
	maps.DeleteFunc(last, func(_ peer.ID, at time.Time) bool { return time.Since(at) > pullBackPause })
	p := c.RemotePeer()
	if _, lately := last[p]; lately || c.IsClosed() {
		return
	}
	last[p] = time.Now()
	if err := m.pull(ctx, c); err != nil && ctx.Err() == nil {
		m.log.Debug("pulling member records back failed", zap.Stringer("peer", p), zap.Error(err))
	}
}

func pullPause() time.Duration { return pullEvery + rand.N(pullEvery*2/5) }
