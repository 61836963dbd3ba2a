package fake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func checkDigest(d string) error {
	if !digestPattern.MatchString(d) {
		return api.Invalid("digest", "%q is not a digest", d)
	}
	return nil
}

// HasBlob implements container.Content.
func (r *Runtime) HasBlob(_ context.Context, digest string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.blobs[digest]
	return ok, checkDigest(digest)
}

// OpenBlob implements container.Content.
func (r *Runtime) OpenBlob(_ context.Context, digest string) (container.BlobReader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.blobs[digest]
	if !ok {
		return nil, api.Errorf(api.KindNotFound, "no blob %s on this node", digest)
	}
	return blobReader{bytes.NewReader(data)}, nil
}

type blobReader struct{ *bytes.Reader }

func (blobReader) Close() error { return nil }

// WriteBlob implements container.Content.
func (r *Runtime) WriteBlob(ctx context.Context, digest string, size int64, from io.Reader) error {
	if err := r.begin(ctx, "write", digest); err != nil {
		return err
	}
	if has, err := r.HasBlob(ctx, digest); has || err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(from, size+1))
	if err != nil {
		return fmt.Errorf("write blob %s: %w", digest, err)
	}
	if int64(len(data)) != size {
		return api.Invalid("size", "blob has %d bytes or more, want %d", len(data), size)
	}
	if sum := sha256.Sum256(data); "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return api.Errorf(api.KindInvalid, "blob %s is corrupt", digest)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest] = data
	return nil
}

// RegisterImage implements container.Images.
func (r *Runtime) RegisterImage(ctx context.Context, ref string, target container.Descriptor) error {
	if err := r.begin(ctx, "register", ref); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.walk(target); err != nil {
		return err
	}
	if old := r.images[ref]; old != nil && old.target == target {
		return nil
	}
	r.images[ref] = &image{target: target}
	return nil
}

// Image implements container.Images.
func (r *Runtime) Image(_ context.Context, ref string) (container.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.image(ref)
}

func (r *Runtime) image(ref string) (container.Image, error) {
	img := r.images[ref]
	if img == nil {
		return container.Image{}, api.Errorf(api.KindNotFound, "no image %s on this node", ref)
	}
	return container.Image{Ref: ref, Target: img.target, Complete: img.bare || r.complete(img.target)}, nil
}

func (r *Runtime) complete(target container.Descriptor) bool {
	blobs, err := r.walk(target)
	return err == nil && !slices.ContainsFunc(blobs, func(d container.Descriptor) bool { return r.blobs[d.Digest] == nil })
}

// ListImages implements container.Images.
func (r *Runtime) ListImages(context.Context) ([]container.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]container.Image, 0, len(r.images))
	for ref := range r.images {
		img, err := r.image(ref)
		if err != nil {
			return nil, err
		}
		list = append(list, img)
	}
	slices.SortFunc(list, func(a, b container.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}

// RemoveImage implements container.Images.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	if err := r.begin(ctx, "remove-image", ref); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	img := r.images[ref]
	if img == nil {
		return nil
	}
	delete(r.images, ref)
	used := make(map[string]bool)
	for _, other := range r.images {
		blobs, _ := r.walk(other.target)
		for _, b := range blobs {
			used[b.Digest] = true
		}
	}
	blobs, _ := r.walk(img.target)
	for _, b := range blobs {
		if !used[b.Digest] {
			delete(r.blobs, b.Digest)
		}
	}
	return nil
}

// Blobs implements container.Images.
func (r *Runtime) Blobs(_ context.Context, target container.Descriptor) ([]container.Descriptor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.walk(target)
}

// walk lists what target reaches; it knows no platforms. The caller holds mu.
func (r *Runtime) walk(target container.Descriptor) ([]container.Descriptor, error) {
	data, ok := r.blobs[target.Digest]
	if !ok {
		return nil, api.Errorf(api.KindNotFound, "no manifest %s on this node", target.Digest)
	}
	list := []container.Descriptor{target}
	if target.MediaType == ocispec.MediaTypeImageIndex {
		var index ocispec.Index
		if err := json.Unmarshal(data, &index); err != nil {
			return nil, api.Errorf(api.KindInvalid, "index %s: %w", target.Digest, err)
		}
		for _, m := range index.Manifests {
			below, err := r.walk(fromOCI(m))
			if err != nil {
				return nil, err
			}
			list = append(list, below...)
		}
		return list, nil
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, api.Errorf(api.KindInvalid, "manifest %s: %w", target.Digest, err)
	}
	for _, d := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		list = append(list, fromOCI(d))
	}
	return list, nil
}

func fromOCI(d ocispec.Descriptor) container.Descriptor {
	return container.Descriptor{Digest: d.Digest.String(), MediaType: d.MediaType, Size: d.Size}
}

// Unpack implements container.Images.
func (r *Runtime) Unpack(ctx context.Context, ref string) error {
	if err := r.begin(ctx, "unpack", ref); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	img, err := r.image(ref)
	if err != nil {
		return err
	}
	if !img.Complete {
		return api.Errorf(api.KindNotFound, "image %s is not complete on this node", ref)
	}
	r.images[ref].unpacked = true
	return nil
}

// Pull implements container.Images.
func (r *Runtime) Pull(ctx context.Context, ref string) (container.Image, error) {
	if err := r.begin(ctx, "pull", ref); err != nil {
		return container.Image{}, err
	}
	if r.cfg.Remote == nil {
		return container.Image{}, api.Errorf(api.KindNotFound, "the registry has no image %s", ref)
	}
	target, blobs, err := r.cfg.Remote(ref)
	if err != nil {
		return container.Image{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for digest, data := range blobs {
		r.blobs[digest] = data
	}
	r.images[ref] = &image{target: target}
	return r.image(ref)
}
