package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// LogRequestToPB converts a selection of log lines.
func LogRequestToPB(r api.LogRequest) *pb.LogsRequest {
	return &pb.LogsRequest{
		Target: r.Target,
		Follow: r.Follow,
		Tail:   pointer(r.Tail, intToPB),
		Since:  timeToPB(r.Since),
	}
}

// LogRequestFromPB converts a selection of log lines.
func LogRequestFromPB(p *pb.LogsRequest) api.LogRequest {
	return api.LogRequest{
		Target: p.GetTarget(),
		Follow: p.GetFollow(),
		Tail:   pointer(p.Tail, intFromPB), // presence matters
		Since:  timeFromPB(p.GetSince()),
	}
}

// LogEntryToPB converts a line that a replica wrote.
func LogEntryToPB(e api.LogEntry) *pb.LogsResponse {
	return &pb.LogsResponse{
		Time:    timeToPB(e.Time),
		Stream:  e.Stream,
		Replica: string(e.Replica),
		Node:    e.Node,
		Data:    e.Data,
	}
}

// LogEntryFromPB converts a line that a replica wrote.
func LogEntryFromPB(p *pb.LogsResponse) api.LogEntry {
	return api.LogEntry{
		Time:    timeFromPB(p.GetTime()),
		Stream:  p.GetStream(),
		Replica: api.ReplicaID(p.GetReplica()),
		Node:    p.GetNode(),
		Data:    p.GetData(),
	}
}

// ExecRequestToPB converts a command to run.
func ExecRequestToPB(r api.ExecRequest) *pb.ExecStart {
	p := &pb.ExecStart{Target: r.Target, Command: r.Command, Env: r.Env, Tty: r.TTY, Stdin: r.Stdin}
	if r.Size != nil {
		p.Size = TerminalSizeToPB(*r.Size)
	}
	return p
}

// ExecRequestFromPB converts a command to run.
func ExecRequestFromPB(p *pb.ExecStart) api.ExecRequest {
	r := api.ExecRequest{Target: p.GetTarget(), Command: p.GetCommand(), Env: p.GetEnv(), TTY: p.GetTty(), Stdin: p.GetStdin()}
	if p.GetSize() != nil {
		size := TerminalSizeFromPB(p.GetSize())
		r.Size = &size
	}
	return r
}

// TerminalSizeToPB converts the size of a terminal.
func TerminalSizeToPB(s api.TerminalSize) *pb.TerminalSize {
	return &pb.TerminalSize{Width: s.Width, Height: s.Height}
}

// TerminalSizeFromPB converts the size of a terminal.
func TerminalSizeFromPB(p *pb.TerminalSize) api.TerminalSize {
	return api.TerminalSize{Width: p.GetWidth(), Height: p.GetHeight()}
}
