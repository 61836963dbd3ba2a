package wire

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// The bounds of an error: a status travels in HTTP/2 headers.
const (
	maxText     = 2 << 10 // bytes of each text
	maxProblems = 16
)

// kindCodes maps every kind of error to its gRPC code, one to one.
var kindCodes = map[api.Kind]codes.Code{
	api.KindInternal:    codes.Internal,
	api.KindInvalid:     codes.InvalidArgument,
	api.KindNotFound:    codes.NotFound,
	api.KindExists:      codes.AlreadyExists,
	api.KindConflict:    codes.Aborted,
	api.KindDenied:      codes.PermissionDenied,
	api.KindUnavailable: codes.Unavailable,
	api.KindUnplaced:    codes.FailedPrecondition,
	api.KindTimeout:     codes.DeadlineExceeded,
	api.KindUnsupported: codes.Unimplemented,
	api.KindExhausted:   codes.ResourceExhausted,
}

// codeKinds is kindCodes backwards, plus the codes that only gRPC itself uses.
var codeKinds = func() map[codes.Code]api.Kind {
	m := map[codes.Code]api.Kind{
		codes.Unauthenticated: api.KindDenied,
		codes.OutOfRange:      api.KindInvalid,
	}
	for kind, code := range kindCodes {
		m[code] = kind
	}
	return m
}()

// ErrorToStatus returns err as a gRPC status error, with one detail for each
// problem of a validation. A status passes unchanged, so that a node can
// forward what the leader answered.
func ErrorToStatus(err error) error {
	if err == nil {
		return nil
	}
	problems := api.Problems(err)
	if len(problems) == 0 {
		if s, ok := status.FromError(err); ok {
			return s.Err()
		}
		switch {
		case errors.Is(err, context.Canceled):
			return status.Error(codes.Canceled, "cancelled")
		case errors.Is(err, context.DeadlineExceeded):
			problems = []*api.Error{api.Errorf(api.KindTimeout, "timed out")}
		default:
			problems = []*api.Error{api.Errorf(api.KindInternal, "%w", err)}
		}
	}
	code, ok := kindCodes[problems[0].Kind]
	if !ok {
		code = codes.Internal
	}
	var details []protoadapt.MessageV1
	for _, e := range problems[:min(len(problems), maxProblems)] {
		details = append(details, &pb.ErrorDetail{
			Kind:    string(e.Kind),
			Field:   text(e.Field),
			Message: text(e.Message),
			Hint:    text(e.Hint),
		})
	}
	plain := status.New(code, text(problems[0].Error()))
	if s, err := plain.WithDetails(details...); err == nil {
		return s.Err()
	}
	return plain.Err()
}

// ErrorFromStatus returns a status error as an *api.Error, or as several that
// are joined. The status stays in its chain; so do context.Canceled and
// context.DeadlineExceeded.
func ErrorFromStatus(err error) error {
	if err == nil {
		return nil
	}
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	var problems []error
	for _, detail := range s.Details() {
		if d, ok := detail.(*pb.ErrorDetail); ok {
			problems = append(problems, &api.Error{
				Kind: kind(d, s.Code()), Field: d.GetField(), Message: d.GetMessage(), Hint: d.GetHint(), Err: err,
			})
		}
	}
	switch {
	case len(problems) == 1:
		return problems[0]
	case len(problems) > 1:
		return errors.Join(problems...)
	}
	plain := &api.Error{Kind: kind(nil, s.Code()), Message: s.Message(), Err: err}
	switch s.Code() {
	case codes.Canceled:
		plain.Err = errors.Join(context.Canceled, err)
	case codes.DeadlineExceeded:
		plain.Err = errors.Join(context.DeadlineExceeded, err)
	}
	return plain
}

// kind trusts the detail when it names a kind we know, as a newer peer may not.
func kind(d *pb.ErrorDetail, code codes.Code) api.Kind {
	if k := api.Kind(d.GetKind()); kindCodes[k] != codes.OK {
		return k
	}
	if k, ok := codeKinds[code]; ok {
		return k
	}
	return api.KindInternal
}

// text makes s fit to travel: valid UTF-8 of a bounded length.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
