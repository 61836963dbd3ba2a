package p2p

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

const (
	frameHeader     = 4        // bytes: big-endian length of the body
	maxHelloFrame   = 16 << 10 // a certificate has about 700 bytes
	maxEnrolRequest = 8 << 10  // of anybody: a certificate request has about 250 bytes
	maxEnrolFrame   = 64 << 10 // the answer
)

// writeFrame writes v as one length-prefixed JSON document, in one Write.
func writeFrame(w io.Writer, limit int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > limit {
		return fmt.Errorf("encode frame: %d bytes, at most %d are allowed", len(body), limit)
	}
	buf := binary.BigEndian.AppendUint32(make([]byte, 0, frameHeader+len(body)), uint32(len(body)))
	if _, err := w.Write(append(buf, body...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// readFrame reads one document of at most limit bytes into v.
func readFrame(r io.Reader, limit int, v any) error {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	size := binary.BigEndian.Uint32(header[:])
	if uint64(size) > uint64(limit) {
		return fmt.Errorf("read frame: %d bytes, at most %d are allowed", size, limit)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}
