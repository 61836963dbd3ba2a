package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fallbackMetric is worse than any real route's.
const fallbackMetric = 1 << 20

// setVIPs makes the namespace in which every address of the VIP range is local.
func (p *Plane) setVIPs() error {
	if p.vip == nil {
		ns, err := newNamespace(func() error { return bringUp("lo") })
		if err != nil {
			return err
		}
		p.vip = ns
	}
	addr := netip.PrefixFrom(vipGateway(p.desired.Subnet), p.desired.Subnet.Bits())
	return p.connect(p.vipLink(), p.vip, addr, func(link netlink.Link) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		return replaceRoute(netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: ipNet(p.cfg.VIPRange),
			Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
		})
	})
}

// connect makes sure that a namespace has a cable to the bridge with the given
// address, and runs finish in it.
func (p *Plane) connect(host string, ns *namespace, addr netip.Prefix, finish func(netlink.Link) error) error {
	var index, peer int
	look := func() (err error) { index, peer, _, err = insideLink(); return err }
	if err := ns.do(look); err != nil {
		return err
	}
	ok, err := joined(host, index, peer)
	if err != nil {
		return err
	}
	if !ok {
		if err := cable(host, ns, addr.Addr()); err != nil {
			return err
		}
	}
	if err := ns.do(func() error {
		link, err := netlink.LinkByName(inside)
		if err != nil {
			return fmt.Errorf("find link %s: %w", inside, err)
		}
		if mac := hardwareAddr(addr.Addr()); link.Attrs().HardwareAddr.String() != mac.String() {
			if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
				return fmt.Errorf("set hardware address: %w", err)
			}
		}
		if err := noIPv6(inside); err != nil {
			return err
		}
		if err := setAddr(link, addr); err != nil {
			return err
		}
		if err := bringUp(inside); err != nil {
			return err
		}
		return finish(link)
	}); err != nil {
		return err
	}
	return p.plug(host)
}

// setRoutes leads the host's own connections to VIPs into their namespace.
func (p *Plane) setRoutes() error {
	if err := replaceRoute(p.fallbackRoute()); err != nil {
		return err
	}
	route, err := p.vipRoute()
	if err != nil {
		return err
	}
	return replaceRoute(route)
}

// vipRoute names the gateway address as source: it is what connections of the
// host show to services.
func (p *Plane) vipRoute() (netlink.Route, error) {
	bridge, err := netlink.LinkByName(p.cfg.Bridge)
	if err != nil {
		return netlink.Route{}, fmt.Errorf("find bridge: %w", err)
	}
	return netlink.Route{
		LinkIndex: bridge.Attrs().Index, Dst: ipNet(p.cfg.VIPRange),
		Gw: ipOf(vipGateway(p.desired.Subnet)), Src: ipOf(Gateway(p.desired.Subnet)),
	}, nil
}

// fallbackRoute refuses what is meant for VIPs while their namespace is away.
func (p *Plane) fallbackRoute() netlink.Route {
	return netlink.Route{Dst: ipNet(p.cfg.VIPRange), Type: unix.RTN_UNREACHABLE, Priority: fallbackMetric}
}

func (p *Plane) delVIPRoute() error {
	if !p.desired.Subnet.IsValid() {
		return nil
	}
	route, err := p.vipRoute()
	if isNoLink(err) {
		return nil // the route went with the bridge
	}
	if err != nil {
		return err
	}
	return delRoute(route)
}

func (p *Plane) delRoutes() error {
	return errors.Join(p.delVIPRoute(), delRoute(p.fallbackRoute()))
}

func replaceRoute(r netlink.Route) error {
	if err := netlink.RouteReplace(&r); err != nil {
		return fmt.Errorf("set route to %s: %w", r.Dst, err)
	}
	return nil
}

func delRoute(r netlink.Route) error {
	if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route to %s: %w", r.Dst, err)
	}
	return nil
}

func ipOf(a netip.Addr) net.IP { return a.AsSlice() }
