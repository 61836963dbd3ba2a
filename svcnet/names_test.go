package svcnet

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/cloudless-project/cloudless/api"
)

func namesTable() *snapshot {
	return newSnapshot(Table{Services: []api.ServiceStatus{{
		Service: api.Service{Name: "web", VIP: "10.213.1.5", Ports: []api.Port{
			{Name: "http", Port: 80}, {Port: 53, Protocol: "udp"},
		}},
		Endpoints: []api.Endpoint{
			{Replica: "web.0.1", Address: "10.214.1.3", Ready: true},
			{Replica: "web.0.2", Address: "10.214.2.3"},
			{Replica: "web.1.1", Address: "10.214.2.4"},
			{Replica: "web.1.2", Address: "10.214.2.5"},
			{Replica: "web.2.1"}, // not started: no address
		},
	}}}, DefaultVIPRange)
}

func TestAnswers(t *testing.T) {
	r := newResolver(newDirectory(), DefaultVIPRange, newUpstream(nil, "/nonexistent", nil), testMetrics(t))
	r.dir.store(namesTable())
	for _, c := range []struct {
		name string
		kind uint16
		want string // answers without names, or the code when there is none
	}{
		{"web.cloudless.internal.", dns.TypeA, "10.213.1.5"},
		{"WeB.CloudLess.Internal.", dns.TypeA, "10.213.1.5"},
		{"web.cloudless.internal.", dns.TypeAAAA, "NOERROR"},
		{"web.cloudless.internal.", dns.TypeMX, "NOERROR"},
		{"nope.cloudless.internal.", dns.TypeA, "NXDOMAIN"},
		{"nope.cloudless.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{"a.b.c.d.web.cloudless.internal.", dns.TypeA, "NXDOMAIN"},
		{"cloudless.internal.", dns.TypeA, "NOERROR"},
		{"cloudless.internal.", dns.TypeSOA, "ns.cloudless.internal. hostmaster.cloudless.internal. 1 5 5 5 5"},
		{"0.web.cloudless.internal.", dns.TypeA, "10.214.1.3"},       // the ready generation
		{"1.web.cloudless.internal.", dns.TypeA, "10.214.2.5"},       // none is ready: the younger
		{"web-1-1.web.cloudless.internal.", dns.TypeA, "10.214.2.4"}, // exactly that one
		{"2.web.cloudless.internal.", dns.TypeA, "NXDOMAIN"},
		{"web-9-9.web.cloudless.internal.", dns.TypeA, "NXDOMAIN"},
		{"_http._tcp.web.cloudless.internal.", dns.TypeSRV, "0 0 80 web.cloudless.internal."},
		{"_53._udp.web.cloudless.internal.", dns.TypeSRV, "0 0 53 web.cloudless.internal."},
		{"_http._udp.web.cloudless.internal.", dns.TypeSRV, "NXDOMAIN"},
		{"_tcp.web.cloudless.internal.", dns.TypeA, "NOERROR"},
		{"5.1.213.10.in-addr.arpa.", dns.TypePTR, "web.cloudless.internal."},
		{"6.1.213.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"6.1.99.10.in-addr.arpa.", dns.TypePTR, "REFUSED"}, // not ours, and no upstream
		{"notcloudless.internal.", dns.TypeA, "REFUSED"},
		{".", dns.TypeNS, "REFUSED"},
	} {
		req := new(dns.Msg).SetQuestion(c.name, c.kind)
		resp, _ := r.answer(t.Context(), req, false)
		if got := text(resp); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
		if resp.Id != req.Id || !resp.Response {
			t.Errorf("%s: not a response to the request", c.name)
		}
		for _, rr := range resp.Answer {
			if rr.Header().Ttl != answerTTL {
				t.Errorf("%s: TTL %d", c.name, rr.Header().Ttl)
			}
		}
		// How long a negative answer may be kept stands in the SOA.
		if local := c.want != "REFUSED"; local && len(resp.Answer) == 0 && len(resp.Ns) != 1 {
			t.Errorf("%s: negative answer without SOA", c.name)
		}
	}
}

// text renders the answers of a response, or its code.
func text(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.TrimSpace(strings.TrimPrefix(rr.String(), rr.Header().String())))
	}
	if len(out) == 0 {
		return dns.RcodeToString[m.Rcode]
	}
	return strings.Join(out, ", ")
}

func TestOddQuestions(t *testing.T) {
	r := newResolver(newDirectory(), DefaultVIPRange, newUpstream(nil, "/nonexistent", nil), testMetrics(t))
	r.dir.store(namesTable())
	chaos := new(dns.Msg).SetQuestion("web.cloudless.internal.", dns.TypeA)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	if resp, _ := r.answer(t.Context(), chaos, false); resp.Rcode != dns.RcodeRefused {
		t.Errorf("class CHAOS: %s", dns.RcodeToString[resp.Rcode])
	}
	update := new(dns.Msg).SetUpdate("cloudless.internal.")
	if resp, _ := r.answer(t.Context(), update, false); resp.Rcode != dns.RcodeNotImplemented {
		t.Errorf("update: %s", dns.RcodeToString[resp.Rcode])
	}
	answer := new(dns.Msg).SetQuestion("web.cloudless.internal.", dns.TypeA)
	answer.Response = true
	if resp, _ := r.answer(t.Context(), answer, false); resp != nil {
		t.Error("an answer was answered")
	}
}

// Whatever arrives, a question about the zone gets an answer that can be sent.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.cloudless.internal.", "_http._tcp.web.cloudless.internal.", "5.1.213.10.in-addr.arpa.", "."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(dns.Msg)
		if req.Unpack(b) != nil {
			return
		}
		r := newResolver(newDirectory(), DefaultVIPRange, newUpstream(nil, "/nonexistent", nil), testMetrics(t))
		r.dir.store(namesTable())
		resp, _ := r.answer(t.Context(), req, false)
		if resp == nil {
			return
		}
		resp.Truncate(clientSize(req))
		if _, err := resp.Pack(); err != nil {
			t.Errorf("answer to %v cannot be sent: %v", req, err)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	table := Table{}
	for i := range 1000 {
		table.Services = append(table.Services, api.ServiceStatus{Service: api.Service{
			Name: fmt.Sprintf("service-%d", i), VIP: netip.AddrFrom4([4]byte{10, 213, byte(1 + i/256), byte(i)}).String(),
		}})
	}
	r := newResolver(newDirectory(), DefaultVIPRange, newUpstream(nil, "/nonexistent", nil), testMetrics(b))
	r.dir.store(newSnapshot(table, DefaultVIPRange))
	req := new(dns.Msg).SetQuestion("service-500.cloudless.internal.", dns.TypeA)
	for b.Loop() {
		if resp, _ := r.answer(b.Context(), req, false); len(resp.Answer) != 1 {
			b.Fatal(resp)
		}
	}
}

func testMetrics(t testing.TB) *metrics {
	t.Helper()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
