package raftmeta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// segmentSize is what the log preallocates at a time.
const segmentSize = 8 << 20

// journal is the write-ahead log, and raft's store for terms and votes, with
// one thing added: the mark, a separate file with the index of the last entry
// that was durable. A log whose end is missing looks to itself like one that
// was cut short by a crash; the mark tells the two apart. It is written after
// the log's fsync and not synced itself, so it may lag behind the log after a
// power cut, but never runs ahead of it.
type journal struct {
	*wal.WAL
	meta *metadb.BoltMetaDB // of WAL, which does not close it

	mu   sync.Mutex
	mark *os.File
	last uint64 // what the mark says
}

func openJournal(dir *directory, logger hclog.Logger) (_ *journal, err error) {
	j := &journal{meta: &metadb.BoltMetaDB{}}
	if j.mark, err = dir.root.OpenFile(markFile, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, dir.explain(markFile, err)
	}
	defer closeOnError(&err, j.mark.Close)
	if err := j.readMark(); err != nil {
		return nil, dir.damaged(markFile, "%w", err)
	}
	defer closeOnError(&err, j.meta.Close)
	if j.WAL, err = openWAL(filepath.Join(dir.path, walDir), j.meta, logger); err != nil {
		if explained := dir.explain(walDir, err); !isPlain(explained) {
			return nil, explained
		}
		return nil, dir.damaged(walDir, "%w", err)
	}
	return j, nil
}

// openWAL opens the log and survives what damaged files can do to the code
// that maps them into memory.
func openWAL(dir string, meta *metadb.BoltMetaDB, logger hclog.Logger) (w *wal.WAL, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			w, err = nil, fmt.Errorf("opening it failed badly: %v", p)
		}
	}()
	return wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentSize(segmentSize), wal.WithLogger(logger))
}

// StoreLog implements raft.LogStore.
func (j *journal) StoreLog(entry *raft.Log) error { return j.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (j *journal) StoreLogs(entries []*raft.Log) error {
	if err := j.WAL.StoreLogs(entries); err != nil || len(entries) == 0 {
		return err
	}
	return j.setMark(entries[len(entries)-1].Index)
}

// DeleteRange implements raft.LogStore. When it removes the end of the log
// the mark steps back first.
func (j *journal) DeleteRange(first, last uint64) error {
	j.mu.Lock()
	steps := j.last >= first && j.last <= last
	j.mu.Unlock()
	if steps {
		if err := j.setMark(first - 1); err != nil {
			return err
		}
	}
	return j.WAL.DeleteRange(first, last)
}

// Close closes the log.
func (j *journal) Close() error {
	return errors.Join(j.WAL.Close(), j.meta.Close(), j.mark.Close())
}

const markSize = 8 + 4

func (j *journal) setMark(index uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := binary.BigEndian.AppendUint64(make([]byte, 0, markSize), index)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := j.mark.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	j.last = index
	return nil
}

func (j *journal) readMark() error {
	b := make([]byte, markSize)
	n, err := j.mark.ReadAt(b, 0)
	if n == 0 {
		return nil // new, or not yet on disk when the power went
	}
	if n < markSize {
		return fmt.Errorf("it has %d bytes: %w", n, err)
	}
	if binary.BigEndian.Uint32(b[8:]) != crc32.Checksum(b[:8], castagnoli) {
		return errChecksum
	}
	j.last = binary.BigEndian.Uint64(b)
	return nil
}
