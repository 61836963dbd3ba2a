package raftmeta

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
)

// mark is a small file with the index of the last entry of the log that was
// durable. It is written after the log's fsync and not synced itself, so it
// may lag behind the log after a power cut, but never runs ahead of it.
type mark struct {
	file *os.File

	mu    sync.Mutex
	index uint64 // 0 when nothing is known
}

const markSize = 8 + 4

func openMark(dir *directory) (*mark, error) {
	f, err := dir.root.OpenFile(markFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, dir.explain(markFile, err)
	}
	m := &mark{file: f}
	if err := m.read(); err != nil {
		err = dir.damaged(markFile, "%w", err)
		closeOnError(&err, f.Close)
		return nil, err
	}
	return m, nil
}

func (m *mark) read() error {
	b := make([]byte, markSize)
	n, err := m.file.ReadAt(b, 0)
	if n == 0 {
		return nil // new, or not yet on disk when the power went
	}
	if n < markSize {
		return fmt.Errorf("it has %d bytes: %w", n, err)
	}
	if binary.BigEndian.Uint32(b[8:]) != crc32.Checksum(b[:8], castagnoli) {
		return errChecksum
	}
	m.index = binary.BigEndian.Uint64(b)
	return nil
}

func (m *mark) get() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index
}

func (m *mark) set(index uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := binary.BigEndian.AppendUint64(make([]byte, 0, markSize), index)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := m.file.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	m.index = index
	return nil
}

// Close closes the file.
func (m *mark) Close() error { return m.file.Close() }
