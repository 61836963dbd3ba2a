package p2p

import (
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/cloudless-project/cloudless/api"
)

// An anchor was rebuilt with another key. A member that knows the address alone
// meets it there, over TCP and over QUIC; a stranger in its place stays one.
func TestSuccessorOfAnAnchorIsMet(t *testing.T) {
	for name, listen := range map[string]string{"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			at := func(c *Config) { c.Listen = []string{listen} }
			_, lost := newKey(t)
			rebuilt := a.start(t, at, api.RoleNode, api.RoleAnchor)
			stranger := newAuthority(t).start(t, at)
			n := a.start(t, knowing(
				Contact{ID: lost, Addresses: rebuilt.Addrs(), Relay: true, Anchor: true},
				Contact{ID: lostToo(t), Addresses: stranger.Addrs(), Relay: true, Anchor: true},
			))
			eventually(t, "the member has met the rebuilt anchor", admittedBoth(n, rebuilt))
			if m, ok := n.Admitted(rebuilt.ID()); !ok || !m.Has(api.RoleAnchor) {
				t.Errorf("it is taken for %+v", m)
			}
			refused := func() float64 {
				var m dto.Metric
				if err := n.metrics.hellos.WithLabelValues("refused_by_peer").Write(&m); err != nil {
					t.Fatal(err)
				}
				return m.GetCounter().GetValue()
			}
			eventually(t, "the stranger was asked, and is not connected", func() bool {
				return refused() > 0 && len(n.host.Network().ConnsToPeer(stranger.host.ID())) == 0
			})
			if _, ok := n.Admitted(stranger.ID()); ok {
				t.Error("a stranger was admitted")
			}
		})
	}
}

func lostToo(t *testing.T) api.NodeID {
	_, id := newKey(t)
	return id
}

// Who answers in the place of an ordinary member is nobody's business.
func TestOnlyAnchorsHaveSuccessors(t *testing.T) {
	a := newAuthority(t)
	_, lost := newKey(t)
	other := a.start(t, nil)
	n := a.start(t, knowing(Contact{ID: lost, Addresses: other.Addrs(), Relay: true}))
	if _, err := n.Dial(testContext(t), lost, protoEcho); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("got %v", err)
	}
	if n.meeting.Tokens() < meetBurst {
		t.Error("it was met")
	}
}
