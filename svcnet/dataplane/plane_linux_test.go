package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
)

var (
	vips   = netip.MustParsePrefix("10.213.0.0/17")
	subnet = netip.MustParsePrefix("10.214.7.0/24")
)

// host is a network namespace in which a Plane works, with a neighbour on a
// cable of its own: the host is 192.168.77.1, the neighbour 192.168.77.2.
type host struct {
	t         *testing.T
	ns        *namespace
	neighbour *namespace
	dir       string
	plane     *Plane
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)")
	}
	h := &host{t: t, dir: t.TempDir()}
	for _, ns := range []**namespace{&h.ns, &h.neighbour} {
		made, err := newNamespace(func() error { return bringUp("lo") })
		if err != nil {
			t.Fatalf("make network namespace: %v", err)
		}
		*ns = made
		t.Cleanup(func() { _ = made.Close() })
	}
	h.in(func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: inside,
			PeerNamespace: netlink.NsFd(int(h.neighbour.file.Fd())),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return address4("uplink", "192.168.77.1/24")
	})
	if err := h.neighbour.do(func() error { return address4(inside, "192.168.77.2/24") }); err != nil {
		t.Fatal(err)
	}
	h.in(func() error {
		return replaceRoute(netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: net.IPv4(192, 168, 77, 2)})
	})
	// As strict as distributions get: answers must use the way of the questions.
	h.in(func() error { return sysctl("net/ipv4/conf/all/rp_filter", "1") })
	h.restart()
	t.Cleanup(func() { h.in(func() error { return h.plane.Teardown(context.Background()) }) })
	h.set(Desired{Subnet: subnet})
	return h
}

func address4(link, addr string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	if err := setAddr(l, netip.MustParsePrefix(addr)); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// in runs f in the host's namespace; a failure ends the test.
func (h *host) in(f func() error) {
	h.t.Helper()
	if err := h.ns.do(f); err != nil {
		h.t.Fatal(err)
	}
}

// restart replaces the Plane by a new one that knows nothing, as a new process would.
func (h *host) restart() {
	h.t.Helper()
	if h.plane != nil && h.plane.vip != nil {
		_ = h.plane.vip.Close()
	}
	plane, err := New(Config{Bridge: "cl-test0", VIPRange: vips, Dir: filepath.Join(h.dir, "netns")})
	if err != nil {
		h.t.Fatal(err)
	}
	h.plane = plane
}

func (h *host) set(d Desired) {
	h.t.Helper()
	h.in(func() error { return h.plane.Set(context.Background(), d) })
}

func (h *host) attach(id string) (s Sandbox) {
	h.t.Helper()
	h.in(func() (err error) { s, err = h.plane.Attach(context.Background(), id); return err })
	return s
}

// inside returns the namespace of a container.
func (h *host) sandbox(s Sandbox) *namespace {
	h.t.Helper()
	ns, err := openNamespace(s.NetnsPath)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// listen accepts connections in a namespace and tells each client its address.
func (h *host) listen(ns *namespace, addr string) {
	h.t.Helper()
	var ln net.Listener
	if err := ns.do(func() (err error) { ln, err = net.Listen("tcp4", addr); return err }); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
			_ = c.Close()
		}
	}()
}

// connect returns the address under which a listener saw the client.
func connect(ns *namespace, addr string, patience time.Duration) (seen string, err error) {
	var c net.Conn
	if err := ns.do(func() (err error) { c, err = net.DialTimeout("tcp4", addr, patience); return err }); err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patient))
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

const (
	patient   = 30 * time.Second
	impatient = 300 * time.Millisecond // for what is dropped: no answer ever comes
)

func TestWhoReachesWhat(t *testing.T) {
	h := newHost(t)
	first, second := h.attach("one"), h.attach("two")
	one := h.sandbox(first)
	h.listen(h.sandbox(second), ":80")
	h.listen(h.neighbour, ":80")
	h.listen(h.ns, ":80")
	var vip *namespace
	h.in(func() error { vip = h.plane.vip; return nil })
	h.listen(vip, "10.213.1.1:80")
	// The neighbour has been taught a way to the containers and to the VIPs.
	if err := h.neighbour.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("169.254.169.254/32"))}); err != nil {
			return err
		}
		for _, dst := range []netip.Prefix{vips, subnet} {
			if err := replaceRoute(netlink.Route{Dst: ipNet(dst), Gw: net.IPv4(192, 168, 77, 1)}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		from   string
		ns     *namespace
		to     string
		seenAs string // "" when it must not get through
	}{
		{"container", one, "10.213.1.1:80", first.IP.String()},
		{"container", one, second.IP.String() + ":80", first.IP.String()},
		{"container", one, "192.168.77.2:80", "192.168.77.1"},
		{"container", one, "10.214.7.1:80", ""},
		{"container", one, "192.168.77.1:80", ""},
		{"container", one, "169.254.169.254:80", ""},
		{"host", h.ns, "169.254.169.254:80", "192.168.77.1"},
		{"host", h.ns, "10.213.1.1:80", "10.214.7.1"},
		{"host", h.ns, second.IP.String() + ":80", "10.214.7.1"},
		{"neighbour", h.neighbour, "10.213.1.1:80", ""},
		{"neighbour", h.neighbour, second.IP.String() + ":80", ""},
		{"neighbour", h.neighbour, "192.168.77.1:80", "192.168.77.2"},
	} {
		patience := patient
		if c.seenAs == "" {
			patience = impatient
		}
		seen, err := connect(c.ns, c.to, patience)
		if seen != c.seenAs || c.seenAs != "" && err != nil {
			t.Errorf("%s to %s: seen as %q, %v; want %q", c.from, c.to, seen, err, c.seenAs)
		}
	}
}

func TestSetIsIdempotentAndRepairs(t *testing.T) {
	h := newHost(t)
	one := h.sandbox(h.attach("one"))
	h.listen(h.plane.vip, "10.213.1.1:80")
	before := h.ruleset()
	h.set(Desired{Subnet: subnet})
	if after := h.ruleset(); !slices.Equal(before, after) {
		t.Errorf("a Set without a change replaced rules %v by %v", before, after)
	}
	damages := map[string]func() error{
		"firewall flushed": func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			conn.FlushRuleset()
			return conn.Flush()
		},
		"cable cut":     func() error { return delLink(h.plane.vipLink()) },
		"routes gone":   h.plane.delRoutes,
		"not forwarded": func() error { return sysctl("net/ipv4/ip_forward", "0") },
		"bridge down": func() error {
			l, err := netlink.LinkByName("cl-test0")
			if err != nil {
				return err
			}
			return netlink.LinkSetDown(l)
		},
	}
	h.listen(h.neighbour, ":80")
	for name, damage := range damages {
		h.in(damage)
		h.set(Desired{Subnet: subnet})
		if seen, err := connect(one, "10.213.1.1:80", patient); err != nil {
			t.Errorf("%s: container to VIP after the repair: %q, %v", name, seen, err)
		}
		if seen, err := connect(h.ns, "10.213.1.1:80", patient); err != nil {
			t.Errorf("%s: host to VIP after the repair: %q, %v", name, seen, err)
		}
		if seen, err := connect(one, "192.168.77.2:80", patient); err != nil || seen != "192.168.77.1" {
			t.Errorf("%s: container to the outside after the repair: %q, %v", name, seen, err)
		}
	}
}

// ruleset returns the handles of all rules.
func (h *host) ruleset() (handles []uint64) {
	h.t.Helper()
	h.in(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
		for _, c := range h.plane.firewall() {
			rules, err := conn.GetRules(table, &nftables.Chain{Name: c.chain.Name, Table: table})
			if err != nil {
				return err
			}
			for _, r := range rules {
				handles = append(handles, r.Handle)
			}
		}
		return nil
	})
	if len(handles) == 0 {
		h.t.Fatal("there are no rules")
	}
	return handles
}

func TestOtherTablesAreLeftAlone(t *testing.T) {
	h := newHost(t)
	h.in(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamilyINet})
		return conn.Flush()
	})
	h.set(Desired{Subnet: subnet, NoMasquerade: true})
	h.in(func() error { return h.plane.Teardown(context.Background()) })
	h.in(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		if err != nil {
			return err
		}
		if len(tables) != 1 || tables[0].Name != "theirs" {
			return fmt.Errorf("%d tables after teardown", len(tables))
		}
		routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Dst: ipNet(vips)}, netlink.RT_FILTER_DST)
		if err != nil || len(routes) > 0 {
			return fmt.Errorf("routes to VIPs after teardown: %v, %w", routes, err)
		}
		links, err := netlink.LinkList()
		if err != nil || len(links) != 2 { // lo and uplink
			return fmt.Errorf("%d links after teardown, %w", len(links), err)
		}
		return nil
	})
}

func TestAttachIsIdempotentAndSurvivesRestarts(t *testing.T) {
	h := newHost(t)
	one, two := h.attach("one"), h.attach("two")
	if one.IP == two.IP || one.Gateway != Gateway(subnet) || !subnet.Contains(one.IP) {
		t.Fatalf("one %+v, two %+v", one, two)
	}
	for i := range 2 {
		if again := h.attach("one"); again != one {
			t.Errorf("attach again: %+v, was %+v", again, one)
		}
		if i == 0 {
			h.restart()
			h.set(Desired{Subnet: subnet})
		}
	}
	if three := h.attach("three"); three.IP == one.IP || three.IP == two.IP {
		t.Errorf("a new process gave %s out twice", three.IP)
	}
}

// Whatever step a crash left an attachment at, the next attach finishes it.
func TestAttachFinishesWhatACrashLeft(t *testing.T) {
	crashes := map[string]func(h *host, id string) error{
		"file without a namespace": func(h *host, id string) error {
			if err := os.MkdirAll(h.plane.cfg.Dir, 0o755); err != nil {
				return err
			}
			return os.WriteFile(h.plane.path(id), nil, 0o444)
		},
		"namespace without a cable": func(h *host, id string) error {
			ns, err := h.plane.openSandbox(id)
			if err != nil {
				return err
			}
			return ns.Close()
		},
		"cable without an address": func(h *host, id string) error {
			ns, err := h.plane.openSandbox(id)
			if err != nil {
				return err
			}
			defer ns.Close()
			return cable(linkName(portPrefix, id), ns, netip.MustParseAddr("10.214.7.99"))
		},
		"cable of an earlier namespace": func(h *host, id string) error {
			lost, err := newNamespace(func() error { return nil })
			if err != nil {
				return err
			}
			h.t.Cleanup(func() { _ = lost.Close() })
			return cable(linkName(portPrefix, id), lost, netip.MustParseAddr("10.214.7.99"))
		},
	}
	for name, crash := range crashes {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.in(func() error { return crash(h, "one") })
			h.restart()
			h.set(Desired{Subnet: subnet})
			s := h.attach("one")
			h.listen(h.sandbox(s), ":80")
			if seen, err := connect(h.ns, s.IP.String()+":80", patient); err != nil {
				t.Errorf("host to container: %q, %v", seen, err)
			}
		})
	}
}

// The bridge forwards at once; a cable that the kernel has not noticed yet
// would swallow the first packets and cost the first connection a second.
func TestAttachReturnsWhenTheCableCarries(t *testing.T) {
	h := newHost(t)
	for i := range 10 {
		id := fmt.Sprintf("c%d", i)
		h.attach(id)
		h.in(func() error {
			links, err := netlink.LinkList() // a dump does not make the kernel catch up
			if err != nil {
				return err
			}
			for _, l := range links {
				if l.Attrs().Name == linkName(portPrefix, id) && l.Attrs().OperState != netlink.OperUp {
					return fmt.Errorf("port of %s is %s", id, l.Attrs().OperState)
				}
			}
			return nil
		})
	}
}

func TestContainerWithoutPrivilegesHasLowPortsAndPing(t *testing.T) {
	h := newHost(t)
	ns := h.sandbox(h.attach("one"))
	for name, want := range map[string]string{
		"net/ipv4/ip_unprivileged_port_start": "0", "net/ipv4/ping_group_range": "0 2147483647",
	} {
		err := ns.do(func() error {
			got, err := os.ReadFile("/proc/sys/" + name)
			if have := strings.Join(strings.Fields(string(got)), " "); have != want {
				return fmt.Errorf("%s is %q, want %q, %w", name, have, want, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestDetachAndSweepLeaveNothing(t *testing.T) {
	h := newHost(t)
	for _, id := range []string{"one", "two", "three"} {
		h.attach(id)
	}
	ctx := context.Background()
	h.in(func() error { return errors.Join(h.plane.Detach(ctx, "one"), h.plane.Detach(ctx, "one")) })
	// "three" lost its file, as when somebody unmounted it by hand.
	if err := errors.Join(unix.Unmount(h.plane.path("three"), 0), os.Remove(h.plane.path("three"))); err != nil {
		t.Fatal(err)
	}
	h.in(func() error { return h.plane.Sweep(ctx, nil) })
	if left, err := os.ReadDir(h.plane.cfg.Dir); err != nil || len(left) > 0 {
		t.Errorf("namespaces left: %v, %v", left, err)
	}
	h.in(func() error {
		links, err := netlink.LinkList()
		if len(links) != 4 { // lo, uplink, bridge, cable of the VIPs
			return fmt.Errorf("%d links left, %w", len(links), err)
		}
		return nil
	})
}

func TestAddressesRunOutAndComeBack(t *testing.T) {
	h := newHost(t)
	h.set(Desired{Subnet: netip.MustParsePrefix("10.214.9.0/29")}) // room for 4 containers
	var last Sandbox
	for i := range 4 {
		last = h.attach(fmt.Sprintf("c%d", i))
	}
	err := h.ns.do(func() error { _, err := h.plane.Attach(context.Background(), "one-too-many"); return err })
	if api.KindOf(err) != api.KindExhausted {
		t.Errorf("fifth container: %v, want exhausted", err)
	}
	h.in(func() error { return h.plane.Detach(context.Background(), "c1") })
	if s := h.attach("one-too-many"); !s.IP.IsValid() || s.IP == last.IP {
		t.Errorf("after one left: %+v", s)
	}
}

func TestCloseRefusesConnectionsAtOnce(t *testing.T) {
	h := newHost(t)
	h.in(h.plane.Close)
	_, err := connect(h.ns, "10.213.1.1:80", patient)
	if !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("connection to a VIP that nobody holds: %v, want unreachable", err)
	}
}

func TestMissingRightsAreExplained(t *testing.T) {
	err := onThread(func() error {
		// Only this thread loses its rights, and it ends with the function.
		if err := dropCapabilities(); err != nil {
			return err
		}
		p, err := New(Config{Bridge: "cl-test1", VIPRange: vips, Dir: t.TempDir()})
		if err != nil {
			return err
		}
		return p.Set(context.Background(), Desired{Subnet: subnet})
	})
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindDenied || !strings.Contains(e.Hint, "CAP_NET_ADMIN") {
		t.Errorf("without rights: %#v", err)
	}
}

func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

func TestBadRangesAreRefused(t *testing.T) {
	p, err := New(Config{Bridge: "cl-test1", VIPRange: vips, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"10.214.0.0/30", "fd00::/64", "10.213.4.0/24"} {
		if err := p.Set(context.Background(), Desired{Subnet: netip.MustParsePrefix(s)}); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: %v, want invalid", s, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x", strings.Repeat("x", 129)} {
		if _, err := p.Attach(context.Background(), id); api.KindOf(err) != api.KindInvalid {
			t.Errorf("id %q: %v, want invalid", id, err)
		}
	}
}
