package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// ReportNode brings a node's word: its inventory, its replicas, its images.
// Repeating a report changes nothing. The first report makes a joining node
// ready, and any report brings a suspect, cut-off or down node back.
//
// Reports on replicas that the state does not know, that belong to another
// node or that have ended are ignored: the node stops those, since they are
// not among its assignments. A Complete report also says that what it does not
// list is not there, among the replicas and among the images.
//
// A node that comes back from a death that was none, with the processes it had,
// gets back the replicas that were taken for lost: between an original and its
// replacement the scheduler decides.
type ReportNode struct {
	Report   api.NodeReport `json:"report"`
	Unstable string         `json:"unstable,omitempty"` // why a node that is back is kept out of service, "" = it is not
	Now      time.Time      `json:"now"`
}

const (
	maxAddresses = 64
	maxGPUs      = 64
)

func (c ReportNode) apply(t *tx) (any, error) {
	old := nodes.get(t.txn, string(c.Report.Node))
	if old == nil {
		return nil, notFound("node", string(c.Report.Node))
	}
	if c.Report.Incarnation < old.Incarnation {
		return nil, api.Errorf(api.KindConflict, "node %s has restarted since it made this report", old.Inventory.Name)
	}
	n := *old
	n.Incarnation = c.Report.Incarnation
	n.Authority = c.Report.Authority
	if c.Report.Inventory != nil {
		if err := checkInventory(c.Report.Inventory); err != nil {
			return nil, err
		}
		n.Inventory = *c.Report.Inventory
		n.Inventory.Name = old.Inventory.Name // the unique one that it was given
	}
	switch {
	case n.State == api.NodeDown && c.Unstable != "":
		n.Unstable = true
		t.moveNode(&n, api.NodeSuspect, c.Unstable, c.Now)
	case n.State == api.NodeJoining || n.State == api.NodeCutOff || n.State == api.NodeDown ||
		n.State == api.NodeSuspect && !(n.Unstable && c.Unstable != ""):
		reason := "reported after it was " + string(n.State)
		t.moveNode(&n, api.NodeReady, reason, c.Now)
	case n.Incarnation != old.Incarnation || n.Authority != old.Authority || !equalJSON(n.Inventory, old.Inventory):
		n.Version = t.index
		nodes.put(t, &n)
	}
	for _, r := range c.Report.Replicas {
		t.report(n.ID, r, c.Now)
	}
	if c.Report.Complete {
		t.reportAbsent(c.Report, c.Now)
	}
	t.reportImages(c.Report)
	return n, nil
}

func checkInventory(inv *api.Inventory) error {
	if err := checkLabels("inventory.labels", inv.Labels); err != nil {
		return err
	}
	if len(inv.Addresses) > maxAddresses || len(inv.Taints) > MaxLabels {
		return api.Invalid("inventory", "%d addresses or %d taints are too many", len(inv.Addresses), len(inv.Taints))
	}
	if !(api.Resources{}).Fits(inv.Capacity) {
		return api.Invalid("inventory.capacity", "is negative")
	}
	texts := []string{inv.Region, inv.Zone, inv.Arch, inv.OS, inv.Kernel, inv.Version, inv.Runtime, inv.Cgroup,
		string(inv.StorageClass), string(inv.Power.Source), string(inv.BandwidthSource)}
	if len(inv.GPUs) > maxGPUs {
		return api.Invalid("inventory.gpus", "%d are too many", len(inv.GPUs))
	}
	for _, g := range inv.GPUs {
		texts = append(texts, g.Vendor, g.Model, g.Driver)
	}
	for _, s := range texts {
		if len(s) > maxText {
			return api.Invalid("inventory", "has a text of %d bytes", len(s))
		}
	}
	return nil
}

// report takes over a node's word on one replica.
func (t *tx) report(node api.NodeID, rep api.ReplicaReport, now time.Time) {
	old := replicas.get(t.txn, string(rep.ID))
	if old == nil || old.Node != node || old.State.Terminal() && !t.survived(old, rep) {
		return
	}
	r := *old
	to := rep.State
	if rep.Restarts > old.Restarts && old.State == api.ReplicaReady && progress[to] < progress[old.State] {
		to = api.ReplicaNotReady // its process is coming up again
	}
	moves := advances(old.State, to) || old.State == api.ReplicaLost // which it was not
	if rep.Restarts < old.Restarts || to != old.State && !moves {
		return // older than what is known
	}
	r.Restarts, r.State = rep.Restarts, to
	r.Reason, r.Address, r.StartedAt = clip(rep.Reason), clip(rep.Address), rep.StartedAt
	if r.Reason == "" && r.Desired == api.DesiredStop {
		r.Reason = old.Reason // why it is being stopped
	}
	if sameReplica(&r, old) {
		return
	}
	if moves {
		r.ChangedAt = now
	}
	r.Version = t.index
	replicas.put(t, &r)
	t.tellReport(old, &r, now)
	if r.State.Terminal() {
		t.ended(&r, now)
	}
}

// survived tells whether a replica that went down with its node did not: the
// same run of its process is still there.
func (t *tx) survived(old *api.Replica, rep api.ReplicaReport) bool {
	w := workloads.get(t.txn, old.Workload)
	return old.State == api.ReplicaLost && old.Desired == api.DesiredRun && w != nil && !w.Deleted && rep.State.Active() &&
		!rep.StartedAt.IsZero() && rep.StartedAt.Equal(old.StartedAt) && rep.Restarts == old.Restarts
}

func sameReplica(a, b *api.Replica) bool {
	return a.State == b.State && a.Restarts == b.Restarts && a.Reason == b.Reason &&
		a.Address == b.Address && a.StartedAt.Equal(b.StartedAt)
}

func (t *tx) tellReport(old, r *api.Replica, now time.Time) {
	if r.Restarts > old.Restarts {
		times := "once"
		if r.Restarts > 1 {
			times = fmt.Sprintf("%d times", r.Restarts)
		}
		t.replicaEvent(api.CodeReplicaRestart, now, "Restarted", r, "replica %s restarted (%s so far): %s", r.ID, times, r.Reason)
	}
	if r.State == old.State {
		return
	}
	switch r.State {
	case api.ReplicaReady:
		t.replicaEvent(api.CodeReplicaReady, now, "Ready", r, "replica %s is ready on node %s", r.ID, t.nodeName(r.Node))
	case api.ReplicaFailed:
		t.replicaEvent(api.CodeReplicaFailed, now, "Failed", r, "replica %s failed: %s", r.ID, r.Reason)
	case api.ReplicaLost:
		t.replicaEvent(api.CodeReplicaLost, now, "GivenUp", r, "replica %s was given up by node %s: %s", r.ID, t.nodeName(r.Node), r.Reason)
	case api.ReplicaStopped:
		t.replicaEvent(api.CodeReplicaStopped, now, "Stopped", r, "replica %s stopped: %s", r.ID, r.Reason)
	}
}

// reportAbsent draws the conclusions from replicas that a complete report does
// not list: those to be stopped have stopped, and those that were working are
// not working now (the node makes them anew, since they are assigned to it).
// One that the node has not begun with may simply not have reached it yet.
func (t *tx) reportAbsent(rep api.NodeReport, now time.Time) {
	listed := make(map[api.ReplicaID]bool, len(rep.Replicas))
	for _, r := range rep.Replicas {
		listed[r.ID] = true
	}
	for _, old := range replicas.list(t.txn, "node", pair(string(rep.Node), "")) {
		if listed[old.ID] || old.State.Terminal() {
			continue
		}
		absent := api.ReplicaReport{ID: old.ID, Restarts: old.Restarts, Address: old.Address, StartedAt: old.StartedAt}
		switch {
		case old.Desired == api.DesiredStop:
			absent.State = api.ReplicaStopped
		case old.State.Active():
			absent.State, absent.Reason = api.ReplicaNotReady, "not there any more"
		default:
			continue
		}
		t.report(rep.Node, absent, now)
	}
}

// reportImages updates which images the node holds. A report that is not
// complete only adds.
func (t *tx) reportImages(rep api.NodeReport) {
	if len(rep.Images) == 0 && !rep.Complete {
		return
	}
	for _, old := range images.all(t.txn) {
		holds, known := slices.Contains(rep.Images, old.Ref), slices.Contains(old.Holders, rep.Node)
		if holds && !known {
			t.setHolders(old, append(slices.Clone(old.Holders), rep.Node))
		}
		if rep.Complete && !holds && known {
			t.setHolders(old, without(old.Holders, rep.Node))
		}
	}
}
