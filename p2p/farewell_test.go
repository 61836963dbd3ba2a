package p2p

import (
	"bytes"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"

	"github.com/cloudless-project/cloudless/api"
)

// farewells is a Farewell that notes what it hears.
type farewells struct {
	notice []byte

	mu    sync.Mutex
	heard [][]byte
}

func (f *farewells) Notice(api.NodeID) []byte { return f.notice }

func (f *farewells) Heard(_ api.NodeID, notice []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, notice)
}

func (f *farewells) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.heard) == 0 {
		return ""
	}
	return string(f.heard[len(f.heard)-1])
}

// A member that was removed while it was away is told so by whomever it dials,
// and then disconnected; it gets no further.
func TestRemovedMemberIsTold(t *testing.T) {
	a := newAuthority(t)
	there := a.start(t, func(c *Config) { public(c); c.Farewell = &farewells{notice: []byte("the proof")} }, api.RoleNode, api.RoleAnchor)
	serveEcho(t, there, protoEcho)
	ears := &farewells{}
	back := a.start(t, func(c *Config) {
		c.Farewell = ears
		c.Admission = &admission{ // it does not know what the others do
			authority: &authority{key: a.key, revoked: map[api.NodeID]bool{}}, cert: c.Admission.Certificate(),
		}
	})
	a.revoke(back.ID())
	back.SetMembers([]Contact{there.contact()})
	if _, err := back.Dial(testContext(t), there.ID(), protoEcho); api.KindOf(err) != api.KindDenied {
		t.Errorf("dial: %v", err)
	}
	if ears.last() != "the proof" {
		t.Errorf("it heard %q", ears.last())
	}
	back.SetMembers(nil)
	eventually(t, "it is disconnected", func() bool { return len(there.host.Network().ConnsToPeer(back.host.ID())) == 0 })
	if len(there.Peers()) != 0 {
		t.Error("it counts as a peer")
	}
}

// To others than the removed member, a refusal proves nothing.
func TestNoticeIsForTheRemovedAlone(t *testing.T) {
	a := newAuthority(t)
	there := a.start(t, func(c *Config) { c.Farewell = &farewells{notice: []byte("the proof")} })
	ears := &farewells{}
	foreign := newAuthority(t).start(t, func(c *Config) { c.Farewell = ears; c.Contacts = []Contact{there.contact()} })
	if _, err := foreign.Dial(testContext(t), there.ID(), protoEcho); api.KindOf(err) != api.KindDenied {
		t.Errorf("dial: %v", err)
	}
	if got := ears.last(); got != "" {
		t.Errorf("a stranger is given %q", got)
	}
}

func TestNoticeIsBounded(t *testing.T) {
	ears := &farewells{}
	m := &Mesh{cfg: Config{Farewell: ears}}
	m.hearFarewell("", helloMessage{Notice: bytes.Repeat([]byte("x"), maxNotice+1)})
	if ears.last() != "" {
		t.Error("a notice without bound is handed on")
	}
	m.hearFarewell("", helloMessage{Notice: []byte("x")})
	if ears.last() != "x" {
		t.Error("a notice is not handed on")
	}
}

// A revoked member loses everything that it holds at every member: streams over
// direct and relayed connections, the reservation at the relay, topics.
func TestRevocationCutsEverything(t *testing.T) {
	a := newAuthority(t)
	anchor, good, bad := homes(t, a)
	for _, n := range []*node{anchor, good} {
		serveEcho(t, n, protoEcho)
	}
	serveEcho(t, bad, protoEcho)
	heard := make(chan api.NodeID, 100)
	cancel, err := good.Subscribe(api.TopicMembership, func(from api.NodeID, _ []byte) {
		select {
		case heard <- from:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	var open []Conn
	dial := func(from, to *node) {
		t.Helper()
		eventually(t, "a stream is open", func() bool {
			c, err := from.Dial(testContext(t), to.ID(), protoEcho)
			if err != nil {
				return false
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
			return true
		})
	}
	dial(bad, anchor)
	dial(bad, good) // relayed
	dial(good, bad)
	eventually(t, "a message of its arrives", func() bool {
		_ = bad.Publish(testContext(t), api.TopicMembership, []byte("hi"))
		return len(heard) > 0
	})

	a.revoke(bad.ID())
	for _, n := range []*node{anchor, good} {
		n.Evict(bad.ID())
	}
	for i, c := range open {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("stream %d to or from a revoked member lives", i)
		}
	}
	for _, n := range []*node{anchor, good} {
		eventually(t, "no connection is admitted", func() bool { _, ok := n.Admitted(bad.ID()); return !ok })
	}
	// Its hello is refused, so it is a stranger to the relay.
	_, err = client.Reserve(testContext(t), bad.host, direct(t, anchor, transportTCP))
	if err == nil {
		t.Error("a revoked member has reserved at the relay")
	}
	for len(heard) > 0 {
		<-heard
	}
	_ = bad.Publish(testContext(t), api.TopicMembership, []byte("still here?"))
	mark := make(chan struct{})
	once := sync.OnceFunc(func() { close(mark) })
	stop, err := good.Subscribe("mark", func(api.NodeID, []byte) { once() })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	eventually(t, "a later message of a member arrives", func() bool {
		_ = anchor.Publish(testContext(t), "mark", nil)
		select {
		case <-mark:
			return true
		default:
			return false
		}
	})
	if len(heard) > 0 {
		t.Error("a revoked member is heard on a topic")
	}
	eventually(t, "nobody is connected to it", func() bool {
		return anchor.host.Network().Connectedness(bad.host.ID()) == network.NotConnected &&
			good.host.Network().Connectedness(bad.host.ID()) == network.NotConnected
	})
}
