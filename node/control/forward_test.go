package control

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/container"
)

// follower is a server that is no anchor and takes n1 for the leader.
func follower(t *testing.T, dial DialFunc) *Server {
	t.Helper()
	s, err := New(Config{
		Self: member("n2", api.RoleNode), Dial: dial, Log: zap.NewNop(),
		Leader: func() (api.NodeID, bool) { return "n1", true },
		View:   func() api.ClusterView { return api.ClusterView{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.close)
	return s
}

func listNodes(ctx context.Context, s *Server) error {
	_, err := s.answer(ctx, &pb.ListNodesRequest{}, pb.NodeService_ListNodes_FullMethodName, nil)
	return err
}

func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindUnavailable || e.Hint == "" {
		t.Errorf("got %v, want unavailable, with a hint", err)
	}
}

func TestUnreachableLeaderIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follower(t, func(ctx context.Context, _ api.NodeID) (net.Conn, error) {
			<-ctx.Done() // packets go nowhere
			return nil, ctx.Err()
		})
		ctx := calling(t, member("op", api.RoleOperator), -1, nil)
		start := time.Now()
		err := listNodes(ctx, s)
		wantUnavailable(t, err)
		if want := "node n1 cannot be reached"; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		if took := time.Since(start); took > dialTimeout+time.Second {
			t.Errorf("it took %s", took)
		}
		// What is known to fail is not waited for again, not even after Redial.
		s.Redial("n1")
		start = time.Now()
		wantUnavailable(t, listNodes(ctx, s))
		if took := time.Since(start); took > 0 {
			t.Errorf("the second call took %s", took)
		}
		s.pool.close()
		synctest.Wait()
	})
}

func TestLeaderThatDiedWithoutAWordIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follower(t, func(context.Context, api.NodeID) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }() // reads, and never answers
			return pipeConn{ours, member("n1", api.RoleNode)}, nil
		})
		ctx := calling(t, member("op", api.RoleOperator), -1, nil)
		start := time.Now()
		wantUnavailable(t, listNodes(ctx, s))
		if took := time.Since(start); took > forwardTimeout+time.Second {
			t.Errorf("it took %s", took)
		}
		hurried, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		start = time.Now()
		if err := listNodes(hurried, s); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("a caller's own deadline: %v after %s", err, time.Since(start))
		}
		s.pool.close()
		synctest.Wait()
	})
}

// candidate is an anchor that is elected after a while.
type candidate struct {
	Anchor
	elected time.Time
}

func (c candidate) IsLeader() bool { return !time.Now().Before(c.elected) }

func TestCallsWaitForTheFirstElection(t *testing.T) {
	for name, tt := range map[string]struct{ election, patience, want time.Duration }{
		"elected soon":        {2 * time.Second, time.Minute, 2 * time.Second},
		"never elected":       {time.Hour, time.Minute, electionWait},
		"an impatient caller": {time.Hour, time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := follower(t, nil)
				s.cfg.Leader = func() (api.NodeID, bool) { return "", false }
				s.cfg.Anchor = candidate{elected: time.Now().Add(tt.election)}
				ctx, cancel := context.WithTimeout(calling(t, member("op", api.RoleOperator), -1, nil), tt.patience)
				defer cancel()
				start := time.Now()
				to, err := s.route(ctx, &Caller{UID: 0}, rule{readers, leader})
				if took := time.Since(start); took != tt.want {
					t.Errorf("it took %s, want %s", took, tt.want)
				}
				if tt.election > electionWait {
					wantUnavailable(t, err)
				} else if err != nil || to != "n2" {
					t.Errorf("routed to %q, %v", to, err)
				}
				s.pool.close()
			})
		})
	}
}

func TestCallsOfARemovedNodeGoNowhere(t *testing.T) {
	s := follower(t, nil)
	s.cfg.Removed = func() error { return api.Errorf(api.KindDenied, "removed") }
	if err := listNodes(calling(t, member("op", api.RoleOperator), -1, nil), s); api.KindOf(err) != api.KindDenied {
		t.Errorf("got %v", err)
	}
}

func TestReservedAndBadLabelsAreRefused(t *testing.T) {
	for _, key := range []string{"zone", "region", "arch", "os", "name", "a b", ""} {
		if err := checkNodeLabels(map[string]string{"fine": "yes", key: "x"}); err == nil {
			t.Errorf("a label of the key %q was accepted", key)
		}
	}
	if err := checkNodeLabels(map[string]string{"example.org/disk": "ssd"}); err != nil {
		t.Error(err)
	}
}

func TestCallsGoOverOneNodeAtMost(t *testing.T) {
	s := follower(t, func(context.Context, api.NodeID) (net.Conn, error) { return nil, errors.New("dialled") })
	operator := &Caller{Member: member("op", api.RoleOperator), UID: -1}
	err := listNodes(calling(t, member("n3", api.RoleNode), -1, operator), s)
	if api.KindOf(err) != api.KindUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestWhoLostTheirStandingAreRefused(t *testing.T) {
	s := follower(t, nil)
	s.cfg.Standing = func(m api.Member, renewing bool) error {
		if renewing {
			return nil
		}
		return api.Errorf(api.KindDenied, "%s was revoked", m.ID)
	}
	ctx := calling(t, member("op", api.RoleOperator), -1, nil)
	if err := listNodes(ctx, s); api.KindOf(err) != api.KindDenied {
		t.Errorf("got %v", err)
	}
	if _, _, err := s.admit(ctx, pb.SyncService_RenewCertificate_FullMethodName); err != nil {
		t.Errorf("renewing: %v", err)
	}
}

// deaf runs processes that never read what they are sent.
type deaf struct{ container.Logs }

func (deaf) Exec(context.Context, string, container.ExecSpec) (int, error) { return 7, nil }

// execStream is a caller that sends and sends.
type execStream struct {
	pb.WorkloadService_ExecServer
	ctx  context.Context
	send []*pb.ExecRequest
	exit int32
	left chan struct{} // closed when everything was taken
}

func (s *execStream) Context() context.Context { return s.ctx }
func (s *execStream) SendMsg(any) error        { return nil }
func (s *execStream) SetHeader(metadata.MD) error {
	return nil
}

func (s *execStream) Send(m *pb.ExecResponse) error {
	if e := m.GetExit(); e != nil {
		s.exit = e.GetCode()
	}
	return nil
}

func (s *execStream) Recv() (*pb.ExecRequest, error) {
	if len(s.send) == 0 {
		close(s.left)
		return nil, io.EOF
	}
	m := s.send[0]
	s.send = s.send[1:]
	return m, nil
}

func TestExecOfAProcessThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follower(t, nil)
		s.cfg.Runtime = deaf{}
		resize := &pb.ExecRequest{Message: &pb.ExecRequest_Resize{Resize: &pb.TerminalSize{Width: 80, Height: 24}}}
		stdin := &pb.ExecRequest{Message: &pb.ExecRequest_Stdin{Stdin: []byte("hello")}}
		stream := &execStream{ctx: t.Context(), send: []*pb.ExecRequest{resize, resize, resize, stdin, stdin}, left: make(chan struct{})}
		w := &workloadServer{Server: s}
		err := w.localExec(stream, api.Replica{ID: "web.0.1", Node: "n2"}, api.ExecRequest{Command: []string{"true"}, Stdin: true})
		if err != nil || stream.exit != 7 {
			t.Errorf("exit code %d, %v", stream.exit, err)
		}
		<-stream.left // or the goroutine that reads the caller is stuck for good
		s.pool.close()
	})
}
