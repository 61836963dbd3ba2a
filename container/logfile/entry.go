package logfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/cloudless-project/cloudless/container"
)

// MaxLine is the longest line kept in one piece; a longer one becomes several
// entries, all but the last marked partial.
const MaxLine = 16 << 10

// maxRecord bounds an encoded entry: JSON writes at most six bytes for one.
const maxRecord = 6*MaxLine + 256

// record is an entry on disk. The names are short because every line pays.
type record struct {
	Time    time.Time `json:"t"`
	Stream  string    `json:"s"`
	Line    string    `json:"l"`
	Partial bool      `json:"p,omitempty"`
}

func appendRecord(buf []byte, r record) []byte {
	data, err := json.Marshal(r)
	if err != nil { // only a year beyond 9999
		return buf
	}
	return append(append(buf, data...), '\n')
}

// parseRecord decodes one line of a log file.
func parseRecord(line []byte) (container.LogEntry, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return container.LogEntry{}, fmt.Errorf("parse log entry: %w", err)
	}
	return container.LogEntry{Time: r.Time, Stream: r.Stream, Line: r.Line, Partial: r.Partial}, nil
}

// splitter cuts a stream into lines of at most MaxLine bytes.
type splitter struct {
	stream string
	rest   []byte // the line so far
}

// feed appends the entries that p completes to buf.
func (s *splitter) feed(buf, p []byte, now time.Time) []byte {
	for len(p) > 0 {
		line, after, found := bytes.Cut(p, []byte{'\n'})
		if room := MaxLine - len(s.rest); len(line) > room {
			cut := runeBoundary(line, room)
			buf = s.emit(buf, line[:cut], true, now)
			p = p[cut:]
			continue
		}
		if !found {
			s.rest = append(s.rest, line...)
			return buf
		}
		buf = s.emit(buf, line, false, now)
		p = after
	}
	return buf
}

// flush appends the unfinished last line, when there is one.
func (s *splitter) flush(buf []byte, now time.Time) []byte {
	if len(s.rest) == 0 {
		return buf
	}
	return s.emit(buf, nil, false, now)
}

func (s *splitter) emit(buf, tail []byte, partial bool, now time.Time) []byte {
	line := string(append(s.rest, tail...))
	s.rest = s.rest[:0]
	return appendRecord(buf, record{Time: now, Stream: s.stream, Line: line, Partial: partial})
}

// runeBoundary returns the largest cut ≤ n that splits no UTF-8 sequence, or n
// when the bytes there are not UTF-8.
func runeBoundary(p []byte, n int) int {
	for i := n; i > 0 && n-i < utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			return i
		}
	}
	return n
}
