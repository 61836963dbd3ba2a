//go:build linux

package testnet

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// What follows changes a lab while it runs. A lab that another process opens
// does not know of it.

// Renumber gives the router of a site, or a public device, another address on
// the internet, as a provider does over night. What its NAT remembered is gone.
func (l *Lab) Renumber(ctx context.Context, name string) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	if m.bridge != nsName(l.ID, internetName) {
		return fmt.Errorf("renumber %s: it has no address on the internet", name)
	}
	if err := run(ctx, "", "ip", "-n", m.ns, "addr", "flush", "dev", m.dev(), "scope", "global"); err != nil {
		return err
	}
	l.renumbered++
	m.onInternet(maxPublic + l.renumbered)
	if err := m.configure(ctx); err != nil {
		return err
	}
	if !m.router {
		return nil
	}
	return run(ctx, "", "nsenter", "--net=/run/netns/"+m.ns, "conntrack", "-F")
}

// Move carries a device that is on to another site, as one does with a laptop:
// the cable is pulled out here and plugged in there, and DHCP gives it an
// address.
func (l *Lab) Move(ctx context.Context, device, site string) error {
	d, ok := l.Lookup(device)
	to, err := l.machine(site)
	if !ok || err != nil || !to.router {
		return fmt.Errorf("move %s to %s: want a device and a site with a router", device, site)
	}
	if err := run(ctx, "", "ip", "-n", d.machine.bridge, "link", "del", d.machine.name); err != nil {
		return err
	}
	l.moved++
	m := to.guest(d.Name, maxLANDevices+l.moved)
	m.lab, m.ns, m.mac = d.machine.lab, d.machine.ns, d.machine.mac
	d.machine, d.Site, d.NAT, d.Addr = m, m.site.Name, m.site.NAT, m.ip()
	return m.connect(ctx)
}

// Sever makes the packets between two sites, or public devices, disappear:
// everything, or one protocol ("udp", "tcp"). Each of them still reaches the
// rest of the internet.
func (l *Lab) Sever(ctx context.Context, a, b, proto string) error {
	from, err := l.machine(a)
	if err != nil {
		return err
	}
	to, err := l.machine(b)
	if err != nil {
		return err
	}
	match := ""
	if proto != "" {
		match = "meta l4proto " + proto
	}
	var rules strings.Builder
	for _, dir := range []string{"saddr", "daddr"} {
		if to.addr.IsValid() {
			fmt.Fprintf(&rules, "\t\tip %s %s %s drop\n", dir, to.addr.Addr(), match)
		}
		for _, p := range []string{to.addr6.String(), to.lan6.Masked().String()} {
			if to.addr6.IsValid() && p != "invalid Prefix" {
				fmt.Fprintf(&rules, "\t\tip6 %s %s %s drop\n", dir, p, match)
			}
		}
	}
	return from.nft(ctx, fmt.Sprintf(`
table inet %s {
	chain in { type filter hook prerouting priority raw; policy accept;
%[2]s	}
	chain out { type filter hook postrouting priority 300; policy accept;
%[2]s	}
}
`, severName(to.name), rules.String()))
}

// Mend undoes Sever.
func (l *Lab) Mend(ctx context.Context, a, b string) error {
	from, err := l.machine(a)
	if err != nil {
		return err
	}
	to, err := l.machine(b)
	if err != nil {
		return err
	}
	return from.nft(ctx, "delete table inet "+severName(to.name)+"\n")
}

func severName(name string) string { return "sever_" + strings.ReplaceAll(name, "-", "_") }

// Mappings counts the ports that a site's router maps at devices' request.
func (l *Lab) Mappings(ctx context.Context, site string) (int, error) {
	m, err := l.machine(site)
	if err != nil {
		return 0, err
	}
	out, err := combined(exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+m.ns, "nft", "list", "chain", "inet", "mapper", "prerouting_miniupnpd"))
	return strings.Count(out, "dnat"), err
}

// machine finds a router or a device by its name.
func (l *Lab) machine(name string) (*machine, error) {
	if d, ok := l.Lookup(name); ok {
		return &d.machine, nil
	}
	for i := range l.routers {
		if l.routers[i].name == name {
			return &l.routers[i], nil
		}
	}
	return nil, fmt.Errorf("the lab has neither a device nor a home named %q", name)
}
