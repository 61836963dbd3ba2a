package diagnosis

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
)

// judgePaths has a check for each peer: path/NAME.
func (f *Findings) judgePaths() []api.Check {
	var checks []api.Check
	connected := make(map[api.NodeID]bool)
	for _, p := range f.Mesh.Peers {
		n, known := f.node(p.ID)
		if !known {
			continue // a person's command line, or a node that has just joined
		}
		connected[p.ID] = true
		checks = append(checks, f.judgePath(p, n))
	}
	for _, n := range f.View.Nodes {
		if n.ID == f.Self || connected[n.ID] || n.State != api.NodeReady || len(f.View.Nodes) > everyPath {
			continue // one that is away, or is dialled when it is needed
		}
		checks = append(checks, warn("path/"+n.Inventory.Name, "look at it from there: cloudless network doctor --node "+n.Inventory.Name,
			"none, although the anchors see it: this node is still trying"))
	}
	slices.SortFunc(checks, func(a, b api.Check) int { return cmp.Compare(a.Name, b.Name) })
	return checks
}

func (f *Findings) judgePath(p p2p.PeerDiagnosis, n api.Node) api.Check {
	name := "path/" + n.Inventory.Name
	if p.Silent {
		return warn(name, "", "%s over %s, but silent at the moment: a relay is used as soon as it answers there", p.Path, p.Transport)
	}
	switch p.Path {
	case api.PathLAN:
		return ok(name, "lan, over %s", p.Transport)
	case api.PathDirect:
		detail := "direct, over " + p.Transport
		if p.Packet > 0 {
			detail += fmt.Sprintf(", packets of up to %d bytes", p.Packet)
		}
		return ok(name, "%s", detail)
	}
	why, fix := f.whyRelayed(p, n)
	return warn(name, fix, "relayed by %s, because %s", f.name(p.Relay), why)
}

// whyRelayed says why there is no direct path, and what would change it.
func (f *Findings) whyRelayed(p p2p.PeerDiagnosis, n api.Node) (why, fix string) {
	here, there := f.Mesh.NAT, n.Inventory.NAT
	them := n.Inventory.Name
	switch {
	case f.Mesh.UDP == p2p.UDPBlocked:
		return "UDP is blocked here", "allow outgoing UDP in the firewall or router of this network"
	case here == api.NATSymmetric && there == api.NATSymmetric:
		return "both routers map each destination to another port (symmetric NAT), so that neither side can be hit", f.routerFix()
	case here == api.NATSymmetric:
		return fmt.Sprintf("the router here maps each destination to another port (symmetric NAT), and that of %s lets in answers only", them), f.routerFix()
	case there == api.NATSymmetric:
		return fmt.Sprintf("the router of %s maps each destination to another port (symmetric NAT), and the one here lets in answers only", them),
			"change it on one side: here, " + f.routerFix() + "; or there, see cloudless network doctor --node " + them
	case p.Resting:
		return fmt.Sprintf("hole punching failed %d times; it is tried again %s", p.Tries, soon(p.Next)), f.routerFix()
	case there == api.NATUnknown:
		return fmt.Sprintf("it is not known what %s is behind; UDP may be blocked there; %s", them, punching(p)),
			"look at it from there: cloudless network doctor --node " + them
	}
	return punching(p), ""
}

func punching(p p2p.PeerDiagnosis) string {
	if p.Tries == 0 {
		return "hole punching has not begun yet"
	}
	return fmt.Sprintf("hole punching is under way (%s so far, the next one %s)", plural(p.Tries, "attempt"), soon(p.Next))
}

func soon(d time.Duration) string {
	if d <= 0 {
		return "now"
	}
	return "in " + span(max(d, time.Second).Round(time.Second))
}
