package raftmeta

import (
	"bytes"
	"errors"
	"io"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// Restore makes an anchor's directory, which must be empty, from a state that
// was saved, changed by cmds in the place of the first entries of a new Raft
// group of which id is the only member. Nothing of the group that the state
// came from is in it: the two must never meet.
func Restore(path string, id api.NodeID, saved io.Reader, cmds ...state.Command) (_ state.View, err error) {
	store := state.New()
	if err := store.Restore(saved); err != nil {
		return state.View{}, err
	}
	index := store.View().Index() + 1
	if res := store.Apply(index, cmds); res.Err != nil {
		return state.View{}, res.Err
	}
	dir, err := openDirectory(path, id)
	if err != nil {
		return state.View{}, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if names, err := dir.names(walDir); err != nil || len(names) > 0 {
		return state.View{}, errors.Join(err, api.Errorf(api.KindConflict, "%s holds the log of an anchor already", path).
			WithHint("restore into a new data directory"))
	}
	logger := newLogger(zap.NewNop())
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(path, snapshotsKept, logger)
	if err != nil {
		return state.View{}, dir.explain(snapshotDir, err)
	}
	var body bytes.Buffer
	if err := store.Snapshot(&body); err != nil {
		return state.View{}, err
	}
	return store.View(), writeFirst(dir, id, snapshots, index, &body)
}

// writeFirst writes the snapshot that a Raft group of one begins with.
func writeFirst(dir *directory, id api.NodeID, snapshots raft.SnapshotStore, index uint64, body io.Reader) error {
	_, transport := raft.NewInmemTransport("") // the store asks it to encode addresses in an old format, no more
	self := raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)}
	sink, err := snapshots.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{Servers: []raft.Server{self}}, index, transport)
	if err != nil {
		return dir.explain(snapshotDir, err)
	}
	if _, err := io.Copy(sink, body); err != nil {
		return errors.Join(dir.explain(snapshotDir, err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return dir.explain(snapshotDir, err)
	}
	return nil
}
