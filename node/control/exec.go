package control

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/container"
)

// Exec runs a command in a replica: here, or on the node that has it.
func (s *workloadServer) Exec(stream pb.WorkloadService_ExecServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetStart() == nil {
		return api.Invalid("start", "must be the first message of an exec")
	}
	req := wire.ExecRequestFromPB(first.GetStart())
	if len(req.Command) == 0 {
		return api.Invalid("command", "is empty").WithHint("write it after --, like: cloudless workload exec web -- ls /")
	}
	r, err := s.execTarget(req.Target)
	if err != nil {
		return err
	}
	if r.Node == s.cfg.Self.ID {
		return s.localExec(stream, r, req)
	}
	c := caller(stream.Context())
	if c.Via != "" {
		return api.Errorf(api.KindConflict, "replica %s is not on this node any more", r.ID).WithHint("try again")
	}
	first.GetStart().Target = string(r.ID)
	return s.elsewhere(stream.Context(), r.Node, pb.WorkloadService_Exec_FullMethodName, s.pool.forwardStream(r.Node, c, pb.WorkloadService_Exec_FullMethodName, stream, first))
}

// execTarget chooses among the target's replicas: a ready one rather than
// another, one on this node rather than one elsewhere.
func (s *workloadServer) execTarget(target string) (api.Replica, error) {
	found, err := s.targets(target)
	if err != nil {
		return api.Replica{}, err
	}
	rank := func(r api.Replica) int {
		n := 0
		if r.State.Active() {
			n += 4
		}
		if r.State == api.ReplicaReady {
			n += 2
		}
		if r.Node == s.cfg.Self.ID {
			n++
		}
		return n
	}
	best := slices.MaxFunc(found, func(a, b api.Replica) int { return rank(a) - rank(b) })
	if !best.State.Active() {
		state := strings.ToLower(string(best.State))
		if best.Reason != "" {
			state += ": " + best.Reason
		}
		return best, api.Errorf(api.KindUnplaced, "no replica of %s runs; %s is %s", target, best.ID, state).
			WithHint("see \"cloudless workload show %s\"", best.Workload)
	}
	return best, nil
}

func (s *workloadServer) localExec(stream pb.WorkloadService_ExecServer, r api.Replica, req api.ExecRequest) error {
	if err := s.checkRuntime(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	started := &pb.ExecStarted{Replica: string(r.ID), Node: s.nodeName(r.Node)}
	if err := stream.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Started{Started: started}}); err != nil {
		return err
	}
	spec := container.ExecSpec{Args: req.Command, TTY: req.TTY}
	for k, v := range req.Env {
		spec.Env = append(spec.Env, k+"="+v)
	}
	slices.Sort(spec.Env)
	in := newExecInput(req)
	spec.Stdin, spec.Resize = in.stdin(), in.resize
	out := &execOutput{stream: stream}
	spec.Stdout, spec.Stderr = out.writer(false), out.writer(true)
	go func() {
		defer in.close()
		if err := in.pump(stream); err != nil {
			cancel() // the caller is gone
		}
	}()
	code, err := s.cfg.Runtime.Exec(ctx, string(r.ID), spec)
	in.abandon()
	if err != nil {
		return err
	}
	return out.send(&pb.ExecResponse{Message: &pb.ExecResponse_Exit{Exit: &pb.ExecExit{Code: int32(code)}}})
}

// execInput carries what the caller sends to the process.
type execInput struct {
	reader *io.PipeReader // nil when the process has no stdin
	writer *io.PipeWriter
	resize chan container.WindowSize // the latest size, not read yet
}

func newExecInput(req api.ExecRequest) *execInput {
	in := &execInput{resize: make(chan container.WindowSize, 1)}
	if req.Stdin {
		in.reader, in.writer = io.Pipe()
	}
	if req.Size != nil {
		in.resize <- container.WindowSize{Width: int(req.Size.Width), Height: int(req.Size.Height)}
	}
	return in
}

func (in *execInput) stdin() io.Reader {
	if in.reader == nil {
		return nil
	}
	return in.reader
}

// abandon ends a pump that waits for the process to read.
func (in *execInput) abandon() {
	if in.reader != nil {
		in.reader.CloseWithError(io.ErrClosedPipe)
	}
}

// size replaces a size that the process has not seen by a newer one: the pump
// is their only writer, and must not wait for a process without a terminal.
func (in *execInput) size(w container.WindowSize) {
	select {
	case <-in.resize:
	default:
	}
	in.resize <- w
}

func (in *execInput) close() {
	if in.writer != nil {
		in.writer.Close()
	}
}

// pump reads the stream until the caller has nothing more to say (nil) or is
// gone.
func (in *execInput) pump(stream pb.WorkloadService_ExecServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *pb.ExecRequest_Stdin:
			if in.writer != nil {
				// A process that does not read its stdin any more is no error.
				_, _ = in.writer.Write(m.Stdin)
			}
		case *pb.ExecRequest_CloseStdin:
			in.close()
		case *pb.ExecRequest_Resize:
			in.size(container.WindowSize{Width: int(m.Resize.GetWidth()), Height: int(m.Resize.GetHeight())})
		}
	}
}

// execOutput serialises both streams of the process onto one.
type execOutput struct {
	mu     sync.Mutex
	stream pb.WorkloadService_ExecServer
}

func (o *execOutput) send(m *pb.ExecResponse) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream.Send(m)
}

func (o *execOutput) writer(stderr bool) io.Writer { return &execWriter{o, stderr} }

type execWriter struct {
	out    *execOutput
	stderr bool
}

func (w *execWriter) Write(p []byte) (int, error) {
	m := &pb.ExecResponse{Message: &pb.ExecResponse_Stdout{Stdout: p}}
	if w.stderr {
		m.Message = &pb.ExecResponse_Stderr{Stderr: p}
	}
	if err := w.out.send(m); err != nil {
		return 0, err
	}
	return len(p), nil
}
