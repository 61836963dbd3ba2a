package control

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// Snapshots are what a node keeps of the cluster for the day when every anchor
// is lost. It cannot read them.
type Snapshots interface {
	// Keep takes a snapshot from an anchor and drops old ones.
	Keep(from api.NodeID, content io.Reader) error
	// List returns the snapshots that are kept, the newest first.
	List() []api.Snapshot
	// Open returns the content of one of them.
	Open(epoch, index uint64) (io.ReadCloser, error)
}

func (s *anchorServer) SetRecoveryKey(ctx context.Context, req *pb.SetRecoveryKeyRequest) (*pb.SetRecoveryKeyResponse, error) {
	if err := identity.CheckRecoveryPublic(req.GetPublic()); err != nil {
		return nil, err
	}
	cmd := state.SetRecoveryKey{Public: req.GetPublic(), Replace: req.GetReplace(), Now: s.cfg.Now()}
	if _, err := propose[api.Cluster](ctx, s.Server, cmd); err != nil {
		return nil, err
	}
	return &pb.SetRecoveryKeyResponse{}, nil
}

// KeepSnapshot trusts nobody but anchors, in their own name.
func (s *anchorServer) KeepSnapshot(stream grpc.ClientStreamingServer[pb.KeepSnapshotRequest, pb.KeepSnapshotResponse]) error {
	c := caller(stream.Context())
	if c.Via != "" || c.UID >= 0 {
		return api.Errorf(api.KindDenied, "%s is not an anchor of this cluster", c.Name())
	}
	content := &received{next: func() ([]byte, error) {
		msg, err := stream.Recv()
		return msg.GetData(), err
	}}
	if err := s.cfg.Snapshots.Keep(c.Member.ID, content); err != nil {
		return err
	}
	return stream.SendAndClose(&pb.KeepSnapshotResponse{})
}

// received is a stream of messages as a reader.
type received struct {
	next func() ([]byte, error) // io.EOF after the last one
	rest []byte
}

// Read implements io.Reader.
func (r *received) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		var err error
		if r.rest, err = r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// The bounds of a question to everybody.
const (
	maxAsked    = 64
	askAtOnce   = 16
	askedWithin = 3 * time.Second
)

func (s *anchorServer) ListSnapshots(ctx context.Context, req *pb.ListSnapshotsRequest) (*pb.ListSnapshotsResponse, error) {
	found := s.cfg.Snapshots.List()
	for i := range found {
		found[i].NodeName = s.nodeName(found[i].Node)
	}
	if req.GetEverywhere() {
		found = append(found, s.askEverybody(ctx)...)
	}
	slices.SortStableFunc(found, func(a, b api.Snapshot) int {
		return cmp.Or(-cmp.Compare(a.Epoch, b.Epoch), -cmp.Compare(a.Index, b.Index), cmp.Compare(a.NodeName, b.NodeName))
	})
	reply := &pb.ListSnapshotsResponse{}
	for _, f := range found {
		reply.Snapshots = append(reply.Snapshots, wire.SnapshotToPB(f))
	}
	return reply, nil
}

// askEverybody asks the other nodes, those with a connection first. Who does not
// answer in time has nothing to say.
func (s *anchorServer) askEverybody(ctx context.Context) (found []api.Snapshot) {
	var nodes []api.NodeID
	for _, n := range s.cfg.View().Nodes {
		if n.ID != s.cfg.Self.ID {
			nodes = append(nodes, n.ID)
		}
	}
	away := func(id api.NodeID) int {
		if path, _ := s.cfg.Mesh.Path(id); path == api.PathNone {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(nodes, func(a, b api.NodeID) int { return away(a) - away(b) })
	var mu sync.Mutex
	var group sync.WaitGroup
	turns := make(chan struct{}, askAtOnce)
	for _, id := range nodes[:min(maxAsked, len(nodes))] {
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(ctx, askedWithin)
			defer cancel()
			conn, err := s.Conn(id)
			if err != nil {
				return
			}
			reply, err := pb.NewAnchorServiceClient(conn).ListSnapshots(ctx, &pb.ListSnapshotsRequest{})
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, one := range reply.GetSnapshots() {
				snap := wire.SnapshotFromPB(one)
				snap.Node, snap.NodeName = id, s.nodeName(id)
				found = append(found, snap)
			}
		})
	}
	group.Wait()
	return found
}

// FetchSnapshot gives a snapshot of this node, or carries one from the node that
// keeps it.
func (s *anchorServer) FetchSnapshot(req *pb.FetchSnapshotRequest, stream grpc.ServerStreamingServer[pb.FetchSnapshotResponse]) error {
	if id := api.NodeID(req.GetNode()); id != "" && id != s.cfg.Self.ID {
		return s.carrySnapshot(id, req, stream)
	}
	content, err := s.cfg.Snapshots.Open(req.GetEpoch(), req.GetIndex())
	if err != nil {
		return err
	}
	defer content.Close()
	out := bufio.NewWriterSize(snapshotWriter{stream}, backupChunk)
	if _, err := out.ReadFrom(content); err != nil {
		return err
	}
	return out.Flush()
}

func (s *anchorServer) carrySnapshot(from api.NodeID, req *pb.FetchSnapshotRequest, stream grpc.ServerStreamingServer[pb.FetchSnapshotResponse]) error {
	conn, err := s.Conn(from)
	if err != nil {
		return err
	}
	in, err := pb.NewAnchorServiceClient(conn).FetchSnapshot(stream.Context(), req)
	if err != nil {
		return wire.ErrorFromStatus(err)
	}
	for {
		msg, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.ErrorFromStatus(err)
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

type snapshotWriter struct {
	stream grpc.ServerStreamingServer[pb.FetchSnapshotResponse]
}

// Write implements io.Writer.
func (w snapshotWriter) Write(p []byte) (int, error) {
	for part := range slices.Chunk(p, backupChunk) {
		if err := w.stream.Send(&pb.FetchSnapshotResponse{Data: part}); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
