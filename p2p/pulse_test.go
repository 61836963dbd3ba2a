package p2p

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cloudless-project/cloudless/api"
)

// named is a stream of a protocol, and nothing else.
type named struct {
	network.Stream
	id protocol.ID
}

func (s named) Protocol() protocol.ID { return s.id }

// TestWhatHoldsAConnection: for gossip and the search among the members, no
// connection is watched, and none through a relay is kept.
func TestWhatHoldsAConnection(t *testing.T) {
	for id, want := range map[protocol.ID]struct{ held, upkeep bool }{
		"":                                {false, false}, // it may become anything
		api.ProtoProbe:                    {false, false},
		api.ProtoAPI:                      {true, false},
		"/libp2p/circuit/relay/0.2.0/hop": {true, false},
		"/meshsub/1.3.0":                  {false, true},
		"/cloudless/abc/kad/1.0.0":        {false, true},
	} {
		if got := held(named{id: id}); got != want.held {
			t.Errorf("%q holds a connection: %v, want %v", id, got, want.held)
		}
		if got := upkeep(named{id: id}); got != want.upkeep {
			t.Errorf("%q is upkeep: %v, want %v", id, got, want.upkeep)
		}
	}
}

// age makes the last sign of life on a connection an old one.
func (u *pulses) age(c network.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lived[c] = life{time.Now().Add(-time.Hour), u.lived[c].rtt}
	u.silent[c] = time.Now().Add(-time.Hour)
}

// TestSignsOfLife: whatever is acknowledged over QUIC shows that the path is
// well; over TCP an answer does.
func TestSignsOfLife(t *testing.T) {
	t.Parallel()
	for transport, listen := range map[string]string{transportQUIC: "/ip4/127.0.0.1/udp/0/quic-v1", transportTCP: "/ip4/127.0.0.1/tcp/0"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			x := a.start(t, func(c *Config) { c.Listen = []string{listen} })
			y := a.start(t, func(c *Config) { c.Listen = []string{listen} })
			x.SetMembers([]Contact{y.contact()})
			eventually(t, "both are connected", admittedBoth(x, y))
			serveEcho(t, y, protoEcho)
			c := x.best(y.host.ID())
			if c == nil {
				t.Fatal("no connection")
			}
			u := newPulses() // the mesh's own looks at the connection, too
			u.look(c)
			u.age(c)
			if u.lives(c, time.Minute) || !u.isSilent(c) {
				t.Fatal("a connection without a sign of life for an hour lives")
			}
			if transport == transportTCP {
				u.look(c)
				if _, known := u.sample(c, 2*time.Hour); known {
					t.Error("TCP tells of its round trips")
				}
				u.note(c, x.answers(testContext(t), c, testTimeout))
			} else {
				s, err := x.Dial(testContext(t), y.ID(), protoEcho)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := echo(s, []byte("hello")); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the acknowledgement is seen", func() bool { u.look(c); return u.lives(c, time.Minute) })
				if rtt, fresh := u.sample(c, time.Minute); rtt <= 0 || !fresh {
					t.Errorf("the round trip is %v, fresh %v", rtt, fresh)
				}
			}
			if !u.lives(c, time.Minute) || u.isSilent(c) {
				t.Error("a connection that has just answered does not live")
			}
			acknowledged := func() bool { // as the mesh itself sees it
				return slices.ContainsFunc(x.members(nil), func(s snapshot) bool { return x.acknowledged(s, time.Minute) })
			}
			if transport == transportTCP {
				if acknowledged() {
					t.Error("a round trip over TCP is known without a probe")
				}
				return
			}
			eventually(t, "the round trip is known without a probe", acknowledged)
			if _, rtt := x.Path(y.ID()); rtt <= 0 {
				t.Errorf("the round trip is %v", rtt)
			}
		})
	}
}
