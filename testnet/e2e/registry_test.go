//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/cloudless-project/cloudless/testnet"
)

// registryImage is where the image lies in the registry that the test runs on a
// device's loopback: only that device can pull it.
const registryImage = "127.0.0.1:5000/team/web:1"

// serveRegistry serves an image archive as a registry would, until it is
// killed. It runs on a device.
func serveRegistry(archive string) int {
	if err := pushAndServe(archive); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func pushAndServe(archive string) error {
	server := &http.Server{Addr: "127.0.0.1:5000", Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	dir, err := os.MkdirTemp("", "registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %v: %s", archive, err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(registryImage, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, image); err != nil {
		return err
	}
	fmt.Println("serving")
	return <-failed
}

// An image that a single device pulls from a registry runs on others as well:
// they get it from that device.
func TestImageOfARegistryIsPulledOnce(t *testing.T) {
	lab := newCluster(t, "pi", "nas")
	pi, nas := lab.Device("pi"), lab.Device("nas")
	archive := filepath.Join(lab.Dir, "web.tar")
	must(t, testnet.WriteWebImage(archive, testnet.WebImage, 1<<20))
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		_, err := pi.Output(ctx, os.Args[0], "registry", archive)
		served <- err
	}()
	t.Cleanup(func() { stop(); <-served })
	await(t, "the registry to have the image", func(ctx context.Context) error {
		_, err := pi.Output(ctx, "curl", "-fsS", "http://127.0.0.1:5000/v2/team/web/manifests/1")
		return err
	})

	manifest := func(on string, replicas int) string {
		m := strings.Replace(testnet.WebManifest("web", replicas), testnet.WebImage, registryImage, 1)
		return strings.Replace(m, "affinity: [{key: zone, operator: NotIn, values: [cloud], weight: 80}]",
			fmt.Sprintf("affinity: [{key: name, operator: In, values: [%s], required: true}]", on), 1)
	}
	must(t, nas.Apply(t.Context(), manifest("pi", 1)))
	_, err := nas.AwaitReplicas(t.Context(), patient, "web", 1)
	must(t, err)

	must(t, nas.Apply(t.Context(), manifest("pi, nas", 2)))
	w, err := nas.AwaitReplicas(t.Context(), patient, "web", 2)
	must(t, err)
	if places := w.Places(); !slices.Contains(places, "nas") {
		t.Errorf("replicas are on %v, want one on nas", places)
	}
	if list := cloudless(t, nas, "image", "list", "-o", "json"); !strings.Contains(list, registryImage) {
		t.Errorf("the cluster does not know the pulled image: %s", list)
	}
}
