package p2p

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	dto "github.com/prometheus/client_model/go"

	"github.com/cloudless-project/cloudless/api"
)

func ips(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// TestAddressesAreThoseOfNow: libp2p still names the address that a device had; it
// is told of under the one that it has.
func TestAddressesAreThoseOfNow(t *testing.T) {
	i, at := newInterfaces(), time.Now()
	listen := multiaddrs("/ip4/0.0.0.0/tcp/4717", "/ip6/::/tcp/4717", "/ip4/127.0.0.1/udp/1/quic-v1")
	remembered := multiaddrs("/ip4/192.0.2.1/tcp/4717", "/ip4/198.51.100.1/tcp/4717", "/ip6/2001:db8::1/tcp/4717")
	if gained, lost := i.look(ips("192.0.2.1", "2001:db8::1"), listen, at); gained || lost {
		t.Error("the first look is news")
	}
	if got := i.correct(remembered); !sameAddrs(got, remembered) {
		t.Errorf("without a change: %v", got)
	}
	if gained, lost := i.look(ips("192.0.2.7", "2001:db8::1"), listen, at); !gained || !lost {
		t.Errorf("another address: gained %v, lost %v", gained, lost)
	}
	want := multiaddrs("/ip4/192.0.2.7/tcp/4717", "/ip4/198.51.100.1/tcp/4717", "/ip6/2001:db8::1/tcp/4717")
	if got := i.correct(remembered); !sameAddrs(got, want) {
		t.Errorf("after the change: %v, want %v", got, want)
	}
	if gained, lost := i.look(nil, listen, at); gained || !lost {
		t.Errorf("no address left: gained %v, lost %v", gained, lost)
	}
	if gained, _ := i.look(ips("192.0.2.1", "2001:db8::1"), listen, at); !gained {
		t.Error("an address that has come back is no news")
	}
	if got := i.correct(remembered); !sameAddrs(got, remembered) {
		t.Errorf("after it has come back: %v", got)
	}
	i.look(ips("192.0.2.1", "2001:db8::1"), listen, at.Add(2*interfaceMemory))
	if len(i.lost)+len(i.gained) != 0 {
		t.Error("old changes are remembered for good")
	}
}

// TestWhoHasMovedSaysSoAtOnce: the record of a device that has another address goes
// out although it has published many lately.
func TestWhoHasMovedSaysSoAtOnce(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	eventually(t, "n2 has n1's record", func() bool { return n2.holds(n1) })
	for i := range publishBurst { // with the first one, more than it may publish at once otherwise
		cert := a.issue(api.Member{ID: n1.ID(), Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(time.Duration(i+2) * time.Hour)})
		n1.adm.set(cert)
		n1.tellSoon()
		eventually(t, "n2 has heard what n1 says now", func() bool {
			r, ok := n2.records.get(n1.host.ID())
			return ok && bytes.Equal(r.cert, cert)
		})
	}
}

// elsewhere is a connection that a peer has opened from another address.
type elsewhere struct {
	network.Conn
	from multiaddr.Multiaddr
}

func (c elsewhere) RemoteMultiaddr() multiaddr.Multiaddr { return c.from }
func (c elsewhere) Stat() network.ConnStats {
	s := c.Conn.Stat()
	s.Direction, s.Opened = network.DirInbound, s.Opened.Add(2*yieldFirst)
	return s
}

// TestOlderConnectionsAreDoubted: a peer comes from another address, and the
// connection to its old one is silent.
func TestOlderConnectionsAreDoubted(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	eventually(t, "both are connected", admittedBoth(n1, n2))
	old := n1.best(n2.host.ID())
	n2.mum()
	n1.doubtOlder(elsewhere{old, multiaddr.StringCast("/ip4/198.51.100.7/tcp/4717")})
	eventually(t, "the silent one is closed", old.IsClosed)
}

// TestWhoHoldsNewerRecordsIsAskedBack: on the connection on which it has asked, and
// not again and again.
func TestWhoHoldsNewerRecordsIsAskedBack(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var cfg Config
	a.start(t, func(c *Config) { cfg = *c }).stop()
	still, err := New(cfg) // nothing that it does is done in the background
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = still.Run(ctx)
	})
	n := a.start(t, nil)
	still.topics.pubsub.BlacklistPeer(n.host.ID()) // no news but by asking
	n.SetMembers([]Contact{{ID: still.ID(), Addresses: still.Addrs()}})
	last := make(map[peer.ID]time.Time)
	eventually(t, "n has asked, and was asked back", func() bool {
		select {
		case c := <-still.newer:
			still.askBack(t.Context(), c, last)
		default:
		}
		_, ok := still.records.get(n.host.ID())
		return ok
	})
	pulls := func() float64 {
		var sum float64
		for _, result := range []string{"same", "differed", "failed"} {
			var m dto.Metric
			if err := still.metrics.pulls.WithLabelValues(result).Write(&m); err != nil {
				t.Fatal(err)
			}
			sum += m.GetCounter().GetValue()
		}
		return sum
	}
	last[n.host.ID()] = time.Now()
	before := pulls()
	still.askBack(t.Context(), still.best(n.host.ID()), last)
	if after := pulls(); after != before {
		t.Errorf("it was asked again at once, %v times", after-before)
	}
}
