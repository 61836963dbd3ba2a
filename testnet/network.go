//go:build linux

package testnet

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// The lab programs the kernel through ip and nft, in batches, rather than by
// netlink: what it did can be read in a log and repeated by hand.

// buildInternet makes the namespace in which everything public is plugged
// together. Its address is a gateway that leads nowhere.
func buildInternet(ctx context.Context, id string) error {
	ns := nsName(id, internetName)
	if err := run(ctx, "", "ip", "netns", "add", ns); err != nil {
		return err
	}
	return ipBatch(ctx, ns,
		"link set lo up",
		"link add br0 address 06:c1:00:00:00:00 type bridge",
		fmt.Sprintf("addr add %s/%d dev br0", internetGateway, internetPrefix.Bits()),
		"link set br0 up",
	)
}

// build makes a machine's namespace and plugs it into its bridge. The bridge's
// end of the cable is named like the machine.
func (m machine) build(ctx context.Context) error {
	if err := run(ctx, "", "ip", "netns", "add", m.ns); err != nil {
		return err
	}
	dev := "eth0"
	if m.router {
		dev = "wan"
	}
	if err := ipBatch(ctx, m.bridge,
		fmt.Sprintf("link add %s type veth peer name %s netns %s address %s", m.name, dev, m.ns, m.mac),
		fmt.Sprintf("link set %s master br0 up", m.name),
	); err != nil {
		return err
	}
	lines := []string{
		"link set lo up",
		fmt.Sprintf("addr add %s dev %s", m.addr, dev),
		fmt.Sprintf("link set %s up", dev),
		fmt.Sprintf("route add default via %s", m.gateway),
	}
	if m.router {
		lines = append(lines,
			// Of its own: a bridge without takes the address of one of its ports,
			// and another one when that device reboots.
			fmt.Sprintf("link add br0 address %s type bridge", strings.Replace(m.mac, "02:", "06:", 1)),
			fmt.Sprintf("addr add %s dev br0", m.lan),
			"link set br0 up",
		)
	}
	if err := ipBatch(ctx, m.ns, lines...); err != nil {
		return err
	}
	if !m.router {
		return nil
	}
	return m.buildRouter(ctx)
}

func (m machine) buildRouter(ctx context.Context) error {
	if err := run(ctx, m.ruleset(), "nsenter", "--net=/run/netns/"+m.ns, "nft", "-f", "-"); err != nil {
		return err
	}
	if m.uplink != "" {
		if err := run(ctx, "", "tc", "-n", m.ns, "qdisc", "add", "dev", "wan", "root", "tbf",
			"rate", m.uplink, "burst", "64kb", "latency", "50ms"); err != nil {
			return err
		}
	}
	return run(ctx, "1", "nsenter", "--net=/run/netns/"+m.ns, "tee", "/proc/sys/net/ipv4/ip_forward")
}

// ruleset is the nftables configuration of a home router. Unsolicited packets
// must be dropped before they are confirmed in conntrack: otherwise a stray
// packet of a hole punch takes the tuple that the answer needs, and no punch
// ever succeeds.
func (m machine) ruleset() string {
	translate := "masquerade"
	if m.nat == Symmetric {
		translate = "masquerade fully-random"
	}
	return fmt.Sprintf(`
table ip home {
	chain translate {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" %s
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname "br0" accept
		ct state established,related accept
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "br0", "lo" } accept
		ct state established,related accept
		iifname "wan" ct state new drop
	}
}
`, translate)
}

// destroy removes the namespace and everything in it. The kernel takes its time
// for that, so the cable is pulled out first: its name is needed again.
func (m machine) destroy(ctx context.Context) error {
	if err := run(ctx, "", "ip", "-n", m.bridge, "link", "del", m.name); err != nil {
		return err
	}
	return run(ctx, "", "ip", "netns", "del", m.ns)
}

// plug opens or closes the bridge's port. The carrier stays, so a cut machine
// learns nothing from its kernel: packets just go nowhere, as when the fault
// lies somewhere behind the next switch.
func (m machine) plug(ctx context.Context, in bool) error {
	state := "0" // disabled
	if in {
		state = "3" // forwarding
	}
	return run(ctx, "", "bridge", "-n", m.bridge, "link", "set", "dev", m.name, "state", state)
}

func ipBatch(ctx context.Context, ns string, lines ...string) error {
	return run(ctx, strings.Join(lines, "\n")+"\n", "ip", "-n", ns, "-batch", "-")
}

// run executes a tool and folds what it said into the error.
func run(ctx context.Context, stdin, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
