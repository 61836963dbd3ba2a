package logfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// MaxSize is the size at which a log file is rotated. With the rotated one a
// container's log takes at most twice as much.
const MaxSize = 8 << 20

// Writer appends encoded entries to a file that it rotates. It is safe for
// concurrent use.
type Writer struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File // nil while the file cannot be opened
	size int64
}

// NewWriter opens the log file at path for appending.
func NewWriter(path string) (*Writer, error) {
	w := &Writer{path: path, max: MaxSize}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return w, w.open()
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w.file, w.size = f, info.Size()
	return nil
}

// Write appends whole records in one call, so that a reader sees no torn one.
func (w *Writer) Write(records []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil && w.size > 0 && w.size+int64(len(records)) > w.max {
		_ = w.file.Close()
		w.file = nil
		if err := os.Rename(w.path, rotated(w.path)); err != nil {
			return 0, err
		}
	}
	if w.file == nil {
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	n, err := w.file.Write(records)
	w.size += int64(n)
	return n, err
}

// Close closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

func rotated(path string) string { return path + ".1" }

// Remove deletes a log.
func Remove(path string) error {
	for _, p := range []string{path, rotated(path)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// copyStream writes the lines of r to w until r ends. A failed write loses
// those lines and nothing else: a full disk must not stop the container.
func copyStream(w io.Writer, stream string, r io.Reader, now func() time.Time) {
	lines := splitter{stream: stream}
	chunk, records := make([]byte, 32<<10), []byte(nil)
	for {
		n, err := r.Read(chunk)
		records = lines.feed(records[:0], chunk[:n], now().UTC())
		if err != nil {
			records = lines.flush(records, now().UTC())
		}
		if len(records) > 0 {
			_, _ = w.Write(records)
		}
		if err != nil {
			return
		}
	}
}
