package p2p

import (
	"bytes"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cloudless-project/cloudless/api"
)

func TestWitnessTellsWhomItReaches(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, public, api.RoleNode, api.RoleAnchor)
	witness, target, other := a.start(t, nil), a.start(t, nil), a.start(t, nil)
	introduce(anchor, witness, target, other)
	ctx := testContext(t)
	ask := func(from *node, about api.NodeID, within time.Duration) (Sighting, error) {
		return from.Ask(ctx, witness.ID(), about, within)
	}
	eventually(t, "the witness reaches the target", func() bool {
		seen, err := ask(anchor, target.ID(), maxAskTime)
		return err == nil && seen == Reached
	})
	if seen, err := ask(anchor, witness.ID(), maxAskTime); err != nil || seen != Reached {
		t.Errorf("asked about itself, a witness says %q, %v", seen, err)
	}
	_, stranger := newKey(t)
	if seen, err := ask(anchor, stranger, maxAskTime); err != nil || seen != NotMember {
		t.Errorf("asked about a stranger, a witness says %q, %v", seen, err)
	}
	if seen, err := ask(other, target.ID(), maxAskTime); err == nil {
		t.Errorf("a node that is no anchor got the answer %q", seen)
	}
	if seen, err := ask(anchor, target.ID(), time.Minute); err == nil {
		t.Errorf("a probe of a minute was made: %q", seen)
	}
	target.stop()
	if seen, err := ask(anchor, target.ID(), time.Second); err != nil || seen != NotReached && seen != Frozen { // this device is still there
		t.Errorf("asked about a node that is gone, a witness says %q, %v", seen, err)
	}
}

func TestWitnessIsNotAskedWithoutEnd(t *testing.T) {
	var a askers
	allowed := 0
	for range 2 * askBurst {
		if a.allow("one") {
			allowed++
		}
	}
	if allowed < askBurst || allowed > askBurst+askRate {
		t.Errorf("%d of %d questions at once were allowed", allowed, 2*askBurst)
	}
	if !a.allow("two") {
		t.Error("another asker has to pay for the first")
	}
}

func FuzzAskFrame(f *testing.F) {
	_, id := newKey(f)
	f.Add(frame(question{Target: id, Within: 250}))
	f.Add(frame(question{Target: "x", Within: -1}))
	f.Add(frame(sightingFrame{Reached}))
	f.Add(frame(sightingFrame{Frozen}))
	f.Add([]byte{0, 0, 4, 1, '{'})
	f.Fuzz(func(t *testing.T, data []byte) {
		var q question
		if readFrame(bytes.NewReader(data), maxAskFrame, &q) != nil {
			return
		}
		p, within, err := q.check()
		if err != nil {
			return
		}
		if within <= 0 || within > maxAskTime {
			t.Fatalf("a probe may take %s", within)
		}
		if again, err := peer.Decode(p.String()); err != nil || again != p {
			t.Fatalf("%q is not a PeerID", q.Target)
		}
	})
}
