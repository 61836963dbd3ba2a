//go:build linux

package natmatrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/testnet"
)

// Scenario is a story with a lab of its own.
type Scenario struct {
	Name   string
	Story  string
	Long   bool // takes minutes
	within time.Duration
	sites  []testnet.Site
	run    func(context.Context, *Net) ([]Figure, error)
}

// Scenarios lists the stories, all of them or the named ones.
func Scenarios(names ...string) []Scenario {
	cloud := testnet.Site{Name: "cloud", NAT: testnet.Public, Devices: []string{anchor, "vps2"}}
	homeA := testnet.Site{Name: "home-a", NAT: testnet.Cone, Devices: []string{"a1", "a2"}}
	homeB := testnet.Site{Name: "home-b", NAT: testnet.Cone, Devices: []string{"b1"}}
	homeC := testnet.Site{Name: "home-c", NAT: testnet.Symmetric, Devices: []string{"c1"}}
	homeD := testnet.Site{Name: "home-d", NAT: testnet.Symmetric, Devices: []string{"d1"}}
	servers := testnet.Site{Name: "cloud", NAT: testnet.Public, Devices: []string{anchor, "vps2", "vps3"}}
	full := testnet.Site{Name: "house", NAT: testnet.Cone}
	for i := range 9 {
		full.Devices = append(full.Devices, fmt.Sprintf("h%d", i+1))
	}
	all := []Scenario{
		{
			Name: "lan", Story: "two devices of one home that met through the anchor talk over the LAN",
			sites: []testnet.Site{cloud, homeA}, run: sameLAN,
		},
		{
			Name: "house", Story: "nine devices behind one address reach the anchor, each other and another home", within: 3 * time.Minute,
			sites: []testnet.Site{cloud, full, homeB}, run: fullHouse,
		},
		{
			Name: "kinds", Story: "every device knows what kind of NAT it is behind once two peers have seen it",
			sites: []testnet.Site{cloud, homeA, homeC}, run: func(ctx context.Context, n *Net) ([]Figure, error) { return nil, knowsItsNAT(ctx, n, "vps2") },
		},
		{
			Name: "one-anchor", Story: "… and with a single anchor, which is asked at two ports",
			sites: []testnet.Site{cloud, homeA, homeC}, run: func(ctx context.Context, n *Net) ([]Figure, error) { return nil, knowsItsNAT(ctx, n) },
		},
		{
			Name: "mapping", Story: "routers with UPnP and NAT-PMP map ports, and a symmetric NAT connects to them",
			sites: []testnet.Site{
				cloud, homeC,
				{Name: "upnp", NAT: testnet.Cone, Mapping: testnet.UPnP, Devices: []string{"u1"}},
				{Name: "pmp", NAT: testnet.Cone, Mapping: testnet.NATPMP, Devices: []string{"n1"}},
			}, run: mapsPorts,
		},
		{
			Name: "renumber", Story: "a home gets another public address while streams are opened",
			sites: []testnet.Site{cloud, homeA, homeB}, run: renumbered,
		},
		{
			Name: "move", Story: "a device goes to another home while streams are opened",
			sites: []testnet.Site{cloud, homeA, homeB, {Name: "cafe", NAT: testnet.Cone}}, run: moved,
		},
		{
			Name: "severed", Story: "the direct path between two homes dies and heals; the relay stands in",
			sites: []testnet.Site{cloud, homeA, homeB}, run: func(ctx context.Context, n *Net) ([]Figure, error) { return severed(ctx, n, 0) },
		},
		{
			Name: "severed-late", Story: "the same after the relayed connection was retired", Long: true, within: 4 * time.Minute,
			sites: []testnet.Site{cloud, homeA, homeB}, run: func(ctx context.Context, n *Net) ([]Figure, error) { return severed(ctx, n, 75*time.Second) },
		},
		{
			Name: "udp-dies", Story: "UDP dies on a path, and TCP takes over: to a server, and below a relayed connection",
			sites: []testnet.Site{cloud, homeA, homeC}, run: udpDies,
		},
		{
			Name: "relay-dies", Story: "the relay between two homes is switched off; another one takes its place", within: 3 * time.Minute,
			sites: []testnet.Site{servers, homeA, homeC, homeD}, run: relayDies,
		},
		{
			Name: "server-moves", Story: "with the anchor off, a server gets another address; those behind NATs find it", within: 3 * time.Minute,
			sites: []testnet.Site{servers, homeA, homeC}, run: serverMoves,
		},
		{
			Name: "relay-speed", Story: "one stream between two homes that only a relay connects, next to iperf3", Long: true, within: 3 * time.Minute,
			sites: []testnet.Site{
				cloud, homeC, homeD,
				{Name: "office-e", NAT: testnet.Symmetric, NoUDP: true, Devices: []string{"e1"}},
				{Name: "office-f", NAT: testnet.Symmetric, NoUDP: true, Devices: []string{"f1"}},
			}, run: relaySpeed,
		},
		{
			Name: "auto-public", Story: "a server that was not told that it is public finds out, with one anchor to ask", Long: true, within: 6 * time.Minute,
			sites: []testnet.Site{cloud}, run: findsOut,
		},
	}
	if len(names) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(s Scenario) bool { return !slices.Contains(names, s.Name) })
}

// Run builds the lab, starts the anchor and tells the story.
func (s Scenario) Run(ctx context.Context) (figures []Figure, err error) {
	within := s.within
	if within == 0 {
		within = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	n, err := Up(ctx, testnet.Topology{Sites: s.sites})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Start(ctx, anchor, p2p.PublicYes); err != nil {
		return nil, err
	}
	if figures, err = s.run(ctx, n); err != nil {
		return figures, fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	return figures, nil
}

// figure is a duration with the aim that it has.
func figure(name string, d time.Duration, aim float64) Figure {
	return Figure{Name: name, Value: d.Seconds(), Unit: "s", Baseline: aim, Ratio: d.Seconds() / aim}
}

func (n *Net) startAll(ctx context.Context, names ...string) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, name := range names {
		g.Go(func() error { return n.Start(gctx, name, p2p.PublicAuto) })
	}
	return g.Wait()
}

// awaitPath waits until one device reaches another by a class of path, and has
// got an answer that way.
func (n *Net) awaitPath(ctx context.Context, from, to string, want api.Path) error {
	err := n.Await(ctx, fmt.Sprintf("%s to reach %s by %s", from, to, want), func() bool {
		r := n.Sees(from, to)
		return r.Path == want && r.First > 0 && (want == api.PathRelayed || r.Direct > 0)
	})
	if err != nil {
		return fmt.Errorf("%w; it sees %+v, is reached at %v", err, n.Sees(from, to), n.Report(to).Contact.Addresses)
	}
	return nil
}

func sameLAN(ctx context.Context, n *Net) ([]Figure, error) {
	if err := n.startAll(ctx, "a1", "a2"); err != nil {
		return nil, err
	}
	if err := errors.Join(n.awaitPath(ctx, "a1", "a2", api.PathLAN), n.awaitPath(ctx, "a2", "a1", api.PathLAN)); err != nil {
		return nil, err
	}
	_, err := n.Echo(ctx, "a1", "a2")
	return []Figure{figure("lan_path_s", max(n.Sees("a1", "a2").Direct, n.Sees("a2", "a1").Direct), directAim)}, err
}

func fullHouse(ctx context.Context, n *Net) ([]Figure, error) {
	house := n.Lab.Site("house").Devices
	if err := n.startAll(ctx, append(slices.Clone(house), "b1")...); err != nil {
		return nil, err
	}
	for _, h := range house {
		for _, to := range append(slices.Clone(house), anchor, "b1") {
			want := api.PathLAN
			if to == anchor || to == "b1" {
				want = api.PathDirect
			}
			if h == to {
				continue
			}
			if err := n.awaitPath(ctx, h, to, want); err != nil {
				return nil, err
			}
		}
	}
	var slowest time.Duration
	for _, h := range house {
		slowest = max(slowest, n.Sees(h, "b1").Direct)
		if _, err := n.Echo(ctx, h, "b1"); err != nil {
			return nil, err
		}
	}
	return []Figure{figure("house_of_nine_direct_s", slowest, 10)}, nil
}

func knowsItsNAT(ctx context.Context, n *Net, more ...string) error {
	wants := map[string]api.NAT{anchor: api.NATNone, "a1": api.NATCone, "c1": api.NATSymmetric}
	for _, server := range more {
		if err := n.Start(ctx, server, p2p.PublicYes); err != nil {
			return err
		}
		wants[server] = api.NATNone
	}
	if err := n.startAll(ctx, "a1", "c1"); err != nil {
		return err
	}
	for device, want := range wants {
		if err := n.Await(ctx, fmt.Sprintf("%s to know that its NAT is %s", device, want), func() bool { return n.Report(device).NAT == want }); err != nil {
			return fmt.Errorf("%w; it says %s", err, n.Report(device).NAT)
		}
	}
	return nil
}

func mapsPorts(ctx context.Context, n *Net) ([]Figure, error) {
	begun := time.Now()
	if err := n.startAll(ctx, "u1", "n1", "c1"); err != nil {
		return nil, err
	}
	var figures []Figure
	for _, x := range []struct{ device, site string }{{"n1", "pmp"}, {"u1", "upnp"}} {
		err := n.Await(ctx, "a mapping in the router of "+x.site, func() bool {
			count, err := n.Lab.Mappings(ctx, x.site)
			return err == nil && count >= 2 // TCP and UDP
		})
		if err != nil {
			return figures, err
		}
		figures = append(figures, figure("mapping_"+x.site+"_s", time.Since(begun), 15))
		if err := n.awaitPath(ctx, "c1", x.device, api.PathDirect); err != nil {
			return figures, err
		}
		figures = append(figures, figure("mapped_direct_"+x.site+"_s", n.Sees("c1", x.device).Direct, 15))
		if _, err := n.Echo(ctx, "c1", x.device); err != nil {
			return figures, err
		}
	}
	return figures, nil
}

// flowing starts streams from one device to another on a direct path.
func flowing(ctx context.Context, n *Net, from, to string) error {
	if err := n.startAll(ctx, from, to); err != nil {
		return err
	}
	if err := n.awaitPath(ctx, from, to, api.PathDirect); err != nil {
		return err
	}
	return n.flow(ctx, from, to)
}

// flow opens streams from one device to another again and again, and returns
// when the first was answered.
func (n *Net) flow(ctx context.Context, from, to string) error {
	if err := n.order(from, order{Flow: n.Report(to).Contact.ID}); err != nil {
		return err
	}
	return n.Await(ctx, "a stream", func() bool { return n.Sees(from, to).Flow.Served > 0 })
}

// again waits until streams that were opened after a moment are answered, and
// returns how long that took.
func again(ctx context.Context, n *Net, from, to string, since time.Time, paths ...api.Path) (time.Duration, error) {
	err := n.Await(ctx, fmt.Sprintf("streams from %s to %s by %v", from, to, paths), func() bool {
		f := n.Sees(from, to).Flow
		return f.Last.After(since.Add(flowEvery)) && slices.Contains(paths, f.Path)
	})
	if err != nil {
		return 0, fmt.Errorf("%w; %+v", err, n.Sees(from, to))
	}
	return n.Sees(from, to).Flow.Last.Sub(since), nil
}

func renumbered(ctx context.Context, n *Net) ([]Figure, error) {
	if err := flowing(ctx, n, "b1", "a1"); err != nil {
		return nil, err
	}
	cut := time.Now()
	if err := n.Lab.Renumber(ctx, "home-a"); err != nil {
		return nil, err
	}
	back, err := again(ctx, n, "b1", "a1", cut, api.PathRelayed, api.PathDirect)
	if err != nil {
		return nil, err
	}
	figures := []Figure{figure("renumber_streams_s", back, 5)}
	if err := n.Await(ctx, "the new address to be announced", func() bool { return announces(n, "a1", "192.0.0.155") }); err != nil {
		return figures, fmt.Errorf("%w; %v", err, n.Report("a1").Contact.Addresses)
	}
	figures = append(figures, figure("renumber_announced_s", time.Since(cut), 10))
	direct, err := again(ctx, n, "b1", "a1", cut, api.PathDirect)
	return append(figures, figure("renumber_direct_s", direct, 15)), err
}

func announces(n *Net, device, ip string) bool {
	return slices.ContainsFunc(n.Report(device).Contact.Addresses, func(a string) bool {
		return strings.Contains(a, "/"+ip+"/") && !strings.Contains(a, "p2p-circuit")
	})
}

func moved(ctx context.Context, n *Net) ([]Figure, error) {
	if err := flowing(ctx, n, "b1", "a1"); err != nil {
		return nil, err
	}
	cut := time.Now()
	if err := n.Lab.Move(ctx, "a1", "cafe"); err != nil {
		return nil, err
	}
	back, err := again(ctx, n, "b1", "a1", cut, api.PathRelayed, api.PathDirect)
	if err != nil {
		return nil, err
	}
	figures := []Figure{figure("move_streams_s", back, 5)}
	direct, err := again(ctx, n, "b1", "a1", cut.Add(back), api.PathDirect)
	return append(figures, figure("move_direct_s", back+direct, 15)), err
}

func severed(ctx context.Context, n *Net, wait time.Duration) ([]Figure, error) {
	if err := flowing(ctx, n, "a1", "b1"); err != nil {
		return nil, err
	}
	suffix := "_s"
	if wait > 0 {
		suffix = "_late_s"
		select {
		case <-time.After(wait): // the mesh closes what it does not need after a minute
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	cut := time.Now()
	if err := n.Lab.Sever(ctx, "home-a", "home-b", ""); err != nil {
		return nil, err
	}
	back, err := again(ctx, n, "a1", "b1", cut, api.PathRelayed)
	if err != nil {
		return nil, err
	}
	figures := []Figure{figure("dead_path_relay"+suffix, back, 5)}
	healed := time.Now()
	if err := n.Lab.Mend(ctx, "home-a", "home-b"); err != nil {
		return figures, err
	}
	direct, err := again(ctx, n, "a1", "b1", healed, api.PathDirect)
	return append(figures, figure("healed_direct"+suffix, direct, 30)), err
}

func udpDies(ctx context.Context, n *Net) ([]Figure, error) {
	if err := n.startAll(ctx, "a1", "c1"); err != nil {
		return nil, err
	}
	if err := errors.Join(n.awaitPath(ctx, "c1", "a1", api.PathRelayed), n.flow(ctx, "c1", "a1")); err != nil {
		return nil, err
	}
	cut := time.Now()
	if err := n.Lab.Sever(ctx, "home-a", anchor, "udp"); err != nil {
		return nil, err
	}
	relayed, err := again(ctx, n, "c1", "a1", cut, api.PathRelayed)
	if err != nil {
		return nil, err
	}
	figures := []Figure{figure("udp_dead_relayed_s", relayed, 10)}
	if err := n.Start(ctx, "vps2", p2p.PublicYes); err != nil {
		return figures, err
	}
	if err := errors.Join(n.awaitPath(ctx, "a1", "vps2", api.PathDirect), n.flow(ctx, "a1", "vps2")); err != nil {
		return figures, err
	}
	cut = time.Now()
	if err := n.Lab.Sever(ctx, "home-a", "vps2", "udp"); err != nil {
		return figures, err
	}
	direct, err := again(ctx, n, "a1", "vps2", cut, api.PathDirect)
	return append(figures, figure("udp_dead_direct_s", direct, 5)), err
}

func findsOut(ctx context.Context, n *Net) ([]Figure, error) {
	begun := time.Now()
	if err := n.startAll(ctx, "vps2"); err != nil {
		return nil, err
	}
	err := n.Await(ctx, "vps2 to find out that it is public", func() bool { r := n.Report("vps2"); return r.Public && r.NAT == api.NATNone })
	return []Figure{figure("auto_public_s", time.Since(begun), 180)}, err
}
