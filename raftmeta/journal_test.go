package raftmeta

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"go.uber.org/zap"
)

// crashingMeta is a table of contents that cannot be written any more once the
// log exists: the crash comes when the first segment is full.
type crashingMeta struct {
	*metadb.BoltMetaDB
	commits int
}

func (m *crashingMeta) CommitState(s types.PersistentState) error {
	if m.commits++; m.commits > 1 {
		return errors.New("crash")
	}
	return m.BoltMetaDB.CommitState(s)
}

func testEntry(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: frame(bytes.Repeat(fmt.Appendf(nil, "%d ", index), 300))}
}

// sealedLog fills the first segment of a log, and crashes before the table of
// contents says so. It returns the index of the last entry.
func sealedLog(t *testing.T, dir string) uint64 {
	t.Helper()
	path := filepath.Join(dir, walDir)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	meta := &crashingMeta{BoltMetaDB: &metadb.BoltMetaDB{}}
	log, err := wal.Open(path, wal.WithMetaStore(meta), wal.WithSegmentSize(16<<10), wal.WithLogger(newLogger(zap.NewNop())))
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for err == nil {
		if err = log.StoreLog(testEntry(last + 1)); err == nil {
			last++
		}
	}
	if !errors.Is(err, wal.ErrSealed) {
		t.Fatal(err)
	}
	if err := errors.Join(log.Close(), meta.Close()); err != nil {
		t.Fatal(err)
	}
	return last
}

func openTestJournal(t *testing.T, path string) (*journal, error) {
	t.Helper()
	dir, err := openDirectory(path, "one")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return openJournal(dir, newLogger(zap.NewNop()), newHalt())
}

// checkAppends writes a few entries behind last, and reads everything.
func checkAppends(t *testing.T, j *journal, last uint64) {
	t.Helper()
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got, err := j.LastIndex(); err != nil || got != last {
		t.Fatalf("the log ends with %d, want %d (%v)", got, last, err)
	}
	for range 5 {
		last++
		if err := j.StoreLog(testEntry(last)); err != nil {
			t.Fatal(err)
		}
	}
	for i := uint64(1); i <= last; i++ {
		var got raft.Log
		if err := j.GetLog(i, &got); err != nil || !bytes.Equal(got.Data, testEntry(i).Data) {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}

func TestCrashBetweenSealingAndTheTableOfContents(t *testing.T) {
	dir := t.TempDir()
	last := sealedLog(t, dir)
	j, err := openTestJournal(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	checkAppends(t, j, last)
}

// The write that seals a segment is torn at every possible place.
func TestTornSealing(t *testing.T) {
	whole := t.TempDir()
	last := sealedLog(t, whole)
	segments, err := filepath.Glob(filepath.Join(whole, walDir, "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	data, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(data, "\x00"))
	sealing := bytes.LastIndex(data[:end], testEntry(last).Data)
	for at := sealing; at < end; at += 61 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		torn := bytes.Clone(data)
		clear(torn[at:min(at+32, end)]) // the rest did reach the disk
		if err := os.WriteFile(filepath.Join(dir, walDir, filepath.Base(segments[0])), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openTestJournal(t, dir)
		if err != nil {
			t.Fatalf("torn at byte %d: %v", at, err)
		}
		checkAppends(t, j, last-1)
	}
}

func TestMarkForbidsToCutAcknowledgedEntries(t *testing.T) {
	dir := t.TempDir()
	last := sealedLog(t, dir)
	segments, _ := filepath.Glob(filepath.Join(dir, walDir, "*.wal"))
	before, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(before, testEntry(last).Data)
	before[at+100] ^= 1
	if err := os.WriteFile(segments[0], before, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := openDirectory(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	m, err := openMark(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.set(last), m.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = openTestJournal(t, dir)
	checkRefusal(t, err, "wal")
	if after, err := os.ReadFile(segments[0]); err != nil || !bytes.Equal(after, before) {
		t.Error("the refusal changed the file")
	}
}

func TestFailedWriteHaltsTheAnchor(t *testing.T) {
	a := mustOpen(t, t.TempDir())
	eventually(t, "leads", a.IsLeader)
	propose(t, a, 1)
	if err := a.journal.log.WAL.Close(); err != nil { // as good as a broken disk
		t.Fatal(err)
	}
	if _, err := a.Propose(t.Context(), label(2)); err == nil {
		t.Error("a change that could not be written was acknowledged")
	}
	if err := a.Run(t.Context()); err == nil {
		t.Error("the anchor did not halt")
	}
}

func FuzzScanSegment(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Add(append(make([]byte, segmentHeader), 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := scanSegment(data)
		if err == nil && (found.end > len(data) || found.index > found.end) {
			t.Errorf("found %+v in %d bytes", found, len(data))
		}
	})
}

func FuzzUnframe(f *testing.F) {
	f.Add(frame([]byte(`[]`)))
	f.Add([]byte{frameVersion, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if body, err := unframe(data); err == nil && !bytes.Equal(frame(body), data) {
			t.Errorf("%x is not what its body gives", data)
		}
	})
}
