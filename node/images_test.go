package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	archive "github.com/cloudless-project/cloudless/container/archive/build"
	"github.com/cloudless-project/cloudless/container/fake"
)

// shelf is an exchange that serves nothing, and gives the blobs it has.
type shelf struct {
	mu       sync.Mutex
	provided map[string]bool
	blobs    map[string]string
}

func (s *shelf) Provide(blobs []api.Blob) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blobs {
		s.provided[b.Digest] = true
	}
	return nil
}

func (s *shelf) Withdraw(digests []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		delete(s.provided, d)
	}
}

func (s *shelf) Fetch(_ context.Context, b api.Blob, _ []api.NodeID, w io.Writer) error {
	_, err := io.WriteString(w, s.blobs[b.Digest])
	return err
}

func (s *shelf) serves(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.provided[digest]
}

// stock is the images of a node whose cluster knows what cluster says.
type stock struct {
	*images
	t       *testing.T
	dir     *dataDir
	shelf   *shelf
	runtime *fake.Runtime
	cluster api.ClusterView
}

func newStock(t *testing.T) *stock {
	s := &stock{t: t, dir: openTestDir(t), runtime: fake.New(fake.Config{})}
	s.shelf = &shelf{provided: make(map[string]bool), blobs: make(map[string]string)}
	s.restart()
	return s
}

// restart is what a new daemon finds.
func (s *stock) restart() {
	s.shelf.provided = make(map[string]bool)
	s.images = &images{
		runtime: s.runtime, exchange: s.shelf, dir: s.dir, log: zap.NewNop(), life: s.t.Context(),
		held: make(map[string]*holding), changed: func() {},
		known: func(ref string) (api.Image, bool) {
			i := slices.IndexFunc(s.cluster.Images, func(img api.Image) bool { return img.Ref == ref })
			if i < 0 {
				return api.Image{}, false
			}
			return s.cluster.Images[i], true
		},
		register: func(_ context.Context, img api.Image) (api.Image, error) { return img, nil },
	}
	if err := s.prepare(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.load(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// publish makes an image of one layer known to the cluster.
func (s *stock) publish(ref, layer string) api.Image {
	put := func(content, media string) api.Blob {
		sum := sha256.Sum256([]byte(content))
		b := api.Blob{Digest: "sha256:" + hex.EncodeToString(sum[:]), MediaType: media, Size: int64(len(content))}
		s.shelf.blobs[b.Digest] = content
		return b
	}
	l := put(layer, "application/vnd.oci.image.layer.v1.tar")
	config := put(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}`, "application/vnd.oci.image.config.v1+json")
	field := func(b api.Blob) string {
		return `{"mediaType":"` + b.MediaType + `","digest":"` + b.Digest + `","size":` + strconv.FormatInt(b.Size, 10) + `}`
	}
	manifest := put(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":`+field(config)+`,"layers":[`+field(l)+`]}`,
		"application/vnd.oci.image.manifest.v1+json")
	img := api.Image{Ref: ref, Digest: manifest.Digest, MediaType: manifest.MediaType, Blobs: []api.Blob{manifest, config, l}, Holders: []api.NodeID{"other"}}
	s.cluster.Images = append(slices.DeleteFunc(s.cluster.Images, func(o api.Image) bool { return o.Ref == ref }), img)
	return img
}

func (s *stock) ensure(ref string) {
	s.t.Helper()
	if err := s.Ensure(s.t.Context(), ref); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stock) want(refs ...string) {
	s.t.Helper()
	if got := s.refs(); !slices.Equal(got, refs) {
		s.t.Errorf("holds %v, want %v", got, refs)
	}
}

const (
	web  = "docker.io/library/web:1"
	twin = "docker.io/library/web:latest"
)

func TestTwoNamesOfOneImageAreBothRemembered(t *testing.T) {
	s := newStock(t)
	img := s.publish(web, "layer")
	s.publish(twin, "layer")
	s.ensure(web)
	s.ensure(twin)
	s.restart()
	s.want(web, twin)
	s.drop(t.Context(), twin)
	if !s.shelf.serves(img.Blobs[2].Digest) {
		t.Error("a layer is not served any more that another name still needs")
	}
	s.restart()
	s.want(web)
}

func TestNewContentReplacesTheOld(t *testing.T) {
	s := newStock(t)
	old := s.publish(web, "old layer")
	s.ensure(web)
	renewed := s.publish(web, "new layer")
	// The cluster means something else now, so the old content is not told of.
	s.review(t.Context(), s.cluster, map[string]bool{web: true}, time.Now())
	s.want()
	s.ensure(web)
	s.review(t.Context(), s.cluster, map[string]bool{web: true}, time.Now())
	s.want(web)
	if s.shelf.serves(old.Blobs[2].Digest) || !s.shelf.serves(renewed.Blobs[2].Digest) {
		t.Error("the old layer is served instead of the new one")
	}
}

func TestForgottenImageIsDroppedWhenNobodyUsesIt(t *testing.T) {
	s := newStock(t)
	img := s.publish(web, "layer")
	s.ensure(web)
	s.cluster.Images = nil
	now := time.Now()
	for _, used := range []map[string]bool{{web: true}, nil} {
		s.review(t.Context(), s.cluster, used, now)
		now = now.Add(dropAfter)
	}
	s.want(web) // in use until now, and only just seen to be forgotten
	s.review(t.Context(), s.cluster, nil, now)
	s.want()
	if s.shelf.serves(img.Digest) {
		t.Error("it is still served")
	}
	if _, err := s.runtime.Image(t.Context(), web); api.KindOf(err) != api.KindNotFound {
		t.Errorf("the runtime still has it: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(s.dir.path, imagesDir)); len(entries) != 0 {
		t.Errorf("the index still has %v", entries)
	}
}

func TestDamagedImageIsBroughtAgain(t *testing.T) {
	s := newStock(t)
	img := s.publish(web, "layer")
	s.ensure(web)
	s.shelf.Withdraw([]string{img.Blobs[2].Digest}) // as the exchange does itself
	s.distrust(t.Context(), img.Blobs[2].Digest, map[string]bool{web: true})
	s.want(web)
	if !s.shelf.serves(img.Blobs[2].Digest) {
		t.Error("the layer is not served again")
	}
}

func TestImageIsServedAgainWhenTheIndexIsLost(t *testing.T) {
	s := newStock(t)
	s.publish(web, "layer")
	s.ensure(web)
	if err := s.dir.RemoveAll(imagesDir); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.want()
	s.ensure(web)
	s.want(web)
}

// The API is served before the runtime answers, so an import may be under way
// when the node learns what it has, again and again until that works.
func TestImportWhileTheNodeBegins(t *testing.T) {
	s := newStock(t)
	var tar bytes.Buffer
	files := fstest.MapFS{"hello": {Data: []byte("hello")}}
	if err := archive.Image(&tar, web, files, archive.Config{Arch: "amd64"}); err != nil {
		t.Fatal(err)
	}
	if err := s.dir.Mkdir(spoolDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.dir.WriteFile(spoolDir+"/cut-off", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if _, err := s.dir.Stat(spoolDir + "/cut-off"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what an earlier import left is still there: %v", err)
	}
	// Once the archive is read, the import has made its directory.
	begun := readerFunc(func([]byte) (int, error) {
		if err := s.load(t.Context()); err != nil {
			t.Error(err)
		}
		return 0, io.EOF
	})
	half := bytes.NewReader(tar.Next(tar.Len() / 2))
	imported, err := s.Import(t.Context(), io.MultiReader(begun, half, begun, &tar), "")
	if err != nil || len(imported) != 1 {
		t.Fatalf("imported %v, %v", imported, err)
	}
	s.want(web)
	s.restart()
	s.want(web)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestIndexOfEarlierVersionsIsTaken(t *testing.T) {
	s := newStock(t)
	img := s.publish(web, "layer")
	s.ensure(web)
	_ = s.dir.Remove(indexName(web))
	old := imagesDir + "/" + strings.ReplaceAll(img.Digest, ":", "-") + ".json"
	if err := s.dir.saveJSON(old, img); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.want(web)
	if _, err := s.dir.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old entry is still there: %v", err)
	}
}
