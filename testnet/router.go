//go:build linux

package testnet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func (m machine) buildRouter(ctx context.Context) error {
	if err := m.nft(ctx, m.ruleset()); err != nil {
		return err
	}
	if m.site.Uplink != "" {
		if err := run(ctx, "", "tc", "-n", m.ns, "qdisc", "add", "dev", "wan", "root", "tbf",
			"rate", m.site.Uplink, "burst", "64kb", "latency", "50ms"); err != nil {
			return err
		}
	}
	if m.site.Mapping != "" {
		if err := m.startMapper(ctx); err != nil {
			return err
		}
	}
	return forward(ctx, m.ns)
}

func (m machine) nft(ctx context.Context, rules string) error {
	return run(ctx, rules, "nsenter", "--net=/run/netns/"+m.ns, "nft", "-f", "-")
}

// ruleset is the nftables configuration of a home router. Unsolicited packets
// must be dropped before they are confirmed in conntrack: otherwise a stray
// packet of a hole punch takes the tuple that the answer needs, and no punch
// ever succeeds. IPv6 is filtered and never translated.
func (m machine) ruleset() string {
	translate, extra := "masquerade", ""
	switch m.site.NAT {
	case Symmetric:
		translate = "masquerade fully-random"
	case FullCone:
		extra = fullCone
	}
	block := ""
	if m.site.NoUDP {
		block = "meta l4proto udp drop"
	}
	return fmt.Sprintf(`
table inet home {
	%s
	chain translate {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" meta nfproto ipv4 %s
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		%s
		iifname "br0" accept
		ct state established,related accept
		ct status dnat accept
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "br0", "lo" } accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		ct state established,related accept
		iifname "wan" ct state new drop
	}
}
`, extra, translate, block)
}

// fullCone makes the mapping of a device's port valid for everybody: the packet
// that goes out writes it into a map, and what comes in is looked up there. The
// masquerade above keeps the port, so that the two agree; two devices of one
// home must not use the same.
const fullCone = `
	map inside {
		type inet_service : ipv4_addr . inet_service
		flags dynamic,timeout
		timeout 5m
		size 65535
	}
	chain remember {
		type filter hook forward priority filter - 5; policy accept;
		iifname "br0" oifname "wan" meta nfproto ipv4 meta l4proto udp update @inside { udp sport : ip saddr . udp sport }
	}
	chain inbound {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "wan" meta nfproto ipv4 meta l4proto udp dnat ip to udp dport map @inside
	}`

// mapperChains are where miniupnpd writes its mappings.
const mapperChains = `
table inet mapper {
	chain forward {
		type filter hook forward priority filter; policy accept;
		jump miniupnpd
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump prerouting_miniupnpd
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		jump postrouting_miniupnpd
	}
	chain miniupnpd { }
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
}
`

// startMapper runs miniupnpd in the router, in the lab's cgroup, with which it
// ends.
func (m machine) startMapper(ctx context.Context) error {
	if _, err := lookPath("miniupnpd"); err != nil {
		return fmt.Errorf("start a router that maps ports: install miniupnpd and miniupnpd-nftables: %w", err)
	}
	if err := m.nft(ctx, mapperChains); err != nil {
		return err
	}
	yes := map[bool]string{true: "yes", false: "no"}
	dir := filepath.Join(runDir, m.lab)
	conf := filepath.Join(dir, m.name+".conf")
	text := fmt.Sprintf(`ext_ifname=wan
listening_ip=br0
ipv6_disable=yes
enable_upnp=%s
enable_natpmp=%s
upnp_table_name=mapper
upnp_nat_table_name=mapper
secure_mode=yes
uuid=00000000-0000-4000-8000-0000000000%02x
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`, yes[m.site.Mapping == UPnP], yes[m.site.Mapping == NATPMP], m.lan.Addr().As4()[2])
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("start miniupnpd: %w", err)
	}
	cgroups, err := makeCgroups(m.lab, m.name)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, m.name+".log"))
	if err != nil {
		return fmt.Errorf("start miniupnpd: %w", err)
	}
	defer log.Close()
	const script = `
ns=$1 conf=$2 pid=$3; shift 3
for dir; do echo 0 >"$dir/cgroup.procs" || exit 1; done
exec nsenter --net="/run/netns/$ns" miniupnpd -d -f "$conf" -P "$pid"`
	pid := filepath.Join(dir, m.name+".pid")
	cmd := exec.Command("sh", append([]string{"-c", script, "mapper", m.ns, conf, pid}, cgroups...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start miniupnpd: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return awaitFile(ctx, pid, ended, log.Name())
}

// awaitFile waits until a program that is starting has written its PID.
func awaitFile(ctx context.Context, path string, ended <-chan struct{}, log string) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("start miniupnpd: it ended: %s", tail(log, 5))
		case <-ctx.Done():
			return fmt.Errorf("start miniupnpd: %w: %s", ctx.Err(), tail(log, 5))
		case <-time.After(5 * time.Millisecond):
		}
	}
}
