package diagnosis

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/svcnet"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the transcripts in testdata")

// home is a healthy node behind an ordinary router, with an anchor and another
// home; edit makes it ill.
func home(edit func(*Findings)) *Findings {
	node := func(id, name string, nat api.NAT, anchor bool) api.Node {
		return api.Node{ID: api.NodeID(id), State: api.NodeReady, Anchor: anchor, Voter: anchor,
			Inventory: api.Inventory{Name: name, NAT: nat, Public: anchor}}
	}
	f := &Findings{
		Self: "id-pi",
		View: api.ClusterView{Nodes: []api.Node{
			node("id-desk", "desk", api.NATCone, false), node("id-nas", "nas", api.NATCone, false),
			node("id-pi", "pi", api.NATCone, false), node("id-vps", "vps", api.NATNone, true),
		}},
		Mesh: p2p.Diagnosis{
			Setting: p2p.PublicAuto, NAT: api.NATCone, Observers: 2, UDP: p2p.UDPWorks, UDPPort: 20017, TCPPort: 4717,
			Seen:      []netip.AddrPort{netip.MustParseAddrPort("192.0.2.70:20017")},
			Interface: p2p.Interface{Name: "eth0", MTU: 1500, Address: netip.MustParseAddr("192.168.1.7"), Gateway: netip.MustParseAddr("192.168.1.1")},
			Mapping:   p2p.Mapping{Asked: true},
			Peers: []p2p.PeerDiagnosis{
				{ID: "id-desk", Path: api.PathDirect, Transport: "quic", Packet: 1452},
				{ID: "id-nas", Path: api.PathLAN, Transport: "tcp"},
				{ID: "id-vps", Path: api.PathDirect, Transport: "quic", Packet: 1452},
			},
		},
		Usage:  p2p.RelayUsage{Sent: 20 << 10, Received: 3 << 30},
		Clocks: []Clock{{"id-vps", 80 * time.Millisecond, 5 * time.Millisecond}},
		Services: Services{
			Status: svcnet.Status{Listeners: 2}, Asked: "web.cloudless.internal",
			Resolver: svcnet.HostResolver{Ready: true, Message: "systemd-resolved asks this node for names of the cluster"},
		},
	}
	if edit != nil {
		edit(f)
	}
	return f
}

func relayed(f *Findings, tries int, next time.Duration) {
	f.Mesh.Peers[0] = p2p.PeerDiagnosis{ID: "id-desk", Path: api.PathRelayed, Transport: "quic", Relay: "id-vps", Tries: tries, Next: next, Resting: tries >= 12}
}

func symmetricHere(f *Findings) {
	f.Mesh.NAT = api.NATSymmetric
	f.Mesh.Seen = append(f.Mesh.Seen, netip.MustParseAddrPort("192.0.2.70:41234"))
	relayed(f, 3, 4*time.Second)
}

// patients are what can be wrong with a network.
var patients = []struct {
	name string
	edit func(*Findings)
}{
	{"healthy", nil},
	{"symmetric here", symmetricHere},
	{"symmetric on both sides", func(f *Findings) { symmetricHere(f); f.View.Nodes[0].Inventory.NAT = api.NATSymmetric }},
	{"symmetric there", func(f *Findings) { relayed(f, 3, 0); f.View.Nodes[0].Inventory.NAT = api.NATSymmetric }},
	{"UDP is blocked", func(f *Findings) {
		f.Mesh.UDP, f.Mesh.NAT, f.Mesh.Seen, f.Mesh.Observers = p2p.UDPBlocked, api.NATUnknown, nil, 0
		f.Mesh.Peers[2] = p2p.PeerDiagnosis{ID: "id-vps", Path: api.PathDirect, Transport: "tcp"}
		relayed(f, 2, time.Second)
	}},
	{"punching", func(f *Findings) { relayed(f, 1, 1500*time.Millisecond) }},
	{"punching will begin", func(f *Findings) { relayed(f, 0, 0) }},
	{"punching rests", func(f *Findings) { relayed(f, 12, 9*time.Minute) }},
	{"nobody knows what desk is behind", func(f *Findings) { relayed(f, 2, 0); f.View.Nodes[0].Inventory.NAT = api.NATUnknown }},
	{"a dead path, and none at all", func(f *Findings) {
		f.Mesh.Peers[0].Silent = true
		f.Mesh.Peers = append(f.Mesh.Peers[:1], f.Mesh.Peers[2:]...)
	}},
	{"UPnP", func(f *Findings) {
		f.Mesh.Mapping.By, f.Mesh.Mapping.Ports = "UPnP", []string{"/ip4/192.0.2.70/udp/20017/quic-v1"}
		f.Mesh.Public = true
	}},
	{"double NAT", func(f *Findings) { f.Mesh.Mapping.By = "NAT-PMP" }},
	{"not told to ask the router", func(f *Findings) { f.Mesh.Mapping.Asked = false }},
	{"public", func(f *Findings) {
		f.Mesh.NAT, f.Mesh.Own, f.Mesh.Public = api.NATNone, true, true
		f.Usage.Carried = 1 << 20
	}},
	{"public because it says so", func(f *Findings) {
		f.Mesh.NAT, f.Mesh.Setting, f.Mesh.Public, f.Mesh.Observers, f.Mesh.Seen = api.NATNone, p2p.PublicYes, true, 0, nil
	}},
	{"the clock is wrong", func(f *Findings) {
		f.Clocks = append(f.Clocks, Clock{"id-nas", -95 * time.Second, 40 * time.Millisecond})
	}},
	{"the anchor is silent", func(f *Findings) { f.Clocks, f.Silent = nil, []api.NodeID{"id-vps"} }},
	{"one of two anchors is silent", func(f *Findings) { f.View.Nodes[1].Anchor = true; f.Silent = []api.NodeID{"id-nas"} }},
	{"alone", func(f *Findings) { *f = Findings{Self: "id-pi", Services: f.Services}; f.Mesh.UDP = p2p.UDPUnknown }},
	{"a tunnel", func(f *Findings) { f.Mesh.Interface.MTU = 1280; f.Mesh.Peers[0].Packet = 1252 }},
	{"not root", func(f *Findings) { f.Services = Services{Missing: "this process is not root"} }},
	{"services do not work", func(f *Findings) { f.Services.Status.Problems = []string{"create bridge: operation not permitted"} }},
	{"the resolver is silent", func(f *Findings) { f.Services.DNS = errors.New("i/o timeout") }},
	{"the host has other resolvers", func(f *Findings) {
		f.Services.Resolver = svcnet.HostResolver{Message: "programs on this host do not find *.cloudless.internal; containers do",
			Hint: `put the line "nameserver 10.213.0.53" before the others in /etc/resolv.conf`}
	}},
}

// What the doctor says of each patient is in testdata/doctor.txt; of all but the
// healthy one only what differs. "go test ./node/diagnosis -run Doctor -rewrite" writes it anew.
func TestDoctor(t *testing.T) {
	var b strings.Builder
	healthy := map[api.Check]bool{}
	for _, p := range patients {
		fmt.Fprintf(&b, "# %s\n", p.name)
		for _, c := range home(p.edit).Judge() {
			if p.name == "healthy" {
				healthy[c] = true
			} else if healthy[c] {
				continue
			}
			fmt.Fprintf(&b, "%-4s %s: %s\n", c.Status, c.Name, c.Detail)
			if c.Fix != "" {
				fmt.Fprintf(&b, "     fix: %s\n", c.Fix)
			}
		}
		b.WriteByte('\n')
	}
	const file = "testdata/doctor.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the doctor says other things than %s:\n%s", file, b.String())
	}
}

// A check that is not ok says what to do, unless time alone will mend it.
func TestChecksHelp(t *testing.T) {
	for _, p := range patients {
		for _, c := range home(p.edit).Judge() {
			waiting := strings.HasPrefix(c.Name, "path/") && (strings.Contains(c.Detail, "hole punching") || strings.Contains(c.Detail, "silent"))
			if c.Status != api.CheckOK && c.Fix == "" && !waiting || c.Detail == "" {
				t.Errorf("%s: %+v", p.name, c)
			}
		}
	}
}
