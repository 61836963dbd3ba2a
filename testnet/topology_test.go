//go:build linux

package testnet

import (
	"strings"
	"testing"
)

func TestLayoutOfHomes(t *testing.T) {
	machines, err := Homes().layout("x")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range machines {
		lines = append(lines, m.name+" "+m.addr.String()+" via "+m.gateway.String()+" at "+m.bridge)
	}
	want := `vps 192.0.0.65/24 via 192.0.0.64 at cl-testnet-x-internet
home-a 192.0.0.66/24 via 192.0.0.64 at cl-testnet-x-internet
pi 192.168.11.11/24 via 192.168.11.1 at cl-testnet-x-home-a
nas 192.168.11.12/24 via 192.168.11.1 at cl-testnet-x-home-a
home-b 192.0.0.67/24 via 192.0.0.64 at cl-testnet-x-internet
desk 192.168.12.11/24 via 192.168.12.1 at cl-testnet-x-home-b
cafe 192.0.0.68/24 via 192.0.0.64 at cl-testnet-x-internet
laptop 192.168.13.11/24 via 192.168.13.1 at cl-testnet-x-cafe`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("layout:\n%s\nwant:\n%s", got, want)
	}
	seen := map[string]string{}
	for _, m := range machines {
		if other, ok := seen[m.mac]; ok {
			t.Errorf("%s and %s share the address %s", m.name, other, m.mac)
		}
		seen[m.mac] = m.name
	}
}

func TestLayoutRefuses(t *testing.T) {
	tests := map[string]Topology{
		"0 sites":             {},
		"used twice":          {Sites: []Site{{Name: "a", NAT: Public, Devices: []string{"b", "b"}}}},
		"is no name":          {Sites: []Site{{Name: "a", NAT: Cone, Devices: []string{"a-name-that-is-too-long"}}}},
		`NAT "carp"`:          {Sites: []Site{{Name: "a", NAT: "carp", Devices: []string{"b"}}}},
		`the name "internet"`: {Sites: []Site{{Name: "internet", NAT: Public, Devices: []string{"b"}}}},
	}
	for want, topology := range tests {
		if _, err := topology.layout("x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("layout of %+v: error %v, want one with %q", topology, err, want)
		}
	}
}

func TestBootForgetsTheFirstStart(t *testing.T) {
	got := withoutFirstStart([]string{"--name", "vps", "--init", "--cluster", "c", "--join", "cl1.x", "--public", "yes"})
	if want := "--name vps --public yes"; strings.Join(got, " ") != want {
		t.Errorf("flags after a boot are %q, want %q", got, want)
	}
}
