package node

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/p2p"
)

// recordsFile keeps what the members have signed of their addresses, so that a
// node that starts while every anchor is away finds the others where they are
// now, and not where the last view has them.
const recordsFile = "records.json"

const (
	// recordsSettle is how long a change waits for others: a node that starts
	// hears of everybody within seconds.
	recordsSettle = 5 * time.Second
	// recordsBytesPerSecond bounds what records write to the disk, as views are
	// bounded, and recordsDelay how old those on the disk may be.
	recordsBytesPerSecond = 512
	recordsDelay          = 10 * time.Minute
)

// loadRecords returns the records that an earlier daemon kept. The mesh judges
// each of them; a file that cannot be read is as good as none.
func loadRecords(dir *dataDir, log *zap.Logger) [][]byte {
	var records [][]byte
	if err := dir.loadJSON(recordsFile, &records); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the cached addresses of the members cannot be read; the other members have them", zap.Error(err))
		return nil
	}
	return records
}

// recordSource is the part of the mesh whose records are kept.
type recordSource interface {
	Records() (records [][]byte, changed <-chan struct{})
}

var _ recordSource = (*p2p.Mesh)(nil)

// keepRecords writes the records to the disk until ctx ends, and then once more.
func keepRecords(ctx context.Context, dir *dataDir, from recordSource, log *zap.Logger) error {
	var saved [][]byte
	for {
		stopping := retry.Sleep(ctx, recordsSettle) != nil
		records, changed := from.Records()
		if !slices.EqualFunc(records, saved, bytes.Equal) {
			if err := dir.saveJSON(recordsFile, records); err != nil {
				log.Warn("the addresses of the members were not saved", zap.Error(err))
			}
			saved = records
		}
		if stopping {
			return nil
		}
		if retry.Sleep(ctx, recordsPause(records)) != nil {
			continue // once more
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// recordsPause returns how long the disk rests after a write.
func recordsPause(records [][]byte) time.Duration {
	size := 0
	for _, r := range records {
		size += len(r)
	}
	return min(time.Duration(size)*time.Second/recordsBytesPerSecond, recordsDelay)
}
