package svcnet

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// answerTTL bounds how long a client may hold on to an answer, in seconds.
	answerTTL = 5

	zone = api.DomainSuffix + "."
)

// reply is the answer to a question about the cluster.
type reply struct {
	rcode   int
	answers []dns.RR
	extra   []dns.RR
}

// inZone reports whether a name is the cluster's to answer.
func inZone(name string) bool { return dns.IsSubDomain(zone, strings.ToLower(name)) }

// lookup answers a question inside the zone from the snapshot alone.
//
//	<service>                   A    the virtual IP
//	<slot>.<service>            A    the container in that slot, on its own node
//	<replica>.<service>         A    that generation: web.2.5 is written web-2-5
//	_<port>._<proto>.<service>  SRV
//
// A name that exists with other types gives an empty answer, a name that does
// not gives NXDOMAIN.
func (s *snapshot) lookup(q dns.Question) reply {
	name := strings.ToLower(q.Name)
	if name == zone {
		return s.apex(q)
	}
	labels := dns.SplitDomainName(strings.TrimSuffix(name, "."+zone))
	svc := s.services[labels[len(labels)-1]]
	if svc == nil {
		return reply{rcode: dns.RcodeNameError}
	}
	switch len(labels) {
	case 1:
		return addressReply(q, svc.vip)
	case 2:
		if labels[0] == "_tcp" || labels[0] == "_udp" {
			return reply{} // exists between the service and its ports
		}
		if addr, ok := svc.replicaAddr(labels[0]); ok {
			return addressReply(q, addr)
		}
	case 3:
		if port, ok := svc.findPort(labels[0], labels[1]); ok {
			return svc.srvReply(q, port)
		}
	}
	return reply{rcode: dns.RcodeNameError}
}

func (s *snapshot) apex(q dns.Question) reply {
	if q.Qtype == dns.TypeSOA {
		return reply{answers: []dns.RR{soa()}}
	}
	return reply{}
}

// reverse answers PTR questions about virtual IPs. It reports false for any
// other name.
func (s *snapshot) reverse(q dns.Question, vips netip.Prefix) (reply, bool) {
	addr, ok := reverseAddr(q.Name)
	if !ok || !vips.Contains(addr) {
		return reply{}, false
	}
	svc := s.byVIP[addr]
	if svc == nil {
		return reply{rcode: dns.RcodeNameError}, true
	}
	if q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY {
		return reply{}, true
	}
	return reply{answers: []dns.RR{&dns.PTR{Hdr: rrHeader(q.Name, dns.TypePTR), Ptr: svc.name + "." + zone}}}, true
}

// reverseAddr parses 5.1.213.10.in-addr.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(strings.ToLower(name), ".in-addr.arpa.")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 4 {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return addr, err == nil
}

// replicaAddr finds a replica by its slot or by its ID with dashes. A slot that
// has two generations, as in a rollout, gives the ready one, then the younger.
func (s *service) replicaAddr(label string) (netip.Addr, bool) {
	var best api.Endpoint
	bestGen := -1
	for _, e := range s.endpoints {
		slot, gen, ok := splitReplica(e.Replica)
		if !ok || label != slot && label != strings.ToLower(strings.ReplaceAll(string(e.Replica), ".", "-")) {
			continue
		}
		if bestGen < 0 || e.Ready && !best.Ready || e.Ready == best.Ready && gen > bestGen {
			best, bestGen = e, gen
		}
	}
	addr, err := netip.ParseAddr(best.Address)
	return addr, err == nil && addr.Is4()
}

// splitReplica takes web.2.5 apart.
func splitReplica(id api.ReplicaID) (slot string, generation int, ok bool) {
	parts := strings.Split(string(id), ".")
	if len(parts) < 3 {
		return "", 0, false
	}
	generation, err := strconv.Atoi(parts[len(parts)-1])
	return parts[len(parts)-2], generation, err == nil
}

// findPort finds a port by the labels of an SRV name; a port without a name
// goes by its number.
func (s *service) findPort(name, proto string) (api.Port, bool) {
	for _, p := range s.ports {
		if "_"+p.Protocol == proto && (name == "_"+strings.ToLower(p.Name) || name == "_"+strconv.Itoa(p.Port)) {
			return p, true
		}
	}
	return api.Port{}, false
}

func (s *service) srvReply(q dns.Question, p api.Port) reply {
	if q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY {
		return reply{}
	}
	target := s.name + "." + zone
	return reply{
		answers: []dns.RR{&dns.SRV{Hdr: rrHeader(q.Name, dns.TypeSRV), Port: uint16(p.Port), Target: target}},
		extra:   []dns.RR{&dns.A{Hdr: rrHeader(target, dns.TypeA), A: s.vip.AsSlice()}},
	}
}

func addressReply(q dns.Question, addr netip.Addr) reply {
	if q.Qtype != dns.TypeA && q.Qtype != dns.TypeANY {
		return reply{}
	}
	return reply{answers: []dns.RR{&dns.A{Hdr: rrHeader(q.Name, dns.TypeA), A: addr.AsSlice()}}}
}

func rrHeader(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: answerTTL}
}

// soa stands beside negative answers: it tells how long they may be kept.
func soa() dns.RR {
	return &dns.SOA{
		Hdr: rrHeader(zone, dns.TypeSOA), Ns: "ns." + zone, Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: answerTTL, Retry: answerTTL, Expire: answerTTL, Minttl: answerTTL,
	}
}
