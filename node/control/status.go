package control

import (
	"fmt"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/sched/reconcile"
)

// workloadStatus sums a workload up for a person: its replicas as far as they
// can be known, and one word and one sentence for the whole.
func workloadStatus(view state.View, w api.Workload) api.WorkloadStatus {
	st := api.WorkloadStatus{Workload: w}
	current := 0 // ready, and of the current revision
	outdated := 0
	moving := false
	trouble := ""
	done := make(map[int]bool) // slots whose last generation came to its own good end
	for _, r := range view.ReplicasOf(w.Name) {
		if outOfSight(view, r) {
			r.State = api.ReplicaUnknown
			r.Reason = "its node is out of sight"
		}
		st.Replicas = append(st.Replicas, r)
		if r.Desired == api.DesiredStandby {
			continue // it serves nobody yet, and may never
		}
		done[r.Slot] = completed(w, r) // the last generation has the last word
		if r.State.Terminal() {
			continue
		}
		if r.State.Active() {
			st.Running++
		}
		if r.Revision != w.Revision {
			outdated++
		}
		switch r.State {
		case api.ReplicaReady:
			st.Ready++
			if r.Revision == w.Revision {
				current++
			}
		case api.ReplicaAssigned, api.ReplicaPreparing, api.ReplicaStarting, api.ReplicaRunning:
			moving = true
		}
		if r.State != api.ReplicaReady && r.Reason != "" {
			trouble = fmt.Sprintf("%s: %s", r.ID, r.Reason)
		}
	}
	st.Rollout = rollout(w, st.Replicas, current, view.Unplaced(w.Name))
	desired := w.Spec.Replicas
	if w.Deleted {
		desired = 0
	}
	ended := 0
	for slot, ok := range done {
		if ok && slot < desired {
			ended++
		}
	}
	unplaced := view.Unplaced(w.Name)
	switch {
	case w.Deleted:
		st.State, st.Message = api.WorkloadProgressing, "being deleted"
	case current >= desired && outdated == 0:
		st.State = api.WorkloadHealthy
	case ended > 0 && current+ended >= desired && outdated == 0:
		st.State = api.WorkloadHealthy
		if ended == desired {
			st.Message = cleanEnd
		}
	case unplaced != "" && st.Running == 0 && !moving:
		st.State, st.Message = api.WorkloadPending, unplaced
	case unplaced != "":
		st.State, st.Message = api.WorkloadDegraded, unplaced
	case failedForGood(w, st.Replicas):
		st.State, st.Message = api.WorkloadFailed, trouble
	case st.Running == 0 && len(st.Replicas) == 0:
		st.State = api.WorkloadPending
	case moving || outdated > 0:
		st.State, st.Message = api.WorkloadProgressing, trouble
	default:
		st.State, st.Message = api.WorkloadDegraded, trouble
	}
	return st
}

// rollout says how far the current revision has come, nil when nothing of an
// older one lives. lacks is what the scheduler says of the workload.
func rollout(w api.Workload, replicas []api.Replica, ready int, lacks string) *api.Rollout {
	r := &api.Rollout{State: api.RolloutProgressing, Revision: w.Revision, Updated: ready}
	for i := range replicas {
		if old := &replicas[i]; old.Revision != w.Revision && !old.State.Terminal() && old.Desired != api.DesiredStandby {
			r.Outdated++
			r.From = max(r.From, old.Revision)
		}
	}
	if r.Outdated == 0 || w.Deleted {
		return nil
	}
	if reconcile.RolloutStopped(lacks, w.Revision) {
		r.State, r.Message = api.RolloutStopped, lacks
	}
	return r
}

// cleanEnd is the reason of a replica whose process came to a good end.
const cleanEnd = "ended with code 0"

// completed reports whether a replica did what it was for: its process came to
// a good end by itself, and its restart policy asks for no other one.
func completed(w api.Workload, r api.Replica) bool {
	p := w.Spec.Restart.Policy
	return (p == api.RestartNever || p == api.RestartOnFailure) && r.State == api.ReplicaStopped &&
		r.Desired == api.DesiredRun && r.Revision == w.Revision && r.Reason == cleanEnd
}

// outOfSight reports whether nobody can tell how a replica is.
func outOfSight(view state.View, r api.Replica) bool {
	if r.State.Terminal() || r.Node == "" {
		return false
	}
	n, ok := view.Node(r.Node)
	return ok && (n.State == api.NodeSuspect || n.State == api.NodeCutOff || n.State == api.NodeDown)
}

// failedForGood reports whether a slot ended in failure and will stay so.
func failedForGood(w api.Workload, replicas []api.Replica) bool {
	if w.Spec.Restart.Policy != api.RestartNever {
		return false
	}
	last := make(map[int]api.ReplicaState)
	for _, r := range replicas { // ordered by slot and generation
		last[r.Slot] = r.State
	}
	for _, s := range last {
		if s == api.ReplicaFailed {
			return true
		}
	}
	return false
}
