package svcnet

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// Conn is a connection whose writing side can be closed alone. *net.TCPConn and
// the mesh's connections are such. One that also has Reset() error is reset
// when its flow breaks, so that the other end sees an error instead of an end;
// without it a cut-off answer looks complete to clients that do not check.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// FlowDialer opens the way to another node. The context bounds the opening
// only: the connection must survive its end.
type FlowDialer interface {
	DialFlow(ctx context.Context, to api.NodeID) (Conn, error)
}

// LineDialer opens a connection to another node that is one flow's alone: faster than what
// FlowDialer opens, and slower to open. The context bounds the opening only.
type LineDialer interface {
	DialLine(ctx context.Context, to api.NodeID) (Conn, error)
}

// Config wires a Network. Self and Flows are required.
type Config struct {
	Self  api.NodeID
	Flows FlowDialer
	Lines LineDialer // for flows that carry a lot; default: they stay where they begin

	// Paths tells how bytes travel to a node and how long a round trip takes.
	// It is called for every endpoint of every new connection: answer from
	// memory. Default: every other node is equally near.
	Paths func(api.NodeID) (api.Path, time.Duration)

	StateDir string       // namespaces of containers and their resolv.conf; default /run/cloudless/network
	Bridge   string       // name of the container bridge, at most 15 bytes; default cloudless0
	VIPRange netip.Prefix // default 10.213.0.0/17; the first 256 addresses are reserved

	// Upstream resolvers for names outside the cluster, "host" or "host:port".
	// Empty: those of ResolvConf (default /etc/resolv.conf), re-read when it changes.
	Upstream   []string
	ResolvConf string

	// HostDNS tells systemd-resolved, when it runs, to ask this node for names
	// of the cluster.
	HostDNS bool

	ConnectTimeout  time.Duration // from accept to an endpoint that answered; default 5s
	AttemptTimeout  time.Duration // one endpoint; default 3s
	UDPIdle         time.Duration // a UDP session without packets; default 60s
	MaxFlows        int           // accepted at VIPs, and served for peers, each; default 8192
	MaxFlowsPerPeer int           // served for one peer; default 2048
	MaxUDPSessions  int           // of all clients of this node; default 2048

	Log     *zap.Logger           // default none
	Metrics prometheus.Registerer // default none
}

// Table is everything a Network acts on. It is replaced whole.
type Table struct {
	Index    uint64              // of the state it was made from; for status and logs
	Subnet   netip.Prefix        // of this node's containers; invalid while not known
	Services []api.ServiceStatus // with the endpoints of all nodes; those on suspect nodes not Ready
	Local    map[api.ReplicaID]LocalEndpoint
}

// LocalEndpoint is a replica that runs on this node.
type LocalEndpoint struct {
	IP    netip.Addr // from Attach
	Ports []api.Port // of the revision it runs; empty means those of the service
}

// DefaultVIPRange is where services get their addresses from.
var DefaultVIPRange = netip.MustParsePrefix("10.213.0.0/17")

// DNSAddress is where the node answers DNS: the 53rd address of the VIP range.
func DNSAddress(vips netip.Prefix) netip.Addr {
	a := vips.Masked().Addr().As4()
	a[3] += 53
	return netip.AddrFrom4(a)
}

func (c *Config) setDefaults() error {
	if c.Self == "" || c.Flows == nil {
		return api.Errorf(api.KindInternal, "svcnet: Self and Flows are required")
	}
	if !c.VIPRange.IsValid() {
		c.VIPRange = DefaultVIPRange
	}
	c.VIPRange = c.VIPRange.Masked()
	if !c.VIPRange.Addr().Is4() || c.VIPRange.Bits() > 23 {
		return api.Invalid("vip_range", "%s is not an IPv4 range of /23 or larger", c.VIPRange)
	}
	if c.Paths == nil {
		c.Paths = func(api.NodeID) (api.Path, time.Duration) { return api.PathDirect, 0 }
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	orString(&c.StateDir, "/run/cloudless/network")
	orString(&c.Bridge, "cloudless0")
	orString(&c.ResolvConf, "/etc/resolv.conf")
	orPositive(&c.ConnectTimeout, 5*time.Second)
	orPositive(&c.AttemptTimeout, 3*time.Second)
	orPositive(&c.UDPIdle, time.Minute)
	orPositive(&c.MaxFlows, 8192)
	orPositive(&c.MaxFlowsPerPeer, 2048)
	orPositive(&c.MaxUDPSessions, 2048)
	return nil
}

func orString(p *string, def string) {
	if *p == "" {
		*p = def
	}
}

func orPositive[T int | time.Duration](p *T, def T) {
	if *p <= 0 {
		*p = def
	}
}
