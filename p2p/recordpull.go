package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cloudless-project/cloudless/api"
)

// Gossip gets a record to everybody who is there when it is published, and on
// good days loses none. For all others there is the pull: one member asks
// another what it lacks. One stream, each message a frame:
//
//	asker → other  pullRequest  what stands for all that it holds
//	other → asker  pullDigest   the same: done; or the sums of the buckets
//	asker → other  pullWant     what it holds in the buckets that differ
//	other → asker  pullRecords  what is newer, until one says that it is the last
//
// Two members that hold the same exchange about a hundred bytes.
const (
	maxPullRequest = 1 << 10
	maxPullDigest  = 4 << 10
	maxPullWant    = 1 << 20 // 5,000 members are 375 KB, when all buckets differ
	maxPullRecords = 256 << 10
	pullBatch      = 128 << 10 // bytes of records in one frame, before encoding
	pullTimeout    = 15 * time.Second
	pullServing    = 8 // streams that are answered at a time
)

type pullRequest struct {
	Root []byte `json:"root"`
}

type pullDigest struct {
	Same    bool   `json:"same,omitempty"`
	Buckets []byte `json:"buckets,omitempty"` // recordBuckets sums of 8 bytes
}

type pullWant struct {
	Buckets []int                 `json:"buckets"`
	Have    map[api.NodeID]uint64 `json:"have"` // sequence numbers
}

type pullRecords struct {
	Records [][]byte `json:"records"`
	Last    bool     `json:"last"`
}

// differing returns the buckets whose sums are not ours.
func (d pullDigest) differing(ours []byte) ([]int, error) {
	if len(d.Buckets) != len(ours) {
		return nil, fmt.Errorf("pull: a digest of %d bytes, want %d", len(d.Buckets), len(ours))
	}
	var out []int
	for i := range recordBuckets {
		if !bytes.Equal(d.Buckets[8*i:8*i+8], ours[8*i:8*i+8]) {
			out = append(out, i)
		}
	}
	return out, nil
}

// setOf is a list of buckets, which may be as long as a peer likes, as a set.
func setOf(buckets []int) (set [recordBuckets]bool) {
	for _, i := range buckets {
		if i >= 0 && i < recordBuckets {
			set[i] = true
		}
	}
	return set
}

// want tells another member what the book holds in some buckets.
func (b *recordBook) want(buckets []int) pullWant {
	w := pullWant{Buckets: buckets, Have: make(map[api.NodeID]uint64)}
	wanted := setOf(buckets)
	for _, r := range b.all() {
		if wanted[bucketOf(r.peer)] {
			w.Have[r.nodeID()] = r.seq
		}
	}
	return w
}

// lacking returns the records that a member lacks, in frames.
func (b *recordBook) lacking(w pullWant) []pullRecords {
	frames := []pullRecords{{}}
	wanted, size := setOf(w.Buckets), 0
	for _, r := range b.all() {
		if !wanted[bucketOf(r.peer)] || w.Have[r.nodeID()] >= r.seq {
			continue
		}
		if size += len(r.raw); size > pullBatch {
			frames = append(frames, pullRecords{})
			size = len(r.raw)
		}
		last := &frames[len(frames)-1]
		last.Records = append(last.Records, r.raw)
	}
	frames[len(frames)-1].Last = true
	return frames
}

// behind reports whether a member that asks holds a record that is newer.
func (b *recordBook) behind(w pullWant) bool {
	ours := b.want(w.Buckets).Have
	for id, seq := range w.Have {
		if seq > ours[id] && seq <= maxRecordSeq {
			return true
		}
	}
	return false
}

// serveRecords answers pulls of other daemons.
func (m *Mesh) serveRecords() {
	m.claim(api.ProtoRecords)
	slots := make(chan struct{}, pullServing)
	roles := []api.Role{api.RoleNode, api.RoleAnchor}
	m.host.SetStreamHandler(protocol.ID(api.ProtoRecords), m.guard(api.ProtoRecords, roles, func(s network.Stream, _ api.Member) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			_ = s.ResetWithError(codeBusy)
			return
		}
		_ = s.SetDeadline(time.Now().Add(pullTimeout))
		counted := &countedStream{Stream: s, m: m.metrics}
		behind, err := m.records.answerPull(counted)
		if err != nil {
			m.metrics.pulls.WithLabelValues("unanswered").Inc()
			_ = s.Reset()
			return
		}
		m.metrics.pulls.WithLabelValues("answered").Inc()
		_ = s.Close()
		if behind {
			select {
			case m.newer <- s.Conn():
			default: // the peer is asked some time or other
			}
		}
	}))
}

// answerPull is the answering side. behind tells that the asker holds something
// that is newer.
func (b *recordBook) answerPull(rw io.ReadWriter) (behind bool, err error) {
	var request pullRequest
	if err := readFrame(rw, maxPullRequest, &request); err != nil {
		return false, err
	}
	if bytes.Equal(request.Root, b.root()) {
		return false, writeFrame(rw, maxPullDigest, pullDigest{Same: true})
	}
	if err := writeFrame(rw, maxPullDigest, pullDigest{Buckets: b.digest()}); err != nil {
		return false, err
	}
	var want pullWant
	if err := readFrame(rw, maxPullWant, &want); err != nil {
		return false, err
	}
	for _, frame := range b.lacking(want) {
		if err := writeFrame(rw, maxPullRecords, frame); err != nil {
			return false, err
		}
	}
	return b.behind(want), nil
}

// askPull is the asking side; every record that comes is handed to take.
func (b *recordBook) askPull(rw io.ReadWriter, take func(raw []byte)) (same bool, err error) {
	if err := writeFrame(rw, maxPullRequest, pullRequest{Root: b.root()}); err != nil {
		return false, err
	}
	var digest pullDigest
	if err := readFrame(rw, maxPullDigest, &digest); err != nil {
		return false, err
	}
	if digest.Same {
		return true, nil
	}
	buckets, err := digest.differing(b.digest())
	if err != nil {
		return false, err
	}
	if err := writeFrame(rw, maxPullWant, b.want(buckets)); err != nil {
		return false, err
	}
	for got := 0; got <= maxRecords; {
		var frame pullRecords
		if err := readFrame(rw, maxPullRecords, &frame); err != nil {
			return false, err
		}
		for _, raw := range frame.Records {
			take(raw)
		}
		if frame.Last {
			return false, nil
		}
		if len(frame.Records) == 0 {
			return false, errors.New("pull: a frame without records that is not the last")
		}
		got += len(frame.Records)
	}
	return false, errors.New("pull: more records than members")
}

// pull asks the member at the other end of a connection, which may be nil, for
// the records that this device lacks.
func (m *Mesh) pull(ctx context.Context, c network.Conn) (err error) {
	defer func() {
		if err != nil {
			m.metrics.pulls.WithLabelValues("failed").Inc()
		}
	}()
	if c == nil {
		return errNotConnected
	}
	p := c.RemotePeer()
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	s, err := m.openStream(ctx, c, protocol.ID(api.ProtoRecords))
	if err != nil {
		return fmt.Errorf("pull records: %w", err)
	}
	defer resetUnlessClosed(s, &err)
	_ = s.SetDeadline(time.Now().Add(pullTimeout))
	same, err := m.records.askPull(&countedStream{Stream: s, m: m.metrics}, func(raw []byte) {
		if r, taken := m.hear(raw, viaPull); taken && r.peer == p {
			m.passOn(r)
		}
	})
	switch {
	case err != nil:
		return err
	case same:
		m.metrics.pulls.WithLabelValues("same").Inc()
	default:
		m.metrics.pulls.WithLabelValues("differed").Inc()
	}
	return nil
}

// countedStream counts what a pull moves.
type countedStream struct {
	network.Stream
	m *meshMetrics
}

func (s *countedStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.m.recordBytes.WithLabelValues(viaPull, "in").Add(float64(n))
	return n, err
}

func (s *countedStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	s.m.recordBytes.WithLabelValues(viaPull, "out").Add(float64(n))
	return n, err
}
