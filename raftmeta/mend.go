package raftmeta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// mendTail prepares the last segment of the log for raft-wal, which (v0.4.0)
// can never again append to a segment whose sealing a crash or a full disk has
// interrupted: its index is in the file, but the table of contents does not
// say so. Here a sealing that reached the file is completed, and one that did
// not is cut off, with everything else behind the last commit, unless the mark
// says that it was acknowledged.
func mendTail(dir *directory, meta types.MetaStore, mark uint64) error {
	contents, err := meta.Load(filepath.Join(dir.path, walDir))
	if err != nil {
		return err
	}
	if len(contents.Segments) == 0 {
		return nil
	}
	tail := &contents.Segments[len(contents.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	name := filepath.Join(walDir, segment.FileName(*tail))
	data, err := dir.root.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the crash came before it was made
	}
	if err != nil {
		return err
	}
	found, err := scanSegment(data)
	if err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	if last := tail.BaseIndex + uint64(found.entries) - 1; mark >= tail.BaseIndex && mark > last {
		return fmt.Errorf("segment %s ends with entry %d, but entry %d was acknowledged", name, last, mark)
	}
	if found.torn {
		if err := truncate(dir.root, name, found.end); err != nil {
			return err
		}
	}
	if found.index == 0 {
		return nil
	}
	seal(&contents, tail, found)
	return meta.CommitState(contents)
}

// seal notes in the table of contents that the tail is full, and that a new
// one follows, whose file raft-wal makes.
func seal(contents *types.PersistentState, tail *types.SegmentInfo, found scanned) {
	tail.SealTime = time.Now()
	tail.IndexStart = uint64(found.index)
	tail.MaxIndex = tail.BaseIndex + uint64(found.entries) - 1
	contents.Segments = append(contents.Segments, types.SegmentInfo{
		ID: contents.NextSegmentID, BaseIndex: tail.MaxIndex + 1, MinIndex: tail.MaxIndex + 1,
		Codec: tail.Codec, CreateTime: time.Now(), SizeLimit: segmentSize,
	})
	contents.NextSegmentID++
}

func truncate(root *os.Root, name string, size int) error {
	f, err := root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(size))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// A segment, as raft-wal's segment/format.go describes it: a header, then
// frames of 8 bytes (type, three reserved, length or CRC) and a padded payload.
// A commit frame's CRC covers everything since the one before.
const (
	segmentHeader = 32
	frameHead     = 8
)

// scanned is what was found in a segment.
type scanned struct {
	end     int  // of the last commit that is whole
	entries int  // committed
	index   int  // where the committed index lies; 0 when the segment is not sealed
	torn    bool // there is something behind end
}

// scanSegment reads the frames of a segment. It fails when a commit is damaged
// that is not the last one, since that is no consequence of a crash.
func scanSegment(data []byte) (scanned, error) {
	var good scanned
	entries, index, damaged := 0, 0, 0
scan:
	for at := segmentHeader; at+frameHead <= len(data); {
		word := binary.LittleEndian.Uint32(data[at+4:])
		payload := 0
		switch data[at] {
		case segment.FrameEntry:
			payload = int(word)
			entries++
		case segment.FrameIndex:
			payload = int(word)
			index = at + frameHead
		case segment.FrameCommit:
			if damaged > 0 {
				return good, fmt.Errorf("the commit at byte %d: %w", damaged, errChecksum)
			}
			if crc32.Checksum(data[good.end:at], castagnoli) == word {
				good = scanned{end: at + frameHead, entries: entries, index: index}
			} else {
				damaged = at
			}
		default:
			break scan // nothing was written here, or not all of it
		}
		at += frameHead + (payload+frameHead-1)/frameHead*frameHead
	}
	good.torn = len(bytes.TrimLeft(data[good.end:], "\x00")) > 0
	return good, nil
}
