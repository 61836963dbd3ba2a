// Package raftmeta keeps the authoritative state of a cluster on its anchors:
// hashicorp/raft over streams that the caller supplies, a write-ahead log and
// snapshots on disk, and raftmeta/state as the state machine.
//
// What it promises: a command that Propose has acknowledged is on the disks of
// a majority of the anchors, fsynced, and survives a kill -9 or a power cut at
// any moment. A log, snapshot or directory that is damaged, foreign or in use
// is refused by Open with an *api.Error that says which file and what to do;
// it is never repaired by forgetting.
//
// What it needs: a directory of its own on a local disk, streams between
// anchors that are authenticated already, and exactly one Run for each Open.
//
// What it never does: decide who becomes an anchor, or recover a cluster that
// has lost its majority. Both are for people and for package node.
package raftmeta
