package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/cloudless-project/cloudless/container"
)

// pollEvery is how often a following reader looks for more. Polling two file
// sizes costs less than a watch and works on every file system.
const pollEvery = 100 * time.Millisecond

// Read yields the entries of the log at path as container.Logs describes. A log
// that does not exist yet is empty; a following reader waits for it.
func Read(ctx context.Context, path string, opts container.LogOptions) iter.Seq2[container.LogEntry, error] {
	return func(yield func(container.LogEntry, error) bool) {
		r := &reader{
			path: path, since: opts.Since,
			holding: opts.Tail != 0, tail: max(0, opts.Tail),
			yield: func(e container.LogEntry) bool { return yield(e, nil) },
		}
		defer r.close()
		if err := r.run(ctx, opts.Follow); err != nil && !errors.Is(err, errStopped) {
			yield(container.LogEntry{}, err)
		}
	}
}

var errStopped = errors.New("the consumer has enough")

// reader walks the rotated file and then the current one, forever when it
// follows.
type reader struct {
	path  string
	since time.Time
	yield func(container.LogEntry) bool

	// Until the end of the log is reached for the first time, a reader that was
	// asked for a tail holds the last entries back.
	holding bool
	tail    int
	held    []container.LogEntry

	file *os.File
	rest []byte // an unfinished record at the end of file
	buf  [64 << 10]byte
}

func (r *reader) run(ctx context.Context, follow bool) error {
	if err := r.openFirst(); err != nil {
		return err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	seen := r.file != nil
	for {
		moved, err := r.advance(ctx)
		if err != nil {
			return err
		}
		if moved {
			seen = true
			continue
		}
		if err := r.release(); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if seen && r.removed() {
			_, err := r.advance(ctx)
			return err
		}
	}
}

// deliver hands an entry to the consumer, or holds it back.
func (r *reader) deliver(e container.LogEntry) error {
	switch {
	case !r.holding:
		if !r.yield(e) {
			return errStopped
		}
	case r.tail > 0:
		if len(r.held) == r.tail {
			r.held = r.held[1:]
		}
		r.held = append(r.held, e)
	}
	return nil
}

// release delivers what was held back.
func (r *reader) release() error {
	held := r.held
	r.holding, r.held = false, nil
	for _, e := range held {
		if err := r.deliver(e); err != nil {
			return err
		}
	}
	return nil
}

// openFirst opens the oldest file that there is, if any.
func (r *reader) openFirst() error {
	for _, p := range []string{rotated(r.path), r.path} {
		if err := r.open(p); err == nil || !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (r *reader) open(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	r.close()
	r.file, r.rest = f, r.rest[:0]
	return nil
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// advance reads to the end of the open file and reports whether another one
// follows it, which is then open.
func (r *reader) advance(ctx context.Context) (moved bool, err error) {
	if r.file == nil {
		err := r.open(r.path)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	// Ask before reading to the end: a file that is not current any more grows
	// no more, so nothing can come after the end that is found now.
	next := r.next()
	if err := r.drain(ctx); err != nil {
		return false, err
	}
	if next == "" {
		return false, nil
	}
	err = r.open(next)
	if errors.Is(err, os.ErrNotExist) { // between two renames; look again
		return false, nil
	}
	return err == nil, err
}

// next names the file after the open one, "" when the open one is current.
func (r *reader) next() string {
	mine, err := r.file.Stat()
	if err != nil {
		return ""
	}
	if current, err := os.Stat(r.path); err != nil || os.SameFile(mine, current) {
		return ""
	}
	if old, err := os.Stat(rotated(r.path)); err == nil && !os.SameFile(mine, old) {
		return rotated(r.path) // rotated twice since: the one between comes first
	}
	return r.path
}

// removed reports whether the whole log was deleted.
func (r *reader) removed() bool {
	_, current := os.Stat(r.path)
	_, old := os.Stat(rotated(r.path))
	return errors.Is(current, os.ErrNotExist) && errors.Is(old, os.ErrNotExist)
}

func (r *reader) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := r.file.Read(r.buf[:])
		if err := r.feed(r.buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
	return nil
}

// feed yields the records that p completes. A record that does not parse is
// passed over: after a power cut the file may hold a torn one.
func (r *reader) feed(p []byte) error {
	for {
		line, after, found := bytes.Cut(p, []byte{'\n'})
		if len(r.rest)+len(line) > maxRecord {
			r.rest, line = r.rest[:0], nil
		}
		if !found {
			r.rest = append(r.rest, line...)
			return nil
		}
		r.rest = append(r.rest, line...)
		entry, err := parseRecord(r.rest)
		r.rest, p = r.rest[:0], after
		if err != nil || entry.Time.Before(r.since) {
			continue
		}
		if err := r.deliver(entry); err != nil {
			return err
		}
	}
}
