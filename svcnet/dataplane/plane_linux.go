package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// Config wires a Plane. All fields but Log are required.
type Config struct {
	Bridge   string       // at most 15 bytes
	VIPRange netip.Prefix // IPv4
	Dir      string       // where the namespaces of containers are mounted
	Log      *zap.Logger  // default none
}

// Desired is what the host should look like.
type Desired struct {
	// Subnet of the containers, IPv4, at most /29. Its first address is the
	// host's, the second that of the VIP namespace, the others the containers'.
	Subnet netip.Prefix

	// NoMasquerade leaves the containers' addresses on packets that leave the
	// host; then something else must route them.
	NoMasquerade bool
}

// Plane programs the network namespace that the process runs in.
type Plane struct {
	cfg Config
	log *zap.Logger

	mu      sync.Mutex // held over every change: they build on each other
	desired Desired
	vip     *namespace            // held by its descriptor alone: it ends with the process
	leases  map[string]netip.Addr // attached containers; nil before the first scan
	last    netip.Addr            // that a container got, so that addresses are not reused at once
}

// New returns a Plane that has not touched anything yet.
func New(cfg Config) (*Plane, error) {
	if len(cfg.Bridge) == 0 || len(cfg.Bridge) > maxLinkName {
		return nil, api.Invalid("bridge", "%q is not a link name of 1 to %d bytes", cfg.Bridge, maxLinkName)
	}
	if !cfg.VIPRange.IsValid() || !cfg.VIPRange.Addr().Is4() {
		return nil, api.Invalid("vip_range", "%s is not an IPv4 range", cfg.VIPRange)
	}
	if !filepath.IsAbs(cfg.Dir) {
		return nil, api.Invalid("state_dir", "%q is not an absolute path", cfg.Dir)
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Plane{cfg: cfg, log: cfg.Log}, nil
}

// Gateway returns the host's address in a subnet of containers.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// vipGateway returns the address of the VIP namespace in a subnet of containers.
func vipGateway(subnet netip.Prefix) netip.Addr { return Gateway(subnet).Next() }

// Set makes the host look as desired. It is idempotent, and cheap when nothing
// has to change. An error leaves some steps done; the next Set goes on.
func (p *Plane) Set(ctx context.Context, d Desired) error {
	if !d.Subnet.IsValid() || !d.Subnet.Addr().Is4() || d.Subnet.Bits() > 29 {
		return api.Invalid("subnet", "%s is not an IPv4 range of /29 or larger", d.Subnet)
	}
	d.Subnet = d.Subnet.Masked()
	if d.Subnet.Overlaps(p.cfg.VIPRange) {
		return api.Invalid("subnet", "%s overlaps the range of virtual IPs %s", d.Subnet, p.cfg.VIPRange)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.Subnet != p.desired.Subnet {
		p.leases, p.last = nil, netip.Addr{}
	}
	p.desired = d
	// The firewall stands before anything that it protects can be reached.
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"set up firewall", p.setFirewall},
		{"set up bridge " + p.cfg.Bridge, p.setBridge},
		{"set up namespace of virtual IPs", p.setVIPs},
		{"enable forwarding", func() error { return sysctl("net/ipv4/ip_forward", "1") }},
		{"set up routes", p.setRoutes},
	} {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := step.do(); err != nil {
			return explain(step.name, err)
		}
	}
	return nil
}

// InVIP runs f on a thread inside the namespace of the virtual IPs: sockets
// that f opens live there. It fails before the first Set.
func (p *Plane) InVIP(f func() error) error {
	p.mu.Lock()
	ns := p.vip
	p.mu.Unlock()
	if ns == nil {
		return errors.New("enter namespace of virtual IPs: it is not set up")
	}
	return ns.do(f)
}

// Close gives up the virtual IPs. What containers need (bridge, firewall,
// their namespaces) stays, because they outlive the process.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.vip == nil {
		return nil
	}
	// The unreachable route takes over: connections to VIPs fail at once
	// instead of leaving for the default gateway.
	err := errors.Join(p.delVIPRoute(), delLink(p.vipLink()), p.vip.Close())
	p.vip = nil
	return err
}

// Teardown removes everything that Set and Attach ever made, but not the
// host's forwarding switch, which others may rely on by now.
func (p *Plane) Teardown(ctx context.Context) error {
	err := p.Sweep(ctx, nil)
	err = errors.Join(err, p.Close())
	p.mu.Lock()
	defer p.mu.Unlock()
	err = errors.Join(err, p.delRoutes(), delLink(p.cfg.Bridge), p.delFirewall())
	if rerr := os.Remove(p.cfg.Dir); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		return explain("tear down network", err)
	}
	return nil
}
