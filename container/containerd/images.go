//go:build linux

package containerd

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// maxImageBlobs bounds how many descriptors one image may reach.
const maxImageBlobs = 4096

// RegisterImage implements container.Images.
func (r *Runtime) RegisterImage(ctx context.Context, ref string, target container.Descriptor) error {
	if ref == "" {
		return api.Invalid("image", "needs a name")
	}
	desc, err := descriptor(target)
	if err != nil {
		return err
	}
	claimed, err := r.claim(ctx, desc)
	if err != nil {
		return r.explain(err, "register", "image "+ref)
	}
	img := images.Image{Name: ref, Target: desc}
	_, err = r.client.ImageService().Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		_, err = r.client.ImageService().Update(ctx, img, "target")
	}
	if err == nil {
		err = r.releaseBlobs(ctx, claimed)
	}
	return r.explain(err, "register", "image "+ref)
}

// claim labels each manifest below desc with what it refers to, so that the
// garbage collector finds the blobs from the image, and returns the digests of
// those that are here.
func (r *Runtime) claim(ctx context.Context, desc ocispec.Descriptor) (map[string]bool, error) {
	store, here := r.client.ContentStore(), make(map[string]bool)
	label := images.SetChildrenMappedLabels(store, images.ChildrenHandler(store), images.ChildGCLabels)
	visit := func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if here[d.Digest.String()] {
			return nil, nil
		}
		if len(here) == maxImageBlobs {
			return nil, api.Errorf(api.KindExhausted, "the image has more than %d blobs", maxImageBlobs)
		}
		_, err := store.Info(ctx, d.Digest)
		if errdefs.IsNotFound(err) && d.Digest != desc.Digest {
			return nil, nil // of another platform, or to come
		}
		if err != nil {
			return nil, err
		}
		here[d.Digest.String()] = true
		return label(ctx, d)
	}
	return here, images.Walk(ctx, images.HandlerFunc(visit), desc)
}

// Image implements container.Images.
func (r *Runtime) Image(ctx context.Context, ref string) (container.Image, error) {
	img, err := r.client.ImageService().Get(ctx, ref)
	if errdefs.IsNotFound(err) {
		return container.Image{}, api.Errorf(api.KindNotFound, "no image %s on this node", ref)
	}
	if err != nil {
		return container.Image{}, r.explain(err, "look up", "image "+ref)
	}
	return r.image(ctx, img)
}

func (r *Runtime) image(ctx context.Context, img images.Image) (container.Image, error) {
	store := r.client.ContentStore()
	found, _, _, missing, err := images.Check(ctx, store, img.Target, platforms.Default())
	if err != nil {
		return container.Image{}, r.explain(err, "check", "image "+img.Name)
	}
	return container.Image{Ref: img.Name, Target: fromOCI(img.Target), Complete: found && len(missing) == 0}, nil
}

// ListImages implements container.Images.
func (r *Runtime) ListImages(ctx context.Context) ([]container.Image, error) {
	all, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, r.explain(err, "list", "images")
	}
	list := make([]container.Image, 0, len(all))
	for _, img := range all {
		i, err := r.image(ctx, img)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b container.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}

// RemoveImage implements container.Images.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	err := r.client.ImageService().Delete(ctx, ref, images.SynchronousDelete())
	if errdefs.IsNotFound(err) {
		return nil
	}
	return r.explain(err, "remove", "image "+ref)
}

// Blobs implements container.Images.
func (r *Runtime) Blobs(ctx context.Context, target container.Descriptor) ([]container.Descriptor, error) {
	desc, err := descriptor(target)
	if err != nil {
		return nil, err
	}
	store := r.client.ContentStore()
	children := images.LimitManifests(
		images.FilterPlatforms(images.ChildrenHandler(store), platforms.Default()), platforms.Default(), 1)
	var blobs []container.Descriptor
	seen := make(map[string]bool)
	visit := func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if seen[d.Digest.String()] {
			return nil, nil
		}
		if len(blobs) == maxImageBlobs {
			return nil, api.Errorf(api.KindExhausted, "the image has more than %d blobs", maxImageBlobs)
		}
		seen[d.Digest.String()] = true
		blobs = append(blobs, fromOCI(d))
		return children(ctx, d)
	}
	if err := images.Walk(ctx, images.HandlerFunc(visit), desc); err != nil {
		return nil, r.explain(err, "walk", "image "+target.Digest)
	}
	return blobs, nil
}

// Unpack implements container.Images.
func (r *Runtime) Unpack(ctx context.Context, ref string) error {
	unlock, err := r.busy.lock(ctx, "image "+ref)
	if err != nil {
		return r.explain(err, "unpack", "image "+ref)
	}
	defer unlock()
	img, snapshotter, err := r.localImage(ctx, ref)
	if err != nil {
		return err
	}
	if unpacked, err := img.IsUnpacked(ctx, snapshotter); err == nil && unpacked {
		return nil
	}
	return r.explain(img.Unpack(ctx, snapshotter), "unpack", "image "+ref)
}

// localImage returns an image by name, for this platform.
func (r *Runtime) localImage(ctx context.Context, ref string) (client.Image, string, error) {
	snapshotter, err := r.snapshotter(ctx)
	if err != nil {
		return nil, "", err
	}
	img, err := r.client.GetImage(ctx, ref)
	if errdefs.IsNotFound(err) {
		return nil, "", api.Errorf(api.KindNotFound, "no image %s on this node", ref)
	}
	if err != nil {
		return nil, "", r.explain(err, "look up", "image "+ref)
	}
	return img, snapshotter, nil
}

func descriptor(d container.Descriptor) (ocispec.Descriptor, error) {
	dgst, err := parseDigest(d.Digest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
		return ocispec.Descriptor{}, api.Invalid("image", "media type %q is neither a manifest nor an index", d.MediaType)
	}
	return ocispec.Descriptor{Digest: dgst, MediaType: d.MediaType, Size: d.Size}, nil
}

func fromOCI(d ocispec.Descriptor) container.Descriptor {
	return container.Descriptor{Digest: d.Digest.String(), MediaType: d.MediaType, Size: d.Size}
}
