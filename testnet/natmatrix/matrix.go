//go:build linux

package natmatrix

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/testnet"
)

// Kind is a way in which a device is connected to the internet.
type Kind struct {
	Name string
	site testnet.Site // a template: its name and devices are filled in
	isp  testnet.NAT  // of the carrier in front of it, if any

	v4, v6    bool // the addresses that it has
	udp       bool // UDP passes
	open      bool // strangers get in by IPv4
	anyone    bool // … by UDP, once the device has sent anything at all
	symmetric bool // a new port for each destination
}

// Kinds lists the kinds of the matrix.
func Kinds() []Kind {
	return []Kind{
		{Name: "public", site: testnet.Site{NAT: testnet.Public}, v4: true, udp: true, open: true},
		{Name: "full-cone", site: testnet.Site{NAT: testnet.FullCone}, v4: true, udp: true, anyone: true},
		{Name: "cone", site: testnet.Site{NAT: testnet.Cone}, v4: true, udp: true},
		{Name: "symmetric", site: testnet.Site{NAT: testnet.Symmetric}, v4: true, udp: true, symmetric: true},
		{Name: "double", site: testnet.Site{NAT: testnet.Cone}, isp: testnet.Cone, v4: true, udp: true},
		{Name: "double-sym", site: testnet.Site{NAT: testnet.Cone}, isp: testnet.Symmetric, v4: true, udp: true, symmetric: true},
		{Name: "upnp", site: testnet.Site{NAT: testnet.Cone, Mapping: testnet.UPnP}, v4: true, udp: true, open: true},
		{Name: "nat-pmp", site: testnet.Site{NAT: testnet.Cone, Mapping: testnet.NATPMP}, v4: true, udp: true, open: true},
		{Name: "dual", site: testnet.Site{NAT: testnet.Symmetric, IP: testnet.Dual}, v4: true, v6: true, udp: true, symmetric: true},
		{Name: "v6", site: testnet.Site{NAT: testnet.Firewall, IP: testnet.IPv6}, v6: true, udp: true},
		{Name: "tcp-only", site: testnet.Site{NAT: testnet.Cone, NoUDP: true}, v4: true},
	}
}

// Expect says which path two homes of given kinds must get.
func Expect(a, b Kind) api.Path {
	switch {
	case a.v6 && b.v6: // nothing is translated, so punching always works
		return api.PathDirect
	case !a.v4 || !b.v4:
		return api.PathRelayed
	case a.open || b.open:
		return api.PathDirect
	case !a.udp || !b.udp:
		return api.PathRelayed
	case a.anyone || b.anyone:
		return api.PathDirect
	case a.symmetric || b.symmetric:
		return api.PathRelayed
	}
	return api.PathDirect
}

// Pair is one field of the matrix.
type Pair struct{ A, B Kind }

func (p Pair) String() string { return p.A.Name + " ↔ " + p.B.Name }

// Pairs lists every field, or those whose kinds are all among the named ones.
func Pairs(kinds ...string) []Pair {
	var pairs []Pair
	all := Kinds()
	for i, a := range all {
		for _, b := range all[i:] {
			if len(kinds) == 0 || contains(kinds, a.Name) && contains(kinds, b.Name) {
				pairs = append(pairs, Pair{a, b})
			}
		}
	}
	return pairs
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Result is what was measured of a pair.
type Result struct {
	Pair   Pair
	Path   api.Path // in the end
	First  [2]time.Duration
	Direct [2]time.Duration // 0 when it stayed relayed
	Echo   time.Duration
	NAT    [2]api.NAT // what each of the two thinks of its own
	Err    error
}

// Matrix is a lab with two homes of each kind and an anchor in the cloud.
type Matrix struct {
	*Net
	Settle time.Duration // how long a pair must stay relayed to be called so
	Within time.Duration // how long a pair may take at all
}

const anchor = "vps"

// NewMatrix builds the lab and starts the anchor.
func NewMatrix(ctx context.Context, pairs []Pair) (*Matrix, error) {
	t := testnet.Topology{Sites: []testnet.Site{{Name: "cloud", NAT: testnet.Public, IP: testnet.Dual, Devices: []string{anchor}}}}
	for _, k := range Kinds() {
		for _, side := range []string{"a", "b"} {
			if !used(pairs, k.Name) {
				continue
			}
			s := k.site
			s.Name, s.Devices = k.Name+"-"+side, []string{deviceOf(k, side)}
			if k.isp != "" {
				isp := testnet.Site{Name: "isp-" + string(k.isp) + "-" + side, NAT: k.isp}
				s.Behind = isp.Name
				t.Sites = append(t.Sites, isp)
			}
			t.Sites = append(t.Sites, s)
		}
	}
	n, err := Up(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := n.Start(ctx, anchor, p2p.PublicYes); err != nil {
		_ = n.Close()
		return nil, err
	}
	return &Matrix{Net: n, Settle: 4 * time.Second, Within: 15 * time.Second}, nil
}

func used(pairs []Pair, kind string) bool {
	for _, p := range pairs {
		if p.A.Name == kind || p.B.Name == kind {
			return true
		}
	}
	return false
}

func deviceOf(k Kind, side string) string { return strings.ReplaceAll(k.Name, "-", "") + "-d" + side }

// Measure starts a mesh in each of two homes, at once, and follows them.
func (m *Matrix) Measure(ctx context.Context, p Pair) Result {
	r := Result{Pair: p, Path: api.PathNone}
	ctx, cancel := context.WithTimeout(ctx, m.Within)
	defer cancel()
	names := [2]string{deviceOf(p.A, "a"), deviceOf(p.B, "b")}
	defer m.Stop(names[0])
	defer m.Stop(names[1])
	g, gctx := errgroup.WithContext(ctx)
	for i, k := range []Kind{p.A, p.B} {
		g.Go(func() error { return m.Start(gctx, names[i], publicOf(k)) })
	}
	if r.Err = g.Wait(); r.Err != nil {
		return r
	}
	r.Err = m.follow(ctx, names, &r)
	a, b := m.Sees(names[0], names[1]), m.Sees(names[1], names[0])
	r.Path, r.First, r.Direct = a.Path, [2]time.Duration{a.First, b.First}, [2]time.Duration{a.Direct, b.Direct}
	r.NAT = [2]api.NAT{m.Report(names[0]).NAT, m.Report(names[1]).NAT}
	if want := Expect(p.A, p.B); r.Err == nil && (a.Path != want || b.Path != want) && !p.lucky(a.Path, b.Path) {
		r.Err = fmt.Errorf("the path is %s one way and %s the other, want %s", a.Path, b.Path, want)
	}
	return r
}

// lucky reports whether a pair without UDP got more than can be expected:
// punching by TCP needs two SYNs to cross, which they do now and then.
func (p Pair) lucky(a, b api.Path) bool {
	return !p.A.udp && !p.B.udp && a == api.PathDirect && b == api.PathDirect
}

// publicOf is the operator's switch. A public device says that it is; the mesh
// would find out too, but after minutes when there is one anchor.
func publicOf(k Kind) string {
	if k.site.NAT == testnet.Public {
		return p2p.PublicYes
	}
	return p2p.PublicNo
}

func (m *Matrix) follow(ctx context.Context, names [2]string, r *Result) error {
	both := func(f func(PeerReport) bool) bool {
		return f(m.Sees(names[0], names[1])) && f(m.Sees(names[1], names[0]))
	}
	if err := m.Await(ctx, "a first path", func() bool {
		return both(func(p PeerReport) bool { return p.First > 0 })
	}); err != nil {
		return err
	}
	direct := func() bool { return both(func(p PeerReport) bool { return p.Direct > 0 }) }
	if Expect(r.Pair.A, r.Pair.B) == api.PathRelayed {
		settle, cancel := context.WithTimeout(ctx, m.Settle)
		defer cancel()
		_ = m.Await(settle, "nothing", direct)
	} else if err := m.Await(ctx, "a direct path", direct); err != nil {
		return err
	}
	var err error
	r.Echo, err = m.Echo(ctx, names[0], names[1])
	return err
}
