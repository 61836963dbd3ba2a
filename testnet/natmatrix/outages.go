//go:build linux

package natmatrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
)

// relayedBy returns the relays through which a device says that it is reached.
func (n *Net) relayedBy(device string) []string {
	var out []string
	for _, a := range n.Report(device).Contact.Addresses {
		if relay, ok := relayIn(a); ok {
			out = append(out, relay)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// relayIn returns the relay that an address goes through.
func relayIn(addr string) (relay string, ok bool) {
	before, _, ok := strings.Cut(addr, "/p2p-circuit")
	return before[strings.LastIndex(before, "/")+1:], ok
}

// relayDies switches off the relay between two homes while streams are opened:
// they are answered again by another one, and everybody who was reached through
// it, a home without any traffic too, makes a reservation elsewhere.
func relayDies(ctx context.Context, n *Net) ([]Figure, error) {
	servers := []string{anchor, "vps2", "vps3"}
	for _, server := range servers[1:] {
		if err := n.Start(ctx, server, p2p.PublicYes); err != nil {
			return nil, err
		}
	}
	homes := []string{"c1", "d1", "a1"}
	if err := n.startAll(ctx, homes...); err != nil {
		return nil, err
	}
	reserved := func(device, without string) bool {
		at := n.relayedBy(device)
		return len(at) == 2 && !slices.Contains(at, without)
	}
	for _, home := range homes {
		if err := n.Await(ctx, home+" to have two relays", func() bool { return reserved(home, "") }); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(n.awaitPath(ctx, "c1", "d1", api.PathRelayed), n.flow(ctx, "c1", "d1")); err != nil {
		return nil, err
	}
	dead, ok := relayIn(n.Sees("c1", "d1").Address)
	i := slices.IndexFunc(servers, func(s string) bool { return string(n.Report(s).Contact.ID) == dead })
	if !ok || i < 0 {
		return nil, fmt.Errorf("no relay in %s", n.Sees("c1", "d1").Address)
	}
	cut := time.Now()
	if err := n.Lab.Device(servers[i]).Cut(ctx); err != nil {
		return nil, err
	}
	back, err := again(ctx, n, "c1", "d1", cut, api.PathRelayed)
	if err != nil {
		return nil, err
	}
	figures := []Figure{figure("relay_dead_streams_s", back, 10)}
	for _, home := range homes {
		if err := n.Await(ctx, home+" to have another relay", func() bool { return reserved(home, dead) }); err != nil {
			return figures, fmt.Errorf("%w; it has %v", err, n.relayedBy(home))
		}
	}
	return append(figures, figure("relay_dead_reserved_s", time.Since(cut), 10)), nil
}

// serverMoves gives a server another address while the anchor is off: nobody
// tells the devices behind NATs but the members that are left.
func serverMoves(ctx context.Context, n *Net) ([]Figure, error) {
	for _, server := range []string{"vps2", "vps3"} {
		if err := n.Start(ctx, server, p2p.PublicYes); err != nil {
			return nil, err
		}
	}
	if err := n.startAll(ctx, "a1", "c1"); err != nil {
		return nil, err
	}
	others := []string{"vps3", "a1", "c1"}
	for _, home := range others[1:] {
		if err := errors.Join(n.awaitPath(ctx, home, "vps2", api.PathDirect), n.awaitPath(ctx, home, "vps3", api.PathDirect)); err != nil {
			return nil, err
		}
	}
	if err := n.awaitPath(ctx, "vps3", "vps2", api.PathDirect); err != nil {
		return nil, err
	}
	n.Hush()
	if err := n.Lab.Device(anchor).Cut(ctx); err != nil {
		return nil, err
	}
	old := n.Sees("a1", "vps2").Address
	moved := time.Now()
	if err := n.Lab.Renumber(ctx, "vps2"); err != nil {
		return nil, err
	}
	var figures []Figure
	for _, other := range others {
		err := n.Await(ctx, other+" to reach vps2 at its new address", func() bool {
			r := n.Sees(other, "vps2")
			return r.Path == api.PathDirect && !sameHost(r.Address, old)
		})
		if err != nil {
			return figures, fmt.Errorf("%w; it sees %+v", err, n.Sees(other, "vps2"))
		}
		figures = append(figures, figure("server_moved_"+other+"_s", time.Since(moved), 10))
	}
	return figures, nil
}

// sameHost reports whether two multiaddrs begin with the same address.
func sameHost(a, b string) bool {
	x, y := strings.SplitN(a, "/", 4), strings.SplitN(b, "/", 4)
	return len(x) > 2 && len(y) > 2 && x[2] == y[2]
}
