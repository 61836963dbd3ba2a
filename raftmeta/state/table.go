package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/go-memdb"

	"github.com/cloudless-project/cloudless/api"
)

// The tables, in the order of a snapshot.
var (
	clusters    = table[api.Cluster]{"cluster"}
	nodes       = table[api.Node]{"nodes"}
	tokens      = table[api.Token]{"tokens"}
	redemptions = table[redemption]{"redemptions"}
	revocations = table[revocation]{"revocations"}
	workloads   = table[api.Workload]{"workloads"}
	generations = table[generation]{"generations"}
	replicas    = table[api.Replica]{"replicas"}
	services    = table[api.Service]{"services"}
	notes       = table[note]{"notes"}
	images      = table[api.Image]{"images"}
	events      = table[api.Event]{"events"}
)

// layouts describes the tables to memdb and to the snapshot.
var layouts = []layout{
	clusters.layout(func(c *api.Cluster) string { return c.ID }),
	nodes.layout(func(n *api.Node) string { return string(n.ID) },
		index[api.Node]{"name", func(n *api.Node) string { return n.Inventory.Name }}),
	tokens.layout(func(t *api.Token) string { return t.ID }),
	redemptions.layout(func(r *redemption) string { return pair(r.Token, string(r.Peer)) }),
	revocations.layout(func(r *revocation) string { return r.ID },
		index[revocation]{"age", func(r *revocation) string { return number(r.Index) + r.ID }}),
	workloads.layout(func(w *api.Workload) string { return w.Name }),
	generations.layout(func(g *generation) string { return g.Workload },
		index[generation]{"age", func(g *generation) string { return number(g.DeletedAt) + g.Workload }}),
	replicas.layout(func(r *api.Replica) string { return string(r.ID) },
		index[api.Replica]{"slot", func(r *api.Replica) string {
			return slotKey(r.Workload, r.Slot) + number(uint64(r.Generation))
		}},
		index[api.Replica]{"node", func(r *api.Replica) string { return pair(string(r.Node), string(r.ID)) }}),
	services.layout(func(s *api.Service) string { return s.Name }),
	notes.layout(func(n *note) string { return n.Workload }),
	images.layout(func(i *api.Image) string { return i.Ref }),
	events.layout(func(e *api.Event) string { return number(e.ID) }),
}

// pair joins two names into a key of which the first one is a prefix that no
// other first name shares.
func pair(a, b string) string { return a + "\x00" + b }

// number encodes n so that keys sort as the numbers do.
func number(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func slotKey(workload string, slot int) string { return pair(workload, number(uint64(slot))) }

// table is a typed handle on one memdb table. Its rows are never changed in
// place: copy one, change the copy, put it.
type table[T any] struct{ name string }

func (tb table[T]) get(txn *memdb.Txn, key string) *T { return tb.by(txn, "id", key) }

// by returns the row whose key in an index is exactly key, or nil.
func (tb table[T]) by(txn *memdb.Txn, index, key string) *T {
	row, err := txn.First(tb.name, index, key)
	if err != nil {
		panic(err) // the schema lacks the index: a fault of this package
	}
	r, _ := row.(*T)
	return r
}

// list returns the rows whose key in an index starts with prefix, in the
// order of their keys.
func (tb table[T]) list(txn *memdb.Txn, index, prefix string) []*T {
	it, err := txn.Get(tb.name, index+"_prefix", prefix)
	if err != nil {
		panic(err)
	}
	return collect[T](it, -1)
}

func (tb table[T]) all(txn *memdb.Txn) []*T { return tb.list(txn, "id", "") }

// from returns at most limit rows, starting at the first key not below key.
func (tb table[T]) from(txn *memdb.Txn, key string, limit int) []*T {
	it, err := txn.LowerBound(tb.name, "id", key)
	if err != nil {
		panic(err)
	}
	return collect[T](it, limit)
}

func (tb table[T]) last(txn *memdb.Txn) *T {
	row, err := txn.Last(tb.name, "id_prefix", "")
	if err != nil {
		panic(err)
	}
	r, _ := row.(*T)
	return r
}

func (tb table[T]) put(t *tx, row *T) {
	t.changed = true
	if err := t.txn.Insert(tb.name, row); err != nil {
		panic(err)
	}
}

func (tb table[T]) delete(t *tx, row *T) {
	t.changed = true
	if err := t.txn.Delete(tb.name, row); err != nil {
		panic(err)
	}
}

func collect[T any](it memdb.ResultIterator, limit int) []*T {
	var rows []*T
	for limit != 0 {
		row := it.Next()
		if row == nil {
			break
		}
		rows = append(rows, row.(*T))
		limit--
	}
	return rows
}

// index is a further unique key of a table.
type index[T any] struct {
	name string
	key  func(*T) string
}

// layout is a table as memdb and the snapshot need to know it.
type layout struct {
	name   string
	schema *memdb.TableSchema
	decode func([]byte) (row any, err error)
}

func (tb table[T]) layout(id func(*T) string, more ...index[T]) layout {
	schema := &memdb.TableSchema{Name: tb.name, Indexes: map[string]*memdb.IndexSchema{}}
	for _, ix := range append([]index[T]{{"id", id}}, more...) {
		schema.Indexes[ix.name] = &memdb.IndexSchema{Name: ix.name, Unique: true, Indexer: indexer[T](ix.key)}
	}
	return layout{tb.name, schema, func(b []byte) (any, error) {
		row := new(T)
		return row, strictJSON(b, row)
	}}
}

// strictJSON decodes exactly one JSON value and refuses fields it does not know.
func strictJSON(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() || d.InputOffset() != int64(len(bytes.TrimRight(b, " \t\r\n"))) {
		return fmt.Errorf("data after the value")
	}
	return nil
}

// indexer computes the keys of an index without reflection.
type indexer[T any] func(*T) string

// FromObject implements memdb.SingleIndexer.
func (f indexer[T]) FromObject(row any) (bool, []byte, error) {
	key := f(row.(*T))
	if key == "" {
		return false, nil, fmt.Errorf("row of %T has an empty key", row)
	}
	return true, []byte(key), nil
}

// FromArgs implements memdb.Indexer.
func (indexer[T]) FromArgs(args ...any) ([]byte, error) {
	key, ok := args[0].(string)
	if !ok || len(args) != 1 {
		return nil, fmt.Errorf("want one string as key, got %v", args)
	}
	return []byte(key), nil
}

// PrefixFromArgs implements memdb.PrefixIndexer.
func (f indexer[T]) PrefixFromArgs(args ...any) ([]byte, error) { return f.FromArgs(args...) }

func newDB() *memdb.MemDB {
	schema := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, l := range layouts {
		schema.Tables[l.name] = l.schema
	}
	db, err := memdb.NewMemDB(schema)
	if err != nil {
		panic(err) // the schema is a constant
	}
	return db
}
