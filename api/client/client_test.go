package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// node is the least of a node that these tests need.
type node struct {
	pb.UnimplementedNodeServiceServer
	pb.UnimplementedWorkloadServiceServer
	pb.UnimplementedImageServiceServer
	pb.UnimplementedEventServiceServer
}

// serve starts the node and returns a client of its socket.
func serve(t *testing.T) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s, n := grpc.NewServer(), &node{}
	pb.RegisterNodeServiceServer(s, n)
	pb.RegisterWorkloadServiceServer(s, n)
	pb.RegisterImageServiceServer(s, n)
	pb.RegisterEventServiceServer(s, n)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return dial(t, Options{Socket: socket})
}

func dial(t *testing.T, opts Options) *Client {
	t.Helper()
	c, err := Dial(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (*node) GetNode(_ context.Context, r *pb.GetNodeRequest) (*pb.GetNodeResponse, error) {
	return nil, wire.ErrorToStatus((&api.Error{Kind: api.KindNotFound, Message: "no node is called " + r.GetNode()}).WithHint("look again"))
}

func TestErrorsAreAPIErrors(t *testing.T) {
	_, err := serve(t).Node(t.Context(), "pi")
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindNotFound || e.Hint != "look again" {
		t.Errorf("got %#v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	_, err := dial(t, Options{Socket: socket}).Nodes(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindUnavailable || !strings.Contains(e.Message, socket) || e.Hint == "" {
		t.Errorf("got %#v", err)
	}
}

func TestDialerSaysWhy(t *testing.T) {
	revoked := api.Errorf(api.KindDenied, "this identity is revoked")
	c := dial(t, Options{Dialer: func(context.Context) (net.Conn, error) { return nil, revoked }})
	if _, err := c.Nodes(t.Context()); api.KindOf(err) != api.KindDenied {
		t.Errorf("got %v, want what the dialer said", err)
	}
}

func TestPlainTCPIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := dial(t, Options{Dialer: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}})
	_, err = c.Nodes(t.Context())
	if err == nil || !strings.Contains(err.Error(), "refusing") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// member makes any connection look like an admitted stream of the mesh.
type member struct{ net.Conn }

func (member) Member() api.Member { return api.Member{ID: "peer"} }

func TestStreamsOfTheMeshAreAccepted(t *testing.T) {
	local := serve(t)
	c := dial(t, Options{Dialer: func(ctx context.Context) (net.Conn, error) {
		conn, err := local.connect(ctx)
		return member{conn}, err
	}})
	if _, err := c.Node(t.Context(), "pi"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("got %v, want the node's answer", err)
	}
}

// Exec echoes stdin in capitals to stdout and the sizes to stderr.
func (*node) Exec(s grpc.BidiStreamingServer[pb.ExecRequest, pb.ExecResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	if first.GetStart().GetTarget() == "gone" {
		return wire.ErrorToStatus(api.Errorf(api.KindNotFound, "no such workload"))
	}
	if err := s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Started{Started: &pb.ExecStarted{Replica: "web.0.1"}}}); err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		switch m := r.GetMessage().(type) {
		case *pb.ExecRequest_Stdin:
			err = s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Stdout{Stdout: bytes.ToUpper(m.Stdin)}})
		case *pb.ExecRequest_Resize:
			err = s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Stderr{Stderr: []byte("resized")}})
		case *pb.ExecRequest_CloseStdin:
			return s.Send(&pb.ExecResponse{Message: &pb.ExecResponse_Exit{Exit: &pb.ExecExit{Code: 42}}})
		}
		if err != nil {
			return err
		}
	}
}

func TestExec(t *testing.T) {
	sizes := make(chan api.TerminalSize)
	stdin, keyboard := io.Pipe()
	go func() {
		sizes <- api.TerminalSize{Width: 80, Height: 24}
		sizes <- api.TerminalSize{Width: 81, Height: 24}
		close(sizes)
		io.WriteString(keyboard, "hello")
		keyboard.Close()
	}()
	var stdout, stderr bytes.Buffer
	code, err := serve(t).Exec(t.Context(), api.ExecRequest{Target: "web", Command: []string{"cat"}},
		ExecStreams{Stdin: stdin, Stdout: &stdout, Stderr: &stderr, Resize: sizes})
	if err != nil || code != 42 {
		t.Fatalf("exit code %d, error %v", code, err)
	}
	if stdout.String() != "HELLO" || !strings.HasPrefix(stderr.String(), "resized") {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
}

func TestExecRefused(t *testing.T) {
	_, err := serve(t).Exec(t.Context(), api.ExecRequest{Target: "gone"}, ExecStreams{Stdin: strings.NewReader("x")})
	if api.KindOf(err) != api.KindNotFound {
		t.Errorf("got %v", err)
	}
}

// ImportImage takes 1 MiB at most and answers with the size it saw.
func (*node) ImportImage(s grpc.ClientStreamingServer[pb.ImportImageRequest, pb.ImportImageResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	image := api.Image{Ref: first.GetHeader().GetName()}
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&pb.ImportImageResponse{Images: []*pb.Image{wire.ImageToPB(image)}})
		}
		if err != nil {
			return err
		}
		if image.Size += int64(len(r.GetChunk())); image.Size > 1<<20 {
			return wire.ErrorToStatus(api.Errorf(api.KindExhausted, "the disk is full"))
		}
	}
}

func TestImportImage(t *testing.T) {
	c := serve(t)
	archive := make([]byte, 2*importChunk+7)
	images, err := c.ImportImage(t.Context(), "web:1", iotest.HalfReader(bytes.NewReader(archive)))
	if err != nil || len(images) != 1 || images[0].Ref != "web:1" || images[0].Size != int64(len(archive)) {
		t.Errorf("got %+v, %v", images, err)
	}
	_, err = c.ImportImage(t.Context(), "", io.LimitReader(endless{}, 1<<30))
	if api.KindOf(err) != api.KindExhausted {
		t.Errorf("got %v, want the node's reason for hanging up", err)
	}
	broken := errors.New("bad sector")
	if _, err = c.ImportImage(t.Context(), "", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func (*node) WatchEvents(r *pb.WatchEventsRequest, s grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	for id := r.GetAfter() + 1; id <= r.GetAfter()+3; id++ {
		if err := s.Send(&pb.WatchEventsResponse{Event: wire.EventToPB(api.Event{ID: id})}); err != nil {
			return err
		}
	}
	return wire.ErrorToStatus(api.Errorf(api.KindUnavailable, "shutting down"))
}

func TestWatchEvents(t *testing.T) {
	var ids []uint64
	var last error
	for e, err := range serve(t).WatchEvents(t.Context(), 7, api.EventFilter{}) {
		if err != nil {
			last = err
			continue
		}
		ids = append(ids, e.ID)
	}
	if len(ids) != 3 || ids[0] != 8 || api.KindOf(last) != api.KindUnavailable {
		t.Errorf("events %v, then %v", ids, last)
	}
}
