package raftmeta

import "sync"

// halt is how a part of the anchor says that it cannot go on. The first
// reason counts; Run then returns it.
type halt struct {
	once   sync.Once
	halted chan struct{}
	err    error // valid once halted is closed
}

func newHalt() *halt { return &halt{halted: make(chan struct{})} }

func (h *halt) now(err error) {
	h.once.Do(func() {
		h.err = err
		close(h.halted)
	})
}

// reason returns why the anchor has halted, nil while it has not.
func (h *halt) reason() error {
	select {
	case <-h.halted:
		return h.err
	default:
		return nil
	}
}
