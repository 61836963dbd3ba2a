package client

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/wire"
)

// failure turns the error of a call into an *api.Error.
func (c *Client) failure(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unavailable && len(s.Details()) == 0 {
		if unreachable := c.unreachable(); unreachable != nil {
			return unreachable
		}
		return &api.Error{
			Kind: api.KindUnavailable, Err: err,
			Message: "the connection to " + c.whom() + " broke: " + s.Message(),
			Hint:    "try again; see its log when it keeps happening",
		}
	}
	return wire.ErrorFromStatus(err)
}

// whom names the other side for a person.
func (c *Client) whom() string {
	switch {
	case c.options.Dialer == nil:
		return "the node at " + c.options.Socket
	case c.options.Peer != "":
		return "the peer " + c.options.Peer
	}
	return "the peer"
}

// unreachable explains the last failure to connect; nil when there was none.
func (c *Client) unreachable() error {
	outcome := c.dialed.Load()
	if outcome == nil || outcome.err == nil {
		return nil
	}
	err := outcome.err
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the rest of its text is known from whom
	}
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known
	case c.options.Dialer != nil:
		return api.Errorf(api.KindUnavailable, "cannot reach %s: %w", c.whom(), err)
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.KindDenied, "you may not use %s: %w", c.whom(), err).
			WithHint("run the command as root or as a member of the socket's group")
	}
	return api.Errorf(api.KindUnavailable, "cannot reach %s: %w", c.whom(), err).
		WithHint("start it with \"cloudless node start\", name its socket with --socket, or reach another node with --peer or --context")
}

func (c *Client) interceptUnary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	opts, answered := noteStale(ctx, opts)
	err := call(ctx, method, req, reply, conn, opts...)
	answered()
	return c.failure(err)
}

func (c *Client) interceptStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, c.failure(err)
	}
	return stream{s, c}, nil
}

// stream translates the errors of a stream, all but its regular end.
type stream struct {
	grpc.ClientStream
	client *Client
}

func (s stream) RecvMsg(m any) error { return s.translate(s.ClientStream.RecvMsg(m)) }
func (s stream) SendMsg(m any) error { return s.translate(s.ClientStream.SendMsg(m)) }

func (s stream) translate(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return s.client.failure(err)
}
