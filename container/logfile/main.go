package logfile

import (
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// Command is the first argument with which the binary that embeds Main is
// started; the second is the path of the log file.
const Command = "container-log"

// The descriptors that a containerd shim hands to a logging binary.
const (
	fdStdout = 3
	fdStderr = 4
	fdReady  = 5
)

// Main copies a container's streams to the log file named by args until both
// end, and returns the exit code. The shim starts it, never a person.
func Main(args []string) int {
	if len(args) != 1 {
		return 2
	}
	// One such process stands beside every container: keep it small.
	debug.SetGCPercent(20)
	// The shim is told to stop while the container's last words may be still in
	// the pipes; these end by themselves when the container does.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	w, err := NewWriter(args[0])
	if err != nil {
		return 1
	}
	if err := reportReady(); err != nil {
		return 1
	}
	var streams sync.WaitGroup
	for fd, name := range map[uintptr]string{fdStdout: "stdout", fdStderr: "stderr"} {
		f := os.NewFile(fd, name)
		streams.Go(func() { copyStream(w, name, f, time.Now) })
	}
	streams.Wait()
	if err := w.Close(); err != nil {
		return 1
	}
	return 0
}

// reportReady lets the shim start the container. Old shims wait for the pipe to
// close, newer ones for a byte.
func reportReady() error {
	ready := os.NewFile(fdReady, "ready")
	_, err := ready.Write([]byte{0})
	return errors.Join(err, ready.Close())
}
