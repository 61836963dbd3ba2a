package cli

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Exec knows four commands: "echo WORDS...", "cat", "exit CODE" and "terminal".
func (f *fakeNode) Exec(s grpc.BidiStreamingServer[pb.ExecRequest, pb.ExecResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	start := wire.ExecRequestFromPB(first.GetStart())
	if err := refuse(start.Target); err != nil {
		return err
	}
	if err := s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Started{Started: &pb.ExecStarted{Replica: "web.0.1", Node: "vps"}}}); err != nil {
		return err
	}
	code := 0
	switch start.Command[0] {
	case "echo":
		text := strings.Join(start.Command[1:], " ") + start.Env["SUFFIX"] + "\n"
		err = s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Stdout{Stdout: []byte(text)}})
	case "cat":
		err = cat(s)
	case "terminal":
		code, err = 42, describeTerminal(s, start)
	case "exit":
		code, _ = strconv.Atoi(start.Command[1])
		err = s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Stderr{Stderr: []byte("bye\n")}})
	}
	if err != nil {
		return err
	}
	return s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Exit{Exit: &pb.ExecExit{Code: int32(code)}}})
}

func cat(s grpc.BidiStreamingServer[pb.ExecRequest, pb.ExecResponse]) error {
	for {
		r, err := s.Recv()
		if err != nil || r.GetCloseStdin() {
			return err
		}
		if err := s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Stdout{Stdout: r.GetStdin()}}); err != nil {
			return err
		}
	}
}

// describeTerminal says the terminal's size, each new one, and the first key.
func describeTerminal(s grpc.BidiStreamingServer[pb.ExecRequest, pb.ExecResponse], start api.ExecRequest) error {
	say := func(format string, args ...any) error {
		return s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Stdout{Stdout: fmt.Appendf(nil, format, args...)}})
	}
	if start.TTY && start.Size != nil {
		if err := say("%dx%d", start.Size.Width, start.Size.Height); err != nil {
			return err
		}
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		if key := r.GetStdin(); len(key) > 0 {
			return say("%q", key)
		}
		if size := r.GetResize(); size != nil {
			if err := say("%dx%d", size.GetWidth(), size.GetHeight()); err != nil {
				return err
			}
		}
	}
}
