package control

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// maxMessage bounds a message of the API, in bytes. The largest is a cluster
// view of the biggest planned full-membership cluster.
const maxMessage = 16 << 20

// Anchor is the authoritative state, on nodes that hold it.
type Anchor interface {
	Propose(ctx context.Context, cmds ...state.Command) (state.Result, error)
	VerifyLeader(ctx context.Context) error
	IsLeader() bool
	Store() *state.Store
}

// Mesh is what the API tells of the transport.
type Mesh interface {
	Peers() []api.Peer
	Path(api.NodeID) (api.Path, time.Duration)
}

// Importer takes image archives in.
type Importer interface {
	Import(ctx context.Context, archive io.Reader, name string) ([]api.Image, error)
}

// Runtime is what logs and exec need of the containers.
type Runtime interface {
	container.Execer
	container.Logs
}

// Config wires a Server. Runtime and Images are nil on nodes that run no
// workloads. Anchor and Group are there on every node, because any may become
// an anchor; on those that are none they do not lead.
type Config struct {
	Self      api.Member
	Version   api.Version
	Anchor    Anchor
	Group     Group
	Snapshots Snapshots
	Mesh      Mesh
	Runtime   Runtime
	Images    Importer

	Dial   DialFunc                  // a node's API over the mesh
	Leader func() (api.NodeID, bool) // as far as this node knows
	// Standing says whether a member that is connected may still call; renewing
	// tells that the call is for a new certificate. Default: always.
	Standing func(m api.Member, renewing bool) error
	// Removed returns why this node's calls go nowhere once it was removed from
	// the cluster, and else nil. Default: never.
	Removed func() error
	// Duplicated returns why people's calls go nowhere while another device has
	// this node's identity, and else nil. Default: never.
	Duplicated func() error
	Authority  Authority
	View       func() api.ClusterView     // the last one received
	InStep     func() time.Time           // when an anchor was heard last; zero: never. Default: now
	Status     func() api.Status          // of this node
	LastSeen   func(api.NodeID) time.Time // of a node's heartbeat, on the leader
	// Heard is told of every report, on the leader. It returns why a node that was
	// taken for dead has to wait before it takes work, "" when it need not.
	Heard    func(id api.NodeID, incarnation uint64) (unstable string)
	Invite   func(api.Role) (identity.Token, error)
	Issue    func(csr []byte, to api.Member) (certificate []byte, err error)
	Revoke   func(api.Revocation) (api.Revocation, error) // signs it
	Explain  func(v state.View, target string) (api.Explanation, error)
	Diagnose func(context.Context) []api.Check // of the network around this node
	Now      func() time.Time                  // default time.Now

	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Server answers the API.
type Server struct {
	cfg     Config
	grpc    *grpc.Server
	pool    *pool
	pipe    *pipeListener
	answers *answers
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// New returns a server that listens nowhere yet.
func New(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.InStep == nil {
		cfg.InStep = cfg.Now
	}
	if cfg.Standing == nil {
		cfg.Standing = func(api.Member, bool) error { return nil }
	}
	if cfg.Duplicated == nil {
		cfg.Duplicated = func() error { return nil }
	}
	if cfg.Removed == nil {
		cfg.Removed = func() error { return nil }
	}
	s := &Server{cfg: cfg, answers: newAnswers(), pipe: newPipeListener(cfg.Self)}
	s.pool = newPool(s.dial)
	s.calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cloudless_api_calls_total", Help: "API calls answered, by method and error kind.",
	}, []string{"method", "kind"})
	s.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cloudless_api_seconds", Help: "Time to answer an API call, by method.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
	}, []string{"method"})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(s.calls, s.seconds)
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(provenCredentials{self: cfg.Self}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(64<<10),
		grpc.MaxConcurrentStreams(1024),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, Time: 30 * time.Second, Timeout: keepaliveTimeout}),
		grpc.ConnectionTimeout(10*time.Second),
	)
	pb.RegisterSystemServiceServer(s.grpc, &systemServer{Server: s})
	pb.RegisterNodeServiceServer(s.grpc, &nodeServer{Server: s})
	pb.RegisterTokenServiceServer(s.grpc, &tokenServer{Server: s})
	pb.RegisterWorkloadServiceServer(s.grpc, &workloadServer{Server: s})
	pb.RegisterImageServiceServer(s.grpc, &imageServer{Server: s})
	pb.RegisterNetworkServiceServer(s.grpc, &networkServer{Server: s})
	pb.RegisterEventServiceServer(s.grpc, &eventServer{Server: s})
	pb.RegisterSyncServiceServer(s.grpc, &syncServer{Server: s})
	pb.RegisterAnchorServiceServer(s.grpc, &anchorServer{Server: s})
	pb.RegisterAuthorityServiceServer(s.grpc, &authorityServer{Server: s})
	reflection.Register(s.grpc)
	if err := checkTable(s.grpc); err != nil {
		return nil, err
	}
	return s, nil
}

// Run serves the listeners, and the node itself, until ctx ends.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	listeners = append(listeners, s.pipe)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- s.grpc.Serve(l) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopped := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(drainTime):
		s.grpc.Stop()
	}
	s.pool.close()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// drainTime is how long calls may take to end when the daemon stops. Streams
// that follow something never end by themselves.
const drainTime = 500 * time.Millisecond

// Conn returns a gRPC connection to a node, to this one too.
func (s *Server) Conn(node api.NodeID) (*grpc.ClientConn, error) { return s.pool.to(node) }

// Redial makes the next Conn to a node a new one.
func (s *Server) Redial(node api.NodeID) { s.pool.drop(node) }

func (s *Server) dial(ctx context.Context, to api.NodeID) (net.Conn, error) {
	if to == s.cfg.Self.ID {
		return s.pipe.dial(ctx)
	}
	return s.cfg.Dial(ctx, to)
}

type callerKey struct{}

// caller returns who makes the call that a handler is answering.
func caller(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// unary authorises a call and answers it where it belongs.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	var reply any
	err := contain(func() (err error) {
		reply, err = s.answer(ctx, req, info.FullMethod, handler)
		return err
	})
	s.observe(info.FullMethod, start, err)
	return reply, wire.ErrorToStatus(err)
}

// contain turns a panic into an error: a fault in one handler must not end a
// daemon that carries everybody's traffic.
func contain(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = api.Errorf(api.KindInternal, "a fault in this node: %v", p)
			err = &panicError{err, debug.Stack()}
		}
	}()
	return f()
}

// panicError carries the stack to the log.
type panicError struct {
	error
	stack []byte
}

func (e *panicError) Unwrap() error { return e.error }

func (s *Server) answer(ctx context.Context, req any, method string, handler grpc.UnaryHandler) (any, error) {
	c, r, err := s.admit(ctx, method)
	if err != nil {
		return nil, err
	}
	reply, err := s.answerThere(ctx, c, r, req, method, handler)
	if api.KindOf(err) == api.KindUnavailable && allowsStale(ctx, c, method) {
		return s.recall(ctx, c, req, handler, err)
	}
	return reply, err
}

// answerThere answers a call where it belongs.
func (s *Server) answerThere(ctx context.Context, c *Caller, r rule, req any, method string, handler grpc.UnaryHandler) (any, error) {
	to, err := s.route(ctx, c, r)
	if err != nil {
		return nil, err
	}
	if to == s.cfg.Self.ID {
		reply, err := handler(context.WithValue(ctx, callerKey{}, c), req)
		s.localise(reply)
		return reply, err
	}
	reply, err := s.pool.forwardUnary(ctx, to, c, method, req)
	if err != nil {
		return nil, s.elsewhere(ctx, to, method, err)
	}
	s.localise(reply)
	return reply, nil
}

// stream is unary's twin for streams.
func (s *Server) stream(srv any, in grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	start := time.Now()
	err := contain(func() error { return s.answerStream(srv, in, info.FullMethod, handler) })
	s.observe(info.FullMethod, start, err)
	return wire.ErrorToStatus(err)
}

func (s *Server) answerStream(srv any, in grpc.ServerStream, method string, handler grpc.StreamHandler) error {
	c, r, err := s.admit(in.Context(), method)
	if err != nil {
		return err
	}
	to, err := s.route(in.Context(), c, r)
	if err != nil {
		return err
	}
	if to != s.cfg.Self.ID {
		return s.elsewhere(in.Context(), to, method, s.pool.forwardStream(to, c, method, in, nil))
	}
	return handler(srv, &callerStream{in, context.WithValue(in.Context(), callerKey{}, c)})
}

// admit authorises a call by the table, and by how the caller stands now.
func (s *Server) admit(ctx context.Context, method string) (*Caller, rule, error) {
	c, r, err := authorise(ctx, method)
	if err != nil {
		return nil, rule{}, err
	}
	if c.Via != "" { // whom it speaks for is its own word
		if err := s.cfg.Standing(api.Member{ID: c.Via}, true); err != nil {
			return nil, rule{}, err
		}
	}
	renewing := method == pb.SyncService_RenewCertificate_FullMethodName
	return c, r, s.cfg.Standing(c.Member, renewing)
}

// callerStream is a stream whose context knows the caller.
type callerStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *callerStream) Context() context.Context { return s.ctx }

func (s *Server) observe(method string, start time.Time, err error) {
	_, name, _ := cutMethod(method)
	kind := string(api.KindOf(err))
	if kind == "" {
		kind = "ok"
	}
	s.calls.WithLabelValues(name, kind).Inc()
	s.seconds.WithLabelValues(name).Observe(time.Since(start).Seconds())
	if api.KindOf(err) == api.KindInternal && !errors.Is(err, context.Canceled) {
		fields := []zap.Field{zap.String("method", method), zap.Error(err)}
		var p *panicError
		if errors.As(err, &p) {
			fields = append(fields, zap.ByteString("stack", p.stack))
		}
		s.cfg.Log.Warn("API call failed", fields...)
	}
}

// linearizable returns a view that includes every write acknowledged before
// the call began; for a read that is answered from what was known last, that.
func (s *Server) linearizable(ctx context.Context) (state.View, error) {
	if last, ok := ctx.Value(recalledKey{}).(state.View); ok {
		return last, nil
	}
	if err := s.cfg.Anchor.VerifyLeader(ctx); err != nil {
		return state.View{}, err
	}
	return s.cfg.Anchor.Store().View(), nil
}

// propose commits commands and returns the value of type T that they yield.
func propose[T any](ctx context.Context, s *Server, cmds ...state.Command) (T, error) {
	var zero T
	res, err := s.cfg.Anchor.Propose(ctx, cmds...)
	if err != nil {
		return zero, err
	}
	v, _ := state.ValueOf[T](res)
	return v, nil
}

func cutMethod(full string) (service, method string, ok bool) {
	return strings.Cut(strings.TrimPrefix(full, "/"), "/")
}
