package p2p

import (
	"net/netip"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
)

func TestSocketOf(t *testing.T) {
	for text, want := range map[string]socket{
		"/ip4/0.0.0.0/tcp/4717":             {"tcp", 4717},
		"/ip4/192.168.1.2/udp/4000/quic-v1": {"udp", 4000},
		"/ip4/127.0.0.1/tcp/4717":           {},
		"/ip6/::/tcp/4717":                  {},
	} {
		if got, ok := socketOf(multiaddr.StringCast(text)); ok != (want.port != 0) || ok && got != want {
			t.Errorf("socketOf(%s) = %v, %v, want %v", text, got, ok, want)
		}
	}
}

func TestPortMapperTranslates(t *testing.T) {
	p := &portMapper{ports: mappings{
		{"udp", 4000}: netip.MustParseAddrPort("9.0.0.1:50000"),
		{"tcp", 4717}: netip.MustParseAddrPort("9.0.0.1:4717"),
	}}
	for text, want := range map[string]string{
		"/ip4/0.0.0.0/udp/4000/quic-v1": "/ip4/9.0.0.1/udp/50000/quic-v1",
		"/ip4/0.0.0.0/tcp/4717":         "/ip4/9.0.0.1/tcp/4717",
	} {
		if got := p.GetMapping(multiaddr.StringCast(text)); got == nil || got.String() != want {
			t.Errorf("%s is mapped to %v, want %s", text, got, want)
		}
	}
	if got := p.GetMapping(multiaddr.StringCast("/ip4/0.0.0.0/tcp/1")); got != nil {
		t.Errorf("a port that is not mapped is mapped to %s", got)
	}
}

// TestSearchesForARouterRest: where nothing maps ports the LAN is not called
// twice a minute for good, and a router that did once is looked for until it is
// back.
func TestSearchesForARouterRest(t *testing.T) {
	searches := func(p *portMapper) (n int) {
		begun := time.Now()
		for at := begun; at.Before(begun.Add(time.Hour)); at = at.Add(mapRenew) {
			if !at.Before(p.search) {
				n++
				p.searched(at)
			}
		}
		return n
	}
	if n := searches(&portMapper{}); n < 6 || n > 12 {
		t.Errorf("%d searches in an hour for a router that never answers", n)
	}
	if n := searches(&portMapper{maps: true}); n != int(time.Hour/mapRenew) {
		t.Errorf("%d searches in an hour for one that has mapped ports", n)
	}
	p := &portMapper{failed: 5, using: &natPMP{}}
	p.searched(time.Now())
	if !p.maps || p.failed != 0 {
		t.Error("a router that maps is not remembered")
	}
}
