package p2p

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

func TestDiagnosisOfRelayedHomes(t *testing.T) {
	anchor, n1, n2 := homes(t, newAuthority(t))
	eventually(t, "n1 and n2 are connected", admittedBoth(n1, n2))
	var d Diagnosis
	eventually(t, "the diagnosis has both peers", func() bool {
		d = n1.Diagnose(testContext(t))
		return len(d.Peers) == 2
	})
	byID := map[api.NodeID]PeerDiagnosis{}
	for _, p := range d.Peers {
		byID[p.ID] = p
	}
	if p := byID[n2.ID()]; p.Path != api.PathRelayed || p.Relay != anchor.ID() || p.Packet != 0 {
		t.Errorf("the relayed peer is %+v", p)
	}
	if p := byID[anchor.ID()]; p.Path != api.PathLAN || p.Relay != "" {
		t.Errorf("the anchor is %+v", p)
	}
	if d.Mapping.Asked || d.Mapping.By != "" || len(d.Mapping.Ports) > 0 {
		t.Errorf("a router was asked: %+v", d.Mapping)
	}
	if d.Public || d.Setting != PublicNo || d.UDP == UDPBlocked {
		t.Errorf("got %+v", d)
	}
	if rate := n1.EgressRate(); rate != 0 {
		t.Errorf("%v bytes per second to the internet, where there is none", rate)
	}
}

func TestPacketSizeOfQUIC(t *testing.T) {
	a := newAuthority(t)
	quic := func(c *Config) { c.Public, c.Listen = PublicYes, []string{"/ip4/127.0.0.1/udp/0/quic-v1"} }
	n1, n2 := a.start(t, quic), a.start(t, quic)
	introduce(n1, n2)
	eventually(t, "they are connected", admittedBoth(n1, n2))
	for _, p := range n1.Diagnose(testContext(t)).Peers {
		if p.Transport != transportQUIC || p.Packet < 1200 || p.Packet > 1500 {
			t.Errorf("got %+v", p)
		}
	}
}

func TestRelayOf(t *testing.T) {
	const relay, other = "12D3KooWBhMbLvQQ1hQWFqWhKGgKXxvYnnvYNTPyuCHpKMQSYLzF", "12D3KooWHHzSeKaY8xuZVzkLbKFfvNgPPeKhFBGrMbNzbm5akpqu"
	for text, want := range map[string]api.NodeID{
		"/ip4/192.0.2.1/tcp/4717/p2p/" + relay + "/p2p-circuit":              relay,
		"/ip4/192.0.2.1/tcp/4717/p2p/" + relay + "/p2p-circuit/p2p/" + other: relay,
		"/ip4/192.0.2.1/udp/4717/quic-v1/p2p/" + other:                       "",
		"/p2p-circuit":                    "",
		"/ip4/192.0.2.1/udp/4717/quic-v1": "",
	} {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := relayOf(a); got != want {
			t.Errorf("%s is relayed by %q, want %q", text, got, want)
		}
	}
}

// openConn is a connection of which only that is known.
type openConn struct {
	network.Conn
	name string
}

func (*openConn) IsClosed() bool { return false }

func TestAppearances(t *testing.T) {
	o := newOutside()
	see := func(p peer.ID, mapped string) {
		o.seen[&openConn{name: mapped}] = view{peer: p, now: netip.MustParseAddrPort(mapped)}
	}
	see("a", "9.0.0.1:7")
	see("a", "9.0.0.1:7") // on another connection
	see("b", "9.0.0.1:8")
	see("stranger", "9.9.9.9:9")
	member := func(p peer.ID) bool { return p != "stranger" }
	seen, observers, own := o.appearances(member, []netip.Addr{netip.MustParseAddr("192.168.1.2")})
	want := []netip.AddrPort{netip.MustParseAddrPort("9.0.0.1:7"), netip.MustParseAddrPort("9.0.0.1:8")}
	if !slices.Equal(seen, want) || observers != 2 || own {
		t.Errorf("got %v by %d, own %v", seen, observers, own)
	}
	if _, _, own := o.appearances(member, []netip.Addr{netip.MustParseAddr("9.0.0.1")}); !own {
		t.Error("an own address is taken for the router's")
	}
}
