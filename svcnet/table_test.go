package svcnet

import (
	"net/netip"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func TestSnapshotLeavesOutWhatCannotBeServed(t *testing.T) {
	service := func(name, vip string, ports ...api.Port) api.ServiceStatus {
		return api.ServiceStatus{Service: api.Service{Name: name, VIP: vip, Ports: ports}}
	}
	s := newSnapshot(Table{Services: []api.ServiceStatus{
		service("web", "10.213.1.0", api.Port{Port: 80}, api.Port{Port: 53, Protocol: "udp"}, api.Port{Port: 70000}, api.Port{Port: 1, Protocol: "sctp"}),
		service("outside", "10.99.1.0", api.Port{Port: 80}),
		service("reserved", "10.213.0.53", api.Port{Port: 80}),
		service("none", "", api.Port{Port: 80}),
		service("twice", "10.213.1.0", api.Port{Port: 80}),
	}}, DefaultVIPRange)
	want := map[listenKey]bool{
		{tcp, netip.MustParseAddrPort("10.213.1.0:80")}: true, {udp, netip.MustParseAddrPort("10.213.1.0:53")}: true,
	}
	if len(s.listeners) != len(want) {
		t.Errorf("listeners %v, want %v", s.listeners, want)
	}
	for key := range want {
		if s.listeners[key].service != "web" {
			t.Errorf("%v leads to %q, want web", key, s.listeners[key].service)
		}
	}
	if len(s.problems) != 4 {
		t.Errorf("problems: %q", s.problems)
	}
}

// In a rollout that moves a service to another port of the container, each
// replica is reached on the port of its own revision.
func TestTargetIsOfTheReplicasRevision(t *testing.T) {
	ip := netip.MustParseAddr("10.214.1.3")
	s := newSnapshot(Table{
		Services: []api.ServiceStatus{{
			Service:   api.Service{Name: "web", VIP: "10.213.1.0", Ports: []api.Port{{Port: 80, Target: 9090}}},
			Endpoints: []api.Endpoint{{Replica: "other.0.1", Node: "self"}},
		}},
		Local: map[api.ReplicaID]LocalEndpoint{
			"web.0.1":   {IP: ip, Ports: []api.Port{{Port: 80, Target: 8080}}},
			"web.0.2":   {IP: ip},
			"other.0.1": {IP: ip},
			"webs.0.1":  {IP: ip},
		},
	}, DefaultVIPRange)
	for replica, want := range map[api.ReplicaID]uint16{
		"web.0.1": 8080, "web.0.2": 9090, "other.0.1": 9090, "webs.0.1": 0, "web.7.7": 0,
	} {
		got, ok := s.target("web", replica, tcp, 80)
		if ok != (want != 0) || got.Port() != want {
			t.Errorf("%s: %s, %t; want port %d", replica, got, ok, want)
		}
	}
}
