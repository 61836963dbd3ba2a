package testnet

import (
	"fmt"
	"net/netip"
	"regexp"
)

// NAT is what stands between a site and the internet.
type NAT string

// The kinds of NAT.
const (
	// Public: no translation, devices have public addresses.
	Public NAT = "public"
	// Cone keeps the source port, whatever the destination, and lets in only
	// answers: hole punching works. What most home routers do.
	Cone NAT = "cone"
	// Symmetric draws a new source port for each destination: hole punching
	// fails, traffic has to be relayed. Common on mobile and company networks.
	Symmetric NAT = "symmetric"
)

// Site is a place with one connection to the internet. Its name is the zone of
// the nodes that run there.
type Site struct {
	Name    string   `json:"name"`
	NAT     NAT      `json:"nat"`
	Uplink  string   `json:"uplink,omitempty"` // bandwidth for tc, "20mbit"; "" = as fast as the machine
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
var (
	internetPrefix  = netip.MustParsePrefix("192.0.0.0/24")
	internetGateway = netip.MustParseAddr("192.0.0.64")
)

const (
	maxPublic     = 190 // addresses .65 … .254
	maxSites      = 200
	maxLANDevices = 200
)

// Longer names do not fit into the name of a network interface.
var nameRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

// machine is one namespace of a laid-out topology.
type machine struct {
	name    string
	site    string
	router  bool
	nat     NAT
	uplink  string // bandwidth of a router
	addr    netip.Prefix
	gateway netip.Addr
	lan     netip.Prefix // of a router: its own address on the inside
	ns      string       // network namespace
	bridge  string       // network namespace of the bridge it is plugged into
	mac     string
}

// layout gives every machine its addresses. The order of the topology decides,
// so that the same topology always looks the same.
func (t Topology) layout(id string) ([]machine, error) {
	if len(t.Sites) == 0 || len(t.Sites) > maxSites {
		return nil, fmt.Errorf("lay out topology: %d sites, want 1 to %d", len(t.Sites), maxSites)
	}
	seen := map[string]bool{internetName: true}
	claim := func(name string) error {
		if !nameRE.MatchString(name) {
			return fmt.Errorf("lay out topology: %q is no name: up to 15 of a-z, 0-9 and -", name)
		}
		if seen[name] {
			return fmt.Errorf("lay out topology: the name %q is used twice", name)
		}
		seen[name] = true
		return nil
	}

	var machines []machine
	public := internetGateway
	add := func(m machine) {
		m.ns = nsName(id, m.name)
		m.mac = fmt.Sprintf("02:c1:00:00:00:%02x", len(machines)+1)
		machines = append(machines, m)
	}
	plugIntoInternet := func(m machine) {
		public = public.Next()
		m.addr = netip.PrefixFrom(public, internetPrefix.Bits())
		m.gateway = internetGateway
		m.bridge = nsName(id, internetName)
		add(m)
	}

	total := 0
	for i, s := range t.Sites {
		if err := claim(s.Name); err != nil {
			return nil, err
		}
		if len(s.Devices) > maxLANDevices {
			return nil, fmt.Errorf("lay out topology: site %q has %d devices, at most %d fit", s.Name, len(s.Devices), maxLANDevices)
		}
		for _, d := range s.Devices {
			if err := claim(d); err != nil {
				return nil, err
			}
		}
		switch s.NAT {
		case Public:
			total += len(s.Devices)
			for _, d := range s.Devices {
				plugIntoInternet(machine{name: d, site: s.Name, nat: Public})
			}
		case Cone, Symmetric:
			total++
			lan := netip.AddrFrom4([4]byte{192, 168, byte(10 + i), 1})
			plugIntoInternet(machine{
				name: s.Name, site: s.Name, router: true, nat: s.NAT, uplink: s.Uplink,
				lan: netip.PrefixFrom(lan, 24),
			})
			router := machines[len(machines)-1].ns
			for k, d := range s.Devices {
				a := netip.AddrFrom4([4]byte{192, 168, byte(10 + i), byte(11 + k)})
				add(machine{name: d, site: s.Name, nat: s.NAT, addr: netip.PrefixFrom(a, 24), gateway: lan, bridge: router})
			}
		default:
			return nil, fmt.Errorf("lay out topology: site %q has NAT %q, want %s, %s or %s", s.Name, s.NAT, Public, Cone, Symmetric)
		}
	}
	if total > maxPublic {
		return nil, fmt.Errorf("lay out topology: %d public addresses needed, there are %d", total, maxPublic)
	}
	return machines, nil
}

const internetName = "internet"

// nsName is also what Down recognises a lab's namespaces by.
func nsName(id, machine string) string { return "cl-testnet-" + id + "-" + machine }
