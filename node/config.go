package node

import (
	"cmp"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/buildinfo"
	"github.com/cloudless-project/cloudless/raftmeta"
	"github.com/cloudless-project/cloudless/raftmeta/anchors"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// DefaultSocket is where the control API listens unless told otherwise.
const DefaultSocket = "/run/cloudless/cloudless.sock"

// Config is everything `cloudless node start` can be told.
type Config struct {
	DataDir       string
	Init          bool   // found a new cluster
	Cluster       string // its name, default "home"
	Join          string // token, "" when resuming
	Name          string // default: the host's name
	Region        string
	Zone          string
	Labels        map[string]string
	Taints        []api.Taint
	Listen        []string      // multiaddrs, default those of the mesh
	Announce      []string      // multiaddrs told to others beside those found out
	Public        string        // auto, yes or no
	Anchor        string        // auto, always or never
	RelayLimit    api.Bandwidth // relayed for others, 0: no limit
	Socket        string        // default DefaultSocket
	APIListen     string        // host:port of the optional mTLS API, "" for none
	MetricsListen string        // host:port, loopback unless mTLS is wanted
	Containerd    string        // address of a containerd socket, "" to look and else supervise one
	NoWorkloads   bool          // a pure anchor or relay
	Bandwidth     api.Bandwidth // to the internet, 0 to have it measured
	CgroupParent  string        // below which containers get their cgroups, default /cloudless
	Version       buildinfo.Info
	Anchors       anchors.Config  // how the leader chooses anchors
	Liveness      liveness.Config // how patient the leader is with silent nodes
	RaftTiming    string          // auto, lan or wan: how patient the anchors are with each other
	SnapshotEvery time.Duration   // least time between two snapshots for ordinary nodes, default 5 min

	// Raft is the patience itself, instead of one that RaftTiming names.
	Raft raftmeta.Timing

	// isolated leaves the host and its network alone, for tests: no virtual IPs,
	// no discovery on the LAN, no port mapping.
	isolated bool
}

// complete fills the defaults in and refuses what cannot work.
func (c *Config) complete() error {
	if c.DataDir == "" {
		return api.Invalid("--data-dir", "is required").WithHint("choose a directory on a durable disk, e.g. /var/lib/cloudless")
	}
	abs, err := filepath.Abs(c.DataDir)
	if err != nil {
		return api.Invalid("--data-dir", "%v", err)
	}
	c.DataDir = abs
	if c.Init && c.Join != "" {
		return api.Invalid("--init", "cannot be given together with --join").WithHint("--init founds a new cluster, --join enters an existing one")
	}
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return api.Invalid("--name", "the host has no name: %v", err)
		}
		c.Name = hostLabel(host)
	}
	if err := api.ValidateName("--name", c.Name); err != nil {
		return err
	}
	c.Socket = cmp.Or(c.Socket, DefaultSocket)
	if c.Socket, err = filepath.Abs(c.Socket); err != nil {
		return api.Invalid("--socket", "%v", err)
	}
	c.Public = cmp.Or(c.Public, "auto")
	c.Anchor = cmp.Or(c.Anchor, "auto")
	c.SnapshotEvery = cmp.Or(c.SnapshotEvery, snapshotEvery)
	c.RaftTiming = cmp.Or(c.RaftTiming, "auto")
	c.Cluster = cmp.Or(c.Cluster, "home")
	if err := api.ValidateName("--cluster", c.Cluster); c.Init && err != nil {
		return err
	}
	c.CgroupParent = cmp.Or(c.CgroupParent, "/cloudless")
	return c.check()
}

// check refuses what the anchors, or the parts of this node, would refuse
// later and less clearly.
func (c *Config) check() error {
	if !slices.Contains([]string{"auto", "yes", "no"}, c.Public) {
		return api.Invalid("--public", "%q is not auto, yes or no", c.Public)
	}
	if !slices.Contains([]string{"auto", "always", "never"}, c.Anchor) {
		return api.Invalid("--anchor", "%q is not auto, always or never", c.Anchor)
	}
	if !slices.Contains([]string{"auto", "lan", "wan"}, c.RaftTiming) {
		return api.Invalid("--raft-timing", "%q is not auto, lan or wan", c.RaftTiming)
	}
	if err := api.ValidateLabels("--label", c.Labels); err != nil {
		return err
	}
	for _, t := range c.Taints {
		if err := api.ValidateTaint("--taint", t); err != nil {
			return err
		}
	}
	for flag, addrs := range map[string][]string{"--listen": c.Listen, "--announce": c.Announce} {
		for _, a := range addrs {
			if _, err := multiaddr.NewMultiaddr(a); err != nil {
				return api.Invalid(flag, "%q is not a multiaddr: %v", a, err).WithHint("write it like /ip4/0.0.0.0/udp/4717/quic-v1")
			}
		}
	}
	for flag, address := range map[string]string{"--metrics-listen": c.MetricsListen, "--api-listen": c.APIListen} {
		if address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return api.Invalid(flag, "%v", err).WithHint("write it like 127.0.0.1:9090")
		}
	}
	return nil
}

// hostLabel turns a host name into a valid node name.
func hostLabel(host string) string {
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	host = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, host), "-")
	host = strings.TrimRight(host[:min(len(host), 63)], "-")
	return cmp.Or(host, "node")
}
