package raftmeta

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// machine is the state machine that raft drives. When it meets an entry that
// it cannot read it halts: going on would make a state that no other anchor has.
type machine struct {
	store *state.Store
	halt  *halt
}

// Apply implements raft.FSM. It returns a state.Result, or the error that
// halted the machine.
func (m *machine) Apply(entry *raft.Log) any {
	if err := m.halt.reason(); err != nil {
		return err
	}
	body, err := unframe(entry.Data)
	if err != nil {
		return m.unreadable(entry.Index, err)
	}
	cmds, err := state.Decode(body)
	if err != nil {
		return m.unreadable(entry.Index, err)
	}
	return m.store.Apply(entry.Index, cmds)
}

func (m *machine) unreadable(index uint64, cause error) error {
	m.halt.now(api.Errorf(api.KindUnsupported, "entry %d of the cluster's log cannot be read: %w", index, cause).
		WithHint("update Cloudless on this anchor: the others run a newer version"))
	return m.halt.reason()
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	return snapshot{m.store.View()}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	return m.store.Restore(r)
}

// snapshot is a view, which never changes: raft persists it at leisure.
type snapshot struct{ view state.View }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.Snapshot(sink); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}

// A frame is the data of an entry: a version, the CRC-32C of the rest, the
// encoded commands. The log checks only its newest entries by itself.
const (
	frameVersion = 1
	frameHeader  = 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frame(body []byte) []byte {
	data := make([]byte, 0, frameHeader+len(body))
	data = append(data, frameVersion)
	data = binary.BigEndian.AppendUint32(data, crc32.Checksum(body, castagnoli))
	return append(data, body...)
}

func unframe(data []byte) ([]byte, error) {
	if len(data) < frameHeader {
		return nil, fmt.Errorf("entry of %d bytes is too short", len(data))
	}
	if data[0] != frameVersion {
		return nil, fmt.Errorf("entry has the unknown version %d", data[0])
	}
	body := data[frameHeader:]
	if binary.BigEndian.Uint32(data[1:frameHeader]) != crc32.Checksum(body, castagnoli) {
		return nil, errChecksum
	}
	return body, nil
}

var errChecksum = fmt.Errorf("its checksum does not match")
