// Package reconcile compares what is wanted with what there is and returns the
// Plan that brings them together. It is the heart of the scheduler, and pure:
// Make(in) depends on nothing but its argument, time included.
//
// A workload has slots 0 … replicas−1. A slot is held by a living generation of
// the current revision; Make sees to it that every slot has one:
//
//   - An empty slot is filled at once, or after a back-off when its last
//     generations failed by themselves.
//   - A stale generation (an older revision, or on a node that is drained) is
//     replaced: its successor starts first and, once it is available, the stale
//     one stops. When there is no room for both, or the spec says stop-first,
//     the stale one stops first.
//   - At most maxSurge slots are being replaced at a time, and a rollout whose
//     new revision keeps failing stops by itself.
//   - Slots beyond replicas are emptied.
//   - No stop takes the workload below minAvailable. That one budget is shared
//     by rollout, drain and scale-down; losing nodes uses it up too.
//
// Nothing is moved off a node that is suspect; a replica on another node makes
// itself ready meanwhile. From a node that is cut off, what its workload's
// onDisconnect says is replaced, after the time it says; when the node is back,
// the slot has two generations, and the first one that serves holds it. A node
// that is down loses its replicas in the state already; here they are only ended
// generations that leave an empty slot.
//
// Make is idempotent: after its plan has been carried out, and as long as
// nothing else changes, the next plan is empty. What it cannot place it says in
// Plan.Unplaced, and tries again whenever the input changes.
package reconcile
