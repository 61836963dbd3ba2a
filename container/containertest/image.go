package containertest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/container"
)

// Blob is one blob of a test image.
type Blob struct {
	container.Descriptor
	Data []byte
}

// Image is a small image for this machine's platform. Blobs holds the manifest,
// then the config, then the layer; Target is the manifest's descriptor.
type Image struct {
	Ref    string
	Target container.Descriptor
	Blobs  []Blob
}

// applets are the commands that the test image has.
var applets = []string{
	"sh", "sleep", "true", "cat", "echo", "dd", "id", "ls", "mkdir", "mount", "touch",
	"grep", "head", "hostname", "tail", "seq", "yes", "env", "kill", "ps", "stty", "wget", "httpd", "nc", "ip",
}

// Busybox builds an image that holds a static busybox and nothing else. Labels
// stand in the image's config.
func Busybox(t testing.TB, ref string, labels map[string]string) Image {
	t.Helper()
	return NewImage(t, ref, busyboxLayer(t), ocispec.ImageConfig{
		Env:    []string{"PATH=/bin", "FROM=image"},
		Cmd:    []string{"sh", "-c", "echo hello from the image"},
		Labels: labels,
	})
}

func busyboxLayer(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("the test image needs a static busybox: %v (install it: apt-get install busybox-static)", err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin/", "etc/", "www/"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, data)
	for _, name := range applets {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nweb:x:1001:\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// NewImage builds an image from one uncompressed layer.
func NewImage(t testing.TB, ref string, layer []byte, config ocispec.ImageConfig) Image {
	t.Helper()
	layerBlob := blob(ocispec.MediaTypeImageLayer, layer)
	configBlob := blob(ocispec.MediaTypeImageConfig, encode(t, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(layerBlob.Digest)}},
	}))
	manifest := blob(ocispec.MediaTypeImageManifest, encode(t, ocispec.Manifest{
		Versioned: ocispecs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    descriptor(configBlob),
		Layers:    []ocispec.Descriptor{descriptor(layerBlob)},
	}))
	return Image{Ref: ref, Target: manifest.Descriptor, Blobs: []Blob{manifest, configBlob, layerBlob}}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func blob(mediaType string, data []byte) Blob {
	sum := sha256.Sum256(data)
	return Blob{
		Descriptor: container.Descriptor{Digest: "sha256:" + hex.EncodeToString(sum[:]), MediaType: mediaType, Size: int64(len(data))},
		Data:       data,
	}
}

func descriptor(b Blob) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.Digest(b.Digest), MediaType: b.MediaType, Size: b.Size}
}

// Install writes an image's blobs, registers it and unpacks it.
func Install(t testing.TB, rt interface {
	container.Content
	container.Images
}, img Image) {
	t.Helper()
	for _, b := range img.Blobs {
		if err := rt.WriteBlob(t.Context(), b.Digest, b.Size, bytes.NewReader(b.Data)); err != nil {
			t.Fatalf("write blob: %v", err)
		}
	}
	if err := rt.RegisterImage(t.Context(), img.Ref, img.Target); err != nil {
		t.Fatalf("register image: %v", err)
	}
	if err := rt.Unpack(t.Context(), img.Ref); err != nil {
		t.Fatalf("unpack image: %v", err)
	}
}

// config returns the runtime part of the image's config.
func (img Image) config(t testing.TB) ocispec.ImageConfig {
	t.Helper()
	var config ocispec.Image
	if err := json.Unmarshal(img.Blobs[1].Data, &config); err != nil {
		t.Fatal(err)
	}
	return config.Config
}
