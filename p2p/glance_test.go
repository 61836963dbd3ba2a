package p2p

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// TestGlance: a public device is asked at two ports; what it says at each is
// where the asker's listening socket is.
func TestGlance(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, func(c *Config) {
		c.Public, c.Listen = PublicYes, append(loopback(), "/ip4/127.0.0.2/udp/0/quic-v1")
	})
	n := a.start(t, nil)
	n.SetMembers([]Contact{anchor.contact()}) // it alone dials: the connections are counted
	eventually(t, "both are connected", admittedBoth(anchor, n))
	var own netip.AddrPort
	for _, l := range n.host.Network().ListenAddresses() {
		if ap, ok := udpAddr(l); ok {
			own = ap
		}
	}
	var first []multiaddr.Multiaddr
	for _, l := range anchor.host.Network().ListenAddresses() {
		if transportOf(l) == transportQUIC && !isRelayed(l) {
			first = append(first, l)
		}
	}
	if len(first) != 2 {
		t.Fatalf("the anchor listens at %v", first)
	}
	before := len(n.host.Network().ConnsToPeer(anchor.host.ID()))
	for i, l := range first {
		v, also, err := n.glance(testContext(t), anchor.host.ID(), l)
		if err != nil {
			t.Fatal(err)
		}
		if v.now != own || v.local.Port() != own.Port() {
			t.Errorf("from %s, %v looks like %v, want %v", l, v.local, v.now, own)
		}
		if other, _ := udpAddr(first[1-i]); also != other.Port() {
			t.Errorf("asked at %s, the anchor names port %d as its other one, want %d", l, also, other.Port())
		}
	}
	if after := len(n.host.Network().ConnsToPeer(anchor.host.ID())); after != before {
		t.Errorf("%d connections before, %d after", before, after)
	}
}

// TestGlancesSettleTheKind: one relay that looks from two ports is enough.
func TestGlancesSettleTheKind(t *testing.T) {
	const home, first, second = "192.168.1.2:40000", "5.0.0.1:4717", "5.0.0.1:4718"
	anybody := func(peer.ID) bool { return true }
	for mapped, want := range map[string]api.NAT{"9.0.0.1:40000": api.NATCone, "9.0.0.1:51234": api.NATSymmetric} {
		o := newOutside()
		now := time.Now()
		o.glimpsed(glimpseOf(home, first, "9.0.0.1:40000"), now)
		if got := o.verdict(anybody, nil); got != api.NATUnknown {
			t.Errorf("seen from one port: %s", got)
		}
		if !o.glimpsed(glimpseOf(home, second, mapped), now) || o.glimpsed(glimpseOf(home, second, mapped), now) {
			t.Error("a view is news once")
		}
		if got := o.verdict(anybody, nil); got != want {
			t.Errorf("%s from the second port: %s, want %s", mapped, got, want)
		}
		if got := o.announced(); !slices.ContainsFunc(got, func(a multiaddr.Multiaddr) bool { return a.String() == "/ip4/9.0.0.1/udp/40000/quic-v1" }) {
			t.Errorf("nobody else sees this device, and %v is announced", got)
		}
		o.forgetGlances()
		if got := o.verdict(anybody, nil); got != api.NATUnknown || len(o.announced()) > 0 {
			t.Errorf("after a change of networks: %s, %v", got, o.announced())
		}
	}
}

func glimpseOf(local, remote, mapped string) view {
	m := netip.MustParseAddrPort(mapped)
	return view{local: netip.MustParseAddrPort(local), remote: netip.MustParseAddrPort(remote), mapped: m, now: m}
}

// TestGlancesRestAfterFailures: where UDP does not pass, it is tried ever less.
func TestGlancesRestAfterFailures(t *testing.T) {
	o := newOutside()
	now := time.Now()
	var last time.Duration
	for range 30 {
		o.glanced(now, false, true)
		pause := o.nextGlance().Sub(now)
		if pause < last || pause > glanceRest {
			t.Fatalf("a pause of %s after one of %s", pause, last)
		}
		last = pause
	}
	if last != glanceRest {
		t.Errorf("the last pause is %s", last)
	}
	o.glanced(now, true, true)
	if pause := o.nextGlance().Sub(now); pause > glanceKeep {
		t.Errorf("a port that only a glance has seen is looked at again after %s, the router forgets it", pause)
	}
}

func TestSecondPortIsNotTold(t *testing.T) {
	cfg, err := Config{Key: firstKey(t), Admission: &admission{}, Public: PublicYes}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(cfg.Listen, func(a string) bool { return strings.Contains(a, "/udp/4718/") }) {
		t.Fatalf("a public device listens at %v", cfg.Listen)
	}
	told, err := newAddrsFilter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var addrs []multiaddr.Multiaddr
	for _, a := range []string{"/ip4/9.0.0.1/udp/4717/quic-v1", "/ip4/9.0.0.1/udp/4718/quic-v1", "/ip4/9.0.0.1/tcp/4717"} {
		addrs = append(addrs, multiaddr.StringCast(a))
	}
	if got := told(addrs); len(got) != 2 || slices.ContainsFunc(got, func(a multiaddr.Multiaddr) bool { return strings.Contains(a.String(), "/4718/") }) {
		t.Errorf("told: %v", got)
	}
}

func firstKey(t *testing.T) []byte {
	key, _ := newKey(t)
	return key
}
