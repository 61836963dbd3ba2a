//go:build linux

package containerd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// The labels of a container's record. Those of the caller get a prefix.
const (
	labelSpec       = "cloudless.spec"        // fingerprint of the Spec
	labelStarted    = "cloudless.started-at"  // of the last run, RFC 3339; empty when never
	labelExit       = "cloudless.exit"        // how that run ended, once Exits has seen it; JSON
	labelStopSignal = "cloudless.stop-signal" // of the image
	labelCaller     = "cloudless.label/"
)

const (
	runtimeRunc  = "io.containerd.runc.v2"
	runtimeRunsc = "io.containerd.runsc.v1"
)

// Create implements container.Containers.
func (r *Runtime) Create(ctx context.Context, s container.Spec) error {
	if err := s.Validate(); err != nil {
		return err
	}
	runtime, err := r.runtimeFor(s.Sandbox)
	if err != nil {
		return err
	}
	unlock, err := r.busy.lock(ctx, s.ID)
	if err != nil {
		return r.explain(err, "create", "container "+s.ID)
	}
	defer unlock()

	existing, err := r.client.ContainerService().Get(ctx, s.ID)
	if err == nil {
		if existing.Labels[labelSpec] != s.Fingerprint() {
			return api.Errorf(api.KindExists, "container %s exists with another spec", s.ID).WithHint("remove it first")
		}
		return nil
	}
	if !errdefs.IsNotFound(err) {
		return r.explain(err, "look up", "container "+s.ID)
	}
	img, snapshotter, err := r.localImage(ctx, s.Image)
	if err != nil {
		return err
	}
	if unpacked, err := img.IsUnpacked(ctx, snapshotter); err != nil || !unpacked {
		return r.explain(errors.Join(err, api.Errorf(api.KindNotFound, "image %s is not unpacked on this node", s.Image)), "create", "container "+s.ID)
	}
	return r.explain(r.create(ctx, &s, img, snapshotter, runtime), "create", "container "+s.ID)
}

func (r *Runtime) create(ctx context.Context, s *container.Spec, img client.Image, snapshotter string, runtime client.NewContainerOpts) error {
	config, err := img.Spec(ctx)
	if err != nil {
		return err
	}
	// An attempt that was cut short may have left the snapshot.
	snapshots := r.client.SnapshotService(snapshotter)
	if err := snapshots.Remove(ctx, s.ID); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	labels := map[string]string{labelSpec: s.Fingerprint(), labelStopSignal: config.Config.StopSignal}
	for k, v := range s.Labels {
		labels[labelCaller+k] = "=" + v // containerd drops empty values
	}
	_, err = r.client.NewContainer(ctx, s.ID,
		client.WithContainerLabels(labels),
		client.WithSnapshotter(snapshotter),
		client.WithNewSnapshot(s.ID, img),
		client.WithNewSpec(
			oci.WithImageConfig(img),
			process(s, config.Config),
			limits(r.host, s, r.cgroup(s.ID)),
			confine(r.host, s),
		),
		runtime,
	)
	if err != nil {
		_ = snapshots.Remove(context.WithoutCancel(ctx), s.ID)
	}
	return err
}

// runtimeFor returns what runs containers of a sandbox. One that is asked for
// and absent is refused, never replaced by a weaker one.
func (r *Runtime) runtimeFor(sandbox string) (client.NewContainerOpts, error) {
	if sandbox != container.SandboxGVisor {
		return client.WithRuntime(runtimeRunc, &options.Options{Root: filepath.Join(r.cfg.StateDir, "runc")}), nil
	}
	for _, binary := range []string{"containerd-shim-runsc-v1", "runsc"} {
		if _, err := exec.LookPath(binary); err != nil {
			return nil, api.Errorf(api.KindUnsupported, "this node has no gVisor: %w", err).
				WithHint("install runsc and containerd-shim-runsc-v1 on the node, or ask for the default sandbox")
		}
	}
	return client.WithRuntime(runtimeRunsc, nil), nil
}

func (r *Runtime) cgroup(id string) string { return path.Join(r.cfg.CgroupParent, id) }

func (r *Runtime) logFile(id string) string { return filepath.Join(r.cfg.LogDir, id+".log") }

func (r *Runtime) fifoDir() (string, error) {
	dir := filepath.Join(r.cfg.StateDir, "fifo")
	return dir, os.MkdirAll(dir, 0o700)
}
