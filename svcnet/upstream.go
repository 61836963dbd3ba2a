package svcnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// How stale the list of upstream resolvers may be after the host changed networks.
	upstreamRecheck = 5 * time.Second

	// systemd-resolved's stub, and the file with the servers behind it. The stub
	// itself is passed over: it may be told to ask this node.
	resolvedStub   = "127.0.0.53"
	resolvedConfig = "/run/systemd/resolve/resolv.conf"
)

// upstream asks the host's resolvers.
type upstream struct {
	fixed []string // "host:port"; when set, no file is read
	file  string
	own   func(netip.Addr) bool // addresses of this resolver: asking them would loop

	mu      sync.Mutex
	servers []string
	checked time.Time
	stamp   time.Time // modification time of the file that was read
}

func newUpstream(fixed []string, file string, own func(netip.Addr) bool) *upstream {
	u := &upstream{file: file, own: own}
	for _, s := range fixed {
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(s, "53")
		}
		u.fixed = append(u.fixed, s)
	}
	return u
}

// exchange asks one server after the other. The last word of those that answered counts; when
// none did it is SERVFAIL, and REFUSED when there is none to ask.
func (u *upstream) exchange(ctx context.Context, req *dns.Msg, overTCP bool) *dns.Msg {
	servers := u.list(time.Now())
	if len(servers) == 0 {
		return failure(req, dns.RcodeRefused)
	}
	client := dns.Client{Net: udp, Timeout: forwardEach, UDPSize: 4096}
	if overTCP {
		client.Net = tcp
	}
	out := req.Copy()
	for _, server := range servers {
		if ctx.Err() != nil {
			break
		}
		out.Id = dns.Id()
		resp, _, err := client.ExchangeContext(ctx, out, server)
		if err != nil || !sameQuestion(out, resp) || resp.Rcode == dns.RcodeServerFailure || resp.Rcode == dns.RcodeRefused {
			continue
		}
		resp.Id = req.Id
		return resp
	}
	return failure(req, dns.RcodeServerFailure)
}

func sameQuestion(req, resp *dns.Msg) bool {
	return len(resp.Question) == 1 && strings.EqualFold(req.Question[0].Name, resp.Question[0].Name) &&
		req.Question[0].Qtype == resp.Question[0].Qtype
}

// list returns the servers to ask, reading the host's file again when it changed.
func (u *upstream) list(now time.Time) []string {
	if len(u.fixed) > 0 {
		return u.fixed
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.checked) < upstreamRecheck && !u.checked.IsZero() {
		return u.servers
	}
	u.checked = now
	info, err := os.Stat(u.file)
	if err != nil {
		u.servers = nil
		return nil
	}
	if info.ModTime().Equal(u.stamp) && u.file != resolvedConfig && len(u.servers) > 0 {
		return u.servers
	}
	u.stamp = info.ModTime()
	u.servers = u.read(u.file)
	return u.servers
}

// read returns the servers that a resolv.conf names, without this resolver.
func (u *upstream) read(file string) []string {
	conf, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil
	}
	var servers []string
	for _, s := range conf.Servers {
		if s == resolvedStub && file != resolvedConfig {
			servers = append(servers, u.read(resolvedConfig)...)
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil && !u.own(a.Unmap().WithZone("")) {
			servers = append(servers, net.JoinHostPort(s, conf.Port))
		}
	}
	return servers
}
