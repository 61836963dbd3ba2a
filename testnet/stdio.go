//go:build linux

package testnet

import (
	"io"
	"os"
	"sync"
)

// stdio turns readers and writers into the three descriptors of a command.
// Files go through as they are; anything else gets a pipe and a goroutine.
type stdio struct {
	files  []*os.File // in, out, err, for the command
	remote []*os.File // of those, the ones this process must let go of
	local  []*os.File // our ends of the pipes
	copies []func()
	out    sync.WaitGroup
}

func newStdio(cmd Cmd) (*stdio, error) {
	s := &stdio{}
	if err := s.input(cmd.Stdin); err != nil {
		s.close()
		return nil, err
	}
	if err := s.output(cmd.Stdout); err != nil {
		s.close()
		return nil, err
	}
	if cmd.Stderr != nil && cmd.Stderr == cmd.Stdout { // one writer, one goroutine
		s.files = append(s.files, s.files[1])
		return s, nil
	}
	if err := s.output(cmd.Stderr); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stdio) input(r io.Reader) error {
	switch r := r.(type) {
	case nil:
		return s.null(os.O_RDONLY)
	case *os.File:
		s.files = append(s.files, r)
		return nil
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	s.files, s.remote, s.local = append(s.files, theirs), append(s.remote, theirs), append(s.local, ours)
	s.copies = append(s.copies, func() {
		_, _ = io.Copy(ours, r) // ends with the command: it may not want all of it
		ours.Close()
	})
	return nil
}

func (s *stdio) output(w io.Writer) error {
	switch w := w.(type) {
	case nil:
		return s.null(os.O_WRONLY)
	case *os.File:
		s.files = append(s.files, w)
		return nil
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	s.files, s.remote, s.local = append(s.files, theirs), append(s.remote, theirs), append(s.local, ours)
	s.out.Add(1)
	s.copies = append(s.copies, func() {
		defer s.out.Done()
		_, _ = io.Copy(w, ours)
	})
	return nil
}

func (s *stdio) null(flag int) error {
	f, err := os.OpenFile(os.DevNull, flag, 0)
	if err != nil {
		return err
	}
	s.files, s.remote = append(s.files, f), append(s.remote, f)
	return nil
}

// started is called once the command has its descriptors.
func (s *stdio) started() {
	for _, f := range s.remote {
		f.Close()
	}
	s.remote = nil
	for _, c := range s.copies {
		go c()
	}
}

// drain waits until everything the command wrote has been copied. A command
// that leaves a child behind with its output open keeps it waiting, as a shell
// pipe would.
func (s *stdio) drain() { s.out.Wait() }

func (s *stdio) close() {
	for _, f := range append(s.remote, s.local...) {
		f.Close()
	}
}
