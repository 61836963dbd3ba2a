package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
)

// Sandbox is the network of one container.
type Sandbox struct {
	NetnsPath string // give it to the container runtime
	IP        netip.Addr
	Gateway   netip.Addr
}

// An ID becomes a file name.
var sandboxID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// Attach makes the network of a container, or returns the one it has. Every
// step looks before it acts, so a call that was cut short is finished by the
// next one. It fails before the first Set.
func (p *Plane) Attach(ctx context.Context, id string) (Sandbox, error) {
	if !sandboxID.MatchString(id) {
		return Sandbox{}, api.Invalid("id", "%q cannot name a container's network", id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.desired.Subnet.IsValid() {
		return Sandbox{}, fmt.Errorf("attach %s: the node's subnet is not known yet", id)
	}
	if err := p.scan(ctx); err != nil {
		return Sandbox{}, explain("attach "+id, err)
	}
	ns, err := p.openSandbox(id)
	if err != nil {
		return Sandbox{}, explain("attach "+id, err)
	}
	defer ns.Close()
	ip, had := p.leases[id]
	if !had {
		if ip, err = p.freeAddr(); err != nil {
			return Sandbox{}, err
		}
	}
	if err := p.connectSandbox(id, ns, ip); err != nil {
		return Sandbox{}, explain("attach "+id, err)
	}
	if !had {
		p.leases[id], p.last = ip, ip
	}
	return Sandbox{NetnsPath: p.path(id), IP: ip, Gateway: Gateway(p.desired.Subnet)}, nil
}

func (p *Plane) connectSandbox(id string, ns *namespace, ip netip.Addr) error {
	subnet := p.desired.Subnet
	return p.connect(linkName(portPrefix, id), ns, netip.PrefixFrom(ip, subnet.Bits()), func(link netlink.Link) error {
		index := link.Attrs().Index
		if err := replaceRoute(netlink.Route{LinkIndex: index, Gw: ipOf(Gateway(subnet)), Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))}); err != nil {
			return err
		}
		return replaceRoute(netlink.Route{LinkIndex: index, Gw: ipOf(vipGateway(subnet)), Dst: ipNet(p.cfg.VIPRange)})
	})
}

// openSandbox opens the namespace of a container, making it first when there
// is none.
func (p *Plane) openSandbox(id string) (*namespace, error) {
	path := p.path(id)
	ns, err := openNamespace(path)
	if err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNotNamespace) {
		return ns, err
	}
	if err := os.MkdirAll(p.cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory of namespaces: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("make namespace file: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("make namespace file: %w", err)
	}
	// Mounted last: a namespace that can be seen is complete.
	return newNamespace(func() error {
		if err := prepareSandbox(); err != nil {
			return err
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount namespace: %w", err)
		}
		return nil
	})
}

// prepareSandbox sets what a container without privileges could not: low ports
// and ping for everyone.
func prepareSandbox() error {
	if err := bringUp("lo"); err != nil {
		return err
	}
	if err := sysctl("net/ipv4/ip_unprivileged_port_start", "0"); err != nil {
		return err
	}
	return sysctl("net/ipv4/ping_group_range", "0 2147483647")
}

func (p *Plane) path(id string) string { return filepath.Join(p.cfg.Dir, id) }

// Detach removes the network of a container. A container that has none is fine.
func (p *Plane) Detach(_ context.Context, id string) error {
	if !sandboxID.MatchString(id) {
		return api.Invalid("id", "%q cannot name a container's network", id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.detach(id)
}

func (p *Plane) detach(id string) error {
	// The link first: it goes at once, while a namespace ends some time later.
	if err := delLink(linkName(portPrefix, id)); err != nil {
		return explain("detach "+id, err)
	}
	path := p.path(id)
	// A file may carry several mounts if two daemons ever raced.
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return explain("detach "+id, fmt.Errorf("unmount namespace: %w", err))
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach %s: %w", id, err)
	}
	delete(p.leases, id)
	return nil
}

// Sweep detaches every container that is not in keep, also those that an
// earlier process left behind.
func (p *Plane) Sweep(ctx context.Context, keep []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids, err := p.sandboxes()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sweep networks of containers: %w", err)
		}
		if !slices.Contains(keep, id) {
			p.log.Info("removing network left behind", zap.String("replica", id))
			errs = append(errs, p.detach(id))
		}
	}
	return errors.Join(append(errs, p.sweepPorts(keep))...)
}

// sweepPorts removes cables whose namespace file is gone.
func (p *Plane) sweepPorts(keep []string) error {
	bridge, err := findLink(p.cfg.Bridge)
	if bridge == nil {
		return err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	wanted := map[string]bool{p.vipLink(): true}
	for _, id := range keep {
		wanted[linkName(portPrefix, id)] = true
	}
	var errs []error
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex == bridge.Attrs().Index && l.Type() == "veth" && !wanted[a.Name] {
			errs = append(errs, delLink(a.Name))
		}
	}
	return errors.Join(errs...)
}

// sandboxes lists the containers that have a namespace file.
func (p *Plane) sandboxes() ([]string, error) {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if sandboxID.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// scan learns the addresses that containers have, once: from then on every
// change goes through this Plane.
func (p *Plane) scan(ctx context.Context) error {
	if p.leases != nil {
		return nil
	}
	ids, err := p.sandboxes()
	if err != nil {
		return err
	}
	leases := make(map[string]netip.Addr, len(ids))
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		addr, err := p.addrOf(id)
		if err != nil {
			return fmt.Errorf("read address of %s: %w", id, err)
		}
		if p.desired.Subnet.Contains(addr) {
			leases[id] = addr
		}
	}
	p.leases = leases
	return nil
}

// addrOf returns the address of a container, the zero Addr when it has none.
func (p *Plane) addrOf(id string) (netip.Addr, error) {
	ns, err := openNamespace(p.path(id))
	if errors.Is(err, errNotNamespace) || errors.Is(err, os.ErrNotExist) {
		return netip.Addr{}, nil
	}
	if err != nil {
		return netip.Addr{}, err
	}
	defer ns.Close()
	var addr netip.Prefix
	err = ns.do(func() (err error) { _, _, addr, err = insideLink(); return err })
	return addr.Addr(), err
}

// freeAddr returns the next address after the last one given out. Reuse comes
// late, so that a peer with an old table does not reach the wrong container.
func (p *Plane) freeAddr() (netip.Addr, error) {
	used := make(map[netip.Addr]bool, len(p.leases))
	for _, a := range p.leases {
		used[a] = true
	}
	subnet := p.desired.Subnet
	first := vipGateway(subnet).Next()
	a := p.last
	if !a.IsValid() {
		a = vipGateway(subnet)
	}
	for range 1 << (32 - subnet.Bits()) {
		if a = a.Next(); !subnet.Contains(a.Next()) { // a is the broadcast address
			a = first
		}
		if !used[a] {
			return a, nil
		}
	}
	return netip.Addr{}, api.Errorf(api.KindExhausted, "no free address in %s: %d containers run here", subnet, len(used))
}
