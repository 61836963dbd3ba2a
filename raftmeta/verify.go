package raftmeta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/cloudless-project/cloudless/api"
)

// verify reads everything on disk once, before raft does: raft would panic on
// a damaged entry, and go back to an older snapshot without a word.
func verify(dir *directory, j *journal, snapshots raft.SnapshotStore) error {
	covered, err := verifySnapshots(dir, snapshots)
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
	if end := max(last, covered); end < j.mark.get() {
		return dir.damaged(dir.segment(j.mark.get()), "the log ends with entry %d, but entry %d was acknowledged", end, j.mark.get())
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

// verifySnapshots reads every snapshot and returns the highest index that one
// covers, 0 when there is none.
func verifySnapshots(dir *directory, snapshots raft.SnapshotStore) (covered uint64, err error) {
	names, err := dir.names(snapshotDir)
	if err != nil {
		return 0, dir.explain(snapshotDir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".tmp") {
			continue // of a crash; raft removes it
		}
		meta, r, err := snapshots.Open(name) // compares the checksum
		if err != nil {
			return 0, dir.damaged(filepath.Join(snapshotDir, name), "%w", err)
		}
		covered = max(covered, meta.Index)
		if err := r.Close(); err != nil {
			return 0, dir.explain(snapshotDir, err)
		}
	}
	return covered, nil
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
		base, _, _ := strings.Cut(name, "-")
		if first, err := strconv.ParseUint(base, 10, 64); err == nil && first <= index {
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
