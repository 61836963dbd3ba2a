package control

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// dialTimeout bounds how long a call waits for a way to another node: longer
	// than a relayed connection takes, shorter than a person waits in doubt.
	dialTimeout = 4 * time.Second
	// forwardTimeout bounds a call that another node answers: an entry of the
	// Raft log takes milliseconds, and a caller without a deadline must not hang
	// on a node that died without a word.
	forwardTimeout = 10 * time.Second
	// keepaliveTime and keepaliveTimeout bound how long a dead connection is
	// taken for a live one.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// idleTimeout is when a connection that nobody uses is closed. Without it
	// every node that was ever asked would be dialled for good.
	idleTimeout = 5 * time.Minute
)

// DialFunc opens a connection to a node's API.
type DialFunc func(ctx context.Context, to api.NodeID) (net.Conn, error)

// pool keeps one gRPC connection to each node that was called.
type pool struct {
	dial DialFunc

	mu    sync.Mutex
	conns map[api.NodeID]*grpc.ClientConn
}

func newPool(dial DialFunc) *pool {
	return &pool{dial: dial, conns: make(map[api.NodeID]*grpc.ClientConn)}
}

// to returns the connection to a node, opened when it is first used.
func (p *pool) to(node api.NodeID) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[node]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+string(node),
		grpc.WithTransportCredentials(provenCredentials{}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return p.dial(ctx, node)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithIdleTimeout(idleTimeout),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, err
	}
	p.conns[node] = c
	return c, nil
}

// drop closes the connection to a node, so that the next call opens one on the
// best path of the moment. One that is being opened, or cannot be, is tried
// again soon instead: while it is known to fail, calls need not wait for it.
func (p *pool) drop(node api.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[node]
	if c == nil {
		return
	}
	switch c.GetState() {
	case connectivity.Connecting, connectivity.TransientFailure:
		c.ResetConnectBackoff()
	default:
		c.Close()
		delete(p.conns, node)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// forwardUnary makes a call at another node and returns its reply.
func (p *pool) forwardUnary(ctx context.Context, node api.NodeID, caller *Caller, method string, req any) (any, error) {
	conn, err := p.to(node)
	if err != nil {
		return nil, err
	}
	desc, err := methodDescriptor(method)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	if ctx, err = onBehalfOf(ctx, caller); err != nil {
		return nil, err
	}
	reply := newMessage(desc.Output())
	if err := conn.Invoke(ctx, method, req, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// forwardStream carries a stream to another node and back, in both directions,
// until either side ends it. first, unless nil, is sent before what comes in.
func (p *pool) forwardStream(node api.NodeID, caller *Caller, method string, in grpc.ServerStream, first proto.Message) error {
	conn, err := p.to(node)
	if err != nil {
		return err
	}
	desc, err := methodDescriptor(method)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	if ctx, err = onBehalfOf(ctx, caller); err != nil {
		return err
	}
	out, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if first != nil {
		if err := out.SendMsg(first); err != nil {
			return err
		}
	}
	go func() {
		for {
			msg := newMessage(desc.Input())
			if err := in.RecvMsg(msg); err != nil {
				if errors.Is(err, io.EOF) {
					_ = out.CloseSend()
				} else {
					cancel()
				}
				return
			}
			if out.SendMsg(msg) != nil {
				return
			}
		}
	}()
	for {
		msg := newMessage(desc.Output())
		if err := out.RecvMsg(msg); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := in.SendMsg(msg); err != nil {
			return err
		}
	}
}

// methodDescriptor finds a method of our own API by its full name.
func methodDescriptor(method string) (protoreflect.MethodDescriptor, error) {
	service, name, ok := cutMethod(method)
	if !ok {
		return nil, api.Errorf(api.KindInternal, "%q is not a method", method)
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "method %s: %w", method, err)
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, api.Errorf(api.KindInternal, "%s is not a method", method)
	}
	return m, nil
}

// newMessage returns an empty message of a type, the generated one if linked.
func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	if t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName()); err == nil {
		return t.New().Interface()
	}
	return dynamicpb.NewMessage(d)
}
