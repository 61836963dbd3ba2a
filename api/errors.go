package api

import (
	"errors"
	"fmt"
)

// Kind classifies an error by what the caller can do about it. It maps one to
// one to a gRPC code (api/wire) and to an exit code (cli).
type Kind string

// The kinds of error.
const (
	KindInternal    Kind = "internal"    // a fault of Cloudless itself
	KindInvalid     Kind = "invalid"     // the input is wrong; sending it again will not help
	KindNotFound    Kind = "not_found"   // the named thing does not exist
	KindExists      Kind = "exists"      // the named thing exists already
	KindConflict    Kind = "conflict"    // the state moved on; read again and retry
	KindDenied      Kind = "denied"      // the caller may not do this
	KindUnavailable Kind = "unavailable" // no leader, or the peer cannot be reached; retry later
	KindUnplaced    Kind = "unplaced"    // no node can take it, or it is unhealthy
	KindTimeout     Kind = "timeout"     // the deadline passed first
	KindUnsupported Kind = "unsupported" // this node or this version cannot do it
	KindExhausted   Kind = "exhausted"   // a bound was reached (disk, queue, quota)
)

// Error is an error meant for a person: what is wrong with which field, and
// the way out. The zero Hint means that there is nothing useful to say.
type Error struct {
	Kind    Kind
	Field   string // dotted path of the offending field, "" when none
	Message string // one line, without the field
	Hint    string // what to do next, one line
	Err     error  // cause for errors.Is and errors.As; Message already tells it
}

func (e *Error) Error() string {
	s := e.Message
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an error of a kind. A %w verb in the format sets the cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}

// Invalid returns the error for a field whose value is not acceptable.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy of e that tells the caller what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// KindOf returns the kind of the outermost *Error in err's chain, KindInternal
// when there is none, and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}
