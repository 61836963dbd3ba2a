package p2p

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/cloudless-project/cloudless/api"
)

// Sighting is what a witness says of a member that it was asked to probe.
type Sighting string

// The answers of a witness.
const (
	Reached    Sighting = "reached"
	NotReached Sighting = "not_reached"
	Frozen     Sighting = "frozen"       // not reached, but its device answers: the kernel without the daemon
	NotMember  Sighting = "not_a_member" // the witness knows no such member
)

// askMagic opens a stream of the probe protocol that carries a question instead
// of bytes to echo. Eight random bytes equal it once in 2⁶⁴ probes.
var askMagic = [probeSize]byte{'c', 'l', ' ', 'a', 's', 'k', ' ', '1'}

const (
	maxAskFrame = 1 << 10 // bytes
	maxAskTime  = 5 * time.Second
	askRate     = 50   // questions per second of one asker …
	askBurst    = 200  // … after this many at once: a house that falls silent
	maxAskers   = 1024 // whose questions are counted
)

// question is the frame that asks a witness to probe a member.
type question struct {
	Target api.NodeID `json:"target"`
	Within int64      `json:"within_ms"`
}

// check bounds what a stranger to this process may demand of it.
func (q question) check() (peer.ID, time.Duration, error) {
	p, err := peer.Decode(string(q.Target))
	if err != nil {
		return "", 0, fmt.Errorf("%q is not a PeerID", q.Target)
	}
	within := time.Duration(q.Within) * time.Millisecond
	if q.Within <= 0 || q.Within > maxAskTime.Milliseconds() {
		return "", 0, fmt.Errorf("a probe takes between 1 ms and %s, not %d ms", maxAskTime, q.Within)
	}
	return p, within, nil
}

// sightingFrame is the answer.
type sightingFrame struct {
	Sighting Sighting `json:"sighting"`
}

// Ask has a witness probe a member, and returns what it found within the given
// time. The error is about the witness: it did not answer, or refused.
func (m *Mesh) Ask(ctx context.Context, witness, target api.NodeID, within time.Duration) (Sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, within+probeTimeout)
	defer cancel()
	s, err := m.Dial(ctx, witness, api.ProtoProbe)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })()
	if _, err := s.Write(askMagic[:]); err != nil {
		return "", unreachable(witness, fmt.Errorf("ask: %w", err))
	}
	if err := writeFrame(s, maxAskFrame, question{Target: target, Within: within.Milliseconds()}); err != nil {
		return "", unreachable(witness, fmt.Errorf("ask: %w", err))
	}
	var answer sightingFrame
	if err := readFrame(s, maxAskFrame, &answer); err != nil {
		return "", unreachable(witness, fmt.Errorf("ask: %w", err))
	}
	switch answer.Sighting {
	case Reached, NotReached, Frozen, NotMember:
		return answer.Sighting, nil
	}
	return "", api.Errorf(api.KindInternal, "%s answers a question with %q", witness, answer.Sighting)
}

// answerAsk serves one question, whose magic has been read.
func (m *Mesh) answerAsk(rw io.ReadWriter, asker api.Member) error {
	if !asker.Has(api.RoleAnchor) {
		return api.Errorf(api.KindDenied, "%s is no anchor: only anchors ask for witnesses", asker.ID)
	}
	if !m.askers.allow(asker.ID) {
		return api.Errorf(api.KindExhausted, "%s asks too often", asker.ID)
	}
	var q question
	if err := readFrame(rw, maxAskFrame, &q); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	target, within, err := q.check()
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return writeFrame(rw, maxAskFrame, sightingFrame{m.sight(target, within)})
}

// sight probes a member within the given time.
func (m *Mesh) sight(target peer.ID, within time.Duration) Sighting {
	id := api.NodeID(target.String())
	switch {
	case target == m.host.ID():
		return Reached
	case !m.isMember(target):
		return NotMember
	}
	ctx, cancel := context.WithTimeout(m.ctx, within)
	defer cancel()
	kernel := make(chan bool, 1)
	go func() { kernel <- m.kernelAnswers(ctx, target) }()
	if _, err := m.Probe(ctx, id); err == nil {
		return Reached
	}
	if <-kernel { // it ends with ctx at the latest
		return Frozen
	}
	return NotReached
}

// askers limits how often each member may ask.
type askers struct {
	mu       sync.Mutex
	limiters map[api.NodeID]*rate.Limiter
}

func (a *askers) allow(id api.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.limiters[id]
	if l == nil {
		if a.limiters == nil || len(a.limiters) >= maxAskers {
			a.limiters = make(map[api.NodeID]*rate.Limiter) // at worst, everybody starts afresh
		}
		l = rate.NewLimiter(askRate, askBurst)
		a.limiters[id] = l
	}
	return l.Allow()
}
