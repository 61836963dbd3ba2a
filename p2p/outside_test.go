package p2p

import (
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

func TestJudge(t *testing.T) {
	const home, other = "192.168.1.2:40000", "192.168.1.2:40001"
	see := func(local, remote, mapped string) view {
		return view{local: netip.MustParseAddrPort(local), remote: netip.MustParseAddrPort(remote), now: netip.MustParseAddrPort(mapped)}
	}
	tests := []struct {
		name  string
		views []view
		want  api.NAT
	}{
		{"nobody", nil, api.NATUnknown},
		{"one place", []view{see(home, "5.0.0.1:4717", "9.0.0.1:40000")}, api.NATUnknown},
		{"the same place twice", []view{see(home, "5.0.0.1:4717", "9.0.0.1:1"), see(home, "5.0.0.1:4717", "9.0.0.1:2")}, api.NATUnknown},
		{"no translation", []view{see("0.0.0.0:4717", "5.0.0.1:4717", "9.0.0.2:4717")}, api.NATNone},
		{"two places agree", []view{see(home, "5.0.0.1:4717", "9.0.0.1:7"), see(home, "5.0.0.2:4717", "9.0.0.1:7")}, api.NATCone},
		{"two ports of one place agree", []view{see(home, "5.0.0.1:4717", "9.0.0.1:7"), see(home, "5.0.0.1:4718", "9.0.0.1:7")}, api.NATCone},
		{"two places disagree", []view{see(home, "5.0.0.1:4717", "9.0.0.1:7"), see(home, "5.0.0.2:4717", "9.0.0.1:8")}, api.NATSymmetric},
		{"different sockets are not compared", []view{see(home, "5.0.0.1:4717", "9.0.0.1:7"), see(other, "5.0.0.2:4717", "9.0.0.1:8")}, api.NATUnknown},
		{"one of three lies", []view{
			see(home, "5.0.0.1:4717", "9.0.0.1:7"), see(home, "5.0.0.2:4717", "9.0.0.1:7"), see(home, "5.0.0.3:4717", "9.9.9.9:9"),
		}, api.NATCone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(tt.views, []netip.Addr{netip.MustParseAddr("9.0.0.2")}); got != tt.want {
				t.Errorf("judge: %s, want %s", got, tt.want)
			}
		})
	}
}

func TestUDPAddr(t *testing.T) {
	for text, want := range map[string]string{
		"/ip4/192.0.2.1/udp/4717/quic-v1": "192.0.2.1:4717",
		"/ip6/2001:2::1/udp/1/quic-v1":    "[2001:2::1]:1",
		"/ip4/192.0.2.1/tcp/4717":         "",
		"/ip4/192.0.2.1":                  "",
		"/dns4/example.org/udp/1/quic-v1": "",
	} {
		got, ok := udpAddr(multiaddr.StringCast(text))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("udpAddr(%s) = %s, %v, want %q", text, got, ok, want)
		}
	}
}

func TestVerdictCountsMembersOnly(t *testing.T) {
	o := newOutside()
	if got := o.verdict(func(peer.ID) bool { return true }, nil); got != api.NATUnknown {
		t.Errorf("verdict without observers: %s, want %s", got, api.NATUnknown)
	}
}
