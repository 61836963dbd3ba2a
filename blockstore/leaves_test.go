package blockstore

import (
	"bytes"
	"strings"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"

	"github.com/cloudless-project/cloudless/api"
)

func newBlock(data []byte) blocks.Block {
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: 0x12}.Sum(data)
	if err != nil {
		panic(err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		panic(err)
	}
	return b
}

func TestLeaves(t *testing.T) {
	data := noise(1, 2*api.BlobLeafSize+5)
	got, err := Leaves(t.Context(), bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		part := data[i*api.BlobLeafSize : min((i+1)*api.BlobLeafSize, len(data))]
		if want := newBlock(part).Cid().String(); got[i] != want {
			t.Errorf("leaf %d is %s, want %s", i, got[i], want)
		}
	}
	for _, wrong := range []int64{0, int64(len(data)) - 1, int64(len(data)) + 1, -1, maxBlobSize + 1} {
		if _, err := Leaves(t.Context(), bytes.NewReader(data), wrong); err == nil {
			t.Errorf("size %d was accepted", wrong)
		}
	}
	if got, err := Leaves(t.Context(), strings.NewReader(""), 0); err != nil || len(got) != 0 {
		t.Errorf("empty blob: %v, %v", got, err)
	}
}

func TestProvideRefusesRecordsThatContradictThemselves(t *testing.T) {
	x := &Exchange{index: newIndex()}
	x.metrics, _ = newMetrics(nil)
	digest := "sha256:" + strings.Repeat("ab", 32)
	leaf := newBlock([]byte("x")).Cid()
	dagPB := cid.NewCidV1(cid.DagProtobuf, leaf.Hash()).String()
	for name, b := range map[string]api.Blob{
		"digest":         {Digest: "sha512:00", Size: 1, Leaves: []string{leaf.String()}},
		"short digest":   {Digest: "sha256:00", Size: 1, Leaves: []string{leaf.String()}},
		"too few leaves": {Digest: digest, Size: 1},
		"too many":       {Digest: digest, Size: 1, Leaves: []string{leaf.String(), leaf.String()}},
		"negative":       {Digest: digest, Size: -1},
		"huge":           {Digest: digest, Size: 1 << 62},
		"not a CID":      {Digest: digest, Size: 1, Leaves: []string{"bafy"}},
		"another codec":  {Digest: digest, Size: 1, Leaves: []string{dagPB}},
	} {
		good := api.Blob{Digest: digest, Size: 1, Leaves: []string{leaf.String()}}
		if err := x.Provide([]api.Blob{good, b}); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if x.index.len() != 0 {
		t.Error("half of a refused call was taken")
	}
}

// Whatever is added and removed, a leaf is found exactly while a blob that is
// provided contains it.
func TestIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex()
		model := make(map[string]*provided)
		names := []string{"a", "b", "c"}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "blob")
			if rapid.Bool().Draw(t, "add") {
				b := &provided{digest: name, size: 5 * api.BlobLeafSize}
				for range 5 {
					b.leaves = append(b.leaves, hash{rapid.ByteRange(0, 7).Draw(t, "leaf")})
				}
				x.add(b)
				if model[name] == nil {
					model[name] = b
				}
			} else if _, had := model[name]; x.remove(name) != had {
				t.Fatalf("remove of %s: want %v", name, had)
			} else {
				delete(model, name)
			}
			for leaf := range byte(8) {
				want := 0
				for _, b := range model {
					if bytes.Contains(flat(b), []byte{leaf}) {
						want++
					}
				}
				at := x.find(hash{leaf})
				if len(at) != want {
					t.Fatalf("leaf %d found in %d blobs, want %d", leaf, len(at), want)
				}
				for _, l := range at {
					if l.blob.leaves[l.n] != (hash{leaf}) {
						t.Fatalf("leaf %d is not at %d of %s", leaf, l.n, l.blob.digest)
					}
				}
			}
		}
	})
}

func flat(b *provided) []byte {
	var out []byte
	for _, h := range b.leaves {
		out = append(out, h[0])
	}
	return out
}

func FuzzParseBlob(f *testing.F) {
	f.Add("sha256:"+strings.Repeat("00", 32), int64(1), newBlock([]byte("x")).Cid().String())
	f.Add("sha256:"+strings.Repeat("zz", 32), int64(1), "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n")
	f.Add("", int64(-1), "b")
	f.Fuzz(func(t *testing.T, digest string, size int64, leaf string) {
		p, err := parse(api.Blob{Digest: digest, Size: size, Leaves: []string{leaf}})
		if err != nil {
			return
		}
		if len(p.leaves) != 1 || p.leaves[0].cid().String() == "" || leafSize(size, 0) <= 0 {
			t.Errorf("accepted %+v", p)
		}
	})
}
