//go:build linux

package containerd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/containertest"
)

// push puts an image into a registry.
func push(t *testing.T, server, repo, tag string, img containertest.Image) {
	t.Helper()
	put := func(url, mediaType string, data []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("PUT %s: %s", url, resp.Status)
		}
	}
	for _, b := range img.Blobs[1:] {
		resp, err := http.Post(server+"/v2/"+repo+"/blobs/uploads/", "", nil) // a test server
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		put(server+resp.Header.Get("Location")+"?digest="+b.Digest, "application/octet-stream", b.Data)
	}
	put(server+"/v2/"+repo+"/manifests/"+tag, img.Target.MediaType, img.Blobs[0].Data)
}

func TestPull(t *testing.T) {
	b := real.start(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	img := containertest.Busybox(t, ref, map[string]string{"pulled": "yes"})
	push(t, server.URL, "team/app", "1", img)

	for range 2 {
		got, err := b.rt.Pull(t.Context(), ref)
		if err != nil || got.Target != img.Target || !got.Complete || got.Ref != ref {
			t.Fatalf("pulled %+v, %v; want %+v", got, err, img.Target)
		}
	}
	t.Cleanup(func() { _ = b.rt.RemoveImage(context.Background(), ref) })
	blobs, err := b.rt.Blobs(t.Context(), img.Target)
	if err != nil || len(blobs) != len(img.Blobs) {
		t.Errorf("blobs to share: %+v, %v", blobs, err)
	}
	if err := b.rt.Unpack(t.Context(), ref); err != nil {
		t.Errorf("unpack: %v", err)
	}

	_, err = b.rt.Pull(t.Context(), strings.Replace(ref, ":1", ":2", 1))
	if i := strings.LastIndex(ref, ":"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("a tag that is not there (%s): %v", ref[:i], err)
	}
	server.Close()
	if _, err := b.rt.Pull(t.Context(), ref); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("a registry that is gone: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.rt.Pull(ctx, ref); err == nil {
		t.Error("a cancelled pull succeeded")
	}
}

// What no image names yet survives a collection of garbage.
func TestUnclaimedContentIsKept(t *testing.T) {
	b := real.start(t)
	img := containertest.NewImage(t, "cloudless.test/unclaimed:1", bytes.Repeat([]byte{0}, 1024), anyImage)
	for _, blob := range img.Blobs {
		if err := b.rt.WriteBlob(t.Context(), blob.Digest, blob.Size, bytes.NewReader(blob.Data)); err != nil {
			t.Fatal(err)
		}
	}
	collect := func() { // removing any image collects garbage at once
		other := containertest.NewImage(t, "cloudless.test/other:1", bytes.Repeat([]byte{0}, 2048), anyImage)
		containertest.Install(t, b.rt, other)
		if err := b.rt.RemoveImage(t.Context(), other.Ref); err != nil {
			t.Fatal(err)
		}
	}
	collect()
	if err := b.rt.RegisterImage(t.Context(), img.Ref, img.Target); err != nil {
		t.Fatal(err)
	}
	collect()
	if got, err := b.rt.Image(t.Context(), img.Ref); err != nil || !got.Complete {
		t.Errorf("image: %+v, %v", got, err)
	}
	leases, err := b.rt.client.LeasesService().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		for _, blob := range img.Blobs {
			if l.Labels[labelBlob] == blob.Digest {
				t.Errorf("the lease of %s is left", blob.Digest)
			}
		}
	}
	if err := b.rt.RemoveImage(t.Context(), img.Ref); err != nil {
		t.Fatal(err)
	}
}

// An index is complete when this machine's part of it is.
func TestIndexOfPlatforms(t *testing.T) {
	b := real.start(t)
	img := containertest.Busybox(t, "cloudless.test/index:1", map[string]string{"index": "yes"})
	arch := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	data, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{
		{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 9, Platform: &ocispec.Platform{OS: "linux", Architecture: arch}},
		{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(img.Target.Digest), Size: img.Target.Size, Platform: &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	index := containertest.Blob{Data: data, Descriptor: container.Descriptor{
		Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), MediaType: ocispec.MediaTypeImageIndex, Size: int64(len(data)),
	}}
	img.Target, img.Blobs = index.Descriptor, append([]containertest.Blob{index}, img.Blobs...)
	containertest.Install(t, b.rt, img)
	t.Cleanup(func() { _ = b.rt.RemoveImage(context.Background(), img.Ref) })
	if got, err := b.rt.Image(t.Context(), img.Ref); err != nil || !got.Complete {
		t.Errorf("image: %+v, %v", got, err)
	}
	var want []container.Descriptor
	for _, blob := range img.Blobs {
		want = append(want, blob.Descriptor)
	}
	if got, err := b.rt.Blobs(t.Context(), img.Target); err != nil || !slices.Equal(got, want) {
		t.Errorf("blobs: %+v, %v; want %+v", got, err, want)
	}
}
