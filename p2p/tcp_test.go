package p2p

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
)

// TestWhoSeesTheListeningPort: a device dials relays from the port on which it
// listens, everybody else from another one; a public device dials nobody so.
func TestWhoSeesTheListeningPort(t *testing.T) {
	a := newAuthority(t)
	start := func(public string) *node {
		return a.start(t, func(c *Config) { c.Public, c.Listen = public, []string{"/ip4/127.0.0.1/tcp/0"} })
	}
	relay, home, other := start(PublicYes), start(PublicNo), start(PublicNo)
	claims := other.contact()
	claims.Relay = true
	relay.SetMembers([]Contact{claims})
	home.SetMembers([]Contact{relay.contact()})
	for _, tt := range []struct {
		name     string
		from, to *node
		want     bool
	}{
		{"to a relay", home, relay, true},
		{"to another home", home, other, false},
		{"from a public device to a relay", relay, other, false},
	} {
		tt.from.host.Peerstore().AddAddrs(tt.to.host.ID(), tt.to.host.Addrs(), contactTTL)
		c, err := tt.from.host.Network().DialPeer(testContext(t), tt.to.host.ID())
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		listens := slices.ContainsFunc(tt.from.host.Network().ListenAddresses(), func(l multiaddr.Multiaddr) bool { return l.Equal(c.LocalMultiaddr()) })
		if c.Stat().Direction == network.DirOutbound && listens != tt.want {
			t.Errorf("%s: dialled from %s; that is the listening port: %v, want %v", tt.name, c.LocalMultiaddr(), listens, tt.want)
		}
	}
}
