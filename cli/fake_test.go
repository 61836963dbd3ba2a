package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// noon is the time in every transcript.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// fakeNode answers like a node, from memory.
type fakeNode struct {
	pb.UnimplementedNodeServiceServer
	pb.UnimplementedTokenServiceServer
	pb.UnimplementedWorkloadServiceServer
	pb.UnimplementedImageServiceServer
	pb.UnimplementedNetworkServiceServer
	pb.UnimplementedEventServiceServer
	pb.UnimplementedSystemServiceServer
	pb.UnimplementedSyncServiceServer
	pb.UnimplementedAnchorServiceServer

	mu        sync.Mutex
	nodes     []api.NodeStatus
	workloads []api.WorkloadStatus
	tokens    []api.Token
	anchors   []api.AnchorStatus
	images    []api.Image
	events    []api.Event
	// polled counts the looks at each workload: with each one it comes further.
	polled map[string]int
	renew  func(csr []byte) ([]byte, error)
	// stale is since when there is no anchor; zero: there is one.
	stale time.Time
}

// remember answers a read from memory, if the caller allows that.
func (f *fakeNode) remember(ctx context.Context) error {
	if f.stale.IsZero() {
		return nil
	}
	if md, _ := metadata.FromIncomingContext(ctx); !slices.Equal(md.Get(api.AllowStale), []string{"1"}) {
		return wire.ErrorToStatus(api.Errorf(api.KindUnavailable, "node vps cannot be reached"))
	}
	return grpc.SetHeader(ctx, metadata.Pairs(api.StaleSince, f.stale.Format(time.RFC3339Nano)))
}

func (f *fakeNode) RenewCertificate(_ context.Context, r *pb.RenewCertificateRequest) (*pb.RenewCertificateResponse, error) {
	der, err := f.renew(r.GetCsr())
	return &pb.RenewCertificateResponse{Certificate: der}, wire.ErrorToStatus(err)
}

// newFakeNode serves a small cluster and returns the path of its socket.
func newFakeNode(t *testing.T) (*fakeNode, string) {
	t.Helper()
	f := newFake()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f.serve(t, l)
	return f, socket
}

func (f *fakeNode) serve(t *testing.T, l net.Listener) {
	s := grpc.NewServer()
	pb.RegisterNodeServiceServer(s, f)
	pb.RegisterTokenServiceServer(s, f)
	pb.RegisterWorkloadServiceServer(s, f)
	pb.RegisterImageServiceServer(s, f)
	pb.RegisterNetworkServiceServer(s, f)
	pb.RegisterEventServiceServer(s, f)
	pb.RegisterSystemServiceServer(s, f)
	pb.RegisterSyncServiceServer(s, f)
	pb.RegisterAnchorServiceServer(s, f)
	pb.RegisterAuthorityServiceServer(s, newFakeAuthority())
	go s.Serve(l)
	t.Cleanup(s.Stop)
}

// newFake returns a fake node that is not served yet.
func newFake() *fakeNode {
	return &fakeNode{
		nodes: sampleNodes(), workloads: sampleWorkloads(), tokens: sampleTokens(), anchors: sampleAnchors(),
		images: sampleImages(), events: sampleEvents(), polled: map[string]int{},
	}
}

// refuse has names that make the fake node fail, one for each kind.
func refuse(name string) error {
	kind, ok := strings.CutPrefix(name, "error-")
	if !ok {
		return nil
	}
	return wire.ErrorToStatus((&api.Error{Kind: api.Kind(kind), Message: "this is what " + kind + " looks like"}).WithHint("do something else"))
}

func notFound(what, name string) error {
	return wire.ErrorToStatus(api.Errorf(api.KindNotFound, "there is no %s %q", what, name))
}

func (f *fakeNode) node(name string) (*api.NodeStatus, error) {
	if err := refuse(name); err != nil {
		return nil, err
	}
	for i := range f.nodes {
		if n := &f.nodes[i]; n.Inventory.Name == name || string(n.ID) == name {
			return n, nil
		}
	}
	return nil, notFound("node", name)
}

func (f *fakeNode) ListNodes(ctx context.Context, _ *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &pb.ListNodesResponse{}
	for _, n := range f.nodes {
		n.StaleSince = f.stale
		r.Nodes = append(r.Nodes, wire.NodeStatusToPB(n))
	}
	return r, f.remember(ctx)
}

func (f *fakeNode) GetNode(ctx context.Context, r *pb.GetNodeRequest) (*pb.GetNodeResponse, error) {
	if r.GetNode() == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.node(r.GetNode())
	if err != nil {
		return nil, err
	}
	if n.State == api.NodeDraining {
		n.Replicas = max(0, n.Replicas-1) // one leaves with each look
	}
	return &pb.GetNodeResponse{Node: wire.NodeStatusToPB(*n)}, nil
}

func (f *fakeNode) UpdateNode(_ context.Context, r *pb.UpdateNodeRequest) (*pb.UpdateNodeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.node(r.GetNode())
	if err != nil {
		return nil, err
	}
	update := wire.NodeUpdateFromPB(r)
	if update.Cordoned != nil {
		n.Cordoned = *update.Cordoned
	}
	if update.Drain {
		n.State, n.Cordoned, n.Replicas = api.NodeDraining, true, 2
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	for k, v := range update.SetLabels {
		n.Labels[k] = v
	}
	for _, k := range update.RemoveLabels {
		delete(n.Labels, k)
	}
	return &pb.UpdateNodeResponse{Node: wire.NodeStatusToPB(*n)}, nil
}

func (f *fakeNode) RemoveNode(_ context.Context, r *pb.RemoveNodeRequest) (*pb.RemoveNodeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes = slices.DeleteFunc(f.nodes, func(n api.NodeStatus) bool { return string(n.ID) == r.GetNode() })
	return &pb.RemoveNodeResponse{}, nil
}

func (f *fakeNode) CreateToken(_ context.Context, r *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	req := wire.TokenRequestFromPB(r)
	record := api.Token{ID: "t3", Role: req.Role, CreatedAt: noon, CreatedBy: "root", ExpiresAt: noon.Add(req.TTL), Uses: req.Uses}
	return &pb.CreateTokenResponse{Token: "cl1.c2VjcmV0", Record: wire.TokenToPB(record)}, nil
}

func (f *fakeNode) ListTokens(context.Context, *pb.ListTokensRequest) (*pb.ListTokensResponse, error) {
	r := &pb.ListTokensResponse{}
	for _, t := range f.tokens {
		r.Tokens = append(r.Tokens, wire.TokenToPB(t))
	}
	return r, nil
}

func (f *fakeNode) RevokeToken(_ context.Context, r *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	for _, t := range f.tokens {
		if t.ID == r.GetId() {
			return &pb.RevokeTokenResponse{}, nil
		}
	}
	return nil, notFound("token", r.GetId())
}

func (f *fakeNode) workload(name string) (*api.WorkloadStatus, error) {
	if err := refuse(name); err != nil {
		return nil, err
	}
	for i := range f.workloads {
		if f.workloads[i].Name == name {
			return &f.workloads[i], nil
		}
	}
	return nil, notFound("workload", name)
}

func (f *fakeNode) ListWorkloads(context.Context, *pb.ListWorkloadsRequest) (*pb.ListWorkloadsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &pb.ListWorkloadsResponse{}
	for _, w := range f.workloads {
		w.Replicas = nil
		r.Workloads = append(r.Workloads, wire.WorkloadStatusToPB(w))
	}
	return r, nil
}

func (f *fakeNode) GetWorkload(_ context.Context, r *pb.GetWorkloadRequest) (*pb.GetWorkloadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workload(r.GetName())
	if err != nil {
		return nil, err
	}
	f.polled[w.Name]++
	f.advance(w)
	return &pb.GetWorkloadResponse{Workload: wire.WorkloadStatusToPB(*w)}, nil
}

// advance brings a new workload further at each look, by the way its name asks
// for: one that is called "stuck…" finds no node, one called "slow…" never gets
// ready, one called "crash…" fails, one called "once…" comes to its end.
func (f *fakeNode) advance(w *api.WorkloadStatus) {
	if w.State != api.WorkloadPending && w.State != api.WorkloadProgressing {
		return
	}
	switch {
	case strings.HasPrefix(w.Name, "stuck"):
		w.Message = "no node has 64 free cores"
	case strings.HasPrefix(w.Name, "slow"):
		w.State = api.WorkloadProgressing
		w.Replicas = []api.Replica{{ID: "slow.0.1", Node: "12D3KooWVPSaaaaaaaaaa", Desired: api.DesiredRun, State: api.ReplicaStarting}}
	case strings.HasPrefix(w.Name, "once"):
		w.State = api.WorkloadProgressing
		if f.polled[w.Name] > 1 {
			w.Replicas = []api.Replica{{ID: "once.0.1", Node: "12D3KooWVPSaaaaaaaaaa", Desired: api.DesiredRun, State: api.ReplicaStopped, Revision: w.Revision}}
		}
	case strings.HasPrefix(w.Name, "crash"):
		w.State, w.Message = api.WorkloadFailed, "exit code 1"
	case f.polled[w.Name]%2 == 1:
		w.State = api.WorkloadProgressing
	default:
		w.State, w.Running, w.Ready = api.WorkloadHealthy, w.Spec.Replicas, w.Spec.Replicas
	}
}

func (f *fakeNode) ApplyWorkload(_ context.Context, r *pb.ApplyWorkloadRequest) (*pb.ApplyWorkloadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	req := wire.ApplyRequestFromPB(r)
	if err := refuse(req.Name); err != nil {
		return nil, err
	}
	if req.IdempotencyKey == "" {
		return nil, wire.ErrorToStatus(errors.New("the command line sends a key with every request"))
	}
	outcome := api.OutcomeChanged
	w, err := f.workload(req.Name)
	if err != nil {
		outcome = api.OutcomeCreated
		w = &api.WorkloadStatus{Workload: api.Workload{Name: req.Name, CreatedAt: noon}}
	}
	next := *w
	next.Labels, next.Spec, next.State = req.Labels, req.Spec, api.WorkloadPending
	next.Revision++
	if !req.DryRun {
		f.workloads = slices.DeleteFunc(f.workloads, func(w api.WorkloadStatus) bool { return w.Name == req.Name })
		f.workloads = append(f.workloads, next)
		delete(f.polled, req.Name)
	}
	return &pb.ApplyWorkloadResponse{Workload: wire.WorkloadStatusToPB(next), Outcome: string(outcome)}, nil
}

func (f *fakeNode) DeleteWorkload(_ context.Context, r *pb.DeleteWorkloadRequest) (*pb.DeleteWorkloadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.workload(r.GetName()); err != nil {
		return nil, err
	}
	f.workloads = slices.DeleteFunc(f.workloads, func(w api.WorkloadStatus) bool { return w.Name == r.GetName() })
	return &pb.DeleteWorkloadResponse{}, nil
}

func (f *fakeNode) RestartWorkload(_ context.Context, r *pb.RestartWorkloadRequest) (*pb.RestartWorkloadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workload(r.GetName())
	if err != nil {
		return nil, err
	}
	w.Revision++
	w.State = api.WorkloadProgressing
	delete(f.polled, w.Name)
	return &pb.RestartWorkloadResponse{Workload: wire.WorkloadStatusToPB(*w)}, nil
}

func (f *fakeNode) ScaleWorkload(_ context.Context, r *pb.ScaleWorkloadRequest) (*pb.ScaleWorkloadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workload(r.GetName())
	if err != nil {
		return nil, err
	}
	w.Spec.Replicas, w.State = int(r.GetReplicas()), api.WorkloadProgressing
	delete(f.polled, w.Name)
	return &pb.ScaleWorkloadResponse{Workload: wire.WorkloadStatusToPB(*w)}, nil
}

func (f *fakeNode) ExplainWorkload(_ context.Context, r *pb.ExplainWorkloadRequest) (*pb.ExplainWorkloadResponse, error) {
	if err := refuse(r.GetTarget()); err != nil {
		return nil, err
	}
	return &pb.ExplainWorkloadResponse{Explanation: wire.ExplanationToPB(api.Explanation{
		Workload: "web",
		Summary:  "2 of 3 replicas of web are placed; for the third no node has enough memory",
		Verdicts: []api.Verdict{
			{Node: "12D3KooWVPSaaaaaaaaaa", NodeName: "vps", Feasible: true, Terms: map[string]float64{"locality": 0.5, "utilisation": 0.25}, Total: 0.75, Chosen: true},
			{Node: "12D3KooWPIbbbbbbbbbbb", NodeName: "pi", Reasons: []string{"needs 128Mi of memory, 64Mi are free", "is cordoned"}},
		},
	})}, nil
}

func (f *fakeNode) Logs(r *pb.LogsRequest, s grpc.ServerStreamingServer[pb.LogsResponse]) error {
	if err := refuse(r.GetTarget()); err != nil {
		return err
	}
	entries := []api.LogEntry{
		{Time: noon, Stream: "stdout", Replica: "web.0.1", Node: "vps", Data: []byte("listening on :80\n")},
		{Time: noon, Stream: "stderr", Replica: "web.1.1", Node: "pi", Data: []byte("a very long line ")},
		{Time: noon, Stream: "stderr", Replica: "web.1.1", Node: "pi", Data: []byte("in two parts\n")},
		{Time: noon, Stream: "stdout", Replica: "web.0.1", Node: "vps", Data: []byte("no newline")},
	}
	if r.Tail != nil && int(r.GetTail()) < len(entries) {
		entries = entries[len(entries)-int(r.GetTail()):]
	}
	for _, e := range entries {
		if err := s.Send(wire.LogEntryToPB(e)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeNode) ImportImage(s grpc.ClientStreamingServer[pb.ImportImageRequest, pb.ImportImageResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	image := api.Image{Ref: cmp.Or(first.GetHeader().GetName(), "docker.io/library/web:1"), Digest: "sha256:5ca1e", Platforms: []string{"linux/amd64"}, ImportedAt: noon}
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		image.Size += int64(len(r.GetChunk()))
	}
	if image.Size == 0 {
		return wire.ErrorToStatus(api.Errorf(api.KindInvalid, "the archive is empty"))
	}
	return s.SendAndClose(&pb.ImportImageResponse{Images: []*pb.Image{wire.ImageToPB(image)}})
}

func (f *fakeNode) ListImages(context.Context, *pb.ListImagesRequest) (*pb.ListImagesResponse, error) {
	r := &pb.ListImagesResponse{}
	for _, i := range f.images {
		r.Images = append(r.Images, wire.ImageToPB(i))
	}
	return r, nil
}

func (f *fakeNode) RemoveImage(_ context.Context, r *pb.RemoveImageRequest) (*pb.RemoveImageResponse, error) {
	if err := refuse(r.GetRef()); err != nil {
		return nil, err
	}
	return &pb.RemoveImageResponse{}, nil
}

func (f *fakeNode) ListServices(context.Context, *pb.ListServicesRequest) (*pb.ListServicesResponse, error) {
	return &pb.ListServicesResponse{Services: []*pb.ServiceStatus{
		wire.ServiceStatusToPB(api.ServiceStatus{
			Service: api.Service{Name: "web", VIP: "10.213.1.0", Ports: []api.Port{{Name: "http", Port: 80, Target: 8080, Protocol: "tcp"}}},
			Endpoints: []api.Endpoint{
				{Replica: "web.0.1", Node: "12D3KooWVPSaaaaaaaaaa", Address: "10.214.0.2", Ready: true, Weight: 1, Path: api.PathSelf},
				{Replica: "web.1.1", Node: "12D3KooWPIbbbbbbbbbbb", Address: "10.214.1.2", Weight: 1, Path: api.PathRelayed, RTT: 42.4},
			},
		}),
		wire.ServiceStatusToPB(api.ServiceStatus{Service: api.Service{Name: "idle", VIP: "10.213.1.1"}}),
	}}, nil
}

func (f *fakeNode) Diagnose(_ context.Context, r *pb.DiagnoseRequest) (*pb.DiagnoseResponse, error) {
	checks := sampleChecks()
	if r.GetNode() != "" {
		if _, err := f.node(r.GetNode()); err != nil {
			return nil, err
		}
		checks = checks[:2]
	}
	reply := &pb.DiagnoseResponse{}
	for _, c := range checks {
		reply.Checks = append(reply.Checks, wire.CheckToPB(c))
	}
	return reply, nil
}

func (f *fakeNode) ListPeers(_ context.Context, r *pb.ListPeersRequest) (*pb.ListPeersResponse, error) {
	if r.GetNode() != "" {
		if _, err := f.node(r.GetNode()); err != nil {
			return nil, err
		}
	}
	return &pb.ListPeersResponse{Peers: []*pb.Peer{wire.PeerToPB(api.Peer{
		ID: "12D3KooWPIbbbbbbbbbbb", Name: "pi", Path: api.PathDirect, Transport: "quic",
		Address: "/ip4/192.0.2.7/udp/4717/quic-v1", RTT: 3.25, Since: noon.Add(-90 * time.Minute), BytesIn: 4 << 20, BytesOut: 1500,
	})}}, nil
}

func (f *fakeNode) ListEvents(_ context.Context, r *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	filter := wire.EventFilterFromPB(r.GetFilter())
	var selected []*pb.Event
	for _, e := range f.events {
		if e.ID > r.GetAfter() && filter.Matches(&e) {
			selected = append(selected, wire.EventToPB(e))
		}
	}
	if n := int(r.GetLimit()); n > 0 && len(selected) > n {
		selected = selected[len(selected)-n:]
	}
	return &pb.ListEventsResponse{Events: selected}, nil
}

// WatchEvents sends one more event at each call, then ends as a node does that
// is stopped; the third time it refuses for good.
func (f *fakeNode) WatchEvents(r *pb.WatchEventsRequest, s grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	id := r.GetAfter() + 1
	if id > 4 {
		return wire.ErrorToStatus(api.Errorf(api.KindDenied, "your identity was revoked"))
	}
	e := api.Event{ID: id, Time: noon, Type: api.EventMembership, Code: api.CodeNodeReady, Reason: "NodeReady", Object: api.Object{Kind: "node", Name: "nas"}, Message: "nas is ready"}
	if err := s.Send(&pb.WatchEventsResponse{Event: wire.EventToPB(e)}); err != nil {
		return err
	}
	return wire.ErrorToStatus(api.Errorf(api.KindUnavailable, "the node is shutting down"))
}
