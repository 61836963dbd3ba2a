package dataplane

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
)

const maxLinkName = unix.IFNAMSIZ - 1

// linkName returns a link name made of a prefix and a digest of what it is for.
func linkName(prefix, of string) string {
	sum := sha256.Sum256([]byte(of))
	return prefix + hex.EncodeToString(sum[:])[:maxLinkName-1-len(prefix)]
}

// vipLink is the host's end of the cable to the VIP namespace.
func (p *Plane) vipLink() string { return linkName("clv", p.cfg.Bridge) }

// portPrefix starts the names of the host's ends of cables to containers.
const portPrefix = "clc"

// hardwareAddr derives a MAC address from an IPv4 address. So an address that
// moves to a new link keeps its MAC, and no neighbour has to forget the old one.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0xc1, b[0], b[1], b[2], b[3]}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// findLink returns nil without an error when there is no such link.
func findLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if isNoLink(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	return link, nil
}

func isNoLink(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}

func delLink(name string) error {
	link, err := findLink(name)
	if link == nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !isNoLink(err) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// setAddr makes addr the only IPv4 address of a link.
func setAddr(link netlink.Link, addr netip.Prefix) error {
	have, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	want := ipNet(addr)
	for _, a := range have {
		if a.IPNet.String() == want.String() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: want}); err != nil {
		return fmt.Errorf("set address %s: %w", want, err)
	}
	return nil
}

func (p *Plane) setBridge() error {
	gateway := Gateway(p.desired.Subnet)
	link, err := findLink(p.cfg.Bridge)
	if err != nil {
		return err
	}
	if link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = p.cfg.Bridge
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make bridge: %w", err)
		}
		if link, err = netlink.LinkByName(p.cfg.Bridge); err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
	}
	if _, ok := link.(*netlink.Bridge); !ok {
		return api.Errorf(api.KindConflict, "link %s exists and is not a bridge", p.cfg.Bridge).
			WithHint("remove it, or give the node another bridge name")
	}
	// A bridge whose address was not set takes one from its ports, and changes
	// it whenever a container comes or goes.
	if mac := hardwareAddr(gateway); link.Attrs().HardwareAddr.String() != mac.String() {
		if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("set hardware address of bridge: %w", err)
		}
	}
	if err := noIPv6(p.cfg.Bridge); err != nil {
		return err
	}
	if err := setAddr(link, netip.PrefixFrom(gateway, p.desired.Subnet.Bits())); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up bridge: %w", err)
	}
	return nil
}

// noIPv6 keeps a link free of link-local addresses, over which a container
// could otherwise talk to the host. A kernel without IPv6 has nothing to switch off.
func noIPv6(link string) error {
	name := "net/ipv6/conf/" + link + "/disable_ipv6"
	if err := sysctl(name, "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// plug makes sure that the link name is a port of the bridge, and up.
func (p *Plane) plug(name string) error {
	bridge, err := netlink.LinkByName(p.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := noIPv6(name); err != nil {
		return err
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("plug %s into the bridge: %w", name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return awaitCarrier(name)
}

// awaitCarrier waits until the kernel has noticed that both ends of a cable are
// up, which it does in the background and up to a second late. Before that the
// bridge forwards nothing, and the first connection would lose its first
// packets. Newer kernels catch up when they are asked for the link's state.
func awaitCarrier(name string) error {
	deadline := time.Now().Add(carrierTimeout)
	for {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find link %s: %w", name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("bring up %s: no carrier after %s", name, carrierTimeout)
		}
		<-time.After(carrierPoll)
	}
}

const (
	carrierTimeout = 10 * time.Second
	carrierPoll    = 2 * time.Millisecond
)

// cable lays a veth pair from the host into a namespace, where its end is
// called eth0. A host end of that name that leads elsewhere is replaced.
func cable(host string, ns *namespace, addr netip.Addr) error {
	if err := delLink(host); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = host
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: inside,
		PeerHardwareAddr: hardwareAddr(addr),
		PeerNamespace:    netlink.NsFd(int(ns.file.Fd())),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth pair %s: %w", host, err)
	}
	return nil
}

// inside is the name of a cable's end in its namespace.
const inside = "eth0"

// joined reports whether the host's link is the other end of a link inside a
// namespace, given the latter's index and that of its peer.
func joined(host string, index, peer int) (bool, error) {
	link, err := findLink(host)
	if link == nil || index == 0 {
		return false, err
	}
	return link.Attrs().ParentIndex == index && link.Attrs().Index == peer, nil
}

// insideLink finds the cable's end in the calling thread's namespace. Index 0
// means that there is none.
func insideLink() (index, peer int, addr netip.Prefix, err error) {
	link, err := findLink(inside)
	if link == nil {
		return 0, 0, addr, err
	}
	addrs, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return 0, 0, addr, fmt.Errorf("list addresses of %s: %w", inside, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			bits, _ := a.Mask.Size()
			addr = netip.PrefixFrom(ip, bits)
		}
	}
	return link.Attrs().Index, link.Attrs().ParentIndex, addr, nil
}

// bringUp brings up a link of the calling thread's namespace.
func bringUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}
