package p2p

import (
	"cmp"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

func TestClassify(t *testing.T) {
	const relay = "/p2p/12D3KooWCHddPE2UiGELAf9u2xNrHbQif74AmgM1npVjKhL5JSGx/p2p-circuit"
	for text, want := range map[string]api.Path{
		"/ip4/192.168.1.2/tcp/4717":         api.PathLAN,
		"/ip4/127.0.0.1/udp/4717/quic-v1":   api.PathLAN,
		"/ip6/fd00::1/tcp/4717":             api.PathLAN,
		"/ip4/100.64.1.2/tcp/4717":          api.PathDirect, // carrier NAT, or somebody's overlay
		"/ip4/1.1.1.1/udp/4717/quic-v1":     api.PathDirect,
		"/ip4/192.168.1.2/tcp/4717" + relay: api.PathRelayed,
		relay:                               api.PathRelayed,
	} {
		if got := classify(multiaddr.StringCast(text)); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

// order returns the addresses as the ranker would dial them.
func order(public bool, texts ...string) []string {
	var addrs []multiaddr.Multiaddr
	for _, text := range texts {
		addrs = append(addrs, multiaddr.StringCast(text))
	}
	ranked := ranker(public)(addrs)
	slices.SortStableFunc(ranked, func(a, b network.AddrDelay) int { return cmp.Compare(a.Delay, b.Delay) })
	var out []string
	for _, r := range ranked {
		out = append(out, r.Addr.String())
	}
	return out
}

func TestRanker(t *testing.T) {
	const lanTCP, lanQUIC = "/ip4/192.168.1.2/tcp/4717", "/ip4/192.168.1.2/udp/4717/quic-v1"
	const wanTCP, wanQUIC = "/ip4/1.1.1.1/tcp/4717", "/ip4/1.1.1.1/udp/4717/quic-v1"
	const relayed = "/p2p/12D3KooWCHddPE2UiGELAf9u2xNrHbQif74AmgM1npVjKhL5JSGx/p2p-circuit"
	if got := order(false, lanQUIC, lanTCP); !slices.Equal(got, []string{lanTCP, lanQUIC}) {
		t.Errorf("on a LAN: %v", got)
	}
	if got := order(false, relayed, wanTCP, wanQUIC); !slices.Equal(got, []string{wanQUIC, wanTCP, relayed}) {
		t.Errorf("behind NAT: %v", got)
	}
	if got := order(false, wanQUIC, wanTCP, lanQUIC, lanTCP); got[0] != lanTCP || got[1] == lanQUIC {
		t.Errorf("in the same house: %v", got)
	}
	if got := order(true, relayed, wanQUIC, wanTCP); !slices.Equal(got, []string{wanTCP, wanQUIC, relayed}) {
		t.Errorf("in public: %v", got)
	}
}

func TestPrivateAddressesOfAnotherHouseAreNotDialled(t *testing.T) {
	a := newAuthority(t)
	_, anchor := newKey(t)
	_, guest := newKey(t)
	_, alone := newKey(t)
	n := a.start(t, func(c *Config) {
		c.Announce = []string{"/ip4/1.1.1.1/tcp/4717"}
		c.Contacts = []Contact{
			{ID: anchor, Anchor: true},
			{ID: guest, Addresses: []string{"/ip4/9.9.9.9/tcp/4717", "/ip4/172.31.77.7/tcp/4717"}},
			{ID: alone, Addresses: []string{"/ip4/172.31.77.7/tcp/4717"}},
		}
	})
	private := multiaddr.StringCast("/ip4/172.31.77.7/tcp/4717")
	for _, tt := range []struct {
		name string
		id   api.NodeID
		addr multiaddr.Multiaddr
		want bool
	}{
		{"anchor", anchor, private, true},
		{"another house", guest, multiaddr.StringCast("/ip4/9.9.9.9/tcp/4717"), true},
		{"loopback is on every interface list", guest, multiaddr.StringCast("/ip4/127.0.0.1/tcp/4717"), true},
		{"a house that is not known", alone, private, false},
	} {
		p, err := peer.Decode(string(tt.id))
		if err != nil {
			t.Fatal(err)
		}
		if got := n.worthDialling(p, tt.addr); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	p, _ := peer.Decode(string(alone))
	if !a.start(t, nil).worthDialling(p, private) {
		t.Error("without the internet, a private address is not dialled")
	}
	p, _ = peer.Decode(string(guest))
	if n.worthDialling(p, private) {
		t.Error("a private address of a house with another public address is dialled")
	}
	if (&gater{m: n.Mesh}).InterceptAddrDial(p, multiaddr.StringCast("/ip4/10.214.3.1/tcp/4717")) {
		t.Error("a container bridge is dialled")
	}
}

func TestDefaultListen(t *testing.T) {
	key, _ := newKey(t)
	if got := defaultListen(key, PublicYes); len(got) != 6 || !slices.Equal(got[:4], DefaultListen()) {
		t.Errorf("public: %v", got)
	}
	got := defaultListen(key, PublicAuto)
	if got[0] != DefaultListen()[0] || got[1] == DefaultListen()[1] {
		t.Errorf("behind NAT: %v, want the default TCP port and a UDP port of its own", got)
	}
}

// Two that find each other at the same moment make one connection. Over TCP two
// dials between the same ports would be none at all.
func TestMutualDialsMakeOneConnection(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	patient := func(c *Config) {
		c.Listen = loopback()[:1]
		c.yield = 2 * soon // the time that a busy machine may take for a dial
	}
	x, y := a.start(t, patient), a.start(t, patient)
	dial := func(from, to *node) error {
		p, err := peer.Decode(string(to.ID()))
		if err != nil {
			return err
		}
		from.contacts.replace([]Contact{to.contact()})
		return from.connectDirect(testContext(t), p)
	}
	errs := make(chan error, 2)
	go func() { errs <- dial(x, y) }()
	go func() { errs <- dial(y, x) }()
	for range 2 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	conns := x.host.Network().ConnsToPeer(y.host.ID())
	if len(conns) != 1 || len(y.host.Network().ConnsToPeer(x.host.ID())) != 1 {
		t.Errorf("they have %d and %d connections, want one", len(conns), len(y.host.Network().ConnsToPeer(x.host.ID())))
	}
}
