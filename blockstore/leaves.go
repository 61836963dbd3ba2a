package blockstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cloudless-project/cloudless/api"
)

// maxBlobSize bounds what a record may claim: 1 TiB is a million leaves.
const maxBlobSize = 1 << 40

// hash is the sha2-256 of a leaf.
type hash [sha256.Size]byte

func (h hash) cid() cid.Cid {
	m, err := mh.Encode(h[:], mh.SHA2_256)
	if err != nil {
		panic(err) // only for an unknown code or a wrong length
	}
	return cid.NewCidV1(cid.Raw, m)
}

// hashOf returns the hash in a leaf's CID; ok is false for any other kind.
func hashOf(c cid.Cid) (h hash, ok bool) {
	if !c.Defined() || c.Version() != 1 || c.Type() != cid.Raw {
		return h, false
	}
	d, err := mh.Decode(c.Hash())
	if err != nil || d.Code != mh.SHA2_256 || len(d.Digest) != len(h) {
		return h, false
	}
	return hash(d.Digest), true
}

// leafCount returns how many leaves a blob of a size has.
func leafCount(size int64) int64 { return (size + api.BlobLeafSize - 1) / api.BlobLeafSize }

// leafSize returns the size of the i-th leaf of a blob.
func leafSize(size int64, i int) int {
	return int(min(size-int64(i)*api.BlobLeafSize, api.BlobLeafSize))
}

// Leaves cuts a blob of size bytes into leaves and returns their CIDs in order.
// It fails when r yields another number of bytes.
func (x *Exchange) Leaves(ctx context.Context, r io.Reader, size int64) ([]string, error) {
	return Leaves(ctx, r, size)
}

// Leaves is what Exchange.Leaves does; it needs no exchange.
func Leaves(ctx context.Context, r io.Reader, size int64) ([]string, error) {
	if size < 0 || size > maxBlobSize {
		return nil, api.Invalid("size", "%d bytes is not a possible size of a blob", size)
	}
	leaves := make([]string, 0, leafCount(size))
	buf := make([]byte, min(size, api.BlobLeafSize))
	for i := range int(leafCount(size)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		leaf := buf[:leafSize(size, i)]
		if _, err := io.ReadFull(r, leaf); err != nil {
			return nil, fmt.Errorf("read leaf %d of %d: %w", i, leafCount(size), err)
		}
		leaves = append(leaves, hash(sha256.Sum256(leaf)).cid().String())
	}
	var one [1]byte
	if n, err := io.ReadFull(r, one[:]); n > 0 {
		return nil, api.Errorf(api.KindInvalid, "blob is longer than its %d bytes", size)
	} else if err != io.EOF {
		return nil, fmt.Errorf("read end of blob: %w", err)
	}
	return leaves, nil
}

// provided is a blob with its leaves parsed.
type provided struct {
	digest string
	size   int64
	leaves []hash
}

// parse checks a blob's record.
func parse(b api.Blob) (*provided, error) {
	sum, ok := strings.CutPrefix(b.Digest, "sha256:")
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size {
		return nil, api.Invalid("digest", "%q is not a sha256 digest", b.Digest)
	}
	if b.Size < 0 || b.Size > maxBlobSize {
		return nil, api.Invalid("size", "blob %s cannot have %d bytes", b.Digest, b.Size)
	}
	if int64(len(b.Leaves)) != leafCount(b.Size) {
		return nil, api.Invalid("leaves", "blob %s of %d bytes has %d leaves, not %d",
			b.Digest, b.Size, len(b.Leaves), leafCount(b.Size))
	}
	p := &provided{digest: b.Digest, size: b.Size, leaves: make([]hash, len(b.Leaves))}
	for i, s := range b.Leaves {
		c, err := cid.Decode(s)
		if err != nil {
			return nil, api.Invalid("leaves", "leaf %d of blob %s: %v", i, b.Digest, err)
		}
		if p.leaves[i], ok = hashOf(c); !ok {
			return nil, api.Invalid("leaves", "leaf %d of blob %s is not a raw sha2-256 block", i, b.Digest)
		}
	}
	return p, nil
}
