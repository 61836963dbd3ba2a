package node

import (
	"slices"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// maxInviteAddresses keeps a token short enough to be copied by hand.
const maxInviteAddresses = 8

// invite makes a token that names where the anchors are.
func (a *anchor) invite(role api.Role) (identity.Token, error) {
	var addrs []string
	for _, c := range a.contacts() {
		for _, addr := range dialable(c.Addresses) {
			if len(addrs) < maxInviteAddresses {
				addrs = append(addrs, addr+"/p2p/"+string(c.ID))
			}
		}
	}
	if len(addrs) == 0 {
		return identity.Token{}, api.Errorf(api.KindUnavailable, "no anchor has an address that a joiner could dial").
			WithHint("give the anchor's public address with --announce /ip4/ADDRESS/udp/4717/quic-v1")
	}
	return identity.NewToken(a.daemon.member.Cluster, addrs, role)
}

// dialable leaves those addresses that someone outside the mesh can use, public
// ones first: a joiner has no relay yet. Our loopback is of use to a joiner on
// this machine alone, so it counts only when there is nothing else.
func dialable(addrs []string) []string {
	var public, private, loopback []string
	for _, text := range addrs {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			continue
		}
		if _, err := a.ValueForProtocol(multiaddr.P_CIRCUIT); err == nil {
			continue
		}
		switch {
		case manet.IsIPLoopback(a):
			loopback = append(loopback, text)
		case manet.IsPublicAddr(a):
			public = append(public, text)
		default:
			private = append(private, text)
		}
	}
	if len(public)+len(private) == 0 {
		return loopback
	}
	return slices.Concat(public, private)
}
