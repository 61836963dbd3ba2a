//go:build linux

package containerd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/containerd/supervise"
	"github.com/cloudless-project/cloudless/container/containertest"
)

// A daemon that comes back finds what runs, and how ended what has ended.
func TestNewClientAdopts(t *testing.T) {
	b := real.start(t)
	first, err := New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	s := b.run(t, container.Spec{Command: []string{"sh", "-c", "trap 'exit 9' TERM; echo ready; sleep 1000 & wait"}, Labels: map[string]string{"replica": "r"}})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second, err := New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	found, err := second.Status(t.Context(), s.ID)
	if err != nil || found.State != container.StateRunning || found.PID != s.PID || found.Labels["replica"] != "r" {
		t.Errorf("found %+v, %v; want %+v", found, err, s)
	}
	for e, err := range second.ReadLogs(t.Context(), s.ID, container.LogOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Line == "ready" {
			break
		}
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}

	// It ends while nobody looks.
	if err := syscall.Kill(s.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	third, err := New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if e := await(t, third.Exits(ctx), s.ID); e.Code != 9 || !e.StartedAt.Equal(s.StartedAt) {
		t.Errorf("exit: %+v", e)
	}
}

// Neither the containers nor those who wait for their exits notice more of a
// dying containerd than a pause.
func TestContainerdIsKilledAndComesBack(t *testing.T) {
	b := real.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits := b.rt.Exits(ctx)
	s := b.run(t, container.Spec{Command: []string{"sh", "-c", "echo ready; sleep 1000"}})
	short := container.Spec{ID: s.ID + ".short", Image: s.Image, Command: []string{"sh", "-c", "trap 'exit 6' TERM; echo ready; sleep 1000 & wait"}}
	t.Cleanup(func() { _ = b.rt.Remove(context.Background(), short.ID) })
	if err := b.rt.Create(ctx, short); err != nil {
		t.Fatal(err)
	}
	shortStatus, err := b.rt.Start(ctx, short.ID)
	if err != nil {
		t.Fatal(err)
	}
	for e := range b.rt.ReadLogs(ctx, short.ID, container.LogOptions{Follow: true}) {
		if e.Line == "ready" {
			break
		}
	}

	if err := syscall.Kill(containerdPID(t, b), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shortStatus.PID, syscall.SIGTERM); err != nil { // ends while containerd is away
		t.Fatal(err)
	}
	if e := await(t, exits, short.ID); e.Code != 6 {
		t.Errorf("exit while containerd was away: %+v", e)
	}
	eventually(t, "containerd answers again", func() bool { return supervise.Probe(ctx, b.sup.Address()) == nil })
	again, err := b.rt.Status(ctx, s.ID)
	if err != nil || again.State != container.StateRunning || again.PID != s.PID {
		t.Errorf("the container is %+v, %v; was %+v", again, err, s)
	}
	if err := b.rt.Stop(ctx, s.ID, 0); err != nil {
		t.Fatal(err)
	}
	if e := await(t, exits, s.ID); e.Code != 137 || e.Reason != container.ReasonError {
		t.Errorf("exit afterwards: %+v", e)
	}
}

// containerdPID returns the process that listens at the bench's socket.
func containerdPID(t *testing.T, b *bench) int {
	t.Helper()
	return processOf(t, "containerd\x00--config\x00"+b.dir+"/state/config.toml\x00")
}

// processOf returns the process whose command line ends with what is given.
func processOf(t *testing.T, cmdline string) int {
	t.Helper()
	all, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		got, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && strings.HasSuffix(string(got), cmdline) {
			return pid
		}
	}
	t.Fatalf("no process %q", cmdline)
	return 0
}

// A run that nobody can tell the end of is lost, not running for ever.
func TestKilledShimMeansLost(t *testing.T) {
	b := real.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits := b.rt.Exits(ctx)
	s := b.run(t, container.Spec{Command: containertest.Stubborn})
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	var shim int
	if _, err := fmt.Sscanf(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " %s %d", new(string), &shim); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := await(t, exits, s.ID); e.Reason != container.ReasonLost {
		t.Errorf("exit: %+v", e)
	}
	if again, err := b.rt.Start(ctx, s.ID); err != nil || again.State != container.StateRunning {
		t.Errorf("start again: %+v, %v", again, err)
	}
}

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
		resp, err := http.Post(server+"/v2/"+repo+"/blobs/uploads/", "", nil) //nolint:noctx // a test server
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

func TestContainerdThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	rt, err := New(Config{Address: dir + "/none.sock", StateDir: dir, LogDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	if _, err := rt.Info(t.Context()); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("info: %v", err)
	}
	if _, err := rt.List(t.Context()); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("list: %v", err)
	}
	if err := rt.WriteBlob(t.Context(), "sha256:"+strings.Repeat("0", 64), 1, strings.NewReader("x")); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("write: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	exits := rt.Exits(ctx)
	cancel()
	for range exits {
	}
}
