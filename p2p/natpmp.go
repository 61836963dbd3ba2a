package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
)

// natPMP asks a router for ports by NAT-PMP. A request cannot be cancelled; it
// ends after mapTimeout.
type natPMP struct{ gateway netip.Addr }

func (n *natPMP) client() *natpmp.Client {
	return natpmp.NewClientWithTimeout(n.gateway.AsSlice(), mapTimeout)
}

func (n *natPMP) mapPorts(ctx context.Context, sockets []socket, lifetime time.Duration) (mappings, error) {
	c := n.client()
	outside, err := c.GetExternalAddress()
	if err != nil {
		return nil, fmt.Errorf("ask router for its address: %w", err)
	}
	ports := make(mappings)
	var failed []error
	for _, s := range sockets {
		if ctx.Err() != nil {
			return ports, ctx.Err()
		}
		r, err := c.AddPortMapping(s.proto, s.port, s.port, int(lifetime/time.Second))
		if err != nil {
			failed = append(failed, fmt.Errorf("map %s port %d: %w", s.proto, s.port, err))
			continue
		}
		if r.MappedExternalPort != 0 {
			ports[s] = netip.AddrPortFrom(netip.AddrFrom4(outside.ExternalIPAddress), r.MappedExternalPort)
		}
	}
	return ports, errors.Join(failed...)
}

func (n *natPMP) unmap(ctx context.Context, ports mappings) error {
	c := n.client()
	var failed []error
	for s := range ports {
		if ctx.Err() != nil {
			break
		}
		_, err := c.AddPortMapping(s.proto, s.port, 0, 0)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
