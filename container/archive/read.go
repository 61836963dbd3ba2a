package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
)

// Sink takes blobs. Each is complete and verified when WriteBlob is called, and
// those that name others come after them: layers, configs, manifests, indexes.
type Sink interface {
	WriteBlob(ctx context.Context, digest string, size int64, r io.Reader) error
}

// Options says how to read an archive.
type Options struct {
	// Dir is where the archive is spooled, in a directory that is removed again.
	// It needs room for the whole uncompressed archive. Required.
	Dir *os.Root
	// Name is the reference to give to the image, or the one to take when the
	// archive holds several. Default: what the archive says.
	Name string
	// MaxSize bounds the uncompressed archive, in bytes. Default 32 GiB.
	MaxSize int64
	// MaxEntries bounds the number of its entries. Default 20000.
	MaxEntries int
}

const (
	maxMetadata    = 4 << 20  // bytes of one JSON document
	maxAllMetadata = 64 << 20 // bytes of all of them together
	maxDescriptors = 10000    // blobs of all images together
	maxDepth       = 4        // indexes inside indexes
)

// Read reads an archive, verifies it, and hands the blobs of its image to sink.
// It returns one api.Image for each name that the image has, with its blobs
// (targets first) but without leaves, holders and times. Errors that are about
// the archive are *api.Error; when Read fails before everything was verified,
// sink was not called.
func Read(ctx context.Context, r io.Reader, sink Sink, opts Options) ([]api.Image, error) {
	if opts.Dir == nil {
		return nil, errors.New("read archive: Dir is required")
	}
	if opts.MaxSize <= 0 {
		opts.MaxSize = 32 << 30
	}
	if opts.MaxEntries <= 0 {
		opts.MaxEntries = 20000
	}
	s, err := newSpool(opts)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.fill(ctx, r); err != nil {
		return nil, err
	}
	found, err := resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	chosen, names, err := choose(found, opts.Name)
	if err != nil {
		return nil, err
	}
	if err := push(ctx, s, chosen, sink); err != nil {
		return nil, err
	}
	images := make([]api.Image, len(names))
	for i, name := range names {
		images[i] = chosen.api(name)
	}
	return images, nil
}

// image is what an archive holds under zero or more names.
type image struct {
	names     []string             // as the archive writes them
	target    ocispec.Descriptor   // its manifest or index
	blobs     []ocispec.Descriptor // distinct; what names others comes before them
	platforms []string             // os/arch[/variant], those that are complete
}

func (i *image) api(ref string) api.Image {
	img := api.Image{
		Ref:       ref,
		Digest:    i.target.Digest.String(),
		MediaType: i.target.MediaType,
		Platforms: slices.Clone(i.platforms),
	}
	for _, d := range i.blobs {
		img.Size += d.Size
		img.Blobs = append(img.Blobs, api.Blob{Digest: d.Digest.String(), MediaType: d.MediaType, Size: d.Size})
	}
	return img
}

// resolve finds the images in a spooled archive. An archive that has both
// layouts, as those of newer versions of docker save, is read as OCI.
func resolve(ctx context.Context, s *spool) ([]*image, error) {
	_, oci := s.lookup(indexFile)
	_, docker := s.lookup(manifestFile)
	switch {
	case oci:
		return resolveLayout(ctx, s)
	case docker:
		return resolveDocker(ctx, s)
	default:
		return nil, invalid("the archive has neither index.json (OCI layout) nor manifest.json (docker save)").
			WithHint("make it with docker save, podman save or buildx --output type=oci; docker export makes something else")
	}
}

// push hands the blobs of an image on, those that others name first.
func push(ctx context.Context, s *spool, i *image, sink Sink) error {
	for _, d := range slices.Backward(i.blobs) {
		if err := pushBlob(ctx, s, d, sink); err != nil {
			return fmt.Errorf("store blob %s: %w", d.Digest, err)
		}
	}
	return nil
}

func pushBlob(ctx context.Context, s *spool, d ocispec.Descriptor, sink Sink) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, ok := s.byDigest[d.Digest.String()]
	if !ok {
		return errors.New("not in the spool")
	}
	r, err := s.open(f)
	if err != nil {
		return err
	}
	defer r.Close()
	return sink.WriteBlob(ctx, d.Digest.String(), d.Size, r)
}

// invalid returns the error for an archive that cannot be used as it is.
func invalid(format string, args ...any) *api.Error {
	return api.Errorf(api.KindInvalid, format, args...)
}
