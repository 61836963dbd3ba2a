package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container/archive"
	"github.com/cloudless-project/cloudless/container/archive/build"
)

// sink keeps blobs and verifies them, as a content store does.
type sink struct {
	blobs map[string][]byte
	order []string
}

func (s *sink) WriteBlob(_ context.Context, digest string, size int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if got := digestOf(data); got != digest || int64(len(data)) != size {
		return fmt.Errorf("blob %s has digest %s and %d bytes, not %d", digest, got, len(data), size)
	}
	if s.blobs == nil {
		s.blobs = make(map[string][]byte)
	}
	s.blobs[digest] = data
	s.order = append(s.order, digest)
	return nil
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// entry is one entry of a tar that a test writes.
type entry struct {
	name, data string
	link       string
	typ        byte
}

func writeTar(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Typeflag: e.typ, Linkname: e.link, Size: int64(len(e.data))}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		io.WriteString(w, e.data)
	}
	w.Close()
	return b.Bytes()
}

// readTar returns the entries of an archive, to change them.
func readTar(t testing.TB, data []byte) []entry {
	t.Helper()
	var out []entry
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{name: h.Name, data: string(body), link: h.Linkname, typ: h.Typeflag})
	}
}

func oci(t testing.TB, ref string) []byte {
	t.Helper()
	var b bytes.Buffer
	files := fstest.MapFS{"bin/hello": {Mode: 0o755, Data: []byte("#!/bin/sh\n")}, "etc/motd": {Data: []byte("hi")}}
	if err := build.Image(&b, ref, files, build.Config{Cmd: []string{"/bin/hello"}, Arch: "arm64"}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// docker writes Docker's layout, old style, for images with one layer each.
func docker(images map[string]string) []entry {
	var entries []entry
	var list []map[string]any
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range images {
			if !yield(n) {
				return
			}
		}
	}) {
		layer := images[name]
		config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, digestOf([]byte(layer)))
		id := strings.TrimPrefix(digestOf([]byte(config)), "sha256:")
		dir := strings.TrimPrefix(digestOf([]byte(layer)), "sha256:")
		entries = append(entries,
			entry{name: dir + "/", typ: tar.TypeDir},
			entry{name: dir + "/VERSION", data: "1.0"},
			entry{name: dir + "/json", data: "{}"},
			entry{name: dir + "/layer.tar", data: layer},
			entry{name: id + ".json", data: config})
		list = append(list, map[string]any{"Config": id + ".json", "RepoTags": []string{name}, "Layers": []string{dir + "/layer.tar"}})
	}
	manifest, _ := json.Marshal(list)
	return append(entries, entry{name: "manifest.json", data: string(manifest)}, entry{name: "repositories", data: "{}"})
}

func read(t testing.TB, data []byte, name string) ([]api.Image, *sink, error) {
	t.Helper()
	dir := openDir(t)
	s := &sink{}
	images, err := archive.Read(t.Context(), bytes.NewReader(data), s, archive.Options{Dir: dir, Name: name, MaxSize: 8 << 20, MaxEntries: 500})
	left, e := os.ReadDir(dir.Name())
	if e != nil || len(left) != 0 {
		t.Errorf("left in the spool directory: %v %v", left, e)
	}
	return images, s, err
}

func openDir(t testing.TB) *os.Root {
	t.Helper()
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// check verifies that an image is complete in the sink and is handed on in the
// order that content stores want.
func check(t testing.TB, img api.Image, s *sink) {
	t.Helper()
	var size int64
	for _, b := range img.Blobs {
		if data, ok := s.blobs[b.Digest]; !ok || int64(len(data)) != b.Size || b.MediaType == "" {
			t.Errorf("blob %+v was not stored", b)
		}
		size += b.Size
	}
	if img.Size != size || len(img.Blobs) == 0 || img.Blobs[0].Digest != img.Digest || img.Blobs[0].MediaType != img.MediaType {
		t.Errorf("the image contradicts itself: %+v", img)
	}
	for at, d := range s.order {
		for _, before := range s.order[:at] {
			if bytes.Contains(s.blobs[before], []byte(d)) && !bytes.Contains(s.blobs[d], []byte("layers")) {
				t.Errorf("%s was stored before %s, which it names", before, d)
			}
		}
	}
}

func compressGzip(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func compressZstd(data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(data, nil)
}

func TestReadLayout(t *testing.T) {
	plain := oci(t, "web:1.2")
	var digest string
	for name, data := range map[string][]byte{"plain": plain, "gzip": compressGzip(plain), "zstd": compressZstd(plain)} {
		t.Run(name, func(t *testing.T) {
			images, s, err := read(t, data, "")
			if err != nil {
				t.Fatal(err)
			}
			if len(images) != 1 || images[0].Ref != "docker.io/library/web:1.2" || !slices.Equal(images[0].Platforms, []string{"linux/arm64"}) {
				t.Fatalf("got %+v", images)
			}
			check(t, images[0], s)
			if digest == "" {
				digest = images[0].Digest
			}
			if images[0].Digest != digest || images[0].MediaType != ocispec.MediaTypeImageManifest {
				t.Errorf("got %+v", images[0])
			}
		})
	}
}

func TestReadDocker(t *testing.T) {
	layer := string(writeTar(entry{name: "hello", data: "world"}))
	entries := docker(map[string]string{"registry.example.com/team/web:2": layer})
	images, s, err := read(t, writeTar(entries...), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 1 || images[0].Ref != "registry.example.com/team/web:2" || images[0].Platforms[0] != "linux/amd64" {
		t.Fatalf("got %+v", images)
	}
	check(t, images[0], s)
	var m ocispec.Manifest
	if err := json.Unmarshal(s.blobs[images[0].Digest], &m); err != nil {
		t.Fatal(err)
	}
	if m.MediaType != ocispec.MediaTypeImageManifest || len(m.Layers) != 1 || m.Layers[0].MediaType != ocispec.MediaTypeImageLayer ||
		m.Layers[0].Digest.String() != digestOf([]byte(layer)) || m.Config.MediaType != ocispec.MediaTypeImageConfig {
		t.Errorf("got %+v", m)
	}
}

func TestReadDockerWithLinkedAndCompressedLayers(t *testing.T) {
	layer := string(writeTar(entry{name: "hello", data: "world"}))
	entries := docker(map[string]string{"web:2": layer})
	for i, e := range entries {
		if strings.HasSuffix(e.name, "/layer.tar") {
			entries[i] = entry{name: e.name, typ: tar.TypeSymlink, link: "../real.tar"}
		}
	}
	entries = append(entries, entry{name: "real.tar", data: string(compressGzip([]byte(layer)))})
	images, s, err := read(t, writeTar(entries...), "")
	if err != nil {
		t.Fatal(err)
	}
	check(t, images[0], s)
	if mt := images[0].Blobs[2].MediaType; mt != ocispec.MediaTypeImageLayerGzip {
		t.Errorf("the layer has media type %s", mt)
	}
}

func TestNames(t *testing.T) {
	noName := func(e []entry) []entry {
		for i := range e {
			if e[i].name == "index.json" {
				e[i].data = strings.ReplaceAll(e[i].data, "docker.io/library/web:1.2", "latest") // only a tag
			}
		}
		return e
	}
	unnamed := noName(readTar(t, oci(t, "web:1.2")))
	two := docker(map[string]string{"a:1": "layer one", "b:1": "layer two"})
	var config string
	for _, e := range unnamed {
		if strings.Contains(e.data, "diff_ids") {
			config = e.name
		}
	}
	both := append(slices.Clone(unnamed), entry{name: "manifest.json", data: fmt.Sprintf(
		`[{"Config":%q,"RepoTags":["web:3","example.com/web:3"],"Layers":[]}]`, config)})
	for _, tc := range []struct {
		name    string
		entries []entry
		ask     string
		refs    []string
		err     string
	}{
		{name: "no name", entries: unnamed, err: "does not say what its image is called"},
		{name: "given a name", entries: unnamed, ask: "shop", refs: []string{"docker.io/library/shop:latest"}},
		{name: "renamed", entries: readTar(t, oci(t, "web:1.2")), ask: "x/y:3", refs: []string{"docker.io/x/y:3"}},
		{name: "bad name", entries: unnamed, ask: "Shop!", err: `"Shop!" is not an image reference`},
		{name: "docker's names", entries: both, refs: []string{"docker.io/library/web:3", "example.com/web:3"}},
		{name: "several", entries: two, err: "holds 2 images (a:1, b:1)"},
		{name: "one of several", entries: two, ask: "b:1", refs: []string{"docker.io/library/b:1"}},
		{name: "none of several", entries: two, ask: "c:1", err: "none called docker.io/library/c:1"},
		{name: "none", entries: []entry{{name: "index.json", data: "{}"}}, err: "holds no container image"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			images, s, err := read(t, writeTar(tc.entries...), tc.ask)
			if tc.err != "" {
				refused(t, err, s, tc.err, api.KindInvalid)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var refs []string
			for _, i := range images {
				refs = append(refs, i.Ref)
				check(t, i, s)
			}
			if !slices.Equal(refs, tc.refs) {
				t.Errorf("got %v, want %v", refs, tc.refs)
			}
		})
	}
}

// refused checks an error that people see, and that the sink saw nothing.
func refused(t *testing.T, err error, s *sink, want string, kind api.Kind) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v, want an error with %q", err, want)
	}
	if e.Kind != kind {
		t.Errorf("got kind %s, want %s", e.Kind, kind)
	}
	if len(s.blobs) != 0 {
		t.Errorf("%d blobs were stored all the same", len(s.blobs))
	}
}

func TestReadRefuses(t *testing.T) {
	good := readTar(t, oci(t, "web:1.2"))
	change := func(f func(e entry) (entry, bool)) []byte {
		var out []entry
		for _, e := range good {
			if e, keep := f(e); keep {
				out = append(out, e)
			}
		}
		return writeTar(out...)
	}
	isLayer := func(e entry) bool { return strings.HasPrefix(e.name, "blobs/") && strings.Contains(e.data, "motd") }
	plain := writeTar(good...)
	with := func(e entry) []byte { return writeTar(append([]entry{e}, good...)...) }
	layers := docker(map[string]string{"a:1": "one"})
	for _, tc := range []struct {
		name string
		data []byte
		want string
		kind api.Kind
	}{
		{"empty", nil, "the archive is empty", api.KindInvalid},
		{"text", []byte(strings.Repeat("hello\n", 200)), "not an image archive", api.KindInvalid},
		{"short text", []byte("hello"), "truncated after 5 bytes", api.KindInvalid},
		{"xz", []byte("\xfd7zXZ\x00...."), "xz", api.KindInvalid},
		{"damaged gzip", append([]byte{0x1f, 0x8b}, bytes.Repeat([]byte{7}, 40)...), "damaged", api.KindInvalid},
		{"damaged zstd", append([]byte{0x28, 0xb5, 0x2f, 0xfd}, bytes.Repeat([]byte{0xff}, 40)...), "damaged", api.KindInvalid},
		{"damaged flate", append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3}, bytes.Repeat([]byte{0xff}, 40)...), "damaged", api.KindInvalid},
		{"other tar", writeTar(entry{name: "etc/passwd", data: "x"}), "neither index.json", api.KindInvalid},
		{"truncated", plain[:len(plain)/2], "truncated", api.KindInvalid},
		{"truncated gzip", compressGzip(plain)[:200], "truncated", api.KindInvalid},
		{"truncated zstd", compressZstd(plain)[:200], "truncated", api.KindInvalid},
		{"missing layer", change(func(e entry) (entry, bool) { return e, !isLayer(e) }), "has no blob sha256:", api.KindInvalid},
		{"wrong layer", change(func(e entry) (entry, bool) {
			if isLayer(e) {
				e.data = strings.Replace(e.data, "motd", "mote", 1)
			}
			return e, true
		}), "has digest sha256:", api.KindInvalid},
		{"wrong size", change(func(e entry) (entry, bool) {
			if e.name == "index.json" {
				e.data = strings.Replace(e.data, `"size":`, `"size":1`, 1)
			}
			return e, true
		}), "bytes, not", api.KindInvalid},
		{"other digest", change(func(e entry) (entry, bool) {
			e.data = strings.Replace(e.data, `"digest":"sha256:`, `"digest":"sha1:`, 1)
			return e, true
		}), "is not a sha256 digest", api.KindInvalid},
		{"broken index", writeTar(entry{name: "index.json", data: "{"}), "index.json: unexpected end", api.KindInvalid},
		{"big index", writeTar(entry{name: "index.json", data: strings.Repeat(" ", 5<<20)}), "index.json is larger than", api.KindExhausted},
		{"escape", with(entry{name: "../x", data: "x"}), `"../x" leads out of the archive`, api.KindInvalid},
		{"hidden escape", with(entry{name: "a/../../x", data: "x"}), "leads out of the archive", api.KindInvalid},
		{"absolute", with(entry{name: "/etc/passwd", data: "x"}), "leads out of the archive", api.KindInvalid},
		{"symlink out", with(entry{name: "blobs/x", link: "../../x", typ: tar.TypeSymlink}), "symbolic link that leads out", api.KindInvalid},
		{"absolute symlink", with(entry{name: "x", link: "/etc/passwd", typ: tar.TypeSymlink}), "symbolic link that leads out", api.KindInvalid},
		{"hard link", with(entry{name: "x", link: "index.json", typ: tar.TypeLink}), `"x" is a hard link`, api.KindInvalid},
		{"device", with(entry{name: "x", typ: tar.TypeChar}), "is a device", api.KindInvalid},
		{"fifo", with(entry{name: "x", typ: tar.TypeFifo}), "is a named pipe", api.KindInvalid},
		{"link loop", writeTar(entry{name: "manifest.json", link: "a", typ: tar.TypeSymlink}, entry{name: "a", link: "manifest.json", typ: tar.TypeSymlink}), "neither index.json", api.KindInvalid},
		{"too many entries", writeTar(slices.Repeat([]entry{{name: "x", data: ""}}, 501)...), "more than 500 entries", api.KindExhausted},
		{"too large", compressGzip(writeTar(entry{name: "x", data: string(make([]byte, 9<<20))})), "larger than 8388608 bytes", api.KindExhausted},
		{"docker without layer", writeTar(slices.DeleteFunc(slices.Clone(layers), func(e entry) bool { return strings.HasSuffix(e.name, "layer.tar") })...), "has no layer", api.KindInvalid},
		{"docker without config", writeTar(entry{name: "manifest.json", data: `[{"Config":"x.json"}]`}), `no config "x.json"`, api.KindInvalid},
		{"docker with wrong layer", writeTar(append(slices.Clone(layers), func() entry {
			i := slices.IndexFunc(layers, func(e entry) bool { return strings.HasSuffix(e.name, "layer.tar") })
			return entry{name: layers[i].name, data: "another"}
		}())...), "the config says sha256:", api.KindInvalid},
		{"docker with wrong config", writeTar(append(slices.Clone(layers), func() entry {
			i := slices.IndexFunc(layers, func(e entry) bool { return len(e.name) == 64+len(".json") && strings.HasSuffix(e.name, ".json") })
			return entry{name: layers[i].name, data: "{}"}
		}())...), "has digest sha256:", api.KindInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, s, err := read(t, tc.data, "")
			refused(t, err, s, tc.want, tc.kind)
		})
	}
}

func TestStreamErrorsAreNotTheArchivesFault(t *testing.T) {
	lost := errors.New("connection reset")
	data := oci(t, "web:1")
	r := io.MultiReader(bytes.NewReader(data[:len(data)/2]), iotest.ErrReader(lost))
	s := &sink{}
	if _, err := archive.Read(t.Context(), r, s, archive.Options{Dir: openDir(t)}); !errors.Is(err, lost) || api.KindOf(err) != api.KindInternal {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archive.Read(ctx, bytes.NewReader(data), s, archive.Options{Dir: openDir(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestIndexOfSeveralPlatforms(t *testing.T) {
	// Two images become one index; the second platform's manifest is left out
	// in one of the archives, as docker save does.
	first, second := readTar(t, oci(t, "web:1")), bytesOf(t, "amd64")
	desc := func(entries []entry) ocispec.Descriptor {
		var i ocispec.Index
		for _, e := range entries {
			if e.name == "index.json" {
				json.Unmarshal([]byte(e.data), &i)
			}
		}
		return i.Manifests[0]
	}
	attestation := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` +
		fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]}`, digestOf([]byte("{}")))
	a, b := desc(first), desc(second)
	unknown := ocispec.Descriptor{MediaType: a.MediaType, Digest: "sha256:" + "0", Size: int64(len(attestation)),
		Platform: &ocispec.Platform{OS: "unknown", Architecture: "unknown"}}
	unknown.Digest = ocispec.DescriptorEmptyJSON.Digest.Algorithm().FromString(attestation)
	index, _ := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{a, b, unknown}})
	top, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{{
		MediaType: ocispec.MediaTypeImageIndex, Digest: a.Digest.Algorithm().FromBytes(index), Size: int64(len(index)),
		Annotations: map[string]string{"io.containerd.image.name": "docker.io/library/web:1", ocispec.AnnotationRefName: "1"}}}})
	blob := func(data string) entry {
		return entry{name: "blobs/sha256/" + strings.TrimPrefix(digestOf([]byte(data)), "sha256:"), data: data}
	}
	all := append(slices.Clone(first), second...)
	all = slices.DeleteFunc(all, func(e entry) bool { return e.name == "index.json" })
	all = append(all, blob(string(index)), blob(attestation), blob("{}"), entry{name: "index.json", data: string(top)})

	images, s, err := read(t, writeTar(all...), "")
	if err != nil {
		t.Fatal(err)
	}
	check(t, images[0], s)
	if !slices.Equal(images[0].Platforms, []string{"linux/arm64", "linux/amd64"}) || images[0].MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("got %+v", images[0])
	}
	without := func(digests ...string) []byte {
		return writeTar(slices.DeleteFunc(slices.Clone(all), func(e entry) bool {
			return slices.ContainsFunc(digests, func(d string) bool { return strings.HasSuffix(e.name, d) })
		})...)
	}
	images, s, err = read(t, without(b.Digest.Encoded()), "")
	if err != nil {
		t.Fatal(err)
	}
	check(t, images[0], s)
	if !slices.Equal(images[0].Platforms, []string{"linux/arm64"}) {
		t.Errorf("got %+v", images[0])
	}
	_, s, err = read(t, without(a.Digest.Encoded(), b.Digest.Encoded(), unknown.Digest.Encoded()), "")
	refused(t, err, s, "has no blob", api.KindInvalid)
}

func bytesOf(t *testing.T, arch string) []entry {
	t.Helper()
	var b bytes.Buffer
	if err := build.Image(&b, "web:1", fstest.MapFS{"x": {Data: []byte("x")}}, build.Config{Arch: arch}); err != nil {
		t.Fatal(err)
	}
	return readTar(t, b.Bytes())
}

// Whatever the input, the sink gets verified blobs of the returned images or
// nothing, and nothing stays in the spool directory.
func FuzzRead(f *testing.F) {
	plain := oci(f, "web:1")
	f.Add(plain, "")
	f.Add(compressGzip(plain), "x")
	f.Add(compressZstd(plain), "")
	f.Add(writeTar(docker(map[string]string{"a:1": "one", "b:2": "two"})...), "b:2")
	f.Add(writeTar(entry{name: "x", link: "y", typ: tar.TypeSymlink}), "")
	f.Add([]byte("hello"), "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		images, s, err := read(t, data, name)
		if err != nil {
			if len(s.blobs) != 0 {
				t.Errorf("refused (%v), yet %d blobs were stored", err, len(s.blobs))
			}
			return
		}
		if len(images) == 0 {
			t.Error("no error and no image")
		}
		for _, i := range images {
			check(t, i, s)
		}
	})
}
