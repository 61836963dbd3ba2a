package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/node/diagnosis"
	"github.com/cloudless-project/cloudless/svcnet"
)

// examineWithin bounds each question that a doctor asks of others.
const examineWithin = 3 * time.Second

// diagnose examines the network around this node.
func (d *daemon) diagnose(ctx context.Context) []api.Check {
	f := diagnosis.Findings{Self: d.self, View: d.views.current(), Usage: d.mesh.RelayUsage()}
	var all sync.WaitGroup
	all.Go(func() { f.Mesh = d.mesh.Diagnose(ctx) })
	all.Go(func() { f.Clocks, f.Silent = d.askClocks(ctx) })
	all.Go(func() { f.Services = d.examineServices(ctx) })
	all.Wait()
	return f.Judge()
}

// askClocks compares this node's clock with that of every other anchor.
func (d *daemon) askClocks(ctx context.Context) (offsets []diagnosis.Clock, silent []api.NodeID) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, n := range d.views.current().Nodes {
		if !n.HoldsState() || n.ID == d.self {
			continue
		}
		all.Go(func() {
			o, err := d.askClock(ctx, n.ID)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, n.ID)
				return
			}
			offsets = append(offsets, o)
		})
	}
	all.Wait()
	return offsets, silent
}

func (d *daemon) askClock(ctx context.Context, anchor api.NodeID) (diagnosis.Clock, error) {
	ctx, cancel := context.WithTimeout(ctx, examineWithin)
	defer cancel()
	conn, err := d.server.Conn(anchor)
	if err != nil {
		return diagnosis.Clock{}, err
	}
	client := pb.NewSystemServiceClient(conn)
	// The first call may open the connection, which says nothing of the clock.
	if _, err := client.GetStatus(ctx, &pb.GetStatusRequest{}); err != nil {
		return diagnosis.Clock{}, wire.ErrorFromStatus(err)
	}
	asked := time.Now()
	r, err := client.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		return diagnosis.Clock{}, wire.ErrorFromStatus(err)
	}
	theirs := wire.StatusFromPB(r.GetStatus()).Time
	if theirs.IsZero() {
		return diagnosis.Clock{}, api.Errorf(api.KindUnsupported, "node %s does not tell the time", anchor)
	}
	half := time.Since(asked) / 2
	return diagnosis.Clock{Node: anchor, Ahead: theirs.Sub(asked.Add(half)), Uncertainty: half}, nil
}

// examineServices asks the node's own resolver, at its virtual address, as any
// program would: an answer takes the addresses, the routes and the resolver.
func (d *daemon) examineServices(ctx context.Context) diagnosis.Services {
	if d.network == nil {
		missing := missingPrivileges()
		if missing == "" {
			missing = "they are switched off"
		}
		return diagnosis.Services{Missing: missing}
	}
	ctx, cancel := context.WithTimeout(ctx, examineWithin)
	defer cancel()
	h := diagnosis.Services{Status: d.network.Status(), Resolver: d.network.HostResolver(ctx), Asked: "doctor." + api.DomainSuffix}
	want := ""
	if services := d.views.current().Services; len(services) > 0 {
		want = services[0].VIP
		h.Asked = services[0].DNS()
	}
	h.DNS = lookUp(ctx, netip.AddrPortFrom(svcnet.DNSAddress(svcnet.DefaultVIPRange), 53), h.Asked, want)
	return h
}

// lookUp asks one resolver for a name. Without a wanted address the word that
// there is no such name is as good as any.
func lookUp(ctx context.Context, resolver netip.AddrPort, name, want string) error {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, resolver.String())
	}}
	found, err := r.LookupHost(ctx, name+".")
	var unknown *net.DNSError
	switch {
	case want == "" && errors.As(err, &unknown) && unknown.IsNotFound:
		return nil
	case err != nil:
		return err
	case want != "" && (len(found) != 1 || found[0] != want):
		return api.Errorf(api.KindInternal, "%s is said to be at %v, not at %s", name, found, want)
	}
	return nil
}
