package svcnet

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/cloudless-project/cloudless/api"
)

// The protocols of a service port.
const (
	tcp = "tcp"
	udp = "udp"
)

// listenKey is a socket that a table asks for.
type listenKey struct {
	proto string
	addr  netip.AddrPort
}

// servicePort is what such a socket leads to.
type servicePort struct {
	service string
	port    api.Port // Target and Protocol filled in
}

// service is one entry of the table in the form that lookups want.
type service struct {
	name      string
	vip       netip.Addr
	ports     []api.Port
	endpoints []api.Endpoint
}

// snapshot is an indexed, read-only Table.
type snapshot struct {
	index     uint64
	subnet    netip.Prefix
	services  map[string]*service
	byVIP     map[netip.Addr]*service
	listeners map[listenKey]servicePort
	local     map[api.ReplicaID]LocalEndpoint
	byIP      map[netip.Addr]api.ReplicaID // of local replicas
	problems  []string                     // entries that were left out, for people
}

func newSnapshot(t Table, vips netip.Prefix) *snapshot {
	s := &snapshot{
		index: t.Index, subnet: t.Subnet, local: t.Local,
		services:  make(map[string]*service, len(t.Services)),
		byVIP:     make(map[netip.Addr]*service, len(t.Services)),
		listeners: make(map[listenKey]servicePort, len(t.Services)),
		byIP:      make(map[netip.Addr]api.ReplicaID, len(t.Local)),
	}
	for id, l := range t.Local {
		s.byIP[l.IP] = id
	}
	for _, st := range t.Services {
		if err := s.add(st, vips); err != nil {
			s.problems = append(s.problems, err.Error())
		}
	}
	return s
}

func (s *snapshot) add(st api.ServiceStatus, vips netip.Prefix) error {
	vip, err := netip.ParseAddr(st.VIP)
	if err != nil || !vips.Contains(vip) || reserved(vip, vips) {
		return fmt.Errorf("service %s: address %q is not a usable one of %s", st.Name, st.VIP, vips)
	}
	if other, taken := s.byVIP[vip]; taken {
		return fmt.Errorf("service %s: address %s belongs to service %s", st.Name, vip, other.name)
	}
	svc := &service{name: strings.ToLower(st.Name), vip: vip, endpoints: st.Endpoints}
	for _, p := range st.Ports {
		p = withDefaults(p)
		if !validPort(p) {
			continue // refused by the manifest's validation; never served
		}
		svc.ports = append(svc.ports, p)
		key := listenKey{p.Protocol, netip.AddrPortFrom(vip, uint16(p.Port))}
		s.listeners[key] = servicePort{svc.name, p}
	}
	s.services[svc.name] = svc
	s.byVIP[vip] = svc
	return nil
}

// reserved reports whether a is one of the first 256 addresses, which are kept
// for the node itself (DNS).
func reserved(a netip.Addr, vips netip.Prefix) bool {
	return netip.PrefixFrom(vips.Addr(), 24).Contains(a)
}

func withDefaults(p api.Port) api.Port {
	if p.Protocol == "" {
		p.Protocol = tcp
	}
	if p.Target == 0 {
		p.Target = p.Port
	}
	return p
}

func validPort(p api.Port) bool {
	return p.Port > 0 && p.Port < 1<<16 && p.Target > 0 && p.Target < 1<<16 &&
		(p.Protocol == tcp || p.Protocol == udp)
}

// target returns where a local replica of a service listens for what comes to
// one of the service's ports. The replica's own revision decides, so that old
// and new replicas of a rollout may use different ports.
func (s *snapshot) target(service string, replica api.ReplicaID, proto string, port uint16) (netip.AddrPort, bool) {
	local, here := s.local[replica]
	if !here || !s.serves(service, replica) {
		return netip.AddrPort{}, false
	}
	ports := local.Ports
	if svc := s.services[service]; len(ports) == 0 && svc != nil {
		ports = svc.ports
	}
	for _, p := range ports {
		p = withDefaults(p)
		if validPort(p) && p.Port == int(port) && p.Protocol == proto {
			return netip.AddrPortFrom(local.IP, uint16(p.Target)), true
		}
	}
	return netip.AddrPort{}, false
}

// serves reports whether a replica stands behind a service: it is of the
// workload that the service is named after, or the table lists it. The first
// needs no table, because a peer may know of a new replica a moment before this
// node's own table does.
func (s *snapshot) serves(service string, replica api.ReplicaID) bool {
	if strings.HasPrefix(string(replica), service+".") {
		return true
	}
	svc := s.services[service]
	if svc == nil {
		return false
	}
	for _, e := range svc.endpoints {
		if e.Replica == replica {
			return true
		}
	}
	return false
}

// directory holds the current snapshot and tells when it was replaced.
type directory struct {
	mu      sync.Mutex
	current *snapshot
	changed chan struct{}
}

func newDirectory() *directory {
	return &directory{current: newSnapshot(Table{}, DefaultVIPRange), changed: make(chan struct{})}
}

// load returns the snapshot and a channel that is closed when the next one comes.
func (d *directory) load() (*snapshot, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current, d.changed
}

func (d *directory) store(s *snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = s
	close(d.changed)
	d.changed = make(chan struct{})
}
