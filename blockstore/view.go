package blockstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/cloudless-project/cloudless/api"
)

var (
	errReadOnly = errors.New("the block view is read-only")
	errCorrupt  = errors.New("wrong content")
)

// view is what bitswap sees of the content store: a read-only blockstore whose
// blocks are ranges of blobs.
type view struct {
	index   *index
	content Content
	metrics *metrics
	failed  func(digest string, err error)
}

func (v *view) find(c cid.Cid) []location {
	h, ok := hashOf(c)
	if !ok {
		return nil
	}
	return v.index.find(h)
}

// Has answers from the index; bitswap asks it for every want of every peer.
func (v *view) Has(_ context.Context, c cid.Cid) (bool, error) { return len(v.find(c)) > 0, nil }

// GetSize answers from the index, like Has.
func (v *view) GetSize(_ context.Context, c cid.Cid) (int, error) {
	at := v.find(c)
	if len(at) == 0 {
		return 0, ipld.ErrNotFound{Cid: c}
	}
	return leafSize(at[0].blob.size, at[0].n), nil
}

// Get reads a leaf and checks its hash. When that fails, the next blob that
// contains the leaf is tried.
func (v *view) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	for _, at := range v.find(c) {
		data, err := v.read(ctx, at)
		if ctx.Err() != nil {
			break // the exchange is closed, nobody waits for an answer
		}
		if err != nil {
			v.failed(at.blob.digest, err)
			continue
		}
		v.metrics.served.Add(float64(len(data)))
		return blocks.NewBlockWithCid(data, c)
	}
	return nil, ipld.ErrNotFound{Cid: c}
}

func (v *view) read(ctx context.Context, at location) ([]byte, error) {
	r, err := v.content.OpenBlob(ctx, at.blob.digest)
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	defer r.Close()
	if r.Size() != at.blob.size {
		return nil, fmt.Errorf("%w: blob has %d bytes, not %d", errCorrupt, r.Size(), at.blob.size)
	}
	data := make([]byte, leafSize(at.blob.size, at.n))
	// ReadAt may return io.EOF with the last full read.
	if n, err := r.ReadAt(data, int64(at.n)*api.BlobLeafSize); n < len(data) {
		return nil, fmt.Errorf("read leaf %d: %w", at.n, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if hash(sha256.Sum256(data)) != at.blob.leaves[at.n] {
		return nil, fmt.Errorf("%w: leaf %d has another hash", errCorrupt, at.n)
	}
	return data, nil
}

// The rest of bitswap's blockstore interface. The client never stores what it
// receives; that is Fetch's caller's business.

func (v *view) Put(context.Context, blocks.Block) error       { return errReadOnly }
func (v *view) PutMany(context.Context, []blocks.Block) error { return errReadOnly }
func (v *view) DeleteBlock(context.Context, cid.Cid) error    { return errReadOnly }
func (v *view) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, errors.New("the block view cannot be listed")
}
