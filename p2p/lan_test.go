package p2p

import (
	"slices"
	"testing"

	"github.com/multiformats/go-multiaddr"
)

func multiaddrs(texts ...string) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for _, text := range texts {
		out = append(out, multiaddr.StringCast(text))
	}
	return out
}

// TestAnnouncedAddresses: neighbours are told what is of use to them, and the
// same in whichever order libp2p lists it.
func TestAnnouncedAddresses(t *testing.T) {
	const tcp, quic, six = "/ip4/192.168.1.2/tcp/4717", "/ip4/192.168.1.2/udp/4717/quic-v1", "/ip6/fd00::2/tcp/4717"
	all := multiaddrs("/ip4/127.0.0.1/tcp/4717", six, "/ip4/10.214.3.1/tcp/4717", quic, "/ip6/fe80::1/tcp/4717", tcp, "/ip6/::1/tcp/4717")
	got := worthAnnouncing(all, DefaultExclude())
	if want := multiaddrs(tcp, quic, six); !slices.EqualFunc(got, want, multiaddr.Multiaddr.Equal) {
		t.Errorf("told are %v, want %v", got, want)
	}
	before := slices.Clone(all)
	slices.Reverse(all)
	if again := worthAnnouncing(all, DefaultExclude()); !slices.EqualFunc(got, again, multiaddr.Multiaddr.Equal) {
		t.Errorf("in another order, %v become %v", got, again)
	}
	slices.Reverse(all)
	if !slices.EqualFunc(all, before, multiaddr.Multiaddr.Equal) {
		t.Error("the host's list was changed")
	}
	alone := multiaddrs("/ip4/127.0.0.1/tcp/4717")
	if got := worthAnnouncing(alone, DefaultExclude()); len(got) != 1 {
		t.Errorf("within one machine, told are %v", got)
	}
	if told, err := (lanNetwork{addrs: got}).InterfaceListenAddresses(); err != nil || !slices.EqualFunc(told, got, multiaddr.Multiaddr.Equal) {
		t.Errorf("mDNS is shown %v, %v", told, err)
	}
}
