package diagnosis

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/svcnet"
)

const (
	// maxClockOffset is harmless for certificates, and enough to confuse a person
	// who reads the events of two nodes.
	maxClockOffset = 30 * time.Second
	// minInterfaceMTU carries a QUIC packet of 1280 bytes.
	minInterfaceMTU = 1280 + 28
	// everyPath is the size of the cluster up to which every node is connected
	// to every other.
	everyPath = 60
)

// Judge turns what was found into checks: the same findings give the same ones.
func (f *Findings) Judge() []api.Check {
	checks := []api.Check{
		f.judgeAnchors(), f.judgeUDP(), f.judgeNAT(), f.judgePublic(), f.judgeMapping(), f.judgeMTU(),
		f.judgeClock(), f.judgeServices(), f.judgeNames(), f.judgeRelay(),
	}
	return append(checks, f.judgePaths()...)
}

func ok(name, format string, args ...any) api.Check {
	return api.Check{Name: name, Status: api.CheckOK, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, fix, format string, args ...any) api.Check {
	return api.Check{Name: name, Status: api.CheckWarn, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(name, fix, format string, args ...any) api.Check {
	return api.Check{Name: name, Status: api.CheckFail, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func (f *Findings) judgeAnchors() api.Check {
	const name = "anchors"
	total, here := 0, false
	for _, n := range f.View.Nodes {
		if n.HoldsState() {
			total++
			here = here || n.ID == f.Self
		}
	}
	reached := total - len(f.Silent)
	switch {
	case total == 0:
		return fail(name, "see whether an anchor runs and can be reached: cloudless events --for node/ANCHOR, or its log",
			"no anchor has told this node about the cluster yet")
	case reached == 0:
		return fail(name, "look after the internet connection of this node and of the anchors; what runs goes on running", "no anchor answers, of %d", total)
	case len(f.Silent) > 0:
		return warn(name, "look after "+f.names(f.Silent), "%d of %s answer; %s does not", reached, plural(total, "anchor"), f.names(f.Silent))
	case here && total == 1:
		return ok(name, "this node is the only one")
	}
	return ok(name, "%s", oneOrAll(total))
}

func oneOrAll(total int) string {
	if total == 1 {
		return "it answers"
	}
	return fmt.Sprintf("all %d answer", total)
}

func (f *Findings) judgeUDP() api.Check {
	const name = "udp"
	switch f.Mesh.UDP {
	case p2p.UDPWorks:
		return ok(name, "gets out of this network")
	case p2p.UDPBlocked:
		return fail(name, "allow outgoing UDP in the firewall or router of this network; until then everything goes over TCP, and to most homes by relay",
			"UDP is blocked: a public node answers over TCP and not over UDP")
	}
	return ok(name, "not known: there is no public node to try")
}

func (f *Findings) judgeNAT() api.Check {
	const name = "nat"
	m := &f.Mesh
	seen := "as seen by " + plural(m.Observers, "member")
	if len(m.Seen) > 0 {
		seen += ": " + sockets(m.Seen)
	}
	switch m.NAT {
	case api.NATNone:
		if m.Setting == p2p.PublicYes && !m.Own {
			return ok(name, "none: this node was started with --public yes")
		}
		return ok(name, "none: the address is this node's own, %s", seen)
	case api.NATCone:
		if len(m.Mapping.Ports) > 0 {
			return ok(name, "cone: the router lets in a port by %s, so everybody gets through", m.Mapping.By)
		}
		return ok(name, "cone: the port looks the same to everybody, so hole punching works; %s", seen)
	case api.NATSymmetric:
		return warn(name, f.routerFix(), "symmetric: the router maps each destination to another port, so hole punching cannot work; %s", seen)
	}
	return ok(name, "not known yet: seen directly over UDP by %s", plural(m.Observers, "member"))
}

func (f *Findings) judgePublic() api.Check {
	const name = "public-address"
	m := &f.Mesh
	switch {
	case m.Setting == p2p.PublicYes && m.Observers > 0 && !m.Own:
		return ok(name, "%s, which something in front of this node passes on (--public yes)", sockets(m.Seen))
	case m.Setting == p2p.PublicYes:
		return ok(name, "yes, as this node was told (--public yes)")
	case m.Public && m.Own:
		return ok(name, "this node's own: strangers can connect, and it relays for members")
	case m.Public:
		return ok(name, "strangers can connect through the router, and this node relays for members")
	case len(m.Seen) == 0:
		return ok(name, "none is known; members reach this node by relay, on the LAN and where it dials them")
	}
	return ok(name, "the router's, %s; members get in by hole punching or by relay", addresses(m.Seen))
}

func (f *Findings) judgeMapping() api.Check {
	const name = "port-mapping"
	m := &f.Mesh
	switch {
	case len(m.Mapping.Ports) > 0:
		return ok(name, "%s: %s", m.Mapping.By, strings.Join(m.Mapping.Ports, ", "))
	case m.NAT == api.NATNone:
		return ok(name, "not needed")
	case !m.Mapping.Asked:
		return ok(name, "this node was told not to ask the router")
	case m.Mapping.By != "":
		return warn(name, "set one of the two routers to bridge or access-point mode; a carrier's NAT cannot be switched off, but some give a public address when asked",
			"the router answers by %s, but has no public address itself: it is behind another one", m.Mapping.By)
	case m.NAT == api.NATCone:
		return ok(name, "none: the router answers neither UPnP nor NAT-PMP, and need not")
	case m.NAT == api.NATSymmetric:
		return warn(name, f.routerFix(), "none: the router answers neither UPnP nor NAT-PMP")
	}
	return ok(name, "none: the router answers neither UPnP nor NAT-PMP")
}

// routerFix says what to change on the router, with the numbers to type in.
func (f *Findings) routerFix() string {
	m := &f.Mesh
	router := "the router"
	if m.Interface.Gateway.IsValid() {
		router += " (" + m.Interface.Gateway.String() + ")"
	}
	to, outside := "this device", "ADDRESS"
	if m.Interface.Address.IsValid() {
		to = m.Interface.Address.String()
	}
	if len(m.Seen) > 0 {
		outside = m.Seen[0].Addr().String()
	}
	return fmt.Sprintf("switch on UPnP or NAT-PMP on %s; or forward UDP port %d and TCP port %d to %s, and start the node with --announce /ip4/%s/udp/%d/quic-v1",
		router, m.UDPPort, m.TCPPort, to, outside, m.UDPPort)
}

func (f *Findings) judgeMTU() api.Check {
	const name = "mtu"
	i, smallest := f.Mesh.Interface, 0
	for _, p := range f.Mesh.Peers {
		if p.Packet > 0 && p.Path == api.PathDirect && (smallest == 0 || p.Packet < smallest) {
			smallest = p.Packet
		}
	}
	detail := "the way out is not known"
	if i.MTU > 0 {
		detail = fmt.Sprintf("%d bytes on %s", i.MTU, i.Name)
	}
	if smallest > 0 {
		detail += fmt.Sprintf("; packets of %d bytes get through to every direct peer", smallest)
	}
	if i.MTU > 0 && i.MTU < minInterfaceMTU {
		return warn(name, fmt.Sprintf("set the MTU of %s to at least %d, better 1500", i.Name, minInterfaceMTU), "%s: QUIC's packets do not fit, everything goes over TCP", detail)
	}
	return ok(name, "%s", detail)
}

func (f *Findings) judgeClock() api.Check {
	const name = "clock"
	if len(f.Clocks) == 0 {
		return ok(name, "there is no other anchor to compare it with")
	}
	worst := slices.MaxFunc(f.Clocks, func(a, b Clock) int { return cmp.Compare(a.Ahead.Abs(), b.Ahead.Abs()) })
	way := "behind"
	if worst.Ahead < 0 {
		way = "ahead of"
	}
	detail := fmt.Sprintf("%s %s %s, give or take %s", span(worst.Ahead.Abs()), way, f.name(worst.Node), span(worst.Uncertainty))
	if worst.Ahead.Abs()-worst.Uncertainty > maxClockOffset {
		return warn(name, "set the clock by the network: timedatectl set-ntp true, or install chrony", "%s", detail)
	}
	return ok(name, "%s", detail)
}

func (f *Findings) judgeServices() api.Check {
	const name = "services"
	s := &f.Services
	switch {
	case s.Missing != "":
		return warn(name, "run the node as root if programs on this host should reach services", "no virtual addresses and names on this host: %s", s.Missing)
	case len(s.Status.Problems) > 0:
		return fail(name, "the node tries again every few seconds; its log says more", "%s", strings.Join(s.Status.Problems, "; "))
	case s.DNS != nil:
		return fail(name, "see whether a firewall on this host drops packets to "+svcnet.DefaultVIPRange.String()+"; the node repairs its own rules", "the node's resolver does not answer for %s: %v", s.Asked, s.DNS)
	}
	return ok(name, "%s open; the resolver answers for %s", plural(s.Status.Listeners, "virtual port"), s.Asked)
}

func (f *Findings) judgeNames() api.Check {
	const name = "host-names"
	s := &f.Services
	switch {
	case s.Missing != "":
		return ok(name, "no names on this host")
	case !s.Resolver.Ready:
		return warn(name, s.Resolver.Hint, "%s", s.Resolver.Message)
	}
	return ok(name, "%s", s.Resolver.Message)
}

func (f *Findings) judgeRelay() api.Check {
	u := &f.Usage
	detail := fmt.Sprintf("%s sent and %s received through relays since the start", amount(u.Sent), amount(u.Received))
	if u.Carried > 0 || f.Mesh.Public {
		detail += fmt.Sprintf("; %s carried for others", amount(u.Carried))
	}
	return ok("relay", "%s", detail)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func sockets(all []netip.AddrPort) string {
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

func addresses(all []netip.AddrPort) string {
	var texts []string
	for _, a := range all {
		if text := a.Addr().String(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, ", ")
}

// amount writes bytes for a person.
func amount(n uint64) string {
	switch {
	case n >= 10<<30:
		return strconv.FormatUint(n>>30, 10) + " GiB"
	case n >= 10<<20:
		return strconv.FormatUint(n>>20, 10) + " MiB"
	case n >= 10<<10:
		return strconv.FormatUint(n>>10, 10) + " KiB"
	}
	return strconv.FormatUint(n, 10) + " bytes"
}

// span writes a duration as coarsely as it is of use.
func span(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return max(d, time.Millisecond).Round(time.Millisecond).String()
}

func (f *Findings) name(id api.NodeID) string {
	if n, known := f.node(id); known && n.Inventory.Name != "" {
		return n.Inventory.Name
	}
	return string(id)
}

func (f *Findings) names(ids []api.NodeID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = f.name(id)
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

func (f *Findings) node(id api.NodeID) (api.Node, bool) {
	i := slices.IndexFunc(f.View.Nodes, func(n api.Node) bool { return n.ID == id })
	if i < 0 {
		return api.Node{}, false
	}
	return f.View.Nodes[i], true
}
