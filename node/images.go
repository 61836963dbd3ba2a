package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/blockstore"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/archive"
)

// images brings images to this node: from an archive, from other nodes, or
// from a registry; and gives those it has to others. Blobs lie once, in the
// container runtime's content store.
type images struct {
	runtime  container.Runtime
	exchange exchange
	dir      *dataDir
	known    func(ref string) (api.Image, bool) // to the cluster, as far as this node knows
	register func(ctx context.Context, img api.Image) (api.Image, error)
	log      *zap.Logger
	life     context.Context // ends when the daemon is told to stop

	flight    singleflight.Group
	importing sync.Mutex // held while imported references change

	mu      sync.Mutex
	held    map[string]*holding // by ref: complete here, and served
	changed func()              // called when held changed
}

// exchange is what images need of the block exchange.
type exchange interface {
	Provide(blobs []api.Blob) error
	Withdraw(digests []string)
	Fetch(ctx context.Context, blob api.Blob, from []api.NodeID, w io.Writer) error
}

// ensureWithin bounds how long bringing one image may take, so that work that
// nobody waits for any more ends some time.
const ensureWithin = time.Hour

// Ensure returns when an image can be run here. It implements agent.Images.
func (m *images) Ensure(ctx context.Context, name string) error {
	ref, err := api.NormaliseImageRef(name)
	if err != nil {
		return err
	}
	// The work is shared by all who wait, so the end of the one who began it is
	// not its end; that of the daemon is.
	result := m.flight.DoChan(ref, func() (any, error) {
		work, cancel := context.WithTimeout(m.life, ensureWithin)
		defer cancel()
		return nil, m.ensure(work, ref)
	})
	select {
	case r := <-result:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *images) ensure(ctx context.Context, ref string) error {
	img, known := m.known(ref)
	have, err := m.complete(ctx, ref, img.Digest)
	if err != nil {
		return err
	}
	switch {
	case have && known && !m.holds(img):
		if err := m.hold(img); err != nil { // the index was lost, the content was not
			m.log.Warn("an image cannot be served", zap.String("image", ref), zap.Error(err))
		}
	case have:
	case known:
		if err := m.fetch(ctx, img); err != nil {
			return err
		}
	default:
		if err := m.pull(ctx, ref); err != nil {
			return err
		}
	}
	return m.runtime.Unpack(ctx, ref)
}

// complete reports whether an image of this content is whole on this node.
func (m *images) complete(ctx context.Context, ref, digest string) (bool, error) {
	img, err := m.runtime.Image(ctx, ref)
	switch {
	case api.KindOf(err) == api.KindNotFound:
		return false, nil
	case err != nil:
		return false, err
	}
	return img.Complete && (digest == "" || img.Target.Digest == digest), nil
}

// fetch brings an image from the nodes that hold it.
func (m *images) fetch(ctx context.Context, img api.Image) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(3)
	for _, b := range img.Blobs {
		group.Go(func() error {
			if have, err := m.runtime.HasBlob(gctx, b.Digest); err != nil || have {
				return err
			}
			return m.fetchBlob(gctx, b, img.Holders)
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("fetch %s from its holders: %w", img.Ref, err)
	}
	if err := m.runtime.RegisterImage(ctx, img.Ref, target(img)); err != nil {
		return err
	}
	return m.hold(img)
}

// fetchBlob streams one blob from other nodes into the content store, which
// checks its digest again.
func (m *images) fetchBlob(ctx context.Context, b api.Blob, holders []api.NodeID) error {
	reader, writer := io.Pipe()
	go func() {
		writer.CloseWithError(m.exchange.Fetch(ctx, b, holders, writer))
	}()
	err := m.runtime.WriteBlob(ctx, b.Digest, b.Size, reader)
	reader.CloseWithError(errors.New("the blob is written"))
	return err
}

// pull brings an image from its registry, and makes it known to the cluster so
// that the other nodes take it from here.
func (m *images) pull(ctx context.Context, ref string) error {
	pulled, err := m.runtime.Pull(ctx, ref)
	if err != nil {
		return err
	}
	blobs, err := m.runtime.Blobs(ctx, pulled.Target)
	if err != nil {
		return err
	}
	img := api.Image{Ref: ref, Digest: pulled.Target.Digest, MediaType: pulled.Target.MediaType}
	for _, d := range blobs {
		img.Blobs = append(img.Blobs, api.Blob{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size})
		img.Size += d.Size
	}
	if _, err := m.share(ctx, img); err != nil {
		m.log.Info("a pulled image was not registered", zap.String("image", ref), zap.Error(err))
	}
	return nil
}

// share computes the leaves of an image whose blobs are here, serves it and
// makes it known.
func (m *images) share(ctx context.Context, img api.Image) (api.Image, error) {
	for i := range img.Blobs {
		leaves, err := m.leaves(ctx, img.Blobs[i])
		if err != nil {
			return img, err
		}
		img.Blobs[i].Leaves = leaves
	}
	if err := m.hold(img); err != nil {
		return img, err
	}
	return m.register(ctx, img)
}

func (m *images) leaves(ctx context.Context, b api.Blob) ([]string, error) {
	r, err := m.runtime.OpenBlob(ctx, b.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return blockstore.Leaves(ctx, io.NewSectionReader(r, 0, r.Size()), r.Size())
}

// Import takes an archive in. It implements control.Importer.
func (m *images) Import(ctx context.Context, r io.Reader, name string) ([]api.Image, error) {
	if err := m.dir.MkdirAll(spoolDir, 0o700); err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	spool, err := m.dir.OpenRoot(spoolDir)
	if err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	defer spool.Close()
	found, err := archive.Read(ctx, r, m.runtime, archive.Options{Dir: spool, Name: name})
	if err != nil {
		return nil, err
	}
	m.importing.Lock()
	defer m.importing.Unlock()
	out := make([]api.Image, len(found))
	for i, img := range found {
		if err := m.runtime.RegisterImage(ctx, img.Ref, target(img)); err != nil {
			return nil, err
		}
		if out[i], err = m.share(ctx, img); err != nil {
			return nil, err
		}
		m.log.Info("imported", zap.String("image", img.Ref), zap.String("digest", img.Digest), zap.Int64("bytes", img.Size))
	}
	return out, nil
}

// target names the manifest or index that an image's reference stands for.
func target(img api.Image) container.Descriptor {
	return container.Descriptor{Digest: img.Digest, MediaType: img.MediaType, Size: sizeOf(img.Blobs, img.Digest)}
}

func sizeOf(blobs []api.Blob, digest string) int64 {
	for _, b := range blobs {
		if b.Digest == digest {
			return b.Size
		}
	}
	return 0
}
