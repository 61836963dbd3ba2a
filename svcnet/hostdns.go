package svcnet

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/cloudless-project/cloudless/api"
)

// ResolverKind is how the host resolves names.
type ResolverKind string

// The kinds of host resolver.
const (
	ResolverSystemd ResolverKind = "systemd-resolved"
	ResolverFile    ResolverKind = "resolv.conf"
)

// HostResolver tells how the host resolves names, and whether names of the
// cluster work in programs of the host. Containers do not depend on it.
type HostResolver struct {
	Kind    ResolverKind `json:"kind"`
	Ready   bool         `json:"ready"`
	Message string       `json:"message"`
	Hint    string       `json:"hint,omitempty"` // what to do when not Ready
}

// resolvectlTimeout bounds one call; D-Bus may be away.
const resolvectlTimeout = 5 * time.Second

// hostDNS looks at the host's resolver and, where that takes no change of a
// file, points it at this node. Its fields stand in for the host in tests.
type hostDNS struct {
	file    string // resolv.conf
	stub    string // exists while systemd-resolved runs
	address netip.Addr
	bridge  string
	run     func(ctx context.Context, name string, args ...string) ([]byte, error)
}

func newHostDNS(cfg *Config) *hostDNS {
	return &hostDNS{
		file: cfg.ResolvConf, stub: resolvedConfig,
		address: DNSAddress(cfg.VIPRange), bridge: cfg.Bridge, run: runCommand,
	}
}

func runCommand(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, resolvectlTimeout)
	defer cancel()
	return exec.CommandContext(ctx, name, args...).CombinedOutput()
}

// detect changes nothing, and does not fail: what it cannot see is not ready.
func (h *hostDNS) detect(ctx context.Context) (HostResolver, error) {
	return h.look(ctx), nil
}

func (h *hostDNS) look(ctx context.Context) HostResolver {
	if conf, err := dns.ClientConfigFromFile(h.file); err == nil && len(conf.Servers) > 0 && conf.Servers[0] == h.address.String() {
		return HostResolver{Kind: ResolverFile, Ready: true, Message: h.file + " asks this node first"}
	}
	if !h.hasResolved() {
		return HostResolver{
			Kind:    ResolverFile,
			Message: fmt.Sprintf("programs on this host do not find *.%s; containers do", api.DomainSuffix),
			Hint:    fmt.Sprintf("put the line \"nameserver %s\" before the others in %s", h.address, h.file),
		}
	}
	out, err := h.run(ctx, "resolvectl", "domain", h.bridge)
	if err == nil && slices.Contains(strings.Fields(string(out)), "~"+api.DomainSuffix) {
		return HostResolver{Kind: ResolverSystemd, Ready: true, Message: "systemd-resolved asks this node for names of the cluster"}
	}
	return HostResolver{
		Kind:    ResolverSystemd,
		Message: fmt.Sprintf("systemd-resolved does not ask this node for *.%s", api.DomainSuffix),
		Hint: fmt.Sprintf("run: resolvectl dns %[1]s %[2]s && resolvectl domain %[1]s '~%[3]s'",
			h.bridge, h.address, api.DomainSuffix),
	}
}

// hasResolved reports whether systemd-resolved serves the host's programs.
func (h *hostDNS) hasResolved() bool {
	_, err := os.Stat(h.stub)
	return err == nil
}

// configure tells systemd-resolved, where it runs, to ask this node for names
// of the cluster and for nothing else. Without it nothing is changed.
func (h *hostDNS) configure(ctx context.Context) (HostResolver, error) {
	state := h.look(ctx)
	if state.Ready || state.Kind != ResolverSystemd {
		return state, nil
	}
	for _, args := range [][]string{
		{"dns", h.bridge, h.address.String()},
		{"domain", h.bridge, "~" + api.DomainSuffix},
		{"default-route", h.bridge, "false"},
	} {
		if out, err := h.run(ctx, "resolvectl", args...); err != nil {
			return state, fmt.Errorf("configure systemd-resolved: resolvectl %s: %w: %s",
				strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return h.look(ctx), nil
}
