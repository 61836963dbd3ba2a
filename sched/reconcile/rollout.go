package reconcile

import (
	"fmt"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// maxFaults is how often a new revision may fail before its rollout stops. Two
// could be bad luck with one node.
const maxFaults = 3

// rolloutFault says why the new revision must not replace more of the old one:
// it fails again and again, or does not become available in time. There is no
// rollout, and no fault, when nothing of an older revision lives.
func (k *work) rolloutFault() string {
	old, failed := 0, 0
	var fault string
	for _, s := range k.slots {
		for _, r := range s.live {
			if r.Revision != k.w.Revision {
				old = max(old, r.Revision)
			}
		}
	}
	if old == 0 {
		return ""
	}
	for _, s := range k.slots {
		for _, r := range s.ended {
			if r.Revision == k.w.Revision && r.State == api.ReplicaFailed && r.Desired == api.DesiredRun {
				failed++
				if failed >= maxFaults && fault == "" {
					fault = fmt.Sprintf("it failed %d times, the last time as %s%s", failed, r.ID, because(r))
				}
			}
		}
		for _, r := range s.live {
			if f := k.liveFault(r); f != "" && fault == "" {
				fault = f
			}
		}
	}
	if fault == "" {
		return ""
	}
	return fmt.Sprintf("%s%s; revision %d goes on serving", stopped(k.w.Revision), fault, old)
}

func stopped(revision int) string {
	return fmt.Sprintf("the rollout of revision %d has stopped: ", revision)
}

// RolloutStopped reports whether what a workload lacks, as the plan has it, is
// that the rollout of a revision has stopped.
func RolloutStopped(lacks string, revision int) bool {
	return strings.HasPrefix(lacks, stopped(revision))
}

func (k *work) liveFault(r *api.Replica) string {
	if r.Revision != k.w.Revision || k.isAvailable(r) || k.where(r) == hidden {
		return ""
	}
	if r.Restarts >= maxFaults {
		return fmt.Sprintf("%s has restarted %d times%s", r.ID, r.Restarts, because(r))
	}
	deadline := k.w.Spec.Update.HealthyDeadline.Std()
	if deadline <= 0 {
		return ""
	}
	at := r.CreatedAt.Add(deadline)
	if k.in.Now.Before(at) {
		k.wake(at)
		return ""
	}
	return fmt.Sprintf("%s is not ready after %v%s", r.ID, deadline, because(r))
}

func because(r *api.Replica) string {
	if r.Reason == "" {
		return ""
	}
	return " (" + clip(r.Reason, 80) + ")"
}
