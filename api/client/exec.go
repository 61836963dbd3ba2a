package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// stdinChunk is how much of stdin travels in one message, in bytes.
const stdinChunk = 32 << 10

// ExecStreams connects a remote command with this side.
type ExecStreams struct {
	Stdin  io.Reader // nil for none
	Stdout io.Writer
	Stderr io.Writer
	// Resize tells of new sizes of the terminal; nil for none.
	Resize <-chan api.TerminalSize
}

// Exec runs a command in a replica and returns its exit code. The error is nil
// whenever the command ran to its end, whatever its code. A Read of Stdin that
// is under way when the command ends is left behind; its result is dropped.
func (c *Client) Exec(ctx context.Context, req api.ExecRequest, streams ExecStreams) (code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.workloads.Exec(ctx)
	if err != nil {
		return 0, err
	}
	req.Stdin = streams.Stdin != nil
	out := &execSender{stream: stream}
	if err := out.send(&pb.ExecRequest{Message: &pb.ExecRequest_Start{Start: wire.ExecRequestToPB(req)}}); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if streams.Stdin != nil {
		go out.copyStdin(streams.Stdin)
	}
	if streams.Resize != nil {
		go out.copySizes(ctx, streams.Resize)
	}
	return receiveExec(stream, streams)
}

// receiveExec writes the command's output until it exits.
func receiveExec(stream grpc.BidiStreamingClient[pb.ExecRequest, pb.ExecResponse], streams ExecStreams) (code int, err error) {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, api.Errorf(api.KindUnavailable, "the node ended the command without an exit code")
		}
		if err != nil {
			return 0, err
		}
		switch m := r.GetMessage().(type) {
		case *pb.ExecResponse_Stdout:
			_, err = streams.Stdout.Write(m.Stdout)
		case *pb.ExecResponse_Stderr:
			_, err = streams.Stderr.Write(m.Stderr)
		case *pb.ExecResponse_Exit:
			return int(m.Exit.GetCode()), nil
		}
		if err != nil {
			return 0, fmt.Errorf("write output: %w", err)
		}
	}
}

// execSender serialises what stdin and the terminal's size have to say: a
// stream takes one message at a time. Failures to send are not its concern:
// the receiving side learns the reason.
type execSender struct {
	mu     sync.Mutex
	stream grpc.BidiStreamingClient[pb.ExecRequest, pb.ExecResponse]
}

func (s *execSender) send(r *pb.ExecRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(r)
}

func (s *execSender) copyStdin(stdin io.Reader) {
	buf := make([]byte, stdinChunk)
	for {
		n, err := stdin.Read(buf)
		if n > 0 && s.send(&pb.ExecRequest{Message: &pb.ExecRequest_Stdin{Stdin: buf[:n]}}) != nil {
			return
		}
		if err != nil {
			_ = s.send(&pb.ExecRequest{Message: &pb.ExecRequest_CloseStdin{CloseStdin: true}})
			return
		}
	}
}

func (s *execSender) copySizes(ctx context.Context, sizes <-chan api.TerminalSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok || s.send(&pb.ExecRequest{Message: &pb.ExecRequest_Resize{Resize: wire.TerminalSizeToPB(size)}}) != nil {
				return
			}
		}
	}
}
