// Package wire converts between the nouns of package api and the messages of
// the gRPC API. It is the only code that knows both.
//
// Every noun has a pair of functions, XToPB and XFromPB. They convert and
// nothing else: no defaults, no validation. Slices and maps are shared between
// the two sides, so treat the source as read-only afterwards; an empty slice
// or map may arrive as nil. The zero time travels as an absent timestamp.
//
// Errors travel as a gRPC status with an ErrorDetail: ErrorToStatus on the side
// that answers, ErrorFromStatus on the side that asked.
package wire
