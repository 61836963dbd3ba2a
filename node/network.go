package node

import (
	"context"
	"net/netip"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/node/control"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/svcnet"
)

// buildNetwork gives the host virtual IPs and names, whether it runs workloads
// or only uses those of others.
func (d *daemon) buildNetwork() error {
	if d.cfg.isolated {
		return nil
	}
	if missing := missingPrivileges(); missing != "" {
		d.log.Info("services have no virtual IPs and names on this host", zap.String("reason", missing))
		return nil
	}
	lines, err := d.mesh.Lines(api.RoleNode)
	if err != nil {
		return err
	}
	d.network, err = svcnet.New(svcnet.Config{
		Self:     d.self,
		Flows:    flowDialer{d.mesh},
		Lines:    lineDialer{lines},
		Paths:    d.mesh.Path,
		StateDir: d.runDir("network"),
		HostDNS:  true,
		Log:      d.log.Named("network"),
		Metrics:  d.registry,
	})
	if err != nil {
		return err
	}
	d.parts.loop("service network", d.network.Run)
	d.parts.loop("flows", d.serveFlows)
	d.parts.loop("lines", func(ctx context.Context) error { return d.serveLines(ctx, lines) })
	return nil
}

// setTable gives the service network the newest of what is known.
func (d *daemon) setTable() {
	if d.network == nil {
		return
	}
	d.tableMu.Lock() // or an older table could replace a newer one
	defer d.tableMu.Unlock()
	d.network.Set(d.table(d.views.current()))
}

// table is what the service network acts on: the services of the view, and the
// replicas that this node knows better itself.
func (d *daemon) table(v api.ClusterView) svcnet.Table {
	t := svcnet.Table{
		Index:    v.Index,
		Subnet:   d.subnet(),
		Services: control.ServicesOf(v),
		Local:    make(map[api.ReplicaID]svcnet.LocalEndpoint),
	}
	if d.worker == nil {
		return t
	}
	ports := make(map[api.ReplicaID][]api.Port)
	for _, r := range v.Replicas {
		if r.Node == d.self {
			ports[r.ID] = r.Spec.Ports
		}
	}
	for id, address := range d.worker.agent.Local() {
		if ip, err := netip.ParseAddr(address); err == nil {
			t.Local[id] = svcnet.LocalEndpoint{IP: ip, Ports: ports[id]}
		}
	}
	return t
}

// subnet is where this node's containers get their addresses from; invalid
// until the first view.
func (d *daemon) subnet() netip.Prefix {
	v := d.views.current()
	self, _ := nodeOf(&v, d.self)
	subnet, err := netip.ParsePrefix(self.Subnet)
	if err != nil {
		return netip.Prefix{}
	}
	return subnet
}

// serveFlows hands connections of peers to the service network.
func (d *daemon) serveFlows(ctx context.Context) error {
	l, err := d.mesh.Listen(api.ProtoFlow, api.RoleNode)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		flow, ok := conn.(p2p.Conn)
		if !ok {
			conn.Close()
			continue
		}
		go d.network.ServeFlow(ctx, flow, flow.Member().ID)
	}
}

// serveLines hands lines of peers to the service network.
func (d *daemon) serveLines(ctx context.Context, lines *p2p.Lines) error {
	stop := context.AfterFunc(ctx, lines.Close)
	defer stop()
	for {
		line, err := lines.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go d.network.ServeLine(line, line.Member().ID)
	}
}

// flowDialer opens flows over the mesh. It implements svcnet.FlowDialer.
type flowDialer struct{ mesh *p2p.Mesh }

func (f flowDialer) DialFlow(ctx context.Context, to api.NodeID) (svcnet.Conn, error) {
	return f.mesh.Dial(ctx, to, api.ProtoFlow)
}

// lineDialer opens lines. It implements svcnet.LineDialer.
type lineDialer struct{ lines *p2p.Lines }

func (l lineDialer) DialLine(ctx context.Context, to api.NodeID) (svcnet.Conn, error) {
	return l.lines.Dial(ctx, to)
}
