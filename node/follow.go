package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
)

// receive takes a view from an anchor. It refuses those of an anchor that a
// restored backup has put out of office.
func (d *daemon) receive(from api.NodeID, v api.ClusterView) error {
	if !d.isAnchor(from) {
		return api.Errorf(api.KindDenied, "%s is no anchor", from)
	}
	if known := d.epoch(); v.Cluster.Epoch < known {
		return api.Errorf(api.KindDenied, "%s is an anchor of epoch %d, the cluster is in epoch %d", from, v.Cluster.Epoch, known)
	} else if v.Cluster.ID == d.member.Cluster && v.Cluster.Epoch > known {
		if err := d.changeMembership(func(m *membership) { m.Epoch = v.Cluster.Epoch }); err != nil {
			return err
		}
		d.log.Info("the cluster was restored from a backup", zap.Uint64("epoch", v.Cluster.Epoch), zap.String("peer", string(from)))
	}
	d.admission.sawAnchor()
	if v.Cluster.ID != d.member.Cluster {
		return api.Errorf(api.KindDenied, "%s sends a view of cluster %q", from, v.Cluster.ID)
	}
	if err := d.admission.follow(v.Cluster, len(v.Nodes)); err != nil {
		return err
	}
	d.revoke(v.Revocations, fromView)
	d.herald.heard(v.Leader, v.Cluster.Epoch)
	d.views.put(d.admission.revoked.complete(v))
	d.office.consider(v)
	return nil
}

// follow makes the parts of the data plane act on every new view.
func (d *daemon) follow(ctx context.Context) error {
	ready, named := false, false
	for {
		v, known, changed := d.views.watch()
		if d.admission.removed() != nil {
			d.mesh.SetMembers(nil) // nobody speaks to this node any more
		} else if known {
			d.mesh.SetMembers(d.contacts(v))
			d.saveContacts(v)
		}
		if known {
			d.setTable()
			if d.worker != nil {
				d.worker.apply(v)
			}
		}
		if self, ok := nodeOf(&v, d.self); ok && !named {
			named = d.checkName(v, self.Inventory.Name)
		}
		if self, ok := nodeOf(&v, d.self); ok && self.State == api.NodeReady && !ready {
			ready = true
			d.log.Info("ready")
			notifySystemd("READY=1")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// checkName warns when this node goes by another name than it was given because
// another node has that one. It reports whether there is nothing more to find out.
func (d *daemon) checkName(v api.ClusterView, name string) bool {
	if name == d.cfg.Name {
		return true
	}
	for _, n := range v.Nodes {
		if n.ID != d.self && n.Inventory.Name == d.cfg.Name {
			d.log.Warn(fmt.Sprintf("the name %s is taken in this cluster: this node is %s", d.cfg.Name, name),
				zap.String("hint", "choose another one with: cloudless node start --name NAME"))
			return true
		}
	}
	return false // renamed in a moment, by its first report
}

// contacts lists the members of a view for the mesh; before the first view,
// the anchors that enrolment told of.
func (d *daemon) contacts(v api.ClusterView) []p2p.Contact {
	var out []p2p.Contact
	for _, n := range v.Nodes {
		if n.ID != d.self {
			out = append(out, p2p.Contact{ID: n.ID, Addresses: n.Inventory.Addresses, Relay: n.Inventory.Public, Anchor: n.HoldsState()})
		}
	}
	for _, c := range d.knownAnchors() {
		same := func(o p2p.Contact) bool { return o.ID == c.ID }
		if i := slices.IndexFunc(out, same); i < 0 {
			out = append(out, p2p.Contact{ID: c.ID, Addresses: c.Addresses, Relay: true, Anchor: true})
		} else if len(out[i].Addresses) == 0 {
			out[i].Addresses = c.Addresses
		}
	}
	return out
}

// knownAnchors are those to call when there is no view.
func (d *daemon) knownAnchors() []contactFile {
	d.memberMu.Lock()
	defer d.memberMu.Unlock()
	return d.member.Contacts
}

// saveContacts remembers where the anchors are, for a start without a view.
func (d *daemon) saveContacts(v api.ClusterView) {
	var anchors []contactFile
	for _, n := range v.Nodes {
		if n.HoldsState() && n.ID != d.self && len(n.Inventory.Addresses) > 0 {
			anchors = append(anchors, contactFile{ID: n.ID, Addresses: n.Inventory.Addresses})
		}
	}
	if len(anchors) == 0 {
		return
	}
	d.memberMu.Lock()
	defer d.memberMu.Unlock()
	same := slices.EqualFunc(anchors, d.member.Contacts, func(a, b contactFile) bool {
		return a.ID == b.ID && slices.Equal(a.Addresses, b.Addresses)
	})
	if same {
		return
	}
	d.member.Contacts = anchors
	if err := d.dir.saveJSON(membershipFile, d.member); err != nil {
		d.log.Warn("the addresses of the anchors were not saved", zap.Error(err))
	}
}

// report says what this node has and does; changed is closed when its replicas
// or images change.
func (d *daemon) report() (api.NodeReport, <-chan struct{}) {
	inv := d.inventory
	inv.Addresses = d.mesh.Addrs()
	slices.Sort(inv.Addresses)
	inv.Public, inv.NAT = d.mesh.Reachability()
	inv.Power = d.power.current(time.Now())
	inv.Capacity.Bandwidth, inv.BandwidthSource = d.bandwidth.current()
	r := api.NodeReport{Node: d.self, Incarnation: d.incarnation, Inventory: &inv, Complete: true, Authority: d.authorityUse()}
	if d.worker == nil {
		return r, nil
	}
	changed := d.worker.changed.wait()
	r.Complete = d.worker.settled() // before the rest is read: it only ever becomes true
	r.Replicas, _ = d.worker.agent.Reports()
	r.Images = d.worker.images.refs()
	r.Inventory.Runtime = d.worker.version()
	return r, changed
}

// leader returns the leading anchor as far as this node knows.
func (d *daemon) leader() (api.NodeID, bool) {
	if a := d.office.current(); a != nil {
		if id, ok := a.raft.Leader(); ok {
			return id, true
		}
	}
	if id, _ := d.herald.watch(); id != "" && (id != d.self || d.office.current() != nil) {
		return id, true
	}
	if id := d.views.current().Leader; id != "" {
		return id, true
	}
	if known := d.knownAnchors(); len(known) > 0 {
		return known[0].ID, true
	}
	return "", false
}

// status tells how this node stands.
func (d *daemon) status() api.Status {
	v := d.views.current()
	st := api.Status{
		Node: d.self, Name: d.cfg.Name, Cluster: d.member.Cluster, ClusterName: d.member.Name, Index: v.Index,
	}
	if self, ok := nodeOf(&v, d.self); ok {
		st.Name = self.Inventory.Name
		st.Ready = self.State == api.NodeReady
		if !st.Ready {
			st.Reason = "its state is " + string(self.State)
		}
	} else if err := d.admission.removed(); err != nil {
		st.Reason = err.Error()
	} else {
		st.Reason = "waiting for the first word of an anchor"
	}
	if err := d.twins.duplicated(); err != nil {
		st.Ready, st.Reason = false, err.Error()
	}
	if problem := d.office.problem(); problem != "" {
		st.Reason = strings.TrimPrefix(st.Reason+"; its part among the anchors has ended: "+problem, "; ")
	}
	st.Leader, _ = d.leader()
	for _, n := range v.Nodes {
		if n.ID == st.Leader {
			st.LeaderName = n.Inventory.Name
		}
		if !n.Voter {
			continue
		}
		st.Anchors++
		if path, _ := d.mesh.Path(n.ID); n.ID == d.self || path != api.PathNone {
			st.AnchorsReachable++
		}
	}
	return st
}
