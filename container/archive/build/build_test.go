package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	"github.com/cloudless-project/cloudless/container/archive"
	"github.com/cloudless-project/cloudless/container/archive/build"
)

type blobs map[string][]byte

func (b blobs) WriteBlob(_ context.Context, digest string, _ int64, r io.Reader) (err error) {
	b[digest], err = io.ReadAll(r)
	return err
}

func TestBusybox(t *testing.T) {
	binary := t.TempDir() + "/busybox"
	if err := os.WriteFile(binary, []byte("\x7fELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	make := func() []byte {
		files, err := build.Busybox(binary)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := build.Image(&b, "busybox", files, build.Config{Entrypoint: []string{"/bin/sh"}, Arch: "amd64"}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	data := make()
	if !bytes.Equal(data, make()) {
		t.Error("the same input gives other bytes")
	}
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	stored := blobs{}
	images, err := archive.Read(t.Context(), bytes.NewReader(data), stored, archive.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if images[0].Ref != "docker.io/library/busybox:latest" || len(images[0].Blobs) != 3 {
		t.Errorf("got %+v", images[0])
	}
	modes := map[string]int64{}
	for r := tar.NewReader(bytes.NewReader(stored[images[0].Blobs[2].Digest])); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[h.Name] = h.Mode
		if h.Name == "bin/sh" && (h.Typeflag != tar.TypeSymlink || h.Linkname != "busybox") {
			t.Errorf("got %+v", h)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s is not root's of the epoch: %+v", h.Name, h)
		}
	}
	for name, want := range map[string]int64{"bin/": 0o755, "bin/busybox": 0o755, "tmp/": 0o1777, "www/index.html": 0o644, "bin/httpd": 0o777} {
		if modes[name] != want {
			t.Errorf("%s has mode %o, want %o", name, modes[name], want)
		}
	}
}

func TestImageNeedsArchAndReference(t *testing.T) {
	files, _ := os.OpenRoot(t.TempDir())
	defer files.Close()
	if err := build.Image(io.Discard, "web", files.FS(), build.Config{}); err == nil {
		t.Error("no architecture was accepted")
	}
	if err := build.Image(io.Discard, "Web", files.FS(), build.Config{Arch: "amd64"}); err == nil {
		t.Error("a bad reference was accepted")
	}
	if err := build.Image(io.Discard, "web", files.FS(), build.Config{Arch: "amd64"}); err != nil {
		t.Error(err)
	}
}
