package svcnet

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func own(a netip.Addr) bool { return DefaultVIPRange.Contains(a) }

func TestUpstreamFollowsTheFileAndLeavesItselfOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	u := newUpstream(nil, file, own)
	now := time.Unix(1000, 0)
	for i, c := range []struct {
		conf string
		want []string
	}{
		{"", nil},
		{"nameserver 10.213.0.53\n", nil},
		{"nameserver 10.213.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n", []string{"192.0.2.1:53", "[fe80::1%eth0]:53"}},
		{"nameserver ::ffff:10.213.0.53\nnameserver 9.9.9.9\n", []string{"9.9.9.9:53"}},
	} {
		if err := os.WriteFile(file, []byte(c.conf), 0o644); err != nil {
			t.Fatal(err)
		}
		stamp := time.Unix(int64(2000+i), 0)
		if err := os.Chtimes(file, stamp, stamp); err != nil {
			t.Fatal(err)
		}
		now = now.Add(upstreamRecheck)
		if got := u.list(now); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.conf, got, c.want)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := u.list(now.Add(upstreamRecheck)); got != nil {
		t.Errorf("without a file: %q", got)
	}
}

func TestForwardAsksTheNextServer(t *testing.T) {
	broken := serveDNS(t, func(m *dns.Msg) *dns.Msg { return failure(m, dns.RcodeServerFailure) })
	lying := serveDNS(t, func(m *dns.Msg) *dns.Msg {
		other := m.Copy()
		other.Question[0].Name = "evil.example."
		return new(dns.Msg).SetReply(other)
	})
	good := serveDNS(t, func(m *dns.Msg) *dns.Msg {
		r := new(dns.Msg).SetReply(m)
		r.Answer = []dns.RR{&dns.A{Hdr: rrHeader(m.Question[0].Name, dns.TypeA), A: net.IPv4(192, 0, 2, 7)}}
		return r
	})
	r := newResolver(newDirectory(), DefaultVIPRange, newUpstream([]string{broken, lying, good}, "", own), testMetrics(t))
	req := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	resp, kind := r.answer(t.Context(), req, false)
	if text(resp) != "192.0.2.7" || resp.Id != req.Id || kind != "forward" {
		t.Errorf("got %s, %s", text(resp), kind)
	}
	r.upstream = newUpstream([]string{broken}, "", own)
	if resp, _ := r.answer(t.Context(), req, false); resp.Rcode != dns.RcodeServerFailure {
		t.Errorf("all servers broken: %s", text(resp))
	}
}

func TestForwardsAreBounded(t *testing.T) {
	r := newResolver(newDirectory(), DefaultVIPRange, newUpstream([]string{"192.0.2.1"}, "", own), testMetrics(t))
	for range maxForwards {
		r.forwards <- struct{}{}
	}
	if resp, _ := r.answer(t.Context(), new(dns.Msg).SetQuestion("example.org.", dns.TypeA), false); resp.Rcode != dns.RcodeServerFailure {
		t.Errorf("over the bound: %s", text(resp))
	}
}

// serveDNS answers on a UDP port of the loopback.
func serveDNS(t *testing.T, answer func(*dns.Msg) *dns.Msg) string {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) { _ = w.WriteMsg(answer(m)) })}
	go func() { _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = pc.Close() })
	return pc.LocalAddr().String()
}
