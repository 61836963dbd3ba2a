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
// together. Its addresses are gateways: between the lab's public ranges and to
// the homes' IPv6 networks, and to nowhere else.
func buildInternet(ctx context.Context, id string) error {
	ns := nsName(id, internetName)
	if err := run(ctx, "", "ip", "netns", "add", ns); err != nil {
		return err
	}
	if err := ipBatch(ctx, ns,
		"link set lo up",
		"link add br0 address 06:c1:00:00:00:00 type bridge",
		fmt.Sprintf("addr add %s/%d dev br0", internetGateway, internetPrefix.Bits()),
		fmt.Sprintf("addr add %s/%d dev br0", mappedGateway, mappedPrefix.Bits()),
		fmt.Sprintf("addr add %s/%d dev br0 nodad", internet6Gateway, internet6Prefix.Bits()),
		"link set br0 up",
	); err != nil {
		return err
	}
	return forward(ctx, ns)
}

// forward makes a namespace a router.
func forward(ctx context.Context, ns string) error {
	for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := run(ctx, "1", "nsenter", "--net=/run/netns/"+ns, "tee", "/proc/sys/net/"+file); err != nil {
			return err
		}
	}
	return nil
}

// build makes a machine's namespace and plugs it into its bridge. The bridge's
// end of the cable is named like the machine.
func (m machine) build(ctx context.Context) error {
	if err := run(ctx, "", "ip", "netns", "add", m.ns); err != nil {
		return err
	}
	if err := m.connect(ctx); err != nil {
		return err
	}
	if !m.router {
		return ipBatch(ctx, m.ns, "link set lo up")
	}
	lines := []string{
		"link set lo up",
		// Of its own: a bridge without takes the address of one of its ports,
		// and another one when that device reboots.
		fmt.Sprintf("link add br0 address %s type bridge", strings.Replace(m.mac, "02:", "06:", 1)),
	}
	if m.lan.IsValid() {
		lines = append(lines, fmt.Sprintf("addr add %s dev br0", m.lan))
	}
	if m.lan6.IsValid() {
		lines = append(lines, fmt.Sprintf("addr add %s dev br0 nodad", m.lan6))
	}
	if err := ipBatch(ctx, m.ns, append(lines, "link set br0 up")...); err != nil {
		return err
	}
	return m.buildRouter(ctx)
}

// dev is the machine's interface to the outside.
func (m machine) dev() string {
	if m.router {
		return "wan"
	}
	return "eth0"
}

// connect plugs the machine in and gives it its addresses.
func (m machine) connect(ctx context.Context) error {
	if err := ipBatch(ctx, m.bridge,
		fmt.Sprintf("link add %s type veth peer name %s netns %s address %s", m.name, m.dev(), m.ns, m.mac),
		fmt.Sprintf("link set %s master br0 up", m.name),
	); err != nil {
		return err
	}
	if err := ipBatch(ctx, m.ns, fmt.Sprintf("link set %s up", m.dev())); err != nil {
		return err
	}
	return m.configure(ctx)
}

// configure sets the addresses and routes of the outside.
func (m machine) configure(ctx context.Context) error {
	var lines []string
	if m.addr.IsValid() {
		lines = append(lines, fmt.Sprintf("addr add %s dev %s", m.addr, m.dev()), fmt.Sprintf("route replace default via %s", m.gateway))
	}
	if m.addr6.IsValid() {
		lines = append(lines, fmt.Sprintf("addr add %s dev %s nodad", m.addr6, m.dev()), fmt.Sprintf("route replace ::/0 via %s", m.gateway6))
	}
	if err := ipBatch(ctx, m.ns, lines...); err != nil || !m.lan6.IsValid() {
		return err
	}
	return run(ctx, "", "ip", "-n", m.bridge, "-6", "route", "replace", m.lan6.Masked().String(), "via", m.addr6.Addr().String())
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
	_, err := combined(cmd)
	return err
}

func combined(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
