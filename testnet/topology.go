package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// NAT is what stands between a site and the internet.
type NAT string

// The kinds of NAT.
const (
	// Public: no translation, devices have public addresses.
	Public NAT = "public"
	// FullCone keeps the source port and lets in whoever sends to it, once the
	// device has sent anything: endpoint-independent mapping and filtering. UDP
	// only; for TCP it is a Cone.
	FullCone NAT = "full-cone"
	// Cone keeps the source port, whatever the destination, and lets in only
	// answers (port-restricted): hole punching works. What most home routers do.
	Cone NAT = "cone"
	// Symmetric draws a new source port for each destination: hole punching
	// fails, traffic has to be relayed. Common on mobile and company networks.
	Symmetric NAT = "symmetric"
	// Firewall translates nothing and lets in only answers: a home with IPv6
	// and nothing else.
	Firewall NAT = "firewall"
)

// The protocols by which devices may ask their router for a port.
const (
	UPnP   = "upnp"
	NATPMP = "nat-pmp"
)

// The addresses that a site has. The zero value means IPv4 alone.
const (
	Dual = "dual" // IPv4 behind the site's NAT, and public IPv6 behind a firewall
	IPv6 = "v6"   // no IPv4; the site's NAT is Firewall, or Public
)

// Site is a place with one connection to the internet. Its name is the zone of
// the nodes that run there.
type Site struct {
	Name    string   `json:"name"`
	NAT     NAT      `json:"nat"`
	Uplink  string   `json:"uplink,omitempty"`  // bandwidth for tc, "20mbit"; "" = as fast as the machine
	Behind  string   `json:"behind,omitempty"`  // an earlier site, the carrier, whose NAT stands in front of this one's
	IP      string   `json:"ip,omitempty"`      // "", Dual or IPv6
	Mapping string   `json:"mapping,omitempty"` // "", UPnP or NATPMP: what its router speaks; needs miniupnpd
	NoUDP   bool     `json:"noUDP,omitempty"`   // its router drops UDP, as some company networks do
	Devices []string `json:"devices"`
}

// Topology is a small internet.
type Topology struct {
	Sites []Site `json:"sites"`
}

// Homes is the topology that Cloudless is made for: a VPS, a home behind an
// ordinary router with two devices, another behind a symmetric NAT with one,
// and a laptop elsewhere that runs no node.
func Homes() Topology {
	return Topology{Sites: []Site{
		{Name: "cloud", NAT: Public, Devices: []string{"vps"}},
		{Name: "home-a", NAT: Cone, Devices: []string{"pi", "nas"}},
		{Name: "home-b", NAT: Symmetric, Devices: []string{"desk"}},
		{Name: "cafe", NAT: Cone, Devices: []string{"laptop"}},
	}}
}

// The addresses of the lab's internet. libp2p takes private and documentation
// ranges for what they are and then neither relays nor punches; this IETF
// block is reserved, so it collides with nothing, and yet counts as public.
// miniupnpd knows every special range and maps no ports in them, so its routers
// get addresses that belong to somebody: nothing leaves the lab.
var (
	internetPrefix   = netip.MustParsePrefix("192.0.0.0/24")
	internetGateway  = netip.MustParseAddr("192.0.0.64")
	mappedPrefix     = netip.MustParsePrefix("11.0.0.0/24")
	mappedGateway    = netip.MustParseAddr("11.0.0.64")
	internet6Prefix  = netip.MustParsePrefix("2001:2::/64")
	internet6Gateway = netip.MustParseAddr("2001:2::40")
)

const (
	maxPublic     = 90 // addresses .65 … .154; the rest is for new uplinks
	maxSites      = 200
	maxLANDevices = 80 // addresses .11 … .90; the rest is for visitors
)

// Longer names do not fit into the name of a network interface.
var nameRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

// machine is one namespace of a laid-out topology.
type machine struct {
	name     string
	site     Site
	router   bool
	carrier  bool         // routers are plugged into this one
	addr     netip.Prefix // invalid without IPv4, like gateway and lan
	gateway  netip.Addr
	lan      netip.Prefix // of a router: its own address on the inside
	addr6    netip.Prefix // invalid without IPv6, like gateway6 and lan6
	gateway6 netip.Addr
	lan6     netip.Prefix
	lab      string
	ns       string // network namespace
	bridge   string // network namespace of the bridge it is plugged into
	mac      string
}

// ip is the address by which the machine is spoken of.
func (m machine) ip() netip.Addr {
	if m.addr.IsValid() {
		return m.addr.Addr()
	}
	return m.addr6.Addr()
}

// plan is a topology while it is laid out.
type plan struct {
	id       string
	seen     map[string]bool
	machines []machine
	public   int // addresses of the internet in use
}

// layout gives every machine its addresses. The order of the topology decides,
// so that the same topology always looks the same.
func (t Topology) layout(id string) ([]machine, error) {
	if len(t.Sites) == 0 || len(t.Sites) > maxSites {
		return nil, fmt.Errorf("lay out topology: %d sites, want 1 to %d", len(t.Sites), maxSites)
	}
	p := &plan{id: id, seen: map[string]bool{internetName: true}}
	for i, s := range t.Sites {
		if err := p.site(i, s); err != nil {
			return nil, fmt.Errorf("lay out topology: %w", err)
		}
	}
	if p.public > maxPublic {
		return nil, fmt.Errorf("lay out topology: %d public addresses needed, there are %d", p.public, maxPublic)
	}
	return p.machines, nil
}

func (p *plan) claim(name string) error {
	if !nameRE.MatchString(name) {
		return fmt.Errorf("%q is no name: up to 15 of a-z, 0-9 and -", name)
	}
	if p.seen[name] {
		return fmt.Errorf("the name %q is used twice", name)
	}
	p.seen[name] = true
	return nil
}

func (p *plan) site(i int, s Site) error {
	for _, name := range append([]string{s.Name}, s.Devices...) {
		if err := p.claim(name); err != nil {
			return err
		}
	}
	if len(s.Devices) > maxLANDevices {
		return fmt.Errorf("site %q has %d devices, at most %d fit", s.Name, len(s.Devices), maxLANDevices)
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("site %q: %w", s.Name, err)
	}
	if s.NAT == Public {
		for _, d := range s.Devices {
			p.plugIntoInternet(machine{name: d, site: s})
		}
		return nil
	}
	router := machine{name: s.Name, site: s, router: true}
	if s.IP != IPv6 {
		router.lan = lanOf(192, 168, i)
	}
	if s.IP != "" {
		router.lan6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0, 2, 7: byte(10 + i), 15: 1}), 64)
	}
	if s.Behind == "" {
		p.plugIntoInternet(router)
	} else if err := p.plugIntoCarrier(router, s.Behind); err != nil {
		return fmt.Errorf("site %q: %w", s.Name, err)
	}
	for k, d := range s.Devices {
		p.add(p.machines[p.find(s.Name)].guest(d, k))
	}
	return nil
}

func (s Site) check() error {
	switch {
	case !slices.Contains([]NAT{Public, FullCone, Cone, Symmetric, Firewall}, s.NAT):
		return fmt.Errorf("NAT %q, want %s, %s, %s, %s or %s", s.NAT, Public, FullCone, Cone, Symmetric, Firewall)
	case !slices.Contains([]string{"", Dual, IPv6}, s.IP):
		return fmt.Errorf("IP %q, want %q, %q or nothing", s.IP, Dual, IPv6)
	case !slices.Contains([]string{"", UPnP, NATPMP}, s.Mapping):
		return fmt.Errorf("mapping %q, want %q, %q or nothing", s.Mapping, UPnP, NATPMP)
	case s.NAT != Public && (s.IP == IPv6) != (s.NAT == Firewall):
		return fmt.Errorf("IPv6 alone goes with a %s, and a %s with nothing else", Firewall, Firewall)
	case s.NAT == Public && (s.Mapping != "" || s.NoUDP || s.Behind != ""):
		return errors.New("public devices have no router")
	case s.Behind != "" && (s.Mapping != "" || s.IP != ""):
		return errors.New("behind a carrier there is IPv4 alone, and no mapping of ports")
	}
	return nil
}

func lanOf(a, b byte, i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, byte(10 + i), 1}), 24)
}

func (p *plan) add(m machine) {
	m.lab, m.ns = p.id, nsName(p.id, m.name)
	m.mac = fmt.Sprintf("02:c1:00:00:%02x:%02x", (len(p.machines)+1)>>8, (len(p.machines)+1)&0xff)
	p.machines = append(p.machines, m)
}

func (p *plan) plugIntoInternet(m machine) {
	p.public++
	m.onInternet(p.public)
	m.bridge = nsName(p.id, internetName)
	p.add(m)
}

// onInternet gives a machine the n-th address of the internet.
func (m *machine) onInternet(n int) {
	if m.site.IP != IPv6 {
		prefix, gateway := internetPrefix, internetGateway
		if m.site.Mapping != "" {
			prefix, gateway = mappedPrefix, mappedGateway
		}
		m.addr, m.gateway = netip.PrefixFrom(nth(gateway, n), prefix.Bits()), gateway
	}
	if m.site.IP != "" {
		m.addr6, m.gateway6 = netip.PrefixFrom(nth(internet6Gateway, n), internet6Prefix.Bits()), internet6Gateway
	}
}

// nth returns the address n after a.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] += byte(n)
	out, _ := netip.AddrFromSlice(b)
	return out
}

// plugIntoCarrier puts a home's router on the inside of its carrier's NAT,
// where the shared address space of RFC 6598 is used.
func (p *plan) plugIntoCarrier(m machine, name string) error {
	k := p.find(name)
	if k < 0 || !p.machines[k].router || p.machines[k].site.Behind != "" || len(p.machines[k].site.Devices) > 0 {
		return fmt.Errorf("%q is no carrier: a site before it that has a NAT and no devices", name)
	}
	carrier := &p.machines[k]
	if !carrier.carrier {
		third := carrier.lan.Addr().As4()[2]
		carrier.carrier, carrier.lan = true, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, third, 1}), 24)
	}
	b := m.lan.Addr().As4()
	inside := carrier.lan.Addr().As4()
	m.addr = netip.PrefixFrom(netip.AddrFrom4([4]byte{inside[0], inside[1], inside[2], b[2]}), 24)
	m.gateway, m.bridge = carrier.lan.Addr(), carrier.ns
	p.add(m)
	return nil
}

func (p *plan) find(name string) int {
	return slices.IndexFunc(p.machines, func(m machine) bool { return m.name == name })
}

// guest is a device on the LAN of a router, the k-th one.
func (m machine) guest(name string, k int) machine {
	g := machine{name: name, site: m.site, bridge: m.ns}
	if m.lan.IsValid() {
		g.addr, g.gateway = netip.PrefixFrom(nth(m.lan.Addr(), 10+k), m.lan.Bits()), m.lan.Addr()
	}
	if m.lan6.IsValid() {
		g.addr6, g.gateway6 = netip.PrefixFrom(nth(m.lan6.Addr(), 10+k), m.lan6.Bits()), m.lan6.Addr()
	}
	return g
}

const internetName = "internet"

// nsName is also what Down recognises a lab's namespaces by.
func nsName(id, machine string) string { return "cl-testnet-" + id + "-" + machine }
