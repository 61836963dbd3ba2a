package state

import (
	"io"
	"sync"

	"github.com/hashicorp/go-memdb"

	"github.com/cloudless-project/cloudless/api"
)

// Store holds the current state. Apply and Restore are called by one
// goroutine, the Raft state machine's; everything else may be called by any.
type Store struct {
	mu      sync.Mutex
	db      *memdb.MemDB
	view    View
	changed chan struct{} // closed when view's rows are outdated
}

// New returns an empty store.
func New() *Store {
	s := &Store{changed: make(chan struct{})}
	s.reset(newDB(), 0)
	return s
}

// Result is what became of one Raft entry.
type Result struct {
	Index  uint64
	Events []api.Event // recorded by it, in order
	Values []any       // one for each command; nil where a command returns nothing
	Value  any         // the last that is not nil
	Err    error       // an *api.Error; nothing was changed
}

// ValueOf returns the first value of type T among a result's values.
func ValueOf[T any](r Result) (T, bool) {
	for _, v := range r.Values {
		if value, ok := v.(T); ok {
			return value, true
		}
	}
	var zero T
	return zero, false
}

// Apply applies the commands of one Raft entry in order, all of them or none.
func (s *Store) Apply(index uint64, cmds []Command) Result {
	t := &tx{txn: s.db.Txn(true), index: index}
	defer t.txn.Abort() // does nothing after Commit
	res := Result{Index: index}
	for _, c := range cmds {
		v, err := t.run(c)
		if err != nil {
			s.advance(index)
			return Result{Index: index, Err: err}
		}
		res.Values = append(res.Values, v)
		if v != nil {
			res.Value = v
		}
	}
	if !t.changed {
		s.advance(index)
		return res
	}
	t.txn.Commit()
	res.Events = t.events
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = View{txn: s.db.Txn(false), index: index, common: &common{}}
	s.wake()
	return res
}

// View returns the current state.
func (s *Store) View() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// Watch returns the current state and a channel that is closed when it is no
// longer current. No change is missed between the two.
func (s *Store) Watch() (View, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view, s.changed
}

// Snapshot writes the current state; see View.Snapshot.
func (s *Store) Snapshot(w io.Writer) error { return s.View().Snapshot(w) }

// Restore replaces the state by a snapshot. On an error nothing is changed.
func (s *Store) Restore(r io.Reader) error {
	db, index, err := readSnapshot(r)
	if err != nil {
		return err
	}
	s.reset(db, index)
	return nil
}

// advance notes that an entry was applied that left the rows as they were.
func (s *Store) advance(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.index = index
}

func (s *Store) reset(db *memdb.MemDB, index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
	s.view = View{txn: db.Txn(false), index: index, common: &common{}}
	s.wake()
}

func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}
