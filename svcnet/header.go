package svcnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cloudless-project/cloudless/api"
)

// A flow stream starts with one header from the dialing node, answered by one
// status byte; then bytes travel as they are (TCP), or packets, each with a
// 16-bit big-endian length in front (UDP).
//
//	length   uint16, of what follows
//	version  uint8, 2
//	proto    uint8, 6 = TCP, 17 = UDP
//	port     uint16, of the service
//	flow     16 bytes, by which a line can refer to it
//	service, replica, source: uint8 length and that many bytes each
const (
	headerVersion = 2
	fixedHeader   = 4 + len(token{})
	maxHeader     = fixedHeader + 3*(1+maxHeaderField)
	// Longest name in a header: a replica is a workload name (63) and two
	// numbers; an identity may become a SPIFFE ID.
	maxHeaderField = 200
)

// The numbers of the protocols, as in IP.
const (
	numTCP = 6
	numUDP = 17
)

// header names the endpoint that the dialing node chose.
type header struct {
	proto   string
	port    uint16 // of the service; the serving node knows the target
	flow    token
	service string
	replica api.ReplicaID
	source  string // who asks: a replica of the dialing node, "" for its host
}

// status is the serving node's answer to a header.
type status uint8

const (
	statusOK      status = 1 // bytes may flow
	statusRefused status = 2 // the replica is here and does not accept
	statusNotHere status = 3 // no such replica or port on this node
	statusBusy    status = 4 // the node is at its limit of flows
	statusBad     status = 5 // the header could not be read
)

func (s status) String() string {
	switch s {
	case statusOK:
		return "ok"
	case statusRefused:
		return "refused"
	case statusNotHere:
		return "not_here"
	case statusBusy:
		return "busy"
	case statusBad:
		return "bad_header"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

var errHeader = errors.New("malformed flow header")

// append encodes h, with its length in front.
func (h *header) append(b []byte) ([]byte, error) {
	start := len(b)
	proto := byte(numTCP)
	if h.proto == udp {
		proto = numUDP
	}
	b = append(b, 0, 0, headerVersion, proto)
	b = binary.BigEndian.AppendUint16(b, h.port)
	b = append(b, h.flow[:]...)
	for _, s := range []string{h.service, string(h.replica), h.source} {
		if len(s) > maxHeaderField {
			return nil, fmt.Errorf("encode flow header: a name of %d bytes, at most %d", len(s), maxHeaderField)
		}
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	binary.BigEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	return b, nil
}

// readHeader reads one header and not a byte more.
func readHeader(r io.Reader) (header, error) {
	var buf [maxHeader]byte
	if _, err := io.ReadFull(r, buf[:2]); err != nil {
		return header{}, fmt.Errorf("read flow header: %w", err)
	}
	n := int(binary.BigEndian.Uint16(buf[:]))
	if n > len(buf) {
		return header{}, fmt.Errorf("read flow header: %w: %d bytes long", errHeader, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return header{}, fmt.Errorf("read flow header: %w", err)
	}
	return parseHeader(buf[:n])
}

func parseHeader(b []byte) (h header, err error) {
	if len(b) < fixedHeader || b[0] != headerVersion {
		return header{}, errHeader
	}
	switch b[1] {
	case numTCP:
		h.proto = tcp
	case numUDP:
		h.proto = udp
	default:
		return header{}, errHeader
	}
	h.port = binary.BigEndian.Uint16(b[2:])
	h.flow = token(b[4:])
	b = b[fixedHeader:]
	var fields [3]string
	for i := range fields {
		if len(b) == 0 || int(b[0]) > maxHeaderField || len(b) < 1+int(b[0]) {
			return header{}, errHeader
		}
		fields[i], b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	if len(b) != 0 || h.port == 0 || fields[0] == "" || fields[1] == "" {
		return header{}, errHeader
	}
	h.service, h.replica, h.source = fields[0], api.ReplicaID(fields[1]), fields[2]
	return h, nil
}
