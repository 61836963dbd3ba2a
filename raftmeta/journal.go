package raftmeta

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// segmentSize is what the log preallocates at a time.
const segmentSize = 8 << 20

// journal is the write-ahead log, and raft's store for terms and votes, with
// two things added.
//
// The mark: a log whose end is missing looks to itself like one that was cut
// short by a crash; the mark tells the two apart.
//
// What follows a failed write: the log keeps the frames of that write in
// memory and would confuse them with later ones. When the disk was full, the
// log is mended and opened anew once there is room; after any other failure
// nobody knows what is on the disk, and the anchor halts.
type journal struct {
	dir    *directory
	logger hclog.Logger
	halt   *halt
	mark   *mark
	taken  atomic.Bool // raft's own goroutines call from now on

	mu   sync.RWMutex // held to read, except while log is replaced
	log  *openLog
	full error // why log takes no entries until it is opened anew
}

func openJournal(dir *directory, logger hclog.Logger, halt *halt) (_ *journal, err error) {
	j := &journal{dir: dir, logger: logger, halt: halt}
	if j.mark, err = openMark(dir); err != nil {
		return nil, err
	}
	defer closeOnError(&err, j.mark.Close)
	if j.log, err = openWAL(dir, j.mark.get(), logger); err != nil {
		return nil, err
	}
	return j, nil
}

// perish ends the calling goroutine, which is one of raft's, after the anchor
// has halted. Raft panics when it cannot read its log or write its term, and a
// daemon has more to do than that: containers, names and connections live on.
// What raft began stays undone, as if the power had gone.
func (j *journal) perish(cause error) {
	j.halt.now(j.dir.explain(walDir, cause))
	runtime.Goexit()
}

// StoreLog implements raft.LogStore.
func (j *journal) StoreLog(entry *raft.Log) error { return j.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. Raft calls it from one goroutine.
func (j *journal) StoreLogs(entries []*raft.Log) error {
	if err := j.heal(); err != nil || len(entries) == 0 {
		return err
	}
	if err := j.with(func(l *openLog) error { return l.StoreLogs(entries) }); err != nil {
		j.fail(err)
		return err
	}
	return j.mark.set(entries[len(entries)-1].Index)
}

// DeleteRange implements raft.LogStore. When it removes the end of the log
// the mark steps back first.
func (j *journal) DeleteRange(first, last uint64) error {
	if at := j.mark.get(); at >= first && at <= last {
		if err := j.heal(); err != nil {
			return err
		}
		if err := j.mark.set(first - 1); err != nil {
			return err
		}
	}
	return j.with(func(l *openLog) error { return l.DeleteRange(first, last) })
}

// fail notes that a write failed. That a segment is sealed means that the disk
// was too full for the one that should follow it.
func (j *journal) fail(cause error) {
	if errors.Is(cause, wal.ErrSealed) {
		cause = errors.Join(syscall.ENOSPC, cause)
	}
	if !errors.Is(cause, syscall.ENOSPC) && !errors.Is(cause, syscall.EDQUOT) {
		j.halt.now(j.dir.explain(walDir, cause))
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.full = cause
}

// whyFull returns why the log takes no entries, nil while it does.
func (j *journal) whyFull() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.full
}

// heal returns nil when the log can be written to.
func (j *journal) heal() error {
	if err := j.halt.reason(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.full == nil {
		return nil
	}
	if free, err := j.dir.free(); err != nil || free < 2*segmentSize {
		return errors.Join(j.full, err)
	}
	if err := j.reopen(); err != nil {
		j.halt.now(err)
		return err
	}
	j.full = nil
	return nil
}

// reopen replaces the log by what is on the disk of it, up to the last entry
// that was acknowledged.
func (j *journal) reopen() error {
	if err := j.log.Close(); err != nil {
		return j.dir.explain(walDir, err)
	}
	log, err := openWAL(j.dir, j.mark.get(), j.logger)
	if err != nil {
		return err
	}
	j.log = log
	last, err := log.LastIndex()
	if err != nil {
		return j.dir.explain(walDir, err)
	}
	durable := j.mark.get()
	if last < durable {
		return j.dir.damaged(j.dir.segment(durable), "the log ends with entry %d, but entry %d was acknowledged", last, durable)
	}
	if last > durable {
		if err := log.DeleteRange(durable+1, last); err != nil {
			return j.dir.explain(walDir, err)
		}
	}
	return nil
}

// Close closes the files.
func (j *journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.log.Close(), j.mark.Close())
}

func (j *journal) with(f func(*openLog) error) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return f(j.log)
}

// FirstIndex implements raft.LogStore.
func (j *journal) FirstIndex() (index uint64, err error) {
	err = j.with(func(l *openLog) error { index, err = l.FirstIndex(); return err })
	return index, err
}

// LastIndex implements raft.LogStore.
func (j *journal) LastIndex() (index uint64, err error) {
	err = j.with(func(l *openLog) error { index, err = l.LastIndex(); return err })
	return index, err
}

// GetLog implements raft.LogStore.
func (j *journal) GetLog(index uint64, entry *raft.Log) error {
	return j.with(func(l *openLog) error { return l.GetLog(index, entry) })
}

// IsMonotonic implements raft.MonotonicLogStore.
func (*journal) IsMonotonic() bool { return true }

// raftJournal is the journal as raft gets it: the calls whose failure makes
// raft panic end no more than the anchor.
type raftJournal struct{ *journal }

// GetLog implements raft.LogStore.
func (j raftJournal) GetLog(index uint64, entry *raft.Log) error {
	err := j.journal.GetLog(index, entry)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && j.taken.Load() {
		j.perish(fmt.Errorf("read entry %d: %w", index, err))
	}
	return err
}

// SetUint64 implements raft.StableStore.
func (j raftJournal) SetUint64(key []byte, value uint64) error {
	err := j.journal.SetUint64(key, value)
	if err != nil && j.taken.Load() {
		j.perish(fmt.Errorf("write %s: %w", key, err))
	}
	return err
}

// Set implements raft.StableStore.
func (j *journal) Set(key, value []byte) error {
	return j.with(func(l *openLog) error { return l.Set(key, value) })
}

// Get implements raft.StableStore.
func (j *journal) Get(key []byte) (value []byte, err error) {
	err = j.with(func(l *openLog) error { value, err = l.Get(key); return err })
	return value, err
}

// SetUint64 implements raft.StableStore.
func (j *journal) SetUint64(key []byte, value uint64) error {
	return j.with(func(l *openLog) error { return l.SetUint64(key, value) })
}

// GetUint64 implements raft.StableStore.
func (j *journal) GetUint64(key []byte) (value uint64, err error) {
	err = j.with(func(l *openLog) error { value, err = l.GetUint64(key); return err })
	return value, err
}

// openLog is the log with its table of contents, which it does not close.
type openLog struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

// openWAL opens the log and survives what damaged files can do to the code
// that maps them into memory.
func openWAL(dir *directory, mark uint64, logger hclog.Logger) (*openLog, error) {
	l := &openLog{meta: &metadb.BoltMetaDB{}}
	err := func() (err error) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("opening it failed badly: %v", p)
			}
		}()
		if err := mendTail(dir, l.meta, mark); err != nil {
			return err
		}
		l.WAL, err = wal.Open(filepath.Join(dir.path, walDir),
			wal.WithMetaStore(l.meta), wal.WithSegmentSize(segmentSize), wal.WithLogger(logger))
		return err
	}()
	if err == nil {
		return l, nil
	}
	if explained := dir.explain(walDir, err); !isPlain(explained) {
		return nil, errors.Join(explained, l.meta.Close())
	}
	return nil, errors.Join(dir.damaged(walDir, "%w", err), l.meta.Close())
}

// Close closes both.
func (l *openLog) Close() error { return errors.Join(l.WAL.Close(), l.meta.Close()) }
