//go:build linux

package containerd

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// labelBlob marks the lease that keeps a blob which no image has claimed yet.
const labelBlob = "cloudless.blob"

func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", api.Invalid("digest", "%q is not a digest: %v", s, err)
	}
	return d, nil
}

// HasBlob implements container.Content.
func (r *Runtime) HasBlob(ctx context.Context, dgst string) (bool, error) {
	d, err := parseDigest(dgst)
	if err != nil {
		return false, err
	}
	_, err = r.client.ContentStore().Info(ctx, d)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, r.explain(err, "look for", "blob "+dgst)
}

// OpenBlob implements container.Content.
func (r *Runtime) OpenBlob(ctx context.Context, dgst string) (container.BlobReader, error) {
	d, err := parseDigest(dgst)
	if err != nil {
		return nil, err
	}
	ra, err := r.client.ContentStore().ReaderAt(ctx, ocispec.Descriptor{Digest: d})
	if err != nil {
		return nil, r.explain(err, "open", "blob "+dgst)
	}
	return ra, nil
}

// WriteBlob implements container.Content.
func (r *Runtime) WriteBlob(ctx context.Context, dgst string, size int64, from io.Reader) error {
	d, err := parseDigest(dgst)
	if err != nil {
		return err
	}
	unlock, err := r.busy.lock(ctx, dgst)
	if err != nil {
		return r.explain(err, "write", "blob "+dgst)
	}
	defer unlock()

	lease, err := r.client.LeasesService().Create(ctx, leases.WithRandomID(),
		leases.WithExpiration(container.UnclaimedFor), leases.WithLabel(labelBlob, dgst))
	if err != nil {
		return r.explain(err, "write", "blob "+dgst)
	}
	ctx = leases.WithLease(ctx, lease.ID)
	if err := r.ingest(ctx, d, size, from); err != nil {
		_ = r.client.LeasesService().Delete(context.WithoutCancel(ctx), lease)
		return r.explain(err, "write", "blob "+dgst)
	}
	err = r.client.LeasesService().AddResource(ctx, lease, leases.Resource{ID: dgst, Type: "content"})
	return r.explain(err, "keep", "blob "+dgst)
}

// ingest writes a blob into containerd's store, which checks it on commit.
func (r *Runtime) ingest(ctx context.Context, d digest.Digest, size int64, from io.Reader) error {
	store, ref := r.client.ContentStore(), "cloudless-"+d.String()
	w, err := store.Writer(ctx, content.WithRef(ref), content.WithDescriptor(ocispec.Descriptor{Digest: d, Size: size}))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	// What an earlier attempt left is not resumed: the reader starts at zero.
	if err = w.Truncate(0); err == nil {
		err = copyExactly(w, from, size)
	}
	if err == nil {
		err = w.Commit(ctx, size, d)
	}
	_ = w.Close()
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	_ = store.Abort(context.WithoutCancel(ctx), ref)
	if errdefs.IsFailedPrecondition(err) {
		return api.Errorf(api.KindInvalid, "blob %s is corrupt: %w", d, err).WithHint("fetch it again from another source")
	}
	return err
}

func copyExactly(w io.Writer, from io.Reader, size int64) error {
	n, err := io.Copy(w, io.LimitReader(from, size+1))
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if n != size {
		more := ""
		if n > size {
			more = " or more"
		}
		return api.Invalid("size", "blob has %d bytes%s, want %d", n, more, size)
	}
	return nil
}

// releaseBlobs ends the leases of blobs that an image keeps from now on.
func (r *Runtime) releaseBlobs(ctx context.Context, claimed map[string]bool) error {
	held, err := r.client.LeasesService().List(ctx, fmt.Sprintf("labels.%q", labelBlob))
	if err != nil {
		return err
	}
	for _, lease := range held {
		if !claimed[lease.Labels[labelBlob]] {
			continue
		}
		if err := r.client.LeasesService().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}
