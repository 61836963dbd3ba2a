//go:build linux

package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The protocol between lab and init: over a unix socket, one request per
// connection, JSON both ways. Standard input, output and error travel as
// descriptors with the request, so a command behaves as if it was started by
// the caller, terminal included.

type request struct {
	Op     string         `json:"op"` // run, start, status, signal, wait, ping
	Args   []string       `json:"args,omitempty"`
	Env    []string       `json:"env,omitempty"`
	Dir    string         `json:"dir,omitempty"`
	Job    string         `json:"job,omitempty"` // of start, signal and wait
	Signal syscall.Signal `json:"signal,omitempty"`
}

type reply struct {
	PID  int    `json:"pid,omitempty"`
	Done bool   `json:"done,omitempty"` // Exit is valid
	Exit int    `json:"exit"`           // 128 + signal when killed, as in a shell
	Err  string `json:"err,omitempty"`
}

const (
	maxRequest = 1 << 20
	termGrace  = 2 * time.Second // between SIGTERM and SIGKILL when a caller gives up
)

// supervisor is the life of a device's init: it starts commands, reaps every
// process that ends, and forwards signals. It restarts nothing.
type supervisor struct {
	mu      sync.Mutex
	running map[int]*process // children that were started on request
	jobs    map[string]*process
}

type process struct {
	pid  int
	done chan struct{} // closed when exit is known
	exit int
}

func newSupervisor() *supervisor {
	return &supervisor{running: map[int]*process{}, jobs: map[string]*process{}}
}

func (s *supervisor) serve(ln *net.UnixListener) error {
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGCHLD)
	go func() {
		for range sigs {
			s.reap()
		}
	}()
	for {
		c, err := ln.AcceptUnix()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go s.handle(c)
	}
}

// reap collects every process that ended, orphans included: they become
// children of the first process of the namespace.
func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		s.mu.Lock() // held while a process is started: it is in the map by now
		if p := s.running[pid]; p != nil {
			delete(s.running, pid)
			p.exit = status.ExitStatus()
			if status.Signaled() {
				p.exit = 128 + int(status.Signal())
			}
			close(p.done)
		}
		s.mu.Unlock()
	}
}

func (s *supervisor) handle(c *net.UnixConn) {
	defer c.Close()
	req, files, err := receive(c)
	enc := json.NewEncoder(c)
	if err != nil {
		_ = enc.Encode(reply{Err: err.Error()})
		return
	}
	switch req.Op {
	case "ping":
		_ = enc.Encode(reply{})
	case "start":
		p, err := s.start(req, files)
		_ = enc.Encode(result(p, err))
	case "run":
		p, err := s.start(req, files)
		_ = enc.Encode(result(p, err))
		if err == nil {
			s.attend(c, enc, p, true)
		}
	case "wait":
		p, err := s.job(req.Job)
		_ = enc.Encode(result(p, err))
		if err == nil {
			s.attend(c, enc, p, false)
		}
	case "status":
		p, err := s.job(req.Job)
		r := result(p, err)
		if err == nil && p.over() {
			r.Done, r.Exit = true, p.exit
		}
		_ = enc.Encode(r)
	case "signal":
		p, err := s.job(req.Job)
		if err == nil {
			err = s.signal(p, p.pid, req.Signal)
		}
		_ = enc.Encode(result(p, err))
	default:
		_ = enc.Encode(reply{Err: fmt.Sprintf("unknown request %q", req.Op)})
	}
}

func result(p *process, err error) reply {
	if err != nil {
		return reply{Err: err.Error()}
	}
	return reply{PID: p.pid}
}

func (s *supervisor) job(name string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.jobs[name]
	if p == nil {
		return nil, fmt.Errorf("no %q was started since this device booted", name)
	}
	return p, nil
}

func (s *supervisor) start(req request, files []*os.File) (*process, error) {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if len(req.Args) == 0 || len(files) != 3 {
		return nil, fmt.Errorf("%s wants a command and three descriptors", req.Op)
	}
	path, err := lookPathIn(req.Args[0], req.Env)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.jobs[req.Job]; req.Job != "" && old != nil && !old.over() {
		return nil, fmt.Errorf("%s runs already, as process %d", req.Job, old.pid)
	}
	attr := &os.ProcAttr{Dir: req.Dir, Env: req.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	child, err := os.StartProcess(path, req.Args, attr)
	if err != nil {
		return nil, err
	}
	p := &process{pid: child.Pid, done: make(chan struct{})}
	_ = child.Release() // reap does the waiting
	s.running[p.pid] = p
	if req.Job != "" {
		s.jobs[req.Job] = p
	}
	return p, nil
}

// attend reports the end of a process. A caller that hangs up first takes its
// own command with it.
func (s *supervisor) attend(c net.Conn, enc *json.Encoder, p *process, owned bool) {
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, c)
		close(gone)
	}()
	select {
	case <-p.done:
		_ = enc.Encode(reply{PID: p.pid, Done: true, Exit: p.exit})
		return
	case <-gone:
	}
	if !owned {
		return
	}
	_ = s.signal(p, -p.pid, unix.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(termGrace):
		_ = s.signal(p, -p.pid, unix.SIGKILL)
	}
}

// signal sends to a process, or to its group (a negative target), but only
// while it has not been reaped: its number may belong to another afterwards.
func (s *supervisor) signal(p *process, target int, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.over() {
		return fmt.Errorf("process %d has ended with code %d", p.pid, p.exit)
	}
	return unix.Kill(target, sig)
}

func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
