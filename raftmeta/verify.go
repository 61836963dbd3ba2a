package raftmeta

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/cloudless-project/cloudless/api"
)

// verify reads everything on disk once, before raft does: raft would panic on
// a damaged entry, and go back to an older snapshot without a word.
func verify(dir *directory, j *journal, snapshots raft.SnapshotStore) error {
	covered, err := verifySnapshot(dir, snapshots)
	if err != nil {
		return err
	}
	first, err := j.FirstIndex()
	if err != nil {
		return dir.damaged(walDir, "%w", err)
	}
	last, err := j.LastIndex()
	if err != nil {
		return dir.damaged(walDir, "%w", err)
	}
	if end := max(last, covered); end < j.last {
		return dir.damaged(dir.segment(j.last), "the log ends with entry %d, but entry %d was acknowledged", end, j.last)
	}
	if first > covered+1 {
		return dir.damaged(dir.segment(first), "the log begins with entry %d, but the newest snapshot ends with %d", first, covered)
	}
	for i := first; i <= last && last > 0; i++ {
		if err := verifyEntry(j, i); err != nil {
			return dir.damaged(dir.segment(i), "entry %d: %w", i, err)
		}
	}
	return nil
}

func verifyEntry(j *journal, index uint64) error {
	var entry raft.Log
	if err := j.GetLog(index, &entry); err != nil {
		return err
	}
	if entry.Index != index {
		return fmt.Errorf("it says that it is entry %d", entry.Index)
	}
	if entry.Type != raft.LogCommand {
		return nil
	}
	_, err := unframe(entry.Data)
	return err
}

// verifySnapshot returns the index that the newest snapshot covers, 0 when
// there is none.
func verifySnapshot(dir *directory, snapshots raft.SnapshotStore) (uint64, error) {
	names, err := dir.names(snapshotDir)
	if err != nil {
		return 0, dir.explain(snapshotDir, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, ".tmp") }) // of a crash; raft removes them
	good, err := snapshots.List()
	if err != nil {
		return 0, dir.explain(snapshotDir, err)
	}
	if len(names) == 0 {
		return 0, nil
	}
	if len(good) < min(len(names), snapshotsKept) {
		return 0, dir.damaged(snapshotDir, "of %d snapshots only %d have a readable description", len(names), len(good))
	}
	newest := good[0]
	meta, r, err := snapshots.Open(newest.ID)
	if err != nil {
		return 0, dir.damaged(filepath.Join(snapshotDir, newest.ID), "%w", err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err != nil || n != meta.Size {
		return 0, dir.damaged(filepath.Join(snapshotDir, newest.ID), "%d of %d bytes can be read", n, meta.Size)
	}
	return newest.Index, nil
}

// names lists a subdirectory, sorted.
func (d *directory) names(sub string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, sub))
	if err != nil {
		return nil, err
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out, nil
}

// segment returns the name of the file that holds, or should hold, an entry:
// segments are called after their first one.
func (d *directory) segment(index uint64) string {
	names, err := d.names(walDir)
	if err != nil {
		return walDir
	}
	found := walDir
	for _, name := range names {
		var first uint64
		if _, err := fmt.Sscanf(name, "%020d-", &first); err == nil && strings.HasSuffix(name, ".wal") && first <= index {
			found = filepath.Join(walDir, name)
		}
	}
	return found
}

// isPlain reports whether err is not yet an error for people.
func isPlain(err error) bool {
	var e *api.Error
	return !errors.As(err, &e)
}
