package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/hashicorp/go-memdb"
)

// A snapshot is lines of JSON: a header, the rows table by table in the order
// of their keys, and a trailer with their number and the SHA-256 of every byte
// before it. Equal states have equal snapshots.
const (
	snapshotFormat  = "cloudless-state"
	snapshotVersion = 1
	maxSnapshotLine = 8 << 20
)

type snapshotHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Index   uint64 `json:"index"`
}

// snapshotLine is a row, or the trailer when SHA256 is set.
type snapshotLine struct {
	Table  string          `json:"table,omitempty"`
	Row    json.RawMessage `json:"row,omitempty"`
	Rows   int             `json:"rows,omitempty"`
	SHA256 string          `json:"sha256,omitempty"`
}

// Snapshot writes the view in the form that Store.Restore reads.
func (v View) Snapshot(w io.Writer) error {
	buf := bufio.NewWriterSize(w, 64<<10)
	sum := sha256.New()
	enc := json.NewEncoder(io.MultiWriter(buf, sum))
	if err := enc.Encode(snapshotHeader{snapshotFormat, snapshotVersion, v.index}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	rows := 0
	for _, l := range layouts {
		n, err := writeTable(enc, v.txn, l.name)
		if err != nil {
			return fmt.Errorf("write table %s: %w", l.name, err)
		}
		rows += n
	}
	trailer := snapshotLine{Rows: rows, SHA256: hex.EncodeToString(sum.Sum(nil))}
	if err := json.NewEncoder(buf).Encode(trailer); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func writeTable(enc *json.Encoder, txn *memdb.Txn, name string) (rows int, err error) {
	it, err := txn.Get(name, "id_prefix", "")
	if err != nil {
		return 0, err
	}
	for row := it.Next(); row != nil; row = it.Next() {
		b, err := json.Marshal(row)
		if err != nil {
			return rows, err
		}
		if err := enc.Encode(snapshotLine{Table: name, Row: b}); err != nil {
			return rows, err
		}
		rows++
	}
	return rows, nil
}

// readSnapshot builds a database from a snapshot, and returns it only if the
// snapshot is complete and undamaged.
func readSnapshot(r io.Reader) (*memdb.MemDB, uint64, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxSnapshotLine)
	sum := sha256.New()
	var header snapshotHeader
	if !in.Scan() {
		return nil, 0, fmt.Errorf("read snapshot: no header: %w", orTruncated(in.Err()))
	}
	if err := strictJSON(in.Bytes(), &header); err != nil || header.Format != snapshotFormat {
		return nil, 0, fmt.Errorf("read snapshot: this is no snapshot of a cluster's state")
	}
	if header.Version != snapshotVersion {
		return nil, 0, fmt.Errorf("read snapshot: version %d is not %d", header.Version, snapshotVersion)
	}
	db := newDB()
	txn := db.Txn(true)
	defer txn.Abort()
	for rows := 0; ; rows++ {
		sum.Write(in.Bytes())
		sum.Write([]byte{'\n'})
		if !in.Scan() {
			return nil, 0, fmt.Errorf("read snapshot: after %d rows: %w", rows, orTruncated(in.Err()))
		}
		var line snapshotLine
		if err := strictJSON(in.Bytes(), &line); err != nil {
			return nil, 0, fmt.Errorf("read snapshot: row %d: %w", rows+1, err)
		}
		if line.SHA256 != "" {
			if line.Rows != rows || line.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
				return nil, 0, fmt.Errorf("read snapshot: the checksum does not match: the snapshot is damaged")
			}
			txn.Commit()
			return db, header.Index, nil
		}
		if err := insertRow(txn, line); err != nil {
			return nil, 0, fmt.Errorf("read snapshot: row %d: %w", rows+1, err)
		}
	}
}

func insertRow(txn *memdb.Txn, line snapshotLine) error {
	if bytes.Equal(line.Row, []byte("null")) {
		return fmt.Errorf("empty row")
	}
	for _, l := range layouts {
		if l.name != line.Table {
			continue
		}
		row, err := l.decode(line.Row)
		if err != nil {
			return fmt.Errorf("table %s: %w", l.name, err)
		}
		return txn.Insert(l.name, row)
	}
	return fmt.Errorf("unknown table %q", clip(line.Table))
}

func orTruncated(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
