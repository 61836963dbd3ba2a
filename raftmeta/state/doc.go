// Package state is the authoritative state of a cluster: the tables, the
// commands that change them, and immutable views of them.
//
// It is pure. Apply reads no clock, draws no random number, does no I/O and
// writes no log: times and identifiers arrive inside the commands, so every
// anchor that applies the same commands in the same order holds the same
// tables, byte for byte.
//
// # Changing state
//
// A Command is a plain struct. Store.Apply takes a list of them and applies
// all or none; each command is validated against the tables as the ones before
// it left them, and refuses with an *api.Error. Every row carries the Raft
// index of its last change (Version): a caller that decided on what it read
// says so with ExpectVersion, and a plan says at which index it was made.
// A command that changes nothing (a report that repeats itself) wakes nobody.
//
// To add a command: write the struct and its apply method in the file of its
// noun, add one row to the table in command.go, and describe it here if it
// brings a new rule.
//
// # Reading state
//
// Store.Watch returns a View and a channel that is closed at the next change,
// in one step. A View never changes; what it returns shares memory with the
// tables and is read-only.
//
// # Rules that callers rely on
//
//   - Replica states only move forward, Ready and NotReady excepted. Stopped,
//     Failed and Lost are final: no report brings a replica back.
//   - When a node goes down or is removed, its replicas become Lost, for good.
//     If it returns, its assignments (View.Assigned) no longer list them: the
//     node stops everything that is not assigned to it. Until the anchor has
//     seen its report it must not take them for running.
//   - Suspect and cut-off nodes keep their replicas untouched.
//   - A generation of a slot is never used twice, even when a workload is
//     deleted and made again: the state may raise the generation of a plan.
//   - A deleted workload, its service and its history vanish when its last
//     replica has ended.
//   - The generations of the cluster's authority only grow, one change at a time;
//     only one that never issued can be withdrawn. api.Cluster.CA stays the
//     founding one.
//   - Everything is bounded; see the constants in limits.go.
package state
