package control

import (
	"bufio"
	"context"
	"io"
	"slices"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// Group is the anchors and what they share. All but Progress works on the
// leader only.
type Group interface {
	// Progress tells how far this node's own copy of the log is.
	Progress() api.AnchorProgress
	// Anchors lists the anchors in the given state, by name.
	Anchors(v state.View) []api.AnchorStatus
	// Transfer makes another voter the leader.
	Transfer(ctx context.Context, to api.NodeID) error
	// Grant seals the authority to the key of a node that was appointed. It refuses
	// one that the Raft group counts on, unless it says that it keeps its log.
	Grant(ctx context.Context, to api.NodeID, public []byte, keepsLog bool) (sealed []byte, epoch uint64, err error)
	// Enrol takes a joiner in that asked another anchor.
	Enrol(ctx context.Context, j Joiner) (certificate []byte, err error)
	// Backup writes a sealed backup of a state and the authority.
	Backup(v state.View, key, salt []byte, w io.Writer) error
}

// Joiner is somebody who wants to become a member.
type Joiner struct {
	TokenID string
	Secret  []byte
	CSR     []byte // DER
	Name    string
	Address string // where the call came from
}

type anchorServer struct {
	pb.UnimplementedAnchorServiceServer
	*Server
}

func (s *anchorServer) ListAnchors(ctx context.Context, _ *pb.ListAnchorsRequest) (*pb.ListAnchorsResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	reply := &pb.ListAnchorsResponse{}
	for _, a := range s.cfg.Group.Anchors(view) {
		reply.Anchors = append(reply.Anchors, wire.AnchorToPB(a))
	}
	return reply, nil
}

func (s *anchorServer) SetAnchorPolicy(ctx context.Context, req *pb.SetAnchorPolicyRequest) (*pb.SetAnchorPolicyResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	n, err := findNode(view, req.GetNode())
	if err != nil {
		return nil, err
	}
	policy := api.AnchorPolicy(req.GetPolicy())
	switch policy {
	case api.AnchorAlways:
		err = mayBecomeAnchor(n)
	case api.AnchorNever:
		err = mayLeaveAnchors(view, n)
	case api.AnchorAuto:
		policy = ""
	default:
		err = api.Invalid("policy", "%q is not always, never or auto", req.GetPolicy())
	}
	if err != nil {
		return nil, err
	}
	if _, err := propose[api.Node](ctx, s.Server, state.SetAnchorPolicy{ID: n.ID, Policy: policy}); err != nil {
		return nil, err
	}
	return &pb.SetAnchorPolicyResponse{Id: string(n.ID), Name: n.Inventory.Name}, nil
}

func mayBecomeAnchor(n api.Node) error {
	if !n.HoldsState() && n.State != api.NodeReady {
		return api.Errorf(api.KindConflict, "node %s is %s: an anchor has to be well", n.Inventory.Name, n.State).
			WithHint("wait until it is ready, or choose another one: cloudless node list")
	}
	return nil
}

// mayLeaveAnchors refuses to leave the cluster without a copy of its state.
func mayLeaveAnchors(view state.View, n api.Node) error {
	if !n.HoldsState() {
		return nil
	}
	for _, other := range view.Nodes() {
		if other.ID != n.ID && other.HoldsState() && other.AnchorPolicyInForce() != api.AnchorNever && other.State == api.NodeReady {
			return nil
		}
	}
	return api.Errorf(api.KindConflict, "node %s is the only anchor that is well", n.Inventory.Name).
		WithHint("first give it a successor: cloudless anchor add NODE")
}

func (s *anchorServer) TransferLeadership(ctx context.Context, req *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	n, err := findNode(view, req.GetNode())
	if err != nil {
		return nil, err
	}
	switch {
	case n.ID == s.cfg.Self.ID: // it leads already
	case !n.Voter:
		return nil, api.Errorf(api.KindConflict, "node %s has no vote", n.Inventory.Name).
			WithHint("see the voters with: cloudless anchor list")
	default:
		if err := s.cfg.Group.Transfer(ctx, n.ID); err != nil {
			return nil, err
		}
	}
	return &pb.TransferLeadershipResponse{Id: string(n.ID), Name: n.Inventory.Name}, nil
}

// backupChunk is how much of a backup travels in one message, in bytes.
const backupChunk = 256 << 10

func (s *anchorServer) Backup(req *pb.BackupRequest, stream grpc.ServerStreamingServer[pb.BackupResponse]) error {
	if len(req.GetKey()) != identity.BackupKeySize {
		return api.Invalid("key", "has %d bytes, not %d", len(req.GetKey()), identity.BackupKeySize)
	}
	view, err := s.linearizable(stream.Context())
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(chunkWriter{stream}, backupChunk)
	if err := s.cfg.Group.Backup(view, req.GetKey(), req.GetSalt(), out); err != nil {
		return err
	}
	return out.Flush()
}

type chunkWriter struct {
	stream grpc.ServerStreamingServer[pb.BackupResponse]
}

// Write implements io.Writer.
func (w chunkWriter) Write(p []byte) (int, error) {
	for part := range slices.Chunk(p, backupChunk) {
		if err := w.stream.Send(&pb.BackupResponse{Data: part}); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *anchorServer) GetProgress(context.Context, *pb.GetProgressRequest) (*pb.GetProgressResponse, error) {
	return wire.AnchorProgressToPB(s.cfg.Group.Progress()), nil
}

// FetchAuthority trusts the state, not the certificate: a node that is dismissed
// is refused at once.
func (s *anchorServer) FetchAuthority(ctx context.Context, req *pb.FetchAuthorityRequest) (*pb.FetchAuthorityResponse, error) {
	id, err := s.callingAnchor(ctx)
	if err != nil {
		return nil, err
	}
	sealed, epoch, err := s.cfg.Group.Grant(ctx, id, req.GetKey(), req.GetKeepsLog())
	if err != nil {
		return nil, err
	}
	return &pb.FetchAuthorityResponse{Sealed: sealed, Epoch: epoch}, nil
}

func (s *anchorServer) EnrolFor(ctx context.Context, req *pb.EnrolForRequest) (*pb.EnrolForResponse, error) {
	if _, err := s.callingAnchor(ctx); err != nil {
		return nil, err
	}
	cert, err := s.cfg.Group.Enrol(ctx, Joiner{
		TokenID: req.GetTokenId(), Secret: req.GetSecret(), CSR: req.GetCsr(), Name: req.GetName(), Address: req.GetAddress(),
	})
	if err != nil {
		return nil, err
	}
	return &pb.EnrolForResponse{Certificate: cert}, nil
}

// callingAnchor returns the node that calls, in its own name, if the state has
// it as an anchor.
func (s *anchorServer) callingAnchor(ctx context.Context) (api.NodeID, error) {
	c := caller(ctx)
	view, err := s.linearizable(ctx)
	if err != nil {
		return "", err
	}
	n, ok := view.Node(c.Member.ID)
	if c.Via != "" || c.UID >= 0 || !ok || !n.HoldsState() {
		return "", api.Errorf(api.KindDenied, "%s is not an anchor of this cluster", c.Name())
	}
	return n.ID, nil
}
