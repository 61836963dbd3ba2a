// Package sched is the scheduler: a loop on the leader that takes a snapshot of
// what is wanted and what there is, makes a plan (sched/reconcile, which asks
// sched/place for nodes) and commits it.
//
// The loop keeps nothing between two plans, so a new leader goes on where the
// last one stopped, and no decision depends on who takes it. A plan that was
// overtaken by events is refused by the state as a whole; the loop then makes a
// new one.
package sched
