package client

import (
	"context"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// DefaultSocket is where a node serves its local API.
const DefaultSocket = "/run/cloudless/cloudless.sock"

// maxMessage bounds what a client accepts: the view of a cluster of 5,000
// nodes is about 5 MiB.
const maxMessage = 32 << 20

// Options says whom to talk to. Exactly one of Socket and Dialer is used.
type Options struct {
	// Socket is the path of a node's unix socket, default DefaultSocket.
	Socket string
	// Dialer, when set, opens a stream of the mesh to a peer instead. Its
	// connections have a method Member() api.Member, as those of p2p do.
	Dialer func(context.Context) (net.Conn, error)
	// Peer names whom Dialer reaches, for messages to people.
	Peer string
}

// Client is a connection to one node.
type Client struct {
	conn    *grpc.ClientConn
	options Options
	// dialed holds the outcome of the last attempt to connect, because gRPC
	// reports no more than its text.
	dialed atomic.Pointer[dialOutcome]

	nodes     pb.NodeServiceClient
	tokens    pb.TokenServiceClient
	workloads pb.WorkloadServiceClient
	images    pb.ImageServiceClient
	network   pb.NetworkServiceClient
	events    pb.EventServiceClient
	system    pb.SystemServiceClient
	sync      pb.SyncServiceClient
	anchors   pb.AnchorServiceClient
	authority pb.AuthorityServiceClient
}

type dialOutcome struct{ err error }

// Dial prepares a client. It does not connect yet: the first call does.
func Dial(opts Options) (*Client, error) {
	if opts.Socket == "" {
		opts.Socket = DefaultSocket
	}
	c := &Client{options: opts}
	conn, err := grpc.NewClient("passthrough:///cloudless",
		grpc.WithContextDialer(c.dial),
		grpc.WithTransportCredentials(authenticatedBelow{}),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(c.interceptUnary),
		grpc.WithStreamInterceptor(c.interceptStream),
	)
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "prepare the connection: %w", err)
	}
	c.conn = conn
	c.nodes = pb.NewNodeServiceClient(conn)
	c.tokens = pb.NewTokenServiceClient(conn)
	c.workloads = pb.NewWorkloadServiceClient(conn)
	c.images = pb.NewImageServiceClient(conn)
	c.network = pb.NewNetworkServiceClient(conn)
	c.events = pb.NewEventServiceClient(conn)
	c.system = pb.NewSystemServiceClient(conn)
	c.sync = pb.NewSyncServiceClient(conn)
	c.anchors = pb.NewAnchorServiceClient(conn)
	c.authority = pb.NewAuthorityServiceClient(conn)
	return c, nil
}

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// Conn is the connection itself, for whoever needs a call that has no method
// here. Errors of such calls are *api.Error too.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

func (c *Client) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := c.connect(ctx)
	c.dialed.Store(&dialOutcome{err})
	return conn, err
}

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	if c.options.Dialer != nil {
		return c.options.Dialer(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.options.Socket)
}
