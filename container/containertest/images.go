package containertest

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

func (s *suite) info(t *testing.T) {
	info, err := s.rt.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Name == "" || info.Version == "" || info.Root == "" || info.Snapshotter == "" || info.Cgroup != 1 && info.Cgroup != 2 {
		t.Errorf("incomplete: %+v", info)
	}
}

func (s *suite) content(t *testing.T) {
	ctx := t.Context()
	b := blob("", []byte("suite content: "+strings.Repeat("x", 3<<20)))
	if has, err := s.rt.HasBlob(ctx, b.Digest); err != nil || has {
		t.Fatalf("before it was written: %v, %v", has, err)
	}
	_, err := s.rt.OpenBlob(ctx, b.Digest)
	wantKind(t, "open a missing blob", err, api.KindNotFound)
	_, err = s.rt.HasBlob(ctx, "sha256:../..")
	wantKind(t, "a digest that is none", err, api.KindInvalid)

	for name, bad := range map[string][]byte{
		"short":   b.Data[:len(b.Data)-1],
		"long":    append(slices.Clone(b.Data), 'x'),
		"corrupt": append(slices.Clone(b.Data[:len(b.Data)-1]), 'y'),
	} {
		wantKind(t, name, s.rt.WriteBlob(ctx, b.Digest, b.Size, bytes.NewReader(bad)), api.KindInvalid)
	}
	if has, err := s.rt.HasBlob(ctx, b.Digest); err != nil || has {
		t.Fatalf("after bad writes: %v, %v", has, err)
	}

	if err := s.rt.WriteBlob(ctx, b.Digest, b.Size, bytes.NewReader(b.Data)); err != nil {
		t.Fatal(err)
	}
	unread := strings.NewReader("not this")
	if err := s.rt.WriteBlob(ctx, b.Digest, b.Size, unread); err != nil || unread.Len() != len("not this") {
		t.Errorf("written again: %v, %d bytes left", err, unread.Len())
	}
	r, err := s.rt.OpenBlob(ctx, b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	if err != nil || !bytes.Equal(got, b.Data) {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
}

func (s *suite) images(t *testing.T) {
	ctx := t.Context()
	const ref = "cloudless.test/images:1"
	// Content that no other image has, so that none of it is here before.
	img := NewImage(t, ref, append(s.img.Blobs[2].Data, make([]byte, 512)...), s.img.config(t))
	manifest, config, layer := img.Blobs[0], img.Blobs[1], img.Blobs[2]

	_, err := s.rt.Image(ctx, ref)
	wantKind(t, "look up an unknown image", err, api.KindNotFound)
	wantKind(t, "register without a manifest", s.rt.RegisterImage(ctx, ref, img.Target), api.KindNotFound)
	wantKind(t, "unpack an unknown image", s.rt.Unpack(ctx, ref), api.KindNotFound)
	if err := s.rt.RemoveImage(ctx, ref); err != nil {
		t.Errorf("remove an unknown image: %v", err)
	}

	s.write(t, manifest, config)
	s.register(t, img, false)
	blobs, err := s.rt.Blobs(ctx, img.Target)
	want := []container.Descriptor{manifest.Descriptor, config.Descriptor, layer.Descriptor}
	if err != nil || !slices.Equal(blobs, want) {
		t.Errorf("blobs = %+v, %v; want %+v", blobs, err, want)
	}
	if err := s.rt.Unpack(ctx, ref); err == nil {
		t.Error("an incomplete image was unpacked")
	}

	s.write(t, layer)
	s.register(t, img, true)
	for range 2 {
		if err := s.rt.Unpack(ctx, ref); err != nil {
			t.Errorf("unpack: %v", err)
		}
	}
	all, err := s.rt.ListImages(ctx)
	if err != nil || !slices.Contains(all, container.Image{Ref: ref, Target: img.Target, Complete: true}) {
		t.Errorf("list = %+v, %v", all, err)
	}
	for range 2 {
		if err := s.rt.RemoveImage(ctx, ref); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	_, err = s.rt.Image(ctx, ref)
	wantKind(t, "look up a removed image", err, api.KindNotFound)
	if has, err := s.rt.HasBlob(ctx, layer.Digest); err != nil || has {
		t.Errorf("the layer of a removed image is here: %v, %v", has, err)
	}
}

func (s *suite) write(t *testing.T, blobs ...Blob) {
	t.Helper()
	for _, b := range blobs {
		if err := s.rt.WriteBlob(t.Context(), b.Digest, b.Size, bytes.NewReader(b.Data)); err != nil {
			t.Fatalf("write blob: %v", err)
		}
	}
}

func (s *suite) register(t *testing.T, img Image, complete bool) {
	t.Helper()
	if err := s.rt.RegisterImage(t.Context(), img.Ref, img.Target); err != nil {
		t.Fatalf("register: %v", err)
	}
	got, err := s.rt.Image(t.Context(), img.Ref)
	want := container.Image{Ref: img.Ref, Target: img.Target, Complete: complete}
	if err != nil || got != want {
		t.Errorf("image = %+v, %v; want %+v", got, err, want)
	}
}
