package raftmeta

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cloudless-project/cloudless/api"
)

// Server is a member of the Raft group.
type Server struct {
	ID    api.NodeID
	Voter bool // false: it gets the log, but its vote is not needed
}

// memberTimeout bounds how long a change of membership waits to be begun.
const memberTimeout = 10 * time.Second

// Servers returns the members of the Raft group as this node knows them.
func (a *Anchor) Servers() ([]Server, error) {
	future := a.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, a.explain(err)
	}
	var out []Server
	for _, s := range future.Configuration().Servers {
		out = append(out, Server{api.NodeID(s.ID), s.Suffrage == raft.Voter})
	}
	return out, nil
}

// AddVoter makes a node an anchor with a vote, or gives one a vote. Two voters
// are worse than one; keep their number odd. Leader only.
func (a *Anchor) AddVoter(ctx context.Context, id api.NodeID) error {
	return a.await(ctx, a.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, memberTimeout))
}

// AddNonvoter lets a node follow the log without a vote. Leader only.
func (a *Anchor) AddNonvoter(ctx context.Context, id api.NodeID) error {
	return a.await(ctx, a.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, memberTimeout))
}

// RemoveServer takes a node out of the Raft group. Leader only.
func (a *Anchor) RemoveServer(ctx context.Context, id api.NodeID) error {
	return a.await(ctx, a.raft.RemoveServer(raft.ServerID(id), 0, memberTimeout))
}

// Transfer hands leadership to another voter. Leader only.
func (a *Anchor) Transfer(ctx context.Context, to api.NodeID) error {
	return a.await(ctx, a.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to)))
}

// Demote takes a voter's vote and leaves it the log. Leader only.
func (a *Anchor) Demote(ctx context.Context, id api.NodeID) error {
	return a.await(ctx, a.raft.DemoteVoter(raft.ServerID(id), 0, memberTimeout))
}

// Excluded reports whether a node is no member of the Raft group, for good: the
// configuration without it is durable on a majority. A node that has lost its
// log may begin an empty one only then; before, it could vote twice in a term,
// or count for entries that it has forgotten. Leader only.
func (a *Anchor) Excluded(ctx context.Context, id api.NodeID) (bool, error) {
	member := func() (bool, error) {
		servers, err := a.Servers()
		return slices.ContainsFunc(servers, func(s Server) bool { return s.ID == id }), err
	}
	if is, err := member(); is || err != nil {
		return false, err
	}
	// What is known here may be of an entry that only this anchor has: make sure of it.
	if err := a.await(ctx, a.raft.Barrier(memberTimeout)); err != nil {
		return false, err
	}
	is, err := member()
	return !is, err
}

// Applied returns the index of the last entry in this node's state.
func (a *Anchor) Applied() uint64 { return a.raft.AppliedIndex() }
