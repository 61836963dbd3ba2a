//go:build linux

package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// execEnd bounds the clean-up of an exec whose caller has gone.
const execEnd = 10 * time.Second

// Exec implements container.Execer.
func (r *Runtime) Exec(ctx context.Context, id string, spec container.ExecSpec) (int, error) {
	if len(spec.Args) == 0 {
		return 0, api.Invalid("command", "is missing")
	}
	if _, err := r.record(ctx, id); err != nil {
		return 0, err
	}
	code, err := r.exec(ctx, id, spec)
	return code, r.explain(err, "run a command in", "container "+id)
}

func (r *Runtime) exec(ctx context.Context, id string, spec container.ExecSpec) (int, error) {
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return 0, err
	}
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return 0, api.Errorf(api.KindUnavailable, "container %s is not running", id)
	}
	if err != nil {
		return 0, err
	}
	config, err := c.Spec(ctx)
	if err != nil {
		return 0, err
	}
	process := *config.Process
	process.Args, process.Terminal = spec.Args, spec.TTY
	if spec.TTY {
		process.Env = append([]string{"TERM=xterm"}, process.Env...)
	}
	process.Env = slices.Concat(process.Env, spec.Env)

	stdin := &endReader{r: spec.Stdin, end: make(chan struct{})}
	streams, err := r.execIO(spec, stdin)
	if err != nil {
		return 0, err
	}
	p, err := t.Exec(ctx, "exec-"+rand.Text(), &process, streams)
	if err != nil {
		return 0, err
	}
	defer r.endExec(ctx, id, p)
	ended, err := p.Wait(ctx)
	if err != nil {
		return 0, err
	}
	if err := p.Start(ctx); err != nil {
		return 0, explainExec(err)
	}
	return r.awaitExec(ctx, p, ended, stdin.end, spec.Resize)
}

func (r *Runtime) execIO(spec container.ExecSpec, stdin io.Reader) (cio.Creator, error) {
	dir, err := r.fifoDir()
	if err != nil {
		return nil, err
	}
	if spec.Stdin == nil {
		stdin = nil
	}
	// Old shims fail when one of the two is missing.
	stdout, stderr := spec.Stdout, spec.Stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	if spec.TTY {
		stderr = nil
	}
	opts := []cio.Opt{cio.WithFIFODir(dir), cio.WithStreams(stdin, stdout, stderr)}
	if spec.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	return cio.NewCreator(opts...), nil
}

// awaitExec serves a started process until it has ended.
func (r *Runtime) awaitExec(ctx context.Context, p client.Process, ended <-chan client.ExitStatus,
	stdinEnd <-chan struct{}, resize <-chan container.WindowSize) (int, error) {
	for {
		select {
		case <-stdinEnd:
			// The shim keeps the FIFO open, or the process would see the end of its
			// input whenever the daemon goes. So say that this is really the end.
			stdinEnd = nil
			_ = p.CloseIO(ctx, client.WithStdinCloser)
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			// A size that comes too late or is absurd is no reason to end.
			_ = p.Resize(ctx, uint32(max(1, size.Width)), uint32(max(1, size.Height)))
		case status := <-ended:
			if err := status.Error(); err != nil {
				return 0, errors.Join(ctx.Err(), err)
			}
			return int(status.ExitCode()), drained(ctx, p)
		}
	}
}

// drained waits until everything that the process wrote was copied. A child
// that keeps the streams open holds it up until ctx ends.
func drained(ctx context.Context, p client.Process) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.IO().Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		p.IO().Cancel()
		<-done
		return ctx.Err()
	}
}

// endExec kills the process if it runs, and forgets it.
func (r *Runtime) endExec(ctx context.Context, id string, p client.Process) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), execEnd)
	defer cancel()
	if status, err := p.Status(ctx); err == nil && status.Status == client.Running {
		ended, err := p.Wait(ctx)
		if err == nil && p.Kill(ctx, syscall.SIGKILL) == nil {
			<-ended
		}
	}
	p.IO().Cancel()
	if _, err := p.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		r.cfg.Log.Warn("leave an exec behind", zap.String("replica", id), zap.Error(err))
	}
}

func explainExec(err error) error {
	if e := explainStart(err, "the command"); api.KindOf(e) == api.KindInvalid {
		return api.Errorf(api.KindInvalid, "the command cannot be run: %w", err)
	}
	return err
}

// endReader closes end when r has no more.
type endReader struct {
	r    io.Reader
	once sync.Once
	end  chan struct{}
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil {
		e.once.Do(func() { close(e.end) })
	}
	return n, err
}
